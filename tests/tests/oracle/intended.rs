//! The differences we intend, each with its reason. A difference that is not here fails the run, and so does one that is
//! here and no longer shows.

use std::collections::BTreeSet;

use crate::compare::{Difference, PACKETS};

/// End, field, ours, OVN's.
type Row = (&'static str, &'static str, &'static str, &'static str);

/// Differences of one reason.
pub(crate) struct Intended {
    pub(crate) reason: &'static str,
    /// The stimuli, each of which shows all the rows.
    pub(crate) stimuli: &'static [&'static str],
    rows: &'static [Row],
}

const NONE: &str = "none";

/// What becomes of packets from outside that are too big for the tunnel and may be fragmented.
const TOO_BIG_TO_POD: &str = NONE;

/// All of them.
pub(crate) const ALL: &[Intended] = &[
    Intended {
        reason: "A SYN's MSS is clamped to what the tunnel carries. OVN leaves it, and drops what is then too big.",
        stimuli: &["in: TCP SYN, MSS 1460"],
        rows: &[("pod", "tcp.options.mss_val", "1410", "1460")],
    },
    Intended {
        reason: "The same outwards.",
        stimuli: &["out: TCP SYN, MSS 1460"],
        rows: &[("client", "tcp.options.mss_val", "1410", "1460")],
    },
    Intended {
        reason: "The TTL runs out at the gateway, which says so with its own address, `nic-ip` (RFC 1812, section \
                 4.3.2.4), and quotes 8 bytes behind the header. OVN says so with the EIP, so that traceroute shows the \
                 pod twice and the gateway never.",
        stimuli: &["in: TTL 1"],
        rows: &[
            ("client", "ip.src", "192.168.100.254,192.168.100.1", "192.168.100.101,192.168.100.1"),
            ("client", "ip.len", "56,36", "64,36"),
            ("client", "data.data", "-", "646174616772616d"),
            ("client", "udp.checksum.status", "2", "1"),
            ("client", "ip.flags", "0x00,0x02", "0x02,0x02"),
            ("client", "ip.ttl", "64,1", "254,1"),
        ],
    },
    Intended {
        reason: "The pod's router is the worker's kernel, which writes its errors with a TTL of 64, DSCP CS6 and without DF.",
        stimuli: &["out: TTL 1"],
        rows: &[
            ("pod", "ip.dsfield", "0xc0,0x00", "0x00,0x00"),
            ("pod", "ip.flags", "0x00,0x02", "0x02,0x02"),
            ("pod", "ip.ttl", "64,1", "254,1"),
        ],
    },
    Intended {
        reason: "The worker's kernel is a hop, where the TTL may run out as well; the client sees `nic-ip` say so.",
        stimuli: &["in: TTL 2"],
        rows: &[
            ("client", PACKETS, "ICMP 11/0, TTL 63, from 192.168.100.254", NONE),
            ("pod", PACKETS, NONE, "UDP, TTL 1"),
        ],
    },
    Intended {
        reason: "Behind the worker's kernel the gateway is a second hop.",
        stimuli: &["out: TTL 2"],
        rows: &[
            ("client", PACKETS, NONE, "UDP, TTL 1"),
            ("pod", PACKETS, "ICMP 11/0, TTL 63, from 192.168.100.254", NONE),
        ],
    },
    Intended {
        reason: "The worker's kernel heeds the option as a router does; OVN passes options on unread.",
        stimuli: &["in: option record route"],
        rows: &[("pod", "ip.opt.ptr", "8", "4"), ("pod", "ip.rec_rt", "10.244.1.1", "-")],
    },
    Intended {
        reason: "The same outwards. The address recorded is the worker's on the underlay.",
        stimuli: &["out: option record route"],
        rows: &[("client", "ip.opt.ptr", "8", "4"), ("client", "ip.rec_rt", "172.18.0.21", "-")],
    },
    Intended {
        reason: "Our Geneve has no options: 1450 bytes fit into an underlay of 1500. OVN's has 8 bytes of them: 1442.",
        stimuli: &["in: 1450 bytes, DF", "in: 1450 bytes, no DF"],
        rows: &[("pod", PACKETS, "UDP, TTL 62", NONE)],
    },
    Intended {
        reason: "The same outwards.",
        stimuli: &["out: 1450 bytes, DF", "out: 1450 bytes, no DF"],
        rows: &[("client", PACKETS, "UDP, TTL 62", NONE)],
    },
    Intended {
        reason: "Too big and not to be fragmented: we answer (RFC 1191), OVN is silent.",
        stimuli: &["in: 1451 bytes, DF", "in: 1500 bytes, DF"],
        rows: &[("client", PACKETS, "ICMP 3/4, TTL 64, MTU 1450, from 192.168.100.254", NONE)],
    },
    Intended {
        reason: "The same outwards; there the worker's kernel answers.",
        stimuli: &["out: 1451 bytes, DF", "out: 1500 bytes, DF"],
        rows: &[("pod", PACKETS, "ICMP 3/4, TTL 64, MTU 1450, from 10.244.1.1", NONE)],
    },
    Intended {
        reason: "Too big, and to be fragmented. OVN drops it.",
        stimuli: &["in: 1451 bytes, no DF", "in: 1500 bytes, no DF"],
        rows: &[("pod", PACKETS, TOO_BIG_TO_POD, NONE)],
    },
    Intended {
        reason: "Too big, and fragmented by the worker's kernel. OVN drops it.",
        stimuli: &["out: 1451 bytes, no DF", "out: 1500 bytes, no DF"],
        rows: &[("client", PACKETS, "fragment at 0, TTL 62 + fragment at 178, TTL 62", NONE)],
    },
    Intended {
        reason: "A redirect names a router on a link that the pod is not on: it does not cross the gateway.",
        stimuli: &["in: redirect"],
        rows: &[("pod", PACKETS, NONE, "ICMP 5/1, TTL 63")],
    },
    Intended {
        reason: "The same outwards.",
        stimuli: &["out: redirect"],
        rows: &[("client", PACKETS, NONE, "ICMP 5/1, TTL 63")],
    },
    Intended {
        reason: "RFC 6633 withdraws source quench.",
        stimuli: &["in: source quench"],
        rows: &[("pod", PACKETS, NONE, "ICMP 4/0, TTL 63")],
    },
    Intended {
        reason: "The same outwards.",
        stimuli: &["out: source quench"],
        rows: &[("client", PACKETS, NONE, "ICMP 4/0, TTL 63")],
    },
    Intended {
        reason: "An error about a packet that the pod did not get: the worker's conntrack calls it INVALID, and \
                 kube-proxy's rule, which the lab's nodes have, drops that. OVN's conntrack does so too, and lets it go \
                 untranslated: the pod's address is on the external network.",
        stimuli: &[
            "out: port unreachable about a packet never sent",
            "out: port unreachable about somebody else's packet",
        ],
        rows: &[("client", PACKETS, NONE, "ICMP 3/3, TTL 63, from 10.244.1.10")],
    },
    Intended {
        reason: "`nic-ip` is a host, the gateway's kernel: it refuses what it does not serve (RFC 1122). OVN is silent.",
        stimuli: &["UDP to a closed port of nic-ip"],
        rows: &[("client", PACKETS, "ICMP 3/3, TTL 64, from 192.168.100.254", NONE)],
    },
    Intended {
        reason: "The same for TCP.",
        stimuli: &["TCP SYN to a closed port of nic-ip"],
        rows: &[("client", PACKETS, "TCP RST, TTL 64, from 192.168.100.254", NONE)],
    },
    Intended {
        reason: "The same for a protocol nobody knows.",
        stimuli: &["protocol 253 to nic-ip"],
        rows: &[("client", PACKETS, "ICMP 3/2, TTL 64, from 192.168.100.254", NONE)],
    },
    Intended {
        reason: "From inside, the gateway's kernel answers for `nic-ip`: a TTL of 64 and a hop, and no DF. OVN turns the \
                 request round.",
        stimuli: &["the pod's echo to nic-ip"],
        rows: &[("pod", "ip.flags", "0x00", "0x02"), ("pod", "ip.ttl", "63", "254")],
    },
    Intended {
        reason: "A router forwards nothing that came to a multicast MAC (RFC 1812, section 5.3.4).",
        stimuli: &["in: to a multicast MAC"],
        rows: &[("pod", PACKETS, NONE, "UDP, TTL 63")],
    },
    Intended {
        reason: "The TTL is 62 with both: OVN's router is passed twice, we turn the packet round on its node.",
        stimuli: &["out: to the pod's own EIP"],
        rows: &[("pod", "ip.ttl", "63", "62")],
    },
    Intended {
        reason: "A pod does not send from another's address: the worker's `rp_filter`. OVN sends it to the external network \
                 as it is.",
        stimuli: &["out: from an address that is not the pod's"],
        rows: &[("client", PACKETS, NONE, "UDP, TTL 63, from 10.244.1.99")],
    },
    Intended {
        reason: "What a pod sends broken ends at its node: the kernel verifies the header, conntrack the rest. OVN lets it \
                 go, untranslated.",
        stimuli: &["out: wrong IPv4 checksum", "out: wrong UDP checksum"],
        rows: &[("client", PACKETS, NONE, "UDP, TTL 63, from 10.244.1.10")],
    },
    Intended {
        reason: "The same for TCP.",
        stimuli: &["out: wrong TCP checksum"],
        rows: &[("client", PACKETS, NONE, "TCP, TTL 63, from 10.244.1.10")],
    },
    Intended {
        reason: "The same for ICMP.",
        stimuli: &["out: wrong ICMP checksum"],
        rows: &[("client", PACKETS, NONE, "ICMP 8/0, TTL 63, from 10.244.1.10")],
    },
    Intended {
        reason: "The same for a header that says it is not IPv4.",
        stimuli: &["out: version 6 in the IPv4 header"],
        rows: &[("client", PACKETS, NONE, "not an IPv4 packet")],
    },
    Intended {
        reason: "A pod does not hear from itself by way of the gateway: the worker's `rp_filter`.",
        stimuli: &["in: from the pod's own address"],
        rows: &[("pod", PACKETS, NONE, "UDP, TTL 63, from 10.244.1.10")],
    },
    Intended {
        reason: "A gap: no host has this address (RFC 1812, section 5.3.7), and OVN drops what claims to come from it.",
        stimuli: &["in: from the external network's broadcast address"],
        rows: &[("pod", PACKETS, "UDP, TTL 62, from 192.168.100.255", NONE)],
    },
    Intended {
        reason: "A gap: nobody but the gateway itself has this address, and OVN drops what claims to come from it.",
        stimuli: &["in: from nic-ip"],
        rows: &[("pod", PACKETS, "UDP, TTL 62, from 192.168.100.254", NONE)],
    },
];

impl Intended {
    fn differences(&self) -> impl Iterator<Item = Difference> {
        // A row whose sides are equal is none.
        self.rows.iter().filter(|(_, _, ours, ovn)| ours != ovn).map(|(at, field, ours, ovn)| Difference {
            at: (*at).to_owned(),
            field: (*field).to_owned(),
            ours: (*ours).to_owned(),
            ovn: (*ovn).to_owned(),
        })
    }
}

/// What a comparison came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// Places in [`ALL`] of the reasons for what differs.
    pub(crate) reasons: Vec<usize>,
    /// What differs and is not to.
    pub(crate) unexpected: Vec<Difference>,
    /// What is to differ and does not.
    pub(crate) gone: Vec<Difference>,
}

impl Judgement {
    /// Whether everything is as it is to be.
    pub(crate) fn is_good(&self) -> bool {
        self.unexpected.is_empty() && self.gone.is_empty()
    }
}

/// Judges what was found of a stimulus by `intended`, which is [`ALL`] but for tests.
pub(crate) fn judge(stimulus: &str, found: &[Difference], intended: &[Intended]) -> Judgement {
    let found: BTreeSet<_> = found.iter().cloned().collect();
    let reasons: Vec<_> = intended
        .iter()
        .enumerate()
        .filter(|(_, group)| group.stimuli.contains(&stimulus) && group.differences().next().is_some())
        .collect();
    let wanted: BTreeSet<_> = reasons.iter().flat_map(|(_, group)| group.differences()).collect();
    Judgement {
        reasons: reasons.iter().map(|(index, _)| *index).collect(),
        unexpected: found.difference(&wanted).cloned().collect(),
        gone: wanted.difference(&found).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stimuli;

    const LIST: [Intended; 1] =
        [Intended { reason: "we answer", stimuli: &["a"], rows: &[("client", PACKETS, "ICMP", NONE)] }];

    fn difference(ours: &str) -> Difference {
        let word = ToOwned::to_owned;
        Difference { at: word("client"), field: word(PACKETS), ours: word(ours), ovn: word(NONE) }
    }

    #[test]
    fn only_what_is_listed_is_good() {
        let judged = judge("a", &[difference("ICMP")], &LIST);
        assert!(judged.is_good());
        assert_eq!(judged.reasons, [0]);
        assert_eq!(judge("b", &[difference("ICMP")], &LIST).unexpected, [difference("ICMP")]);
        assert_eq!(judge("a", &[], &LIST).gone, [difference("ICMP")]);
        let other = judge("a", &[difference("UDP")], &LIST);
        assert_eq!((other.unexpected, other.gone), (vec![difference("UDP")], vec![difference("ICMP")]));
    }

    #[test]
    fn the_list_is_about_what_is_sent() {
        let names: Vec<_> =
            stimuli::all(stimuli::Round::First).into_iter().map(|stimulus| stimulus.name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "two stimuli have one name");
        for group in ALL {
            for stimulus in group.stimuli {
                assert!(
                    names.iter().any(|name| name == stimulus),
                    "nothing is sent that is called {stimulus:?}"
                );
            }
        }
    }
}
