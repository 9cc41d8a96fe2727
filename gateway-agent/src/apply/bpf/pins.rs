//! The directory of the pins.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData, MapInfo};
use aya_obj::generated::bpf_devmap_val;
use gateway_common::ABI_VERSION;
use gateway_common::limit::BUDGET_ROWS;
use gateway_common::tables::{
    Budget, Config, DIRECT_ROWS, DirectEip, DirectNeighbor, DirectPod, Eip, EipCounter, EipKey, Internal,
    MAX_EIPS, MAX_INTERNAL, MAX_NEIGHBORS, MAX_TX_PORTS, MAX_VTEPS, Neighbor, NeighborKey, Pod, PodKey,
    VERDICT_ROWS, VerdictCounter, Vtep, VtepKey, counter_row, name,
};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use tracing::info;

use super::BpfError;
use crate::desired::Hook;

/// Where the BPF file system usually is.
const BPFFS: &str = "/sys/fs/bpf";

/// Path of the pinned link of a hook.
pub fn link_pin(pin: &Path, hook: Hook) -> PathBuf {
    pin.join(format!("link_{}", hook.program()))
}

/// Makes the directory of the pins; mounts the BPF file system at /sys/fs/bpf where there is none.
///
/// # Errors
/// [`BpfError::NoBpffs`], [`BpfError::Pin`].
pub fn prepare(pin: &Path) -> Result<(), BpfError> {
    if pin.starts_with(BPFFS) && !is_bpffs(Path::new(BPFFS)) {
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
            .map_err(|errno| BpfError::NoBpffs { path: pin.to_owned(), source: errno.into() })?;
        info!("BPF file system mounted at {BPFFS}");
    }
    let above = pin.ancestors().find(|path| path.exists()).unwrap_or(pin);
    if !is_bpffs(above) {
        let source = io::Error::new(io::ErrorKind::Unsupported, "it is another file system");
        return Err(BpfError::NoBpffs { path: pin.to_owned(), source });
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(pin)
        .map_err(|source| BpfError::Pin { path: pin.to_owned(), source })
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC)
}

/// Removes the pins of the tables. Returns how many there were.
///
/// # Errors
/// [`BpfError::Pin`].
pub fn remove_maps(pin: &Path) -> Result<usize, BpfError> {
    let mut removed = 0;
    for map in name::ALL {
        removed += usize::from(remove(&pin.join(map))?);
    }
    Ok(removed)
}

/// Whether all tables are pinned.
pub fn are_pinned(pin: &Path) -> bool {
    name::ALL.iter().all(|map| pin.join(map).exists())
}

/// Removes a pin. Returns whether there was one.
///
/// # Errors
/// [`BpfError::Pin`].
pub(crate) fn remove(path: &Path) -> Result<bool, BpfError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(BpfError::Pin { path: path.to_owned(), source }),
    }
}

/// Removes the directory of the pins when it is empty.
pub fn remove_dir(pin: &Path) {
    // One that is not there or holds something else stays as it is.
    let _ = fs::remove_dir(pin);
}

/// Key size, value size and capacity of a table.
type Shape = (u32, u32, u32);

const fn shape<K, V>(capacity: u32) -> Shape {
    #[expect(clippy::cast_possible_truncation, reason = "rows are tens of bytes")]
    (size_of::<K>() as u32, size_of::<V>() as u32, capacity)
}

fn shapes(cpus: u32) -> [(&'static str, Shape); 13] {
    [
        (name::EIPS, shape::<EipKey, Eip>(MAX_EIPS)),
        (name::PODS, shape::<PodKey, Pod>(MAX_EIPS)),
        (name::VTEPS, shape::<VtepKey, Vtep>(MAX_VTEPS)),
        (name::NEIGHBORS, shape::<NeighborKey, Neighbor>(MAX_NEIGHBORS)),
        (name::INTERNAL, shape::<[u32; 2], Internal>(MAX_INTERNAL)),
        (name::DIRECT_EIPS, shape::<u32, DirectEip>(DIRECT_ROWS)),
        (name::DIRECT_PODS, shape::<u32, DirectPod>(DIRECT_ROWS)),
        (name::DIRECT_NEIGHBORS, shape::<u32, DirectNeighbor>(DIRECT_ROWS)),
        (name::CONFIG, shape::<u32, Config>(1)),
        (name::EIP_COUNTERS, shape::<u32, EipCounter>(counter_row(MAX_EIPS, cpus, 0))),
        (name::VERDICTS, shape::<u32, VerdictCounter>(VERDICT_ROWS)),
        (name::BUDGETS, shape::<u32, Budget>(BUDGET_ROWS)),
        (name::TX_PORTS, shape::<u32, bpf_devmap_val>(MAX_TX_PORTS)),
    ]
}

/// What makes the pinned tables useless for this agent on a machine that may have so many CPUs; `None` when nothing does.
///
/// # Errors
/// [`BpfError::Map`] when a pin cannot be opened.
pub(super) fn incompatible(pin: &Path, cpus: u32) -> Result<Option<String>, BpfError> {
    for (map, expected) in shapes(cpus) {
        let path = pin.join(map);
        if !path.exists() {
            continue;
        }
        let info = MapInfo::from_pin(&path).map_err(BpfError::map(map))?;
        let found = (info.key_size(), info.value_size(), info.max_entries());
        if found != expected {
            return Ok(Some(format!("{map}: key, value, rows {found:?}, expected {expected:?}")));
        }
    }
    let path = pin.join(name::CONFIG);
    if !path.exists() {
        return Ok(None);
    }
    let failed = BpfError::map(name::CONFIG);
    let map = Map::from_map_data(MapData::from_pin(&path).map_err(&failed)?).map_err(&failed)?;
    let config: Array<MapData, Config> = Array::try_from(map).map_err(&failed)?;
    let abi = config.get(&0, 0).map_err(&failed)?.abi;
    let other = abi != 0 && abi != ABI_VERSION;
    Ok(other.then(|| format!("ABI version {abi}, expected {ABI_VERSION}")))
}
