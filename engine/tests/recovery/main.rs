//! Opening whatever a disk may hold, and mending what opening refuses.
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

mod cases;
mod log;
mod remedies;
mod repair;
