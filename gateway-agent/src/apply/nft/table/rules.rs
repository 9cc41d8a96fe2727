//! The table's chains, sets and rules: its form, which is the same on every node.

use super::{DROP_ROUTER_PORT, DROP_TUNNEL_PORT, IN_CLUSTER};
use crate::desired::RouterPort;

/// Chain, type, hook and priority.
pub(super) const CHAINS: [(&str, &str, &str, i64); 6] = [
    ("prerouting", "nat", "prerouting", -101),
    ("output", "nat", "output", -101),
    ("postrouting", "nat", "postrouting", 99),
    ("count", "filter", "postrouting", 101),
    ("input", "filter", "input", 0),
    ("forward", "filter", "forward", 0),
];

pub(super) const COUNTERS: [&str; 3] = [IN_CLUSTER, DROP_TUNNEL_PORT, DROP_ROUTER_PORT];

pub(super) const MAPS: [&str; 2] = ["eips", "self"];

/// Name and type of each set.
pub(super) const SETS: [(&str, &str); 9] = [
    ("own", "type ipv4_addr . ipv4_addr;"),
    ("pods", "type ipv4_addr;"),
    ("external", "type ipv4_addr; flags interval;"),
    ("internal", "type ipv4_addr; flags interval;"),
    ("vteps", "type ipv4_addr;"),
    ("tunnel", "type inet_service;"),
    ("outside", "type ifname;"),
    ("closed", "type ifname;"),
    ("nic_ip", "type ipv4_addr;"),
];

/// A rule: its chain, its text and its comment, without the form's number.
pub(super) type Rule = (&'static str, String, &'static str);

/// All rules, in order; a change of a rule needs a new number in [`comment`].
pub(super) fn rules() -> Vec<Rule> {
    [translation(), input(), forward()].concat()
}

/// A rule's comment, by which it is recognised.
pub(super) fn comment(what: &str) -> String {
    format!("eip-gateway 3: {what}")
}

fn translation() -> Vec<Rule> {
    vec![
        (
            "prerouting",
            "ip saddr . ip daddr @own return".to_owned(),
            "a pod that reaches itself is turned round by the programs",
        ),
        (
            "prerouting",
            "iifname != @outside ip saddr @internal dnat to ip daddr map @eips".to_owned(),
            "a pod of this node reaches an EIP directly",
        ),
        ("output", "dnat to ip daddr map @eips".to_owned(), "this node reaches an EIP directly"),
        (
            "postrouting",
            "ct status dnat ct original ip daddr @external fib saddr type local ip saddr != @internal masquerade"
                .to_owned(),
            "this node by an address that the pod can answer",
        ),
        ("postrouting", "ip daddr @internal return".to_owned(), "to internal destinations as ever"),
        ("postrouting", "snat to ip saddr map @self".to_owned(), "an EIP pod keeps its own address"),
        (
            "count",
            format!(
                "ct direction original ct status dnat ct original ip daddr @external counter name \
                 {IN_CLUSTER}"
            ),
            "from this node to EIPs",
        ),
    ]
}

/// What the node itself takes from the external network, in the name of `nic-ip`.
fn input() -> Vec<Rule> {
    let (port, refuse) = (RouterPort::NAME, refuse());
    vec![
        ("input", "iifname @closed ct direction reply accept".to_owned(), "answers to this node"),
        ("input", "iifname @closed ct state related accept".to_owned(), "errors about what it sent"),
        (
            "input",
            "iifname @closed ip saddr != @internal ip daddr @nic_ip icmp type { echo-request, \
             destination-unreachable, time-exceeded, parameter-problem } accept"
                .to_owned(),
            "echo and errors to nic-ip",
        ),
        ("input", format!("iifname @closed iifname \"{port}\" {refuse}"), "nothing else by the router port"),
        ("input", format!("iifname @closed ip daddr @nic_ip {refuse}"), "nor to nic-ip by the NIC"),
    ]
}

/// What the node sends on: nothing of a pod's to a tunnel's end, and from the external network to
/// EIP pods only.
fn forward() -> Vec<Rule> {
    let (port, refuse) = (RouterPort::NAME, refuse());
    vec![
        (
            "forward",
            // Behind every DNAT, so that a Service whose endpoint is a node is seen as that node;
            // whole datagrams, since conntrack puts fragments together.
            format!("ip daddr @vteps udp dport @tunnel counter name {DROP_TUNNEL_PORT} drop"),
            "only nodes speak to a tunnel's end",
        ),
        ("forward", "iifname @closed ct direction reply accept".to_owned(), "answers to pods"),
        ("forward", "iifname @closed ct state related accept".to_owned(), "errors about what they sent"),
        (
            "forward",
            format!("iifname @closed ct original ip daddr @nic_ip {refuse}"),
            "no NodePort of nic-ip",
        ),
        (
            "forward",
            format!("iifname @closed iifname \"{port}\" ct status dnat {refuse}"),
            "no Service by the router port",
        ),
        (
            "forward",
            format!("iifname @closed iifname \"{port}\" ip saddr != @internal ip daddr @pods accept"),
            "to EIP pods",
        ),
        (
            "forward",
            format!("iifname @closed iifname \"{port}\" {refuse}"),
            "nothing else inwards by the router port",
        ),
    ]
}

fn refuse() -> String {
    format!("counter name {DROP_ROUTER_PORT} drop")
}
