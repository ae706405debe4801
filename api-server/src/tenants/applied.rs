//! Up to which Tenant change this replica has acted.

use std::collections::{BTreeSet, HashMap};

use super::Key;

/// Bookkeeping of resourceVersions. They are decimal integers that order all changes of one resource (KEP-5504).
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Every change up to here has been seen.
    newest: u64,
    /// Seen, but neither applied nor recorded as failed.
    pending: BTreeSet<u64>,
    by_tenant: HashMap<Key, BTreeSet<u64>>,
}

impl Applied {
    /// A change arrived that is still to be acted on.
    pub(super) fn seen(&mut self, key: &Key, version: u64) {
        self.pending.insert(version);
        self.by_tenant.entry(key.clone()).or_default().insert(version);
    }

    /// Everything up to `version` has been seen. A list tells it only at its end: it is not ordered by version.
    pub(super) fn complete(&mut self, version: u64) {
        self.newest = self.newest.max(version);
    }

    /// The changes of this tenant up to `version` have been applied or recorded as failed.
    pub(super) fn settled(&mut self, key: &Key, version: u64) {
        let Some(versions) = self.by_tenant.get_mut(key) else { return };
        let later = versions.split_off(&version.saturating_add(1));
        for version in std::mem::replace(versions, later) {
            self.pending.remove(&version);
        }
        if versions.is_empty() {
            self.by_tenant.remove(key);
        }
    }

    /// The newest version such that it and all earlier ones are settled.
    pub(super) fn watermark(&self) -> u64 {
        self.pending.first().map_or(self.newest, |first| self.newest.min(first - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { namespace: "banks".to_owned(), name: name.to_owned() }
    }

    fn event(applied: &mut Applied, name: &str, version: u64) {
        applied.seen(&key(name), version);
        applied.complete(version);
    }

    #[test]
    fn one_slow_tenant_holds_the_watermark() {
        let mut applied = Applied::default();
        event(&mut applied, "slow", 10);
        event(&mut applied, "quick", 12);
        applied.settled(&key("quick"), 12);
        assert_eq!(applied.watermark(), 9);
        applied.settled(&key("slow"), 10);
        assert_eq!(applied.watermark(), 12);
    }

    #[test]
    fn work_on_an_old_change_does_not_settle_a_newer_one() {
        let mut applied = Applied::default();
        event(&mut applied, "acme", 10);
        event(&mut applied, "acme", 11);
        event(&mut applied, "acme", 15);
        applied.settled(&key("acme"), 11);
        assert_eq!(applied.watermark(), 14);
        applied.settled(&key("acme"), 15);
        assert_eq!(applied.watermark(), 15);
    }

    #[test]
    fn a_list_counts_only_when_complete() {
        let mut applied = Applied::default();
        applied.seen(&key("b"), 200);
        applied.settled(&key("b"), 200);
        assert_eq!(applied.watermark(), 0);
        applied.seen(&key("c"), 150);
        applied.complete(200);
        assert_eq!(applied.watermark(), 149);
        applied.settled(&key("c"), 150);
        assert_eq!(applied.watermark(), 200);
    }

    #[test]
    fn it_never_goes_back() {
        let mut applied = Applied::default();
        applied.complete(20);
        applied.complete(10);
        applied.settled(&key("unknown"), 30);
        assert_eq!(applied.watermark(), 20);
    }
}
