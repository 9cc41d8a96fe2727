//! What a person sees: the table of answers, and the reasons for what differs.

use std::fmt::Write;

use comfy_table::{Table, presets};

use crate::compare::Difference;
use crate::experiment::{Findings, Observed};
use crate::intended::{ALL, Judgement};

/// A stimulus, both answers, and what was made of them.
pub(crate) type Judged<'a> = (&'a Observed, Judgement);

/// The page as Markdown, which a terminal shows well too.
pub(crate) fn page(findings: &Findings, judged: &[Judged<'_>]) -> String {
    let same =
        judged.iter().filter(|(_, judgement)| judgement.is_good() && judgement.reasons.is_empty()).count();
    let good = judged.iter().filter(|(_, judgement)| judgement.is_good()).count();
    format!(
        "# Our answers next to a real OVN's\n\n{}, in user space. {} stimuli: {same} answers are the same, {} differ as \
         intended, {} otherwise.\nFields are compared as tshark reads them. TTLs of packets that are passed on differ by \
         one: the kernel of\nour worker is a router too.\n\n{}\n\n{}",
        findings.version,
        judged.len(),
        good - same,
        judged.len() - good,
        table(judged),
        reasons()
    )
}

fn table(judged: &[Judged<'_>]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(["stimulus", "ours", "OVN's", ""]);
    for (observed, judgement) in judged {
        let line = |answer: String| answer.replace('\n', " · ");
        table.add_row([
            observed.stimulus.name.clone(),
            line(observed.ours.to_string()),
            line(observed.ovn.to_string()),
            word(judgement),
        ]);
    }
    table
}

fn word(judgement: &Judgement) -> String {
    if !judgement.is_good() {
        return "UNEXPECTED".to_owned();
    }
    if judgement.reasons.is_empty() {
        return "the same".to_owned();
    }
    let numbers: Vec<_> = judgement.reasons.iter().map(|index| (index + 1).to_string()).collect();
    format!("intended, {}", numbers.join(" and "))
}

fn reasons() -> String {
    let mut text = String::from("The differences we intend:\n\n");
    for (index, group) in ALL.iter().enumerate() {
        let _written = writeln!(text, "{}. {}", index + 1, group.reason);
    }
    text
}

/// What is wrong about one stimulus, for the error.
pub(crate) fn complaint(name: &str, judgement: &Judgement) -> String {
    let list = |what: &str, differences: &[Difference]| -> String {
        let one =
            |d: &Difference| format!("\n  {what}: {} {}: ours {}, OVN's {}", d.at, d.field, d.ours, d.ovn);
        differences.iter().map(one).collect()
    };
    let (unexpected, gone) = (&judgement.unexpected, &judgement.gone);
    format!("{name}{}{}", list("not in the list", unexpected), list("in the list, and no more", gone))
}
