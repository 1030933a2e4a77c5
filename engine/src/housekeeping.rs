//! Work beside the append path: segments ahead of need, segments that may go, the mark behind the last group,
//! looking for rot.
//!
//! One state machine, stepped by one thread; every step is short. What is deliberately not here: deciding what may go (`retention`).

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::checkpoint::CheckpointShared;
use crate::clock::Clock;
use crate::commit::room::{Claim, Room};
use crate::commit::sequencer::Sequencer;
use crate::commit::watermark::{Marks, Watermark};
use crate::commitlog::segments::{HalfMade, Segments};
use crate::error::Fenced;
use crate::io::{AlignedBuf, IoBackend, is_full};
use crate::limits;
use crate::replica::SideKeeper;
use crate::retention::Releaser;
use crate::scrub::Scrubber;
use crate::units::{Lsn, to_u64, to_usize};

/// A segment that is being filled with zeros.
struct Filling {
    half_made: HalfMade,
    at: u64,
}

/// The state machine.
pub(crate) struct Housekeeper {
    parts: Parts,
    state: State,
}

#[derive(Default)]
struct State {
    filling: Option<Filling>,
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
    /// No segment could be made ahead; tried again when this time is reached.
    retry_at: Duration,
}

/// What it works with.
pub(crate) struct Parts {
    pub(crate) backend: Arc<dyn IoBackend>,
    pub(crate) dir: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) room: Arc<Room>,
    pub(crate) sequencer: Arc<Mutex<Sequencer>>,
    pub(crate) retain_bytes: Option<u64>,
    pub(crate) spare_count: u64,
    pub(crate) scrubber: Scrubber,
    pub(crate) releaser: Releaser,
    /// A replica's.
    pub(crate) side: Option<SideKeeper>,
    /// Told where the log ends after something was appended here.
    pub(crate) appended: Box<dyn Fn(Lsn) + Send>,
    pub(crate) checkpoint: Arc<CheckpointShared>,
    /// A checkpoint is due after so many bytes of log.
    pub(crate) checkpoint_bytes: u64,
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
        let side_in = match self.parts.side.as_mut().map(|side| side.step(now)) {
            None => limits::HOUSEKEEPING_INTERVAL,
            Some(Ok(due)) => due,
            Some(Err(error)) => self.fence("writing the side block", error),
        };
        let release_in = self.parts.releaser.step().unwrap_or_else(|error| self.fence("releasing segments", error));
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
        let due = mark_in.min(side_in).min(release_in).min(fill_in);
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
        let enough =
            self.parts.segments.prepared_count(current) >= self.parts.room.segments_wanted(self.parts.spare_count);
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

    /// Says how far a replica is durable, at its orderly end.
    pub(crate) fn last_side_block(&mut self) {
        if let Some(side) = &mut self.parts.side
            && self.parts.marks.fenced().is_none()
            && let Err(error) = side.write()
        {
            tracing::warn!(%error, "the side block is as it was; opening looks at what came since");
        }
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
