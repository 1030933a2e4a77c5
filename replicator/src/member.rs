//! Who takes part in replication.
//!
//! The members stand in the log itself, in one table entry, so that whoever is promoted knows whom to ask.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use anchorlog_engine::error::Found;
use anchorlog_engine::{AppendError, Engine, Lsn, Put, ReadError, Rejection, WriteBatch};

use crate::guarantee::Guarantee;
use crate::leader::LeadError;

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

/// Most members of one log.
pub const MEMBERS_MAX: usize = 32;
/// The table entry that names them all: one line each, id and address.
const KEY: &[u8] = b"replica/members";

/// Begins the keys of all table entries that are the replicator's own.
pub const NAMESPACE: &[u8] = b"replica/";

fn encode(members: &[Member]) -> Vec<u8> {
    let mut sorted: Vec<&Member> = members.iter().collect();
    sorted.sort();
    sorted.iter().flat_map(|member| format!("{} {}\n", member.id, member.address).into_bytes()).collect()
}

fn decode(value: &[u8]) -> Vec<Member> {
    let text = String::from_utf8_lossy(value);
    let members = text.lines().filter_map(|line| {
        let (id, address) = line.split_once(' ')?;
        Some(Member { id: id.parse().ok()?, address: address.to_owned() })
    });
    members.collect()
}

/// The members that the log names, as far as it is acknowledged; in the order of their ids.
///
/// # Errors
/// When the table cannot be read.
pub fn read(engine: &Engine) -> Result<Vec<Member>, ReadError> {
    Ok(engine.get(KEY)?.map(|entry| decode(&entry.value)).unwrap_or_default())
}

/// Every set of members that may have the votes: the one that the log names as far as it is acknowledged, and those that it names behind
/// that, of which nobody here knows whether they are. None where it names no members.
///
/// # Errors
/// When the log or the table cannot be read.
pub fn possible(engine: &Engine) -> Result<Vec<Vec<Member>>, ReadError> {
    // What becomes known meanwhile is in both, rather than in neither.
    let behind = engine.puts_behind(KEY)?;
    let known = engine.get(KEY)?.map(|entry| decode(&entry.value));
    let mut sets: Vec<Vec<Member>> = known.into_iter().chain(behind.iter().map(|value| decode(value))).collect();
    sets.dedup();
    Ok(sets)
}

/// What became of [`enroll`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Enrolled {
    /// Who has the votes now.
    pub(crate) voters: Vec<Member>,
    /// Who has them once the log is acknowledged up to there.
    pub(crate) next: Option<(Lsn, Vec<Member>)>,
}

/// Writes the members into the log, where it does not name them yet; where it never did, together with what is guaranteed.
///
/// The table as it will be is asked by preconditions: what readers see may be behind it, and whoever was made a member there may have
/// acknowledged something already.
pub(crate) fn enroll(engine: &Engine, wanted: &[Member], guarantee: Guarantee) -> Result<Enrolled, LeadError> {
    let bad = wanted
        .iter()
        .any(|member| member.address.len() > Member::ADDRESS_LEN_MAX || member.address.contains(char::is_whitespace));
    if bad || wanted.len() > MEMBERS_MAX {
        return Err(LeadError::Members);
    }
    let value = encode(wanted);
    let put = |batch: &mut WriteBatch| batch.put(&Put { key: KEY, value: &value, target: None }).map(drop);
    let mut first = WriteBatch::new();
    first.set_essential(true);
    guarantee.put(&mut first)?;
    first.require_absent(KEY)?;
    put(&mut first)?;
    let (head, rests_on) = match engine.try_append(&mut first) {
        // Nobody was a member before: nobody else would be asked.
        Ok(_) => return Ok(Enrolled { voters: wanted.to_vec(), next: None }),
        Err(AppendError::Rejected(Rejection { found: Found::Value(head), rests_on, .. })) => (head, rests_on),
        Err(error) => {
            // Without room nothing is judged; where the log says already what it should, there is nothing to write.
            let known = read(engine)?;
            let is_known = !known.is_empty() && encode(&known) == value;
            return if is_known { Ok(Enrolled { voters: known, next: None }) } else { Err(error.into()) };
        }
    };
    let visible = engine.get(KEY)?.map(|entry| entry.value);
    if visible.as_ref().is_some_and(|visible| **visible != *head) {
        if *head != *value {
            tracing::warn!("a change of members is not acknowledged yet: the next one waits for the next opening");
        }
        let voters = visible.map(|visible| decode(&visible)).unwrap_or_default();
        return Ok(Enrolled { voters, next: Some((rests_on, decode(&head))) });
    }
    let voters = decode(&head);
    if *head == *value {
        return Ok(Enrolled { voters, next: None });
    }
    let mut change = WriteBatch::new();
    change.set_essential(true);
    change.require_value(KEY, &head)?;
    put(&mut change)?;
    let end = engine.try_append(&mut change)?.outcome().end_lsn;
    Ok(Enrolled { voters, next: Some((end, wanted.to_vec())) })
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

    #[test]
    fn members_are_one_line_each() {
        let member = |id: &str| Member { id: id.parse().unwrap(), address: format!("{id}.example:10912") };
        let value = encode(&[member("b"), member("a")]);
        assert_eq!(value, b"a a.example:10912\nb b.example:10912\n");
        assert_eq!(decode(&value), [member("a"), member("b")]);
        assert_eq!(decode(b"\xff\n?? x\n"), []);
    }
}
