//! Topics: which there are, their queues, and how they come to be.
//!
//! 1. A topic made on demand is in the next route answer.
//! 2. A topic's table entry is in the log before its first message.
//! 3. A topic that is deleted takes its messages and its groups' offsets along; one of the same name that comes later begins anew (K-77).
//! 4. No change of a topic hides messages that a group has not consumed (K-78).

mod handler;
mod shrink;
mod table;

pub use handler::{all_settings, create, create_list, delete, delete_route, settings};
pub use table::{
    DEAD_LETTER_PREFIX, OWN_TOPICS, PERM_INHERIT, PERM_READ, PERM_WRITE, RETRY_PREFIX, TEMPLATE, Topic, TopicConfig,
    Topics, is_forbidden, name_fault, queue_name, topic_of,
};

#[cfg(test)]
mod tests;
