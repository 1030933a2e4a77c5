//! Checkpoints: what queues, table and key index hold, written down now and then, so that opening need not read the whole log.
//!
//! Invariants:
//! 1. A checkpoint shows the state at one LSN, which is durable and acknowledged before it is committed.
//! 2. It is one transaction of the derived store: there or not there. It costs what changed since the one before.
//! 3. It is never on the way of an append: what is being written was put aside in one short step.
//! 4. The log's start never passes the last checkpoint: what the log says from there on makes the checkpoint whole. Only while a full disk
//!    has no room for a checkpoint it may, or nothing could be released: then opening makes the store anew.
//! 5. Whatever is wrong with it costs time, never data: it is a function of the retained log.
//! 6. It disturbs appends little: while they come, it writes at a rate of its own.
//! 7. It names the epoch at its LSN: one of another history than the manifest's is not believed. One of this history that goes beyond the
//!    end of the log proves that durable bytes are gone.
//!
//! A state machine: whoever drives it calls [`Checkpointer::step`], which may block as long as the store writes.

pub(crate) mod backlog;
pub(crate) mod pace;
pub(crate) mod rows;

use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use crate::clock::Clock;
use crate::commit::ring::LogBuffer;
use crate::commit::watermark::{Marks, Watermark};
use crate::commitlog::manifest::Manifest;
use crate::consume_queue::{QueueMark, Queues};
use crate::dispatch::Dispatcher;
use crate::epoch::EpochHistory;
use crate::error::ReadError;
use crate::fault::{Broken, Fault};
use crate::io::{IoBackend, is_full};
use crate::key_index::{KeyIndex, Run};
use crate::limits;
use crate::retention::Survivors;
use crate::store::{self, Origin, Pace, Store, StoreError, StoreIdentity, StoreReader, StoreTable, StoreWriter};
use crate::table::{Layer, Visible};
use crate::units::{Epoch, Lsn, QueueOffset, to_u64};
use backlog::Backlog;
use pace::CheckpointPace;
use rows::{Applied, Referrer};

/// What is put aside for one checkpoint.
pub(crate) struct Frozen {
    /// Everything below is in it.
    pub(crate) lsn: Lsn,
    /// No queue in it begins before.
    pub(crate) start: Lsn,
    /// Queues that changed, by id.
    pub(crate) queues: Vec<(u32, QueueMark)>,
    pub(crate) layer: Arc<RwLock<Layer>>,
}

/// Why a checkpoint was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Row(#[from] rows::BadRow),
}

impl CheckpointError {
    /// What kind of answer of the kernel it is, where it is one.
    pub(crate) fn kind(&self) -> io::ErrorKind {
        match self {
            CheckpointError::Store(StoreError::Io { source, .. }) => source.kind(),
            _ => io::ErrorKind::Other,
        }
    }
}

/// What the engine shares with the machine.
#[derive(Debug, Default)]
pub(crate) struct CheckpointShared {
    /// The last checkpoint goes up to here: the log's start stays at or below. `u64::MAX` while there are none to be.
    pub(crate) applied: AtomicU64,
    /// A checkpoint up to here is wanted, whatever the time.
    pub(crate) wanted: AtomicU64,
    pub(crate) count: AtomicU64,
    /// Why there was no room for the last one that was tried.
    full: Mutex<Option<Arc<io::Error>>>,
    /// There are no more to be in this run.
    pub(crate) given_up: AtomicBool,
    /// Bytes that the derived store takes on disk.
    pub(crate) store_bytes: AtomicU64,
}

impl CheckpointShared {
    /// Up to where the last one goes.
    pub(crate) fn applied(&self) -> Lsn {
        Lsn(self.applied.load(Ordering::SeqCst))
    }

    /// How far the log's start may go.
    pub(crate) fn holds_back(&self) -> Lsn {
        if self.full().is_some() { Lsn::MAX } else { self.applied() }
    }

    /// Why there is no room for a checkpoint, when that keeps too much in memory: what the log says from `start` to `acked`, when a
    /// checkpoint is due after `bytes`.
    pub(crate) fn overdue(&self, start: Lsn, acked: Lsn, bytes: u64) -> Option<Arc<io::Error>> {
        self.full().filter(|_| acked.since(self.applied().max(start)) >= limits::CHECKPOINT_OVERDUE * bytes)
    }

    fn full(&self) -> Option<Arc<io::Error>> {
        self.full.lock().expect("no holder of this lock panics").clone()
    }

    fn set_full(&self, why: Option<Arc<io::Error>>) {
        *self.full.lock().expect("no holder of this lock panics") = why;
    }

    /// Asks for a checkpoint that reaches `lsn`.
    pub(crate) fn want(&self, lsn: Lsn) {
        self.wanted.fetch_max(lsn.0, Ordering::SeqCst);
    }
}

/// What it works with.
pub(crate) struct Parts {
    pub(crate) backend: Arc<dyn IoBackend>,
    pub(crate) dir: PathBuf,
    pub(crate) store_id: u128,
    pub(crate) manifest: Arc<Mutex<Manifest>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) buffer: Arc<LogBuffer>,
    pub(crate) dispatcher: Arc<Mutex<Dispatcher>>,
    pub(crate) queues: Arc<Queues>,
    pub(crate) table: Arc<Visible>,
    pub(crate) survivors: Arc<Survivors>,
    pub(crate) keys: Arc<KeyIndex>,
    pub(crate) shared: Arc<CheckpointShared>,
    pub(crate) interval: Option<Duration>,
    pub(crate) bytes: u64,
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) broken: Broken,
    pub(crate) cache_bytes: usize,
    pub(crate) pace: Arc<CheckpointPace>,
    /// Asks for everything up to there to become durable soon.
    pub(crate) hurry: Box<dyn Fn(Lsn) + Send>,
}

/// The state machine.
pub(crate) struct Checkpointer {
    parts: Parts,
    /// Made at the first checkpoint, unless it was there at open.
    store: Option<Store>,
    frozen: Option<Frozen>,
    /// The last checkpoint began then.
    began_at: Duration,
    /// Nothing is tried before then.
    retry_at: Duration,
    /// The log's start when references were last cleaned up.
    cleaned: Lsn,
    /// The store is no good any more in this run.
    given_up: bool,
}

impl Checkpointer {
    pub(crate) fn new(parts: Parts, store: Option<Store>, applied: Lsn) -> Checkpointer {
        let began_at = parts.clock.monotonic();
        let first = if parts.interval.is_some() { applied } else { Lsn::MAX };
        parts.shared.applied.store(first.0, Ordering::SeqCst);
        parts.shared.store_bytes.store(store.as_ref().map_or(0, Store::file_bytes), Ordering::Relaxed);
        Checkpointer {
            parts,
            store,
            frozen: None,
            began_at,
            retry_at: Duration::ZERO,
            cleaned: Lsn::ZERO,
            given_up: false,
        }
    }

    /// Where the log must be for the next checkpoint to be due before its time.
    pub(crate) fn due_at(&self) -> Lsn {
        Lsn(self.parts.shared.applied().0.saturating_add(self.parts.bytes))
    }

    /// Begins, or ends, a checkpoint that is due; says when to look again.
    pub(crate) fn step(&mut self) -> Duration {
        let now = self.parts.clock.monotonic();
        let Some(interval) = self.parts.interval.filter(|_| !self.given_up) else { return limits::CHECKPOINT_NAP };
        if self.parts.marks.fenced().is_some() {
            return limits::CHECKPOINT_NAP;
        }
        if now < self.retry_at {
            return self.retry_at - now;
        }
        // A reader may have found it.
        if let Some(what) = self.store.as_ref().and_then(Store::damage).map(str::to_owned) {
            self.give_up(&what);
            return limits::CHECKPOINT_NAP;
        }
        if self.frozen.is_none() {
            let last = self.parts.shared.applied();
            let acked = self.parts.marks.acked();
            let wanted = Lsn(self.parts.shared.wanted.load(Ordering::SeqCst)) > last;
            let since = now.saturating_sub(self.began_at);
            let much = acked.since(last) >= self.parts.bytes
                || self.parts.table.unsaved().count >= limits::CHECKPOINT_CHANGES
                || self.parts.keys.unsaved() >= limits::CHECKPOINT_KEYS
                || self.parts.backlog.is_much();
            if acked == last || !(wanted || since >= interval || much) {
                return interval.saturating_sub(since).clamp(Duration::from_millis(10), limits::CHECKPOINT_NAP);
            }
            self.freeze(now);
        }
        self.finish(now)
    }

    fn freeze(&mut self, now: Duration) {
        let mut dispatcher = self.parts.dispatcher.lock().expect("the dispatcher is intact");
        while dispatcher.step() {}
        // Whoever moves the log's start says before that which queues lost entries, and waits for the dispatcher to say so. A queue of
        // survivors begins anywhere.
        let is_dense = self.parts.survivors.bases().is_empty();
        let start = if is_dense { self.parts.marks.start() } else { Lsn::ZERO };
        self.frozen = Some(dispatcher.freeze(start));
        self.began_at = now;
    }

    fn finish(&mut self, now: Duration) -> Duration {
        let Some(frozen) = &self.frozen else { return limits::CHECKPOINT_NAP };
        let covered = self.parts.marks.load(Watermark::Durable) >= frozen.lsn;
        if !covered && !self.parts.broken.is(Fault::CheckpointBeforeLog) {
            (self.parts.hurry)(frozen.lsn);
            return Duration::from_millis(1);
        }
        match self.write() {
            Ok(()) => Duration::ZERO,
            Err(CheckpointError::Store(error @ StoreError::Io { .. })) => {
                tracing::warn!(%error, "the checkpoint is tried again later");
                if let StoreError::Io { source, .. } = &error {
                    self.parts.shared.set_full(is_full(source).then(|| Arc::clone(source)));
                }
                self.look_again();
                self.retry_at = now + limits::CHECKPOINT_RETRY;
                limits::CHECKPOINT_RETRY
            }
            Err(error) => {
                self.give_up(&error.to_string());
                limits::CHECKPOINT_NAP
            }
        }
    }

    /// Lets readers go on with what the store had before a failure: it ended what they were looking through.
    fn look_again(&self) {
        match self.store.as_ref().map(Store::begin_read) {
            Some(Ok(reader)) => {
                let reader = Arc::new(reader);
                self.parts.queues.set_store(Arc::clone(&reader));
                self.parts.table.set_store(reader);
            }
            Some(Err(error)) => tracing::warn!(%error, "what only the derived store has cannot be read for now"),
            None => {}
        }
    }

    /// The log alone has to do in this run; it may begin wherever it will, for the store is made anew at the next opening.
    fn give_up(&mut self, why: &str) {
        tracing::error!(why, "no more checkpoints in this run; the next opening makes the derived store anew");
        self.given_up = true;
        self.parts.shared.given_up.store(true, Ordering::SeqCst);
        self.parts.shared.applied.store(u64::MAX, Ordering::SeqCst);
    }

    fn write(&mut self) -> Result<(), CheckpointError> {
        let Parts { backend, dir, store_id, cache_bytes, queues, table, keys, shared, pace, .. } = &self.parts;
        if self.store.is_none() {
            self.store = Some(new_store(backend, dir, *store_id, *cache_bytes, CheckpointPace::of(pace))?);
        }
        let store = self.store.as_ref().expect("just made");
        let frozen = self.frozen.as_ref().expect("there is one to write");
        let start = self.parts.marks.start();
        let retained = Retained { start, survivors: &self.parts.survivors, clean: start != self.cleaned };
        let history = self.parts.manifest.lock().expect("the manifest is intact").history.clone();
        let written = write(store, frozen, queues, keys, &retained, &history)?;
        self.cleaned = start;
        publish(frozen, written, queues, table, keys, self.parts.buffer.floor());
        shared.applied.store(frozen.lsn.0, Ordering::SeqCst);
        self.parts.backlog.saved();
        shared.set_full(None);
        shared.count.fetch_add(1, Ordering::Relaxed);
        store.keep_room();
        shared.store_bytes.store(store.file_bytes(), Ordering::Relaxed);
        self.frozen = None;
        Ok(())
    }

    /// A last checkpoint, for an orderly end: opening then has nothing to read.
    pub(crate) fn finish_now(&mut self) {
        if self.parts.interval.is_none() || self.given_up || self.parts.marks.fenced().is_some() {
            return;
        }
        for _ in 0..2 {
            if self.frozen.is_none() {
                if self.parts.marks.acked() == self.parts.shared.applied() {
                    return;
                }
                self.freeze(self.began_at);
            }
            if let Err(error) = self.write() {
                tracing::warn!(%error, "closed without a last checkpoint; opening reads what the log says since the one before");
                return;
            }
        }
    }
}

/// The store of a directory, made when there is none.
pub(crate) fn open_store(
    backend: &Arc<dyn IoBackend>,
    dir: &Path,
    store_id: u128,
    cache_bytes: usize,
    pace: Pace,
) -> Result<(Store, Origin), StoreError> {
    Store::open(backend, dir, identity(store_id), cache_bytes, pace)
}

/// An empty store in place of one that this run did not go on from: there the same numbers are other queues.
pub(crate) fn new_store(
    backend: &Arc<dyn IoBackend>,
    dir: &Path,
    store_id: u128,
    cache_bytes: usize,
    pace: Pace,
) -> Result<Store, StoreError> {
    store::remove(&**backend, dir)?;
    Ok(open_store(backend, dir, store_id, cache_bytes, pace)?.0)
}

fn identity(store_id: u128) -> StoreIdentity {
    StoreIdentity { store_id, format_version: rows::ROWS_VERSION }
}

/// How far a checkpoint goes, from its row; or why it is none of the log that this manifest describes.
pub(crate) fn applied(row: &[u8], manifest: &Manifest) -> Result<Lsn, String> {
    let Applied { lsn, epoch } = rows::decode_applied(row).map_err(|row| row.to_string())?;
    if lsn < manifest.start {
        return Err(format!("it ends at LSN {lsn}, and the log begins at {}", manifest.start));
    }
    let fits = match epoch_before(&manifest.history, lsn) {
        Some(known) => known == epoch,
        // Older than all that the manifest still names.
        None => manifest.history.starts().first().is_none_or(|first| epoch < first.epoch),
    };
    if fits { Ok(lsn) } else { Err(format!("it ends at LSN {lsn} of epoch {epoch}: that is another history")) }
}

/// The epoch of the byte before `lsn`.
fn epoch_before(history: &EpochHistory, lsn: Lsn) -> Option<Epoch> {
    history.at(Lsn(lsn.0.checked_sub(1)?))
}

/// How far the last checkpoint in `dir` says that the log was durable; `None` where there is none, or none that is believed. It only
/// reads, beside the process that has the directory.
pub(crate) fn peek(backend: &dyn IoBackend, dir: &Path, manifest: &Manifest) -> Option<Lsn> {
    let row = store::peek(backend, dir, identity(manifest.store_id), StoreTable::Meta, rows::APPLIED_KEY)?;
    applied(&row, manifest).ok()
}

/// What a checkpoint has written.
pub(crate) struct Written {
    reader: Arc<StoreReader>,
    runs: Vec<Run>,
}

/// What of the log is there.
pub(crate) struct Retained<'a> {
    pub(crate) start: Lsn,
    pub(crate) survivors: &'a Survivors,
    /// Whether the start moved since references were last cleaned up.
    pub(crate) clean: bool,
}

/// Writes what was put aside, in one transaction; returns a view of the outcome.
pub(crate) fn write(
    store: &Store,
    frozen: &Frozen,
    queues: &Queues,
    keys: &KeyIndex,
    retained: &Retained<'_>,
    history: &EpochHistory,
) -> Result<Written, CheckpointError> {
    let writer = store.begin_write()?;
    let runs = keys.write(&writer, frozen.lsn, retained.start)?;
    write_queues(&writer, frozen, queues)?;
    write_table(&writer, frozen, retained)?;
    let mut meta = writer.table(StoreTable::Meta)?;
    let epoch = epoch_before(history, frozen.lsn).unwrap_or_default();
    meta.put(rows::APPLIED_KEY, &rows::encode_applied(Applied { lsn: frozen.lsn, epoch }))?;
    meta.put(rows::START_KEY, &rows::encode_start(frozen.start))?;
    drop(meta);
    writer.commit()?;
    Ok(Written { reader: Arc::new(store.begin_read()?), runs })
}

/// Lets readers see the checkpoint, and memory go.
pub(crate) fn publish(
    frozen: &Frozen,
    written: Written,
    queues: &Queues,
    table: &Visible,
    keys: &KeyIndex,
    floor: Lsn,
) {
    let Written { reader, runs } = written;
    // Readers first: entries leave memory only when they can be read elsewhere.
    queues.set_store(Arc::clone(&reader));
    table.merged(Arc::clone(&reader));
    keys.merged(reader, runs);
    queues.saved(&frozen.queues, floor);
}

fn write_queues(writer: &StoreWriter, frozen: &Frozen, queues: &Queues) -> Result<(), CheckpointError> {
    let mut entries_table = writer.table(StoreTable::Entries)?;
    let mut queues_table = writer.table(StoreTable::Queues)?;
    write_empty_queues(&mut queues_table, frozen, queues)?;
    let mut entries = Vec::with_capacity(rows::PIECE_ENTRIES);
    for (id, mark) in &frozen.queues {
        let queue = queues.by_id(*id);
        let state = queues.state(*id);
        let saved = state.saved();
        let (mut min, max) = (mark.range.min, mark.range.max);
        // A queue that was emptied goes on elsewhere, and a dropped one nowhere.
        let gone = if mark.dropped || min >= saved.max { saved.max } else { min };
        remove_pieces(&mut entries_table, *id, saved.min.0, gone.0)?;
        let mut at = saved.max.max(min);
        while at < max && !mark.dropped {
            entries.clear();
            let count = (max.0 - at.0).min(to_u64(rows::PIECE_ENTRIES));
            let first = state.copy_unsaved(at, crate::units::to_usize(count), &mut entries);
            // Released while it was put aside: what is left begins further on.
            if entries.is_empty() {
                assert!(first > at, "what no checkpoint has is in memory");
                (at, min) = (first, first);
                continue;
            }
            entries_table.put(&rows::piece_key(*id, at.0), &rows::encode_piece(&entries))?;
            at.0 += to_u64(entries.len());
        }
        let row = rows::QueueRow {
            name: Arc::clone(&queue.name),
            incarnation: queue.incarnation,
            dropped: mark.dropped,
            min: min.min(max),
            max,
            latest: mark.latest,
        };
        queues_table.put(&rows::queue_key(&queue), &rows::encode_queue(&row))?;
    }
    Ok(())
}

/// Writes rows of the queues below the last that changed which have none: somebody asked for them, and nothing was ever in them. Without
/// them whoever opens the store would find others under numbers that are not theirs.
fn write_empty_queues(
    queues_table: &mut crate::store::TableWriter<'_>,
    frozen: &Frozen,
    queues: &Queues,
) -> Result<(), CheckpointError> {
    let Some((last, _)) = frozen.queues.last() else { return Ok(()) };
    let (mut next, mut bad) = (0, None);
    let all = (Bound::Unbounded, Bound::Unbounded);
    queues_table.range(all, crate::store::Direction::Descending, |key, _| {
        match rows::queue_id(key) {
            Ok(id) => next = id + 1,
            Err(row) => bad = Some(row),
        }
        std::ops::ControlFlow::Break(())
    })?;
    if let Some(row) = bad {
        return Err(row.into());
    }
    // Those that changed, in the order of their numbers, get rows of their own.
    let is_changed = |id: &u32| frozen.queues.binary_search_by_key(id, |(changed, _)| *changed).is_ok();
    for id in (next..*last).filter(|id| !is_changed(id)) {
        let queue = queues.by_id(id);
        let row = rows::QueueRow {
            name: Arc::clone(&queue.name),
            incarnation: queue.incarnation,
            // It follows one whose end the checkpoint does not reach: whoever reads on from there finds it in the log.
            dropped: queue.incarnation > 0,
            min: QueueOffset(0),
            max: QueueOffset(0),
            latest: None,
        };
        queues_table.put(&rows::queue_key(&queue), &rows::encode_queue(&row))?;
    }
    Ok(())
}

/// Removes the pieces of a queue that hold no entry at or above `to`.
fn remove_pieces(
    entries: &mut crate::store::TableWriter<'_>,
    id: u32,
    from: u64,
    to: u64,
) -> Result<(), CheckpointError> {
    if from >= to {
        return Ok(());
    }
    // The piece that holds `to` stays whole: it begins before.
    let (lowest, end) = (rows::piece_key(id, 0), rows::piece_key(id, to));
    let mut holds_it = None;
    let below = (Bound::Included(&lowest[..]), Bound::Excluded(&end[..]));
    let mut bad = None;
    entries.range(below, crate::store::Direction::Descending, |key, value| {
        match (rows::piece_first(key), rows::decode_piece(value)) {
            (Ok(first), Ok(piece)) if first + to_u64(piece.len()) > to => holds_it = Some(key.to_vec()),
            (Ok(_), Ok(_)) => {}
            (Err(row), _) | (_, Err(row)) => bad = Some(row),
        }
        std::ops::ControlFlow::Break(())
    })?;
    if let Some(row) = bad {
        return Err(row.into());
    }
    let end = holds_it.unwrap_or(end.to_vec());
    entries.remove_range((Bound::Included(&lowest[..]), Bound::Excluded(&end[..])))?;
    Ok(())
}

fn write_table(writer: &StoreWriter, frozen: &Frozen, retained: &Retained<'_>) -> Result<(), CheckpointError> {
    let mut table = writer.table(StoreTable::Table)?;
    let mut references = writer.table(StoreTable::References)?;
    let layer = frozen.layer.read().expect("the table is intact");
    for (key, entry) in layer.newest() {
        let before = table.get(key)?.map(|row| rows::decode_entry(&row)).transpose()?;
        let (old, new) = (before.and_then(|entry| entry.target), entry.and_then(|entry| entry.target));
        if old != new {
            let referrer = Referrer::Entry(key.to_vec());
            if let Some(target) = old {
                references.remove(&rows::reference_key(target, &referrer))?;
            }
            if let Some(target) = new {
                references.put(&rows::reference_key(target, &referrer), &[])?;
            }
        }
        match entry {
            Some(entry) => table.put(key, &rows::encode_entry(entry))?,
            None => {
                table.remove(key)?;
            }
        }
    }
    for (origin, link) in layer.origins(Lsn::ZERO..Lsn::MAX) {
        references.put(&rows::reference_key(origin, &Referrer::Link(link)), &[])?;
    }
    drop(layer);
    if retained.clean {
        remove_dead_references(&mut references, retained.start, retained.survivors)?;
    }
    Ok(())
}

/// Removes what refers to messages that are gone, and what links that are gone refer to.
fn remove_dead_references(
    references: &mut crate::store::TableWriter<'_>,
    start: Lsn,
    survivors: &Survivors,
) -> Result<(), CheckpointError> {
    let (mut dead, mut bad) = (Vec::new(), None);
    let end = rows::references_from(start);
    let below = (Bound::Unbounded, Bound::Excluded(&end[..]));
    let is_gone = |lsn: Lsn| lsn < start && !survivors.contains(lsn);
    references.range(below, crate::store::Direction::Ascending, |key, _| match rows::decode_reference(key) {
        Ok((target, referrer)) => {
            if is_gone(target) || matches!(referrer, Referrer::Link(link) if is_gone(link)) {
                dead.push(key.to_vec());
            }
            std::ops::ControlFlow::Continue(())
        }
        Err(row) => {
            bad = Some(row);
            std::ops::ControlFlow::Break(())
        }
    })?;
    if let Some(row) = bad {
        return Err(row.into());
    }
    for key in dead {
        references.remove(&key)?;
    }
    Ok(())
}
