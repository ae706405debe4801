//! What follows what: manifests put in order by their links, and what is wrong with those that have no place.
//!
//! Pure. Every full artefact begins a tree: incremental ones follow each other, segments hang on either. To restore an
//! artefact takes it and all before it, up to its full one.

use std::collections::{BTreeMap, VecDeque};

use super::{ArtefactId, Manifest, ManifestError, SignedManifest};

/// Why an artefact cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Its own manifest is not to be believed.
    #[error("its manifest cannot be used: {0}")]
    Manifest(#[from] ManifestError),
    /// The artefact before it is not there.
    #[error("{parent}, which it follows, is missing")]
    MissingParent {
        /// That artefact.
        parent: ArtefactId,
    },
    /// The artefact before it is there, but its manifest is another than the one that was there when it was taken.
    #[error("{parent}, which it follows, was replaced")]
    SwappedParent {
        /// That artefact.
        parent: ArtefactId,
    },
    /// An artefact of that kind cannot be followed by one of this.
    #[error("it follows {parent}, which its kind cannot")]
    WrongKind {
        /// The artefact before it.
        parent: ArtefactId,
    },
    /// What changed between it and the artefact before, so that differences mean nothing.
    #[error("it follows {parent}, but {what} changed in between")]
    Discontinued {
        /// The artefact before it.
        parent: ArtefactId,
        /// What changed.
        what: &'static str,
    },
    /// It does not begin where the artefact before it ended.
    #[error("it follows {parent}, but not where that ends: journals are missing or doubled")]
    Gap {
        /// The artefact before it.
        parent: ArtefactId,
    },
    /// Nothing is wrong with it, but with one before it.
    #[error("{ancestor}, on which it depends, is broken")]
    BrokenAncestor {
        /// The artefact before it.
        ancestor: ArtefactId,
    },
}

/// Artefacts in their order.
#[derive(Debug, Default)]
pub struct Chains {
    sound: BTreeMap<ArtefactId, SignedManifest>,
    trees: Vec<Vec<ArtefactId>>,
    flaws: BTreeMap<ArtefactId, Flaw>,
}

impl Chains {
    /// Puts in order what was found at a destination, each under the name that it was found by.
    #[must_use]
    pub fn of(found: impl IntoIterator<Item = (ArtefactId, Result<SignedManifest, ManifestError>)>) -> Self {
        let mut read = BTreeMap::new();
        let mut flaws = BTreeMap::new();
        for (id, manifest) in found {
            match manifest {
                Ok(manifest) => drop(read.insert(id, manifest)),
                Err(error) => drop(flaws.insert(id, Flaw::Manifest(error))),
            }
        }
        let mut children = BTreeMap::<_, Vec<_>>::new();
        let mut bases = Vec::new();
        for (id, signed) in &read {
            match link(signed.manifest(), &read, &flaws) {
                Ok(None) => bases.push(*id),
                Ok(Some(parent)) => children.entry(parent).or_default().push(*id),
                Err(flaw) => drop(flaws.insert(*id, flaw)),
            }
        }
        let time = |id: &ArtefactId| read.get(id).map(|signed| signed.manifest().created_at);
        bases.sort_by_key(time);
        for siblings in children.values_mut() {
            siblings.sort_by_key(time);
        }
        let trees: Vec<_> = bases.into_iter().map(|base| tree(base, &mut children)).collect();
        // Whoever is in no tree hangs on one that has a flaw.
        for (ancestor, descendants) in children {
            flaws.extend(descendants.into_iter().map(|id| (id, Flaw::BrokenAncestor { ancestor })));
        }
        read.retain(|id, _| !flaws.contains_key(id));
        Self { sound: read, trees, flaws }
    }

    /// The artefacts that can be restored, as far as manifests tell.
    pub fn sound(&self) -> impl Iterator<Item = &SignedManifest> {
        self.sound.values()
    }

    /// A sound artefact.
    #[must_use]
    pub fn get(&self, id: ArtefactId) -> Option<&SignedManifest> {
        self.sound.get(&id)
    }

    /// Every full artefact with all that depends on it, each after the one it follows; the oldest first.
    #[must_use]
    pub fn trees(&self) -> &[Vec<ArtefactId>] {
        &self.trees
    }

    /// Those that cannot be restored, and why.
    #[must_use]
    pub const fn flaws(&self) -> &BTreeMap<ArtefactId, Flaw> {
        &self.flaws
    }

    /// What it takes to restore a sound artefact: a full one first, itself last. Empty if it is not sound.
    #[must_use]
    pub fn path(&self, id: ArtefactId) -> Vec<&SignedManifest> {
        let parent =
            |signed: &&SignedManifest| signed.manifest().parent.as_ref().and_then(|parent| self.sound.get(&parent.id));
        let mut path: Vec<_> = std::iter::successors(self.sound.get(&id), parent).collect();
        path.reverse();
        path
    }
}

/// The artefact before it, if the two fit; none before a full one.
fn link(
    manifest: &Manifest,
    read: &BTreeMap<ArtefactId, SignedManifest>,
    flaws: &BTreeMap<ArtefactId, Flaw>,
) -> Result<Option<ArtefactId>, Flaw> {
    let Some(link) = manifest.parent else { return Ok(None) };
    let Some(signed) = read.get(&link.id) else {
        return Err(match flaws.get(&link.id) {
            Some(_) => Flaw::BrokenAncestor { ancestor: link.id },
            None => Flaw::MissingParent { parent: link.id },
        });
    };
    if signed.sha256() != link.sha256 {
        return Err(Flaw::SwappedParent { parent: link.id });
    }
    let (parent, before) = (link.id, signed.manifest());
    if !manifest.kind.may_follow(before.kind) {
        return Err(Flaw::WrongKind { parent });
    }
    let changes = [
        ("the PostgreSQL server", manifest.postgres.system_identifier != before.postgres.system_identifier),
        ("the server's timeline", manifest.postgres.timeline != before.postgres.timeline),
        ("the schema's version", manifest.schema_version != before.schema_version),
        ("the schema", manifest.schema_fingerprint != before.schema_fingerprint),
        ("the ledger's epoch", manifest.ledger.epoch != before.ledger.epoch),
    ];
    if let Some((what, _)) = changes.into_iter().find(|(_, changed)| *changed) {
        return Err(Flaw::Discontinued { parent, what });
    }
    if manifest.ledger.from_sequence != before.ledger.sequence {
        return Err(Flaw::Gap { parent });
    }
    Ok(Some(parent))
}

/// Takes out of `children` what depends on a full artefact, generation by generation.
fn tree(base: ArtefactId, children: &mut BTreeMap<ArtefactId, Vec<ArtefactId>>) -> Vec<ArtefactId> {
    let (mut tree, mut next) = (Vec::new(), VecDeque::from([base]));
    while let Some(id) = next.pop_front() {
        tree.push(id);
        next.extend(children.remove(&id).unwrap_or_default());
    }
    tree
}

#[cfg(test)]
mod tests {
    use finaiflow_ledger::chain::Hash;
    use finaiflow_ledger::id::Sequence;

    use super::super::Kind::{Full, Incremental, Segment};
    use super::super::testing::{Change, manifest, signed};
    use super::*;

    /// A full artefact 0, a segment 1 on it, an incremental 2 on 0, a segment 3 on 2, a segment 4 on 3; a full one 5.
    fn bank() -> Vec<SignedManifest> {
        let mut all: Vec<SignedManifest> = Vec::new();
        let shape = [(Full, None), (Segment, Some(0)), (Incremental, Some(0)), (Segment, Some(2)), (Segment, Some(3))];
        for (number, (kind, parent)) in (0..).zip(shape.into_iter().chain([(Full, None)])) {
            let parent = parent.map(|parent: usize| all[parent].clone());
            all.push(signed(&manifest(number, kind, parent.as_ref())));
        }
        all
    }

    fn chains(all: &[SignedManifest]) -> Chains {
        Chains::of(all.iter().map(|signed| (signed.manifest().id, Ok(signed.clone()))))
    }

    fn id(signed: &SignedManifest) -> ArtefactId {
        signed.manifest().id
    }

    /// The bank with one of its manifests changed before it was signed, and what is then wrong with whom.
    fn flaws(number: usize, change: impl FnOnce(&mut Manifest)) -> (Vec<SignedManifest>, BTreeMap<ArtefactId, Flaw>) {
        let mut all = bank();
        let mut manifest = all[number].manifest().clone();
        change(&mut manifest);
        all[number] = signed(&manifest);
        let flaws = chains(&all).flaws().clone();
        (all, flaws)
    }

    #[test]
    fn artefacts_are_ordered_by_their_links() {
        let all = bank();
        let chains = chains(&all);
        assert_eq!(chains.flaws(), &BTreeMap::new());
        let ids: Vec<_> = all.iter().map(id).collect();
        assert_eq!(chains.trees(), [ids[..5].to_vec(), ids[5..].to_vec()]);
        assert_eq!(chains.sound().count(), 6);
        let path = |number: usize| chains.path(ids[number]).into_iter().map(id).collect::<Vec<_>>();
        assert_eq!(path(4), [ids[0], ids[2], ids[3], ids[4]]);
        assert_eq!(path(1), [ids[0], ids[1]]);
        assert_eq!(path(5), [ids[5]]);
        assert_eq!(chains.get(ids[3]), Some(&all[3]));
    }

    #[test]
    fn a_missing_artefact_breaks_all_that_depend_on_it() {
        let mut all = bank();
        let missing = id(&all.remove(2));
        let chains = chains(&all);
        assert_eq!(chains.flaws().get(&id(&all[2])), Some(&Flaw::MissingParent { parent: missing }));
        assert_eq!(chains.flaws().get(&id(&all[3])), Some(&Flaw::BrokenAncestor { ancestor: id(&all[2]) }));
        assert_eq!(chains.trees(), [vec![id(&all[0]), id(&all[1])], vec![id(&all[4])]]);
        assert!(chains.path(id(&all[2])).is_empty());
    }

    #[test]
    fn a_manifest_that_is_not_believed_breaks_all_that_depend_on_it() {
        let all = bank();
        let chains = Chains::of(all.iter().map(|signed| {
            let replayed = id(signed) == id(&all[0]);
            (id(signed), if replayed { Err(ManifestError::OtherArtefact(id(&all[5]))) } else { Ok(signed.clone()) })
        }));
        let flaw = |number: usize| chains.flaws()[&id(&all[number])].clone();
        assert_eq!(flaw(0), Flaw::Manifest(ManifestError::OtherArtefact(id(&all[5]))));
        assert_eq!([1, 2].map(flaw), [(); 2].map(|()| Flaw::BrokenAncestor { ancestor: id(&all[0]) }));
        assert_eq!(flaw(4), Flaw::BrokenAncestor { ancestor: id(&all[3]) });
        assert_eq!(chains.trees(), [vec![id(&all[5])]]);
    }

    #[test]
    fn a_parent_that_was_swapped_is_named() {
        let (all, flaws) = flaws(0, |it| it.snapshot = "740:740:".into());
        let swapped = Flaw::SwappedParent { parent: id(&all[0]) };
        assert_eq!(flaws.get(&id(&all[1])), Some(&swapped));
        assert_eq!(flaws.get(&id(&all[2])), Some(&swapped));
        assert_eq!(flaws.get(&id(&all[3])), Some(&Flaw::BrokenAncestor { ancestor: id(&all[2]) }));
        assert_eq!(flaws.get(&id(&all[0])), None);
    }

    #[test]
    fn differences_across_a_change_mean_nothing() {
        let changes: [(&str, Change); 5] = [
            ("the PostgreSQL server", |it| it.postgres.system_identifier = "1".into()),
            ("the server's timeline", |it| it.postgres.timeline = 2),
            ("the schema's version", |it| it.schema_version = 8),
            ("the schema", |it| it.schema_fingerprint = Hash([8; 32])),
            ("the ledger's epoch", |it| it.ledger.epoch = 2),
        ];
        for (what, change) in changes {
            let (all, flaws) = flaws(4, change);
            let expected = Flaw::Discontinued { parent: id(&all[3]), what };
            assert_eq!(flaws, BTreeMap::from([(id(&all[4]), expected)]));
        }
        // Another minor or major release of the same server is none.
        assert_eq!(flaws(4, |it| it.postgres.server_version = 150_009).1, BTreeMap::new());
    }

    #[test]
    fn journals_are_neither_missing_nor_doubled() {
        let (all, flaws) = flaws(4, |it| it.ledger.from_sequence = Sequence::try_from(19).unwrap());
        assert_eq!(flaws, BTreeMap::from([(id(&all[4]), Flaw::Gap { parent: id(&all[3]) })]));
    }

    #[test]
    fn an_incremental_on_a_segment_is_refused() {
        let mut all = bank();
        all.push(signed(&manifest(6, Incremental, Some(&all[3]))));
        let flaws = chains(&all).flaws().clone();
        assert_eq!(flaws, BTreeMap::from([(id(&all[6]), Flaw::WrongKind { parent: id(&all[3]) })]));
    }

    #[test]
    fn a_long_chain_is_no_deep_one() {
        let mut all = vec![signed(&manifest(0, Full, None))];
        for number in 1..2_000 {
            all.push(signed(&manifest(number, Segment, all.last())));
        }
        assert_eq!(chains(&all).path(id(&all[1_999])).len(), 2_000);
        let broken = chains(&all[1..]);
        assert_eq!((broken.sound().count(), broken.flaws().len()), (0, 1_999));
    }
}
