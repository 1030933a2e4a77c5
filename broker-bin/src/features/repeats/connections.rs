//! Which connections are open, and whether something came by them lately.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use anchorlog_engine::Lsn;

use super::answers::{Answered, Told};
use crate::lock::{read, write};
use crate::net::ConnectionId;

/// When something came by a connection last, in milliseconds since 1970.
#[derive(Clone, Debug, Default)]
pub struct Life(Arc<AtomicU64>);

impl Life {
    /// Something came.
    pub fn beat(&self, now_ms: u64) {
        self.0.store(now_ms, Ordering::Relaxed);
    }

    fn last_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether an answer arrived that left in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// The connection is open.
    Yes,
    /// It is open as far as is known here. Nothing came by it since, and who asks comes by another one: it may be about to close.
    Perhaps,
    /// The connection is gone.
    No,
}

#[derive(Debug)]
struct Open {
    id: ConnectionId,
    /// Where the log ended when it was accepted: what came by it lies behind.
    since: Lsn,
    life: Life,
}

/// All open connections. Shared by every network thread.
#[derive(Debug, Default)]
pub struct Connections(RwLock<HashMap<(IpAddr, u16), Open>>);

impl Connections {
    /// A connection was accepted.
    pub fn opened(&self, peer: SocketAddr, id: ConnectionId, since: Lsn) -> Life {
        let life = Life::default();
        let open = Open { id, since, life: life.clone() };
        write(&self.0).insert((peer.ip(), peer.port()), open);
        life
    }

    /// A connection is gone.
    pub fn gone(&self, peer: SocketAddr, id: ConnectionId) {
        let mut all = write(&self.0);
        let place = (peer.ip(), peer.port());
        // Whoever comes from the same port may have been accepted already.
        if all.get(&place).is_some_and(|open| open.id == id) {
            all.remove(&place);
        }
    }

    /// What became of the connection that was told an answer.
    pub(super) fn of_told(&self, told: &Told, asking: ConnectionId) -> Arrived {
        self.look(told.peer, asking, told.at_ms, |open| open.id == told.connection)
    }

    /// What became of the connection that a message came by.
    pub(super) fn of_sender(&self, first: &Answered, asking: ConnectionId) -> Arrived {
        self.look(first.peer, asking, first.answered_ms, |open| open.since <= first.lsn)
    }

    fn look(&self, peer: SocketAddr, asking: ConnectionId, at_ms: u64, is_it: impl FnOnce(&Open) -> bool) -> Arrived {
        match read(&self.0).get(&(peer.ip(), peer.port())).filter(|open| is_it(open)) {
            None => Arrived::No,
            Some(open) if open.id == asking || open.life.last_ms() > at_ms => Arrived::Yes,
            Some(_) => Arrived::Perhaps,
        }
    }
}
