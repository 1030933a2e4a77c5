//! `lock/<group>/<topic>/<queue>`: for which client of a group a queue is locked. There is none while the queue is nobody's.
//!
//! ```text
//! key:   lock/ | group | 0 | topic | 0 | queue 4        value: version 1 | term 4 | run 4 | count 8 | client id
//! ```
//! How long the lock lasts is not in it: an owner that asks again changes nothing here.

use anchorlog_engine::Epoch;

use super::{BadEntry, Fields, name, offset};
use crate::features::offsets::OffsetKey;
use crate::features::order::{Lock, Token};
use crate::limits;

/// What its keys begin with.
pub const PREFIX: &[u8] = b"lock/";

const VERSION: u8 = 1;

const _: () = assert!(
    1 + 16 + limits::CLIENT_ID_BYTES_MAX <= anchorlog_engine::limits::TABLE_VALUE_BYTES_MAX,
    "every client's lock has a value"
);

/// The key.
#[must_use]
pub fn encode_key(key: &OffsetKey) -> Vec<u8> {
    offset::encode_names(PREFIX, key)
}

/// Key and value.
#[must_use]
pub fn encode(key: &OffsetKey, lock: &Lock) -> (Vec<u8>, Vec<u8>) {
    let Token { epoch: Epoch { term, run }, count } = lock.token;
    let token = [&term.to_be_bytes()[..], &run.to_be_bytes(), &count.to_be_bytes()].concat();
    (encode_key(key), [&[VERSION], &token[..], lock.client_id.as_bytes()].concat())
}

/// Reads an entry.
///
/// # Errors
/// When it is none, or one of another version.
pub fn decode(key: &[u8], value: &[u8]) -> Result<(OffsetKey, Lock), BadEntry> {
    let key = offset::decode_names(PREFIX, key)?;
    let mut fields = Fields::of_version(VERSION, value)?;
    let epoch = Epoch { term: u32::from_be_bytes(fields.take()?), run: u32::from_be_bytes(fields.take()?) };
    let token = Token { epoch, count: u64::from_be_bytes(fields.take()?) };
    Ok((key, Lock { client_id: name(fields.0)?, token }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::any_name;
    use super::*;

    #[test]
    fn its_bytes_are_these() {
        let key = OffsetKey { group: "g".into(), topic: "T1".into(), queue: 256 };
        let token = Token { epoch: Epoch { term: 1, run: 2 }, count: 3 };
        let (key, value) = encode(&key, &Lock { client_id: "c@1".into(), token });
        assert_eq!(key, b"lock/g\0T1\0\0\0\x01\0");
        assert_eq!(value, b"\x01\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\x03c@1");
    }

    proptest! {
        #[test]
        fn a_lock_is_read_as_it_was_written(
            names in (any_name(), any_name(), any_name()),
            numbers in any::<(u32, u32, u32, u64)>(),
        ) {
            let (group, topic, client_id) = names;
            let (queue, term, run, count) = numbers;
            let named = OffsetKey { group, topic, queue };
            let lock = Lock { client_id, token: Token { epoch: Epoch { term, run }, count } };
            let (key, mut value) = encode(&named, &lock);
            prop_assert_eq!(&key, &encode_key(&named));
            prop_assert_eq!(decode(&key, &value), Ok((named, lock)));
            prop_assert!(decode(&key, &value[..16]).is_err());
            value[0] += 1;
            prop_assert!(decode(&key, &value).is_err(), "of another version");
        }
    }
}
