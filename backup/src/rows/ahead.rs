//! Going on from an artefact to a journal that a later one holds.
//!
//! The books alone go on, by the functions that book batches, from the journals and entries up to that one. All other
//! tables stay at the artefact: the last moment before.

use finaiflow_ledger::chain::Anchor;
use finaiflow_ledger::id::Sequence;
use finaiflow_ledger::verify;
use finaiflow_schema::names::{Identifier, quote};
use sqlx::AssertSqlSafe;

use super::load::run;
use super::{Error, Load, Result, columns, load};
use crate::manifest::Span;
use crate::sections::Section;

/// The tables that are taken from the later artefact.
const AHEAD: [&str; 3] = ["journals", "entries", "idempotency_keys"];

/// Balances as the last entries left them.
const BALANCES: &str = "
    UPDATE account_balances b
    SET posted = last.posted_after, held = last.held_after, version = last.seq, updated_at = last.booked_at
    FROM (SELECT DISTINCT ON (account_id) account_id, seq, posted_after, held_after, booked_at
          FROM entries JOIN journals USING (sequence) WHERE sequence > $1 ORDER BY account_id, seq DESC) AS last
    WHERE last.account_id = b.account_id";

/// What counts against limits, on the day of an account's last movement and in its month. What a hold gives back counts only
/// in the day and the month in which it was placed.
const COUNTERS: &str = "
    WITH moved AS (
        SELECT account_id, (updated_at AT TIME ZONE 'UTC')::date AS today,
            date_trunc('month', updated_at AT TIME ZONE 'UTC') AS month
        FROM account_balances WHERE account_id IN (SELECT account_id FROM entries WHERE sequence > $1)
    ), movement AS (
        SELECT moved.account_id, today, month::date AS month, (journal.booked_at AT TIME ZONE 'UTC')::date AS day,
            CASE journal.kind
                WHEN 'withdrawal' THEN -posted_delta
                WHEN 'transfer' THEN -posted_delta
                WHEN 'hold_placed' THEN held_delta
                WHEN 'hold_captured' THEN held_delta - posted_delta
                WHEN 'hold_voided' THEN held_delta
                WHEN 'hold_expired' THEN held_delta
                ELSE 0
            END AS spent,
            CASE WHEN journal.kind IN ('hold_captured', 'hold_voided', 'hold_expired')
                THEN (placed.booked_at AT TIME ZONE 'UTC')::date END AS since
        FROM moved JOIN entries AS entry USING (account_id) JOIN journals AS journal USING (sequence)
        LEFT JOIN journals AS placed ON placed.sequence = journal.refers_to
        WHERE leg = 0 AND journal.booked_at >= month AT TIME ZONE 'UTC'
    ), spent AS (
        SELECT account_id, sum(spent) FILTER (WHERE day = today AND (since IS NULL OR since = day)) AS day,
            sum(spent) FILTER (WHERE since IS NULL OR since >= month) AS month
        FROM movement GROUP BY account_id
    )
    UPDATE account_balances b
    SET spent_day = coalesce(greatest(spent.day, 0), 0), spent_month = coalesce(greatest(spent.month, 0), 0)
    FROM moved LEFT JOIN spent USING (account_id) WHERE moved.account_id = b.account_id";

/// Answers to what is booked up to the journal, so that asking again books nothing again; and none to what is not. An answer
/// that no journal tells is known by the caller and the time of its batch: if that batch goes on beyond the journal with
/// something of the same caller's, it is forgotten.
const ANSWERS: &str = "
    DELETE FROM ahead_idempotency_keys AS kept WHERE NOT CASE
        WHEN sequence IS NOT NULL THEN sequence > $1 AND sequence <= $2
        ELSE (SELECT max(journal.sequence) FROM ahead_journals AS journal
              WHERE journal.booked_at = kept.created_at AND journal.actor = kept.principal) BETWEEN $1 + 1 AND $2
        END";

impl Load<'_> {
    /// Begins a table of the later artefact; none if nothing of it is taken.
    pub async fn stage(&mut self, section: &Section) -> Result<Option<load::Table<'_>>> {
        if !AHEAD.contains(&section.table.as_str()) {
            return Ok(None);
        }
        if !self.fits(section) {
            return Err(Error::Misfit(format!("table {}", section.table)));
        }
        let staged =
            Identifier::new(format!("ahead_{}", section.table)).map_err(|error| Error::Misfit(error.to_string()))?;
        run(&mut self.tx, format!("CREATE UNLOGGED TABLE {staged} (LIKE {})", quote(&section.table))).await?;
        Ok(Some(load::Table::open(&mut self.tx, &staged, section).await?))
    }

    /// Takes the books from where the artefacts end to a journal, out of what was staged.
    pub async fn advance(&mut self, from: &Span, to: Sequence) -> Result<()> {
        // For what looks journals up by their time, or entries by their journal.
        run(
            &mut self.tx,
            "CREATE INDEX ON ahead_journals (sequence); CREATE INDEX ON ahead_journals (booked_at);
            CREATE INDEX ON ahead_entries (sequence); ANALYZE ahead_journals, ahead_entries"
                .to_owned(),
        )
        .await?;
        let (start, end) = (i64::from(from.sequence), i64::from(to));
        let changes = "SELECT sequence FROM ahead_journals
            WHERE kind = 'account_changed' AND sequence > $1 AND sequence <= $2 ORDER BY sequence";
        let changes: Vec<i64> = sqlx::query_scalar(changes).bind(start).bind(end).fetch_all(&mut *self.tx).await?;
        let mut at = start;
        for change in changes {
            self.book(at, change - 1).await?;
            // As when it was booked: by itself, on the account as it was.
            self.copy(change - 1, change).await?;
            sqlx::query("SELECT change_accounts($1)").bind(change - 1).execute(&mut *self.tx).await?;
            at = change;
        }
        self.book(at, end).await?;
        sqlx::query(COUNTERS).bind(start).execute(&mut *self.tx).await?;
        let head =
            "UPDATE ledger_head AS head SET sequence = journal.sequence, hash = journal.hash, head_time = booked_at
            FROM journals AS journal WHERE journal.sequence = $1";
        if sqlx::query(head).bind(end).execute(&mut *self.tx).await?.rows_affected() != 1 {
            return Err(Error::Misfit(format!("an artefact without journal {end}")));
        }
        self.keep_answers(start, end).await?;
        let start = Anchor { epoch: from.epoch, sequence: from.sequence, hash: from.hash };
        let walked = verify::onward(&mut self.tx, start, to).await?;
        if !walked.findings().is_empty() {
            return Err(Error::Differs("journals".to_owned()));
        }
        run(&mut self.tx, "DROP TABLE ahead_journals, ahead_entries, ahead_idempotency_keys".to_owned()).await
    }

    /// Journals between account changes, all at once.
    async fn book(&mut self, from: i64, to: i64) -> Result<()> {
        if from == to {
            return Ok(());
        }
        self.copy(from, to).await?;
        sqlx::query("SELECT open_accounts($1)").bind(from).execute(&mut *self.tx).await?;
        sqlx::query(BALANCES).bind(from).execute(&mut *self.tx).await?;
        sqlx::query("SELECT book_holds($1), check_reversals($1)").bind(from).execute(&mut *self.tx).await?;
        Ok(())
    }

    async fn copy(&mut self, from: i64, to: i64) -> Result<()> {
        for table in ["journals", "entries"] {
            let columns = self.tables.iter().find(|section| section.table.as_str() == table).map(columns);
            let columns = columns.ok_or_else(|| Error::Misfit(format!("table {table}")))?;
            let copy = format!(
                "INSERT INTO {table} ({columns}) SELECT {columns} FROM ahead_{table}
                 WHERE sequence > $1 AND sequence <= $2 ORDER BY sequence"
            );
            sqlx::query(AssertSqlSafe(copy)).bind(from).bind(to).execute(&mut *self.tx).await?;
        }
        Ok(())
    }

    async fn keep_answers(&mut self, from: i64, to: i64) -> Result<()> {
        sqlx::query(ANSWERS).bind(from).bind(to).execute(&mut *self.tx).await?;
        run(&mut self.tx, "DELETE FROM idempotency_keys WHERE (principal, key) IN (SELECT principal, key FROM ahead_idempotency_keys);
            INSERT INTO idempotency_keys SELECT * FROM ahead_idempotency_keys".to_owned()).await
    }
}
