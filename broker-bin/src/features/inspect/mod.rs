//! What operators ask: who is connected, how far groups are, what queues hold, what the broker is doing.
//!
//! 1. Nothing here changes anything.
//! 2. What may read from the disk does so where no client waits for it.
//! 3. A number that this broker does not keep is not made up: it is left out, or the request is refused with what to use instead.
//!
//! Source: wire notes, section 2.11.

mod connections;
mod progress;
mod queues;
mod rates;
mod runtime;

pub use connections::{consumer_connections, producer_connections, producers, subscription};
pub use progress::{all_offsets, broker_consume_stats, consume_stats, consumed_by, time_span, topics_of_group};
pub use queues::{entries, statistics, topic_stats};
pub use rates::Rates;
pub use runtime::runtime_info;

#[cfg(test)]
mod tests;
