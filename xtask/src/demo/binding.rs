//! An EIP comes and goes with the annotation.

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use gateway_lab::{EIP, EIP_POD, Lab, NIC_IP, NIC_MAC};
use serde_json::Value;

use super::stage::{Findings, go_on};

/// What behaviour.md promises for a change of the annotation.
pub(crate) const PROMISE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn assign(lab: &Lab) -> Result<Findings> {
    ensure!(!answers(lab, EIP)?, "{EIP} answers before anybody has it");
    let since = Instant::now();
    lab.annotate(EIP_POD, Some(&EIP.to_string()))?;
    let took = until(since, || answers(lab, EIP)).with_context(|| format!("{EIP} does not answer"))?;
    ensure!(took <= PROMISE, "{EIP} answered only {} ms after the annotation", took.as_millis());
    Ok(vec![format!(
        "it answers {} ms after the annotation\nkubectl annotate pod {EIP_POD} ovn.kubernetes.io/eip={EIP} does the \
         same in a cluster",
        took.as_millis()
    )])
}

pub(crate) fn arp(lab: &Lab) -> Result<Findings> {
    [EIP, NIC_IP]
        .into_iter()
        .map(|address| {
            let address = address.to_string();
            forget(lab)?;
            lab.read("client", &["ping", "-c1", "-W1", &address])?;
            let json =
                lab.read("client", &["ip", "-json", "neigh", "show", "to", &address, "dev", "eth0"])?;
            let entries: Value = serde_json::from_str(&json)?;
            let mac = entries[0]["lladdr"].as_str().context("the client has no ARP entry")?;
            ensure!(
                mac == NIC_MAC.to_string(),
                "{address} is at {mac} instead of the router port's {NIC_MAC}"
            );
            Ok(format!("{address} is at {mac}"))
        })
        .collect()
}

pub(crate) fn withdraw(lab: &Lab) -> Result<Findings> {
    let since = Instant::now();
    lab.annotate(EIP_POD, None)?;
    let took = until(since, || Ok(!answers(lab, EIP)?)).with_context(|| format!("{EIP} still answers"))?;
    ensure!(took <= PROMISE, "{EIP} answered until {} ms after the annotation went", took.as_millis());
    nobody_has_it(lab)?;
    Ok(vec![
        format!("gone {} ms after the annotation; nobody answers ARP for it", took.as_millis()),
        format!("{EIP_POD} still reaches the other pods"),
    ])
}

/// Nobody answers ARP for the EIP, and its pod has the network it had before.
pub(crate) fn nobody_has_it(lab: &Lab) -> Result<()> {
    forget(lab)?;
    let arping = lab.exec("client", &["arping", "-c2", "-w1", "-I", "eth0", &EIP.to_string()])?;
    ensure!(!arping.status.success(), "something still answers ARP for {EIP}");
    lab.read(EIP_POD, &["ping", "-c1", "-W1", "10.244.2.10"])
        .map(drop)
        .context("the pod lost its ordinary network")
}

/// Whether an address answers the client now.
pub(crate) fn answers(lab: &Lab, address: Ipv4Addr) -> Result<bool> {
    let ping = lab.exec("client", &["ping", "-c1", "-W0.1", &address.to_string()])?;
    Ok(ping.status.success())
}

/// Empties the client's ARP cache.
pub(crate) fn forget(lab: &Lab) -> Result<()> {
    lab.read("client", &["ip", "neigh", "flush", "dev", "eth0"]).map(drop)
}

/// How long after `since` the condition held.
pub(crate) fn until(since: Instant, mut condition: impl FnMut() -> Result<bool>) -> Result<Duration> {
    loop {
        go_on()?;
        let now = since.elapsed();
        if condition()? {
            return Ok(now);
        }
        if now > PATIENCE {
            bail!("not within {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}
