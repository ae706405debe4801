//! The Secret of the jobs, and the one that opens the backups.

use std::collections::BTreeMap;

use finaiflow_crds::names::{GROUP, backup_identity_name, backup_secret_name};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::metadata;
use crate::backup::dereference::Found;
use crate::backup::keys::{Identity, draw_signing_key, recipient, signer};
use crate::backup::validate::{DATABASE_URL, IDENTITY, RECIPIENT, SIGNERS, SIGNING_KEY, Valid};
use crate::error::Result;
use crate::random::{Random, RandomError};
use crate::tenant::build::KEK;

/// Both Secrets, and what of them is public.
pub struct Secrets {
    /// What opens the backups.
    pub identity: Secret,
    /// What the jobs need.
    pub secret: Secret,
    /// The public key to encrypt to.
    pub recipient: String,
    /// The public keys that signed, the newest last.
    pub signers: Vec<String>,
}

/// Keeps every key that is there, and draws what is missing.
pub fn build(found: &Found, valid: &Valid, random: Random) -> Result<Secrets> {
    let (identity, recipient) = if let Some(identity) = &valid.identity {
        (identity.clone(), recipient(identity).ok_or(RandomError)?)
    } else {
        let Identity { secret, recipient } = Identity::draw(random)?;
        (format!("{secret}\n"), recipient)
    };
    let signing_key = valid.signing_key.clone().map_or_else(|| draw_signing_key(random), Ok)?;
    let signer = signer(&signing_key).ok_or(RandomError)?;
    let mut signers = valid.signers.clone();
    // What an earlier key signed is still believed: with the Backup its Secret went, and not what was stored.
    if !signers.contains(&signer) {
        signers.push(signer);
    }
    let lines = signers.iter().fold(String::new(), |lines, signer| lines + signer + "\n");
    let claim = &valid.claim;
    let mut data = vec![(DATABASE_URL, valid.database_url.clone()), (SIGNING_KEY, signing_key.into_bytes())];
    data.extend(valid.kek.clone().map(|kek| (KEK, kek)));
    let of = |name, purpose: &str, live: Option<&Secret>, data: Vec<(&str, Vec<u8>)>| Secret {
        metadata: ObjectMeta {
            // What was decided from these contents must not be written over other contents.
            resource_version: live.and_then(|live| live.metadata.resource_version.clone()),
            ..metadata(found, claim, name)
        },
        type_: Some(format!("{GROUP}/{purpose}")),
        data: Some(
            data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value))).collect::<BTreeMap<_, _>>(),
        ),
        ..Secret::default()
    };
    let opens = vec![
        (IDENTITY, identity.into_bytes()),
        (RECIPIENT, recipient.clone().into_bytes()),
        (SIGNERS, lines.into_bytes()),
    ];
    Ok(Secrets {
        identity: of(backup_identity_name(claim), "backup-identity", found.live.identity.as_ref(), opens),
        secret: of(backup_secret_name(claim), "backup", found.live.secret.as_ref(), data),
        recipient,
        signers,
    })
}
