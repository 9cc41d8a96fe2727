//! What no sound host sends: wrong checksums, contradicting lengths, impossible sources.

use etherparse::TcpOptionElement::MaximumSegmentSize;
use gateway_tests::fixture::{EIP1, NIC_IP, POD1, POD2};
use gateway_tests::packet::Ip;

use super::{List, PORT, Sent, Way};

pub(super) fn add(list: &mut List) {
    for way in Way::BOTH {
        checksums(list, way);
        lengths(list, way);
    }
    sources(list);
}

/// A bit of the byte at an offset from the IPv4 header.
fn flipped(mut packet: Vec<u8>, at: usize) -> Vec<u8> {
    packet[at] ^= 0x10;
    packet
}

fn checksums(list: &mut List, way: Way) {
    let mut one = |name: &str, packet: &dyn Fn(Ip, u16) -> Vec<u8>| {
        let packet = packet(way.ip(), list.port());
        list.add_unsound(way.named(name), vec![way.send(&packet)]);
    };
    one("wrong IPv4 checksum", &|ip, port| flipped(ip.udp(port, PORT, b"datagram"), 10));
    one("wrong UDP checksum", &|ip, port| flipped(ip.udp(port, PORT, b"datagram"), 30));
    one("wrong TCP checksum", &|ip, port| flipped(ip.tcp(port, PORT, &[MaximumSegmentSize(1200)], b""), 30));
    one("wrong ICMP checksum", &|ip, _| flipped(ip.echo_request(b"echo"), 30));
}

fn lengths(list: &mut List, way: Way) {
    let padded = |mut sent: Sent| {
        sent.frame.extend_from_slice(&[0; 10]);
        sent
    };
    let packet = way.ip().udp(list.port(), PORT, b"1");
    list.add(way.named("padding behind the packet"), vec![padded(way.send(&packet))]);
    let packet = way.ip().udp(list.port(), PORT, b"datagram");
    list.add_unsound(way.named("frame shorter than the packet"), vec![way.send(&packet[..30])]);
    // Version 6, a header of 16 bytes.
    for (name, first) in [("version 6 in the IPv4 header", 0x65), ("header length of 16", 0x44)] {
        let mut packet = way.ip().udp(list.port(), PORT, b"datagram");
        packet[0] = first;
        list.add_unsound(way.named(name), vec![way.send(&packet)]);
    }
}

fn sources(list: &mut List) {
    let sources = [
        ("the external network's broadcast address", [192, 168, 100, 255]),
        ("255.255.255.255", [255; 4]),
        ("0.0.0.0", [0; 4]),
        ("127.0.0.1", [127, 0, 0, 1]),
        ("a multicast address", [224, 0, 0, 5]),
        ("240.0.0.1", [240, 0, 0, 1]),
        ("the EIP itself", EIP1),
        ("nic-ip", NIC_IP),
        ("the pod's own address", POD1),
        ("another pod's address", POD2),
    ];
    for (name, source) in sources {
        let packet = Ip { source, ..Way::In.ip() }.udp(list.port(), PORT, b"datagram");
        list.add(format!("in: from {name}"), vec![Way::In.send(&packet)]);
    }
}
