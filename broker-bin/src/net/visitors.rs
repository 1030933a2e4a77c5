//! What peers may have at once: a connection, all connections of one client, and all connections from one address.
//!
//! | bound | what happens beyond it |
//! |---|---|
//! | connections, of all and of one address | a further one is closed before it says anything |
//! | connections of one client | a further one is closed when it says whose it is |
//! | bytes of a frame | its connection is closed when it announces more |
//! | bytes of unfinished requests of one client, and of one address | the connection that goes beyond it is closed |
//! | how long a request may take to come | its connection is closed |
//! | bytes of sends that wait for their acks, of a connection and of one client | it is not read until some are answered |
//! | held pulls of a connection, of one client, and of one address | a further one is answered with code 2 |
//!
//! Each is counted, and said in the log at most once a second. An address is all that tells peers apart before they have said who they are;
//! a client is what says the same client id in its heartbeats, from one address: who claims another one's id takes nothing of its share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::limits;
use crate::lock::lock;

/// What peers may have at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections of all. Default: 65 536.
    pub connections: usize,
    /// Connections of one address. Default: 16 384.
    pub connections_per_address: usize,
    /// Connections of one client. Default: 1024.
    pub connections_per_client: usize,
    /// Bytes of a frame. Default and most: 16 MiB.
    pub frame_bytes: usize,
    /// Bytes of requests of one address that are not whole, or that wait to be handled. Default: 256 MiB.
    pub unfinished_bytes_per_address: usize,
    /// The same of one client. Default: 128 MiB.
    pub unfinished_bytes_per_client: usize,
    /// Bytes of a connection's sends that are in the log, or on their way there, and not answered. Default: 32 MiB.
    pub in_flight_bytes: usize,
    /// The same of one client. Default: 128 MiB.
    pub in_flight_bytes_per_client: usize,
    /// Held pulls of a connection. Default: 16 384.
    pub held_pulls: usize,
    /// Held pulls of one client. Default: 65 536.
    pub held_pulls_per_client: usize,
    /// Held pulls of one address. Default: 262 144.
    pub held_pulls_per_address: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            connections: limits::CONNECTIONS_MAX,
            connections_per_address: limits::CONNECTIONS_PER_ADDRESS_MAX,
            connections_per_client: limits::CONNECTIONS_PER_CLIENT_MAX,
            frame_bytes: limits::FRAME_BYTES_MAX,
            unfinished_bytes_per_address: limits::UNFINISHED_PER_ADDRESS_BYTES,
            unfinished_bytes_per_client: limits::UNFINISHED_PER_CLIENT_BYTES,
            in_flight_bytes: limits::IN_FLIGHT_BYTES,
            in_flight_bytes_per_client: limits::IN_FLIGHT_PER_CLIENT_BYTES,
            held_pulls: limits::HELD_PER_CONNECTION_MAX,
            held_pulls_per_client: limits::HELD_PER_CLIENT_MAX,
            held_pulls_per_address: limits::HELD_PER_ADDRESS_MAX,
        }
    }
}

/// Why a further connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// There are as many as there may be.
    All,
    /// So many come from its address already.
    Address,
    /// So many are its client's already.
    Client,
}

/// Everybody who is connected, by address.
#[derive(Debug, Default)]
pub struct Visitors {
    bounds: Bounds,
    count: AtomicUsize,
    known: Mutex<HashMap<IpAddr, Arc<Visitor>>>,
}

/// All connections from one address.
#[derive(Debug)]
pub(super) struct Visitor {
    address: IpAddr,
    /// Changed under the lock of those who are known.
    connections: AtomicUsize,
    pub(super) has: Has,
    /// Those of them that said who they are. An address has no more of these than connections.
    clients: Mutex<HashMap<Box<str>, Arc<Client>>>,
}

/// All connections of one client.
#[derive(Debug)]
pub(super) struct Client {
    id: Box<str>,
    /// Changed under the lock of its address's clients.
    connections: AtomicUsize,
    pub(super) has: Has,
}

/// What several connections have together.
#[derive(Debug, Default)]
pub(super) struct Has {
    pub(super) held_pulls: AtomicUsize,
    pub(super) unfinished_bytes: AtomicUsize,
    pub(super) in_flight_bytes: AtomicUsize,
}

impl Visitors {
    /// Nobody yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Visitors {
        Visitors { bounds, ..Visitors::default() }
    }

    /// What they may have.
    #[must_use]
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// One more connection from an address.
    pub(super) fn enter(&self, address: IpAddr) -> Result<Arc<Visitor>, Full> {
        let mut known = lock(&self.known);
        if self.count.load(Ordering::Relaxed) >= self.bounds.connections {
            return Err(Full::All);
        }
        let visitor = known.entry(address).or_insert_with(|| {
            Arc::new(Visitor {
                address,
                connections: AtomicUsize::new(0),
                has: Has::default(),
                clients: Mutex::default(),
            })
        });
        if visitor.connections.load(Ordering::Relaxed) >= self.bounds.connections_per_address {
            return Err(Full::Address);
        }
        visitor.connections.fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(visitor.clone())
    }

    /// One connection fewer.
    pub(super) fn leave(&self, visitor: &Visitor) {
        let mut known = lock(&self.known);
        self.count.fetch_sub(1, Ordering::Relaxed);
        if visitor.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            known.remove(&visitor.address);
        }
    }

    /// A connection from there says that it is this client's.
    pub(super) fn introduce(&self, visitor: &Visitor, id: &str) -> Result<Arc<Client>, Full> {
        let mut clients = lock(&visitor.clients);
        let client = match clients.get(id) {
            Some(client) => client.clone(),
            None => Arc::new(Client { id: id.into(), connections: AtomicUsize::new(0), has: Has::default() }),
        };
        if client.connections.load(Ordering::Relaxed) >= self.bounds.connections_per_client {
            return Err(Full::Client);
        }
        client.connections.fetch_add(1, Ordering::Relaxed);
        clients.entry(client.id.clone()).or_insert_with(|| client.clone());
        Ok(client)
    }
}

impl Visitor {
    /// One connection fewer is this client's.
    pub(super) fn part(&self, client: &Client) {
        let mut clients = lock(&self.clients);
        if client.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            clients.remove(&client.id);
        }
    }
}

impl Client {
    /// Whether a connection that says this is its.
    pub(super) fn is(&self, id: &str) -> bool {
        *self.id == *id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_takes_no_more_than_its_share_and_gives_it_back() {
        let bounds = Bounds { connections: 3, connections_per_address: 2, ..Bounds::default() };
        let visitors = Visitors::new(bounds);
        let [a, b, c] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|address| address.parse::<IpAddr>().expect("good"));
        let first = visitors.enter(a).expect("room");
        let second = visitors.enter(a).expect("room");
        assert_eq!(visitors.enter(a).expect_err("too many"), Full::Address);
        let third = visitors.enter(b).expect("room");
        assert_eq!(visitors.enter(c).expect_err("too many"), Full::All);
        visitors.leave(&first);
        visitors.enter(c).expect("room again");
        visitors.leave(&second);
        visitors.leave(&third);
        assert_eq!(lock(&visitors.known).keys().collect::<Vec<_>>(), [&c], "who is gone is forgotten");
    }

    #[test]
    fn a_client_takes_no_more_than_its_share_and_nobody_else_s() {
        let bounds = Bounds { connections_per_client: 2, ..Bounds::default() };
        let visitors = Visitors::new(bounds);
        let [a, b] = ["10.0.0.1", "10.0.0.2"]
            .map(|address| visitors.enter(address.parse::<IpAddr>().expect("good")).expect("room"));
        let first = visitors.introduce(&a, "one").expect("room");
        visitors.introduce(&a, "one").expect("room");
        assert_eq!(visitors.introduce(&a, "one").expect_err("too many"), Full::Client);
        visitors.introduce(&a, "two").expect("another one's");
        assert!(!Arc::ptr_eq(&visitors.introduce(&b, "one").expect("from elsewhere"), &first));
        a.part(&first);
        assert!(Arc::ptr_eq(&visitors.introduce(&a, "one").expect("room again"), &first));
        a.part(&first);
        a.part(&first);
        assert_eq!(lock(&a.clients).len(), 1, "who is gone is forgotten");
    }
}
