//! Movements between two customer accounts, at once or in two steps.

pub mod bulk;
pub mod cancel;
pub mod complete;
pub mod get;
pub mod new;
pub mod reverse;
pub mod transfer;

use finaiflow_ledger::id::{HoldId, TransferId};
use finaiflow_ledger::query::{self, TransferState};

use crate::extract::Caller;
use crate::problem::{Code, Problem};
use crate::store::StoreError;

/// A transfer from or to an account that the caller may read.
async fn known(caller: &Caller, id: TransferId) -> Result<TransferState, Problem> {
    let found = query::transfer(&caller.tenant.pool, caller.scope(), id).await.map_err(StoreError::from)?;
    found.ok_or_else(|| Code::NotFound.into())
}

/// Why the caller may not do this to a transfer that the caller sees.
fn seen(problem: Problem) -> Problem {
    match problem.code() {
        Code::NotFound => Problem::new(Code::Forbidden, "the transfer is seen from here, and decided on elsewhere"),
        _ => problem,
    }
}

/// The hold of a transfer that is or was pending.
fn pending(state: &TransferState) -> Result<HoldId, Problem> {
    state.hold.ok_or_else(|| Problem::new(Code::StatusConflict, "the transfer was never pending"))
}
