//! Which messages were sent lately: where in the log something lies that may be the same.
//!
//! 1. What was claimed or loaded within the window is found, unless memory ran out; then the oldest fifth goes first, and is counted.
//! 2. One send at a time has claimed a message. All messages of a send are claimed, or none.
//! 3. Memory: sixteen bytes a slot, and at most the bytes that [`Window::new`] was given. It grows with what is in it.
//!
//! ```text
//!   shard (by hash)   slice oldest | slice | slice | slice | slice newest     each a table of slots: hash, print, place
//! ```
//! A slice is dropped whole when the newest of it is too old, so that forgetting costs nothing. A slot names a message by 32 bits of its
//! key and 32 of all that must be equal. What comes from the key index has the former only.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use anchorlog_engine::Lsn;

use super::millis;
use crate::counters::Counter;
use crate::lock::lock;

const SHARDS: usize = 16;
const SLICES: usize = 5;
/// Slots of a slice at first.
const SLOTS_MIN: usize = 64;
const SLOT_BYTES: usize = size_of::<Slot>();

/// What of a message is known without looking into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The key's hash, as the key index has it.
    pub hash: u32,
    /// Another hash under which the same message may stand.
    pub other: Option<u32>,
    /// A sum over all that must be equal.
    pub print: u32,
}

impl Identity {
    /// The sum of these parts; never zero.
    #[must_use]
    pub fn print(topic: &str, unique_key: &str, reconsume_times: i32, body: &[u8]) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        for part in [topic.as_bytes(), &[0], unique_key.as_bytes(), &[0], &reconsume_times.to_be_bytes(), body] {
            sum.update(part);
        }
        sum.finalize().max(1)
    }
}

/// The messages of a send, as they are claimed: one, or those of a batch. A message without a key of its own is never claimed.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    one: Option<Identity>,
    many: Vec<Option<Identity>>,
    /// Numbers of those that stood before in the same batch, along it.
    again: Vec<usize>,
}

impl Claims {
    /// Of one message.
    #[must_use]
    pub fn one(identity: Option<Identity>) -> Claims {
        Claims { one: identity, ..Claims::default() }
    }

    /// Of a batch, whose messages have these.
    #[must_use]
    pub fn many(identities: Vec<Option<Identity>>) -> Claims {
        let mut stood = HashSet::with_capacity(identities.len());
        let is_again = |identity: &Option<Identity>| {
            identity.is_some_and(|identity| !stood.insert((identity.hash, identity.print)))
        };
        let again =
            (0..).zip(identities.iter().map(is_again)).filter_map(|(number, is)| is.then_some(number)).collect();
        Claims { one: None, many: identities, again }
    }

    /// How many messages that is.
    #[must_use]
    pub fn count(&self) -> usize {
        self.many.len().max(1)
    }

    /// Those that have one, with their numbers.
    fn iter(&self) -> impl Iterator<Item = (usize, &Identity)> {
        let many = self.many.iter().enumerate().filter_map(|(number, identity)| Some((number, identity.as_ref()?)));
        self.one.iter().map(|identity| (0, identity)).chain(many)
    }

    /// Those of the messages that are not repeated.
    #[must_use]
    pub fn without(&self, is_repeated: impl Fn(usize) -> bool) -> Claims {
        let one = self.one.filter(|_| !is_repeated(0));
        let numbered = self.many.iter().enumerate();
        let many = Claims::many(numbered.map(|(number, one)| one.filter(|_| !is_repeated(number))).collect());
        Claims { one, ..many }
    }

    /// Whether the message was in this send before: it stands in the window once until it has a place.
    fn is_first(&self, number: usize) -> bool {
        self.again.binary_search(&number).is_err()
    }
}

/// Places in the log that hold something else than the message of that number.
pub type Seen = BTreeSet<(usize, Lsn)>;

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nothing like it is known; it may be appended.
    Mine,
    /// Something like it is known, and nothing is claimed.
    Doubtful {
        /// Where, for the message with that number; along the log. None when what is like it has no place yet.
        candidates: Vec<(usize, Lsn)>,
    },
}

const EMPTY: u64 = u64::MAX;
const GONE: u64 = u64::MAX - 1;
const CLAIMED: u64 = u64::MAX - 2;

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// An LSN, or one of those above.
    place: u64,
    hash: u32,
    /// Zero when it is not known.
    print: u32,
}

impl Slot {
    fn may_be(&self, hash: u32, print: u32) -> bool {
        self.hash == hash && (self.print == print || self.print == 0)
    }
}

/// A stretch of time.
#[derive(Debug, Default)]
struct Slice {
    slots: Vec<Slot>,
    used: usize,
    /// When its first was claimed, and its last.
    first_ms: u64,
    last_ms: u64,
}

impl Slice {
    /// Numbers of the slots from the one where this hash belongs to the next that is empty.
    fn run(&self, hash: u32) -> impl Iterator<Item = usize> + use<'_> {
        let count = self.slots.len();
        let spread = (u64::from(hash) * count as u64) >> 32;
        let start = usize::try_from(spread).unwrap_or(0);
        (start..count).chain(0..start).take_while(|at| self.slots[*at].place != EMPTY)
    }

    fn is_full(&self) -> bool {
        self.used + 1 > self.slots.len() / 5 * 4
    }

    /// Adds a slot; there is room.
    fn insert(&mut self, slot: Slot) {
        let count = self.slots.len();
        let spread = (u64::from(slot.hash) * count as u64) >> 32;
        let start = usize::try_from(spread).unwrap_or(0);
        let free = (start..count).chain(0..start).find(|at| self.slots[*at].place == EMPTY);
        self.slots[free.expect("a fifth of the slots is empty")] = slot;
        self.used += 1;
    }

    fn grow(&mut self, slots_max: usize) {
        let count = (self.slots.len() * 2).clamp(SLOTS_MIN.min(slots_max), slots_max);
        let old = std::mem::replace(&mut self.slots, vec![Slot { place: EMPTY, hash: 0, print: 0 }; count]);
        self.used = 0;
        for slot in old.into_iter().filter(|slot| !matches!(slot.place, EMPTY | GONE)) {
            self.insert(slot);
        }
    }
}

/// A part of the keys.
#[derive(Debug, Default)]
struct Shard {
    /// The newest is the last.
    slices: VecDeque<Slice>,
}

impl Shard {
    fn candidates(&self, hash: u32, print: u32, mut found: impl FnMut(u64)) {
        for slice in &self.slices {
            for at in slice.run(hash) {
                let slot = &slice.slots[at];
                if slot.place != GONE && slot.may_be(hash, print) {
                    found(slot.place);
                }
            }
        }
    }

    fn insert(&mut self, slot: Slot, now_ms: u64, bounds: &Bounds, forgotten: Option<&Counter>) {
        let slice_ms = bounds.window_ms / (SLICES as u64 - 1);
        let is_over = |slice: &Slice| now_ms.saturating_sub(slice.first_ms) > slice_ms && slice.used > 0;
        if self.slices.back().is_none_or(is_over) {
            self.begin(now_ms, bounds, forgotten);
        }
        let mut newest = self.slices.back_mut().expect("one was begun");
        if newest.is_full() && newest.slots.len() < bounds.slots_max {
            newest.grow(bounds.slots_max);
        }
        if newest.is_full() {
            self.begin(now_ms, bounds, forgotten);
            newest = self.slices.back_mut().expect("one was begun");
            newest.grow(bounds.slots_max);
        }
        newest.last_ms = newest.last_ms.max(now_ms);
        newest.insert(slot);
    }

    /// Begins a slice, and drops those that are too old or too many.
    fn begin(&mut self, now_ms: u64, bounds: &Bounds, forgotten: Option<&Counter>) {
        let since_ms = now_ms.saturating_sub(bounds.window_ms);
        while self.slices.front().is_some_and(|oldest| oldest.last_ms < since_ms) {
            self.slices.pop_front();
        }
        while self.slices.len() >= SLICES {
            let oldest = self.slices.pop_front();
            if let Some(forgotten) = forgotten {
                forgotten.add(oldest.map_or(0, |slice| slice.used as u64));
            }
        }
        self.slices.push_back(Slice { first_ms: now_ms, last_ms: now_ms, ..Slice::default() });
    }

    /// The slot that a send has claimed.
    fn claimed(&mut self, identity: &Identity) -> Option<&mut Slot> {
        self.slices.iter_mut().rev().find_map(|slice| {
            let is_it = |slot: &Slot| (slot.place, slot.hash, slot.print) == (CLAIMED, identity.hash, identity.print);
            let at = slice.run(identity.hash).find(|at| is_it(&slice.slots[*at]))?;
            Some(&mut slice.slots[at])
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    window_ms: u64,
    /// Slots of one slice.
    slots_max: usize,
}

/// All shards.
#[derive(Debug)]
pub(super) struct Window {
    shards: Box<[Mutex<Shard>]>,
    bounds: Bounds,
}

impl Window {
    pub(super) fn new(window: Duration, memory: usize) -> Window {
        let slots_max = (memory / SLOT_BYTES / SHARDS / SLICES).max(10);
        let bounds = Bounds { window_ms: millis(window), slots_max };
        Window { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), bounds }
    }

    /// Messages that surely fit.
    pub(super) fn capacity(&self) -> usize {
        self.bounds.slots_max / 5 * 4 * SHARDS * (SLICES - 1)
    }

    fn shard(&self, hash: u32) -> &Mutex<Shard> {
        &self.shards[hash as usize % SHARDS]
    }

    pub(super) fn count(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).slices.iter().map(|slice| slice.used).sum::<usize>()).sum()
    }

    /// Takes what the key index says.
    pub(super) fn load(&self, hash: u32, lsn: Lsn, now_ms: u64) {
        let slot = Slot { place: lsn.0, hash, print: 0 };
        lock(self.shard(hash)).insert(slot, now_ms, &self.bounds, None);
    }

    pub(super) fn claim(&self, claims: &Claims, seen: &Seen, now_ms: u64, forgotten: &Counter) -> Claim {
        let (mut candidates, mut is_claimed) = (Vec::new(), false);
        let mut done = 0;
        for (number, identity) in claims.iter() {
            let mut found = |place: u64| match place {
                CLAIMED => is_claimed = true,
                place if seen.contains(&(number, Lsn(place))) => {}
                place => candidates.push((number, Lsn(place))),
            };
            if let Some(other) = identity.other {
                lock(self.shard(other)).candidates(other, identity.print, &mut found);
            }
            let is_first = claims.is_first(number);
            let mut shard = lock(self.shard(identity.hash));
            shard.candidates(identity.hash, identity.print, |place| {
                if is_first || place != CLAIMED {
                    found(place);
                }
            });
            if is_first && candidates.is_empty() && !is_claimed {
                let slot = Slot { place: CLAIMED, hash: identity.hash, print: identity.print };
                shard.insert(slot, now_ms, &self.bounds, Some(forgotten));
                done = number + 1;
            }
        }
        if candidates.is_empty() && !is_claimed {
            return Claim::Mine;
        }
        self.undo(&claims.without(|number| number >= done));
        candidates.sort_unstable_by_key(|(_, lsn)| *lsn);
        candidates.dedup();
        if is_claimed {
            candidates.clear();
        }
        Claim::Doubtful { candidates }
    }

    pub(super) fn appended(&self, claims: &Claims, place: impl Fn(usize) -> Option<Lsn>) {
        for (number, identity) in claims.iter() {
            let place = place(number).map_or(GONE, |lsn| lsn.0);
            let mut shard = lock(self.shard(identity.hash));
            if claims.is_first(number) {
                // Memory that ran out meanwhile may have taken it.
                if let Some(slot) = shard.claimed(identity) {
                    slot.place = place;
                }
            } else {
                let now_ms = shard.slices.back().map_or(0, |newest| newest.last_ms);
                let slot = Slot { place, hash: identity.hash, print: identity.print };
                shard.insert(slot, now_ms, &self.bounds, None);
            }
        }
    }

    pub(super) fn undo(&self, claims: &Claims) {
        for (number, identity) in claims.iter() {
            if claims.is_first(number)
                && let Some(slot) = lock(self.shard(identity.hash)).claimed(identity)
            {
                slot.place = GONE;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn identity(key: u32) -> Identity {
        Identity { hash: key.wrapping_mul(0x9E37_79B1), other: None, print: key + 1 }
    }

    fn window(memory: usize) -> (Window, Counter) {
        (Window::new(Duration::from_secs(600), memory), Counter::default())
    }

    fn claim(window: &Window, key: u32, now_ms: u64, forgotten: &Counter) -> Claim {
        window.claim(&Claims::one(Some(identity(key))), &Seen::new(), now_ms, forgotten)
    }

    fn send(window: &Window, key: u32, lsn: u64, now_ms: u64, forgotten: &Counter) {
        assert_eq!(claim(window, key, now_ms, forgotten), Claim::Mine, "{key}");
        window.appended(&Claims::one(Some(identity(key))), |_| Some(Lsn(lsn)));
    }

    fn at(lsns: &[u64]) -> Claim {
        Claim::Doubtful { candidates: lsns.iter().map(|lsn| (0, Lsn(*lsn))).collect() }
    }

    #[test]
    fn what_was_sent_is_found_until_the_window_is_over_and_not_for_ever() {
        let (window, forgotten) = window(1 << 20);
        for key in 0..1000 {
            send(&window, key, u64::from(key) * 8, NOW + u64::from(key) * 100, &forgotten);
        }
        for key in 0..1000 {
            let later = claim(&window, key, NOW + 100_000 + 500_000, &forgotten);
            assert_eq!(later, at(&[u64::from(key) * 8]), "{key}");
        }
        // Slices go when something new comes.
        for round in 0..6_u32 {
            for key in 0..200 {
                let now_ms = NOW + 700_000 + u64::from(round) * 200_000;
                send(&window, 5000 + round * 200 + key, 1 << 20, now_ms, &forgotten);
            }
        }
        assert!(window.count() <= 1000, "{}", window.count());
        assert_eq!(claim(&window, 999, NOW + 1_700_000, &forgotten), Claim::Mine);
        assert_eq!(forgotten.get(), 0, "none before its time");
    }

    #[test]
    fn a_claim_stands_in_the_way_until_it_has_a_place_or_is_undone() {
        let (window, forgotten) = window(1 << 20);
        assert_eq!(claim(&window, 7, NOW, &forgotten), Claim::Mine);
        let busy = Claim::Doubtful { candidates: Vec::new() };
        assert_eq!(claim(&window, 7, NOW, &forgotten), busy);
        window.undo(&Claims::one(Some(identity(7))));
        assert_eq!(claim(&window, 7, NOW, &forgotten), Claim::Mine);
        window.appended(&Claims::one(Some(identity(7))), |_| Some(Lsn(64)));
        assert_eq!(claim(&window, 7, NOW, &forgotten), at(&[64]));
        // What was looked at and is another message stands in nobody's way.
        let again = Claims::one(Some(identity(7)));
        assert_eq!(window.claim(&again, &Seen::from([(0, Lsn(64))]), NOW, &forgotten), Claim::Mine);
        window.appended(&again, |_| Some(Lsn(128)));
        assert_eq!(claim(&window, 7, NOW, &forgotten), at(&[64, 128]));
    }

    #[test]
    fn what_stands_in_a_batch_again_is_known_by_its_number_and_anew_when_some_are_left_out() {
        let claims = Claims::many([7, 8, 7, 9, 8, 7].map(|key| Some(identity(key))).into());
        assert_eq!(claims.again, [2, 4, 5]);
        let rest = claims.without(|number| number == 0 || number == 4);
        assert_eq!(rest.again, [5]);
        assert_eq!((rest.is_first(2), rest.is_first(5), rest.count()), (true, false, 6));
        assert!(Claims::many(vec![None, None]).again.is_empty(), "what has no key is never claimed");
    }

    #[test]
    fn a_batch_is_claimed_whole_or_not_at_all_and_may_hold_a_message_twice() {
        let (window, forgotten) = window(1 << 20);
        let of = |keys: &[u32]| Claims::many(keys.iter().map(|key| Some(identity(*key))).collect());
        send(&window, 3, 800, NOW, &forgotten);
        let found = window.claim(&of(&[1, 2, 3, 4]), &Seen::new(), NOW, &forgotten);
        assert_eq!(found, Claim::Doubtful { candidates: vec![(2, Lsn(800))] });
        for key in [1, 2, 4] {
            send(&window, key, 8 * u64::from(key), NOW, &forgotten);
        }
        let twice = of(&[9, 9]);
        assert_eq!(window.claim(&twice, &Seen::new(), NOW, &forgotten), Claim::Mine);
        window.appended(&twice, |number| Some(Lsn(1000 + 8 * number as u64)));
        assert_eq!(claim(&window, 9, NOW, &forgotten), at(&[1000, 1008]));
        assert_eq!(
            window.claim(&Claims::many(vec![None, None]), &Seen::new(), NOW, &forgotten),
            Claim::Mine,
            "what has no key is never in doubt"
        );
    }

    #[test]
    fn other_keys_and_what_else_must_be_equal_keep_messages_apart() {
        let (window, forgotten) = window(1 << 20);
        send(&window, 1, 8, NOW, &forgotten);
        let other = Identity { print: 99, ..identity(1) };
        assert_eq!(window.claim(&Claims::one(Some(other)), &Seen::new(), NOW, &forgotten), Claim::Mine);
        // Of what the key index says only the key is known; and a message may stand under either of two hashes.
        window.load(identity(2).hash, Lsn(16), NOW);
        assert_eq!(claim(&window, 2, NOW, &forgotten), at(&[16]));
        let either = Identity { other: Some(identity(2).hash), ..identity(3) };
        assert_eq!(window.claim(&Claims::one(Some(either)), &Seen::new(), NOW, &forgotten), at(&[16]));
        let print = |topic, key, times, body: &[u8]| Identity::print(topic, key, times, body);
        let first = print("T", "K", 0, b"x");
        for (what, other) in [
            ("topic", print("U", "K", 0, b"x")),
            ("key", print("T", "L", 0, b"x")),
            ("reconsume count", print("T", "K", 1, b"x")),
            ("body", print("T", "K", 0, b"y")),
        ] {
            assert_ne!(first, other, "{what}");
        }
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_is_forgotten_first_and_counted() {
        let memory = 64 << 10;
        let (window, forgotten) = window(memory);
        let count = u32::try_from(window.capacity() * 3).expect("small");
        for key in 0..count {
            send(&window, key, u64::from(key) * 8, NOW, &forgotten);
            let slots: usize = window
                .shards
                .iter()
                .flat_map(|s| lock(s).slices.iter().map(|s| s.slots.len()).collect::<Vec<_>>())
                .sum();
            assert!(slots * SLOT_BYTES <= memory, "{slots} slots");
        }
        assert_eq!(forgotten.get() + window.count() as u64, u64::from(count));
        assert!(forgotten.get() > 0);
        // The newest first: what is not known is claimed then, and that makes the window forget.
        let is_known = |key: &u32| claim(&window, *key, NOW, &forgotten) != Claim::Mine;
        let known = (0..count).rev().filter(is_known).collect::<Vec<_>>();
        let newest = count - count / 6..count;
        assert!(newest.clone().all(|key| known.contains(&key)), "the newest are known");
        assert!(!known.contains(&0) && known.len() < window.capacity() * 2);
    }
}
