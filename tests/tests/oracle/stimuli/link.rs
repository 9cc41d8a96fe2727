//! The router port and the link: ARP, echo, closed ports, frames for somebody else.

use etherparse::TcpOptionElement::MaximumSegmentSize;
use etherparse::{ArpEthIpv4Packet, ArpOperation, EtherType};
use gateway_common::addr::Mac;
use gateway_tests::fixture::{CLIENT, EIP1, NIC_IP, NIC_MAC, OUTSIDE, POD1};
use gateway_tests::packet::{Ip, frame, ip};

use super::{CLIENT_MAC, List, PORT, Sent, Side, Way};

/// An address of the external network that nobody has.
const NOBODY: [u8; 4] = [192, 168, 100, 55];

pub(super) fn add(list: &mut List) {
    arp(list);
    router_port(list);
    elsewhere(list);
    destinations(list);
}

fn arp(list: &mut List) {
    let mut ask = |name: &str, sender: [u8; 4], target: [u8; 4], to: Mac| {
        let packet = ArpEthIpv4Packet {
            operation: ArpOperation::REQUEST,
            sender_mac: CLIENT_MAC.0,
            sender_ipv4: sender,
            target_mac: [0; 6],
            target_ipv4: target,
        };
        let frame = frame(CLIENT_MAC, to, EtherType::ARP, &packet.to_bytes());
        list.add(name.to_owned(), vec![Sent { from: Side::Client, frame }]);
    };
    ask("ARP for the EIP", CLIENT, EIP1, Mac::BROADCAST);
    ask("ARP for nic-ip", CLIENT, NIC_IP, Mac::BROADCAST);
    ask("ARP for an address nobody has", CLIENT, NOBODY, Mac::BROADCAST);
    ask("ARP for the pod's address", CLIENT, POD1, Mac::BROADCAST);
    ask("ARP for the EIP, unicast", CLIENT, EIP1, NIC_MAC);
    ask("ARP probe for the EIP (RFC 5227)", [0; 4], EIP1, Mac::BROADCAST);
}

fn router_port(list: &mut List) {
    let from_client = ip(CLIENT, NIC_IP);
    list.add("echo to nic-ip".to_owned(), vec![Way::In.send(&from_client.echo_request(b"echo"))]);
    let packet = from_client.udp(list.port(), PORT, b"datagram");
    list.add("UDP to a closed port of nic-ip".to_owned(), vec![Way::In.send(&packet)]);
    let packet = from_client.tcp(list.port(), PORT, &[MaximumSegmentSize(1460)], b"");
    list.add("TCP SYN to a closed port of nic-ip".to_owned(), vec![Way::In.send(&packet)]);
    let packet = from_client.raw(253, b"an experiment");
    list.add("protocol 253 to nic-ip".to_owned(), vec![Way::In.send(&packet)]);
    let packet = ip(POD1, NIC_IP).echo_request(b"echo");
    list.add("the pod's echo to nic-ip".to_owned(), vec![Way::Out.send(&packet)]);
}

/// What a switch floods, or sends to all.
fn elsewhere(list: &mut List) {
    let mut to = |name: &str, mac: Mac| {
        let packet = Way::In.ip().udp(list.port(), PORT, b"datagram");
        let frame = frame(CLIENT_MAC, mac, EtherType::IPV4, &packet);
        list.add(Way::In.named(name), vec![Sent { from: Side::Client, frame }]);
    };
    to("to the MAC of another station", Mac([2, 0, 0, 0, 0, 0x77]));
    to("to the broadcast MAC", Mac::BROADCAST);
    to("to a multicast MAC", Mac([1, 0, 0x5e, 0, 0, 1]));
}

fn destinations(list: &mut List) {
    let packet = ip(POD1, OUTSIDE).udp(list.port(), PORT, b"datagram");
    list.add(Way::Out.named("to a host behind the physical gateway"), vec![Way::Out.send(&packet)]);
    let packet = ip(POD1, EIP1).udp(list.port(), PORT, b"datagram");
    list.add(Way::Out.named("to the pod's own EIP"), vec![Way::Out.send(&packet)]);
    let packet = Ip { source: [10, 244, 1, 99], ..Way::Out.ip() }.udp(list.port(), PORT, b"datagram");
    list.add(Way::Out.named("from an address that is not the pod's"), vec![Way::Out.send(&packet)]);
}
