//! `bench tables`: the agent's writes to the pinned tables and its resync with them, in batches and one system call a row.

mod stock;

use std::{ops::Range, path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use gateway_agent::tables::{TableOp, Tables, diff};
use gateway_common::tables::MAX_EIPS;
use gateway_tests::engines::kernel::object_path;
use nix::time::{ClockId, clock_gettime};

use self::stock::{Stock, rows};
use crate::{
    packets::rounds::pin,
    report::{Figure, Report, Statistic},
    say,
};

/// Writes to the tables, and reading, comparing and correcting them, with 10,000 to 1,000,000 EIPs.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Numbers of EIPs.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, MILLION])]
    eips: Vec<u32>,
    /// Rounds of everything.
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// Our BPF object: another build, with other tables.
    #[arg(long)]
    object: Option<PathBuf>,
}

const MILLION: u32 = 1_000_000;
/// P14, times of a row in batches and in a call of its own: what must be kept, and what is aimed for.
const WRITES: [(&str, f64); 2] = [("must", 1.0 / 2.0), ("aim", 1.0 / 6.0)];
/// P14, resync of a million EIPs, milliseconds.
const RESYNC: [(&str, f64); 2] = [("must", 1000.0), ("aim", 300.0)];

/// Carries it out.
pub(crate) fn run(args: &Args) -> Result<Report> {
    let mut report = Report::new("tables");
    let cpu = pin()?;
    report.conditions = conditions(args, cpu);
    let object = args.object.clone().unwrap_or_else(object_path);
    for eips in &args.eips {
        say(&format!("{} rounds, {eips} EIPs", args.rounds));
        let mut samples = Samples::default();
        let mut stock = Stock::load(&object, *eips)?;
        for _ in 0..args.rounds {
            writes(&mut stock, *eips, &mut samples)?;
            resyncs(&mut stock, *eips, &mut samples)?;
        }
        report.figures.extend(samples.figures(*eips));
    }
    Ok(report)
}

fn conditions(args: &Args, cpu: usize) -> Vec<String> {
    vec![
        format!(
            "On CPU {cpu}, {} rounds. Processor time of the thread, system calls included: what others take of its CPU \
             meanwhile does not count.",
            args.rounds
        ),
        "`one call each` is aya's HashMap, which the agent used before: a system call for each row written, two for each \
         read. Batched is what the agent does. New rows go into an empty table, changed ones overwrite."
            .to_owned(),
        "A resync reads all tables, compares them with what is wanted, and writes the differences, of `eips` and `pods` \
         with a row for each EIP; from nothing, the EIPs' counters are reset besides. What is wanted is there already."
            .to_owned(),
        format!(
            "The tables take {MAX_EIPS} EIPs as shipped; for more, the benchmark's loader sets a larger number."
        ),
    ]
}

/// Processor time of a step.
fn timed<T>(step: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let now = || -> Result<Duration> { Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into()) };
    let since = now()?;
    let done = step()?;
    Ok((now()?.saturating_sub(since).as_secs_f64(), done))
}

/// Figures by name, in the order they came up.
#[derive(Default)]
struct Samples(Vec<(String, &'static str, Vec<f64>)>);

impl Samples {
    fn add(&mut self, name: impl Into<String>, unit: &'static str, value: f64) {
        let name = name.into();
        match self.0.iter_mut().find(|(known, ..)| *known == name) {
            Some((_, _, samples)) => samples.push(value),
            None => self.0.push((name, unit, vec![value])),
        }
    }

    /// With the aims they have.
    fn figures(self, eips: u32) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (name, unit, samples) in self.0 {
            let aims: &[_] = match unit {
                "×" => &WRITES,
                _ if name == UNCHANGED || name == ALL_CHANGED => &RESYNC,
                _ => &[],
            };
            let aims = if eips >= MILLION { aims } else { &[] };
            let name = format!("{name}, {eips} EIPs");
            if aims.is_empty() {
                figures.push(Figure::new(name, unit, samples));
                continue;
            }
            figures.extend(aims.iter().map(|(word, below)| {
                Figure::new(format!("{name} ({word})"), unit, samples.clone()).aim(Statistic::Median, *below)
            }));
        }
        figures
    }
}

/// All rows of `eips`: new, changed and deleted, in batches and one by one.
fn writes(stock: &mut Stock, eips: u32, samples: &mut Samples) -> Result<()> {
    stock.empty()?;
    let ops = |node: u8, of: Range<u32>| -> Vec<TableOp> {
        rows(of, node).map(|(key, eip, _)| TableOp::PutEip(key, eip)).collect()
    };
    let gone: Vec<_> = rows(0..eips, 1).map(|(key, ..)| TableOp::DeleteEip(key)).collect();
    for (what, ops) in [("new", ops(1, 0..eips)), ("changed", ops(2, 0..eips)), ("deleted", gone)] {
        // One by one goes first, and leaves the table as it was.
        let before = stock.maps.read()?.eips;
        let (single, ()) = timed(|| stock.single(&ops))?;
        let after = stock.maps.read()?.eips;
        stock.put_back(&before)?;
        let (batched, ()) = timed(|| Ok(stock.maps.write(&ops)?))?;
        ensure!(stock.maps.read()?.eips == after, "{what}: batches end in other rows");
        let each = |seconds: f64| seconds * 1e9 / f64::from(eips);
        samples.add(format!("a {what} row, one call each"), "ns", each(single));
        samples.add(format!("a {what} row, batched"), "ns", each(batched));
        samples.add(format!("a {what} row, batched / one call each"), "×", batched / single);
    }
    Ok(())
}

const UNCHANGED: &str = "resync, nothing changed";
const ALL_CHANGED: &str = "resync, all changed";

/// From nothing, with nothing changed, and with all rows changed; then what the one by one way took.
fn resyncs(stock: &mut Stock, eips: u32, samples: &mut Samples) -> Result<()> {
    stock.empty()?;
    let (first, second) = (wanted(eips, 3), wanted(eips, 4));
    for (what, want) in [("resync, from nothing", &first), (UNCHANGED, &first), (ALL_CHANGED, &second)] {
        let (read, held) = timed(|| Ok(stock.maps.read()?))?;
        let (compare, plan) = timed(|| Ok(diff(want, &held)))?;
        let (write, ()) = timed(|| Ok(stock.maps.write(&plan)?))?;
        for (part, seconds) in
            [("", read + compare + write), (": read", read), (": compare", compare), (": write", write)]
        {
            samples.add(format!("{what}{part}"), "ms", seconds * 1e3);
        }
        ensure!(stock.maps.read()? == *want, "{what}: the tables are not what is wanted");
    }
    let plan = diff(&first, &second);
    let (read, ()) = timed(|| stock.read_single())?;
    let (write, ()) = timed(|| stock.single(&plan))?;
    samples.add("reading, one call each", "ms", read * 1e3);
    samples.add("writing all changed, one call each", "ms", write * 1e3);
    Ok(())
}

/// A gateway's tables with so many EIPs on pods of one node.
fn wanted(eips: u32, node: u8) -> Tables {
    let rows = || rows(0..eips, node);
    Tables {
        eips: rows().map(|(key, eip, _)| (key, eip)).collect(),
        pods: rows().map(|(.., pod)| pod).collect(),
        ..Tables::default()
    }
}
