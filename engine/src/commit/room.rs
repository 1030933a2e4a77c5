//! Room: how far the log can go without asking the file system for anything, and who may go there.
//!
//! ```text
//!      assigned                                                       prepared end
//!  --------|----------------------|---------------------|-------------------|
//!          |  ordinary batches    |  essential batches  |  the engine alone |
//!                                 |<- essential bytes ->|<--- own bytes --->|
//! ```
//!
//! Segments stand ready ahead of the log: allocated, named, durable. The last of them are the reserve. While the disk has room, more are
//! made before ordinary batches come near it. When no more can be made, ordinary batches are refused at its edge; offsets, deletions and
//! what else frees space (`WriteBatch::set_essential`) go on into it, but not into its last part: there the engine says again what a
//! segment says that is to be released, or a full disk could never be emptied.
//!
//! Invariants:
//! 1. Nothing is given a place behind the prepared end, so nothing that is waited for can meet a full disk (K-14).
//! 2. Once the reserve has come together, or the disk was found full before, ordinary batches leave it alone (K-63).
//! 3. What one segment says last fits the engine's own part, wherever in a segment that part begins.
//! 4. Ordinary batches do not outrun the release of what a log of bounded length is to let go.
//!
//! Only numbers are kept here: `segments` makes files, `housekeeping` makes them ahead of need, the sequencer asks.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::commitlog::segment::Geometry;
use crate::error::AppendError;
use crate::limits;
use crate::units::Lsn;

/// Who asks for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Any batch.
    Ordinary,
    /// A batch that helps to free space, or that others must not stand in the way of.
    Essential,
    /// The engine itself, for what must be said before space can be freed.
    Own,
}

/// Why a batch got no place.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The next segment is not there yet: make one, and ask again.
    NoSegment,
    /// For this reason.
    Because(AppendError),
}

impl<E: Into<AppendError>> From<E> for Refused {
    fn from(error: E) -> Refused {
        Refused::Because(error.into())
    }
}

/// What the log can still take.
#[derive(Clone, Debug)]
pub struct Space {
    /// Bytes of log that stand ready for any batch. While [`Space::full`] is `None`, more are made as they are used.
    pub ordinary_bytes: u64,
    /// Bytes of log that stand ready for batches with [`crate::WriteBatch::set_essential`]: those, and the reserve.
    pub essential_bytes: u64,
    /// Bytes that the file system says are free; `None` when it does not answer.
    pub free_bytes: Option<u64>,
    /// Why the log cannot grow, if it cannot: the disk is full, a quota is used up, or files may not be so long. It stands in the way of
    /// another segment, or of a checkpoint that is overdue.
    pub full: Option<Arc<io::Error>>,
    /// Whether ordinary appends are being refused for it.
    pub refuses: bool,
    /// Appends refused for it since open.
    pub refused: u64,
}

const LOCKED: &str = "no holder of this lock panics";

/// See the module.
#[derive(Debug)]
pub(crate) struct Room {
    geometry: Geometry,
    essential_bytes: u64,
    own_bytes: u64,
    prepared_end: AtomicU64,
    /// Ordinary batches keep out of the reserve. Only in the first moments of a log on a roomy disk they need not.
    is_kept: AtomicBool,
    full: Mutex<Option<Arc<io::Error>>>,
    /// What waits for a checkpoint, for which there is no room, is as much as memory is to hold.
    unsaved: Mutex<Option<Arc<io::Error>>>,
    is_unsaved: AtomicBool,
    refuses: AtomicBool,
    refused: AtomicU64,
    /// Ordinary batches go no further before older segments are released.
    bound: AtomicU64,
}

impl Room {
    /// Room of a log that has no segment yet. `reserve_bytes`: what only essential batches may use; `None` for a segment.
    pub(crate) fn new(geometry: Geometry, reserve_bytes: Option<u64>) -> Room {
        Room {
            geometry,
            essential_bytes: reserve_bytes.unwrap_or(geometry.data_bytes()),
            own_bytes: limits::OWN_RESERVE_SEGMENTS * geometry.data_bytes(),
            prepared_end: AtomicU64::new(0),
            is_kept: AtomicBool::new(false),
            full: Mutex::new(None),
            unsaved: Mutex::new(None),
            is_unsaved: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            bound: AtomicU64::new(u64::MAX),
        }
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// First LSN for which no file stands ready.
    pub(crate) fn prepared_end(&self) -> Lsn {
        Lsn(self.prepared_end.load(Ordering::Acquire))
    }

    /// A file stands ready up to there; so there was room.
    pub(crate) fn prepared(&self, end: Lsn) {
        self.prepared_end.fetch_max(end.0, Ordering::Release);
        *self.lock_full() = None;
    }

    /// A file could not be made for want of space.
    pub(crate) fn found_full(&self, error: &io::Error) {
        // The kernel's own words, without what was wrapped around them on the way here.
        let again = match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(error.kind(), error.to_string()),
        };
        *self.lock_full() = Some(Arc::new(again));
        self.keep();
    }

    /// Why no further segment can be made, if so.
    pub(crate) fn full(&self) -> Option<Arc<io::Error>> {
        self.lock_full().clone()
    }

    fn lock_full(&self) -> std::sync::MutexGuard<'_, Option<Arc<io::Error>>> {
        self.full.lock().expect(LOCKED)
    }

    /// Whether, and why, ordinary batches have to wait for a checkpoint.
    pub(crate) fn set_unsaved(&self, why: Option<Arc<io::Error>>) {
        let is_unsaved = why.is_some();
        if is_unsaved || self.is_unsaved.load(Ordering::Acquire) {
            *self.unsaved.lock().expect(LOCKED) = why;
            self.is_unsaved.store(is_unsaved, Ordering::Release);
        }
    }

    /// Ordinary batches may take the log to there; it moves on as segments are released.
    pub(crate) fn set_bound(&self, bound: Lsn) {
        self.bound.store(bound.0, Ordering::Release);
    }

    /// Whether batches wait for a release, or soon will.
    pub(crate) fn is_near_bound(&self, assigned: Lsn) -> bool {
        let bound = self.bound.load(Ordering::Acquire);
        bound != u64::MAX && assigned.plus(self.geometry.data_bytes()).0 > bound
    }

    /// Why ordinary batches are refused, or will be when what stands ready is used.
    pub(crate) fn why(&self) -> Option<Arc<io::Error>> {
        let unsaved = self.unsaved.lock().expect(LOCKED).clone();
        unsaved.or_else(|| self.full())
    }

    /// From now on ordinary batches keep out of the reserve.
    pub(crate) fn keep(&self) {
        self.is_kept.store(true, Ordering::Release);
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::Acquire)
    }

    /// Bytes of the whole reserve.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        self.essential_bytes + self.own_bytes
    }

    /// Segments that hold the reserve.
    fn reserve_segments(&self) -> u64 {
        self.reserve_bytes().div_ceil(self.geometry.data_bytes())
    }

    /// Segments to have ready behind the current one: what is to be used next, the spare ones, and the reserve.
    pub(crate) fn segments_wanted(&self, spare_count: u64) -> u64 {
        1 + spare_count + self.reserve_segments()
    }

    /// What must stand ready ahead of a log that ends at `assigned`, so that ordinary batches do not have to wait at the reserve's edge.
    pub(crate) fn wanted_end(&self, assigned: Lsn) -> Lsn {
        assigned.plus(self.reserve_bytes() + self.ahead_bytes())
    }

    /// As [`Room::wanted_end`], without the reserve.
    pub(crate) fn needed_end(&self, assigned: Lsn) -> Lsn {
        assigned.plus(self.ahead_bytes())
    }

    /// Where a segment may take as long to be made as a quarter of one to be filled.
    fn ahead_bytes(&self) -> u64 {
        self.geometry.data_bytes() / 4
    }

    /// How far such a claim may go.
    fn limit(&self, claim: Claim) -> Lsn {
        if claim == Claim::Ordinary && self.is_unsaved.load(Ordering::Acquire) {
            return Lsn::ZERO;
        }
        let kept = match claim {
            Claim::Ordinary if self.is_kept() => self.reserve_bytes(),
            Claim::Essential if self.is_kept() => self.own_bytes,
            _ => 0,
        };
        Lsn(self.prepared_end().0.saturating_sub(kept))
    }

    /// Bytes from `next` on that such a claim may take.
    pub(crate) fn left(&self, claim: Claim, next: Lsn) -> u64 {
        self.limit(claim).0.saturating_sub(next.0)
    }

    /// Whether what begins at `next` may go to `end`.
    pub(crate) fn admit(&self, claim: Claim, next: Lsn, end: Lsn) -> Result<(), Refused> {
        if claim == Claim::Ordinary {
            let bound = Lsn(self.bound.load(Ordering::Acquire));
            if end > bound {
                return Err(AppendError::Unreleased { assigned: next, bound }.into());
            }
        }
        if end <= self.limit(claim) {
            return Ok(());
        }
        let why = if claim == Claim::Ordinary { self.why() } else { self.full() };
        let Some(source) = why else { return Err(Refused::NoSegment) };
        self.refused.fetch_add(1, Ordering::Relaxed);
        if claim == Claim::Ordinary {
            self.refuses.store(true, Ordering::Release);
        }
        Err(AppendError::OutOfSpace { needed: end.since(next), left: self.left(claim, next), source }.into())
    }

    /// Whether ordinary batches were refused, and there has not been room since.
    pub(crate) fn refuses(&self) -> bool {
        self.refuses.load(Ordering::Acquire)
    }

    /// Notes that a good piece is free again, if so.
    pub(crate) fn takes_again(&self, assigned: Lsn) -> bool {
        let room = self.left(Claim::Ordinary, assigned) >= self.ahead_bytes();
        room && self.refuses.swap(false, Ordering::AcqRel)
    }

    /// Appends refused since open.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Tail;

    const SEGMENT: u64 = 60 << 10;

    fn room(segments: u64) -> Room {
        let room = Room::new(Geometry { segment_bytes: 64 << 10, tail: Tail::Rewrite }, None);
        room.prepared(Lsn(segments * SEGMENT));
        room
    }

    fn full(room: &Room) {
        room.found_full(&io::Error::from_raw_os_error(libc::ENOSPC));
    }

    #[test]
    fn each_claim_ends_where_the_next_ones_part_begins() {
        let room = room(5);
        full(&room);
        for (claim, end) in [(Claim::Ordinary, 2), (Claim::Essential, 3), (Claim::Own, 5)] {
            let end = Lsn(end * SEGMENT);
            assert!(room.admit(claim, Lsn(8), end).is_ok(), "{claim:?}");
            let refused = room.admit(claim, Lsn(8), end.plus(8));
            let Err(Refused::Because(AppendError::OutOfSpace { needed, left, source })) = refused else {
                panic!("{claim:?}: {refused:?}");
            };
            assert_eq!((needed, left, source.raw_os_error()), (end.0, end.0 - 8, Some(libc::ENOSPC)));
        }
        assert!(room.refuses() && room.refused() == 3);
    }

    #[test]
    fn before_the_disk_is_known_to_be_full_a_segment_is_asked_for() {
        let room = room(1);
        assert!(room.admit(Claim::Ordinary, Lsn(8), Lsn(SEGMENT)).is_ok(), "a new log need not wait for its reserve");
        assert!(matches!(room.admit(Claim::Ordinary, Lsn(8), Lsn(SEGMENT + 8)), Err(Refused::NoSegment)));
        room.keep();
        assert!(matches!(room.admit(Claim::Ordinary, Lsn(8), Lsn(16)), Err(Refused::NoSegment)));
        assert!(!room.refuses());
    }

    #[test]
    fn only_ordinary_batches_wait_for_a_release() {
        let room = room(9);
        assert!(!room.is_near_bound(Lsn(8 * SEGMENT)));
        room.set_bound(Lsn(3 * SEGMENT));
        assert!(room.admit(Claim::Ordinary, Lsn(8), Lsn(3 * SEGMENT)).is_ok());
        let refused = room.admit(Claim::Ordinary, Lsn(3 * SEGMENT), Lsn(3 * SEGMENT + 8));
        assert!(matches!(refused, Err(Refused::Because(AppendError::Unreleased { .. }))), "{refused:?}");
        assert!(room.admit(Claim::Essential, Lsn(3 * SEGMENT), Lsn(3 * SEGMENT + 8)).is_ok());
        assert_eq!([SEGMENT, 3 * SEGMENT].map(|at| room.is_near_bound(Lsn(at))), [false, true]);
        room.set_bound(Lsn::MAX);
        assert!(room.admit(Claim::Ordinary, Lsn(3 * SEGMENT), Lsn(3 * SEGMENT + 8)).is_ok());
        assert!(!room.refuses(), "that is no want of space");
    }

    #[test]
    fn it_takes_again_when_a_good_piece_is_free() {
        let room = room(3);
        full(&room);
        assert!(room.admit(Claim::Ordinary, Lsn(8), Lsn(16)).is_err());
        assert!(!room.takes_again(Lsn(8)) && room.refuses());
        room.prepared(Lsn(4 * SEGMENT));
        assert!(room.full().is_none());
        assert!(room.takes_again(Lsn(8)) && !room.refuses());
        assert!(!room.takes_again(Lsn(8)), "it is said once");
    }
}
