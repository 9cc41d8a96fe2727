//! Rows of the promised behaviour, event by event, on the API server.

use std::time::Duration;

use anyhow::{Result, ensure};
use gateway_apiserver::PodSpec;
use gateway_tests::scene::{EIP1, NODES, does_not_reach, eips, eventually, holds, parse_ping, reaches};
use serde_json::json;

use gateway_tests::cluster::{ROUTED, Scene};

#[test]
fn set_change_and_remove() -> Result<()> {
    let scene = Scene::new("k1-")?;
    scene.annotate("pod1a", Some(EIP1))?;
    scene.works(EIP1)?;
    scene.routed("pod1a", true)?;
    scene.event("pod1a", "EipBound", &[EIP1, "worker1", "gw1"])?;
    // What a Kube-OVN user does next does no harm, and is undone by itself.
    scene.cluster.annotate("default", "pod1a", &[(ROUTED, None)])?;
    scene.routed("pod1a", true)?;
    reaches(&scene.lab, "client", EIP1, 3)?;

    scene.annotate("pod1a", Some("192.168.100.111"))?;
    scene.works("192.168.100.111")?;
    does_not_reach(&scene.lab, "client", EIP1)?;

    scene.annotate("pod1a", None)?;
    holds(&scene.lab, "gw1", &[])?;
    does_not_reach(&scene.lab, "client", "192.168.100.111")?;
    scene.routed("pod1a", false)?;
    scene.event("pod1a", "EipReleased", &["192.168.100.111"])?;
    scene.agents_live()
}

#[test]
fn refused_and_in_conflict() -> Result<()> {
    let scene = Scene::new("k2-")?;
    for (value, why) in [("not-an-address", "IPv4"), ("10.1.1.1", "outside"), ("192.168.100.254", "nic-ip")] {
        scene.annotate("pod2a", Some(value))?;
        scene.event("pod2a", "EipRefused", &[why])?;
        ensure!(eips(&scene.lab, "gw1")?.is_empty(), "{value} is not programmed");
    }
    scene.annotate("pod1a", Some(EIP1))?;
    scene.works(EIP1)?;
    scene.annotate("pod2a", Some(EIP1))?;
    scene.event("pod2a", "EipConflict", &["default/pod1a"])?;
    scene.cluster.delete_now(&["pod", "pod1a", "-n", "default"])?;
    holds(&scene.lab, "worker2", &[EIP1])?;
    scene.works(EIP1)?;
    scene.routed("pod2a", true)
}

#[test]
fn a_rolling_update_moves_the_eip() -> Result<()> {
    let scene = Scene::new("k3-")?;
    scene.of_web("pod1a")?;
    scene.annotate("pod1a", Some(EIP1))?;
    scene.works(EIP1)?;
    // The new pod comes with the annotation of its template, not ready at first.
    let mut new = PodSpec::of_lab("pod2b")?.eip(EIP1);
    new.ready = false;
    scene.cluster.create_pod(&new)?;
    scene.of_web("pod2b")?;
    std::thread::sleep(Duration::from_millis(500));
    ensure!(eips(&scene.lab, "worker1")? == [EIP1], "the old pod serves while the new one starts");
    new.ready = true;
    scene.cluster.report_pod(&new)?;
    scene.cluster.delete(&["pod", "pod1a", "-n", "default"])?;
    holds(&scene.lab, "worker2", &[EIP1])?;
    scene.works(EIP1)
}

#[test]
fn the_config_map_by_key() -> Result<()> {
    let mut scene = Scene::without_agents("k4-")?;
    for node in NODES {
        scene.spawn_agent(node)?;
    }
    scene.cluster.seed_lab()?;
    scene.cluster.create_pod(&PodSpec::of_lab("pod1a")?.eip(EIP1))?;
    eventually(Duration::from_secs(5), "agents that came first serve", || {
        Ok(eips(&scene.lab, "gw1")? == [EIP1])
    })?;
    eventually(Duration::from_secs(3), "the EIP answers", || {
        Ok(reaches(&scene.lab, "client", EIP1, 1).is_ok())
    })?;

    let config = ["configmap", "ovn-external-gw-config", "-n", "kube-system"];
    scene.cluster.patch(&config, &json!({"data": {"nic-ip": "192.168.200.254/24"}}))?;
    scene.event("ovn-external-gw-config", "ConfigRefused", &["192.168.200.254"])?;
    reaches(&scene.lab, "client", EIP1, 2)?;
    scene.cluster.patch(&config, &json!({"data": {"nic-ip": "192.168.100.253/24"}}))?;
    scene.works("192.168.100.253")?;
    scene.cluster.patch(&config, &json!({"data": {"enable-external-gw": "false"}}))?;
    eventually(Duration::from_secs(3), "the router port is gone", || {
        Ok(!scene.lab.read("gw1", &["ip", "link"])?.contains("eip-router"))
    })?;
    scene.cluster.patch(&config, &json!({"data": {"enable-external-gw": "true"}}))?;
    eventually(Duration::from_secs(3), "everything is back", || {
        Ok(reaches(&scene.lab, "client", EIP1, 1).is_ok())
    })
    .map_err(|error| anyhow::anyhow!("{error:#}\n{}", scene.logs()))?;
    scene.cluster.delete(&config)?;
    // It may be made again: 10 s of grace.
    eventually(Duration::from_secs(13), "withdrawn", || {
        Ok(!scene.lab.read("gw1", &["ip", "link"])?.contains("eip-router"))
    })?;
    scene.agents_live()
}

#[test]
fn traffic_flows_while_the_api_server_is_away() -> Result<()> {
    let mut scene = Scene::new("k5-")?;
    scene.annotate("pod1a", Some(EIP1))?;
    scene.works(EIP1)?;
    let mut pings = scene.lab.spawn("client", &["ping", "-n", "-i0.02", "-c400", EIP1])?;
    scene.cluster.stop_api_server()?;
    std::thread::sleep(Duration::from_secs(2));
    scene.cluster.start_api_server()?;
    pings.wait(Duration::from_secs(20))?;
    let pings = parse_ping(pings.stdout())?;
    ensure!(pings.received == 400, "{} of 400 pings lost: {}", 400 - pings.received, scene.logs());
    scene.agents_live()?;
    // And events come through again.
    scene.annotate("pod2a", Some("192.168.100.112"))?;
    eventually(Duration::from_secs(30), "watches are back", || Ok(eips(&scene.lab, "gw1")?.len() == 2))?;
    scene.restart_agents()?;
    reaches(&scene.lab, "client", EIP1, 3)?;
    Ok(())
}

#[test]
fn the_next_node_takes_over() -> Result<()> {
    let scene = Scene::new("k6-")?;
    scene.annotate("pod1a", Some(EIP1))?;
    scene.works(EIP1)?;
    let labels = scene.cluster.get(&["node", "gw1"])?;
    ensure!(
        labels["metadata"]["labels"]["ovn.kubernetes.io/external-gw"] == "true",
        "the gateway is labelled: {labels}"
    );
    // Nobody else has an external NIC here: what is shown is whom the nodes hold for the owner.
    scene.cluster.patch(
        &["configmap", "ovn-external-gw-config", "-n", "kube-system"],
        &json!({"data": {"external-gw-nodes": "gw1,worker2"}}),
    )?;
    scene.cluster.set_node_ready("gw1", false)?;
    let owner = || -> Result<String> {
        let pods = gateway_tests::scene::show(&scene.lab, "worker1", "pods")?;
        Ok(pods.to_string())
    };
    eventually(Duration::from_secs(3), "worker1 sends to worker2", || Ok(owner()?.contains("172.18.0.22")))?;
    scene.cluster.set_node_ready("gw1", true)?;
    eventually(
        Duration::from_secs(3),
        "worker1 sends to gw1 again",
        || Ok(owner()?.contains("172.18.0.11")),
    )?;
    scene.works(EIP1)
}
