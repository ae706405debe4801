//! The hash chain: each journal carries a hash over what it says and the hash of the journal before it.
//!
//! Whoever knows one hash knows that nothing before it was changed, removed, added or reordered since. A hash says
//! nothing about batches; any batching of the same journals gives the same chain.
//!
//! The hash of a journal is SHA-256 (FIPS 180-4) of the hash before it (32 zero bytes before the first one) and of
//! these bytes, integers big-endian, `text` being a 32-bit length in bytes and UTF-8:
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | version of this form, 1 |
//! | 4, 8 | epoch, sequence |
//! | 8 | time of booking in microseconds since 1970-01-01 00:00 UTC |
//! | text | kind |
//! | 16 | actor |
//! | text | currency |
//! | 8 | amount in minor units |
//! | 8 | sequence of the journal it refers to, or 0 |
//! | 4 | value date in days since 1970-01-01 |
//! | text | detail as it is stored, or nothing |
//! | 32 | commitment to the free text, or zeros where there is none |
//! | 4 | number of entries, then each: 8 account, 8 seq, 2 leg, 8 each posted and held delta, posted and held after |
//!
//! The commitment is SHA-256 of 16 random bytes and of description, category, reference and metadata (as JSON, names
//! in order, no spaces), each a byte 0 where it is absent or a byte 1 and a `text`. When text has to be erased, the
//! commitment takes the place of text and salt, and the chain still holds.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256, digest};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::command::Memo;
use crate::id::Sequence;
use crate::text::as_text;

/// A link of the chain: 32 bytes, 64 hexadecimal digits as text.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 hexadecimal digits in lower case")]
pub struct HashError;

impl std::str::FromStr for Hash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| HashError)?;
        bytes.try_into().map(Self).map_err(|_| HashError)
    }
}

as_text!(Hash);

/// A point of the chain that somebody has kept: whatever came up to it cannot change unnoticed. `EPOCH:SEQUENCE:HASH` as
/// text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Anchor {
    /// Epoch of the journal.
    pub epoch: u32,
    /// The journal.
    pub sequence: Sequence,
    /// Its hash.
    pub hash: Hash,
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.epoch, self.sequence, self.hash)
    }
}

/// A text that is not `EPOCH:SEQUENCE:HASH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an anchor is EPOCH:SEQUENCE:HASH, the hash as 64 hexadecimal digits in lower case")]
pub struct AnchorError;

impl std::str::FromStr for Anchor {
    type Err = AnchorError;

    fn from_str(text: &str) -> Result<Self, AnchorError> {
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().ok_or(AnchorError);
        let (epoch, sequence, hash) = (part()?, part()?, part()?);
        let sequence: i64 = sequence.parse().map_err(|_| AnchorError)?;
        Ok(Self {
            epoch: epoch.parse().map_err(|_| AnchorError)?,
            sequence: Sequence::try_from(sequence).map_err(|_| AnchorError)?,
            hash: hash.parse().map_err(|_| AnchorError)?,
        })
    }
}

/// What a journal's hash covers.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    /// Epoch it was booked in.
    pub epoch: u32,
    /// Its place.
    pub sequence: Sequence,
    /// When it was booked, whole microseconds.
    pub booked_at: OffsetDateTime,
    /// What it records, as it is stored.
    pub kind: &'a str,
    /// The user who asked.
    pub actor: Uuid,
    /// Currency of its entries.
    pub currency: &'a str,
    /// Minor units.
    pub amount: i64,
    /// The journal it refers to.
    pub refers_to: Option<Sequence>,
    /// None: the UTC day of booking.
    pub value_date: Option<Date>,
    /// What no entry tells, as it is stored.
    pub detail: Option<&'a str>,
    /// The [`commitment`] to its free text.
    pub commitment: Option<Hash>,
}

/// What a journal's hash covers of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkEntry {
    /// The account.
    pub account: Sequence,
    /// The account's version after it.
    pub seq: i64,
    /// Its place within the journal.
    pub leg: i16,
    /// Change of the booked balance.
    pub posted_delta: i64,
    /// Change of what is held.
    pub held_delta: i64,
    /// Booked balance after it.
    pub posted_after: i64,
    /// What is held after it.
    pub held_after: i64,
}

/// The hash of a journal that follows one with the hash `previous`; `entries` in order of their legs.
#[must_use]
pub fn hash(previous: Hash, link: &Link<'_>, entries: impl ExactSizeIterator<Item = LinkEntry>) -> Hash {
    let mut bytes = Vec::with_capacity(192 + 50 * entries.len());
    bytes.extend_from_slice(&previous.0);
    bytes.push(1);
    bytes.extend_from_slice(&link.epoch.to_be_bytes());
    number(&mut bytes, link.sequence.into());
    number(&mut bytes, micros(link.booked_at));
    text(&mut bytes, link.kind);
    bytes.extend_from_slice(link.actor.as_bytes());
    text(&mut bytes, link.currency);
    number(&mut bytes, link.amount);
    number(&mut bytes, link.refers_to.map_or(0, i64::from));
    let value_date = link.value_date.unwrap_or_else(|| link.booked_at.date());
    bytes.extend_from_slice(&(value_date.to_julian_day() - EPOCH_DAY).to_be_bytes());
    text(&mut bytes, link.detail.unwrap_or_default());
    bytes.extend_from_slice(&link.commitment.unwrap_or_default().0);
    bytes.extend_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_be_bytes());
    for entry in entries {
        number(&mut bytes, entry.account.into());
        number(&mut bytes, entry.seq);
        bytes.extend_from_slice(&entry.leg.to_be_bytes());
        for amount in [entry.posted_delta, entry.held_delta, entry.posted_after, entry.held_after] {
            number(&mut bytes, amount);
        }
    }
    finish(digest(&SHA256, &bytes))
}

/// The commitment to a journal's free text; none where there is no text.
#[must_use]
pub fn commitment(salt: &[u8; 16], memo: &Memo) -> Option<Hash> {
    if memo.is_blank() {
        return None;
    }
    let mut bytes = Vec::with_capacity(256);
    for words in [&memo.description, &memo.category, &memo.reference] {
        optional(&mut bytes, words.as_deref());
    }
    // A map of texts always has a JSON form.
    let metadata = (!memo.metadata.is_empty()).then(|| serde_json::to_string(&memo.metadata).unwrap_or_default());
    optional(&mut bytes, metadata.as_deref());
    let mut context = Context::new(&SHA256);
    context.update(salt);
    context.update(&bytes);
    Some(finish(context.finish()))
}

/// 1970-01-01 as a Julian day.
const EPOCH_DAY: i32 = 2_440_588;

fn number(bytes: &mut Vec<u8>, number: i64) {
    bytes.extend_from_slice(&number.to_be_bytes());
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn optional(bytes: &mut Vec<u8>, words: Option<&str>) {
    bytes.push(words.is_some().into());
    if let Some(words) = words {
        text(bytes, words);
    }
}

/// Microseconds since 1970; what does not fit is no time that a journal can have.
fn micros(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}

fn finish(digest: aws_lc_rs::digest::Digest) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    Hash(hash)
}

#[cfg(test)]
mod tests {
    use time::macros::{date, datetime};

    use super::*;

    fn sequence(number: i64) -> Sequence {
        Sequence::try_from(number).unwrap()
    }

    fn memo() -> Memo {
        Memo {
            description: Some("rent".to_owned()),
            category: Some(String::new()),
            metadata: [("b", "2"), ("a", "ü")].map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..Memo::default()
        }
    }

    fn link() -> Link<'static> {
        Link {
            epoch: 7,
            sequence: sequence(42),
            booked_at: datetime!(2026-01-02 03:04:05.000006 UTC),
            kind: "transfer",
            actor: Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            currency: "USD",
            amount: 500,
            refers_to: Some(sequence(41)),
            value_date: Some(date!(1969 - 12 - 31)),
            detail: Some("{}"),
            commitment: commitment(&[0xab; 16], &memo()),
        }
    }

    fn entries() -> [LinkEntry; 2] {
        let source = LinkEntry {
            account: sequence(1),
            seq: 9,
            leg: 0,
            posted_delta: -500,
            held_delta: -1,
            posted_after: 1_000,
            held_after: 2,
        };
        [source, LinkEntry { account: sequence(2), seq: 3, leg: 1, posted_delta: 500, held_delta: 0, ..source }]
    }

    /// The bytes written out by hand, as the table above has them.
    #[test]
    fn the_bytes_are_those_of_the_table() {
        let words = [
            &[0xab; 16][..],
            b"\x01\0\0\0\x04rent",
            b"\x01\0\0\0\0",
            b"\0",
            "\x01\0\0\0\x12{\"a\":\"ü\",\"b\":\"2\"}".as_bytes(),
        ];
        let commitment = digest(&SHA256, &words.concat());
        let bytes = [
            &[0x11; 32][..],
            b"\x01",
            b"\0\0\0\x07",
            b"\0\0\0\0\0\0\0\x2a",
            &1_767_323_045_000_006_i64.to_be_bytes(),
            b"\0\0\0\x08transfer",
            b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef",
            b"\0\0\0\x03USD",
            b"\0\0\0\0\0\0\x01\xf4",
            b"\0\0\0\0\0\0\0\x29",
            b"\xff\xff\xff\xff",
            b"\0\0\0\x02{}",
            commitment.as_ref(),
            b"\0\0\0\x02",
            b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x09\0\0\xff\xff\xff\xff\xff\xff\xfe\x0c\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\0\0\0\0\0\0\x03\xe8\0\0\0\0\0\0\0\x02",
            b"\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\x01\0\0\0\0\0\0\x01\xf4\0\0\0\0\0\0\0\0",
            b"\0\0\0\0\0\0\x03\xe8\0\0\0\0\0\0\0\x02",
        ];
        let expected = finish(digest(&SHA256, &bytes.concat()));
        assert_eq!(hash(Hash([0x11; 32]), &link(), entries().into_iter()), expected);
    }

    /// Released chains hold these; whatever changes them breaks every one.
    #[test]
    fn released_hashes_are_fixed() {
        let chained = hash(Hash([0x11; 32]), &link(), entries().into_iter());
        assert_eq!(chained.to_string(), "c3e04318f4d6a0c2adc2f2ff67101c34de7de61b63719eef0deeea8f9d6121be");
        let bare = Link { refers_to: None, value_date: None, detail: None, commitment: None, ..link() };
        assert_eq!(
            hash(Hash::default(), &bare, [].into_iter()).to_string(),
            "3dc19421d747644b716db93103b0f435b2ac31905cb116032a29fb4744ad600a"
        );
    }

    #[test]
    fn whatever_changes_changes_the_hash() {
        let original = hash(Hash::default(), &link(), entries().into_iter());
        let changed = [
            Link { epoch: 8, ..link() },
            Link { sequence: sequence(43), ..link() },
            Link { booked_at: link().booked_at + time::Duration::MICROSECOND, ..link() },
            Link { kind: "deposit", ..link() },
            Link { actor: Uuid::nil(), ..link() },
            Link { currency: "EUR", ..link() },
            Link { amount: 501, ..link() },
            Link { refers_to: None, ..link() },
            Link { value_date: None, ..link() },
            Link { detail: None, ..link() },
            Link { commitment: commitment(&[0xac; 16], &memo()), ..link() },
        ];
        for link in changed {
            assert_ne!(hash(Hash::default(), &link, entries().into_iter()), original, "{link:?}");
        }
        assert_ne!(hash(Hash([1; 32]), &link(), entries().into_iter()), original, "another past");
        assert_ne!(hash(Hash::default(), &link(), entries()[..1].iter().copied()), original);
        let [first, second] = entries();
        assert_ne!(hash(Hash::default(), &link(), [second, first].into_iter()), original, "another order");
    }

    #[test]
    fn only_text_is_committed_to() {
        assert_eq!(commitment(&[0; 16], &Memo::default()), None);
        let dated = Memo { value_date: Some(date!(2026 - 01 - 01)), ..Memo::default() };
        assert_eq!(commitment(&[0; 16], &dated), None);
        let empty = Memo { description: Some(String::new()), ..Memo::default() };
        assert!(commitment(&[0; 16], &empty).is_some(), "an empty text is one");
        let words = |description: &str, category: &str| Memo {
            description: Some(description.to_owned()),
            category: Some(category.to_owned()),
            ..Memo::default()
        };
        assert_ne!(commitment(&[0; 16], &words("ab", "c")), commitment(&[0; 16], &words("a", "bc")));
    }

    #[test]
    fn hashes_survive_their_text() {
        let text = "00ff".repeat(16);
        assert_eq!(text.parse::<Hash>().unwrap().to_string(), text);
        for refused in ["", "00", &"00FF".repeat(16), &"00ff".repeat(17)] {
            assert_eq!(refused.parse::<Hash>(), Err(HashError), "{refused}");
        }
    }
}
