//! Mending what survives below the log's start, in a log that is not open.
//!
//! Invariants:
//! 1. No frame follows another there. A record is taken from a copy where its frame's header names it, by place and checksum; whatever of
//!    the two is whole here decides.
//! 2. A file that is there is put right in place, block by block: what is written over is the header block, which is known, or had not the
//!    checksum that it names. The power may fail between any two blocks. Nothing else of it changes, so nothing of it is kept aside.
//! 3. A file that is missing, or none of this log's, is made beside and named when it is durable; what had the name is kept.
//! 4. The derived store goes before anything else changes: it may have been made without what is mended now.
//!
//! Deliberately not here: which messages survive (the table says so), and the holes between them: opening punches those.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::audit::aside::{drop_derived, failed, move_aside, remove_half_made};
use crate::audit::files::{FoundSegment, LogFiles};
use crate::audit::give_up::GiveUpReport;
use crate::audit::repair::{MendReport, Mended, RepairError};
use crate::audit::survey::{Damage, Part, Survey};
use crate::commitlog::segment::SegmentHeader;
use crate::commitlog::segments::{HALF_MADE_SUFFIX, sparse_name};
use crate::io::{IoFile, OpenMode};
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::mend::{MendError, Survivor, bytes_of, proved_survivor, put, put_within, survivor};
use crate::retention::survivors;
use crate::units::{Lsn, to_u64};

type Patches = BTreeMap<Lsn, Vec<u8>>;

/// Mends what `report.after` has of damage below the start, as far as the copy proves itself; true when something changed.
pub(super) fn mend(log: &LogFiles<'_>, source: &LogFiles<'_>, report: &mut MendReport) -> Result<bool, RepairError> {
    let geometry = log.manifest.geometry;
    let mut by_segment: BTreeMap<Lsn, Vec<Damage>> = BTreeMap::new();
    for damage in report.after.damage.iter().filter(|damage| damage.is_survivor()) {
        by_segment.entry(geometry.base(damage.lsn)).or_default().push(damage.clone());
    }
    let before = report.mended.len();
    for (base, damage) in by_segment {
        let theirs = source.segments.get(&base).or_else(|| source.sparse.get(&base));
        let theirs = match theirs {
            Some(FoundSegment::Whole(file) | FoundSegment::Headless(file, _)) => Some(file),
            Some(FoundSegment::Foreign(_)) | None => None,
        };
        if damage.iter().any(|damage| damage.part == Part::SparseFile) {
            mend_file(log, theirs, base, report)?;
        } else {
            mend_places(log, theirs, &damage, base, report)?;
        }
    }
    Ok(report.mended.len() > before)
}

/// The derived store may have been made without what is mended now. Where it is the only witness of the log's end it stays.
fn drop_store(log: &LogFiles<'_>, survey: &Survey) -> Result<(), RepairError> {
    if survey.is_short() { Ok(()) } else { drop_derived(log.backend, &log.dir) }
}

/// What the copy has of a record here, and of its frame's header.
fn proved(
    log: &LogFiles<'_>,
    ours: Option<&Arc<dyn IoFile>>,
    theirs: Option<&Arc<dyn IoFile>>,
    base: Lsn,
    lsn: Lsn,
) -> Result<Survivor, String> {
    let theirs = theirs.ok_or("the copy has no such file")?;
    let geometry = log.manifest.geometry;
    let read = |file: &Arc<dyn IoFile>, at: Lsn, len: usize| bytes_of(&**file, geometry, at, len);
    let own = |at: Lsn, len: usize| ours.and_then(|ours| read(ours, at, len));
    let given = |at: Lsn, len: usize| read(theirs, at, len);
    proved_survivor(&log.manifest.history, &own, &given, base, lsn).map_err(|error| format!("the copy: {error}"))
}

/// Puts a header and records right within a file.
fn mend_places(
    log: &LogFiles<'_>,
    theirs: Option<&Arc<dyn IoFile>>,
    damage: &[Damage],
    base: Lsn,
    report: &mut MendReport,
) -> Result<(), RepairError> {
    let path = log.path(base);
    let ours = log.backend.open(&path, OpenMode::Existing).map_err(failed("opening", &path))?;
    for damage in damage {
        let mended = |to: Lsn| Mended { path: path.clone(), from: damage.lsn, to, aside: None };
        if damage.part == Part::SparseHeader {
            drop_store(log, &report.after)?;
            write_header(log, &ours, base, &path)?;
            report.mended.push(mended(damage.lsn));
            continue;
        }
        match proved(log, Some(&ours), theirs, base, damage.lsn) {
            Ok(found) => {
                let to = damage.lsn.plus(to_u64(found.record.len()));
                drop_store(log, &report.after)?;
                let patches = [(found.header.lsn, found.header_bytes), (damage.lsn, found.record)].into();
                write(log, &ours, &patches, &path)?;
                report.mended.push(mended(to));
            }
            Err(why) => report.refused.push((damage.lsn, why)),
        }
    }
    ours.sync().map_err(failed("writing", &path))
}

/// Makes a file with all that the copy has of what survives in it.
fn mend_file(
    log: &LogFiles<'_>,
    theirs: Option<&Arc<dyn IoFile>>,
    base: Lsn,
    report: &mut MendReport,
) -> Result<(), RepairError> {
    let list = report.after.survivors.get(&base).cloned();
    let mut patches = Patches::new();
    let mut refused = Vec::new();
    for lsn in list.iter().flat_map(|list| list.iter()).map(|code| survivors::decode(base, *code).0) {
        match proved(log, None, theirs, base, lsn) {
            Ok(found) => {
                patches.insert(found.header.lsn, found.header_bytes);
                patches.insert(lsn, found.record);
            }
            Err(why) => refused.push((lsn, why)),
        }
    }
    report.refused.append(&mut refused);
    // Without any of them it would be given up, and that is to be said by name. What no list names is only in the way.
    if list.is_some() && patches.is_empty() {
        return Ok(());
    }
    drop_store(log, &report.after)?;
    let aside = make(log, base, list.is_some().then_some(&patches))?;
    let to = log.manifest.geometry.segment_end(base);
    report.mended.push(Mended { path: log.path(base), from: base, to, aside });
    Ok(())
}

/// Puts a file of survivors in the place of what has its name, which is kept; none where nothing survives.
fn make(log: &LogFiles<'_>, base: Lsn, patches: Option<&Patches>) -> Result<Option<PathBuf>, RepairError> {
    let (backend, geometry) = (log.backend, log.manifest.geometry);
    let name = sparse_name(base);
    let new = log.dir.join(format!("{name}{HALF_MADE_SUFFIX}"));
    if let Some(patches) = patches {
        remove_half_made(backend, &log.dir, &name).map_err(failed("removing", &new))?;
        let file = backend.open(&new, OpenMode::CreateNew).map_err(failed("making", &new))?;
        let hollow = || {
            file.allocate(geometry.segment_bytes)?;
            match file.punch_hole(SEGMENT_HEADER_BYTES, geometry.data_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
                _ => Ok(()),
            }
        };
        hollow().map_err(failed("making", &new))?;
        write_header(log, &file, base, &new)?;
        write(log, &file, patches, &new)?;
        file.sync().map_err(failed("writing", &new))?;
    }
    let aside = log.sparse.contains_key(&base).then(|| move_aside(backend, &log.dir, &name)).transpose()?;
    if patches.is_some() {
        let path = log.dir.join(&name);
        let named = backend.rename(&new, &path).and_then(|()| backend.sync_dir(&log.dir));
        named.map_err(failed("renaming", &new))?;
    }
    Ok(aside)
}

fn write_header(log: &LogFiles<'_>, file: &Arc<dyn IoFile>, base: Lsn, path: &Path) -> Result<(), RepairError> {
    let header = SegmentHeader { store_id: log.manifest.store_id, geometry: log.manifest.geometry, base };
    put(file, 0, &header.encode(), path).map(drop).map_err(|error| of_mend(error, path))
}

fn write(log: &LogFiles<'_>, file: &Arc<dyn IoFile>, patches: &Patches, path: &Path) -> Result<(), RepairError> {
    for (lsn, patch) in patches {
        let offset = log.manifest.geometry.file_offset(*lsn);
        put_within(file, offset, patch, path).map_err(|error| of_mend(error, path))?;
    }
    Ok(())
}

fn of_mend(error: MendError, path: &Path) -> RepairError {
    match error {
        MendError::Io { what, path, source } => RepairError::Io { what, path, source },
        other => RepairError::Io { what: "mending", path: path.to_path_buf(), source: io::Error::other(other) },
    }
}

/// Gives up a file of survivors, or what of it cannot be read. A header block is written anew, and costs nothing.
pub(super) fn give_up(log: &LogFiles<'_>, survey: &Survey, lsn: Lsn) -> Result<GiveUpReport, RepairError> {
    let base = log.manifest.geometry.base(lsn);
    let mut report = GiveUpReport { from: lsn, to: lsn, lost: Vec::new(), survivors: Vec::new(), aside: Vec::new() };
    let part = survey.damage.iter().find(|damage| damage.is_survivor() && damage.lsn == lsn).map(|damage| damage.part);
    match part {
        Some(Part::SparseHeader) => {
            let path = log.path(base);
            let file = log.backend.open(&path, OpenMode::Existing).map_err(failed("opening", &path))?;
            drop_derived(log.backend, &log.dir)?;
            write_header(log, &file, base, &path)?;
        }
        Some(Part::SparseFile) => {
            report.to = log.manifest.geometry.segment_end(base);
            report.survivors = missing(log, survey, base);
            drop_derived(log.backend, &log.dir)?;
            let nothing = Patches::new();
            report.aside.extend(make(log, base, survey.survivors.contains_key(&base).then_some(&nothing))?);
        }
        // What was given up here before is said again.
        None if lsn == base && survey.survivors.contains_key(&base) => {
            report.survivors = missing(log, survey, base);
            if report.survivors.is_empty() {
                return Err(survey.not_there(lsn));
            }
            report.to = log.manifest.geometry.segment_end(base);
        }
        Some(_) => {
            let why = "opening does not refuse it, and it costs that message alone: only a copy brings it back";
            return Err(RepairError::NotGivenUp { lsn, why });
        }
        None => return Err(survey.not_there(lsn)),
    }
    Ok(report)
}

/// What should survive in a segment, and cannot be read.
fn missing(log: &LogFiles<'_>, survey: &Survey, base: Lsn) -> Vec<Lsn> {
    let Some(list) = survey.survivors.get(&base) else { return Vec::new() };
    let all = list.iter().map(|code| survivors::decode(base, *code).0);
    let Some(FoundSegment::Whole(file)) = log.sparse.get(&base) else { return all.collect() };
    let read = |at: Lsn, len: usize| bytes_of(&**file, log.manifest.geometry, at, len);
    all.filter(|lsn| survivor(&read, base, *lsn).is_err()).collect()
}
