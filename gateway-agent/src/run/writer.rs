//! The one writer: brings this node's kernel to what is desired, and keeps it there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use gateway_common::addr::Mac;
use gateway_common::tables::{CONFIG_OWNER, Config};
use rtnetlink::Handle;
use tokio::sync::watch;
use tracing::info;

use super::outcome::Outcome;
use crate::announce::{Announcer, Order, Uplink};
use crate::apply::bpf::{self, BpfError, Loaded, Maps, Object};
use crate::apply::neighbor::{Keeper, Observed};
use crate::apply::shortcut::{self, Shortcut};
use crate::apply::{errors, link, nft, route};
use crate::attach::{AttachError, Attachments, Look};
use crate::desired::{Datapath, Route, RouterPort};
use crate::snapshot::{External, Host};
use crate::tables::{self, TableOp, Tables};
use crate::teardown::teardown;

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
    shortcut: Option<Shortcut>,
    errors: bool,
}

impl Networking {
    fn of(wanted: &Datapath, elements: &nft::Elements) -> Self {
        Self {
            rules: wanted.rules.clone(),
            routes: wanted.routes.clone(),
            shortcut: Shortcut::of(wanted, elements),
            errors: errors::wanted(wanted),
        }
    }
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
    /// What the nftables table holds, as far as known.
    elements: Option<nft::Elements>,
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
            elements: None,
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

    /// Whether what was made is still there, as far as a short look tells: pins, filters and the nftables
    /// table, of whose end nobody hears. What is not is made anew by the next pass that verifies
    /// everything.
    pub(super) async fn is_intact(&mut self) -> bool {
        if self.loaded.is_none() {
            return true;
        }
        if !bpf::are_pinned(&self.pin) || !self.attachments.are_pinned() {
            self.forget();
            return false;
        }
        if !self.attachments.have_filters(&self.handle).await {
            return false;
        }
        // An nft that does not answer is the next pass's to tell.
        nft::counters().await.map_or(true, |counters| counters.is_some())
    }

    /// The tables are loaded anew when they are wanted again.
    fn forget(&mut self) {
        self.loaded = None;
        self.known = Tables::default();
        self.networking = None;
        self.elements = None;
        self.attachments = Attachments::new(&self.pin);
    }

    /// Removes everything.
    pub(super) async fn withdraw(&mut self) -> Outcome {
        self.announcer.disown();
        self.forget();
        let report = teardown(&self.handle, &self.pin).await;
        let mut outcome = Outcome { changes: report.removed.len(), ..Outcome::default() };
        for error in &report.errors {
            outcome.failed(&self.node, "withdrawal", error);
        }
        outcome.complete = report.errors.is_empty();
        outcome
    }

    /// Carries out what is desired, each step even if another one failed. What was written before
    /// is compared with the kernel again as far as `verify` says.
    ///
    /// What goes is taken away in the reverse order of what comes: what leads packets to the
    /// programs goes before the rows and comes behind them, and `config` tells of the external side
    /// only while all of it is there. So a pod's packets go one of the two ways at any time, and
    /// never out by its own address.
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
        let left = self.leave_external_side(&wanted.config);
        outcome.table_ops += self.done(&mut outcome, "tables", left);
        let elements = nft::Elements::of(wanted);
        let networking = Networking::of(wanted, &elements);
        self.release(&networking, &elements, verify, &mut outcome).await;
        // What is to be closed is closed before there is a way in.
        if let Some(port) = wanted.router_port.as_ref().filter(|_| outcome.may_lead()) {
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
        outcome.table_ops += self.done(&mut outcome, "tables", rows);
        self.attach(wanted, host, verify, &mut outcome).await;
        // Where a program is missing, what would lead packets to it would let them out
        // untranslated.
        if outcome.may_lead() {
            self.lead(networking, &elements, verify, &mut outcome).await;
        }
        if outcome.may_lead() {
            let (changed, errors) = self.attachments.detach(&host.links, &wanted.hooks);
            self.attached(&mut outcome, changed, &errors);
            let entered = self.enter_external_side(&wanted.config);
            outcome.table_ops += self.done(&mut outcome, "tables", entered);
        }
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
        let mut rows = tables::rows(wanted, &self.known)?;
        let held = self.known.config.unwrap_or_default();
        if !tables::share_external_side(&held, &wanted.config) {
            rows.config = rows.config.map(tables::without_external_side);
        }
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
        let look = match verify {
            Verify::Nothing => Look::Away,
            Verify::Networking => Look::AtPrograms,
            Verify::Everything => Look::Everywhere,
        };
        let (changed, errors) =
            self.attachments.apply(&mut loaded.ebpf, &self.handle, &host.links, &wanted.hooks, look).await;
        self.attached(outcome, changed, &errors);
    }

    fn attached(&self, outcome: &mut Outcome, changed: usize, errors: &[AttachError]) {
        outcome.changes += changed;
        for error in errors {
            outcome.failed(&self.node, "programs", error);
        }
    }

    /// Has `config` say that there is no external side, unless the one it tells of is the one that
    /// is wanted.
    fn leave_external_side(&mut self, wanted: &Config) -> Result<usize, BpfError> {
        match self.known.config {
            Some(held) if tables::has_external_side(&held) && !tables::share_external_side(&held, wanted) => {
                self.write_config(tables::without_external_side(held))
            }
            Some(_) | None => Ok(0),
        }
    }

    /// Has `config` say that there is the external side that is wanted.
    fn enter_external_side(&mut self, wanted: &Config) -> Result<usize, BpfError> {
        match self.known.config {
            Some(held)
                if tables::has_external_side(wanted) && !tables::share_external_side(&held, wanted) =>
            {
                self.write_config(tables::with_external_side(held, wanted))
            }
            Some(_) | None => Ok(0),
        }
    }

    fn write_config(&mut self, config: Config) -> Result<usize, BpfError> {
        let Some(loaded) = &mut self.loaded else { return Ok(0) };
        loaded.maps.write(&[TableOp::PutConfig(config)])?;
        self.known.config = Some(config);
        Ok(1)
    }

    /// Takes away what leads packets to the programs and is no longer wanted, and closes what is to
    /// be closed.
    async fn release(
        &mut self,
        networking: &Networking,
        elements: &nft::Elements,
        verify: Verify,
        outcome: &mut Outcome,
    ) {
        if verify > Verify::Nothing || self.elements.as_ref() != Some(elements) {
            let known = self.elements.take().filter(|_| verify == Verify::Nothing);
            match nft::prepare(elements, known.as_ref()).await {
                Ok((held, written)) => {
                    outcome.changes += usize::from(written);
                    self.elements = Some(held);
                }
                Err(error) => outcome.failed(&self.node, "nftables", &error),
            }
        }
        let known = self.networking.as_ref().filter(|_| verify == Verify::Nothing);
        if known.is_none_or(|known| !known.rules.is_subset(&networking.rules)) {
            let released = route::release(&self.handle, &networking.rules).await;
            self.done(outcome, "policy routes", released);
        }
    }

    /// Makes what leads packets to the programs: routes and rules first, so that no pod keeps its
    /// own address where the main table would send it out.
    async fn lead(
        &mut self,
        networking: Networking,
        elements: &nft::Elements,
        verify: Verify,
        outcome: &mut Outcome,
    ) {
        if verify > Verify::Nothing || self.networking.as_ref() != Some(&networking) {
            let routes = route::apply(&self.handle, &networking.rules, &networking.routes).await;
            self.done(outcome, "policy routes", routes.map(|changes| changes.added + changes.deleted));
            let shortcut = shortcut::apply(&self.handle, networking.shortcut).await;
            self.done(outcome, "route to EIPs", shortcut);
            let errors = errors::apply(&self.handle, networking.errors).await;
            self.done(outcome, "route of ICMP errors", errors);
        }
        self.networking = outcome.may_lead().then_some(networking);
        let Some(held) = self.elements.take_if(|held| held != elements) else { return };
        match nft::apply(elements, &held).await {
            Ok(written) => {
                outcome.changes += usize::from(written);
                self.elements = Some(elements.clone());
            }
            Err(error) => outcome.failed(&self.node, "nftables", &error),
        }
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
