//! The gateway is switched on, looked at, and answers.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use gateway_lab::{EXTERNAL_NIC, NIC_IP, NIC_MAC, manifest};

use super::scene::Scene;
use crate::demo::{
    binding::{answers, forget, until},
    stage::Findings,
    traffic::{NIC_IP_TTL, rally},
    view,
};

/// Lines of a terminal that nobody has made bigger or smaller.
const SCREEN: usize = 24;

pub(crate) fn apply(scene: &Scene) -> Result<Findings> {
    ensure!(!answers(&scene.lab, NIC_IP)?, "{NIC_IP} answers before there is a ConfigMap");
    let manifest = manifest::config_map();
    let answer = scene.cluster.apply(&manifest)?;
    let since = Instant::now();
    let found = || {
        // Or the client asks for it once a second only, since it has heard nothing the first time.
        forget(&scene.lab)?;
        answers(&scene.lab, NIC_IP)
    };
    let took = until(since, found).with_context(|| format!("{NIC_IP} is silent"))?;
    until(since, || Ok(scene.in_sync())).context("not every agent is in sync")?;
    Ok(vec![
        format!("kubectl apply -f - <<EOF\n{manifest}EOF\n{answer}"),
        format!("the gateway is on the external network {} ms after kubectl's answer", took.as_millis()),
    ])
}

pub(crate) fn overview(scene: &Scene) -> Result<Findings> {
    let text = view::show(&scene.lab, &[])?;
    let lines = text.lines().count();
    ensure!(lines <= SCREEN, "{lines} lines are more than a screen:\n{text}");
    for wanted in ["owner", "gw1", "192.168.100.0/24", &NIC_IP.to_string(), &NIC_MAC.to_string(), "Geneve"] {
        ensure!(text.contains(wanted), "it does not say {wanted}:\n{text}");
    }
    for peer in ["172.18.0.21", "172.18.0.22"] {
        ensure!(text.contains(peer), "it does not know the worker at {peer}:\n{text}");
    }
    Ok(vec![format!("{lines} lines: owner, router port, tunnel and the nodes it leads to\n{text}")])
}

pub(crate) fn nic_ip(scene: &Scene) -> Result<Findings> {
    let mut wire = view::capture(&scene.lab, "switch", "gw1-enp8s0", &[], "icmp")?;
    let pings = rally(&scene.lab, "client", NIC_IP, 5)?.expecting(NIC_IP_TTL)?;
    let seen = view::settled(&mut wire)?;
    let replies = seen.iter().filter(|line| line.contains("echo reply")).count();
    ensure!(replies == 5, "{replies} replies on the wire of {EXTERNAL_NIC}:\n{}", seen.join("\n"));
    let sample: Vec<_> = seen.iter().take(2).map(String::as_str).collect();
    Ok(vec![
        pings.to_string(),
        format!(
            "tcpdump at the switch's end of {EXTERNAL_NIC}'s wire (XDP answers before a tcpdump on gw1 would see it)\n{}",
            sample.join("\n")
        ),
    ])
}
