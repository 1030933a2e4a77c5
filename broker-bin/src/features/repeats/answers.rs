//! What was answered otherwise than at once and to whom it came from: whatever is not here was answered in time.
//!
//! 1. Places are ranges of the log: what is overdue at one moment lies together, so that a long stall takes one entry.
//! 2. Everything here is bounded, and the oldest goes first. Then a send counts as answered in time to whoever sent it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use anchorlog_engine::Lsn;

use crate::limits;
use crate::lock::lock;
use crate::net::ConnectionId;

/// A message in the log that is the same as one that is sent.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// Its place.
    pub lsn: Lsn,
    /// Whom it came from.
    pub peer: SocketAddr,
    /// When it was answered at the latest, in milliseconds since 1970, if it was answered in time.
    pub answered_ms: u64,
}

/// Who was told an answer last.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// From where that connection came.
    pub peer: SocketAddr,
    /// Which it was.
    pub connection: ConnectionId,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// Ranges that are looked at for one place.
const NESTED_MAX: usize = 8;

/// A message's queue and offset.
pub(crate) type QueuePlace = (u32, u64);

#[derive(Debug, Default)]
struct Known {
    /// Where messages lie that were answered as stored and not confirmed.
    unsure: BTreeMap<Lsn, Lsn>,
    /// Their places in their queues.
    places: BTreeMap<Lsn, QueuePlace>,
    /// By whom a repeat was answered.
    told: BTreeMap<Lsn, Told>,
}

/// All answers that are worth remembering. Shared by every network thread.
#[derive(Debug, Default)]
pub struct Answers(Mutex<Known>);

impl Answers {
    /// What lies from `first` to `end` was answered as not confirmed; everything before `acked` was acknowledged by then.
    pub fn overdue(&self, first: Lsn, end: Lsn, acked: Lsn) {
        let mut known = lock(&self.0);
        // What lies between two that are overdue at one moment is as old as they are.
        let same = known.unsure.range(..=first).next_back().filter(|(_, last)| **last > acked || **last >= first);
        let start = same.map_or(first, |(start, _)| *start);
        let range = known.unsure.entry(start).or_insert(end);
        *range = end.max(*range);
        bound(&mut known.unsure);
    }

    /// A message of those has this place in its queue.
    pub fn overdue_at(&self, lsn: Lsn, place: QueuePlace) {
        let mut known = lock(&self.0);
        known.places.insert(lsn, place);
        bound(&mut known.places);
    }

    /// The place of a message that was answered as not confirmed.
    #[must_use]
    pub fn place(&self, lsn: Lsn) -> Option<QueuePlace> {
        lock(&self.0).places.get(&lsn).copied()
    }

    /// Somebody was told what became of this message.
    pub fn tell(&self, lsn: Lsn, told: Told) {
        let mut known = lock(&self.0);
        known.told.insert(lsn, told);
        bound(&mut known.told);
    }

    pub(super) fn told(&self, lsn: Lsn) -> Option<Told> {
        lock(&self.0).told.get(&lsn).copied()
    }

    /// Whether what lies here was answered as not confirmed.
    #[must_use]
    pub fn is_unsure(&self, lsn: Lsn) -> bool {
        let known = lock(&self.0);
        // Ranges of several network threads may lie in each other.
        known.unsure.range(..=lsn).rev().take(NESTED_MAX).any(|(_, end)| lsn < *end)
    }
}

fn bound<T>(map: &mut BTreeMap<Lsn, T>) {
    if map.len() > limits::ANSWERS_MAX {
        map.pop_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_overdue_at_one_moment_is_one_range() {
        let answers = Answers::default();
        for lsn in (800..1600).step_by(8) {
            answers.overdue(Lsn(lsn), Lsn(lsn + 8), Lsn(800));
        }
        assert_eq!(lock(&answers.0).unsure.len(), 1);
        // Acknowledged in between: what lies there was answered.
        answers.overdue(Lsn(4000), Lsn(4008), Lsn(3000));
        let is_unsure = |lsn| answers.is_unsure(Lsn(lsn));
        assert_eq!(
            [796, 800, 1592, 1600, 3000, 4000, 4008].map(is_unsure),
            [false, true, true, false, false, true, false]
        );
    }

    #[test]
    fn the_oldest_answers_are_forgotten_first() {
        let answers = Answers::default();
        let count = u64::try_from(limits::ANSWERS_MAX).expect("small") + 10;
        for lsn in 0..count {
            answers.overdue_at(Lsn(lsn), (1, lsn));
        }
        assert_eq!((answers.place(Lsn(9)), answers.place(Lsn(10))), (None, Some((1, 10))));
    }
}
