//! Wires and counters while packets pass.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use gateway_lab::{EIP, Lab};

use super::scene::Scene;
use crate::demo::{
    binding::forget,
    stage::Findings,
    traffic::{EIP_TTL, rally},
    view,
};

const PINGS: u32 = 5;
/// A ping of 56 bytes with its ICMP, IPv4 and Ethernet headers.
const PING_BYTES: u64 = 56 + 8 + 20 + 14;
/// The pause before the pings that the idle time must show.
const PAUSE: Duration = Duration::from_secs(1);

/// Packets and bytes of the EIP, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    in_packets: u64,
    in_bytes: u64,
    out_packets: u64,
    out_bytes: u64,
}

/// What the gateway has counted.
pub(crate) fn row(lab: &Lab) -> Result<Row> {
    read(lab).map(|(row, _)| row)
}

/// The same, and how many seconds ago the last packet was.
fn read(lab: &Lab) -> Result<(Row, f64)> {
    let json = view::json(lab, "eips")?;
    let eip = EIP.to_string();
    let mut rows = json["eips"].as_array().into_iter().flatten();
    let row = rows.find(|row| row["eip"] == eip).with_context(|| format!("no row of {EIP}: {json}"))?;
    let field = |name: &str| row[name].as_u64().with_context(|| format!("no {name}: {row}"));
    let counts = Row {
        in_packets: field("in_packets")?,
        in_bytes: field("in_bytes")?,
        out_packets: field("out_packets")?,
        out_bytes: field("out_bytes")?,
    };
    Ok((counts, row["idle_seconds"].as_f64().with_context(|| format!("no idle_seconds: {row}"))?))
}

pub(crate) fn counters(scene: &Scene) -> Result<Findings> {
    let lab = &scene.lab;
    let mut findings = view::wire(lab)?;
    thread::sleep(PAUSE);
    let idle = view::eip_table(lab)?;
    let (before, idle_before) = read(lab)?;
    rally(lab, "client", EIP, PINGS)?.expecting(EIP_TTL)?;
    let (after, idle_after) = read(lab)?;
    let packets = u64::from(PINGS);
    let bytes = packets * PING_BYTES;
    let wanted = Row {
        in_packets: before.in_packets + packets,
        in_bytes: before.in_bytes + bytes,
        out_packets: before.out_packets + packets,
        out_bytes: before.out_bytes + bytes,
    };
    ensure!(after == wanted, "{PINGS} pings took the counters from {before:?} to {after:?}");
    ensure!(
        idle_before >= PAUSE.as_secs_f64() && idle_after < idle_before,
        "idle for {idle_before:.1} s before the pings and {idle_after:.1} s after them"
    );
    findings.push(format!("idle for a second: gateway-agent show eips\n{idle}"));
    findings.push(format!(
        "{PINGS} pings later: {packets} packets and {bytes} bytes more each way, idle for {idle_after:.1} s\n{}",
        view::eip_table(lab)?
    ));
    findings.push(arp(lab)?);
    Ok(findings)
}

/// The client forgets the EIP's MAC address, and asks again.
fn arp(lab: &Lab) -> Result<String> {
    let before = arp_replies(lab)?;
    forget(lab)?;
    rally(lab, "client", EIP, 1)?;
    let after = arp_replies(lab)?;
    ensure!(after > before, "arp_reply stays at {before} though the client's ARP entry is deleted");
    Ok(format!("arp_reply from {before} to {after} after `ip neigh flush dev eth0` on the client and a ping"))
}

fn arp_replies(lab: &Lab) -> Result<u64> {
    let json = view::json(lab, "verdicts")?;
    let mut rows = json.as_array().into_iter().flatten();
    let row = rows.find(|row| row["reason"] == "arp_reply").context("no verdict arp_reply")?;
    row["packets"].as_u64().context("arp_reply has no packets")
}
