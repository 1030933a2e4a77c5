//! The broker's own state: topics, groups, committed offsets and locks. Entries of the engine's table, held in memory whole.
//!
//! 1. An entry holds a whole value, never a difference, and is written only when its value changed.
//! 2. The last entry of a key holds the value that memory had last: values are read from memory under the lock that orders the writes.
//! 3. A topic's entry stands in the log before the topic's first message, and a committed offset's or a lock's before its answer leaves.
//! 4. What was read back is what messages go on from: offsets are corrected in the log before anything is appended behind them.
//! 5. A store whose state is missing, older, newer or damaged is refused. Only a log that holds nothing begins with no state.
//!
//! ```text
//!  handlers --> Topics, Groups, Offsets, Locks (memory) --> Changes (which keys) --> flush --> Put, Delete, in batches --> log --> table
//!                      ^                                                                                           |
//!                      '----------------------------------- open: read back <---------------------------------------'
//! ```
//!
//! Deliberately not here: keeping entries alive when their segments go. That is the engine's.

mod changes;
pub mod entries;
mod open;
mod tables;

pub use open::StateError;
pub use tables::{FlushError, Flushed, State};
