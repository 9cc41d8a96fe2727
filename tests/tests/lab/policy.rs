//! The worker's kernel stays in the path: conntrack sees both directions, and a policy on the worker holds.

use anyhow::{Result, ensure};

use crate::scene::{CLIENT, EIP1, does_not_reach, reaches, scene};

#[test]
fn conntrack_on_the_worker_sees_both_directions() -> Result<()> {
    let lab = scene("p1-", 9000)?;
    let mut server = lab.spawn("pod1a", &["socat", "-d", "-d", "TCP-LISTEN:7000,reuseaddr", "PIPE"])?;
    server.wait_for("listening on", std::time::Duration::from_secs(3))?;
    let connect = format!("(echo hello; sleep 3) | socat - TCP:{EIP1}:7000");
    let mut client = lab.spawn("client", &["sh", "-c", &connect])?;
    client.wait_for("hello", std::time::Duration::from_secs(3))?;
    let flows = lab.read("worker1", &["conntrack", "-L", "-p", "tcp", "--orig-src", CLIENT])?;
    ensure!(flows.contains("ESTABLISHED") && flows.contains("[ASSURED]"), "{flows}");
    ensure!(flows.contains("dst=10.244.1.10"), "the pod's own address, not a masquerade: {flows}");
    ensure!(lab.invalid_drops("worker1")? == 0, "nothing INVALID");
    Ok(())
}

#[test]
fn an_outgoing_flow_keeps_the_pods_address_on_the_worker() -> Result<()> {
    let lab = scene("p2-", 9000)?;
    let mut server = lab.spawn("client", &["socat", "-d", "-d", "TCP-LISTEN:7000,reuseaddr", "PIPE"])?;
    server.wait_for("listening on", std::time::Duration::from_secs(3))?;
    let mut pod =
        lab.spawn("pod1a", &["sh", "-c", &format!("(echo hello; sleep 3) | socat - TCP:{CLIENT}:7000")])?;
    pod.wait_for("hello", std::time::Duration::from_secs(3))?;
    let flows = lab.read("worker1", &["conntrack", "-L", "-p", "tcp", "--orig-src", "10.244.1.10"])?;
    ensure!(flows.contains("ESTABLISHED"), "{flows}");
    // The reply direction is to the pod itself: the CNI's masquerade did not touch it.
    ensure!(flows.matches("dst=10.244.1.10").count() == 1, "{flows}");
    Ok(())
}

#[test]
fn a_network_policy_on_the_worker_holds() -> Result<()> {
    let lab = scene("p3-", 9000)?;
    reaches(&lab, "client", EIP1, 2)?;
    let table = "add table ip tenant; add chain ip tenant forward { type filter hook forward priority -5; }; \
                 add rule ip tenant forward ip saddr 192.168.100.1 ip daddr 10.244.1.10 counter drop";
    lab.read("worker1", &["nft", table])?;
    does_not_reach(&lab, "client", EIP1)?;
    reaches(&lab, "outside", EIP1, 2)?;
    ensure!(
        !lab.read("worker1", &["nft", "list", "table", "ip", "tenant"])?.contains("packets 0 "),
        "the rule has dropped"
    );
    lab.read("worker1", &["nft", "delete table ip tenant"])?;
    reaches(&lab, "client", EIP1, 2)?;
    Ok(())
}
