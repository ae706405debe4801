//! What artefacts are called.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

/// What an artefact holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Everything.
    Full,
    /// What changed since the last full or incremental artefact.
    Incremental,
    /// What changed since the last artefact.
    Segment,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Full, Self::Incremental, Self::Segment];

    /// Whether an artefact of this kind may hold what changed since one of that kind.
    #[must_use]
    pub const fn may_follow(self, parent: Self) -> bool {
        match self {
            Self::Full => false,
            Self::Incremental => matches!(parent, Self::Full | Self::Incremental),
            Self::Segment => true,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
            Self::Segment => "segment",
        })
    }
}

/// A text that is no artefact's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an artefact: 20261122t184412z-full-0a1b2c3d, incremental or segment")]
pub struct ArtefactIdError(String);

/// An artefact's name: when it was taken, what kind it is of, and random bits. It says nothing of what follows what;
/// the manifests' links do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArtefactId {
    taken_at: OffsetDateTime,
    kind: Kind,
    random: u32,
}

impl ArtefactId {
    /// A new name, from the database's time to the second.
    #[must_use]
    pub fn new(taken_at: OffsetDateTime, kind: Kind, random: u32) -> Self {
        let taken_at = taken_at.to_offset(UtcOffset::UTC);
        Self { taken_at: taken_at.replace_nanosecond(0).unwrap_or(taken_at), kind, random }
    }

    /// What it holds.
    #[must_use]
    pub const fn kind(self) -> Kind {
        self.kind
    }

    /// When it was taken, to the second.
    #[must_use]
    pub const fn taken_at(self) -> OffsetDateTime {
        self.taken_at
    }
}

impl fmt::Display for ArtefactId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, time) = (self.taken_at.date(), self.taken_at.time());
        write!(
            f,
            "{:04}{:02}{:02}t{:02}{:02}{:02}z-{}-{:08x}",
            date.year(),
            u8::from(date.month()),
            date.day(),
            time.hour(),
            time.minute(),
            time.second(),
            self.kind,
            self.random
        )
    }
}

impl FromStr for ArtefactId {
    type Err = ArtefactIdError;

    fn from_str(text: &str) -> Result<Self, ArtefactIdError> {
        let parse = || {
            let mut parts = text.split('-');
            let (taken_at, kind, random) = (moment(parts.next()?)?, parts.next()?, parts.next()?);
            let kind = Kind::ALL.into_iter().find(|known| known.to_string() == kind)?;
            let id = Self { taken_at, kind, random: u32::from_str_radix(random, 16).ok()? };
            // One spelling only, as an id is a file's name, too.
            (id.to_string() == text).then_some(id)
        };
        parse().ok_or_else(|| ArtefactIdError(text.to_owned()))
    }
}

impl TryFrom<String> for ArtefactId {
    type Error = ArtefactIdError;

    fn try_from(text: String) -> Result<Self, ArtefactIdError> {
        text.parse()
    }
}

impl From<ArtefactId> for String {
    fn from(id: ArtefactId) -> Self {
        id.to_string()
    }
}

fn moment(text: &str) -> Option<OffsetDateTime> {
    let number = |from, to| text.get(from..to)?.parse::<u16>().ok();
    let two = |from| u8::try_from(number(from, from + 2)?).ok();
    let month = Month::try_from(two(4)?).ok()?;
    let date = Date::from_calendar_date(number(0, 4)?.into(), month, two(6)?).ok()?;
    let time = Time::from_hms(two(9)?, two(11)?, two(13)?).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_utc())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_says_when_and_what() {
        let taken_at = OffsetDateTime::from_unix_timestamp_nanos(1_795_373_052_345_678_901).unwrap();
        let id = ArtefactId::new(taken_at.to_offset(UtcOffset::from_hms(5, 30, 0).unwrap()), Kind::Full, 0x0a1b_2c3d);
        assert_eq!(id.to_string(), "20261122t184412z-full-0a1b2c3d");
        assert_eq!(id.taken_at().unix_timestamp(), 1_795_373_052);
    }

    #[test]
    fn it_has_one_spelling() {
        for text in [
            "",
            "20261122t184412z-full",
            "20261122t184412z-full-0a1b2c3",
            "20261122t184412z-full-0A1B2C3D",
            "20261122T184412Z-full-0a1b2c3d",
            "20261122t184412z-Full-0a1b2c3d",
            "20261122t184412z-full-0a1b2c3d-",
            "20261122t184412z-full-+a1b2c3d",
            "20261322t184412z-full-0a1b2c3d",
            "20261122t186012z-full-0a1b2c3d",
            "+0261122t184412z-full-0a1b2c3d",
            "2026é122t184412z-full-0a1b2c3d",
            "../../20261122t184412z-full-0a1b2c3d",
        ] {
            assert!(text.parse::<ArtefactId>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_incremental_follows_no_segment() {
        let may = |kind: Kind| Kind::ALL.map(|parent| kind.may_follow(parent));
        assert_eq!(Kind::ALL.map(may), [[false; 3], [true, true, false], [true; 3]]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0..253_402_300_800_i64, kind in 0..3_usize, random: u32) {
            let id = ArtefactId::new(OffsetDateTime::from_unix_timestamp(seconds).unwrap(), Kind::ALL[kind], random);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }
    }
}
