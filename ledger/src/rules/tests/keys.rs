//! Keys, and the time of a batch.

use super::*;

#[test]
fn a_key_lives_for_a_day() {
    let first = apply(empty(), &[command(ADA, "a", open(ADA))], START);
    let almost = START + KEY_LIFETIME;
    let again = command(ADA, "a", open(ADA));
    assert!(matches!(apply(first.state.clone(), std::slice::from_ref(&again), almost).answers[0], Answer::Replayed(_)));
    let other = Command { fingerprint: [1; 32], ..again };
    assert_eq!(apply(first.state.clone(), std::slice::from_ref(&other), almost).answers, [Answer::KeyReused]);
    let over = almost + Duration::MICROSECOND;
    assert!(matches!(apply(first.state, &[other], over).answers[0], Answer::Decided(Outcome::AccountOpened(_))));
}

#[test]
fn a_key_is_its_principals_own() {
    let commands = [command(ADA, "a", open(ADA)), command(BOB, "a", open(BOB))];
    let decision = apply(empty(), &commands, START);
    assert!(decision.answers.iter().all(|answer| matches!(answer, Answer::Decided(Outcome::AccountOpened(_)))));
}

#[test]
fn refusals_are_remembered_unless_they_say_nothing_about_the_ledger() {
    let mut ledger = Ledger::new();
    let (a, b) = (ledger.funded(ADA, 10), ledger.funded(BOB, 1));
    let poor = command(ADA, "poor", withdraw(a, 11));
    assert_eq!(ledger.one(poor.clone()), rejected(Rejection::InsufficientFunds));
    ledger.owner(ADA, deposit(a, 100));
    let again = ledger.batch(&[poor]);
    assert_eq!(again.answers, [Answer::Replayed(rejected(Rejection::InsufficientFunds))]);
    let unknown = command(ADA, "unknown", transfer(a, account(1_000), 1));
    let forbidden = command(BOB, "forbidden", freeze(b));
    let decision = ledger.batch(&[unknown, forbidden]);
    let expected = [Rejection::NotFound, Rejection::Forbidden].map(|refusal| Answer::Decided(rejected(refusal)));
    assert_eq!(decision.answers, expected);
    assert!(decision.batch.is_empty());
    let known = command(ADA, "unknown", transfer(a, b, 1));
    assert!(matches!(ledger.one(known), Outcome::Transfer(_)), "the key is still free");
}

#[test]
fn time_moves_forward_in_microseconds_of_utc() {
    let late = datetime!(2026-01-01 02:00:00.123_456_789 +02);
    let first = apply(empty(), &[command(ADA, "a", open(ADA))], late);
    assert_eq!(first.state.head.time, START + Duration::microseconds(123_456));
    assert!(first.state.head.time.offset().is_utc());
    let second = apply(first.state, &[command(ADA, "b", open(ADA))], START);
    assert_eq!(second.state.head.time, START + Duration::microseconds(123_457));
    let third = apply(second.state.clone(), &[command(ADA, "b", open(ADA))], late);
    assert_eq!((third.state, third.batch), (second.state, Batch::default()), "a replay writes nothing");
}

#[test]
fn the_last_sequence_is_never_passed() {
    let mut state = empty();
    state.head.sequence = sequence(i64::from(Sequence::MAX) - 1);
    let full = Answer::Decided(rejected(Rejection::LimitExceeded));
    let [first, second] = ["a", "b"].map(|key| command(ADA, key, open(ADA)));
    let decision = apply(state, &[first, second], START);
    assert!(matches!(decision.answers[0], Answer::Decided(Outcome::AccountOpened(_))));
    assert_eq!(decision.answers[1], full);
    // A first deposit needs two places: one for the settlement account.
    let mut ledger = Ledger::new();
    let a = ledger.opened(open(ADA));
    ledger.state.head.sequence = sequence(i64::from(Sequence::MAX) - 1);
    let decision = ledger.batch(&[command(ADA, "c", deposit(a, 1))]);
    assert_eq!((decision.answers, decision.batch.journals.len()), (vec![full], 0));
}
