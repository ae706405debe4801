//! What was taken, by key, in bounded memory.
//!
//! Keys come from strangers, who must not be able to fill the memory or to choose what collides: a key is kept as a hash
//! of 64 bits with a secret of this process (SipHash). That two of 100,000 keys share one is less likely than 1 in 10⁹.
//! When a shard is full, what is idle goes first, which changes no decision. If all of it is live, a new key shares a cell
//! with its neighbours (see [`Ask::coarse`]): live cells are never given up, so a flood of new keys does not touch what was
//! counted for others.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use smallvec::SmallVec;

use super::lease::Cell;
use super::limiter::Ask;
use super::rate::{Micros, State};

/// As many as are kept without asking for memory; more are fine.
pub(super) type Few<T> = SmallVec<[T; 8]>;

const SHARDS_MAX: usize = 64;
/// The bits of a key that choose its shard are not those that choose its place in there.
const SHARD_BITS: u32 = 32;
/// Fewer than these are not worth a lock of their own.
const SHARD_CELLS_MIN: usize = 256;
/// A full shard is searched for idle cells this often at most, however many new keys arrive.
const SWEEP_INTERVAL: Micros = 1_000_000;
/// Shared cells for each rate and shard.
const FOLDS: u8 = 64;

/// What stands for a key.
type Key = u64;

/// Takes a number that is a hash already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Map = HashMap<Key, Cell, BuildHasherDefault<Hashed>>;

#[derive(Debug, Default)]
struct Shard {
    own: Map,
    shared: Map,
    swept: Option<Micros>,
}

/// The memory of a limiter.
#[derive(Debug)]
pub(super) struct Cells {
    shards: Box<[Mutex<Shard>]>,
    /// Cells of their own that a shard may hold.
    capacity: usize,
    secret: RandomState,
    evictions: AtomicU64,
    overflows: AtomicU64,
}

/// Which cell an ask uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    shard: usize,
    key: Key,
    /// Which of the shared cells of the ask's rate it is, if memory is full.
    pub fold: Option<u8>,
}

impl Cells {
    /// Room for `capacity` keys (at least one).
    pub(super) fn new(capacity: usize) -> Self {
        let shards = (capacity / SHARD_CELLS_MIN).clamp(1, SHARDS_MAX);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            capacity: (capacity / shards).max(1),
            secret: RandomState::new(),
            evictions: AtomicU64::new(0),
            overflows: AtomicU64::new(0),
        }
    }

    fn key(&self, of: impl Hash) -> Key {
        self.secret.hash_one(&of)
    }

    fn shard(&self, key: Key) -> usize {
        let shards = self.shards.len() as u64;
        usize::try_from((key >> SHARD_BITS) % shards).unwrap_or(0)
    }

    fn guard(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks what the asks need, and finds each ask its cell.
    pub(super) fn lock(&self, asks: &[Ask<'_>], now: Micros) -> (Locked<'_>, Few<Place>) {
        let own = |ask: &Ask<'_>| {
            let key = self.key(ask.key);
            Place { shard: self.shard(key), key, fold: None }
        };
        let mut places: Few<Place> = asks.iter().map(own).collect();
        let mut locked = self.relock(&places);
        for (ask, place) in std::iter::zip(asks, &mut places) {
            self.settle(ask, place, locked.guard(place), now);
        }
        (locked, places)
    }

    /// Locks what was found before, in an order that is the same for all.
    pub(super) fn relock(&self, places: &[Place]) -> Locked<'_> {
        let mut shards: Few<usize> = places.iter().map(|place| place.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        let guards = shards.iter().map(|shard| Guard { shard: self.guard(*shard), promised: 0 }).collect();
        Locked { shards, guards }
    }

    /// Moves an ask to a shared cell if there is no room for its own.
    fn settle(&self, ask: &Ask<'_>, place: &mut Place, locked: &mut Guard<'_>, now: Micros) {
        if locked.shard.own.contains_key(&place.key) {
            return;
        }
        if locked.full(self.capacity) {
            self.sweep(&mut locked.shard, now);
        }
        if !locked.full(self.capacity) {
            locked.promised += 1;
            return;
        }
        self.overflows.fetch_add(1, Ordering::Relaxed);
        // Cells are shared within a rate: a lenient one must not forgive what a strict one counted, or the reverse.
        let fold = digest(&SHA256, ask.coarse).as_ref()[0] % FOLDS;
        place.key = self.key((ask.rate, fold));
        place.fold = Some(fold);
    }

    fn sweep(&self, shard: &mut Shard, now: Micros) {
        if shard.swept.is_some_and(|swept| swept.abs_diff(now) < SWEEP_INTERVAL) {
            return;
        }
        shard.swept = Some(now);
        let before = shard.own.len();
        shard.own.retain(|_, cell| !cell.idle(now));
        shard.shared.retain(|_, cell| !cell.idle(now));
        self.evictions.fetch_add((before - shard.own.len()) as u64, Ordering::Relaxed);
    }

    /// How many are held now, how many idle ones were swept, and how often a shared one had to do.
    pub(super) fn counts(&self) -> (usize, u64, u64) {
        let held = (0..self.shards.len()).map(|shard| {
            let shard = self.guard(shard);
            shard.own.len() + shard.shared.len()
        });
        (held.sum(), self.evictions.load(Ordering::Relaxed), self.overflows.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
struct Guard<'a> {
    shard: MutexGuard<'a, Shard>,
    /// Places given out for cells that are not there yet.
    promised: usize,
}

impl Guard<'_> {
    fn full(&self, capacity: usize) -> bool {
        self.shard.own.len() + self.promised >= capacity
    }
}

/// The shards of one request's cells, locked.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    /// In ascending order, as are their guards.
    shards: Few<usize>,
    guards: Few<Guard<'a>>,
}

impl<'a> Locked<'a> {
    fn guard(&mut self, place: &Place) -> &mut Guard<'a> {
        let at = self.shards.binary_search(&place.shard).unwrap_or(0);
        &mut self.guards[at]
    }

    fn cells(&mut self, place: &Place) -> &mut Map {
        let shard = &mut *self.guard(place).shard;
        if place.fold.is_some() { &mut shard.shared } else { &mut shard.own }
    }

    pub(super) fn get(&mut self, place: &Place) -> Option<&mut Cell> {
        self.cells(place).get_mut(&place.key)
    }

    /// The cell, new and in this state if there was none.
    pub(super) fn get_or_insert(&mut self, place: &Place, state: State) -> &mut Cell {
        self.cells(place).entry(place.key).or_insert_with(|| Cell::new(state))
    }
}
