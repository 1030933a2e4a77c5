//! Bringing bytes of the log back: from memory where they are fresh, by aligned direct reads where not.
//!
//! Invariants:
//! 1. What is handed out is verified by its checksum, every time, from memory too: memory rots as well.
//! 2. One disk read at a time: a reader at full speed was measured to cost commits nine tenths of their rate. Only along the log, for
//!    another machine, a few are under way at once, and whoever asks for that sees that nobody appends (see `along`).
//! 3. Readers of the same cold region share a read. One that goes along the log gets what lies behind with what it asks for: little while
//!    commits are under way.
//! 4. A block is read again when it was read before its last byte was written.
//! 5. What cannot be read or is damaged costs the records that it is part of, and no others.
//!
//! 6. Reading along the log for another machine neither allocates nor zeroes: the buffers of wide reads come back.
//!
//! No page cache, no mmap: one way per file.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::commit::ring::LogBuffer;
use crate::commit::watermark::{Marks, Watermark};
use crate::commitlog::frame::{self, FRAME_HEADER_BYTES, FrameHeader};
use crate::commitlog::record::{self, RECORD_HEADER_BYTES};
use crate::commitlog::segment::Geometry;
use crate::commitlog::segments::Segments;
use crate::damage::{DamagedPart, DamagedPlace, Damages};
use crate::error::ReadError;
use crate::fault::{Broken, Fault};
use crate::io::{AlignedBuf, IO_ALIGN, IoFile};
use crate::limits::{
    AHEAD_READ_BUSY_BYTES, AHEAD_READ_BYTES, COLD_BLOCK_COUNT, COLD_READ_BYTES, FRAME_BYTES_MAX, WIDE_IDLE_MAX,
    WIDE_READ_BYTES,
};
use crate::recovery::{RecordFault, record_fault};
use crate::retention::Survivors;
use crate::units::{Lsn, align_down, align_up, to_u64, to_usize};

struct Loaded {
    bytes: AlignedBuf,
    /// The log was written up to here when the read began.
    written: Lsn,
}

type Block = Mutex<Option<Arc<Loaded>>>;

#[derive(Default)]
struct BlockCache {
    blocks: HashMap<Lsn, Arc<Block>>,
    order: VecDeque<Lsn>,
}

/// Buffers of wide reads that nobody uses at the moment.
type Shelf = Mutex<Vec<AlignedBuf>>;

/// What was read at once; its buffer goes back to the shelf.
pub(crate) struct ReadBuf {
    /// Gone only while it is dropped.
    buf: Option<AlignedBuf>,
    shelf: Arc<Shelf>,
}

impl ReadBuf {
    /// `len` bytes, whatever is in them.
    fn take(shelf: &Arc<Shelf>, len: usize) -> ReadBuf {
        let mut idle = shelf.lock().expect(SHELVED);
        let fits = idle.iter().position(|buf| buf.len() == len);
        let buf = fits.map_or_else(|| AlignedBuf::zeroed(len), |at| idle.swap_remove(at));
        ReadBuf { buf: Some(buf), shelf: Arc::clone(shelf) }
    }

    /// The buffer alone, for a read that is on its way; see [`LogReader::keep`].
    fn into_buf(mut self) -> AlignedBuf {
        self.buf.take().expect(UNDROPPED)
    }

    fn buf(&mut self) -> &mut AlignedBuf {
        self.buf.as_mut().expect(UNDROPPED)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.buf.as_ref().expect(UNDROPPED)
    }
}

impl Drop for ReadBuf {
    fn drop(&mut self) {
        if let Some(buf) = self.buf.take().filter(|buf| to_u64(buf.len()) >= WIDE_READ_BYTES)
            && let Ok(mut idle) = self.shelf.lock()
            && idle.len() < WIDE_IDLE_MAX
        {
            idle.push(buf);
        }
    }
}

/// Bytes of one segment that are to be read, and where.
pub(crate) struct Stretch {
    pub(crate) file: Arc<dyn IoFile>,
    /// Where the read begins in the file.
    pub(crate) offset: u64,
    pub(crate) buf: AlignedBuf,
    /// Where in the buffer the bytes will lie that are wanted.
    pub(crate) range: Range<usize>,
    /// The first byte behind them.
    pub(crate) end: Lsn,
}

const SHELVED: &str = "the shelf is intact";
const UNDROPPED: &str = "a buffer is there until it is dropped";

/// Reads ranges of the log.
pub(crate) struct LogReader {
    buffer: Arc<LogBuffer>,
    segments: Arc<Segments>,
    marks: Arc<Marks>,
    cache: Mutex<BlockCache>,
    disk: Mutex<()>,
    shelf: Arc<Shelf>,
    cold_reads: AtomicU64,
    cold_read_bytes: AtomicU64,
    damages: Arc<Damages>,
    survivors: Arc<Survivors>,
    broken: Broken,
}

impl LogReader {
    pub(crate) fn new(
        buffer: Arc<LogBuffer>,
        segments: Arc<Segments>,
        marks: Arc<Marks>,
        damages: Arc<Damages>,
        survivors: Arc<Survivors>,
        broken: Broken,
    ) -> LogReader {
        LogReader {
            buffer,
            segments,
            marks,
            cache: Mutex::default(),
            disk: Mutex::new(()),
            shelf: Arc::default(),
            cold_reads: AtomicU64::new(0),
            cold_read_bytes: AtomicU64::new(0),
            damages,
            survivors,
            broken,
        }
    }

    pub(crate) fn cold_reads(&self) -> u64 {
        self.cold_reads.load(Ordering::Relaxed)
    }

    pub(crate) fn cold_read_bytes(&self) -> u64 {
        self.cold_read_bytes.load(Ordering::Relaxed)
    }

    fn count(&self, read: &[u8]) {
        self.cold_reads.fetch_add(1, Ordering::Relaxed);
        self.cold_read_bytes.fetch_add(to_u64(read.len()), Ordering::Relaxed);
    }

    /// Appends `[lsn, lsn + len)`, which must lie in one segment, to `out`; false when only the disk has it and `from_disk` is not set.
    pub(super) fn bytes(&self, lsn: Lsn, len: u64, from_disk: bool, out: &mut Vec<u8>) -> Result<bool, ReadError> {
        if self.buffer.copy(lsn, len, out) {
            return Ok(true);
        }
        if !from_disk {
            return Ok(false);
        }
        let end = lsn.plus(len);
        if !self.is_kept(lsn) || end > self.marks.load(Watermark::Written) {
            return Err(ReadError::NotFound(lsn));
        }
        let begin = out.len();
        let mut at = lsn;
        while at < end {
            let block_lsn = self.block_of(at);
            let block = match self.block(block_lsn, end) {
                Ok(block) => block,
                // One bad sector fails the whole block, and is no reason to refuse what lies beside it.
                Err(ReadError::Io { .. }) => {
                    out.truncate(begin);
                    self.exactly(lsn, len, out)?;
                    break;
                }
                Err(error) => return Err(error),
            };
            let from = to_usize(at.since(block_lsn));
            let to = block.bytes.len().min(to_usize(end.since(block_lsn)));
            out.extend_from_slice(&block.bytes[from..to]);
            at = block_lsn.plus(to_u64(to));
        }
        // A segment that was recycled meanwhile is not the one that was asked for.
        if !self.is_kept(lsn) {
            return Err(ReadError::NotFound(lsn));
        }
        Ok(true)
    }

    /// Whether the segment that holds `lsn` is there, dense or sparse.
    fn is_kept(&self, lsn: Lsn) -> bool {
        lsn >= self.marks.start() || self.survivors.has_segment(lsn)
    }

    /// Whether the record at `lsn` is retained.
    pub(crate) fn is_retained(&self, lsn: Lsn) -> bool {
        lsn >= self.marks.start() || self.survivors.contains(lsn)
    }

    /// The record at `lsn`, verified, if no read is needed for it: from the buffer, or from a block that was read for somebody else.
    pub(super) fn at_hand(&self, lsn: Lsn, size: u32) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(size as usize);
        if !self.buffer.copy(lsn, u64::from(size), &mut out) {
            let (at, end) = (self.block_of(lsn), lsn.plus(u64::from(size)));
            let block = self.cache.lock().expect("the block cache is intact").blocks.get(&at).cloned()?;
            // One that is being read is not waited for.
            let loaded = block.try_lock().ok()?.clone()?;
            if loaded.written < end || !self.is_retained(lsn) {
                return None;
            }
            let from = to_usize(lsn.since(at));
            out.extend_from_slice(loaded.bytes.get(from..from + size as usize)?);
        }
        record::decode(&out).is_ok().then_some(out)
    }

    /// Reads no more blocks than `[lsn, lsn + len)` lies in, and keeps none of them. Only what is written.
    pub(super) fn exactly(&self, lsn: Lsn, len: u64, out: &mut Vec<u8>) -> Result<(), ReadError> {
        if !self.is_kept(lsn) || lsn >= self.marks.load(Watermark::Written) {
            return Err(ReadError::NotFound(lsn));
        }
        let _one_at_a_time = self.disk.lock().expect("the disk lock is intact");
        let file = self.segments.find(lsn).ok_or(ReadError::NotFound(lsn))?;
        let from = self.segments.geometry().file_offset(lsn);
        let offset = align_down(from, to_u64(IO_ALIGN));
        let mut buf = AlignedBuf::zeroed(to_usize(align_up(from + len, to_u64(IO_ALIGN)) - offset));
        self.count(&buf);
        if let Err(source) = file.read_at(&mut buf, offset) {
            let path = self.segments.path(lsn);
            self.meet(lsn, source.to_string());
            return Err(ReadError::Io { lsn, path, source });
        }
        let skip = to_usize(from - offset);
        out.extend_from_slice(&buf[skip..skip + to_usize(len)]);
        Ok(())
    }

    /// Bytes from `from` on as the disk has them, not verified: where they lie in what was read. Within one segment, no more than is
    /// written, and at most `most`.
    pub(crate) fn raw(&self, from: Lsn, most: u64) -> Result<(ReadBuf, Range<usize>), ReadError> {
        let written = self.marks.load(Watermark::Written);
        if !self.is_kept(from) || from >= written {
            return Err(ReadError::NotFound(from));
        }
        let geometry = self.segments.geometry();
        let most = if self.marks.assigned() > written { most.min(COLD_READ_BYTES) } else { most.min(WIDE_READ_BYTES) };
        let end = from.plus(most).min(geometry.segment_end(from)).min(written);
        let offset = geometry.file_offset(from);
        let begin = align_down(offset, to_u64(IO_ALIGN));
        let len = to_usize(align_up(offset + end.since(from), to_u64(IO_ALIGN)) - begin);
        let mut buf = ReadBuf::take(&self.shelf, len);
        {
            let _one_at_a_time = self.disk.lock().expect("the disk lock is intact");
            let file = self.segments.find(from).ok_or(ReadError::NotFound(from))?;
            self.count(buf.bytes());
            let path = || self.segments.path(from);
            file.read_at(buf.buf(), begin).map_err(|source| ReadError::Io { lsn: from, path: path(), source })?;
        }
        // A segment that was recycled meanwhile is not the one that was asked for.
        if !self.is_kept(from) {
            return Err(ReadError::NotFound(from));
        }
        let skip = to_usize(offset - begin);
        Ok((buf, skip..skip + to_usize(end.since(from))))
    }

    /// What is to be read from `from` on, at most `most` bytes within one segment, and up to a whole block where that can be; none where
    /// memory has it, where nothing is written yet, or below the log's start. The read counts as made.
    pub(crate) fn stretch_on_disk(&self, from: Lsn, most: u64) -> Option<Stretch> {
        let end = self.marks.load(Watermark::Written).min(self.buffer.floor());
        // Of a segment that is punched there is no way along.
        if from >= end || from < self.marks.start() {
            return None;
        }
        let geometry = self.segments.geometry();
        let offset = geometry.file_offset(from);
        let begin = align_down(offset, to_u64(IO_ALIGN));
        let end = from.plus(most - (offset - begin)).min(geometry.segment_end(from)).min(end);
        let len = to_usize(align_up(offset + end.since(from), to_u64(IO_ALIGN)) - begin);
        let file = self.segments.find(from)?;
        let buf = ReadBuf::take(&self.shelf, len);
        self.count(buf.bytes());
        let skip = to_usize(offset - begin);
        let range = skip..skip + to_usize(end.since(from));
        Some(Stretch { file, offset: begin, buf: buf.into_buf(), range, end })
    }

    /// A buffer that was read into goes back to the shelf when nobody uses it any more.
    pub(crate) fn keep(&self, buf: AlignedBuf) -> ReadBuf {
        ReadBuf { buf: Some(buf), shelf: Arc::clone(&self.shelf) }
    }

    /// What came of a read of the segment that holds `from`.
    pub(crate) fn check_read(&self, from: Lsn, result: io::Result<()>) -> Result<(), ReadError> {
        // A segment that was recycled or punched meanwhile is not the one that was asked for.
        if from < self.marks.start() {
            return Err(ReadError::NotFound(from));
        }
        result.map_err(|source| ReadError::Io { lsn: from, path: self.segments.path(from), source })
    }

    /// First LSN of the block that holds `lsn`.
    fn block_of(&self, lsn: Lsn) -> Lsn {
        let base = self.segments.geometry().base(lsn);
        base.plus(lsn.since(base) / COLD_READ_BYTES * COLD_READ_BYTES)
    }

    /// Lets the next reader of a range read it from the disk.
    pub(crate) fn forget(&self, lsn: Lsn, len: u64) {
        let blocks = self.block_of(lsn)..lsn.plus(len);
        let mut cache = self.cache.lock().expect("the block cache is intact");
        cache.blocks.retain(|at, _| !blocks.contains(at));
        cache.order.retain(|at| !blocks.contains(at));
    }

    fn block(&self, at: Lsn, needed: Lsn) -> Result<Arc<Loaded>, ReadError> {
        let block = self.cached(at);
        let mut slot = block.lock().expect("the block is intact");
        let geometry = self.segments.geometry();
        let len = COLD_READ_BYTES.min(geometry.segment_end(at).since(at));
        if let Some(loaded) = &*slot
            && loaded.written >= needed.min(at.plus(len))
        {
            return Ok(Arc::clone(loaded));
        }
        let ahead = self.ahead_of(at);
        let _one_at_a_time = self.disk.lock().expect("the disk lock is intact");
        let file = self.segments.find(at).ok_or(ReadError::NotFound(at))?;
        let written = self.marks.load(Watermark::Written);
        let read = |bytes: u64| {
            let mut buf = AlignedBuf::zeroed(to_usize(bytes));
            self.count(&buf);
            file.read_at(&mut buf, geometry.file_offset(at)).map(|()| buf)
        };
        // What lies behind is no reason to refuse what was asked for.
        let wide = if ahead > 0 { read(len + ahead).ok() } else { None };
        let bytes = match &wide {
            Some(wide) => AlignedBuf::padded(&wide[..to_usize(len)]),
            None => read(len).map_err(|source| ReadError::Io { lsn: at, path: self.segments.path(at), source })?,
        };
        let loaded = Arc::new(Loaded { bytes, written });
        *slot = Some(Arc::clone(&loaded));
        if let Some(wide) = wide {
            for (index, bytes) in wide[to_usize(len)..].chunks(to_usize(COLD_READ_BYTES)).enumerate() {
                let block = self.cached(at.plus(len + to_u64(index) * COLD_READ_BYTES));
                // Somebody who is reading it has it from the disk, too.
                if let Ok(mut slot) = block.try_lock() {
                    *slot = Some(Arc::new(Loaded { bytes: AlignedBuf::padded(bytes), written }));
                };
            }
        }
        Ok(loaded)
    }

    /// How many bytes behind the block at `at` are worth reading with it: whole blocks, for a reader that comes from the one before.
    fn ahead_of(&self, at: Lsn) -> u64 {
        let geometry = self.segments.geometry();
        let (written, is_busy) =
            (self.marks.load(Watermark::Written), self.marks.assigned() > self.marks.load(Watermark::Written));
        let most = if is_busy { AHEAD_READ_BUSY_BYTES } else { AHEAD_READ_BYTES };
        let comes_from_before = at > geometry.base(at) && {
            let cache = self.cache.lock().expect("the block cache is intact");
            cache.blocks.contains_key(&Lsn(at.0 - COLD_READ_BYTES))
        };
        // What is not written to its end would be read once more.
        let end = at.plus(COLD_READ_BYTES + most).min(geometry.segment_end(at)).min(written);
        let behind = end.0.saturating_sub(at.0 + COLD_READ_BYTES);
        if comes_from_before { align_down(behind, COLD_READ_BYTES) } else { 0 }
    }

    fn cached(&self, at: Lsn) -> Arc<Block> {
        let mut cache = self.cache.lock().expect("the block cache is intact");
        if let Some(block) = cache.blocks.get(&at) {
            return Arc::clone(block);
        }
        if cache.order.len() == COLD_BLOCK_COUNT
            && let Some(oldest) = cache.order.pop_front()
        {
            cache.blocks.remove(&oldest);
        }
        let block = Arc::new(Mutex::new(None));
        cache.blocks.insert(at, Arc::clone(&block));
        cache.order.push_back(at);
        block
    }

    /// The bytes of the record at `lsn`, verified; `None` when only the disk has them and `from_disk` is not set.
    pub(crate) fn record(&self, lsn: Lsn, size: u32, from_disk: bool) -> Result<Option<Vec<u8>>, ReadError> {
        let mut out = Vec::with_capacity(size as usize);
        if !self.bytes(lsn, u64::from(size), from_disk, &mut out)? {
            return Ok(None);
        }
        let mut verified = record::decode(&out).map(drop);
        if verified.is_err() {
            // What a block was once read with may have been restored since, or misread that time only.
            self.forget(lsn, u64::from(size));
            out.clear();
            self.bytes(lsn, u64::from(size), from_disk, &mut out)?;
            verified = record::decode(&out).map(drop);
        }
        match verified {
            Ok(()) => Ok(Some(out)),
            Err(_) if self.broken.is(Fault::ChecksumUnchecked) => Ok(Some(out)),
            // Released while it was read: the bytes are another segment's.
            Err(_) if !self.is_retained(lsn) => Err(ReadError::NotFound(lsn)),
            Err(error) => Err(self.damage(lsn, error.to_string())),
        }
    }

    /// Whether the appended record at `lsn` lies in memory with the beginning of its frame. Of a link that is not known: its origin lies
    /// elsewhere.
    pub(crate) fn is_in_memory(&self, lsn: Lsn) -> bool {
        let mut header = Vec::with_capacity(RECORD_HEADER_BYTES);
        if !self.buffer.copy(lsn, to_u64(RECORD_HEADER_BYTES), &mut header) {
            return false;
        }
        let frame_offset = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        let is_append = header[12] == record::RecordKind::Append.code();
        is_append && lsn.0.checked_sub(u64::from(frame_offset)).is_some_and(|frame| frame >= self.buffer.floor().0)
    }

    /// The frame at `at`, its header verified, wherever it lies.
    pub(crate) fn frame(&self, at: Lsn) -> Result<(FrameHeader, Vec<u8>), ReadError> {
        self.framed(at)?.map_err(|what| self.damage(at, what))
    }

    /// As [`LogReader::frame`], and its records are verified as well.
    pub(crate) fn whole_frame(&self, at: Lsn) -> Result<(FrameHeader, Vec<u8>), ReadError> {
        let fault = |header: &FrameHeader, bytes: &[u8]| match record_fault(bytes, header, self.broken)? {
            RecordFault::Damaged(what) | RecordFault::UnknownForm(what) => Some(what),
        };
        let found = self.framed(at)?;
        if let Ok((header, bytes)) = found
            && fault(&header, &bytes).is_none()
        {
            return Ok((header, bytes));
        }
        // What a block was once read with may have been restored since, or misread that time only.
        let rest = self.segments.geometry().segment_end(at).since(at);
        self.forget(at, rest.min(FRAME_BYTES_MAX));
        let (header, bytes) = self.frame(at)?;
        let Some(what) = fault(&header, &bytes) else { return Ok((header, bytes)) };
        let mut lsn = at.plus(to_u64(frame::header_bytes(usize::from(header.record_count))));
        for entry in frame::entries(&bytes, header.record_count) {
            self.record(lsn, entry.len, true)?;
            lsn = lsn.plus(u64::from(entry.len));
        }
        Err(self.damage(at, what))
    }

    /// The frame at `at`, or what is wrong with its header.
    fn framed(&self, at: Lsn) -> Result<Result<(FrameHeader, Vec<u8>), String>, ReadError> {
        let mut bytes = Vec::new();
        self.bytes(at, to_u64(FRAME_HEADER_BYTES), true, &mut bytes)?;
        let need = match frame::header_bytes_needed(&bytes) {
            Ok(need) => need,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let room = self.segments.geometry().segment_end(at).since(at);
        let leaves = || Ok(Err("a frame that leaves its segment".into()));
        if to_u64(need) > room {
            return leaves();
        }
        bytes.clear();
        self.bytes(at, to_u64(need), true, &mut bytes)?;
        let header = match frame::decode_header(&bytes, at) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if u64::from(header.frame_len) > room {
            return leaves();
        }
        bytes.clear();
        self.bytes(at, u64::from(header.frame_len), true, &mut bytes)?;
        Ok(Ok((header, bytes)))
    }

    /// The frame header and the record's size for a record known by its LSN alone. Reads the disk if it must.
    pub(crate) fn locate(&self, lsn: Lsn) -> Result<(FrameHeader, frame::RecordEntry), ReadError> {
        let found = match self.look_up(lsn, false) {
            // What a block was once read with may have been restored since, or misread that time only.
            Err(ReadError::NotFound(_)) => self.look_up(lsn, true),
            other => other,
        };
        match found {
            Err(ReadError::NotFound(_)) => Err(self.why_unreadable(lsn)),
            other => other,
        }
    }

    /// `anew`: what was read from the disk before is read again.
    fn look_up(&self, lsn: Lsn, anew: bool) -> Result<(FrameHeader, frame::RecordEntry), ReadError> {
        let read = |at: Lsn, len: usize, out: &mut Vec<u8>| {
            if anew {
                self.forget(at, to_u64(len));
            }
            out.clear();
            self.bytes(at, to_u64(len), true, out)
        };
        let geometry = self.segments.geometry();
        let room = geometry.segment_end(lsn).since(lsn);
        if room < to_u64(RECORD_HEADER_BYTES) || !self.is_retained(lsn) {
            return Err(ReadError::NotFound(lsn));
        }
        let mut bytes = Vec::new();
        read(lsn, RECORD_HEADER_BYTES, &mut bytes)?;
        record::len_of(&bytes).map_err(|_| ReadError::NotFound(lsn))?;
        let frame_offset = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let frame_lsn = lsn.0.checked_sub(u64::from(frame_offset)).map(Lsn).ok_or(ReadError::NotFound(lsn))?;
        if frame_offset < 64 || frame_lsn < geometry.base(lsn) {
            return Err(ReadError::NotFound(lsn));
        }
        let mut header = Vec::new();
        read(frame_lsn, FRAME_HEADER_BYTES, &mut header)?;
        let need = frame::header_bytes_needed(&header).map_err(|_| ReadError::NotFound(lsn))?;
        if to_u64(need) > u64::from(frame_offset) {
            return Err(ReadError::NotFound(lsn));
        }
        read(frame_lsn, need, &mut header)?;
        let decoded = frame::decode_header(&header, frame_lsn).map_err(|_| ReadError::NotFound(lsn))?;
        let mut at = frame_lsn.plus(to_u64(need));
        for entry in frame::entries(&header, decoded.record_count) {
            if at == lsn {
                return Ok((decoded, entry));
            }
            at = at.plus(u64::from(entry.len));
        }
        Err(ReadError::NotFound(lsn))
    }

    pub(crate) fn damage(&self, lsn: Lsn, what: String) -> ReadError {
        self.meet(lsn, what.clone());
        ReadError::Damaged { lsn, path: self.segments.path(lsn), what }
    }

    fn meet(&self, lsn: Lsn, what: String) {
        self.damages.meet(DamagedPlace { lsn, part: DamagedPart::Record, path: self.segments.path(lsn), what });
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.segments.geometry()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::commitlog::record::{RecordKind, RecordParts};
    use crate::io::sim::SimDisk;
    use crate::options::Tail;

    #[test]
    fn a_record_that_rotted_in_memory_is_refused_too() {
        let mut bytes = Vec::new();
        let parts = RecordParts {
            kind: RecordKind::Append,
            name: b"q",
            incarnation: 0,
            tag: 0,
            keys: &[],
            attributes: b"",
            payload: &[b"three anchors"],
        };
        let len = record::encode(&mut bytes, &parts);
        record::seal(&mut bytes, 80);
        let mut rotten = bytes.clone();
        rotten[40] ^= 1;
        for (prefix, sound) in [(bytes, true), (rotten, false)] {
            let end = Lsn(to_u64(len));
            let (buffer, _tail) = LogBuffer::new(4096, 8192, end, &prefix);
            let geometry = Geometry { segment_bytes: 64 << 10, tail: Tail::Rewrite };
            let files = BTreeMap::new();
            let room = Arc::new(crate::commit::room::Room::new(geometry, None));
            let backend = SimDisk::new(1).backend();
            let sparse = BTreeMap::new();
            let segments = Segments::new(backend, Path::new("/log"), 1, true, room, files, sparse);
            let marks = Arc::new(Marks::new(false, Lsn::ZERO, end));
            let damages = Arc::<Damages>::default();
            let survivors = Arc::new(Survivors::new(geometry));
            let reader =
                LogReader::new(buffer, Arc::new(segments), marks, Arc::clone(&damages), survivors, Broken::default());
            match reader.record(Lsn::ZERO, u32::try_from(len).unwrap(), false) {
                Ok(Some(found)) => assert!(sound && found == prefix),
                Err(ReadError::Damaged { lsn, .. }) => assert!(!sound && lsn == Lsn::ZERO),
                other => panic!("{other:?}"),
            }
            assert_eq!((damages.met(), reader.cold_reads()), (u64::from(!sound), 0));
        }
    }
}
