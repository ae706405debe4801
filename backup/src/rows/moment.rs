//! Reading.

use finaiflow_ledger::chain::Hash;
use finaiflow_ledger::id::Sequence;
use finaiflow_schema::become_owner;
use finaiflow_schema::names::{TenantNames, quote};
use futures::TryStreamExt;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use super::region::Side;
use super::{Error, Result, Since, Tally, columns, declared, layout, touched};
use crate::manifest::{Balance, Server, Span, Sum};
use crate::sections::Section;

/// One moment of a tenant's schema: all that is read through it is as it was then, whatever is written meanwhile.
#[derive(Debug)]
pub struct Moment<'c> {
    conn: &'c mut PgConnection,
    /// When it is, by the database's clock.
    pub taken_at: OffsetDateTime,
    /// The transactions that had ended by then, as `pg_current_snapshot()` writes them.
    pub snapshot: String,
    /// Where.
    pub server: Server,
    /// The last migration of the schema.
    pub schema_version: i32,
    /// SHA-256 over the checksums of its migrations, a line each.
    pub schema_fingerprint: Hash,
    /// All journals up to then.
    pub ledger: Span,
    /// What the accounts hold, by currency.
    pub balances: Vec<Balance>,
    tables: Vec<Section>,
    touched: Section,
}

/// What text says does not depend on who asks, for the rest of the transaction.
pub(super) const SAME_TEXT: &str = "
    SET LOCAL TimeZone TO 'UTC'; SET LOCAL DateStyle TO 'ISO'; SET LOCAL IntervalStyle TO 'iso_8601';
    SET LOCAL extra_float_digits TO 1; SET LOCAL bytea_output TO 'hex'";

// A standby has no end of the log to name a file for.
const MOMENT: &str = "
    SELECT now() AS taken_at, pg_current_snapshot()::text AS snapshot, pg_is_in_recovery() AS is_standby,
        (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
        CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END AS timeline,
        current_setting('server_version_num')::int AS server_version";

#[derive(FromRow)]
struct MomentRow {
    taken_at: OffsetDateTime,
    snapshot: String,
    is_standby: bool,
    system_identifier: String,
    timeline: Option<String>,
    server_version: i32,
}

const SCHEMA: &str = "
    SELECT max(version), sha256(string_agg(checksum || E'\\n', '' ORDER BY version)::bytea)
    FROM schema_migrations WHERE version > 0";

const HEAD: &str = "SELECT epoch, sequence, nullif(head_time, 'epoch') AS head_time, hash FROM ledger_head";

#[derive(FromRow)]
struct HeadRow {
    #[sqlx(try_from = "i32")]
    epoch: u32,
    #[sqlx(try_from = "i64")]
    sequence: Sequence,
    head_time: Option<OffsetDateTime>,
    hash: [u8; 32],
}

const BALANCES: &str = "
    SELECT currency::text, sum(greatest(-posted, 0))::text, sum(greatest(posted, 0))::text
    FROM accounts JOIN account_balances ON account_id = id GROUP BY currency ORDER BY currency";

impl<'c> Moment<'c> {
    /// Holds the moment open, until [`Self::close`] or the connection's end. Reads the schema of `names` as its owner, or
    /// the one that the login itself is for.
    pub async fn open(conn: &'c mut PgConnection, names: Option<&TenantNames>) -> Result<Self> {
        sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut *conn).await?;
        sqlx::raw_sql(SAME_TEXT).execute(&mut *conn).await?;
        if let Some(names) = names {
            become_owner(conn, names).await?;
        }
        Self::within(conn).await
    }

    /// The same in a transaction that is under way, acting in the schema: what it has made so far.
    pub(super) async fn within(conn: &'c mut PgConnection) -> Result<Self> {
        let now: MomentRow = sqlx::query_as(MOMENT).fetch_one(&mut *conn).await?;
        let timeline = now.timeline.filter(|_| !now.is_standby).ok_or(Error::Standby)?;
        let tables = layout(conn).await?;
        let (version, fingerprint): (Option<i32>, Option<[u8; 32]>) =
            sqlx::query_as(SCHEMA).fetch_one(&mut *conn).await?;
        let (schema_version, fingerprint) = version.zip(fingerprint).ok_or(Error::NoSchema)?;
        let head: HeadRow = sqlx::query_as(HEAD).fetch_one(&mut *conn).await?;
        let balances: Vec<(String, String, String)> = sqlx::query_as(BALANCES).fetch_all(&mut *conn).await?;
        let sum = |text: String| text.parse::<Sum>().map_err(|error| Error::Misfit(error.to_string()));
        let balance = |(currency, debits, credits): (String, String, String)| {
            Ok(Balance { currency, debits: sum(debits)?, credits: sum(credits)? })
        };
        Ok(Self {
            taken_at: now.taken_at,
            snapshot: now.snapshot,
            server: Server {
                system_identifier: now.system_identifier,
                timeline: u32::from_str_radix(&timeline, 16).map_err(|error| Error::Misfit(error.to_string()))?,
                server_version: now.server_version.unsigned_abs(),
            },
            schema_version,
            schema_fingerprint: Hash(fingerprint),
            ledger: Span {
                epoch: head.epoch,
                from_sequence: Sequence::default(),
                sequence: head.sequence,
                head_time: head.head_time,
                hash: Hash(head.hash),
            },
            balances: balances.into_iter().map(balance).collect::<Result<_>>()?,
            tables,
            touched: touched()?,
            conn,
        })
    }

    /// What there is to copy: everything, or what an increment is made of.
    #[must_use]
    pub fn sections(&self, since: Option<&Since>) -> Vec<Section> {
        let touched = since.map(|_| self.touched.clone());
        touched.into_iter().chain(self.tables.iter().cloned()).collect()
    }

    /// Copies the rows of a table out, piece by piece: all, or those where something may have changed.
    pub async fn copy<E: From<Error>>(
        &mut self,
        section: &Section,
        since: Option<&Since>,
        mut piece: impl AsyncFnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<Tally, E> {
        let mut tally = Tally::default();
        let (columns, table) = (columns(section), &section.table);
        let statement = match since {
            None => format!("COPY {} ({columns}) TO STDOUT", quote(table)),
            Some(since) if *section == self.touched => format!("COPY ({}) TO STDOUT", since.touched()),
            Some(since) => {
                let region = since.region(declared(table)?, Side::Source).unwrap_or_else(|| "true".to_owned());
                format!("COPY (SELECT {columns} FROM {} WHERE {region}) TO STDOUT", quote(table))
            }
        };
        let mut rows = self.conn.copy_out_raw(&statement).await.map_err(Error::from)?;
        while let Some(text) = rows.try_next().await.map_err(Error::from)? {
            tally.add(&text);
            piece(&text).await?;
        }
        Ok(tally)
    }

    /// Makes sure, through another session, that no transaction of after a crash gets a number that this moment has seen:
    /// PostgreSQL gives out again what its log does not tell of.
    pub async fn outlive_crashes(&self, other: &mut PgConnection) -> Result<()> {
        // Written in the name of a transaction that is younger than all of the moment, and flushed when it commits.
        let note = "SELECT pg_logical_emit_message(true, 'finaiflow', 'backup')";
        sqlx::query(note).execute(other).await?;
        Ok(())
    }

    /// Lets go of it.
    pub async fn close(self) -> Result<()> {
        sqlx::raw_sql("ROLLBACK").execute(&mut *self.conn).await?;
        Ok(())
    }
}
