//! What lies at a destination.

use std::collections::{BTreeMap, BTreeSet};

use finaiflow_schema::names::ClaimId;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::manifest::chain::Chains;
use crate::manifest::{ArtefactId, ManifestError, SignedManifest, TrustedKeys};
use crate::vault::{Folder, Found, Result, Trouble, Vault};

/// Manifests that are read at once.
const AT_ONCE: usize = 16;

/// What lies at a destination: all that is listed, and the manifests that were read of it.
#[derive(Debug)]
pub struct Survey {
    vault: Vault,
    /// Manifests that are listed.
    pub manifests: BTreeMap<ArtefactId, Found>,
    /// Objects that are listed.
    pub objects: BTreeMap<ArtefactId, Found>,
    /// Artefacts that are being pruned, which are not backups any more.
    pub tombstones: BTreeMap<ArtefactId, Found>,
    read: BTreeMap<ArtefactId, std::result::Result<SignedManifest, ManifestError>>,
}

impl Survey {
    /// Lists everything.
    pub async fn of(vault: &Vault) -> Result<Self> {
        // Objects are put before their manifests and tombstones before anything is deleted, so that what is listed in
        // this order and changes meanwhile is at worst missing.
        let manifests = list(vault, Folder::Manifests).await?;
        let objects = list(vault, Folder::Objects).await?;
        let tombstones = list(vault, Folder::Tombstones).await?;
        Ok(Self { vault: vault.clone(), manifests, objects, tombstones, read: BTreeMap::new() })
    }

    /// Where it lies.
    #[must_use]
    pub const fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Reads the manifests of these, if they are listed, and of all that they follow.
    pub async fn read(
        &mut self,
        trusted: &TrustedKeys,
        claim: ClaimId,
        ids: impl IntoIterator<Item = ArtefactId>,
    ) -> Result<()> {
        let mut wanted: BTreeSet<_> = ids.into_iter().collect();
        loop {
            wanted.retain(|id| self.manifests.contains_key(id) && !self.read.contains_key(id));
            if wanted.is_empty() {
                return Ok(());
            }
            let files = stream::iter(std::mem::take(&mut wanted)).map(|id| {
                let vault = self.vault.clone();
                async move {
                    match vault.get(Folder::Manifests, id).await {
                        // It was pruned meanwhile.
                        Err(error) if error.trouble == Trouble::NotFound => Ok((id, None)),
                        file => file.map(|file| (id, Some(file))),
                    }
                }
            });
            for (id, file) in files.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await? {
                let Some(file) = file else {
                    self.manifests.remove(&id);
                    continue;
                };
                let signed = SignedManifest::open(file, trusted, claim, id);
                wanted.extend(signed.iter().filter_map(|signed| signed.manifest().parent).map(|parent| parent.id));
                self.read.insert(id, signed);
            }
        }
    }

    /// Notes what was put there since.
    pub fn insert(&mut self, signed: SignedManifest) {
        let (id, put_at) = (signed.manifest().id, signed.manifest().created_at);
        self.objects.insert(id, Found { id, bytes: signed.manifest().object.bytes, put_at });
        self.manifests.insert(id, Found { id, bytes: signed.file().len() as u64, put_at });
        self.read.insert(id, Ok(signed));
    }

    /// Reads all manifests.
    pub async fn read_all(&mut self, trusted: &TrustedKeys, claim: ClaimId) -> Result<()> {
        self.read(trusted, claim, self.manifests.keys().copied().collect::<Vec<_>>()).await
    }

    /// A manifest that was read, and can be believed.
    #[must_use]
    pub fn get(&self, id: ArtefactId) -> Option<&SignedManifest> {
        self.read.get(&id).and_then(|read| read.as_ref().ok())
    }

    /// The manifests that were read, those that are being pruned, too.
    pub fn manifests_read(
        &self,
    ) -> impl Iterator<Item = (ArtefactId, std::result::Result<&SignedManifest, &ManifestError>)> {
        self.read.iter().map(|(id, read)| (*id, read.as_ref()))
    }

    /// The backups among the manifests that were read, in their order.
    #[must_use]
    pub fn chains(&self) -> Chains {
        let backups = self.read.iter().filter(|(id, _)| !self.tombstones.contains_key(id));
        Chains::of(backups.map(|(id, read)| (*id, read.clone())))
    }

    /// Those among them that can be restored from here, as [`Self::restorable`] says.
    #[must_use]
    pub fn whole(&self) -> Chains {
        let chains = self.chains();
        Chains::of(self.restorable(&chains).into_iter().map(|signed| (signed.manifest().id, Ok(signed.clone()))))
    }

    /// Whether an artefact's object is there, as long as its manifest says.
    #[must_use]
    pub fn has_object(&self, signed: &SignedManifest) -> bool {
        let manifest = signed.manifest();
        self.objects.get(&manifest.id).is_some_and(|found| found.bytes == manifest.object.bytes)
    }

    /// The artefacts that can be restored from here, as far as manifests and lengths tell: sound ones whose object is there,
    /// and the objects of all that they follow. The oldest first.
    #[must_use]
    pub fn restorable<'c>(&self, chains: &'c Chains) -> Vec<&'c SignedManifest> {
        let mut whole = BTreeSet::new();
        let mut restorable = Vec::new();
        for id in chains.trees().iter().flatten() {
            let Some(signed) = chains.get(*id) else { continue };
            let follows = signed.manifest().parent.is_none_or(|parent| whole.contains(&parent.id));
            if follows && self.has_object(signed) {
                whole.insert(*id);
                restorable.push(signed);
            }
        }
        restorable.sort_by_key(|signed| signed.manifest().created_at);
        restorable
    }
}

async fn list(vault: &Vault, folder: Folder) -> Result<BTreeMap<ArtefactId, Found>> {
    let listing = vault.list(folder).await?;
    for name in listing.strangers.iter().take(8) {
        tracing::warn!(%folder, name, "a file that is no artefact's lies there");
    }
    Ok(listing.found.into_iter().map(|found| (found.id, found)).collect())
}
