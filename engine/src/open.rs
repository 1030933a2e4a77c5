//! The steps of opening, in the order that keeps them safe.
//!
//! 1. The directory is locked. 2. The manifest says what must be there. 3. The log is read and its end found; nothing is written so far.
//! 4. The new run's epoch becomes durable in the manifest. 5. Only then does anything get appended: first the history that names it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::{self, CheckpointError, Frozen, rows};
use crate::commit::room::Room;
use crate::commitlog::manifest::{MANIFEST_NAME, Manifest};
use crate::commitlog::segment::{Geometry, SegmentHeader, base_of, file_name};
use crate::commitlog::segments::{HALF_MADE_SUFFIX, Segments};
use crate::consume_queue::Queues;
use crate::epoch::{EpochHistory, EpochStart};
use crate::error::OpenError;
use crate::fault::Fault;
use crate::io::{AlignedBuf, DirLock, IO_ALIGN, IoBackend, IoFile, OpenMode, is_full};
use crate::limits;
use crate::options::EngineOptions;
use crate::recovery::{Found, Recovery};
use crate::store::{self, Store, StoreTable};
use crate::table::Visible;
use crate::units::{Epoch, Lsn, align_down, align_up, to_u64, to_usize};

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
}

/// What is made of the log: by the last checkpoint, and by what the log says since.
pub(crate) struct Derived {
    pub(crate) queues: Arc<Queues>,
    pub(crate) table: Arc<Visible>,
    pub(crate) store: Option<Store>,
    /// The last checkpoint goes up to here.
    pub(crate) applied: Lsn,
    /// Queues that are not as the checkpoint has them.
    pub(crate) changed: Vec<u32>,
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> OpenError + use<'a> {
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
    let lock_path = dir.join(LOCK_NAME);
    let lock = io.lock(&lock_path).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { dir: dir.to_path_buf(), holder: source.to_string() },
        _ => OpenError::Io { what: "locking", path: lock_path.clone(), source },
    })?;
    let names = io.list(dir).map_err(io_error("listing", dir))?;
    let mut manifest = load_manifest(io, dir, &names, options, store_id)?;
    check_file_bytes(io, manifest.geometry).map_err(io_error("opening", dir))?;
    remove_half_made(io, dir, &names)?;
    let mut files = open_segments(io, dir, &names, &manifest)?;
    let store = |manifest: &Manifest| {
        let stored = manifest.store(io, dir, sync_names(options));
        stored.map_err(|(path, source)| OpenError::Io { what: "writing", path, source })
    };

    let (derived, found) = read_log(backend, dir, options, &names, &manifest, &files)?;
    drop_unreachable(io, dir, manifest.geometry, found.end, &mut files)?;
    let tail_block = read_tail_block(dir, &files, manifest.geometry, found.end)?;
    write_again(dir, &files, manifest.geometry, found.durable_lsn.min(found.end), found.end)?;

    let first_file_is_missing = !files.contains_key(&manifest.start);
    let room = Arc::new(Room::new(manifest.geometry, options.reserve_bytes));
    let segments = Segments::new(
        Arc::clone(backend),
        dir,
        manifest.store_id,
        manifest.geometry,
        sync_names(options),
        Arc::clone(&room),
        files,
    );
    let last = manifest.history.last().map_or(Epoch { term: 1, run: 0 }, |last| last.epoch);
    if last.run == 0 && first_file_is_missing {
        // Identity first, then the first segment, then the first epoch: from there on a missing first segment is an error.
        store(&manifest)?;
        segments.prepare_now(Lsn::ZERO).map_err(io_error("making the first segment in", dir))?;
    }
    Manifest::keep_reserve(io, dir);
    keep_room(&segments, &room, found.end).map_err(io_error("making the reserve of segments in", dir))?;
    let epoch = next_epoch(options, last);
    let new_epoch = epoch > last;
    if new_epoch {
        manifest.history.push(EpochStart { epoch, first_lsn: found.end });
        manifest.history.cap(limits::EPOCH_HISTORY_MAX);
        store(&manifest)?;
    }
    Ok(Opened { lock, manifest, epoch, new_epoch, segments: Arc::new(segments), room, found, tail_block, derived })
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
    files: &BTreeMap<Lsn, Arc<dyn IoFile>>,
) -> Result<(Derived, Found), OpenError> {
    let is_there = names.iter().any(|name| name == store::FILE_NAME || name == store::DAMAGED_NAME);
    let mut use_store = is_there && options.checkpoint_interval.is_some();
    let mut saves = options.checkpoint_interval.is_some();
    loop {
        let derived = if use_store {
            restore(backend, dir, options, manifest).unwrap_or_else(|why| {
                tracing::warn!(why, "the last checkpoint is not used; the whole log is read");
                Derived::empty(manifest.start)
            })
        } else {
            Derived::empty(manifest.start)
        };
        let uses_store = derived.store.is_some();
        if !uses_store && options.checkpoint_interval.is_some() {
            forget_store(&**backend, dir)?;
        }
        let mut derived = derived;
        // Recovery looks at what comes behind the checkpoint; what lies before it must be there, too.
        let mut base = manifest.start;
        while base < derived.applied {
            if !files.contains_key(&base) {
                let why = format!("the last checkpoint says that the log was durable to {}", derived.applied);
                return Err(OpenError::Missing { path: dir.join(file_name(base)), why });
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
            broken: options.broken(),
            unsaved_records_max: if saves { limits::RECOVERY_UNSAVED_RECORDS } else { u64::MAX },
        };
        let outcome = recovery
            .run(manifest.start, derived.applied, |frozen| derived.save(backend, dir, options, manifest, &frozen));
        match outcome {
            Ok(found) => {
                derived.changed.extend(&found.changed);
                return Ok((derived, found));
            }
            // Entries that do not follow on the checkpoint's: it is the checkpoint that is wrong, or the log says the same without it.
            Err(OpenError::Contradiction { what: "queue entry", found, .. }) if uses_store => {
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

/// Removes a store that is of no use: the next checkpoint must not be written on top of what it holds.
fn forget_store(backend: &dyn IoBackend, dir: &Path) -> Result<(), OpenError> {
    let names = backend.list(dir).map_err(io_error("listing", dir))?;
    if names.iter().any(|name| name == store::FILE_NAME) {
        let path = dir.join(store::FILE_NAME);
        backend.remove(&path).map_err(io_error("removing", &path))?;
    }
    Ok(())
}

fn restore(
    backend: &Arc<dyn IoBackend>,
    dir: &Path,
    options: &EngineOptions,
    manifest: &Manifest,
) -> Result<Derived, String> {
    let words = |error: &dyn std::error::Error| error.to_string();
    let opened = checkpoint::open_store(backend, dir, manifest.store_id, options.checkpoint_cache_bytes);
    let (store, origin) = opened.map_err(|error| words(&error))?;
    let empty = |store| Derived { store: Some(store), ..Derived::empty(manifest.start) };
    if origin != store::Origin::Existing {
        return Ok(empty(store));
    }
    let reader = Arc::new(store.begin_read().map_err(|error| words(&error))?);
    let applied = reader.get(StoreTable::Meta, rows::APPLIED_KEY).map_err(|error| words(&error))?;
    let Some(applied) = applied else { return Ok(empty(store)) };
    let applied = rows::decode_applied(&applied).map_err(|error| words(&error))?;
    if applied < manifest.start {
        return Err(format!("it ends at LSN {applied}, and the log begins at {}", manifest.start));
    }
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
    // What was released since the checkpoint.
    let mut changed = Vec::new();
    queues.release(manifest.start, |id| changed.push(id)).map_err(|error| words(&error))?;
    let table = Arc::new(Visible::new(Some(reader), applied));
    Ok(Derived { queues: Arc::new(queues), table, store: Some(store), applied, changed })
}

impl Derived {
    fn empty(start: Lsn) -> Derived {
        Derived {
            queues: Arc::new(Queues::new()),
            table: Arc::new(Visible::default()),
            store: None,
            applied: start,
            changed: Vec::new(),
        }
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
            let opened = checkpoint::open_store(backend, dir, manifest.store_id, options.checkpoint_cache_bytes);
            self.store = Some(opened.map_err(|error| failed(error.into()))?.0);
        }
        let store = self.store.as_ref().expect("just opened");
        let reader = checkpoint::write(store, frozen, &self.queues, manifest.start).map_err(failed)?;
        checkpoint::publish(frozen, reader, &self.queues, &self.table, Lsn::MAX);
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
    let path = dir.join(MANIFEST_NAME);
    let Some(bytes) = Manifest::load(backend, dir).map_err(io_error("reading", &path))? else {
        // Segments without a manifest are somebody's log: never a silent fresh start.
        if let Some(segment) = names.iter().find(|name| base_of(name).is_some()) {
            return Err(OpenError::Missing { path, why: format!("{segment} lies beside it") });
        }
        let geometry = Geometry { segment_bytes: options.segment_bytes, tail: options.tail };
        let manifest = Manifest { store_id, geometry, start: Lsn::ZERO, history: EpochHistory::default() };
        return Ok(manifest);
    };
    Manifest::decode(&bytes).map_err(|found| OpenError::Contradiction {
        path,
        what: "manifest",
        expected: "a whole manifest".into(),
        found,
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

fn remove_half_made(backend: &dyn IoBackend, dir: &Path, names: &[String]) -> Result<(), OpenError> {
    for name in names.iter().filter(|name| name.ends_with(HALF_MADE_SUFFIX)) {
        let path = dir.join(name);
        backend.remove(&path).map_err(io_error("removing", &path))?;
    }
    Ok(())
}

fn open_segments(
    backend: &dyn IoBackend,
    dir: &Path,
    names: &[String],
    manifest: &Manifest,
) -> Result<BTreeMap<Lsn, Arc<dyn IoFile>>, OpenError> {
    let mut files = BTreeMap::new();
    for (name, base) in names.iter().filter_map(|name| base_of(name).map(|base| (name, base))) {
        let path = dir.join(name);
        if base < manifest.start {
            // Released before the power failed; it would have been recycled next.
            backend.remove(&path).map_err(io_error("removing", &path))?;
            continue;
        }
        let contradiction = |what: &'static str, expected: String, found: String| OpenError::Contradiction {
            path: path.clone(),
            what,
            expected,
            found,
        };
        let file = backend.open(&path, OpenMode::Existing).map_err(io_error("opening", &path))?;
        let len = file.len().map_err(io_error("reading", &path))?;
        if len != manifest.geometry.segment_bytes {
            return Err(contradiction(
                "length",
                format!("{} bytes", manifest.geometry.segment_bytes),
                format!("{len}"),
            ));
        }
        let mut block = AlignedBuf::zeroed(IO_ALIGN);
        file.read_at(&mut block, 0).map_err(io_error("reading", &path))?;
        let header = SegmentHeader::decode_buf(&block)
            .map_err(|error| contradiction("segment header", "a whole header".into(), error.to_string()))?;
        if header.store_id != manifest.store_id {
            let hex = |id: u128| format!("{id:032x}");
            return Err(contradiction("store id", hex(manifest.store_id), hex(header.store_id)));
        }
        if header.geometry != manifest.geometry {
            let (expected, found) = (format!("{:?}", manifest.geometry), format!("{:?}", header.geometry));
            return Err(contradiction("geometry", expected, found));
        }
        if header.base != base || manifest.geometry.base(base) != base {
            return Err(contradiction("base LSN", file_name(base), file_name(header.base)));
        }
        files.insert(base, file);
    }
    if !files.contains_key(&manifest.start) && manifest.history.last().is_some() {
        let path = dir.join(file_name(manifest.start));
        return Err(OpenError::Missing {
            path,
            why: format!("the manifest says that the log begins at {}", manifest.start),
        });
    }
    Ok(files)
}

/// Files behind a gap hold nothing (recovery looked): they were prepared, and would be in the way.
fn drop_unreachable(
    backend: &dyn IoBackend,
    dir: &Path,
    geometry: Geometry,
    end: Lsn,
    files: &mut BTreeMap<Lsn, Arc<dyn IoFile>>,
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

fn read_tail_block(
    dir: &Path,
    files: &BTreeMap<Lsn, Arc<dyn IoFile>>,
    geometry: Geometry,
    end: Lsn,
) -> Result<Vec<u8>, OpenError> {
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
fn write_again(
    dir: &Path,
    files: &BTreeMap<Lsn, Arc<dyn IoFile>>,
    geometry: Geometry,
    from: Lsn,
    end: Lsn,
) -> Result<(), OpenError> {
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

fn next_epoch(options: &EngineOptions, last: Epoch) -> Epoch {
    if options.broken().is(Fault::NoNewEpoch) && last.run > 0 { last } else { Epoch { run: last.run + 1, ..last } }
}
