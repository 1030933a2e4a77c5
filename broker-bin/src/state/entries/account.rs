//! `account/<name>`: an account: its secret, and what it may do. `access/trusted`: from where nobody need sign.
//!
//! ```text
//! account:  version 1 | flags 1: bit 0 admin, 1 from the file | default topic 1 | default group 1 | secret 2 + n | addresses 2 + n |
//!           topic rules 2 of (name 2 + n | permission 1) | group rules, the same
//! trusted:  version 1 | count 2 of (addresses 2 + n)
//! ```
//! A permission: bit 0 publish, 1 subscribe. Who reads the log's files reads the secrets: signatures cannot be checked without them.

use super::{BadEntry, Fields, behind, name};
use crate::features::access::{Account, Addresses, Permission, Rules, Secret};

/// What the keys of accounts begin with.
pub const PREFIX: &[u8] = b"account/";
/// The key of the addresses that are trusted.
pub const TRUSTED: &[u8] = b"access/trusted";

const VERSION: u8 = 1;

/// Its key.
#[must_use]
pub fn encode_key(name: &str) -> Vec<u8> {
    [PREFIX, name.as_bytes()].concat()
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("bounded by what an account may be");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u16::try_from(count).expect("bounded by what an account may be").to_be_bytes());
}

fn bits(permission: Permission) -> u8 {
    u8::from(permission.publish) | u8::from(permission.subscribe) << 1
}

/// Key and value.
///
/// # Panics
/// For an account that [`Account::check`] refuses.
#[must_use]
pub fn encode(name: &str, account: &Account) -> (Vec<u8>, Vec<u8>) {
    let flags = u8::from(account.admin) | u8::from(account.from_file) << 1;
    let mut value = vec![VERSION, flags, bits(account.default_topic), bits(account.default_group)];
    put_text(&mut value, account.secret.text());
    put_text(&mut value, &account.addresses.as_ref().map(ToString::to_string).unwrap_or_default());
    for rules in [&account.topics, &account.groups] {
        put_count(&mut value, rules.len());
        for (name, permission) in rules {
            put_text(&mut value, name);
            value.push(bits(*permission));
        }
    }
    (encode_key(name), value)
}

/// The value for the addresses that are trusted.
///
/// # Panics
/// For more than 65 535 of them.
#[must_use]
pub fn encode_trusted(trusted: &[Addresses]) -> Vec<u8> {
    let mut value = vec![VERSION];
    put_count(&mut value, trusted.len());
    for addresses in trusted {
        put_text(&mut value, &addresses.to_string());
    }
    value
}

fn take_count(fields: &mut Fields<'_>) -> Result<usize, BadEntry> {
    Ok(usize::from(u16::from_be_bytes(fields.take()?)))
}

fn take_text<'a>(fields: &mut Fields<'a>) -> Result<&'a str, BadEntry> {
    let length = take_count(fields)?;
    std::str::from_utf8(fields.bytes(length)?).map_err(|_| BadEntry("a text in its value is none"))
}

fn take_addresses(text: &str) -> Result<Addresses, BadEntry> {
    text.parse().map_err(|_| BadEntry("its addresses are none that this version knows"))
}

fn take_permission(fields: &mut Fields<'_>) -> Result<Permission, BadEntry> {
    match fields.take()? {
        [bits @ 0..=3] => Ok(Permission { publish: bits & 1 != 0, subscribe: bits & 2 != 0 }),
        _ => Err(BadEntry("its permission is none that this version knows")),
    }
}

fn take_rules(fields: &mut Fields<'_>) -> Result<Rules, BadEntry> {
    let count = take_count(fields)?;
    (0..count).map(|_| Ok((take_text(fields)?.into(), take_permission(fields)?))).collect()
}

/// Reads an entry.
///
/// # Errors
/// When it is none, or one of another version.
pub fn decode(key: &[u8], value: &[u8]) -> Result<(Box<str>, Account), BadEntry> {
    let name = name(behind(PREFIX, key)?)?;
    let mut fields = Fields::of_version(VERSION, value)?;
    let [flags] = fields.take()?;
    if flags > 3 {
        return Err(BadEntry("its flags are none that this version knows"));
    }
    let (default_topic, default_group) = (take_permission(&mut fields)?, take_permission(&mut fields)?);
    let secret = Secret::new(take_text(&mut fields)?);
    let addresses = match take_text(&mut fields)? {
        "" => None,
        text => Some(take_addresses(text)?),
    };
    let (topics, groups) = (take_rules(&mut fields)?, take_rules(&mut fields)?);
    fields.end()?;
    let (admin, from_file) = (flags & 1 != 0, flags & 2 != 0);
    Ok((name, Account { secret, admin, from_file, addresses, default_topic, default_group, topics, groups }))
}

/// Reads the value of the addresses that are trusted.
///
/// # Errors
/// When it is none, or one of another version.
pub fn decode_trusted(value: &[u8]) -> Result<Vec<Addresses>, BadEntry> {
    let mut fields = Fields::of_version(VERSION, value)?;
    let count = take_count(&mut fields)?;
    let trusted = (0..count).map(|_| take_addresses(take_text(&mut fields)?)).collect::<Result<_, _>>()?;
    fields.end()?;
    Ok(trusted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::any_name;
    use super::*;

    fn permission(bits: u8) -> Permission {
        Permission { publish: bits & 1 != 0, subscribe: bits & 2 != 0 }
    }

    #[test]
    fn its_bytes_are_these() {
        let account = Account {
            admin: true,
            addresses: Some("10.*".parse().expect("good")),
            default_group: permission(2),
            topics: Rules::from([("T1".into(), permission(3))]),
            ..Account::new(Secret::new("12345678"))
        };
        let (key, value) = encode("a", &account);
        assert_eq!(key, b"account/a");
        assert_eq!(value, b"\x01\x01\0\x02\0\x0812345678\0\x0410.*\0\x01\0\x02T1\x03\0\0");
        assert_eq!(encode_trusted(&["*".parse().expect("good")]), b"\x01\0\x01\0\x01*");
    }

    proptest! {
        #[test]
        fn an_account_is_read_as_it_was_written(
            texts in (any_name(), "[ -~]{7,20}"),
            flags in any::<(bool, bool)>(),
            rules in prop::collection::btree_map(any_name(), 0..4u8, 0..4),
            bits in 0..4u8,
        ) {
            let rules: Rules = rules.into_iter().map(|(name, bits)| (name, permission(bits))).collect();
            let account = Account {
                secret: Secret::new(&texts.1),
                admin: flags.0,
                from_file: flags.1,
                addresses: flags.0.then(|| "10.0.0.{1,2}".parse().expect("good")),
                default_topic: permission(bits),
                default_group: permission(3 - bits),
                groups: rules.iter().take(1).map(|(name, permission)| (name.clone(), *permission)).collect(),
                topics: rules,
            };
            let (key, mut value) = encode(&texts.0, &account);
            prop_assert_eq!(decode(&key, &value), Ok((texts.0, account)));
            prop_assert!(decode(&key, &value[..value.len() - 1]).is_err());
            value[0] += 1;
            prop_assert!(decode(&key, &value).is_err(), "of another version");
        }

        #[test]
        fn any_value_is_read_or_refused(mut value in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(version) = value.first_mut() {
                *version %= 2;
            }
            if let Ok((name, account)) = decode(b"account/a", &value) {
                prop_assert_eq!(encode(&name, &account).1.len(), value.len());
            }
            if let Ok(trusted) = decode_trusted(&value) {
                prop_assert_eq!(encode_trusted(&trusted), value);
            }
        }
    }
}
