//! Ping, TCP and UDP through the gateway, in both directions.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use gateway_lab::{CLIENT, EIP, EIP_POD, Lab, NIC_IP, OUTSIDE, plan::Pod};

use super::stage::Findings;

const SIZE: u64 = 64 << 20;
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn ping(lab: &Lab) -> Result<Findings> {
    let eip = rally(lab, EIP, 20)?;
    ensure!(eip.contains("ttl 62"), "two hops away means TTL 62: {eip}");
    Ok(vec![eip, rally(lab, NIC_IP, 5)?])
}

/// `count` pings without loss; in words.
fn rally(lab: &Lab, to: Ipv4Addr, count: u32) -> Result<String> {
    let (to, count_word) = (to.to_string(), count.to_string());
    let text = lab.read("client", &["ping", "-i0.05", "-W1", "-c", &count_word, &to])?;
    ensure!(text.contains(&format!(" {count} received")), "packets were lost: {}", text.trim());
    let between = |from: &str, to: char| text.split(from).nth(1)?.split(to).next();
    let ttl = between("ttl=", ' ').unwrap_or("?");
    let average = text.rsplit("mdev = ").next().and_then(|times| times.split('/').nth(1)).unwrap_or("?");
    Ok(format!("{count} of {count} answered by {to}, ttl {ttl}, {average} ms on average"))
}

pub(crate) fn tcp(lab: &Lab) -> Result<Findings> {
    let payload = lab.status()?.state.join("payload");
    let payload = payload.to_string_lossy();
    lab.read("client", &["sh", "-c", &format!("head -c {SIZE} /dev/urandom > {payload}")])?;
    let hash = first_word(&lab.read("client", &["sha256sum", &payload])?);
    let in_ = transfer(lab, ("client", EIP_POD), (EIP, CLIENT), &payload, &hash)?;
    let out = transfer(lab, (EIP_POD, "client"), (CLIENT, EIP), &payload, &hash)?;
    Ok(vec![format!("client → {EIP_POD}: {in_}"), format!("{EIP_POD} → client: {out}")])
}

/// Sends the payload; the receiver must get every byte, from the address it is meant to see.
fn transfer(
    lab: &Lab,
    (sender, receiver): (&str, &str),
    (to, seen): (Ipv4Addr, Ipv4Addr),
    payload: &str,
    hash: &str,
) -> Result<String> {
    let listen = "socat -d -d -u -b 262144 TCP-LISTEN:7001,reuseaddr STDOUT | sha256sum";
    let mut server = lab.spawn(receiver, &["sh", "-c", listen])?;
    server.wait_for("listening on", Duration::from_secs(2))?;
    let since = Instant::now();
    let target = format!("TCP:{to}:7001,connect-timeout=3");
    lab.read(sender, &["timeout", "20", "socat", "-u", "-b", "262144", &format!("FILE:{payload}"), &target])?;
    server.wait(LIMIT)?;
    let seconds = since.elapsed().as_secs_f64();
    ensure!(first_word(&server.stdout()) == hash, "{receiver} received something else than {sender} sent");
    let log = server.stderr();
    ensure!(
        log.contains(&format!(" {seen}:")),
        "{receiver} should see {seen} as the peer; socat says: {log}"
    );
    let gigabits = f64::from(u32::try_from(SIZE)?) * 8.0 / seconds / 1e9;
    Ok(format!("{} MiB intact, {gigabits:.1} Gbit/s, the peer is {seen}\nsha256 {hash}", SIZE >> 20))
}

pub(crate) fn udp(lab: &Lab) -> Result<Findings> {
    let in_ = exchange(lab, ("client", EIP_POD), EIP, CLIENT)?;
    let out = exchange(lab, (EIP_POD, "client"), CLIENT, EIP)?;
    Ok(vec![format!("client → {EIP_POD}: {in_}"), format!("{EIP_POD} → client: {out}")])
}

/// A datagram there and one back that says whom the receiver saw.
fn exchange(lab: &Lab, (sender, receiver): (&str, &str), to: Ipv4Addr, seen: Ipv4Addr) -> Result<String> {
    let answer = "SYSTEM:read line; echo $line from $SOCAT_PEERADDR";
    let mut server = lab.spawn(receiver, &["socat", "-d", "-d", "UDP-RECVFROM:7002,fork", answer])?;
    server.wait_for("receiving on", Duration::from_secs(2))?;
    let ask = format!("echo hello | timeout 5 socat -t1 - UDP:{to}:7002");
    let heard = lab.read(sender, &["sh", "-c", &ask])?;
    ensure!(
        heard.trim() == format!("hello from {seen}"),
        "{receiver} should see {seen}; its answer: {heard:?}"
    );
    Ok(format!("a datagram and its answer, the peer is {seen}"))
}

pub(crate) fn outside(lab: &Lab) -> Result<Findings> {
    let mut capture = lab.spawn("outside", &["tcpdump", "-nli", "eth0", "icmp"])?;
    capture.wait_for("listening on", Duration::from_secs(5))?;
    lab.read(EIP_POD, &["ping", "-c3", "-i0.1", "-W1", &OUTSIDE.to_string()])?;
    let expected = format!("{EIP} > {OUTSIDE}: ICMP echo request");
    capture.wait_for(&expected, Duration::from_secs(2))?;
    let seen = capture.interrupt()?;
    let pod = Pod::named(EIP_POD).context("the EIP's pod is one of the lab's")?.ip;
    ensure!(!seen.contains(&pod.to_string()), "the pod's own address {pod} reached the outside: {seen}");
    let line = seen.lines().find(|line| line.contains(&expected)).unwrap_or_default();
    Ok(vec![format!("outside sees {EIP}, never {pod}\n{line}")])
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().to_owned()
}
