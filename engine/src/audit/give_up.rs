//! Giving up a damaged range and keeping what follows it.
//!
//! The range is written anew with frames of its own epoch that say, queue by queue, up to which offset messages are lost, and fill the
//! rest. They are chained to the frame before; the frame behind is chained to the last of those that were lost, so the last one here gets a
//! header with that very checksum: its reserved bytes are chosen for it. From then on the log is whole again, for everybody who reads it,
//! and says itself what is missing.
//!
//! ```text
//! DERIVED away -> copy aside -> new file .tmp -> rename over -> sync names
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::audit::aside::{drop_derived, failed, keep_aside, move_aside};
use crate::audit::files::{FoundSegment, LogFiles};
use crate::audit::repair::{Lost, Patch, RepairError, rewrite};
use crate::audit::survey::{Damage, Part, Survey, survey_files};
use crate::audit::survivors;
use crate::audit::walk::{Step, Walk};
use crate::commitlog::frame::{self, FRAME_HEADER_BYTES, FrameHeader, FrameKind, FrameStamp, RecordEntry};
use crate::commitlog::record::{self, RECORD_HEADER_BYTES, RecordKind, RecordParts};
use crate::commitlog::segment::file_name;
use crate::epoch::EpochHistory;
use crate::io::IoBackend;
use crate::open::{lock, name_dense};
use crate::units::{Lsn, QueueOffset, to_u64, to_usize};

/// Longest filler: opening holds a frame in memory.
const FILLER_BYTES: u64 = 1 << 20;
const HEADER: u64 = to_u64(FRAME_HEADER_BYTES);

/// What [`give_up`] did.
#[derive(Clone, Debug)]
pub struct GiveUpReport {
    /// The first byte given up.
    pub from: Lsn,
    /// Behind the last one.
    pub to: Lsn,
    /// Offsets that readers pass over from now on, as far as what follows tells. Changes of the table in the range are lost as well, and so
    /// are messages at the end of a queue that nothing was appended to since: nobody can say which.
    pub lost: Vec<Lost>,
    /// Messages that survived below the log's start, by LSN, and cannot be read any more.
    pub survivors: Vec<Lsn>,
    /// What was replaced, under its new name.
    pub aside: Vec<PathBuf>,
}

/// Name and incarnation of a queue, with the offset that is due in it.
type Due = BTreeMap<(Vec<u8>, u32), QueueOffset>;

/// What is due in a queue behind what was read. Each one begins with offset 0: one that is not known yet, in a log that is there from its
/// beginning on, has none but those that are missing.
fn due_in(log: &LogFiles<'_>, due: &Due, queue: &(Vec<u8>, u32)) -> Option<QueueOffset> {
    due.get(queue).copied().or_else(|| (log.manifest.start == Lsn::ZERO).then_some(QueueOffset(0)))
}

/// What stands on both sides of a range.
#[derive(Default)]
struct Sides {
    due: Due,
    last: Option<FrameHeader>,
    /// The first whole frame at or behind the range's beginning.
    next: Option<FrameHeader>,
    /// Queues that go on behind the range further than was due before it.
    jumps: BTreeMap<(Vec<u8>, u32), (QueueOffset, QueueOffset)>,
}

/// Gives up the damaged range of the log in `dir` that begins at `lsn`, which must be the first damaged place, and keeps what follows.
/// A damaged segment header is written anew, and costs nothing. Below the log's start any file of survivors may be given up that opening
/// refuses.
///
/// # Errors
/// When `lsn` is another place, nothing whole lies behind it, another process has the directory, or the kernel refuses.
pub fn give_up(backend: &dyn IoBackend, dir: &Path, lsn: Lsn) -> Result<GiveUpReport, RepairError> {
    let _lock = lock(backend, dir)?;
    let log = LogFiles::open(backend, dir)?;
    let survey = survey_files(&log)?;
    if lsn < log.manifest.start {
        return survivors::give_up(&log, &survey, lsn);
    }
    let Some(damage) = survey.damage.iter().find(|damage| damage.lsn == lsn) else {
        return again(&log, lsn, &survey);
    };
    if survey.first_cut() != Some(lsn) {
        return Err(survey.not_there(lsn));
    }
    if damage.part == Part::Order {
        return Err(RepairError::NotGivenUp { lsn, why: "its frames are whole" });
    }
    let Some(to) = damage.resumes else {
        return Err(RepairError::NotGivenUp { lsn, why: "nothing whole lies behind it: cut there" });
    };
    let sides = look(&log, lsn, to)?;
    let bytes = if damage.part == Part::Header { Vec::new() } else { frames(&log, damage, to, &sides)? };
    drop_derived(backend, dir)?;
    name_dense(backend, dir, &backend.list(dir).map_err(failed("listing", dir))?, log.manifest.start, true)?;

    let base = log.manifest.geometry.base(lsn);
    let name = file_name(base);
    let mut report = GiveUpReport { from: lsn, to, lost: lost(&sides), survivors: Vec::new(), aside: Vec::new() };
    match log.segments.get(&base) {
        None => {}
        Some(FoundSegment::Foreign(_)) => report.aside.push(move_aside(backend, dir, &name)?),
        Some(FoundSegment::Whole(_) | FoundSegment::Headless(..)) => {
            report.aside.push(keep_aside(backend, dir, &name)?.path);
        }
    }
    let patch = (!bytes.is_empty()).then_some(Patch { from: lsn, to });
    let path = dir.join(&name);
    let ours = log.file(base).ok();
    rewrite(&log, base, ours, patch.as_slice(), &mut |_, at| Ok(bytes[to_usize(at.since(lsn))..].to_vec()))
        .map_err(failed("writing", &path))?;
    Ok(report)
}

/// What was given up here before is said again.
fn again(log: &LogFiles<'_>, lsn: Lsn, survey: &Survey) -> Result<GiveUpReport, RepairError> {
    let sides = look(log, lsn, lsn)?;
    let mut report = GiveUpReport { from: lsn, to: lsn, lost: Vec::new(), survivors: Vec::new(), aside: Vec::new() };
    Walk::new(log, None).run(lsn.max(log.manifest.start), &mut |step| {
        let Step::Frame(header, bytes) = step else { return ControlFlow::Break(()) };
        let end = header.lsn.plus(u64::from(header.frame_len));
        if header.lsn == lsn {
            for (_, entry, record) in
                record::of_frame(header, bytes).filter(|(.., record)| record.kind == RecordKind::Lost)
            {
                report.to = end;
                let key = (record.name.to_vec(), record.incarnation);
                let known = due_in(log, &sides.due, &key).filter(|from| *from < entry.queue_offset);
                report.lost.extend(known.map(|from| Lost { queue: key.0, from, to: entry.queue_offset }));
            }
        } else if header.lsn == report.to && is_filler(header) {
            report.to = end;
        }
        if report.to == end { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if report.to == lsn { Err(survey.not_there(lsn)) } else { Ok(report) }
}

/// Whether a frame is one of those that fill a range: no other one has no mark, but the first of a log.
fn is_filler(header: &FrameHeader) -> bool {
    header.kind == FrameKind::Pad && header.durable_lsn == Lsn::ZERO && header.acked_lsn == Lsn::ZERO
}

/// Reads the log up to the next damaged place behind `to`.
fn look(log: &LogFiles<'_>, lsn: Lsn, to: Lsn) -> Result<Sides, RepairError> {
    let mut sides = Sides::default();
    let mut seen = BTreeSet::new();
    Walk::new(log, None).run(log.manifest.start, &mut |step| {
        match step {
            Step::Broken(broken) if broken.lsn >= to && broken.lsn > lsn => return ControlFlow::Break(()),
            Step::Broken(_) => {}
            Step::Frame(header, _) if (lsn..to).contains(&header.lsn) => {}
            Step::Frame(header, bytes) => {
                let is_before = header.lsn < lsn;
                if is_before {
                    sides.last = Some(header.clone());
                } else {
                    sides.next.get_or_insert_with(|| header.clone());
                }
                for (_, entry, record) in record::of_frame(header, bytes) {
                    let counted = record.payload.first_chunk().map_or(0, |next| u64::from_le_bytes(*next));
                    let (found, next) = match record.kind {
                        RecordKind::Append | RecordKind::Link => (entry.queue_offset, entry.queue_offset.0 + 1),
                        RecordKind::QueueCounter => (QueueOffset(counted), counted),
                        RecordKind::Lost if !record.name.is_empty() => (entry.queue_offset, entry.queue_offset.0),
                        _ => continue,
                    };
                    let key = (record.name.to_vec(), record.incarnation);
                    if is_before {
                        sides.due.insert(key, QueueOffset(next));
                    } else if seen.insert(key.clone())
                        && record.kind != RecordKind::Lost
                        && let Some(due) = due_in(log, &sides.due, &key).filter(|due| *due < found)
                    {
                        sides.jumps.insert(key, (due, found));
                    }
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(sides)
}

fn lost(sides: &Sides) -> Vec<Lost> {
    let lost = sides.jumps.iter().map(|((queue, _), (from, to))| Lost { queue: queue.clone(), from: *from, to: *to });
    lost.collect()
}

/// The frames that stand for a range.
fn frames(log: &LogFiles<'_>, damage: &Damage, to: Lsn, sides: &Sides) -> Result<Vec<u8>, RepairError> {
    let too_small =
        RepairError::NotGivenUp { lsn: damage.lsn, why: "it is too small to say in its place what is lost" };
    let mut records = Vec::new();
    if damage.lsn == log.manifest.geometry.base(damage.lsn) {
        let mut history = EpochHistory::default();
        for start in log.manifest.history.starts().iter().filter(|start| start.first_lsn <= damage.lsn) {
            history.push(*start);
        }
        records.push((RecordKind::EpochHistory, Vec::new(), 0, QueueOffset(0), history.encode()));
    }
    for ((queue, incarnation), (_, to)) in &sides.jumps {
        records.push((RecordKind::Lost, queue.clone(), *incarnation, *to, Vec::new()));
    }
    let total = to.since(damage.lsn);
    let marked = frame::header_bytes(records.len() + 1) + records.len() * RECORD_HEADER_BYTES + RECORD_HEADER_BYTES;
    let history_bytes: usize = records.iter().map(|record| record.4.len()).sum();
    if sides.jumps.is_empty() && to_u64(marked + history_bytes) <= total {
        // Nothing is known of what was here. Where there is no room even for that, it was nothing that counts.
        records.push((RecordKind::Lost, Vec::new(), 0, QueueOffset(0), Vec::new()));
    }
    let header_len = frame::header_bytes(records.len());
    let encode = |filler: usize| {
        let mut body = Vec::new();
        let mut entries = Vec::new();
        for (index, (kind, name, incarnation, queue_offset, payload)) in records.iter().enumerate() {
            let begin = body.len();
            let zeros = if index + 1 == records.len() { vec![0; filler] } else { Vec::new() };
            let parts = RecordParts {
                kind: *kind,
                name,
                incarnation: *incarnation,
                tag: 0,
                keys: &[],
                attributes: &[],
                payload: &[payload, &zeros],
            };
            let len = record::encode(&mut body, &parts);
            let frame_offset = u32::try_from(header_len + begin).expect("a frame is short");
            let crc = record::seal(&mut body[begin..], frame_offset);
            let len = u32::try_from(len).expect("a frame is short");
            entries.push(RecordEntry { len, crc, queue_offset: *queue_offset });
        }
        (entries, body)
    };
    let (mut entries, mut body) = encode(0);
    let least = if records.is_empty() { HEADER } else { to_u64(header_len + body.len()) };
    let rest = total.checked_sub(least).ok_or(too_small)?;
    if rest > 0 && rest < HEADER && !records.is_empty() {
        (entries, body) = encode(to_usize(rest));
    }
    let mut chain = Chain {
        log,
        prev_crc: damage.prev_crc.or(sides.last.as_ref().map(|last| last.header_crc)).unwrap_or(0),
        store_time_ms: sides.last.as_ref().or(sides.next.as_ref()).map_or(0, |frame| frame.store_time_ms),
        begins: damage.lsn,
        to,
        wanted: damage.next_prev_crc,
        out: Vec::new(),
    };
    if !records.is_empty() {
        chain.frame(FrameKind::Records, &entries, &body, to_u64(header_len + body.len()));
    }
    while chain.at() < to {
        let rest = to.since(chain.at());
        let len = if rest >= FILLER_BYTES + HEADER { FILLER_BYTES } else { rest };
        chain.frame(FrameKind::Pad, &[], &[], len);
    }
    Ok(chain.out)
}

/// Frames one behind the other.
struct Chain<'a> {
    log: &'a LogFiles<'a>,
    prev_crc: u32,
    store_time_ms: u64,
    begins: Lsn,
    to: Lsn,
    /// The checksum that the last header must have.
    wanted: Option<u32>,
    out: Vec<u8>,
}

impl Chain<'_> {
    fn at(&self) -> Lsn {
        self.begins.plus(to_u64(self.out.len()))
    }

    fn frame(&mut self, kind: FrameKind, entries: &[RecordEntry], body: &[u8], len: u64) {
        let lsn = self.at();
        let stamp = FrameStamp {
            lsn,
            prev_crc: self.prev_crc,
            epoch: self.log.manifest.history.at(lsn).unwrap_or_default(),
            store_time_ms: self.store_time_ms,
            durable_lsn: Lsn::ZERO,
            acked_lsn: Lsn::ZERO,
        };
        let frame_len = u32::try_from(len).expect("a frame is short");
        let mut header = vec![0; frame::header_bytes(entries.len())];
        self.prev_crc = frame::encode_header(&mut header, kind, frame_len, &stamp, entries.iter().copied());
        if let Some(wanted) = self.wanted.filter(|_| lsn.plus(len) == self.to) {
            frame::set_checksum(&mut header, wanted);
        }
        self.out.extend_from_slice(&header);
        self.out.extend_from_slice(body);
        self.out.resize(to_usize(lsn.plus(len).since(self.begins)), 0);
    }
}
