//! Every row on every engine of its kind.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use gateway_common::tables::VerdictCounter;
use gateway_common::verdict::Verdict;
use gateway_common::wire::{eth, ipv4, l4};
use gateway_ebpf::datapath::Hook;
use gateway_tests::engines::host::{self, Host};
use gateway_tests::engines::kernel::{self, Kernel};
use gateway_tests::engines::{Coarse, Engine, Kind, Seen};
use gateway_tests::fixture::{self, CLIENT, CLIENT_MAC, EIP1, GATEWAY, NIC_MAC};
use gateway_tests::fuzzing::expect;
use gateway_tests::packet::{ip, ipv4_frame};
use gateway_tests::rows::{self, limit};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Runs all rows for an engine; every difference of every row is shown.
fn check(engine: &mut dyn Engine) {
    let rows: Vec<_> = rows::all().into_iter().filter(|row| row.is_for(engine)).collect();
    let mut report = String::new();
    let mut red = 0;
    for row in &rows {
        let differences = match engine.run(row.hook, &row.tables, &row.frame) {
            Ok(seen) => row.differences(&seen),
            Err(error) => vec![format!("{error:#}")],
        };
        if !differences.is_empty() {
            red += 1;
            let _ = write!(report, "\n{:?} · {}\n  {}\n", row.hook, row.name, differences.join("\n  "));
        }
    }
    println!("{}: {} rows, {red} red", engine.name(), rows.len());
    assert!(red == 0, "{red} of {} rows are red on {}:\n{report}", rows.len(), engine.name());
    assert!(rows.len() > 50, "only {} rows for {}", rows.len(), engine.name());
}

#[test]
fn host_as_xdp() {
    check(&mut Host(Kind::Xdp));
}

#[test]
fn host_as_tc() {
    check(&mut Host(Kind::Tc));
}

/// The fast path takes a packet to the very end that the general path does.
fn check_without_fast_path(kind: Kind) {
    let rows = rows::all().into_iter().filter(|row| row.is_for(&Host(kind)));
    let mut taken = 0;
    for row in rows {
        let fast = host::run(kind, row.hook, &row.tables, &row.frame);
        let slow = host::run_without_fast_path(kind, row.hook, &row.tables, &row.frame);
        assert_eq!(fast, slow, "{:?} · {}", row.hook, row.name);
        taken += 1;
    }
    assert!(taken > 50, "only {taken} rows");
}

/// It lies in pieces all the same: the fast path has to see that, and what is behind the packet.
#[test]
fn a_packet_that_ends_with_the_first_piece_is_not_the_whole_frame() {
    let mut tables = fixture::gateway();
    (tables.config.external_mtu, tables.config.tunnel_mtu) = (9_000, 8_950);
    for (hook, packet) in [(Hook::External, ip(CLIENT, EIP1)), (Hook::Underlay, ip(CLIENT, GATEWAY))] {
        let payload = vec![0; host::ONE_BUFFER - eth::HEADER_LEN - ipv4::HEADER_LEN - l4::UDP_LEN];
        let mut frame = ipv4_frame(CLIENT_MAC, NIC_MAC, &packet.udp(40_000, 53, &payload));
        assert_eq!(frame.len(), host::ONE_BUFFER);
        frame.resize(2 * host::ONE_BUFFER, 0);
        expect::check(hook, &tables, &frame).unwrap_or_else(|error| panic!("{hook:?}: {error}"));
    }
}

#[test]
fn host_as_xdp_without_fast_path() {
    check_without_fast_path(Kind::Xdp);
}

#[test]
fn host_as_tc_without_fast_path() {
    check_without_fast_path(Kind::Tc);
}

#[test]
fn loaded_xdp_programs() {
    check(&mut Kernel::load(Kind::Xdp).expect("the XDP programs load"));
}

/// The others send by the kernel's look-up of the interface.
#[test]
fn loaded_xdp_programs_that_send_by_tx_ports() {
    let mut programs = Kernel::load(Kind::Xdp).expect("the XDP programs load");
    programs.send_by_loopback().expect("tx_ports takes the loopback interface");
    check(&mut programs);
}

#[test]
fn loaded_tc_programs() {
    check(&mut Kernel::load(Kind::Tc).expect("the TC programs load"));
}

#[test]
fn the_verifier_accepts_every_program() {
    let mut refused = String::new();
    for program in kernel::PROGRAMS {
        match kernel::verified_instructions(program) {
            Ok(count) => println!("{program}: {count} instructions verified"),
            Err(error) => {
                let _ = write!(refused, "\n{program}:\n{}\n", tail(&format!("{error:#}"), 60));
            }
        }
    }
    assert!(refused.is_empty(), "this kernel refuses:\n{refused}");
}

/// A verifier's log ends with what it objects to.
fn tail(log: &str, count: usize) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[test]
fn row_names_are_unique_per_hook() {
    let mut names: Vec<_> = rows::all()
        .iter()
        .map(|row| (format!("{:?}", row.hook), row.name, row.only.map(|k| format!("{k:?}"))))
        .collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// Frames cut at every byte: the loaded programs do as the host engine does, to the byte.
fn cut(engine: &mut dyn Engine, shortest: usize) {
    let rows: Vec<_> = rows::all().into_iter().filter(|row| row.is_for(engine)).collect();
    // One of each verdict and hook.
    let mut seen = std::collections::BTreeSet::new();
    for row in rows.iter().filter(|row| seen.insert((format!("{:?}", row.hook), row.verdict))) {
        for len in shortest..row.frame.len().min(200) {
            let frame = &row.frame[..len];
            let expected = host::run(engine.kind(), row.hook, &row.tables, frame);
            let actual = engine.run(row.hook, &row.tables, frame).expect("the kernel runs it");
            assert_eq!(
                (actual.action, &actual.verdicts, &actual.counters, &actual.frame),
                (expected.action, &expected.verdicts, &expected.counters, &expected.frame),
                "{:?} · {} cut to {len} bytes",
                row.hook,
                row.name
            );
        }
    }
    println!("{}: {} frames cut", engine.name(), seen.len());
}

#[test]
fn frames_cut_at_every_byte_in_xdp() {
    cut(&mut Kernel::load(Kind::Xdp).expect("the XDP programs load"), 14);
}

#[test]
fn frames_cut_at_every_byte_in_tc() {
    // The kernel's test run gives TC no IPv4 frame without a whole header.
    cut(&mut Kernel::load(Kind::Tc).expect("the TC programs load"), 34);
}

/// The first three of a second are answered, the fourth is dropped as it came; a third of a second brings one back.
fn three_errors_a_second(mut run: impl FnMut(&[u8]) -> Seen, wait: impl FnOnce(Duration)) {
    let frame = limit::expiring();
    let mut verdict = || {
        let seen = run(&frame);
        let (verdict, counted) = seen.verdicts.into_iter().next().expect("a verdict");
        assert_eq!(counted, VerdictCounter { packets: 1, bytes: frame.len() as u64 });
        assert_eq!(seen.action == Coarse::Drop, seen.frame == frame, "{verdict:?}");
        verdict
    };
    let burst = [verdict(), verdict(), verdict(), verdict()];
    wait(Duration::from_millis(400));
    let later = [verdict(), verdict()];
    let (answered, dropped) = (Verdict::TimeExceeded, Verdict::DropErrorLimit);
    assert_eq!((burst, later), ([answered, answered, answered, dropped], [answered, dropped]));
}

#[test]
fn errors_are_limited_on_the_host() {
    for kind in [Kind::Xdp, Kind::Tc] {
        let (tables, now) = (RefCell::new(limit::limited(3)), Cell::new(Duration::ZERO));
        let run = |frame: &[u8]| {
            let mut tables = tables.borrow_mut();
            let (seen, budgets) = host::run_at(kind, Hook::External, &tables, frame, now.get());
            tables.budgets = budgets;
            seen
        };
        three_errors_a_second(run, |time| now.set(time));
    }
}

/// Binds this thread to a CPU.
fn pin(cpu: usize) {
    let mut only = CpuSet::new();
    only.set(cpu).expect("a CPU");
    sched_setaffinity(Pid::from_raw(0), &only).expect("this thread stays on one CPU");
}

/// What is counted of EIPs is counted where no other CPU counts.
fn each_cpu_counts_in_rows_of_its_own(kind: Kind) {
    let mut kernel = Kernel::load(kind).expect("the programs load");
    let row = rows::all().into_iter().find(|row| row.counters.len() == 1 && row.is_for(&kernel));
    let row = row.expect("a row that counts in one slot");
    let cpus = thread::available_parallelism().expect("the number of CPUs").get();
    for cpu in 0..cpus {
        pin(cpu);
        kernel.run(row.hook, &row.tables, &row.frame).expect("the kernel runs it");
    }
    let (slot, counter) = row.counters.first_key_value().expect("one slot");
    for cpu in 0..cpus {
        let rows = kernel.counted_by(cpu as u32).expect("its rows");
        let counted = rows.get(*slot as usize).map(|row| (row.in_packets, row.out_packets));
        assert_eq!(counted, Some((counter.in_packets, counter.out_packets)), "CPU {cpu}");
    }
}

#[test]
fn each_cpu_counts_in_rows_of_its_own_in_xdp() {
    each_cpu_counts_in_rows_of_its_own(Kind::Xdp);
}

#[test]
fn each_cpu_counts_in_rows_of_its_own_in_tc() {
    each_cpu_counts_in_rows_of_its_own(Kind::Tc);
}

fn errors_are_limited_in(kind: Kind) {
    // The budget is a CPU's.
    pin(0);
    let mut kernel = Kernel::load(kind).expect("the programs load");
    kernel.fill(&limit::limited(3)).expect("the tables are filled");
    three_errors_a_second(
        |frame| kernel.run_filled(Hook::External, frame).expect("the kernel runs it"),
        std::thread::sleep,
    );
}

#[test]
fn errors_are_limited_in_xdp() {
    errors_are_limited_in(Kind::Xdp);
}

#[test]
fn errors_are_limited_in_tc() {
    errors_are_limited_in(Kind::Tc);
}
