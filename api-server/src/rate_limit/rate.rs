//! One rate, and the arithmetic of what was taken under it.
//!
//! GCRA remembers one time, the *theoretical arrival time* (TAT): how far what was taken reaches into the future. Time is
//! counted in units of 1/requests µs, so that a token costs exactly one period of them: no division, no drift, whatever
//! the rate. In any window of `w` seconds at most `burst + requests · w / period` are admitted.
//!
//! A fixed window counts what was taken since the window began. Windows are aligned to the Unix epoch, in UTC.

use super::limiter::Share;

/// Microseconds since the Unix epoch.
pub type Micros = u64;

/// The most that one request is charged.
pub const COST_MAX: u64 = 1_000_000;

const REQUESTS_MAX: u64 = 1_000_000_000;
const PERIOD_SECONDS_MAX: u64 = 2_678_400;
const BURST_FACTOR_MAX: u64 = 100;

/// How a rate is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Tokens that come back one by one, up to a burst.
    Gcra,
    /// A quota per window of the calendar: never more than `requests` between two boundaries.
    FixedWindow,
}

/// Why a rate was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRate {
    /// 1 to 1 000 000 000.
    #[error("requests must be from 1 to {REQUESTS_MAX}")]
    Requests,
    /// 1 to 2 678 400, which is 31 days.
    #[error("the period must be from 1 to {PERIOD_SECONDS_MAX} seconds")]
    Period,
    /// 1 to 100 times the requests.
    #[error("the burst must be from 1 to {BURST_FACTOR_MAX} times the requests")]
    Burst,
}

/// So many requests per period, checked when made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    algorithm: Algorithm,
    requests: u32,
    period_seconds: u32,
    burst: u64,
}

impl Rate {
    /// `requests` per `period_seconds`. `burst` is how many may come at once; a fixed window has none and ignores it.
    pub fn new(algorithm: Algorithm, requests: u64, period_seconds: u64, burst: u64) -> Result<Self, InvalidRate> {
        let within =
            |value: u64, max: u64| u32::try_from(value).ok().filter(|value| *value > 0 && u64::from(*value) <= max);
        let burst = match algorithm {
            Algorithm::Gcra => burst,
            Algorithm::FixedWindow => requests,
        };
        let rate = Self {
            algorithm,
            requests: within(requests, REQUESTS_MAX).ok_or(InvalidRate::Requests)?,
            period_seconds: within(period_seconds, PERIOD_SECONDS_MAX).ok_or(InvalidRate::Period)?,
            burst,
        };
        if (1..=BURST_FACTOR_MAX * requests).contains(&burst) { Ok(rate) } else { Err(InvalidRate::Burst) }
    }

    /// How it is counted.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Requests per period.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.into()
    }

    /// The period, in seconds.
    #[must_use]
    pub fn period_seconds(&self) -> u64 {
        self.period_seconds.into()
    }

    /// The most that may come at once; of a fixed window its quota.
    #[must_use]
    pub const fn burst(&self) -> u64 {
        self.burst
    }

    pub(super) fn period(&self) -> Micros {
        self.period_seconds() * 1_000_000
    }

    /// The part of the rate that `share` may grant. Parts add up to the whole, but for one thing: where the burst is less
    /// than a request per replica, each still has room for one request of `cost`, lest it refuse its clients for ever.
    pub(super) fn terms(&self, share: Share, cost: u64) -> Terms {
        let replicas = u64::from(share.replicas.max(1));
        let part = |whole: u64| whole / replicas + u64::from(u64::from(share.rank) < whole % replicas);
        let (token, tokens) = match self.algorithm {
            Algorithm::Gcra => {
                let burst = part(self.burst).max(cost.min(self.burst));
                (u128::from(self.period()) * u128::from(replicas), burst)
            }
            Algorithm::FixedWindow => (1, part(self.requests())),
        };
        Terms {
            algorithm: self.algorithm,
            requests: self.requests,
            period: self.period(),
            token,
            room: u128::from(tokens) * token,
        }
    }
}

/// What was taken from a bucket. Times are absolute, so that nothing has to be done while time passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The TAT, in units of 1/`requests` µs.
    Gcra { tat: u128, requests: u32 },
    /// `count` tokens since `start`.
    Window { start: Micros, end: Micros, count: u64 },
}

impl State {
    /// With another count, if it is a window's.
    pub(super) fn with_count(self, other: impl FnOnce(u64) -> u64) -> Self {
        match self {
            Self::Window { start, end, count } => Self::Window { start, end, count: other(count) },
            Self::Gcra { .. } => self,
        }
    }

    /// Whether it is as good as forgotten.
    pub(super) fn idle(&self, now: Micros) -> bool {
        match *self {
            Self::Gcra { tat, requests } => tat <= units(now, requests),
            Self::Window { end, .. } => end <= now,
        }
    }
}

/// A rate as it is counted by somebody: by one replica, or by all together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    algorithm: Algorithm,
    requests: u32,
    period: Micros,
    /// What one token costs: units of 1/`requests` µs, or a count of one.
    token: u128,
    /// How much may be used, in the same.
    room: u128,
}

/// What a charge leads to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Charge {
    /// The state if it is made.
    pub after: State,
    /// 0: it may be made now; otherwise how long until it may.
    pub wait: Micros,
}

impl Terms {
    /// What a remembered state means now and under these terms, which may not be those it was written under:
    /// units are converted, rounding against the client, and nothing is owed for longer than these terms can make it.
    /// This also repairs a TAT that a clock stepping back left too far in the future.
    pub(super) fn current(&self, remembered: Option<State>, now: Micros) -> State {
        match (self.algorithm, remembered.filter(|state| !state.idle(now))) {
            (Algorithm::Gcra, Some(State::Gcra { tat, requests })) => {
                let tat = if requests == self.requests {
                    tat
                } else {
                    tat.div_ceil(u128::from(requests.max(1))) * u128::from(self.requests)
                };
                let now = units(now, self.requests);
                State::Gcra { tat: tat.clamp(now, now + self.room), requests: self.requests }
            }
            (Algorithm::Gcra, _) => State::Gcra { tat: units(now, self.requests), requests: self.requests },
            // A clock that stepped back does not open the same window a second time: up to a period ahead, the later one
            // goes on. What was counted stays counted if all of it falls into the window as it is now.
            (Algorithm::FixedWindow, Some(State::Window { start, count, .. })) => {
                let window = self.window(start.clamp(now, now.saturating_add(self.period)));
                State::Window { count: if start >= window.0 { count } else { 0 }, start: window.0, end: window.1 }
            }
            (Algorithm::FixedWindow, _) => {
                let (start, end) = self.window(now);
                State::Window { start, end, count: 0 }
            }
        }
    }

    /// Whether a state is not as these terms would have it, and is to be kept as [`Self::current`] has it from now on:
    /// what is cut off at each look anew never ends.
    pub(super) fn differ(&self, state: &State, now: Micros) -> bool {
        match *state {
            State::Gcra { tat, requests } => {
                self.algorithm == Algorithm::Gcra
                    && (requests != self.requests || tat > units(now, requests) + self.room)
            }
            State::Window { .. } => false,
        }
    }

    pub(super) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether no boundary lies between two times. GCRA has none.
    pub(super) fn same_window(&self, one: Micros, other: Micros) -> bool {
        self.algorithm == Algorithm::Gcra || self.window(one) == self.window(other)
    }

    /// In numbers that are small enough for the store: the scale (requests per period, or the length of the window), and
    /// token and room, as whole µs and a rest in 1/scale µs, or as counts.
    pub(super) fn parts(&self) -> (u64, (u64, u64), (u64, u64)) {
        let scale = match self.algorithm {
            Algorithm::Gcra => u64::from(self.requests),
            Algorithm::FixedWindow => return (self.period, (1, 0), (narrow(self.room), 0)),
        };
        let part = |units: u128| (narrow(units / u128::from(scale)), narrow(units % u128::from(scale)));
        (scale, part(self.token), part(self.room))
    }

    /// A state as the store tells it.
    pub(super) fn state(&self, x: u64, y: u64) -> State {
        match self.algorithm {
            Algorithm::Gcra => State::Gcra { tat: units(x, self.requests) + u128::from(y), requests: self.requests },
            Algorithm::FixedWindow => State::Window { start: x, end: x.saturating_add(self.period), count: y },
        }
    }

    /// The window around a time.
    fn window(&self, time: Micros) -> (Micros, Micros) {
        let start = time - time % self.period;
        (start, start.saturating_add(self.period))
    }

    /// Charges `cost` tokens to a [`Self::current`] state. What costs more than there is room for is never admitted.
    pub(super) fn charge(&self, state: State, cost: u64, now: Micros) -> Charge {
        match state {
            State::Gcra { tat, requests } => {
                let after = tat + u128::from(cost) * self.token;
                let excess = after.saturating_sub(units(now, requests) + self.room);
                Charge { after: State::Gcra { tat: after, requests }, wait: micros(excess, requests) }
            }
            State::Window { start, end, count } => {
                let count = count.saturating_add(cost);
                let fits = u128::from(count) <= self.room;
                Charge { after: State::Window { start, end, count }, wait: if fits { 0 } else { end - now } }
            }
        }
    }

    /// Whole tokens left in a [`Self::current`] state.
    pub(super) fn remaining(&self, state: &State, now: Micros) -> u64 {
        let used = match *state {
            State::Gcra { tat, requests } => tat.saturating_sub(units(now, requests)),
            State::Window { count, .. } => count.into(),
        };
        divide(self.room.saturating_sub(used), self.token)
    }

    /// How long until all of it is there again.
    pub(super) fn full_after(state: &State, now: Micros) -> Micros {
        match *state {
            State::Gcra { tat, requests } => micros(tat.saturating_sub(units(now, requests)), requests),
            State::Window { count: 0, .. } => 0,
            State::Window { end, .. } => end.saturating_sub(now),
        }
    }
}

/// µs in units of 1/`requests` µs.
fn units(time: Micros, requests: u32) -> u128 {
    u128::from(time) * u128::from(requests)
}

/// Units of 1/`requests` µs in µs, rounded up.
fn micros(units: u128, requests: u32) -> Micros {
    let requests = u128::from(requests.max(1));
    divide(units + (requests - 1), requests)
}

/// Most numbers are far smaller than they might be, and small ones are divided several times as fast.
fn divide(value: u128, by: u128) -> u64 {
    match (u64::try_from(value), u64::try_from(by)) {
        (Ok(value), Ok(by)) => value / by,
        _ => narrow(value / by),
    }
}

fn narrow(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
