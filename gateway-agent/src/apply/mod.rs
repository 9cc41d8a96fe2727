//! The writers: one per part of the kernel. Each compares with what the kernel holds and writes the difference.

pub mod bpf;
pub mod conntrack;
pub mod errors;
pub mod link;
pub mod neighbor;
pub mod nft;
pub mod route;
pub mod shortcut;

/// An error and its causes on one line, for errors whose own text leaves their causes out.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

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
