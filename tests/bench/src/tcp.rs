//! `bench tcp`: one TCP stream through a gateway.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    chain::{daemon::Daemon, flow::Way, gateway::Gateway, stack::Stack, talk::Talk, wires::Wiring},
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
const CANDIDATES: [Candidate; 7] = [
    OURS,
    (Gateway::Floor, false),
    (Gateway::Stack(Stack::Plain), false),
    (Gateway::Stack(Stack::Plain), true),
    (Gateway::Stack(Stack::Stateless), true),
    CONNTRACK,
    CONNTRACK_GRO,
];
const PORT: &str = "5201";
/// Runs a command in a session of its own, whose processes go before all that are not real-time: the scheduler shares a CPU
/// among sessions first (sched(7), autogroup).
const GO_FIRST: [&str; 5] = [
    "setsid",
    "sh",
    "-c",
    "if [ -w /proc/self/autogroup ]; then echo -20 > /proc/self/autogroup; fi; exec \"$@\"",
    "sh",
];

/// Carries it out.
pub(crate) fn run(args: &Args) -> Result<Report> {
    let mut report = Report::new("tcp");
    let cpus = cpus()?;
    report.conditions = conditions(&cpus);
    let mut rates: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for mtu in &args.mtus {
        say(&format!("setting up, MTU {mtu}"));
        let lines = CANDIDATES.map(|candidate| Line::stand(candidate, *mtu));
        let lines: Vec<_> = lines.into_iter().collect::<Result<_>>()?;
        say(&format!("{} rounds of {} s", args.rounds, args.seconds));
        for _ in 0..args.rounds {
            for line in &lines {
                for way in Way::BOTH {
                    let rate = line.stream(way, args.seconds, &cpus)?;
                    rates.entry(name(*mtu, way, line.candidate)).or_default().push(rate);
                }
            }
        }
    }
    for mtu in &args.mtus {
        report.figures.extend(figures(&rates, *mtu)?);
    }
    Ok(report)
}

fn conditions(cpus: &[usize]) -> Vec<String> {
    vec![
        format!(
            "iperf3, one stream from client to pod (in) and back (out), its two ends on CPUs {cpus:?} before other processes; the gateway works in \
             their softirqs. Wires as in `hop`, without segmentation or checksums left to hardware; client and worker put \
             segments together (GRO). Bits of payload that arrived."
        ),
        "Ours at gateway and worker, natively and as shipped; A and B with VXLAN at both; C and the floor without tunnel, so \
         with 50 bytes more in each packet. GRO at the gateway's NICs as it says; ours and the floor have no use for it. No OVS in userspace: it \
         wants a third CPU."
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
    fn stand(candidate: Candidate, mtu: u16) -> Result<Self> {
        let (gateway, gateway_gro) = candidate;
        let talk = Talk::stand(gateway, Wiring { mtu, gateway_gro, ends_gro: true })?;
        let worker = &talk.standing.chain.worker;
        let server = Daemon::start(worker, &[GO_FIRST.as_slice(), &["iperf3", "-s", "-p", PORT]].concat())?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while worker.run(&["ss", "-Hltn", &format!("sport = :{PORT}")], "")?.is_empty() {
            ensure!(Instant::now() < deadline, "the iperf3 server does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { candidate, talk, _server: server })
    }

    /// Gbit/s.
    fn stream(&self, way: Way, seconds: u32, cpus: &[usize]) -> Result<f64> {
        let (eip, seconds) = (self.talk.eip().to_string(), seconds.to_string());
        let affinity = match cpus {
            [first, .., last] => format!("{first},{last}"),
            _ => "0,0".to_owned(),
        };
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

fn label((gateway, gro): Candidate) -> String {
    let with = if gro { ", GRO" } else { "" };
    format!("{}{with}", gateway.name())
}

fn name(mtu: u16, way: Way, candidate: Candidate) -> String {
    format!("MTU {mtu}, {}, {}", way.name(), label(candidate))
}

fn figures(rates: &BTreeMap<String, Vec<f64>>, mtu: u16) -> Result<Vec<Figure>> {
    let of = |way, candidate| {
        let name = name(mtu, way, candidate);
        rates.get(&name).with_context(|| format!("{name} was not measured"))
    };
    let mut figures = Vec::new();
    for way in Way::BOTH {
        for candidate in CANDIDATES {
            let rate = of(way, candidate)?.clone();
            figures.push(Figure::new(name(mtu, way, candidate), "Gbit/s", rate));
        }
    }
    // P11.
    let aims: &[_] =
        if mtu > 1500 { &[(CONNTRACK, 1.3)] } else { &[(CONNTRACK, 2.0), (CONNTRACK_GRO, 1.25)] };
    for way in Way::BOTH {
        for (other, least) in aims {
            let ratio =
                of(way, OURS)?.iter().zip(of(way, *other)?).map(|(ours, other)| ours / other).collect();
            let with = if other.1 { " with GRO" } else { "" };
            let name = format!("MTU {mtu}, {}, ours / {}{with} (P11)", way.name(), other.0.short());
            figures.push(Figure::new(name, "×", ratio).at_least(Statistic::Median, *least));
        }
    }
    Ok(figures)
}
