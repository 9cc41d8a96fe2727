//! Which nodes are gateways, and which of them owns the external network: a pure function of members and liveness.

use std::collections::BTreeMap;

use crate::annotation::Keys;
use crate::config::GatewayConfig;
use crate::desired::problem::Problem;
use crate::snapshot::Node;

/// The gateway nodes of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Gateways {
    /// Nodes that may own the external network, the most preferred first. Each exists and has an InternalIP.
    pub members: Vec<String>,
    /// The one that does.
    pub owner: Option<String>,
}

impl Gateways {
    /// Whether a node is a gateway.
    pub fn contains(&self, node: &str) -> bool {
        self.members.iter().any(|member| member == node)
    }
}

/// Decides who is a gateway and who owns the external network; `object` names the ConfigMap in problems.
///
/// Members are the nodes that `external-gw-nodes` names, in its order, or else the labelled nodes by name. The owner
/// is the first that is Ready. When none is, the first serves on: a kubelet that lost the API server is no reason to
/// withdraw a data path that works.
pub fn gateways(
    config: &GatewayConfig,
    keys: &Keys,
    nodes: &BTreeMap<String, Node>,
    object: &str,
) -> (Gateways, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut members = Vec::new();
    let named = !config.gateway_nodes.is_empty();
    let field =
        if named { "data[external-gw-nodes]".to_owned() } else { format!("label {}", keys.external_gw) };
    let candidates: Vec<&String> = if named {
        config.gateway_nodes.iter().collect()
    } else {
        nodes.iter().filter(|(_, node)| node.gateway_label).map(|(name, _)| name).collect()
    };
    for name in candidates {
        let wrong = match nodes.get(name) {
            None => Some(("does not exist", "create it, or correct or remove its name")),
            Some(node) if node.internal_ip.is_none() => {
                Some(("has no IPv4 address of type InternalIP", "give the node one"))
            }
            Some(node) if !node.ready => Some(("is not ready", "look at the node's conditions")),
            Some(_) => None,
        };
        if let Some((what, remedy)) = wrong {
            problems.push(Problem::warning(object, &*field, format!("gateway node {name:?} {what}"), remedy));
        }
        if nodes.get(name).is_some_and(|node| node.internal_ip.is_some()) && !members.contains(name) {
            members.push(name.clone());
        }
    }
    let ready = members.iter().find(|name| nodes.get(*name).is_some_and(|node| node.ready));
    let owner = ready.or(members.first()).cloned();
    if owner.is_none() {
        problems.push(Problem::refused(
            object,
            &*field,
            "there is no gateway node, so no EIP is served",
            format!("name an existing node in external-gw-nodes, or label one {}=true", keys.external_gw),
        ));
    }
    (Gateways { members, owner }, problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::example;

    /// Nodes by name: `-` not ready, `?` without address, `*` labelled.
    fn nodes(spec: &str) -> BTreeMap<String, Node> {
        let node = |(i, text): (usize, &str)| {
            let node = Node {
                internal_ip: (!text.contains('?')).then(|| [10, 0, 0, i as u8 + 1].into()),
                ready: !text.contains('-'),
                gateway_label: text.contains('*'),
                ..Node::default()
            };
            (text.trim_end_matches(['-', '?', '*']).to_owned(), node)
        };
        spec.split_whitespace().enumerate().map(node).collect()
    }

    #[test]
    fn the_first_ready_member_owns() {
        for (named, present, members, owner, problems) in [
            ("b a", "a b c", "b a", "b", 0),
            ("b a", "a b- c", "b a", "a", 1),
            ("b a", "a- b- c", "b a", "b", 2),
            ("b a", "a c", "a", "a", 1),
            ("b a", "a b?", "a", "a", 1),
            ("a a", "a", "a", "a", 0),
            ("x", "a b*", "", "", 2),
            ("", "a b* c*", "b c", "b", 0),
            ("", "a b*- c*", "b c", "c", 1),
            ("", "a b", "", "", 1),
        ] {
            let config = GatewayConfig {
                gateway_nodes: named.split_whitespace().map(str::to_owned).collect(),
                ..example()
            };
            let (gateways, found) = gateways(&config, &Keys::default(), &nodes(present), "configmap x");
            assert_eq!(gateways.members.join(" "), members, "{named:?} of {present:?}");
            assert_eq!(gateways.owner.as_deref().unwrap_or(""), owner, "{named:?} of {present:?}");
            assert_eq!(found.len(), problems, "{named:?} of {present:?}: {found:?}");
        }
    }
}
