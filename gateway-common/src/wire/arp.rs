//! ARP for IPv4 over Ethernet (RFC 826).

use crate::addr::Mac;

/// Bytes of an Ethernet/IPv4 ARP packet.
pub const PACKET_LEN: usize = 28;
/// `ar$op` of a request.
pub const REQUEST: u16 = 1;
/// `ar$op` of a reply.
pub const REPLY: u16 = 2;
/// `ar$hrd` 1 (Ethernet), `ar$pro` 0x0800 (IPv4), `ar$hln` 6, `ar$pln` 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// An Ethernet/IPv4 ARP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// `ar$op`, host order.
    pub operation: u16,
    /// `ar$sha`: the sender's hardware address.
    pub sender_mac: Mac,
    /// `ar$spa`: the sender's protocol address, network-order bytes.
    pub sender_ip: [u8; 4],
    /// `ar$tha`: the target's hardware address.
    pub target_mac: Mac,
    /// `ar$tpa`: the target's protocol address, network-order bytes.
    pub target_ip: [u8; 4],
}

impl Packet {
    /// Reads the packet; `None` unless it is about IPv4 over Ethernet.
    #[inline(always)]
    pub fn parse(b: &[u8; PACKET_LEN]) -> Option<Self> {
        if [b[0], b[1], b[2], b[3], b[4], b[5]] != ETHERNET_IPV4 {
            return None;
        }
        Some(Self {
            operation: u16::from_be_bytes([b[6], b[7]]),
            sender_mac: Mac([b[8], b[9], b[10], b[11], b[12], b[13]]),
            sender_ip: [b[14], b[15], b[16], b[17]],
            target_mac: Mac([b[18], b[19], b[20], b[21], b[22], b[23]]),
            target_ip: [b[24], b[25], b[26], b[27]],
        })
    }

    /// The packet as it stands on the wire.
    #[inline(always)]
    pub fn emit(&self) -> [u8; PACKET_LEN] {
        let mut b = [0; PACKET_LEN];
        b[0..6].copy_from_slice(&ETHERNET_IPV4);
        b[6..8].copy_from_slice(&self.operation.to_be_bytes());
        b[8..14].copy_from_slice(&self.sender_mac.0);
        b[14..18].copy_from_slice(&self.sender_ip);
        b[18..24].copy_from_slice(&self.target_mac.0);
        b[24..28].copy_from_slice(&self.target_ip);
        b
    }

    /// Whether the sender announces its own address: a gratuitous ARP or an announcement (RFC 5227 section 3).
    #[inline(always)]
    pub fn is_announcement(&self) -> bool {
        self.sender_ip == self.target_ip
    }

    /// The answer to this request: `mac` has the target address.
    #[inline(always)]
    #[must_use]
    pub fn reply(&self, mac: Mac) -> Self {
        Self {
            operation: REPLY,
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
        }
    }

    /// A gratuitous ARP request by which `mac` announces `ip` (RFC 5227 section 2.3).
    pub fn announcement(mac: Mac, ip: [u8; 4]) -> Self {
        Self { operation: REQUEST, sender_mac: mac, sender_ip: ip, target_mac: Mac([0; 6]), target_ip: ip }
    }

    /// An ARP probe by which `mac` asks whether anybody has `ip` (RFC 5227 section 1.1).
    pub fn probe(mac: Mac, ip: [u8; 4]) -> Self {
        Self { sender_ip: [0; 4], ..Self::announcement(mac, ip) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_answers() {
        let request = Packet {
            operation: REQUEST,
            sender_mac: Mac([2; 6]),
            sender_ip: [192, 168, 100, 1],
            target_mac: Mac([0; 6]),
            target_ip: [192, 168, 100, 101],
        };
        assert_eq!(Packet::parse(&request.emit()), Some(request));
        let reply = request.reply(Mac([4; 6]));
        assert_eq!(reply.operation, REPLY);
        assert_eq!((reply.sender_ip, reply.target_mac), (request.target_ip, request.sender_mac));
        assert!(!reply.is_announcement());
        assert!(Packet::announcement(Mac([4; 6]), [1, 2, 3, 4]).is_announcement());
        let probe = Packet::probe(Mac([4; 6]), [1, 2, 3, 4]);
        assert_eq!((probe.operation, probe.sender_ip, probe.target_ip), (REQUEST, [0; 4], [1, 2, 3, 4]));
        assert!(!probe.is_announcement());
    }

    #[test]
    fn refuses_other_hardware() {
        let mut bytes = Packet::announcement(Mac([4; 6]), [1, 2, 3, 4]).emit();
        bytes[1] = 6;
        assert_eq!(Packet::parse(&bytes), None);
    }
}
