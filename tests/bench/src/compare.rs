//! `bench compare A.json B.json`: what moved, beyond noise.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use comfy_table::{Table, presets};

use crate::report::{Figure, Report};

/// Say what moved between two runs of a benchmark, beyond noise.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  cargo xtask bench compare before.json target/bench/control.json")]
pub(crate) struct Args {
    /// The earlier run.
    before: PathBuf,
    /// The later run.
    after: PathBuf,
}

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Same,
    Less,
    More,
}

/// Medians closer than this are the same: a shared machine is no steadier.
const NOISE: f64 = 0.10;

/// Carries it out.
pub(crate) fn run(args: &Args) -> Result<()> {
    let (before, after) = (Report::read(&args.before)?, Report::read(&args.after)?);
    ensure!(
        before.bench == after.bench,
        "{} is of `{}`, {} of `{}`: compare two runs of one benchmark",
        args.before.display(),
        before.bench,
        args.after.display(),
        after.bench
    );
    for (what, report) in [("before", &before), ("after", &after)] {
        println!("{what}: {}, kernel {}, commit {}", report.machine, report.kernel, report.commit);
    }
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_FULL_CONDENSED)
        .set_header(["figure", "unit", "before", "after", "change"]);
    for figure in &after.figures {
        let same = |old: &&Figure| old.name == figure.name && old.unit == figure.unit;
        let Some(old) = before.figures.iter().find(same) else { continue };
        if old.not_possible.is_some() || figure.not_possible.is_some() {
            let shown = |figure: &Figure| match figure.not_possible {
                Some(_) => "not possible".to_owned(),
                None => format!("{:.2}", figure.percentile(50)),
            };
            table.add_row([&figure.name, &figure.unit, &shown(old), &shown(figure), ""]);
            continue;
        }
        let (was, is) = (old.percentile(50), figure.percentile(50));
        let word = match change(old, figure) {
            Change::Same => "same within noise".to_owned(),
            Change::Less | Change::More => format!("{:+.0} %", (is / was - 1.0) * 100.0),
        };
        table.add_row([&figure.name, &figure.unit, &format!("{was:.2}"), &format!("{is:.2}"), &word]);
    }
    println!("{table}");
    Ok(())
}

/// Moved when the medians differ by more than noise and either lies outside the middle half of the other run.
fn change(before: &Figure, after: &Figure) -> Change {
    let (was, is) = (before.percentile(50), after.percentile(50));
    let within = |value: f64, of: &Figure| of.percentile(25) <= value && value <= of.percentile(75);
    let near = (is - was).abs() <= NOISE * was.abs();
    if near
        || (before.samples.len() > 1 && within(is, before))
        || (after.samples.len() > 1 && within(was, after))
    {
        Change::Same
    } else if is < was {
        Change::Less
    } else {
        Change::More
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(samples: &[f64]) -> Figure {
        Figure::new("f", "ms", samples.to_vec())
    }

    #[test]
    fn only_what_is_beyond_noise_has_moved() {
        let before = figure(&[9.0, 10.0, 11.0]);
        assert_eq!(change(&before, &figure(&[9.5, 10.5, 11.0])), Change::Same);
        assert_eq!(change(&before, &figure(&[4.0, 5.0, 6.0])), Change::Less);
        assert_eq!(change(&before, &figure(&[19.0, 20.0, 21.0])), Change::More);
        assert_eq!(change(&figure(&[5.0, 20.0, 40.0]), &figure(&[15.0, 30.0, 60.0])), Change::Same);
    }
}
