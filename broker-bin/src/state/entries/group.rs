//! `group/<name>`: a consumer group's settings.
//!
//! ```text
//! value: version 1 | retry queues 4 | retry max 4 | may consume 1
//! ```

use super::{BadEntry, Fields, behind, name};
use crate::features::groups::GroupConfig;

/// What its keys begin with.
pub const PREFIX: &[u8] = b"group/";

const VERSION: u8 = 1;

/// Key and value.
#[must_use]
pub fn encode(name: &str, config: &GroupConfig) -> (Vec<u8>, Vec<u8>) {
    let mut value = vec![VERSION];
    value.extend_from_slice(&config.retry_queues.to_be_bytes());
    value.extend_from_slice(&config.retry_max.to_be_bytes());
    value.push(u8::from(config.may_consume));
    ([PREFIX, name.as_bytes()].concat(), value)
}

/// Reads an entry.
///
/// # Errors
/// When it is none, or one of another version.
pub fn decode(key: &[u8], value: &[u8]) -> Result<(Box<str>, GroupConfig), BadEntry> {
    let name = name(behind(PREFIX, key)?)?;
    let mut fields = Fields::of_version(VERSION, value)?;
    let config = GroupConfig {
        retry_queues: u32::from_be_bytes(fields.take()?),
        retry_max: u32::from_be_bytes(fields.take()?),
        may_consume: fields.take::<1>()? != [0],
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
        let (key, value) = encode("g", &GroupConfig::default());
        assert_eq!(key, b"group/g");
        assert_eq!(value, [1, 0, 0, 0, 1, 0, 0, 0, 16, 1]);
    }

    proptest! {
        #[test]
        fn a_group_is_read_as_it_was_written(name in any_name(), fields in any::<(u32, u32, bool)>()) {
            let (retry_queues, retry_max, may_consume) = fields;
            let config = GroupConfig { retry_queues, retry_max, may_consume };
            let (key, mut value) = encode(&name, &config);
            prop_assert_eq!(decode(&key, &value), Ok((name, config)));
            prop_assert!(decode(&key, &value[..value.len() - 1]).is_err());
            value[0] += 1;
            prop_assert!(decode(&key, &value).is_err(), "of another version");
        }
    }
}
