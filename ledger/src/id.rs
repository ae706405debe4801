//! Public identifiers: a prefix for the kind, then the place in the ledger in lower-case base32.
//!
//! A place is (epoch, sequence): the sequence grows by one per journal, the epoch when a ledger is restored, so an id
//! is never used twice. The first epoch is drawn at random, so that one bank's id names nothing at another: money sent
//! to it is refused instead of reaching a stranger. Inside are big-endian bytes: 4 of epoch, 6 of sequence and, for a
//! transaction, 1 of leg.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::text::as_text;

/// What makes a text or a number unusable as an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IdError {
    /// Another prefix, length or alphabet, or a second spelling of an existing id.
    #[error("not an id of this kind")]
    Malformed,
    /// A stored sequence below zero or above [`Sequence::MAX`].
    #[error("ledger sequence out of range")]
    SequenceOutOfRange,
}

/// A place in the order of journals: 1 is the first journal, 0 stands before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Sequence(u64);

impl Sequence {
    /// The place before the first journal.
    pub const ZERO: Self = Self(0);

    /// The largest sequence an id has room for, 2^48 - 1.
    pub const MAX: Self = Self((1 << 48) - 1);

    /// The sequence after this one; none after [`Self::MAX`].
    #[must_use]
    pub fn next(self) -> Option<Self> {
        (self < Self::MAX).then_some(Self(self.0 + 1))
    }
}

impl TryFrom<i64> for Sequence {
    type Error = IdError;

    fn try_from(stored: i64) -> Result<Self, IdError> {
        u64::try_from(stored)
            .ok()
            .map(Self)
            .filter(|sequence| *sequence <= Self::MAX)
            .ok_or(IdError::SequenceOutOfRange)
    }
}

impl From<Sequence> for i64 {
    fn from(sequence: Sequence) -> Self {
        sequence.0.cast_signed()
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of an entry within its journal. Of a movement's two entries the first is the source, where money leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leg(u8);

impl Leg {
    /// Leg 0: the account debited.
    pub const SOURCE: Self = Self(0);
    /// Leg 1: the account credited.
    pub const DESTINATION: Self = Self(1);
    /// A journal has at most this many entries.
    pub const MAX: usize = 62;

    /// The leg with this number.
    #[must_use]
    pub fn nth(number: usize) -> Option<Self> {
        u8::try_from(number).ok().filter(|_| number < Self::MAX).map(Self)
    }
}

impl From<Leg> for i16 {
    fn from(leg: Leg) -> Self {
        leg.0.into()
    }
}

impl TryFrom<i16> for Leg {
    type Error = IdError;

    fn try_from(stored: i16) -> Result<Self, IdError> {
        usize::try_from(stored).ok().and_then(Self::nth).ok_or(IdError::Malformed)
    }
}

/// One account's side of a journal. Public form `txn_…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TransactionId {
    /// The journal.
    pub journal: JournalId,
    /// The account's side of it.
    pub leg: Leg,
}

const PLACE: usize = 10;

fn place(epoch: u32, sequence: Sequence) -> [u8; PLACE] {
    let ([e0, e1, e2, e3], [_, _, s0, s1, s2, s3, s4, s5]) = (epoch.to_be_bytes(), sequence.0.to_be_bytes());
    [e0, e1, e2, e3, s0, s1, s2, s3, s4, s5]
}

fn unplace([e0, e1, e2, e3, s0, s1, s2, s3, s4, s5]: [u8; PLACE]) -> (u32, Sequence) {
    (u32::from_be_bytes([e0, e1, e2, e3]), Sequence(u64::from_be_bytes([0, 0, s0, s1, s2, s3, s4, s5])))
}

pub(crate) fn write(f: &mut fmt::Formatter<'_>, prefix: &str, bytes: &[u8]) -> fmt::Result {
    write!(f, "{prefix}{}", BASE32_NOPAD.encode(bytes).to_ascii_lowercase())
}

/// Reads only what [`write`] prints: the decoder itself refuses non-zero trailing bits.
pub(crate) fn read<const N: usize>(prefix: &str, text: &str) -> Result<[u8; N], IdError> {
    let digits = text.strip_prefix(prefix).ok_or(IdError::Malformed)?;
    if digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(IdError::Malformed);
    }
    let bytes = BASE32_NOPAD.decode(digits.to_ascii_uppercase().as_bytes()).map_err(|_| IdError::Malformed)?;
    bytes.try_into().map_err(|_| IdError::Malformed)
}

macro_rules! place_id {
    ($(#[$doc:meta])* $type:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type {
            /// Epoch of the ledger when the journal was written.
            pub epoch: u32,
            /// Sequence of the journal.
            pub sequence: Sequence,
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(f, $prefix, &place(self.epoch, self.sequence))
            }
        }

        impl FromStr for $type {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let (epoch, sequence) = unplace(read($prefix, text)?);
                Ok(Self { epoch, sequence })
            }
        }

        as_text!($type);
    };
}

place_id!(
    /// An account, named by the journal that opened it. Public form `acc_…`.
    AccountId,
    "acc_"
);
place_id!(
    /// A journal of any kind. Public form `jrn_…`.
    JournalId,
    "jrn_"
);
place_id!(
    /// A transfer, named by the journal that booked it or, if it is pending, set its money aside. Public form `trf_…`.
    TransferId,
    "trf_"
);
place_id!(
    /// A hold, named by the journal that placed it. Public form `hld_…`.
    HoldId,
    "hld_"
);

impl From<JournalId> for TransferId {
    fn from(JournalId { epoch, sequence }: JournalId) -> Self {
        Self { epoch, sequence }
    }
}

impl From<TransferId> for JournalId {
    fn from(TransferId { epoch, sequence }: TransferId) -> Self {
        Self { epoch, sequence }
    }
}

impl From<TransferId> for HoldId {
    fn from(TransferId { epoch, sequence }: TransferId) -> Self {
        Self { epoch, sequence }
    }
}

impl From<HoldId> for TransferId {
    fn from(HoldId { epoch, sequence }: HoldId) -> Self {
        Self { epoch, sequence }
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; PLACE + 1];
        bytes[..PLACE].copy_from_slice(&place(self.journal.epoch, self.journal.sequence));
        bytes[PLACE] = self.leg.0;
        write(f, "txn_", &bytes)
    }
}

impl FromStr for TransactionId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let [place @ .., leg]: [u8; PLACE + 1] = read("txn_", text)?;
        let (epoch, sequence) = unplace(place);
        Ok(Self { journal: JournalId { epoch, sequence }, leg: Leg::nth(leg.into()).ok_or(IdError::Malformed)? })
    }
}

as_text!(TransactionId);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn public_forms_are_fixed() {
        let sequence = Sequence(1);
        let journal = JournalId { epoch: 1, sequence };
        assert_eq!(AccountId { epoch: 1, sequence }.to_string(), "acc_aaaaaaiaaaaaaaab");
        assert_eq!(TransferId::from(journal).to_string(), "trf_aaaaaaiaaaaaaaab");
        assert_eq!(journal.to_string(), "jrn_aaaaaaiaaaaaaaab");
        assert_eq!(TransactionId { journal, leg: Leg::DESTINATION }.to_string(), "txn_aaaaaaiaaaaaaaabae");
        assert_eq!(serde_json::to_string(&journal).unwrap(), "\"jrn_aaaaaaiaaaaaaaab\"");
    }

    #[test]
    fn only_the_canonical_spelling_is_read() {
        assert!("acc_aaaaaaiaaaaaaaab".parse::<AccountId>().is_ok());
        for refused in [
            "acc_AAAAAAIAAAAAAAAB",
            "ACC_aaaaaaiaaaaaaaab",
            "trf_aaaaaaiaaaaaaaab",
            "acc_aaaaaaiaaaaaaaa",
            "acc_aaaaaaiaaaaaaaabae",
            "acc_aaaaaaiaaaaaaaab=",
            "acc_aaaaaaiaaaaaaaa1",
            "acc_aaaaaaiaaaaaaaé",
            "acc_",
            "",
        ] {
            assert_eq!(refused.parse::<AccountId>(), Err(IdError::Malformed), "{refused}");
        }
        assert!("txn_aaaaaaiaaaaaaaabae".parse::<TransactionId>().is_ok());
        assert_eq!("txn_aaaaaaiaaaaaaaabaf".parse::<TransactionId>(), Err(IdError::Malformed), "trailing bits");
        assert!("txn_aaaaaaiaaaaaaaabai".parse::<TransactionId>().is_ok(), "leg 2");
        assert_eq!("txn_aaaaaaiaaaaaaaabh4".parse::<TransactionId>(), Err(IdError::Malformed), "leg 63");
    }

    #[test]
    fn sequences_stay_in_48_bits() {
        assert_eq!(Sequence::MAX.next(), None);
        assert_eq!(Sequence::try_from(-1), Err(IdError::SequenceOutOfRange));
        assert_eq!(Sequence::try_from(1 << 48), Err(IdError::SequenceOutOfRange));
        assert_eq!(Sequence::try_from((1 << 48) - 1), Ok(Sequence::MAX));
    }

    proptest! {
        #[test]
        fn ids_survive_their_text(epoch: u32, sequence in 0..1_u64 << 48, leg in 0..Leg::MAX) {
            let sequence = Sequence(sequence);
            let journal = JournalId { epoch, sequence };
            let account = AccountId { epoch, sequence };
            let leg = Leg::nth(leg).unwrap();
            let transaction = TransactionId { journal, leg };
            prop_assert_eq!(account.to_string().parse(), Ok(account));
            prop_assert_eq!(journal.to_string().parse(), Ok(journal));
            prop_assert_eq!(transaction.to_string().parse(), Ok(transaction));
        }

        #[test]
        fn a_text_that_is_read_is_the_text_that_is_written(text in "txn_[a-z2-7]{18}") {
            if let Ok(id) = text.parse::<TransactionId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
