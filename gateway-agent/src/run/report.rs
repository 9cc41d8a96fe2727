//! Problems in the log: once when they appear, once when they are gone.

use std::collections::BTreeSet;

use tracing::{error, info, warn};

use crate::desired::problem::{Kind, Problem};

/// What the operator was told.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    told: BTreeSet<Problem>,
}

impl Reporter {
    /// These are the problems now.
    pub(super) fn report(&mut self, problems: impl IntoIterator<Item = Problem>) {
        let now: BTreeSet<Problem> = problems.into_iter().collect();
        for problem in self.told.difference(&now) {
            if !now.iter().any(|other| same_place(other, problem)) {
                info!(object = problem.object, field = problem.field, "no longer: {}", problem.message);
            }
        }
        for problem in now.difference(&self.told) {
            match problem.kind {
                Kind::Refused => error!("refused: {problem}"),
                Kind::Conflict => warn!("conflict: {problem}"),
                Kind::Contested => warn!("contested: {problem}"),
                Kind::Warning => warn!("{problem}"),
            }
        }
        self.told = now;
    }
}

fn same_place(a: &Problem, b: &Problem) -> bool {
    a.object == b.object && a.field == b.field
}

/// A failed step as a problem: the error's text up to the last semicolon, and the remedy after it.
pub(super) fn step_failed(node: &str, step: &str, error: &dyn std::error::Error) -> Problem {
    let text = error.to_string();
    let (message, remedy) = text.rsplit_once("; ").unwrap_or((&text, "the agent tries again by itself"));
    Problem {
        kind: Kind::Warning,
        object: format!("node {node}"),
        field: step.to_owned(),
        message: message.to_owned(),
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_keeps_its_remedy() {
        let problem = step_failed("gw1", "nftables", &std::io::Error::other("cannot run nft: x; install it"));
        assert_eq!(problem.to_string(), "node gw1: nftables: cannot run nft: x; install it");
    }
}
