//! Connections of clients on this node that conntrack still translates to a pod that no longer has the EIP. Translation
//! is decided by a connection's first packet, so a client that goes on sending would reach the old pod for ever.
//!
//! Spoken with nfnetlink directly (`linux/netfilter/nfnetlink_conntrack.h`): there is no `conntrack` program in the image.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use tracing::{debug, warn};

/// `NFNL_SUBSYS_CTNETLINK << 8`, with `IPCTNL_MSG_CT_GET` and `_DELETE`.
const GET: u16 = 0x0101;
const DELETE: u16 = 0x0102;
/// `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_DUMP`; `NLMSG_ERROR`, `NLMSG_DONE`.
const REQUEST: u16 = 0x01;
const ACK: u16 = 0x04;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Attributes of a connection, and of a tuple.
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` are no part of a type.
const TYPE_MASK: u16 = 0x3fff;
/// `nlmsghdr` and `nfgenmsg`, bytes.
const HEADER: usize = 16;
const GENERIC: usize = 4;
const AF_INET: u8 = 2;

/// EIPs, each with the pod that has it now; `None`: it is nobody's.
type Changed = BTreeMap<Ipv4Addr, Option<Ipv4Addr>>;

/// What the next walk of the table looks for.
static WAITING: Mutex<Changed> = Mutex::new(Changed::new());
/// One walks at a time.
static WALK: Mutex<()> = Mutex::new(());

/// Forgets, in a thread of its own, the connections to EIPs that were translated to another pod than the one now. One walk
/// of the table is for all of them, and for those that more calls bring until it begins.
pub fn forget(changed: Changed) {
    if wait(&WAITING, changed) {
        drop(tokio::task::spawn_blocking(forget_waiting));
    }
}

fn forget_waiting() {
    let _alone = locked(&WALK);
    let changed = mem::take(&mut *locked(&WAITING));
    match forget_now(&changed) {
        Ok(0) => {}
        Ok(count) => debug!(count, "connections to pods that lost their EIP forgotten"),
        Err(error) => {
            warn!("connections to pods that lost their EIP go on: {error}; see `conntrack -L -d EIP`")
        }
    }
}

/// Adds EIPs that changed; of one that changed twice, the latest counts. Returns whether a walk is to begin for them: the one
/// for those that wait already takes them along.
fn wait(waiting: &Mutex<Changed>, changed: Changed) -> bool {
    let mut waiting = locked(waiting);
    let first = waiting.is_empty() && !changed.is_empty();
    waiting.extend(changed);
    first
}

/// A panic elsewhere leaves nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn forget_now(changed: &Changed) -> io::Result<usize> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&message(GET, REQUEST | DUMP, &[]), 0)?;
    let mut stale = Vec::new();
    'dump: loop {
        let (datagram, _) = socket.recv_from_full()?;
        for (kind, body) in messages(&datagram) {
            match kind {
                DONE => break 'dump,
                ERROR => refused(body)?,
                _ => stale.extend(body.get(GENERIC..).and_then(|connection| is_stale(connection, changed))),
            }
        }
    }
    for connection in &stale {
        socket.send(&message(DELETE, REQUEST | ACK, connection), 0)?;
        let (datagram, _) = socket.recv_from_full()?;
        for (_, body) in messages(&datagram).filter(|(kind, _)| *kind == ERROR) {
            match refused(body) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(stale.len())
}

/// What names a connection to an EIP that is translated to a pod which does not have it; `None`: all is well.
fn is_stale(connection: &[u8], changed: &Changed) -> Option<Vec<u8>> {
    let eip = address(connection, CTA_TUPLE_ORIG, CTA_IP_V4_DST)?;
    let pod = address(connection, CTA_TUPLE_REPLY, CTA_IP_V4_SRC)?;
    // The EIP itself: not translated here, because it goes by the gateway or is turned round by the programs.
    if pod == eip || *changed.get(&eip)? == Some(pod) {
        return None;
    }
    let names = [CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE];
    let named = attributes(connection).filter(|(kind, _, _)| names.contains(kind));
    Some(named.flat_map(|(_, whole, _)| whole.to_vec()).collect())
}

fn address(connection: &[u8], tuple: u16, which: u16) -> Option<Ipv4Addr> {
    let addresses = attribute(attribute(connection, tuple)?, CTA_TUPLE_IP)?;
    let bytes: [u8; 4] = attribute(addresses, which)?.try_into().ok()?;
    Some(bytes.into())
}

fn attribute(of: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(of).find_map(|(kind, _, value)| (kind == wanted).then_some(value))
}

/// Type, all bytes (padded) and value of each attribute, up to the first that is cut short.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half(rest, 0)?);
        let (kind, value) = (half(rest, 2)? & TYPE_MASK, rest.get(4..length)?);
        let (whole, next) = rest.split_at(length.next_multiple_of(4).min(rest.len()));
        rest = next;
        Some((kind, whole, value))
    })
}

/// Type and body of each message of a datagram.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let (kind, body) = (half(rest, 4)?, rest.get(HEADER..length)?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The error of an `NLMSG_ERROR`; 0 is an acknowledgement.
fn refused(body: &[u8]) -> io::Result<()> {
    let code = body.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

fn message(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let length = (HEADER + GENERIC + attributes.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence number and port: one request at a time needs neither.
    message.extend([0; 8]);
    message.extend([AF_INET, 0, 0, 0]);
    message.extend(attributes);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// Nested attributes carry `NLA_F_NESTED`, 0x8000.
    fn tuple(kind: u16, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let addresses = [encoded(CTA_IP_V4_SRC, &source), encoded(CTA_IP_V4_DST, &destination)].concat();
        encoded(kind | 0x8000, &encoded(CTA_TUPLE_IP | 0x8000, &addresses))
    }

    const CLIENT: [u8; 4] = [10, 0, 0, 1];

    /// From the client to an address, answered by another.
    fn connection(to: [u8; 4], answers: [u8; 4]) -> Vec<u8> {
        let status = encoded(3, &[0, 0, 0, 1]);
        let id = encoded(CTA_ID, &[0, 0, 0, 9]);
        [tuple(CTA_TUPLE_ORIG, CLIENT, to), tuple(CTA_TUPLE_REPLY, answers, CLIENT), status, id].concat()
    }

    #[test]
    fn only_connections_to_another_pod_are_stale() {
        let (eip, pod, old) = ([192, 168, 100, 101], [10, 244, 1, 10], [10, 244, 1, 11]);
        let named = [tuple(CTA_TUPLE_ORIG, CLIENT, eip), encoded(CTA_ID, &[0, 0, 0, 9])].concat();
        for (to, answers, now, stale) in [
            (eip, old, Some(pod), true),
            (eip, old, None, true),
            (eip, pod, Some(pod), false),
            (eip, eip, Some(pod), false),
            (pod, pod, Some(pod), false),
        ] {
            let changed = BTreeMap::from([(eip.into(), now.map(Into::into))]);
            let expected = stale.then(|| named.clone());
            assert_eq!(is_stale(&connection(to, answers), &changed), expected, "{to:?} {answers:?} {now:?}");
        }
        let whole = connection(eip, old);
        for end in 0..whole.len() {
            let _no_panic = is_stale(&whole[..end], &BTreeMap::from([(eip.into(), None)]));
        }
    }

    #[test]
    fn one_walk_is_for_all_eips_that_moved_before_it() {
        let [one, two, three] = [101, 102, 103].map(|last| [192, 168, 100, last]);
        let [old, new, newest] = [11, 12, 13].map(|last| [10, 244, 1, last]);
        let waiting = Mutex::default();
        assert!(!wait(&waiting, Changed::new()), "nothing moved, nothing to look for");
        let pass = [(one.into(), Some(new.into())), (two.into(), None)];
        assert!(wait(&waiting, pass.into()));
        // Another pass, before the walk has begun.
        assert!(!wait(&waiting, [(one.into(), Some(newest.into()))].into()));
        let changed = mem::take(&mut *locked(&waiting));
        for (to, answers, stale) in
            [(one, old, true), (one, new, true), (one, newest, false), (two, old, true), (three, old, false)]
        {
            assert_eq!(is_stale(&connection(to, answers), &changed).is_some(), stale, "{to:?} {answers:?}");
        }
        assert!(wait(&waiting, pass.into()), "what moves during a walk has the next");
    }

    #[test]
    fn what_is_written_is_read() {
        let two = [message(GET, REQUEST, &[1, 2, 3, 4]), message(DONE, 0, &[])].concat();
        let read: Vec<_> = messages(&two).map(|(kind, body)| (kind, body.to_vec())).collect();
        assert_eq!(read, [(GET, vec![AF_INET, 0, 0, 0, 1, 2, 3, 4]), (DONE, vec![AF_INET, 0, 0, 0])]);
        assert!(refused(&0_i32.to_ne_bytes()).is_ok());
        assert_eq!(refused(&(-2_i32).to_ne_bytes()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
