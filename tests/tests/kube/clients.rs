//! Clients inside the cluster reach EIPs from everywhere, past the gateway, and are counted where they are.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_tests::scene::{EIP0, EIP1, eip_packets, eventually, metric, reaches, verdict, who_am_i};

use gateway_apiserver::PodSpec;
use gateway_tests::cluster::Scene;

const COUNTER: &str = "eip_gateway_cluster_dnat_packets_total";
const PINGS: u32 = 2;

/// Every client there is but the EIP's own pod, and its node.
const CLIENTS: [(&str, &str); 7] = [
    ("gw1", "gw1"),
    ("worker1", "worker1"),
    ("worker2", "worker2"),
    ("pod0a", "gw1"),
    ("pod1b", "worker1"),
    ("pod2a", "worker2"),
    ("pod2b", "worker2"),
];

/// All clients but the pods in `except` reach an EIP; the gateway has no part in it, and each node counts its own.
fn all_reach(scene: &Scene, eip: &str, except: &str) -> Result<()> {
    let lab = &scene.lab;
    let at_gateway = eip_packets(lab, "gw1", eip)?;
    for (client, node) in CLIENTS.into_iter().filter(|(client, _)| *client != except) {
        let before = metric(lab, node, COUNTER)?;
        reaches(lab, client, eip, PINGS)?;
        let counted = metric(lab, node, COUNTER)? - before;
        ensure!(counted == u64::from(PINGS), "{node} counts {counted} packets of {client}");
    }
    ensure!(eip_packets(lab, "gw1", eip)? == at_gateway, "the gateway saw nothing of it");
    Ok(())
}

/// The pod reaches itself by its EIP, on its own node.
fn reaches_itself(scene: &Scene, pod: &str, node: &str, eip: &str) -> Result<()> {
    let (turned, at_gateway) = (verdict(&scene.lab, node, "to_eip")?, eip_packets(&scene.lab, "gw1", eip)?);
    reaches(&scene.lab, pod, eip, PINGS)?;
    // Request and reply.
    let turned = verdict(&scene.lab, node, "to_eip")? - turned;
    ensure!(turned == u64::from(2 * PINGS), "{node} has turned {turned} packets round");
    ensure!(node == "gw1" || eip_packets(&scene.lab, "gw1", eip)? == at_gateway, "the gateway saw it");
    Ok(())
}

#[test]
fn every_node_and_pod_reaches_an_eip_without_the_gateway() -> Result<()> {
    let scene = Scene::new("b4-")?;
    let everywhere = |eip| {
        // Workers learn of an EIP elsewhere by the label that the gateway writes once it is bound.
        eventually(Duration::from_secs(5), &format!("all nodes know {eip}"), || {
            let reach = |node: &&str| reaches(&scene.lab, node, eip, 1).is_ok();
            Ok(["gw1", "worker1", "worker2"].iter().all(reach))
        })
    };
    scene.annotate("pod1a", Some(EIP1))?;
    scene.works(EIP1)?;
    everywhere(EIP1)?;
    all_reach(&scene, EIP1, "pod1a")?;
    reaches_itself(&scene, "pod1a", "worker1", EIP1)?;
    let seen = who_am_i(&scene.lab, "pod1a", "pod2b", EIP1)?;
    ensure!(seen == "10.244.2.11", "the pod sees its client's own address: {seen}");

    // A pod on the gateway itself.
    scene.cluster.create_pod(&PodSpec::of_lab("pod0a")?.eip(EIP0))?;
    scene.works(EIP0)?;
    everywhere(EIP0)?;
    all_reach(&scene, EIP0, "pod0a").context("an EIP on the gateway")?;
    reaches_itself(&scene, "pod0a", "gw1", EIP0)?;

    // Where the EIP goes, its clients go.
    scene.annotate("pod2a", Some(EIP1))?;
    scene.event("pod2a", "EipConflict", &["default/pod1a"])?;
    scene.annotate("pod1a", None)?;
    scene.works(EIP1)?;
    for client in ["pod1b", "worker1", "pod1a"] {
        eventually(Duration::from_secs(5), &format!("{client} follows"), || {
            Ok(who_am_i(&scene.lab, "pod2a", client, EIP1).is_ok())
        })?;
    }
    all_reach(&scene, EIP1, "pod2a")?;
    reaches_itself(&scene, "pod2a", "worker2", EIP1)
}
