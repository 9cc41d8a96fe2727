//! Nodes that go, come, start anew, or are gateways on paper only.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_apiserver::PodSpec;
use gateway_tests::scene::{
    EIP0, EIP1, EIP2, NODES, Pinging, agent, does_not_reach, eips, eventually, holds,
};
use serde_json::json;

use gateway_tests::cluster::Scene;

const CONFIG_MAP: [&str; 4] = ["configmap", "ovn-external-gw-config", "-n", "kube-system"];

#[test]
fn a_node_goes_and_comes_back() -> Result<()> {
    let scene = Scene::new("b5-")?;
    scene.annotate("pod1a", Some(EIP1))?;
    scene.annotate("pod2a", Some(EIP2))?;
    scene.works(EIP1)?;
    scene.works(EIP2)?;
    let pinging = Pinging::start(&scene.lab, "client", EIP1)?;
    let node = scene.cluster.get(&["node", "worker2"])?;
    let pod_cidr = node["spec"]["podCIDR"].as_str().context("a pod CIDR")?;

    // First the Node; its pods are there until somebody collects them.
    scene.cluster.delete(&["node", "worker2"])?;
    holds(&scene.lab, "gw1", &[EIP1])?;
    scene.event("pod2a", "EipWaiting", &["worker2", "is not known", EIP2])?;
    does_not_reach(&scene.lab, "client", EIP2)?;
    // A stranger does not get the EIP while the old pod is not gone, one of the same owner does.
    scene.cluster.create_pod(&PodSpec::of_lab("pod1b")?.eip(EIP2))?;
    scene.event("pod1b", "EipConflict", &["default/pod2a"])?;
    scene.of_web("pod2a")?;
    scene.of_web("pod1b")?;
    scene.works(EIP2)?;
    scene.cluster.delete_now(&["pod", "pod2a"])?;
    scene.cluster.delete_now(&["pod", "pod1b"])?;
    holds(&scene.lab, "gw1", &[EIP1])?;

    scene.cluster.create_node("worker2", [172, 18, 0, 22].into(), pod_cidr, &[])?;
    scene.cluster.create_pod(&PodSpec::of_lab("pod2a")?.eip(EIP2))?;
    scene.works(EIP2)?;
    holds(&scene.lab, "worker2", &[EIP2])?;
    pinging.none_lost().context("an EIP on another node")?;
    scene.agents_live()
}

#[test]
fn gateways_on_paper_disturb_nobody() -> Result<()> {
    let scene = Scene::new("b6-")?;
    scene.annotate("pod1a", Some(EIP1))?;
    scene.works(EIP1)?;
    scene.routed("pod1a", true)?;
    let pinging = Pinging::start(&scene.lab, "client", EIP1)?;
    let gateways =
        |names: &str| scene.cluster.patch(&CONFIG_MAP, &json!({ "data": { "external-gw-nodes": names } }));
    gateways("nowhere,gw1")?;
    scene.event(CONFIG_MAP[1], "ConfigWarning", &["nowhere", "does not exist"])?;
    // A second gateway, behind the one that serves: it holds what it would need, and nothing else happens.
    gateways("gw1,worker2")?;
    holds(&scene.lab, "worker2", &[EIP1])?;
    eventually(Duration::from_secs(3), "worker2 is labelled", || {
        let labels = scene.cluster.get(&["node", "worker2"])?["metadata"]["labels"].clone();
        Ok(labels["ovn.kubernetes.io/external-gw"] == "true")
    })?;
    scene.cluster.set_node_ready("worker2", false)?;
    scene.event(CONFIG_MAP[1], "ConfigWarning", &["worker2", "is not ready"])?;
    // And before it: it is not ready, so that the one that serves goes on.
    gateways("worker2,gw1")?;
    scene.cluster.annotate("default", "pod2a", &[("ovn.kubernetes.io/eip", Some(EIP2))])?;
    scene.works(EIP2)?;
    gateways("gw1")?;
    holds(&scene.lab, "worker2", &[EIP2])?;
    pinging.none_lost()?;
    scene.agents_live()
}

/// What a node's agent said of the tables it found.
fn adopted(scene: &mut Scene, node: &str) -> Result<String> {
    let log = scene.agent(node)?.stderr();
    let line = log.lines().find(|line| line.contains("adopted ")).context("what was adopted is logged")?;
    Ok(line.split_once("adopted ").map(|(_, what)| what.to_owned()).unwrap_or_default())
}

/// Everything an agent made is gone, as after a reboot: its pins, programs, links, routes, rules and files.
fn reboot(scene: &mut Scene, node: &'static str) -> Result<()> {
    scene.kill_agent(node);
    scene.lab.read(node, &[&*agent()?.display().to_string(), "teardown"])?;
    for dir in [scene.lab.pin_dir(node), scene.lab.status_dir(node)] {
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
        }
    }
    let rules = scene.lab.read(node, &["ip", "rule"])?;
    ensure!(!rules.contains("6081"), "{rules}");
    scene.start_agent(node)
}

#[test]
fn a_restart_writes_nothing_and_a_reboot_everything() -> Result<()> {
    let mut scene = Scene::new("b7-")?;
    scene.cluster.create_pod(&PodSpec::of_lab("pod0a")?.eip(EIP0))?;
    scene.annotate("pod1a", Some(EIP1))?;
    scene.annotate("pod2a", Some(EIP2))?;
    for (pod, eip) in [("pod0a", EIP0), ("pod1a", EIP1), ("pod2a", EIP2)] {
        scene.works(eip)?;
        scene.routed(pod, true)?;
    }
    let pinging = Pinging::start(&scene.lab, "client", EIP1)?;
    scene.restart_agents()?;
    for node in NODES {
        let adopted = adopted(&mut scene, node)?;
        let (rows, rest) = adopted.split_once(' ').context("a number")?;
        ensure!(rows.parse::<u32>()? > 0 && rest == "rows, 0 differences", "{node}: {adopted}");
    }
    pinging.none_lost()?;

    // Nodes start anew one after the other; the API is all they have.
    let others = Pinging::start(&scene.lab, "client", EIP2)?;
    reboot(&mut scene, "worker1")?;
    ensure!(adopted(&mut scene, "worker1")?.starts_with("0 rows"), "nothing was left");
    scene.works(EIP1)?;
    others.none_lost().context("EIPs of other nodes")?;
    reboot(&mut scene, "gw1")?;
    for eip in [EIP0, EIP1, EIP2] {
        scene.works(eip)?;
    }
    ensure!(eips(&scene.lab, "worker1")? == [EIP1]);
    for pod in ["pod0a", "pod1a", "pod2a"] {
        scene.routed(pod, true)?;
    }
    Ok(())
}
