//! Integration tests on a real PostgreSQL; see `testing::TenantDb`.

#![expect(clippy::unwrap_used, reason = "a failure is the test's failure")]

mod attacks;
mod books;
mod claims;
mod conformance;
mod grants;
mod ledger;
mod logins;
mod migrations;
mod provisioning;
mod removal;
mod restores;

use finaiflow_schema::names::{Identifier, quote};
use sqlx::{AssertSqlSafe, Executor, PgConnection};

/// Runs a statement built by a test; `{s}` stands for the schema.
async fn execute(conn: &mut PgConnection, schema: &Identifier, sql: &str) -> Result<(), sqlx::Error> {
    let sql = sql.replace("{s}", &quote(schema));
    conn.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map(drop)
}

/// The SQLSTATE of a failure, `ok` for none.
fn sqlstate<T>(result: Result<T, sqlx::Error>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(sqlx::Error::Database(error)) => error.code().unwrap_or_default().into_owned(),
        Err(error) => error.to_string(),
    }
}
