//! `/metrics`, `/healthz` and `/readyz` over HTTP/1.1.
//!
//! Bounded: so many connections at a time, one request each, with time limits. The data path does not depend on it.

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
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::metrics::{self, Exposition};

/// Address unless told otherwise.
pub const DEFAULT_ADDRESS: &str = "0.0.0.0:9817";

/// Connections served at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 16;
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
    nic_ip: Option<Ipv4Addr>,
}

impl Default for Health {
    fn default() -> Self {
        let missing = Some("the agent has just started".to_owned());
        Self { state: Mutex::new(HealthState { ticked: Instant::now(), missing, nic_ip: None }) }
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

    /// The router port's address while this node owns it: nothing is served there, it is on the external network.
    pub fn set_nic_ip(&self, nic_ip: Option<Ipv4Addr>) {
        self.state().nic_ip = nic_ip;
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

    fn on_external_network(&self, local: IpAddr) -> bool {
        self.state().nic_ip.is_some_and(|nic_ip| local.to_canonical() == IpAddr::V4(nic_ip))
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
    pub exposition: Arc<Exposition>,
}

/// Listens on `address` and serves for ever; an address that cannot be had is tried again and again.
pub async fn run(address: SocketAddr, served: Arc<Served>) {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                info!("metrics and health on http://{address}");
                return serve(listener, served).await;
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
pub async fn serve(listener: TcpListener, served: Arc<Served>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // Never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "accept");
                // Out of file descriptors, most likely: give others time to end.
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let served = Arc::clone(&served);
        tokio::spawn(async move {
            connection(stream, served).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, served: Arc<Served>) {
    if stream.local_addr().is_ok_and(|local| served.health.on_external_network(local.ip())) {
        return;
    }
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
    match Arc::clone(&served.exposition).scrape().await {
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
    response(status, TEXT, format!("{line}\n"))
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests;
