//! Packets too long for the next hop that may be fragmented, and what becomes of the copies that TC makes of them.

use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::{Exit, Hook};

use super::{Row, redirect};
use crate::engines::Kind;
use crate::fixture::{
    CLIENT, CLIENT_MAC, EIP1, EXTERNAL, GATEWAY, GATEWAY_MAC, NIC_MAC, POD1, SLOT1, TUNNEL_MTU, Tables,
    UNDERLAY, WORKER1, WORKER1_MAC, gateway,
};
use crate::packet::{Geneve, Ip, geneve, ip, ipv4_frame};

const UDP: u8 = 17;
const EXTERNAL_MTU: usize = 1500;

/// The rows.
pub fn rows() -> Vec<Row> {
    [inward(), inward_in_parts(), outward()].concat()
}

/// DF clear.
fn may_be_cut(source: [u8; 4], destination: [u8; 4]) -> Ip {
    Ip { dont_fragment: false, ..ip(source, destination) }
}

/// The fragments that a packet has to become to fit `mtu` bytes (RFC 791 section 3.2).
fn fragments(header: &Ip, protocol: u8, payload: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let each = (mtu - 20 - header.options.len()) / 8 * 8;
    let last = payload.len().div_ceil(each) - 1;
    let part = |(number, bytes): (usize, &[u8])| {
        let offset = u16::try_from(number * each / 8).expect("it fits");
        let header = Ip {
            fragment_offset: header.fragment_offset + offset,
            more_fragments: header.more_fragments || number < last,
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
    let copied = Row {
        out: copy(frame, count),
        ..Row::drop(tc, hook, tables.clone(), frame.to_vec(), Verdict::Fragmented).only(Kind::Tc)
    };
    vec![Row::pass(xdp, hook, tables.clone(), frame.to_vec(), Verdict::PassToTwin).only(Kind::Xdp), copied]
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
        let packet = header(CLIENT, EIP1).raw(47, &data[..len]);
        let out = fragments(&header(CLIENT, POD1).ttl(63), 47, &data[..len], TUNNEL_MTU as usize);
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
            &may_be_cut(CLIENT, EIP1).raw(47, &data[..100]),
            &may_be_cut(CLIENT, POD1).ttl(63).raw(47, &data[..100]),
        ),
    ]
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
