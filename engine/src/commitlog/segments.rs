//! The segment files of one log: which there are, which come next, which may go.
//!
//! Invariants:
//! 1. A segment is used only after its header is durable, its size is durable and its name is durable (directory synced).
//! 2. Names ending in `.tmp` are half-made; nothing of value is in them, and opening removes them.
//! 3. Behind the current segment stand only files without a gap: how far they go is what `Room` says.
//! 4. A file is recycled only after the manifest says, durably, that the log begins behind it.
//!
//! ```text
//!  retained ........ | current | prepared | prepared |      (live: found by LSN)
//!     | retire                      ^ header, rename, directory sync, ahead of need
//!     v                             |
//!  retired -- rename to .tmp -------'--- new file: fallocate, zeros (the filler)
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use crate::commit::room::Room;
use crate::commitlog::segment::{Geometry, SegmentHeader, file_name};
use crate::io::{AlignedBuf, IoBackend, IoFile, OpenMode, is_full};
use crate::units::Lsn;

/// Suffix of segments below the log's dense start that are kept for what survives in them.
pub(crate) const SPARSE_SUFFIX: &str = ".sparse";
/// Suffix of files that are not in use yet.
pub(crate) const HALF_MADE_SUFFIX: &str = ".tmp";

/// A segment in the making: its name is temporary, its bytes are zeros or old frames.
pub(crate) struct HalfMade {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn IoFile>,
}

const INTACT: &str = "the segment list is intact";

/// The name of a segment that is kept for what survives in it.
pub(crate) fn sparse_name(base: Lsn) -> String {
    format!("{:020}{SPARSE_SUFFIX}", base.0)
}

/// The base LSN in such a name.
pub(crate) fn base_of_sparse(name: &str) -> Option<Lsn> {
    let digits = name.strip_suffix(SPARSE_SUFFIX)?;
    (digits.len() == 20).then(|| digits.parse().ok().map(Lsn)).flatten()
}

/// The files of a log.
pub(crate) struct Segments {
    backend: Arc<dyn IoBackend>,
    dir: PathBuf,
    store_id: u128,
    geometry: Geometry,
    sync_names: bool,
    room: Arc<Room>,
    live: RwLock<BTreeMap<Lsn, Arc<dyn IoFile>>>,
    /// Below the dense start.
    sparse: RwLock<BTreeMap<Lsn, Arc<dyn IoFile>>>,
    retired: Mutex<VecDeque<Lsn>>,
    /// Held while a segment gets its final name, so that writer and filler do not make the same one.
    making: Mutex<()>,
    next_half_made: AtomicU64,
    unwritten: AtomicU64,
    recycled: AtomicU64,
}

impl Segments {
    /// `live`, `sparse`: the files found at open, by base LSN.
    pub(crate) fn new(
        backend: Arc<dyn IoBackend>,
        dir: &Path,
        store_id: u128,
        sync_names: bool,
        room: Arc<Room>,
        live: BTreeMap<Lsn, Arc<dyn IoFile>>,
        sparse: BTreeMap<Lsn, Arc<dyn IoFile>>,
    ) -> Segments {
        let geometry = room.geometry();
        if let Some((last, _)) = live.last_key_value() {
            room.prepared(geometry.segment_end(*last));
        }
        Segments {
            backend,
            dir: dir.to_path_buf(),
            store_id,
            geometry,
            sync_names,
            room,
            live: RwLock::new(live),
            sparse: RwLock::new(sparse),
            retired: Mutex::new(VecDeque::new()),
            making: Mutex::new(()),
            next_half_made: AtomicU64::new(0),
            unwritten: AtomicU64::new(0),
            recycled: AtomicU64::new(0),
        }
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Path of the segment that holds `lsn`.
    pub(crate) fn path(&self, lsn: Lsn) -> PathBuf {
        let base = self.geometry.base(lsn);
        let is_sparse = self.sparse.read().expect(INTACT).contains_key(&base);
        self.dir.join(if is_sparse { sparse_name(base) } else { file_name(base) })
    }

    /// The file that holds `lsn`, if there is one.
    pub(crate) fn find(&self, lsn: Lsn) -> Option<Arc<dyn IoFile>> {
        let base = self.geometry.base(lsn);
        let live = self.live.read().expect(INTACT).get(&base).cloned();
        live.or_else(|| self.sparse.read().expect(INTACT).get(&base).cloned())
    }

    /// The first segment that begins at or behind `lsn`, with its base.
    pub(crate) fn first_from(&self, lsn: Lsn) -> Option<(Lsn, Arc<dyn IoFile>)> {
        let live = self.live.read().expect(INTACT);
        live.range(lsn..).next().map(|(base, file)| (*base, Arc::clone(file)))
    }

    /// Makes the next segment on the spot: of a retired file or, with unwritten extents, of a new one. Not when the prepared end is no
    /// longer at `seen`: then somebody else just made one. When there is no room for it, `Room` knows.
    pub(crate) fn make_next(&self, seen: Lsn) -> io::Result<()> {
        let _making = self.making.lock().expect("segment making is intact");
        if self.room.prepared_end() != seen {
            return Ok(());
        }
        let half_made = match self.begin_recycled()? {
            Some(recycled) => recycled,
            None => {
                let begun = self.begin()?;
                self.unwritten.fetch_add(1, Ordering::Relaxed);
                begun
            }
        };
        self.finish_locked(half_made, seen)
    }

    /// A new file of full size, under a temporary name, with unwritten extents. When there is no room for it, `Room` knows.
    pub(crate) fn begin(&self) -> io::Result<HalfMade> {
        self.begin_new().inspect_err(|error| self.note_full(error))
    }

    /// Tells `Room` of an error that says that there is none.
    pub(crate) fn note_full(&self, error: &io::Error) {
        if is_full(error) {
            self.room.found_full(error);
        }
    }

    fn begin_new(&self) -> io::Result<HalfMade> {
        let number = self.next_half_made.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("segment-{number}{HALF_MADE_SUFFIX}"));
        let file = self.backend.open(&path, OpenMode::CreateNew)?;
        if let Err(error) = file.allocate(self.geometry.segment_bytes) {
            self.backend.remove(&path)?;
            return Err(error);
        }
        Ok(HalfMade { path, file })
    }

    /// A retired file under a temporary name, if there is one.
    pub(crate) fn begin_recycled(&self) -> io::Result<Option<HalfMade>> {
        let Some(base) = self.retired.lock().expect("the retired list is intact").pop_front() else { return Ok(None) };
        let number = self.next_half_made.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("segment-{number}{HALF_MADE_SUFFIX}"));
        self.backend.rename(&self.dir.join(file_name(base)), &path)?;
        let file = self.backend.open(&path, OpenMode::Existing)?;
        self.recycled.fetch_add(1, Ordering::Relaxed);
        Ok(Some(HalfMade { path, file }))
    }

    /// Makes a half-made file the next segment behind those that are ready.
    pub(crate) fn finish(&self, half_made: HalfMade, current: Lsn) -> io::Result<()> {
        let _making = self.making.lock().expect("segment making is intact");
        let base = self.prepared_end(current);
        self.finish_locked(half_made, base)
    }

    /// As [`Segments::finish`], for a file that was not filled with zeros to its end.
    pub(crate) fn finish_unwritten(&self, half_made: HalfMade, current: Lsn) -> io::Result<()> {
        self.unwritten.fetch_add(1, Ordering::Relaxed);
        self.finish(half_made, current)
    }

    fn finish_locked(&self, half_made: HalfMade, base: Lsn) -> io::Result<()> {
        let path = half_made.path.clone();
        let finished = self.name_it(half_made, base);
        if let Err(error) = &finished {
            self.note_full(error);
            // It has its temporary name still, or is a segment already.
            drop(self.backend.remove(&path));
        }
        finished
    }

    fn name_it(&self, half_made: HalfMade, base: Lsn) -> io::Result<()> {
        let HalfMade { path, file } = half_made;
        let header = SegmentHeader { store_id: self.store_id, geometry: self.geometry, base };
        file.write_at(&header.encode(), 0, true)?;
        file.sync()?;
        self.backend.rename(&path, &self.dir.join(file_name(base)))?;
        if self.sync_names {
            self.backend.sync_dir(&self.dir)?;
        }
        self.live.write().expect(INTACT).insert(base, file);
        self.room.prepared(self.geometry.segment_end(base));
        Ok(())
    }

    /// First LSN at or behind the segment of `current` for which no file is ready.
    pub(crate) fn prepared_end(&self, current: Lsn) -> Lsn {
        let live = self.live.read().expect(INTACT);
        let mut base = self.geometry.base(current);
        while live.contains_key(&base) {
            base = self.geometry.segment_end(base);
        }
        base
    }

    /// Segments ready behind the one that holds `current`.
    pub(crate) fn prepared_count(&self, current: Lsn) -> u64 {
        self.prepared_end(current).since(self.geometry.segment_end(current)) / self.geometry.data_bytes()
    }

    /// Gives segments the names under which they are kept for what survives in them, durably. Idempotent.
    pub(crate) fn keep_sparse(&self, bases: &[Lsn]) -> io::Result<()> {
        for base in bases {
            if self.sparse.read().expect(INTACT).contains_key(base) {
                continue;
            }
            self.backend.rename(&self.dir.join(file_name(*base)), &self.dir.join(sparse_name(*base)))?;
            let file = self.live.read().expect(INTACT).get(base).cloned();
            let file = file.expect("a segment that is released now is there");
            self.sparse.write().expect(INTACT).insert(*base, file);
        }
        if bases.is_empty() || !self.sync_names { Ok(()) } else { self.backend.sync_dir(&self.dir) }
    }

    /// Removes a segment in which nothing survives any more.
    pub(crate) fn remove_sparse(&self, base: Lsn) -> io::Result<()> {
        match self.sparse.write().expect(INTACT).remove(&base) {
            Some(_) => self.backend.remove(&self.dir.join(sparse_name(base))),
            None => Ok(()),
        }
    }

    /// Takes the files below `start` out of the log; they wait to be recycled, but for those that are kept.
    pub(crate) fn retire(&self, start: Lsn) -> usize {
        let mut live = self.live.write().expect(INTACT);
        let kept = live.split_off(&start);
        let mut gone = std::mem::replace(&mut *live, kept);
        let sparse = self.sparse.read().expect(INTACT);
        gone.retain(|base, _| !sparse.contains_key(base));
        let count = gone.len();
        self.retired.lock().expect("the retired list is intact").extend(gone.into_keys());
        count
    }

    /// Removes one retired file when more wait than `keep`; true when one went.
    pub(crate) fn drop_surplus(&self, keep: usize) -> io::Result<bool> {
        let base = {
            let mut retired = self.retired.lock().expect("the retired list is intact");
            if retired.len() <= keep {
                return Ok(false);
            }
            retired.pop_front()
        };
        if let Some(base) = base {
            self.backend.remove(&self.dir.join(file_name(base)))?;
        }
        Ok(true)
    }

    /// Fills a new file with zeros at full speed and makes it the segment that holds `current`: before anything is served.
    pub(crate) fn prepare_now(&self, current: Lsn) -> io::Result<()> {
        let half_made = self.begin()?;
        let step = AlignedBuf::zeroed(1 << 20);
        let mut at = 0;
        while at < self.geometry.segment_bytes {
            let left = self.geometry.segment_bytes - at;
            if left >= step.len() as u64 {
                half_made.file.write_at(&step, at, false)?;
                at += step.len() as u64;
            } else {
                let rest = usize::try_from(left).expect("smaller than a step");
                half_made.file.write_at(&AlignedBuf::zeroed(rest), at, false)?;
                at += left;
            }
        }
        self.finish(half_made, current)
    }

    /// Segments that were used without having been zero-filled.
    pub(crate) fn unwritten(&self) -> u64 {
        self.unwritten.load(Ordering::Relaxed)
    }

    /// Segments recycled.
    pub(crate) fn recycled(&self) -> u64 {
        self.recycled.load(Ordering::Relaxed)
    }

    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        self.backend.free_bytes(&self.dir)
    }
}
