//! UDP (RFC 768), TCP (RFC 9293): what a translator needs of them.

use super::ipv4;

/// Bytes of a UDP header.
pub const UDP_LEN: usize = 8;
/// Offset of the destination port in a UDP header.
pub const DESTINATION_PORT: usize = 2;
/// Bytes of a TCP header without options.
pub const TCP_LEN: usize = 20;
/// Offset of the flags byte in a TCP header.
pub const TCP_FLAGS: usize = 13;
/// The SYN bit of the flags byte.
pub const TCP_SYN: u8 = 0x02;
/// TCP option kind: end of the option list.
pub const OPTION_END: u8 = 0;
/// TCP option kind: padding of one byte.
pub const OPTION_NOP: u8 = 1;
/// TCP option kind: maximum segment size (RFC 9293 section 3.2), length 4.
pub const OPTION_MSS: u8 = 2;

/// A checksum that covers the IPv4 pseudo-header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checksum {
    /// Offset of the field from the start of the L4 header, bytes.
    pub offset: usize,
    /// Whether zero means "none was computed" (UDP over IPv4); such a field stays zero.
    pub zero_is_none: bool,
}

impl Checksum {
    /// The checksum field of a protocol whose checksum covers the pseudo-header; `None` for all others.
    #[inline(always)]
    pub const fn of(protocol: u8) -> Option<Self> {
        match protocol {
            ipv4::TCP => Some(Self { offset: 16, zero_is_none: false }),
            ipv4::UDP => Some(Self { offset: 6, zero_is_none: true }),
            ipv4::UDPLITE => Some(Self { offset: 6, zero_is_none: false }),
            _ => None,
        }
    }
}
