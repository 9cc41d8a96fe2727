//! Carries out what [`plan`](super::plan) says is missing: a task of its own that knows only the latest state.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Node, ObjectReference, Pod};
use k8s_openapi::api::events::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Error};
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::event::{Event, Regarding};
use super::memory::Memory;
use super::{Kind, MANAGER, Sent, State, Write, plan};
use crate::annotation::Keys;
use crate::bucket::Bucket;
use crate::cluster::{self, ClusterError};
use crate::metrics::Metrics;
use crate::snapshot::BoundLabel;

/// Patches a second, and at once.
const PATCH_RATE: (u32, u32) = (50, 100);
/// Events a second, and at once.
const EVENT_RATE: (u32, u32) = (20, 50);
/// Writes under way at a time.
const IN_FLIGHT: usize = 8;
/// Time for one write.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pause when there was more to write than the rate allows: what is missing of thousands of EIPs is not found for nothing.
const THROTTLED: Duration = Duration::from_millis(500);
/// Longest pause before the state is looked at again when a write is to be tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Pauses when the API server does not answer, the first and the longest.
const AWAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Starts the task that writes for `node`. It takes the latest state from the channel and ends with it; the sender
/// never waits.
pub fn start(kubeconfig: Option<PathBuf>, node: &str, metrics: Metrics) -> watch::Sender<Arc<State>> {
    let (sender, states) = watch::channel(Arc::default());
    tokio::spawn(run(Executor::new(kubeconfig, node, metrics), states));
    sender
}

async fn run(mut executor: Executor, mut states: watch::Receiver<Arc<State>>) {
    let mut next = Next::Changed;
    loop {
        match next {
            Next::Changed => {
                if states.changed().await.is_err() {
                    return;
                }
            }
            Next::Within(pause) => tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = sleep(pause) => {}
            },
            Next::After(pause) => sleep(pause).await,
        }
        let state = Arc::clone(&states.borrow_and_update());
        next = executor.step(&state).await;
    }
}

/// When the state is to be looked at again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// When it has changed.
    Changed,
    /// When it has changed, after this time at the latest.
    Within(Duration),
    /// After this time, whatever changes until then.
    After(Duration),
}

/// Writes, and remembers what was written.
pub struct Executor {
    api: WriteApi,
    memory: Memory,
    metrics: Metrics,
    patches: Bucket,
    events: Bucket,
    /// Kinds that RBAC forbids, as was logged.
    forbidden: BTreeSet<Kind>,
    /// The API server does not answer: attempts in a row, and when to try next.
    away: Option<(u32, Instant)>,
}

impl Executor {
    /// One that writes in the name of `node`, with this kubeconfig or by the pod's ServiceAccount.
    pub fn new(kubeconfig: Option<PathBuf>, node: &str, metrics: Metrics) -> Self {
        let now = Instant::now();
        Self {
            api: WriteApi { kubeconfig, client: Mutex::new(None), node: node.to_owned() },
            memory: Memory::default(),
            metrics,
            patches: Bucket::new(PATCH_RATE.0, PATCH_RATE.1, now),
            events: Bucket::new(EVENT_RATE.0, EVENT_RATE.1, now),
            forbidden: BTreeSet::new(),
            away: None,
        }
    }

    /// Writes what is missing, as far as the rate allows.
    pub async fn step(&mut self, state: &State) -> Next {
        let now = Instant::now();
        self.memory.observe(state, now);
        let mut missing = plan::writes(state, &self.memory, now);
        if let Some((_, until)) = self.away.filter(|(_, until)| *until > now && !missing.is_empty()) {
            return Next::Within(until - now);
        }
        let all = missing.len();
        missing.retain(|write| match write {
            Write::Pod { .. } | Write::Node { .. } => self.patches.take(now),
            Write::Event(_) => self.events.take(now),
        });
        let throttled = missing.len() < all;
        if self.away.is_some() {
            // One is enough to see whether it answers again.
            missing.truncate(1);
        }
        let (api, keys) = (&self.api, &state.snapshot.keys);
        let sent: Vec<(Write, Sent)> = stream::iter(missing)
            .map(|write| async move {
                let sent = api.send(&write, keys).await;
                (write, sent)
            })
            .buffer_unordered(IN_FLIGHT)
            .collect()
            .await;
        let now = Instant::now();
        let probed = self.away.is_some() && !sent.is_empty();
        self.note(&sent, now);
        if let Some((_, until)) = self.away {
            Next::Within(until.saturating_duration_since(now))
        } else if throttled || probed {
            Next::After(THROTTLED)
        } else {
            self.memory.due_in(now).map_or(Next::Changed, |pause| Next::Within(pause.min(AGAIN)))
        }
    }

    fn note(&mut self, sent: &[(Write, Sent)], now: Instant) {
        for (write, sent) in sent {
            self.metrics.api_write(write.kind().name(), sent.name());
            self.log(write, sent);
            // One that got no answer is due as soon as others are answered.
            if !matches!(sent, Sent::Unreachable(_)) {
                self.memory.note(write, sent, now);
            }
        }
        let unreachable = sent.iter().find_map(|(_, sent)| match sent {
            Sent::Unreachable(why) => Some(why),
            Sent::Done | Sent::Forbidden(_) | Sent::Gone | Sent::Conflict | Sent::Refused(_) => None,
        });
        match (unreachable, self.away) {
            (Some(why), away) => {
                if away.is_none() {
                    warn!(
                        "cannot write to the API server: {why}; the data path is not affected, trying again"
                    );
                }
                let attempts = away.map_or(0, |(attempts, _)| attempts);
                let pause = AWAY.0.saturating_mul(1 << attempts.min(10)).min(AWAY.1);
                self.away = Some((attempts.saturating_add(1), now + pause));
            }
            (None, Some(_)) if !sent.is_empty() => {
                info!("the API server takes writes again");
                self.away = None;
            }
            (None, _) => {}
        }
    }

    fn log(&mut self, write: &Write, sent: &Sent) {
        let kind = write.kind();
        match sent {
            Sent::Done => {
                if self.forbidden.remove(&kind) {
                    info!("allowed again: {}", kind.permission());
                }
                debug!(?write, "written");
            }
            Sent::Forbidden(why) => {
                if self.forbidden.insert(kind) {
                    warn!(
                        "not allowed to {}: {why}; EIPs are served all the same; allow it in the agent's ClusterRole",
                        kind.permission()
                    );
                }
            }
            Sent::Refused(why) => {
                warn!("the API server refused to {}: {why}; trying again", kind.permission())
            }
            Sent::Gone | Sent::Conflict | Sent::Unreachable(_) => debug!(?write, ?sent, "not written"),
        }
    }
}

/// Sends single writes.
struct WriteApi {
    kubeconfig: Option<PathBuf>,
    /// Made when it is first needed, and anew when its credentials are refused.
    client: Mutex<Option<Client>>,
    node: String,
}

impl WriteApi {
    async fn client(&self) -> Result<Client, ClusterError> {
        let mut held = self.client.lock().await;
        if let Some(client) = &*held {
            return Ok(client.clone());
        }
        let client = cluster::client(self.kubeconfig.as_deref()).await?;
        Ok(held.insert(client).clone())
    }

    async fn send(&self, write: &Write, keys: &Keys) -> Sent {
        let client = match self.client().await {
            Ok(client) => client,
            Err(error) => return Sent::Unreachable(error.to_string()),
        };
        let sent = async {
            match write {
                Write::Pod { pod, uid, version, set, routed, label } => {
                    let mut patch = pod_patch(keys, *set, *routed, *label);
                    // The API server refuses it for another pod of that name, and for a pod that has changed since:
                    // it may have given up the EIP.
                    patch["metadata"]["uid"] = json!(uid);
                    patch["metadata"]["resourceVersion"] = json!(version);
                    let pods: Api<Pod> = Api::namespaced(client, &pod.namespace);
                    pods.patch_metadata(&pod.name, &params(), &Patch::Merge(patch)).await.map(drop)
                }
                Write::Node { node } => {
                    let patch = json!({ "metadata": { "labels": { &*keys.external_gw: "true" } } });
                    let nodes: Api<Node> = Api::all(client);
                    nodes.patch_metadata(node, &params(), &Patch::Merge(patch)).await.map(drop)
                }
                Write::Event(event) => self.create(client, event).await,
            }
        };
        match timeout(TIMEOUT, sent).await {
            Ok(Ok(())) => Sent::Done,
            Ok(Err(error)) => {
                if matches!(&error, Error::Api(status) if status.code == 401) {
                    *self.client.lock().await = None;
                }
                classify(error)
            }
            Err(_) => Sent::Unreachable(format!("no answer within {} s", TIMEOUT.as_secs())),
        }
    }

    async fn create(&self, client: Client, event: &Event) -> Result<(), Error> {
        let uid = match (event.regarding, &event.uid) {
            (_, Some(uid)) => Some(uid.clone()),
            (Regarding::Pod, None) => None,
            (Regarding::ConfigMap, None) => config_map_uid(client.clone(), event).await,
        };
        let events: Api<v1::Event> = Api::namespaced(client, &event.object.namespace);
        events.create(&PostParams::default(), &object(event, uid, &self.node)).await.map(drop)
    }
}

/// `kubectl describe` finds Events by uid. Without the right to read it the Event is written all the same.
async fn config_map_uid(client: Client, event: &Event) -> Option<String> {
    let maps: Api<ConfigMap> = Api::namespaced(client, &event.object.namespace);
    maps.get_metadata(&event.object.name).await.ok()?.metadata.uid
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// A merge patch with what has to change only.
fn pod_patch(keys: &Keys, set: bool, routed: bool, label: Option<BoundLabel>) -> Value {
    let mut metadata = json!({});
    if routed {
        metadata["annotations"] = json!({ &*keys.routed: if set { json!("true") } else { Value::Null } });
    }
    if let Some(label) = label {
        metadata["labels"] = json!({ &*keys.eip_bound: label.value() });
    }
    json!({ "metadata": metadata })
}

fn object(event: &Event, uid: Option<String>, node: &str) -> v1::Event {
    let mut name = event.base_name();
    if event.anew {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        name = format!("{name}.{:x}", now.as_micros());
    }
    v1::Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(event.object.namespace.to_string()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(Timestamp::now())),
        reporting_controller: Some(MANAGER.to_owned()),
        reporting_instance: Some(node.chars().take(128).collect()),
        type_: Some(if event.reason.is_normal() { "Normal" } else { "Warning" }.to_owned()),
        reason: Some(event.reason.name().to_owned()),
        action: Some(event.reason.action().to_owned()),
        note: Some(event.note.clone()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(event.regarding.kind().to_owned()),
            namespace: Some(event.object.namespace.to_string()),
            name: Some(event.object.name.to_string()),
            uid,
            ..ObjectReference::default()
        }),
        ..v1::Event::default()
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all but an answer of the API server is none")]
fn classify(error: Error) -> Sent {
    match error {
        Error::Api(status) if status.is_already_exists() => Sent::Done,
        Error::Api(status) if status.is_not_found() => Sent::Gone,
        Error::Api(status) if status.is_conflict() => Sent::Conflict,
        Error::Api(status) if status.is_forbidden() && status.message.contains("being terminated") => {
            Sent::Gone
        }
        Error::Api(status) if status.is_forbidden() => Sent::Forbidden(status.message),
        Error::Api(status) if status.code >= 500 || matches!(status.code, 401 | 429) => {
            Sent::Unreachable(status.message)
        }
        Error::Api(status) => Sent::Refused(status.message),
        other => Sent::Unreachable(chain(&other)),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_says_no_more_than_has_to_change() {
        let keys = Keys::default();
        let (bound, refused) = (Some(BoundLabel::Bound([10, 0, 0, 1].into())), Some(BoundLabel::Refused));
        let (routed, label) = ("ovn.kubernetes.io/routed", "ovn.kubernetes.io/eip-bound");
        for (set, writes_routed, writes, expected) in [
            (true, true, bound, json!({"annotations": {routed: "true"}, "labels": {label: "10.0.0.1"}})),
            (true, true, None, json!({"annotations": {routed: "true"}})),
            (false, false, Some(BoundLabel::Absent), json!({"labels": {label: null}})),
            (false, true, refused, json!({"annotations": {routed: null}, "labels": {label: "false"}})),
        ] {
            assert_eq!(pod_patch(&keys, set, writes_routed, writes), json!({"metadata": expected}));
        }
    }

    #[test]
    fn answers_are_told_apart() {
        for (code, reason, message, expected) in [
            (404, "NotFound", "", "gone"),
            (409, "AlreadyExists", "", "ok"),
            (409, "Conflict", "uid", "conflict"),
            (403, "Forbidden", "cannot patch", "forbidden"),
            (403, "Forbidden", "namespace x is being terminated", "gone"),
            (401, "Unauthorized", "", "unreachable"),
            (422, "Invalid", "", "refused"),
            (429, "TooManyRequests", "", "unreachable"),
            (503, "ServiceUnavailable", "", "unreachable"),
        ] {
            let status = json!({ "status": "Failure", "code": code, "reason": reason, "message": message });
            let status: kube::core::Status = serde_json::from_value(status).unwrap();
            assert_eq!(classify(Error::Api(Box::new(status))).name(), expected, "{code} {reason}");
        }
    }
}
