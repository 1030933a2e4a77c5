//! Sending a group to other offsets, also while it consumes.
//!
//! 1. A reset is durable before it is answered, and logged with who asked and where from.
//! 2. A running consumer goes to the new offset with its next pull (21), which comes at once; what it commits before that, of messages
//!    that it had taken earlier, does not undo the reset. So every client family follows, whatever requests of a broker it understands.
//! 3. Nobody is sent beyond what a queue holds.
//!
//! Source: wire notes, section 2.12: what current brokers of the original do by default.

mod handler;
mod pending;

pub use handler::{clone_offsets, reset};
pub use pending::Resets;

#[cfg(test)]
mod tests;
