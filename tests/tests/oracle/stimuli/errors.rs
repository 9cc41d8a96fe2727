//! ICMP errors with what they quote, both ways, each behind the packet it is about.

use etherparse::Icmpv4Type;
use etherparse::TcpOptionElement::MaximumSegmentSize;
use etherparse::icmpv4::{
    DestUnreachableHeader, ParameterProblemHeader, RedirectCode, RedirectHeader, TimeExceededCode,
};
use gateway_tests::fixture::{OUTSIDE, POD1};
use gateway_tests::packet::{Ip, ip};

use super::{List, PORT, Way};

/// A router on the external network.
const ROUTER: [u8; 4] = [192, 168, 100, 7];
/// Type 4, which RFC 6633 withdraws.
const SOURCE_QUENCH: Icmpv4Type = Icmpv4Type::Unknown { type_u8: 4, code_u8: 0, bytes5to8: [0; 4] };

fn kinds() -> [(&'static str, Icmpv4Type); 6] {
    let needed = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
    let redirect =
        RedirectHeader { code: RedirectCode::RedirectForHost, gateway_internet_address: [192, 168, 100, 9] };
    [
        ("port unreachable", Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port)),
        ("fragmentation needed", Icmpv4Type::DestinationUnreachable(needed)),
        ("time exceeded", Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit)),
        (
            "parameter problem",
            Icmpv4Type::ParameterProblem(ParameterProblemHeader::PointerIndicatesError(20)),
        ),
        ("redirect", Icmpv4Type::Redirect(redirect)),
        ("source quench", SOURCE_QUENCH),
    ]
}

pub(super) fn add(list: &mut List) {
    for way in Way::BOTH {
        for (name, kind) in kinds() {
            about_udp(list, way, name, &kind, 28);
        }
        let (_, unreachable) = &kinds()[0];
        about_udp(list, way, "port unreachable, all of the datagram quoted", unreachable, 36);
        about_tcp(list, way);
        about_nothing(list, way);
    }
    from_a_router(list);
}

/// `way` is the error's; what it is about went the other.
fn about_udp(list: &mut List, way: Way, name: &str, kind: &Icmpv4Type, quoted: usize) {
    let (port, before) = (list.port(), way.back());
    let datagram = |ip: Ip| ip.udp(port, PORT, b"datagram");
    let error = way.ip().icmp(kind.clone(), &datagram(before.arrived())[..quoted]);
    list.add(way.named(name), vec![before.send(&datagram(before.ip())), way.send(&error)]);
}

fn about_tcp(list: &mut List, way: Way) {
    let (port, before) = (list.port(), way.back());
    let segment = |ip: Ip| ip.tcp(port, PORT, &[MaximumSegmentSize(1200)], b"");
    let (_, time_exceeded) = kinds()[2].clone();
    let error = way.ip().icmp(time_exceeded, &segment(before.arrived()));
    list.add(
        way.named("time exceeded about a TCP SYN"),
        vec![before.send(&segment(before.ip())), way.send(&error)],
    );
}

/// An error about a packet that nobody has sent: the receiver's own address, and another's.
fn about_nothing(list: &mut List, way: Way) {
    let (_, unreachable) = kinds()[0].clone();
    let quote = way.back().arrived().udp(list.port(), PORT, b"datagram");
    let error = way.ip().icmp(unreachable.clone(), &quote[..28]);
    list.add(way.named("port unreachable about a packet never sent"), vec![way.send(&error)]);
    let foreign = ip(OUTSIDE, [198, 51, 100, 7]).udp(list.port(), PORT, b"datagram");
    let error = way.ip().icmp(unreachable, &foreign[..28]);
    list.add(way.named("port unreachable about somebody else's packet"), vec![way.send(&error)]);
}

/// A router between, not the destination, says that the TTL ran out.
fn from_a_router(list: &mut List) {
    let port = list.port();
    let datagram = |ip: Ip| ip.udp(port, PORT, b"datagram");
    let (_, time_exceeded) = kinds()[2].clone();
    let error = Ip { source: ROUTER, ..Way::In.ip() }
        .icmp(time_exceeded, &datagram(Ip { destination: OUTSIDE, ..Way::Out.arrived() })[..28]);
    let sent = vec![Way::Out.send(&datagram(ip(POD1, OUTSIDE))), Way::In.send(&error)];
    list.add(Way::In.named("time exceeded from a router on the way to a host far away"), sent);
}
