//! Programs on their hooks.
//!
//! Each link is pinned as `link_<program>`, so the data path outlives the agent; the next agent puts its program into
//! the same link, atomically. A hook whose NIC was re-created gets a new link. XDP is native where the driver can,
//! else the TC twin does the work alone. TC programs use tcx links (Linux 6.6), before that clsact.

mod tc;
mod xdp;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::pin::PinError;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::TcError;
use aya::programs::{ProgramError, SchedClassifier, Xdp};
use rtnetlink::Handle;
use tracing::info;

use crate::apply::bpf::{BpfError, link_pin, remove};
use crate::apply::causes;
use crate::desired::Hook;
use crate::desired::problem::{Kind, Problem};
use crate::snapshot::Link;

/// All hooks.
pub const HOOKS: [Hook; 6] = [
    Hook::XdpExternal,
    Hook::TcExternal,
    Hook::XdpUnderlay,
    Hook::TcUnderlay,
    Hook::TcUnderlayEgress,
    Hook::TcRouterPort,
];

/// Why a program is not on its hook.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The NIC is missing.
    #[error("NIC {nic} for {program} does not exist; it is attached as soon as the NIC appears")]
    NoNic {
        /// Name of the NIC.
        nic: String,
        /// Name of the program.
        program: &'static str,
    },
    /// The object is not of this agent.
    #[error(
        "the BPF object has no program {program} of the right type; build it anew by `cargo xtask build`"
    )]
    NoProgram {
        /// Name of the program.
        program: &'static str,
    },
    /// The verifier refused.
    #[error("the kernel refused program {program}: {}; report this together with `uname -r`", causes(source))]
    Load {
        /// Name of the program.
        program: &'static str,
        /// Cause, with the verifier's log.
        source: Box<ProgramError>,
    },
    /// The NIC refused.
    #[error(
        "cannot attach {program} to {nic}: {}; check `bpftool net` for another program there",
        causes(source)
    )]
    Attach {
        /// Name of the NIC.
        nic: String,
        /// Name of the program.
        program: &'static str,
        /// Cause.
        source: Box<ProgramError>,
    },
    /// clsact cannot be used.
    #[error("cannot use clsact on {nic}: {}; it needs the kernel module sch_ingress", causes(source))]
    Clsact {
        /// Name of the NIC.
        nic: String,
        /// Cause.
        source: TcError,
    },
    /// The link has no file descriptor or is of another kind.
    #[error("the link of {program} cannot be pinned: {}; it needs Linux 5.9 or newer", causes(source))]
    Link {
        /// Name of the program.
        program: &'static str,
        /// Cause.
        source: LinkError,
    },
    /// The link could not be pinned.
    #[error("cannot pin the link of {program}: {}; check --pin-path", causes(source))]
    Pin {
        /// Name of the program.
        program: &'static str,
        /// Cause.
        source: PinError,
    },
    /// A pin could not be removed.
    #[error(transparent)]
    Bpf(#[from] BpfError),
}

/// How a program is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// XDP in the driver.
    Native,
    /// No XDP: the TC twin alone.
    TwinOnly,
    /// A tcx link.
    Tcx,
    /// A clsact filter.
    Clsact,
}

impl Mode {
    /// The word shown to people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::TwinOnly => "none",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// What was done for a hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Done {
    mode: Mode,
    /// The link of an earlier agent was taken over.
    adopted: bool,
}

/// A program on its hook.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Attached {
    nic: String,
    ifindex: u32,
    mode: Mode,
}

/// The hooks of this node, and what is on them.
#[derive(Debug)]
pub struct Attachments {
    pin: PathBuf,
    held: BTreeMap<Hook, Attached>,
}

impl Attachments {
    /// Nothing attached by us yet; links pinned under `pin` by an earlier agent are taken over.
    pub fn new(pin: &Path) -> Self {
        Self { pin: pin.to_owned(), held: BTreeMap::new() }
    }

    /// Makes the hooks as wanted: hook → NIC. With `verify`, what is attached is checked against the kernel. Returns
    /// how many hooks changed, and the errors.
    pub async fn apply(
        &mut self,
        ebpf: &mut Ebpf,
        handle: &Handle,
        links: &BTreeMap<String, Link>,
        wanted: &BTreeMap<Hook, String>,
        verify: bool,
    ) -> (usize, Vec<AttachError>) {
        let (mut changed, mut errors) = (0, Vec::new());
        for hook in HOOKS {
            let result = match wanted.get(&hook) {
                Some(nic) => self.ensure(ebpf, handle, links, hook, nic, verify).await,
                None => self.release(hook),
            };
            match result {
                Ok(written) => changed += usize::from(written),
                Err(error) => errors.push(error),
            }
        }
        (changed, errors)
    }

    /// Where XDP is not native: by hook in a stable order.
    pub fn warnings(&self) -> Vec<Problem> {
        let fallbacks = self.held.iter().filter_map(|(hook, attached)| match attached.mode {
            Mode::TwinOnly => Some(Problem {
                kind: Kind::Warning,
                object: format!("NIC {}", attached.nic),
                field: hook.program().to_owned(),
                message: "native XDP is refused, the TC program does the work alone".to_owned(),
                remedy: "expect less throughput, or use a NIC and an MTU with native XDP; `bpftool net` shows whether \
                         another program sits there"
                    .to_owned(),
            }),
            Mode::Native | Mode::Tcx | Mode::Clsact => None,
        });
        fallbacks.collect()
    }

    async fn ensure(
        &mut self,
        ebpf: &mut Ebpf,
        handle: &Handle,
        links: &BTreeMap<String, Link>,
        hook: Hook,
        nic: &str,
        verify: bool,
    ) -> Result<bool, AttachError> {
        let program = hook.program();
        let Some(link) = links.get(nic) else {
            self.held.remove(&hook);
            return Err(AttachError::NoNic { nic: nic.to_owned(), program });
        };
        if let Some(held) = self.held.get(&hook)
            && held.nic == nic
            && held.ifindex == link.ifindex
            && (!verify || still_there(ebpf, handle, hook, held).await)
        {
            return Ok(false);
        }
        let place = Place { handle, nic, ifindex: link.ifindex, hook, pin: link_pin(&self.pin, hook) };
        let done = match hook {
            Hook::XdpExternal | Hook::XdpUnderlay => xdp::attach(xdp_program(ebpf, program)?, &place).await?,
            Hook::TcExternal | Hook::TcUnderlay | Hook::TcUnderlayEgress | Hook::TcRouterPort => {
                tc::attach(tc_program(ebpf, program)?, &place)?
            }
        };
        info!(program, nic, mode = done.mode.name(), adopted = done.adopted, "program attached");
        let attached = Attached { nic: nic.to_owned(), ifindex: link.ifindex, mode: done.mode };
        self.held.insert(hook, attached);
        Ok(true)
    }

    fn release(&mut self, hook: Hook) -> Result<bool, AttachError> {
        let held = self.held.remove(&hook);
        let mut removed = remove(&link_pin(&self.pin, hook))?;
        if let Some(held) = &held
            && held.mode == Mode::Clsact
        {
            removed |= tc::detach_clsact(&held.nic, hook)?;
        }
        if removed {
            info!(program = hook.program(), "program detached");
        }
        Ok(removed)
    }
}

/// Detaches everything pinned under `pin`, and filters of ours on any of `nics`. Returns the names of the programs.
///
/// # Errors
/// [`AttachError`] of the first that could not be detached.
pub fn detach_all(pin: &Path, nics: &[String]) -> Result<Vec<&'static str>, AttachError> {
    let mut detached = Vec::new();
    for hook in HOOKS {
        let mut removed = remove(&link_pin(pin, hook))?;
        for nic in nics {
            removed |= tc::detach_clsact(nic, hook)?;
        }
        if removed {
            detached.push(hook.program());
        }
    }
    Ok(detached)
}

/// Where a program goes.
struct Place<'a> {
    handle: &'a Handle,
    nic: &'a str,
    ifindex: u32,
    hook: Hook,
    pin: PathBuf,
}

impl Place<'_> {
    fn refused(&self, source: ProgramError) -> AttachError {
        AttachError::Attach {
            nic: self.nic.to_owned(),
            program: self.hook.program(),
            source: Box::new(source),
        }
    }

    /// The link pinned by an earlier agent, if it is one of the `programs` on the NIC; a pin of anything else is
    /// removed. Where the kernel does not tell the programs, the link itself says which NIC it is on.
    fn pinned(&self, programs: Option<&[u32]>) -> Result<Option<FdLink>, AttachError> {
        let Ok(pinned) = PinnedLink::from_pin(&self.pin) else {
            remove(&self.pin)?;
            return Ok(None);
        };
        let link = FdLink::from(pinned);
        let here = link.info().is_ok_and(|info| match programs {
            Some(programs) => programs.contains(&info.program_id()),
            None => ifindex_of(info.id()) == Some(self.ifindex),
        });
        if here {
            return Ok(Some(link));
        }
        remove(&self.pin)?;
        Ok(None)
    }

    fn pin(&self, link: FdLink) -> Result<(), AttachError> {
        let program = self.hook.program();
        link.pin(&self.pin).map_err(|source| AttachError::Pin { program, source }).map(drop)
    }
}

/// The NIC of a link that this process has open, as `/proc/self/fdinfo` says; 0 when the NIC is gone.
fn ifindex_of(link: u32) -> Option<u32> {
    let files = fs::read_dir("/proc/self/fdinfo").ok()?;
    files.flatten().find_map(|file| fdinfo_ifindex(&fs::read_to_string(file.path()).ok()?, link))
}

fn fdinfo_ifindex(text: &str, link: u32) -> Option<u32> {
    let number = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    if number("link_id:") == Some(link) { number("ifindex:") } else { None }
}

/// Whether the program of a hook is still what runs there.
async fn still_there(ebpf: &Ebpf, handle: &Handle, hook: Hook, held: &Attached) -> bool {
    let program = ebpf.program(hook.program()).and_then(|program| program.info().ok());
    let Some(id) = program.map(|info| info.id()) else { return false };
    match held.mode {
        Mode::Native => xdp::programs(handle, held.ifindex).await.contains(&id),
        // Attaching anew on mere suspicion would leave a gap each time.
        Mode::Tcx => tc::programs(&held.nic, hook).is_none_or(|programs| programs.contains(&id)),
        Mode::TwinOnly => true,
        // Netlink filters are not listed here; they go with the NIC, and a new NIC has another ifindex.
        Mode::Clsact => true,
    }
}

fn xdp_program<'a>(ebpf: &'a mut Ebpf, program: &'static str) -> Result<&'a mut Xdp, AttachError> {
    let missing = || AttachError::NoProgram { program };
    let found: &mut Xdp = ebpf.program_mut(program).ok_or_else(missing)?.try_into().map_err(|_| missing())?;
    if found.fd().is_err() {
        found.load().map_err(|source| AttachError::Load { program, source: Box::new(source) })?;
    }
    Ok(found)
}

fn tc_program<'a>(ebpf: &'a mut Ebpf, program: &'static str) -> Result<&'a mut SchedClassifier, AttachError> {
    let missing = || AttachError::NoProgram { program };
    let found: &mut SchedClassifier =
        ebpf.program_mut(program).ok_or_else(missing)?.try_into().map_err(|_| missing())?;
    if found.fd().is_err() {
        found.load().map_err(|source| AttachError::Load { program, source: Box::new(source) })?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nic_of_a_link_is_read_as_the_kernel_writes_it() {
        let text = "pos:\t0\nflags:\t02\nmnt_id:\t16\nino:\t1\nlink_type:\ttcx\nlink_id:\t7\nprog_tag:\tabc\nprog_id:\t9\n\
                    ifindex:\t3\nattach_type:\t47\n";
        assert_eq!(fdinfo_ifindex(text, 7), Some(3));
        assert_eq!(fdinfo_ifindex(text, 9), None);
        assert_eq!(fdinfo_ifindex("pos:\t0\nflags:\t02\n", 7), None);
        assert_eq!(ifindex_of(u32::MAX), None);
    }
}
