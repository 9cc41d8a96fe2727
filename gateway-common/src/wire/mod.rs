//! Wire formats, with the field names of their RFCs. Views read from byte arrays; writers give whole headers.

pub mod arp;
pub mod eth;
pub mod geneve;
pub mod icmp;
pub mod ipv4;
pub mod l4;
