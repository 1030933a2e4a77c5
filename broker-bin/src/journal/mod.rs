//! The broker's own state, kept in the log: topics, groups and committed offsets as messages of a system queue.
//!
//! 1. A journal record restates whole values, never differences: replaying one twice, or from too early, changes nothing.
//! 2. The last record of a key holds the value that the tables had last: values are read from the tables under the append lock.
//! 3. A topic's record stands in the log before the topic's first message, and a committed offset's before its answer leaves.
//! 4. Each record names the queue offset from which replay must begin, so opening reads the last record first.
//! 5. Nothing from that offset on is recycled: the journal's pin moves only when all values are restated behind it and acknowledged.

pub mod codec;
mod keeper;
mod state;

pub use keeper::Keeper;
pub use state::{FlushError, State, StateError};

/// The system queue: no topic's name begins with this byte.
pub const QUEUE_NAME: &[u8] = b"\x01journal";
/// The engine's pin.
pub const PIN_NAME: &str = "journal";
