use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::*;
use crate::metrics::{Exposition, Metrics};

/// Serves on an address of loopback, as on the node's.
async fn start_in(place: Place) -> (SocketAddr, Arc<Health>) {
    let health = Arc::new(Health::default());
    let exposition = Arc::new(Exposition::new(&Metrics::default(), Path::new("/nonexistent")));
    let scrapes = Arc::new(Scrapes::new(exposition));
    let place = watch::Sender::new(place).subscribe();
    let served = Arc::new(Served { health: Arc::clone(&health), scrapes, place });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, PER_PEER, served));
    (address, health)
}

async fn start() -> (SocketAddr, Arc<Health>) {
    start_in(Place::default()).await
}

/// A connection from some address of loopback.
async fn connect(from: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(address).await.unwrap()
}

/// What comes back for these bytes, to the end of the connection.
async fn ask(address: SocketAddr, request: &str) -> String {
    ask_from([127, 0, 0, 1], address, request).await
}

async fn ask_from(from: [u8; 4], address: SocketAddr, request: &str) -> String {
    let mut stream = connect(from, address).await;
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
async fn nothing_is_served_to_the_external_network() {
    let external = ["127.0.1.0/24".parse().unwrap()].into();
    let (address, _) = start_in(Place { external, ..Place::default() }).await;
    let mut outside = connect([127, 0, 1, 1], address).await;
    assert_eq!(outside.read(&mut [0]).await.unwrap(), 0, "closed without a word");
    assert!(ask(address, &get("/healthz")).await.starts_with("HTTP/1.1 200"));
}

/// Idle connections by one peer, and by as many as there are connections.
#[tokio::test]
async fn idle_connections_keep_nobody_out() {
    for (case, peer) in [("one peer", 0), ("many peers", 1)] {
        let (address, _) = start().await;
        let mut idle = Vec::new();
        for number in 0..400_u32 {
            let [_, _, high, low] = (number * peer + 1).to_be_bytes();
            idle.push(connect([127, 0, 1 + high, low], address).await);
        }
        for (from, path) in
            [([127, 0, 0, 1], "/healthz"), ([127, 0, 0, 2], "/metrics"), ([127, 0, 1, 1], "/healthz")]
        {
            let answer = timeout(Duration::from_secs(1), ask_from(from, address, &get(path))).await;
            assert!(answer.unwrap().starts_with("HTTP/1.1 200"), "{case}: {path}");
        }
    }
}

/// Both sockets, which follow the node's address.
#[tokio::test]
async fn loopback_and_the_nodes_address_are_listened_on_and_nothing_else() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let place = watch::Sender::new(Place::default());
    let exposition = Arc::new(Exposition::new(&Metrics::default(), Path::new("/nonexistent")));
    let served = Served {
        health: Arc::default(),
        scrapes: Arc::new(Scrapes::new(exposition)),
        place: place.subscribe(),
    };
    tokio::spawn(run((Ipv4Addr::UNSPECIFIED, port).into(), Arc::new(served)));
    for (node, answering) in [(None, vec![1]), (Some(2), vec![1, 2]), (Some(3), vec![1, 3])] {
        let node = node.map(|last| Ipv4Addr::new(127, 0, 9, last));
        place.send_replace(Place { node, ..Place::default() });
        let wanted = |last: u8| answering.contains(&last);
        for last in 1..=4 {
            let ip = if last == 1 { Ipv4Addr::LOCALHOST } else { Ipv4Addr::new(127, 0, 9, last) };
            let mut tries = 0;
            while TcpStream::connect((ip, port)).await.is_ok() != wanted(last) {
                tries += 1;
                assert!(tries < 100, "{ip} with the node at {node:?}");
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
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
