//! Writing and reading the tables in the kernel: in batches, and on a kernel that refuses them. Needs root.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::thread;

use anyhow::{Context, Result, bail};
use aya::EbpfLoader;
use aya::maps::{Array, HashMap, Map, MapData};
use gateway_agent::apply::bpf::{BpfError, Maps, elf};
use gateway_agent::tables::{TableOp, Tables, diff};
use gateway_common::direct::{Direct, Sources};
use gateway_common::tables::{
    Config, DIRECT_ROWS, Eip, EipCounter, EipKey, MAX_EIPS, Neighbor, NeighborKey, Pod, PodKey, Vtep,
    VtepKey, counter_row, name,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

/// Several batches, the last one not full.
const MANY: u32 = 10_000;
/// CPUs that `eip_counters` has rows of: not those of this machine.
const CPUS: u32 = 3;
/// Index of the loopback interface, in every namespace.
const LOOPBACK: u32 = 1;
/// Commands of bpf(2): looking up, updating and deleting a batch.
const BATCHES: [u64; 3] = [24, 26, 27];

/// Fresh tables, `eips` with room for so many rows, and the ids of their maps.
fn tables(eips: u32) -> Result<(Maps, BTreeMap<&'static str, u32>)> {
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries(name::EIPS, eips)
        .map_max_entries(name::EIP_COUNTERS, counter_row(MAX_EIPS, CPUS, 0));
    let mut ebpf = loader.load(&elf(None)?)?;
    let mut taken = BTreeMap::new();
    for name in name::ALL {
        let map = ebpf.take_map(name).context(name)?;
        let (Map::HashMap(data)
        | Map::PerCpuArray(data)
        | Map::LpmTrie(data)
        | Map::Array(data)
        | Map::DevMapHash(data)) = &map
        else {
            bail!("{name} is of another type")
        };
        let id = data.info()?.id();
        taken.insert(name, (map, id));
    }
    let ids = taken.iter().map(|(name, (_, id))| (*name, *id)).collect();
    let maps = Maps::new(|name| Ok(taken.remove(name).ok_or(BpfError::NoMap { name })?.0))?;
    Ok((maps, ids))
}

/// Another handle on a map.
fn by_id(id: u32) -> Result<Map> {
    Ok(Map::from_map_data(MapData::from_id(id)?)?)
}

/// Runs on a thread for which the kernel has no batch commands, as one before 5.6.
fn without_batches<T: Send>(run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let refused = BATCHES.map(|command| {
        let is = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, command)?;
        SeccompRule::new(vec![is])
    });
    let rules = BTreeMap::from([(libc::SYS_bpf, refused.into_iter().collect::<Result<_, _>>()?)]);
    let errno = SeccompAction::Errno(libc::EINVAL.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, std::env::consts::ARCH.try_into()?)?;
    let filter: BpfProgram = filter.try_into()?;
    let on_thread = move || {
        apply_filter(&filter)?;
        run()
    };
    thread::scope(|scope| scope.spawn(on_thread).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

fn eip(index: u32) -> EipKey {
    EipKey { eip: (0x6440_0000 + index).to_be_bytes() }
}

fn eip_row(index: u32) -> Eip {
    Eip { pod_ip: index.to_be_bytes(), vtep: [10, 0, 0, 11], slot: index, flags: 0 }
}

/// Rows in every table; `salt` makes others under the same keys.
fn filled(rows: u32, salt: u32) -> Result<Tables> {
    let node = salt.to_be_bytes();
    let pod = |index| Pod { eip: eip(index).eip, vtep: node, gateway: [0; 4], slot: index, flags: 0 };
    let neighbor = Neighbor { mac: [2, 0, 0, 0, node[2], node[3]], reserved: [0; 2] };
    let rows = (0..rows).map(|index| (index, index.to_be_bytes()));
    let eips = rows.clone().map(|(index, _)| (eip(index), Eip { vtep: node, ..eip_row(index) })).collect();
    let pods = rows.clone().map(|(index, pod_ip)| (PodKey { pod_ip }, pod(index))).collect();
    let vteps = rows.clone().map(|(_, vtep)| (VtepKey { vtep }, Vtep::unresolved(salt))).collect();
    let neighbors = rows.map(|(_, addr)| (NeighborKey { addr }, neighbor)).collect();
    let sources = Sources { eips: &eips, pods: &pods, vteps: &vteps, neighbors: &neighbors };
    let direct = Direct::of(sources, DIRECT_ROWS - 1);
    Ok(Tables {
        direct,
        eips,
        pods,
        vteps,
        neighbors,
        internal: ["10.244.0.0/16".parse()?, "172.18.0.0/24".parse()?].into(),
        config: Some(Config { abi: 1, flags: salt, ..Config::default() }),
        tx_ports: [LOOPBACK].into(),
    })
}

/// Fills, rewrites, shrinks and empties the tables, and reads them back each time.
fn each_difference_arrives() -> Result<()> {
    let (mut maps, ids) = tables(MAX_EIPS)?;
    let mut held = maps.read()?;
    assert_eq!(held, Tables::default());
    let (full, other, less) = (filled(MANY, 1)?, filled(MANY, 2)?, filled(MANY / 3, 2)?);
    for want in [&full, &other, &less, &other, &Tables::default()] {
        maps.write(&diff(want, &held))?;
        held = maps.read()?;
        assert!(held == *want, "what was written is not what is read");
        // By the kernel's plain calls, one row each.
        let eips: HashMap<_, EipKey, Eip> = by_id(ids[name::EIPS])?.try_into()?;
        assert!(eips.iter().collect::<Result<BTreeMap<_, _>, _>>()? == want.eips);
    }
    Ok(())
}

#[test]
fn each_difference_arrives_in_batches() -> Result<()> {
    each_difference_arrives()
}

#[test]
fn each_difference_arrives_row_by_row_where_the_kernel_has_no_batches() -> Result<()> {
    without_batches(each_difference_arrives)
}

#[test]
fn an_interface_that_has_gone_is_none_to_send_by_and_no_error() -> Result<()> {
    let (mut maps, _) = tables(MAX_EIPS)?;
    maps.write(&[TableOp::PutTxPort(u32::MAX / 2), TableOp::PutTxPort(LOOPBACK)])?;
    assert_eq!(maps.read()?.tx_ports, [LOOPBACK].into());
    maps.write(&[TableOp::DeleteTxPort(u32::MAX / 2), TableOp::DeleteTxPort(LOOPBACK)])?;
    assert!(maps.read()?.tx_ports.is_empty());
    Ok(())
}

/// Writes more rows of `eips` than there is room for: what is said, and the rows that are in then.
fn overflow(room: u32, wanted: u32) -> Result<(String, BTreeMap<EipKey, Eip>)> {
    let (mut maps, _) = tables(room)?;
    let eips = (0..wanted).map(|index| TableOp::PutEip(eip(index), eip_row(index)));
    let after = TableOp::PutConfig(Config { abi: 1, ..Config::default() });
    let refused = maps.write(&eips.chain([after]).collect::<Vec<_>>());
    let held = maps.read()?;
    assert_eq!(held.config, None, "nothing is written behind a row that was refused");
    Ok((refused.err().context("there is no room for all")?.to_string(), held.eips))
}

#[test]
fn a_full_table_takes_what_it_has_room_for_and_says_which_it_is() -> Result<()> {
    for (room, wanted) in [(100, 150), (6_000, 9_000), (8_192, 8_193)] {
        let (error, held) = overflow(room, wanted)?;
        let first: BTreeMap<_, _> = (0..room).map(|index| (eip(index), eip_row(index))).collect();
        assert!(held == first, "{room}: the first rows are in, no others");
        assert_eq!(error, "table eips: `bpf_map_update_elem` failed: Argument list too long (os error 7)");
        assert!((error, held) == without_batches(|| overflow(room, wanted))?, "{room}: as row by row");
    }
    Ok(())
}

#[test]
fn deleting_goes_on_behind_rows_that_are_not_there() -> Result<()> {
    let (mut maps, _) = tables(MAX_EIPS)?;
    let there = (0..MANY).filter(|index| index % 997 != 0);
    maps.write(&there.map(|index| TableOp::PutEip(eip(index), eip_row(index))).collect::<Vec<_>>())?;
    maps.write(&(0..MANY - 5).map(|index| TableOp::DeleteEip(eip(index))).collect::<Vec<_>>())?;
    let left: BTreeMap<_, _> = (MANY - 5..MANY).map(|index| (eip(index), eip_row(index))).collect();
    assert_eq!(maps.read()?.eips, left);
    Ok(())
}

/// Counts in some slots, resets most of them; which of them still hold what was counted.
fn reset() -> Result<Vec<u32>> {
    let (mut maps, ids) = tables(MAX_EIPS)?;
    let mut counters: Array<_, EipCounter> = by_id(ids[name::EIP_COUNTERS])?.try_into()?;
    let counted = EipCounter { in_packets: 1, out_bytes: 2, last_seen_ns: 3, ..EipCounter::default() };
    let slots = [0, 1, 4095, 4096, 7_000, MANY - 1, MANY, MAX_EIPS - 1];
    for slot in slots {
        for cpu in 0..CPUS {
            counters.set(counter_row(MAX_EIPS, cpu, slot), counted, 0)?;
        }
    }
    maps.write(&(1..MANY).map(TableOp::ResetCounter).collect::<Vec<_>>())?;
    let mut left = Vec::new();
    let whole = EipCounter::total(&[counted; CPUS as usize]);
    for (slot, counter) in maps.eip_counters(slots)? {
        assert!(counter == whole || counter == EipCounter::default(), "slot {slot}: {counter:?}");
        left.extend((counter == whole).then_some(slot));
    }
    let all = maps.eip_counters(0..MAX_EIPS)?;
    let counted = all.iter().filter(|(_, counter)| **counter == whole).map(|(slot, _)| *slot);
    assert_eq!((all.len(), counted.collect::<Vec<_>>()), (MAX_EIPS as usize, left.clone()), "a full table");
    assert_eq!(maps.eip_counters([])?, BTreeMap::new(), "no slots");
    Ok(left)
}

#[test]
fn counters_are_reset_on_every_cpu_and_no_others() -> Result<()> {
    assert_eq!(reset()?, [0, MANY, MAX_EIPS - 1]);
    assert_eq!(without_batches(reset)?, [0, MANY, MAX_EIPS - 1]);
    Ok(())
}

#[test]
fn a_slot_past_the_last_is_an_error_that_names_the_table() -> Result<()> {
    let (mut maps, _) = tables(MAX_EIPS)?;
    let refused = maps.write(&[0, 1, MAX_EIPS, 2].map(TableOp::ResetCounter));
    let error = refused.err().context("there is no such slot")?.to_string();
    assert!(error.starts_with("table eip_counters: "), "{error}");
    Ok(())
}
