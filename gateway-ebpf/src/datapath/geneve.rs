//! Putting frames into the tunnel (RFC 8926).

use core::hint::black_box;

use gateway_common::addr::Mac;
use gateway_common::csum::{Sum, pseudo_header};
use gateway_common::flow;
use gateway_common::tables::{Config, VTEP_RESOLVED, Vtep};
use gateway_common::verdict::Verdict;
use gateway_common::wire::geneve::{self, INNER_IP};
use gateway_common::wire::{eth, icmp, ipv4, l4};

use super::packet::Packet;
use super::zeroed::Zeroed;
use super::{Action, Env, Exit, Frame, Nic, Outcome, Room, Step, can_send, resolve};

/// TTL of the outer header, as the kernel and OVS set it.
pub(super) const OUTER_TTL: u8 = 64;

/// How a packet gets to a node.
#[derive(Clone, Copy)]
pub(super) struct Hop {
    /// Outer addresses and frame.
    pub(super) tunnel: Tunnel,
    /// What the engine does then.
    pub(super) exit: Exit,
}

/// The headers that vary. Aligned, so that BPF moves them by words.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Tunnel {
    /// Outer Ethernet header. As bytes, which are copied as they are: the parts would each want a register.
    pub(super) outer: [u8; eth::HEADER_LEN],
    /// Destination VTEP.
    pub(super) to: [u8; 4],
    /// Inner Ethernet header: [`FROM_GATEWAY`] or [`FROM_WORKER`].
    pub(super) inner: &'static [u8; eth::HEADER_LEN],
}

/// Inner Ethernet header of what a gateway sends.
pub(super) const FROM_GATEWAY: &[u8; eth::HEADER_LEN] =
    &eth::Header { destination: Mac::TUNNEL_WORKER, source: Mac::TUNNEL_GATEWAY, ethertype: eth::IPV4 }
        .emit();
/// Inner Ethernet header of what a worker sends.
pub(super) const FROM_WORKER: &[u8; eth::HEADER_LEN] =
    &eth::Header { destination: Mac::TUNNEL_GATEWAY, source: Mac::TUNNEL_WORKER, ethertype: eth::IPV4 }
        .emit();

/// The next hop towards a node: known, or left to the kernel where the engine can. Called before anything is
/// changed, since XDP passes the untouched packet on.
#[inline(always)]
pub(super) fn hop_to<F: Frame, E: Env>(frame: &F, env: &E, config: &Config, vtep: [u8; 4]) -> Step<Hop> {
    can_send(frame, config, Nic::UNDERLAY)?;
    let (outer, exit) = match env.vtep(vtep) {
        Some(Vtep { ifindex, flags, source_mac, destination_mac }) if flags & VTEP_RESOLVED != 0 => (
            eth::Header {
                destination: Mac(*destination_mac),
                source: Mac(*source_mac),
                ethertype: eth::IPV4,
            },
            Exit::of(Action::Redirect, *ifindex),
        ),
        Some(_) | None => (
            eth::Header { destination: Mac([0; 6]), source: Mac([0; 6]), ethertype: eth::IPV4 },
            resolve::<F, E>(env, config, config.underlay_ifindex, [0; 4])?,
        ),
    };
    Ok(Hop { tunnel: Tunnel { outer: outer.emit(), to: vtep, inner: FROM_GATEWAY }, exit })
}

/// Grows the frame by the tunnel's headers and writes them. The inner packet starts at offset 14 and fills the
/// frame.
#[inline(always)]
pub(super) fn encapsulate<F: Frame>(
    frame: &mut F,
    config: &Config,
    packet: &Packet,
    tunnel: &Tunnel,
) -> Step<()> {
    match write(frame, config, packet, tunnel, Flow::of(frame, packet)) {
        true => Ok(()),
        false => Err(Outcome::drop(Verdict::DropNoRoom)),
    }
}

/// What the outer headers say of the inner packet: source port, whether the sum over everything behind the inner IPv4
/// header is known, and that sum. In one word, so that it travels in a register.
#[derive(Clone, Copy)]
struct Flow(u64);

impl Flow {
    /// A function of its own, like [`write`]: both at once would be too much for the stack.
    #[inline(never)]
    fn of<F: Frame>(frame: &F, packet: &Packet) -> Self {
        let inner = &packet.header;
        let port =
            flow::source_port(inner.source(), inner.destination(), inner.protocol(), ports(frame, packet));
        Self(u64::from(port) << 32 | u64::from(l4_sum(frame, packet).0))
    }

    const fn source_port(self) -> u16 {
        (self.0 >> 32) as u16
    }

    const fn l4_sum(self) -> L4Sum {
        L4Sum(self.0 as u32)
    }
}

/// The one's-complement sum over everything behind the inner IPv4 header, or that the headers do not tell. In one word.
#[derive(Clone, Copy)]
pub(super) struct L4Sum(u32);

impl L4Sum {
    const KNOWN: u32 = 1 << 16;

    #[inline(always)]
    pub(super) const fn get(self) -> Option<u16> {
        if self.0 & Self::KNOWN == 0 { None } else { Some(self.0 as u16) }
    }
}

/// `false` when there is no room.
#[inline(never)]
fn write<F: Frame>(frame: &mut F, config: &Config, packet: &Packet, tunnel: &Tunnel, flow: Flow) -> bool {
    let inner = &packet.header;
    let udp_len = (l4::UDP_LEN + geneve::HEADER_LEN + eth::HEADER_LEN) as u16 + inner.total_len();
    let outer_ip = ipv4::Repr {
        // RFC 6040 section 4.1, normal mode: DSCP and ECN are copied.
        tos: inner.tos(),
        payload_len: udp_len,
        dont_fragment: true,
        ttl: OUTER_TTL,
        protocol: ipv4::UDP,
        source: config.local_vtep,
        destination: tunnel.to,
    };
    let ([s0, s1], [d0, d1], [l0, l1]) =
        (flow.source_port().to_be_bytes(), config.geneve_port, udp_len.to_be_bytes());
    let mut headers = Zeroed::<INNER_IP>::new();
    let headers = &mut headers.0;
    headers[..14].copy_from_slice(&tunnel.outer);
    headers[14..34].copy_from_slice(&outer_ip.emit().0);
    headers[34..42].copy_from_slice(&[s0, s1, d0, d1, l0, l1, 0, 0]);
    headers[42..50].copy_from_slice(&geneve::emit(config.vni));
    headers[50..].copy_from_slice(tunnel.inner);
    if let Some(inner_l4) = flow.l4_sum().get() {
        // Local checksum offload: the inner IPv4 header sums to zero, the inner L4 to the complement of its
        // pseudo-header, so the payload need not be read.
        let mut sum = pseudo_header(&config.local_vtep, &tunnel.to, ipv4::UDP, udp_len).word(inner_l4);
        for at in (34..INNER_IP).step_by(2) {
            sum = sum.word(u16::from_be_bytes([headers[at], headers[at + 1]]));
        }
        headers[40..42].copy_from_slice(&nonzero(sum).to_be_bytes());
    }
    // As one piece of memory: its bytes one by one, in XDP, would take eight times the stack.
    let headers = black_box(headers);
    frame.grow_head(Room::Tunnel).and_then(|()| frame.store(0, headers)).is_some()
}

/// RFC 768: a computed checksum of zero is sent as all ones.
#[inline(always)]
const fn nonzero(sum: Sum) -> u16 {
    match sum.checksum() {
        0 => 0xffff,
        checksum => checksum,
    }
}

/// The sum over everything behind the inner IPv4 header by local checksum offload. Where the headers do not tell, the
/// outer checksum stays zero (none, RFC 768).
#[inline(never)]
pub(super) fn l4_sum<F: Frame>(frame: &F, packet: &Packet) -> L4Sum {
    match inner_l4_sum(frame, packet) {
        Some(sum) => L4Sum(L4Sum::KNOWN | u32::from(sum)),
        None => L4Sum(0),
    }
}

#[inline(always)]
fn inner_l4_sum<F: Frame>(frame: &F, packet: &Packet) -> Option<u16> {
    let inner = &packet.header;
    // A fragment's checksum covers bytes that are elsewhere; the segments of a GSO packet will have their own.
    if inner.is_fragment() || frame.segments() > 1 {
        return None;
    }
    // What is too short for a checksum has none.
    match inner.protocol() {
        ipv4::ICMP if inner.payload_len() as usize >= icmp::HEADER_LEN => Some(0),
        ipv4::TCP if inner.payload_len() as usize >= l4::TCP_LEN => Some(inner_pseudo_complement(packet)),
        ipv4::UDP => {
            let [l0, l1, c0, c1] = frame.load::<4>(packet.l4() + 4)?;
            let whole = u16::from_be_bytes([l0, l1]) == inner.payload_len()
                && inner.payload_len() as usize >= l4::UDP_LEN;
            if whole && [c0, c1] != [0, 0] { Some(inner_pseudo_complement(packet)) } else { None }
        }
        _ => None,
    }
}

#[inline(always)]
fn inner_pseudo_complement(packet: &Packet) -> u16 {
    let inner = &packet.header;
    pseudo_header(&inner.source(), &inner.destination(), inner.protocol(), inner.payload_len()).checksum()
}

/// Source and destination port, zero where the packet shows none or is a fragment.
#[inline(always)]
fn ports<F: Frame>(frame: &F, packet: &Packet) -> [u8; 4] {
    match packet.header.protocol() {
        ipv4::TCP | ipv4::UDP | ipv4::UDPLITE if !packet.header.is_fragment() => {
            frame.load(packet.l4()).unwrap_or([0; 4])
        }
        _ => [0; 4],
    }
}
