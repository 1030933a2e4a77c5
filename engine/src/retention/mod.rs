//! Which segments may go, in which order, and what of them stays.
//!
//! Invariants:
//! 1. Nothing at or above a pin, above what is dispatched, or above the last checkpoint goes.
//! 2. Before a segment goes, every queue and every table entry whose newest record lies in it is restated further on, and that is durable;
//!    where the segment is damaged, what the table has of it is.
//! 3. Messages never move. What a table entry, a link or a pinned queue still needs *survives*: it stays at its LSN in a segment that is
//!    kept under another name, and the rest of that segment is punched out. The log says so, durably, before the first hole.
//! 4. The log says how far it goes, in the last of the batches with the lists of survivors, and from then on no pin holds it: whoever
//!    has that record, acknowledged and durable, lets the same go. Lists without it mean nothing. A replica releases nothing on its own.
//! 5. The manifest says, durably, that the log begins later before a file is reused or punched.
//! 6. From the moment on in which a segment is chosen, nothing new can refer to what will not survive in it.
//! 7. Where nothing holds it, a log of bounded length gets no longer than that bound, and an overshoot by whole segments: who is faster
//!    than the release waits for it.
//!
//! ```text
//!  choose -> survivors known -> entries, counters restated -> settle -> survivors and start in the log -> manifest -> recycle, or keep
//!                                                                                                     and punch; review: more holes
//! ```
//! The log is *dense* from the manifest's start on; below it there are survivors only, reached by LSN, or through a queue that was pinned.

mod following;
mod releaser;
mod restating;
mod rules;
pub(crate) mod survivors;

pub(crate) use releaser::{Releaser, ReleaserParts, info, live_blocks};
pub(crate) use rules::Retention;
pub use rules::RetentionInfo;
pub(crate) use survivors::Survivors;
