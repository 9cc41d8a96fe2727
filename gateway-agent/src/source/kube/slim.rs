//! Pods as far as they matter here. A list of all pods of a cluster is tens of megabytes, most of them containers,
//! environments and managed fields, which are passed over while the JSON is read rather than stored and dropped.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{self, ContainerStatus, PodCondition, PodIP, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};

/// A Pod of which only the fields are set that [`Reader::pod`](crate::source::manifest::Reader::pod) looks at.
#[derive(Clone, Debug)]
pub(super) struct SlimPod(pub(super) v1::Pod);

impl<'de> Deserialize<'de> for SlimPod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { metadata, spec, status } = Read::deserialize(deserializer)?;
        let metadata = ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            creation_timestamp: metadata.creation_timestamp,
            deletion_timestamp: metadata.deletion_timestamp,
            annotations: metadata.annotations,
            labels: metadata.labels,
            owner_references: metadata.owner_references,
            ..ObjectMeta::default()
        };
        let spec =
            PodSpec { node_name: spec.node_name, host_network: spec.host_network, ..PodSpec::default() };
        let status = PodStatus {
            phase: status.phase,
            pod_ip: status.pod_ip,
            pod_ips: status.pod_ips,
            conditions: status.conditions,
            container_statuses: status.container_statuses,
            ..PodStatus::default()
        };
        Ok(Self(v1::Pod { metadata, spec: Some(spec), status: Some(status) }))
    }
}

impl Resource for SlimPod {
    type DynamicType = ();
    type Scope = <v1::Pod as Resource>::Scope;

    fn kind(_: &()) -> Cow<'_, str> {
        v1::Pod::kind(&())
    }

    fn group(_: &()) -> Cow<'_, str> {
        v1::Pod::group(&())
    }

    fn version(_: &()) -> Cow<'_, str> {
        v1::Pod::version(&())
    }

    fn plural(_: &()) -> Cow<'_, str> {
        v1::Pod::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

#[derive(Deserialize)]
struct Read {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    annotations: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    host_network: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIP>>,
    conditions: Option<Vec<PodCondition>>,
    container_statuses: Option<Vec<ContainerStatus>>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::annotation::Keys;
    use crate::snapshot::ConfigMapName;
    use crate::source::manifest::Reader;

    /// Whatever the reader looks at is the same in both: a launcher pod with everything that counts.
    #[test]
    fn a_slim_pod_reads_as_the_whole_one() {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "virt-launcher-web-aaaaa", "namespace": "t", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-02T00:00:00Z",
                "annotations": {
                    "ovn.kubernetes.io/eip": "192.168.100.101", "ovn.kubernetes.io/routed": "true",
                    "kubevirt.io/migration-target-ready-timestamp": "then",
                },
                "labels": {"kubevirt.io": "virt-launcher", "ovn.kubernetes.io/eip-bound": "true"},
                "ownerReferences": [{
                    "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "web", "uid": "v",
                    "controller": true,
                }],
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:metadata": {}}}],
            },
            "spec": {
                "nodeName": "n1", "hostNetwork": true,
                "containers": [{"name": "compute", "image": "x", "env": [{"name": "A", "value": "b"}]}],
            },
            "status": {
                "phase": "Failed", "podIP": "10.0.0.1", "podIPs": [{"ip": "fd00::1"}, {"ip": "10.0.0.1"}],
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{
                    "name": "compute", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": 0}},
                }],
            },
        });
        let reader = Reader { keys: Keys::default(), config_map: ConfigMapName::default() };
        let whole: v1::Pod = serde_json::from_value(object.clone()).unwrap();
        let slim: SlimPod = serde_json::from_value(object).unwrap();
        let meta = slim.meta().clone();
        let (whole, slim) = (reader.pod(whole), reader.pod(slim.0));
        let Ok(pod) = &whole else { panic!("it is good") };
        assert!(pod.launcher.as_ref().is_some_and(|launcher| launcher.stopped && launcher.arrived.is_some()));
        assert_eq!(slim.ok().as_ref(), Some(pod));
        assert_eq!(
            (meta.name.as_deref(), meta.resource_version.as_deref()),
            (Some("virt-launcher-web-aaaaa"), Some("7"))
        );
        let empty: SlimPod = serde_json::from_value(json!({"metadata": {}})).unwrap();
        assert!(empty.0.spec.is_some());
    }
}
