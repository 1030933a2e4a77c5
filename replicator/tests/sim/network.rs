//! The network between nodes: connections that keep their bytes in order, and nothing else.
//!
//! What is on the way arrives later, in pieces cut anywhere; connections do not wait for each other. A direction between two nodes may be
//! blocked: what is on the way there waits. An end that is closed tells the other one in the same way, or never.

use std::collections::VecDeque;
use std::time::Duration;

use anchorlog_engine::io::sim::Seeded;
use anchorlog_replicator::{LeaderLink, Link};

pub(crate) const NODES: usize = 3;

/// One direction of a connection.
#[derive(Default)]
pub(crate) struct Lane {
    chunks: VecDeque<(Duration, Vec<u8>)>,
    /// When the last of it arrives: nothing overtakes.
    last: Duration,
    /// When the other end learns that this one is closed.
    closed: Option<Duration>,
    /// How often its bytes were damaged on the way.
    pub(crate) damaged: u64,
    spoils: bool,
}

impl Lane {
    pub(crate) fn put(&mut self, bytes: &[u8], now: Duration, draws: &mut Seeded) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(1 + draws.below(6000)));
            rest = later;
            let delay = if draws.below(40) == 0 { draws.below(200) } else { draws.below(4) };
            self.last = self.last.max(now + Duration::from_millis(delay as u64));
            let mut piece = piece.to_vec();
            if std::mem::take(&mut self.spoils) {
                let at = draws.below(piece.len());
                piece[at] ^= 1 << draws.below(8);
                self.damaged += 1;
            }
            self.chunks.push_back((self.last, piece));
        }
    }

    /// What has arrived by now.
    pub(crate) fn take(&mut self, now: Duration) -> Option<Vec<u8>> {
        let is_there = self.chunks.front().is_some_and(|(due, _)| *due <= now);
        if is_there { self.chunks.pop_front().map(|(_, bytes)| bytes) } else { None }
    }

    pub(crate) fn close(&mut self, now: Duration) {
        self.closed = Some(self.last.max(now) + Duration::from_millis(1));
    }

    /// Whether it is known by now that nothing more comes.
    pub(crate) fn is_over(&self, now: Duration) -> bool {
        self.chunks.is_empty() && self.closed.is_some_and(|closed| closed <= now)
    }

    /// The next bytes are damaged.
    pub(crate) fn spoil(&mut self) {
        self.spoils = true;
    }

    /// What is on the way is lost, from somewhere on; the connection cannot go on.
    pub(crate) fn tear(&mut self, draws: &mut Seeded) {
        let kept = draws.below(self.chunks.len() + 1);
        self.chunks.truncate(kept);
        if let Some((_, last)) = self.chunks.back_mut() {
            last.truncate(draws.below(last.len() + 1));
        }
        self.closed = Some(self.last);
    }
}

/// A connection, from the node that opened it.
pub(crate) struct Connection {
    pub(crate) follower: usize,
    pub(crate) leader: usize,
    /// It is for a seed.
    pub(crate) seeds: bool,
    pub(crate) at_follower: Option<Box<dyn Link>>,
    pub(crate) at_leader: Option<LeaderLink>,
    pub(crate) to_follower: Lane,
    pub(crate) to_leader: Lane,
}

/// Which directions are blocked.
#[derive(Default)]
pub(crate) struct Blocks {
    blocked: [[bool; NODES]; NODES],
}

impl Blocks {
    pub(crate) fn set(&mut self, from: usize, to: usize, blocked: bool) {
        self.blocked[from][to] = blocked;
    }

    pub(crate) fn clear(&mut self) {
        *self = Blocks::default();
    }

    pub(crate) fn is_open(&self, from: usize, to: usize) -> bool {
        !self.blocked[from][to]
    }
}
