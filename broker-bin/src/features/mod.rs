//! What clients can ask for, one room per subject.
//!
//! In each room: `mod.rs` states the promise, `handler.rs` turns a request into an [`Outcome`], a noun holds its rules and state.
//! Rooms share nouns ([`topics::Topics`], [`groups::Groups`], [`offsets::Offsets`]), never each other's handlers.

pub mod access;
pub mod clients;
pub mod configuration;
pub mod delay;
pub mod find;
pub mod groups;
pub mod heartbeat;
pub mod inspect;
pub mod neighbours;
pub mod offsets;
pub mod operate;
pub mod order;
pub mod pull;
pub mod relay;
pub mod repeats;
pub mod reply;
pub mod republish;
pub mod reset;
pub mod retry;
pub mod routes;
pub mod send;
pub mod sql;
pub mod topics;
pub mod transactions;

mod outcome;
mod request;

pub use crate::wire::codes::response as code;
pub use outcome::{After, Again, Awaited, Kept, Outcome, Reply, Task, Writing};
pub use request::{FieldError, Request};
