//! The steps of opening, in the order that keeps them safe.
//!
//! 1. The directory is locked.
//! 2. The manifest says what must be there.
//! 3. The log is read and its end found; nothing of the log is written or removed so far, so a refusal changes nothing of it. The derived
//!    store may change at any time: it is only what the log says.
//! 4. The new run's epoch becomes durable in the manifest.
//! 5. Only then does anything get appended: first the history that names it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::pace::CheckpointPace;
use crate::checkpoint::{self, CheckpointError, Frozen, Retained, rows};
use crate::commit::room::Room;
use crate::commitlog::frame;
use crate::commitlog::manifest::{MANIFEST_NAME, Manifest, ManifestError};
use crate::commitlog::record::{self, Origin};
use crate::commitlog::segment::{Geometry, SegmentHeader, base_of, file_name};
use crate::commitlog::segments::{HALF_MADE_SUFFIX, Segments, base_of_sparse, sparse_name};
use crate::consume_queue::{QueueEntry, Queues};
use crate::epoch::{EpochHistory, EpochStart};
use crate::error::{OpenError, ReadError};
use crate::fault::Fault;
use crate::io::{AlignedBuf, DirLock, IO_ALIGN, IoBackend, IoFile, OpenMode, is_full};
use crate::key_index::KeyIndex;
use crate::limits;
use crate::options::{Drivers, EngineOptions};
use crate::recovery::cases::property;
use crate::recovery::{Found, Recovery};
use crate::replica::{self, Promise, Role, SEED_NAME, SIDE_NAME, SideBlock};
use crate::retention::survivors::List;
use crate::retention::{Survivors, survivors};
use crate::store::{self, Store, StoreTable};
use crate::table::Visible;
use crate::units::{Epoch, Lsn, QueueOffset, align_down, align_up, to_u64, to_usize};

const LOCK_NAME: &str = "LOCK";

/// What opening found and made.
pub(crate) struct Opened {
    pub(crate) lock: Box<dyn DirLock>,
    pub(crate) manifest: Manifest,
    pub(crate) epoch: Epoch,
    /// Whether this open begins an epoch (a faulty variant does not).
    pub(crate) new_epoch: bool,
    pub(crate) segments: Arc<Segments>,
    pub(crate) room: Arc<Room>,
    pub(crate) found: Found,
    /// Bytes of the last block that are on disk already.
    pub(crate) tail_block: Vec<u8>,
    pub(crate) derived: Derived,
    /// What a replica's side block says now.
    pub(crate) side: Option<SideBlock>,
}

/// What is made of the log: by the last checkpoint, and by what the log says since.
pub(crate) struct Derived {
    pub(crate) queues: Arc<Queues>,
    pub(crate) table: Arc<Visible>,
    pub(crate) keys: Arc<KeyIndex>,
    pub(crate) store: Option<Store>,
    /// How fast that one writes.
    pub(crate) pace: Arc<CheckpointPace>,
    /// The last checkpoint goes up to here.
    pub(crate) applied: Lsn,
    /// No queue of it begins before.
    released: Lsn,
    /// Queues that are not as the checkpoint has them.
    pub(crate) changed: Vec<u32>,
    pub(crate) survivors: Arc<Survivors>,
    /// The log says that it begins here: at the manifest's start, or behind it when that was not gone through with.
    pub(crate) log_start: Lsn,
    /// Whether it goes on from a checkpoint.
    is_restored: bool,
}

pub(crate) fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> OpenError + use<'a> {
    move |source| OpenError::Io { what, path: path.to_path_buf(), source }
}

/// Opens or creates the log in `dir`. `store_id` is used when it is created.
pub(crate) fn open(
    backend: &Arc<dyn IoBackend>,
    dir: &Path,
    options: &EngineOptions,
    store_id: u128,
) -> Result<Opened, OpenError> {
    let io: &dyn IoBackend = &**backend;
    io.create_dir_all(dir).map_err(io_error("creating", dir))?;
    let lock = lock(io, dir)?;
    let names = io.list(dir).map_err(io_error("listing", dir))?;
    if names.iter().any(|name| name == SEED_NAME) {
        return Err(OpenError::HalfSeeded { dir: dir.to_path_buf() });
    }
    let names = match replica::resume_cut(io, dir)? {
        Some(_) => io.list(dir).map_err(io_error("listing", dir))?,
        None => names,
    };
    let mut manifest = load_manifest(io, dir, &names, options, store_id)?;
    options.validate_for(manifest.geometry.segment_bytes)?;
    check_file_bytes(io, manifest.geometry).map_err(io_error("opening", dir))?;
    let (mut files, mut sparse) = open_segments(io, dir, &names, &manifest)?;
    let last = manifest.history.last().map_or(Epoch { term: 1, run: 0 }, |last| last.epoch);
    let epoch = next_epoch(options, last)?;
    if options.role != Role::Replica {
        check_promise(io, dir, epoch.term)?;
    }
    let store = |manifest: &Manifest| {
        let stored = manifest.store(io, dir, sync_names(options));
        stored.map_err(|(path, source)| OpenError::Io { what: "writing", path, source })
    };

    let side = load_side(io, dir, &manifest)?;
    let (derived, found) = read_log(backend, dir, options, &names, &manifest, (&files, &sparse), side)?;
    remove_leftovers(io, dir, &names, manifest.start)?;
    name_dense(io, dir, &names, manifest.start, sync_names(options))?;
    drop_unreachable(io, dir, manifest.geometry, found.end, &mut files)?;
    let tail_block = read_tail_block(dir, &files, manifest.geometry, found.end)?;
    write_again(dir, &files, manifest.geometry, found.durable_lsn.min(found.end), found.end)?;
    let seeded_to = side.map_or(Lsn::ZERO, |side| side.seeded_to);
    if seeded_to > Lsn::ZERO && seeded_to <= found.visible {
        // A store from before that has not what the survivors say, and must not be believed once the side block forgets them.
        let path = dir.join(store::FILE_NAME);
        store::remove(io, dir).map_err(|error| io_error("removing", &path)(io::Error::other(error.to_string())))?;
        io.sync_dir(dir).map_err(io_error("syncing", dir))?;
    }
    // What says that nothing survives there is durable now, and not before.
    if seeded_to <= found.visible {
        remove_emptied(io, dir, &derived.survivors, &mut sparse)?;
    }

    let first_file_is_missing = !files.contains_key(&manifest.start);
    let room = Arc::new(Room::new(manifest.geometry, options.reserve_bytes));
    let segments = Segments::new(
        Arc::clone(backend),
        dir,
        manifest.store_id,
        sync_names(options),
        Arc::clone(&room),
        files,
        sparse,
    );
    if last.run == 0 && first_file_is_missing {
        // Identity first, then the first segment, then the first epoch: from there on a missing first segment is an error.
        store(&manifest)?;
        segments.prepare_now(Lsn::ZERO).map_err(io_error("making the first segment in", dir))?;
    }
    Manifest::keep_reserve(io, dir);
    keep_room(&segments, &room, found.end).map_err(io_error("making the reserve of segments in", dir))?;
    let new_epoch = epoch > last;
    if new_epoch {
        manifest.history.push(EpochStart { epoch, first_lsn: found.end });
        manifest.history.cap(limits::EPOCH_HISTORY_MAX);
        store(&manifest)?;
    }
    let side = settle_side(io, dir, options, &manifest, &found, side)?;
    let segments = Arc::new(segments);
    Ok(Opened { lock, manifest, epoch, new_epoch, segments, room, found, tail_block, derived, side })
}

pub(crate) fn load_side(io: &dyn IoBackend, dir: &Path, manifest: &Manifest) -> Result<Option<SideBlock>, OpenError> {
    let path = dir.join(SIDE_NAME);
    let loaded = SideBlock::load(io, dir).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => OpenError::Contradiction {
            path: path.clone(),
            what: property::SIDE_BLOCK,
            expected: "a whole side block".into(),
            found: source.to_string(),
        },
        _ => OpenError::Io { what: "reading", path: path.clone(), source },
    })?;
    match loaded {
        Some(side) if side.store_id != manifest.store_id => {
            let (expected, found) = (format!("{:032x}", manifest.store_id), format!("{:032x}", side.store_id));
            Err(OpenError::Contradiction { path, what: property::SIDE_BLOCK, expected, found })
        }
        other => Ok(other),
    }
}

/// From here on a replica's disk is spoken of by its side block, and a leader's by its frames again: what was found is durable now.
fn settle_side(
    io: &dyn IoBackend,
    dir: &Path,
    options: &EngineOptions,
    manifest: &Manifest,
    found: &Found,
    side: Option<SideBlock>,
) -> Result<Option<SideBlock>, OpenError> {
    let path = dir.join(SIDE_NAME);
    match (options.role, side) {
        (Role::Replica, _) => {
            let next = SideBlock {
                store_id: manifest.store_id,
                number: side.map_or(1, |side| side.number + 1),
                epoch: manifest.history.last().map_or_else(Epoch::default, |last| last.epoch),
                durable: found.end,
                acked: found.acked,
                // Once the log has said what survives, nobody need remember it.
                seeded_to: side.map(|side| side.seeded_to).filter(|to| *to > found.visible).unwrap_or(Lsn::ZERO),
            };
            next.create(io, dir, sync_names(options)).map_err(io_error("writing", &path))?;
            Ok(Some(next))
        }
        (Role::Leader { .. }, Some(_)) => {
            SideBlock::remove(io, dir).map_err(io_error("removing", &path))?;
            Ok(None)
        }
        (Role::Leader { .. }, None) => Ok(None),
    }
}

/// Sees to the reserve before anything is taken, unless there is so much room that it may come together while the log is used already.
fn keep_room(segments: &Segments, room: &Room, end: Lsn) -> io::Result<()> {
    let missing = room.wanted_end(end).since(room.prepared_end());
    if missing > 0 && segments.free_bytes()? / limits::ROOMY > missing {
        return Ok(());
    }
    room.keep();
    while room.prepared_end() < room.wanted_end(end) {
        match segments.make_next(room.prepared_end()) {
            Err(error) if is_full(&error) => {
                tracing::warn!(%error, "the reserve of segments is not whole: appends may be refused until there is room for it");
                break;
            }
            other => other?,
        }
    }
    Ok(())
}

/// Reads the last checkpoint, and the log from there on; the whole retained log when the checkpoint is of no use.
fn read_log(
    backend: &Arc<dyn IoBackend>,
    dir: &Path,
    options: &EngineOptions,
    names: &[String],
    manifest: &Manifest,
    (files, sparse): (&Files, &Files),
    side: Option<SideBlock>,
) -> Result<(Derived, Found), OpenError> {
    let is_there = names.iter().any(|name| name == store::FILE_NAME || name == store::DAMAGED_NAME);
    let mut use_store = is_there && options.checkpoint_interval.is_some();
    let mut saves = options.checkpoint_interval.is_some();
    loop {
        let derived = if use_store {
            restore(backend, dir, options, manifest).unwrap_or_else(|why| {
                tracing::warn!(why, "the last checkpoint is not used; the whole log is read");
                Derived::empty(manifest)
            })
        } else {
            Derived::empty(manifest)
        };
        let uses_store = derived.store.is_some();
        let is_restored = derived.is_restored;
        let mut derived = derived;
        // Recovery looks at what comes behind the checkpoint; what lies before it must be there, too.
        let mut base = manifest.start;
        while base < derived.applied {
            if !files.contains_key(&base) {
                let why = format!("the last checkpoint says that the log was durable to {}", derived.applied);
                return Err(OpenError::Missing { path: dir.join(file_name(base)), lsn: Some(base), why });
            }
            base = manifest.geometry.segment_end(base);
        }
        let recovery = Recovery {
            backend: &**backend,
            dir,
            geometry: manifest.geometry,
            history: &manifest.history,
            files,
            queues: &Arc::clone(&derived.queues),
            table: &Arc::clone(&derived.table),
            // What survives below the dense log comes last, and before everything else in its queue.
            unsaved_max: (saves && sparse.is_empty()).then_some(options.unsaved_bytes_max),
            released: derived.released,
            keys: &Arc::clone(&derived.keys),
            broken: options.broken(),
            side,
            holds_back: options.waits_for_replicas(),
            has_threads: options.drivers == Drivers::Threads,
        };
        let outcome = recovery
            .run(manifest.start, derived.applied, |frozen| derived.save(backend, dir, options, manifest, &frozen));
        match outcome {
            Ok(found) => {
                derived.changed.extend(&found.changed);
                let seeded_to = side.map_or(Lsn::ZERO, |side| side.seeded_to);
                // What the queues have of survivors comes with the first opening at which the log has said all of them.
                if uses_store && seeded_to > Lsn::ZERO && seeded_to <= found.visible {
                    use_store = false;
                    continue;
                }
                let said = derived.table.survivors();
                let said = said.and_then(|lists| Ok((lists, derived.table.get(survivors::START_KEY)?)));
                let (mut lists, start) = match said {
                    Ok(said) => said,
                    Err(error) if is_restored => {
                        tracing::warn!(%error, "the last checkpoint cannot be read; the whole log is");
                        use_store = false;
                        continue;
                    }
                    Err(error) => {
                        let (path, source) = (dir.join(store::FILE_NAME), io::Error::other(error.to_string()));
                        return Err(OpenError::Io { what: "reading the lists of survivors in", path, source });
                    }
                };
                let start = survivors::start_of(start.as_ref().map(|entry| &*entry.value));
                derived.log_start = start.max(manifest.start);
                if options.role != Role::Replica && found.hidden_start > derived.log_start {
                    // What a leader appends comes behind that: whoever follows has let go by then what does not survive.
                    let begun = std::mem::replace(&mut derived.log_start, found.hidden_start);
                    lists.retain(|(base, _)| *base < begun || !found.hidden_lists.contains_key(base));
                    let hidden = found.hidden_lists.iter().filter(|(base, _)| **base >= begun);
                    lists.extend(hidden.filter_map(|(base, list)| Some((*base, List::clone(list.as_ref()?)))));
                }
                let is_seeded = seeded_to > found.visible;
                settle_survivors(dir, manifest, sparse, lists, &found.hidden_lists, &mut derived, is_seeded)?;
                // Every queue's first entry is looked at, unless none can have lost it since the checkpoint.
                let is_released = sparse.is_empty() && derived.released == manifest.start;
                if !is_restored {
                    revive(dir, manifest.geometry, sparse, &mut derived);
                } else if let Some(Err(error)) = (!is_released).then(|| derived.release(manifest.start)) {
                    tracing::warn!(%error, "the last checkpoint lacks entries; the whole log is read");
                    use_store = false;
                    continue;
                }
                return Ok((derived, found));
            }
            // Frames or entries that do not follow on the checkpoint's: it is the checkpoint that is wrong, or the log says the
            // same without it.
            Err(OpenError::Contradiction { what: property::QUEUE_ENTRY | property::CHECKPOINT, found, .. })
                if uses_store =>
            {
                tracing::warn!(found, "the last checkpoint contradicts the log; the whole log is read");
                use_store = false;
            }
            Err(OpenError::Io { source, path, .. }) if saves && is_full(&source) => {
                let path = path.display();
                tracing::warn!(%path, "no room for a checkpoint while opening; what the log says is kept in memory until there is");
                saves = false;
            }
            Err(error) => return Err(error),
        }
    }
}

fn restore(
    backend: &Arc<dyn IoBackend>,
    dir: &Path,
    options: &EngineOptions,
    manifest: &Manifest,
) -> Result<Derived, String> {
    let words = |error: &dyn std::error::Error| error.to_string();
    let pace = Arc::<CheckpointPace>::default();
    let cache_bytes = options.checkpoint_cache_bytes;
    let opened = checkpoint::open_store(backend, dir, manifest.store_id, cache_bytes, CheckpointPace::of(&pace));
    let (store, origin) = opened.map_err(|error| words(&error))?;
    let empty = |store| Derived { store: Some(store), pace: Arc::clone(&pace), ..Derived::empty(manifest) };
    if origin != store::Origin::Existing {
        return Ok(empty(store));
    }
    let reader = Arc::new(store.begin_read().map_err(|error| words(&error))?);
    let applied = reader.get(StoreTable::Meta, rows::APPLIED_KEY).map_err(|error| words(&error))?;
    let Some(applied) = applied else { return Ok(empty(store)) };
    let applied = checkpoint::applied(&applied, manifest)?;
    let released = reader.get(StoreTable::Meta, rows::START_KEY).map_err(|error| words(&error))?;
    let released = released.map(|row| rows::decode_start(&row)).transpose().map_err(|row| words(&row))?;
    let queues = Queues::new();
    queues.set_store(Arc::clone(&reader));
    let mut bad = None;
    let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let read = reader.range(StoreTable::Queues, all, store::Direction::Ascending, |key, value| {
        let outcome = rows::decode_queue(key, value).map_err(|error| words(&error)).and_then(|(id, row)| {
            let queue = queues.restore(row).map_err(|error| words(&error))?;
            if queue.id() == id { Ok(()) } else { Err(format!("queue {id} is missing")) }
        });
        match outcome {
            Ok(()) => std::ops::ControlFlow::Continue(()),
            Err(why) => {
                bad = Some(why);
                std::ops::ControlFlow::Break(())
            }
        }
    });
    read.map_err(|error| words(&error))?;
    if let Some(why) = bad {
        return Err(why);
    }
    let keys = KeyIndex::new(manifest.store_id);
    keys.restore(Arc::clone(&reader), applied)?;
    let table = Arc::new(Visible::new(Some(reader), applied));
    let survivors = Arc::new(Survivors::new(manifest.geometry));
    let changed = Vec::new();
    Ok(Derived {
        queues: Arc::new(queues),
        table,
        keys: Arc::new(keys),
        store: Some(store),
        pace,
        applied,
        // A store from before this row was written says nothing.
        released: released.unwrap_or(Lsn::ZERO),
        changed,
        survivors,
        log_start: manifest.start,
        is_restored: true,
    })
}

impl Derived {
    fn empty(manifest: &Manifest) -> Derived {
        Derived {
            queues: Arc::new(Queues::new()),
            table: Arc::new(Visible::default()),
            keys: Arc::new(KeyIndex::new(manifest.store_id)),
            store: None,
            pace: Arc::default(),
            applied: manifest.start,
            released: manifest.start,
            changed: Vec::new(),
            survivors: Arc::new(Survivors::new(manifest.geometry)),
            log_start: manifest.start,
            is_restored: false,
        }
    }

    /// Forgets what was released since the checkpoint.
    fn release(&mut self, start: Lsn) -> Result<(), ReadError> {
        let Derived { queues, survivors, changed, .. } = self;
        queues.release(start, |lsn| survivors.in_queue(lsn), |id| changed.push(id))
    }

    /// A checkpoint in the middle of opening.
    fn save(
        &mut self,
        backend: &Arc<dyn IoBackend>,
        dir: &Path,
        options: &EngineOptions,
        manifest: &Manifest,
        frozen: &Frozen,
    ) -> Result<(), OpenError> {
        let path = dir.join(store::FILE_NAME);
        let failed = |error: CheckpointError| {
            let source = io::Error::new(error.kind(), error.to_string());
            OpenError::Io { what: "writing a checkpoint to", path: path.clone(), source }
        };
        if self.store.is_none() {
            let (cache_bytes, pace) = (options.checkpoint_cache_bytes, CheckpointPace::of(&self.pace));
            let made = checkpoint::new_store(backend, dir, manifest.store_id, cache_bytes, pace);
            self.store = Some(made.map_err(|error| failed(error.into()))?);
        }
        let store = self.store.as_ref().expect("just opened");
        let retained = Retained { start: manifest.start, survivors: &self.survivors, clean: false };
        let written = checkpoint::write(store, frozen, &self.queues, &self.keys, &retained, &manifest.history);
        checkpoint::publish(frozen, written.map_err(failed)?, &self.queues, &self.table, &self.keys, Lsn::MAX);
        self.applied = frozen.lsn;
        Ok(())
    }
}

fn load_manifest(
    backend: &dyn IoBackend,
    dir: &Path,
    names: &[String],
    options: &EngineOptions,
    store_id: u128,
) -> Result<Manifest, OpenError> {
    if let Some(manifest) = read_manifest(backend, dir)? {
        return Ok(manifest);
    }
    // Segments without a manifest are somebody's log: never a silent fresh start.
    if let Some(segment) = names.iter().find(|name| base_of(name).is_some()) {
        let why = format!("{segment} lies beside it");
        return Err(OpenError::Missing { path: dir.join(MANIFEST_NAME), lsn: None, why });
    }
    if options.role == Role::Replica {
        return Err(OpenError::NoReplica { dir: dir.to_path_buf() });
    }
    let geometry = Geometry { segment_bytes: options.segment_bytes, tail: options.tail };
    Ok(Manifest { store_id, geometry, start: Lsn::ZERO, history: EpochHistory::default() })
}

/// The manifest in `dir`; `None` when there is none.
pub(crate) fn read_manifest(backend: &dyn IoBackend, dir: &Path) -> Result<Option<Manifest>, OpenError> {
    let path = dir.join(MANIFEST_NAME);
    let contradiction = |what: &'static str, expected: String, found: String| OpenError::Contradiction {
        path: path.clone(),
        what,
        expected,
        found,
    };
    let loaded = Manifest::load(backend, dir).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => contradiction(property::MANIFEST, "a whole manifest".into(), source.to_string()),
        _ => OpenError::Io { what: "reading", path: path.clone(), source },
    })?;
    let Some(bytes) = loaded else { return Ok(None) };
    Manifest::decode(&bytes).map(Some).map_err(|error| match error {
        ManifestError::Version { known, found } => {
            contradiction(property::MANIFEST_VERSION, format!("at most {known}"), found.to_string())
        }
        ManifestError::Damaged(found) => contradiction(property::MANIFEST, "a whole manifest".into(), found),
    })
}

/// A segment must be one that this process can write to its end: a limit that is found there later ends the process.
fn check_file_bytes(backend: &dyn IoBackend, geometry: Geometry) -> io::Result<()> {
    let segment_bytes = geometry.segment_bytes;
    match backend.file_bytes_max() {
        Some(max) if max < segment_bytes => {
            let text = format!(
                "this process may not write files of more than {max} bytes (RLIMIT_FSIZE, `ulimit -f`), and a segment of this log has \
                 {segment_bytes}; raise the limit, or make the log with smaller segments"
            );
            Err(io::Error::new(io::ErrorKind::FileTooLarge, text))
        }
        _ => Ok(()),
    }
}

/// Takes the directory for this process alone.
pub(crate) fn lock(backend: &dyn IoBackend, dir: &Path) -> Result<Box<dyn DirLock>, OpenError> {
    let path = dir.join(LOCK_NAME);
    backend.lock(&path).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { dir: dir.to_path_buf(), holder: source.to_string() },
        _ => OpenError::Io { what: "locking", path, source },
    })
}

/// Removes what nothing refers to: half-made files, and segments that were released before the power failed.
fn remove_leftovers(backend: &dyn IoBackend, dir: &Path, names: &[String], start: Lsn) -> Result<(), OpenError> {
    let is_released = |name: &str| base_of(name).is_some_and(|base| base < start);
    for name in names.iter().filter(|name| name.ends_with(HALF_MADE_SUFFIX) || is_released(name)) {
        let path = dir.join(name);
        backend.remove(&path).map_err(io_error("removing", &path))?;
    }
    Ok(())
}

/// Removes segments that lost their last survivor before the power failed.
fn remove_emptied(
    backend: &dyn IoBackend,
    dir: &Path,
    survivors: &Survivors,
    sparse: &mut Files,
) -> Result<(), OpenError> {
    let emptied: Vec<Lsn> = sparse.keys().copied().filter(|base| survivors.list(*base).is_none()).collect();
    for base in emptied {
        let path = dir.join(sparse_name(base));
        backend.remove(&path).map_err(io_error("removing", &path))?;
        sparse.remove(&base);
    }
    Ok(())
}

/// Gives segments of the dense log their names back: the power failed before the manifest said that the log begins behind them.
pub(crate) fn name_dense(
    backend: &dyn IoBackend,
    dir: &Path,
    names: &[String],
    start: Lsn,
    sync_names: bool,
) -> Result<(), OpenError> {
    let mut is_renamed = false;
    for base in names.iter().filter_map(|name| base_of_sparse(name)).filter(|base| *base >= start) {
        let path = dir.join(sparse_name(base));
        backend.rename(&path, &dir.join(file_name(base))).map_err(io_error("renaming", &path))?;
        is_renamed = true;
    }
    if is_renamed && sync_names {
        backend.sync_dir(dir).map_err(io_error("syncing", dir))?;
    }
    Ok(())
}

type Files = BTreeMap<Lsn, Arc<dyn IoFile>>;

/// The segments of the dense log, and those that are kept for what survives in them.
fn open_segments(
    backend: &dyn IoBackend,
    dir: &Path,
    names: &[String],
    manifest: &Manifest,
) -> Result<(Files, Files), OpenError> {
    let (mut files, mut sparse) = (Files::new(), Files::new());
    for name in names {
        let is_sparse = base_of_sparse(name);
        let Some(base) = is_sparse.or_else(|| base_of(name)) else { continue };
        // Under which of its names a segment is found behind the start does not matter: see `name_dense`.
        if base >= manifest.start {
            files.insert(base, open_segment(backend, &dir.join(name), OpenMode::Existing, base, manifest)?);
        } else if is_sparse.is_some() {
            sparse.insert(base, open_segment(backend, &dir.join(name), OpenMode::Existing, base, manifest)?);
        }
    }
    if manifest.history.last().is_some() && files.is_empty() {
        return Err(OpenError::NoSegments { dir: dir.to_path_buf(), start: manifest.start });
    }
    if manifest.history.last().is_some() && !files.contains_key(&manifest.start) {
        return Err(OpenError::Missing {
            path: dir.join(file_name(manifest.start)),
            lsn: Some(manifest.start),
            why: format!("the manifest says that the log begins at {}", manifest.start),
        });
    }
    Ok((files, sparse))
}

/// Takes over what the table says of survivors.
///
/// `hidden`: what the log says of them behind that. It may have been acknowledged before the power failed, and acted on, though nobody
/// knows that it was: so no survivor of either is given up, and what has gone by the one is not missed by the other.
///
/// `is_seeded`: the log does not say all of them yet, or says what is no more.
fn settle_survivors(
    dir: &Path,
    manifest: &Manifest,
    sparse: &Files,
    lists: Vec<(Lsn, List)>,
    hidden: &BTreeMap<Lsn, Option<List>>,
    derived: &mut Derived,
    is_seeded: bool,
) -> Result<(), OpenError> {
    derived.survivors = Arc::new(Survivors::new(manifest.geometry));
    let mut all: BTreeMap<Lsn, List> = lists.into_iter().collect();
    for (base, list) in hidden {
        let is_here = sparse.contains_key(base);
        match list {
            Some(list) if is_here => {
                let known = all.get(base).map_or_else(|| List::clone(list), |known| survivors::union(known, list));
                all.insert(*base, known);
            }
            None if !is_here => drop(all.remove(base)),
            Some(_) | None => {}
        }
    }
    for (base, list) in all {
        // A list of a segment that is still dense is one of a release that did not come to its end.
        if base >= derived.log_start {
            continue;
        }
        if base < manifest.start && !sparse.contains_key(&base) {
            if is_seeded {
                continue;
            }
            let why = format!("{} messages survive in it, says the log", list.len());
            return Err(OpenError::Missing { path: dir.join(sparse_name(base)), lsn: Some(base), why });
        }
        derived.survivors.set(base, Some(list));
    }
    Ok(())
}

/// What only the segments of survivors say, for a log that is read without a checkpoint: where links lead, and what still stands in queues.
fn revive(dir: &Path, geometry: Geometry, sparse: &Files, derived: &mut Derived) {
    let mut entries: BTreeMap<(Vec<u8>, u32), BTreeMap<u64, QueueEntry>> = BTreeMap::new();
    for (base, file) in sparse {
        let Some(list) = derived.survivors.list(*base) else { continue };
        for code in list.iter() {
            let (lsn, in_queue) = survivors::decode(*base, *code);
            let survivor = match Survivor::read(file, geometry, lsn) {
                Ok(survivor) => survivor,
                Err(what) => {
                    let path = dir.join(sparse_name(*base));
                    tracing::error!(path = %path.display(), %lsn, what, "a message that survives cannot be read");
                    continue;
                }
            };
            if let Some(origin) = survivor.origin {
                derived.table.link(lsn, origin.lsn);
            }
            if in_queue {
                let queue = entries.entry((survivor.queue_name, survivor.incarnation)).or_default();
                queue.insert(survivor.queue_offset.0, survivor.entry);
            }
        }
    }
    for ((name, incarnation), older) in entries {
        let queue = derived.queues.intern_incarnation(&name, incarnation, |_| {});
        let Some((last, _)) = older.last_key_value() else { continue };
        // What does not follow without a gap is reached by its LSN only.
        let dense = older.iter().rev().zip((0..=*last).rev()).take_while(|((offset, _), due)| **offset == *due);
        let mut dense: Vec<QueueEntry> = dense.map(|((_, entry), _)| *entry).collect();
        dense.reverse();
        match queue {
            Ok(queue) => {
                let state = derived.queues.state(queue.id());
                if state.prepend(QueueOffset(*last), &dense) && state.note_change() {
                    derived.changed.push(queue.id());
                }
            }
            Err(error) => tracing::error!(%error, "a queue whose messages survive cannot be had"),
        }
    }
}

/// One message that survives, as its segment has it.
pub(crate) struct Survivor {
    queue_name: Vec<u8>,
    incarnation: u32,
    queue_offset: QueueOffset,
    entry: QueueEntry,
    origin: Option<Origin>,
}

impl Survivor {
    /// Bytes of the record.
    pub(crate) fn size(&self) -> u32 {
        self.entry.size
    }

    pub(crate) fn read(file: &Arc<dyn IoFile>, geometry: Geometry, lsn: Lsn) -> Result<Survivor, String> {
        let room = geometry.segment_end(lsn).since(lsn);
        let bytes = |from: Lsn, len: u64| {
            let offset = geometry.file_offset(from);
            let begin = align_down(offset, to_u64(IO_ALIGN));
            let end = align_up(offset + len, to_u64(IO_ALIGN)).min(geometry.segment_bytes);
            let mut buf = AlignedBuf::zeroed(to_usize(end - begin));
            file.read_at(&mut buf, begin).map_err(|error| error.to_string())?;
            let skip = to_usize(offset - begin);
            let found = buf.get(skip..skip + to_usize(len)).ok_or("it leaves its segment")?;
            Ok::<Vec<u8>, String>(found.to_vec())
        };
        let head = bytes(lsn, to_u64(record::RECORD_HEADER_BYTES).min(room))?;
        let len = record::len_of(&head).map_err(|error| error.to_string())?;
        let whole = bytes(lsn, to_u64(len))?;
        let record = record::decode(&whole).map_err(|error| error.to_string())?;
        let frame = lsn.0.checked_sub(u64::from(record.frame_offset)).map(Lsn).ok_or("it names no frame")?;
        if frame < geometry.base(lsn) || record.frame_offset < 64 {
            return Err("it names no frame".to_owned());
        }
        let header_bytes = bytes(frame, u64::from(record.frame_offset))?;
        let header = frame::decode_header(&header_bytes, frame).map_err(|error| error.to_string())?;
        let mut at = frame.plus(to_u64(frame::header_bytes(usize::from(header.record_count))));
        for listed in frame::entries(&header_bytes, header.record_count) {
            if at == lsn {
                let store_time_ms = header.store_time_ms;
                let entry = QueueEntry { lsn, size: listed.len, tag: record.tag, store_time_ms };
                return Ok(Survivor {
                    queue_name: record.name.to_vec(),
                    incarnation: record.incarnation,
                    queue_offset: listed.queue_offset,
                    entry,
                    origin: record.origin(lsn),
                });
            }
            at = at.plus(u64::from(listed.len));
        }
        Err("its frame does not name it".to_owned())
    }
}

/// Opens the segment that must begin at `base`, and checks that it is that one.
pub(crate) fn open_segment(
    backend: &dyn IoBackend,
    path: &Path,
    mode: OpenMode,
    base: Lsn,
    manifest: &Manifest,
) -> Result<Arc<dyn IoFile>, OpenError> {
    let contradiction = |what: &'static str, expected: String, found: String| OpenError::Contradiction {
        path: path.to_path_buf(),
        what,
        expected,
        found,
    };
    let file = backend.open(path, mode).map_err(io_error("opening", path))?;
    let len = file.len().map_err(io_error("reading", path))?;
    if len != manifest.geometry.segment_bytes {
        let expected = format!("{} bytes", manifest.geometry.segment_bytes);
        return Err(contradiction(property::LENGTH, expected, format!("{len}")));
    }
    let mut block = AlignedBuf::zeroed(IO_ALIGN);
    file.read_at(&mut block, 0).map_err(io_error("reading", path))?;
    let header = SegmentHeader::decode_buf(&block)
        .map_err(|error| contradiction(property::SEGMENT_HEADER, "a whole header".into(), error.to_string()))?;
    if header.store_id != manifest.store_id {
        let hex = |id: u128| format!("{id:032x}");
        return Err(contradiction(property::STORE_ID, hex(manifest.store_id), hex(header.store_id)));
    }
    if header.geometry != manifest.geometry {
        let (expected, found) = (format!("{:?}", manifest.geometry), format!("{:?}", header.geometry));
        return Err(contradiction(property::GEOMETRY, expected, found));
    }
    if header.base != base || manifest.geometry.base(base) != base {
        return Err(contradiction(property::BASE, file_name(base), file_name(header.base)));
    }
    Ok(file)
}

/// Files behind a gap hold nothing (recovery looked): they were prepared, and would be in the way.
fn drop_unreachable(
    backend: &dyn IoBackend,
    dir: &Path,
    geometry: Geometry,
    end: Lsn,
    files: &mut Files,
) -> Result<(), OpenError> {
    let mut base = geometry.base(end);
    while files.contains_key(&base) {
        base = geometry.segment_end(base);
    }
    for (gone, _) in files.split_off(&base) {
        let path = dir.join(file_name(gone));
        backend.remove(&path).map_err(io_error("removing", &path))?;
    }
    Ok(())
}

fn read_tail_block(dir: &Path, files: &Files, geometry: Geometry, end: Lsn) -> Result<Vec<u8>, OpenError> {
    let start = Lsn(align_down(end.0, to_u64(IO_ALIGN)));
    if start == end {
        return Ok(Vec::new());
    }
    let path = dir.join(file_name(geometry.base(start)));
    let file = files.get(&geometry.base(start)).expect("the log ends inside a segment that was read");
    let mut block = AlignedBuf::zeroed(IO_ALIGN);
    file.read_at(&mut block, geometry.file_offset(start)).map_err(io_error("reading", &path))?;
    Ok(block[..to_usize(end.since(start))].to_vec())
}

/// Makes what was found behind the newest durable mark durable, by writing it once more: it was read, but a killed process, or one whose
/// flush failed, may have left it in a cache that the next power failure empties; after a failed flush a second one proves nothing.
fn write_again(dir: &Path, files: &Files, geometry: Geometry, from: Lsn, end: Lsn) -> Result<(), OpenError> {
    let mut at = Lsn(align_down(from.0, to_u64(IO_ALIGN)));
    while at < end {
        let base = geometry.base(at);
        let path = dir.join(file_name(base));
        let Some(file) = files.get(&base) else { break };
        let stop = Lsn(align_up(end.0, to_u64(IO_ALIGN))).min(geometry.segment_end(at));
        let len = stop.since(at).min(to_u64(limits::SCAN_READ_BYTES));
        let mut buf = AlignedBuf::zeroed(to_usize(len));
        file.read_at(&mut buf, geometry.file_offset(at)).map_err(io_error("reading", &path))?;
        file.write_at(&buf, geometry.file_offset(at), true).map_err(io_error("writing again", &path))?;
        at = at.plus(len);
    }
    Ok(())
}

/// False only where that promise is broken on purpose.
pub(crate) fn sync_names(options: &EngineOptions) -> bool {
    !options.broken().is(Fault::NoDirectorySync)
}

/// Nobody leads in a lower term than was promised.
fn check_promise(io: &dyn IoBackend, dir: &Path, asked: u32) -> Result<(), OpenError> {
    let promised = match Promise::load(io, dir) {
        Ok(promise) if promise.as_ref().is_none_or(|promise| promise.term <= asked) => return Ok(()),
        Ok(promise) => format!("term {}", promise.map_or(0, |promise| promise.term)),
        Err(replica::PromiseError::Io { path, source }) => return Err(OpenError::Io { what: "reading", path, source }),
        Err(error) => error.to_string(),
    };
    Err(OpenError::Promised { dir: dir.to_path_buf(), asked, promised })
}

/// The epoch of this run: a replica begins none.
fn next_epoch(options: &EngineOptions, last: Epoch) -> Result<Epoch, OpenError> {
    match options.role {
        Role::Replica => Ok(last),
        // A log that was just made has no run of its first term yet.
        Role::Leader { term: Some(term) } if term > last.term || (term == last.term && last.run == 0) => {
            Ok(Epoch { term, run: 1 })
        }
        Role::Leader { term: Some(asked) } => Err(OpenError::Term { asked, last: last.term }),
        Role::Leader { term: None } if options.broken().is(Fault::NoNewEpoch) && last.run > 0 => Ok(last),
        Role::Leader { term: None } => Ok(Epoch { run: last.run + 1, ..last }),
    }
}
