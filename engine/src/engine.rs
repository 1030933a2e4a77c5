//! The engine: opening, appending, reading, closing. Wiring only; each promise is kept in the module that it names.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::batch::{AppendOutcome, MessageRef, Queue, WriteBatch};
use crate::checkpoint::backlog::Backlog;
use crate::checkpoint::pace::PaceParts;
use crate::checkpoint::rows::Referrer;
use crate::checkpoint::{self, CheckpointShared, Checkpointer};
use crate::clock::{Clock, SystemClock};
use crate::commit::ring::LogBuffer;
use crate::commit::room::{Claim, Refused, Room};
use crate::commit::sequencer::{QueueHead, Sequencer};
use crate::commit::watermark::Marks;
use crate::commit::writer::{LogWriter, Step, WriterShared};
use crate::commit::{FlushStats, Space, Subscription, Ticket, Watcher, Watermark, Watermarks};
use crate::commitlog::gather::Gathered;
use crate::commitlog::manifest::Manifest;
use crate::commitlog::reader::LogReader;
use crate::commitlog::record::{self, Origin, Record, RecordKind};
use crate::commitlog::segments::Segments;
use crate::consume_queue::{QueueEntry, Queues};
use crate::damage::{DamagedPlace, Damages};
use crate::dispatch::{Applier, Dispatcher};
use crate::drivers::{self, Committer, Signals, Stop};
use crate::error::{AppendError, Fenced, OpenError, ReadError, ReleaseError, WaitError};
use crate::housekeeping::{Housekeeper, Parts};
use crate::io::probe::{self, Probe};
use crate::io::threads::ThreadsBackend;
use crate::io::{DirLock, IoBackend, OpenMode, Wait, is_full};
use crate::key_index::{KeyIndex, KeyQuery, Records};
use crate::limits;
use crate::open::{self, Derived, Opened};
use crate::options::{Drivers, EngineOptions, Flush};
use crate::read::{Fetch, FetchOutcome, FetchStatus, Message, Payload, QueueRange};
use crate::replica::{Role, SIDE_NAME, SideKeeper};
use crate::retention::{Releaser, ReleaserParts, Retention, RetentionInfo, Survivors};
use crate::scrub::{Progress, ScrubParts, Scrubber};
use crate::table::{Fetched, HeadView, Held, Snapshot, TableEntry, Visible};
use crate::units::{Epoch, Lsn, QueueOffset, to_u64};

/// What was found and chosen at open.
#[derive(Clone, Debug)]
pub struct EngineInfo {
    /// The directory.
    pub dir: PathBuf,
    /// The log's identity, made when it was created.
    pub store_id: u128,
    /// The epoch of this run.
    pub epoch: Epoch,
    /// The options in force; geometry as the log was created with.
    pub options: EngineOptions,
    /// The backend and why it was chosen, in one line; [`EngineInfo::probe`] has the rest.
    pub backend: String,
    /// What the probe knows of kernel, file system and disk; `None` for a backend that was given.
    pub probe: Option<Probe>,
    /// What recovery found, in one line.
    pub recovery: String,
    /// Bytes of a torn tail that recovery cut, if any.
    pub recovery_cut_bytes: u64,
}

/// Counters since open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Batches appended.
    pub batches: u64,
    /// Records appended.
    pub records: u64,
    /// Frame bytes appended, fillers and marks included.
    pub frame_bytes: u64,
    /// Groups written.
    pub commits: u64,
    /// Bytes given to the device for them.
    pub commit_bytes: u64,
    /// Flushes asked of the device (a durable write counts one).
    pub flushes: u64,
    /// Appends that found the buffer full and waited or were refused.
    pub full: u64,
    /// Appends refused because no further segment could be made.
    pub out_of_space: u64,
    /// Segments that were used without having been zero-filled.
    pub unwritten_segments: u64,
    /// Segments recycled.
    pub recycled_segments: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Bytes that the derived store takes on disk.
    pub derived_bytes: u64,
    /// Runs of the key index in the derived store: a search looks into each that its time does not rule out.
    pub key_runs: u64,
    /// Damaged records met by readers, each time that one was.
    pub damaged_records: u64,
    /// Bytes of closed segments that the scrub has read.
    pub scrubbed_bytes: u64,
    /// Passes of the scrub over all closed segments.
    pub scrub_passes: u64,
    /// Damaged places that the scrub has found, each once a pass.
    pub scrub_damaged: u64,
    /// Damaged ranges that were mended while the log was open.
    pub mended_ranges: u64,
    /// Bytes written for that.
    pub mended_bytes: u64,
    /// Reads that went to the disk.
    pub cold_reads: u64,
    /// Bytes that they brought.
    pub cold_read_bytes: u64,
}

/// What a release did.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseOutcome {
    /// First byte retained once the release is through; pins and what is not yet in the queues hold it back.
    pub start: Lsn,
    /// Segments that become free with it.
    pub segments: u64,
}

/// Either half of [`Engine::append_and_wait`].
#[derive(Debug, thiserror::Error)]
pub enum AppendOrWaitError {
    /// Nothing is stored.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// Stored, perhaps; not acknowledged.
    #[error(transparent)]
    Wait(#[from] WaitError),
}

/// An open log. Shared between threads behind an `Arc`; dropping it closes it.
pub struct Engine {
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
    closed: bool,
}

struct Inner {
    info: EngineInfo,
    /// Where the leader's log ended when this one was seeded, or ends by now if it is shorter; 0 where that does not matter.
    seeded_to: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
    marks: Arc<Marks>,
    sequencer: Arc<Mutex<Sequencer>>,
    committer: Arc<Mutex<Committer>>,
    writer_shared: Arc<WriterShared>,
    dispatcher: Arc<Mutex<Dispatcher>>,
    housekeeper: Arc<Mutex<Housekeeper>>,
    checkpointer: Arc<Mutex<Checkpointer>>,
    checkpoint: Arc<CheckpointShared>,
    segments: Arc<Segments>,
    room: Arc<Room>,
    queues: Arc<Queues>,
    table: Arc<Visible>,
    keys: Arc<KeyIndex>,
    reader: Arc<LogReader>,
    damages: Arc<Damages>,
    scrubbed: Arc<Progress>,
    survivors: Arc<Survivors>,
    retention: Arc<Mutex<Retention>>,
    buffer: Arc<LogBuffer>,
    backend: Arc<dyn IoBackend>,
    manifest: Arc<Mutex<Manifest>>,
    /// One caller at a time takes over.
    receiving: Mutex<()>,
    watch_count: Arc<AtomicUsize>,
    signals: Arc<Signals>,
    stop: Arc<Stop>,
    buffer_bytes: u64,
    /// Whether a blocked caller may run the commit on its own thread.
    runs_inline: bool,
    /// When a commit on a caller's thread last took long; 0 if none ever did.
    slow_at_ms: AtomicU64,
    /// Held as long as the engine is open.
    _lock: Box<dyn DirLock>,
}

mod mending;
mod replication;

const LOCKED: &str = "no holder of this lock panics";

impl Engine {
    /// Opens the log in `dir`, or creates it there, on the machine's own clock and the backend that the options choose.
    ///
    /// # Errors
    /// Says which file, what was expected and what to do.
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// # use anchorlog_engine::{BackendChoice, Engine, EngineOptions, Flush};
    /// # let dir = tempfile::tempdir()?;
    /// let options = EngineOptions::default()
    ///     .with_flush(Flush::Async { interval: Duration::from_millis(100), bytes: 16 << 20 })
    ///     .with_backend(BackendChoice::Threads)
    ///     .with_segment_bytes(1 << 20);
    /// let engine = Engine::open(dir.path(), options)?;
    /// println!("{}; {}", engine.info().backend, engine.info().recovery);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(dir: impl AsRef<Path>, options: EngineOptions) -> Result<Engine, OpenError> {
        options.validate()?;
        let dir = dir.as_ref();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (backend, probe, line) = choose_backend(dir, &options, &*clock)?;
        Engine::build(backend, clock, dir, options, probe, line)
    }

    /// [`Engine::open`] on a given backend and clock.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_with(
        backend: Arc<dyn IoBackend>,
        clock: Arc<dyn Clock>,
        dir: impl AsRef<Path>,
        options: EngineOptions,
    ) -> Result<Engine, OpenError> {
        options.validate()?;
        let line = format!("{} (given)", backend.kind());
        Engine::build(backend, clock, dir.as_ref(), options, None, line)
    }

    fn build(
        backend: Arc<dyn IoBackend>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        mut options: EngineOptions,
        probe: Option<Probe>,
        backend_line: String,
    ) -> Result<Engine, OpenError> {
        let begun = clock.monotonic();
        let opened = open::open(&backend, dir, &options, backend.new_identity())?;
        let Opened { lock, manifest, epoch, new_epoch, segments, room, found, tail_block, derived, side } = opened;
        let Derived { queues, table, keys, store, pace, applied, changed, survivors, log_start, .. } = derived;
        options.segment_bytes = manifest.geometry.segment_bytes;
        options.tail = manifest.geometry.tail;
        options.validate()?;

        let marks = Marks::new(options.flush != Flush::Sync, manifest.start, found.end);
        let marks =
            Arc::new(if options.waits_for_replicas() { marks.replicated(found.acked, found.visible) } else { marks });
        let shared_manifest = Arc::new(Mutex::new(manifest.clone()));
        let (buffer, tail) = LogBuffer::new(options.chunk_bytes, options.cache_bytes, found.end, &tail_block);
        let known = queues.all();
        let heads = known.iter().map(|queue| {
            queues.state(queue.id()).set_opened();
            let mark = queues.state(queue.id()).current_mark();
            let dropped = queues.find(queue.name()).is_none_or(|current| current.id() != queue.id());
            QueueHead { next: mark.range.max, latest: mark.latest, dropped }
        });
        let unsaved_bytes_max = options.checkpoint_interval.map(|_| options.unsaved_bytes_max);
        let backlog = Arc::new(Backlog::new(unsaved_bytes_max));
        let sequencer = Arc::new(Mutex::new(Sequencer {
            tail,
            next: found.end,
            prev_crc: found.prev_crc,
            is_chained: found.frames > 0 || found.end == Lsn::ZERO,
            epoch,
            history: manifest.history.clone(),
            store_time_ms: found.store_time_ms,
            queues: heads.collect(),
            head: HeadView::default(),
            entries: Vec::new(),
            closed_below: log_start,
            survivors: Arc::clone(&survivors),
            geometry: manifest.geometry,
            buffer_bytes: options.buffer_bytes,
            buffer: Arc::clone(&buffer),
            marks: Arc::clone(&marks),
            room: Arc::clone(&room),
            backlog: Arc::clone(&backlog),
            restates: Claim::Essential,
            unmarked: false,
            durable_end: found.end,
            frame_ends: VecDeque::new(),
            broken: options.broken(),
            is_replica: options.role == Role::Replica,
            opening: queues.opening(),
            batches: 0,
            records: Arc::default(),
            frame_bytes: 0,
            full: 0,
        }));
        let writer = LogWriter::new(
            &options,
            manifest.geometry.tail,
            Arc::clone(&buffer),
            Arc::clone(&marks),
            Arc::clone(&segments),
            Arc::clone(&sequencer),
            found.end,
            clock.monotonic(),
        );
        let writer_shared = Arc::clone(&writer.shared);
        let depth = writer.queue_depth();
        let runs_inline = backend.runs_inline() && depth == 1;
        let io_error = |what| move |source| OpenError::Io { what, path: dir.to_path_buf(), source };
        let io = backend.queue(depth).map_err(io_error("setting up the commit queue for"))?;
        let watch_count = Arc::new(AtomicUsize::new(0));
        let named = Arc::clone(&sequencer);
        let registered = Box::new(move |queue: &Queue| register(&mut named.lock().expect(LOCKED), queue));
        let (queues_fed, table_fed, keys_fed) = (Arc::clone(&queues), Arc::clone(&table), Arc::clone(&keys));
        let applier = Applier::new(queues_fed, table_fed, keys_fed, registered, options.broken());
        let (damages, scrubbed) = (Arc::<Damages>::default(), Arc::<Progress>::default());
        let reader = Arc::new(LogReader::new(
            Arc::clone(&buffer),
            Arc::clone(&segments),
            Arc::clone(&marks),
            Arc::clone(&damages),
            Arc::clone(&survivors),
            options.broken(),
        ));
        let mut dispatcher = Dispatcher::new(
            applier,
            Arc::clone(&buffer),
            Arc::clone(&reader),
            Arc::clone(&marks),
            manifest.geometry,
            Arc::clone(&backlog),
            Arc::clone(&watch_count),
        );
        dispatcher.note_found(changed, found.entries, options.unsaved_bytes_max / 4 * 3);
        let dispatcher = Arc::new(Mutex::new(dispatcher));
        if options.role != Role::Replica {
            replication::catch_up_head(&sequencer, &queues, &reader, found.visible..found.end).map_err(|error| {
                OpenError::Io {
                    what: "reading",
                    path: dir.to_path_buf(),
                    source: std::io::Error::other(error.to_string()),
                }
            })?;
        }
        let seeded_to = Arc::new(AtomicU64::new(side.map_or(0, |block| block.seeded_to.0)));
        let side = side.map(|block| {
            let file = backend
                .open(&dir.join(SIDE_NAME), OpenMode::Existing)
                .map_err(io_error("opening the side block in"))?;
            Ok::<_, OpenError>(SideKeeper::new(
                file,
                Arc::clone(&marks),
                Arc::clone(&sequencer),
                block,
                Arc::clone(&seeded_to),
            ))
        });
        let side = side.transpose()?;
        let scrubber = Scrubber::new(ScrubParts {
            marks: Arc::clone(&marks),
            segments: Arc::clone(&segments),
            damages: Arc::clone(&damages),
            store_id: manifest.store_id,
            progress: Arc::clone(&scrubbed),
            next_live: Box::new(|lsn| lsn),
            rate: options.scrub_rate,
        });
        let signals = Signals::new();
        let retention = Arc::new(Mutex::new(Retention {
            held: options.retention_held,
            leaving: log_start,
            ..Retention::default()
        }));
        let (woken, hurried, writer_hurried) = (Arc::clone(&signals), Arc::clone(&signals), Arc::clone(&writer_shared));
        let (caught_up, caught_up_marks) = (Arc::clone(&dispatcher), Arc::clone(&marks));
        let (released, checkpoint_woken) = (Arc::clone(&dispatcher), Arc::clone(&signals));
        let (durable_hurried, durable_woken) = (Arc::clone(&writer_shared), Arc::clone(&signals));
        let checkpoint = Arc::new(CheckpointShared::default());
        let parts = checkpoint::Parts {
            backend: Arc::clone(&backend),
            dir: dir.to_path_buf(),
            store_id: manifest.store_id,
            manifest: Arc::clone(&shared_manifest),
            clock: Arc::clone(&clock),
            marks: Arc::clone(&marks),
            buffer: Arc::clone(&buffer),
            dispatcher: Arc::clone(&dispatcher),
            queues: Arc::clone(&queues),
            table: Arc::clone(&table),
            survivors: Arc::clone(&survivors),
            keys: Arc::clone(&keys),
            shared: Arc::clone(&checkpoint),
            interval: options.checkpoint_interval,
            bytes: options.checkpoint_bytes,
            backlog: Arc::clone(&backlog),
            broken: options.broken(),
            cache_bytes: options.checkpoint_cache_bytes,
            pace: Arc::clone(&pace),
            hurry: Box::new(move |end| {
                durable_hurried.flush_to.fetch_max(end.0, Ordering::SeqCst);
                durable_woken.commit.wake();
            }),
        };
        let checkpointer = Checkpointer::new(parts, store, applied);
        let releaser = Releaser::new(ReleaserParts {
            backend: Arc::clone(&backend),
            dir: dir.to_path_buf(),
            clock: Arc::clone(&clock),
            marks: Arc::clone(&marks),
            segments: Arc::clone(&segments),
            room: Arc::clone(&room),
            sequencer: Arc::clone(&sequencer),
            queues: Arc::clone(&queues),
            table: Arc::clone(&table),
            reader: Arc::clone(&reader),
            survivors: Arc::clone(&survivors),
            retention: Arc::clone(&retention),
            manifest: Arc::clone(&shared_manifest),
            retain_bytes: options.retain_bytes,
            retain_age: options.retain_age,
            free_bytes_min: options.free_bytes_min,
            spare_count: to_u64(options.spare_count),
            sync_names: open::sync_names(&options),
            follows: options.role == Role::Replica,
            checkpoint: Arc::clone(&checkpoint),
            wake_checkpointer: Box::new(move || checkpoint_woken.checkpoint.wake()),
            queues_changed: Box::new(move |queues| released.lock().expect(LOCKED).note_changed(queues)),
            catch_up: Box::new(move || catch_up(&caught_up, &caught_up_marks)),
            hurry: Box::new(move |end| {
                writer_hurried.flush_to.fetch_max(end.0, Ordering::SeqCst);
                hurried.commit.wake();
            }),
        });
        let housekeeper = Housekeeper::new(Parts {
            backend: Arc::clone(&backend),
            dir: dir.to_path_buf(),
            clock: Arc::clone(&clock),
            marks: Arc::clone(&marks),
            segments: Arc::clone(&segments),
            room: Arc::clone(&room),
            sequencer: Arc::clone(&sequencer),
            checkpoint: Arc::clone(&checkpoint),
            checkpoint_bytes: options.checkpoint_bytes,
            retain_bytes: options.retain_bytes,
            spare_count: to_u64(options.spare_count),
            appended: Box::new(move |end| woken.commit.reached(end)),
            scrubber,
            releaser,
            side,
        });
        let recovery = format!(
            "{} frames, {} records, LSN {} to {}, {} bytes cut, {:.3} s",
            found.frames,
            found.records,
            manifest.start,
            found.end,
            found.cut_bytes,
            clock.monotonic().saturating_sub(begun).as_secs_f64()
        );
        let info = EngineInfo {
            dir: dir.to_path_buf(),
            store_id: manifest.store_id,
            epoch,
            options: options.clone(),
            backend: backend_line,
            probe,
            recovery,
            recovery_cut_bytes: found.cut_bytes,
        };
        tracing::info!(dir = %dir.display(), %epoch, backend = %info.backend, recovery = %info.recovery, "log open");
        for note in info.probe.iter().flat_map(|probe| &probe.notes) {
            tracing::warn!(dir = %dir.display(), "{note}");
        }
        let inner = Arc::new(Inner {
            reader,
            damages,
            scrubbed,
            info,
            seeded_to,
            clock,
            marks,
            sequencer,
            committer: Arc::new(Mutex::new(Committer { writer, io })),
            writer_shared,
            dispatcher,
            housekeeper: Arc::new(Mutex::new(housekeeper)),
            checkpointer: Arc::new(Mutex::new(checkpointer)),
            checkpoint,
            segments,
            room,
            queues,
            table,
            survivors,
            keys,
            retention,
            buffer,
            backend,
            manifest: shared_manifest,
            receiving: Mutex::new(()),
            watch_count,
            signals,
            stop: Arc::new(Stop::default()),
            buffer_bytes: options.buffer_bytes,
            runs_inline: runs_inline && options.flush == Flush::Sync,
            slow_at_ms: AtomicU64::new(0),
            _lock: lock,
        });
        let mut engine = Engine { inner, threads: Vec::new(), closed: false };
        if options.drivers == Drivers::Threads {
            let inner = &engine.inner;
            let signals = Arc::clone(&inner.signals);
            pace.start(PaceParts {
                clock: Arc::clone(&inner.clock),
                marks: Arc::clone(&inner.marks),
                backlog,
                room: Arc::clone(&inner.room),
                // Only the checkpointer's thread writes checkpoints while there are threads.
                sleep: Box::new(move |wait| signals.checkpoint.sleep(Lsn::MAX, || Lsn::ZERO, Some(wait))),
            });
            engine.start_threads().map_err(io_error("starting threads for"))?;
        }
        if new_epoch {
            engine.make_room_for_run().map_err(io_error("making a segment in"))?;
            engine.begin_run().map_err(|fenced| OpenError::Io {
                what: "writing the first frame of this run in",
                path: dir.to_path_buf(),
                source: std::io::Error::new(fenced.source.kind(), fenced.to_string()),
            })?;
        }
        Ok(engine)
    }

    fn start_threads(&mut self) -> std::io::Result<()> {
        let marks = &self.inner.marks;
        let inner = Arc::clone(&self.inner);
        self.threads.push(drivers::spawn("commit", marks, move || {
            drivers::commit_loop(&inner.committer, &inner.signals, &inner.marks, &*inner.clock, &inner.stop);
        })?);
        let inner = Arc::clone(&self.inner);
        self.threads.push(drivers::spawn("dispatch", marks, move || {
            drivers::dispatch_loop(&inner.dispatcher, &inner.signals.dispatch, &inner.marks, &inner.stop);
        })?);
        let inner = Arc::clone(&self.inner);
        self.threads.push(drivers::spawn("housekeeping", marks, move || {
            drivers::housekeeping_loop(&inner.housekeeper, &inner.signals.housekeeping, &inner.marks, &inner.stop);
        })?);
        let inner = Arc::clone(&self.inner);
        self.threads.push(drivers::spawn("checkpoint", marks, move || {
            drivers::checkpoint_loop(&inner.checkpointer, &inner.signals.checkpoint, &inner.marks, &inner.stop);
        })?);
        Ok(())
    }

    fn make_room_for_run(&self) -> std::io::Result<()> {
        let inner = &*self.inner;
        while !inner.sequencer.lock().expect(LOCKED).run_fits() {
            inner.segments.make_next(inner.room.prepared_end())?;
        }
        Ok(())
    }

    /// The first frame of a run names its epoch; nothing is taken before it is durable.
    fn begin_run(&self) -> Result<(), Fenced> {
        let end = {
            let mut sequencer = self.inner.sequencer.lock().expect(LOCKED);
            sequencer.begin_run();
            sequencer.next
        };
        self.make_durable(end)?;
        Ok(())
    }

    fn make_durable(&self, end: Lsn) -> Result<Lsn, Fenced> {
        let inner = &*self.inner;
        inner.writer_shared.flush_to.fetch_max(end.0, Ordering::SeqCst);
        if self.threads.is_empty() {
            let mut committer = inner.committer.lock().expect(LOCKED);
            while inner.marks.load(Watermark::Durable) < end && inner.marks.fenced().is_none() {
                committer.step(&*inner.clock, Wait::One);
            }
        } else {
            inner.signals.commit.wake();
            while matches!(inner.marks.poll(Watermark::Durable, end), Ok(false)) {
                // Ends with the fence at the latest; what was assigned before closing is still committed.
                if inner.marks.wait(Watermark::Durable, end, &*inner.clock, None).is_err() {
                    break;
                }
            }
        }
        match inner.marks.fenced() {
            Some(fenced) if inner.marks.load(Watermark::Durable) < end => Err(fenced.clone()),
            _ => Ok(inner.marks.load(Watermark::Durable)),
        }
    }

    /// What was found and chosen at open.
    #[must_use]
    pub fn info(&self) -> &EngineInfo {
        &self.inner.info
    }

    /// Counters since open.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        let inner = &*self.inner;
        let shared = &inner.writer_shared;
        let sequencer = inner.sequencer.lock().expect(LOCKED);
        EngineStats {
            batches: sequencer.batches,
            records: sequencer.records.load(Ordering::Relaxed),
            frame_bytes: sequencer.frame_bytes,
            full: sequencer.full,
            out_of_space: inner.room.refused(),
            commits: shared.commits.load(Ordering::Relaxed),
            commit_bytes: shared.commit_bytes.load(Ordering::Relaxed),
            flushes: shared.flushes.load(Ordering::Relaxed),
            unwritten_segments: inner.segments.unwritten(),
            recycled_segments: inner.segments.recycled(),
            checkpoints: inner.checkpoint.count.load(Ordering::Relaxed),
            derived_bytes: inner.checkpoint.store_bytes.load(Ordering::Relaxed),
            key_runs: to_u64(inner.keys.run_count()),
            damaged_records: inner.damages.met(),
            scrubbed_bytes: inner.scrubbed.bytes(),
            scrub_passes: inner.scrubbed.passes(),
            scrub_damaged: inner.damages.scrubbed(),
            mended_ranges: inner.damages.mended(),
            mended_bytes: inner.damages.mended_bytes(),
            cold_reads: inner.reader.cold_reads(),
            cold_read_bytes: inner.reader.cold_read_bytes(),
        }
    }

    /// How long the log's writer has waited for the device since open, and for how many records at a time.
    #[must_use]
    pub fn flush_stats(&self) -> FlushStats {
        self.inner.writer_shared.flush_stats()
    }

    /// What the log can still take, and whether appends are being refused for want of space.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    ///
    /// # Example
    /// ```
    /// # use anchorlog_engine::{BackendChoice, Engine, EngineOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
    /// # let engine = Engine::open(dir.path(), options)?;
    /// let space = engine.space();
    /// if let Some(why) = &space.full {
    ///     eprintln!("no more segments ({why}): {} bytes are left for appends", space.ordinary_bytes);
    /// }
    /// assert!(!space.refuses);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn space(&self) -> Space {
        let inner = &*self.inner;
        let next = inner.marks.assigned();
        Space {
            ordinary_bytes: inner.room.left(Claim::Ordinary, next),
            essential_bytes: inner.room.left(Claim::Essential, next),
            free_bytes: inner.segments.free_bytes().ok(),
            full: inner.room.why(),
            refuses: inner.room.refuses(),
            refused: inner.room.refused(),
        }
    }

    /// Places in the log that are known to be damaged, in its order: found by the scrub or met by readers since open, at most
    /// [`limits::DAMAGED_PLACES_MAX`] of them.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    ///
    /// # Example
    /// ```
    /// # use anchorlog_engine::{BackendChoice, Engine, EngineOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
    /// # let engine = Engine::open(dir.path(), options)?;
    /// # let queue = engine.queue(b"orders")?;
    /// for place in engine.damaged_places() {
    ///     eprintln!("{} at LSN {} of {}: {}", place.part, place.lsn, place.path.display(), place.what);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn damaged_places(&self) -> Vec<DamagedPlace> {
        self.inner.damages.places(|lsn| self.inner.segments.find(lsn).is_some())
    }

    /// The queue of this name; it exists for readers once something was appended to it.
    ///
    /// # Errors
    /// When the name is too long or there are too many queues.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    pub fn queue(&self, name: &[u8]) -> Result<Queue, AppendError> {
        let inner = &*self.inner;
        Ok(inner.queues.intern(name, |queue| register(&mut inner.sequencer.lock().expect(LOCKED), queue))?)
    }

    /// Every queue known and not dropped, in the order of their names.
    #[must_use]
    pub fn queues(&self) -> Vec<Queue> {
        let mut all = self.inner.queues.current();
        all.sort_by(|one, other| one.name().cmp(other.name()));
        all
    }

    /// Appends a batch; sleeps while the buffer is full.
    ///
    /// # Errors
    /// Nothing of the batch is stored.
    ///
    /// # Example
    /// ```
    /// # use anchorlog_engine::{Append, BackendChoice, Engine, EngineOptions, WriteBatch};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
    /// # let engine = Engine::open(dir.path(), options)?;
    /// # let queue = engine.queue(b"orders")?;
    /// # let message = |text: &str| {
    /// #     let mut batch = WriteBatch::new();
    /// #     let payload: &[&[u8]] = &[text.as_bytes()];
    /// #     batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload }).map(|_| batch)
    /// # };
    /// // Many appends in flight; one flush of the device may cover them all.
    /// let tickets = [engine.append(message("one")?)?, engine.append(message("two")?)?];
    /// for ticket in tickets {
    ///     ticket.wait()?; // or poll it: a ticket is a future
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append(&self, mut batch: WriteBatch) -> Result<Ticket, AppendError> {
        let outcome = self.append_waiting(&mut batch)?;
        self.inner.announce(outcome.end_lsn);
        Ok(Ticket::new(outcome, Arc::clone(&self.inner.marks), Arc::clone(&self.inner.clock)))
    }

    /// Appends a batch unless the buffer is full. Does not wait, but for a segment to be made where none stands ready.
    ///
    /// # Errors
    /// Nothing of the batch is stored. After [`AppendError::Full`] the same batch may be tried again.
    ///
    /// # Example
    /// ```
    /// # use anchorlog_engine::{Append, AppendError, BackendChoice, Engine, EngineOptions, WriteBatch};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
    /// # let engine = Engine::open(dir.path(), options)?;
    /// # let queue = engine.queue(b"orders")?;
    /// # let message = |text: &str| {
    /// #     let mut batch = WriteBatch::new();
    /// #     let payload: &[&[u8]] = &[text.as_bytes()];
    /// #     batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload }).map(|_| batch)
    /// # };
    /// let mut batch = message("now or never")?;
    /// match engine.try_append(&mut batch) {
    ///     Ok(ticket) => println!("at LSN {}", ticket.outcome().lsn),
    ///     Err(AppendError::Full { .. }) => println!("busy; the batch is as it was"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_append(&self, batch: &mut WriteBatch) -> Result<Ticket, AppendError> {
        batch.seal();
        let _holds = self.inner.hold(std::slice::from_ref(batch))?;
        let outcome = self.inner.append_now(batch)?;
        self.inner.announce(outcome.end_lsn);
        Ok(Ticket::new(outcome, Arc::clone(&self.inner.marks), Arc::clone(&self.inner.clock)))
    }

    /// Appends a batch and sleeps until it is acknowledged. A caller that finds the writer at rest runs the commit itself, which saves two
    /// changes of thread.
    ///
    /// # Errors
    /// The append's own, or the wait's.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    ///
    /// # Example
    /// ```
    /// # use anchorlog_engine::{Append, BackendChoice, Engine, EngineOptions, WriteBatch};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
    /// # let engine = Engine::open(dir.path(), options)?;
    /// # let queue = engine.queue(b"orders")?;
    /// # let message = |text: &str| {
    /// #     let mut batch = WriteBatch::new();
    /// #     let payload: &[&[u8]] = &[text.as_bytes()];
    /// #     batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload }).map(|_| batch)
    /// # };
    /// let outcome = engine.append_and_wait(message("safe")?)?;
    /// assert!(engine.watermarks().durable >= outcome.end_lsn);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append_and_wait(&self, mut batch: WriteBatch) -> Result<AppendOutcome, AppendOrWaitError> {
        let outcome = self.append_waiting(&mut batch)?;
        let inner = &*self.inner;
        let end = outcome.end_lsn;
        if !inner.commit_here(end) {
            inner.signals.commit.reached(end);
        }
        inner.appended(end);
        inner.marks.wait(Watermark::Acked, end, &*inner.clock, None)?;
        Ok(outcome)
    }

    /// Appends batches, in order, under one lock; returns how many: fewer than given when the buffer, what stands ready of segments, or
    /// what may wait for a checkpoint or a release is full (try the rest when [`Watermark::Written`] has moved, or a little later).
    /// Outcomes of those that were appended are added to `out`.
    ///
    /// # Errors
    /// When the first batch not appended never can be (too large, empty), or the log takes nothing any more.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    ///
    /// # Example
    /// ```
    /// # use anchorlog_engine::{Append, BackendChoice, Engine, EngineOptions, Watermark, WriteBatch};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
    /// # let engine = Engine::open(dir.path(), options)?;
    /// # let queue = engine.queue(b"orders")?;
    /// # let message = |text: &str| {
    /// #     let mut batch = WriteBatch::new();
    /// #     let payload: &[&[u8]] = &[text.as_bytes()];
    /// #     batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload }).map(|_| batch)
    /// # };
    /// let mut batches = vec![message("one")?, message("two")?, message("three")?];
    /// let mut outcomes = Vec::new();
    /// let count = engine.append_all(&mut batches, &mut outcomes)?;
    /// assert_eq!((count, outcomes.len()), (3, 3));
    /// engine.wait(Watermark::Acked, outcomes[2].end_lsn, None)?; // one wait for all of them
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append_all(&self, batches: &mut [WriteBatch], out: &mut Vec<AppendOutcome>) -> Result<usize, AppendError> {
        self.append_many(batches, out, false)
    }

    /// [`Engine::append_all`] for a caller who is alone: if the writer is at rest the commit runs on this thread, which saves two changes
    /// of thread, and what was appended is durable on return. It blocks as long as the disk takes: after a commit that took more than
    /// 20 ms the next second is left to the writer's own thread. With asynchronous flush, or more than one commit in flight, it is
    /// [`Engine::append_all`].
    ///
    /// # Errors
    /// As [`Engine::append_all`].
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    ///
    /// # Example
    /// ```
    /// # use anchorlog_engine::{Append, BackendChoice, Engine, EngineOptions, Watermark, WriteBatch};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
    /// # let engine = Engine::open(dir.path(), options)?;
    /// # let queue = engine.queue(b"orders")?;
    /// # let mut batch = WriteBatch::new();
    /// # batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload: &[b"one"] })?;
    /// let mut outcomes = Vec::new();
    /// engine.append_all_here(&mut [batch], &mut outcomes)?;
    /// engine.wait(Watermark::Acked, outcomes[0].end_lsn, None)?; // most likely it is already
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append_all_here(
        &self,
        batches: &mut [WriteBatch],
        out: &mut Vec<AppendOutcome>,
    ) -> Result<usize, AppendError> {
        self.append_many(batches, out, true)
    }

    fn append_many(
        &self,
        batches: &mut [WriteBatch],
        out: &mut Vec<AppendOutcome>,
        here: bool,
    ) -> Result<usize, AppendError> {
        batches.iter_mut().for_each(WriteBatch::seal);
        let inner = &*self.inner;
        let holds = inner.hold(batches)?;
        let mut count = 0;
        let (refused, end) = loop {
            let (refused, end) = inner.append_some(batches, &mut count, out);
            match refused {
                Some(Refused::NoSegment) if count == 0 => {
                    inner.announce(end);
                    inner.make_segment()?;
                }
                other => break (other, end),
            }
        };
        drop(holds);
        if !(here && inner.is_quick() && inner.commit_here(end)) {
            inner.signals.commit.reached(end);
        }
        inner.appended(end);
        match refused {
            // What it appended is being written, and the next segment made.
            None
            | Some(
                Refused::NoSegment
                | Refused::Because(
                    AppendError::Full { .. } | AppendError::Behind { .. } | AppendError::Unreleased { .. },
                ),
            ) => Ok(count),
            Some(Refused::Because(error)) => Err(error),
        }
    }

    fn append_waiting(&self, batch: &mut WriteBatch) -> Result<AppendOutcome, AppendError> {
        batch.seal();
        let inner = &*self.inner;
        let _holds = inner.hold(std::slice::from_ref(batch))?;
        loop {
            match inner.append_now(batch) {
                // The answer is final once what it rests on is.
                Err(AppendError::Rejected(rejection)) => {
                    return match inner.marks.wait(Watermark::Acked, rejection.rests_on, &*inner.clock, None) {
                        Err(WaitError::Fenced(fenced)) => Err(fenced.into()),
                        Err(WaitError::Closing) => Err(AppendError::Closing),
                        Ok(()) | Err(WaitError::TimedOut) => Err(rejection.into()),
                    };
                }
                Err(AppendError::Full { .. }) => {
                    let end = inner.marks.assigned();
                    let written = inner.marks.load(Watermark::Written);
                    let target = Lsn((end.0 + batch.frame_bytes()).saturating_sub(inner.buffer_bytes));
                    inner.signals.commit.reached(end);
                    match inner.marks.wait(
                        Watermark::Written,
                        target.max(written.plus(1)).min(end),
                        &*inner.clock,
                        None,
                    ) {
                        Err(WaitError::Fenced(fenced)) => return Err(fenced.into()),
                        Err(WaitError::Closing) => return Err(AppendError::Closing),
                        Ok(()) | Err(WaitError::TimedOut) => {}
                    }
                }
                // In a run without checkpoints there is nothing to wait for.
                Err(AppendError::Behind { .. }) if !inner.checkpoint.given_up.load(Ordering::SeqCst) => {
                    inner.signals.checkpoint.wake();
                    inner.wait_a_little()?;
                }
                Err(AppendError::Unreleased { .. }) => {
                    inner.signals.housekeeping.wake();
                    inner.wait_a_little()?;
                }
                other => return other,
            }
        }
    }

    /// Sleeps until the watermark is at least `target`.
    ///
    /// # Errors
    /// When that will not happen in this run, or not in time.
    pub fn wait(&self, mark: Watermark, target: Lsn, timeout: Option<Duration>) -> Result<(), WaitError> {
        if mark == Watermark::Dispatched {
            // Nobody else may be dispatching: what is acked, this caller brings to the queues.
            self.inner.marks.wait(Watermark::Acked, target, &*self.inner.clock, timeout)?;
            self.inner.catch_up();
        }
        self.inner.marks.wait(mark, target, &*self.inner.clock, timeout)
    }

    /// Makes everything appended so far durable, also under [`crate::Flush::Async`], and sleeps until it is. Returns the durable end.
    ///
    /// # Errors
    /// When the log is fenced.
    pub fn flush(&self) -> Result<Lsn, WaitError> {
        self.make_durable(self.inner.marks.assigned()).map_err(WaitError::Fenced)
    }

    /// The watermarks now.
    #[must_use]
    pub fn watermarks(&self) -> Watermarks {
        self.inner.marks.all()
    }

    /// Whether this log, if it was seeded as a replica's, is durable up to where its leader's ended then. Before that it may lack what was
    /// acknowledged from this machine earlier.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.inner.marks.load(Watermark::Durable) >= Lsn(self.inner.seeded_to.load(Ordering::SeqCst))
    }

    /// Why the log is fenced, if it is.
    #[must_use]
    pub fn fenced(&self) -> Option<Fenced> {
        self.inner.marks.fenced().cloned()
    }

    /// A descriptor that tells of a watermark's progress.
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// # Example
    /// ```
    /// # use anchorlog_engine::{Append, BackendChoice, Engine, EngineOptions, Watermark, WriteBatch};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
    /// # let engine = Engine::open(dir.path(), options)?;
    /// # let queue = engine.queue(b"orders")?;
    /// # let message = |text: &str| {
    /// #     let mut batch = WriteBatch::new();
    /// #     let payload: &[&[u8]] = &[text.as_bytes()];
    /// #     batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload }).map(|_| batch)
    /// # };
    /// let acked = engine.subscribe(Watermark::Acked)?;
    /// let end = engine.append(message("one")?)?.outcome().end_lsn;
    /// acked.arm(end); // acked.fd() becomes readable: for poll or epoll
    /// engine.wait(Watermark::Acked, end, None)?;
    /// assert!(acked.drain() >= end);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn subscribe(&self, mark: Watermark) -> std::io::Result<Subscription> {
        let watched = (mark == Watermark::Dispatched).then(|| Arc::clone(&self.inner.watch_count));
        let subscription = self.inner.marks.subscribe(mark, watched)?;
        self.inner.signals.dispatch.wake();
        Ok(subscription)
    }

    /// Puts `token` into `watcher` once the queue has a readable message at `from` or later; at once when it has one. One shot.
    ///
    /// # Example
    /// ```
    /// # use anchorlog_engine::{Append, BackendChoice, Engine, EngineOptions, QueueOffset, Watcher, Watermark, WriteBatch};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
    /// # let engine = Engine::open(dir.path(), options)?;
    /// # let queue = engine.queue(b"orders")?;
    /// # let message = |text: &str| {
    /// #     let mut batch = WriteBatch::new();
    /// #     let payload: &[&[u8]] = &[text.as_bytes()];
    /// #     batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload }).map(|_| batch)
    /// # };
    /// let watcher = Watcher::new()?;
    /// engine.watch(&queue, QueueOffset(0), &watcher, 42); // watcher.fd() becomes readable: for poll or epoll
    /// let end = engine.append_and_wait(message("one")?)?.end_lsn;
    /// engine.wait(Watermark::Dispatched, end, None)?;
    /// let mut tokens = Vec::new();
    /// watcher.drain(&mut tokens);
    /// assert_eq!(tokens, [42]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watch(&self, queue: &Queue, from: QueueOffset, watcher: &Arc<Watcher>, token: u64) {
        let inner = &*self.inner;
        inner.watch_count.fetch_add(1, Ordering::SeqCst);
        let fired = inner.queues.state_of(queue).watch(from, watcher, token);
        inner.watch_count.fetch_sub(fired, Ordering::SeqCst);
        // From now on the dispatcher is to look at every message, and at those that it has let lie.
        inner.signals.dispatch.wake();
    }

    /// Takes back a [`Engine::watch`] that has not fired.
    pub fn unwatch(&self, queue: &Queue, watcher: &Arc<Watcher>, token: u64) {
        let gone = self.inner.queues.state_of(queue).unwatch(watcher, token);
        self.inner.watch_count.fetch_sub(gone, Ordering::SeqCst);
    }

    /// Readable offsets of a queue.
    #[must_use]
    pub fn range(&self, queue: &Queue) -> QueueRange {
        self.inner.catch_up();
        self.inner.queues.state_of(queue).range()
    }

    /// Where a queue ended when this engine was opened; 0 for one that came later.
    ///
    /// With asynchronous flush a power failure takes messages that readers have seen, and their offsets are given out again. A reader that
    /// this run has not served, and that knows of offsets beyond this one, has seen such messages: it goes on here, or it would pass over
    /// what was appended since.
    #[must_use]
    pub fn opened_at(&self, queue: &Queue) -> QueueOffset {
        self.inner.queues.state_of(queue).opened_at()
    }

    /// Reads consecutive messages of a queue.
    ///
    /// # Errors
    /// When the message at `from` cannot be read: that one alone, so go on at the offset behind it. A later one that cannot be read ends
    /// the fetch before it.
    ///
    /// # Example
    /// ```
    /// # use anchorlog_engine::{Append, BackendChoice, Engine, EngineOptions, Fetch, FetchStatus, QueueOffset, WriteBatch};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
    /// # let engine = Engine::open(dir.path(), options)?;
    /// # let queue = engine.queue(b"orders")?;
    /// # let message = |text: &str| {
    /// #     let mut batch = WriteBatch::new();
    /// #     let payload: &[&[u8]] = &[text.as_bytes()];
    /// #     batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload }).map(|_| batch)
    /// # };
    /// engine.append_and_wait(message("three anchors")?)?;
    /// let mut next = QueueOffset(0);
    /// loop {
    ///     let found = engine.fetch(&Fetch { messages_max: 100, ..Fetch::new(&queue, next) })?;
    ///     if found.status == FetchStatus::AtEnd {
    ///         break;
    ///     }
    ///     for message in &found.messages {
    ///         println!("{}: {} bytes", message.queue_offset, message.payload().len());
    ///     }
    ///     next = found.next;
    /// }
    /// assert_eq!(next, QueueOffset(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fetch(&self, fetch: &Fetch<'_>) -> Result<FetchOutcome, ReadError> {
        let inner = &*self.inner;
        inner.catch_up();
        let mut entries: Vec<QueueEntry> = Vec::new();
        let (from, count) = (fetch.from, fetch.scan_max);
        let range = if fetch.from_disk {
            inner.queues.copy(fetch.queue, from, count, &mut entries)?
        } else {
            inner.queues.state_of(fetch.queue).copy(from, count, &mut entries).0
        };
        let mut outcome = FetchOutcome { status: FetchStatus::NoMatch, messages: Vec::new(), next: fetch.from, range };
        if fetch.from < range.min || fetch.from >= range.max {
            outcome.status = match fetch.from {
                from if from < range.min => FetchStatus::BelowMin,
                from if from == range.max => FetchStatus::AtEnd,
                _ => FetchStatus::BeyondMax,
            };
            return Ok(outcome);
        }
        if entries.is_empty() && count > 0 {
            outcome.status = FetchStatus::NeedsDisk;
            return Ok(outcome);
        }
        // Links first, then all that they lead to, in the order of the log.
        let found = inner.own_records(fetch, entries);
        let links = found.iter().filter_map(|own| own.origin);
        let origins = inner.reader.gather(links.map(|origin| (origin.lsn, origin.size)), fetch.from_disk);
        for Own { entry, bytes, origin } in found {
            if let Some(bytes) = bytes {
                match bytes.and_then(|bytes| inner.message(fetch, &entry, outcome.next, bytes, origin, &origins)) {
                    Ok(Some(message)) => outcome.messages.push(message),
                    Ok(None) if outcome.messages.is_empty() => {
                        outcome.status = FetchStatus::NeedsDisk;
                        outcome.next = fetch.from;
                        return Ok(outcome);
                    }
                    // Released while it was looked up: the queue begins further on now.
                    Err(ReadError::NotFound(_))
                        if outcome.messages.is_empty() && !inner.reader.is_retained(entry.lsn) =>
                    {
                        outcome.status = FetchStatus::BelowMin;
                        outcome.range = inner.queues.state_of(fetch.queue).range();
                        return Ok(outcome);
                    }
                    Err(error) if outcome.next == fetch.from => return Err(error),
                    Ok(None) | Err(_) => break,
                }
            }
            outcome.next = QueueOffset(outcome.next.0 + 1);
        }
        if !outcome.messages.is_empty() {
            outcome.status = FetchStatus::Found;
        }
        Ok(outcome)
    }

    /// Reads the message whose own LSN is `lsn`. May read from the disk.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] when no visible, retained message begins there.
    ///
    /// # Example
    /// ```
    /// # use anchorlog_engine::{Append, BackendChoice, Engine, EngineOptions, Lsn, ReadError, WriteBatch};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
    /// # let engine = Engine::open(dir.path(), options)?;
    /// # let queue = engine.queue(b"orders")?;
    /// # let message = |text: &str| {
    /// #     let mut batch = WriteBatch::new();
    /// #     let payload: &[&[u8]] = &[text.as_bytes()];
    /// #     batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload }).map(|_| batch)
    /// # };
    /// let lsn = engine.append_and_wait(message("three anchors")?)?.first.lsn;
    /// assert_eq!(engine.read(lsn)?.payload(), b"three anchors");
    /// assert!(matches!(engine.read(Lsn(lsn.0 + 8)), Err(ReadError::NotFound(_))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(&self, lsn: Lsn) -> Result<Message, ReadError> {
        let inner = &*self.inner;
        inner.catch_up();
        if lsn >= inner.marks.load(Watermark::Dispatched) {
            return Err(ReadError::NotFound(lsn));
        }
        inner.message_at(lsn, |_, _, _| true)?.ok_or(ReadError::NotFound(lsn))
    }

    /// Whether [`Engine::read`] of this LSN, or a refusal of it, needs no disk now: for threads that must not wait. False for links.
    #[must_use]
    pub fn is_in_memory(&self, lsn: Lsn) -> bool {
        self.inner.reader.is_in_memory(lsn)
    }

    /// The messages that have a key, as far as they are visible and retained: of queues that are not dropped, links by their own keys.
    /// May read from the disk. A message that cannot be read is left out; [`Engine::damaged_places`] tells of it.
    ///
    /// Every answer is exact, whatever other keys there are. The index that it comes from costs eight bytes of memory for a key
    /// until the next checkpoint; without checkpoints all of them stay there.
    ///
    /// # Errors
    /// When the index has to be read from the disk and cannot be.
    ///
    /// # Example
    /// ```
    /// # use anchorlog_engine::{Append, BackendChoice, Engine, EngineOptions, KeyOrder, KeyQuery, WriteBatch};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
    /// # let engine = Engine::open(dir.path(), options)?;
    /// # let queue = engine.queue(b"orders")?;
    /// let mut batch = WriteBatch::new();
    /// let append = Append { queue: &queue, tag: 0, keys: &[b"order-17", b"customer-4"], attributes: b"", payload: &[b"three anchors"] };
    /// batch.append(&append)?;
    /// let outcome = engine.append_and_wait(batch)?;
    /// let found = engine.find(&KeyQuery::new(b"order-17"))?;
    /// assert_eq!(found[0].payload(), b"three anchors");
    ///
    /// let time_ms = found[0].store_time_ms;
    /// let earlier = KeyQuery { to_ms: time_ms - 1, order: KeyOrder::OldestFirst, ..KeyQuery::new(b"customer-4") };
    /// assert!(engine.find(&earlier)?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn find(&self, query: &KeyQuery<'_>) -> Result<Vec<Message>, ReadError> {
        let inner = &*self.inner;
        inner.catch_up();
        let visible = inner.marks.start()..inner.marks.load(Watermark::Dispatched);
        inner.keys.find(query, visible, inner)
    }

    /// What the index keeps of a key: 32 bits, different in every log. For [`Engine::recent_keys`].
    #[must_use]
    pub fn key_hash(&self, key: &[u8]) -> u32 {
        self.inner.keys.hash(key)
    }

    /// The keys of messages that were stored at `since_ms` or later, for whoever keeps a window over them: where each message lies, and the
    /// [`Engine::key_hash`] of one of its keys, along the log. Of more than `count_max` the newest are returned.
    ///
    /// This reads the index and not the log: of what a checkpoint has written about four bytes a key, and at most
    /// [`KEY_RUN_FULL`](crate::limits::KEY_RUN_FULL) keys that are older; of the log it reads a few dozen headers, to find where
    /// that time begins. In memory it takes sixteen bytes a key.
    ///
    /// # Errors
    /// When the index has to be read from the disk and cannot be.
    pub fn recent_keys(&self, since_ms: u64, count_max: usize) -> Result<Vec<(Lsn, u32)>, ReadError> {
        let inner = &*self.inner;
        inner.catch_up();
        let visible = inner.marks.start()..inner.marks.load(Watermark::Dispatched);
        inner.keys.recent(since_ms, count_max, &visible, inner)
    }

    /// The table entries that refer to the message at `origin`, with their keys, as they are visible. May read from the disk.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn entries_about(&self, origin: Lsn) -> Result<Vec<(Vec<u8>, TableEntry)>, ReadError> {
        let inner = &*self.inner;
        inner.catch_up();
        let mut found = Vec::new();
        for (_, referrer) in inner.table.references(origin..origin.plus(1))? {
            let Referrer::Entry(key) = referrer else { continue };
            if let Some(entry) = inner.table.get(&key)?.filter(|entry| entry.target == Some(origin)) {
                found.push((key, entry));
            }
        }
        Ok(found)
    }

    /// What a link or a table entry refers to the message at `lsn` by. May read from the disk.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn reference(&self, lsn: Lsn) -> Result<MessageRef, ReadError> {
        let inner = &*self.inner;
        inner.catch_up();
        if lsn >= inner.marks.load(Watermark::Dispatched) {
            return Err(ReadError::NotFound(lsn));
        }
        let (_, entry) = inner.reader.locate(lsn)?;
        let bytes = inner.reader.record(lsn, entry.len, true)?.ok_or(ReadError::NotFound(lsn))?;
        let record = record::parse(&bytes).map_err(|error| inner.reader.damage(lsn, error.to_string()))?;
        let origin = match record.kind {
            RecordKind::Append => Some(Origin { lsn, size: entry.len }),
            _ => record.origin(lsn),
        };
        let origin = origin.ok_or(ReadError::NotFound(lsn))?;
        Ok(MessageRef { lsn, origin, opening: inner.queues.opening() })
    }

    /// The same from what was kept of it: the LSN of a message that is no link, and the bytes of its record. Reads nothing, so it is only
    /// as right as what it is given: a link by a wrong length cannot be read.
    #[must_use]
    pub fn reference_to(&self, origin: Lsn, record_bytes: u32) -> MessageRef {
        let origin = Origin { lsn: origin, size: record_bytes };
        MessageRef { lsn: origin.lsn, origin, opening: self.inner.queues.opening() }
    }

    /// The clock that it was opened with.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// The table's entry of this key, as far as it is acknowledged.
    ///
    /// # Errors
    /// When it has to be read from the disk and cannot be.
    pub fn get(&self, key: &[u8]) -> Result<Option<TableEntry>, ReadError> {
        self.inner.catch_up();
        self.inner.table.get(key)
    }

    /// Whether [`Engine::get`] of this key needs no disk now: for threads that must not wait.
    #[must_use]
    pub fn knows(&self, key: &[u8]) -> bool {
        self.inner.table.knows(key)
    }

    /// The table as it is now, for more than one look.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.inner.catch_up();
        let dispatched = self.inner.marks.load(Watermark::Dispatched);
        Snapshot::new(Arc::clone(&self.inner.table), dispatched)
    }

    /// The smallest readable offset whose store time is at least `store_time_ms`; the queue's end when there is none.
    ///
    /// # Errors
    /// When entries have to be read from the disk and cannot be.
    pub fn offset_by_time(&self, queue: &Queue, store_time_ms: u64) -> Result<QueueOffset, ReadError> {
        self.inner.catch_up();
        self.inner.queues.offset_by_time(queue, store_time_ms)
    }

    /// The store time of one readable message, in milliseconds since 1970.
    ///
    /// # Errors
    /// When its entry has to be read from the disk and cannot be.
    pub fn store_time(&self, queue: &Queue, offset: QueueOffset) -> Result<Option<u64>, ReadError> {
        self.inner.catch_up();
        Ok(self.inner.queues.get(queue, offset)?.map(|entry| entry.store_time_ms))
    }

    /// Frees whole segments below `lsn`, as far as no pin holds them. The files are recycled in the background.
    ///
    /// # Errors
    /// When `lsn` is beyond what is acknowledged, or the log is fenced.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    ///
    /// # Example
    /// ```
    /// # use anchorlog_engine::{Append, BackendChoice, Engine, EngineOptions, WriteBatch};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
    /// # let engine = Engine::open(dir.path(), options)?;
    /// # let queue = engine.queue(b"orders")?;
    /// # let message = |text: &str| {
    /// #     let mut batch = WriteBatch::new();
    /// #     let payload: &[&[u8]] = &[text.as_bytes()];
    /// #     batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload }).map(|_| batch)
    /// # };
    /// let end = engine.append_and_wait(message("done with")?)?.end_lsn;
    /// let outcome = engine.release(end)?;
    /// assert_eq!(outcome.segments, 0, "the segment that is being written stays");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn release(&self, lsn: Lsn) -> Result<ReleaseOutcome, ReleaseError> {
        let inner = &*self.inner;
        if let Some(fenced) = inner.marks.fenced() {
            return Err(fenced.clone().into());
        }
        inner.catch_up();
        let acked = inner.marks.acked();
        if lsn > acked {
            return Err(ReleaseError::BeyondEnd { asked: lsn, acked });
        }
        let (geometry, from) = (inner.segments.geometry(), inner.marks.start());
        let start = {
            let mut retention = inner.retention.lock().expect(LOCKED);
            retention.released = retention.released.max(lsn);
            let (durable, dispatched) = (inner.marks.load(Watermark::Durable), inner.marks.load(Watermark::Dispatched));
            retention.target(geometry, from, dispatched.min(durable), inner.marks.assigned(), None)
        };
        inner.signals.housekeeping.wake();
        Ok(ReleaseOutcome { start, segments: start.since(from) / geometry.data_bytes() })
    }

    /// Keeps everything from `lsn` on until the pin of this name is moved, or removed with `None`; returns from where on that holds: what
    /// was on its way out already goes. In a replica it holds nothing: its leader decides.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    ///
    /// # Example
    /// ```
    /// # use anchorlog_engine::{Append, BackendChoice, Engine, EngineOptions, WriteBatch};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
    /// # let engine = Engine::open(dir.path(), options)?;
    /// # let queue = engine.queue(b"orders")?;
    /// # let message = |text: &str| {
    /// #     let mut batch = WriteBatch::new();
    /// #     let payload: &[&[u8]] = &[text.as_bytes()];
    /// #     batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload }).map(|_| batch)
    /// # };
    /// let lsn = engine.append_and_wait(message("not yet shipped")?)?.lsn;
    /// engine.pin("shipper", Some(lsn)); // whatever is released, this and what follows stays
    /// engine.pin("shipper", None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pin(&self, name: &str, lsn: Option<Lsn>) -> Lsn {
        let mut retention = self.inner.retention.lock().expect(LOCKED);
        match lsn {
            Some(lsn) => drop(retention.pins.insert(name.to_owned(), lsn)),
            None => drop(retention.pins.remove(name)),
        }
        lsn.unwrap_or(Lsn::ZERO).max(retention.leaving).max(self.inner.marks.start())
    }

    /// Keeps the messages of a queue from `offset` on readable through it, until the pin of this name is moved, or removed with
    /// `None`: those in segments that are released survive there. A pin does not outlive the engine; set them before
    /// [`Engine::start_retention`].
    ///
    /// # Panics
    /// When another thread panicked inside the engine, or the queue is of another one.
    pub fn pin_queue(&self, name: &str, queue: &Queue, offset: Option<QueueOffset>) {
        let _ours = self.inner.queues.state_of(queue);
        let mut retention = self.inner.retention.lock().expect(LOCKED);
        let key = (name.to_owned(), queue.id());
        match offset {
            Some(offset) => drop(retention.queue_pins.insert(key, offset)),
            None => drop(retention.queue_pins.remove(&key)),
        }
    }

    /// Lets segments be released, where [`crate::EngineOptions::with_retention_held`] held them.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    pub fn start_retention(&self) {
        self.inner.retention.lock().expect(LOCKED).held = false;
        self.inner.signals.housekeeping.wake();
    }

    /// What retention would release if it could, and what stands against it.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    #[must_use]
    pub fn retention(&self) -> RetentionInfo {
        let inner = &*self.inner;
        let retention = inner.retention.lock().expect(LOCKED);
        let retain_bytes = inner.info.options.retain_bytes;
        crate::retention::info(&retention, &inner.segments, &inner.marks, &inner.survivors, retain_bytes)
    }

    /// Refuses further appends, makes everything durable, stops the threads and releases the directory.
    ///
    /// # Errors
    /// When the log is fenced: what was not acknowledged may be lost.
    ///
    /// # Example
    /// ```
    /// # use anchorlog_engine::{Append, BackendChoice, Engine, EngineOptions, WriteBatch};
    /// # let dir = tempfile::tempdir()?;
    /// # let options = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
    /// # let engine = Engine::open(dir.path(), options)?;
    /// # let queue = engine.queue(b"orders")?;
    /// # let message = |text: &str| {
    /// #     let mut batch = WriteBatch::new();
    /// #     let payload: &[&[u8]] = &[text.as_bytes()];
    /// #     batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload }).map(|_| batch)
    /// # };
    /// let _in_flight = engine.append(message("last words")?)?;
    /// engine.close()?; // it is durable now, whatever the flush mode
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(mut self) -> Result<(), WaitError> {
        self.shut_down().map_err(WaitError::Fenced)
    }

    fn shut_down(&mut self) -> Result<(), Fenced> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        let inner = &*self.inner;
        inner.marks.set_closing();
        let outcome = self.make_durable(inner.marks.assigned()).and_then(|_| {
            let end = inner.housekeeper.lock().unwrap_or_else(PoisonError::into_inner).last_mark();
            self.make_durable(end)
        });
        inner.housekeeper.lock().unwrap_or_else(PoisonError::into_inner).last_side_block();
        inner.stop.set();
        inner.signals.commit.wake();
        inner.signals.dispatch.wake();
        inner.signals.housekeeping.wake();
        inner.signals.checkpoint.wake();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a driver thread panicked");
            }
        }
        self.inner.housekeeper.lock().unwrap_or_else(PoisonError::into_inner).abandon();
        self.inner.checkpointer.lock().unwrap_or_else(PoisonError::into_inner).finish_now();
        outcome.map(drop)
    }

    /// Runs every machine once; true when nothing is left to do but wait for appends or time. For engines driven by hand.
    ///
    /// # Panics
    /// When another thread panicked inside the engine.
    #[cfg(feature = "sim")]
    pub fn step(&self) -> bool {
        let inner = &*self.inner;
        let committed = inner.committer.lock().expect(LOCKED).step(&*inner.clock, Wait::No);
        let dispatched = inner.dispatcher.lock().expect(LOCKED).step();
        let due = inner.housekeeper.lock().expect(LOCKED).step();
        let checkpoint_due = inner.checkpointer.lock().expect(LOCKED).step();
        let due = due.min(checkpoint_due);
        matches!(committed, Step::Idle { .. } | Step::Fenced) && !dispatched && !due.is_zero()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Driven by hand, dropping is the death of the process: nothing more happens to the disk.
        if self.threads.is_empty() {
            return;
        }
        if let Err(fenced) = self.shut_down() {
            tracing::warn!(%fenced, "closed without making the last appends durable");
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("dir", &self.inner.info.dir)
            .field("marks", &self.inner.marks.all())
            .finish_non_exhaustive()
    }
}

/// What stands at an entry of a queue.
struct Own {
    entry: QueueEntry,
    /// Its record; none where nobody asked for it.
    bytes: Option<Result<Option<Vec<u8>>, ReadError>>,
    /// Where it leads, if it is a link.
    origin: Option<Origin>,
}

/// Keys that are kept in the head view for batches on their way; given back when dropped.
struct Holds<'a> {
    sequencer: &'a Mutex<Sequencer>,
    held: Vec<Held>,
}

impl Drop for Holds<'_> {
    fn drop(&mut self) {
        if !self.held.is_empty() {
            self.sequencer.lock().unwrap_or_else(PoisonError::into_inner).release(&self.held);
        }
    }
}

/// The queues that a batch drops, with where it says so.
fn dropped_queues(batch: &WriteBatch, outcome: &AppendOutcome) -> Vec<(u32, Lsn)> {
    let records = batch.records.iter().zip(outcome.positions());
    let dropped = records.filter(|(record, _)| record.kind == RecordKind::DropQueue);
    dropped.filter_map(|(record, position)| Some((record.queue_id?, position.lsn))).collect()
}

/// A new queue's place at the head of the log.
fn register(sequencer: &mut Sequencer, queue: &Queue) {
    debug_assert_eq!(sequencer.queues.len(), queue.id() as usize);
    sequencer.queues.push(QueueHead::default());
}

/// Brings queues and table up to what was acknowledged when this was called.
fn catch_up(dispatcher: &Mutex<Dispatcher>, marks: &Marks) {
    let acked = marks.acked();
    while marks.load(Watermark::Dispatched) < acked && dispatcher.lock().expect(LOCKED).step() {}
}

impl Inner {
    fn append_now(&self, batch: &WriteBatch) -> Result<AppendOutcome, AppendError> {
        let wall_ms = self.clock.wall_ms();
        let outcome = loop {
            let mut sequencer = self.sequencer.lock().expect(LOCKED);
            match sequencer.append(batch, wall_ms) {
                Ok(outcome) => {
                    sequencer.publish();
                    break outcome;
                }
                Err(Refused::Because(error)) => return Err(error),
                Err(Refused::NoSegment) => {
                    drop(sequencer);
                    self.make_segment()?;
                }
            }
        };
        self.drop_queues(dropped_queues(batch, &outcome));
        Ok(outcome)
    }

    /// Appends batches from the `count`-th on, until one is refused; says why, and where the log ends then.
    fn append_some(
        &self,
        batches: &[WriteBatch],
        count: &mut usize,
        out: &mut Vec<AppendOutcome>,
    ) -> (Option<Refused>, Lsn) {
        let wall_ms = self.clock.wall_ms();
        let mut dropped = Vec::new();
        let mut refused = None;
        let mut sequencer = self.sequencer.lock().expect(LOCKED);
        while refused.is_none()
            && let Some(batch) = batches.get(*count)
        {
            match sequencer.append(batch, wall_ms) {
                Ok(outcome) => {
                    dropped.extend(dropped_queues(batch, &outcome));
                    out.push(outcome);
                    *count += 1;
                }
                Err(error) => refused = Some(error),
            }
        }
        sequencer.publish();
        let end = sequencer.next;
        drop(sequencer);
        self.drop_queues(dropped);
        (refused, end)
    }

    /// Makes the segment that an append found missing: those who make them ahead were too slow. Without room for it the append that is
    /// tried again learns why.
    fn make_segment(&self) -> Result<(), AppendError> {
        match self.segments.make_next(self.room.prepared_end()) {
            Err(error) if !is_full(&error) => {
                let lsn = self.marks.load(Watermark::Durable);
                let fenced = Fenced { lsn, what: "making a segment".to_owned(), source: Arc::new(error) };
                self.marks.set_fenced(fenced.clone());
                Err(fenced.into())
            }
            _ => Ok(()),
        }
    }

    /// Sleeps before an append that others must make room for is tried again.
    fn wait_a_little(&self) -> Result<(), AppendError> {
        let retry = Some(limits::BEHIND_RETRY);
        match self.marks.wait(Watermark::Written, Lsn::MAX, &*self.clock, retry) {
            Err(WaitError::Fenced(fenced)) => Err(fenced.into()),
            Err(WaitError::Closing) => Err(AppendError::Closing),
            Ok(()) | Err(WaitError::TimedOut) => Ok(()),
        }
    }

    /// Fetches what the batches' preconditions ask for, and keeps it known until the holds are dropped.
    fn hold(&self, batches: &[WriteBatch]) -> Result<Holds<'_>, AppendError> {
        let mut holds = Holds { sequencer: &self.sequencer, held: Vec::new() };
        if batches.iter().all(|batch| batch.preconditions.is_empty()) {
            return Ok(holds);
        }
        let keys: Vec<_> = {
            let mut sequencer = self.sequencer.lock().expect(LOCKED);
            batches.iter().flat_map(|batch| sequencer.hold(batch)).collect()
        };
        let missing: Vec<bool> = keys.iter().map(|(_, missing)| *missing).collect();
        holds.held = keys.into_iter().map(|(key, _)| Held { key, fetched: None }).collect();
        for (held, missing) in holds.held.iter_mut().zip(missing) {
            if missing {
                // From the hold on every change shows in the head view, so what is found here is the newest there was before it.
                let entry = self.table.get(&held.key).map_err(|error| AppendError::Unjudged(Arc::new(error)))?;
                let (latest, value) = entry.map_or((None, None), |entry| (Some(entry.lsn), Some(entry.value)));
                held.fetched = Some(Fetched { latest, value });
            }
        }
        self.sequencer.lock().expect(LOCKED).fill(&holds.held);
        Ok(holds)
    }

    /// Lets the names of dropped queues stand for their next incarnations.
    fn drop_queues(&self, dropped: Vec<(u32, Lsn)>) {
        for (id, lsn) in dropped {
            let queue = self.queues.by_id(id);
            let next = self.queues.drop_incarnation(&queue, |queue| {
                register(&mut self.sequencer.lock().expect(LOCKED), queue);
            });
            match next {
                // This record is what says that there was an incarnation before.
                Ok(next) => {
                    let mut sequencer = self.sequencer.lock().expect(LOCKED);
                    let head = &mut sequencer.queues[next.id() as usize];
                    head.latest = head.latest.max(Some(lsn));
                }
                Err(error) => {
                    tracing::error!(%error, "a dropped queue's name cannot be used again before the next open")
                }
            }
        }
    }

    /// Wakes everybody who waits for the log to reach `end`.
    fn announce(&self, end: Lsn) {
        self.signals.commit.reached(end);
        self.appended(end);
    }

    /// Runs the commit up to `end` on this thread, unless somebody else does or it is not for callers to run.
    fn commit_here(&self, end: Lsn) -> bool {
        if !self.runs_inline {
            return false;
        }
        let Ok(mut committer) = self.committer.try_lock() else { return false };
        let begun = self.clock.monotonic();
        while self.marks.load(Watermark::Durable) < end {
            if committer.step(&*self.clock, Wait::No) == Step::Fenced {
                break;
            }
        }
        drop(committer);
        let ended = self.clock.monotonic();
        if ended.saturating_sub(begun) > limits::COMMIT_HERE_MAX {
            self.slow_at_ms.store(u64::try_from(ended.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        self.signals.dispatch.reached(self.marks.acked());
        true
    }

    /// Whether commits on callers' threads have taken little time lately.
    fn is_quick(&self) -> bool {
        let slow_at = Duration::from_millis(self.slow_at_ms.load(Ordering::Relaxed));
        slow_at.is_zero() || self.clock.monotonic().saturating_sub(slow_at) > limits::COMMIT_HERE_PAUSE
    }

    /// Wakes those, beside the writer, who wait for the log to reach `end`.
    fn appended(&self, end: Lsn) {
        self.signals.housekeeping.reached(end);
        self.signals.checkpoint.reached(end);
        if self.info.options.flush != Flush::Sync {
            self.signals.dispatch.reached(end);
        }
        // What is not in the queues stays in memory: an appender that outruns the dispatcher does some of its work.
        if end.since(self.marks.load(Watermark::Dispatched)) > self.info.options.cache_bytes / 2 {
            self.catch_up();
        }
    }

    fn catch_up(&self) {
        catch_up(&self.dispatcher, &self.marks);
    }

    /// The records of entries, as many as a fetch may bring: with what links lead to. It ends with the first that cannot be had.
    fn own_records(&self, fetch: &Fetch<'_>, entries: Vec<QueueEntry>) -> Vec<Own> {
        let (mut found, mut count, mut bytes) = (Vec::new(), 0, 0);
        for entry in entries {
            if entry.size == 0 || !(fetch.matches)(entry.tag) {
                found.push(Own { entry, bytes: None, origin: None });
                continue;
            }
            if count > 0 && (count >= fetch.messages_max || bytes + entry.size as usize > fetch.bytes_max) {
                break;
            }
            let own = self.reader.record(entry.lsn, entry.size, fetch.from_disk);
            let record = own.as_ref().ok().and_then(Option::as_ref).and_then(|own| record::parse(own).ok());
            let origin = record.and_then(|record| record.origin(entry.lsn));
            // A link shows only now how much it brings.
            let size = entry.size as usize + origin.map_or(0, |origin| origin.size as usize);
            if count > 0 && bytes + size > fetch.bytes_max {
                break;
            }
            (count, bytes) = (count + 1, bytes + size);
            let ends = !matches!(own, Ok(Some(_)));
            found.push(Own { entry, bytes: Some(own), origin });
            if ends {
                break;
            }
        }
        found
    }

    fn message(
        &self,
        fetch: &Fetch<'_>,
        entry: &QueueEntry,
        offset: QueueOffset,
        bytes: Option<Vec<u8>>,
        origin: Option<Origin>,
        origins: &Gathered,
    ) -> Result<Option<Message>, ReadError> {
        let Some(bytes) = bytes else { return Ok(None) };
        let origin = match origin {
            None => None,
            Some(origin) => match origins.get(origin.lsn) {
                Some(bytes) => Some((origin.lsn, bytes)),
                // Alone, it says why it cannot be had.
                None => match self.reader.record(origin.lsn, origin.size, fetch.from_disk)? {
                    Some(bytes) => Some((origin.lsn, bytes)),
                    None => return Ok(None),
                },
            },
        };
        let message = Message::new(Arc::clone(&fetch.queue.name), fetch.queue.opening, offset, entry, bytes, origin);
        message.map(Some).map_err(|error| self.reader.damage(entry.lsn, error.to_string()))
    }

    /// The message at `lsn`, if it is one and `is_wanted` by its record, its queue and its store time.
    fn message_at(
        &self,
        lsn: Lsn,
        is_wanted: impl FnOnce(&Record<'_>, Option<&Queue>, u64) -> bool,
    ) -> Result<Option<Message>, ReadError> {
        let (header, entry) = self.reader.locate(lsn)?;
        let bytes = self.reader.record(lsn, entry.len, true)?.ok_or(ReadError::NotFound(lsn))?;
        let record = record::parse(&bytes).map_err(|error| self.reader.damage(lsn, error.to_string()))?;
        if !matches!(record.kind, RecordKind::Append | RecordKind::Link) {
            return Ok(None);
        }
        // A message may survive its queue, and everything in the log that spoke of it.
        let queue = self.queues.find_incarnation(record.name, record.incarnation);
        if !is_wanted(&record, queue.as_ref(), header.store_time_ms) {
            return Ok(None);
        }
        let found = QueueEntry { lsn, size: entry.len, tag: record.tag, store_time_ms: header.store_time_ms };
        let origin = match self.payload(record.origin(lsn), true)? {
            Payload::Origin(lsn, bytes) => Some((lsn, bytes)),
            Payload::Own | Payload::OnDisk => None,
        };
        let (name, opening) = (Arc::from(record.name), self.queues.opening());
        let message = Message::new(name, opening, entry.queue_offset, &found, bytes, origin);
        message.map(Some).map_err(|error| self.reader.damage(lsn, error.to_string()))
    }

    /// The bytes of a link's origin, where there is one.
    fn payload(&self, origin: Option<Origin>, from_disk: bool) -> Result<Payload, ReadError> {
        let Some(origin) = origin else { return Ok(Payload::Own) };
        let bytes = self.reader.record(origin.lsn, origin.size, from_disk)?;
        Ok(bytes.map_or(Payload::OnDisk, |bytes| Payload::Origin(origin.lsn, bytes)))
    }
}

impl Records for Inner {
    type Message = Message;

    fn store_time_ms(&self, lsn: Lsn) -> Result<u64, ReadError> {
        self.reader.locate(lsn).map(|(header, _)| header.store_time_ms)
    }

    fn message(&self, lsn: Lsn, query: &KeyQuery<'_>) -> Result<Option<(Message, usize)>, ReadError> {
        let message = self.message_at(lsn, |record, queue, store_time_ms| {
            (query.from_ms..=query.to_ms).contains(&store_time_ms)
                && record::keys(record.keys).any(|key| key == query.key)
                && queue.is_some_and(|queue| !self.queues.state(queue.id()).current_mark().dropped)
        })?;
        Ok(message.map(|message| {
            let bytes = message.size();
            (message, bytes)
        }))
    }
}

type Chosen = (Arc<dyn IoBackend>, Option<Probe>, String);

fn choose_backend(dir: &Path, options: &EngineOptions, clock: &dyn Clock) -> Result<Chosen, OpenError> {
    let io_error = |what| move |source| OpenError::Io { what, path: dir.to_path_buf(), source };
    // The probe writes in the directory, so it must be there.
    ThreadsBackend::new().create_dir_all(dir).map_err(io_error("creating"))?;
    let (backend, probe) =
        probe::choose(dir, options.backend, options.remeasure, clock).map_err(io_error("probing"))?;
    let line = format!("{}: {}", probe.kind, probe.reason);
    Ok((backend, Some(probe), line))
}
