//! Two broker processes, a leader and its slave, with a proxy between them that swallows and cuts: whatever happens to one of them or to
//! the wire, nothing is called safe that is not on both, every answer comes before a client gives up, and it goes on by itself.
//!
//! Each scene lets clients send all the time, hurts the pair, heals it, and judges: what was answered with 0 must be on the slave alone
//! once the leader and its disk are gone; what was answered with 14 must be nowhere. Closed windows: K-11, K-39 to K-46.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests wait, look at the time and at files, say what they measured, and stop where they fail"
)]

mod client;
mod load;
mod pair;
#[path = "../../../replicator/tests/node/proxy.rs"]
mod proxy;
mod scenes;
