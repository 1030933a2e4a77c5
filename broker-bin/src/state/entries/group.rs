//! `group/<name>`: a consumer group's settings.
//!
//! ```text
//! value: version 1 | retry queues 4 | retry max 4 | may consume 1
//!        version 2 | the same | rules 1: bit 0 may not broadcast, 1 not from the first, 2 ordered, 3 members are not told,
//!                                 4 strict
//! ```
//! A group with the usual rules is written as version 1.

use super::{BadEntry, Fields, behind, name};
use crate::features::groups::{GroupConfig, GroupRules};

/// What its keys begin with.
pub const PREFIX: &[u8] = b"group/";

const VERSION: u8 = 1;
const VERSION_RULES: u8 = 2;

/// Its key.
#[must_use]
pub fn encode_key(name: &str) -> Vec<u8> {
    [PREFIX, name.as_bytes()].concat()
}

/// Key and value.
#[must_use]
pub fn encode(name: &str, config: &GroupConfig) -> (Vec<u8>, Vec<u8>) {
    let rules = bits(&config.rules);
    let mut value = vec![if rules == 0 { VERSION } else { VERSION_RULES }];
    value.extend_from_slice(&config.retry_queues.to_be_bytes());
    value.extend_from_slice(&config.retry_max.to_be_bytes());
    value.push(u8::from(config.may_consume));
    if rules != 0 {
        value.push(rules);
    }
    (encode_key(name), value)
}

/// A bit for each rule that is not the usual one.
fn bits(rules: &GroupRules) -> u8 {
    let unusual = [!rules.may_broadcast, !rules.from_min, rules.ordered, !rules.tell_members, rules.strict];
    unusual.into_iter().rev().fold(0, |bits, bit| bits << 1 | u8::from(bit))
}

fn rules(bits: u8) -> Result<GroupRules, BadEntry> {
    let is = |bit: u8| bits >> bit & 1 == 1;
    if bits == 0 || bits > 0x1F {
        return Err(BadEntry("its rules are none that this version knows"));
    }
    Ok(GroupRules { may_broadcast: !is(0), from_min: !is(1), ordered: is(2), tell_members: !is(3), strict: is(4) })
}

/// Reads an entry.
///
/// # Errors
/// When it is none, or one of another version.
pub fn decode(key: &[u8], value: &[u8]) -> Result<(Box<str>, GroupConfig), BadEntry> {
    let name = name(behind(PREFIX, key)?)?;
    let with_rules = value.first() == Some(&VERSION_RULES);
    let mut fields = Fields::of_version(if with_rules { VERSION_RULES } else { VERSION }, value)?;
    let config = GroupConfig {
        retry_queues: u32::from_be_bytes(fields.take()?),
        retry_max: u32::from_be_bytes(fields.take()?),
        may_consume: fields.take::<1>()? != [0],
        rules: if with_rules { rules(u8::from_be_bytes(fields.take()?))? } else { GroupRules::default() },
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
        let rules = GroupRules { may_broadcast: false, tell_members: false, ..GroupRules::default() };
        let (_, value) = encode("g", &GroupConfig { rules, ..GroupConfig::default() });
        assert_eq!(value, [2, 0, 0, 0, 1, 0, 0, 0, 16, 1, 0b1001]);
        let rules = GroupRules { strict: true, ..GroupRules::default() };
        let (_, value) = encode("g", &GroupConfig { rules, ..GroupConfig::default() });
        assert_eq!(value, [2, 0, 0, 0, 1, 0, 0, 0, 16, 1, 16]);
    }

    proptest! {
        #[test]
        fn a_group_is_read_as_it_was_written(name in any_name(), fields in any::<(u32, u32, bool)>(), bits in 0..32u8) {
            let (retry_queues, retry_max, may_consume) = fields;
            let rules = if bits == 0 { GroupRules::default() } else { rules(bits).expect("known") };
            let config = GroupConfig { retry_queues, retry_max, may_consume, rules };
            let (key, mut value) = encode(&name, &config);
            prop_assert_eq!(decode(&key, &value), Ok((name, config)));
            prop_assert!(decode(&key, &value[..value.len() - 1]).is_err());
            value[0] += 2;
            prop_assert!(decode(&key, &value).is_err(), "of another version");
        }
    }
}
