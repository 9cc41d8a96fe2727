//! The documented uninstall leaves nothing on any node or object.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_apiserver::{Options, PodSpec, User};
use gateway_tests::scene::{EIP1, NODES, agent, eventually, reaches};
use serde_json::Value;

use crate::capabilities;
use crate::cluster::{Deployed, NAMESPACE, deploy, texts};

/// Name of everything in the overlay.
const NAME: &str = "eip-gateway-uninstall";

/// The strings of an array.
fn words(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

/// What the DaemonSet's init container does on a node, with its capabilities and no more.
fn tear_down(deployed: &Deployed, node: &str) -> Result<String> {
    let set = deployed.cluster.get(&["daemonset", NAME, "-n", NAMESPACE])?;
    let container = &set["spec"]["template"]["spec"]["initContainers"][0];
    let capabilities: String = words(&container["securityContext"]["capabilities"]["add"])
        .iter()
        .map(|name| format!(",+{}", name.to_lowercase()))
        .collect();
    let bounding = format!("--bounding-set=-all{capabilities}");
    let agent = agent()?.display().to_string();
    let mut command = vec![
        "setpriv".to_owned(),
        bounding,
        "--inh-caps=-all".to_owned(),
        "--no-new-privs".to_owned(),
        agent,
    ];
    command.extend(words(&container["args"]));
    let output = deployed.lab.exec(node, &command)?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "{said}");
    Ok(said)
}

/// Nothing of ours is in a node's kernel or files.
fn is_clean(deployed: &Deployed, node: &str) -> Result<()> {
    for (words, ours) in [
        (&["nft", "list", "tables"][..], &["eip"][..]),
        (&["ip", "rule"], &["608"]),
        (&["ip", "route", "show", "table", "all"], &["table 608"]),
        (&["ip", "neigh"], &["managed", "161"]),
        (&["ip", "link"], &["eip-router", "xdp"]),
        (&["bpftool", "net", "show"], &["xdp_", "tc_"]),
        (&["conntrack", "-L", "-s", "10.244.1.10", "-d", "192.168.100.1"], &["10.244"]),
    ] {
        let held = deployed.lab.read(node, words)?;
        ensure!(!ours.iter().any(|word| held.contains(word)), "{node}: {held}");
    }
    let (pins, state) = (deployed.lab.pin_dir(node), deployed.lab.status_dir(node));
    ensure!(!pins.exists() && !state.exists(), "{} or {} is left", pins.display(), state.display());
    Ok(())
}

/// What the agents wrote to the objects.
fn written(deployed: &Deployed) -> Result<[bool; 3]> {
    let cluster = &deployed.cluster;
    let pod = cluster.get(&["pod", "pod1a"])?;
    let nodes = cluster.get(&["nodes"])?.to_string();
    let events = cluster.get(&["events.v1.events.k8s.io", "--all-namespaces"])?;
    Ok([
        pod["metadata"]["annotations"]["ovn.kubernetes.io/routed"] == "true"
            || pod["metadata"]["labels"]["ovn.kubernetes.io/eip-bound"].is_string(),
        nodes.contains("ovn.kubernetes.io/external-gw"),
        texts(&events, "/reportingController").iter().any(|name| name == "eip-gateway"),
    ])
}

#[test]
fn nothing_is_left_on_any_node_or_object() -> Result<()> {
    let deployed = Deployed::new("d9-", Options::default())?;
    let cluster = &deployed.cluster;
    cluster.create_pod(&PodSpec::of_lab("pod1a")?.eip(EIP1))?;
    let agents =
        NODES.map(|node| capabilities::start(&deployed, node)).into_iter().collect::<Result<Vec<_>>>()?;
    eventually(Duration::from_secs(20), "written to every kind of object", || {
        Ok(written(&deployed)? == [true; 3])
    })?;
    reaches(&deployed.lab, "client", EIP1, 2)?;
    reaches(&deployed.lab, "pod1a", "192.168.100.1", 2)?;

    cluster.kubectl(&["delete", "-k", &deploy("base")])?;
    let overlay = deploy("overlays/uninstall");
    cluster.kubectl(&["apply", "-k", &overlay])?;
    // An agent that has not ended yet is told of.
    let refused = tear_down(&deployed, "gw1").err().context("torn down beside an agent")?;
    ensure!(format!("{refused:#}").contains("an agent runs on this node (of node gw1, pid "), "{refused:#}");
    drop(agents);
    for node in NODES {
        let removed = tear_down(&deployed, node)?;
        ensure!(removed.contains("removed nftables table"), "{node}: {removed}");
        let again = tear_down(&deployed, node)?;
        ensure!(again.contains("nothing to remove"), "{node}: {again}");
        is_clean(&deployed, node)?;
    }

    let job = cluster.get(&["job", NAME, "-n", NAMESPACE])?;
    let args = words(&job["spec"]["template"]["spec"]["containers"][0]["args"]);
    let account = User::ServiceAccount { namespace: NAMESPACE, name: NAME };
    let kubeconfig = cluster.kubeconfig(account)?.display().to_string();
    let agent = agent()?.display().to_string();
    let command = [&[agent][..], &args[..], &["--kubeconfig".to_owned(), kubeconfig]].concat();
    let cleaned = deployed.lab.read("worker2", &command)?;
    ensure!(cleaned.contains("1 pods and 1 nodes"), "{cleaned}");
    ensure!(written(&deployed)? == [false; 3], "{:?}: {cleaned}", written(&deployed)?);
    let pod = cluster.get(&["pod", "pod1a"])?;
    ensure!(pod["metadata"]["annotations"]["ovn.kubernetes.io/eip"] == EIP1, "the user's own stays: {pod}");
    let again = deployed.lab.read("worker2", &command)?;
    ensure!(again.contains("0 pods and 0 nodes, and 0 Events"), "{again}");

    cluster.kubectl(&["delete", "-k", &overlay])?;
    let roles = cluster.kubectl(&[
        "get",
        "clusterroles,clusterrolebindings,validatingadmissionpolicies",
        "-o",
        "name",
    ])?;
    ensure!(!roles.contains("eip-gateway"), "{roles}");
    Ok(())
}
