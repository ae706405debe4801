//! Writing.

use finaiflow_ledger::chain::{Anchor, Hash};
use finaiflow_ledger::id::Sequence;
use finaiflow_schema::become_owner;
use finaiflow_schema::names::{Identifier, TenantNames, quote};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Transaction};
use time::OffsetDateTime;

use super::moment::SAME_TEXT;
use super::region::Side;
use super::{Error, Moment, Result, Since, Tally, columns, declared, layout, touched};
use crate::sections::Section;

/// A migrated schema without rows that is being filled, in one transaction: all of it is there in the end, or nothing.
#[derive(Debug)]
pub struct Load<'c> {
    pub(super) tx: Transaction<'c, Postgres>,
    pub(super) tables: Vec<Section>,
    touched: Section,
    loaded: Vec<Identifier>,
}

impl<'c> Load<'c> {
    /// Acts as the owner, so that nothing can be reached but what is the tenant's, whatever a backup says.
    pub async fn begin(conn: &'c mut PgConnection, names: &TenantNames) -> Result<Self> {
        let mut tx = conn.begin().await?;
        run(&mut tx, SAME_TEXT.to_owned()).await?;
        become_owner(&mut tx, names).await?;
        let tables = layout(&mut tx).await?;
        for Section { table, .. } in &tables {
            // What is restored is no change that a later backup would have to hold. From here on nobody else writes.
            run(&mut tx, format!("ALTER TABLE {} DISABLE TRIGGER USER", quote(table))).await?;
            // The head has a row from the beginning.
            if table.as_str() == "ledger_head" {
                run(&mut tx, "DELETE FROM ledger_head".to_owned()).await?;
                continue;
            }
            let any = AssertSqlSafe(format!("SELECT EXISTS (SELECT FROM {})", quote(table)));
            if sqlx::query_scalar(any).fetch_one(&mut *tx).await? {
                return Err(Error::NotEmpty(table.to_string()));
            }
        }
        Ok(Self { tx, tables, touched: touched()?, loaded: Vec::new() })
    }

    /// Begins a table: all of it, or what an increment holds of it.
    pub async fn table(&mut self, section: &Section, since: Option<&Since>) -> Result<Table<'_>> {
        if since.is_some() && *section == self.touched {
            run(&mut self.tx, "DELETE FROM _changes".to_owned()).await?;
        } else {
            self.make_room(section, since).await?;
        }
        Table::open(&mut self.tx, &section.table, section).await
    }

    async fn make_room(&mut self, section: &Section, since: Option<&Since>) -> Result<()> {
        if !self.fits(section) || self.loaded.contains(&section.table) {
            return Err(Error::Misfit(format!("table {}", section.table)));
        }
        self.loaded.push(section.table.clone());
        let declared = declared(&section.table)?;
        if let Some(region) = since.and_then(|since| since.region(declared, Side::Target)) {
            run(&mut self.tx, format!("DELETE FROM {} WHERE {region}", quote(&section.table))).await?;
        }
        Ok(())
    }

    pub(super) fn fits(&self, section: &Section) -> bool {
        self.tables.iter().any(|known| {
            known.table == section.table
                && known.columns.len() == section.columns.len()
                && section.columns.iter().all(|column| known.columns.contains(column))
        })
    }

    /// What there is so far.
    pub async fn moment(&mut self) -> Result<Moment<'_>> {
        Moment::within(&mut self.tx).await
    }

    /// Where the ledger ends so far, and when that was booked.
    pub async fn head(&mut self) -> Result<(Anchor, OffsetDateTime)> {
        let (epoch, sequence, hash, time): (i32, i64, [u8; 32], OffsetDateTime) =
            sqlx::query_as("SELECT epoch, sequence, hash, head_time FROM ledger_head").fetch_one(&mut *self.tx).await?;
        let sequence = Sequence::try_from(sequence).map_err(|error| Error::Misfit(error.to_string()))?;
        Ok((Anchor { epoch: epoch.cast_unsigned(), sequence, hash: Hash(hash) }, time))
    }

    /// Whether the ledger has another journal where that epoch had one that was kept.
    pub async fn denies(&mut self, anchor: Anchor) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT FROM journals WHERE sequence = $1 AND epoch = $2 AND hash <> $3)";
        let other = sqlx::query_scalar(sql)
            .bind(i64::from(anchor.sequence))
            .bind(anchor.epoch.cast_signed())
            .bind(anchor.hash.0)
            .fetch_one(&mut *self.tx);
        Ok(other.await?)
    }

    /// Lets the bank go on from here: its ledger in a new epoch, and what was not sent yet held, as it may have been sent since.
    /// Held is what was delivered at `infinity`; whoever wants it sent after all sets that to null.
    pub async fn go_on(&mut self, abandoned: Option<Anchor>) -> Result<Anchor> {
        run(&mut self.tx, "UPDATE outbox SET delivered_at = 'infinity' WHERE delivered_at IS NULL".to_owned()).await?;
        Ok(finaiflow_ledger::fork(&mut self.tx, abandoned).await?)
    }

    /// Ends an artefact. Fails if a table is missing.
    pub async fn end(&mut self) -> Result<()> {
        if let Some(missing) = self.tables.iter().find(|section| !self.loaded.contains(&section.table)) {
            return Err(Error::Misfit(format!("a backup without table {}", missing.table)));
        }
        self.loaded.clear();
        run(&mut self.tx, "DELETE FROM _changes".to_owned()).await
    }

    /// Makes it last.
    pub async fn finish(mut self) -> Result<()> {
        for Section { table, .. } in &self.tables {
            run(&mut self.tx, format!("ALTER TABLE {} ENABLE TRIGGER USER", quote(table))).await?;
        }
        let identities: Vec<(String, String)> = sqlx::query_as(
            "SELECT quote_ident(c.relname), quote_ident(a.attname)
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
             WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attidentity <> ''",
        )
        .fetch_all(&mut *self.tx)
        .await?;
        for (table, column) in identities {
            let next = format!(
                "SELECT setval(pg_get_serial_sequence('{table}', '{column}'), (SELECT max({column}) FROM {table}))"
            );
            run(&mut self.tx, next).await?;
        }
        let tables: Vec<_> = self.tables.iter().map(|section| quote(&section.table)).collect();
        run(&mut self.tx, format!("ANALYZE {}", tables.join(", "))).await?;
        self.tx.commit().await?;
        Ok(())
    }
}

/// A table that is being loaded.
pub struct Table<'t> {
    rows: sqlx::postgres::PgCopyIn<&'t mut PgConnection>,
    tally: Tally,
}

impl<'t> Table<'t> {
    /// Rows with a section's columns, into a table that may have another name.
    pub(super) async fn open(conn: &'t mut PgConnection, table: &Identifier, section: &Section) -> Result<Self> {
        let statement = format!("COPY {} ({}) FROM STDIN", quote(table), columns(section));
        Ok(Self { rows: conn.copy_in_raw(&statement).await?, tally: Tally::default() })
    }

    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tally.rows()
    }

    /// Adds COPY text.
    pub async fn add(&mut self, text: &[u8]) -> Result<()> {
        self.tally.add(text);
        self.rows.send(text).await?;
        Ok(())
    }

    /// Ends it, and tells what was loaded.
    pub async fn finish(self) -> Result<Tally> {
        self.rows.finish().await?;
        Ok(self.tally)
    }
}

pub(super) async fn run(conn: &mut PgConnection, sql: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await?;
    Ok(())
}
