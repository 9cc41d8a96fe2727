use gateway_common::addr::Mac;
use proptest::prelude::*;

use super::*;
use crate::desired::{EipRow, PodRow};

fn eip(last: u8) -> Ipv4Addr {
    [192, 168, 100, last].into()
}

fn pod(last: u8) -> Ipv4Addr {
    [10, 244, 1, last].into()
}

/// A gateway's data path with these EIPs, each on the pod of the given number.
fn gateway(bindings: &[(u8, u8)]) -> Datapath {
    let vtep = Some([10, 0, 0, 11].into());
    let eips = bindings.iter().map(|(e, p)| (eip(*e), EipRow { pod_ip: pod(*p), vtep }));
    let pods = bindings.iter().map(|(e, p)| (pod(*p), PodRow { eip: eip(*e), vtep, gateway: None }));
    let config = Config { abi: 1, ..Config::default() };
    Datapath { config, eips: eips.collect(), pods: pods.collect(), ..Datapath::default() }
}

fn slots(tables: &Tables) -> Vec<(u8, u32)> {
    tables.eips.iter().map(|(key, row)| (key.eip[3], row.slot)).collect()
}

/// The names of the writes with the last byte of their key; those of the direct tables apart.
fn steps(want: &Tables, held: &Tables) -> Vec<String> {
    let is_direct = |op: &&TableOp| {
        matches!(op, TableOp::PutDirectEip(..) | TableOp::PutDirectPod(..) | TableOp::PutDirectNeighbor(..))
    };
    diff(want, held).iter().filter(|op| !is_direct(op)).map(name_of).collect()
}

fn name_of(op: &TableOp) -> String {
    match op {
        TableOp::PutDirectEip(row, eip) => format!("put direct eip {row} {}", eip.pod_ip[3]),
        TableOp::PutDirectPod(row, pod) => format!("put direct pod {row} {}", pod.eip[3]),
        TableOp::PutDirectNeighbor(row, neighbor) => format!("put direct neighbor {row} {}", neighbor.mac[5]),
        TableOp::ClearConfig => "clear config".to_owned(),
        TableOp::ResetCounter(slot) => format!("reset {slot}"),
        TableOp::PutVtep(key, _) => format!("put vtep {}", key.vtep[3]),
        TableOp::PutInternal(prefix) => format!("put internal {prefix}"),
        TableOp::PutNeighbor(key, _) => format!("put neighbor {}", key.addr[3]),
        TableOp::PutPod(key, row) => format!("put pod {} {}", key.pod_ip[3], row.eip[3]),
        TableOp::PutEip(key, row) => format!("put eip {} {}", key.eip[3], row.pod_ip[3]),
        TableOp::PutConfig(_) => "put config".to_owned(),
        TableOp::DeleteEip(key) => format!("delete eip {}", key.eip[3]),
        TableOp::DeletePod(key) => format!("delete pod {}", key.pod_ip[3]),
        TableOp::DeleteNeighbor(key) => format!("delete neighbor {}", key.addr[3]),
        TableOp::DeleteInternal(prefix) => format!("delete internal {prefix}"),
        TableOp::DeleteVtep(key) => format!("delete vtep {}", key.vtep[3]),
        TableOp::PutTxPort(ifindex) => format!("put port {ifindex}"),
        TableOp::DeleteTxPort(ifindex) => format!("delete port {ifindex}"),
    }
}

#[test]
fn the_direct_tables_follow_the_others_and_are_cleared_before_them() {
    let direct = |want: &Tables, held: &Tables| {
        let ops = diff(want, held);
        let at = |wanted: fn(&TableOp) -> bool| ops.iter().position(wanted);
        let eips: Vec<_> =
            ops.iter().filter(|op| matches!(op, TableOp::PutDirectEip(..))).map(name_of).collect();
        (eips, at(|op| matches!(op, TableOp::PutDirectEip(..))), at(|op| matches!(op, TableOp::DeleteEip(_))))
    };
    let one = rows(&gateway(&[(101, 10)]), &Tables::default()).unwrap();
    let (ops, ..) = direct(&one, &Tables::default());
    // 192.168.100.101 by its low 16 bits.
    assert_eq!(ops, ["put direct eip 25701 10"]);
    assert_eq!(one.config.unwrap().direct_mask, 0xffff);
    let none = rows(&gateway(&[]), &one).unwrap();
    let (ops, cleared, deleted) = direct(&none, &one);
    assert_eq!(ops, ["put direct eip 25701 0"]);
    assert!(cleared < deleted);
}

#[test]
fn xdp_sends_by_the_interfaces_that_it_may_send_by() {
    let vtep = |last, row| (Ipv4Addr::from([10, 0, 0, last]), row);
    let resolved = |ifindex| Vtep::resolved(0, ifindex, Mac([2; 6]), Mac([4; 6]));
    let mut datapath = gateway(&[]);
    datapath.vteps.extend([vtep(11, resolved(3)), vtep(12, resolved(3)), vtep(13, Vtep::unresolved(0))]);
    datapath.config.external_ifindex = 2;
    let mut ports = |flags, held: &Tables| {
        datapath.config.flags = flags;
        let rows = rows(&datapath, held).unwrap();
        let steps = steps(&rows, held).into_iter().filter(|step| step.contains("port")).collect::<Vec<_>>();
        (steps, rows)
    };
    let (steps, both) = ports(CONFIG_XDP_TO_EXTERNAL | CONFIG_XDP_TO_UNDERLAY, &Tables::default());
    assert_eq!(steps, ["put port 2", "put port 3"]);
    assert_eq!(ports(CONFIG_XDP_TO_UNDERLAY, &both).0, ["delete port 2"]);
    assert_eq!(ports(0, &both).0, ["delete port 2", "delete port 3"]);
}

#[test]
fn a_nic_that_comes_back_by_another_index_makes_room_first() {
    let ports = |external_ifindex, others: std::ops::Range<u32>| {
        let mut datapath = gateway(&[]);
        datapath.config.flags = CONFIG_XDP_TO_EXTERNAL | CONFIG_XDP_TO_UNDERLAY;
        datapath.config.external_ifindex = external_ifindex;
        datapath.vteps.extend(others.map(|ifindex| {
            (Ipv4Addr::from_bits(ifindex), Vtep::resolved(0, ifindex, Mac([2; 6]), Mac([4; 6])))
        }));
        rows(&datapath, &Tables::default()).unwrap()
    };
    let held = ports(1000, 1..200);
    assert_eq!(held.tx_ports.len(), MAX_TX_PORTS as usize, "the table is full");
    assert!(held.tx_ports.contains(&1000), "and all goes out by the external NIC");
    let ops: Vec<_> = steps(&ports(1001, 1..200), &held);
    assert_eq!(ops, ["delete port 1000", "put port 1001", "put config"]);
}

#[test]
fn a_row_says_where_pod_and_gateway_are() {
    let mut datapath = gateway(&[(101, 10)]);
    let neighbor = (eip(1), Mac([2; 6]));
    datapath.neighbors.extend([neighbor]);
    datapath.internal.insert("10.244.1.7/24".parse().unwrap());
    datapath.pods.insert(pod(11), PodRow { eip: eip(102), vtep: None, gateway: Some([10, 0, 0, 1].into()) });
    let tables = rows(&datapath, &Tables::default()).unwrap();
    let row = tables.eips[&EipKey { eip: [192, 168, 100, 101] }];
    assert_eq!(row, Eip { pod_ip: [10, 244, 1, 10], vtep: [10, 0, 0, 11], slot: 100 << 8 | 101, flags: 0 });
    let row = tables.pods[&PodKey { pod_ip: [10, 244, 1, 10] }];
    assert_eq!(
        (row.eip, row.vtep, row.gateway, row.slot),
        ([192, 168, 100, 101], [10, 0, 0, 11], [0; 4], 100 << 8 | 101)
    );
    let row = tables.pods[&PodKey { pod_ip: [10, 244, 1, 11] }];
    assert_eq!((row.vtep, row.gateway, row.slot), ([0; 4], [10, 0, 0, 1], 100 << 8 | 102));
    assert_eq!(tables.neighbors[&NeighborKey { addr: eip(1).octets() }].mac, [2; 6]);
    assert!(tables.internal.contains(&"10.244.1.0/24".parse().unwrap()));
    assert_eq!(tables.served(), BTreeMap::from([(eip(101), pod(10)), (eip(102), pod(11))]));
}

#[test]
fn an_eip_keeps_its_slot_and_a_new_one_takes_that_of_its_direct_row() {
    // 192.168.100.101, whose low 16 bits are 100.101.
    let of = |last: u32| 100 << 8 | last;
    let first = rows(&gateway(&[(101, 10), (102, 11)]), &Tables::default()).unwrap();
    assert_eq!(slots(&first), [(101, of(101)), (102, of(102))]);
    let mut held = first.clone();
    held.eips.get_mut(&EipKey { eip: [192, 168, 100, 102] }).unwrap().slot = 5;
    held.pods.get_mut(&PodKey { pod_ip: [10, 244, 1, 11] }).unwrap().slot = 5;
    let second = rows(&gateway(&[(100, 12), (102, 11)]), &held).unwrap();
    assert_eq!(slots(&second), [(100, of(100)), (102, 5)]);
    // A worker has no row of `eips`; the pod may have changed its address.
    let worker = Tables { eips: BTreeMap::new(), ..second };
    assert_eq!(slots(&rows(&gateway(&[(102, 9)]), &worker).unwrap()), [(102, 5)]);
}

#[test]
fn an_eip_whose_direct_row_is_another_ones_slot_takes_the_lowest_free() {
    let mut held = rows(&gateway(&[(101, 10)]), &Tables::default()).unwrap();
    held.eips.values_mut().for_each(|row| row.slot = 100 << 8 | 102);
    held.pods.values_mut().for_each(|row| row.slot = 100 << 8 | 102);
    let both = rows(&gateway(&[(101, 10), (102, 11)]), &held).unwrap();
    assert_eq!(slots(&both), [(101, 100 << 8 | 102), (102, 0)]);
    let other = rows(&gateway(&[(102, 11)]), &held).unwrap();
    assert_eq!(slots(&other), [(102, 0)], "that slot is still counted into until its row is gone");
}

#[test]
fn slots_that_two_eips_hold_are_told_apart() {
    let mut held = rows(&gateway(&[(101, 10), (102, 11)]), &Tables::default()).unwrap();
    held.eips.values_mut().for_each(|row| row.slot = 7);
    held.pods.values_mut().for_each(|row| row.slot = 7);
    let want = rows(&gateway(&[(101, 10), (102, 11)]), &held).unwrap();
    assert_eq!(slots(&want), [(101, 7), (102, 100 << 8 | 102)]);
}

#[test]
fn too_many_rows_name_the_table() {
    let mut datapath = gateway(&[]);
    datapath.vteps = (0..=MAX_VTEPS).map(|i| (Ipv4Addr::from_bits(i), Vtep::unresolved(0))).collect();
    let error = rows(&datapath, &Tables::default()).unwrap_err();
    assert_eq!(error, TableFull { table: "vteps", rows: MAX_VTEPS as usize + 1, limit: MAX_VTEPS });
}

#[test]
fn slots_of_what_goes_are_used_when_all_are_held() {
    let bindings = |first: u32| Datapath {
        eips: (first..first + MAX_EIPS)
            .map(|i| (Ipv4Addr::from_bits(i), EipRow { pod_ip: Ipv4Addr::from_bits(i), vtep: None }))
            .collect(),
        ..Datapath::default()
    };
    let held = rows(&bindings(0), &Tables::default()).unwrap();
    let want = rows(&bindings(1), &held).unwrap();
    let key = EipKey { eip: Ipv4Addr::from_bits(MAX_EIPS).octets() };
    assert_eq!(want.eips[&key].slot, 0);
    assert!(diff(&want, &held).starts_with(&[TableOp::ResetCounter(0)]));
}

#[test]
fn writes_come_in_an_order_that_mistreats_no_packet() {
    let none = Tables::default();
    let one = rows(&gateway(&[(101, 10)]), &none).unwrap();
    assert_eq!(steps(&one, &one), [""; 0]);
    assert_eq!(steps(&one, &none), ["reset 25701", "put pod 10 101", "put eip 101 10", "put config"]);
    assert_eq!(steps(&none, &one), ["clear config", "delete eip 101", "delete pod 10"]);
    let other_eip = rows(&gateway(&[(102, 10)]), &one).unwrap();
    assert_eq!(
        steps(&other_eip, &one),
        ["reset 25702", "put pod 10 102", "put eip 102 10", "delete eip 101"]
    );
    let other_pod = rows(&gateway(&[(101, 11)]), &one).unwrap();
    // In no internal prefix, the pod itself is a part of what is inside.
    assert_eq!(steps(&other_pod, &one), ["put pod 11 101", "put eip 101 11", "put config", "delete pod 10"]);
    let mut inside = gateway(&[(101, 10)]);
    inside.internal = inside.pods.keys().map(|pod| Prefix::new(*pod, 16).trunc()).collect();
    let one = rows(&inside, &none).unwrap();
    let other = Datapath { internal: inside.internal, ..gateway(&[(101, 11)]) };
    let other = rows(&other, &one).unwrap();
    assert_eq!(steps(&other, &one), ["put pod 11 101", "put eip 101 11", "delete pod 10"]);
}

prop_compose! {
    fn any_tables()(
        eips in prop::collection::btree_map(0..8_u8, (0..3_u8, 0..3_u32), 0..6),
        pods in prop::collection::btree_map(0..8_u8, (0..3_u8, 0..3_u32), 0..6),
        vteps in prop::collection::btree_map(0..8_u8, (0..3_u32, 0..3_u32), 0..6),
        neighbors in prop::collection::btree_map(0..8_u8, 0..3_u8, 0..6),
        internal in prop::collection::btree_set(0..8_u8, 0..6),
        config in prop::option::of((1..4_u32, 0..3_u32, any::<bool>(), any::<bool>())),
    ) -> Tables {
        // Three to a direct row, or fewer.
        let address = |key: u8| [key, 0, 0, key % 3];
        let flags = |to_external, to_underlay| {
            let flag = |set, flag| if set { flag } else { 0 };
            flag(to_external, CONFIG_XDP_TO_EXTERNAL) | flag(to_underlay, CONFIG_XDP_TO_UNDERLAY)
        };
        with_derived(Tables {
            eips: eips.into_iter().map(|(key, (pod_ip, slot))| {
                (EipKey { eip: address(key) }, Eip { pod_ip: [pod_ip; 4], slot, ..Eip::default() })
            }).collect(),
            pods: pods.into_iter().map(|(key, (eip, slot))| {
                (PodKey { pod_ip: address(key) }, Pod { eip: [eip; 4], slot, ..Pod::default() })
            }).collect(),
            vteps: vteps.into_iter().map(|(key, (flags, ifindex))| {
                (VtepKey { vtep: [key; 4] }, Vtep { ifindex, ..Vtep::unresolved(flags) })
            }).collect(),
            neighbors: neighbors.into_iter().map(|(key, mac)| {
                (NeighborKey { addr: [key; 4] }, Neighbor { mac: [mac; 6], reserved: [0; 2] })
            }).collect(),
            internal: internal.into_iter().map(|len| Prefix::new([10, 0, 0, 0].into(), len + 8)).collect(),
            config: config.map(|(vni, external_ifindex, to_external, to_underlay)| {
                Config { vni, external_ifindex, flags: flags(to_external, to_underlay), ..Config::default() }
            }),
            direct: Direct::default(),
            tx_ports: BTreeSet::new(),
        })
    }
}

proptest! {
    #[test]
    fn the_writes_lead_from_any_tables_to_any_others(want in any_tables(), held in any_tables()) {
        let mut tables = held.clone();
        for op in diff(&want, &held) {
            tables.apply(&op);
        }
        prop_assert_eq!(&tables, &want);
        prop_assert!(diff(&want, &tables).is_empty());
    }

    #[test]
    fn what_stays_is_in_a_direct_table_as_long_as_that_says_that_all_are(want in any_tables(), held in any_tables()) {
        let mut tables = held.clone();
        for op in diff(&want, &held) {
            tables.apply(&op);
            let flags = tables.config.map_or(0, |config| config.flags);
            let direct = |addr: [u8; 4]| direct_row(addr, DIRECT_ROWS - 1);
            if flags & CONFIG_ALL_PODS_DIRECT != 0 {
                for key in held.pods.keys().filter(|key| want.pods.contains_key(key)) {
                    let row = tables.direct.pods.get(&direct(key.pod_ip));
                    prop_assert_eq!(row.map(|row| row.pod_ip), Some(key.pod_ip), "after {}", name_of(&op));
                }
            }
            if flags & CONFIG_ALL_EIPS_DIRECT != 0 {
                for key in held.eips.keys().filter(|key| want.eips.contains_key(key)) {
                    let row = tables.direct.eips.get(&direct(key.eip));
                    prop_assert_eq!(row.map(|row| row.eip), Some(key.eip), "after {}", name_of(&op));
                }
            }
        }
    }

    #[test]
    fn every_eip_has_a_slot_of_its_own(
        want in prop::collection::btree_map(0..20_u8, 0..200_u8, 0..20),
        held in any_tables(),
    ) {
        let datapath = Datapath {
            eips: want.iter().map(|(e, p)| ([*e; 4].into(), EipRow { pod_ip: pod(*p), vtep: None })).collect(),
            ..Datapath::default()
        };
        let tables = rows(&datapath, &held).unwrap();
        let slots: BTreeSet<u32> = tables.eips.values().map(|row| row.slot).collect();
        prop_assert_eq!(slots.len(), want.len());
    }
}
