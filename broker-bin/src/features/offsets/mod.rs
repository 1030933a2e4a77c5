//! Offsets: how far groups have consumed, and what a queue holds.
//!
//! 1. An answered commit is durable. A oneway or piggy-backed one is within a second, and never before what it speaks of.
//! 2. A queue whose message 0 is still there answers 0 to a group that never committed, also when it is empty: nothing that was sent
//!    before the group's first poll is skipped. Only when old messages are gone does the group's own start rule decide (22).
//! 3. Negative commits are ignored: some clients send them when they know nothing.

mod handler;
mod pins;
mod table;

pub use handler::{commit, earliest_time, max, min, query, search_by_time};
pub use pins::Pins;
pub use table::{Commit, OffsetKey, Offsets};
