//! What the agent needs of this machine: privilege, a kernel that is new enough, and nft. Asked before anything is
//! touched, so that the answer is one line and not the first of many failed steps.

use std::process::Stdio;
use std::{fs, io};

use crate::apply::nft::NftError;

/// Oldest kernel the agent is made for.
const KERNEL: (u32, u32) = (6, 1);
/// Effective capabilities of this process, among others.
const STATUS: &str = "/proc/self/status";
/// What `uname -r` prints.
const RELEASE: &str = "/proc/sys/kernel/osrelease";

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// `gateway-agent run`.
    Run,
    /// `gateway-agent teardown`.
    Teardown,
}

/// Why it cannot be done here.
#[derive(Debug, thiserror::Error)]
pub enum RequirementError {
    /// Capabilities are missing.
    #[error(
        "missing privilege: {}; run gateway-agent as root, or give it these capabilities \
         (in a pod: securityContext.capabilities.add)",
        missing.join(", ")
    )]
    Privilege {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// The kernel lacks what the programs are built on.
    #[error("kernel {release} is too old; boot Linux {}.{} or newer on this node", KERNEL.0, KERNEL.1)]
    Kernel {
        /// What `uname -r` prints.
        release: String,
    },
    /// The program nft cannot be used.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// `/proc` does not answer.
    #[error("cannot read {path}: {source}; mount /proc")]
    Proc {
        /// Path of the file.
        path: &'static str,
        /// Cause.
        source: io::Error,
    },
}

/// Checks that this process, kernel and machine can do it.
///
/// # Errors
/// [`RequirementError`] of the first thing that is missing.
pub fn check(purpose: Purpose) -> Result<(), RequirementError> {
    let missing = missing(purpose, effective(&read(STATUS)?));
    if !missing.is_empty() {
        return Err(RequirementError::Privilege { missing });
    }
    if purpose == Purpose::Teardown {
        return Ok(());
    }
    let release = read(RELEASE)?.trim().to_owned();
    if is_too_old(&release) {
        return Err(RequirementError::Kernel { release });
    }
    nft()?;
    Ok(())
}

fn read(path: &'static str) -> Result<String, RequirementError> {
    fs::read_to_string(path).map_err(|source| RequirementError::Proc { path, source })
}

/// A capability by its name and its bit, `linux/capability.h`.
type Capability = (&'static str, u32);
const NET_ADMIN: Capability = ("CAP_NET_ADMIN", 12);
const NET_RAW: Capability = ("CAP_NET_RAW", 13);
const SYS_ADMIN: Capability = ("CAP_SYS_ADMIN", 21);
const PERFMON: Capability = ("CAP_PERFMON", 38);
const BPF: Capability = ("CAP_BPF", 39);

/// The mask of the line `CapEff`; nothing when there is none.
fn effective(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

/// Names of the capabilities that are needed and not in `mask`.
fn missing(purpose: Purpose, mask: u64) -> Vec<&'static str> {
    let has = |(_, bit): Capability| mask & (1 << bit) != 0;
    // Whoever has CAP_SYS_ADMIN has those that were split off from it (capabilities(7)).
    let (needed, bpf): (&[Capability], &[Capability]) = match purpose {
        Purpose::Run => (&[NET_ADMIN, NET_RAW], &[BPF, PERFMON]),
        Purpose::Teardown => (&[NET_ADMIN], &[BPF]),
    };
    let bpf = bpf.iter().filter(|_| !has(SYS_ADMIN));
    needed.iter().chain(bpf).filter(|capability| !has(**capability)).map(|(name, _)| *name).collect()
}

/// Whether a release is of a kernel that is too old. One that cannot be read is given the benefit of the doubt.
fn is_too_old(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < KERNEL,
        _ => false,
    }
}

fn nft() -> Result<(), NftError> {
    let status = std::process::Command::new("nft")
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(NftError::Run { source: io::Error::other(status.to_string()) }),
        Err(source) => Err(NftError::Run { source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(capabilities: &[Capability]) -> u64 {
        capabilities.iter().fold(0, |mask, (_, bit)| mask | 1 << bit)
    }

    #[test]
    fn missing_capabilities_are_named() {
        for (held, run, teardown) in [
            (vec![], "CAP_NET_ADMIN CAP_NET_RAW CAP_BPF CAP_PERFMON", "CAP_NET_ADMIN CAP_BPF"),
            (vec![NET_ADMIN, BPF, PERFMON, NET_RAW], "", ""),
            (vec![NET_ADMIN, NET_RAW, SYS_ADMIN], "", ""),
            (vec![NET_ADMIN, NET_RAW, BPF], "CAP_PERFMON", ""),
            (vec![SYS_ADMIN, NET_ADMIN], "CAP_NET_RAW", ""),
            (vec![SYS_ADMIN], "CAP_NET_ADMIN CAP_NET_RAW", "CAP_NET_ADMIN"),
        ] {
            assert_eq!(missing(Purpose::Run, mask(&held)).join(" "), run, "{held:?}");
            assert_eq!(missing(Purpose::Teardown, mask(&held)).join(" "), teardown, "{held:?}");
        }
    }

    #[test]
    fn the_effective_mask_is_read_as_the_kernel_writes_it() {
        let status = "Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t0000000000003000\nCapBnd:\t0\n";
        assert_eq!(effective(status), mask(&[NET_ADMIN, NET_RAW]));
        assert_eq!(effective("Name:\tx\n"), 0);
    }

    #[test]
    fn old_kernels_are_refused() {
        for (release, old) in [
            ("5.15.0-97-generic", true),
            ("6.0.19", true),
            ("6.1.0-18-amd64", false),
            ("6.1", false),
            ("6.12-rc1", false),
            ("10.0.0", false),
            ("unheard of", false),
        ] {
            assert_eq!(is_too_old(release), old, "{release}");
        }
    }

    #[test]
    fn a_refusal_names_what_is_missing_and_the_remedy() {
        let text = RequirementError::Privilege { missing: vec!["CAP_BPF", "CAP_NET_RAW"] }.to_string();
        assert!(
            text.starts_with("missing privilege: CAP_BPF, CAP_NET_RAW; run gateway-agent as root"),
            "{text}"
        );
        let text = RequirementError::Kernel { release: "5.10.0".to_owned() }.to_string();
        assert_eq!(text, "kernel 5.10.0 is too old; boot Linux 6.1 or newer on this node");
    }
}
