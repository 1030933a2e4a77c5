//! What the broker tells a monitor over HTTP: `/metrics`, `/health` and `/ready`.
//!
//! 1. It listens before the log is opened, and until it is closed: what takes its time is seen to take it.
//! 2. Nobody who sends or pulls waits for it. What it costs a message is some additions to numbers that one thread writes.
//! 3. `/health` is 200 as long as a restart would not help: the network threads move, and the log is not fenced.
//! 4. `/ready` is 200 when a send would be taken now. A slave takes none: it is ready when its log is whole and it is connected to its
//!    leader, so that it would show what comes next. Neither lies while a broker changes its part: it is healthy, and not ready.
//! 5. The number of series is bounded: of topics, and of groups with their topics, those that are furthest behind or largest are told one
//!    by one, and how many others there are.
//! 6. What takes long to count is counted less often: a tenth of one core's time at most, and no part of it under a lock that others wait
//!    for.
//!
//! ```text
//!  network threads --> Pulse, Counters --.
//!  engine, state, leader ----------------+--> gather --> page --> server --> GET /metrics
//!  table: what is due -------------------'
//! ```

mod backlog;
mod gather;
mod judgement;
mod lag;
mod page;
mod pulse;
mod server;
mod source;

pub use judgement::Judgement;
pub use pulse::{Load, Pulse, Pulses};
pub(crate) use server::Server;
pub(crate) use source::Source;

#[cfg(test)]
mod tests;
