//! The rules against an oracle that is slow, wide and obvious.

use std::collections::{BTreeMap, HashMap};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use time::macros::datetime;

use super::*;
use crate::command::{AuditContext, NewTransfer};
use crate::money::Amount;

const START: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);
const EPOCH: u32 = 1;

fn usd() -> Currency {
    "USD".parse().unwrap()
}

fn eur() -> Currency {
    "EUR".parse().unwrap()
}

fn user(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn sequence(number: i64) -> Sequence {
    Sequence::try_from(number).unwrap()
}

fn account(number: i64) -> AccountId {
    AccountId { epoch: EPOCH, sequence: sequence(number) }
}

fn amount(minor_units: i64) -> Amount {
    Amount::try_from(minor_units).unwrap()
}

fn empty() -> State {
    State::at(Head { epoch: EPOCH, sequence: sequence(0), time: START, hash: Hash::default() })
}

fn command(principal: u128, key: &str, kind: CommandKind) -> Command {
    Command {
        principal: user(principal),
        authority: Authority::Owner,
        key: key.to_owned(),
        fingerprint: [0; 32],
        salt: [0; 16],
        kind,
        audit: AuditContext::default(),
    }
}

fn open(principal: u128, key: &str) -> Command {
    let kind = CommandKind::OpenAccount {
        owner: user(principal),
        account_type: AccountType::Checking,
        currency: usd(),
        name: "Everyday".to_owned(),
        metadata: Metadata::new(),
    };
    command(principal, key, kind)
}

fn deposit(principal: u128, key: &str, to: i64, minor_units: i64) -> Command {
    let kind = CommandKind::Deposit {
        account: account(to),
        amount: amount(minor_units),
        currency: usd(),
        memo: Memo::default(),
    };
    command(principal, key, kind)
}

fn withdraw(principal: u128, key: &str, from: i64, minor_units: i64) -> Command {
    let kind = CommandKind::Withdraw {
        account: account(from),
        amount: amount(minor_units),
        currency: usd(),
        memo: Memo::default(),
    };
    command(principal, key, kind)
}

fn transfer(principal: u128, key: &str, from: i64, to: i64, minor_units: i64) -> Command {
    let kind = CommandKind::Transfer(NewTransfer {
        from: account(from),
        to: account(to),
        amount: amount(minor_units),
        currency: usd(),
        memo: Memo::default(),
    });
    command(principal, key, kind)
}

fn rejected(rejection: Rejection) -> Answer {
    Answer::Decided(Outcome::Rejected(rejection))
}

#[test]
fn the_first_deposit_opens_the_settlement_account() {
    let commands = [open(1, "a"), deposit(1, "b", 1, 500), deposit(1, "c", 1, 20)];
    let decision = apply(empty(), &commands, START);
    let kinds: Vec<_> = decision.batch.journals.iter().map(|journal| (journal.sequence.into(), journal.kind)).collect();
    assert_eq!(
        kinds,
        [
            (1_i64, JournalKind::AccountOpened),
            (2, JournalKind::AccountOpened),
            (3, JournalKind::Deposit),
            (4, JournalKind::Deposit)
        ]
    );
    assert_eq!(decision.state.settlements[&usd()], account(2));
    let Answer::Decided(Outcome::Transaction(second)) = &decision.answers[2] else { panic!("{:?}", decision.answers) };
    assert_eq!((second.amount, second.balance_after), (20, 520));
    assert_eq!(second.id.to_string(), "txn_aaaaaaiaaaaaaaaeae");
    let entries: Vec<_> =
        decision.batch.entries.iter().map(|e| (e.account.sequence.into(), e.seq, e.posted_after)).collect();
    assert_eq!(entries, [(2_i64, 1, -500), (1, 1, 500), (2, 2, -520), (1, 2, 520)]);
}

#[test]
fn a_rejected_first_deposit_leaves_nothing_but_its_answer() {
    let mut state = apply(empty(), &[open(1, "a")], START).state;
    state.accounts.get_mut(&account(1)).unwrap().status = AccountStatus::Frozen;
    let decision = apply(state, &[deposit(1, "b", 1, 5)], START);
    assert_eq!(decision.answers, [rejected(Rejection::AccountNotActive)]);
    assert_eq!((decision.batch.journals.len(), decision.batch.accounts.len()), (0, 0));
    assert_eq!(decision.batch.answers.len(), 1);
    assert_eq!(decision.state.head.sequence, sequence(1));
}

#[test]
fn money_is_refused_before_it_overflows() {
    let commands = [open(1, "a"), deposit(1, "b", 1, MAX_MINOR_UNITS), deposit(1, "c", 1, 1)];
    let decision = apply(empty(), &commands, START);
    assert_eq!(decision.answers[2], rejected(Rejection::LimitExceeded));
    // The settlement account is as full as the customers together, whoever they are.
    let commands = [open(2, "d"), deposit(2, "e", 4, 1), transfer(1, "f", 1, 4, 7), deposit(2, "g", 4, 1)];
    let decision = apply(decision.state, &commands, START);
    assert_eq!(decision.answers[1], rejected(Rejection::LimitExceeded));
    assert!(matches!(decision.answers[2], Answer::Decided(Outcome::Transfer(_))));
    assert_eq!(decision.answers[3], rejected(Rejection::LimitExceeded));
}

#[test]
fn the_last_sequence_is_never_passed() {
    let mut state = empty();
    state.head.sequence = sequence(i64::from(Sequence::MAX) - 1);
    let decision = apply(state.clone(), &[open(1, "a")], START);
    assert_eq!(decision.answers, [rejected(Rejection::LimitExceeded)]);
    state.head.sequence = sequence(i64::from(Sequence::MAX) - 2);
    let decision = apply(state, &[open(1, "a"), open(1, "b")], START);
    assert!(matches!(decision.answers[0], Answer::Decided(Outcome::AccountOpened(_))));
    assert_eq!(decision.answers[1], rejected(Rejection::LimitExceeded));
}

#[test]
fn only_the_owner_may_take_and_nobody_learns_of_foreign_accounts() {
    let state = apply(empty(), &[open(1, "a"), deposit(1, "b", 1, 100), open(2, "c")], START).state;
    let commands = [
        withdraw(2, "d", 1, 1),
        deposit(2, "e", 1, 1),
        transfer(2, "f", 1, 4, 1),
        transfer(1, "g", 1, 99, 1),
        transfer(1, "h", 1, 2, 1),
        withdraw(1, "i", 2, 1),
        transfer(1, "j", 1, 1, 1),
        transfer(1, "k", 1, 4, 1),
    ];
    let decision = apply(state, &commands, START);
    for answer in &decision.answers[..6] {
        assert_eq!(*answer, rejected(Rejection::NotFound));
    }
    assert_eq!(decision.answers[6], rejected(Rejection::SameAccount));
    assert!(matches!(decision.answers[7], Answer::Decided(Outcome::Transfer(_))));
    let remembered: Vec<_> = decision.batch.answers.iter().map(|stored| stored.key.as_str()).collect();
    assert_eq!(remembered, ["j", "k"], "an unknown account is not remembered");
}

#[test]
fn what_is_held_cannot_be_spent() {
    let mut state = apply(empty(), &[open(1, "a"), deposit(1, "b", 1, 100)], START).state;
    state.accounts.get_mut(&account(1)).unwrap().held = 60;
    let decision = apply(state, &[withdraw(1, "c", 1, 41), withdraw(1, "d", 1, 40)], START);
    assert_eq!(decision.answers[0], rejected(Rejection::InsufficientFunds));
    assert!(matches!(decision.answers[1], Answer::Decided(Outcome::Transaction(_))));
}

#[test]
fn a_key_lives_for_a_day() {
    let first = apply(empty(), &[open(1, "a")], START);
    let almost = START + KEY_LIFETIME;
    assert!(matches!(apply(first.state.clone(), &[open(1, "a")], almost).answers[0], Answer::Replayed(_)));
    let mut other = open(1, "a");
    other.fingerprint = [1; 32];
    assert_eq!(apply(first.state.clone(), &[other.clone()], almost).answers, [Answer::KeyReused]);
    let over = almost + Duration::MICROSECOND;
    assert!(matches!(apply(first.state, &[other], over).answers[0], Answer::Decided(Outcome::AccountOpened(_))));
}

#[test]
fn time_moves_forward_in_microseconds_of_utc() {
    let late = datetime!(2026-01-01 02:00:00.123_456_789 +02);
    let first = apply(empty(), &[open(1, "a")], late);
    assert_eq!(first.state.head.time, START + Duration::microseconds(123_456));
    assert!(first.state.head.time.offset().is_utc());
    let second = apply(first.state, &[open(1, "b")], START);
    assert_eq!(second.state.head.time, START + Duration::microseconds(123_457));
    let third = apply(second.state.clone(), &[open(1, "b")], late);
    assert_eq!((third.state, third.batch), (second.state, Batch::default()), "a replay writes nothing");
}

#[test]
fn the_rows_are_named_as_the_schema_names_them() {
    let decision = apply(empty(), &[open(1, "a"), deposit(1, "b", 1, 5)], START);
    let batch = serde_json::to_value(&decision.batch).unwrap();
    let keys = |table: &str| batch[table][0].as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(keys("journals"), "actor amount category currency description kind reference sequence");
    assert_eq!(keys("accounts"), "currency id kind name owner_id type");
    assert_eq!(keys("entries"), "account_id held_after held_delta leg posted_after posted_delta seq sequence");
    assert_eq!(keys("idempotency"), "fingerprint key outcome principal");
    assert_eq!(batch["accounts"][1]["type"], "settlement");
    assert_eq!(batch["idempotency"][0]["fingerprint"], format!("\\x{}", "0".repeat(64)));
    assert_eq!(batch["entries"][1]["leg"], 1);
}

/// A command of the random runs: small domains, so that keys, accounts and limits collide often.
fn any_command() -> impl Strategy<Value = Command> {
    let currency = prop_oneof![4 => Just(usd()), 1 => Just(eur())];
    let minor_units = prop_oneof![6 => 1..200_i64, 1 => MAX_MINOR_UNITS - 300..=MAX_MINOR_UNITS];
    let kind = (0..8_u8, 1..14_i64, 1..14_i64, minor_units, currency);
    let kind = kind.prop_map(|(what, first, second, minor_units, currency)| {
        let (account, memo) = (account(first), Memo::default());
        let to = self::account(second);
        let amount = amount(minor_units);
        match what {
            0 => CommandKind::OpenAccount {
                owner: user(second.cast_unsigned().into()),
                account_type: AccountType::Savings,
                currency,
                name: "Any".to_owned(),
            },
            1 | 2 => CommandKind::Deposit { account, amount, currency, memo },
            3 | 4 => CommandKind::Withdraw { account, amount, currency, memo },
            _ => CommandKind::Transfer { from: account, to, amount, currency, memo },
        }
    });
    (1..4_u128, option::weighted(0.4, 0..6_u8), 0..1000_u32, prop_oneof![5 => Just(0_u8), 1 => Just(1)], kind).prop_map(
        |(principal, shared, unique, fingerprint, kind)| Command {
            fingerprint: [fingerprint; 32],
            ..command(principal, &shared.map_or(format!("u{unique}"), |key| format!("s{key}")), kind)
        },
    )
}

/// A balanced ledger of up to eight customers in two currencies, some of them frozen.
fn any_state() -> impl Strategy<Value = State> {
    let customer = (1..4_u128, any::<bool>(), 0..500_i64, 0..50_i64, prop_oneof![6 => Just(true), 1 => Just(false)]);
    vec(customer, 0..9).prop_map(|customers| {
        let mut state = empty();
        let mut totals = BTreeMap::new();
        for (owner, in_usd, posted, held, active) in customers {
            let currency = if in_usd { usd() } else { eur() };
            let status = if active { AccountStatus::Active } else { AccountStatus::Closed };
            let held = held.min(posted);
            add(&mut state, AccountState { status, posted, held, ..AccountState::customer(user(owner), currency) });
            *totals.entry(currency).or_insert(0) -= posted;
        }
        for (currency, posted) in totals {
            let id = add(&mut state, AccountState { posted, ..AccountState::settlement(currency) });
            state.settlements.insert(currency, id);
        }
        state
    })
}

fn add(state: &mut State, account: AccountState) -> AccountId {
    state.head.sequence = state.head.sequence.next().unwrap();
    let id = AccountId { epoch: EPOCH, sequence: state.head.sequence };
    state.accounts.insert(id, account);
    id
}

/// The same rules written for reading: wide integers, linear searches, one command at a time.
struct Oracle {
    next: i64,
    accounts: BTreeMap<i64, OracleAccount>,
    keys: Vec<(Uuid, String, u8, Verdict)>,
}

#[derive(Clone)]
struct OracleAccount {
    owner: Option<Uuid>,
    currency: &'static str,
    active: bool,
    balance: i128,
    held: i128,
}

/// What matters of an answer: the account opened, the balances after a movement, or the refusal.
#[derive(Debug, Clone, PartialEq)]
enum Verdict {
    Opened(i64),
    Settled(i64, i128),
    Transferred(i64),
    Refused(Rejection),
    Reused,
}

impl Oracle {
    fn new(state: &State) -> Self {
        let accounts = state.accounts.iter().map(|(id, account)| {
            let oracle = OracleAccount {
                owner: account.owner,
                currency: account.currency.code(),
                active: account.status == AccountStatus::Active,
                balance: account.posted.into(),
                held: account.held.into(),
            };
            (id.sequence.into(), oracle)
        });
        Self { next: i64::from(state.head.sequence) + 1, accounts: accounts.collect(), keys: Vec::new() }
    }

    fn take(&mut self) -> i64 {
        self.next += 1;
        self.next - 1
    }

    fn open(&mut self, owner: Option<Uuid>, currency: &'static str) -> i64 {
        let id = self.take();
        self.accounts.insert(id, OracleAccount { owner, currency, active: true, balance: 0, held: 0 });
        id
    }

    fn answer(&mut self, command: &Command) -> Verdict {
        let [fingerprint, ..] = command.fingerprint;
        let same = |(who, key, ..): &&(Uuid, String, u8, Verdict)| *who == command.principal && *key == command.key;
        if let Some((_, _, first, verdict)) = self.keys.iter().find(same) {
            return if *first == fingerprint { verdict.clone() } else { Verdict::Reused };
        }
        let verdict = self.decide(command);
        if verdict != Verdict::Refused(Rejection::NotFound) {
            self.keys.push((command.principal, command.key.clone(), fingerprint, verdict.clone()));
        }
        verdict
    }

    fn decide(&mut self, command: &Command) -> Verdict {
        let not_found = Verdict::Refused(Rejection::NotFound);
        let (from, to, amount, currency) = match &command.kind {
            CommandKind::OpenAccount { owner, currency, .. } => {
                return Verdict::Opened(self.open(Some(*owner), currency.code()));
            }
            CommandKind::Deposit { account, amount, currency, .. } => (None, Some(*account), *amount, *currency),
            CommandKind::Withdraw { account, amount, currency, .. } => (Some(*account), None, *amount, *currency),
            CommandKind::Transfer { from, to, amount, currency, .. } => (Some(*from), Some(*to), *amount, *currency),
        };
        let acted_on = i64::from(from.or(to).unwrap().sequence);
        if self.accounts.get(&acted_on).and_then(|account| account.owner) != Some(command.principal) {
            return not_found;
        }
        if from == to {
            return Verdict::Refused(Rejection::SameAccount);
        }
        let named: Vec<i64> = [from, to].into_iter().flatten().map(|id| id.sequence.into()).collect();
        if named.iter().any(|id| self.accounts.get(id).is_none_or(|account| account.owner.is_none())) {
            return not_found;
        }
        if named.iter().any(|id| !self.accounts[id].active) {
            return Verdict::Refused(Rejection::AccountNotActive);
        }
        if named.iter().any(|id| self.accounts[id].currency != currency.code()) {
            return Verdict::Refused(Rejection::CurrencyMismatch);
        }
        self.book(from, to, amount.minor_units().into(), currency.code())
    }

    fn book(
        &mut self,
        from: Option<AccountId>,
        to: Option<AccountId>,
        amount: i128,
        currency: &'static str,
    ) -> Verdict {
        if let Some(from) = from {
            let source = &self.accounts[&i64::from(from.sequence)];
            if source.balance - amount - source.held < 0 {
                return Verdict::Refused(Rejection::InsufficientFunds);
            }
        }
        let full = i128::from(MAX_MINOR_UNITS);
        if to.is_some_and(|to| self.accounts[&i64::from(to.sequence)].balance + amount > full) {
            return Verdict::Refused(Rejection::LimitExceeded);
        }
        let settlement = self.accounts.iter().find(|(_, a)| a.owner.is_none() && a.currency == currency);
        let mut settlement = settlement.map(|(id, account)| (*id, account.balance));
        if from.is_none() && settlement.is_some_and(|(_, balance)| balance - amount < -full) {
            return Verdict::Refused(Rejection::LimitExceeded);
        }
        if from.is_none() || to.is_none() {
            settlement.get_or_insert_with(|| (self.open(None, currency), 0));
        }
        let outside = || settlement.unwrap().0;
        let (source, destination) =
            (from.map_or_else(outside, |id| id.sequence.into()), to.map_or_else(outside, |id| id.sequence.into()));
        self.accounts.get_mut(&source).unwrap().balance -= amount;
        self.accounts.get_mut(&destination).unwrap().balance += amount;
        let journal = self.take();
        match (from, to) {
            (Some(_), Some(_)) => Verdict::Transferred(journal),
            (Some(_), None) => Verdict::Settled(journal, self.accounts[&source].balance),
            _ => Verdict::Settled(journal, self.accounts[&destination].balance),
        }
    }
}

fn verdict(answer: &Answer) -> Verdict {
    let outcome = match answer {
        Answer::KeyReused => return Verdict::Reused,
        Answer::Decided(outcome) | Answer::Replayed(outcome) => outcome,
    };
    match outcome {
        Outcome::AccountOpened(account) => Verdict::Opened(account.id.sequence.into()),
        Outcome::Transaction(done) => Verdict::Settled(done.id.journal.sequence.into(), done.balance_after.into()),
        Outcome::Transfer(transfer) => Verdict::Transferred(transfer.id.sequence.into()),
        Outcome::Rejected(rejection) => Verdict::Refused(*rejection),
    }
}

/// Journals balance, sequences and versions are dense, and running balances follow from what was there before.
fn check_rows(before: &State, decision: &Decision) -> Result<(), TestCaseError> {
    let mut next = i64::from(before.head.sequence);
    for journal in &decision.batch.journals {
        next += 1;
        prop_assert_eq!(i64::from(journal.sequence), next);
        let sides: Vec<_> = decision.batch.entries.iter().filter(|e| e.sequence == journal.sequence).collect();
        prop_assert_eq!(sides.len(), if journal.kind == JournalKind::AccountOpened { 0 } else { 2 });
        prop_assert_eq!(sides.iter().map(|entry| entry.posted_delta).sum::<i64>(), 0);
        for entry in sides {
            let id = AccountId { epoch: EPOCH, sequence: entry.account_id };
            prop_assert_eq!(decision.state.accounts[&id].currency, journal.currency);
        }
    }
    prop_assert_eq!(i64::from(decision.state.head.sequence), next);
    let mut running: HashMap<Sequence, (i64, i64)> =
        before.accounts.iter().map(|(id, account)| (id.sequence, (account.version, account.posted))).collect();
    for entry in &decision.batch.entries {
        let (version, posted) = running.entry(entry.account_id).or_default();
        *version += 1;
        *posted += entry.posted_delta;
        prop_assert_eq!((entry.seq, entry.posted_after), (*version, *posted));
    }
    for (id, account) in &decision.state.accounts {
        let expected = running.get(&id.sequence).copied().unwrap_or_default();
        prop_assert_eq!((account.version, account.posted), expected);
    }
    Ok(())
}

/// Everything of an answer but the time it was given.
fn timeless(answers: &[Answer]) -> Vec<serde_json::Value> {
    let strip = |outcome: &Outcome| {
        let mut value = serde_json::to_value(outcome).unwrap();
        for inner in value.as_object_mut().unwrap().values_mut() {
            if let Some(fields) = inner.as_object_mut() {
                fields.remove("created_at");
            }
        }
        value
    };
    let value = |answer: &Answer| match answer {
        Answer::Decided(outcome) | Answer::Replayed(outcome) => strip(outcome),
        Answer::KeyReused => serde_json::Value::Null,
    };
    answers.iter().map(value).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_batch_is_decided_as_the_oracle_decides_it(state in any_state(), commands in vec(any_command(), 0..60)) {
        let mut oracle = Oracle::new(&state);
        let expected: Vec<_> = commands.iter().map(|command| oracle.answer(command)).collect();
        let decision = apply(state.clone(), &commands, START);
        prop_assert_eq!(decision.answers.iter().map(verdict).collect::<Vec<_>>(), expected);
        let balances: BTreeMap<i64, i128> =
            decision.state.accounts.iter().map(|(id, a)| (id.sequence.into(), a.posted.into())).collect();
        let expected: BTreeMap<i64, i128> = oracle.accounts.iter().map(|(id, a)| (*id, a.balance)).collect();
        prop_assert_eq!(balances, expected);
        check_rows(&state, &decision)?;
    }

    #[test]
    fn money_is_conserved_and_floors_hold(state in any_state(), commands in vec(any_command(), 0..60)) {
        let decision = apply(state, &commands, START);
        let mut totals: BTreeMap<Currency, i128> = BTreeMap::new();
        for account in decision.state.accounts.values() {
            *totals.entry(account.currency).or_default() += i128::from(account.posted);
            prop_assert!(account.minimum.is_none_or(|minimum| account.posted - account.held >= minimum));
            prop_assert!(account.posted.abs() <= MAX_MINOR_UNITS);
        }
        prop_assert!(totals.values().all(|total| *total == 0), "{:?}", totals);
    }

    #[test]
    fn a_batch_may_be_split_anywhere(
        state in any_state(),
        commands in vec(any_command(), 0..60),
        at in any::<prop::sample::Index>(),
    ) {
        let whole = apply(state.clone(), &commands, START);
        let (first, second) = commands.split_at(at.index(commands.len() + 1));
        let first = apply(state, first, START);
        let second = apply(first.state, second, START);
        let answers: Vec<_> = first.answers.into_iter().chain(second.answers).collect();
        prop_assert_eq!(timeless(&answers), timeless(&whole.answers));
        prop_assert_eq!(second.state.accounts, whole.state.accounts);
        prop_assert_eq!(second.state.settlements, whole.state.settlements);
        prop_assert_eq!(second.state.head.sequence, whole.state.head.sequence);
        let entries: Vec<_> = first.batch.entries.into_iter().chain(second.batch.entries).collect();
        prop_assert_eq!(entries, whole.batch.entries);
    }

    #[test]
    fn a_repeated_batch_is_answered_the_same_and_writes_nothing(
        state in any_state(),
        commands in vec(any_command(), 0..60),
    ) {
        let first = apply(state, &commands, START);
        let again = apply(first.state.clone(), &commands, START + Duration::HOUR);
        for (first, again) in first.answers.iter().zip(&again.answers) {
            match (first, again) {
                (Answer::Decided(Outcome::Rejected(Rejection::NotFound)), _) => {}
                (Answer::Decided(outcome) | Answer::Replayed(outcome), Answer::Replayed(replayed)) => {
                    prop_assert_eq!(serde_json::to_string(outcome).unwrap(), serde_json::to_string(replayed).unwrap());
                }
                (first, again) => prop_assert_eq!(first, again),
            }
        }
    }
}
