//! All stores, and what is wrong with their watches.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use gateway_common::addr::Prefix;
use imbl::OrdMap;

use super::connection::{Failure, Trouble};
use super::store::Store;
use crate::desired::problem::Problem;
use crate::snapshot::{Node, ObjectName, Pod, Vmi};

/// Pods, and whether these are only a part.
pub(super) type PodsView = (OrdMap<ObjectName, Pod>, bool);

/// What the watches have shown so far.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) nodes: Store<Node>,
    pub(super) config_maps: Store<BTreeMap<String, String>>,
    pub(super) all_pods: Store<Pod>,
    pub(super) own_pods: Store<Pod>,
    pub(super) bound_pods: Store<Pod>,
    pub(super) vmis: Store<Vmi>,
    pub(super) service_cidrs: Store<Vec<Prefix>>,
    /// Optional resources that are not served, or that we may not read.
    pub(super) absent: BTreeSet<&'static str>,
    /// When the oldest change arrived that was not looked at yet.
    pub(super) changed_at: Option<Instant>,
    failures: BTreeMap<&'static str, Failure>,
    /// Why the API server could not be reached when that began.
    outage: Option<String>,
}

impl World {
    /// Every optional resource is known, or known to be absent.
    pub(super) fn optional_settled(&self) -> bool {
        (self.vmis.kept().is_some() || self.absent.contains(super::resource::VMIS))
            && (self.service_cidrs.kept().is_some() || self.absent.contains(super::resource::SERVICE_CIDRS))
    }

    /// The watch of a resource failed. Returns whether that is news.
    pub(super) fn failed(&mut self, what: &'static str, mut failure: Failure) -> bool {
        if failure.trouble == Trouble::Unreachable {
            // Of one outage the first word counts: it is told once.
            failure.message.clone_from(self.outage.get_or_insert(failure.message.clone()));
        }
        match self.failures.get(what) {
            Some(known) if *known == failure => false,
            Some(_) | None => {
                self.failures.insert(what, failure);
                true
            }
        }
    }

    /// The list of a resource is complete: the API server answers and knows us. Whether the watch that follows is
    /// allowed is not said by that. Returns whether it is news.
    pub(super) fn listed(&mut self, what: &'static str) -> bool {
        match self.failures.get(what).map(|failure| failure.trouble) {
            Some(Trouble::Client | Trouble::Unreachable | Trouble::Unauthorized) => self.succeeded(what),
            Some(Trouble::Forbidden | Trouble::NotServed | Trouble::Gone | Trouble::Refused) | None => false,
        }
    }

    /// The watch of a resource works. Returns whether that is news.
    pub(super) fn succeeded(&mut self, what: &'static str) -> bool {
        let known = self.failures.remove(what);
        if !self.failures.values().any(|failure| failure.trouble == Trouble::Unreachable) {
            self.outage = None;
        }
        known.is_some()
    }

    /// What the objects and the watches have wrong, each thing once.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems: BTreeMap<(String, String), Problem> = BTreeMap::new();
        for (what, failure) in &self.failures {
            let problem = failure.problem(what);
            problems.entry((problem.object.clone(), problem.field.clone())).or_insert(problem);
        }
        let mut problems: Vec<_> = problems.into_values().collect();
        problems.extend(self.nodes.problems().cloned());
        problems.extend(self.all_pods.problems().cloned());
        problems.extend(self.own_pods.problems().cloned());
        problems.extend(self.bound_pods.problems().cloned());
        problems.extend(self.service_cidrs.problems().cloned());
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(trouble: Trouble, message: &str) -> Failure {
        Failure { trouble, message: message.to_owned() }
    }

    #[test]
    fn an_api_server_that_is_away_is_told_once() {
        let mut world = World::default();
        assert!(world.failed("nodes", failure(Trouble::Unreachable, "Connection refused")));
        assert!(world.failed("pods", failure(Trouble::Unreachable, "connection closed")));
        assert!(!world.failed("pods", failure(Trouble::Unreachable, "timed out")), "the same outage");
        assert!(world.failed("configmaps", failure(Trouble::Forbidden, "no")));
        let problems: Vec<_> = world.problems().iter().map(Problem::to_string).collect();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("API server: configmaps: no; "), "{problems:?}");
        assert!(problems[1].starts_with("API server: connection: Connection refused; "), "{problems:?}");
        for what in ["nodes", "pods", "configmaps"] {
            assert!(world.succeeded(what) && !world.succeeded(what));
        }
        assert!(world.problems().is_empty());
    }

    #[test]
    fn a_list_proves_a_connection_but_no_permission_to_watch() {
        let mut world = World::default();
        for (trouble, over) in [
            (Trouble::Client, true),
            (Trouble::Unreachable, true),
            (Trouble::Unauthorized, true),
            (Trouble::Forbidden, false),
            (Trouble::Refused, false),
        ] {
            assert!(world.failed("nodes", failure(trouble, "why")));
            assert_eq!(world.listed("nodes"), over, "{trouble:?}");
            assert_eq!(world.succeeded("nodes"), !over, "{trouble:?}");
        }
    }
}
