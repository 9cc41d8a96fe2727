//! What RBAC cannot say: of a pod or node that may be patched, the agents change their own label
//! and annotation only, and label only the nodes that the ConfigMap names.

use std::time::Duration;

use anyhow::{Result, ensure};
use gateway_apiserver::{Options, PodSpec};
use gateway_tests::scene::eventually;
use serde_json::json;

use crate::cluster::{ACCOUNTS, Deployed, NAMESPACE};

/// Patches an object as an account, `namespace:name`, on a node; `false` when a policy of ours
/// denied it.
pub(crate) fn patched(
    deployed: &Deployed,
    account: &str,
    node: &str,
    what: &[&str],
    patch: &str,
) -> Result<bool> {
    let user = format!("--as=system:serviceaccount:{account}");
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
    let accounts = ACCOUNTS.map(|account| format!("{NAMESPACE}:{account}"));
    let [gateway, worker] = accounts.each_ref().map(String::as_str);
    deployed.policies_in_force()?;
    let pod = ["pod", "pod1a"];
    for (patch, allowed) in [
        (r#"{"metadata":{"annotations":{"ovn.kubernetes.io/routed":"true"}}}"#, true),
        (r#"{"metadata":{"labels":{"ovn.kubernetes.io/eip-bound":"true"}}}"#, true),
        (r#"{"metadata":{"labels":{"eip.example.com/eip-bound":"true"}}}"#, true), // --annotation-prefix
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
    nodes_that_are_named(&deployed, gateway, worker)?;
    kubelets(&deployed)?;
    // Everybody else is as free as before.
    deployed.cluster.kubectl(&["label", "pod", "pod1a", "app=other", "--overwrite"])?;
    deployed.cluster.kubectl(&["cordon", "worker1"]).map(drop)
}

fn nodes_that_are_named(deployed: &Deployed, gateway: &str, worker: &str) -> Result<()> {
    let label = r#"{"metadata":{"labels":{"ovn.kubernetes.io/external-gw":"true"}}}"#;
    let unlabel = r#"{"metadata":{"labels":{"ovn.kubernetes.io/external-gw":null}}}"#;
    let no = r#"{"metadata":{"labels":{"ovn.kubernetes.io/external-gw":"no"}}}"#;
    let other = r#"{"metadata":{"labels":{"kubernetes.io/os":"plan9"}}}"#;
    let taint = r#"{"spec":{"taints":[{"key":"a","effect":"NoExecute"}]}}"#;
    let nodes = |rows: &[(&str, &str, &str, &str, bool)]| -> Result<()> {
        for (account, node, target, patch, allowed) in rows {
            let done = patched(deployed, account, node, &["node", target], patch)?;
            ensure!(done == *allowed, "{account} of {node} on node {target}: {patch}");
        }
        Ok(())
    };
    // The ConfigMap names gw1.
    nodes(&[
        (gateway, "gw1", "worker1", label, false),
        (worker, "worker2", "worker2", label, false),
        // It has it: nothing changes; but a worker touches no other node, not even to no effect.
        (worker, "worker1", "gw1", label, false),
        (worker, "gw1", "gw1", label, true),
        (gateway, "gw1", "gw1", unlabel, false),
        (gateway, "gw1", "gw1", no, false),
        (gateway, "gw1", "gw1", other, false),
        (gateway, "gw1", "gw1", r#"{"metadata":{"annotations":{"other":"x"}}}"#, false),
        (gateway, "gw1", "gw1", r#"{"spec":{"unschedulable":true}}"#, false),
        (worker, "gw1", "gw1", taint, false),
    ])?;
    let name = |names: Option<&str>| {
        let patch = json!({ "data": { "external-gw-nodes": names } });
        deployed.cluster.patch(&["configmap", "ovn-external-gw-config", "-n", NAMESPACE], &patch)?;
        // The API server hears of it as anybody does.
        std::thread::sleep(Duration::from_millis(500));
        anyhow::Ok(())
    };
    name(Some("gw1, worker2 ,worker1"))?;
    nodes(&[
        (worker, "worker1", "worker2", label, false),
        (worker, "worker2", "worker2", no, false),
        (worker, "worker2", "worker2", taint, false),
        (worker, "worker2", "worker2", label, true),
        (gateway, "gw1", "worker1", label, true),
    ])?;
    deployed.cluster.kubectl(&["label", "nodes", "worker1", "worker2", "ovn.kubernetes.io/external-gw-"])?;
    name(None)?;
    nodes(&[(worker, "worker2", "worker2", label, false), (gateway, "gw1", "worker1", label, false)])?;
    Ok(())
}

/// A kubelet heartbeats as ever, and does not make its node a gateway, by whatever prefix.
fn kubelets(deployed: &Deployed) -> Result<()> {
    let beat = r#"{"status":{"nodeInfo":{"kernelVersion":"6.18"}}}"#;
    let label = r#"{"metadata":{"labels":{"eip.example.com/external-gw":"true"}}}"#;
    let both =
        r#"{"metadata":{"labels":{"ovn.kubernetes.io/external-gw":"true"}},"status":{"phase":"Running"}}"#;
    // `kubectl patch` reads what it patches.
    deployed.cluster.kubectl(&["create", "clusterrole", "see", "--verb=get", "--resource=nodes/status"])?;
    let words = ["create", "clusterrolebinding", "see", "--clusterrole=see", "--group=system:nodes"];
    deployed.cluster.kubectl(&words)?;
    eventually(Duration::from_secs(10), "kubelets may read", || {
        let words = ["auth", "can-i", "get", "nodes", "--subresource=status"];
        let user = ["--as=system:node:worker1", "--as-group=system:nodes"];
        Ok(deployed.cluster.kubectl(&[&words[..], &user].concat()).is_ok())
    })?;
    for (node, subresource, patch, allowed) in [
        ("worker1", "status", beat, true),
        ("gw1", "status", beat, true),
        ("gw1", "", r#"{"metadata":{"annotations":{"volumes":"x"}}}"#, true),
        ("worker1", "", label, false),
        ("worker1", "status", both, false),
    ] {
        let user = format!("--as=system:node:{node}");
        let mut words = vec!["patch", "node", node, "--patch", patch, &user, "--as-group=system:nodes"];
        let subresource = format!("--subresource={subresource}");
        words.extend(Some(&*subresource).filter(|word| !word.ends_with('=')));
        match deployed.cluster.kubectl(&words).map_err(|error| format!("{error:#}")) {
            Ok(_) => ensure!(allowed, "{words:?}"),
            Err(text) => ensure!(!allowed && text.contains("'eip-gateway-kubelets'"), "{words:?}: {text}"),
        }
    }
    Ok(())
}
