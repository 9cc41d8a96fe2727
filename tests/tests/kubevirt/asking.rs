//! Who asks for a VM's EIP: pod, VirtualMachineInstance or template, and what the operator is told of how long it lasts.

use anyhow::{Context, Result};
use gateway_tests::cluster::{EIP, Scene};
use gateway_tests::scene::{EIP1, EIP2};
use serde_json::json;

use super::replay::{served_by, stays_with};
use super::steps::{DONE, MIG1, MIG2, MIG3, MIG4, MIG5, Move, RUN, take};
use super::vm::{A, B, C, Vm};

/// Reason of the Events; their type is `Warning`.
const WARNING: &str = "EipTemporary";
const REMEDY: &str = "only the annotation in spec.template.metadata of the VirtualMachine makes it permanent";

#[test]
fn an_eip_on_the_running_pod_is_kept_through_migrations_and_the_operator_is_told() -> Result<()> {
    let mut scene = Scene::new("v7-")?;
    scene.cluster.install_kubevirt()?;
    let mut vm = Vm::create(&scene.cluster, "web", None)?;
    take(&Move { cluster: &scene.cluster, vm: &vm, from: A, to: A }, &[RUN])?;
    stays_with(&scene, EIP1, None).context("nobody asks")?;
    vm.pod_annotations(&scene.cluster, A, &json!({EIP: EIP1}))?;
    served_by(&scene, EIP1, Some(A))?;
    scene.event(&vm.pod(A), WARNING, &["asked for by this pod alone", REMEDY])?;

    // The target is rendered from the VMI, which knows nothing of it.
    take(&Move { cluster: &scene.cluster, vm: &vm, from: A, to: B }, &[MIG1, MIG2, MIG3])?;
    stays_with(&scene, EIP1, Some(A))?;
    take(&Move { cluster: &scene.cluster, vm: &vm, from: A, to: B }, &[MIG4, MIG5])?;
    served_by(&scene, EIP1, Some(B))?;
    scene.event(&vm.pod(B), WARNING, &["is kept because pod", &vm.pod(A), REMEDY])?;
    scene.restart_agents()?;
    stays_with(&scene, EIP1, Some(B))?;
    // Who asked for it is gone: memory is all there is, on disk too.
    take(&Move { cluster: &scene.cluster, vm: &vm, from: A, to: B }, &[DONE])?;
    stays_with(&scene, EIP1, Some(B))?;
    scene.restart_agents()?;
    stays_with(&scene, EIP1, Some(B))?;
    scene.event(&vm.pod(B), WARNING, &["had it before a migration", REMEDY])?;

    instance_and_template(&scene, &mut vm)
}

/// On the VirtualMachineInstance it lasts until a restart, in the template for good; what the pod says comes first.
fn instance_and_template(scene: &Scene, vm: &mut Vm) -> Result<()> {
    let cluster = &scene.cluster;
    vm.patch(cluster, &json!({"metadata": {"annotations": {EIP: EIP1}}}))?;
    stays_with(scene, EIP1, Some(B)).context("now the VMI says so")?;
    vm.pod_annotations(cluster, B, &json!({EIP: EIP2}))?;
    served_by(scene, EIP2, Some(B))?;
    served_by(scene, EIP1, None)?;
    scene.event(&vm.pod(B), WARNING, &[EIP2, EIP1, "until a migration or restart"])?;
    vm.pod_annotations(cluster, B, &json!({EIP: ""}))?;
    served_by(scene, EIP2, None)?;
    stays_with(scene, EIP1, None).context("an empty annotation of the pod asks for none")?;
    vm.pod_annotations(cluster, B, &json!({EIP: null}))?;
    served_by(scene, EIP1, Some(B))?;
    // A target of now is rendered with what the VMI says.
    vm.eip = Some(EIP1);
    take(&Move { cluster, vm, from: B, to: C }, &[MIG1, MIG2, MIG3, MIG4, MIG5, DONE])?;
    served_by(scene, EIP1, Some(C))?;

    // The next instance is made from the template, which never had it.
    vm.eip = None;
    vm.pod_is_gone(cluster, C)?;
    vm.instance_is_gone(cluster)?;
    vm.start(cluster)?;
    take(&Move { cluster, vm, from: A, to: A }, &[RUN])?;
    stays_with(scene, EIP1, None).context("lost, as was said")
}
