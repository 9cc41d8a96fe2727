//! What a pass of the writer did.

use super::report::step_failed;
use crate::desired::problem::Problem;

/// What one pass did.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Things written.
    pub(super) changes: usize,
    /// Of these, rows of the tables.
    pub(super) table_ops: usize,
    /// Steps that failed, and fallbacks in use.
    pub(super) problems: Vec<Problem>,
    /// Names of the steps that failed.
    pub(super) failed: Vec<&'static str>,
    /// All steps were carried out.
    pub(super) complete: bool,
    /// Something was made that the next pass has to look at: do it at once.
    pub(super) again: bool,
}

impl Outcome {
    pub(super) fn failed(&mut self, node: &str, step: &'static str, error: &dyn std::error::Error) {
        self.problems.push(step_failed(node, step, error));
        self.failed.push(step);
    }

    /// Nothing failed that packets need which are led to the programs. A neighbour is resolved by
    /// the kernel when need be.
    pub(super) fn may_lead(&self) -> bool {
        self.failed.iter().all(|step| *step == "neighbours")
    }
}
