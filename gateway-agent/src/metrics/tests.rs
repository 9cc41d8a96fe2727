use std::net::Ipv4Addr;

use gateway_common::tables::{EipCounter, Vtep, VtepKey};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::maps::Scrape;
use super::*;

/// A scrape of tables that are nowhere pinned.
#[derive(Debug)]
struct Fixed(Scrape);

impl Collector for Fixed {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        self.0.encode(encoder)
    }
}

fn scrape() -> Scrape {
    let mut scrape = Scrape::default();
    let counter = EipCounter {
        in_packets: 3,
        in_bytes: 300,
        out_packets: 4,
        out_bytes: 400,
        last_seen_ns: 1,
        ..EipCounter::default()
    };
    scrape.eips.insert(Ipv4Addr::new(192, 168, 100, 101), counter);
    scrape.verdicts = vec![Default::default(); gateway_common::verdict::Verdict::COUNT];
    scrape.verdicts[0].packets = 7;
    scrape.tables.vteps.insert(VtepKey { vtep: [10, 0, 0, 2] }, Vtep::unresolved(0));
    scrape
}

fn exposition() -> Exposition {
    let metrics = Metrics::default();
    let refused = Problem::refused("pod a/b", "x", "y", "z");
    let desired = Desired {
        state: State::Withdrawn,
        problems: vec![refused, Problem::refused("configmap a/b", "x", "y", "z")],
        ..Desired::default()
    };
    metrics.decided(&desired, "gw1");
    metrics.table_ops(5);
    metrics.resynced();
    metrics.step_failed("nftables");
    metrics.event_to_map(Duration::from_millis(30));
    metrics.api_write("pod", "ok");
    let mut exposition = Exposition::new(&metrics, Path::new("/nonexistent"));
    exposition.registry.register_collector(Box::new(Fixed(scrape())));
    exposition
}

#[test]
fn the_text_says_what_was_noted_and_what_the_tables_hold() {
    let text = exposition().text().unwrap();
    for line in [
        r#"eip_gateway_build_info{version="0.1.0",abi="5"} 1"#,
        r#"eip_gateway_eips{state="bound"} 0"#,
        r#"eip_gateway_eips{state="refused"} 1"#,
        r#"eip_gateway_eips{state="conflict"} 0"#,
        "eip_gateway_owner 0",
        "eip_gateway_table_ops_total 5",
        "eip_gateway_resyncs_total 1",
        r#"eip_gateway_step_errors_total{step="nftables"} 1"#,
        r#"eip_gateway_event_to_map_seconds_bucket{le="0.05"} 1"#,
        r#"eip_gateway_api_writes_total{kind="pod",result="ok"} 1"#,
        r#"eip_gateway_packets_total{reason="to_worker"} 7"#,
        r#"eip_gateway_bytes_total{reason="drop_no_room"} 0"#,
        r#"eip_gateway_eip_packets_total{eip="192.168.100.101",direction="in"} 3"#,
        r#"eip_gateway_eip_bytes_total{eip="192.168.100.101",direction="out"} 400"#,
        r#"eip_gateway_map_entries{map="vteps"} 1"#,
        r#"eip_gateway_map_capacity{map="eips"} 65536"#,
        "eip_gateway_next_hops_unresolved 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn the_text_is_well_formed_openmetrics() {
    let text = exposition().text().unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let mut described = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram", "info"].contains(&kind), "{line}");
            assert!(described.insert(name.to_owned()), "{name} is described twice");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let of = |suffix| name.strip_suffix(suffix).is_some_and(|family| described.contains(family));
            let known = described.contains(name)
                || ["_total", "_info", "_bucket", "_sum", "_count"].iter().any(|s| of(*s));
            assert!(known, "{line} has no TYPE");
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        }
    }
}

#[test]
fn without_tables_the_rest_is_there() {
    let text = Exposition::new(&Metrics::default(), Path::new("/nonexistent")).text().unwrap();
    assert!(text.contains("eip_gateway_build_info") && !text.contains("eip_gateway_packets"), "{text}");
}

/// The dashboard's words that start with our prefix.
fn shown() -> std::collections::BTreeSet<&'static str> {
    let dashboard = include_str!("../../../deploy/grafana/eip-gateway.json");
    let words = dashboard.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("eip_gateway_")).collect()
}

#[test]
fn the_dashboard_shows_metrics_that_exist() {
    let text = exposition().text().unwrap();
    let exists = |name: &str| {
        // Where no client has used it there is no counter.
        text.contains(name) || name == "eip_gateway_cluster_dnat_packets_total"
    };
    let missing: Vec<_> = shown().into_iter().filter(|name| !exists(name)).collect();
    assert_eq!(missing, [""; 0]);
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let seen = |family: &str| shown().iter().any(|name| name.starts_with(family));
    let unseen: Vec<_> = families.filter(|family| !seen(family)).collect();
    // Bytes by reason say little that packets do not.
    assert_eq!(unseen, ["eip_gateway_bytes"]);
}
