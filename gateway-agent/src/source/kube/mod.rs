//! The Kubernetes API: Pods, Nodes, the gateway's ConfigMap and, when they are served, VirtualMachineInstances and
//! ServiceCIDRs, each watched by a task of its own into a store of the little that matters.
//!
//! Nothing is handed out before every store holds what its first list said. From then on a store stays in force
//! whatever becomes of its watch: a new list replaces it as a whole, once that is complete.

mod connection;
mod resource;
mod slim;
mod store;
mod watch;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::annotation::Keys;
use crate::desired::ownership::gateways;
use crate::desired::problem::Problem;
use crate::snapshot::{ConfigMapName, Configured, HeldVm, ObjectName, Pod, Vmi};
use crate::source::Inputs;
use crate::source::inputs::LastGood;
use crate::source::manifest::Reader;

use self::connection::Connection;
use self::resource::{AllPods, BoundPods, ConfigMaps, Nodes, OwnPods, ServiceCidrs, Vmis};
use self::watch::{Context, Watched};
use self::world::World;

/// How long the VirtualMachineInstance of a VM is remembered after it is gone: its successor comes within seconds.
const RESTART: Duration = Duration::from_secs(30);

/// What the source is told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KubeOptions {
    /// Kubeconfig; `None`: this pod's ServiceAccount.
    pub kubeconfig: Option<PathBuf>,
    /// Name of this Node.
    pub node: String,
    /// Names of annotations and labels.
    pub keys: Keys,
    /// The gateway's ConfigMap.
    pub config_map: ConfigMapName,
}

/// Which pods are watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum View {
    /// All: a gateway binds every EIP.
    All,
    /// Those of this node, and those elsewhere that have an EIP.
    Own,
}

/// The watches, and what they have shown so far.
#[derive(Debug)]
pub struct KubeSource {
    context: Arc<Context>,
    /// Ends with this.
    watches: BTreeMap<&'static str, Task>,
    /// The pods in force come from these watches.
    view: Option<View>,
    last_good: LastGood,
    current: Inputs,
    /// VMs that had an EIP when the agent before this one ended; taken out once the instances are known.
    before: BTreeMap<ObjectName, Vmi>,
    /// VirtualMachineInstances that are gone, and until when they are remembered.
    gone: BTreeMap<ObjectName, (Vmi, Instant)>,
    /// UIDs of the VirtualMachineInstances whose launchers were seen while those could not be read.
    launched: BTreeSet<String>,
}

impl KubeSource {
    /// Starts the watches, in tasks of the current tokio runtime. Whatever is wrong with the connection is retried
    /// and told by [`Self::scan`].
    pub fn start(options: KubeOptions) -> Self {
        let KubeOptions { kubeconfig, node, keys, config_map } = options;
        let context = Arc::new(Context::new(Connection::new(kubeconfig), Reader { keys, config_map }, node));
        let mut source = Self {
            context,
            watches: BTreeMap::new(),
            view: None,
            last_good: LastGood::default(),
            current: Inputs::default(),
            before: BTreeMap::new(),
            gone: BTreeMap::new(),
            launched: BTreeSet::new(),
        };
        source.follow::<Nodes>();
        source.follow::<ConfigMaps>();
        source.follow::<Vmis>();
        source.follow::<ServiceCidrs>();
        source
    }

    /// Tells of the VMs that had an EIP when the agent before this one ended. Those of which no instance is left may be
    /// restarting, and are remembered as if this agent had seen it go.
    #[must_use]
    pub fn after(mut self, held: &BTreeMap<Ipv4Addr, HeldVm>) -> Self {
        let vmi = |(eip, held): (&Ipv4Addr, &HeldVm)| {
            let (uid, eip) = (held.uid.clone(), Some(eip.to_string()));
            (held.vmi.clone(), Vmi { uid, eip, by_vm: true, gone: true, ..Vmi::default() })
        };
        self.before = held.iter().map(vmi).collect();
        self
    }

    /// Waits for a change. Cancelling loses nothing.
    pub async fn changed(&self) {
        let gone = self.gone.values().map(|(_, until)| *until);
        let due = gone.chain(self.last_good.due().map(Instant::from_std)).min();
        tokio::select! {
            () = self.context.changed.notified() => {}
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }

    /// What the stores hold now, and when the oldest change arrived that the scan before had not seen. As long as a
    /// store is not complete, all stays as it was and only the problems are new.
    pub fn scan(&mut self) -> (Inputs, Option<std::time::Instant>) {
        let context = self.context.clone();
        let mut world = context.world();
        let mut problems = world.problems();
        let known = self.configure(&world);
        let ready = known.is_some() && world.nodes.kept().is_some() && {
            self.look(&mut world);
            world.optional_settled()
        };
        let pods = self.view.filter(|_| ready).and_then(|view| self.pods(&world, view));
        let mut at = None;
        if let Some((pods, partial)) = pods {
            self.expect_vmis(&world, &pods);
            let nodes = world.nodes.kept().cloned().unwrap_or_default();
            let service_cidrs = world.service_cidrs.kept().into_iter().flat_map(OrdMap::values).flatten();
            self.current = Inputs {
                pods,
                partial,
                nodes: nodes.into_iter().map(|(name, node)| (name.name.to_string(), node)).collect(),
                service_cidrs: service_cidrs.copied().collect(),
                vmis: self.vmis(&world),
                configured: self.last_good.configured().clone(),
                problems: Vec::new(),
            };
            at = world.changed_at.take();
        }
        problems.extend(known.into_iter().flatten());
        self.current.problems = problems;
        (self.current.clone(), at)
    }

    /// Takes the ConfigMap over and returns its problems; `None` while it is not known whether
    /// there is one.
    fn configure(&mut self, world: &World) -> Option<Vec<Problem>> {
        let name = &self.context.reader.config_map;
        let data = world.config_maps.kept()?.get(&name.0);
        Some(self.last_good.update(&name.to_string(), data, Instant::now().into_std()))
    }

    /// Watches the pods this node's role needs; the others only until these are known.
    fn look(&mut self, world: &mut World) {
        let wanted = match self.last_good.configured() {
            Configured::Enabled(config) => {
                let nodes = world.nodes.kept().into_iter().flatten();
                let nodes = nodes.map(|(name, node)| (name.name.to_string(), node.clone())).collect();
                let (gateways, _) = gateways(config, &self.context.reader.keys, &nodes, "");
                if gateways.contains(&self.context.node) { View::All } else { View::Own }
            }
            Configured::Unknown | Configured::Disabled => self.view.unwrap_or(View::Own),
        };
        match wanted {
            View::All => self.follow::<AllPods>(),
            View::Own => {
                self.follow::<OwnPods>();
                self.follow::<BoundPods>();
            }
        }
        if self.pods(world, wanted).is_none() {
            // A worker that becomes a gateway knows too little: all stays as it was until it knows all.
            self.view = self.view.filter(|view| *view == View::All);
            return;
        }
        self.view = Some(wanted);
        match wanted {
            View::All => {
                self.leave::<OwnPods>(world);
                self.leave::<BoundPods>(world);
            }
            View::Own => self.leave::<AllPods>(world),
        }
    }

    /// The pods of a view, and whether that is only a part; `None` when they are not known yet.
    fn pods(&self, world: &World, view: View) -> Option<world::PodsView> {
        match view {
            View::All => Some((world.all_pods.kept()?.clone(), false)),
            View::Own => {
                let own = world.own_pods.kept()?;
                let mut pods = world.bound_pods.kept()?.clone();
                pods.extend(own.iter().map(|(name, pod)| (name.clone(), pod.clone())));
                Some((pods, true))
            }
        }
    }

    /// The VirtualMachineInstances there are, and those of VMs that are gone since a moment ago.
    fn vmis(&mut self, world: &World) -> OrdMap<ObjectName, Vmi> {
        let mut vmis = world.vmis.kept().cloned().unwrap_or_default();
        let now = Instant::now();
        if world.vmis.kept().is_some() {
            let before = std::mem::take(&mut self.before).into_iter();
            self.gone.extend(before.map(|(name, vmi)| (name, (vmi, now + RESTART))));
        }
        for (name, vmi) in &self.current.vmis {
            if vmi.by_vm && !vmi.gone && !vmis.contains_key(name) {
                self.gone.insert(name.clone(), (Vmi { gone: true, ..vmi.clone() }, now + RESTART));
            }
        }
        self.gone.retain(|name, (_, until)| *until > now && !vmis.contains_key(name));
        vmis.extend(self.gone.iter().map(|(name, (vmi, _))| (name.clone(), vmi.clone())));
        vmis
    }

    /// A launcher of an unknown VirtualMachineInstance tells that those are served by now, or soon may be read.
    fn expect_vmis(&mut self, world: &World, pods: &OrdMap<ObjectName, Pod>) {
        if world.vmis.kept().is_some() {
            return;
        }
        let launchers = pods.values().filter_map(|pod| pod.launcher.as_ref());
        let launched: BTreeSet<_> = launchers.map(|launcher| launcher.vmi_uid.clone()).collect();
        if !launched.is_subset(&self.launched) {
            self.context.launched.notify_one();
        }
        self.launched = launched;
    }

    fn follow<W: Watched>(&mut self) {
        let start = || Task(tokio::spawn(watch::follow::<W>(self.context.clone())));
        self.watches.entry(W::WHAT).or_insert_with(start);
    }

    fn leave<W: Watched>(&mut self, world: &mut World) {
        if self.watches.remove(W::WHAT).is_some() {
            W::store(world).clear();
            world.succeeded(W::WHAT);
        }
    }
}

/// A task that ends when this is dropped.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
