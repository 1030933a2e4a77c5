//! Delays: what is stored now and delivered later.
//!
//! 1. A delayed send is one batch: the message in a queue that nobody reads, and a table entry under its time that refers to it. A delivery
//!    is one batch too: the message's link in its queue, and the entry gone. No crash delivers twice, or not at all.
//! 2. Nothing is delivered before its time, and nothing is skipped: an entry that cannot be delivered is parked, counted and said out loud.
//! 3. The entry says all that a delivery needs, so delivering reads no message.
//! 4. The table alone says what is pending. Memory holds the keys of what is due soon, and is read anew after every start.
//! 5. A timed message can be taken back until it is delivered; one of the two happens, never both.
//! 6. Deliveries take turns with live sends: the next turn begins when the last one is acknowledged.
//!
//! ```text
//!  send, send-back --> Append or not + Put due/<time>/… --> log --> table
//!                            | assigned                               | what is due soon is read ahead
//!                            '------------> DueIndex (keys) <---------'
//!                                              | first ones due
//!                                            Timer --> Link + Delete, many in a turn --> log
//! ```
//! Source: wire notes, section 5.3.

mod due;
mod handler;
mod index;
mod levels;
mod recall;
mod schedule;
mod timer;

pub use due::{Due, DueKey, NotDue, Place};
pub use handler::{recall, recall_handle};
pub use index::DueIndex;
pub use levels::{BadLevels, DelayLevels};
pub use schedule::{HIDDEN_QUEUE, Later, Wish, put_due, store};
pub use timer::{Step, Timer, start};

#[cfg(test)]
mod tests;
