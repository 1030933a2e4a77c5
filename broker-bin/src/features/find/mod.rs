//! Finding messages: by their place in the log, by their producer's id, by their keys.
//!
//! 1. An answer is exact: what is in it has that key and that topic, was stored within that time, and can be read by consumers. What is
//!    due later or undecided is found by its place alone, and shown in the topic where the original keeps it.
//! 2. The newest come first, and no answer is larger than a client takes.
//! 3. No network thread reads for it.
//!
//! Source: wire notes, section 2.10.

mod handler;
mod search;

pub use handler::{by_key, by_place};
pub use search::{Search, search};

#[cfg(test)]
mod tests;
