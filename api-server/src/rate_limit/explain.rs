//! Which policy decides about a request, and why: for operators, on a listener of its own that only the pod can reach
//! (`kubectl port-forward`).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use finaiflow_crds::rate_limit_policy::{Attached, KeyType, Level, RouteGroup, Standing};
use serde::Deserialize;
use serde_json::{Value, json};

use super::guard::{Guard, Ruled};
use super::headers::seconds;
use super::rules::{ALL, Facts, Rule, Rules, User};
use super::{Algorithm, Micros, Outcome, Row};
use crate::app::AppState;
use crate::clock;
use crate::observe::UNMATCHED;
use crate::openapi;
use crate::problem::{self, Problem};
use crate::tenant::State as TenantState;

/// `GET /rate-limits/explain` and `GET /rate-limits/refused`.
pub fn router(state: AppState) -> Router {
    Router::new()
        .route("/rate-limits/explain", get(explain))
        .route("/rate-limits/refused", get(refused))
        .fallback(|| async { "GET /rate-limits/explain?tenant=&method=&path=&ip=&user=&header=NAME:VALUE\nGET /rate-limits/refused?request_id=&tenant=\n" })
        .layer(axum::middleware::map_response(|response: Response| async { problem::render(response, "") }))
        .with_state(state)
}

/// A request to be explained. Nothing is counted for it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default = "get_method")]
    method: String,
    path: String,
    #[serde(default)]
    ip: Option<IpAddr>,
    /// Id of a user, such as `usr_...`.
    #[serde(default)]
    user: Option<String>,
    /// `<name>:<value>`.
    #[serde(default)]
    header: Option<String>,
}

fn get_method() -> String {
    "GET".to_owned()
}

async fn explain(State(state): State<AppState>, Query(question): Query<Question>) -> Result<Json<Value>, Problem> {
    let tenant = match question.tenant.as_deref().map(|name| state.directory().get(name)) {
        None => None,
        Some(Some(entry)) => match entry.state {
            TenantState::Serving(tenant) => Some(tenant),
            _ => return Err(Problem::invalid_field("/tenant", "the tenant is not served")),
        },
        Some(None) => return Err(Problem::invalid_field("/tenant", "there is no such tenant")),
    };
    let mut headers = HeaderMap::new();
    if let Some(header) = &question.header {
        let (name, value) = header
            .split_once(':')
            .and_then(|(name, value)| {
                Some((name.trim().parse::<HeaderName>().ok()?, HeaderValue::from_str(value.trim()).ok()?))
            })
            .ok_or_else(|| Problem::invalid_field("/header", "must be NAME:VALUE"))?;
        headers.insert(name, value);
    }
    let route = template(&question.path);
    let user = question.user.as_ref().map_or(User::Nobody, |user| User::Known(Arc::new(json!({"sub": user}))));
    let facts = Facts {
        ip: question.ip.map(|ip| ip.to_canonical()),
        method: &question.method,
        path: &question.path,
        route: &route,
        headers: &headers,
        tenant: tenant.as_deref(),
        user: &user,
    };
    Ok(Json(answer(state.guard(), &facts, clock::micros(state.now()))))
}

/// Which refusals to list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    #[serde(default)]
    request_id: Option<String>,
    #[serde(default)]
    tenant: Option<String>,
}

async fn refused(State(state): State<AppState>, Query(filter): Query<Filter>) -> impl IntoResponse {
    let refused = state.guard().recall(|it| {
        filter.request_id.as_ref().is_none_or(|id| *id == it.request_id)
            && filter.tenant.as_ref().is_none_or(|tenant| *tenant == it.tenant)
    });
    Json(json!({"data": refused}))
}

fn answer(guard: &Guard, facts: &Facts<'_>, now: Micros) -> Value {
    let group = RouteGroup::of_path(facts.path);
    let set = guard.set();
    let rules = set.rules(guard.maker(), facts.tenant, group);
    let effective = set.effective(guard.maker(), facts.tenant, group);
    let limits: Vec<_> = rules.limits.iter().map(|rule| limit(guard, rule, facts, now)).collect();
    let (verdict, by, why) = verdict(guard, &rules, facts, now);
    json!({
        "verdict": verdict, "decided_by": by, "why": why,
        "tenant": facts.tenant.map(|tenant| &tenant.name), "route": facts.route, "section": group.as_str(),
        "policies": effective.attached.iter().map(attached).collect::<Vec<_>>(),
        "limits": limits,
        "policy_digest": set.digest,
        "rate_limits_enabled": guard.enabled(),
    })
}

/// What would become of the request now.
fn verdict(guard: &Guard, rules: &Rules, facts: &Facts<'_>, now: Micros) -> (&'static str, Option<String>, String) {
    if let Some(policy) = facts.ip.and_then(|ip| rules.denied_by(ip)) {
        return ("denied", Some(policy.to_string()), "the address is in denyCIDRs of the policy".to_owned());
    }
    if !guard.enabled() {
        return ("admitted", None, "rate limits are switched off (RATE_LIMIT_ENABLED)".to_owned());
    }
    if let Some(policy) = facts.ip.and_then(|ip| rules.spared_by(ip)) {
        return ("admitted", Some(policy.to_string()), "the address is in allowCIDRs of the policy".to_owned());
    }
    let (enforced, _) = super::guard::choose(rules, facts);
    let seen = guard.peek(&enforced, facts, now);
    match seen.iter().find(|it| it.refused() || it.unavailable()) {
        Some(it) if it.refused() => {
            let policy = format!("{}/{}", it.rule.policy, it.rule.name);
            ("limited", Some(policy), "the limit has no quota left for this key".to_owned())
        }
        Some(it) => {
            let policy = format!("{}/{}", it.rule.policy, it.rule.name);
            ("unavailable", Some(policy), "the shared store cannot be reached, and failureMode is Closed".to_owned())
        }
        None if seen.is_empty() => ("admitted", None, "no limit applies".to_owned()),
        None => ("admitted", None, "every limit that applies has quota left".to_owned()),
    }
}

fn attached(it: &Attached<'_>) -> Value {
    let losses = it.losses.iter().map(|loss| {
        let because = if loss.conflict { "it is older and names the target as precisely" } else { "of the strategies" };
        json!({"item": loss.item.name(), "beaten_by": loss.by.key(), "because": because})
    });
    json!({
        "policy": it.policy.key(),
        "strategy": it.policy.spec.strategy,
        "level": match it.level {
            Level::ApiServer => "ApiServer",
            Level::Selector => "Selector",
            Level::Tenant => "Tenant",
            Level::Section => "Section",
        },
        "standing": match it.standing {
            Standing::Whole => "in force",
            Standing::Part => "in force in part",
            Standing::Overridden => "overridden",
            Standing::Conflicted => "conflicted",
        },
        "losses": losses.collect::<Vec<_>>(),
    })
}

fn limit(guard: &Guard, rule: &Arc<Rule>, facts: &Facts<'_>, now: Micros) -> Value {
    let skipped = rule.skips(facts);
    let ruled = match skipped {
        None => guard.peek(std::slice::from_ref(rule), facts, now).pop(),
        Some(_) => None,
    };
    json!({
        "policy": &*rule.policy, "limit": rule.name, "mode": rule.mode, "cost": rule.cost,
        "applies": skipped.is_none(), "why_not": skipped,
        "shared_by": if rule.scope == ALL { "all tenants" } else { "the tenant" },
        "keys": rule.keys.iter().map(|key| key_name(key.kind)).collect::<Vec<_>>(),
        "rates": rates(rule, ruled.as_ref()),
    })
}

fn key_name(kind: KeyType) -> Value {
    serde_json::to_value(kind).unwrap_or_default()
}

fn rates(rule: &Rule, ruled: Option<&Ruled>) -> Vec<Value> {
    let rows = ruled.map(|ruled| ruled.rows.iter()).into_iter().flatten().map(Some).chain(std::iter::repeat(None));
    let rate = |((rate, _), row): (&(super::Rate, [u8; 16]), Option<&Row>)| {
        let mut value = json!({
            "algorithm": match rate.algorithm() { Algorithm::Gcra => "GCRA", Algorithm::FixedWindow => "FixedWindow" },
            "requests": rate.requests(), "period_seconds": rate.period_seconds(), "burst": rate.burst(),
        });
        if let (Some(row), Some(object)) = (row, value.as_object_mut()) {
            let outcome = match row.outcome {
                Outcome::Granted => "granted",
                Outcome::Refused => "refused",
                Outcome::Unavailable => "unavailable",
            };
            object.insert("outcome".to_owned(), outcome.into());
            object.insert("remaining".to_owned(), row.remaining.into());
            object.insert("retry_after_seconds".to_owned(), seconds(row.retry_after).into());
            object.insert("counted_by".to_owned(), format!("{:?}", row.source).into());
        }
        value
    };
    rule.rates.iter().zip(rows).map(rate).collect()
}

/// The documented path that a path fits.
fn template(path: &str) -> String {
    let fits = |template: &&String| {
        let (mut a, mut b) = (template.split('/'), path.split('/'));
        loop {
            match (a.next(), b.next()) {
                (None, None) => return true,
                (Some(part), Some(segment)) if part == segment || (part.starts_with('{') && !segment.is_empty()) => {}
                _ => return false,
            }
        }
    };
    openapi::document().paths.paths.keys().find(fits).cloned().unwrap_or_else(|| UNMATCHED.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_known_by_its_template() {
        assert_eq!(template("/api/v1/auth/login"), "/api/v1/auth/login");
        assert_eq!(template("/api/v1/accounts/acc_1/balance"), "/api/v1/accounts/{id}/balance");
        assert_eq!(template("/api/v1/accounts//balance"), UNMATCHED);
        assert_eq!(template("/nowhere"), UNMATCHED);
    }
}
