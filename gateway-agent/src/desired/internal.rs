//! The prefixes that never leave by the gateway.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use gateway_common::addr::Prefix;

use crate::config::GatewayConfig;
use crate::desired::problem::Problem;
use crate::snapshot::Snapshot;

/// Pod CIDRs and InternalIPs of all nodes, Service CIDRs and the configured prefixes; host bits are cleared.
///
/// Where one overlaps the external subnet the longer prefix wins, as in any routing table: the external subnet is cut
/// out of a wider one, so that the rest stays internal; a narrower one stays.
pub fn internal(
    snapshot: &Snapshot,
    config: &GatewayConfig,
    object: &str,
) -> (BTreeSet<Prefix>, Vec<Problem>) {
    let external = config.external_gateway.trunc();
    let mut prefixes = BTreeSet::new();
    let mut problems = Vec::new();
    let mut add = |prefix: Prefix, object: &str, field: &str| {
        let prefix = prefix.trunc();
        if overlap(prefix, external) {
            let what = if prefix.len > external.len { "is inside" } else { "contains" };
            problems.push(Problem::warning(
                object,
                field,
                format!("{prefix} {what} the external subnet {external}; the longer prefix wins"),
                "keep cluster and external addresses apart",
            ));
        }
        prefixes.extend(without(prefix, external));
    };
    for (name, node) in &snapshot.nodes {
        for cidr in &node.pod_cidrs {
            add(*cidr, &format!("node {name}"), "spec.podCIDRs");
        }
    }
    for cidr in &config.cluster_cidrs {
        add(*cidr, object, "data[cluster-cidrs]");
    }
    for cidr in &snapshot.service_cidrs {
        add(*cidr, "servicecidr", "spec.cidrs");
    }
    prefixes.extend(snapshot.nodes.values().filter_map(|node| node.internal_ip).map(Prefix::host));
    (prefixes, problems)
}

fn overlap(a: Prefix, b: Prefix) -> bool {
    a.contains(b.addr) || b.contains(a.addr)
}

/// What is left of `prefix` when `hole` is cut out: nothing when they are equal, `prefix` itself when it is narrower.
fn without(prefix: Prefix, hole: Prefix) -> Vec<Prefix> {
    if !overlap(prefix, hole) || prefix.len > hole.len {
        return vec![prefix];
    }
    // The siblings on the way down from `prefix` to `hole`: the path with its last bit turned.
    let sibling = |len: u8| {
        let turned = Ipv4Addr::from_bits(hole.addr.to_bits() ^ (1 << (32 - u32::from(len))));
        Prefix::new(turned, len).trunc()
    };
    (prefix.len + 1..=hole.len).map(sibling).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_external_subnet_is_cut_out_of_wider_prefixes_only() {
        let external: Prefix = "192.168.100.0/24".parse().unwrap();
        for (prefix, left) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.168.100.128/25", "192.168.100.128/25"),
            ("192.168.100.0/24", ""),
            ("192.168.100.0/22", "192.168.102.0/23 192.168.101.0/24"),
            ("192.168.96.0/21", "192.168.96.0/22 192.168.102.0/23 192.168.101.0/24"),
        ] {
            let pieces: Vec<_> =
                without(prefix.parse().unwrap(), external).iter().map(Prefix::to_string).collect();
            assert_eq!(pieces.join(" "), left, "{prefix}");
        }
    }
}
