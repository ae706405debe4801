//! Which of several policies counts, for one target and one group of endpoints.
//!
//! After GEP-713: each policy's own strategy says what becomes of more specific ones. Among equally specific ones the
//! oldest decides (GEP-713 lets the newest), so that nobody takes a limit away by adding a policy.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{Limit, RateLimitPolicy, RouteGroup, Strategy, TargetKind, TargetRef, TargetSelector};
use crate::names::LABEL_TIER;

/// A Tenant as policies see it.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Namespace of the Tenant.
    pub namespace: &'a str,
    /// Name of the Tenant.
    pub name: &'a str,
    /// Its `spec.tier`.
    pub tier: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
}

/// How precisely a policy names what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The whole API server.
    ApiServer,
    /// Tenants by label.
    Selector,
    /// A Tenant by name.
    Tenant,
    /// A group of a Tenant's endpoints.
    Section,
}

/// What policies compete for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item<'a> {
    /// A limit; those of one name exclude each other.
    Limit(&'a Limit),
    /// `maxInFlight`.
    InFlight(i32),
}

impl<'a> Item<'a> {
    /// The limit's name, or `maxInFlight`, which is no name of a limit.
    #[must_use]
    pub fn name(self) -> &'a str {
        match self {
            Self::Limit(limit) => &limit.name,
            Self::InFlight(_) => "maxInFlight",
        }
    }
}

/// An item that does not count.
#[derive(Clone, Copy, Debug)]
pub struct Loss<'a> {
    /// The item.
    pub item: Item<'a>,
    /// The policy that counts instead.
    pub by: &'a RateLimitPolicy,
    /// Whether that one is as specific, and older.
    pub conflict: bool,
}

/// What became of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All of it counts.
    Whole,
    /// Some of it counts.
    Part,
    /// Nothing of it counts, because of a more or less specific policy.
    Overridden,
    /// Nothing of it counts, because of an older policy that is as specific.
    Conflicted,
}

/// A policy that is for the target, and what became of it.
#[derive(Clone, Debug)]
pub struct Attached<'a> {
    /// The policy.
    pub policy: &'a RateLimitPolicy,
    /// How it names the target.
    pub level: Level,
    /// What of it does not count.
    pub losses: Vec<Loss<'a>>,
    /// The same in a word.
    pub standing: Standing,
}

/// What counts for a target.
#[derive(Clone, Debug, Default)]
pub struct Effective<'a> {
    /// What counts, and whose it is, the most specific first.
    pub items: Vec<(&'a RateLimitPolicy, Item<'a>)>,
    /// Every policy that is for the target, the most specific first. All their `denyCIDRs` count, and the `allowCIDRs`
    /// of those that are not beaten altogether.
    pub attached: Vec<Attached<'a>>,
}

/// What counts for requests to `group` of `target`, or for those that name no Tenant. Policies for the API server count
/// only in the namespace `home`; policies with a fault do not count.
#[must_use]
pub fn effective<'a>(
    policies: impl IntoIterator<Item = &'a RateLimitPolicy>,
    target: Option<Target<'_>>,
    group: RouteGroup,
    home: &str,
) -> Effective<'a> {
    let mut attached: Vec<_> = policies
        .into_iter()
        .filter_map(|policy| Some((level(policy, target, group, home)?, policy)))
        .filter(|(_, policy)| policy.spec.fault().is_none())
        .collect();
    attached.sort_by_cached_key(|(level, policy)| (Reverse(*level), age(policy)));

    let (mut items, mut losses) = (Vec::new(), Vec::new());
    for peers in attached.chunk_by(|a, b| a.0 == b.0) {
        let Some((strategy, own)) = merge_peers(peers, &mut losses) else { continue };
        items = join(strategy, own, items, &mut losses);
    }
    let attached = attached.into_iter().map(|(level, policy)| {
        let lost = losses.iter().filter(|(whose, _)| std::ptr::eq(*whose, policy)).map(|(_, loss)| *loss).collect();
        judge(policy, level, lost)
    });
    Effective { attached: attached.collect(), items }
}

/// A name for a set of policies as they are: equal if and only if every policy has the same identity and generation.
/// FNV-1a of the sorted `<uid>:<generation>`, behind their number.
#[must_use]
pub fn digest<'a>(policies: impl IntoIterator<Item = &'a RateLimitPolicy>) -> String {
    let mut names: Vec<_> = policies
        .into_iter()
        .map(|policy| {
            let metadata = &policy.metadata;
            format!("{}:{}\n", metadata.uid.as_deref().unwrap_or_default(), metadata.generation.unwrap_or_default())
        })
        .collect();
    names.sort_unstable();
    let hash = names
        .iter()
        .flat_map(|name| name.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{}-{hash:016x}", names.len())
}

/// How the policy names the target, if it does: the most precise way counts.
fn level(policy: &RateLimitPolicy, target: Option<Target<'_>>, group: RouteGroup, home: &str) -> Option<Level> {
    let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
    let by_reference = policy.spec.target_refs.iter().filter_map(|reference| match (reference.kind, target) {
        (TargetKind::ApiServer, _) => (namespace == home).then_some(Level::ApiServer),
        (TargetKind::Tenant, Some(target)) => by_name(reference, namespace, target, group),
        (TargetKind::Tenant, None) => None,
    });
    let by_label = || {
        let (selector, target) = (policy.spec.target_selector.as_ref()?, target?);
        (namespace == target.namespace && target.has(selector)).then_some(Level::Selector)
    };
    by_reference.max().or_else(by_label)
}

fn by_name(reference: &TargetRef, namespace: &str, target: Target<'_>, group: RouteGroup) -> Option<Level> {
    if reference.name != target.name || namespace != target.namespace {
        return None;
    }
    match reference.section_name {
        None => Some(Level::Tenant),
        Some(section) => (section == group).then_some(Level::Section),
    }
}

impl Target<'_> {
    /// Whether the Tenant has every label that the selector asks for.
    #[must_use]
    pub fn has(self, selector: &TargetSelector) -> bool {
        selector.match_labels.iter().all(|(label, value)| match label.as_str() {
            LABEL_TIER => self.tier == value,
            label => self.labels.get(label) == Some(value),
        })
    }
}

/// Older first; who was created in the same second, by name.
fn age(policy: &RateLimitPolicy) -> (Option<i64>, String) {
    let created = policy.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
    (created.or(Some(i64::MAX)), policy.key())
}

fn items(policy: &RateLimitPolicy) -> impl Iterator<Item = Item<'_>> {
    let limits = policy.spec.limits.iter().map(Item::Limit);
    limits.chain(policy.spec.max_in_flight.map(Item::InFlight))
}

type Owned<'a> = (&'a RateLimitPolicy, Item<'a>);
type Losses<'a> = Vec<(&'a RateLimitPolicy, Loss<'a>)>;

/// What equally specific policies come to, and the strategy of the oldest that competes.
fn merge_peers<'a>(
    peers: &[(Level, &'a RateLimitPolicy)],
    losses: &mut Losses<'a>,
) -> Option<(Strategy, Vec<Owned<'a>>)> {
    let mut competing = peers.iter().map(|(_, policy)| *policy).filter(|policy| items(policy).next().is_some());
    let oldest = competing.next()?;
    let mut kept: Vec<_> = items(oldest).map(|item| (oldest, item)).collect();
    for policy in competing {
        for item in items(policy) {
            let rival = kept.iter().find(|(_, held)| !oldest.spec.strategy.merges() || held.name() == item.name());
            match rival {
                Some((by, _)) => losses.push((policy, Loss { item, by, conflict: true })),
                None => kept.push((policy, item)),
            }
        }
    }
    Some((oldest.spec.strategy, kept))
}

/// What less specific items and more specific ones come to under the strategy of the former.
fn join<'a>(strategy: Strategy, less: Vec<Owned<'a>>, more: Vec<Owned<'a>>, losses: &mut Losses<'a>) -> Vec<Owned<'a>> {
    let (mut kept, others) = if strategy.overrides() { (less, more) } else { (more, less) };
    let winners = kept.len();
    for (policy, item) in others {
        let mut rivals = kept[..winners].iter();
        match rivals.find(|(_, held)| !strategy.merges() || held.name() == item.name()) {
            Some((by, _)) => losses.push((policy, Loss { item, by, conflict: false })),
            None => kept.push((policy, item)),
        }
    }
    kept
}

fn judge<'a>(policy: &'a RateLimitPolicy, level: Level, losses: Vec<Loss<'a>>) -> Attached<'a> {
    let standing = match losses.len() {
        0 => Standing::Whole,
        lost if lost < items(policy).count() => Standing::Part,
        _ if losses.iter().all(|loss| loss.conflict) => Standing::Conflicted,
        _ => Standing::Overridden,
    };
    Attached { policy, level, losses, standing }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use serde_json::{Value, json};

    use super::*;

    const HOME: &str = "finaiflow-system";

    fn policy(name: &str, created: u32, spec: &Value) -> RateLimitPolicy {
        let namespace = if spec["targetRefs"][0]["kind"] == "ApiServer" { HOME } else { "banks" };
        serde_json::from_value(json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "RateLimitPolicy",
            "metadata": {"name": name, "namespace": namespace, "uid": name, "generation": 1,
                         "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z")},
            "spec": spec,
        }))
        .unwrap()
    }

    fn limits(names: &[&str]) -> Value {
        let limit = |name: &&str| json!({"name": name, "rates": [{"requests": 1, "periodSeconds": 1}]});
        names.iter().map(limit).collect()
    }

    fn server(strategy: &str, names: &[&str]) -> Value {
        json!({"targetRefs": [{"kind": "ApiServer", "name": "default"}], "strategy": strategy, "limits": limits(names)})
    }

    fn tier(strategy: &str, names: &[&str]) -> Value {
        let selector = json!({"matchLabels": {"finaiflow.io/tier": "gold"}});
        json!({"targetSelector": selector, "strategy": strategy, "limits": limits(names)})
    }

    fn acme(strategy: &str, names: &[&str]) -> Value {
        json!({"targetRefs": [{"kind": "Tenant", "name": "acme"}], "strategy": strategy, "limits": limits(names)})
    }

    fn login(strategy: &str, names: &[&str]) -> Value {
        let target = json!([{"kind": "Tenant", "name": "acme", "sectionName": "auth"}]);
        json!({"targetRefs": target, "strategy": strategy, "limits": limits(names)})
    }

    /// `<policy>/<limit>` of all that counts, in order, and the standing of each policy that is attached.
    fn outcome(policies: &[RateLimitPolicy], group: RouteGroup) -> (Vec<String>, Vec<(String, Standing)>) {
        let labels = BTreeMap::from([("region".to_owned(), "eu".to_owned())]);
        let target = Target { namespace: "banks", name: "acme", tier: "gold", labels: &labels };
        let effective = effective(policies, Some(target), group, HOME);
        let mut names: Vec<_> =
            effective.items.iter().map(|(policy, item)| format!("{}/{}", policy.name_any(), item.name())).collect();
        names.sort();
        let standing = effective.attached.iter().map(|it| (it.policy.name_any(), it.standing)).collect();
        (names, standing)
    }

    #[test]
    fn each_strategy_says_what_becomes_of_the_more_specific_policy() {
        for (strategy, counts, of_server, of_acme) in [
            ("AtomicDefaults", &["acme/b", "acme/c"][..], Standing::Overridden, Standing::Whole),
            ("AtomicOverrides", &["server/a", "server/b"], Standing::Whole, Standing::Overridden),
            ("MergeDefaults", &["acme/b", "acme/c", "server/a"], Standing::Part, Standing::Whole),
            ("MergeOverrides", &["acme/c", "server/a", "server/b"], Standing::Whole, Standing::Part),
        ] {
            let policies = [
                policy("server", 9, &server(strategy, &["a", "b"])),
                policy("acme", 1, &acme("AtomicDefaults", &["b", "c"])),
            ];
            let (names, standing) = outcome(&policies, RouteGroup::Accounts);
            assert_eq!(names, counts, "{strategy}");
            assert_eq!(standing, [("acme".into(), of_acme), ("server".into(), of_server)], "{strategy}");
        }
    }

    #[test]
    fn the_most_specific_level_that_fits_decides() {
        let policies = [
            policy("server", 1, &server("AtomicDefaults", &["a"])),
            policy("tier", 2, &tier("AtomicDefaults", &["a"])),
            policy("acme", 3, &acme("AtomicDefaults", &["a"])),
            policy("login", 4, &login("AtomicDefaults", &["a"])),
        ];
        for (policies, group, winner) in [
            (&policies[..], RouteGroup::Auth, "login/a"),
            (&policies[..], RouteGroup::Accounts, "acme/a"),
            (&policies[..2], RouteGroup::Auth, "tier/a"),
            (&policies[..1], RouteGroup::Auth, "server/a"),
        ] {
            assert_eq!(outcome(policies, group).0, [winner]);
        }
    }

    #[test]
    fn an_override_reaches_through_all_levels() {
        let policies = [
            policy("server", 9, &server("MergeOverrides", &["cap"])),
            policy("tier", 8, &tier("AtomicDefaults", &["x"])),
            policy("acme", 7, &acme("MergeDefaults", &["cap", "y"])),
            policy("login", 6, &login("AtomicDefaults", &["z", "cap"])),
        ];
        let (names, standing) = outcome(&policies, RouteGroup::Auth);
        assert_eq!(names, ["acme/y", "login/z", "server/cap"]);
        let overridden = standing.iter().filter(|(_, standing)| *standing == Standing::Overridden);
        assert_eq!(overridden.map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["tier"]);
    }

    #[test]
    fn of_equals_the_oldest_wins_whatever_the_order_they_are_seen_in() {
        let mut policies = [
            policy("late", 5, &acme("AtomicOverrides", &["a"])),
            policy("b-same-second", 1, &acme("AtomicOverrides", &["a"])),
            policy("a-same-second", 1, &acme("AtomicDefaults", &["a"])),
        ];
        for _ in 0..policies.len() {
            policies.rotate_left(1);
            let (names, standing) = outcome(&policies, RouteGroup::Auth);
            assert_eq!(names, ["a-same-second/a"]);
            assert_eq!(
                standing,
                [
                    ("a-same-second".into(), Standing::Whole),
                    ("b-same-second".into(), Standing::Conflicted),
                    ("late".into(), Standing::Conflicted)
                ]
            );
        }
    }

    #[test]
    fn of_equals_that_merge_the_oldest_keeps_its_names() {
        let policies = [
            policy("late", 5, &acme("AtomicDefaults", &["a", "b"])),
            policy("early", 1, &acme("MergeDefaults", &["a"])),
        ];
        let (names, standing) = outcome(&policies, RouteGroup::Auth);
        assert_eq!(names, ["early/a", "late/b"]);
        assert_eq!(standing, [("early".into(), Standing::Whole), ("late".into(), Standing::Part)]);
    }

    #[test]
    fn lists_of_networks_do_not_compete() {
        let mut networks = acme("AtomicOverrides", &[]);
        networks["limits"] = json!([]);
        networks["denyCIDRs"] = json!(["192.0.2.0/24"]);
        let policies = [
            policy("networks", 1, &networks),
            policy("acme", 2, &acme("AtomicDefaults", &["a"])),
            policy("server", 3, &server("AtomicDefaults", &["b"])),
        ];
        let (names, standing) = outcome(&policies, RouteGroup::Auth);
        assert_eq!(names, ["acme/a"]);
        assert_eq!(standing[0], ("networks".into(), Standing::Whole));
    }

    #[test]
    fn a_policy_is_for_its_own_namespace_and_the_server_only_at_home() {
        let mut foreign = policy("foreign", 1, &acme("AtomicDefaults", &["a"]));
        foreign.metadata.namespace = Some("other".to_owned());
        let mut selector = policy("selector", 1, &tier("AtomicDefaults", &["a"]));
        selector.metadata.namespace = Some("other".to_owned());
        let mut server = policy("server", 1, &server("AtomicDefaults", &["a"]));
        server.metadata.namespace = Some("banks".to_owned());
        assert_eq!(outcome(&[foreign, selector, server], RouteGroup::Auth), (vec![], vec![]));
    }

    #[test]
    fn labels_must_all_fit() {
        let with = |labels: Value| {
            let mut spec = tier("AtomicDefaults", &["a"]);
            spec["targetSelector"]["matchLabels"] = labels;
            outcome(&[policy("tier", 1, &spec)], RouteGroup::Auth).0.len()
        };
        assert_eq!(with(json!({"finaiflow.io/tier": "gold", "region": "eu"})), 1);
        assert_eq!(with(json!({"finaiflow.io/tier": "gold", "region": "us"})), 0);
        assert_eq!(with(json!({"zone": "1"})), 0);
    }

    #[test]
    fn requests_without_a_tenant_meet_only_the_servers_policies() {
        let policies = [
            policy("server", 2, &server("AtomicDefaults", &["a"])),
            policy("acme", 1, &acme("AtomicDefaults", &["a"])),
        ];
        let effective = effective(&policies, None, RouteGroup::System, HOME);
        assert_eq!(effective.attached.len(), 1);
        assert_eq!(effective.items[0].0.name_any(), "server");
    }

    #[test]
    fn a_policy_with_a_fault_does_not_count() {
        let mut spec = acme("AtomicDefaults", &["a"]);
        spec["limits"][0]["cost"] = json!(2);
        assert_eq!(outcome(&[policy("costly", 1, &spec)], RouteGroup::Auth), (vec![], vec![]));
    }

    #[test]
    fn a_digest_names_identities_and_generations_and_nothing_else() {
        let [a, b] = ["a", "b"].map(|name| policy(name, 1, &acme("AtomicDefaults", &["x"])));
        let both = digest([&a, &b]);
        assert_eq!(both, digest([&b, &a]));
        let mut edited = b.clone();
        edited.metadata.generation = Some(2);
        let mut annotated = b.clone();
        annotated.metadata.resource_version = Some("77".to_owned());
        assert_eq!(both, digest([&a, &annotated]));
        let digests = [digest([]), digest([&a]), both, digest([&a, &edited])];
        for (index, digest) in digests.iter().enumerate() {
            assert!(!digests[..index].contains(digest), "{digests:?}");
        }
        // Replicas and operators of different versions compare it.
        assert_eq!(digest([&a]), "1-18f4f982dced2239");
    }
}
