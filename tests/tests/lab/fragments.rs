//! Packets too long for the next hop, DF clear: delivered, in fragments.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_lab::{EXTERNAL_NIC, Job, Lab, PRIMARY_NIC};
use gateway_tests::packet::{Ip, ip};
use serde_json::Value;

use crate::capture::Capture;
use crate::forged::{send, tunnel};
use crate::scene::{CLIENT, EIP0, EIP1, Scene, agent, eips, eventually, ping, reaches, scene, verdict};
use crate::transfer::{Payload, carry};

/// Bytes of a stream.
const STREAM: u64 = 50_000_000;

/// Pings with so many bytes, DF clear; ping compares what comes back with what it sent.
fn whole_again(lab: &Lab, from: &str, to: &str, size: u32) -> Result<()> {
    let pings = ping(lab, from, &["-c5", "-Mdont", "-s", &size.to_string(), to])?;
    let intact = pings.received == 5 && !pings.output.contains("wrong data");
    ensure!(intact, "{from} pings {to} with {size} bytes: {}", pings.output);
    Ok(())
}

/// A UDP server that writes down one datagram, however long.
fn listen(lab: &Lab, at: &str) -> Result<Job> {
    let mut server = lab.spawn(at, &["socat", "-d", "-d", "-b", "65536", "-u", "UDP-RECV:7004", "-"])?;
    server.wait_for("starting data transfer loop", Duration::from_secs(3))?;
    Ok(server)
}

fn has_received(server: &mut Job, sent: &str) -> Result<()> {
    let limit = Duration::from_secs(3);
    eventually(limit, "the datagram arrives", || Ok(server.stdout().len() >= sent.len()))?;
    ensure!(server.interrupt()? == sent, "what arrived is not what was sent");
    Ok(())
}

fn text(size: usize) -> String {
    ('a'..='z').cycle().take(size).collect()
}

/// Sends one datagram to pod1a with DF clear, and compares.
fn datagram(lab: &Lab, from: &str, size: usize) -> Result<()> {
    let (sent, mut server) = (text(size), listen(lab, "pod1a")?);
    let target = format!("UDP:{EIP1}:7004,ip-mtu-discover=0,shut-none");
    let script = format!("printf %s {sent} | socat -b 65536 -u - {target}");
    lab.read(from, &["timeout", "5", "sh", "-c", &script])?;
    has_received(&mut server, &sent)
}

fn nothing_was_too_big(lab: &Lab) -> Result<()> {
    ensure!(verdict(lab, "gw1", "drop_too_big")? == 0, "drop_too_big on the gateway");
    Ok(())
}

#[test]
fn a_full_packet_without_df_arrives_in_fragments() -> Result<()> {
    let lab = scene("y1-", 1500)?;
    let wires = [Capture::start(&lab, "client", "eth0")?, Capture::start(&lab, "switch", "worker1")?];
    whole_again(&lab, "client", EIP1, 1472)?;
    ensure!(verdict(&lab, "gw1", "fragmented")? == 5, "each was cut once");
    ensure!(verdict(&lab, "gw1", "to_worker")? >= 10, "and went on in two parts");
    whole_again(&lab, "pod1a", CLIENT, 1472)?;
    datagram(&lab, "client", 1472)?;
    // The client itself sends fragments, of which the first is too long again.
    whole_again(&lab, "client", EIP1, 4000)?;
    datagram(&lab, "client", 9000)?;
    nothing_was_too_big(&lab)?;
    for wire in wires {
        let wire = wire.stop()?;
        wire.are_well_formed("a wire")?;
        let alien = wire.matching("ip.addr == 10.244.0.0/16 && !geneve")?;
        ensure!(alien.is_empty(), "a pod's address outside the tunnel: {alien:?}");
    }
    Ok(())
}

/// Sets the MTU of a node's NIC, and waits until the agent there goes by it.
fn narrow(lab: &Lab, node: &str, nic: &str, what: &str, expected: u64) -> Result<()> {
    lab.read(node, &["ip", "link", "set", nic, "mtu", "1500"])?;
    let agent = agent()?;
    let agent = agent.to_str().context("a UTF-8 path")?;
    eventually(Duration::from_secs(2), &format!("the {what}'s MTU on {node} is {expected}"), || {
        let all: Value = serde_json::from_str(&lab.read(node, &[agent, "show", "-o", "json"])?)?;
        Ok(all[what]["mtu"].as_u64() == Some(expected))
    })
}

#[test]
fn a_jumbo_frame_without_df_crosses_a_narrow_underlay() -> Result<()> {
    let lab = scene("y2-", 9000)?;
    for node in ["gw1", "worker1"] {
        narrow(&lab, node, PRIMARY_NIC, "tunnel", 1450)?;
    }
    whole_again(&lab, "client", EIP1, 8900)?;
    ensure!(verdict(&lab, "gw1", "fragmented")? == 5, "each was cut once");
    ensure!(verdict(&lab, "gw1", "to_worker")? >= 35, "and went on in seven parts");
    datagram(&lab, "client", 8900)?;
    nothing_was_too_big(&lab)
}

#[test]
fn a_pods_jumbo_frame_without_df_crosses_a_narrow_external_network() -> Result<()> {
    let lab = scene("y3-", 9000)?;
    narrow(&lab, "gw1", EXTERNAL_NIC, "external", 1500)?;
    let (sent, mut server) = (text(7000), listen(&lab, "client")?);
    let inner = Ip { dont_fragment: false, ..ip([10, 244, 1, 10], [192, 168, 100, 1]) };
    // By a socket: a frame that a worker's TC has put into the tunnel comes over a veth as one that the kernel is still to
    // segment, and does not let itself be cut. No NIC gives such a one.
    send(&lab, "worker1", "172.18.0.21", &tunnel(&lab)?, &inner.udp(4000, 7004, sent.as_bytes()))?;
    has_received(&mut server, &sent)?;
    ensure!(verdict(&lab, "gw1", "fragmented")? == 1, "it was cut");
    nothing_was_too_big(&lab)
}

/// A scene in which pod0a, of the gateway, has [`EIP0`], and reaches [`EIP1`] over the programs as one does whose packets no NAT sees.
fn from_the_gateway(prefix: &str) -> Result<Scene> {
    let lab = scene(prefix, 1500)?;
    lab.annotate("pod0a", Some(EIP0))?;
    let both = || Ok(eips(&lab, "gw1")?.len() == 2);
    eventually(Duration::from_secs(20), "gw1 holds both EIPs", both)?;
    let rules = format!(
        "add table ip direct; add chain ip direct pre {{ type filter hook prerouting priority raw; }}; \
         add rule ip direct pre ip saddr 10.244.0.10 ip daddr {EIP1} notrack; \
         add rule ip direct pre ip saddr {EIP1} ip daddr 10.244.0.10 notrack"
    );
    lab.read("gw1", &["nft", &rules])?;
    eventually(
        Duration::from_secs(2),
        "pod0a reaches pod1a",
        || Ok(reaches(&lab, "pod0a", EIP1, 1).is_ok()),
    )?;
    Ok(lab)
}

#[test]
fn a_pod_of_the_gateway_sends_full_packets_without_df() -> Result<()> {
    let lab = from_the_gateway("y4-")?;
    let wire = Capture::start(&lab, "switch", "worker1")?;
    let cut = || verdict(&lab, "gw1", "fragmented");
    whole_again(&lab, "pod0a", EIP1, 1472)?;
    ensure!(cut()? == 5, "each was cut once, not {}", cut()?);
    // What it has fragmented itself: the first part is too long again.
    whole_again(&lab, "pod0a", EIP1, 2000)?;
    ensure!(cut()? == 10, "each was cut once, not {}", cut()?);
    datagram(&lab, "pod0a", 4000)?;
    ensure!(cut()? == 12, "two of its parts were cut, not {}", cut()? - 10);
    // Its kernel leaves the checksum of a whole one to a NIC.
    let offloads = lab.read("pod0a", &["ethtool", "-k", "eth0"])?;
    ensure!(offloads.contains("tx-checksumming: on"), "pods leave checksums to NICs: {offloads}");
    datagram(&lab, "pod0a", 1472)?;
    ensure!(cut()? == 13, "it was cut");
    nothing_was_too_big(&lab)?;
    wire.stop()?.are_well_formed("the underlay")
}

#[test]
fn a_checksum_left_to_a_nic_inside_a_pods_tunnel_is_not_broken() -> Result<()> {
    let lab = from_the_gateway("y5-")?;
    // Its answers come directly, and would be learned as where to send.
    for (pod, remote, own) in [("pod0a", EIP1, "10.9.9.1"), ("pod1a", EIP0, "10.9.9.2")] {
        let make = format!(
            "ip link add vx0 type vxlan id 7 remote {remote} dstport 4789 nolearning && ip link set vx0 mtu 1450 up && \
             ip addr add {own}/24 dev vx0"
        );
        lab.read(pod, &["sh", "-c", &make])?;
    }
    reaches(&lab, "pod0a", "10.9.9.2", 1)?;
    whole_again(&lab, "pod0a", "10.9.9.2", 1422)?;
    let cut = verdict(&lab, "gw1", "fragmented")?;
    ensure!(cut == 5, "each was cut once, not {cut}");
    nothing_was_too_big(&lab)?;
    let script =
        format!("printf %s {} | socat -u - UDP:10.9.9.2:7004,ip-mtu-discover=0,shut-none", text(1422));
    lab.read("pod0a", &["sh", "-c", &script])?;
    let refused = || Ok(verdict(&lab, "gw1", "drop_too_big")? == 1);
    eventually(Duration::from_secs(2), "what cannot be completed is dropped by name", refused)
}

#[test]
fn a_pod_of_the_gateway_sends_a_stream_by_clamping_alone() -> Result<()> {
    let lab = from_the_gateway("y6-")?;
    carry(&lab, &Payload::new(STREAM)?, "pod0a", "pod1a", EIP1, 7001)?;
    for reason in ["fragmentation_needed", "fragmented", "drop_too_big", "drop_no_room"] {
        let count = verdict(&lab, "gw1", reason)?;
        ensure!(count == 0, "{reason}: {count} segments were too long in spite of the MSS");
    }
    Ok(())
}
