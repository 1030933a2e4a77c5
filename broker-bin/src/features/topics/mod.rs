//! Topics: which there are, their queues, and how they come to be.
//!
//! 1. A topic made on demand is in the next route answer.
//! 2. A topic's table entry is in the log before its first message.

mod handler;
mod table;

pub use handler::create;
pub use table::{
    DEAD_LETTER_PREFIX, PERM_INHERIT, PERM_READ, PERM_WRITE, RETRY_PREFIX, TEMPLATE, Topic, TopicConfig, Topics,
    is_forbidden, name_fault, queue_name, topic_of,
};

#[cfg(test)]
mod tests;
