//! What is due soon: keys in memory, of entries that stand in the table.
//!
//! 1. Every entry that has a place in the log and is due before the horizon has its key here. Nothing else says that it is due.
//! 2. The horizon moves first and is read behind: an entry that gets its place meanwhile comes by either way, or by both.
//! 3. So many keys as `limits::DUE_KEYS_MAX` are held: with more, the horizon moves back, and the table is read again later.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use anchorlog_engine::{AppendError, Engine, Epoch, Lsn, Queue};

use super::due::DueKey;
use super::schedule::HIDDEN_QUEUE;
use crate::limits;
use crate::lock::lock;

#[derive(Debug, Default)]
struct Near {
    /// With the end of the frame that brought them; zero for what was read.
    keys: BTreeMap<DueKey, Lsn>,
    /// Entries of this time and later are not here, or not all of them.
    horizon_ms: u64,
}

/// The keys of what is due soon. Shared by every network thread and the timer.
#[derive(Debug)]
pub struct DueIndex {
    epoch: Epoch,
    next: AtomicU64,
    hidden: OnceLock<Queue>,
    near: Mutex<Near>,
}

impl DueIndex {
    /// An index that knows nothing yet: its horizon is the beginning of time.
    #[must_use]
    pub fn new(epoch: Epoch) -> DueIndex {
        DueIndex { epoch, next: AtomicU64::new(0), hidden: OnceLock::new(), near: Mutex::default() }
    }

    /// A key that no other entry has.
    #[must_use]
    pub fn next_key(&self, time_ms: u64) -> DueKey {
        DueKey { time_ms, epoch: self.epoch, count: self.next.fetch_add(1, Ordering::Relaxed), is_long: false }
    }

    /// Where messages lie until they are delivered.
    ///
    /// # Errors
    /// When the engine holds no more queues.
    pub fn hidden(&self, engine: &Engine) -> Result<&Queue, AppendError> {
        if let Some(queue) = self.hidden.get() {
            return Ok(queue);
        }
        let queue = engine.queue(HIDDEN_QUEUE)?;
        Ok(self.hidden.get_or_init(|| queue))
    }

    /// The entries' batches have places in the log, which end there.
    pub fn assigned(&self, keys: impl IntoIterator<Item = (DueKey, Lsn)>) {
        let mut near = lock(&self.near);
        keys.into_iter().for_each(|(key, end_lsn)| near.insert(key, end_lsn));
    }

    /// Up to where everything is known.
    #[must_use]
    pub fn horizon_ms(&self) -> u64 {
        lock(&self.near).horizon_ms
    }

    /// How many keys are held.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.near).keys.len()
    }

    /// When the first one is due.
    #[must_use]
    pub fn first_ms(&self) -> Option<u64> {
        lock(&self.near).keys.first_key_value().map(|(key, _)| key.time_ms)
    }

    /// How many should be done by now and are not.
    #[must_use]
    pub fn overdue(&self, now_ms: u64) -> usize {
        lock(&self.near).keys.keys().take_while(|key| key.time_ms <= now_ms).count()
    }

    /// Moves the horizon. Whoever does it reads the table from the old horizon to the new one, not before all that had a place in the log
    /// by now is in it.
    pub(super) fn extend(&self, to_ms: u64) {
        let mut near = lock(&self.near);
        near.horizon_ms = near.horizon_ms.max(to_ms);
    }

    /// Takes keys that were read; false when there was no room for all, and the horizon moved back.
    pub(super) fn loaded(&self, keys: impl IntoIterator<Item = DueKey>) -> bool {
        let mut near = lock(&self.near);
        let before = near.horizon_ms;
        for key in keys {
            if key.time_ms < near.horizon_ms && !near.keys.contains_key(&key) {
                near.insert(key, Lsn::ZERO);
            }
        }
        near.horizon_ms == before
    }

    /// The first ones that are due.
    pub(super) fn due(&self, now_ms: u64, count: usize) -> Vec<(DueKey, Lsn)> {
        let near = lock(&self.near);
        let due = near.keys.iter().take_while(|(key, _)| key.time_ms <= now_ms);
        due.take(count).map(|(key, end_lsn)| (*key, *end_lsn)).collect()
    }

    /// It is done, or is not there.
    pub(super) fn forget(&self, key: &DueKey) {
        lock(&self.near).keys.remove(key);
    }
}

impl Near {
    fn insert(&mut self, key: DueKey, end_lsn: Lsn) {
        if key.time_ms >= self.horizon_ms {
            return;
        }
        self.keys.insert(key, end_lsn);
        if self.keys.len() > limits::DUE_KEYS_MAX
            && let Some((last, _)) = self.keys.pop_last()
        {
            self.horizon_ms = last.time_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(time_ms: u64, count: u64) -> DueKey {
        DueKey { time_ms, epoch: Epoch::default(), count, is_long: false }
    }

    #[test]
    fn only_what_lies_before_the_horizon_is_held() {
        let index = DueIndex::new(Epoch::default());
        index.assigned([(key(5, 0), Lsn(8))]);
        assert_eq!((index.count(), index.first_ms()), (0, None), "what is there is still to be read");
        index.extend(10);
        index.assigned([(key(9, 1), Lsn(16))]);
        index.assigned([(key(10, 2), Lsn(24))]);
        assert!(index.loaded([key(5, 0), key(9, 1), key(11, 3)]));
        assert_eq!(index.due(8, 9), [(key(5, 0), Lsn::ZERO)]);
        assert_eq!(index.due(9, 9), [(key(5, 0), Lsn::ZERO), (key(9, 1), Lsn(16))]);
        assert_eq!(index.due(9, 1).len(), 1);
        index.forget(&key(5, 0));
        assert_eq!(index.first_ms(), Some(9));
    }

    #[test]
    fn with_too_many_keys_the_horizon_moves_back() {
        let index = DueIndex::new(Epoch::default());
        index.extend(u64::MAX);
        let most = u64::try_from(limits::DUE_KEYS_MAX).expect("small");
        assert!(index.loaded((0..most).map(|time| key(time, 0))));
        assert!(!index.loaded([key(3, 1)]));
        assert_eq!((index.count(), index.horizon_ms()), (limits::DUE_KEYS_MAX, most - 1));
        index.assigned([(key(most, 2), Lsn(8))]);
        assert_eq!(index.due(u64::MAX, usize::MAX).last().map(|(key, _)| key.time_ms), Some(most - 2));
    }

    #[test]
    fn keys_of_one_time_differ() {
        let index = DueIndex::new(Epoch { term: 1, run: 2 });
        assert!(index.next_key(7) < index.next_key(7));
    }
}
