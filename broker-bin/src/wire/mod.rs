//! RocketMQ's remoting protocol as pure bytes and types: lenient in what it reads, exact in what it writes.
//!
//! 1. No I/O, no clock, no state between calls: the same bytes always give the same answer.
//! 2. Any bytes may come in. Nothing here panics on them, and memory stays in proportion to what has arrived.
//! 3. What is written is accepted by every client family that was recorded; `fixtures/wire/` pins it byte for byte.
//!
//! ```text
//!  i32 length | u8 serialization, u24 header length | header (JSON or binary) | body
//!  └─ frame ──┴─────────────────────────────────────┴─ header ────────────────┴─ message, batch, body
//! ```
//! All integers on the wire are big-endian. Not here: what a request *means* (`features/`), and moving bytes (`net/`).

pub mod admin;
pub mod auth;
pub mod batch;
pub mod body;
pub mod codes;
pub mod frame;
pub mod header;
pub mod hex;
mod json;
pub mod loose;
pub mod message;
pub mod neighbour;
pub mod object;
pub mod operate;

pub use frame::{Encoding, Frame, FrameError, FrameRef};
pub use header::{EncodeError, FrameEncoder, Header, HeaderError, Language};
