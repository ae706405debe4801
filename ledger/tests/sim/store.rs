//! The model behind the engine's own traits, with a network and a server that misbehave as the dice say.
//!
//! What a client sends is carried out by the server whether or not the client still listens: a write lives in a task
//! of its own, so it may land long after whoever sent it has given up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use finaiflow_ledger::command::{AccountKind, Command, Hold};
use finaiflow_ledger::id::{AccountId, JournalId, Sequence};
use finaiflow_ledger::money::Currency;
use finaiflow_ledger::rules::{AccountState, Decision, Head, Original, Remembered};
use finaiflow_ledger::store::{Result, Session, Store, StoreError};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use uuid::Uuid;

use crate::auditor::Auditor;
use crate::dice::Dice;
use crate::lies::Lie;
use crate::model::Tables;

/// Everything the tasks of one simulation share. One thread runs them, so the lock is never waited for.
pub struct World {
    pub tables: Tables,
    pub auditor: Auditor,
    pub dice: Dice,
    /// How many in a hundred messages meet trouble.
    pub trouble: usize,
    pub lie: Lie,
    /// What happened how often.
    pub seen: BTreeMap<String, u64>,
    /// The first thing that was wrong.
    pub violation: Option<String>,
    /// What was last asked under a key.
    pub asked: BTreeMap<(Uuid, String), [u8; 32]>,
    /// What happened, if anybody wants to know.
    pub trace: Option<Vec<String>>,
    pub restores: u32,
    pub began: Instant,
    /// The versions of accounts as they were a few commits ago, for a lie about reads.
    pub stale: BTreeMap<Sequence, i64>,
}

#[derive(Clone)]
pub struct Server {
    world: Arc<Mutex<World>>,
    /// The row lock on the head; those who wait are served in order.
    head: Arc<tokio::sync::Mutex<()>>,
}

impl Server {
    pub fn new(world: World) -> Self {
        Self { world: Arc::new(Mutex::new(world)), head: Arc::default() }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn trace(&self, what: impl FnOnce() -> String) {
        let mut world = self.world();
        let World { trace, began, .. } = &mut *world;
        if let Some(trace) = trace {
            let line = format!("{:>10} ms  {}", began.elapsed().as_millis(), what());
            trace.push(line);
        }
    }

    pub fn violated(&self, what: String) {
        self.trace(|| format!("VIOLATION: {what}"));
        self.world().violation.get_or_insert(what);
    }

    /// A batch as the server carries it out, under the lock on the head.
    fn carry_out(&self, from: Head, decision: &Decision) -> Result<()> {
        let mut guard = self.world();
        let world = &mut *guard;
        let behind = world.tables.head;
        let added = match world.tables.apply(from, decision, world.lie) {
            Ok(added) => added,
            Err(error) => {
                let cause = match &error {
                    StoreError::Fenced => "fenced",
                    StoreError::KeyTaken => "key taken",
                    _ => "refused",
                };
                world.count(cause);
                return Err(error);
            }
        };
        world.count("committed");
        for booked in &added {
            world.count(booked.journal.kind.as_str());
        }
        let mut audited = world.auditor.batch(&world.tables, &added, decision.time);
        if world.lie == Lie::Truthful {
            audited = audited.and_then(|()| world.tables.agree(&decision.state));
        }
        if world.dice.chance(20) {
            world.stale = world.tables.accounts.iter().map(|(id, (_, account))| (*id, account.version)).collect();
        }
        if world.lie == Lie::SequenceReused && !added.is_empty() && world.dice.chance(10) {
            world.tables.head.sequence = behind.sequence;
        }
        drop(guard);
        self.trace(|| format!("committed {} journals from {}", added.len(), from.sequence));
        if let Err(wrong) = audited {
            self.violated(wrong);
        }
        Ok(())
    }
}

impl World {
    pub fn count(&mut self, what: &str) {
        match self.seen.get_mut(what) {
            Some(count) => *count += 1,
            None => drop(self.seen.insert(what.to_owned(), 1)),
        }
    }
}

/// The way from one engine to the server. It is cut for good when the engine's process dies.
#[derive(Clone)]
pub struct Replica {
    server: Server,
    dead: Arc<AtomicBool>,
}

impl Replica {
    pub fn new(server: &Server) -> Self {
        Self { server: server.clone(), dead: Arc::default() }
    }

    pub fn die(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// The time a message takes, and what becomes of it on the way.
    async fn travel(&self) -> Result<()> {
        if self.dead.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        let (milliseconds, trouble) = self.server.world().fate();
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        match trouble {
            Some("connection refused") => Err(StoreError::Unavailable),
            Some(trouble @ "connection broken") => Err(StoreError::Interrupted(trouble.to_owned())),
            _ => Ok(()),
        }
    }
}

impl World {
    /// The version of an account, as somebody who reads it is told.
    pub fn version(&self, id: Sequence) -> Option<i64> {
        if self.lie == Lie::StaleReads {
            return self.stale.get(&id).copied();
        }
        self.tables.accounts.get(&id).map(|(_, account)| account.version)
    }

    /// How long a message takes, and what is the matter with it.
    fn fate(&mut self) -> (u64, Option<&'static str>) {
        if !self.dice.chance(self.trouble) {
            return (self.dice.below(4), None);
        }
        let (milliseconds, trouble) = match self.dice.roll(8) {
            0..=2 => (20 + self.dice.below(400), "slow"),
            3 => (10_500 + self.dice.below(5_000), "stalled past the deadline"),
            4 | 5 => (self.dice.below(50), "connection refused"),
            _ => (self.dice.below(50), "connection broken"),
        };
        self.count(trouble);
        (milliseconds, Some(trouble))
    }

    /// What becomes of a write: how long it takes to get there, and how long its answer takes to get back, if it does.
    fn fate_of_write(&mut self) -> (Option<u64>, Option<u64>) {
        let (there, back) = (self.dice.below(3), self.dice.below(3));
        if !self.dice.chance(self.trouble) {
            return (Some(there), Some(back));
        }
        let (fate, name) = match self.dice.roll(6) {
            0 => ((None, None), "lost before commit"),
            1 | 2 => ((Some(there), None), "reply lost after commit"),
            3 => ((Some(30 + self.dice.below(3_000)), None), "landed late"),
            4 => ((Some(there), Some(10_500 + self.dice.below(2_000))), "answered past the deadline"),
            _ => ((Some(9_000 + self.dice.below(9_000)), Some(back)), "landed past the deadline"),
        };
        self.count(name);
        fate
    }
}

impl Store for Replica {
    type Session = Link;

    async fn open(&self) -> Result<Link> {
        self.travel().await?;
        Ok(Link { replica: self.clone(), held: None })
    }

    fn can_spare_one(&self) -> bool {
        true
    }
}

/// A session. The head it holds is free again when the server has seen the end of it.
pub struct Link {
    replica: Replica,
    held: Option<OwnedMutexGuard<()>>,
}

impl Link {
    async fn read<T>(&self, read: impl FnOnce(&Tables) -> Result<T> + Send) -> Result<T> {
        self.replica.travel().await?;
        let world = self.replica.server.world();
        read(&world.tables)
    }
}

impl Session for Link {
    async fn head(&mut self) -> Result<Head> {
        self.read(|tables| Ok(tables.head)).await
    }

    async fn lock(&mut self) -> Result<Head> {
        self.replica.travel().await?;
        self.held = Some(Arc::clone(&self.replica.server.head).lock_owned().await);
        Ok(self.replica.server.world().tables.head)
    }

    async fn accounts(&mut self, ids: &[Sequence], currencies: &[Currency]) -> Result<Vec<(AccountId, AccountState)>> {
        let wanted = |id: &Sequence, account: &AccountState| {
            let settles = account.kind == AccountKind::Settlement && currencies.contains(&account.currency);
            settles || ids.contains(id)
        };
        let rows = |tables: &Tables| {
            let rows = tables.accounts.iter().filter(|(id, (_, account))| wanted(id, account));
            Ok(rows.map(|(_, row)| row.clone()).collect())
        };
        self.read(rows).await
    }

    async fn holds(&mut self, ids: &[Sequence]) -> Result<Vec<Hold>> {
        self.read(|tables| Ok(ids.iter().filter_map(|id| tables.holds.get(id).cloned()).collect())).await
    }

    async fn originals(&mut self, ids: &[Sequence]) -> Result<Vec<(JournalId, Original)>> {
        self.read(|tables| Ok(ids.iter().filter_map(|id| tables.original(*id)).collect())).await
    }

    async fn answers(&mut self, keys: &[(Uuid, &str)]) -> Result<Vec<((Uuid, String), Remembered)>> {
        self.replica.travel().await?;
        let world = self.replica.server.world();
        let mut known = Vec::new();
        for (principal, key) in keys {
            let key = (*principal, (*key).to_owned());
            if let Some(mut remembered) = world.tables.remembered(&key)? {
                if world.lie == Lie::FingerprintSkipped {
                    remembered.fingerprint = world.asked[&key];
                }
                known.push((key, remembered));
            }
        }
        Ok(known)
    }

    async fn release(&mut self) -> Result<()> {
        self.held = None;
        Ok(())
    }

    async fn write(&mut self, from: Head, _: &[Command], decision: &Decision) -> Result<()> {
        if self.replica.dead.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        let server = self.replica.server.clone();
        let ((there, back), lie) = {
            let mut world = server.world();
            (world.fate_of_write(), world.lie)
        };
        let broken = || StoreError::Interrupted("no answer to a write".to_owned());
        let Some(there) = there else { return Err(broken()) };
        if lie == Lie::Lost && server.world().dice.chance(10) {
            return Ok(());
        }
        let (held, decision) = (self.held.take(), decision.clone());
        let carried_out = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(there)).await;
            let _held = match held {
                Some(held) => held,
                None => Arc::clone(&server.head).lock_owned().await,
            };
            server.carry_out(from, &decision)
        });
        if lie == Lie::AnsweredEarly {
            return Ok(());
        }
        let Some(back) = back else { return Err(broken()) };
        let result = carried_out.await.map_err(|_| broken())?;
        tokio::time::sleep(Duration::from_millis(back)).await;
        // A process that died in the meantime hears nothing.
        if self.replica.dead.load(Ordering::Relaxed) { std::future::pending().await } else { result }
    }
}
