//! The external side comes and goes, and moves to another NIC: nothing is poisoned, and nothing of
//! it stays behind.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_lab::Lab;

use crate::scene::{EIP1, eventually, overview, reaches, scene};

const FAR: &str = "203.0.113.10";

/// Names another external NIC in the ConfigMap.
fn name_nic(lab: &Lab, nic: &str) -> Result<()> {
    let file = crate::events::manifest(lab, "config")?;
    let text = std::fs::read_to_string(lab.manifests().join(&file))?;
    let line = text.lines().find(|line| line.contains("external-gw-nic:")).context("the key")?.to_owned();
    lab.write_manifest(&file, &text.replace(&line, &format!("  external-gw-nic: \"{nic}\"")))
}

/// `external-gw-nic` is mistyped for three seconds while a pod sends big packets that must not be
/// cut.
#[test]
fn a_mistyped_nic_leaves_path_mtus_alone() -> Result<()> {
    let lab = scene("x1-", 1500)?;
    reaches(&lab, "pod1a", FAR, 2)?;
    let mtu = || -> Result<String> {
        let route = lab.read("pod1a", &["ip", "route", "get", FAR])?;
        let words: Vec<_> = route.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "mtu");
        Ok(at.and_then(|at| words.get(at + 1)).map_or_else(String::new, |mtu| (*mtu).to_owned()))
    };
    let before = mtu()?;
    let pings = lab.spawn("pod1a", &["ping", "-n", "-i0.02", "-Mdo", "-s1300", FAR])?;
    std::thread::sleep(Duration::from_millis(300));
    name_nic(&lab, "enp8s1")?;
    eventually(Duration::from_secs(1), "the gateway says that it has no external side", || {
        let shown = overview(&lab, "gw1")?;
        Ok(shown["external"]["nic_ifindex"] == 0
            && shown["external"]["router_port_ifindex"] == 0
            && shown["role"] == "gateway, standby")
    })?;
    std::thread::sleep(Duration::from_secs(2));
    let problems = overview(&lab, "gw1")?["problems"].to_string();
    ensure!(problems.contains("gw1 has no interface \\\"enp8s1\\\"; no EIP is served"), "{problems}");
    name_nic(&lab, "enp8s0")?;
    eventually(Duration::from_secs(3), "the EIP is back", || Ok(reaches(&lab, "client", EIP1, 1).is_ok()))?;
    drop(pings);
    let after = mtu()?;
    ensure!(after == before, "the path MTU is {after:?} now, it was {before:?}");
    let big = lab.exec("pod1a", &["ping", "-n", "-c3", "-i0.2", "-W1", "-Mdo", "-s1300", FAR])?;
    ensure!(big.status.success(), "{}", String::from_utf8_lossy(&big.stdout));
    Ok(())
}

/// Programs on a NIC of the gateway: XDP and clsact. A tcx link has one pin for its hook, and is on
/// one NIC only.
fn programs_on(lab: &Lab, nic: &str) -> Result<String> {
    let hooks: serde_json::Value =
        serde_json::from_str(&lab.read("gw1", &["bpftool", "-j", "net", "show"])?)?;
    let mut found = String::new();
    for kind in ["xdp", "tc"] {
        let entries = hooks[0][kind].as_array().into_iter().flatten();
        entries.filter(|entry| entry["devname"] == nic).for_each(|entry| found += &format!("{entry} "));
    }
    for side in ["ingress", "egress"] {
        found += lab.read("gw1", &["tc", "filter", "show", "dev", nic, side])?.trim();
    }
    Ok(found)
}

#[test]
fn another_external_nic_leaves_nothing_on_the_old_one() -> Result<()> {
    let lab = scene("x2-", 1500)?;
    let switch = lab.netns("switch")?;
    let gateway =
        |words: &str| lab.read("gw1", &["ip"].into_iter().chain(words.split(' ')).collect::<Vec<_>>());
    gateway(&format!("link add ext2 type veth peer name gw1-ext2 netns {switch}"))?;
    gateway("link set ext2 up")?;
    lab.read("switch", &["ip", "link", "set", "gw1-ext2", "master", "ext", "up"])?;
    // A veth takes what XDP sends when its other end aggregates.
    lab.read("switch", &["ethtool", "-K", "gw1-ext2", "gro", "on"])?;
    lab.read("gw1", &["ethtool", "-K", "ext2", "tx", "off", "sg", "off", "tso", "off", "gso", "off"])?;
    ensure!(!programs_on(&lab, "enp8s0")?.is_empty(), "programs before");
    name_nic(&lab, "ext2")?;
    let moved = Duration::from_secs(10);
    eventually(moved, "programs on the new NIC", || Ok(!programs_on(&lab, "ext2")?.is_empty()))?;
    eventually(moved, "the EIP answers", || Ok(reaches(&lab, "client", EIP1, 1).is_ok()))?;
    let old = programs_on(&lab, "enp8s0")?;
    ensure!(old.is_empty(), "still on the old NIC: {old}");
    // The switch sends everybody's question to both: one answers.
    let asked = lab.exec("client", &["arping", "-c1", "-w1", "-I", "eth0", EIP1])?;
    let answers = String::from_utf8_lossy(&asked.stdout).matches("reply from").count();
    ensure!(answers <= 1, "{answers} answers");
    // While no agent runs, the ConfigMap names the old one again.
    lab.kill_agent("gw1", gateway_lab::Signal::SIGKILL)?;
    name_nic(&lab, "enp8s0")?;
    lab.start_agent("gw1")?;
    eventually(moved, "the EIP answers", || Ok(reaches(&lab, "client", EIP1, 1).is_ok()))?;
    let old = programs_on(&lab, "ext2")?;
    ensure!(old.is_empty(), "still on the NIC before: {old}");
    Ok(())
}

/// What somebody takes away comes back within seconds.
#[test]
fn programs_tables_and_rules_that_somebody_removed_come_back() -> Result<()> {
    let lab = scene("x3-", 1500)?;
    reaches(&lab, "client", EIP1, 1)?;
    let soon = Duration::from_secs(20);
    // Where there is no tcx, filters hang on clsact.
    let clsact = lab.exec("worker1", &["tc", "qdisc", "del", "dev", "eth0", "clsact"])?.status.success();
    if !clsact {
        std::fs::remove_file(lab.pin_dir("worker1").join("link_tc_underlay_egress"))?;
    }
    let out = || Ok(lab.exec("pod1a", &["ping", "-n", "-c1", "-W0.3", FAR])?.status.success());
    eventually(soon, "the filter at the underlay's egress is back", out)?;
    lab.read("worker1", &["nft", "flush", "ruleset"])?;
    eventually(soon, "the nftables table is back", || {
        Ok(lab.read("worker1", &["nft", "list", "tables"])?.contains("eip_gateway"))
    })?;
    let pins = lab.pin_dir("gw1");
    for pin in std::fs::read_dir(&pins)? {
        std::fs::remove_file(pin?.path())?;
    }
    // clsact has no pins: there the filters have gone on with the old tables.
    eventually(soon, "tables and links are pinned again", || {
        Ok(pins.join("eips").exists() && pins.join("link_xdp_underlay").exists())
    })?;
    eventually(soon, "the EIP is back", || Ok(reaches(&lab, "client", EIP1, 1).is_ok()))?;
    eventually(soon, "and shown", || Ok(crate::scene::eips(&lab, "gw1")? == [EIP1]))?;
    Ok(())
}
