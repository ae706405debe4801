//! Which claim a Tenant has or takes over. Part of step 2; pure.

use finaiflow_crds::Tenant;
use finaiflow_crds::tenant::AdoptionPolicy;
use kube::ResourceExt;

use crate::catalog::{Claim, ClaimState};
use crate::config::{Config, Server};
use crate::error::{Reason, Refusal};

/// The claim behind a Tenant, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// The Tenant has it.
    Tenant(Claim),
    /// The Tenant takes it over from an earlier one.
    Adopts(Claim),
}

impl Holder {
    /// The claim.
    #[must_use]
    pub const fn claim(&self) -> &Claim {
        match self {
            Self::Tenant(claim) | Self::Adopts(claim) => claim,
        }
    }
}

/// Finds the Tenant's claim among all that were made for its name in the installation, and the one that it asks for.
/// None if it is to get a new one.
pub fn find<'a>(
    tenant: &Tenant,
    installation: &str,
    config: &Config,
    found: &[(&'a Server, Claim)],
) -> Result<Option<(&'a Server, Holder)>, Refusal> {
    let (namespace, name) = (tenant.namespace().unwrap_or_default(), tenant.name_any());
    let uid = tenant.uid().unwrap_or_default();
    let asked = tenant.spec.adopt_claim.as_deref();
    let of_name = |state| {
        let same = move |claim: &Claim| claim.installation_id == installation && claim.state == state;
        let name = name.clone();
        found.iter().filter(move |(_, claim)| same(claim) && claim.name == name)
    };
    let is_own = |claim: &Claim| claim.namespace == namespace && claim.last_uid == uid;
    if let Some((server, own)) = of_name(ClaimState::Active).find(|(_, claim)| is_own(claim)) {
        return match asked.filter(|asked| *asked != own.claim_id.to_string()) {
            Some(asked) => Err(already_has(own, asked)),
            None => Ok(Some((server, Holder::Tenant(own.clone())))),
        };
    }
    let adopted = if let Some(active) = of_name(ClaimState::Active).next() {
        check_name(&namespace, &active.1, asked)?;
        active
    } else if let Some(asked) = asked {
        asked_for(installation, asked, found)?
    } else {
        let mut left = of_name(ClaimState::Released).filter(|(_, claim)| claim.namespace == namespace);
        let Some(released) = left.next() else { return Ok(None) };
        if tenant.spec.adoption_policy == AdoptionPolicy::Never || left.next().is_some() {
            return Err(left_behind(&released.1));
        }
        released
    };
    check_fits(tenant, config, adopted)?;
    Ok(Some((adopted.0, Holder::Adopts(adopted.1.clone()))))
}

/// A name that is taken is given up only by a Tenant of this very name that is gone, to one that may take its claim.
fn check_name(namespace: &str, active: &Claim, asked: Option<&str>) -> Result<(), Refusal> {
    let Claim { claim_id, name, last_uid, .. } = active;
    if active.namespace != namespace {
        let message =
            format!("tenant name {name} is held by {}/{name}: names are unique in the installation", active.namespace);
        return Err(Refusal { reason: Reason::NameConflict, message });
    }
    if asked == Some(&*claim_id.to_string()) {
        return Ok(());
    }
    let message = format!(
        "tenant name {name} is held by claim {claim_id} of an earlier Tenant {namespace}/{name} (uid {last_uid}) that \
         was removed without its finalizer; the operator releases it soon"
    );
    Err(Refusal { reason: Reason::NameConflict, message })
}

/// The claim of `spec.adoptClaim`: a released one, or one whose cluster is not this one.
fn asked_for<'a, 'b>(
    installation: &str,
    asked: &str,
    found: &'b [(&'a Server, Claim)],
) -> Result<&'b (&'a Server, Claim), Refusal> {
    let Some(wanted) = found.iter().find(|(_, claim)| claim.claim_id.to_string() == asked) else {
        return Err(refused(format!("no configured server has a claim {asked}")));
    };
    let Claim { namespace, name, state, installation_id, .. } = &wanted.1;
    match state {
        ClaimState::Dropped => {
            Err(refused(format!("claim {asked} of Tenant {namespace}/{name} was dropped with its data")))
        }
        ClaimState::Active if installation_id == installation => Err(refused(format!(
            "claim {asked} is held by Tenant {namespace}/{name}; it can be adopted once that one is deleted with \
             deletionPolicy Retain"
        ))),
        ClaimState::Active | ClaimState::Released => Ok(wanted),
    }
}

/// What is adopted stays where and what it is; a spec that says otherwise would not be true.
fn check_fits(tenant: &Tenant, config: &Config, (server, claim): &(&Server, Claim)) -> Result<(), Refusal> {
    let (class, Claim { claim_id, schema_name, .. }) = (&tenant.spec.database_class_name, claim);
    let is_of_class = |class: &str| config.class(class).is_some_and(|class| class.servers.contains(server));
    if !is_of_class(class) {
        let of = config.database_classes.iter().map(|class| class.name.as_str()).find(|class| is_of_class(class));
        return Err(refused(format!(
            "claim {claim_id} is on server {}, which is not of class {class}: create the Tenant with databaseClassName {}",
            server.name,
            of.unwrap_or_default()
        )));
    }
    match &tenant.spec.schema_name {
        Some(wanted) if wanted != schema_name => Err(refused(format!(
            "claim {claim_id} holds schema {schema_name}, not {wanted}: create the Tenant with that schemaName, or with none"
        ))),
        _ => Ok(()),
    }
}

fn already_has(own: &Claim, asked: &str) -> Refusal {
    refused(format!(
        "this Tenant has claim {} already and cannot adopt {asked}: delete it, and create one that adopts at once",
        own.claim_id
    ))
}

fn left_behind(released: &Claim) -> Refusal {
    let Claim { claim_id, schema_name, .. } = released;
    let message = format!(
        "an earlier Tenant of this name was deleted and its bank retained: schema {schema_name}, claim {claim_id}; \
         nothing was touched. It is taken back with adoptionPolicy IfOwned, unless there are several, or by adoptClaim"
    );
    Refusal { reason: Reason::ClaimReleased, message }
}

fn refused(message: String) -> Refusal {
    Refusal { reason: Reason::AdoptionRefused, message }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::build::tests::{config, tenant};
    use super::*;
    use crate::catalog::ClaimId;

    const HERE: &str = "installation";

    fn claim(id: u64, installation: &str, namespace: &str, uid: &str, state: ClaimState) -> Claim {
        Claim {
            claim_id: ClaimId::from_random(id),
            installation_id: installation.to_owned(),
            namespace: namespace.to_owned(),
            name: "acme".to_owned(),
            schema_name: "t_acme".to_owned(),
            last_uid: uid.to_owned(),
            state,
        }
    }

    /// `has n`, `adopts n`, `new`, or the reason of a refusal.
    fn decide(spec: &Value, claims: &[Claim]) -> String {
        let config = config();
        let server = &config.database_classes[0].servers[0];
        let found: Vec<_> = claims.iter().map(|claim| (server, claim.clone())).collect();
        match find(&tenant(spec), HERE, &config, &found) {
            Ok(None) => "new".to_owned(),
            Ok(Some((_, Holder::Tenant(claim)))) => format!("has {}", claim.claim_id),
            Ok(Some((_, Holder::Adopts(claim)))) => format!("adopts {}", claim.claim_id),
            Err(refusal) => refusal.reason.as_str().to_owned(),
        }
    }

    #[test]
    fn only_what_was_given_up_is_taken() {
        use ClaimState::{Active, Dropped, Released};
        let (none, never) = (json!({}), json!({"adoptionPolicy": "Never"}));
        let asks = json!({"adoptClaim": "0000000000000001"});
        let claim = |installation, namespace, uid, state| claim(1, installation, namespace, uid, state);
        let has = "has 0000000000000001";
        let adopts = "adopts 0000000000000001";
        for (spec, claim, expected) in [
            (&none, claim(HERE, "banks", "u-1", Active), has),
            (&never, claim(HERE, "banks", "u-1", Active), has),
            (&asks, claim(HERE, "banks", "u-1", Active), has),
            // By name.
            (&none, claim(HERE, "banks", "gone", Released), adopts),
            (&never, claim(HERE, "banks", "gone", Released), "ClaimReleased"),
            (&none, claim(HERE, "others", "gone", Released), "new"),
            (&none, claim("elsewhere", "banks", "gone", Released), "new"),
            (&none, claim("elsewhere", "banks", "gone", Active), "new"),
            (&none, claim(HERE, "banks", "gone", Dropped), "new"),
            (&none, claim(HERE, "banks", "gone", Active), "NameConflict"),
            (&none, claim(HERE, "others", "gone", Active), "NameConflict"),
            // By identity.
            (&asks, claim(HERE, "banks", "gone", Released), adopts),
            (&asks, claim(HERE, "others", "gone", Released), adopts),
            (&asks, claim("elsewhere", "others", "gone", Released), adopts),
            (&asks, claim("elsewhere", "others", "gone", Active), adopts),
            (&asks, claim(HERE, "banks", "gone", Active), adopts),
            (&asks, claim(HERE, "others", "gone", Active), "NameConflict"),
            (&asks, claim("elsewhere", "banks", "gone", Dropped), "AdoptionRefused"),
            (&asks, Claim { name: "globex".to_owned(), ..claim(HERE, "banks", "alive", Active) }, "AdoptionRefused"),
        ] {
            assert_eq!(decide(spec, std::slice::from_ref(&claim)), expected, "{spec} {claim:?}");
        }
        assert_eq!(decide(&asks, &[]), "AdoptionRefused", "nobody has it");
    }

    #[test]
    fn several_claims_are_told_apart() {
        use ClaimState::{Active, Released};
        let (one, two) = (claim(1, HERE, "banks", "a", Released), claim(2, HERE, "banks", "b", Released));
        assert_eq!(decide(&json!({}), &[one.clone(), two.clone()]), "ClaimReleased", "which one is meant?");
        let asks = json!({"adoptClaim": "0000000000000002"});
        assert_eq!(decide(&asks, &[one.clone(), two.clone()]), "adopts 0000000000000002");
        // A bank is not exchanged for another one, and the own one is found among others.
        let own = claim(3, HERE, "banks", "u-1", Active);
        assert_eq!(decide(&json!({}), &[one.clone(), own.clone()]), "has 0000000000000003");
        assert_eq!(decide(&asks, &[one, two.clone(), own]), "AdoptionRefused");
        // Somebody else has the name by now.
        let other = claim(4, HERE, "others", "c", Active);
        assert_eq!(decide(&asks, &[two, other]), "NameConflict");
    }

    #[test]
    fn what_is_adopted_stays_where_it_is() {
        let released = [claim(1, HERE, "banks", "a", ClaimState::Released)];
        assert_eq!(decide(&json!({"schemaName": "t_acme"}), &released), "adopts 0000000000000001");
        assert_eq!(decide(&json!({"schemaName": "other"}), &released), "AdoptionRefused");
        assert_eq!(decide(&json!({"databaseClassName": "gold"}), &released), "AdoptionRefused");
    }
}
