//! The pinned tables as plain rows: what a [`Datapath`] wants in them, and the steps there from what they hold.

mod external;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use gateway_common::addr::Prefix;
use gateway_common::direct::{Direct, Sources};
use gateway_common::tables::{
    CONFIG_ALL_EIPS_DIRECT, CONFIG_ALL_PODS_DIRECT, CONFIG_XDP_TO_EXTERNAL, CONFIG_XDP_TO_UNDERLAY, Config,
    DIRECT_ROWS, DirectEip, DirectNeighbor, DirectPod, Eip, EipKey, MAX_EIPS, MAX_INTERNAL, MAX_NEIGHBORS,
    MAX_TX_PORTS, MAX_VTEPS, Neighbor, NeighborKey, Pod, PodKey, Vtep, VtepKey, direct_row, name,
};

use crate::desired::Datapath;

pub use self::external::{has_external_side, share_external_side, with_external_side, without_external_side};

/// Rows of the tables the agent writes, as the kernel holds them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tables {
    /// `eips`.
    pub eips: BTreeMap<EipKey, Eip>,
    /// `pods`.
    pub pods: BTreeMap<PodKey, Pod>,
    /// `vteps`.
    pub vteps: BTreeMap<VtepKey, Vtep>,
    /// `neighbors`.
    pub neighbors: BTreeMap<NeighborKey, Neighbor>,
    /// `internal`, host bits cleared.
    pub internal: BTreeSet<Prefix>,
    /// The direct tables, their rows that hold something.
    pub direct: Direct,
    /// `tx_ports`, by index.
    pub tx_ports: BTreeSet<u32>,
    /// Row 0 of `config`; `None` when it is all zeros.
    pub config: Option<Config>,
}

/// A table cannot take all rows.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("table {table} takes {limit} rows, {rows} are wanted; serve fewer, or build with a larger capacity")]
pub struct TableFull {
    /// Name of the table.
    pub table: &'static str,
    /// Rows wanted.
    pub rows: usize,
    /// Its capacity.
    pub limit: u32,
}

/// One write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableOp {
    /// Zero row 0 of `config`: the datapath passes everything.
    ClearConfig,
    /// Zero a row of `eip_counters` on every CPU, before an EIP takes it.
    ResetCounter(u32),
    /// Write a row of `vteps`.
    PutVtep(VtepKey, Vtep),
    /// Write a prefix of `internal`.
    PutInternal(Prefix),
    /// Write a row of `neighbors`.
    PutNeighbor(NeighborKey, Neighbor),
    /// Write a row of `pods`.
    PutPod(PodKey, Pod),
    /// Write a row of `eips`.
    PutEip(EipKey, Eip),
    /// Write a row of `direct_eips`; the default one holds nothing.
    PutDirectEip(u32, DirectEip),
    /// Write a row of `direct_pods`; the default one holds nothing.
    PutDirectPod(u32, DirectPod),
    /// Write a row of `direct_neighbors`; the default one holds nothing.
    PutDirectNeighbor(u32, DirectNeighbor),
    /// Write an interface of `tx_ports`.
    PutTxPort(u32),
    /// Write row 0 of `config`.
    PutConfig(Config),
    /// Delete a row of `eips`.
    DeleteEip(EipKey),
    /// Delete a row of `pods`.
    DeletePod(PodKey),
    /// Delete a row of `neighbors`.
    DeleteNeighbor(NeighborKey),
    /// Delete a prefix of `internal`.
    DeleteInternal(Prefix),
    /// Delete a row of `vteps`.
    DeleteVtep(VtepKey),
    /// Delete an interface of `tx_ports`.
    DeleteTxPort(u32),
}

impl Tables {
    /// EIP → pod address of all rows, for [`Snapshot::held`](crate::snapshot::Snapshot::held).
    pub fn served(&self) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
        let of_pods = self.pods.iter().map(|(key, pod)| (pod.eip.into(), key.pod_ip.into()));
        let of_eips = self.eips.iter().map(|(key, eip)| (key.eip.into(), eip.pod_ip.into()));
        of_pods.chain(of_eips).collect()
    }

    /// Carries out one write, as the kernel would.
    pub fn apply(&mut self, op: &TableOp) {
        match *op {
            TableOp::ClearConfig => self.config = None,
            TableOp::ResetCounter(_) => {}
            TableOp::PutVtep(key, row) => _ = self.vteps.insert(key, row),
            TableOp::PutInternal(prefix) => _ = self.internal.insert(prefix),
            TableOp::PutNeighbor(key, row) => _ = self.neighbors.insert(key, row),
            TableOp::PutPod(key, row) => _ = self.pods.insert(key, row),
            TableOp::PutEip(key, row) => _ = self.eips.insert(key, row),
            TableOp::PutDirectEip(key, row) => set(&mut self.direct.eips, key, row),
            TableOp::PutDirectPod(key, row) => set(&mut self.direct.pods, key, row),
            TableOp::PutDirectNeighbor(key, row) => set(&mut self.direct.neighbors, key, row),
            TableOp::PutTxPort(ifindex) => _ = self.tx_ports.insert(ifindex),
            TableOp::PutConfig(row) => self.config = Some(row),
            TableOp::DeleteEip(key) => _ = self.eips.remove(&key),
            TableOp::DeletePod(key) => _ = self.pods.remove(&key),
            TableOp::DeleteNeighbor(key) => _ = self.neighbors.remove(&key),
            TableOp::DeleteInternal(prefix) => _ = self.internal.remove(&prefix),
            TableOp::DeleteVtep(key) => _ = self.vteps.remove(&key),
            TableOp::DeleteTxPort(ifindex) => _ = self.tx_ports.remove(&ifindex),
        }
    }

    /// Which EIP counts in which slot, ascending, nothing twice.
    fn slots(&self) -> Vec<(Ipv4Addr, u32)> {
        let of_pods = self.pods.values().map(|pod| (pod.eip.into(), pod.slot));
        let of_eips = self.eips.iter().map(|(key, eip)| (key.eip.into(), eip.slot));
        let mut slots: Vec<_> = of_eips.chain(of_pods).collect();
        // Not `sort_unstable`: these are runs that ascend already.
        slots.sort();
        slots.dedup();
        slots
    }

    /// The `config` of `held` without what is no longer true of its direct tables; `None` where nothing is.
    fn not_all_direct(&self, held: &Self) -> Option<Config> {
        let (want, held) = (self.config?, held.config?);
        let untrue = held.flags & !want.flags & (CONFIG_ALL_EIPS_DIRECT | CONFIG_ALL_PODS_DIRECT);
        (untrue != 0).then_some(Config { flags: held.flags & !untrue, ..held })
    }

    /// The slots that EIPs take which do not have them in `held`, ascending.
    fn fresh_slots(&self, held: &Self) -> Vec<u32> {
        // A row that only changes otherwise has counted there before.
        let of_pods = changed(&self.pods, &held.pods)
            .filter(|(_, pod, held)| held.is_none_or(|held| (held.eip, held.slot) != (pod.eip, pod.slot)))
            .map(|(_, pod, _)| (pod.eip.into(), pod.slot));
        let of_eips = changed(&self.eips, &held.eips)
            .filter(|(_, eip, held)| held.is_none_or(|held| held.slot != eip.slot))
            .map(|(key, eip, _)| (key.eip.into(), eip.slot));
        let taken: Vec<(Ipv4Addr, u32)> = of_eips.chain(of_pods).collect();
        if taken.is_empty() {
            return Vec::new();
        }
        let known = held.slots();
        let fresh = taken.into_iter().filter(|pair| known.binary_search(pair).is_err());
        let mut fresh: Vec<u32> = fresh.map(|(_, slot)| slot).collect();
        fresh.sort();
        fresh.dedup();
        fresh
    }
}

/// The rows a data path wants. An EIP keeps the counter slot it has in `held`.
///
/// # Errors
/// A table is too small.
pub fn rows(datapath: &Datapath, held: &Tables) -> Result<Tables, TableFull> {
    let mut eips: Vec<_> =
        datapath.eips.keys().copied().chain(datapath.pods.values().map(|pod| pod.eip)).collect();
    eips.sort_unstable();
    eips.dedup();
    let slots = assign_slots(&eips, held);
    for (table, rows, limit) in [
        (name::EIPS, eips.len(), MAX_EIPS),
        (name::PODS, datapath.pods.len(), MAX_EIPS),
        (name::VTEPS, datapath.vteps.len(), MAX_VTEPS),
        (name::NEIGHBORS, datapath.neighbors.len(), MAX_NEIGHBORS),
        (name::INTERNAL, datapath.internal.len(), MAX_INTERNAL),
    ] {
        if rows > limit as usize {
            return Err(TableFull { table, rows, limit });
        }
    }
    let bytes = |addr: Option<Ipv4Addr>| addr.map_or([0; 4], |addr| addr.octets());
    let slot = |eip: &Ipv4Addr| slots.get(eip).copied().unwrap_or_default();
    let eip_row = |(eip, row): (&Ipv4Addr, &crate::desired::EipRow)| {
        let value = Eip { pod_ip: row.pod_ip.octets(), vtep: bytes(row.vtep), slot: slot(eip), flags: 0 };
        (EipKey { eip: eip.octets() }, value)
    };
    let pod_row = |(pod_ip, row): (&Ipv4Addr, &crate::desired::PodRow)| {
        let (vtep, gateway) = (bytes(row.vtep), bytes(row.gateway));
        let value = Pod { eip: row.eip.octets(), vtep, gateway, slot: slot(&row.eip), flags: 0 };
        (PodKey { pod_ip: pod_ip.octets() }, value)
    };
    Ok(with_derived(Tables {
        eips: datapath.eips.iter().map(eip_row).collect(),
        pods: datapath.pods.iter().map(pod_row).collect(),
        vteps: datapath.vteps.iter().map(|(vtep, row)| (VtepKey { vtep: vtep.octets() }, *row)).collect(),
        neighbors: datapath
            .neighbors
            .iter()
            .map(|(addr, mac)| {
                (NeighborKey { addr: addr.octets() }, Neighbor { mac: mac.0, reserved: [0; 2] })
            })
            .collect(),
        internal: datapath.internal.iter().map(|prefix| prefix.trunc()).collect(),
        config: Some(datapath.config),
        direct: Direct::default(),
        tx_ports: BTreeSet::new(),
    }))
}

/// Fills in what follows from the rest: the direct tables, what `config` says of them, and `tx_ports`.
fn with_derived(mut tables: Tables) -> Tables {
    const MASK: u32 = DIRECT_ROWS - 1;
    let Tables { eips, pods, vteps, neighbors, .. } = &tables;
    let sources = Sources { eips, pods, vteps, neighbors };
    let direct = Direct::of(sources, MASK);
    let internal = tables.internal.iter().copied();
    let config =
        tables.config.map(|row| direct.config(sources, internal, Config { direct_mask: MASK, ..row }));
    tables.config = config;
    tables.direct = direct;
    tables.tx_ports = tx_ports(tables.config.as_ref(), &tables.vteps);
    tables
}

/// The interfaces that XDP may send by: the external NIC first, by which all goes out. What there is no room for is looked up by
/// the kernel.
fn tx_ports(config: Option<&Config>, vteps: &BTreeMap<VtepKey, Vtep>) -> BTreeSet<u32> {
    let Some(config) = config else { return BTreeSet::new() };
    let may = |flag| config.flags & flag != 0;
    let external = may(CONFIG_XDP_TO_EXTERNAL).then_some(config.external_ifindex);
    let underlay = vteps.values().map(|vtep| vtep.ifindex).filter(|_| may(CONFIG_XDP_TO_UNDERLAY));
    let mut ports = BTreeSet::new();
    for ifindex in external.into_iter().chain(underlay).filter(|ifindex| *ifindex != 0) {
        if ports.len() < MAX_TX_PORTS as usize {
            ports.insert(ifindex);
        }
    }
    ports
}

/// A row of a direct table.
fn set<V: Default + PartialEq>(rows: &mut BTreeMap<u32, V>, key: u32, row: V) {
    if row == V::default() {
        rows.remove(&key);
    } else {
        rows.insert(key, row);
    }
}

/// A slot per EIP, of ascending `eips`: the one it holds, else its direct row's number, where the fast path expects it, else
/// the lowest that nobody holds, or, when there is none, that nobody wants.
fn assign_slots(eips: &[Ipv4Addr], held: &Tables) -> HashMap<Ipv4Addr, u32> {
    const { assert!(DIRECT_ROWS <= MAX_EIPS) }
    let held = held.slots();
    let mut slots = HashMap::with_capacity(eips.len());
    let (mut taken, mut known) = (vec![false; MAX_EIPS as usize], vec![false; MAX_EIPS as usize]);
    for (eip, slot) in held {
        let at = slot as usize;
        if at >= known.len() {
            continue;
        }
        known[at] = true;
        if !taken[at] && !slots.contains_key(&eip) && eips.binary_search(&eip).is_ok() {
            taken[at] = true;
            slots.insert(eip, slot);
        }
    }
    for eip in eips {
        let direct = direct_row(eip.octets(), DIRECT_ROWS - 1);
        let at = direct as usize;
        if !known[at] && !taken[at] && !slots.contains_key(eip) {
            taken[at] = true;
            slots.insert(*eip, direct);
        }
    }
    let nobody_holds = (0..MAX_EIPS).filter(|slot| !known[*slot as usize] && !taken[*slot as usize]);
    let nobody_wants = (0..MAX_EIPS).filter(|slot| known[*slot as usize] && !taken[*slot as usize]);
    let mut free = nobody_holds.chain(nobody_wants);
    for eip in eips {
        if !slots.contains_key(eip)
            && let Some(slot) = free.next()
        {
            slots.insert(*eip, slot);
        }
    }
    slots
}

/// The writes that turn `held` into `want`, in an order that mistreats no packet in between.
///
/// Counters are reset before their slot is used. What rows refer to is written before them, and a pod's way out
/// before its way in; the direct tables, copies for the fast path, behind what they are copies of; `config`, which switches
/// the datapath on, is written last, and cleared first. What it says of a direct table, that all rows are in there, it says no
/// more before a row goes. New rows are written before old ones go, in the reverse order. On `tx_ports` nothing depends; old
/// ones go first, as there may be no room for both.
pub fn diff(want: &Tables, held: &Tables) -> Vec<TableOp> {
    let mut ops = Vec::new();
    if want.config.is_none() && held.config.is_some() {
        ops.push(TableOp::ClearConfig);
    }
    ops.extend(want.fresh_slots(held).into_iter().map(TableOp::ResetCounter));
    put(&want.vteps, &held.vteps, TableOp::PutVtep, &mut ops);
    ops.extend(want.internal.difference(&held.internal).copied().map(TableOp::PutInternal));
    put(&want.neighbors, &held.neighbors, TableOp::PutNeighbor, &mut ops);
    put(&want.pods, &held.pods, TableOp::PutPod, &mut ops);
    put(&want.eips, &held.eips, TableOp::PutEip, &mut ops);
    ops.extend(want.not_all_direct(held).map(TableOp::PutConfig));
    put_direct(&want.direct.neighbors, &held.direct.neighbors, TableOp::PutDirectNeighbor, &mut ops);
    put_direct(&want.direct.pods, &held.direct.pods, TableOp::PutDirectPod, &mut ops);
    put_direct(&want.direct.eips, &held.direct.eips, TableOp::PutDirectEip, &mut ops);
    ops.extend(held.tx_ports.difference(&want.tx_ports).copied().map(TableOp::DeleteTxPort));
    ops.extend(want.tx_ports.difference(&held.tx_ports).copied().map(TableOp::PutTxPort));
    if let Some(config) = want.config
        && held.config != Some(config)
    {
        ops.push(TableOp::PutConfig(config));
    }
    delete(&want.eips, &held.eips, TableOp::DeleteEip, &mut ops);
    delete(&want.pods, &held.pods, TableOp::DeletePod, &mut ops);
    delete(&want.neighbors, &held.neighbors, TableOp::DeleteNeighbor, &mut ops);
    ops.extend(held.internal.difference(&want.internal).copied().map(TableOp::DeleteInternal));
    delete(&want.vteps, &held.vteps, TableOp::DeleteVtep, &mut ops);
    ops
}

/// Rows of `want` that `held` lacks or has otherwise, each with what `held` has.
fn changed<'a, K: Ord, V: Eq>(
    want: &'a BTreeMap<K, V>,
    held: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V, Option<&'a V>)> {
    let mut held = held.iter().peekable();
    want.iter().filter_map(move |(key, row)| {
        while held.next_if(|(held, _)| *held < key).is_some() {}
        let held = held.next_if(|(held, _)| *held == key).map(|(_, held)| held);
        (held != Some(row)).then_some((key, row, held))
    })
}

fn put<K: Ord + Copy, V: Eq + Copy>(
    want: &BTreeMap<K, V>,
    held: &BTreeMap<K, V>,
    op: fn(K, V) -> TableOp,
    ops: &mut Vec<TableOp>,
) {
    ops.extend(changed(want, held).map(|(key, row, _)| op(*key, *row)));
}

/// Rows of a direct table that `want` has otherwise, and those it lacks, which then hold nothing.
fn put_direct<V: Eq + Copy + Default>(
    want: &BTreeMap<u32, V>,
    held: &BTreeMap<u32, V>,
    op: fn(u32, V) -> TableOp,
    ops: &mut Vec<TableOp>,
) {
    put(want, held, op, ops);
    ops.extend(held.keys().filter(|row| !want.contains_key(row)).map(|row| op(*row, V::default())));
}

/// Rows of `held` that `want` lacks.
fn delete<K: Ord + Copy, V>(
    want: &BTreeMap<K, V>,
    held: &BTreeMap<K, V>,
    op: fn(K) -> TableOp,
    ops: &mut Vec<TableOp>,
) {
    let mut want = want.keys().peekable();
    ops.extend(
        held.keys()
            .filter(|key| {
                while want.next_if(|wanted| wanted < key).is_some() {}
                want.next_if(|wanted| wanted == key).is_none()
            })
            .map(|key| op(*key)),
    );
}

#[cfg(test)]
mod tests;
