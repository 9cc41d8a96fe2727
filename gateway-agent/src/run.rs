//! The agent's loop: what the sources say → [`desired`](crate::desired) → the kernel, again and again.
//!
//! A pass is triggered by a change of the manifests or of the host, and by time; it always looks at everything, so
//! start, restart, change and repair are the same path. A failing step is tried again soon, the others go on.

mod inputs;
mod observer;
mod outcome;
mod report;
mod writer;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use self::inputs::Inputs;
pub use self::inputs::SourceOptions;
use self::observer::Observer;
use self::outcome::Outcome;
use self::report::{Reporter, step_failed};
use self::writer::{Verify, Writer};
use crate::alive::{self, Alive};
use crate::annotation::Keys;
use crate::apply::bpf::Object;
use crate::apply::neighbor::Observed;
use crate::desired::problem::Problem;
use crate::desired::{Datapath, RouterPort, State, desired};
use crate::requirements::{self, Purpose};
use crate::snapshot::{ConfigMapName, Configured, External, Held, Host, Snapshot};
use crate::source::host::{self, HostError, Watch};
use crate::status::StatusFile;

/// Changes within this time are taken together; of the API server's the first is taken at once.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Everything is compared with the kernel at least this often.
const RESYNC: Duration = Duration::from_secs(30);
/// Whether what was made is still there is looked at this often.
const LOOK: Duration = Duration::from_secs(5);
/// First pause after a failed step; it doubles up to [`RESYNC`].
const RETRY: Duration = Duration::from_millis(200);
/// Passes in a row when one made something the next has to look at.
const PASSES: usize = 4;

/// What `gateway-agent run` was told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of this Node.
    pub node: String,
    /// Where pods, nodes and the ConfigMap come from.
    pub source: SourceOptions,
    /// Names of annotations and labels.
    pub keys: Keys,
    /// The gateway's ConfigMap.
    pub config_map: ConfigMapName,
    /// Directory of the pins.
    pub pin: PathBuf,
    /// Directory of the status file.
    pub state: PathBuf,
    /// BPF object instead of the embedded one.
    pub object: Option<PathBuf>,
    /// Where metrics and health are served; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
}

/// Serves until SIGTERM or SIGINT, and leaves the data path in place.
///
/// # Errors
/// What no retry can mend: no privilege, an old kernel, no nft, no BPF object, no directory of manifests.
pub async fn run(options: Options) -> anyhow::Result<()> {
    requirements::check(Purpose::Run)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let _alive = claim(&options);
    let (mut agent, mut watch, mut source, mut found) = prepare(&options)?;
    info!(node = agent.node, source = %options.source, version = env!("CARGO_PKG_VERSION"), "agent started");
    let mut due = Instant::now();
    let mut resync = due;
    let mut settled = due;
    let mut look = due + LOOK;
    loop {
        let mut resynced = false;
        tokio::select! {
            changed = watch.changed() => {
                changed?;
                sleep(DEBOUNCE).await;
            }
            () = source.changed() => {
                agent.observer.event();
                sleep_until(source.settled_at(settled)).await;
                source.scan()?;
            }
            changed = found.changed() => {
                changed?;
                sleep_until(settled + DEBOUNCE).await;
                agent.external = Arc::clone(&found.borrow_and_update());
            }
            () = sleep_until(agent.status.due().map_or(due, Into::into)), if agent.status.due().is_some() => {
                agent.write_status();
                continue;
            }
            () = sleep_until(look) => {
                look = Instant::now() + LOOK;
                if agent.is_intact().await {
                    continue;
                }
                watch.invalidate();
                resynced = true;
            }
            () = sleep_until(due.min(resync)) => {
                source.renew()?;
                watch.invalidate();
                resync = Instant::now() + RESYNC;
                resynced = true;
                agent.observer.resync();
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        let pause = agent.work(&mut watch, &mut source, resynced).await?;
        settled = Instant::now();
        due = settled + pause;
        agent.observer.tick();
    }
    agent.write_status();
    info!("agent stopped, the data path stays in place; `gateway-agent teardown` removes it");
    Ok(())
}

/// What the announcer has found on the external network, whenever that changes.
type Found = tokio::sync::watch::Receiver<Arc<External>>;

/// The agent as it begins, and what it hears of.
fn prepare(options: &Options) -> anyhow::Result<(Agent, Watch, Inputs, Found)> {
    let object = Object::open(options.object.as_deref())?;
    let handle = host::connect()?;
    let watch = Watch::start(handle.clone())?;
    let observer = Observer::start(options);
    let (writer, found) = Writer::new(options.node.clone(), options.pin.clone(), object, handle);
    let status = StatusFile::open(&options.state, &options.node);
    let mut held = status.held();
    held.pods.extend(writer.held());
    held.accepted = writer.accepted();
    let source = Inputs::start(options, &held)?;
    Ok((Agent::new(options.node.clone(), held, writer, status, observer), watch, source, found))
}

/// Says that an agent runs here, for `gateway-agent teardown`.
fn claim(options: &Options) -> Option<Alive> {
    match Alive::claim(&options.state, &options.node) {
        Ok(Some(alive)) => return Some(alive),
        Ok(None) => {
            let other = alive::running(&options.state).unwrap_or_default();
            warn!("another agent runs on this node ({other}): both write the same tables; stop one of them");
        }
        Err(error) => warn!(
            "cannot write {} in {}: {error}; check --state-dir, `gateway-agent teardown` needs it to see that an agent runs",
            alive::FILE,
            options.state.display()
        ),
    }
    None
}

/// What was last said about the whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Starting,
    Waiting,
    InSync,
    Withdrawn,
}

struct Agent {
    node: String,
    /// Who has which EIP, cluster-wide: at start what an earlier agent left in its status
    /// file and, above that, in the tables; then what was decided last.
    held: Held,
    writer: Writer,
    reporter: Reporter,
    observer: Observer,
    /// What the announcer has found on the external network.
    external: Arc<External>,
    status: StatusFile,
    /// Why the status file could not be written.
    status_failed: Option<Problem>,
    phase: Phase,
    failures: u32,
}

impl Agent {
    /// One that has said and done nothing yet.
    fn new(node: String, held: Held, writer: Writer, status: StatusFile, observer: Observer) -> Self {
        Self {
            node,
            held,
            writer,
            reporter: Reporter::default(),
            observer,
            external: Arc::default(),
            status,
            status_failed: None,
            phase: Phase::Starting,
            failures: 0,
        }
    }

    /// Whether what was made is still there. Says so when it is not.
    async fn is_intact(&mut self) -> bool {
        let intact = self.phase != Phase::InSync || self.writer.is_intact().await;
        if !intact {
            warn!(
                "somebody removed what this agent had made (`gateway-agent teardown`, `nft flush ruleset`): it is made anew"
            );
        }
        intact
    }

    /// Passes until nothing is left to do at once; with `resync`, all is compared with the kernel. Returns the time
    /// until the next one at the latest.
    async fn work(
        &mut self,
        watch: &mut Watch,
        source: &mut Inputs,
        resync: bool,
    ) -> anyhow::Result<Duration> {
        let disturbed = watch.take_disturbed();
        let mut verify = match (resync, disturbed) {
            (true, _) => Verify::Everything,
            (false, true) => Verify::Networking,
            (false, false) => Verify::Nothing,
        };
        for _ in 0..PASSES {
            let (mut problems, outcome) = self.pass(watch, source, verify).await?;
            let again = outcome.again;
            self.failures = if outcome.complete || again { 0 } else { self.failures.saturating_add(1) };
            if !again {
                problems.extend(outcome.problems);
                self.status.publish(&problems);
                problems.extend(self.status_failed.clone());
                self.reporter.report(problems);
                break;
            }
            watch.invalidate();
            verify = verify.max(Verify::Networking);
        }
        Ok(match self.failures {
            0 => RESYNC,
            failures => RETRY.saturating_mul(1 << failures.min(10).saturating_sub(1)).min(RESYNC),
        })
    }

    /// Writes what was published. A failure is told along with the problems of the next pass.
    fn write_status(&mut self) {
        let written = self.status.flush();
        self.status_failed = written.err().map(|error| step_failed(&self.node, "status file", &error));
    }

    /// One pass: what was decided to be a problem, and what was done.
    async fn pass(
        &mut self,
        watch: &mut Watch,
        source: &mut Inputs,
        verify: Verify,
    ) -> anyhow::Result<(Vec<Problem>, Outcome)> {
        let mut snapshot = source.snapshot();
        snapshot.node_name.clone_from(&self.node);
        let destinations = other_nodes(&snapshot);
        match watch.refresh(&destinations).await {
            Ok(host) => snapshot.host = host.clone(),
            Err(error @ HostError::Dump { .. }) => {
                let problem = step_failed(&self.node, "host", &error);
                self.observer.host_failed(&problem);
                return Ok((vec![problem], Outcome::default()));
            }
            Err(error) => return Err(error.into()),
        }
        snapshot.held.clone_from(&self.held);
        snapshot.external.clone_from(&self.external);
        let decided = desired(&snapshot);
        decided.remember(&mut self.held);
        self.status.note(&decided);
        let outcome = match &decided.state {
            State::Keep => self.keep(&snapshot),
            State::Withdrawn => self.withdraw(verify).await,
            State::Datapath(wanted) => self.serve(wanted, &snapshot.host, watch, verify).await?,
        };
        let problems = decided.problems.clone();
        self.observer.passed(snapshot, decided, self.writer.programmed(), &outcome);
        Ok((problems, outcome))
    }

    fn keep(&mut self, snapshot: &Snapshot) -> Outcome {
        if self.phase == Phase::Starting && snapshot.config == Configured::Unknown {
            info!("waiting for {}, nothing is changed before", snapshot.config_map);
            self.phase = Phase::Waiting;
        }
        Outcome { complete: true, ..Outcome::default() }
    }

    async fn withdraw(&mut self, verify: Verify) -> Outcome {
        if self.phase == Phase::Withdrawn && verify == Verify::Nothing {
            return Outcome { complete: true, ..Outcome::default() };
        }
        let outcome = self.writer.withdraw().await;
        if self.phase != Phase::Withdrawn && outcome.complete {
            info!("the gateway is disabled: everything is withdrawn");
            self.phase = Phase::Withdrawn;
        }
        outcome
    }

    async fn serve(
        &mut self,
        wanted: &Datapath,
        host: &Host,
        watch: &mut Watch,
        verify: Verify,
    ) -> anyhow::Result<Outcome> {
        let router_port = host.links.get(RouterPort::NAME).map(|link| link.ifindex);
        watch.set_interest(wanted.resolve.iter().map(|(ifindex, _)| *ifindex).chain(router_port).collect());
        let stale = watch.take_stale();
        let neighbors = Observed {
            resolved: &host.neighbors,
            managed: watch.managed(),
            ours: watch.ours(),
            stale: &stale,
        };
        let outcome = self.writer.apply(wanted, host, neighbors, verify).await?;
        if outcome.complete && self.phase != Phase::InSync && !wanted.probing {
            info!(eips = wanted.eips.len(), pods = wanted.pods.len(), nodes = wanted.vteps.len(), "in sync");
            self.phase = Phase::InSync;
        } else if outcome.complete && outcome.changes > 0 {
            debug!(changes = outcome.changes, "in sync");
        }
        Ok(outcome)
    }
}

/// Underlay addresses of the nodes other than this one.
fn other_nodes(snapshot: &Snapshot) -> BTreeSet<Ipv4Addr> {
    let others = snapshot.nodes.iter().filter(|(name, _)| **name != snapshot.node_name);
    others.filter_map(|(_, node)| node.internal_ip).collect()
}
