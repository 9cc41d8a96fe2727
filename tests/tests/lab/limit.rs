//! A flood of packets that ask for ICMP errors gets no flood of errors.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gateway_lab::Lab;
use gateway_tests::fixture::{self, CLIENT_MAC, NIC_MAC};
use gateway_tests::packet::{ip, ipv4_frame};

use crate::accounting::{TIMES, send_all};
use crate::capture::Capture;
use crate::scene::{EIP1, NODES, eventually, overview, ping, scene, verdict};
use crate::streams::configure;

/// ICMP errors of each kind a second and CPU in this test.
const RATE: u64 = 100;
/// Kinds of errors that the flood asks for.
const KINDS: u64 = 2;
/// Packets of the flood.
const FLOOD: u64 = 5_000;

/// Half of them too long with DF, half of them with a TTL that runs out.
fn flood() -> Vec<Vec<u8>> {
    let frame = |number: u64| {
        let port = 1_024 + number as u16;
        let packet = if number.is_multiple_of(2) {
            ip(fixture::CLIENT, fixture::EIP1).udp(port, 9, &[0; 1_472])
        } else {
            ip(fixture::CLIENT, fixture::EIP1).ttl(1).udp(port, 9, b"probe")
        };
        ipv4_frame(CLIENT_MAC, NIC_MAC, &packet)
    };
    (0..FLOOD / TIMES).map(frame).collect()
}

fn logged(lab: &Lab) -> Result<Vec<usize>> {
    NODES.iter().map(|node| Ok(lab.agent_log(node)?.lines().count())).collect()
}

/// Answers and refusals since the start.
fn counted(lab: &Lab) -> Result<(u64, u64)> {
    let answers = verdict(lab, "gw1", "fragmentation_needed")? + verdict(lab, "gw1", "time_exceeded")?;
    Ok((answers, verdict(lab, "gw1", "drop_error_limit")?))
}

#[test]
fn a_flood_gets_as_many_errors_as_are_allowed() -> Result<()> {
    let lab = scene("w1-", 1500)?;
    configure(&lab, &format!("icmp-error-rate: \"{RATE}\""))?;
    eventually(Duration::from_secs(2), "the limit is set", || {
        Ok(overview(&lab, "gw1")?["tunnel"]["icmp_error_rate"] == RATE)
    })?;
    let (lines, wire) = (logged(&lab)?, Capture::arriving(&lab, "client", "eth0")?);
    let since = Instant::now();
    send_all(&lab, "client", "eth0", flood())?;
    eventually(Duration::from_secs(2), "each packet is counted", || {
        let (answers, refused) = counted(&lab)?;
        Ok(answers + refused == FLOOD)
    })?;
    let took = since.elapsed();
    let (answers, refused) = counted(&lab)?;
    let cpus = std::thread::available_parallelism()?.get() as u64;
    let most = KINDS * cpus * (RATE + RATE * (took.as_millis() as u64 + 20) / 1_000);
    println!("{answers} errors for {FLOOD} packets in {took:?}, {refused} refused; at most {most}");
    ensure!((RATE..=most).contains(&answers), "{answers} errors, {most} at most");
    let errors = wire.stop()?.matching("icmp.type == 3 || icmp.type == 11")?.len() as u64;
    ensure!(errors == answers, "{errors} errors arrived of {answers}");
    ensure!(logged(&lab)? == lines, "an agent logs per packet");

    // Who asks after a moment gets his answer.
    std::thread::sleep(Duration::from_millis(100));
    let told = ping(&lab, "client", &["-c1", "-Mdo", "-s1472", EIP1])?;
    ensure!(told.output.contains("mtu = 1450"), "after the flood: {}", told.output);
    Ok(())
}
