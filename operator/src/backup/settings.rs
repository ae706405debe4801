//! What the platform team says about backups: a section of the operator's configuration.

use std::collections::BTreeSet;

use data_encoding::BASE64;
use serde::Deserialize;

use super::keys;

/// How backups are taken, who can open them, and where they may lie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Image with `finaiflow-backup`.
    pub image: String,
    /// When the images are pulled.
    #[serde(default = "if_not_present")]
    pub image_pull_policy: String,
    /// Image with a PostgreSQL that verifications and drills restore into, and throw away. At least as new as the
    /// servers of the Tenants.
    pub postgres_image: String,
    /// age public keys of those who can open every backup, whatever is lost. Their secret keys are kept elsewhere.
    pub escrow_recipients: Vec<String>,
    /// Ed25519 public keys, in base64, of other installations whose backups are believed.
    #[serde(default)]
    pub trusted_keys: Vec<String>,
    /// Whether a destination may be a volume.
    #[serde(default = "yes")]
    pub volumes: bool,
    /// The buckets on offer.
    #[serde(default)]
    pub classes: Vec<Class>,
}

/// A bucket on offer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Class {
    /// The name that Backups use.
    pub name: String,
    /// Name of the bucket.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// URL of the S3 server; absent: Amazon's.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// What all keys begin with.
    #[serde(default)]
    pub prefix: String,
    /// Whether the endpoint may be plain HTTP.
    #[serde(default)]
    pub allow_http: bool,
    /// Secret in the operator's namespace with `accessKeyId` and `secretAccessKey`.
    pub credentials_secret_name: String,
}

impl Settings {
    /// What is wrong between the fields, or in a key.
    pub fn check(&self) -> Result<(), String> {
        if self.escrow_recipients.is_empty() {
            return Err("backups.escrowRecipients is empty: with the cluster every backup would be lost".to_owned());
        }
        if let Some(key) = self.escrow_recipients.iter().find(|key| !keys::is_recipient(key)) {
            return Err(format!("backups.escrowRecipients: {key} is no age public key"));
        }
        let is_key = |key: &str| BASE64.decode(key.as_bytes()).is_ok_and(|key| key.len() == 32);
        if let Some(key) = self.trusted_keys.iter().find(|key| !is_key(key)) {
            return Err(format!("backups.trustedKeys: {key} is no Ed25519 public key in base64"));
        }
        if !self.volumes && self.classes.is_empty() {
            return Err("backups.classes is empty and backups.volumes is false: no destination is on offer".to_owned());
        }
        let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
        for class in &self.classes {
            let name = &class.name;
            if !names.insert(name) {
                return Err(format!("backup class {name} is listed twice"));
            }
            if !places.insert((&class.endpoint, &class.bucket, &class.prefix)) {
                return Err(format!("backup class {name} is the same place as another: a copy there would be none"));
            }
            if !class.allow_http && class.endpoint.as_ref().is_some_and(|url| !url.starts_with("https://")) {
                return Err(format!("backup class {name}: its endpoint is not https, and allowHttp is not true"));
            }
        }
        Ok(())
    }

    /// The class of that name.
    #[must_use]
    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes.iter().find(|class| class.name == name)
    }
}

fn if_not_present() -> String {
    "IfNotPresent".to_owned()
}

const fn yes() -> bool {
    true
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const ESCROW: &str = "age13aqvttdk3ujkyjh9kg2w5an6dmy5mq5a84a4uxk3hfhnugfc9p0sy5p2wh";

    pub(crate) fn example() -> String {
        format!(
            "
image: localhost/finaiflow-backup:dev
postgresImage: localhost/postgres:dev
escrowRecipients: [{ESCROW}]
classes:
  - {{name: near, bucket: banks, region: eu-central-1, credentialsSecretName: near-bucket}}
  - name: far
    bucket: banks
    region: eu-west-1
    endpoint: http://s3.example
    prefix: copies
    allowHttp: true
    credentialsSecretName: far-bucket
"
        )
    }

    #[test]
    fn faults_are_named() {
        let fault = |from: &str, to: &str| {
            let text = example().replacen(from, to, 1);
            serde_yaml::from_str::<Settings>(&text).unwrap().check().err().unwrap_or_default()
        };
        assert_eq!(fault("x", "x"), "");
        for (from, to, part) in [
            (ESCROW, "", "escrowRecipients is empty"),
            ("age13", "age14", "is no age public key"),
            (ESCROW, "AGE-SECRET-KEY-1", "is no age public key"),
            ("classes:", "trustedKeys: [c2hvcnQ=]\nclasses:", "is no Ed25519 public key"),
            ("name: far", "name: near", "backup class near is listed twice"),
            ("allowHttp: true", "allowHttp: false", "is not https"),
            ("    endpoint: http://s3.example\n    prefix: copies\n", "", "the same place as another"),
        ] {
            assert!(fault(from, to).contains(part), "{from} -> {to}: {}", fault(from, to));
        }
        let (head, _) = example().split_once("classes:").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let nowhere: Settings = serde_yaml::from_str(&format!("{head}volumes: false")).unwrap();
        assert!(nowhere.check().unwrap_err().contains("no destination is on offer"));
    }
}
