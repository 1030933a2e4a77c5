//! `due/<time>/<run>/<count>`: what is to be done with a message at a time. To be delivered, it refers to the message, which is no link.
//!
//! ```text
//! key:     due/ | time 8, milliseconds since 1970 | term, run, count: sorted numbers, together not 16 bytes
//!          due/ | time 8 | term 4 | run 4 | count 8, as written before format 3
//! value:   version 2 | kind 1 | what the kind says; version 1 for all but what is to be delivered
//! kind 1, deliver; kind 2, deliver what had a time of its own:
//!          record bytes n | bits 1 | tag 4, if bit 0 | queue n | topic, behind %RETRY% with bit 1: bytes n, text
//!          | keys n, each: bytes n * 4 + form, key | attributes
//!            form 0: as it is; form 1: half as many bytes, of which it is the hexadecimal text; form 2: the LSN of a back key, n
//!          version 1: record bytes 4 | tag 4 | queue 4 | topic bytes 1, topic | keys 2, each: bytes 2, key | attributes
//! kind 3, ask:      transaction 16 | questions so far 4
//! kind 4, forget:   transaction 16
//! ```
//! `n` is a number in as few bytes as it needs: see [`super::number`].

use anchorlog_engine::{Epoch, Lsn};

use super::{BadEntry, Fields, behind, name, number};
use crate::features::delay::{Due, DueKey, Place};
use crate::features::repeats;
use crate::features::topics::RETRY_PREFIX;
use crate::features::transactions::TransactionId;
use crate::wire::hex;

/// What its keys begin with.
pub const PREFIX: &[u8] = b"due/";

const VERSION: u8 = 1;
const VERSION_PACKED: u8 = 2;
const DELIVER: u8 = 1;
const DELIVER_TIMED: u8 = 2;
const ASK: u8 = 3;
const FORGET: u8 = 4;

const HAS_TAG: u8 = 1;
const IS_RETRY: u8 = 1 << 1;
const KEY_PLAIN: u64 = 0;
const KEY_HEX: u64 = 1;
const KEY_BACK: u64 = 2;

/// Bytes of what stands behind the time in keys of the older form.
const LONG_BYTES: usize = 16;

/// The key.
#[must_use]
pub fn encode_key(key: &DueKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    bytes.extend_from_slice(&first_key(key.time_ms));
    let (term, run) = (key.epoch.term, key.epoch.run);
    if key.is_long {
        bytes.extend_from_slice(&term.to_be_bytes());
        bytes.extend_from_slice(&run.to_be_bytes());
        bytes.extend_from_slice(&key.count.to_be_bytes());
        return bytes;
    }
    let begin = bytes.len();
    number::put_sorted(&mut bytes, term.into(), 0);
    number::put_sorted(&mut bytes, run.into(), 0);
    let at = bytes.len();
    number::put_sorted(&mut bytes, key.count, 0);
    if bytes.len() - begin == LONG_BYTES {
        // It must not look like the older form.
        match bytes.len() - at {
            least @ ..=8 => {
                bytes.truncate(at);
                number::put_sorted(&mut bytes, key.count, least);
            }
            // As long as a number gets: what follows changes nothing of the order.
            _ => bytes.push(0),
        }
    }
    bytes
}

/// Not behind any key that an entry of this time or later has.
#[must_use]
pub fn first_key(time_ms: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(PREFIX);
    bytes[4..].copy_from_slice(&time_ms.to_be_bytes());
    bytes
}

/// Reads a key.
///
/// # Errors
/// When it is none.
pub fn decode_key(key: &[u8]) -> Result<DueKey, BadEntry> {
    let mut fields = Fields(behind(PREFIX, key)?);
    let time_ms = u64::from_be_bytes(fields.take()?);
    let is_long = fields.0.len() == LONG_BYTES;
    if is_long {
        let epoch = Epoch { term: u32::from_be_bytes(fields.take()?), run: u32::from_be_bytes(fields.take()?) };
        return Ok(DueKey { time_ms, epoch, count: u64::from_be_bytes(fields.take()?), is_long });
    }
    let mut next = || number::take_sorted(&mut fields.0).ok_or(BadEntry("its key is cut short"));
    let (term, run, count) = (next()?, next()?, next()?);
    if fields.0 == [0] && behind(PREFIX, key)?.len() == 8 + LONG_BYTES + 1 {
        fields.0 = &[];
    }
    let small = |number: u64| u32::try_from(number).map_err(|_| BadEntry("its key names no epoch"));
    let epoch = Epoch { term: small(term)?, run: small(run)? };
    fields.end()?;
    Ok(DueKey { time_ms, epoch, count, is_long })
}

/// The value.
#[must_use]
pub fn encode(due: &Due) -> Vec<u8> {
    let mut value = Vec::with_capacity(24);
    match due {
        Due::Deliver { record_bytes, timed, place } => {
            let keys: Vec<&[u8]> = place.keys.iter().map(|key| &**key).collect();
            let Place { topic, queue, tag, attributes, .. } = place;
            let (record_bytes, timed, queue, tag) = (*record_bytes, *timed, *queue, *tag);
            return Delivery { record_bytes, timed, topic, queue, tag, keys: &keys, attributes }.encode();
        }
        Due::Ask { id, checks } => {
            value.extend_from_slice(&[VERSION, ASK]);
            value.extend_from_slice(&id.to_bytes());
            value.extend_from_slice(&checks.to_be_bytes());
        }
        Due::Forget { id } => {
            value.extend_from_slice(&[VERSION, FORGET]);
            value.extend_from_slice(&id.to_bytes());
        }
    }
    value
}

/// A delivery, as it is put together.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Bytes of the message's record.
    pub record_bytes: u32,
    /// Its reader is told when it left the timer.
    pub timed: bool,
    /// The topic.
    pub topic: &'a str,
    /// The queue's number in it.
    pub queue: u32,
    /// The tag's hash.
    pub tag: u32,
    /// Keys that it will be found by.
    pub keys: &'a [&'a [u8]],
    /// The attributes of its record.
    pub attributes: &'a [u8],
}

impl Delivery<'_> {
    /// The value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let keys: usize = self.keys.iter().map(|key| key.len() + 3).sum();
        let mut value = Vec::with_capacity(32 + self.topic.len() + keys + self.attributes.len());
        value.extend_from_slice(&[VERSION_PACKED, if self.timed { DELIVER_TIMED } else { DELIVER }]);
        number::put(&mut value, u64::from(self.record_bytes));
        put_place(&mut value, self);
        value
    }
}

fn put_place(value: &mut Vec<u8>, place: &Delivery<'_>) {
    let group = place.topic.strip_prefix(RETRY_PREFIX);
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    value.push(bit(place.tag != 0, HAS_TAG) | bit(group.is_some(), IS_RETRY));
    if place.tag != 0 {
        value.extend_from_slice(&place.tag.to_be_bytes());
    }
    number::put(value, u64::from(place.queue));
    let name = group.unwrap_or(place.topic);
    number::put(value, name.len() as u64);
    value.extend_from_slice(name.as_bytes());
    number::put(value, place.keys.len() as u64);
    for key in place.keys {
        if let Some(lsn) = repeats::lsn_of_back_key(key) {
            number::put(value, KEY_BACK);
            number::put(value, lsn.0);
        } else if hex::is_upper(key) {
            number::put(value, key.len() as u64 / 2 * 4 + KEY_HEX);
            hex::push_bytes(value, key);
        } else {
            number::put(value, key.len() as u64 * 4 + KEY_PLAIN);
            value.extend_from_slice(key);
        }
    }
    value.extend_from_slice(place.attributes);
}

/// Whether a value says that a message is to be delivered, without reading the rest.
#[must_use]
pub fn is_delivery(value: &[u8]) -> bool {
    matches!(value, [VERSION | VERSION_PACKED, DELIVER | DELIVER_TIMED, ..])
}

/// Reads a value.
///
/// # Errors
/// When it is none, or one of another version.
pub fn decode(value: &[u8]) -> Result<Due, BadEntry> {
    if let [VERSION_PACKED, rest @ ..] = value {
        let mut fields = Fields(rest);
        let [kind @ (DELIVER | DELIVER_TIMED)] = fields.take()? else {
            return Err(BadEntry("its value is of an unknown kind"));
        };
        let record_bytes = fields.number()?;
        return Ok(Due::Deliver { record_bytes, timed: kind == DELIVER_TIMED, place: take_packed_place(fields)? });
    }
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

fn take_packed_place(mut fields: Fields<'_>) -> Result<Place, BadEntry> {
    let [bits] = fields.take()?;
    let tag = if bits & HAS_TAG != 0 { u32::from_be_bytes(fields.take()?) } else { 0 };
    let queue = fields.number()?;
    let bytes: usize = fields.number()?;
    let rest = name(fields.bytes(bytes)?)?;
    let topic = if bits & IS_RETRY != 0 { [RETRY_PREFIX, &rest].concat().into() } else { rest };
    let count: usize = fields.number()?;
    let mut keys = Vec::new();
    for _ in 0..count {
        let told: usize = fields.number()?;
        keys.push(match (told / 4, told as u64 % 4) {
            (bytes, KEY_PLAIN) => fields.bytes(bytes)?.into(),
            (bytes, KEY_HEX) => hex::upper(fields.bytes(bytes)?).into_bytes().into(),
            (0, KEY_BACK) => repeats::back_key(Lsn(fields.number()?)).into(),
            _ => return Err(BadEntry("its value has a key of an unknown form")),
        });
    }
    Ok(Place { topic, queue, tag, keys, attributes: fields.0.to_vec() })
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
        let fields = any::<(u64, u32, u32, u64, bool)>();
        fields.prop_map(|(time_ms, term, run, count, is_long)| DueKey {
            time_ms,
            epoch: Epoch { term, run },
            count,
            is_long,
        })
    }

    #[test]
    fn its_bytes_are_these() {
        let key = DueKey { time_ms: 256, epoch: Epoch { term: 1, run: 2 }, count: 3, is_long: false };
        assert_eq!(encode_key(&key), *b"due/\0\0\0\0\0\0\x01\0\x01\x02\x03");
        let older = DueKey { is_long: true, ..key };
        assert_eq!(encode_key(&older), *b"due/\0\0\0\0\0\0\x01\0\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\x03");
        let keys = vec![(*b"K").into(), (*b"AB01").into(), repeats::back_key(Lsn(200)).into()];
        let place = Place { topic: "T".into(), queue: 5, tag: 65, keys, attributes: vec![1, 9] };
        let value = encode(&Due::Deliver { record_bytes: 300, timed: false, place });
        assert_eq!(value, *b"\x02\x01\xac\x02\x01\0\0\0A\x05\x01T\x03\x04K\x09\xab\x01\x02\xc8\x01\x01\x09");
    }

    #[test]
    fn what_was_written_before_format_3_is_read() {
        let value = *b"\x01\x02\0\0\x01\x2c\0\0\0A\0\0\0\x05\x01T\0\x01\0\x01K\x01\x09";
        let place = Place { topic: "T".into(), queue: 5, tag: 65, keys: vec![(*b"K").into()], attributes: vec![1, 9] };
        assert_eq!(decode(&value), Ok(Due::Deliver { record_bytes: 300, timed: true, place }));
    }

    #[test]
    fn no_key_looks_like_one_of_the_older_form() {
        for bits in 0..64 {
            let epoch = Epoch { term: u32::MAX >> (bits / 2), run: u32::MAX >> (bits / 3) };
            let key = DueKey { time_ms: 1, epoch, count: u64::MAX >> bits, is_long: false };
            assert_eq!(decode_key(&encode_key(&key)), Ok(key));
        }
    }

    proptest! {
        #[test]
        fn an_entry_is_read_as_it_was_written(
            key in any_key(), place in any_place(), record_bytes in any::<u32>(), timed in any::<bool>(),
            is_retry in any::<bool>(), lsn in any::<u64>(), hex in "([0-9A-F]{2}){0,20}",
        ) {
            prop_assert_eq!(decode_key(&encode_key(&key)), Ok(key));
            let id = TransactionId::of(&key);
            let ask = Due::Ask { id, checks: record_bytes };
            let mut place = place;
            if is_retry {
                place.topic = [RETRY_PREFIX, &place.topic].concat().into();
                place.keys.extend([repeats::back_key(Lsn(lsn)).into(), hex.into_bytes().into()]);
            }
            for due in [Due::Deliver { record_bytes, timed, place }, ask, Due::Forget { id }] {
                let mut value = encode(&due);
                prop_assert_eq!(decode(&value), Ok(due));
                value[0] += 2;
                prop_assert!(decode(&value).is_err(), "of another version");
            }
        }

        #[test]
        fn keys_sort_by_time_and_then_as_they_were_made(one in any_key(), two in any_key()) {
            let (one, two) = (DueKey { is_long: false, ..one }, DueKey { is_long: false, ..two });
            prop_assert_eq!(encode_key(&one).cmp(&encode_key(&two)), one.cmp(&two));
            for key in [one, DueKey { is_long: true, ..one }] {
                let (from, to) = (first_key(key.time_ms).to_vec(), first_key(key.time_ms.saturating_add(1)).to_vec());
                prop_assert!(from < encode_key(&key) && (key.time_ms == u64::MAX || encode_key(&key) < to));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut value in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(version) = value.first_mut() {
                *version %= 3;
            }
            if let Ok(due) = decode(&value) {
                prop_assert_eq!(decode(&encode(&due)), Ok(due));
            }
        }
    }
}
