//! A pod gains or loses its EIP while it sends: its flows go on in one of the two ways at once, and
//! its own address never leaves. The watch of every scene looks at the external link; here also the
//! other ways out of its node are looked at.

use std::time::Duration;

use anyhow::{Result, ensure};
use gateway_lab::Lab;

use crate::scene::{EIP0, EIP1, EIP2, eventually, holds, scene};
use crate::ways::{FAR, Flow, Way, other_nic, same_nic};

/// Pod, its node, its address and the EIP it gets.
const PODS: [(&str, &str, &str, &str); 2] =
    [("pod1a", "worker1", "10.244.1.10", EIP1), ("pod0a", "gw1", "10.244.0.10", EIP0)];
/// Packets that may be lost or go astray at a change: a quarter of a second.
const AT_ONCE: usize = 20;
/// Packets of a flow before and after a change.
const SOME: u32 = 80;

/// The tables of a node have the EIP of a pod, or not.
fn settled(lab: &Lab, node: &str, eip: &str, held: bool) -> Result<()> {
    eventually(Duration::from_secs(3), &format!("{node} holds {eip}: {held}"), || {
        Ok(crate::scene::eips(lab, node).unwrap_or_default().iter().any(|found| found == eip) == held)
    })
}

/// What makes the other way out.
type Make = fn(&Lab, &str) -> Result<Way>;

fn loses(prefix: &str, (pod, node, address, eip): (&str, &str, &str, &str), way: Make) -> Result<()> {
    let lab = scene(prefix, 1500)?;
    let here = way(&lab, node)?;
    lab.annotate(pod, Some(eip))?;
    settled(&lab, node, eip, true)?;
    eventually(Duration::from_secs(3), "a way out by the EIP", || {
        Ok(lab.exec(pod, &["ping", "-n", "-c1", "-W0.2", FAR])?.status.success())
    })?;
    let flow = Flow::start(&lab, (pod, node), (FAR, "outside"), &here)?;
    flow.goes_on(SOME)?;
    ensure!(!flow.arrived().is_empty(), "by the EIP");
    let last = flow.sent();
    lab.annotate(pod, None)?;
    flow.goes_on(2 * SOME)?;
    let sent = flow.sent() - last;
    let went = flow.end()?;
    went.not_by(address)?;
    let still = went.arrived.iter().filter(|number| **number > last).count();
    let other = went.other_way(&here)?;
    ensure!(other + still + AT_ONCE >= sent as usize, "{other} of {sent} go on, {still} by the EIP");
    ensure!(other > SOME as usize, "{other} of {sent} go on the other way");
    Ok(())
}

#[test]
fn a_worker_s_pod_loses_its_eip() -> Result<()> {
    loses("w1-", PODS[0], other_nic)?;
    loses("w1-", PODS[0], same_nic)
}

#[test]
fn a_gateway_s_pod_loses_its_eip() -> Result<()> {
    loses("w2-", PODS[1], other_nic)?;
    loses("w2-", PODS[1], same_nic)
}

fn gains(prefix: &str, (pod, node, address, eip): (&str, &str, &str, &str), way: Make) -> Result<()> {
    let lab = scene(prefix, 1500)?;
    let here = way(&lab, node)?;
    lab.annotate(pod, None)?;
    settled(&lab, node, eip, false)?;
    std::thread::sleep(Duration::from_millis(300));
    let flow = Flow::start(&lab, (pod, node), (FAR, "outside"), &here)?;
    flow.goes_on(SOME)?;
    ensure!(flow.arrived().is_empty(), "not by the gateway");
    let last = flow.sent();
    lab.annotate(pod, Some(eip))?;
    flow.goes_on(2 * SOME)?;
    let sent = flow.sent() - last;
    let went = flow.end()?;
    went.not_by(address)?;
    let other = went.other_way(&here)?.saturating_sub(last as usize);
    let arrived = went.arrived.iter().filter(|number| **number > last).count();
    ensure!(
        arrived + other + AT_ONCE >= sent as usize,
        "{arrived} of {sent} by the EIP, {other} the other way"
    );
    ensure!(arrived > SOME as usize, "{arrived} of {sent} go on by the EIP");
    Ok(())
}

#[test]
fn a_worker_s_pod_gains_an_eip() -> Result<()> {
    gains("w3-", PODS[0], other_nic)?;
    gains("w3-", PODS[0], same_nic)
}

#[test]
fn a_gateway_s_pod_gains_an_eip() -> Result<()> {
    gains("w4-", PODS[1], other_nic)?;
    gains("w4-", PODS[1], same_nic)
}

#[test]
fn the_gateway_is_disabled_under_running_flows() -> Result<()> {
    let lab = scene("w5-", 1500)?;
    let ways = [other_nic(&lab, "worker1")?, other_nic(&lab, "gw1")?];
    lab.annotate("pod0a", Some(EIP0))?;
    holds(&lab, "gw1", &[EIP1, EIP0])?;
    std::thread::sleep(Duration::from_millis(300));
    let file = crate::events::manifest(&lab, "config")?;
    let enabled = std::fs::read_to_string(lab.manifests().join(&file))?;
    let disabled = enabled.replace("enable-external-gw: \"true\"", "enable-external-gw: \"false\"");
    // One after the other: both would be received by the same socket.
    for ((pod, node, address, _), here) in PODS.into_iter().zip(&ways) {
        let flow = Flow::start(&lab, (pod, node), (FAR, "outside"), here)?;
        flow.goes_on(SOME)?;
        ensure!(!flow.arrived().is_empty(), "{pod}: by the EIP");
        let last = flow.sent();
        lab.write_manifest(&file, &disabled)?;
        flow.goes_on(3 * SOME)?;
        let sent = flow.sent() - last;
        let went = flow.end()?;
        went.not_by(address)?;
        let other = went.other_way(here)?;
        ensure!(other > 2 * SOME as usize, "{pod}: {other} of {sent} go on the other way");
        lab.write_manifest(&file, &enabled)?;
        eventually(Duration::from_secs(5), "all is back", || {
            let back = |pod: &str| -> Result<bool> {
                Ok(lab.exec(pod, &["ping", "-n", "-c1", "-W0.2", FAR])?.status.success())
            };
            Ok(back("pod1a")? && back("pod0a")?)
        })?;
    }
    Ok(())
}

#[test]
fn a_flow_to_an_address_that_becomes_an_eip_reaches_its_pod() -> Result<()> {
    let lab = scene("w6-", 1500)?;
    let way = other_nic(&lab, "worker1")?;
    let flow = Flow::start(&lab, ("pod1b", "worker1"), (EIP2, "pod2a"), &way)?;
    flow.goes_on(SOME)?;
    ensure!(flow.arrived().is_empty(), "nobody has it");
    lab.annotate("pod2a", Some(EIP2))?;
    holds(&lab, "gw1", &[EIP1, EIP2])?;
    flow.goes_on(SOME)?;
    let last = flow.sent();
    flow.goes_on(SOME)?;
    let went = flow.end()?;
    let arrived = went.arrived.iter().filter(|number| **number > last).count();
    ensure!(arrived + AT_ONCE >= SOME as usize, "{arrived} of {SOME} reach the pod");
    Ok(())
}

/// A link that goes takes the routes of our table along: an EIP pod's packets leave by no other
/// until they are back.
#[test]
fn a_route_that_somebody_removed_lets_nothing_out() -> Result<()> {
    for (prefix, (pod, node, address, eip), take) in [
        ("w7-", PODS[0], ["ip", "route", "del", "default", "table", "6081"].as_slice()),
        ("w8-", PODS[1], &["ip", "link", "del", "eip-router"]),
    ] {
        let lab = scene(prefix, 1500)?;
        let here = other_nic(&lab, node)?;
        lab.annotate(pod, Some(eip))?;
        let out = || Ok(lab.exec(pod, &["ping", "-n", "-c1", "-W0.2", FAR])?.status.success());
        eventually(Duration::from_secs(3), "a way out by the EIP", out)?;
        let flow = Flow::start(&lab, (pod, node), (FAR, "outside"), &here)?;
        for _ in 0..5 {
            flow.goes_on(SOME / 4)?;
            lab.read(node, take)?;
        }
        let went = flow.end()?;
        went.not_by(address)?;
        eventually(Duration::from_secs(3), "a way out again", out)?;
        ensure!(!went.arrived.is_empty(), "by the EIP before");
    }
    Ok(())
}
