//! The audit trail of ledger commands: one event for each command decided, none for a replay.

use std::net::IpAddr;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::command::{AccountChange, Command, CommandKind, NewTransfer, Outcome, Rejection};
use crate::rules::{Answer, Decision};

/// A row of `audit_events`, at the time of the batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AuditEvent<'a> {
    pub(crate) actor: Uuid,
    pub(crate) event: &'static str,
    pub(crate) outcome: &'static str,
    pub(crate) subject: Option<String>,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) detail: Value,
}

/// The events of a decision. The subject is what was acted on.
pub(crate) fn events<'a>(commands: &'a [Command], decision: &Decision) -> Vec<AuditEvent<'a>> {
    let decided = commands.iter().zip(&decision.answers).filter_map(|(command, answer)| match answer {
        Answer::Decided(outcome) => Some(event(command, outcome)),
        Answer::Replayed(_) | Answer::KeyReused => None,
    });
    decided.collect()
}

fn event<'a>(command: &'a Command, outcome: &Outcome) -> AuditEvent<'a> {
    let (event, subject, mut detail) = asked(&command.kind);
    let (result, subject, told) = match outcome {
        Outcome::AccountOpened(opened) => {
            ("success", Some(opened.id.to_string()), Some(("type", json!(opened.account_type))))
        }
        Outcome::InternalOpened(id) => ("success", Some(id.to_string()), None),
        Outcome::AccountChanged(_) => ("success", subject, None),
        Outcome::Transaction(transaction) => ("success", subject, Some(("transaction", json!(transaction.id)))),
        Outcome::Transfer(transfer) => ("success", subject, Some(("transfer", json!(transfer.id)))),
        Outcome::Bulk(transfers) => {
            let booked: Vec<_> = transfers.iter().flatten().map(|transfer| transfer.id).collect();
            ("success", subject, Some(("booked", json!(booked))))
        }
        Outcome::Journal(journal) => ("success", subject, Some(("journal", json!(journal.id)))),
        Outcome::Hold(hold) => ("success", Some(hold.account_id.to_string()), Some(("hold", json!(hold.id)))),
        Outcome::Rejected(rejection @ (Rejection::NotFound | Rejection::Forbidden)) => {
            ("denied", subject, Some(("rejection", json!(rejection))))
        }
        Outcome::Rejected(rejection) | Outcome::BulkRejected { rejection, .. } => {
            ("failure", subject, Some(("rejection", json!(rejection))))
        }
    };
    if let Some((field, value)) = told {
        detail[field] = value;
    }
    let (ip, request_id) = (command.audit.ip, command.audit.request_id.as_deref());
    AuditEvent { actor: command.principal, event, outcome: result, subject, ip, request_id, detail }
}

/// What was asked: name of the event, what it acts on, and in which way.
fn asked(kind: &CommandKind) -> (&'static str, Option<String>, Value) {
    let on = |subject: &dyn ToString| Some(subject.to_string());
    match kind {
        CommandKind::OpenAccount { owner, currency, .. } => {
            ("account.open", None, json!({"owner": owner, "currency": currency}))
        }
        CommandKind::OpenInternal { kind, currency, .. } => {
            ("account.open", None, json!({"type": kind, "currency": currency}))
        }
        CommandKind::ChangeAccount { account, change } => match change {
            AccountChange::Describe { .. } => ("account.update", on(account), json!({})),
            AccountChange::Freeze { reason } => ("account.freeze", on(account), json!({"reason": reason})),
            AccountChange::Unfreeze { reason } => ("account.unfreeze", on(account), json!({"reason": reason})),
            AccountChange::Close { reason } => ("account.close", on(account), json!({"reason": reason})),
            AccountChange::Limit(limits) => ("account.limit", on(account), json!({"limits": limits})),
        },
        CommandKind::Deposit { account, amount, currency, .. } => {
            ("ledger.deposit", on(account), json!({"amount": amount, "currency": currency}))
        }
        CommandKind::Withdraw { account, amount, currency, .. } => {
            ("ledger.withdraw", on(account), json!({"amount": amount, "currency": currency}))
        }
        CommandKind::Transfer(NewTransfer { from, to, amount, currency, .. }) => {
            ("ledger.transfer", on(from), json!({"to": to, "amount": amount, "currency": currency}))
        }
        CommandKind::Bulk { transfers, atomic } => {
            ("ledger.bulk", None, json!({"transfers": transfers.len(), "atomic": atomic}))
        }
        CommandKind::Journal { legs, currency, .. } => {
            ("ledger.journal", None, json!({"legs": legs, "currency": currency}))
        }
        CommandKind::Reverse { journal, .. } => ("ledger.reverse", on(journal), json!({})),
        CommandKind::PlaceHold { account, destination, amount, currency, .. } => {
            ("hold.place", on(account), json!({"destination": destination, "amount": amount, "currency": currency}))
        }
        CommandKind::CaptureHold { hold, amount, .. } => ("hold.capture", on(hold), json!({"amount": amount})),
        CommandKind::VoidHold { hold } => ("hold.void", on(hold), json!({})),
        CommandKind::ExpireHold { hold } => ("hold.expire", on(hold), json!({})),
    }
}
