//! Retries and dead letters: what becomes of a message that a consumer could not deal with.
//!
//! 1. A message that is sent back comes again in its group's retry topic, after a delay that grows with the attempts, or lies in the
//!    group's dead-letter topic after the last one. Either way it is one batch that refers to the message: nothing is copied, so no copy
//!    is weaker than the message was, and no crash makes one vanish.
//! 2. An answer 0 says that the batch is as safe as a send that was answered 0. Every other one says that nothing was done.
//! 3. Its reader finds the message as it was sent: body, properties, born time and host, id; with the topic that it came from, and how
//!    often it was tried.
//! 4. A dead letter is loud when it has its place in the log: a line, a counter, and a call to whoever the operator named, for which nobody
//!    waits. Nothing but its reader or an operator ends it.
//! 5. What is sent back again, because its answer was lost, is not moved again; see [`super::repeats`].
//! 6. A group always has a retry queue, whatever its settings say.
//!
//! Source: wire notes, section 2.5.

mod attempt;
mod handler;
mod letter;

pub use attempt::{DeadLetter, dead_letter};
pub use handler::send_back;
pub use letter::Letter;

#[cfg(test)]
mod tests;
