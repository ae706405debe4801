//! When the jobs of a Backup run.

use std::collections::BTreeMap;

use super::BackupSpec;
use crate::cron::{Cron, spread};

/// A segment is stored within this time, or its run has failed.
pub const SEGMENT_DEADLINE_MINUTES: i32 = 10;
/// An incremental backup is stored within this time, or its run has failed.
pub const INCREMENTAL_DEADLINE_MINUTES: i32 = 60;

const DAY: u32 = 24 * 60;
/// What follows a full backup is replayed in a restore, so there has to be a new one from time to time.
const FULL_GAP_MAX: u32 = 31 * DAY;
/// The same for segments, of which an incremental backup takes the place.
const INCREMENTAL_GAP_MAX: u32 = DAY;

/// What a job of a Backup does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Run {
    /// Backs up everything.
    Full,
    /// Backs up what changed since the last full or incremental backup.
    Incremental,
    /// Backs up what changed since the last backup of any kind.
    Segment,
    /// Proves what is stored to be good.
    Verify,
    /// Removes what no restore in the time kept needs.
    Prune,
    /// Rehearses the loss of everything but a destination.
    Drill,
}

impl Run {
    /// Every run.
    pub const ALL: [Self; 6] = [Self::Full, Self::Incremental, Self::Segment, Self::Verify, Self::Prune, Self::Drill];

    /// The word in names of jobs, and the program's command.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
            Self::Segment => "segment",
            Self::Verify => "verify",
            Self::Prune => "prune",
            Self::Drill => "drill",
        }
    }

    /// The field that its schedule comes from.
    const fn field(self) -> &'static str {
        match self {
            Self::Full => "spec.full.schedule",
            Self::Incremental => "spec.incremental.schedule",
            Self::Segment => "spec.segments.intervalMinutes",
            Self::Verify => "spec.verification.schedule",
            Self::Prune => "the schedule of pruning",
            Self::Drill => "spec.drill.schedule",
        }
    }
}

impl BackupSpec {
    /// The schedules of the jobs, in `spec.timeZone`: those of the spec as they are, the others at times of the claim's
    /// own. Or what is wrong with them that the definition does not see: what never runs, or too rarely.
    pub fn schedules(&self, claim_id: &str) -> Result<BTreeMap<Run, String>, String> {
        // The digits before these say when the claim's ledger is verified.
        let (minute, hour, date) = (spread(claim_id, 8, 60), spread(claim_id, 12, 24), 1 + spread(claim_id, 4, 28));
        let daily = |after: u32| format!("{minute} {} * * *", (hour + after) % 24);
        // At most one of them begins in an hour.
        let six_a_day = format!("{minute} {}-23/4 * * *", (hour + 2) % 4);
        let quarterly = format!("{minute} {} {date} */3 *", (hour + 5) % 24);
        let mut schedules = BTreeMap::from([
            (Run::Full, self.full.schedule.clone().unwrap_or_else(|| daily(0))),
            (Run::Incremental, self.incremental.schedule.clone().unwrap_or(six_a_day)),
            (Run::Verify, self.verification.schedule.clone().unwrap_or_else(|| daily(1))),
            (Run::Prune, daily(3)),
            (Run::Drill, self.drill.schedule.clone().unwrap_or(quarterly)),
        ]);
        schedules.extend(self.segment_schedule(minute)?.map(|schedule| (Run::Segment, schedule)));
        for (run, schedule) in &schedules {
            self.judge(*run, schedule).map_err(|fault| format!("{} '{schedule}' {fault}", run.field()))?;
        }
        Ok(schedules)
    }

    /// Minutes within which something of it is verified, of two runs at least one; None if its schedule never runs.
    #[must_use]
    pub fn verification_minutes(&self) -> Option<u32> {
        let gap = match &self.verification.schedule {
            Some(schedule) => Cron::parse(schedule)?.longest_gap()?,
            None => DAY,
        };
        gap.checked_mul(2)
    }

    /// Segments at even distances through every hour, one of them at the minute of the claim.
    fn segment_schedule(&self, minute: u32) -> Result<Option<String>, String> {
        let runs = match u32::try_from(self.segments.interval_minutes) {
            Ok(0) => return Ok(None),
            Ok(interval @ 5..=50) => 60_u32.div_ceil(interval),
            _ => return Err(format!("{} must be between 5 and 50, or 0", Run::Segment.field())),
        };
        let mut minutes: Vec<_> = (0..runs).map(|run| (minute + 60 * run / runs) % 60).collect();
        minutes.sort_unstable();
        let minutes: Vec<_> = minutes.iter().map(u32::to_string).collect();
        Ok(Some(format!("{} * * * *", minutes.join(","))))
    }

    fn judge(&self, run: Run, schedule: &str) -> Result<(), String> {
        let gap = Cron::parse(schedule).ok_or("is no cron schedule")?.longest_gap().ok_or("never runs")?;
        let allowed = match run {
            Run::Full => FULL_GAP_MAX,
            Run::Incremental => INCREMENTAL_GAP_MAX,
            _ => u32::MAX,
        };
        if gap > allowed {
            let (gap, allowed) = (gap.div_ceil(DAY), allowed / DAY);
            return Err(format!(
                "leaves {gap} days between two runs, and a restore replays all that came since: at most {allowed}"
            ));
        }
        let (deciding, deadline) = match self.segments.interval_minutes {
            0 => (Run::Incremental, INCREMENTAL_DEADLINE_MINUTES),
            _ => (Run::Segment, SEGMENT_DEADLINE_MINUTES),
        };
        let rpo = self.objectives.rpo_minutes;
        if run == deciding && i64::from(gap) + i64::from(deadline) > i64::from(rpo) {
            return Err(format!(
                "leaves {gap} minutes between two runs, of which one may take {deadline}: more than the {rpo} of \
                 spec.objectives.rpoMinutes"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: &str = "0123456789abcdef";

    fn schedules(spec: &str) -> Result<Vec<String>, String> {
        let spec = format!("{{tenantRef: {{name: acme}}, destinations: [], {spec}}}");
        let spec: BackupSpec = serde_yaml::from_str(&spec).unwrap();
        let all = spec.schedules(CLAIM)?;
        Ok(all.iter().map(|(run, schedule)| format!("{}: {schedule}", run.as_str())).collect())
    }

    #[test]
    fn what_is_left_open_is_filled_in_at_times_of_the_claim() {
        assert_eq!(
            schedules("").unwrap(),
            [
                "full: 23 15 * * *",
                "incremental: 23 1-23/4 * * *",
                "segment: 8,23,38,53 * * * *",
                "verify: 23 16 * * *",
                "prune: 23 18 * * *",
                "drill: 23 20 16 */3 *",
            ]
        );
    }

    #[test]
    fn what_is_said_is_taken_as_it_is() {
        let spec = "full: {schedule: '@weekly'}, incremental: {schedule: 0 */6 * * *}, segments: {intervalMinutes: 50},
            verification: {schedule: 0 5 * * sat}, drill: {schedule: '@monthly'}, timeZone: Europe/Zurich";
        assert_eq!(
            schedules(spec).unwrap(),
            [
                "full: @weekly",
                "incremental: 0 */6 * * *",
                "segment: 23,53 * * * *",
                "verify: 0 5 * * sat",
                "prune: 23 18 * * *",
                "drill: @monthly",
            ]
        );
    }

    #[test]
    fn a_verification_may_fail_once() {
        let minutes = |spec: &str| {
            let spec = format!("{{tenantRef: {{name: acme}}, destinations: [], {spec}}}");
            serde_yaml::from_str::<BackupSpec>(&spec).unwrap().verification_minutes()
        };
        assert_eq!(minutes(""), Some(2 * DAY));
        assert_eq!(minutes("verification: {schedule: 0 5 * * sat}"), Some(14 * DAY));
        assert_eq!(minutes("verification: {schedule: 0 0 31 4 *}"), None);
    }

    #[test]
    fn segments_are_never_further_apart_than_they_may_be() {
        for interval in 5..=50 {
            for claim in ["0000000000000000", CLAIM, "00000000003b0000"] {
                let spec =
                    format!("{{tenantRef: {{name: a}}, destinations: [], segments: {{intervalMinutes: {interval}}}}}");
                let spec: BackupSpec = serde_yaml::from_str(&spec).unwrap();
                let schedule = &spec.schedules(claim).unwrap()[&Run::Segment];
                let gap = Cron::parse(schedule).unwrap().longest_gap().unwrap();
                assert!(gap <= interval, "{interval}: {schedule} leaves {gap}");
            }
        }
    }

    #[test]
    fn what_the_definition_cannot_see_is_refused() {
        for (spec, part) in [
            ("full: {schedule: 0 0 30 2 *}", "spec.full.schedule '0 0 30 2 *' never runs"),
            ("full: {schedule: 61 * * * *}", "spec.full.schedule '61 * * * *' is no cron schedule"),
            ("full: {schedule: 0 0 1 */2 *}", "spec.full.schedule '0 0 1 */2 *' leaves 62 days between two runs"),
            ("incremental: {schedule: 0 0 * * 1-5}", "spec.incremental.schedule '0 0 * * 1-5' leaves 3 days"),
            ("verification: {schedule: 0 0 31 4 *}", "spec.verification.schedule '0 0 31 4 *' never runs"),
            ("drill: {schedule: 0 0 31 4 mon}", ""),
            ("drill: {schedule: 0 0 31 4 *}", "spec.drill.schedule '0 0 31 4 *' never runs"),
            // Without segments the incremental backups decide.
            ("segments: {intervalMinutes: 0}", "'23 1-23/4 * * *' leaves 240 minutes between two runs"),
            ("segments: {intervalMinutes: 0}, objectives: {rpoMinutes: 299}", "more than the 299 of spec.objectives"),
            ("segments: {intervalMinutes: 0}, objectives: {rpoMinutes: 300}", ""),
            (
                "segments: {intervalMinutes: 0}, incremental: {schedule: 0 8-18 * * *}, objectives: {rpoMinutes: 840}",
                "leaves 840",
            ),
            ("segments: {intervalMinutes: 0}, incremental: {schedule: '@hourly'}, objectives: {rpoMinutes: 120}", ""),
            // What the definition refuses too.
            ("segments: {intervalMinutes: 20}, objectives: {rpoMinutes: 29}", "'3,23,43 * * * *' leaves 20 minutes"),
            ("segments: {intervalMinutes: 4}", "spec.segments.intervalMinutes must be between 5 and 50, or 0"),
            ("segments: {intervalMinutes: -5}", "spec.segments.intervalMinutes must be between 5 and 50, or 0"),
        ] {
            match schedules(spec) {
                Ok(_) => assert_eq!(part, "", "{spec}"),
                Err(fault) => assert!(!part.is_empty() && fault.contains(part), "{spec}: {fault}"),
            }
        }
    }
}
