//! What RBAC cannot say: of a pod or node that may be patched, the agents change their own label and annotation only.

use anyhow::{Result, ensure};
use gateway_apiserver::{Options, PodSpec};

use crate::cluster::{ACCOUNTS, Deployed, NAMESPACE};

/// Patches an object as an account on a node; `false` when a policy of ours denied it.
fn patched(deployed: &Deployed, account: &str, node: &str, what: &[&str], patch: &str) -> Result<bool> {
    let user = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
    let extra = format!("--as-user-extra=authentication.kubernetes.io/node-name={node}");
    let words = ["patch", "--type=strategic", "--patch", patch, &user, &extra];
    match deployed.cluster.kubectl(&[&words[..], what].concat()) {
        Ok(_) => Ok(true),
        Err(error) if format!("{error:#}").contains("ValidatingAdmissionPolicy 'eip-gateway-") => Ok(false),
        Err(error) => Err(error),
    }
}

#[test]
fn agents_change_only_what_is_theirs() -> Result<()> {
    let deployed = Deployed::new("d5-", Options::default())?;
    deployed.cluster.create_pod(&PodSpec::of_lab("pod1a")?.eip("192.168.100.101").label("app", "web"))?;
    let [gateway, worker] = ACCOUNTS;
    deployed.policies_in_force()?;
    let pod = ["pod", "pod1a"];
    for (patch, allowed) in [
        (r#"{"metadata":{"annotations":{"ovn.kubernetes.io/routed":"true"}}}"#, true),
        (r#"{"metadata":{"labels":{"ovn.kubernetes.io/eip-bound":"true"}}}"#, true),
        (r#"{"metadata":{"annotations":{"ovn.kubernetes.io/eip":"192.168.100.9"}}}"#, false),
        (r#"{"metadata":{"annotations":{"ovn.kubernetes.io/eip":null}}}"#, false),
        (r#"{"metadata":{"annotations":{"other":"x"}}}"#, false),
        (r#"{"metadata":{"labels":{"app":null}}}"#, false),
        (r#"{"metadata":{"labels":null}}"#, false),
        (r#"{"metadata":{"finalizers":["example.com/x"]}}"#, false),
        (r#"{"spec":{"containers":[{"name":"main","image":"evil"}]}}"#, false),
        (r#"{"spec":{"activeDeadlineSeconds":1}}"#, false),
        (
            r#"{"metadata":{"annotations":{"ovn.kubernetes.io/routed":null},"labels":{"ovn.kubernetes.io/eip-bound":null}}}"#,
            true,
        ),
    ] {
        ensure!(patched(&deployed, gateway, "gw1", &pod, patch)? == allowed, "pod: {patch}");
    }
    let label = r#"{"metadata":{"labels":{"ovn.kubernetes.io/external-gw":"true"}}}"#;
    for (account, node, target, patch, allowed) in [
        (gateway, "gw1", "worker1", label, true),
        (worker, "worker2", "worker2", label, true),
        (worker, "worker1", "gw1", label, true), // It has it: nothing changes, but see below.
        (
            gateway,
            "gw1",
            "worker1",
            r#"{"metadata":{"labels":{"ovn.kubernetes.io/external-gw":null}}}"#,
            false,
        ),
        (
            gateway,
            "gw1",
            "worker1",
            r#"{"metadata":{"labels":{"ovn.kubernetes.io/external-gw":"no"}}}"#,
            false,
        ),
        (gateway, "gw1", "worker1", r#"{"metadata":{"labels":{"kubernetes.io/os":"plan9"}}}"#, false),
        (gateway, "gw1", "gw1", r#"{"metadata":{"annotations":{"other":"x"}}}"#, false),
        (gateway, "gw1", "gw1", r#"{"spec":{"unschedulable":true}}"#, false),
        (worker, "worker1", "worker1", r#"{"spec":{"taints":[{"key":"a","effect":"NoExecute"}]}}"#, false),
    ] {
        // A worker touches no other node, not even to no effect.
        let allowed = allowed && (account == gateway || node == target);
        let done = patched(&deployed, account, node, &["node", target], patch)?;
        ensure!(done == allowed, "{account} of {node} on node {target}: {patch}");
    }
    // Everybody else is as free as before.
    deployed.cluster.kubectl(&["label", "pod", "pod1a", "app=other", "--overwrite"])?;
    deployed.cluster.kubectl(&["cordon", "worker1"]).map(drop)
}
