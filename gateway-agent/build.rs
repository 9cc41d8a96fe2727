//! Puts the BPF object that `cargo xtask build` made where the agent embeds it.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-env-changed=EIP_GATEWAY_EBPF_OBJECT");
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let object = env::var_os("EIP_GATEWAY_EBPF_OBJECT")
        .map_or_else(|| manifest.join("../target/ebpf/gateway-ebpf"), PathBuf::from);
    println!("cargo:rerun-if-changed={}", object.display());
    let embedded = Path::new(&env::var_os("OUT_DIR").unwrap_or_default()).join("gateway-ebpf");
    let bytes = fs::read(&object).unwrap_or_else(|error| {
        println!(
            "cargo:warning=no BPF object at {} ({error}): this gateway-agent needs --object, or `cargo xtask build` first",
            object.display()
        );
        Vec::new()
    });
    if let Err(error) = fs::write(&embedded, bytes) {
        println!("cargo:warning=cannot write {}: {error}", embedded.display());
    }
}
