//! Who may speak as whom: hosts outside, pods, and a host that comes back with another MAC.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use etherparse::Icmpv4Type;
use etherparse::icmpv4::DestUnreachableHeader;
use gateway_common::addr::Mac;
use gateway_tests::fixture::{CLIENT, EIP1 as EIP, NIC_MAC, OUTSIDE, POD1};
use gateway_tests::packet::{ip, ipv4_frame};

use crate::accounting::{TIMES, send_all};
use crate::capture::Capture;
use crate::scene::{EIP1, EIP2, Scene, eventually, ping, reaches, scene, verdict};

/// The MAC of an interface.
fn mac(lab: &Scene, host: &str, interface: &str) -> Result<Mac> {
    let links: serde_json::Value =
        serde_json::from_str(&lab.read(host, &["ip", "-j", "link", "show", interface])?)?;
    let mac = links[0]["address"].as_str().with_context(|| format!("{interface} of {host} has a MAC"))?;
    mac.parse().with_context(|| format!("{interface} of {host}"))
}

#[test]
fn an_outsider_is_no_insider() -> Result<()> {
    let lab = scene("u1-", 1500)?;
    lab.annotate("pod2a", Some(EIP2))?;
    eventually(Duration::from_secs(2), "both EIPs answer", || {
        Ok(reaches(&lab, "client", EIP1, 1).is_ok() && reaches(&lab, "client", EIP2, 1).is_ok())
    })?;
    let insiders = [
        [10, 244, 2, 10],
        [10, 244, 1, 11],
        [172, 18, 0, 22],
        [172, 18, 0, 11],
        [10, 96, 0, 10],
        [192, 168, 100, 102],
    ];
    let from = mac(&lab, "client", "eth0")?;
    let frame = |source| ipv4_frame(from, NIC_MAC, &ip(source, EIP).udp(4_000, 4_001, b"who goes there?"));
    let before = verdict(&lab, "gw1", "drop_inside_source")?;
    let pod = Capture::start(&lab, "pod1a", "eth0")?;
    send_all(&lab, "client", "eth0", insiders.map(frame).to_vec())?;
    send_all(&lab, "client", "eth0", vec![frame(OUTSIDE)])?;
    let dropped = verdict(&lab, "gw1", "drop_inside_source")? - before;
    let arrived = pod.stop()?.matching("udp.dstport == 4001 && !icmp")?;
    ensure!(dropped == TIMES * insiders.len() as u64, "{dropped} dropped; the pod got {arrived:?}");
    let outside = arrived.iter().filter(|line| line.contains("203.0.113.10")).count() as u64;
    ensure!(outside == TIMES && arrived.len() as u64 == TIMES, "only the outsider's arrive: {arrived:?}");
    Ok(())
}

/// What a pod says of packets to an EIP pod does not leave in the gateway's name.
#[test]
fn a_pod_reports_on_nobody() -> Result<()> {
    let lab = scene("u2-", 1500)?;
    reaches(&lab, "client", EIP1, 1)?;
    let unreachable = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Host);
    // As most nodes have one: the pod's packet has somewhere to go.
    lab.read("worker1", &["ip", "route", "add", "default", "via", "172.18.0.22"])?;
    // About a flow that the node's conntrack knows: kube-proxy drops errors about others.
    lab.read(
        "client",
        &["bash", "-c", "echo hello | socat -u - UDP-SENDTO:192.168.100.101:4243,sourceport=4242"],
    )?;
    let quote = ip(CLIENT, POD1).udp(4_242, 4_243, b"forged");
    let report = ip([10, 244, 1, 11], CLIENT).icmp(unreachable, &quote[..28]);
    let (from, to) = (mac(&lab, "pod1b", "eth0")?, mac(&lab, "worker1", "cni0")?);
    let outside = Capture::start(&lab, "client", "eth0")?;
    send_all(&lab, "pod1b", "eth0", vec![ipv4_frame(from, to, &report)])?;
    reaches(&lab, "client", EIP1, 2)?;
    let reports = outside.stop()?.matching("icmp.type == 3 && ip.src == 192.168.100.254")?;
    ensure!(reports.is_empty(), "the pod's errors leave as the gateway's: {reports:?}");
    Ok(())
}

/// A host whose NIC was replaced asks with its new MAC, and is answered there at once (RFC 826's merge).
#[test]
fn a_host_comes_back_with_another_mac() -> Result<()> {
    let lab = scene("u3-", 1500)?;
    reaches(&lab, "client", EIP1, 2)?;
    for (round, target) in [(1_u8, EIP1), (2, "192.168.100.254"), (3, EIP1)] {
        // The kernel believes no second MAC within a second of the first (`locktime`).
        std::thread::sleep(Duration::from_millis(1_200));
        let address = format!("02:00:00:00:07:{round:02x}");
        lab.read("client", &["ip", "link", "set", "eth0", "address", &address])?;
        lab.read("client", &["ip", "neigh", "flush", "all"])?;
        let since = Instant::now();
        // What asks first: the router port itself is never silent, but the pod's answers went to the old MAC.
        let _ = ping(&lab, "client", &["-c1", "-W0.3", target])?;
        eventually(Duration::from_secs(2), "the pod's answers reach the new MAC", || {
            Ok(reaches(&lab, "client", EIP1, 1).is_ok())
        })
        .with_context(|| format!("round {round}"))?;
        println!("round {round}: answered {:?} after the new MAC", since.elapsed());
    }
    Ok(())
}
