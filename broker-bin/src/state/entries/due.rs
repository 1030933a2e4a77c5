//! `due/<time>/<run>/<count>`: what is to be done with a message at a time. To be delivered, it refers to the message, which is no link.
//!
//! ```text
//! key:     due/ | time 8, milliseconds since 1970 | term 4 | run 4 | count 8
//! value:   version 1 | kind 1 | what the kind says
//! kind 1, deliver; kind 2, deliver what had a time of its own:
//!          record bytes 4 | tag 4 | queue 4 | topic bytes 1, topic | keys 2, each: bytes 2, key | attributes
//! kind 3, ask:      transaction 16 | questions so far 4
//! kind 4, forget:   transaction 16
//! ```

use anchorlog_engine::Epoch;

use super::{BadEntry, Fields, behind, name};
use crate::features::delay::{Due, DueKey, Place};
use crate::features::transactions::TransactionId;

/// What its keys begin with.
pub const PREFIX: &[u8] = b"due/";

const VERSION: u8 = 1;
const DELIVER: u8 = 1;
const DELIVER_TIMED: u8 = 2;
const ASK: u8 = 3;
const FORGET: u8 = 4;

/// Bytes of a key.
pub const KEY_BYTES: usize = PREFIX.len() + 8 + 4 + 4 + 8;

/// The key.
#[must_use]
pub fn encode_key(key: &DueKey) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    let parts: [&[u8]; 5] = [
        PREFIX,
        &key.time_ms.to_be_bytes(),
        &key.epoch.term.to_be_bytes(),
        &key.epoch.run.to_be_bytes(),
        &key.count.to_be_bytes(),
    ];
    let mut at = 0;
    for part in parts {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    bytes
}

/// The first key that an entry of this time or later can have.
#[must_use]
pub fn first_key(time_ms: u64) -> [u8; KEY_BYTES] {
    encode_key(&DueKey { time_ms, epoch: Epoch::default(), count: 0 })
}

/// Reads a key.
///
/// # Errors
/// When it is none.
pub fn decode_key(key: &[u8]) -> Result<DueKey, BadEntry> {
    let mut fields = Fields(behind(PREFIX, key)?);
    let time_ms = u64::from_be_bytes(fields.take()?);
    let epoch = Epoch { term: u32::from_be_bytes(fields.take()?), run: u32::from_be_bytes(fields.take()?) };
    let key = DueKey { time_ms, epoch, count: u64::from_be_bytes(fields.take()?) };
    fields.end()?;
    Ok(key)
}

/// The value.
#[must_use]
pub fn encode(due: &Due) -> Vec<u8> {
    let mut value = vec![VERSION];
    match due {
        Due::Deliver { record_bytes, timed, place } => {
            value.push(if *timed { DELIVER_TIMED } else { DELIVER });
            value.extend_from_slice(&record_bytes.to_be_bytes());
            put_place(&mut value, place);
        }
        Due::Ask { id, checks } => {
            value.push(ASK);
            value.extend_from_slice(&id.to_bytes());
            value.extend_from_slice(&checks.to_be_bytes());
        }
        Due::Forget { id } => {
            value.push(FORGET);
            value.extend_from_slice(&id.to_bytes());
        }
    }
    value
}

fn put_place(value: &mut Vec<u8>, place: &Place) {
    value.extend_from_slice(&place.tag.to_be_bytes());
    value.extend_from_slice(&place.queue.to_be_bytes());
    let topic = u8::try_from(place.topic.len()).expect("bounded by TOPIC_BYTES_MAX");
    value.push(topic);
    value.extend_from_slice(place.topic.as_bytes());
    let count = u16::try_from(place.keys.len()).expect("bounded by KEYS_BYTES_MAX");
    value.extend_from_slice(&count.to_be_bytes());
    for key in &place.keys {
        let bytes = u16::try_from(key.len()).expect("bounded by KEYS_BYTES_MAX");
        value.extend_from_slice(&bytes.to_be_bytes());
        value.extend_from_slice(key);
    }
    value.extend_from_slice(&place.attributes);
}

/// Whether a value says that a message is to be delivered, without reading the rest.
#[must_use]
pub fn is_delivery(value: &[u8]) -> bool {
    matches!(value, [VERSION, DELIVER | DELIVER_TIMED, ..])
}

/// Reads a value.
///
/// # Errors
/// When it is none, or one of another version.
pub fn decode(value: &[u8]) -> Result<Due, BadEntry> {
    let mut fields = Fields::of_version(VERSION, value)?;
    match fields.take::<1>()? {
        [kind @ (DELIVER | DELIVER_TIMED)] => {
            let record_bytes = u32::from_be_bytes(fields.take()?);
            Ok(Due::Deliver { record_bytes, timed: kind == DELIVER_TIMED, place: take_place(fields)? })
        }
        [ASK] => {
            let id = TransactionId::from_bytes(fields.take()?);
            let checks = u32::from_be_bytes(fields.take()?);
            fields.end()?;
            Ok(Due::Ask { id, checks })
        }
        [FORGET] => {
            let id = TransactionId::from_bytes(fields.take()?);
            fields.end()?;
            Ok(Due::Forget { id })
        }
        _ => Err(BadEntry("its value is of an unknown kind")),
    }
}

fn take_place(mut fields: Fields<'_>) -> Result<Place, BadEntry> {
    let tag = u32::from_be_bytes(fields.take()?);
    let queue = u32::from_be_bytes(fields.take()?);
    let [topic] = fields.take()?;
    let topic = name(fields.bytes(usize::from(topic))?)?;
    let count = u16::from_be_bytes(fields.take()?);
    let mut keys = Vec::new();
    for _ in 0..count {
        let bytes = u16::from_be_bytes(fields.take()?);
        keys.push(fields.bytes(usize::from(bytes))?.into());
    }
    Ok(Place { topic, queue, tag, keys, attributes: fields.0.to_vec() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::any_name;
    use super::*;

    prop_compose! {
        pub(in super::super) fn any_place()(
            topic in any_name(), queue in any::<u32>(), tag in any::<u32>(),
            keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..4),
            attributes in prop::collection::vec(any::<u8>(), 0..40),
        ) -> Place {
            Place { topic, queue, tag, keys: keys.into_iter().map(Vec::into_boxed_slice).collect(), attributes }
        }
    }

    fn any_key() -> impl Strategy<Value = DueKey> {
        let fields = any::<(u64, u32, u32, u64)>();
        fields.prop_map(|(time_ms, term, run, count)| DueKey { time_ms, epoch: Epoch { term, run }, count })
    }

    #[test]
    fn its_bytes_are_these() {
        let key = DueKey { time_ms: 256, epoch: Epoch { term: 1, run: 2 }, count: 3 };
        assert_eq!(encode_key(&key), *b"due/\0\0\0\0\0\0\x01\0\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\x03");
        let place = Place { topic: "T".into(), queue: 5, tag: 65, keys: vec![(*b"K").into()], attributes: vec![1, 9] };
        let value = encode(&Due::Deliver { record_bytes: 300, timed: false, place });
        assert_eq!(value, *b"\x01\x01\0\0\x01\x2c\0\0\0A\0\0\0\x05\x01T\0\x01\0\x01K\x01\x09");
    }

    proptest! {
        #[test]
        fn an_entry_is_read_as_it_was_written(
            key in any_key(), place in any_place(), record_bytes in any::<u32>(), timed in any::<bool>(),
        ) {
            prop_assert_eq!(decode_key(&encode_key(&key)), Ok(key));
            let id = TransactionId::of(&key);
            let ask = Due::Ask { id, checks: record_bytes };
            for due in [Due::Deliver { record_bytes, timed, place }, ask, Due::Forget { id }] {
                let mut value = encode(&due);
                prop_assert_eq!(decode(&value), Ok(due));
                value[0] += 1;
                prop_assert!(decode(&value).is_err(), "of another version");
            }
        }

        #[test]
        fn keys_sort_by_time(one in any_key(), two in any_key()) {
            prop_assert_eq!(encode_key(&one).cmp(&encode_key(&two)), one.cmp(&two));
            prop_assert!(first_key(one.time_ms) <= encode_key(&one));
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut value in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(version) = value.first_mut() {
                *version %= 2;
            }
            if let Ok(due) = decode(&value) {
                prop_assert_eq!(encode(&due), value);
            }
        }
    }
}
