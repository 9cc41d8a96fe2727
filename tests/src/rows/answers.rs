//! What is answered on the external NIC: ARP for the EIPs and the router port, and its ping.

use etherparse::EtherType;
use gateway_common::addr::Mac;
use gateway_common::limit::Limited;
use gateway_common::verdict::Verdict;
use gateway_common::wire::arp;
use gateway_ebpf::datapath::{Exit, Hook};

use super::external::from_client;
use super::{Row, inject};
use crate::engines::Kind;
use crate::fixture::{CLIENT, CLIENT_MAC, EIP0, EIP1, NIC_IP, NIC_MAC, ROUTER_PORT, gateway};
use crate::packet::{frame, ip, ipv4_frame};

const HOOK: Hook = Hook::External;

/// The rows.
pub fn rows() -> Vec<Row> {
    [arp_rows(), conflict_rows(), moved_rows(), nic_ip_rows()].concat()
}

fn arp_frame(operation: u16, sender: (Mac, [u8; 4]), target: (Mac, [u8; 4]), to: Mac) -> Vec<u8> {
    // Written out by hand: hrd 1, pro 0x0800, hln 6, pln 4.
    let [o0, o1] = operation.to_be_bytes();
    let body = [&[0, 1, 8, 0, 6, 4, o0, o1][..], &sender.0.0, &sender.1, &target.0.0, &target.1].concat();
    frame(sender.0, to, EtherType::ARP, &body)
}

const NOBODY: Mac = Mac([0; 6]);

fn arp_rows() -> Vec<Row> {
    let ask = |sender_ip, ip| arp_frame(arp::REQUEST, (CLIENT_MAC, sender_ip), (NOBODY, ip), Mac::BROADCAST);
    let answer = |sender_ip, ip| arp_frame(arp::REPLY, (NIC_MAC, ip), (CLIENT_MAC, sender_ip), CLIENT_MAC);
    let reply = (Verdict::ArpReply, Exit::REFLECT);
    let change = |name, sender_ip, ip| {
        Row::change(name, HOOK, gateway(), (ask(sender_ip, ip), answer(sender_ip, ip)), reply)
    };
    let pass = |name, frame| Row::pass(name, HOOK, gateway(), frame, Verdict::PassNotIpv4);
    vec![
        change("who has an EIP: the router port's MAC", CLIENT, EIP1),
        change("who has an EIP of a pod on the gateway: the router port's MAC", CLIENT, EIP0),
        change("who has nic-ip: the router port's MAC", CLIENT, NIC_IP),
        change("a probe for an EIP (RFC 5227) is defended", [0; 4], EIP1),
        pass("who has another address: not ours", ask(CLIENT, [192, 168, 100, 77])),
        change("a host that is no neighbor yet asks for an EIP", [192, 168, 100, 7], EIP1),
        Row::change(
            "a host checks that the router port is still there (RFC 1122 section 2.3.2.1)",
            HOOK,
            gateway(),
            (arp_frame(arp::REQUEST, (CLIENT_MAC, CLIENT), (NIC_MAC, EIP1), NIC_MAC), answer(CLIENT, EIP1)),
            reply,
        ),
        Row::pass(
            "who has an EIP, asked of another station: not ours",
            HOOK,
            gateway(),
            arp_frame(arp::REQUEST, (CLIENT_MAC, CLIENT), (NOBODY, EIP1), Mac([2, 0, 0, 0, 9, 9])),
            Verdict::PassNotForUs,
        ),
        pass(
            "an ARP reply is the kernel's",
            arp_frame(arp::REPLY, (CLIENT_MAC, CLIENT), (NIC_MAC, NIC_IP), NIC_MAC),
        ),
        pass("ARP cut short is the kernel's", ask(CLIENT, EIP1)[..40].to_vec()),
    ]
}

/// Another station in the name of an EIP or nic-ip: the agent has to hear of it, whatever is asked.
fn conflict_rows() -> Vec<Row> {
    let other = Mac([2, 0, 0, 0, 6, 6]);
    let said = |operation, sender: (Mac, [u8; 4]), target| {
        arp_frame(operation, sender, (NOBODY, target), Mac::BROADCAST)
    };
    let conflict = |name, frame| Row::pass(name, HOOK, gateway(), frame, Verdict::PassArpConflict);
    let ours = |name, frame| Row::pass(name, HOOK, gateway(), frame, Verdict::PassNotIpv4);
    vec![
        conflict("another station announces an EIP", said(arp::REQUEST, (other, EIP1), EIP1)),
        conflict("another station announces an EIP by a reply", said(arp::REPLY, (other, EIP1), EIP1)),
        conflict("another station announces nic-ip", said(arp::REQUEST, (other, NIC_IP), NIC_IP)),
        conflict("an EIP asks for a host", said(arp::REQUEST, (other, EIP1), CLIENT)),
        conflict("an EIP asks for another EIP", said(arp::REQUEST, (other, EIP1), EIP0)),
        conflict("an EIP asks for nic-ip", said(arp::REQUEST, (other, EIP1), NIC_IP)),
        ours("our own announcement comes back", said(arp::REQUEST, (NIC_MAC, EIP1), EIP1)),
    ]
}

/// A host with another MAC than the kernel knows is answered, and the kernel hears of it (RFC 826): TC does both, by a copy.
fn moved_rows() -> Vec<Row> {
    let moved = Mac([2, 0, 0, 0, 1, 9]);
    let ask = |ip| arp_frame(arp::REQUEST, (moved, CLIENT), (NOBODY, ip), Mac::BROADCAST);
    let to_kernel = |name, ip| {
        let frames = (ask(ip), ask(ip));
        Row::change(name, HOOK, gateway(), frames, (Verdict::ArpReply, inject(ROUTER_PORT))).only(Kind::Tc)
    };
    let reply = arp_frame(arp::REPLY, (NIC_MAC, EIP1), (moved, CLIENT), moved);
    let twin =
        Row::pass("a host has another MAC: left to TC", HOOK, gateway(), ask(EIP1), Verdict::PassToTwin);
    vec![
        twin.only(Kind::Xdp),
        to_kernel("a host has another MAC: it is answered, and the kernel hears of it", EIP1),
        to_kernel("a host has another MAC and asks for nic-ip", NIC_IP),
        Row::change(
            "a host has another MAC each time: it is only answered",
            HOOK,
            gateway().spent(&[Limited::NextHops]),
            (ask(EIP1), reply),
            (Verdict::ArpReply, Exit::REFLECT),
        )
        .only(Kind::Tc),
    ]
}

fn nic_ip_rows() -> Vec<Row> {
    let ping = |payload: &[u8]| from_client(&ip(CLIENT, NIC_IP).echo_request(payload));
    let pong =
        |payload: &[u8]| ipv4_frame(NIC_MAC, CLIENT_MAC, &ip(NIC_IP, CLIENT).ttl(254).echo_reply(payload));
    let echo = (Verdict::EchoReply, Exit::REFLECT);
    let kernel =
        |name, packet: Vec<u8>| Row::pass(name, HOOK, gateway(), from_client(&packet), Verdict::PassNicIp);
    let mut first = ip(CLIENT, NIC_IP);
    first.more_fragments = true;
    vec![
        Row::change(
            "ping of nic-ip is answered, TTL 254",
            HOOK,
            gateway(),
            (ping(b"abcdefgh"), pong(b"abcdefgh")),
            echo,
        ),
        Row::change("ping of nic-ip with an odd length", HOOK, gateway(), (ping(b"abc"), pong(b"abc")), echo),
        kernel("a fragmented ping of nic-ip is the kernel's to put together", first.echo_request(&[7; 64])),
        kernel("TCP to nic-ip is the kernel's", ip(CLIENT, NIC_IP).tcp(40_000, 179, &[], b"")),
        kernel("an echo reply to nic-ip is the kernel's", ip(CLIENT, NIC_IP).echo_reply(b"abcd")),
    ]
}
