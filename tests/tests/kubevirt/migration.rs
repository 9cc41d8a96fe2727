//! KubeVirt: an EIP follows its VM, by the rule of active pods.

use anyhow::{Context, Result, ensure};
use gateway_apiserver::PodSpec;
use gateway_tests::scene::{EIP1, eips, holds, reaches};
use serde_json::{Value, json};

use gateway_tests::cluster::Scene;

/// A VirtualMachineInstance `web` with the EIP; its server-made uid.
fn vmi(scene: &Scene) -> Result<String> {
    scene.cluster.install_kubevirt()?;
    let created = scene.cluster.create(&json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "web", "namespace": "default", "annotations": {"ovn.kubernetes.io/eip": EIP1}},
        "spec": {"domain": {"devices": {}}}, "status": {"phase": "Running", "nodeName": "worker1"},
    }))?;
    Ok(created["metadata"]["uid"].as_str().context("a uid")?.to_owned())
}

/// A launcher pod of the VMI, in the place of one of the lab's pods.
fn launcher(scene: &Scene, place: &str, name: &str, uid: &str) -> Result<()> {
    let mut spec = PodSpec::of_lab(place)?
        .eip(EIP1)
        .label("kubevirt.io", "virt-launcher")
        .label("kubevirt.io/created-by", uid);
    name.clone_into(&mut spec.name);
    scene.cluster.create_pod(&spec)?;
    let owner = json!({"metadata": {"ownerReferences": [{
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "web", "uid": uid,
        "controller": true, "blockOwnerDeletion": true,
    }]}});
    scene.cluster.patch(&["pod", name, "-n", "default"], &owner)
}

fn status(scene: &Scene, status: &Value) -> Result<()> {
    scene.cluster.patch(&["vmi", "web", "-n", "default"], &json!({ "status": status }))
}

#[test]
fn the_eip_follows_a_live_migration() -> Result<()> {
    let mut scene = Scene::new("m1-")?;
    let uid = vmi(&scene)?;
    launcher(&scene, "pod1b", "virt-launcher-web-aaaaa", &uid)?;
    scene.works(EIP1)?;
    ensure!(eips(&scene.lab, "worker1")? == [EIP1], "served where the guest runs");

    // The target is there, the guest is not: still the source, also for agents that start now.
    launcher(&scene, "pod2b", "virt-launcher-web-bbbbb", &uid)?;
    let handed_off = json!({"migrationState": {
        "migrationUid": "m", "sourceNode": "worker1", "targetNode": "worker2",
        "sourcePod": "virt-launcher-web-aaaaa", "targetPod": "virt-launcher-web-bbbbb",
        "startTimestamp": "2026-11-24T09:00:00Z", "mode": "PreCopy", "targetNodeDomainDetected": true,
    }});
    status(&scene, &handed_off)?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    ensure!(
        eips(&scene.lab, "worker1")? == [EIP1] && eips(&scene.lab, "worker2")?.is_empty(),
        "still the source"
    );
    scene.restart_agents()?;
    ensure!(
        eips(&scene.lab, "worker1")? == [EIP1] && eips(&scene.lab, "worker2")?.is_empty(),
        "still the source, by new agents"
    );
    reaches(&scene.lab, "client", EIP1, 3)?;

    // The domain runs on the target.
    status(&scene, &json!({"migrationState": {"targetNodeDomainReadyTimestamp": "2026-11-24T09:00:05Z"}}))?;
    holds(&scene.lab, "worker2", &[EIP1])?;
    scene.works(EIP1)?;
    holds(&scene.lab, "worker1", &[])?;
    scene.restart_agents()?;
    scene.works(EIP1)?;

    // The end of it, and the source's object, change nothing.
    status(
        &scene,
        &json!({"nodeName": "worker2", "migrationState": {"endTimestamp": "2026-11-24T09:00:06Z", "completed": true}}),
    )?;
    scene.cluster.patch_status(
        &["pod", "virt-launcher-web-aaaaa", "-n", "default"],
        &json!({"status": {"phase": "Succeeded"}}),
    )?;
    scene.cluster.delete_now(&["pod", "virt-launcher-web-aaaaa", "-n", "default"])?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    ensure!(eips(&scene.lab, "worker2")? == [EIP1], "on the target for good");
    reaches(&scene.lab, "client", EIP1, 3)?;
    Ok(())
}

#[test]
fn a_failed_migration_stays_at_the_source() -> Result<()> {
    let scene = Scene::new("m2-")?;
    let uid = vmi(&scene)?;
    launcher(&scene, "pod1b", "virt-launcher-web-aaaaa", &uid)?;
    launcher(&scene, "pod2b", "virt-launcher-web-bbbbb", &uid)?;
    status(
        &scene,
        &json!({"migrationState": {
            "sourcePod": "virt-launcher-web-aaaaa", "targetPod": "virt-launcher-web-bbbbb", "targetNode": "worker2",
            "targetNodeDomainReadyTimestamp": "2026-11-24T09:00:05Z",
        }}),
    )?;
    holds(&scene.lab, "worker2", &[EIP1])?;
    status(&scene, &json!({"migrationState": {"failed": true, "completed": true}}))?;
    holds(&scene.lab, "worker1", &[EIP1])?;
    holds(&scene.lab, "worker2", &[])?;
    scene.works(EIP1)
}
