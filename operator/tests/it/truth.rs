//! Whether what is there is what the claims and the Tenants say: nothing more, and nothing less.

use std::collections::BTreeMap;

use finaiflow_crds::names::{ANNOTATION_CLAIM, ANNOTATION_GENERATION, LABEL_MANAGED_BY, LABEL_TENANT, MANAGED_BY};
use finaiflow_crds::{Tenant, TenantStatus};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::ListParams;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use sqlx::{Connection, PgConnection};

use crate::world::{World, eventually};

/// Roles of no claim that is active or released. One whose siblings own something in another database is of a claim
/// there. (PostgreSQL has no other link from a role to a database.)
const ORPHANED_ROLES: &str = "
    WITH ours AS (SELECT oid, rolname, substr(rolname, 1, 19) AS tenant FROM pg_roles WHERE rolname ~ '^ff_[0-9a-f]{16}_')
    SELECT 'role ' || rolname FROM ours
    WHERE NOT EXISTS (SELECT FROM finaiflow_system.claims
                      WHERE state <> 'dropped' AND ours.tenant = 'ff_' || claim_id)
      AND NOT EXISTS (SELECT FROM ours sibling JOIN pg_shdepend d ON d.refobjid = sibling.oid
                      JOIN pg_database other ON other.oid = d.dbid AND other.datname <> current_database()
                      WHERE sibling.tenant = ours.tenant)
    ORDER BY 1";
const ORPHANED_SCHEMAS: &str = "
    SELECT 'schema ' || nspname FROM pg_namespace
    WHERE (nspname LIKE 't\\_%' OR obj_description(oid, 'pg_namespace') LIKE 'finaiflow/claim=%')
      AND NOT EXISTS (SELECT FROM finaiflow_system.claims WHERE state <> 'dropped' AND schema_name = nspname
                      AND obj_description(pg_namespace.oid, 'pg_namespace') = 'finaiflow/claim=' || claim_id)
    ORDER BY 1";
const ORPHANED_LOGINS: &str = "
    SELECT 'record of login ' || role_name FROM finaiflow_system.logins
    WHERE NOT EXISTS (SELECT FROM finaiflow_system.claims c WHERE c.claim_id = logins.claim_id AND state = 'active')";

impl World {
    /// What the operator made and nobody has any more.
    pub async fn orphans(&self) -> Vec<String> {
        let mut orphans = self.orphans_in_postgres().await;
        let claims: BTreeMap<String, String> = self
            .query("SELECT claim_id || ' ' || name FROM finaiflow_system.claims WHERE state <> 'dropped'")
            .await
            .iter()
            .map(|row| row.split_once(' ').map(|(claim, name)| (claim.to_owned(), name.to_owned())).unwrap())
            .collect();
        for secret in self.made::<Secret>().await {
            // Some outlive their Tenant, but none its claim.
            let claim = secret.annotations().get(ANNOTATION_CLAIM);
            if claim.and_then(|claim| claims.get(claim)) != secret.labels().get(LABEL_TENANT) {
                orphans.push(format!("Secret {}", secret.name_any()));
            }
        }
        let tenants: Vec<_> =
            self.all::<Tenant>(&ListParams::default()).await.iter().map(ResourceExt::name_any).collect();
        for (owner, object) in [
            self.owned::<Secret>().await,
            self.owned::<Role>().await,
            self.owned::<RoleBinding>().await,
            self.owned::<NetworkPolicy>().await,
            self.owned::<CronJob>().await,
        ]
        .concat()
        {
            if !tenants.contains(&owner) {
                orphans.push(object);
            }
        }
        orphans
    }

    /// Those in PostgreSQL, where nobody collects what is left.
    pub async fn orphans_in_postgres(&self) -> Vec<String> {
        let mut orphans = Vec::new();
        for sql in [ORPHANED_ROLES, ORPHANED_SCHEMAS, ORPHANED_LOGINS] {
            orphans.extend(self.query(sql).await);
        }
        orphans
    }

    /// Waits until nothing is left that nobody has: Kubernetes collects what a Tenant owned some time after it.
    pub async fn no_orphans(&self) {
        eventually("no orphans", async || match self.orphans().await {
            orphans if orphans.is_empty() => Ok(()),
            orphans => Err(format!("{orphans:?}")),
        })
        .await;
    }

    async fn all<K>(&self, parameters: &ListParams) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        self.api::<K>(&self.banks).list(parameters).await.unwrap().items
    }

    async fn made<K>(&self) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        self.all(&ListParams::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGED_BY}"))).await
    }

    /// Of each object that goes with its Tenant, the Tenant and what it is.
    async fn owned<K>(&self) -> Vec<(String, String)>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let objects = self.made::<K>().await;
        let owned = objects.iter().filter(|object| !object.owner_references().is_empty());
        owned
            .map(|object| {
                let tenant = object.labels().get(LABEL_TENANT).cloned().unwrap_or_default();
                (tenant, format!("{} {}", K::kind(&()), object.name_any()))
            })
            .collect()
    }

    /// That a Tenant's status is true, all it says is there, and its logins get in.
    pub async fn is_true(&self, name: &str) {
        let tenant = self.tenant(name).await;
        let status = tenant.status.clone().unwrap();
        assert_eq!(status.observed_generation, tenant.metadata.generation, "{status:?}");
        for condition in ["Ready", "SchemaReady", "CredentialsReady", "Serving"] {
            let found = status.conditions.iter().find(|found| found.type_ == condition).unwrap();
            assert_eq!(found.status, "True", "{name}: {found:?}");
        }
        assert!(!status.conditions.iter().any(|found| ["Stalled", "Reconciling"].contains(&found.type_.as_str())));
        let TenantStatus { claim_id, schema, .. } = &status;
        let (claim, schema) = (claim_id.as_ref().unwrap(), schema.as_ref().unwrap());
        let claims = format!(
            "SELECT claim_id || ' ' || schema_name || ' ' || state FROM finaiflow_system.claims
             WHERE name = '{name}' OR claim_id = '{claim}'"
        );
        assert_eq!(self.query(&claims).await, [format!("{claim} {} active", schema.name)], "{name}: one claim");
        let schemas = format!(
            "SELECT nspname || ' ' || nspowner::regrole FROM pg_namespace
             WHERE obj_description(oid, 'pg_namespace') = 'finaiflow/claim={claim}'"
        );
        assert_eq!(self.query(&schemas).await, [format!("{} ff_{claim}_owner", schema.name)], "{name}: one schema");
        let version = format!("SELECT max(version)::text FROM {}.schema_migrations", schema.name);
        assert_eq!(self.query(&version).await, [schema.version.to_string()], "{name}");
        let connections = tenant.spec.limits.connections;
        let roles = format!(
            "SELECT substr(rolname, 21) || ' ' || rolcanlogin || ' ' || rolconnlimit FROM pg_roles
             WHERE starts_with(rolname, 'ff_{claim}_') ORDER BY rolname COLLATE \"C\""
        );
        let expected = [
            "app false -1".to_owned(),
            format!("app_a true {connections}"),
            format!("app_b false {connections}"),
            "backup true 6".to_owned(),
            "maintenance true 2".to_owned(),
            "owner false -1".to_owned(),
        ];
        assert_eq!(self.query(&roles).await, expected, "{name}");
        self.secrets_are_true(name, claim, &status).await;
    }

    async fn secrets_are_true(&self, name: &str, claim: &str, status: &TenantStatus) {
        let mut found: Vec<(String, i64)> = Vec::new();
        for secret in self.made::<Secret>().await {
            if secret.labels().get(LABEL_TENANT).is_some_and(|tenant| tenant == name) {
                assert_eq!(secret.annotations().get(ANNOTATION_CLAIM).map(String::as_str), Some(claim));
                found.push((secret.name_any(), secret.annotations()[ANNOTATION_GENERATION].parse().unwrap()));
            }
        }
        let mut told: Vec<_> = status.secrets.iter().map(|secret| (secret.name.clone(), secret.generation)).collect();
        found.sort();
        told.sort();
        assert_eq!(found, told, "{name}");
        for (secret, table) in
            [("database", "users"), ("maintenance-database", "entries"), ("backup-database", "users")]
        {
            let url = self.secret(&format!("{name}.{secret}"), "DATABASE_URL").await;
            let mut session = PgConnection::connect(&url).await.unwrap();
            let count = format!("SELECT count(*) FROM {table}");
            let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&mut session).await.unwrap();
            assert_eq!(count, 0);
            session.close().await.unwrap();
        }
    }
}
