//! The commit pipeline: from the append call to the acknowledgement.
//!
//! ```text
//!  append --(append lock: sequence, copy, publish)--> log buffer --(writer: group, write, flush)--> durable
//!                                                          |                                          |
//!                                                          '--- readers        acked <-- watermarks --'
//! ```
//!
//! `dispatched <= acked <= durable <= written <= assigned`; under asynchronous flush `acked` follows `assigned` instead, and with
//! replicated acks it does not pass what other machines are said to have. Each mark is an exclusive end, only grows and has one
//! writer; they live in `watermark`. `sequencer` gives out places, `ring` holds the bytes, `group`
//! says when a group closes, `room` how far the log can go, `writer` moves it, `ticket` and `watermark` let callers wait, `signal` lets
//! drivers sleep. `histogram` counts how long groups take and how large they are.

pub(crate) mod group;
mod histogram;
#[expect(unsafe_code, reason = "the log buffer is shared between the append lock's holder, readers and the kernel")]
pub(crate) mod ring;
pub(crate) mod room;
pub(crate) mod sequencer;
pub(crate) mod signal;
mod ticket;
mod watcher;
pub(crate) mod watermark;
pub(crate) mod writer;

pub use histogram::{FlushStats, HistogramCounts};
pub use room::Space;
pub use ticket::Ticket;
pub use watcher::Watcher;
pub use watermark::{Subscription, Watermark, Watermarks};
