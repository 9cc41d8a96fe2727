//! Properties of the datapath on the host engine: what must hold of any outcome does, a translation and its reverse give back the packet,
//! and every checksum that was valid stays valid, as etherparse computes it.

use std::sync::LazyLock;

use etherparse::TcpOptionElement;
use gateway_common::addr::Mac;
use gateway_ebpf::datapath::Hook;
use gateway_tests::engines::{Coarse, Kind, Seen, host};
use gateway_tests::fixture::{
    CLIENT, CLIENT_MAC, EIP1, GATEWAY_MAC, NIC_MAC, POD1, WORKER1_MAC, gateway, worker1,
};
use gateway_tests::fuzzing::reader::{Checksum, Packet, Tunnel};
use gateway_tests::fuzzing::{self, HOOKS};
use gateway_tests::packet::{Ip, ip, ipv4_frame};
use gateway_tests::rows::{self, Row};
use proptest::prelude::*;

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(rows::all);

/// On every hook, with all tables: what must hold of any outcome.
fn run_everywhere(frame: &[u8]) {
    for hook in HOOKS {
        fuzzing::raw(hook, frame);
    }
}

/// Any IPv4 packet a client or pod might send: protocol, header fields, payload.
fn packets() -> impl Strategy<Value = Shape> {
    let payload = prop::collection::vec(any::<u8>(), 0..1200);
    let ports = (any::<u16>(), any::<u16>());
    (0..5_u8, 2..=255_u8, any::<u8>(), any::<bool>(), 0..=10_usize, ports, payload).prop_map(
        |(kind, ttl, tos, dont_fragment, option_words, ports, payload)| Shape {
            kind,
            ttl,
            tos,
            dont_fragment,
            options: vec![1; option_words * 4],
            ports,
            payload,
        },
    )
}

#[derive(Clone, Debug)]
struct Shape {
    kind: u8,
    ttl: u8,
    tos: u8,
    dont_fragment: bool,
    options: Vec<u8>,
    ports: (u16, u16),
    payload: Vec<u8>,
}

impl Shape {
    fn packet(&self, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let ip = Ip {
            ttl: self.ttl,
            tos: self.tos,
            dont_fragment: self.dont_fragment,
            options: self.options.clone(),
            ..ip(source, destination)
        };
        let (from, to) = self.ports;
        match self.kind {
            0 => ip.udp(from, to, &self.payload),
            1 => ip.tcp(from, to, &[], &self.payload),
            // An MSS that fits, so that the segment is not changed.
            2 => ip.tcp(from, to, &[TcpOptionElement::MaximumSegmentSize(1000)], &self.payload),
            3 => ip.echo_request(&self.payload),
            _ => ip.raw(47, &self.payload),
        }
    }
}

/// The packet with source and destination, addresses and ports, exchanged: what an answer looks like. No checksum
/// changes by it.
fn mirrored(packet: &[u8]) -> Vec<u8> {
    let mut mirror = packet.to_vec();
    mirror[12..16].copy_from_slice(&packet[16..20]);
    mirror[16..20].copy_from_slice(&packet[12..16]);
    let l4 = usize::from(packet[0] & 15) * 4;
    if matches!(packet[9], 6 | 17) {
        mirror[l4..l4 + 2].copy_from_slice(&packet[l4 + 2..l4 + 4]);
        mirror[l4 + 2..l4 + 4].copy_from_slice(&packet[l4..l4 + 2]);
    }
    mirror
}

/// Client to pod: through the gateway, through the worker.
fn inwards(packet: &[u8]) -> Vec<u8> {
    let at_gateway =
        host::run(Kind::Xdp, Hook::External, &gateway(), &ipv4_frame(CLIENT_MAC, NIC_MAC, packet));
    assert_eq!(at_gateway.action, Coarse::Send, "{at_gateway:?}");
    check_tunnel(&at_gateway.frame);
    let at_worker = host::run(Kind::Xdp, Hook::Underlay, &worker1(), &at_gateway.frame);
    assert_eq!(at_worker.action, Coarse::Pass, "{at_worker:?}");
    at_worker.frame[14..].to_vec()
}

/// Pod to client: through the worker, through the gateway.
fn outwards(packet: &[u8]) -> Vec<u8> {
    let routed = ipv4_frame(WORKER1_MAC, GATEWAY_MAC, packet);
    let at_worker: Seen = host::run(Kind::Tc, Hook::UnderlayEgress, &worker1(), &routed);
    check_tunnel(&at_worker.frame);
    let at_gateway = host::run(Kind::Xdp, Hook::Underlay, &gateway(), &at_worker.frame);
    assert_eq!(at_gateway.action, Coarse::Send, "{at_gateway:?}");
    at_gateway.frame[14..].to_vec()
}

/// The checksums of a tunnelled frame: outer and inner.
fn check_tunnel(frame: &[u8]) {
    let tunnel = Tunnel::read(frame).expect("a packet in our tunnel");
    check_packet(&tunnel.outer.bytes());
    check_packet(&tunnel.inner.bytes());
}

/// The checksums of a packet whose headers were valid when it came.
fn check_packet(packet: &[u8]) {
    let packet = Packet::read(packet).expect("an IPv4 packet");
    assert_eq!(packet.header_checksum(), Checksum::Right, "IPv4 header checksum");
    assert_ne!(packet.l4_checksum(), Checksum::Wrong, "L4 checksum");
}

/// Everything but TTL and header checksum, which each hop changes.
fn apart_from_ttl(packet: &[u8]) -> Vec<u8> {
    let mut rest = packet.to_vec();
    rest[8] = 0;
    rest[10..12].fill(0);
    rest
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(frame in prop::collection::vec(any::<u8>(), 0..300)) {
        run_everywhere(&frame);
    }

    #[test]
    fn no_frame_built_breaks_a_rule(decisions in prop::collection::vec(any::<u8>(), 64..512)) {
        HOOKS.into_iter().for_each(|hook| fuzzing::structured(hook, &decisions));
    }

    #[test]
    fn no_broken_row_panics(row in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(),
                            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
        let mut frame = row.get(&ROWS).frame.clone();
        for (at, byte) in flips {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        run_everywhere(&frame);
        frame.truncate(cut.index(frame.len()));
        run_everywhere(&frame);
    }

    #[test]
    fn in_then_out_gives_back_the_packet(shape in packets()) {
        let sent = shape.packet(CLIENT, EIP1);
        let delivered = inwards(&sent);
        check_packet(&delivered);
        prop_assert_eq!(&delivered[16..20], &POD1[..]);
        prop_assert_eq!(delivered[8], shape.ttl - 1);
        // Give the answer a TTL that lasts, as the pod would.
        let mut answer = mirrored(&delivered);
        let checksum = gateway_common::csum::update(
            u16::from_be_bytes([answer[10], answer[11]]), &[answer[8], answer[9]], &[64, answer[9]]);
        answer[10..12].copy_from_slice(&checksum.to_be_bytes());
        answer[8] = 64;
        let back = outwards(&answer);
        check_packet(&back);
        prop_assert_eq!(apart_from_ttl(&mirrored(&back)), apart_from_ttl(&sent));
    }

    #[test]
    fn a_wrong_checksum_stays_wrong(shape in packets(), flip in 1..=u16::MAX) {
        let mut sent = shape.packet(CLIENT, EIP1);
        let l4 = usize::from(sent[0] & 15) * 4;
        let field = match sent[9] { 6 => l4 + 16, 17 => l4 + 6, _ => return Ok(()) };
        let right = u16::from_be_bytes([sent[field], sent[field + 1]]);
        let wrong = right ^ flip;
        // 0 and 0xffff are the same sum; a UDP checksum of 0 means none.
        prop_assume!(wrong != 0 && !(right == 0 || right == 0xffff) || (wrong != 0 && wrong != 0xffff));
        sent[field..field + 2].copy_from_slice(&wrong.to_be_bytes());
        let frame = ipv4_frame(CLIENT_MAC, NIC_MAC, &sent);
        let seen = host::run(Kind::Xdp, Hook::External, &gateway(), &frame);
        let tunnel = Tunnel::read(&seen.frame).expect("a packet in our tunnel");
        prop_assert_eq!(tunnel.inner.l4_checksum(), Checksum::Wrong);
    }
}

#[test]
fn every_row_cut_at_every_offset() {
    for row in ROWS.iter() {
        for len in 0..row.frame.len().min(200) {
            fuzzing::raw(row.hook, &row.frame[..len]);
        }
    }
}

#[test]
fn a_station_of_ours_is_unicast() {
    for mac in [Mac::TUNNEL_GATEWAY, Mac::TUNNEL_WORKER] {
        assert!(!mac.is_multicast());
    }
}
