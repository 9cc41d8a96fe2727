//! What the suites share: a lab with the built agents, and the tools of an operator pointed at it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gateway_lab::{Job, Lab, LabConfig};
use serde_json::Value;

/// EIP of pod1a in a scene.
pub const EIP1: &str = "192.168.100.101";
/// EIP for pod2a.
pub const EIP2: &str = "192.168.100.102";
/// EIP for pod0a.
pub const EIP0: &str = "192.168.100.103";
/// The client.
pub const CLIENT: &str = "192.168.100.1";
/// The nodes, the gateway first.
pub const NODES: [&str; 3] = ["gw1", "worker1", "worker2"];

/// The agent to test: `$EIP_GATEWAY_AGENT`, else what `cargo xtask build` made.
pub fn agent() -> Result<PathBuf> {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/gateway-agent");
    let agent = std::env::var_os("EIP_GATEWAY_AGENT").map_or_else(|| PathBuf::from(built), PathBuf::from);
    ensure!(agent.is_file(), "{} is missing: run `cargo xtask build`", agent.display());
    Ok(agent)
}

/// A lab whose external link is watched: a pod's address that arrives at the client, in a packet or in what an ICMP error quotes, fails the test.
#[derive(Debug)]
pub struct Scene {
    // Dropped before the lab.
    watch: Job,
    lab: Lab,
}

/// Pod addresses: of a packet or an ARP frame, and quoted by an ICMP error (types 3, 11 and 12), whose quote starts at byte 8.
const LEAK: &str = "net 10.244.0.0/16 or (icmp and (icmp[0] = 3 or icmp[0] = 11 or icmp[0] = 12) and \
                    (icmp[20:2] = 0x0af4 or icmp[24:2] = 0x0af4))";

impl std::ops::Deref for Scene {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let leaks = self.watch.interrupt();
        if std::thread::panicking() {
            return;
        }
        match leaks {
            Ok(leaks) => {
                assert!(leaks.trim().is_empty(), "a pod's address is on the external network:\n{leaks}")
            }
            Err(error) => panic!("the external link was not watched to the end: {error:#}"),
        }
    }
}

/// A lab with agents on the `dir` source and [`EIP1`] on pod1a.
pub fn scene(prefix: &str, mtu: u16) -> Result<Scene> {
    let config = LabConfig { mtu, eip: true, agent_binary: Some(agent()?), ..LabConfig::ephemeral(prefix) };
    let lab = Lab::up(&config)?;
    let mut watch =
        lab.spawn("client", &["tcpdump", "--immediate-mode", "-lnqi", "eth0", "-Q", "in", "-c", "20", LEAK])?;
    watch.wait_for("listening on", Duration::from_secs(20))?;
    Ok(Scene { watch, lab })
}

/// What `ping` saw.
#[derive(Debug)]
pub struct Pings {
    /// Requests sent.
    pub sent: u32,
    /// Replies.
    pub received: u32,
    /// TTL of the last reply.
    pub ttl: Option<u8>,
    /// Its whole output.
    pub output: String,
}

/// Pings with the given words, for example `["-c3", "192.168.100.101"]`.
pub fn ping(lab: &Lab, from: &str, words: &[&str]) -> Result<Pings> {
    let output = lab.exec(from, &[&["ping", "-n", "-W1", "-i0.2"], words].concat())?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    parse_ping(text)
}

/// Reads ping's summary.
pub fn parse_ping(output: String) -> Result<Pings> {
    let number = |before: &str| -> Option<u32> {
        let at = output.find(before)?;
        output[..at].rsplit([' ', '\n']).find(|word| !word.is_empty())?.parse().ok()
    };
    let ttl =
        output.rsplit("ttl=").next().and_then(|rest| rest.split(' ').next()).and_then(|ttl| ttl.parse().ok());
    let sent = number(" packets transmitted").with_context(|| format!("no summary: {output}"))?;
    let received = number(" received").with_context(|| format!("no summary: {output}"))?;
    Ok(Pings { sent, received, ttl, output })
}

/// All of `count` pings are answered.
pub fn reaches(lab: &Lab, from: &str, to: &str, count: u32) -> Result<Pings> {
    let pings = ping(lab, from, &["-c", &count.to_string(), to])?;
    ensure!(pings.sent == count && pings.received == count, "{from} pings {to}: {}", pings.output);
    Ok(pings)
}

/// No ping is answered.
pub fn does_not_reach(lab: &Lab, from: &str, to: &str) -> Result<()> {
    // An answer takes a millisecond; nobody needs to wait the usual second for one that does not come.
    let pings = ping(lab, from, &["-c3", "-i0.1", "-W0.3", to])?;
    ensure!(pings.received == 0, "{from} still reaches {to}: {}", pings.output);
    Ok(())
}

/// A ping that goes on, 50 requests a second, until it is asked whether one was lost.
#[derive(Debug)]
pub struct Pinging(Job);

impl Pinging {
    /// Starts it; the first reply is there when this returns.
    pub fn start(lab: &Lab, from: &str, to: &str) -> Result<Self> {
        let mut job = lab.spawn(from, &["ping", "-n", "-i0.02", "-c6000", to])?;
        job.wait_for("icmp_seq=", Duration::from_secs(3)).with_context(|| format!("{from} pings {to}"))?;
        Ok(Self(job))
    }

    /// Ends it; the requests that were not answered, by number. The last one may have had no time to be.
    pub fn lost(mut self) -> Result<Vec<u32>> {
        let output = self.0.interrupt()?;
        let number = |line: &str| line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse().ok();
        // A line that tells of an unreachable host has a number as well.
        let replies = output.lines().filter(|line| line.contains("ttl="));
        let answered: BTreeSet<u32> = replies.filter_map(number).collect();
        let sent = parse_ping(output)?.sent;
        Ok((1..sent).filter(|number| !answered.contains(number)).collect())
    }

    /// Ends it; an error when one was lost.
    pub fn none_lost(self) -> Result<()> {
        let lost = self.lost()?;
        ensure!(lost.is_empty(), "{} pings are lost: {lost:?}", lost.len());
        Ok(())
    }
}

/// The packets of each verdict on a node, zero where it never came.
pub fn verdicts(lab: &Lab, node: &str) -> Result<BTreeMap<String, u64>> {
    let rows = show(lab, node, "verdicts")?;
    let rows = rows.as_array().context("an array")?;
    rows.iter()
        .map(|row| {
            let reason = row["reason"].as_str().context("reason")?.to_owned();
            Ok((reason, row["packets"].as_u64().context("packets")?))
        })
        .collect()
}

/// The packets of one verdict on a node.
pub fn verdict(lab: &Lab, node: &str, reason: &str) -> Result<u64> {
    verdicts(lab, node)?.get(reason).copied().with_context(|| format!("no verdict {reason}"))
}

/// `gateway-agent show TOPIC -o json` on a node.
pub fn show(lab: &Lab, node: &str, topic: &str) -> Result<Value> {
    shown(lab, node, &["show", topic, "-o", "json"])
}

/// `gateway-agent show -o json` on a node: everything.
pub fn overview(lab: &Lab, node: &str) -> Result<Value> {
    shown(lab, node, &["show", "-o", "json"])
}

fn shown(lab: &Lab, node: &str, words: &[&str]) -> Result<Value> {
    let agent = lab.config().agent_binary.as_ref().context("a scene has an agent")?;
    let agent = agent.to_str().context("a UTF-8 path")?;
    Ok(serde_json::from_str(&lab.read(node, &[&[agent], words].concat())?)?)
}

/// The EIPs a node's tables hold.
pub fn eips(lab: &Lab, node: &str) -> Result<Vec<String>> {
    let rows = show(lab, node, "eips")?;
    let rows = rows.get("eips").unwrap_or(&rows);
    let rows = rows.as_array().with_context(|| format!("an array: {rows}"))?;
    Ok(rows.iter().filter_map(|row| row["eip"].as_str().map(ToOwned::to_owned)).collect())
}

/// A number of a node's `/metrics` by name and labels, zero where it is not among them.
pub fn metric(lab: &Lab, node: &str, name: &str) -> Result<u64> {
    let text = lab.read(node, &["curl", "-sf", "--max-time", "5", "localhost:9817/metrics"])?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or("0");
    value.parse().with_context(|| format!("{name} of {node} is {value}"))
}

/// What the gateway has counted of an EIP, packets in and out.
pub fn eip_packets(lab: &Lab, node: &str, eip: &str) -> Result<(u64, u64)> {
    let all = show(lab, node, "eips")?;
    let mut rows = all["eips"].as_array().into_iter().flatten();
    let row = rows.find(|row| row["eip"] == eip).with_context(|| format!("{node} has no {eip}"))?;
    let count = |field: &str| row[field].as_u64().with_context(|| format!("{field} of {row}"));
    Ok((count("in_packets")?, count("out_packets")?))
}

/// Waits until `condition` holds, at most `limit`.
pub fn eventually(limit: Duration, what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !condition()? {
        if Instant::now() > deadline {
            bail!("not within {limit:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Waits until a node holds exactly these EIPs: behaviour.md promises a second.
pub fn holds(lab: &Lab, node: &str, wanted: &[&str]) -> Result<()> {
    eventually(Duration::from_secs(1), &format!("{node} holds {wanted:?}"), || Ok(eips(lab, node)? == wanted))
}

/// One line from `from` to a TCP server that tells a client its own address.
pub fn who_am_i(lab: &Lab, server: &str, from: &str, address: &str) -> Result<String> {
    let script = "TCP-LISTEN:7000,reuseaddr";
    let mut listener = lab.spawn(server, &["socat", "-d", "-d", script, "SYSTEM:echo $SOCAT_PEERADDR"])?;
    listener.wait_for("listening on", Duration::from_secs(20))?;
    // One way only: else the end of its own input would have socat wait for no more than half a second.
    let server = format!("TCP:{address}:7000,connect-timeout=3");
    let answer = lab.read(from, &["socat", "-T10", "-u", &server, "-"])?;
    Ok(answer.trim().to_owned())
}
