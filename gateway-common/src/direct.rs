//! The direct tables: what the others hold, by the low bits of an address, where the fast path finds it without hashing.

use std::collections::BTreeMap;

use crate::addr::Prefix;
use crate::inside;
use crate::tables::{
    CONFIG_ALL_EIPS_DIRECT, CONFIG_ALL_PODS_DIRECT, Config, DirectEip, DirectNeighbor, DirectPod, Eip,
    EipKey, Neighbor, NeighborKey, Pod, PodKey, VTEP_GATEWAY, VTEP_RESOLVED, Vtep, VtepKey, direct_row,
};

/// Rows of the direct tables, those that hold something.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Direct {
    /// `direct_eips`.
    pub eips: BTreeMap<u32, DirectEip>,
    /// `direct_pods`.
    pub pods: BTreeMap<u32, DirectPod>,
    /// `direct_neighbors`.
    pub neighbors: BTreeMap<u32, DirectNeighbor>,
}

/// The tables that they follow from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// `eips`.
    pub eips: &'a BTreeMap<EipKey, Eip>,
    /// `pods`.
    pub pods: &'a BTreeMap<PodKey, Pod>,
    /// `vteps`.
    pub vteps: &'a BTreeMap<VtepKey, Vtep>,
    /// `neighbors`.
    pub neighbors: &'a BTreeMap<NeighborKey, Neighbor>,
}

impl Direct {
    /// The rows for `mask`, which is their number minus one.
    pub fn of(sources: Sources<'_>, mask: u32) -> Self {
        let flags = |vtep: [u8; 4]| sources.vteps.get(&VtepKey { vtep }).map(|vtep| vtep.flags);
        let eips = sources.eips.iter().map(|(EipKey { eip }, row)| {
            let vtep = sources.vteps.get(&VtepKey { vtep: row.vtep });
            (*eip, direct_eip(*eip, row, vtep))
        });
        // Of a node that is not known, nothing is taken: such a pod is left to the tables with all the answers.
        let pods = sources.pods.iter().map(|(PodKey { pod_ip }, row)| {
            let known = row.vtep == [0; 4] || flags(row.vtep).is_some();
            (*pod_ip, known.then(|| direct_pod(*pod_ip, row, flags(row.gateway))))
        });
        let neighbors = sources.neighbors.iter().map(|(NeighborKey { addr }, row)| {
            (*addr, DirectNeighbor { addr: *addr, mac: row.mac, reserved: [0; 2] })
        });
        Self {
            eips: by_row(eips, mask),
            pods: by_row(pods.filter_map(|(pod_ip, row)| Some((pod_ip, row?))), mask),
            neighbors: by_row(neighbors, mask),
        }
    }

    /// `config` with what it says of the other tables: of the direct ones that they are complete, and what is inside.
    pub fn config(
        &self,
        sources: Sources<'_>,
        internal: impl IntoIterator<Item = Prefix>,
        config: Config,
    ) -> Config {
        let pods = sources.pods.keys().map(|key| Prefix::host(key.pod_ip.into()));
        let [inside_networks, inside_netmasks] = inside::ranges(internal.into_iter().chain(pods));
        let flags = config.flags | self.config_flags(sources);
        Config { flags, inside_networks, inside_netmasks, ..config }
    }

    /// `CONFIG_ALL_EIPS_DIRECT` and `CONFIG_ALL_PODS_DIRECT`, as they are true.
    pub fn config_flags(&self, sources: Sources<'_>) -> u32 {
        let flag = |all, flag| if all { flag } else { 0 };
        flag(self.eips.len() == sources.eips.len(), CONFIG_ALL_EIPS_DIRECT)
            | flag(self.pods.len() == sources.pods.len(), CONFIG_ALL_PODS_DIRECT)
    }
}

/// The first of those that want a row gets it. 0.0.0.0 is nobody's, and marks a row without one.
fn by_row<T>(rows: impl Iterator<Item = ([u8; 4], T)>, mask: u32) -> BTreeMap<u32, T> {
    let mut by_row = BTreeMap::new();
    for (addr, row) in rows.filter(|(addr, _)| *addr != [0; 4]) {
        by_row.entry(direct_row(addr, mask)).or_insert(row);
    }
    by_row
}

fn direct_eip(eip: [u8; 4], row: &Eip, vtep: Option<&Vtep>) -> DirectEip {
    let vtep = vtep.filter(|vtep| vtep.flags & VTEP_RESOLVED != 0).copied().unwrap_or_default();
    DirectEip {
        eip,
        pod_ip: row.pod_ip,
        vtep: row.vtep,
        slot: row.slot,
        ifindex: vtep.ifindex,
        destination_mac: vtep.destination_mac,
        source_mac: vtep.source_mac,
    }
}

fn direct_pod(pod_ip: [u8; 4], row: &Pod, gateway_flags: Option<u32>) -> DirectPod {
    let is_gateway = gateway_flags.is_some_and(|flags| flags & VTEP_GATEWAY != 0);
    let gateway = if is_gateway { row.gateway } else { [0; 4] };
    DirectPod { pod_ip, eip: row.eip, vtep: row.vtep, gateway, slot: row.slot }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: [u8; 4] = [172, 18, 0, 21];
    const GATEWAY: [u8; 4] = [172, 18, 0, 11];

    struct Rows {
        eips: BTreeMap<EipKey, Eip>,
        pods: BTreeMap<PodKey, Pod>,
        vteps: BTreeMap<VtepKey, Vtep>,
        neighbors: BTreeMap<NeighborKey, Neighbor>,
    }

    impl Rows {
        fn new(eips: &[[u8; 4]], pods: &[[u8; 4]]) -> Self {
            let eip = Eip { pod_ip: [10, 0, 0, 1], vtep: NODE, slot: 7, flags: 0 };
            let pod = Pod { eip: [192, 0, 2, 1], vtep: NODE, gateway: GATEWAY, slot: 7, flags: 0 };
            Self {
                eips: eips.iter().map(|key| (EipKey { eip: *key }, eip)).collect(),
                pods: pods.iter().map(|key| (PodKey { pod_ip: *key }, pod)).collect(),
                vteps: BTreeMap::new(),
                neighbors: BTreeMap::new(),
            }
        }

        fn sources(&self) -> Sources<'_> {
            Sources { eips: &self.eips, pods: &self.pods, vteps: &self.vteps, neighbors: &self.neighbors }
        }

        fn direct(&self) -> Direct {
            Direct::of(self.sources(), 0xffff)
        }
    }

    #[test]
    fn the_lower_of_two_addresses_gets_the_row_and_the_flag_says_that_one_is_missing() {
        let mut rows = Rows::new(&[[192, 0, 2, 1], [198, 51, 2, 1]], &[]);
        let direct = rows.direct();
        assert_eq!(direct.eips.values().map(|row| row.eip).collect::<std::vec::Vec<_>>(), [[192, 0, 2, 1]]);
        assert_eq!(direct.config_flags(rows.sources()), CONFIG_ALL_PODS_DIRECT);
        rows.eips.pop_first();
        let both = CONFIG_ALL_EIPS_DIRECT | CONFIG_ALL_PODS_DIRECT;
        assert_eq!(rows.direct().config_flags(rows.sources()), both);
    }

    #[test]
    fn without_a_next_hop_there_is_no_interface() {
        let mut rows = Rows::new(&[[192, 0, 2, 1]], &[]);
        let ifindex = |rows: &Rows| rows.direct().eips.values().map(|row| row.ifindex).sum::<u32>();
        rows.vteps.insert(VtepKey { vtep: NODE }, Vtep::unresolved(0));
        assert_eq!(ifindex(&rows), 0);
        let (from, to) = (crate::addr::Mac([2; 6]), crate::addr::Mac([4; 6]));
        rows.vteps.insert(VtepKey { vtep: NODE }, Vtep::resolved(0, 9, from, to));
        assert_eq!(ifindex(&rows), 9);
    }

    #[test]
    fn a_pod_wants_a_known_node_and_its_gateway_one_that_is_a_gateway() {
        let mut rows = Rows::new(&[], &[[10, 0, 0, 1]]);
        assert!(rows.direct().pods.is_empty());
        rows.vteps.insert(VtepKey { vtep: NODE }, Vtep::unresolved(0));
        rows.vteps.insert(VtepKey { vtep: GATEWAY }, Vtep::unresolved(0));
        let gateway = |rows: &Rows| rows.direct().pods.values().next().map(|row| row.gateway);
        assert_eq!(gateway(&rows), Some([0; 4]));
        rows.vteps.insert(VtepKey { vtep: GATEWAY }, Vtep::unresolved(VTEP_GATEWAY));
        assert_eq!(gateway(&rows), Some(GATEWAY));
    }
}
