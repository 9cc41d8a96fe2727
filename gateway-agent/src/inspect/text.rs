//! Tables for people: no borders, numbers to the right.

use std::fmt::Write;
use std::net::Ipv4Addr;

use comfy_table::{Attribute, Cell, CellAlignment, Table, presets};

use super::{EipRow, Overview, Topic, View, VtepRow};
use crate::apply::nft::Counters;
use crate::desired::problem::{Kind, Problem};

/// What is not known without the status file.
const UNKNOWN: &str = "unknown";
/// Rows of each table in the overview.
const SCREEN: usize = 8;

pub(super) fn render(view: &View, topic: Topic, colour: bool, all: bool) -> String {
    match topic {
        Topic::Overview => overview(&view.overview(), colour),
        Topic::Eips => eips(&view.eips(), usize::MAX, colour) + &problems(view.problems()),
        Topic::Pods => {
            let row = |row: super::PodRow| {
                let pod = text(row.pod_name.as_deref().unwrap_or(UNKNOWN));
                vec![pod, text(row.pod), text(row.eip), text(node(row.node)), text(node(row.gateway))]
            };
            let header = ["POD", "POD IP", "EIP", "NODE", "GATEWAY"];
            table(&header, view.pods().into_iter().map(row), "EIP pods", colour)
        }
        Topic::Vteps => vteps(&view.vteps(), usize::MAX, colour),
        Topic::Neighbors => {
            let row = |row: super::NeighborRow| vec![text(row.address), text(row.mac)];
            table(&["ADDRESS", "MAC"], view.neighbors().into_iter().map(row), "neighbors", colour)
        }
        Topic::Verdicts => {
            let rows = view.verdicts().into_iter().filter(|row| all || row.packets != 0);
            let row = |row: super::VerdictRow| {
                vec![
                    text(row.reason),
                    text(row.class),
                    number(row.packets),
                    number(row.bytes),
                    text(row.meaning),
                ]
            };
            table(&["REASON", "CLASS", "PACKETS", "BYTES", "MEANING"], rows.map(row), "packets", colour)
        }
    }
}

/// The first `limit` rows; how many more there are is said below.
fn eips(rows: &[EipRow], limit: usize, colour: bool) -> String {
    let header =
        ["EIP", "POD", "POD IP", "NODE", "IN PACKETS", "IN BYTES", "OUT PACKETS", "OUT BYTES", "IDLE"];
    let row = |row: &EipRow| {
        let idle = row.idle_seconds.map_or("never seen".to_owned(), |seconds| format!("{seconds:.1} s"));
        vec![
            text(row.eip),
            text(row.pod_name.as_deref().unwrap_or(UNKNOWN)),
            text(row.pod),
            text(row.node_name.clone().unwrap_or_else(|| node(row.node))),
            number(row.in_packets),
            number(row.in_bytes),
            number(row.out_packets),
            number(row.out_bytes),
            Cell::new(idle).set_alignment(CellAlignment::Right),
        ]
    };
    table(&header, rows.iter().take(limit).map(row), "EIPs", colour) + &more(rows.len(), limit, "eips")
}

fn vteps(rows: &[VtepRow], limit: usize, colour: bool) -> String {
    let row = |row: &VtepRow| {
        let next_hop = match (&row.destination_mac, row.ifindex) {
            (Some(mac), Some(ifindex)) => format!("{mac} on interface {ifindex}"),
            (Some(_) | None, _) => "not resolved".to_owned(),
        };
        vec![text(row.vtep), text(row.role), text(next_hop)]
    };
    table(&["VTEP", "ROLE", "NEXT HOP"], rows.iter().take(limit).map(row), "other nodes", colour)
        + &more(rows.len(), limit, "vteps")
}

fn overview(overview: &Overview, colour: bool) -> String {
    let mut out = String::new();
    let mut line = |label: &str, value: String| _ = writeln!(out, "{label:<12}{value}");
    line("node", name(overview.node.as_deref(), overview.vtep));
    line("role", overview.role.to_owned());
    line("owner", name(overview.owner_name.as_deref(), overview.owner));
    line("gateways", overview.gateways.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", "));
    if let Some(external) = &overview.external {
        line("external", format!("{} by way of {}", external.network, external.physical_gateway));
        let port = format!("{} {}", external.nic_ip, external.nic_mac);
        line("router port", if external.nic_ifindex == 0 { port + ", on the owner" } else { port });
    }
    if let Some(tunnel) = &overview.tunnel {
        let mss = if tunnel.mss_clamp { "" } else { ", MSS not clamped" };
        line(
            "tunnel",
            format!("Geneve, VNI {}, UDP port {}, MTU {}{mss}", tunnel.vni, tunnel.port, tunnel.mtu),
        );
    }
    line("internal", overview.internal.join(", "));
    line("holds", counts(overview));
    if let Some(firewall) = &overview.firewall {
        line("nftables", firewall_counts(firewall));
    }
    out + "\n"
        + &eips(&overview.eips, SCREEN, colour)
        + "\n"
        + &vteps(&overview.vteps, SCREEN, colour)
        + &problems(&overview.problems)
}

/// A node's name and address, as far as known.
fn name(name: Option<&str>, addr: Option<Ipv4Addr>) -> String {
    match (name, addr) {
        (Some(name), Some(addr)) => format!("{name} ({addr})"),
        (Some(name), None) => name.to_owned(),
        (None, Some(addr)) => addr.to_string(),
        (None, None) => UNKNOWN.to_owned(),
    }
}

/// How much of everything there is.
fn counts(overview: &Overview) -> String {
    let unresolved = overview.vteps.iter().filter(|row| !row.resolved).count();
    format!(
        "EIPs {}, other nodes {} ({unresolved} not resolved), external neighbors {}, problems {}",
        overview.eips.len(),
        overview.vteps.len(),
        overview.neighbors,
        overview.problems.len()
    )
}

/// What the nftables table has counted.
fn firewall_counts(counters: &Counters) -> String {
    let Counters { in_cluster, drop_tunnel_port, drop_router_port } = counters;
    format!(
        "packets to EIPs without the gateway {}, dropped to tunnel ports {}, dropped from the external network {}",
        in_cluster.packets, drop_tunnel_port.packets, drop_router_port.packets
    )
}

fn more(rows: usize, limit: usize, topic: &str) -> String {
    match rows.saturating_sub(limit) {
        0 => String::new(),
        left => format!("... and {left} more: gateway-agent show {topic}\n"),
    }
}

/// A line per problem, after an empty one.
fn problems(problems: &[Problem]) -> String {
    let mut out = String::new();
    for problem in problems {
        let kind = match problem.kind {
            Kind::Refused => "refused",
            Kind::Conflict => "conflict",
            Kind::Contested => "contested",
            Kind::Warning => "warning",
        };
        let start = if out.is_empty() { "\n" } else { "" };
        _ = writeln!(out, "{start}{kind}: {problem}");
    }
    out
}

fn node(addr: Option<Ipv4Addr>) -> String {
    addr.map_or("this node".to_owned(), |addr| addr.to_string())
}

fn text(value: impl ToString) -> Cell {
    Cell::new(value)
}

fn number(value: u64) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}

/// A table, or "no `what`" when it has no rows.
fn table(header: &[&str], rows: impl Iterator<Item = Vec<Cell>>, what: &str, colour: bool) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    if colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(header.iter().map(|word| {
        let number = ["PACKETS", "BYTES", "IDLE"].iter().any(|number| word.ends_with(number));
        let alignment = if number { CellAlignment::Right } else { CellAlignment::Left };
        Cell::new(word).add_attribute(Attribute::Bold).set_alignment(alignment)
    }));
    table.add_rows(rows);
    if table.is_empty() {
        return format!("no {what}\n");
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    format!("{}\n", table.trim_fmt())
}
