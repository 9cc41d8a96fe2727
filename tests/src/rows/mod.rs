//! Packet tests: each is a row of data, run on every engine of its kind.

pub mod answers;
pub mod arrivals;
pub mod checksums;
pub mod egress;
pub mod external;
pub mod fragmentation;
pub mod fragments;
pub mod hops;
pub mod limit;
pub mod martian;
pub mod mss;
pub mod options;
pub mod padding;
mod path;
pub mod protocols;
pub mod quotes;
pub mod sending;
pub mod trust;
pub mod underlay;

use std::collections::BTreeMap;

use gateway_common::tables::{EipCounter, VerdictCounter};
use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::{Action, Exit, Hook};

use crate::engines::{Coarse, Engine, Kind, Seen};
use crate::fixture::Tables;

/// One packet test.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it shows.
    pub name: &'static str,
    /// Where the frame is seen.
    pub hook: Hook,
    /// The only kind of engine it is for; `None`: both.
    pub only: Option<Kind>,
    /// The tables.
    pub tables: Tables,
    /// The frame in.
    pub frame: Vec<u8>,
    /// The one counter of `verdicts` that goes up, by one packet of the frame's length.
    pub verdict: Verdict,
    /// What the engine is told to do.
    pub exit: Exit,
    /// The frame out.
    pub out: Vec<u8>,
    /// Every change in `eip_counters`.
    pub counters: BTreeMap<u32, EipCounter>,
}

impl Row {
    /// A frame that passes untouched.
    pub fn pass(name: &'static str, hook: Hook, tables: Tables, frame: Vec<u8>, verdict: Verdict) -> Self {
        let out = frame.clone();
        Self {
            name,
            hook,
            only: None,
            tables,
            frame,
            verdict,
            exit: Exit::PASS,
            out,
            counters: BTreeMap::new(),
        }
    }

    /// A frame that is dropped untouched.
    pub fn drop(name: &'static str, hook: Hook, tables: Tables, frame: Vec<u8>, verdict: Verdict) -> Self {
        Self { exit: Exit::DROP, ..Self::pass(name, hook, tables, frame, verdict) }
    }

    /// A frame that leaves changed.
    pub fn change(
        name: &'static str,
        hook: Hook,
        tables: Tables,
        (frame, out): (Vec<u8>, Vec<u8>),
        (verdict, exit): (Verdict, Exit),
    ) -> Self {
        Self { exit, out, ..Self::pass(name, hook, tables, frame, verdict) }
    }

    /// Counts one packet of `bytes` to the pod of `slot`.
    #[must_use]
    pub fn counts_in(mut self, slot: u32, bytes: usize) -> Self {
        let counter = self.counters.entry(slot).or_default();
        counter.in_packets += 1;
        counter.in_bytes += bytes as u64;
        self
    }

    /// Counts one packet of `bytes` from the pod of `slot`.
    #[must_use]
    pub fn counts_out(mut self, slot: u32, bytes: usize) -> Self {
        let counter = self.counters.entry(slot).or_default();
        counter.out_packets += 1;
        counter.out_bytes += bytes as u64;
        self
    }

    /// Only for one kind of engine.
    #[must_use]
    pub fn only(mut self, kind: Kind) -> Self {
        self.only = Some(kind);
        self
    }

    /// Whether the row is for an engine.
    pub fn is_for(&self, engine: &dyn Engine) -> bool {
        engine.has(self.hook) && self.only.is_none_or(|kind| kind == engine.kind())
    }

    /// What is not as the row says, one line each.
    pub fn differences(&self, seen: &Seen) -> Vec<String> {
        let mut differences = Vec::new();
        let bytes = self.frame.len() as u64;
        let verdicts = BTreeMap::from([(self.verdict, VerdictCounter { packets: 1, bytes })]);
        if seen.verdicts != verdicts {
            differences.push(format!("verdicts {:?}, not {verdicts:?}", seen.verdicts));
        }
        if seen.exit.is_some_and(|exit| exit != self.exit) {
            differences.push(format!("exit {:?}, not {:?}", seen.exit, self.exit));
        }
        if seen.action != Coarse::from(self.exit.action) {
            differences.push(format!("action {:?}, not {:?}", seen.action, self.exit.action));
        }
        if seen.counters != self.counters {
            differences.push(format!("EIP counters {:?}, not {:?}", seen.counters, self.counters));
        }
        if seen.frame != self.out {
            differences.push(format!("frame\n  {}\nnot\n  {}", hex(&seen.frame), hex(&self.out)));
        }
        differences
    }
}

/// A redirection to `ifindex`.
pub fn redirect(ifindex: u32) -> Exit {
    Exit { action: Action::Redirect, ifindex, next_hop: [0; 4] }
}

/// A redirection to a next hop on `ifindex` that the kernel resolves.
pub fn redirect_neighbor(ifindex: u32, next_hop: [u8; 4]) -> Exit {
    Exit { action: Action::RedirectNeighbor, ifindex, next_hop }
}

/// An injection at `ifindex`.
pub fn inject(ifindex: u32) -> Exit {
    Exit { action: Action::Inject, ifindex, next_hop: [0; 4] }
}

/// A name put together.
fn named(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, byte) in bytes.iter().take(160).enumerate() {
        let gap = if [14, 34, 42, 50, 64, 84].contains(&at) { " | " } else { "" };
        text.push_str(&format!("{gap}{byte:02x}"));
    }
    if bytes.len() > 160 {
        text.push_str(&format!("… ({} bytes)", bytes.len()));
    }
    text
}

/// All rows.
pub fn all() -> Vec<Row> {
    [
        answers::rows(),
        external::rows(),
        underlay::rows(),
        egress::rows(),
        mss::rows(),
        quotes::rows(),
        arrivals::rows(),
        fragmentation::rows(),
        limit::rows(),
        martian::rows(),
        hops::rows(),
        checksums::rows(),
        protocols::rows(),
        fragments::rows(),
        sending::rows(),
        trust::rows(),
        options::rows(),
        padding::rows(),
    ]
    .concat()
}
