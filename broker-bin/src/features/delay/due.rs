//! What is to be done with a message at a time.

use std::fmt;
use std::str::FromStr;

use anchorlog_engine::Epoch;

use crate::features::transactions::TransactionId;

/// Names an entry: its time first, so that entries sort as they fall due. What stands behind it is never used twice: every run of a log
/// has an epoch of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DueKey {
    /// When it is due, in milliseconds since 1970.
    pub time_ms: u64,
    /// The epoch of the run that made it.
    pub epoch: Epoch,
    /// How many that run had made before.
    pub count: u64,
    /// Its key in the table has the form that brokers wrote before format 3.
    pub is_long: bool,
}

/// Its name for people: `time.term.run.count`, with `.long` behind it where its key has the older form.
impl fmt::Display for DueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}{}", self.time_ms, TransactionId::of(self), if self.is_long { LONG } else { "" })
    }
}

const LONG: &str = ".long";

/// Text that names no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of something due")]
pub struct NotDue;

impl FromStr for DueKey {
    type Err = NotDue;

    fn from_str(text: &str) -> Result<DueKey, NotDue> {
        let (time, rest) = text.split_once('.').ok_or(NotDue)?;
        let short = rest.strip_suffix(LONG);
        let id: TransactionId = short.unwrap_or(rest).parse().map_err(|_| NotDue)?;
        let key = id.due_at(time.parse().map_err(|_| NotDue)?);
        Ok(DueKey { is_long: short.is_some(), ..key })
    }
}

/// Where a message goes, and what its link there says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The topic.
    pub topic: Box<str>,
    /// The queue's number in it.
    pub queue: u32,
    /// The tag's hash.
    pub tag: u32,
    /// Keys that it will be found by.
    pub keys: Vec<Box<[u8]>>,
    /// The attributes of its record.
    pub attributes: Vec<u8>,
}

/// What is to be done with the message that an entry refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// It is put into a queue.
    Deliver {
        /// Bytes of the message's record.
        record_bytes: u32,
        /// Its reader is told when it left the timer.
        timed: bool,
        /// Where it goes.
        place: Place,
    },
    /// A producer is asked what became of its transaction.
    Ask {
        /// The transaction; its name stands in the entry's key, too.
        id: TransactionId,
        /// How often somebody was asked before.
        checks: u32,
    },
    /// What became of a transaction is forgotten.
    Forget {
        /// The transaction.
        id: TransactionId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entrys_name_is_read_as_it_was_written() {
        let key = DueKey { time_ms: 1_700_000_000_000, epoch: Epoch { term: 1, run: 2 }, count: 3, is_long: false };
        let long = DueKey { is_long: true, ..key };
        assert_eq!(
            (key.to_string(), long.to_string()),
            ("1700000000000.1.2.3".into(), "1700000000000.1.2.3.long".into())
        );
        assert_eq!((key.to_string().parse(), long.to_string().parse()), (Ok(key), Ok(long)));
        for bad in ["", "1", "1.2.3", "x.1.2.3", "1.2.3.4.5", "1.2.3.long"] {
            assert_eq!(bad.parse::<DueKey>(), Err(NotDue), "{bad}");
        }
    }
}
