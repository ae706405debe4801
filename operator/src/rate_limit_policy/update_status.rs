//! Step 3: says what is true, as it follows from the targets and from what the replicas enforce.

use std::collections::BTreeSet;

use finaiflow_crds::RateLimitPolicy;
use finaiflow_crds::condition::{self, ConditionType, Truth};
use finaiflow_crds::names::MANAGER_STATUS;
use finaiflow_crds::rate_limit_policy::{Ancestor, RateLimitPolicyStatus, Replicas, Standing};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use super::Visit;
use super::dereference::Found;
use super::validate::{Fate, Loss, Outcome};
use crate::error::{Attempt, Result};
use crate::replica::Replica;
use crate::story::{self, Fact, Story};

/// Who speaks in `status.ancestors[]`.
const CONTROLLER: &str = "finaiflow.io/operator";
const ANCESTORS_MAX: usize = 16;
const NAMES_MAX: usize = 32;
/// Names in a sentence.
const FEW: usize = 5;

const ACCEPTED: &str = "Accepted";
const INVALID: &str = "Invalid";
const TARGET_NOT_FOUND: &str = "TargetNotFound";
const CONFLICTED: &str = "Conflicted";
const OVERRIDDEN: &str = "Overridden";
const PROGRAMMED: &str = "Programmed";
const PARTIALLY_PROGRAMMED: &str = "PartiallyProgrammed";
const RECONCILING: &str = "Reconciling";
const NO_REPLICA: &str = "NoReplica";

const ELSEWHERE: &str = "policies for the API server count only in the namespace that it runs in";
const WHOLE: &str = "all of the policy counts";

/// Status, reason and message of a condition.
type Verdict = (Truth, &'static str, String);

/// The status of a policy, of which `outcomes` says what became of it at each target, or why nothing can.
#[must_use]
pub fn status(
    found: &Found,
    outcomes: std::result::Result<Vec<Outcome>, String>,
    now: Timestamp,
) -> RateLimitPolicyStatus {
    let policy = found.policy.as_ref();
    let old = policy.status.clone().unwrap_or_default();
    let accepted = accepted(policy, &outcomes);
    let mut outcomes = outcomes.unwrap_or_default();
    outcomes.sort_by(|a, b| (rank(&a.fate), &a.target).cmp(&(rank(&b.fate), &b.target)));
    let counts = |outcome: &Outcome| rank(&outcome.fate) > 0;
    // A selector that fits nothing yet is enforced as it is.
    let in_force = accepted.0 == Truth::True && (outcomes.is_empty() || outcomes.iter().any(counts));
    let anew = gains(policy, &outcomes, now);
    let enforcing = Enforcing::of(policy, &found.replicas, &found.digest, anew);
    let programmed = if accepted.0 != Truth::True {
        (Truth::False, accepted.1, accepted.2.clone())
    } else if !in_force {
        (Truth::False, OVERRIDDEN, beaten(policy, &outcomes))
    } else {
        enforcing.verdict()
    };
    let exists = |outcome: &&Outcome| matches!(outcome.fate, Fate::Attached { .. });
    RateLimitPolicyStatus {
        observed_generation: policy.metadata.generation,
        conditions: conditions(policy, old.conditions, &accepted, &programmed, now),
        targets: (accepted.1 != INVALID).then(|| count(outcomes.iter().filter(exists).count())),
        ancestors: outcomes.iter().take(ANCESTORS_MAX).map(|outcome| ancestor(policy, outcome, now)).collect(),
        replicas: in_force.then(|| enforcing.told()),
    }
}

/// Whether the replicas say something else of a policy in force than its status.
#[must_use]
pub fn is_due(policy: &RateLimitPolicy, replicas: &[Replica], digest: &str) -> bool {
    let told = policy.status.as_ref().and_then(|status| status.replicas.as_ref());
    told.is_some_and(|told| *told != Enforcing::of(policy, replicas, digest, false).told())
}

/// Ready says the same as Programmed, which is False with the reason of Accepted where that is. Only an invalid policy
/// is Stalled: missing targets may come, older rivals may go, and both are followed by themselves. One that is
/// overridden is at rest.
fn conditions(
    policy: &RateLimitPolicy,
    mut conditions: Vec<Condition>,
    accepted: &Verdict,
    programmed: &Verdict,
    now: Timestamp,
) -> Vec<Condition> {
    let generation = policy.metadata.generation;
    let abnormal = match programmed {
        (Truth::True, ..) | (_, OVERRIDDEN, _) => None,
        (_, INVALID, _) => Some(ConditionType::Stalled),
        _ => Some(ConditionType::Reconciling),
    };
    for kind in [ConditionType::Reconciling, ConditionType::Stalled] {
        if abnormal != Some(kind) {
            condition::remove(&mut conditions, kind);
        }
    }
    let written = [
        (ConditionType::Ready, programmed),
        (ConditionType::Accepted, accepted),
        (ConditionType::Programmed, programmed),
    ];
    for (kind, (truth, reason, message)) in written {
        condition::set(&mut conditions, kind, *truth, reason, message, generation, now);
    }
    if let Some(kind) = abnormal {
        condition::set(&mut conditions, kind, Truth::True, programmed.1, &programmed.2, generation, now);
    }
    conditions
}

/// How far a policy got at a target: not in force, in part, altogether.
const fn rank(fate: &Fate) -> u8 {
    match fate {
        Fate::Attached { standing: Standing::Whole, .. } => 2,
        Fate::Attached { standing: Standing::Part, .. } => 1,
        _ => 0,
    }
}

fn accepted(policy: &RateLimitPolicy, outcomes: &std::result::Result<Vec<Outcome>, String>) -> Verdict {
    let outcomes = match outcomes {
        Err(fault) => return (Truth::False, INVALID, fault.clone()),
        Ok(outcomes) if outcomes.is_empty() => {
            return (Truth::True, ACCEPTED, "no Tenant of the namespace has these labels yet".to_owned());
        }
        Ok(outcomes) => outcomes,
    };
    let refused: Vec<_> = outcomes.iter().map(|outcome| (outcome, say(outcome))).collect();
    let refused: Vec<_> = refused.iter().filter(|(_, (truth, ..))| *truth == Truth::False).collect();
    if refused.len() < outcomes.len() {
        let exceptions = refused.iter().map(|(outcome, (_, reason, _))| format!("{} ({reason})", name(outcome)));
        let message = match refused.len() {
            0 => "attached to every target".to_owned(),
            _ => format!("attached to every target except {}", few(exceptions)),
        };
        return (Truth::True, ACCEPTED, message);
    }
    if outcomes.iter().any(|outcome| matches!(outcome.fate, Fate::Attached { .. })) {
        (Truth::False, CONFLICTED, beaten(policy, outcomes))
    } else if outcomes.iter().all(|outcome| outcome.fate == Fate::Elsewhere) {
        (Truth::False, INVALID, ELSEWHERE.to_owned())
    } else {
        let missing = outcomes.iter().filter(|outcome| outcome.fate == Fate::Missing);
        let names: BTreeSet<_> = missing.map(|outcome| outcome.target.name.clone()).collect();
        let namespace = policy.namespace().unwrap_or_default();
        (Truth::False, TARGET_NOT_FOUND, format!("namespace {namespace} has no Tenant {}", few(names.into_iter())))
    }
}

fn name(Outcome { target, .. }: &Outcome) -> String {
    let section = target.section_name.map(|section| format!("/{section}")).unwrap_or_default();
    format!("{} {}{section}", target.kind, target.name)
}

/// Who beats a policy of which nothing counts anywhere.
fn beaten(policy: &RateLimitPolicy, outcomes: &[Outcome]) -> String {
    let losses = outcomes.iter().filter_map(|outcome| match &outcome.fate {
        Fate::Attached { losses, .. } => Some(losses),
        Fate::Elsewhere | Fate::Missing => None,
    });
    let winners: BTreeSet<_> = losses.flatten().map(winner).collect();
    // They are of every policy that is attached.
    let networks = if policy.spec.deny_cidrs.is_empty() { "" } else { "; only its denyCIDRs count" };
    format!("at every target another policy counts instead: {}{networks}", few(winners.into_iter()))
}

fn winner(loss: &Loss) -> String {
    if loss.conflict { format!("{} (as specific, and older)", loss.by) } else { loss.by.clone() }
}

/// The condition Accepted at one target.
fn say(outcome: &Outcome) -> Verdict {
    match &outcome.fate {
        Fate::Elsewhere => (Truth::False, INVALID, ELSEWHERE.to_owned()),
        Fate::Missing => (Truth::False, TARGET_NOT_FOUND, "there is no such Tenant".to_owned()),
        Fate::Attached { standing, losses } => match standing {
            Standing::Whole => (Truth::True, ACCEPTED, WHOLE.to_owned()),
            Standing::Part => (Truth::True, ACCEPTED, describe(losses)),
            Standing::Overridden => (Truth::True, OVERRIDDEN, describe(losses)),
            Standing::Conflicted => (Truth::False, CONFLICTED, describe(losses)),
        },
    }
}

fn describe(losses: &[Loss]) -> String {
    let sentence = |loss: &Loss| {
        let groups: Vec<_> = loss.groups.iter().map(|group| group.as_str()).collect();
        let places = if groups.is_empty() { String::new() } else { format!(" for {}", groups.join(", ")) };
        format!("{} counts instead of {}{places}", winner(loss), loss.items.join(", "))
    };
    losses.iter().map(sentence).collect::<Vec<_>>().join("; ")
}

fn ancestor(policy: &RateLimitPolicy, outcome: &Outcome, now: Timestamp) -> Ancestor {
    let old = told(policy).iter().find(|old| old.ancestor_ref == outcome.target);
    let mut conditions = old.map(|old| old.conditions.clone()).unwrap_or_default();
    let (truth, reason, message) = say(outcome);
    let generation = policy.metadata.generation;
    condition::set(&mut conditions, ConditionType::Accepted, truth, reason, &message, generation, now);
    Ancestor { ancestor_ref: outcome.target.clone(), controller_name: CONTROLLER.to_owned(), conditions }
}

fn told(policy: &RateLimitPolicy) -> &[Ancestor] {
    policy.status.as_ref().map(|status| status.ancestors.as_slice()).unwrap_or_default()
}

/// Whether another outcome is known of a target where not all of the policy counted: if more of it counts now, then on
/// a replica only once that knows why.
fn gains(policy: &RateLimitPolicy, outcomes: &[Outcome], now: Timestamp) -> bool {
    let lacking = |old: &&Ancestor| old.conditions.iter().any(|condition| condition.message != WHOLE);
    told(policy).iter().filter(lacking).any(|old| {
        let outcome = outcomes.iter().find(|outcome| outcome.target == old.ancestor_ref);
        outcome.is_some_and(|outcome| ancestor(policy, outcome, now) != *old)
    })
}

/// The live replicas by whether they enforce the policy as it is.
struct Enforcing<'a> {
    updated: Vec<&'a str>,
    waiting: Vec<&'a str>,
}

impl<'a> Enforcing<'a> {
    /// A replica enforces every policy if it tells the digest of all. One that the status lists enforces this generation
    /// whatever it tells, unless it must be proven `anew`: it takes changes in order, so that it is only others that it
    /// has not got yet.
    fn of(policy: &RateLimitPolicy, replicas: &'a [Replica], digest: &str, anew: bool) -> Self {
        let status = policy.status.as_ref().filter(|status| status.observed_generation == policy.metadata.generation);
        let proven = status.filter(|_| !anew).and_then(|status| status.replicas.as_ref());
        let names = proven.map(|proven| proven.names.as_slice()).unwrap_or_default();
        let (updated, waiting): (Vec<_>, Vec<_>) = replicas.iter().partition(|replica| {
            let enforced = replica.policies.as_deref();
            enforced.is_some() && (enforced == Some(digest) || names.contains(&replica.name))
        });
        let names = |replicas: Vec<&'a Replica>| replicas.into_iter().map(|replica| replica.name.as_str()).collect();
        Self { updated: names(updated), waiting: names(waiting) }
    }

    fn verdict(&self) -> Verdict {
        let (updated, waiting) = (self.updated.len(), self.waiting.len());
        let message = || {
            let names = few(self.waiting.iter().map(|name| (*name).to_owned()));
            format!("{updated} of {} replicas enforce it; waiting for {names}", updated + waiting)
        };
        match (updated, waiting) {
            (0, 0) => (Truth::False, NO_REPLICA, "no replica of the API server is alive".to_owned()),
            (_, 0) => (Truth::True, PROGRAMMED, "every live replica of the API server enforces it".to_owned()),
            (0, _) => (Truth::False, RECONCILING, message()),
            _ => (Truth::False, PARTIALLY_PROGRAMMED, message()),
        }
    }

    fn told(&self) -> Replicas {
        Replicas {
            total: count(self.updated.len() + self.waiting.len()),
            updated: count(self.updated.len()),
            names: self.updated.iter().take(NAMES_MAX).map(|name| (*name).to_owned()).collect(),
        }
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The first names, and how many there are beside them.
fn few(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(FEW);
    let names = names.take(FEW).collect::<Vec<_>>().join(", ");
    if more == 0 { names } else { format!("{names} and {more} more") }
}

/// Writes the status if it says something new, and tells what people want to hear of it. It is true only of the policy
/// that it was derived from: of one that has changed meanwhile nothing is written.
pub async fn write(
    client: &Client,
    policy: &RateLimitPolicy,
    status: RateLimitPolicyStatus,
    story: &Story,
) -> Result<Visit> {
    let old = policy.status.clone().unwrap_or_default();
    if status == old {
        return Ok(Visit::Done);
    }
    let api: Api<RateLimitPolicy> = Api::namespaced(client.clone(), &policy.namespace().unwrap_or_default());
    let intent = json!({
        "apiVersion": RateLimitPolicy::api_version(&()), "kind": RateLimitPolicy::kind(&()),
        "metadata": {"name": policy.name_any(), "uid": policy.uid(), "resourceVersion": policy.resource_version()},
        "status": status,
    });
    let parameters = PatchParams::apply(MANAGER_STATUS).force();
    match api.patch_status(&policy.name_any(), &parameters, &Patch::Apply(intent)).await {
        Err(kube::Error::Api(answer)) if answer.is_conflict() || answer.is_not_found() => return Ok(Visit::Late),
        answer => answer.attempt(|| "write the status".to_owned())?,
    };
    for fact in transitions(&old.conditions, &status.conditions) {
        story.tell(fact);
    }
    Ok(Visit::Done)
}

/// What changed between two sets of conditions that is worth an event.
fn transitions(old: &[Condition], new: &[Condition]) -> Vec<Fact> {
    let changed = |kind| story::news(old, new, kind);
    let accepted = changed(ConditionType::Accepted).map(|new| match new.reason.as_str() {
        ACCEPTED => Fact::Accepted(new.message.clone()),
        _ => Fact::NotReady { reason: new.reason.clone(), message: new.message.clone() },
    });
    let programmed = changed(ConditionType::Programmed).and_then(|new| match new.reason.as_str() {
        PROGRAMMED => Some(Fact::Programmed(new.message.clone())),
        OVERRIDDEN => Some(Fact::Overridden(new.message.clone())),
        _ => None,
    });
    accepted.into_iter().chain(programmed).collect()
}
