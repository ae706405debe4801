//! Backups past their retention go, and what nobody can use any more.
//!
//! An artefact goes in four steps: a tombstone, which hides it, then the object, the manifest, and the tombstone. Whoever is
//! stopped in between leaves a tombstone, and the next one goes on there. An artefact goes before what it follows, so what
//! is left can be restored at any moment. Any error of a destination stops it there, but for the refusal to let go of
//! something: that stays, with all that it follows, and others go.

mod mark;

use std::collections::BTreeSet;

use finaiflow_schema::names::ClaimId;
use time::{Duration, OffsetDateTime};
use tokio::io::AsyncReadExt as _;

use crate::manifest::chain::Chains;
use crate::manifest::{ArtefactId, SignedManifest, TrustedKeys};
use crate::progress::Progress;
use crate::sha256::Sha256;
use crate::survey::Survey;
use crate::vault::{self, Folder, Trouble, Vault};

pub use mark::{Follows, GRACE, Item, Items, Marked, mark};

/// How long an object without a manifest may still get one.
const ORPHANED: Duration = Duration::days(7);
/// Of so many backups one may go at once: who shortens a retention by mistake has days to see it.
const ONE_OF: usize = 5;

/// What is to be done at a destination.
#[derive(Debug, Default)]
pub struct Plan {
    /// Backups past their retention, in the order in which they go.
    pub past: Vec<ArtefactId>,
    /// More of them, which wait for the next time, unless some of the others have to stay.
    pub later: Vec<ArtefactId>,
    /// What somebody began to prune.
    pub unfinished: Vec<ArtefactId>,
    /// What is hidden by a tombstone, and is needed.
    pub needed: Vec<ArtefactId>,
    /// Objects that never got a manifest.
    pub orphans: Vec<ArtefactId>,
    /// Backups that were read because others go for them, and are damaged.
    pub damaged: Vec<ArtefactId>,
    /// Before this, nothing that is in the making was begun.
    settled: Option<OffsetDateTime>,
}

/// What was done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// Backups and objects that are gone.
    pub gone: usize,
    /// Those that the destination does not let go of, such as locked ones.
    pub locked: usize,
}

/// Finds out what is to be done. `survey` is read as a whole.
pub async fn plan(
    survey: &mut Survey,
    trusted: &TrustedKeys,
    claim: ClaimId,
    days: i32,
    now: OffsetDateTime,
) -> vault::Result<Plan> {
    survey.read_all(trusted, claim).await?;
    let files = survey.manifests.values().chain(survey.objects.values());
    // A clock that is ahead must not make anything old.
    let now = files.map(|found| found.put_at).max().map_or(now, |newest| newest.min(now));
    let chains = survey.chains();
    let (mut plan, mut good, mut items) = (Plan::default(), BTreeSet::new(), items(survey, &chains));
    let marked = loop {
        let marked = mark(&items, now, days);
        let path = marked.base.filter(|_| !marked.past.is_empty()).map(|base| chains.path(base)).unwrap_or_default();
        let Some(damaged) = first_damaged(survey.vault(), &path, &mut good).await? else { break marked };
        tracing::error!(id = %damaged, "a backup that others are to go for is damaged");
        plan.damaged.push(damaged);
        for (id, item) in &mut items {
            item.restorable &= chains.path(*id).iter().all(|signed| signed.manifest().id != damaged);
        }
    };
    let hidden = |id: &ArtefactId| survey.tombstones.contains_key(id);
    let most = items.len().div_ceil(ONE_OF);
    plan.past = marked.past.iter().filter(|id| !hidden(id)).copied().collect();
    plan.later = plan.past.split_off(most.min(plan.past.len()));
    let is_needed = |id: &ArtefactId| {
        let whole = survey.get(*id).is_some_and(|signed| survey.has_object(signed));
        whole && !marked.past.contains(id)
    };
    (plan.needed, plan.unfinished) = survey.tombstones.keys().copied().partition(is_needed);
    let orphans = survey.objects.iter().filter(|(id, _)| !survey.manifests.contains_key(id) && !hidden(id));
    plan.orphans = orphans.filter(|(_, found)| found.put_at < now - ORPHANED).map(|(id, _)| *id).collect();
    plan.settled = Some(now - GRACE);
    Ok(plan)
}

/// Does it.
pub async fn sweep(survey: &Survey, plan: &Plan) -> vault::Result<Pruned> {
    let (vault, mut pruned, mut held) = (survey.vault(), Pruned::default(), Held::default());
    for id in &plan.needed {
        tracing::warn!(%id, "it was hidden, and is needed");
        pruned.locked += usize::from(!lets_go(vault, Folder::Tombstones, *id).await?);
    }
    // The newest first, as it may follow the others.
    for id in plan.unfinished.iter().rev() {
        pruned.bury(survey, *id, &mut held).await?;
    }
    let most = pruned.gone + plan.past.len();
    for id in plan.past.iter().chain(&plan.later) {
        if held.everything || pruned.gone == most {
            break;
        }
        if held.for_others.contains(id) {
            held.hold(survey, *id);
            continue;
        }
        vault.put_once(Folder::Tombstones, *id, tombstone(*id).as_bytes()).await?;
        pruned.bury(survey, *id, &mut held).await?;
    }
    if !plan.orphans.is_empty() {
        // Whoever puts a manifest now put its object anew before.
        let now = Survey::of(vault).await?;
        let same = |id: &&ArtefactId| !now.manifests.contains_key(id) && now.objects.get(id) == survey.objects.get(id);
        for id in plan.orphans.iter().filter(same) {
            let gone = lets_go(vault, Folder::Objects, *id).await?;
            *if gone { &mut pruned.gone } else { &mut pruned.locked } += 1;
        }
    }
    if let Some(settled) = plan.settled {
        pruned.gone += vault.sweep_unfinished(settled).await?;
    }
    Ok(pruned)
}

/// What has to stay because something else does.
#[derive(Default)]
struct Held {
    /// What is followed by something that stays.
    for_others: BTreeSet<ArtefactId>,
    /// No more is hidden: where tombstones stay, too, nothing that is hidden could be shown again.
    everything: bool,
}

impl Held {
    /// An artefact stays, and so does what it follows.
    fn hold(&mut self, survey: &Survey, id: ArtefactId) {
        match survey.get(id) {
            Some(signed) => self.for_others.extend(signed.manifest().parent.map(|parent| parent.id)),
            // It may follow any of those that are left.
            None => self.everything |= survey.manifests.contains_key(&id),
        }
    }
}

impl Pruned {
    /// Takes what is hidden by a tombstone away.
    async fn bury(&mut self, survey: &Survey, id: ArtefactId, held: &mut Held) -> vault::Result<()> {
        let vault = survey.vault();
        if !lets_go(vault, Folder::Objects, id).await? {
            // It is still whole.
            tracing::warn!(%id, "the destination does not let go of it");
            held.hold(survey, id);
            held.everything |= !lets_go(vault, Folder::Tombstones, id).await?;
            self.locked += 1;
        } else if !lets_go(vault, Folder::Manifests, id).await? {
            self.locked += 1;
        } else {
            // Of a tombstone that stays, there is nothing to tell.
            let _ = lets_go(vault, Folder::Tombstones, id).await?;
            tracing::info!(%id, "pruned");
            self.gone += 1;
        }
        Ok(())
    }
}

/// Deletes a file. False: a lock, or the lack of a right, keeps it there.
async fn lets_go(vault: &Vault, folder: Folder, id: ArtefactId) -> vault::Result<bool> {
    match vault.delete(folder, id).await {
        Err(error) if error.trouble == Trouble::Denied => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

/// The same from everybody, so that two can put it.
fn tombstone(id: ArtefactId) -> String {
    format!("{{\"id\":\"{id}\"}}\n")
}

fn items(survey: &Survey, chains: &Chains) -> Items {
    let restorable: BTreeSet<_> = survey.restorable(chains).iter().map(|signed| signed.manifest().id).collect();
    let item = |(id, read): (ArtefactId, Result<&SignedManifest, _>)| {
        let restorable = restorable.contains(&id);
        let item = match read {
            Ok(signed) => {
                let parent = signed.manifest().parent;
                let follows = parent.map_or(Follows::Nothing, |parent| Follows::Artefact(parent.id));
                Item { created_at: signed.manifest().created_at, follows, restorable }
            }
            Err(_) => Item { created_at: id.taken_at(), follows: Follows::Unknown, restorable },
        };
        (id, item)
    };
    survey.manifests_read().map(item).collect()
}

/// The first whose object is not what its manifest says.
async fn first_damaged(
    vault: &Vault,
    path: &[&SignedManifest],
    good: &mut BTreeSet<ArtefactId>,
) -> vault::Result<Option<ArtefactId>> {
    for signed in path {
        let id = signed.manifest().id;
        if good.contains(&id) {
            continue;
        }
        match is_good(vault, signed).await {
            Ok(true) => drop(good.insert(id)),
            Ok(false) => return Ok(Some(id)),
            Err(error) if matches!(error.trouble, Trouble::NotFound | Trouble::Corrupt) => return Ok(Some(id)),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Reads an object, and compares it with its manifest.
async fn is_good(vault: &Vault, signed: &SignedManifest) -> vault::Result<bool> {
    let object = &signed.manifest().object;
    let (_, mut stream) = vault.read(signed.manifest().id).await?;
    let (mut digest, mut progress, mut buffer) = (Sha256::default(), Progress::default(), vec![0; 64 * 1024]);
    loop {
        let read = stream.read(&mut buffer).await.map_err(|error| vault::Error::of(error, "read the object"))?;
        if read == 0 {
            return Ok(progress.bytes() == object.bytes && digest.finish() == object.sha256);
        }
        digest.update(&buffer[..read]);
        progress.add(read, signed.manifest().id, 0);
    }
}
