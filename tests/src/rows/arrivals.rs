//! What the outer headers of a tunnelled frame do to the inner packet: congestion marks, checksums, lengths.

use gateway_common::addr::Mac;
use gateway_common::verdict::Verdict;
use gateway_common::wire::geneve::INNER_IP;
use gateway_ebpf::datapath::{Exit, Hook};

use super::{Row, named, redirect};
use crate::engines::Kind;
use crate::fixture::{
    CLIENT, CLIENT_MAC, EIP1, EXTERNAL, GATEWAY, GATEWAY_MAC, NIC_MAC, POD1, SLOT1, WORKER1, WORKER1_MAC,
    gateway, worker1,
};
use crate::packet::{Geneve, Ip, geneve, ip, ipv4_frame};

const HOOK: Hook = Hook::Underlay;

/// The rows.
pub fn rows() -> Vec<Row> {
    [congestion_rows(), checksum_rows(), length_rows()].concat()
}

fn from_gateway() -> Geneve {
    geneve((GATEWAY_MAC, WORKER1_MAC), (GATEWAY, WORKER1))
}

fn from_worker1() -> Geneve {
    geneve((WORKER1_MAC, GATEWAY_MAC), (WORKER1, GATEWAY)).from_worker()
}

fn arrives(name: &'static str, frame: Vec<u8>, packet: &[u8]) -> Row {
    let frames = (frame, ipv4_frame(GATEWAY_MAC, WORKER1_MAC, packet));
    Row::change(name, HOOK, worker1(), frames, (Verdict::FromGateway, Exit::PASS))
        .counts_in(SLOT1, 14 + packet.len())
}

/// RFC 6040 section 4.2, figure 4, written out: rows Not-ECT, ECT(0), ECT(1), CE inside; columns the same outside.
const FIGURE_4: [(u8, [Option<u8>; 4]); 4] = [
    (0, [Some(0), Some(0), Some(0), None]),
    (2, [Some(2), Some(2), Some(1), Some(3)]),
    (1, [Some(1), Some(1), Some(1), Some(3)]),
    (3, [Some(3), Some(3), Some(3), Some(3)]),
];

fn congestion_rows() -> Vec<Row> {
    /// The inner DSCP, which stays, and the outer one, which goes.
    const DSCP: (u8, u8) = (0xb8, 0x20);
    let packet = |to, ttl, tos| Ip { tos, ..ip(CLIENT, to).ttl(ttl) }.udp(40_000, 53, b"query");
    let mut rows = Vec::new();
    for (inner, becomes) in FIGURE_4 {
        for (outer, becomes) in [0, 2, 1, 3].into_iter().zip(becomes) {
            let name = named(format!("ECN {inner} inside, {outer} outside"));
            let before = packet(POD1, 63, DSCP.0 | inner);
            let frame = from_gateway().with_tos(DSCP.1 | outer).carry(&before);
            rows.push(match becomes {
                Some(ecn) => arrives(name, frame, &packet(POD1, 63, DSCP.0 | ecn)),
                None => Row::drop(name, HOOK, worker1(), frame, Verdict::DropCongestion),
            });
        }
    }
    let out = |source, ttl, ecn| Ip { tos: DSCP.0 | ecn, ..ip(source, CLIENT).ttl(ttl) }.udp(53, 1, b"a");
    let before = out(POD1, 63, 2);
    let frame = from_worker1().with_tos(DSCP.1 | 3).carry(&before);
    rows.push(to_external("congestion on the way to the gateway", frame, before.len(), &out(EIP1, 62, 3)));
    rows
}

fn to_external(name: &'static str, frame: Vec<u8>, inner: usize, after: &[u8]) -> Row {
    let frames = (frame, ipv4_frame(NIC_MAC, CLIENT_MAC, after));
    Row::change(name, HOOK, gateway(), frames, (Verdict::ToExternal, redirect(EXTERNAL)))
        .counts_out(SLOT1, 14 + inner)
}

fn checksum_rows() -> Vec<Row> {
    let flipped = |mut bytes: Vec<u8>, at: usize| {
        bytes[at] ^= 0x40;
        bytes
    };
    let wrong = |name, frame| Row::drop(name, HOOK, worker1(), frame, Verdict::DropOuterChecksum);
    let udp = ip(CLIENT, POD1).ttl(63).udp(40_000, 53, b"query");
    let gre = ip(CLIENT, POD1).ttl(63).raw(47, &[0x5a; 1001]);
    let jumbo = ip(CLIENT, POD1).ttl(63).raw(47, &[0x5a; 8000]);
    let jumbo_tcp = ip(CLIENT, POD1).ttl(63).tcp(40_000, 80, &[], &[0x5a; 8000]);
    let payload = INNER_IP + 28;
    let out = |source, ttl| ip(source, CLIENT).ttl(ttl).tcp(80, 1, &[], b"answer");
    let broken = |packet: Vec<u8>| flipped(packet, 41);
    let inner_wrong = flipped(udp.clone(), 27);
    vec![
        arrives(
            "payload damaged in the tunnel: the inner checksum shows it to the pod",
            flipped(from_gateway().carry(&udp), payload),
            &flipped(udp.clone(), 28),
        ),
        to_external(
            "payload damaged in the tunnel: the inner checksum shows it to the client",
            flipped(from_worker1().carry(&out(POD1, 63)), INNER_IP + 41),
            out(POD1, 63).len(),
            &broken(out(EIP1, 62)),
        ),
        arrives(
            "a wrong inner checksum under a right outer one stays",
            from_gateway().carry(&inner_wrong),
            &inner_wrong,
        ),
        wrong("damaged inner Ethernet header", flipped(from_gateway().carry(&udp), 50)),
        wrong("damaged inner address", flipped(from_gateway().carry(&udp), INNER_IP + 12)),
        wrong("damaged UDP source port", flipped(from_gateway().carry(&udp), 34)),
        wrong("wrong outer checksum", flipped(from_gateway().carry(&udp), 40)),
        arrives("no inner checksum, right outer one, odd length", from_gateway().carry(&gre), &gre),
        wrong("no inner checksum, damaged last byte", {
            let frame = from_gateway().carry(&gre);
            let last = frame.len() - 1;
            flipped(frame, last)
        }),
        arrives("a jumbo packet without inner checksum", from_gateway().carry(&jumbo), &jumbo)
            // The kernel's test run gives TC no frame longer than a page.
            .only(Kind::Xdp),
        arrives("a jumbo packet with an inner checksum", from_gateway().carry(&jumbo_tcp), &jumbo_tcp)
            .only(Kind::Xdp),
        wrong("a jumbo packet damaged far in", flipped(from_gateway().carry(&jumbo), 7_777)).only(Kind::Xdp),
        arrives(
            "damaged, and no checksum to tell",
            flipped(from_gateway().without_checksum().carry(&gre), payload),
            &flipped(gre.clone(), 28),
        ),
        wrong("damaged option", flipped(from_gateway().with_options(&[0; 12], false).carry(&udp), 52)),
    ]
}

fn length_rows() -> Vec<Row> {
    let udp = ip(CLIENT, POD1).ttl(63).udp(40_000, 53, b"query");
    let malformed = |name, change: &[(usize, u8)]| {
        let mut frame = from_gateway().without_checksum().carry(&udp);
        for (at, difference) in change {
            frame[*at] = frame[*at].wrapping_add(*difference);
        }
        Row::drop(name, HOOK, worker1(), frame, Verdict::DropMalformed)
    };
    let mut padded = from_gateway().without_checksum().carry(&udp);
    padded.extend_from_slice(&[0; 4]);
    let mut inner = udp.clone();
    inner[3] += 4;
    let mut behind = from_gateway().without_checksum().carry(&inner);
    behind.extend_from_slice(&[0; 4]);
    let mut delivered = arrives("Ethernet padding behind the tunnel's packet", padded, &udp);
    delivered.out.extend_from_slice(&[0; 4]);
    vec![
        delivered,
        malformed("outer length longer than the frame", &[(17, 1)]),
        malformed("outer length shorter than its UDP", &[(17, 0xff)]),
        malformed("UDP length longer than the outer packet", &[(39, 1)]),
        malformed("UDP length shorter than the outer packet", &[(39, 0xff)]),
        malformed("UDP length shorter than its header", &[(38, 0), (39, 0u8.wrapping_sub(78))]),
        Row::drop(
            "the inner packet ends behind the outer one",
            HOOK,
            worker1(),
            behind,
            Verdict::DropMalformed,
        ),
        Row::pass(
            "cut in the Geneve header",
            HOOK,
            gateway(),
            ipv4_frame(
                WORKER1_MAC,
                GATEWAY_MAC,
                &ip(WORKER1, GATEWAY).udp_without_checksum(49_152, 6081, &[0; 4]),
            ),
            Verdict::PassNotTunnel,
        ),
        Row::drop(
            "an inner frame of nothing but its header",
            HOOK,
            worker1(),
            empty(),
            Verdict::DropMalformed,
        ),
    ]
}

/// A tunnelled Ethernet header without a packet.
fn empty() -> Vec<u8> {
    let mut frame = from_gateway().without_checksum().carry(&ip(CLIENT, POD1).udp(1, 2, b""));
    frame.truncate(INNER_IP);
    let length = u16::try_from(INNER_IP - 14).unwrap_or_default();
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    frame[38..40].copy_from_slice(&(length - 20).to_be_bytes());
    debug_assert_eq!(frame[50..56], Mac::TUNNEL_WORKER.0);
    frame
}
