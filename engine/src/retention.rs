//! Which whole segments may go, and the order in which they do.
//!
//! Invariants:
//! 1. Nothing at or above a pin, above what is dispatched, or that a table entry or a retained link refers to, goes.
//! 2. Before a segment goes, every queue and every table entry whose newest record lies in it is restated further on, and that is durable.
//! 3. The manifest says, durably, that the log begins later before a file is reused.

use std::collections::BTreeMap;

use crate::commitlog::segment::Geometry;
use crate::units::Lsn;

/// How far the log may be released.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    /// Asked for by name.
    pub(crate) released: Lsn,
    pub(crate) pins: BTreeMap<String, Lsn>,
}

impl Retention {
    /// The new start of the log: a segment's base, at or above `start`.
    pub(crate) fn target(
        &self,
        geometry: Geometry,
        start: Lsn,
        dispatched: Lsn,
        assigned: Lsn,
        retain_bytes: Option<u64>,
        lowest_target: impl Fn(Lsn) -> Option<Lsn>,
    ) -> Lsn {
        let by_size = retain_bytes.map_or(Lsn::ZERO, |bytes| Lsn(assigned.0.saturating_sub(bytes)));
        let wanted = self.released.max(by_size);
        let pinned = self.pins.values().copied().min().unwrap_or(Lsn::MAX);
        let mut target = geometry.base(wanted.min(pinned).min(dispatched));
        // What is kept for a reference holds links of its own.
        while target > start
            && let Some(lowest) = lowest_target(target)
        {
            target = geometry.base(lowest);
        }
        target.max(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Tail;

    #[test]
    fn pins_and_dispatch_hold_what_size_and_release_would_let_go() {
        let geometry = Geometry { segment_bytes: 4096 + 1000 * 4096, tail: Tail::Rewrite };
        let segment = geometry.data_bytes();
        let mut retention = Retention::default();
        let target = |retention: &Retention, dispatched: u64, retain| {
            retention.target(geometry, Lsn::ZERO, Lsn(dispatched), Lsn(10 * segment + 5), retain, |_| None).0
        };
        assert_eq!(target(&retention, 10 * segment, None), 0);
        assert_eq!(target(&retention, 10 * segment, Some(2 * segment)), 8 * segment);
        retention.released = Lsn(9 * segment - 1);
        assert_eq!(target(&retention, 10 * segment, None), 8 * segment);
        assert_eq!(target(&retention, 3 * segment + 7, None), 3 * segment);
        retention.pins.insert("state".into(), Lsn(segment + 9));
        assert_eq!(target(&retention, 10 * segment, None), segment);
    }

    #[test]
    fn references_hold_what_they_refer_to_and_what_that_refers_to() {
        let geometry = Geometry { segment_bytes: 4096 + 1000 * 4096, tail: Tail::Rewrite };
        let segment = geometry.data_bytes();
        let retention = Retention { released: Lsn(9 * segment), ..Retention::default() };
        let references = |below: Lsn| match below.0 / segment {
            9 => Some(Lsn(5 * segment + 8)),
            5 => Some(Lsn(2 * segment + 8)),
            _ => None,
        };
        let target = retention.target(geometry, Lsn::ZERO, Lsn(10 * segment), Lsn(10 * segment), None, references);
        assert_eq!(target, Lsn(2 * segment));
    }
}
