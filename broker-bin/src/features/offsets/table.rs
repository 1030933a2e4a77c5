//! How far each group has consumed each queue.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Mutex;

use crate::limits;
use crate::lock::lock;

/// Names what a group has of a queue: its committed offset, or its lock.
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

#[derive(Debug, Default)]
struct Held {
    by_key: BTreeMap<OffsetKey, u64>,
    /// Those that changed since somebody last asked.
    moved: BTreeSet<OffsetKey>,
}

/// All committed offsets. Shared by every network thread.
#[derive(Debug, Default)]
pub struct Offsets {
    held: Mutex<Held>,
}

impl Offsets {
    /// The committed offset.
    #[must_use]
    pub fn get(&self, key: &OffsetKey) -> Option<u64> {
        lock(&self.held).by_key.get(key).copied()
    }

    /// Sets it. A lower value than before is taken: a user may rewind.
    pub fn commit(&self, key: &OffsetKey, offset: u64) -> Commit {
        let Held { by_key, moved } = &mut *lock(&self.held);
        if let Some(found) = by_key.get_mut(key) {
            if std::mem::replace(found, offset) == offset {
                return Commit::Unchanged;
            }
        } else if by_key.len() >= limits::OFFSET_COUNT_MAX {
            return Commit::Full;
        } else {
            by_key.insert(key.clone(), offset);
        }
        if !moved.contains(key) {
            moved.insert(key.clone());
        }
        Commit::Changed
    }

    /// Sets it where there is none. False where there is, and when there are too many.
    pub fn begin(&self, key: &OffsetKey, offset: u64) -> bool {
        let Held { by_key, moved } = &mut *lock(&self.held);
        if by_key.len() >= limits::OFFSET_COUNT_MAX || by_key.contains_key(key) {
            return false;
        }
        by_key.insert(key.clone(), offset);
        moved.insert(key.clone());
        true
    }

    /// Of how many queues of a topic the group has one.
    #[must_use]
    pub fn count_of(&self, group: &str, topic: &str) -> usize {
        let first = OffsetKey { group: group.into(), topic: topic.into(), queue: 0 };
        let held = lock(&self.held);
        held.by_key.range(first..).take_while(|(key, _)| *key.group == *group && *key.topic == *topic).count()
    }

    /// The topics of which the group has some, in order.
    #[must_use]
    pub fn topics_of(&self, group: &str) -> Vec<Box<str>> {
        let first = OffsetKey { group: group.into(), topic: Box::default(), queue: 0 };
        let held = lock(&self.held);
        let mut topics: Vec<Box<str>> = Vec::new();
        for (key, _) in held.by_key.range(first..).take_while(|(key, _)| *key.group == *group) {
            if topics.last() != Some(&key.topic) {
                topics.push(key.topic.clone());
            }
        }
        topics
    }

    /// The groups that have some of this topic. Looks at every offset.
    #[must_use]
    pub fn groups_of(&self, topic: &str) -> Vec<Box<str>> {
        let mut groups: Vec<Box<str>> = Vec::new();
        self.for_each(|key, _| {
            if *key.topic == *topic && groups.last() != Some(&key.group) {
                groups.push(key.group.clone());
            }
        });
        groups
    }

    /// What each group has committed of a queue. Nobody is held up for longer than one group takes.
    #[must_use]
    pub fn of_queue(&self, topic: &str, queue: u32) -> Vec<(Box<str>, u64)> {
        let mut found = Vec::new();
        let mut from = OffsetKey { group: Box::default(), topic: Box::default(), queue: 0 };
        loop {
            let held = lock(&self.held);
            let Some((OffsetKey { group, .. }, _)) = held.by_key.range(&from..).next() else { return found };
            let key = OffsetKey { group: group.clone(), topic: topic.into(), queue };
            found.extend(held.by_key.get(&key).map(|offset| (group.clone(), *offset)));
            // Names hold no zero byte: this sorts behind all of the group's, and before every other's.
            from.group = [&**group, "\0"].concat().into();
        }
    }

    /// The offsets that changed since the last call, as they are now.
    #[must_use]
    pub fn take_moved(&self) -> Vec<(OffsetKey, u64)> {
        let Held { by_key, moved } = &mut *lock(&self.held);
        let moved = std::mem::take(moved).into_iter();
        moved.filter_map(|key| by_key.get(&key).copied().map(|offset| (key, offset))).collect()
    }

    /// Takes them for moved again.
    pub fn put_back_moved(&self, offsets: Vec<(OffsetKey, u64)>) {
        lock(&self.held).moved.extend(offsets.into_iter().map(|(key, _)| key));
    }

    /// Forgets an offset; true when there was one.
    pub fn remove(&self, key: &OffsetKey) -> bool {
        let Held { by_key, moved } = &mut *lock(&self.held);
        moved.remove(key);
        by_key.remove(key).is_some()
    }

    /// Forgets the offsets that are not wanted.
    pub fn retain(&self, wanted: impl Fn(&OffsetKey) -> bool) {
        let Held { by_key, moved } = &mut *lock(&self.held);
        by_key.retain(|key, _| wanted(key));
        moved.retain(|key| by_key.contains_key(key));
    }

    /// The names of those that are meant.
    #[must_use]
    pub fn keys(&self, meant: impl Fn(&OffsetKey) -> bool) -> Vec<OffsetKey> {
        lock(&self.held).by_key.keys().filter(|key| meant(key)).cloned().collect()
    }

    /// Lets `fix` change every offset; used once, when the broker starts.
    pub fn for_each_mut(&self, mut fix: impl FnMut(&OffsetKey, &mut u64)) {
        for (key, offset) in &mut lock(&self.held).by_key {
            fix(key, offset);
        }
    }

    /// Looks at every offset, and holds up all others meanwhile.
    pub fn for_each(&self, mut visit: impl FnMut(&OffsetKey, u64)) {
        for (key, offset) in &lock(&self.held).by_key {
            visit(key, *offset);
        }
    }

    /// The next of all offsets behind this key, in order, so many at most: others get their turn between two calls.
    #[must_use]
    pub fn page(&self, after: Option<&OffsetKey>, count: usize) -> Vec<(OffsetKey, u64)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let held = lock(&self.held);
        held.by_key.range((from, Bound::Unbounded)).take(count).map(|(key, offset)| (key.clone(), *offset)).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.held).by_key.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_groups_have_of_a_queue_is_found_among_what_they_have_of_others() {
        let offsets = Offsets::default();
        let key = |group: &str, topic: &str, queue| OffsetKey { group: group.into(), topic: topic.into(), queue };
        for (group, topic, queue, offset) in [
            ("a", "T1", 0, 1),
            ("a", "T2", 0, 2),
            ("a/b", "T1", 0, 3),
            ("b", "T1", 1, 4),
            ("c", "T1", 0, 5),
            ("c", "T1", 1, 6),
        ] {
            offsets.commit(&key(group, topic, queue), offset);
        }
        assert_eq!(offsets.of_queue("T1", 0), [("a".into(), 1), ("a/b".into(), 3), ("c".into(), 5)]);
        assert_eq!(offsets.of_queue("T2", 0), [("a".into(), 2)]);
        assert!(offsets.of_queue("T3", 0).is_empty());
    }
}
