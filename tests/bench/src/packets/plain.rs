//! The plain programs of `c/plain.c`, or their twin of `ebpf` in Rust, loaded, with room for a population.

use anyhow::{Context, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map},
    programs::{ProgramFd, Xdp},
};

use super::{
    object,
    population::{PlainRow, Population, settings},
};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Empty,
    SwapMacs,
    LookUp,
    Redirect,
    InHash,
    InArray,
    OutHash,
    OutArray,
}

impl Program {
    const ALL: [Self; 8] = [
        Self::Empty,
        Self::SwapMacs,
        Self::LookUp,
        Self::Redirect,
        Self::InHash,
        Self::InArray,
        Self::OutHash,
        Self::OutArray,
    ];
    /// Those that take a packet in or out.
    pub(crate) const PATHS: [Self; 4] = [Self::InHash, Self::InArray, Self::OutHash, Self::OutArray];

    const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::SwapMacs => "swap_macs",
            Self::LookUp => "look_up",
            Self::Redirect => "redirect",
            Self::InHash => "in_hash",
            Self::InArray => "in_array",
            Self::OutHash => "out_hash",
            Self::OutArray => "out_array",
        }
    }
}

/// What the programs are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    C,
    /// The ways in and out alone.
    Rust,
}

impl Language {
    const fn object(self) -> &'static str {
        match self {
            Self::C => "plain",
            Self::Rust => "twin",
        }
    }

    const fn programs(self) -> &'static [Program] {
        match self {
            Self::C => &Program::ALL,
            Self::Rust => &Program::PATHS,
        }
    }
}

/// The loaded object.
pub(crate) struct Plain {
    object: Ebpf,
}

impl Plain {
    /// Loads it and fills its tables.
    pub(crate) fn load(language: Language, population: Population) -> Result<Self> {
        let (path, settings) = (object(language.object()), settings());
        let mut loader = EbpfLoader::new();
        loader.override_global("settings", &settings, true);
        for map in ["plain_eips", "plain_pods", "cidr_eips", "cidr_pods"] {
            loader.map_max_entries(map, population.capacity());
        }
        let object = loader.load_file(&path).with_context(|| format!("loading {}", path.display()))?;
        let mut plain = Self { object };
        plain.fill("plain_eips", "cidr_eips", population.plain_eips())?;
        plain.fill("plain_pods", "cidr_pods", population.plain_pods())?;
        for program in language.programs() {
            let name = program.name();
            plain.xdp(*program)?.load().with_context(|| format!("the kernel refuses {name}"))?;
        }
        Ok(plain)
    }

    /// For a tail call.
    pub(crate) fn fd(&mut self, program: Program) -> Result<ProgramFd> {
        Ok(self.xdp(program)?.fd()?.try_clone()?)
    }

    /// Instructions of a program as the kernel has them after verification, and bytes of machine code they became.
    pub(crate) fn size(&mut self, program: Program) -> Result<(u32, u32)> {
        /// Bytes of an instruction.
        const INSTRUCTION: u32 = 8;
        let info = self.xdp(program)?.info()?;
        let translated = info.size_translated().context("the kernel does not show instructions")?;
        Ok((translated / INSTRUCTION, info.size_jitted()))
    }

    /// Every map of the object.
    pub(crate) fn maps(&self) -> impl Iterator<Item = (&str, &Map)> {
        self.object.maps()
    }

    fn xdp(&mut self, program: Program) -> Result<&mut Xdp> {
        let name = program.name();
        Ok(self.object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
    }

    fn fill(
        &mut self,
        hash: &str,
        array: &str,
        rows: impl Iterator<Item = Result<([u8; 4], PlainRow)>>,
    ) -> Result<()> {
        let [hash, array] =
            self.object.maps_disjoint_mut([hash, array]).map(|map| map.context("no such map"));
        let mut hash: HashMap<_, [u8; 4], PlainRow> = HashMap::try_from(hash?)?;
        let mut array: Array<_, PlainRow> = Array::try_from(array?)?;
        for (index, row) in (0..).zip(rows) {
            let (key, row) = row?;
            hash.insert(key, row, 0)?;
            array.set(index, row, 0)?;
        }
        Ok(())
    }
}
