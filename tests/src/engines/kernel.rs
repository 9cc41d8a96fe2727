//! The loaded programs, driven by BPF_PROG_TEST_RUN (Documentation/bpf/bpf_prog_run.rst).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, DevMapHash, HashMap, LpmTrie, Map, MapData, PerCpuArray, PerCpuValues};
use aya::programs::{ProgramFd, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader, Pod};
use gateway_common::direct::Direct;
use gateway_common::tables::{
    Budget, COUNTER_SLOTS, Config, DIRECT_ROWS, EipCounter, Internal, MAX_EIPS, VerdictCounter, counter_row,
    name,
};
use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::Hook;
use nix::sched::{CloneFlags, unshare};

use super::{Coarse, Engine, Kind, Seen, WATCHED_SLOTS};
use crate::fixture::{EXTERNAL, Tables, UNDERLAY};

/// Room for the longest frame out.
const FRAME_OUT: usize = 16_384;

/// Interface number of the loopback interface, in every namespace.
const LOOPBACK: u32 = 1;

/// A loaded object and which of its programs to run.
pub struct Kernel {
    object: Ebpf,
    kind: Kind,
    /// As they stand: nobody but this runs the programs.
    counters: Counters,
    /// What is in the direct tables.
    direct: Direct,
    /// Interface that frames which leave had arrived on.
    arrived_on: u32,
}

/// Every row of `verdicts`, and the watched ones of `eip_counters`.
type Counters = (Vec<VerdictCounter>, Vec<EipCounter>);

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Kernel").field(&self.kind).finish()
    }
}

/// Where `cargo xtask build` puts the BPF object.
pub fn object_path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/ebpf/gateway-ebpf"))
}

/// The programs of the object.
pub const PROGRAMS: [&str; 6] =
    ["xdp_external", "xdp_underlay", "tc_external", "tc_underlay", "tc_underlay_egress", "tc_router_port"];

fn open(path: &Path, eips: u32) -> Result<Ebpf> {
    let bytes = std::fs::read(path)
        .with_context(|| format!("{} is missing: run `cargo xtask build --ebpf-only`", path.display()))?;
    let mut loader = EbpfLoader::new();
    loader.override_global(COUNTER_SLOTS, &eips, true);
    loader.map_max_entries(name::EIP_COUNTERS, counter_row(eips, possible_cpus()?, 0));
    for table in [name::EIPS, name::PODS] {
        loader.map_max_entries(table, eips);
    }
    for table in [name::DIRECT_EIPS, name::DIRECT_PODS, name::DIRECT_NEIGHBORS] {
        loader.map_max_entries(table, eips.max(DIRECT_ROWS));
    }
    Ok(loader.load(&bytes)?)
}

fn possible_cpus() -> Result<u32> {
    let cpus = nr_cpus().map_err(|(_, error)| error).context("the number of CPUs")?;
    Ok(u32::try_from(cpus)?)
}

/// Loads one program alone; how many instructions the verifier went through until it was content.
///
/// # Errors
/// No object, no privilege, or the verifier refuses: then with the end of what it says.
pub fn verified_instructions(program: &str) -> Result<u32> {
    let mut object = open(&object_path(), MAX_EIPS)?;
    let info = if program.starts_with("xdp") {
        let program = xdp(&mut object, program)?;
        program.load()?;
        program.info()?
    } else {
        let program = classifier(&mut object, program)?;
        program.load()?;
        program.info()?
    };
    info.verified_instruction_count().context("this kernel does not tell")
}

impl Kernel {
    /// Loads the object and verifies the programs of a kind. The thread gets a network namespace of its own: a test run's
    /// frame is on the loopback interface, and so are the copies that a program makes of it.
    ///
    /// # Errors
    /// No object, no privilege, or the verifier refuses.
    pub fn load(kind: Kind) -> Result<Self> {
        Self::load_from(&object_path(), kind, MAX_EIPS)
    }

    /// The same for another object, with room for so many EIPs.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_from(path: &Path, kind: Kind, eips: u32) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace of its own")?;
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("ip")?;
        ensure!(up.success(), "ip link set lo up: {up}");
        let mut object = open(path, eips)?;
        for hook in [Hook::External, Hook::Underlay, Hook::UnderlayEgress, Hook::RouterPortEgress] {
            match (kind, program(kind, hook)) {
                (Kind::Xdp, Some(program)) => xdp(&mut object, program)?.load()?,
                (Kind::Tc, Some(program)) => classifier(&mut object, program)?.load()?,
                (Kind::Xdp | Kind::Tc, None) => {}
            }
        }
        let (counters, direct) = (Counters::default(), Direct::default());
        let mut kernel = Self { object, kind, counters, direct, arrived_on: 0 };
        kernel.counters = kernel.read_counters()?;
        Ok(kernel)
    }

    /// The XDP program of a hook, for a tail call.
    ///
    /// # Errors
    /// There is none, or this engine has loaded others.
    pub fn xdp_fd(&mut self, hook: Hook) -> Result<&ProgramFd> {
        Ok(self.xdp_program(hook)?.fd()?)
    }

    /// The XDP program of a hook, to be attached.
    ///
    /// # Errors
    /// There is none.
    pub fn xdp_program(&mut self, hook: Hook) -> Result<&mut Xdp> {
        xdp(&mut self.object, program(Kind::Xdp, hook).context("no program at this hook")?)
    }

    /// The TC program of a hook, to be attached.
    ///
    /// # Errors
    /// There is none.
    pub fn tc_program(&mut self, hook: Hook) -> Result<&mut SchedClassifier> {
        classifier(&mut self.object, program(Kind::Tc, hook).context("no program at this hook")?)
    }

    /// Fills `tx_ports`: the numbers that rows name, and the interfaces of this thread's namespace that they stand for.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn send_by(&mut self, ports: &[(u32, u32)]) -> Result<()> {
        let mut map = DevMapHash::try_from(self.object.map_mut(name::TX_PORTS).context(name::TX_PORTS)?)?;
        let mut insert = |(number, interface): &(u32, u32)| map.insert(*number, *interface, None, 0);
        ports.iter().try_for_each(&mut insert).context(name::TX_PORTS)
    }

    /// The same for the fixture's NICs, before test runs, in which nothing is sent. They are gone when another engine is loaded:
    /// that leaves the namespace.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn send_by_loopback(&mut self) -> Result<()> {
        self.send_by(&[EXTERNAL, UNDERLAY, LOOPBACK].map(|number| (number, LOOPBACK)))
    }

    /// Every map of the object.
    pub fn maps(&self) -> impl Iterator<Item = (&str, &Map)> {
        self.object.maps()
    }

    /// Packets counted under a verdict.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn packets(&self, verdict: Verdict) -> Result<u64> {
        let rows: PerCpuArray<_, VerdictCounter> =
            PerCpuArray::try_from(self.object.map(name::VERDICTS).context(name::VERDICTS)?)?;
        Ok(VerdictCounter::total(rows.get(&verdict.row(), 0)?.iter()).packets)
    }

    /// Replaces the contents of the tables.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn fill(&mut self, tables: &Tables) -> Result<()> {
        let map = |object: &mut Ebpf, name| {
            object.map_mut(name).map(drop).with_context(|| format!("no map {name}"))
        };
        for name in name::ALL {
            map(&mut self.object, name)?;
        }
        let object = &mut self.object;
        let mut config: Array<_, Config> =
            Array::try_from(object.map_mut(name::CONFIG).context(name::CONFIG)?)?;
        let (direct, settings) = tables.direct();
        config.set(0, settings, 0)?;
        set_rows(object, name::DIRECT_EIPS, &self.direct.eips, &direct.eips)?;
        set_rows(object, name::DIRECT_PODS, &self.direct.pods, &direct.pods)?;
        set_rows(object, name::DIRECT_NEIGHBORS, &self.direct.neighbors, &direct.neighbors)?;
        self.direct = direct;
        self.arrived_on = tables.arrived_on;
        let mut budgets: PerCpuArray<_, Budget> =
            PerCpuArray::try_from(object.map_mut(name::BUDGETS).context(name::BUDGETS)?)?;
        for (row, budget) in (0..).zip(tables.budgets) {
            budgets.set(row, PerCpuValues::try_from(vec![budget; possible_cpus()? as usize])?, 0)?;
        }
        replace(HashMap::try_from(object.map_mut(name::EIPS).context(name::EIPS)?)?, &tables.eips)?;
        replace(HashMap::try_from(object.map_mut(name::PODS).context(name::PODS)?)?, &tables.pods)?;
        replace(HashMap::try_from(object.map_mut(name::VTEPS).context(name::VTEPS)?)?, &tables.vteps)?;
        replace(
            HashMap::try_from(object.map_mut(name::NEIGHBORS).context(name::NEIGHBORS)?)?,
            &tables.neighbors,
        )?;
        let mut internal: LpmTrie<_, [u8; 4], Internal> =
            LpmTrie::try_from(object.map_mut(name::INTERNAL).context(name::INTERNAL)?)?;
        for key in internal.keys().collect::<Result<Vec<_>, _>>()? {
            internal.remove(&key)?;
        }
        for prefix in &tables.internal {
            internal.insert(
                &Key::new(u32::from(prefix.len), prefix.addr.octets()),
                Internal { present: 1 },
                0,
            )?;
        }
        Ok(())
    }

    fn read_counters(&self) -> Result<Counters> {
        let verdicts: PerCpuArray<_, VerdictCounter> =
            PerCpuArray::try_from(self.object.map(name::VERDICTS).context(name::VERDICTS)?)?;
        let verdicts = Verdict::ALL
            .iter()
            .map(|verdict| Ok(VerdictCounter::total(verdicts.get(&verdict.row(), 0)?.iter())))
            .collect::<Result<_>>()?;
        let cpus: Vec<_> = (0..possible_cpus()?).map(|cpu| self.counted_by(cpu)).collect::<Result<_>>()?;
        let total = |slot: u32| EipCounter::total(cpus.iter().filter_map(|rows| rows.get(slot as usize)));
        Ok((verdicts, (0..WATCHED_SLOTS).map(total).collect()))
    }

    /// What a CPU has counted in each of the watched slots.
    ///
    /// # Errors
    /// There is no such CPU, or the kernel refused.
    pub fn counted_by(&self, cpu: u32) -> Result<Vec<EipCounter>> {
        let rows: Array<_, EipCounter> =
            Array::try_from(self.object.map(name::EIP_COUNTERS).context(name::EIP_COUNTERS)?)?;
        let slots = rows.len() / possible_cpus()?;
        (0..WATCHED_SLOTS).map(|slot| Ok(rows.get(&counter_row(slots, cpu, slot), 0)?)).collect()
    }

    fn test_run(&mut self, hook: Hook, frame: &[u8]) -> Result<(Coarse, Vec<u8>)> {
        let mut out = vec![0; FRAME_OUT];
        let name = program(self.kind, hook).context("no program at this hook")?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        let context = context(self.arrived_on);
        if self.kind == Kind::Tc {
            options.ctx_in = Some(&context);
        }
        let result = match self.kind {
            Kind::Xdp => xdp(&mut self.object, name)?.test_run(options)?,
            Kind::Tc => classifier(&mut self.object, name)?.test_run(options)?,
        };
        out.truncate(result.data_size_out as usize);
        Ok((coarse(self.kind, result.return_value), out))
    }
}

impl Engine for Kernel {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Xdp => "XDP",
            Kind::Tc => "TC",
        }
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn run(&mut self, hook: Hook, tables: &Tables, frame: &[u8]) -> Result<Seen> {
        self.fill(tables)?;
        self.run_filled(hook, frame)
    }
}

impl Kernel {
    /// Runs one frame on the tables that are there.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn run_filled(&mut self, hook: Hook, frame: &[u8]) -> Result<Seen> {
        let (action, frame) = self.test_run(hook, frame)?;
        let counters = self.read_counters()?;
        let (verdicts_before, eips_before) = std::mem::replace(&mut self.counters, counters);
        let (verdicts_after, eips_after) = &self.counters;
        let verdicts = Verdict::ALL
            .iter()
            .zip(verdicts_before.iter().zip(verdicts_after))
            .filter(|(_, (before, after))| before != after)
            .map(|(verdict, (before, after))| {
                let change = VerdictCounter {
                    packets: after.packets - before.packets,
                    bytes: after.bytes - before.bytes,
                };
                (*verdict, change)
            })
            .collect();
        let counters = (0..)
            .zip(eips_before.iter().zip(eips_after))
            .filter(|(_, (before, after))| before != after)
            .map(|(slot, (before, after))| (slot, eip_change(before, after)))
            .collect();
        Ok(Seen { action, exit: None, frame, verdicts, counters })
    }
}

fn eip_change(before: &EipCounter, after: &EipCounter) -> EipCounter {
    EipCounter {
        in_packets: after.in_packets - before.in_packets,
        in_bytes: after.in_bytes - before.in_bytes,
        out_packets: after.out_packets - before.out_packets,
        out_bytes: after.out_bytes - before.out_bytes,
        last_seen_ns: 0,
        reserved: [0; 3],
    }
}

fn replace<K: Pod + Ord, V: Pod>(mut map: HashMap<&mut MapData, K, V>, rows: &BTreeMap<K, V>) -> Result<()> {
    for key in map.keys().collect::<Result<Vec<_>, _>>()? {
        map.remove(&key)?;
    }
    for (key, value) in rows {
        map.insert(key, value, 0)?;
    }
    Ok(())
}

/// Makes the rows of an array those of `want`, where it has those of `held`.
fn set_rows<V: Pod + Default + PartialEq>(
    object: &mut Ebpf,
    name: &str,
    held: &BTreeMap<u32, V>,
    want: &BTreeMap<u32, V>,
) -> Result<()> {
    let mut array: Array<_, V> = Array::try_from(object.map_mut(name).context(name.to_owned())?)?;
    for row in held.keys().filter(|row| !want.contains_key(row)) {
        array.set(*row, V::default(), 0)?;
    }
    for (row, value) in want.iter().filter(|(row, value)| held.get(row) != Some(value)) {
        array.set(*row, value, 0)?;
    }
    Ok(())
}

/// The start of a `struct __sk_buff` (linux/bpf.h), up to `ingress_ifindex`, of a packet that arrived on an interface.
fn context(arrived_on: u32) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes[36..].copy_from_slice(&arrived_on.to_ne_bytes());
    bytes
}

const fn program(kind: Kind, hook: Hook) -> Option<&'static str> {
    match (kind, hook) {
        (Kind::Xdp, Hook::External) => Some("xdp_external"),
        (Kind::Xdp, Hook::Underlay) => Some("xdp_underlay"),
        (Kind::Xdp, Hook::UnderlayEgress | Hook::RouterPortEgress) => None,
        (Kind::Tc, Hook::External) => Some("tc_external"),
        (Kind::Tc, Hook::Underlay) => Some("tc_underlay"),
        (Kind::Tc, Hook::UnderlayEgress) => Some("tc_underlay_egress"),
        (Kind::Tc, Hook::RouterPortEgress) => Some("tc_router_port"),
    }
}

fn xdp<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    Ok(object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

fn classifier<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    Ok(object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

const fn coarse(kind: Kind, code: u32) -> Coarse {
    match (kind, code) {
        (Kind::Xdp, 1) | (Kind::Tc, 2) => Coarse::Drop,
        (Kind::Xdp, 2) | (Kind::Tc, u32::MAX) => Coarse::Pass,
        (Kind::Xdp, 3 | 4) | (Kind::Tc, 7) => Coarse::Send,
        (Kind::Xdp | Kind::Tc, other) => Coarse::Unknown(other),
    }
}
