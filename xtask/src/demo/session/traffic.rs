//! Into the VM, out of it, and from another node.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_lab::{CLIENT, EIP, EIP_POD, plan::Pod};

use super::{scene::Scene, watch};
use crate::demo::{
    stage::Findings,
    traffic::{EIP_TTL, rally},
    view,
};

/// What answers in the place of an sshd.
const BANNER: &str = "SSH-2.0-lab";

pub(crate) fn inwards(scene: &Scene) -> Result<Findings> {
    let pings = rally(&scene.lab, "client", EIP, 20)?.expecting(EIP_TTL)?;
    let answer = format!("SYSTEM:echo {BANNER} to $SOCAT_PEERADDR");
    let mut server = scene.lab.spawn(EIP_POD, &["socat", "-d", "-d", "TCP-LISTEN:22,reuseaddr", &answer])?;
    server.wait_for("listening on", Duration::from_secs(3))?;
    let target = format!("TCP:{EIP}:22,connect-timeout=3");
    let heard = scene.lab.read("client", &["timeout", "5", "socat", "-u", &target, "STDOUT"])?;
    let wanted = format!("{BANNER} to {CLIENT}");
    ensure!(heard.trim() == wanted, "port 22 should say {wanted:?} and says {heard:?}");
    Ok(vec![
        pings.to_string(),
        format!(
            "TCP port 22 of {EIP} says {:?}; in the place of the VM's sshd a socat in its pod says it",
            heard.trim()
        ),
    ])
}

pub(crate) fn outwards(scene: &Scene) -> Result<Findings> {
    let mut wire = view::capture(&scene.lab, "client", "eth0", &[], "icmp")?;
    // From 64 as from outside: the router port is one hop, the worker the other.
    let pings = rally(&scene.lab, EIP_POD, CLIENT, 5)?.expecting(EIP_TTL)?;
    let seen = view::settled(&mut wire)?;
    let requests = seen.iter().filter(|line| line.contains(&format!("{EIP} > {CLIENT}"))).count();
    ensure!(requests == 5, "{CLIENT} should see {EIP} ask 5 times:\n{}", seen.join("\n"));
    Ok(vec![format!("{pings}\n{CLIENT} sees {EIP}: {}", seen.first().map_or("", String::as_str))])
}

/// The detour that the operator finds inefficient, and we do not make.
pub(crate) fn from_another_node(scene: &Scene) -> Result<Findings> {
    let lab = &scene.lab;
    let pod = Pod::named(EIP_POD).context("the EIP's pod is one of the lab's")?.ip;
    let own = rally(lab, "worker2", pod, 20)?;
    let before = watch::row(lab)?;
    let mut gateway =
        view::capture(lab, "switch", "gw1", &[], &format!("icmp or host {EIP} or udp port 6081"))?;
    let mut worker = view::capture(lab, "switch", "worker1", &[], &format!("icmp and host {pod}"))?;
    let pings = rally(lab, "worker2", EIP, 20)?;
    let (gateway, worker) = (view::settled(&mut gateway)?, view::packets(&mut worker)?);
    let after = watch::row(lab)?;
    ensure!(gateway.is_empty(), "on the wire of gw1:\n{}", gateway.join("\n"));
    ensure!(before == after, "gw1 counted packets of {EIP}: {after:?} after {before:?}");
    ensure!(worker.len() == 40, "{} packets at worker1 for 20 pings and their answers", worker.len());
    Ok(vec![
        pings.to_string(),
        format!("by its own address: {own}"),
        format!(
            "not by way of the gateway: nothing on gw1's wire, its counters stand still; worker2 and worker1 speak \
             directly\n{}",
            worker.first().map_or("", String::as_str)
        ),
    ])
}
