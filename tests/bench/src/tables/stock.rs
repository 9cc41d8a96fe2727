//! The tables in the kernel, as the agent has them and one row at a time.

use std::{collections::BTreeMap, fs, ops::Range, path::Path};

use anyhow::{Context, Result, bail};
use aya::{
    EbpfLoader,
    maps::{HashMap, Map, MapData},
};
use gateway_agent::{
    apply::bpf::{BpfError, Maps},
    tables::{TableOp, Tables, diff},
};
use gateway_common::tables::{Eip, EipKey, MAX_EIPS, Pod, PodKey, name};

/// The first EIP and the first pod; the others follow.
const FIRST: (u32, u32) = (0x6440_0000, 0x0a00_0000);

/// Rows of some EIPs, by number, all on one node.
pub(super) fn rows(of: Range<u32>, node: u8) -> impl Iterator<Item = (EipKey, Eip, (PodKey, Pod))> {
    let vtep = [172, 18, 0, node];
    of.map(move |index| {
        let (eip, pod_ip) = ((FIRST.0 + index).to_be_bytes(), (FIRST.1 + index).to_be_bytes());
        // There are counters for as many as the agent serves.
        let slot = index % MAX_EIPS;
        let pod = Pod { eip, vtep, gateway: [0; 4], slot, flags: 0 };
        (EipKey { eip }, Eip { pod_ip, vtep, slot, flags: 0 }, (PodKey { pod_ip }, pod))
    })
}

/// Loaded tables.
pub(super) struct Stock {
    /// As the agent has them.
    pub(super) maps: Maps,
    eips: HashMap<MapData, EipKey, Eip>,
    pods: HashMap<MapData, PodKey, Pod>,
}

impl Stock {
    /// With room for so many EIPs.
    pub(super) fn load(object: &Path, eips: u32) -> Result<Self> {
        let bytes = fs::read(object).with_context(|| format!("reading {}", object.display()))?;
        let mut loader = EbpfLoader::new();
        for table in [name::EIPS, name::PODS] {
            loader.map_max_entries(table, eips.max(MAX_EIPS));
        }
        let mut ebpf = loader.load(&bytes)?;
        let another = |name| -> Result<Map> {
            let Some(Map::HashMap(data)) = ebpf.map(name) else { bail!("{name} is no hash") };
            Ok(Map::from_map_data(MapData::from_id(data.info()?.id())?)?)
        };
        let (eips, pods) = (another(name::EIPS)?.try_into()?, another(name::PODS)?.try_into()?);
        let maps = Maps::new(|name| ebpf.take_map(name).ok_or(BpfError::NoMap { name }))?;
        Ok(Self { maps, eips, pods })
    }

    /// Carries out writes of `eips` and `pods`, a system call each.
    pub(super) fn single(&mut self, ops: &[TableOp]) -> Result<()> {
        for op in ops {
            if let TableOp::PutEip(key, row) = *op {
                self.eips.insert(key, row, 0)?;
            } else if let TableOp::PutPod(key, row) = *op {
                self.pods.insert(key, row, 0)?;
            } else if let TableOp::DeleteEip(key) = *op {
                self.eips.remove(&key)?;
            } else {
                bail!("{op:?} is not among what is measured");
            }
        }
        Ok(())
    }

    /// Reads `eips` and `pods`, two system calls a row.
    pub(super) fn read_single(&self) -> Result<()> {
        let eips = self.eips.iter().collect::<Result<BTreeMap<_, _>, _>>()?;
        let pods = self.pods.iter().collect::<Result<BTreeMap<_, _>, _>>()?;
        drop((eips, pods));
        Ok(())
    }

    /// Makes `eips` hold these rows alone.
    pub(super) fn put_back(&mut self, eips: &BTreeMap<EipKey, Eip>) -> Result<()> {
        let held = self.maps.read()?;
        let want = Tables { eips: eips.clone(), ..held.clone() };
        Ok(self.maps.write(&diff(&want, &held))?)
    }

    /// Makes all tables empty.
    pub(super) fn empty(&mut self) -> Result<()> {
        let held = self.maps.read()?;
        Ok(self.maps.write(&diff(&Tables::default(), &held))?)
    }
}
