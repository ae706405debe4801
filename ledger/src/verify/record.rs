//! A journal with its entries, as the chain covers it: what an auditor gets, one line of JSON each.
//!
//! Free text is left out; the commitment to it stands in its place, so an export holds no words of any customer.

use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::chain::{self, Hash, Link, LinkEntry};
use crate::command::{Memo, Metadata};
use crate::id::Sequence;

/// A journal and its entries, in order of their legs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Epoch it was booked in.
    pub epoch: u32,
    /// Its place.
    pub sequence: Sequence,
    /// When it was booked.
    #[serde(with = "time::serde::rfc3339")]
    pub booked_at: OffsetDateTime,
    /// What it records.
    pub kind: String,
    /// The user who asked.
    pub actor: Uuid,
    /// Currency of its entries.
    pub currency: String,
    /// Minor units.
    pub amount: i64,
    /// The journal it refers to.
    pub refers_to: Option<Sequence>,
    /// The day from which it counts.
    #[serde(with = "day")]
    pub value_date: Date,
    /// What no entry tells: JSON, exactly as it was hashed.
    pub detail: Option<String>,
    /// The commitment to its free text.
    pub commitment: Option<Hash>,
    /// Its entries.
    pub entries: Vec<LinkEntry>,
    /// Its link in the chain.
    pub hash: Hash,
}

time::serde::format_description!(day, Date, "[year]-[month]-[day]");

impl Record {
    /// The hash that it must have after one with the hash `previous`.
    #[must_use]
    pub fn hash_after(&self, previous: Hash) -> Hash {
        let link = Link {
            epoch: self.epoch,
            sequence: self.sequence,
            booked_at: self.booked_at,
            kind: &self.kind,
            actor: self.actor,
            currency: &self.currency,
            amount: self.amount,
            refers_to: self.refers_to,
            value_date: Some(self.value_date),
            detail: self.detail.as_deref(),
            commitment: self.commitment,
        };
        chain::hash(previous, &link, self.entries.iter().copied())
    }
}

#[derive(FromRow)]
struct JournalRow {
    epoch: i32,
    sequence: i64,
    booked_at: OffsetDateTime,
    kind: String,
    actor: Uuid,
    currency: String,
    amount: i64,
    refers_to: Option<i64>,
    value_date: Option<Date>,
    detail: Option<String>,
    description: Option<String>,
    category: Option<String>,
    reference: Option<String>,
    metadata: Option<Json<serde_json::Value>>,
    salt: Option<Vec<u8>>,
    commitment: Option<Vec<u8>>,
    hash: Vec<u8>,
}

const JOURNALS: &str = "
    SELECT epoch, sequence, booked_at, kind, actor, currency, amount, refers_to, value_date, detail::text AS detail,
        description, category, reference, metadata, salt, commitment, hash
    FROM journals WHERE sequence > $1 ORDER BY sequence LIMIT $2";

#[derive(FromRow)]
struct EntryRow {
    sequence: i64,
    account_id: i64,
    seq: i64,
    leg: i16,
    posted_delta: i64,
    held_delta: i64,
    posted_after: i64,
    held_after: i64,
}

const ENTRIES: &str = "
    SELECT sequence, account_id, seq, leg, posted_delta, held_delta, posted_after, held_after
    FROM entries WHERE sequence > $1 AND sequence <= $2 ORDER BY sequence, leg, account_id, seq";

impl JournalRow {
    /// Damage that no hash has a place for (an id out of range, a hash of another length) is left out or made zeros: it
    /// shows as a hash that does not fit.
    fn record(self, entries: Vec<LinkEntry>) -> Option<Record> {
        let commitment = match &self.commitment {
            Some(stored) => Some(hash(stored)),
            None => self.salt.as_deref().and_then(|salt| salt.try_into().ok()).and_then(|salt| self.committed(salt)),
        };
        Some(Record {
            epoch: self.epoch.cast_unsigned(),
            sequence: Sequence::try_from(self.sequence).ok()?,
            booked_at: self.booked_at,
            kind: self.kind,
            actor: self.actor,
            currency: self.currency,
            amount: self.amount,
            refers_to: self.refers_to.and_then(|sequence| Sequence::try_from(sequence).ok()),
            value_date: self.value_date.unwrap_or_else(|| self.booked_at.date()),
            detail: self.detail,
            commitment,
            entries,
            hash: hash(&self.hash),
        })
    }

    fn committed(&self, salt: &[u8; 16]) -> Option<Hash> {
        let metadata = self.metadata.as_ref().map(|metadata| Metadata::deserialize(&metadata.0));
        let memo = Memo {
            description: self.description.clone(),
            category: self.category.clone(),
            reference: self.reference.clone(),
            metadata: metadata.transpose().ok()?.unwrap_or_default(),
            value_date: None,
        };
        chain::commitment(salt, &memo)
    }
}

fn hash(bytes: &[u8]) -> Hash {
    bytes.try_into().map(Hash).unwrap_or_default()
}

impl EntryRow {
    fn link(&self) -> Option<LinkEntry> {
        Some(LinkEntry {
            account: Sequence::try_from(self.account_id).ok()?,
            seq: self.seq,
            leg: self.leg,
            posted_delta: self.posted_delta,
            held_delta: self.held_delta,
            posted_after: self.posted_after,
            held_after: self.held_after,
        })
    }
}

/// At most `limit` journals after `after`, and the last one's place if there may be more.
pub async fn page(
    connection: &mut PgConnection,
    after: i64,
    limit: u16,
) -> Result<(Vec<Record>, Option<i64>), sqlx::Error> {
    let rows: Vec<JournalRow> =
        sqlx::query_as(JOURNALS).bind(after).bind(i64::from(limit)).fetch_all(&mut *connection).await?;
    let Some(last) = rows.last().map(|row| row.sequence) else { return Ok((Vec::new(), None)) };
    let more = (rows.len() == usize::from(limit)).then_some(last);
    let entries: Vec<EntryRow> = sqlx::query_as(ENTRIES).bind(after).bind(last).fetch_all(connection).await?;
    let mut entries = entries.iter().peekable();
    let mut records = Vec::with_capacity(rows.len());
    for row in rows {
        // An entry of a journal that is not there is found by another check.
        while entries.next_if(|entry| entry.sequence < row.sequence).is_some() {}
        let mut links = Vec::with_capacity(2);
        while let Some(entry) = entries.next_if(|entry| entry.sequence == row.sequence) {
            links.extend(entry.link());
        }
        records.extend(row.record(links));
    }
    Ok((records, more))
}
