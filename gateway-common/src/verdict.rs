//! What became of a packet: one name for every way out of the datapath.
//!
//! The same word is the row of the `verdicts` table, the metric label, the word in `gateway-agent show verdicts` and
//! the column of a packet test.

/// What a verdict does with the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Translated, tunnelled or delivered.
    Forward,
    /// Answered by the datapath itself.
    Answer,
    /// Left to the kernel as it came.
    Pass,
    /// Dropped.
    Drop,
}

impl Class {
    /// The word shown to people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Answer => "answer",
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

macro_rules! verdicts {
    ($($variant:ident, $class:ident, $name:literal, $doc:literal;)*) => {
        /// A named way out of the datapath; its number is the row in the `verdicts` table.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u32)]
        pub enum Verdict {
            $(#[doc = $doc] $variant,)*
        }

        impl Verdict {
            /// All verdicts in the order of their rows.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word shown to people and machines.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What it means, in one sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc),* }
            }

            /// What it does with the packet.
            pub const fn class(self) -> Class {
                match self { $(Self::$variant => Class::$class),* }
            }
        }
    };
}

verdicts! {
    ToWorker, Forward, "to_worker", "Destination rewritten to the pod, sent through the tunnel to its node.";
    ToLocalPod, Forward, "to_local_pod", "Destination rewritten to a pod on this node, left to the kernel to deliver.";
    ToExternal, Forward, "to_external", "Source rewritten to the EIP, sent to the external network.";
    ToEip, Forward, "to_eip", "From an EIP pod to another EIP (or its own): both addresses rewritten, turned round here.";
    ToNicIp, Forward, "to_nic_ip", "From an EIP pod to the router port: source rewritten, left to the kernel.";
    ToGateway, Forward, "to_gateway", "From an EIP pod on this node, sent through the tunnel to the gateway.";
    FromGateway, Forward, "from_gateway", "Taken out of the tunnel for an EIP pod on this node, left to the kernel to deliver.";
    ArpReply, Answer, "arp_reply", "ARP request for an EIP or the router port, answered.";
    EchoReply, Answer, "echo_reply", "ICMP echo request to the router port, answered.";
    TimeExceeded, Answer, "time_exceeded", "TTL ran out here, answered with ICMP time exceeded.";
    FragmentationNeeded, Answer, "fragmentation_needed", "DF set and too long for the next hop, answered with ICMP fragmentation needed.";
    Fragmented, Forward, "fragmented", "Too long for the next hop, DF clear: cut into fragments, each of which is counted as it goes on.";
    PassDisabled, Pass, "pass_disabled", "No configuration, one of another version, or this node does not own the external network.";
    PassNotIpv4, Pass, "pass_not_ipv4", "Neither IPv4 nor an ARP request of ours.";
    PassNotForUs, Pass, "pass_not_for_us", "The destination is no EIP, or the frame was sent to another station.";
    PassNicIp, Pass, "pass_nic_ip", "For the router port and no echo request: the kernel answers.";
    PassNotTunnel, Pass, "pass_not_tunnel", "Not Geneve on our port to our tunnel endpoint.";
    PassForeignVni, Pass, "pass_foreign_vni", "Geneve of another virtual network.";
    PassNotPod, Pass, "pass_not_pod", "The source is no EIP pod on this node.";
    PassInternal, Pass, "pass_internal", "From an EIP pod to an internal prefix: never by the gateway.";
    PassArpConflict, Pass, "pass_arp_conflict", "ARP by which another station claims an EIP or the router port: left to the agent, which defends it.";
    PassUnresolved, Pass, "pass_unresolved", "Next hop not known yet: the kernel resolves it at the TC twin.";
    PassToTwin, Pass, "pass_to_twin", "Needs the kernel's routing, fragmentation, or a NIC that takes no such frame from XDP: the TC twin takes it.";
    DropMalformed, Drop, "drop_malformed", "Header fields contradict each other or the frame is cut short.";
    DropUnknownVtep, Drop, "drop_unknown_vtep", "Geneve of ours from an address that is no node.";
    DropSpoofedSource, Drop, "drop_spoofed_source", "Geneve of ours with an inner source that does not live on that node.";
    DropNoSuchPod, Drop, "drop_no_such_pod", "Geneve from a gateway for an address that is no EIP pod on this node.";
    DropNotIpv4Inside, Drop, "drop_not_ipv4_inside", "Geneve of ours that carries no Ethernet frame with IPv4.";
    DropGeneveVersion, Drop, "drop_geneve_version", "Geneve version other than 0.";
    DropGeneveControl, Drop, "drop_geneve_control", "Geneve control packet (the O bit), of which we know none.";
    DropCriticalOption, Drop, "drop_critical_option", "Geneve with a critical option, of which we know none.";
    DropExpired, Drop, "drop_expired", "TTL ran out here and no ICMP error may be sent about the packet.";
    DropOuterChecksum, Drop, "drop_outer_checksum", "Geneve of ours with a wrong outer UDP checksum.";
    DropCongestion, Drop, "drop_congestion", "Congestion was marked on the way through the tunnel, on a packet whose transport cannot be told: RFC 6040 has it dropped.";
    DropShortQuote, Drop, "drop_short_quote", "ICMP error that quotes no whole IPv4 header: nobody could tell what it is about.";
    DropForeignQuote, Drop, "drop_foreign_quote", "ICMP error about a packet that the EIP has not sent, or that did not go to the pod.";
    DropRedirect, Drop, "drop_redirect", "ICMP redirect: it names a router on a link that the receiver is not on.";
    DropSourceQuench, Drop, "drop_source_quench", "ICMP source quench, which RFC 6633 withdraws.";
    DropMartian, Drop, "drop_martian", "Source or destination that no router forwards: multicast, broadcast, loopback, network 0, reserved (RFC 1812).";
    DropTooBig, Drop, "drop_too_big", "Too long for the next hop, and not to be answered.";
    DropInsideSource, Drop, "drop_inside_source", "In the name of somebody inside (a pod, a node, a Service, an EIP), where only those outside speak.";
    DropInwards, Drop, "drop_inwards", "From outside, to the router port's MAC, for an address that is inside: it is reached by its EIP, or not at all.";
    DropForgedTunnel, Drop, "drop_forged_tunnel", "To a node's tunnel port, and not from this node's own tunnel: a pod that speaks as its node.";
    DropNoExternal, Drop, "drop_no_external", "From an EIP pod to the external network, on which this gateway is not.";
    DropIpOption, Drop, "drop_ip_option", "An IPv4 option that shows or chooses the way through the cluster: record route, timestamp, source routes (RFC 7126).";
    DropErrorLimit, Drop, "drop_error_limit", "An ICMP error about it was due, but this CPU has sent as many of its kind as it may in a second.";
    DropSlowPathLimit, Drop, "drop_slow_path_limit", "The kernel had to resolve its next hop, or it had to be fragmented, and this CPU has done as much of that as it may in a second.";
    DropNoRoom, Drop, "drop_no_room", "The kernel refused to make room in the frame.";
}

impl Verdict {
    /// Number of verdicts: rows of the `verdicts` table.
    pub const COUNT: usize = Self::ALL.len();

    /// The verdict of a row; `None` past the last.
    pub fn from_row(row: u32) -> Option<Self> {
        Self::ALL.get(row as usize).copied()
    }

    /// The row in the `verdicts` table.
    pub const fn row(self) -> u32 {
        self as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_say_their_class() {
        for (row, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(verdict.row() as usize, row);
            assert_eq!(Verdict::from_row(verdict.row()), Some(*verdict));
            assert_eq!(verdict.name().starts_with("drop_"), verdict.class() == Class::Drop, "{verdict:?}");
            assert_eq!(verdict.name().starts_with("pass_"), verdict.class() == Class::Pass, "{verdict:?}");
            assert!(Verdict::ALL.iter().filter(|other| other.name() == verdict.name()).count() == 1);
        }
        assert_eq!(Verdict::from_row(Verdict::COUNT as u32), None);
    }
}
