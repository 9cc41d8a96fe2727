//! `bench hop`: a gateway as a hop, between a client and a worker.

mod bench;
mod ovs;

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::{
    chain::{
        flow::{EIPS, Way},
        gateway::Gateway,
        mounts,
        stack::Stack,
    },
    packets::rounds::{cpus, pin},
    report::{Figure, Report, Statistic},
    say,
};
use bench::{Bench, Time};

/// Time per packet and packets per second of a whole gateway on one CPU, and of those it is compared with.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds, each of them all candidates, both ways.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Packets per candidate, way and round.
    #[arg(long, default_value_t = 300_000)]
    packets: u32,
}

const FLOOR: Gateway = Gateway::Floor;
const PLAIN: Gateway = Gateway::Stack(Stack::Plain);
const CONNTRACK: Gateway = Gateway::Stack(Stack::Conntrack);
const CANDIDATES: [Gateway; 5] = [Gateway::Ours, FLOOR, PLAIN, Gateway::Stack(Stack::Stateless), CONNTRACK];

/// Carries it out.
pub(crate) fn run(args: &Args) -> Result<Report> {
    let mut report = Report::new("hop");
    mounts::private()?;
    let first = *cpus()?.first().context("no CPU to run on")?;
    let cpu = pin()?;
    say("setting up");
    let mut bench = Bench::stand(cpu, &CANDIDATES)?;
    say(&format!("{} rounds of {} packets", args.rounds, args.packets));
    let measured = Measured::run(&mut bench, args)?;
    report.conditions = conditions(cpu, args.packets);
    report.figures = measured.figures()?;
    drop(bench);
    let (figures, how) = ovs::run((first, cpu), args.rounds.div_ceil(3), args.packets)?;
    report.figures.extend(figures);
    report.conditions.push(how);
    Ok(report)
}

fn conditions(cpu: usize, packets: u32) -> Vec<String> {
    let all = [
        format!(
            "Client, gateway and worker are network namespaces joined by veth pairs, all in the softirq of one CPU ({cpu}): \
             {packets} packets per candidate, way and round, sent by the kernel's test run in batches of 64 live frames as \
             a driver would receive them, each copied from one made before, to or from the next of {EIPS} EIPs on 8 nodes in \
             random order; ends, ours and floor send by a devmap. Packets count that arrive with the right tunnel, address \
             and ports."
        ),
        "Net is processor time per packet received less that of the same packets over one wire without a gateway, measured \
         right before; packets per second are of all that one CPU does: sending, gateway, counting. Frames of 64 bytes with \
         UDP, in a tunnel 114."
            .to_owned(),
        "Ours: the BPF object as shipped, attached natively to both NICs, its tables written as the agent writes them, every \
         feature on. Floor: C that writes two MACs and redirects (Geneve frames stay as they are)."
            .to_owned(),
        "A: one nftables map for dnat, one for snat, connections tracked (one for each EIP), VXLAN as flannel sets it up. B: \
         the same with `ip daddr set` and `ip saddr set`, untracked. C: routes alone, no NAT, no tunnel. Each with GRO on at \
         its NICs, as it is by default, no XDP, static neighbours, and the receiver that costs it less (XDP, or TC where XDP \
         would have to copy the packet for room)."
            .to_owned(),
    ];
    all.into()
}

/// What each round came to.
#[derive(Default)]
struct Measured {
    times: BTreeMap<(&'static str, &'static str), Vec<Time>>,
    /// Of ours and of the floor alone.
    programs: BTreeMap<(&'static str, &'static str), Vec<f64>>,
}

impl Measured {
    fn run(bench: &mut Bench, args: &Args) -> Result<Self> {
        let mut measured = Self::default();
        for round in 0..=args.rounds {
            for way in Way::BOTH {
                for gateway in CANDIDATES {
                    let time = bench.measure(gateway, way, args.packets)?;
                    // The first round is for caches, connections and clocks.
                    if round > 0 {
                        measured.times.entry((gateway.name(), way.name())).or_default().push(time);
                    }
                }
                for gateway in [Gateway::Ours, FLOOR] {
                    let program = bench.program(gateway, way, args.packets)?;
                    if round > 0 {
                        measured.programs.entry((gateway.name(), way.name())).or_default().push(program);
                    }
                }
            }
        }
        Ok(measured)
    }

    fn of(&self, gateway: Gateway, way: Way) -> Result<&Vec<Time>> {
        let (name, way) = (gateway.name(), way.name());
        self.times.get(&(name, way)).with_context(|| format!("{name}, {way} was not measured"))
    }

    fn figures(&self) -> Result<Vec<Figure>> {
        let mut figures = Vec::new();
        for way in Way::BOTH {
            for gateway in CANDIDATES {
                let net = self.of(gateway, way)?.iter().map(|time| time.net()).collect();
                figures.push(Figure::new(format!("{}, {}", way.name(), gateway.name()), "ns net", net));
            }
        }
        for way in Way::BOTH {
            for gateway in CANDIDATES {
                let rate = self.of(gateway, way)?.iter().map(|time| 1e6 / time.whole).collect();
                figures.push(Figure::new(format!("{}, {}", way.name(), gateway.name()), "kpps", rate));
            }
        }
        for way in Way::BOTH {
            figures.extend(self.ratios(way)?);
            figures.extend(self.beyond_floor(way)?);
        }
        Ok(figures)
    }

    /// P7, P8 and P9: what must be kept, round by round; and what of it a program that does nothing would keep.
    fn ratios(&self, way: Way) -> Result<Vec<Figure>> {
        let ratio = |gateway: Gateway, what, of: fn(Time) -> f64, to: Gateway| -> Result<Figure> {
            let pairs = self.of(gateway, way)?.iter().zip(self.of(to, way)?);
            let name = format!("{}, {} / {}: {what}", way.name(), gateway.short(), to.short());
            Ok(Figure::new(name, "×", pairs.map(|(its, other)| of(*its) / of(*other)).collect()))
        };
        let ours = |what, of, to| ratio(Gateway::Ours, what, of, to);
        let hop = match way {
            Way::In => 1.0 / 20.0,
            Way::Out => 1.0 / 17.0,
        };
        let rate = |time: Time| 1.0 / time.whole;
        Ok(vec![
            ours("time (P7)", Time::net, CONNTRACK)?.aim(Statistic::Median, hop),
            ours("time (P8)", Time::net, FLOOR)?.aim(Statistic::Median, 1.8),
            ours("packets per second (P9)", rate, CONNTRACK)?.at_least(Statistic::Median, 10.0),
            ratio(FLOOR, "packets per second", rate, CONNTRACK)?,
            ours("packets per second (P9)", rate, PLAIN)?.at_least(Statistic::Median, 3.5),
            ratio(FLOOR, "packets per second", rate, PLAIN)?,
        ])
    }

    /// What ours takes more than the floor as a hop, and what its program takes more by `BPF_PROG_TEST_RUN`: they ought to agree.
    fn beyond_floor(&self, way: Way) -> Result<Vec<Figure>> {
        let program = |gateway: Gateway| {
            self.programs.get(&(gateway.name(), way.name())).context("its program was not measured")
        };
        let (ours, floor) = (program(Gateway::Ours)?, program(FLOOR)?);
        let programs: Vec<_> = ours.iter().zip(floor).map(|(ours, floor)| ours - floor).collect();
        let hops = self.of(Gateway::Ours, way)?.iter().zip(self.of(FLOOR, way)?);
        let hops: Vec<_> = hops.map(|(ours, floor)| ours.net() - floor.net()).collect();
        let apart = hops.iter().zip(&programs).map(|(hop, program)| (hop / program - 1.0).abs()).collect();
        let way = way.name();
        Ok(vec![
            Figure::new(format!("{way}, our program alone, as in `scale`"), "ns net", ours.clone()),
            Figure::new(format!("{way}, the floor's alone"), "ns net", floor.clone()),
            Figure::new(format!("{way}, ours less the floor: programs"), "ns", programs),
            Figure::new(format!("{way}, ours less the floor: hops"), "ns", hops),
            Figure::new(format!("{way}, these two apart"), "share", apart).aim(Statistic::Median, 0.25),
        ])
    }
}
