//! The UDP source port of a tunnelled packet, drawn from its inner flow so that the underlay can spread load.

/// Mixes a flow's addresses (network-order bytes), protocol and ports (zero when the packet shows none).
#[inline(always)]
fn hash(source: [u8; 4], destination: [u8; 4], protocol: u8, ports: [u8; 4]) -> u32 {
    // Multiply and fold; the constant is 2^64 divided by the golden ratio (Knuth, TAOCP 3, 6.4).
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let addresses = (u32::from_ne_bytes(source) as u64) << 32 | u32::from_ne_bytes(destination) as u64;
    let mixed = (addresses ^ ((protocol as u64) << 56)).wrapping_mul(GOLDEN);
    let mixed = (mixed ^ (mixed >> 32) ^ u32::from_ne_bytes(ports) as u64).wrapping_mul(GOLDEN);
    (mixed >> 32) as u32
}

/// RFC 8926 section 3.3: one source port per inner flow, from the dynamic range 49152..=65535 (RFC 6335).
///
/// Every fragment of a datagram must travel alike, so pass zero `ports` for any fragment.
#[inline(always)]
pub fn source_port(source: [u8; 4], destination: [u8; 4], protocol: u8, ports: [u8; 4]) -> u16 {
    0xc000 | (hash(source, destination, protocol, ports) & 0x3fff) as u16
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn stays_in_the_dynamic_range_and_spreads() {
        let mut seen = BTreeSet::new();
        for port in 0..1000_u16 {
            let [hi, lo] = port.to_be_bytes();
            seen.insert(source_port([10, 0, 0, 1], [10, 0, 0, 2], 6, [hi, lo, 0, 80]));
        }
        assert!(seen.iter().all(|port| *port >= 0xc000));
        assert!(seen.len() > 950, "{} of 1000 flows have a port of their own", seen.len());
    }
}
