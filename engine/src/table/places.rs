//! Where in the log table entries were written, so that a release need not read what says nothing of the table.
//!
//! A full-rate log passes through its segments faster than they can be read back beside it; entries are written in few of its frames.

use std::collections::VecDeque;

use crate::limits;
use crate::units::Lsn;

/// The frames that put entries.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Below this nobody has looked.
    known_from: Lsn,
    /// In their order.
    frames: VecDeque<Lsn>,
}

impl Places {
    /// Knows nothing of what lies below `known_from`.
    pub(crate) fn new(known_from: Lsn) -> Places {
        Places { known_from, frames: VecDeque::new() }
    }

    /// The frame at `lsn`, behind all that were noted before, puts an entry.
    pub(crate) fn note(&mut self, lsn: Lsn) {
        if self.frames.len() == limits::PUT_PLACES_MAX {
            // The older half is for reading again.
            self.frames.drain(..limits::PUT_PLACES_MAX / 2);
            self.known_from = self.frames.front().copied().unwrap_or(lsn);
        }
        self.frames.push_back(lsn);
    }

    /// The first place at or behind `at` where a frame may put an entry: a frame that does, or `at` itself where nobody has looked.
    pub(crate) fn next(&self, at: Lsn) -> Lsn {
        if at < self.known_from {
            return at;
        }
        let index = self.frames.partition_point(|frame| *frame < at);
        self.frames.get(index).copied().unwrap_or(Lsn::MAX)
    }

    /// Nobody will ask for what lies below `lsn` any more.
    pub(crate) fn forget_below(&mut self, lsn: Lsn) {
        let count = self.frames.partition_point(|frame| *frame < lsn);
        self.frames.drain(..count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_frames_that_put_entries_are_looked_at() {
        let mut places = Places::new(Lsn(100));
        assert_eq!(places.next(Lsn(40)), Lsn(40), "nobody has looked there");
        assert_eq!(places.next(Lsn(100)), Lsn::MAX);
        for lsn in [120, 200, 360] {
            places.note(Lsn(lsn));
        }
        assert_eq!([100, 120, 121, 361].map(|at| places.next(Lsn(at))), [Lsn(120), Lsn(120), Lsn(200), Lsn::MAX]);
        places.forget_below(Lsn(200));
        assert_eq!(places.next(Lsn(100)), Lsn(200));
    }

    #[test]
    fn what_is_too_much_to_remember_is_read_again() {
        let mut places = Places::default();
        let lsn = |index: usize| Lsn(crate::units::to_u64(index) * 8);
        for index in 0..=limits::PUT_PLACES_MAX {
            places.note(lsn(index));
        }
        let half = limits::PUT_PLACES_MAX / 2;
        assert_eq!(places.next(lsn(7).plus(1)), lsn(7).plus(1));
        assert_eq!(places.next(lsn(half).plus(1)), lsn(half + 1));
    }
}
