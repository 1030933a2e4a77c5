//! The head view: the newest assigned state of the keys that somebody asks about, or that the visible view does not know yet.
//!
//! Invariants:
//! 1. A change that has a place and is not dispatched is here.
//! 2. A key that is held stays here, and sees every change, until the hold is given back: so what was fetched for it from the visible view
//!    counts only if no change came meanwhile.
//! 3. It is bounded by what is assigned and not dispatched, by the holds of batches on their way, and by so many dispatched changes as it
//!    is told to keep: who asks about an entry mostly does so soon after it was put, and need not look for it in the visible view.
//!
//! ```text
//!  order    | change | change | change |   in log order; dispatched ones leave at the front, and are shown to who holds their keys
//!  bytes    | k | v  | k | v  | k | v  |   their keys and values, one behind the other
//!  newest   hash of a key -> the last change of a key with this hash -> the one before it -> ...
//!  held     key -> what was fetched for it, or has left the order since
//! ```
//! A change copies its bytes once: what is allocated for each would be freed under the append lock, by another thread.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;

use crate::batch::Precondition;
use crate::error::Found;
use crate::limits;
use crate::units::{Lsn, to_u64, to_usize};

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
struct Hold {
    /// Counts where no change in the order is of this key.
    known: Option<Known>,
    count: u32,
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

/// A change of the table on its way to the dispatcher.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadChange<'a> {
    pub(crate) key: &'a [u8],
    /// `None` removes the entry.
    pub(crate) value: Option<&'a [u8]>,
    /// Its record's place.
    pub(crate) lsn: Lsn,
    /// Where the record's frame ends.
    pub(crate) frame_end: Lsn,
}

/// A change in the order.
#[derive(Clone, Copy, Debug)]
struct Changed {
    hash: u64,
    /// The number of the change before it that has this hash; it may be gone.
    before: Option<u64>,
    lsn: Lsn,
    frame_end: Lsn,
    /// Where its key begins, in all bytes that there ever were.
    at: u64,
    key_bytes: usize,
    /// Bytes of its value, which stands behind the key; `None` removes the entry.
    value_bytes: Option<usize>,
}

impl Changed {
    fn bytes(&self) -> usize {
        self.key_bytes + self.value_bytes.unwrap_or(0)
    }

    fn latest(&self) -> Option<Lsn> {
        self.value_bytes.map(|_| self.lsn)
    }
}

/// Hashes keys under the append lock, where every nanosecond is everybody's: a multiplication for each eight bytes, from a secret start.
#[derive(Clone, Debug)]
pub(crate) struct Mixing(u64);

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

pub(crate) struct Mixed(u64);

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

/// Takes a hash as it is.
#[derive(Clone, Copy, Debug, Default)]
struct Taken(u64);

impl Hasher for Taken {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |sum, byte| sum.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Part of what the append lock protects.
#[derive(Debug, Default)]
pub(crate) struct HeadView<S = Mixing> {
    held: HashMap<Arc<[u8]>, Hold, S>,
    /// Changes in log order: what the dispatcher has passed may be forgotten.
    order: VecDeque<Changed>,
    /// So many of them stay though they are dispatched.
    kept: usize,
    /// The number of the first one.
    first: u64,
    bytes: VecDeque<u8>,
    /// Bytes that were there before.
    gone: u64,
    /// By the hash of a key: the number of the newest change.
    newest: HashMap<u64, u64, BuildHasherDefault<Taken>>,
}

impl<S: BuildHasher + Default> HeadView<S> {
    /// A view that knows nothing yet, and goes on knowing so many dispatched changes.
    pub(crate) fn keeping(kept: usize) -> HeadView<S> {
        HeadView { kept, ..HeadView::default() }
    }
}

impl<S: BuildHasher> HeadView<S> {
    /// Keeps a key; true when what it holds is not known here and must be fetched.
    pub(crate) fn hold(&mut self, key: &Arc<[u8]>) -> bool {
        let is_changed = self.last_change(key).is_some();
        let hold = self.held.entry(Arc::clone(key)).or_default();
        hold.count += 1;
        hold.known.is_none() && !is_changed
    }

    /// Makes what was fetched known, unless a change came meanwhile.
    pub(crate) fn fill(&mut self, held: &Held) {
        let Some(fetched) = &held.fetched else { return };
        if let Some(hold) = self.held.get_mut(&held.key)
            && hold.known.is_none()
        {
            let Fetched { latest, value } = fetched.clone();
            hold.known = Some(Known { latest, value, rests_on: Lsn::ZERO });
        }
    }

    /// Gives a hold back.
    pub(crate) fn release(&mut self, key: &Arc<[u8]>) {
        if let Some(hold) = self.held.get_mut(key) {
            hold.count -= 1;
            if hold.count == 0 {
                self.held.remove(key);
            }
        }
    }

    /// Whether a precondition on a held key holds; what was found, and what that rests on, when not.
    pub(crate) fn judge(&self, precondition: &Precondition) -> Result<(), (Found, Lsn)> {
        let (key, wanted) = match precondition {
            Precondition::Absent(key) => (key, None),
            Precondition::Value(key, value) => (key, Some(value)),
            Precondition::Next(..) => return Ok(()),
        };
        let Some(changed) = self.last_change(key) else {
            let known = self.known(key);
            if known.value.as_ref() == wanted {
                return Ok(());
            }
            return Err((known.value.clone().map_or(Found::Absent, Found::Value), known.rests_on));
        };
        let holds = match (self.value(changed), wanted) {
            (Some(value), Some(wanted)) => is(value, wanted),
            (value, wanted) => value.is_none() && wanted.is_none(),
        };
        if holds {
            return Ok(());
        }
        Err((self.value(changed).map_or(Found::Absent, |value| Found::Value(joined(value))), changed.frame_end))
    }

    /// Whether the latest record of a held key is the one at `lsn`.
    pub(crate) fn is_latest(&self, key: &[u8], lsn: Lsn) -> bool {
        let latest = self.last_change(key).map_or_else(|| self.known(key).latest, Changed::latest);
        latest == Some(lsn)
    }

    fn known(&self, key: &[u8]) -> &Known {
        self.held.get(key).and_then(|hold| hold.known.as_ref()).expect("held and filled before")
    }

    /// Notes a change that got its place; what is dispatched may be forgotten.
    pub(crate) fn change(&mut self, change: &HeadChange<'_>, dispatched: Lsn) {
        let HeadChange { key, value, lsn, frame_end } = *change;
        let hash = self.held.hasher().hash_one(key);
        let number = self.first + to_u64(self.order.len());
        let before = self.newest.insert(hash, number);
        let at = self.gone + to_u64(self.bytes.len());
        self.bytes.extend(key);
        self.bytes.extend(value.unwrap_or_default());
        let (key_bytes, value_bytes) = (key.len(), value.map(<[u8]>::len));
        self.order.push_back(Changed { hash, before, lsn, frame_end, at, key_bytes, value_bytes });
        self.forget(dispatched);
    }

    fn forget(&mut self, dispatched: Lsn) {
        let mut bytes = 0;
        while let Some(changed) = self.order.front().copied()
            && changed.frame_end <= dispatched
            && (self.order.len() > self.kept || self.bytes.len() - bytes > limits::HEAD_BYTES_KEPT)
        {
            if !self.held.is_empty() {
                self.show(&changed);
            }
            self.order.pop_front();
            if self.newest.get(&changed.hash) == Some(&self.first) {
                self.newest.remove(&changed.hash);
            }
            self.first += 1;
            bytes += changed.bytes();
        }
        self.bytes.drain(..bytes);
        self.gone += to_u64(bytes);
        if self.bytes.capacity() > 4 * limits::HEAD_BYTES_KEPT && self.bytes.len() <= limits::HEAD_BYTES_KEPT {
            self.bytes.shrink_to(limits::HEAD_BYTES_KEPT);
        }
    }

    /// What leaves the order goes on to count for who holds its key.
    fn show(&mut self, changed: &Changed) {
        let key = joined(self.slice(changed.at, changed.key_bytes));
        if !self.held.contains_key(&key) {
            return;
        }
        let (latest, value) = (changed.latest(), self.value(changed).map(joined));
        if let Some(hold) = self.held.get_mut(&key) {
            hold.known = Some(Known { latest, value, rests_on: changed.frame_end });
        }
    }

    /// The newest change of a key that is in the order.
    fn last_change(&self, key: &[u8]) -> Option<&Changed> {
        let mut number = *self.newest.get(&self.held.hasher().hash_one(key))?;
        loop {
            let changed = self.order.get(to_usize(number.checked_sub(self.first)?))?;
            if is(self.slice(changed.at, changed.key_bytes), key) {
                return Some(changed);
            }
            number = changed.before?;
        }
    }

    fn value(&self, changed: &Changed) -> Option<(&[u8], &[u8])> {
        Some(self.slice(changed.at + to_u64(changed.key_bytes), changed.value_bytes?))
    }

    /// Bytes of the order, in two pieces.
    fn slice(&self, at: u64, len: usize) -> (&[u8], &[u8]) {
        let (front, back) = self.bytes.as_slices();
        let from = to_usize(at - self.gone);
        match from.checked_sub(front.len()) {
            Some(from) => (&back[from..from + len], &[]),
            None => {
                let here = len.min(front.len() - from);
                (&front[from..from + here], &back[..len - here])
            }
        }
    }
}

fn is(pieces: (&[u8], &[u8]), bytes: &[u8]) -> bool {
    let split = bytes.split_at_checked(pieces.0.len());
    split.is_some_and(|(front, back)| front == pieces.0 && back == pieces.1)
}

fn joined(pieces: (&[u8], &[u8])) -> Arc<[u8]> {
    if pieces.1.is_empty() { Arc::from(pieces.0) } else { Arc::from([pieces.0, pieces.1].concat()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(name: &str) -> Arc<[u8]> {
        Arc::from(name.as_bytes())
    }

    fn put(head: &mut HeadView<Mixing>, name: &str, value: &str, lsn: u64, dispatched: u64) {
        let (key, value) = (name.as_bytes(), Some(value.as_bytes()));
        head.change(&HeadChange { key, value, lsn: Lsn(lsn), frame_end: Lsn(lsn + 100) }, Lsn(dispatched));
    }

    fn value_is(name: &str, value: &str) -> Precondition {
        Precondition::Value(key(name), Arc::from(value.as_bytes()))
    }

    #[test]
    fn what_was_fetched_counts_only_if_nothing_changed_meanwhile() {
        let mut head = HeadView::<Mixing>::default();
        let old = Fetched { latest: Some(Lsn(8)), value: Some(Arc::from(&b"old"[..])) };
        assert!(head.hold(&key("a")), "unknown: to be fetched");
        put(&mut head, "a", "new", 100, 50);
        head.fill(&Held { key: key("a"), fetched: Some(old.clone()) });
        assert!(head.judge(&value_is("a", "new")).is_ok());
        assert_eq!(head.judge(&Precondition::Absent(key("a"))).unwrap_err().1, Lsn(200), "it rests on that frame");

        assert!(head.hold(&key("b")));
        head.fill(&Held { key: key("b"), fetched: Some(old) });
        assert!(head.judge(&value_is("b", "old")).is_ok() && head.is_latest(&key("b"), Lsn(8)));
    }

    #[test]
    fn a_change_that_is_dispatched_before_what_was_fetched_comes_is_what_counts() {
        let mut head = HeadView::<Mixing>::default();
        assert!(head.hold(&key("a")));
        put(&mut head, "a", "new", 100, 50);
        put(&mut head, "b", "1", 300, 200);
        assert_eq!(head.order.len(), 1, "the change of a is dispatched");
        let old = Fetched { latest: Some(Lsn(8)), value: Some(Arc::from(&b"old"[..])) };
        head.fill(&Held { key: key("a"), fetched: Some(old) });
        assert!(head.judge(&value_is("a", "new")).is_ok() && head.is_latest(&key("a"), Lsn(100)));
    }

    #[test]
    fn a_key_is_forgotten_when_it_is_dispatched_and_nobody_holds_it() {
        let mut head = HeadView::<Mixing>::default();
        put(&mut head, "a", "1", 100, 0);
        assert!(!head.hold(&key("a")), "known");
        put(&mut head, "b", "1", 200, 250);
        assert!(head.judge(&value_is("a", "1")).is_ok(), "held");
        head.release(&key("a"));
        put(&mut head, "c", "1", 300, 300);
        assert_eq!((head.held.len(), head.order.len(), head.newest.len(), head.bytes.len()), (0, 1, 1, 2));
    }

    #[test]
    fn what_was_dispatched_lately_need_not_be_fetched() {
        let mut head = HeadView::<Mixing>::keeping(2);
        put(&mut head, "a", "1", 100, 0);
        put(&mut head, "b", "1", 200, 300);
        put(&mut head, "c", "1", 300, 300);
        assert!(head.hold(&key("a")) && !head.hold(&key("b")));
        assert!(head.judge(&value_is("b", "1")).is_ok() && head.is_latest(&key("b"), Lsn(200)));
        put(&mut head, "d", "1", 400, 300);
        assert!(head.judge(&value_is("b", "1")).is_ok(), "held");
    }

    #[test]
    fn memory_of_a_long_wait_for_the_dispatcher_is_given_back() {
        let mut head = HeadView::<Mixing>::keeping(usize::MAX);
        let long = "v".repeat(1000);
        let count = to_u64(limits::HEAD_BYTES_KEPT) / 1000 * 5;
        (0..count).for_each(|number| put(&mut head, "a", &long, number * 8, 0));
        assert!(head.bytes.capacity() > 4 * limits::HEAD_BYTES_KEPT);
        put(&mut head, "a", "1", count * 8, u64::MAX);
        assert!(head.bytes.capacity() < 2 * limits::HEAD_BYTES_KEPT && head.order.len() > 1000);
        assert!(!head.hold(&key("a")) && head.judge(&value_is("a", "1")).is_ok());
    }

    /// Finds no difference between any two keys.
    #[derive(Debug, Default)]
    struct Same;

    impl Hasher for Same {
        fn write(&mut self, _: &[u8]) {}

        fn finish(&self) -> u64 {
            7
        }
    }

    /// A key's number, its new value or none for a removal, and how far the dispatcher comes meanwhile.
    type Step = (u8, Option<Vec<u8>>, u64);

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
        prop::collection::vec((0..6u8, value, 0..4u64), 1..80)
    }

    /// Against the last change of each key.
    fn follow<S: BuildHasher + Default>(steps: Vec<Step>, kept: usize) {
        let mut head = HeadView::<S>::keeping(kept);
        let name = |number: u8| -> Arc<[u8]> { Arc::from(vec![b'k'; usize::from(number) + 1]) };
        for number in 0..6 {
            assert!(head.hold(&name(number)));
            head.fill(&Held { key: name(number), fetched: Some(Fetched::default()) });
        }
        let mut last = vec![(None, None, Lsn::ZERO); 6];
        let mut dispatched = 0;
        for (at, (number, value, ahead)) in (0..).zip(steps) {
            let (lsn, frame_end) = (Lsn(at * 8), Lsn(at * 8 + 8));
            dispatched = lsn.0.min(dispatched + ahead * 8);
            let change = HeadChange { key: &name(number), value: value.as_deref(), lsn, frame_end };
            head.change(&change, Lsn(dispatched));
            last[usize::from(number)] = (value.as_ref().map(|_| lsn), value.map(Arc::<[u8]>::from), frame_end);
            for (number, (latest, value, rests_on)) in (0..).zip(&last) {
                let precondition = match value {
                    Some(value) => Precondition::Value(name(number), Arc::clone(value)),
                    None => Precondition::Absent(name(number)),
                };
                assert_eq!(head.judge(&precondition), Ok(()));
                let other = Precondition::Value(name(number), Arc::from(&[7; 41][..]));
                let found = value.clone().map_or(Found::Absent, Found::Value);
                assert_eq!(head.judge(&other), Err((found, *rests_on)));
                assert!(latest.is_none_or(|latest| head.is_latest(&name(number), latest)));
            }
        }
        (0..6).for_each(|number| head.release(&name(number)));
        head.kept = 0;
        let end = HeadChange { key: b"end", value: None, lsn: Lsn(8000), frame_end: Lsn(8008) };
        head.change(&end, Lsn(8000));
        assert_eq!((head.held.len(), head.order.len(), head.newest.len(), head.bytes.len()), (0, 1, 1, 3));
    }

    proptest! {
        #[test]
        fn a_key_is_what_its_last_change_says_whether_that_is_dispatched_or_not(steps in steps(), kept in 0..4_usize) {
            follow::<Mixing>(steps, kept);
        }

        #[test]
        fn keys_whose_hashes_are_equal_are_kept_apart(steps in steps(), kept in 0..4_usize) {
            follow::<BuildHasherDefault<Same>>(steps, kept);
        }
    }
}
