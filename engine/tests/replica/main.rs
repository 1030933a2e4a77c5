//! A log that follows another one, on two simulated disks that a test drives by hand: whoever carries the bytes is a loop here.
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

mod along;
mod crash;
mod cutting;
mod mending;
mod pair;
mod releasing;
mod taking_over;
mod threads;
