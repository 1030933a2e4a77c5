//! Sending: a message, or several as one.
//!
//! 1. An answer 0 says that the message is in the log as the flush mode promises; 10 that it is stored and not confirmed in time;
//!    every other code that nothing of it is stored.
//! 2. A batch is one frame of the log: all of its messages or none, at consecutive offsets.
//! 3. `WAIT=false` is ignored: a producer cannot lower what the operator chose.
//! 4. A send that was stored before is not stored again, and gets the answer of the first time; see [`super::repeats`].
//! 5. What is to be delivered later is stored where nobody reads it, with the entry that delivers it, in one batch; see [`super::delay`].

pub mod changes;
mod doubt;
mod handler;
mod properties;
mod sending;
pub mod stored;
mod writer;

pub use handler::send;
pub use properties::MadeKeys;
pub use sending::{First, Sending, UniqueKey};
