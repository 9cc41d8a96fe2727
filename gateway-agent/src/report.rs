//! What the agent writes back to the API server: what it has done with an EIP, where its user looks.
//!
//! [`plan::writes`] is pure and says what is missing in the latest [`State`]; [`send`] carries it out, at its own pace
//! and apart from the loop. It is level-triggered: a write that failed is planned again as long as it is missing.
//!
//! Who writes: the node that owns the external network. Where nobody does, because there is no good configuration or
//! no gateway, problems of the ConfigMap are told by one node all the same, see [`plan::duty`].
//!
//! Whose a value is: the label `eip-bound` on a pod is ours alone and says that `routed` is ours too. It names the EIP
//! that is bound, so that one the pod asks for later is not taken for it, or says `"false"` where the EIP was refused: workers
//! cannot ask the external network, and leave such a pod alone. Both go when the EIP is released, also after a restart;
//! `routed` without the label was set by somebody else and stays. The label of gateway nodes is only ever added: the agent's own DaemonSet selects by it.

pub mod event;
pub mod memory;
pub mod plan;
pub mod send;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::desired::Desired;
use crate::report::event::Event;
use crate::snapshot::{BoundLabel, ObjectName, Snapshot};

/// Field manager of our patches, and reporting controller of our Events.
pub const MANAGER: &str = "eip-gateway";

/// What the loop last saw, decided and did.
#[derive(Debug, Default)]
pub struct State {
    /// What it saw.
    pub snapshot: Snapshot,
    /// What it decided.
    pub desired: Desired,
    /// EIP → pod address as programmed on this node, while it owns the external network.
    pub programmed: BTreeMap<Ipv4Addr, Ipv4Addr>,
}

/// One write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// Annotation `routed` and label `eip-bound` of a pod.
    Pod {
        /// The pod.
        pod: ObjectName,
        /// Its uid: a pod that took its name later is left alone.
        uid: String,
        /// Its resource version: a pod that has changed since is looked at again first.
        version: String,
        /// The EIP is bound; `false`: it is not.
        set: bool,
        /// The annotation has to change: to `"true"` if it is bound, else away.
        routed: bool,
        /// What the label has to become; `None`: it is right.
        label: Option<BoundLabel>,
    },
    /// Label `external-gw` of a gateway node.
    Node {
        /// The node.
        node: String,
    },
    /// An Event.
    Event(Event),
}

/// What a write is about, to keep count of attempts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    /// A pod, by uid.
    Pod(String),
    /// A node, by name.
    Node(String),
    /// An Event, by its name.
    Event(String),
}

/// Kind of a write: the metric label.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A pod is patched.
    Pod,
    /// A node is patched.
    Node,
    /// An Event is created.
    Event,
}

impl Kind {
    /// The word in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Node => "node",
            Self::Event => "event",
        }
    }

    /// What a ClusterRole has to allow for it.
    pub const fn permission(self) -> &'static str {
        match self {
            Self::Pod => "patch pods",
            Self::Node => "patch nodes",
            Self::Event => "create events of events.k8s.io",
        }
    }
}

impl Write {
    /// What it is about.
    pub fn target(&self) -> Target {
        match self {
            Self::Pod { uid, .. } => Target::Pod(uid.clone()),
            Self::Node { node } => Target::Node(node.clone()),
            Self::Event(event) => Target::Event(event.base_name()),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Pod { .. } => Kind::Pod,
            Self::Node { .. } => Kind::Node,
            Self::Event(_) => Kind::Event,
        }
    }
}

/// What became of a write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sent {
    /// Done, or it was there already.
    Done,
    /// RBAC forbids it.
    Forbidden(String),
    /// The object is no longer there, or its namespace goes.
    Gone,
    /// Another object has its name, or somebody was faster.
    Conflict,
    /// The API server answered with another error.
    Refused(String),
    /// No answer.
    Unreachable(String),
}

impl Sent {
    /// The word in metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Forbidden(_) => "forbidden",
            Self::Gone => "gone",
            Self::Conflict => "conflict",
            Self::Refused(_) => "refused",
            Self::Unreachable(_) => "unreachable",
        }
    }
}

#[cfg(test)]
mod tests;
