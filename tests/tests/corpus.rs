//! The fuzzers' corpus: it has the rows of today, and every file of it holds, without a fuzzer.

use std::collections::BTreeSet;

use gateway_tests::fuzzing::{HOOKS, corpus, raw, structured};

#[test]
fn seeds_are_those_of_the_rows() {
    let (seeds, committed) = (corpus::seeds(), corpus::committed_seeds().expect("the corpus is there"));
    let names: BTreeSet<_> = seeds.keys().chain(committed.keys()).collect();
    let stale: Vec<_> = names.into_iter().filter(|name| seeds.get(*name) != committed.get(*name)).collect();
    assert!(stale.is_empty(), "run `cargo xtask fuzz seed` and commit: {stale:?}");
    assert!(seeds.len() > 100, "only {} seeds", seeds.len());
}

#[test]
fn every_file_holds() {
    for hook in HOOKS {
        let files = corpus::files(corpus::raw_target(hook)).expect("a corpus");
        files.values().for_each(|frame| raw(hook, frame));
        let built = corpus::files(corpus::structured_target(hook)).expect("a corpus");
        built.values().for_each(|bytes| structured(hook, bytes));
        println!("{hook:?}: {} raw, {} structured", files.len(), built.len());
    }
}
