//! Datagrams from the client to an EIP and back, until the first one made it both ways.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use gateway_lab::Lab;

use super::{api::enter, load::MEASURED_POD};

const PORT: u16 = 7;
/// Between two datagrams.
const PACE: Duration = Duration::from_micros(200);
/// A change that carries nothing for so long is lost.
const LIMIT: Duration = Duration::from_secs(10);
/// How often a receiver looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// The threads that send and answer; they end with this.
pub(super) struct Probe {
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    over: AtomicBool,
    /// Number of the change, and the address to send to.
    target: AtomicU64,
    /// The change whose answer came last, and when.
    came: Mutex<Option<(u32, Instant)>>,
}

impl State {
    fn target(&self) -> (u32, Ipv4Addr) {
        let target = self.target.load(Ordering::Acquire).to_be_bytes();
        let [a, b, c, d, e, f, g, h] = target;
        (u32::from_be_bytes([a, b, c, d]), Ipv4Addr::new(e, f, g, h))
    }

    fn over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

impl Probe {
    /// An echo server in the measured pod, a sender and a receiver on the client. Nothing is sent before an aim is set.
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let state = Arc::new(State::default());
        let echo = socket(lab, MEASURED_POD, PORT)?;
        let client = socket(lab, "client", 0)?;
        let sender = client.try_clone()?;
        let threads = vec![
            run(&state, move |state| answer(state, &echo)),
            run(&state, move |state| send(state, &sender)),
            run(&state, move |state| receive(state, &client)),
        ];
        Ok(Self { state, threads })
    }

    /// From now on datagrams go to this address.
    pub(super) fn aim(&self, change: u32, eip: Ipv4Addr) {
        *self.state.came.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let target = (u64::from(change) << 32) | u64::from(u32::from(eip));
        self.state.target.store(target, Ordering::Release);
    }

    /// When the first datagram of a change came back.
    pub(super) fn came(&self, change: u32) -> Result<Instant> {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            match *self.state.came.lock().unwrap_or_else(PoisonError::into_inner) {
                Some((of, at)) if of == change => return Ok(at),
                Some(_) | None => {}
            }
            thread::sleep(Duration::from_millis(1));
        }
        bail!("no datagram came back within {LIMIT:?}")
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

fn run(state: &Arc<State>, work: impl FnOnce(&State) + Send + 'static) -> JoinHandle<()> {
    let state = Arc::clone(state);
    thread::spawn(move || work(&state))
}

/// A socket lives in the network namespace of the thread that made it.
fn socket(lab: &Lab, namespace: &str, port: u16) -> Result<UdpSocket> {
    thread::scope(|scope| {
        let made = scope.spawn(|| {
            enter(lab, namespace)?;
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
            socket.set_read_timeout(Some(LOOK))?;
            anyhow::Ok(socket)
        });
        made.join().map_err(|_| anyhow::anyhow!("the thread that opens a socket panicked"))?
    })
    .with_context(|| format!("opening a socket in {namespace}"))
}

fn answer(state: &State, socket: &UdpSocket) {
    let mut bytes = [0; 64];
    while !state.over() {
        if let Some((length, from)) = received(socket, &mut bytes) {
            let _full = socket.send_to(&bytes[..length], from);
        }
    }
}

fn send(state: &State, socket: &UdpSocket) {
    while !state.over() {
        let (change, eip) = state.target();
        if !eip.is_unspecified() {
            let _unreachable = socket.send_to(&change.to_be_bytes(), (eip, PORT));
        }
        thread::sleep(PACE);
    }
}

fn receive(state: &State, socket: &UdpSocket) {
    let mut bytes = [0; 64];
    while !state.over() {
        let Some((length, from)) = received(socket, &mut bytes) else { continue };
        let now = Instant::now();
        let (change, eip) = state.target();
        if bytes[..length] != change.to_be_bytes() || from != SocketAddr::from((eip, PORT)) {
            continue;
        }
        let mut came = state.came.lock().unwrap_or_else(PoisonError::into_inner);
        if came.is_none() {
            *came = Some((change, now));
        }
    }
}

fn received(socket: &UdpSocket, bytes: &mut [u8]) -> Option<(usize, SocketAddr)> {
    match socket.recv_from(bytes) {
        Ok(received) => Some(received),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        // A port unreachable of an earlier target.
        Err(_) => None,
    }
}
