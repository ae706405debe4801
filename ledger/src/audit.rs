//! The audit trail of ledger commands: one event for each command decided, none for a replay.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::command::{Command, CommandKind, Outcome, Rejection};
use crate::rules::{Answer, Decision};

/// A row of `audit_events`; fields are column names.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct AuditEvent<'a> {
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    actor: Uuid,
    event: &'static str,
    outcome: &'static str,
    subject: Option<String>,
    ip: Option<IpAddr>,
    request_id: Option<&'a str>,
    detail: Value,
}

/// The events of a decision. The subject is the account acted on.
pub(crate) fn events<'a>(commands: &'a [Command], decision: &Decision) -> Vec<AuditEvent<'a>> {
    let decided = commands.iter().zip(&decision.answers).filter_map(|(command, answer)| match answer {
        Answer::Decided(outcome) => Some(event(command, outcome, decision.time)),
        Answer::Replayed(_) | Answer::KeyReused => None,
    });
    decided.collect()
}

fn event<'a>(command: &'a Command, outcome: &Outcome, at: OffsetDateTime) -> AuditEvent<'a> {
    let (event, account, mut detail) = match &command.kind {
        CommandKind::OpenAccount { owner, currency, .. } => {
            ("account.open", None, json!({"owner": owner, "currency": currency}))
        }
        CommandKind::Deposit { account, amount, currency, .. } => {
            ("ledger.deposit", Some(*account), json!({"amount": amount, "currency": currency}))
        }
        CommandKind::Withdraw { account, amount, currency, .. } => {
            ("ledger.withdraw", Some(*account), json!({"amount": amount, "currency": currency}))
        }
        CommandKind::Transfer { from, to, amount, currency, .. } => {
            ("ledger.transfer", Some(*from), json!({"to": to, "amount": amount, "currency": currency}))
        }
    };
    let (result, subject, (field, value)) = match outcome {
        Outcome::AccountOpened(opened) => ("success", Some(opened.id), ("type", json!(opened.account_type))),
        Outcome::Transaction(transaction) => ("success", account, ("transaction", json!(transaction.id))),
        Outcome::Transfer(transfer) => ("success", account, ("transfer", json!(transfer.id))),
        Outcome::Rejected(rejection @ Rejection::NotFound) => ("denied", account, ("rejection", json!(rejection))),
        Outcome::Rejected(rejection) => ("failure", account, ("rejection", json!(rejection))),
    };
    detail[field] = value;
    AuditEvent {
        at,
        actor: command.principal,
        event,
        outcome: result,
        subject: subject.map(|id| id.to_string()),
        ip: command.audit.ip,
        request_id: command.audit.request_id.as_deref(),
        detail,
    }
}
