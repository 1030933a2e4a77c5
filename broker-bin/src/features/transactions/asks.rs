//! Whose producer is asked when: transactions that are not decided, by the time of the next question.
//!
//! 1. The table says the same: every entry that is not decided names its time. Memory holds all of them from the first look through the
//!    table on; what gets its place meanwhile comes by either way, or by both.
//! 2. What is here and not in the table any more, or there with another time, is forgotten when its time comes.
//! 3. So many as `limits::DUE_KEYS_MAX` are held: with more, those that are asked last are left out, and the table is looked through again
//!    when there is room.

use std::collections::BTreeMap;
use std::sync::Mutex;

use anchorlog_engine::Lsn;

use crate::features::delay::DueKey;
use crate::limits;
use crate::lock::lock;

#[derive(Debug, Default)]
struct Known {
    /// With the end of the frame that brought them; zero for what was read.
    keys: BTreeMap<DueKey, Lsn>,
    /// Some were left out.
    is_short: bool,
}

/// All of them. Shared by every network thread and the timer.
#[derive(Debug, Default)]
pub struct Asks(Mutex<Known>);

impl Asks {
    /// Batches have places in the log: those that ended transactions, and those that make somebody be asked, with where these end.
    pub fn assigned(&self, ended: impl IntoIterator<Item = DueKey>, asked: impl IntoIterator<Item = (DueKey, Lsn)>) {
        let mut known = lock(&self.0);
        for key in ended {
            known.keys.remove(&key);
        }
        asked.into_iter().for_each(|(key, end_lsn)| known.insert(key, end_lsn));
    }

    /// It was found in the table.
    pub fn loaded(&self, key: DueKey) {
        let mut known = lock(&self.0);
        if !known.keys.contains_key(&key) {
            known.insert(key, Lsn::ZERO);
        }
    }

    /// It is decided, or asked about at another time.
    pub fn forget(&self, key: &DueKey) {
        lock(&self.0).keys.remove(key);
    }

    /// The first ones whose time has come.
    #[must_use]
    pub fn due(&self, now_ms: u64, count: usize) -> Vec<(DueKey, Lsn)> {
        let known = lock(&self.0);
        let due = known.keys.iter().take_while(|(key, _)| key.time_ms <= now_ms);
        due.take(count).map(|(key, end_lsn)| (*key, *end_lsn)).collect()
    }

    /// When the first one is asked about.
    #[must_use]
    pub fn first_ms(&self) -> Option<u64> {
        lock(&self.0).keys.first_key_value().map(|(key, _)| key.time_ms)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.0).keys.len()
    }

    /// Whether the table is to be looked through because some were left out and there is room again. Says so once.
    #[must_use]
    pub fn takes_more(&self) -> bool {
        let mut known = lock(&self.0);
        let takes = known.is_short && known.keys.len() <= limits::DUE_KEYS_MAX / 2;
        known.is_short &= !takes;
        takes
    }
}

impl Known {
    fn insert(&mut self, key: DueKey, end_lsn: Lsn) {
        self.keys.insert(key, end_lsn);
        if self.keys.len() > limits::DUE_KEYS_MAX {
            self.keys.pop_last();
            self.is_short = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use anchorlog_engine::Epoch;

    use super::*;

    fn key(time_ms: u64) -> DueKey {
        DueKey { time_ms, epoch: Epoch::default(), count: 0, is_long: false }
    }

    #[test]
    fn the_first_are_asked_about_first_and_too_many_are_looked_for_again() {
        let asks = Asks::default();
        let most = u64::try_from(limits::DUE_KEYS_MAX).expect("small");
        asks.assigned([], [(key(most + 5), Lsn(8))]);
        (0..most).for_each(|time| asks.loaded(key(time)));
        assert_eq!((asks.count(), asks.first_ms(), asks.takes_more()), (limits::DUE_KEYS_MAX, Some(0), false));
        assert_eq!(asks.due(1, 9), [(key(0), Lsn::ZERO), (key(1), Lsn::ZERO)]);
        asks.assigned((0..most / 2).map(key), []);
        assert!(asks.takes_more() && !asks.takes_more());
        asks.assigned([], [(key(most), Lsn(16))]);
        asks.loaded(key(most));
        assert_eq!(asks.due(u64::MAX, usize::MAX).last(), Some(&(key(most), Lsn(16))));
    }
}
