//! What deposits, withdrawals and transfers have in common.

use std::sync::Arc;

use finaiflow_ledger::command::{AuditContext, Command, CommandKind, Metadata, Outcome};
use serde::Serialize;

use crate::clock;
use crate::domain::{fingerprint, text};
use crate::extract::json::escape;
use crate::extract::{Caller, IdempotencyKey};
use crate::problem::{FieldError, Problem};

const MAX_DESCRIPTION: usize = 500;
const MAX_CATEGORY: usize = 64;
const MAX_REFERENCE: usize = 128;
const MAX_METADATA: usize = 20;
const MAX_METADATA_NAME: usize = 40;
const MAX_METADATA_VALUE: usize = 500;

/// The texts of a movement that break a rule.
pub(crate) fn memo_faults(
    [description, category, reference]: [&Option<String>; 3],
    metadata: &Metadata,
) -> Vec<FieldError> {
    let check = |pointer, text: &Option<String>, max| {
        let fault = text.as_ref().and_then(|text| text::fault(text, max));
        fault.map(|detail| FieldError::new(pointer, detail))
    };
    let description = check("/description", description, MAX_DESCRIPTION);
    let category = check("/category", category, MAX_CATEGORY);
    let reference = check("/reference", reference, MAX_REFERENCE);
    [description, category, reference].into_iter().flatten().chain(metadata_faults(metadata)).collect()
}

/// The names and values that break a rule.
pub(crate) fn metadata_faults(metadata: &Metadata) -> Vec<FieldError> {
    if metadata.len() > MAX_METADATA {
        return vec![FieldError::new("/metadata", format!("must have at most {MAX_METADATA} entries"))];
    }
    let faults = metadata.iter().filter_map(|(name, value)| {
        let fault = text::fault(name, MAX_METADATA_NAME).map(|detail| format!("the name {detail}"));
        let unfit = value.chars().count() > MAX_METADATA_VALUE || value.chars().any(char::is_control);
        let value = || format!("must have at most {MAX_METADATA_VALUE} characters and no control characters");
        let fault = fault.or_else(|| unfit.then(value))?;
        Some(FieldError::new(&format!("/metadata/{}", escape(name)), fault))
    });
    faults.collect()
}

/// Has the tenant's ledger carry out a write of the caller, once per key; method, `path` and `body` identify the request.
pub(crate) async fn submit(
    caller: &Caller,
    key: IdempotencyKey,
    (method, path): (&str, &str),
    body: &impl Serialize,
    kind: CommandKind,
) -> Result<Outcome, Problem> {
    let fingerprint = identify(caller, (method, path), body)?;
    carry_out(caller, key, fingerprint, kind).await
}

/// What tells a request from others under its key.
pub(crate) fn identify(
    caller: &Caller,
    (method, path): (&str, &str),
    body: &impl Serialize,
) -> Result<[u8; 32], Problem> {
    fingerprint::request(&caller.tenant.data_key, method, path, body).map_err(Problem::internal)
}

/// [`submit`] for a request that is identified already.
pub(crate) async fn carry_out(
    caller: &Caller,
    key: IdempotencyKey,
    fingerprint: [u8; 32],
    kind: CommandKind,
) -> Result<Outcome, Problem> {
    let command = Command {
        principal: caller.subject.user_id,
        authority: caller.authority(),
        key: key.0,
        fingerprint,
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
        let faults = |texts: [&str; 3]| {
            let [description, category, reference] = texts.map(|text| Some(text.to_owned()));
            memo_faults([&description, &category, &reference], &Metadata::new())
        };
        assert!(memo_faults([&None, &None, &None], &Metadata::new()).is_empty());
        assert!(faults([&"x".repeat(500), &"x".repeat(64), &"x".repeat(128)]).is_empty());
        let told = faults([&"x".repeat(501), &"x".repeat(65), &"x".repeat(129)]);
        let pointers: Vec<_> = told.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["/description", "/category", "/reference"]);
        assert_eq!(faults(["", "a", "a\0b"]).len(), 2);
    }

    #[test]
    fn metadata_have_their_limits() {
        let faults = |entries: &[(&str, &str)]| {
            let entries = entries.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            metadata_faults(&entries).into_iter().map(|fault| fault.pointer).collect::<Vec<_>>()
        };
        assert!(faults(&[(&"n".repeat(40), &"v".repeat(500)), ("empty", "")]).is_empty());
        assert_eq!(faults(&[("a/b", "\n"), (" ", "v"), (&"n".repeat(41), "v")]).len(), 3);
        assert_eq!(faults(&[("a/b", &"v".repeat(501))]), ["/metadata/a~1b"]);
        let many = (0..21).map(|number| (number.to_string(), String::new())).collect();
        assert_eq!(metadata_faults(&many)[0].pointer, "/metadata");
    }
}
