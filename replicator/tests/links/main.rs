//! A leader's link and a follower's, joined by pipes in memory, over simulated disks that the test drives by hand.
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

mod beginning;
mod counting;
mod pair;
mod parting;
mod strangers;
mod streaming;
