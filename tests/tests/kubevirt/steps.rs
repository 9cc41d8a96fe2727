//! The steps of a VM's life as rows: what KubeVirt writes, one API write after another, and where the EIP is after each.

use anyhow::{Context, Result};
use gateway_apiserver::Cluster;
use serde_json::json;

use super::vm::{Launcher, NOW, Vm};

/// What a write needs to know.
#[derive(Clone, Copy)]
pub(crate) struct Move<'a> {
    /// The API server.
    pub(crate) cluster: &'a Cluster,
    /// Whose life it is.
    pub(crate) vm: &'a Vm,
    /// Where the guest is when the migration begins.
    pub(crate) from: Launcher,
    /// Where it is to go.
    pub(crate) to: Launcher,
}

/// Where the EIP is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// Not served yet.
    Nowhere,
    /// At the source.
    From,
    /// At the target.
    To,
}

/// One write to the API.
pub(crate) type Write = fn(&Move<'_>) -> Result<()>;

/// A step of the replay: its name, its writes, and where the EIP is after each.
pub(crate) struct Step {
    /// As the table has it.
    pub(crate) name: &'static str,
    /// What is written, in order.
    pub(crate) writes: &'static [(Write, Served)],
}

use Served::{From, Nowhere, To};

/// The first pod starts, and the guest in it. The label on the pod comes after that on the VirtualMachineInstance.
pub(crate) const RUN: Step = Step {
    name: "run",
    writes: &[
        (|m| m.vm.create_pod(m.cluster, m.from), Nowhere),
        (|m| m.vm.pod_runs(m.cluster, m.from), Nowhere),
        (|m| placed(m, m.from, "Scheduled"), From),
        (|m| m.vm.pod_node_label(m.cluster, m.from), From),
        (|m| m.vm.status(m.cluster, &json!({"phase": "Running"})), From),
        (|m| m.vm.pod_ready(m.cluster, m.from, true), From),
    ],
};

/// The target pod comes and runs; there is no guest in it.
pub(crate) const MIG1: Step = Step {
    name: "mig 1",
    writes: &[
        (
            |m| {
                m.vm.create_migration(m.cluster, m.to)?;
                m.vm.migration_phase(m.cluster, m.to, "Pending")
            },
            From,
        ),
        (|m| m.vm.create_target(m.cluster, m.to, m.from), From),
        (|m| m.vm.migration_phase(m.cluster, m.to, "Scheduling"), From),
        (|m| m.vm.pod_runs(m.cluster, m.to), From),
        (|m| m.vm.migration_phase(m.cluster, m.to, "Scheduled"), From),
    ],
};

/// The hand-off: a fresh state in place of the last migration's, and the target's handler gets ready.
pub(crate) const MIG2: Step = Step {
    name: "mig 2",
    writes: &[
        (hand_off, From),
        (|m| m.vm.migration_phase(m.cluster, m.to, "PreparingTarget"), From),
        (
            |m| {
                let ports = json!({"49152": 0});
                let state =
                    json!({"targetNodeAddress": "172.18.0.22", "targetDirectMigrationNodePorts": ports});
                m.vm.migration(m.cluster, &state)
            },
            From,
        ),
        (|m| m.vm.migration_phase(m.cluster, m.to, "TargetReady"), From),
    ],
};

/// Memory is copied. That the target's domain is detected says only that it waits.
pub(crate) const MIG3: Step = Step {
    name: "mig 3",
    writes: &[
        (|m| m.vm.migration(m.cluster, &json!({"startTimestamp": NOW, "mode": "PreCopy"})), From),
        (|m| m.vm.migration_phase(m.cluster, m.to, "Running"), From),
        (|m| m.vm.migration(m.cluster, &json!({"targetNodeDomainDetected": true})), From),
    ],
};

/// The guest runs on the target; the annotation tells those who cannot read the VirtualMachineInstance.
pub(crate) const MIG4: Step = Step { name: "mig 4", writes: &[(domain_ready, To), (annotate_target, To)] };

/// As [`MIG4`] while memory is still being copied: the rest may take minutes.
pub(crate) const MIG4_POST_COPY: Step = Step {
    name: "mig 4, post-copy",
    writes: &[
        (
            |m| {
                m.vm.migration(m.cluster, &json!({"mode": "PostCopy"}))?;
                domain_ready(m)
            },
            To,
        ),
        (annotate_target, To),
    ],
};

/// The migration completes: the node's name follows in one write with the end, the rest later.
pub(crate) const MIG5: Step = Step {
    name: "mig 5",
    writes: &[
        (
            |m| {
                m.vm.migration(m.cluster, &json!({"endTimestamp": NOW}))?;
                placed(m, m.to, "Running")
            },
            To,
        ),
        (|m| m.vm.pod_ready(m.cluster, m.to, true), To),
        (|m| m.vm.pod_node_label(m.cluster, m.to), To),
        (|m| m.vm.migration(m.cluster, &json!({"completed": true})), To),
        (
            |m| {
                let off = json!({"metadata": {"labels": {"kubevirt.io/migrationTargetNodeName": null}}});
                m.vm.patch(m.cluster, &off)?;
                m.vm.migration_phase(m.cluster, m.to, "Succeeded")
            },
            To,
        ),
    ],
};

/// The source ends some time later; its object, address and annotation stay, until somebody deletes it.
pub(crate) const DONE: Step = Step {
    name: "done",
    writes: &[
        (|m| m.vm.pod_ends(m.cluster, m.from, "Succeeded"), To),
        (|m| m.vm.pod_is_gone(m.cluster, m.from), To),
    ],
};

/// The migration fails; the target ends, and is deleted.
pub(crate) const FAIL: Step = Step {
    name: "fail",
    writes: &[
        (
            |m| {
                let reason = "Live migration failed: the target pod is down";
                let state =
                    json!({"failed": true, "completed": true, "endTimestamp": NOW, "failureReason": reason});
                m.vm.migration(m.cluster, &state)
            },
            From,
        ),
        (|m| m.vm.migration_phase(m.cluster, m.to, "Failed"), From),
        (|m| m.vm.pod_ends(m.cluster, m.to, "Failed"), From),
        (|m| m.vm.pod_is_gone(m.cluster, m.to), From),
    ],
};

/// Writes what steps write, one after another.
pub(crate) fn take(at: &Move<'_>, steps: &[Step]) -> Result<()> {
    let write = |step: &Step| step.writes.iter().try_for_each(|(write, _)| write(at)).context(step.name);
    steps.iter().try_for_each(write)
}

/// The VirtualMachineInstance is on a node.
pub(crate) fn placed(m: &Move<'_>, at: Launcher, phase: &str) -> Result<()> {
    let node = at.node()?;
    m.vm.patch(
        m.cluster,
        &json!({
            "metadata": {"labels": {"kubevirt.io/nodeName": node}}, "status": {"phase": phase, "nodeName": node},
        }),
    )
}

/// The state of this migration in place of the last one's.
fn hand_off(m: &Move<'_>) -> Result<()> {
    let uid = m.vm.migration_uid(m.cluster, m.to)?;
    m.vm.status(m.cluster, &json!({ "migrationState": null }))?;
    m.vm.patch(
        m.cluster,
        &json!({
            "metadata": {"labels": {"kubevirt.io/migrationTargetNodeName": m.to.node()?}},
            "status": {"migrationState": {
                "migrationUid": uid, "sourceNode": m.from.node()?, "targetNode": m.to.node()?,
                "sourcePod": m.vm.pod(m.from), "targetPod": m.vm.pod(m.to),
            }},
        }),
    )
}

/// What says that the guest runs on the target.
pub(crate) fn domain_ready(m: &Move<'_>) -> Result<()> {
    m.vm.migration(m.cluster, &json!({ "targetNodeDomainReadyTimestamp": NOW }))
}

/// One reconcile later, on the pod, as Go prints a time.
pub(crate) fn annotate_target(m: &Move<'_>) -> Result<()> {
    let at = "2026-08-22 10:00:00.123456789 +0000 UTC";
    m.vm.pod_annotations(m.cluster, m.to, &json!({"kubevirt.io/migration-target-ready-timestamp": at}))
}
