//! One connection: bytes in, frames out of them, and answers that wait to be written.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{Buf, BytesMut};

use super::ConnectionId;
use super::held::{HeldPull, Token};
use crate::features::repeats::Life;
use crate::limits;

/// Why a connection is closed from this side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// What came in is no frame.
    BadFrame(String),
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
    pub(super) held: BTreeSet<Token>,
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
    pub(super) fn new(id: ConnectionId, peer: SocketAddr, now: Duration) -> Connection {
        Connection {
            id,
            peer: unmapped(peer),
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

    /// Nothing is taken from it now.
    pub(super) fn is_paused(&self) -> bool {
        self.close.is_some() || self.blocked || self.is_full() || self.cold >= limits::COLD_PER_CONNECTION_MAX
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
fn unmapped(peer: SocketAddr) -> SocketAddr {
    match peer.ip() {
        IpAddr::V6(ip) => SocketAddr::new(ip.to_ipv4_mapped().map_or(peer.ip(), IpAddr::V4), peer.port()),
        IpAddr::V4(_) => peer,
    }
}
