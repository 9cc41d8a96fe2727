//! An address that somebody uses is no EIP, and one that is an EIP is defended (RFC 5227 sections 2.1.1 and 2.4).

use std::time::Duration;

use anyhow::{Result, ensure};
use gateway_lab::{Lab, Mac, NIC_MAC};

use crate::capture::Capture;
use crate::scene::{EIP1, EIP2, eips, eventually, holds, metric, overview, reaches, scene};

/// The DNS server of the external network, played by the client.
const SERVER: &str = "192.168.100.53";

/// Waits until the gateway lists a problem that has all of `words`, and returns it.
fn told(lab: &Lab, words: &[&str]) -> Result<String> {
    let mut found = String::new();
    eventually(Duration::from_secs(2), &format!("{words:?} is told"), || {
        let problems = overview(lab, "gw1")?["problems"].clone();
        let lines = problems.as_array().into_iter().flatten().map(ToString::to_string);
        found = lines.filter(|line| words.iter().all(|word| line.contains(word))).collect();
        Ok(!found.is_empty())
    })?;
    Ok(found)
}

fn own(lab: &Lab, action: &str, address: &str) -> Result<()> {
    lab.read("client", &["ip", "addr", action, &format!("{address}/32"), "dev", "eth0"]).map(drop)
}

/// The client's kernel forgets who has an address.
fn forget(lab: &Lab, address: &str) -> Result<()> {
    lab.exec("client", &["ip", "neigh", "del", address, "dev", "eth0"]).map(drop)
}

#[test]
fn an_address_that_answers_is_refused_and_taken_when_it_is_free() -> Result<()> {
    let lab = scene("tk1-", 1500)?;
    own(&lab, "add", SERVER)?;
    let mac = Mac::host("192.168.100.1".parse()?).to_string();
    let capture = Capture::arriving(&lab, "client", "eth0")?;
    lab.annotate("pod2a", Some(SERVER))?;
    told(&lab, &["refused", "pod default/pod2a", &format!("{SERVER} is in use by MAC {mac}")])?;
    ensure!(eips(&lab, "gw1")? == [EIP1], "it is not programmed");
    std::thread::sleep(Duration::from_millis(300));
    let frames = capture.stop()?;
    let ours = format!("arp.src.hw_mac == {NIC_MAC}");
    let claimed = frames.matching(&format!("{ours} && arp.src.proto_ipv4 == {SERVER}"))?;
    ensure!(claimed.is_empty(), "never announced nor answered: {claimed:?}");
    let probes = format!("{ours} && arp.src.proto_ipv4 == 0.0.0.0 && arp.dst.proto_ipv4 == {SERVER}");
    ensure!((1..=3).contains(&frames.matching(&probes)?.len()), "{:?}", frames.matching("arp")?);

    // The server is switched off, and the annotation written once more: at once.
    own(&lab, "del", SERVER)?;
    lab.annotate("pod2a", None)?;
    std::thread::sleep(Duration::from_millis(200));
    lab.annotate("pod2a", Some(SERVER))?;
    holds(&lab, "gw1", &[SERVER, EIP1])?;
    reaches(&lab, "client", SERVER, 2).map(drop)
}

#[test]
fn an_address_of_a_nic_of_the_gateway_is_refused() -> Result<()> {
    let lab = scene("tk2-", 1500)?;
    let sibling = ["ip", "link", "add", "mv0", "link", "enp8s0", "type", "macvlan", "mode", "bridge"];
    lab.read("gw1", &sibling)?;
    for (nic, address) in [("enp8s0", "192.168.100.11"), ("mv0", "192.168.100.12"), ("lo", "192.168.100.13")]
    {
        lab.read("gw1", &["ip", "addr", "add", &format!("{address}/32"), "dev", nic])?;
        lab.annotate("pod2a", Some(address))?;
        told(&lab, &["refused", "pod default/pod2a", address, nic])?;
        ensure!(eips(&lab, "gw1")? == [EIP1], "{address} is not programmed");
    }
    lab.annotate("pod2a", Some(EIP2))?;
    holds(&lab, "gw1", &[EIP1, EIP2])
}

#[test]
fn an_address_of_any_type_of_a_node_is_refused() -> Result<()> {
    let lab = scene("tk3-", 1500)?;
    let file = crate::events::manifest(&lab, "node-worker2")?;
    let node = std::fs::read_to_string(lab.manifests().join(&file))?;
    let external = "  addresses:\n    - type: ExternalIP\n      address: 192.168.100.22\n";
    lab.write_manifest(&file, &node.replace("  addresses:\n", external))?;
    std::thread::sleep(Duration::from_millis(300));
    lab.annotate("pod2a", Some("192.168.100.22"))?;
    told(&lab, &["refused", "pod default/pod2a", "192.168.100.22 is the address of node worker2"])?;
    ensure!(eips(&lab, "gw1")? == [EIP1], "it is not programmed");
    Ok(())
}

#[test]
fn an_eip_that_somebody_else_claims_is_defended_now_and_then() -> Result<()> {
    let lab = scene("tk4-", 1500)?;
    reaches(&lab, "client", EIP1, 1)?;
    std::thread::sleep(Duration::from_millis(2500));
    let capture = Capture::arriving(&lab, "client", "eth0")?;
    own(&lab, "add", EIP1)?;
    for _ in 0..3 {
        lab.exec("client", &["arping", "-q", "-U", "-c1", "-I", "eth0", "-s", EIP1, EIP1])?;
        std::thread::sleep(Duration::from_millis(200));
    }
    own(&lab, "del", EIP1)?;
    let mac = Mac::host("192.168.100.1".parse()?).to_string();
    let problem = told(&lab, &["contested", "pod default/pod1a", EIP1, &mac])?;
    let frames = capture.stop()?;
    let defended =
        format!("arp.isgratuitous == 1 && arp.src.hw_mac == {NIC_MAC} && arp.src.proto_ipv4 == {EIP1}");
    let times = frames.matching(&defended)?;
    ensure!(times.len() == 1, "defended once in ten seconds: {times:?}; {problem}");
    ensure!(metric(&lab, "gw1", "eip_gateway_arp_conflicts_total")? >= 3, "conflicts are counted");
    ensure!(eips(&lab, "gw1")? == [EIP1], "it is served on");
    forget(&lab, EIP1)?;
    reaches(&lab, "client", EIP1, 2).map(drop)
}

#[test]
fn without_carrier_nothing_is_decided() -> Result<()> {
    let lab = scene("tk5-", 1500)?;
    let port = |state| lab.read("switch", &["ip", "link", "set", "gw1-enp8s0", state]);
    port("down")?;
    std::thread::sleep(Duration::from_millis(300));
    own(&lab, "add", SERVER)?;
    lab.annotate("pod2a", Some(SERVER))?;
    told(&lab, &["pod default/pod2a", SERVER, "waits"])?;
    ensure!(eips(&lab, "gw1")? == [EIP1], "it is not programmed");
    port("up")?;
    told(&lab, &["refused", "pod default/pod2a", SERVER, "in use"])?;
    ensure!(eips(&lab, "gw1")? == [EIP1], "it is not programmed");
    Ok(())
}

#[test]
fn what_is_served_is_not_asked_for_again() -> Result<()> {
    let lab = scene("tk6-", 1500)?;
    let capture = Capture::arriving(&lab, "client", "eth0")?;
    // An agent that starts again, and an EIP that moves to another pod.
    lab.kill_agent("gw1", gateway_lab::Signal::SIGKILL)?;
    lab.start_agent("gw1")?;
    lab.annotate("pod2a", Some(EIP1))?;
    std::thread::sleep(Duration::from_millis(200));
    lab.annotate("pod1a", None)?;
    holds(&lab, "worker2", &[EIP1])?;
    reaches(&lab, "client", EIP1, 2)?;
    let probes = format!("arp.src.proto_ipv4 == 0.0.0.0 && arp.dst.proto_ipv4 == {EIP1}");
    let probes = capture.stop()?.matching(&probes)?;
    ensure!(probes.is_empty(), "{probes:?}");
    Ok(())
}
