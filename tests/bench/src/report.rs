//! What a benchmark found: figures with their conditions, as a table, JSON, Markdown and a plot.

mod plot;

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};

/// All a benchmark measured, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Name of the benchmark, and of its files.
    pub(crate) bench: String,
    /// Processor and number of CPUs.
    pub(crate) machine: String,
    /// Kernel release.
    pub(crate) kernel: String,
    /// What was measured; `+` when the checkout had changes.
    pub(crate) commit: String,
    /// How it was measured, a sentence each.
    pub(crate) conditions: Vec<String>,
    /// The figures.
    pub(crate) figures: Vec<Figure>,
}

/// One quantity, measured once or often.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// What it is, and under which load.
    pub(crate) name: String,
    /// Unit of the samples.
    pub(crate) unit: String,
    /// What we want it to stay below, in the same unit.
    pub(crate) aim: Option<f64>,
    /// The aim is to be reached instead.
    #[serde(default)]
    pub(crate) aim_is_least: bool,
    /// The statistic the aim is about.
    pub(crate) aim_of: Statistic,
    /// In ascending order.
    pub(crate) samples: Vec<f64>,
    /// Why there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_possible: Option<String>,
}

/// One number that stands for many samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Statistic {
    /// The 50th percentile.
    Median,
    /// The 99th percentile.
    P99,
    /// The largest.
    Max,
}

impl Figure {
    /// A figure of these samples.
    pub(crate) fn new(name: impl Into<String>, unit: &str, mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let (name, unit) = (name.into(), unit.to_owned());
        Self {
            name,
            unit,
            aim: None,
            aim_is_least: false,
            aim_of: Statistic::Median,
            samples,
            not_possible: None,
        }
    }

    /// One that cannot be measured, and why.
    pub(crate) fn not_possible(name: impl Into<String>, unit: &str, why: impl Into<String>) -> Self {
        Self { not_possible: Some(why.into()), ..Self::new(name, unit, Vec::new()) }
    }

    /// The same, with what we aim for.
    pub(crate) fn aim(mut self, of: Statistic, below: f64) -> Self {
        (self.aim_of, self.aim) = (of, Some(below));
        self
    }

    /// The same, with what we want it to reach.
    pub(crate) fn at_least(self, of: Statistic, least: f64) -> Self {
        Self { aim_is_least: true, ..self.aim(of, least) }
    }

    /// A percentile, 0..=100, by nearest rank; zero without samples.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.samples.len() * percent).div_ceil(100).max(1);
        self.samples.get(rank - 1).copied().unwrap_or_default()
    }

    fn statistic(&self, which: Statistic) -> f64 {
        match which {
            Statistic::Median => self.percentile(50),
            Statistic::P99 => self.percentile(99),
            Statistic::Max => self.percentile(100),
        }
    }

    /// Whether the aim is met; `None` when there is none.
    fn met(&self) -> Option<bool> {
        let reached = self.statistic(self.aim_of);
        self.aim.map(|aim| if self.aim_is_least { reached >= aim } else { reached < aim })
    }

    fn cells(&self) -> [String; 8] {
        if let Some(why) = &self.not_possible {
            let none = || "–".to_owned();
            let (name, unit) = (self.name.clone(), self.unit.clone());
            return [name, unit, none(), none(), none(), none(), none(), format!("not possible: {why}")];
        }
        let aim = self.aim.map_or_else(String::new, |aim| {
            let of = match self.aim_of {
                Statistic::Median => "median",
                Statistic::P99 => "p99",
                Statistic::Max => "max",
            };
            let sign = if self.aim_is_least { "≥" } else { "<" };
            let word = if self.met() == Some(true) { "met" } else { "missed" };
            format!("{of} {sign} {}: {word}", shown(aim))
        });
        [
            self.name.clone(),
            self.unit.clone(),
            shown(self.percentile(0)),
            shown(self.percentile(50)),
            shown(self.percentile(99)),
            shown(self.percentile(100)),
            self.samples.len().to_string(),
            aim,
        ]
    }
}

const HEADER: [&str; 8] = ["figure", "unit", "min", "median", "p99", "max", "samples", "aim"];

impl Report {
    /// An empty report of this machine and checkout.
    pub(crate) fn new(bench: &str) -> Self {
        let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown CPU");
        let git = |words: &[&str]| {
            let output = Command::new("git").args(words).output().ok();
            output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
        };
        let changed = if git(&["status", "--porcelain"]).is_empty() { "" } else { "+" };
        Self {
            bench: bench.to_owned(),
            machine: format!("{cpus} × {}", model.trim_start_matches([' ', '\t', ':'])),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            commit: git(&["rev-parse", "--short=10", "HEAD"]) + changed,
            conditions: Vec::new(),
            figures: Vec::new(),
        }
    }

    /// Reads what [`Report::publish`] wrote.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not what a benchmark wrote", path.display()))
    }

    /// Prints the table.
    pub(crate) fn print(&self) {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(HEADER);
        table.add_rows(self.figures.iter().map(Figure::cells));
        println!("{table}");
    }

    /// Prints the table, and writes `NAME.json`, `NAME.md` and `NAME.svg` into a folder.
    pub(crate) fn publish(&self, folder: &Path) -> Result<()> {
        self.print();
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let path = |extension: &str| folder.join(format!("{}.{extension}", self.bench));
        let json = serde_json::to_string_pretty(self)? + "\n";
        for (extension, text) in [("json", json), ("md", self.markdown())] {
            let path = path(extension);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        plot::draw(self, &path("svg"))?;
        println!("written: {}", path("{json,md,svg}").display());
        Ok(())
    }

    fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let Self { machine, kernel, commit, .. } = self;
        let mut text = format!("{machine}, kernel {kernel}, commit {commit}.\n");
        text.extend(self.conditions.iter().map(|condition| format!("{condition}\n")));
        text.push('\n');
        text += &line(&HEADER.map(str::to_owned));
        text += &line(&HEADER.map(|_| "---".to_owned()));
        text.extend(self.figures.iter().map(|figure| line(&figure.cells())));
        text
    }
}

/// Three significant digits or all before the point; of small values two digits behind it, or three below 0.1.
fn shown(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        ..0.1 => 3,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_nearest_rank() {
        let figure = Figure::new("f", "ms", (1..=200).rev().map(f64::from).collect());
        let all = [0, 50, 99, 100].map(|percent| figure.percentile(percent));
        assert_eq!(all, [1.0, 100.0, 198.0, 200.0]);
        assert_eq!(Figure::new("none", "ms", Vec::new()).percentile(99), 0.0);
    }

    #[test]
    fn what_is_not_possible_has_no_numbers() {
        let figure = Figure::not_possible("f", "ms", "no road");
        assert_eq!(figure.cells(), ["f", "ms", "–", "–", "–", "–", "–", "not possible: no road"]);
    }

    #[test]
    fn an_aim_is_about_its_statistic() {
        let figure = Figure::new("f", "ms", vec![1.0, 2.0, 300.0]);
        assert_eq!(figure.met(), None);
        assert_eq!(figure.clone().aim(Statistic::Median, 100.0).met(), Some(true));
        assert_eq!(figure.clone().aim(Statistic::P99, 100.0).met(), Some(false));
        assert_eq!(figure.clone().at_least(Statistic::Median, 2.0).met(), Some(true));
        assert_eq!(figure.at_least(Statistic::Median, 2.1).met(), Some(false));
    }
}
