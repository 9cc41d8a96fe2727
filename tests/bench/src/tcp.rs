//! `bench tcp`: one TCP stream through a gateway.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    chain::{
        daemon::{Daemon, GO_FIRST},
        flow::Way,
        gateway::Gateway,
        mounts,
        ovs::Port,
        stack::Stack,
        talk::{Talk, modes},
        wires::Wiring,
    },
    packets::rounds::cpus,
    report::{Figure, Report, Statistic},
    say,
};

/// One TCP stream by iperf3, each way, through ours and those it is compared with; MTU 1500 and 9000.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds, each of them all candidates, both ways.
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// Seconds of a stream; half a second before that does not count.
    #[arg(long, default_value_t = 1)]
    seconds: u32,
    /// MTUs of all wires.
    #[arg(long, value_delimiter = ',', default_values_t = [1500, 9000])]
    mtus: Vec<u16>,
}

/// A gateway, and whether its NICs put segments together.
type Candidate = (Gateway, bool);

const OURS: Candidate = (Gateway::Ours, false);
const CONNTRACK: Candidate = (Gateway::Stack(Stack::Conntrack), false);
const CONNTRACK_GRO: Candidate = (Gateway::Stack(Stack::Conntrack), true);

/// All, Open vSwitch on this CPU. That puts no segments together: it drops what is longer than the MTU.
fn candidates(cpu: usize) -> [Candidate; 9] {
    [
        OURS,
        (Gateway::Floor, false),
        (Gateway::Stack(Stack::Plain), false),
        (Gateway::Stack(Stack::Plain), true),
        (Gateway::Stack(Stack::Stateless), true),
        CONNTRACK,
        CONNTRACK_GRO,
        (Gateway::Ovs(Port::Xdp, cpu), false),
        (Gateway::Ovs(Port::Packet, cpu), false),
    ]
}

const PORT: &str = "5201";

/// Carries it out.
pub(crate) fn run(args: &Args) -> Result<Report> {
    let mut report = Report::new("tcp");
    mounts::private()?;
    let cpus = cpus()?;
    let candidates = candidates(*cpus.first().context("no CPU to run on")?);
    report.conditions = conditions(&cpus);
    for mtu in &args.mtus {
        say(&format!("setting up, MTU {mtu}"));
        let lines = candidates.map(|candidate| Line::attempt(candidate, *mtu));
        let lines: Vec<_> = lines.into_iter().collect::<Result<_>>()?;
        say(&format!("{} rounds of {} s", args.rounds, args.seconds));
        report
            .conditions
            .extend(modes(lines.iter().flat_map(|(_, line)| line).map(|line| &line.talk), *mtu)?);
        let rates = rates(&lines, args, &cpus)?;
        report.figures.extend(figures(&lines, &rates, *mtu)?);
    }
    Ok(report)
}

/// Gbit/s by name, one a round.
type Rates = BTreeMap<String, Vec<f64>>;

/// A candidate that is up, or why it cannot be.
type Tried = (Candidate, Result<Line, String>);

fn rates(lines: &[Tried], args: &Args, cpus: &[usize]) -> Result<Rates> {
    let mut rates = Rates::new();
    for _ in 0..args.rounds {
        for (candidate, line) in lines {
            let Ok(line) = line else { continue };
            for way in Way::BOTH {
                let rate = line.stream(way, args.seconds, cpus)?;
                rates.entry(name(way, *candidate)).or_default().push(rate);
            }
        }
    }
    Ok(rates)
}

fn conditions(cpus: &[usize]) -> Vec<String> {
    vec![
        format!(
            "iperf3, one stream from client to pod (in) and back (out), its two ends on CPUs {cpus:?} before other processes; the gateway works in \
             their softirqs. Wires as in `hop`, without segmentation or checksums left to hardware; client and worker put \
             segments together (GRO). Bits of payload that arrived."
        ),
        "Ours at gateway and worker, natively and as shipped; A and B with VXLAN at both; C and the floor without tunnel: C with \
         50 bytes more in each packet, the floor with as many as ours. GRO at the gateway's NICs as it says; ours and the floor have no use for it."
            .to_owned(),
        "OVS in userspace, as in `hop`, with ours at the worker, has threads of its own. They and iperf3's two ends share two CPUs, to its \
         disadvantage: a third would be its own. They are all on the first CPU, with the same priority as iperf3, and one end is there \
         too: by AF_XDP, where a thread polls all the time, the receiver, by AF_PACKET the sender. Of four ways that were tried (so, the \
         other way round, both ends on the other CPU, where the scheduler puts them) it is the fastest for it, by AF_PACKET within noise. It is stopped (SIGSTOP) while others are \
         measured. GRO at its NICs and userspace-tso are off: it drops what is longer than the MTU, and a tunnel takes no TSO."
            .to_owned(),
    ]
}

/// A candidate that is up, with an iperf3 server in the pod.
struct Line {
    candidate: Candidate,
    talk: Talk,
    _server: Daemon,
}

impl Line {
    fn attempt(candidate: Candidate, mtu: u16) -> Result<Tried> {
        let (gateway, gateway_gro) = candidate;
        let talk = match Talk::attempt(gateway, Wiring { mtu, gateway_gro, ends_gro: true })? {
            Ok(talk) => talk,
            Err(why) => return Ok((candidate, Err(why))),
        };
        let worker = &talk.standing.chain.worker;
        let server = Daemon::start(worker, &[GO_FIRST.as_slice(), &["iperf3", "-s", "-p", PORT]].concat())?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while worker.run(&["ss", "-Hltn", &format!("sport = :{PORT}")], "")?.is_empty() {
            ensure!(Instant::now() < deadline, "the iperf3 server does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Ok((candidate, Ok(Self { candidate, talk, _server: server })))
    }

    /// Gbit/s.
    fn stream(&self, way: Way, seconds: u32, cpus: &[usize]) -> Result<f64> {
        let (eip, seconds) = (self.talk.eip().to_string(), seconds.to_string());
        let affinity = affinity(self.candidate.0, way, cpus);
        let _awake = self.talk.awake()?;
        let mut words = GO_FIRST.to_vec();
        words.extend(["timeout", "30", "iperf3", "-J", "-p", PORT, "-c", &eip, "-t", &seconds]);
        words.extend(["-O", "0.5", "-A", &affinity]);
        if way == Way::Out {
            words.push("-R");
        }
        let json = self.talk.standing.chain.client.run(&words, "").context("iperf3")?;
        let value: Value = serde_json::from_str(&json)?;
        let bits = value["end"]["sum_received"]["bits_per_second"].as_f64();
        let label =
            || format!("iperf3 through {}, {}, says no rate: {json}", label(self.candidate), way.name());
        Ok(bits.with_context(label)? / 1e9)
    }
}

/// CPUs of client and worker, as iperf3 takes them. Open vSwitch works on the first, where it takes the end that leaves it more: by AF_XDP
/// the receiver, by AF_PACKET the sender.
fn affinity(gateway: Gateway, way: Way, cpus: &[usize]) -> String {
    let [first, .., last] = cpus else { return "0,0".to_owned() };
    let worker_is_first = match gateway {
        Gateway::Ovs(Port::Xdp, _) => way == Way::In,
        Gateway::Ovs(Port::Packet, _) => way == Way::Out,
        Gateway::Ours | Gateway::Floor | Gateway::Stack(_) => false,
    };
    if worker_is_first { format!("{last},{first}") } else { format!("{first},{last}") }
}

fn label((gateway, gro): Candidate) -> String {
    let with = if gro { ", GRO" } else { "" };
    format!("{}{with}", gateway.name())
}

fn name(way: Way, candidate: Candidate) -> String {
    format!("{}, {}", way.name(), label(candidate))
}

fn figures(lines: &[Tried], rates: &Rates, mtu: u16) -> Result<Vec<Figure>> {
    let of = |way, candidate| {
        let name = name(way, candidate);
        rates.get(&name).with_context(|| format!("{name} was not measured"))
    };
    let mut figures = Vec::new();
    for way in Way::BOTH {
        for (candidate, line) in lines {
            let (name, unit) = (format!("MTU {mtu}, {}", name(way, *candidate)), "Gbit/s");
            figures.push(match line {
                Ok(_) => Figure::new(name, unit, of(way, *candidate)?.clone()),
                Err(why) => Figure::not_possible(name, unit, why),
            });
        }
    }
    // P11, and what of it a program that does nothing would keep.
    let aims: &[_] =
        if mtu > 1500 { &[(CONNTRACK, 1.3)] } else { &[(CONNTRACK, 2.0), (CONNTRACK_GRO, 1.25)] };
    for way in Way::BOTH {
        for (other, least) in aims {
            let with = if other.1 { " with GRO" } else { "" };
            let ratio = |candidate: Candidate| -> Result<Figure> {
                let pairs = of(way, candidate)?.iter().zip(of(way, *other)?);
                let names = (candidate.0.short(), other.0.short());
                let name = format!("MTU {mtu}, {}, {} / {}{with} (P11)", way.name(), names.0, names.1);
                Ok(Figure::new(name, "×", pairs.map(|(its, other)| its / other).collect()))
            };
            figures.push(ratio(OURS)?.at_least(Statistic::Median, *least));
            figures.push(ratio((Gateway::Floor, false))?);
        }
    }
    Ok(figures)
}
