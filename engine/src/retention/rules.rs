//! How far the log may be released: what the operator asked for, below every pin.

use std::collections::BTreeMap;

use crate::commitlog::segment::Geometry;
use crate::limits;
use crate::units::{Lsn, QueueOffset};

/// What the rules say now, and what stands against them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionInfo {
    /// The log is dense from here on.
    pub start: Lsn,
    /// It would begin here if there were no pins.
    pub wanted: Lsn,
    /// Pins below that, by name.
    pub held_by: Vec<(String, Lsn)>,
    /// Segments below the start that are kept for survivors.
    pub sparse_segments: usize,
    /// Messages that survive in them.
    pub survivors: usize,
    /// How many of these still stand in their queues, for whoever pinned them there; table entries and links hold the others.
    pub in_queues: usize,
    /// Bytes of such segments that were punched out since open.
    pub punched_bytes: u64,
    /// Such segments whose holes could not be punched: the file system has none, or too little would be gained.
    pub kept_whole: usize,
    /// Releases since open that met damage in what they let go: what the table had of it was said again all the same.
    pub passed_damage: u64,
    /// Why nothing is released, where the last try failed; `None` when segments went since.
    pub failing: Option<String>,
}

/// So much longer than it is to be a log gets while its oldest segments are on their way out.
pub(crate) fn overshoot_bytes(geometry: Geometry, spare_count: u64) -> u64 {
    (limits::OVERSHOOT_SEGMENTS + spare_count) * geometry.data_bytes()
}

/// How far the log may be released.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    /// Asked for by name.
    pub(crate) released: Lsn,
    pub(crate) pins: BTreeMap<String, Lsn>,
    /// What clients of queues still need: by name and queue number, the first offset.
    pub(crate) queue_pins: BTreeMap<(String, u32), QueueOffset>,
    /// By age and by free space, as last found.
    pub(crate) aged: Lsn,
    /// Nothing is released, whatever the rules say.
    pub(crate) held: bool,
    /// The log says that it begins here, or will in a moment: nothing holds what lies below any more.
    pub(crate) leaving: Lsn,
    pub(crate) punched_bytes: u64,
    pub(crate) kept_whole: usize,
    pub(crate) passed_damage: u64,
    pub(crate) failing: Option<String>,
}

impl Retention {
    /// Where the log would begin if there were no pins.
    pub(crate) fn wanted(&self, geometry: Geometry, assigned: Lsn, retain_bytes: Option<u64>) -> Lsn {
        let by_size = retain_bytes.map_or(Lsn::ZERO, |bytes| Lsn(assigned.0.saturating_sub(bytes)));
        geometry.base(self.released.max(by_size).max(self.aged))
    }

    /// The new start of the log: a segment's base, at or above `start`.
    pub(crate) fn target(
        &self,
        geometry: Geometry,
        start: Lsn,
        settled: Lsn,
        assigned: Lsn,
        retain_bytes: Option<u64>,
    ) -> Lsn {
        if self.held {
            return start;
        }
        let pinned = self.pins.values().copied().min().unwrap_or(Lsn::MAX);
        let wanted = self.wanted(geometry, assigned, retain_bytes);
        geometry.base(wanted.min(pinned).min(settled)).max(start)
    }

    /// How far ordinary batches may take the log that begins at `start` while more of it than `retain_bytes` waits to be released.
    /// [`Lsn::MAX`] while a pin holds all that could go: a log that is needed grows.
    pub(crate) fn bound(&self, geometry: Geometry, start: Lsn, retain_bytes: Option<u64>, spare_count: u64) -> Lsn {
        let pinned = self.pins.values().copied().min().unwrap_or(Lsn::MAX);
        let is_pinned = self.held || geometry.base(pinned) <= start;
        let Some(bytes) = retain_bytes.filter(|_| !is_pinned) else { return Lsn::MAX };
        start.plus(bytes + overshoot_bytes(geometry, spare_count))
    }

    /// The first offset that somebody needs of each pinned queue, by queue number.
    pub(crate) fn needed(&self) -> BTreeMap<u32, QueueOffset> {
        let mut needed = BTreeMap::new();
        for ((_, queue), offset) in &self.queue_pins {
            let first = needed.entry(*queue).or_insert(*offset);
            *first = (*first).min(*offset);
        }
        needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Tail;

    /// K-36: what no queue has yet stays, whatever age and size say.
    #[test]
    fn pins_and_dispatch_hold_what_size_age_and_release_would_let_go() {
        let geometry = Geometry { segment_bytes: 4096 + 1000 * 4096, tail: Tail::Rewrite };
        let segment = geometry.data_bytes();
        let mut retention = Retention::default();
        let target = |retention: &Retention, dispatched: u64, retain| {
            retention.target(geometry, Lsn::ZERO, Lsn(dispatched), Lsn(10 * segment + 5), retain).0
        };
        assert_eq!(target(&retention, 10 * segment, None), 0);
        assert_eq!(target(&retention, 10 * segment, Some(2 * segment)), 8 * segment);
        retention.released = Lsn(9 * segment - 1);
        assert_eq!(target(&retention, 10 * segment, None), 8 * segment);
        retention.aged = Lsn(9 * segment);
        assert_eq!(target(&retention, 10 * segment, None), 9 * segment);
        assert_eq!(target(&retention, 3 * segment + 7, None), 3 * segment);
        retention.pins.insert("state".into(), Lsn(segment + 9));
        assert_eq!(target(&retention, 10 * segment, None), segment);
        assert_eq!(retention.wanted(geometry, Lsn(10 * segment + 5), None).0, 9 * segment, "wanted all the same");
    }

    #[test]
    fn a_log_grows_beyond_its_bound_only_for_whoever_needs_all_of_it() {
        let geometry = Geometry { segment_bytes: 4096 + 1000 * 4096, tail: Tail::Rewrite };
        let segment = geometry.data_bytes();
        let mut retention = Retention::default();
        let bound = |retention: &Retention| retention.bound(geometry, Lsn(4 * segment), Some(3 * segment + 1), 1);
        let expected = Lsn(4 * segment + 3 * segment + 1 + (limits::OVERSHOOT_SEGMENTS + 1) * segment);
        assert_eq!(bound(&retention), expected);
        retention.pins.insert("follower".into(), Lsn(5 * segment));
        assert_eq!(bound(&retention), expected, "a segment can go");
        retention.pins.insert("reader".into(), Lsn(5 * segment - 8));
        assert_eq!(bound(&retention), Lsn::MAX);
        retention.pins.clear();
        retention.held = true;
        assert_eq!(bound(&retention), Lsn::MAX);
        retention.held = false;
        assert_eq!(retention.bound(geometry, Lsn(4 * segment), None, 1), Lsn::MAX);
    }

    #[test]
    fn of_several_who_need_a_queue_the_one_furthest_behind_counts() {
        let mut retention = Retention::default();
        retention.queue_pins.insert(("a".into(), 1), QueueOffset(7));
        retention.queue_pins.insert(("b".into(), 1), QueueOffset(5));
        retention.queue_pins.insert(("b".into(), 2), QueueOffset(9));
        assert_eq!(retention.needed(), BTreeMap::from([(1, QueueOffset(5)), (2, QueueOffset(9))]));
    }
}
