//! Both labs side by side: the same frames into both, everything captured.

use std::io::Write;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use gateway_lab::plan::Pod;
use gateway_lab::{CLIENT, EIP, EIP_POD, Lab, LabConfig, Mac, NIC_IP, NIC_MAC};
use gateway_tests::capture::{Capture, Frames};
use gateway_tests::ovn::Ovn;
use gateway_tests::scene::{reaches, scene};

use crate::observe::{self, Answer, Packet};
use crate::stimuli::{self, Round, Sent, Side, Stimulus};

/// How long an answer may take. OVN asks its controller for some, which takes milliseconds.
const SETTLE: Duration = Duration::from_millis(250);
/// The same when it is looked at again: the machine may have been busy.
const SETTLE_AGAIN: Duration = Duration::from_secs(2);
/// MTU of both networks, so that the tunnel is the narrow place.
const MTU: u16 = 1500;

/// A stimulus and both answers.
pub(crate) struct Observed {
    pub(crate) stimulus: Stimulus,
    pub(crate) ours: Answer,
    pub(crate) ovn: Answer,
}

/// Everything that was seen.
pub(crate) struct Findings {
    pub(crate) observed: Vec<Observed>,
    /// Versions of the OVN.
    pub(crate) version: String,
    /// Our wires, whole: the external network, the underlay.
    pub(crate) wires: [(&'static str, Frames); 2],
    /// When what was sent was not sound, from and to.
    pub(crate) unsound: Vec<Window>,
}

/// Sends every stimulus into a lab of ours and into one with OVN. Once more, and with more patience, where the answers
/// are not `good`.
pub(crate) fn run(good: impl Fn(&Observed) -> bool) -> Result<Findings> {
    let ours = scene("or-", MTU)?;
    reaches(&ours, "client", &EIP.to_string(), 2)?;
    reaches(&ours, EIP_POD, &CLIENT.to_string(), 2)?;
    let theirs = Lab::up(&LabConfig { mtu: MTU, agents: false, ..LabConfig::ephemeral("ov-") })?;
    let ovn = Ovn::start(&theirs)?;
    let labs = [&ours, &theirs];
    labs.iter().try_for_each(|lab| silence(lab))?;
    let wires = [Capture::arriving(&ours, "client", "eth0")?, Capture::start(&ours, "switch", "worker1")?];
    let (mut observed, mut unsound) = look(labs, stimuli::all(Round::First), SETTLE)?;
    let again: Vec<_> = observed.iter().map(|one| !good(one)).collect();
    if again.contains(&true) {
        let stimuli = stimuli::all(Round::Second).into_iter().zip(&again).filter(|(_, again)| **again);
        let (second, times) = look(labs, stimuli.map(|(stimulus, _)| stimulus).collect(), SETTLE_AGAIN)?;
        let doubtful = observed.iter_mut().zip(again).filter(|(_, again)| *again);
        doubtful.zip(second).for_each(|((first, _), second)| *first = second);
        unsound.extend(times);
    }
    let [external, underlay] = wires;
    Ok(Findings {
        observed,
        version: ovn.version()?,
        wires: [("the external network", external.stop()?), ("the underlay", underlay.stop()?)],
        unsound,
    })
}

/// From and to, seconds since 1970.
type Window = (f64, f64);

/// Sends stimuli, and says what came of them and when those that are not sound were sent.
fn look(labs: [&Lab; 2], stimuli: Vec<Stimulus>, settle: Duration) -> Result<(Vec<Observed>, Vec<Window>)> {
    let [ours, ovn] = labs;
    let captures = [Ends::start(ours)?, Ends::start(ovn)?];
    let mut windows = Vec::new();
    for stimulus in &stimuli {
        let since = now()?;
        for sent in &stimulus.sent {
            labs.iter().try_for_each(|lab| send(lab, sent)).with_context(|| stimulus.name.clone())?;
        }
        thread::sleep(settle);
        windows.push((since, now()?));
    }
    let [ours, ovn] = captures;
    let (ours, ovn) = (ours.stop()?, ovn.stop()?);
    let pairs = stimuli.iter().zip(&windows);
    let unsound = pairs.filter(|(stimulus, _)| !stimulus.sound).map(|(_, window)| *window).collect();
    let observed = stimuli.into_iter().zip(windows).map(|(stimulus, window)| Observed {
        stimulus,
        ours: during(&ours, window),
        ovn: during(&ovn, window),
    });
    Ok((observed.collect(), unsound))
}

/// Seconds since 1970, as captures count.
fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// Keeps hosts from answering, and from asking for neighbours: what arrives is then the network's doing alone. What is
/// sent here does not pass their firewalls.
fn silence(lab: &Lab) -> Result<()> {
    let rules = "add table ip oracle; \
                 add chain ip oracle output { type filter hook output priority 0; policy drop; }";
    for host in ["client", "outside", EIP_POD] {
        lab.read(host, &["nft", rules])?;
    }
    let router = Pod::named(EIP_POD).context("the lab has the pod")?.gateway();
    let neighbors =
        [("client", EIP, NIC_MAC), ("client", NIC_IP, NIC_MAC), (EIP_POD, router, Mac::host(router))];
    for (host, address, mac) in neighbors.map(|(host, ip, mac)| (host, ip.to_string(), mac.to_string())) {
        lab.read(
            host,
            &["ip", "neigh", "replace", &address, "lladdr", &mac, "dev", "eth0", "nud", "permanent"],
        )?;
    }
    Ok(())
}

/// Puts a frame on the wire as it is.
fn send(lab: &Lab, sent: &Sent) -> Result<()> {
    let host = match sent.from {
        Side::Client => "client",
        Side::Pod => EIP_POD,
    };
    let mut command = lab.command(host, &["socat", "-u", "-", "INTERFACE:eth0"])?;
    let mut socat = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    socat.stdin.take().context("a pipe")?.write_all(&sent.frame)?;
    let output = socat.wait_with_output()?;
    ensure!(output.status.success(), "socat: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Captures of what arrives at both ends of a lab.
struct Ends {
    client: Capture,
    pod: Capture,
}

impl Ends {
    fn start(lab: &Lab) -> Result<Self> {
        Ok(Self {
            client: Capture::arriving(lab, "client", "eth0")?,
            pod: Capture::arriving(lab, EIP_POD, "eth0")?,
        })
    }

    fn stop(self) -> Result<Answer> {
        Ok(Answer {
            client: observe::packets(&self.client.stop()?)?,
            pod: observe::packets(&self.pod.stop()?)?,
        })
    }
}

fn during(all: &Answer, (from, to): Window) -> Answer {
    let within = |packets: &[Packet]| -> Vec<Packet> {
        packets.iter().filter(|packet| packet.time >= from && packet.time < to).cloned().collect()
    };
    Answer { client: within(&all.client), pod: within(&all.pod) }
}
