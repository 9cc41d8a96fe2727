//! The datapath on the host: no kernel, no privilege.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use gateway_common::csum;
use gateway_common::direct::Direct;
use gateway_common::limit::Limited;
use gateway_common::tables::{
    Budget, Config, DirectEip, DirectNeighbor, DirectPod, Eip, EipCounter, EipKey, Neighbor, NeighborKey,
    Pod, PodKey, VerdictCounter, Vtep, VtepKey,
};
use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::{self, Direction, Env, Frame, Hook, L4Change, Outcome, Room, Way};

use super::{Engine, Kind, Seen};
use crate::fixture::Tables;

/// The host engine, as XDP or as TC.
#[derive(Debug)]
pub struct Host(pub Kind);

impl Engine for Host {
    fn name(&self) -> &'static str {
        match self.0 {
            Kind::Xdp => "host (as XDP)",
            Kind::Tc => "host (as TC)",
        }
    }

    fn kind(&self) -> Kind {
        self.0
    }

    fn run(&mut self, hook: Hook, tables: &Tables, frame: &[u8]) -> anyhow::Result<Seen> {
        Ok(run(self.0, hook, tables, frame))
    }
}

/// Runs one frame.
pub fn run(kind: Kind, hook: Hook, tables: &Tables, bytes: &[u8]) -> Seen {
    run_at(kind, hook, tables, bytes, Duration::ZERO).0
}

/// The rows of `budgets`.
pub type Budgets = [Budget; Limited::ALL.len()];

/// Runs one frame when the clock says `now`; the rows of `budgets` afterwards as well.
pub fn run_at(kind: Kind, hook: Hook, tables: &Tables, bytes: &[u8], now: Duration) -> (Seen, Budgets) {
    run_frame(kind, hook, HostEnv::new(tables, now), (bytes, true))
}

/// Runs one frame that the fast path can see nothing of, so that it takes none.
pub fn run_without_fast_path(kind: Kind, hook: Hook, tables: &Tables, bytes: &[u8]) -> Seen {
    run_frame(kind, hook, HostEnv::new(tables, Duration::ZERO), (bytes, false)).0
}

fn run_frame(
    kind: Kind,
    hook: Hook,
    env: HostEnv<'_>,
    (bytes, is_in_view): (&[u8], bool),
) -> (Seen, Budgets) {
    let (bytes, arrived_on) = (bytes.to_vec(), env.tables.arrived_on);
    let (outcome, frame) = match kind {
        Kind::Xdp => drive(hook, &env, HostFrame::<false> { bytes, is_in_view, arrived_on }),
        Kind::Tc => drive(hook, &env, HostFrame::<true> { bytes, is_in_view, arrived_on }),
    };
    let seen = Seen {
        action: outcome.exit.action.into(),
        exit: Some(outcome.exit),
        frame,
        verdicts: env.verdicts.into_inner(),
        counters: env.counters.into_inner(),
    };
    (seen, env.budgets.get())
}

fn drive<const RESOLVES: bool>(
    hook: Hook,
    env: &HostEnv<'_>,
    mut frame: HostFrame<RESOLVES>,
) -> (Outcome, Vec<u8>) {
    let outcome = datapath::run(hook, &mut frame, env);
    (outcome, frame.bytes)
}

/// Bytes of a frame that BPF_PROG_TEST_RUN gives an XDP program in one buffer, about: the engines agree on frames that are
/// much shorter or longer.
pub const ONE_BUFFER: usize = 3_500;

struct HostFrame<const RESOLVES: bool> {
    bytes: Vec<u8>,
    /// Views and windows, by which the fast path alone reads and writes, show it.
    is_in_view: bool,
    arrived_on: u32,
}

impl<const RESOLVES: bool> Frame for HostFrame<RESOLVES> {
    const KERNEL_RESOLVES: bool = RESOLVES;
    // As XDP may, and TC may not.
    const IN_PLACE: bool = !RESOLVES;

    fn linear_len(&self) -> u32 {
        u32::try_from(self.bytes.len().min(ONE_BUFFER)).unwrap_or(u32::MAX)
    }

    fn view<const N: usize>(&self) -> Option<&[u8; N]> {
        self.bytes.first_chunk().filter(|_| self.is_in_view)
    }

    fn window<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        self.bytes.first_chunk_mut().filter(|_| self.is_in_view)
    }

    fn frame_len(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    fn in_pieces(&self) -> bool {
        self.bytes.len() > ONE_BUFFER
    }

    fn arrived_on(&self) -> u32 {
        self.arrived_on
    }

    fn mark_as_tunnel(&mut self) {}

    fn unmark_as_tunnel(&mut self) -> bool {
        false
    }

    fn segments(&self) -> u32 {
        1
    }

    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.get(offset..offset + N)?.try_into().ok()
    }

    fn copy<const N: usize>(&self, offset: usize, len: usize, to: &mut [u8; N]) -> Option<()> {
        if len == 0 {
            return None;
        }
        to.get_mut(..len)?.copy_from_slice(self.bytes.get(offset..offset + len)?);
        Some(())
    }

    fn store<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) -> Option<()> {
        self.bytes.get_mut(offset..offset + N)?.copy_from_slice(bytes);
        Some(())
    }

    fn grow_head(&mut self, room: Room) -> Option<()> {
        // 0xee: bytes the datapath forgets to write show.
        self.bytes.splice(0..14.min(self.bytes.len()), vec![0xee; room.bytes() + 14]);
        Some(())
    }

    fn shrink_head(&mut self, count: usize) -> Option<()> {
        if self.bytes.len() < count + 14 {
            return None;
        }
        self.bytes.drain(..count);
        self.bytes[..14].fill(0xee);
        Some(())
    }

    fn truncate(&mut self, len: u32) -> Option<()> {
        let len = len as usize;
        if len > self.bytes.len() || len < 14 {
            return None;
        }
        self.bytes.truncate(len);
        Some(())
    }

    fn repeat(&mut self, _: Way) -> Option<()> {
        Some(())
    }

    fn update_l4_checksum(&mut self, offset: usize, change: L4Change) -> Option<()> {
        let field = u16::from_be_bytes(self.load(offset)?);
        if change.zero_is_none && field == 0 {
            return Some(());
        }
        let updated = csum::update(field, &change.from, &change.to);
        let updated = if change.zero_is_none && updated == 0 { 0xffff } else { updated };
        self.store(offset, &updated.to_be_bytes())
    }
}

struct HostEnv<'a> {
    tables: &'a Tables,
    config: Config,
    direct: Direct,
    now: Duration,
    budgets: Cell<Budgets>,
    verdicts: RefCell<BTreeMap<Verdict, VerdictCounter>>,
    counters: RefCell<BTreeMap<u32, EipCounter>>,
}

impl<'a> HostEnv<'a> {
    fn new(tables: &'a Tables, now: Duration) -> Self {
        let (direct, config) = tables.direct();
        let budgets = Cell::new(tables.budgets);
        let (verdicts, counters) = Default::default();
        Self { tables, config, direct, now, budgets, verdicts, counters }
    }
}

impl Env for HostEnv<'_> {
    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn direct_eip(&self, row: u32) -> Option<&DirectEip> {
        self.direct.eips.get(&row)
    }

    fn direct_pod(&self, row: u32) -> Option<&DirectPod> {
        self.direct.pods.get(&row)
    }

    fn direct_neighbor(&self, row: u32) -> Option<&DirectNeighbor> {
        self.direct.neighbors.get(&row)
    }

    fn eip(&self, eip: [u8; 4]) -> Option<&Eip> {
        self.tables.eips.get(&EipKey { eip })
    }

    fn pod(&self, pod_ip: [u8; 4]) -> Option<&Pod> {
        self.tables.pods.get(&PodKey { pod_ip })
    }

    fn vtep(&self, vtep: [u8; 4]) -> Option<&Vtep> {
        self.tables.vteps.get(&VtepKey { vtep })
    }

    fn neighbor(&self, addr: [u8; 4]) -> Option<&Neighbor> {
        self.tables.neighbors.get(&NeighborKey { addr })
    }

    fn is_internal(&self, addr: [u8; 4]) -> bool {
        self.tables.internal.iter().any(|prefix| prefix.contains(addr.into()))
    }

    fn take(&self, what: Limited, per_second: u32, count: u32) -> bool {
        let mut budgets = self.budgets.get();
        let now = u64::try_from(self.now.as_nanos()).unwrap_or(u64::MAX);
        let taken = budgets[what.row() as usize].take(now, per_second, count);
        self.budgets.set(budgets);
        taken
    }

    fn count_verdict(&self, verdict: Verdict, packets: u32, bytes: u32) {
        let mut verdicts = self.verdicts.borrow_mut();
        let row = verdicts.entry(verdict).or_default();
        row.packets += u64::from(packets);
        row.bytes += u64::from(bytes);
    }

    fn expect_count(&self, _slot: u32) {}

    fn count_eip(&self, slot: u32, direction: Direction, packets: u32, bytes: u32) {
        let mut counters = self.counters.borrow_mut();
        let row = counters.entry(slot).or_default();
        let (packets, bytes) = (u64::from(packets), u64::from(bytes));
        match direction {
            Direction::In => {
                row.in_packets += packets;
                row.in_bytes += bytes;
            }
            Direction::Out => {
                row.out_packets += packets;
                row.out_bytes += bytes;
            }
        }
    }
}
