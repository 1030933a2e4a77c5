//! Who takes part in replication.
//!
//! The members stand in the log itself, one table entry each, so that whoever is promoted knows whom to ask.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use anchorlog_engine::{BatchError, Engine, Put, ReadError, WriteBatch};

/// The name of a replica, chosen once and kept for ever: 1 to [`ReplicaId::LEN_MAX`] letters, digits, `-`, `_` and `.`.
///
/// One id has one vote. Two machines must never have the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(Arc<str>);

impl ReplicaId {
    /// The longest name, in bytes.
    pub const LEN_MAX: usize = 32;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no [`ReplicaId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no replica id: 1 to 32 letters, digits, '-', '_' and '.' are")]
pub struct BadReplicaId(String);

impl FromStr for ReplicaId {
    type Err = BadReplicaId;

    fn from_str(text: &str) -> Result<ReplicaId, BadReplicaId> {
        let fits = (1..=ReplicaId::LEN_MAX).contains(&text.len());
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if fits && plain { Ok(ReplicaId(text.into())) } else { Err(BadReplicaId(text.chars().take(64).collect())) }
    }
}

/// A replica and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its name.
    pub id: ReplicaId,
    /// Host and port of its replication listener, as it was configured; at most [`Member::ADDRESS_LEN_MAX`] bytes.
    pub address: String,
}

impl Member {
    /// The longest address, in bytes.
    pub const ADDRESS_LEN_MAX: usize = 255;
}

/// Table keys of members begin with this; the id follows, the value is the address.
pub const KEY_PREFIX: &[u8] = b"replica/member/";
/// Behind every key of a member.
const KEY_PREFIX_END: &[u8] = b"replica/member0";

fn key(id: &ReplicaId) -> Vec<u8> {
    [KEY_PREFIX, id.as_str().as_bytes()].concat()
}

/// The members that the log names, as far as it is acknowledged; in the order of their ids.
///
/// # Errors
/// When the table cannot be read.
pub fn read(engine: &Engine) -> Result<Vec<Member>, ReadError> {
    let entries = engine.snapshot().range(KEY_PREFIX, Some(KEY_PREFIX_END), usize::MAX)?;
    let members = entries.into_iter().filter_map(|(key, entry)| {
        let id = std::str::from_utf8(key.strip_prefix(KEY_PREFIX)?).ok()?.parse().ok()?;
        let address = std::str::from_utf8(&entry.value).ok()?.to_owned();
        Some(Member { id, address })
    });
    Ok(members.collect())
}

/// Makes somebody a member, or changes where it is reached.
///
/// # Errors
/// When the batch has no room for it.
pub fn put(batch: &mut WriteBatch, member: &Member) -> Result<(), BatchError> {
    let entry = Put { key: &key(&member.id), value: member.address.as_bytes(), target: None };
    batch.put(&entry).map(drop)
}

/// Ends a membership.
///
/// # Errors
/// When the batch has no room for it.
pub fn delete(batch: &mut WriteBatch, id: &ReplicaId) -> Result<(), BatchError> {
    batch.delete(&key(id)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_plain() {
        for good in ["a", "broker-1", "10.0.0.7_b", "x".repeat(32).as_str()] {
            assert_eq!(good.parse::<ReplicaId>().unwrap().as_str(), good);
        }
        for bad in ["", "two words", "ü", "a/b", "x".repeat(33).as_str()] {
            assert!(bad.parse::<ReplicaId>().is_err(), "{bad:?} passes");
        }
    }
}
