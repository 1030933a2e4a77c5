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

use crate::checkpoint::{self, Frozen, rows};
use crate::commitlog::manifest::{MANIFEST_NAME, Manifest, ManifestError};
use crate::commitlog::segment::{Geometry, SegmentHeader, base_of, file_name};
use crate::commitlog::segments::{HALF_MADE_SUFFIX, Segments};
use crate::consume_queue::Queues;
use crate::epoch::{EpochHistory, EpochStart};
use crate::error::OpenError;
use crate::fault::Fault;
use crate::io::{AlignedBuf, DirLock, IO_ALIGN, IoBackend, IoFile, OpenMode};
use crate::limits;
use crate::options::EngineOptions;
use crate::recovery::cases::property;
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
    let mut manifest = load_manifest(io, dir, &names, options, store_id)?;
    let mut files = open_segments(io, dir, &names, &manifest)?;
    let store = |manifest: &Manifest| {
        let stored = manifest.store(io, dir, sync_names(options));
        stored.map_err(|(path, source)| OpenError::Io { what: "writing", path, source })
    };

    let (derived, found) = read_log(backend, dir, options, &names, &manifest, &files)?;
    remove_leftovers(io, dir, &names, manifest.start)?;
    drop_unreachable(io, dir, manifest.geometry, found.end, &mut files)?;
    let tail_block = read_tail_block(dir, &files, manifest.geometry, found.end)?;
    write_again(dir, &files, manifest.geometry, found.durable_lsn.min(found.end), found.end)?;

    let first_file_is_missing = !files.contains_key(&manifest.start);
    let segments =
        Segments::new(Arc::clone(backend), dir, manifest.store_id, manifest.geometry, sync_names(options), files);
    let last = manifest.history.last().map_or(Epoch { term: 1, run: 0 }, |last| last.epoch);
    if last.run == 0 && first_file_is_missing {
        // Identity first, then the first segment, then the first epoch: from there on a missing first segment is an error.
        store(&manifest)?;
        segments.prepare_now(Lsn::ZERO).map_err(io_error("making the first segment in", dir))?;
    }
    Manifest::keep_reserve(io, dir);
    let epoch = next_epoch(options, last);
    let new_epoch = epoch > last;
    if new_epoch {
        manifest.history.push(EpochStart { epoch, first_lsn: found.end });
        manifest.history.cap(limits::EPOCH_HISTORY_MAX);
        store(&manifest)?;
    }
    Ok(Opened { lock, manifest, epoch, new_epoch, segments: Arc::new(segments), found, tail_block, derived })
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
            broken: options.broken(),
        };
        let outcome = recovery
            .run(manifest.start, derived.applied, |frozen| derived.save(backend, dir, options, manifest, &frozen));
        match outcome {
            Ok(found) => {
                derived.changed.extend(&found.changed);
                return Ok((derived, found));
            }
            // Frames or entries that do not follow on the checkpoint's: it is the checkpoint that is wrong, or the log says the same without it.
            Err(OpenError::Contradiction { what: property::QUEUE_ENTRY | property::CHECKPOINT, found, .. })
                if uses_store =>
            {
                tracing::warn!(found, "the last checkpoint contradicts the log; the whole log is read");
                use_store = false;
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
    let opened = checkpoint::open_store(backend, dir, manifest.store_id, options.checkpoint_cache_bytes);
    let (store, origin) = opened.map_err(|error| words(&error))?;
    let empty = |store| Derived { store: Some(store), ..Derived::empty(manifest.start) };
    if origin != store::Origin::Existing {
        return Ok(empty(store));
    }
    let reader = Arc::new(store.begin_read().map_err(|error| words(&error))?);
    let applied = reader.get(StoreTable::Meta, rows::APPLIED_KEY).map_err(|error| words(&error))?;
    let Some(applied) = applied else { return Ok(empty(store)) };
    let applied = checkpoint::applied(&applied, manifest)?;
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
        if options.checkpoint_interval.is_none() {
            return Ok(());
        }
        let path = dir.join(store::FILE_NAME);
        let failed = |error: &dyn std::error::Error| OpenError::Io {
            what: "writing a checkpoint to",
            path: path.clone(),
            source: io::Error::other(error.to_string()),
        };
        if self.store.is_none() {
            let made = checkpoint::new_store(backend, dir, manifest.store_id, options.checkpoint_cache_bytes);
            self.store = Some(made.map_err(|error| failed(&error))?);
        }
        let store = self.store.as_ref().expect("just opened");
        let written = checkpoint::write(store, frozen, &self.queues, manifest.start, &manifest.history);
        let reader = written.map_err(|error| failed(&error))?;
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
    if let Some(manifest) = read_manifest(backend, dir)? {
        return Ok(manifest);
    }
    // Segments without a manifest are somebody's log: never a silent fresh start.
    if let Some(segment) = names.iter().find(|name| base_of(name).is_some()) {
        let why = format!("{segment} lies beside it");
        return Err(OpenError::Missing { path: dir.join(MANIFEST_NAME), lsn: None, why });
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

/// Takes the directory for this process alone.
pub(crate) fn lock(backend: &dyn IoBackend, dir: &Path) -> Result<Box<dyn DirLock>, OpenError> {
    let path = dir.join(LOCK_NAME);
    backend.lock(&path).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { dir: dir.to_path_buf(), holder: source.to_string() },
        _ => OpenError::Io { what: "locking", path, source },
    })
}

/// Removes what nothing refers to: half-made files, and segments that were released before the power failed and would have been recycled
/// next.
fn remove_leftovers(backend: &dyn IoBackend, dir: &Path, names: &[String], start: Lsn) -> Result<(), OpenError> {
    let is_released = |name: &str| base_of(name).is_some_and(|base| base < start);
    for name in names.iter().filter(|name| name.ends_with(HALF_MADE_SUFFIX) || is_released(name)) {
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
        if base >= manifest.start {
            files.insert(base, open_segment(backend, &dir.join(name), base, manifest)?);
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
    Ok(files)
}

/// Opens the segment that must begin at `base`, and checks that it is that one.
pub(crate) fn open_segment(
    backend: &dyn IoBackend,
    path: &Path,
    base: Lsn,
    manifest: &Manifest,
) -> Result<Arc<dyn IoFile>, OpenError> {
    let contradiction = |what: &'static str, expected: String, found: String| OpenError::Contradiction {
        path: path.to_path_buf(),
        what,
        expected,
        found,
    };
    let file = backend.open(path, OpenMode::Existing).map_err(io_error("opening", path))?;
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
