//! The log writer: the one loop that moves bytes from the buffer to the device, and the watermarks behind them.
//!
//! Invariants:
//! 1. `durable` moves only over ranges whose durable write, or whose write and a later flush, have completed, and never over a gap.
//! 2. No block is in flight twice.
//! 3. The first failed write or flush fences the log; nothing is tried again.
//! 4. It is a state machine: no thread, no sleep, no clock of its own. Whoever drives it calls [`LogWriter::step`], and lends it one.
//!
//! Under synchronous flush a group is one durable write. Under asynchronous flush blocks are given to the kernel as they fill, and a flush
//! follows by time, by bytes, or because somebody waits for it.
//!
//! Source: one durable write in flight with everything that has arrived in it was measured to be the fastest on devices without FUA.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::Clock;
use crate::commit::group::{self, Moment};
use crate::commit::histogram::{FlushStats, Histogram, MICROS, RECORDS};
use crate::commit::ring::LogBuffer;
use crate::commit::sequencer::Sequencer;
use crate::commit::watermark::{Marks, Watermark};
use crate::commitlog::segments::Segments;
use crate::error::Fenced;
use crate::fault::{Broken, Fault};
use crate::io::{IO_ALIGN, IoAction, IoCompletion, IoFile, IoOp, IoQueue, Wait};
use crate::limits;
use crate::options::{Flush, Tail};
use crate::replica::Role;
use crate::units::{Lsn, align_down, to_u64};

/// What the writer shares with those who look at it or hurry it.
#[derive(Debug)]
pub(crate) struct WriterShared {
    /// Everything below was asked to become durable soon.
    pub(crate) flush_to: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) commit_bytes: AtomicU64,
    pub(crate) flushes: AtomicU64,
    flush_micros: Histogram,
    flush_records: Histogram,
}

impl WriterShared {
    fn new() -> WriterShared {
        WriterShared {
            flush_to: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            commit_bytes: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            flush_micros: Histogram::new(MICROS),
            flush_records: Histogram::new(RECORDS),
        }
    }

    pub(crate) fn flush_stats(&self) -> FlushStats {
        FlushStats { micros: self.flush_micros.read(), records: self.flush_records.read() }
    }
}

/// What is counted of something that becomes durable.
#[derive(Clone, Copy)]
struct Begun {
    at: Duration,
    /// Records that it brings.
    records: u64,
}

/// What to do after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There may be more to do now.
    Again,
    /// Something is in flight: wait for a completion or, where there is room for more, for the log to reach `wake_at`.
    InFlight {
        /// Where the next group could be submitted beside those in flight.
        wake_at: Option<Lsn>,
    },
    /// Nothing to do before the log reaches `wake_at`, or `after` is over.
    Idle { wake_at: Lsn, after: Option<Duration> },
    /// The log is fenced.
    Fenced,
}

struct Group {
    token: u64,
    end: Lsn,
    begun: Begun,
    /// Operations of it that have not completed.
    left: usize,
}

struct FlushRound {
    /// What becomes durable with it.
    end: Lsn,
    begun: Begun,
    /// Files that are not submitted yet.
    waiting: Vec<Arc<dyn IoFile>>,
    /// Flush operations in flight.
    in_flight: usize,
    /// One of them failed and was tried again: never, unless that promise is broken on purpose.
    retried: bool,
}

/// The state machine.
pub(crate) struct LogWriter {
    pub(crate) flush: Flush,
    pub(crate) depth: usize,
    commit_bytes_max: u64,
    tail: Tail,
    buffer: Arc<LogBuffer>,
    marks: Arc<Marks>,
    segments: Arc<Segments>,
    sequencer: Arc<Mutex<Sequencer>>,
    pub(crate) shared: Arc<WriterShared>,
    submitted: Lsn,
    /// When the oldest byte that is not submitted was first seen.
    waiting_since: Option<Duration>,
    groups: VecDeque<Group>,
    next_token: u64,
    /// Files with completed writes that no flush covers yet (asynchronous flush).
    dirty: Vec<Arc<dyn IoFile>>,
    round: Option<FlushRound>,
    last_flush: Duration,
    completions: Vec<IoCompletion>,
    broken: Broken,
    /// What fills a block comes with the leader's bytes.
    is_replica: bool,
    records: Arc<AtomicU64>,
    /// Records that had a place when the last group, or flush, began.
    records_seen: u64,
}

/// Token of a flush that belongs to a round, not to a group.
const FLUSH_TOKEN: u64 = u64::MAX;
/// Flushes of one round in flight at once.
const FLUSH_DEPTH: usize = 2;

impl LogWriter {
    #[expect(clippy::too_many_arguments, reason = "wiring, called once")]
    pub(crate) fn new(
        options: &crate::options::EngineOptions,
        tail: Tail,
        buffer: Arc<LogBuffer>,
        marks: Arc<Marks>,
        segments: Arc<Segments>,
        sequencer: Arc<Mutex<Sequencer>>,
        end: Lsn,
        now: Duration,
    ) -> LogWriter {
        let records = Arc::clone(&sequencer.lock().expect("the append lock is intact").records);
        LogWriter {
            flush: options.flush,
            depth: if options.flush == Flush::Sync { options.commit_depth } else { limits::ASYNC_DEPTH },
            commit_bytes_max: options.commit_bytes_max,
            tail,
            buffer,
            marks,
            segments,
            sequencer,
            shared: Arc::new(WriterShared::new()),
            submitted: end,
            waiting_since: None,
            groups: VecDeque::new(),
            next_token: 0,
            dirty: Vec::new(),
            round: None,
            last_flush: now,
            completions: Vec::new(),
            broken: options.broken(),
            is_replica: options.role == Role::Replica,
            records,
            records_seen: 0,
        }
    }

    /// Operations that may be in flight at once.
    pub(crate) fn queue_depth(&self) -> usize {
        // Beside the writes: the flush of the file that is written, and of those that were finished since the last one.
        if self.flush == Flush::Sync { self.depth + self.faulty_flush_room() } else { self.depth + FLUSH_DEPTH }
    }

    /// Takes completions, submits what is due, and says what to do next.
    pub(crate) fn step(&mut self, io: &mut dyn IoQueue, clock: &dyn Clock, wait: Wait) -> Step {
        let now = clock.monotonic();
        self.take_completions(io, clock, wait);
        if self.marks.fenced().is_some() {
            return Step::Fenced;
        }
        let mut progress = false;
        // A step ends after as many groups as may be in flight: a caller who runs the commit for himself does not go on for all others.
        for _ in 0..self.depth {
            let Some(cut) = self.next_cut(now) else { break };
            if let Err(error) = self.submit(io, clock, cut) {
                self.fence("finding a segment", error);
                return Step::Fenced;
            }
            progress = true;
            self.take_completions(io, clock, Wait::No);
            if self.marks.fenced().is_some() {
                return Step::Fenced;
            }
        }
        if self.flush_due(now) {
            self.begin_flush(io, clock);
            self.take_completions(io, clock, Wait::No);
            progress = true;
        }
        self.next_step(io.in_flight(), now, progress)
    }

    fn next_step(&self, in_flight: usize, now: Duration, progress: bool) -> Step {
        let assigned = self.buffer.published();
        if in_flight > 0 {
            let tail_free = self.groups.is_empty() || self.submitted.0.is_multiple_of(to_u64(IO_ALIGN));
            let room = self.depth > 1 && self.groups.len() < self.depth && tail_free;
            let enough = if self.flush == Flush::Sync { to_u64(IO_ALIGN) } else { limits::HAND_OVER_BYTES };
            return Step::InFlight { wake_at: room.then(|| self.submitted.plus(enough)) };
        }
        if progress {
            return Step::Again;
        }
        match self.flush {
            // The leader has begun a block, and will fill it.
            _ if self.waits_for_block(assigned) => Step::Idle { wake_at: assigned.plus(1), after: None },
            Flush::Sync if assigned > self.submitted => Step::Again,
            Flush::Sync => Step::Idle { wake_at: assigned.plus(1), after: None },
            Flush::Async { interval, .. } => {
                let hand_over = self.waiting_since.map(|since| (since + limits::HAND_OVER_DELAY).saturating_sub(now));
                let unflushed = self.marks.load(Watermark::Written) > self.marks.load(Watermark::Durable);
                let flush = unflushed.then(|| (self.last_flush + interval).saturating_sub(now));
                let wake_at = if assigned > self.submitted {
                    self.submitted.plus(limits::HAND_OVER_BYTES)
                } else {
                    assigned.plus(1)
                };
                Step::Idle { wake_at, after: [hand_over, flush].into_iter().flatten().min() }
            }
        }
    }

    /// Everything that was assigned is durable and nothing is in flight.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.groups.is_empty() && self.round.is_none() && self.marks.load(Watermark::Durable) == self.buffer.published()
    }

    fn urgent_to(&self) -> Lsn {
        Lsn(self.shared.flush_to.load(Ordering::SeqCst))
    }

    fn next_cut(&mut self, now: Duration) -> Option<Lsn> {
        let assigned = self.buffer.published();
        if assigned == self.submitted {
            self.waiting_since = None;
            return None;
        }
        let since = *self.waiting_since.get_or_insert(now);
        let segment_end = self.segments.geometry().segment_end(self.submitted);
        let moment = Moment {
            submitted: self.submitted,
            end: assigned.min(segment_end),
            more: assigned > segment_end,
            in_flight: self.groups.len(),
            waited: now.saturating_sub(since),
            urgent: self.urgent_to() > self.submitted,
        };
        let cut = group::cut(self.flush, self.depth, self.commit_bytes_max, moment)?;
        if self.tail == Tail::Pad && !cut.0.is_multiple_of(to_u64(IO_ALIGN)) {
            if self.is_replica {
                return self.cut_of_replica(cut);
            }
            let padded = self.sequencer.lock().expect("the append lock is intact").pad_to_block();
            return Some(padded.min(segment_end));
        }
        Some(cut)
    }

    /// In a padded log no block is written twice: a replica writes whole ones, unless somebody cannot wait for the leader to fill the last.
    fn cut_of_replica(&self, cut: Lsn) -> Option<Lsn> {
        let whole = Lsn(align_down(cut.0, to_u64(IO_ALIGN)));
        if self.urgent_to() > whole { Some(cut) } else { (whole > self.submitted).then_some(whole) }
    }

    fn waits_for_block(&self, assigned: Lsn) -> bool {
        self.is_replica
            && self.tail == Tail::Pad
            && assigned > self.submitted
            && self.cut_of_replica(assigned).is_none()
            && self.marks.load(Watermark::Durable) == self.marks.load(Watermark::Written)
    }

    fn submit(&mut self, io: &mut dyn IoQueue, clock: &dyn Clock, cut: Lsn) -> io::Result<()> {
        let from = self.submitted;
        // It stood ready before anything was given a place in it.
        let file = self.segments.find(from).ok_or(io::ErrorKind::NotFound)?;
        let offset = align_down(self.segments.geometry().file_offset(from), to_u64(IO_ALIGN));
        let (len, slices) = self.buffer.blocks(from, cut);
        let token = self.next_token;
        self.next_token += 1;
        self.submitted = cut;
        self.waiting_since = None;
        let begun =
            if self.flush == Flush::Sync { self.begin(clock) } else { Begun { at: Duration::ZERO, records: 0 } };
        self.groups.push_back(Group { token, end: cut, begun, left: 1 });
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.shared.commit_bytes.fetch_add(len, Ordering::Relaxed);
        if self.flush == Flush::Sync {
            self.marks.begin_group(cut);
            self.shared.flushes.fetch_add(1, Ordering::Relaxed);
            self.submit_durable(io, IoOp::write_durable(token, file, offset, slices), cut);
        } else {
            io.submit(IoOp::write(token, file, offset, slices));
        }
        Ok(())
    }

    /// What becomes durable now was handed over at this time. Of records that got a place since the group was cut, some may be counted with
    /// the group before theirs.
    fn begin(&mut self, clock: &dyn Clock) -> Begun {
        let assigned = self.records.load(Ordering::Relaxed);
        let records = assigned - std::mem::replace(&mut self.records_seen, assigned);
        Begun { at: clock.monotonic(), records }
    }

    fn became_durable(&self, begun: Begun, clock: &dyn Clock) {
        let took = clock.monotonic().saturating_sub(begun.at);
        self.shared.flush_micros.note(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        self.shared.flush_records.note(begun.records);
    }

    fn mark_dirty(&mut self, file: Arc<dyn IoFile>) {
        if !self.dirty.iter().any(|known| Arc::ptr_eq(known, &file)) {
            self.dirty.push(file);
        }
    }

    fn flush_due(&self, now: Duration) -> bool {
        let Flush::Async { interval, bytes } = self.flush else { return false };
        if self.round.is_some() {
            return false;
        }
        let (written, durable) = (self.marks.load(Watermark::Written), self.marks.load(Watermark::Durable));
        let unflushed = written.since(durable);
        let urgent = self.urgent_to() > durable && written >= self.urgent_to().min(self.submitted);
        unflushed > 0
            && (unflushed >= bytes || urgent || now.saturating_sub(self.last_flush) >= interval || self.dirty.len() > 4)
    }

    fn begin_flush(&mut self, io: &mut dyn IoQueue, clock: &dyn Clock) {
        // A flush covers what has completed before it; what is in flight marks its file dirty again when it completes.
        let end = self.marks.load(Watermark::Written);
        let begun = self.begin(clock);
        self.last_flush = begun.at;
        let waiting = std::mem::take(&mut self.dirty);
        self.round = Some(FlushRound { end, begun, waiting, in_flight: 0, retried: false });
        self.go_on_flushing(io, clock);
    }

    fn go_on_flushing(&mut self, io: &mut dyn IoQueue, clock: &dyn Clock) {
        let Some(round) = &mut self.round else { return };
        while round.in_flight < FLUSH_DEPTH
            && let Some(file) = round.waiting.pop()
        {
            if self.broken.is(Fault::SkipFlush) {
                continue;
            }
            self.shared.flushes.fetch_add(1, Ordering::Relaxed);
            round.in_flight += 1;
            io.submit(IoOp::sync_data(FLUSH_TOKEN, file));
        }
        if round.in_flight == 0 {
            let (end, begun) = (round.end, round.begun);
            self.round = None;
            self.became_durable(begun, clock);
            self.marks.set_durable(end, false);
        }
    }

    fn take_completions(&mut self, io: &mut dyn IoQueue, clock: &dyn Clock, wait: Wait) {
        let mut completions = std::mem::take(&mut self.completions);
        io.reap(wait, &mut completions);
        for completion in completions.drain(..) {
            self.complete(io, clock, completion);
        }
        self.completions = completions;
    }

    fn complete(&mut self, io: &mut dyn IoQueue, clock: &dyn Clock, completion: IoCompletion) {
        let IoOp { token, file, .. } = &completion.op;
        let (token, file) = (*token, Arc::clone(file));
        if let Err(error) = completion.result {
            if self.broken.is(Fault::RetryFailedFlush)
                && let Some(round) = self.round.as_mut().filter(|round| token == FLUSH_TOKEN && !round.retried)
            {
                round.retried = true;
                io.submit(completion.op);
                return;
            }
            if !self.broken.is(Fault::NoFence) {
                self.fence(if token == FLUSH_TOKEN { "flush" } else { "write" }, error);
                return;
            }
        }
        if self.marks.fenced().is_some() {
            return;
        }
        if token == FLUSH_TOKEN {
            if let Some(round) = &mut self.round {
                round.in_flight -= 1;
            }
            self.go_on_flushing(io, clock);
        } else {
            if self.flush != Flush::Sync {
                self.mark_dirty(file);
            }
            self.wrote(token, clock);
        }
    }

    fn wrote(&mut self, token: u64, clock: &dyn Clock) {
        if let Some(group) = self.groups.iter_mut().find(|group| group.token == token) {
            group.left -= 1;
            if group.left == 0 && self.flush == Flush::Sync {
                let begun = group.begun;
                self.became_durable(begun, clock);
            }
        }
        let mut end = None;
        while self.groups.front().is_some_and(|group| group.left == 0) {
            end = self.groups.pop_front().map(|group| group.end);
        }
        let Some(end) = end else { return };
        self.marks.set_written(end);
        if self.flush == Flush::Sync {
            self.marks.set_durable(end, self.depth == 1);
        }
    }

    fn fence(&mut self, what: &str, error: io::Error) {
        self.marks.set_fenced(Fenced {
            lsn: self.marks.load(Watermark::Durable),
            what: what.to_owned(),
            source: Arc::new(error),
        });
    }
}

/// The promises of this file, and how they are broken on purpose.
impl LogWriter {
    fn faulty_flush_room(&self) -> usize {
        usize::from(self.broken.is(Fault::FlushBesideWrites)) * self.depth
    }

    fn submit_durable(&mut self, io: &mut dyn IoQueue, mut write: IoOp, cut: Lsn) {
        let beside = self.broken.is(Fault::FlushBesideWrites);
        if beside {
            self.groups.back_mut().expect("just pushed").left = 2;
            io.submit(IoOp::sync_data(write.token, Arc::clone(&write.file)));
        }
        if let IoAction::Write { durable, .. } = &mut write.action {
            *durable = !beside && !self.broken.is(Fault::SkipFlush);
        }
        io.submit(write);
        if self.broken.is(Fault::AckBeforeFlush) {
            self.marks.set_durable(cut, false);
        }
    }
}
