//! Offsets: how far groups have consumed, and what a queue holds.
//!
//! 1. An answered commit is durable. A oneway or piggy-backed one is within a second, and never before what it speaks of.
//! 2. Where a group begins is fixed when it registers; see [`Begin`]. To somebody who is no member of a group that never committed, a
//!    queue whose message 0 is still there answers 0, also when it is empty, and any other that nothing is known (22).
//! 3. Negative commits are ignored: some clients send them when they know nothing.
//! 4. Only a queue's owner and tools move its offset; see [`crate::features::groups`]. Commits that nobody waits for are written
//!    once a second, the last of each queue alone, and none that changes nothing.

mod handler;
mod pins;
mod positions;
mod start;
mod table;

pub use handler::{commit, earliest_time, max, min, query, search_by_time};
pub use pins::Pins;
pub use positions::Positions;
pub use start::{Begin, add_queues, register};
pub use table::{Commit, OffsetKey, Offsets};

#[cfg(test)]
mod tests;
