//! What a gateway needs on top: every EIP's row, and on the owner the external side.

use std::net::Ipv4Addr;

use gateway_common::tables::{CONFIG_OWNER, CONFIG_XDP_PIECES_TO_EXTERNAL, CONFIG_XDP_TO_EXTERNAL};

use crate::desired::claim::Claim;
use crate::desired::problem::Problem;
use crate::desired::{Datapath, EipRow, Hook, PodRow, Round, Route, RouterPort, worker};
use crate::snapshot::{Link, RouteTo};

/// The rows of all EIPs that were accepted. `owner` is the gateway that owns the external network when that is another
/// node.
pub(crate) fn rows(round: &Round<'_>, owner: Option<Ipv4Addr>, datapath: &mut Datapath) {
    let vtep = |claim: &Claim| (claim.node != round.snapshot.node_name).then_some(claim.vtep);
    let eip = |(eip, claim): (&_, &Claim)| (*eip, EipRow { pod_ip: claim.pod_ip, vtep: vtep(claim) });
    let accepted = || round.claims.iter().filter(|(_, claim)| claim.accepted);
    datapath.eips = accepted().map(eip).collect();
    let pod =
        |(eip, claim): (&_, &Claim)| (claim.pod_ip, PodRow { eip: *eip, vtep: vtep(claim), gateway: owner });
    datapath.pods = accepted().map(pod).collect();
}

/// The external NIC of the owner.
///
/// # Errors
/// It is missing, or is the underlay NIC.
pub(crate) fn external_nic<'a>(round: &Round<'a>) -> Result<(&'a str, &'a Link), Problem> {
    let (name, here) = (&round.config.external_nic, &round.snapshot.node_name);
    if name == round.underlay.0 {
        return Err(Problem::refused(
            round.object,
            "data[external-gw-nic]",
            format!("{name:?} is the NIC of the nodes' own traffic on gateway node {here}"),
            "name another NIC: the external network needs one of its own",
        ));
    }
    round.snapshot.host.links.get(name).map(|link| (name.as_str(), link)).ok_or_else(|| {
        Problem::refused(
            round.object,
            "data[external-gw-nic]",
            format!("gateway node {here} has no interface {name:?}; no EIP is served until it appears"),
            "correct the name, or plug the NIC in",
        )
    })
}

/// What to say of an external NIC that is there but cannot send. The agent sets it up itself; a cable it cannot plug in.
pub(crate) fn without_carrier(round: &Round<'_>, (name, link): (&str, &Link)) -> Vec<Problem> {
    let state = match (link.up, link.carrier) {
        (_, true) => return Vec::new(),
        (true, false) => "has no carrier",
        (false, false) => "is down",
    };
    let undecided = round.asked.iter().filter(|(eip, _)| !round.snapshot.external.in_use.contains_key(eip));
    let waits = undecided.map(|(eip, pod)| {
        Problem::warning(
            format!("pod {pod}"),
            format!("interface {name}"),
            format!("the external NIC {state}, so nobody can be asked whether {eip} is free: it waits"),
            "nothing to do here: it goes on as soon as the NIC has its carrier",
        )
    });
    let mut problems = vec![Problem::warning(
        format!("node {}", round.snapshot.node_name),
        format!("interface {name}"),
        format!("the external NIC {state}: no EIP can be reached until that changes"),
        format!("check its cable and the switch's port, and that nobody sets it down: ip link show {name}"),
    )];
    problems.extend(waits);
    problems
}

/// What to say of addresses of ours that somebody else uses as well.
pub(crate) fn contested<'a>(round: &'a Round<'_>) -> impl Iterator<Item = Problem> + use<'a> {
    round.snapshot.external.contested.iter().filter_map(|(address, mac)| {
        let (object, field) = match round.claims.get(address) {
            Some(claim) => (format!("pod {}", claim.pod), round.snapshot.keys.eip_field()),
            None if *address == round.config.nic_ip.addr => {
                (round.object.to_owned(), "data[nic-ip]".to_owned())
            }
            None => return None,
        };
        Some(Problem::contested(
            object,
            field,
            format!("{address} is also used by MAC {mac} on the external network; it is defended (RFC 5227)"),
            "find that host by its MAC, in the switch's table, and give it another address",
        ))
    })
}

/// The external side: flags, hooks, router port, neighbours, announcements, and the way of local EIP pods.
pub(crate) fn external_side(round: &Round<'_>, (nic, link): (&str, &Link), datapath: &mut Datapath) {
    let config = round.config;
    datapath.config.flags |=
        CONFIG_OWNER | link.takes.flags(CONFIG_XDP_TO_EXTERNAL, CONFIG_XDP_PIECES_TO_EXTERNAL);
    datapath.config.external_ifindex = link.ifindex;
    datapath.config.external_mtu = link.mtu;
    for hook in [Hook::XdpExternal, Hook::TcExternal] {
        datapath.hooks.insert(hook, nic.to_owned());
    }
    datapath.router_port = Some(RouterPort {
        parent: nic.to_owned(),
        mac: config.nic_mac,
        address: config.nic_ip,
        mtu: link.mtu,
        open: config.nic_ip_open,
    });
    datapath.announce = round.claims.keys().copied().chain([config.nic_ip.addr]).collect();
    datapath.probe = round.asked.keys().copied().collect();
    let in_use = &round.snapshot.external.in_use;
    datapath.probing = link.carrier && datapath.probe.iter().any(|eip| !in_use.contains_key(eip));
    datapath.garp_rate = config.garp_rate;
    datapath.ready_since =
        round.snapshot.nodes.get(&round.snapshot.node_name).and_then(|node| node.ready_since);
    datapath.rules.insert(config.nic_ip.addr);
    for (_, claim) in round.own_claims() {
        worker::policy_route(claim, datapath);
    }
    worker::throw_internal(datapath);
    if let Some(port) = router_port(round, link) {
        through_router_port(round, port, datapath);
    }
}

/// The router port as it is now, unless it sits on another NIC and is about to be made anew.
fn router_port<'a>(round: &Round<'a>, external: &Link) -> Option<&'a Link> {
    let port = round.snapshot.host.links.get(RouterPort::NAME)?;
    port.parent.is_none_or(|parent| parent == external.ifindex).then_some(port)
}

fn through_router_port(round: &Round<'_>, port: &Link, datapath: &mut Datapath) {
    let (ifindex, gateway) = (port.ifindex, round.config.external_gateway);
    datapath.config.router_port_ifindex = ifindex;
    datapath.hooks.insert(Hook::TcRouterPort, RouterPort::NAME.to_owned());
    datapath.routes.insert(Route::OnLink { destination: gateway.trunc(), ifindex });
    datapath.routes.insert(Route::Default { to: RouteTo { ifindex, via: Some(gateway.addr) }, mtu: 0 });
    datapath.resolve.insert((ifindex, gateway.addr));
    let on_port = round
        .snapshot
        .host
        .neighbors
        .range((ifindex, Ipv4Addr::UNSPECIFIED)..=(ifindex, Ipv4Addr::BROADCAST));
    datapath.neighbors = on_port.map(|((_, addr), mac)| (*addr, *mac)).collect();
}
