//! The broker's options, seen and changed while it runs.
//!
//! 1. What is shown is what is in force.
//! 2. A change is made as a whole or not at all, and who asks is told why not: a key that nobody knows, a value that does not fit, an
//!    option that takes a restart.
//!
//! Source: wire notes, section 2.11.

mod handler;

pub use handler::{change, change_naming, show, show_naming};

#[cfg(test)]
mod tests;
