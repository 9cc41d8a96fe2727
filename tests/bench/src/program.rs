//! `bench program`: nanoseconds per packet of our XDP programs, next to single steps and to the least that C can do.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use gateway_common::{tables::MAX_EIPS, verdict::Verdict};
use gateway_ebpf::datapath::Hook;
use gateway_tests::{
    engines::{
        Kind,
        kernel::{Kernel, object_path},
    },
    fixture::worker1,
};

use crate::{
    baseline::Baseline,
    packets::{
        candidate::{Candidate, PASS, REDIRECT, SOURCE_PORT, TX},
        frames::{self, Pair},
        harness::Harness,
        plain::{Language, Plain, Program},
        population::Population,
        rounds::{Rounds, pin},
    },
    report::{Figure, Report, Statistic},
    say,
};

/// Time per packet of the XDP programs, one EIP, everything in the first-level cache.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds, each of them all candidates; a third of them at each of three places in the kernel's memory.
    #[arg(long, default_value_t = 40)]
    rounds: u32,
    /// Packets per candidate and round.
    #[arg(long, default_value_t = 400_000)]
    packets: u32,
    /// Our BPF object: another build, to see what a change costs.
    #[arg(long)]
    object: Option<PathBuf>,
    /// For an experiment that leaves something out: look at neither frames nor counters.
    #[arg(long, requires = "object")]
    unchecked: bool,
    /// Commit to this run's ratios: writes tests/bench/baseline.json.
    #[arg(long)]
    save_baseline: bool,
    /// A quick run against the committed ratios; exit code 3 when one is more than 15 % over. Writes no files.
    #[arg(long, conflicts_with = "save_baseline")]
    check: bool,
}

/// Rounds and packets of a check: ratios need no more, and it takes half a minute.
const CHECK: (u32, u32) = (9, 200_000);
/// Places in the kernel's memory that the programs are measured at: branches whose addresses look alike to the CPU can double what
/// one of them takes, and what is at one place says nothing of others.
const PLACES: u32 = 3;
/// Exit code of a check that found something slower.
const SLOWER: u8 = 3;

const C_IN: &str = "C in, hash";
const C_IN_ARRAY: &str = "C in, array";
const C_OUT: &str = "C out, hash";
const C_OUT_ARRAY: &str = "C out, array";
/// What a classifier that leaves the packet to others returns.
const TC_ACT_UNSPEC: i32 = -1;
/// What foreign packets on the underlay NIC may take, nanoseconds.
const FOREIGN_AIM: f64 = 10.0;
/// P1 and P2: what must be kept, as a ratio to the plain C path.
const RATIO_MUST: f64 = 1.05;

/// Carries it out; results go to `folder`.
pub(crate) fn run(args: &Args, folder: &Path) -> Result<ExitCode> {
    let rounds = if args.check { CHECK } else { (args.rounds, args.packets) };
    let report = measure(args, rounds)?;
    if args.check {
        report.print();
        return check(&report);
    }
    if args.save_baseline {
        Baseline::of(&report).save()?;
    }
    report.publish(folder)?;
    Ok(ExitCode::SUCCESS)
}

/// Says what is slower than committed.
fn check(report: &Report) -> Result<ExitCode> {
    let committed = Baseline::committed()?;
    let worse = committed.worse(&Baseline::of(report));
    println!("compared with {}", committed.source());
    for line in &worse {
        println!("warning: slower: {line}");
    }
    Ok(if worse.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(SLOWER) })
}

fn measure(args: &Args, (rounds, packets): (u32, u32)) -> Result<Report> {
    let mut report = Report::new("program");
    let cpu = pin()?;
    report.conditions = conditions(packets, cpu);
    if args.unchecked {
        report.conditions.push("Unchecked: an experiment that leaves something out.".to_owned());
    }
    let rounds = rounds.div_ceil(PLACES);
    say(&format!("{rounds} rounds of {packets} packets at each of {PLACES} places"));
    let (mut measured, mut leaving, mut others) = (Rounds::default(), Vec::new(), Vec::new());
    for place in 1..=PLACES {
        let mut bench = Bench::load(args.object.clone().unwrap_or_else(object_path))?;
        let mut candidates = bench.candidates()?;
        candidates.iter_mut().for_each(|candidate| candidate.unchecked = args.unchecked);
        measured.append(Rounds::run(&mut bench.harness, &candidates, (rounds, packets))?);
        leaving.extend(bench.leaving(rounds, packets)?);
        if !args.unchecked {
            bench.check_counters(u64::from(rounds + 1) * u64::from(packets))?;
        }
        if place == PLACES {
            report.figures.push(bench.floor(rounds, packets)?);
            report.figures.extend(measured.figures(&candidates)?);
            let leaving = Figure::new("foreign, leaving by the underlay NIC (TC)", "ns net", leaving.clone());
            report.figures.push(leaving.aim(Statistic::Median, FOREIGN_AIM));
            report.figures.extend(bench.sizes()?);
        }
        // Its programs stay where they are, so that the next ones go elsewhere.
        others.push(bench.gateway);
    }
    Ok(report)
}

fn conditions(packets: u32, cpu: usize) -> Vec<String> {
    vec![
        format!(
            "BPF_PROG_TEST_RUN on CPU {cpu}, {packets} packets per candidate and round. A harness restores the frame and \
             tail-calls the unmodified program; its own time, measured right before, is subtracted. Processor time of the \
             thread. In TC, which has no such harness, the frame stays as it is and an empty program is subtracted. One EIP, \
             everything cached. A third of the rounds at each of {PLACES} places in the kernel's memory."
        ),
        "Frames of 64 bytes with UDP, in the tunnel 114; padded: TCP without payload, 60 bytes, and 9 ns or so in it are the \
         harness giving the padding back. Ours with everything on: TTL, all checksums, the outer UDP checksum \
         written and verified, counters, anti-spoofing."
            .to_owned(),
        "C (clang -O2) does one look-up that tells the next hop too, translates, carries checksums, takes from the TTL, \
         puts the tunnel on or off and redirects: no counters, no outer UDP checksum, no configuration, no path MTU or MSS."
            .to_owned(),
        "Rust is the same steps in the same order by aya-ebpf (tests/bench/ebpf), built as our programs are. Instructions are \
         those the kernel has after verification (`xlated` of bpftool), machine code what its compiler made of them."
            .to_owned(),
    ]
}

/// All that is loaded.
struct Bench {
    harness: Harness,
    gateway: Kernel,
    worker: Kernel,
    /// The same in TC.
    leaving: Kernel,
    plain: Plain,
    twin: Plain,
}

impl Bench {
    fn load(object: PathBuf) -> Result<Self> {
        say("loading");
        let population = Population::new(1)?;
        let mut gateway = Kernel::load_from(&object, Kind::Xdp, MAX_EIPS)?;
        gateway.fill(&population.tables())?;
        let mut worker = Kernel::load_from(&object, Kind::Xdp, MAX_EIPS)?;
        worker.fill(&worker1())?;
        let mut leaving = Kernel::load_from(&object, Kind::Tc, MAX_EIPS)?;
        leaving.fill(&worker1())?;
        gateway.send_by_loopback()?;
        let (plain, twin) = (Plain::load(Language::C, population)?, Plain::load(Language::Rust, population)?);
        Ok(Self { harness: Harness::load()?, gateway, worker, leaving, plain, twin })
    }

    fn ours(&mut self, hook: Hook) -> Result<ProgramFd> {
        Ok(self.gateway.xdp_fd(hook)?.try_clone()?)
    }

    fn candidates(&mut self) -> Result<Vec<Candidate>> {
        let (external, underlay) = (self.ours(Hook::External)?, self.ours(Hook::Underlay)?);
        let worker = self.worker.xdp_fd(Hook::Underlay)?.try_clone()?;
        let ours = |name, fd: &ProgramFd, pair: Pair, code| -> Result<Candidate> {
            Ok(Candidate::new(name, fd.try_clone()?, pair, code))
        };
        let mut plain = |name, program, pair: Pair, code| -> Result<Candidate> {
            Ok(Candidate::new(name, self.plain.fd(program)?, pair, code))
        };
        let mut twin = |name, program, pair: &Pair, of| -> Result<Candidate> {
            let fd = self.twin.fd(program)?;
            Ok(Candidate::new(name, fd, pair.clone(), REDIRECT).per(of).ratio_below(RATIO_MUST))
        };
        let (inbound, outbound) = (frames::plain_inbound(), frames::outbound());
        Ok(vec![
            plain("empty", Program::Empty, frames::untouched(), PASS)?,
            plain("MAC swap", Program::SwapMacs, frames::swapped(), TX)?,
            plain("one hash look-up", Program::LookUp, frames::untouched(), TX)?,
            plain("redirect", Program::Redirect, frames::untouched(), REDIRECT)?,
            plain(C_IN, Program::InHash, inbound.clone(), REDIRECT)?.free(SOURCE_PORT),
            twin("Rust in, hash", Program::InHash, &inbound, C_IN)?.free(SOURCE_PORT),
            ours("in", &external, frames::inbound(), REDIRECT)?.per(C_IN).ratio_below(RATIO_MUST),
            ours("in, padded", &external, frames::acknowledgement(), REDIRECT)?.per(C_IN),
            plain(C_IN_ARRAY, Program::InArray, inbound.clone(), REDIRECT)?.free(SOURCE_PORT).per(C_IN),
            twin("Rust in, array", Program::InArray, &inbound, C_IN_ARRAY)?.free(SOURCE_PORT),
            plain(C_OUT, Program::OutHash, outbound.clone(), REDIRECT)?,
            twin("Rust out, hash", Program::OutHash, &outbound, C_OUT)?,
            ours("out", &underlay, outbound.clone(), REDIRECT)?.per(C_OUT).ratio_below(RATIO_MUST),
            plain(C_OUT_ARRAY, Program::OutArray, outbound.clone(), REDIRECT)?.per(C_OUT),
            twin("Rust out, array", Program::OutArray, &outbound, C_OUT_ARRAY)?,
            ours("decapsulation at a worker", &worker, frames::at_worker(), PASS)?.per(C_OUT),
            ours("ARP reply", &external, frames::who_has(), REDIRECT)?.per(C_IN),
            ours("foreign, external NIC", &external, frames::foreign_on_external(), PASS)?.per(C_IN),
            ours("foreign, underlay NIC", &underlay, frames::foreign_on_underlay(), PASS)?
                .per(C_IN)
                .net_below(FOREIGN_AIM),
            ours("foreign, padded, underlay NIC", &underlay, frames::foreign_acknowledgement(), PASS)?
                .per(C_IN)
                .net_below(FOREIGN_AIM),
        ])
    }

    /// Each packet went the way it was to go.
    fn check_counters(&self, runs: u64) -> Result<()> {
        let ends = [
            (&self.gateway, Verdict::ToWorker),
            (&self.gateway, Verdict::ToExternal),
            (&self.worker, Verdict::FromGateway),
            (&self.gateway, Verdict::ArpReply),
            (&self.gateway, Verdict::PassNotForUs),
            (&self.gateway, Verdict::PassNotTunnel),
            (&self.leaving, Verdict::PassNotPod),
        ];
        for (kernel, verdict) in ends {
            // Of these, a padded one is measured too.
            let twice = matches!(verdict, Verdict::ToWorker | Verdict::PassNotTunnel);
            let runs = if twice { 2 * runs } else { runs };
            let counted = kernel.packets(verdict)?;
            ensure!(counted == runs, "{} counted {counted} packets of {runs}", verdict.name());
        }
        Ok(())
    }

    /// What a node's own traffic pays as it leaves: nanoseconds, one a round.
    fn leaving(&mut self, rounds: u32, packets: u32) -> Result<Vec<f64>> {
        let frame = frames::foreign_on_underlay().before;
        let program = self.leaving.tc_program(Hook::UnderlayEgress)?;
        let mut run = || self.harness.run_skb(&frame, (program, TC_ACT_UNSPEC), packets);
        // A first look at caches and clocks.
        run()?;
        (0..rounds).map(|_| run()).collect()
    }

    /// How large the plain paths are in either language.
    fn sizes(&mut self) -> Result<Vec<Figure>> {
        let mut figures = Vec::new();
        let names = ["in, hash", "in, array", "out, hash", "out, array"];
        for (path, program) in names.into_iter().zip(Program::PATHS) {
            for (language, plain) in [("C", &mut self.plain), ("Rust", &mut self.twin)] {
                let (instructions, bytes) = plain.size(program)?;
                for (what, unit, size) in
                    [("program", "instructions", instructions), ("machine code", "bytes", bytes)]
                {
                    let name = format!("{what} of {language} {path}");
                    figures.push(Figure::new(name, unit, vec![f64::from(size)]));
                }
            }
        }
        Ok(figures)
    }

    /// The kernel's test run without a harness.
    fn floor(&mut self, rounds: u32, packets: u32) -> Result<Figure> {
        let frame = frames::untouched().before;
        let samples = (0..rounds).map(|_| Ok(self.harness.floor(&frame, packets)?.ns));
        Ok(Figure::new("test run, no harness", "ns raw", samples.collect::<Result<_>>()?))
    }
}
