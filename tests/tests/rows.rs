//! Every row on every engine of its kind.

use std::fmt::Write as _;

use gateway_tests::engines::host::Host;
use gateway_tests::engines::kernel::Kernel;
use gateway_tests::engines::{Engine, Kind};
use gateway_tests::rows;

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

#[test]
fn loaded_xdp_programs() {
    check(&mut Kernel::load(Kind::Xdp).expect("the XDP programs load"));
}

#[test]
fn loaded_tc_programs() {
    check(&mut Kernel::load(Kind::Tc).expect("the TC programs load"));
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
