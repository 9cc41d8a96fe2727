//! ICMP (RFC 792).

/// Bytes of an ICMP header.
pub const HEADER_LEN: usize = 8;
/// Type of an echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Type of destination unreachable.
pub const DESTINATION_UNREACHABLE: u8 = 3;
/// Type of source quench (deprecated by RFC 6633).
pub const SOURCE_QUENCH: u8 = 4;
/// Type of redirect.
pub const REDIRECT: u8 = 5;
/// Type of an echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Type of time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Type of parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;
/// Code of destination unreachable: fragmentation needed and DF set.
pub const FRAGMENTATION_NEEDED: u8 = 4;

/// Whether a type reports an error about another packet; no error is ever sent about one (RFC 1122, 3.2.2).
#[inline(always)]
pub const fn is_error(icmp_type: u8) -> bool {
    matches!(
        icmp_type,
        DESTINATION_UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM
    )
}

/// An error a router sends about a packet it cannot forward.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouterError {
    /// The TTL ran out in transit (type 11, code 0).
    TimeExceeded,
    /// The packet has DF set and is longer than the next hop's MTU in bytes (type 3, code 4; RFC 1191 section 4).
    FragmentationNeeded {
        /// MTU of the next hop, bytes of IP packet.
        mtu: u16,
    },
}

/// What every router forwards without fragmenting it (RFC 791 section 3.1). Nobody believes an error that says less, or all suffer
/// who do: Linux then takes 552 bytes for the path's MTU, for ten minutes.
pub const MIN_MTU: u32 = 68;

impl RouterError {
    /// "Fragmentation needed" for a next hop of `mtu` bytes; `None` where no such MTU can be told of.
    #[inline(always)]
    pub const fn fragmentation_needed(mtu: u32) -> Option<Self> {
        if mtu < MIN_MTU || mtu > u16::MAX as u32 {
            None
        } else {
            Some(Self::FragmentationNeeded { mtu: mtu as u16 })
        }
    }

    /// The header as it stands on the wire, checksum zero.
    #[inline(always)]
    pub const fn emit(self) -> [u8; HEADER_LEN] {
        match self {
            Self::TimeExceeded => [TIME_EXCEEDED, 0, 0, 0, 0, 0, 0, 0],
            Self::FragmentationNeeded { mtu } => {
                let [hi, lo] = mtu.to_be_bytes();
                [DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED, 0, 0, 0, 0, hi, lo]
            }
        }
    }
}
