//! Request and reply: a consumer answers a message, and its producer waits for that.
//!
//! 1. A reply is a message like any other, in a topic of its own, under the same promise; and it is given to whoever asked, by the
//!    connection on which that client was heard last.
//! 2. Whoever replies hears that it worked when the reply is acknowledged *and* taken by the one who asked; else what did not work. It
//!    waits for no longer than its own time-out allows, and not at all for one who is gone.
//! 3. Who asked is known from the request itself, and from heartbeats: a client that is asked before its first heartbeat is found all
//!    the same.
//! 4. Nothing of this survives a restart, and nothing has to: the request's own time-out ends it.
//!
//! ```text
//!  replier --324/325--> append --acked--> 326 to the connection of REPLY_TO_CLIENT --its answer--> answer to the replier
//!                                          '-- nobody there, gone, or silent for PUSH_TIMEOUT ----> 1, with why
//! ```
//! A reply is sent as any message is (`send`): this room says what becomes of it when it is acknowledged.
//!
//! Source: wire notes, section 2.14.

mod push;
mod requesters;

pub use push::{Push, Pushed, Pushes, topic};
pub use requesters::Requesters;

#[cfg(test)]
mod tests;
