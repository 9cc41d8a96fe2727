//! Link-layer addresses and IPv4 prefixes.

use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;

/// A 48-bit IEEE 802 MAC address, most significant byte first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The broadcast address.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Source of the inner Ethernet header of what a gateway sends into the tunnel (locally administered).
    pub const TUNNEL_GATEWAY: Self = Self([0x02, b'e', b'i', b'p', b'g', b'w']);

    /// Source of the inner Ethernet header of what a worker sends into the tunnel (locally administered).
    pub const TUNNEL_WORKER: Self = Self([0x02, b'e', b'i', b'p', b'w', b'k']);

    /// Source of a copy that is to become a fragment of its packet, with the fragment's number, from 1 on, in the last byte.
    pub const FRAGMENT: Self = Self([0x02, b'e', b'i', b'p', b'f', 0]);

    /// Whether the group bit is set: multicast or broadcast.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a MAC address or a prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParseAddrError {
    /// Not six colon-separated pairs of hexadecimal digits.
    Mac,
    /// Not `a.b.c.d/len`.
    Prefix,
    /// The prefix length is over 32.
    PrefixLength,
}

impl fmt::Display for ParseAddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mac => "not a MAC address like 16:52:f3:13:6a:25",
            Self::Prefix => "not an IPv4 prefix like 192.168.100.1/24",
            Self::PrefixLength => "the prefix length must be between 0 and 32",
        })
    }
}

impl core::error::Error for ParseAddrError {}

impl FromStr for Mac {
    type Err = ParseAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or(ParseAddrError::Mac)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(ParseAddrError::Mac);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| ParseAddrError::Mac)?;
        }
        if parts.next().is_some() { Err(ParseAddrError::Mac) } else { Ok(Self(bytes)) }
    }
}

/// An IPv4 address with a prefix length, as `ip addr` writes it. Host bits are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The address, host bits included.
    pub addr: Ipv4Addr,
    /// Leading bits that name the network, 0..=32.
    pub len: u8,
}

impl Prefix {
    /// A prefix; `len` over 32 is cut to 32.
    pub const fn new(addr: Ipv4Addr, len: u8) -> Self {
        Self { addr, len: if len > 32 { 32 } else { len } }
    }

    /// One address.
    pub const fn host(addr: Ipv4Addr) -> Self {
        Self { addr, len: 32 }
    }

    /// The netmask, for example 255.255.255.0.
    pub fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(self.len)).unwrap_or(0))
    }

    /// The network address: host bits cleared.
    pub fn network(self) -> Ipv4Addr {
        self.addr & self.netmask()
    }

    /// The same network with host bits cleared.
    pub fn trunc(self) -> Self {
        Self { addr: self.network(), len: self.len }
    }

    /// The all-ones host address. RFC 3021: /31 and /32 have none.
    pub fn broadcast(self) -> Option<Ipv4Addr> {
        (self.len < 31).then(|| self.network() | !self.netmask())
    }

    /// Whether the network contains `addr`.
    pub fn contains(self, addr: Ipv4Addr) -> bool {
        addr & self.netmask() == self.network()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Prefix {
    type Err = ParseAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (addr, len) = text.split_once('/').ok_or(ParseAddrError::Prefix)?;
        let addr = addr.parse().map_err(|_| ParseAddrError::Prefix)?;
        let len: u8 = len.parse().map_err(|_| ParseAddrError::Prefix)?;
        if len > 32 { Err(ParseAddrError::PrefixLength) } else { Ok(Self { addr, len }) }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    #[test]
    fn mac_round_trips_and_refuses_anything_else() {
        let mac: Mac = "16:52:f3:13:6a:25".parse().unwrap();
        assert_eq!(mac.to_string(), "16:52:f3:13:6a:25");
        for bad in ["", "16:52:f3:13:6a", "16:52:f3:13:6a:25:00", "1652f3136a25", "16:52:f3:13:6a:+5", "x"] {
            assert_eq!(bad.parse::<Mac>(), Err(ParseAddrError::Mac), "{bad}");
        }
    }

    #[test]
    fn prefix_names_network_and_broadcast() {
        let prefix: Prefix = "192.168.100.254/24".parse().unwrap();
        assert_eq!(prefix.network(), Ipv4Addr::new(192, 168, 100, 0));
        assert_eq!(prefix.broadcast(), Some(Ipv4Addr::new(192, 168, 100, 255)));
        assert!(prefix.contains(Ipv4Addr::new(192, 168, 100, 7)));
        assert!(!prefix.contains(Ipv4Addr::new(192, 168, 101, 7)));
        assert_eq!("0.0.0.0/0".parse::<Prefix>().unwrap().netmask(), Ipv4Addr::UNSPECIFIED);
        assert_eq!("10.0.0.0/31".parse::<Prefix>().unwrap().broadcast(), None);
        assert_eq!("10.0.0.0/33".parse::<Prefix>(), Err(ParseAddrError::PrefixLength));
        assert_eq!("10.0.0.0".parse::<Prefix>(), Err(ParseAddrError::Prefix));
    }
}
