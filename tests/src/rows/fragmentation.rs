//! Packets too long for the next hop that may be fragmented, and what becomes of the copies that TC makes of them.

use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::{Exit, Hook};

use super::{Row, named, redirect};
use crate::engines::Kind;
use crate::fixture::{
    CLIENT, CLIENT_MAC, EIP0, EIP1, EXTERNAL, GATEWAY, GATEWAY_MAC, NIC_IP, NIC_MAC, POD0, POD1, SLOT0,
    SLOT1, TUNNEL_MTU, Tables, UNDERLAY, WORKER1, WORKER1_MAC, gateway,
};
use crate::packet::{Geneve, Ip, geneve, ip, ipv4_frame, left_to_nic};

const UDP: u8 = 17;
const GRE: u8 = 47;
const UDPLITE: u8 = 136;
const EXTERNAL_MTU: usize = 1500;

/// The rows.
pub fn rows() -> Vec<Row> {
    [inward(), inward_in_parts(), inward_with_options(), outward(), from_here(), offloaded()].concat()
}

/// DF clear.
fn may_be_cut(source: [u8; 4], destination: [u8; 4]) -> Ip {
    Ip { dont_fragment: false, ..ip(source, destination) }
}

/// The fragments that a packet without options to be dropped has to become to fit `mtu` bytes (RFC 791 section 3.2).
fn fragments(header: &Ip, protocol: u8, payload: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    fragments_of(header, &header.options, protocol, payload, mtu)
}

/// The same, where all but the first have `later` options.
fn fragments_of(header: &Ip, later: &[u8], protocol: u8, payload: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let each = (mtu - 20 - header.options.len()) / 8 * 8;
    let last = payload.len().div_ceil(each) - 1;
    let part = |(number, bytes): (usize, &[u8])| {
        let offset = u16::try_from(number * each / 8).expect("it fits");
        let header = Ip {
            fragment_offset: header.fragment_offset + offset,
            more_fragments: header.more_fragments || number < last,
            options: if number == 0 { header.options.clone() } else { later.to_vec() },
            ..header.clone()
        };
        header.raw(protocol, bytes)
    };
    payload.chunks(each).enumerate().map(part).collect()
}

/// Payload of a packet.
fn behind(packet: &[u8]) -> &[u8] {
    &packet[usize::from(packet[0] & 15) * 4..]
}

fn from_client(packet: &[u8]) -> Vec<u8> {
    ipv4_frame(CLIENT_MAC, NIC_MAC, packet)
}

/// The copy of a frame that is to become a fragment of its packet, from 1 on.
fn copy(frame: &[u8], number: u8) -> Vec<u8> {
    let mut copy = frame.to_vec();
    copy[6..12].copy_from_slice(&[0x02, b'e', b'i', b'p', b'f', number]);
    copy
}

/// A whole packet: XDP leaves it to the twin, which has `count` copies received.
fn whole(names: [&'static str; 2], hook: Hook, tables: &Tables, frame: &[u8], count: u8) -> Vec<Row> {
    let [xdp, tc] = names;
    let passed = Row::pass(xdp, hook, tables.clone(), frame.to_vec(), Verdict::PassToTwin).only(Kind::Xdp);
    vec![passed, copied(tc, hook, tables, (frame, frame), count)]
}

/// A whole packet of which TC has `count` copies come by again, as they are `then`.
pub(super) fn copied(
    name: &'static str,
    hook: Hook,
    tables: &Tables,
    (frame, then): (&[u8], &[u8]),
    count: u8,
) -> Row {
    let whole = Row::drop(name, hook, tables.clone(), frame.to_vec(), Verdict::Fragmented);
    // What leaves is itself the last one.
    let exit = if hook == Hook::RouterPortEgress { Exit::REFLECT } else { whole.exit };
    Row { out: copy(then, count), exit, ..whole.only(Kind::Tc) }
}

fn to_worker(name: &'static str, number: u8, packet: &[u8], out: &[u8]) -> Row {
    let tunnel = geneve((GATEWAY_MAC, WORKER1_MAC), (GATEWAY, WORKER1)).without_checksum();
    let frames = (copy(&from_client(packet), number), tunnel.carry(out));
    let end = (Verdict::ToWorker, redirect(UNDERLAY));
    Row::change(name, Hook::External, gateway(), frames, end).counts_in(SLOT1, 14 + out.len()).only(Kind::Tc)
}

fn inward() -> Vec<Row> {
    let data: Vec<u8> = (0..=255).cycle().take(1472).collect();
    let packet = may_be_cut(CLIENT, EIP1).udp(40_000, 53, &data);
    let translated = may_be_cut(CLIENT, POD1).ttl(63);
    let after = translated.udp(40_000, 53, &data);
    let out = fragments(&translated, UDP, behind(&after), TUNNEL_MTU as usize);
    let names = ["too long, DF clear: for the twin", "too long, DF clear: has to become fragments"];
    let hook = Hook::External;
    let mut ping_of_death = may_be_cut(CLIENT, EIP1);
    ping_of_death.fragment_offset = 8191;
    [
        whole(names, hook, &gateway(), &from_client(&packet), 2),
        vec![
            to_worker("the first of two fragments", 1, &packet, &out[0]),
            to_worker("the second of two fragments", 2, &packet, &out[1]),
            Row::drop("a third of two", hook, gateway(), copy(&from_client(&packet), 3), Verdict::DropTooBig)
                .only(Kind::Tc),
            Row::drop(
                "too long, ends behind 64 KiB",
                hook,
                gateway(),
                from_client(&ping_of_death.raw(UDP, &data)),
                Verdict::DropTooBig,
            )
            .only(Kind::Tc),
        ],
    ]
    .concat()
}

/// Of a fragment, of a packet with options, of a long one on a network with jumbo frames (the kernel's test run takes 3.4 kB).
fn inward_in_parts() -> Vec<Row> {
    let middle = |source, destination| {
        let mut ip = may_be_cut(source, destination);
        (ip.fragment_offset, ip.more_fragments) = (185, true);
        ip
    };
    let options = |source, destination| Ip { options: vec![1; 12], ..may_be_cut(source, destination) };
    let data: Vec<u8> = (0..=250).cycle().take(3_300).collect();
    let parts = |header: &dyn Fn([u8; 4], [u8; 4]) -> Ip, len: usize| {
        let packet = header(CLIENT, EIP1).raw(GRE, &data[..len]);
        let out = fragments(&header(CLIENT, POD1).ttl(63), GRE, &data[..len], TUNNEL_MTU as usize);
        (packet, out)
    };
    let (of_a_fragment, cut_again) = parts(&middle, 1480);
    let (with_options, cut_with_options) = parts(&options, 1440);
    let (long, three) = parts(&may_be_cut, 3_300);
    vec![
        to_worker("a fragment's first fragment", 1, &of_a_fragment, &cut_again[0]),
        to_worker("a fragment's last fragment is not its packet's", 2, &of_a_fragment, &cut_again[1]),
        to_worker("options go with the first fragment", 1, &with_options, &cut_with_options[0]),
        to_worker("options go with the last fragment", 2, &with_options, &cut_with_options[1]),
        to_worker("the second of three fragments", 2, &long, &three[1]),
        to_worker("the last of three fragments", 3, &long, &three[2]),
        to_worker(
            "a copy that fits is left as it is",
            2,
            &may_be_cut(CLIENT, EIP1).raw(GRE, &data[..100]),
            &may_be_cut(CLIENT, POD1).ttl(63).raw(GRE, &data[..100]),
        ),
    ]
}

/// What options the second fragment has: name, of the packet, of the fragment.
const OPTIONS: [(&str, &[u8], &[u8]); 8] = [
    ("router alert is copied", &[148, 4, 0, 0], &[148, 4, 0, 0]),
    ("quick-start is not", &[25, 8, 1, 2, 3, 4, 5, 6], &[1; 8]),
    ("of three one is", &[30, 3, 9, 1, 134, 6, 0, 0, 0, 1, 82, 2], &[1, 1, 1, 1, 134, 6, 0, 0, 0, 1, 1, 1]),
    (
        "at odd offsets",
        &[1, 94, 5, 0xab, 0xcd, 0xef, 158, 3, 7, 12, 3, 255],
        &[1, 1, 1, 1, 1, 1, 158, 3, 7, 1, 1, 1],
    ),
    ("one of 40 bytes", &LONGEST, &[1; 40]),
    ("what is behind the list's end stays", &[30, 3, 9, 0, 30, 3, 9, 0], &[1, 1, 1, 0, 30, 3, 9, 0]),
    ("what is too long for the header stays", &[30, 3, 9, 30, 6, 9, 9, 9], &[1, 1, 1, 30, 6, 9, 9, 9]),
    ("a last byte alone stays", &[30, 7, 9, 9, 9, 9, 9, 30], &[1, 1, 1, 1, 1, 1, 1, 30]),
];

/// An option as long as all of them may be.
const LONGEST: [u8; 40] = {
    let mut longest = [0xa5; 40];
    (longest[0], longest[1]) = (30, 40);
    longest
};

fn inward_with_options() -> Vec<Row> {
    let data: Vec<u8> = (0..=250).cycle().take(1_440).collect();
    let both = |(name, options, later): (&str, &[u8], &[u8])| {
        let with = |ip: Ip| Ip { options: options.to_vec(), ..ip };
        let packet = with(may_be_cut(CLIENT, EIP1)).raw(GRE, &data);
        let translated = with(may_be_cut(CLIENT, POD1)).ttl(63);
        let out = fragments_of(&translated, later, GRE, &data, TUNNEL_MTU as usize);
        let named = |which: &str| named(format!("{which} fragment's options: {name}"));
        [to_worker(named("first"), 1, &packet, &out[0]), to_worker(named("second"), 2, &packet, &out[1])]
    };
    OPTIONS.into_iter().flat_map(both).collect()
}

/// The underlay carries more than the external network.
fn outward() -> Vec<Row> {
    let mut jumbo = gateway();
    jumbo.config.tunnel_mtu = 8950;
    let data: Vec<u8> = (0..=252).cycle().take(2_000).collect();
    let translated = may_be_cut(EIP1, CLIENT).ttl(62);
    let packet = may_be_cut(POD1, CLIENT).ttl(63).udp(53, 40_000, &data);
    let after = translated.udp(53, 40_000, &data);
    let out = fragments(&translated, UDP, behind(&after), EXTERNAL_MTU);
    let tunnel: Geneve = geneve((WORKER1_MAC, GATEWAY_MAC), (WORKER1, GATEWAY)).from_worker();
    let hook = Hook::Underlay;
    let frame = tunnel.carry(&packet);
    let part = |name, number, out: &[u8]| {
        let frames = (copy(&frame, number), ipv4_frame(NIC_MAC, CLIENT_MAC, out));
        let end = (Verdict::ToExternal, Exit { ..redirect(EXTERNAL) });
        Row::change(name, hook, jumbo.clone(), frames, end).counts_out(SLOT1, 14 + out.len()).only(Kind::Tc)
    };
    let names = [
        "too long for the external network, DF clear: for the twin",
        "too long for the external network, DF clear: has to become fragments",
    ];
    [
        whole(names, hook, &jumbo, &frame, 2),
        vec![
            part("the first fragment of a pod's packet", 1, &out[0]),
            part("the second fragment of a pod's packet", 2, &out[1]),
        ],
    ]
    .concat()
}

/// From the gateway itself to an EIP elsewhere, as its kernel has routed it.
fn routed(packet: &[u8]) -> Vec<u8> {
    ipv4_frame(NIC_MAC, NIC_MAC, packet)
}

/// From a pod of the gateway, or the router port: copies leave again, and then go into the tunnel.
fn from_here() -> Vec<Row> {
    let hook = Hook::RouterPortEgress;
    let data: Vec<u8> = (0..=249).cycle().take(1_480).collect();
    let first = |source, destination| Ip { more_fragments: true, ..may_be_cut(source, destination).ttl(63) };
    let out = fragments(&first(EIP0, POD1), GRE, &data, TUNNEL_MTU as usize);
    let own = fragments(&first(NIC_IP, POD1), GRE, &data, TUNNEL_MTU as usize);
    let tunnel = geneve((GATEWAY_MAC, WORKER1_MAC), (GATEWAY, WORKER1)).without_checksum();
    let part = |name, number, source, out: &[u8]| {
        let frame = copy(&routed(&first(source, EIP1).raw(GRE, &data)), number);
        let end = (Verdict::ToEip, redirect(UNDERLAY));
        Row::change(name, hook, gateway(), (frame, tunnel.carry(out)), end).counts_in(SLOT1, 14 + out.len())
    };
    let whole = |name, packet: &[u8]| {
        let frame = routed(packet);
        copied(name, hook, &gateway(), (&frame, &frame), 2)
    };
    let from_pod = may_be_cut(POD0, EIP1).ttl(63);
    let mut ping_of_death = from_pod.clone();
    ping_of_death.fragment_offset = 8191;
    vec![
        whole("a local pod's own fragment has to be cut again", &first(POD0, EIP1).raw(GRE, &data)),
        whole("a local pod's full ping", &from_pod.echo_request(&data[..1472])),
        whole("a local pod's full datagram", &from_pod.udp(40_000, 53, &data[..1472])),
        whole("the router port's full datagram", &may_be_cut(NIC_IP, EIP1).udp(40_000, 53, &data[..1472])),
        part("the first fragment of a local pod's packet", 1, POD0, &out[0])
            .counts_out(SLOT0, 14 + out[0].len()),
        part("the second fragment of a local pod's packet", 2, POD0, &out[1])
            .counts_out(SLOT0, 14 + out[1].len()),
        part("the second fragment of the router port's packet", 2, NIC_IP, &own[1]),
        Row::drop(
            "a local pod's packet that ends behind 64 KiB",
            hook,
            gateway(),
            routed(&ping_of_death.raw(GRE, &data)),
            Verdict::DropTooBig,
        ),
    ]
}

/// A checksum that was left to a NIC is completed before copies are made; no other is touched.
fn offloaded() -> Vec<Row> {
    let data: Vec<u8> = (0..=248).cycle().take(1_471).collect();
    let header = may_be_cut(POD0, EIP1).ttl(63);
    let tcp = header.tcp(40_000, 80, &[], &data[..1_451]);
    let udp = header.udp(40_000, 53, &data);
    let outside = may_be_cut(CLIENT, EIP1).udp(40_000, 53, &data);
    let with_options = Ip { options: vec![1; 40], ..header.clone() }.udp(40_000, 53, &data[..1_431]);
    // Its last two bytes are what makes the sum all ones, and the checksum nothing.
    let summand = header.udp(40_000, 53, &[&data[..1_468], &[0; 2]].concat())[26..28].to_vec();
    let zero = header.udp(40_000, 53, &[&data[..1_468], &summand].concat());
    assert_eq!(zero[26..28], [0xff; 2]);
    let row = |name, (before, after): (&[u8], &[u8])| {
        copied(name, Hook::RouterPortEgress, &gateway(), (&routed(before), &routed(after)), 2)
    };
    let stays = |name, packet: &[u8]| row(name, (packet, packet));
    let mut wrong = udp.clone();
    wrong[26] ^= 0x55;
    let part = Ip { more_fragments: true, ..header.clone() }.raw(UDP, &left_to_nic(&udp)[20..]);
    vec![
        row("a UDP checksum left to a NIC", (&left_to_nic(&udp), &udp)),
        row("a TCP checksum left to a NIC", (&left_to_nic(&tcp), &tcp)),
        row("a checksum left to a NIC behind options", (&left_to_nic(&with_options), &with_options)),
        row("a UDP checksum left to a NIC is all ones, not zero", (&left_to_nic(&zero), &zero)),
        stays("a wrong UDP checksum is not repaired", &wrong),
        stays("UDP without checksum stays without", &header.udp_without_checksum(1, 2, &data)),
        stays("a fragment's checksum is in part elsewhere", &part),
        stays("UDP-Lite is left to no NIC", &left_to_nic(&header.raw(UDPLITE, &udp[20..]))),
        copied(
            "a neighbour's UDP checksum left to a NIC",
            Hook::External,
            &gateway(),
            (&from_client(&left_to_nic(&outside)), &from_client(&outside)),
            2,
        ),
    ]
}
