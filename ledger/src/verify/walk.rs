//! The proof of the chain, from its records alone: no database, no clock.

use std::collections::HashMap;
use std::fmt;

use time::OffsetDateTime;

use super::record::Record;
use super::{Finding, Findings};
use crate::batch::{ForkDetail, JournalKind};
use crate::chain::{Anchor, Hash, LinkEntry};
use crate::id::Sequence;

/// Follows the chain from record to record and notes what does not fit.
#[derive(Debug)]
pub struct Walk {
    /// The last journal seen; its hash is what the journal itself says, so that one fault is one finding.
    last: Option<Anchor>,
    time: OffsetDateTime,
    /// Those still to come, the next one last.
    anchors: Vec<Anchor>,
    held_anchors: usize,
    journals: u64,
    balances: Option<Balances>,
    findings: Findings,
}

/// What each account came to: version, posted, held.
#[derive(Debug)]
struct Balances {
    /// Whether an account that was not seen yet must be empty.
    from_the_first: bool,
    accounts: HashMap<Sequence, (i64, i64, i64)>,
}

impl Walk {
    /// Starts before the first journal, or right after `start`. The chain has to pass through `anchors`.
    #[must_use]
    pub fn new(start: Option<Anchor>, mut anchors: Vec<Anchor>) -> Self {
        anchors.retain(|anchor| start.is_none_or(|start| anchor.sequence > start.sequence));
        anchors.sort_by_key(|anchor| std::cmp::Reverse(anchor.sequence));
        Self {
            last: start,
            time: OffsetDateTime::UNIX_EPOCH,
            anchors,
            held_anchors: 0,
            journals: 0,
            balances: None,
            findings: Findings::default(),
        }
    }

    /// Also proves that each account's entries continue one another, in memory that grows with the accounts.
    #[must_use]
    pub fn with_balances(mut self) -> Self {
        self.balances = Some(Balances { from_the_first: self.last.is_none(), accounts: HashMap::new() });
        self
    }

    /// The journal before the first one to take.
    pub(super) fn start(&self) -> Sequence {
        self.last.map_or(Sequence::ZERO, |last| last.sequence)
    }

    /// Takes the next record.
    pub fn step(&mut self, record: &Record) {
        self.place(record);
        let previous = self.last.map_or(Hash::default(), |last| last.hash);
        let due = record.hash_after(previous);
        if due != record.hash {
            let detail = format!("the hash is {}, what the journal says gives {due}", record.hash);
            self.note("chain", record.sequence, detail);
        }
        self.pass_anchors(record);
        for (check, detail) in faults(record) {
            self.note(check, record.sequence, detail);
        }
        if let Some(balances) = &mut self.balances {
            for entry in &record.entries {
                if let Some((check, detail)) = balances.enter(entry) {
                    self.findings.note(check, Some(record.sequence.into()), detail);
                }
            }
        }
        self.last = Some(Anchor { epoch: record.epoch, sequence: record.sequence, hash: record.hash });
        self.time = self.time.max(record.booked_at);
        self.journals += 1;
    }

    /// Epoch, sequence and time follow the last journal's.
    fn place(&mut self, record: &Record) {
        if record.booked_at < self.time {
            self.note(
                "journal-time",
                record.sequence,
                format!("booked before the journal before it, at {}", self.time),
            );
        }
        if record.kind == JournalKind::LedgerForked.as_str() {
            if !self.is_fork(record) {
                self.note("fork", record.sequence, "the fork does not say where it comes from".to_owned());
            }
            return;
        }
        let (last, due) = match self.last {
            Some(last) => (last, last.sequence.next()),
            None => (Anchor { epoch: record.epoch, ..NOTHING }, NOTHING.sequence.next()),
        };
        if record.epoch != last.epoch {
            let detail = format!("epoch {} follows epoch {} without a fork", record.epoch, last.epoch);
            self.note("epoch", record.sequence, detail);
        }
        match due {
            Some(due) if record.sequence > due => {
                let missing = i64::from(record.sequence) - 1;
                self.note("journal-order", due, format!("journals {due} to {missing} are missing"));
            }
            Some(due) if record.sequence == due => {}
            _ => self.note("journal-order", record.sequence, format!("it follows journal {}", last.sequence)),
        }
    }

    fn is_fork(&self, record: &Record) -> bool {
        let detail = record.detail.as_deref().and_then(|detail| serde_json::from_str::<ForkDetail>(detail).ok());
        detail.is_some_and(|ForkDetail { abandoned, restored }| {
            self.last == Some(restored)
                && record.epoch > abandoned.epoch.max(restored.epoch)
                && record.sequence > abandoned.sequence
                && abandoned.sequence >= restored.sequence
        })
    }

    fn pass_anchors(&mut self, record: &Record) {
        while let Some(anchor) = self.anchors.pop_if(|anchor| anchor.sequence <= record.sequence) {
            if anchor.sequence < record.sequence {
                self.lost(anchor, format_args!("journal {} comes in its place", record.sequence));
            } else if (anchor.epoch, anchor.hash) == (record.epoch, record.hash) {
                self.held_anchors += 1;
            } else {
                let detail = format!(
                    "journal {} had hash {} in epoch {} when it was anchored, now it has {} in epoch {}",
                    anchor.sequence, anchor.hash, anchor.epoch, record.hash, record.epoch
                );
                self.note("anchor", record.sequence, detail);
            }
        }
    }

    fn lost(&mut self, anchor: Anchor, instead: fmt::Arguments<'_>) {
        let detail =
            format!("journal {}, anchored with hash {}, is not there: {instead}", anchor.sequence, anchor.hash);
        self.note("anchor", anchor.sequence, detail);
    }

    fn note(&mut self, check: &'static str, sequence: Sequence, detail: String) {
        self.findings.note(check, Some(sequence.into()), detail);
    }

    /// What was found, once every record was taken.
    #[must_use]
    pub fn finish(mut self) -> Walked {
        let end = self.last.map_or(NOTHING.sequence, |last| last.sequence);
        while let Some(anchor) = self.anchors.pop() {
            self.lost(anchor, format_args!("the chain ends at journal {end}"));
        }
        let Self { last, held_anchors, journals, findings, .. } = self;
        Walked { last, held_anchors, journals, findings }
    }
}

/// The place before the first journal.
const NOTHING: Anchor = Anchor { epoch: 0, sequence: Sequence::ZERO, hash: Hash([0; 32]) };

/// The end of a [`Walk`].
#[derive(Debug)]
pub struct Walked {
    /// The last journal.
    pub last: Option<Anchor>,
    /// How many anchors the chain passes through.
    pub held_anchors: usize,
    /// How many journals there were.
    pub journals: u64,
    pub(super) findings: Findings,
}

impl Walked {
    /// What is wrong, in the order it was found, at most [`super::MAX_FINDINGS`] of each check.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings.kept
    }
}

/// What is wrong with a journal by itself.
fn faults(record: &Record) -> Vec<(&'static str, String)> {
    let entries = record.entries.len();
    let sum = |of: fn(&LinkEntry) -> i64| record.entries.iter().map(|entry| i128::from(of(entry))).sum::<i128>();
    let net = sum(|entry| entry.posted_delta);
    let moved = sum(|entry| entry.posted_delta.max(0));
    let held = sum(|entry| entry.held_delta);
    let mut faults = Vec::new();
    if net != 0 {
        faults.push(("journal-balance", format!("the entries add up to {net}, not 0")));
    }
    let (fits, amount) = match record.kind.as_str() {
        "account_opened" | "account_changed" | "ledger_forked" => (entries == 0, 0),
        "deposit" | "withdrawal" | "transfer" | "hold_captured" => (entries == 2, moved),
        "journal" | "reversal" => (entries >= 2, moved),
        "hold_placed" => (entries == 1, held),
        "hold_voided" | "hold_expired" => (entries == 1, -held),
        _ => (false, record.amount.into()),
    };
    if !fits {
        faults.push(("journal-entries", format!("a {} has {entries} entries", record.kind)));
    } else if amount != i128::from(record.amount) {
        faults.push(("journal-amount", format!("the entries say {amount}, the journal says {}", record.amount)));
    }
    faults
}

impl Balances {
    /// Continues an account, and says if the entry does not.
    fn enter(&mut self, entry: &LinkEntry) -> Option<(&'static str, String)> {
        let &LinkEntry { account, seq, posted_delta, held_delta, posted_after, held_after, .. } = entry;
        let before = self.accounts.insert(account, (seq, posted_after, held_after));
        let (version, posted, held) = before.or(self.from_the_first.then_some((0, 0, 0)))?;
        let due = |before: i64, delta: i64| i128::from(before) + i128::from(delta);
        if i128::from(seq) != due(version, 1) {
            let detail = format!("entry {seq} of account {account} follows entry {version}");
            return Some(("entry-order", detail));
        }
        let (posted_due, held_due) = (due(posted, posted_delta), due(held, held_delta));
        if (posted_due, held_due) == (posted_after.into(), held_after.into()) {
            return None;
        }
        let detail = format!(
            "entry {seq} of account {account} leaves {posted_after} posted and {held_after} held, its deltas give \
             {posted_due} and {held_due}"
        );
        Some(("entry-running", detail))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::{date, datetime};
    use uuid::Uuid;

    use super::*;

    type Change = fn(&mut Record);

    fn sequence(number: i64) -> Sequence {
        number.try_into().unwrap()
    }

    fn entry(account: i64, seq: i64, leg: i16, delta: (i64, i64), after: (i64, i64)) -> LinkEntry {
        LinkEntry {
            account: sequence(account),
            seq,
            leg,
            posted_delta: delta.0,
            held_delta: delta.1,
            posted_after: after.0,
            held_after: after.1,
        }
    }

    /// Links `record` to what there is.
    fn push(chain: &mut Vec<Record>, epoch: u32, number: i64, kind: &str, amount: i64, entries: Vec<LinkEntry>) {
        let mut record = Record {
            epoch,
            sequence: sequence(number),
            booked_at: datetime!(2026-03-01 10:00 UTC) + time::Duration::seconds(number),
            kind: kind.to_owned(),
            actor: Uuid::from_u128(7),
            currency: "USD".to_owned(),
            amount,
            refers_to: None,
            value_date: date!(2026 - 03 - 01),
            detail: None,
            commitment: None,
            entries,
            hash: Hash::default(),
        };
        record.hash = record.hash_after(chain.last().map_or(Hash::default(), |last| last.hash));
        chain.push(record);
    }

    fn relink(chain: &mut [Record], from: usize) {
        for at in from..chain.len() {
            let previous = at.checked_sub(1).map_or(Hash::default(), |before| chain[before].hash);
            chain[at].hash = chain[at].hash_after(previous);
        }
    }

    /// Two openings, a deposit of 100, a hold of 30 and its release, a deposit of 5.
    fn chain() -> Vec<Record> {
        let mut chain = Vec::new();
        push(&mut chain, 1, 1, "account_opened", 0, vec![]);
        push(&mut chain, 1, 2, "account_opened", 0, vec![]);
        let deposit = |seq, amount: i64, total: i64| {
            vec![entry(1, seq, 0, (-amount, 0), (-total, 0)), entry(2, 2 * seq - 1, 1, (amount, 0), (total, 0))]
        };
        push(&mut chain, 1, 3, "deposit", 100, deposit(1, 100, 100));
        push(&mut chain, 1, 4, "hold_placed", 30, vec![entry(2, 2, 0, (0, 30), (100, 30))]);
        push(&mut chain, 1, 5, "hold_voided", 30, vec![entry(2, 3, 0, (0, -30), (100, 0))]);
        let mut last = deposit(2, 5, 105);
        last[1].seq = 4;
        push(&mut chain, 1, 6, "deposit", 5, last);
        chain
    }

    fn anchor(record: &Record) -> Anchor {
        Anchor { epoch: record.epoch, sequence: record.sequence, hash: record.hash }
    }

    fn found(chain: &[Record], anchors: &[Anchor]) -> Vec<(String, i64)> {
        let mut walk = Walk::new(None, anchors.to_vec()).with_balances();
        for record in chain {
            walk.step(record);
        }
        let found = walk.finish();
        let place = |finding: &Finding| (finding.check.clone(), finding.sequence.unwrap());
        found.findings().iter().map(place).collect()
    }

    fn named(check: &str, sequence: i64) -> (String, i64) {
        (check.to_owned(), sequence)
    }

    #[test]
    fn a_sound_chain_passes_through_its_anchors() {
        let chain = chain();
        let anchors: Vec<_> = chain.iter().map(anchor).collect();
        let mut walk = Walk::new(None, anchors.clone()).with_balances();
        for record in &chain {
            walk.step(record);
        }
        let walked = walk.finish();
        assert_eq!(walked.findings(), []);
        assert_eq!((walked.journals, walked.held_anchors, walked.last), (6, 6, Some(anchors[5])));

        let mut rest = Walk::new(Some(anchors[2]), anchors).with_balances();
        for record in &chain[3..] {
            rest.step(record);
        }
        let rest = rest.finish();
        assert_eq!((rest.findings(), rest.journals, rest.held_anchors), (&[][..], 3, 3));
    }

    #[test]
    fn what_a_journal_says_cannot_be_changed() {
        let changes: [Change; 14] = [
            |record| record.epoch = 2,
            |record| record.booked_at += time::Duration::MICROSECOND,
            |record| record.kind = "withdrawal".to_owned(),
            |record| record.actor = Uuid::nil(),
            |record| record.currency = "EUR".to_owned(),
            |record| record.amount += 1,
            |record| record.refers_to = Some(sequence(1)),
            |record| record.value_date = date!(2026 - 03 - 02),
            |record| record.detail = Some("{}".to_owned()),
            |record| record.commitment = Some(Hash([1; 32])),
            |record| record.entries[0].account = sequence(2),
            |record| record.entries[1].posted_after += 1,
            |record| record.entries.swap(0, 1),
            |record| record.hash = Hash([1; 32]),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut chain = chain();
            change(&mut chain[2]);
            let found = found(&chain, &[]);
            let first = found.iter().find(|(check, _)| check == "chain");
            assert_eq!(first, Some(&named("chain", 3)), "change {number}: {found:?}");
        }
    }

    #[test]
    fn removed_inserted_and_reordered_journals_are_named() {
        let mut removed = chain();
        removed.remove(2);
        assert!(found(&removed, &[]).starts_with(&[named("journal-order", 3), named("chain", 4)]));

        let mut inserted = chain();
        inserted.insert(3, inserted[2].clone());
        assert!(found(&inserted, &[]).starts_with(&[named("journal-order", 3), named("chain", 3)]));

        let mut reordered = chain();
        reordered.swap(3, 4);
        let swapped = found(&reordered, &[]);
        assert!(swapped.starts_with(&[named("journal-order", 4), named("chain", 5)]), "{swapped:?}");

        let mut renumbered = chain();
        renumbered.swap(3, 4);
        renumbered[3].sequence = sequence(4);
        renumbered[4].sequence = sequence(5);
        let renumbered = found(&renumbered, &[]);
        assert!(renumbered.contains(&named("chain", 4)), "{renumbered:?}");
    }

    #[test]
    fn only_an_anchor_tells_that_a_suffix_was_written_anew_or_cut_off() {
        let sound = chain();
        let anchors = [anchor(&sound[1]), anchor(&sound[4])];
        let mut rewritten = chain();
        rewritten[2].actor = Uuid::nil();
        relink(&mut rewritten, 2);
        assert_eq!(found(&rewritten, &[]), []);
        assert_eq!(found(&rewritten, &anchors), [named("anchor", 5)]);
        assert_eq!(found(&sound[..3], &[]), []);
        assert_eq!(found(&sound[..3], &anchors), [named("anchor", 5)]);
        let elsewhere = Anchor { epoch: 9, ..anchors[1] };
        assert_eq!(found(&sound, &[elsewhere]), [named("anchor", 5)]);
    }

    #[test]
    fn a_journal_that_does_not_add_up_is_named_although_it_is_well_linked() {
        let changes: [(Change, &str); 5] = [
            (|record| record.entries[1].posted_delta += 1, "journal-balance"),
            (|record| record.amount += 1, "journal-amount"),
            (|record| record.kind = "account_opened".to_owned(), "journal-entries"),
            (|record| record.kind = "gift".to_owned(), "journal-entries"),
            (|record| record.entries[1].seq += 1, "entry-order"),
        ];
        for (change, check) in changes {
            let mut chain = chain();
            change(&mut chain[2]);
            relink(&mut chain, 2);
            assert!(found(&chain, &[]).contains(&named(check, 3)), "{check}");
        }
        let mut chain = chain();
        chain[3].entries[0].held_after = 29;
        relink(&mut chain, 3);
        assert_eq!(found(&chain, &[]), [named("entry-running", 4), named("entry-running", 5)]);
    }

    #[test]
    fn only_a_fork_changes_the_epoch_and_jumps() {
        let mut forked = chain();
        let (restored, abandoned) = (anchor(&forked[3]), Anchor { sequence: sequence(9), ..anchor(&forked[5]) });
        forked.truncate(4);
        let fork = |abandoned, restored| serde_json::to_string(&ForkDetail { abandoned, restored }).unwrap();
        push(&mut forked, 2, 10, "ledger_forked", 0, vec![]);
        forked[4].detail = Some(fork(abandoned, restored));
        relink(&mut forked, 4);
        push(&mut forked, 2, 11, "hold_voided", 30, vec![entry(2, 3, 0, (0, -30), (100, 0))]);
        assert_eq!(found(&forked, &[restored]), []);
        assert_eq!(
            found(&forked, &[Anchor { epoch: 1, sequence: sequence(5), hash: abandoned.hash }]),
            [named("anchor", 5)]
        );

        let wrong = [
            fork(abandoned, Anchor { hash: abandoned.hash, ..restored }),
            fork(Anchor { sequence: sequence(10), ..abandoned }, restored),
            fork(Anchor { epoch: 2, ..abandoned }, restored),
            fork(Anchor { sequence: sequence(3), ..abandoned }, restored),
            "{}".to_owned(),
        ];
        for detail in wrong {
            let mut chain = forked.clone();
            chain[4].detail = Some(detail.clone());
            relink(&mut chain, 4);
            assert_eq!(found(&chain, &[]), [named("fork", 10)], "{detail}");
        }
        let mut bare = forked.clone();
        bare[4].kind = "account_opened".to_owned();
        relink(&mut bare, 4);
        assert_eq!(found(&bare, &[]), [named("epoch", 10), named("journal-order", 5)]);
    }

    #[test]
    fn time_goes_on() {
        let mut chain = chain();
        chain[2].booked_at -= time::Duration::hours(1);
        relink(&mut chain, 2);
        assert_eq!(found(&chain, &[]), [named("journal-time", 3)]);
    }

    #[test]
    fn a_record_survives_its_text() {
        for record in chain() {
            let line = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record, "{line}");
        }
        let anchor = anchor(&chain()[2]);
        assert_eq!(anchor.to_string().parse(), Ok(anchor));
        for wrong in ["", "1:2", "1:-2:00", "x:1:00"] {
            assert!(wrong.parse::<Anchor>().is_err(), "{wrong}");
        }
    }
}
