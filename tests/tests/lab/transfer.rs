//! Bulk data: 1 GiB each way arrives intact, on jumbo frames and at 1500, and every frame on the wires is well formed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_lab::{Lab, Signal};
use serde_json::Value;

use crate::capture::Capture;
use crate::scene::{CLIENT, EIP1, NODES, ping, reaches, scene, verdict, who_am_i};

pub(crate) const GIB: u64 = 1 << 30;

/// Random bytes in a file, deleted on drop.
pub(crate) struct Payload {
    pub(crate) file: PathBuf,
    /// As `sha256sum` prints it of its standard input.
    pub(crate) hash: String,
}

impl Payload {
    pub(crate) fn new(bytes: u64) -> Result<Self> {
        let file = std::env::temp_dir().join(format!("eip-gateway-{}-{bytes}.bin", std::process::id()));
        let path = file.to_str().context("a UTF-8 path")?;
        shell(&format!("head -c {bytes} /dev/urandom > {path}"))?;
        let hash = shell(&format!("sha256sum < {path}"))?;
        Ok(Self { file, hash })
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.file);
    }
}

fn shell(script: &str) -> Result<String> {
    let output = std::process::Command::new("sh").args(["-c", script]).output()?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Sends the file from one namespace to a listener in another, by TCP, and compares hashes.
pub(crate) fn carry(
    lab: &Lab,
    payload: &Payload,
    from: &str,
    to: &str,
    address: &str,
    port: u16,
) -> Result<()> {
    let receive = format!("socat -d -d -u TCP-LISTEN:{port},reuseaddr - | sha256sum");
    let mut receiver = lab.spawn(to, &["sh", "-c", &receive])?;
    receiver.wait_for("listening on", Duration::from_secs(20))?;
    let (source, target) =
        (format!("FILE:{}", payload.file.display()), format!("TCP:{address}:{port},connect-timeout=5"));
    lab.read(from, &["timeout", "120", "socat", "-u", &source, &target])
        .with_context(|| format!("{from} sends to {address}"))?;
    receiver.wait(Duration::from_secs(60))?;
    ensure!(receiver.stdout() == payload.hash, "{from} to {to}: what arrived is not what was sent");
    Ok(())
}

/// The external wire as the client sees it, and the underlay wire of worker1.
fn captures(lab: &Lab) -> Result<[Capture; 2]> {
    Ok([Capture::start(lab, "client", "eth0")?, Capture::start(lab, "switch", "worker1")?])
}

fn gibibyte_each_way(prefix: &str, mtu: u16) -> Result<()> {
    let lab = scene(prefix, mtu)?;
    let payload = Payload::new(GIB)?;
    let [external, underlay] = captures(&lab)?;
    carry(&lab, &payload, "client", "pod1a", EIP1, 7001)?;
    carry(&lab, &payload, "pod1a", "client", CLIENT, 7002)?;
    for (wire, capture) in [("the external network", external), ("the underlay", underlay)] {
        capture.stop()?.are_well_formed(wire)?;
    }
    ensure!(lab.invalid_drops("worker1")? == 0, "conntrack on worker1 called packets INVALID");
    for drop in ["drop_too_big", "drop_malformed", "drop_no_room"] {
        ensure!(verdict(&lab, "gw1", drop)? == 0, "{drop} on the gateway");
    }
    Ok(())
}

#[test]
fn a_gibibyte_each_way_on_jumbo_frames() -> Result<()> {
    gibibyte_each_way("t1-", 9000)
}

#[test]
fn a_gibibyte_each_way_at_1500() -> Result<()> {
    gibibyte_each_way("t2-", 1500)
}

#[test]
fn ping_udp_and_addresses() -> Result<()> {
    let lab = scene("t3-", 9000)?;
    let [external, underlay] = captures(&lab)?;
    // Two hops in, two hops out, the router port answers as OVN's does.
    ensure!(reaches(&lab, "client", EIP1, 20)?.ttl == Some(62), "TTL from the pod");
    ensure!(reaches(&lab, "pod1a", CLIENT, 5)?.ttl == Some(62), "TTL from the client");
    ensure!(reaches(&lab, "client", "192.168.100.254", 3)?.ttl == Some(254), "TTL of the router port");
    reaches(&lab, "pod1a", "203.0.113.10", 3)?;
    reaches(&lab, "outside", EIP1, 3)?;
    ensure!(who_am_i(&lab, "pod1a", "client", EIP1)? == CLIENT, "the pod sees the client's own address");
    ensure!(who_am_i(&lab, "client", "pod1a", CLIENT)? == EIP1, "the client sees the EIP");
    ensure!(who_am_i(&lab, "outside", "pod1a", "203.0.113.10")? == EIP1, "a host far away sees the EIP");
    let [external, underlay] = [external.stop()?, underlay.stop()?];
    external.are_well_formed("the external network")?;
    underlay.are_well_formed("the underlay")?;
    let leaks = external.matching("ip.addr == 10.244.0.0/16")?;
    ensure!(leaks.is_empty(), "a pod's address is on the external network: {leaks:?}");
    let bare = underlay.matching(&format!("ip.addr == {CLIENT} && !geneve"))?;
    ensure!(bare.is_empty(), "client traffic outside the tunnel: {bare:?}");
    ensure!(
        !underlay.matching(&format!("geneve && ip.addr == {CLIENT}"))?.is_empty(),
        "client traffic in the tunnel"
    );
    Ok(())
}

#[test]
fn udp_by_iperf3() -> Result<()> {
    let lab = scene("t4-", 1500)?;
    for reverse in [&[][..], &["-R"]] {
        let mut server = lab.spawn("pod1a", &["iperf3", "-s", "-1", "--forceflush"])?;
        server.wait_for("Server listening", Duration::from_secs(3))?;
        let words =
            [&["iperf3", "-c", EIP1, "-u", "-b", "50M", "-l", "1200", "-t", "3", "-J"], reverse].concat();
        let report: Value = serde_json::from_str(&lab.read("client", &words)?)?;
        let sum = &report["end"]["sum"];
        let (packets, lost) =
            (sum["packets"].as_u64().unwrap_or(0), sum["lost_packets"].as_u64().unwrap_or(u64::MAX));
        ensure!(packets > 10_000 && lost * 1000 <= packets, "{lost} of {packets} datagrams lost: {sum}");
    }
    Ok(())
}

#[test]
fn path_mtu_is_told_to_both_sides() -> Result<()> {
    let lab = scene("t5-", 1500)?;
    // 1472 + 28 = 1500 bytes: fits each wire, not the tunnel.
    let from_client = ping(&lab, "client", &["-c2", "-Mdo", "-s1472", EIP1])?;
    ensure!(
        from_client.received == 0 && from_client.output.contains("mtu = 1450")
            || from_client.output.contains("mtu=1450"),
        "{}",
        from_client.output
    );
    ensure!(verdict(&lab, "gw1", "fragmentation_needed")? >= 1, "counted");
    let from_pod = ping(&lab, "pod1a", &["-c2", "-Mdo", "-s1472", CLIENT])?;
    ensure!(from_pod.received == 0 && from_pod.output.contains("1450"), "{}", from_pod.output);
    // What fits goes through, unfragmented.
    for (from, to) in [("client", EIP1), ("pod1a", CLIENT)] {
        let pings = ping(&lab, from, &["-c2", "-Mdo", "-s1422", to])?;
        ensure!(pings.received == 2, "{}", pings.output);
    }
    Ok(())
}

/// Every node starts from nothing: no tables, no neighbours in any kernel, ours or theirs.
fn start_from_nothing(lab: &Lab) -> Result<()> {
    let agent = lab.config().agent_binary.clone().context("a scene has an agent")?;
    let agent = agent.to_str().context("a UTF-8 path")?;
    for node in NODES {
        lab.kill_agent(node, Signal::SIGTERM)?;
        lab.read(node, &[agent, "teardown"])?;
    }
    for name in ["client", "outside", "gw1", "worker1", "worker2", "pod1a"] {
        lab.read(name, &["ip", "neigh", "flush", "all"])?;
    }
    NODES.iter().try_for_each(|node| lab.start_agent(node))
}

#[test]
fn the_first_packet_arrives() -> Result<()> {
    let lab = scene("t6-", 9000)?;
    for (from, to) in [("client", EIP1), ("pod1a", CLIENT), ("outside", EIP1), ("pod1a", "203.0.113.10")] {
        let pings = ping(&lab, from, &["-c1", to])?;
        ensure!(pings.received == 1, "the first packet from {from} to {to}: {}", pings.output);
        start_from_nothing(&lab)?;
    }
    // The next hops go while the tables stay, and no agent is there to notice.
    for node in NODES {
        lab.kill_agent(node, Signal::SIGKILL)?;
    }
    let map = lab.pin_dir("gw1").join("neighbors").display().to_string();
    reaches(&lab, "client", EIP1, 1)?;
    let client = ["192", "168", "100", "1"];
    let _absent =
        lab.exec("gw1", &[&["bpftool", "map", "delete", "pinned", &map, "key"], &client[..]].concat())?;
    for name in ["gw1", "worker1"] {
        lab.read(name, &["ip", "neigh", "flush", "all"])?;
    }
    let twin = verdict(&lab, "gw1", "pass_unresolved")?;
    reaches(&lab, "client", EIP1, 1)?;
    ensure!(verdict(&lab, "gw1", "pass_unresolved")? > twin, "by way of the TC twin");
    Ok(())
}
