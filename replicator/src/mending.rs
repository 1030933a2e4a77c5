//! Mending a log that nobody has open, with what another node has of it: what stands behind `anchorlog log repair --from`, and behind a
//! node whose own log does not open.
//!
//! Invariants:
//! 1. Nothing of the other log is believed: what is fetched becomes a copy beside the log, and is judged as any other copy
//!    (`anchorlog_engine::audit::mend_from_copy`).
//! 2. No more is fetched than what is damaged, and what lies behind the log's end where a checkpoint says that there was more.
//! 3. The copy is of no use to anybody afterwards: its directory is left empty, and what a power failure left in it is removed first.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anchorlog_engine::audit::{self, MendReport, RepairError};
use anchorlog_engine::commitlog::manifest::Manifest;
use anchorlog_engine::commitlog::segment::{Geometry, SegmentHeader, file_name};
use anchorlog_engine::io::{AlignedBuf, IO_ALIGN, IoBackend, IoFile, OpenMode};
use anchorlog_engine::units::{align_down, align_up, to_u64};
use anchorlog_engine::{Lsn, OpenError};

use crate::control::{Control, ControlError};
use crate::message::{LogState, TAIL_BYTES_MAX};
use crate::transport::Security;

/// Where what is fetched lies, within the log's directory.
const COPY_NAME: &str = "mending";

/// How often damage is looked for again: a range that another one hides shows when that is mended.
const ROUNDS_MAX: usize = 16;

/// Why nothing, or no more, was mended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MendClosedError {
    /// The other node does not answer.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// It has no log that is whole.
    #[error("{0} has no log, or one that is not whole")]
    NoLog(String),
    /// What was fetched could not be kept.
    #[error("keeping what was fetched in {path}: {source}", path = path.display())]
    Io {
        /// On which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The log is not mended.
    #[error(transparent)]
    Repair(#[from] RepairError),
}

/// Whether another node's bytes may help a log that does not open for this reason.
#[must_use]
pub fn may_help(error: &OpenError) -> bool {
    const CASES: [&str; 7] = [
        "damage",
        "checkpoint-beyond-end",
        "unreadable",
        "missing-segment",
        "damaged-segment-header",
        "wrong-length",
        "wrong-base",
    ];
    error.case().is_some_and(|case| CASES.contains(&case.id))
}

/// Mends the log in `dir`, which nobody has open, as far as the node at `address` (its replicas' port) has whole what is damaged here.
///
/// # Errors
/// When that node does not answer, its log is another one, or the kernel refuses. Ranges for which it does not help are no error: see
/// [`MendReport::refused`].
pub fn mend_closed(
    backend: &dyn IoBackend,
    dir: &Path,
    address: &str,
    security: &Security,
) -> Result<MendReport, MendClosedError> {
    let mut control = Control::connect(address, security)?;
    let log = control.state()?.log.ok_or_else(|| MendClosedError::NoLog(address.to_owned()))?;
    let mut copy = Copy::begin(backend, dir, log)?;
    let mended = copy.mend(&mut control, dir);
    copy.empty()?;
    mended
}

/// What was fetched, as a directory that looks like a log.
struct Copy<'a> {
    backend: &'a dyn IoBackend,
    dir: PathBuf,
    log: LogState,
    manifest: Manifest,
    files: BTreeMap<Lsn, Arc<dyn IoFile>>,
}

impl Copy<'_> {
    fn begin<'a>(backend: &'a dyn IoBackend, dir: &Path, log: LogState) -> Result<Copy<'a>, MendClosedError> {
        let identity = log.identity;
        let geometry = Geometry { segment_bytes: identity.segment_bytes, tail: identity.tail };
        let (store_id, start, history) = (identity.store_id, log.start, log.history.clone());
        let manifest = Manifest { store_id, geometry, start, history };
        let dir = dir.join(COPY_NAME);
        let copy = Copy { backend, dir, log, manifest, files: BTreeMap::new() };
        copy.keep(backend.create_dir_all(&copy.dir))?;
        copy.empty()?;
        let stored = copy.manifest.store(backend, &copy.dir, true);
        stored.map_err(|(path, source)| MendClosedError::Io { path, source })?;
        Ok(copy)
    }

    fn keep<T>(&self, outcome: io::Result<T>) -> Result<T, MendClosedError> {
        outcome.map_err(|source| MendClosedError::Io { path: self.dir.clone(), source })
    }

    /// Fetches what is damaged and mends, as long as that helps.
    fn mend(&mut self, control: &mut Control, dir: &Path) -> Result<MendReport, MendClosedError> {
        // With nothing but a manifest: what is damaged, and mended without bytes.
        let mut all = audit::mend_from_copy(self.backend, dir, &self.dir)?;
        for _ in 0..ROUNDS_MAX {
            if all.after.is_clean() {
                break;
            }
            self.fetch(control, &all)?;
            let round = audit::mend_from_copy(self.backend, dir, &self.dir)?;
            let has_helped = !round.mended.is_empty();
            all.mended.extend(round.mended);
            (all.refused, all.after) = (round.refused, round.after);
            if !has_helped {
                break;
            }
        }
        Ok(all)
    }

    fn fetch(&mut self, control: &mut Control, found: &MendReport) -> Result<(), MendClosedError> {
        let geometry = self.manifest.geometry;
        // A file that is no part of the log may name any place.
        let of_log = || found.after.damage.iter().filter(|damage| !damage.is_stray());
        for damage in of_log() {
            self.fetch_range(control, damage.lsn, damage.resumes.unwrap_or_else(|| geometry.segment_end(damage.lsn)))?;
        }
        // Nothing here says how far the log went on behind a last place that is damaged; a checkpoint may.
        let Some(last) = of_log().next_back().filter(|damage| damage.resumes.is_none()) else { return Ok(()) };
        let mut base = geometry.segment_end(last.lsn);
        while base < self.log.durable && found.after.checkpoint.is_some_and(|checkpoint| base < checkpoint) {
            self.fetch_range(control, base, geometry.segment_end(base))?;
            base = geometry.segment_end(base);
        }
        Ok(())
    }

    /// Whole blocks, as far as the other log has them; what it has not stays zeros, and proves nothing.
    fn fetch_range(&mut self, control: &mut Control, from: Lsn, to: Lsn) -> Result<(), MendClosedError> {
        let block = to_u64(IO_ALIGN);
        let (mut at, end) = (Lsn(align_down(from.0, block)), to.min(self.log.durable));
        if from < self.log.start || from >= end {
            return Ok(());
        }
        let file = self.file(from)?;
        while at < end {
            let wanted = align_up(end.since(at), block).min(to_u64(TAIL_BYTES_MAX));
            let len = wanted.min(end.since(at));
            let bytes = control.range(at, u32::try_from(len).unwrap_or(u32::MAX))?;
            if to_u64(bytes.len()) == len {
                let offset = self.manifest.geometry.file_offset(at);
                self.keep(file.write_at(&AlignedBuf::padded(&bytes), offset, false))?;
            }
            at = at.plus(wanted);
        }
        self.keep(file.sync())
    }

    fn file(&mut self, lsn: Lsn) -> Result<Arc<dyn IoFile>, MendClosedError> {
        let Manifest { store_id, geometry, .. } = self.manifest;
        let base = geometry.base(lsn);
        if let Some(file) = self.files.get(&base) {
            return Ok(Arc::clone(file));
        }
        let make = || {
            let file = self.backend.open(&self.dir.join(file_name(base)), OpenMode::CreateNew)?;
            file.allocate(geometry.segment_bytes)?;
            file.write_at(&SegmentHeader { store_id, geometry, base }.encode(), 0, false)?;
            Ok(file)
        };
        let file = self.keep(make())?;
        self.files.insert(base, Arc::clone(&file));
        Ok(file)
    }

    fn empty(&self) -> Result<(), MendClosedError> {
        for name in self.keep(self.backend.list(&self.dir))? {
            self.keep(self.backend.remove(&self.dir.join(name)))?;
        }
        Ok(())
    }
}
