//! Frames from decisions: headers of every kind we know of, mostly sound, between addresses the tables know.

use arbitrary::{Result, Unstructured};
use etherparse::{EtherType, Icmpv4Type};
use gateway_common::addr::Mac;
use gateway_ebpf::datapath::Hook;

use super::lies;
use crate::fixture::{
    CLIENT, CLIENT_MAC, EIP0, EIP1, EIP2, GATEWAY, GATEWAY_MAC, NIC_IP, NIC_MAC, OUTSIDE, POD0, POD1, POD2,
    WORKER1, WORKER1_MAC, WORKER2, WORKER2_MAC,
};
use crate::packet::{Geneve, Ip, frame, geneve, ip, ipv4_frame};

/// Every address with a meaning, and some without.
const ADDRESSES: [[u8; 4]; 17] = [
    CLIENT,
    OUTSIDE,
    NIC_IP,
    EIP0,
    EIP1,
    EIP2,
    POD0,
    POD1,
    POD2,
    GATEWAY,
    WORKER1,
    WORKER2,
    [192, 168, 100, 77],
    [10, 244, 1, 11],
    [10, 96, 0, 1],
    [0; 4],
    [255; 4],
];
const MACS: [Mac; 6] = [CLIENT_MAC, NIC_MAC, GATEWAY_MAC, WORKER1_MAC, WORKER2_MAC, Mac::BROADCAST];
const PODS: [[u8; 4]; 3] = [POD1, POD2, POD0];
const EIPS: [[u8; 4]; 3] = [EIP1, EIP2, EIP0];
const OUT_THERE: [[u8; 4]; 2] = [CLIENT, OUTSIDE];

/// A frame for a hook; one in three is made to lie.
///
/// # Errors
/// The bytes are used up.
pub fn any(u: &mut Unstructured<'_>, hook: Hook) -> Result<Vec<u8>> {
    let mut frame = match hook {
        Hook::External => external(u)?,
        Hook::Underlay => underlay(u)?,
        Hook::UnderlayEgress => routed(u, (WORKER1_MAC, GATEWAY_MAC), &[POD1, POD1, WORKER1, POD2])?,
        Hook::RouterPortEgress => routed(u, (NIC_MAC, CLIENT_MAC), &[POD0, POD0, GATEWAY, NIC_IP])?,
    };
    if u.ratio(1, 3)? {
        lies::tell(u, &mut frame)?;
    }
    Ok(frame)
}

fn external(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    if u.ratio(1, 10)? {
        return arp(u);
    }
    let (from, to) = (mac(u, CLIENT_MAC)?, mac(u, NIC_MAC)?);
    let (source, destination) = (address(u, &OUT_THERE)?, address(u, &[EIP1, EIP1, EIP2, EIP0, NIC_IP])?);
    Ok(ipv4_frame(from, to, &packet(u, source, destination)?))
}

/// What the kernel routed out: to the world, to an EIP, or to what is internal.
fn routed(u: &mut Unstructured<'_>, macs: (Mac, Mac), sources: &[[u8; 4]]) -> Result<Vec<u8>> {
    if u.ratio(1, 12)? {
        return arp(u);
    }
    let source = address(u, sources)?;
    let destination = address(u, &[CLIENT, OUTSIDE, EIP1, EIP2, EIP0])?;
    Ok(ipv4_frame(macs.0, macs.1, &packet(u, source, destination)?))
}

fn underlay(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let to_gateway = u.ratio(2, 3)?;
    let (tunnel, inner) = if to_gateway {
        let node = *u.choose(&[(WORKER1_MAC, WORKER1), (WORKER2_MAC, WORKER2)])?;
        let own = if node.1 == WORKER1 { [POD1, POD1, WORKER1] } else { [POD2, POD2, WORKER2] };
        let source = address(u, &own)?;
        let destination = address(u, &[CLIENT, OUTSIDE, EIP1, EIP2, EIP0, NIC_IP])?;
        let tunnel = geneve((node.0, GATEWAY_MAC), (node.1, GATEWAY)).from_worker();
        (tunnel, packet(u, source, destination)?)
    } else {
        let (source, destination) = (address(u, &OUT_THERE)?, address(u, &[POD1])?);
        (geneve((GATEWAY_MAC, WORKER1_MAC), (GATEWAY, WORKER1)), packet(u, source, destination)?)
    };
    Ok(bend(u, tunnel)?.carry(&inner))
}

/// A tunnel that is not quite ours, now and then.
fn bend(u: &mut Unstructured<'_>, mut tunnel: Geneve) -> Result<Geneve> {
    tunnel.checksum = u.ratio(1, 2)?;
    if u.ratio(1, 4)? {
        tunnel.tos = Some(u.arbitrary()?);
    }
    if u.ratio(1, 4)? {
        tunnel.source_port = Some(u.arbitrary()?);
    }
    if u.ratio(1, 6)? {
        let words = usize::from(u.int_in_range(1..=63_u8)?);
        tunnel = tunnel.with_options(&vec![u.arbitrary()?; words * 4], u.ratio(1, 8)?);
    }
    if u.ratio(1, 12)? {
        match u.int_in_range(0..=5)? {
            0 => tunnel.vni = u.arbitrary::<u32>()? & 0x00ff_ffff,
            1 => tunnel.port = u.arbitrary()?,
            2 => tunnel.head[1] |= u.arbitrary::<u8>()?,
            3 => tunnel.head[0] |= u.int_in_range(0..=3_u8)? << 6,
            4 => tunnel.inner_type = EtherType(u.arbitrary()?),
            _ => tunnel.nodes.0 = address(u, &[])?,
        }
    }
    Ok(tunnel)
}

fn arp(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let (sender_mac, target_mac) = (mac(u, CLIENT_MAC)?, mac(u, NIC_MAC)?);
    let operation = *u.choose(&[1_u8, 1, 1, 2, 3])?;
    let (sender, target) = (address(u, &[CLIENT])?, address(u, &[EIP1, EIP0, NIC_IP])?);
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    let body = [&head[..], &sender_mac.0, &sender, &target_mac.0, &target].concat();
    Ok(frame(sender_mac, *u.choose(&MACS)?, EtherType::ARP, &body))
}

fn mac(u: &mut Unstructured<'_>, usual: Mac) -> Result<Mac> {
    if u.ratio(15, 16)? { Ok(usual) } else { Ok(*u.choose(&MACS)?) }
}

/// Mostly one of `usual`.
fn address(u: &mut Unstructured<'_>, usual: &[[u8; 4]]) -> Result<[u8; 4]> {
    if !usual.is_empty() && u.ratio(9, 10)? {
        Ok(*u.choose(usual)?)
    } else if u.ratio(3, 4)? {
        Ok(*u.choose(&ADDRESSES)?)
    } else {
        u.arbitrary()
    }
}

/// Any IPv4 packet; an ICMP error with what it quotes.
fn packet(u: &mut Unstructured<'_>, source: [u8; 4], destination: [u8; 4]) -> Result<Vec<u8>> {
    let ip = header(u, source, destination)?;
    if u.ratio(1, 4)? { error(u, &ip) } else { ordinary(u, &ip) }
}

fn header(u: &mut Unstructured<'_>, source: [u8; 4], destination: [u8; 4]) -> Result<Ip> {
    let mut ip = ip(source, destination).ttl(*u.choose(&[64, 64, 64, 2, 1, 0, 255])?);
    ip.dont_fragment = u.ratio(3, 4)?;
    ip.tos = if u.ratio(1, 4)? { u.arbitrary()? } else { 0 };
    ip.identification = u.arbitrary()?;
    if u.ratio(1, 10)? {
        ip.more_fragments = u.arbitrary()?;
        ip.fragment_offset = u.arbitrary::<u16>()? & 0x1fff;
    }
    if u.ratio(1, 8)? {
        let words = usize::from(u.int_in_range(1..=10_u8)?);
        ip.options = vec![*u.choose(&[1, 0, 7, 0x83])?; words * 4];
        if u.ratio(1, 2)? {
            option(u, &mut ip.options)?;
        }
    }
    Ok(ip)
}

/// Writes one option somewhere, of a kind with a meaning or without, mostly as long as it may be.
fn option(u: &mut Unstructured<'_>, options: &mut [u8]) -> Result<()> {
    let at = *u.choose(&[0, 0, 1, 3])?;
    let kind = *u.choose(&[7, 68, 130, 131, 137, 148, 30, 158])?;
    let left = options.len() - at;
    let len = if u.ratio(7, 8)? { u.int_in_range(1..=left)? as u8 } else { u.arbitrary()? };
    options[..at].fill(1);
    options[at] = kind;
    if let Some(field) = options.get_mut(at + 1) {
        *field = len;
    }
    Ok(())
}

fn ordinary(u: &mut Unstructured<'_>, ip: &Ip) -> Result<Vec<u8>> {
    let (from, to) = (u.arbitrary()?, u.arbitrary()?);
    Ok(match u.int_in_range(0..=7_u8)? {
        0 | 1 => ip.udp(from, to, &payload(u)?),
        2 => ip.udp_without_checksum(from, to, &payload(u)?),
        3 => ip.tcp(from, to, &[], &payload(u)?),
        4 => ip.syn_raw(&tcp_options(u)?),
        5 => ip.echo_request(&payload(u)?),
        6 => ip.echo_reply(&payload(u)?),
        _ => {
            let protocol = *u.choose(&[1, 6, 17, 47, 50, 112, 132, 136, 136, 253])?;
            ip.raw(protocol, &payload(u)?)
        }
    })
}

/// A SYN's options: words of an MSS, and what may stand before it.
fn tcp_options(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut options = Vec::new();
    for _ in 0..u.int_in_range(0..=4_u8)? {
        match u.int_in_range(0..=5_u8)? {
            0 => options.push(1),
            1 | 2 => {
                let [hi, lo] = u.arbitrary::<u16>()?.to_be_bytes();
                options.extend([2, 4, hi, lo]);
            }
            3 => options.extend([3, 3, 7]),
            4 => options.extend([4, 2]),
            _ => options.extend(u.arbitrary::<[u8; 3]>()?),
        }
    }
    Ok(options)
}

/// An ICMP error, or what once was one, about a packet between addresses that make sense, or do not.
fn error(u: &mut Unstructured<'_>, outer: &Ip) -> Result<Vec<u8>> {
    let any = [EIPS[0], EIPS[1], PODS[0], PODS[1], PODS[2]];
    // About what the receiver sent, most of the time, to what the sender stands for.
    let source = if u.ratio(3, 4)? { outer.destination } else { address(u, &any)? };
    let went_to = if u.ratio(1, 2)? { outer.source } else { address(u, &PODS)? };
    let quoted = header(u, source, went_to)?;
    let quote = ordinary(u, &quoted)?;
    let len = *u.choose(&[28, 28, 40, 20, 19, 26, 68, 128, 0])?;
    let (quote, rest) = quote.split_at(len.min(quote.len()));
    let message = Icmpv4Type::Unknown {
        type_u8: *u.choose(&[3, 3, 11, 12, 4, 5, 17])?,
        code_u8: u.int_in_range(0..=15)?,
        bytes5to8: u.arbitrary()?,
    };
    let mut packet = outer.icmp(message, quote);
    if u.ratio(1, 6)? {
        // What is not quoted, behind the packet's end: nobody may take it for the quote.
        packet.extend_from_slice(rest);
    }
    Ok(packet)
}

/// Short, or about as long as a tunnel or a link carries.
fn payload(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let len = match u.int_in_range(0..=9_u8)? {
        0 => u.int_in_range(1380..=1490)?,
        1 => u.int_in_range(0..=2200)?,
        _ => u.int_in_range(0..=40)?,
    };
    let mut payload = vec![u.arbitrary()?; len];
    for byte in payload.iter_mut().take(4) {
        *byte = u.arbitrary()?;
    }
    Ok(payload)
}
