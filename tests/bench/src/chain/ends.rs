//! The programs of `c/hop.c`, each loaded for its place in a chain.
//!
//! What sends is in [`super::sender`].

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{DevMap, PerCpuArray},
    programs::{ProgramFd, SchedClassifier, TcAttachType, Xdp, XdpMode, tc},
};
use gateway_common::addr::Mac;

use crate::packets::object;

/// What a 32-bit word of a frame is to be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Word {
    /// Offset in the frame, bytes.
    pub(crate) at: u32,
    /// Bits that are looked at.
    pub(crate) mask: [u8; 4],
    /// Their values; the others zero.
    pub(crate) is: [u8; 4],
}

/// Words that tell the frame that is to arrive from others; all zero for any frame.
pub(crate) type Expected = [Word; 3];

/// `struct macs`: destination, source.
type Macs = [[u8; 6]; 2];

/// Something loaded and attached; detached when dropped.
#[derive(Debug)]
pub(crate) struct End {
    object: Ebpf,
}

impl End {
    fn load(macs: Macs, expected: Expected) -> Result<Self> {
        let path = object("hop");
        let words = expected.map(|word| [word.at.to_ne_bytes(), word.mask, word.is]);
        let words: Vec<u8> = words.as_flattened().as_flattened().to_vec();
        let mut loader = EbpfLoader::new();
        loader.override_global("macs", &macs, true);
        loader.override_global("expected", words.as_slice(), true);
        let object = loader.load_file(&path).with_context(|| format!("loading {}", path.display()))?;
        Ok(Self { object })
    }

    /// A hop that only writes MACs, between two interfaces of this thread's namespace.
    pub(crate) fn forward(from: u32, to: u32, destination: Mac, source: Mac) -> Result<Self> {
        let mut end = Self::load([destination.0, source.0], Expected::default())?;
        let mut wire = DevMap::try_from(end.object.map_mut("wire").context("no map wire")?)?;
        wire.set(0, to, None, 0)?;
        end.attach("forward", from)?;
        Ok(end)
    }

    /// The program of [`End::forward`], to be run by itself.
    pub(crate) fn forwarder(&mut self) -> Result<ProgramFd> {
        Ok(self.xdp("forward")?.fd()?.try_clone()?)
    }

    /// Counts at an interface of this thread's namespace, in XDP, and ends what it counts.
    pub(crate) fn counter(ifindex: u32, expected: Expected) -> Result<Self> {
        let mut end = Self::load(Macs::default(), expected)?;
        end.attach("count", ifindex)?;
        Ok(end)
    }

    /// The same in TC: for packets that XDP would have to copy first.
    pub(crate) fn counter_of_skbs(interface: &str, expected: Expected) -> Result<Self> {
        let mut end = Self::load(Macs::default(), expected)?;
        tc::qdisc_add_clsact(interface)?;
        let program = end.object.program_mut("count_skb").context("no program count_skb")?;
        let program: &mut SchedClassifier = program.try_into()?;
        program.load()?;
        program.attach(interface, TcAttachType::Ingress)?;
        Ok(end)
    }

    /// Frames that were as expected.
    pub(crate) fn counted(&self) -> Result<u64> {
        let counted: PerCpuArray<_, u64> =
            PerCpuArray::try_from(self.object.map("counted").context("no map counted")?)?;
        Ok(counted.get(&0, 0)?.iter().sum())
    }

    fn attach(&mut self, program: &str, ifindex: u32) -> Result<()> {
        let program = self.xdp(program)?;
        program.load()?;
        program.attach_to_if_index(ifindex, XdpMode::Driver)?;
        Ok(())
    }

    fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        Ok(self.object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
    }
}

/// Whether nothing was lost on the way: what did not arrive was another packet, or came later.
pub(crate) fn require_all(name: &str, received: u64, sent: u64) -> Result<()> {
    ensure!(
        received <= sent && received * 100 >= sent * 99,
        "{name}: {received} of {sent} packets arrived as they should"
    );
    Ok(())
}
