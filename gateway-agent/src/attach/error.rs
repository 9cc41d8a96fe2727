//! Why a program is not on its hook.

use aya::pin::PinError;
use aya::programs::ProgramError;
use aya::programs::links::LinkError;
use aya::programs::tc::TcError;

use crate::apply::bpf::BpfError;
use crate::apply::causes;

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
