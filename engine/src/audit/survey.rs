//! Everything that a log holds, and every place where it is not whole.
//!
//! What opening decides at the first place that is not whole is decided here for all of them: a place is damaged when the newest epoch, the
//! last checkpoint, a frame behind it or a replica's side block says that it was durable; the first one that is not is where the log ends.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::audit::files::{FoundSegment, LogFiles, Trouble};
use crate::audit::repair::RepairError;
use crate::audit::walk::{Broken, Step, Walk};
use crate::checkpoint;
use crate::commitlog::frame::{FRAME_HEADER_BYTES, FrameHeader, RecordEntry};
use crate::commitlog::manifest::Manifest;
use crate::commitlog::record::{self, Record, RecordKind};
use crate::error::OpenError;
use crate::io::IoBackend;
use crate::open::{Survivor, io_error, load_side};
use crate::replica::{self, Promise, PromiseError, SEED_NAME};
use crate::retention::survivors::{self, List};
use crate::units::{Lsn, QueueOffset, to_u64};

/// One damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where in the log it begins.
    pub lsn: Lsn,
    /// The next whole frame, or the segment's end; `None` when nothing whole follows in the whole log.
    pub resumes: Option<Lsn>,
    /// What does not fit.
    pub trouble: Trouble,
    pub(crate) part: Part,
    /// The chain value that leads to it, where that is known.
    pub(crate) prev_crc: Option<u32>,
    /// The chain value that `resumes` names.
    pub(crate) next_prev_crc: Option<u32>,
}

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The whole file.
    File,
    /// The segment's header block only.
    Header,
    /// From `lsn` to `resumes`.
    Frames,
    /// Whole records that contradict each other.
    Order,
    /// A file with messages that survive below the log's start: it is missing, or another log's.
    SparseFile,
    /// The header block of such a file.
    SparseHeader,
    /// One of the messages.
    Survivor,
    /// A file that is in the way: at a place where no segment begins, or that the log does not reach.
    Stray,
}

impl Damage {
    /// Whether only a segment's header block is damaged: it is known, and written anew without loss ([`crate::audit::give_up`]).
    #[must_use]
    pub fn is_header(&self) -> bool {
        matches!(self.part, Part::Header | Part::SparseHeader)
    }

    /// Whether it concerns what survives below the log's start.
    #[must_use]
    pub fn is_survivor(&self) -> bool {
        matches!(self.part, Part::SparseFile | Part::SparseHeader | Part::Survivor)
    }

    /// Whether it is a file that is no part of the log: it is to be moved away.
    #[must_use]
    pub fn is_stray(&self) -> bool {
        self.part == Part::Stray
    }

    /// Whether [`crate::audit::give_up`] takes it: what follows is kept.
    #[must_use]
    pub fn can_be_given_up(&self) -> bool {
        match self.part {
            Part::File | Part::Frames => self.resumes.is_some(),
            Part::Header | Part::SparseFile | Part::SparseHeader => true,
            Part::Order | Part::Survivor | Part::Stray => false,
        }
    }
}

/// One queue as the log tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueContents {
    /// The lowest offset of a message that is there.
    pub min: Option<QueueOffset>,
    /// The offset of the next message.
    pub next: QueueOffset,
    /// Messages, links among them.
    pub messages: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// Whether it was dropped: then nobody sees its messages any more.
    pub is_dropped: bool,
}

/// One segment as the log tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentContents {
    /// Whole frames.
    pub frames: u64,
    /// Behind its last whole frame.
    pub end: Lsn,
}

/// What whole frames say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Frames by the name of their kind.
    pub frames: BTreeMap<&'static str, u64>,
    /// Records by the name of their kind.
    pub records: BTreeMap<&'static str, u64>,
    /// Queues by name and incarnation.
    pub queues: BTreeMap<(Vec<u8>, u32), QueueContents>,
    /// How many messages survive of released segments, by base LSN.
    pub survivors: BTreeMap<Lsn, usize>,
    /// Segments by base LSN; those that are only prepared are left out.
    pub segments: BTreeMap<Lsn, SegmentContents>,
    /// Behind the last frame.
    pub end: Lsn,
    /// The highest durable and acked marks.
    pub durable_lsn: Lsn,
    /// See `durable_lsn`.
    pub acked_lsn: Lsn,
    /// Store times of the first and the last frame.
    pub store_time_ms: Option<(u64, u64)>,
}

/// What [`survey`] found.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The manifest: identity, geometry, first LSN, epoch history.
    pub manifest: Manifest,
    /// What the log holds; where it is damaged, what is whole behind as well.
    pub contents: Contents,
    /// Damaged places in the order of the log.
    pub damage: Vec<Damage>,
    /// Bytes behind the end that look like frames: of a torn tail, or of a group that is being written.
    pub torn_bytes: u64,
    /// Prepared segments behind the end.
    pub prepared_count: usize,
    /// How far the last checkpoint says that the log was durable, where there is one that can be believed.
    pub checkpoint: Option<Lsn>,
    /// Whether the log went on, or let go of segments, while it was read.
    pub is_moving: bool,
    /// The chain value at the end, where it is known.
    pub(crate) end_crc: Option<u32>,
    /// Whatever else opening refuses here, beside the log's own bytes: what it would say.
    pub refused: Vec<String>,
    /// What the log says survives below its start.
    pub(crate) survivors: BTreeMap<Lsn, List>,
}

impl Survey {
    /// Whether opening finds nothing to refuse.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty() && self.refused.is_empty()
    }

    /// Where the log can be cut: the first damaged place of its dense part.
    #[must_use]
    pub fn first_cut(&self) -> Option<Lsn> {
        let of_log = self.damage.iter().find(|damage| !damage.is_survivor() && !damage.is_stray());
        of_log.map(|damage| damage.lsn)
    }

    /// Whether the log ends before the last checkpoint does, which then is the only witness of it.
    pub(crate) fn is_short(&self) -> bool {
        self.checkpoint.is_some_and(|checkpoint| checkpoint > self.contents.end)
    }

    /// What is damaged instead.
    pub(crate) fn not_there(&self, asked: Lsn) -> RepairError {
        let below = self.damage.iter().find(|damage| damage.is_survivor()).map(|damage| damage.lsn);
        RepairError::NotThere { asked, first: self.first_cut(), below }
    }
}

/// Reads the whole log in `dir`.
///
/// # Errors
/// When it cannot be read at all: no manifest, a damaged one, or the kernel refuses. A damaged segment is no error but a result.
pub fn survey(backend: &dyn IoBackend, dir: &Path) -> Result<Survey, OpenError> {
    let log = LogFiles::open(backend, dir)?;
    let mut survey = survey_files(&log)?;
    // A process that has the log open goes on writing and releasing: what looked damaged may have been on its way.
    let again = LogFiles::open(backend, dir)?;
    let found = survey.damage.len();
    let goes_on = frame_begins(&again, survey.contents.end, None)?;
    let mut confirmed = Vec::with_capacity(found);
    for damage in survey.damage {
        let is_confirmed = match damage.part {
            // The log that goes on may have let go of them.
            Part::SparseFile | Part::SparseHeader | Part::Survivor => !goes_on,
            Part::Stray => true,
            _ => damage.lsn >= again.manifest.start && is_still_there(&again, &damage)?,
        };
        if is_confirmed {
            confirmed.push(damage);
        }
    }
    survey.damage = confirmed;
    survey.is_moving = survey.damage.len() != found || goes_on;
    Ok(survey)
}

fn is_still_there(log: &LogFiles<'_>, damage: &Damage) -> Result<bool, OpenError> {
    Ok(match damage.part {
        Part::Header => matches!(log.segments.get(&damage.lsn), Some(FoundSegment::Headless(..))),
        // Its frames were whole.
        Part::Order | Part::SparseFile | Part::SparseHeader | Part::Survivor | Part::Stray => true,
        Part::File | Part::Frames => !frame_begins(log, damage.lsn, damage.prev_crc)?,
    })
}

/// Whether a whole frame that follows `prev_crc` begins there.
fn frame_begins(log: &LogFiles<'_>, lsn: Lsn, prev_crc: Option<u32>) -> Result<bool, OpenError> {
    let mut begins = false;
    Walk::new(log, prev_crc).run(lsn, &mut |step| {
        begins = matches!(step, Step::Frame(header, _) if header.lsn == lsn);
        ControlFlow::Break(())
    })?;
    Ok(begins)
}

/// A place that is not whole, and what was known when it was met.
struct Suspect {
    broken: Broken,
    path: PathBuf,
    /// The next whole frame: where, and the chain value that it names.
    next: Option<(Lsn, u32)>,
    /// What the log held before it; `None` once a mark says that it is damage. Those between which there is no frame share it.
    contents: Option<Arc<Contents>>,
}

/// Reads all that is there.
pub(crate) fn survey_files(log: &LogFiles<'_>) -> Result<Survey, OpenError> {
    survey_until(log, Lsn::MAX)
}

/// Reads what is there below `until`.
pub(crate) fn survey_until(log: &LogFiles<'_>, until: Lsn) -> Result<Survey, OpenError> {
    // Before the log is read: what it covers was durable then, and is met.
    let checkpoint = checkpoint::peek(log.backend, &log.dir, &log.manifest);
    let side = load_side(log.backend, &log.dir, &log.manifest)?.map(|side| side.durable);
    let mut contents = Contents { end: log.manifest.start, ..Contents::default() };
    let mut suspects: Vec<Suspect> = Vec::new();
    let mut orders: Vec<Damage> = Vec::new();
    let mut due: BTreeMap<(Vec<u8>, u32), QueueOffset> = BTreeMap::new();
    let mut lists = Lists::new();
    Walk::new(log, None).run(log.manifest.start, &mut |step| {
        match step {
            Step::Frame(header, _) if header.lsn >= until => return ControlFlow::Break(()),
            Step::Frame(header, bytes) => {
                if let Some(last) = suspects.last_mut() {
                    last.next.get_or_insert((header.lsn, header.prev_crc));
                }
                for suspect in suspects.iter_mut().rev().take_while(|suspect| suspect.contents.is_some()) {
                    if suspect.broken.lsn < side.unwrap_or(header.durable_lsn) {
                        suspect.contents = None;
                    }
                }
                let mut out_of_turn = None;
                for (lsn, entry, record) in record::of_frame(header, bytes) {
                    note_survivors(&mut lists, &record);
                    let trouble = count_record(&mut contents, &mut due, lsn, entry, &record);
                    out_of_turn = out_of_turn.or(trouble);
                }
                orders.extend(out_of_turn.map(|trouble| Damage {
                    path: log.path(header.lsn),
                    lsn: header.lsn,
                    resumes: Some(header.lsn.plus(u64::from(header.frame_len))),
                    trouble,
                    part: Part::Order,
                    prev_crc: None,
                    next_prev_crc: None,
                }));
                count_frame(log, &mut contents, header);
            }
            Step::Broken(broken) => {
                due.clear();
                let path = log.path(broken.lsn);
                let shared = suspects.last().filter(|last| last.next.is_none()).and_then(|last| last.contents.clone());
                let contents = shared.unwrap_or_else(|| Arc::new(contents.clone()));
                suspects.push(Suspect { path, broken, next: None, contents: Some(contents) });
            }
        }
        ControlFlow::Continue(())
    })?;
    let mut survey = judge(log, contents, &suspects, orders, checkpoint, side);
    lists.retain(|base, _| *base < log.manifest.start);
    let mut damage = survivors_damage(log, &mut survey.contents, &lists);
    survey.survivors = lists;
    damage.append(&mut survey.damage);
    survey.damage = damage;
    survey.refused = refused_beside(log)?.iter().map(OpenError::to_string).collect();
    Ok(survey)
}

/// What a file beside the log keeps it shut for.
fn refused_beside(log: &LogFiles<'_>) -> Result<Vec<OpenError>, OpenError> {
    let (backend, dir) = (log.backend, &*log.dir);
    let names = backend.list(dir).map_err(io_error("listing", dir))?;
    let mut refused = Vec::new();
    if names.iter().any(|name| name == SEED_NAME) {
        refused.push(OpenError::HalfSeeded { dir: dir.to_path_buf() });
    }
    match replica::named_cut(backend, dir) {
        Err(error @ OpenError::Contradiction { .. }) => refused.push(error),
        other => drop(other?),
    }
    // Whatever term it is for, a whole promise opens a log that follows, or leads in a higher one.
    let asked = log.manifest.history.last().map_or(0, |last| last.epoch.term);
    match Promise::load(backend, dir) {
        Ok(_) => {}
        Err(PromiseError::Io { path, source }) => return Err(OpenError::Io { what: "reading", path, source }),
        Err(error) => {
            refused.push(OpenError::Promised { dir: dir.to_path_buf(), asked, promised: error.to_string() });
        }
    }
    Ok(refused)
}

/// The lists of survivors by base LSN, as the log says last: codes, not looked at further.
type Lists = BTreeMap<Lsn, List>;

/// Looks at what survives below the start.
fn survivors_damage(log: &LogFiles<'_>, contents: &mut Contents, lists: &Lists) -> Vec<Damage> {
    let mut found = Vec::new();
    let mut damaged = |base: Lsn, lsn: Lsn, part: Part, trouble: Trouble| {
        let path = log.path(base);
        found.push(Damage { path, lsn, resumes: None, trouble, part, prev_crc: None, next_prev_crc: None });
    };
    for (base, segment) in &log.sparse {
        match segment {
            FoundSegment::Whole(_) => {}
            FoundSegment::Headless(_, trouble) => damaged(*base, *base, Part::SparseHeader, trouble.clone()),
            FoundSegment::Foreign(trouble) => damaged(*base, *base, Part::SparseFile, trouble.clone()),
        }
    }
    for (base, list) in lists {
        contents.survivors.insert(*base, list.len());
        let expected = || "a message that survives".to_owned();
        match log.sparse.get(base) {
            None => {
                let trouble = Trouble { expected: "a segment file".to_owned(), found: "none".to_owned() };
                damaged(*base, *base, Part::SparseFile, trouble);
            }
            Some(FoundSegment::Whole(file) | FoundSegment::Headless(file, _)) => {
                for code in list.iter() {
                    let (lsn, _) = survivors::decode(*base, *code);
                    if let Err(found) = Survivor::read(file, log.manifest.geometry, lsn) {
                        damaged(*base, lsn, Part::Survivor, Trouble { expected: expected(), found });
                    }
                }
            }
            Some(FoundSegment::Foreign(_)) => {}
        }
    }
    found.sort_by_key(|damage| damage.lsn);
    found
}

/// Takes over what a record says of survivors.
fn note_survivors(lists: &mut Lists, record: &Record<'_>) {
    let Some(base) = survivors::base_of_key(record.name) else { return };
    match record.kind {
        RecordKind::Put => drop(lists.insert(base, survivors::decode_list(record.payload))),
        RecordKind::Delete => drop(lists.remove(&base)),
        _ => {}
    }
}

fn count_frame(log: &LogFiles<'_>, contents: &mut Contents, header: &FrameHeader) {
    *contents.frames.entry(header.kind.name()).or_default() += 1;
    let geometry = log.manifest.geometry;
    contents.end = header.lsn.plus(u64::from(header.frame_len));
    let rest = geometry.segment_end(header.lsn).since(contents.end);
    if rest < to_u64(FRAME_HEADER_BYTES) {
        contents.end = contents.end.plus(rest);
    }
    let segment = contents.segments.entry(geometry.base(header.lsn)).or_default();
    segment.frames += 1;
    segment.end = contents.end;
    contents.durable_lsn = contents.durable_lsn.max(header.durable_lsn);
    contents.acked_lsn = contents.acked_lsn.max(header.acked_lsn);
    let first = contents.store_time_ms.map_or(header.store_time_ms, |(first, _)| first);
    contents.store_time_ms = Some((first, header.store_time_ms));
}

/// Counts a record; says when its queue offset does not follow.
fn count_record(
    contents: &mut Contents,
    due: &mut BTreeMap<(Vec<u8>, u32), QueueOffset>,
    lsn: Lsn,
    entry: RecordEntry,
    record: &Record<'_>,
) -> Option<Trouble> {
    *contents.records.entry(record.kind.name()).or_default() += 1;
    if matches!(record.kind, RecordKind::EpochHistory | RecordKind::Put | RecordKind::Delete) {
        return None;
    }
    let key = (record.name.to_vec(), record.incarnation);
    let queue = contents.queues.entry(key.clone()).or_default();
    let (found, next) = match record.kind {
        RecordKind::Append | RecordKind::Link => {
            queue.min.get_or_insert(entry.queue_offset);
            queue.messages += 1;
            queue.bytes += u64::from(entry.len);
            (entry.queue_offset, QueueOffset(entry.queue_offset.0 + 1))
        }
        RecordKind::DropQueue => {
            queue.is_dropped = true;
            return None;
        }
        RecordKind::Lost => {
            if record.name.is_empty() {
                contents.queues.remove(&key);
                return None;
            }
            queue.next = entry.queue_offset;
            let expected = due.insert(key, entry.queue_offset)?;
            return (expected > entry.queue_offset).then(|| Trouble {
                expected: format!("at least offset {expected} of {}", String::from_utf8_lossy(record.name)),
                found: format!("offset {} at LSN {lsn}", entry.queue_offset),
            });
        }
        _ => {
            let next = QueueOffset(record.payload.first_chunk().map_or(0, |next| u64::from_le_bytes(*next)));
            (next, next)
        }
    };
    queue.next = next;
    let expected = due.insert(key, next)?;
    (expected != found).then(|| Trouble {
        expected: format!("offset {expected} of {}", String::from_utf8_lossy(record.name)),
        found: format!("offset {found} at LSN {lsn}"),
    })
}

/// Which suspects are damage, and where the log ends.
fn judge(
    log: &LogFiles<'_>,
    mut contents: Contents,
    suspects: &[Suspect],
    orders: Vec<Damage>,
    checkpoint: Option<Lsn>,
    side: Option<Lsn>,
) -> Survey {
    let geometry = log.manifest.geometry;
    let began = log.manifest.history.last().map_or(Lsn::ZERO, |last| last.first_lsn);
    // In a replica's log the marks are of another disk.
    let evidence = side.unwrap_or(contents.durable_lsn).max(began).max(checkpoint.unwrap_or_default());
    let last_frame_end = contents.end;
    let mut damage: Vec<Damage> = Vec::new();
    for (base, segment) in &log.segments {
        if let FoundSegment::Headless(_, trouble) = segment {
            damage.push(Damage {
                path: log.path(*base),
                lsn: *base,
                resumes: Some(*base),
                trouble: trouble.clone(),
                part: Part::Header,
                prev_crc: None,
                next_prev_crc: None,
            });
        }
    }
    let mut end: Option<&Suspect> = None;
    for (index, suspect) in suspects.iter().enumerate() {
        let broken = &suspect.broken;
        let next = suspects[index..].iter().find_map(|suspect| suspect.next);
        // Opening looks at every file's header, wherever the log ends.
        let is_foreign = matches!(log.segments.get(&broken.lsn), Some(FoundSegment::Foreign(_)));
        let is_below_end = end.is_none()
            && (broken.lsn < evidence || broken.is_form || is_foreign || (broken.is_file && next.is_some()));
        if !is_below_end {
            end.get_or_insert(suspect);
            if !is_foreign {
                continue;
            }
        }
        let resumes = broken.resumes.or_else(|| next.map(|_| geometry.segment_end(broken.lsn)));
        damage.push(Damage {
            path: suspect.path.clone(),
            lsn: broken.lsn,
            resumes,
            trouble: broken.trouble.clone(),
            part: if broken.is_file { Part::File } else { Part::Frames },
            prev_crc: broken.prev_crc,
            next_prev_crc: next.filter(|(lsn, _)| Some(*lsn) == resumes).map(|(_, crc)| crc),
        });
    }
    let in_the_way = |lsn: Lsn, path: PathBuf, trouble: &Trouble| Damage {
        path,
        lsn,
        resumes: None,
        trouble: trouble.clone(),
        part: Part::Stray,
        prev_crc: None,
        next_prev_crc: None,
    };
    damage.extend(log.strays.iter().map(|(lsn, (path, trouble))| in_the_way(*lsn, path.clone(), trouble)));
    let walked_to = suspects.last().map_or(Lsn::ZERO, |last| last.broken.lsn);
    for (base, segment) in log.segments.range(walked_to.plus(1)..) {
        if let FoundSegment::Foreign(trouble) = segment {
            damage.push(in_the_way(*base, log.path(*base), trouble));
        }
    }
    let mut torn_bytes = 0;
    if let Some(Suspect { broken, contents: Some(before), .. }) = end {
        torn_bytes = last_frame_end.since(broken.lsn);
        contents = Contents::clone(before);
    }
    damage.extend(orders.into_iter().filter(|damage| damage.lsn < contents.end));
    damage.sort_by_key(|damage| damage.lsn);
    let in_use = contents.segments.last_key_value().map_or(log.manifest.start, |(last, _)| *last);
    Survey {
        manifest: log.manifest.clone(),
        prepared_count: log.segments.keys().filter(|base| **base > in_use).count(),
        contents,
        damage,
        torn_bytes,
        checkpoint,
        is_moving: false,
        end_crc: end.and_then(|end| end.broken.prev_crc),
        refused: Vec::new(),
        survivors: BTreeMap::new(),
    }
}
