//! The BPF object, and how it comes into the kernel.

use std::borrow::Cow;
use std::path::Path;

use aya::EbpfLoader;
use aya::util::nr_cpus;
use gateway_common::tables::{MAX_EIPS, counter_row, name};
use tracing::warn;

use super::{BpfError, Loaded, Maps, pins};

/// The object that the agent was built with; empty when there was none.
static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/gateway-ebpf"));

/// The ELF file of `path`, or the one inside this program.
///
/// # Errors
/// [`BpfError::NoObject`], [`BpfError::ReadObject`].
pub fn elf(path: Option<&Path>) -> Result<Cow<'static, [u8]>, BpfError> {
    match path {
        Some(path) => std::fs::read(path)
            .map(Cow::Owned)
            .map_err(|source| BpfError::ReadObject { path: path.to_owned(), source }),
        None if EMBEDDED.is_empty() => Err(BpfError::NoObject),
        None => Ok(Cow::Borrowed(EMBEDDED)),
    }
}

/// An ELF file with programs and tables, and what loads it.
#[derive(Debug)]
pub struct Object {
    elf: Cow<'static, [u8]>,
    loader: EbpfLoader<'static>,
}

impl Object {
    /// [`elf`], and a loader.
    ///
    /// It is to be opened before there is much else: aya makes a loader from the kernel's BTF, which takes some 20 MiB for a
    /// moment, though nothing in our object refers to the kernel's types.
    ///
    /// # Errors
    /// [`BpfError::NoObject`], [`BpfError::ReadObject`].
    pub fn open(path: Option<&Path>) -> Result<Self, BpfError> {
        let elf = elf(path)?;
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        Ok(Self { elf, loader })
    }

    /// Loads it, takes over the tables pinned under `pin`, and pins those that are not. Pins of another ABI version or
    /// size are replaced.
    ///
    /// # Errors
    /// [`BpfError`].
    pub fn load(&mut self, pin: &Path) -> Result<Loaded, BpfError> {
        let cpus = nr_cpus().map_err(|(path, source)| BpfError::Cpus { path, source })?;
        let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
        if let Some(difference) = pins::incompatible(pin, cpus)? {
            warn!(pin = %pin.display(), difference, "the pinned tables are of another version and are replaced");
            pins::remove_maps(pin)?;
        }
        self.loader.map_max_entries(name::EIP_COUNTERS, counter_row(MAX_EIPS, cpus, 0));
        for map in name::ALL {
            self.loader.map_pin_path(map, pin.join(map));
        }
        let mut ebpf = self.loader.load(&self.elf).map_err(|source| BpfError::Load { source })?;
        let maps = Maps::new(|name| ebpf.take_map(name).ok_or(BpfError::NoMap { name }))?;
        Ok(Loaded { ebpf, maps })
    }
}
