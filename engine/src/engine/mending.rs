//! The engine's side of mending: which ranges of an open log are damaged, and putting them right.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::audit::{FoundSegment, LogFiles, Step, Walk};
use crate::commit::watermark::Watermark;
use crate::commitlog::frame::FRAME_ALIGN;
use crate::commitlog::manifest::Manifest;
use crate::commitlog::segment::SegmentHeader;
use crate::damage::{DamagedPart, DamagedPlace};
use crate::engine::{Engine, LOCKED};
use crate::error::OpenError;
use crate::io::{AlignedBuf, IO_ALIGN, IoFile};
use crate::limits;
use crate::mend::{
    DamagedRange, Judge, MendError, Mended, Survivor, bytes_of, proved_survivor, put, put_within, survivor,
};
use crate::recovery::scan::read_blocks;
use crate::retention::survivors;
use crate::units::{Lsn, align_down, align_up, to_u64, to_usize};

impl Engine {
    /// What has to be had from elsewhere for the damaged places of the log ([`Engine::damaged_places`]) to be whole again, in its order.
    /// Reads the segments of those places, and nothing when there are none; a place that is whole again is forgotten. Left out is what the
    /// log may still change. Below the log's start a range is as wide as what survives in it may reach.
    ///
    /// # Errors
    /// When the log cannot be read at all.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    pub fn damaged_ranges(&self) -> Result<Vec<DamagedRange>, OpenError> {
        let inner = &*self.inner;
        let start = inner.marks.start();
        let places = self.damaged_places();
        let geometry = inner.segments.geometry();
        let mut ranges = Vec::new();
        for place in places.iter().filter(|place| place.part == DamagedPart::SegmentHeader) {
            let (path, what) = (place.path.clone(), place.what.clone());
            let (from, to) = (place.lsn, place.lsn);
            let is_sparse = place.lsn < start;
            ranges.push(DamagedRange { from, to, path, what, prev_crc: None, next_prev_crc: None, is_sparse });
        }
        let inside = places.iter().filter(|place| place.part != DamagedPart::SegmentHeader);
        let bases: BTreeSet<Lsn> = inside.clone().map(|place| geometry.base(place.lsn)).collect();
        for base in bases {
            let found = if base < start { self.look_through_survivors(base) } else { self.look_through(base)? };
            let end = geometry.segment_end(base);
            let is_damaged = |lsn: Lsn| found.iter().any(|range| (range.from..range.to).contains(&lsn));
            for place in inside.clone().filter(|place| (base..end).contains(&place.lsn) && !is_damaged(place.lsn)) {
                tracing::info!(lsn = %place.lsn, path = %place.path.display(), "a damaged place is whole again");
                inner.damages.forget(place.lsn..place.lsn.plus(1), false);
            }
            ranges.extend(found.into_iter().filter(|range| range.is_sparse || self.is_settled(range.to)));
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
                        is_sparse: false,
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

    /// Where survivors of a segment below the log's start are not whole: from where their frame may begin to where their record may end.
    fn look_through_survivors(&self, base: Lsn) -> Vec<DamagedRange> {
        let inner = &*self.inner;
        let (Some(file), Some(list)) = (inner.segments.find(base), inner.survivors.list(base)) else {
            return Vec::new();
        };
        let geometry = inner.segments.geometry();
        let end = geometry.segment_end(base);
        let read = |at: Lsn, len: usize| bytes_of(&*file, geometry, at, len);
        let mut ranges: Vec<DamagedRange> = Vec::new();
        // What lies before is whole, or belongs to other frames.
        let (mut known_to, mut is_open) = (base, false);
        for lsn in list.iter().map(|code| survivors::decode(base, *code).0) {
            let error = match survivor(&read, base, lsn) {
                Ok(found) => {
                    if let Some(last) = ranges.last_mut().filter(|_| is_open) {
                        // A frame that is whole does not reach into what it follows, unless it holds that as well.
                        last.to = last.to.min(found.header.lsn.max(last.from.plus(FRAME_ALIGN)));
                    }
                    (known_to, is_open) = (lsn.plus(to_u64(found.record.len())), false);
                    continue;
                }
                Err(error) => error,
            };
            let reach = limits::FRAME_BYTES_MAX;
            let (from, to) = (Lsn(lsn.0.saturating_sub(reach)).max(known_to), lsn.plus(reach).min(end));
            match ranges.last_mut().filter(|last| is_open && to.since(last.from) <= limits::MEND_BYTES_MAX) {
                Some(last) => last.to = to,
                None => {
                    let (path, what) = (inner.segments.path(lsn), error.to_string());
                    let range =
                        DamagedRange { from, to, path, what, prev_crc: None, next_prev_crc: None, is_sparse: true };
                    ranges.push(range);
                }
            }
            is_open = true;
        }
        ranges
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
    /// what stands on both sides, as opening would check them. They may be a piece of it, from its beginning on, that holds one frame at
    /// least ([`EngineOptions::frame_bytes_max`](crate::EngineOptions::frame_bytes_max)): what is left is to be mended next. Of a range
    /// below the log's start ([`DamagedRange::is_sparse`]) all is to be given; what does not survive there is left as it is.
    ///
    /// # Errors
    /// When they are not what belongs there, or the kernel refuses; the range is damaged as before then.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    pub fn mend(&self, range: &DamagedRange, bytes: &[u8]) -> Result<Mended, MendError> {
        let inner = &*self.inner;
        // Whoever releases, recycles and punches waits: the file stays what it is.
        let _nothing_is_released = inner.housekeeper.lock().expect(LOCKED);
        if let Some(fenced) = inner.marks.fenced() {
            return Err(fenced.clone().into());
        }
        let start = inner.marks.start();
        let file = inner.segments.find(range.from).filter(|_| (range.from < start) == range.is_sparse);
        let file = file.ok_or(MendError::Gone(range.from))?;
        let mended = if range.is_empty() {
            Mended { to: range.to, written: self.mend_header(&file, range)?, rest: None }
        } else if range.is_sparse {
            Mended { to: range.to, written: self.mend_survivors(&file, range, bytes)?, rest: None }
        } else {
            self.mend_frames(&file, range, bytes, start)?
        };
        let Mended { to, written, .. } = mended;
        inner.damages.mend(range.from..to, written);
        if let Some(rest) = &mended.rest {
            // The place where it was found is whole now; the next one may not have been looked for.
            let (path, what) = (rest.path.clone(), rest.what.clone());
            inner.damages.note(DamagedPlace { lsn: rest.from, part: DamagedPart::FrameHeader, path, what });
        }
        tracing::warn!(from = %range.from, %to, path = %range.path.display(), written, "a damaged range is mended");
        Ok(mended)
    }

    /// Puts survivors of a segment, and their frames' headers, where they are not whole.
    fn mend_survivors(&self, file: &Arc<dyn IoFile>, range: &DamagedRange, bytes: &[u8]) -> Result<u64, MendError> {
        let inner = &*self.inner;
        let geometry = inner.segments.geometry();
        let base = geometry.base(range.from);
        let list = inner.survivors.list(base).ok_or(MendError::Gone(range.from))?;
        if to_u64(bytes.len()) != range.len() {
            return Err(MendError::Length { expected: range.len(), found: to_u64(bytes.len()) });
        }
        let given = |at: Lsn, len: usize| {
            let from = to_usize(at.0.checked_sub(range.from.0)?);
            bytes.get(from..from + len).map(<[u8]>::to_vec)
        };
        let ours = |at: Lsn, len: usize| bytes_of(&**file, geometry, at, len);
        let history = inner.manifest.lock().expect(LOCKED).history.clone();
        let mut patches: BTreeMap<Lsn, Vec<u8>> = BTreeMap::new();
        for lsn in list.iter().map(|code| survivors::decode(base, *code).0) {
            if !(range.from..range.to).contains(&lsn) || survivor(&ours, base, lsn).is_ok() {
                continue;
            }
            let Survivor { header, header_bytes, record } = proved_survivor(&history, &ours, &given, range.from, lsn)?;
            patches.insert(header.lsn, header_bytes);
            patches.insert(lsn, record);
        }
        let mut written = 0;
        for (lsn, patch) in patches {
            written += put_within(file, geometry.file_offset(lsn), &patch, &range.path)?;
            inner.reader.forget(lsn, to_u64(patch.len()));
        }
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
    ) -> Result<Mended, MendError> {
        let inner = &*self.inner;
        let geometry = inner.segments.geometry();
        let history = inner.manifest.lock().expect(LOCKED).history.clone();
        let judge = Judge { geometry, history: &history, start };
        let (to, prev_crc) = judge.prove(range, bytes)?;
        if !self.is_settled(to) {
            return Err(MendError::NotSettled(to));
        }
        let bytes = &bytes[..to_usize(to.since(range.from))];
        let from = geometry.file_offset(range.from);
        let begin = align_down(from, to_u64(IO_ALIGN));
        let mut blocks = AlignedBuf::zeroed(to_usize(align_up(from + to_u64(bytes.len()), to_u64(IO_ALIGN)) - begin));
        // What cannot be read is zeros; what lies beside the range in such a block is a filler, or would be damaged, too.
        read_blocks(&**file, begin, &mut blocks, &mut BTreeMap::new());
        let place = to_usize(from - begin)..to_usize(from - begin) + bytes.len();
        judge.keeps_what_is_whole(range.from, &blocks[place.clone()], bytes)?;
        blocks[place].copy_from_slice(bytes);
        let written = put(file, begin, &blocks, &range.path)?;
        inner.reader.forget(range.from, to_u64(bytes.len()));
        let rest = (to < range.to).then(|| DamagedRange { from: to, prev_crc, ..range.clone() });
        Ok(Mended { to, written, rest })
    }
}
