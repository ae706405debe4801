//! Cron schedules: what a definition accepts, and how far apart the runs of one are.
//!
//! The API server that stores a CronJob judges its schedule last; what it takes is read here as it is read there.

use kube::core::Rule;

const DAY: u32 = 24 * 60;

/// The rule of a field that holds a schedule.
pub(crate) fn rule(field: &str) -> Rule {
    let shape = "self.matches('^(@(hourly|daily|midnight|weekly|monthly|yearly|annually)|[0-9A-Za-z*/,-]+( +[0-9A-Za-z*/,?-]+){4})$')";
    let message = "must be five cron fields such as '15 3 * * *', or @hourly, @daily, @weekly, @monthly";
    Rule::new(shape).message(format!("{field} {message}").as_str())
}

/// The rule of `spec.timeZone`.
pub(crate) fn time_zone_rule() -> Rule {
    Rule::new("self.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$')")
        .message("spec.timeZone must be an IANA name such as Europe/Zurich")
}

/// The time zone of who names none.
pub(crate) fn utc() -> String {
    "UTC".to_owned()
}

/// A number below `below` that belongs to a claim, so that banks spread over hours and minutes. A claim is random: four
/// of its hexadecimal digits, from `at` on, are spread as evenly as any hash of it.
#[must_use]
pub fn spread(claim_id: &str, at: usize, below: u32) -> u32 {
    let digits = claim_id.get(at..at + 4).unwrap_or_default();
    u32::from_str_radix(digits, 16).unwrap_or_default() % below
}

/// A schedule. Each field is a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    dates: u64,
    months: u64,
    weekdays: u64,
    /// Both dates and weekdays are restricted: a day has to be in one of the sets, not in both.
    either: bool,
}

impl Cron {
    /// Reads five fields, or a word such as `@daily`. None: it is no schedule.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            fields => fields,
        };
        let fields: Vec<_> = text.split_ascii_whitespace().collect();
        let [minutes, hours, dates, months, weekdays] = fields[..] else { return None };
        let (dates, every_date) = set(dates, 1, 31, &[])?;
        let (weekdays, every_weekday) = set(weekdays, 0, 6, &WEEKDAYS)?;
        Some(Self {
            minutes: set(minutes, 0, 59, &[])?.0,
            hours: set(hours, 0, 23, &[])?.0,
            months: set(months, 1, 12, &MONTHS)?.0,
            either: !every_date && !every_weekday,
            dates,
            weekdays,
        })
    }

    /// The longest time from one run to the next, in minutes of a clock that is never set. None: it never runs.
    #[must_use]
    pub fn longest_gap(&self) -> Option<u32> {
        let minutes =
            |hour: u32| (0..60).filter(|minute| has(self.minutes, *minute)).map(move |minute| hour * 60 + minute);
        let times: Vec<_> = (0..24).filter(|hour| has(self.hours, *hour)).flat_map(minutes).collect();
        let over_night = self.longest_wait()? * DAY + times.first()? - times.last()?;
        Some(times.windows(2).map(|pair| pair[1] - pair[0]).fold(over_night, u32::max))
    }

    /// The most days from one with runs to the next, over the 400 years after which the calendar repeats itself,
    /// weekdays included.
    fn longest_wait(&self) -> Option<u32> {
        if self.dates.count_ones() == 31 && self.months.count_ones() == 12 && self.weekdays.count_ones() == 7 {
            return Some(1);
        }
        // 1 January 2000 was a Saturday.
        let (mut day, mut first, mut last, mut longest) = (0, None, 0, 0);
        for (year, month) in (2000..2400).flat_map(|year| (1..=12).map(move |month| (year, month))) {
            for date in 1..=length(year, month) {
                if has(self.months, month) && self.on(date, (day + 6) % 7) {
                    first = first.or(Some(day));
                    longest = longest.max(day - last);
                    last = day;
                }
                day += 1;
            }
        }
        Some(longest.max(day - last + first?))
    }

    fn on(&self, date: u32, weekday: u32) -> bool {
        let (date, weekday) = (has(self.dates, date), has(self.weekdays, weekday));
        if self.either { date || weekday } else { date && weekday }
    }
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const fn has(set: u64, bit: u32) -> bool {
    set >> bit & 1 == 1
}

const fn length(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The numbers that a field names, and whether it leaves them unrestricted. `names` begin at `min`.
fn set(field: &str, min: u32, max: u32, names: &[&str]) -> Option<(u64, bool)> {
    let number = |text: &str| {
        let word = (min..).zip(names).find(|(_, name)| name.eq_ignore_ascii_case(text));
        word.map(|(number, _)| number).or_else(|| text.parse().ok())
    };
    let (mut bits, mut unrestricted) = (0, false);
    for part in field.split(',').filter(|part| !part.is_empty()) {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u32>().ok()?)),
            None => (part, None),
        };
        let (low, high) = match range.split_once('-') {
            _ if matches!(range, "*" | "?") => (min, max),
            Some((low, high)) => (number(low)?, number(high)?),
            None if step.is_some() => (number(range)?, max),
            None => (number(range)?, number(range)?),
        };
        if low < min || high > max || low > high || step == Some(0) {
            return None;
        }
        let step = step.unwrap_or(1);
        unrestricted |= matches!(range, "*" | "?") && step == 1;
        bits |= (low..=high)
            .filter(|number| (number - low).is_multiple_of(step))
            .fold(0, |bits, number| bits | 1 << number);
    }
    Some((bits, unrestricted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(schedule: &str) -> Option<u32> {
        Cron::parse(schedule).unwrap_or_else(|| panic!("{schedule} is no schedule")).longest_gap()
    }

    #[test]
    fn the_longest_gap_is_where_a_person_would_look_for_it() {
        for (schedule, minutes) in [
            ("* * * * *", 1),
            ("@hourly", 60),
            ("*/15 * * * *", 15),
            ("7/20 * * * *", 20),
            ("0,50 * * * *", 50),
            ("*/7 * * * *", 7),
            ("30 2-22/4 * * *", 240),
            ("0 8-17 * * *", 15 * 60),
            ("@daily", DAY),
            ("@midnight", DAY),
            ("0 3,3 ? * *", DAY),
            ("0 3 1-31 1-12 0-6", DAY),
            ("0 3 1-31 * 1", DAY),
            ("0 3 */2 * *", 2 * DAY),
            ("0 3 * * mon-FRI", 3 * DAY),
            ("0 3 * * 1-5/4", 4 * DAY),
            ("@weekly", 7 * DAY),
            ("@monthly", 31 * DAY),
            ("0 0 31 * *", 61 * DAY),
            ("0 3 15 */3 *", 92 * DAY),
            ("@yearly", 366 * DAY),
            ("@annually", 366 * DAY),
            // Whoever restricts both gets either; a step over all is a restriction, a step of one is none.
            ("0 0 1 * 0", 7 * DAY),
            ("0 0 13 * */1", 31 * DAY),
            ("0 0 */1 * 5", 7 * DAY),
            // 2100 is no leap year.
            ("0 0 29 feb *", (8 * 365 + 1) * DAY),
            ("0 12 29 Feb *", (8 * 365 + 1) * DAY),
        ] {
            assert_eq!(gap(schedule), Some(minutes), "{schedule}");
        }
    }

    #[test]
    fn some_schedules_never_run() {
        for schedule in ["0 0 30 2 *", "0 0 31 feb,apr,6,9,11 *", ", * * * *"] {
            assert_eq!(gap(schedule), None, "{schedule}");
        }
    }

    #[test]
    fn what_a_cron_job_could_not_have_is_no_schedule() {
        for text in [
            "",
            "@reboot",
            "@every 5m",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            "* * * * 7",
            "*/0 * * * *",
            "5-1 * * * *",
            "1-2-3 * * * *",
            "1/2/3 * * * *",
            "* * * may-foo *",
            "a * * * *",
            "-1 * * * *",
            "L * * * *",
        ] {
            assert_eq!(Cron::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_claim_has_its_own_time() {
        let of = |claim| (spread(claim, 0, 60), spread(claim, 4, 24), spread(claim, 12, 60));
        assert_eq!(of("0123456789abcdef"), (51, 7, 39));
        assert_eq!(of("0123456789abcdee"), (51, 7, 38));
        assert_eq!(of("short"), (0, 0, 0));
    }
}
