//! Ping, TCP and UDP through the gateway, in both directions.

use std::{
    fmt,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use gateway_lab::{CLIENT, EIP, EIP_POD, Lab, NIC_IP, OUTSIDE, plan::Pod};

use super::stage::Findings;

const SIZE: u64 = 64 << 20;
const LIMIT: Duration = Duration::from_secs(20);

/// TTL of what comes from an EIP: two hops from 64.
pub(crate) const EIP_TTL: u8 = 62;
/// TTL of what the gateway itself answers, as an OVN router port's.
pub(crate) const NIC_IP_TTL: u8 = 254;

pub(crate) fn ping(lab: &Lab) -> Result<Findings> {
    let eip = rally(lab, "client", EIP, 20)?.expecting(EIP_TTL)?;
    let nic_ip = rally(lab, "client", NIC_IP, 5)?.expecting(NIC_IP_TTL)?;
    Ok(vec![eip.to_string(), nic_ip.to_string()])
}

/// Pings that were all answered.
#[derive(Debug, PartialEq)]
pub(crate) struct Rally {
    to: Ipv4Addr,
    count: u32,
    /// Of the first reply.
    pub(crate) ttl: u8,
    /// Round trip, ms.
    pub(crate) average: f64,
}

impl Rally {
    /// Refuses replies with another TTL.
    pub(crate) fn expecting(self, ttl: u8) -> Result<Self> {
        ensure!(self.ttl == ttl, "replies of {} have TTL {} instead of {ttl}", self.to, self.ttl);
        Ok(self)
    }
}

impl fmt::Display for Rally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to, count, ttl, average } = self;
        write!(f, "{count} of {count} answered by {to}, TTL {ttl}, {average:.3} ms on average")
    }
}

/// `count` pings from a namespace, without loss.
pub(crate) fn rally(lab: &Lab, from: &str, to: Ipv4Addr, count: u32) -> Result<Rally> {
    let text = lab.read(from, &["ping", "-i0.05", "-W1", "-c", &count.to_string(), &to.to_string()])?;
    ensure!(text.contains(&format!(" {count} received")), "packets were lost: {}", text.trim());
    let (ttl, average) = measured(&text).with_context(|| format!("ping printed no figures: {text}"))?;
    Ok(Rally { to, count, ttl, average })
}

/// TTL and average time in what `ping` prints.
fn measured(text: &str) -> Option<(u8, f64)> {
    let ttl = text.split("ttl=").nth(1)?.split(' ').next()?.parse().ok()?;
    let average = text.rsplit("mdev = ").next()?.split('/').nth(1)?.parse().ok()?;
    Some((ttl, average))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_figures_are_read_as_it_prints_them() {
        let text = "64 bytes from 192.168.100.101: icmp_seq=1 ttl=62 time=0.213 ms\n\n\
                    rtt min/avg/max/mdev = 0.100/0.213/0.300/0.040 ms\n";
        assert_eq!(measured(text), Some((62, 0.213)));
        assert_eq!(measured("connect: Network is unreachable"), None);
    }
}
