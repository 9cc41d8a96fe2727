//! Addresses that no router forwards from or to (RFC 1812 section 5.3.7).

use gateway_common::tables::Config;
use gateway_common::verdict::Verdict;
use gateway_common::wire::ipv4;

use super::{Outcome, Step};

/// First octet of "this host on this network" (RFC 6890).
const THIS_NETWORK: u32 = 0;
/// First octet of loopback addresses.
const LOOPBACK: u32 = 127;
/// First octet from which on no address names one host: multicast, class E, the limited broadcast.
const NOT_UNICAST: u32 = 224;

/// Refuses a packet from or to such an address. Called for packets that would be ours only.
///
/// # Errors
/// It is to be dropped.
#[inline(always)]
pub(super) fn refuse(config: &Config, header: &ipv4::Header) -> Step<()> {
    if is_martian(config, header.source()) || is_martian(config, header.destination()) {
        Err(Outcome::drop(Verdict::DropMartian))
    } else {
        Ok(())
    }
}

/// The same for what arrives from outside, where nobody has the router port's address either.
#[inline(always)]
pub(super) fn refuse_outside(config: &Config, header: &ipv4::Header) -> Step<()> {
    if header.source() == config.nic_ip {
        Err(Outcome::drop(Verdict::DropMartian))
    } else {
        refuse(config, header)
    }
}

/// The external subnet's broadcast address is one as well: a router does not help to amplify (RFC 2644).
#[inline(always)]
pub(super) fn is_martian(config: &Config, addr: [u8; 4]) -> bool {
    let first = u32::from_be_bytes(addr) >> 24;
    let broadcast =
        u32::from_ne_bytes(config.external_network) | !u32::from_ne_bytes(config.external_netmask);
    first == THIS_NETWORK
        || first == LOOPBACK
        || first >= NOT_UNICAST
        || u32::from_ne_bytes(addr) == broadcast
}
