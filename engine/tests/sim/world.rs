//! One run: the engine under test, the disk and clock below it, and the model beside it.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::commitlog::manifest::{MANIFEST_NAME, Manifest};
use anchorlog_engine::commitlog::segment::Geometry;
use anchorlog_engine::io::sim::{IoClass, SimDisk, Survival, Times};
use anchorlog_engine::options::Fault;
use anchorlog_engine::{
    Clock, Engine, Epoch, Lsn, OpenError, Queue, QueueOffset, Snapshot, Tail, Ticket, Watcher, Watermarks,
};

use super::checkers;
use super::model::{Entry, Model, Outcome, Spec, demand};
use super::plan::{Draws, Plan, pick};

/// Where the log lies on every disk.
pub(crate) const DIR: &str = "/log";

/// Lines of history that a failure shows.
const HISTORY_LINES: usize = 40;

pub(crate) const EIO: i32 = 5;
/// Every kind of I/O that can fail.
pub(crate) const CLASSES: [IoClass; 5] =
    [IoClass::Write, IoClass::Sync, IoClass::Read, IoClass::Name, IoClass::SyncDir];

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The engine is closed in order.
    Close,
    /// The process is killed; the machine lives on.
    Kill,
    /// The power fails.
    Crash(Survival),
}

/// What was done, in words and as a number.
#[derive(Default)]
pub(crate) struct History {
    lines: VecDeque<String>,
    pub(crate) hash: u64,
}

impl History {
    pub(crate) fn note(&mut self, line: String) {
        for byte in line.bytes() {
            self.fold(u64::from(byte));
        }
        if self.lines.len() == HISTORY_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn fold(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(7);
    }

    pub(crate) fn lines(&self) -> String {
        self.lines.iter().map(|line| format!("  {line}\n")).collect()
    }
}

/// What a run met; the sum over all runs shows what was tried.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) batches: u64,
    pub(crate) rejected: u64,
    pub(crate) refused_full: u64,
    pub(crate) refused_space: u64,
    pub(crate) refused_long: u64,
    pub(crate) reads: u64,
    pub(crate) cold_reads: u64,
    pub(crate) closes: u64,
    pub(crate) kills: u64,
    pub(crate) crashes: u64,
    pub(crate) failed_opens: u64,
    pub(crate) fences: u64,
    pub(crate) lost: u64,
    pub(crate) released: u64,
    pub(crate) survivors: u64,
    pub(crate) found: u64,
    pub(crate) damaged: u64,
    pub(crate) spoiled: u64,
    pub(crate) ios: u64,
}

impl Tally {
    fn counts(&self) -> [(&'static str, u64); 19] {
        [
            ("batches taken", self.batches),
            ("rejected by a precondition", self.rejected),
            ("refused by a full buffer", self.refused_full),
            ("refused by a full disk", self.refused_space),
            ("refused until segments are released", self.refused_long),
            ("lost with the power", self.lost),
            ("messages read", self.reads),
            ("reads from the disk", self.cold_reads),
            ("closed", self.closes),
            ("killed", self.kills),
            ("power failures", self.crashes),
            ("openings that failed", self.failed_opens),
            ("fenced", self.fences),
            ("releases", self.released),
            ("survivors read", self.survivors),
            ("messages found by key", self.found),
            ("bits flipped", self.damaged),
            ("stores spoiled", self.spoiled),
            ("I/Os", self.ios),
        ]
    }

    /// Whether everything that a run can meet was met.
    pub(crate) fn is_full(&self) -> bool {
        self.counts().iter().all(|(_, count)| *count > 0)
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        let sums = [
            (&mut self.batches, other.batches),
            (&mut self.rejected, other.rejected),
            (&mut self.refused_full, other.refused_full),
            (&mut self.refused_space, other.refused_space),
            (&mut self.refused_long, other.refused_long),
            (&mut self.reads, other.reads),
            (&mut self.cold_reads, other.cold_reads),
            (&mut self.closes, other.closes),
            (&mut self.kills, other.kills),
            (&mut self.crashes, other.crashes),
            (&mut self.failed_opens, other.failed_opens),
            (&mut self.fences, other.fences),
            (&mut self.lost, other.lost),
            (&mut self.released, other.released),
            (&mut self.survivors, other.survivors),
            (&mut self.found, other.found),
            (&mut self.damaged, other.damaged),
            (&mut self.spoiled, other.spoiled),
            (&mut self.ios, other.ios),
        ];
        for (sum, count) in sums {
            *sum += count;
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = self.counts();
        let parts: Vec<String> = counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
        f.write_str(&parts.join(", "))
    }
}

/// A snapshot, and what it must show.
pub(crate) struct HeldSnapshot {
    pub(crate) snapshot: Snapshot,
    pub(crate) table: BTreeMap<Vec<u8>, Entry>,
}

/// What a run has of one disk: taken out of the run and put back when a copy of the disk is looked at.
pub(crate) struct Seat {
    pub(crate) disk: SimDisk,
    pub(crate) engine: Option<Engine>,
    pub(crate) handles: BTreeMap<(usize, u32), Queue>,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) draws: Draws,
    pub(crate) disk: SimDisk,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) engine: Option<Engine>,
    pub(crate) model: Model,
    pub(crate) history: History,
    pub(crate) tally: Tally,
    /// Number of the next message's content.
    pub(crate) content_next: u64,
    /// Handles of this opening, by queue and incarnation.
    pub(crate) handles: BTreeMap<(usize, u32), Queue>,
    pub(crate) tickets: Vec<Ticket>,
    pub(crate) snapshots: Vec<HeldSnapshot>,
    pub(crate) watcher: Arc<Watcher>,
    /// Watches that have not fired: queue, its handle, and the offset that is waited for.
    pub(crate) watches: BTreeMap<u64, (usize, Queue, u64)>,
    token_next: u64,
    pub(crate) pins: BTreeMap<&'static str, Lsn>,
    /// A pin went, and the machine that bounds the log has not run since.
    pub(crate) is_unpinned: bool,
    /// How far the consumer of a queue is, by queue and incarnation: nothing from there on may go.
    pub(crate) consumed: BTreeMap<(usize, u32), u64>,
    /// First readable offsets that were seen in this opening.
    pub(crate) mins: BTreeMap<(usize, u32), u64>,
    /// The furthest release that was asked for in this opening.
    pub(crate) released: Lsn,
    /// The furthest that anything was asked to be released, in all openings.
    pub(crate) asked: Lsn,
    /// What a process before this one let go, says the log: it goes, whatever this one asks for.
    pub(crate) leaving: Lsn,
    /// Batches that a crash took, which their producers may send again.
    pub(crate) lost: Vec<Spec>,
    /// The watermarks at the last look, in this opening.
    pub(crate) marks: Option<Watermarks>,
    /// Where acknowledgement ended when the log was fenced.
    pub(crate) fenced_at: Option<Lsn>,
    /// What the process before had handed to the disk: it survives until the power fails.
    written: Lsn,
    /// The log's start, over all openings.
    pub(crate) start: Lsn,
    pub(crate) epoch: Epoch,
    /// The latest that the wall clock ever said.
    pub(crate) wall_max: u64,
    /// Failed I/Os of this disk when the engine was opened.
    faults_at_open: u64,
    /// The disk has less room than it would need.
    pub(crate) no_room: bool,
    /// It once had, so that free space may have been asked for.
    pub(crate) had_no_room: bool,
    /// The derived store as it once was.
    pub(crate) older_store: Option<Vec<u8>>,
    /// First and last LSN of what is damaged on purpose.
    pub(crate) damaged: Option<(Lsn, Lsn)>,
}

impl World {
    pub(crate) fn new(seed: u64, fault: Option<Fault>) -> World {
        World::with_plan(seed, Plan::new(seed, fault))
    }

    pub(crate) fn with_plan(seed: u64, plan: Plan) -> World {
        let disk = SimDisk::new(seed);
        disk.set_runs_inline(plan.runs_inline);
        disk.set_punches_holes(plan.punches_holes);
        World {
            draws: Draws::new(seed),
            disk,
            clock: Arc::new(SimClock::default()),
            engine: None,
            model: Model::new(plan.queue_count),
            history: History::default(),
            tally: Tally::default(),
            content_next: 0,
            handles: BTreeMap::new(),
            tickets: Vec::new(),
            snapshots: Vec::new(),
            watcher: Watcher::new().expect("there are descriptors"),
            watches: BTreeMap::new(),
            token_next: 0,
            pins: BTreeMap::new(),
            is_unpinned: false,
            consumed: BTreeMap::new(),
            mins: BTreeMap::new(),
            released: Lsn::ZERO,
            asked: Lsn::ZERO,
            leaving: Lsn::ZERO,
            lost: Vec::new(),
            marks: None,
            fenced_at: None,
            written: Lsn::ZERO,
            start: Lsn::ZERO,
            epoch: Epoch::default(),
            wall_max: 0,
            faults_at_open: 0,
            no_room: false,
            had_no_room: false,
            older_store: None,
            damaged: None,
            plan,
        }
    }

    /// The engine; there is one between two restarts.
    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("actions run while an engine is open")
    }

    /// Whether something was done to the disk that explains a failure in this opening.
    pub(crate) fn is_troubled(&self) -> bool {
        self.disk.is_dead() || self.disk.fault_count() > self.faults_at_open
    }

    /// Whether the log takes and acknowledges appends as far as anybody knows.
    pub(crate) fn is_well(&self) -> bool {
        !self.disk.is_dead() && self.engine().fenced().is_none()
    }

    /// Works on another disk, until it is swapped back.
    pub(crate) fn swap(&mut self, seat: &mut Seat) {
        std::mem::swap(&mut self.disk, &mut seat.disk);
        std::mem::swap(&mut self.engine, &mut seat.engine);
        std::mem::swap(&mut self.handles, &mut seat.handles);
    }

    /// Where LSNs lie; the tail mode does not matter for that.
    pub(crate) fn geometry(&self) -> Geometry {
        Geometry { segment_bytes: self.plan.segment_bytes, tail: Tail::Rewrite }
    }

    pub(crate) fn next_token(&mut self) -> u64 {
        self.token_next += 1;
        self.token_next
    }

    pub(crate) fn queue_name(queue: usize) -> String {
        format!("queue-{queue}")
    }

    /// The handle of a queue's present incarnation, as the head of the log has it.
    pub(crate) fn handle(&mut self, queue: usize) -> Outcome<Queue> {
        let incarnation = self.model.head.queues[queue].incarnation;
        if let Some(handle) = self.handles.get(&(queue, incarnation)) {
            return Ok(handle.clone());
        }
        let name = World::queue_name(queue);
        let handle = self.engine().queue(name.as_bytes()).map_err(|error| format!("{name}: {error}"))?;
        demand!(
            handle.incarnation() == incarnation,
            "{name} is incarnation {}, should be {incarnation}",
            handle.incarnation()
        );
        self.handles.insert((queue, incarnation), handle.clone());
        Ok(handle)
    }

    /// The table and the clock of the model, brought to what the engine says is acknowledged; all that holds at every step is checked.
    pub(crate) fn look(&mut self) -> Outcome {
        self.wall_max = self.wall_max.max(self.clock.wall_ms());
        checkers::look(self)
    }

    /// Runs every machine of the engine once.
    pub(crate) fn step(&mut self) -> Outcome {
        self.engine().step();
        self.is_unpinned = false;
        self.look()
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.wall_max = self.wall_max.max(self.clock.wall_ms());
    }

    // ---- from one process to the next

    /// Ends the process and starts it again, perhaps through more than one try.
    pub(crate) fn restart(&mut self, end: End) -> Outcome {
        self.history.note(format!("restart: {end:?}"));
        self.look()?;
        self.end(end)?;
        let troubled = self.plan.troubles.crashes || self.plan.troubles.io_errors;
        for attempt in 0.. {
            if attempt == 3 || !troubled {
                self.disk.heal();
                self.lift_limits();
            } else if attempt > 0 || self.draws.ends.chance(3) {
                self.trouble_the_opening();
            }
            if self.open()? {
                break;
            }
            self.tally.failed_opens += 1;
            demand!(attempt < 3, "it does not open although nothing is wrong any more");
            let next = if self.disk.is_dead() { self.crash_disk() } else { self.disk.kill() };
            self.replace_disk(next);
        }
        Ok(())
    }

    /// The power fails, or an I/O does, while the log is opened.
    fn trouble_the_opening(&mut self) {
        let draws = &mut self.draws.ends;
        let troubles = self.plan.troubles;
        if troubles.crashes && (!troubles.io_errors || draws.chance(5)) {
            let after = draws.below(40);
            self.disk.stop_after(self.disk.io_count() + after as u64);
            self.history.note(format!("the power fails after {after} more I/Os of the opening"));
        } else {
            let class = pick(draws, &CLASSES);
            let nth = self.disk.count(class) + 1 + draws.below(6) as u64;
            let times = if draws.chance(6) { Times::Once } else { Times::Forever };
            self.disk.fail(class, nth, EIO, times);
            self.history.note(format!("{class:?} {nth} of the opening fails {times:?}"));
        }
    }

    fn crash_disk(&mut self) -> SimDisk {
        self.written = Lsn::ZERO;
        let survival = pick(&mut self.draws.ends, &[Survival::Seeded, Survival::Seeded, Survival::Nothing]);
        self.disk.crash_with(self.draws.ends.draw(), survival)
    }

    fn replace_disk(&mut self, disk: SimDisk) {
        self.history.fold(self.disk.trace_hash());
        self.tally.ios += self.disk.io_count();
        self.disk = disk;
    }

    pub(crate) fn finish(&mut self) {
        let same = self.disk.clone();
        self.replace_disk(same);
    }

    fn end(&mut self, end: End) -> Outcome {
        let engine = self.engine.take().expect("it was open");
        self.tickets.clear();
        self.snapshots.clear();
        self.watches.clear();
        self.watcher = Watcher::new().map_err(|error| format!("no descriptor: {error}"))?;
        self.handles.clear();
        let marks = engine.watermarks();
        self.tally.cold_reads += engine.stats().cold_reads;
        let mut engine = Some(engine);
        self.written = Lsn::ZERO;
        let next = match end {
            End::Close => {
                self.tally.closes += 1;
                match engine.take().expect("it is open").close() {
                    Ok(()) => self.model.promised = self.model.promised.max(marks.assigned),
                    Err(error) => demand!(self.is_troubled(), "closing fails for no reason: {error}"),
                }
                if self.disk.is_dead() || self.draws.ends.chance(3) { self.crash_disk() } else { self.disk.kill() }
            }
            // What the disk had completed for the process is the kernel's, and survives its death.
            End::Kill => {
                self.tally.kills += 1;
                self.written = marks.written;
                self.disk.kill()
            }
            End::Crash(survival) => {
                self.tally.crashes += 1;
                self.written = Lsn::ZERO;
                self.disk.crash_with(self.draws.ends.draw(), survival)
            }
        };
        self.replace_disk(next);
        drop(engine);
        // Monotonic time begins anew, and the wall clock may have been set.
        let wall = self.clock.wall_ms();
        self.clock = Arc::new(SimClock::default());
        self.clock.jump(wall.cast_signed() - self.clock.wall_ms().cast_signed());
        if self.plan.troubles.clock_jumps && self.draws.time.chance(3) {
            let days = pick(&mut self.draws.time, &[-1, 1]);
            self.clock.jump(days * 86_400_000);
            self.history.note(format!("the clock was set by {days} days meanwhile"));
        }
        Ok(())
    }

    pub(crate) fn lift_limits(&mut self) {
        lift_limits(&self.disk);
        self.no_room = false;
    }

    /// Opens the log; false when that failed for a reason that was planned.
    pub(crate) fn open(&mut self) -> Outcome<bool> {
        let faults = self.disk.fault_count();
        let clock: Arc<SimClock> = Arc::clone(&self.clock);
        match Engine::open_with(self.disk.backend(), clock, Path::new(DIR), self.plan.options.clone()) {
            Ok(engine) => {
                self.faults_at_open = faults;
                self.engine = Some(engine);
                self.opened()?;
                Ok(true)
            }
            // A failed or missing I/O is told as one: it is never taken for damage.
            Err(error) => {
                let OpenError::Io { source, .. } = &error else { return Err(format!("it does not open: {error}")) };
                // A file that may not be long enough is not even tried.
                let is_short = self.no_room && source.kind() == std::io::ErrorKind::FileTooLarge;
                let explained = self.disk.is_dead() || self.disk.fault_count() > faults || is_short;
                demand!(explained, "it does not open: {error}");
                self.history.note(format!("not opened: {error}"));
                Ok(false)
            }
        }
    }

    fn opened(&mut self) -> Outcome {
        let marks = self.engine().watermarks();
        let epoch = self.engine().info().epoch;
        demand!(epoch > self.epoch, "epoch {epoch} after {}", self.epoch);
        let end = self.recovered_end(marks);
        self.epoch = epoch;
        self.model.promised = self.model.promised.max(std::mem::take(&mut self.written));
        let shown = if self.plan.is_sync() { self.model.shown } else { Lsn::ZERO };
        demand!(end >= shown, "shown to readers up to {shown}, recovered to {end}");
        demand!(marks.start >= self.start, "the log began at {}, and now at {}", self.start, marks.start);
        let mut lost = self.model.cut(end)?;
        self.history.note(format!("opened: epoch {epoch}, to {end}, {} batches lost", lost.len()));
        self.tally.lost += lost.len() as u64;
        lost.append(&mut self.lost);
        self.lost = lost;
        // What an opened engine shows may not go away any more.
        self.model.promised = end;
        self.model.shown = self.model.shown.min(end);
        self.marks = None;
        self.fenced_at = None;
        self.released = Lsn::ZERO;
        self.pins.clear();
        self.is_unpinned = false;
        self.mins.clear();
        self.leaving = self.engine().pin("nobody", None);
        let asked = self.asked.max(checkers::asked_by_rules(self, marks.assigned));
        demand!(self.leaving <= asked, "it lets go up to {}, and {asked} was asked", self.leaving);
        self.look()?;
        // What a crash took of a queue its consumer has not had.
        self.consumed.retain(|(queue, incarnation), _| self.model.head.queues[*queue].incarnation == *incarnation);
        for queue in 0..self.plan.queue_count {
            self.pin_for_consumer(queue)?;
        }
        self.engine().start_retention();
        checkers::everything(self)
    }

    /// Pins what the consumer of a queue's present incarnation has not had.
    pub(crate) fn pin_for_consumer(&mut self, queue: usize) -> Outcome {
        if self.plan.consumes {
            let handle = self.handle(queue)?;
            let place = (queue, handle.incarnation());
            let end = self.model.head.queues[queue].messages.len() as u64;
            let consumed = (*self.consumed.entry(place).or_default()).min(end);
            self.consumed.insert(place, consumed);
            self.engine().pin_queue("consumer", &handle, Some(QueueOffset(consumed)));
        }
        Ok(())
    }

    /// Where the log ended that this opening found. An opening before it that failed halfway may have begun an epoch of its own: then it is
    /// where the first of them did.
    fn recovered_end(&self, marks: Watermarks) -> Lsn {
        let manifest = self.disk.read(&Path::new(DIR).join(MANIFEST_NAME));
        let manifest = manifest.and_then(|bytes| Manifest::decode(&bytes).ok());
        let starts = manifest.iter().flat_map(|manifest| manifest.history.starts());
        starts.filter(|start| start.epoch > self.epoch).map(|start| start.first_lsn).min().unwrap_or(marks.assigned)
    }
}

/// Gives a disk all the room it wants.
pub(crate) fn lift_limits(disk: &SimDisk) {
    disk.set_capacity(None);
    disk.set_quota(None);
    disk.set_file_bytes_max(None);
}
