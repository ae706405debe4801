//! The task behind an engine: what a batch is, and how it is brought to an end.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::waiting::movements;
use super::{Clock, MAX_BATCH, Request, SubmitError};
use crate::command::{AccountKind, Command, CommandKind, NewTransfer, Outcome};
use crate::id::{AccountId, Sequence};
use crate::money::Currency;
use crate::rules::{self, Answer, Decision, State};
use crate::store::{Session, Store, StoreError};

/// The most movements one batch takes, unless a single command asks for more.
const MAX_MOVEMENTS: usize = 1000;

/// Accounts kept between batches; beyond it all are forgotten.
const MAX_KEPT: usize = 65_536;

/// How long nothing may happen before the session is given back: while batch follows batch it is the same one, whose
/// caches are warm.
const REST: Duration = Duration::from_secs(1);

/// How long nothing may happen after that before what is kept is forgotten.
const IDLE: Duration = Duration::from_secs(30);

/// Pauses between attempts at a batch whose transaction broke off.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

/// The most time all attempts at a batch take together.
const DEADLINE: Duration = Duration::from_secs(10);

/// Batches that wait for the head after another engine has been met: overtaking each other wastes work.
const LOCKED_BATCHES: u32 = 16;

/// Batches that look keys up after one was found in use: who asks again once does so twice.
const LOOK_UPS: u32 = 64;

pub(super) struct Committer<S: Store> {
    store: S,
    clock: Clock,
    session: Option<S::Session>,
    /// The ledger as the last batch left it; true for as long as the head is still there.
    kept: Option<State>,
    locked_batches: u32,
    look_ups: u32,
}

impl<S: Store> Committer<S> {
    pub(super) fn new(store: S, clock: Clock) -> Self {
        Self { store, clock, session: None, kept: None, locked_batches: 0, look_ups: 0 }
    }

    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>, mut stop: watch::Receiver<bool>) {
        let mut gathered = Vec::with_capacity(MAX_BATCH);
        loop {
            let count = tokio::select! {
                Ok(_) = stop.wait_for(|stop| *stop), if !requests.is_closed() => {
                    requests.close();
                    continue;
                }
                count = requests.recv_many(&mut gathered, MAX_BATCH) => count,
                () = self.rest(), if self.session.is_some() || self.kept.is_some() => continue,
            };
            if count == 0 {
                return;
            }
            let (mut commands, mut waiting) = (Vec::with_capacity(count), Vec::with_capacity(count));
            for Request { command, reply, slot } in gathered.drain(..) {
                commands.push(command);
                waiting.push((reply, slot));
            }
            let mut waiting = waiting.into_iter();
            let mut rest = &commands[..];
            while !rest.is_empty() {
                let (batch, after) = rest.split_at(batch_length(rest));
                rest = after;
                for (result, (reply, slot)) in self.settle(batch).await.into_iter().zip(&mut waiting) {
                    drop(slot);
                    // A caller that has gone away learns the outcome when it comes back with its key.
                    let _ = reply.send(result);
                }
            }
        }
    }

    /// Commits `commands`, in halves where the store refuses them together: one bad command fails alone.
    async fn settle(&mut self, commands: &[Command]) -> Vec<Result<Outcome, SubmitError>> {
        let mut results = Vec::with_capacity(commands.len());
        let mut slices = vec![commands];
        while let Some(slice) = slices.pop() {
            match self.commit(slice).await {
                Ok(answers) => results.extend(answers.into_iter().map(answered)),
                Err(StoreError::Refused(_) | StoreError::KeyTaken) if slice.len() > 1 => {
                    let (first, second) = slice.split_at(slice.len() / 2);
                    slices.extend([second, first]);
                }
                Err(cause @ (StoreError::Refused(_) | StoreError::KeyTaken)) => {
                    tracing::error!(%cause, "the database refused a ledger command that the rules accept");
                    results.push(Err(SubmitError::Corrupt(cause.to_string())));
                }
                Err(cause) => {
                    tracing::error!(%cause, "gave up on a ledger batch");
                    results.resize(commands.len(), Err(SubmitError::Unavailable));
                    break;
                }
            }
        }
        results
    }

    async fn commit(&mut self, commands: &[Command]) -> Result<Vec<Answer>, StoreError> {
        let settled = tokio::time::timeout(DEADLINE, self.attempts(commands)).await;
        settled.unwrap_or(Err(StoreError::Unavailable))
    }

    async fn attempts(&mut self, commands: &[Command]) -> Result<Vec<Answer>, StoreError> {
        if self.locked_batches == 0 {
            match self.overtakable(commands).await {
                Err(StoreError::Fenced) => self.locked_batches = LOCKED_BATCHES,
                Err(StoreError::KeyTaken) => self.look_ups = LOOK_UPS,
                // Perhaps because of what was kept: somebody may have mended rows by hand.
                Err(StoreError::Refused(_)) => {}
                Err(StoreError::Interrupted(cause)) => self.pause(&cause, PAUSES[0]).await,
                settled => return settled,
            }
        }
        self.locked_batches = self.locked_batches.saturating_sub(1);
        for pause in PAUSES {
            match self.locked(commands).await {
                // Fenced: the head is no longer there although it was locked; a new look tells more.
                Err(StoreError::Interrupted(cause)) => self.pause(&cause, pause).await,
                Err(StoreError::Fenced) => self.pause("the epoch has changed", pause).await,
                settled => return settled,
            }
        }
        self.locked(commands).await
    }

    async fn pause(&mut self, cause: &str, pause: Duration) {
        tracing::warn!(%cause, "a ledger batch was interrupted and is tried again");
        // The clock's nanoseconds are chance enough to keep replicas apart.
        tokio::time::sleep(pause / 2 + pause * ((self.clock)().nanosecond() % 1000) / 1000).await;
    }

    /// One attempt on what is kept; whoever commits in between has it refused.
    async fn overtakable(&mut self, commands: &[Command]) -> Result<Vec<Answer>, StoreError> {
        let look_up = self.look_ups > 0;
        self.look_ups = self.look_ups.saturating_sub(1);
        let mut session = self.session().await?;
        let state = match self.kept.take() {
            Some(state) => state,
            None => State::at(session.head().await?),
        };
        let decision = self.decide(&mut session, state, commands, look_up).await?;
        Ok(self.keep(session, decision))
    }

    /// One attempt that nobody can overtake, on a fresh look at the head. Keys are looked up: an attempt before this
    /// one may have been committed without telling.
    async fn locked(&mut self, commands: &[Command]) -> Result<Vec<Answer>, StoreError> {
        let mut session = self.session().await?;
        let head = session.lock().await?;
        let state = self.kept.take().filter(|kept| kept.head == head).unwrap_or_else(|| State::at(head));
        let decision = self.decide(&mut session, state, commands, true).await?;
        Ok(self.keep(session, decision))
    }

    /// The session of the last batch, or a new one. Whatever fails in it, it is not kept.
    async fn session(&mut self) -> Result<S::Session, StoreError> {
        match self.session.take() {
            Some(session) => Ok(session),
            None => self.store.open().await,
        }
    }

    async fn decide(
        &mut self,
        session: &mut S::Session,
        mut state: State,
        commands: &[Command],
        look_up: bool,
    ) -> Result<Decision, StoreError> {
        let before = state.head;
        load(session, &mut state, commands).await?;
        if look_up {
            look_up_keys(session, &mut state, commands).await?;
        }
        let mut decision = rules::apply(state, commands, (self.clock)());
        if !look_up && decision.answers.iter().any(is_unwritten) {
            // What is not written meets no key in use: whether it was answered before has to be asked.
            let mut fresh = State::at(before);
            load(session, &mut fresh, commands).await?;
            look_up_keys(session, &mut fresh, commands).await?;
            decision = rules::apply(fresh, commands, (self.clock)());
        }
        if decision.state.head == before {
            session.release().await?;
        } else {
            session.write(before, commands, &decision).await?;
        }
        Ok(decision)
    }

    fn keep(&mut self, session: S::Session, decision: Decision) -> Vec<Answer> {
        if self.store.can_spare_one() {
            self.session = Some(session);
        }
        let Decision { mut state, answers, .. } = decision;
        state.answers.clear();
        state.holds.clear();
        state.originals.clear();
        if state.accounts.len() > MAX_KEPT {
            state.accounts.clear();
            state.settlements.clear();
        }
        self.kept = Some(state);
        answers
    }

    async fn rest(&mut self) {
        if self.session.is_some() {
            tokio::time::sleep(REST).await;
            self.session = None;
        } else {
            tokio::time::sleep(IDLE).await;
            self.kept = None;
        }
    }
}

/// How many of the commands that wait make the next batch. An account is changed in a batch of its own.
fn batch_length(commands: &[Command]) -> usize {
    let mut sum = 0;
    for (length, command) in commands.iter().enumerate() {
        sum += movements(&command.kind);
        let alone = matches!(command.kind, CommandKind::ChangeAccount { .. });
        if length > 0 && (alone || sum > MAX_MOVEMENTS) {
            return length;
        }
        if alone {
            return 1;
        }
    }
    commands.len()
}

/// An answer that leaves no trace in the ledger, and that no key can have been used for if it is right.
fn is_unwritten(answer: &Answer) -> bool {
    matches!(answer, Answer::Decided(outcome) if !rules::is_remembered(outcome))
}

/// Loads what `commands` name and `state` does not know.
async fn load(session: &mut impl Session, state: &mut State, commands: &[Command]) -> Result<(), StoreError> {
    let mut wanted = Wanted::default();
    for command in commands {
        wanted.add(command, state);
    }
    if !wanted.holds.is_empty() {
        let ids: Vec<_> = wanted.holds.drain().collect();
        for hold in session.holds(&ids).await? {
            wanted.accounts.extend([hold.account_id].into_iter().chain(hold.destination_id));
            wanted.currencies.insert(hold.currency);
            state.holds.insert(hold.id, hold);
        }
    }
    if !wanted.originals.is_empty() {
        let ids: Vec<_> = wanted.originals.drain().collect();
        for (id, original) in session.originals(&ids).await? {
            wanted.accounts.extend(original.legs.iter().map(|(account, _)| *account));
            state.originals.insert(id, original);
        }
    }
    wanted.accounts.retain(|id| !state.accounts.contains_key(id));
    wanted.currencies.retain(|currency| !state.settlements.contains_key(currency));
    if wanted.accounts.is_empty() && wanted.currencies.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = wanted.accounts.iter().map(|id| id.sequence).collect();
    let currencies: Vec<_> = wanted.currencies.into_iter().collect();
    for (id, account) in session.accounts(&ids, &currencies).await? {
        if account.kind == AccountKind::Settlement {
            state.settlements.insert(account.currency, id);
        }
        state.accounts.insert(id, account);
    }
    Ok(())
}

async fn look_up_keys(session: &mut impl Session, state: &mut State, commands: &[Command]) -> Result<(), StoreError> {
    let keys: HashSet<(Uuid, &str)> = commands.iter().map(|command| (command.principal, &*command.key)).collect();
    let keys: Vec<_> = keys.into_iter().collect();
    state.answers.extend(session.answers(&keys).await?);
    Ok(())
}

#[derive(Default)]
struct Wanted {
    accounts: HashSet<AccountId>,
    currencies: HashSet<Currency>,
    holds: HashSet<Sequence>,
    originals: HashSet<Sequence>,
}

impl Wanted {
    fn add(&mut self, command: &Command, state: &State) {
        let mut account = |id: &AccountId| {
            if !state.accounts.contains_key(id) {
                self.accounts.insert(*id);
            }
        };
        match &command.kind {
            CommandKind::OpenAccount { .. } => {}
            CommandKind::OpenInternal { currency, .. } => {
                self.currencies.insert(*currency);
            }
            CommandKind::ChangeAccount { account: id, .. } => account(id),
            CommandKind::Deposit { account: id, currency, .. }
            | CommandKind::Withdraw { account: id, currency, .. } => {
                account(id);
                self.currencies.insert(*currency);
            }
            CommandKind::Transfer(NewTransfer { from, to, .. }) => [from, to].into_iter().for_each(account),
            CommandKind::Bulk { transfers, .. } => {
                transfers.iter().flat_map(|transfer| [&transfer.from, &transfer.to]).for_each(account);
            }
            CommandKind::Journal { legs, .. } => legs.iter().for_each(|(id, _)| account(id)),
            CommandKind::Reverse { journal, .. } => {
                self.originals.insert(journal.sequence);
            }
            CommandKind::PlaceHold { account: id, destination, .. } => {
                account(id);
                destination.iter().for_each(account);
            }
            CommandKind::CaptureHold { hold, .. }
            | CommandKind::VoidHold { hold }
            | CommandKind::ExpireHold { hold } => {
                self.holds.insert(hold.sequence);
            }
        }
    }
}

fn answered(answer: Answer) -> Result<Outcome, SubmitError> {
    match answer {
        Answer::Decided(outcome) | Answer::Replayed(outcome) => Ok(outcome),
        Answer::KeyReused => Err(SubmitError::KeyReused),
    }
}
