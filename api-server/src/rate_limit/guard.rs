//! What decides about requests, shared by all of them.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::http::HeaderMap;
use finaiflow_crds::RateLimitPolicy;
use finaiflow_crds::rate_limit_policy::{Mode, RouteGroup};
use prometheus::Registry;
use serde::Serialize;

use super::client_ip::TrustedProxies;
use super::metrics::{Decision, Metrics, store_timer};
use super::rules::{Facts, Maker, PolicySet, Rule, Rules, UnderWay};
use super::{Ask, InvalidRate, InvalidUrl, Limiter, Micros, Outcome, Row, Share, Store, Verdict};
use crate::clock::Clock;
use crate::tenant::Tenant;

/// Keys that are counted in memory; each takes about 100 bytes.
const KEYS: usize = 131_072;
/// Refusals that can be looked up afterwards.
const REMEMBERED: usize = 1_000;
/// Of the requests that may be under way at a time, the part in percent that reading may take up: money goes first.
const READS_PERCENT: u32 = 80;

/// What the platform team says about requests.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether limits refuse anything.
    pub enabled: bool,
    /// What each user, and each address without one, may ask for in a window where no policy says otherwise.
    pub requests: u64,
    /// Length of that window.
    pub window_seconds: u64,
    /// Networks of the proxies in front.
    pub trusted_proxies: TrustedProxies,
    /// Most requests under way at a time on this replica.
    pub max_in_flight: u32,
    /// Namespace of the API server: only its policies may be for the whole API server.
    pub home: String,
}

/// Decides about requests.
#[derive(Debug)]
pub struct Guard {
    enabled: bool,
    proxies: TrustedProxies,
    limiter: Limiter,
    maker: Maker,
    set: RwLock<Arc<PolicySet>>,
    loaded: AtomicBool,
    under_way: Arc<AtomicU32>,
    max_under_way: u32,
    refused: Mutex<VecDeque<Refused>>,
    metrics: Metrics,
}

/// A request that was refused.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Refused {
    pub request_id: String,
    pub at: String,
    pub tenant: String,
    pub method: String,
    pub route: String,
    pub client_ip: Option<IpAddr>,
    /// `<namespace>/<name>` of the policy, or `built-in`.
    pub policy: String,
    /// The limit, or the field of the policy, that refused it.
    pub limit: String,
    pub status: u16,
}

/// What one rule says about a request.
#[derive(Debug, Clone)]
pub(super) struct Ruled {
    pub rule: Arc<Rule>,
    /// One for each rate.
    pub rows: Vec<Row>,
}

impl Ruled {
    pub(super) fn refused(&self) -> bool {
        self.rows.iter().any(|row| row.outcome == Outcome::Refused)
    }

    pub(super) fn unavailable(&self) -> bool {
        self.rows.iter().any(|row| row.outcome == Outcome::Unavailable)
    }
}

impl Guard {
    /// Registers its metrics. Until policies are known, only what is built in counts.
    pub fn new(settings: Settings, limiter: Limiter, registry: &Registry) -> Result<Self, GuardError> {
        let built_in = Rule::built_in(settings.requests, settings.window_seconds)?;
        let metrics = Metrics::register(registry)?;
        metrics.enabled(settings.enabled);
        if !settings.enabled {
            tracing::warn!("rate limits are switched off: no request is refused by one");
        }
        Ok(Self {
            enabled: settings.enabled,
            proxies: settings.trusted_proxies,
            limiter,
            maker: Maker { home: settings.home, built_in, in_flight: Mutex::default() },
            set: RwLock::default(),
            loaded: AtomicBool::new(false),
            under_way: Arc::default(),
            max_under_way: settings.max_in_flight,
            refused: Mutex::default(),
            metrics,
        })
    }

    /// One that counts nothing, for a server without a cluster.
    pub fn off(registry: &Registry) -> Result<Self, GuardError> {
        let settings = Settings {
            enabled: false,
            requests: 1,
            window_seconds: 1,
            trusted_proxies: TrustedProxies::default(),
            max_in_flight: u32::MAX,
            home: String::new(),
        };
        Self::new(settings, Limiter::in_memory(1), registry)
    }

    /// Enforces these policies from now on, and no others. A request under way goes on with those it began with.
    pub fn replace(&self, policies: impl IntoIterator<Item = Arc<RateLimitPolicy>>) {
        let set = Arc::new(PolicySet::new(policies));
        tracing::info!(digest = set.digest, "rate limit policies in force");
        *self.set.write().unwrap_or_else(PoisonError::into_inner) = set;
        self.loaded.store(true, Ordering::Release);
    }

    /// The digest of the policies in force; nothing before they are known.
    pub(crate) fn digest(&self) -> Option<String> {
        self.ready().then(|| self.set().digest.clone())
    }

    /// Whether the policies of the cluster are known.
    pub(crate) fn ready(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// This replica's part of what is counted in memory.
    pub(crate) fn share(&self, share: Share) {
        self.limiter.set_share(share);
    }

    /// Brings sizes and counters of the engine into the metrics.
    pub(crate) fn measure(&self) {
        self.metrics.engine(&self.limiter.stats(), self.under_way.load(Ordering::Relaxed));
    }

    /// Address of the client, from that of the peer and what trusted proxies say.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        self.proxies.client(peer, headers)
    }

    pub(super) fn enabled(&self) -> bool {
        self.enabled
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn maker(&self) -> &Maker {
        &self.maker
    }

    /// The set of policies in force now.
    pub(super) fn set(&self) -> Arc<PolicySet> {
        Arc::clone(&self.set.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn rules(&self, tenant: Option<&Tenant>, group: RouteGroup) -> Arc<Rules> {
        self.set().rules(&self.maker, tenant, group)
    }

    /// A place among the requests under way. Those that only read get none when few are left.
    pub(super) fn enter(&self, reads: bool) -> Option<UnderWay> {
        let part =
            if reads { self.max_under_way.saturating_mul(READS_PERCENT).div_ceil(100) } else { self.max_under_way };
        UnderWay::enter(&self.under_way, part)
    }

    /// What the rules say without counting the request.
    pub(super) fn peek(&self, rules: &[Arc<Rule>], facts: &Facts<'_>, now: Micros) -> Vec<Ruled> {
        let keys = Keys::of(rules, facts);
        split(rules, self.limiter.peek(&keys.asks(rules), now))
    }

    /// Counts the request under all rules, or under none if one refuses it.
    pub(super) async fn take(&self, rules: &[Arc<Rule>], facts: &Facts<'_>, now: Micros) -> Vec<Ruled> {
        let keys = Keys::of(rules, facts);
        split(rules, self.limiter.take(&keys.asks(rules), now).await)
    }

    /// Counts the request under a rule that refuses nothing.
    pub(super) async fn shadow(&self, rule: &Arc<Rule>, facts: &Facts<'_>, now: Micros) {
        let ruled = self.take(std::slice::from_ref(rule), facts, now).await;
        let refused = ruled.iter().any(Ruled::refused);
        let decision = if refused { Decision::ShadowLimited } else { Decision::Allowed };
        self.metrics.decided(&rule.policy, &rule.name, decision);
    }

    pub(super) fn remember(&self, refused: Refused) {
        let mut all = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == REMEMBERED {
            all.pop_front();
        }
        all.push_back(refused);
    }

    /// The newest refusals first.
    pub(super) fn recall(&self, fits: impl Fn(&Refused) -> bool) -> Vec<Refused> {
        let all = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().rev().filter(|refused| fits(refused)).cloned().collect()
    }
}

/// An engine that counts in this replica's memory, and in the Redis of `url`, if given, together with the others.
pub fn limiter(url: Option<&str>, clock: Clock, registry: &Registry) -> Result<Limiter, GuardError> {
    let Some(url) = url else { return Ok(Limiter::in_memory(KEYS)) };
    let store = Store::connect(url, clock)?;
    store.on_call(store_timer(registry)?);
    Ok(Limiter::with_store(KEYS, store))
}

/// Why there is no guard.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The URL of the store.
    #[error("REDIS_URL: {0}")]
    Store(#[from] InvalidUrl),
    /// The built-in rate.
    #[error("RATE_LIMIT_REQUESTS and RATE_LIMIT_WINDOW: {0}")]
    Rate(#[from] InvalidRate),
    /// A metric is registered already.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The rules that count a request, and those that only watch it.
pub(super) fn choose(rules: &Rules, facts: &Facts<'_>) -> (Vec<Arc<Rule>>, Vec<Arc<Rule>>) {
    let applying = rules.limits.iter().filter(|rule| rule.skips(facts).is_none()).cloned();
    applying.partition(|rule| rule.mode == Mode::Enforce)
}

/// The keys of one request's asks, one after the other.
struct Keys {
    bytes: Vec<u8>,
    /// Ends of the key and of the coarse key, for each rate of each rule.
    ends: Vec<(usize, usize)>,
}

impl Keys {
    fn of(rules: &[Arc<Rule>], facts: &Facts<'_>) -> Self {
        let mut keys = Self { bytes: Vec::with_capacity(256), ends: Vec::with_capacity(rules.len()) };
        for rule in rules {
            for (_, identity) in &rule.rates {
                keys.bytes.extend(identity);
                rule.write_key(facts, false, &mut keys.bytes);
                let fine = keys.bytes.len();
                keys.bytes.extend(identity);
                rule.write_key(facts, true, &mut keys.bytes);
                keys.ends.push((fine, keys.bytes.len()));
            }
        }
        keys
    }

    fn asks<'a>(&'a self, rules: &'a [Arc<Rule>]) -> Vec<Ask<'a>> {
        let rates = rules.iter().flat_map(|rule| rule.rates.iter().map(move |(rate, _)| (rule, rate)));
        let mut start = 0;
        let ask = |((rule, rate), (fine, end)): ((&'a Arc<Rule>, &'a super::Rate), &(usize, usize))| {
            let from = std::mem::replace(&mut start, *end);
            Ask {
                rate,
                key: &self.bytes[from..*fine],
                coarse: &self.bytes[*fine..*end],
                cost: rule.cost,
                tag: &rule.scope,
                failure_mode: rule.failure_mode,
            }
        };
        rates.zip(&self.ends).map(ask).collect()
    }
}

/// Gives each rule its rows.
fn split(rules: &[Arc<Rule>], verdict: Verdict) -> Vec<Ruled> {
    let mut rows = verdict.rows.into_iter();
    let give =
        |rule: &Arc<Rule>| Ruled { rule: Arc::clone(rule), rows: rows.by_ref().take(rule.rates.len()).collect() };
    rules.iter().map(give).collect()
}
