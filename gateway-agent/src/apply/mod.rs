//! The writers: one per part of the kernel. Each compares with what the kernel holds and writes the difference.

pub mod bpf;
pub mod link;
pub mod neighbor;
pub mod nft;
pub mod route;

/// A request to the kernel's networking was refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {source}")]
pub struct NetlinkError {
    /// What was asked, with the object's name.
    pub action: String,
    /// The kernel's answer.
    pub source: rtnetlink::Error,
}

impl NetlinkError {
    /// Names the action of a failed request.
    pub(crate) fn of(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Self {
        let action = action.into();
        move |source| Self { action, source }
    }

    /// Whether the kernel answered with this error.
    pub(crate) fn is(error: &rtnetlink::Error, errno: nix::errno::Errno) -> bool {
        matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -(errno as i32))
    }
}
