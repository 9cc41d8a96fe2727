//! A gateway between a client and a worker, in network namespaces of their own: ours and others.

pub(crate) mod clock;
pub(crate) mod daemon;
pub(crate) mod ends;
pub(crate) mod flow;
pub(crate) mod gateway;
pub(crate) mod mounts;
pub(crate) mod namespace;
pub(crate) mod ovs;
pub(crate) mod sender;
pub(crate) mod stack;
pub(crate) mod talk;
pub(crate) mod wires;
