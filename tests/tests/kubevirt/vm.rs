//! What KubeVirt writes of a VM, object by object; kinds, keys and order as virt-controller and virt-handler 1.6 to 1.9
//! have them. The uids are the API server's.

use anyhow::{Context, Result};
use gateway_apiserver::Cluster;
use gateway_lab::plan::Pod as LabPod;
use gateway_tests::cluster::EIP;
use serde_json::{Value, json};

const NAMESPACE: &str = "default";
/// When something happened; nobody compares it with a clock.
pub(crate) const NOW: &str = "2026-08-22T10:00:00Z";

/// A launcher pod, and the lab's pod in whose place it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Launcher {
    /// What the name ends in.
    pub(crate) suffix: &'static str,
    /// The lab's pod.
    pub(crate) place: &'static str,
    /// Its address, where the CNI gave it that of another pod.
    pub(crate) ip: Option<&'static str>,
}

/// Where VMs start.
pub(crate) const A: Launcher = Launcher::new("aaaaa", "pod1b");
/// On the other worker.
pub(crate) const B: Launcher = Launcher::new("bbbbb", "pod2b");
/// On the gateway.
pub(crate) const C: Launcher = Launcher::new("ccccc", "pod0a");

impl Launcher {
    const fn new(suffix: &'static str, place: &'static str) -> Self {
        Self { suffix, place, ip: None }
    }

    fn lab_pod(&self) -> Result<&'static LabPod> {
        LabPod::named(self.place).context("one of the lab's pods")
    }

    /// Name of its node.
    pub(crate) fn node(&self) -> Result<&'static str> {
        Ok(self.lab_pod()?.node)
    }

    /// Its address.
    pub(crate) fn ip(&self) -> Result<String> {
        Ok(self.ip.map_or(self.lab_pod()?.ip.to_string(), str::to_owned))
    }
}

/// A VirtualMachine and its present VirtualMachineInstance.
#[derive(Debug)]
pub(crate) struct Vm {
    /// Its name.
    pub(crate) name: &'static str,
    /// The EIP of the VirtualMachine's template.
    pub(crate) eip: Option<&'static str>,
    /// `metadata.uid` of the VirtualMachine.
    uid: String,
    /// That of the VirtualMachineInstance.
    pub(crate) vmi_uid: String,
}

impl Vm {
    /// Creates a VirtualMachine and its first VirtualMachineInstance.
    pub(crate) fn create(cluster: &Cluster, name: &'static str, eip: Option<&'static str>) -> Result<Self> {
        let template = json!({"metadata": {"annotations": annotations(eip)}, "spec": domain()});
        let made = cluster.create(&json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"runStrategy": "Always", "template": template},
        }))?;
        let mut vm = Self { name, eip, uid: uid(&made)?, vmi_uid: String::new() };
        vm.start(cluster)?;
        Ok(vm)
    }

    /// Creates the next VirtualMachineInstance, from the template.
    pub(crate) fn start(&mut self, cluster: &Cluster) -> Result<()> {
        let made = cluster.create(&json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {
                "name": self.name, "namespace": NAMESPACE, "annotations": annotations(self.eip),
                "finalizers": ["kubevirt.io/foregroundDeleteVirtualMachine"],
                "ownerReferences": [owner("VirtualMachine", self.name, &self.uid)],
            },
            "spec": domain(), "status": {"phase": "Pending"},
        }))?;
        self.vmi_uid = uid(&made)?;
        Ok(())
    }

    /// Name of a launcher pod.
    pub(crate) fn pod(&self, launcher: Launcher) -> String {
        format!("virt-launcher-{}-{}", self.name, launcher.suffix)
    }

    /// Merges into the VirtualMachineInstance, whose status is part of the object.
    pub(crate) fn patch(&self, cluster: &Cluster, patch: &Value) -> Result<()> {
        cluster.patch(&["vmi", self.name, "-n", NAMESPACE], patch)
    }

    /// Merges into its status.
    pub(crate) fn status(&self, cluster: &Cluster, status: &Value) -> Result<()> {
        self.patch(cluster, &json!({ "status": status }))
    }

    /// Merges into its migration state.
    pub(crate) fn migration(&self, cluster: &Cluster, state: &Value) -> Result<()> {
        self.status(cluster, &json!({ "migrationState": state }))
    }

    /// The Pod object as virt-controller renders it.
    fn launcher(&self, launcher: Launcher) -> Result<Value> {
        let mut annotations = annotations(self.eip);
        annotations["kubevirt.io/domain"] = json!(self.name);
        Ok(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": self.pod(launcher), "namespace": NAMESPACE, "annotations": annotations,
                "labels": {
                    "kubevirt.io": "virt-launcher", "kubevirt.io/created-by": self.vmi_uid,
                    "vm.kubevirt.io/name": self.name, "vmi.kubevirt.io/id": self.name,
                },
                "ownerReferences": [owner("VirtualMachineInstance", self.name, &self.vmi_uid)],
            },
            "spec": {
                "nodeName": launcher.node()?, "restartPolicy": "Never", "terminationGracePeriodSeconds": 60,
                "readinessGates": [{"conditionType": "kubevirt.io/virtual-machine-unpaused"}],
                "containers": [{"name": "compute", "image": "lab"}],
            },
        }))
    }

    /// Creates a launcher pod, not as a target; it is Pending.
    pub(crate) fn create_pod(&self, cluster: &Cluster, launcher: Launcher) -> Result<()> {
        cluster.create(&self.launcher(launcher)?).map(drop)
    }

    /// Creates the target of a migration: born with the label of the source's node.
    pub(crate) fn create_target(&self, cluster: &Cluster, to: Launcher, from: Launcher) -> Result<()> {
        let uid = self.migration_uid(cluster, to)?;
        let mut pod = self.launcher(to)?;
        pod["metadata"]["labels"]["kubevirt.io/nodeName"] = json!(from.node()?);
        pod["metadata"]["labels"]["kubevirt.io/migrationJobUID"] = json!(uid);
        pod["metadata"]["annotations"]["kubevirt.io/migrationJobName"] = json!(self.migration_name(to));
        cluster.create(&pod).map(drop)
    }

    /// As [`Vm::create_pod`], changed before it is written.
    pub(crate) fn create_odd_pod(
        &self,
        cluster: &Cluster,
        launcher: Launcher,
        change: impl FnOnce(&mut Value),
    ) -> Result<()> {
        let mut pod = self.launcher(launcher)?;
        change(&mut pod);
        cluster.create(&pod).map(drop)
    }

    /// The kubelet has started the pod: containers run, the readiness gate is still shut.
    pub(crate) fn pod_runs(&self, cluster: &Cluster, launcher: Launcher) -> Result<()> {
        let ip = launcher.ip()?;
        let status = json!({
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady"}],
            "containerStatuses": [{
                "name": "compute", "image": "lab", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": NOW}},
            }],
        });
        self.pod_status(cluster, launcher, &status)
    }

    /// Merges into a launcher pod's status.
    pub(crate) fn pod_status(&self, cluster: &Cluster, launcher: Launcher, status: &Value) -> Result<()> {
        cluster.patch_status(&["pod", &self.pod(launcher), "-n", NAMESPACE], status)
    }

    /// The guest runs in the pod, or is paused.
    pub(crate) fn pod_ready(&self, cluster: &Cluster, launcher: Launcher, ready: bool) -> Result<()> {
        let status = if ready { "True" } else { "False" };
        let conditions = ["kubevirt.io/virtual-machine-unpaused", "Ready"]
            .map(|kind| json!({"type": kind, "status": status}));
        self.pod_status(cluster, launcher, &json!({ "conditions": conditions }))
    }

    /// The pod has ended, and its object stays.
    pub(crate) fn pod_ends(&self, cluster: &Cluster, launcher: Launcher, phase: &str) -> Result<()> {
        self.pod_status(cluster, launcher, &json!({ "phase": phase }))
    }

    /// The label of the node the VirtualMachineInstance is on; KubeVirt brings it to the current pod only.
    pub(crate) fn pod_node_label(&self, cluster: &Cluster, launcher: Launcher) -> Result<()> {
        let labels = json!({"kubevirt.io/nodeName": launcher.node()?});
        let pod = self.pod(launcher);
        cluster.patch(&["pod", &pod, "-n", NAMESPACE], &json!({"metadata": {"labels": labels}}))
    }

    /// Merges annotations into a launcher pod.
    pub(crate) fn pod_annotations(&self, cluster: &Cluster, launcher: Launcher, what: &Value) -> Result<()> {
        let pod = self.pod(launcher);
        cluster.patch(&["pod", &pod, "-n", NAMESPACE], &json!({"metadata": {"annotations": what}}))
    }

    /// The object is gone, whatever a kubelet thinks.
    pub(crate) fn pod_is_gone(&self, cluster: &Cluster, launcher: Launcher) -> Result<()> {
        cluster.delete_now(&["pod", &self.pod(launcher), "-n", NAMESPACE])
    }

    /// The VirtualMachineInstance has ended, its finalizers are off, and it is gone.
    pub(crate) fn instance_is_gone(&self, cluster: &Cluster) -> Result<()> {
        cluster.delete(&["vmi", self.name, "-n", NAMESPACE])?;
        self.patch(cluster, &json!({"metadata": {"finalizers": null}}))
    }

    fn migration_name(&self, to: Launcher) -> String {
        format!("{}-to-{}", self.name, to.suffix)
    }

    /// Creates a VirtualMachineInstanceMigration; one of the same target that is over makes way.
    pub(crate) fn create_migration(&self, cluster: &Cluster, to: Launcher) -> Result<()> {
        cluster.kubectl(&["delete", "vmim", &self.migration_name(to), "--ignore-not-found"])?;
        cluster.create(&json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceMigration",
            "metadata": {"name": self.migration_name(to), "namespace": NAMESPACE},
            "spec": {"vmiName": self.name},
        }))?;
        Ok(())
    }

    /// `metadata.uid` of a migration.
    pub(crate) fn migration_uid(&self, cluster: &Cluster, to: Launcher) -> Result<String> {
        uid(&cluster.get(&["vmim", &self.migration_name(to), "-n", NAMESPACE])?)
    }

    /// Sets a migration's phase.
    pub(crate) fn migration_phase(&self, cluster: &Cluster, to: Launcher, phase: &str) -> Result<()> {
        let name = self.migration_name(to);
        cluster.patch_status(&["vmim", &name, "-n", NAMESPACE], &json!({ "phase": phase }))
    }
}

fn uid(object: &Value) -> Result<String> {
    Ok(object["metadata"]["uid"].as_str().context("a uid")?.to_owned())
}

fn owner(kind: &str, name: &str, uid: &str) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": kind, "name": name, "uid": uid,
        "controller": true, "blockOwnerDeletion": true,
    })
}

fn annotations(eip: Option<&str>) -> Value {
    eip.map_or_else(|| json!({}), |eip| json!({ EIP: eip }))
}

fn domain() -> Value {
    json!({"domain": {"devices": {}}})
}
