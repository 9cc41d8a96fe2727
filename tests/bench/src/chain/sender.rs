//! The sending end of a chain: `c/send.c`, with its frames.

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf,
    maps::{Array, DevMap},
    programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp},
};

use super::flow::EIPS;
use crate::packets::object;

/// Bytes of `struct frame`.
const MAX_FRAME: usize = 128;
/// Live frames in flight at a time: what drivers take from a ring at a time.
const BATCH: u32 = 64;

/// Sends frames that were made before, one after the other, and again from the first.
#[derive(Debug)]
pub(crate) struct Sender {
    object: Ebpf,
    program: &'static str,
    first: Vec<u8>,
}

impl Sender {
    /// Loads it: [`EIPS`] frames, all of 64 or all of 114 bytes.
    pub(crate) fn load(frames: &[Vec<u8>]) -> Result<Self> {
        let first = frames.first().context("no frame to send")?.clone();
        let program = match first.len() {
            64 => "send_64",
            114 => "send_114",
            other => bail!("frames of {other} bytes cannot be sent: c/send.c has no program for them"),
        };
        ensure!(
            frames.len() == EIPS as usize && frames.iter().all(|frame| frame.len() == first.len()),
            "{} frames of several lengths: {EIPS} of one are to be sent",
            frames.len()
        );
        let path = object("send");
        let mut object = Ebpf::load_file(&path).with_context(|| format!("loading {}", path.display()))?;
        let mut rows: Array<_, [u8; MAX_FRAME]> =
            Array::try_from(object.map_mut("frames").context("no map frames")?)?;
        for (index, frame) in (0..).zip(frames) {
            let mut row = [0; MAX_FRAME];
            row[..frame.len()].copy_from_slice(frame);
            rows.set(index, row, 0)?;
        }
        let mut sender = Self { object, program, first };
        sender.xdp()?.load().with_context(|| format!("the kernel refuses {program}"))?;
        Ok(sender)
    }

    /// Sends that many out of an interface of this thread's namespace, as a NIC would receive them; returns when all are on
    /// their way.
    pub(crate) fn send(&mut self, ifindex: u32, packets: u32) -> Result<()> {
        let mut wire = DevMap::try_from(self.object.map_mut("wire").context("no map wire")?)?;
        wire.set(0, ifindex, None, 0)?;
        let first = self.first.clone();
        let mut options = TestRunOptions::new();
        options.data_in = Some(&first);
        options.repeat = packets;
        options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        self.xdp()?.test_run(options).context("sending live frames")?;
        Ok(())
    }

    fn xdp(&mut self) -> Result<&mut Xdp> {
        let program = self.object.program_mut(self.program).context("no program in send.c")?;
        Ok(program.try_into()?)
    }
}
