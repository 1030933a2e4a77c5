//! `neighbours/<topic>`: which other brokers have queues of a topic, as name servers told last. Refers to no message.
//!
//! ```text
//! value: version 1 | the brokers, as JSON
//! ```
//! A copy of what others say: what cannot be read is passed over, and asked for again.

use super::{BadEntry, Fields, behind, name};
use crate::wire::neighbour::Neighbour;

/// What its keys begin with.
pub const PREFIX: &[u8] = b"neighbours/";

const VERSION: u8 = 1;

/// Its key.
#[must_use]
pub fn encode_key(topic: &str) -> Vec<u8> {
    [PREFIX, topic.as_bytes()].concat()
}

/// The value.
///
/// # Panics
/// Never: names and numbers are all that there is.
#[must_use]
pub fn encode(neighbours: &[Neighbour]) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend(serde_json::to_vec(neighbours).expect("names and numbers"));
    value
}

/// Reads an entry.
///
/// # Errors
/// When it is none, or one of another version.
pub fn decode(key: &[u8], value: &[u8]) -> Result<(Box<str>, Vec<Neighbour>), BadEntry> {
    let topic = name(behind(PREFIX, key)?)?;
    let fields = Fields::of_version(VERSION, value)?;
    let neighbours = serde_json::from_slice(fields.0).map_err(|_| BadEntry("its value names no brokers"))?;
    Ok((topic, neighbours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let neighbour = Neighbour {
            broker: "b".to_owned(),
            addresses: [(0, "a:1".to_owned())].into(),
            read_queues: 8,
            ..Neighbour::default()
        };
        let (key, mut value) = (encode_key("T1"), encode(std::slice::from_ref(&neighbour)));
        assert_eq!(key, b"neighbours/T1");
        assert!(
            value
                .starts_with(b"\x01[{\"broker\":\"b\",\"cluster\":\"\",\"addresses\":{\"0\":\"a:1\"},\"readQueues\":8")
        );
        assert_eq!(decode(&key, &value), Ok(("T1".into(), vec![neighbour])));
        assert!(decode(&key, &value[..9]).is_err());
        value[0] += 1;
        assert!(decode(&key, &value).is_err(), "of another version");
    }
}
