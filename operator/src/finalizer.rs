//! Finalizers: what keeps an object until what it has elsewhere is taken away.

use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::error::{Attempt, Result};
use crate::tenant::child::Child;

/// Whether the object may have something elsewhere.
pub fn is_held<K: ResourceExt>(object: &K, finalizer: &str) -> bool {
    object.finalizers().iter().any(|known| known == finalizer)
}

/// Adds the finalizer: from now on the object may have something elsewhere. Returns the object as written.
pub async fn hold<K: Child>(client: &Client, object: K, finalizer: &str) -> Result<K> {
    if is_held(&object, finalizer) {
        return Ok(object);
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(finalizer.to_owned());
    write(client, &object, &finalizers).await
}

/// Takes the finalizer away: the object has nothing elsewhere any more.
pub async fn release<K: Child>(client: &Client, object: &K, finalizer: &str) -> Result<()> {
    let kept: Vec<_> = object.finalizers().iter().filter(|known| *known != finalizer).cloned().collect();
    write(client, object, &kept).await.map(drop)
}

async fn write<K: Child>(client: &Client, object: &K, finalizers: &[String]) -> Result<K> {
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    // With the version that was read: finalizers of others are not lost.
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": object.resource_version()}});
    api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .attempt(|| "write the finalizer".to_owned())
}
