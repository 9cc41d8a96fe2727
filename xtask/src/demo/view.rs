//! What an operator can look at: the wire, the agent's tables, the pinned map.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use gateway_lab::{CLIENT, EIP, Job, Lab};
use serde_json::Value;

use super::stage::Findings;

const PINGS: usize = 5;

pub(crate) fn wire(lab: &Lab) -> Result<Findings> {
    let ours = format!("host {CLIENT} or host {EIP}");
    let tunnel = "udp port 6081";
    let mut nic = capture(lab, "worker1", "eth0", &["-Q", "out"], tunnel)?;
    let mut geneve = capture(lab, "switch", "worker1", &[], tunnel)?;
    let mut bare = capture(lab, "switch", "worker1", &[], &ours)?;
    let mut elsewhere = capture(lab, "switch", "worker2", &[], &format!("{tunnel} or {ours}"))?;
    let count = PINGS.to_string();
    lab.read("client", &["ping", "-i0.1", "-W1", "-c", &count, &EIP.to_string()])?;
    let (nic, geneve) = (settled(&mut nic)?, packets(&mut geneve)?);
    let (bare, elsewhere) = (packets(&mut bare)?, packets(&mut elsewhere)?);
    let (sent, both) = (nic.len(), geneve.len());
    ensure!(sent >= PINGS, "worker1 sent {sent} Geneve packets for {PINGS} answers");
    ensure!(both >= 2 * PINGS, "{both} Geneve packets on the wire for {PINGS} pings and their answers");
    ensure!(bare.is_empty(), "un-tunnelled on worker1's wire:\n{}", bare.join("\n"));
    ensure!(elsewhere.is_empty(), "on worker2's wire, which has no part in this:\n{}", elsewhere.join("\n"));
    let sample: Vec<_> = geneve.iter().take(2).map(String::as_str).collect();
    Ok(vec![
        format!("{both} Geneve packets for {PINGS} pings and their answers\n{}", sample.join("\n")),
        format!("un-tunnelled packets of {CLIENT} or {EIP}: none here, and nothing at all at worker2"),
    ])
}

/// What tcpdump saw, a packet a line, also of what has passed just now.
pub(crate) fn settled(capture: &mut Job) -> Result<Vec<String>> {
    // tcpdump reads the last packet a moment after it passed.
    thread::sleep(Duration::from_millis(200));
    packets(capture)
}

/// The same without the moment. The output ends with an empty line when tcpdump is interrupted.
pub(crate) fn packets(capture: &mut Job) -> Result<Vec<String>> {
    Ok(capture.interrupt()?.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// A tcpdump that listens when this returns.
pub(crate) fn capture(lab: &Lab, name: &str, interface: &str, extra: &[&str], filter: &str) -> Result<Job> {
    let mut words = vec!["tcpdump", "-nl", "--immediate-mode", "-i", interface];
    words.extend(extra);
    words.push(filter);
    let mut job = lab.spawn(name, &words)?;
    job.wait_for("listening on", Duration::from_secs(5))?;
    Ok(job)
}

/// What the gateway's agent says of its EIPs; works with the agent dead, too.
pub(crate) fn eips(lab: &Lab) -> Result<String> {
    show(lab, &["eips"])
}

/// The same without what follows the table.
pub(crate) fn eip_table(lab: &Lab) -> Result<String> {
    let text = eips(lab)?;
    Ok(text.split_once("\n\n").map_or(text.as_str(), |(table, _)| table).to_owned())
}

/// What `gateway-agent show` says on the gateway.
pub(crate) fn show(lab: &Lab, words: &[&str]) -> Result<String> {
    let agent = lab.config().agent_binary.clone().context("the demo's lab has agents")?;
    lab.read("gw1", &[&[&*agent.to_string_lossy(), "show"], words].concat())
}

/// The same for machines.
pub(crate) fn json(lab: &Lab, topic: &str) -> Result<Value> {
    let text = show(lab, &[topic, "-o", "json"])?;
    serde_json::from_str(&text).with_context(|| format!("`show {topic} -o json` printed no JSON: {text}"))
}

pub(crate) fn counters(lab: &Lab, before: &str) -> Result<Findings> {
    let after = eips(lab)?;
    let row = |text: &str| text.lines().find(|line| line.contains(&EIP.to_string())).map(str::to_owned);
    let now = row(&after).with_context(|| format!("`show eips` does not show {EIP}:\n{after}"))?;
    ensure!(row(before).is_none_or(|then| then != now), "the counters of {EIP} did not move: {now}");
    Ok(vec![format!("before the traffic: gateway-agent show eips\n{before}"), format!("after it\n{after}")])
}

pub(crate) fn map(lab: &Lab) -> Result<Findings> {
    let pin = lab.pin_dir("gw1").join("eips").to_string_lossy().into_owned();
    let json = lab.read("gw1", &["bpftool", "-j", "map", "dump", "pinned", &pin])?;
    let entries: Value = serde_json::from_str(&json)?;
    let value = &entries[0]["formatted"]["value"];
    let fields = value.as_object().context("bpftool knows no field names: the map has no BTF")?;
    ensure!(!fields.keys().any(|name| name.starts_with("__")), "unnamed fields: {value}");
    let names: Vec<_> = fields.keys().map(String::as_str).collect();
    let text = lab.read("gw1", &["bpftool", "map", "dump", "pinned", &pin])?;
    Ok(vec![format!("fields by name: {}\nbpftool map dump pinned {pin}\n{text}", names.join(", "))])
}
