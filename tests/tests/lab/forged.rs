//! Nobody forges: Geneve from an unknown node, or with an inner source that lives elsewhere, is dropped and counted.

use anyhow::{Result, ensure};
use gateway_common::addr::Mac;
use gateway_common::wire::geneve::PORT;
use gateway_lab::Lab;
use gateway_tests::packet::{Geneve, geneve, ip};

use crate::capture::Capture;
use crate::scene::{reaches, scene, show, verdict};

const GATEWAY: [u8; 4] = [172, 18, 0, 11];

/// Sends Geneve with the given inner packet from `source` in a node's namespace, by an ordinary UDP socket.
pub(crate) fn send(lab: &Lab, node: &str, source: &str, tunnel: &Geneve, inner: &[u8]) -> Result<()> {
    // Behind Ethernet, IPv4 and UDP: what the socket is to send.
    let datagram = tunnel.carry(inner)[42..].to_vec();
    let escaped: String = datagram.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    let script = format!("printf '{escaped}' | socat -u - UDP-SENDTO:172.18.0.11:{PORT},bind={source}");
    lab.read(node, &["bash", "-c", &script]).map(drop)
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
