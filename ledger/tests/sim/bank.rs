//! One simulation: a few engines on one model store, clients that insist, and chaos.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use finaiflow_ledger::command::{AccountKind, Authority, Command, CommandKind, Outcome};
use finaiflow_ledger::engine::{Engine, SubmitError};
use finaiflow_ledger::id::Sequence;
use finaiflow_ledger::rules;
use time::OffsetDateTime;
use time::macros::datetime;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::auditor::Auditor;
use crate::dice::Dice;
use crate::history::{self, Operation};
use crate::lies::Lie;
use crate::model::Tables;
use crate::store::{Replica, Server, World};
use crate::workload::{self, Known};

/// Shortly before a month ends, so that counters of days and months begin anew in the middle.
const START: OffsetDateTime = datetime!(2026-01-31 23:59:50 UTC);

/// What came of a simulation.
pub struct Report {
    pub violation: Option<String>,
    pub seen: BTreeMap<String, u64>,
    pub trace: Vec<String>,
    /// The same for the same seed: it covers every journal and the time.
    pub witness: String,
}

/// The place of an engine, and how its clock goes.
struct Slot {
    engine: Mutex<(Engine, Replica)>,
    /// Tells those who wait for its engine that it has died.
    died: Notify,
    /// Milliseconds its clock is ahead.
    skew: Arc<Mutex<i64>>,
}

struct Bank {
    server: Server,
    slots: Vec<Slot>,
    began: Instant,
    notes: Mutex<Notes>,
}

/// What clients remember.
#[derive(Default)]
struct Notes {
    known: Known,
    commands: Vec<Command>,
    fingerprints: BTreeMap<(Uuid, String), BTreeSet<[u8; 32]>>,
    answered: BTreeMap<(Uuid, String), ([u8; 32], Outcome)>,
    /// By the name of a command: first asked, first answered.
    times: BTreeMap<String, (u64, Option<u64>)>,
    reads: Vec<Operation>,
    /// The ledger and its auditor as they once were.
    backup: Option<(Tables, Auditor)>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one simulation on this thread.
pub fn simulate(seed: u64, lie: Lie, traced: bool) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let bank = Arc::new(Bank::found(seed, lie, traced));
        bank.live(seed).await;
        bank.end().await;
        let mut world = bank.server.world();
        let head = world.tables.head;
        Report {
            violation: world.violation.take(),
            seen: std::mem::take(&mut world.seen),
            trace: world.trace.take().unwrap_or_default(),
            witness: format!("{head:?} after {:?}", bank.began.elapsed()),
        }
    })
}

impl Bank {
    fn found(seed: u64, lie: Lie, traced: bool) -> Self {
        let mut dice = Dice::new(seed);
        let skews: Vec<_> = (0..2 + dice.roll(2)).map(|_| skew(&mut dice)).collect();
        let began = Instant::now();
        let server = Server::new(World {
            tables: Tables::new(1, START),
            auditor: Auditor::new(1, START),
            dice,
            trouble: 0,
            lie,
            seen: BTreeMap::new(),
            violation: None,
            asked: BTreeMap::new(),
            trace: traced.then(Vec::new),
            restores: 0,
            began,
            stale: BTreeMap::new(),
        });
        let slot = |skew| {
            let skew = Arc::new(Mutex::new(skew));
            let engine = Mutex::new(engine(&server, began, &skew));
            Slot { engine, died: Notify::new(), skew }
        };
        let slots = skews.into_iter().map(slot).collect();
        Self { server, slots, began, notes: Mutex::default() }
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap()
    }

    fn roll(&self, sides: usize) -> usize {
        self.server.world().dice.roll(sides)
    }

    async fn pause(&self, most: usize) {
        let milliseconds = self.roll(most) as u64;
        sleep(Duration::from_millis(milliseconds)).await;
    }

    async fn live(self: &Arc<Self>, seed: u64) {
        for number in 0..4 {
            let name = format!("open-{number}");
            let kind = workload::open(workload::user(number % 3), workload::usd(), &name);
            self.staff(&name, kind).await;
            let Some((account, _)) = locked(&self.notes).known.accounts.last().copied() else { continue };
            let name = format!("fund-{number}");
            self.staff(&name, workload::deposit(account, 4_000, &name)).await;
        }
        let kind =
            CommandKind::OpenInternal { kind: AccountKind::Fee, currency: workload::usd(), name: "fees".to_owned() };
        self.staff("fees", kind).await;
        let troubles = [0, 5, 10, 25, 50];
        let trouble = self.server.world().dice.pick(&troubles);
        self.server.world().trouble = trouble;
        let chaos = tokio::spawn(Arc::clone(self).chaos(seed));
        let clients: Vec<_> =
            (0..3 + self.roll(3)).map(|number| tokio::spawn(Arc::clone(self).client(number))).collect();
        if seed.is_multiple_of(32) {
            self.flood().await;
        }
        for client in clients {
            if client.await.is_err() {
                self.server.violated("a client panicked".to_owned());
            }
        }
        chaos.abort();
        let _ = chaos.await;
    }

    async fn staff(&self, name: &str, kind: CommandKind) {
        let command = {
            let mut world = self.server.world();
            workload::command(&mut world.dice, workload::user(9), Authority::Staff, name, kind)
        };
        self.insist(command).await;
    }

    /// Two commands at once that are more than one account may have waiting.
    async fn flood(&self) {
        let [first, second] = ["flood-1", "flood-2"].map(|name| {
            let kind = workload::flood(&locked(&self.notes).known, name);
            workload::command(&mut self.server.world().dice, workload::user(0), Authority::Owner, name, kind)
        });
        tokio::join!(self.ask(&first, 0, 60_000), self.ask(&second, 0, 60_000));
    }

    async fn client(self: Arc<Self>, number: usize) {
        for turn in 0..6 + self.roll(8) {
            self.pause(if turn % 4 == 3 { 4_000 } else { 20 }).await;
            if self.roll(100) < 20 {
                self.read(&format!("read-{number}-{turn}")).await;
                continue;
            }
            let name = format!("c{number}-{turn}");
            let now = START + self.began.elapsed();
            let command = {
                let (mut world, notes) = (self.server.world(), locked(&self.notes));
                workload::any(&mut world.dice, &notes.known, number, &name, now)
            };
            match self.roll(100) {
                0..15 => drop(tokio::spawn(Arc::clone(&self).later(command.clone()))),
                15..22 => {
                    // Somebody uses the key for something else.
                    let mut other = {
                        let (mut world, notes) = (self.server.world(), locked(&self.notes));
                        workload::any(&mut world.dice, &notes.known, number, &format!("x{number}-{turn}"), now)
                    };
                    other.fingerprint = command.fingerprint.map(|byte| byte + 1);
                    (other.principal, other.key) = (command.principal, command.key.clone());
                    drop(tokio::spawn(Arc::clone(&self).later(other)));
                }
                _ => {}
            }
            self.insist(command).await;
        }
    }

    /// Asks at some time, and perhaps again.
    async fn later(self: Arc<Self>, command: Command) {
        for _ in 0..=self.roll(2) {
            self.pause(3_000).await;
            let slot = self.roll(self.slots.len());
            self.ask(&command, slot, 20_000).await;
        }
    }

    /// Asks until there is an answer, or for as long as a client cares to.
    async fn insist(&self, command: Command) {
        locked(&self.notes).commands.push(command.clone());
        for _ in 0..6 {
            let (slot, patience) = (self.roll(self.slots.len()), [200, 3_000, 15_000, 60_000][self.roll(4)]);
            if self.ask(&command, slot, patience).await {
                return;
            }
            self.pause(500).await;
        }
        self.server.world().count("given up");
    }

    /// Asks once. True if that was answered for good.
    async fn ask(&self, command: &Command, slot: usize, patience: u64) -> bool {
        let key = (command.principal, command.key.clone());
        let asked = self.micros();
        let (restores, used) = {
            let (mut world, mut notes) = (self.server.world(), locked(&self.notes));
            let used = world.tables.keys.contains_key(&key);
            world.asked.insert(key.clone(), command.fingerprint);
            notes.fingerprints.entry(key).or_default().insert(command.fingerprint);
            notes.times.entry(name(command)).or_insert((asked, None));
            (world.restores, used)
        };
        self.server.trace(|| format!("engine {slot} is asked {} {:?}", command.key, command.kind));
        let slot = &self.slots[slot];
        let died = slot.died.notified();
        let engine = locked(&slot.engine).0.clone();
        let answer = tokio::select! {
            biased;
            () = died => Err(SubmitError::Unavailable),
            answer = timeout(Duration::from_millis(patience), engine.submit(command.clone())) => {
                answer.unwrap_or(Err(SubmitError::Unavailable))
            }
        };
        self.server.trace(|| format!("{}: {answer:?}", command.key));
        if self.server.world().restores != restores {
            // It may be about what is no more.
            return false;
        }
        let forgot = used && matches!(&answer, Ok(outcome) if !rules::is_remembered(outcome));
        let heard = if forgot { Err(format!("{answer:?} under a used key")) } else { self.heard(command, answer) };
        heard.unwrap_or_else(|wrong| {
            self.server.violated(format!("{}: {wrong}", command.key));
            true
        })
    }

    fn heard(&self, command: &Command, answer: Result<Outcome, SubmitError>) -> Result<bool, String> {
        let key = (command.principal, command.key.clone());
        let (mut world, mut notes) = (self.server.world(), locked(&self.notes));
        let outcome = match answer {
            Ok(outcome) => outcome,
            Err(SubmitError::KeyReused) => {
                world.count("key reused");
                let alone = notes.fingerprints[&key].len() == 1;
                return if alone { Err("nobody else has used the key".to_owned()) } else { Ok(true) };
            }
            Err(SubmitError::Corrupt(cause)) => return Err(format!("refused: {cause}")),
            Err(SubmitError::Overloaded) => {
                world.count("overloaded");
                return Ok(false);
            }
            Err(SubmitError::Unavailable) => {
                world.count("unavailable");
                return Ok(false);
            }
        };
        world.count(&kind(&outcome));
        notes.learn(&outcome, command);
        if !rules::is_remembered(&outcome) {
            return Ok(true);
        }
        let stored = world.tables.keys.get(&key).map(|stored| stored.fingerprint);
        if stored != Some(command.fingerprint) {
            return Err(format!("it was answered, and its key is kept as that of {stored:?}: {outcome:?}"));
        }
        let micros = self.micros();
        if let Some((_, answered)) = notes.times.get_mut(&name(command)) {
            answered.get_or_insert(micros);
        }
        match notes.answered.insert(key, (command.fingerprint, outcome.clone())) {
            Some((fingerprint, first)) if fingerprint != command.fingerprint => {
                Err(format!("two requests share a key: {first:?} and {outcome:?}"))
            }
            Some((_, first)) if first != outcome => Err(format!("first {first:?}, then {outcome:?}")),
            Some(_) => {
                world.count("replayed");
                Ok(true)
            }
            None => Ok(true),
        }
    }

    /// Reads two accounts at once.
    async fn read(&self, name: &str) {
        let (asked, restores) = (self.micros(), self.server.world().restores);
        let accounts = [(); 2].map(|()| {
            let (mut world, notes) = (self.server.world(), locked(&self.notes));
            world.dice.pick(&notes.known.accounts).0.sequence
        });
        self.pause(5).await;
        let versions = {
            let world = self.server.world();
            let version = |id: &Sequence| world.version(*id).map(|version| (i64::from(*id), version));
            accounts.iter().filter_map(version).collect()
        };
        self.pause(5).await;
        if self.server.world().restores == restores {
            let (name, answered) = (name.to_owned(), Some(self.micros()));
            let read = Operation { name, asked: Some(asked), answered, reads: versions, writes: Vec::new() };
            locked(&self.notes).reads.push(read);
        }
    }

    async fn chaos(self: Arc<Self>, seed: u64) {
        loop {
            self.pause(1_500).await;
            let slot = self.roll(self.slots.len());
            match self.roll(10) {
                0..=3 => {
                    let mut world = self.server.world();
                    world.trouble = world.dice.pick(&[0, 0, 10, 30, 60]);
                }
                4 | 5 => self.replace(slot, true),
                6 => self.replace(slot, false),
                7 => {
                    let (world, mut notes) = (self.server.world(), locked(&self.notes));
                    notes.backup = Some((world.tables.clone(), world.auditor.clone()));
                }
                8 if seed.is_multiple_of(3) => self.restore(),
                _ => {
                    self.server.world().count("clock set");
                    *locked(&self.slots[slot].skew) = skew(&mut self.server.world().dice);
                }
            }
        }
    }

    /// Another engine takes the place of one that crashed or was told to stop.
    fn replace(&self, slot: usize, crash: bool) {
        let slot = &self.slots[slot];
        let fresh = engine(&self.server, self.began, &slot.skew);
        let (engine, replica) = std::mem::replace(&mut *locked(&slot.engine), fresh);
        self.server.trace(|| format!("an engine is {}", if crash { "killed" } else { "stopped" }));
        if crash {
            self.server.world().count("engine killed");
            replica.die();
            slot.died.notify_waiters();
        } else {
            self.server.world().count("engine stopped");
            drop(tokio::spawn(async move { engine.shutdown().await }));
        }
    }

    /// The ledger is what it once was, in a new epoch.
    fn restore(&self) {
        self.server.trace(|| "the ledger is restored".to_owned());
        let (mut world, mut notes) = (self.server.world(), locked(&self.notes));
        let Some((mut tables, mut auditor)) = notes.backup.take() else { return };
        world.count("restored");
        world.restores += 1;
        let epoch = world.tables.head.epoch + 1;
        tables.head.epoch = epoch;
        auditor.restored(epoch);
        notes.answered.retain(|key, _| tables.keys.contains_key(key));
        notes.times.values_mut().for_each(|(_, answered)| *answered = None);
        notes.reads.clear();
        (world.tables, world.auditor) = (tables, auditor);
        world.stale.clear();
    }

    /// When all is quiet, every command is asked once more: what was answered is answered again, what was not is
    /// answered now, and nothing is done twice.
    async fn end(self: &Arc<Self>) {
        self.server.world().trouble = 0;
        sleep(Duration::from_mins(1)).await;
        self.replace(0, false);
        let commands = locked(&self.notes).commands.clone();
        for command in commands {
            if !self.ask(&command, 0, 60_000).await {
                self.server.violated(format!("{} is not answered although all is well", command.key));
            }
        }
        let history = self.history();
        let found = {
            let world = self.server.world();
            world.auditor.end(&world.tables).and_then(|()| history::check(&history))
        };
        found.unwrap_or_else(|wrong| self.server.violated(wrong));
    }

    /// What clients did and saw, as far as the ledger of today knows of it.
    fn history(&self) -> Vec<Operation> {
        let (world, notes) = (self.server.world(), locked(&self.notes));
        let mut writes: BTreeMap<String, Operation> = BTreeMap::new();
        for (sequence, booked) in &world.tables.journals {
            let reference = booked.journal.memo.reference.as_deref();
            let name = reference.and_then(|reference| reference.split('/').next()).map(str::to_owned);
            let name = name.unwrap_or_else(|| format!("journal {sequence}"));
            let (asked, answered) =
                notes.times.get(&name).map_or((None, None), |(asked, answered)| (Some(*asked), *answered));
            let empty = Operation { name: name.clone(), asked, answered, ..Operation::default() };
            let versions = booked.entries.iter().map(|entry| (i64::from(entry.account.sequence), entry.seq));
            writes.entry(name).or_insert(empty).writes.extend(versions);
        }
        writes.into_values().chain(notes.reads.iter().cloned()).collect()
    }
}

impl Notes {
    fn learn(&mut self, outcome: &Outcome, command: &Command) {
        let known = &mut self.known;
        match outcome {
            Outcome::AccountOpened(account) if !known.accounts.iter().any(|(id, _)| *id == account.id) => {
                known.accounts.push((account.id, account.owner));
            }
            Outcome::InternalOpened(id) => known.internal.push(*id),
            Outcome::Hold(hold) if matches!(command.kind, CommandKind::PlaceHold { .. }) => known.holds.push(hold.id),
            Outcome::Transaction(transaction) => known.journals.push(transaction.id.journal),
            Outcome::Transfer(transfer) => known.journals.push(transfer.id.into()),
            Outcome::Journal(journal) => known.journals.push(journal.id),
            _ => {}
        }
    }
}

/// The reference of a command's journals.
fn name(command: &Command) -> String {
    let memo = match &command.kind {
        CommandKind::Deposit { memo, .. }
        | CommandKind::Withdraw { memo, .. }
        | CommandKind::Journal { memo, .. }
        | CommandKind::Reverse { memo, .. }
        | CommandKind::PlaceHold { memo, .. }
        | CommandKind::CaptureHold { memo, .. } => Some(memo),
        CommandKind::Transfer(transfer) => Some(&transfer.memo),
        CommandKind::Bulk { transfers, .. } => transfers.first().map(|transfer| &transfer.memo),
        _ => None,
    };
    let reference = memo.and_then(|memo| memo.reference.as_deref()).unwrap_or(&command.key);
    reference.split('/').next().unwrap_or_default().to_owned()
}

fn kind(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Rejected(rejection) => format!("{rejection:?}"),
        Outcome::BulkRejected { .. } => "bulk refused".to_owned(),
        Outcome::Bulk(results) if results.iter().any(Result::is_err) => "bulk in part".to_owned(),
        _ => "carried out".to_owned(),
    }
}

fn skew(dice: &mut Dice) -> i64 {
    i64::try_from(dice.below(4_000)).unwrap() - 2_000
}

fn engine(server: &Server, began: Instant, skew: &Arc<Mutex<i64>>) -> (Engine, Replica) {
    let (replica, skew) = (Replica::new(server), Arc::clone(skew));
    let clock = move || START + began.elapsed() + time::Duration::milliseconds(*locked(&skew));
    (Engine::new(replica.clone(), Arc::new(clock)), replica)
}
