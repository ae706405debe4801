//! How objects are watched.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::reflector::{Lookup, Store};
use kube::runtime::watcher::{self, Event};

const PAGE: u32 = 500;
/// In seconds. A watch that has said nothing for that long, and then does not end, is begun anew: its connection may
/// be lost without a sign.
const SILENCE: u32 = 45;
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What every watch asks for.
#[must_use]
pub fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE).timeout(SILENCE)
}

/// Takes away what nobody reads: ten times less memory.
pub fn prune<K: ResourceExt>(object: &mut K) {
    object.meta_mut().managed_fields = None;
    if let Some(annotations) = &mut object.meta_mut().annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// Waits until everything in a store is known, or its writer is gone. Of several that wait kube wakes the last alone, so
/// that each asks again by itself.
pub async fn known<K>(store: &Store<K>)
where
    K: Lookup + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    while tokio::time::timeout(ASK_AGAIN, store.wait_until_ready()).await.is_err() {}
}

/// A number that is another one where `what` is something else.
pub fn mark(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// A mark of each object, by namespace and name.
type Marks = HashMap<(String, String), u64>;

/// Tells where objects have come, gone or changed, as far as `mark` shows. What went while a watch was interrupted is
/// told when it is begun anew.
pub struct Changes<K> {
    mark: fn(&K) -> u64,
    known: Marks,
    listed: Marks,
}

impl<K: ResourceExt> Changes<K> {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(mark: fn(&K) -> u64) -> Self {
        Self { mark, known: Marks::new(), listed: Marks::new() }
    }

    /// The namespaces in which this event is a change.
    pub fn hear(&mut self, event: &Event<K>) -> BTreeSet<String> {
        let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        let changed = match event {
            Event::Apply(object) => {
                let mark = (self.mark)(object);
                (self.known.insert(key(object), mark) != Some(mark)).then(|| key(object).0)
            }
            Event::Delete(object) => {
                self.known.remove(&key(object));
                Some(key(object).0)
            }
            Event::Init => {
                self.listed.clear();
                None
            }
            Event::InitApply(object) => {
                self.listed.insert(key(object), (self.mark)(object));
                None
            }
            Event::InitDone => {
                let before = std::mem::replace(&mut self.known, std::mem::take(&mut self.listed));
                return differing(&before, &self.known).chain(differing(&self.known, &before)).collect();
            }
        };
        changed.into_iter().collect()
    }
}

/// Namespaces of what the others have not, or not like that.
fn differing<'a>(these: &'a Marks, others: &'a Marks) -> impl Iterator<Item = String> + 'a {
    these.iter().filter(|(key, mark)| others.get(key) != Some(mark)).map(|((namespace, _), _)| namespace.clone())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    #[tokio::test]
    async fn all_that_wait_hear_that_a_store_is_filled() {
        let (store, mut writer) = kube::runtime::reflector::store::<ConfigMap>();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { known(&store).await })
            })
            .collect();
        tokio::task::yield_now().await;
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        for task in waiting {
            tokio::time::timeout(Duration::from_secs(20), task).await.unwrap().unwrap();
        }
    }

    fn object(namespace: &str, name: &str, generation: i64) -> ConfigMap {
        let metadata = ObjectMeta {
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            generation: Some(generation),
            ..ObjectMeta::default()
        };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    #[test]
    fn what_nobody_reads_is_not_kept() {
        let mut object = object("banks", "a", 1);
        object.metadata.managed_fields = Some(Vec::new());
        object.metadata.annotations = Some(
            [("kubectl.kubernetes.io/last-applied-configuration", "{}"), ("note", "x")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
        );
        prune(&mut object);
        assert_eq!(object.metadata.managed_fields, None);
        assert_eq!(object.annotations().keys().collect::<Vec<_>>(), ["note"]);
    }

    #[test]
    fn only_what_the_mark_shows_is_a_change() {
        let mut changes =
            Changes::<ConfigMap>::new(|object| object.metadata.generation.unwrap_or_default().cast_unsigned());
        let mut hear = |event| changes.hear(&event).into_iter().collect::<Vec<_>>();
        let none = Vec::<String>::new();
        assert_eq!(hear(Event::Init), none);
        assert_eq!(hear(Event::InitApply(object("a", "x", 1))), none);
        assert_eq!(hear(Event::InitApply(object("b", "x", 1))), none);
        assert_eq!(hear(Event::InitDone), ["a", "b"]);
        assert_eq!(hear(Event::Apply(object("a", "x", 1))), none);
        assert_eq!(hear(Event::Apply(object("a", "x", 2))), ["a"]);
        assert_eq!(hear(Event::Apply(object("c", "x", 1))), ["c"]);
        assert_eq!(hear(Event::Delete(object("c", "x", 1))), ["c"]);
        assert_eq!(hear(Event::Apply(object("c", "x", 1))), ["c"]);
    }

    #[test]
    fn what_went_while_nobody_watched_is_told() {
        let mut changes = Changes::<ConfigMap>::new(|_| 0);
        for event in [Event::Apply(object("a", "x", 1)), Event::Apply(object("b", "x", 1)), Event::Init] {
            changes.hear(&event);
        }
        // A listing that is itself interrupted says nothing.
        changes.hear(&Event::InitApply(object("z", "x", 1)));
        changes.hear(&Event::Init);
        changes.hear(&Event::InitApply(object("a", "x", 1)));
        changes.hear(&Event::InitApply(object("c", "y", 1)));
        assert_eq!(changes.hear(&Event::InitDone).into_iter().collect::<Vec<_>>(), ["b", "c"]);
    }
}
