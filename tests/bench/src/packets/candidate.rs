//! What is measured: a program on a frame, and what must come of it.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use aya::programs::ProgramFd;

use super::{
    frames::Pair,
    harness::{Harness, Ran, Restore},
};

/// Return codes of XDP programs.
pub(crate) const PASS: u32 = 2;
pub(crate) const TX: u32 = 3;
pub(crate) const REDIRECT: u32 = 4;
/// The tunnel's source port, which the plain programs choose in a way of their own.
pub(crate) const SOURCE_PORT: Range<usize> = 34..36;

/// A program on a frame.
pub(crate) struct Candidate {
    /// Name in figures.
    pub(crate) name: String,
    /// Whose time its own is divided by, in figures of ratios.
    pub(crate) per: Option<String>,
    /// What we want its time to stay below, nanoseconds.
    pub(crate) net_below: Option<f64>,
    /// What we want the ratio to stay below.
    pub(crate) ratio_below: Option<f64>,
    /// How the frame comes back.
    pub(crate) restore: Restore,
    /// EIPs the frame is drawn from.
    pub(crate) eips: u32,
    /// The program.
    pub(crate) program: ProgramFd,
    /// The frame, of the first EIP, and what it becomes.
    pub(crate) pair: Pair,
    /// Bytes of the frame out that nobody asks for: the tunnel's source port of the plain programs.
    pub(crate) free: Range<usize>,
    /// The return code.
    pub(crate) code: u32,
    /// Whatever becomes of the frame is fine: an experiment.
    pub(crate) unchecked: bool,
}

impl Candidate {
    /// A program on one frame that stays the same.
    pub(crate) fn new(name: &str, program: ProgramFd, pair: Pair, code: u32) -> Self {
        let fits = |restore: &Restore| restore.len() == pair.before.len();
        let restore = [Restore::Padded, Restore::Short].into_iter().find(fits).unwrap_or(Restore::Tunnelled);
        Self {
            name: name.to_owned(),
            per: None,
            net_below: None,
            ratio_below: None,
            restore,
            eips: 1,
            program,
            pair,
            free: 0..0,
            code,
            unchecked: false,
        }
    }

    /// The same, with a ratio to another candidate.
    pub(crate) fn per(mut self, other: &str) -> Self {
        self.per = Some(other.to_owned());
        self
    }

    /// The same, with what we want its time to stay below, nanoseconds.
    pub(crate) fn net_below(mut self, ns: f64) -> Self {
        self.net_below = Some(ns);
        self
    }

    /// The same, with what we want its ratio to stay below.
    pub(crate) fn ratio_below(mut self, ratio: impl Into<Option<f64>>) -> Self {
        self.ratio_below = ratio.into();
        self
    }

    /// The same, with bytes of the frame out that may be anything.
    pub(crate) fn free(mut self, bytes: Range<usize>) -> Self {
        self.free = bytes;
        self
    }

    /// The same, drawn from many EIPs in random order.
    pub(crate) fn of_many(mut self, eips: u32) -> Self {
        self.restore = match self.restore {
            Restore::Padded | Restore::Short | Restore::NextEip => Restore::NextEip,
            Restore::Tunnelled | Restore::NextPod => Restore::NextPod,
        };
        self.eips = eips;
        self
    }

    /// How often it runs at a time: each EIP gets a packet.
    pub(crate) fn repeat(&self, packets: u32) -> u32 {
        packets.max(self.eips)
    }

    /// Runs it so many times or more, and looks at what the last run did.
    pub(crate) fn run(&self, harness: &mut Harness, packets: u32) -> Result<f64> {
        let ran = harness
            .run((self.restore, &self.pair.before), self.eips, &self.program, self.repeat(packets))
            .with_context(|| format!("running {}", self.name))?;
        self.check(&ran)?;
        Ok(ran.ns)
    }

    /// The harness alone, on the same frame.
    pub(crate) fn run_nothing(&self, harness: &mut Harness, packets: u32) -> Result<f64> {
        let (nothing, repeat) = (harness.nothing()?, self.repeat(packets));
        let ran = harness.run((self.restore, &self.pair.before), self.eips, &nothing, repeat)?;
        ensure!(ran.code == TX && ran.frame.len() == self.pair.before.len(), "the harness does not restore");
        Ok(ran.ns)
    }

    fn check(&self, ran: &Ran) -> Result<()> {
        if self.unchecked {
            return Ok(());
        }
        let Self { name, pair, code, .. } = self;
        ensure!(ran.code == *code, "{name} ended with {} and not {code}", ran.code);
        let (is, mut asked) = (&ran.frame, pair.after.clone());
        ensure!(is.len() == asked.len(), "{name} left {} bytes and not {}", is.len(), asked.len());
        asked[self.free.clone()].copy_from_slice(&is[self.free.clone()]);
        // One of many leaves its own addresses.
        ensure!(self.eips > 1 || *is == asked, "{name} left\n{is:02x?}\nand not\n{asked:02x?}");
        Ok(())
    }
}
