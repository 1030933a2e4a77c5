//! Moving what waits in a topic to another one, usually with more queues: by reference, while both are in use.
//!
//! 1. A step is one batch: links to some messages of one queue, and how far that queue is by then, which is required to be as whoever asked
//!    knows it. No crash, restart, change of leader or second operator puts a message there twice, or leaves one out.
//! 2. What is known of a pair of topics stays: asked for again, it goes on with what has come since.
//! 3. The messages stay where they are, too. For a group it is different: what it has consumed is not moved, what was moved counts as
//!    consumed by it, in the same batch, and where it begins in the other topic is in front of that.
//! 4. Messages with the same sharding key come into one queue, in their order; others are spread over all queues.
//! 5. A queue of either topic that was dropped and made anew begins anew.
//! 6. It stops at a message that can never be read again, and says which one that is. Whoever says so by name goes on behind it; each of
//!    them is told, and for a group it counts as consumed.
//!
//! ```text
//!  anchorlog topic republish -- how far? --> show            how fast is the asker's to say
//!          '-------------------- go on ----> step --> batch: Link … Link, Put republished/…, Put offset/… --> log
//! ```
//! Deliberately not here: which queue comes next, and how many messages a second (`commands/republish`).

mod handler;
mod pair;
#[cfg(test)]
mod tests;

pub use handler::{show, step};
