//! Ending a log earlier than it does: where it and its leader's went different ways.
//!
//! Promises:
//! 1. What is cut is kept aside first, whole; nothing is cut that was not.
//! 2. Once named, durably, a cut comes to its end: here, when it is asked for again, or when the directory is opened.
//! 3. No byte behind it can be read as log again: they are zeros, or gone with their files.
//! 4. Nothing speaks of what is cut any more: not the epoch history, not the derived store, not the side block.
//!
//! ```text
//!  aside written -> cut named -> aside in place -> derived store, side block, manifest -> zeros -> name taken away
//!                   (file CUT)                                                                    (file CUT gone)
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint;
use crate::commitlog::frame::{self, FRAME_HEADER_BYTES};
use crate::commitlog::manifest::{MANIFEST_NAME, Manifest};
use crate::commitlog::segment::{Geometry, base_of, file_name};
use crate::commitlog::segments::HALF_MADE_SUFFIX;
use crate::epoch::EpochHistory;
use crate::error::{Advice, OpenError};
use crate::io::{AlignedBuf, IO_ALIGN, IoBackend, IoFile, OpenMode};
use crate::limits::SCAN_READ_BYTES;
use crate::open;
use crate::recovery::scan::SegmentScan;
use crate::replica::{SEED_NAME, SideBlock, files};
use crate::store;
use crate::units::{Lsn, align_down, align_up, to_u64, to_usize};

/// Names a cut that is under way.
pub(crate) const CUT_NAME: &str = "CUT";
const ASIDE_SUFFIX: &str = ".aside";

const MAGIC: u32 = u32::from_le_bytes(*b"ALCT");
const VERSION: u32 = 1;
const CRC_AT: usize = 44;

/// What a cut did.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutReport {
    /// Where the log ends now.
    pub end: Lsn,
    /// What was cut, from its first byte on; `None` where there was nothing.
    pub aside: Option<PathBuf>,
    /// Bytes that were cut, to the last one that was not zero.
    pub bytes: u64,
}

/// Why a log was not cut. Nothing was changed, unless the kernel refused something on the way: the cut comes to its end later then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CutError {
    /// The log begins behind the cut.
    #[error("LSN {at} lies below the log's start {start}: only a new beginning helps")]
    BelowStart {
        /// Where it was to end.
        at: Lsn,
        /// Where it begins.
        start: Lsn,
    },
    /// No frame begins there.
    #[error("no frame begins at LSN {at}: the nearest that the log has there is at LSN {near}")]
    NoBoundary {
        /// Where it was to end.
        at: Lsn,
        /// Where the frames of its segment lead, from the first one on.
        near: Lsn,
    },
    /// There is no log, it is in use, or it cannot be read or written.
    #[error(transparent)]
    Directory(#[from] OpenError),
}

impl CutError {
    /// Reject a place where the log cannot be cut; the rest as opening would.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            CutError::BelowStart { .. } | CutError::NoBoundary { .. } => Advice::Reject,
            CutError::Directory(error) => error.advice(),
        }
    }
}

/// A cut that is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    store_id: u128,
    at: Lsn,
    bytes: u64,
    /// Counts the cuts at this place.
    number: u32,
}

impl Named {
    fn encode(&self) -> AlignedBuf {
        let mut out = Vec::with_capacity(CRC_AT + 4);
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.store_id.to_le_bytes());
        out.extend_from_slice(&self.at.0.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        AlignedBuf::padded(&out)
    }

    fn decode(bytes: &[u8]) -> Option<Named> {
        let fields = bytes.get(..CRC_AT + 4)?;
        let u32_at = |at: usize| u32::from_le_bytes([fields[at], fields[at + 1], fields[at + 2], fields[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let is_whole = u32_at(CRC_AT) == crc32fast::hash(&fields[..CRC_AT]);
        (u32_at(0) == MAGIC && u32_at(4) == VERSION && is_whole).then(|| Named {
            store_id: u128::from(u64_at(8)) | u128::from(u64_at(16)) << 64,
            at: Lsn(u64_at(24)),
            bytes: u64_at(32),
            number: u32_at(40),
        })
    }

    fn aside(&self) -> String {
        aside_name(self.at, self.number)
    }
}

fn aside_name(at: Lsn, number: u32) -> String {
    let plain = format!("cut-{:020}{ASIDE_SUFFIX}", at.0);
    if number == 1 { plain } else { format!("{plain}.{number}") }
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> OpenError + use<'a> {
    open::io_error(what, path)
}

/// Ends the log in `dir` at `at`, where a frame begins or would: for a log that is not open. What is cut stays beside it. Called again
/// after it failed, or the power did, it ends the same.
///
/// # Errors
/// When the log cannot be cut there.
pub fn cut(backend: &dyn IoBackend, dir: impl AsRef<Path>, at: Lsn) -> Result<CutReport, CutError> {
    let dir = dir.as_ref();
    let _lock = open::lock(backend, dir)?;
    let list = || backend.list(dir).map_err(failed("listing", dir));
    if list()?.iter().any(|name| name == SEED_NAME) {
        return Err(OpenError::HalfSeeded { dir: dir.to_path_buf() }.into());
    }
    let resumed = resume(backend, dir)?;
    let missing = || OpenError::Missing { path: dir.join(MANIFEST_NAME), lsn: None, why: "a log was to be cut".into() };
    let manifest = open::read_manifest(backend, dir)?.ok_or_else(missing)?;
    if at < manifest.start {
        return Err(CutError::BelowStart { at, start: manifest.start });
    }
    let names = list()?;
    let log = Files::open(backend, dir, &names, &manifest)?;
    log.check_boundary(at, manifest.start)?;
    let bytes = log.used_from(at)?;
    if bytes == 0 && !speaks_behind(backend, dir, &manifest, at)? {
        let report = CutReport { end: at, aside: None, bytes };
        // The same cut, and the power failed before anybody was told.
        return Ok(resumed.filter(|resumed| resumed.end == at).unwrap_or(report));
    }
    let is_free = |number: &u32| !names.contains(&aside_name(at, *number));
    let number = (1..u32::MAX).find(is_free).unwrap_or(u32::MAX);
    let named = Named { store_id: manifest.store_id, at, bytes, number };
    if bytes > 0 {
        log.write_aside(&named)?;
    }
    let path = dir.join(CUT_NAME);
    files::replace(backend, dir, CUT_NAME, &named.encode()).map_err(failed("writing", &path))?;
    Ok(finish(backend, dir, &manifest, &log, &named)?)
}

/// The cut that is named in `dir`, with the manifest of the log that it is of.
pub(crate) fn named(backend: &dyn IoBackend, dir: &Path) -> Result<Option<(Named, Manifest)>, OpenError> {
    let path = dir.join(CUT_NAME);
    if !files::exists(backend, dir, CUT_NAME).map_err(failed("listing", dir))? {
        return Ok(None);
    }
    let read = || {
        let (file, mut buf) = (backend.open(&path, OpenMode::ReadOnly)?, AlignedBuf::zeroed(IO_ALIGN));
        // A shorter one names nothing.
        if file.len()? >= to_u64(IO_ALIGN) {
            file.read_at(&mut buf, 0)?;
        }
        Ok::<_, io::Error>(buf)
    };
    let bytes = read().map_err(failed("reading", &path))?;
    let contradiction = |expected: &str, found: String| OpenError::Contradiction {
        path: path.clone(),
        what: crate::recovery::cases::property::CUT,
        expected: expected.to_owned(),
        found,
    };
    let named = Named::decode(&bytes).ok_or_else(|| contradiction("a cut by name", "bytes that name none".into()))?;
    let manifest = open::read_manifest(backend, dir)?;
    let manifest = manifest.filter(|manifest| manifest.store_id == named.store_id);
    let manifest = manifest.ok_or_else(|| contradiction("a cut of this log", format!("{:032x}", named.store_id)))?;
    Ok(Some((named, manifest)))
}

/// Brings a cut that is named to its end.
pub(crate) fn resume(backend: &dyn IoBackend, dir: &Path) -> Result<Option<CutReport>, OpenError> {
    let Some((named, manifest)) = named(backend, dir)? else { return Ok(None) };
    let names = backend.list(dir).map_err(failed("listing", dir))?;
    let log = Files::open(backend, dir, &names, &manifest)?;
    finish(backend, dir, &manifest, &log, &named).map(Some)
}

/// Whether anything but the log's own bytes speaks of what lies at `at` or behind it.
fn speaks_behind(backend: &dyn IoBackend, dir: &Path, manifest: &Manifest, at: Lsn) -> Result<bool, OpenError> {
    let side = open::load_side(backend, dir, manifest)?;
    let checkpoint = checkpoint::peek(backend, dir, manifest);
    let begins_behind = manifest.history.starts().iter().any(|start| start.first_lsn >= at);
    Ok(begins_behind || side.is_some_and(|side| side.durable > at) || checkpoint.is_some_and(|applied| applied > at))
}

fn finish(
    backend: &dyn IoBackend,
    dir: &Path,
    manifest: &Manifest,
    log: &Files<'_>,
    named: &Named,
) -> Result<CutReport, OpenError> {
    let at = named.at;
    let (aside, half_made) = (named.aside(), format!("{}{HALF_MADE_SUFFIX}", named.aside()));
    if files::exists(backend, dir, &half_made).map_err(failed("listing", dir))? {
        let path = dir.join(&half_made);
        backend.rename(&path, &dir.join(&aside)).map_err(failed("renaming", &path))?;
        backend.sync_dir(dir).map_err(failed("syncing", dir))?;
    }
    // A store that is not believed is of no use, one that goes further must not be.
    if checkpoint::peek(backend, dir, manifest).is_none_or(|applied| applied > at) {
        let path = dir.join(store::FILE_NAME);
        store::remove(backend, dir).map_err(|error| failed("removing", &path)(io::Error::other(error.to_string())))?;
        backend.sync_dir(dir).map_err(failed("syncing", dir))?;
    }
    if let Some(side) = open::load_side(backend, dir, manifest)?
        && side.durable > at
    {
        let next = SideBlock { number: side.number + 1, durable: at, acked: side.acked.min(at), ..side };
        next.create(backend, dir, true).map_err(failed("writing the side block in", dir))?;
    }
    let mut shorter = manifest.clone();
    shorter.history = before(&manifest.history, at);
    if shorter != *manifest {
        let stored = shorter.store(backend, dir, true);
        stored.map_err(|(path, source)| OpenError::Io { what: "writing", path, source })?;
    }
    log.erase(at)?;
    let path = dir.join(CUT_NAME);
    backend.remove(&path).map_err(failed("removing", &path))?;
    backend.sync_dir(dir).map_err(failed("syncing", dir))?;
    tracing::warn!(dir = %dir.display(), %at, bytes = named.bytes, aside, "the log was cut");
    let aside = (named.bytes > 0).then(|| dir.join(aside));
    Ok(CutReport { end: at, aside, bytes: named.bytes })
}

/// The epochs that began below `end`.
fn before(history: &EpochHistory, end: Lsn) -> EpochHistory {
    let mut kept = EpochHistory::default();
    history.starts().iter().filter(|start| start.first_lsn < end).for_each(|start| kept.push(*start));
    kept
}

/// The segments of a log that is not open.
struct Files<'a> {
    backend: &'a dyn IoBackend,
    dir: &'a Path,
    geometry: Geometry,
    files: BTreeMap<Lsn, Arc<dyn IoFile>>,
}

impl Files<'_> {
    fn open<'a>(
        backend: &'a dyn IoBackend,
        dir: &'a Path,
        names: &[String],
        manifest: &Manifest,
    ) -> Result<Files<'a>, OpenError> {
        let mut files = BTreeMap::new();
        for base in names.iter().filter_map(|name| base_of(name)).filter(|base| *base >= manifest.start) {
            files.insert(
                base,
                open::open_segment(backend, &dir.join(file_name(base)), OpenMode::Existing, base, manifest)?,
            );
        }
        Ok(Files { backend, dir, geometry: manifest.geometry, files })
    }

    fn path(&self, lsn: Lsn) -> PathBuf {
        self.dir.join(file_name(self.geometry.base(lsn)))
    }

    /// Reads `[from, to)` of one segment, as far as it lies in one piece; where that piece begins, and its bytes.
    fn read(&self, from: Lsn, to: Lsn) -> Result<Option<(Lsn, AlignedBuf)>, OpenError> {
        let Some(file) = self.files.get(&self.geometry.base(from)) else { return Ok(None) };
        let begin = Lsn(align_down(from.0, to_u64(IO_ALIGN)));
        let end = Lsn(align_up(to.0, to_u64(IO_ALIGN))).min(begin.plus(to_u64(SCAN_READ_BYTES)));
        let mut buf = AlignedBuf::zeroed(to_usize(end.since(begin)));
        let path = self.path(from);
        file.read_at(&mut buf, self.geometry.file_offset(begin)).map_err(failed("reading", &path))?;
        Ok(Some((begin, buf)))
    }

    /// Whether a frame begins at `at`, or the log may end there: by the headers of the segment that leads there.
    fn check_boundary(&self, at: Lsn, start: Lsn) -> Result<(), CutError> {
        if at == start {
            return Ok(());
        }
        let near = self.walk(self.geometry.base(Lsn(at.0 - 1)), at)?;
        if near == at { Ok(()) } else { Err(CutError::NoBoundary { at, near }) }
    }

    /// Where the frames from a segment's base on lead: to `at`, beyond it, or as far as they are whole.
    fn walk(&self, base: Lsn, at: Lsn) -> Result<Lsn, OpenError> {
        let Some(file) = self.files.get(&base) else { return Ok(base) };
        let path = self.path(base);
        let io_error = |source| OpenError::Io { what: "reading", path: path.clone(), source };
        let mut scan = SegmentScan::new(self.backend, file, self.geometry, base, io_error)?;
        let (mut next, end) = (base, self.geometry.segment_end(base));
        while next < at && end.since(next) >= to_u64(FRAME_HEADER_BYTES) {
            let need = frame::header_bytes_needed(scan.need(FRAME_HEADER_BYTES)?).unwrap_or(FRAME_HEADER_BYTES);
            let Ok(outline) = frame::outline(scan.need(need)?, next) else { return Ok(next) };
            let len = u64::from(outline.frame_len);
            scan.need(to_usize(len))?;
            scan.consume(to_usize(len));
            next = next.plus(len);
        }
        // What is too short for a frame belongs to the segment's end.
        Ok(if next < at && at == end { end } else { next })
    }

    /// How many bytes from `at` on the log takes, to the last one that is not zero.
    fn used_from(&self, at: Lsn) -> Result<u64, OpenError> {
        let mut used = 0;
        self.each_from(at, |from, bytes| {
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                used = from.since(at) + to_u64(last) + 1;
            }
            Ok(())
        })?;
        Ok(used)
    }

    /// Calls `take` with every piece of the log from `at` on that there is, in order.
    fn each_from(&self, at: Lsn, mut take: impl FnMut(Lsn, &[u8]) -> Result<(), OpenError>) -> Result<(), OpenError> {
        for base in self.files.range(self.geometry.base(at)..).map(|(base, _)| *base) {
            let (mut from, end) = (at.max(base), self.geometry.segment_end(base));
            while from < end {
                let Some((begin, buf)) = self.read(from, end)? else { break };
                take(from, &buf[to_usize(from.since(begin))..])?;
                from = begin.plus(to_u64(buf.len()));
            }
        }
        Ok(())
    }

    /// Copies what is cut to its file, under a name that does not count before the cut is named.
    fn write_aside(&self, named: &Named) -> Result<(), OpenError> {
        let half_made = format!("{}{HALF_MADE_SUFFIX}", named.aside());
        let path = self.dir.join(&half_made);
        if files::exists(self.backend, self.dir, &half_made).map_err(failed("listing", self.dir))? {
            self.backend.remove(&path).map_err(failed("removing", &path))?;
        }
        let file = self.backend.open(&path, OpenMode::CreateNew).map_err(failed("making", &path))?;
        let len = align_up(named.bytes, to_u64(IO_ALIGN));
        file.allocate(len).map_err(failed("making", &path))?;
        // The file's first byte is the first that is cut, wherever that lies in its block.
        let mut waiting: Vec<u8> = Vec::new();
        let mut written = 0;
        let write = |waiting: &mut Vec<u8>, count: usize, written: &mut u64| {
            let count = count.min(to_usize(len - *written));
            if count > 0 {
                let buf = AlignedBuf::padded(&waiting[..count]);
                file.write_at(&buf, *written, false).map_err(failed("writing", &path))?;
                *written += to_u64(buf.len());
            }
            waiting.drain(..count);
            Ok::<(), OpenError>(())
        };
        self.each_from(named.at, |from, bytes| {
            if from.since(named.at) >= len {
                return Ok(());
            }
            waiting.extend_from_slice(bytes);
            let whole = waiting.len() - waiting.len() % IO_ALIGN;
            write(&mut waiting, whole, &mut written)
        })?;
        let rest = waiting.len();
        write(&mut waiting, rest, &mut written)?;
        file.sync().map_err(failed("writing", &path))?;
        self.backend.sync_dir(self.dir).map_err(failed("syncing", self.dir))
    }

    /// Nothing at `at` or behind can be read again.
    fn erase(&self, at: Lsn) -> Result<(), OpenError> {
        let base = self.geometry.base(at);
        for (gone, _) in self.files.range(base..).rev().filter(|(gone, _)| **gone > base) {
            let path = self.path(*gone);
            self.backend.remove(&path).map_err(failed("removing", &path))?;
        }
        self.backend.sync_dir(self.dir).map_err(failed("syncing", self.dir))?;
        let Some(file) = self.files.get(&base) else { return Ok(()) };
        let path = self.path(at);
        let mut offset = self.geometry.file_offset(at);
        let begin = align_down(offset, to_u64(IO_ALIGN));
        if begin < offset {
            let mut block = AlignedBuf::zeroed(IO_ALIGN);
            file.read_at(&mut block, begin).map_err(failed("reading", &path))?;
            block[to_usize(offset - begin)..].fill(0);
            file.write_at(&block, begin, true).map_err(failed("writing", &path))?;
            offset = begin + to_u64(IO_ALIGN);
        }
        while offset < self.geometry.segment_bytes {
            let len = to_u64(SCAN_READ_BYTES).min(self.geometry.segment_bytes - offset);
            file.write_at(&AlignedBuf::zeroed(to_usize(len)), offset, false).map_err(failed("writing", &path))?;
            offset += len;
        }
        file.sync().map_err(failed("writing", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_cut_comes_back_and_any_changed_byte_is_seen() {
        let named = Named { store_id: 5 << 70, at: Lsn(61_440), bytes: 99, number: 2 };
        let bytes = named.encode();
        assert_eq!(Named::decode(&bytes), Some(named));
        assert_eq!(named.aside(), "cut-00000000000000061440.aside.2");
        for at in 0..CRC_AT + 4 {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            assert_eq!(Named::decode(&changed), None);
        }
    }
}
