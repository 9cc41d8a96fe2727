//! Where a row runs: the datapath compiled for the host, and the loaded XDP and TC programs.

pub mod host;
#[cfg(feature = "suites")]
pub mod kernel;

use std::collections::BTreeMap;

use gateway_common::tables::{EipCounter, VerdictCounter};
use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::{Action, Exit, Hook};

use crate::fixture::Tables;

/// Slots of `eip_counters` an engine looks at.
pub const WATCHED_SLOTS: u32 = 8;

/// Which kind of engine a row is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// XDP: cannot let the kernel resolve.
    Xdp,
    /// TC: can.
    Tc,
}

/// What an engine did with a frame.
#[derive(Clone, PartialEq, Debug)]
pub struct Seen {
    /// The kernel's return code as an action; TC has one code for all redirections.
    pub action: Coarse,
    /// The exact exit, where the engine shows it.
    pub exit: Option<Exit>,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Every change in `verdicts`.
    pub verdicts: BTreeMap<Verdict, VerdictCounter>,
    /// Every change in `eip_counters`, last-seen times left out.
    pub counters: BTreeMap<u32, EipCounter>,
}

/// An action as a return code shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coarse {
    /// XDP_PASS, TC_ACT_UNSPEC.
    Pass,
    /// XDP_DROP, TC_ACT_SHOT.
    Drop,
    /// XDP_TX, XDP_REDIRECT, TC_ACT_REDIRECT.
    Send,
    /// Anything else.
    Unknown(u32),
}

impl From<Action> for Coarse {
    fn from(action: Action) -> Self {
        match action {
            Action::Pass => Self::Pass,
            Action::Drop => Self::Drop,
            Action::Reflect | Action::Redirect | Action::RedirectNeighbor | Action::Inject => Self::Send,
        }
    }
}

/// Runs frames through a hook.
pub trait Engine {
    /// Name for messages.
    fn name(&self) -> &'static str;
    /// XDP or TC.
    fn kind(&self) -> Kind;
    /// Whether the engine has a program at the hook.
    fn has(&self, hook: Hook) -> bool {
        match hook {
            Hook::External | Hook::Underlay => true,
            Hook::UnderlayEgress | Hook::RouterPortEgress => self.kind() == Kind::Tc,
        }
    }
    /// Runs one frame on fresh tables.
    ///
    /// # Errors
    /// The kernel refused.
    fn run(&mut self, hook: Hook, tables: &Tables, frame: &[u8]) -> anyhow::Result<Seen>;
}
