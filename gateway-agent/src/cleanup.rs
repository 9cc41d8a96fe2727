//! Removes what the agents wrote to the cluster's objects: the last step of an uninstall, once no
//! agent runs any more.
//!
//! Of pods the annotation `routed` and the label `eip-bound`, of nodes the label `external-gw`, and
//! the Events. What users wrote stays: the ConfigMap, and the annotation `eip`. Doing it twice is
//! fine.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Error, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::annotation::Keys;
use crate::report::MANAGER;

/// Objects in one answer of the API server.
const PAGE: u32 = 500;

/// What was removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cleaned {
    /// Pods that had something of ours.
    pub pods: usize,
    /// Nodes that had our label.
    pub nodes: usize,
    /// Events.
    pub events: usize,
}

/// Why something is still there.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {source}; allow it to the account, then do it again")]
pub struct CleanupError {
    /// What was asked.
    action: String,
    /// The API server's answer.
    source: Error,
}

impl CleanupError {
    fn of(action: impl Into<String>) -> impl FnOnce(Error) -> Self {
        let action = action.into();
        move |source| Self { action, source }
    }
}

/// Removes all of it from all objects.
///
/// # Errors
/// The first answer of the API server that is no success; an object that has gone meanwhile is one.
pub async fn cleanup(client: &Client, keys: &Keys) -> Result<Cleaned, CleanupError> {
    let mut cleaned = Cleaned::default();
    let pods: Api<Pod> = Api::all(client.clone());
    for pod in metadata(&pods, "list pods").await? {
        let Some(patch) = patch(&pod, &[&keys.routed], &[&keys.eip_bound]) else { continue };
        let (namespace, name) = (pod.namespace.unwrap_or_default(), pod.name.unwrap_or_default());
        let of_namespace: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        let sent = of_namespace.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        cleaned.pods += usize::from(done(sent, format!("patch pod {namespace}/{name}"))?);
    }
    let nodes: Api<Node> = Api::all(client.clone());
    for node in metadata(&nodes, "list nodes").await? {
        let Some(patch) = patch(&node, &[], &[&keys.external_gw]) else { continue };
        let name = node.name.unwrap_or_default();
        let sent = nodes.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        cleaned.nodes += usize::from(done(sent, format!("patch node {name}"))?);
    }
    cleaned.events = delete_events(client).await?;
    Ok(cleaned)
}

async fn delete_events(client: &Client) -> Result<usize, CleanupError> {
    let (mut deleted, mut params) = (0, ListParams::default().limit(PAGE));
    let all: Api<Event> = Api::all(client.clone());
    loop {
        let page = all.list(&params).await.map_err(CleanupError::of("list events"))?;
        let ours = |event: &&Event| event.reporting_controller.as_deref() == Some(MANAGER);
        for event in page.items.iter().filter(ours) {
            let metadata = &event.metadata;
            let (Some(namespace), Some(name)) = (&metadata.namespace, &metadata.name) else { continue };
            let events: Api<Event> = Api::namespaced(client.clone(), namespace);
            let sent = events.delete(name, &DeleteParams::default()).await;
            deleted += usize::from(done(sent, format!("delete event {namespace}/{name}"))?);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(deleted),
        }
    }
}

/// The metadata of all objects of a kind.
async fn metadata<K>(api: &Api<K>, action: &str) -> Result<Vec<ObjectMeta>, CleanupError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let (mut found, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let page = api.list_metadata(&params).await.map_err(CleanupError::of(action))?;
        found.extend(page.items.into_iter().map(|object: PartialObjectMeta<K>| object.metadata));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// A merge patch that takes these annotations and labels away; `None` where the object has none of
/// them.
fn patch(object: &ObjectMeta, annotations: &[&str], labels: &[&str]) -> Option<Value> {
    let held = |keys: &[&str], map: &Option<std::collections::BTreeMap<String, String>>| -> Value {
        let held = keys.iter().filter(|key| map.as_ref().is_some_and(|map| map.contains_key(**key)));
        held.map(|key| ((*key).to_owned(), Value::Null)).collect()
    };
    let (annotations, labels) = (held(annotations, &object.annotations), held(labels, &object.labels));
    let nothing = |value: &Value| value.as_object().is_none_or(serde_json::Map::is_empty);
    (!nothing(&annotations) || !nothing(&labels))
        .then(|| json!({ "metadata": { "annotations": annotations, "labels": labels } }))
}

/// Whether it was done; not, when the object is gone.
fn done<T>(result: Result<T, Error>, action: String) -> Result<bool, CleanupError> {
    match result {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.is_not_found() => Ok(false),
        Err(error) => Err(CleanupError::of(action)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_is_taken_away() {
        let pod = |annotations: &[&str], labels: &[&str]| ObjectMeta {
            annotations: Some(annotations.iter().map(|key| ((*key).to_owned(), "x".to_owned())).collect()),
            labels: Some(labels.iter().map(|key| ((*key).to_owned(), "x".to_owned())).collect()),
            ..ObjectMeta::default()
        };
        assert_eq!(patch(&ObjectMeta::default(), &["a"], &["l"]), None);
        assert_eq!(patch(&pod(&["eip"], &["app"]), &["a"], &["l"]), None);
        let expected = json!({ "metadata": { "annotations": { "a": null }, "labels": {} } });
        assert_eq!(patch(&pod(&["a", "eip"], &["app"]), &["a"], &["l"]), Some(expected));
    }
}
