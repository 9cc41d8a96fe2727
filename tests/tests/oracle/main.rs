//! Our answers next to a real OVN's: the same frames into a lab of ours and into one where OVN takes the place of our
//! agents, and what comes out compared field by field. Needs root, and `cargo xtask build` before.

mod compare;
mod experiment;
mod expert;
mod intended;
mod observe;
mod stimuli;
mod table;

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::experiment::Observed;
use crate::intended::Judgement;

fn judge(observed: &Observed) -> Judgement {
    let found = compare::differences(&observed.ours, &observed.ovn);
    intended::judge(&observed.stimulus.name, &found, intended::ALL)
}

#[test]
fn we_differ_from_ovn_where_we_intend_to() -> Result<()> {
    let findings = experiment::run(|observed| judge(observed).is_good())?;
    let judged: Vec<_> = findings.observed.iter().map(|observed| (observed, judge(observed))).collect();
    let page = table::page(&findings, &judged);
    println!("{page}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target"));
    fs::create_dir_all(target.join("oracle"))?;
    fs::write(target.join("oracle/oracle.md"), &page)?;
    let mut wrong: Vec<_> = judged
        .iter()
        .filter(|(_, judgement)| !judgement.is_good())
        .map(|(observed, judgement)| table::complaint(&observed.stimulus.name, judgement))
        .collect();
    for (wire, frames) in &findings.wires {
        wrong.extend(expert::remarks(wire, frames, &findings.unsound)?);
    }
    ensure!(wrong.is_empty(), "{} of {} answers:\n{}", wrong.len(), judged.len(), wrong.join("\n"));
    Ok(())
}
