//! The beginning of a replica: an empty directory becomes a log that holds nothing yet, from where its leader's begins.
//!
//! Promises:
//! 1. A directory that is half seeded does not open: the file [`SEED_NAME`] stands in it from before the first step until after the last.
//! 2. What is half seeded may be seeded again, from the beginning.
//! 3. Whatever else lies in a directory is not touched: one that holds a log must be wiped first, by name, or given up.
//! 4. A log that is given up stays, in a directory within its own; that comes to its end whenever the power fails.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::commit::room::Room;
use crate::commitlog::manifest::{MANIFEST_NAME, Manifest};
use crate::commitlog::segment::{Geometry, SegmentHeader, base_of};
use crate::commitlog::segments::{HALF_MADE_SUFFIX, Segments, base_of_sparse, sparse_name};
use crate::epoch::EpochHistory;
use crate::error::{Advice, OpenError, OptionsError};
use crate::io::{AlignedBuf, DirLock, IO_ALIGN, IoBackend, IoFile, OpenMode};
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::open;
use crate::options::EngineOptions;
use crate::replica::{LogIdentity, SIDE_NAME, SideBlock, files};
use crate::store;
use crate::units::{Epoch, Lsn, to_u64};

/// Stands in a directory that is half seeded.
pub(crate) const SEED_NAME: &str = "SEED";
/// Begins the name of a directory in which a log lies that was given up.
pub(super) const GIVEN_UP_PREFIX: &str = "given-up-";
/// Ends the name of what stands beside that directory until all of the log is in it.
const GIVING_UP_SUFFIX: &str = ".moving";

/// What a replica begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// What the log is.
    pub identity: LogIdentity,
    /// Where it begins: a segment's first LSN.
    pub start: Lsn,
    /// The leader's log ended here when this was said: what survives below the start is said in the log up to here.
    pub end: Lsn,
    /// Which epoch wrote what.
    pub history: EpochHistory,
    /// Segments below the start of which something survives.
    pub sparse: Vec<SparseSegment>,
}

/// A segment of which something survives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseSegment {
    /// Its first LSN.
    pub base: Lsn,
    /// What of it is there, in whole blocks, in their order.
    pub ranges: Vec<Range<Lsn>>,
}

/// Why a directory was not seeded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeedError {
    /// There is a log in the directory.
    #[error("{dir} holds a log ({name}); to make a replica of it, wipe it first", dir = dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// A file of that log.
        name: String,
    },
    /// The geometry is none that this program takes, or the start is no segment's first LSN.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// Bytes that are not the next of what survives.
    #[error("bytes of LSN {found} were given; {}", expected.map_or("a range begins with a block below the start".to_owned(), |lsn| format!("those of LSN {lsn} are next")))]
    Order {
        /// What comes next; `None` at the beginning of a range.
        expected: Option<Lsn>,
        /// What was given.
        found: Lsn,
    },
    /// Another process has the directory, or it cannot be had.
    #[error(transparent)]
    Directory(#[from] OpenError),
    /// The kernel refused something.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl SeedError {
    /// Reject what lies there or does not fit; what the kernel refused may be tried again, from the beginning.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            SeedError::NotEmpty { .. } | SeedError::Order { .. } => Advice::Reject,
            SeedError::Options(error) => error.advice(),
            SeedError::Directory(error) => error.advice(),
            SeedError::Io { .. } => Advice::Retry,
        }
    }
}

/// A directory that is being seeded. Dropped before [`Seeding::finish`], it stays half done.
pub struct Seeding {
    backend: Arc<dyn IoBackend>,
    dir: PathBuf,
    sync_names: bool,
    manifest: Manifest,
    /// Where the leader's log ended: what is behind this has not all that it once acknowledged.
    seeded_to: Lsn,
    writing: Option<Writing>,
    _lock: Box<dyn DirLock>,
}

/// The segment of survivors that is being written.
struct Writing {
    base: Lsn,
    file: Arc<dyn IoFile>,
    /// The front of a block that is not whole yet.
    pending: Vec<u8>,
    next: Lsn,
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SeedError + use<'a> {
    move |source| SeedError::Io { what, path: path.to_path_buf(), source }
}

/// Whether a file is part of a log.
fn is_of_log(name: &str) -> bool {
    name == MANIFEST_NAME
        || name == SIDE_NAME
        || name.ends_with(HALF_MADE_SUFFIX)
        || base_of(name).is_some()
        || base_of_sparse(name).is_some()
        || name == store::FILE_NAME
        || name == store::DAMAGED_NAME
}

impl Seeding {
    /// Begins to make `dir` a replica. The seed says which geometry the log has; `options` say nothing about that here.
    ///
    /// # Errors
    /// When there is a log already, or the kernel refuses something.
    pub fn begin(
        backend: Arc<dyn IoBackend>,
        dir: impl AsRef<Path>,
        seed: &Seed,
        options: &EngineOptions,
    ) -> Result<Seeding, SeedError> {
        let dir = dir.as_ref();
        let LogIdentity { store_id, segment_bytes, tail } = seed.identity;
        let geometry = Geometry { segment_bytes, tail };
        EngineOptions { segment_bytes, ..options.clone() }.validate()?;
        options.validate_for(segment_bytes)?;
        if geometry.base(seed.start) != seed.start {
            let want = "the first LSN of a segment";
            return Err(OptionsError { option: "start of a seed", found: seed.start.0, want: want.into() }.into());
        }
        let io: &dyn IoBackend = &*backend;
        io.create_dir_all(dir).map_err(failed("creating", dir))?;
        let lock = open::lock(io, dir)?;
        let names = io.list(dir).map_err(failed("listing", dir))?;
        let is_half_seeded = names.iter().any(|name| name == SEED_NAME);
        let of_a_log = names.iter().find(|name| is_of_log(name) && !name.ends_with(HALF_MADE_SUFFIX));
        if let Some(name) = of_a_log.filter(|_| !is_half_seeded) {
            return Err(SeedError::NotEmpty { dir: dir.to_path_buf(), name: name.clone() });
        }
        let sync_names = open::sync_names(options);
        clear(io, dir)?;
        // Epochs that began behind the start come with their first frames: each is to be known as it is taken.
        let mut history = EpochHistory::default();
        let begun = seed.history.starts().iter().filter(|begun| begun.first_lsn <= seed.start);
        begun.for_each(|begun| history.push(*begun));
        let manifest = Manifest { store_id, geometry, start: seed.start, history };
        let seeded_to = seed.end;
        Ok(Seeding { backend, dir: dir.to_path_buf(), sync_names, manifest, seeded_to, writing: None, _lock: lock })
    }

    /// Writes bytes of what survives below the start: in the order of the seed's ranges, cut anywhere.
    ///
    /// # Errors
    /// When they are not the next bytes of a range, and the kernel's.
    pub fn write(&mut self, at: Lsn, bytes: &[u8]) -> Result<(), SeedError> {
        let geometry = self.manifest.geometry;
        let end = at.plus(to_u64(bytes.len()));
        let is_whole = |lsn: Lsn| geometry.file_offset(lsn).is_multiple_of(to_u64(IO_ALIGN));
        let expected = self.writing.as_ref().filter(|writing| !writing.pending.is_empty()).map(|writing| writing.next);
        let fits = expected.map_or(is_whole(at), |expected| expected == at);
        if !fits || at >= self.manifest.start || end > geometry.segment_end(at) {
            return Err(SeedError::Order { expected, found: at });
        }
        let base = geometry.base(at);
        let mut writing = match self.writing.take() {
            Some(writing) if writing.base == base => writing,
            before => {
                if let Some(before) = before {
                    self.close_sparse(&before)?;
                }
                self.open_sparse(base)?
            }
        };
        if writing.pending.is_empty() {
            writing.next = at;
        }
        writing.pending.extend_from_slice(bytes);
        writing.next = end;
        let whole = writing.pending.len() - writing.pending.len() % IO_ALIGN;
        if whole > 0 {
            let from = Lsn(end.0 - to_u64(writing.pending.len()));
            let path = self.dir.join(sparse_name(base));
            let buf = AlignedBuf::padded(&writing.pending[..whole]);
            writing.file.write_at(&buf, geometry.file_offset(from), false).map_err(failed("writing", &path))?;
            writing.pending.drain(..whole);
        }
        self.writing = Some(writing);
        Ok(())
    }

    /// A file of full size that takes little space.
    fn open_sparse(&self, base: Lsn) -> Result<Writing, SeedError> {
        let Manifest { store_id, geometry, .. } = self.manifest;
        let path = self.dir.join(sparse_name(base));
        let make = || {
            if files::exists(&*self.backend, &self.dir, &sparse_name(base))? {
                return self.backend.open(&path, OpenMode::Existing);
            }
            let file = self.backend.open(&path, OpenMode::CreateNew)?;
            file.allocate(geometry.segment_bytes)?;
            match file.punch_hole(SEGMENT_HEADER_BYTES, geometry.data_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::Unsupported => return Err(error),
                _ => {}
            }
            file.write_at(&SegmentHeader { store_id, geometry, base }.encode(), 0, true)?;
            Ok(file)
        };
        let file = make().map_err(failed("making", &path))?;
        Ok(Writing { base, file, pending: Vec::new(), next: base })
    }

    fn close_sparse(&self, writing: &Writing) -> Result<(), SeedError> {
        let path = self.dir.join(sparse_name(writing.base));
        writing.file.sync().map_err(failed("writing", &path))
    }

    /// The directory is a replica from now on, and may be opened as one.
    ///
    /// # Errors
    /// When a range was left in its middle, and the kernel's: it is half seeded then.
    pub fn finish(mut self) -> Result<(), SeedError> {
        if let Some(writing) = self.writing.take() {
            if !writing.pending.is_empty() {
                return Err(SeedError::Order { expected: Some(writing.next), found: self.manifest.start });
            }
            self.close_sparse(&writing)?;
        }
        let (io, dir): (&dyn IoBackend, &Path) = (&*self.backend, &self.dir);
        let Manifest { store_id, geometry, start, .. } = self.manifest;
        let (live, sparse) = (BTreeMap::new(), BTreeMap::new());
        let room = Arc::new(Room::new(geometry, None));
        let segments = Segments::new(Arc::clone(&self.backend), dir, store_id, self.sync_names, room, live, sparse);
        segments.prepare_now(start).map_err(failed("making the first segment in", dir))?;
        let epoch = self.manifest.history.last().map_or_else(Epoch::default, |last| last.epoch);
        let side = SideBlock { store_id, number: 0, epoch, durable: start, acked: start, seeded_to: self.seeded_to };
        side.create(io, dir, self.sync_names).map_err(failed("writing the side block in", dir))?;
        let stored = self.manifest.store(io, dir, self.sync_names);
        stored.map_err(|(path, source)| SeedError::Io { what: "writing", path, source })?;
        let marker = dir.join(SEED_NAME);
        io.remove(&marker).map_err(failed("removing", &marker))?;
        io.sync_dir(dir).map_err(failed("syncing", dir))
    }
}

/// Marks a directory as half seeded, and takes away what there is of a log.
fn clear(io: &dyn IoBackend, dir: &Path) -> Result<(), SeedError> {
    let marker = dir.join(SEED_NAME);
    let mut names = io.list(dir).map_err(failed("listing", dir))?;
    if !names.iter().any(|name| name == SEED_NAME) {
        let mark = || io.open(&marker, OpenMode::CreateNew)?.write_at(&AlignedBuf::zeroed(IO_ALIGN), 0, true);
        mark().map_err(failed("making", &marker))?;
    }
    io.sync_dir(dir).map_err(failed("syncing", dir))?;
    if let Some(moving) = names.iter().find(|name| is_moving(name)) {
        return move_aside(io, dir, moving).map(drop);
    }
    names.retain(|name| is_of_log(name));
    for name in names {
        let path = dir.join(name);
        io.remove(&path).map_err(failed("removing", &path))?;
    }
    io.sync_dir(dir).map_err(failed("syncing", dir))
}

fn is_moving(name: &str) -> bool {
    name.starts_with(GIVEN_UP_PREFIX) && name.ends_with(GIVING_UP_SUFFIX)
}

/// Moves what there is of a log to where `moving` says; the directory is marked as half seeded.
fn move_aside(io: &dyn IoBackend, dir: &Path, moving: &str) -> Result<PathBuf, SeedError> {
    let aside = dir.join(moving.strip_suffix(GIVING_UP_SUFFIX).unwrap_or(moving));
    io.create_dir_all(&aside).map_err(failed("creating", &aside))?;
    io.sync_dir(dir).map_err(failed("syncing", dir))?;
    let names = io.list(dir).map_err(failed("listing", dir))?;
    for name in names.iter().filter(|name| is_of_log(name)) {
        let path = dir.join(name);
        io.rename(&path, &aside.join(name)).map_err(failed("moving", &path))?;
    }
    io.sync_dir(&aside).map_err(failed("syncing", &aside))?;
    io.sync_dir(dir).map_err(failed("syncing", dir))?;
    let marker = dir.join(moving);
    io.remove(&marker).map_err(failed("removing", &marker))?;
    io.sync_dir(dir).map_err(failed("syncing", dir))?;
    Ok(aside)
}

/// Gives up the log in a directory, which ends at `end`, so that it may be seeded; the log stays in a directory within that one, whose
/// path is returned. What is no part of a log stays where it is. A directory that is half seeded has no log to be kept.
///
/// # Errors
/// When another process has it, or the kernel refuses something: half moved, it does not open, and the rest follows when it is given up
/// again, wiped or seeded.
pub fn give_up(backend: &dyn IoBackend, dir: impl AsRef<Path>, end: Lsn) -> Result<Option<PathBuf>, SeedError> {
    let dir = dir.as_ref();
    let _lock = open::lock(backend, dir)?;
    let names = backend.list(dir).map_err(failed("listing", dir))?;
    let moving = names.iter().find(|name| is_moving(name)).cloned();
    let is_half_seeded = names.iter().any(|name| name == SEED_NAME);
    if is_half_seeded && moving.is_none() {
        return Ok(None);
    }
    let moving = moving.map_or_else(|| new_place(backend, dir, end), Ok)?;
    let marker = dir.join(SEED_NAME);
    if !is_half_seeded {
        let mark = || backend.open(&marker, OpenMode::CreateNew)?.write_at(&AlignedBuf::zeroed(IO_ALIGN), 0, true);
        mark().map_err(failed("making", &marker))?;
        backend.sync_dir(dir).map_err(failed("syncing", dir))?;
    }
    let aside = move_aside(backend, dir, &moving)?;
    tracing::warn!(dir = %dir.display(), aside = %aside.display(), "the log was given up, and is kept");
    Ok(Some(aside))
}

/// Names, durably, where a log goes that ends at `end`: before anything is marked or moved.
fn new_place(io: &dyn IoBackend, dir: &Path, end: Lsn) -> Result<String, SeedError> {
    let name = |number: u32| match number {
        1 => format!("{GIVEN_UP_PREFIX}{:020}", end.0),
        _ => format!("{GIVEN_UP_PREFIX}{:020}.{number}", end.0),
    };
    let is_free = |number: &u32| match io.list(&dir.join(name(*number))) {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        Ok(names) => names.is_empty(),
    };
    let moving = format!("{}{GIVING_UP_SUFFIX}", name((1..u32::MAX).find(is_free).unwrap_or(u32::MAX)));
    let path = dir.join(&moving);
    let mark = || io.open(&path, OpenMode::CreateNew)?.write_at(&AlignedBuf::zeroed(IO_ALIGN), 0, true);
    mark().map_err(failed("making", &path))?;
    io.sync_dir(dir).map_err(failed("syncing", dir))?;
    Ok(moving)
}

/// Gives up the log in a directory, so that it may be seeded. What is no part of a log stays.
///
/// # Errors
/// When another process has it, or the kernel refuses something: half wiped, it does not open, and may be wiped again.
pub fn wipe(backend: &dyn IoBackend, dir: impl AsRef<Path>) -> Result<(), SeedError> {
    let dir = dir.as_ref();
    let _lock = open::lock(backend, dir)?;
    clear(backend, dir)
}
