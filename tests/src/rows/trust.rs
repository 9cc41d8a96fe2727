//! Who may speak as whom: outsiders, pods, nodes, and gateways that are not on the external network.

use etherparse::Icmpv4Type;
use etherparse::icmpv4::DestUnreachableHeader;
use gateway_common::addr::Mac;
use gateway_common::tables::{CONFIG_OPEN, Vtep};
use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::{Exit, Hook};

use super::external::{from_client, to_worker1};
use super::underlay::from_worker1;
use super::{Row, named, redirect};
use crate::engines::Kind;
use crate::fixture::{
    CLIENT, CLIENT_MAC, EIP0, EIP1, EIP2, EXTERNAL, GATEWAY, GATEWAY_MAC, NIC_IP, NIC_MAC, OUTSIDE, POD0,
    POD1, POD2, SLOT1, SLOT2, STANDBY, STANDBY_MAC, Tables, UNDERLAY, VNI, WORKER1, WORKER1_MAC, WORKER2,
    WORKER2_MAC, gateway, gateway_without_external_side, standby_gateway, worker1,
};
use crate::packet::{geneve, ip, ipv4_frame};

/// The rows.
pub fn rows() -> Vec<Row> {
    [outsiders(), inwards(), insiders(), delivered(), tunnel_ports(), reports(), without_external_side()]
        .concat()
}

/// Everybody who is inside.
const INSIDE: [(&str, [u8; 4]); 8] = [
    ("an EIP pod", POD2),
    ("a pod without EIP", [10, 244, 1, 11]),
    ("the first address of the pods", [10, 244, 0, 0]),
    ("the last address of the pods", [10, 244, 255, 255]),
    ("a node", WORKER2),
    ("the gateway", GATEWAY),
    ("a Service", [10, 96, 0, 10]),
    ("another EIP", EIP2),
];

/// Neighbours of those, who are not.
const OUTSIDERS: [(&str, [u8; 4]); 6] = [
    ("10.243.255.255", [10, 243, 255, 255]),
    ("10.245.0.0", [10, 245, 0, 0]),
    ("10.112.0.0", [10, 112, 0, 0]),
    ("172.18.1.0", [172, 18, 1, 0]),
    ("an address next to an EIP", [192, 168, 100, 104]),
    ("a host behind the router", OUTSIDE),
];

fn dropped(name: String, hook: Hook, tables: Tables, frame: Vec<u8>, verdict: Verdict) -> Row {
    Row::drop(named(name), hook, tables, frame, verdict)
}

/// From outside in the name of somebody inside, in every form that the fast path and the general one know.
fn outsiders() -> Vec<Row> {
    let each = |(who, source): (&str, [u8; 4])| {
        let row = |what: &str, packet: Vec<u8>| {
            let name = format!("{who} is not outside: {what}");
            dropped(name, Hook::External, gateway(), from_client(&packet), Verdict::DropInsideSource)
        };
        [
            row("UDP", ip(source, EIP1).udp(4_000, 53, b"as long as the fast path wants it")),
            row("TCP", ip(source, EIP1).tcp(40_000, 80, &[], b"GET / HTTP/1.0")),
            row("a SYN", ip(source, EIP1).syn_raw(&[])),
            row("ping", ip(source, EIP1).echo_request(b"ping")),
            row("UDP to a pod on the gateway", ip(source, EIP0).udp(4_000, 53, b"query")),
            row("ping of nic-ip", ip(source, NIC_IP).echo_request(b"ping")),
            row("TTL 1, which is answered to nobody inside", ip(source, EIP1).ttl(1).udp(1, 2, b"probe")),
        ]
    };
    let mut rows: Vec<_> = INSIDE.into_iter().flat_map(each).collect();
    // Its row has not come into the direct table: two addresses of different networks want one row.
    let mut few = gateway().with_direct_rows(1);
    few.internal.clear();
    for (what, source) in
        [("a pod that is in no internal prefix", POD2), ("an EIP without a direct row", EIP2)]
    {
        let packet = ip(source, EIP1).udp(4_000, 53, b"as long as the fast path wants it");
        let name = format!("{what} is not outside");
        rows.push(dropped(
            name,
            Hook::External,
            few.clone(),
            from_client(&packet),
            Verdict::DropInsideSource,
        ));
    }
    rows
}

/// To the router port's MAC for an address that is inside: the kernel would route it there. TC sees what XDP has translated
/// for a pod of the gateway, and leaves such packets to nftables.
fn inwards() -> Vec<Row> {
    let each = |(who, to): (&str, [u8; 4])| {
        let frame = from_client(&ip(CLIENT, to).udp(4_000, 53, b"as long as the fast path wants it"));
        let (hook, name) = (Hook::External, format!("from outside to {who}"));
        let twin = Row::pass(named(name.clone()), hook, gateway(), frame.clone(), Verdict::PassNotForUs);
        let drop = dropped(name, hook, gateway(), frame, Verdict::DropInwards);
        [drop.only(Kind::Xdp), twin.only(Kind::Tc)]
    };
    let mut rows: Vec<_> = INSIDE.into_iter().filter(|(_, to)| *to != EIP2).flat_map(each).collect();
    let mut open = gateway();
    open.config.flags |= CONFIG_OPEN;
    let frame = from_client(&ip(CLIENT, POD2).udp(4_000, 53, b"query"));
    rows.push(Row::pass(
        "from outside inwards, as it is open",
        Hook::External,
        open,
        frame,
        Verdict::PassNotForUs,
    ));
    rows.extend(OUTSIDERS.map(|(who, to)| {
        let frame = from_client(&ip(CLIENT, to).udp(4_000, 53, b"as long as the fast path wants it"));
        let name = named(format!("from outside to {who}: the kernel's"));
        Row::pass(name, Hook::External, gateway(), frame, Verdict::PassNotForUs)
    }));
    rows
}

/// Who is nearly inside is served as anybody.
fn insiders() -> Vec<Row> {
    let each = |(who, source): (&str, [u8; 4])| {
        let build = |destination, ttl| {
            ip(source, destination).ttl(ttl).udp(4_000, 53, b"as long as the fast path wants it")
        };
        let frames = (from_client(&build(EIP1, 64)), to_worker1().carry(&build(POD1, 63)));
        let counted = 14 + build(EIP1, 64).len();
        let name = named(format!("{who} is outside"));
        Row::change(name, Hook::External, gateway(), frames, (Verdict::ToWorker, redirect(UNDERLAY)))
            .counts_in(SLOT1, counted)
    };
    OUTSIDERS.into_iter().map(each).collect()
}

/// What a gateway brings in the name of somebody inside is not delivered; an EIP is nobody inside there, since EIP pods
/// reach each other by the gateway.
fn delivered() -> Vec<Row> {
    let from_gateway = geneve((GATEWAY_MAC, WORKER1_MAC), (GATEWAY, WORKER1));
    let build = |source| ip(source, POD1).ttl(63).udp(4_000, 53, b"as long as the fast path wants it");
    let each = |(who, source): (&str, [u8; 4])| {
        let (name, frame) = (format!("delivered for {who}"), from_gateway.carry(&build(source)));
        dropped(name, Hook::Underlay, worker1(), frame, Verdict::DropInsideSource)
    };
    let inside = INSIDE.into_iter().filter(|(_, source)| *source != EIP2).map(each);
    let pass = |(who, source): (&str, [u8; 4])| {
        let frames =
            (from_gateway.carry(&build(source)), ipv4_frame(GATEWAY_MAC, WORKER1_MAC, &build(source)));
        let name = named(format!("delivered as ever: {who}"));
        Row::change(name, Hook::Underlay, worker1(), frames, (Verdict::FromGateway, Exit::PASS))
            .counts_in(SLOT1, 14 + build(source).len())
    };
    let outside = [("another EIP", EIP2), ("the router port", NIC_IP)];
    inside.chain(outside.into_iter().chain(OUTSIDERS).map(pass)).collect()
}

/// A datagram that a pod's socket sends to a node's tunnel port.
fn forged(source: [u8; 4], node: [u8; 4]) -> Vec<u8> {
    let inner = ipv4_frame(Mac::TUNNEL_WORKER, Mac::TUNNEL_GATEWAY, &ip(POD1, CLIENT).udp(4, 5, b"forged"));
    let [_, v0, v1, v2] = VNI.to_be_bytes();
    ip(source, node).udp(5_000, 6_081, &[&[0, 0, 0x65, 0x58, v0, v1, v2, 0], &inner[..]].concat())
}

/// A pod's datagram to a node's tunnel port, masqueraded to its node's address or not.
fn tunnel_ports() -> Vec<Row> {
    let routed = |packet: &[u8]| ipv4_frame(WORKER1_MAC, GATEWAY_MAC, packet);
    let drop = |name, tables: Tables, packet: &[u8]| {
        let frame = routed(packet);
        Row::drop(name, Hook::UnderlayEgress, tables.from_a_pod(), frame, Verdict::DropForgedTunnel)
    };
    let pass = |name, tables, packet: &[u8], verdict| {
        Row::pass(name, Hook::UnderlayEgress, tables, routed(packet), verdict)
    };
    let mut options = ip(WORKER1, GATEWAY);
    options.options = vec![1; 4];
    let mut first = ip(WORKER1, GATEWAY);
    first.more_fragments = true;
    let mut later = ip(WORKER1, GATEWAY);
    later.fragment_offset = 100;
    let ports = [5_000_u16.to_be_bytes(), 6_081_u16.to_be_bytes()].concat();
    let raw = [&ports[..], &[0; 60]].concat();
    vec![
        drop("a pod speaks as its node to the gateway", worker1(), &forged(WORKER1, GATEWAY)),
        drop("a pod speaks as its node to another worker", worker1(), &forged(WORKER1, WORKER2)),
        drop(
            "a pod without EIP speaks to the gateway's tunnel",
            worker1(),
            &forged([10, 244, 1, 11], GATEWAY),
        ),
        drop("an EIP pod speaks to the gateway's tunnel", worker1(), &forged(POD1, GATEWAY)),
        drop("a pod on the gateway speaks as the gateway", gateway(), &forged(GATEWAY, WORKER1)),
        drop("with IPv4 options", worker1(), &options.udp(5_000, 6_081, &[0; 40])),
        drop("in a first fragment", worker1(), &first.raw(17, &raw)),
        pass(
            "a later fragment has no port",
            worker1().from_a_pod(),
            &later.raw(17, &raw),
            Verdict::PassNotPod,
        ),
        pass("the node's own tunnel", worker1(), &forged(WORKER1, GATEWAY), Verdict::PassNotPod),
        pass(
            "from another NIC of the gateway: its own tunnel",
            Tables { arrived_on: EXTERNAL, ..gateway() },
            &forged(GATEWAY, WORKER1),
            Verdict::PassNotPod,
        ),
        pass(
            "a pod to that port of a host that is no node",
            worker1().from_a_pod(),
            &forged(WORKER1, [172, 18, 0, 99]),
            Verdict::PassNotPod,
        ),
        pass(
            "a pod to another port of a node",
            worker1().from_a_pod(),
            &ip(WORKER1, GATEWAY).udp(5_000, 4_789, &[0; 40]),
            Verdict::PassNotPod,
        ),
        pass(
            "a pod by TCP to a port of that number",
            worker1().from_a_pod(),
            &ip(WORKER1, GATEWAY).tcp(5_000, 6_081, &[], b"x"),
            Verdict::PassNotPod,
        ),
    ]
}

/// An ICMP error about an EIP pod's packet that a pod has made up is not its node's.
fn reports() -> Vec<Row> {
    let unreachable = || Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Host);
    let report = |source, pod| ip(source, CLIENT).icmp(unreachable(), &ip(CLIENT, pod).udp(7, 9, b"x")[..28]);
    let pass = |name, hook, tables: Tables, frame| {
        Row::pass(name, hook, tables.from_a_pod(), frame, Verdict::PassNotPod)
    };
    let routed = |packet: &[u8]| ipv4_frame(WORKER1_MAC, GATEWAY_MAC, packet);
    let out = |packet: &[u8]| ipv4_frame(NIC_MAC, CLIENT_MAC, packet);
    let stays = |name, packet: Vec<u8>| {
        let tables = gateway().from_a_pod();
        Row::drop(name, Hook::RouterPortEgress, tables, out(&packet), Verdict::DropInsideSource)
    };
    let worker = Hook::UnderlayEgress;
    vec![
        pass("a pod reports on an EIP pod", worker, worker1(), routed(&report([10, 244, 1, 11], POD1))),
        pass("a pod reports as its node", worker, worker1(), routed(&report(WORKER1, POD1))),
        stays("a pod reports on an EIP pod of the gateway", report([10, 244, 0, 11], POD0)),
        stays("a pod reports as the gateway", report(GATEWAY, POD0)),
        pass(
            "a pod that was masqueraded to nic-ip reports",
            Hook::RouterPortEgress,
            gateway(),
            out(&report(NIC_IP, POD0)),
        ),
    ]
}

/// A gateway that holds the rows and is not on the external network neither translates nor answers.
fn without_external_side() -> Vec<Row> {
    let drop = |name: String, tables: &Tables, packet: &[u8]| {
        let frame = to_it(tables).carry(packet);
        dropped(name, Hook::Underlay, tables.clone(), frame, Verdict::DropNoExternal)
    };
    let each = |(who, tables): (&str, Tables)| {
        let row = |what: &str, packet: Vec<u8>| drop(format!("{who}: {what}"), &tables, &packet);
        let turned = |ip: crate::packet::Ip| ip.udp(1, 2, b"as long as the fast path wants it");
        let (node, node_mac) = (tables.config.local_vtep, mac_of(&tables));
        let on = geneve((node_mac, WORKER2_MAC), (node, WORKER2));
        let to_eip = Row::change(
            named(format!("{who}: to an EIP on another node it goes on")),
            Hook::Underlay,
            resolved(tables.clone()),
            (
                to_it(&tables).carry(&turned(ip(POD1, EIP2).ttl(63))),
                on.carry(&turned(ip(EIP1, POD2).ttl(62))),
            ),
            (Verdict::ToEip, redirect(UNDERLAY)),
        );
        let counted = 14 + turned(ip(POD1, EIP2)).len();
        vec![
            row("an ordinary packet", turned(ip(POD1, CLIENT).ttl(63))),
            row("a long one with DF: no error with an MTU of 0", ip(POD1, CLIENT).udp(1, 2, &[0; 1_400])),
            row("TTL 1: no error in the name of nic-ip", ip(POD1, CLIENT).ttl(1).udp(1, 2, b"probe")),
            row("to nic-ip", ip(POD1, NIC_IP).echo_request(b"ping")),
            to_eip.counts_out(SLOT1, counted).counts_in(SLOT2, counted),
        ]
    };
    let gateways = [
        ("a gateway without its NIC", gateway_without_external_side()),
        ("a standby gateway", standby_gateway()),
    ];
    let mut rows: Vec<_> = gateways.into_iter().flat_map(each).collect();
    let local = ip(POD1, EIP0).udp(1, 2, b"to a pod on this gateway");
    let tables = gateway_without_external_side();
    rows.push(drop("a gateway without its NIC: to an EIP of its own".to_owned(), &tables, &local));
    rows.extend(small_tunnels());
    rows
}

fn mac_of(tables: &Tables) -> Mac {
    if tables.config.local_vtep == STANDBY { STANDBY_MAC } else { GATEWAY_MAC }
}

fn to_it(tables: &Tables) -> crate::packet::Geneve {
    geneve((WORKER1_MAC, mac_of(tables)), (WORKER1, tables.config.local_vtep)).from_worker()
}

/// Next hops by the gateway's own MAC.
fn resolved(mut tables: Tables) -> Tables {
    let source = mac_of(&tables);
    for vtep in tables.vteps.values_mut() {
        *vtep = Vtep { source_mac: source.0, ..*vtep };
    }
    tables
}

/// No link carries less than 68 bytes (RFC 791): nobody is told of one.
fn small_tunnels() -> Vec<Row> {
    let mut tables = gateway();
    tables.config.tunnel_mtu = 67;
    tables.config.external_mtu = 67;
    let big = |source, destination| ip(source, destination).udp(1, 2, &[0; 100]);
    let inwards = from_client(&big(CLIENT, EIP1));
    let outwards = from_worker1().carry(&big(POD1, CLIENT));
    let routed = ipv4_frame(NIC_MAC, CLIENT_MAC, &big(POD0, EIP1));
    let drop = |name, hook, frame| Row::drop(name, hook, tables.clone(), frame, Verdict::DropTooBig);
    vec![
        drop("no error with an MTU of 67 to a client", Hook::External, inwards),
        drop("no error with an MTU of 67 to a pod", Hook::Underlay, outwards),
        drop("no error with an MTU of 67 to a local pod", Hook::RouterPortEgress, routed),
    ]
}
