//! What stands between client and worker: ours, or one of those it is compared with.

use anyhow::Result;
use aya::programs::XdpMode;
use gateway_common::tables::MAX_EIPS;
use gateway_ebpf::datapath::Hook;
use gateway_tests::{
    engines::{
        Kind,
        kernel::{Kernel, object_path},
    },
    fixture::{EXTERNAL, UNDERLAY},
};

use super::{
    ends::End,
    flow::{EIPS, GENEVE_PORT, TUNNEL, VXLAN_PORT, Way, Work, macs_behind},
    ovs::{Ovs, Port},
    stack::Stack,
    wires::{Chain, Wiring},
};
use crate::packets::population::Population;

/// What a page has room for next to what a driver and XDP need in it: veth attaches no program that reads single buffers, such as
/// OVS's, to a device of more.
pub(crate) const XDP_MTU: u16 = 3506;

/// A kind of gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gateway {
    /// Our programs as shipped, attached natively; tables as the agent would write them.
    Ours,
    /// The floor: writes MACs and redirects.
    Floor,
    /// The kernel, with XDP nowhere.
    Stack(Stack),
    /// Open vSwitch in userspace, on a CPU of its own: which.
    Ovs(Port, usize),
}

impl Gateway {
    /// Name in figures.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Floor => "floor: MACs and redirect",
            Self::Stack(Stack::Plain) => "C: plain routing",
            Self::Stack(Stack::Stateless) => "B: stateless nftables + VXLAN",
            Self::Stack(Stack::Conntrack) => "A: nftables + conntrack + VXLAN",
            Self::Ovs(Port::Xdp, _) => "OVS by AF_XDP: userspace, Geneve",
            Self::Ovs(Port::Packet, _) => "OVS by AF_PACKET: userspace, Geneve",
        }
    }

    /// The same in a word.
    pub(crate) fn short(self) -> &'static str {
        self.name().split(':').next().unwrap_or_default()
    }

    /// What it does with packets.
    pub(crate) const fn work(self) -> Work {
        match self {
            Self::Ours | Self::Ovs(..) => Work::Translate(GENEVE_PORT),
            Self::Floor => Work::ForwardTunnel,
            Self::Stack(Stack::Plain) => Work::Forward,
            Self::Stack(Stack::Stateless | Stack::Conntrack) => Work::Translate(VXLAN_PORT),
        }
    }

    /// Whether XDP at the receiver would have to copy what it sends, for want of room at the head: what the kernel puts into a
    /// tunnel, and whatever comes out of a socket.
    pub(crate) fn sends_skbs(self, way: Way) -> bool {
        match self {
            Self::Ours | Self::Floor | Self::Stack(Stack::Plain) => false,
            Self::Stack(Stack::Stateless | Stack::Conntrack) => way == Way::In,
            Self::Ovs(..) => true,
        }
    }

    /// Whether packets of this MTU may be more than it can take, which is then to be told and is no error.
    pub(crate) const fn may_lack_room(self, mtu: u16) -> bool {
        matches!(self, Self::Ovs(Port::Xdp, _)) && mtu > XDP_MTU
    }

    /// Lays a chain and sets the gateway up.
    pub(crate) fn stand(self, wiring: Wiring) -> Result<Standing> {
        let chain = Chain::lay(wiring)?;
        let programs = match self {
            Self::Ours => Programs::Ours(Box::new(ours(&chain)?)),
            Self::Floor => Programs::Floor(floor(&chain)?),
            Self::Stack(stack) => {
                stack.configure(&chain.gateway)?;
                Programs::None
            }
            Self::Ovs(port, cpu) => Programs::Ovs(Ovs::start(chain.gateway.clone(), port, cpu)?),
        };
        Ok(Standing { chain, programs })
    }
}

/// A gateway that is up; gone when dropped.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Between whom it stands.
    pub(crate) chain: Chain,
    /// What is attached.
    pub(crate) programs: Programs,
}

/// What is attached at a gateway's NICs.
#[derive(Debug)]
pub(crate) enum Programs {
    /// Nothing.
    None,
    /// Our programs.
    Ours(Box<Kernel>),
    /// Open vSwitch.
    Ovs(Ovs),
    /// The floor, one for each way.
    Floor([End; 2]),
}

fn ours(chain: &Chain) -> Result<Kernel> {
    let mut kernel = Kernel::load_from(&object_path(), Kind::Xdp, MAX_EIPS)?;
    let mut tables = Population::new(EIPS)?.tables();
    let mtu = u32::from(chain.wiring.mtu);
    (tables.config.external_mtu, tables.config.tunnel_mtu) = (mtu, mtu - TUNNEL);
    kernel.fill(&tables)?;
    chain.gateway.enter()?;
    kernel.send_by(&[EXTERNAL, UNDERLAY].map(|nic| (nic, nic)))?;
    for (hook, ifindex) in [(Hook::External, EXTERNAL), (Hook::Underlay, UNDERLAY)] {
        kernel.xdp_program(hook)?.attach_to_if_index(ifindex, XdpMode::Driver)?;
    }
    Ok(kernel)
}

fn floor(chain: &Chain) -> Result<[End; 2]> {
    chain.gateway.enter()?;
    let end = |from, to, way| {
        let (destination, source) = macs_behind(way);
        End::forward(from, to, destination, source)
    };
    Ok([end(EXTERNAL, UNDERLAY, Way::In)?, end(UNDERLAY, EXTERNAL, Way::Out)?])
}
