//! `offset/<group>/<topic>/<queue>`: how far a group has consumed a queue.
//!
//! ```text
//! key:   offset/ | group | 0 | topic | 0 | queue 4        value: version 1 | offset 8
//! ```
//! Group names may hold slashes, but neither they nor topic names hold a zero byte: that is what separates them. It sorts before every
//! other byte, so keys sort as [`OffsetKey`]s do, and one group's offsets lie side by side.

use super::{BadEntry, Fields, behind, name};
use crate::features::offsets::OffsetKey;
use crate::limits;

/// What its keys begin with.
pub const PREFIX: &[u8] = b"offset/";

const VERSION: u8 = 1;

/// The longest key.
const KEY_BYTES_MAX: usize = PREFIX.len() + limits::GROUP_BYTES_MAX + 1 + limits::TOPIC_BYTES_MAX + 1 + 4;
const _: () = assert!(KEY_BYTES_MAX <= anchorlog_engine::limits::TABLE_KEY_BYTES_MAX, "every offset has a key");

/// A key of a kind that is kept for each group and queue.
pub(super) fn encode_names(prefix: &[u8], key: &OffsetKey) -> Vec<u8> {
    [prefix, key.group.as_bytes(), &[0], key.topic.as_bytes(), &[0], &key.queue.to_be_bytes()].concat()
}

/// Reads such a key.
pub(super) fn decode_names(prefix: &[u8], key: &[u8]) -> Result<OffsetKey, BadEntry> {
    let cut = || BadEntry("its key does not name group, topic and queue");
    // From the end: a queue's number may hold zero bytes.
    let (names, queue) = behind(prefix, key)?.split_last_chunk::<4>().ok_or_else(cut)?;
    let names = names.strip_suffix(&[0]).ok_or_else(cut)?;
    let between = names.iter().position(|byte| *byte == 0).ok_or_else(cut)?;
    let (group, topic) = (name(&names[..between])?, name(&names[between + 1..])?);
    Ok(OffsetKey { group, topic, queue: u32::from_be_bytes(*queue) })
}

/// Its key.
#[must_use]
pub fn encode_key(key: &OffsetKey) -> Vec<u8> {
    encode_names(PREFIX, key)
}

/// Key and value.
#[must_use]
pub fn encode(key: &OffsetKey, offset: u64) -> (Vec<u8>, Vec<u8>) {
    let mut value = vec![VERSION];
    value.extend_from_slice(&offset.to_be_bytes());
    (encode_key(key), value)
}

/// Reads an entry.
///
/// # Errors
/// When it is none, or one of another version.
pub fn decode(key: &[u8], value: &[u8]) -> Result<(OffsetKey, u64), BadEntry> {
    let key = decode_names(PREFIX, key)?;
    let mut fields = Fields::of_version(VERSION, value)?;
    let offset = u64::from_be_bytes(fields.take()?);
    fields.end()?;
    Ok((key, offset))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::any_name;
    use super::*;

    fn any_key() -> impl Strategy<Value = OffsetKey> {
        (any_name(), any_name(), any::<u32>()).prop_map(|(group, topic, queue)| OffsetKey { group, topic, queue })
    }

    #[test]
    fn its_bytes_are_these() {
        let (key, value) = encode(&OffsetKey { group: "a/b".into(), topic: "T1".into(), queue: 256 }, 7);
        assert_eq!(key, b"offset/a/b\0T1\0\0\0\x01\0");
        assert_eq!(value, [1, 0, 0, 0, 0, 0, 0, 0, 7]);
    }

    proptest! {
        #[test]
        fn an_offset_is_read_as_it_was_written(named in any_key(), offset in any::<u64>()) {
            let (key, mut value) = encode(&named, offset);
            prop_assert_eq!(decode(&key, &value), Ok((named, offset)));
            prop_assert!(decode(&key, &value[..value.len() - 1]).is_err());
            value[0] += 1;
            prop_assert!(decode(&key, &value).is_err(), "of another version");
        }

        #[test]
        fn keys_sort_by_group_then_topic_then_number(mut named in prop::collection::vec(any_key(), 0..20)) {
            let mut keys: Vec<_> = named.iter().map(|named| encode(named, 0).0).collect();
            keys.sort();
            named.sort();
            prop_assert_eq!(keys, named.iter().map(|named| encode(named, 0).0).collect::<Vec<_>>());
        }
    }
}
