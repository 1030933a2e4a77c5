//! One connection: bytes in, frames out of them, and answers that wait to be written.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BytesMut};

use super::ConnectionId;
use super::door::Refusal;
use super::held::{HeldPull, Token};
use super::visitors::{Bounds, Client, Has, Visitor};
use crate::features::repeats::Life;
use crate::limits;

/// Why a connection is closed from this side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// What came in is no frame.
    BadFrame(String),
    /// It came without TLS where it must not, or with TLS that cannot be agreed on.
    TurnedAway(Refusal),
    /// It announces a frame of so many bytes.
    FrameTooLarge(usize),
    /// A request of it took too long to come.
    Unfinished,
    /// Its client, or its address, has more bytes of unfinished requests than it may have.
    TooMuchUnfinished,
    /// Its client has as many connections as it may have.
    TooMany,
    /// Its answers were not read.
    SlowReader,
    /// Nothing came or went for too long.
    Idle,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) peer: SocketAddr,
    /// Bytes that are no whole frame yet, or that wait until answers are read.
    pub(super) input: Vec<u8>,
    /// Answers that the driver has not written yet.
    pub(super) output: BytesMut,
    /// Bytes that the driver took out of `output` and is still writing.
    pub(super) writing: usize,
    /// Consumer groups that it is a member of, as far as its heartbeats say.
    pub(super) groups: BTreeSet<Box<str>>,
    pub(super) last_traffic: Duration,
    /// The same for those who ask whether it is still alive.
    pub(super) life: Life,
    pub(super) last_heartbeat: Duration,
    /// All connections from its address.
    pub(super) visitor: Arc<Visitor>,
    /// All connections of its client, when it has said whose it is.
    client: Option<Arc<Client>>,
    /// Bytes of `input` that its client and its address are charged for.
    pub(super) unfinished: usize,
    /// Since when its input waits for the rest of a request.
    pub(super) unfinished_since: Option<Duration>,
    /// Bytes of its sends that are not answered, and the most that may be: its own, and its client's.
    pub(super) in_flight: usize,
    in_flight_max: usize,
    in_flight_of_client_max: usize,
    /// It is looked at from time to time, until its client has room.
    pub(super) waits_for_client: bool,
    held: BTreeSet<Token>,
    /// Woken pulls that wait until answers are read.
    pub(super) deferred: Vec<HeldPull>,
    /// Pulls and other requests that are read for from the disk now, or wait for others before that.
    pub(super) cold: usize,
    /// A send of it waits for the log buffer.
    pub(super) blocked: bool,
    pub(super) close: Option<CloseReason>,
    /// The driver knows that there is something to do.
    pub(super) dirty: bool,
}

impl Connection {
    pub(super) fn new(
        id: ConnectionId,
        peer: SocketAddr,
        now: Duration,
        visitor: Arc<Visitor>,
        bounds: &Bounds,
    ) -> Connection {
        Connection {
            id,
            peer: unmapped(peer),
            visitor,
            client: None,
            unfinished: 0,
            unfinished_since: None,
            in_flight: 0,
            in_flight_max: bounds.in_flight_bytes,
            in_flight_of_client_max: bounds.in_flight_bytes_per_client,
            waits_for_client: false,
            input: Vec::new(),
            output: BytesMut::new(),
            writing: 0,
            groups: BTreeSet::new(),
            last_traffic: now,
            life: Life::default(),
            last_heartbeat: now,
            held: BTreeSet::new(),
            deferred: Vec::new(),
            cold: 0,
            blocked: false,
            close: None,
            dirty: false,
        }
    }

    /// Bytes of answers that are not at the peer yet.
    pub(super) fn unread(&self) -> usize {
        self.output.len() + self.writing
    }

    /// Its answers pile up: what would make more of them waits.
    pub(super) fn is_full(&self) -> bool {
        self.unread() >= limits::OUT_PAUSE_BYTES
    }

    /// Its sends pile up: what would make more of them waits.
    pub(super) fn is_ahead(&self) -> bool {
        self.in_flight >= self.in_flight_max || self.is_client_ahead()
    }

    /// The sends of all of its client's connections pile up.
    pub(super) fn is_client_ahead(&self) -> bool {
        let of = |client: &Arc<Client>| client.has.in_flight_bytes.load(Ordering::Relaxed);
        self.client.as_ref().is_some_and(|client| of(client) >= self.in_flight_of_client_max)
    }

    /// So many bytes more of its sends are on their way.
    pub(super) fn took_off(&mut self, bytes: usize) {
        self.in_flight = self.in_flight.saturating_add(bytes);
        if let Some(client) = &self.client {
            client.has.in_flight_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// So many are not on their way any more.
    pub(super) fn landed(&mut self, bytes: usize) {
        let bytes = bytes.min(self.in_flight);
        self.in_flight -= bytes;
        if let Some(client) = &self.client {
            client.has.in_flight_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Whether it has said that it is this client's.
    pub(super) fn is_of(&self, id: &str) -> bool {
        self.client.as_ref().is_some_and(|client| client.is(id))
    }

    /// It is this client's, or nobody's: what it has counts there.
    pub(super) fn belong_to(&mut self, client: Option<Arc<Client>>) {
        if let Some(before) = &self.client {
            before.has.held_pulls.fetch_sub(self.held.len(), Ordering::Relaxed);
            before.has.unfinished_bytes.fetch_sub(self.unfinished, Ordering::Relaxed);
            before.has.in_flight_bytes.fetch_sub(self.in_flight, Ordering::Relaxed);
            self.visitor.part(before);
        }
        if let Some(now) = &client {
            now.has.held_pulls.fetch_add(self.held.len(), Ordering::Relaxed);
            now.has.unfinished_bytes.fetch_add(self.unfinished, Ordering::Relaxed);
            now.has.in_flight_bytes.fetch_add(self.in_flight, Ordering::Relaxed);
        }
        self.client = client;
    }

    /// Nothing is taken from it now.
    pub(super) fn is_paused(&self) -> bool {
        let has_enough = self.is_full() || self.is_ahead() || self.cold >= limits::COLD_PER_CONNECTION_MAX;
        self.close.is_some() || self.blocked || has_enough
    }

    /// Pulls of it that are held: here, with others of its client, and with others from its address.
    pub(super) fn held_pulls(&self) -> [usize; 3] {
        let of_client = self.client.as_ref().map_or(0, |client| client.has.held_pulls.load(Ordering::Relaxed));
        [self.held.len(), of_client, self.visitor.has.held_pulls.load(Ordering::Relaxed)]
    }

    /// What its client has, and its address.
    fn counted(&self) -> impl Iterator<Item = &Has> {
        std::iter::once(&self.visitor.has).chain(self.client.as_ref().map(|client| &client.has))
    }

    /// A pull of it is held.
    pub(super) fn hold(&mut self, token: Token) {
        if self.held.insert(token) {
            for has in self.counted() {
                has.held_pulls.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// A pull of it is held no more.
    pub(super) fn let_go(&mut self, token: Token) {
        if self.held.remove(&token) {
            for has in self.counted() {
                has.held_pulls.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Any pull of it that is held.
    pub(super) fn any_held(&self) -> Option<Token> {
        self.held.first().copied()
    }

    /// Charges its client and its address for what waits in its input; what all of that is now, of its client and of its address.
    pub(super) fn charge(&mut self) -> (usize, usize) {
        let (before, now) = (self.unfinished, self.input.len());
        self.unfinished = now;
        let charge = |has: &Has| {
            let charged = &has.unfinished_bytes;
            match now.cmp(&before) {
                std::cmp::Ordering::Equal => charged.load(Ordering::Relaxed),
                std::cmp::Ordering::Greater => charged.fetch_add(now - before, Ordering::Relaxed) + (now - before),
                std::cmp::Ordering::Less => charged.fetch_sub(before - now, Ordering::Relaxed) - (before - now),
            }
        };
        (self.client.as_ref().map_or(0, |client| charge(&client.has)), charge(&self.visitor.has))
    }

    /// The driver wrote so many bytes of `output`.
    pub(super) fn wrote(&mut self, bytes: usize, now: Duration) {
        self.output.advance(bytes.min(self.output.len()));
        self.last_traffic = now;
        // A buffer that grew for one large answer is not kept.
        if self.output.is_empty() && self.output.capacity() > limits::OUT_PAUSE_BYTES {
            self.output = BytesMut::new();
        }
    }
}

/// An IPv4 peer of a dual-stack socket is an IPv4 peer.
pub(super) fn unmapped(peer: SocketAddr) -> SocketAddr {
    match peer.ip() {
        IpAddr::V6(ip) => SocketAddr::new(ip.to_ipv4_mapped().map_or(peer.ip(), IpAddr::V4), peer.port()),
        IpAddr::V4(_) => peer,
    }
}
