//! What deposits, withdrawals and transfers have in common.

use std::sync::Arc;

use finaiflow_ledger::command::{AuditContext, Authority, Command, CommandKind, Memo, Outcome};
use serde::Serialize;

use crate::clock;
use crate::domain::{fingerprint, text};
use crate::extract::{Caller, IdempotencyKey};
use crate::problem::{FieldError, Problem};

const MAX_DESCRIPTION: usize = 500;
const MAX_CATEGORY: usize = 64;
const MAX_REFERENCE: usize = 128;

/// The texts of a movement that break a rule.
pub(crate) fn memo_faults(memo: &Memo) -> Vec<FieldError> {
    let check = |pointer, text: &Option<String>, max| {
        let fault = text.as_ref().and_then(|text| text::fault(text, max));
        fault.map(|detail| FieldError::new(pointer, detail))
    };
    let description = check("/description", &memo.description, MAX_DESCRIPTION);
    let category = check("/category", &memo.category, MAX_CATEGORY);
    let reference = check("/reference", &memo.reference, MAX_REFERENCE);
    [description, category, reference].into_iter().flatten().collect()
}

/// Has the tenant's ledger carry out a write of the caller, once per key; `path` and `body` identify the request.
pub(crate) async fn submit(
    caller: &Caller,
    key: IdempotencyKey,
    path: &str,
    body: &impl Serialize,
    kind: CommandKind,
) -> Result<Outcome, Problem> {
    let command = Command {
        principal: caller.subject.user_id,
        authority: Authority::Owner,
        key: key.0,
        fingerprint: fingerprint::request(&caller.tenant.data_key, "POST", path, body).map_err(Problem::internal)?,
        salt: clock::random().map_err(Problem::internal)?,
        kind,
        audit: AuditContext { ip: caller.origin.ip, request_id: Some(Arc::clone(&caller.origin.request_id)) },
    };
    match caller.tenant.engine.submit(command).await? {
        Outcome::Rejected(rejection) => Err(rejection.into()),
        outcome => Ok(outcome),
    }
}

/// The ledger answered a command with another command's outcome.
pub(crate) fn unexpected(outcome: &Outcome) -> Problem {
    Problem::internal(format_args!("unexpected outcome {:?}", std::mem::discriminant(outcome)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_has_its_limit() {
        let memo = |description: &str, category: &str, reference: &str| Memo {
            description: Some(description.to_owned()),
            category: Some(category.to_owned()),
            reference: Some(reference.to_owned()),
            ..Memo::default()
        };
        assert!(memo_faults(&Memo::default()).is_empty());
        assert!(memo_faults(&memo(&"x".repeat(500), &"x".repeat(64), &"x".repeat(128))).is_empty());
        let faults = memo_faults(&memo(&"x".repeat(501), &"x".repeat(65), &"x".repeat(129)));
        let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["/description", "/category", "/reference"]);
        assert_eq!(memo_faults(&memo("", "a", "a\0b")).len(), 2);
    }
}
