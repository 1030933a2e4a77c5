//! Whole nodes over real sockets, with a proxy between them that cuts, swallows and lies silent.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests wait, look at the time and at files, and stop where they fail"
)]

mod cluster;
mod guarantees;
mod leadership;
mod losses;
mod mending;
mod proxy;
mod reading;
mod streaming;
mod under_load;
