//! What a replica holds of a bucket that all replicas share.
//!
//! Tokens are leased a few at a time, ahead of the requests that will want them, so that most requests are decided here.
//! All tokens come from the shared bucket first, so from a fresh start never more than `burst + rate · t` are admitted. In a
//! window that begins later, what was out at its beginning may come on top: all leases together are what the rate gives in
//! [`TARGET`]. A token is spent within [`LIFE`], or goes back with the next call.
//!
//! What the store said last stays known here. It refuses without a call while the bucket cannot have what is asked for,
//! and it is what a replica goes on from when the store is lost: in units of time, a part of a rate is as full as the
//! whole, so losing the store gives nobody a second burst. Nor does finding it again, emptied or not: the store is told
//! how full the bucket was, and is charged what was granted without it, by all replicas at the same moment, as that is when
//! they look for it. What is forgotten is only what a replica took between another's last call and the loss.

use super::limiter::Share;
use super::rate::{Algorithm, COST_MAX, Micros, Rate, State, Terms};

/// How long leased tokens may be spent.
pub(super) const LIFE: Micros = 100_000;
/// How long a lease should last.
const TARGET: Micros = 50_000;
/// At most this part of the burst is leased, by all replicas together.
const PART: u64 = 4;
const SECOND: Micros = 1_000_000;

/// Tokens leased, and what is known of the bucket they are from. Times are the store's.
#[derive(Debug, Default)]
pub(super) struct Lease {
    balance: u64,
    granted_at: Micros,
    /// The last lease, with what the request that asked for it needed itself.
    size: u64,
    /// A request is under way that asks for more than it needs; others ask for no more than that.
    pub asking: bool,
    /// The base of the bucket when the store last spoke of it.
    base: Option<Micros>,
    heard_at: Micros,
    /// After a refusal the store is not asked again before.
    rests_until: Micros,
    /// This replica's part, if it granted anything without the store since.
    part: Option<State>,
}

/// What a call asks, gives back and tells of one bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// On top of what the request needs.
    pub want: u64,
    pub divisor: u64,
    /// Tokens given back, and when they were granted.
    pub back: (u64, Micros),
    pub base: Option<Micros>,
    /// How full the bucket was: µs until all is there again, or when its window began and the count since.
    pub floor: (u64, u64),
    /// What was granted without the store: µs, or a count in that window.
    pub debt: u64,
    part: Option<State>,
    /// Whether it asks for a lease, and pays the debt.
    pub leads: bool,
}

impl Lease {
    /// Tokens that may be spent now. Those of a window end with it.
    pub(super) fn spendable(&self, terms: &Terms, now: Micros) -> u64 {
        let live = self.granted_at.abs_diff(now) < LIFE && terms.same_window(self.granted_at, now);
        if live { self.balance } else { 0 }
    }

    /// Whether it holds tokens, were it only to give them back.
    pub(super) fn holds(&self) -> bool {
        self.balance > 0
    }

    /// Whether nothing would be lost with it.
    pub(super) fn idle(&self, now: Micros) -> bool {
        let spent = self.balance == 0 || self.granted_at.abs_diff(now) >= LIFE;
        spent && !self.asking && self.part.is_none_or(|part| part.idle(now))
    }

    /// Spends tokens, which must be [`Self::spendable`], and says when they were granted.
    pub(super) fn spend(&mut self, tokens: u64) -> Micros {
        self.balance = self.balance.saturating_sub(tokens);
        self.granted_at
    }

    /// Takes back what was spent for nothing. All tokens then count as old as the oldest.
    pub(super) fn unspend(&mut self, tokens: u64, granted_at: Micros) {
        self.granted_at = if self.balance == 0 { granted_at } else { self.granted_at.min(granted_at) };
        self.balance += tokens;
    }

    /// What to ask the store for, along with `cost`. A lease that was used up in half its life is followed by one of twice
    /// the size, any other by one of half the size.
    fn wish(&mut self, rate: &Rate, share: Share, cost: u64, now: Micros) -> Wish {
        let wish = Wish { divisor: 1, base: self.base, ..Wish::default() };
        if std::mem::replace(&mut self.asking, true) {
            return wish;
        }
        let used_up = self.balance < cost && self.granted_at.abs_diff(now) <= TARGET;
        let size = if used_up { self.size * 2 } else { self.size / 2 };
        Wish {
            want: size.clamp(cost, most(rate, share).max(cost)) - cost,
            divisor: if rate.algorithm() == Algorithm::FixedWindow { PART * replicas(share) } else { 1 },
            back: (std::mem::take(&mut self.balance), self.granted_at),
            leads: true,
            ..wish
        }
    }

    /// The store refused. Where leases are worth while it is not asked again at the next token, which others want as well,
    /// but when all replicas can have a lease: little is lost by that, as the bucket is far from full, and under load it
    /// saves most of the calls.
    pub(super) fn refused(&mut self, rate: &Rate, share: Share, cost: u64, now: Micros) {
        let most = most(rate, share);
        if most > cost {
            self.rests_until = now + most * replicas(share) * rate.period() / rate.requests();
        }
    }

    /// For how long the store is not asked.
    pub(super) fn rest(&self, now: Micros) -> Micros {
        // More than that is what a clock stepping back makes of it.
        Some(self.rests_until.saturating_sub(now)).filter(|rest| *rest <= TARGET).unwrap_or(0)
    }

    /// The lease was granted.
    pub(super) fn granted(&mut self, cost: u64, extra: u64, now: Micros) {
        self.size = cost + extra;
        self.unspend(extra, now);
    }
}

fn replicas(share: Share) -> u64 {
    share.replicas.max(1).into()
}

/// The largest lease.
fn most(rate: &Rate, share: Share) -> u64 {
    let target = rate.requests() * TARGET / rate.period() / replicas(share);
    target.min(rate.burst() / PART / replicas(share)).min(COST_MAX)
}

/// A [`State`] in less memory: with many keys, what takes time is how few of them the processor's cache holds.
#[derive(Debug, Clone, Copy)]
enum Packed {
    /// The TAT as its bytes, which need no alignment.
    Gcra { tat: [u8; 16], requests: u32 },
    /// Windows are whole seconds long.
    Window { start: Micros, count: u64, seconds: u32 },
}
const _: () = assert!(size_of::<Packed>() == 24);

impl From<State> for Packed {
    fn from(state: State) -> Self {
        match state {
            State::Gcra { tat, requests } => Self::Gcra { tat: tat.to_ne_bytes(), requests },
            State::Window { start, end, count } => {
                let seconds = u32::try_from(end.saturating_sub(start) / SECOND).unwrap_or(u32::MAX);
                Self::Window { start, count, seconds }
            }
        }
    }
}

impl From<Packed> for State {
    fn from(packed: Packed) -> Self {
        match packed {
            Packed::Gcra { tat, requests } => Self::Gcra { tat: u128::from_ne_bytes(tat), requests },
            Packed::Window { start, count, seconds } => {
                Self::Window { start, end: start.saturating_add(u64::from(seconds) * SECOND), count }
            }
        }
    }
}

/// What is remembered of one bucket.
#[derive(Debug)]
pub(super) struct Cell {
    state: Packed,
    /// With a store only.
    lease: Option<Box<Lease>>,
}

impl Cell {
    /// A cell that nothing was taken from.
    pub(super) fn new(state: State) -> Self {
        Self { state: state.into(), lease: None }
    }

    pub(super) fn idle(&self, now: Micros) -> bool {
        self.state().idle(now) && self.lease.as_ref().is_none_or(|lease| lease.idle(now))
    }

    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_deref()
    }

    pub(super) fn lease_mut(&mut self) -> &mut Lease {
        self.lease.get_or_insert_default()
    }

    /// What is known of the bucket: of all of it with a store, of this replica's part without.
    pub(super) fn state(&self) -> State {
        self.state.into()
    }

    /// Takes over terms that the rate has now: it was edited, or the clock stepped back.
    pub(super) fn adapt(&mut self, terms: &Terms, now: Micros) {
        if terms.differ(&self.state(), now) {
            self.state = terms.current(Some(self.state()), now).into();
        }
    }

    /// The same for what was granted without the store.
    pub(super) fn adapt_part(&mut self, terms: &Terms, now: Micros) {
        if let Some(part) = self.lease.as_mut().and_then(|lease| lease.part.as_mut())
            && terms.differ(part, now)
        {
            *part = terms.current(Some(*part), now);
        }
    }

    /// The state of this replica's part.
    pub(super) fn part(&self, share: Share) -> State {
        let Some(lease) = &self.lease else { return self.state() };
        lease.part.unwrap_or_else(|| self.state().with_count(|count| count.div_ceil(replicas(share))))
    }

    /// This replica granted something of its part; `alone`, of what the store counts otherwise.
    pub(super) fn grant(&mut self, part: State, alone: bool) {
        if alone {
            self.lease_mut().part = Some(part);
        } else {
            self.state = part.into();
        }
    }

    /// What to ask and tell the store, along with `cost`.
    pub(super) fn wish(&mut self, rate: &Rate, share: Share, cost: u64, now: Micros) -> Wish {
        let wish = self.lease_mut().wish(rate, share, cost, now);
        let part = self.lease().and_then(|lease| lease.part).filter(|_| wish.leads);
        let (floor, debt) = match (self.state(), part) {
            (State::Window { start, count, .. }, Some(State::Window { start: current, count: granted, .. }))
                if current >= start =>
            {
                let known = if current == start { count } else { 0 };
                ((current, known), granted.saturating_sub(known.div_ceil(replicas(share))))
            }
            (State::Window { start, count, .. }, _) => ((start, count), 0),
            (state @ State::Gcra { .. }, part) => {
                let known = Terms::full_after(&state, now);
                let full_after = part.map_or(0, |part| Terms::full_after(&part, now));
                // A part takes as long to come back as the whole; of the whole it is one of so many.
                ((known, 0), full_after.saturating_sub(known).div_ceil(replicas(share)))
            }
        };
        Wish { floor, debt, part, ..wish }
    }

    /// The store spoke, in answer to `wish`.
    pub(super) fn heard(&mut self, state: State, base: Micros, wish: &Wish, now: Micros) {
        let lease = self.lease.get_or_insert_default();
        if wish.leads {
            lease.asking = false;
            // What was granted since is told the next time.
            lease.part = lease.part.filter(|part| wish.part != Some(*part));
        }
        // Answers overtake each other.
        if now >= lease.heard_at {
            lease.heard_at = now;
            lease.base = Some(base);
            self.state = state.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = 1_767_225_600_000_000;
    const THREE: Share = Share { replicas: 3, rank: 1 };

    fn rate() -> Rate {
        // A lease is at most 16 tokens: 3000 in 50 ms would be 50, but a quarter of the burst is 48 for all.
        Rate::new(Algorithm::Gcra, 3_000, 1, 192).unwrap()
    }

    /// Asks for one more, gets it and all that is wanted on top.
    fn grant(lease: &mut Lease, now: Micros) -> Wish {
        let wish = lease.wish(&rate(), THREE, 1, now);
        lease.asking = false;
        lease.granted(1, wish.want, now);
        wish
    }

    #[test]
    fn leases_grow_while_they_are_used_up_and_shrink_when_not() {
        let mut lease = Lease::default();
        let mut now = NOW;
        for expected in [1, 2, 4, 8, 16, 16] {
            assert_eq!(grant(&mut lease, now).want + 1, expected);
            lease.spend(expected - 1);
            now += TARGET;
        }
        for expected in [8, 4, 2, 1, 1] {
            now += LIFE;
            assert_eq!(grant(&mut lease, now).want + 1, expected);
        }
    }

    #[test]
    fn what_was_not_spent_goes_back_once() {
        let mut lease = Lease::default();
        for now in [NOW, NOW + 1, NOW + 2] {
            grant(&mut lease, now);
            lease.spend(lease.balance);
        }
        grant(&mut lease, NOW + 3);
        assert_eq!(grant(&mut lease, NOW + 4).back, (7, NOW + 3));
        let (first, second) = (lease.wish(&rate(), THREE, 1, NOW + LIFE), lease.wish(&rate(), THREE, 1, NOW + LIFE));
        assert_eq!((first.leads, second.leads), (true, false));
        assert_eq!((first.back.1, second.back, second.want), (NOW + 4, (0, 0), 0));
    }

    #[test]
    fn tokens_are_spent_while_they_live() {
        let gcra = rate().terms(Share::WHOLE, 1);
        let window = Rate::new(Algorithm::FixedWindow, 9, 60, 1).unwrap().terms(Share::WHOLE, 1);
        let mut lease = Lease::default();
        lease.granted(1, 5, NOW - 1);
        assert_eq!((lease.spendable(&gcra, NOW), lease.spendable(&window, NOW)), (5, 0), "a window began");
        assert_eq!((lease.spendable(&gcra, NOW - 2), lease.spendable(&window, NOW - 2)), (5, 5));
        assert_eq!((lease.spendable(&gcra, NOW + LIFE - 2), lease.spendable(&gcra, NOW + LIFE - 1)), (5, 0));
        assert!(lease.holds() && lease.idle(NOW + LIFE) && !lease.idle(NOW));
    }

    #[test]
    fn what_was_spent_for_nothing_comes_back_as_old_as_it_was() {
        let terms = rate().terms(Share::WHOLE, 1);
        let mut lease = Lease::default();
        lease.granted(1, 5, NOW);
        let granted_at = lease.spend(5);
        lease.unspend(5, granted_at);
        assert_eq!((lease.spendable(&terms, NOW), lease.granted_at), (5, NOW));
        lease.spend(5);
        lease.granted(1, 3, NOW + 50_000);
        lease.unspend(5, granted_at);
        assert_eq!((lease.spendable(&terms, NOW + 50_000), lease.granted_at), (8, NOW));
    }

    #[test]
    fn a_refusal_rests_for_a_lease_of_all() {
        let mut lease = Lease::default();
        lease.refused(&rate(), THREE, 1, NOW);
        assert_eq!((lease.rest(NOW), lease.rest(NOW + 16_000)), (16_000, 0));
        assert_eq!(lease.rest(NOW - 1_000_000), 0, "the clock stepped back");
        let slow = Rate::new(Algorithm::Gcra, 10, 1, 100).unwrap();
        let mut lease = Lease::default();
        lease.refused(&slow, THREE, 1, NOW);
        assert_eq!(lease.rest(NOW), 0);
    }

    #[test]
    fn what_was_granted_alone_is_owed_once() {
        let state = |count| State::Window { start: NOW, end: NOW + 60_000_000, count };
        let rate = Rate::new(Algorithm::FixedWindow, 90, 60, 1).unwrap();
        let mut cell = Cell::new(state(0));
        let wish = cell.wish(&rate, THREE, 1, NOW);
        cell.heard(state(31), 7, &wish, NOW);
        assert_eq!((cell.state(), cell.part(THREE)), (state(31), state(11)));
        cell.heard(state(30), 7, &wish, NOW - 1);
        assert_eq!(cell.state(), state(31), "an older answer");

        cell.grant(state(15), true);
        assert_eq!((cell.state(), cell.part(THREE)), (state(31), state(15)));
        let (wish, other) = (cell.wish(&rate, THREE, 1, NOW), cell.wish(&rate, THREE, 1, NOW));
        assert_eq!((wish.floor, wish.debt, other.debt), ((NOW, 31), 4, 0));
        // One more while the call is under way: then nothing is taken for paid that was not told.
        cell.grant(state(16), true);
        cell.heard(state(36), 7, &wish, NOW + 1);
        let wish = cell.wish(&rate, THREE, 1, NOW);
        assert_eq!((wish.base, wish.floor, wish.debt), (Some(7), (NOW, 36), 4));
        cell.heard(state(40), 7, &wish, NOW + 2);
        assert_eq!(cell.wish(&rate, THREE, 1, NOW).debt, 0);
        assert_eq!(cell.part(THREE), state(14));
    }

    #[test]
    fn a_debt_is_this_replicas_part_of_the_time() {
        let rate = rate();
        let state = |after: u64| State::Gcra { tat: u128::from(NOW + after) * 3_000, requests: 3_000 };
        let mut cell = Cell::new(state(10_000));
        cell.grant(state(40_000), true);
        for (now, floor, debt) in [(0, 10_000, 10_000), (10_000, 0, 10_000), (25_000, 0, 5_000), (40_000, 0, 0)] {
            let wish = cell.wish(&rate, THREE, 1, NOW + now);
            assert_eq!((wish.floor, wish.debt), ((floor, 0), debt));
            cell.lease_mut().asking = false;
        }
    }

    #[test]
    fn of_an_earlier_window_nothing_is_owed() {
        let state = |start, count| State::Window { start, end: start + 60_000_000, count };
        let rate = Rate::new(Algorithm::FixedWindow, 90, 60, 1).unwrap();
        let (mut before, mut after) = (Cell::new(state(NOW, 5)), Cell::new(state(NOW, 5)));
        before.grant(state(NOW - 60_000_000, 9), true);
        after.grant(state(NOW + 60_000_000, 9), true);
        let (before, after) = (before.wish(&rate, THREE, 1, NOW), after.wish(&rate, THREE, 1, NOW));
        assert_eq!((before.floor, before.debt), ((NOW, 5), 0));
        assert_eq!((after.floor, after.debt), ((NOW + 60_000_000, 0), 9));
    }
}
