//! Two answers to the same stimulus, field by field.

use std::collections::BTreeMap;

use crate::observe::{Answer, Packet};
use crate::stimuli::Side;

/// The field of a difference in what came out at all.
pub(crate) const PACKETS: &str = "packets";

/// Something that is not the same at one end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Difference {
    /// `client` or `pod`.
    pub(crate) at: String,
    /// The field by tshark's name, or [`PACKETS`].
    pub(crate) field: String,
    pub(crate) ours: String,
    pub(crate) ovn: String,
}

/// Everything in which two answers differ. Packets are compared in the order they came.
pub(crate) fn differences(ours: &Answer, ovn: &Answer) -> Vec<Difference> {
    [Side::Client, Side::Pod].into_iter().flat_map(|side| at(side, ours.at(side), ovn.at(side))).collect()
}

fn at(side: Side, ours: &[Packet], ovn: &[Packet]) -> Vec<Difference> {
    let difference =
        |field: &str, ours, ovn| Difference { at: side.to_string(), field: field.to_owned(), ours, ovn };
    if !ours.iter().map(kind).eq(ovn.iter().map(kind)) {
        return vec![difference(PACKETS, listed(ours), listed(ovn))];
    }
    let mut found: Vec<_> = ours
        .iter()
        .zip(ovn)
        .flat_map(|(ours, ovn)| in_fields(ours, ovn))
        .map(|(field, ours, ovn)| difference(field, ours, ovn))
        .collect();
    found.dedup();
    found
}

/// What makes two packets comparable field by field.
fn kind(packet: &Packet) -> [Option<&str>; 3] {
    ["ip.proto", "icmp.type", "arp.opcode"].map(|field| packet.first(field))
}

fn listed(packets: &[Packet]) -> String {
    if packets.is_empty() {
        return "none".to_owned();
    }
    packets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + ")
}

type Fields = BTreeMap<&'static str, String>;

/// The fields in which two packets differ, without what may: the identification of a router's own packets, and one hop.
/// The kernel of our worker is a router too, OVN's is none.
fn in_fields(ours: &Packet, ovn: &Packet) -> Vec<(&'static str, String, String)> {
    let (mut left, mut right) = (ours.fields.clone(), ovn.fields.clone());
    if ours.is_a_routers() || ovn.is_a_routers() {
        edit_first(&mut left, "ip.id", any);
        edit_first(&mut right, "ip.id", any);
    } else {
        edit_first(&mut left, "ip.ttl", one_more);
    }
    unequal(&left, &right)
}

fn any(_: &str) -> String {
    "any".to_owned()
}

fn one_more(ttl: &str) -> String {
    ttl.parse::<u8>().map_or(ttl.to_owned(), |ttl| ttl.saturating_add(1).to_string())
}

fn edit_first(fields: &mut Fields, field: &str, edit: fn(&str) -> String) {
    if let Some(value) = fields.get_mut(field) {
        let (first, rest) = value.split_once(',').unwrap_or((value.as_str(), ""));
        let rest = if rest.is_empty() { String::new() } else { format!(",{rest}") };
        *value = edit(first) + &rest;
    }
}

fn unequal(ours: &Fields, ovn: &Fields) -> Vec<(&'static str, String, String)> {
    let value = |fields: &Fields, field| fields.get(field).cloned().unwrap_or_else(|| "-".to_owned());
    let fields: std::collections::BTreeSet<_> = ours.keys().chain(ovn.keys()).copied().collect();
    fields
        .into_iter()
        .filter(|field| ours.get(field) != ovn.get(field))
        .map(|field| (field, value(ours, field), value(ovn, field)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(fields: &[(&'static str, &str)]) -> Packet {
        Packet {
            time: 0.0,
            fields: fields.iter().map(|(field, value)| (*field, (*value).to_owned())).collect(),
        }
    }

    fn at_pod(fields: &[(&'static str, &str)]) -> Answer {
        Answer { pod: vec![packet(fields)], ..Answer::default() }
    }

    #[test]
    fn one_hop_more_is_no_difference_and_two_are() {
        let passed = |ttl| at_pod(&[("ip.src", "192.168.100.1"), ("ip.proto", "17"), ("ip.ttl", ttl)]);
        assert_eq!(differences(&passed("62"), &passed("63")), []);
        let found = differences(&passed("61"), &passed("63"));
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].field.as_str(), found[0].ours.as_str(), found[0].ovn.as_str()),
            ("ip.ttl", "62", "63")
        );
    }

    #[test]
    fn a_quote_is_compared_and_a_routers_identification_is_not() {
        let error = |id, ttl| {
            at_pod(&[
                ("ip.src", "192.168.100.254,10.244.1.10"),
                ("ip.proto", "1,17"),
                ("icmp.type", "11"),
                ("ip.id", id),
                ("ip.ttl", ttl),
            ])
        };
        assert_eq!(differences(&error("0x0001,0x1234", "64,1"), &error("0x0002,0x1234", "64,1")), []);
        let found = differences(&error("0x0001,0x1234", "64,1"), &error("0x0001,0x1235", "64,2"));
        assert_eq!(found.iter().map(|one| one.field.as_str()).collect::<Vec<_>>(), ["ip.id", "ip.ttl"]);
    }

    #[test]
    fn silence_is_not_an_answer() {
        let answer = at_pod(&[("ip.proto", "17"), ("ip.ttl", "63")]);
        let found = differences(&Answer::default(), &answer);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].field.as_str(), found[0].ours.as_str()), (PACKETS, "none"));
    }
}
