//! What KubeVirt does that an agent could take wrongly: pods that only look like launchers, sources that end late, nodes
//! that are lost, migrations that are called off.

use anyhow::{Context, Result};
use gateway_tests::cluster::{EIP, Scene};
use gateway_tests::scene::{EIP1, Pinging};
use serde_json::json;

use super::replay::{served_by, stays_with};
use super::steps::{MIG1, MIG2, MIG3, MIG4, MIG5, Move, RUN, take};
use super::traffic::{KEPT, keep_address};
use super::vm::{A, B, Vm};

/// A VM whose template asks for an EIP; it has not started.
fn vm(prefix: &str) -> Result<(Scene, Vm)> {
    let scene = Scene::new(prefix)?;
    scene.cluster.install_kubevirt()?;
    let vm = Vm::create(&scene.cluster, "web", Some(EIP1))?;
    Ok((scene, vm))
}

#[test]
fn pods_without_a_guest_and_migrations_called_off() -> Result<()> {
    let (mut scene, vm) = vm("v3-")?;
    // A volume that waits for its first consumer: a pod like the launcher, annotations and owner too.
    vm.create_odd_pod(&scene.cluster, B, |pod| {
        pod["metadata"]["annotations"]["kubevirt.io/ephemeral-provisioning"] = json!("true");
    })?;
    vm.pod_runs(&scene.cluster, B)?;
    vm.pod_ready(&scene.cluster, B, true)?;
    stays_with(&scene, EIP1, None).context("a pod that provisions a volume")?;
    take(&Move { cluster: &scene.cluster, vm: &vm, from: A, to: A }, &[RUN])?;
    served_by(&scene, EIP1, Some(A))?;
    vm.pod_is_gone(&scene.cluster, B)?;
    stays_with(&scene, EIP1, Some(A))?;
    hotplug(&scene, &vm)?;

    // Called off before the hand-off: the VMI is never told, and in old versions the target lives on for minutes.
    let pings = Pinging::start(&scene.lab, "client", EIP1)?;
    take(&Move { cluster: &scene.cluster, vm: &vm, from: A, to: B }, &[MIG1])?;
    scene.cluster.kubectl(&["delete", "vmim", "web-to-bbbbb"])?;
    stays_with(&scene, EIP1, Some(A))?;
    scene.restart_agents()?;
    stays_with(&scene, EIP1, Some(A)).context("the target lives on")?;
    scene.cluster.delete(&["pod", &vm.pod(B)])?;
    stays_with(&scene, EIP1, Some(A))?;
    vm.pod_is_gone(&scene.cluster, B)?;
    stays_with(&scene, EIP1, Some(A))?;
    pings.none_lost()?;
    a_source_that_never_ends(&mut scene, &vm)
}

/// A pod that holds a volume plugged into a running VM; its owner is the launcher pod.
fn hotplug(scene: &Scene, vm: &Vm) -> Result<()> {
    let pod = scene.cluster.get(&["pod", &vm.pod(A)])?;
    scene.cluster.create(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "hp-volume-x7k2p", "namespace": "default", "annotations": {EIP: EIP1},
            "labels": {"kubevirt.io": "hotplug-disk", "kubevirt.io/created-by": vm.vmi_uid},
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Pod", "name": vm.pod(A), "uid": pod["metadata"]["uid"],
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {"nodeName": "worker2", "containers": [{"name": "hotplug-disk", "image": "lab"}]},
    }))?;
    let conditions = json!([{"type": "Ready", "status": "True"}]);
    let status = json!({"phase": "Running", "podIP": "10.244.2.77", "conditions": conditions});
    scene.cluster.patch_status(&["pod", "hp-volume-x7k2p"], &status)?;
    stays_with(scene, EIP1, Some(A)).context("a pod that holds a volume")
}

#[test]
fn a_source_with_the_targets_address_and_a_node_that_is_lost() -> Result<()> {
    let (mut scene, vm) = vm("v4-")?;
    keep_address(&scene.lab, KEPT)?;
    take(&Move { cluster: &scene.cluster, vm: &vm, from: A, to: A }, &[RUN])?;
    served_by(&scene, EIP1, Some(A))?;
    take(&Move { cluster: &scene.cluster, vm: &vm, from: A, to: KEPT }, &[MIG1, MIG2, MIG3, MIG4])?;
    served_by(&scene, EIP1, Some(KEPT))?;

    // The source goes while the target has its address: neither its end nor its deletion takes the EIP away.
    let pings = Pinging::start(&scene.lab, "client", EIP1)?;
    take(&Move { cluster: &scene.cluster, vm: &vm, from: A, to: KEPT }, &[MIG5])?;
    vm.pod_ends(&scene.cluster, A, "Succeeded")?;
    stays_with(&scene, EIP1, Some(KEPT))?;
    scene.restart_agents()?;
    stays_with(&scene, EIP1, Some(KEPT))?;
    vm.pod_is_gone(&scene.cluster, A)?;
    stays_with(&scene, EIP1, Some(KEPT))?;

    // Its node is lost: not ready, evicted, Terminating for ever, and perhaps still running.
    scene.cluster.set_node_ready("worker2", false)?;
    vm.pod_ready(&scene.cluster, KEPT, false)?;
    stays_with(&scene, EIP1, Some(KEPT)).context("the node is not ready")?;
    scene.cluster.delete(&["pod", &vm.pod(KEPT)])?;
    stays_with(&scene, EIP1, Some(KEPT)).context("the pod terminates")?;
    scene.restart_agents()?;
    stays_with(&scene, EIP1, Some(KEPT)).context("and new agents find it so")?;
    pings.none_lost()?;
    vm.pod_is_gone(&scene.cluster, KEPT)?;
    served_by(&scene, EIP1, None)?;
    // KubeVirt now sees that no pod is alive, and starts the VM elsewhere.
    vm.status(&scene.cluster, &json!({"phase": "Failed", "reason": "NodeUnresponsive"}))?;
    vm.instance_is_gone(&scene.cluster)?;
    let mut vm = vm;
    vm.start(&scene.cluster)?;
    take(&Move { cluster: &scene.cluster, vm: &vm, from: B, to: B }, &[RUN])?;
    // B's node is the one that was lost; it is back.
    scene.cluster.set_node_ready("worker2", true)?;
    served_by(&scene, EIP1, Some(B))
}

/// Both pods run, are ready, and carry their own node's name: kubevirt issues 5657, 11895, 15711, 18320.
fn a_source_that_never_ends(scene: &mut Scene, vm: &Vm) -> Result<()> {
    let steps = [MIG1, MIG2, MIG3, MIG4, MIG5];
    take(&Move { cluster: &scene.cluster, vm, from: A, to: B }, &steps)?;
    served_by(scene, EIP1, Some(B))?;
    scene.restart_agents()?;
    stays_with(scene, EIP1, Some(B))?;
    vm.pod_ends(&scene.cluster, A, "Failed")?;
    stays_with(scene, EIP1, Some(B)).context("issue 10695: a sidecar ends badly")?;
    vm.pod_is_gone(&scene.cluster, A)?;
    stays_with(scene, EIP1, Some(B)).context("and at last it goes")
}
