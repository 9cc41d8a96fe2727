//! What every node needs: the underlay side of the data path, and the way its own EIP pods' traffic takes.

use gateway_common::addr::Prefix;
use gateway_common::tables::{self, VTEP_GATEWAY, Vtep};
use gateway_common::wire::geneve;
use std::net::Ipv4Addr;

use crate::desired::claim::Claim;
use crate::desired::problem::Problem;
use crate::desired::{Datapath, Hook, PodRow, Round, Route};
use crate::snapshot::{Link, RouteTo, Snapshot};

/// The underlay NIC of this node: the one configured, else the one with the node's InternalIP.
///
/// # Errors
/// The NIC is missing; it may still appear.
pub(crate) fn underlay<'a>(
    snapshot: &'a Snapshot,
    configured: Option<&'a str>,
    local: Ipv4Addr,
    object: &str,
) -> Result<(&'a str, &'a Link), Problem> {
    let here = &snapshot.node_name;
    match configured {
        Some(name) => snapshot.host.links.get(name).map(|link| (name, link)).ok_or_else(|| {
            Problem::refused(
                object,
                "data[underlay-nic]",
                format!(
                    "node {here} has no interface {name:?}; the data path is left as it is until it appears"
                ),
                "name the NIC that carries the nodes' traffic, or leave the key out",
            )
        }),
        None => snapshot.host.link_with_address(local).ok_or_else(|| {
            Problem::refused(
                format!("node {here}"),
                "status.addresses",
                format!(
                    "no interface has the InternalIP {local}; the data path is left as it is until one has"
                ),
                "give the NIC that address, or name the NIC in underlay-nic",
            )
        }),
    }
}

/// `config`, `internal`, `vteps`, the underlay hooks and what is to be resolved for them; what clients here reach.
pub(crate) fn underlay_side(round: &Round<'_>, datapath: &mut Datapath) {
    let Round { config, underlay: (nic, link), .. } = *round;
    let external = config.external_gateway;
    let to_underlay = link.takes.flags(tables::CONFIG_XDP_TO_UNDERLAY, tables::CONFIG_XDP_PIECES_TO_UNDERLAY);
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    let keep_mss = flag(!config.mss_clamp, tables::CONFIG_KEEP_MSS);
    let open = flag(config.nic_ip_open, tables::CONFIG_OPEN);
    datapath.config = tables::Config {
        abi: gateway_common::ABI_VERSION,
        flags: to_underlay | keep_mss | open,
        underlay_ifindex: link.ifindex,
        vni: config.geneve_vni,
        tunnel_mtu: tunnel_mtu(link),
        local_vtep: round.local.octets(),
        nic_ip: config.nic_ip.addr.octets(),
        external_network: external.network().octets(),
        external_netmask: external.netmask().octets(),
        physical_gateway: external.addr.octets(),
        nic_mac: config.nic_mac.0,
        geneve_port: config.geneve_port.to_be_bytes(),
        errors_per_second: config.icmp_error_rate,
        slow_path_per_second: config.slow_path_rate,
        ..tables::Config::default()
    };
    for hook in [Hook::XdpUnderlay, Hook::TcUnderlay, Hook::TcUnderlayEgress] {
        datapath.hooks.insert(hook, nic.to_owned());
    }
    // Before it was accepted an EIP may be anybody's, the DNS server's perhaps, and its packets are not for the pod.
    let accepted = round.claims.iter().filter(|(_, claim)| claim.accepted);
    datapath.cluster_eips = accepted.map(|(eip, claim)| (*eip, claim.pod_ip)).collect();
    let host = &round.snapshot.host;
    for (name, node) in &round.snapshot.nodes {
        let Some(vtep) = node.internal_ip.filter(|vtep| *vtep != round.local) else { continue };
        let flags = if round.gateways.contains(name) { VTEP_GATEWAY } else { 0 };
        let mut row = Vtep::unresolved(flags);
        if let Some(RouteTo { ifindex, via }) = next_hop(round, vtep) {
            let neighbor = via.unwrap_or(vtep);
            // A worker sends to gateways only: it need not know the MACs of a whole cluster.
            if round.is_gateway || flags & VTEP_GATEWAY != 0 {
                datapath.resolve.insert((ifindex, neighbor));
            }
            if let (Some(mac), Some((_, out))) =
                (host.neighbors.get(&(ifindex, neighbor)), host.link_by_index(ifindex))
            {
                row = Vtep::resolved(flags, ifindex, out.mac, *mac);
            }
        }
        // Of two nodes with one address the gateway's flags count.
        let known = datapath.vteps.entry(vtep).or_insert(row);
        if row.flags & VTEP_GATEWAY != 0 {
            *known = row;
        }
    }
}

/// The rows, rules and routes of this node's EIP pods, whose traffic leaves by the gateway `via`. Of pods of a VM whose
/// guest is in another too: the gateway knows that one only, and drops what these send.
pub(crate) fn own_pods(round: &Round<'_>, via: Ipv4Addr, datapath: &mut Datapath) {
    for (eip, claim) in round.own_idle().chain(round.own_claims()) {
        let row = PodRow { eip: *eip, vtep: None, gateway: Some(via) };
        datapath.pods.insert(claim.pod_ip, row);
        policy_route(claim, datapath);
    }
    throw_internal(datapath);
    let link = round.underlay.1;
    let to = next_hop(round, via).unwrap_or(RouteTo { ifindex: link.ifindex, via: None });
    let to = RouteTo { ifindex: to.ifindex, via: Some(to.via.unwrap_or(via)) };
    datapath.routes.insert(Route::Default { to, mtu: tunnel_mtu(link) });
}

/// The rule and the identity SNAT of one EIP pod of this node.
pub(crate) fn policy_route(claim: &Claim, datapath: &mut Datapath) {
    datapath.rules.insert(claim.pod_ip);
    datapath.identity_snat.insert(claim.pod_ip);
}

/// What is internal is looked up in the main table, and nothing else.
pub(crate) fn throw_internal(datapath: &mut Datapath) {
    let throws: Vec<_> = datapath.internal.iter().copied().map(Route::Throw).collect();
    datapath.routes.extend(throws);
    datapath.routes.insert(Route::Unreachable);
}

/// How the underlay reaches a VTEP: as the kernel says, else directly when the NIC's own subnet contains it.
fn next_hop(round: &Round<'_>, vtep: Ipv4Addr) -> Option<RouteTo> {
    let link = round.underlay.1;
    let on_link = || link.addresses.iter().any(|prefix: &Prefix| prefix.contains(vtep));
    let known = round.snapshot.host.routes.get(&vtep).copied();
    known.or_else(|| on_link().then_some(RouteTo { ifindex: link.ifindex, via: None }))
}

/// Longest inner IPv4 packet that fits the underlay, bytes.
fn tunnel_mtu(underlay: &Link) -> u32 {
    underlay.mtu.saturating_sub(geneve::OVERHEAD as u32)
}
