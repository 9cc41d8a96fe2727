//! What KubeVirt leaves in the API server when a VM runs.

use anyhow::{Context, Result, ensure};
use gateway_apiserver::PodSpec;
use gateway_lab::{EIP_POD, PRIMARY_NIC};
use serde_json::{Value, json};

use super::scene::Scene;
use crate::demo::stage::Findings;

/// The VM's pod.
pub(crate) const LAUNCHER: &str = "virt-launcher-testvm-gbx7h";
/// The VM.
const VM: &str = "testvm";

pub(crate) fn start(scene: &Scene) -> Result<Findings> {
    scene.cluster.install_kubevirt()?;
    let spec = json!({ "domain": { "devices": {} } });
    let vm = scene.cluster.create(&json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
        "metadata": { "name": VM, "namespace": "default" },
        "spec": { "runStrategy": "Always", "template": { "spec": spec } },
    }))?;
    let place = PodSpec::of_lab(EIP_POD)?;
    let vmi = scene.cluster.create(&json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {
            "name": VM, "namespace": "default",
            "ownerReferences": [owner("VirtualMachine", &vm)?],
        },
        "spec": spec,
        "status": { "phase": "Running", "nodeName": place.node, "interfaces": [{ "ipAddress": place.ip }] },
    }))?;
    let mut pod = place
        .label("kubevirt.io", "virt-launcher")
        .label("kubevirt.io/created-by", vmi["metadata"]["uid"].as_str().unwrap_or_default())
        .annotation("kubevirt.io/domain", VM);
    LAUNCHER.clone_into(&mut pod.name);
    scene.cluster.create_pod(&pod)?;
    let owned = json!({ "metadata": { "ownerReferences": [owner("VirtualMachineInstance", &vmi)?] } });
    scene.cluster.patch(&["pod", LAUNCHER], &owned)?;
    let listed = scene.typed(&["get", "vm,vmi,pod", "--output=wide"])?;
    ensure!(listed.contains("10.244.1.10") && listed.contains("Running"), "the pod does not run:\n{listed}");
    Ok(vec![listed, mtu(scene)?])
}

/// An owner reference to an object that the server has made.
fn owner(kind: &str, of: &Value) -> Result<Value> {
    let uid = of["metadata"]["uid"].as_str().with_context(|| format!("the {kind} has no uid"))?;
    Ok(json!({
        "apiVersion": "kubevirt.io/v1", "kind": kind, "name": VM, "uid": uid,
        "controller": true, "blockOwnerDeletion": true,
    }))
}

/// The pod's network is the VM's: what the lab's CNI gave it, less than the wire by the tunnel's headers.
fn mtu(scene: &Scene) -> Result<String> {
    let status = scene.lab.status()?;
    let pod = status.namespaces.iter().find(|namespace| namespace.name == EIP_POD);
    let nic = pod.and_then(|pod| pod.interfaces.iter().find(|nic| nic.name == PRIMARY_NIC));
    let mtu = nic.context("the pod has no NIC")?.mtu;
    ensure!(mtu == u32::from(status.pod_mtu), "MTU {mtu} in the VM instead of {}", status.pod_mtu);
    Ok(format!("MTU in the VM {mtu}, on the nodes' wires {}", status.mtu))
}
