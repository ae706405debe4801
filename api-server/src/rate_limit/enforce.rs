//! The layer that every request passes before any work is done for it.
//!
//! First the networks that are refused (403), then the requests under way (429 for a policy's maximum, 503 for the
//! replica's), then what can be looked at without knowing the caller, then who the caller is, then all limits at once
//! (429): whoever is refused at any step has consumed nothing. Probes and metrics are exempt.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use finaiflow_crds::rate_limit_policy::RouteGroup;
use time::format_description::well_known::Rfc3339;

use super::guard::{Guard, Refused, Ruled, choose};
use super::headers;
use super::metrics::Decision;
use super::rules::{Facts, Rules, UnderWay, User};
use super::{Micros, Outcome};
use crate::app::AppState;
use crate::clock;
use crate::extract::access_cache::{AccessError, Authenticated};
use crate::extract::caller::bearer;
use crate::extract::context::Context;
use crate::observe::UNMATCHED;
use crate::problem::{Code, Problem};
use crate::tenant::Tenant;

/// Never counted and never refused.
const EXEMPT: [&str; 4] = ["/livez", "/readyz", "/health", "/metrics"];

/// A request that may go on, until it is answered.
struct Admitted {
    ruled: Vec<Ruled>,
    /// For the handler, where a limit asked for it.
    caller: Option<Authenticated>,
    _under_way: [Option<UnderWay>; 2],
}

/// A request that may not.
struct Turned {
    problem: Problem,
    ruled: Vec<Ruled>,
    policy: Arc<str>,
    limit: String,
}

/// Wraps every route.
pub async fn enforce(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let route = parts.extensions.get::<MatchedPath>().map_or(UNMATCHED, MatchedPath::as_str);
    let Some(context) = parts.extensions.get::<Context>().filter(|_| !EXEMPT.contains(&route)) else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    let visit = Visit { state: &state, guard: state.guard(), context, parts: &parts, route };
    let started = Instant::now();
    let outcome = visit.decide().await;
    state.guard().metrics().checked(started.elapsed());
    match outcome {
        Ok(admitted) => {
            let mut request = Request::from_parts(parts, body);
            if let Some(caller) = &admitted.caller {
                request.extensions_mut().insert(caller.clone());
            }
            let mut response = next.run(request).await;
            headers::write(&admitted.ruled, response.headers_mut());
            response
        }
        Err(turned) => visit.turn(*turned),
    }
}

/// One request on its way.
struct Visit<'a> {
    state: &'a AppState,
    guard: &'a Guard,
    context: &'a Context,
    parts: &'a Parts,
    route: &'a str,
}

impl Visit<'_> {
    fn tenant(&self) -> Option<&Tenant> {
        self.context.tenant.as_deref().ok()
    }

    fn facts<'a>(&'a self, user: &'a User) -> Facts<'a> {
        Facts {
            ip: self.context.ip,
            method: self.parts.method.as_str(),
            path: self.parts.uri.path(),
            route: self.route,
            headers: &self.parts.headers,
            tenant: self.tenant(),
            user,
        }
    }

    async fn decide(&self) -> Result<Admitted, Box<Turned>> {
        let rules = self.guard.rules(self.tenant(), RouteGroup::of_path(self.parts.uri.path()));
        if let Some(policy) = self.context.ip.and_then(|ip| rules.denied_by(ip)) {
            self.guard.metrics().decided(policy, "denyCIDRs", Decision::Denied);
            return Err(turned(Code::IpDenied.into(), Vec::new(), policy, "denyCIDRs"));
        }
        let own = rules.in_flight.as_ref().filter(|_| self.guard.enabled()).map(|limit| {
            UnderWay::enter(&limit.now, limit.max).ok_or_else(|| {
                self.guard.metrics().decided(&limit.policy, "maxInFlight", Decision::Limited);
                let problem = Problem::quota(vec!["maxInFlight".to_owned()], 1);
                turned(problem, Vec::new(), &limit.policy, "maxInFlight")
            })
        });
        let own = own.transpose()?;
        let reads = matches!(self.parts.method, Method::GET | Method::HEAD);
        let all = self.guard.enter(reads).ok_or_else(|| {
            self.guard.metrics().shed();
            turned(Code::Overloaded.into(), Vec::new(), &Arc::from("replica"), "FINAIFLOW_MAX_IN_FLIGHT")
        })?;
        let (counted, caller) = if self.guard.enabled() { self.count(&rules).await? } else { (Vec::new(), None) };
        Ok(Admitted { ruled: counted, caller, _under_way: [own, Some(all)] })
    }

    /// Counts the request under every limit that applies to it, and tells who sent it if that was asked for.
    async fn count(&self, rules: &Rules) -> Result<(Vec<Ruled>, Option<Authenticated>), Box<Turned>> {
        if let Some(policy) = self.context.ip.and_then(|ip| rules.spared_by(ip)) {
            self.guard.metrics().decided(policy, "allowCIDRs", Decision::Bypassed);
            return Ok((Vec::new(), None));
        }
        let now = clock::micros(self.state.now());
        let (user, caller) = self.user(rules, now).await?;
        let facts = self.facts(&user);
        let (enforced, watching) = choose(rules, &facts);
        for rule in &watching {
            self.guard.shadow(rule, &facts, now).await;
        }
        Ok((self.judge(self.guard.take(&enforced, &facts, now).await)?, caller))
    }

    /// Who sent the request, where a limit asks for it. What can be told without is looked at before: a flood with
    /// made-up tokens costs no signature checks.
    async fn user(&self, rules: &Rules, now: Micros) -> Result<(User, Option<Authenticated>), Box<Turned>> {
        let (Some(tenant), Ok(token)) = (self.tenant(), bearer(&self.parts.headers)) else {
            return Ok((User::Nobody, None));
        };
        let facts = self.facts(&User::Unknown);
        if !rules.limits.iter().any(|rule| rule.needs_user()) {
            return Ok((User::Unknown, None));
        }
        let (known, _) = choose(rules, &facts);
        let seen = self.guard.peek(&known, &facts, now);
        if seen.iter().any(Ruled::refused) {
            self.judge(seen)?;
        }
        let issuer = self.state.issuer(tenant);
        match self.state.access().authenticate(tenant, &issuer, token, self.state.now()).await {
            Ok(caller) => Ok((User::Known(Arc::clone(&caller.claims)), Some(caller))),
            Err(AccessError::Store(_)) => Ok((User::Unknown, None)),
            Err(_) => Ok((User::Nobody, None)),
        }
    }

    /// Counts what was decided, and turns the request away if a limit refuses it.
    fn judge(&self, ruled: Vec<Ruled>) -> Result<Vec<Ruled>, Box<Turned>> {
        let admitted = ruled.iter().all(|it| !it.refused() && !it.unavailable());
        for it in &ruled {
            let decision = match it {
                it if it.refused() => Decision::Limited,
                it if it.unavailable() => Decision::Error,
                _ if admitted => Decision::Allowed,
                // It would have passed here: nothing was consumed.
                _ => continue,
            };
            self.guard.metrics().decided(&it.rule.policy, &it.rule.name, decision);
        }
        if admitted {
            return Ok(ruled);
        }
        let refusing: Vec<_> = ruled.iter().filter(|it| it.refused()).collect();
        let blame = |it: &Ruled| (Arc::clone(&it.rule.policy), it.rule.name.clone());
        if refusing.is_empty() {
            let (policy, limit) = ruled.iter().find(|it| it.unavailable()).map(blame).unwrap_or_default();
            return Err(turned(Code::Overloaded.into(), ruled, &policy, &limit));
        }
        let wait = refusing.iter().flat_map(|it| &it.rows).filter(|row| row.outcome == Outcome::Refused);
        let seconds = headers::seconds(wait.map(|row| row.retry_after).max().unwrap_or_default()).max(1);
        let (policy, limit) = refusing.first().map(|it| blame(it)).unwrap_or_default();
        let names = refusing.iter().map(|it| it.rule.name.clone()).collect();
        Err(turned(Problem::quota(names, seconds), ruled, &policy, &limit))
    }

    fn turn(&self, turned: Turned) -> Response {
        let Turned { problem, ruled, policy, limit } = turned;
        tracing::info!(%policy, limit, code = problem.code().slug(), "request turned away");
        self.guard.remember(Refused {
            request_id: self.context.request_id.to_string(),
            at: self.state.now().format(&Rfc3339).unwrap_or_default(),
            tenant: self.tenant().map(|tenant| tenant.name.clone()).unwrap_or_default(),
            method: self.parts.method.to_string(),
            route: self.route.to_owned(),
            client_ip: self.context.ip,
            policy: policy.to_string(),
            limit,
            status: problem.code().status().as_u16(),
        });
        let mut response = problem.into_response();
        headers::write(&ruled, response.headers_mut());
        response
    }
}

fn turned(problem: Problem, ruled: Vec<Ruled>, policy: &Arc<str>, limit: &str) -> Box<Turned> {
    Box::new(Turned { problem, ruled, policy: Arc::clone(policy), limit: limit.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use axum::Router;
    use axum::body::Body;
    use axum::extract::ConnectInfo;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::get;
    use finaiflow_crds::RateLimitPolicy;
    use finaiflow_telemetry::metrics::Metrics;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;
    use crate::rate_limit::{Limiter, Settings};
    use crate::tenant::Directory;

    const HOME: &str = "finaiflow-system";

    /// A server with one endpoint that answers at once and one that answers never.
    struct Server {
        app: Router,
        state: AppState,
    }

    fn policy(spec: &Value) -> Arc<RateLimitPolicy> {
        let mut spec = spec.clone();
        spec["targetRefs"] = json!([{"kind": "ApiServer", "name": "default"}]);
        let policy = json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "RateLimitPolicy",
            "metadata": {"namespace": HOME, "name": "all", "uid": "u", "generation": 1}, "spec": spec,
        });
        Arc::new(serde_json::from_value(policy).unwrap())
    }

    impl Server {
        fn new(spec: &Value) -> Self {
            Self::with(spec, |_| {})
        }

        fn with(spec: &Value, change: impl FnOnce(&mut Settings)) -> Self {
            let mut settings = Settings {
                enabled: true,
                requests: 2,
                window_seconds: 60,
                trusted_proxies: "10.0.0.0/8".parse().unwrap(),
                max_in_flight: 100,
                home: HOME.to_owned(),
            };
            change(&mut settings);
            let telemetry = Metrics::new();
            let guard = Arc::new(Guard::new(settings, Limiter::in_memory(1_000), telemetry.registry()).unwrap());
            guard.replace((!spec.is_null()).then(|| policy(spec)));
            let directory = Arc::new(Directory::new(None));
            directory.mark_synced();
            // A clock that stands still: nothing comes back by waiting.
            let now = time::macros::datetime!(2026-01-01 00:00:10 UTC);
            let clock: clock::Clock = Arc::new(move || now);
            let state = AppState::new(directory, "https://issuer.test", clock, guard, telemetry).unwrap();
            let app = Router::new()
                .route("/api/v1/thing", get(|| async { "done" }).post(|| async { "done" }))
                .route("/api/v1/slow", get(std::future::pending::<()>))
                .route("/livez", get(|| async { "ok" }))
                .layer(axum::middleware::from_fn_with_state(state.clone(), enforce))
                .layer(axum::middleware::from_fn_with_state(state.clone(), crate::observe::observe))
                .with_state(state.clone());
            Self { app, state }
        }

        async fn ask(
            &self,
            method: &str,
            path: &str,
            peer: &str,
            headers: &[(&str, &str)],
        ) -> (StatusCode, HeaderMap, Value) {
            let mut request = Request::builder().method(method).uri(path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let mut request = request.body(Body::empty()).unwrap();
            request.extensions_mut().insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 4711)));
            let (parts, body) = self.app.clone().oneshot(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            (parts.status, parts.headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
        }

        async fn status(&self, peer: &str) -> u16 {
            self.ask("GET", "/api/v1/thing", peer, &[]).await.0.as_u16()
        }

        fn metric(&self, line: &str) -> bool {
            self.state.telemetry().render().unwrap().lines().any(|found| found == line)
        }
    }

    fn limit(name: &str, requests: u32, keys: &Value) -> Value {
        json!({"name": name, "rates": [{"requests": requests, "periodSeconds": 60}], "keys": keys})
    }

    fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
        headers[name].to_str().unwrap()
    }

    #[tokio::test]
    async fn what_is_built_in_counts_addresses_and_says_what_is_left() {
        let server = Server::new(&Value::Null);
        let (status, headers, _) = server.ask("GET", "/api/v1/thing", "192.0.2.1", &[]).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(text(&headers, "ratelimit-policy"), r#""per-address";q=2;w=60"#);
        assert_eq!(text(&headers, "ratelimit"), r#""per-address";r=1;t=30"#);
        assert_eq!(server.status("192.0.2.1").await, 200);

        let (status, headers, body) = server.ask("GET", "/api/v1/thing", "192.0.2.1", &[]).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(text(&headers, "retry-after"), "30");
        assert_eq!(text(&headers, "ratelimit"), r#""per-address";r=0;t=30"#);
        assert_eq!(text(&headers, "content-type"), "application/problem+json");
        assert_eq!(body["type"], "https://finaiflow.io/problems/quota-exceeded");
        assert_eq!(body["violated-policies"], json!(["per-address"]));
        assert_eq!(server.status("192.0.2.2").await, 200, "another address");
    }

    #[tokio::test]
    async fn probes_are_never_refused() {
        let server = Server::new(&json!({"denyCIDRs": ["0.0.0.0/0"], "limits": [limit("all", 1, &json!([]))]}));
        for _ in 0..5 {
            let (status, headers, _) = server.ask("GET", "/livez", "192.0.2.1", &[]).await;
            assert_eq!(status, StatusCode::OK);
            assert!(!headers.contains_key("ratelimit"));
        }
    }

    #[tokio::test]
    async fn what_a_client_claims_to_have_come_through_makes_no_new_count() {
        let server = Server::new(&json!({"limits": [limit("address", 1, &json!([{"type": "ClientIP"}]))]}));
        let ask = async |peer: &str, forwarded: &str| {
            server.ask("GET", "/api/v1/thing", peer, &[("x-forwarded-for", forwarded)]).await.0.as_u16()
        };
        assert_eq!(ask("192.0.2.1", "198.51.100.1").await, 200);
        for host in 2..50 {
            assert_eq!(ask("192.0.2.1", &format!("198.51.100.{host}")).await, 429);
        }
        assert_eq!(ask("10.0.0.1", "6.6.6.6, 198.51.100.7").await, 200, "the proxy's word counts");
        assert_eq!(ask("10.0.0.1", "7.7.7.7, 198.51.100.7").await, 429);
        // One customer of IPv6 has a whole /64.
        assert_eq!(ask("10.0.0.1", "2a00:1:2:3::1").await, 200);
        assert_eq!(ask("10.0.0.1", "2a00:1:2:3:ffff::1").await, 429);
        assert_eq!(ask("10.0.0.1", "2a00:1:2:4::1").await, 200);
    }

    #[tokio::test]
    async fn networks_are_denied_unless_the_policy_allows_them_more_precisely() {
        let spec = json!({
            "denyCIDRs": ["192.0.2.0/24", "2001:db8::/32"], "allowCIDRs": ["192.0.2.128/25", "203.0.113.7/32"],
            "limits": [limit("all", 1, &json!([]))],
        });
        let server = Server::new(&spec);
        let (status, _, body) = server.ask("GET", "/api/v1/thing", "192.0.2.1", &[]).await;
        assert_eq!((status, &body["type"]), (StatusCode::FORBIDDEN, &json!("https://finaiflow.io/problems/ip-denied")));
        assert_eq!(server.status("2001:db8::1").await, 403);
        assert_eq!(server.status("::ffff:192.0.2.1").await, 403, "the same address in other clothes");
        for _ in 0..3 {
            assert_eq!(server.status("192.0.2.129").await, 200);
            assert_eq!(server.status("203.0.113.7").await, 200, "no limit counts it");
        }
        assert_eq!((server.status("198.51.100.1").await, server.status("198.51.100.1").await), (200, 429));
        let denied = format!(
            r#"finaiflow_ratelimit_decisions_total{{decision="denied",limit="denyCIDRs",policy="{HOME}/all"}} 3"#
        );
        assert!(server.metric(&denied));
    }

    #[tokio::test]
    async fn a_refused_request_consumes_nothing_elsewhere() {
        let spec =
            json!({"limits": [limit("wide", 10, &json!([])), limit("narrow", 1, &json!([{"type": "ClientIP"}]))]});
        let server = Server::new(&spec);
        assert_eq!(server.status("192.0.2.1").await, 200);
        for _ in 0..20 {
            assert_eq!(server.status("192.0.2.1").await, 429);
        }
        let (_, headers, _) = server.ask("GET", "/api/v1/thing", "192.0.2.2", &[]).await;
        assert!(text(&headers, "ratelimit").starts_with(r#""wide";r=8;"#), "{headers:?}");
    }

    #[tokio::test]
    async fn a_shadow_refuses_nothing_and_is_not_shown() {
        let mut shadow = limit("trial", 1, &json!([]));
        shadow["mode"] = json!("Shadow");
        let server = Server::new(&json!({"limits": [shadow]}));
        for _ in 0..4 {
            let (status, headers, _) = server.ask("GET", "/api/v1/thing", "192.0.2.1", &[]).await;
            assert_eq!(status, StatusCode::OK);
            assert!(!headers.contains_key("ratelimit") && !headers.contains_key("ratelimit-policy"));
        }
        let line = |decision, count| {
            format!(
                r#"finaiflow_ratelimit_decisions_total{{decision="{decision}",limit="trial",policy="{HOME}/all"}} {count}"#
            )
        };
        assert!(server.metric(&line("allowed", 1)) && server.metric(&line("shadow_limited", 3)));
    }

    #[tokio::test]
    async fn limits_count_what_they_match_by_what_they_say() {
        let spec = json!({"limits": [
            {"name": "writes", "rates": [{"requests": 1, "periodSeconds": 60}], "match": {"methods": ["POST"], "paths": [{"value": "/api/v1"}]}},
            {"name": "device", "rates": [{"requests": 2, "periodSeconds": 60}], "keys": [{"type": "Header", "name": "x-device"}], "match": {"methods": ["GET"]}},
        ]});
        let server = Server::new(&spec);
        let ask = async |method: &str, device: &str| {
            server.ask(method, "/api/v1/thing", "192.0.2.1", &[("x-device", device)]).await.0.as_u16()
        };
        assert_eq!((ask("POST", "a").await, ask("POST", "b").await), (200, 429));
        assert_eq!((ask("GET", "a").await, ask("GET", "a").await, ask("GET", "a").await), (200, 200, 429));
        assert_eq!(ask("GET", "b").await, 200);
    }

    #[tokio::test]
    async fn several_rates_have_names_of_their_own_and_legacy_headers_tell_the_tightest() {
        let mut spec = json!({"limits": [{"name": "all", "rates": [{"requests": 5, "periodSeconds": 1}, {"requests": 100, "periodSeconds": 3600, "burst": 3}]}]});
        let (_, headers, _) = Server::new(&spec).ask("GET", "/api/v1/thing", "192.0.2.1", &[]).await;
        assert_eq!(text(&headers, "ratelimit-policy"), r#""all-1";q=5;w=1, "all-2";q=100;w=3600"#);
        assert_eq!(text(&headers, "ratelimit"), r#""all-1";r=4;t=1, "all-2";r=2;t=36"#);
        spec["responseHeaders"] = json!("Legacy");
        let (_, headers, _) = Server::new(&spec).ask("GET", "/api/v1/thing", "192.0.2.1", &[]).await;
        let legacy =
            ["limit", "remaining", "reset"].map(|name| text(&headers, &format!("x-ratelimit-{name}")).to_owned());
        assert_eq!(legacy, ["100", "2", "36"]);
        assert!(!headers.contains_key("ratelimit"));
        spec["responseHeaders"] = json!("None");
        let (_, headers, _) = Server::new(&spec).ask("GET", "/api/v1/thing", "192.0.2.1", &[]).await;
        assert!(headers.keys().all(|name| !name.as_str().contains("ratelimit")));
    }

    #[tokio::test]
    async fn only_so_many_requests_are_under_way_at_a_time() {
        let server = Server::with(&json!({"maxInFlight": 2}), |settings| settings.requests = 1_000_000);
        let slow = || {
            let app = server.app.clone();
            tokio::spawn(async move {
                let mut request = Request::get("/api/v1/slow").body(Body::empty()).unwrap();
                request.extensions_mut().insert(ConnectInfo(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1)));
                app.oneshot(request).await
            })
        };
        let tasks = [slow(), slow()];
        while server.status("192.0.2.1").await != 429 {
            tokio::task::yield_now().await;
        }
        let (_, headers, body) = server.ask("GET", "/api/v1/thing", "192.0.2.1", &[]).await;
        assert_eq!((&body["violated-policies"], text(&headers, "retry-after")), (&json!(["maxInFlight"]), "1"));
        tasks[0].abort();
        while server.status("192.0.2.8").await != 200 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_full_replica_sheds_reading_before_money() {
        let server = Server::with(&json!({"maxInFlight": 100}), |settings| settings.max_in_flight = 1);
        let held: Vec<_> = std::iter::from_fn(|| server.state.guard().enter(true)).collect();
        assert_eq!(held.len(), 1);
        assert_eq!(server.status("192.0.2.1").await, 503);
        let server = Server::with(&json!({"maxInFlight": 100}), |settings| settings.max_in_flight = 10);
        let held: Vec<_> = std::iter::from_fn(|| server.state.guard().enter(true)).collect();
        assert_eq!(held.len(), 8);
        assert_eq!(server.status("192.0.2.1").await, 503);
        let posted = server.ask("POST", "/api/v1/thing", "192.0.2.1", &[]).await;
        assert_eq!(posted.0, StatusCode::OK);
        drop(held);
        assert_eq!(server.status("192.0.2.1").await, 200);
    }

    #[tokio::test]
    async fn the_switch_turns_limits_off_but_not_denied_networks() {
        let spec = json!({"denyCIDRs": ["192.0.2.0/24"], "limits": [limit("all", 1, &json!([]))]});
        let server = Server::with(&spec, |settings| settings.enabled = false);
        for _ in 0..3 {
            assert_eq!(server.status("198.51.100.1").await, 200);
        }
        assert_eq!(server.status("192.0.2.1").await, 403);
        assert!(server.metric("finaiflow_ratelimit_enabled 0"));
    }

    #[tokio::test]
    async fn a_new_set_is_in_force_with_the_next_request_and_what_was_taken_stays_taken() {
        let server = Server::new(&json!({"limits": [limit("all", 10, &json!([]))]}));
        for _ in 0..4 {
            assert_eq!(server.status("192.0.2.1").await, 200);
        }
        server.state.guard().replace([policy(&json!({"limits": [limit("all", 5, &json!([]))]}))]);
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(server.status("192.0.2.1").await);
        }
        assert_eq!(statuses, [200, 200, 200, 429], "4 of 10 take 24 s to come back, which are 2 of 5");
        server.state.guard().replace([]);
        assert_eq!(server.status("192.0.2.77").await, 200, "only what is built in counts");
    }

    #[tokio::test]
    async fn refusals_can_be_looked_up() {
        let server = Server::new(&json!({"limits": [limit("all", 1, &json!([]))]}));
        for id in ["first", "second"] {
            server.ask("GET", "/api/v1/thing", "192.0.2.1", &[("x-request-id", id)]).await;
        }
        let found = server.state.guard().recall(|refused| refused.request_id == "second");
        assert_eq!(
            (found.len(), found[0].policy.as_str(), found[0].limit.as_str()),
            (1, "finaiflow-system/all", "all")
        );
        assert!(server.state.guard().recall(|refused| refused.request_id == "first").is_empty());
    }
}
