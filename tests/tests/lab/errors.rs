//! ICMP errors cross the translation: applications and tools on both sides see what they would see without it.

use anyhow::{Context, Result, ensure};
use gateway_lab::Lab;
use serde_json::Value;

use crate::capture::Capture;
use crate::scene::{CLIENT, EIP1, scene, verdict};

/// The router port.
const NIC_IP: &str = "192.168.100.254";
/// A host behind the client.
const OUTSIDE: &str = "203.0.113.10";
/// The worker towards its pod.
const CNI: &str = "10.244.1.1";

/// Sends a datagram to a closed port by a connected socket, and says what its application is told.
fn knock(lab: &Lab, from: &str, address: &str) -> Result<String> {
    let script = format!("echo anybody | socat -t2 -T2 - UDP:{address}:9");
    let output = lab.exec(from, &["sh", "-c", &script])?;
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The addresses `traceroute` saw, hop by hop; `*` for silence.
fn hops(lab: &Lab, from: &str, to: &str, how: &[&str]) -> Result<Vec<String>> {
    let words = [&["traceroute", "-n", "-q1", "-w1", "-m6", "-N1"], how, &[to]].concat();
    let text = lab.read(from, &words)?;
    let hop = |line: &str| line.split_whitespace().nth(1).map(ToOwned::to_owned);
    Ok(text.lines().skip(1).filter_map(hop).collect())
}

#[test]
fn a_closed_port_refuses() -> Result<()> {
    let lab = scene("d1-", 1500)?;
    let wire = Capture::start(&lab, "client", "eth0")?;
    for (from, to) in [("client", EIP1), ("outside", EIP1), ("pod1a", CLIENT), ("pod1a", OUTSIDE)] {
        let told = knock(&lab, from, to)?;
        ensure!(told.contains("Connection refused"), "{from} to {to}: {told}");
    }
    let wire = wire.stop()?;
    wire.are_well_formed("the external network")?;
    let leaks = wire.matching("ip.addr == 10.244.0.0/16")?;
    ensure!(leaks.is_empty(), "a pod's address is on the external network: {leaks:?}");
    Ok(())
}

#[test]
fn traceroute_shows_the_gateway_and_never_the_pod() -> Result<()> {
    let lab = scene("d2-", 1500)?;
    let wire = Capture::start(&lab, "client", "eth0")?;
    for how in [&[][..], &["-I"], &["-T", "-p", "80"]] {
        let inwards = hops(&lab, "client", EIP1, how)?;
        ensure!(inwards == [NIC_IP, NIC_IP, EIP1], "client to EIP, {how:?}: {inwards:?}");
        // The worker is a hop too, behind the gateway's address.
        let outwards = hops(&lab, "pod1a", CLIENT, how)?;
        ensure!(outwards == [CNI, NIC_IP, CLIENT], "pod to client, {how:?}: {outwards:?}");
        let far = hops(&lab, "pod1a", OUTSIDE, how)?;
        ensure!(far == [CNI, NIC_IP, CLIENT, OUTSIDE], "pod to a host far away, {how:?}: {far:?}");
    }
    ensure!(verdict(&lab, "gw1", "time_exceeded")? >= 9, "counted");
    let wire = wire.stop()?;
    wire.are_well_formed("the external network")?;
    let leaks = wire.matching("ip.addr == 10.244.0.0/16 || ip.addr == 172.18.0.0/24")?;
    ensure!(leaks.is_empty(), "an inner address is on the external network: {leaks:?}");
    Ok(())
}

/// The addresses `mtr` saw, hop by hop; `???` for silence.
fn mtr_hops(lab: &Lab, from: &str, to: &str, how: &[&str]) -> Result<Vec<String>> {
    let words = [&["mtr", "-n", "--json", "-c3", "-i0.2", "-G1", "-m6"], how, &[to]].concat();
    let all: Value = serde_json::from_str(&lab.read(from, &words)?)?;
    let hubs = all["report"]["hubs"].as_array().context("no hubs")?;
    Ok(hubs.iter().filter_map(|hub| hub["host"].as_str()).map(ToOwned::to_owned).collect())
}

#[test]
fn mtr_shows_the_same() -> Result<()> {
    let lab = scene("d9-", 1500)?;
    for how in [&[][..], &["--udp"], &["--tcp", "-P", "80"]] {
        for (from, to, expected) in [
            ("client", EIP1, &[NIC_IP, NIC_IP, EIP1][..]),
            ("pod1a", CLIENT, &[CNI, NIC_IP, CLIENT]),
            ("pod1a", OUTSIDE, &[CNI, NIC_IP, CLIENT, OUTSIDE]),
        ] {
            let hops = mtr_hops(&lab, from, to, how)?;
            ensure!(hops == expected, "{from} to {to}, {how:?}: {hops:?}");
        }
    }
    Ok(())
}

#[test]
fn tracepath_finds_the_path_mtu() -> Result<()> {
    let lab = scene("d3-", 1500)?;
    for (from, to) in [("client", EIP1), ("pod1a", CLIENT)] {
        let text = lab.read(from, &["tracepath", "-n", "-m", "8", to])?;
        ensure!(text.contains("Resume: pmtu 1450"), "{from} to {to}: {text}");
    }
    Ok(())
}
