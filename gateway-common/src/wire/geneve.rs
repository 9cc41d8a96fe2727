//! Geneve (RFC 8926) carrying Ethernet frames that carry IPv4.

use super::{eth, ipv4, l4};

/// Bytes of the fixed Geneve header.
pub const HEADER_LEN: usize = 8;
/// IANA's UDP port.
pub const PORT: u16 = 6081;
/// Bytes from the outer Ethernet header to the inner IPv4 header when there are no options.
pub const INNER_IP: usize = eth::HEADER_LEN + OVERHEAD;
/// What the tunnel adds to a frame, bytes: outer IPv4, UDP, Geneve, inner Ethernet.
pub const OVERHEAD: usize = ipv4::HEADER_LEN + l4::UDP_LEN + HEADER_LEN + eth::HEADER_LEN;

/// The fixed header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Version, 0 in RFC 8926.
    pub version: u8,
    /// Bytes of options behind the fixed header: 0..=252.
    pub options_len: usize,
    /// The O bit: a control packet.
    pub control: bool,
    /// The C bit: critical options are present.
    pub critical: bool,
    /// EtherType of the payload, host order.
    pub protocol_type: u16,
    /// Virtual network identifier, 24 bits.
    pub vni: u32,
}

impl Header {
    /// Reads the header.
    #[inline(always)]
    pub const fn parse(b: &[u8; HEADER_LEN]) -> Self {
        Self {
            version: b[0] >> 6,
            options_len: (b[0] & 0x3f) as usize * 4,
            control: b[1] & 0x80 != 0,
            critical: b[1] & 0x40 != 0,
            protocol_type: u16::from_be_bytes([b[2], b[3]]),
            vni: u32::from_be_bytes([0, b[4], b[5], b[6]]),
        }
    }
}

/// A header of ours as it stands on the wire: no options, an Ethernet frame as payload.
#[inline(always)]
pub const fn emit(vni: u32) -> [u8; HEADER_LEN] {
    let ([_, v0, v1, v2], [p0, p1]) = (vni.to_be_bytes(), eth::TEB.to_be_bytes());
    [0, 0, p0, p1, v0, v1, v2, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emitted_header_reads_back() {
        let header = Header::parse(&emit(0xabcdef));
        assert_eq!((header.vni, header.protocol_type, header.options_len), (0xabcdef, eth::TEB, 0));
        assert!(!header.control && !header.critical && header.version == 0);
    }

    #[test]
    fn flags_and_options_are_read() {
        let header = Header::parse(&[0x42, 0xc0, 0x65, 0x58, 0, 0, 1, 0xff]);
        assert_eq!((header.version, header.options_len, header.vni), (1, 8, 1));
        assert!(header.control && header.critical);
    }
}
