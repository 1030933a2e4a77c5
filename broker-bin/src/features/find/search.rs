//! Walking over the messages that have a key.

use anchorlog_engine::{Engine, KeyOrder, KeyQuery, Message, ReadError};

use crate::features::topics::topic_of;
use crate::limits;

/// Which messages are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// Of this topic.
    pub topic: Box<str>,
    /// With this as the producer's id, or among the keys.
    pub key: Box<str>,
    /// Stored at this time or later, in milliseconds since 1970.
    pub from_ms: u64,
    /// Stored at this time or earlier.
    pub to_ms: u64,
    /// Most of them.
    pub count: usize,
}

/// The newest of them first. May read from the disk.
///
/// # Errors
/// When the index cannot be read; a message that cannot be read is left out.
pub fn search(engine: &Engine, wanted: &Search) -> Result<Vec<Message>, ReadError> {
    let mut found = Vec::new();
    let (mut bytes, mut looked_at, mut beyond) = (0, 0, None);
    // A key knows no topic: those of other topics are passed over.
    while looked_at < limits::FIND_CANDIDATES_MAX {
        let page = engine.find(&KeyQuery {
            key: wanted.key.as_bytes(),
            from_ms: wanted.from_ms,
            to_ms: wanted.to_ms,
            order: KeyOrder::NewestFirst,
            beyond,
            count: limits::FIND_MESSAGES_MAX,
            bytes_max: limits::FIND_BYTES_MAX + limits::FIND_SLACK_BYTES,
        })?;
        let Some(last) = page.last() else { break };
        beyond = Some(last.lsn);
        // One more would have fitted.
        let bytes_of_page: usize = page.iter().map(Message::size).sum();
        let is_last = page.len() < limits::FIND_MESSAGES_MAX && bytes_of_page <= limits::FIND_BYTES_MAX;
        looked_at += page.len();
        for message in page {
            if topic_of(&message.queue_name).is_none_or(|(topic, _)| topic != &*wanted.topic) {
                continue;
            }
            bytes += message.payload().len();
            if found.len() >= wanted.count || (bytes > limits::FIND_BYTES_MAX && !found.is_empty()) {
                return Ok(found);
            }
            found.push(message);
        }
        if is_last || found.len() >= wanted.count {
            break;
        }
    }
    Ok(found)
}
