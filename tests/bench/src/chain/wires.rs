//! The chain: a client's namespace, the gateway's and a worker's, and the wires between them.
//!
//! ```text
//!  client:c0 ──── g0:gateway:g1 ──── w0:worker
//! ```
//!
//! A frame that goes in at one end is carried to the other by one CPU, in the softirq of whoever sent it. Addresses, MACs
//! and interface numbers are those of the fixture, so that its tables fit as they are.

use anyhow::Result;
use gateway_tests::fixture::{CLIENT_MAC, EXTERNAL, GATEWAY_MAC, NIC_MAC, UNDERLAY, WORKER1_MAC};

use super::namespace::Namespace;

/// Interface number of the client's end.
pub(crate) const CLIENT_END: u32 = 21;
/// Interface number of the worker's end.
pub(crate) const WORKER_END: u32 = 22;

/// What can be chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wiring {
    /// Of all wires.
    pub(crate) mtu: u16,
    /// The gateway's NICs put segments together.
    pub(crate) gateway_gro: bool,
    /// So do those of client and worker.
    pub(crate) ends_gro: bool,
}

/// Three namespaces in a row.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) client: Namespace,
    pub(crate) gateway: Namespace,
    pub(crate) worker: Namespace,
    pub(crate) wiring: Wiring,
}

impl Chain {
    /// Lays the wires; nobody has an address yet.
    pub(crate) fn lay(wiring: Wiring) -> Result<Self> {
        let chain =
            Self { client: Namespace::new()?, gateway: Namespace::new()?, worker: Namespace::new()?, wiring };
        let mtu = wiring.mtu;
        let wire = |near, (far, namespace): (_, &Namespace)| {
            let far = end(far, mtu);
            format!("link add {} type veth peer {far} netns {}\n", end(near, mtu), namespace.path())
        };
        let wires = [
            wire(("g0", EXTERNAL, NIC_MAC), (("c0", CLIENT_END, CLIENT_MAC), &chain.client)),
            wire(("g1", UNDERLAY, GATEWAY_MAC), (("w0", WORKER_END, WORKER1_MAC), &chain.worker)),
        ];
        chain.gateway.ip(&wires.concat())?;
        for (namespace, interface) in chain.ends() {
            namespace.ip(&format!("link set {interface} up\n"))?;
        }
        chain.offloads()?;
        Ok(chain)
    }

    fn ends(&self) -> [(&Namespace, &'static str); 4] {
        [(&self.client, "c0"), (&self.gateway, "g0"), (&self.gateway, "g1"), (&self.worker, "w0")]
    }

    /// A wire carries no super-segments and no half-done checksums. Again after XDP was attached, which turns GRO on.
    pub(crate) fn offloads(&self) -> Result<()> {
        for (namespace, interface) in self.ends() {
            let is_gateway = interface.starts_with('g');
            let gro = if is_gateway { self.wiring.gateway_gro } else { self.wiring.ends_gro };
            offload(namespace, interface, gro)?;
        }
        Ok(())
    }
}

/// A single wire with nothing in between: `d0` at the client, `d1` at the worker, both with XDP.
#[derive(Debug)]
pub(crate) struct Direct {
    pub(crate) client: Namespace,
    pub(crate) worker: Namespace,
}

impl Direct {
    /// Lays it. The ends have the numbers of the chain's.
    pub(crate) fn lay() -> Result<Self> {
        let direct = Self { client: Namespace::new()?, worker: Namespace::new()? };
        let far = format!("{} netns {}", end(("d1", WORKER_END, WORKER1_MAC), 1500), direct.worker.path());
        let near = end(("d0", CLIENT_END, CLIENT_MAC), 1500);
        direct.client.ip(&format!("link add {near} type veth peer {far}\nlink set d0 up\n"))?;
        direct.worker.ip("link set d1 up\n")?;
        offload(&direct.client, "d0", true)?;
        offload(&direct.worker, "d1", true)?;
        Ok(direct)
    }
}

fn end((name, index, mac): (&str, u32, gateway_common::addr::Mac), mtu: u16) -> String {
    format!("name {name} index {index} address {mac} mtu {mtu} numtxqueues 1 numrxqueues 1")
}

fn offload(namespace: &Namespace, interface: &str, gro: bool) -> Result<()> {
    let gro = if gro { "on" } else { "off" };
    let off = "tx off sg off tso off gso off gro";
    let words: Vec<_> = ["ethtool", "-K", interface].into_iter().chain(off.split(' ')).chain([gro]).collect();
    namespace.run(&words, "").map(drop)
}
