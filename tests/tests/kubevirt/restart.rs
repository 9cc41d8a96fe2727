//! A VM that restarts keeps its EIP from others; one that is stopped for good gives it up.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gateway_tests::cluster::{ROUTED, Scene};
use gateway_tests::scene::{EIP1, EIP2, eips, eventually};
use serde_json::json;

use super::replay::{served_by, stays_with};
use super::steps::{Move, RUN, take};
use super::vm::{A, B, Vm};

/// How long an EIP is kept for a VM of which nothing is left, and some time to notice.
const RESERVED: Duration = Duration::from_secs(30 + 5);

fn goes(scene: &Scene, vm: &Vm, from: super::vm::Launcher) -> Result<()> {
    scene.cluster.delete(&["vmi", vm.name])?;
    scene.cluster.delete(&["pod", &vm.pod(from)])?;
    stays_with(scene, EIP1, Some(from)).context("the guest shuts down")?;
    vm.pod_is_gone(&scene.cluster, from)?;
    served_by(scene, EIP1, None)?;
    vm.status(&scene.cluster, &json!({"phase": "Succeeded"}))?;
    vm.instance_is_gone(&scene.cluster)
}

#[test]
fn an_eip_is_reserved_while_its_vm_restarts_and_no_longer() -> Result<()> {
    let mut scene = Scene::new("v9-")?;
    scene.cluster.install_kubevirt()?;
    let mut vm = Vm::create(&scene.cluster, "web", Some(EIP1))?;
    take(&Move { cluster: &scene.cluster, vm: &vm, from: A, to: A }, &[RUN])?;
    served_by(&scene, EIP1, Some(A))?;
    // Somebody else has waited for it for a long time.
    scene.annotate("pod2a", Some(EIP1))?;
    scene.event("pod2a", "EipConflict", &[EIP1, "virt-launcher-web-aaaaa"])?;
    scene.routed("virt-launcher-web-aaaaa", true)?;

    goes(&scene, &vm, A)?;
    stays_with(&scene, EIP1, None).context("nothing is left of it")?;
    scene.event(
        "pod2a",
        "EipConflict",
        &[EIP1, "virtualmachineinstance default/web, which is restarting"],
    )?;
    vm.start(&scene.cluster)?;
    stays_with(&scene, EIP1, None)?;
    scene.restart_agents()?;
    stays_with(&scene, EIP1, None).context("the new instance is there")?;
    take(&Move { cluster: &scene.cluster, vm: &vm, from: B, to: B }, &[RUN])?;
    served_by(&scene, EIP1, Some(B))?;
    ensure!(scene.annotation("pod2a", ROUTED)?.as_deref() != Some("true"), "the other one never had it");

    // Stopped for good. What others do meanwhile does not wait.
    goes(&scene, &vm, B)?;
    let since = Instant::now();
    stays_with(&scene, EIP1, None)?;
    scene.annotate("pod1a", Some(EIP2))?;
    scene.works(EIP2)?;
    eventually(RESERVED, "pod2a gets what it waited for", || {
        Ok(eips(&scene.lab, "worker2")?.contains(&EIP1.to_owned()))
    })?;
    let kept = since.elapsed();
    println!("kept for {kept:?}");
    ensure!(kept > Duration::from_secs(20), "kept for {kept:?} only");
    scene.works(EIP1)
}
