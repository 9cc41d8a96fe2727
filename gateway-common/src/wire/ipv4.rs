//! IPv4 (RFC 791).

use crate::csum::{self, Sum};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Offset of the time to live, which the protocol number follows.
pub const TTL: usize = 8;
/// Offset of the header checksum.
pub const CHECKSUM: usize = 10;
/// Bytes of options at most.
pub const MAX_OPTIONS: usize = 40;
/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of UDP-Lite (RFC 3828).
pub const UDPLITE: u8 = 136;

/// Option: end of the list.
pub const OPTION_END: u8 = 0;
/// Option: no operation.
pub const OPTION_NOP: u8 = 1;
/// The bit of an option's kind by which every fragment has it, not the first alone.
pub const OPTION_COPIED: u8 = 0x80;
/// Option: record route.
pub const OPTION_RECORD_ROUTE: u8 = 7;
/// Option: internet timestamp.
pub const OPTION_TIMESTAMP: u8 = 68;
/// Option: loose source and record route.
pub const OPTION_LSRR: u8 = 131;
/// Option: strict source and record route.
pub const OPTION_SSRR: u8 = 137;

/// The bit that forbids fragments, in the word of flags and fragment offset.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// The bit of a fragment that others follow, in the same word.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// The bits of the fragment offset in the 16-bit word of flags and offset.
pub const OFFSET: u16 = 0x1fff;

/// The first 20 bytes of an IPv4 header, read and changed in place; checksum kept right by increments (RFC 1624).
/// Aligned, so that BPF moves it by words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(align(4))]
pub struct Header(pub [u8; HEADER_LEN]);

impl Header {
    /// Header length in bytes, options included: 0..=60.
    #[inline(always)]
    pub const fn header_len(&self) -> usize {
        (self.0[0] & 0x0f) as usize * 4
    }

    /// Version field.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    /// Type of service: DSCP and ECN.
    #[inline(always)]
    pub const fn tos(&self) -> u8 {
        self.0[1]
    }

    /// Total length in bytes, header included.
    #[inline(always)]
    pub const fn total_len(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// Bytes behind the header, by the header's own fields.
    #[inline(always)]
    pub const fn payload_len(&self) -> u16 {
        self.total_len().saturating_sub(self.header_len() as u16)
    }

    const fn flags_and_offset(&self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }

    /// Don't fragment.
    #[inline(always)]
    pub const fn dont_fragment(&self) -> bool {
        self.flags_and_offset() & DONT_FRAGMENT != 0
    }

    /// Whether this is a part of a datagram: more fragments follow or the offset is not zero.
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        self.flags_and_offset() & (MORE_FRAGMENTS | OFFSET) != 0
    }

    /// Where in its datagram the payload stands, bytes.
    #[inline(always)]
    pub const fn fragment_offset(&self) -> u32 {
        (self.flags_and_offset() & OFFSET) as u32 * 8
    }

    /// Whether the L4 header is elsewhere: a fragment that is not the first.
    #[inline(always)]
    pub const fn is_later_fragment(&self) -> bool {
        self.flags_and_offset() & OFFSET != 0
    }

    /// Time to live.
    #[inline(always)]
    pub const fn ttl(&self) -> u8 {
        self.0[8]
    }

    /// Protocol number of the payload.
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        self.0[9]
    }

    /// Source address, network-order bytes.
    #[inline(always)]
    pub const fn source(&self) -> [u8; 4] {
        [self.0[12], self.0[13], self.0[14], self.0[15]]
    }

    /// Destination address, network-order bytes.
    #[inline(always)]
    pub const fn destination(&self) -> [u8; 4] {
        [self.0[16], self.0[17], self.0[18], self.0[19]]
    }

    /// Whether version and lengths hold together and the whole packet lies in `available` bytes.
    #[inline(always)]
    pub const fn is_sound(&self, available: u32) -> bool {
        let total = self.total_len() as u32;
        self.version() == 4
            && self.header_len() >= HEADER_LEN
            && total >= self.header_len() as u32
            && total <= available
    }

    /// Makes it the header of a fragment of its packet: `payload_len` bytes that stand `offset` units of 8 bytes behind its
    /// first, with `more` to follow. A fragment's fragment stands behind what was before it, and is followed by what followed.
    /// The datagram is known not to exceed 64 KiB.
    #[inline(always)]
    pub fn set_fragment(&mut self, payload_len: u16, offset: u16, more: bool) {
        let [o0, o1, .., f0, f1] = [self.0[2], self.0[3], self.0[6], self.0[7]];
        let more = if more { MORE_FRAGMENTS } else { 0 };
        let flags = (self.flags_and_offset().wrapping_add(offset)) | more;
        let [l0, l1] = (self.header_len() as u16 + payload_len).to_be_bytes();
        let [n0, n1] = flags.to_be_bytes();
        self.set_checksum(csum::update(self.checksum(), &[o0, o1, f0, f1], &[l0, l1, n0, n1]));
        ([self.0[2], self.0[3]], [self.0[6], self.0[7]]) = ([l0, l1], [n0, n1]);
    }

    /// Carries a `change` of the options into the checksum.
    #[inline(always)]
    pub fn change_options(&mut self, change: Sum) {
        self.set_checksum(csum::carry(self.checksum(), change));
    }

    const fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.0[10], self.0[11]])
    }

    #[inline(always)]
    fn set_checksum(&mut self, checksum: u16) {
        [self.0[10], self.0[11]] = checksum.to_be_bytes();
    }

    /// Writes the source address.
    #[inline(always)]
    pub fn set_source(&mut self, addr: [u8; 4]) {
        self.set_checksum(csum::update(self.checksum(), &self.source(), &addr));
        [self.0[12], self.0[13], self.0[14], self.0[15]] = addr;
    }

    /// Writes the destination address.
    #[inline(always)]
    pub fn set_destination(&mut self, addr: [u8; 4]) {
        self.set_checksum(csum::update(self.checksum(), &self.destination(), &addr));
        [self.0[16], self.0[17], self.0[18], self.0[19]] = addr;
    }

    /// Writes the type of service.
    #[inline(always)]
    pub fn set_tos(&mut self, tos: u8) {
        let first = self.0[0];
        self.set_checksum(csum::update(self.checksum(), &[first, self.tos()], &[first, tos]));
        self.0[1] = tos;
    }

    /// Writes the time to live.
    #[inline(always)]
    pub fn set_ttl(&mut self, ttl: u8) {
        let protocol = self.protocol();
        self.set_checksum(csum::update(self.checksum(), &[self.ttl(), protocol], &[ttl, protocol]));
        self.0[8] = ttl;
    }
}

/// What a header of our own says; no options, not a fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Repr {
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    /// Bytes behind the header.
    pub payload_len: u16,
    /// Don't fragment.
    pub dont_fragment: bool,
    /// Time to live.
    pub ttl: u8,
    /// Protocol number of the payload.
    pub protocol: u8,
    /// Source address, network-order bytes.
    pub source: [u8; 4],
    /// Destination address, network-order bytes.
    pub destination: [u8; 4],
}

impl Repr {
    /// The header as it stands on the wire, identification zero (RFC 6864: of no use in an atomic datagram).
    #[inline(always)]
    pub fn emit(&self) -> Header {
        let [l0, l1] = (self.payload_len + HEADER_LEN as u16).to_be_bytes();
        let [f0, f1] = (if self.dont_fragment { DONT_FRAGMENT } else { 0 }).to_be_bytes();
        let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (self.source, self.destination);
        let mut header = Header([
            0x45,
            self.tos,
            l0,
            l1,
            0,
            0,
            f0,
            f1,
            self.ttl,
            self.protocol,
            0,
            0,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ]);
        header.set_checksum(Sum::ZERO.bytes(&header.0).checksum());
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Repr {
            tos: 0,
            payload_len: 8,
            dont_fragment: true,
            ttl: 64,
            protocol: UDP,
            source: [192, 168, 100, 1],
            destination: [192, 168, 100, 101],
        }
        .emit()
    }

    #[test]
    fn emitted_header_is_sound_and_sums_to_all_ones() {
        let header = sample();
        assert!(header.is_sound(28) && !header.is_sound(27));
        assert_eq!(Sum::ZERO.bytes(&header.0).fold(), 0xffff);
        assert!(header.dont_fragment() && !header.is_fragment());
    }

    #[test]
    fn changes_keep_the_checksum() {
        let mut header = sample();
        header.set_ttl(63);
        header.set_tos(0xb9);
        header.set_source([10, 244, 1, 10]);
        header.set_destination([1, 2, 3, 4]);
        assert_eq!(Sum::ZERO.bytes(&header.0).fold(), 0xffff);
        assert_eq!(
            (header.ttl(), header.source(), header.destination()),
            (63, [10, 244, 1, 10], [1, 2, 3, 4])
        );
    }

    #[test]
    fn a_fragments_fragment_stands_behind_what_was_before_it() {
        let mut header = Header { ..sample() };
        (header.0[6], header.0[7]) = (0x20, 5);
        header.set_checksum(0);
        header.set_checksum(Sum::ZERO.bytes(&header.0).checksum());
        header.set_fragment(4, 2, false);
        assert_eq!((header.total_len(), header.flags_and_offset()), (24, MORE_FRAGMENTS | 7));
        assert_eq!(Sum::ZERO.bytes(&header.0).fold(), 0xffff);
    }

    #[test]
    fn fragments_are_told_apart() {
        let mut header = sample();
        header.0[6] = 0x20;
        assert!(header.is_fragment() && !header.is_later_fragment());
        header.0[7] = 1;
        assert!(header.is_later_fragment());
    }
}
