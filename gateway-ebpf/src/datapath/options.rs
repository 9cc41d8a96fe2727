//! IPv4 options (RFC 791 section 3.1) that no border lets through (RFC 7126 sections 4.3 to 4.6): record route and timestamp show
//! outside what the cluster's routers write into them, source routes choose the way through the cluster.

use gateway_common::verdict::Verdict;
use gateway_common::wire::ipv4;

use super::packet::Packet;
use super::{Frame, Outcome, Step};

/// Options at most: each has a byte.
const MAX_OPTIONS: usize = 40;

/// Refuses a packet with such an option. Called for packets that would be ours only, and looks only where there are options.
///
/// # Errors
/// It is to be dropped.
#[inline(always)]
pub(super) fn refuse<F: Frame>(frame: &F, packet: &Packet) -> Step<()> {
    if packet.header.header_len() > ipv4::HEADER_LEN && tells_the_way(frame, packet) {
        Err(Outcome::drop(Verdict::DropIpOption))
    } else {
        Ok(())
    }
}

/// Whether there is such an option. What is behind a malformed one is nobody's to read. A function of its own: rare.
#[inline(never)]
fn tells_the_way<F: Frame>(frame: &F, packet: &Packet) -> bool {
    let (mut at, end) = (packet.ip + ipv4::HEADER_LEN, packet.l4());
    for _ in 0..MAX_OPTIONS {
        // The last byte alone is no option that says anything.
        if at + 2 > end {
            return false;
        }
        at += match frame.load(at) {
            Some([ipv4::OPTION_NOP, _]) => 1,
            Some([ipv4::OPTION_END, _] | [_, 0 | 1]) | None => return false,
            Some([kind, len]) if at + len as usize <= end => {
                if tells(kind) {
                    return true;
                }
                len as usize
            }
            Some(_) => return false,
        };
    }
    false
}

/// Whether a router on the way writes its address into an option of a kind, or reads its next hop from it.
#[inline(always)]
const fn tells(kind: u8) -> bool {
    matches!(kind, ipv4::OPTION_RECORD_ROUTE | ipv4::OPTION_TIMESTAMP | ipv4::OPTION_LSRR | ipv4::OPTION_SSRR)
}
