//! The chain of hashes over the ledger: what an auditor asks for. Every endpoint is for staff.

pub mod export;
pub mod head;
pub mod verify;

use finaiflow_ledger::id::Sequence;

use crate::extract::Params;

/// The first journal.
const FIRST: i64 = 1;

/// Takes the sequence of a journal.
fn sequence(params: &mut Params, name: &str) -> Option<i64> {
    params.take(name, |text| {
        let sequence = text.parse().ok().filter(|sequence| (FIRST..=Sequence::MAX.into()).contains(sequence));
        sequence.ok_or("must be the sequence of a journal, from 1")
    })
}
