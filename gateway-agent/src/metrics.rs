//! What `/metrics` says: OpenMetrics text, names with the prefix `eip_gateway_`.
//!
//! Counters of packets, and how full the tables are, are read from the pinned tables at each scrape; the rest is
//! what the loop and the reports note here. Label values come from closed sets, but for `eip`.

mod firewall;
mod maps;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gateway_common::ABI_VERSION;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::desired::problem::{Kind, Problem};
use crate::desired::{Desired, State};

/// Content type of [`Exposition::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the buckets of `event_to_map_seconds`.
const LATENCY_BUCKETS: [f64; 11] = [0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// What the agent notes about itself. Cheap to clone, all clones are one.
#[derive(Clone, Debug)]
pub struct Metrics {
    eips: Family<Labels<1>, Gauge>,
    owner: Gauge,
    table_ops: Counter,
    resyncs: Counter,
    step_errors: Family<Labels<1>, Counter>,
    event_to_map: Histogram,
    api_writes: Family<Labels<2>, Counter>,
    arp_conflicts: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            eips: Family::default(),
            owner: Gauge::default(),
            table_ops: Counter::default(),
            resyncs: Counter::default(),
            step_errors: Family::default(),
            event_to_map: Histogram::new(LATENCY_BUCKETS),
            api_writes: Family::default(),
            arp_conflicts: Counter::default(),
        };
        for state in ["bound", "refused", "conflict"] {
            metrics.set_eips(state, 0);
        }
        metrics
    }
}

impl Metrics {
    /// Takes a decision over; one that changes nothing leaves what was bound before.
    pub fn decided(&self, desired: &Desired, node: &str) {
        let pods = |kind: Kind| {
            let of_kind = |problem: &&Problem| problem.kind == kind && problem.object.starts_with("pod ");
            desired.problems.iter().filter(of_kind).count()
        };
        self.set_eips("refused", pods(Kind::Refused));
        self.set_eips("conflict", pods(Kind::Conflict));
        if desired.state != State::Keep {
            self.set_eips("bound", desired.bindings().count());
            self.owner.set(i64::from(desired.gateways.owner.as_deref() == Some(node)));
        }
    }

    /// So many ARP packets of others have claimed one of our addresses by now.
    pub fn arp_conflicts(&self, total: u64) {
        self.arp_conflicts.inc_by(total.saturating_sub(self.arp_conflicts.get()));
    }

    fn set_eips(&self, state: &'static str, count: usize) {
        self.eips.get_or_create(&[("state", state)]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Rows of tables were written or deleted.
    pub fn table_ops(&self, ops: usize) {
        self.table_ops.inc_by(u64::try_from(ops).unwrap_or(u64::MAX));
    }

    /// Everything was compared with the kernel.
    pub fn resynced(&self) {
        self.resyncs.inc();
    }

    /// A step of a pass failed.
    pub fn step_failed(&self, step: &'static str) {
        self.step_errors.get_or_create(&[("step", step)]).inc();
    }

    /// A change of the objects was in the tables this long after its source told of it.
    pub fn event_to_map(&self, time: Duration) {
        self.event_to_map.observe(time.as_secs_f64());
    }

    /// The API server answered a write, or did not.
    pub fn api_write(&self, kind: &'static str, result: &'static str) {
        self.api_writes.get_or_create(&[("kind", kind), ("result", result)]).inc();
    }
}

/// All metrics, ready to be scraped.
#[derive(Debug)]
pub struct Exposition {
    registry: Registry,
    firewall: Arc<firewall::Firewall>,
}

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// It could not be put together.
    #[error("cannot write the metrics: {source}")]
    Text {
        /// Cause.
        #[from]
        source: std::fmt::Error,
    },
    /// Its thread ended early.
    #[error("cannot read the tables: {source}")]
    Task {
        /// Cause.
        #[from]
        source: tokio::task::JoinError,
    },
}

impl Exposition {
    /// What `metrics` notes, and the tables pinned under `pin`.
    pub fn new(metrics: &Metrics, pin: &Path) -> Self {
        let mut registry = Registry::with_prefix("eip_gateway");
        let build: Info<[(&str, String); 2]> =
            Info::new([("version", env!("CARGO_PKG_VERSION").to_owned()), ("abi", ABI_VERSION.to_string())]);
        registry.register("build", "Version of the agent and of the tables", build);
        registry.register("eips", "EIPs as decided last, cluster-wide, by state", metrics.eips.clone());
        registry.register("owner", "1 when this node owns the external network", metrics.owner.clone());
        registry.register(
            "table_ops",
            "Rows of the tables written or deleted, not counting routes and nftables",
            metrics.table_ops.clone(),
        );
        registry.register(
            "resyncs",
            "Times everything was compared with the kernel",
            metrics.resyncs.clone(),
        );
        registry.register(
            "step_errors",
            "Failed steps of a pass, each tried again",
            metrics.step_errors.clone(),
        );
        registry.register(
            "event_to_map_seconds",
            "Time from a source's news of a change to the tables holding it",
            metrics.event_to_map.clone(),
        );
        registry.register(
            "api_writes",
            "Writes to the Kubernetes API by kind and result",
            metrics.api_writes.clone(),
        );
        registry.register(
            "arp_conflicts",
            "ARP packets of others that claimed one of our addresses on the external network",
            metrics.arp_conflicts.clone(),
        );
        registry.register_collector(Box::new(maps::Pinned::new(pin)));
        let firewall = Arc::<firewall::Firewall>::default();
        registry.register_collector(Box::new(Arc::clone(&firewall)));
        Self { registry, firewall }
    }

    /// The metrics now, without making the caller's thread wait.
    ///
    /// # Errors
    /// [`ScrapeError`].
    pub async fn scrape(self: Arc<Self>) -> Result<String, ScrapeError> {
        self.firewall.read().await;
        Ok(tokio::task::spawn_blocking(move || self.text()).await??)
    }

    /// The metrics, with the pinned tables as they are now: for a thread that may block.
    ///
    /// # Errors
    /// Nothing but a formatter's.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
