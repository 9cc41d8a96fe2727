//! What is answered on the external NIC: ARP for the EIPs and the router port, and its ping.

use etherparse::EtherType;
use gateway_common::addr::Mac;
use gateway_common::verdict::Verdict;
use gateway_common::wire::arp;
use gateway_ebpf::datapath::{Exit, Hook};

use super::Row;
use super::external::from_client;
use crate::fixture::{CLIENT, CLIENT_MAC, EIP0, EIP1, NIC_IP, NIC_MAC, gateway};
use crate::packet::{frame, ip, ipv4_frame};

const HOOK: Hook = Hook::External;

/// The rows.
pub fn rows() -> Vec<Row> {
    [arp_rows(), nic_ip_rows()].concat()
}

fn arp_frame(operation: u16, sender: (Mac, [u8; 4]), target: (Mac, [u8; 4]), to: Mac) -> Vec<u8> {
    // Written out by hand: hrd 1, pro 0x0800, hln 6, pln 4.
    let [o0, o1] = operation.to_be_bytes();
    let body = [&[0, 1, 8, 0, 6, 4, o0, o1][..], &sender.0.0, &sender.1, &target.0.0, &target.1].concat();
    frame(sender.0, to, EtherType::ARP, &body)
}

fn arp_rows() -> Vec<Row> {
    let nobody = Mac([0; 6]);
    let ask = |sender_ip, ip| arp_frame(arp::REQUEST, (CLIENT_MAC, sender_ip), (nobody, ip), Mac::BROADCAST);
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
        pass("an announcement of an EIP is not answered", ask(EIP1, EIP1)),
        pass("an ARP reply is the kernel's", answer(CLIENT, EIP1)),
        pass("ARP cut short is the kernel's", ask(CLIENT, EIP1)[..40].to_vec()),
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
