//! The head view: the newest assigned state of the keys that somebody asks about, or that the visible view does not know yet.
//!
//! Invariants:
//! 1. A change that has a place and is not dispatched is here.
//! 2. A key that is held stays here, and sees every change, until the hold is given back: so what was fetched for it from the visible view
//!    counts only if no change came meanwhile.
//! 3. It is bounded by what is assigned and not dispatched, and by the holds of batches on their way.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use crate::batch::{Precondition, TableChange};
use crate::error::Found;
use crate::units::Lsn;

/// What is known of a key.
#[derive(Clone, Debug)]
struct Known {
    /// Where its latest record stands; `None` when it has none, or that is not known.
    latest: Option<Lsn>,
    value: Option<Arc<[u8]>>,
    /// End of the frame that says so; zero for what was fetched.
    rests_on: Lsn,
}

#[derive(Debug, Default)]
struct Entry {
    known: Option<Known>,
    holds: u32,
}

/// What was fetched for a key that is held.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) key: Arc<[u8]>,
    /// What the visible view says; `None` where the head view knew better when the hold began.
    pub(crate) fetched: Option<Fetched>,
}

/// An entry of the visible view, as far as the head view cares.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) latest: Option<Lsn>,
    pub(crate) value: Option<Arc<[u8]>>,
}

/// Hashes keys under the append lock, where every nanosecond is everybody's: a multiplication for each eight bytes, from a secret start.
#[derive(Clone, Debug)]
struct Mixing(u64);

impl Default for Mixing {
    fn default() -> Mixing {
        Mixing(RandomState::new().hash_one(0))
    }
}

impl BuildHasher for Mixing {
    type Hasher = Mixed;

    fn build_hasher(&self) -> Mixed {
        Mixed(self.0)
    }
}

struct Mixed(u64);

impl Mixed {
    fn mix(&mut self, word: u64) {
        const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
        let wide = u128::from(self.0 ^ word) * u128::from(ODD);
        // Both halves of the product.
        let [low, high] = [wide, wide >> 64].map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap_or(0));
        self.0 = low ^ high.rotate_left(23);
    }
}

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.mix(word.first_chunk().map_or(0, |word| u64::from_le_bytes(*word)));
        }
        let mut last = [0; 8];
        let rest = words.remainder();
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last));
    }

    fn write_usize(&mut self, length: usize) {
        self.mix(crate::units::to_u64(length));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Part of what the append lock protects.
#[derive(Debug, Default)]
pub(crate) struct HeadView {
    entries: HashMap<Arc<[u8]>, Entry, Mixing>,
    /// Changes in log order: what the dispatcher has passed may be forgotten.
    order: VecDeque<(Lsn, Arc<[u8]>)>,
}

impl HeadView {
    /// Keeps a key; true when what it holds is not known here and must be fetched.
    pub(crate) fn hold(&mut self, key: &Arc<[u8]>) -> bool {
        let entry = self.entries.entry(Arc::clone(key)).or_default();
        entry.holds += 1;
        entry.known.is_none()
    }

    /// Makes what was fetched known, unless a change came meanwhile.
    pub(crate) fn fill(&mut self, held: &Held) {
        let Some(fetched) = &held.fetched else { return };
        if let Some(entry) = self.entries.get_mut(&held.key)
            && entry.known.is_none()
        {
            let Fetched { latest, value } = fetched.clone();
            entry.known = Some(Known { latest, value, rests_on: Lsn::ZERO });
        }
    }

    /// Gives a hold back.
    pub(crate) fn release(&mut self, key: &Arc<[u8]>, dispatched: Lsn) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.holds -= 1;
            self.forget(key, dispatched);
        }
    }

    fn forget(&mut self, key: &Arc<[u8]>, dispatched: Lsn) {
        let idle = self.entries.get(key).is_some_and(|entry| {
            entry.holds == 0 && entry.known.as_ref().is_none_or(|known| known.rests_on <= dispatched)
        });
        if idle {
            self.entries.remove(key);
        }
    }

    /// Whether a precondition on a held key holds; what was found, and what that rests on, when not.
    pub(crate) fn judge(&self, precondition: &Precondition) -> Result<(), (Found, Lsn)> {
        let (key, wanted) = match precondition {
            Precondition::Absent(key) => (key, None),
            Precondition::Value(key, value) => (key, Some(value)),
            Precondition::Next(..) => return Ok(()),
        };
        let known = self.entries.get(key).and_then(|entry| entry.known.as_ref()).expect("held and filled before");
        if known.value.as_ref() == wanted {
            return Ok(());
        }
        let found = known.value.clone().map_or(Found::Absent, Found::Value);
        Err((found, known.rests_on))
    }

    /// Whether the latest record of a held key is the one at `lsn`.
    pub(crate) fn is_latest(&self, key: &Arc<[u8]>, lsn: Lsn) -> bool {
        let known = self.entries.get(key).and_then(|entry| entry.known.as_ref()).expect("held and filled before");
        known.latest == Some(lsn)
    }

    /// Notes a change that got its place at `lsn`, in a frame that ends at `frame_end`.
    pub(crate) fn change(&mut self, change: &TableChange, lsn: Lsn, frame_end: Lsn, dispatched: Lsn) {
        let entry = self.entries.entry(Arc::clone(&change.key)).or_default();
        let latest = change.value.is_some().then_some(lsn);
        entry.known = Some(Known { latest, value: change.value.clone(), rests_on: frame_end });
        self.order.push_back((frame_end, Arc::clone(&change.key)));
        while let Some((end, _)) = self.order.front()
            && *end <= dispatched
        {
            let (_, key) = self.order.pop_front().expect("it has a front");
            self.forget(&key, dispatched);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Arc<[u8]> {
        Arc::from(name.as_bytes())
    }

    fn put(name: &str, value: &str) -> TableChange {
        TableChange { key: key(name), value: Some(Arc::from(value.as_bytes())), only_if_latest: None }
    }

    fn value_is(name: &str, value: &str) -> Precondition {
        Precondition::Value(key(name), Arc::from(value.as_bytes()))
    }

    #[test]
    fn what_was_fetched_counts_only_if_nothing_changed_meanwhile() {
        let mut head = HeadView::default();
        let old = Fetched { latest: Some(Lsn(8)), value: Some(Arc::from(&b"old"[..])) };
        assert!(head.hold(&key("a")), "unknown: to be fetched");
        head.change(&put("a", "new"), Lsn(100), Lsn(200), Lsn(50));
        head.fill(&Held { key: key("a"), fetched: Some(old.clone()) });
        assert!(head.judge(&value_is("a", "new")).is_ok());
        assert_eq!(head.judge(&Precondition::Absent(key("a"))).unwrap_err().1, Lsn(200), "it rests on that frame");

        assert!(head.hold(&key("b")));
        head.fill(&Held { key: key("b"), fetched: Some(old) });
        assert!(head.judge(&value_is("b", "old")).is_ok() && head.is_latest(&key("b"), Lsn(8)));
    }

    #[test]
    fn a_key_is_forgotten_when_it_is_dispatched_and_nobody_holds_it() {
        let mut head = HeadView::default();
        head.change(&put("a", "1"), Lsn(100), Lsn(200), Lsn(0));
        assert!(!head.hold(&key("a")), "known");
        head.change(&put("b", "1"), Lsn(200), Lsn(300), Lsn(250));
        assert!(head.judge(&value_is("a", "1")).is_ok(), "held");
        head.release(&key("a"), Lsn(250));
        head.change(&put("c", "1"), Lsn(300), Lsn(400), Lsn(300));
        assert_eq!(head.entries.len(), 1);
    }
}
