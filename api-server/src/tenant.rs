//! A served tenant and the directory that maps names and hosts to tenants.
//!
//! [`Tenant`] is an immutable snapshot: a change of any kind (settings, rotated credentials, rotated keys) is a new
//! snapshot put into the [`Directory`]; requests that already hold the old one finish with it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use finaiflow_ledger::engine::Engine;
use finaiflow_ledger::money::Currency;
use finaiflow_schema::names::ClaimId;
use sqlx::PgPool;
use uuid::Uuid;

use crate::domain::signing_keys::SigningKeys;

/// One bank as this replica serves it.
#[derive(Debug)]
pub struct Tenant {
    /// Name of the Tenant resource, unique per installation.
    pub name: String,
    /// How policies name it.
    pub target: Arc<PolicyTarget>,
    /// The bank's identity, also the token claim `tid`.
    pub claim_id: ClaimId,
    /// What the Tenant's spec decides about requests.
    pub settings: TenantSettings,
    /// Lazy pool that logs in as this tenant's own role.
    pub pool: PgPool,
    /// The tenant's ledger writer.
    pub engine: Engine,
    /// Keys that sign and verify this tenant's access tokens.
    pub keys: SigningKeys,
    /// Key-encryption key; secrets of this tenant are derived from it.
    pub data_key: DataKey,
}

/// What RateLimitPolicies name a Tenant by, besides its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyTarget {
    /// Namespace of the Tenant resource.
    pub namespace: String,
    /// Its `spec.tier`.
    pub tier: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// The part of a Tenant's spec that requests depend on.
#[derive(Debug, Clone)]
pub struct TenantSettings {
    /// Name shown to people.
    pub display_name: String,
    /// Currencies in which accounts may be opened.
    pub currencies: Vec<Currency>,
    /// Whether a user may deposit to own accounts.
    pub self_deposit: bool,
    /// Users who work for the bank.
    pub staff: Arc<HashMap<Uuid, Role>>,
    /// Lifetime of an access token.
    pub access_token_minutes: u32,
    /// Idle lifetime of a session, extended by each refresh.
    pub refresh_token_days: u32,
    /// Whether an address must be proven before a registration takes effect.
    pub email_verification: EmailVerification,
    /// Exact origins allowed by CORS, such as `https://app.acme.example`.
    pub allowed_origins: Vec<String>,
}

/// What a user who works for the bank may do beyond own accounts; the later ones may do what the earlier ones may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read everything.
    Auditor,
    /// Act on every account.
    Teller,
}

/// Whether an e-mail address must be proven before a registration takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailVerification {
    /// Registration completes only through a mail to the address.
    Required,
    /// The address is taken as given.
    Optional,
}

/// A tenant's 256-bit key-encryption key.
#[derive(Clone)]
pub struct DataKey([u8; 32]);

/// A data key of a wrong length.
#[derive(Debug, thiserror::Error)]
#[error("the data key is {0} bytes long, not 32")]
pub struct DataKeyError(usize);

impl DataKey {
    /// Takes the raw bytes of the Secret's `kek` entry.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DataKeyError> {
        bytes.try_into().map(Self).map_err(|_| DataKeyError(bytes.len()))
    }

    /// The key itself, for derivation only.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(redacted)")
    }
}

/// What the directory knows about one tenant name.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Granted hosts, without port; compared without regard to case.
    pub hosts: Vec<String>,
    /// Whether and how the tenant is served.
    pub state: State,
}

/// Whether and how a known tenant is served.
#[derive(Debug, Clone)]
pub enum State {
    /// Requests are answered from this snapshot.
    Serving(Arc<Tenant>),
    /// The platform team suspended the tenant.
    Suspended,
    /// The tenant exists but cannot be served now; the reason is for logs only and holds no secret.
    Unavailable(String),
}

/// Why a request belongs to no tenant that can be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TenantError {
    /// Neither the host nor the header names a tenant.
    #[error("the request names no tenant")]
    Required,
    /// The host and the header name different tenants.
    #[error("the host and X-Tenant-ID name different tenants")]
    Ambiguous,
    /// The name is not known here.
    #[error("no such tenant")]
    NotFound,
    /// The tenant is suspended.
    #[error("the tenant is suspended")]
    Suspended,
    /// The tenant cannot be served at the moment.
    #[error("the tenant is not being served: {0}")]
    Unavailable(String),
}

/// The live map of tenants: written by the registry, read by every request.
#[derive(Debug)]
pub struct Directory {
    base_domain: Option<String>,
    synced: AtomicBool,
    index: RwLock<Index>,
}

#[derive(Debug, Default)]
struct Index {
    entries: HashMap<String, Known>,
    hosts: HashMap<String, String>,
}

#[derive(Debug)]
struct Known {
    entry: Entry,
    /// Whether a request has reached it since somebody last asked.
    used: AtomicBool,
}

impl Index {
    fn remove(&mut self, name: &str) {
        for host in self.entries.remove(name).map(|known| known.entry.hosts).unwrap_or_default() {
            let host = host.to_ascii_lowercase();
            if self.hosts.get(&host).is_some_and(|owner| owner == name) {
                self.hosts.remove(&host);
            }
        }
    }
}

impl Directory {
    /// An empty directory; `base_domain` makes `<name>.<base domain>` a host of each tenant.
    #[must_use]
    pub fn new(base_domain: Option<&str>) -> Self {
        Self {
            base_domain: base_domain.map(str::to_ascii_lowercase),
            synced: AtomicBool::new(false),
            index: RwLock::new(Index::default()),
        }
    }

    /// Adds or replaces what is known about a tenant. A host that another tenant holds stays with that tenant.
    pub fn replace(&self, name: &str, entry: Entry) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.remove(name);
        for host in &entry.hosts {
            index.hosts.entry(host.to_ascii_lowercase()).or_insert_with(|| name.to_owned());
        }
        // What used the entry before may have left something to do.
        index.entries.insert(name.to_owned(), Known { entry, used: AtomicBool::new(true) });
    }

    /// Forgets a tenant.
    pub fn remove(&self, name: &str) {
        self.index.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// What is known about a tenant name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Entry> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).entries.get(name).map(|known| known.entry.clone())
    }

    /// The tenants that are served, each with whether a request has reached it since this was last asked.
    #[must_use]
    pub fn served(&self) -> Vec<(Arc<Tenant>, bool)> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let served = index.entries.values().filter_map(|known| match &known.entry.state {
            State::Serving(tenant) => Some((Arc::clone(tenant), known.used.swap(false, Ordering::Relaxed))),
            State::Suspended | State::Unavailable(_) => None,
        });
        served.collect()
    }

    /// Declares that every tenant that exists has been put here once; the server may become ready.
    pub fn mark_synced(&self) {
        self.synced.store(true, Ordering::Release);
    }

    /// Whether the directory has been filled once.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// The tenant of a request from its `Host` (port ignored) and its `X-Tenant-ID`.
    ///
    /// A host names a tenant when it is granted to one or is `<name>.<base domain>` of a known one; any other host (an
    /// address, the shared host of the service) leaves the decision to the header. A directory that has not been filled
    /// yet knows of no tenant that it does not exist.
    pub fn resolve(&self, host: Option<&str>, header: Option<&str>) -> Result<Arc<Tenant>, TenantError> {
        match self.look_up(host, header) {
            Err(TenantError::NotFound | TenantError::Required) if !self.ready() => {
                Err(TenantError::Unavailable("the tenants are not loaded yet".to_owned()))
            }
            found => found,
        }
    }

    fn look_up(&self, host: Option<&str>, header: Option<&str>) -> Result<Arc<Tenant>, TenantError> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let host = host.map(|host| without_port(host).to_ascii_lowercase());
        let subdomain = host.as_deref().and_then(|host| self.subdomain(host));
        let by_host = subdomain
            .filter(|name| index.entries.contains_key(*name))
            .or_else(|| host.as_deref().and_then(|host| index.hosts.get(host)).map(String::as_str));
        let name = match (by_host, header) {
            (Some(by_host), Some(header)) if by_host != header => return Err(TenantError::Ambiguous),
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) if subdomain.is_some() => return Err(TenantError::NotFound),
            (None, None) => return Err(TenantError::Required),
        };
        let known = index.entries.get(name).ok_or(TenantError::NotFound)?;
        match &known.entry.state {
            State::Serving(tenant) => {
                // Mostly it is set already, and what is only read is not fought over.
                if !known.used.load(Ordering::Relaxed) {
                    known.used.store(true, Ordering::Relaxed);
                }
                Ok(Arc::clone(tenant))
            }
            State::Suspended => Err(TenantError::Suspended),
            State::Unavailable(reason) => Err(TenantError::Unavailable(reason.clone())),
        }
    }

    /// The single label in front of the base domain, if that is what the host is.
    fn subdomain<'a>(&self, host: &'a str) -> Option<&'a str> {
        let label = host.strip_suffix(self.base_domain.as_deref()?)?.strip_suffix('.')?;
        (!label.is_empty() && !label.contains('.')).then_some(label)
    }
}

fn without_port(host: &str) -> &str {
    if host.ends_with(']') {
        return host;
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Directory {
        let directory = unfilled();
        directory.mark_synced();
        directory
    }

    fn unfilled() -> Directory {
        let directory = Directory::new(Some("Bank.local"));
        let entry = |hosts: &[&str], state| Entry { hosts: hosts.iter().map(|&host| host.to_owned()).collect(), state };
        directory.replace("acme", entry(&["Pay.Acme.example"], State::Suspended));
        directory.replace("globex", entry(&[], State::Unavailable("no Secret".to_owned())));
        directory
    }

    /// Which tenant was meant, told by the error that each of the two answers with.
    fn outcome(host: &str, header: Option<&str>) -> TenantError {
        directory().resolve(Some(host), header).map(|tenant| tenant.name.clone()).unwrap_err()
    }

    #[test]
    fn the_host_names_the_tenant() {
        for host in ["acme.bank.local", "ACME.bank.local:8000", "pay.acme.example", "pay.acme.example:443"] {
            assert_eq!(outcome(host, None), TenantError::Suspended, "{host}");
            assert_eq!(outcome(host, Some("acme")), TenantError::Suspended, "{host}");
            assert_eq!(outcome(host, Some("globex")), TenantError::Ambiguous, "{host}");
        }
    }

    #[test]
    fn a_host_that_names_no_tenant_leaves_it_to_the_header() {
        for host in [
            "127.0.0.1:8000",
            "[::1]:8000",
            "[::1]",
            "bank.local",
            "api.bank.local",
            "a.acme.bank.local",
            "xbank.local",
        ] {
            assert_eq!(outcome(host, Some("globex")), TenantError::Unavailable("no Secret".to_owned()), "{host}");
            assert_eq!(outcome(host, Some("nobody")), TenantError::NotFound, "{host}");
        }
    }

    #[test]
    fn without_header_an_unknown_name_is_told_from_none() {
        assert_eq!(outcome("nobody.bank.local", None), TenantError::NotFound);
        assert_eq!(outcome("bank.local", None), TenantError::Required);
        assert_eq!(directory().resolve(None, None).unwrap_err(), TenantError::Required);
    }

    #[test]
    fn a_host_stays_with_its_holder_until_that_is_gone() {
        let directory = directory();
        let rival = Entry { hosts: vec!["pay.acme.example".to_owned()], state: State::Unavailable(String::new()) };
        directory.replace("rival", rival.clone());
        assert_eq!(directory.resolve(Some("pay.acme.example"), None).unwrap_err(), TenantError::Suspended);
        directory.remove("acme");
        assert_eq!(directory.resolve(Some("pay.acme.example"), None).unwrap_err(), TenantError::Required);
        directory.replace("rival", rival);
        assert!(matches!(directory.resolve(Some("pay.acme.example"), None), Err(TenantError::Unavailable(_))));
    }

    #[test]
    fn nothing_is_denied_before_the_directory_is_filled() {
        let directory = unfilled();
        assert!(!directory.ready());
        for (host, header) in [("nobody.bank.local", None), ("pay.late.example", None), ("bank.local", Some("nobody"))]
        {
            let outcome = directory.resolve(Some(host), header).unwrap_err();
            assert!(matches!(outcome, TenantError::Unavailable(_)), "{host} {header:?}: {outcome:?}");
        }
        assert_eq!(directory.resolve(None, Some("acme")).unwrap_err(), TenantError::Suspended);
        directory.mark_synced();
        assert!(directory.ready());
        assert_eq!(directory.resolve(None, Some("nobody")).unwrap_err(), TenantError::NotFound);
    }

    #[test]
    fn a_data_key_is_32_bytes_and_hidden() {
        assert!(DataKey::from_bytes(&[1; 31]).is_err());
        assert_eq!(format!("{:?}", DataKey::from_bytes(&[1; 32]).unwrap()), "DataKey(redacted)");
    }
}
