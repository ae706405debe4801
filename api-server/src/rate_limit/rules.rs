//! Policies made ready for requests: which rules a request meets, and what each counts it by.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::HeaderMap;
use finaiflow_crds::RateLimitPolicy;
use finaiflow_crds::rate_limit_policy::{
    self as policy, Attached, Effective, Item, KeyType, Level, Limit, Mode, PathType, ResponseHeaders, RouteGroup,
    Standing, Target,
};
use finaiflow_schema::names::ClaimId;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::Value;

use super::{Algorithm, FailureMode, Rate};
use crate::tenant::{PolicyTarget, Tenant};

/// Tenants whose rules are kept ready.
const READY: usize = 20_000;
/// Addresses of IPv6 with the same prefix of this length are one client, unless a key says otherwise.
const IPV6_CLIENT: u8 = 64;
/// What name the built-in limits have in place of a policy's.
pub(super) const BUILT_IN: &str = "built-in";

/// What is known of a request when it is counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// Address of the client.
    pub ip: Option<IpAddr>,
    /// The HTTP method.
    pub method: &'a str,
    /// The path as it was sent.
    pub path: &'a str,
    /// The endpoint's template.
    pub route: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The tenant that the request names.
    pub tenant: Option<&'a Tenant>,
    /// Who sent it.
    pub user: &'a User,
}

/// Who sent a request, as far as was asked.
#[derive(Debug)]
pub(super) enum User {
    /// Nobody who is signed in.
    Nobody,
    /// It cannot be found out now.
    Unknown,
    /// The one with these claims: of a valid access token with a live session.
    Known(Arc<Value>),
}

/// Every policy, as this replica enforces it.
#[derive(Debug, Default)]
pub(super) struct PolicySet {
    pub digest: String,
    by_namespace: HashMap<String, Vec<Arc<RateLimitPolicy>>>,
    ready: RwLock<HashMap<String, Ready>>,
}

/// The rules of one tenant, and which bank it was and how labelled when they were made.
#[derive(Debug)]
struct Ready {
    made_for: Option<(ClaimId, Arc<PolicyTarget>)>,
    groups: Groups,
}

type Groups = [Arc<Rules>; RouteGroup::ALL.len()];

/// What the rules of a set are made with.
#[derive(Debug)]
pub(super) struct Maker {
    /// The namespace whose policies may be for the whole API server.
    pub home: String,
    /// What counts where no policy has limits.
    pub built_in: Vec<Arc<Rule>>,
    /// Requests under way, by policy and scope. Outlives the sets: a request counts until it is answered.
    pub in_flight: Mutex<HashMap<(String, Scope), Arc<AtomicU32>>>,
}

impl PolicySet {
    pub(super) fn new(policies: impl IntoIterator<Item = Arc<RateLimitPolicy>>) -> Self {
        let mut by_namespace = HashMap::<_, Vec<_>>::new();
        for policy in policies {
            by_namespace.entry(policy.metadata.namespace.clone().unwrap_or_default()).or_default().push(policy);
        }
        let digest = policy::digest(by_namespace.values().flatten().map(Arc::as_ref));
        Self { digest, by_namespace, ready: RwLock::default() }
    }

    /// The rules for requests to `group` of `tenant`, or for those that name no tenant.
    pub(super) fn rules(&self, maker: &Maker, tenant: Option<&Tenant>, group: RouteGroup) -> Arc<Rules> {
        let name = tenant.map_or("", |tenant| tenant.name.as_str());
        let made_for = tenant.map(|tenant| (tenant.claim_id, Arc::clone(&tenant.target)));
        let ready = self.ready.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = ready.get(name).filter(|ready| ready.made_for == made_for) {
            return Arc::clone(&ready.groups[group as usize]);
        }
        drop(ready);
        let groups =
            RouteGroup::ALL.map(|group| Arc::new(Rules::make(&self.effective(maker, tenant, group), maker, tenant)));
        let rules = Arc::clone(&groups[group as usize]);
        let mut ready = self.ready.write().unwrap_or_else(PoisonError::into_inner);
        if ready.len() >= READY {
            ready.clear();
        }
        ready.insert(name.to_owned(), Ready { made_for, groups });
        rules
    }

    /// What counts, and what became of every policy that is for the tenant.
    pub(super) fn effective(&self, maker: &Maker, tenant: Option<&Tenant>, group: RouteGroup) -> Effective<'_> {
        let target = tenant.map(|tenant| Target {
            namespace: &tenant.target.namespace,
            name: &tenant.name,
            tier: &tenant.target.tier,
            labels: &tenant.target.labels,
        });
        let own = target.map(|target| target.namespace).filter(|namespace| *namespace != maker.home);
        let namespaces = own.into_iter().chain([maker.home.as_str()]);
        let policies = namespaces.filter_map(|namespace| self.by_namespace.get(namespace)).flatten();
        policy::effective(policies.map(Arc::as_ref), target, group, &maker.home)
    }
}

/// Whose requests share a count: a tenant's, by claim, or those of all.
pub(super) type Scope = String;

/// The scope of what is for the whole API server.
pub(super) const ALL: &str = "all";

/// What holds for the requests to one group of a tenant's endpoints.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub limits: Vec<Arc<Rule>>,
    pub in_flight: Option<InFlight>,
    networks: Vec<Networks>,
}

/// The networks that one policy names.
#[derive(Debug)]
struct Networks {
    policy: Arc<str>,
    denied: Vec<IpNet>,
    allowed: Vec<IpNet>,
    spares: bool,
}

/// At most so many requests under way.
#[derive(Debug)]
pub(super) struct InFlight {
    pub policy: Arc<str>,
    pub max: u32,
    pub now: Arc<AtomicU32>,
}

/// A request under way; it is over when this is dropped.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<AtomicU32>);

impl UnderWay {
    /// Enters unless there are `max` already.
    pub(super) fn enter(now: &Arc<AtomicU32>, max: u32) -> Option<Self> {
        let more = |count: u32| (count < max).then_some(count + 1);
        now.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok().map(|_| Self(Arc::clone(now)))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Rules {
    fn make(effective: &Effective<'_>, maker: &Maker, tenant: Option<&Tenant>) -> Self {
        let scope = |policy: &RateLimitPolicy| {
            let level = effective.attached.iter().find(|it| std::ptr::eq(it.policy, policy)).map(|it| it.level);
            let claim = tenant.filter(|_| level != Some(Level::ApiServer)).map(|tenant| tenant.claim_id.to_string());
            claim.unwrap_or_else(|| ALL.to_owned())
        };
        let (mut limits, mut in_flight) = (Vec::new(), None);
        for (policy, item) in &effective.items {
            match item {
                Item::Limit(limit) => limits.extend(Rule::of(policy, limit, scope(policy)).map(Arc::new)),
                Item::InFlight(max) => {
                    let whose = (policy.metadata.uid.clone().unwrap_or_default(), scope(policy));
                    let mut counts = maker.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
                    counts.retain(|_, count| Arc::strong_count(count) > 1);
                    let now = Arc::clone(counts.entry(whose).or_default());
                    in_flight = Some(InFlight { policy: policy.key().into(), max: max.unsigned_abs(), now });
                }
            }
        }
        if limits.is_empty() {
            limits.clone_from(&maker.built_in);
        }
        Self { limits, in_flight, networks: effective.attached.iter().map(Networks::of).collect() }
    }

    /// The policy that refuses requests from an address, if one does.
    pub(super) fn denied_by(&self, ip: IpAddr) -> Option<&Arc<str>> {
        self.networks.iter().find(|networks| networks.deny(ip)).map(|networks| &networks.policy)
    }

    /// The policy that spares an address of all limits, if one does.
    pub(super) fn spared_by(&self, ip: IpAddr) -> Option<&Arc<str>> {
        let spares = |networks: &&Networks| networks.spares && longest(&networks.allowed, ip).is_some();
        self.networks.iter().find(spares).map(|networks| &networks.policy)
    }
}

impl Networks {
    fn of(attached: &Attached<'_>) -> Self {
        let parse = |networks: &[String]| networks.iter().filter_map(|network| network.parse().ok()).collect();
        let spec = &attached.policy.spec;
        Self {
            policy: attached.policy.key().into(),
            denied: parse(&spec.deny_cidrs),
            allowed: parse(&spec.allow_cidrs),
            spares: matches!(attached.standing, Standing::Whole | Standing::Part),
        }
    }

    fn deny(&self, ip: IpAddr) -> bool {
        longest(&self.denied, ip).is_some_and(|denied| longest(&self.allowed, ip) <= Some(denied))
    }
}

/// Length of the longest prefix that holds the address.
fn longest(networks: &[IpNet], ip: IpAddr) -> Option<u8> {
    networks.iter().filter(|network| network.contains(&ip)).map(IpNet::prefix_len).max()
}

/// One limit in force.
#[derive(Debug)]
pub(super) struct Rule {
    pub policy: Arc<str>,
    pub name: String,
    pub mode: Mode,
    /// What is counted, and the first bytes of the key of each count.
    pub rates: Vec<(Rate, [u8; 16])>,
    pub keys: Vec<policy::Key>,
    pub cost: u64,
    pub failure_mode: FailureMode,
    pub headers: ResponseHeaders,
    pub scope: Scope,
    /// Counts only requests without a user.
    anonymous: bool,
    matches: Option<policy::Match>,
}

impl Rule {
    /// Nothing if a rate cannot be made, which the definition and `fault` rule out.
    fn of(policy: &RateLimitPolicy, limit: &Limit, scope: Scope) -> Option<Self> {
        let uid = policy.metadata.uid.as_deref().unwrap_or_default();
        let algorithm = match limit.algorithm {
            policy::Algorithm::GCRA => Algorithm::Gcra,
            policy::Algorithm::FixedWindow => Algorithm::FixedWindow,
        };
        let rate = |(index, rate): (usize, &policy::Rate)| {
            let number = |value: i64| u64::try_from(value).ok();
            let (requests, period) = (number(rate.requests)?, number(rate.period_seconds)?);
            let made = Rate::new(algorithm, requests, period, number(rate.burst())?);
            let made = made.inspect_err(
                |error| tracing::error!(policy = policy.key(), limit = limit.name, %error, "rate not enforced"),
            );
            Some((made.ok()?, identity(&format!("{uid}/{}/{algorithm:?}/{index}", limit.name))))
        };
        Some(Self {
            policy: policy.key().into(),
            name: limit.name.clone(),
            mode: limit.mode,
            rates: limit.rates.iter().enumerate().map(rate).collect::<Option<_>>()?,
            keys: limit.keys.clone(),
            cost: limit.cost.unsigned_abs(),
            failure_mode: match policy.spec.failure_mode {
                policy::FailureMode::LocalFallback => FailureMode::LocalFallback,
                policy::FailureMode::Open => FailureMode::Open,
                policy::FailureMode::Closed => FailureMode::Closed,
            },
            headers: policy.spec.response_headers,
            scope,
            anonymous: false,
            matches: limit.matches.clone(),
        })
    }

    /// The limits that hold without a policy: so much for each user, and for each address that names none. They are
    /// counted per tenant.
    pub(super) fn built_in(requests: u64, period_seconds: u64) -> Result<Vec<Arc<Self>>, super::InvalidRate> {
        let rule = |name: &str, kinds: [KeyType; 2], anonymous| {
            let rate = Rate::new(Algorithm::Gcra, requests, period_seconds, requests)?;
            let key = |kind| policy::Key { kind, name: None, ipv6_prefix_length: None };
            Ok(Arc::new(Self {
                policy: BUILT_IN.into(),
                name: name.to_owned(),
                mode: Mode::Enforce,
                rates: vec![(rate, identity(&format!("{BUILT_IN}/{name}")))],
                keys: kinds.map(key).to_vec(),
                cost: 1,
                failure_mode: FailureMode::LocalFallback,
                headers: ResponseHeaders::Standard,
                scope: ALL.to_owned(),
                anonymous,
                matches: None,
            }))
        };
        Ok(vec![
            rule("per-user", [KeyType::Tenant, KeyType::User], false)?,
            rule("per-address", [KeyType::Tenant, KeyType::ClientIP], true)?,
        ])
    }

    /// Whether what it counts by is known only after the caller has signed in.
    pub(super) fn needs_user(&self) -> bool {
        self.anonymous || self.keys.iter().any(|key| matches!(key.kind, KeyType::User | KeyType::Claim))
    }

    /// Why the rule does not count a request, if it does not.
    pub(super) fn skips(&self, facts: &Facts<'_>) -> Option<&'static str> {
        let fits = |matches: &policy::Match| {
            let path = |path: &policy::PathMatch| match path.kind {
                PathType::Exact => facts.path == path.value,
                PathType::Prefix => below(facts.path, &path.value),
                PathType::Template => facts.route == path.value,
            };
            let method = |method: &policy::Method| method.as_str() == facts.method;
            (matches.paths.is_empty() || matches.paths.iter().any(path))
                && (matches.methods.is_empty() || matches.methods.iter().any(method))
        };
        if self.mode == Mode::Disabled {
            return Some("its mode is Disabled");
        }
        if !self.matches.as_ref().is_none_or(fits) {
            return Some("its match does not fit the request");
        }
        match facts.user {
            _ if !self.needs_user() => None,
            User::Unknown => Some("it is not known who sent the request"),
            User::Nobody => (!self.anonymous).then_some("the request has no user"),
            User::Known(_) => self.anonymous.then_some("the request has a user"),
        }
    }

    /// Appends the values that the rule counts a request by; `coarse` puts neighbouring addresses together.
    pub(super) fn write_key(&self, facts: &Facts<'_>, coarse: bool, out: &mut Vec<u8>) {
        write(out, self.scope.as_bytes());
        for key in &self.keys {
            match key.kind {
                KeyType::Tenant => {
                    write(out, facts.tenant.map(|tenant| tenant.claim_id.to_string()).unwrap_or_default().as_bytes());
                }
                KeyType::ClientIP => write_address(out, facts.ip, key.ipv6_prefix_length, coarse),
                KeyType::Method => write(out, facts.method.as_bytes()),
                KeyType::Route => write(out, facts.route.as_bytes()),
                KeyType::User | KeyType::Header | KeyType::Claim if coarse => {}
                KeyType::User => write(out, claim(facts, "sub").as_bytes()),
                KeyType::Claim => write(out, claim(facts, key.name.as_deref().unwrap_or_default()).as_bytes()),
                KeyType::Header => {
                    let value = key.name.as_deref().and_then(|name| facts.headers.get(name));
                    write(out, value.map(axum::http::HeaderValue::as_bytes).unwrap_or_default());
                }
            }
        }
    }
}

/// A claim as text; nothing where the token has none of that name.
fn claim(facts: &Facts<'_>, name: &str) -> String {
    let User::Known(claims) = facts.user else { return String::new() };
    match claims.get(name) {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// With its length in front: two lists of values never look alike.
fn write(out: &mut Vec<u8>, value: &[u8]) {
    out.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(value);
}

/// An address, or the network that stands for it. Unknown addresses are one.
fn write_address(out: &mut Vec<u8>, ip: Option<IpAddr>, ipv6_prefix: Option<i32>, coarse: bool) {
    let ipv6_prefix = ipv6_prefix.and_then(|length| u8::try_from(length).ok()).unwrap_or(IPV6_CLIENT);
    let network = match ip {
        None => return write(out, b""),
        Some(IpAddr::V4(ip)) => Ipv4Net::new(ip, if coarse { 16 } else { 32 }).map(|net| IpNet::V4(net.trunc())),
        Some(IpAddr::V6(ip)) => {
            Ipv6Net::new(ip, if coarse { 32 } else { ipv6_prefix }).map(|net| IpNet::V6(net.trunc()))
        }
    };
    match network.map(|network| network.addr()) {
        Ok(IpAddr::V4(ip)) => write(out, &ip.octets()),
        Ok(IpAddr::V6(ip)) => write(out, &ip.octets()),
        Err(_) => write(out, b""),
    }
}

/// Whether a path is the value or below it, by whole segments.
fn below(path: &str, value: &str) -> bool {
    let rest = path.strip_prefix(value.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The same 128 bits on every replica.
fn identity(text: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest(&SHA256, text.as_bytes()).as_ref()[..16]);
    bytes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(limit: &Value) -> Rule {
        let policy = json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "RateLimitPolicy", "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"targetRefs": [{"kind": "ApiServer", "name": "default"}], "limits": [limit]},
        });
        let policy: RateLimitPolicy = serde_json::from_value(policy).unwrap();
        Rule::of(&policy, &policy.spec.limits[0], ALL.to_owned()).unwrap()
    }

    fn keys(keys: &Value) -> Rule {
        rule(&json!({"name": "x", "rates": [{"requests": 1, "periodSeconds": 1}], "keys": keys}))
    }

    fn facts<'a>(headers: &'a HeaderMap, user: &'a User) -> Facts<'a> {
        Facts { ip: None, method: "GET", path: "/a/b", route: "/a/{id}", headers, tenant: None, user }
    }

    fn key(rule: &Rule, facts: &Facts<'_>, coarse: bool) -> Vec<u8> {
        let mut key = Vec::new();
        rule.write_key(facts, coarse, &mut key);
        key
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn values_that_run_together_are_other_keys() {
        let rule = keys(&json!([{"type": "Header", "name": "x-a"}, {"type": "Header", "name": "x-b"}]));
        let all = [
            headers(&[("x-a", "1"), ("x-b", "23")]),
            headers(&[("x-a", "12"), ("x-b", "3")]),
            headers(&[("x-a", "123")]),
            headers(&[("x-b", "123")]),
            headers(&[]),
        ];
        let keys: std::collections::HashSet<_> =
            all.iter().map(|headers| key(&rule, &facts(headers, &User::Nobody), false)).collect();
        assert_eq!(keys.len(), all.len());
    }

    #[test]
    fn a_user_is_told_by_the_token_alone() {
        let rule = keys(&json!([{"type": "User"}]));
        let (none, ada, bob) =
            (HeaderMap::new(), json!({"sub": "usr_ada", "sid": "1"}), json!({"sub": "usr_bob", "sid": "1"}));
        assert_eq!(rule.skips(&facts(&none, &User::Nobody)), Some("the request has no user"));
        assert_eq!(rule.skips(&facts(&none, &User::Unknown)), Some("it is not known who sent the request"));
        assert_eq!(rule.skips(&facts(&none, &User::Known(Arc::new(ada.clone())))), None);
        let of = |claims: &Value| key(&rule, &facts(&none, &User::Known(Arc::new(claims.clone()))), false);
        assert_ne!(of(&ada), of(&bob));
        let session = keys(&json!([{"type": "Claim", "name": "sid"}]));
        let of = |claims: &Value| key(&session, &facts(&none, &User::Known(Arc::new(claims.clone()))), false);
        assert_eq!(of(&ada), of(&bob));
        assert_ne!(of(&ada), of(&json!({"sub": "usr_ada"})));
    }

    #[test]
    fn neighbours_share_what_is_coarse() {
        let rule = keys(&json!([{"type": "ClientIP"}]));
        let (none, of) = (HeaderMap::new(), |ip: &str, coarse| {
            let none = HeaderMap::new();
            key(&rule, &Facts { ip: Some(ip.parse().unwrap()), ..facts(&none, &User::Nobody) }, coarse)
        });
        assert_ne!(of("192.0.2.1", false), of("192.0.2.2", false));
        assert_eq!(of("192.0.2.1", true), of("192.0.99.2", true));
        assert_ne!(of("192.0.2.1", true), of("192.1.2.1", true));
        assert_eq!(of("2001:db8:1:2::1", false), of("2001:db8:1:2:ffff::9", false));
        assert_eq!(of("2001:db8:1:2::1", true), of("2001:db8:ffff::1", true));
        assert_ne!(key(&rule, &facts(&none, &User::Nobody), false), of("0.0.0.0", false));
    }

    #[test]
    fn paths_fit_by_whole_segments() {
        let none = HeaderMap::new();
        let fits = |kind: &str, value: &str| {
            let matches = json!({"paths": [{"type": kind, "value": value}]});
            rule(&json!({"name": "x", "rates": [{"requests": 1, "periodSeconds": 1}], "match": matches}))
                .skips(&facts(&none, &User::Nobody))
                .is_none()
        };
        assert!(fits("Exact", "/a/b") && !fits("Exact", "/a"));
        assert!(fits("Prefix", "/a") && fits("Prefix", "/a/") && fits("Prefix", "/") && fits("Prefix", "/a/b"));
        assert!(!fits("Prefix", "/a/bc") && !fits("Prefix", "/aa") && !fits("Prefix", "/b"));
        assert!(fits("Template", "/a/{id}") && !fits("Template", "/a/b"));
    }

    #[test]
    fn the_more_precise_of_two_networks_decides_and_denial_wins_a_tie() {
        let networks = |denied: &[&str], allowed: &[&str]| {
            let parse = |networks: &[&str]| networks.iter().map(|network| network.parse().unwrap()).collect();
            Networks { policy: "p".into(), denied: parse(denied), allowed: parse(allowed), spares: true }
        };
        let office = networks(&["0.0.0.0/0", "::/0"], &["203.0.113.0/24"]);
        for (ip, denied) in [("203.0.113.9", false), ("203.0.114.1", true), ("2001:db8::1", true)] {
            assert_eq!(office.deny(ip.parse().unwrap()), denied, "{ip}");
        }
        assert!(networks(&["192.0.2.0/24"], &["192.0.2.0/24"]).deny("192.0.2.1".parse().unwrap()));
        assert!(!networks(&[], &[]).deny("192.0.2.1".parse().unwrap()));
    }
}
