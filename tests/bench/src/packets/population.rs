//! Tables of a gateway with a number of EIPs, for our programs and for the plain ones.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use gateway_common::tables::{Eip, EipKey, MAX_EIPS, Pod, PodKey, Vtep, VtepKey};
use gateway_tests::fixture::{
    CLIENT_MAC, EXTERNAL, GATEWAY, GATEWAY_MAC, NIC_MAC, Tables, UNDERLAY, WORKER1_MAC, gateway,
};

/// The first EIP; the others follow. The low 20 bits are clear, as the harness wants them.
pub(crate) const FIRST_EIP: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
/// The first EIP's pod; the others follow.
pub(crate) const FIRST_POD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
/// The first pod's node; the others follow.
pub(crate) const FIRST_NODE: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 0);
/// EIPs of one node, as a power of two.
const NODE_BITS: u32 = 7;
/// The most the harness tells apart.
const MOST: u32 = 1 << 20;

/// A row of the plain programs: address, node, interface, destination and source MAC.
pub(crate) type PlainRow = [u8; 24];

/// So many EIPs, each with a pod, 128 of these on a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Population {
    eips: u32,
}

impl Population {
    /// A power of two, so that the harness can draw from it.
    pub(crate) fn new(eips: u32) -> Result<Self> {
        ensure!(
            eips.is_power_of_two() && eips <= MOST,
            "{eips} EIPs: a power of two up to {MOST}, so that the harness can draw each once"
        );
        Ok(Self { eips })
    }

    /// Number of EIPs.
    pub(crate) const fn eips(self) -> u32 {
        self.eips
    }

    /// Each of them.
    pub(crate) fn members(self) -> impl Iterator<Item = Member> {
        (0..self.eips).map(Member)
    }

    /// Rows that the tables need to have: as shipped, or more.
    pub(crate) const fn capacity(self) -> u32 {
        if self.eips > MAX_EIPS { self.eips } else { MAX_EIPS }
    }

    /// The tables of our programs.
    pub(crate) fn tables(self) -> Tables {
        let rows = (0..self.eips).map(Member);
        let nodes = 0..=self.eips >> NODE_BITS;
        let next_hop = Vtep::resolved(0, UNDERLAY, GATEWAY_MAC, WORKER1_MAC);
        Tables {
            eips: rows.clone().map(Member::eip_row).collect(),
            pods: rows.map(Member::pod_row).collect(),
            vteps: nodes.map(|node| (VtepKey { vtep: after(FIRST_NODE, node) }, next_hop)).collect(),
            ..gateway()
        }
        .with_direct_rows(self.capacity())
    }

    /// Key and row of the plain programs on the way in.
    pub(crate) fn plain_eips(self) -> impl Iterator<Item = Result<([u8; 4], PlainRow)>> {
        (0..self.eips).map(Member).map(|member| {
            let row = plain(member.pod(), member.node(), UNDERLAY, (WORKER1_MAC.0, GATEWAY_MAC.0))?;
            Ok((member.eip(), row))
        })
    }

    /// Key and row of the plain programs on the way out.
    pub(crate) fn plain_pods(self) -> impl Iterator<Item = Result<([u8; 4], PlainRow)>> {
        (0..self.eips).map(Member).map(|member| {
            let row = plain(member.eip(), member.node(), EXTERNAL, (CLIENT_MAC.0, NIC_MAC.0))?;
            Ok((member.pod(), row))
        })
    }
}

/// `struct settings` of the plain programs.
pub(crate) fn settings() -> [u8; 12] {
    let mut bytes = [0; 12];
    let first = [FIRST_EIP, FIRST_POD].map(|first| first.to_bits().to_ne_bytes());
    bytes[..4].copy_from_slice(&GATEWAY);
    bytes[4..].copy_from_slice(first.as_flattened());
    bytes
}

/// An EIP, by its number, with its pod.
#[derive(Clone, Copy)]
pub(crate) struct Member(pub(crate) u32);

impl Member {
    /// The EIP.
    pub(crate) fn eip(self) -> [u8; 4] {
        after(FIRST_EIP, self.0)
    }

    /// Its pod's address.
    pub(crate) fn pod(self) -> [u8; 4] {
        after(FIRST_POD, self.0)
    }

    /// The tunnel endpoint of the pod's node.
    pub(crate) fn node(self) -> [u8; 4] {
        after(FIRST_NODE, self.0 >> NODE_BITS)
    }

    fn eip_row(self) -> (EipKey, Eip) {
        let eip = Eip { pod_ip: self.pod(), vtep: self.node(), slot: self.0, flags: 0 };
        (EipKey { eip: self.eip() }, eip)
    }

    fn pod_row(self) -> (PodKey, Pod) {
        let pod = Pod { eip: self.eip(), vtep: self.node(), gateway: [0; 4], slot: self.0, flags: 0 };
        (PodKey { pod_ip: self.pod() }, pod)
    }
}

fn after(first: Ipv4Addr, index: u32) -> [u8; 4] {
    (first.to_bits() + index).to_be_bytes()
}

fn plain(address: [u8; 4], node: [u8; 4], ifindex: u32, macs: ([u8; 6], [u8; 6])) -> Result<PlainRow> {
    let parts = [&address[..], &node, &ifindex.to_ne_bytes(), &macs.0, &macs.1].concat();
    parts.try_into().ok().context("24 bytes")
}
