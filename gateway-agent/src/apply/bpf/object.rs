//! Where the BPF object comes from.

use std::borrow::Cow;
use std::path::Path;

use super::BpfError;

/// The object that the agent was built with; empty when there was none.
static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/gateway-ebpf"));

/// The ELF file of `path`, or the one inside this program.
///
/// # Errors
/// [`BpfError::NoObject`], [`BpfError::ReadObject`].
pub fn object(path: Option<&Path>) -> Result<Cow<'static, [u8]>, BpfError> {
    match path {
        Some(path) => std::fs::read(path)
            .map(Cow::Owned)
            .map_err(|source| BpfError::ReadObject { path: path.to_owned(), source }),
        None if EMBEDDED.is_empty() => Err(BpfError::NoObject),
        None => Ok(Cow::Borrowed(EMBEDDED)),
    }
}
