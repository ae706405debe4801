//! Step 4: makes it so. The only way from [`Prepared`] to [`Applied`].

use finaiflow_crds::Tenant;
use finaiflow_crds::condition::{self, ConditionType};
use finaiflow_crds::names::SecretPurpose;
use finaiflow_crds::tenant::SecretStatus;
use kube::ResourceExt;

use super::build::{Before, Prepared, PreparedSecret};
use super::child::{self, Child, Written, describe};
use super::dereference::FailedJob;
use super::hosts::Hosts;
use super::validate::ClaimPlan;
use crate::catalog::{Catalog, Change, Ledger, Migrated, TenantNames};
use crate::context::Context;
use crate::error::{Error, OnServer, Result};
use crate::story::{Fact, Story};

/// What is so. A status says nothing else.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The PostgreSQL server.
    pub server: String,
    /// The names there.
    pub names: TenantNames,
    /// The schema's version.
    pub version: i32,
    /// The Secrets.
    pub secrets: Vec<SecretStatus>,
    /// The hosts granted and denied.
    pub hosts: Hosts,
    /// What is known of the ledger.
    pub ledger: Ledger,
    /// The newest verification's failure to run.
    pub failed_job: Option<FailedJob>,
}

/// Applies everything, in an order that a crash cannot hurt: the identity first; Secrets before the passwords in them
/// reach PostgreSQL; access and jobs once there is something to access.
pub async fn apply<C: Catalog>(
    ctx: &Context<C>,
    tenant: &Tenant,
    prepared: Prepared,
    story: &Story,
) -> Result<Applied> {
    let Prepared {
        server,
        names,
        claim,
        limits,
        secrets,
        credentials,
        role,
        role_binding,
        network_policy,
        cron_job,
        hosts,
        before,
    } = prepared;
    let (catalog, client, server) = (&ctx.catalog, &ctx.client, server.name);
    let mut journal = Journal::new(tenant, &claim, story);

    story.step("claim", apply_claim(catalog, &server, &names, &claim, story)).await?;
    let written = async {
        for secret in &secrets {
            let written = child::ensure_ours(client, &secret.object, before.secrets.get(&secret.purpose)).await?;
            journal.secret(secret, written);
        }
        Ok::<_, Error>(())
    };
    story.step("secrets", written).await?;
    let provisioned = story.step("provision", catalog.provision(&server, &names, limits)).await.on(&server)?;
    journal.provisioned(&names, before.version, &provisioned);
    let migrated = story.step("migrate", catalog.migrate(&server, &names)).await.on(&server)?;
    journal.migrated(&migrated);
    let changes = story.step("logins", catalog.set_logins(&server, &names, &credentials)).await.on(&server)?;
    journal.logins(&changes);
    let written = async {
        // The API server's access, then what guards the jobs, then the jobs.
        journal.child(&role, child::ensure(client, &role, before.role.as_ref()).await?);
        journal.child(&role_binding, child::ensure(client, &role_binding, before.role_binding.as_ref()).await?);
        journal.child(&network_policy, child::ensure(client, &network_policy, before.network_policy.as_ref()).await?);
        journal.child(&cron_job, child::ensure(client, &cron_job, before.cron_job.as_ref()).await?);
        Ok::<_, Error>(())
    };
    story.step("objects", written).await?;

    journal.close();
    let Before { ledger, failed_job, .. } = before;
    let secrets = secrets.iter().map(|secret| secret_status(tenant, secret)).collect();
    Ok(Applied { server, names, version: migrated.to, secrets, hosts, ledger, failed_job })
}

async fn apply_claim<C: Catalog>(
    catalog: &C,
    server: &str,
    names: &TenantNames,
    claim: &ClaimPlan,
    story: &Story,
) -> Result<()> {
    let (id, schema, at) = (names.claim_id, names.schema.to_string(), server.to_owned());
    match claim {
        ClaimPlan::Keep => {}
        ClaimPlan::Record(new) => {
            catalog.claim(server, names, new).await.on(server)?;
            story.tell(Fact::Claimed { claim: id, schema, server: at });
        }
        ClaimPlan::Adopt { held, by } => {
            catalog.adopt(server, names, held, by).await.on(server)?;
            let from = format!("{}/{}", held.namespace, held.name);
            story.tell(Fact::Adopted { claim: id, schema, server: at, from });
        }
    }
    Ok(())
}

fn secret_status(tenant: &Tenant, secret: &PreparedSecret) -> SecretStatus {
    SecretStatus {
        name: secret.purpose.secret_name(&tenant.name_any()),
        purpose: secret.purpose.to_string(),
        generation: i64::from(secret.generation),
    }
}

/// Tells first provisioning, followed changes and drift apart.
struct Journal<'a> {
    story: &'a Story,
    /// The Tenant was provisioned before.
    was_complete: bool,
    /// The bank is older than the Tenant.
    adopts: bool,
    /// The spec is the one that was applied last: a difference is somebody else's doing.
    same_spec: bool,
    new_secrets: Vec<String>,
    differences: Vec<String>,
}

impl<'a> Journal<'a> {
    fn new(tenant: &Tenant, claim: &ClaimPlan, story: &'a Story) -> Self {
        let status = tenant.status.as_ref();
        let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
        Self {
            story,
            was_complete: status.is_some_and(|status| status.schema.is_some()),
            adopts: matches!(claim, ClaimPlan::Adopt { .. }),
            // What a Restore closed is opened by us again.
            same_spec: status.and_then(|status| status.observed_generation) == tenant.metadata.generation
                && !condition::is_true(conditions, ConditionType::Restoring),
            new_secrets: Vec::new(),
            differences: Vec::new(),
        }
    }

    fn secret(&mut self, secret: &PreparedSecret, written: Written) {
        let name = secret.object.name_any();
        if !secret.renewed {
            return self.child(&secret.object, written);
        }
        if (self.was_complete || self.adopts) && secret.purpose == SecretPurpose::SigningKeys {
            self.story.tell(Fact::SigningKeysReplaced(name.clone()));
        }
        if self.was_complete {
            self.differences.push(format!("secret {name} got new contents, generation {}", secret.generation));
        }
        self.new_secrets.push(name);
    }

    fn provisioned(&mut self, names: &TenantNames, version: Option<i32>, changes: &[Change]) {
        let (schema, owner) = (names.schema.to_string(), names.owner.to_string());
        match (self.was_complete, version) {
            _ if changes.is_empty() => {}
            (false, _) => self.story.tell(Fact::Provisioned { schema, owner }),
            (true, None) => self.story.tell(Fact::SchemaLost(schema)),
            (true, Some(_)) => self.postgres(changes),
        }
    }

    fn migrated(&mut self, migrated: &Migrated) {
        if migrated.from == Some(migrated.to) {
            self.postgres(&migrated.grants);
        } else {
            self.story.tell(Fact::Migrated { from: migrated.from, to: migrated.to });
        }
    }

    fn logins(&mut self, changes: &[Change]) {
        if self.new_secrets.is_empty() {
            self.postgres(changes);
        }
    }

    fn child<K: Child>(&mut self, object: &K, written: Written) {
        match written {
            Written::Nothing => {}
            Written::Created => self.differences.push(format!("{} was missing", describe(object))),
            Written::Repaired => self.differences.push(format!("{} differed", describe(object))),
        }
    }

    fn postgres(&mut self, changes: &[Change]) {
        self.differences.extend(changes.iter().map(Change::to_string));
    }

    fn close(self) {
        let (fact, what): (fn(Vec<String>) -> Fact, _) = match (self.was_complete, self.same_spec) {
            (false, _) => (Fact::CredentialsCreated, self.new_secrets),
            (true, true) => (Fact::DriftCorrected, self.differences),
            (true, false) => (Fact::Updated, self.differences),
        };
        if !what.is_empty() {
            self.story.tell(fact(what));
        }
    }
}
