//! Who is connected, and as what: everything that operators ask about clients, and whom a question to a client goes to.
//!
//! 1. What stands here lives as long as its connection does, and no longer than its heartbeats; nothing of it survives a restart.
//! 2. A client id is a member of a group once: the connection that was heard last counts.
//!
//! Deliberately not here: who gets which messages (`groups`), and which producer decides a transaction (`transactions`).

mod registry;

pub use registry::{Client, Clients, Consumer, Producer};
