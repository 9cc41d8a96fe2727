//! XDP programs: native, generic, or not at all.

use aya::programs::links::FdLink;
use aya::programs::xdp::XdpLink;
use aya::programs::{Xdp, XdpMode};
use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::link::{LinkAttribute, LinkXdp, XdpAttached};
use rtnetlink::Handle;
use tracing::warn;

use super::{AttachError, Done, Mode, Place};

/// The XDP programs of a NIC.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct OnNic {
    /// Their ids.
    pub(super) ids: Vec<u32>,
    /// One runs in the kernel's generic code.
    pub(super) generic: bool,
}

/// What is attached to a NIC (`IFLA_XDP`); nothing when the NIC is gone.
pub(super) async fn programs(handle: &Handle, ifindex: u32) -> OnNic {
    let mut answers = handle.link().get().match_index(ifindex).execute().boxed();
    let Ok(Some(message)) = answers.try_next().await else { return OnNic::default() };
    let mut found = OnNic::default();
    for attribute in message.attributes {
        let LinkAttribute::Xdp(attributes) = attribute else { continue };
        for attribute in attributes {
            if let LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) = attribute {
                found.ids.push(id);
            } else if attribute == LinkXdp::Attached(XdpAttached::SocketBuffer) {
                found.generic = true;
            }
        }
    }
    found
}

/// Takes over the pinned link, or attaches anew in the best mode the NIC takes.
pub(super) async fn attach(program: &mut Xdp, place: &Place<'_>) -> Result<Done, AttachError> {
    let on_nic = programs(place.handle, place.ifindex).await;
    if let Some(link) = place.pinned(&on_nic.ids)? {
        match adopt(program, place, link) {
            Ok(()) => {
                let mode = if on_nic.generic { Mode::Generic } else { Mode::Native };
                return Ok(Done { mode, adopted: true });
            }
            Err(error) => {
                warn!(%error, nic = place.nic, "the pinned link is not usable, attaching anew");
                super::remove(&place.pin)?;
            }
        }
    }
    for (xdp_mode, mode) in [(XdpMode::Driver, Mode::Native), (XdpMode::Skb, Mode::Generic)] {
        match attach_new(program, place, xdp_mode) {
            Ok(()) => return Ok(Done { mode, adopted: false }),
            Err(error) => warn!(%error, nic = place.nic, mode = mode.name(), "XDP refused"),
        }
    }
    Ok(Done { mode: Mode::TwinOnly, adopted: false })
}

fn adopt(program: &mut Xdp, place: &Place<'_>, link: FdLink) -> Result<(), AttachError> {
    let name = place.hook.program();
    let link = XdpLink::try_from(link).map_err(|source| AttachError::Link { program: name, source })?;
    let id = program.attach_to_link(link).map_err(|source| place.refused(source))?;
    // The pin holds the link.
    program.take_link(id).map(drop).map_err(|source| place.refused(source))
}

fn attach_new(program: &mut Xdp, place: &Place<'_>, mode: XdpMode) -> Result<(), AttachError> {
    let name = place.hook.program();
    let id = program.attach_to_if_index(place.ifindex, mode).map_err(|source| place.refused(source))?;
    let link = program.take_link(id).map_err(|source| place.refused(source))?;
    let link = FdLink::try_from(link).map_err(|source| AttachError::Link { program: name, source })?;
    place.pin(link)
}
