//! A limit: what is counted, how, and for which requests.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One limit.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.algorithm == 'GCRA' || self.rates.all(r, !has(r.burst))", "a FixedWindow has no burst"),
    validation = ("self.rates.all(r, self.cost <= (has(r.burst) ? r.burst : r.requests))", "cost is more than a rate of this limit ever admits")
)]
pub struct Limit {
    /// Names the limit in headers, errors, metrics and merges.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = ("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')", "spec.limits[].name must be a DNS label (a-z, 0-9, '-')"))]
    pub name: String,
    /// Whether the limit refuses requests, only counts what it would refuse, or does nothing.
    #[serde(default)]
    pub mode: Mode,
    /// How requests are counted.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// All of them must admit a request.
    #[schemars(length(min = 1, max = 4))]
    pub rates: Vec<Rate>,
    /// What is counted separately. Absent: one count for the whole target. A request that lacks a user is not counted
    /// by a limit with the key User or Claim.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 4))]
    pub keys: Vec<Key>,
    /// Which requests are counted. Absent: all.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<Match>,
    /// How much of the quota a request takes.
    #[serde(default = "default_cost")]
    #[x_kube(validation = ("self >= 1 && self <= 1000000", "spec.limits[].cost must be between 1 and 1000000"))]
    pub cost: i64,
}

/// Whether a limit refuses requests.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It does.
    #[default]
    Enforce,
    /// It only counts, in metrics, what it would refuse.
    Shadow,
    /// It counts nothing.
    Disabled,
}

/// How requests are counted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// Generic cell rate algorithm (ITU-T I.371): the rate holds at all times, with bursts of `burst` at once. In any
    /// time w no more than burst + w x requests / periodSeconds are admitted.
    #[default]
    GCRA,
    /// At most `requests` in each period, counted from the epoch in UTC: a hard quota.
    FixedWindow,
}

/// A rate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.burst) || self.burst <= self.requests * 100", "burst must be at most 100 times requests"))]
pub struct Rate {
    /// Requests in a period.
    #[x_kube(validation = ("self >= 1 && self <= 1000000000", "requests must be between 1 and 1000000000"))]
    pub requests: i64,
    /// Length of the period, at most 31 days.
    #[x_kube(validation = ("self >= 1 && self <= 2678400", "periodSeconds must be between 1 and 2678400"))]
    pub period_seconds: i64,
    /// Most requests at once. Absent: as many as `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 1", "burst must be at least 1"))]
    pub burst: Option<i64>,
}

impl Rate {
    /// Most requests at once.
    #[must_use]
    pub fn burst(&self) -> i64 {
        self.burst.unwrap_or(self.requests)
    }
}

/// What is counted separately.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("(self.type == 'Header' || self.type == 'Claim') == has(self.name)", "a key of type Header or Claim has a name, and no other has one"),
    validation = ("self.type == 'ClientIP' || !has(self.ipv6PrefixLength)", "ipv6PrefixLength goes with ClientIP only")
)]
pub struct Key {
    /// Each value has a count of its own.
    #[serde(rename = "type")]
    pub kind: KeyType,
    /// Name of the header or claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = ("self.matches('^[A-Za-z0-9][A-Za-z0-9_-]*$')", "spec.limits[].keys[].name must be the name of a header or claim"))]
    pub name: Option<String>,
    /// Addresses of IPv6 with the same prefix share a count, since one client has many. Absent: 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 32 && self <= 128", "ipv6PrefixLength must be between 32 and 128"))]
    pub ipv6_prefix_length: Option<i32>,
}

/// The kinds of keys.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// The Tenant, for policies on the API server: those on Tenants count each by itself anyway.
    Tenant,
    /// The client's address; behind trusted proxies the one they tell.
    ClientIP,
    /// The signed-in user.
    User,
    /// A header's value. What clients can invent is no key on its own.
    Header,
    /// A claim of the access token, as text.
    Claim,
    /// The endpoint, as in the API's description.
    Route,
    /// The HTTP method.
    Method,
}

/// Which requests are counted.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.paths) || has(self.methods)", "a match has paths, methods or both"))]
pub struct Match {
    /// One of them must fit. Absent: every path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    pub paths: Vec<PathMatch>,
    /// The request's must be among them. Absent: every method.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 7))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub methods: Vec<Method>,
}

/// Which paths.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PathMatch {
    /// How `value` is compared.
    #[serde(default, rename = "type")]
    pub kind: PathType,
    /// A path without query, such as `/api/v1/auth/login`.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = ("self.startsWith('/')", "a path starts with /"))]
    pub value: String,
}

/// How a path is compared.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathType {
    /// The request's path is the value.
    Exact,
    /// It is the value, or lies below it.
    #[default]
    Prefix,
    /// The endpoint's path in the API's description is the value, as `/api/v1/accounts/{id}`.
    Template,
}

/// An HTTP method.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "their names say it (RFC 9110, section 9)")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

impl Method {
    /// The word in requests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }
}

impl Limit {
    /// What no replica could enforce.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let rate = |rate: &Rate| {
            (1..=1_000_000_000).contains(&rate.requests)
                && (1..=2_678_400).contains(&rate.period_seconds)
                && (1..=rate.requests * 100).contains(&rate.burst())
        };
        if self.rates.is_empty() || !self.rates.iter().all(rate) {
            return Some("a rate is out of its bounds");
        }
        let named = |key: &Key| matches!(key.kind, KeyType::Header | KeyType::Claim) == key.name.is_some();
        if !self.keys.iter().all(named) {
            return Some("a key of type Header or Claim has a name, and no other has one");
        }
        let admitted = |rate: &Rate| (1..=rate.burst().min(1_000_000)).contains(&self.cost);
        (!self.rates.iter().all(admitted)).then_some("the cost is more than a rate ever admits")
    }
}

const fn default_cost() -> i64 {
    1
}
