//! Consume queues: which message is the n-th of its queue.
//!
//! Invariants:
//! 1. Entry n is n: an entry that does not follow its predecessor stops the dispatcher, it is never shifted or dropped.
//! 2. Readers see entries of visible messages only.
//! 3. Everything here is a function of the retained log. New entries are in memory; what a checkpoint has written is read from the derived
//!    store, and leaves memory together with the messages themselves.

mod entry;
mod queue;
mod queues;

pub use entry::QueueEntry;
pub(crate) use queue::{QueueMark, QueueState};
pub(crate) use queues::Queues;
