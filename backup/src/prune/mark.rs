//! Which artefacts stay. Pure.

use std::collections::{BTreeMap, BTreeSet};

use time::{Duration, OffsetDateTime};

use crate::manifest::{ArtefactId, Kind};

/// What is younger than this may be followed by an artefact in the making.
pub const GRACE: Duration = Duration::DAY;

/// What an artefact follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// It is a full one.
    Nothing,
    /// That artefact.
    Artefact(ArtefactId),
    /// Its manifest cannot be read.
    Unknown,
}

/// An artefact, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// When it was taken, by the database's clock.
    pub created_at: OffsetDateTime,
    /// What it follows.
    pub follows: Follows,
    /// Whether it can be restored, as far as is known.
    pub restorable: bool,
}

/// Artefacts by their names.
pub type Items = BTreeMap<ArtefactId, Item>;

/// What comes of the items.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marked {
    /// Those past their retention, each before what it follows, of the oldest full one first.
    pub past: Vec<ArtefactId>,
    /// The one that stands for the beginning of the window: what is older goes because this one can be restored.
    pub base: Option<ArtefactId>,
}

/// What may go so that a restore is possible to every moment of the last `days` before the newest artefact that can be
/// restored: that one is where the window ends, as a bank that is not backed up any more must keep what it has.
///
/// What is younger than [`GRACE`] stays, and counts for nothing: an artefact that is being taken follows what was the
/// newest when it began.
#[must_use]
pub fn mark(items: &Items, now: OffsetDateTime, days: i32) -> Marked {
    let newest = |until: OffsetDateTime, kind: Kind| {
        let candidates =
            items.iter().filter(|(id, item)| item.restorable && item.created_at <= until && kind.may_follow(id.kind()));
        candidates.max_by_key(|(id, item)| (item.created_at, **id)).map(|(id, item)| (*id, item.created_at))
    };
    let settled = now - GRACE;
    let Some((_, end)) = newest(settled, Kind::Segment) else { return Marked::default() };
    let Some(start) = end.checked_sub(Duration::days(days.into())) else { return Marked::default() };
    let Some((base, _)) = newest(start, Kind::Segment) else { return Marked::default() };

    let mut kept: BTreeSet<_> = items.iter().filter(|(_, item)| item.created_at >= start).map(|(id, _)| *id).collect();
    kept.insert(base);
    // What the next incremental one follows.
    kept.extend(newest(settled, Kind::Incremental).map(|(id, _)| id));
    let mut next: Vec<_> = kept.iter().copied().collect();
    while let Some(id) = next.pop() {
        let before = match items.get(&id).map(|item| item.follows) {
            Some(Follows::Artefact(parent)) => vec![parent],
            Some(Follows::Unknown) => may_precede(items, id),
            Some(Follows::Nothing) | None => Vec::new(),
        };
        next.extend(before.into_iter().filter(|before| kept.insert(*before)));
    }
    let mut past: Vec<_> = items.keys().filter(|id| !kept.contains(id)).copied().collect();
    past.sort_by_cached_key(|id| {
        let (first, depth) = origin(items, *id);
        (items.get(&first).map(|item| item.created_at), first, std::cmp::Reverse(depth), *id)
    });
    Marked { past, base: Some(base) }
}

/// Everything that an artefact may depend on which does not say so: all since the last full one before it.
fn may_precede(items: &Items, id: ArtefactId) -> Vec<ArtefactId> {
    let Some(item) = items.get(&id).filter(|_| id.kind() != Kind::Full) else { return Vec::new() };
    let before = || items.iter().filter(|(other, before)| **other != id && before.created_at <= item.created_at);
    let full = before().filter(|(id, _)| id.kind() == Kind::Full).map(|(_, full)| full.created_at).max();
    before().filter(|(_, before)| full.is_none_or(|full| before.created_at >= full)).map(|(id, _)| *id).collect()
}

/// The first of the chain of an artefact that is there, and how far it is from there.
fn origin(items: &Items, id: ArtefactId) -> (ArtefactId, usize) {
    let before = |id: &ArtefactId| match items.get(id)?.follows {
        Follows::Artefact(parent) if items.contains_key(&parent) => Some(parent),
        _ => None,
    };
    // Nothing follows itself, as the link holds the hash of what is followed; forged links end, too.
    let path = std::iter::successors(Some(id), before).take(items.len());
    path.enumerate().last().map_or((id, 0), |(depth, first)| (first, depth))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::chain::Chains;
    use crate::manifest::testing::{manifest, signed};
    use crate::manifest::{Manifest, SignedManifest};

    const DAY: i64 = 86_400;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_700_000_000 + seconds).unwrap()
    }

    /// An artefact that is to be made: seconds after the one before, its kind, which of those before it follows, and
    /// whether its object is there.
    type Made = (i64, u8, prop::sample::Index, bool);

    fn made() -> impl Strategy<Value = Vec<Made>> {
        let gap = prop_oneof![8 => 1..40_000_i64, 1 => 0..20 * DAY];
        let one = (gap, 0..6_u8, any::<prop::sample::Index>(), prop::bool::weighted(0.9));
        prop::collection::vec(one, 1..60)
    }

    fn dated(number: u32, kind: Kind, parent: Option<&SignedManifest>, seconds: i64) -> Manifest {
        let id = ArtefactId::new(at(seconds), kind, number);
        let mut manifest = manifest(number, kind, parent);
        (manifest.created_at, manifest.object.key, manifest.id) = (at(seconds), format!("objects/{id}"), id);
        manifest
    }

    fn artefacts(made: &[Made]) -> Vec<(SignedManifest, bool)> {
        let (mut all, mut seconds): (Vec<(SignedManifest, bool)>, i64) = (Vec::new(), 0);
        for (number, (gap, kind, parent, there)) in (0..).zip(made) {
            seconds += gap;
            let kind = [Kind::Full, Kind::Incremental, Kind::Incremental, Kind::Segment, Kind::Segment, Kind::Segment]
                [usize::from(*kind)];
            // Mostly one of the last few, as it is at work.
            let may: Vec<_> = all.iter().filter(|(it, _)| kind.may_follow(it.manifest().kind)).rev().take(3).collect();
            let parent = if may.is_empty() { None } else { Some(&may[parent.index(may.len())].0) };
            let kind = if parent.is_none() { Kind::Full } else { kind };
            all.push((signed(&dated(number, kind, parent, seconds)), *there));
        }
        all
    }

    fn id(signed: &SignedManifest) -> ArtefactId {
        signed.manifest().id
    }

    fn chains<'a>(all: impl Iterator<Item = &'a SignedManifest>) -> Chains {
        Chains::of(all.map(|signed| (id(signed), Ok(signed.clone()))))
    }

    fn items(all: &[(SignedManifest, bool)]) -> Items {
        let chains = chains(all.iter().map(|(signed, _)| signed));
        let lost: BTreeSet<_> = all.iter().filter(|(_, there)| !there).map(|(signed, _)| id(signed)).collect();
        let item = |(signed, _): &(SignedManifest, bool)| {
            let path = chains.path(id(signed));
            let restorable = !path.is_empty() && path.iter().all(|signed| !lost.contains(&id(signed)));
            let follows = signed.manifest().parent.map_or(Follows::Nothing, |it| Follows::Artefact(it.id));
            (id(signed), Item { created_at: signed.manifest().created_at, follows, restorable })
        };
        all.iter().map(item).collect()
    }

    fn newest(items: &Items, until: OffsetDateTime) -> Option<ArtefactId> {
        let until = items.iter().filter(|(_, item)| item.restorable && item.created_at <= until);
        until.max_by_key(|(id, item)| (item.created_at, **id)).map(|(id, _)| *id)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn every_moment_of_the_window_still_restores(made in made(), days in 0..40_i32, later in 0..60 * DAY, cut: prop::sample::Index) {
            let all = artefacts(&made);
            let (items, last) = (items(&all), all.last().unwrap().0.manifest().created_at);
            let now = last + Duration::seconds(later);
            let marked = mark(&items, now, days);
            // Whatever is done of it, from the beginning on.
            let gone: BTreeSet<_> = marked.past[..cut.index(marked.past.len() + 1)].iter().copied().collect();
            let before = chains(all.iter().map(|(signed, _)| signed));
            let after = chains(all.iter().map(|(signed, _)| signed).filter(|signed| !gone.contains(&id(signed))));

            prop_assert!(after.flaws().is_empty(), "{:?}", after.flaws());
            let window = newest(&items, now - GRACE).map(|end| items[&end].created_at - Duration::days(days.into()));
            for moment in items.values().map(|item| item.created_at).chain(window) {
                if window.is_some_and(|start| moment < start) {
                    continue;
                }
                if let Some(newest) = newest(&items, moment) {
                    prop_assert_eq!(after.path(newest), before.path(newest), "{} of {}", newest, moment);
                }
            }
            for young in items.iter().filter(|(_, item)| item.created_at > now - GRACE) {
                prop_assert!(after.get(*young.0).is_some());
            }
        }

        #[test]
        fn what_an_artefact_in_the_making_follows_stays(made in made(), days in 0..40_i32, later in 0..60 * DAY, began in 0..DAY) {
            let all = artefacts(&made);
            let (items, last) = (items(&all), all.last().unwrap().0.manifest().created_at);
            let now = last + Duration::seconds(later);
            let past = mark(&items, now, days).past;
            for kind in [Kind::Incremental, Kind::Segment] {
                let then = items.iter().filter(|(id, item)| {
                    item.restorable && item.created_at <= now - Duration::seconds(began) && kind.may_follow(id.kind())
                });
                let followed = then.max_by_key(|(id, item)| (item.created_at, **id)).map(|(id, _)| *id);
                prop_assert!(followed.is_none_or(|followed| !past.contains(&followed)), "{:?}", followed);
            }
        }

        #[test]
        fn what_is_past_goes(made in made(), days in 0..40_i32) {
            // Of what is whole nothing stays for longer than the window and its base's chain.
            let made: Vec<_> = made.into_iter().map(|(gap, kind, parent, _)| (gap, kind, parent, true)).collect();
            let all = artefacts(&made);
            let (items, now) = (items(&all), all.last().unwrap().0.manifest().created_at + GRACE);
            let marked = mark(&items, now, days);
            let start = now - GRACE - Duration::days(days.into());
            let chains = chains(all.iter().map(|(signed, _)| signed));
            let mut needed: BTreeSet<_> = items.iter().filter(|(_, item)| item.created_at >= start).map(|(id, _)| *id).collect();
            needed.extend(marked.base);
            needed.extend(items.iter().filter(|(id, _)| id.kind() != Kind::Segment).max_by_key(|(id, item)| (item.created_at, **id)).map(|(id, _)| *id));
            let needed: BTreeSet<_> = needed.into_iter().flat_map(|it| chains.path(it)).map(id).collect();
            if marked.base.is_some() {
                let expected: BTreeSet<_> = items.keys().copied().filter(|id| !needed.contains(id)).collect();
                prop_assert_eq!(marked.past.into_iter().collect::<BTreeSet<_>>(), expected);
            }
        }
    }

    /// Three full ones, a day apart, each followed by a segment an hour later.
    fn three_days() -> Vec<(SignedManifest, bool)> {
        let mut all: Vec<(SignedManifest, bool)> = Vec::new();
        for number in 0..6_u32 {
            let (day, hour) = (i64::from(number / 2), i64::from(number % 2));
            let parent = all.last().filter(|_| hour == 1).map(|(signed, _)| signed.clone());
            let kind = if hour == 1 { Kind::Segment } else { Kind::Full };
            all.push((signed(&dated(number, kind, parent.as_ref(), day * DAY + hour * 3_600)), true));
        }
        all
    }

    #[test]
    fn a_full_one_stays_until_the_next_is_past_too() {
        let all = three_days();
        let past = |all: &[(SignedManifest, bool)], days| -> Vec<usize> {
            let past = mark(&items(all), at(30 * DAY), days).past;
            past.iter().map(|it| all.iter().position(|(signed, _)| id(signed) == *it).unwrap()).collect()
        };
        assert_eq!(past(&all, 2), [0_usize; 0]);
        // The beginning of the window lies between the segment of the first day, and the second day.
        assert_eq!(past(&all, 1), [1, 0]);
        assert_eq!(past(&all, 0), [1, 0, 3, 2]);
        // Where the base is lost, the one before stands for it.
        let mut lost = all.clone();
        lost[3].1 = false;
        assert_eq!(past(&lost, 1), [1, 0]);
        lost[2].1 = false;
        assert_eq!(past(&lost, 1), [0_usize; 0]);
        let none: Vec<_> = all.into_iter().map(|(signed, _)| (signed, false)).collect();
        assert_eq!(past(&none, 0), [0_usize; 0]);
    }

    #[test]
    fn what_cannot_be_read_may_depend_on_all_before_it() {
        let all = three_days();
        let mut items = items(&all);
        // The segment of the last day is in the window, and may follow whatever came since the second full one.
        let unread = items.get_mut(&id(&all[5].0)).unwrap();
        (unread.follows, unread.restorable) = (Follows::Unknown, false);
        items.remove(&id(&all[4].0));
        assert_eq!(mark(&items, at(30 * DAY), 0).past, [id(&all[1].0), id(&all[0].0)]);
    }
}
