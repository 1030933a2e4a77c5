//! The network between nodes: connections that keep their bytes in order, and nothing else.
//!
//! What is on the way arrives later, in pieces cut anywhere; connections do not wait for each other, and later ones overtake slow ones. A
//! direction between two nodes may be blocked: what is on the way there waits. An end that is closed tells the other one in the same way,
//! or never. Bytes may change, vanish or come twice.

use std::collections::VecDeque;
use std::time::Duration;

use anchorlog_engine::io::sim::Seeded;
use anchorlog_replicator::{LeaderLink, Link};

pub(crate) const NODES: usize = 3;

/// What happens to bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// One bit is turned around.
    Bit,
    /// Others stand in their place.
    Burst,
    /// They vanish; what comes after them arrives.
    Gap,
    /// They arrive twice.
    Twice,
}

/// One direction of a connection.
#[derive(Default)]
pub(crate) struct Lane {
    chunks: VecDeque<(Duration, Vec<u8>)>,
    /// When the last of it arrives: nothing overtakes.
    last: Duration,
    /// When the other end learns that this one is closed.
    closed: Option<Duration>,
    /// What was done to its bytes on the way.
    pub(crate) harmed: Option<Harm>,
    spoils: Option<Harm>,
    /// It is slower than others, by up to so many milliseconds: a connection that was opened later may overtake it.
    slow: usize,
}

impl Lane {
    pub(crate) fn slow(by: usize) -> Lane {
        Lane { slow: by, ..Lane::default() }
    }

    pub(crate) fn hasten(&mut self) {
        self.slow = 0;
    }

    pub(crate) fn put(&mut self, bytes: &[u8], now: Duration, draws: &mut Seeded) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(1 + draws.below(6000)));
            rest = later;
            let delay = if draws.below(40) == 0 { draws.below(200) } else { draws.below(4) };
            let delay = delay + draws.below(self.slow + 1);
            self.last = self.last.max(now + Duration::from_millis(delay as u64));
            let mut piece = piece.to_vec();
            if let Some(harm) = self.spoils.take() {
                harm.does(&mut piece, draws);
                self.harmed = Some(harm);
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
    pub(crate) fn spoil(&mut self, harm: Harm) {
        self.spoils = Some(harm);
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

impl Harm {
    fn does(self, piece: &mut Vec<u8>, draws: &mut Seeded) {
        let from = draws.below(piece.len());
        let to = from + 1 + draws.below((piece.len() - from).min(200));
        match self {
            Harm::Bit => piece[from] ^= 1 << draws.below(8),
            Harm::Burst => piece[from..to].iter_mut().for_each(|byte| *byte = !*byte),
            Harm::Gap => drop(piece.drain(from..to)),
            Harm::Twice => {
                let again = piece[from..to].to_vec();
                piece.splice(to..to, again);
            }
        }
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
