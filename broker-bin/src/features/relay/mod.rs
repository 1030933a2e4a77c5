//! Questions to consumers: an operator's tool asks the broker, the broker asks the client, and passes on what it says.
//!
//! 1. What a client answers is passed on as it is, and only if the client answers that was asked.
//! 2. A client that does not answer in time is named as such (207); nobody waits longer than `limits::RELAY_WAIT`.
//!
//! Source: wire notes, sections 2.12 and 2.13.

mod gather;
mod handler;

pub use gather::{Answer, Gather, Relay, Said};
pub use handler::{consume_directly, consumer_status, running_info};

#[cfg(test)]
mod tests;
