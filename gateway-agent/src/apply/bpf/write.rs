//! Writes to the pinned tables.

use aya::maps::lpm_trie::Key;
use aya::maps::{MapError, PerCpuValues};
use aya::util::nr_cpus;
use gateway_common::addr::Prefix;
use gateway_common::tables::{Config, EipCounter, Internal, name};

use super::{BpfError, Maps};
use crate::tables::TableOp;

impl Maps {
    /// Carries out one write.
    ///
    /// # Errors
    /// [`BpfError::Map`]. Deleting a row that is not there is none.
    pub fn write(&mut self, op: &TableOp) -> Result<(), BpfError> {
        let (table, result) = match *op {
            TableOp::ClearConfig => (name::CONFIG, self.config.set(0, Config::default(), 0)),
            TableOp::PutConfig(row) => (name::CONFIG, self.config.set(0, row, 0)),
            TableOp::ResetCounter(slot) => (name::EIP_COUNTERS, self.reset_counter(slot)),
            TableOp::PutVtep(key, row) => (name::VTEPS, self.vteps.insert(key, row, 0)),
            TableOp::DeleteVtep(key) => (name::VTEPS, absent_is_fine(self.vteps.remove(&key))),
            TableOp::PutInternal(prefix) => {
                (name::INTERNAL, self.internal.insert(&key(prefix), Internal { present: 1 }, 0))
            }
            TableOp::DeleteInternal(prefix) => {
                (name::INTERNAL, absent_is_fine(self.internal.remove(&key(prefix))))
            }
            TableOp::PutNeighbor(key, row) => (name::NEIGHBORS, self.neighbors.insert(key, row, 0)),
            TableOp::DeleteNeighbor(key) => (name::NEIGHBORS, absent_is_fine(self.neighbors.remove(&key))),
            TableOp::PutPod(key, row) => (name::PODS, self.pods.insert(key, row, 0)),
            TableOp::DeletePod(key) => (name::PODS, absent_is_fine(self.pods.remove(&key))),
            TableOp::PutEip(key, row) => (name::EIPS, self.eips.insert(key, row, 0)),
            TableOp::DeleteEip(key) => (name::EIPS, absent_is_fine(self.eips.remove(&key))),
        };
        result.map_err(BpfError::map(table))
    }

    fn reset_counter(&mut self, slot: u32) -> Result<(), MapError> {
        let cpus = nr_cpus().map_err(|(_, error)| MapError::IoError(error))?;
        let zeros = PerCpuValues::try_from(vec![EipCounter::default(); cpus]).map_err(MapError::IoError)?;
        self.eip_counters.set(slot, zeros, 0)
    }
}

fn key(prefix: Prefix) -> Key<[u8; 4]> {
    Key::new(u32::from(prefix.len), prefix.network().octets())
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
