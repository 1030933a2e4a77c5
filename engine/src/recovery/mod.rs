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
//! | P lies below the end of the last checkpoint | damage: a checkpoint covers only what was durable |
//! | P lies before the first LSN of the newest epoch | damage: that epoch began at a recovered end |
//! | P is a segment's end, the next file is missing, and a later one holds frames | a file is missing: refused |

mod scan;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::Frozen;
use crate::commitlog::frame::{self, FrameError, FrameKind};
use crate::commitlog::record;
use crate::commitlog::segment::{Geometry, file_name};
use crate::consume_queue::Queues;
use crate::dispatch::Applier;
use crate::epoch::EpochHistory;
use crate::error::OpenError;
use crate::fault::{Broken, Fault};
use crate::io::{IoBackend, IoFile};
use crate::table::Visible;
use crate::units::{Lsn, to_u64, to_usize};

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
    /// Queues that no checkpoint knows as they are now.
    pub(crate) changed: Vec<u32>,
}

/// How far a segment behind the log's end is searched for frames.
const HEAD_BYTES: u64 = 16 << 20;

/// Reads the retained log.
pub(crate) struct Recovery<'a> {
    pub(crate) backend: &'a dyn IoBackend,
    pub(crate) dir: &'a Path,
    pub(crate) geometry: Geometry,
    pub(crate) history: &'a EpochHistory,
    pub(crate) files: &'a BTreeMap<Lsn, Arc<dyn IoFile>>,
    pub(crate) queues: &'a Arc<Queues>,
    pub(crate) table: &'a Arc<Visible>,
    pub(crate) broken: Broken,
    /// Records after which `save` is called.
    pub(crate) unsaved_records_max: u64,
}

/// Why the scan stopped where it did.
struct Stop {
    at: Lsn,
    expected: String,
    found: String,
}

impl Recovery<'_> {
    /// Reads from the beginning of the segment that holds the end of the last checkpoint (`applied`, a log's start where there is none) to the
    /// end of the log. `save` writes a checkpoint when much has come together.
    pub(crate) fn run(
        &self,
        start: Lsn,
        applied: Lsn,
        mut save: impl FnMut(Frozen) -> Result<(), OpenError>,
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
            durable_lsn: start,
            changed: Vec::new(),
        };
        let mut applier = Applier::new(Arc::clone(self.queues), Arc::clone(self.table), Box::new(|_| {}), self.broken);
        let mut saved_records = 0;
        let stop = loop {
            let Some(file) = self.files.get(&found.end) else {
                break Stop { at: found.end, expected: "a segment file".into(), found: "none".into() };
            };
            if let Some(stop) = self.scan_segment(file, &mut found, &mut applier, applied)? {
                break stop;
            }
            // Only what is known to be durable goes into a checkpoint.
            if found.end <= found.durable_lsn && found.records - saved_records > self.unsaved_records_max {
                saved_records = found.records;
                save(applier.freeze(found.end))?;
            }
        };
        self.judge(&stop, &mut found, applied)?;
        found.changed = applier.changed();
        Ok(found)
    }

    /// Reads one segment from its start; `None` when it is full to its end.
    fn scan_segment(
        &self,
        file: &Arc<dyn IoFile>,
        found: &mut Found,
        applier: &mut Applier,
        applied: Lsn,
    ) -> Result<Option<Stop>, OpenError> {
        let base = found.end;
        let segment_end = self.geometry.segment_end(base);
        let mut scan = SegmentScan::new(self.backend, file, self.geometry, base, self.io_error(base))?;
        while segment_end.since(found.end) >= to_u64(frame::FRAME_HEADER_BYTES) {
            let at = found.end;
            let stop = |expected: String, what: String| Ok(Some(Stop { at, expected, found: what }));
            let header = match self.header_at(&mut scan, at)? {
                Ok(header) => header,
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
            let bytes = scan.need(to_usize(u64::from(header.frame_len)))?;
            if let Some(what) = damaged_record(bytes, &header, self.broken) {
                return stop("whole records".into(), what);
            }
            if at >= applied {
                applier.apply(&header, bytes, |_, _| {}).map_err(|error| OpenError::Contradiction {
                    path: self.dir.join(file_name(base)),
                    what: "queue entry",
                    expected: format!("offset {} of {}", error.expected, error.queue),
                    found: format!("offset {} at LSN {}", error.found, error.lsn),
                })?;
            }
            let len = to_usize(u64::from(header.frame_len));
            scan.consume(len);
            found.frames += 1;
            found.records += u64::from(header.record_count);
            found.end = at.plus(u64::from(header.frame_len));
            found.prev_crc = header.header_crc;
            found.store_time_ms = header.store_time_ms;
            found.durable_lsn = found.durable_lsn.max(header.durable_lsn);
        }
        found.end = segment_end;
        Ok(None)
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
        let last = self.history.last();
        if let Some(last) = last
            && stop.at < last.first_lsn
        {
            return Err(damaged(last.first_lsn));
        }
        // A checkpoint covers only what was durable.
        if stop.at < applied {
            return Err(damaged(applied));
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
                        if header.durable_lsn > stop.at {
                            return Err(if self.files.contains_key(&self.geometry.base(stop.at)) {
                                damaged(header.durable_lsn)
                            } else {
                                OpenError::Missing {
                                    path: self.dir.join(file_name(self.geometry.base(stop.at))),
                                    why: format!(
                                        "the frame at LSN {at} says that the log was durable to {}",
                                        header.durable_lsn
                                    ),
                                }
                            });
                        }
                        let next = at.plus(u64::from(header.frame_len)).min(end);
                        last_frame_end = last_frame_end.max(next);
                        next.since(at)
                    }
                    None => frame::FRAME_ALIGN,
                };
                scan.need(to_usize(step))?;
                scan.consume(to_usize(step));
                at = at.plus(step);
            }
        }
        found.cut_bytes = last_frame_end.since(stop.at);
        Ok(())
    }

    fn io_error(&self, base: Lsn) -> impl Fn(std::io::Error) -> OpenError + '_ {
        move |source| OpenError::Io { what: "reading", path: self.dir.join(file_name(base)), source }
    }
}

/// What is wrong with a record of this frame, if anything.
fn damaged_record(bytes: &[u8], header: &frame::FrameHeader, broken: Broken) -> Option<String> {
    if header.kind != FrameKind::Records {
        return None;
    }
    let decode = if broken.is(Fault::ChecksumUnchecked) { record::parse } else { record::decode };
    let mut at = frame::header_bytes(usize::from(header.record_count));
    for (index, entry) in frame::entries(bytes, header.record_count).enumerate() {
        let end = at + entry.len as usize;
        match bytes.get(at..end).map(decode) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Some(format!("record {index}: {error}")),
            None => return Some(format!("record {index} leaves its frame")),
        }
        at = end;
    }
    None
}
