//! How far each group has consumed each queue.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::limits;
use crate::lock::lock;

/// Names one committed offset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OffsetKey {
    /// The consumer group.
    pub group: Box<str>,
    /// The topic.
    pub topic: Box<str>,
    /// The queue's number.
    pub queue: u32,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// The value was already there.
    Unchanged,
    /// The log must hear of it.
    Changed,
    /// There are too many offsets to remember one more.
    Full,
}

/// All committed offsets. Shared by every network thread.
#[derive(Debug, Default)]
pub struct Offsets {
    by_key: Mutex<BTreeMap<OffsetKey, u64>>,
}

impl Offsets {
    /// The committed offset.
    #[must_use]
    pub fn get(&self, key: &OffsetKey) -> Option<u64> {
        lock(&self.by_key).get(key).copied()
    }

    /// Sets it. A lower value than before is taken: a user may rewind.
    pub fn commit(&self, key: &OffsetKey, offset: u64) -> Commit {
        let mut by_key = lock(&self.by_key);
        if let Some(found) = by_key.get_mut(key) {
            let before = std::mem::replace(found, offset);
            return if before == offset { Commit::Unchanged } else { Commit::Changed };
        }
        if by_key.len() >= limits::OFFSET_COUNT_MAX {
            return Commit::Full;
        }
        by_key.insert(key.clone(), offset);
        Commit::Changed
    }

    /// Lets `fix` change every offset; used once, when the broker starts.
    pub fn for_each_mut(&self, mut fix: impl FnMut(&OffsetKey, &mut u64)) {
        for (key, offset) in lock(&self.by_key).iter_mut() {
            fix(key, offset);
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.by_key).len()
    }
}
