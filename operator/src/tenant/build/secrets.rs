//! The Secrets beside a Tenant.

use std::collections::BTreeMap;

use finaiflow_crds::Tenant;
use finaiflow_crds::names::{ANNOTATION_CLAIM, ANNOTATION_GENERATION, SecretPurpose};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::{KEK, KEYS_JSON, PASSWORD, PreparedSecret, metadata, signing_keys};
use crate::catalog::{Credential, Login, Password, TenantNames};
use crate::config::{Endpoint, Server};
use crate::error::Result;
use crate::random::Random;
use crate::tenant::secret_plan::{SecretPlan, login};

type Data = BTreeMap<String, ByteString>;

/// All Secrets, in the order in which they are made.
pub fn build(
    tenant: &Tenant,
    names: &TenantNames,
    server: &Server,
    plans: &BTreeMap<SecretPurpose, SecretPlan>,
    now: Timestamp,
    random: Random,
) -> Result<Vec<PreparedSecret>> {
    let mut secrets = Vec::with_capacity(plans.len());
    for purpose in SecretPurpose::ALL {
        let Some(plan) = plans.get(&purpose) else { continue };
        let (live, generation, renewed) = match plan {
            SecretPlan::Keep { live, generation } => (Some(live.as_ref()), *generation, false),
            SecretPlan::Renew { live, generation } => (live.as_deref(), *generation, true),
        };
        let kept = live.filter(|_| !renewed).and_then(|live| live.data.as_ref());
        let data = match (login(purpose), purpose) {
            (Some(login), _) => database(names, server, login, &password(kept, random)?),
            (None, SecretPurpose::SigningKeys) => key(KEYS_JSON, kept, || signing_keys::create(now, random))?,
            (None, _) => key(KEK, kept, || Ok(random.bytes::<32>()?.to_vec()))?,
        };
        let object = secret(tenant, names, purpose, generation, live, data);
        secrets.push(PreparedSecret { purpose, generation, renewed, object });
    }
    Ok(secrets)
}

/// The passwords that logins shall have.
pub fn credentials(secrets: &[PreparedSecret]) -> Vec<Credential> {
    let credential = |secret: &PreparedSecret| {
        let password = text(secret.object.data.as_ref()?, PASSWORD)?;
        Some(Credential { login: login(secret.purpose)?, password: password.into(), generation: secret.generation })
    };
    secrets.iter().filter_map(credential).collect()
}

fn secret(
    tenant: &Tenant,
    names: &TenantNames,
    purpose: SecretPurpose,
    generation: i32,
    live: Option<&Secret>,
    data: Data,
) -> Secret {
    let mut metadata = metadata(tenant, purpose.secret_name(&tenant.name_any()));
    if purpose.outlives_tenant() {
        metadata.owner_references = None;
    }
    // What was decided from these contents must not be written over other contents.
    metadata.resource_version = live.and_then(|live| live.metadata.resource_version.clone());
    metadata.annotations = Some(
        [
            (ANNOTATION_CLAIM.to_owned(), names.claim_id.to_string()),
            (ANNOTATION_GENERATION.to_owned(), generation.to_string()),
        ]
        .into(),
    );
    Secret { metadata, type_: Some(purpose.secret_type()), data: Some(data), ..Secret::default() }
}

fn password(kept: Option<&Data>, random: Random) -> Result<Password> {
    match kept.and_then(|data| text(data, PASSWORD)) {
        Some(password) => Ok(password.into()),
        None => Ok(Password::from_random(random.bytes()?)),
    }
}

fn key(name: &str, kept: Option<&Data>, create: impl FnOnce() -> Result<Vec<u8>>) -> Result<Data> {
    let contents = match kept.and_then(|data| data.get(name)) {
        Some(contents) => contents.clone(),
        None => ByteString(create()?),
    };
    Ok([(name.to_owned(), contents)].into())
}

fn database(names: &TenantNames, server: &Server, login: Login, password: &Password) -> Data {
    let endpoint = &server.tenant_endpoint;
    let (host, port, dbname) = (&endpoint.host, endpoint.port.to_string(), &endpoint.database);
    let (username, sslmode) = (names.login(login).as_str(), endpoint.ssl_mode.as_str());
    let url = database_url(server, username, password);
    [
        ("DATABASE_URL", url.as_str()),
        ("host", host),
        ("port", &port),
        ("dbname", dbname),
        ("username", username),
        (PASSWORD, password.expose()),
        ("schema", names.schema.as_str()),
        ("sslmode", sslmode),
        ("pooled", if endpoint.pooled { "true" } else { "false" }),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())))
    .collect()
}

/// URL of a tenant's login.
#[must_use]
pub fn database_url(server: &Server, username: &str, password: &Password) -> String {
    let Endpoint { host, port, database, ssl_mode, .. } = &server.tenant_endpoint;
    // Passwords are of URL-safe characters, role names of a-z, 0-9 and _.
    format!("postgres://{username}:{}@{host}:{port}/{database}?sslmode={}", password.expose(), ssl_mode.as_str())
}

fn text(data: &Data, key: &str) -> Option<String> {
    String::from_utf8(data.get(key)?.0.clone()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, to_value};

    use super::super::tests::{config, names, owned, tenant};
    use super::*;

    fn random() -> Random {
        Random::new(|buffer| {
            buffer.fill(7);
            Ok(())
        })
    }

    fn built(plan: &SecretPlan) -> Vec<PreparedSecret> {
        let plans = SecretPurpose::ALL.map(|purpose| (purpose, plan.clone())).into();
        let server = &config().database_classes[0].servers[0];
        build(&tenant(&json!({})), &names(), server, &plans, Timestamp::UNIX_EPOCH, random()).unwrap()
    }

    fn with_annotations(mut metadata: Value, generation: &str) -> Value {
        metadata["annotations"] =
            json!({"finaiflow.io/claim-id": "0123456789abcdef", "finaiflow.io/generation": generation});
        metadata
    }

    #[test]
    fn a_database_secret_says_everything_a_client_needs() {
        let secrets = built(&SecretPlan::Renew { live: None, generation: 3 });
        let base64 = |text: &str| data_encoding::BASE64.encode(text.as_bytes());
        let password = Password::from_random([7; 32]);
        let user = "ff_0123456789abcdef_app_a";
        let url = format!(
            "postgres://{user}:{}@pooler.finaiflow-system.svc:6432/finaiflow?sslmode=verify-full",
            password.expose()
        );
        assert_eq!(
            to_value(&secrets[2].object).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "finaiflow.io/database",
                "metadata": with_annotations(owned("acme.database"), "3"),
                "data": {
                    "DATABASE_URL": base64(&url), "host": base64("pooler.finaiflow-system.svc"),
                    "port": base64("6432"), "dbname": base64("finaiflow"), "username": base64(user),
                    "password": base64(password.expose()), "schema": base64("t_acme_01234567"),
                    "sslmode": base64("verify-full"), "pooled": base64("true"),
                },
            })
        );
        let credentials = credentials(&secrets);
        let logins: Vec<_> = credentials.iter().map(|credential| (credential.login, credential.generation)).collect();
        assert_eq!(logins, [(Login::AppA, 3), (Login::Maintenance, 3), (Login::Backup, 3)]);
    }

    #[test]
    fn keys_outlive_the_tenant() {
        let secrets = built(&SecretPlan::Renew { live: None, generation: 1 });
        let mut metadata = with_annotations(owned("acme.data-key"), "1");
        metadata.as_object_mut().unwrap().remove("ownerReferences");
        assert_eq!(
            to_value(&secrets[0].object).unwrap(),
            json!({"apiVersion": "v1", "kind": "Secret", "type": "finaiflow.io/data-key", "metadata": metadata,
                "data": {"kek": data_encoding::BASE64.encode(&[7; 32])}})
        );
        assert_eq!(secrets[1].object.metadata.owner_references, None);
    }

    #[test]
    fn kept_contents_stay_and_only_over_what_was_read() {
        let live: Secret = serde_json::from_value(json!({
            "metadata": {"name": "x", "resourceVersion": "9"},
            "data": {"kek": "a2V5", "keys.json": "e30=", "password": "b2xk", "extra": "eA=="},
        }))
        .unwrap();
        let secrets = built(&SecretPlan::Keep { live: Box::new(live), generation: 2 });
        let kept: Vec<_> = secrets
            .iter()
            .map(|secret| {
                let data = secret.object.data.as_ref().unwrap();
                let contents = ["kek", "keys.json", "password"].iter().find_map(|key| data.get(*key)).unwrap();
                (contents.0.as_slice(), secret.object.metadata.resource_version.as_deref(), secret.renewed)
            })
            .collect();
        let expected = [&b"key"[..], b"{}", b"old", b"old", b"old"].map(|contents| (contents, Some("9"), false));
        assert_eq!(kept, expected);
    }
}
