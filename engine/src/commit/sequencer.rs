//! The one log order: LSNs, queue offsets and header checksums are given out here, under the append lock.
//!
//! Invariants:
//! 1. Frames follow each other without a gap; each header holds the checksum of the one before it.
//! 2. No frame crosses a segment; a segment's first frame restates the epoch history.
//! 3. Queue offsets are dense in log order.
//! 4. A batch is refused before anything of it is copied.
//! 5. A frame's place is in a segment that stands ready (`room`).
//! 6. No call here does I/O: preconditions are judged by the head view, for which what is needed was fetched before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::batch::{AppendOutcome, BatchRecord, Precondition, Queue, RecordPosition, WriteBatch};
use crate::checkpoint::backlog::Backlog;
use crate::commit::ring::{LogBuffer, Tail};
use crate::commit::room::{Claim, Refused, Room};
use crate::commit::watermark::{Marks, Watermark};
use crate::commitlog::frame::{self, FRAME_ENTRY_BYTES, FRAME_HEADER_BYTES, FrameKind, FrameStamp, RecordEntry};
use crate::commitlog::record::{RECORD_HEADER_BYTES, RecordKind, RecordParts};
use crate::commitlog::segment::Geometry;
use crate::epoch::EpochHistory;
use crate::error::{AppendError, Found, Rejection, TooLarge};
use crate::fault::{Broken, Fault};
use crate::io::IO_ALIGN;
use crate::limits;
use crate::options;
use crate::retention::Survivors;
use crate::table::{HeadChange, HeadView, Held};
use crate::units::{Epoch, Lsn, QueueOffset, align_down, align_up, to_u64};

/// A queue as the head of the log sees it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QueueHead {
    /// The offset that the next message gets.
    pub(crate) next: QueueOffset,
    /// Where the newest record stands that tells this number; `None` before the first.
    pub(crate) latest: Option<Lsn>,
    /// This incarnation was dropped: its handles are refused.
    pub(crate) dropped: bool,
}

/// What the append lock protects.
pub(crate) struct Sequencer {
    pub(crate) tail: Tail,
    pub(crate) next: Lsn,
    pub(crate) prev_crc: u32,
    /// Whether that is known: a replica's first frame follows one that it does not have.
    pub(crate) is_chained: bool,
    pub(crate) epoch: Epoch,
    pub(crate) history: EpochHistory,
    pub(crate) store_time_ms: u64,
    /// By queue id.
    pub(crate) queues: Vec<QueueHead>,
    /// The table at the head of the log.
    pub(crate) head: HeadView,
    /// Room for what the header of a frame says of its records.
    pub(crate) entries: Vec<RecordEntry>,
    /// Messages below are gone, or on their way out: nothing new may refer to them, unless they survive.
    pub(crate) closed_below: Lsn,
    pub(crate) survivors: Arc<Survivors>,
    pub(crate) geometry: Geometry,
    pub(crate) buffer_bytes: u64,
    pub(crate) buffer: Arc<LogBuffer>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) room: Arc<Room>,
    pub(crate) backlog: Arc<Backlog>,
    /// On whose behalf what is to be released is restated: the engine's own, when no more than one segment's worth can come of it.
    pub(crate) restates: Claim,
    /// Whether there are records behind the last mark.
    pub(crate) unmarked: bool,
    /// Where the last frame ends that is durable as a whole, and where those behind it do: no more than the buffer holds.
    pub(crate) durable_end: Lsn,
    pub(crate) frame_ends: VecDeque<Lsn>,
    pub(crate) broken: Broken,
    /// Another machine gives out the places: see `replica`.
    pub(crate) is_replica: bool,
    /// Which opening of an engine this is; queues and batches of another one are refused.
    pub(crate) opening: u32,
    pub(crate) batches: u64,
    /// Records that were given a place; looked at without the lock, too.
    pub(crate) records: Arc<AtomicU64>,
    pub(crate) frame_bytes: u64,
    pub(crate) full: u64,
}

impl Sequencer {
    /// Checks what can be checked before the batch is given a place.
    pub(crate) fn check(&self, batch: &WriteBatch) -> Result<(), AppendError> {
        if batch.is_empty() {
            return Err(AppendError::Empty);
        }
        let len = batch.frame_bytes();
        let max = limits::frame_bytes_max(self.geometry.segment_bytes);
        if len > max {
            return Err(TooLarge { what: "batch (as a frame of this log's segments)", found: len, max }.into());
        }
        if batch.opening.is_some_and(|opening| opening != self.opening) {
            return Err(AppendError::ForeignQueue);
        }
        if let Some(fenced) = self.marks.fenced() {
            return Err(fenced.clone().into());
        }
        if self.marks.is_closing() {
            return Err(AppendError::Closing);
        }
        if self.is_replica {
            return Err(AppendError::NotLeader);
        }
        Ok(())
    }

    /// Refuses what the buffer cannot take now, what no segment stands ready for, and what memory is not to hold.
    fn admit(&mut self, len: u64, claim: Claim) -> Result<(), Refused> {
        self.room.admit(claim, self.next, self.reach(len))?;
        self.backlog.admit(claim).inspect_err(|_| self.full += 1)?;
        let waiting = self.next.since(self.marks.load(Watermark::Written));
        // An empty buffer takes everything that fits a segment: what is beyond the bound is then the filler and the history.
        if waiting > 0 && waiting + len > self.buffer_bytes {
            self.full += 1;
            return Err(AppendError::Full { waiting, max: self.buffer_bytes }.into());
        }
        Ok(())
    }

    /// Gives a sealed batch its place. Not yet readable: see [`Sequencer::publish`]. The keys of its preconditions are held and filled.
    pub(crate) fn append(&mut self, batch: &WriteBatch, wall_ms: u64) -> Result<AppendOutcome, Refused> {
        let claim = if batch.essential { Claim::Essential } else { Claim::Ordinary };
        self.append_as(claim, batch, wall_ms)
    }

    /// As [`Sequencer::append`], with a claim of its own.
    pub(crate) fn append_as(
        &mut self,
        claim: Claim,
        batch: &WriteBatch,
        wall_ms: u64,
    ) -> Result<AppendOutcome, Refused> {
        self.check(batch)?;
        let len = batch.frame_bytes();
        self.admit(len, claim)?;
        self.check_references(batch)?;
        self.judge(batch)?;
        Ok(self.place(batch, wall_ms))
    }

    /// Queues that were dropped, by an earlier operation of this batch too, and messages on their way out, are not to be named any more.
    fn check_references(&self, batch: &WriteBatch) -> Result<(), AppendError> {
        let mut dropped_here: Vec<u32> = Vec::new();
        for record in &batch.records {
            if let Some(id) = record.queue_id {
                if self.queues[id as usize].dropped || dropped_here.contains(&id) {
                    return Err(AppendError::Dropped);
                }
                if record.kind == RecordKind::DropQueue {
                    dropped_here.push(id);
                }
            }
            let gone = |lsn: Lsn| lsn < self.closed_below && !self.survivors.contains(lsn);
            if let Some((lsn, origin)) = record.targets()
                && (gone(lsn) || gone(origin))
            {
                return Err(AppendError::TargetGone(lsn));
            }
        }
        Ok(())
    }

    fn judge(&self, batch: &WriteBatch) -> Result<(), AppendError> {
        for (index, precondition) in batch.preconditions.iter().enumerate() {
            let outcome = match precondition {
                Precondition::Next(queue, next) => {
                    let head = &self.queues[queue.id as usize];
                    if head.dropped {
                        return Err(AppendError::Dropped);
                    }
                    let rests_on = if head.latest.is_some() { self.next } else { Lsn::ZERO };
                    if head.next == *next { Ok(()) } else { Err((Found::Next(head.next), rests_on)) }
                }
                of_a_key => self.head.judge(of_a_key),
            };
            outcome.map_err(|(found, rests_on)| Rejection { index, found, rests_on })?;
        }
        Ok(())
    }

    /// Keeps the keys of a batch's preconditions in the head view; those that must be fetched for it are returned.
    pub(crate) fn hold(&mut self, batch: &WriteBatch) -> Vec<(Arc<[u8]>, bool)> {
        let keys = batch.preconditions.iter().filter_map(Precondition::key);
        keys.map(|key| (Arc::clone(key), self.head.hold(key))).collect()
    }

    /// Takes over what was fetched.
    pub(crate) fn fill(&mut self, held: &[Held]) {
        held.iter().for_each(|held| self.head.fill(held));
    }

    /// Gives back what [`Sequencer::hold`] kept.
    pub(crate) fn release(&mut self, held: &[Held]) {
        held.iter().for_each(|held| self.head.release(&held.key));
    }

    fn place(&mut self, batch: &WriteBatch, wall_ms: u64) -> AppendOutcome {
        self.store_time_ms = self.store_time_ms.max(wall_ms);
        let len = batch.frame_bytes();
        self.make_room(len);
        let lsn = self.next;
        let mut at = lsn.plus(to_u64(frame::header_bytes(batch.len())));
        let first = self.position(&batch.records[0], at);
        let mut rest = Vec::with_capacity(batch.len() - 1);
        if batch.len() == 1 {
            self.put_frame(FrameKind::Records, len, &[batch.entry(0, first.queue_offset)], &batch.bytes);
        } else {
            let mut entries = std::mem::take(&mut self.entries);
            entries.clear();
            entries.push(batch.entry(0, first.queue_offset));
            for (index, record) in batch.records.iter().enumerate().skip(1) {
                at = at.plus(u64::from(batch.records[index - 1].len));
                let position = self.position(record, at);
                entries.push(batch.entry(index, position.queue_offset));
                rest.push(position);
            }
            self.put_frame(FrameKind::Records, len, &entries, &batch.bytes);
            self.entries = entries;
        }
        self.note_changes(batch, first, &rest);
        self.batches += 1;
        self.records.fetch_add(to_u64(batch.len()), Ordering::Relaxed);
        AppendOutcome { lsn, end_lsn: self.next, store_time_ms: self.store_time_ms, first, rest }
    }

    /// Shows the batch's table changes to the preconditions that come after it.
    fn note_changes(&mut self, batch: &WriteBatch, first: RecordPosition, rest: &[RecordPosition]) {
        if batch.records.iter().all(|record| record.change.is_none()) {
            return;
        }
        let dispatched = self.marks.load(Watermark::Dispatched);
        let frame_end = self.next;
        for ((change, bytes), position) in batch.changes().zip(std::iter::once(&first).chain(rest)) {
            if let Some(change) = change {
                let (key, value, lsn) = (change.key(bytes), change.value(bytes), position.lsn);
                self.head.change(&HeadChange { key, value, lsn, frame_end }, dispatched);
            }
        }
    }

    fn position(&mut self, record: &BatchRecord, lsn: Lsn) -> RecordPosition {
        let queue_offset = match record.queue_id {
            None => QueueOffset(0),
            Some(id) => {
                let head = &mut self.queues[id as usize];
                let offset = head.next;
                head.latest = Some(lsn);
                head.dropped |= record.kind == RecordKind::DropQueue;
                if record.counts() {
                    head.next = QueueOffset(offset.0 + 1);
                }
                if head.dropped { QueueOffset(0) } else { offset }
            }
        };
        RecordPosition { lsn, queue_offset }
    }

    /// Makes everything given out so far readable, and writable to the device.
    pub(crate) fn publish(&mut self) {
        self.buffer.publish(self.next);
        self.marks.set_assigned(self.next);
    }

    /// Bytes below this may leave the buffer: written (but for the block that the next write begins with) and dispatched.
    pub(crate) fn keep_from(&self) -> Lsn {
        let written = Lsn(align_down(self.marks.load(Watermark::Written).0, to_u64(IO_ALIGN)));
        // What waits for other machines is dispatched from the disk, should that take long.
        let waits = self.marks.replicated_lsn().is_some();
        if waits { written } else { written.min(self.marks.load(Watermark::Dispatched)) }
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let keep_from = self.keep_from();
        self.buffer.write(&mut self.tail, self.next, bytes, keep_from);
        self.next = self.next.plus(to_u64(bytes.len()));
    }

    /// The end of the last frame that is durable as a whole. A group may end inside a frame, and a power failure may take the rest of it:
    /// a mark in the middle would make that torn tail look like damage.
    pub(crate) fn durable_mark(&mut self) -> Lsn {
        let durable = self.marks.load(Watermark::Durable);
        while self.frame_ends.front().is_some_and(|end| *end <= durable) {
            self.durable_end = self.frame_ends.pop_front().expect("it was just looked at");
        }
        if self.broken.is(Fault::NoDurableMark) { Lsn::ZERO } else { self.durable_end }
    }

    fn put_frame(&mut self, kind: FrameKind, frame_len: u64, entries: &[RecordEntry], body: &[u8]) {
        let stamp = FrameStamp {
            lsn: self.next,
            prev_crc: self.prev_crc,
            epoch: self.epoch,
            store_time_ms: self.store_time_ms,
            durable_lsn: self.durable_mark(),
            acked_lsn: self.marks.acked().min(self.next),
        };
        let frame_len = u32::try_from(frame_len).expect("bounded by the segment size");
        let header_len = frame::header_bytes(entries.len());
        let mut small = [0; FRAME_HEADER_BYTES + 4 * FRAME_ENTRY_BYTES];
        let mut large = Vec::new();
        let header = if header_len <= small.len() {
            &mut small[..header_len]
        } else {
            large.resize(header_len, 0);
            &mut large[..]
        };
        self.prev_crc = frame::encode_header(header, kind, frame_len, &stamp, entries.iter().copied());
        self.put(header);
        self.put(body);
        self.frame_ends.push_back(stamp.lsn.plus(u64::from(frame_len)));
        self.unmarked |= kind == FrameKind::Records;
        self.frame_bytes += u64::from(frame_len);
    }

    /// Where a frame of this length would end, with all that [`Sequencer::make_room`] and a block's padding put beside it.
    fn reach(&self, len: u64) -> Lsn {
        let history = frame::header_bytes(1) + RECORD_HEADER_BYTES + self.history.encoded_bytes();
        let len_behind_history = to_u64(history.next_multiple_of(8)) + len;
        let end = if self.next == self.geometry.base(self.next) {
            self.next.plus(len_behind_history)
        } else if len > self.geometry.segment_end(self.next).since(self.next) {
            self.geometry.segment_end(self.next).plus(len_behind_history)
        } else {
            self.next.plus(len)
        };
        match self.geometry.tail {
            options::Tail::Rewrite => end,
            // Padding never leaves the segment.
            options::Tail::Pad => end.plus(2 * to_u64(IO_ALIGN)).min(self.geometry.segment_end(Lsn(end.0 - 1))),
        }
    }

    /// Begins the next segment when a frame of this length does not fit, or this one is full to the last byte.
    fn make_room(&mut self, len: u64) {
        if self.next == self.geometry.base(self.next) {
            self.restate_history();
        } else if len > self.geometry.segment_end(self.next).since(self.next) {
            self.roll();
        }
    }

    /// Fills the rest of the segment and begins the next one.
    fn roll(&mut self) {
        self.pad_to(self.geometry.segment_end(self.next));
        self.restate_history();
    }

    /// A filler up to `end`: a frame where one fits, zeros where not (only at a segment's end).
    fn pad_to(&mut self, end: Lsn) {
        let len = end.since(self.next);
        if len >= to_u64(FRAME_HEADER_BYTES) {
            self.put_frame(FrameKind::Pad, len, &[], &[]);
        }
        let keep_from = self.keep_from();
        self.buffer.write_zeros(&mut self.tail, self.next, end, keep_from);
        self.next = end;
    }

    /// Fills the last block (`Tail::Pad`), publishes, and says where the log ends now.
    pub(crate) fn pad_to_block(&mut self) -> Lsn {
        let align = to_u64(IO_ALIGN);
        let mut end = Lsn(align_up(self.next.0, align));
        let fits = |end: Lsn| end == self.next || end.since(self.next) >= to_u64(FRAME_HEADER_BYTES);
        if !fits(end) && end != self.geometry.segment_end(self.next) {
            end = end.plus(align);
        }
        self.pad_to(end);
        self.publish();
        end
    }

    /// The epoch history as a frame: the first of a segment, and of a run.
    pub(crate) fn restate_history(&mut self) {
        let mut batch = WriteBatch::new();
        let history = self.history.encode();
        let parts = RecordParts {
            kind: RecordKind::EpochHistory,
            name: &[],
            incarnation: 0,
            tag: 0,
            keys: &[],
            attributes: &[],
            payload: &[&history],
        };
        batch.push_parts(None, &parts).expect("a history is bounded by EPOCH_HISTORY_MAX");
        batch.seal();
        self.put_frame(FrameKind::Records, batch.frame_bytes(), &[batch.entry(0, QueueOffset(0))], &batch.bytes);
    }

    /// Whether a segment stands ready for [`Sequencer::begin_run`].
    pub(crate) fn run_fits(&self) -> bool {
        self.room.admit(Claim::Own, self.next, self.reach(limits::EPOCH_FRAME_BYTES_MAX)).is_ok()
    }

    /// The first frame of a run.
    pub(crate) fn begin_run(&mut self) {
        let needed = limits::EPOCH_FRAME_BYTES_MAX;
        if self.geometry.segment_end(self.next).since(self.next) < needed && self.geometry.base(self.next) != self.next
        {
            self.roll();
        } else {
            self.restate_history();
        }
        self.publish();
    }

    /// A frame that carries nothing but the marks, so that the group before it is covered by one; nothing where no segment stands ready.
    pub(crate) fn put_mark(&mut self) {
        if self.room.left(Claim::Own, self.next) < self.reach(to_u64(FRAME_HEADER_BYTES)).since(self.next) {
            return;
        }
        self.make_room(to_u64(FRAME_HEADER_BYTES));
        self.put_frame(FrameKind::Mark, to_u64(FRAME_HEADER_BYTES), &[], &[]);
        self.unmarked = false;
        self.publish();
    }

    /// Restates the next offset of given queues whose newest record stands below `start`: a few batches of them at a time. True when
    /// none is left.
    pub(crate) fn restate_counters(&mut self, queues: &[Queue], start: Lsn, wall_ms: u64) -> Result<bool, Refused> {
        let stale = |queue: &&Queue| {
            let head = &self.queues[queue.id as usize];
            !head.dropped && head.latest.is_some_and(|latest| latest < start)
        };
        let most = limits::COUNTERS_PER_BATCH * limits::COUNTER_BATCHES_PER_STEP;
        let stale: Vec<&Queue> = queues.iter().filter(stale).take(most).collect();
        // Bounded pieces: a frame must fit the smallest segment.
        for some in stale.chunks(limits::COUNTERS_PER_BATCH) {
            let mut batch = WriteBatch::new();
            for queue in some {
                batch.push_counter(queue, self.queues[queue.id as usize].next);
            }
            batch.seal();
            let appended = self.append_as(self.restates, &batch, wall_ms);
            // Published at once, refused or not: what is not published is never written, and the buffer never drains.
            self.publish();
            appended?;
        }
        Ok(stale.len() < most)
    }

    /// Appends table entries again, each only if its latest record is still the one that the batch names; true unless none was.
    pub(crate) fn restate_entries(
        &mut self,
        mut batch: WriteBatch,
        held: &[Held],
        wall_ms: u64,
    ) -> Result<bool, Refused> {
        self.fill(held);
        let head = &self.head;
        batch.retain(|record, bytes| {
            let change = record.change.as_ref().expect("only entries are restated");
            change.only_if_latest.is_some_and(|latest| head.is_latest(change.key(bytes), latest))
        });
        if batch.is_empty() {
            return Ok(false);
        }
        let appended = self.append_as(self.restates, &batch, wall_ms);
        self.publish();
        appended.map(|_| true)
    }
}
