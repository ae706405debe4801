//! Asks and answers.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tokio::time::Instant;

use super::cells::{Cells, Few, Locked, Place};
use super::leasing::{Begun, elapsed};
use super::rate::{COST_MAX, Micros, Rate, State, Terms};
use super::store::Store;

/// What happens to a request when the store cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureMode {
    /// Each replica grants its part of the rate, from what it knows.
    LocalFallback,
    /// It passes.
    Open,
    /// It does not.
    Closed,
}

/// One thing asked for on behalf of one request.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The rate it is counted against.
    pub rate: &'a Rate,
    /// What it is counted for, the same bytes on every replica: policy, limit and rate, then the values of the limit's
    /// keys. These may be secrets.
    pub key: &'a [u8],
    /// What it is counted for together with others when memory is full: a network instead of an address.
    pub coarse: &'a [u8],
    /// Whose it is (a tenant's claim id, or `all`): part of the bucket's name in the store, in clear.
    pub tag: &'a str,
    /// What it costs: tokens, at most [`COST_MAX`] (more is charged as that).
    pub cost: u64,
    /// What to do without the store.
    pub failure_mode: FailureMode,
}

impl Ask<'_> {
    pub(super) fn cost(&self) -> u64 {
        self.cost.min(COST_MAX)
    }
}

/// How many replicas are alive, and which of them this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// At least 1.
    pub replicas: u32,
    /// From 0.
    pub rank: u32,
}

impl Share {
    /// One replica that does all.
    pub(super) const WHOLE: Self = Self { replicas: 1, rank: 0 };

    fn pack(self) -> u64 {
        u64::from(self.replicas) << 32 | u64::from(self.rank)
    }

    fn unpack(packed: u64) -> Self {
        let low = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        Self { replicas: low(packed >> 32), rank: low(packed) }
    }
}

/// What became of one ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing against it. It was consumed if the verdict is that the request is admitted.
    Granted,
    /// Not now.
    Refused,
    /// The store cannot be asked, and [`FailureMode::Closed`] was asked for.
    Unavailable,
}

/// Where the answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// This replica's part.
    Memory,
    /// The store: tokens leased from it, or what it said.
    Lease,
    /// This replica's part, because the store cannot be asked.
    Fallback,
    /// Nobody was asked.
    Open,
}

/// The answer to one ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// What became of it.
    pub outcome: Outcome,
    /// Whole tokens left after this request, as far as this replica may grant them.
    pub remaining: u64,
    /// 0 unless refused: how long until it would be granted, if nobody else takes anything. For a fixed window it is the
    /// time to the next one.
    pub retry_after: Micros,
    /// How long until the quota is whole again.
    pub full_after: Micros,
    /// Where this comes from.
    pub source: Source,
}

/// The answers, one for each ask, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The answers.
    pub rows: Vec<Row>,
}

impl Verdict {
    /// Whether the request may pass: all was granted.
    #[must_use]
    pub fn admitted(&self) -> bool {
        self.rows.iter().all(|row| row.outcome == Outcome::Granted)
    }
}

/// What a limiter has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Cells in memory.
    pub cells: usize,
    /// Idle cells that made room for others.
    pub evictions: u64,
    /// Asks that were counted together with others, because memory was full.
    pub overflows: u64,
    /// None: without a store.
    pub store: Option<StoreStats>,
}

/// What came of asking the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreStats {
    /// Whether it is asked at all. Otherwise it counts as lost, and each ask's [`FailureMode`] decides.
    pub available: bool,
    /// Calls made.
    pub calls: u64,
    /// Calls without a usable answer in time.
    pub errors: u64,
}

/// Grants what rates allow.
#[derive(Debug)]
pub struct Limiter {
    pub(super) cells: Cells,
    share: AtomicU64,
    store: Option<Store>,
    /// By how many µs the store's clock is ahead of this replica's, whose time is translated before anything else is done.
    ahead: AtomicI64,
}

/// An ask, looked at.
#[derive(Debug)]
struct Slot {
    place: Place,
    terms: Terms,
    before: State,
    after: State,
    wait: Micros,
    /// What is done about it instead.
    mode: FailureMode,
    source: Source,
}

impl Limiter {
    /// Counts in the memory of this replica, which grants its [`Share`] of every rate. Strict, but a client whose requests
    /// all reach one replica gets only that one's part. A replica that joins or restarts begins with its part unused: for
    /// that long, a burst's part more may be admitted.
    ///
    /// Remembers up to `capacity` keys.
    #[must_use]
    pub fn in_memory(capacity: usize) -> Self {
        Self {
            cells: Cells::new(capacity),
            share: AtomicU64::new(Share::WHOLE.pack()),
            store: None,
            ahead: AtomicI64::new(0),
        }
    }

    /// Counts in a store that all replicas share. What is in this replica's memory saves most of the calls.
    #[must_use]
    pub fn with_store(capacity: usize, store: Store) -> Self {
        Self { store: Some(store), ..Self::in_memory(capacity) }
    }

    /// From now on this replica has this part. What was taken stays taken.
    pub fn set_share(&self, share: Share) {
        self.share.store(share.pack(), Ordering::Relaxed);
    }

    pub(super) fn share(&self) -> Share {
        Share::unpack(self.share.load(Ordering::Relaxed))
    }

    /// The store told its time when it was `here` for this replica.
    pub(super) fn hear(&self, there: Micros, here: Micros) {
        let ahead = there.checked_signed_diff(here).unwrap_or(0);
        self.ahead.store(ahead, Ordering::Relaxed);
    }

    fn translate(&self, now: Micros) -> Micros {
        now.saturating_add_signed(self.ahead.load(Ordering::Relaxed))
    }

    /// What [`Self::take`] would say, as far as this replica knows. Consumes nothing.
    pub fn peek(&self, asks: &[Ask<'_>], now: Micros) -> Verdict {
        let now = self.translate(now);
        match &self.store {
            Some(store) if store.available() => self.peek_shared(asks, now),
            _ => self.alone(asks, now, false),
        }
    }

    /// Takes all that is asked for, or nothing.
    pub async fn take(&self, asks: &[Ask<'_>], now: Micros) -> Verdict {
        let Some(store) = &self.store else {
            return self.alone(asks, now, true);
        };
        let call = match self.begin(store, asks, self.translate(now)) {
            Begun::Decided(verdict) => return verdict,
            Begun::Alone => return self.alone(asks, self.translate(now), true),
            Begun::Call(call) => call,
        };
        let started = Instant::now();
        match Box::pin(call.run(store, now)).await {
            Some(verdict) => verdict,
            None => self.alone(asks, self.translate(now.saturating_add(elapsed(started))), true),
        }
    }

    /// Counters and sizes.
    pub fn stats(&self) -> Stats {
        let (held, evictions, overflows) = self.cells.counts();
        let store = self.store.as_ref().map(|store| {
            let (calls, errors) = store.counts();
            StoreStats { available: store.available(), calls, errors }
        });
        Stats { cells: held, evictions, overflows, store }
    }

    /// Decides from this replica's part: because there is no store, or because it is lost.
    fn alone(&self, asks: &[Ask<'_>], now: Micros, consume: bool) -> Verdict {
        let (mut locked, places) = self.cells.lock(asks, now);
        let slots = self.look(asks, &places, &mut locked, now);
        let admitted = slots.iter().all(|slot| slot.outcome() == Outcome::Granted);
        if admitted && consume {
            for slot in slots.iter().filter(|slot| slot.mode == FailureMode::LocalFallback) {
                locked.get_or_insert(&slot.place, slot.before).grant(slot.after, slot.source == Source::Fallback);
            }
        }
        Verdict { rows: slots.iter().map(|slot| slot.row(admitted && consume, now)).collect() }
    }

    /// What each ask would lead to. Of asks that share a cell, a later one finds what the earlier ones would leave.
    fn look(&self, asks: &[Ask<'_>], places: &[Place], locked: &mut Locked<'_>, now: Micros) -> Few<Slot> {
        let share = self.share();
        let mut slots = Few::<Slot>::new();
        for (ask, place) in std::iter::zip(asks, places) {
            let terms = ask.rate.terms(share, ask.cost());
            let known = locked.get(place).map(|cell| {
                if self.store.is_none() {
                    cell.adapt(&terms, now);
                } else {
                    cell.adapt_part(&terms, now);
                }
                cell.part(share)
            });
            let same = slots.iter().rfind(|slot| slot.place == *place).map(|same| (same.before, same.after));
            let (before, from) = same.unwrap_or_else(|| {
                let state = terms.current(known, now);
                (state, state)
            });
            let charge = terms.charge(from, ask.cost(), now);
            let (mode, source) = match (&self.store, ask.failure_mode) {
                (None, _) => (FailureMode::LocalFallback, Source::Memory),
                (Some(_), FailureMode::Open) => (FailureMode::Open, Source::Open),
                (Some(_), mode) => (mode, Source::Fallback),
            };
            slots.push(Slot { place: *place, terms, before, after: charge.after, wait: charge.wait, mode, source });
        }
        slots
    }
}

impl Slot {
    fn outcome(&self) -> Outcome {
        match self.mode {
            FailureMode::Closed => Outcome::Unavailable,
            FailureMode::LocalFallback if self.wait > 0 => Outcome::Refused,
            FailureMode::LocalFallback | FailureMode::Open => Outcome::Granted,
        }
    }

    fn row(&self, consumed: bool, now: Micros) -> Row {
        let outcome = self.outcome();
        let state = if consumed && self.mode == FailureMode::LocalFallback { &self.after } else { &self.before };
        Row {
            outcome,
            remaining: self.terms.remaining(state, now),
            retry_after: if outcome == Outcome::Refused { self.wait } else { 0 },
            full_after: Terms::full_after(state, now),
            source: self.source,
        }
    }
}
