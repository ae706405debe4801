//! A tenant's rows: out of its schema as of one moment, and into an empty one.
//!
//! Which tables, and why not others, is said by their declaration ([`finaiflow_schema::tables`]). Rows travel as COPY text,
//! with their columns named: another order of columns, or another server's version, makes no difference.

mod ahead;
mod load;
mod moment;
mod region;
mod tally;

use finaiflow_schema::names::{Identifier, quote};
use finaiflow_schema::tables::{Class, TABLES, Table};

pub use load::Load;
pub use moment::Moment;
pub use region::Since;
pub use tally::Tally;

use crate::sections::Section;

/// Why rows cannot be read, or put where they should be. No variant carries a row's content.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A standby does not tell which transactions are under way, so what it shows may lack rows.
    #[error("this server is a standby: backups are taken from the primary only")]
    Standby,
    /// The login sees no tenant's schema.
    #[error("there is no migrated schema where this login looks")]
    NoSchema,
    /// A backup without it would not be whole.
    #[error("table {0} is not declared, so nobody knows how to back it up")]
    Undeclared(String),
    /// The schema is of another version than the backup, or damaged.
    #[error("{0} does not fit this schema")]
    Misfit(String),
    /// A restore makes a bank anew; it does not mend one.
    #[error("table {0} is not empty")]
    NotEmpty(String),
    /// The rows that arrived are not those that were sent.
    #[error("table {0} holds other rows than its manifest says")]
    Differs(String),
    /// The database refused, or broke off.
    #[error("{0}")]
    Database(String),
}

/// Shorthand for this module's results.
pub type Result<T> = std::result::Result<T, Error>;

impl From<sqlx::Error> for Error {
    /// The primary message only: the detail of a constraint quotes the row.
    fn from(error: sqlx::Error) -> Self {
        Self::Database(match error.as_database_error() {
            Some(told) => format!("{} (sqlstate {})", told.message(), told.code().unwrap_or_default()),
            None => error.to_string(),
        })
    }
}

impl From<finaiflow_schema::Error> for Error {
    fn from(error: finaiflow_schema::Error) -> Self {
        Self::Database(error.to_string())
    }
}

/// `"column", …`
fn columns(section: &Section) -> String {
    section.columns.iter().map(quote).collect::<Vec<_>>().join(", ")
}

/// The keys that an increment touches, before its rows.
fn touched() -> Result<Section> {
    let name = |name: &str| Identifier::new(name).map_err(|error| Error::Misfit(error.to_string()));
    let columns = ["table_name", "op", "pk"].map(name).into_iter().collect::<Result<_>>()?;
    Ok(Section { table: name("_changes")?, columns })
}

/// How `table` is declared.
fn declared(table: &Identifier) -> Result<&'static Table> {
    let declared = TABLES.iter().find(|declared| declared.name == table.as_str() && declared.is_backed_up());
    declared.ok_or_else(|| Error::Misfit(format!("table {table}")))
}

/// The tables of the schema in the search path that are backed up. What derives from others follows them.
async fn layout(conn: &mut sqlx::PgConnection) -> Result<Vec<Section>> {
    // xid says by which transaction a row came here; it means nothing elsewhere.
    let live: Vec<(String, Vec<String>)> = sqlx::query_as(
        "SELECT c.relname::text, array_agg(a.attname::text ORDER BY a.attnum)
         FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'm', 'f')
           AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> 'xid'
         GROUP BY c.oid",
    )
    .fetch_all(conn)
    .await?;
    if live.is_empty() {
        return Err(Error::NoSchema);
    }
    if let Some((name, _)) = live.iter().find(|(name, _)| TABLES.iter().all(|table| table.name != name)) {
        return Err(Error::Undeclared(name.clone()));
    }
    let mut sections = Vec::new();
    let (derived, others): (Vec<&Table>, Vec<&Table>) =
        TABLES.iter().filter(|table| table.is_backed_up()).partition(|table| table.class == Class::Derived);
    for table in others.into_iter().chain(derived) {
        let columns = live.iter().find(|(name, _)| name == table.name).map(|(_, columns)| columns);
        let columns = columns.ok_or_else(|| Error::Misfit(format!("table {}, which is missing,", table.name)))?;
        let name = |name: &str| Identifier::new(name).map_err(|error| Error::Misfit(error.to_string()));
        let columns = columns.iter().map(|column| name(column)).collect::<Result<_>>()?;
        sections.push(Section { table: name(table.name)?, columns });
    }
    Ok(sections)
}
