//! `bench scale`: the ways in and out with more and more EIPs, asked for in random order, and the memory they take.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::Map;
use gateway_common::{
    tables::{MAX_EIPS, name},
    verdict::Verdict,
};
use gateway_ebpf::datapath::Hook;
use gateway_tests::engines::{
    Kind,
    kernel::{Kernel, object_path},
};

use crate::{
    packets::{
        candidate::{Candidate, REDIRECT, SOURCE_PORT},
        frames::{self, Pair},
        harness::Harness,
        plain::{Language, Plain, Program},
        population::Population,
        rounds::{Rounds, pin},
    },
    report::{Figure, Report},
    say,
};

/// Time per packet in and out with 1 to 1,048,576 EIPs in random order, and the memory of their tables.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Numbers of EIPs, powers of two.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1 << 10, 1 << 14, 1 << 17, 1 << 20])]
    eips: Vec<u32>,
    /// Rounds, each of them all candidates.
    #[arg(long, default_value_t = 15)]
    rounds: u32,
    /// Packets per candidate and round, at least; each EIP gets one.
    #[arg(long, default_value_t = 400_000)]
    packets: u32,
    /// Our BPF object: another build, to see what a change costs.
    #[arg(long)]
    object: Option<PathBuf>,
}

/// P5: what must be kept at a million EIPs, as a ratio to the plain C path there.
const MILLION_MUST: f64 = 0.65;
const MILLION: u32 = 1 << 20;
const MIB: f64 = 1024.0 * 1024.0;

/// Carries it out.
pub(crate) fn run(args: &Args) -> Result<Report> {
    let mut report = Report::new("scale");
    let cpu = pin()?;
    report.conditions = conditions(args, cpu);
    let mut harness = Harness::load()?;
    let object = args.object.clone().unwrap_or_else(object_path);
    let mut sizes = Vec::new();
    let mut candidates = Vec::new();
    for eips in &args.eips {
        let mut size = Size::load(&object, Population::new(*eips)?)?;
        candidates.extend(size.candidates()?);
        sizes.push(size);
    }
    sizes.iter_mut().try_for_each(|size| size.ours.send_by_loopback())?;
    say(&format!("{} rounds of {} packets or more", args.rounds, args.packets));
    let rounds = Rounds::run(&mut harness, &candidates, (args.rounds, args.packets))?;
    for size in &sizes {
        size.check_counters(args)?;
    }
    report.figures = rounds.figures(&candidates)?;
    for size in &sizes {
        report.figures.extend(size.memory()?);
    }
    Ok(report)
}

fn conditions(args: &Args, cpu: usize) -> Vec<String> {
    vec![
        format!(
            "As `program`, on CPU {cpu}, but each packet is of the next EIP in random order: {} packets per candidate and \
             round, or as many as there are EIPs. 128 EIPs are on a node.",
            args.packets
        ),
        format!(
            "Our tables hold {MAX_EIPS} EIPs as shipped; for more, the loader sets a larger number. Memory is what the \
             kernel charges for them, all of it from the start."
        ),
    ]
}

/// Everything loaded for one number of EIPs.
struct Size {
    population: Population,
    ours: Kernel,
    plain: Plain,
}

impl Size {
    fn load(object: &Path, population: Population) -> Result<Self> {
        say(&format!("loading, {} EIPs", population.eips()));
        let mut ours = Kernel::load_from(object, Kind::Xdp, population.capacity())?;
        ours.fill(&population.tables())?;
        Ok(Self { population, ours, plain: Plain::load(Language::C, population)? })
    }

    fn name(&self, what: &str) -> String {
        format!("{what}, {} EIPs", self.population.eips())
    }

    fn candidates(&mut self) -> Result<Vec<Candidate>> {
        let (eips, plain_in, out) = (self.population.eips(), frames::plain_inbound(), frames::outbound());
        let [c_in, c_out] = ["C in, hash", "C out, hash"].map(|what| self.name(what));
        let external = self.ours.xdp_fd(Hook::External)?.try_clone()?;
        let underlay = self.ours.xdp_fd(Hook::Underlay)?.try_clone()?;
        let one =
            |what, program, pair: &Pair| Candidate::new(what, program, pair.clone(), REDIRECT).of_many(eips);
        let [in_array, ours_in, out_array, ours_out] =
            ["C in, array", "in", "C out, array", "out"].map(|what| self.name(what));
        let must = (eips == MILLION).then_some(MILLION_MUST);
        Ok(vec![
            one(&c_in, self.plain.fd(Program::InHash)?, &plain_in).free(SOURCE_PORT),
            one(&ours_in, external, &frames::inbound()).per(&c_in).ratio_below(must),
            one(&in_array, self.plain.fd(Program::InArray)?, &plain_in).free(SOURCE_PORT).per(&c_in),
            one(&c_out, self.plain.fd(Program::OutHash)?, &out),
            one(&ours_out, underlay, &out).per(&c_out),
            one(&out_array, self.plain.fd(Program::OutArray)?, &out).per(&c_out),
        ])
    }

    /// Each packet went the way it was to go.
    fn check_counters(&self, args: &Args) -> Result<()> {
        let runs = u64::from(args.rounds + 1) * u64::from(args.packets.max(self.population.eips()));
        for verdict in [Verdict::ToWorker, Verdict::ToExternal] {
            let counted = self.ours.packets(verdict)?;
            ensure!(counted == runs, "{} counted {counted} packets of {runs}", verdict.name());
        }
        Ok(())
    }

    fn memory(&self) -> Result<[Figure; 3]> {
        let figure = |what: &str, bytes: u64| Figure::new(self.name(what), "MiB", vec![bytes as f64 / MIB]);
        let hash = charged(self.plain.maps(), &["plain_eips", "plain_pods"])?;
        let array = charged(self.plain.maps(), &["cidr_eips", "cidr_pods"])?;
        let ours = charged(self.ours.maps(), &[name::EIPS, name::PODS, name::EIP_COUNTERS])?;
        Ok([
            figure("memory of eips, pods and eip_counters", ours),
            figure("memory of the C hashes", hash),
            figure("memory of the C arrays", array),
        ])
    }
}

/// What the kernel charges for these maps, bytes.
fn charged<'a>(maps: impl Iterator<Item = (&'a str, &'a Map)>, names: &[&str]) -> Result<u64> {
    let mut charged = 0;
    let mut found = 0;
    for (_, map) in maps.filter(|(name, _)| names.contains(name)) {
        let (Map::HashMap(data) | Map::Array(data) | Map::PerCpuArray(data)) = map else {
            bail!("a table of another type")
        };
        let info = format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd());
        let text = fs::read_to_string(&info).with_context(|| format!("reading {info}"))?;
        let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        charged += bytes.context("the kernel says no memlock")?.trim().parse::<u64>()?;
        found += 1;
    }
    ensure!(found == names.len(), "{found} tables of {names:?}");
    Ok(charged)
}
