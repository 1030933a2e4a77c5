//! `replayed/<topic>/<queue>/<offset>`: a dead letter that was returned. Refers to nothing: the letter is kept for its own sake.
//!
//! ```text
//! key:    replayed/ | topic | 0 | queue 4 | offset 8
//! value:  version 1 | the letter's LSN 8 | when, in milliseconds since 1970: 8 | how often 4 | the topic that it was returned to
//! ```
//! A topic that is made anew has other messages at the same places: the entry speaks of the message of that LSN, and of no other.

use anchorlog_engine::{Lsn, QueueOffset};

use super::{BadEntry, Fields, name};
use crate::limits;

/// What its keys begin with.
pub const PREFIX: &[u8] = b"replayed/";

const VERSION: u8 = 1;

const KEY_BYTES_MAX: usize = PREFIX.len() + limits::TOPIC_BYTES_MAX + 1 + 4 + 8;
const _: () = assert!(KEY_BYTES_MAX <= anchorlog_engine::limits::TABLE_KEY_BYTES_MAX, "every letter has a key");

/// What is known of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The letter.
    pub lsn: Lsn,
    /// When it was returned last, in milliseconds since 1970.
    pub at_ms: u64,
    /// How often it was.
    pub times: u32,
    /// The topic that it was returned to last.
    pub topic: Box<str>,
}

/// The key for the letter at this place; those of a queue lie side by side, in its order.
#[must_use]
pub fn encode_key(topic: &str, queue: u32, offset: QueueOffset) -> Vec<u8> {
    [&*queue_prefix(topic, queue), &offset.0.to_be_bytes()].concat()
}

/// What the keys of a queue's letters begin with.
fn queue_prefix(topic: &str, queue: u32) -> Vec<u8> {
    [PREFIX, topic.as_bytes(), &[0], &queue.to_be_bytes()].concat()
}

/// The value.
#[must_use]
pub fn encode(replay: &Replay) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend_from_slice(&replay.lsn.0.to_be_bytes());
    value.extend_from_slice(&replay.at_ms.to_be_bytes());
    value.extend_from_slice(&replay.times.to_be_bytes());
    value.extend_from_slice(replay.topic.as_bytes());
    value
}

/// Reads a value.
///
/// # Errors
/// When it is none, or one of another version.
pub fn decode(value: &[u8]) -> Result<Replay, BadEntry> {
    let mut fields = Fields::of_version(VERSION, value)?;
    Ok(Replay {
        lsn: Lsn(u64::from_be_bytes(fields.take()?)),
        at_ms: u64::from_be_bytes(fields.take()?),
        times: u32::from_be_bytes(fields.take()?),
        topic: name(fields.0)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::any_name;
    use super::*;

    #[test]
    fn its_bytes_are_these() {
        assert_eq!(encode_key("%DLQ%g", 1, QueueOffset(2)), b"replayed/%DLQ%g\0\0\0\0\x01\0\0\0\0\0\0\0\x02");
        let replay = Replay { lsn: Lsn(3), at_ms: 4, times: 5, topic: "T".into() };
        assert_eq!(encode(&replay), b"\x01\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\0\0\0\x05T");
    }

    proptest! {
        #[test]
        fn a_replay_is_read_as_it_was_written(topic in any_name(), numbers in any::<(u64, u64, u32)>()) {
            let (lsn, at_ms, times) = numbers;
            let replay = Replay { lsn: Lsn(lsn), at_ms, times, topic };
            let mut value = encode(&replay);
            prop_assert_eq!(decode(&value), Ok(replay));
            prop_assert!(decode(&value[..20]).is_err());
            value[0] += 1;
            prop_assert!(decode(&value).is_err(), "of another version");
        }
    }
}
