//! `republished/<group>/<from>/<to>/<queue>`: how much of a topic's queue stands in another topic too. Refers to nothing.
//!
//! ```text
//! key:    republished/ | group, or nothing | 0 | from | 0 | to | 0 | queue 4
//! value:  version 1 | incarnation of the queue 4 | incarnation of the first queue that gets it 4 | the next offset 8
//! ```

use anchorlog_engine::QueueOffset;

use super::{BadEntry, Fields};
use crate::limits;

/// What its keys begin with.
pub const PREFIX: &[u8] = b"republished/";

const VERSION: u8 = 1;

const KEY_BYTES_MAX: usize = PREFIX.len() + limits::GROUP_BYTES_MAX + 2 * limits::TOPIC_BYTES_MAX + 3 + 4;
const _: () = assert!(KEY_BYTES_MAX <= anchorlog_engine::limits::TABLE_KEY_BYTES_MAX, "every pair has a key");

/// How far a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Of the queue that is republished: one that was made anew begins anew.
    pub from_incarnation: u32,
    /// The same of the topic that gets it.
    pub to_incarnation: u32,
    /// The first offset that is not there yet.
    pub next: QueueOffset,
}

/// The key.
#[must_use]
pub fn encode_key(group: &str, from: &str, to: &str, queue: u32) -> Vec<u8> {
    [PREFIX, group.as_bytes(), &[0], from.as_bytes(), &[0], to.as_bytes(), &[0], &queue.to_be_bytes()].concat()
}

/// The value.
#[must_use]
pub fn encode(progress: &Progress) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend_from_slice(&progress.from_incarnation.to_be_bytes());
    value.extend_from_slice(&progress.to_incarnation.to_be_bytes());
    value.extend_from_slice(&progress.next.0.to_be_bytes());
    value
}

/// Reads a value.
///
/// # Errors
/// When it is none, or one of another version.
pub fn decode(value: &[u8]) -> Result<Progress, BadEntry> {
    let mut fields = Fields::of_version(VERSION, value)?;
    let progress = Progress {
        from_incarnation: u32::from_be_bytes(fields.take()?),
        to_incarnation: u32::from_be_bytes(fields.take()?),
        next: QueueOffset(u64::from_be_bytes(fields.take()?)),
    };
    fields.end()?;
    Ok(progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_bytes_are_these() {
        assert_eq!(encode_key("g", "A", "B", 2), b"republished/g\0A\0B\0\0\0\0\x02");
        assert_eq!(encode_key("", "A", "B", 2), b"republished/\0A\0B\0\0\0\0\x02");
        let progress = Progress { from_incarnation: 3, to_incarnation: 4, next: QueueOffset(5) };
        let mut value = encode(&progress);
        assert_eq!(value, b"\x01\0\0\0\x03\0\0\0\x04\0\0\0\0\0\0\0\x05");
        assert_eq!(decode(&value), Ok(progress));
        assert!(decode(&value[..16]).is_err());
        value[0] += 1;
        assert!(decode(&value).is_err(), "of another version");
    }
}
