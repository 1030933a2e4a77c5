//! `group/<name>`: a consumer group's settings.
//!
//! ```text
//! value: version 1 | retry queues 4 | retry max 4 | may consume 1
//!        version 2 | the same | rules 1: bit 4 strict
//! ```
//! A group with the usual rules is written as version 1.

use super::{BadEntry, Fields, behind, name};
use crate::features::groups::GroupConfig;

/// What its keys begin with.
pub const PREFIX: &[u8] = b"group/";

const VERSION: u8 = 1;
const VERSION_RULES: u8 = 2;
const STRICT: u8 = 1 << 4;

/// Key and value.
#[must_use]
pub fn encode(name: &str, config: &GroupConfig) -> (Vec<u8>, Vec<u8>) {
    let rules = if config.strict { STRICT } else { 0 };
    let mut value = vec![if rules == 0 { VERSION } else { VERSION_RULES }];
    value.extend_from_slice(&config.retry_queues.to_be_bytes());
    value.extend_from_slice(&config.retry_max.to_be_bytes());
    value.push(u8::from(config.may_consume));
    if rules != 0 {
        value.push(rules);
    }
    ([PREFIX, name.as_bytes()].concat(), value)
}

/// Reads an entry.
///
/// # Errors
/// When it is none, or one of another version.
pub fn decode(key: &[u8], value: &[u8]) -> Result<(Box<str>, GroupConfig), BadEntry> {
    let name = name(behind(PREFIX, key)?)?;
    let with_rules = value.first() == Some(&VERSION_RULES);
    let mut fields = Fields::of_version(if with_rules { VERSION_RULES } else { VERSION }, value)?;
    let retry_queues = u32::from_be_bytes(fields.take()?);
    let retry_max = u32::from_be_bytes(fields.take()?);
    let may_consume = fields.take::<1>()? != [0];
    let [rules] = if with_rules { fields.take()? } else { [0] };
    if with_rules && rules != STRICT {
        return Err(BadEntry("its rules are none that this version knows"));
    }
    fields.end()?;
    Ok((name, GroupConfig { retry_queues, retry_max, may_consume, strict: with_rules }))
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
        let (_, value) = encode("g", &GroupConfig { strict: true, ..GroupConfig::default() });
        assert_eq!(value, [2, 0, 0, 0, 1, 0, 0, 0, 16, 1, 16]);
    }

    proptest! {
        #[test]
        fn a_group_is_read_as_it_was_written(name in any_name(), fields in any::<(u32, u32, bool, bool)>()) {
            let (retry_queues, retry_max, may_consume, strict) = fields;
            let config = GroupConfig { retry_queues, retry_max, may_consume, strict };
            let (key, mut value) = encode(&name, &config);
            prop_assert_eq!(decode(&key, &value), Ok((name, config)));
            prop_assert!(decode(&key, &value[..value.len() - 1]).is_err());
            value[0] += 2;
            prop_assert!(decode(&key, &value).is_err(), "of another version");
        }
    }
}
