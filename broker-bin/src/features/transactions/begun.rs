//! Transactions that were begun lately, as all that a verdict needs of them: most verdicts follow at once, and need not read the log.
//!
//! 1. The log and the table are the truth: what is here is what this broker put there. A verdict requires the entry as it was put; once
//!    anybody was asked, or anything was decided, nothing of it is here any more.
//! 2. Bounded: the oldest are forgotten first, and read from the log when their verdict comes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use anchorlog_engine::{BatchError, Link, Lsn, Put, QueueOffset, WriteBatch};

use super::transaction::{Transaction, TransactionId, Verdict};
use crate::features::delay::DueKey;
use crate::features::send::stored;
use crate::limits;
use crate::lock::lock;
use crate::shared::Shared;
use crate::state::entries;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its offset in the queue of half messages, once it has its place.
    pub(super) queue_offset: QueueOffset,
    /// Its name, and when it is asked about.
    pub(super) asks: DueKey,
    /// What its entry says.
    pub(super) prepared: Vec<u8>,
    /// Bytes of the message's record.
    pub(super) record_bytes: u32,
    /// The queue's number in the topic that the message is meant for.
    pub(super) queue: u32,
    /// The tag's hash.
    pub(super) tag: u32,
    /// The producer's flags.
    pub(super) sys_flag: i32,
    /// Its names.
    pub(super) names: Names,
}

/// The producer group, the topic, the producer's id of the message and its other keys, separated by blanks: one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    all: Box<str>,
    /// Where each but the first begins.
    begins: [usize; 3],
}

impl Names {
    pub(super) fn new(group: &str, topic: &str, unique_key: &str, keys: &str) -> Names {
        let begins = [group.len(), group.len() + topic.len(), group.len() + topic.len() + unique_key.len()];
        Names { all: [group, topic, unique_key, keys].concat().into(), begins }
    }

    fn part(&self, part: Range<usize>) -> &str {
        self.all.get(part).unwrap_or_default()
    }

    pub(super) fn group(&self) -> &str {
        self.part(0..self.begins[0])
    }

    fn topic(&self) -> &str {
        self.part(self.begins[0]..self.begins[1])
    }

    pub(super) fn unique_key(&self) -> &str {
        self.part(self.begins[1]..self.begins[2])
    }

    /// What the message is found by.
    fn keys(&self) -> impl Iterator<Item = &str> + Clone {
        let others = self.part(self.begins[2]..self.all.len()).split(' ');
        std::iter::once(self.unique_key()).chain(others).filter(|key| !key.is_empty())
    }
}

impl Begun {
    /// By when it is asked about.
    #[must_use]
    pub fn asks(&self) -> DueKey {
        self.asks
    }

    /// The half message has its place.
    pub fn placed(&mut self, queue_offset: QueueOffset) {
        self.queue_offset = queue_offset;
    }

    /// Fills a batch with a verdict on the half message at `lsn`.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn decide(
        &self,
        shared: &Shared,
        lsn: Lsn,
        verdict: Verdict,
        at_ms: u64,
        batch: &mut WriteBatch,
    ) -> Result<(), String> {
        if verdict == Verdict::Commit {
            self.link(shared, lsn, batch)?;
        }
        let key = entries::transaction::encode_key(&TransactionId::of(&self.asks));
        let decided = entries::transaction::encode(&Transaction::Decided { verdict, at_ms });
        let mut decide = || {
            batch.require_value(&key, &self.prepared)?;
            batch.put(&Put { key: &key, value: &decided, target: None })
        };
        decide().map(drop).map_err(|error: BatchError| error.to_string())
    }

    fn link(&self, shared: &Shared, lsn: Lsn, batch: &mut WriteBatch) -> Result<(), String> {
        let queue = super::handler::queue_of(shared, self.names.topic(), self.queue, |queue, _| {
            let mut few = [&b""[..]; 8];
            let words = self.names.keys().map(str::as_bytes);
            let many: Vec<&[u8]>;
            let count = words.clone().count();
            let keys = if count <= few.len() {
                few.iter_mut().zip(words).for_each(|(slot, key)| *slot = key);
                &few[..count]
            } else {
                many = words.collect();
                &many
            };
            let target = shared.engine.reference_to(lsn, self.record_bytes).into();
            let attributes = stored::as_committed(self.sys_flag, lsn);
            batch.link(&Link { queue, target, tag: self.tag, keys, attributes: &attributes }).map(drop)
        })?;
        queue.map_err(|error| error.to_string())
    }
}

/// All that were begun lately, by the places of their messages. Shared by every network thread and the timer.
#[derive(Debug, Default)]
pub struct Recent(Mutex<BTreeMap<Lsn, Box<Begun>>>);

impl Recent {
    /// Half messages have their places.
    pub fn begun(&self, begun: impl IntoIterator<Item = (Lsn, Box<Begun>)>) {
        let mut recent = lock(&self.0);
        recent.extend(begun);
        while recent.len() > limits::BEGUN_MAX {
            recent.pop_first();
        }
    }

    /// Takes one out, if it is the one that is meant.
    #[must_use]
    pub fn take(&self, lsn: Lsn, is_meant: impl FnOnce(&Begun) -> bool) -> Option<Box<Begun>> {
        let mut recent = lock(&self.0);
        recent.get(&lsn).is_some_and(|begun| is_meant(begun)).then(|| recent.remove(&lsn)).flatten()
    }
}
