//! Ends with stacks of their own, which talk through a gateway: a client, and a worker that is the pod as well.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use aya::programs::{TcAttachType, XdpMode, tc};
use gateway_common::{
    addr::Mac,
    tables::{MAX_EIPS, Pod, PodKey, VTEP_GATEWAY, Vtep, VtepKey},
};
use gateway_ebpf::datapath::Hook;
use gateway_tests::{
    engines::{
        Kind,
        kernel::{Kernel, object_path},
    },
    fixture::{CLIENT, GATEWAY, GATEWAY_MAC, NIC_IP, NIC_MAC, Tables, VNI, WORKER1_MAC, worker1},
};

use super::{
    flow::{EIPS, TUNNEL, VXLAN_PORT, Work},
    gateway::{Gateway, Programs, Standing, XDP_MTU},
    stack::{dotted, tunnel_mac},
    wires::{Chain, WORKER_END, Wiring},
};
use crate::packets::population::{FIRST_EIP, Member};

/// The EIP that talks, somewhere among the others.
const TALKER: Member = Member(200);
/// Bytes of an IPv4 header and a UDP header.
const HEADERS: u32 = 28;
/// A pod answers within this time, or not at all.
const PATIENCE: Duration = Duration::from_secs(1);

/// A gateway with a client and a pod who reach each other.
#[derive(Debug)]
pub(crate) struct Talk {
    /// The gateway in its chain.
    pub(crate) standing: Standing,
    /// Ours at the worker: XDP and TC.
    _worker: Option<[Kernel; 2]>,
    address: [u8; 4],
}

impl Talk {
    /// Sets client and worker up as the gateway needs them, and has them exchange a datagram.
    pub(crate) fn stand(gateway: Gateway, wiring: Wiring) -> Result<Self> {
        let standing = gateway.stand(wiring)?;
        client(&standing.chain)?;
        let (chain, inner) = (&standing.chain, wiring.mtu - u16::try_from(TUNNEL)?);
        let (address, worker) = match gateway.work() {
            Work::Translate(VXLAN_PORT) => (TALKER.pod(), vxlan_worker(chain)?),
            Work::Translate(_) => (TALKER.pod(), our_worker(chain, inner)?),
            // It stands for ours: packets are as long as in a tunnel.
            Work::ForwardTunnel => (TALKER.eip(), worker(chain, TALKER.eip(), inner)?),
            Work::Forward => (TALKER.eip(), worker(chain, TALKER.eip(), wiring.mtu)?),
        };
        standing.chain.offloads()?;
        let talk = Self { standing, _worker: worker, address };
        talk.greet()
            .with_context(|| format!("client and pod do not reach each other by {}", gateway.name()))?;
        talk.pause(true)?;
        Ok(talk)
    }

    /// The same, or why this gateway cannot take packets this long.
    pub(crate) fn attempt(gateway: Gateway, wiring: Wiring) -> Result<Result<Self, String>> {
        match Self::stand(gateway, wiring) {
            Err(error) if gateway.may_lack_room(wiring.mtu) => {
                // Without the first, which says who.
                let why: Vec<_> = error.chain().skip(1).map(ToString::to_string).collect();
                Ok(Err(format!("its AF_XDP takes packets of up to {XDP_MTU} bytes ({})", why.join(": "))))
            }
            stands => stands.map(Ok),
        }
    }

    /// Has the gateway's threads, if it has any, work for as long as this lives: else they would take processor time from others.
    pub(crate) fn awake(&self) -> Result<Awake<'_>> {
        self.pause(false)?;
        Ok(Awake(self))
    }

    /// How Open vSwitch reads NICs and writes to them, if it is the gateway.
    pub(crate) fn mode(&self) -> Result<Option<String>> {
        let Programs::Ovs(ovs) = &self.standing.programs else { return Ok(None) };
        let _awake = self.awake()?;
        ovs.mode().map(Some)
    }

    fn pause(&self, pause: bool) -> Result<()> {
        match &self.standing.programs {
            Programs::Ovs(ovs) => ovs.pause(pause),
            Programs::None | Programs::Ours(_) | Programs::Floor(_) => Ok(()),
        }
    }

    /// What the client reaches the pod by.
    pub(crate) fn eip(&self) -> Ipv4Addr {
        TALKER.eip().into()
    }

    /// The pod's own address.
    pub(crate) fn pod(&self) -> Ipv4Addr {
        self.address.into()
    }

    /// A socket of the client's that is connected to the EIP, and one of the pod's that is there.
    pub(crate) fn sockets(&self, port: u16) -> Result<[UdpSocket; 2]> {
        self.standing.chain.worker.enter()?;
        let pod = UdpSocket::bind((self.pod(), port))?;
        self.standing.chain.client.enter()?;
        let client = UdpSocket::bind((Ipv4Addr::from(CLIENT), 0))?;
        client.connect((self.eip(), port))?;
        Ok([client, pod])
    }

    /// With datagrams as long as fit into a tunnel.
    fn greet(&self) -> Result<()> {
        let [client, pod] = self.sockets(7)?;
        let mtu = u32::from(self.standing.chain.wiring.mtu);
        let greeting = vec![b'o'; mtu.saturating_sub(TUNNEL + HEADERS).try_into()?];
        let mut buffer = vec![0; greeting.len() + 1];
        for socket in [&client, &pod] {
            socket.set_read_timeout(Some(PATIENCE))?;
        }
        client.send(&greeting)?;
        let (_, from): (_, SocketAddr) = pod
            .recv_from(&mut buffer)
            .with_context(|| format!("{} bytes did not reach the pod", greeting.len()))?;
        pod.send_to(&greeting, from)?;
        client.recv(&mut buffer).context("no answer reached the client").map(drop)
    }
}

/// A gateway whose threads may work.
#[derive(Debug)]
pub(crate) struct Awake<'talk>(&'talk Talk);

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.pause(true) {
            eprintln!("warning: {error:#}");
        }
    }
}

fn client(chain: &Chain) -> Result<()> {
    let [client, nic] = [CLIENT, NIC_IP].map(dotted);
    let prefix = 32 - EIPS.ilog2();
    chain.client.ip(&format!(
        "addr add {client}/24 dev c0\nneigh add {nic} lladdr {NIC_MAC} dev c0 nud permanent\n\
         route add {FIRST_EIP}/{prefix} via {nic} dev c0\n"
    ))
}

/// A worker that reaches the client over its NIC, by the gateway, with packets of up to `mtu` bytes.
fn worker(chain: &Chain, address: [u8; 4], mtu: u16) -> Result<Option<[Kernel; 2]>> {
    let [node, gateway, client, address] = [TALKER.node(), GATEWAY, CLIENT, address].map(dotted);
    chain.worker.ip(&format!(
        "addr add {address}/32 dev lo\naddr add {node}/32 dev w0\n\
         neigh add {gateway} lladdr {GATEWAY_MAC} dev w0 nud permanent\nroute add {gateway} dev w0\n\
         route add {client} via {gateway} dev w0 mtu {mtu} src {address}\n"
    ))?;
    Ok(None)
}

/// A worker that does so over VXLAN.
fn vxlan_worker(chain: &Chain) -> Result<Option<[Kernel; 2]>> {
    let [node, gateway, client, pod] = [TALKER.node(), GATEWAY, CLIENT, TALKER.pod()].map(dotted);
    let (mac, gateway_mac) = (tunnel_mac(TALKER.node()), Mac::TUNNEL_GATEWAY);
    chain.worker.ip(&format!(
        "addr add {pod}/32 dev lo\naddr add {node}/32 dev w0\n\
         neigh add {gateway} lladdr {GATEWAY_MAC} dev w0 nud permanent\nroute add {gateway} dev w0\n\
         link add vxlan0 address {mac} type vxlan id {VNI} dstport {VXLAN_PORT} local {node} dev w0 nolearning\n\
         link set vxlan0 up\nneigh add {gateway} lladdr {gateway_mac} dev vxlan0 nud permanent\n\
         route add {client} via {gateway} dev vxlan0 onlink src {pod}\n"
    ))?;
    chain
        .worker
        .run(&["bridge", "-batch", "-"], &format!("fdb append {gateway_mac} dev vxlan0 dst {gateway}\n"))?;
    Ok(None)
}

/// A worker with our programs; the kernel's route has the tunnel's MTU, as the agent's has.
fn our_worker(chain: &Chain, inner: u16) -> Result<Option<[Kernel; 2]>> {
    worker(chain, TALKER.pod(), inner)?;
    let tables = worker_tables(chain.wiring.mtu);
    let mut xdp = Kernel::load_from(&object_path(), Kind::Xdp, MAX_EIPS)?;
    xdp.fill(&tables)?;
    let mut tc = Kernel::load_from(&object_path(), Kind::Tc, MAX_EIPS)?;
    tc.fill(&tables)?;
    chain.worker.enter()?;
    xdp.xdp_program(Hook::Underlay)?.attach_to_if_index(WORKER_END, XdpMode::Driver)?;
    tc::qdisc_add_clsact("w0")?;
    tc.tc_program(Hook::UnderlayEgress)?.attach("w0", TcAttachType::Egress)?;
    Ok(Some([xdp, tc]))
}

fn worker_tables(mtu: u16) -> Tables {
    let mut tables = worker1();
    let config = &mut tables.config;
    (config.local_vtep, config.underlay_ifindex) = (TALKER.node(), WORKER_END);
    config.tunnel_mtu = u32::from(mtu) - TUNNEL;
    let pod = Pod { eip: TALKER.eip(), vtep: [0; 4], gateway: GATEWAY, slot: 0, flags: 0 };
    tables.pods = [(PodKey { pod_ip: TALKER.pod() }, pod)].into();
    let next_hop = Vtep::resolved(VTEP_GATEWAY, WORKER_END, WORKER1_MAC, GATEWAY_MAC);
    tables.vteps = [(VtepKey { vtep: GATEWAY }, next_hop)].into();
    tables.internal.clear();
    tables
}

/// What is to be known of each Open vSwitch among these.
pub(crate) fn modes<'talk>(talks: impl Iterator<Item = &'talk Talk>, mtu: u16) -> Result<Vec<String>> {
    let modes = talks.filter_map(|talk| talk.mode().transpose());
    modes.map(|mode| Ok(format!("MTU {mtu}: {}.", mode?))).collect()
}
