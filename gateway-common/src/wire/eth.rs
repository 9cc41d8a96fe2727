//! Ethernet II (IEEE 802.3).

use crate::addr::Mac;

/// Bytes of an Ethernet header without tags.
pub const HEADER_LEN: usize = 14;
/// Bytes of the shortest frame, without its check sequence (IEEE 802.3 section 4A.4.2): shorter ones are padded.
pub const MIN_FRAME_LEN: usize = 60;
/// Bytes of the longest frame without tags and check sequence (IEEE 802.3 section 3.2.7): a header and 1500 bytes.
pub const MAX_FRAME_LEN: usize = HEADER_LEN + 1500;
/// Offset of the EtherType.
pub const ETHERTYPE: usize = 12;
/// Offset of the source MAC.
pub const SOURCE: usize = 6;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of transparent Ethernet bridging: an Ethernet frame inside a tunnel (RFC 8926 section 3.4).
pub const TEB: u16 = 0x6558;

/// An Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Destination address.
    pub destination: Mac,
    /// Source address.
    pub source: Mac,
    /// EtherType, host order.
    pub ethertype: u16,
}

impl Header {
    /// Reads the header.
    #[inline(always)]
    pub const fn parse(b: &[u8; HEADER_LEN]) -> Self {
        Self {
            destination: Mac([b[0], b[1], b[2], b[3], b[4], b[5]]),
            source: Mac([b[6], b[7], b[8], b[9], b[10], b[11]]),
            ethertype: u16::from_be_bytes([b[12], b[13]]),
        }
    }

    /// The header as it stands on the wire.
    #[inline(always)]
    pub const fn emit(&self) -> [u8; HEADER_LEN] {
        let (d, s, t) = (self.destination.0, self.source.0, self.ethertype.to_be_bytes());
        [d[0], d[1], d[2], d[3], d[4], d[5], s[0], s[1], s[2], s[3], s[4], s[5], t[0], t[1]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 8, 6];
        let header = Header::parse(&bytes);
        assert_eq!(header.ethertype, ARP);
        assert_eq!(header.emit(), bytes);
    }
}
