//! What is known to be damaged: counted, and listed by place.
//!
//! Invariants:
//! 1. Every damaged record that a reader meets is counted, each time; every place that the scrub finds is counted once a pass.
//! 2. A place is listed and logged once, whoever finds it and however often. The list is bounded; the counters are not.
//! 3. A place leaves the list with its segment, or when it is whole again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits;
use crate::units::Lsn;

/// Which part of the log is damaged, and so what is lost with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DamagedPart {
    /// A segment file's header: the log cannot be opened again with it; its messages are readable until then. The scrub writes it anew.
    SegmentHeader,
    /// A frame's header: its messages can still be fetched from their queues, but not be read by LSN, and the log cannot be opened again
    /// with it.
    FrameHeader,
    /// One record: the message, table entry or counter in it.
    Record,
}

impl DamagedPart {
    /// What follows from it, in words.
    fn consequence(self) -> &'static str {
        match self {
            DamagedPart::SegmentHeader => {
                "no message is concerned, but the next start refuses the log unless the header is written anew: that is tried now"
            }
            DamagedPart::FrameHeader => {
                "messages of other frames are not concerned, but a start that has to read there, for no checkpoint lies behind it, refuses \
                 the log until it is mended"
            }
            DamagedPart::Record => {
                "other messages are not concerned, but a start that has to read there, for no checkpoint lies behind it, refuses the log \
                 until it is mended"
            }
        }
    }
}

impl std::fmt::Display for DamagedPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DamagedPart::SegmentHeader => "segment header",
            DamagedPart::FrameHeader => "frame header",
            DamagedPart::Record => "record",
        })
    }
}

/// One damaged place; from [`crate::Engine::damaged_places`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedPlace {
    /// Where in the log the damaged part begins.
    pub lsn: Lsn,
    /// Which part.
    pub part: DamagedPart,
    /// In which file.
    pub path: PathBuf,
    /// What does not fit.
    pub what: String,
}

/// All that is known of damage in one open log.
#[derive(Debug, Default)]
pub(crate) struct Damages {
    places: Mutex<BTreeMap<(Lsn, DamagedPart), DamagedPlace>>,
    met: AtomicU64,
    scrubbed: AtomicU64,
    mended: AtomicU64,
    mended_bytes: AtomicU64,
}

impl Damages {
    /// A reader met it.
    pub(crate) fn meet(&self, place: DamagedPlace) {
        self.met.fetch_add(1, Ordering::Relaxed);
        self.note(place);
    }

    /// The scrub found it.
    pub(crate) fn find(&self, place: DamagedPlace) {
        self.scrubbed.fetch_add(1, Ordering::Relaxed);
        self.note(place);
    }

    /// It is known to be damaged, and nobody met it.
    pub(crate) fn note(&self, place: DamagedPlace) {
        let mut places = self.places.lock().expect("the damage list is intact");
        let key = (place.lsn, place.part);
        if places.contains_key(&key) || places.len() >= limits::DAMAGED_PLACES_MAX {
            return;
        }
        let DamagedPlace { lsn, part, path, what } = &place;
        let consequence = part.consequence();
        tracing::error!(%lsn, %part, path = %path.display(), %what, consequence, "damage in the log");
        places.insert(key, place);
        if places.len() == limits::DAMAGED_PLACES_MAX {
            tracing::error!(count = places.len(), "more damaged places are counted, not listed");
        }
    }

    /// Damaged records met by readers.
    pub(crate) fn met(&self) -> u64 {
        self.met.load(Ordering::Relaxed)
    }

    /// Damaged places found by the scrub.
    pub(crate) fn scrubbed(&self) -> u64 {
        self.scrubbed.load(Ordering::Relaxed)
    }

    /// A range is whole again, for which so many bytes were written; an empty one is a segment's header.
    pub(crate) fn mend(&self, range: Range<Lsn>, bytes: u64) {
        self.mended.fetch_add(1, Ordering::Relaxed);
        self.mended_bytes.fetch_add(bytes, Ordering::Relaxed);
        let is_header = range.start == range.end;
        self.forget(if is_header { range.start..range.end.plus(1) } else { range }, is_header);
    }

    /// Ranges mended.
    pub(crate) fn mended(&self) -> u64 {
        self.mended.load(Ordering::Relaxed)
    }

    /// Bytes written for them.
    pub(crate) fn mended_bytes(&self) -> u64 {
        self.mended_bytes.load(Ordering::Relaxed)
    }

    /// Takes the segments' headers of a range off the list, or everything else of it.
    pub(crate) fn forget(&self, range: Range<Lsn>, headers: bool) {
        let mut places = self.places.lock().expect("the damage list is intact");
        places.retain(|(lsn, part), _| !range.contains(lsn) || (*part == DamagedPart::SegmentHeader) != headers);
    }

    /// The places that are `there` still, in the order of the log.
    pub(crate) fn places(&self, there: impl Fn(Lsn) -> bool) -> Vec<DamagedPlace> {
        let mut places = self.places.lock().expect("the damage list is intact");
        places.retain(|(lsn, _), _| there(*lsn));
        places.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(lsn: u64, part: DamagedPart) -> DamagedPlace {
        DamagedPlace { lsn: Lsn(lsn), part, path: PathBuf::from("segment"), what: "a test".into() }
    }

    #[test]
    fn a_place_is_counted_each_time_and_listed_once() {
        let damages = Damages::default();
        damages.find(place(8, DamagedPart::Record));
        damages.meet(place(8, DamagedPart::Record));
        damages.meet(place(8, DamagedPart::Record));
        damages.find(place(0, DamagedPart::SegmentHeader));
        damages.find(place(0, DamagedPart::FrameHeader));
        assert_eq!((damages.met(), damages.scrubbed()), (2, 3));
        let listed: Vec<_> = damages.places(|_| true).into_iter().map(|place| (place.lsn.0, place.part)).collect();
        let (segment, frame) = (DamagedPart::SegmentHeader, DamagedPart::FrameHeader);
        assert_eq!(listed, [(0, segment), (0, frame), (8, DamagedPart::Record)]);
    }

    #[test]
    fn the_list_is_bounded_and_forgets_what_is_gone() {
        let damages = Damages::default();
        let count = u64::try_from(limits::DAMAGED_PLACES_MAX).unwrap() + 5;
        for number in 0..count {
            damages.find(place(number * 8, DamagedPart::Record));
        }
        assert_eq!(damages.places(|_| true).len(), limits::DAMAGED_PLACES_MAX);
        assert_eq!(damages.scrubbed(), count);
        assert_eq!(damages.places(|lsn| lsn.0 < 80).len(), 10);
        damages.find(place(9000, DamagedPart::Record));
        assert_eq!(damages.places(|_| true).len(), 11, "there is room again");
    }
}
