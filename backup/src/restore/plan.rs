//! Which artefacts bring back what was asked for. Pure.

use finaiflow_ledger::id::Sequence;
use time::OffsetDateTime;

use crate::manifest::chain::{Chains, Flaw};
use crate::manifest::{ArtefactId, Manifest, SignedManifest};

/// The moment to bring back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The newest that there is.
    Latest,
    /// The newest that is not after a time.
    Time(OffsetDateTime),
    /// Right after a journal, exactly.
    Sequence(Sequence),
    /// That of an artefact.
    Artefact(ArtefactId),
}

/// Why there are no artefacts for a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing is there, or nothing of it is sound.
    #[error("there is no artefact that can be restored")]
    Nothing,
    /// Before the first that is there.
    #[error("the first moment that can be restored is {first}")]
    TooEarly {
        /// That moment.
        first: OffsetDateTime,
    },
    /// Before the first journal that can be the last one.
    #[error("the first journal that can be restored to is {} of epoch {epoch}", i64::from(*first))]
    BeforeFirst {
        /// Epoch of the oldest artefact.
        epoch: u32,
        /// That journal.
        first: Sequence,
    },
    /// After the last journal that is there.
    #[error("the last journal that can be restored to is {} of epoch {epoch}", i64::from(*last))]
    AfterLast {
        /// Epoch of the newest artefact.
        epoch: u32,
        /// That journal.
        last: Sequence,
    },
    /// No artefact of before the ledger was restored reaches it, and none of after it goes that far back.
    #[error("epoch {epoch} is known up to journal {} only, and the next one began after the one asked for", i64::from(*last))]
    NotInEpoch {
        /// The epoch that the journal would have to be of.
        epoch: u32,
        /// Its last journal that can be restored to.
        last: Sequence,
    },
    /// The journal can be got from an artefact of another schema only.
    #[error("the schema was migrated between {before} and the next artefact: restore that one, or a journal it holds")]
    Migrated {
        /// The last artefact before the journal.
        before: ArtefactId,
    },
    /// No such artefact.
    #[error("{0} is not there")]
    Unknown(ArtefactId),
    /// It is there, but cannot be restored.
    #[error("{id} cannot be restored: {flaw}")]
    Flawed {
        /// The artefact.
        id: ArtefactId,
        /// What is wrong.
        flaw: Flaw,
    },
}

/// What to read: a full artefact and what follows it, and for a journal between two artefacts, the later one, of which no more
/// is taken than the books up to that journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<'a> {
    /// Not empty; each after the one that it follows.
    path: Vec<&'a SignedManifest>,
    last: &'a SignedManifest,
    ahead: Option<Ahead<'a>>,
}

/// Journals beyond a path's last artefact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead<'a> {
    /// Where they are.
    pub artefact: &'a SignedManifest,
    /// The last one to take.
    pub to: Sequence,
}

impl<'a> Plan<'a> {
    /// What brings back `target`, as far as manifests tell.
    pub fn of(chains: &'a Chains, target: Target) -> Result<Self, PlanError> {
        match target {
            Target::Latest => Self::to(chains, newest(chains.sound()).ok_or(PlanError::Nothing)?),
            Target::Time(time) => {
                let by_then = chains.sound().filter(|signed| signed.manifest().created_at <= time);
                let first = chains.sound().map(|signed| signed.manifest().created_at).min();
                let first = first.ok_or(PlanError::Nothing)?;
                Self::to(chains, newest(by_then).ok_or(PlanError::TooEarly { first })?)
            }
            Target::Artefact(id) => match (chains.get(id), chains.flaws().get(&id)) {
                (Some(signed), _) => Self::to(chains, signed),
                (None, Some(flaw)) => Err(PlanError::Flawed { id, flaw: flaw.clone() }),
                (None, None) => Err(PlanError::Unknown(id)),
            },
            Target::Sequence(sequence) => Self::to_journal(chains, sequence),
        }
    }

    fn to(chains: &'a Chains, last: &'a SignedManifest) -> Result<Self, PlanError> {
        match chains.path(last.manifest().id) {
            path if path.is_empty() => Err(PlanError::Unknown(last.manifest().id)),
            path => Ok(Self { path, last, ahead: None }),
        }
    }

    /// The newest epoch of which something is known at the journal or before: an older one with that journal is one that
    /// was given up, or has the same past.
    fn to_journal(chains: &'a Chains, to: Sequence) -> Result<Self, PlanError> {
        let ledger = |signed: &&SignedManifest| signed.manifest().ledger.clone();
        let before = chains.sound().filter(|signed| ledger(signed).sequence <= to);
        let Some(last) = before.max_by_key(|signed| (ledger(signed).epoch, ledger(signed).sequence, time(signed)))
        else {
            let first = chains.sound().map(|signed| (ledger(&signed).epoch, ledger(&signed).sequence)).min();
            let (epoch, first) = first.ok_or(PlanError::Nothing)?;
            return Err(PlanError::BeforeFirst { epoch, first });
        };
        let plan = Self::to(chains, last)?;
        let known = last.manifest();
        if known.ledger.sequence == to {
            return Ok(plan);
        }
        let (epoch, last) = (known.ledger.epoch, known.ledger.sequence);
        let later = chains.sound().filter(|signed| ledger(signed).epoch == epoch && ledger(signed).sequence > to);
        let later: Vec<_> = later.collect();
        if later.is_empty() {
            let is_newest = chains.sound().all(|signed| ledger(&signed).epoch <= epoch);
            return Err(if is_newest {
                PlanError::AfterLast { epoch, last }
            } else {
                PlanError::NotInEpoch { epoch, last }
            });
        }
        let alike = later.into_iter().filter(|signed| signed.manifest().schema_fingerprint == known.schema_fingerprint);
        let next = alike.min_by_key(|signed| (ledger(signed).sequence, signed.manifest().object.bytes));
        let artefact = next.ok_or(PlanError::Migrated { before: known.id })?;
        Ok(Self { ahead: Some(Ahead { artefact, to }), ..plan })
    }

    /// The artefacts to apply, a full one first.
    #[must_use]
    pub fn path(&self) -> &[&'a SignedManifest] {
        &self.path
    }

    /// The last of them.
    #[must_use]
    pub fn last(&self) -> &'a Manifest {
        self.last.manifest()
    }

    /// What else is taken.
    #[must_use]
    pub const fn ahead(&self) -> Option<Ahead<'a>> {
        self.ahead
    }

    /// All that is read.
    pub fn artefacts(&self) -> impl Iterator<Item = &'a SignedManifest> {
        self.path.iter().copied().chain(self.ahead.map(|ahead| ahead.artefact))
    }

    /// How many bytes that are, as they are stored.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.artefacts().map(|signed| signed.manifest().object.bytes).sum()
    }

    /// The last journal that comes back.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.ahead.map_or(self.last().ledger.sequence, |ahead| ahead.to)
    }
}

fn time(signed: &SignedManifest) -> (OffsetDateTime, ArtefactId) {
    (signed.manifest().created_at, signed.manifest().id)
}

fn newest<'a>(artefacts: impl Iterator<Item = &'a SignedManifest>) -> Option<&'a SignedManifest> {
    artefacts.max_by_key(|signed| time(signed))
}

#[cfg(test)]
mod tests {
    use finaiflow_ledger::chain::Hash;

    use super::*;
    use crate::manifest::Kind::{Full, Incremental, Segment};
    use crate::manifest::ManifestError;
    use crate::manifest::testing::{manifest, signed};

    fn sequence(number: i64) -> Sequence {
        number.try_into().unwrap()
    }

    /// Journals 1 to 10 in a full artefact, to 20 in a segment, to 20 in an incremental on the full one, to 30 in a segment on
    /// that; then, after a fork at 36, to 40 in a full one, and to 50 in a segment.
    fn bank() -> Vec<SignedManifest> {
        let mut all: Vec<SignedManifest> = Vec::new();
        let shape = [
            (Full, None),
            (Segment, Some(0)),
            (Incremental, Some(0)),
            (Segment, Some(2)),
            (Full, None),
            (Segment, Some(4)),
        ];
        for (number, (kind, parent)) in (0..).zip(shape) {
            let mut manifest = manifest(number, kind, parent.map(|parent: usize| &all[parent]));
            if number >= 4 {
                manifest.ledger.epoch = 2;
                manifest.ledger.sequence = sequence(if number == 4 { 40 } else { 50 });
            }
            all.push(signed(&manifest));
        }
        all
    }

    fn chains(all: &[SignedManifest]) -> Chains {
        Chains::of(all.iter().map(|signed| (signed.manifest().id, Ok(signed.clone()))))
    }

    /// The numbers of the artefacts on the path, and of the one ahead.
    fn planned(all: &[SignedManifest], target: Target) -> Result<(Vec<usize>, Option<usize>), PlanError> {
        let chains = chains(all);
        let plan = Plan::of(&chains, target)?;
        let number = |signed: &SignedManifest| all.iter().position(|one| one == signed).unwrap();
        assert_eq!(plan.artefacts().map(|signed| signed.manifest().object.bytes).sum::<u64>(), plan.bytes());
        Ok((
            plan.path().iter().map(|signed| number(signed)).collect(),
            plan.ahead().map(|ahead| number(ahead.artefact)),
        ))
    }

    #[test]
    fn the_latest_and_the_named_one() {
        let all = bank();
        assert_eq!(planned(&all, Target::Latest), Ok((vec![4, 5], None)));
        assert_eq!(planned(&all, Target::Artefact(all[3].manifest().id)), Ok((vec![0, 2, 3], None)));
        let unknown = manifest(99, Full, None).id;
        assert_eq!(planned(&all, Target::Artefact(unknown)), Err(PlanError::Unknown(unknown)));
        assert_eq!(planned(&[], Target::Latest), Err(PlanError::Nothing));
        let broken = all[5].manifest().id;
        let chains = Chains::of([(broken, Err(ManifestError::Signature))]);
        let flaw = Flaw::Manifest(ManifestError::Signature);
        assert_eq!(Plan::of(&chains, Target::Artefact(broken)), Err(PlanError::Flawed { id: broken, flaw }));
    }

    #[test]
    fn a_time_is_the_newest_moment_that_is_not_after_it() {
        let all = bank();
        let at = |number: usize| all[number].manifest().created_at;
        let second = time::Duration::SECOND;
        assert_eq!(planned(&all, Target::Time(at(3))), Ok((vec![0, 2, 3], None)));
        assert_eq!(planned(&all, Target::Time(at(4) - second)), Ok((vec![0, 2, 3], None)));
        assert_eq!(planned(&all, Target::Time(at(5) + second)), Ok((vec![4, 5], None)));
        assert_eq!(planned(&all, Target::Time(at(0) - second)), Err(PlanError::TooEarly { first: at(0) }));
        assert_eq!(planned(&[], Target::Time(at(0))), Err(PlanError::Nothing));
    }

    #[test]
    fn a_journal_is_met_exactly() {
        let all = bank();
        let to = |number: i64| planned(&all, Target::Sequence(sequence(number)));
        assert_eq!(to(10), Ok((vec![0], None)));
        assert_eq!(to(11), Ok((vec![0], Some(1))));
        assert_eq!(to(20), Ok((vec![0, 2], None)));
        assert_eq!(to(21), Ok((vec![0, 2], Some(3))));
        assert_eq!(to(30), Ok((vec![0, 2, 3], None)));
        assert_eq!(to(40), Ok((vec![4], None)));
        assert_eq!(to(49), Ok((vec![4], Some(5))));
        assert_eq!(to(9), Err(PlanError::BeforeFirst { epoch: 1, first: sequence(10) }));
        assert_eq!(to(31), Err(PlanError::NotInEpoch { epoch: 1, last: sequence(30) }));
        assert_eq!(to(51), Err(PlanError::AfterLast { epoch: 2, last: sequence(50) }));
        assert_eq!(planned(&[], Target::Sequence(sequence(1))), Err(PlanError::Nothing));
    }

    #[test]
    fn a_broken_chain_is_gone_around_and_another_schema_is_not() {
        let mut all = bank();
        // Without the segments, the next full artefact has the journals.
        let mut next = manifest(3, Full, None);
        next.ledger.sequence = sequence(30);
        all[3] = signed(&next);
        all.remove(1);
        assert_eq!(planned(&all, Target::Sequence(sequence(25))), Ok((vec![0, 1], Some(2))));
        next.schema_fingerprint = Hash([8; 32]);
        all[2] = signed(&next);
        let before = all[1].manifest().id;
        assert_eq!(planned(&all, Target::Sequence(sequence(25))), Err(PlanError::Migrated { before }));
    }
}
