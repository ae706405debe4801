//! The proof that a bank's books are what its customers were told, no more and no less.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use finaiflow_e2e::{Tenant, eventually, psql};
use serde_json::Value;

use crate::customer::{Customer, Meant, Movement, Read, Seen, Write};

/// An account's movements as the database has them, in its own order, and when they may have been booked.
struct History {
    movements: Vec<Movement>,
    /// A movement was not booked before this, and was by the other.
    times: Vec<(Instant, Instant)>,
}

impl History {
    /// The balance after the first `count` movements.
    fn balance(&self, count: usize) -> i64 {
        count.checked_sub(1).map_or(0, |last| self.movements[last].balance_after)
    }

    /// How many movements a request from `began` to `ended` may have found: at least those that were answered before,
    /// at most those that were asked for before it ended.
    fn visible(&self, began: Instant, ended: Instant) -> std::ops::RangeInclusive<usize> {
        let least = self.times.iter().rposition(|(_, booked)| *booked <= began).map_or(0, |last| last + 1);
        let most = self.times.iter().position(|(asked, _)| *asked >= ended).unwrap_or(self.times.len());
        least..=most
    }
}

/// Proves everything about one bank, which must be at rest.
pub fn prove(bank: &Tenant, customers: &[Customer]) {
    tenant_is_well(bank);
    let writes: Vec<&Write> = customers.iter().flat_map(|customer| &customer.writes).collect();
    every_acknowledged_write_is_booked_once_and_nothing_else(bank, &writes);
    let histories = histories(bank, &writes);
    for write in &writes {
        check_answer(write, &histories);
    }
    for customer in customers {
        check_reads(&customer.reads, &histories);
        for account in &customer.own {
            let history = histories.get(&account.id).map_or(&[][..], |history| &history.movements);
            check_account(customer, &account.id, history, &writes);
        }
    }
    bank.assert_books();
    bank.verify_ledger();
    let head: u64 = psql(&format!("select sequence from {}.ledger_head", bank.schema())).parse().unwrap();
    eventually(60, "the verified ledger", || {
        let (condition, ledger) = (bank.condition("LedgerVerified"), bank.object()["status"]["ledger"].clone());
        let verified = condition["status"] == "True" && ledger["sequence"] == head;
        if verified { Ok(()) } else { Err(format!("{condition} {ledger}")) }
    });
}

fn tenant_is_well(bank: &Tenant) {
    for condition in ["Ready", "SchemaReady", "CredentialsReady", "Serving"] {
        let _ = bank.wait(condition, "True");
    }
    let claims = format!("select count(*) from finaiflow_system.claims where name = '{}'", bank.name);
    assert_eq!(psql(&claims), "1", "one claim");
}

fn every_acknowledged_write_is_booked_once_and_nothing_else(bank: &Tenant, writes: &[&Write]) {
    let schema = bank.schema();
    let booked = psql(&format!(
        "select reference, kind, amount, rtrim(currency) from {schema}.journals where kind <> 'account_opened'
         union all select name, kind, 0, rtrim(currency) from {schema}.accounts where kind = 'customer'"
    ));
    let mut booked: Vec<_> = booked.lines().map(str::to_owned).collect();
    booked.sort_unstable();
    let line = |write: &&Write| {
        let (kind, amount, currency) = match &write.meant {
            Meant::Open { currency } => ("customer", 0, *currency),
            Meant::Deposit { to, amount } => ("deposit", *amount, to.currency),
            Meant::Withdraw { from, amount } => ("withdrawal", *amount, from.currency),
            Meant::Transfer { from, amount, .. } => ("transfer", *amount, from.currency),
        };
        format!("{}|{kind}|{amount}|{currency}", write.key)
    };
    let mut acknowledged: Vec<_> =
        writes.iter().copied().filter(|write| write.answer.status == 201).map(|w| line(&w)).collect();
    acknowledged.sort_unstable();
    assert_eq!(difference(&booked, &acknowledged), [""; 0], "booked (+) and acknowledged (-) differ");
}

/// Lines of two sorted lists that are not in the other, or not as often.
fn difference(left: &[String], right: &[String]) -> Vec<String> {
    let mut counts: BTreeMap<&str, i32> = BTreeMap::new();
    for (line, one) in left.iter().map(|line| (line, 1)).chain(right.iter().map(|line| (line, -1))) {
        *counts.entry(line).or_default() += one;
    }
    counts.into_iter().filter(|(_, count)| *count != 0).map(|(line, count)| format!("{count:+} {line}")).collect()
}

fn histories(bank: &Tenant, writes: &[&Write]) -> HashMap<String, History> {
    let by_key: HashMap<_, _> = writes.iter().map(|write| (write.key.as_str(), *write)).collect();
    let rows = psql(&format!(
        "select a.name, e.seq, j.reference, e.posted_delta, e.posted_after
         from {0}.entries e join {0}.accounts a on a.id = e.account_id join {0}.journals j using (sequence)
         where a.kind = 'customer' order by a.name, e.seq",
        bank.schema()
    ));
    let mut histories: HashMap<String, History> = HashMap::new();
    for row in rows.lines() {
        let [name, seq, reference, amount, after] = row.split('|').collect::<Vec<_>>().try_into().unwrap();
        let account = by_key[name].answer.body["id"].as_str().unwrap().to_owned();
        let history = histories.entry(account).or_insert_with(|| History { movements: vec![], times: vec![] });
        let (amount, after): (i64, i64) = (amount.parse().unwrap(), after.parse().unwrap());
        assert_eq!(after, history.balance(history.movements.len()) + amount, "{row}: the balance does not continue");
        let write = by_key[reference];
        history.movements.push(Movement { reference: reference.to_owned(), amount, balance_after: after });
        history.times.push((write.began, write.ended));
        assert_eq!(seq, history.movements.len().to_string(), "{row}: the sequence has a gap");
    }
    histories
}

/// What was answered fits the books, and a refusal has a reason that was true.
fn check_answer(write: &Write, histories: &HashMap<String, History>) {
    let Write { key, meant, began, ended, answer } = write;
    let refusal = answer.body["type"].as_str().and_then(|kind| kind.strip_prefix("https://finaiflow.io/problems/"));
    let was_short = |account: &str, amount: i64| {
        let Some(history) = histories.get(account) else { return true };
        history.visible(*began, *ended).any(|count| history.balance(count) < amount)
    };
    let is_in = |account: &str, amount: i64| answer.status == 201 && has(histories, account, key, amount);
    let fits = match (meant, refusal) {
        (Meant::Open { .. }, None) => answer.status == 201,
        (Meant::Deposit { to, amount }, None) => is_in(&to.id, *amount),
        (Meant::Withdraw { from, amount }, None) => is_in(&from.id, -amount),
        (Meant::Transfer { from, to, amount }, None) => is_in(&from.id, -amount) && is_in(&to.id, *amount),
        (Meant::Transfer { from, to, .. }, Some("same-account")) => from.id == to.id,
        (Meant::Transfer { from, to, .. }, Some("currency-mismatch")) => from.currency != to.currency,
        (Meant::Withdraw { from, amount } | Meant::Transfer { from, amount, .. }, Some("insufficient-funds")) => {
            was_short(&from.id, *amount)
        }
        _ => false,
    };
    assert!(fits, "{write:?} does not fit the books");
}

fn has(histories: &HashMap<String, History>, account: &str, key: &str, amount: i64) -> bool {
    let movements = histories.get(account).map_or(&[][..], |history| &history.movements);
    movements.iter().filter(|movement| movement.reference == key).map(|movement| movement.amount).eq([amount])
}

/// Each read shows its account after some number of movements, never fewer than a read before it.
fn check_reads(reads: &[Read], histories: &HashMap<String, History>) {
    let empty = History { movements: vec![], times: vec![] };
    let mut seen_before: HashMap<&str, usize> = HashMap::new();
    for read in reads {
        let history = histories.get(&read.account).unwrap_or(&empty);
        let before = seen_before.entry(&read.account).or_default();
        let explains = |count: &usize| match &read.seen {
            Seen::Balance(balance) => history.balance(*count) == *balance,
            Seen::Movements(rows) => {
                let newest_first = history.movements[..*count].iter().rev();
                rows.len() == 20.min(*count) && rows.iter().eq(newest_first.take(rows.len()))
            }
        };
        let visible = history.visible(read.began, read.ended);
        let found = visible.clone().filter(|count| count >= before).find(explains);
        *before = found.unwrap_or_else(|| {
            panic!(
                "{read:?} shows what never was: {visible:?} movements may have been there, {before} were seen before"
            )
        });
    }
}

/// The API says of an account what the database says, and shows the ids that the answers gave.
fn check_account(customer: &Customer, account: &str, history: &[Movement], writes: &[&Write]) {
    let balance = history.last().map_or(0, |newest| newest.balance_after);
    assert_eq!(customer.api.balance(account), balance, "{account}");
    let rows = transactions(customer, account);
    let shown: Vec<_> = rows.iter().rev().map(|row| Movement::read(row, account)).collect();
    assert_eq!(shown, history, "{account}");
    let ids: HashMap<_, _> = writes.iter().map(|write| (write.key.as_str(), &write.answer.body["id"])).collect();
    for row in &rows {
        let shown = if row["transfer_id"].is_null() { &row["id"] } else { &row["transfer_id"] };
        assert_eq!(&shown, &ids[row["reference"].as_str().unwrap()], "{row}");
    }
}

fn transactions(customer: &Customer, account: &str) -> Vec<Value> {
    let first = format!("/api/v1/accounts/{account}/transactions?limit=100");
    let (mut rows, mut path) = (Vec::new(), first.clone());
    loop {
        let page = customer.api.get(&path).expect(200);
        rows.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("{first}&cursor={cursor}"),
            None => return rows,
        }
    }
}
