//! Putting back into an open log what its disk has lost, with the bytes that another machine has of it.
//!
//! Invariants:
//! 1. A range lies between whole frames, or between them and a segment's ends. What is put there proves itself: whole frames of the epochs
//!    that the history names, the first of which follows the frame before the range, and the last of which the frame behind it follows.
//! 2. Nothing that is whole here is changed: where a whole frame here says something else, all that was given is refused.
//! 3. Only what is acknowledged is mended, below the block in which the log still grows.
//! 4. While something is written, nothing is released. Wherever the power fails, each sector is as it was or as it should be: what lies
//!    beside the range does not change, and the range is found damaged again, or is whole.
//! 5. What was written is read back before it counts.
//!
//! Deliberately not here: where the bytes come from; logs that are not open (`audit`); what survives below the log's start.

use std::io;
use std::path::PathBuf;

use crate::commitlog::frame::{self, FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::commitlog::segment::Geometry;
use crate::epoch::EpochHistory;
use crate::error::{Advice, Fenced, OpenError};
use crate::fault;
use crate::limits;
use crate::recovery::{RecordFault, record_fault};
use crate::units::{Lsn, to_u64, to_usize};

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
    #[error("{bytes} bytes are damaged in a row, and {max} are mended while the log is open: mend it closed")]
    TooLong {
        /// Of the range.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// Not as many bytes as the range has.
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
    /// Whether `bytes` are what belongs into `range`.
    pub(crate) fn prove(&self, range: &DamagedRange, bytes: &[u8]) -> Result<(), MendError> {
        let (from, to) = (range.from, range.to);
        if range.len() > limits::MEND_BYTES_MAX {
            return Err(MendError::TooLong { bytes: range.len(), max: limits::MEND_BYTES_MAX });
        }
        if to_u64(bytes.len()) != range.len() {
            return Err(MendError::Length { expected: range.len(), found: to_u64(bytes.len()) });
        }
        let mut chain = match range.prev_crc {
            None if from != self.start => return Err(MendError::NotChained(from)),
            known => known,
        };
        let mut at = from;
        while at < to {
            let rest = &bytes[to_usize(at.since(from))..];
            if self.geometry.segment_end(at).since(at) < to_u64(FRAME_HEADER_BYTES) {
                return if rest.iter().all(|byte| *byte == 0) {
                    self.end(range, at, chain)
                } else {
                    Err(not_whole(at, "other bytes than zeros at a segment's end"))
                };
            }
            let header = self.frame(at, rest, chain)?;
            chain = Some(header.header_crc);
            at = at.plus(u64::from(header.frame_len));
        }
        self.end(range, at, chain)
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
