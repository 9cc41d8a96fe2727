//! The data path outlives the agents, and new agents take it over without losing a packet.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_lab::{Lab, Signal};

use crate::scene::{EIP1, NODES, does_not_reach, eventually, holds, parse_ping, reaches, scene};
use crate::transfer::Payload;

/// The programs at the hooks of a node, by id: what a replacement changes.
fn programs(lab: &Lab, node: &str) -> Result<String> {
    lab.read(node, &["bpftool", "-j", "net", "show"])
}

#[test]
fn kill_and_replace_every_agent_without_loss() -> Result<()> {
    let lab = scene("r1-", 9000)?;
    let mut pings = lab.spawn("client", &["ping", "-n", "-i0.01", "-c800", EIP1])?;
    let receive = "socat -d -d -u TCP-LISTEN:7000,reuseaddr - | sha256sum";
    let mut receiver = lab.spawn("pod1a", &["sh", "-c", receive])?;
    receiver.wait_for("listening on", Duration::from_secs(20))?;
    // 40 chunks over at least 6 seconds.
    let payload = Payload::new(40 * 4_000_000)?;
    let send = format!(
        "set -o pipefail; for i in $(seq 0 39); do dd if={} bs=4000000 skip=$i count=1 status=none; sleep 0.15; done \
         | socat -u - TCP:{EIP1}:7000",
        payload.file.display()
    );
    let mut sender = lab.spawn("client", &["bash", "-c", &send])?;
    std::thread::sleep(Duration::from_millis(500));
    for node in NODES {
        lab.kill_agent(node, Signal::SIGKILL)?;
    }
    std::thread::sleep(Duration::from_millis(500));
    let held: Vec<_> = NODES.iter().map(|node| programs(&lab, node)).collect::<Result<_>>()?;
    for (node, before) in NODES.iter().zip(&held) {
        lab.start_agent(node)?;
        ensure!(programs(&lab, node)? != *before, "{node}: the programs were replaced");
        let log = lab.agent_log(node)?;
        let adopted =
            log.lines().rfind(|line| line.contains("rows, ")).context("what was adopted is logged")?;
        ensure!(adopted.contains(", 0 differences"), "{node} wrote only differences: {adopted}");
        ensure!(!adopted.contains("adopted 0 rows"), "{node} adopted the tables: {adopted}");
    }
    ensure!(sender.wait(Duration::from_secs(30))?.success(), "the transfer ended well: {}", sender.stderr());
    receiver.wait(Duration::from_secs(10))?;
    ensure!(receiver.stdout() == payload.hash, "what arrived is not what was sent");
    pings.wait(Duration::from_secs(15))?;
    let pings = parse_ping(pings.stdout())?;
    ensure!(
        pings.sent == 800 && pings.received == 800,
        "{} of {} pings lost",
        pings.sent - pings.received,
        pings.sent
    );
    Ok(())
}

#[test]
fn what_changed_while_no_agent_ran_is_caught_up() -> Result<()> {
    let lab = scene("r2-", 9000)?;
    for node in NODES {
        lab.kill_agent(node, Signal::SIGKILL)?;
    }
    lab.annotate("pod1a", None)?;
    lab.annotate("pod2a", Some("192.168.100.107"))?;
    for node in NODES {
        lab.start_agent(node)?;
    }
    holds(&lab, "gw1", &["192.168.100.107"])?;
    reaches(&lab, "client", "192.168.100.107", 3)?;
    does_not_reach(&lab, "client", EIP1)
}

#[test]
fn teardown_leaves_nothing_and_start_brings_all_back() -> Result<()> {
    let lab = scene("r3-", 9000)?;
    let agent = lab.config().agent_binary.clone().context("a scene has an agent")?;
    let agent = agent.to_str().context("a UTF-8 path")?.to_owned();
    for node in NODES {
        lab.kill_agent(node, Signal::SIGTERM)?;
    }
    reaches(&lab, "client", EIP1, 2).context("an agent that ends leaves the data path")?;
    let managed = lab.read("gw1", &["ip", "neigh"])?;
    ensure!(managed.contains("managed"), "the kernel keeps the nodes' neighbours fresh: {managed}");
    for node in NODES {
        for _twice in 0..2 {
            lab.read(node, &[&agent, "teardown"])?;
        }
        let rules = lab.read(node, &["ip", "rule"])?;
        ensure!(!rules.contains("608"), "{node}: {rules}");
        let routes = lab.read(node, &["ip", "route", "show", "table", "all"])?;
        ensure!(!routes.contains("table 608"), "{node}: {routes}");
        let neighbors = lab.read(node, &["ip", "neigh"])?;
        ensure!(!neighbors.contains("managed"), "{node}: the kernel keeps neighbours fresh: {neighbors}");
        ensure!(!lab.status_dir(node).exists(), "{node}: its status is gone");
        ensure!(
            !lab.read(node, &["nft", "list", "tables"])?.contains("eip"),
            "{node}: our nftables table is gone"
        );
        ensure!(!lab.read(node, &["ip", "link"])?.contains("eip-router"), "{node}: the router port is gone");
        let hooks = programs(&lab, node)?;
        ensure!(!hooks.contains("xdp_") && !hooks.contains("tc_"), "{node}: {hooks}");
        let pins = lab.pin_dir(node);
        let left = std::fs::read_dir(&pins).map(Iterator::count).unwrap_or(0);
        ensure!(left == 0, "{left} pins left in {}", pins.display());
    }
    does_not_reach(&lab, "client", EIP1)?;
    for node in NODES {
        lab.start_agent(node)?;
    }
    eventually(Duration::from_secs(2), "the EIP is back", || Ok(reaches(&lab, "client", EIP1, 1).is_ok()))
}

#[test]
fn teardown_beside_an_agent_is_refused_and_undone_when_forced() -> Result<()> {
    let lab = scene("r4-", 9000)?;
    let agent = lab.config().agent_binary.clone().context("a scene has an agent")?;
    let agent = agent.to_str().context("a UTF-8 path")?;
    for node in NODES {
        let pid = lab.agent_pid(node).context("it runs")?;
        let refused = lab.exec(node, &[agent, "teardown"])?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(!refused.status.success() && said.contains(&format!("of node {node}, pid {pid}")), "{said}");
        ensure!(said.contains("--force"), "the remedy: {said}");
    }
    reaches(&lab, "client", EIP1, 3)?;
    for node in NODES {
        lab.read(node, &[agent, "teardown", "--force"])?;
    }
    // Some of it at once, since the kernel tells of links and rules; the rest when the agents look.
    for node in NODES {
        eventually(Duration::from_secs(15), &format!("{node} makes all anew, and says so"), || {
            Ok(lab.agent_log(node)?.contains("somebody removed what this agent had made")
                && lab.read(node, &["nft", "list", "tables"])?.contains("eip_gateway")
                && lab.pin_dir(node).join("eips").exists())
        })?;
    }
    eventually(Duration::from_secs(5), "the EIP is back", || {
        Ok(reaches(&lab, "client", EIP1, 1).is_ok() && reaches(&lab, "pod1a", "203.0.113.10", 1).is_ok())
    })?;
    Ok(())
}
