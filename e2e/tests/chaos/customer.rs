//! A customer who does random things and remembers what was meant, when, and what was answered.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use finaiflow_e2e::{Answer, Api};
use serde_json::{Value, json};

use crate::random::Random;

/// How long a request is repeated until it is answered for good.
const PATIENCE: Duration = Duration::from_mins(4);
const PAUSE: Duration = Duration::from_millis(100);
const PASSWORD: &str = "correct horse battery staple";

/// An account as its customers know it.
#[derive(Clone, Debug)]
pub struct Account {
    pub id: String,
    pub currency: &'static str,
}

/// A movement or an opening as it was meant.
#[derive(Debug)]
pub enum Meant {
    Open { currency: &'static str },
    Deposit { to: Account, amount: i64 },
    Withdraw { from: Account, amount: i64 },
    Transfer { from: Account, to: Account, amount: i64 },
}

/// A write that was answered for good. Its key is also the movement's reference, or the account's name.
#[derive(Debug)]
pub struct Write {
    pub key: String,
    pub meant: Meant,
    pub began: Instant,
    pub ended: Instant,
    pub answer: Answer,
}

/// What a read showed of an own account.
#[derive(Debug)]
pub struct Read {
    pub account: String,
    pub began: Instant,
    pub ended: Instant,
    pub seen: Seen,
}

/// See [`Read`].
#[derive(Debug)]
pub enum Seen {
    Balance(i64),
    /// The newest movements, the newest first.
    Movements(Vec<Movement>),
}

/// A line of a statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Movement {
    pub reference: String,
    pub amount: i64,
    pub balance_after: i64,
}

impl Movement {
    /// As the API shows it; panics if it is of another account than `account`.
    pub fn read(row: &Value, account: &str) -> Self {
        assert_eq!(row["account_id"], account, "{row}");
        Self {
            reference: row["reference"].as_str().unwrap().to_owned(),
            amount: row["amount"].as_i64().unwrap(),
            balance_after: row["balance_after"].as_i64().unwrap(),
        }
    }
}

/// One customer of a bank.
pub struct Customer {
    pub name: String,
    pub api: Api,
    pub own: Vec<Account>,
    pub writes: Vec<Write>,
    pub reads: Vec<Read>,
    /// How often an answer did not come or was put off, by what was said.
    pub troubles: BTreeMap<String, usize>,
    /// Accounts of the bank that money may be sent to.
    payees: Vec<Account>,
    /// Accounts that this customer must not see: others' of this bank and the other bank's.
    foreign: Vec<String>,
    /// The other bank.
    neighbour: String,
    email: String,
    random: Random,
    keys: u32,
}

impl Customer {
    /// Registers with the bank and opens two accounts of one currency and one of another.
    pub fn new(api: &Api, name: &str, random: Random) -> Self {
        let email = format!("{name}@example.com");
        let register = json!({"email": email, "password": PASSWORD, "name": name});
        let _ = api.post("/api/v1/auth/register", &register).expect(201);
        let mut customer = Self {
            name: name.to_owned(),
            api: api.clone(),
            own: Vec::new(),
            writes: Vec::new(),
            reads: Vec::new(),
            troubles: BTreeMap::new(),
            payees: Vec::new(),
            foreign: Vec::new(),
            neighbour: String::new(),
            email,
            random,
            keys: 0,
        };
        customer.sign_in();
        for currency in ["USD", "USD", "EUR"] {
            customer.open(currency);
        }
        customer
    }

    /// Tells the customer what there is besides the own accounts.
    pub fn meet(&mut self, payees: &[Account], foreign: Vec<String>, neighbour: &str) {
        (self.payees, self.foreign, self.neighbour) = (payees.to_vec(), foreign, neighbour.to_owned());
    }

    /// Does one random thing, however long it takes.
    pub fn act(&mut self) {
        let amount = i64::try_from(1 + self.random.below(5_000)).unwrap();
        let account = self.random.pick(&self.own).clone();
        match self.random.below(100) {
            0..25 => self.write(Meant::Deposit { to: account, amount }),
            25..45 => self.write(Meant::Withdraw { from: account, amount }),
            45..70 => {
                let to = self.random.pick(&self.payees).clone();
                self.write(Meant::Transfer { from: account, to, amount });
            }
            70..74 => {
                let currency = *self.random.pick(&["USD", "EUR"]);
                self.open(currency);
            }
            74..87 => self.read_balance(&account.id),
            87..94 => self.read_movements(&account.id),
            94..96 => self.list(),
            96..99 => self.trespass(),
            _ => self.sign_in(),
        }
    }

    fn open(&mut self, currency: &'static str) {
        self.write(Meant::Open { currency });
        let id = self.writes.last().unwrap().answer.body["id"].as_str().unwrap().to_owned();
        self.own.push(Account { id, currency });
    }

    fn write(&mut self, meant: Meant) {
        self.keys += 1;
        let key = format!("{}-{}", self.name, self.keys);
        let (path, body) = request(&meant, &key);
        let began = Instant::now();
        let answer = self.settle(&path, |api| api.try_write(&path, &key, &body));
        let ended = Instant::now();
        if self.random.below(8) == 0 {
            let again = self.settle(&path, |api| api.try_write(&path, &key, &body));
            assert_eq!(without_trace(again), without_trace(answer.clone()), "{key}: another answer to the same key");
        }
        self.writes.push(Write { key, meant, began, ended, answer });
    }

    fn read_balance(&mut self, account: &str) {
        let path = format!("/api/v1/accounts/{account}/balance");
        let began = Instant::now();
        let body = self.settle(&path, |api| api.try_get(&path)).expect(200);
        assert_eq!(body["account_id"], account, "{body}");
        let seen = Seen::Balance(body["balance"].as_i64().unwrap());
        self.reads.push(Read { account: account.to_owned(), began, ended: Instant::now(), seen });
    }

    fn read_movements(&mut self, account: &str) {
        let path = format!("/api/v1/accounts/{account}/transactions");
        let began = Instant::now();
        let body = self.settle(&path, |api| api.try_get(&path)).expect(200);
        let rows = body["data"].as_array().unwrap().iter().map(|row| Movement::read(row, account)).collect();
        self.reads.push(Read {
            account: account.to_owned(),
            began,
            ended: Instant::now(),
            seen: Seen::Movements(rows),
        });
    }

    fn list(&mut self) {
        let body = self.settle("accounts", |api| api.try_get("/api/v1/accounts?limit=100")).expect(200);
        let listed: Vec<_> = body["data"].as_array().unwrap().iter().map(|a| a["id"].as_str().unwrap()).collect();
        let own: Vec<_> = self.own.iter().map(|account| account.id.as_str()).collect();
        assert_eq!(listed[..], own[..own.len().min(100)], "{}: not the own accounts, all of them, once", self.name);
    }

    fn trespass(&mut self) {
        let path = format!("/api/v1/accounts/{}/balance", self.random.pick(&self.foreign));
        self.settle(&path, |api| api.try_get(&path)).expect_problem(404, "not-found");
        let neighbour = self.neighbour.clone();
        let answer = self.settle(&path, |api| api.at(&neighbour).try_get(&path));
        answer.expect_problem(401, "unauthenticated");
    }

    fn sign_in(&mut self) {
        let login = json!({"email": self.email, "password": PASSWORD});
        let tokens = self.settle("login", |api| api.try_write("/api/v1/auth/login", "-", &login)).expect(200);
        self.api = self.api.with_token(tokens["access_token"].as_str().unwrap());
    }

    /// Sends a request until it is answered for good. Not to answer and 503 are what a crash may cause; nothing else is.
    fn settle(&mut self, what: &str, mut send: impl FnMut(&Api) -> Result<Answer, String>) -> Answer {
        let began = Instant::now();
        loop {
            let trouble = match send(&self.api) {
                Ok(answer) if answer.status < 500 => return answer,
                Ok(answer) => {
                    assert_eq!(answer.status, 503, "{} {what}: {}", self.name, answer.body);
                    "503".to_owned()
                }
                Err(error) => error.rsplit(": ").next().unwrap().to_owned(),
            };
            assert!(began.elapsed() < PATIENCE, "{} {what}: no answer within {PATIENCE:?}: {trouble}", self.name);
            *self.troubles.entry(trouble).or_default() += 1;
            thread::sleep(PAUSE);
        }
    }
}

fn request(meant: &Meant, key: &str) -> (String, Value) {
    match meant {
        Meant::Open { currency } => {
            ("/api/v1/accounts".to_owned(), json!({"type": "checking", "currency": currency, "name": key}))
        }
        Meant::Deposit { to, amount } => (
            format!("/api/v1/accounts/{}/deposit", to.id),
            json!({"amount": amount, "currency": to.currency, "reference": key}),
        ),
        Meant::Withdraw { from, amount } => (
            format!("/api/v1/accounts/{}/withdraw", from.id),
            json!({"amount": amount, "currency": from.currency, "reference": key}),
        ),
        Meant::Transfer { from, to, amount } => (
            "/api/v1/transfers".to_owned(),
            json!({"from_account_id": from.id, "to_account_id": to.id, "amount": amount, "currency": from.currency,
                "reference": key}),
        ),
    }
}

/// The trace id names the request, not what came of it.
fn without_trace(mut answer: Answer) -> Answer {
    if let Some(body) = answer.body.as_object_mut() {
        body.remove("trace_id");
    }
    answer
}
