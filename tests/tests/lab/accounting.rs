//! Packets in are packets out and counted reasons: thousands of frames of every kind, good and bad, through a real gateway, and
//! each reason counts exactly what the host engine says it must.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_common::verdict::{Class, Verdict};
use gateway_ebpf::datapath::Hook;
use gateway_lab::Lab;
use gateway_tests::engines::host;
use gateway_tests::engines::{Coarse, Kind, Seen};
use gateway_tests::fixture::{self, VNI};
use gateway_tests::rows;
use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, socket};

use crate::programs::Runs;
use crate::scene::{
    CLIENT, EIP0, EIP1, EIP2, NODES, Scene, eventually, holds, overview, reaches, scene, verdicts,
};

/// How often each frame is sent.
pub(crate) const TIMES: u64 = 10;
/// The longest frame of the lab's wires.
const LONGEST: usize = 1514;
/// The last byte of a frame's source MAC: which fragment of its packet a copy becomes.
const SOURCE_END: usize = 11;
/// Frames sent before the receivers are given time: a veth's ring has 256.
const BURST: usize = 32;

/// Sends frames from an interface as they are, each [`TIMES`] times.
pub(crate) fn send_all(lab: &Lab, from: &str, interface: &'static str, frames: Vec<Vec<u8>>) -> Result<()> {
    let namespace = std::fs::File::open(format!("/run/netns/{}", lab.netns(from)?))?;
    let work = move || -> Result<()> {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        let own = |found: &nix::ifaddrs::InterfaceAddress| found.interface_name == interface;
        let mut links = getifaddrs()?.filter(own).filter_map(|found| found.address);
        let link =
            links.find_map(|address| address.as_link_addr().copied()).context("an Ethernet interface")?;
        let raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None)?;
        bind(raw.as_raw_fd(), &link)?;
        for _ in 0..TIMES {
            for burst in frames.chunks(BURST) {
                for frame in burst {
                    send(raw.as_raw_fd(), frame, MsgFlags::empty())?;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    };
    // A thread of its own: its namespace ends with it.
    std::thread::spawn(work).join().map_err(|_panic| anyhow::anyhow!("the thread panicked"))?
}

/// The IPv4 frames of all rows that a gateway with the fixture's tables sees at a hook.
fn frames(hook: Hook) -> Vec<Vec<u8>> {
    let is_here = |row: &rows::Row| row.hook == hook && row.tables == fixture::gateway();
    let fits = |frame: &Vec<u8>| frame.len() <= LONGEST && frame[12..14] == [8, 0];
    rows::all().into_iter().filter(is_here).map(|row| row.frame).filter(fits).collect()
}

/// What the gateway must count for a frame: at XDP, at the TC twin what XDP passes, and there the copies that become fragments. And whether it leaves by the external NIC.
fn expect(hook: Hook, frame: &[u8], counts: &mut BTreeMap<Verdict, u64>) -> bool {
    let run = |kind, frame: &[u8]| -> Seen { host::run(kind, hook, &fixture::gateway(), frame) };
    let mut steps = vec![run(Kind::Xdp, frame)];
    if steps[0].action == Coarse::Pass {
        steps.push(run(Kind::Tc, &steps[0].frame.clone()));
    }
    if let Some(whole) = steps.last().filter(|seen| seen.verdicts.contains_key(&Verdict::Fragmented)) {
        let mut copy = whole.frame.clone();
        let count = copy[SOURCE_END];
        for number in 1..=count {
            copy[SOURCE_END] = number;
            steps.push(run(Kind::Tc, &copy));
        }
    }
    for verdict in steps.iter().flat_map(|seen| seen.verdicts.keys()) {
        *counts.entry(*verdict).or_default() += TIMES;
    }
    let is_answered = |seen: &Seen| hook == Hook::External && seen.action == Coarse::Send;
    let leaves = |seen: &Seen| seen.verdicts.contains_key(&Verdict::ToExternal);
    steps
        .iter()
        .any(|seen| leaves(seen) || is_answered(seen) && !seen.verdicts.contains_key(&Verdict::ToWorker))
}

/// Three EIPs whose pods, nodes and hosts outside receive and say nothing: what moves is what is sent.
fn silent() -> Result<Scene> {
    let lab = scene("a1-", 1500)?;
    crate::streams::configure(&lab, &format!("geneve-vni: \"{VNI}\""))?;
    lab.annotate("pod2a", Some(EIP2))?;
    lab.annotate("pod0a", Some(EIP0))?;
    holds(&lab, "gw1", &[EIP1, EIP2, EIP0])?;
    eventually(Duration::from_secs(2), "the VNI is the fixture's", || {
        let has = |node: &str| Ok(overview(&lab, node)?["tunnel"]["vni"] == VNI);
        NODES.iter().map(|node| has(node)).collect::<Result<Vec<_>>>().map(|all| all.iter().all(|has| *has))
    })?;
    for (pod, eip) in [("pod1a", EIP1), ("pod2a", EIP2), ("pod0a", EIP0)] {
        reaches(&lab, "client", eip, 3)?;
        reaches(&lab, pod, CLIENT, 3)?;
    }
    let rules = "add table ip silent; add chain ip silent out { type filter hook output priority 0; }; \
                 add rule ip silent out drop";
    for name in ["client", "outside", "pod0a", "pod1a", "pod2a", "gw1", "worker1", "worker2"] {
        lab.read(name, &["nft", rules])?;
    }
    Ok(lab)
}

/// Packets an interface has received, by the NIC's own count.
fn received(lab: &Lab, node: &str, interface: &str) -> Result<u64> {
    let links: serde_json::Value =
        serde_json::from_str(&lab.read(node, &["ip", "-j", "-s", "link", "show", interface])?)?;
    links[0]["stats64"]["rx"]["packets"].as_u64().context("received packets")
}

/// One look at a node: verdicts, runs, and what its NICs received, with nothing happening in between.
struct Look {
    verdicts: BTreeMap<String, u64>,
    runs: Runs,
    received: Vec<u64>,
}

impl Look {
    fn at(lab: &Lab, node: &str) -> Result<Self> {
        let nics = if node == "gw1" { &["enp8s0", "eth0"][..] } else { &["eth0"] };
        for _ in 0..50 {
            let runs = Runs::of(lab, node)?;
            let received = nics.iter().map(|nic| received(lab, node, nic)).collect::<Result<_>>()?;
            let verdicts = verdicts(lab, node)?;
            if Runs::of(lab, node)?.total() == runs.total() {
                return Ok(Self { verdicts, runs, received });
            }
        }
        anyhow::bail!("{node} does not come to rest")
    }

    /// Every run of a program has counted one reason, and XDP has run for every frame the NICs received.
    fn adds_up_since(&self, before: &Self, node: &str) -> Result<()> {
        let sum = |look: &Self| look.verdicts.values().sum::<u64>();
        let runs = self.runs.since(&before.runs);
        let counted = sum(self) - sum(before);
        ensure!(counted == runs.total(), "{node}: {counted} packets counted, {runs:?}");
        let frames = self.received.iter().sum::<u64>() - before.received.iter().sum::<u64>();
        let xdp = runs.of_program("xdp_external") + runs.of_program("xdp_underlay");
        ensure!(frames == xdp, "{node}: {frames} frames received, {runs:?}");
        println!("{node}: {frames} frames received, {counted} reasons counted in {runs:?}");
        Ok(())
    }
}

fn log_lines(lab: &Lab) -> Result<Vec<usize>> {
    NODES.iter().map(|node| Ok(lab.agent_log(node)?.lines().count())).collect()
}

#[test]
fn every_frame_is_accounted_for() -> Result<()> {
    let lab = silent()?;
    let looks: Vec<_> = NODES.iter().map(|node| Look::at(&lab, node)).collect::<Result<_>>()?;
    let logged = log_lines(&lab)?;
    let from_us = format!("ip and ether src {}", gateway_lab::NIC_MAC);
    let words = [
        "tcpdump",
        "--immediate-mode",
        "-nqi",
        "eth0",
        "-B",
        "8192",
        "-w",
        "/dev/null",
        "-Q",
        "in",
        &from_us,
    ];
    let mut wire = lab.spawn("client", &words)?;
    wire.wait_for("listening on", Duration::from_secs(5))?;

    let (mut counts, mut leaving, mut sent) = (BTreeMap::new(), 0, 0);
    for (hook, from) in [(Hook::External, "client"), (Hook::Underlay, "worker1")] {
        let frames = frames(hook);
        sent += frames.len() as u64 * TIMES;
        let leave = frames.iter().filter(|frame| expect(hook, frame, &mut counts)).count();
        leaving += leave as u64 * TIMES;
        send_all(&lab, from, "eth0", frames)?;
    }
    std::thread::sleep(Duration::from_millis(500));
    let _output = wire.interrupt()?;
    println!("{sent} frames sent");
    ensure!(sent > 2_000, "only {sent} frames");

    let after: Vec<_> = NODES.iter().map(|node| Look::at(&lab, node)).collect::<Result<_>>()?;
    for ((node, before), after) in NODES.iter().zip(&looks).zip(&after) {
        after.adds_up_since(before, node)?;
    }
    let mut wrong = Vec::new();
    // What passes is the kernel's, which has packets of its own.
    for verdict in Verdict::ALL.iter().filter(|verdict| verdict.class() != Class::Pass) {
        let count = |look: &Look| look.verdicts.get(verdict.name()).copied().unwrap_or_default();
        let (seen, expected) =
            (count(&after[0]) - count(&looks[0]), counts.get(verdict).copied().unwrap_or(0));
        if seen != expected && *verdict != Verdict::ArpReply {
            wrong.push(format!("{}: {seen}, not {expected}", verdict.name()));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:?}");
    let captured = format!("{leaving} packets captured");
    ensure!(wire.stderr().contains(&captured), "not {captured}, but {}", wire.stderr());
    ensure!(log_lines(&lab)? == logged, "an agent logs per packet");
    Ok(())
}
