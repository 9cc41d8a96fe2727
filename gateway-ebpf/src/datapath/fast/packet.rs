//! The ordinary packet: what the fast path takes, and its translation.

use gateway_common::csum::Native;
use gateway_common::tables::Config;
use gateway_common::wire::{eth, ipv4, l4};

use super::super::{Frame, martian};
use super::window::{View, Window};

/// Ethernet, IPv4 without options, and as much of L4 as a TCP header: a window on less is not ordinary.
pub(super) const HEADERS: usize = L4 + l4::TCP_LEN;
/// A view of a frame's headers.
pub(super) type Headers<'a> = View<'a, HEADERS>;

const IP: usize = eth::HEADER_LEN;
const VERSION_AND_TOS: usize = IP;
const TOTAL_LEN: usize = IP + 2;
const FLAGS_AND_OFFSET: usize = IP + 6;
const TTL_AND_PROTOCOL: usize = IP + ipv4::TTL;
const IP_CHECKSUM: usize = IP + 10;
pub(super) const SOURCE: usize = IP + 12;
const DESTINATION: usize = IP + 16;
const L4: usize = IP + ipv4::HEADER_LEN;
const UDP_LEN: usize = L4 + 4;
const UDP_CHECKSUM: usize = L4 + 6;
const DATA_OFFSET_AND_FLAGS: usize = L4 + l4::TCP_FLAGS - 1;
const TCP_CHECKSUM: usize = L4 + 16;

/// What of an ordinary packet is looked at. In memory order but for `total_len`.
pub(super) struct Ordinary {
    pub(super) tos: u8,
    /// Bytes, host order.
    pub(super) total_len: u16,
    pub(super) ttl: u8,
    pub(super) protocol: u8,
    pub(super) source: u32,
    pub(super) destination: u32,
    /// Source and destination port.
    pub(super) ports: u32,
    l4_checksum: u16,
}

/// Which address is translated.
#[derive(Clone, Copy)]
pub(super) enum Field {
    Source,
    Destination,
}

impl Ordinary {
    /// TCP but for a SYN, or UDP with a checksum; whole, without options, and exactly as long as the frame, whose length is
    /// `len` without padding. `None` for all others, right or wrong.
    #[inline(always)]
    pub(super) fn read(headers: Headers<'_>, len: u32) -> Option<Self> {
        const ANY_FRAGMENT: u16 = (ipv4::MORE_FRAGMENTS | ipv4::OFFSET).to_be();
        let [version, tos] = headers.word::<VERSION_AND_TOS>().to_ne_bytes();
        let total_len = u16::from_be(headers.word::<TOTAL_LEN>());
        let is_whole = headers.word::<{ eth::ETHERTYPE }>() == eth::IPV4.to_be()
            && version == 0x45
            && u32::from(total_len) + IP as u32 == len
            && headers.word::<FLAGS_AND_OFFSET>() & ANY_FRAGMENT == 0;
        if !is_whole {
            return None;
        }
        let [ttl, protocol] = headers.word::<TTL_AND_PROTOCOL>().to_ne_bytes();
        let l4_checksum = match protocol {
            ipv4::TCP => {
                let [_, flags] = headers.word::<DATA_OFFSET_AND_FLAGS>().to_ne_bytes();
                (len >= HEADERS as u32 && flags & l4::TCP_SYN == 0).then(|| headers.word::<TCP_CHECKSUM>())
            }
            ipv4::UDP => {
                let len = u16::from_be(headers.word::<UDP_LEN>());
                let checksum = headers.word::<UDP_CHECKSUM>();
                (len == total_len - ipv4::HEADER_LEN as u16 && checksum != 0).then_some(checksum)
            }
            _ => None,
        }?;
        Some(Self {
            tos,
            total_len,
            ttl,
            protocol,
            source: headers.wide::<SOURCE>(),
            destination: headers.wide::<DESTINATION>(),
            ports: headers.wide::<L4>(),
            l4_checksum,
        })
    }

    /// Whether it is from or to an address that no router forwards.
    #[inline(always)]
    pub(super) fn is_martian(&self, config: &Config) -> bool {
        martian::is_martian(config, self.source.to_ne_bytes())
            || martian::is_martian(config, self.destination.to_ne_bytes())
    }

    /// Length of the frame, bytes.
    #[inline(always)]
    pub(super) const fn frame_len(&self) -> u32 {
        IP as u32 + self.total_len as u32
    }

    /// The sum over everything behind the IPv4 header, by local checksum offload: the complement of the pseudo-header.
    #[inline(always)]
    pub(super) fn l4_sum(&self) -> u16 {
        let l4_len = (self.total_len - ipv4::HEADER_LEN as u16).to_be();
        let protocol = u16::from(self.protocol).to_be();
        Native::ZERO.wide(self.source).wide(self.destination).word(protocol).word(l4_len).checksum()
    }

    /// Writes another address, and the TTL of one hop less; carries both into the checksums.
    #[inline(always)]
    pub(super) fn translate(&mut self, headers: &mut Window<'_, HEADERS>, field: Field, to: u32) {
        let from = match field {
            Field::Source => core::mem::replace(&mut self.source, to),
            Field::Destination => core::mem::replace(&mut self.destination, to),
        };
        let moved = Native::ZERO.moved(from, to);
        let hop_before = u16::from_ne_bytes([self.ttl, self.protocol]);
        let hop_after = u16::from_ne_bytes([self.ttl.wrapping_sub(1), self.protocol]);
        let ip_checksum =
            moved.word(!hop_before).word(hop_after).carried_into(headers.view().word::<IP_CHECKSUM>());
        let l4_checksum = moved.carried_into(self.l4_checksum);
        headers.set_word::<TTL_AND_PROTOCOL>(hop_after);
        headers.set_word::<IP_CHECKSUM>(ip_checksum);
        match field {
            Field::Source => headers.set_wide::<SOURCE>(to),
            Field::Destination => headers.set_wide::<DESTINATION>(to),
        }
        if self.protocol == ipv4::TCP {
            headers.set_word::<TCP_CHECKSUM>(l4_checksum);
        } else {
            headers.set_word::<UDP_CHECKSUM>(if l4_checksum == 0 { 0xffff } else { l4_checksum });
        }
    }
}

/// Length of the frame, bytes, and whether it lies in pieces. That is a call, made only where it may: the first piece is a full
/// buffer, longer than any frame of Ethernet's own MTU, or the packet says that there is more.
#[inline(always)]
pub(super) fn whole<F: Frame>(frame: &F, headers: Headers<'_>) -> (u32, bool) {
    let linear = frame.linear_len();
    let packet = u32::from(u16::from_be(headers.word::<TOTAL_LEN>())) + IP as u32;
    if packet <= linear && linear <= eth::MAX_FRAME_LEN as u32 {
        return (linear, false);
    }
    let len = frame.frame_len();
    (len, len > linear)
}

/// Length of a frame of `len` bytes without Ethernet's padding, which one of the shortest length may have. A packet shorter
/// than UDP's header is left alone.
#[inline(always)]
pub(super) fn unpadded(headers: Headers<'_>, len: u32) -> u32 {
    const SHORTEST: u32 = (L4 + l4::UDP_LEN) as u32;
    let packet = u32::from(u16::from_be(headers.word::<TOTAL_LEN>())) + IP as u32;
    if len == eth::MIN_FRAME_LEN as u32 && (SHORTEST..len).contains(&packet) { packet } else { len }
}

/// Whether the IPv4 header's checksum is right.
#[inline(always)]
pub(super) fn header_sums_up(headers: Headers<'_>) -> bool {
    let sum = Native::ZERO
        .wide(headers.wide::<IP>())
        .wide(headers.wide::<{ IP + 4 }>())
        .wide(headers.wide::<{ IP + 8 }>())
        .wide(headers.wide::<SOURCE>())
        .wide(headers.wide::<DESTINATION>());
    sum.fold() == 0xffff
}
