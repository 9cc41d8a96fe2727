//! What a gateway refuses no other node serves: the label `eip-bound` says so, since only the gateway can ask.

use std::time::Duration;

use anyhow::{Result, ensure};
use gateway_tests::cluster::Scene;
use gateway_tests::scene::{EIP1, does_not_reach, eips, eventually, reaches};

const BOUND: &str = "ovn.kubernetes.io/eip-bound";
/// The DNS server of the external network, played by the client.
const SERVER: &str = "192.168.100.53";

fn labelled(scene: &Scene, pod: &str, value: &str) -> Result<()> {
    eventually(Duration::from_secs(5), &format!("the label of {pod} is {value:?}"), || {
        let object = scene.cluster.get(&["pod", pod, "-n", "default"])?;
        Ok(object["metadata"]["labels"][BOUND].as_str().unwrap_or_default() == value)
    })
}

/// Whether a node does anything about an EIP: sends the pod's packets to the gateway, or clients' packets to the pod.
fn serves(scene: &Scene, node: &str, pod_ip: &str, eip: &str) -> Result<bool> {
    let rules = scene.lab.read(node, &["ip", "rule"])?;
    let tables = scene.lab.read(node, &["nft", "list", "ruleset"])?;
    Ok(rules.contains(pod_ip) || tables.contains(eip))
}

#[test]
fn a_pod_that_takes_the_address_of_a_server_gets_nothing() -> Result<()> {
    let scene = Scene::new("kt1-")?;
    scene.lab.read("client", &["ip", "addr", "add", &format!("{SERVER}/32"), "dev", "eth0"])?;
    scene.annotate("pod1a", Some(SERVER))?;
    scene.event("pod1a", "EipRefused", &["192.168.100.53 is in use by MAC 02:00:c0:a8:64:01"])?;
    labelled(&scene, "pod1a", "false")?;
    ensure!(eips(&scene.lab, "gw1")?.is_empty(), "it is not programmed");
    eventually(Duration::from_secs(2), "worker1 leaves the pod alone", || {
        Ok(!serves(&scene, "worker1", "10.244.1.10", SERVER)?)
    })?;
    for node in ["gw1", "worker2"] {
        ensure!(!serves(&scene, node, "10.244.1.10", SERVER)?, "{node} does nothing");
    }
    reaches(&scene.lab, "pod1a", "10.244.2.10", 2)?;

    // Another address instead, and back: what was bound is bound no more.
    scene.annotate("pod1a", Some(EIP1))?;
    scene.works(EIP1)?;
    labelled(&scene, "pod1a", EIP1)?;
    scene.annotate("pod1a", Some(SERVER))?;
    labelled(&scene, "pod1a", "false")?;
    scene.routed("pod1a", false)?;
    does_not_reach(&scene.lab, "client", EIP1)?;

    // The server is gone: its address is as good as any.
    scene.lab.read("client", &["ip", "addr", "del", &format!("{SERVER}/32"), "dev", "eth0"])?;
    scene.annotate("pod1a", None)?;
    labelled(&scene, "pod1a", "")?;
    scene.annotate("pod1a", Some(SERVER))?;
    scene.works(SERVER)?;
    labelled(&scene, "pod1a", SERVER)?;
    eventually(Duration::from_secs(2), "clients on both workers go directly", || {
        Ok(serves(&scene, "worker1", "10.244.1.10", SERVER)? && serves(&scene, "worker2", "-", SERVER)?)
    })?;
    scene.agents_live()
}

#[test]
fn who_uses_an_eip_is_told_about_by_an_event() -> Result<()> {
    let scene = Scene::new("kt2-")?;
    scene.annotate("pod1a", Some(EIP1))?;
    scene.works(EIP1)?;
    scene.lab.read("client", &["ip", "addr", "add", &format!("{EIP1}/32"), "dev", "eth0"])?;
    scene.lab.exec("client", &["arping", "-q", "-U", "-c1", "-I", "eth0", "-s", EIP1, EIP1])?;
    scene.event("pod1a", "EipDefended", &[EIP1, "02:00:c0:a8:64:01"])
}
