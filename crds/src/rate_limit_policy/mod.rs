//! The `RateLimitPolicy`: how many requests whom are answered, and from where.
//!
//! It is attached like a policy of the Gateway API (GEP-713): to one Tenant, to Tenants by label, or to the whole API
//! server. [`resolve`] says which of several policies counts.

mod limit;
mod resolve;
mod status;

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

pub use limit::{Algorithm, Key, KeyType, Limit, Match, Method, Mode, PathMatch, PathType, Rate};
pub use resolve::{Attached, Effective, Item, Level, Loss, Standing, Target, digest, effective};
pub use status::{Ancestor, AncestorRef, RateLimitPolicyStatus, Replicas};

/// The only name of the target kind `ApiServer`.
pub const API_SERVER_TARGET: &str = "default";

/// Limits of requests, and networks that are refused or spared.
#[expect(clippy::duplicated_attributes, reason = "columns have a type each")]
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "finaiflow.io",
    version = "v1alpha1",
    kind = "RateLimitPolicy",
    plural = "ratelimitpolicies",
    singular = "ratelimitpolicy",
    shortname = "frlp",
    category = "finaiflow",
    namespaced,
    status = "RateLimitPolicyStatus",
    derive = "PartialEq",
    doc = "How many requests are answered, counted by whom and for what, and from which networks. Attached to Tenants, by name or label, or to the whole API server; in force on every replica within a second.",
    label("gateway.networking.k8s.io/policy", "inherited"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1
    ),
    printcolumn(name = "Targets", type_ = "integer", json_path = ".status.targets"),
    printcolumn(name = "Strategy", type_ = "string", json_path = ".spec.strategy"),
    printcolumn(name = "Updated", type_ = "integer", json_path = ".status.replicas.updated"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas.total", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.targetRefs) != has(self.targetSelector)", "exactly one of spec.targetRefs and spec.targetSelector must be set"),
    validation = ("has(self.limits) || has(self.allowCIDRs) || has(self.denyCIDRs) || has(self.maxInFlight)", "at least one of spec.limits, spec.allowCIDRs, spec.denyCIDRs and spec.maxInFlight must be set")
)]
pub struct RateLimitPolicySpec {
    /// What the policy is for: Tenants of its own namespace by name, or the whole API server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(
        validation = ("self.all(t, t.kind != 'ApiServer' || t.name == 'default')", "a spec.targetRefs[] of kind ApiServer must be named default"),
        validation = ("self.all(t, t.kind == 'Tenant' || !has(t.sectionName))", "spec.targetRefs[].sectionName goes with kind Tenant only"),
        validation = ("self.all(t, self.exists_one(o, o.kind == t.kind && o.name == t.name && (has(o.sectionName) ? o.sectionName : '') == (has(t.sectionName) ? t.sectionName : '')))", "spec.targetRefs must not name a target twice")
    )]
    pub target_refs: Vec<TargetRef>,

    /// What the policy is for: the Tenants of its own namespace that have all of these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_selector: Option<TargetSelector>,

    /// What becomes of more specific policies for the same target. ApiServer is the least specific, then a selector, a
    /// Tenant by name, and a section of it. Of two equally specific policies the older one decides.
    #[serde(default)]
    pub strategy: Strategy,

    /// What is counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub limits: Vec<Limit>,

    /// Networks whose requests no limit of the policies in force counts.
    #[serde(default, rename = "allowCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 128), inner(length(min = 1, max = 49)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = ("self.all(c, isCIDR(c))", "spec.allowCIDRs must be networks such as 203.0.113.0/24 or 2001:db8::/32")
    )]
    pub allow_cidrs: Vec<String>,

    /// Networks whose requests are answered 403 `ip-denied`, before anything else is done for them. Every policy
    /// attached to the target counts, also one whose limits do not. What `allowCIDRs` of the same policy names more
    /// precisely is not denied by it.
    #[serde(default, rename = "denyCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 128), inner(length(min = 1, max = 49)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = ("self.all(c, isCIDR(c))", "spec.denyCIDRs must be networks such as 203.0.113.0/24 or 2001:db8::/32")
    )]
    pub deny_cidrs: Vec<String>,

    /// Most requests of the target that one replica works on at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 1 && self <= 100000", "spec.maxInFlight must be between 1 and 100000"))]
    pub max_in_flight: Option<i32>,

    /// What holds while the store that the replicas share cannot be reached.
    #[serde(default)]
    pub failure_mode: FailureMode,

    /// Which headers tell clients about their quota.
    #[serde(default)]
    pub response_headers: ResponseHeaders,
}

/// What a policy is for.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// A Tenant, or the API server as a whole.
    pub kind: TargetKind,
    /// Name of the Tenant; `default` for the API server. Policies for the API server count only in the namespace that
    /// it runs in.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// A group of the Tenant's endpoints; absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<RouteGroup>,
}

/// The kinds of targets.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetKind {
    /// A bank.
    Tenant,
    /// Everything that the API server answers.
    ApiServer,
}

impl TargetKind {
    /// The word in manifests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "Tenant",
            Self::ApiServer => "ApiServer",
        }
    }
}

/// The endpoints below one path of `/api/v1`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "lowercase")]
pub enum RouteGroup {
    /// Registration and sessions: `/api/v1/auth`.
    Auth,
    /// Accounts and their movements: `/api/v1/accounts`.
    Accounts,
    /// Transfers: `/api/v1/transfers`.
    Transfers,
    /// Everything else.
    System,
}

impl RouteGroup {
    /// Every group.
    pub const ALL: [Self; 4] = [Self::Auth, Self::Accounts, Self::Transfers, Self::System];

    /// The word in manifests, and in paths.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Accounts => "accounts",
            Self::Transfers => "transfers",
            Self::System => "system",
        }
    }

    /// The group that a path belongs to.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        let segment = path.strip_prefix("/api/v1/").and_then(|rest| rest.split('/').next());
        Self::ALL.into_iter().find(|group| segment == Some(group.as_str())).unwrap_or(Self::System)
    }
}

impl fmt::Display for RouteGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which Tenants.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TargetSelector {
    /// Labels that a Tenant must have. Every Tenant has `finaiflow.io/tier`, with the value of its `spec.tier`.
    #[schemars(schema_with = "labels")]
    pub match_labels: BTreeMap<String, String>,
}

/// What becomes of more specific policies.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// A more specific policy with limits takes the place of all of this one's.
    #[default]
    AtomicDefaults,
    /// This policy's limits take the place of all more specific ones.
    AtomicOverrides,
    /// Limits of both count; of one name, the more specific one.
    MergeDefaults,
    /// Limits of both count; of one name, this policy's.
    MergeOverrides,
}

impl Strategy {
    /// Whether limits of several policies are joined by name.
    #[must_use]
    pub const fn merges(self) -> bool {
        matches!(self, Self::MergeDefaults | Self::MergeOverrides)
    }

    /// Whether this policy goes before more specific ones.
    #[must_use]
    pub const fn overrides(self) -> bool {
        matches!(self, Self::AtomicOverrides | Self::MergeOverrides)
    }
}

/// What holds while the store that replicas share cannot be reached.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailureMode {
    /// Each replica admits its part of the quota, by the number of live replicas.
    #[default]
    LocalFallback,
    /// Nothing is refused.
    Open,
    /// Every request is answered 503.
    Closed,
}

/// Which headers tell clients about their quota. A refusal always has `Retry-After`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseHeaders {
    /// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
    #[default]
    Standard,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`.
    Legacy,
    /// None.
    None,
}

impl RateLimitPolicy {
    /// `<namespace>/<name>`: what the policy is called in messages, metrics and errors.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace().unwrap_or_default(), self.name_any())
    }
}

impl RateLimitPolicySpec {
    /// What no replica could enforce, although an API server stored it. The definition refuses most of it before.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let networks = self.allow_cidrs.iter().chain(&self.deny_cidrs);
        if let Some(network) = networks.into_iter().find(|network| network.parse::<IpNet>().is_err()) {
            return Some(format!("{network} is not a network"));
        }
        self.limits.iter().find_map(|limit| Some(format!("limit {}: {}", limit.name, limit.fault()?)))
    }
}

/// One to eight labels, of which a longer key or value than Kubernetes allows would fit nothing.
fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "minProperties": 1, "maxProperties": 8,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    #[test]
    fn manifests_are_accepted_and_rejected_offline() {
        cases::check::<RateLimitPolicy>(include_str!("../../tests/rate_limit_policy_cases.yaml"));
    }

    #[test]
    fn a_path_belongs_to_one_group() {
        for (path, group) in [
            ("/api/v1/auth/login", RouteGroup::Auth),
            ("/api/v1/accounts", RouteGroup::Accounts),
            ("/api/v1/accounts/acc_1/balance", RouteGroup::Accounts),
            ("/api/v1/transfers", RouteGroup::Transfers),
            ("/api/v1/transfersx", RouteGroup::System),
            ("/api/v1/info", RouteGroup::System),
            ("/docs", RouteGroup::System),
        ] {
            assert_eq!(RouteGroup::of_path(path), group, "{path}");
        }
    }

    #[test]
    fn what_no_definition_let_through_has_a_fault() {
        let fault = |change: &str| {
            let mut spec = serde_json::json!({
                "targetRefs": [{"kind": "Tenant", "name": "a"}], "denyCIDRs": ["192.0.2.0/24"],
                "limits": [{"name": "x", "cost": 2, "rates": [{"requests": 2, "periodSeconds": 1}], "keys": [{"type": "User"}]}],
            });
            let (pointer, value) = change.split_once('=').unwrap_or(("/strategy", "\"AtomicDefaults\""));
            *spec.pointer_mut(pointer).unwrap_or(&mut serde_json::Value::Null) = serde_json::from_str(value).unwrap();
            serde_json::from_value::<RateLimitPolicySpec>(spec).unwrap().fault()
        };
        assert_eq!(fault(""), None);
        for change in [
            "/denyCIDRs/0=\"192.0.2.300/24\"",
            "/limits/0/cost=3",
            "/limits/0/cost=0",
            "/limits/0/rates=[]",
            "/limits/0/rates/0/requests=0",
            "/limits/0/rates/0/periodSeconds=0",
            "/limits/0/keys/0/type=\"Header\"",
        ] {
            assert!(fault(change).is_some(), "{change}");
        }
    }
}
