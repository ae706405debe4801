//! Days and moments as clients write them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, UtcOffset};

/// What a text is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MomentError {
    /// A day.
    #[error("must be a day such as 2026-03-01")]
    Day,
    /// A moment.
    #[error("must be a moment such as 2026-03-01T12:00:00Z")]
    Moment,
}

/// A calendar day, `2026-03-01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Day(pub Date);

impl FromStr for Day {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        let parts: Vec<&str> = text.split('-').collect();
        let [year, month, day] = parts[..] else { return Err(MomentError::Day) };
        let number = |digits: &str, length: usize| {
            let plain = digits.len() == length && digits.bytes().all(|digit| digit.is_ascii_digit());
            digits.parse::<u16>().ok().filter(|_| plain)
        };
        let date = || {
            let month = Month::try_from(u8::try_from(number(month, 2)?).ok()?).ok()?;
            Date::from_calendar_date(number(year, 4)?.into(), month, u8::try_from(number(day, 2)?).ok()?).ok()
        };
        date().map(Self).ok_or(MomentError::Day)
    }
}

impl TryFrom<String> for Day {
    type Error = MomentError;

    fn try_from(text: String) -> Result<Self, MomentError> {
        text.parse()
    }
}

impl From<Day> for String {
    fn from(day: Day) -> Self {
        day.0.to_string()
    }
}

/// A moment, `2026-03-01T12:00:00Z`; kept in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Moment(#[serde(with = "time::serde::rfc3339")] pub OffsetDateTime);

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| MomentError::Moment)?;
        // What is in another year of ten thousand only in UTC is as far away as can be told.
        let edge = if moment.year() > 0 { PrimitiveDateTime::MAX } else { PrimitiveDateTime::MIN };
        Ok(Self(moment.checked_to_offset(UtcOffset::UTC).unwrap_or(edge.assume_utc())))
    }
}

impl TryFrom<String> for Moment {
    type Error = MomentError;

    fn try_from(text: String) -> Result<Self, MomentError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use time::macros::{date, datetime};

    use super::*;

    #[test]
    fn a_day_has_one_spelling() {
        assert_eq!("2026-03-01".parse(), Ok(Day(date!(2026 - 03 - 01))));
        assert_eq!(serde_json::to_string(&Day(date!(0033 - 04 - 03))).unwrap(), "\"0033-04-03\"");
        for refused in ["", "2026-3-1", "2026-02-29", "20260301", "2026-13-01", "+2026-03-01", "2026-03-01Z", "2026-03"]
        {
            assert_eq!(refused.parse::<Day>(), Err(MomentError::Day), "{refused}");
        }
    }

    #[test]
    fn a_moment_is_in_utc() {
        let noon = Moment(datetime!(2026-03-01 12:00 UTC));
        assert_eq!("2026-03-01T13:30:00+01:30".parse(), Ok(noon));
        assert_eq!(serde_json::to_string(&noon).unwrap(), "\"2026-03-01T12:00:00Z\"");
        for refused in ["", "2026-03-01", "2026-03-01T12:00:00", "yesterday", "2026-03-01T25:00:00Z"] {
            assert_eq!(refused.parse::<Moment>(), Err(MomentError::Moment), "{refused}");
        }
    }

    #[test]
    fn the_ends_of_time_are_no_trap() {
        let Moment(last) = "9999-12-31T23:59:59-23:59".parse().unwrap();
        assert_eq!(last, PrimitiveDateTime::MAX.assume_utc());
        assert!("0000-01-01T00:00:00+23:59".parse::<Moment>().is_ok());
    }
}
