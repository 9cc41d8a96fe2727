//! Folders of this process and its children alone: what is in them goes with the last of these, whatever ends us.

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// File systems that others write into as well: Open vSwitch its sockets, libxdp a folder for its pins.
const OURS: [(&str, &str); 2] = [("tmpfs", "/run"), ("bpf", "/sys/fs/bpf")];

/// Gives this thread, and those that it starts, empty ones of their own. For the main thread, before there are others.
pub(crate) fn private() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace, which needs root")?;
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .context("keeping mounts to ourselves")?;
    for (kind, place) in OURS {
        mount(Some(kind), place, Some(kind), MsFlags::empty(), nothing)
            .with_context(|| format!("mounting {kind} on {place}"))?;
    }
    Ok(())
}
