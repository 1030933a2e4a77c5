//! What operators ask: what is pending, parked or given up, and what is to become of it.
//!
//! 1. Asks come by the broker's ordinary port, as requests with codes of our own and JSON in their bodies; see [`crate::wire::operate`].
//! 2. Looking is bounded: a part of a list looks at so many entries and tells so many of them, and the next part goes on from there.
//!    Nothing here runs on a network thread, and no snapshot outlives a part.
//! 3. What is changed here is changed as elsewhere: one batch, refused unless things are as they were when they were looked at, answered
//!    when it is acknowledged, and only by a leader that can have it acknowledged. What was changed by hand is said in the log.
//!
//! ```text
//!  anchorlog transaction|delay|dlq … --> router --> a noun here --> nouns of the other rooms --> Outcome
//! ```
//! Other rooms answer asks of their own by [`answer`]; their codes stand beside ours.

mod asking;
mod browse;
mod client_traces;
mod dead_letters;
mod delays;
mod messages;
mod replay;
mod show;
mod trace;
mod transactions;

pub use asking::{answer, missing, part, refused, told};
pub use dead_letters::{groups as dead_letter_groups, list as list_dead_letters};
pub use delays::{cancel as cancel_delay, list as list_delays};
pub use messages::list as list_messages;
pub use replay::replay as replay_dead_letter;
pub use show::show;
pub use trace::trace;
pub use transactions::{decide as decide_transaction, list as list_transactions, show as show_transaction};

#[cfg(test)]
mod tests;
