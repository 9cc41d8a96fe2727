//! ICMP that the gateway sends of its own: echo replies for the router port, and a router's errors.

use gateway_common::csum::{self, Sum};
use gateway_common::limit::Limited;
use gateway_common::tables::Config;
use gateway_common::verdict::Verdict;
use gateway_common::wire::icmp::{self, RouterError};
use gateway_common::wire::{eth, ipv4};

use super::packet::{self, Packet};
use super::zeroed::Zeroed;
use super::{Env, Exit, Frame, Nic, Outcome, Room, Step, can_send};

/// TTL of an echo reply: what an OVN router port's has when it arrives, and operators' scripts look for.
const ECHO_TTL: u8 = 254;
/// TTL of an ICMP error.
const ERROR_TTL: u8 = 64;
/// Bytes quoted behind the IPv4 header of the packet in error (RFC 792).
const QUOTED_L4: usize = 8;
/// Bytes quoted at most: a header of 60 bytes, and [`QUOTED_L4`].
const MAX_QUOTED: usize = (60 + QUOTED_L4).next_multiple_of(8);
/// Bytes up to what is quoted.
const HEADERS: usize = eth::HEADER_LEN + Room::IcmpError.bytes();

/// Answers an unfragmented echo request to the router port; anything else for it is the kernel's.
#[inline(always)]
pub(super) fn echo<F: Frame>(frame: &mut F, config: &Config, packet: &Packet) -> Step<Outcome> {
    const KERNEL: Outcome = Outcome::pass(Verdict::PassNicIp);
    let is_plain = packet.header.protocol() == ipv4::ICMP
        && packet.header.header_len() == ipv4::HEADER_LEN
        && !packet.header.is_fragment();
    if !is_plain {
        return Err(KERNEL);
    }
    let l4 = packet.ip + ipv4::HEADER_LEN;
    let [kind, code, c0, c1] = frame.load(l4).ok_or(KERNEL)?;
    if kind != icmp::ECHO_REQUEST || code != 0 {
        return Err(KERNEL);
    }
    can_send(frame, config, Nic::EXTERNAL)?;
    let [c0, c1] =
        csum::update(u16::from_be_bytes([c0, c1]), &[kind, code], &[icmp::ECHO_REPLY, 0]).to_be_bytes();
    let mut header = packet.header;
    let (source, destination) = (header.source(), header.destination());
    header.set_source(destination);
    header.set_destination(source);
    header.set_ttl(ECHO_TTL);
    let ethernet = packet::ethernet(frame)?;
    let turned =
        eth::Header { destination: ethernet.source, source: ethernet.destination, ethertype: eth::IPV4 };
    let stored = frame
        .store(0, &turned.emit())
        .and_then(|()| frame.store(packet.ip, &header.0))
        .and_then(|()| frame.store(l4, &[icmp::ECHO_REPLY, 0, c0, c1]));
    match stored {
        Some(()) => Ok(Outcome::new(Verdict::EchoReply, Exit::REFLECT)),
        None => Err(Outcome::drop(Verdict::DropNoRoom)),
    }
}

/// Whether an ICMP error may be sent about the packet (RFC 1122 section 3.2.2, RFC 1812 section 4.3.2.7). From and to
/// addresses of nobody or of many nothing gets here: see `martian`.
#[inline(always)]
fn may_report<F: Frame>(frame: &F, packet: &Packet) -> bool {
    if packet.header.is_later_fragment() || (packet.header.payload_len() as usize) < QUOTED_L4 {
        return false;
    }
    if packet.header.protocol() != ipv4::ICMP {
        return true;
    }
    matches!(frame.load(packet.l4()), Some([kind, _code]) if !icmp::is_error(kind))
}

/// Whether an error is to be sent. Without data, so that it travels in a register.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Permit {
    Given,
    /// Never about such a packet.
    Silent,
    /// Enough were sent.
    Enough,
}

/// Goes on when an ICMP error is to be sent about the packet, and takes it out of its kind's budget. Called when nothing is in
/// its way any more, and before anything is changed.
///
/// # Errors
/// The verdict of what gets no error when none may be sent about such a packet; one of its own when enough were sent.
#[inline(always)]
pub(super) fn permit<F: Frame, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    packet: &Packet,
    error: RouterError,
) -> Step<()> {
    let (kind, silent) = match error {
        RouterError::TimeExceeded => (Limited::TimeExceeded, Verdict::DropExpired),
        RouterError::FragmentationNeeded { .. } => (Limited::FragmentationNeeded, Verdict::DropTooBig),
    };
    match ask(frame, env, config, packet, kind) {
        Permit::Given => Ok(()),
        Permit::Silent => Err(Outcome::drop(silent)),
        Permit::Enough => Err(Outcome::drop(Verdict::DropErrorLimit)),
    }
}

/// A function of its own: rare.
#[inline(never)]
fn ask<F: Frame, E: Env>(frame: &F, env: &E, config: &Config, packet: &Packet, kind: Limited) -> Permit {
    if !may_report(frame, packet) {
        Permit::Silent
    } else if env.take(kind, kind.per_second(config), 1) {
        Permit::Given
    } else {
        Permit::Enough
    }
}

/// Replaces the packet in the frame by an ICMP error about it, from the router port to its source; `packet` follows. The error
/// is [permitted](permit). `ethernet` is the new frame's header; the packet starts at offset 14.
#[inline(always)]
pub(super) fn report<F: Frame>(
    frame: &mut F,
    config: &Config,
    packet: &mut Packet,
    error: RouterError,
    ethernet: &[u8; eth::HEADER_LEN],
) -> Step<()> {
    if write(frame, config, packet, u64::from_ne_bytes(error.emit()), ethernet) {
        Ok(())
    } else {
        Err(Outcome::drop(Verdict::DropNoRoom))
    }
}

/// A function of its own: rare, and its stack is free again after it. `icmp` are the bytes of the error's header. `false` when
/// there is no room.
#[inline(never)]
fn write<F: Frame>(
    frame: &mut F,
    config: &Config,
    packet: &mut Packet,
    icmp: u64,
    ethernet: &[u8; eth::HEADER_LEN],
) -> bool {
    let quoted = packet.header.header_len() + QUOTED_L4;
    // What is quoted, to sum it up; then the headers.
    let mut bytes = Zeroed::<MAX_QUOTED>::new();
    let bytes = &mut bytes.0;
    if frame.copy(eth::HEADER_LEN, quoted, bytes).is_none() {
        return false;
    }
    let icmp = icmp.to_ne_bytes();
    let checksum = Sum::ZERO.bytes(bytes).bytes(&icmp).checksum();
    packet.header = ipv4::Repr {
        tos: 0,
        payload_len: (icmp::HEADER_LEN + quoted) as u16,
        dont_fragment: false,
        ttl: ERROR_TTL,
        protocol: ipv4::ICMP,
        source: config.nic_ip,
        destination: packet.header.source(),
    }
    .emit();
    bytes[..14].copy_from_slice(ethernet);
    bytes[14..34].copy_from_slice(&packet.header.0);
    bytes[34..HEADERS].copy_from_slice(&icmp);
    bytes[36..38].copy_from_slice(&checksum.to_be_bytes());
    frame
        .truncate((eth::HEADER_LEN + quoted) as u32)
        .and_then(|()| frame.grow_head(Room::IcmpError))
        .and_then(|()| frame.store(0, bytes.first_chunk::<HEADERS>()?))
        .is_some()
}
