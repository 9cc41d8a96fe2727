//! KubeVirt: the VirtualMachineInstance, and what makes a pod its launcher.
//!
//! Names and their meaning are those of KubeVirt 1.0 to 1.9: `staging/src/kubevirt.io/api/core/v1/types.go`, and
//! `renderLaunchManifest` of `pkg/virt-controller/services/template.go`.

use k8s_openapi::api::core::v1::ContainerStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::DynamicObject;
use serde_json::Value;

use super::Reader;
use crate::snapshot::{Launcher, Vmi};

/// Label of every pod KubeVirt makes.
const KIND_LABEL: &str = "kubevirt.io";
/// Annotation of a pod that only makes a volume be provisioned: it looks like a launcher and runs no guest.
const PROVISIONING: &str = "kubevirt.io/ephemeral-provisioning";
/// Annotation of a migration's target once the guest runs there.
const ARRIVED: &str = "kubevirt.io/migration-target-ready-timestamp";
/// Container that runs the guest.
const COMPUTE: &str = "compute";

/// What makes a pod a launcher. A pod of KubeVirt's that never runs a guest loses its annotations: it asks for nothing.
pub(super) fn launcher(
    metadata: &mut ObjectMeta,
    containers: Option<&[ContainerStatus]>,
) -> Option<Launcher> {
    let kind = metadata.labels.as_ref()?.get(KIND_LABEL)?.clone();
    let annotation = |key| metadata.annotations.as_ref().and_then(|annotations| annotations.get(key));
    if kind == "hotplug-disk" || annotation(PROVISIONING).is_some_and(|value| value == "true") {
        metadata.annotations = None;
        return None;
    }
    let owner = owner(metadata, "VirtualMachineInstance").filter(|_| kind == "virt-launcher")?;
    let terminated = |status: &ContainerStatus| {
        status.name == COMPUTE && status.state.as_ref().is_some_and(|state| state.terminated.is_some())
    };
    Some(Launcher {
        vmi: owner.name.clone(),
        vmi_uid: owner.uid.clone(),
        stopped: containers.unwrap_or_default().iter().any(terminated),
        arrived: annotation(ARRIVED).cloned(),
    })
}

fn owner<'a>(metadata: &'a ObjectMeta, kind: &str) -> Option<&'a OwnerReference> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.kind == kind && owner.api_version.starts_with("kubevirt.io/"))
}

impl Reader {
    /// A VirtualMachineInstance, reduced to what matters.
    pub(in crate::source) fn vmi(&self, vmi: DynamicObject) -> Vmi {
        let text = |pointer: &str| vmi.data.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let text = |pointer: &str| text(pointer).filter(|text| !text.is_empty());
        let failed = vmi.data.pointer("/status/migrationState/failed").and_then(Value::as_bool) == Some(true);
        let ready = text("/status/migrationState/targetNodeDomainReadyTimestamp").is_some();
        let by_vm = owner(&vmi.metadata, "VirtualMachine").is_some();
        Vmi {
            node: text("/status/nodeName"),
            migrated_to: text("/status/migrationState/targetPod").filter(|_| ready && !failed),
            finished: matches!(text("/status/phase").as_deref(), Some("Succeeded" | "Failed")),
            by_vm,
            uid: vmi.metadata.uid.unwrap_or_default(),
            created: vmi.metadata.creation_timestamp.map_or(0, |time| time.0.as_second()),
            eip: vmi.metadata.annotations.and_then(|mut annotations| annotations.remove(&self.keys.eip)),
            gone: false,
        }
    }
}
