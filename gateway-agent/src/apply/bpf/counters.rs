//! `eip_counters`: what each CPU counted in a slot.

use std::collections::BTreeMap;

use aya::maps::Map;
use gateway_common::tables::{EipCounter, MAX_EIPS, counter_row, name};

use super::BpfError;
use super::table::Indexed;

/// Slots between two that are wanted which are read with them: as costly as another call.
const GAP: u32 = 16;

/// The table, with [`MAX_EIPS`] slots for each CPU that the machine may have.
pub(super) struct Counters {
    rows: Indexed<EipCounter>,
}

impl Counters {
    /// As the map is.
    pub(super) fn new(map: Map) -> Result<Self, BpfError> {
        Ok(Self { rows: Indexed::new(name::EIP_COUNTERS, map)? })
    }

    /// The counters of slots, each summed over the CPUs.
    ///
    /// # Errors
    /// [`BpfError::Map`], also for a slot past the last.
    pub(super) fn read(
        &self,
        slots: impl IntoIterator<Item = u32>,
    ) -> Result<BTreeMap<u32, EipCounter>, BpfError> {
        let mut totals: BTreeMap<u32, EipCounter> =
            slots.into_iter().map(|slot| (slot, EipCounter::default())).collect();
        let slots: Vec<u32> = totals.keys().copied().collect();
        for near in slots.chunk_by(|slot, next| next - slot <= GAP) {
            let (Some(first), Some(last)) = (near.first(), near.last()) else { continue };
            for cpu in 0..self.cpus() {
                let rows = self.rows.range(counter_row(MAX_EIPS, cpu, *first), last - first + 1)?;
                for (slot, row) in (*first..).zip(&rows) {
                    totals.entry(slot).and_modify(|total| *total = EipCounter::total([total, row]));
                }
            }
        }
        Ok(totals)
    }

    /// Zeroes slots on every CPU, in the order of the slots. At an error, those before it are zero.
    pub(super) fn reset(&mut self, slots: impl Iterator<Item = u32>) -> Result<(), BpfError> {
        let cpus = self.cpus();
        // A slot past a CPU's last would be another CPU's.
        let past = self.rows.len();
        let row = |slot, cpu| if slot < MAX_EIPS { counter_row(MAX_EIPS, cpu, slot) } else { past };
        self.rows
            .put(slots.flat_map(|slot| (0..cpus).map(move |cpu| (row(slot, cpu), EipCounter::default()))))
    }

    fn cpus(&self) -> u32 {
        self.rows.len() / MAX_EIPS
    }
}
