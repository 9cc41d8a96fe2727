//! Programs on their hooks.
//!
//! Each link is pinned as `link_<program>`, so the data path outlives the agent; the next agent
//! puts its program into the same link, atomically. A hook whose NIC was re-created gets a new
//! link. XDP is native where the driver can, else the TC twin does the work alone, and XDP is tried
//! again from time to time. TC programs use tcx links (Linux 6.6), before that clsact: such a
//! filter has no pin, so what an earlier agent left on another NIC is looked for by name, once.

mod error;
mod tc;
mod xdp;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{ProgramError, SchedClassifier, Xdp};
use rtnetlink::Handle;
use tracing::info;

use crate::apply::bpf::{link_pin, remove};
use crate::desired::Hook;
use crate::desired::problem::{Kind, Problem};
use crate::snapshot::Link;

pub use self::error::AttachError;

/// All hooks.
pub const HOOKS: [Hook; 6] = [
    Hook::XdpExternal,
    Hook::TcExternal,
    Hook::XdpUnderlay,
    Hook::TcUnderlay,
    Hook::TcUnderlayEgress,
    Hook::TcRouterPort,
];

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

/// How much of what is attached is looked at again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Look {
    /// Nothing.
    Away,
    /// Whether the kernel still has the programs.
    AtPrograms,
    /// And whether XDP is refused still.
    Everywhere,
}

/// The hooks of this node, and what is on them.
#[derive(Debug)]
pub struct Attachments {
    pin: PathBuf,
    held: BTreeMap<Hook, Attached>,
    /// Hooks of which no NIC has a filter that an earlier agent left.
    swept: BTreeSet<Hook>,
}

impl Attachments {
    /// Nothing attached by us yet; links pinned under `pin` by an earlier agent are taken over.
    pub fn new(pin: &Path) -> Self {
        Self { pin: pin.to_owned(), held: BTreeMap::new(), swept: BTreeSet::new() }
    }

    /// Attaches what is wanted: hook → NIC. What is attached is checked against the kernel as far
    /// as `look` says. Returns how many hooks changed, and the errors.
    pub async fn apply(
        &mut self,
        ebpf: &mut Ebpf,
        handle: &Handle,
        links: &BTreeMap<String, Link>,
        wanted: &BTreeMap<Hook, String>,
        look: Look,
    ) -> (usize, Vec<AttachError>) {
        let (mut changed, mut errors) = (0, Vec::new());
        for (hook, nic) in wanted {
            match self.ensure(ebpf, handle, links, *hook, nic, look).await {
                Ok(written) => changed += usize::from(written),
                Err(error) => errors.push(error),
            }
        }
        (changed, errors)
    }

    /// Detaches what is not wanted: once no packet is led there any more. Returns how many hooks
    /// changed, and the errors.
    pub fn detach(
        &mut self,
        links: &BTreeMap<String, Link>,
        wanted: &BTreeMap<Hook, String>,
    ) -> (usize, Vec<AttachError>) {
        let (mut changed, mut errors) = (0, Vec::new());
        for hook in HOOKS.into_iter().filter(|hook| !wanted.contains_key(hook)) {
            match self.release(links, hook) {
                Ok(written) => changed += usize::from(written),
                Err(error) => errors.push(error),
            }
        }
        (changed, errors)
    }

    /// Whether the pins of all links are there: without its pin a link is gone.
    pub fn are_pinned(&self) -> bool {
        let pinned = self.held.iter().filter(|(_, held)| matches!(held.mode, Mode::Native | Mode::Tcx));
        pinned.into_iter().all(|(hook, _)| link_pin(&self.pin, *hook).exists())
    }

    /// Whether all clsact filters are there: the kernel tells nobody of the end of one.
    pub async fn have_filters(&self, handle: &Handle) -> bool {
        for (hook, held) in self.held.iter().filter(|(_, held)| held.mode == Mode::Clsact) {
            if tc::filter(handle, held.ifindex, *hook).await.is_none() {
                return false;
            }
        }
        true
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
        look: Look,
    ) -> Result<bool, AttachError> {
        let program = hook.program();
        let here = links.get(nic);
        let is_here =
            |held: &Attached| here.is_some_and(|link| held.nic == nic && held.ifindex == link.ifindex);
        if self.held.get(&hook).is_some_and(|held| !is_here(held)) {
            self.release(links, hook)?;
        }
        let Some(link) = here else { return Err(AttachError::NoNic { nic: nic.to_owned(), program }) };
        let held = self.held.get(&hook);
        if let Some(held) = held
            && (look == Look::Away || still_there(ebpf, handle, hook, held, look).await)
        {
            return Ok(false);
        }
        let refused_before = held.is_some_and(|held| held.mode == Mode::TwinOnly);
        self.sweep(links, hook, Some(nic))?;
        let pin = link_pin(&self.pin, hook);
        let place = Place { handle, nic, ifindex: link.ifindex, hook, pin, refused_before };
        let done = match hook {
            Hook::XdpExternal | Hook::XdpUnderlay => xdp::attach(xdp_program(ebpf, program)?, &place).await?,
            Hook::TcExternal | Hook::TcUnderlay | Hook::TcUnderlayEgress | Hook::TcRouterPort => {
                tc::attach(tc_program(ebpf, program)?, &place)?
            }
        };
        if refused_before && done.mode == Mode::TwinOnly {
            return Ok(false);
        }
        info!(program, nic, mode = done.mode.name(), adopted = done.adopted, "program attached");
        let attached = Attached { nic: nic.to_owned(), ifindex: link.ifindex, mode: done.mode };
        self.held.insert(hook, attached);
        Ok(true)
    }

    fn release(&mut self, links: &BTreeMap<String, Link>, hook: Hook) -> Result<bool, AttachError> {
        let mut removed = remove(&link_pin(&self.pin, hook))?;
        // Still held when that fails, so that it is tried again.
        if let Some(held) = self.held.get(&hook)
            && held.mode == Mode::Clsact
        {
            removed |= tc::detach_clsact(&held.nic, hook)?;
        }
        self.held.remove(&hook);
        removed |= self.sweep(links, hook, None)?;
        if removed {
            info!(program = hook.program(), "program detached");
        }
        Ok(removed)
    }

    /// Removes, once for each hook, the filters that an earlier agent left on other NICs than the
    /// one it is to be on.
    fn sweep(
        &mut self,
        links: &BTreeMap<String, Link>,
        hook: Hook,
        nic: Option<&str>,
    ) -> Result<bool, AttachError> {
        let mut removed = false;
        if !self.swept.contains(&hook) {
            for other in links.keys().filter(|other| Some(other.as_str()) != nic) {
                removed |= tc::detach_clsact(other, hook)?;
            }
            self.swept.insert(hook);
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
    /// XDP was, as was told.
    refused_before: bool,
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

/// Whether the program of a hook is still what runs there, or nothing better is to be had.
async fn still_there(ebpf: &Ebpf, handle: &Handle, hook: Hook, held: &Attached, look: Look) -> bool {
    if held.mode == Mode::TwinOnly {
        // Another program may have gone.
        return look < Look::Everywhere;
    }
    let program = ebpf.program(hook.program()).and_then(|program| program.info().ok());
    let Some(id) = program.map(|info| info.id()) else { return false };
    match held.mode {
        Mode::Native => xdp::programs(handle, held.ifindex).await.contains(&id),
        // Attaching anew on mere suspicion would leave a gap each time.
        Mode::Tcx => tc::programs(&held.nic, hook).is_none_or(|programs| programs.contains(&id)),
        Mode::Clsact => tc::filter(handle, held.ifindex, hook).await == Some(id),
        Mode::TwinOnly => true,
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
