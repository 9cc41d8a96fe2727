//! Everything the agent knows at one moment, as plain data: the only input of [`crate::desired::desired`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use gateway_common::addr::{Mac, Prefix};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::annotation::Keys;
use crate::config::{self, GatewayConfig};
use crate::desired::problem::Problem;

/// All inputs of one decision.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Snapshot {
    /// Name of the Node this agent runs on.
    pub node_name: String,
    /// Names of the annotations and the label.
    pub keys: Keys,
    /// The gateway's ConfigMap, named in problems.
    pub config_map: ConfigMapName,
    /// The gateway configuration in force.
    pub config: Configured,
    /// Pods by namespace and name. Persistent: a snapshot shares with the next what has not changed.
    pub pods: OrdMap<ObjectName, Pod>,
    /// Not all pods are known: a worker hears of its own node's pods, and of those elsewhere that have an EIP.
    pub partial: bool,
    /// VirtualMachineInstances by namespace and name, as far as they may be read.
    pub vmis: OrdMap<ObjectName, Vmi>,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Service CIDRs of the cluster.
    pub service_cidrs: BTreeSet<Prefix>,
    /// Links, addresses, neighbours and routes of this host.
    pub host: Host,
    /// What was found on the external network, on the node that owns it.
    pub external: External,
    /// A gateway's answer can be read from the pods' label: the source is the Kubernetes API. A directory of manifests
    /// is their author's, and nobody writes there.
    pub labels: bool,
    /// Who was served before: at start what the status file
    /// [holds](crate::status::StatusFile::held) and, above that, the pinned tables'
    /// [`served`](crate::tables::Tables::served); after the first decision what that
    /// [remembers](crate::desired::Desired::remember), since it knows of other nodes' pods too.
    pub held: Held,
    /// What the sources could not read: by file and field.
    pub problems: Vec<Problem>,
    /// When the oldest change arrived that this snapshot has and the one before had not; `None`: none did.
    pub changed_at: Option<Instant>,
}

/// Who was served before.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Held {
    /// EIP → address of the pod that is served.
    pub pods: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// EIP → the VM that has it, also while it restarts.
    pub vms: BTreeMap<Ipv4Addr, HeldVm>,
    /// EIPs that the owner of the external network has accepted: they are not asked for there again.
    pub accepted: BTreeSet<Ipv4Addr>,
}

/// What this node has found on the external network by ARP.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct External {
    /// Addresses that nobody answered for.
    pub free: BTreeSet<Ipv4Addr>,
    /// Addresses that somebody has, and with which MAC.
    pub in_use: BTreeMap<Ipv4Addr, Mac>,
    /// Addresses of ours that somebody else uses as well, and with which MAC.
    pub contested: BTreeMap<Ipv4Addr, Mac>,
    /// ARP packets of others so far that claimed one of our addresses.
    pub conflicts: u64,
}

/// A VM that was served.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct HeldVm {
    /// Namespace and name of its VirtualMachineInstance, which are those of the VM.
    pub vmi: ObjectName,
    /// `metadata.uid` of the VirtualMachineInstance; another one at each start of the VM.
    pub uid: String,
    /// The pod its guest ran in; empty when none was known.
    pub pod: String,
    /// The pod that asked for the EIP; `None`: the VirtualMachineInstance did.
    pub asked_by: Option<String>,
}

/// Namespace and name of the gateway's ConfigMap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConfigMapName(pub ObjectName);

impl Default for ConfigMapName {
    fn default() -> Self {
        Self(ObjectName::new(config::NAMESPACE, config::NAME))
    }
}

impl fmt::Display for ConfigMapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configmap {}", self.0)
    }
}

/// What the ConfigMap says.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Configured {
    /// No source has shown it yet: nothing is changed and nothing withdrawn.
    #[default]
    Unknown,
    /// `enable-external-gw` is `"false"`, or the ConfigMap is gone for good: everything is
    /// withdrawn.
    Disabled,
    /// The last good configuration.
    Enabled(GatewayConfig),
}

/// Namespace and name of an object; a cluster-wide object has an empty namespace. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct ObjectName {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectName {
    /// An object of a namespace.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The part of a Pod that matters here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pod {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`: what is written back is decided for this state of the pod and no other. Empty
    /// where there is no API server.
    pub version: String,
    /// `metadata.creationTimestamp`, seconds since the epoch; 0 when absent.
    pub created: i64,
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
    /// `spec.nodeName`.
    pub node: Option<String>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// The IPv4 address of `status.podIPs` (or `status.podIP`).
    pub ip: Option<Ipv4Addr>,
    /// `status.phase` is `Succeeded` or `Failed`.
    pub finished: bool,
    /// Condition `Ready` is `True`.
    pub ready: bool,
    /// The annotation `ovn.kubernetes.io/eip` as written.
    pub eip: Option<String>,
    /// The annotation `ovn.kubernetes.io/routed` is `"true"`.
    pub routed: bool,
    /// The label `ovn.kubernetes.io/eip-bound`.
    pub bound_label: BoundLabel,
    /// What made it, and makes its successor.
    pub owner: Option<Owner>,
    /// It may run the guest of a KubeVirt VM.
    pub launcher: Option<Launcher>,
}

/// The workload a pod belongs to, in the pod's namespace: pods of one owner hand an EIP on among
/// themselves.
///
/// Whoever creates pods in a namespace can write any owner there, so it says nothing across
/// namespaces.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Owner {
    /// Its kind: `Deployment`, `StatefulSet`, …
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// What a gateway says of a pod's EIP, in the label `ovn.kubernetes.io/eip-bound`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BoundLabel {
    /// Nothing: there is no label.
    #[default]
    Absent,
    /// The address: a gateway has bound this EIP.
    Bound(Ipv4Addr),
    /// `"false"`: a gateway has refused the EIP, for a reason that others may not know.
    Refused,
    /// Something that no gateway of this version writes, such as `"true"`.
    Other,
}

impl BoundLabel {
    /// The value that says that a gateway has refused an EIP.
    pub const REFUSED: &str = "false";

    /// Reads the label's value.
    pub fn of(value: Option<&str>) -> Self {
        match value {
            None => Self::Absent,
            Some(Self::REFUSED) => Self::Refused,
            Some(value) => value.parse().map_or(Self::Other, Self::Bound),
        }
    }

    /// The value to write; `None`: no label.
    pub fn value(self) -> Option<String> {
        match self {
            Self::Absent | Self::Other => None,
            Self::Bound(eip) => Some(eip.to_string()),
            Self::Refused => Some(Self::REFUSED.to_owned()),
        }
    }
}

/// What makes a pod a launcher of KubeVirt: it is owned by a VirtualMachineInstance. Pods that provision or attach
/// volumes are none, and ask for no EIP whatever their annotations say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Launcher {
    /// Name of the VirtualMachineInstance, in the pod's namespace.
    pub vmi: String,
    /// Its `metadata.uid`.
    pub vmi_uid: String,
    /// The container `compute` has terminated: no guest runs here any more, whatever the phase says.
    pub stopped: bool,
    /// `kubevirt.io/migration-target-ready-timestamp`: the guest came here by a migration. It stays for ever.
    pub arrived: Option<String>,
}

/// The part of a VirtualMachineInstance that matters here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Vmi {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.creationTimestamp`, seconds since the epoch; 0 when absent.
    pub created: i64,
    /// The annotation `ovn.kubernetes.io/eip` as written.
    pub eip: Option<String>,
    /// `status.nodeName`.
    pub node: Option<String>,
    /// Target pod of the last migration, once the guest runs there and unless it failed.
    pub migrated_to: Option<String>,
    /// `status.phase` is `Succeeded` or `Failed`.
    pub finished: bool,
    /// A VirtualMachine controls it: when it is gone, another one of its name may follow.
    pub by_vm: bool,
    /// It was deleted a moment ago, and none of its name has followed.
    pub gone: bool,
}

/// The part of a Node that matters here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// The IPv4 address of type `InternalIP`: the node's tunnel endpoint.
    pub internal_ip: Option<Ipv4Addr>,
    /// Its IPv4 addresses of any type.
    pub addresses: Vec<Ipv4Addr>,
    /// Condition `Ready` is `True`.
    pub ready: bool,
    /// When that condition last changed, seconds since the epoch.
    pub ready_since: Option<i64>,
    /// Label `ovn.kubernetes.io/external-gw` is `"true"`.
    pub gateway_label: bool,
    /// IPv4 entries of `spec.podCIDRs` (or `spec.podCIDR`).
    pub pod_cidrs: Vec<Prefix>,
}

/// What the kernel of this host says by rtnetlink.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Host {
    /// Links by name.
    pub links: BTreeMap<String, Link>,
    /// Neighbours with a usable MAC, by interface and address.
    pub neighbors: BTreeMap<(u32, Ipv4Addr), Mac>,
    /// The main table's answer for each other node's underlay address.
    pub routes: BTreeMap<Ipv4Addr, RouteTo>,
}

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Link {
    /// Interface index.
    pub ifindex: u32,
    /// Its MAC.
    pub mac: Mac,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Up, and with something at the other end of the cable.
    pub carrier: bool,
    /// How often it had its carrier back.
    pub carrier_ups: u32,
    /// What it takes of the frames that XDP redirects to it.
    pub takes: Takes,
    /// For a macvlan: the ifindex of the link below.
    pub parent: Option<u32>,
    /// Its IPv4 addresses.
    pub addresses: Vec<Prefix>,
}

/// What a NIC takes of the frames that XDP redirects to it. The kernel drops the others without a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Takes {
    /// None.
    #[default]
    Nothing,
    /// Those in one buffer; a jumbo frame lies in several.
    OneBuffer,
    /// All.
    Everything,
}

impl Takes {
    /// The flags of `config` that say so: `whole` for frames in one buffer, `pieces` for those in several.
    pub fn flags(self, whole: u32, pieces: u32) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::OneBuffer => whole,
            Self::Everything => whole | pieces,
        }
    }
}

/// How the kernel would reach an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RouteTo {
    /// Outgoing interface.
    pub ifindex: u32,
    /// Next hop when the address is not on the link.
    pub via: Option<Ipv4Addr>,
}

impl Host {
    /// The link with this interface index.
    pub fn link_by_index(&self, ifindex: u32) -> Option<(&str, &Link)> {
        self.links.iter().find(|(_, link)| link.ifindex == ifindex).map(|(name, link)| (name.as_str(), link))
    }

    /// The link that has this address.
    pub fn link_with_address(&self, addr: Ipv4Addr) -> Option<(&str, &Link)> {
        self.links
            .iter()
            .find(|(_, link)| link.addresses.iter().any(|prefix| prefix.addr == addr))
            .map(|(name, link)| (name.as_str(), link))
    }
}
