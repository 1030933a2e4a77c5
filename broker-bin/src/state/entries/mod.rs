//! Every kind of table entry that the broker writes: its key and its value as bytes, one file for each kind.
//!
//! | key | value | file |
//! |---|---|---|
//! | `meta/format` | version of all this: u32 | [`mod@format`] |
//! | `topic/` name | a topic's settings | [`topic`] |
//! | `group/` name | a group's settings | [`group`] |
//! | `account/` name | an account: its secret and its rules | [`account`] |
//! | `access/trusted` | addresses from which nobody need sign | [`account`] |
//! | `offset/` group, 0, topic, 0, queue u32 | a committed offset | [`offset`] |
//! | `lock/` group, 0, topic, 0, queue u32 | for which client a queue is locked | [`lock`] |
//! | `due/` time u64, what tells entries of one time apart | what is to be done with a message at a time | [`due`] |
//! | `txn/` what tells transactions apart | a transaction, until it is forgotten | [`transaction`] |
//! | `parked/` key of an entry | an entry that could not be done, and why | [`parked`] |
//! | `replayed/` topic, 0, queue u32, offset u64 | a dead letter that was returned | [`replayed`] |
//! | `republished/` group, 0, topic, 0, other topic, 0, queue u32 | how much of a queue stands in another topic | [`republished`] |
//! | `neighbours/` topic | who else has queues of a topic, as name servers told last | [`neighbours`] |
//!
//! All integers are big-endian, so that keys sort as what they name. Values begin with a version byte. What stands here is on disks: a kind
//! never changes its prefix, a value never changes its meaning without a new version byte, and what older brokers must not overlook
//! raises [`format::KNOWN`].

pub mod account;
pub mod due;
pub mod format;
pub mod group;
pub mod lock;
pub mod neighbours;
pub mod number;
pub mod offset;
pub mod parked;
pub mod replayed;
pub mod republished;
pub mod topic;
pub mod transaction;

/// An entry that this version cannot understand.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadEntry(pub &'static str);

/// The end of the keys that begin with `prefix`, which ends in a slash.
#[must_use]
pub fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// The rest of a key behind its kind's prefix.
fn behind<'a>(prefix: &[u8], key: &'a [u8]) -> Result<&'a [u8], BadEntry> {
    key.strip_prefix(prefix).ok_or(BadEntry("its key is of another kind"))
}

fn name(bytes: &[u8]) -> Result<Box<str>, BadEntry> {
    match std::str::from_utf8(bytes) {
        Ok(name) if !name.contains('\0') => Ok(name.into()),
        _ => Err(BadEntry("a name in its key is no name")),
    }
}

/// A value's fields, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The fields behind the version, which must be this one.
    fn of_version(version: u8, value: &'a [u8]) -> Result<Fields<'a>, BadEntry> {
        match value.split_first() {
            Some((found, fields)) if *found == version => Ok(Fields(fields)),
            Some(_) => Err(BadEntry("its value is of another version")),
            None => Err(BadEntry("its value is empty")),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadEntry> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(BadEntry("its value is cut short"))?;
        self.0 = rest;
        Ok(*field)
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], BadEntry> {
        let (field, rest) = self.0.split_at_checked(count).ok_or(BadEntry("its value is cut short"))?;
        self.0 = rest;
        Ok(field)
    }

    /// A number in as few bytes as it needed.
    fn number<T: TryFrom<u64>>(&mut self) -> Result<T, BadEntry> {
        let number = number::take(&mut self.0).ok_or(BadEntry("its value is cut short"))?;
        T::try_from(number).map_err(|_| BadEntry("its value has a number that is too large"))
    }

    fn end(self) -> Result<(), BadEntry> {
        if self.0.is_empty() { Ok(()) } else { Err(BadEntry("its value is too long")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Names may hold anything but a zero byte; slashes are the interesting part.
    pub(super) fn any_name() -> impl Strategy<Value = Box<str>> {
        "[a-z/é\u{1}-]{1,12}".prop_map(Box::<str>::from)
    }

    #[test]
    fn kinds_do_not_reach_into_each_other() {
        let singles = [topic::PREFIX, group::PREFIX, account::PREFIX, parked::PREFIX, replayed::PREFIX];
        let singles = singles.into_iter().chain([neighbours::PREFIX, republished::PREFIX]);
        let prefixes = [offset::PREFIX, lock::PREFIX, due::PREFIX, transaction::PREFIX].into_iter().chain(singles);
        let prefixes: Vec<_> = prefixes.collect();
        for &prefix in &prefixes {
            assert!(prefix.ends_with(b"/") && end_of(prefix) > [prefix, &[0xFF; 8]].concat());
            let others = prefixes.iter().filter(|other| **other != prefix);
            assert!(
                others.chain([&format::KEY, &account::TRUSTED]).all(|other| !(prefix..&end_of(prefix)).contains(other))
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            key in prop::collection::vec(any::<u8>(), 0..30),
            mut value in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            if let Some(version) = value.first_mut() {
                *version %= 2;
            }
            for prefix in [topic::PREFIX, group::PREFIX, offset::PREFIX, lock::PREFIX] {
                let key = [prefix, &key].concat();
                // Whatever is read is written back as it was.
                if let Ok((name, config)) = topic::decode(&key, &value) {
                    prop_assert_eq!(topic::encode(&name, &config).0, key.clone());
                }
                if let Ok((name, config)) = group::decode(&key, &value) {
                    prop_assert_eq!(group::encode(&name, &config).0, key.clone());
                }
                if let Ok((named, offset)) = offset::decode(&key, &value) {
                    prop_assert_eq!(offset::encode(&named, offset), (key.clone(), value.clone()));
                }
                if let Ok((named, lock)) = lock::decode(&key, &value) {
                    prop_assert_eq!(lock::encode(&named, &lock), (key, value.clone()));
                }
            }
            prop_assert_eq!(format::decode(&value).is_ok(), value.len() == 4);
        }
    }
}
