//! Step 2: decides whether a Backup acts, and with what. Pure.

use std::collections::BTreeMap;

use finaiflow_crds::backup::Run;
use finaiflow_crds::names::{
    ANNOTATION_CLAIM, SecretPurpose, backup_identity_name, backup_secret_name, backup_volume_name,
};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::dereference::Found;
use super::keys;
use super::settings::{Class, Settings};
use crate::error::{Error, Reason, Result};
use crate::tenant::build::KEK;

/// Key of the identity in its Secret.
pub const IDENTITY: &str = "identity";
/// Key of the identity's public key.
pub const RECIPIENT: &str = "recipient";
/// Key of the public keys, a line each, of all keys that ever signed for the bank.
pub const SIGNERS: &str = "signers";
/// Key of the key that signs manifests.
pub const SIGNING_KEY: &str = "signing-key";
/// Key of the login.
pub const DATABASE_URL: &str = "DATABASE_URL";

/// What becomes of a Backup.
#[derive(Debug)]
pub enum Outcome {
    /// Its jobs are to be there.
    Acts(Box<Valid>),
    /// Something of the Tenant is still to come.
    Waits(String),
}

/// What the objects are built from.
#[derive(Debug, Default)]
pub struct Valid {
    /// The bank.
    pub claim: String,
    /// The settings.
    pub settings: Settings,
    /// When the jobs run.
    pub schedules: BTreeMap<Run, String>,
    /// The classes that the spec names.
    pub classes: BTreeMap<String, Class>,
    /// URL with the backup login.
    pub database_url: Vec<u8>,
    /// The data key.
    pub kek: Option<Vec<u8>>,
    /// The key that signs, if there is one.
    pub signing_key: Option<String>,
    /// What opens the backups, if it is there.
    pub identity: Option<String>,
    /// Public keys of all keys that ever signed for the bank.
    pub signers: Vec<String>,
}

/// Decides. A refusal stays until a person acts.
pub fn validate(found: &Found, settings: Option<&Settings>) -> Result<Outcome> {
    let Some(settings) = settings else {
        let message = "this installation offers no backups: the operator's configuration has no section backups";
        return Err(Error::refused(Reason::NotOffered, message));
    };
    if let Some(actor) = &found.actor {
        let message = format!("Backup {actor} acts for the bank; one is enough, and this one would take its place");
        return Err(Error::refused(Reason::NotActing, message));
    }
    let name = &found.backup.spec.tenant_ref.name;
    let Some(claim) = &found.claim else {
        return Ok(Outcome::Waits(match found.named {
            Some(_) => format!("Tenant {name} has no bank yet"),
            None => format!("Tenant {name} does not exist"),
        }));
    };
    if let (Some(named), None) = (&found.named, &found.tenant) {
        let other = named.status.as_ref().and_then(|status| status.claim_id.as_deref());
        let Some(other) = other else { return Ok(Outcome::Waits(format!("Tenant {name} has no bank yet"))) };
        let message = format!(
            "Tenant {name} is bank {other} now, and what was backed up is bank {claim}: make another Backup for it"
        );
        return Err(Error::refused(Reason::OtherBank, message));
    }
    let classes = offered(found, settings)?;
    let schedules =
        found.backup.spec.schedules(claim).map_err(|fault| Error::refused(Reason::InvalidSchedule, fault))?;
    check_owners(found, claim)?;
    let kept = |key: &str| data(found.live.secret.as_ref(), key).map(<[u8]>::to_vec);
    let current = |source: Option<&Secret>, key: &str| {
        data(source.filter(|source| is_of(source, claim)), key).map(<[u8]>::to_vec)
    };
    let Some(database_url) = current(found.sources.login.as_ref(), DATABASE_URL).or_else(|| kept(DATABASE_URL)) else {
        return Ok(Outcome::Waits(format!(
            "Secret {} is not there yet",
            SecretPurpose::BackupDatabase.secret_name(name)
        )));
    };
    let Some(kek) = current(found.sources.data_key.as_ref(), KEK).or_else(|| kept(KEK)) else {
        return Ok(Outcome::Waits(format!("Secret {} is not there yet", SecretPurpose::DataKey.secret_name(name))));
    };
    let (identity, signers) = identity(found, claim)?;
    Ok(Outcome::Acts(Box::new(Valid {
        claim: claim.clone(),
        settings: settings.clone(),
        schedules,
        classes,
        database_url,
        kek: Some(kek),
        signing_key: signing_key(found, claim)?,
        identity,
        signers,
    })))
}

/// The classes of the spec's destinations, all of which must be on offer.
fn offered(found: &Found, settings: &Settings) -> Result<BTreeMap<String, Class>> {
    let mut classes = BTreeMap::new();
    for destination in &found.backup.spec.destinations {
        let Some(name) = &destination.class_name else {
            if settings.volumes {
                continue;
            }
            let message =
                format!("destination {} is a volume, which this installation does not offer", destination.name);
            return Err(Error::refused(Reason::NotOffered, message));
        };
        let Some(class) = settings.class(name) else {
            let offered: Vec<_> = settings.classes.iter().map(|class| class.name.as_str()).collect();
            let message = format!("there is no backup class {name}; the classes are {}", offered.join(", "));
            return Err(Error::refused(Reason::NotOffered, message));
        };
        classes.insert(name.clone(), class.clone());
    }
    Ok(classes)
}

/// Never takes over what is not the bank's.
fn check_owners(found: &Found, claim: &str) -> Result<()> {
    let secrets =
        [(&found.live.secret, backup_secret_name(claim)), (&found.live.identity, backup_identity_name(claim))];
    for (secret, name) in secrets {
        if secret.as_ref().is_some_and(|secret| !is_of(secret, claim)) {
            let message = format!("Secret {name} in {} exists and is not the bank's; it was not touched", found.home);
            return Err(Error::refused(Reason::SecretConflict, message));
        }
    }
    for (destination, volume) in &found.live.volumes {
        if volume.annotations().get(ANNOTATION_CLAIM).map(String::as_str) != Some(claim) {
            let name = backup_volume_name(claim, destination);
            let message = format!(
                "PersistentVolumeClaim {name} in {} exists and is not the bank's; it was not touched",
                found.home
            );
            return Err(Error::refused(Reason::VolumeConflict, message));
        }
    }
    Ok(())
}

fn is_of(secret: &Secret, claim: &str) -> bool {
    secret.annotations().get(ANNOTATION_CLAIM).map(String::as_str) == Some(claim)
}

fn data<'a>(secret: Option<&'a Secret>, key: &str) -> Option<&'a [u8]> {
    Some(secret?.data.as_ref()?.get(key)?.0.as_slice())
}

fn text(secret: Option<&Secret>, key: &str) -> Option<String> {
    String::from_utf8(data(secret, key)?.to_vec()).ok()
}

/// The key that signs. One that cannot be used is not replaced: what it signed would be in doubt.
fn signing_key(found: &Found, claim: &str) -> Result<Option<String>> {
    let secret = found.live.secret.as_ref();
    match text(secret, SIGNING_KEY) {
        Some(key) if keys::signer(&key).is_some() => Ok(Some(key)),
        None if data(secret, SIGNING_KEY).is_none() => Ok(None),
        _ => {
            let name = backup_secret_name(claim);
            let message = format!(
                "Secret {name} in {} does not hold an Ed25519 key in {SIGNING_KEY}; restore it from a \
                copy, or delete the key for a new one",
                found.home
            );
            Err(Error::refused(Reason::KeyLost, message))
        }
    }
}

/// What opens the backups, and who signed them. A new one is made only while nothing is stored that it could not open.
fn identity(found: &Found, claim: &str) -> Result<(Option<String>, Vec<String>)> {
    let secret = found.live.identity.as_ref();
    let signers = text(secret, SIGNERS).unwrap_or_default().lines().map(str::to_owned).collect();
    let status = found.backup.status.as_ref();
    let is_stored = status.is_some_and(|status| status.destinations.iter().any(|d| d.last_full.is_some()));
    match text(secret, IDENTITY) {
        Some(identity) if keys::recipient(&identity).is_some() => Ok((Some(identity), signers)),
        None if secret.is_none() && !is_stored => Ok((None, signers)),
        _ => {
            let name = backup_identity_name(claim);
            let message = format!(
                "Secret {name} in {} does not hold what opens the backups that are stored; restore it \
                from a copy, with annotation {ANNOTATION_CLAIM}: {claim}. Who has an escrowed key can open them",
                found.home
            );
            Err(Error::refused(Reason::KeyLost, message))
        }
    }
}
