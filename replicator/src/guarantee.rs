//! What acknowledgements stand for, as the log says it: whoever is promoted must know what its leader promised, whatever it was told.
//!
//! It stands in one table entry beside the members, and changes as they do: while a change is not acknowledged by all that either asks for,
//! what was guaranteed before holds as well.

use std::fmt;

use anchorlog_engine::error::Found;
use anchorlog_engine::{AppendError, BatchError, Engine, Flush, Lsn, Put, ReadError, Rejection, WriteBatch};

use crate::leader::LeadError;
use crate::policy::{OnMissing, Policy};

/// The table entry; see `replicator/docs/protocol.md`.
const KEY: &[u8] = b"replica/guarantee";

/// What an acknowledgement stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarantee {
    /// The followers' part.
    pub policy: Policy,
    /// The leader's: whether what it acknowledges is on its own disk by then.
    pub is_flushed: bool,
}

impl Guarantee {
    /// Nothing beyond the leader's memory: also what an entry stands for that cannot be understood.
    pub const NOTHING: Guarantee = Guarantee { policy: Policy::Async, is_flushed: false };

    /// By what a leader was told.
    #[must_use]
    pub const fn new(policy: Policy, flush: Flush) -> Guarantee {
        Guarantee { policy, is_flushed: matches!(flush, Flush::Sync) }
    }

    fn encode(self) -> Vec<u8> {
        format!("{self}\n").into_bytes()
    }

    fn decode(value: &[u8]) -> Guarantee {
        let understood = std::str::from_utf8(value).ok().and_then(|text| {
            let words: Vec<&str> = text.split_ascii_whitespace().collect();
            let (policy, flush) = match words[..] {
                ["replication=async", flush] => (Policy::Async, flush),
                ["replication=sync", copies, on_missing, flush] => {
                    let copies = copies.strip_prefix("copies=")?.parse().ok().filter(|copies| *copies >= 2)?;
                    let on_missing = match on_missing {
                        "on-missing=refuse" => OnMissing::Refuse,
                        "on-missing=degrade" => OnMissing::Degrade,
                        _ => return None,
                    };
                    (Policy::Sync { copies, on_missing }, flush)
                }
                _ => return None,
            };
            let is_flushed = match flush {
                "flush=sync" => true,
                "flush=async" => false,
                _ => return None,
            };
            Some(Guarantee { policy, is_flushed })
        });
        understood.unwrap_or_else(|| {
            tracing::error!("what the log says of acknowledgements is not understood: nothing is taken for granted");
            Guarantee::NOTHING
        })
    }

    /// Adds it to a batch.
    pub(crate) fn put(self, batch: &mut WriteBatch) -> Result<(), BatchError> {
        batch.put(&Put { key: KEY, value: &self.encode(), target: None }).map(drop)
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.policy {
            Policy::Async => f.write_str("replication=async")?,
            Policy::Sync { copies, on_missing } => {
                let on_missing = match on_missing {
                    OnMissing::Refuse => "refuse",
                    OnMissing::Degrade => "degrade",
                };
                write!(f, "replication=sync copies={copies} on-missing={on_missing}")?;
            }
        }
        f.write_str(if self.is_flushed { " flush=sync" } else { " flush=async" })
    }
}

/// All that may hold: what the log says as far as it is acknowledged, and what it says behind that, of which nobody here knows whether it
/// is. None where it says nothing.
///
/// # Errors
/// When the log or the table cannot be read.
pub fn possible(engine: &Engine) -> Result<Vec<Guarantee>, ReadError> {
    // What becomes known meanwhile is in both, rather than in neither.
    let behind = engine.puts_behind(KEY)?;
    let known = engine.get(KEY)?.map(|entry| Guarantee::decode(&entry.value));
    let mut all: Vec<Guarantee> =
        known.into_iter().chain(behind.iter().map(|value| Guarantee::decode(value))).collect();
    all.dedup();
    Ok(all)
}

/// A guarantee that takes the place of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Changing {
    /// Once the log is acknowledged up to there, by all that any of them asks for.
    pub(crate) end: Lsn,
    /// What may have held so far.
    pub(crate) before: Vec<Guarantee>,
}

/// Writes what this leader guarantees into the log, where it does not say so yet. None where nothing else held before.
pub(crate) fn enroll(engine: &Engine, own: Guarantee) -> Result<Option<Changing>, LeadError> {
    let before = possible(engine)?;
    let mut first = WriteBatch::new();
    first.set_essential(true);
    first.require_absent(KEY)?;
    own.put(&mut first)?;
    let (head, rests_on) = match engine.try_append(&mut first) {
        // An older log: what it was written under nobody knows.
        Ok(_) => return Ok(None),
        Err(AppendError::Rejected(Rejection { found: Found::Value(head), rests_on, .. })) => (head, rests_on),
        // Without room nothing is judged; where the log says already what it should, there is nothing to write.
        Err(error) => return if before == [own] { Ok(None) } else { Err(error.into()) },
    };
    if Guarantee::decode(&head) == own {
        return Ok((before != [own]).then_some(Changing { end: rests_on, before }));
    }
    let mut change = WriteBatch::new();
    change.set_essential(true);
    change.require_value(KEY, &head)?;
    own.put(&mut change)?;
    let end = engine.try_append(&mut change)?.outcome().end_lsn;
    Ok(Some(Changing { end, before }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guarantee_is_one_line() {
        let sync = |copies, on_missing| Policy::Sync { copies, on_missing };
        for (policy, is_flushed, line) in [
            (Policy::Async, true, "replication=async flush=sync\n"),
            (sync(2, OnMissing::Refuse), true, "replication=sync copies=2 on-missing=refuse flush=sync\n"),
            (sync(3, OnMissing::Degrade), false, "replication=sync copies=3 on-missing=degrade flush=async\n"),
        ] {
            let guarantee = Guarantee { policy, is_flushed };
            assert_eq!(guarantee.encode(), line.as_bytes());
            assert_eq!(Guarantee::decode(line.as_bytes()), guarantee);
        }
    }

    #[test]
    fn what_is_not_understood_guarantees_nothing() {
        for line in [
            "",
            "replication=sync flush=sync",
            "replication=sync copies=1 on-missing=refuse flush=sync",
            "replication=sync copies=2 on-missing=later flush=sync",
            "replication=sync copies=2 on-missing=refuse flush=sync region=two",
            "replication=async flush=never",
        ] {
            assert_eq!(Guarantee::decode(line.as_bytes()), Guarantee::NOTHING, "{line:?}");
        }
        assert_eq!(Guarantee::decode(b"\xff"), Guarantee::NOTHING);
    }
}
