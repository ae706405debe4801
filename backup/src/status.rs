//! What is true of a destination, from what lies there.

use std::collections::BTreeSet;

use finaiflow_crds::backup::{Artifact, DestinationStatus};
use finaiflow_schema::names::ClaimId;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use time::{Duration, OffsetDateTime};

use crate::manifest::{Kind, SignedManifest, TrustedKeys};
use crate::survey::Survey;
use crate::vault;

/// What the achieved recovery point is judged by, and a missed run before it.
const RECENT: Duration = Duration::hours(26);
const DAY: Duration = Duration::DAY;
/// How many of a kind are looked at, however old they are.
const NEWEST: usize = 8;

/// A time as Kubernetes writes it.
#[must_use]
pub fn time(time: OffsetDateTime) -> Time {
    let time = Timestamp::from_nanosecond(time.unix_timestamp_nanos());
    Time(time.unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Reads the manifests that a status and the next increment follow from: not all of them, which would take a job that
/// comes every few minutes longer from day to day.
pub async fn read_recent(survey: &mut Survey, trusted: &TrustedKeys, claim: ClaimId) -> vault::Result<()> {
    let mut wanted = BTreeSet::new();
    // Who puts one that is from the future by its name must not hide those of today.
    let real = survey.manifests.values().filter(|found| found.id.taken_at() <= found.put_at + DAY);
    let since = real.map(|found| found.id.taken_at()).max().map(|newest| newest - RECENT);
    for kind in Kind::ALL {
        let of_kind = || survey.manifests.keys().rev().filter(|id| id.kind() == kind).copied();
        wanted.extend(of_kind().take(NEWEST));
        // All full ones: the oldest says how far back a restore reaches, and any of them is better than nothing.
        wanted.extend(of_kind().filter(|id| kind == Kind::Full || since.is_some_and(|since| id.taken_at() >= since)));
    }
    survey.read(trusted, claim, wanted).await
}

/// What is true of a destination whose manifests were read.
#[must_use]
pub fn of(name: &str, survey: &Survey, now: OffsetDateTime) -> DestinationStatus {
    let chains = survey.chains();
    let restorable = survey.restorable(&chains);
    let moments: Vec<_> = restorable.iter().map(|signed| signed.manifest().created_at).collect();
    let last = |kind| restorable.iter().rfind(|signed| signed.manifest().kind == kind).map(|signed| artifact(signed));
    let bytes: u64 = survey.objects.values().chain(survey.manifests.values()).map(|found| found.bytes).sum();
    DestinationStatus {
        name: name.to_owned(),
        restorable_from: moments.first().copied().map(time),
        restorable_to: moments.last().copied().map(time),
        rpo_seconds: rpo(&moments, now).map(Duration::whole_seconds),
        bytes: Some(i64::try_from(bytes).unwrap_or(i64::MAX)),
        last_full: last(Kind::Full),
        last_incremental: last(Kind::Incremental),
        last_segment: last(Kind::Segment),
        ..DestinationStatus::default()
    }
}

/// A destination that does not answer.
#[must_use]
pub fn fault(name: &str, error: &vault::Error) -> DestinationStatus {
    DestinationStatus { name: name.to_owned(), fault: Some(error.to_string()), ..DestinationStatus::default() }
}

/// The longest between two moments in order, of those that end within the last day.
fn rpo(moments: &[OffsetDateTime], now: OffsetDateTime) -> Option<Duration> {
    let gaps = moments.array_windows().filter(|[_, to]| *to > now - DAY).map(|[from, to]| *to - *from);
    gaps.max()
}

fn artifact(signed: &SignedManifest) -> Artifact {
    let manifest = signed.manifest();
    Artifact {
        id: manifest.id.to_string(),
        recovery_point_time: time(manifest.created_at),
        sequence: manifest.ledger.sequence.into(),
        bytes: i64::try_from(manifest.object.bytes).unwrap_or(i64::MAX),
    }
}

/// The newest of the artefacts, the oldest first, that one of `kind` may follow.
#[must_use]
pub fn newest_to_follow<'c>(restorable: &[&'c SignedManifest], kind: Kind) -> Option<&'c SignedManifest> {
    restorable.iter().rfind(|signed| kind.may_follow(signed.manifest().kind)).copied()
}
