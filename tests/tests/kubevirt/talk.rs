//! TCP connections that carry numbered lines both ways until they are asked to end.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gateway_lab::Lab;
use nix::sched::{CloneFlags, setns};

/// Between two lines.
const TICK: Duration = Duration::from_millis(10);
/// Longest silence, in and at the end of a conversation.
const SILENCE: Duration = Duration::from_secs(20);

/// Runs `work` with a network namespace of the lab as its own; sockets it makes stay in there.
fn inside<T: Send>(lab: &Lab, namespace: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let netns = File::open(format!("/run/netns/{}", lab.netns(namespace)?))?;
    // A thread of its own, which ends in there.
    let entered = move || {
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).context("entering a namespace")?;
        work()
    };
    thread::scope(|scope| match scope.spawn(entered).join() {
        Ok(done) => done,
        Err(_) => bail!("a thread panicked; its message is above"),
    })
}

/// What one side has heard.
#[derive(Debug)]
struct Heard {
    lines: u64,
    /// Longest time between two lines.
    pause: Duration,
}

/// Ends a connection whatever becomes of the test: a socket would keep its namespace.
struct Cut(TcpStream);

impl Drop for Cut {
    fn drop(&mut self) {
        let _over = self.0.shutdown(Shutdown::Both);
    }
}

/// One side of a conversation.
struct Side {
    said: JoinHandle<Result<u64>>,
    heard: JoinHandle<Result<Heard>>,
    heard_so_far: Arc<AtomicU64>,
    _cut: Cut,
}

impl Side {
    fn new(stream: TcpStream, talking: &Arc<AtomicBool>) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let (mut to, from, talking) = (stream.try_clone()?, stream.try_clone()?, talking.clone());
        let so_far = Arc::new(AtomicU64::new(0));
        let heard_so_far = so_far.clone();
        let said = thread::spawn(move || {
            let mut lines = 0;
            while talking.load(Ordering::Relaxed) {
                lines += 1;
                writeln!(to, "{lines}").with_context(|| format!("saying line {lines}"))?;
                sleep(TICK);
            }
            to.shutdown(Shutdown::Write)?;
            Ok(lines)
        });
        let heard = thread::spawn(move || listen(from, &so_far));
        Ok(Self { said, heard, heard_so_far, _cut: Cut(stream) })
    }

    fn end(self) -> Result<(u64, Heard)> {
        let (Ok(said), Ok(heard)) = (self.said.join(), self.heard.join()) else { bail!("a thread panicked") };
        Ok((said?, heard?))
    }
}

/// Hears lines to the end, each the next.
fn listen(from: TcpStream, so_far: &AtomicU64) -> Result<Heard> {
    let mut heard = Heard { lines: 0, pause: Duration::ZERO };
    let mut last = Instant::now();
    for line in BufReader::new(from).lines() {
        let line = line.with_context(|| format!("after line {}", heard.lines))?;
        heard.lines += 1;
        ensure!(line == heard.lines.to_string(), "line {:?} follows {}", line, heard.lines - 1);
        so_far.store(heard.lines, Ordering::Relaxed);
        heard.pause = heard.pause.max(last.elapsed());
        last = Instant::now();
    }
    Ok(heard)
}

/// A connection between the guest and the client, both talking all the time.
pub(crate) struct Talk {
    name: &'static str,
    talking: Arc<AtomicBool>,
    guest: Side,
    client: Side,
    /// The client's peer: the guest, as the world sees it.
    pub(crate) peer: SocketAddr,
}

impl Talk {
    /// `from` connects to `address`, on which `to` listens.
    pub(crate) fn open(lab: &Lab, name: &'static str, from: &str, to: &str, address: &str) -> Result<Self> {
        let listener = inside(lab, to, || Ok(TcpListener::bind("0.0.0.0:0")?))?;
        let address = SocketAddr::new(address.parse()?, listener.local_addr()?.port());
        let opened = inside(lab, from, || Ok(TcpStream::connect_timeout(&address, Duration::from_secs(3))?));
        let opened = opened.with_context(|| format!("{from} connects to {address}"))?;
        // It is established, so that there is one to accept.
        let (accepted, _) = listener.accept()?;
        let (guest, client) = if from == "client" { (accepted, opened) } else { (opened, accepted) };
        let talking = Arc::new(AtomicBool::new(true));
        let peer = client.peer_addr()?;
        let (guest, client) = (Side::new(guest, &talking)?, Side::new(client, &talking)?);
        Ok(Self { name, talking, guest, client, peer })
    }

    /// Both sides hear ten lines more, at most 15 s from now.
    pub(crate) fn goes_on(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(15);
        let so_far = |side: &Side| side.heard_so_far.load(Ordering::Relaxed);
        let before = [so_far(&self.guest), so_far(&self.client)];
        while so_far(&self.guest) < before[0] + 10 || so_far(&self.client) < before[1] + 10 {
            ensure!(
                Instant::now() < deadline
                    && !self.client.heard.is_finished()
                    && !self.guest.heard.is_finished(),
                "{}: guest and client heard {before:?} lines, then {} and {}",
                self.name,
                so_far(&self.guest),
                so_far(&self.client)
            );
            sleep(TICK);
        }
        Ok(())
    }

    /// Both end, and each has heard all that the other said. The longest pause.
    pub(crate) fn end(self) -> Result<Duration> {
        self.talking.store(false, Ordering::Relaxed);
        let (guest, client) = (self.guest.end(), self.client.end());
        let (guest_said, guest) = guest.with_context(|| format!("{}: the guest", self.name))?;
        let (client_said, client) = client.with_context(|| format!("{}: the client", self.name))?;
        ensure!(
            guest.lines == client_said && client.lines == guest_said,
            "{}: of {client_said} and {guest_said} lines {} and {} arrived",
            self.name,
            guest.lines,
            client.lines
        );
        Ok(guest.pause.max(client.pause))
    }
}
