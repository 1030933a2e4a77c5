//! Mending a log that opening refuses: from a copy, or by giving up what lies behind a place.
//!
//! Invariants:
//! 1. Nothing is taken from a copy that does not prove itself: same store id, geometry and epochs, whole frames, chained to the frames on
//!    both sides.
//! 2. A file is replaced as a whole: written beside, synced, renamed over the old one, directory synced; a copy of the old one is durable
//!    under another name before that. What survives below the log's start is put right in place (`survivors`).
//! 3. A cut takes effect with one replacement of the manifest: an epoch of its own begins at the cut, so that everything behind is stale.
//! 4. The derived store goes before anything else changes, and is made anew by the next opening. Only while a mend leaves the log short of
//!    where the last checkpoint ended it stays: nothing else says that something is missing there.
//!
//! ```text
//! mend:  [DERIVED away ->] copy aside -> new file .tmp -> rename over -> sync names       (for each damaged segment)
//!        in place, what survives below the start
//! cut:   DERIVED away -> copy aside the segment of the cut -> rename aside those behind, last first -> sync names -> manifest
//! ```

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::audit::aside::{drop_derived, failed, keep_aside, move_aside, write_beside};
use crate::audit::files::{FoundSegment, LogFiles, Trouble};
use crate::audit::survey::{Contents, Damage, Part, Survey, survey_files, survey_until};
use crate::audit::survivors;
use crate::audit::walk::{Step, Walk};
use crate::commitlog::manifest::{MANIFEST_NAME, Manifest};
use crate::commitlog::segment::{SegmentHeader, base_of, file_name};
use crate::epoch::{EpochHistory, EpochStart};
use crate::error::OpenError;
use crate::io::{AlignedBuf, IO_ALIGN, IoBackend, IoFile, OpenMode};
use crate::open::{lock, name_dense, read_manifest};
use crate::recovery::scan::read_blocks;
use crate::replica::{SIDE_NAME, SideBlock};
use crate::units::{Epoch, Lsn, QueueOffset, align_down, to_u64, to_usize};

/// Why nothing, or no more, was repaired. What was finished before stays; the same call may be made again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// The log, or the copy, cannot be looked at.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The kernel refused something.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The copy is not one of this log.
    #[error("{copy} is no copy of this log: {what}: expected {expected}, found {found}", copy = copy.display())]
    WrongCopy {
        /// The copy.
        copy: PathBuf,
        /// Which property.
        what: &'static str,
        /// What this log says.
        expected: String,
        /// What the copy says.
        found: String,
    },
    /// The LSN of a cut must be the one that verifying names first.
    #[error("nothing is damaged at LSN {asked} that could be given up so; {}", damaged_at(.first, .below))]
    NotThere {
        /// What was asked for.
        asked: Lsn,
        /// The first damaged place of the log.
        first: Option<Lsn>,
        /// The first damaged place among what survives below its start.
        below: Option<Lsn>,
    },
    /// The damaged place cannot be given up.
    #[error("LSN {lsn} cannot be given up: {why}")]
    NotGivenUp {
        /// The place.
        lsn: Lsn,
        /// Why.
        why: &'static str,
    },
    /// Nothing in front of the cut would be left to go on from.
    #[error("the cut at LSN {0} would leave no segment; restore the directory from a copy, or choose an empty one")]
    NothingLeft(Lsn),
}

fn damaged_at(first: &Option<Lsn>, below: &Option<Lsn>) -> String {
    match (first, below) {
        (Some(lsn), _) => format!("the first damaged place is LSN {lsn}"),
        (None, Some(lsn)) => format!(
            "what survives below the log's start is damaged at LSN {lsn}, and nothing else is: `--from-copy DIR` takes it from a copy, \
             `--give-up {lsn}` gives up what was in that file"
        ),
        (None, None) => "the log is whole".to_owned(),
    }
}

/// A damaged place that is whole again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// The file.
    pub path: PathBuf,
    /// The first and the last byte that came from the copy; equal when only a header block was written anew.
    pub from: Lsn,
    /// See `from`.
    pub to: Lsn,
    /// What was there before; `None` when nothing was.
    pub aside: Option<PathBuf>,
}

/// What [`mend_from_copy`] did.
#[derive(Clone, Debug)]
pub struct MendReport {
    /// Whether the manifest was taken from the copy.
    pub manifest: bool,
    /// What is whole again.
    pub mended: Vec<Mended>,
    /// Why the copy does not help, by damaged place.
    pub refused: Vec<(Lsn, String)>,
    /// The log as it is now.
    pub after: Survey,
}

/// What a cut gave up of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The queue.
    pub queue: Vec<u8>,
    /// The first offset given up: the next message gets it.
    pub from: QueueOffset,
    /// Behind the last one that is known of.
    pub to: QueueOffset,
}

/// What [`cut_from`] did.
#[derive(Clone, Debug)]
pub struct CutReport {
    /// The log ends here now.
    pub lsn: Lsn,
    /// It went on to here, as far as whole frames and the last checkpoint tell.
    pub known_end: Lsn,
    /// Whole frames and records given up.
    pub frames: u64,
    /// See `frames`.
    pub records: u64,
    /// Queues whose messages were given up, as far as whole frames behind the damage tell; what was in damaged ones may be more.
    pub lost: Vec<Lost>,
    /// What was replaced, under its new name.
    pub aside: Vec<PathBuf>,
}

/// Takes every damaged range of the log in `dir` from `copy`, a directory that holds a copy of it, as far as the copy proves itself.
///
/// # Errors
/// When it is no copy of this log, another process has the directory, or the kernel refuses. Ranges for which the copy does not help are no
/// error: see [`MendReport::refused`].
pub fn mend_from_copy(backend: &dyn IoBackend, dir: &Path, copy: &Path) -> Result<MendReport, RepairError> {
    let _lock = lock(backend, dir)?;
    let source = LogFiles::open(backend, copy)?;
    let (manifest, is_taken) = match read_manifest(backend, dir) {
        Ok(Some(manifest)) => (manifest, false),
        Ok(None) => (manifest_of_copy(backend, dir, &source)?, true),
        Err(error) if error.case().is_some_and(|case| case.id == "damaged-manifest") => {
            (manifest_of_copy(backend, dir, &source)?, true)
        }
        Err(error) => return Err(error.into()),
    };
    check_copy(&manifest, &source)?;
    // From here on the copy is read by this log's own epochs.
    let by_ours = Manifest { start: source.manifest.start, ..manifest.clone() };
    let source = LogFiles::with_manifest(backend, copy, by_ours)?;
    let log = LogFiles::with_manifest(backend, dir, manifest)?;
    let before = survey_files(&log)?;
    if is_taken {
        check_newest_epoch(&log, &source)?;
    }
    let mut report = MendReport { manifest: is_taken, mended: Vec::new(), refused: Vec::new(), after: before };
    let mut by_segment: BTreeMap<Lsn, Vec<Damage>> = BTreeMap::new();
    for damage in report.after.damage.iter().filter(|damage| !damage.is_survivor()) {
        by_segment.entry(log.manifest.geometry.base(damage.lsn)).or_default().push(damage.clone());
    }
    // What the last range that was taken ended with, so that a range that goes on in the next segment is chained to it.
    let mut reached = None;
    let mut plans = BTreeMap::new();
    for (base, damage) in by_segment {
        plans.insert(base, plan(&log, &source, base, &damage, &mut reached, &mut report)?);
    }
    go_on(&log, &source, &report.after, reached, &mut plans)?;
    plans.retain(|_, plan| plan.is_header || !plan.patches.is_empty());
    // A witness stays: what the last checkpoint covers may be gone, or come from the copy now.
    if !report.after.is_short() && (is_taken || !plans.is_empty()) {
        drop_derived(backend, dir)?;
    }
    if is_taken {
        let path = dir.join(MANIFEST_NAME);
        if backend.list(dir).map_err(failed("listing", dir))?.iter().any(|name| name == MANIFEST_NAME) {
            keep_aside(backend, dir, MANIFEST_NAME)?;
        }
        log.manifest.store(backend, dir, true).map_err(|(_, source)| RepairError::Io {
            what: "writing",
            path,
            source,
        })?;
    }
    if is_taken || !plans.is_empty() {
        name_dense(backend, dir, &backend.list(dir).map_err(failed("listing", dir))?, log.manifest.start, true)?;
    }
    // Last first: as long as a place in front is damaged, it shows that something must lie behind.
    for plan in plans.values().rev() {
        mend_segment(&log, &source, plan, &mut report)?;
    }
    let log = LogFiles::open(backend, dir)?;
    report.after = survey_files(&log)?;
    // Last: what survives, the log says that is whole by now.
    if survivors::mend(&log, &source, &mut report)? {
        report.after = survey_files(&LogFiles::open(backend, dir)?)?;
    }
    report.mended.sort_by_key(|mended| mended.from);
    Ok(report)
}

/// The copy's manifest for a log that has none, after a look at whose segments lie here.
fn manifest_of_copy(backend: &dyn IoBackend, dir: &Path, source: &LogFiles<'_>) -> Result<Manifest, RepairError> {
    for name in backend.list(dir).map_err(failed("listing", dir))?.iter().filter(|name| base_of(name).is_some()) {
        let path = dir.join(name);
        let mut block = AlignedBuf::zeroed(IO_ALIGN);
        let file = backend.open(&path, OpenMode::ReadOnly).map_err(failed("opening", &path))?;
        // One that is too short for a header is no segment of anybody's.
        if file.len().map_err(failed("reading", &path))? < to_u64(IO_ALIGN) {
            continue;
        }
        file.read_at(&mut block, 0).map_err(failed("reading", &path))?;
        if let Ok(header) = SegmentHeader::decode_buf(&block)
            && header.store_id != source.manifest.store_id
        {
            return Err(wrong_copy(
                source,
                "store id",
                format!("{:032x}", header.store_id),
                format!("{:032x}", source.manifest.store_id),
            ));
        }
    }
    Ok(source.manifest.clone())
}

fn wrong_copy(source: &LogFiles<'_>, what: &'static str, expected: String, found: String) -> RepairError {
    RepairError::WrongCopy { copy: source.dir.clone(), what, expected, found }
}

/// Identity, geometry, and every epoch that both know.
fn check_copy(manifest: &Manifest, source: &LogFiles<'_>) -> Result<(), RepairError> {
    let other = &source.manifest;
    if other.store_id != manifest.store_id {
        let hex = |id: u128| format!("{id:032x}");
        return Err(wrong_copy(source, "store id", hex(manifest.store_id), hex(other.store_id)));
    }
    if other.geometry != manifest.geometry {
        let (expected, found) = (format!("{:?}", manifest.geometry), format!("{:?}", other.geometry));
        return Err(wrong_copy(source, "geometry", expected, found));
    }
    for ours in manifest.history.starts() {
        let theirs = other.history.starts().iter().find(|theirs| theirs.epoch == ours.epoch);
        if let Some(theirs) = theirs.filter(|theirs| theirs.first_lsn != ours.first_lsn) {
            let (expected, found) =
                (format!("{} at LSN {}", ours.epoch, ours.first_lsn), format!("at LSN {}", theirs.first_lsn));
            return Err(wrong_copy(source, "first LSN of an epoch", expected, found));
        }
    }
    Ok(())
}

/// A manifest that does not know the newest epoch whose frames lie here would give its number to another run.
fn check_newest_epoch(log: &LogFiles<'_>, source: &LogFiles<'_>) -> Result<(), RepairError> {
    let known = log.manifest.history.last().map_or(Epoch::default(), |last| last.epoch);
    let free = LogFiles::with_manifest(
        log.backend,
        &log.dir,
        Manifest { history: EpochHistory::default(), ..log.manifest.clone() },
    )?;
    let mut newest = known;
    Walk::new(&free, None).run(log.manifest.start, &mut |step| {
        let epoch = match step {
            Step::Frame(header, _) => Some(header.epoch),
            Step::Broken(broken) => broken.epoch,
        };
        newest = newest.max(epoch.unwrap_or_default());
        ControlFlow::Continue(())
    })?;
    if newest > known {
        return Err(wrong_copy(source, "newest epoch of its manifest", newest.to_string(), known.to_string()));
    }
    Ok(())
}

/// A range of a segment that is put in the place of what is there.
pub(super) struct Patch {
    pub(super) from: Lsn,
    pub(super) to: Lsn,
}

/// How a segment is mended.
struct Plan {
    base: Lsn,
    patches: Vec<Patch>,
    /// Nothing of the file that is here is used.
    is_whole_file: bool,
    is_header: bool,
}

impl Plan {
    fn new(base: Lsn) -> Plan {
        Plan { base, patches: Vec::new(), is_whole_file: false, is_header: false }
    }
}

fn plan(
    log: &LogFiles<'_>,
    source: &LogFiles<'_>,
    base: Lsn,
    damage: &[Damage],
    reached: &mut Option<(Lsn, u32)>,
    report: &mut MendReport,
) -> Result<Plan, RepairError> {
    let mut plan = Plan::new(base);
    for damage in damage {
        match damage.part {
            Part::Header => plan.is_header = true,
            // See `audit::survivors`.
            Part::SparseFile | Part::SparseHeader | Part::Survivor => {}
            Part::Stray => {
                let why = format!("{} is no part of this log: move it away", damage.path.display());
                report.refused.push((damage.lsn, why));
            }
            Part::Order => report.refused.push((damage.lsn, "its frames are whole: a copy has the same".to_owned())),
            Part::File | Part::Frames => {
                let prev_crc = reached.filter(|(lsn, _)| *lsn == damage.lsn).map(|(_, crc)| crc).or(damage.prev_crc);
                match prove(source, log, damage, prev_crc)? {
                    Ok((to, crc)) => {
                        plan.is_whole_file |= damage.part == Part::File;
                        *reached = Some((to, crc));
                        plan.patches.push(Patch { from: damage.lsn, to });
                    }
                    Err(why) => report.refused.push((damage.lsn, why)),
                }
            }
        }
    }
    Ok(plan)
}

/// Takes what the copy holds behind the end of this log. An end says nothing of what was lost behind it; frames of this log's own epochs
/// that are chained to it do.
fn go_on(
    log: &LogFiles<'_>,
    source: &LogFiles<'_>,
    survey: &Survey,
    reached: Option<(Lsn, u32)>,
    plans: &mut BTreeMap<Lsn, Plan>,
) -> Result<(), RepairError> {
    let geometry = log.manifest.geometry;
    let is_open = survey.damage.last().is_some_and(|damage| damage.resumes.is_none());
    let (mut at, mut crc) = match (is_open, reached, survey.end_crc) {
        (true, Some((lsn, crc)), _) => (lsn, crc),
        (false, _, Some(crc)) => (survey.contents.end, crc),
        _ => return Ok(()),
    };
    while !is_open || at == geometry.base(at) {
        let is_file = log.file(at).is_err();
        let part = if is_file { Part::File } else { Part::Frames };
        let trouble = Trouble { expected: "what the copy has".to_owned(), found: "the end".to_owned() };
        let end =
            Damage { path: log.path(at), lsn: at, resumes: None, trouble, part, prev_crc: None, next_prev_crc: None };
        let Ok((to, to_crc)) = prove(source, log, &end, Some(crc))? else { break };
        let base = geometry.base(at);
        let plan = plans.entry(base).or_insert_with(|| Plan::new(base));
        plan.is_whole_file |= is_file;
        plan.patches.push(Patch { from: at, to });
        (at, crc) = (to, to_crc);
        if at != geometry.base(at) {
            break;
        }
    }
    Ok(())
}

fn mend_segment(
    log: &LogFiles<'_>,
    source: &LogFiles<'_>,
    plan: &Plan,
    report: &mut MendReport,
) -> Result<(), RepairError> {
    let base = plan.base;
    let name = file_name(base);
    let path = log.dir.join(&name);
    let ours = if plan.is_whole_file { None } else { log.file(base).ok() };
    let aside = match (log.segments.contains_key(&base), plan.is_whole_file) {
        (false, _) => None,
        (true, true) => Some(move_aside(log.backend, &log.dir, &name)?),
        (true, false) => Some(keep_aside(log.backend, &log.dir, &name)?.path),
    };
    let theirs = source.file(base).ok();
    let geometry = log.manifest.geometry;
    let rewritten = rewrite(log, base, ours, &plan.patches, &mut |len, at| {
        let theirs = theirs.expect("a range is proved by a file");
        let from = geometry.file_offset(base) + at.since(base);
        let aligned = align_down(from, to_u64(IO_ALIGN));
        let mut piece = AlignedBuf::zeroed(to_usize((from + len - aligned).next_multiple_of(to_u64(IO_ALIGN))));
        theirs.read_at(&mut piece, aligned)?;
        Ok(piece[to_usize(from - aligned)..].to_vec())
    });
    rewritten.map_err(failed("mending", &path))?;
    let header = plan.is_header.then_some((base, base));
    for (from, to) in header.into_iter().chain(plan.patches.iter().map(|patch| (patch.from, patch.to))) {
        report.mended.push(Mended { path: path.clone(), from, to, aside: aside.clone() });
    }
    Ok(())
}

/// Whether the copy has the damaged range whole, between the frames that lie on both sides of it here: then where it ends and the chain
/// value it ends with.
fn prove(
    source: &LogFiles<'_>,
    log: &LogFiles<'_>,
    damage: &Damage,
    prev_crc: Option<u32>,
) -> Result<Result<(Lsn, u32), String>, RepairError> {
    let segment_end = log.manifest.geometry.segment_end(damage.lsn);
    let to = damage.resumes.unwrap_or(segment_end);
    let (mut end, mut crc, mut broken) = (damage.lsn, None, None);
    if let Err(trouble) = source.file(damage.lsn) {
        return Ok(Err(format!("the copy has no such file: expected {}, found {}", trouble.expected, trouble.found)));
    }
    Walk::new(source, prev_crc).run(damage.lsn, &mut |step| {
        match step {
            Step::Frame(header, _) if header.lsn < to => {
                end = header.lsn.plus(u64::from(header.frame_len));
                crc = Some(header.header_crc);
                return ControlFlow::Continue(());
            }
            Step::Frame(..) => {}
            Step::Broken(place) if place.lsn < to => broken = Some(place),
            Step::Broken(_) => {}
        }
        ControlFlow::Break(())
    })?;
    // What is too short for a frame is zeros.
    if segment_end.since(end) < to_u64(crate::commitlog::frame::FRAME_HEADER_BYTES) {
        end = segment_end;
    }
    let Some(crc) = crc else {
        let why = broken.map_or_else(|| "no frame".to_owned(), |place| place.trouble.found);
        return Ok(Err(format!("the copy has at LSN {}: {why}", damage.lsn)));
    };
    if let Some(expected) = damage.resumes {
        if end != expected {
            return Ok(Err(format!("the copy is whole to LSN {end} only, not to LSN {expected}")));
        }
        if let Some(next) = damage.next_prev_crc
            && next != crc
        {
            return Ok(Err(format!(
                "the frame at LSN {expected} follows {next:#010x}, the copy ends with {crc:#010x}"
            )));
        }
    }
    Ok(Ok((end, crc)))
}

/// Writes a segment anew: its header, what is here, and over it ranges of which `piece` gives so many bytes, or more, from an LSN on.
pub(super) fn rewrite(
    log: &LogFiles<'_>,
    base: Lsn,
    ours: Option<&Arc<dyn IoFile>>,
    patches: &[Patch],
    piece: &mut dyn FnMut(u64, Lsn) -> io::Result<Vec<u8>>,
) -> io::Result<()> {
    let geometry = log.manifest.geometry;
    let header = SegmentHeader { store_id: log.manifest.store_id, geometry, base };
    let place = |lsn: Lsn| geometry.file_offset(base) + lsn.since(base);
    let fill = |offset: u64, buf: &mut AlignedBuf| {
        if let Some(ours) = ours
            && ours.read_at(buf, offset).is_err()
        {
            read_blocks(&**ours, offset, buf, &mut BTreeMap::new());
        }
        let end = offset + to_u64(buf.len());
        for patch in patches {
            let (from, to) = (place(patch.from).max(offset), place(patch.to).min(end));
            if from < to {
                let bytes = piece(to - from, base.plus(from - geometry.file_offset(base)))?;
                let place = to_usize(from - offset)..to_usize(to - offset);
                buf[place].copy_from_slice(&bytes[..to_usize(to - from)]);
            }
        }
        if offset == 0 {
            buf[..IO_ALIGN].copy_from_slice(&header.encode());
        }
        Ok(())
    };
    write_beside(log.backend, &log.dir, &file_name(base), geometry.segment_bytes, fill)
}

/// Ends the log in `dir` at `lsn`, which must be the first damaged place: what lies behind, whole or not, is given up.
///
/// # Errors
/// When `lsn` is another place, nothing would be left, another process has the directory, or the kernel refuses.
pub fn cut_from(backend: &dyn IoBackend, dir: &Path, lsn: Lsn) -> Result<CutReport, RepairError> {
    let _lock = lock(backend, dir)?;
    let log = LogFiles::open(backend, dir)?;
    let all = survey_files(&log)?;
    let mut report = CutReport { lsn, known_end: lsn, frames: 0, records: 0, lost: Vec::new(), aside: Vec::new() };
    let first = all.first_cut();
    // A cut that was cut short, or finished before, has left an end where the damage was.
    let is_again = first.is_none() && all.contents.end == lsn;
    if first != Some(lsn) && !is_again {
        return Err(all.not_there(lsn));
    }
    let start = log.manifest.start;
    if lsn == start && !matches!(log.segments.get(&start), Some(FoundSegment::Whole(_))) {
        return Err(RepairError::NothingLeft(lsn));
    }
    let kept = survey_until(&log, lsn)?.contents;
    report.known_end = all.contents.end.max(lsn).max(all.checkpoint.unwrap_or_default());
    report.frames = all.contents.frames.values().sum::<u64>() - kept.frames.values().sum::<u64>();
    report.records = all.contents.records.values().sum::<u64>() - kept.records.values().sum::<u64>();
    report.lost = lost(&kept, &all.contents);
    let began = log.manifest.history.last();
    let is_done = is_again && began.is_some_and(|last| last.first_lsn == lsn);
    if is_done {
        return Ok(report);
    }
    drop_derived(backend, dir)?;
    // What a replica's disk had is given up, too.
    let side = dir.join(SIDE_NAME);
    SideBlock::remove(backend, dir).map_err(failed("removing", &side))?;
    name_dense(backend, dir, &backend.list(dir).map_err(failed("listing", dir))?, start, true)?;

    let base = log.manifest.geometry.base(lsn);
    if !is_again && (base < lsn || base == start) && log.segments.contains_key(&base) {
        let kept = keep_aside(backend, dir, &file_name(base))?;
        report.aside.push(kept.path);
        if kept.unreadable_count > 0 {
            // Opening reads on behind the cut; written anew, it can.
            let path = log.path(base);
            let nothing = &mut |_, _| Ok(Vec::new());
            rewrite(&log, base, log.file(base).ok(), &[], nothing).map_err(failed("writing", &path))?;
        }
    }
    // Last first: whatever is left when the power fails, no file is missing between others.
    for base in log.segments.range(lsn..).rev().map(|(base, _)| *base).filter(|base| !is_again && *base > start) {
        report.aside.push(move_aside(backend, dir, &file_name(base))?);
    }
    // What is only prepared is not part of the log: without it the log ends where it did.
    let is_behind_end = kept.end < lsn;
    if !is_behind_end {
        report.aside.push(keep_aside(backend, dir, MANIFEST_NAME)?.path);
        let mut history = EpochHistory::default();
        for start in log.manifest.history.starts().iter().filter(|start| start.first_lsn < lsn) {
            history.push(*start);
        }
        let last = began.map_or(Epoch::default(), |last| last.epoch);
        history.push(EpochStart { epoch: Epoch { run: last.run + 1, ..last }, first_lsn: lsn });
        let manifest = Manifest { history, ..log.manifest.clone() };
        manifest.store(backend, dir, true).map_err(|(path, source)| RepairError::Io {
            what: "writing",
            path,
            source,
        })?;
    }
    Ok(report)
}

/// Queues that reach further in `all` than in `kept`.
fn lost(kept: &Contents, all: &Contents) -> Vec<Lost> {
    let queues = all.queues.iter().filter_map(|(key, queue)| {
        let from = kept.queues.get(key).map_or(queue.min.unwrap_or(queue.next), |kept| kept.next);
        (queue.next > from).then(|| Lost { queue: key.0.clone(), from, to: queue.next })
    });
    queues.collect()
}
