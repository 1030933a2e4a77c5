//! What is known of a transaction.

use std::fmt;
use std::str::FromStr;

use anchorlog_engine::Epoch;

use crate::features::delay::DueKey;

/// Names a transaction. Every run of a log has an epoch of its own, so no two have the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId {
    /// The epoch of the run that made it.
    pub epoch: Epoch,
    /// How many entries that run had made before.
    pub count: u64,
}

/// What a producer decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its message is to be read.
    Commit,
    /// Nobody is to see it.
    Rollback,
}

/// The state of a transaction. While it is not decided, the entry refers to the half message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// Its producer, or another one of the group, is asked.
    Prepared {
        /// The producer group.
        group: Box<str>,
        /// When; none where an entry of its own says so, as before format 3.
        asks: Option<NextAsk>,
    },
    /// Nobody knew, and nobody is asked any more.
    Parked {
        /// The producer group.
        group: Box<str>,
    },
    /// It is decided.
    Decided {
        /// How.
        verdict: Verdict,
        /// When, in milliseconds since 1970.
        at_ms: u64,
    },
}

/// The next question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextAsk {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// How often somebody was asked before.
    pub checks: u32,
}

impl TransactionId {
    /// The name that goes with an entry of the same batch.
    #[must_use]
    pub fn of(key: &DueKey) -> TransactionId {
        TransactionId { epoch: key.epoch, count: key.count }
    }

    /// The key of its entry at a time; there is never more than one.
    #[must_use]
    pub fn due_at(&self, time_ms: u64) -> DueKey {
        DueKey { time_ms, epoch: self.epoch, count: self.count, is_long: false }
    }

    /// The bytes of its name.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.epoch.term.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.epoch.run.to_be_bytes());
        bytes[8..].copy_from_slice(&self.count.to_be_bytes());
        bytes
    }

    /// Reads them.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> TransactionId {
        let [term, run, high, low] = [0, 4, 8, 12].map(|at| {
            let word = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            u32::from_be_bytes(word)
        });
        TransactionId { epoch: Epoch { term, run }, count: u64::from(high) << 32 | u64::from(low) }
    }
}

/// Its name for people: `term.run.count`.
impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch.term, self.epoch.run, self.count)
    }
}

/// Text that names no transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a transaction's name")]
pub struct NotATransaction;

impl FromStr for TransactionId {
    type Err = NotATransaction;

    fn from_str(text: &str) -> Result<TransactionId, NotATransaction> {
        let mut parts = text.split('.');
        let mut next = || parts.next().and_then(|part| part.parse::<u64>().ok()).ok_or(NotATransaction);
        let (term, run, count) = (next()?, next()?, next()?);
        let small = |number: u64| u32::try_from(number).map_err(|_| NotATransaction);
        let epoch = Epoch { term: small(term)?, run: small(run)? };
        if parts.next().is_some() { Err(NotATransaction) } else { Ok(TransactionId { epoch, count }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transactions_name_is_read_as_it_was_written() {
        let id = TransactionId { epoch: Epoch { term: 7, run: 0 }, count: u64::MAX };
        assert_eq!(id.to_string(), format!("7.0.{}", u64::MAX));
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "1.2", "1.2.3.4", "1.2.x", "4294967296.0.1", "-1.0.0"] {
            assert_eq!(bad.parse::<TransactionId>(), Err(NotATransaction), "{bad}");
        }
    }
}
