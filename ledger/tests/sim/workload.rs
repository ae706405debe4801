//! What clients ask: every kind of command, on few accounts, so that they meet.

use finaiflow_ledger::command::{
    AccountChange, AccountKind, AccountType, AuditContext, Authority, Command, CommandKind, Limits, Memo, Metadata,
    NewTransfer,
};
use finaiflow_ledger::id::{AccountId, HoldId, JournalId, Sequence};
use finaiflow_ledger::money::{Amount, Currency};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::dice::Dice;

/// What clients have learned of the ledger.
#[derive(Default)]
pub struct Known {
    pub accounts: Vec<(AccountId, Uuid)>,
    pub internal: Vec<AccountId>,
    pub holds: Vec<HoldId>,
    pub journals: Vec<JournalId>,
}

pub fn usd() -> Currency {
    "USD".parse().unwrap()
}

pub fn user(number: usize) -> Uuid {
    Uuid::from_u128(number as u128 + 1)
}

fn memo(dice: &mut Dice, name: &str) -> Memo {
    let description = dice.chance(30).then(|| format!("für {name}"));
    let metadata = if dice.chance(5) { Metadata::from([("n".to_owned(), name.to_owned())]) } else { Metadata::new() };
    let value_date = dice.chance(5).then_some(time::macros::date!(2026 - 02 - 01));
    Memo { description, reference: Some(name.to_owned()), metadata, value_date, ..Memo::default() }
}

fn amount(dice: &mut Dice) -> Amount {
    let most = dice.pick(&[50, 400, 3_000]);
    Amount::try_from(i64::try_from(dice.below(most)).unwrap() + 1).unwrap()
}

pub fn open(owner: Uuid, currency: Currency, name: &str) -> CommandKind {
    let (account_type, name) = (AccountType::Checking, name.to_owned());
    CommandKind::OpenAccount { owner, account_type, currency, name, metadata: Metadata::new() }
}

pub fn deposit(account: AccountId, minor_units: i64, name: &str) -> CommandKind {
    let memo = Memo { reference: Some(name.to_owned()), ..Memo::default() };
    CommandKind::Deposit { account, amount: Amount::try_from(minor_units).unwrap(), currency: usd(), memo }
}

pub fn command(dice: &mut Dice, principal: Uuid, authority: Authority, key: &str, kind: CommandKind) -> Command {
    let fingerprint = [dice.below(250).to_le_bytes()[0]; 32];
    let (key, salt, audit) = (key.to_owned(), dice.bytes(), AuditContext::default());
    Command { principal, authority, key, fingerprint, salt, kind, audit }
}

/// A random command. Its journals have `name` as their reference, those of a bulk with a number behind it.
pub fn any(dice: &mut Dice, known: &Known, client: usize, name: &str, now: OffsetDateTime) -> Command {
    let (account, owner) = dice.pick(&known.accounts);
    let staff = dice.chance(40);
    // Mostly somebody who may.
    let principal = if dice.chance(85) { owner } else { user(client) };
    let authority = if staff { Authority::Staff } else { Authority::Owner };
    let kind = kind(dice, known, account, name, now);
    command(dice, principal, authority, name, kind)
}

fn kind(dice: &mut Dice, known: &Known, account: AccountId, name: &str, now: OffsetDateTime) -> CommandKind {
    let nowhere = Sequence::try_from(9_999).unwrap();
    let nobody = AccountId { epoch: 1, sequence: nowhere };
    let to = if dice.chance(4) { nobody } else { dice.pick(&known.accounts).0 };
    let (memo, amount) = (memo(dice, name), amount(dice));
    let currency = if dice.chance(96) { usd() } else { "EUR".parse().unwrap() };
    let none = HoldId { epoch: 1, sequence: nowhere };
    let hold = |dice: &mut Dice| if known.holds.is_empty() { none } else { dice.pick(&known.holds) };
    match dice.roll(40) {
        0 => open(user(dice.roll(4)), currency, name),
        1 => {
            let kind = dice.pick(&[AccountKind::Fee, AccountKind::Position, AccountKind::Settlement]);
            CommandKind::OpenInternal { kind, currency, name: name.to_owned() }
        }
        2..=5 => CommandKind::ChangeAccount { account, change: change(dice, name) },
        6..=9 => CommandKind::Deposit { account, amount, currency, memo },
        10..=13 => CommandKind::Withdraw { account, amount, currency, memo },
        14..=21 => CommandKind::Transfer(NewTransfer { from: account, to, amount, currency, memo }),
        22..=24 => {
            let numbered = |number: usize| Memo { reference: Some(format!("{name}/{number}")), ..memo.clone() };
            let mut sides = (account, to);
            let transfers = (0..=dice.roll(5)).map(|number| {
                let transfer = NewTransfer { from: sides.0, to: sides.1, amount, currency, memo: numbered(number) };
                sides = if number % 2 == 1 { (sides.1, sides.0) } else { sides };
                transfer
            });
            let transfers = transfers.collect();
            CommandKind::Bulk { transfers, atomic: dice.chance(50) }
        }
        25..=26 => {
            let (whole, last) = (amount.minor_units(), known.internal.last().copied().unwrap_or(nobody));
            let fee = i64::from(dice.chance(70));
            let legs = vec![(account, -whole - 1), (to, whole), (last, fee)];
            CommandKind::Journal { legs, currency, memo }
        }
        27..=29 => {
            let none = JournalId { epoch: 1, sequence: nowhere };
            let journal = if known.journals.is_empty() { none } else { dice.pick(&known.journals) };
            CommandKind::Reverse { journal, memo }
        }
        30..=34 => {
            let destination = dice.chance(50).then_some(to);
            let later = Duration::seconds(i64::try_from(dice.below(30)).unwrap() - 1);
            let expires_at = dice.chance(40).then_some(now + later);
            CommandKind::PlaceHold { account, destination, amount, currency, memo, expires_at }
        }
        35..=37 => {
            let (hold, keep_rest) = (hold(dice), dice.chance(50));
            CommandKind::CaptureHold { hold, amount: dice.chance(60).then_some(amount), keep_rest, memo }
        }
        38 => CommandKind::VoidHold { hold: hold(dice) },
        _ => CommandKind::ExpireHold { hold: hold(dice) },
    }
}

fn change(dice: &mut Dice, name: &str) -> AccountChange {
    let reason = Some(name.to_owned());
    let mut limit = |most: u64| dice.chance(40).then(|| i64::try_from(dice.below(most)).unwrap());
    let limits = Limits { minimum_balance: 0, per_transaction: limit(900), daily: limit(3_000), monthly: limit(5_000) };
    match dice.roll(8) {
        0 => AccountChange::Freeze { reason },
        1 | 2 => AccountChange::Unfreeze { reason },
        3 => AccountChange::Close { reason },
        4 => AccountChange::Describe { name: Some(name.to_owned()), metadata: None },
        5 => {
            let metadata = if dice.chance(50) { Metadata::new() } else { [("n".to_owned(), name.to_owned())].into() };
            AccountChange::Describe { name: None, metadata: Some(metadata) }
        }
        _ => {
            let minimum_balance = i64::try_from(dice.below(600)).unwrap() - 500;
            AccountChange::Limit(Limits { minimum_balance, ..limits })
        }
    }
}

/// More movements than one account may have waiting.
pub fn flood(known: &Known, name: &str) -> CommandKind {
    let nobody = AccountId { epoch: 1, sequence: Sequence::try_from(9_999).unwrap() };
    let memo = Memo { reference: Some(name.to_owned()), ..Memo::default() };
    let amount = Amount::try_from(1).unwrap();
    let transfer = NewTransfer { from: known.accounts[0].0, to: nobody, amount, currency: usd(), memo };
    CommandKind::Bulk { transfers: vec![transfer; 4_096], atomic: false }
}
