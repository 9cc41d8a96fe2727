//! Connections that conntrack translates as was right before an EIP came, moved or went.
//! Translation is decided by a connection's first packet, so what goes on sending would reach the
//! old pod for ever, or leave with a pod's own address.
//!
//! Spoken with nfnetlink directly (`linux/netfilter/nfnetlink_conntrack.h`): there is no
//! `conntrack` program in the image.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gateway_common::addr::Prefix;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use tokio::task::JoinHandle;
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

/// Whose connections may be translated as is no longer right.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stale {
    /// EIPs that moved, each with the pod that has it now; `None`: it is nobody's.
    pub eips: BTreeMap<Ipv4Addr, Option<Ipv4Addr>>,
    /// Pods of this node that got an EIP.
    pub gained: BTreeSet<Ipv4Addr>,
    /// Pods of this node that lost theirs.
    pub lost: BTreeSet<Ipv4Addr>,
    /// Prefixes that never leave by the gateway: connections to them stay as they are. None inside
    /// another.
    pub internal: BTreeSet<Prefix>,
}

/// What the next walk of the table looks for.
static WAITING: Mutex<Stale> = Mutex::new(Stale {
    eips: BTreeMap::new(),
    gained: BTreeSet::new(),
    lost: BTreeSet::new(),
    internal: BTreeSet::new(),
});
/// One walks at a time.
static WALK: Mutex<()> = Mutex::new(());

/// A walk on its way; `None`: there is nothing to forget. It goes on when this is dropped.
#[derive(Debug)]
pub struct Forgetting(Option<JoinHandle<()>>);

impl Forgetting {
    /// Waits for the walk's end.
    pub async fn done(self) {
        if let Some(walk) = self.0 {
            // It told what went wrong.
            let _told = walk.await;
        }
    }
}

/// Forgets, in a thread of its own, the connections that are translated as is no longer right. One
/// walk of the table is for all of them, and for those that more calls bring until it begins.
pub fn forget(stale: Stale) -> Forgetting {
    if stale.is_empty() {
        return Forgetting(None);
    }
    wait(&WAITING, stale);
    Forgetting(Some(tokio::task::spawn_blocking(forget_waiting)))
}

fn forget_waiting() {
    // Whoever walks meanwhile may have taken ours along: then it is done once that one is.
    let _alone = locked(&WALK);
    let stale = mem::take(&mut *locked(&WAITING));
    if stale.is_empty() {
        return;
    }
    match forget_now(&stale) {
        Ok(0) => {}
        Ok(count) => debug!(count, "connections forgotten of EIPs that came, moved or went"),
        Err(error) => {
            warn!("connections go on as before an EIP came, moved or went: {error}; see `conntrack -L`")
        }
    }
}

/// Adds what changed; of what changed twice, the latest counts.
fn wait(waiting: &Mutex<Stale>, stale: Stale) {
    let mut waiting = locked(waiting);
    let Stale { eips, gained, lost, internal } = stale;
    waiting.eips.extend(eips);
    waiting.gained.retain(|pod| !lost.contains(pod));
    waiting.lost.retain(|pod| !gained.contains(pod));
    waiting.gained.extend(gained);
    waiting.lost.extend(lost);
    waiting.internal = internal;
}

impl Stale {
    fn is_empty(&self) -> bool {
        self.eips.is_empty() && self.gained.is_empty() && self.lost.is_empty()
    }

    fn is_inside(&self, addr: Ipv4Addr) -> bool {
        let before = self.internal.range(..=Prefix::host(addr)).next_back();
        before.is_some_and(|prefix| prefix.contains(addr))
    }

    /// Whether a connection is translated otherwise than a new one would be.
    fn has(&self, connection: &Connection) -> bool {
        self.misses_its_pod(connection) || self.has_another_way_out(connection)
    }

    /// To an EIP that moved: not translated to the pod that has it. A pod's own to itself is turned
    /// round by the programs untranslated.
    fn misses_its_pod(&self, connection: &Connection) -> bool {
        let Connection { source, destination, answers, .. } = *connection;
        match self.eips.get(&destination) {
            None => false,
            Some(now) if answers != destination => *now != Some(answers),
            Some(now) => now.is_some_and(|pod| pod != source),
        }
    }

    /// Between a pod and the outside: of one that gained an EIP when the CNI translated it; of one
    /// that lost it when it speaks by its own address, either way.
    fn has_another_way_out(&self, connection: &Connection) -> bool {
        let Connection { source, destination, answers, answered } = *connection;
        if destination == answers && !self.is_inside(source) && self.lost.contains(&destination) {
            return true;
        }
        let translated = answered != source;
        let pods = if translated { &self.gained } else { &self.lost };
        pods.contains(&source) && !self.is_inside(answers)
    }
}

/// Addresses of a connection: of its first packet, and of the answers to it.
#[derive(Clone, Copy, Debug)]
struct Connection {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    /// Who answers: the destination, unless that is translated.
    answers: Ipv4Addr,
    /// Who is answered: the source, unless that is translated.
    answered: Ipv4Addr,
}

impl Connection {
    fn of(attributes: &[u8]) -> Option<Self> {
        Some(Self {
            source: address(attributes, CTA_TUPLE_ORIG, CTA_IP_V4_SRC)?,
            destination: address(attributes, CTA_TUPLE_ORIG, CTA_IP_V4_DST)?,
            answers: address(attributes, CTA_TUPLE_REPLY, CTA_IP_V4_SRC)?,
            answered: address(attributes, CTA_TUPLE_REPLY, CTA_IP_V4_DST)?,
        })
    }
}

/// A panic elsewhere leaves nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn forget_now(stale: &Stale) -> io::Result<usize> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&message(GET, REQUEST | DUMP, &[]), 0)?;
    let mut found = Vec::new();
    'dump: loop {
        let (datagram, _) = socket.recv_from_full()?;
        for (kind, body) in messages(&datagram) {
            match kind {
                DONE => break 'dump,
                ERROR => refused(body)?,
                _ => found.extend(body.get(GENERIC..).and_then(|connection| is_stale(connection, stale))),
            }
        }
    }
    for connection in &found {
        socket.send(&message(DELETE, REQUEST | ACK, connection), 0)?;
        let (datagram, _) = socket.recv_from_full()?;
        for (_, body) in messages(&datagram).filter(|(kind, _)| *kind == ERROR) {
            match refused(body) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(found.len())
}

/// What names a connection that is translated as is no longer right; `None`: all is well.
fn is_stale(connection: &[u8], stale: &Stale) -> Option<Vec<u8>> {
    if !stale.has(&Connection::of(connection)?) {
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

    type Address = [u8; 4];
    const CLIENT: Address = [10, 0, 0, 1];
    const OUTSIDE: Address = [203, 0, 113, 10];
    const NODE: Address = [172, 18, 0, 21];
    const SERVICE: Address = [10, 96, 0, 10];
    const EIP: Address = [192, 168, 100, 101];
    const POD: Address = [10, 244, 1, 10];
    const OLD: Address = [10, 244, 1, 11];
    const NEW: Address = [10, 244, 1, 12];

    /// As the kernel lists it: the first packet's addresses, then the answer's.
    fn connection((from, to): (Address, Address), (answers, answered): (Address, Address)) -> Vec<u8> {
        let status = encoded(3, &[0, 0, 0, 1]);
        let id = encoded(CTA_ID, &[0, 0, 0, 9]);
        [tuple(CTA_TUPLE_ORIG, from, to), tuple(CTA_TUPLE_REPLY, answers, answered), status, id].concat()
    }

    fn moved(eips: &[(Address, Option<Address>)]) -> Stale {
        let eips = eips.iter().map(|(eip, now)| ((*eip).into(), now.map(Into::into)));
        Stale { eips: eips.collect(), ..Stale::default() }
    }

    #[test]
    fn connections_to_an_eip_are_stale_unless_they_reach_its_pod() {
        let named = [tuple(CTA_TUPLE_ORIG, CLIENT, EIP), encoded(CTA_ID, &[0, 0, 0, 9])].concat();
        for (from, to, answers, now, stale) in [
            (CLIENT, EIP, OLD, Some(POD), true),
            (CLIENT, EIP, OLD, None, true),
            (CLIENT, EIP, POD, Some(POD), false),
            (CLIENT, POD, POD, Some(POD), false),
            // Untranslated: from before the address was an EIP, or a pod to itself.
            (CLIENT, EIP, EIP, Some(POD), true),
            (CLIENT, EIP, EIP, None, false),
            (POD, EIP, EIP, Some(POD), false),
            (OLD, EIP, EIP, Some(POD), true),
        ] {
            let found = is_stale(&connection((from, to), (answers, from)), &moved(&[(EIP, now)]));
            assert_eq!(found.is_some(), stale, "{from:?} {to:?} {answers:?} {now:?}");
            assert!(from != CLIENT || to != EIP || found.is_none_or(|found| found == named));
        }
        let whole = connection((CLIENT, EIP), (OLD, CLIENT));
        for end in 0..whole.len() {
            let _no_panic = is_stale(&whole[..end], &moved(&[(EIP, None)]));
        }
    }

    #[test]
    fn connections_of_a_pod_to_the_outside_are_stale_when_they_leave_otherwise_than_new_ones() {
        let internal = ["10.96.0.0/12", "10.244.0.0/16", "172.18.0.0/24"];
        let internal: BTreeSet<Prefix> = internal.iter().map(|prefix| prefix.parse().unwrap()).collect();
        let pods = || BTreeSet::from([POD.into()]);
        let gained = Stale { gained: pods(), internal: internal.clone(), ..Stale::default() };
        let lost = Stale { lost: pods(), internal, ..Stale::default() };
        for (what, first, answer, [after_gain, after_loss]) in [
            ("masqueraded", (POD, OUTSIDE), (OUTSIDE, NODE), [true, false]),
            ("by its own address", (POD, OUTSIDE), (OUTSIDE, POD), [false, true]),
            ("came by the EIP", (OUTSIDE, POD), (POD, OUTSIDE), [false, true]),
            ("came by a NodePort", (OUTSIDE, NODE), (POD, OUTSIDE), [false, false]),
            ("to another pod", (POD, OLD), (OLD, POD), [false, false]),
            ("from another pod", (OLD, POD), (POD, OLD), [false, false]),
            ("to a Service of pods", (POD, SERVICE), (OLD, POD), [false, false]),
            ("to a Service outside, masqueraded", (POD, SERVICE), (OUTSIDE, NODE), [true, false]),
            ("to a Service outside", (POD, SERVICE), (OUTSIDE, POD), [false, true]),
            ("another pod's", (OLD, OUTSIDE), (OUTSIDE, NODE), [false, false]),
        ] {
            let found = [&gained, &lost].map(|stale| is_stale(&connection(first, answer), stale).is_some());
            assert_eq!(found, [after_gain, after_loss], "{what}");
        }
    }

    #[test]
    fn one_walk_is_for_all_that_changed_before_it() {
        let [two, three] = [102, 103].map(|last| [192, 168, 100, last]);
        let waiting = Mutex::default();
        wait(&waiting, moved(&[(EIP, Some(POD)), (two, None)]));
        // Another pass, before the walk has begun.
        wait(&waiting, moved(&[(EIP, Some(NEW))]));
        let stale = mem::take(&mut *locked(&waiting));
        for (to, answers, expected) in
            [(EIP, OLD, true), (EIP, POD, true), (EIP, NEW, false), (two, OLD, true), (three, OLD, false)]
        {
            let found = is_stale(&connection((CLIENT, to), (answers, CLIENT)), &stale);
            assert_eq!(found.is_some(), expected, "{to:?} {answers:?}");
        }
        let pods = || BTreeSet::from([POD.into()]);
        wait(&waiting, Stale { gained: pods(), ..Stale::default() });
        wait(&waiting, Stale { lost: pods(), ..Stale::default() });
        assert_eq!(*locked(&waiting), Stale { lost: pods(), ..Stale::default() });
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
