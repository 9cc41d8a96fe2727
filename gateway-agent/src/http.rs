//! `/metrics`, `/healthz` and `/readyz` over HTTP/1.1.
//!
//! Two sockets: one on loopback, which the kubelet's probes use, and one on an address of the node,
//! by default its InternalIP. Whatever is done to the one, the other answers. Nothing is served to
//! the external network. Bounded: so many connections at a time, one request each, with time
//! limits. The data path does not depend on it.

mod open;
mod place;
mod scrapes;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use self::open::{CONNECTIONS, Open};
pub use self::place::Place;
pub use self::scrapes::Scrapes;
use crate::metrics;

/// Address unless told otherwise: the node's InternalIP, and this port.
pub const DEFAULT_ADDRESS: &str = "0.0.0.0:9817";

/// Connections of one peer at a time, on the node's address.
const PER_PEER: usize = 4;
/// Time for a request's head to come.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for all of a connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(20);
/// The loop is taken for dead when it did not move for this long.
const STUCK: Duration = Duration::from_secs(60);
/// Pause before the address is tried again.
const REBIND: Duration = Duration::from_secs(2);

const TEXT: &str = "text/plain; charset=utf-8";

/// How the loop is doing.
#[derive(Debug)]
pub struct Health {
    state: Mutex<HealthState>,
}

#[derive(Debug)]
struct HealthState {
    ticked: Instant,
    /// Why it is not ready.
    missing: Option<String>,
}

impl Default for Health {
    fn default() -> Self {
        let missing = Some("the agent has just started".to_owned());
        Self { state: Mutex::new(HealthState { ticked: Instant::now(), missing }) }
    }
}

impl Health {
    /// The loop went round.
    pub fn tick(&self) {
        self.state().ticked = Instant::now();
    }

    /// What is missing for the node to be ready: synced and attached.
    pub fn set_missing(&self, missing: Option<String>) {
        self.state().missing = missing;
    }

    /// Whether the loop lives.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn live(&self, now: Instant) -> Result<(), String> {
        let still = now.saturating_duration_since(self.state().ticked);
        if still < STUCK { Ok(()) } else { Err(format!("the loop has not moved for {} s", still.as_secs())) }
    }

    /// Whether the node is synced and attached.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn ready(&self) -> Result<(), String> {
        self.state().missing.clone().map_or(Ok(()), Err)
    }

    fn state(&self) -> MutexGuard<'_, HealthState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What requests are answered from.
#[derive(Debug)]
pub struct Served {
    /// How the loop is doing.
    pub health: Arc<Health>,
    /// The metrics.
    pub scrapes: Arc<Scrapes>,
    /// Where this node is.
    pub place: watch::Receiver<Place>,
}

/// Serves on loopback and on `address` for ever. An unspecified address stands for the node's
/// InternalIP. What cannot be had is tried again and again.
pub async fn run(address: SocketAddr, served: Arc<Served>) {
    let loopback = match address.ip() {
        ip if ip.is_loopback() => address,
        _ => (Ipv4Addr::LOCALHOST, address.port()).into(),
    };
    tokio::join!(listen(loopback, CONNECTIONS, &served), follow(address, &served));
}

/// Serves on the node's side, wherever that is now.
async fn follow(address: SocketAddr, served: &Arc<Served>) {
    let mut place = served.place.clone();
    loop {
        let node = place.borrow_and_update().node;
        let ip = match address.ip() {
            ip if ip.is_loopback() => None,
            ip if ip.is_unspecified() => node.map(IpAddr::V4),
            ip => Some(ip),
        };
        let moved = place.wait_for(|place| place.node != node);
        // The place is never told again: the agent ends.
        let ended = match ip {
            None => moved.await.is_err(),
            Some(ip) => tokio::select! {
                moved = moved => moved.is_err(),
                () = listen((ip, address.port()).into(), PER_PEER, served) => false,
            },
        };
        if ended {
            return;
        }
    }
}

/// Listens on `address` and serves for ever; an address that cannot be had is tried again and
/// again.
async fn listen(address: SocketAddr, per_peer: usize, served: &Arc<Served>) {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                info!("metrics and health on http://{address}");
                return serve(listener, per_peer, Arc::clone(served)).await;
            }
            Err(error) if !told => {
                warn!(
                    "--metrics-address: cannot listen on {address}: {error}; trying again every {} s: end what \
                     listens there, or choose another address",
                    REBIND.as_secs()
                );
                told = true;
            }
            Err(_) => {}
        }
        sleep(REBIND).await;
    }
}

/// Serves on a socket for ever.
async fn serve(listener: TcpListener, per_peer: usize, served: Arc<Served>) {
    let mut open = Open::new(per_peer);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok((stream, peer)) => (stream, peer.ip()),
            Err(error) => {
                debug!(%error, "accept");
                // Out of file descriptors, most likely: give others time to end.
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let local = stream.local_addr().map(|local| local.ip());
        if !local.is_ok_and(|local| served.place.borrow().is_external(local, peer)) {
            open.admit(peer, tokio::spawn(connection(stream, Arc::clone(&served))).abort_handle());
        }
    }
}

async fn connection(stream: TcpStream, served: Arc<Served>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let served = Arc::clone(&served);
        async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), served).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "HTTP"),
        Err(_) => debug!("HTTP: a connection took too long"),
    }
}

async fn answer(method: &Method, path: &str, served: Arc<Served>) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/metrics" => scrape(served).await,
        "/healthz" => verdict(served.health.live(Instant::now())),
        "/readyz" => verdict(served.health.live(Instant::now()).and_then(|()| served.health.ready())),
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz"),
    }
}

async fn scrape(served: Arc<Served>) -> Response<Full<Bytes>> {
    match Arc::clone(&served.scrapes).text().await {
        Ok(body) => response(StatusCode::OK, metrics::CONTENT_TYPE, body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn verdict(result: Result<(), String>) -> Response<Full<Bytes>> {
    match result {
        Ok(()) => text(StatusCode::OK, "ok"),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

fn text(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    response(status, TEXT, format!("{line}\n").into())
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests;
