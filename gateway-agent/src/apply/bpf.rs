//! The BPF object, and the pinned tables it shares with us.

mod batch;
mod counters;
mod object;
mod pins;
mod table;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, DevMapHash, LpmTrie, Map, MapData, MapError, PerCpuArray};
use aya::{Ebpf, EbpfError};
use gateway_common::addr::Prefix;
use gateway_common::direct::Direct;
use gateway_common::tables::{
    Config, DirectEip, DirectNeighbor, DirectPod, Eip, EipCounter, EipKey, Internal, Neighbor, NeighborKey,
    Pod, PodKey, VerdictCounter, Vtep, VtepKey, name,
};

use self::counters::Counters;
use self::table::Table;
use super::causes;
use crate::tables::{TableFull, Tables};

pub use object::{Object, elf};
pub(crate) use pins::remove;
pub use pins::{are_pinned, link_pin, prepare, remove_dir, remove_maps};

/// Why tables or programs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// This agent was built without one.
    #[error(
        "this gateway-agent has no BPF object inside; build it by `cargo xtask build`, or name one with --object"
    )]
    NoObject,
    /// `--object`.
    #[error("cannot read BPF object {path}: {source}; check --object")]
    ReadObject {
        /// Its path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The kernel refused maps or object.
    #[error(
        "cannot load the BPF object: {}; it needs root (CAP_BPF, CAP_NET_ADMIN) and Linux 6.1 or newer",
        causes(source)
    )]
    Load {
        /// Cause.
        source: EbpfError,
    },
    /// The kernel does not say how many CPUs there may be.
    #[error("cannot read {path}: {source}; mount sysfs: mount -t sysfs sysfs /sys")]
    Cpus {
        /// What was read.
        path: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// The object is not of this agent.
    #[error("the BPF object has no map {name}; build it anew by `cargo xtask build`")]
    NoMap {
        /// Its name.
        name: &'static str,
    },
    /// Nothing is pinned.
    #[error("nothing is pinned at {path}; start `gateway-agent run`, or check --pin-path")]
    NotPinned {
        /// Path of the pin.
        path: PathBuf,
    },
    /// A map could not be read or written.
    #[error("table {name}: {}", causes(source))]
    Map {
        /// Its name.
        name: &'static str,
        /// Cause.
        source: MapError,
    },
    /// No BPF file system where one is needed.
    #[error("{path} is not on a BPF file system: {source}; mount one: mount -t bpf bpf /sys/fs/bpf")]
    NoBpffs {
        /// Directory of the pins.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// More rows are wanted than a table takes.
    #[error(transparent)]
    Full(#[from] TableFull),
    /// A pin could not be made or removed.
    #[error("cannot change {path}: {source}")]
    Pin {
        /// Path of the pin.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

impl BpfError {
    pub(crate) fn map(name: &'static str) -> impl Fn(MapError) -> Self {
        move |source| Self::Map { name, source }
    }
}

/// The pinned tables.
pub struct Maps {
    eips: Table<EipKey, Eip>,
    pods: Table<PodKey, Pod>,
    vteps: Table<VtepKey, Vtep>,
    neighbors: Table<NeighborKey, Neighbor>,
    internal: LpmTrie<MapData, [u8; 4], Internal>,
    direct_eips: table::Indexed<DirectEip>,
    direct_pods: table::Indexed<DirectPod>,
    direct_neighbors: table::Indexed<DirectNeighbor>,
    config: Array<MapData, Config>,
    eip_counters: Counters,
    verdicts: PerCpuArray<MapData, VerdictCounter>,
    tx_ports: DevMapHash<MapData>,
}

/// Programs, not yet in the kernel, and the tables they share with us.
pub struct Loaded {
    /// The object's programs.
    pub ebpf: Ebpf,
    /// Its tables: those pinned by an earlier agent where there are such.
    pub maps: Maps,
}

impl Maps {
    /// The tables, asked for by name.
    ///
    /// # Errors
    /// One of them is not to be had, or not of the type and size it should be: [`BpfError::Map`].
    pub fn new(mut get: impl FnMut(&'static str) -> Result<Map, BpfError>) -> Result<Self, BpfError> {
        Ok(Self {
            eips: Table::new(name::EIPS, get(name::EIPS)?)?,
            pods: Table::new(name::PODS, get(name::PODS)?)?,
            vteps: Table::new(name::VTEPS, get(name::VTEPS)?)?,
            neighbors: Table::new(name::NEIGHBORS, get(name::NEIGHBORS)?)?,
            internal: typed(name::INTERNAL, get(name::INTERNAL)?)?,
            direct_eips: table::Indexed::new(name::DIRECT_EIPS, get(name::DIRECT_EIPS)?)?,
            direct_pods: table::Indexed::new(name::DIRECT_PODS, get(name::DIRECT_PODS)?)?,
            direct_neighbors: table::Indexed::new(name::DIRECT_NEIGHBORS, get(name::DIRECT_NEIGHBORS)?)?,
            config: typed(name::CONFIG, get(name::CONFIG)?)?,
            eip_counters: Counters::new(get(name::EIP_COUNTERS)?)?,
            verdicts: typed(name::VERDICTS, get(name::VERDICTS)?)?,
            tx_ports: typed(name::TX_PORTS, get(name::TX_PORTS)?)?,
        })
    }

    /// Opens the pinned tables, with or without an agent running.
    ///
    /// # Errors
    /// [`BpfError::NotPinned`], [`BpfError::Map`].
    pub fn open(pin: &Path) -> Result<Self, BpfError> {
        Self::new(|name| {
            let path = pin.join(name);
            if !path.exists() {
                return Err(BpfError::NotPinned { path });
            }
            let data = MapData::from_pin(&path).map_err(BpfError::map(name))?;
            Map::from_map_data(data).map_err(BpfError::map(name))
        })
    }

    /// All rows but the counters.
    ///
    /// # Errors
    /// [`BpfError::Map`].
    pub fn read(&self) -> Result<Tables, BpfError> {
        let direct = Direct {
            eips: self.direct_eips.read()?,
            pods: self.direct_pods.read()?,
            neighbors: self.direct_neighbors.read()?,
        };
        Ok(Tables { direct, ..self.read_sources()? })
    }

    /// All rows but the counters and the direct tables. These follow from the others; as arrays, they are read whole, which
    /// takes its time.
    ///
    /// # Errors
    /// [`BpfError::Map`].
    pub fn read_sources(&self) -> Result<Tables, BpfError> {
        let config = self.config.get(&0, 0).map_err(BpfError::map(name::CONFIG))?;
        let internal = self.internal.keys().collect::<Result<Vec<Key<[u8; 4]>>, _>>();
        Ok(Tables {
            eips: self.eips.read()?,
            pods: self.pods.read()?,
            vteps: self.vteps.read()?,
            neighbors: self.neighbors.read()?,
            internal: internal.map_err(BpfError::map(name::INTERNAL))?.iter().map(prefix).collect(),
            direct: Direct::default(),
            tx_ports: self
                .tx_ports
                .keys()
                .collect::<Result<_, _>>()
                .map_err(BpfError::map(name::TX_PORTS))?,
            config: (config.abi != 0).then_some(config),
        })
    }

    /// The counters of slots, each summed over the CPUs.
    ///
    /// # Errors
    /// [`BpfError::Map`].
    pub fn eip_counters(
        &self,
        slots: impl IntoIterator<Item = u32>,
    ) -> Result<BTreeMap<u32, EipCounter>, BpfError> {
        self.eip_counters.read(slots)
    }

    /// All counters of verdicts, by row, summed over the CPUs.
    ///
    /// # Errors
    /// [`BpfError::Map`].
    pub fn verdict_counters(&self) -> Result<Vec<VerdictCounter>, BpfError> {
        let rows = self.verdicts.iter().map(|row| row.map(|cpus| VerdictCounter::total(cpus.iter())));
        rows.collect::<Result<_, _>>().map_err(BpfError::map(name::VERDICTS))
    }
}

fn typed<T: TryFrom<Map, Error = MapError>>(name: &'static str, map: Map) -> Result<T, BpfError> {
    T::try_from(map).map_err(BpfError::map(name))
}

fn prefix(key: &Key<[u8; 4]>) -> Prefix {
    Prefix::new(key.data().into(), u8::try_from(key.prefix_len()).unwrap_or(u8::MAX))
}
