//! A packet socket for ARP on one interface.

use std::io;
use std::os::fd::AsRawFd;

use gateway_common::addr::Mac;
use gateway_common::wire::{arp, eth};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{LinkAddr, MsgFlags, bind, sendto};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::AnnounceError;

/// `ETH_P_ARP` as socket(2) wants it: in network order.
const PROTOCOL: i32 = eth::ARP.to_be() as i32;

/// The socket.
#[derive(Debug)]
pub(super) struct Port {
    socket: AsyncFd<Socket>,
    link: LinkAddr,
}

impl Port {
    /// Opens it.
    ///
    /// # Errors
    /// The interface is not there, or the kernel refused.
    pub(super) fn open(interface: &str) -> Result<Self, AnnounceError> {
        let failed = |source: io::Error| AnnounceError::Socket { interface: interface.to_owned(), source };
        let link = link_address(interface)
            .map_err(|errno| failed(errno.into()))?
            .ok_or_else(|| AnnounceError::NoInterface { interface: interface.to_owned() })?;
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(Protocol::from(PROTOCOL)))
            .map_err(failed)?;
        bind(socket.as_raw_fd(), &link).map_err(|errno| failed(errno.into()))?;
        #[expect(
            deprecated,
            reason = "a Socket owns its descriptor, so what makes `register` unsafe cannot be"
        )]
        let socket = AsyncFd::new(socket).map_err(failed)?;
        let port = Self { socket, link };
        // Before it was bound it heard all interfaces.
        while port.receive().is_ok() {}
        Ok(port)
    }

    /// Broadcasts a packet from `mac`.
    ///
    /// # Errors
    /// It was not sent.
    pub(super) fn send(&self, mac: Mac, packet: &arp::Packet) -> io::Result<()> {
        let header = eth::Header { destination: Mac::BROADCAST, source: mac, ethertype: eth::ARP };
        let frame = [header.emit().as_slice(), &packet.emit()].concat();
        sendto(self.socket.as_raw_fd(), &frame, &self.link, MsgFlags::empty())?;
        Ok(())
    }

    /// Waits until something has arrived. Cancelling loses nothing.
    ///
    /// # Errors
    /// The socket is of no use any more.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await?.retain_ready();
        Ok(())
    }

    /// What has arrived: `Ok(None)` for what is no ARP packet for IPv4.
    ///
    /// # Errors
    /// `WouldBlock`: nothing is left.
    pub(super) fn receive(&self) -> io::Result<Option<arp::Packet>> {
        let mut frame = [0_u8; eth::HEADER_LEN + arp::PACKET_LEN];
        let received = self.socket.try_io(tokio::io::Interest::READABLE, |socket| {
            Ok(nix::sys::socket::recv(socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT)?)
        })?;
        let packet = frame.last_chunk::<{ arp::PACKET_LEN }>();
        Ok(packet.filter(|_| received == frame.len()).and_then(arp::Packet::parse))
    }
}

/// Whether an interface is up and has a cable in it, as its driver says now: netlink's word may be late by a second.
pub(super) fn has_carrier(interface: &str) -> bool {
    let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_LOWER_UP;
    let of_it = |entry: &nix::ifaddrs::InterfaceAddress| entry.interface_name == interface;
    getifaddrs().is_ok_and(|mut all| all.any(|entry| of_it(&entry) && entry.flags.contains(wanted)))
}

/// The packet socket address of an interface. It is taken from the kernel's list, since it can be had there safely.
fn link_address(interface: &str) -> Result<Option<LinkAddr>, nix::Error> {
    Ok(getifaddrs()?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr().copied()))
}
