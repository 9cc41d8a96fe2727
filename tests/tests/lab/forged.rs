//! Nobody forges: Geneve from an unknown node, or with an inner source that lives elsewhere, is dropped and counted.

use anyhow::{Result, ensure};
use gateway_common::addr::Mac;
use gateway_common::wire::geneve::PORT;
use gateway_lab::Lab;
use gateway_tests::packet::{Geneve, geneve, ip};

use crate::capture::Capture;
use crate::scene::{EIP0, eventually, metric, overview, reaches, scene, show, verdict};

const GATEWAY: [u8; 4] = [172, 18, 0, 11];

/// Sends Geneve with the given inner packet from `source` in a node's namespace, by an ordinary UDP socket.
pub(crate) fn send(lab: &Lab, node: &str, source: &str, tunnel: &Geneve, inner: &[u8]) -> Result<()> {
    send_to(lab, node, &format!("172.18.0.11:{PORT},bind={source}"), tunnel, inner)
}

/// The same to `to`, in socat's words.
fn send_to(lab: &Lab, from: &str, to: &str, tunnel: &Geneve, inner: &[u8]) -> Result<()> {
    // Behind Ethernet, IPv4 and UDP: what the socket is to send.
    let datagram = tunnel.carry(inner)[42..].to_vec();
    let escaped: String = datagram.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    let script = format!("printf '{escaped}' | socat -b65535 -u - UDP-SENDTO:{to}");
    lab.read(from, &["bash", "-c", &script]).map(drop)
}

pub(crate) fn vni(lab: &Lab) -> Result<u32> {
    let config = lab.read(
        "gw1",
        &["bpftool", "-j", "map", "dump", "pinned", &format!("{}/config", lab.pin_dir("gw1").display())],
    )?;
    let value: serde_json::Value = serde_json::from_str(&config)?;
    let vni = value[0]["formatted"]["value"]["vni"].as_u64();
    u32::try_from(vni.ok_or_else(|| anyhow::anyhow!("bpftool names the field vni: {config}"))?)
        .map_err(Into::into)
}

/// The lab's tunnel, for [`send`].
pub(crate) fn tunnel(lab: &Lab) -> Result<Geneve> {
    let nowhere = Mac([0; 6]);
    Ok(Geneve { vni: vni(lab)?, ..geneve((nowhere, nowhere), (GATEWAY, GATEWAY)) })
}

#[test]
fn unknown_node_and_foreign_source() -> Result<()> {
    let lab = scene("f1-", 9000)?;
    reaches(&lab, "client", "192.168.100.101", 1)?;
    let tunnel = tunnel(&lab)?;
    let inner = |source| ip(source, [192, 168, 100, 1]).udp(4000, 4001, b"forged");
    lab.read("worker2", &["ip", "addr", "add", "172.18.0.99/24", "dev", "eth0"])?;
    let external = Capture::start(&lab, "client", "eth0")?;

    send(&lab, "worker2", "172.18.0.99", &tunnel, &inner([10, 244, 1, 10]))?;
    ensure!(verdict(&lab, "gw1", "drop_unknown_vtep")? == 1, "{}", show(&lab, "gw1", "verdicts")?);

    // worker2 is known, pod1a does not live there.
    send(&lab, "worker2", "172.18.0.22", &tunnel, &inner([10, 244, 1, 10]))?;
    ensure!(verdict(&lab, "gw1", "drop_spoofed_source")? == 1, "{}", show(&lab, "gw1", "verdicts")?);

    // Nor does an address that is no EIP pod, wherever it comes from.
    send(&lab, "worker1", "172.18.0.21", &tunnel, &inner([10, 244, 1, 11]))?;
    ensure!(verdict(&lab, "gw1", "drop_spoofed_source")? == 2, "{}", show(&lab, "gw1", "verdicts")?);

    // The same packet from where the pod lives goes through: the drops were for the reasons named.
    send(&lab, "worker1", "172.18.0.21", &tunnel, &inner([10, 244, 1, 10]))?;
    let frames = external.stop()?.matching("udp.port == 4001 && !icmp")?;
    ensure!(
        frames.len() == 1 && frames[0].contains("192.168.100.101"),
        "one came out, by the EIP: {frames:?}"
    );
    Ok(())
}

/// Packets that a node's forward hook has dropped.
fn dropped(lab: &Lab, node: &str) -> Result<u64> {
    metric(lab, node, "eip_gateway_drop_tunnel_port_packets_total")
}

/// Plain UDP of pods to nodes: the CNI masquerades it to their node's address, a known tunnel's
/// end.
#[test]
fn pods_do_not_speak_as_their_node() -> Result<()> {
    let lab = scene("f2-", 9000)?;
    reaches(&lab, "client", "192.168.100.101", 1)?;
    let tunnel = tunnel(&lab)?;
    let out = ip([10, 244, 1, 10], [192, 168, 100, 1]).udp(4000, 4001, b"forged");
    let inwards = ip([198, 51, 100, 7], [10, 244, 1, 10]).udp(4000, 4001, b"forged");
    // A Service whose endpoint is a node.
    let service = "add rule ip kube services ip daddr 10.96.0.66 udp dport 53 dnat to 172.18.0.11:6081";
    lab.read("worker1", &["nft", service])?;
    let external = Capture::start(&lab, "client", "eth0")?;
    let pod = Capture::start(&lab, "pod1a", "eth0")?;
    let at = |node: &str| format!("{node}:{PORT}");
    let (gateway, worker) = (at("172.18.0.11"), at("172.18.0.21"));
    for (from, node, to, inner) in [
        ("pod1b", "worker1", &gateway, &out),
        ("pod1b", "worker1", &"10.96.0.66:53".to_owned(), &out),
        ("pod1a", "worker1", &gateway, &out),
        ("pod0a", "gw1", &worker, &inwards),
        ("pod2a", "worker2", &gateway, &out),
    ] {
        let before = dropped(&lab, node)?;
        send_to(&lab, from, to, &tunnel, inner)?;
        let counted = || Ok(dropped(&lab, node)? == before + 1);
        eventually(std::time::Duration::from_secs(2), &format!("{from} to {to} is counted"), counted)?;
    }
    // With an EIP on the gateway itself as well, and in fragments.
    lab.annotate("pod0a", Some(EIP0))?;
    reaches(&lab, "client", EIP0, 1)?;
    let before = dropped(&lab, "gw1")?;
    let long = ip([198, 51, 100, 7], [10, 244, 1, 10]).udp(4000, 4001, &[7; 12_000]);
    send_to(&lab, "pod0a", &worker, &tunnel, &long)?;
    eventually(std::time::Duration::from_secs(2), "fragments are counted as one", || {
        Ok(dropped(&lab, "gw1")? == before + 1)
    })?;
    let shown = overview(&lab, "gw1")?;
    ensure!(shown["firewall"]["drop_tunnel_port"]["packets"] == dropped(&lab, "gw1")?, "{shown}");
    let forged = "udp.port == 4001 && !icmp";
    let (outside, inside) = (external.stop()?.matching(forged)?, pod.stop()?.matching(forged)?);
    ensure!(outside.is_empty(), "forged packets left: {outside:?}");
    // What pod1a itself sent lies in its own UDP datagram.
    let arrived: Vec<_> = inside.iter().filter(|line| line.contains("198.51.100.7")).collect();
    ensure!(arrived.is_empty(), "forged packets arrived: {arrived:?}");
    Ok(())
}

#[test]
fn pods_do_not_speak_as_their_node_where_no_eip_was_ever_given() -> Result<()> {
    let lab = scene("f3-", 9000)?;
    lab.annotate("pod1a", None)?;
    crate::scene::holds(&lab, "gw1", &[])?;
    let tunnel = tunnel(&lab)?;
    let inner = ip([10, 244, 1, 10], [192, 168, 100, 1]).udp(4000, 4001, b"forged");
    for (from, node, to) in [("pod1b", "worker1", "172.18.0.11"), ("pod0a", "gw1", "172.18.0.22")] {
        let before = dropped(&lab, node)?;
        send_to(&lab, from, &format!("{to}:{PORT}"), &tunnel, &inner)?;
        eventually(std::time::Duration::from_secs(2), &format!("{from} to {to} is counted"), || {
            Ok(dropped(&lab, node)? == before + 1)
        })?;
    }
    Ok(())
}
