//! The ledger verification job.

use std::process::Command;

use finaiflow_api::verify::{VerifyError, verify_ledger};
use finaiflow_schema::names::quote;
use finaiflow_schema::testing::TenantDb;
use sqlx::AssertSqlSafe;

async fn recorded(db: &TenantDb) -> Vec<bool> {
    let sql = format!("SELECT balanced FROM {}.ledger_verifications ORDER BY id", quote(&db.names.schema));
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut db.superuser().await).await.unwrap()
}

#[tokio::test]
async fn the_job_records_what_it_found_and_succeeds_either_way() {
    let db = TenantDb::create().await;
    let job = || {
        let mut job = Command::new(env!("CARGO_BIN_EXE_finaiflow-api"));
        job.arg("verify-ledger").env("DATABASE_URL", &db.maintenance_url).output().unwrap()
    };
    let output = job();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary = String::from_utf8(output.stdout).unwrap();
    let summary: serde_json::Value = serde_json::from_str(summary.lines().last().unwrap()).unwrap();
    assert_eq!(summary["balanced"], true, "{summary}");

    let tamper = format!(
        "INSERT INTO {}.entries (account_id, seq, sequence, leg, posted_delta, held_delta, posted_after, held_after)
         VALUES (1, 1, 1, 0, 5, 0, 5, 0)",
        quote(&db.names.schema)
    );
    sqlx::query(AssertSqlSafe(tamper)).execute(&mut db.superuser().await).await.unwrap();
    assert!(job().status.success(), "an unbalanced ledger is a result, not a failure");
    assert_eq!(recorded(&db).await, [true, false]);
    db.drop().await;
}

#[tokio::test]
async fn a_job_that_cannot_verify_fails() {
    let db = TenantDb::create().await;
    assert!(matches!(verify_ledger("nonsense").await, Err(VerifyError::Url)));
    let wrong = db.maintenance_url.replace(db.names.schema.as_str(), "x").replacen("://", "://nobody", 1);
    assert!(matches!(verify_ledger(&wrong).await, Err(VerifyError::Read(_))));
    assert!(matches!(verify_ledger(&db.app_url).await, Err(VerifyError::Read(_) | VerifyError::Record(_))));
    assert_eq!(recorded(&db).await, Vec::<bool>::new());
    let job = Command::new(env!("CARGO_BIN_EXE_finaiflow-api"))
        .arg("verify-ledger")
        .env("DATABASE_URL", &wrong)
        .output()
        .unwrap();
    assert!(!job.status.success());
    db.drop().await;
}
