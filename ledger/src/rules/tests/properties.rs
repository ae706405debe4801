//! Random histories, in which keys, accounts, holds and limits collide often.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::oracle::{Oracle, verdict};
use super::*;

/// What a command names is picked from what there is by the time it is said.
#[derive(Debug, Clone)]
struct Wish {
    stranger: bool,
    staff: bool,
    /// A key that others use too, or one of its own.
    shared: Option<u8>,
    fingerprint: u8,
    what: u8,
    first: usize,
    second: usize,
    amount: i64,
    hours: u8,
    flag: bool,
}

fn any_wish() -> impl Strategy<Value = Wish> {
    let amount = prop_oneof![8 => 1..200_i64, 1 => MAX_MINOR_UNITS - 300..=MAX_MINOR_UNITS];
    let who = (prop::bool::weighted(0.2), prop::bool::weighted(0.4), option::weighted(0.2, 0..6_u8));
    let fingerprint = prop_oneof![5 => Just(0_u8), 1 => Just(1)];
    let what = (0..24_u8, 0..1_000_usize, 0..1_000_usize, amount, 0..60_u8, any::<bool>());
    (who, fingerprint, what).prop_map(
        |((stranger, staff, shared), fingerprint, (what, first, second, amount, hours, flag))| Wish {
            stranger,
            staff,
            shared,
            fingerprint,
            what,
            first,
            second,
            amount,
            hours,
            flag,
        },
    )
}

/// Batches, and the hours before each: some on one day, some across days and months.
fn any_history() -> impl Strategy<Value = Vec<(u16, Vec<Wish>)>> {
    let gap = prop_oneof![4 => 0..3_u16, 2 => 10..30_u16, 1 => 300..800_u16];
    vec((gap, vec(any_wish(), 0..12)), 1..10)
}

/// One of `all`, or now and then one that is not there.
fn pick<T: Copy>(all: &[T], number: usize, none: T) -> T {
    if number.is_multiple_of(29) || all.is_empty() { none } else { all[number % all.len()] }
}

fn any_account(ledger: &Ledger, number: usize) -> AccountId {
    let mut ids: Vec<_> = ledger.state.accounts.keys().copied().collect();
    ids.sort();
    pick(&ids, number, account(9_999))
}

impl Wish {
    fn command(&self, ledger: &mut Ledger) -> Command {
        let own = ledger.key();
        let key = self.shared.map_or(own, |shared| format!("shared-{shared}"));
        let authority = if self.staff { Authority::Staff } else { Authority::Owner };
        let fingerprint = [self.fingerprint; 32];
        let owner = ledger.state.accounts.get(&self.accounts(ledger).0).and_then(|account| account.owner);
        let principal = owner.filter(|_| !self.stranger).unwrap_or(user(1));
        Command { principal, authority, fingerprint, ..command(1, &key, self.kind(ledger)) }
    }

    fn currency(&self) -> Currency {
        if self.second.is_multiple_of(7) { eur() } else { usd() }
    }

    fn memo(&self) -> Memo {
        Memo { description: self.flag.then(|| format!("no {}", self.first)), ..Memo::default() }
    }

    fn accounts(&self, ledger: &Ledger) -> (AccountId, AccountId) {
        (any_account(ledger, self.first), any_account(ledger, self.second))
    }

    fn transfers(&self, ledger: &Ledger) -> Vec<NewTransfer> {
        let (from, to) = self.accounts(ledger);
        let amounts = (0..i64::from(self.hours % 5)).map(|step| (self.amount + step * 40).min(MAX_MINOR_UNITS));
        let transfer = |amount| NewTransfer { memo: self.memo(), ..new_transfer(from, to, amount) };
        amounts.map(transfer).enumerate().map(|(turn, asked)| if turn == 2 { back(asked) } else { asked }).collect()
    }

    fn kind(&self, ledger: &Ledger) -> CommandKind {
        let (account, to) = self.accounts(ledger);
        let (memo, currency, amount) = (self.memo(), self.currency(), amount(self.amount));
        let mut holds: Vec<_> = ledger.state.holds.keys().copied().collect();
        holds.sort();
        let hold = pick(&holds, self.first, HoldId { epoch: EPOCH, sequence: sequence(9_999) });
        match self.what {
            0 => open_in(1 + self.second as u128 % 3, currency),
            1 => CommandKind::OpenInternal {
                kind: [AccountKind::Settlement, AccountKind::Fee, AccountKind::Customer][self.first % 3],
                currency,
                name: "Own".to_owned(),
            },
            2..=4 => CommandKind::ChangeAccount { account, change: self.change() },
            5..=7 => CommandKind::Deposit { account, amount, currency, memo },
            8..=9 => CommandKind::Withdraw { account, amount, currency, memo },
            10..=12 => CommandKind::Transfer(NewTransfer { from: account, to, amount, currency, memo }),
            13..=14 => CommandKind::Bulk { transfers: self.transfers(ledger), atomic: self.flag },
            15 => {
                let other = any_account(ledger, self.first + 1);
                let first = (account, -self.amount);
                let legs = if self.flag {
                    vec![first, (to, self.amount)]
                } else {
                    vec![first, (to, self.amount - 1), (other, (self.hours % 3).into())]
                };
                CommandKind::Journal { legs, currency, memo }
            }
            16..=17 => {
                let journals: Vec<_> = ledger.journals.iter().map(|(journal, ..)| journal.sequence).collect();
                let sequence = pick(&journals, self.first, sequence(9_999));
                CommandKind::Reverse { journal: JournalId { epoch: EPOCH, sequence }, memo }
            }
            18..=20 => {
                let destination = self.flag.then_some(to);
                let expires_at = (self.hours > 30).then(|| ledger.now + Duration::hours(i64::from(self.hours) - 31));
                CommandKind::PlaceHold { account, destination, amount, currency, memo, expires_at }
            }
            21 => {
                let amount = self.second.is_multiple_of(3).then_some(amount);
                CommandKind::CaptureHold { hold, amount, keep_rest: self.flag, memo }
            }
            22 => CommandKind::VoidHold { hold },
            _ => CommandKind::ExpireHold { hold },
        }
    }

    fn change(&self) -> AccountChange {
        let reason = None;
        let limit = |wanted: bool| wanted.then_some(self.amount);
        match self.second % 6 {
            0 => AccountChange::Freeze { reason },
            1 => AccountChange::Unfreeze { reason },
            2 => AccountChange::Close { reason },
            3 => AccountChange::Describe {
                name: self.flag.then(|| format!("Name {}", self.first)),
                metadata: (self.hours > 20).then(|| Metadata::from([("hour".to_owned(), self.hours.to_string())])),
            },
            _ => AccountChange::Limit(Limits {
                minimum_balance: i64::from(self.hours) * 10 - 400,
                per_transaction: limit(self.hours.is_multiple_of(3)),
                daily: limit(self.flag),
                monthly: limit(self.hours.is_multiple_of(4)).map(|amount| 2 * amount.min(MAX_MINOR_UNITS / 2)),
            }),
        }
    }
}

/// The other way round.
fn back(asked: NewTransfer) -> NewTransfer {
    NewTransfer { from: asked.to, to: asked.from, ..asked }
}

/// A bank with a few accounts to begin with.
fn founded() -> Vec<Command> {
    let customers = [1, 1, 2, 2, 3].map(open).into_iter().chain([open_in(3, eur())]);
    let opened = customers.chain([internal(AccountKind::Fee)]);
    let mut commands: Vec<_> = opened.enumerate().map(|(turn, kind)| staff(&format!("o{turn}"), kind)).collect();
    commands.extend((1..=4).map(|to| staff(&format!("d{to}"), deposit(account(to), 300))));
    commands
}

/// Calls `look` with every batch: the ledger before it, its commands, and what was decided.
fn play(history: Vec<(u16, Vec<Wish>)>, mut look: impl FnMut(&State, OffsetDateTime, &[Command], &Decision)) {
    let mut ledger = Ledger::new();
    let mut tell = |ledger: &mut Ledger, commands: &[Command]| {
        let before = ledger.state.clone();
        let decision = ledger.batch(commands);
        look(&before, ledger.now, commands, &decision);
    };
    tell(&mut ledger, &founded());
    for (hours, wishes) in history {
        // The minute keeps a key's end from falling on a batch, where a microsecond would matter.
        ledger.now += Duration::hours(hours.into()) + Duration::MINUTE;
        let commands: Vec<_> = wishes.iter().map(|wish| wish.command(&mut ledger)).collect();
        tell(&mut ledger, &commands);
    }
}

/// Everything of an answer but the time it was given.
fn timeless(answer: &Answer) -> serde_json::Value {
    fn strip(value: &mut serde_json::Value) {
        if let Some(fields) = value.as_object_mut() {
            fields.remove("created_at");
            fields.values_mut().for_each(strip);
        } else if let Some(items) = value.as_array_mut() {
            items.iter_mut().for_each(strip);
        }
    }
    let (Answer::Decided(outcome) | Answer::Replayed(outcome)) = answer else { return serde_json::Value::Null };
    let mut value = serde_json::to_value(outcome).unwrap();
    strip(&mut value);
    value
}

/// The hashes of `journals` if they are booked after `head`, each at its time.
fn hashes(head: Head, journals: &[(Journal, OffsetDateTime)], entries: &[Entry]) -> Vec<Hash> {
    let mut hash = head.hash;
    let chained = journals.iter().map(|(journal, time)| {
        let own: Vec<_> = entries.iter().filter(|entry| entry.sequence == journal.sequence).copied().collect();
        hash = recomputed(hash, journal, &own, *time);
        hash
    });
    chained.collect()
}

fn split(before: &State, now: OffsetDateTime, commands: &[Command], whole: &Decision, at: usize) {
    let (first, second) = commands.split_at(at);
    let first = apply(before.clone(), first, now);
    let second = apply(first.state.clone(), second, now);
    let answers: Vec<_> = first.answers.iter().chain(&second.answers).map(timeless).collect();
    assert_eq!(answers, whole.answers.iter().map(timeless).collect::<Vec<_>>());
    let entries = [first.batch.entries, second.batch.entries].concat();
    assert_eq!(entries, whole.batch.entries);
    assert_eq!(second.state.head.sequence, whole.state.head.sequence);
    assert_eq!(second.state.settlements, whole.state.settlements);
    // But for the time of booking nothing in a hash tells of batches.
    let timed = |journals: Vec<Journal>, time| journals.into_iter().map(move |journal| (journal, time));
    let parts: Vec<_> =
        timed(first.batch.journals, first.time).chain(timed(second.batch.journals, second.time)).collect();
    let retimed: Vec<_> = whole.batch.journals.iter().cloned().zip(parts.iter().map(|part| part.1)).collect();
    let expected: Vec<_> = parts.iter().map(|(journal, _)| journal.hash).collect();
    assert_eq!(hashes(before.head, &retimed, &entries), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_batch_is_decided_as_the_oracle_decides_it(history in any_history()) {
        let mut oracle = Oracle::default();
        play(history, |_, _, commands, decision| {
            for (command, answer) in commands.iter().zip(&decision.answers) {
                assert_eq!(verdict(answer), oracle.answer(command, decision.time), "{command:?}");
            }
            let ours = decision.state.accounts.iter();
            let ours: BTreeMap<i64, _> =
                ours.map(|(id, a)| (id.sequence.into(), (i128::from(a.posted), i128::from(a.held)))).collect();
            let theirs = oracle.accounts.iter().map(|(id, a)| (*id, (a.balance, a.held))).collect();
            assert_eq!(ours, theirs);
        });
    }

    #[test]
    fn a_batch_may_be_split_anywhere(history in any_history(), at in any::<prop::sample::Index>()) {
        play(history, |before, now, commands, whole| split(before, now, commands, whole, at.index(commands.len() + 1)));
    }

    #[test]
    fn a_repeated_batch_is_answered_the_same_and_writes_nothing(history in any_history()) {
        play(history, |_, now, commands, first| {
            let again = apply(first.state.clone(), commands, now);
            let mut fresh = false;
            for (first, again) in first.answers.iter().zip(&again.answers) {
                match (first, again) {
                    (Answer::Decided(outcome), _) if !is_remembered(outcome) => fresh = true,
                    (Answer::Decided(outcome) | Answer::Replayed(outcome), Answer::Replayed(replayed)) => {
                        assert_eq!(serde_json::to_string(outcome).unwrap(), serde_json::to_string(replayed).unwrap());
                    }
                    (first, again) => assert_eq!(first, again),
                }
            }
            assert!(fresh || again.batch.is_empty(), "a replay writes nothing");
        });
    }
}

/// That the histories reach what they are meant to: each answer of the rules at least once.
#[test]
fn histories_meet_every_rule() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, TestRunner};

    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        prop::test_runner::TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
    );
    let mut met = BTreeMap::<String, u32>::new();
    let mut count = |word: String| *met.entry(word).or_default() += 1;
    for _ in 0..256 {
        let history = any_history().new_tree(&mut runner).unwrap().current();
        play(history, |_, _, _, decision| {
            for answer in &decision.answers {
                match answer {
                    Answer::KeyReused => count("reused".to_owned()),
                    Answer::Replayed(_) => count("replayed".to_owned()),
                    Answer::Decided(Outcome::Rejected(rejection)) => count(format!("{rejection:?}")),
                    Answer::Decided(Outcome::BulkRejected { .. }) => count("bulk refused".to_owned()),
                    Answer::Decided(_) => {}
                }
            }
            decision.batch.journals.iter().for_each(|journal| count(journal.kind.as_str().to_owned()));
        });
    }
    let expected = "InsufficientFunds CurrencyMismatch SameAccount AccountNotActive NotFound LimitExceeded \
        SpendingLimitExceeded StatusConflict AccountNotEmpty Unbalanced NotReversible AlreadyReversed HoldSettled \
        HoldExpired ExceedsHold Forbidden account_opened account_changed deposit withdrawal transfer journal reversal \
        hold_placed hold_captured hold_voided hold_expired reused replayed";
    let missing: Vec<_> = expected.split_whitespace().filter(|word| !met.contains_key(*word)).collect();
    assert!(missing.is_empty() && met.contains_key("bulk refused"), "{missing:?} of {met:?}");
}
