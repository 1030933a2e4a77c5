//! Consumers that do not know yet where they were sent.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::features::offsets::OffsetKey;
use crate::lock::lock;

/// Offsets that consumers are to be told with their next pull. Shared by every network thread.
#[derive(Debug, Default)]
pub struct Resets {
    by_key: Mutex<BTreeMap<OffsetKey, u64>>,
    /// How many there are: most pulls look at this alone.
    waiting: AtomicUsize,
    count: AtomicU64,
}

impl Resets {
    /// The consumer of this queue is to go to `offset`.
    pub fn put(&self, key: OffsetKey, offset: u64) {
        let mut by_key = lock(&self.by_key);
        by_key.insert(key, offset);
        self.waiting.store(by_key.len(), Ordering::SeqCst);
    }

    /// All of a reset is put: pulls that are held may be told now.
    pub fn announce(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// How many were announced so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Whether there are any.
    #[must_use]
    pub fn any(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Where the consumer that pulls at `asked` was sent, if it does not know; it knows from now on.
    #[must_use]
    pub fn take(&self, key: &OffsetKey, asked: Option<u64>) -> Option<u64> {
        let mut by_key = lock(&self.by_key);
        let offset = by_key.remove(key)?;
        self.waiting.store(by_key.len(), Ordering::SeqCst);
        // One that was started since has asked where to begin.
        (asked != Some(offset)).then_some(offset)
    }

    /// Whether what is committed of the queue speaks of the time before a reset.
    #[must_use]
    pub fn is_pending(&self, key: &OffsetKey) -> bool {
        self.any() && lock(&self.by_key).contains_key(key)
    }

    /// Whether some consumer of this queue does not know yet.
    #[must_use]
    pub fn concern(&self, topic: &str, number: u32) -> bool {
        lock(&self.by_key).keys().any(|key| *key.topic == *topic && key.queue == number)
    }

    /// Nobody of the group is there to be told.
    pub fn forget(&self, group: &str) {
        let mut by_key = lock(&self.by_key);
        by_key.retain(|key, _| *key.group != *group);
        self.waiting.store(by_key.len(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(queue: u32) -> OffsetKey {
        OffsetKey { group: "g".into(), topic: "T".into(), queue }
    }

    #[test]
    fn a_consumer_is_told_once_and_one_that_knows_is_not() {
        let resets = Resets::default();
        assert_eq!(resets.take(&key(0), Some(5)), None);
        resets.put(key(0), 3);
        resets.put(key(1), 4);
        assert!(resets.is_pending(&key(0)) && resets.concern("T", 1) && !resets.concern("T", 2));
        assert_eq!(resets.take(&key(0), Some(5)), Some(3));
        assert_eq!((resets.take(&key(0), Some(5)), resets.is_pending(&key(0))), (None, false));
        assert_eq!(resets.take(&key(1), Some(4)), None, "it is there already");
        assert!(!resets.is_pending(&key(1)));
        resets.put(key(1), 9);
        resets.forget("g");
        assert_eq!(resets.take(&key(1), None), None);
    }
}
