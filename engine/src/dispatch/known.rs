//! Queues that frames have named, and how they are found again.
//!
//! With thousands of queues each record waits for memory several times over, and the processor waits for many things at once only where
//! nothing else stands between. So the queues of some records are looked up together, ahead of their turn, and remembered.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::consume_queue::QueueState;

/// Records that are looked at together.
const RECORDS_AHEAD: usize = 32;
/// So many queues lie in the processor's caches anyway.
const FEW_QUEUES: usize = 256;
/// Bytes of a name that lie in the map itself: looking at others waits for memory once more.
const SHORT_NAME: usize = 39;

/// The queue behind a name: its newest incarnation that a frame has named.
pub(super) struct KnownQueue {
    pub(super) incarnation: u32,
    pub(super) id: u32,
    pub(super) state: Arc<QueueState>,
}

/// All of them. A name keeps its place.
#[derive(Default)]
pub(super) struct Known {
    places: HashMap<Name, usize>,
    queues: Vec<KnownQueue>,
    /// Places of the next records' names, where they have one, and the next of them.
    ahead: Vec<Option<usize>>,
    ahead_at: usize,
}

impl Known {
    /// Looks up the names of the next records, and lets what their queues will change come into the processor's caches.
    pub(super) fn look_ahead<'n>(&mut self, names: impl Iterator<Item = &'n [u8]>) {
        self.ahead.clear();
        self.ahead_at = 0;
        if self.queues.len() < FEW_QUEUES {
            return;
        }
        self.ahead.extend(names.take(RECORDS_AHEAD).map(|name| self.places.get(name).copied()));
        let states = || self.ahead.iter().flatten().map(|place| &self.queues[*place].state);
        states().for_each(|state| state.prefetch());
        states().for_each(|state| state.prefetch_next());
    }

    /// Where the name of the next record stands, if it was looked up and found. Once for each record.
    pub(super) fn next(&mut self) -> Option<usize> {
        let place = self.ahead.get(self.ahead_at).copied().flatten();
        self.ahead_at += 1;
        place
    }

    /// Where a name stands.
    pub(super) fn place(&self, name: &[u8]) -> Option<usize> {
        self.places.get(name).copied()
    }

    pub(super) fn get(&self, place: usize) -> &KnownQueue {
        &self.queues[place]
    }

    /// From now on the name stands for this queue; returns its place.
    pub(super) fn set(&mut self, name: &[u8], queue: KnownQueue) -> usize {
        if let Some(place) = self.place(name) {
            self.queues[place] = queue;
            return place;
        }
        self.queues.push(queue);
        self.places.insert(Name::from(name), self.queues.len() - 1);
        self.queues.len() - 1
    }
}

/// A queue's name as a key.
enum Name {
    Short(u8, [u8; SHORT_NAME]),
    Long(Box<[u8]>),
}

impl From<&[u8]> for Name {
    fn from(name: &[u8]) -> Name {
        let mut short = [0; SHORT_NAME];
        match (short.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(name);
                Name::Short(len, short)
            }
            _ => Name::Long(name.into()),
        }
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        match self {
            Name::Short(len, bytes) => &bytes[..usize::from(*len)],
            Name::Long(bytes) => bytes,
        }
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrow::<[u8]>::borrow(self).hash(state);
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        Borrow::<[u8]>::borrow(self) == Borrow::<[u8]>::borrow(other)
    }
}

impl Eq for Name {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_length_is_found_by_its_bytes_and_no_other_is() {
        let name = |len: usize| vec![b'n'; len];
        let lengths = || (0..2 * SHORT_NAME).chain([255, 256, 300]);
        let mut known = HashMap::new();
        for len in lengths() {
            assert!(known.insert(Name::from(&name(len)[..]), len).is_none(), "{len}");
        }
        for len in lengths() {
            assert_eq!(known.get(&name(len)[..]), Some(&len));
        }
        assert_eq!(known.get(&name(299)[..]), None);
        assert_eq!(known.get(&b"nnm"[..]), None);
    }

    fn named(number: u32) -> String {
        format!("topic/{number}")
    }

    fn queue(id: u32, incarnation: u32) -> KnownQueue {
        KnownQueue { incarnation, id, state: Arc::new(QueueState::new()) }
    }

    #[test]
    fn names_that_were_looked_up_ahead_come_in_their_order_and_each_once() {
        let (mut known, many) = (Known::default(), 2 * u32::try_from(FEW_QUEUES).expect("small"));
        for id in 0..many {
            known.set(named(id).as_bytes(), queue(id, 0));
        }
        let names: Vec<String> = [7, 300, 999_999, 7].map(named).to_vec();
        known.look_ahead(names.iter().map(String::as_bytes));
        let found = [(); 5].map(|()| known.next().map(|place| known.get(place).id));
        assert_eq!(found, [Some(7), Some(300), None, Some(7), None], "one is unknown, and there is no fifth");
        known.look_ahead((0..many).map(named).collect::<Vec<_>>().iter().map(String::as_bytes));
        let places: Vec<usize> = std::iter::from_fn(|| known.next()).collect();
        let found = places.into_iter().map(|place| known.get(place).id);
        assert!(found.eq(0..u32::try_from(RECORDS_AHEAD).expect("small")));
    }

    #[test]
    fn a_name_keeps_its_place_when_its_next_incarnation_comes() {
        let mut known = Known::default();
        let places = [0, 1].map(|id| known.set(named(id).as_bytes(), queue(id, 0)));
        assert_eq!(known.set(named(0).as_bytes(), queue(2, 1)), places[0]);
        assert_eq!([0, 1].map(|id| known.place(named(id).as_bytes())), places.map(Some));
        assert_eq!((known.get(places[0]).id, known.get(places[0]).incarnation), (2, 1));
    }
}
