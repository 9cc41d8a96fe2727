//! Runs a program many times, each time on a fresh frame: `c/harness.c` restores it and tail-calls the program.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, TestRunResult,
    maps::{Array, ProgramArray},
    programs::{ProgramFd, SchedClassifier, TestRun, TestRunOptions, Xdp},
};
use nix::time::{ClockId, clock_gettime};

use super::{
    object,
    population::{FIRST_EIP, FIRST_NODE, FIRST_POD},
};

/// Bytes of `struct frame` before and in its `bytes`.
const HEAD: usize = 16;
const MAX_FRAME: usize = 128;
/// Room for the longest frame out.
const FRAME_OUT: usize = 512;
/// `struct frame`.
type Row = [u8; HEAD + MAX_FRAME];

/// How the frame comes back before each run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Restore {
    /// 60 bytes, the same each time, of which 6 may be cut off on the way into a tunnel.
    Padded,
    /// 64 bytes, the same each time.
    Short,
    /// 114 bytes, the same each time.
    Tunnelled,
    /// A UDP packet of 64 bytes to the next EIP.
    NextEip,
    /// The same through the tunnel, from the next pod: 114 bytes.
    NextPod,
}

impl Restore {
    const ALL: [Self; 5] = [Self::Padded, Self::Short, Self::Tunnelled, Self::NextEip, Self::NextPod];

    const fn program(self) -> &'static str {
        match self {
            Self::Padded => "restore_60",
            Self::Short => "restore_64",
            Self::Tunnelled => "restore_114",
            Self::NextEip => "restore_external",
            Self::NextPod => "restore_underlay",
        }
    }

    /// Length of the frame, bytes.
    pub(crate) const fn len(self) -> usize {
        match self {
            Self::Padded => 60,
            Self::Short | Self::NextEip => 64,
            Self::Tunnelled | Self::NextPod => 114,
        }
    }
}

/// What a number of runs came to.
pub(crate) struct Ran {
    /// Processor time per run, nanoseconds: the harness and the program in its slot.
    pub(crate) ns: f64,
    /// Return code of the last run.
    pub(crate) code: u32,
    /// Frame the last run left.
    pub(crate) frame: Vec<u8>,
}

/// The loaded harness.
pub(crate) struct Harness {
    object: Ebpf,
}

impl Harness {
    /// Loads it.
    pub(crate) fn load() -> Result<Self> {
        let path = object("harness");
        let mut object = Ebpf::load_file(&path).with_context(|| format!("loading {}", path.display()))?;
        let programs = Restore::ALL.map(Restore::program).into_iter().chain(["nothing"]);
        for name in programs {
            xdp(&mut object, name)?.load().with_context(|| format!("the kernel refuses {name}"))?;
        }
        nothing_skb(&mut object)?.load()?;
        Ok(Self { object })
    }

    /// The program that does nothing: in the slot, it makes the harness what others are compared with.
    pub(crate) fn nothing(&mut self) -> Result<ProgramFd> {
        Ok(xdp(&mut self.object, "nothing")?.fd()?.try_clone()?)
    }

    /// Runs `program` on fresh copies of a frame, `eips` addresses in random order where the frame varies.
    pub(crate) fn run(
        &mut self,
        (restore, frame): (Restore, &[u8]),
        eips: u32,
        program: &ProgramFd,
        repeat: u32,
    ) -> Result<Ran> {
        self.prepare((restore, frame), eips, program)?;
        test_run(xdp(&mut self.object, restore.program())?, frame, repeat)
    }

    fn prepare(&mut self, (restore, frame): (Restore, &[u8]), eips: u32, program: &ProgramFd) -> Result<()> {
        ensure!(frame.len() == restore.len(), "{restore:?} is not for a frame of {} bytes", frame.len());
        let mut rows: Array<_, Row> =
            Array::try_from(self.object.map_mut("frames").context("no map frames")?)?;
        rows.set(0, row(restore, frame, eips), 0)?;
        let mut slot = ProgramArray::try_from(self.object.map_mut("slot").context("no map slot")?)?;
        slot.set(0, program, 0).context("is the program xdp.frags, as the harness is?")
    }

    /// Runs the program that does nothing without the harness around it: what the kernel's test run itself takes.
    pub(crate) fn floor(&mut self, frame: &[u8], repeat: u32) -> Result<Ran> {
        test_run(xdp(&mut self.object, "nothing")?, frame, repeat)
    }

    /// Runs a program of TC on a frame that it leaves as it is: its time less that of one that does nothing, nanoseconds.
    pub(crate) fn run_skb(
        &mut self,
        frame: &[u8],
        (program, code): (&mut SchedClassifier, i32),
        repeat: u32,
    ) -> Result<f64> {
        let alone = test_run(nothing_skb(&mut self.object)?, frame, repeat)?;
        let ran = test_run(program, frame, repeat)?;
        ensure!(ran.code == code.cast_unsigned(), "ended with {} and not {code}", ran.code.cast_signed());
        ensure!(ran.frame == frame, "left\n{:02x?}\nand not\n{frame:02x?}", ran.frame);
        Ok(ran.ns - alone.ns)
    }
}

fn test_run<P>(program: &mut P, frame: &[u8], repeat: u32) -> Result<Ran>
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>,
{
    let mut out = vec![0; FRAME_OUT];
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.data_out = Some(&mut out);
    options.repeat = repeat;
    let since = processor_time()?;
    let result = program.test_run(options)?;
    let taken = processor_time()?.saturating_sub(since);
    out.truncate(result.data_size_out as usize);
    Ok(Ran { ns: taken.as_secs_f64() * 1e9 / f64::from(repeat), code: result.return_value, frame: out })
}

/// Of this thread: what others take of its CPU meanwhile does not count, and the kernel's own figure is whole nanoseconds.
pub(crate) fn processor_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

fn row(restore: Restore, frame: &[u8], eips: u32) -> Row {
    let address = match restore {
        Restore::Padded | Restore::Short | Restore::Tunnelled | Restore::NextEip => FIRST_EIP,
        Restore::NextPod => FIRST_POD,
    };
    let mut row = [0; HEAD + MAX_FRAME];
    let head = [eips - 1, 0, address.to_bits(), FIRST_NODE.to_bits()].map(u32::to_ne_bytes);
    row[..HEAD].copy_from_slice(head.as_flattened());
    row[HEAD..HEAD + frame.len()].copy_from_slice(frame);
    row
}

fn nothing_skb(object: &mut Ebpf) -> Result<&mut SchedClassifier> {
    Ok(object.program_mut("nothing_skb").context("no program nothing_skb")?.try_into()?)
}

fn xdp<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    Ok(object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}
