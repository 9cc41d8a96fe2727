//! The ways a packet can go: one row says what becomes of the same packet on each of them.

use gateway_common::addr::Mac;
use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::{Exit, Hook};

use super::{Row, named, redirect};
use crate::fixture::{
    CLIENT, CLIENT_MAC, EIP0, EIP1, EIP2, EXTERNAL, GATEWAY, GATEWAY_MAC, NIC_MAC, POD0, POD1, POD2, SLOT0,
    SLOT1, SLOT2, Tables, UNDERLAY, WORKER1, WORKER1_MAC, WORKER2, WORKER2_MAC, gateway, worker1,
};
use crate::packet::{Geneve, Ip, geneve, ip, ipv4_frame};

/// What a packet travels in.
#[derive(Clone)]
enum Carrier {
    /// A frame of its own: source and destination MAC.
    Frame(Mac, Mac),
    /// The tunnel.
    Tunnel(Box<Geneve>),
}

/// One way through a hook: how a packet looks before and after, and what it travels in.
#[derive(Clone)]
pub(super) struct Path {
    name: &'static str,
    hook: Hook,
    tables: fn() -> Tables,
    /// The header before and after.
    pub(super) headers: [Ip; 2],
    carriers: [Carrier; 2],
    outcome: (Verdict, Exit),
    /// Slots that count a packet in, and out.
    slots: [Option<u32>; 2],
}

impl Path {
    /// The row of the packet that `build` makes, named `what`. `summed`: its headers tell the outer UDP checksum.
    pub(super) fn row(&self, what: &str, summed: bool, build: impl Fn(&Ip) -> Vec<u8>) -> Row {
        let [before, after] = self.headers.each_ref().map(build);
        self.row_of(what, summed, (&before, &after))
    }

    /// The row of a packet given as it is before and after.
    pub(super) fn row_of(&self, what: &str, summed: bool, (before, after): (&[u8], &[u8])) -> Row {
        let [arriving, leaving] = &self.carriers;
        let out = match leaving {
            Carrier::Tunnel(tunnel) if !summed => tunnel.clone().without_checksum().carry(after),
            Carrier::Tunnel(_) | Carrier::Frame(..) => leaving.carry(after),
        };
        let name = named(format!("{what}, {}", self.name));
        let frames = (arriving.carry(before), out);
        let mut row = Row::change(name, self.hook, (self.tables)(), frames, self.outcome);
        let [to_pod, from_pod] = self.slots;
        let bytes = 14 + before.len();
        row = to_pod.into_iter().fold(row, |row, slot| row.counts_in(slot, bytes));
        from_pod.into_iter().fold(row, |row, slot| row.counts_out(slot, bytes))
    }
}

impl Carrier {
    fn carry(&self, packet: &[u8]) -> Vec<u8> {
        match self {
            Self::Frame(source, destination) => ipv4_frame(*source, *destination, packet),
            Self::Tunnel(tunnel) => tunnel.carry(packet),
        }
    }
}

fn tunnel(macs: (Mac, Mac), nodes: ([u8; 4], [u8; 4])) -> Carrier {
    Carrier::Tunnel(Box::new(geneve(macs, nodes)))
}

fn to_worker1() -> Carrier {
    tunnel((GATEWAY_MAC, WORKER1_MAC), (GATEWAY, WORKER1))
}

fn from_worker1() -> Carrier {
    Carrier::Tunnel(Box::new(geneve((WORKER1_MAC, GATEWAY_MAC), (WORKER1, GATEWAY)).from_worker()))
}

/// Every way that leads somewhere.
pub(super) fn all() -> Vec<Path> {
    [external(), underlay(), egress()].concat()
}

fn external() -> Vec<Path> {
    let path = Path {
        name: "client to a pod on a worker",
        hook: Hook::External,
        tables: gateway,
        headers: [ip(CLIENT, EIP1), ip(CLIENT, POD1).ttl(63)],
        carriers: [Carrier::Frame(CLIENT_MAC, NIC_MAC), to_worker1()],
        outcome: (Verdict::ToWorker, redirect(UNDERLAY)),
        slots: [Some(SLOT1), None],
    };
    let here = Path {
        name: "client to a pod on the gateway",
        headers: [ip(CLIENT, EIP0), ip(CLIENT, POD0)],
        carriers: [Carrier::Frame(CLIENT_MAC, NIC_MAC), Carrier::Frame(CLIENT_MAC, NIC_MAC)],
        outcome: (Verdict::ToLocalPod, Exit::PASS),
        slots: [Some(SLOT0), None],
        ..path.clone()
    };
    vec![path, here]
}

fn underlay() -> Vec<Path> {
    let out = Path {
        name: "pod to the client",
        hook: Hook::Underlay,
        tables: gateway,
        headers: [ip(POD1, CLIENT).ttl(63), ip(EIP1, CLIENT).ttl(62)],
        carriers: [from_worker1(), Carrier::Frame(NIC_MAC, CLIENT_MAC)],
        outcome: (Verdict::ToExternal, redirect(EXTERNAL)),
        slots: [None, Some(SLOT1)],
    };
    let turned = Path {
        name: "pod to another EIP",
        headers: [ip(POD1, EIP2).ttl(63), ip(EIP1, POD2).ttl(62)],
        carriers: [from_worker1(), tunnel((GATEWAY_MAC, WORKER2_MAC), (GATEWAY, WORKER2))],
        outcome: (Verdict::ToEip, redirect(UNDERLAY)),
        slots: [Some(SLOT2), Some(SLOT1)],
        ..out.clone()
    };
    let arrives = Path {
        name: "gateway to the pod",
        tables: worker1,
        headers: [ip(CLIENT, POD1).ttl(63), ip(CLIENT, POD1).ttl(63)],
        carriers: [to_worker1(), Carrier::Frame(GATEWAY_MAC, WORKER1_MAC)],
        outcome: (Verdict::FromGateway, Exit::PASS),
        slots: [Some(SLOT1), None],
        ..out.clone()
    };
    vec![out, turned, arrives]
}

fn egress() -> Vec<Path> {
    let worker = Path {
        name: "pod by its worker",
        hook: Hook::UnderlayEgress,
        tables: worker1,
        headers: [ip(POD1, CLIENT).ttl(63), ip(POD1, CLIENT).ttl(63)],
        carriers: [Carrier::Frame(WORKER1_MAC, GATEWAY_MAC), from_worker1()],
        outcome: (Verdict::ToGateway, Exit::PASS),
        slots: [None, Some(SLOT1)],
    };
    let leaves = Path {
        name: "pod on the gateway to the client",
        hook: Hook::RouterPortEgress,
        tables: gateway,
        headers: [ip(POD0, CLIENT).ttl(63), ip(EIP0, CLIENT).ttl(63)],
        carriers: [Carrier::Frame(NIC_MAC, CLIENT_MAC), Carrier::Frame(NIC_MAC, CLIENT_MAC)],
        outcome: (Verdict::ToExternal, Exit::PASS),
        slots: [None, Some(SLOT0)],
    };
    let turned = Path {
        name: "pod on the gateway to an EIP",
        headers: [ip(POD0, EIP1).ttl(63), ip(EIP0, POD1).ttl(63)],
        carriers: [Carrier::Frame(NIC_MAC, NIC_MAC), to_worker1()],
        outcome: (Verdict::ToEip, redirect(UNDERLAY)),
        slots: [Some(SLOT1), Some(SLOT0)],
        ..leaves.clone()
    };
    vec![worker, leaves, turned]
}
