//! The list.

use super::Intended;
use crate::compare::PACKETS;

const NONE: &str = "none";

/// Every difference that we intend.
pub(crate) const ALL: &[Intended] = &[
    Intended {
        reason: "A SYN's MSS is clamped to what the tunnel carries. OVN leaves it, and drops what is then too \
                 big.",
        cases: &[
            (&["in: TCP SYN, MSS 1460"], &[("pod", "tcp.options.mss_val", "1410", "1460")]),
            (&["out: TCP SYN, MSS 1460"], &[("client", "tcp.options.mss_val", "1410", "1460")]),
        ],
    },
    Intended {
        reason: "The TTL runs out at the gateway, which says so with its own address, `nic-ip` (RFC 1812, section \
                 4.3.2.4), and quotes 8 bytes behind the header. OVN says so with the EIP, so that traceroute \
                 shows the pod twice and the gateway never.",
        cases: &[(
            &["in: TTL 1"],
            &[
                ("client", "ip.src", "192.168.100.254,192.168.100.1", "192.168.100.101,192.168.100.1"),
                ("client", "ip.len", "56,36", "64,36"),
                ("client", "data.data", "-", "646174616772616d"),
                ("client", "udp.checksum.status", "2", "1"),
                ("client", "ip.flags", "0x00,0x02", "0x02,0x02"),
                ("client", "ip.ttl", "64,1", "254,1"),
            ],
        )],
    },
    Intended {
        reason: "The pod's router is the worker's kernel, which writes its errors with a TTL of 64, DSCP CS6 and \
                 without DF.",
        cases: &[(
            &["out: TTL 1"],
            &[
                ("pod", "ip.dsfield", "0xc0,0x00", "0x00,0x00"),
                ("pod", "ip.flags", "0x00,0x02", "0x02,0x02"),
                ("pod", "ip.ttl", "64,1", "254,1"),
            ],
        )],
    },
    Intended {
        reason: "The worker's kernel is a hop, where the TTL may run out as well; the client sees `nic-ip` say \
                 so.",
        cases: &[(
            &["in: TTL 2"],
            &[
                ("client", PACKETS, "ICMP 11/0, TTL 63, from 192.168.100.254", NONE),
                ("pod", PACKETS, NONE, "UDP, TTL 1"),
            ],
        )],
    },
    Intended {
        reason: "Behind the worker's kernel the gateway is a second hop.",
        cases: &[(
            &["out: TTL 2"],
            &[
                ("client", PACKETS, NONE, "UDP, TTL 1"),
                ("pod", PACKETS, "ICMP 11/0, TTL 63, from 192.168.100.254", NONE),
            ],
        )],
    },
    Intended {
        reason: "Record route would show the worker's addresses outside: dropped at a border, by default (RFC 7126, \
                 section 4.5). OVN passes options on unread, and has no router that would write into them.",
        cases: &[
            (&["in: option record route"], &[("pod", PACKETS, NONE, "UDP, TTL 63")]),
            (&["out: option record route"], &[("client", PACKETS, NONE, "UDP, TTL 63")]),
        ],
    },
    Intended {
        reason: "Our Geneve has no options: 1450 bytes fit into an underlay of 1500. OVN's has 8 bytes of them: \
                 1442.",
        cases: &[
            (&["in: 1450 bytes, DF", "in: 1450 bytes, no DF"], &[("pod", PACKETS, "UDP, TTL 62", NONE)]),
            (&["out: 1450 bytes, DF", "out: 1450 bytes, no DF"], &[("client", PACKETS, "UDP, TTL 62", NONE)]),
        ],
    },
    Intended {
        reason: "Too big and not to be fragmented: we answer (RFC 1191), outwards the worker's kernel does; OVN \
                 is silent.",
        cases: &[
            (
                &["in: 1451 bytes, DF", "in: 1500 bytes, DF"],
                &[("client", PACKETS, "ICMP 3/4, TTL 64, MTU 1450, from 192.168.100.254", NONE)],
            ),
            (
                &["out: 1451 bytes, DF", "out: 1500 bytes, DF"],
                &[("pod", PACKETS, "ICMP 3/4, TTL 64, MTU 1450, from 10.244.1.1", NONE)],
            ),
        ],
    },
    Intended {
        reason: "Too big, and fragmented by the gateway. OVN drops it.",
        cases: &[(
            &["in: 1451 bytes, no DF", "in: 1500 bytes, no DF"],
            &[("pod", PACKETS, "fragment at 0, TTL 62 + fragment at 178, TTL 62", NONE)],
        )],
    },
    Intended {
        reason: "Too big, and fragmented by the worker's kernel. OVN drops it.",
        cases: &[(
            &["out: 1451 bytes, no DF", "out: 1500 bytes, no DF"],
            &[("client", PACKETS, "fragment at 0, TTL 62 + fragment at 178, TTL 62", NONE)],
        )],
    },
    Intended {
        reason: "A redirect names a router on a link that the pod is not on: it does not cross the gateway.",
        cases: &[
            (&["in: redirect"], &[("pod", PACKETS, NONE, "ICMP 5/1, TTL 63")]),
            (&["out: redirect"], &[("client", PACKETS, NONE, "ICMP 5/1, TTL 63")]),
        ],
    },
    Intended {
        reason: "RFC 6633 withdraws source quench.",
        cases: &[
            (&["in: source quench"], &[("pod", PACKETS, NONE, "ICMP 4/0, TTL 63")]),
            (&["out: source quench"], &[("client", PACKETS, NONE, "ICMP 4/0, TTL 63")]),
        ],
    },
    Intended {
        reason: "An error about a packet that the pod did not get: the worker's conntrack calls it INVALID, and \
                 kube-proxy's rule, which the lab's nodes have, drops that. OVN's conntrack does so too, and lets \
                 it go untranslated: the pod's address is on the external network.",
        cases: &[(
            &[
                "out: port unreachable about a packet never sent",
                "out: port unreachable about somebody else's packet",
            ],
            &[("client", PACKETS, NONE, "ICMP 3/3, TTL 63, from 10.244.1.10")],
        )],
    },
    Intended {
        reason: "From inside, the gateway's kernel answers for `nic-ip`: a TTL of 64 and a hop, and no DF. OVN \
                 turns the request round.",
        cases: &[(
            &["the pod's echo to nic-ip"],
            &[("pod", "ip.flags", "0x00", "0x02"), ("pod", "ip.ttl", "63", "254")],
        )],
    },
    Intended {
        reason: "A router forwards nothing that came to a multicast MAC (RFC 1812, section 5.3.4).",
        cases: &[(&["in: to a multicast MAC"], &[("pod", PACKETS, NONE, "UDP, TTL 63")])],
    },
    Intended {
        reason: "The TTL is 62 with both: OVN's router is passed twice, we turn the packet round on its node.",
        cases: &[(&["out: to the pod's own EIP"], &[("pod", "ip.ttl", "63", "62")])],
    },
    Intended {
        reason: "Only an EIP pod's own address is routed to the gateway; any other goes where the node sends it, \
                 here nowhere. OVN sends it to the external network as it is.",
        cases: &[(
            &["out: from an address that is not the pod's"],
            &[("client", PACKETS, NONE, "UDP, TTL 63, from 10.244.1.99")],
        )],
    },
    Intended {
        reason: "What a pod sends broken ends at its node: the kernel verifies the header, conntrack the rest. \
                 OVN lets it go, untranslated.",
        cases: &[
            (
                &["out: wrong IPv4 checksum", "out: wrong UDP checksum"],
                &[("client", PACKETS, NONE, "UDP, TTL 63, from 10.244.1.10")],
            ),
            (&["out: wrong TCP checksum"], &[("client", PACKETS, NONE, "TCP, TTL 63, from 10.244.1.10")]),
            (
                &["out: wrong ICMP checksum"],
                &[("client", PACKETS, NONE, "ICMP 8/0, TTL 63, from 10.244.1.10")],
            ),
            (&["out: version 6 in the IPv4 header"], &[("client", PACKETS, NONE, "not an IPv4 packet")]),
        ],
    },
    Intended {
        reason: "Nobody outside speaks in the name of somebody inside: a pod, a node, a Service or an EIP. OVN \
                 delivers it.",
        cases: &[
            (&["in: from the pod's own address"], &[("pod", PACKETS, NONE, "UDP, TTL 63, from 10.244.1.10")]),
            (&["in: from another pod's address"], &[("pod", PACKETS, NONE, "UDP, TTL 63, from 10.244.2.10")]),
            (&["in: from the EIP itself"], &[("pod", PACKETS, NONE, "UDP, TTL 63")]),
        ],
    },
    Intended {
        reason: "Reserved addresses are no host's (RFC 1812, section 5.3.7).",
        cases: &[(&["in: from 240.0.0.1"], &[("pod", PACKETS, NONE, "UDP, TTL 63, from 240.0.0.1")])],
    },
];
