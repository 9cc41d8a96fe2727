//! What others see of the loop: metrics, health, and the state that reports are written from.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::outcome::Outcome;
use super::{Options, SourceOptions};
use crate::config;
use crate::desired::problem::{Kind, Problem};
use crate::desired::{Desired, State};
use crate::http::{self, Health, Place, Scrapes, Served};
use crate::metrics::{Exposition, Metrics};
use crate::report;
use crate::snapshot::Snapshot;

/// Steps without which no EIP is served.
const SERVING: [&str; 5] = ["nftables", "router port", "tables", "programs", "policy routes"];

/// Told of all the loop does; never makes it wait.
pub(super) struct Observer {
    node: String,
    metrics: Metrics,
    health: Arc<Health>,
    /// Where this node is on the networks.
    place: watch::Sender<Place>,
    /// When a source told of a change that is not in the tables yet.
    event: Option<Instant>,
    /// Where what is written back is planned.
    report: Option<watch::Sender<Arc<report::State>>>,
}

impl Observer {
    /// Serves metrics and health where told to, and writes back to the cluster that is the source. Manifests in a
    /// directory are their author's.
    pub(super) fn start(options: &Options) -> Self {
        let (metrics, health) = (Metrics::default(), Arc::new(Health::default()));
        let place = watch::Sender::new(Place::default());
        if let Some(address) = options.metrics {
            let scrapes = Arc::new(Scrapes::new(Arc::new(Exposition::new(&metrics, &options.pin))));
            let served = Served { health: Arc::clone(&health), scrapes, place: place.subscribe() };
            tokio::spawn(http::run(address, Arc::new(served)));
        }
        let report = match &options.source {
            SourceOptions::Dir(_) => None,
            SourceOptions::Kube(kubeconfig) => {
                Some(report::send::start(kubeconfig.clone(), &options.node, metrics.clone()))
            }
        };
        Self { node: options.node.clone(), metrics, health, place, event: None, report }
    }

    /// The loop went round.
    pub(super) fn tick(&self) {
        self.health.tick();
    }

    /// Everything is about to be compared with the kernel.
    pub(super) fn resync(&self) {
        self.metrics.resynced();
    }

    /// A source told of a change.
    pub(super) fn event(&mut self) {
        self.event.get_or_insert_with(Instant::now);
    }

    /// The host could not be read, so nothing was decided.
    pub(super) fn host_failed(&self, problem: &Problem) {
        self.metrics.step_failed("host");
        self.health.set_missing(Some(problem.to_string()));
    }

    /// A decision was made and carried out as far as `outcome` says; `programmed` is what the tables serve now.
    pub(super) fn passed(
        &mut self,
        snapshot: Snapshot,
        decided: Desired,
        programmed: BTreeMap<Ipv4Addr, Ipv4Addr>,
        outcome: &Outcome,
    ) {
        if let Some(arrived) = snapshot.changed_at.map(Instant::from_std) {
            self.event = Some(self.event.map_or(arrived, |event| event.min(arrived)));
        }
        self.metrics.decided(&decided, &self.node);
        self.metrics.table_ops(outcome.table_ops);
        self.metrics.arp_conflicts(snapshot.external.conflicts);
        for step in &outcome.failed {
            self.metrics.step_failed(step);
        }
        if outcome.complete
            && let Some(event) = self.event.take()
            && outcome.table_ops > 0
        {
            self.metrics.event_to_map(event.elapsed());
        }
        let port = match &decided.state {
            State::Datapath(datapath) => datapath.router_port.as_ref(),
            State::Keep | State::Withdrawn => None,
        };
        let place = Place::of(&snapshot);
        self.place.send_if_modified(|known| {
            let changed = *known != place;
            *known = place;
            changed
        });
        if !outcome.again {
            let owner = decided.gateways.owner.as_ref() == Some(&self.node);
            self.health.set_missing(missing(&decided, outcome, owner && port.is_none()));
        }
        if let Some(report) = &self.report {
            let serves = !outcome.again && !outcome.failed.iter().any(|step| SERVING.contains(step));
            let programmed = if serves { programmed } else { BTreeMap::new() };
            report.send_replace(Arc::new(report::State { snapshot, desired: decided, programmed }));
        }
    }
}

/// What is missing for this node to be synced and attached; `unattached`: it owns the external network without being on it.
fn missing(decided: &Desired, outcome: &Outcome, unattached: bool) -> Option<String> {
    let first = |problems: &[Problem], wanted: fn(&Problem) -> bool| {
        problems.iter().find(|problem| wanted(problem)).map(Problem::to_string)
    };
    let refused = || {
        first(&decided.problems, |problem| {
            problem.kind == Kind::Refused && !problem.object.starts_with("pod ")
        })
    };
    match decided.state {
        State::Keep => Some(
            refused()
                .unwrap_or_else(|| format!("waiting for ConfigMap {}/{}", config::NAMESPACE, config::NAME)),
        ),
        State::Datapath(_) if unattached => {
            Some(refused().unwrap_or_else(|| "the external NIC is not attached".to_owned()))
        }
        State::Withdrawn | State::Datapath(_) if !outcome.complete => {
            Some(first(&outcome.problems, |_| true).unwrap_or_else(|| "a step failed".to_owned()))
        }
        State::Withdrawn | State::Datapath(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Datapath;

    #[test]
    fn ready_is_synced_and_attached() {
        let refused = Problem::refused("configmap a/b", "data[nic-ip]", "bad", "mend it");
        let pod = Problem::refused("pod a/b", "x", "bad", "mend it");
        let done = || Outcome { complete: true, ..Outcome::default() };
        let failed = Outcome {
            problems: vec![Problem::warning("node gw1", "tables", "full", "x")],
            ..Outcome::default()
        };
        let datapath = || State::Datapath(Box::<Datapath>::default());
        for (state, problems, outcome, unattached, expected) in [
            (
                State::Keep,
                vec![],
                done(),
                false,
                Some("waiting for ConfigMap kube-system/ovn-external-gw-config"),
            ),
            (
                State::Keep,
                vec![pod.clone(), refused.clone()],
                done(),
                false,
                Some("configmap a/b: data[nic-ip]: bad; mend it"),
            ),
            (State::Withdrawn, vec![], done(), false, None),
            (datapath(), vec![pod], done(), false, None),
            (datapath(), vec![refused], done(), true, Some("configmap a/b: data[nic-ip]: bad; mend it")),
            (datapath(), vec![], failed, false, Some("node gw1: tables: full; x")),
        ] {
            let decided = Desired { state, problems, ..Desired::default() };
            assert_eq!(missing(&decided, &outcome, unattached).as_deref(), expected, "{decided:?}");
        }
    }
}
