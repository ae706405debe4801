//! The audit trail of ledger commands that changed nothing: one event for each refusal, none for a replay.

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

/// The events of a decision: what was refused. What was booked is told by its journal, with who asked and from where.
pub(crate) fn events<'a>(commands: &'a [Command], decision: &Decision) -> Vec<AuditEvent<'a>> {
    let decided = commands.iter().zip(&decision.answers).filter_map(|(command, answer)| match answer {
        Answer::Decided(Outcome::Rejected(rejection) | Outcome::BulkRejected { rejection, .. }) => {
            Some(event(command, *rejection))
        }
        Answer::Decided(Outcome::Bulk(transfers)) => {
            let booked = transfers.iter().any(Result::is_ok);
            let first = transfers.iter().find_map(|transfer| transfer.as_ref().err());
            first.filter(|_| !booked).map(|rejection| event(command, *rejection))
        }
        Answer::Decided(_) | Answer::Replayed(_) | Answer::KeyReused => None,
    });
    decided.collect()
}

fn event(command: &Command, rejection: Rejection) -> AuditEvent<'_> {
    let (event, subject, mut detail) = asked(&command.kind);
    let outcome = match rejection {
        Rejection::NotFound | Rejection::Forbidden => "denied",
        _ => "failure",
    };
    detail["rejection"] = json!(rejection);
    let (ip, request_id) = (command.audit.ip, command.audit.request_id.as_deref());
    AuditEvent { actor: command.principal, event, outcome, subject, ip, request_id, detail }
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
