//! Putting back into an open log what its disk has lost, with the bytes that another machine has of it.
//!
//! Invariants:
//! 1. A range lies between whole frames, or between them and a segment's ends. What is put there proves itself: whole frames of the epochs
//!    that the history names, the first of which follows the frame before the range, and the last of which the frame behind it follows. A
//!    long range is mended in pieces, from its beginning on: whole frames, each of which follows the one before.
//! 2. Nothing that is whole here is changed: where a whole frame here says something else, all that was given is refused.
//! 3. Only what is acknowledged is mended, below the block in which the log still grows.
//! 4. While something is written, nothing is released. Wherever the power fails, each sector is as it was or as it should be: what lies
//!    beside the range does not change, and the range is found damaged again, or is whole.
//! 5. What was written is read back before it counts.
//! 6. Below the log's start nothing says what a frame follows: there a header proves its place and its records, and a record is put beside
//!    it. Whatever of the two is whole here decides; where neither is, whoever gives the bytes must know them to be acknowledged.
//!
//! Deliberately not here: where the bytes come from; the dense part of logs that are not open (`audit`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::commitlog::frame::{self, FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::commitlog::record::{self, RECORD_HEADER_BYTES};
use crate::commitlog::segment::Geometry;
use crate::epoch::EpochHistory;
use crate::error::{Advice, Fenced, OpenError};
use crate::fault;
use crate::io::{AlignedBuf, IO_ALIGN, IoFile};
use crate::limits;
use crate::recovery::scan::read_blocks;
use crate::recovery::{RecordFault, record_fault};
use crate::units::{Lsn, align_down, align_up, to_u64, to_usize};

/// A range of an open log that is not whole on its disk; from [`crate::Engine::damaged_ranges`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// Its first byte, where a frame should begin.
    pub from: Lsn,
    /// Behind its last one; equal to `from` where only a segment's header is damaged, for which no bytes are needed.
    pub to: Lsn,
    /// The file.
    pub path: PathBuf,
    /// What does not fit.
    pub what: String,
    /// The chain value that leads to it.
    pub(crate) prev_crc: Option<u32>,
    /// The chain value that the frame behind it names.
    pub(crate) next_prev_crc: Option<u32>,
    /// It lies below the log's start.
    pub(crate) is_sparse: bool,
}

impl DamagedRange {
    /// Bytes that are needed.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.to.since(self.from)
    }

    /// Whether none are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Whether it lies below the log's start, among what survives there. Only bytes that are known to be acknowledged may be given for it.
    #[must_use]
    pub fn is_sparse(&self) -> bool {
        self.is_sparse
    }
}

/// What was mended.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// Up to here it is whole.
    pub to: Lsn,
    /// Bytes that were written: whole blocks, and none but those that were not as they should be.
    pub written: u64,
    /// What is left of the range, where fewer bytes were given.
    pub rest: Option<DamagedRange>,
}

/// Why a range was not mended. It is as it was, unless the kernel refused a write.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MendError {
    /// The log does not hold it any more.
    #[error("LSN {0} is no longer in the log")]
    Gone(Lsn),
    /// The log may still change there: it is not acknowledged, or the disk's last block.
    #[error("what lies before LSN {0} is not settled yet")]
    NotSettled(Lsn),
    /// More than is mended at one time.
    #[error("{bytes} bytes were given, and {max} are mended at one time: give the range in pieces")]
    TooLong {
        /// That were given.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// More bytes than the range has, or not even its first frame.
    #[error("{found} bytes were given for a range of {expected}")]
    Length {
        /// Of the range.
        expected: u64,
        /// That were given.
        found: u64,
    },
    /// Nothing says what the range should follow: what lies before it has to be mended first.
    #[error("what lies before LSN {0} is damaged as well")]
    NotChained(Lsn),
    /// The bytes are not the frames that belong there.
    #[error("the bytes that were given are not what stood at LSN {lsn}: {what}")]
    NotWhole {
        /// Where the first frame that does not fit should stand.
        lsn: Lsn,
        /// What does not fit.
        what: String,
    },
    /// A whole frame stands there that is another one.
    #[error("the log has another whole frame at LSN {0} than the bytes that were given")]
    Differs(Lsn),
    /// The kernel refuses.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The file cannot be looked through.
    #[error(transparent)]
    Look(#[from] OpenError),
    /// Nothing is written any more.
    #[error(transparent)]
    Fenced(#[from] Fenced),
}

impl MendError {
    /// Retry what may be settled, or answered otherwise, later; reject what does not fit.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            MendError::NotSettled(_) | MendError::NotChained(_) | MendError::Io { .. } => Advice::Retry,
            MendError::Gone(_)
            | MendError::TooLong { .. }
            | MendError::Length { .. }
            | MendError::NotWhole { .. }
            | MendError::Differs(_) => Advice::Reject,
            MendError::Look(error) => error.advice(),
            MendError::Fenced(fenced) => fenced.advice(),
        }
    }
}

/// What a range is judged by.
pub(crate) struct Judge<'a> {
    pub(crate) geometry: Geometry,
    pub(crate) history: &'a EpochHistory,
    /// Where the log begins: nothing is there that its first frame could follow.
    pub(crate) start: Lsn,
}

impl Judge<'_> {
    /// How far `bytes` are what belongs into `range`, in whole frames, and the last one's checksum.
    pub(crate) fn prove(&self, range: &DamagedRange, bytes: &[u8]) -> Result<(Lsn, Option<u32>), MendError> {
        let (from, given) = (range.from, to_u64(bytes.len()));
        if given > limits::MEND_BYTES_MAX {
            return Err(MendError::TooLong { bytes: given, max: limits::MEND_BYTES_MAX });
        }
        let to = from.plus(given);
        let is_piece = given < range.len();
        let bad_length = MendError::Length { expected: range.len(), found: given };
        if given > range.len() {
            return Err(bad_length);
        }
        let mut chain = match range.prev_crc {
            None if from != self.start => return Err(MendError::NotChained(from)),
            known => known,
        };
        let mut at = from;
        while at < to {
            let rest = &bytes[to_usize(at.since(from))..];
            if is_piece && self.is_cut_off(at, rest) {
                break;
            }
            if self.geometry.segment_end(at).since(at) < to_u64(FRAME_HEADER_BYTES) {
                if rest.iter().any(|byte| *byte != 0) {
                    return Err(not_whole(at, "other bytes than zeros at a segment's end"));
                }
                self.end(range, at, chain)?;
                return Ok((to, chain));
            }
            let header = self.frame(at, rest, chain)?;
            chain = Some(header.header_crc);
            at = at.plus(u64::from(header.frame_len));
        }
        if at == from {
            return Err(bad_length);
        }
        if at == range.to {
            self.end(range, at, chain)?;
        }
        Ok((at, chain))
    }

    /// Whether a frame that may be sound goes on behind the bytes that were given.
    fn is_cut_off(&self, at: Lsn, bytes: &[u8]) -> bool {
        let room = self.geometry.segment_end(at).since(at);
        if bytes.len() < FRAME_HEADER_BYTES {
            return room > to_u64(bytes.len());
        }
        let Ok(need) = frame::header_bytes_needed(bytes) else { return false };
        let Some(header) = bytes.get(..need) else { return room >= to_u64(need) };
        frame::decode_header(header, at).is_ok_and(|header| to_usize(u64::from(header.frame_len)) > bytes.len())
    }

    /// What follows the last frame.
    fn end(&self, range: &DamagedRange, at: Lsn, chain: Option<u32>) -> Result<(), MendError> {
        match (range.next_prev_crc, chain) {
            (Some(next), Some(last)) if next != last => {
                Err(not_whole(at, format!("the frame behind follows {next:#010x}, not {last:#010x}")))
            }
            _ => Ok(()),
        }
    }

    fn frame(&self, at: Lsn, bytes: &[u8], chain: Option<u32>) -> Result<FrameHeader, MendError> {
        let bad = |error: frame::FrameError| not_whole(at, error.to_string());
        let need = frame::header_bytes_needed(bytes).map_err(bad)?;
        let header_bytes = bytes.get(..need).ok_or_else(|| not_whole(at, "a header that leaves the range"))?;
        let header = frame::decode_header(header_bytes, at).map_err(bad)?;
        let whole = bytes.get(..to_usize(u64::from(header.frame_len)));
        let whole = whole.ok_or_else(|| not_whole(at, "a frame that leaves the range"))?;
        if let Some(chain) = chain
            && header.prev_crc != chain
        {
            let what = format!("a frame that follows {:#010x}, behind {chain:#010x}", header.prev_crc);
            return Err(not_whole(at, what));
        }
        if let Some(epoch) = self.history.at(at)
            && epoch != header.epoch
        {
            return Err(not_whole(at, format!("a frame of epoch {}, where {epoch} wrote", header.epoch)));
        }
        // No checksum covers what fills a segment or a block.
        if header.kind != FrameKind::Records && whole[need..].iter().any(|byte| *byte != 0) {
            return Err(not_whole(at, "other bytes than zeros in a filler"));
        }
        match record_fault(whole, &header, fault::Broken::default()) {
            None => Ok(header),
            Some(RecordFault::Damaged(what) | RecordFault::UnknownForm(what)) => Err(not_whole(at, what)),
        }
    }

    /// Whether a frame that is whole in `ours` would become another one by `theirs`, which is proved. Both begin at `from`.
    pub(crate) fn keeps_what_is_whole(&self, from: Lsn, ours: &[u8], theirs: &[u8]) -> Result<(), MendError> {
        let mut at = 0;
        while let Some(need) = theirs.get(at..).and_then(|rest| frame::header_bytes_needed(rest).ok()) {
            let lsn = from.plus(to_u64(at));
            let Ok(header) = frame::decode_header(&theirs[at..at + need], lsn) else { break };
            let own = frame::header_bytes_needed(&ours[at..]).ok().and_then(|need| ours.get(at..at + need));
            let is_other = own.is_some_and(|own| {
                let same_epoch = |own: FrameHeader| self.history.at(lsn).is_none_or(|epoch| epoch == own.epoch);
                *own != theirs[at..at + need] && frame::decode_header(own, lsn).is_ok_and(same_epoch)
            });
            if is_other {
                return Err(MendError::Differs(lsn));
            }
            at += to_usize(u64::from(header.frame_len));
        }
        Ok(())
    }
}

fn not_whole(lsn: Lsn, what: impl Into<String>) -> MendError {
    MendError::NotWhole { lsn, what: what.into() }
}

/// A record that survives below the log's start, with the header of its frame.
pub(crate) struct Survivor {
    pub(crate) header: FrameHeader,
    pub(crate) header_bytes: Vec<u8>,
    pub(crate) record: Vec<u8>,
}

/// Looks for the record at `lsn` and its frame's header, in the segment at `base`; what does not fit, where it is not there.
pub(crate) fn survivor(
    bytes: &dyn Fn(Lsn, usize) -> Option<Vec<u8>>,
    base: Lsn,
    lsn: Lsn,
) -> Result<Survivor, MendError> {
    let get = |at: Lsn, len: usize| bytes(at, len).ok_or_else(|| not_whole(lsn, "its frame is not all there"));
    let head = get(lsn, RECORD_HEADER_BYTES)?;
    let frame_offset = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    let frame_lsn = lsn.0.checked_sub(u64::from(frame_offset)).map(Lsn).filter(|frame| *frame >= base && *frame < lsn);
    let frame_lsn = frame_lsn.ok_or_else(|| not_whole(lsn, "a record that names no frame"))?;
    let bad = |error: frame::FrameError| not_whole(frame_lsn, error.to_string());
    let need = frame::header_bytes_needed(&get(frame_lsn, FRAME_HEADER_BYTES)?).map_err(bad)?;
    let header_bytes = get(frame_lsn, need)?;
    let header = frame::decode_header(&header_bytes, frame_lsn).map_err(bad)?;
    let mut at = frame_lsn.plus(to_u64(need));
    let entry = frame::entries(&header_bytes, header.record_count).find(|entry| {
        let is_it = at == lsn;
        at = at.plus(u64::from(entry.len));
        is_it
    });
    let entry = entry.ok_or_else(|| not_whole(lsn, format!("the frame at LSN {frame_lsn} has no record there")))?;
    let record = get(lsn, to_usize(u64::from(entry.len)))?;
    if record::stored_checksum(&record) != entry.crc || record::checksum(&record) != entry.crc {
        return Err(not_whole(lsn, "a record that is not the one in its frame's header"));
    }
    Ok(Survivor { header, header_bytes, record })
}

/// The record that was given for `lsn`, whose segment begins at `base` or before, and its frame's header: of this log, and no other one
/// than what of the two is whole here.
pub(crate) fn proved_survivor(
    history: &EpochHistory,
    ours: &dyn Fn(Lsn, usize) -> Option<Vec<u8>>,
    given: &dyn Fn(Lsn, usize) -> Option<Vec<u8>>,
    base: Lsn,
    lsn: Lsn,
) -> Result<Survivor, MendError> {
    let found = survivor(given, base, lsn)?;
    let Survivor { header, header_bytes, record } = &found;
    let oldest = history.starts().first().map(|first| first.epoch);
    let is_of_log = match history.at(header.lsn) {
        Some(epoch) => epoch == header.epoch,
        None => oldest.is_none_or(|oldest| header.epoch <= oldest),
    };
    if !is_of_log {
        return Err(not_whole(header.lsn, format!("a frame of epoch {}, which did not write there", header.epoch)));
    }
    // Whatever is whole here decides.
    let own_header = ours(header.lsn, header_bytes.len());
    let own_record = ours(lsn, record.len());
    let is_other_header =
        own_header.is_some_and(|own| own != *header_bytes && frame::decode_header(&own, header.lsn).is_ok());
    if is_other_header || own_record.is_some_and(|own| own != *record && record::decode(&own).is_ok()) {
        return Err(MendError::Differs(header.lsn));
    }
    Ok(found)
}

/// Writes `bytes` into the blocks that hold them, and leaves what lies beside them.
pub(crate) fn put_within(file: &Arc<dyn IoFile>, offset: u64, bytes: &[u8], path: &Path) -> Result<u64, MendError> {
    let begin = align_down(offset, to_u64(IO_ALIGN));
    let end = align_up(offset + to_u64(bytes.len()), to_u64(IO_ALIGN));
    let mut blocks = AlignedBuf::zeroed(to_usize(end - begin));
    read_blocks(&**file, begin, &mut blocks, &mut BTreeMap::new());
    let place = to_usize(offset - begin);
    blocks[place..place + bytes.len()].copy_from_slice(bytes);
    put(file, begin, &blocks, path)
}

/// Bytes of a segment's file as they are; `None` where they cannot all be read.
pub(crate) fn bytes_of(file: &dyn IoFile, geometry: Geometry, at: Lsn, len: usize) -> Option<Vec<u8>> {
    if at.plus(to_u64(len)) > geometry.segment_end(at) {
        return None;
    }
    let offset = geometry.file_offset(at);
    let begin = align_down(offset, to_u64(IO_ALIGN));
    let end = align_up(offset + to_u64(len), to_u64(IO_ALIGN));
    let (mut blocks, mut unreadable) = (AlignedBuf::zeroed(to_usize(end - begin)), BTreeMap::new());
    read_blocks(file, begin, &mut blocks, &mut unreadable);
    let from = to_usize(offset - begin);
    unreadable.is_empty().then(|| blocks[from..from + len].to_vec())
}

/// Writes the blocks that are not as they should be, durably, and reads them back; returns how many bytes those are.
pub(crate) fn put(file: &Arc<dyn IoFile>, offset: u64, wanted: &AlignedBuf, path: &Path) -> Result<u64, MendError> {
    let io_error = |what| move |source| MendError::Io { what, path: path.to_path_buf(), source };
    let (mut found, mut unreadable) = (AlignedBuf::zeroed(wanted.len()), BTreeMap::new());
    read_blocks(&**file, offset, &mut found, &mut unreadable);
    let is_right = |at: usize| {
        let block = at..at + IO_ALIGN;
        found[block.clone()] == wanted[block] && !unreadable.contains_key(&(offset + to_u64(at)))
    };
    let blocks: Vec<usize> = (0..wanted.len()).step_by(IO_ALIGN).filter(|at| !is_right(*at)).collect();
    for run in blocks.chunk_by(|one, next| one + IO_ALIGN == *next) {
        let bytes = &wanted[run[0]..run[0] + run.len() * IO_ALIGN];
        let mut buf = AlignedBuf::padded(bytes);
        let at = offset + to_u64(run[0]);
        file.write_at(&buf, at, true).map_err(io_error("mending"))?;
        file.read_at(&mut buf, at).map_err(io_error(READING_AGAIN))?;
        if buf[..] != *bytes {
            return Err(io_error(READING_AGAIN)(io::Error::other("other bytes than were written")));
        }
    }
    Ok(to_u64(blocks.len() * IO_ALIGN))
}

const READING_AGAIN: &str = "reading again what was mended in";
