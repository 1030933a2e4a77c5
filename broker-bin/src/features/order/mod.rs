//! Ordered consumption: a consumer has a queue to itself while it deals with its messages one after the other.
//!
//! 1. A queue is locked for one client of a group at a time. The lock stands in the log before its owner hears of it: neither a crash nor a
//!    restart nor a promotion gives the queue to somebody else while the owner still counts on it (K-70).
//! 2. A lock ends when its owner gives it back or says that it leaves, and 60 s after it was last asked for; after an opening of the log,
//!    60 s after that. Owners ask every 20 s, and stop after 30 s without an answer. A connection that closes says nothing of its client,
//!    which may be at work on a message: its membership ends at once, its locks when it stops by itself, unless it comes back and asks
//!    first. Then the members hear that there are queues to be had.
//! 3. Only a change of owner is written: asking again costs memory alone.
//! 4. Every change of owner has a token of its own, higher than all before it, across restarts and promotions.
//! 5. While a lock could not be acknowledged, nobody gets a new one; owners keep theirs.
//! 6. A consumer that is not the owner moves no offset of a locked queue: the owner's progress is not undone by one who was it before
//!    (K-69). Somebody with a tool may.
//!
//! ```text
//!  41 --- the owner's own ----> renewed in memory ---------------+--> answer: the queues that are locked for the client
//!     +-- nobody's, or too old -> Put lock/… (owner, token) -ack-+
//!     +-- somebody else's -----> left out of the answer
//!  42, 35, 60 s of silence, 33 s where its owner is cut off ---> Delete lock/…
//! ```
//! Source: wire notes, section 2.7.

mod handler;
mod locks;

pub use handler::{lock, unlock};
pub use locks::{Asked, Asker, Lock, Locks, Owner, Token};

#[cfg(test)]
mod tests;
