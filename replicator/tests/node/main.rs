//! Whole nodes over real sockets, with a proxy between them that cuts, swallows and lies silent.
#![expect(clippy::disallowed_methods, reason = "tests wait, and look at the time and at files")]

mod cluster;
mod proxy;
mod streaming;
