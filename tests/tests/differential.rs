//! The same frame on the host engine and in the loaded programs: the same bytes, verdict, action and counters.

use std::collections::BTreeMap;
use std::time::Instant;

use arbitrary::{Result, Unstructured};
use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::Hook;
use gateway_tests::engines::kernel::Kernel;
use gateway_tests::engines::{Engine, Kind, Seen, host};
use gateway_tests::fixture::Tables;
use gateway_tests::fuzzing::{HOOKS, TABLES, expect, frames, hex, lies};
use gateway_tests::rows::{self, Row};
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

/// Frames for each kind of program, over all hooks and tables.
const FRAMES: usize = 100_000;
/// Where the frames start from unless `$EIP_GATEWAY_SEED` says otherwise.
const SEED: u64 = 20_261_125;
/// Bytes that decide on a frame.
const DECISIONS: usize = 512;
/// The kernel's test run takes one page, with room at both ends.
const LONGEST: usize = 3_000;
/// Differences shown before the run ends.
const SHOWN: usize = 5;

fn seed() -> u64 {
    let asked = std::env::var("EIP_GATEWAY_SEED").ok();
    asked.map_or(SEED, |seed| seed.parse().expect("$EIP_GATEWAY_SEED is a number"))
}

fn random(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// The kernel's test run gives no program less than an Ethernet header, and TC no IP packet without a whole header.
fn shortest(kind: Kind, frame: &[u8]) -> usize {
    match (kind, frame.get(12..14)) {
        (Kind::Xdp, _) => 14,
        (Kind::Tc, Some([0x86, 0xdd])) => 14 + 40,
        (Kind::Tc, _) => 14 + 20,
    }
}

/// A frame from decisions, or a row's with lies.
fn frame(kind: Kind, bytes: &[u8], hook: Hook, rows: &[Row]) -> Result<Vec<u8>> {
    let mut u = Unstructured::new(bytes);
    let mut frame = if u.ratio(1, 4)? {
        let mut frame = u.choose(rows)?.frame.clone();
        lies::tell(&mut u, &mut frame)?;
        frame
    } else {
        frames::any(&mut u, hook)?
    };
    frame.truncate(LONGEST);
    let shortest = shortest(kind, &frame);
    if frame.len() < shortest {
        frame.resize(shortest, 0);
    }
    Ok(frame)
}

/// What differs between host and kernel; the exact exit shows on the host alone.
fn difference(host: &Seen, kernel: &Seen) -> bool {
    let visible = |seen: &Seen| Seen { exit: None, ..seen.clone() };
    visible(host) != visible(kernel)
}

/// Frames run, and what came of them.
struct Run {
    kernel: Kernel,
    random: TestRng,
    verdicts: BTreeMap<Verdict, usize>,
}

/// Runs frames at one hook on one set of tables.
fn compare(run: &mut Run, hook: Hook, tables: &Tables, count: usize) -> Vec<String> {
    let Run { kernel, random, verdicts } = run;
    let rows: Vec<_> = rows::all().into_iter().filter(|row| row.hook == hook).collect();
    kernel.fill(tables).expect("the tables are filled");
    let mut differences = Vec::new();
    let mut decisions = vec![0; DECISIONS];
    for _ in 0..count {
        random.fill_bytes(&mut decisions);
        let frame = frame(kernel.kind(), &decisions, hook, &rows).expect("bytes for a frame");
        let on_host = host::run(kernel.kind(), hook, tables, &frame);
        let in_kernel = match kernel.run_filled(hook, &frame) {
            Ok(seen) => seen,
            Err(error) => panic!("the kernel does not run {hook:?} {}: {error:#}", hex(&frame)),
        };
        on_host.verdicts.keys().for_each(|verdict| *verdicts.entry(*verdict).or_default() += 1);
        if difference(&on_host, &in_kernel) {
            let [host, kernel] = [&on_host, &in_kernel].map(expect::shown);
            differences.push(format!("frame {}\nhost {host}\nkernel {kernel}", hex(&frame)));
        }
    }
    differences
}

fn check(kind: Kind) {
    let (seed, since) = (seed(), Instant::now());
    println!("{kind:?}: {FRAMES} frames from seed {seed}");
    let kernel = Kernel::load(kind).expect("the programs load");
    let hooks: Vec<_> = HOOKS.into_iter().filter(|hook| kernel.has(*hook)).collect();
    let count = FRAMES.div_ceil(hooks.len() * TABLES.len());
    let mut run = Run { kernel, random: random(seed), verdicts: BTreeMap::new() };
    let mut red = 0;
    let mut report = String::new();
    for hook in hooks {
        for (name, tables) in TABLES.iter() {
            let differences = compare(&mut run, hook, tables, count);
            for difference in differences.iter().take(SHOWN) {
                report.push_str(&format!("\n{hook:?} · tables of {name}\n{difference}\n"));
            }
            red += differences.len();
        }
    }
    println!("{kind:?}: {red} differ, {:.1} s; {:?}", since.elapsed().as_secs_f64(), run.verdicts);
    assert!(red == 0, "{red} frames of seed {seed} differ on {kind:?}:\n{report}");
    let unseen: Vec<_> = reachable(kind).filter(|verdict| !run.verdicts.contains_key(verdict)).collect();
    assert!(unseen.is_empty(), "no frame of seed {seed} came to {unseen:?} on {kind:?}");
}

/// Every verdict an engine can give: the kernel's test run always has room, and some are of XDP or of TC alone.
fn reachable(kind: Kind) -> impl Iterator<Item = Verdict> {
    use Verdict::*;
    let never: &[Verdict] = match kind {
        Kind::Xdp => &[
            DropNoRoom,
            ToNicIp,
            PassNotPod,
            PassInternal,
            ToGateway,
            Fragmented,
            DropForgedTunnel,
            DropSlowPathLimit,
        ],
        Kind::Tc => &[DropNoRoom, PassUnresolved, PassToTwin, DropInwards],
    };
    Verdict::ALL.iter().copied().filter(|verdict| !never.contains(verdict))
}

#[test]
fn host_and_xdp() {
    check(Kind::Xdp);
}

#[test]
fn host_and_tc() {
    check(Kind::Tc);
}
