//! The connections of one socket.

use std::collections::VecDeque;
use std::net::IpAddr;

use tokio::task::AbortHandle;

/// Connections of a socket at a time.
pub(super) const CONNECTIONS: usize = 16;

/// Bounded without making anybody wait: for a new connection an old one ends, first of the same
/// peer. A request takes milliseconds, so the oldest one is idle, and whoever holds many of them
/// shuts out himself.
#[derive(Debug)]
pub(super) struct Open {
    per_peer: usize,
    /// The oldest first.
    connections: VecDeque<(IpAddr, AbortHandle)>,
}

impl Open {
    /// None yet, and so many of one peer at most.
    pub(super) fn new(per_peer: usize) -> Self {
        Self { per_peer, connections: VecDeque::new() }
    }

    /// Takes a connection in.
    pub(super) fn admit(&mut self, peer: IpAddr, connection: AbortHandle) {
        self.connections.retain(|(_, other)| !other.is_finished());
        let of_peer = |(other, _): &(IpAddr, AbortHandle)| *other == peer;
        let full = self.connections.len() >= CONNECTIONS;
        let goes = if self.connections.iter().filter(|other| of_peer(other)).count() >= self.per_peer {
            self.connections.iter().position(of_peer)
        } else {
            full.then_some(0)
        };
        if let Some((_, old)) = goes.and_then(|index| self.connections.remove(index)) {
            old.abort();
        }
        self.connections.push_back((peer, connection));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_connection_ends_an_old_one_of_the_same_peer_first() {
        let mut open = Open::new(2);
        let mut admit = |last: u8| {
            let task = tokio::spawn(std::future::pending::<()>());
            open.admit([10, 0, 0, last].into(), task.abort_handle());
            open.connections
                .iter()
                .map(|(peer, _)| peer.to_string().replace("10.0.0.", ""))
                .collect::<Vec<_>>()
        };
        for (peer, expected) in
            [(1, "1"), (2, "1 2"), (1, "1 2 1"), (1, "2 1 1"), (2, "2 1 1 2"), (2, "1 1 2 2")]
        {
            assert_eq!(admit(peer).join(" "), expected);
        }
        for peer in 3..=14 {
            admit(peer);
        }
        assert_eq!(admit(15).join(" "), "1 2 2 3 4 5 6 7 8 9 10 11 12 13 14 15");
        assert_eq!(admit(15).len(), CONNECTIONS);
    }
}
