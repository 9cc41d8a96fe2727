use gateway_common::tables::{Eip, EipKey, Neighbor, NeighborKey, Pod, PodKey, Vtep, VtepKey};

use super::*;
use crate::apply::nft::Counted;
use crate::snapshot::ObjectName;

const TABLE: Format = Format::Table { colour: false, all: false };

/// Names of the first EIP's pod; what is said of the second is of an earlier pod.
fn status() -> Status {
    let binding = |eip: &str, pod: &str, pod_ip: &str, node: &str| Binding {
        eip: eip.parse().unwrap(),
        pod: pod.split_once('/').map(|(namespace, name)| ObjectName::new(namespace, name)).unwrap(),
        pod_ip: pod_ip.parse().unwrap(),
        node: node.to_owned(),
    };
    Status {
        node: "gw1".to_owned(),
        role: Some(Role::Owner),
        owner: Some("gw1".to_owned()),
        bindings: vec![
            binding("192.168.100.101", "default/web", "10.244.2.10", "worker1"),
            binding("192.168.100.102", "default/old", "10.244.1.99", "gw1"),
        ],
        vms: BTreeMap::new(),
        problems: vec![],
    }
}

/// A gateway with one EIP on another node and one on itself.
fn gateway() -> View {
    let (pod1, pod2) = ([10, 244, 2, 10], [10, 244, 1, 10]);
    let (eip1, eip2) = ([192, 168, 100, 101], [192, 168, 100, 102]);
    let vtep = [10, 0, 0, 11];
    let config = Config {
        flags: CONFIG_OWNER,
        external_ifindex: 3,
        vni: 7,
        tunnel_mtu: 8950,
        local_vtep: [10, 0, 0, 1],
        nic_ip: [192, 168, 100, 254],
        external_network: [192, 168, 100, 0],
        external_netmask: [255, 255, 255, 0],
        physical_gateway: [192, 168, 100, 1],
        nic_mac: [0x16, 0x52, 0xf3, 0x13, 0x6a, 0x25],
        geneve_port: 6081_u16.to_be_bytes(),
        ..Config::default()
    };
    let tables = Tables {
        eips: BTreeMap::from([
            (EipKey { eip: eip1 }, Eip { pod_ip: pod1, vtep, slot: 0, flags: 0 }),
            (EipKey { eip: eip2 }, Eip { pod_ip: pod2, slot: 1, ..Eip::default() }),
        ]),
        pods: BTreeMap::from([
            (PodKey { pod_ip: pod1 }, Pod { eip: eip1, vtep, slot: 0, ..Pod::default() }),
            (PodKey { pod_ip: pod2 }, Pod { eip: eip2, slot: 1, ..Pod::default() }),
        ]),
        vteps: BTreeMap::from([
            (VtepKey { vtep }, Vtep::resolved(0, 2, Mac([2; 6]), Mac([4; 6]))),
            (VtepKey { vtep: [10, 0, 0, 12] }, Vtep::unresolved(0)),
        ]),
        neighbors: BTreeMap::from([(
            NeighborKey { addr: [192, 168, 100, 1] },
            Neighbor { mac: [6; 6], reserved: [0; 2] },
        )]),
        internal: ["10.244.0.0/16".parse().unwrap()].into(),
        config: Some(config),
        ..Tables::default()
    };
    let counter = EipCounter {
        in_packets: 5,
        in_bytes: 490,
        out_packets: 4,
        out_bytes: 392,
        last_seen_ns: 1_000_000_000,
        ..EipCounter::default()
    };
    let mut verdicts = vec![VerdictCounter::default(); Verdict::COUNT];
    verdicts[Verdict::ArpReply.row() as usize] = VerdictCounter { packets: 2, bytes: 84 };
    View {
        tables,
        eip_counters: BTreeMap::from([(0, counter)]),
        verdicts,
        now_ns: 3_500_000_000,
        status: Some(status()),
        firewall: None,
    }
}

/// A worker with one EIP pod.
fn worker() -> View {
    let mut view = gateway();
    view.status = None;
    view.tables.eips.clear();
    let gateway = [10, 0, 0, 1];
    let row = Pod { eip: [192, 168, 100, 101], gateway, ..Pod::default() };
    view.tables.pods = BTreeMap::from([(PodKey { pod_ip: [10, 244, 2, 10] }, row)]);
    view.tables.vteps = BTreeMap::from([(VtepKey { vtep: gateway }, Vtep::unresolved(VTEP_GATEWAY))]);
    let config =
        Config { flags: 0, external_ifindex: 0, local_vtep: [10, 0, 0, 11], ..view.tables.config.unwrap() };
    view.tables.config = Some(config);
    view
}

fn json(view: &View, topic: Topic) -> serde_json::Value {
    serde_json::from_str(&render(view, topic, Format::Json).unwrap()).unwrap()
}

#[test]
fn eips_with_counters_and_refusals() {
    let mut view = gateway();
    let expected = "\
EIP              POD          POD IP       NODE       IN PACKETS  IN BYTES  OUT PACKETS  OUT BYTES        IDLE
192.168.100.101  default/web  10.244.2.10  worker1             5       490            4        392       2.5 s
192.168.100.102  unknown      10.244.1.10  this node           0         0            0          0  never seen
";
    assert_eq!(render(&view, Topic::Eips, TABLE).unwrap(), expected);
    let refused = Problem::refused("pod default/x", "f", "\"x\" is not an IPv4 address", "choose another");
    view.status = Some(Status { problems: vec![refused], ..status() });
    let refusal = "\nrefused: pod default/x: f: \"x\" is not an IPv4 address; choose another\n";
    assert_eq!(render(&view, Topic::Eips, TABLE).unwrap(), expected.to_owned() + refusal);
    let list = json(&view, Topic::Eips);
    assert_eq!(
        list["problems"],
        serde_json::json!([{
            "kind": "refused", "object": "pod default/x", "field": "f",
            "message": "\"x\" is not an IPv4 address", "remedy": "choose another",
        }])
    );
    let rows = &list["eips"];
    assert_eq!(
        rows[0],
        serde_json::json!({
            "eip": "192.168.100.101", "pod": "10.244.2.10", "pod_name": "default/web", "node": "10.0.0.11",
            "node_name": "worker1", "slot": 0, "in_packets": 5, "in_bytes": 490, "out_packets": 4, "out_bytes": 392, "idle_seconds": 2.5,
        })
    );
    for unknown in ["node", "pod_name", "node_name", "idle_seconds"] {
        assert_eq!(rows[1][unknown], serde_json::Value::Null, "{unknown}");
    }
}

#[test]
fn a_workers_eips_are_those_of_its_pods() {
    let list = json(&worker(), Topic::Eips);
    let rows = &list["eips"];
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!((&rows[0]["eip"], &rows[0]["in_packets"]), (&"192.168.100.101".into(), &5.into()));
}

#[test]
fn pods_vteps_and_neighbors() {
    assert_eq!(
        render(&worker(), Topic::Pods, TABLE).unwrap(),
        "POD      POD IP       EIP              NODE       GATEWAY\n\
         unknown  10.244.2.10  192.168.100.101  this node  10.0.0.1\n"
    );
    assert_eq!(
        render(&gateway(), Topic::Vteps, TABLE).unwrap(),
        "VTEP       ROLE    NEXT HOP\n\
         10.0.0.11  worker  04:04:04:04:04:04 on interface 2\n\
         10.0.0.12  worker  not resolved\n"
    );
    assert_eq!(
        render(&gateway(), Topic::Neighbors, TABLE).unwrap(),
        "ADDRESS        MAC\n192.168.100.1  06:06:06:06:06:06\n"
    );
    assert_eq!(json(&gateway(), Topic::Vteps)[1]["destination_mac"], serde_json::Value::Null);
    assert_eq!(json(&gateway(), Topic::Pods)[1]["pod_name"], "default/web");
    assert_eq!(json(&gateway(), Topic::Pods)[0]["gateway"], serde_json::Value::Null);
    assert_eq!(json(&gateway(), Topic::Neighbors)[0]["address"], "192.168.100.1");
    assert_eq!(render(&View::default(), Topic::Neighbors, TABLE).unwrap(), "no neighbors\n");
}

#[test]
fn verdicts_hide_what_did_not_happen_unless_asked() {
    let some = render(&gateway(), Topic::Verdicts, TABLE).unwrap();
    assert_eq!(some.lines().count(), 2, "{some}");
    assert!(some.contains("arp_reply  answer"), "{some}");
    let all = render(&gateway(), Topic::Verdicts, Format::Table { colour: false, all: true }).unwrap();
    assert_eq!(all.lines().count(), 1 + Verdict::COUNT);
    let rows = json(&gateway(), Topic::Verdicts);
    assert_eq!(rows.as_array().unwrap().len(), Verdict::COUNT);
    assert_eq!(
        rows[Verdict::ArpReply.row() as usize],
        serde_json::json!({
            "reason": "arp_reply", "class": "answer", "packets": 2, "bytes": 84, "meaning": Verdict::ArpReply.meaning(),
        })
    );
}

#[test]
fn the_overview_fits_one_screen() {
    let text = render(&gateway(), Topic::Overview, TABLE).unwrap();
    let expected = "\
node        gw1 (10.0.0.1)
role        gateway, owner of the external network
owner       gw1 (10.0.0.1)
gateways    10.0.0.1
external    192.168.100.0/24 by way of 192.168.100.1
router port 192.168.100.254 16:52:f3:13:6a:25
tunnel      Geneve, VNI 7, UDP port 6081, MTU 8950
internal    10.244.0.0/16
holds       EIPs 2, other nodes 2 (1 not resolved), external neighbors 1, problems 0

EIP ";
    assert!(text.starts_with(expected), "{text}");
    let mut counted = gateway();
    let drop_tunnel_port = Counted { packets: 8, bytes: 672 };
    counted.firewall = Some(Counters { drop_tunnel_port, ..Counters::default() });
    let text = render(&counted, Topic::Overview, TABLE).unwrap();
    assert!(
        text.contains("\nnftables    packets to EIPs without the gateway 0, dropped to tunnel ports 8, "),
        "{text}"
    );
    assert_eq!(json(&counted, Topic::Overview)["firewall"]["drop_tunnel_port"]["packets"], 8);
    let worker = json(&worker(), Topic::Overview);
    assert_eq!((&worker["role"], &worker["owner"]), (&"worker".into(), &"10.0.0.1".into()));
    assert_eq!(worker["external"]["network"], "192.168.100.0/24");
    assert_eq!(worker["tunnel"]["port"], 6081);
    assert_eq!(worker["tunnel"]["mss_clamp"], true);
    assert_eq!(worker["tunnel"]["icmp_error_rate"], 0);
    let text = render(&self::worker(), Topic::Overview, TABLE).unwrap();
    assert!(text.starts_with("node        10.0.0.11\nrole        worker\nowner       10.0.0.1\n"), "{text}");
    let off = json(&View::default(), Topic::Overview);
    assert_eq!((&off["role"], &off["external"]), (&"off".into(), &serde_json::Value::Null));
}

#[test]
fn the_overview_says_where_the_rest_is() {
    let mut view = gateway();
    for i in 0..100 {
        view.tables.eips.insert(EipKey { eip: [192, 168, 101, i] }, Eip::default());
    }
    let text = render(&view, Topic::Overview, TABLE).unwrap();
    assert!(
        text.lines().count() < 30 && text.contains("... and 94 more: gateway-agent show eips\n"),
        "{text}"
    );
    assert_eq!(json(&view, Topic::Overview)["eips"].as_array().unwrap().len(), 102);
}

#[test]
fn a_standby_without_eips_is_told_from_a_worker() {
    let mut view = worker();
    view.status = Some(Status { role: Some(Role::Gateway), ..status() });
    assert_eq!(json(&view, Topic::Overview)["role"], "gateway, standby");
    assert_eq!(json(&view, Topic::Overview)["owner_name"], "gw1");
}

#[test]
fn colour_is_for_terminals_only() {
    let colour = render(&gateway(), Topic::Eips, Format::Table { colour: true, all: false }).unwrap();
    assert!(colour.contains('\u{1b}'));
    assert!(!render(&gateway(), Topic::Eips, TABLE).unwrap().contains('\u{1b}'));
}

#[test]
fn a_worker_does_not_list_the_eip_of_a_guest_that_is_elsewhere() {
    let mut view = gateway();
    let status = view.status.as_mut().unwrap();
    status.node = "worker2".to_owned();
    view.tables.eips.clear();
    // The target of a migration from worker1, where the guest still is.
    view.tables.pods = BTreeMap::from([(
        PodKey { pod_ip: [10, 244, 3, 10] },
        Pod { eip: [192, 168, 100, 101], gateway: [10, 0, 0, 1], ..Pod::default() },
    )]);
    assert!(view.eips().is_empty());
    assert_eq!(view.pods().len(), 1);
    let bindings = std::mem::take(&mut view.status.as_mut().unwrap().bindings);
    assert!(view.eips().is_empty(), "it starts, and nothing is bound yet");
    view.status.as_mut().unwrap().bindings = bindings;
    view.status.as_mut().unwrap().bindings[0].node = "worker2".to_owned();
    assert_eq!(view.eips().len(), 1);
}
