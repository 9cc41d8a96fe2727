//! A report as a picture: one row per figure, from min to max, a dot at the median, a tick at the 99th percentile.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::Report;

const WIDTH: u32 = 1000;
const ROW: u32 = 44;
const LABEL: i32 = 420;
const SCALE: f64 = 470.0;

/// Draws figures with several samples, and says which are not possible; each row has a scale of its own, from zero.
pub(super) fn draw(report: &Report, path: &Path) -> Result<()> {
    let rows: Vec<_> = report
        .figures
        .iter()
        .filter(|figure| figure.samples.len() > 1 || figure.not_possible.is_some())
        .collect();
    let height = ROW * u32::try_from(rows.len())? + ROW;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("drawing {}: {error}", path.display());
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let font = ("sans-serif", 15).into_font();
    let title = format!("{} · {} · {} · {}", report.bench, report.machine, report.kernel, report.commit);
    area.draw(&Text::new(title, (10, 12), font.clone())).map_err(|error| failed(&error))?;
    for (row, figure) in (1..).zip(rows) {
        let middle = row * i32::try_from(ROW)? + 10;
        let full = figure.percentile(100).max(f64::MIN_POSITIVE);
        let at = |percent: usize| LABEL + scaled(figure.percentile(percent) / full);
        let label = format!("{} [{}]", figure.name, figure.unit);
        if figure.not_possible.is_some() {
            for (text, x) in [(label, 10), ("not possible".to_owned(), LABEL)] {
                let text = Text::new(text, (x, middle - 8), font.clone());
                area.draw(&text).map_err(|error| failed(&error))?;
            }
            continue;
        }
        let ends = format!("{:.1}", figure.percentile(100));
        for element in [
            Text::new(label, (10, middle - 8), font.clone()),
            Text::new(ends, (at(100) + 10, middle - 8), font.clone()),
        ] {
            area.draw(&element).map_err(|error| failed(&error))?;
        }
        let line = PathElement::new(vec![(at(0), middle), (at(100), middle)], BLUE.stroke_width(3));
        area.draw(&line).map_err(|error| failed(&error))?;
        let tick = PathElement::new(vec![(at(99), middle - 9), (at(99), middle + 9)], RED.stroke_width(2));
        area.draw(&tick).map_err(|error| failed(&error))?;
        area.draw(&Circle::new((at(50), middle), 6, BLUE.filled())).map_err(|error| failed(&error))?;
    }
    area.present().map_err(|error| failed(&error))
}

#[expect(clippy::cast_possible_truncation, reason = "a share of a picture's width")]
fn scaled(share: f64) -> i32 {
    (share * SCALE) as i32
}
