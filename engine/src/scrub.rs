//! Reading closed segments again and again, a piece at a time, so that rot is found before a reader meets it.
//!
//! Invariants:
//! 1. Only segments that end at or below the durable mark are looked at: nothing in them is unwritten, or on its way to the disk.
//! 2. One read a step, of a few blocks, and no more of them a second than the rate allows. Steps are taken when nothing else is due.
//! 3. A segment that is taken out of the log, or a range that is no longer live, gives no report, whenever that happens.
//! 4. What is damaged is found once a pass, and does not hide what lies behind it.
//! 5. Nothing is written but a segment's header block, which is known, where it is not whole.
//!
//! ```text
//!  segment:  header | frame | frame | pad | frame ..
//!                     |  '- records: each by its checksum, and that one by the header's
//!                     '---- header: its checksum, its place, its predecessor
//! ```
//!
//! Not covered by any checksum, and so not looked at: what a pad fills, the last bytes of a segment that are too few for a frame, the
//! zeros behind the fields of a segment's header. Frames of a kind that this program does not know are stepped over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::commit::watermark::{Marks, Watermark};
use crate::commitlog::frame::{self, FRAME_ALIGN, FRAME_HEADER_BYTES, FrameKind, Outline, RecordEntry};
use crate::commitlog::segment::{Geometry, SegmentHeader};
use crate::commitlog::segments::Segments;
use crate::damage::{DamagedPart, DamagedPlace, Damages};
use crate::io::{AlignedBuf, IO_ALIGN, IoFile};
use crate::limits;
use crate::mend;
use crate::units::{Lsn, align_down, to_u64, to_usize};

/// What it works with.
pub(crate) struct ScrubParts {
    pub(crate) marks: Arc<Marks>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) damages: Arc<Damages>,
    pub(crate) store_id: u128,
    /// Told of progress, for the counters.
    pub(crate) progress: Arc<Progress>,
    /// The first LSN at or behind the given one that is live. A range that is live begins with a frame's header and holds whole frames, but
    /// that records in it may not be live.
    pub(crate) next_live: Box<dyn Fn(Lsn) -> Lsn + Send>,
    /// Bytes a second; 0: off.
    pub(crate) rate: u64,
}

/// What has been done since open.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    bytes: AtomicU64,
    passes: AtomicU64,
}

impl Progress {
    /// Bytes read.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Passes over all closed segments.
    pub(crate) fn passes(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }
}

/// The state machine.
pub(crate) struct Scrubber {
    parts: ScrubParts,
    /// The next read may begin at this time.
    due: Duration,
    /// When the pass under way began.
    began: Option<Duration>,
    /// Where the next segment of this pass is looked for.
    next: Lsn,
    /// Where the last segment ended and the header checksum of its last frame, if that is known.
    last: Option<(Lsn, u32)>,
    walk: Option<Walk>,
}

impl Scrubber {
    pub(crate) fn new(parts: ScrubParts) -> Scrubber {
        Scrubber { parts, due: Duration::ZERO, began: None, next: Lsn::ZERO, last: None, walk: None }
    }

    /// Reads and checks one piece, if its time has come; says when the next is due, at the latest. `busy`: commits are under way.
    pub(crate) fn step(&mut self, now: Duration, busy: bool) -> Duration {
        if self.parts.rate == 0 {
            return limits::HOUSEKEEPING_INTERVAL;
        }
        if now < self.due {
            return self.wait(now);
        }
        let Some(mut walk) = self.walk.take().or_else(|| self.next_walk(now)) else {
            return self.wait(now);
        };
        let len = walk.read(if busy { limits::SCRUB_PIECE_BUSY_BYTES } else { limits::SCRUB_PIECE_BYTES });
        self.parts.progress.bytes.fetch_add(len, Ordering::Relaxed);
        self.due = now + Duration::from_micros((len * 1_000_000 / self.parts.rate).max(1));
        // Taken out of the log meanwhile: what was read may be another segment's.
        if self.parts.segments.find(walk.base).is_some() {
            let end = self.parts.segments.geometry().segment_end(walk.base);
            if walk.check(&self.parts) < end {
                self.walk = Some(walk);
            } else {
                self.last = walk.chain.map(|crc| (end, crc));
            }
        }
        self.wait(now)
    }

    /// While a pass is under way the driver is to come back soon, however slow the rate; between passes it may rest.
    fn wait(&self, now: Duration) -> Duration {
        let due = self.due.saturating_sub(now);
        match self.began {
            Some(_) => due.clamp(Duration::from_micros(1), limits::HOUSEKEEPING_INTERVAL - Duration::from_millis(1)),
            None => limits::HOUSEKEEPING_INTERVAL,
        }
    }

    /// The next closed segment of this pass, or the first of the next pass.
    fn next_walk(&mut self, now: Duration) -> Option<Walk> {
        let geometry = self.parts.segments.geometry();
        let durable = self.parts.marks.load(Watermark::Durable);
        let next = self.parts.segments.first_from(self.next);
        let Some((base, file)) = next.filter(|(base, _)| geometry.segment_end(*base) <= durable) else {
            if let Some(began) = self.began.take() {
                self.parts.progress.passes.fetch_add(1, Ordering::Relaxed);
                self.due = self.due.max(began + limits::SCRUB_PASS_INTERVAL);
                (self.next, self.last) = (Lsn::ZERO, None);
            }
            return None;
        };
        self.began.get_or_insert(now);
        self.next = geometry.segment_end(base);
        let chain = self.last.take().filter(|(end, _)| *end == base).map(|(_, crc)| crc);
        Some(Walk::new(geometry, base, file, chain))
    }
}

/// A way through one segment, from its first byte to its last.
struct Walk {
    geometry: Geometry,
    base: Lsn,
    file: Arc<dyn IoFile>,
    /// The segment's header, until it has been checked.
    header: Option<Result<AlignedBuf, String>>,
    header_checked: bool,
    /// The LSN of the next byte to be checked: the first of `bytes` behind `taken`.
    at: Lsn,
    bytes: Vec<u8>,
    taken: usize,
    /// Blocks that could not be read, and why. In `bytes` they are zeros.
    unreadable: Vec<(Lsn, String)>,
    /// Up to this offset single blocks are read, because a larger read of them failed.
    blocks_to: u64,
    /// Header checksum of the frame before `at`, if that one was sound.
    chain: Option<u32>,
    state: State,
}

enum State {
    /// At a frame's first byte.
    Frame,
    /// Within a frame: the records that are still to come.
    Records(std::vec::IntoIter<RecordEntry>),
    /// Within a record.
    Record { checked: Checked, rest: std::vec::IntoIter<RecordEntry> },
    /// Behind a damaged header, looking for a sound one.
    Lost,
}

/// A record of which a part has been seen.
struct Checked {
    lsn: Lsn,
    entry: RecordEntry,
    left: u64,
    stored: [u8; 4],
    hasher: crc32fast::Hasher,
    unreadable: Option<String>,
}

impl Walk {
    fn new(geometry: Geometry, base: Lsn, file: Arc<dyn IoFile>, chain: Option<u32>) -> Walk {
        Walk {
            geometry,
            base,
            file,
            header: None,
            header_checked: false,
            at: base,
            bytes: Vec::new(),
            taken: 0,
            unreadable: Vec::new(),
            blocks_to: 0,
            chain,
            state: State::Frame,
        }
    }

    /// First LSN that has not been read.
    fn read_end(&self) -> Lsn {
        self.at.plus(to_u64(self.bytes.len() - self.taken))
    }

    /// Reads the next bytes that are needed, at most `len` of them; returns how many it asked for.
    fn read(&mut self, len: u64) -> u64 {
        if self.header.is_none() && !self.header_checked {
            let mut block = AlignedBuf::zeroed(IO_ALIGN);
            self.header = Some(self.file.read_at(&mut block, 0).map(|()| block).map_err(|error| error.to_string()));
            return to_u64(IO_ALIGN);
        }
        self.bytes.drain(..self.taken);
        self.taken = 0;
        let wanted = self.read_end();
        let offset = align_down(self.geometry.file_offset(wanted), to_u64(IO_ALIGN));
        let skip = to_usize(self.geometry.file_offset(wanted) - offset);
        let len =
            if offset < self.blocks_to { to_u64(IO_ALIGN) } else { len }.min(self.geometry.segment_bytes - offset);
        let mut buf = AlignedBuf::zeroed(to_usize(len));
        match self.file.read_at(&mut buf, offset) {
            Ok(()) => self.bytes.extend_from_slice(&buf[skip..]),
            Err(_) if len > to_u64(IO_ALIGN) => self.blocks_to = offset + len,
            Err(error) => {
                self.unreadable.push((Lsn(wanted.0 - to_u64(skip)), error.to_string()));
                self.bytes.resize(self.bytes.len() + IO_ALIGN - skip, 0);
            }
        }
        len
    }

    /// Checks what has been read, as far as it goes; returns where it stopped.
    fn check(&mut self, parts: &ScrubParts) -> Lsn {
        if let Some(header) = self.header.take() {
            self.header_checked = true;
            if let Some(what) = header.map_or_else(Some, |block| self.header_damage(&block)) {
                report(parts, self.base, DamagedPart::SegmentHeader, what);
                self.rewrite_header(parts);
            }
        }
        let end = self.geometry.segment_end(self.base);
        while self.at < end {
            let state = std::mem::replace(&mut self.state, State::Frame);
            let (state, goes_on) = match state {
                State::Frame => self.check_frame(parts, end),
                State::Records(rest) => self.begin_record(parts, rest),
                State::Record { checked, rest } => self.check_record(parts, checked, rest),
                State::Lost => self.search(parts, end),
            };
            self.state = state;
            if !goes_on {
                break;
            }
            self.unreadable.retain(|(block, _)| block.plus(to_u64(IO_ALIGN)) > self.at);
        }
        self.at
    }

    fn header_damage(&self, block: &AlignedBuf) -> Option<String> {
        match SegmentHeader::decode_buf(block) {
            Err(error) => Some(error.to_string()),
            Ok(header) if header.base != self.base => Some(format!("the header of segment {}", header.base)),
            Ok(header) if header.geometry != self.geometry => Some(format!("geometry {:?}", header.geometry)),
            Ok(_) => None,
        }
    }

    /// A segment's header says nothing that is not known, and without it the log would not be opened again. One block, which holds nothing
    /// else: wherever the power fails, it is damaged as before, or whole.
    fn rewrite_header(&self, parts: &ScrubParts) {
        if parts.marks.fenced().is_some() {
            return;
        }
        let (path, lsn) = (parts.segments.path(self.base), self.base);
        let header = SegmentHeader { store_id: parts.store_id, geometry: self.geometry, base: lsn };
        match mend::put(&self.file, 0, &header.encode(), &path) {
            Ok(written) => {
                parts.damages.mend(lsn..lsn, written);
                tracing::warn!(%lsn, path = %path.display(), "a segment's header is written anew; nothing is lost with it");
            }
            Err(error) => {
                tracing::error!(%error, "a segment's header cannot be written anew; the next start will refuse the log")
            }
        }
    }

    fn seen(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Goes on at `lsn`, which may lie behind what has been read.
    fn skip_to(&mut self, lsn: Lsn) {
        self.taken = self.bytes.len().min(self.taken + to_usize(lsn.since(self.at)));
        self.at = lsn;
    }

    /// Why a byte of the next `len` could not be read, if that is so.
    fn unreadable(&self, len: usize) -> Option<String> {
        let to = self.at.plus(to_u64(len));
        let hit = self.unreadable.iter().find(|(at, _)| *at < to && at.plus(to_u64(IO_ALIGN)) > self.at);
        hit.map(|(at, error)| format!("the block at LSN {at} cannot be read: {error}"))
    }

    /// The header of the frame at `at`; `None` when more of it has to be read.
    fn header(&self, end: Lsn) -> Option<Result<(Outline, usize), String>> {
        let bytes = self.seen();
        let head = bytes.get(..FRAME_HEADER_BYTES)?;
        if let Some(what) = self.unreadable(FRAME_HEADER_BYTES) {
            return Some(Err(what));
        }
        let need = match frame::header_bytes_needed(head) {
            Ok(need) if to_u64(need) <= end.since(self.at) => need,
            Ok(_) => return Some(Err("a header that leaves its segment".into())),
            Err(error) => return Some(Err(error.to_string())),
        };
        let bytes = bytes.get(..need)?;
        if let Some(what) = self.unreadable(need) {
            return Some(Err(what));
        }
        Some(match frame::outline(bytes, self.at) {
            Ok(outline) if u64::from(outline.frame_len) > end.since(self.at) => {
                Err("a frame that leaves its segment".into())
            }
            Ok(outline) => Ok((outline, need)),
            Err(error) => Err(error.to_string()),
        })
    }

    fn check_frame(&mut self, parts: &ScrubParts, end: Lsn) -> (State, bool) {
        let live = (parts.next_live)(self.at).min(end);
        if live > self.at {
            self.chain = None;
            self.skip_to(live);
            return (State::Frame, true);
        }
        if end.since(self.at) < to_u64(FRAME_HEADER_BYTES) {
            self.skip_to(end);
            return (State::Frame, true);
        }
        let (outline, need) = match self.header(end) {
            None => return (State::Frame, false),
            Some(Ok(header)) => header,
            Some(Err(what)) => {
                report(parts, self.at, DamagedPart::FrameHeader, what);
                self.chain = None;
                self.skip_to(self.at.plus(FRAME_ALIGN));
                return (State::Lost, true);
            }
        };
        if let Some(before) = self.chain
            && before != outline.prev_crc
        {
            let what = format!("a frame that follows {:#010x}, behind {before:#010x}", outline.prev_crc);
            report(parts, self.at, DamagedPart::FrameHeader, what);
        }
        self.chain = Some(outline.header_crc);
        if outline.kind != Some(FrameKind::Records) {
            self.skip_to(self.at.plus(u64::from(outline.frame_len)));
            return (State::Frame, true);
        }
        let entries: Vec<_> = frame::entries(self.seen(), outline.record_count).collect();
        self.skip_to(self.at.plus(to_u64(need)));
        (State::Records(entries.into_iter()), true)
    }

    fn begin_record(&mut self, parts: &ScrubParts, mut rest: std::vec::IntoIter<RecordEntry>) -> (State, bool) {
        let Some(entry) = rest.next() else { return (State::Frame, true) };
        let left = u64::from(entry.len);
        if (parts.next_live)(self.at) > self.at {
            self.skip_to(self.at.plus(left));
            return (State::Records(rest), true);
        }
        let checked =
            Checked { lsn: self.at, entry, left, stored: [0; 4], hasher: crc32fast::Hasher::new(), unreadable: None };
        (State::Record { checked, rest }, true)
    }

    /// Adds what has been read to the record's checksum; at its end, compares.
    fn check_record(
        &mut self,
        parts: &ScrubParts,
        mut checked: Checked,
        rest: std::vec::IntoIter<RecordEntry>,
    ) -> (State, bool) {
        let len = self.seen().len().min(to_usize(checked.left));
        if len == 0 && checked.left > 0 {
            return (State::Record { checked, rest }, false);
        }
        checked.unreadable = checked.unreadable.take().or_else(|| self.unreadable(len));
        let seen = &self.seen()[..len];
        // The first word is the checksum itself. Records lie at multiples of 8 and so do blocks: it is never cut in two.
        let begins = checked.left == u64::from(checked.entry.len);
        match seen.split_first_chunk() {
            Some((stored, covered)) if begins => {
                checked.stored = *stored;
                checked.hasher.update(covered);
            }
            _ => checked.hasher.update(seen),
        }
        checked.left -= to_u64(len);
        self.skip_to(self.at.plus(to_u64(len)));
        if checked.left > 0 {
            return (State::Record { checked, rest }, false);
        }
        let (stored, computed) = (u32::from_le_bytes(checked.stored), checked.hasher.finalize());
        let expected = checked.entry.crc;
        let what = checked.unreadable.or_else(|| {
            let sound = stored == expected && computed == expected;
            (!sound).then(|| {
                format!("record checksum {stored:#010x}, computed {computed:#010x}, {expected:#010x} in its frame")
            })
        });
        if let Some(what) = what {
            report(parts, checked.lsn, DamagedPart::Record, what);
        }
        (State::Records(rest), true)
    }

    /// Looks for the next sound header. Frames begin at multiples of 8, and a header proves its own place.
    fn search(&mut self, parts: &ScrubParts, end: Lsn) -> (State, bool) {
        loop {
            self.skip_to((parts.next_live)(self.at).min(end));
            if end.since(self.at) < to_u64(FRAME_HEADER_BYTES) {
                self.skip_to(end);
                return (State::Frame, true);
            }
            match self.header(end) {
                Some(Ok(_)) => return (State::Frame, true),
                Some(Err(_)) => self.skip_to(self.at.plus(FRAME_ALIGN)),
                None => return (State::Lost, false),
            }
        }
    }
}

/// Reports damage, unless the place is no longer live: it may have been given up while it was looked at.
fn report(parts: &ScrubParts, lsn: Lsn, part: DamagedPart, what: String) {
    let live = part == DamagedPart::SegmentHeader || (parts.next_live)(lsn) == lsn;
    if live {
        parts.damages.find(DamagedPlace { lsn, part, path: parts.segments.path(lsn), what });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::commit::room::Room;
    use crate::commitlog::frame::FrameStamp;
    use crate::commitlog::record::{self, RecordKind, RecordParts};
    use crate::commitlog::segment::file_name;
    use crate::io::OpenMode;
    use crate::io::sim::SimDisk;
    use crate::options::Tail;
    use crate::units::Epoch;

    const SEGMENT_BYTES: u64 = 128 << 10;

    fn geometry() -> Geometry {
        Geometry { segment_bytes: SEGMENT_BYTES, tail: Tail::Rewrite }
    }

    /// One segment made by hand.
    struct Image {
        bytes: AlignedBuf,
        at: Lsn,
        crc: u32,
    }

    impl Image {
        fn new() -> Image {
            let mut bytes = AlignedBuf::zeroed(to_usize(SEGMENT_BYTES));
            let header = SegmentHeader { store_id: 1, geometry: geometry(), base: Lsn::ZERO };
            bytes[..IO_ALIGN].copy_from_slice(&header.encode());
            Image { bytes, at: Lsn::ZERO, crc: 0 }
        }

        fn place(&self) -> usize {
            to_usize(geometry().file_offset(self.at))
        }

        fn header(&mut self, kind: FrameKind, len: u32, entries: &[RecordEntry]) {
            let stamp = FrameStamp {
                lsn: self.at,
                prev_crc: self.crc,
                epoch: Epoch { term: 1, run: 1 },
                store_time_ms: 0,
                durable_lsn: Lsn::ZERO,
                acked_lsn: Lsn::ZERO,
            };
            let place = self.place();
            let room = &mut self.bytes[place..place + frame::header_bytes(entries.len())];
            self.crc = frame::encode_header(room, kind, len, &stamp, entries.iter().copied());
        }

        /// A frame of two records; returns where they begin.
        fn records(&mut self) -> [Lsn; 2] {
            let header = to_u64(frame::header_bytes(2));
            let (mut bytes, mut entries, mut starts) = (Vec::new(), Vec::new(), [Lsn::ZERO; 2]);
            for start in &mut starts {
                *start = self.at.plus(header + to_u64(bytes.len()));
                let begin = bytes.len();
                let parts = RecordParts {
                    kind: RecordKind::Append,
                    name: b"q",
                    incarnation: 0,
                    tag: 0,
                    keys: &[],
                    attributes: b"",
                    payload: &[&[7; 5000]],
                };
                let len = u32::try_from(record::encode(&mut bytes, &parts)).unwrap();
                let crc =
                    record::seal(&mut bytes[begin..], u32::try_from(header).unwrap() + u32::try_from(begin).unwrap());
                entries.push(RecordEntry { len, crc, queue_offset: crate::units::QueueOffset(0) });
            }
            let len = header + to_u64(bytes.len());
            self.header(FrameKind::Records, u32::try_from(len).unwrap(), &entries);
            let place = self.place() + to_usize(header);
            self.bytes[place..place + bytes.len()].copy_from_slice(&bytes);
            self.at = self.at.plus(len);
            starts
        }

        /// A frame of a later version, with bytes in it that mean nothing here.
        fn unknown(&mut self, len: u32) {
            self.header(FrameKind::Mark, len, &[]);
            let place = self.place();
            self.bytes[place + 5] = 77;
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&self.bytes[place..place + 60]);
            self.crc = hasher.finalize();
            let crc = self.crc;
            self.bytes[place + 60..place + 64].copy_from_slice(&crc.to_le_bytes());
            self.bytes[place + 64..place + len as usize].fill(0xC3);
            self.at = self.at.plus(u64::from(len));
        }

        fn punch(&mut self, from: Lsn, to: Lsn) {
            let place = |lsn| to_usize(geometry().file_offset(lsn));
            self.bytes[place(from)..place(to)].fill(0);
        }

        /// What a pass over it finds, and how much it reads.
        fn scrub(mut self, next_live: impl Fn(Lsn) -> Lsn + Send + 'static) -> (Vec<DamagedPlace>, u64) {
            let rest = geometry().segment_end(self.at).since(self.at);
            self.header(FrameKind::Pad, u32::try_from(rest).unwrap(), &[]);
            let backend = SimDisk::new(1).backend();
            backend.create_dir_all(Path::new("/log")).unwrap();
            let file = backend.open(&Path::new("/log").join(file_name(Lsn::ZERO)), OpenMode::CreateNew).unwrap();
            file.allocate(SEGMENT_BYTES).unwrap();
            file.write_at(&self.bytes, 0, true).unwrap();
            let end = geometry().segment_end(Lsn::ZERO);
            let files = BTreeMap::from([(Lsn::ZERO, file)]);
            let room = Arc::new(Room::new(geometry(), None));
            let parts = ScrubParts {
                marks: Arc::new(Marks::new(false, Lsn::ZERO, end)),
                segments: Arc::new(Segments::new(backend, Path::new("/log"), 1, true, room, files, BTreeMap::new())),
                damages: Arc::default(),
                store_id: 1,
                progress: Arc::default(),
                next_live: Box::new(next_live),
                rate: 1 << 20,
            };
            let (damages, progress) = (Arc::clone(&parts.damages), Arc::clone(&parts.progress));
            let mut scrubber = Scrubber::new(parts);
            let mut now = Duration::ZERO;
            while progress.passes() == 0 {
                now += scrubber.step(now, true);
                assert!(now < Duration::from_secs(60), "the pass ends");
            }
            (damages.places(|_| true), progress.bytes())
        }
    }

    #[test]
    fn frames_of_a_later_version_are_stepped_over() {
        let mut image = Image::new();
        image.records();
        image.unknown(90_000);
        image.records();
        let (places, read) = image.scrub(|lsn| lsn);
        assert_eq!(places, []);
        assert!(read < SEGMENT_BYTES, "what lies in such a frame is not read for nothing: {read}");
    }

    #[test]
    fn what_lies_behind_a_frame_of_a_later_version_is_checked() {
        let mut image = Image::new();
        image.unknown(512);
        let [_, second] = image.records();
        let hurt = to_usize(geometry().file_offset(second)) + 100;
        image.bytes[hurt] ^= 1;
        let (places, _) = image.scrub(|lsn| lsn);
        assert_eq!(
            places.iter().map(|place| (place.lsn, place.part)).collect::<Vec<_>>(),
            [(second, DamagedPart::Record)]
        );
    }

    #[test]
    fn a_header_that_follows_another_than_the_one_before_it_is_damage() {
        let mut image = Image::new();
        image.records();
        let at = image.at;
        image.crc ^= 1;
        image.records();
        let (places, _) = image.scrub(|lsn| lsn);
        assert_eq!(
            places.iter().map(|place| (place.lsn, place.part)).collect::<Vec<_>>(),
            [(at, DamagedPart::FrameHeader)]
        );
    }

    #[test]
    fn a_record_that_is_sound_but_not_the_one_of_its_frame_is_damage() {
        let mut image = Image::new();
        let [first, second] = image.records();
        // Stale bytes: an older record of the same size at the same place of its frame.
        let place = to_usize(geometry().file_offset(second));
        let len = to_usize(second.since(first));
        let mut stale = image.bytes[place..place + len].to_vec();
        stale[100] ^= 1;
        let frame_offset = u32::try_from(second.0).unwrap();
        record::seal(&mut stale, frame_offset);
        assert!(record::decode(&stale).is_ok());
        image.bytes[place..place + len].copy_from_slice(&stale);
        let (places, _) = image.scrub(|lsn| lsn);
        assert_eq!(
            places.iter().map(|place| (place.lsn, place.part)).collect::<Vec<_>>(),
            [(second, DamagedPart::Record)]
        );
    }

    #[test]
    fn ranges_that_are_not_live_are_skipped_and_no_others() {
        let mut image = Image::new();
        let [first, second] = image.records();
        let hole = image.at;
        image.records();
        image.records();
        let behind = image.at;
        let [_, last] = image.records();
        image.punch(first, second);
        image.punch(hole, behind);
        let hurt = to_usize(geometry().file_offset(last)) + 50;
        image.bytes[hurt] ^= 1;
        let live = move |lsn: Lsn| match lsn {
            lsn if lsn >= first && lsn < second => second,
            lsn if lsn >= hole && lsn < behind => behind,
            lsn => lsn,
        };
        let (places, _) = image.scrub(live);
        assert_eq!(
            places.iter().map(|place| (place.lsn, place.part)).collect::<Vec<_>>(),
            [(last, DamagedPart::Record)]
        );
    }

    #[test]
    fn a_range_that_is_given_up_while_it_is_looked_at_gives_no_report() {
        let mut image = Image::new();
        let [first, _] = image.records();
        let end = image.at;
        image.punch(first, end);
        // Live when the scrub comes to it, no longer when the checksum does not fit.
        let asked = std::sync::atomic::AtomicU64::new(0);
        let live = move |lsn: Lsn| {
            let inside = lsn >= first && lsn < end;
            if inside && asked.fetch_add(1, Ordering::SeqCst) % 2 == 1 { end } else { lsn }
        };
        let (places, _) = image.scrub(live);
        assert_eq!(places, []);
    }
}
