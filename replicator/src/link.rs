//! What both ends of a connection have in common: bytes in, bytes out, no socket, no clock.
//!
//! A link is a state machine. Its driver owns the connection and the time: it hands over what arrived, writes what the link has to send,
//! and comes back when the link says, when the log has grown (followers: when more of it is durable), or when something arrives.
//!
//! Invariants:
//! 1. What a link keeps for its peer is bounded, whatever the peer does.
//! 2. After an error, and once [`Link::send`] has handed out the last piece behind an [`End`], the connection is closed; a link is never
//!    used for a second one.

use std::time::Duration;

use anchorlog_engine::replica::{LogPiece, SeedError};
use anchorlog_engine::{Lsn, ReadError, ReceiveError};

use crate::message::{DecodeError, Refusal};

/// One end of a connection.
pub trait Link: Send {
    /// Takes bytes that arrived, in pieces of any size.
    ///
    /// # Errors
    /// The connection must be closed.
    fn receive(&mut self, bytes: &[u8], now: Duration) -> Result<(), LinkError>;

    /// What is to be sent, in order: about `bytes_max` bytes at most, empty when there is nothing. Called again until it is empty, or the
    /// connection takes no more.
    ///
    /// # Errors
    /// The connection must be closed.
    fn send(&mut self, now: Duration, bytes_max: usize) -> Result<Vec<Piece>, LinkError>;

    /// When [`Link::send`] must be called although nothing happens.
    fn next_due(&self) -> Duration;

    /// Why this link is over, once it is: close the connection when what [`Link::send`] has is written.
    fn end(&self) -> Option<&End>;

    /// Nothing is sent any more, says the thread that did: what belongs to it ends.
    fn stop_sending(&mut self) {}
}

/// Bytes to be sent. Log bytes are not copied: they are shared with the log buffer.
#[derive(Debug)]
pub struct Piece(Bytes);

#[derive(Debug)]
enum Bytes {
    Own(Vec<u8>),
    Log(LogPiece),
}

impl From<Vec<u8>> for Piece {
    fn from(bytes: Vec<u8>) -> Piece {
        Piece(Bytes::Own(bytes))
    }
}

impl From<LogPiece> for Piece {
    fn from(piece: LogPiece) -> Piece {
        Piece(Bytes::Log(piece))
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Own(bytes) => bytes,
            Bytes::Log(piece) => piece.as_ref(),
        }
    }
}

/// Why a link is over although nothing failed; its owner acts on it before it connects again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The follower's log must end at `at`: what it has from there on is not the leader's.
    Cut {
        /// A frame boundary.
        at: Lsn,
    },
    /// The follower must begin anew, with the leader's whole retained log.
    Bootstrap {
        /// Why, for people.
        why: String,
        /// Whether its log has something that the leader's has not: it must be kept.
        keeps: bool,
    },
    /// The leader is one of an older term than this follower has promised or seen.
    Stale {
        /// The leader's term.
        term: u32,
    },
    /// The other side refuses.
    Refused(Refusal),
    /// What was asked for was sent, or is here.
    Done,
}

/// Why a connection must be closed. Except where said, connecting again is right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// What arrived is not the protocol.
    #[error("what the peer sends is not the protocol: {0}")]
    Protocol(#[from] DecodeError),
    /// A message that has no place here.
    #[error("{what} does not belong here: {why}")]
    Unexpected {
        /// The kind of message.
        what: &'static str,
        /// What was expected.
        why: String,
    },
    /// Nothing was heard for too long.
    #[error("nothing was heard from the peer for {0:?}")]
    Silent(Duration),
    /// A newer connection of the same replica has taken its place.
    #[error("a newer connection of the same replica has taken the place of this one")]
    Replaced,
    /// The local log could not be read.
    #[error("the log cannot be read for a peer: {0}")]
    Read(#[from] ReadError),
    /// The directory could not be seeded.
    #[error("no replica could be begun: {0}")]
    Seed(#[from] SeedError),
    /// The local log does not take what the leader sends.
    #[error("what the leader sends is not taken: {0}")]
    Receive(#[from] ReceiveError),
}
