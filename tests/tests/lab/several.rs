//! Several EIPs at once, EIPs from inside, and what an EIP must not change.

use anyhow::{Context, Result, ensure};
use gateway_lab::{Lab, LabConfig};

use crate::scene::{
    CLIENT, EIP0, EIP1, EIP2, NODES, Scene, does_not_reach, eventually, holds, parse_ping, ping, reaches,
    scene, verdict, verdicts, who_am_i,
};

/// EIPs on pods of worker1, worker2 and the gateway itself.
fn three(prefix: &str, mtu: u16) -> Result<Scene> {
    let lab = scene(prefix, mtu)?;
    lab.annotate("pod2a", Some(EIP2))?;
    lab.annotate("pod0a", Some(EIP0))?;
    holds(&lab, "gw1", &[EIP1, EIP2, EIP0])?;
    holds(&lab, "worker2", &[EIP2])?;
    // The gateway's own pod also needs its rule; it follows the tables within the same application.
    std::thread::sleep(std::time::Duration::from_millis(200));
    Ok(lab)
}

const PODS: [(&str, &str); 3] = [("pod1a", EIP1), ("pod2a", EIP2), ("pod0a", EIP0)];

#[test]
fn on_both_workers_and_the_gateway() -> Result<()> {
    let lab = three("s1-", 9000)?;
    for (pod, eip) in PODS {
        reaches(&lab, "client", eip, 3)?;
        reaches(&lab, "outside", eip, 2)?;
        reaches(&lab, pod, "203.0.113.10", 2)?;
        ensure!(who_am_i(&lab, pod, "client", eip)? == CLIENT, "{pod} sees the client");
        ensure!(who_am_i(&lab, "client", pod, CLIENT)? == eip, "the client sees {eip}");
    }
    Ok(())
}

/// Verdicts on the gateway that an in-cluster packet to an EIP would move if it made the detour.
const DETOUR: [&str; 6] = ["to_worker", "to_local_pod", "to_external", "to_eip", "arp_reply", "pass_to_twin"];

fn detours(lab: &Lab) -> Result<u64> {
    let verdicts = verdicts(lab, "gw1")?;
    Ok(DETOUR.iter().filter_map(|reason| verdicts.get(*reason)).sum())
}

/// Packets that clients on a node sent to EIPs directly.
fn in_cluster(lab: &Lab, node: &str) -> Result<u64> {
    let listed = lab.read(node, &["nft", "list", "counter", "ip", "eip_gateway", "in_cluster"])?;
    let packets = listed.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next());
    Ok(packets.with_context(|| format!("a counter: {listed}"))?.parse()?)
}

/// Pings and a TCP connection from a pod or node on `node`, which arrive as from `seen` and are counted there.
fn directly(lab: &Lab, node: &str, from: &str, (to, eip): (&str, &str), seen: &str) -> Result<()> {
    let before = in_cluster(lab, node)?;
    reaches(lab, from, eip, 3)?;
    let after = in_cluster(lab, node)?;
    ensure!(after == before + 3, "{from} to {to}: counted on {node}: {before} → {after}");
    let peer = who_am_i(lab, to, from, eip)?;
    ensure!(peer == seen, "{from} to {to} by {eip} is seen as {peer}, not {seen}");
    ensure!(in_cluster(lab, node)? > after, "{from} to {to}: TCP is counted too");
    Ok(())
}

/// A pod reaches itself by its EIP, turned round on its own node; it sees its EIP, or it could not answer.
fn itself(lab: &Lab, pod: &str, eip: &str) -> Result<()> {
    let node = gateway_lab::PODS.iter().find(|known| known.name == pod).context("a pod of the lab")?.node;
    let before = (verdict(lab, node, "to_eip")?, detours(lab)?, verdict(lab, node, "to_gateway")?);
    reaches(lab, pod, eip, 3)?;
    let peer = who_am_i(lab, pod, pod, eip)?;
    ensure!(peer == eip, "{pod} sees itself as {peer}, not {eip}");
    let turned = verdict(lab, node, "to_eip")? - before.0;
    ensure!(turned > 3, "{turned} packets turned round on {node}");
    ensure!(verdict(lab, node, "to_gateway")? == before.2, "nothing of it went to the gateway");
    // The gateway's own pod is turned round at the router port, which asks for the EIP and is no detour.
    ensure!(node == "gw1" || detours(lab)? == before.1, "{pod} went by the gateway");
    Ok(())
}

#[test]
fn inside_the_cluster_everybody_reaches_every_eip_without_a_detour() -> Result<()> {
    for (prefix, mtu) in [("s2-", 9000), ("s3-", 1500)] {
        let lab = three(prefix, mtu)?;
        let before = detours(&lab)?;
        for (to, eip) in PODS {
            for pod in gateway_lab::PODS.iter().filter(|pod| pod.name != to) {
                directly(&lab, pod.node, pod.name, (to, eip), &pod.ip.to_string())?;
            }
            for node in &gateway_lab::NODES {
                directly(&lab, node.name, node.name, (to, eip), &node.ip.to_string())?;
            }
        }
        ensure!(detours(&lab)? == before, "something went by the gateway: {:?}", verdicts(&lab, "gw1")?);
        for node in NODES {
            ensure!(lab.invalid_drops(node)? == 0, "conntrack on {node} called packets INVALID");
        }
        for (pod, eip) in PODS {
            itself(&lab, pod, eip)?;
        }
        // From outside, and from EIP pods outwards, nothing has changed.
        for (pod, eip) in PODS {
            reaches(&lab, "client", eip, 1)?;
            ensure!(who_am_i(&lab, "client", pod, CLIENT)? == eip, "the client sees {eip}");
        }
    }
    Ok(())
}

#[test]
fn inside_the_cluster_big_packets_and_streams_pass_directly() -> Result<()> {
    for (prefix, mtu) in [("s7-", 9000), ("s8-", 1500)] {
        let lab = three(prefix, mtu)?;
        let size = (lab.config().pod_mtu() - 28).to_string();
        // To itself a pod goes by its way to the gateway, as far as its node's NIC.
        let own_size = (mtu - 50 - 28).min(lab.config().pod_mtu() - 28).to_string();
        let before = detours(&lab)?;
        for (from, eip, size) in [
            ("pod1b", EIP2, &size),
            ("pod1b", EIP1, &size),
            ("worker1", EIP2, &size),
            ("gw1", EIP1, &size),
            ("pod1a", EIP1, &own_size),
        ] {
            let pings = ping(&lab, from, &["-c2", "-Mdo", "-s", size, eip])?;
            ensure!(pings.received == 2, "{from} to {eip} with {size} bytes: {}", pings.output);
        }
        for (from, to, eip) in
            [("pod1b", "pod2a", EIP2), ("worker2", "pod1a", EIP1), ("pod1a", "pod1a", EIP1)]
        {
            let mut receiver =
                lab.spawn(to, &["sh", "-c", "socat -d -d -u TCP-LISTEN:7001,reuseaddr - | wc -c"])?;
            receiver.wait_for("listening on", std::time::Duration::from_secs(3))?;
            let send = format!("head -c 20000000 /dev/zero | socat -u - TCP:{eip}:7001,connect-timeout=3");
            lab.read(from, &["sh", "-c", &send])?;
            receiver.wait(std::time::Duration::from_secs(20))?;
            ensure!(receiver.stdout().trim() == "20000000", "{from} to {to}: {}", receiver.stdout());
        }
        ensure!(detours(&lab)? == before, "something went by the gateway: {:?}", verdicts(&lab, "gw1")?);
        for node in NODES {
            ensure!(lab.invalid_drops(node)? == 0, "conntrack on {node} called packets INVALID");
        }
    }
    Ok(())
}

#[test]
fn what_is_no_eip_is_not_delivered_and_clients_follow_an_eip_that_moves() -> Result<()> {
    let lab = three("s9-", 9000)?;
    for from in ["pod1b", "worker1", "worker2"] {
        does_not_reach(&lab, from, "192.168.100.77")?;
    }
    // From outside too: the table takes internal sources only.
    let counted: Vec<_> = NODES.iter().map(|node| in_cluster(&lab, node)).collect::<Result<_>>()?;
    for (_, eip) in PODS {
        reaches(&lab, "client", eip, 2)?;
    }
    let now: Vec<_> = NODES.iter().map(|node| in_cluster(&lab, node)).collect::<Result<_>>()?;
    ensure!(now == counted, "{counted:?} → {now:?}");

    // Conntrack knows the connection of a client that goes on sending, and has to forget the pod.
    let mut lasting = ["worker2", "pod2b"]
        .map(|from| lab.spawn(from, &["ping", "-n", "-i0.1", "-w6", EIP1]))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    reaches(&lab, "worker2", EIP1, 2)?;
    lab.annotate("pod1a", None)?;
    lab.annotate("pod1b", Some(EIP1))?;
    eventually(std::time::Duration::from_secs(1), "every node knows the new pod", || {
        let listed = |node: &&str| lab.read(node, &["nft", "list", "map", "ip", "eip_gateway", "eips"]);
        Ok(NODES
            .iter()
            .map(listed)
            .collect::<Result<Vec<_>>>()?
            .iter()
            .all(|map| map.contains("10.244.1.11")))
    })?;
    for from in ["worker2", "pod1a", "pod2a", "gw1", "pod1b"] {
        reaches(&lab, from, EIP1, 2)?;
    }
    let old = |node: &str| lab.read(node, &["conntrack", "-L", "-d", EIP1, "--reply-src", "10.244.1.10"]);
    eventually(std::time::Duration::from_secs(1), "connections to the old pod are forgotten", || {
        Ok(old("worker2")?.is_empty() && old("gw1")?.is_empty())
    })?;
    for pings in &mut lasting {
        pings.wait(std::time::Duration::from_secs(8))?;
        let pings = parse_ping(pings.stdout())?;
        ensure!(pings.sent - pings.received < 10, "at most a second is lost on the way: {}", pings.output);
    }
    ensure!(who_am_i(&lab, "pod1b", "pod2b", EIP1)? == "10.244.2.11", "the new pod answers");
    lab.annotate("pod1b", None)?;
    holds(&lab, "gw1", &[EIP2, EIP0])?;
    std::thread::sleep(std::time::Duration::from_millis(200));
    for from in ["worker2", "pod2b", "gw1"] {
        does_not_reach(&lab, from, EIP1)?;
    }
    Ok(())
}

#[test]
fn the_cluster_is_reached_as_before() -> Result<()> {
    let lab = scene("s4-", 9000)?;
    let mut service = lab.spawn(
        "pod2b",
        &["socat", "-d", "-d", "TCP-LISTEN:8080,fork,reuseaddr", "SYSTEM:echo $SOCAT_PEERADDR"],
    )?;
    service.wait_for("listening on", std::time::Duration::from_secs(3))?;
    let before = verdict(&lab, "gw1", "to_external")? + verdict(&lab, "worker1", "to_gateway")?;
    for to in ["10.244.1.11", "10.244.2.10", "10.244.0.10", "172.18.0.11", "172.18.0.21", "172.18.0.22"] {
        reaches(&lab, "pod1a", to, 2)?;
    }
    let answer = lab.read("pod1a", &["socat", "-T3", "-", "TCP:10.96.0.10:80,connect-timeout=3"])?;
    ensure!(answer.trim() == "10.244.1.10", "by the Service, with its own address: {answer}");
    let after = verdict(&lab, "gw1", "to_external")? + verdict(&lab, "worker1", "to_gateway")?;
    ensure!(before == after, "nothing of it went by the gateway: {before} → {after}");
    ensure!(verdict(&lab, "worker1", "pass_internal")? > 0, "the exemption is counted");
    Ok(())
}

#[test]
fn a_pod_without_eip_is_untouched() -> Result<()> {
    let plain = Lab::up(&LabConfig { agents: false, ..LabConfig::ephemeral("s5-") })?;
    let main_tables = |lab: &Lab| -> Result<Vec<String>> {
        NODES.iter().map(|node| lab.read(node, &["ip", "-4", "route", "show", "table", "main"])).collect()
    };
    let before = main_tables(&plain)?;
    drop(plain);
    let lab = scene("s6-", 9000)?;
    ensure!(main_tables(&lab)? == before, "the main routing tables are as without us");
    for to in ["10.244.1.10", "10.244.2.10", "10.244.0.10", "172.18.0.11"] {
        reaches(&lab, "pod1b", to, 2)?;
    }
    // It had no way out before and has none now.
    does_not_reach(&lab, "pod1b", CLIENT)?;
    // The node's own ICMP errors (iif lo) have theirs; no pod's packet is led by those.
    let rules = lab.read("worker1", &["ip", "rule"])?;
    let pods = rules.lines().filter(|rule| rule.contains("lookup 6081") && !rule.contains("iif lo"));
    ensure!(pods.count() == 1, "one rule for pods: the EIP pod's: {rules}");
    Ok(())
}
