//! What passes between the operator and its neighbours: every call is counted, and one can be made to go wrong.
//!
//! A call is one request to the Kubernetes API, or one statement executed by PostgreSQL. Watches are no calls of a
//! visit, nor are Leases; parsing a statement, which a connection does once, and a ping change nothing.

mod http;
mod postgres;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_mins(1);

/// Which neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Api,
    Postgres,
}

/// What a call is meant to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
}

/// When a call goes wrong: before it reaches the neighbour, or after it was executed and before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is held, with all that come later, until [`Between::release`]: time to kill the operator.
    Hold,
    /// Its connection ends without an answer.
    Cut,
    /// It is never answered; later ones are.
    Silence,
    /// The API answers with this status code, and does nothing.
    Refuse(u16),
}

/// A call: `nth` from 0 of those that match. What is None matches all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    pub wire: Wire,
    pub kind: Option<Kind>,
    /// Must be in [`Call::what`].
    pub about: String,
    pub nth: usize,
    pub side: Side,
}

/// A call that was made.
#[derive(Debug, Clone)]
pub struct Call {
    pub wire: Wire,
    pub kind: Kind,
    /// `PATCH /api/v1/...` and the name of what is created, or the beginning of the SQL.
    pub what: String,
    /// The neighbour changed something: any request to the API that is no GET, and what PostgreSQL says it did.
    pub wrote: bool,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    armed: Vec<(Point, Fault)>,
    /// How many watches were opened, and how many of these, the first ones, say nothing any more.
    watches: usize,
    muted: usize,
}

/// Both proxies of one operator.
pub struct Between {
    state: Mutex<State>,
    held: watch::Sender<bool>,
    /// Where the operator finds the API, over plain HTTP.
    pub api: SocketAddr,
    /// Where the operator finds PostgreSQL.
    pub postgres: SocketAddr,
}

impl Between {
    /// Starts both proxies for the rest of the runtime. Of our kinds the operator sees only what is in `namespace`.
    pub async fn start(client: Client, namespace: &str, database: (String, u16)) -> Arc<Self> {
        let (api, postgres) = (http::listen().await, postgres::listen().await);
        let between = Arc::new(Self {
            state: Mutex::default(),
            held: watch::Sender::new(false),
            api: api.local_addr().unwrap(),
            postgres: postgres.local_addr().unwrap(),
        });
        tokio::spawn(http::serve(api, client, namespace.to_owned(), Arc::clone(&between)));
        tokio::spawn(postgres::serve(postgres, database, Arc::clone(&between)));
        between
    }

    /// Lets a call go wrong, once.
    pub fn arm(&self, point: Point, fault: Fault) {
        self.state.lock().unwrap().armed.push((point, fault));
    }

    /// Returns when a call is held.
    pub async fn holds(&self) {
        let mut held = self.held.subscribe();
        let held = tokio::time::timeout(PATIENCE, held.wait_for(|held| *held)).await;
        assert!(held.is_ok(), "no call is held: {:?}", self.state.lock().unwrap().armed);
    }

    /// Nothing more goes wrong. Returns whether anything that was to go wrong has not.
    pub fn disarm(&self) -> bool {
        let armed = std::mem::take(&mut self.state.lock().unwrap().armed);
        !armed.is_empty()
    }

    /// What comes next is held no longer. What was held stays so until its connection ends.
    pub fn release(&self) {
        self.held.send_replace(false);
    }

    /// Every watch that is open says nothing any more, and does not end. A new one works.
    pub fn mute_watches(&self) {
        let mut state = self.state.lock().unwrap();
        state.muted = state.watches;
    }

    /// How many calls there were: a mark for [`Self::since`].
    pub fn mark(&self) -> usize {
        self.state.lock().unwrap().calls.len()
    }

    /// The calls since a mark.
    pub fn since(&self, mark: usize) -> Vec<Call> {
        self.state.lock().unwrap().calls[mark..].to_vec()
    }

    /// Counts a call; returns its number and what goes wrong with it.
    async fn enter(&self, call: Call) -> (usize, Option<(Side, Fault)>) {
        if *self.held.borrow() {
            return std::future::pending().await;
        }
        let mut state = self.state.lock().unwrap();
        let mut fault = None;
        state.armed.retain_mut(|(point, what)| {
            let matches = point.wire == call.wire
                && point.kind.is_none_or(|kind| kind == call.kind)
                && call.what.contains(&point.about);
            if !matches || fault.is_some() {
                return true;
            }
            if point.nth > 0 {
                point.nth -= 1;
                return true;
            }
            fault = Some((point.side, *what));
            false
        });
        state.calls.push(call);
        (state.calls.len() - 1, fault)
    }

    fn wrote(&self, call: usize) {
        self.state.lock().unwrap().calls[call].wrote = true;
    }

    async fn hold(&self) {
        self.held.send_replace(true);
        std::future::pending::<()>().await;
    }

    fn open_watch(&self) -> usize {
        let mut state = self.state.lock().unwrap();
        state.watches += 1;
        state.watches
    }

    fn is_muted(&self, watch: usize) -> bool {
        watch <= self.state.lock().unwrap().muted
    }
}
