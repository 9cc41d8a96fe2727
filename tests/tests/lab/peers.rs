//! The kernel's own geneve device in worker1's place: another implementation of RFC 8926 at the other end of the tunnel.
//! And what every such peer has to do.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_common::addr::Mac;
use gateway_lab::{Lab, Signal};

use crate::scene::{CLIENT, EIP1, eventually, reaches, scene, verdict, who_am_i};
use crate::transfer::{Payload, carry};

const WORKER: &str = "worker1";
const WORKER_VTEP: &str = "172.18.0.21";
const GATEWAY_VTEP: &str = "172.18.0.11";
const POD: &str = "10.244.1.10";
/// Bytes by TCP each way.
const TRANSFER: u64 = 4 << 20;

/// Loads a module of the kernel.
pub(crate) fn module(name: &str) -> Result<()> {
    let output = Command::new("modprobe").arg(name).output().context("starting modprobe")?;
    ensure!(output.status.success(), "no module {name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Ends the agent of a node and takes back all it did: somebody else is the node now.
pub(crate) fn retire(lab: &Lab, node: &str) -> Result<()> {
    let agent = lab.config().agent_binary.clone().context("a scene has an agent")?;
    lab.kill_agent(node, Signal::SIGTERM)?;
    lab.read(node, &[agent.to_str().context("a UTF-8 path")?, "teardown"])?;
    Ok(())
}

/// Pings and TCP both ways between the client and pod1a, by our gateway.
pub(crate) fn exchange(lab: &Lab) -> Result<()> {
    eventually(Duration::from_secs(5), "the peer forwards", || Ok(reaches(lab, "client", EIP1, 1).is_ok()))?;
    let (to_worker, to_external) = (verdict(lab, "gw1", "to_worker")?, verdict(lab, "gw1", "to_external")?);
    reaches(lab, "client", EIP1, 10)?;
    ensure!(verdict(lab, "gw1", "to_worker")? >= to_worker + 10, "through our gateway");
    ensure!(verdict(lab, "gw1", "to_external")? >= to_external + 10, "and back");
    reaches(lab, "pod1a", CLIENT, 3)?;
    ensure!(who_am_i(lab, "pod1a", "client", EIP1)? == CLIENT, "TCP in");
    ensure!(who_am_i(lab, "client", "pod1a", CLIENT)? == EIP1, "TCP out");
    for drop in ["drop_malformed", "drop_outer_checksum", "drop_critical_option"] {
        ensure!(verdict(lab, "gw1", drop)? == 0, "{drop} on the gateway");
    }
    Ok(())
}

/// Some MiB by TCP both ways, in full frames.
pub(crate) fn transfer(lab: &Lab) -> Result<()> {
    let payload = Payload::new(TRANSFER)?;
    carry(lab, &payload, "client", "pod1a", EIP1, 7001)?;
    carry(lab, &payload, "pod1a", "client", CLIENT, 7002)?;
    ensure!(verdict(lab, "gw1", "drop_outer_checksum")? == 0, "the kernel's outer checksums are right");
    Ok(())
}

/// Makes the geneve device of worker1 with the words `kind`, and routes what pod1a sends into it, by a route with the
/// words `encap`.
fn connect(lab: &Lab, kind: &str, encap: &str) -> Result<()> {
    let ip = |words: &str| lab.read(WORKER, &["ip"].into_iter().chain(words.split(' ')).collect::<Vec<_>>());
    ip(&format!("link add gnv0 address {} mtu 8950 type geneve {kind}", Mac::TUNNEL_WORKER))?;
    ip("link set gnv0 up")?;
    // The gateway answers no ARP inside the tunnel.
    ip(&format!("neigh add 169.254.1.1 lladdr {} dev gnv0 nud permanent", Mac::TUNNEL_GATEWAY))?;
    ip(&format!("rule add from {POD} lookup 100"))?;
    ip(&format!("route add default {encap}via 169.254.1.1 dev gnv0 onlink table 100"))?;
    // Else the CNI masquerades it.
    let nft = format!(
        "add table ip peer; add chain ip peer keep {{ type nat hook postrouting priority 99; }}; \
         add rule ip peer keep ip saddr {POD} snat to {POD}"
    );
    lab.read(WORKER, &["nft", &nft]).map(drop)
}

#[test]
#[ignore = "needs the kernel's module geneve: `cargo xtask test kernels`"]
fn geneve_device_stands_in_for_a_worker() -> Result<()> {
    module("geneve")?;
    let lab = scene("k1-", 9000)?;
    retire(&lab, WORKER)?;
    let vni = crate::forged::vni(&lab)?;
    connect(&lab, &format!("id {vni} remote {GATEWAY_VTEP} dstport 6081 udpcsum"), "")?;
    exchange(&lab)?;
    transfer(&lab)
}

#[test]
#[ignore = "needs the kernel's module geneve: `cargo xtask test kernels`"]
fn geneve_device_with_metadata_stands_in_for_a_worker() -> Result<()> {
    module("geneve")?;
    let lab = scene("k2-", 9000)?;
    retire(&lab, WORKER)?;
    let vni = crate::forged::vni(&lab)?;
    connect(
        &lab,
        "external dstport 6081",
        &format!("encap ip id {vni} src {WORKER_VTEP} dst {GATEWAY_VTEP} csum key "),
    )?;
    exchange(&lab)?;
    transfer(&lab)
}
