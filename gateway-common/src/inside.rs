//! What is inside, in so few ranges that each packet from outside can be held against all of them.
//!
//! The ranges hold every internal prefix and every EIP pod. They may hold more: a source in one of them is looked up, one
//! in none of them need not be.

use std::vec::Vec;

use crate::addr::Prefix;
use crate::tables::INSIDE_RANGES;

/// Networks and netmasks of the ranges, as `config` has them.
pub type Ranges = [[[u8; 4]; INSIDE_RANGES]; 2];

/// A range that holds 255.255.255.255 alone, from which no router forwards.
const NOBODY: [u8; 4] = [0xff; 4];

/// Ranges that hold all of `prefixes`, and as little else as so few of them can.
pub fn ranges(prefixes: impl IntoIterator<Item = Prefix>) -> Ranges {
    let mut kept: Vec<Prefix> = prefixes.into_iter().map(Prefix::trunc).collect();
    // Not `sort_unstable`: these are runs that ascend already.
    kept.sort();
    let mut outermost: Vec<Prefix> = Vec::new();
    for prefix in kept {
        // A prefix sorts right before what is inside it.
        if !outermost.last().is_some_and(|outer| outer.contains(prefix.addr)) {
            outermost.push(prefix);
        }
    }
    let [mut networks, mut netmasks] = [[NOBODY; INSIDE_RANGES]; 2];
    for ((network, netmask), range) in networks.iter_mut().zip(&mut netmasks).zip(together(&outermost)) {
        (*network, *netmask) = (range.network().octets(), range.netmask().octets());
    }
    [networks, netmasks]
}

/// The ranges of ascending prefixes: neighbours that are far from each other, by the bits they share, are kept apart.
fn together(prefixes: &[Prefix]) -> Vec<Prefix> {
    let mut gaps: Vec<(u8, usize)> =
        prefixes.windows(2).zip(1..).map(|(pair, at)| (common(pair[0], pair[1]).len, at)).collect();
    gaps.sort_unstable();
    gaps.truncate(INSIDE_RANGES - 1);
    let mut ends: Vec<usize> = gaps.into_iter().map(|(_, at)| at).chain([prefixes.len()]).collect();
    ends.sort_unstable();
    let starts = [0].into_iter().chain(ends.iter().copied());
    let ranges = starts.zip(&ends).filter_map(|(start, end)| {
        let run = prefixes.get(start..*end)?;
        Some(common(*run.first()?, *run.last()?))
    });
    ranges.collect()
}

/// The smallest range that holds both.
fn common(a: Prefix, b: Prefix) -> Prefix {
    let alike = (a.network().to_bits() ^ b.network().to_bits()).leading_zeros() as u8;
    Prefix::new(a.network(), alike.min(a.len).min(b.len)).trunc()
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString as _};

    use proptest::prelude::*;

    use super::*;

    fn text(prefixes: &str) -> String {
        let prefixes = prefixes.split_whitespace().map(|text| text.parse().unwrap());
        let [networks, netmasks] = ranges(prefixes);
        let ranges = networks.iter().zip(netmasks).filter(|(network, _)| **network != NOBODY);
        let ranges = ranges.map(|(network, netmask)| {
            Prefix::new((*network).into(), u32::from_be_bytes(netmask).leading_ones() as u8).to_string()
        });
        ranges.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn few_prefixes_stay_as_they_are_and_many_are_put_together_with_their_neighbours() {
        for (prefixes, expected) in [
            ("", ""),
            ("10.244.0.0/16 10.96.0.0/12 172.18.0.0/24", "10.96.0.0/12 10.244.0.0/16 172.18.0.0/24"),
            ("10.244.0.0/16 10.244.1.0/24 10.244.2.7/32", "10.244.0.0/16"),
            (
                "10.244.0.0/24 10.244.1.0/24 10.96.0.0/12 172.18.0.11/32 172.18.0.21/32 172.18.0.22/32",
                "10.96.0.0/12 10.244.0.0/24 10.244.1.0/24 172.18.0.0/27",
            ),
            ("10.0.0.1/8 10.1.0.0/16", "10.0.0.0/8"),
            (
                "1.0.0.0/8 64.0.0.0/8 128.0.0.0/8 192.0.0.0/8 224.0.0.0/8",
                "1.0.0.0/8 64.0.0.0/8 128.0.0.0/8 192.0.0.0/2",
            ),
        ] {
            assert_eq!(text(prefixes), expected, "{prefixes}");
        }
    }

    proptest! {
        #[test]
        fn every_prefix_is_in_a_range(prefixes in prop::collection::vec((any::<u32>(), 0..=32_u8), 0..40)) {
            let prefixes: Vec<_> =
                prefixes.into_iter().map(|(addr, len)| Prefix::new(addr.into(), len)).collect();
            let [networks, netmasks] = ranges(prefixes.iter().copied());
            for prefix in prefixes {
                let [first, last] = [prefix.network(), prefix.network() | !prefix.netmask()];
                for addr in [first, last] {
                    let in_range = |(network, netmask): (&[u8; 4], &[u8; 4])| {
                        addr.to_bits() & u32::from_be_bytes(*netmask) == u32::from_be_bytes(*network)
                    };
                    prop_assert!(networks.iter().zip(&netmasks).any(in_range), "{addr} of {prefix}");
                }
            }
        }
    }
}
