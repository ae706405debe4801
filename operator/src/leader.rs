//! Which of several operator processes works: the one that holds a Lease.
//!
//! The Lease only keeps two processes from working against each other. Correctness rests on the leadership epoch in
//! PostgreSQL, which every provisioning transaction checks: a process that stood still for longer than its Lease is
//! refused there.

use std::time::Duration;

use finaiflow_crds::names::OPERATOR;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

/// A Lease that nobody has renewed for this long is free.
const DURATION_SECONDS: i32 = 15;
const RENEW: Duration = Duration::from_secs(4);
/// A holder that could not renew for this long gives up, well before another may take the Lease.
const DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);
const REQUEST: Duration = Duration::from_secs(4);

/// A candidate for the Lease.
pub struct Election {
    leases: Api<Lease>,
    identity: String,
    now: fn() -> Timestamp,
}

/// The term of office of this process: the Lease as it was written last.
pub struct Term(Lease);

/// Why a process no longer leads.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The Lease has another holder, or is gone.
    #[error("the Lease has gone to another holder")]
    Taken,
    /// The Kubernetes API did not answer in time.
    #[error("the Lease could not be renewed for {} s", DEADLINE.as_secs())]
    Expired,
}

impl Election {
    /// The Lease is in `namespace`. `identity` is one process's own; the next process of that name, such as a restarted
    /// container, need not wait for the Lease of the one before it to expire.
    #[must_use]
    pub fn new(client: Client, namespace: &str, identity: String, now: fn() -> Timestamp) -> Self {
        Self { leases: Api::namespaced(client, namespace), identity, now }
    }

    /// Waits until this process holds the Lease.
    pub async fn win(&self) -> Term {
        let mut rival = Rival::default();
        loop {
            match timeout(REQUEST, self.take(&mut rival)).await {
                Ok(Ok(Some(lease))) => return Term(lease),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the Lease could not be taken"),
                Err(_) => tracing::warn!("the Lease could not be taken: no answer in time"),
            }
            sleep(RETRY).await;
        }
    }

    /// Renews the Lease until it is lost.
    pub async fn keep(&self, term: &mut Term) -> Lost {
        let mut renewed = Instant::now();
        let mut wait = RENEW;
        loop {
            sleep(wait).await;
            let began = Instant::now();
            wait = RETRY;
            match timeout(REQUEST, self.renew(term)).await {
                Ok(Ok(true)) => (renewed, wait) = (began, RENEW),
                Ok(Ok(false)) => return Lost::Taken,
                Ok(Err(error)) => tracing::warn!(%error, "the Lease could not be renewed"),
                Err(_) => tracing::warn!("the Lease could not be renewed: no answer in time"),
            }
            if renewed.elapsed() >= DEADLINE {
                return Lost::Expired;
            }
        }
    }

    /// Hands over: the next candidate that looks may have the Lease.
    pub async fn release(&self, term: Term) {
        let released = async {
            // Read again: a renewal may have been under way when it was called off.
            let Some(mut found) = self.leases.get_opt(OPERATOR).await? else { return Ok(()) };
            let spec = found.spec.get_or_insert_default();
            if !is_same_term(spec, &term.0) {
                return Ok(());
            }
            spec.holder_identity = None;
            self.replace(&found).await.map(|_| ())
        };
        match timeout(REQUEST, released).await {
            Ok(Ok(())) => tracing::info!("handed over"),
            Ok(Err(error)) => tracing::warn!(%error, "the Lease could not be released and will expire"),
            Err(_) => tracing::warn!("the Lease could not be released and will expire: no answer in time"),
        }
    }

    async fn take(&self, rival: &mut Rival) -> kube::Result<Option<Lease>> {
        let Some(mut found) = self.leases.get_opt(OPERATOR).await? else {
            let metadata = ObjectMeta { name: Some(OPERATOR.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(0)) };
            return met(self.leases.create(&PostParams::default(), &lease).await);
        };
        let spec = found.spec.take().unwrap_or_default();
        if !rival.lets_go(&spec, &self.identity, Instant::now()) {
            return Ok(None);
        }
        found.spec = Some(self.spec(spec.lease_transitions.unwrap_or_default().saturating_add(1)));
        self.replace(&found).await
    }

    /// False if the Lease is not this term's any more.
    async fn renew(&self, term: &mut Term) -> kube::Result<bool> {
        let mut next = term.0.clone();
        next.spec.get_or_insert_default().renew_time = self.micro_time();
        if let Some(written) = self.replace(&next).await? {
            term.0 = written;
            return Ok(true);
        }
        // Somebody has written to it; a label, perhaps.
        match self.leases.get_opt(OPERATOR).await? {
            Some(found) if found.spec.as_ref().is_some_and(|spec| is_same_term(spec, &term.0)) => {
                term.0 = found;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// None if it has changed since it was read, or is gone.
    async fn replace(&self, lease: &Lease) -> kube::Result<Option<Lease>> {
        met(self.leases.replace(OPERATOR, &PostParams::default(), lease).await)
    }

    fn spec(&self, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(DURATION_SECONDS),
            acquire_time: self.micro_time(),
            renew_time: self.micro_time(),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "the field's type")]
    fn micro_time(&self) -> Option<MicroTime> {
        Some(MicroTime((self.now)()))
    }
}

/// Whether the Lease is held as it was when it was written, whenever it was renewed.
fn is_same_term(spec: &LeaseSpec, written: &Lease) -> bool {
    let written = written.spec.as_ref();
    written.is_some_and(|written| {
        (&written.holder_identity, written.lease_transitions) == (&spec.holder_identity, spec.lease_transitions)
    })
}

/// None for a write that met another one.
fn met(result: kube::Result<Lease>) -> kube::Result<Option<Lease>> {
    match result {
        Ok(lease) => Ok(Some(lease)),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a candidate knows of the holder. The clocks of two machines differ, so that a Lease expires by the time since
/// its last change was seen here.
#[derive(Default)]
struct Rival(Option<(LeaseSpec, Instant)>);

impl Rival {
    fn lets_go(&mut self, spec: &LeaseSpec, identity: &str, now: Instant) -> bool {
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == identity {
            return true;
        }
        let since = match &self.0 {
            Some((seen, since)) if seen == spec => *since,
            _ => self.0.insert((spec.clone(), now)).1,
        };
        let seconds = spec.lease_duration_seconds.unwrap_or(DURATION_SECONDS);
        now.saturating_duration_since(since) >= Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use http_body_util::BodyExt;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    fn spec(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(DURATION_SECONDS),
            renew_time: Timestamp::from_second(renewed).ok().map(MicroTime),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_free_once_nobody_has_changed_it_for_its_duration() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut rival = Rival::default();
        // However old its times are, the holder is alive until it was seen not to renew.
        assert!(!rival.lets_go(&spec("a", 0), "b", start));
        assert!(!rival.lets_go(&spec("a", 0), "b", start + second * 14));
        assert!(!rival.lets_go(&spec("a", 1), "b", start + second * 15), "renewed");
        assert!(!rival.lets_go(&spec("a", 1), "b", start + second * 29));
        assert!(rival.lets_go(&spec("a", 1), "b", start + second * 30));
        assert!(!rival.lets_go(&spec("c", 1), "b", start + second * 31), "another was faster");
        assert!(rival.lets_go(&spec("", 1), "b", start + second * 31), "released");
        assert!(rival.lets_go(&spec("b", 1), "b", start + second * 31), "an earlier process of this name");
        assert!(rival.lets_go(&LeaseSpec::default(), "b", start + second * 31));
    }

    /// What the API server is asked, and the answers it gives one after the other.
    type Script = Arc<Mutex<(VecDeque<(u16, Value)>, Vec<(String, Value)>)>>;

    fn election(answers: Vec<(u16, Value)>) -> (Election, Script) {
        let script: Script = Arc::new(Mutex::new((answers.into(), Vec::new())));
        let shared = Arc::clone(&script);
        let api = tower::service_fn(move |request: http::Request<Body>| {
            let script = Arc::clone(&shared);
            async move {
                let method = request.method().to_string();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut script = script.lock().unwrap();
                script.1.push((method, serde_json::from_slice(&body).unwrap_or_default()));
                let (code, answer) = script.0.pop_front().unwrap();
                Ok::<_, Infallible>(
                    http::Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap(),
                )
            }
        });
        let now = || Timestamp::from_second(1_800_000_000).unwrap();
        (Election::new(Client::new(api, "system"), "system", "me".to_owned(), now), script)
    }

    fn lease(holder: &str, transitions: i32, version: &str) -> Value {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": OPERATOR, "resourceVersion": version},
            "spec": {"holderIdentity": holder, "leaseTransitions": transitions, "leaseDurationSeconds": 15}})
    }

    fn refusal(code: u16) -> (u16, Value) {
        (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": "x", "message": "x"}))
    }

    fn asked(script: &Script) -> Vec<String> {
        script.lock().unwrap().1.iter().map(|(method, _)| method.clone()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_candidate_waits_for_its_turn() {
        let mut answers = vec![refusal(404), refusal(409)];
        answers.extend((0..16).map(|_| (200, lease("other", 7, "1"))));
        answers.extend([refusal(409), (200, lease("other", 7, "1")), (200, lease("me", 8, "2"))]);
        let (election, script) = election(answers);
        let began = Instant::now();
        let term = election.win().await;
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        assert_eq!(term.0.metadata.resource_version.as_deref(), Some("2"));
        let (last, body) = script.lock().unwrap().1.last().cloned().unwrap();
        assert_eq!((last.as_str(), &body["spec"]["leaseTransitions"]), ("PUT", &json!(8)));
        assert_eq!(
            (&body["spec"]["holderIdentity"], &body["metadata"]["resourceVersion"]),
            (&json!("me"), &json!("1"))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_renews_until_another_has_the_lease() {
        let mine = |version: &str| (200, lease("me", 1, version));
        let (election, script) = election(vec![
            mine("2"),
            refusal(409), // A label was put on it.
            mine("3"),
            refusal(500),
            mine("4"),
            refusal(409),
            (200, lease("other", 2, "5")),
        ]);
        let mut term = Term(serde_json::from_value(lease("me", 1, "1")).unwrap());
        assert!(matches!(election.keep(&mut term).await, Lost::Taken));
        assert_eq!(asked(&script), ["PUT", "PUT", "GET", "PUT", "PUT", "PUT", "GET"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_gives_up_before_another_may_take_over() {
        let (election, _) = election((0..20).map(|_| refusal(500)).collect());
        let mut term = Term(serde_json::from_value(lease("me", 1, "1")).unwrap());
        let began = Instant::now();
        assert!(matches!(election.keep(&mut term).await, Lost::Expired));
        assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn only_its_own_lease_is_released() {
        let term = || Term(serde_json::from_value(lease("me", 1, "1")).unwrap());
        let (mine, script) = election(vec![(200, lease("me", 1, "2")), (200, lease("", 1, "3"))]);
        mine.release(term()).await;
        assert_eq!(asked(&script), ["GET", "PUT"]);
        assert_eq!(script.lock().unwrap().1[1].1["spec"]["holderIdentity"], Value::Null);
        let (theirs, script) = election(vec![(200, lease("me", 2, "2"))]);
        theirs.release(term()).await;
        assert_eq!(asked(&script), ["GET"], "a later process of the same name has it");
    }
}
