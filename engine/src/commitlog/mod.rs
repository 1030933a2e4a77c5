//! The commitlog on disk: frames in segments.
//!
//! ```text
//! segment file = header block | frame | frame | ... | filler
//! frame        = fixed header | one entry per record | records | padding to 8
//! ```
//!
//! `frame` and `record` are pure codecs, `segment` is one file, `segments` finds, rolls and retires them, `manifest` says what must be
//! there, `reader` brings bytes back, `gather` many records at once, `along` a long stretch for another machine, `covering` says why it
//! cannot. Layout: `engine/docs/format.md`. What is deliberately not here: who may append and when.

pub(crate) mod along;
mod covering;
pub mod frame;
pub(crate) mod gather;
pub mod manifest;
pub mod reader;
pub mod record;
pub mod segment;
pub mod segments;
