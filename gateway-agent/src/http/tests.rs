use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::metrics::Metrics;

async fn start() -> (SocketAddr, Arc<Health>) {
    let health = Arc::new(Health::default());
    let exposition = Arc::new(Exposition::new(&Metrics::default(), Path::new("/nonexistent")));
    let served = Arc::new(Served { health: Arc::clone(&health), exposition });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, served));
    (address, health)
}

/// What comes back for these bytes, to the end of the connection.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

#[tokio::test]
async fn each_path_is_answered() {
    let (address, _) = start().await;
    for (request, status, body) in [
        (get("/healthz"), "200", "ok\n"),
        (get("/readyz"), "503", "the agent has just started\n"),
        (get("/metrics"), "200", "# EOF\n"),
        (get("/"), "404", "there are /metrics, /healthz and /readyz\n"),
        ("POST /metrics HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), "405", "only GET and HEAD\n"),
        ("nonsense\r\n\r\n".to_owned(), "400", ""),
    ] {
        let answer = ask(address, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {answer}");
        assert!(answer.ends_with(body), "{request:?}: {answer}");
    }
    assert!(ask(address, &get("/metrics")).await.contains(metrics::CONTENT_TYPE));
}

#[tokio::test]
async fn ready_follows_what_is_missing() {
    let (address, health) = start().await;
    health.set_missing(None);
    assert!(ask(address, &get("/readyz")).await.starts_with("HTTP/1.1 200"));
    health.set_missing(Some("tables: full".to_owned()));
    assert!(ask(address, &get("/readyz")).await.ends_with("tables: full\n"));
}

#[tokio::test]
async fn nothing_is_served_on_the_router_port() {
    let (address, health) = start().await;
    health.set_nic_ip(Some(Ipv4Addr::LOCALHOST));
    assert_eq!(ask(address, "").await, "");
    health.set_nic_ip(None);
    assert!(ask(address, &get("/healthz")).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn idle_connections_do_not_keep_others_out_for_ever() {
    let (address, _) = start().await;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let answer = timeout(HEAD_TIMEOUT * 2, ask(address, &get("/healthz"))).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_loop_that_does_not_move_is_dead() {
    let health = Health::default();
    let now = Instant::now();
    assert_eq!(health.live(now), Ok(()));
    assert_eq!(health.live(now + STUCK * 2).unwrap_err(), "the loop has not moved for 120 s");
    health.tick();
    assert_eq!(health.live(Instant::now()), Ok(()));
}
