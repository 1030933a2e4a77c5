//! The network: connections as state machines, and the thin drivers that move their bytes.
//!
//! ```text
//!   socket ── driver ──bytes_in──> Worker ── requests ──> router ──> features
//!                                    │  end_of_turn: one append for all that was parsed
//!   engine's eventfds ──acked/watched─> releases replies and held pulls
//!   socket <── driver <──out bytes── connections, one write each
//! ```
//! 1. A [`Worker`] holds no socket, reads no clock and starts no thread: the driver passes bytes, time and events in.
//! 2. Everything that a peer can make grow is bounded by a name in `limits`.

mod connection;
mod door;
pub(crate) mod driver;
mod held;
mod mailbox;
mod readers;
mod tls;
pub(crate) mod tokio_driver;
#[cfg(feature = "net-uring")]
pub(crate) mod uring_driver;
mod visitors;
mod worker;

pub use mailbox::{Mail, Mailbox, Wake};
pub use readers::{ColdReads, start as start_readers};
pub use tls::{Tls, TlsError, TlsOptions};
pub use visitors::{Bounds, Visitors};
pub use worker::Worker;

use crate::wire::Encoding;

/// Names one connection: its network thread, its place there, and how often that place was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// The network thread.
    pub worker: u16,
    /// Its place there.
    pub slot: u32,
    /// How often that place was taken before.
    pub generation: u32,
}

/// Whom an answer goes to.
#[derive(Clone, Copy, Debug)]
pub struct ReplyTo {
    /// The connection.
    pub connection: ConnectionId,
    /// The number by which the client knows its request.
    pub opaque: i32,
    /// How the request's header was written; the answer's is written so too.
    pub encoding: Encoding,
    /// True when no answer is wanted.
    pub oneway: bool,
}
