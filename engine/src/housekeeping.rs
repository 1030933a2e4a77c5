//! Work beside the append path: segments ahead of need, segments that may go, the mark behind the last group,
//! looking for rot.
//!
//! One state machine, stepped by one thread; every step is short. What is deliberately not here: deciding what may go (`retention`).

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::batch::{Queue, WriteBatch};
use crate::checkpoint::CheckpointShared;
use crate::clock::Clock;
use crate::commit::room::{Claim, Refused, Room};
use crate::commit::sequencer::Sequencer;
use crate::commit::watermark::{Marks, Watermark};
use crate::commitlog::frame;
use crate::commitlog::manifest::Manifest;
use crate::commitlog::reader::LogReader;
use crate::commitlog::record::{self, RecordKind};
use crate::commitlog::segments::{HalfMade, Segments};
use crate::consume_queue::Queues;
use crate::error::{AppendError, Fenced, ReadError};
use crate::io::{AlignedBuf, IoBackend, is_full};
use crate::limits;
use crate::retention::Retention;
use crate::scrub::Scrubber;
use crate::table::{Fetched, Held, Visible};
use crate::units::{Lsn, to_u64, to_usize};

/// A segment that is being filled with zeros.
struct Filling {
    half_made: HalfMade,
    at: u64,
}

/// A release under way.
enum Releasing {
    /// What the segments below `start` say last of table entries is said again; they are read up to `at`.
    Entries { start: Lsn, at: Lsn },
    /// What they say last of queues is said again.
    Counters { start: Lsn },
    /// All is said; it waits to be durable, and for everything before it to be known to the table.
    Settling { start: Lsn, end: Lsn },
}

/// The state machine.
pub(crate) struct Housekeeper {
    parts: Parts,
    state: State,
}

#[derive(Default)]
struct State {
    filling: Option<Filling>,
    releasing: Option<Releasing>,
    /// When the next paced step of the filler is due.
    fill_due: Duration,
    /// The assigned end when it last changed, and when that was.
    seen: Lsn,
    seen_at: Duration,
    /// The assigned end at the first step.
    began: Option<Lsn>,
    /// It was said that appends are refused.
    said_full: bool,
    /// The end at which there was nothing left to mark.
    rested: Lsn,
    /// Segments could not be released; tried again when this time is reached.
    release_at: Duration,
    /// No segment could be made ahead; tried again when this time is reached.
    retry_at: Duration,
}

/// What it works with.
pub(crate) struct Parts {
    pub(crate) backend: Arc<dyn IoBackend>,
    pub(crate) dir: std::path::PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) room: Arc<Room>,
    pub(crate) sequencer: Arc<Mutex<Sequencer>>,
    pub(crate) queues: Arc<Queues>,
    pub(crate) table: Arc<Visible>,
    pub(crate) reader: Arc<LogReader>,
    pub(crate) retention: Arc<Mutex<Retention>>,
    pub(crate) manifest: Manifest,
    pub(crate) retain_bytes: Option<u64>,
    pub(crate) spare_count: u64,
    pub(crate) sync_names: bool,
    pub(crate) scrubber: Scrubber,
    /// Told where the log ends after something was appended here.
    pub(crate) appended: Box<dyn Fn(Lsn) + Send>,
    pub(crate) checkpoint: Arc<CheckpointShared>,
    /// A checkpoint is due after so many bytes of log.
    pub(crate) checkpoint_bytes: u64,
    /// Tells that a checkpoint is wanted.
    pub(crate) wake_checkpointer: Box<dyn Fn() + Send>,
    /// Tells which queues lost their first entries.
    pub(crate) queues_changed: Box<dyn Fn(Vec<u32>) + Send>,
    /// Brings queues and table up to what is acknowledged.
    pub(crate) catch_up: Box<dyn Fn() + Send>,
    /// Asks for everything up to there to become durable soon.
    pub(crate) hurry: Box<dyn Fn(Lsn) + Send>,
}

/// The lowest message below `start` that is referred to; everything, as long as nobody can tell.
pub(crate) fn pinned(table: &Visible, start: Lsn) -> Option<Lsn> {
    table.lowest_target(start).unwrap_or_else(|error| {
        tracing::warn!(%error, "nothing is released while it is not known what is referred to");
        Some(Lsn::ZERO)
    })
}

impl Housekeeper {
    pub(crate) fn new(parts: Parts) -> Housekeeper {
        Housekeeper { parts, state: State::default() }
    }

    /// Does one short piece of work; says when the next is due, at the latest.
    pub(crate) fn step(&mut self) -> Duration {
        if self.parts.marks.fenced().is_some() {
            return limits::HOUSEKEEPING_INTERVAL;
        }
        let now = self.parts.clock.monotonic();
        let assigned = self.parts.marks.assigned();
        if assigned != self.state.seen {
            (self.state.seen, self.state.seen_at) = (assigned, now);
        }
        let (start, acked) = (self.parts.marks.start(), self.parts.marks.acked());
        self.parts.room.set_unsaved(self.parts.checkpoint.overdue(start, acked, self.parts.checkpoint_bytes));
        self.say(assigned);
        let idle = now.saturating_sub(self.state.seen_at);
        let mark_in = self.mark(idle);
        let release_in = self.release().unwrap_or_else(|error| self.fence("releasing segments", error));
        let busy = idle < limits::BUSY_FOR;
        let fill_in = match self.fill(now, busy) {
            Ok(due) => due,
            Err(error) => {
                // No spare now is no failure: an append that finds none makes one, or is refused.
                self.abandon();
                if is_full(&error) {
                    self.parts.segments.note_full(&error);
                    self.state.retry_at = now + limits::FULL_DISK_RETRY;
                } else {
                    tracing::warn!(%error, "no segment could be prepared ahead");
                    self.state.retry_at = now + Duration::from_secs(1);
                }
                limits::HOUSEKEEPING_INTERVAL
            }
        };
        let due = mark_in.min(release_in).min(fill_in);
        // Only when nothing else is.
        if due.is_zero() { due } else { due.min(self.parts.scrubber.step(now, busy)) }
    }

    fn fence(&self, what: &str, error: io::Error) -> Duration {
        let lsn = self.parts.marks.load(Watermark::Durable);
        self.parts.marks.set_fenced(Fenced { lsn, what: what.to_owned(), source: Arc::new(error) });
        limits::HOUSEKEEPING_INTERVAL
    }

    /// Says once that appends are refused for want of space, and once that they no longer are.
    fn say(&mut self, assigned: Lsn) {
        let room = &self.parts.room;
        if room.refuses() && !self.state.said_full {
            self.state.said_full = true;
            let why = room.why().map_or_else(|| "it has passed".to_owned(), |error| error.to_string());
            tracing::error!(
                why,
                dir = %self.parts.dir.display(),
                essential_bytes = room.left(Claim::Essential, assigned),
                "there is no room for the log to grow: appends are refused, nothing stored is at risk; free space or release segments"
            );
        }
        if room.takes_again(assigned) && std::mem::take(&mut self.state.said_full) {
            tracing::info!(dir = %self.parts.dir.display(), "there is room again: appends are taken");
        }
    }

    /// Appends a mark when the log has been idle and its last records are not covered by one.
    fn mark(&mut self, idle: Duration) -> Duration {
        let assigned = self.state.seen;
        if self.state.rested == assigned || self.parts.marks.is_closing() {
            return limits::HOUSEKEEPING_INTERVAL;
        }
        if idle < limits::MARK_DELAY || self.parts.marks.load(Watermark::Durable) < assigned {
            return limits::MARK_DELAY;
        }
        let end = {
            let mut sequencer = self.parts.sequencer.lock().expect("the append lock is intact");
            if sequencer.next != assigned {
                return limits::MARK_DELAY;
            }
            if !sequencer.unmarked {
                self.state.rested = assigned;
                return limits::HOUSEKEEPING_INTERVAL;
            }
            sequencer.put_mark();
            sequencer.next
        };
        (self.parts.appended)(end);
        limits::MARK_DELAY
    }

    fn target(&self) -> Lsn {
        let marks = &self.parts.marks;
        // Under asynchronous flush queues run ahead of the disk; the log's start may not.
        let settled = marks.load(Watermark::Dispatched).min(marks.load(Watermark::Durable));
        let retention = self.parts.retention.lock().expect("the retention rules are intact");
        let geometry = self.parts.segments.geometry();
        let table = &self.parts.table;
        let target =
            retention.target(geometry, marks.start(), settled, marks.assigned(), self.parts.retain_bytes, |start| {
                pinned(table, start)
            });
        let checkpoint = &self.parts.checkpoint;
        if target > geometry.base(checkpoint.applied()) {
            checkpoint.want(target);
            (self.parts.wake_checkpointer)();
        }
        target.min(geometry.base(checkpoint.holds_back())).max(marks.start())
    }

    fn release(&mut self) -> io::Result<Duration> {
        match self.state.releasing.take() {
            None => self.begin_release(),
            Some(Releasing::Entries { start, at }) if at < start => {
                let next = match self.restate_entries(start, at) {
                    Ok(next) => next,
                    Err(why) => {
                        tracing::warn!(%why, lsn = %at, "segments cannot be released");
                        self.open_again();
                        self.state.release_at = self.parts.clock.monotonic() + limits::RELEASE_RETRY;
                        return Ok(limits::HOUSEKEEPING_INTERVAL);
                    }
                };
                // `None`: there was no room for it.
                let Some(next) = next else {
                    self.put_off_release(limits::FULL_DISK_RETRY);
                    return Ok(limits::HOUSEKEEPING_INTERVAL);
                };
                self.state.releasing = Some(Releasing::Entries { start, at: next });
                Ok(if next == at { Duration::from_millis(1) } else { Duration::ZERO })
            }
            Some(Releasing::Entries { start, .. } | Releasing::Counters { start }) => {
                let queues: Vec<Queue> = self.parts.queues.all();
                let wall_ms = self.parts.clock.wall_ms();
                let mut sequencer = self.parts.sequencer.lock().expect("the append lock is intact");
                let all_restated = sequencer.restate_counters(&queues, start, wall_ms);
                let end = sequencer.next;
                drop(sequencer);
                (self.parts.hurry)(end);
                // A full buffer puts it off.
                let done = matches!(all_restated, Ok(true));
                if matches!(all_restated, Err(Refused::Because(AppendError::OutOfSpace { .. }))) {
                    self.put_off_release(limits::FULL_DISK_RETRY);
                    return Ok(limits::HOUSEKEEPING_INTERVAL);
                }
                self.state.releasing =
                    Some(if done { Releasing::Settling { start, end } } else { Releasing::Counters { start } });
                Ok(if done { Duration::ZERO } else { Duration::from_millis(1) })
            }
            Some(Releasing::Settling { start, end }) => {
                (self.parts.catch_up)();
                let marks = &self.parts.marks;
                if marks.load(Watermark::Durable).min(marks.load(Watermark::Dispatched)) < end {
                    self.state.releasing = Some(Releasing::Settling { start, end });
                    return Ok(Duration::from_millis(1));
                }
                // A pin that was set meanwhile, or a reference, holds; what was restated does no harm.
                if self.target() >= start {
                    self.finish_release(start)?;
                } else {
                    self.open_again();
                }
                Ok(Duration::ZERO)
            }
        }
    }

    fn begin_release(&mut self) -> io::Result<Duration> {
        let target = self.target();
        let current = self.parts.marks.start();
        if target > current
            && self.parts.segments.find(target).is_some()
            && !self.parts.marks.is_closing()
            && self.parts.clock.monotonic() >= self.state.release_at
        {
            let target = self.within_room(current, target);
            // From here on nothing new can refer to what goes: what does so already is known once this is dispatched.
            self.parts.sequencer.lock().expect("the append lock is intact").closed_below = target;
            self.state.releasing = Some(Releasing::Entries { start: target, at: current });
            return Ok(Duration::ZERO);
        }
        // What is missing is made of them first.
        let ready = self.parts.segments.prepared_count(self.parts.marks.assigned());
        let keep = to_usize(self.parts.spare_count + 1 + self.wanted_count().saturating_sub(ready));
        let more = self.parts.segments.drop_surplus(keep)?;
        Ok(if more { Duration::from_millis(5) } else { limits::HOUSEKEEPING_INTERVAL })
    }

    /// What is to be released at one time. With little room that is one segment: what has to be said again of it fits the part of the
    /// reserve that is kept for this, and its file becomes the next segment.
    fn within_room(&self, start: Lsn, target: Lsn) -> Lsn {
        let room = &self.parts.room;
        let plenty = room.full().is_none() && room.prepared_end() >= room.wanted_end(self.parts.marks.assigned());
        let (target, restates) = if plenty {
            (target, Claim::Essential)
        } else {
            (target.min(self.parts.segments.geometry().segment_end(start)), Claim::Own)
        };
        self.parts.sequencer.lock().expect("the append lock is intact").restates = restates;
        target
    }

    /// Nothing is released for a moment; then perhaps less at one time.
    fn put_off_release(&mut self, time: Duration) {
        self.open_again();
        self.state.releasing = None;
        self.state.release_at = self.parts.clock.monotonic() + time;
    }

    fn open_again(&self) {
        let start = self.parts.marks.start();
        self.parts.sequencer.lock().expect("the append lock is intact").closed_below = start;
    }

    /// Appends again what the next frames from `at` on say last of table entries; returns where to go on, `None` when there is no room.
    fn restate_entries(&mut self, start: Lsn, at: Lsn) -> Result<Option<Lsn>, ReadError> {
        let geometry = self.parts.segments.geometry();
        let (mut at, mut read, began) = (at, 0, at);
        let mut batch = WriteBatch::new();
        let mut held = Vec::new();
        while at < start && read < limits::RESTATE_READ_BYTES {
            let end = geometry.segment_end(at);
            if end.since(at) < to_u64(frame::FRAME_HEADER_BYTES) {
                at = end;
                continue;
            }
            let (header, bytes) = self.parts.reader.frame(at)?;
            // What one frame says fits one frame again; what two say may not.
            if !held.is_empty() && batch.frame_bytes() + u64::from(header.frame_len) > limits::RESTATE_BATCH_BYTES {
                break;
            }
            read += u64::from(header.frame_len);
            for (lsn, _, record) in record::of_frame(&header, &bytes) {
                if record.kind != RecordKind::Put {
                    continue;
                }
                let entry = self.parts.table.get(record.name)?;
                let Some(entry) = entry.filter(|entry| entry.lsn == lsn) else { continue };
                let pushed = batch.push_restated(record.name, &entry.value, entry.target, lsn);
                pushed.expect("what one frame says fits one frame again");
                let fetched = Fetched { latest: Some(lsn), value: Some(entry.value) };
                held.push(Held { key: Arc::from(record.name), fetched: Some(fetched) });
            }
            at = at.plus(u64::from(header.frame_len));
        }
        if held.is_empty() {
            return Ok(Some(at));
        }
        let wall_ms = self.parts.clock.wall_ms();
        let mut sequencer = self.parts.sequencer.lock().expect("the append lock is intact");
        for held in &held {
            sequencer.head.hold(&held.key);
        }
        let appended = sequencer.restate_entries(batch, &held, wall_ms);
        sequencer.release(&held);
        let end = sequencer.next;
        drop(sequencer);
        (self.parts.appended)(end);
        // A full buffer puts it off, and a fenced or closing log for good.
        Ok(match appended {
            Ok(_) => Some(at),
            Err(Refused::Because(AppendError::OutOfSpace { .. })) => None,
            Err(_) => Some(began),
        })
    }

    fn finish_release(&mut self, start: Lsn) -> io::Result<()> {
        self.parts.manifest.start = start;
        self.parts.manifest.history.trim(start);
        let stored = self.parts.manifest.store(&*self.parts.backend, &self.parts.dir, self.parts.sync_names);
        match stored {
            Ok(()) => {}
            // The manifest on disk is as it was, and the release begins anew when there is room.
            Err((path, source)) if is_full(&source) => {
                tracing::warn!(path = %path.display(), "no space to release segments; trying again");
                self.put_off_release(limits::RELEASE_FULL_RETRY);
                return Ok(());
            }
            Err((path, source)) => return Err(io::Error::new(source.kind(), format!("{}: {source}", path.display()))),
        }
        let mut changed = Vec::new();
        if let Err(error) = self.parts.queues.release(start, |id| changed.push(id)) {
            tracing::error!(%error, "some queues still show messages that are released");
        }
        (self.parts.queues_changed)(changed);
        // Whoever sees the new start finds no queue that begins before it.
        self.parts.marks.set_start(start);
        self.parts.segments.retire(start);
        Ok(())
    }

    /// Segments to have ready behind the current one: what is to be used next, the spare ones, and the reserve.
    fn wanted_count(&self) -> u64 {
        1 + self.parts.spare_count + self.parts.room.reserve_segments()
    }

    /// Whether so little stands ready that the next segment is made at once.
    fn is_short(&mut self, current: Lsn) -> io::Result<bool> {
        let room = &self.parts.room;
        let began = *self.state.began.get_or_insert(current);
        let (prepared, wanted) = (room.prepared_end(), room.wanted_end(current));
        if prepared >= wanted {
            room.keep();
        }
        if room.is_kept() {
            return Ok(prepared < wanted);
        }
        // A log that is used from its first moment on is not to go without a reserve for long.
        let in_hurry = current.since(began) >= self.parts.segments.geometry().data_bytes();
        let roomy = self.parts.segments.free_bytes()? / limits::ROOMY > wanted.since(prepared);
        Ok(prepared < if roomy && !in_hurry { room.needed_end(current) } else { wanted })
    }

    /// Keeps segments ready behind the current one: recycled ones first, new ones filled with zeros, paced. When few are left they are made
    /// at once, and used without zeros.
    fn fill(&mut self, now: Duration, busy: bool) -> io::Result<Duration> {
        let current = self.parts.marks.assigned();
        let short = self.is_short(current)?;
        let enough = self.parts.segments.prepared_count(current) >= self.wanted_count();
        if enough {
            return Ok(limits::HOUSEKEEPING_INTERVAL);
        }
        if let Some(recycled) = self.parts.segments.begin_recycled()? {
            self.parts.segments.finish(recycled, current)?;
            return Ok(Duration::ZERO);
        }
        if now < self.state.retry_at {
            return Ok(limits::HOUSEKEEPING_INTERVAL);
        }
        if short && !self.parts.marks.is_closing() {
            match self.state.filling.take() {
                Some(filling) => self.parts.segments.finish_unwritten(filling.half_made, current)?,
                None => self.parts.segments.make_next(self.parts.room.prepared_end())?,
            }
            return Ok(Duration::ZERO);
        }
        // A log at its bound gets its segments back in a moment: zeros would be written for nothing.
        let length = current.since(self.parts.marks.start());
        let segment = self.parts.segments.geometry().data_bytes();
        let recycling_soon = self.parts.retain_bytes.is_some_and(|bytes| length + segment > bytes);
        if recycling_soon {
            return Ok(Duration::from_millis(1));
        }
        if let Some(filling) = &mut self.state.filling {
            if busy && now < self.state.fill_due {
                return Ok(self.state.fill_due - now);
            }
            let total = self.parts.segments.geometry().segment_bytes;
            let len = limits::FILL_STEP_BYTES.min(total - filling.at);
            filling.half_made.file.write_at(&AlignedBuf::zeroed(to_usize(len)), filling.at, true)?;
            filling.at += len;
            self.state.fill_due = now + Duration::from_micros(len * 1_000_000 / limits::FILL_RATE);
            if filling.at == total
                && let Some(filling) = self.state.filling.take()
            {
                self.parts.segments.finish(filling.half_made, current)?;
            }
            return Ok(Duration::ZERO);
        }
        let room = self.parts.segments.free_bytes()? > 3 * segment;
        if !room || self.parts.marks.is_closing() {
            return Ok(Duration::from_millis(5));
        }
        self.state.filling = Some(Filling { half_made: self.parts.segments.begin()?, at: 0 });
        Ok(Duration::ZERO)
    }

    /// A half-made segment is of no use to anybody.
    pub(crate) fn abandon(&mut self) {
        if let Some(filling) = self.state.filling.take()
            && let Err(error) = self.parts.backend.remove(&filling.half_made.path)
        {
            tracing::debug!(%error, "a half-made segment stays until the next open");
        }
    }

    /// Covers the last group with a mark if it is not; for the orderly end. Returns where the log ends.
    pub(crate) fn last_mark(&mut self) -> Lsn {
        let mut sequencer = self.parts.sequencer.lock().expect("the append lock is intact");
        if sequencer.unmarked && self.parts.marks.fenced().is_none() {
            sequencer.put_mark();
        }
        sequencer.next
    }
}

const _: () = assert!(limits::FILL_STEP_BYTES.is_multiple_of(to_u64(crate::io::IO_ALIGN)));
