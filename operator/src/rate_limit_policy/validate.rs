//! Step 2: decides what becomes of a policy at each of its targets. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use finaiflow_crds::names::GROUP;
use finaiflow_crds::rate_limit_policy::{AncestorRef, RouteGroup, Standing, Target, TargetKind, TargetRef, effective};
use finaiflow_crds::{RateLimitPolicy, Tenant};
use kube::ResourceExt;

use super::dereference::Found;

/// What became of a policy at one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The target.
    pub target: AncestorRef,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a policy at a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The target is the API server, and the policy is not in its namespace.
    Elsewhere,
    /// There is no such Tenant.
    Missing,
    /// The policy is for it.
    Attached {
        /// How much of the policy counts.
        standing: Standing,
        /// What of it does not.
        losses: Vec<Loss>,
    },
}

/// Items of a policy that do not count because of another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loss {
    /// `<namespace>/<name>` of the policy that counts instead.
    pub by: String,
    /// Whether it is as specific, and older.
    pub conflict: bool,
    /// The groups of endpoints where it is so; empty where the whole target is meant.
    pub groups: Vec<RouteGroup>,
    /// Names of the items.
    pub items: Vec<String>,
}

/// A Tenant as policies see it.
#[must_use]
pub fn target(tenant: &Tenant) -> Target<'_> {
    Target {
        namespace: tenant.metadata.namespace.as_deref().unwrap_or_default(),
        name: tenant.metadata.name.as_deref().unwrap_or_default(),
        tier: &tenant.spec.tier,
        labels: tenant.labels(),
    }
}

/// What becomes of the policy at each of its targets; Err says why no replica could enforce it.
pub fn validate(found: &Found, home: &str) -> Result<Vec<Outcome>, String> {
    let spec = &found.policy.spec;
    if let Some(fault) = spec.fault() {
        return Err(fault);
    }
    let court = Court::new(found, home);
    let namespace = found.policy.namespace().unwrap_or_default();
    if spec.target_selector.is_some() {
        let outcome = |tenant| Outcome {
            target: ancestor(TargetKind::Tenant, Some(&namespace), tenant_name(tenant), None),
            fate: court.judge(Some(target(tenant)), None),
        };
        return Ok(found.tenants.iter().map(|tenant| outcome(tenant)).collect());
    }
    let outcome = |TargetRef { kind, name, section_name }: &TargetRef| match kind {
        TargetKind::ApiServer => Outcome {
            target: ancestor(*kind, None, name, None),
            fate: if namespace == home { court.judge(None, None) } else { Fate::Elsewhere },
        },
        TargetKind::Tenant => {
            let tenant = found.tenants.iter().find(|tenant| tenant_name(tenant) == name);
            Outcome {
                target: ancestor(*kind, Some(&namespace), name, *section_name),
                fate: tenant.map_or(Fate::Missing, |tenant| court.judge(Some(target(tenant)), *section_name)),
            }
        }
    };
    Ok(spec.target_refs.iter().map(outcome).collect())
}

fn tenant_name(tenant: &Tenant) -> &str {
    tenant.metadata.name.as_deref().unwrap_or_default()
}

fn ancestor(kind: TargetKind, namespace: Option<&str>, name: &str, section_name: Option<RouteGroup>) -> AncestorRef {
    AncestorRef {
        group: GROUP.to_owned(),
        kind: kind.as_str().to_owned(),
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        section_name,
    }
}

/// The policies that compete with one, ordered so that those for a Tenant are found without a look at every one.
struct Court<'a> {
    policy: &'a RateLimitPolicy,
    home: &'a str,
    /// Those for the API server, or with a selector.
    general: Vec<&'a RateLimitPolicy>,
    /// The others, by the Tenants that they name.
    by_name: HashMap<&'a str, Vec<&'a RateLimitPolicy>>,
}

impl<'a> Court<'a> {
    fn new(found: &'a Found, home: &'a str) -> Self {
        let mut court = Self { policy: &found.policy, home, general: Vec::new(), by_name: HashMap::new() };
        for rival in &found.rivals {
            let references = &rival.spec.target_refs;
            if references.iter().all(|reference| reference.kind == TargetKind::Tenant) && !references.is_empty() {
                let names: BTreeSet<_> = references.iter().map(|reference| reference.name.as_str()).collect();
                for name in names {
                    court.by_name.entry(name).or_default().push(rival);
                }
            } else {
                court.general.push(rival);
            }
        }
        court
    }

    /// What became of the policy at a target, or at a section of it.
    fn judge(&self, target: Option<Target<'_>>, section: Option<RouteGroup>) -> Fate {
        let named = target.and_then(|target| self.by_name.get(target.name)).map(Vec::as_slice).unwrap_or_default();
        let rivals = || self.general.iter().chain(named).copied();
        // Groups differ only where somebody names one.
        let sections = rivals().flat_map(|rival| &rival.spec.target_refs).any(|named| named.section_name.is_some());
        let groups = match &section {
            Some(section) => std::slice::from_ref(section),
            None if sections => &RouteGroup::ALL,
            None => &RouteGroup::ALL[..1],
        };
        let mut standings = Vec::new();
        let mut lost: BTreeMap<(String, bool, &str), Vec<RouteGroup>> = BTreeMap::new();
        for group in groups {
            let effective = effective(rivals(), target, *group, self.home);
            let Some(own) = effective.attached.iter().find(|one| std::ptr::eq(one.policy, self.policy)) else {
                continue;
            };
            standings.push(own.standing);
            for loss in &own.losses {
                lost.entry((loss.by.key(), loss.conflict, loss.item.name())).or_default().push(*group);
            }
        }
        let mut losses: BTreeMap<(String, bool, Vec<RouteGroup>), Vec<String>> = BTreeMap::new();
        for ((by, conflict, item), mut places) in lost {
            if places.len() == groups.len() {
                places.clear();
            }
            losses.entry((by, conflict, places)).or_default().push(item.to_owned());
        }
        let losses = losses.into_iter().map(|((by, conflict, groups), items)| Loss { by, conflict, groups, items });
        Fate::Attached { standing: overall(&standings), losses: losses.collect() }
    }
}

/// One word for several groups: a policy is beaten only if it is so in all of them.
fn overall(standings: &[Standing]) -> Standing {
    let all = |wanted: &[Standing]| standings.iter().all(|standing| wanted.contains(standing));
    if all(&[Standing::Whole]) {
        Standing::Whole
    } else if all(&[Standing::Conflicted]) {
        Standing::Conflicted
    } else if all(&[Standing::Conflicted, Standing::Overridden]) {
        Standing::Overridden
    } else {
        Standing::Part
    }
}
