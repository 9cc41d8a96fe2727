//! The committed ratios of `bench program`, and which of a run's are beyond them.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::report::Report;

/// Ratios of one run: they, and not times, can be compared with another machine's.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Baseline {
    /// Where and of what they were measured.
    machine: String,
    kernel: String,
    commit: String,
    /// Medians, by name of figure.
    ratios: BTreeMap<String, f64>,
}

/// A ratio this much over the committed one is worth a warning.
const WORSE: f64 = 1.15;
/// Unless it is less than this: a few nanoseconds of what C takes are noise.
const NOISE: f64 = 0.06;

/// Where it is committed.
fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.json"))
}

impl Baseline {
    /// Of a run.
    pub(crate) fn of(report: &Report) -> Self {
        let ratios = report.figures.iter().filter(|figure| figure.unit == "×");
        Self {
            machine: report.machine.clone(),
            kernel: report.kernel.clone(),
            commit: report.commit.clone(),
            ratios: ratios.map(|figure| (figure.name.clone(), rounded(figure.percentile(50)))).collect(),
        }
    }

    /// The committed one.
    pub(crate) fn committed() -> Result<Self> {
        let path = path();
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not what --save-baseline wrote", path.display()))
    }

    /// Writes it where it is committed.
    pub(crate) fn save(&self) -> Result<()> {
        let path = path();
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// What a run has that is worse than it should be, a line each; and what it lacks.
    pub(crate) fn worse(&self, now: &Self) -> Vec<String> {
        let judge = |(name, was): (&String, &f64)| match now.ratios.get(name) {
            Some(is) if *is > (was * WORSE).max(was + NOISE) => Some(format!(
                "{name}: {is:.2}, {:.0} % over {was:.2} of commit {}",
                (is / was - 1.0) * 100.0,
                self.commit
            )),
            Some(_) => None,
            None => Some(format!("{name}: not measured any more; {was:.2} at commit {}", self.commit)),
        };
        self.ratios.iter().filter_map(judge).collect()
    }

    /// Where it comes from.
    pub(crate) fn source(&self) -> String {
        format!("commit {}, {}, kernel {}", self.commit, self.machine, self.kernel)
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Figure;

    fn baseline(ratio: f64) -> Baseline {
        let mut report = Report::new("program");
        report.figures = vec![
            Figure::new("in / C", "×", vec![ratio, ratio * 9.0, ratio / 9.0]),
            Figure::new("in", "ns net", vec![1.0]),
        ];
        Baseline::of(&report)
    }

    #[test]
    fn only_ratios_that_grew_by_more_than_15_percent_are_worse() {
        let committed = baseline(2.0);
        assert_eq!(committed.ratios.len(), 1);
        for fine in [1.0, 2.0, 2.29] {
            assert!(committed.worse(&baseline(fine)).is_empty(), "{fine}");
        }
        let worse = committed.worse(&baseline(2.32));
        assert_eq!(worse.len(), 1);
        assert!(worse[0].starts_with("in / C: 2.32, 16 % over 2.00"), "{}", worse[0]);
    }

    #[test]
    fn a_few_nanoseconds_are_noise() {
        assert!(baseline(0.02).worse(&baseline(0.07)).is_empty());
        assert_eq!(baseline(0.02).worse(&baseline(0.09)).len(), 1);
    }

    #[test]
    fn a_figure_that_is_gone_is_said() {
        let committed = baseline(2.0);
        let mut now = baseline(2.0);
        now.ratios.clear();
        assert!(committed.worse(&now)[0].starts_with("in / C: not measured any more"));
    }

    #[test]
    fn the_committed_one_reads() {
        assert!(Baseline::committed().expect("it reads").ratios.len() > 5);
    }
}
