//! The ways in and out of `plain.c`, in the same steps.
#![expect(unsafe_code, reason = "calls a helper of the kernel")]

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::programs::XdpContext;

use crate::packet::{
    Bytes, DESTINATION_AT, ETH_LEN, ETHERTYPE_AT, IP_AT, IP_CHECKSUM_AT, IP_LEN, L4_AT, SOURCE_AT,
    TCP_CHECKSUM_AT, TUNNEL_LEN, UDP_CHECKSUM_AT, adjust_head, carried, difference, fold, words,
};
use crate::tables::{Row, local_node};

const VNI: u32 = 0x00e1_9001;
const GENEVE_PORT: u16 = 6081;
const IPV4: u16 = 0x0800;
const DONT_FRAGMENT: u16 = 0x4000;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The tunnel's headers in the order of the wire.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct Tunnel {
    destination_mac: [u8; 6],
    source_mac: [u8; 6],
    ethertype: u16,
    version: u8,
    tos: u8,
    total_len: u16,
    identification: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
    source_port: u16,
    destination_port: u16,
    udp_len: u16,
    udp_checksum: u16,
    options: u8,
    flags: u8,
    protocol_type: u16,
    vni: u32,
    inner_destination_mac: [u8; 6],
    inner_source_mac: [u8; 6],
    inner_ethertype: u16,
}

const _: () =
    assert!(size_of::<Tunnel>() == TUNNEL_LEN + ETH_LEN, "outer headers and the inner Ethernet header");

/// An address field becomes another address, the TTL goes down by one.
#[inline(always)]
fn translate(frame: Bytes, field: usize, address: u32) -> Option<()> {
    let protocol: u8 = frame.get(IP_AT + 9);
    let old: u32 = frame.get(field);
    let change = difference(old, address);
    let checksum_at = match protocol {
        UDP => Some(UDP_CHECKSUM_AT),
        TCP => Some(TCP_CHECKSUM_AT),
        _ => None,
    };
    if let Some(at) = checksum_at {
        if !frame.holds(at + 2) {
            return None;
        }
        let mut checksum: u16 = frame.get(at);
        if checksum != 0 || protocol == TCP {
            checksum = carried(checksum, change);
        }
        if checksum == 0 && protocol == UDP {
            checksum = 0xffff;
        }
        frame.set(at, checksum);
    }
    frame.set(field, address);
    frame.set(IP_AT + 8, frame.get::<u8>(IP_AT + 8).wrapping_sub(1));
    // The TTL is the first byte of its word.
    frame.set(IP_CHECKSUM_AT, carried(frame.get(IP_CHECKSUM_AT), change + u32::from(!1_u16)));
    Some(())
}

#[inline(always)]
fn tunnel(row: &Row, tos: u8, inner_len: u16, flow: u32) -> Tunnel {
    let total = inner_len.wrapping_add(TUNNEL_LEN as u16);
    let local = local_node();
    let (total_len, ports) = (total.to_be(), ((flow >> 16) ^ flow) as u16);
    // What does not change: 0x4500, DF, TTL and protocol.
    let fixed = [0x4500_u16, DONT_FRAGMENT, 64 << 8 | UDP as u16].map(|word| u32::from(word.to_be()));
    let sum = fixed[0] + fixed[1] + fixed[2] + u32::from(u16::from(tos).to_be()) + u32::from(total_len);
    Tunnel {
        destination_mac: row.destination_mac,
        source_mac: row.source_mac,
        ethertype: IPV4.to_be(),
        version: 0x45,
        tos,
        total_len,
        identification: 0,
        fragment: DONT_FRAGMENT.to_be(),
        ttl: 64,
        protocol: UDP,
        checksum: !fold(sum + words(local) + words(row.node)),
        source: local,
        destination: row.node,
        source_port: ports | 0xc000_u16.to_be(),
        destination_port: GENEVE_PORT.to_be(),
        udp_len: total.wrapping_sub(IP_LEN as u16).to_be(),
        udp_checksum: 0,
        options: 0,
        flags: 0,
        protocol_type: 0x6558_u16.to_be(),
        vni: (VNI << 8).to_be(),
        inner_destination_mac: *b"\x02eipwk",
        inner_source_mac: *b"\x02eipgw",
        inner_ethertype: IPV4.to_be(),
    }
}

/// IPv4 without options that may take another hop.
#[inline(always)]
fn is_plain_ipv4(frame: Bytes) -> bool {
    frame.get::<u16>(ETHERTYPE_AT) == IPV4.to_be()
        && frame.get::<u8>(IP_AT) == 0x45
        && frame.get::<u8>(IP_AT + 8) > 1
        && frame.get::<u16>(IP_AT + 6) & 0x1fff_u16.to_be() == 0
}

#[inline(always)]
fn redirect(row: &Row) -> u32 {
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(row.ifindex, 0) as u32 }
}

/// From a client to an EIP: into the tunnel.
#[inline(always)]
pub(crate) fn inbound(ctx: &XdpContext, find: impl Fn(u32) -> Option<&'static Row>) -> u32 {
    let Some(frame) = Bytes::of(ctx, L4_AT + 8) else { return XDP_PASS };
    if !is_plain_ipv4(frame) {
        return XDP_PASS;
    }
    let destination: u32 = frame.get(DESTINATION_AT);
    let Some(row) = find(destination) else { return XDP_PASS };
    let flow = frame.get::<u32>(SOURCE_AT) ^ destination ^ frame.get::<u32>(L4_AT);
    let len = u16::from_be(frame.get(IP_AT + 2));
    let tos = frame.get(IP_AT + 1);
    if translate(frame, DESTINATION_AT, row.address).is_none() || !adjust_head(ctx, -(TUNNEL_LEN as i32)) {
        return XDP_DROP;
    }
    let Some(frame) = Bytes::of(ctx, size_of::<Tunnel>()) else { return XDP_DROP };
    frame.set(0, tunnel(row, tos, len, flow));
    redirect(row)
}

/// From an EIP pod by its node: out of the tunnel.
#[inline(always)]
pub(crate) fn outbound(ctx: &XdpContext, find: impl Fn(u32) -> Option<&'static Row>) -> u32 {
    let Some(frame) = Bytes::of(ctx, TUNNEL_LEN + L4_AT + 8) else { return XDP_PASS };
    if !is_plain_ipv4(frame) {
        return XDP_PASS;
    }
    let ours = frame.get::<u8>(IP_AT + 9) == UDP
        && frame.get::<u32>(DESTINATION_AT) == local_node()
        && frame.get::<u16>(L4_AT + 2) == GENEVE_PORT.to_be()
        && frame.get::<u32>(L4_AT + 12) == (VNI << 8).to_be()
        && frame.get::<u8>(L4_AT + 8) == 0
        && frame.get::<u8>(L4_AT + 9) == 0;
    if !ours {
        return XDP_PASS;
    }
    let node: u32 = frame.get(SOURCE_AT);
    let inner = frame.behind(TUNNEL_LEN);
    if !is_plain_ipv4(inner) {
        return XDP_DROP;
    }
    let Some(row) = find(inner.get(SOURCE_AT)) else { return XDP_DROP };
    if row.node != node || !adjust_head(ctx, TUNNEL_LEN as i32) {
        return XDP_DROP;
    }
    let Some(frame) = Bytes::of(ctx, L4_AT + 8) else { return XDP_DROP };
    if translate(frame, SOURCE_AT, row.address).is_none() {
        return XDP_DROP;
    }
    frame.copy(0, &row.destination_mac);
    frame.copy(6, &row.source_mac);
    redirect(row)
}
