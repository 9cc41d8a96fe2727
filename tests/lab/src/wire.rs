//! The XDP program at the switch's end of a node's wire: it passes everything.
//!
//! A veth accepts XDP_REDIRECT when its peer polls, for which GRO is enough; but the kernel (`veth_xdp_flush`)
//! wakes the peer after XDP_TX only when it has an XDP program. Without one, a gateway's ARP replies would lie in
//! the ring until something else passes, which no physical wire does.

use anyhow::{Context, Result};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};

/// Section of the program; the suffix tells libbpf that it takes packets of several buffers, as jumbo frames are.
pub(crate) const SECTION: &str = "xdp.frags";

/// `r0 = XDP_PASS; exit`, two instructions of eight bytes.
const PASS: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// The object file that `ip link set … xdpdrv object` loads.
pub(crate) fn object_file() -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let program = object.add_section(Vec::new(), SECTION.into(), SectionKind::Text);
    object.append_section_data(program, &PASS, 8);
    object.add_symbol(Symbol {
        name: b"pass".to_vec(),
        value: 0,
        size: u64::try_from(PASS.len())?,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(program),
        flags: SymbolFlags::None,
    });
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"GPL\0", 1);
    object.write().context("writing the wire's XDP program")
}
