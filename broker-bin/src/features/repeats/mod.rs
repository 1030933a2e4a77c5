//! Repeats: what a client sends again because it does not know what became of the first time.
//!
//! 1. A send is a repeat when a message of the same topic, unique key, reconsume count and body stands in the log, was stored within the
//!    window, asks for the same (tag, keys, delay, half of a transaction), and nobody can say that its answer arrived. A repeat stores
//!    nothing and gets the first answer, when the first one is acknowledged: the same queue, queue offset and id (K-6 to K-8).
//! 2. What only looks like one is a new message: whatever differs in one of these; sends to retry topics, which consumers make from what
//!    they got; and what is sent again after it was answered in time on a connection that is still open.
//! 3. Nothing is a repeat because of what memory says alone: every hit is compared with the message in the log.
//! 4. Of two sends of one message that are on their way at once the second waits: a key is claimed before it is appended, and given free
//!    when that is refused.
//! 5. The log is all that must survive. The window is a function of the key index: it is made anew by whoever opens the log, after a
//!    restart as on a slave that is promoted.
//! 6. Memory is bounded by an option. What is forgotten before its time is counted.
//!
//! ```text
//!   send --> claim --nothing like it--> append --> the claim gets its place
//!              | candidates                refused --> the claim is undone
//!              v
//!            waits until they are acknowledged --> compared in the log --> the first answer, or a claim and an append
//! ```
//! Opening costs about four bytes of the key index for each key of the window, at most one run of it that began earlier, and sixteen bytes
//! of memory for each key while it is read; nothing of the log but a few dozen headers.
//!
//! Deliberately not here: what is compared and answered; that is the business of sending (`send/doubt.rs`) and of sending back.

mod answers;
mod backs;
mod connections;
mod window;

use std::time::Duration;

use anchorlog_engine::{Engine, Lsn, ReadError};

pub use answers::{Answered, Answers, Told};
pub use backs::{Back, Backs, Sender};
pub use connections::{Arrived, Connections, Life};
pub use window::{Claim, Claims, Identity, Seen};

use window::Window;

use crate::counters::Counters;
use crate::net::ConnectionId;

/// Before a unique key: the key of a message that stands where nobody reads it. No client can name it.
const HIDDEN_PREFIX: &[u8] = b"\x01sent";
/// Before an LSN: the key of what a consumer sent back. No client can name it.
const BACK_PREFIX: &[u8] = b"\x02";
/// The same before format 3, with all eight bytes of the LSN.
const LONG_BACK_PREFIX: &[u8] = b"\x01back";

/// The key by which a message is known that stands where nobody reads it: delayed, or half of a transaction.
#[must_use]
pub fn hidden_key(unique_key: &str) -> Vec<u8> {
    [HIDDEN_PREFIX, unique_key.as_bytes()].concat()
}

/// The key of what became of the message at this place when it was sent back.
#[must_use]
pub fn back_key(lsn: Lsn) -> Vec<u8> {
    let bytes = lsn.0.to_be_bytes();
    [BACK_PREFIX, &bytes[lsn.0.leading_zeros() as usize / 8..]].concat()
}

/// The [`back_key`] that was written before format 3.
#[must_use]
pub fn long_back_key(lsn: Lsn) -> Vec<u8> {
    [LONG_BACK_PREFIX, &lsn.0.to_be_bytes()].concat()
}

/// The place that a [`back_key`] names.
#[must_use]
pub fn lsn_of_back_key(key: &[u8]) -> Option<Lsn> {
    let bytes = key.strip_prefix(BACK_PREFIX)?;
    let lsn = bytes.iter().try_fold(0u64, |lsn, byte| Some(lsn.checked_mul(256)? | u64::from(*byte)))?;
    Some(Lsn(lsn)).filter(|lsn| back_key(*lsn) == key)
}

/// Whether a key is a [`back_key`], or a [`long_back_key`].
#[must_use]
pub fn is_back_key(key: &[u8]) -> bool {
    key.starts_with(BACK_PREFIX) || key.starts_with(LONG_BACK_PREFIX)
}

/// What is known of repeats. Shared by every network thread.
#[derive(Debug)]
pub struct Repeats {
    window: Duration,
    sent: Window,
    answers: Answers,
    backs: Backs,
    connections: Connections,
}

impl Repeats {
    /// Knows nothing yet. `window`: how long a message is remembered; zero switches all of this off. `memory`: bytes for it.
    #[must_use]
    pub fn new(window: Duration, memory: usize) -> Repeats {
        Repeats {
            window,
            sent: Window::new(window, memory),
            answers: Answers::default(),
            backs: Backs::default(),
            connections: Connections::default(),
        }
    }

    /// Whether anything is recognised at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.window.is_zero()
    }

    /// When the window began, in milliseconds since 1970.
    #[must_use]
    pub fn since_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(millis(self.window))
    }

    /// Learns what the log says of the window. Nothing may be claimed before.
    ///
    /// # Errors
    /// When the key index cannot be read.
    pub fn load(&self, engine: &Engine) -> Result<usize, ReadError> {
        if !self.is_on() {
            return Ok(0);
        }
        let now_ms = engine.clock().wall_ms();
        let keys = engine.recent_keys(self.since_ms(now_ms), self.sent.capacity())?;
        let count = keys.len();
        for (lsn, hash) in keys {
            self.sent.load(hash, lsn, now_ms);
        }
        self.backs.opened(engine.watermarks().assigned, now_ms.saturating_add(millis(self.window)));
        Ok(count)
    }

    /// Claims the messages of a send, all or none. `seen`: candidates that turned out to be other messages, by the message's number.
    pub fn claim(&self, claims: &Claims, seen: &Seen, now_ms: u64, counters: &Counters) -> Claim {
        self.sent.claim(claims, seen, now_ms, &counters.repeats_forgotten)
    }

    /// What was claimed has its places in the log: that of its message number `n` is `place(n)`.
    pub fn appended(&self, claims: &Claims, place: impl Fn(usize) -> Option<Lsn>) {
        self.sent.appended(claims, place);
    }

    /// What was claimed is not appended.
    pub fn undo(&self, claims: &Claims) {
        self.sent.undo(claims);
    }

    /// Messages that are remembered now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sent.count()
    }

    /// What was answered how.
    #[must_use]
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// What was sent back.
    #[must_use]
    pub fn backs(&self) -> &Backs {
        &self.backs
    }

    /// Which connections are open.
    #[must_use]
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Whether whoever sent a message back has its answer, as [`Repeats::arrived`] says it of a send.
    #[must_use]
    pub fn back_arrived(&self, sender: &Sender, asking: ConnectionId) -> Arrived {
        let is_sure = sender.end_lsn.is_some_and(|end| !self.answers.is_unsure(Lsn(end.0.saturating_sub(1))));
        if is_sure { self.connections.of_told(&sender.told, asking) } else { Arrived::No }
    }

    /// Whether whoever sent `first` has its answer, as far as anybody can say from here, when `asking` sends the same: when it left in
    /// time by a connection that is still open.
    #[must_use]
    pub fn arrived(&self, first: &Answered, asking: ConnectionId) -> Arrived {
        match self.answers.told(first.lsn) {
            Some(told) => self.connections.of_told(&told, asking),
            None if self.answers.is_unsure(first.lsn) => Arrived::No,
            None => self.connections.of_sender(first, asking),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
