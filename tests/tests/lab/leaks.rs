//! Nothing of the inside shows outside. The watch on every scene's external link does see a pod's address, in a packet and in what an ICMP error quotes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, ensure};
use etherparse::Icmpv4Type;
use etherparse::icmpv4::DestUnreachableHeader;
use gateway_tests::fixture::{CLIENT, CLIENT_MAC, NIC_IP, NIC_MAC, POD1};
use gateway_tests::packet::{ip, ipv4_frame};

use crate::accounting::send_all;
use crate::capture::Capture;
use crate::scene::{self, EIP1, ping, reaches, scene, verdict};

#[test]
fn a_leak_fails_the_test_it_happens_in() -> Result<()> {
    let unreachable = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port);
    let quote = ip(CLIENT, POD1).udp(7, 9, b"x");
    for (what, packet) in [
        ("as a source", ip(POD1, CLIENT).udp(7, 9, b"x")),
        ("quoted", ip(NIC_IP, CLIENT).icmp(unreachable, &quote[..28])),
    ] {
        let lab = scene("k1-", 1500)?;
        send_all(&lab, "gw1", "enp8s0", vec![ipv4_frame(NIC_MAC, CLIENT_MAC, &packet)])?;
        // It panics by purpose; the lab goes down all the same.
        let seen = catch_unwind(AssertUnwindSafe(|| drop(lab)));
        ensure!(seen.is_err(), "nobody saw a pod's address {what}");
    }
    Ok(())
}

#[test]
fn a_recorded_route_stays_inside() -> Result<()> {
    let lab = scene("k2-", 1500)?;
    let wire = Capture::start(&lab, "client", "eth0")?;
    for (from, to, dropped_at) in [("client", EIP1, "gw1"), ("pod1a", scene::CLIENT, "worker1")] {
        for record in [&["-R"][..], &["-T", "tsandaddr"], &["-T", "tsonly"]] {
            let before = verdict(&lab, dropped_at, "drop_ip_option")?;
            let pings = ping(&lab, from, &[record, &["-c2", to]].concat())?;
            ensure!(pings.sent == 2 && pings.received == 0, "{from}, {record:?}: {}", pings.output);
            let counted = verdict(&lab, dropped_at, "drop_ip_option")? - before;
            ensure!(counted == 2, "{from}, {record:?}: {counted} counted on {dropped_at}");
        }
        reaches(&lab, from, to, 3)?;
    }
    let answered = wire
        .stop()?
        .matching("ip.src != 192.168.100.1 && (ip.opt.type.number == 7 || ip.opt.type.number == 4)")?;
    ensure!(answered.is_empty(), "a packet of ours has such an option: {answered:?}");
    Ok(())
}
