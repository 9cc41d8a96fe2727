//! The fuzzers' corpus in `tests/fuzz/corpus`: the frame of every row, under the row's name, and finds.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gateway_ebpf::datapath::Hook;

use crate::rows;

/// Name of a seed: everything that comes from a row starts so.
const PREFIX: &str = "row-";

/// The corpora.
pub fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus"))
}

/// The target that takes a hook's frames as they are.
pub const fn raw_target(hook: Hook) -> &'static str {
    match hook {
        Hook::External => "external_raw",
        Hook::Underlay => "underlay_raw",
        Hook::UnderlayEgress => "underlay_egress_raw",
        Hook::RouterPortEgress => "router_port_raw",
    }
}

/// The target that builds a hook's frames.
pub const fn structured_target(hook: Hook) -> &'static str {
    match hook {
        Hook::External => "external",
        Hook::Underlay => "underlay",
        Hook::UnderlayEgress => "underlay_egress",
        Hook::RouterPortEgress => "router_port",
    }
}

/// What the rows seed: file by file, relative to [`folder`]. The same frame twice is there once.
pub fn seeds() -> BTreeMap<PathBuf, Vec<u8>> {
    let mut seeds: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    for row in rows::all() {
        let folder = Path::new(raw_target(row.hook));
        if seeds.iter().any(|(path, frame)| path.starts_with(folder) && *frame == row.frame) {
            continue;
        }
        let name = file_name(row.name);
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let free = std::iter::once(name.clone()).chain(numbered).map(|name| folder.join(name));
        if let Some(path) = free.into_iter().find(|path| !seeds.contains_key(path)) {
            seeds.insert(path, row.frame);
        }
    }
    seeds
}

/// A row's name as a file's.
fn file_name(row: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' };
    let words: String = row.chars().map(plain).collect();
    let words: Vec<&str> = words.split_whitespace().collect();
    format!("{PREFIX}{}", words.join("-"))
}

/// Every file of a target's corpus with its contents.
///
/// # Errors
/// The folder cannot be read.
pub fn files(target: &str) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let entries = fs::read_dir(folder().join(target))?;
    entries
        .map(|entry| {
            let path = entry?.path();
            let bytes = fs::read(&path)?;
            Ok((path, bytes))
        })
        .collect()
}

/// What is in the repository and comes from a row.
///
/// # Errors
/// A folder cannot be read.
pub fn committed_seeds() -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for hook in super::HOOKS {
        let target = raw_target(hook);
        for (path, bytes) in files(target)? {
            let name = path.file_name().unwrap_or_default().to_owned();
            if name.to_string_lossy().starts_with(PREFIX) {
                found.insert(Path::new(target).join(name), bytes);
            }
        }
    }
    Ok(found)
}

/// Writes the seeds and removes those whose row is gone.
///
/// # Errors
/// A file cannot be written or removed.
pub fn write_seeds() -> io::Result<usize> {
    for hook in super::HOOKS {
        fs::create_dir_all(folder().join(raw_target(hook)))?;
    }
    let seeds = seeds();
    for path in committed_seeds()?.keys().filter(|path| !seeds.contains_key(*path)) {
        fs::remove_file(folder().join(path))?;
    }
    for (path, frame) in &seeds {
        fs::write(folder().join(path), frame)?;
    }
    Ok(seeds.len())
}
