//! Which keys have values that the log does not know yet.
//!
//! 1. A change is counted before memory shows it: whoever sees a topic also sees that there is something to write first.
//! 2. A key is noted until its value was appended; what could not be appended is noted again.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::features::offsets::OffsetKey;
use crate::lock::lock;

/// Names a value that memory holds. What consumers go on by comes last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Topic(Box<str>),
    Group(Box<str>),
    Account(Box<str>),
    /// The addresses that are trusted.
    Trusted,
    Offset(OffsetKey),
    Lock(OffsetKey),
}

impl Key {
    /// Topics and groups, which messages need, and accounts; the rest is what consumers go on by.
    pub(super) fn is_name(&self) -> bool {
        matches!(self, Key::Topic(_) | Key::Group(_) | Key::Account(_) | Key::Trusted)
    }
}

/// Which changes to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Urgent,
    All,
}

#[derive(Debug, Default)]
struct Noted {
    /// Somebody waits for these.
    urgent: BTreeSet<Key>,
    /// Nobody does.
    lazy: BTreeSet<Key>,
}

/// Keys that were taken to be written.
#[derive(Debug)]
pub(super) struct Taken {
    /// In order.
    pub(super) keys: Vec<Key>,
    /// How many urgent changes were noted up to now.
    count: u64,
}

/// All that is noted.
#[derive(Debug, Default)]
pub(super) struct Changes {
    noted: Mutex<Noted>,
    /// Counts urgent changes; raised *before* memory shows the change.
    urgent_count: AtomicU64,
    /// The count up to which the log has them.
    written_count: AtomicU64,
}

impl Changes {
    /// Makes a change that somebody waits for, or that must stand before something else. `change` says whether it changed anything.
    pub(super) fn urgently<T>(&self, key: Key, change: impl FnOnce() -> (bool, T)) -> T {
        let mut noted = lock(&self.noted);
        // Whoever sees the change in memory finds the count raised, and then waits for the lock that is held here.
        self.urgent_count.fetch_add(1, Ordering::SeqCst);
        let (changed, result) = change();
        if changed || noted.lazy.contains(&key) {
            noted.lazy.remove(&key);
            noted.urgent.insert(key);
        }
        result
    }

    /// Makes a change that may be written later. Under the same lock: one who comes to wait for the same value must find it noted.
    pub(super) fn lazily<T>(&self, key: Key, change: impl FnOnce() -> (bool, T)) -> T {
        let mut noted = lock(&self.noted);
        let (changed, result) = change();
        if changed && !noted.urgent.contains(&key) {
            noted.lazy.insert(key);
        }
        result
    }

    /// True when urgent changes are not in the log yet.
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent_count.load(Ordering::SeqCst) != self.written_count.load(Ordering::SeqCst)
    }

    /// Takes keys out, to be written.
    pub(super) fn take(&self, which: Which) -> Taken {
        let mut noted = lock(&self.noted);
        let mut keys = std::mem::take(&mut noted.urgent);
        if which == Which::All {
            keys.append(&mut noted.lazy);
        }
        Taken { keys: keys.into_iter().collect(), count: self.urgent_count.load(Ordering::SeqCst) }
    }

    /// Notes keys that were taken and not written. Whoever waits for one of them still does.
    pub(super) fn put_back(&self, keys: impl IntoIterator<Item = Key>) {
        lock(&self.noted).urgent.extend(keys);
    }

    /// All of what was taken is in the log.
    pub(super) fn written(&self, taken: &Taken) {
        self.written_count.store(taken.count, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::Topic(name.into())
    }

    #[test]
    fn one_who_waits_for_a_lazy_change_makes_it_urgent() {
        let changes = Changes::default();
        changes.lazily(key("a"), || (true, ()));
        assert!(!changes.is_urgent() && changes.take(Which::Urgent).keys.is_empty());
        changes.urgently(key("a"), || (false, ()));
        assert!(changes.is_urgent());
        assert_eq!(changes.take(Which::Urgent).keys, [key("a")]);
        assert!(changes.take(Which::All).keys.is_empty(), "it is in there once");
    }

    #[test]
    fn what_could_not_be_written_stays_urgent() {
        let changes = Changes::default();
        changes.urgently(key("a"), || (true, ()));
        changes.lazily(key("b"), || (true, ()));
        let taken = changes.take(Which::All);
        changes.put_back(taken.keys);
        assert!(changes.is_urgent());
        let again = changes.take(Which::Urgent);
        assert_eq!(again.keys, [key("a"), key("b")]);
        changes.urgently(key("c"), || (true, ()));
        changes.written(&again);
        assert!(changes.is_urgent(), "what came meanwhile is not written");
    }

    #[test]
    fn nothing_is_written_when_nothing_changed() {
        let changes = Changes::default();
        changes.urgently(key("a"), || (false, ()));
        changes.lazily(key("b"), || (false, ()));
        let taken = changes.take(Which::All);
        assert!(taken.keys.is_empty() && changes.is_urgent(), "one who waits has to be told up to where");
        changes.written(&taken);
        assert!(!changes.is_urgent());
    }
}
