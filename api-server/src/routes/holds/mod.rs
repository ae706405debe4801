//! Money that is set aside, to be taken or released. A hold with a destination is a pending transfer.

pub mod capture;
pub mod get;
pub mod hold;
pub mod new;
pub mod void;

use finaiflow_ledger::command::Hold;
use finaiflow_ledger::id::HoldId;
use finaiflow_ledger::query;

use crate::extract::Caller;
use crate::problem::{Code, Problem};
use crate::store::StoreError;

/// A hold on an account that the caller may read.
async fn known(caller: &Caller, id: HoldId) -> Result<Hold, Problem> {
    let found = query::hold(&caller.tenant.pool, caller.scope(), id).await.map_err(StoreError::from)?;
    found.ok_or_else(|| Code::NotFound.into())
}

/// Why the caller may not do this to a hold that the caller sees.
fn seen(problem: Problem) -> Problem {
    match problem.code() {
        Code::NotFound | Code::Forbidden => Problem::new(Code::Forbidden, "this is for tellers"),
        _ => problem,
    }
}
