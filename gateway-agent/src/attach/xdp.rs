//! XDP programs: native, or not at all.
//!
//! Not in the kernel's generic code: where that copies an skb, it leaves the copy without a `mac_len` (seen on 6.18), and the
//! TC twin then finds no Ethernet header. TC does the same work on the same skb, so nothing is lost by leaving it to TC.

use aya::programs::links::FdLink;
use aya::programs::xdp::XdpLink;
use aya::programs::{Xdp, XdpMode};
use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::link::{LinkAttribute, LinkXdp};
use rtnetlink::Handle;
use tracing::warn;

use super::{AttachError, Done, Mode, Place};

/// The ids of the XDP programs attached to a NIC (`IFLA_XDP`); none when the NIC is gone.
pub(super) async fn programs(handle: &Handle, ifindex: u32) -> Vec<u32> {
    let mut answers = handle.link().get().match_index(ifindex).execute().boxed();
    let Ok(Some(message)) = answers.try_next().await else { return Vec::new() };
    let mut ids = Vec::new();
    for attribute in message.attributes {
        let LinkAttribute::Xdp(attributes) = attribute else { continue };
        for attribute in attributes {
            if let LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) = attribute {
                ids.push(id);
            }
        }
    }
    ids
}

/// Takes over the pinned link, or attaches anew, natively. A refusal is no error: the TC twin does
/// the work, and [`Attachments::warnings`](super::Attachments::warnings) says so.
pub(super) async fn attach(program: &mut Xdp, place: &Place<'_>) -> Result<Done, AttachError> {
    let on_nic = programs(place.handle, place.ifindex).await;
    if let Some(link) = place.pinned(Some(&on_nic))? {
        match adopt(program, place, link) {
            Ok(()) => return Ok(Done { mode: Mode::Native, adopted: true }),
            Err(error) => {
                warn!(%error, nic = place.nic, "the pinned link is not usable, attaching anew");
                super::remove(&place.pin)?;
            }
        }
    }
    match attach_new(program, place) {
        Ok(()) => Ok(Done { mode: Mode::Native, adopted: false }),
        Err(error) => {
            if !place.refused_before {
                warn!(%error, nic = place.nic, "native XDP refused");
            }
            Ok(Done { mode: Mode::TwinOnly, adopted: false })
        }
    }
}

fn adopt(program: &mut Xdp, place: &Place<'_>, link: FdLink) -> Result<(), AttachError> {
    let name = place.hook.program();
    let link = XdpLink::try_from(link).map_err(|source| AttachError::Link { program: name, source })?;
    let id = program.attach_to_link(link).map_err(|source| place.refused(source))?;
    // The pin holds the link.
    program.take_link(id).map(drop).map_err(|source| place.refused(source))
}

fn attach_new(program: &mut Xdp, place: &Place<'_>) -> Result<(), AttachError> {
    let name = place.hook.program();
    let id =
        program.attach_to_if_index(place.ifindex, XdpMode::Driver).map_err(|source| place.refused(source))?;
    let link = program.take_link(id).map_err(|source| place.refused(source))?;
    let link = FdLink::try_from(link).map_err(|source| AttachError::Link { program: name, source })?;
    place.pin(link)
}
