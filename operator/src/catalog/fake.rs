//! A catalog in memory that records its calls and fails where a test says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest;
use finaiflow_schema::{Action, Conflict};

use super::{
    Catalog, Change, Claim, ClaimId, ClaimState, Credential, Error, Ledger, Limits, LoginRecord, Migrated, NewClaim,
    Observed, Password, Result, TenantNames,
};

pub const HEAD: i32 = 3;

/// When a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Before it had an effect.
    Before,
    /// After its effect was committed: the answer was lost.
    After,
}

/// One server's contents. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    pub state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
pub struct State {
    pub claims: Vec<Claim>,
    /// Who a schema belongs to: a claim's comment or a role.
    pub schemas: BTreeMap<String, String>,
    pub versions: BTreeMap<String, i32>,
    pub roles: BTreeSet<String>,
    pub limits: BTreeMap<String, Limits>,
    pub logins: Vec<LoginRecord>,
    pub verification: Option<super::Verification>,
    /// Journals that are looked up, by sequence.
    pub journals: BTreeMap<i64, super::Place>,
    /// Names of the calls so far.
    pub calls: Vec<&'static str>,
    /// How many changes were made so far.
    pub writes: usize,
    /// Which call from now on fails, and when.
    pub fault: Option<(usize, Fault)>,
}

impl State {
    fn change(&mut self, action: Action, object: String) -> Change {
        self.writes += 1;
        Change { action, object }
    }

    /// The claim, if it is as it was read.
    fn claim(&mut self, names: &TenantNames, held: &Claim) -> Result<&mut Claim> {
        let claim = self.claims.iter_mut().find(|claim| claim.claim_id == names.claim_id).unwrap();
        if *claim == *held {
            return Ok(claim);
        }
        let (sqlstate, message) = ("40001".to_owned(), "the claim has changed hands".to_owned());
        Err(finaiflow_schema::Error::Database { sqlstate, message }.into())
    }
}

impl Fake {
    fn call<T>(&self, name: &'static str, effect: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock().unwrap();
        state.calls.push(name);
        let lost = || Error::Schema(finaiflow_schema::Error::Unavailable("connection reset".to_owned()));
        let fault = match state.fault.as_mut() {
            Some((0, fault)) => Some(*fault),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        if fault.is_some() {
            state.fault = None;
        }
        if fault == Some(Fault::Before) {
            return Err(lost());
        }
        let result = effect(&mut state);
        if fault == Some(Fault::After) { Err(lost()) } else { result }
    }
}

pub fn sha256(password: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, password.as_bytes()).as_ref().to_vec()
}

impl Catalog for Fake {
    async fn claims(&self, _: &str, installation: &str, name: &str, also: Option<ClaimId>) -> Result<Vec<Claim>> {
        self.call("claims", |state| {
            let same = |claim: &&Claim| {
                claim.installation_id == installation && claim.name == name || Some(claim.claim_id) == also
            };
            Ok(state.claims.iter().filter(same).cloned().collect())
        })
    }

    async fn active_claims(&self, _: &str, installation: &str) -> Result<Vec<Claim>> {
        self.call("active_claims", |state| {
            let is_active = |claim: &&Claim| claim.installation_id == installation && claim.state == ClaimState::Active;
            Ok(state.claims.iter().filter(is_active).cloned().collect())
        })
    }

    async fn find_claim(&self, _: &str, id: &ClaimId) -> Result<Option<Claim>> {
        self.call("find_claim", |state| Ok(state.claims.iter().find(|claim| claim.claim_id == *id).cloned()))
    }

    async fn count_active(&self, _: &str) -> Result<i64> {
        self.call("count_active", |state| {
            let active = state.claims.iter().filter(|claim| claim.state == ClaimState::Active).count();
            Ok(i64::try_from(active).unwrap())
        })
    }

    async fn observe(&self, _: &str, names: &TenantNames, anchor: Option<i64>) -> Result<Observed> {
        self.call("observe", |state| {
            let version = state.versions.get(names.schema.as_str()).copied();
            let ours = |record: &&LoginRecord| names.roles().iter().any(|role| role.as_str() == record.role);
            let logins = state.logins.iter().filter(ours).cloned().collect();
            let at_anchor = anchor.and_then(|sequence| state.journals.get(&sequence).cloned());
            Ok(Observed { version, logins, ledger: Ledger { verification: state.verification.clone(), at_anchor } })
        })
    }

    async fn claim(&self, _: &str, names: &TenantNames, new: &NewClaim) -> Result<()> {
        self.call("claim", |state| {
            let holder = state.claims.iter().find(|claim| {
                claim.state != ClaimState::Dropped && claim.schema_name == names.schema.as_str()
                    || claim.state == ClaimState::Active && claim.name == new.name
            });
            if let Some(Claim { namespace, name, .. }) = holder.cloned() {
                let what = if name == new.name { "tenant name " } else { "schema " }.to_owned();
                return Err(finaiflow_schema::Error::Conflict(Conflict { what, namespace, name }).into());
            }
            state.writes += 1;
            state.claims.push(Claim {
                claim_id: names.claim_id,
                installation_id: new.installation.clone(),
                namespace: new.namespace.clone(),
                name: new.name.clone(),
                schema_name: names.schema.to_string(),
                last_uid: new.uid.clone(),
                state: ClaimState::Active,
            });
            Ok(())
        })
    }

    async fn adopt(&self, _: &str, names: &TenantNames, held: &Claim, by: &NewClaim) -> Result<()> {
        self.call("adopt", |state| {
            state.logins.clear();
            let claim = state.claim(names, held)?;
            claim.installation_id.clone_from(&by.installation);
            claim.namespace.clone_from(&by.namespace);
            claim.name.clone_from(&by.name);
            claim.last_uid.clone_from(&by.uid);
            claim.state = ClaimState::Active;
            state.writes += 1;
            Ok(())
        })
    }

    async fn provision(&self, _: &str, names: &TenantNames, limits: Limits) -> Result<Vec<Change>> {
        self.call("provision", |state| {
            let (schema, mark) = (names.schema.to_string(), names.comment());
            let mut changes = Vec::new();
            match state.schemas.get(&schema) {
                Some(owner) if *owner != mark => {
                    let (object, owner) = (format!("schema {schema}"), owner.clone());
                    return Err(finaiflow_schema::Error::Foreign { object, owner }.into());
                }
                Some(_) => {}
                None => {
                    state.schemas.insert(schema.clone(), mark);
                    changes.push(state.change(Action::Created, format!("schema {schema}")));
                }
            }
            for role in names.roles() {
                if state.roles.insert(role.to_string()) {
                    changes.push(state.change(Action::Created, format!("role {role}")));
                }
            }
            if state.limits.insert(schema, limits).is_some_and(|old| old != limits) {
                changes.push(state.change(Action::Altered, format!("role {}", names.app_a)));
            }
            Ok(changes)
        })
    }

    async fn migrate(&self, _: &str, names: &TenantNames) -> Result<Migrated> {
        self.call("migrate", |state| {
            let from = state.versions.insert(names.schema.to_string(), HEAD);
            state.writes += usize::from(from != Some(HEAD));
            Ok(Migrated { from, to: HEAD, grants: Vec::new() })
        })
    }

    async fn set_logins(&self, _: &str, names: &TenantNames, credentials: &[Credential]) -> Result<Vec<Change>> {
        self.call("set_logins", |state| {
            let mut changes = Vec::new();
            for credential in credentials {
                let role = names.login(credential.login).to_string();
                let digest = sha256(credential.password.expose());
                let record = LoginRecord { role: role.clone(), generation: credential.generation, digest };
                if state.logins.contains(&record) {
                    continue;
                }
                state.logins.retain(|old| old.role != role);
                state.logins.push(record);
                changes.push(state.change(Action::Altered, format!("credentials of role {role}")));
            }
            Ok(changes)
        })
    }

    async fn release(&self, _: &str, names: &TenantNames, held: &Claim) -> Result<Vec<Change>> {
        self.call("release", |state| {
            state.claim(names, held)?.state = ClaimState::Released;
            state.logins.clear();
            Ok(vec![state.change(Action::Disabled, format!("login {}", names.app_a))])
        })
    }

    async fn drop_tenant(&self, _: &str, names: &TenantNames, held: &Claim) -> Result<Vec<Change>> {
        self.call("drop_tenant", |state| {
            state.claim(names, held)?.state = ClaimState::Dropped;
            state.logins.clear();
            let mut changes = Vec::new();
            if state.schemas.get(names.schema.as_str()) == Some(&names.comment()) {
                state.schemas.remove(names.schema.as_str());
                state.versions.remove(names.schema.as_str());
                changes.push(state.change(Action::Dropped, format!("schema {}", names.schema)));
            }
            for role in names.roles() {
                if state.roles.remove(role.as_str()) {
                    changes.push(state.change(Action::Dropped, format!("role {role}")));
                }
            }
            Ok(changes)
        })
    }

    async fn pause(&self, _: &str, names: &TenantNames) -> Result<Vec<Change>> {
        self.call("pause", |state| {
            state.logins.retain(|login| login.role == names.backup.as_str());
            Ok(Vec::new())
        })
    }

    async fn set_aside(&self, _: &str, names: &TenantNames, _: Limits, number: u32) -> Result<Vec<Change>> {
        self.call("set_aside", |state| {
            let aside = format!("{}__pre_{number}", names.schema);
            Ok(vec![state.change(Action::Altered, format!("schema {aside}"))])
        })
    }

    async fn put_back(&self, _: &str, names: &TenantNames, _: u32) -> Result<Vec<Change>> {
        self.call("put_back", |state| Ok(vec![state.change(Action::Altered, format!("schema {}", names.schema))]))
    }

    async fn open_restore(&self, _: &str, names: &TenantNames, _: &Password) -> Result<String> {
        self.call("open_restore", |state| {
            state.roles.insert(names.restore.to_string());
            Ok(names.restore.to_string())
        })
    }

    async fn close_restore(&self, _: &str, names: &TenantNames) -> Result<Vec<Change>> {
        self.call("close_restore", |state| {
            state.roles.remove(names.restore.as_str());
            Ok(Vec::new())
        })
    }

    async fn drop_orphan_roles(&self, _: &str) -> Result<Vec<Change>> {
        self.call("drop_orphan_roles", |state| {
            let dropped = state.claims.iter().filter(|claim| claim.state == ClaimState::Dropped);
            let prefixes: Vec<_> = dropped.map(|claim| format!("ff_{}_", claim.claim_id)).collect();
            let is_orphan = |role: &String| prefixes.iter().any(|prefix| role.starts_with(prefix));
            let orphans: Vec<_> = state.roles.iter().filter(|role| is_orphan(role)).cloned().collect();
            state.roles.retain(|role| !orphans.contains(role));
            Ok(orphans.into_iter().map(|role| state.change(Action::Dropped, format!("role {role}"))).collect())
        })
    }
}
