//! Writes to the pinned tables.

use std::mem::discriminant;

use aya::maps::lpm_trie::Key;
use gateway_common::addr::Prefix;
use gateway_common::tables::{Config, Internal, name};
use tracing::debug;

use super::super::causes;
use super::table::absent_is_fine;
use super::{BpfError, Maps};
use crate::tables::TableOp;

/// What the writes of one kind carry.
macro_rules! each {
    ($run:expr, $kind:ident($($field:ident),+)) => {
        $run.iter().filter_map(|op| if let TableOp::$kind($($field),+) = *op { Some(($($field),+)) } else { None })
    };
}

impl Maps {
    /// Carries out writes in their order, those of one kind in a row together. At an error, those before it are
    /// written, and of those behind it none.
    ///
    /// # Errors
    /// [`BpfError::Map`]. Deleting a row that is not there is none.
    pub fn write(&mut self, ops: &[TableOp]) -> Result<(), BpfError> {
        ops.chunk_by(|one, next| discriminant(one) == discriminant(next))
            .try_for_each(|run| self.write_run(run))
    }

    /// Writes of one kind.
    fn write_run(&mut self, run: &[TableOp]) -> Result<(), BpfError> {
        let Some(first) = run.first() else { return Ok(()) };
        match first {
            TableOp::ClearConfig => self.put_config(Config::default()),
            TableOp::PutConfig(_) => each!(run, PutConfig(row)).try_for_each(|row| self.put_config(row)),
            TableOp::ResetCounter(_) => self.eip_counters.reset(each!(run, ResetCounter(slot))),
            TableOp::PutVtep(..) => self.vteps.put(each!(run, PutVtep(key, row))),
            TableOp::DeleteVtep(_) => self.vteps.delete(each!(run, DeleteVtep(key))),
            TableOp::PutInternal(_) => each!(run, PutInternal(prefix)).try_for_each(|prefix| {
                let result = self.internal.insert(&key(prefix), Internal { present: 1 }, 0);
                result.map_err(BpfError::map(name::INTERNAL))
            }),
            TableOp::DeleteInternal(_) => each!(run, DeleteInternal(prefix)).try_for_each(|prefix| {
                absent_is_fine(self.internal.remove(&key(prefix))).map_err(BpfError::map(name::INTERNAL))
            }),
            TableOp::PutNeighbor(..) => self.neighbors.put(each!(run, PutNeighbor(key, row))),
            TableOp::DeleteNeighbor(_) => self.neighbors.delete(each!(run, DeleteNeighbor(key))),
            TableOp::PutPod(..) => self.pods.put(each!(run, PutPod(key, row))),
            TableOp::DeletePod(_) => self.pods.delete(each!(run, DeletePod(key))),
            TableOp::PutEip(..) => self.eips.put(each!(run, PutEip(key, row))),
            TableOp::PutDirectEip(..) => self.direct_eips.put(each!(run, PutDirectEip(key, row))),
            TableOp::PutDirectPod(..) => self.direct_pods.put(each!(run, PutDirectPod(key, row))),
            TableOp::PutDirectNeighbor(..) => {
                self.direct_neighbors.put(each!(run, PutDirectNeighbor(key, row)))
            }
            TableOp::PutTxPort(_) => {
                each!(run, PutTxPort(ifindex)).for_each(|ifindex| self.put_tx_port(ifindex));
                Ok(())
            }
            TableOp::DeleteTxPort(_) => each!(run, DeleteTxPort(ifindex)).try_for_each(|ifindex| {
                absent_is_fine(self.tx_ports.remove(ifindex)).map_err(BpfError::map(name::TX_PORTS))
            }),
            TableOp::DeleteEip(_) => self.eips.delete(each!(run, DeleteEip(key))),
        }
    }

    /// One that is refused, as an interface is that has just gone, stops nothing else: the kernel then looks for the interface
    /// itself, packet by packet. The next time that all is compared it is tried again.
    fn put_tx_port(&mut self, ifindex: u32) {
        if let Err(error) = self.tx_ports.insert(ifindex, ifindex, None, 0) {
            debug!(ifindex, error = causes(&error), "not among {}", name::TX_PORTS);
        }
    }

    fn put_config(&mut self, row: Config) -> Result<(), BpfError> {
        self.config.set(0, row, 0).map_err(BpfError::map(name::CONFIG))
    }
}

fn key(prefix: Prefix) -> Key<[u8; 4]> {
    Key::new(u32::from(prefix.len), prefix.network().octets())
}
