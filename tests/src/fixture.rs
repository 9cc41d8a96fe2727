//! The tables every row starts from: the addresses of the operator's session.

use std::collections::BTreeMap;

use gateway_common::ABI_VERSION;
use gateway_common::addr::{Mac, Prefix};
use gateway_common::direct::{Direct, Sources};
use gateway_common::limit::Limited;
use gateway_common::tables::{
    Budget, CONFIG_OWNER, CONFIG_XDP_PIECES_TO_EXTERNAL, CONFIG_XDP_PIECES_TO_UNDERLAY,
    CONFIG_XDP_TO_EXTERNAL, CONFIG_XDP_TO_UNDERLAY, Config, DIRECT_ROWS, Eip, EipKey, Neighbor, NeighborKey,
    Pod, PodKey, VTEP_GATEWAY, Vtep, VtepKey,
};

/// The client on the external network, also the physical gateway.
pub const CLIENT: [u8; 4] = [192, 168, 100, 1];
/// The client's MAC.
pub const CLIENT_MAC: Mac = Mac([0x02, 0, 0, 0, 1, 1]);
/// A host behind the physical gateway.
pub const OUTSIDE: [u8; 4] = [203, 0, 113, 10];
/// The router port.
pub const NIC_IP: [u8; 4] = [192, 168, 100, 254];
/// The router port's MAC.
pub const NIC_MAC: Mac = Mac([0x16, 0x52, 0xf3, 0x13, 0x6a, 0x25]);
/// EIP of [`POD1`].
pub const EIP1: [u8; 4] = [192, 168, 100, 101];
/// EIP of [`POD2`].
pub const EIP2: [u8; 4] = [192, 168, 100, 102];
/// EIP of [`POD0`].
pub const EIP0: [u8; 4] = [192, 168, 100, 103];
/// A pod on worker1.
pub const POD1: [u8; 4] = [10, 244, 1, 10];
/// A pod on worker2.
pub const POD2: [u8; 4] = [10, 244, 2, 10];
/// A pod on the gateway.
pub const POD0: [u8; 4] = [10, 244, 0, 10];
/// Tunnel endpoint of the gateway.
pub const GATEWAY: [u8; 4] = [172, 18, 0, 11];
/// Tunnel endpoint of worker1.
pub const WORKER1: [u8; 4] = [172, 18, 0, 21];
/// Tunnel endpoint of worker2.
pub const WORKER2: [u8; 4] = [172, 18, 0, 22];
/// Tunnel endpoint of a gateway that does not own the external network.
pub const STANDBY: [u8; 4] = [172, 18, 0, 12];
/// Its underlay MAC.
pub const STANDBY_MAC: Mac = Mac([0x02, 0, 0, 0, 2, 0x12]);
/// The gateway's underlay MAC.
pub const GATEWAY_MAC: Mac = Mac([0x02, 0, 0, 0, 2, 0x11]);
/// Worker1's underlay MAC.
pub const WORKER1_MAC: Mac = Mac([0x02, 0, 0, 0, 2, 0x21]);
/// Worker2's underlay MAC.
pub const WORKER2_MAC: Mac = Mac([0x02, 0, 0, 0, 2, 0x22]);
/// Our virtual network.
pub const VNI: u32 = 0x00e1_9001;
/// Interface numbers of the fixture.
pub const EXTERNAL: u32 = 11;
/// Underlay NIC.
pub const UNDERLAY: u32 = 12;
/// Router port.
pub const ROUTER_PORT: u32 = 13;
/// A pod's interface on its node.
pub const POD_PORT: u32 = 14;
/// Counter slots of [`EIP1`], [`EIP2`], [`EIP0`].
pub const SLOT1: u32 = 1;
/// Slot of [`EIP2`].
pub const SLOT2: u32 = 2;
/// Slot of [`EIP0`].
pub const SLOT0: u32 = 0;
/// What the tunnel carries on an underlay of 1500.
pub const TUNNEL_MTU: u32 = 1450;

/// What a frame meets: the contents of all tables, and where it came from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tables {
    /// Row 0 of `config`.
    pub config: Config,
    /// `eips`.
    pub eips: BTreeMap<EipKey, Eip>,
    /// `pods`.
    pub pods: BTreeMap<PodKey, Pod>,
    /// `vteps`.
    pub vteps: BTreeMap<VtepKey, Vtep>,
    /// `neighbors`.
    pub neighbors: BTreeMap<NeighborKey, Neighbor>,
    /// `internal`.
    pub internal: Vec<Prefix>,
    /// `budgets`, on every CPU.
    pub budgets: [Budget; Limited::ALL.len()],
    /// Interface that a frame that leaves had arrived on; 0: this node has made it.
    pub arrived_on: u32,
}

impl Tables {
    /// The direct tables that follow from these, and the configuration that says how far they go.
    pub fn direct(&self) -> (Direct, Config) {
        let Self { eips, pods, vteps, neighbors, .. } = self;
        let sources = Sources { eips, pods, vteps, neighbors };
        let direct = Direct::of(sources, self.config.direct_mask);
        let config = direct.config(sources, self.internal.iter().copied(), self.config);
        (direct, config)
    }

    /// Frames that leave have arrived from a pod.
    #[must_use]
    pub fn from_a_pod(mut self) -> Self {
        self.arrived_on = POD_PORT;
        self
    }

    /// Nothing is left of some budgets.
    #[must_use]
    pub fn spent(mut self, spent: &[Limited]) -> Self {
        (self.config.errors_per_second, self.config.slow_path_per_second) = (1_000, 10_000);
        for what in spent {
            self.budgets[what.row() as usize].spent_until_ns = u64::MAX;
        }
        self
    }

    /// Room for more rows than as shipped in each of the direct tables: a power of two.
    #[must_use]
    pub fn with_direct_rows(mut self, rows: u32) -> Self {
        self.config.direct_mask = rows - 1;
        self
    }
}

const LOCAL: [u8; 4] = [0; 4];
/// NICs that take any frame from XDP.
const XDP_SENDS: u32 = CONFIG_XDP_TO_EXTERNAL
    | CONFIG_XDP_TO_UNDERLAY
    | CONFIG_XDP_PIECES_TO_EXTERNAL
    | CONFIG_XDP_PIECES_TO_UNDERLAY;

fn config(local_vtep: [u8; 4], flags: u32) -> Config {
    Config {
        abi: ABI_VERSION,
        flags: flags | XDP_SENDS,
        external_ifindex: EXTERNAL,
        router_port_ifindex: ROUTER_PORT,
        underlay_ifindex: UNDERLAY,
        vni: VNI,
        tunnel_mtu: TUNNEL_MTU,
        external_mtu: 1500,
        local_vtep,
        nic_ip: NIC_IP,
        external_network: [192, 168, 100, 0],
        external_netmask: [255, 255, 255, 0],
        physical_gateway: CLIENT,
        nic_mac: NIC_MAC.0,
        geneve_port: 6081_u16.to_be_bytes(),
        direct_mask: DIRECT_ROWS - 1,
        ..Config::default()
    }
}

fn internal() -> Vec<Prefix> {
    ["10.244.0.0/16", "10.96.0.0/12", "172.18.0.0/24"].iter().filter_map(|text| text.parse().ok()).collect()
}

/// The gateway that owns the external network, everything resolved.
pub fn gateway() -> Tables {
    let eip = |eip, pod_ip, vtep, slot| (EipKey { eip }, Eip { pod_ip, vtep, slot, flags: 0 });
    let pod =
        |pod_ip, eip, vtep, slot| (PodKey { pod_ip }, Pod { eip, vtep, gateway: LOCAL, slot, flags: 0 });
    Tables {
        config: config(GATEWAY, CONFIG_OWNER),
        eips: BTreeMap::from([
            eip(EIP1, POD1, WORKER1, SLOT1),
            eip(EIP2, POD2, WORKER2, SLOT2),
            eip(EIP0, POD0, LOCAL, SLOT0),
        ]),
        pods: BTreeMap::from([
            pod(POD1, EIP1, WORKER1, SLOT1),
            pod(POD2, EIP2, WORKER2, SLOT2),
            pod(POD0, EIP0, LOCAL, SLOT0),
        ]),
        vteps: BTreeMap::from([
            (VtepKey { vtep: WORKER1 }, Vtep::resolved(0, UNDERLAY, GATEWAY_MAC, WORKER1_MAC)),
            (VtepKey { vtep: WORKER2 }, Vtep::resolved(0, UNDERLAY, GATEWAY_MAC, WORKER2_MAC)),
        ]),
        neighbors: BTreeMap::from([(
            NeighborKey { addr: CLIENT },
            Neighbor { mac: CLIENT_MAC.0, reserved: [0; 2] },
        )]),
        internal: internal(),
        ..Tables::default()
    }
}

/// Worker1 with its EIP pod.
pub fn worker1() -> Tables {
    Tables {
        config: config(WORKER1, 0),
        pods: BTreeMap::from([(
            PodKey { pod_ip: POD1 },
            Pod { eip: EIP1, vtep: LOCAL, gateway: GATEWAY, slot: SLOT1, flags: 0 },
        )]),
        vteps: BTreeMap::from([
            (VtepKey { vtep: GATEWAY }, Vtep::resolved(VTEP_GATEWAY, UNDERLAY, WORKER1_MAC, GATEWAY_MAC)),
            (VtepKey { vtep: WORKER2 }, Vtep::unresolved(0)),
            (VtepKey { vtep: STANDBY }, Vtep::unresolved(VTEP_GATEWAY)),
        ]),
        internal: internal(),
        ..Tables::default()
    }
}

/// The gateway, which has sent as many ICMP errors as it may, and asked the kernel as often.
pub fn spent_gateway() -> Tables {
    gateway().spent(&Limited::ALL)
}

/// A gateway without its external side: its NIC is missing.
pub fn gateway_without_external_side() -> Tables {
    let mut tables = gateway();
    tables.neighbors.clear();
    let config = &mut tables.config;
    config.flags &= !(CONFIG_OWNER | CONFIG_XDP_TO_EXTERNAL | CONFIG_XDP_PIECES_TO_EXTERNAL);
    (config.external_ifindex, config.router_port_ifindex, config.external_mtu) = (0, 0, 0);
    tables
}

/// A gateway beside the one that owns the external network.
pub fn standby_gateway() -> Tables {
    let mut tables = gateway_without_external_side();
    tables.config.local_vtep = STANDBY;
    for pod in tables.pods.values_mut() {
        pod.gateway = GATEWAY;
        pod.vtep = if pod.vtep == LOCAL { GATEWAY } else { pod.vtep };
    }
    for eip in tables.eips.values_mut() {
        eip.vtep = if eip.vtep == LOCAL { GATEWAY } else { eip.vtep };
    }
    let owner = Vtep::resolved(VTEP_GATEWAY, UNDERLAY, STANDBY_MAC, GATEWAY_MAC);
    tables.vteps.insert(VtepKey { vtep: GATEWAY }, owner);
    tables
}

/// The gateway with empty `vteps` next hops and `neighbors`: nothing resolved yet.
pub fn unresolved_gateway() -> Tables {
    let mut tables = gateway();
    tables.neighbors.clear();
    for vtep in tables.vteps.values_mut() {
        *vtep = Vtep::unresolved(0);
    }
    tables
}
