//! The broker crate.

pub mod limits;
pub mod wire;
