//! What the operator needs of PostgreSQL, as a port: a live adapter over `finaiflow-schema`, and a fake for tests.

#[cfg(test)]
pub(crate) mod fake;
pub mod live;

use std::future::Future;

pub use finaiflow_schema::names::{ClaimId, Login, TenantNames};
pub use finaiflow_schema::provision::{Limits, LoginRecord};
pub use finaiflow_schema::system::{Claim, ClaimState};
pub use finaiflow_schema::verification::Place;
pub use finaiflow_schema::{Change, Password};
use k8s_openapi::jiff::Timestamp;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL, or what was found there.
    #[error(transparent)]
    Schema(#[from] finaiflow_schema::Error),
    /// The admin role's Secret cannot be used.
    #[error("admin secret {name}: {why}")]
    Admin {
        /// The Secret in the operator's namespace.
        name: String,
        /// What is wrong with it; no contents.
        why: String,
    },
}

/// Shorthand for this module's results.
pub type Result<T> = std::result::Result<T, Error>;

/// What is recorded and found of a tenant that has a claim.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// The schema's version; None before its first migration.
    pub version: Option<i32>,
    /// Which credentials the logins were given last.
    pub logins: Vec<LoginRecord>,
    /// What is known of its ledger.
    pub ledger: Ledger,
}

/// What is known of a tenant's ledger.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    /// The newest verification.
    pub verification: Option<Verification>,
    /// What is found at the anchor's sequence, if there is an anchor.
    pub at_anchor: Option<Place>,
}

/// One ledger verification's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Verification {
    /// Incarnation of the ledger.
    pub epoch: i32,
    /// The newest journal it saw.
    pub sequence: i64,
    /// That journal's hash in hexadecimal; none from before there were hashes.
    pub hash: Option<String>,
    /// Whether every check passed.
    pub balanced: bool,
    /// Array of `{check, account_id?, sequence?, detail}`.
    pub findings: serde_json::Value,
    /// When it ended, in whole seconds.
    pub finished_at: Timestamp,
}

/// The Tenant that a claim is recorded for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewClaim {
    /// The Kubernetes cluster.
    pub installation: String,
    /// Namespace of the Tenant.
    pub namespace: String,
    /// Name of the Tenant.
    pub name: String,
    /// UID of the Tenant.
    pub uid: String,
}

/// What a migration did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Migrated {
    /// The version before; None for an empty schema.
    pub from: Option<i32>,
    /// The version now.
    pub to: i32,
    /// Rights that were missing or too many.
    pub grants: Vec<Change>,
}

/// A password that a login shall have.
#[derive(Debug, Clone, PartialEq)]
pub struct Credential {
    /// The login.
    pub login: Login,
    /// Its password.
    pub password: Password,
    /// Counts its passwords from 1.
    pub generation: i32,
}

/// The operator's view of the PostgreSQL servers, each named by its configuration.
///
/// Every call that writes is one transaction, refused if a newer operator has taken over the server. A call that finds
/// everything as it should be changes nothing and returns no changes. Where a call takes the claim as it was read,
/// `held`, it is refused if the claim has changed since.
pub trait Catalog: Send + Sync + 'static {
    /// Every claim ever made in the installation for Tenants of that name, in any namespace, and the one of that
    /// identity.
    fn claims(
        &self,
        server: &str,
        installation: &str,
        name: &str,
        also: Option<ClaimId>,
    ) -> impl Future<Output = Result<Vec<Claim>>> + Send;

    /// Every claim that a Tenant of the installation holds.
    fn active_claims(&self, server: &str, installation: &str) -> impl Future<Output = Result<Vec<Claim>>> + Send;

    /// A claim by its identity.
    fn find_claim(&self, server: &str, claim: &ClaimId) -> impl Future<Output = Result<Option<Claim>>> + Send;

    /// How many tenants the server has.
    fn count_active(&self, server: &str) -> impl Future<Output = Result<i64>> + Send;

    /// What is there of a tenant, whose ledger is anchored at the sequence `anchor`.
    fn observe(
        &self,
        server: &str,
        names: &TenantNames,
        anchor: Option<i64>,
    ) -> impl Future<Output = Result<Observed>> + Send;

    /// Records a claim.
    fn claim(&self, server: &str, names: &TenantNames, new: &NewClaim) -> impl Future<Output = Result<()>> + Send;

    /// Gives a claim to another Tenant. An active one is released first: its logins are closed.
    fn adopt(
        &self,
        server: &str,
        names: &TenantNames,
        held: &Claim,
        by: &NewClaim,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Roles, and the schema.
    fn provision(
        &self,
        server: &str,
        names: &TenantNames,
        limits: Limits,
    ) -> impl Future<Output = Result<Vec<Change>>> + Send;

    /// Migrations, then the rights on what they made.
    fn migrate(&self, server: &str, names: &TenantNames) -> impl Future<Output = Result<Migrated>> + Send;

    /// Passwords of logins.
    fn set_logins(
        &self,
        server: &str,
        names: &TenantNames,
        credentials: &[Credential],
    ) -> impl Future<Output = Result<Vec<Change>>> + Send;

    /// Closes the logins and gives the claim up; schema and data stay.
    fn release(
        &self,
        server: &str,
        names: &TenantNames,
        held: &Claim,
    ) -> impl Future<Output = Result<Vec<Change>>> + Send;

    /// Drops what carries the claim, and marks the claim as dropped.
    fn drop_tenant(
        &self,
        server: &str,
        names: &TenantNames,
        held: &Claim,
    ) -> impl Future<Output = Result<Vec<Change>>> + Send;

    /// Closes the logins of the API server and of the job that verifies the ledger: nobody writes any more.
    fn pause(&self, server: &str, names: &TenantNames) -> impl Future<Output = Result<Vec<Change>>> + Send;

    /// Closes every login, and puts the schema with its data aside under `number`. What is made in its place is empty.
    fn set_aside(
        &self,
        server: &str,
        names: &TenantNames,
        limits: Limits,
        number: u32,
    ) -> impl Future<Output = Result<Vec<Change>>> + Send;

    /// Undoes [`Self::set_aside`]: what took the place of the data is dropped. Fails if there is nothing to put back.
    fn put_back(
        &self,
        server: &str,
        names: &TenantNames,
        number: u32,
    ) -> impl Future<Output = Result<Vec<Change>>> + Send;

    /// Makes the login that fills an empty schema, and tells its name.
    fn open_restore(
        &self,
        server: &str,
        names: &TenantNames,
        password: &Password,
    ) -> impl Future<Output = Result<String>> + Send;

    /// Drops that login.
    fn close_restore(&self, server: &str, names: &TenantNames) -> impl Future<Output = Result<Vec<Change>>> + Send;

    /// Drops roles of claims that were dropped, unless they own something.
    fn drop_orphan_roles(&self, server: &str) -> impl Future<Output = Result<Vec<Change>>> + Send;
}
