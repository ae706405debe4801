//! A journal in answers.

use finaiflow_ledger::batch::JournalKind;
use finaiflow_ledger::command::{JournalRecord, MovementStatus};
use finaiflow_ledger::id::{AccountId, JournalId};
use finaiflow_ledger::money::Currency;
use finaiflow_ledger::query::{BookedJournal, BookedLeg};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::id;
use crate::openapi::values;
use crate::routes::memo::MemoView;

/// A change of the books.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Journal)]
pub struct JournalView {
    /// Opaque id.
    #[schema(value_type = values::JournalId)]
    id: JournalId,
    /// What it records.
    #[schema(value_type = values::JournalKind)]
    kind: JournalKind,
    /// Completed, or reversed.
    #[schema(value_type = values::MovementStatus)]
    status: MovementStatus,
    /// The user who asked for it; `null`: the bank itself.
    #[schema(value_type = Option<values::UserId>, required = true)]
    actor_id: Option<String>,
    /// The journal it undoes, or that of the hold it settles.
    #[schema(value_type = Option<values::JournalId>, required = true)]
    refers_to: Option<JournalId>,
    /// Minor units: what moved, or was set aside or released.
    #[schema(example = 2500)]
    amount: i64,
    /// Of all accounts.
    #[schema(value_type = values::Currency)]
    currency: Currency,
    /// What it did to accounts; the amounts add up to zero.
    legs: Vec<LegView>,
    /// The caller's own words. Of an account, the description is its name and the reference the reason of a change.
    #[serde(flatten)]
    memo: MemoView,
    /// When it was booked.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// What a journal did to one account, in minor units.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JournalLeg)]
pub struct LegView {
    /// The account.
    #[schema(value_type = values::AccountId)]
    account_id: AccountId,
    /// What it gained; below zero: lost.
    #[schema(example = -2500)]
    amount: i64,
    /// What was set aside; below zero: released.
    #[schema(example = 0)]
    held: i64,
}

impl From<BookedLeg> for LegView {
    fn from(BookedLeg { account, amount, held }: BookedLeg) -> Self {
        Self { account_id: account, amount, held }
    }
}

impl JournalView {
    /// What `actor` has just booked.
    pub(crate) fn of(actor: Uuid, record: JournalRecord) -> Self {
        let leg = |(account, amount)| BookedLeg { account, amount, held: 0 };
        BookedJournal {
            id: record.id,
            kind: if record.reverses.is_some() { JournalKind::Reversal } else { JournalKind::Journal },
            actor,
            refers_to: record.reverses,
            reversed: false,
            amount: record.amount,
            currency: record.currency,
            legs: record.legs.into_iter().map(leg).collect(),
            memo: record.memo,
            created_at: record.created_at,
        }
        .into()
    }
}

impl From<BookedJournal> for JournalView {
    fn from(journal: BookedJournal) -> Self {
        Self {
            id: journal.id,
            kind: journal.kind,
            status: if journal.reversed { MovementStatus::Reversed } else { MovementStatus::Completed },
            actor_id: (!journal.actor.is_nil()).then(|| id::encode(id::USER, journal.actor)),
            refers_to: journal.refers_to,
            amount: journal.amount,
            currency: journal.currency,
            legs: journal.legs.into_iter().map(LegView::from).collect(),
            memo: MemoView::new(journal.memo, journal.created_at),
            created_at: journal.created_at,
        }
    }
}
