//! The nftables rules that a CNI and kube-proxy leave on a node.

use crate::plan::{Node, POD_CIDR, Pod, SERVICE, SERVICE_POD, SERVICE_TARGET_PORT};

/// Table of every node that holds the rules below.
pub const TABLE: &str = "kube";
/// Named counter of packets that the forward chain drops because conntrack calls them INVALID.
pub const INVALID_DROPS: &str = "invalid_drops";

/// A node's rules for `nft -f -`: masquerade of pods that leave the cluster at the usual priority, the drop of
/// INVALID packets, and DNAT of one Service for pods and for the node itself.
pub(crate) fn ruleset(node: &Node) -> String {
    let pods = node.pod_cidr();
    let target = Pod::named(SERVICE_POD).map_or(SERVICE, |pod| pod.ip);
    let dnat = format!("ip daddr {SERVICE} tcp dport 80 counter dnat to {target}:{SERVICE_TARGET_PORT}");
    format!(
        "table ip {TABLE} {{
  counter {INVALID_DROPS} {{ }}
  chain services {{
    {dnat}
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    jump services
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    jump services
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    ct state invalid counter name {INVALID_DROPS} drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {pods} ip daddr != {POD_CIDR} counter masquerade
  }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::NODES;

    #[test]
    fn pods_are_masqueraded_only_when_they_leave_the_cluster() {
        let rules = ruleset(&NODES[1]);
        assert!(rules.contains("ip saddr 10.244.1.0/24 ip daddr != 10.244.0.0/16 counter masquerade"));
        assert!(rules.contains("ip daddr 10.96.0.10 tcp dport 80 counter dnat to 10.244.2.11:8080"));
    }
}
