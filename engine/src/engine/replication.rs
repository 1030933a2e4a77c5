//! The engine's side of replication: bytes out, bytes in, and how far others are.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use crate::batch::Queue;
use crate::commit::sequencer::Sequencer;
use crate::commit::watermark::Watermark;
use crate::commitlog::along::LogAlong;
use crate::commitlog::frame;
use crate::commitlog::reader::LogReader;
use crate::commitlog::record::{self, Record, RecordKind};
use crate::consume_queue::Queues;
use crate::engine::{Engine, LOCKED, register};
use crate::epoch::{EpochHistory, EpochStart};
use crate::error::{Fenced, ReadError, TooLarge};
use crate::io::IO_ALIGN;
use crate::limits;
use crate::open;
use crate::replica::{
    AckRule, LogIdentity, LogPiece, ReceiveError, Received, Role, Seed, SparseSegment, Taken, TakenStop,
};
use crate::retention::{live_blocks, survivors};
use crate::table::HeadChange;
use crate::units::{Lsn, QueueOffset, to_u64};

impl Engine {
    /// What the log is: only logs that share it can follow one another.
    #[must_use]
    pub fn identity(&self) -> LogIdentity {
        let info = self.info();
        LogIdentity { store_id: info.store_id, segment_bytes: info.options.segment_bytes, tail: info.options.tail }
    }

    /// Which part this engine plays.
    #[must_use]
    pub fn role(&self) -> Role {
        self.inner.info.options.role
    }

    /// Which epoch wrote what of the log, as far as that is still known.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    #[must_use]
    pub fn history(&self) -> EpochHistory {
        self.inner.sequencer.lock().expect(LOCKED).history.clone()
    }

    /// Bytes that can still be written beside the log.
    ///
    /// # Errors
    /// The kernel's.
    pub fn free_bytes(&self) -> std::io::Result<u64> {
        self.inner.segments.free_bytes()
    }

    /// Bytes of the log from `from` on, for another machine: at most `max` of them, and fewer where one piece ends; none at the
    /// assigned end. Cuts may fall anywhere. What is still in memory is not copied; the rest is read from the disk, not verified: whoever
    /// takes it over does that. A disk read is short while commits are under way and longer while none are.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] below the log's start, or beyond its end; what the kernel refuses to read.
    ///
    /// # Example
    /// ```
    /// # use anchorlog_engine::{BackendChoice, Engine, EngineOptions, Lsn};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
    /// # let engine = Engine::open(dir.path(), options)?;
    /// let mut at = Lsn::ZERO;
    /// while at < engine.watermarks().assigned {
    ///     for piece in engine.log_bytes(at, 64 << 10)? {
    ///         at = at.plus(piece.len() as u64); // piece.as_ref() goes to the socket
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn log_bytes(&self, from: Lsn, max: usize) -> Result<Vec<LogPiece>, ReadError> {
        let inner = &*self.inner;
        let end = inner.buffer.published();
        if from < inner.marks.start() || from > end {
            return Err(ReadError::NotFound(from));
        }
        let len = to_u64(max).min(end.since(from));
        if len == 0 {
            return Ok(Vec::new());
        }
        if let Some(pieces) = inner.buffer.pieces(from, len) {
            return Ok(pieces.into_iter().map(LogPiece::of_memory).collect());
        }
        let (buf, range) = inner.reader.raw(from, len)?;
        Ok(vec![LogPiece::of_disk(buf, range)])
    }

    /// Whether all that was appended is durable and covered by a mark: while nothing is appended, closing the log adds nothing to it.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let sequencer = self.inner.sequencer.lock().expect(LOCKED);
        !sequencer.unmarked && self.inner.marks.load(Watermark::Durable) >= sequencer.next
    }

    /// A way along the log from `from` on through what only the disk has, with several reads under way at once: for a machine that is far
    /// behind, while nobody appends. Beside commits [`Engine::log_bytes`] is right, which reads little at a time.
    ///
    /// # Errors
    /// When the backend has no queue for it.
    ///
    /// # Example
    /// ```
    /// # use anchorlog_engine::{BackendChoice, Engine, EngineOptions, Lsn};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
    /// # let engine = Engine::open(dir.path(), options)?;
    /// let (mut at, mut along) = (Lsn::ZERO, engine.read_along(Lsn::ZERO)?);
    /// while let Some(piece) = along.next(64 << 10)? {
    ///     at = at.plus(piece.len() as u64); // piece.as_ref() goes to the socket
    /// }
    /// let rest = engine.log_bytes(at, 64 << 10)?; // from memory, as all that is younger
    /// # assert!(!rest.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_along(&self, from: Lsn) -> std::io::Result<LogAlong> {
        let inner = &*self.inner;
        LogAlong::new(Arc::clone(&inner.reader), &*inner.backend, from)
    }

    /// What a replica of this log begins with, as it is now. Pin the log where it begins ([`Engine::pin`]) as long as its bytes are on
    /// their way, and look here again if the pin says that something was on its way out.
    ///
    /// # Errors
    /// When what survives below the start cannot be read.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    pub fn seed(&self) -> Result<Seed, ReadError> {
        let inner = &*self.inner;
        let geometry = inner.segments.geometry();
        let (history, end) = {
            let sequencer = inner.sequencer.lock().expect(LOCKED);
            (sequencer.history.clone(), sequencer.next)
        };
        let start = inner.marks.start();
        let mut sparse = Vec::new();
        for base in inner.survivors.bases().into_iter().filter(|base| *base < start) {
            let Some(list) = inner.survivors.list(base) else { continue };
            let mut ranges: Vec<Range<Lsn>> = Vec::new();
            for offset in live_blocks(&inner.reader, geometry, base, &list)? {
                let from = base.plus(offset - limits::SEGMENT_HEADER_BYTES);
                let to = from.plus(to_u64(IO_ALIGN));
                match ranges.last_mut() {
                    Some(last) if last.end == from => last.end = to,
                    _ => ranges.push(from..to),
                }
            }
            sparse.push(SparseSegment { base, ranges });
        }
        Ok(Seed { identity: self.identity(), start, end, history, sparse })
    }

    /// Bytes of what survives below the log's start, from `from` on: at most `max` of them, and fewer where one read ends. As
    /// [`Engine::log_bytes`] they are not verified here.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] where nothing survives any more; what the kernel refuses to read.
    pub fn sparse_bytes(&self, from: Lsn, max: usize) -> Result<Vec<LogPiece>, ReadError> {
        let inner = &*self.inner;
        if from >= inner.marks.start() || max == 0 {
            return if max == 0 { Ok(Vec::new()) } else { Err(ReadError::NotFound(from)) };
        }
        let (buf, range) = inner.reader.raw(from, to_u64(max))?;
        Ok(vec![LogPiece::of_disk(buf, range)])
    }

    /// The values that the log gives a key of the table behind what readers see, the oldest first: whether any of them is acknowledged is
    /// not known here. Reads as much of the log as is not in the table yet.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn puts_behind(&self, key: &[u8]) -> Result<Vec<Arc<[u8]>>, ReadError> {
        let inner = &*self.inner;
        let geometry = inner.segments.geometry();
        let (mut at, end) = (inner.marks.load(Watermark::Dispatched), inner.marks.assigned());
        let mut found = Vec::new();
        while at < end {
            let segment_end = geometry.segment_end(at);
            if segment_end.since(at) < to_u64(frame::FRAME_HEADER_BYTES) {
                at = segment_end;
                continue;
            }
            let (header, bytes) = inner.reader.frame(at)?;
            let records = record::of_frame(&header, &bytes).map(|(_, _, record)| record);
            let puts = records.filter(|record| record.kind == RecordKind::Put && record.name == key);
            found.extend(puts.map(|record| Arc::from(record.payload)));
            at = at.plus(u64::from(header.frame_len));
        }
        Ok(found)
    }

    /// Where the log begins by what it says itself, acknowledged or not: at or above [`Watermarks::start`](crate::Watermarks::start), which
    /// follows.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn start_said(&self) -> Result<Lsn, ReadError> {
        let behind = self.puts_behind(survivors::START_KEY)?;
        let known = self.inner.table.get(survivors::START_KEY)?.map(|entry| entry.value);
        let said = behind.into_iter().chain(known).map(|value| survivors::start_of(Some(&value)));
        Ok(said.max().unwrap_or_default().max(self.inner.marks.start()))
    }

    /// Tells a replica where the log of its leader ends. Whatever was acknowledged lies before, also where the leader that it was seeded by
    /// had more: it is whole ([`Engine::is_whole`]) once it has come there.
    pub fn set_leader_end(&self, end: Lsn) {
        self.inner.seeded_to.fetch_min(end.0, Ordering::SeqCst);
    }

    /// Tells how far other machines have the log, in the sense of whoever says it: with replicated acks the log is acknowledged up to
    /// there, and no further. Only grows; beyond the log's end it counts as far as the log goes.
    pub fn set_replicated(&self, lsn: Lsn) {
        let inner = &*self.inner;
        inner.marks.set_replicated(lsn);
        inner.signals.dispatch.reached(inner.marks.acked());
    }

    /// How far other machines have the log, as last told; `None` without replicated acks.
    #[must_use]
    pub fn replicated(&self) -> Option<Lsn> {
        self.inner.marks.replicated_lsn()
    }

    /// What acknowledgement waits for from now on. What is acknowledged stays so. Without replicated acks, and in a replica, nothing
    /// changes.
    pub fn set_ack_rule(&self, rule: AckRule) {
        let inner = &*self.inner;
        if inner.info.options.role == Role::Replica {
            return;
        }
        inner.marks.set_replicas_count(rule == AckRule::Replicated);
        inner.signals.dispatch.reached(inner.marks.acked());
    }

    /// Takes over bytes of the leader's log that stand at `at`, which is where this log ends: as many whole frames as there are, and the
    /// zeros behind the last one of a segment. They go the way of an append: into the buffer, to the disk with the next group; the durable
    /// watermark tells when they are there.
    ///
    /// The first frame of a newer epoch finds no room before all in front of it is durable here; then the epoch is made durable in the
    /// manifest, within this call.
    ///
    /// # Errors
    /// When nothing could be taken; with [`ReceiveError::Full`] the same bytes may be given again once [`Watermark::Written`] has moved.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    pub fn receive(&self, at: Lsn, bytes: &[u8]) -> Result<Received, ReceiveError> {
        let inner = &*self.inner;
        let _one_at_a_time = inner.receiving.lock().expect(LOCKED);
        let mut consumed = 0;
        loop {
            let (taken, end) = {
                let mut sequencer = inner.sequencer.lock().expect(LOCKED);
                let taken = sequencer.receive(at.plus(to_u64(consumed)), &bytes[consumed..]);
                if taken.consumed > 0 {
                    sequencer.publish();
                }
                (taken, sequencer.next)
            };
            let Taken { consumed: now, stop } = taken;
            consumed += now;
            if now > 0 {
                inner.announce(end);
            }
            match stop {
                TakenStop::NewEpoch(start) => match self.enter_epoch(start) {
                    Ok(()) => {}
                    Err(ReceiveError::Full { .. }) if consumed > 0 => return Ok(Received { consumed, end }),
                    Err(error) => return Err(error),
                },
                TakenStop::NoSegment => inner.make_segment().map_err(|_| self.fence_of_receive())?,
                TakenStop::Refused(error) if consumed == 0 => return Err(error),
                TakenStop::Done | TakenStop::Refused(_) => return Ok(Received { consumed, end }),
            }
        }
    }

    fn fence_of_receive(&self) -> ReceiveError {
        self.inner.marks.fenced().map_or(ReceiveError::Closing, |fenced| fenced.clone().into())
    }

    /// Makes a newer epoch durable: what lies before it first, so that nothing of the past can be lost behind its back.
    fn enter_epoch(&self, start: EpochStart) -> Result<(), ReceiveError> {
        let inner = &*self.inner;
        let (end, durable) = (inner.marks.assigned(), inner.marks.load(Watermark::Durable));
        if let Some(fenced) = inner.marks.fenced() {
            return Err(fenced.clone().into());
        }
        if durable < end {
            // Not waited for here: a disk without room may keep it for long, and whoever gave the bytes has a connection to look after.
            inner.writer_shared.flush_to.fetch_max(end.0, Ordering::SeqCst);
            inner.signals.commit.wake();
            return Err(ReceiveError::Full { waiting: end.since(durable), max: inner.buffer_bytes });
        }
        let mut manifest = inner.manifest.lock().expect(LOCKED);
        let mut next = manifest.clone();
        next.history.push(start);
        next.history.cap(limits::EPOCH_HISTORY_MAX);
        let stored = next.store(&*inner.backend, &inner.info.dir, open::sync_names(&inner.info.options));
        if let Err((path, source)) = stored {
            let what = format!("writing {}", path.display());
            let fenced = Fenced { lsn: inner.marks.load(Watermark::Durable), what, source: Arc::new(source) };
            inner.marks.set_fenced(fenced.clone());
            return Err(fenced.into());
        }
        *manifest = next;
        let history = manifest.history.clone();
        drop(manifest);
        inner.sequencer.lock().expect(LOCKED).enter_epoch(history, start.epoch);
        Ok(())
    }
}

/// Shows the head of the log what is not visible yet: found at open, behind what is known to be acknowledged.
pub(super) fn catch_up_head(
    sequencer: &Mutex<Sequencer>,
    queues: &Queues,
    reader: &LogReader,
    hidden: Range<Lsn>,
) -> Result<(), ReadError> {
    let geometry = sequencer.lock().expect(LOCKED).geometry;
    let mut at = hidden.start;
    while at < hidden.end {
        let segment_end = geometry.segment_end(at);
        if segment_end.since(at) < to_u64(frame::FRAME_HEADER_BYTES) {
            at = segment_end;
            continue;
        }
        let (header, bytes) = reader.frame(at)?;
        let frame_end = at.plus(u64::from(header.frame_len));
        for (lsn, entry, record) in record::of_frame(&header, &bytes) {
            show_head(sequencer, queues, hidden.start, frame_end, lsn, entry.queue_offset, &record)
                .map_err(|error| ReadError::Derived(error.to_string()))?;
        }
        at = frame_end;
    }
    Ok(())
}

fn show_head(
    sequencer: &Mutex<Sequencer>,
    queues: &Queues,
    dispatched: Lsn,
    frame_end: Lsn,
    lsn: Lsn,
    offset: QueueOffset,
    record: &Record<'_>,
) -> Result<(), TooLarge> {
    let head_of = |incarnation: u32| {
        let named = |queue: &Queue| register(&mut sequencer.lock().expect(LOCKED), queue);
        queues.intern_incarnation(record.name, incarnation, named).map(|queue| queue.id() as usize)
    };
    match record.kind {
        RecordKind::EpochHistory => {}
        RecordKind::Lost if record.name.is_empty() => {}
        RecordKind::Append | RecordKind::Link | RecordKind::QueueCounter | RecordKind::Lost => {
            let id = head_of(record.incarnation)?;
            let next = match record.kind {
                RecordKind::QueueCounter => record.payload.first_chunk().map_or(0, |next| u64::from_le_bytes(*next)),
                // Where the queue goes on behind what was given up.
                RecordKind::Lost => offset.0,
                _ => offset.0 + 1,
            };
            let head = &mut sequencer.lock().expect(LOCKED).queues[id];
            (head.next, head.latest) = (QueueOffset(next).max(head.next), Some(lsn));
        }
        RecordKind::DropQueue => {
            let (dropped, next) = (head_of(record.incarnation)?, head_of(record.incarnation + 1)?);
            let mut sequencer = sequencer.lock().expect(LOCKED);
            sequencer.queues[dropped].dropped = true;
            sequencer.queues[next].latest = Some(lsn);
        }
        RecordKind::Put | RecordKind::Delete => {
            let value = (record.kind == RecordKind::Put).then_some(record.payload);
            let change = HeadChange { key: record.name, value, lsn, frame_end };
            sequencer.lock().expect(LOCKED).head.change(&change, dispatched);
        }
    }
    Ok(())
}
