//! The machine that releases segments, keeps what survives of them, and looks after the survivors.
//!
//! Every step is short. What it appends goes through the append lock like everything else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::batch::{Queue, WriteBatch};
use crate::checkpoint::CheckpointShared;
use crate::checkpoint::rows::Referrer;
use crate::clock::Clock;
use crate::commit::room::{Claim, Refused, Room};
use crate::commit::sequencer::Sequencer;
use crate::commit::watermark::{Marks, Watermark};
use crate::commitlog::frame;
use crate::commitlog::manifest::Manifest;
use crate::commitlog::reader::LogReader;
use crate::commitlog::segment::Geometry;
use crate::commitlog::segments::Segments;
use crate::consume_queue::Queues;
use crate::error::{AppendError, ReadError};
use crate::io::{IO_ALIGN, IoBackend, is_full};
use crate::limits;
use crate::retention::restating::Reached;
use crate::retention::rules::overshoot_bytes;
use crate::retention::survivors::{self, List, Survivors};
use crate::retention::{Retention, RetentionInfo};
use crate::table::Visible;
use crate::units::{Lsn, QueueOffset, align_down, align_up, to_u64, to_usize};

/// A release under way: of everything below `start`.
enum Releasing {
    /// What survives of the segments is found, the newest first; those from `end` on are done. `again`: nothing new can refer to them.
    Finding { start: Lsn, end: Lsn, needed: Needed, again: bool },
    /// What the segments say last of table entries is said again; they are read up to `at`.
    Entries { start: Lsn, at: Lsn },
    /// What they say from `from` on cannot be read: the table itself is gone through for it, up to `key`.
    Table { start: Lsn, from: Lsn, key: Vec<u8> },
    /// What they say last of queues is said again.
    Counters { start: Lsn },
    /// All is said; it waits for everything before `end` to be known to the table. What is said last, that the log begins at `start`, is
    /// durable only when all of this is.
    Settling { start: Lsn, end: Lsn },
    /// The lists of survivors go into the log, and with the last of them that it begins at `start`.
    Recording { start: Lsn, needed: Needed, batches: VecDeque<WriteBatch> },
    /// All of that is in the log; it waits for it to be durable.
    Recorded { start: Lsn, end: Lsn },
}

/// The first offsets that somebody needs, by queue number.
type Needed = BTreeMap<u32, QueueOffset>;

/// A segment of survivors that is looked at again.
enum Reviewing {
    /// Fewer survive than `was` says; whoever referred to the others before that was decided is known at `end`.
    Settling { base: Lsn, was: List, alive: List, end: Lsn },
    /// That is in the log; it waits to be durable.
    Recorded { base: Lsn, end: Lsn },
}

/// Holes to punch into one segment.
struct Punching {
    base: Lsn,
    /// Ranges of the file, last first.
    holes: Vec<Range<u64>>,
}

/// What it works with.
pub(crate) struct ReleaserParts {
    pub(crate) backend: Arc<dyn IoBackend>,
    pub(crate) dir: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) room: Arc<Room>,
    pub(crate) sequencer: Arc<Mutex<Sequencer>>,
    pub(crate) queues: Arc<Queues>,
    pub(crate) table: Arc<Visible>,
    pub(crate) reader: Arc<LogReader>,
    pub(crate) survivors: Arc<Survivors>,
    pub(crate) retention: Arc<Mutex<Retention>>,
    pub(crate) manifest: Arc<Mutex<Manifest>>,
    pub(crate) retain_bytes: Option<u64>,
    pub(crate) retain_age: Option<Duration>,
    pub(crate) free_bytes_min: Option<u64>,
    pub(crate) spare_count: u64,
    pub(crate) sync_names: bool,
    /// Another machine decides: what its records say is done here.
    pub(crate) follows: bool,
    pub(crate) checkpoint: Arc<CheckpointShared>,
    /// Tells that a checkpoint is wanted.
    pub(crate) wake_checkpointer: Box<dyn Fn() + Send>,
    /// Tells which queues lost their first entries.
    pub(crate) queues_changed: Box<dyn Fn(Vec<u32>) + Send>,
    /// Brings queues and table up to what is acknowledged.
    pub(crate) catch_up: Box<dyn Fn() + Send>,
    /// Asks for everything up to there to become durable soon.
    pub(crate) hurry: Box<dyn Fn(Lsn) + Send>,
}

/// The state machine.
pub(crate) struct Releaser {
    pub(super) parts: ReleaserParts,
    releasing: Option<Releasing>,
    reviewing: Option<Reviewing>,
    punching: Option<Punching>,
    /// Segments whose holes are not known to be punched.
    pub(super) unpunched: BTreeSet<Lsn>,
    /// The segment that was reviewed last, and when the next one is.
    reviewed: Lsn,
    pub(super) review_at: Duration,
    /// When age and free space are looked at again.
    aged_at: Duration,
    /// Segments could not be released; tried again when this time is reached.
    pub(super) retry_at: Duration,
    /// All that the log says of its start is done.
    pub(super) is_caught_up: bool,
}

pub(super) const LOCKED: &str = "the append lock is intact";
const SOON: Duration = Duration::from_millis(1);

impl Releaser {
    pub(crate) fn new(parts: ReleaserParts) -> Releaser {
        // What a run before this one left half punched is gone through again: a hole may be punched twice.
        let unpunched = parts.survivors.bases().into_iter().collect();
        let releaser = Releaser {
            parts,
            releasing: None,
            reviewing: None,
            punching: None,
            unpunched,
            reviewed: Lsn::ZERO,
            review_at: Duration::ZERO,
            aged_at: Duration::ZERO,
            retry_at: Duration::ZERO,
            is_caught_up: false,
        };
        releaser.bound(true);
        releaser
    }

    /// Does one short piece of work; says when the next is due.
    ///
    /// # Errors
    /// The kernel's, after which nothing more may be written.
    pub(crate) fn step(&mut self) -> io::Result<Duration> {
        let due = self.advance();
        self.bound(due.is_ok());
        match due {
            // Whoever waits for a release waits for this machine, and for what only it looks at.
            Ok(due) if self.parts.room.is_near_bound(self.parts.marks.assigned()) => Ok(due.min(SOON)),
            Ok(due) => Ok(due),
            Err(Failure::Io(error)) => Err(error),
            Err(Failure::Later(why)) => {
                let from = self.parts.marks.start();
                tracing::warn!(why, %from, "segments cannot be released now");
                self.parts.retention.lock().expect("the retention rules are intact").failing = Some(why);
                self.abandon();
                self.retry_at = self.parts.clock.monotonic() + limits::RELEASE_RETRY;
                Ok(limits::HOUSEKEEPING_INTERVAL)
            }
            // `Room` has said so.
            Err(Failure::NoRoom) => {
                self.abandon();
                self.retry_at = self.parts.clock.monotonic() + limits::FULL_DISK_RETRY;
                Ok(limits::HOUSEKEEPING_INTERVAL)
            }
        }
    }

    /// Says how far the log may go before more of it is released. Nobody waits for what cannot go now.
    fn bound(&self, goes_on: bool) {
        let (marks, geometry) = (&self.parts.marks, self.parts.segments.geometry());
        let (start, assigned) = (marks.start(), marks.assigned());
        let rests = self.parts.clock.monotonic() < self.retry_at || self.parts.follows;
        let retention = self.parts.retention.lock().expect("the retention rules are intact");
        let bound = retention.bound(geometry, start, self.parts.retain_bytes, self.parts.spare_count);
        // What nobody has acknowledged is not to go, however long the log is.
        let waits_for_acks = geometry.base(marks.acked()) <= start && assigned.plus(geometry.data_bytes()) > bound;
        self.parts.room.set_bound(if goes_on && !rests && !waits_for_acks { bound } else { Lsn::MAX });
    }

    fn advance(&mut self) -> Result<Duration, Failure> {
        let now = self.parts.clock.monotonic();
        if now < self.retry_at {
            return Ok(limits::HOUSEKEEPING_INTERVAL);
        }
        if self.punch()? {
            return Ok(Duration::ZERO);
        }
        let follows = (self.parts.follows || !self.is_caught_up) && !self.parts.marks.is_closing();
        if let Some(due) = if follows { self.follow(now)? } else { None } {
            return Ok(due);
        }
        if let Some(releasing) = self.releasing.take() {
            return self.go_on(releasing);
        }
        if let Some(reviewing) = self.reviewing.take() {
            return self.go_on_reviewing(reviewing);
        }
        if self.parts.marks.is_closing() {
            return Ok(limits::HOUSEKEEPING_INTERVAL);
        }
        self.look_at_age_and_space(now)?;
        let (start, current) = (self.target(), self.parts.marks.start());
        if start > current && self.parts.segments.find(start).is_some() {
            return self.begin(start);
        }
        // Whoever has pins to set knows better what is needed.
        let held = self.parts.retention.lock().expect("the retention rules are intact").held;
        if now >= self.review_at && !held {
            self.review_at = now + limits::REVIEW_INTERVAL;
            if self.review()? {
                return Ok(SOON);
            }
        }
        self.drop_surplus()
    }

    /// Removes a file that waits to be recycled, where more do than are needed; says when to look again.
    pub(super) fn drop_surplus(&self) -> Result<Duration, Failure> {
        // What is missing is made of them first.
        let (room, spare_count) = (&self.parts.room, self.parts.spare_count);
        let ready = self.parts.segments.prepared_count(self.parts.marks.assigned());
        let keep = to_usize(1 + spare_count + room.segments_wanted(spare_count).saturating_sub(ready));
        let more = self.parts.segments.drop_surplus(keep)?;
        Ok(if more { Duration::from_millis(5) } else { limits::HOUSEKEEPING_INTERVAL })
    }

    /// How far the log may be released, as far as a checkpoint goes (unless there is no room for one); asks for one that goes further.
    fn target(&self) -> Lsn {
        self.target_by(&self.parts.retention.lock().expect("the retention rules are intact"))
    }

    fn target_by(&self, retention: &Retention) -> Lsn {
        let marks = &self.parts.marks;
        // Under asynchronous flush queues run ahead of the disk; the log's start may not.
        let settled = marks.load(Watermark::Dispatched).min(marks.load(Watermark::Durable));
        let geometry = self.parts.segments.geometry();
        let target = |assigned| retention.target(geometry, marks.start(), settled, assigned, self.parts.retain_bytes);
        let checkpoint = &self.parts.checkpoint;
        // It takes a while, and the log goes on: what is to go next is asked for with what is to go now.
        let soon = target(marks.assigned().plus(overshoot_bytes(geometry, self.parts.spare_count)));
        if soon > geometry.base(checkpoint.applied()) {
            checkpoint.want(soon);
            (self.parts.wake_checkpointer)();
        }
        target(marks.assigned()).min(geometry.base(checkpoint.holds_back())).max(marks.start())
    }

    /// Moves what age and free space ask for.
    fn look_at_age_and_space(&mut self, now: Duration) -> Result<(), Failure> {
        let (age, space) = (self.parts.retain_age, self.parts.free_bytes_min);
        if now < self.aged_at || (age.is_none() && space.is_none()) {
            return Ok(());
        }
        self.aged_at = now + limits::AGE_INTERVAL;
        let geometry = self.parts.segments.geometry();
        let start = self.parts.marks.start();
        let settled = self.parts.marks.load(Watermark::Dispatched).min(self.parts.marks.load(Watermark::Durable));
        let mut aged = start;
        if let Some(age) = age {
            let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            let oldest_ms = self.parts.clock.wall_ms().saturating_sub(age_ms);
            // Store times never decrease: what the next segment begins with is no older than all of this one.
            let mut next = geometry.segment_end(start);
            while next < settled {
                match self.parts.reader.frame(next) {
                    Ok((header, _)) if header.store_time_ms < oldest_ms => aged = next,
                    Ok(_) => break,
                    // What lies before it goes when something behind it is old enough.
                    Err(ReadError::Damaged { .. } | ReadError::Io { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
                next = geometry.segment_end(next);
            }
        }
        if space.is_some_and(|least| self.parts.segments.free_bytes().is_ok_and(|free| free < least)) {
            aged = aged.max(geometry.segment_end(start));
        }
        self.parts.retention.lock().expect("the retention rules are intact").aged = aged;
        Ok(())
    }

    fn begin(&mut self, target: Lsn) -> Result<Duration, Failure> {
        let (start, restates) = self.within_room(self.parts.marks.start(), target);
        self.parts.sequencer.lock().expect(LOCKED).restates = restates;
        self.go_on(Releasing::Finding { start, end: start, needed: self.needed(), again: false })
    }

    fn needed(&self) -> Needed {
        self.parts.retention.lock().expect("the retention rules are intact").needed()
    }

    /// What is released at one time, and on whose behalf it is said again. With little room that is one segment: what has to be said again
    /// of it fits the part of the reserve that is kept for this, and its file becomes the next segment.
    fn within_room(&self, at: Lsn, target: Lsn) -> (Lsn, Claim) {
        let room = &self.parts.room;
        if room.full().is_none() && room.prepared_end() >= room.wanted_end(self.parts.marks.assigned()) {
            (target, Claim::Essential)
        } else {
            (target.min(self.parts.segments.geometry().segment_end(at)), Claim::Own)
        }
    }

    /// Adds what survives of the segment before `end` to its list, when the log is dense from `start` on; returns where that begins. The
    /// newest comes first: a link that survives there holds its origin here.
    fn find_survivors(&self, end: Lsn, start: Lsn, needed: &Needed) -> Result<Lsn, Failure> {
        let base = self.parts.segments.geometry().base(Lsn(end.0 - 1));
        let alive = self.alive(base, start, needed)?;
        let known = self.parts.survivors.list(base).unwrap_or_else(|| List::from([]));
        let all = survivors::union(&known, &alive);
        if !all.is_empty() {
            self.parts.survivors.set(base, Some(all));
        }
        Ok(base)
    }

    /// What is still needed of the segment at `base`, when the log is dense from `dense` on.
    fn alive(&self, base: Lsn, dense: Lsn, needed: &Needed) -> Result<List, Failure> {
        let end = self.parts.segments.geometry().segment_end(base);
        let mut alive = BTreeSet::new();
        for (id, from) in needed {
            let queue = self.parts.queues.by_id(*id);
            for lsn in self.parts.queues.lsns_between(&queue, *from, base..end)? {
                alive.insert(survivors::code(base, lsn, true));
            }
        }
        let references = self.parts.table.references(base..end)?;
        let is_here = |alive: &BTreeSet<u32>, lsn: Lsn| {
            (base..end).contains(&lsn) && {
                let code = survivors::code(base, lsn, false);
                alive.contains(&code) || alive.contains(&(code + 1))
            }
        };
        loop {
            let before = alive.len();
            for (target, referrer) in &references {
                let holds = match referrer {
                    Referrer::Entry(_) => true,
                    Referrer::Link(link) if (base..end).contains(link) => is_here(&alive, *link),
                    Referrer::Link(link) => *link >= dense || self.parts.survivors.contains(*link),
                };
                if holds && !is_here(&alive, *target) {
                    alive.insert(survivors::code(base, *target, false));
                }
            }
            // A link of this segment that came to life may hold another message of it.
            if alive.len() == before {
                break;
            }
        }
        Ok(alive.into_iter().collect())
    }

    fn go_on(&mut self, releasing: Releasing) -> Result<Duration, Failure> {
        match releasing {
            Releasing::Finding { start, mut end, needed, again } => {
                let at = self.parts.marks.start();
                for _ in 0..limits::SURVIVORS_PER_STEP {
                    if end > at {
                        end = self.find_survivors(end, start, &needed)?;
                    }
                }
                if end > at {
                    self.releasing = Some(Releasing::Finding { start, end, needed, again });
                } else if again {
                    let batches = self.lists(at, start)?;
                    return self.go_on(Releasing::Recording { start, needed, batches });
                } else {
                    // From here on nothing new can refer to what goes: what does so already is known once this is dispatched.
                    self.parts.sequencer.lock().expect(LOCKED).closed_below = start;
                    self.releasing = Some(Releasing::Entries { start, at });
                }
                Ok(Duration::ZERO)
            }
            Releasing::Entries { start, at } if at < start => {
                let reached = self.restate_frames(start, at)?;
                let is_refused = matches!(&reached, Reached::Frames(next) if *next == at);
                self.releasing = Some(match reached {
                    Reached::Frames(at) => Releasing::Entries { start, at },
                    Reached::Damage(from) => {
                        self.note_damage(from);
                        Releasing::Table { start, from, key: Vec::new() }
                    }
                });
                Ok(if is_refused { SOON } else { Duration::ZERO })
            }
            Releasing::Table { start, from, key } => {
                let next = self.restate_table(&(from..start), &key)?;
                let is_refused = next.as_ref() == Some(&key);
                self.releasing = Some(match next {
                    Some(key) => Releasing::Table { start, from, key },
                    None => Releasing::Entries { start, at: start },
                });
                Ok(if is_refused { SOON } else { Duration::ZERO })
            }
            Releasing::Entries { start, .. } | Releasing::Counters { start } => {
                let queues: Vec<Queue> = self.parts.queues.all();
                let wall_ms = self.parts.clock.wall_ms();
                let mut sequencer = self.parts.sequencer.lock().expect(LOCKED);
                let all_restated = sequencer.restate_counters(&queues, start, wall_ms);
                let end = sequencer.next;
                drop(sequencer);
                let done = match all_restated {
                    Ok(done) => done,
                    Err(refused) => put_off(refused).map(|()| false)?,
                };
                self.releasing =
                    Some(if done { Releasing::Settling { start, end } } else { Releasing::Counters { start } });
                Ok(if done { Duration::ZERO } else { SOON })
            }
            Releasing::Settling { start, end } => {
                if !self.is_known(end) {
                    self.releasing = Some(Releasing::Settling { start, end });
                    return Ok(SOON);
                }
                // A pin that was set meanwhile holds; what was restated does no harm.
                if self.target() < start {
                    self.abandon();
                    return Ok(Duration::ZERO);
                }
                self.go_on(Releasing::Finding { start, end: start, needed: self.needed(), again: true })
            }
            Releasing::Recording { start, needed, mut batches } => {
                // Under the lock that pins take: the last moment at which one that was set meanwhile holds. What is in the log then is
                // done, here and by every replica. Lists without a start are those of a release that did not come to its end.
                let retention = Arc::clone(&self.parts.retention);
                let mut retention = retention.lock().expect("the retention rules are intact");
                if self.target_by(&retention) < start {
                    drop(retention);
                    self.abandon();
                    return Ok(Duration::ZERO);
                }
                let now = retention.needed();
                if now.iter().any(|(queue, offset)| needed.get(queue).is_none_or(|known| offset < known)) {
                    self.releasing = Some(Releasing::Finding { start, end: start, needed: now, again: true });
                    return Ok(Duration::ZERO);
                }
                let restates = self.parts.sequencer.lock().expect(LOCKED).restates;
                let batch = batches.front_mut().expect("the last one says where the log begins");
                let Some(end) = self.append(batch, restates)? else {
                    self.releasing = Some(Releasing::Recording { start, needed, batches });
                    return Ok(SOON);
                };
                batches.pop_front();
                self.releasing = Some(if batches.is_empty() {
                    retention.leaving = start;
                    Releasing::Recorded { start, end }
                } else {
                    Releasing::Recording { start, needed, batches }
                });
                Ok(Duration::ZERO)
            }
            Releasing::Recorded { start, end } => {
                if !self.is_settled(end) {
                    self.releasing = Some(Releasing::Recorded { start, end });
                    return Ok(SOON);
                }
                let is_finished = self.finish(start)?;
                if !is_finished {
                    self.releasing = Some(Releasing::Recorded { start, end });
                    self.retry_at = self.parts.clock.monotonic() + limits::RELEASE_FULL_RETRY;
                }
                Ok(if is_finished { Duration::ZERO } else { limits::HOUSEKEEPING_INTERVAL })
            }
        }
    }

    /// Whether everything below `end` is known to queues and table.
    fn is_known(&self, end: Lsn) -> bool {
        (self.parts.catch_up)();
        let is_known = self.parts.marks.load(Watermark::Dispatched) >= end;
        if !is_known {
            (self.parts.hurry)(end);
        }
        is_known
    }

    /// Whether everything below `end` is durable, and known to queues and table.
    fn is_settled(&self, end: Lsn) -> bool {
        let is_durable = self.parts.marks.load(Watermark::Durable) >= end;
        if !is_durable {
            (self.parts.hurry)(end);
        }
        self.is_known(end) && is_durable
    }

    /// What the log is to say: what survives of the segments from `at` to `start`, and last that it begins there. Whoever has the last
    /// batch has the others.
    fn lists(&self, at: Lsn, start: Lsn) -> Result<VecDeque<WriteBatch>, Failure> {
        let geometry = self.parts.segments.geometry();
        let mut batches = VecDeque::from([WriteBatch::new()]);
        let mut base = at;
        while base < start {
            let key = survivors::key(base);
            if let Some(list) = self.parts.survivors.list(base) {
                let value = survivors::encode(&list);
                room_for(&mut batches, value.len()).push_engine_put(&key, &value)?;
            } else if self.parts.table.get(&key)?.is_some() {
                // Left by a release that did not come to its end.
                room_for(&mut batches, 0).push_engine_delete(&key)?;
            }
            base = geometry.segment_end(base);
        }
        room_for(&mut batches, 0).push_engine_put(survivors::START_KEY, &start.0.to_le_bytes())?;
        Ok(batches)
    }

    /// Appends what is the engine's own; the end of the log, or `None` while the buffer is full.
    fn append(&self, batch: &mut WriteBatch, claim: Claim) -> Result<Option<Lsn>, Failure> {
        let wall_ms = self.parts.clock.wall_ms();
        let mut sequencer = self.parts.sequencer.lock().expect(LOCKED);
        if !batch.is_empty() {
            batch.seal();
            let appended = sequencer.append_as(claim, batch, wall_ms);
            sequencer.publish();
            if let Err(refused) = appended {
                return put_off(refused).map(|()| None);
            }
        }
        let end = sequencer.next;
        drop(sequencer);
        (self.parts.hurry)(end);
        Ok(Some(end))
    }

    /// Lets the log begin at `start`; false when there is no room to say so.
    pub(super) fn finish(&mut self, start: Lsn) -> Result<bool, Failure> {
        let current = self.parts.marks.start();
        let kept: Vec<Lsn> =
            self.parts.survivors.bases().into_iter().filter(|base| (current..start).contains(base)).collect();
        // The name first: below the manifest's start there are only files that are to be kept.
        if let Err(error) = self.parts.segments.keep_sparse(&kept) {
            return no_room_to_finish(error, &self.parts.dir);
        }
        let manifest = Arc::clone(&self.parts.manifest);
        let mut manifest = manifest.lock().expect("the manifest is intact");
        manifest.start = start;
        manifest.history.trim(start);
        let stored = manifest.store(&*self.parts.backend, &self.parts.dir, self.parts.sync_names);
        match stored {
            Ok(()) => {}
            // The manifest on disk is as it was, and this is done again when there is room.
            Err((path, source)) => {
                manifest.start = current;
                return no_room_to_finish(source, &path);
            }
        }
        drop(manifest);
        let mut changed = Vec::new();
        let survivors = &self.parts.survivors;
        let released = self.parts.queues.release(start, |lsn| survivors.in_queue(lsn), |id| changed.push(id));
        if let Err(error) = released {
            tracing::error!(%error, "some queues still show messages that are released");
        }
        (self.parts.queues_changed)(changed);
        self.parts.retention.lock().expect("the retention rules are intact").failing = None;
        // Whoever sees the new start finds no queue that begins before it.
        self.parts.marks.set_start(start);
        self.parts.table.set_start(start);
        self.parts.segments.retire(start);
        self.unpunched.extend(kept);
        Ok(true)
    }

    /// Gives up what is under way. What was restated does no harm.
    fn abandon(&mut self) {
        self.releasing = None;
        self.reviewing = None;
        // What the log says already is gone through with.
        let leaving = self.parts.retention.lock().expect("the retention rules are intact").leaving;
        let start = self.parts.marks.start().max(leaving);
        self.is_caught_up = false;
        self.parts.sequencer.lock().expect(LOCKED).closed_below = start;
        for base in self.parts.survivors.bases() {
            if base >= start {
                self.parts.survivors.set(base, None);
            }
        }
    }

    /// Looks whether fewer messages of the next sparse segment are needed than are kept; true when there is something to do about it.
    fn review(&mut self) -> Result<bool, Failure> {
        let bases = self.parts.survivors.bases();
        let next = bases.iter().copied().find(|base| *base > self.reviewed).or(bases.first().copied());
        let Some(base) = next else { return Ok(false) };
        self.reviewed = base;
        let Some(list) = self.parts.survivors.list(base) else { return Ok(false) };
        (self.parts.catch_up)();
        let alive = self.alive(base, self.parts.marks.start(), &self.needed())?;
        // A list is said again for a quarter of it, or for the last one.
        if !alive.is_empty() && alive.len() * 4 > list.len() * 3 {
            return Ok(false);
        }
        let end = {
            let sequencer = self.parts.sequencer.lock().expect(LOCKED);
            // Under the lock: from here on nothing new can refer to the others.
            self.parts.survivors.set(base, Some(List::clone(&alive)));
            sequencer.next
        };
        self.reviewing = Some(Reviewing::Settling { base, was: list, alive, end });
        Ok(true)
    }

    fn go_on_reviewing(&mut self, reviewing: Reviewing) -> Result<Duration, Failure> {
        match reviewing {
            Reviewing::Settling { base, was, alive, end } => {
                if !self.is_settled(end) {
                    self.reviewing = Some(Reviewing::Settling { base, was, alive, end });
                    return Ok(SOON);
                }
                // Whoever referred to one of the others just before is known now.
                let all = survivors::union(&alive, &self.alive(base, self.parts.marks.start(), &self.needed())?);
                self.parts.survivors.set(base, Some(List::clone(&all)));
                let mut batch = WriteBatch::new();
                // A few bytes that let a whole file go do not come in the way of a release.
                let claim = if all.is_empty() { Claim::Own } else { Claim::Essential };
                if all.is_empty() {
                    batch.push_engine_delete(&survivors::key(base))?;
                } else {
                    batch.push_engine_put(&survivors::key(base), &survivors::encode(&all))?;
                }
                // Without room for saying so they stay survivors.
                let appended = self.append(&mut batch, claim);
                let appended = appended.inspect_err(|_| self.parts.survivors.set(base, Some(List::clone(&was))))?;
                self.reviewing = Some(match appended {
                    Some(end) => Reviewing::Recorded { base, end },
                    None => Reviewing::Settling { base, was, alive: all, end },
                });
                Ok(SOON)
            }
            Reviewing::Recorded { base, end } => {
                if !self.is_settled(end) {
                    self.reviewing = Some(Reviewing::Recorded { base, end });
                    return Ok(SOON);
                }
                let survivors = &self.parts.survivors;
                let mut changed = Vec::new();
                let start = self.parts.marks.start();
                self.parts.queues.release(start, |lsn| survivors.in_queue(lsn), |id| changed.push(id))?;
                (self.parts.queues_changed)(changed);
                if survivors.list(base).is_none_or(|list| list.is_empty()) {
                    survivors.set(base, None);
                    self.parts.segments.remove_sparse(base)?;
                    self.unpunched.remove(&base);
                } else {
                    self.unpunched.insert(base);
                }
                Ok(Duration::ZERO)
            }
        }
    }

    /// Punches the next few holes; true when there was one.
    fn punch(&mut self) -> Result<bool, Failure> {
        let Some(punching) = &mut self.punching else {
            let Some(base) = self.unpunched.pop_first() else { return Ok(false) };
            if base >= self.parts.marks.start() {
                return Ok(false);
            }
            self.punching = Some(Punching { base, holes: self.holes(base) });
            return Ok(true);
        };
        let file = self.parts.segments.find(punching.base);
        for _ in 0..limits::PUNCHES_PER_STEP {
            let (Some(hole), Some(file)) = (punching.holes.pop(), &file) else {
                self.punching = None;
                return Ok(true);
            };
            let outcome = file.punch_hole(hole.start, hole.end - hole.start);
            let mut retention = self.parts.retention.lock().expect("the retention rules are intact");
            match outcome {
                Ok(()) => retention.punched_bytes += hole.end - hole.start,
                // On a full disk there may be no room for what says that there is more of it. The next opening punches again.
                Err(error) if error.kind() == io::ErrorKind::Unsupported || is_full(&error) => {
                    retention.kept_whole += 1;
                    self.punching = None;
                    return Ok(true);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn keep_whole(&self) {
        self.parts.retention.lock().expect("the retention rules are intact").kept_whole += 1;
    }

    /// What of a segment's file is needed by nobody, in whole blocks; nothing when that is little.
    fn holes(&self, base: Lsn) -> Vec<Range<u64>> {
        let geometry = self.parts.segments.geometry();
        let Some(list) = self.parts.survivors.list(base) else { return Vec::new() };
        let block = to_u64(IO_ALIGN);
        // Where one cannot be read now, nobody knows what it needs: nothing is punched.
        let live = match live_blocks(&self.parts.reader, geometry, base, &list) {
            Ok(live) => live,
            Err(error) => {
                tracing::warn!(%error, "a segment of survivors is kept whole");
                self.keep_whole();
                return Vec::new();
            }
        };
        let mut holes: Vec<Range<u64>> = Vec::new();
        let mut at = limits::SEGMENT_HEADER_BYTES;
        for offset in live.iter().copied().chain([geometry.segment_bytes]) {
            if offset > at {
                holes.push(at..offset);
            }
            at = offset + block;
        }
        let empty: u64 = holes.iter().map(|hole| hole.end - hole.start).sum();
        if empty * limits::SPARSE_GAIN < geometry.segment_bytes {
            self.keep_whole();
            return Vec::new();
        }
        holes.reverse();
        holes
    }
}

/// The last batch, or a new one where a value of so many bytes more makes it longer than it should be: a frame must fit any segment.
fn room_for(batches: &mut VecDeque<WriteBatch>, bytes: usize) -> &mut WriteBatch {
    let is_full = |batch: &WriteBatch| batch.frame_bytes() + to_u64(bytes) > limits::RESTATE_BATCH_BYTES;
    if batches.back().is_none_or(|last| !last.is_empty() && is_full(last)) {
        batches.push_back(WriteBatch::new());
    }
    batches.back_mut().expect("one was just put there")
}

/// The blocks of a segment's file that its survivors need, by their offsets.
pub(crate) fn live_blocks(
    reader: &LogReader,
    geometry: Geometry,
    base: Lsn,
    list: &[u32],
) -> Result<BTreeSet<u64>, ReadError> {
    let block = to_u64(IO_ALIGN);
    let mut live: BTreeSet<u64> = BTreeSet::new();
    let mut keep = |from: Lsn, len: u64| {
        let offset = geometry.file_offset(from);
        let blocks = align_down(offset, block)..align_up(offset + len, block);
        live.extend(blocks.step_by(IO_ALIGN));
    };
    for code in list {
        let (lsn, _) = survivors::decode(base, *code);
        let (header, entry) = reader.locate(lsn)?;
        keep(header.lsn, to_u64(frame::header_bytes(usize::from(header.record_count))));
        keep(lsn, u64::from(entry.len));
    }
    Ok(live)
}

/// What the rules say now, and what stands against them.
pub(crate) fn info(
    retention: &Retention,
    segments: &Segments,
    marks: &Marks,
    survivors: &Survivors,
    retain_bytes: Option<u64>,
) -> RetentionInfo {
    let wanted = retention.wanted(segments.geometry(), marks.assigned(), retain_bytes).max(marks.start());
    let held_by = retention.pins.iter().filter(|(_, lsn)| **lsn < wanted);
    let (sparse_segments, survivors, in_queues) = survivors.counts();
    RetentionInfo {
        start: marks.start(),
        wanted,
        held_by: held_by.map(|(name, lsn)| (name.clone(), *lsn)).collect(),
        sparse_segments,
        survivors,
        in_queues,
        punched_bytes: retention.punched_bytes,
        kept_whole: retention.kept_whole,
        passed_damage: retention.passed_damage,
        failing: retention.failing.clone(),
    }
}

/// Why it does not go on.
pub(super) enum Failure {
    /// The disk is no good.
    Io(io::Error),
    /// Perhaps later.
    Later(String),
    /// There is no room for what has to be said; perhaps for less of it.
    NoRoom,
}

/// What a refused append comes to. It is tried again soon when the buffer is full, or the next segment not there yet.
pub(super) fn put_off(refused: Refused) -> Result<(), Failure> {
    match refused {
        Refused::NoSegment | Refused::Because(AppendError::Full { .. } | AppendError::Behind { .. }) => Ok(()),
        Refused::Because(AppendError::OutOfSpace { .. }) => Err(Failure::NoRoom),
        Refused::Because(error) => Err(Failure::Later(error.to_string())),
    }
}

fn no_room_to_finish(error: io::Error, path: &Path) -> Result<bool, Failure> {
    let error = io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if !is_full(&error) {
        return Err(error.into());
    }
    tracing::warn!(%error, "no space to release segments; trying again");
    Ok(false)
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        Failure::Later(error.to_string())
    }
}

impl From<crate::error::TooLarge> for Failure {
    fn from(error: crate::error::TooLarge) -> Failure {
        Failure::Later(error.to_string())
    }
}
