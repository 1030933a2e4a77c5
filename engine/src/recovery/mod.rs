//! What opening finds: the log's end, and the queues as they were.
//!
//! Invariants:
//! 1. Every frame below the end is whole, follows its predecessor, and was written by the epoch that the history names for its place.
//! 2. What is cut was never known to be durable. When anything shows that the log went on, opening refuses instead of cutting.
//! 3. It only reads: the power may fail at any moment of it.
//!
//! | the frame at P is not whole, and | then |
//! |---|---|
//! | no later frame of this log says that P was durable | torn tail: the log ends at P |
//! | a later frame says that P was durable | damage: refused, with file, LSN, expected, found |
//! | P lies before the first LSN of the newest epoch | damage: that epoch began at a recovered end |
//! | P lies below what a replica's side block says was durable | damage; in such a log no frame's mark says anything |
//! | nothing in the log says so, but P lies below the end of the last checkpoint | lost: a checkpoint covers only what was durable |
//! | P is a segment's end, the next file is missing, and a later one holds frames of this log | a file is missing: refused |
//! | its bytes are as they were written, and this program does not know their form | refused: never cut |
//!
//! All that opening may find, with its remedies: [`cases`], `engine/docs/recovery.md`.

pub(crate) mod cases;
mod replay;
pub(crate) mod scan;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{Scope, ScopedJoinHandle};

use crate::checkpoint::Frozen;
use crate::commitlog::frame::{self, FrameError, FrameHeader, FrameKind};
use crate::commitlog::record::{self, RecordError, RecordKind};
use crate::commitlog::segment::{Geometry, file_name};
use crate::consume_queue::Queues;
use crate::dispatch::Applier;
use crate::epoch::EpochHistory;
use crate::error::{NotDense, OpenError};
use crate::fault::{Broken, Fault};
use crate::io::{AlignedBuf, IO_ALIGN, IoBackend, IoFile};
use crate::key_index::KeyIndex;
use crate::limits;
use crate::replica::SideBlock;
use crate::retention::survivors::{self, List};
use crate::table::Visible;
use crate::units::{Lsn, to_u64, to_usize};

use cases::property;
use replay::Replay;
use scan::SegmentScan;

/// What the scan found.
pub(crate) struct Found {
    /// Where the log ends and goes on.
    pub(crate) end: Lsn,
    /// Header checksum of the last frame.
    pub(crate) prev_crc: u32,
    /// Store time of the last frame.
    pub(crate) store_time_ms: u64,
    /// Bytes behind the end that look like frames of a group that was torn.
    pub(crate) cut_bytes: u64,
    /// Frames and records read.
    pub(crate) frames: u64,
    pub(crate) records: u64,
    /// The newest durable mark: what lies behind it may be on its way to the disk still.
    pub(crate) durable_lsn: Lsn,
    /// What was acknowledged, as far as is known; the end where nobody else has a say in that.
    pub(crate) acked: Lsn,
    /// Everything below is in queues and table: whole frames that are acknowledged.
    pub(crate) visible: Lsn,
    /// Queues that no checkpoint knows as they are now, and entries that none has.
    pub(crate) changed: Vec<u32>,
    pub(crate) entries: u64,
    /// What is not visible says last of survivors, by segment; `None`: that nothing survives there.
    pub(crate) hidden_lists: BTreeMap<Lsn, Option<List>>,
    /// Where the log is to begin by what is not visible, if it says so.
    pub(crate) hidden_start: Lsn,
}

/// What frames say last of survivors.
fn lists_in(frames: &VecDeque<(FrameHeader, Vec<u8>)>) -> BTreeMap<Lsn, Option<List>> {
    let mut lists = BTreeMap::<Lsn, Option<List>>::new();
    for (header, bytes) in frames {
        for (_, _, record) in record::of_frame(header, bytes) {
            let Some((base, part)) = survivors::part_of_key(record.name) else { continue };
            match record.kind {
                // Of several, all count: nobody knows which of them was acted on.
                RecordKind::Put => {
                    let codes = survivors::decode_list(record.payload);
                    let known = lists.get(&base).and_then(Option::as_ref);
                    let all = known.map_or_else(|| List::clone(&codes), |known| survivors::union(known, &codes));
                    lists.insert(base, Some(all));
                }
                // The first part goes with the last survivor.
                RecordKind::Delete if part == 0 => drop(lists.insert(base, None)),
                _ => {}
            }
        }
    }
    lists
}

/// Where frames say that the log begins.
fn start_in(frames: &VecDeque<(FrameHeader, Vec<u8>)>) -> Lsn {
    let records = frames.iter().flat_map(|(header, bytes)| record::of_frame(header, bytes));
    let said = records.filter(|(_, _, record)| record.kind == RecordKind::Put && record.name == survivors::START_KEY);
    said.map(|(_, _, record)| survivors::start_of(Some(record.payload))).max().unwrap_or_default()
}

/// How far a segment behind the log's end is searched for frames.
pub(crate) const HEAD_BYTES: u64 = 16 << 20;

/// Reads the retained log.
pub(crate) struct Recovery<'a> {
    pub(crate) backend: &'a dyn IoBackend,
    pub(crate) dir: &'a Path,
    pub(crate) geometry: Geometry,
    pub(crate) history: &'a EpochHistory,
    pub(crate) files: &'a BTreeMap<Lsn, Arc<dyn IoFile>>,
    pub(crate) queues: &'a Arc<Queues>,
    pub(crate) table: &'a Arc<Visible>,
    /// About so many bytes of memory may wait for a checkpoint: some are written on the way where more would. Never with `None`.
    pub(crate) unsaved_max: Option<u64>,
    /// No queue of the last checkpoint begins before; the log's start where there is none.
    pub(crate) released: Lsn,
    pub(crate) keys: &'a Arc<KeyIndex>,
    pub(crate) broken: Broken,
    /// What a replica knows of its own disk: the marks in its frames are of another one.
    pub(crate) side: Option<SideBlock>,
    /// Whether only what is acknowledged goes into queues and table.
    pub(crate) holds_back: bool,
    /// Whether threads may be used: what is read is applied beside the reading.
    pub(crate) has_threads: bool,
}

/// The checkpoint that is being written, beside the reading where there are threads for it.
struct Saves<'scope, 'env> {
    under_way: Option<ScopedJoinHandle<'scope, Result<(), OpenError>>>,
    scope: Option<&'scope Scope<'scope, 'env>>,
}

impl<'scope> Saves<'scope, '_> {
    fn begin(&mut self, save: impl FnOnce() -> Result<(), OpenError> + Send + 'scope) -> Result<(), OpenError> {
        match self.scope {
            Some(scope) => self.under_way = Some(scope.spawn(save)),
            None => return save(),
        }
        Ok(())
    }

    /// Waits until none is being written.
    fn settle(&mut self) -> Result<(), OpenError> {
        self.under_way
            .take()
            .map_or(Ok(()), |save| save.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

/// Why the scan stopped where it did.
struct Stop {
    at: Lsn,
    expected: String,
    found: String,
}

impl Recovery<'_> {
    /// Reads from the beginning of the segment that holds the end of the last checkpoint (`applied`, a log's start where there
    /// is none) to the
    /// end of the log. `save` writes a checkpoint when much has come together.
    pub(crate) fn run(
        &self,
        start: Lsn,
        applied: Lsn,
        save: impl FnMut(Frozen) -> Result<(), OpenError> + Send,
    ) -> Result<Found, OpenError> {
        let (queues, table, keys) = (Arc::clone(self.queues), Arc::clone(self.table), Arc::clone(self.keys));
        let applier = Mutex::new(Applier::new(queues, table, keys, Box::new(|_| {}), self.broken));
        let save = Mutex::new(save);
        let mut found = std::thread::scope(|scope| self.read(start, applied, &applier, scope, &save))?;
        (found.changed, found.entries) = applier.into_inner().expect("nobody who held it panicked").unsaved();
        Ok(found)
    }

    fn read<'scope>(
        &self,
        start: Lsn,
        applied: Lsn,
        applier: &'scope Mutex<Applier>,
        scope: &'scope Scope<'scope, '_>,
        save: &'scope Mutex<impl FnMut(Frozen) -> Result<(), OpenError> + Send>,
    ) -> Result<Found, OpenError> {
        // The last segment is looked at again whatever the checkpoint says: what was written last is what rots first.
        let start = if applied > start { self.geometry.base(Lsn(applied.0 - 1)).max(start) } else { start };
        let mut found = Found {
            end: start,
            prev_crc: 0,
            store_time_ms: 0,
            cut_bytes: 0,
            frames: 0,
            records: 0,
            durable_lsn: self.side.map_or(start, |side| side.durable),
            acked: applied.max(self.side.map_or(Lsn::ZERO, |side| side.acked)),
            visible: applied.max(start),
            changed: Vec::new(),
            entries: 0,
            hidden_lists: BTreeMap::new(),
            hidden_start: Lsn::ZERO,
        };
        let mut saved_to = found.visible;
        let mut replay = Replay::new(applier, self.has_threads.then_some(scope));
        let mut saves = Saves { under_way: None, scope: self.has_threads.then_some(scope) };
        let mut held = VecDeque::new();
        let mut scan: Option<SegmentScan<'_>> = None;
        let stop = loop {
            let base = found.end;
            let Some(file) = self.files.get(&base) else {
                break Stop { at: base, expected: "a segment file".into(), found: "none".into() };
            };
            let scan = match &mut scan {
                Some(scan) => {
                    scan.go_on(base, self.io_error(base))?;
                    scan
                }
                None => scan.insert(SegmentScan::new(self.backend, file, self.geometry, base, self.io_error(base))?),
            };
            if let Some(next) = self.files.get(&self.geometry.segment_end(base)) {
                scan.then(next);
            }
            let scanned = self.scan_segment(scan, &mut found, &mut replay, applied, &mut held);
            // Whatever stopped it: a frame before that which does not fit comes first.
            replay.settle().map_err(|error| self.out_of_turn(&error))?;
            if let Some(stop) = scanned? {
                break stop;
            }
            // Only what is known to be durable goes into a checkpoint.
            let is_due = self.is_save_due(replay.applier().unsaved_bytes(), saved_to..found.visible);
            if is_due && found.visible <= self.durable_ahead(found.visible, &found) {
                saves.settle()?;
                let frozen = replay.applier().freeze(found.visible, self.released);
                saved_to = found.visible;
                saves.begin(move || save.lock().expect("nobody who held it panicked")(frozen))?;
            }
        };
        saves.settle()?;
        self.judge(&stop, &mut found, applied)?;
        found.acked = if self.holds_back { found.acked.min(found.end) } else { found.end };
        found.hidden_lists = lists_in(&held);
        found.hidden_start = start_in(&held);
        Ok(found)
    }

    /// Whether a checkpoint is to be written of what `read` of the log made `unsaved` bytes of. It takes the disk's time from the reading,
    /// so there is none where all that is still to come fits the bound with what is there, beside the first appends; and of half of the
    /// bound, so that with the one that is being written no more than all of it waits.
    fn is_save_due(&self, unsaved: u64, read: Range<Lsn>) -> bool {
        let Some(max) = self.unsaved_max.filter(|max| unsaved >= max / 2) else { return false };
        let to_come = u128::from(unsaved) * u128::from(self.rest_bytes(read.end));
        let at_end = u128::from(unsaved) + to_come / u128::from(read.end.since(read.start).max(1));
        at_end > u128::from(max / 4 * 3)
    }

    /// About how much of the log lies behind `lsn`, the end of a segment: whole segments, as far as they begin with a frame.
    fn rest_bytes(&self, lsn: Lsn) -> u64 {
        let mut end = lsn;
        for (base, file) in self.files.range(lsn..) {
            let mut block = AlignedBuf::zeroed(IO_ALIGN);
            let is_read = file.read_at(&mut block, limits::SEGMENT_HEADER_BYTES).is_ok();
            if *base != end || !is_read || frame::decode_header(&block, end).is_err() {
                break;
            }
            end = self.geometry.segment_end(end);
        }
        end.since(lsn)
    }

    /// How far the log is known to have been durable, as far as it takes to know that of everything below `lsn`. A frame's mark speaks of
    /// what came well before it: what later segments begin with is looked at ahead of its turn.
    fn durable_ahead(&self, lsn: Lsn, found: &Found) -> Lsn {
        let mut durable = found.durable_lsn;
        if self.side.is_some() {
            return durable;
        }
        for (base, file) in self.files.range(lsn..) {
            let mut block = AlignedBuf::zeroed(IO_ALIGN);
            if durable >= lsn || file.read_at(&mut block, limits::SEGMENT_HEADER_BYTES).is_err() {
                break;
            }
            // Of another epoch than the history names, it is stale.
            match frame::decode_header(&block, *base) {
                Ok(header) if self.history.at(*base).is_none_or(|epoch| epoch == header.epoch) => {
                    durable = durable.max(header.durable_lsn);
                }
                _ => break,
            }
        }
        durable
    }

    /// Reads one segment from its start; `None` when it is full to its end.
    fn scan_segment(
        &self,
        scan: &mut SegmentScan<'_>,
        found: &mut Found,
        replay: &mut Replay<'_, '_>,
        applied: Lsn,
        held: &mut VecDeque<(FrameHeader, Vec<u8>)>,
    ) -> Result<Option<Stop>, OpenError> {
        let base = found.end;
        let segment_end = self.geometry.segment_end(base);
        while segment_end.since(found.end) >= to_u64(frame::FRAME_HEADER_BYTES) {
            let at = found.end;
            let stop = |expected: String, what: String| Ok(Some(Stop { at, expected, found: what }));
            let header = match self.header_at(scan, at)? {
                Ok(header) => header,
                Err(error) if error.is_form() => return Err(self.unknown_form(at, error.to_string())),
                Err(error) => return stop("a frame".into(), error.to_string()),
            };
            if found.frames > 0 && header.prev_crc != found.prev_crc && !self.position_unchecked() {
                let expected = format!("a frame that follows {:#010x}", found.prev_crc);
                return stop(expected, format!("one that follows {:#010x}", header.prev_crc));
            }
            if let Some(epoch) = self.history.at(at)
                && header.epoch != epoch
            {
                return stop(format!("a frame of epoch {epoch}"), format!("one of epoch {}", header.epoch));
            }
            if at.plus(u64::from(header.frame_len)) > segment_end {
                return stop("a frame within its segment".into(), format!("one of {} bytes", header.frame_len));
            }
            if at < applied && at.plus(u64::from(header.frame_len)) > applied {
                return Err(OpenError::Contradiction {
                    path: self.dir.join(file_name(base)),
                    what: property::CHECKPOINT,
                    expected: format!("a frame that begins at LSN {applied}"),
                    found: format!("one of {} bytes at LSN {at}", header.frame_len),
                });
            }
            let len = to_usize(u64::from(header.frame_len));
            let bytes = &scan.need(len)?[..len];
            match record_fault(bytes, &header, self.broken) {
                None => {}
                Some(RecordFault::Damaged(what)) => return stop("whole records".into(), what),
                Some(RecordFault::UnknownForm(what)) => return Err(self.unknown_form(at, what)),
            }
            found.acked = found.acked.max(header.acked_lsn);
            if at >= applied && self.holds_back {
                held.push_back((header.clone(), bytes.to_vec()));
                let end_of = |header: &FrameHeader| header.lsn.plus(u64::from(header.frame_len));
                while let Some((header, bytes)) = held.front()
                    && end_of(header) <= found.acked
                {
                    replay.push(header, bytes).map_err(|error| self.out_of_turn(&error))?;
                    found.visible = end_of(header);
                    held.pop_front();
                }
            } else if at >= applied {
                replay.push(&header, bytes).map_err(|error| self.out_of_turn(&error))?;
            }
            scan.consume(len);
            found.frames += 1;
            found.records += u64::from(header.record_count);
            found.end = at.plus(u64::from(header.frame_len));
            found.prev_crc = header.header_crc;
            found.store_time_ms = header.store_time_ms;
            if self.side.is_none() {
                found.durable_lsn = found.durable_lsn.max(header.durable_lsn);
            }
            if !self.holds_back {
                found.visible = found.visible.max(found.end);
            }
        }
        found.end = segment_end;
        if !self.holds_back {
            found.visible = found.visible.max(found.end);
        }
        Ok(None)
    }

    fn out_of_turn(&self, error: &NotDense) -> OpenError {
        OpenError::Contradiction {
            path: self.dir.join(file_name(self.geometry.base(error.lsn))),
            what: property::QUEUE_ENTRY,
            expected: format!("offset {} of {}", error.expected, error.queue),
            found: format!("offset {} at LSN {}", error.found, error.lsn),
        }
    }

    /// The broken promise under which frames are taken wherever they stand.
    fn position_unchecked(&self) -> bool {
        self.broken.is(Fault::PositionUnchecked)
    }

    fn header_at(
        &self,
        scan: &mut SegmentScan<'_>,
        at: Lsn,
    ) -> Result<Result<frame::FrameHeader, FrameError>, OpenError> {
        let bytes = scan.need(frame::FRAME_HEADER_BYTES)?;
        let need = match frame::header_bytes_needed(bytes) {
            Ok(need) => need,
            Err(error) => return Ok(Err(error)),
        };
        let bytes = scan.need(need)?;
        Ok(if self.position_unchecked() { frame::decode_anywhere(bytes) } else { frame::decode_header(bytes, at) })
    }

    /// Torn tail, or damage? See the table above.
    fn judge(&self, stop: &Stop, found: &mut Found, applied: Lsn) -> Result<(), OpenError> {
        let damaged = |durable_lsn: Lsn| OpenError::Damaged {
            path: self.dir.join(file_name(self.geometry.base(stop.at))),
            lsn: stop.at,
            expected: stop.expected.clone(),
            found: stop.found.clone(),
            durable_lsn,
        };
        let missing = |why: String| OpenError::Missing {
            path: self.dir.join(file_name(self.geometry.base(stop.at))),
            lsn: Some(stop.at),
            why,
        };
        let is_missing = !self.files.contains_key(&self.geometry.base(stop.at));
        if let Some(last) = self.history.last()
            && stop.at < last.first_lsn
        {
            return Err(if is_missing {
                missing(format!("the newest epoch began at LSN {}", last.first_lsn))
            } else {
                damaged(last.first_lsn)
            });
        }
        if let Some(side) = self.side
            && stop.at < side.durable
        {
            return Err(if is_missing {
                missing(format!("the side block says that the log was durable to LSN {}", side.durable))
            } else {
                damaged(side.durable)
            });
        }
        let mut last_frame_end = stop.at;
        for (base, file) in self.files.range(self.geometry.base(stop.at)..) {
            let from = stop.at.max(*base);
            let mut scan = SegmentScan::new(self.backend, file, self.geometry, *base, self.io_error(*base))?;
            scan.skip_to(from)?;
            let end = self.geometry.segment_end(*base);
            let mut at = from;
            // A later segment that holds frames holds one near its head; then it is looked at to its end.
            let mut holds_frames = *base <= stop.at;
            while end.since(at) >= to_u64(frame::FRAME_HEADER_BYTES) && (holds_frames || at.since(from) < HEAD_BYTES) {
                let bytes = scan.need(frame::FRAME_HEADER_BYTES)?;
                let need = frame::header_bytes_needed(bytes).unwrap_or(0);
                let header = if need == 0 || to_u64(need) > end.since(at) {
                    None
                } else {
                    frame::decode_header(scan.need(need)?, at).ok()
                };
                // A frame of an epoch that did not write this place is stale: it says nothing.
                let header = header.filter(|header| self.history.at(at).is_none_or(|epoch| epoch == header.epoch));
                let step = match header {
                    Some(header) => {
                        holds_frames = true;
                        if is_missing {
                            // A file is used only after its name and those before it are durable, whatever became of its frames.
                            return Err(missing(format!("the log goes on with the frame at LSN {at}")));
                        }
                        if header.durable_lsn > stop.at && self.side.is_none() {
                            return Err(damaged(header.durable_lsn));
                        }
                        let next = at.plus(u64::from(header.frame_len)).min(end);
                        last_frame_end = last_frame_end.max(next);
                        next.since(at)
                    }
                    None => to_u64(frame::next_candidate(scan.need(frame::FRAME_HEADER_BYTES)?)).min(end.since(at)),
                };
                scan.need(to_usize(step))?;
                scan.consume(to_usize(step));
                at = at.plus(step);
            }
        }
        // A checkpoint covers only what was durable.
        if stop.at < applied {
            let (expected, found) = (stop.expected.clone(), stop.found.clone());
            let path = self.dir.join(file_name(self.geometry.base(stop.at)));
            return Err(OpenError::Lost { path, lsn: stop.at, expected, found, applied });
        }
        found.cut_bytes = last_frame_end.since(stop.at);
        Ok(())
    }

    fn unknown_form(&self, at: Lsn, found: String) -> OpenError {
        OpenError::Contradiction {
            path: self.dir.join(file_name(self.geometry.base(at))),
            what: property::FORM,
            expected: format!("a frame of a form that this program knows at LSN {at}"),
            found,
        }
    }

    fn io_error(&self, base: Lsn) -> impl Fn(std::io::Error) -> OpenError + '_ {
        move |source| OpenError::Io { what: "reading", path: self.dir.join(file_name(base)), source }
    }
}

/// What is wrong with a record.
pub(crate) enum RecordFault {
    /// Its bytes are not those that its frame header was written for.
    Damaged(String),
    /// They are, and say something that this program does not know.
    UnknownForm(String),
}

/// What is wrong with a record of this frame, if anything.
///
/// The checksum that counts is the one in the frame header: the one beside the record is also right where a torn write left a whole record
/// of the segment's earlier life.
pub(crate) fn record_fault(bytes: &[u8], header: &frame::FrameHeader, broken: Broken) -> Option<RecordFault> {
    if header.kind != FrameKind::Records {
        return None;
    }
    let is_unchecked = broken.is(Fault::ChecksumUnchecked);
    let decode = if is_unchecked { record::parse } else { record::decode };
    let mut at = frame::header_bytes(usize::from(header.record_count));
    for (index, entry) in frame::entries(bytes, header.record_count).enumerate() {
        let named = |what: String| format!("record {index} at LSN {}: {what}", header.lsn.plus(to_u64(at)));
        let Some(bytes) = bytes.get(at..at + entry.len as usize) else {
            return Some(RecordFault::Damaged(named("it leaves its frame".to_owned())));
        };
        match decode(bytes) {
            Ok(_) if is_unchecked || record::stored_checksum(bytes) == entry.crc => {}
            Ok(_) => {
                let other = "a whole record, but another one than the frame's header names";
                return Some(RecordFault::Damaged(named(other.to_owned())));
            }
            Err(error @ RecordError::Inconsistent(_)) if record::checksum(bytes) == entry.crc => {
                return Some(RecordFault::UnknownForm(named(error.to_string())));
            }
            Err(error) => return Some(RecordFault::Damaged(named(error.to_string()))),
        }
        at += bytes.len();
    }
    None
}
