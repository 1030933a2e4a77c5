//! Heartbeats and farewells: which client is there, and what it consumes.
//!
//! 1. A heartbeat's effects stand before its answer leaves: whoever asks for the members next finds itself.
//! 2. A part of a heartbeat that cannot be read does not spoil the rest: client families differ in how they write it.

mod handler;

pub use handler::{beat, farewell};
