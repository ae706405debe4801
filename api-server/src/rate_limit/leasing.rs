//! Decisions with a store: from what is leased and known here where that is enough, by a call where it is not.

use std::iter::zip;

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;
use tokio::time::Instant;

use super::cells::{Few, Locked, Place};
use super::lease::Wish;
use super::limiter::{Ask, Limiter, Outcome, Row, Share, Source, Verdict};
use super::rate::{Micros, State, Terms};
use super::store::{Answer, Part, Request, Store};

/// What is known here of one ask's bucket.
struct View {
    /// Of the whole rate.
    terms: Terms,
    state: State,
    /// Until the bucket can have what is asked for, or may be asked again.
    wait: Micros,
    spendable: u64,
    /// The lease is enough.
    enough: bool,
    /// There are tokens to give back, so that the bucket may be less full than it seems.
    holds: bool,
}

impl View {
    fn refused(&self) -> bool {
        !self.enough && !self.holds && self.wait > 0
    }

    fn row(&self, spent: u64, now: Micros) -> Row {
        let refused = self.refused();
        Row {
            outcome: if refused { Outcome::Refused } else { Outcome::Granted },
            remaining: (self.terms.remaining(&self.state, now) + self.spendable).saturating_sub(spent),
            retry_after: if refused { self.wait } else { 0 },
            full_after: Terms::full_after(&self.state, now),
            source: Source::Lease,
        }
    }
}

/// How an ask is to be met.
enum Step {
    /// From the lease; when those tokens had been granted.
    Spent(Micros),
    /// By the store.
    Asked { wish: Wish, terms: Terms },
}

/// What can be said at once.
pub(super) enum Begun<'a> {
    Decided(Verdict),
    /// The store is lost.
    Alone,
    Call(Box<Call<'a>>),
}

/// A call for one request. What was spent for it comes back if it is given up.
pub(super) struct Call<'a> {
    limiter: &'a Limiter,
    asks: &'a [Ask<'a>],
    places: Few<Place>,
    steps: Few<Step>,
    settled: bool,
}

impl Limiter {
    fn views(asks: &[Ask<'_>], places: &[Place], locked: &mut Locked<'_>, now: Micros) -> Few<View> {
        let mut views = Few::new();
        for (n, (ask, place)) in zip(asks, places).enumerate() {
            let terms = ask.rate.terms(Share::WHOLE, ask.cost());
            let mut cell = locked.get(place);
            if let Some(cell) = &mut cell {
                cell.adapt(&terms, now);
            }
            let state = terms.current(cell.as_ref().map(|cell| cell.state()), now);
            let lease = cell.as_ref().and_then(|cell| cell.lease());
            let spendable = lease.map_or(0, |lease| lease.spendable(&terms, now));
            let earlier = zip(&asks[..n], places).filter(|(_, other)| *other == place).map(|(ask, _)| ask.cost());
            views.push(View {
                terms,
                state,
                wait: terms.charge(state, ask.cost(), now).wait.max(lease.map_or(0, |lease| lease.rest(now))),
                spendable,
                enough: spendable >= earlier.sum::<u64>() + ask.cost(),
                holds: lease.is_some_and(super::lease::Lease::holds),
            });
        }
        views
    }

    /// What the store would say, as far as is known here.
    pub(super) fn peek_shared(&self, asks: &[Ask<'_>], now: Micros) -> Verdict {
        let (mut locked, places) = self.cells.lock(asks, now);
        let views = Self::views(asks, &places, &mut locked, now);
        Verdict { rows: views.iter().map(|view| view.row(0, now)).collect() }
    }

    /// Decides from what is held and known here, or prepares a call.
    pub(super) fn begin<'a>(&'a self, store: &Store, asks: &'a [Ask<'a>], now: Micros) -> Begun<'a> {
        let (mut locked, places) = self.cells.lock(asks, now);
        let views = Self::views(asks, &places, &mut locked, now);
        let enough = views.iter().all(|view| view.enough);
        if !enough && !store.available() {
            return Begun::Alone;
        }
        if views.iter().any(View::refused) {
            return Begun::Decided(Verdict { rows: views.iter().map(|view| view.row(0, now)).collect() });
        }
        let share = self.share();
        let steps = zip(asks, zip(&places, &views)).map(|(ask, (place, view))| {
            let cell = locked.get_or_insert(place, view.state);
            if view.enough {
                return Step::Spent(cell.lease_mut().spend(ask.cost()));
            }
            Step::Asked { wish: cell.wish(ask.rate, share, ask.cost(), now), terms: view.terms }
        });
        let steps: Few<Step> = steps.collect();
        if enough {
            let row = |(ask, view): (&Ask<'_>, &View)| view.row(ask.cost(), now);
            return Begun::Decided(Verdict { rows: zip(asks, &views).map(row).collect() });
        }
        drop(locked);
        Begun::Call(Box::new(Call { limiter: self, asks, places, steps, settled: false }))
    }
}

impl Call<'_> {
    /// Asks the store, which has until then as long as a call may take. `now` is this replica's time.
    pub(super) async fn run(mut self: Box<Self>, store: &Store, now: Micros) -> Option<Verdict> {
        let started = Instant::now();
        let answer = store.take(&self.requests()).await.ok()?;
        self.limiter.hear(answer.now, now.saturating_add(elapsed(started)));
        Some(self.settle(&answer))
    }

    fn requests(&self) -> Vec<Request> {
        let request = |(ask, (place, step)): (&Ask<'_>, (&Place, &Step))| {
            let Step::Asked { wish, terms } = step else { return None };
            Some(Request { key: key(ask, place), terms: *terms, cost: ask.cost(), wish: *wish })
        };
        zip(self.asks, zip(&self.places, &self.steps)).filter_map(request).collect()
    }

    fn settle(&mut self, answer: &Answer) -> Verdict {
        self.settled = true;
        let share = self.limiter.share();
        let mut locked = self.limiter.cells.relock(&self.places);
        let mut parts = answer.parts.iter();
        for (ask, (place, step)) in zip(self.asks, zip(&self.places, &self.steps)) {
            match step {
                Step::Spent(granted_at) => give_back(&mut locked, place, ask, *granted_at, answer.admitted),
                Step::Asked { wish, .. } => {
                    let Some(part) = parts.next() else { continue };
                    let cell = locked.get_or_insert(place, part.state);
                    cell.heard(part.state, part.base, wish, answer.now);
                    if wish.leads && answer.admitted {
                        cell.lease_mut().granted(ask.cost(), part.extra, answer.now);
                    }
                    if part.refused {
                        cell.lease_mut().refused(ask.rate, share, ask.cost(), answer.now);
                    }
                }
            }
        }
        let views = Limiter::views(self.asks, &self.places, &mut locked, answer.now);
        let mut parts = answer.parts.iter();
        let row = |(view, step): (&View, &Step)| match step {
            Step::Spent(_) => Row { outcome: Outcome::Granted, retry_after: 0, ..view.row(0, answer.now) },
            Step::Asked { terms, .. } => told(terms, parts.next(), view, answer.now),
        };
        Verdict { rows: zip(&views, &self.steps).map(row).collect() }
    }
}

/// The row of what the store said.
fn told(terms: &Terms, part: Option<&Part>, view: &View, now: Micros) -> Row {
    let Some(part) = part else { return view.row(0, now) };
    // With another ask for the same bucket, what is left may look like enough; it is not enough for both.
    let wait = view.wait.max(1);
    Row {
        outcome: if part.refused { Outcome::Refused } else { Outcome::Granted },
        remaining: terms.remaining(&part.state, now) + view.spendable,
        retry_after: if part.refused { wait } else { 0 },
        full_after: Terms::full_after(&part.state, now),
        source: Source::Lease,
    }
}

fn give_back(locked: &mut Locked<'_>, place: &Place, ask: &Ask<'_>, granted_at: Micros, admitted: bool) {
    if let Some(cell) = locked.get(place).filter(|_| !admitted) {
        cell.lease_mut().unspend(ask.cost(), granted_at);
    }
}

impl Drop for Call<'_> {
    /// Without an answer, be it that the client did not wait for it: nothing is held that the store was asked for, or that
    /// was to go back to it.
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let mut locked = self.limiter.cells.relock(&self.places);
        for (ask, (place, step)) in zip(self.asks, zip(&self.places, &self.steps)) {
            match step {
                Step::Spent(granted_at) => give_back(&mut locked, place, ask, *granted_at, false),
                Step::Asked { wish, .. } => {
                    if let Some(cell) = locked.get(place).filter(|_| wish.leads) {
                        cell.lease_mut().asking = false;
                    }
                }
            }
        }
    }
}

pub(super) fn elapsed(since: Instant) -> Micros {
    Micros::try_from(since.elapsed().as_micros()).unwrap_or(Micros::MAX)
}

/// The bucket's name in the store. It follows from the ask alone, whatever else the request asks for, and of what is counted
/// it tells only a digest.
fn key(ask: &Ask<'_>, place: &Place) -> String {
    let mut digest = Context::new(&SHA256);
    let tag = match place.fold {
        None => {
            digest.update(ask.key);
            ask.tag
        }
        Some(fold) => {
            let rate = ask.rate;
            digest.update(format!("{:?} {} {}", rate.algorithm(), rate.requests(), rate.period_seconds()).as_bytes());
            digest.update(&rate.burst().to_be_bytes());
            digest.update(&[fold]);
            "shared"
        }
    };
    format!("finaiflow:rl:{{{tag}}}:{}", HEXLOWER.encode(&digest.finish().as_ref()[..16]))
}
