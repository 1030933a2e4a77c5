//! `topic/<name>`: a topic's settings.
//!
//! ```text
//! value: version 1 | read queues 4 | write queues 4 | perm 1 | sysFlag 4 | ordered 1
//! ```

use super::{BadEntry, Fields, behind, name};
use crate::features::topics::TopicConfig;

/// What its keys begin with.
pub const PREFIX: &[u8] = b"topic/";

const VERSION: u8 = 1;

/// Its key.
#[must_use]
pub fn encode_key(name: &str) -> Vec<u8> {
    [PREFIX, name.as_bytes()].concat()
}

/// Key and value.
#[must_use]
pub fn encode(name: &str, config: &TopicConfig) -> (Vec<u8>, Vec<u8>) {
    let mut value = vec![VERSION];
    value.extend_from_slice(&config.read_queues.to_be_bytes());
    value.extend_from_slice(&config.write_queues.to_be_bytes());
    value.push(config.perm);
    value.extend_from_slice(&config.sys_flag.to_be_bytes());
    value.push(u8::from(config.ordered));
    (encode_key(name), value)
}

/// Reads an entry.
///
/// # Errors
/// When it is none, or one of another version.
pub fn decode(key: &[u8], value: &[u8]) -> Result<(Box<str>, TopicConfig), BadEntry> {
    let name = name(behind(PREFIX, key)?)?;
    let mut fields = Fields::of_version(VERSION, value)?;
    let config = TopicConfig {
        read_queues: u32::from_be_bytes(fields.take()?),
        write_queues: u32::from_be_bytes(fields.take()?),
        perm: u8::from_be_bytes(fields.take()?),
        sys_flag: i32::from_be_bytes(fields.take()?),
        ordered: fields.take::<1>()? != [0],
    };
    fields.end()?;
    Ok((name, config))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::any_name;
    use super::*;

    #[test]
    fn its_bytes_are_these() {
        let (key, value) = encode("T1", &TopicConfig { ordered: true, sys_flag: -2, ..TopicConfig::open(8) });
        assert_eq!(key, b"topic/T1");
        assert_eq!(value, [1, 0, 0, 0, 8, 0, 0, 0, 8, 6, 0xFF, 0xFF, 0xFF, 0xFE, 1]);
    }

    proptest! {
        #[test]
        fn a_topic_is_read_as_it_was_written(name in any_name(), fields in any::<(u32, u32, u8, i32, bool)>()) {
            let (read_queues, write_queues, perm, sys_flag, ordered) = fields;
            let config = TopicConfig { read_queues, write_queues, perm, sys_flag, ordered };
            let (key, mut value) = encode(&name, &config);
            prop_assert_eq!(decode(&key, &value), Ok((name, config)));
            prop_assert!(decode(&key, &value[..value.len() - 1]).is_err());
            value[0] += 1;
            prop_assert!(decode(&key, &value).is_err(), "of another version");
        }
    }
}
