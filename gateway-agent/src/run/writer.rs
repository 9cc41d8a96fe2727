//! The one writer: brings this node's kernel to what is desired, and keeps it there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use gateway_common::addr::Mac;
use gateway_common::tables::CONFIG_OWNER;
use rtnetlink::Handle;
use tokio::sync::watch;
use tracing::info;

use super::report::step_failed;
use crate::announce::{Announcer, Order, Uplink};
use crate::apply::bpf::{self, BpfError, Loaded, Maps, Object};
use crate::apply::neighbor::{Keeper, Observed};
use crate::apply::shortcut::{self, Shortcut};
use crate::apply::{errors, link, nft, route};
use crate::attach::Attachments;
use crate::desired::problem::Problem;
use crate::desired::{Datapath, Route, RouterPort};
use crate::snapshot::{External, Host};
use crate::tables::{self, Tables};
use crate::teardown::teardown;

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
    fn failed(&mut self, node: &str, step: &'static str, error: &dyn std::error::Error) {
        self.problems.push(step_failed(node, step, error));
        self.failed.push(step);
    }
}

/// How much of what was written before is compared with the kernel again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Verify {
    /// Nothing: only what is wanted has changed.
    Nothing,
    /// Hooks, routes and the nftables table: somebody changed links, addresses or routes.
    Networking,
    /// The tables too.
    Everything,
}

/// What the kernel was last made to hold, to pass over what need not be compared again.
#[derive(Clone, PartialEq, Debug)]
struct Networking {
    rules: BTreeSet<Ipv4Addr>,
    routes: BTreeSet<Route>,
    elements: nft::Elements,
    shortcut: Option<Shortcut>,
    errors: bool,
}

/// Holds what is needed to write, and what was written.
pub(super) struct Writer {
    node: String,
    pin: PathBuf,
    object: Object,
    handle: Handle,
    loaded: Option<Loaded>,
    known: Tables,
    attachments: Attachments,
    networking: Option<Networking>,
    keeper: Keeper,
    announcer: Announcer,
    started: bool,
}

impl Writer {
    /// A writer that takes over what an earlier agent left under `pin`.
    pub(super) fn new(
        node: String,
        pin: PathBuf,
        object: Object,
        handle: Handle,
    ) -> (Self, watch::Receiver<Arc<External>>) {
        let known = Maps::open(&pin).and_then(|maps| maps.read()).unwrap_or_default();
        let announced = known.config.filter(|config| config.flags & CONFIG_OWNER != 0).map(|config| {
            let eips = known.eips.keys().map(|key| Ipv4Addr::from(key.eip));
            (Mac(config.nic_mac), eips.chain([Ipv4Addr::from(config.nic_ip)]).collect())
        });
        let (announcer, found) = Announcer::start(RouterPort::NAME, announced);
        let writer = Self {
            attachments: Attachments::new(&pin),
            announcer,
            node,
            pin,
            object,
            handle,
            loaded: None,
            known,
            networking: None,
            keeper: Keeper::default(),
            started: false,
        };
        (writer, found)
    }

    /// EIPs that were accepted, as the tables hold them: at start, what an earlier agent served or was ready to serve.
    pub(super) fn accepted(&self) -> BTreeSet<Ipv4Addr> {
        self.known.eips.keys().map(|key| key.eip.into()).collect()
    }

    /// EIP → pod address, as the tables hold it: at start, what an earlier agent served.
    pub(super) fn held(&self) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
        self.known.served()
    }

    /// EIP → pod address of what is served here and now: rows that the tables hold, while their configuration says
    /// that this node owns the external network. Empty on other nodes.
    pub(super) fn programmed(&self) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
        let owner = self.known.config.is_some_and(|config| config.flags & CONFIG_OWNER != 0);
        if owner { self.known.served() } else { BTreeMap::new() }
    }

    /// Removes everything; the tables are loaded anew when they are wanted again.
    pub(super) async fn withdraw(&mut self) -> Outcome {
        self.announcer.disown();
        self.loaded = None;
        self.known = Tables::default();
        self.networking = None;
        self.attachments = Attachments::new(&self.pin);
        let report = teardown(&self.handle, &self.pin).await;
        let mut outcome = Outcome { changes: report.removed.len(), ..Outcome::default() };
        for error in &report.errors {
            outcome.failed(&self.node, "withdrawal", error);
        }
        outcome.complete = report.errors.is_empty();
        outcome
    }

    /// Carries out what is desired, each step even if another one failed. What was written before is compared
    /// with the kernel again as far as `verify` says.
    ///
    /// # Errors
    /// [`BpfError`] when the tables cannot be loaded at all: nothing can be done then.
    pub(super) async fn apply(
        &mut self,
        wanted: &Datapath,
        host: &Host,
        neighbors: Observed<'_>,
        verify: Verify,
    ) -> Result<Outcome, BpfError> {
        self.load()?;
        let mut outcome = Outcome::default();
        if let Some(port) = &wanted.router_port {
            let made = link::apply(&self.handle, &host.links, Some(port)).await;
            outcome.again = self.done(&mut outcome, "router port", made.map(usize::from)) > 0;
        }
        let plan = self.keeper.plan(&wanted.resolve, neighbors);
        let asked = self.keeper.apply(&self.handle, &plan).await;
        self.done(&mut outcome, "neighbours", asked.map(|_| 0));
        if outcome.again {
            return Ok(outcome);
        }
        let rows = self.write_rows(wanted, verify);
        outcome.table_ops = self.done(&mut outcome, "tables", rows);
        self.attach(wanted, host, verify, &mut outcome).await;
        self.write_networking(wanted, verify, &mut outcome).await;
        if wanted.router_port.is_none() {
            let removed = link::apply(&self.handle, &host.links, None).await;
            self.done(&mut outcome, "router port", removed.map(usize::from));
        }
        match &wanted.router_port {
            Some(port) => self.announcer.own(order(wanted, port, host)),
            None => self.announcer.disown(),
        }
        outcome.complete = outcome.problems.is_empty();
        outcome.problems.extend(self.attachments.warnings());
        Ok(outcome)
    }

    fn load(&mut self) -> Result<(), BpfError> {
        if self.loaded.is_some() {
            return Ok(());
        }
        bpf::prepare(&self.pin)?;
        let loaded = self.object.load(&self.pin)?;
        self.known = loaded.maps.read()?;
        self.loaded = Some(loaded);
        self.started = false;
        Ok(())
    }

    fn write_rows(&mut self, wanted: &Datapath, verify: Verify) -> Result<usize, BpfError> {
        let Some(loaded) = &mut self.loaded else { return Ok(0) };
        if verify == Verify::Everything {
            self.known = loaded.maps.read()?;
        }
        let rows = tables::rows(wanted, &self.known)?;
        let plan = tables::diff(&rows, &self.known);
        if !self.started {
            let Tables { eips, pods, vteps, neighbors, internal, .. } = &self.known;
            let held = eips.len() + pods.len() + vteps.len() + neighbors.len() + internal.len();
            info!("adopted {held} rows, {} differences", plan.len());
            self.started = true;
        }
        if let Err(error) = loaded.maps.write(&plan) {
            // What was written so far is read back by the next attempt.
            self.known = loaded.maps.read()?;
            return Err(error);
        }
        self.known = rows;
        Ok(plan.len())
    }

    async fn attach(&mut self, wanted: &Datapath, host: &Host, verify: Verify, outcome: &mut Outcome) {
        let Some(loaded) = &mut self.loaded else { return };
        let (changed, errors) = self
            .attachments
            .apply(&mut loaded.ebpf, &self.handle, &host.links, &wanted.hooks, verify > Verify::Nothing)
            .await;
        outcome.changes += changed;
        for error in &errors {
            outcome.failed(&self.node, "programs", error);
        }
    }

    async fn write_networking(&mut self, wanted: &Datapath, verify: Verify, outcome: &mut Outcome) {
        let elements = nft::Elements::of(wanted);
        let networking = Networking {
            rules: wanted.rules.clone(),
            routes: wanted.routes.clone(),
            shortcut: Shortcut::of(wanted, &elements),
            errors: errors::wanted(wanted),
            elements,
        };
        if verify == Verify::Nothing && self.networking.as_ref() == Some(&networking) {
            return;
        }
        let before = outcome.problems.len();
        let known = self.networking.as_ref().filter(|_| verify == Verify::Nothing);
        let elements = nft::apply(&networking.elements, known.map(|known| &known.elements)).await;
        self.done(outcome, "nftables", elements.map(usize::from));
        let routes = route::apply(&self.handle, &networking.rules, &networking.routes).await;
        self.done(outcome, "policy routes", routes.map(|changes| changes.added + changes.deleted));
        let shortcut = shortcut::apply(&self.handle, networking.shortcut).await;
        self.done(outcome, "route to EIPs", shortcut);
        let errors = errors::apply(&self.handle, networking.errors).await;
        self.done(outcome, "route of ICMP errors", errors);
        self.networking = (outcome.problems.len() == before).then_some(networking);
    }

    /// Notes what a step did; returns how much it changed.
    fn done<E: std::error::Error>(
        &self,
        outcome: &mut Outcome,
        step: &'static str,
        result: Result<usize, E>,
    ) -> usize {
        match result {
            Ok(changes) => {
                outcome.changes += changes;
                changes
            }
            Err(error) => {
                outcome.failed(&self.node, step, &error);
                0
            }
        }
    }
}

/// What is to be said on the external network.
fn order(wanted: &Datapath, port: &RouterPort, host: &Host) -> Order {
    let link = Uplink::of(host.links.get(RouterPort::NAME), host.links.get(&port.parent));
    Order {
        mac: port.mac,
        nic_ip: port.address.addr,
        nic: port.parent.clone(),
        owned: wanted.announce.clone(),
        probe: wanted.probe.clone(),
        rate: wanted.garp_rate,
        link,
        ready_since: wanted.ready_since,
        epoch: 0,
    }
}
