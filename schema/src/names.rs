//! Names of everything a tenant has in PostgreSQL. All derive from the claim, the bank's identity.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// PostgreSQL truncates longer names without an error.
const MAX_IDENTIFIER: usize = 63;
const MAX_SLUG: usize = 24;
const MAX_SCHEMA_NAME: usize = 40;
const LONGEST_ROLE_SUFFIX: &str = "_maintenance";

const _: () = assert!("ff_".len() + ClaimId::LENGTH + LONGEST_ROLE_SUFFIX.len() <= MAX_IDENTIFIER);
const _: () = assert!("t_".len() + MAX_SLUG + "_".len() + 8 <= MAX_SCHEMA_NAME);

/// Schemas that are never a tenant's.
const RESERVED_SCHEMAS: [&str; 3] = ["public", "information_schema", "finaiflow_system"];

/// Why a name cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `[a-z_][a-z0-9_]*` of 1 to 63 bytes.
    #[error("`{0}` is not an identifier: use a-z, 0-9 and _, not starting with a digit, at most 63 bytes")]
    Identifier(String),
    /// Not 16 lower-case hexadecimal digits.
    #[error("`{0}` is not a claim id: 16 lower-case hexadecimal digits")]
    ClaimId(String),
    /// Not a DNS label.
    #[error("`{0}` is not a tenant name: a-z, 0-9 and -, starting and ending with a letter or digit")]
    Tenant(String),
    /// Too long for a schema or kept for PostgreSQL or the operator.
    #[error(
        "`{0}` cannot be a tenant's schema: at most 40 bytes, not pg_*, public, information_schema, finaiflow_system"
    )]
    Schema(String),
}

/// A bank's identity: 64 random bits, written as 16 lower-case hexadecimal digits. It outlives the Tenant resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClaimId(u64);

impl ClaimId {
    const LENGTH: usize = 16;

    /// A new identity from random bits.
    #[must_use]
    pub const fn from_random(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Display for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ClaimId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        u64::from_str_radix(text, 16)
            .ok()
            .map(Self)
            .filter(|id| id.to_string() == text)
            .ok_or_else(|| NameError::ClaimId(text.to_owned()))
    }
}

impl TryFrom<String> for ClaimId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ClaimId> for String {
    fn from(id: ClaimId) -> Self {
        id.to_string()
    }
}

/// A name that may stand in SQL: `[a-z_][a-z0-9_]*`, 1 to 63 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier(String);

impl Identifier {
    /// Checks a name.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        let head = |c: char| c.is_ascii_lowercase() || c == '_';
        let valid = name.len() <= MAX_IDENTIFIER
            && name.starts_with(head)
            && name.chars().all(|c| head(c) || c.is_ascii_digit());
        if valid { Ok(Self(name)) } else { Err(NameError::Identifier(name)) }
    }

    /// The bare name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identifier as SQL, in double quotes, so that no keyword collides.
#[must_use]
pub fn quote(identifier: &Identifier) -> String {
    format!("\"{identifier}\"")
}

/// A login role of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// The API server's, slot a.
    AppA,
    /// The API server's, slot b.
    AppB,
    /// The ledger-verification job's.
    Maintenance,
    /// The backup jobs'.
    Backup,
}

impl Login {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::AppA, Self::AppB, Self::Maintenance, Self::Backup];

    /// The API server's slot for a credential generation: odd generations use a, even ones b.
    #[must_use]
    pub const fn app(generation: i32) -> Self {
        if generation % 2 == 0 { Self::AppB } else { Self::AppA }
    }

    pub(crate) const fn purpose(self) -> &'static str {
        match self {
            Self::AppA | Self::AppB => "app",
            Self::Maintenance => "maintenance",
            Self::Backup => "backup",
        }
    }
}

/// A tenant's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantNames {
    /// The identity the role names derive from.
    pub claim_id: ClaimId,
    /// The schema, `t_<slug>_<8 hex>` unless the Tenant names one.
    pub schema: Identifier,
    /// `NOLOGIN`; owns the schema and all in it.
    pub owner: Identifier,
    /// `NOLOGIN`; the group that holds the API server's rights.
    pub app: Identifier,
    /// Login slot a of the API server.
    pub app_a: Identifier,
    /// Login slot b of the API server.
    pub app_b: Identifier,
    /// Login of the ledger-verification job.
    pub maintenance: Identifier,
    /// Login of the backup jobs.
    pub backup: Identifier,
    /// Login of a restore; it exists while one runs.
    pub restore: Identifier,
}

impl TenantNames {
    /// Derives all names from the claim, the Tenant's name (a DNS label) and the schema name it may ask for.
    pub fn derive(claim_id: &ClaimId, tenant: &str, schema: Option<&str>) -> Result<Self, NameError> {
        let schema = match schema {
            Some(name) => checked_schema(name)?,
            None => Identifier::new(format!("t_{}_{}", slug(tenant)?, &claim_id.to_string()[..8]))?,
        };
        let role = |suffix: &str| Identifier::new(format!("ff_{claim_id}{suffix}"));
        Ok(Self {
            claim_id: *claim_id,
            schema,
            owner: role("_owner")?,
            app: role("_app")?,
            app_a: role("_app_a")?,
            app_b: role("_app_b")?,
            maintenance: role(LONGEST_ROLE_SUFFIX)?,
            backup: role("_backup")?,
            restore: role("_restore")?,
        })
    }

    /// The role behind a login.
    #[must_use]
    pub const fn login(&self, login: Login) -> &Identifier {
        match login {
            Login::AppA => &self.app_a,
            Login::AppB => &self.app_b,
            Login::Maintenance => &self.maintenance,
            Login::Backup => &self.backup,
        }
    }

    /// Every lasting role, members before the group they are in, the owner last: the order in which they can be dropped.
    #[must_use]
    pub const fn roles(&self) -> [&Identifier; 6] {
        [&self.app_a, &self.app_b, &self.maintenance, &self.backup, &self.app, &self.owner]
    }

    /// The comment that marks an object as this claim's.
    #[must_use]
    pub fn comment(&self) -> String {
        format!("finaiflow/claim={}", self.claim_id)
    }

    /// The comment on a schema of this claim that a restore has put aside: data to keep, and no tenant's.
    #[must_use]
    pub fn aside_comment(&self) -> String {
        format!("finaiflow/aside={}", self.claim_id)
    }
}

fn checked_schema(name: &str) -> Result<Identifier, NameError> {
    let reserved = name.starts_with("pg_") || RESERVED_SCHEMAS.contains(&name);
    if reserved || name.len() > MAX_SCHEMA_NAME {
        return Err(NameError::Schema(name.to_owned()));
    }
    Identifier::new(name)
}

fn slug(tenant: &str) -> Result<String, NameError> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let valid = !tenant.is_empty() && tenant.chars().all(inner) && !tenant.starts_with('-') && !tenant.ends_with('-');
    if !valid {
        return Err(NameError::Tenant(tenant.to_owned()));
    }
    let cut = &tenant[..tenant.len().min(MAX_SLUG)];
    Ok(cut.trim_end_matches('-').replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> ClaimId {
        ClaimId::from_random(0x0123_4567_89ab_cdef)
    }

    #[test]
    fn names_derive_from_the_claim() {
        let names = TenantNames::derive(&claim(), "acme-bank", None).unwrap();
        assert_eq!(names.schema.as_str(), "t_acme_bank_01234567");
        assert_eq!(
            names.roles().map(Identifier::as_str),
            [
                "ff_0123456789abcdef_app_a",
                "ff_0123456789abcdef_app_b",
                "ff_0123456789abcdef_maintenance",
                "ff_0123456789abcdef_backup",
                "ff_0123456789abcdef_app",
                "ff_0123456789abcdef_owner",
            ]
        );
        assert_eq!(names.comment(), "finaiflow/claim=0123456789abcdef");
        assert_eq!(quote(&names.schema), "\"t_acme_bank_01234567\"");
    }

    #[test]
    fn no_tenant_name_reaches_the_limit() {
        let names = TenantNames::derive(&claim(), &"a".repeat(300), None).unwrap();
        assert_eq!(names.schema.as_str(), format!("t_{}_01234567", "a".repeat(24)));
        let cut_at_a_hyphen = TenantNames::derive(&claim(), &format!("{}-b", "a".repeat(23)), None).unwrap();
        assert_eq!(cut_at_a_hyphen.schema.as_str(), format!("t_{}_01234567", "a".repeat(23)));
        assert!(names.roles().iter().all(|role| role.as_str().len() <= MAX_IDENTIFIER));
    }

    #[test]
    fn unsafe_names_are_refused() {
        for name in ["", "1a", "A", "a-b", "a\"b", "a b", "é", &"a".repeat(64)] {
            assert_eq!(Identifier::new(name), Err(NameError::Identifier(name.to_owned())));
        }
        assert!(Identifier::new("a".repeat(63)).is_ok());
        for name in ["pg_toast", "public", "information_schema", "finaiflow_system", &"a".repeat(41)] {
            assert_eq!(TenantNames::derive(&claim(), "a", Some(name)), Err(NameError::Schema(name.to_owned())));
        }
        for tenant in ["", "-a", "a-", "Acme", "a_b", "a\"b"] {
            assert_eq!(TenantNames::derive(&claim(), tenant, None), Err(NameError::Tenant(tenant.to_owned())));
        }
    }

    #[test]
    fn a_claim_id_has_one_spelling() {
        assert_eq!("0123456789abcdef".parse(), Ok(claim()));
        for text in ["", "0123456789ABCDEF", "123456789abcdef", "+123456789abcdef", "0123456789abcdef0"] {
            assert!(text.parse::<ClaimId>().is_err(), "{text}");
        }
        assert_eq!(ClaimId::from_random(1).to_string(), "0000000000000001");
    }

    #[test]
    fn generations_take_turns() {
        assert_eq!([1, 2, 3].map(Login::app), [Login::AppA, Login::AppB, Login::AppA]);
    }
}
