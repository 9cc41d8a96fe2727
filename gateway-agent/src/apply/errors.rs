//! The way of this node's own ICMP errors about packets to its EIP pods. Their source is not chosen yet when the kernel
//! looks for a route, so no rule by the pod's address applies, and a node without a default route would have none to a
//! client outside. So behind the main table, and before the route of [`shortcut`](super::shortcut), rules for errors alone
//! lead to our table; the datapath takes them from there. Where the main table has a route, that one counts: on the
//! underlay NIC the datapath sees the error all the same.

use netlink_packet_route::IpProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};
use nix::errno::Errno;
use rtnetlink::Handle;

use super::NetlinkError;
use super::route::held_rules;
use super::shortcut::{self, done};
use crate::desired::{Datapath, ROUTING_TABLE, Route};

/// Priority of the rules: behind main and default (32766 and 32767), before the shortcut.
const PRIORITY: u32 = shortcut::PRIORITY - 1;
/// ICMP types of errors: destination unreachable; time exceeded and parameter problem.
const TYPES: [(u8, u8); 2] = [(3, 3), (11, 12)];

/// Whether a data path asks for the rules: where an EIP pod's traffic has a route of ours, errors about it have.
pub fn wanted(datapath: &Datapath) -> bool {
    let leads_out = |route: &Route| matches!(route, Route::Default { .. });
    !datapath.identity_snat.is_empty() && datapath.routes.iter().any(leads_out)
}

/// A rule's port range for a range of types. The kernel keeps type and code of ICMP where it keeps the destination port
/// (`union flowi_uli`), the type in the first byte.
const fn ports((first, last): (u8, u8)) -> RulePortRange {
    RulePortRange { start: (first as u16) << 8, end: (last as u16) << 8 | 0xff }
}

/// Makes the rules as wanted. Returns how many were written.
///
/// # Errors
/// The first request the kernel refused.
pub async fn apply(handle: &Handle, wanted: bool) -> Result<usize, NetlinkError> {
    let held =
        held_rules(handle, ROUTING_TABLE, PRIORITY).await.map_err(NetlinkError::of("list policy rules"))?;
    let (mut changes, mut there) = (0, [false; TYPES.len()]);
    for message in held {
        let which = TYPES.iter().position(|types| is_rule(&message, ports(*types)));
        if let Some(which) = which.filter(|which| wanted && !there[*which]) {
            there[which] = true;
            continue;
        }
        let action = format!("delete a policy rule of priority {PRIORITY}");
        changes += done(handle.rule().del(message).execute().await, Errno::ENOENT, action)?;
    }
    for (types, _) in TYPES.iter().zip(there).filter(|(_, there)| wanted && !there) {
        let mut request = handle
            .rule()
            .add()
            .v4()
            .input_interface(shortcut::LOCAL)
            .table_id(ROUTING_TABLE)
            .priority(PRIORITY)
            .action(RuleAction::ToTable);
        request.message_mut().attributes.extend(matches(ports(*types)));
        let action = format!("add the policy rule for ICMP errors of type {} to {}", types.0, types.1);
        changes += done(request.execute().await, Errno::EEXIST, action)?;
    }
    Ok(changes)
}

const fn matches(ports: RulePortRange) -> [RuleAttribute; 2] {
    [RuleAttribute::IpProtocol(IpProtocol::Icmp), RuleAttribute::DestinationPortRange(ports)]
}

/// Whether a message is our rule for a port range.
fn is_rule(message: &RuleMessage, ports: RulePortRange) -> bool {
    message.header.src_len == 0
        && message.header.dst_len == 0
        && message.attributes.contains(&RuleAttribute::Iifname(shortcut::LOCAL.to_owned()))
        && matches(ports).iter().all(|attribute| message.attributes.contains(attribute))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_and_code_stand_where_the_port_does() {
        let range = |types| (ports(types).start, ports(types).end);
        assert_eq!(range((3, 3)), (768, 1023));
        assert_eq!(range((11, 12)), (2816, 3327));
    }

    #[test]
    fn wanted_once_a_pod_has_a_way_out() {
        let mut datapath = Datapath::default();
        assert!(!wanted(&datapath));
        datapath.identity_snat.insert([10, 244, 1, 10].into());
        assert!(!wanted(&datapath));
        let to = crate::snapshot::RouteTo { ifindex: 2, via: Some([172, 18, 0, 11].into()) };
        datapath.routes.insert(Route::Default { to, mtu: 1450 });
        assert!(wanted(&datapath));
    }
}
