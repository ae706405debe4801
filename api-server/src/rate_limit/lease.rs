//! What a replica holds of a bucket that all replicas share.
//!
//! Tokens are leased a few at a time, ahead of the requests that will want them, so that most requests are decided here.
//! All tokens come from the shared bucket first, so from a fresh start never more than `burst + rate · t` are admitted.
//! As a leased token may be spent up to [`LIFE`] after the bucket gave it out, a window that begins later may see up to
//! `rate · LIFE` more. What was not spent by then goes back with the next call.
//!
//! What the store said last stays known here. It refuses without a call while the bucket cannot have what is asked for,
//! and it is what a replica goes on from when the store is lost: in units of time, a part of a rate is as full as the
//! whole, so losing the store gives nobody a second burst. Nor does finding it again, emptied or not: the store is told
//! how full the bucket is at least. As far as this replica knows, that is: of what others took since, it knows nothing.

use super::limiter::Share;
use super::rate::{Algorithm, COST_MAX, Micros, Rate, State, Terms};

/// How long leased tokens may be spent.
pub(super) const LIFE: Micros = 100_000;
/// How long a lease should last.
const TARGET: Micros = 50_000;
/// At most this part of the burst is leased, by all replicas together.
const PART: u64 = 4;

/// Tokens leased, and what is known of the bucket they are from. Times are the store's.
#[derive(Debug, Default)]
pub(super) struct Lease {
    balance: u64,
    granted_at: Micros,
    /// The last lease, with what the request that asked for it needed itself.
    size: u64,
    /// A request is under way that asks for more than it needs; others ask for no more than that.
    pub asking: bool,
    /// The base of the bucket when the store last spoke of it. None: the state is of this replica's own making, and counts
    /// its part only.
    base: Option<Micros>,
    heard_at: Micros,
    /// After a refusal the store is not asked again before.
    rests_until: Micros,
}

/// What a call asks and gives back for one bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// On top of what the request needs.
    pub want: u64,
    pub divisor: u64,
    /// Tokens given back, and when they were granted.
    pub back: (u64, Micros),
    pub base: Option<Micros>,
    /// Whether it asks for a lease.
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
        !self.asking && (self.balance == 0 || self.granted_at.abs_diff(now) >= LIFE)
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
    pub(super) fn wish(&mut self, rate: &Rate, share: Share, cost: u64, now: Micros) -> Wish {
        let wish = Wish { divisor: 1, base: self.base, ..Wish::default() };
        if std::mem::replace(&mut self.asking, true) {
            return wish;
        }
        let used_up = self.balance < cost && self.granted_at.abs_diff(now) <= TARGET;
        let size = if used_up { self.size * 2 } else { self.size / 2 };
        Wish {
            want: size.clamp(cost, most(rate, share).max(cost)) - cost,
            divisor: if rate.algorithm() == Algorithm::FixedWindow { parts(share) } else { 1 },
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
            self.rests_until = now + most * u64::from(share.replicas.max(1)) * rate.period() / rate.requests();
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

fn parts(share: Share) -> u64 {
    PART * u64::from(share.replicas.max(1))
}

/// The largest lease.
fn most(rate: &Rate, share: Share) -> u64 {
    let target = rate.requests() * TARGET / rate.period() / u64::from(share.replicas.max(1));
    target.min(rate.burst() / parts(share)).min(COST_MAX)
}

/// What is remembered of one bucket.
#[derive(Debug)]
pub(super) struct Cell {
    state: State,
    /// With a store only.
    lease: Option<Box<Lease>>,
}

impl Cell {
    /// A cell that nothing was taken from.
    pub(super) fn new(state: State) -> Self {
        Self { state, lease: None }
    }

    pub(super) fn idle(&self, now: Micros) -> bool {
        self.state.idle(now) && self.lease.as_ref().is_none_or(|lease| lease.idle(now))
    }

    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_deref()
    }

    pub(super) fn lease_mut(&mut self) -> &mut Lease {
        self.lease.get_or_insert_default()
    }

    fn base(&self) -> Option<Micros> {
        self.lease.as_ref().and_then(|lease| lease.base)
    }

    /// The state in which this replica's part of the bucket is.
    pub(super) fn part(&self, share: Share) -> State {
        let replicas = u64::from(share.replicas.max(1));
        if self.base().is_some() { self.state.with_count(|count| count.div_ceil(replicas)) } else { self.state }
    }

    /// The state in which the whole bucket is, if the other replicas do as this one does.
    pub(super) fn whole(&self, share: Share) -> State {
        let replicas = u64::from(share.replicas.max(1));
        if self.base().is_some() { self.state } else { self.state.with_count(|count| count.saturating_mul(replicas)) }
    }

    /// This replica counted for itself.
    pub(super) fn set_part(&mut self, state: State) {
        self.state = state;
        if let Some(lease) = &mut self.lease {
            lease.base = None;
        }
    }

    /// The store spoke, in answer to a call that knew the bucket by `known`.
    pub(super) fn set_whole(&mut self, state: State, base: Micros, known: Option<Micros>, now: Micros) {
        let lease = self.lease.get_or_insert_default();
        // Answers overtake each other, and one to a question from before this replica had to count for itself leaves out
        // what it granted since.
        if now < lease.heard_at || (lease.base.is_none() && known.is_some()) {
            return;
        }
        lease.heard_at = now;
        lease.base = Some(base);
        self.state = state;
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
    fn a_late_answer_does_not_hide_what_a_replica_granted_by_itself() {
        let state = |count| State::Window { start: NOW, end: NOW + 60_000_000, count };
        let mut cell = Cell::new(state(0));
        cell.set_whole(state(30), 7, None, NOW);
        assert_eq!((cell.whole(THREE), cell.part(THREE)), (state(30), state(10)));
        cell.set_whole(state(29), 7, Some(7), NOW - 1);
        assert_eq!(cell.whole(THREE), state(30), "an older answer");
        cell.set_part(state(11));
        cell.set_whole(state(31), 7, Some(7), NOW + 1);
        assert_eq!((cell.whole(THREE), cell.part(THREE)), (state(33), state(11)));
        cell.set_whole(state(34), 8, None, NOW + 2);
        assert_eq!(cell.whole(THREE), state(34));
    }
}
