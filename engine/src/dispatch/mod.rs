//! From the log to the queues, the table and the key index: what is acknowledged becomes readable, in log order.
//!
//! Invariants:
//! 1. Nothing above the acked watermark is looked at.
//! 2. What a frame does to queues and table is a function of the frame: a run, a replay after a crash and a replica get the same.
//! 3. An entry out of turn fences the log; it is never skipped.
//!
//! It is a state machine: a thread drives it for watched queues, readers drive it for themselves.

mod known;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::batch::Queue;
use crate::checkpoint::Frozen;
use crate::checkpoint::backlog::{self, Backlog};
use crate::commit::ring::LogBuffer;
use crate::commit::watermark::{Marks, Watermark};
use crate::commitlog::frame::{self, FRAME_HEADER_BYTES, FrameHeader, RecordEntry};
use crate::commitlog::reader::LogReader;
use crate::commitlog::record::{self, Record, RecordKind};
use crate::commitlog::segment::Geometry;
use crate::consume_queue::{QueueEntry, QueueState, Queues};
use crate::error::{Fenced, NotDense};
use crate::fault::{Broken, Fault};
use crate::key_index::KeyIndex;
use crate::limits;
use crate::recovery::{RecordFault, record_fault};
use crate::table::{Change, TableEntry, Visible};
use crate::units::{Lsn, QueueOffset, to_u64, to_usize};
use known::{Known, KnownQueue};

/// Most bytes looked at in one piece.
const WINDOW_BYTES: u64 = 1 << 20;
/// Frames that are looked at together before they are applied one by one.
const FRAMES_AHEAD: usize = 16;

/// Applies frames to queues, table and key index.
pub(crate) struct Applier {
    queues: Arc<Queues>,
    table: Arc<Visible>,
    keys: Arc<KeyIndex>,
    /// Told of queues that the log names before anybody has asked for them.
    registered: Registered,
    known: Known,
    changes: Vec<Change>,
    /// Keys of a frame's messages, as the index keeps them.
    found_keys: Vec<(u32, Lsn)>,
    /// Queues that changed since the last checkpoint began.
    changed: Vec<u32>,
    /// Queue entries since then.
    entries: u64,
    broken: Broken,
}

/// Called under the registry's lock.
pub(crate) type Registered = Box<dyn Fn(&Queue) + Send>;

impl Applier {
    pub(crate) fn new(
        queues: Arc<Queues>,
        table: Arc<Visible>,
        keys: Arc<KeyIndex>,
        registered: Registered,
        broken: Broken,
    ) -> Applier {
        let (known, changes, found_keys, changed) = (Known::default(), Vec::new(), Vec::new(), Vec::new());
        Applier { queues, table, keys, registered, known, changes, found_keys, changed, entries: 0, broken }
    }

    /// Applies frames that stand one behind the other in `bytes`, each with where it ends; calls `touched` with the queue of each record.
    ///
    /// # Errors
    /// When an entry is out of turn. Damaged records are the caller's to find.
    pub(crate) fn apply_all(
        &mut self,
        frames: &[(FrameHeader, usize)],
        bytes: &[u8],
        mut touched: impl FnMut(u32),
    ) -> Result<(), NotDense> {
        let mut begin = 0;
        for some in frames.chunks(FRAMES_AHEAD) {
            let records = frames_of(some, begin, bytes).flat_map(|(header, frame)| record::of_frame(header, frame));
            self.known.look_ahead(records.map(|(_, _, record)| record.name));
            frames_of(some, begin, bytes).try_for_each(|(header, frame)| self.apply(header, frame, &mut touched))?;
            begin = some.last().map_or(begin, |(_, end)| *end);
        }
        Ok(())
    }

    fn apply(&mut self, header: &FrameHeader, bytes: &[u8], mut touched: impl FnMut(u32)) -> Result<(), NotDense> {
        // Verified when it was read or written by this process: a record that does not parse is one of a later version.
        for (lsn, entry, record) in record::of_frame(header, bytes) {
            if let Some(id) = self.apply_record(header, &entry, &record, lsn)? {
                touched(id);
            }
        }
        if !self.found_keys.is_empty() {
            self.keys.push(&mut self.found_keys, header.store_time_ms);
        }
        if !self.changes.is_empty() {
            self.table.apply(&mut self.changes, header.lsn..header.lsn.plus(u64::from(header.frame_len)));
        }
        Ok(())
    }

    fn apply_record(
        &mut self,
        header: &FrameHeader,
        entry: &RecordEntry,
        record: &Record<'_>,
        lsn: Lsn,
    ) -> Result<Option<u32>, NotDense> {
        let place = self.known.next();
        let (id, is_first) = match record.kind {
            RecordKind::EpochHistory => return Ok(None),
            RecordKind::Append | RecordKind::Link => {
                let broken = self.broken;
                self.entries += 1;
                let (id, queue) = self.queue(record.name, record.incarnation, place);
                let to = QueueEntry { lsn, size: entry.len, tag: record.tag, store_time_ms: header.store_time_ms };
                queue
                    .push(entry.queue_offset, to)
                    .or_else(|due| if broken.is(Fault::NoDenseCheck) { queue.push(due, to) } else { Err(due) })
                    .map_err(|due| not_dense(record.name, due, entry.queue_offset, header, lsn))?;
                let is_first = queue.note_change();
                let keys = &self.keys;
                self.found_keys.extend(record::keys(record.keys).map(|key| (keys.hash(key), lsn)));
                if let Some(origin) = record.origin(lsn) {
                    self.table.link(lsn, origin.lsn);
                }
                (id, is_first)
            }
            RecordKind::QueueCounter => {
                let (id, queue) = self.queue(record.name, record.incarnation, place);
                let next = record.payload.first_chunk().map_or(0, |next| u64::from_le_bytes(*next));
                queue
                    .set_next(QueueOffset(next), lsn)
                    .map_err(|due| not_dense(record.name, due, QueueOffset(next), header, lsn))?;
                (id, queue.note_change())
            }
            RecordKind::DropQueue => {
                let (dropped, queue) = self.queue(record.name, record.incarnation, place);
                queue.clear();
                queue.notify();
                if queue.note_change() {
                    self.changed.push(dropped);
                }
                // The next incarnation begins with this record: it is what says that there was one before.
                let (id, queue) = self.queue(record.name, record.incarnation + 1, place);
                queue.begin(lsn);
                (id, queue.note_change())
            }
            RecordKind::Lost if record.name.is_empty() => return Ok(None),
            RecordKind::Lost => {
                let (id, queue) = self.queue(record.name, record.incarnation, place);
                let gap = QueueEntry { lsn, size: 0, tag: 0, store_time_ms: header.store_time_ms };
                let count = queue
                    .lose(entry.queue_offset, gap)
                    .map_err(|due| not_dense(record.name, due, entry.queue_offset, header, lsn))?;
                let is_first = queue.note_change();
                self.entries += count;
                (id, is_first)
            }
            RecordKind::Put => {
                let entry = TableEntry { value: Arc::from(record.payload), target: record.target(lsn), lsn };
                self.changes.push(Change { key: record.name.to_vec(), lsn, entry: Some(entry) });
                return Ok(None);
            }
            RecordKind::Delete => {
                self.changes.push(Change { key: record.name.to_vec(), lsn, entry: None });
                return Ok(None);
            }
        };
        if is_first {
            self.changed.push(id);
        }
        Ok(Some(id))
    }

    /// Queues that changed since the last checkpoint began, and how many entries came to them.
    pub(crate) fn unsaved(self) -> (Vec<u32>, u64) {
        (self.changed, self.entries)
    }

    /// About how much waits in memory for a checkpoint.
    pub(crate) fn unsaved_bytes(&self) -> u64 {
        backlog::estimate(self.entries, self.keys.unsaved(), self.table.unsaved())
    }

    /// Puts aside what changed since the last time; everything below `lsn` is applied, and no queue begins before `start`.
    pub(crate) fn freeze(&mut self, lsn: Lsn, start: Lsn) -> Frozen {
        let changed = std::mem::take(&mut self.changed);
        let mut queues: Vec<_> = changed.into_iter().map(|id| (id, self.queues.state(id).mark())).collect();
        queues.sort_unstable_by_key(|(id, _)| *id);
        queues.dedup_by_key(|(id, _)| *id);
        self.keys.freeze();
        self.entries = 0;
        Frozen { lsn, start, queues, layer: self.table.freeze() }
    }

    /// The queue that a record names; `place` is where its name stands, if that is known.
    fn queue(&mut self, name: &[u8], incarnation: u32, place: Option<usize>) -> (u32, &QueueState) {
        let known = place.or_else(|| self.known.place(name));
        let place = match known.filter(|place| self.known.get(*place).incarnation == incarnation) {
            Some(place) => place,
            None => {
                let queue = self
                    .queues
                    .intern_incarnation(name, incarnation, &self.registered)
                    .expect("names in the log were checked before they got there");
                let (id, state) = (queue.id(), self.queues.state(queue.id()));
                self.known.set(name, KnownQueue { incarnation, id, state })
            }
        };
        let queue = self.known.get(place);
        (queue.id, &queue.state)
    }
}

fn not_dense(name: &[u8], expected: QueueOffset, found: QueueOffset, header: &FrameHeader, lsn: Lsn) -> NotDense {
    NotDense { queue: String::from_utf8_lossy(name).into_owned(), expected, found, lsn, epoch: header.epoch }
}

/// Follows the acked watermark.
pub(crate) struct Dispatcher {
    applier: Applier,
    buffer: Arc<LogBuffer>,
    reader: Arc<LogReader>,
    marks: Arc<Marks>,
    geometry: Geometry,
    touched: Vec<u32>,
    copied: Vec<u8>,
    /// Frames that were looked at and are not applied yet, and where each ends in its piece.
    ahead: Vec<(FrameHeader, usize)>,
    /// An entry was out of turn: nothing behind it is looked at.
    failed: bool,
    backlog: Arc<Backlog>,
    pub(crate) watch_count: Arc<AtomicUsize>,
}

impl Dispatcher {
    pub(crate) fn new(
        applier: Applier,
        buffer: Arc<LogBuffer>,
        reader: Arc<LogReader>,
        marks: Arc<Marks>,
        geometry: Geometry,
        backlog: Arc<Backlog>,
        watch_count: Arc<AtomicUsize>,
    ) -> Dispatcher {
        Dispatcher {
            applier,
            buffer,
            reader,
            marks,
            geometry,
            touched: Vec::new(),
            copied: Vec::new(),
            ahead: Vec::with_capacity(FRAMES_AHEAD),
            failed: false,
            backlog,
            watch_count,
        }
    }

    /// Applies what was acknowledged since the last step; true when there was anything.
    pub(crate) fn step(&mut self) -> bool {
        let from = self.marks.load(Watermark::Dispatched);
        let end = self.marks.acked();
        if from >= end || self.failed {
            return false;
        }
        let reached = match self.follow(from, end) {
            Ok(reached) => reached,
            Err(error) => {
                self.failed = true;
                let source = Arc::new(io::Error::other(error));
                self.marks.set_fenced(Fenced { lsn: from, what: "dispatch".to_owned(), source });
                return false;
            }
        };
        self.marks.set_dispatched(reached);
        self.note_backlog();
        self.notify();
        reached > from
    }

    /// Puts aside what changed since the last checkpoint began; no queue begins before `start`.
    pub(crate) fn freeze(&mut self, start: Lsn) -> Frozen {
        self.note_backlog();
        self.backlog.freeze();
        self.applier.freeze(self.marks.load(Watermark::Dispatched), start)
    }

    fn note_backlog(&self) {
        self.backlog.set(self.applier.unsaved_bytes());
    }

    /// What opening found, and no checkpoint has. It may be more than ever waits otherwise: as much as `most` bytes of it count, so that
    /// appends need not wait for the checkpoint, which is due at once.
    pub(crate) fn note_found(&mut self, queues: Vec<u32>, entries: u64, most: u64) {
        self.note_changed(queues);
        self.applier.entries += entries.min(most / limits::ENTRY_MEMORY);
        self.note_backlog();
    }

    /// Queues that changed otherwise: at open, or because their first messages were released.
    pub(crate) fn note_changed(&mut self, queues: Vec<u32>) {
        self.applier.changed.extend(queues);
    }

    /// Whether somebody waits for a queue's next message.
    pub(crate) fn is_watched(&self) -> bool {
        self.watch_count.load(Ordering::SeqCst) > 0
    }

    fn notify(&mut self) {
        let touched = std::mem::take(&mut self.touched);
        if self.is_watched() {
            for id in &touched {
                let fired = self.applier.queues.state(*id).notify();
                self.watch_count.fetch_sub(fired, Ordering::SeqCst);
            }
        }
        self.touched = touched;
        self.touched.clear();
    }

    fn follow(&mut self, from: Lsn, end: Lsn) -> Result<Lsn, String> {
        let mut at = from;
        while at < end {
            let rest = self.geometry.segment_end(at).since(at);
            if rest < to_u64(FRAME_HEADER_BYTES) {
                at = at.plus(rest).min(end);
                continue;
            }
            // A group may end anywhere, within a header too: the next one brings the rest.
            if end.since(at) < to_u64(FRAME_HEADER_BYTES) {
                break;
            }
            let len = end.since(at).min(WINDOW_BYTES);
            let Some(pieces) = self.buffer.pieces(at, len) else {
                // What waited long for its acknowledgement, or was found at open, is on the disk.
                let (header, bytes) = self.reader.frame(at).map_err(|error| error.to_string())?;
                let next = at.plus(u64::from(header.frame_len));
                if next > end {
                    return Ok(at);
                }
                if let Some(RecordFault::Damaged(what) | RecordFault::UnknownForm(what)) =
                    record_fault(&bytes, &header, self.applier.broken)
                {
                    return Err(what);
                }
                at = self.apply_whole(at, &bytes)?;
                continue;
            };
            let bytes = pieces[0].bytes();
            let reached = self.apply_whole(at, bytes)?;
            if reached > at {
                at = reached;
                continue;
            }
            // The frame lies in two chunks, or is longer than a window.
            let mut copied = std::mem::take(&mut self.copied);
            copied.clear();
            if !self.buffer.copy(at, to_u64(FRAME_HEADER_BYTES), &mut copied) {
                self.copied = copied;
                continue;
            }
            let frame_len = copied.get(8..12).map_or(0, |len| u32::from_le_bytes([len[0], len[1], len[2], len[3]]));
            copied.clear();
            let frame_len = u64::from(frame_len);
            if at.plus(frame_len) > end {
                self.copied = copied;
                return Ok(at);
            }
            // Left memory since: on the disk it is.
            if !self.buffer.copy(at, frame_len, &mut copied) {
                self.copied = copied;
                continue;
            }
            let reached = self.apply_whole(at, &copied)?;
            self.copied = copied;
            if reached == at {
                return Err(format!("no frame at LSN {at}"));
            }
            at = reached;
        }
        Ok(at)
    }

    /// Applies the frames that lie wholly in `bytes`, which begin at `at`; returns where the rest begins.
    fn apply_whole(&mut self, mut at: Lsn, mut bytes: &[u8]) -> Result<Lsn, String> {
        let mut ahead = std::mem::take(&mut self.ahead);
        let outcome = loop {
            ahead.clear();
            if let Err(error) = self.gather(at, bytes, &mut ahead) {
                break Err(error);
            }
            let Some((_, taken)) = ahead.last() else { break Ok(at) };
            let taken = *taken;
            let touched = &mut self.touched;
            let applied = self.applier.apply_all(&ahead, bytes, |id| {
                if touched.last() != Some(&id) {
                    touched.push(id);
                }
            });
            if let Err(error) = applied {
                break Err(error.to_string());
            }
            at = at.plus(to_u64(taken));
            bytes = &bytes[taken..];
        };
        self.ahead = ahead;
        outcome
    }

    /// The next frames that lie wholly in `bytes`, which begin at `at`: a few, and none of another segment. What is wrong is told when it
    /// comes first.
    fn gather(&self, mut at: Lsn, bytes: &[u8], ahead: &mut Vec<(FrameHeader, usize)>) -> Result<(), String> {
        let mut end = 0;
        let segment_end = self.geometry.segment_end(at);
        while ahead.len() < FRAMES_AHEAD && segment_end.since(at) >= to_u64(FRAME_HEADER_BYTES) {
            let rest = &bytes[end..];
            if rest.len() < FRAME_HEADER_BYTES {
                break;
            }
            let header = match frame::header_bytes_needed(rest) {
                Ok(need) if rest.len() < need => break,
                Ok(_) => frame::decode_header(rest, at),
                Err(error) => Err(error),
            };
            let header = match header {
                Ok(header) => header,
                Err(_) if !ahead.is_empty() => break,
                Err(error) => return Err(format!("LSN {at}: {error}")),
            };
            let len = to_usize(u64::from(header.frame_len));
            if rest.len() < len {
                break;
            }
            end += len;
            at = at.plus(to_u64(len));
            ahead.push((header, end));
        }
        Ok(())
    }
}

/// These frames of those that stand one behind the other in `bytes`: the first begins at `begin`, each ends as told.
fn frames_of<'f>(
    frames: &'f [(FrameHeader, usize)],
    begin: usize,
    bytes: &'f [u8],
) -> impl Iterator<Item = (&'f FrameHeader, &'f [u8])> {
    frames.iter().scan(begin, move |begin, (header, end)| {
        let frame = &bytes[*begin..*end];
        *begin = *end;
        Some((header, frame))
    })
}
