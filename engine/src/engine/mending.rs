//! The engine's side of mending: which ranges of an open log are damaged, and putting them right.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::audit::{FoundSegment, LogFiles, Step, Walk};
use crate::commit::watermark::Watermark;
use crate::commitlog::manifest::Manifest;
use crate::commitlog::segment::SegmentHeader;
use crate::damage::DamagedPart;
use crate::engine::{Engine, LOCKED};
use crate::error::OpenError;
use crate::io::{AlignedBuf, IO_ALIGN, IoFile};
use crate::mend::{DamagedRange, Judge, MendError};
use crate::recovery::scan::read_blocks;
use crate::units::{Lsn, align_down, align_up, to_u64, to_usize};

impl Engine {
    /// What has to be had from elsewhere for the damaged places of the log ([`Engine::damaged_places`]) to be whole again, in its order.
    /// Reads the segments of those places, and nothing when there are none; a place that is whole again is forgotten. Left out is what
    /// survives below the log's start, and what the log may still change.
    ///
    /// # Errors
    /// When the log cannot be read at all.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    pub fn damaged_ranges(&self) -> Result<Vec<DamagedRange>, OpenError> {
        let inner = &*self.inner;
        let start = inner.marks.start();
        let places: Vec<_> = self.damaged_places().into_iter().filter(|place| place.lsn >= start).collect();
        let geometry = inner.segments.geometry();
        let mut ranges = Vec::new();
        for place in places.iter().filter(|place| place.part == DamagedPart::SegmentHeader) {
            let (path, what) = (place.path.clone(), place.what.clone());
            let (from, to) = (place.lsn, place.lsn);
            ranges.push(DamagedRange { from, to, path, what, prev_crc: None, next_prev_crc: None });
        }
        let inside = places.iter().filter(|place| place.part != DamagedPart::SegmentHeader);
        let bases: BTreeSet<Lsn> = inside.clone().map(|place| geometry.base(place.lsn)).collect();
        for base in bases {
            let found = self.look_through(base)?;
            let end = geometry.segment_end(base);
            let is_damaged = |lsn: Lsn| found.iter().any(|range| (range.from..range.to).contains(&lsn));
            for place in inside.clone().filter(|place| (base..end).contains(&place.lsn) && !is_damaged(place.lsn)) {
                tracing::info!(lsn = %place.lsn, path = %place.path.display(), "a damaged place is whole again");
                inner.damages.forget(place.lsn..place.lsn.plus(1), false);
            }
            ranges.extend(found.into_iter().filter(|range| self.is_settled(range.to)));
        }
        ranges.sort_by_key(|range| (range.from, range.to));
        Ok(ranges)
    }

    /// The damaged ranges of one segment, settled or not.
    fn look_through(&self, base: Lsn) -> Result<Vec<DamagedRange>, OpenError> {
        let geometry = self.inner.segments.geometry();
        let end = geometry.segment_end(base);
        let is_closed = end <= self.inner.marks.load(Watermark::Durable);
        let Some(log) = self.files([base, end]) else { return Ok(Vec::new()) };
        let mut ranges: Vec<DamagedRange> = Vec::new();
        Walk::new(&log, None).run(base, &mut |step| match step {
            Step::Frame(header, _) => {
                if let Some(last) = ranges.last_mut().filter(|last| last.to == header.lsn) {
                    last.next_prev_crc.get_or_insert(header.prev_crc);
                }
                if header.lsn < end { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            }
            Step::Broken(broken) if broken.lsn >= end => ControlFlow::Break(()),
            Step::Broken(broken) => {
                // What no frame follows in a segment that is not closed is where the log ends.
                if is_closed || broken.resumes.is_some() {
                    ranges.push(DamagedRange {
                        from: broken.lsn,
                        to: broken.resumes.unwrap_or(end),
                        path: log.path(broken.lsn),
                        what: broken.trouble.found,
                        prev_crc: broken.prev_crc,
                        next_prev_crc: None,
                    });
                }
                ControlFlow::Continue(())
            }
        })?;
        if let Some(first) = ranges.first_mut().filter(|first| first.from == base) {
            first.prev_crc = self.last_crc_before(base)?;
        }
        Ok(ranges)
    }

    /// The chain value that leads to a segment, where what lies before it is whole.
    fn last_crc_before(&self, base: Lsn) -> Result<Option<u32>, OpenError> {
        if base <= self.inner.marks.start() {
            return Ok(None);
        }
        let before = self.inner.segments.geometry().base(Lsn(base.0 - 1));
        let Some(log) = self.files([before]) else { return Ok(None) };
        let mut last = None;
        Walk::new(&log, None).run(before, &mut |step| {
            last = match step {
                Step::Frame(header, _) => Some(header.header_crc),
                // Behind the last file.
                Step::Broken(broken) if broken.lsn >= base => return ControlFlow::Break(()),
                Step::Broken(_) => None,
            };
            ControlFlow::Continue(())
        })?;
        Ok(last)
    }

    /// These segments of the log, as far as they are there; `None` when the first one is not.
    fn files<const COUNT: usize>(&self, bases: [Lsn; COUNT]) -> Option<LogFiles<'_>> {
        let inner = &*self.inner;
        let manifest: Manifest = inner.manifest.lock().expect(LOCKED).clone();
        let found = |base: Lsn| inner.segments.find(base).map(|file| (base, FoundSegment::Whole(file)));
        let segments: BTreeMap<Lsn, FoundSegment> = bases.into_iter().filter_map(found).collect();
        segments.contains_key(&bases[0]).then(|| LogFiles::beside(&*inner.backend, &inner.info.dir, manifest, segments))
    }

    /// Whether the log is acknowledged before `to`, and never written there again.
    fn is_settled(&self, to: Lsn) -> bool {
        let marks = &self.inner.marks;
        let durable = marks.load(Watermark::Durable);
        let last = Lsn(to.0.saturating_sub(1));
        let is_closed = self.inner.segments.geometry().segment_end(last) <= durable;
        to <= marks.acked() && to <= if is_closed { durable } else { Lsn(align_down(durable.0, to_u64(IO_ALIGN))) }
    }

    /// Puts `bytes`, which another machine has at that place of this log, where `range` is damaged, durably. They are checked against
    /// what stands on both sides, as opening would check them. Returns how many bytes were written: whole blocks, and none but those
    /// that are not as they should be.
    ///
    /// # Errors
    /// When they are not what belongs there, or the kernel refuses; the range is damaged as before then.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    pub fn mend(&self, range: &DamagedRange, bytes: &[u8]) -> Result<u64, MendError> {
        let inner = &*self.inner;
        // Whoever releases, recycles and punches waits: the file stays what it is.
        let _nothing_is_released = inner.housekeeper.lock().expect(LOCKED);
        if let Some(fenced) = inner.marks.fenced() {
            return Err(fenced.clone().into());
        }
        let start = inner.marks.start();
        let file = inner.segments.find(range.from).filter(|_| range.from >= start);
        let file = file.ok_or(MendError::Gone(range.from))?;
        let written = if range.is_empty() {
            self.mend_header(&file, range)?
        } else {
            self.mend_frames(&file, range, bytes, start)?
        };
        inner.damages.mend(range.from..range.to, written);
        tracing::warn!(from = %range.from, to = %range.to, path = %range.path.display(), written, "a damaged range is mended");
        Ok(written)
    }

    /// A header says nothing that is not known.
    fn mend_header(&self, file: &Arc<dyn IoFile>, range: &DamagedRange) -> Result<u64, MendError> {
        let geometry = self.inner.segments.geometry();
        let header = SegmentHeader { store_id: self.inner.info.store_id, geometry, base: geometry.base(range.from) };
        put(file, 0, &header.encode(), &range.path)
    }

    fn mend_frames(
        &self,
        file: &Arc<dyn IoFile>,
        range: &DamagedRange,
        bytes: &[u8],
        start: Lsn,
    ) -> Result<u64, MendError> {
        let inner = &*self.inner;
        if !self.is_settled(range.to) {
            return Err(MendError::NotSettled(range.to));
        }
        let geometry = inner.segments.geometry();
        let history = inner.manifest.lock().expect(LOCKED).history.clone();
        let judge = Judge { geometry, history: &history, start };
        judge.prove(range, bytes)?;
        let from = geometry.file_offset(range.from);
        let begin = align_down(from, to_u64(IO_ALIGN));
        let mut blocks = AlignedBuf::zeroed(to_usize(align_up(from + range.len(), to_u64(IO_ALIGN)) - begin));
        // What cannot be read is zeros; what lies beside the range in such a block is a filler, or would be damaged, too.
        read_blocks(&**file, begin, &mut blocks, &mut BTreeMap::new());
        let place = to_usize(from - begin)..to_usize(from - begin) + bytes.len();
        judge.keeps_what_is_whole(range.from, &blocks[place.clone()], bytes)?;
        blocks[place].copy_from_slice(bytes);
        let written = put(file, begin, &blocks, &range.path)?;
        inner.reader.forget(range.from, range.len());
        Ok(written)
    }
}

/// Writes the blocks that are not as they should be, durably, and reads them back; returns how many bytes those are.
fn put(file: &Arc<dyn IoFile>, offset: u64, wanted: &AlignedBuf, path: &Path) -> Result<u64, MendError> {
    let io_error = |what| move |source| MendError::Io { what, path: path.to_path_buf(), source };
    let (mut found, mut unreadable) = (AlignedBuf::zeroed(wanted.len()), BTreeMap::new());
    read_blocks(&**file, offset, &mut found, &mut unreadable);
    let is_right = |at: usize| {
        let block = at..at + IO_ALIGN;
        found[block.clone()] == wanted[block] && !unreadable.contains_key(&(offset + to_u64(at)))
    };
    let blocks: Vec<usize> = (0..wanted.len()).step_by(IO_ALIGN).filter(|at| !is_right(*at)).collect();
    for run in blocks.chunk_by(|one, next| one + IO_ALIGN == *next) {
        let bytes = &wanted[run[0]..run[0] + run.len() * IO_ALIGN];
        let mut buf = AlignedBuf::padded(bytes);
        let at = offset + to_u64(run[0]);
        file.write_at(&buf, at, true).map_err(io_error("mending"))?;
        file.read_at(&mut buf, at).map_err(io_error(READING_AGAIN))?;
        if buf[..] != *bytes {
            return Err(io_error(READING_AGAIN)(io::Error::other("other bytes than were written")));
        }
    }
    Ok(to_u64(blocks.len() * IO_ALIGN))
}

const READING_AGAIN: &str = "reading again what was mended in";
