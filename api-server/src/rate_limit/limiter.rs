//! Asks and answers.

use std::sync::atomic::{AtomicU64, Ordering};

use super::cells::{Cells, Few, Place};
use super::rate::{COST_MAX, Micros, Rate, State, Terms};

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
    /// Whose it is (a tenant's claim id, or `all`): the store keeps what has the same tag in one place. All asks of one
    /// request are counted under the first one's.
    pub tag: &'a str,
    /// What it costs: tokens, at most [`COST_MAX`] (more is charged as that).
    pub cost: u64,
    /// What to do without the store.
    pub failure_mode: FailureMode,
}

impl Ask<'_> {
    fn cost(&self) -> u64 {
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
}

/// Grants what rates allow.
#[derive(Debug)]
pub struct Limiter {
    cells: Cells,
    share: AtomicU64,
}

/// An ask, looked at.
#[derive(Debug)]
struct Slot {
    place: Place,
    terms: Terms,
    before: State,
    after: State,
    wait: Micros,
}

impl Limiter {
    /// Counts in the memory of this replica, which grants its [`Share`] of every rate. Strict, but a client whose requests
    /// all reach one replica gets only that one's part. A replica that joins or restarts begins with its part unused: for
    /// that long, a burst's part more may be admitted.
    ///
    /// Remembers up to `capacity` keys.
    #[must_use]
    pub fn in_memory(capacity: usize) -> Self {
        Self { cells: Cells::new(capacity), share: AtomicU64::new(Share::WHOLE.pack()) }
    }

    /// From now on this replica has this part. What was taken stays taken.
    pub fn set_share(&self, share: Share) {
        self.share.store(share.pack(), Ordering::Relaxed);
    }

    /// What [`Self::take`] would say, as far as this replica knows. Consumes nothing.
    pub fn peek(&self, asks: &[Ask<'_>], now: Micros) -> Verdict {
        let (locked, places) = self.cells.lock(asks, now);
        let slots = self.look(asks, &places, |place| locked.get(place).map(|cell| cell.state), now);
        rows(&slots, false, now)
    }

    /// Takes all that is asked for, or nothing.
    #[expect(clippy::unused_async, reason = "a store is asked over the network")]
    pub async fn take(&self, asks: &[Ask<'_>], now: Micros) -> Verdict {
        let (mut locked, places) = self.cells.lock(asks, now);
        let slots = self.look(asks, &places, |place| locked.get(place).map(|cell| cell.state), now);
        let admitted = slots.iter().all(|slot| slot.wait == 0);
        if admitted {
            for slot in &slots {
                locked.set(&slot.place, slot.after);
            }
        }
        rows(&slots, admitted, now)
    }

    /// Counters and sizes.
    pub fn stats(&self) -> Stats {
        let (cells, evictions, overflows) = self.cells.counts();
        Stats { cells, evictions, overflows }
    }

    /// What each ask would lead to. Of asks that share a cell, a later one finds what the earlier ones would leave.
    fn look(
        &self,
        asks: &[Ask<'_>],
        places: &[Place],
        state: impl Fn(&Place) -> Option<State>,
        now: Micros,
    ) -> Few<Slot> {
        let share = Share::unpack(self.share.load(Ordering::Relaxed));
        let mut slots = Few::<Slot>::new();
        for (ask, place) in std::iter::zip(asks, places) {
            let terms = ask.rate.terms(share, ask.cost());
            let same = slots.iter().rfind(|slot| slot.place == *place).map(|same| (same.before, same.after));
            let (before, from) = same.unwrap_or_else(|| {
                let state = terms.current(state(place), now);
                (state, state)
            });
            let charge = terms.charge(from, ask.cost(), now);
            slots.push(Slot { place: *place, terms, before, after: charge.after, wait: charge.wait });
        }
        slots
    }
}

fn rows(slots: &[Slot], consumed: bool, now: Micros) -> Verdict {
    let row = |slot: &Slot| {
        let state = if consumed { &slot.after } else { &slot.before };
        Row {
            outcome: if slot.wait == 0 { Outcome::Granted } else { Outcome::Refused },
            remaining: slot.terms.remaining(state, now),
            retry_after: slot.wait,
            full_after: Terms::full_after(state, now),
            source: Source::Memory,
        }
    };
    Verdict { rows: slots.iter().map(row).collect() }
}
