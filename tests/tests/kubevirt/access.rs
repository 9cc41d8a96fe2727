//! Agents that may not read VirtualMachineInstances, and agents that were there before KubeVirt.

use anyhow::{Context, Result};
use gateway_apiserver::User;
use gateway_tests::cluster::Scene;
use gateway_tests::scene::EIP1;

use super::replay::{served_by, stays_with};
use super::steps::{DONE, MIG1, MIG2, MIG3, Move, RUN, annotate_target, domain_ready, take};
use super::vm::{A, B, Vm};

/// What the agents of deploy/ may do, less KubeVirt.
const ROLES: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: { name: agent, namespace: kube-system }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: agent }
rules:
  - { apiGroups: [""], resources: [pods, nodes, configmaps], verbs: [get, list, watch, patch] }
  - { apiGroups: [networking.k8s.io], resources: [servicecidrs], verbs: [list, watch] }
  - { apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: agent }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: agent }
subjects: [{ kind: ServiceAccount, name: agent, namespace: kube-system }]
"#;

#[test]
fn before_kubevirt_and_without_access_to_it() -> Result<()> {
    let mut scene = Scene::new("v0-")?;
    // The agents run, and no kubevirt.io is served. It comes, and with its first launcher they look.
    scene.cluster.install_kubevirt()?;
    let vm = Vm::create(&scene.cluster, "web", Some(EIP1))?;
    take(&Move { cluster: &scene.cluster, vm: &vm, from: A, to: A }, &[RUN])?;
    served_by(&scene, EIP1, Some(A))?;
    take(&Move { cluster: &scene.cluster, vm: &vm, from: A, to: B }, &[MIG1, MIG2, MIG3])?;
    stays_with(&scene, EIP1, Some(A))?;
    domain_ready(&Move { cluster: &scene.cluster, vm: &vm, from: A, to: B })?;
    served_by(&scene, EIP1, Some(B)).context("the VMI alone says so, and they read it")?;

    without_access(&mut scene, &vm)
}

/// New agents that may not read VirtualMachineInstances: the pods tell, one reconcile later.
fn without_access(scene: &mut Scene, vm: &Vm) -> Result<()> {
    scene.kill_agents();
    annotate_target(&Move { cluster: &scene.cluster, vm, from: A, to: B })?;
    scene.cluster.apply(ROLES)?;
    scene.log_in(User::ServiceAccount { namespace: "kube-system", name: "agent" })?;
    scene.restart_agents()?;
    stays_with(scene, EIP1, Some(B))?;
    take(&Move { cluster: &scene.cluster, vm, from: A, to: B }, &[DONE])?;
    stays_with(scene, EIP1, Some(B))?;

    // Back again: the older pod that is live, until the newer one says that the guest has come.
    take(&Move { cluster: &scene.cluster, vm, from: B, to: A }, &[MIG1, MIG2, MIG3])?;
    stays_with(scene, EIP1, Some(B)).context("a target that waits")?;
    scene.restart_agents()?;
    stays_with(scene, EIP1, Some(B))?;
    domain_ready(&Move { cluster: &scene.cluster, vm, from: B, to: A })?;
    stays_with(scene, EIP1, Some(B)).context("they do not see the VMI")?;
    annotate_target(&Move { cluster: &scene.cluster, vm, from: B, to: A })?;
    served_by(scene, EIP1, Some(A))?;
    take(&Move { cluster: &scene.cluster, vm, from: B, to: A }, &[DONE])?;
    stays_with(scene, EIP1, Some(A))
}
