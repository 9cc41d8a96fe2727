//! A gibibyte each way by clamping alone, by path MTU discovery alone; and jumbo packets stay on the fast path.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_lab::Lab;

use crate::programs::Runs;
use crate::scene::{CLIENT, EIP1, eventually, overview, ping, reaches, scene, verdict, verdicts};
use crate::transfer::{GIB, Payload, carry};

/// Adds a line to the ConfigMap's data.
pub(crate) fn configure(lab: &Lab, line: &str) -> Result<()> {
    let file = crate::events::manifest(lab, "config")?;
    let text = std::fs::read_to_string(lab.manifests().join(&file))?;
    lab.write_manifest(&file, &text.replace("\ndata:\n", &format!("\ndata:\n  {line}\n")))
}

fn each_way(lab: &Lab) -> Result<()> {
    let payload = Payload::new(GIB)?;
    carry(lab, &payload, "client", "pod1a", EIP1, 7001)?;
    carry(lab, &payload, "pod1a", "client", CLIENT, 7002)?;
    for drop in ["drop_too_big", "drop_malformed", "drop_no_room", "drop_martian"] {
        ensure!(verdict(lab, "gw1", drop)? == 0, "{drop} on the gateway");
    }
    Ok(())
}

#[test]
fn clamping_alone_where_icmp_is_blocked() -> Result<()> {
    let lab = scene("t7-", 1500)?;
    let rules = "add table ip block; add chain ip block in { type filter hook input priority 0; }; \
                 add rule ip block in ip protocol icmp counter drop";
    lab.read("client", &["nft", rules])?;
    let told = ping(&lab, "client", &["-c1", EIP1])?;
    ensure!(told.received == 0, "ICMP is blocked: {}", told.output);
    each_way(&lab)?;
    let needed = verdict(&lab, "gw1", "fragmentation_needed")?;
    ensure!(needed == 0, "{needed} segments were too long in spite of the MSS");
    Ok(())
}

#[test]
fn path_mtu_discovery_alone_where_clamping_is_off() -> Result<()> {
    let lab = scene("t8-", 1500)?;
    configure(&lab, "mss-clamp: \"false\"")?;
    eventually(Duration::from_secs(2), "clamping is off", || {
        Ok(overview(&lab, "gw1")?["tunnel"]["mss_clamp"] == false)
    })?;
    each_way(&lab)?;
    let needed = verdict(&lab, "gw1", "fragmentation_needed")?;
    ensure!(needed > 0, "the client's segments were never too long: is the MSS clamped?");
    Ok(())
}

#[test]
fn jumbo_packets_stay_in_xdp() -> Result<()> {
    const PINGS: u64 = 20;
    let lab = scene("t9-", 9000)?;
    for (from, to) in [("client", EIP1), ("pod1a", CLIENT)] {
        reaches(&lab, from, to, 2)?;
    }
    let (before, runs) = (verdicts(&lab, "gw1")?, Runs::of(&lab, "gw1")?);
    // 8,872 + 28 = 8,900 bytes: the pod's MTU.
    for (from, to) in [("client", EIP1), ("pod1a", CLIENT)] {
        let pings = ping(&lab, from, &["-c", &PINGS.to_string(), "-i0.02", "-Mdo", "-s8872", to])?;
        ensure!(u64::from(pings.received) == PINGS, "{from} to {to}: {}", pings.output);
    }
    let payload = Payload::new(GIB / 8)?;
    carry(&lab, &payload, "client", "pod1a", EIP1, 7001)?;
    carry(&lab, &payload, "pod1a", "client", CLIENT, 7002)?;
    let (after, runs) = (verdicts(&lab, "gw1")?, Runs::of(&lab, "gw1")?.since(&runs));
    let more = |reason: &str| -> Result<u64> {
        let count =
            |rows: &std::collections::BTreeMap<String, u64>| rows.get(reason).copied().context("a verdict");
        Ok(count(&after)? - count(&before)?)
    };
    for twin in ["pass_to_twin", "pass_unresolved", "fragmentation_needed", "drop_too_big"] {
        ensure!(more(twin)? == 0, "{twin}: {}", more(twin)?);
    }
    let forwarded = more("to_worker")? + more("to_external")?;
    let xdp = runs.of_program("xdp_external") + runs.of_program("xdp_underlay");
    let twin = runs.of_program("tc_external") + runs.of_program("tc_underlay");
    println!("{forwarded} packets forwarded in {xdp} runs of XDP; {twin} runs of the twins");
    // What the twins see is what XDP leaves to the kernel: a few ARP frames.
    ensure!(forwarded >= 4 * PINGS && xdp - twin >= forwarded && twin < 50, "{runs:?}");
    // 128 MiB each way in fewer packets than there would be at 1500: these are jumbo frames.
    ensure!(more("to_worker")? < 40_000, "{} packets to the pod", more("to_worker")?);
    Ok(())
}
