//! From a message's keys to its LSN: which messages have this key, within a time.
//!
//! Promises, numbered so that asserts and tests can cite them:
//! 1. **Exact.** What is kept of a key is a hash; every candidate is read and compared before it is shown. What cannot be
//!    read is left out, counted and listed, as for any reader.
//! 2. **A function of the log.** Nothing here is durable by itself: hashes since the last checkpoint stand in memory, the
//!    others in the derived store, which is made anew from the retained log when it is missing or damaged.
//! 3. **Cheap to feed.** A message costs a hash and eight bytes at the end of a list, for each of its keys.
//! 4. **Few runs.** There are at most `entries / KEY_RUN_FULL + 22` of them, and an entry is written anew at most
//!    `log 1.5 (KEY_RUN_FULL / entries of a checkpoint)` times.
//! 5. **Bounded memory.** Eight bytes for each key that no checkpoint has yet; a checkpoint begins at once beyond
//!    `CHECKPOINT_KEYS` of them. Beside that a few bytes for each run, and while a checkpoint writes, a piece of each run that
//!    it merges.
//!
//! ```text
//!  dispatch --> open chunk --> sealed chunks      since the last checkpoint began
//!                              frozen chunks      being written by one
//!                              runs               in the store, sorted by hash; oldest first
//! ```
//! Each of them covers a stretch of the log of its own, in this order, and knows from when to when it goes: store times never
//! decrease along the log. So a search walks them one after the other and skips those outside the time asked for; in the two
//! that a border of the time falls into it finds the border by bisection over the candidates themselves.
//!
//! The bound: a run of [`KEY_RUN_FULL`](crate::limits::KEY_RUN_FULL) entries is full and stays as it is. A checkpoint merges
//! what it brings with the newest runs, as long as they are not full and at most twice as large as what came together so far.
//! So behind the full ones each run is more than twice as large as the next, and there are at most 21 of them below 2^21.
//!
//! Deliberately not here: what a message's keys mean, and reading messages (`Records` does).

mod chunk;
mod hash;
mod index;
mod lookup;
mod merge;
mod query;
mod rows;
#[cfg(all(test, feature = "sim"))]
mod tests;

pub(crate) use index::KeyIndex;
pub(crate) use lookup::Records;
pub use query::{KeyOrder, KeyQuery};
pub(crate) use rows::Run;
