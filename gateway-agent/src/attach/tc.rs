//! TC programs: tcx links, or clsact filters where the kernel has no tcx.

use std::io;

use aya::programs::links::FdLink;
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
    qdisc_detach_program,
};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcOption};
use rtnetlink::Handle;
use tracing::{debug, warn};

use super::{AttachError, Done, Mode, Place};
use crate::desired::Hook;

/// Priority and handle of our clsact filters: fixed, so that the next agent replaces them.
const PRIORITY: u16 = 6081;
const HANDLE: TcHandle = TcHandle::new(0, 1);

fn side(hook: Hook) -> TcAttachType {
    match hook {
        Hook::TcUnderlayEgress | Hook::TcRouterPort => TcAttachType::Egress,
        Hook::XdpExternal | Hook::XdpUnderlay | Hook::TcExternal | Hook::TcUnderlay => TcAttachType::Ingress,
    }
}

/// Ids of the tcx programs of a NIC on the hook's side; none where the kernel has no tcx, `None` where it does not
/// tell: looking programs up by their ids takes CAP_SYS_ADMIN.
pub(super) fn programs(nic: &str, hook: Hook) -> Option<Vec<u32>> {
    match SchedClassifier::query_tcx(nic, side(hook)) {
        Ok((_, programs)) => Some(programs.iter().map(aya::programs::ProgramInfo::id).collect()),
        Err(ProgramError::SyscallError(error))
            if error.io_error.kind() == io::ErrorKind::PermissionDenied =>
        {
            None
        }
        Err(_) => Some(Vec::new()),
    }
}

/// Takes over the pinned link, or attaches anew.
pub(super) fn attach(program: &mut SchedClassifier, place: &Place<'_>) -> Result<Done, AttachError> {
    if let Some(link) = place.pinned(programs(place.nic, place.hook).as_deref())? {
        match adopt(program, place, link) {
            Ok(()) => return Ok(Done { mode: Mode::Tcx, adopted: true }),
            Err(error) => {
                warn!(%error, nic = place.nic, "the pinned link is not usable, attaching anew");
                super::remove(&place.pin)?;
            }
        }
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    match program.attach_with_options(place.nic, side(place.hook), order) {
        Ok(id) => {
            let name = place.hook.program();
            let link = program.take_link(id).map_err(|source| place.refused(source))?;
            let link =
                FdLink::try_from(link).map_err(|source| AttachError::Link { program: name, source })?;
            place.pin(link)?;
            Ok(Done { mode: Mode::Tcx, adopted: false })
        }
        Err(ProgramError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::InvalidInput => {
            debug!(nic = place.nic, "no tcx in this kernel, using clsact");
            clsact(program, place)
        }
        Err(source) => Err(place.refused(source)),
    }
}

fn adopt(program: &mut SchedClassifier, place: &Place<'_>, link: FdLink) -> Result<(), AttachError> {
    let name = place.hook.program();
    let link =
        SchedClassifierLink::try_from(link).map_err(|source| AttachError::Link { program: name, source })?;
    let id = program.attach_to_link(link).map_err(|source| place.refused(source))?;
    // The pin holds the link.
    program.take_link(id).map(drop).map_err(|source| place.refused(source))
}

/// A filter that stays when the agent goes, and is replaced atomically by the next.
fn clsact(program: &mut SchedClassifier, place: &Place<'_>) -> Result<Done, AttachError> {
    match qdisc_add_clsact(place.nic) {
        Err(source) if !already_there(&source) => {
            return Err(AttachError::Clsact { nic: place.nic.to_owned(), source });
        }
        _ => {}
    }
    let kind = side(place.hook);
    let earlier =
        SchedClassifierLink::attached(place.nic, kind, PRIORITY, HANDLE, None).map_err(|source| {
            AttachError::Clsact { nic: place.nic.to_owned(), source: TcError::IoError(source) }
        })?;
    let (id, adopted) = match program.attach_to_link(earlier) {
        Ok(id) => (id, true),
        Err(_) => {
            let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
            let id = program
                .attach_with_options(place.nic, kind, TcAttachOptions::Netlink(options))
                .map_err(|source| place.refused(source))?;
            (id, false)
        }
    };
    let link = program.take_link(id).map_err(|source| place.refused(source))?;
    // Dropping it would remove the filter.
    std::mem::forget(link);
    Ok(Done { mode: Mode::Clsact, adopted })
}

/// The id of the program in our clsact filter on the hook's side of a NIC; `None` when there is no
/// such filter.
pub(super) async fn filter(handle: &Handle, ifindex: u32, hook: Hook) -> Option<u32> {
    let mut filters = handle.traffic_filter(i32::try_from(ifindex).ok()?);
    let request = match side(hook) {
        TcAttachType::Egress => filters.get().egress(),
        TcAttachType::Ingress | TcAttachType::Custom(_) => filters.get().ingress(),
    };
    let mut found = request.execute().boxed();
    while let Ok(Some(message)) = found.try_next().await {
        let priority = message.header.info >> 16;
        if priority == u32::from(PRIORITY) && u32::from(message.header.handle) == u32::from(HANDLE) {
            let attributes = message.attributes.into_iter();
            return attributes.filter_map(options).flatten().find_map(|option| program_id(&option));
        }
    }
    None
}

fn options(attribute: TcAttribute) -> Option<Vec<TcOption>> {
    if let TcAttribute::Options(options) = attribute { Some(options) } else { None }
}

fn program_id(option: &TcOption) -> Option<u32> {
    if let TcOption::Bpf(TcFilterBpfOption::ProgId(id)) = option { Some(*id) } else { None }
}

fn already_there(error: &TcError) -> bool {
    match error {
        TcError::AlreadyAttached => true,
        TcError::NetlinkError(error) => error.raw_os_error() == Some(nix::errno::Errno::EEXIST as i32),
        TcError::NulError(_)
        | TcError::IoError(_)
        | TcError::InvalidTcxAttach(_)
        | TcError::InvalidLinkOperation => false,
    }
}

/// Removes our clsact filter of a hook from a NIC. Returns whether there was one.
pub(super) fn detach_clsact(nic: &str, hook: Hook) -> Result<bool, AttachError> {
    if matches!(hook, Hook::XdpExternal | Hook::XdpUnderlay) {
        return Ok(false);
    }
    match qdisc_detach_program(nic, side(hook), hook.program()) {
        Ok(()) => Ok(true),
        Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        // No clsact on this NIC, or no such NIC.
        Err(TcError::NetlinkError(_) | TcError::IoError(_)) => Ok(false),
        Err(source) => Err(AttachError::Clsact { nic: nic.to_owned(), source }),
    }
}
