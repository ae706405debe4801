//! Replicas that are processes and share a real Redis: one bucket wherever requests arrive, and what a policy says holds
//! while Redis is away.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::fleet::{Fleet, Process, Request, get};
use crate::policies::{Tally, flood, limit};
use crate::redis::Redis;
use crate::tenants_bank::Bank;

/// Requests a second that the policy admits; as many may come at once.
const RATE: f64 = 60.0;
/// Longer than Redis may stay lost, or a replica may take to find it again.
const FOREVER: Duration = Duration::from_mins(2);

struct Scene {
    bank: Bank,
    redis: Redis,
    replicas: [Process; 3],
    fleet: Fleet,
}

impl Scene {
    async fn new() -> Self {
        let (bank, redis) = (Bank::ready().await, Redis::start());
        let mut fleet = Fleet::limited(&bank);
        fleet.settings.push(("REDIS_URL", redis.url()));
        let replicas = tokio::join!(fleet.add(), fleet.add(), fleet.add()).into();
        Self { bank, redis, replicas, fleet }
    }

    /// With another limit by another name: nothing was taken from it.
    async fn declare(&self, name: &str, requests: u64, burst: u64, failure_mode: &str) {
        let mut limit = limit(name, requests, 1, &[]);
        limit["rates"][0]["burst"] = json!(burst);
        self.bank.declare("policy", &json!({"limits": [limit], "failureMode": failure_mode})).await;
        self.bank.enforced_by(&self.replicas.each_ref()).await;
    }

    fn info(&self) -> Request {
        get("/api/v1/info").to(&self.bank.name)
    }

    /// So many requests a second to each replica.
    async fn flood(&self, rates: [f64; 3], seconds: u64) -> Tally {
        let ports = self.replicas.each_ref().map(|replica| replica.port);
        let rates: Vec<_> = ports.into_iter().zip(rates).collect();
        flood(&self.info(), &rates, Duration::from_secs(seconds)).await
    }

    /// A flood against a limit of 100 a second during which Redis answered in time: where a busy machine holds up a call,
    /// its replica grants its part alone for a moment.
    async fn undisturbed(&self, name: &str, burst: u64, rates: [f64; 3]) -> Tally {
        for attempt in 0..10 {
            self.until_shared(true).await;
            self.declare(&format!("{name}-{attempt}"), 100, burst, "LocalFallback").await;
            let before = self.late_calls().await;
            let tally = self.flood(rates, 10).await;
            if (self.late_calls().await - before).abs() < 0.5 {
                return tally;
            }
        }
        panic!("Redis is always late");
    }

    async fn late_calls(&self) -> f64 {
        let mut late = 0.0;
        for replica in &self.replicas {
            late += replica.metric("finaiflow_ratelimit_store_errors_total", &[]).await;
        }
        late
    }

    /// Sends requests until every replica counts in Redis, or none does. Returns how many were admitted.
    async fn until_shared(&self, shared: bool) -> u32 {
        let (deadline, mut admitted) = (Instant::now() + FOREVER, 0);
        loop {
            let mut agree = true;
            for replica in &self.replicas {
                admitted += u32::from(replica.ask(&self.info()).await.status == 200);
                let up = replica.metric("finaiflow_ratelimit_store_up", &[]).await > 0.5;
                agree &= up == shared;
            }
            if agree {
                return admitted;
            }
            assert!(Instant::now() < deadline, "Redis is {}", if shared { "not found" } else { "not missed" });
        }
    }

    async fn end(self) {
        drop((self.replicas, self.fleet, self.redis));
        self.bank.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_replicas_are_one_wherever_requests_arrive() {
    let scene = Scene::new().await;
    for (name, rates) in [("even", [334.0; 3]), ("one", [980.0, 10.0, 10.0])] {
        let tally = scene.undisturbed(name, 100, rates).await;
        let part = tally.part_of(100.0, 100.0);
        println!("{name}: {part:.4} of the bound ({tally:?})");
        assert!((0.98..=1.0).contains(&part), "{part}");
    }
    // Less than the rate is all admitted, most of it by one replica. Who was held up may catch up.
    let tally = scene.undisturbed("skewed", 300, [72.0, 13.5, 4.5]).await;
    println!("80/15/5 of 90 a second: {tally:?}");
    assert_eq!(tally.of(200), tally.answers.values().sum::<u32>(), "{tally:?}");
    // A key lives for as long as something is owed under it: under load it is there at some look.
    let deadline = Instant::now() + FOREVER;
    let keys = loop {
        scene.replicas[0].ask(&scene.info()).await;
        let keys: Vec<String> = scene.redis.command(&["KEYS", "*"]);
        if !keys.is_empty() {
            break keys;
        }
        assert!(Instant::now() < deadline, "nothing is kept in Redis");
    };
    assert!(keys.iter().all(|key| !key.contains(&scene.bank.name)), "{keys:?}");
    scene.end().await;
}

/// What happens to Redis.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Killed,
    Paused,
}

impl Fault {
    fn begin(self, redis: &mut Redis) {
        match self {
            Self::Killed => redis.kill(),
            Self::Paused => redis.signal("-STOP"),
        }
    }

    fn end(self, redis: &mut Redis) {
        match self {
            Self::Killed => redis.restart(),
            Self::Paused => redis.signal("-CONT"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_the_policy_says_what_holds() {
    let mut scene = Scene::new().await;
    scene.declare("warm", 1_000_000, 1_000_000, "LocalFallback").await;
    scene.until_shared(true).await;
    for (mode, fault) in [
        ("LocalFallback", Fault::Killed),
        ("LocalFallback", Fault::Paused),
        ("Open", Fault::Killed),
        ("Open", Fault::Paused),
        ("Closed", Fault::Killed),
        ("Closed", Fault::Paused),
    ] {
        scene.declare(&format!("{mode}-{fault:?}").to_lowercase(), 60, 60, mode).await;
        let began = Instant::now();
        let before = scene.flood([100.0; 3], 2).await;
        fault.begin(&mut scene.redis);
        let mut admitted = before.of(200) + scene.until_shared(false).await;
        let during = scene.flood([100.0; 3], 3).await;
        let sent = during.answers.values().sum::<u32>();
        match mode {
            "Open" => assert_eq!(during.of(200), sent, "{fault:?}: {during:?}"),
            "Closed" => {
                assert_eq!(during.of(503), sent, "{fault:?}: {during:?}");
                let answer = scene.replicas[0].ask(&scene.info()).await;
                assert_eq!(answer.expect(503)["type"], "https://finaiflow.io/problems/overloaded");
                assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
            }
            _ => assert!(during.of(200) > 0 && during.of(429) > 0, "{fault:?}: {during:?}"),
        }
        fault.end(&mut scene.redis);
        admitted += during.of(200) + scene.until_shared(true).await;
        let (again, after) = (Instant::now(), scene.flood([100.0; 3], 3).await);
        admitted += after.of(200);
        assert!(after.of(200) > 0 && after.of(429) > 0, "{mode}, {fault:?}: {after:?}");
        let bound = |since: Instant| RATE + RATE * since.elapsed().as_secs_f64();
        println!("{mode}, {fault:?}: {before:?}, {during:?}, {after:?}; {admitted} of {:.0}", bound(began));
        if mode == "LocalFallback" {
            // What the replicas did not know of each other when Redis went is far less than a burst.
            assert!(f64::from(admitted) <= bound(began) + RATE / 3.0, "{fault:?}: {admitted} of {}", bound(began));
        }
        assert!(f64::from(after.of(200)) <= bound(again), "{mode}, {fault:?}: {after:?}");
    }

    // An empty Redis is no new burst.
    scene.declare("flushed", 60, 60, "LocalFallback").await;
    let began = Instant::now();
    let mut admitted = 0;
    for _ in 0..3 {
        admitted += scene.flood([100.0; 3], 2).await.of(200);
        scene.redis.command::<()>(&["FLUSHALL"]);
    }
    let bound = RATE + RATE * began.elapsed().as_secs_f64();
    println!("emptied: {admitted} of {bound:.0}");
    assert!((bound * 0.9..=bound + RATE / 3.0).contains(&f64::from(admitted)), "{admitted} of {bound}");
    scene.end().await;
}
