//! Taking over what another log holds: frame by frame, each checked as recovery would check it.
//!
//! Invariants:
//! 1. Nothing of a frame is taken before all of it is there and checked: position, predecessor, epoch, records, room in its segment.
//! 2. The log's end is the only place where anything is taken, and a segment's last bytes, which hold no frame, are taken as zeros.
//! 3. No call here does I/O: a newer epoch is handed back, and goes on once the manifest has it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::commit::room::{Claim, Refused};
use crate::commit::sequencer::Sequencer;
use crate::commit::watermark::Watermark;
use crate::commitlog::frame::{self, FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::commitlog::record::{self, RecordKind};
use crate::epoch::{EpochHistory, EpochStart};
use crate::error::{Advice, AppendError, Fenced};
use crate::io::IO_ALIGN;
use crate::recovery::{RecordFault, record_fault};
use crate::units::{Epoch, Lsn, to_u64, to_usize};

/// What [`crate::Engine::receive`] took.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes taken; the rest is the beginning of a frame that is not whole yet, and is to be given again with what follows.
    pub consumed: usize,
    /// Where the log ends now.
    pub end: Lsn,
}

/// Why bytes were not taken over. Nothing of the frame that they begin with was; frames before it in the same call were.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The log is a leader's.
    #[error("this log is a leader's; it takes nothing over")]
    NotReplica,
    /// The bytes belong elsewhere.
    #[error("the log ends at LSN {expected}; bytes of LSN {found} were given")]
    Position {
        /// Where the log ends.
        expected: Lsn,
        /// Where the bytes belong.
        found: Lsn,
    },
    /// They are not a frame that belongs there: damaged on the way, or cut out of another place.
    #[error("no whole frame at LSN {lsn}: {what}")]
    Frame {
        /// Where it should stand.
        lsn: Lsn,
        /// What does not fit.
        what: String,
    },
    /// The frame follows another one than the log's last: the two logs are not the same up to here.
    #[error("the frame at LSN {lsn} follows {found:#010x}; the log's last frame is {expected:#010x}")]
    Chain {
        /// Where.
        lsn: Lsn,
        /// Header checksum of the log's last frame.
        expected: u32,
        /// What the frame names.
        found: u32,
    },
    /// The frame is of an older epoch than the log knows: whoever sends it leads no more.
    #[error("the frame at LSN {lsn} is of epoch {found}; the log knows of epoch {known}")]
    StaleEpoch {
        /// Where.
        lsn: Lsn,
        /// The newest epoch that the log knows.
        known: Epoch,
        /// The frame's.
        found: Epoch,
    },
    /// A newer epoch that does not begin as one must, or that has another past than this log.
    #[error("epoch {epoch} at LSN {lsn}: {what}")]
    Epoch {
        /// Where.
        lsn: Lsn,
        /// The frame's.
        epoch: Epoch,
        /// What is wrong.
        what: &'static str,
    },
    /// Memory is full: to be tried again when the written watermark has moved, or a checkpoint was written.
    #[error("{waiting} bytes wait to be written, or for a checkpoint; {max} are taken")]
    Full {
        /// Bytes waiting.
        waiting: u64,
        /// The limit.
        max: u64,
    },
    /// No segment stands ready for it, and there is no room for another one: to be tried again when there is.
    #[error("no room: {needed} bytes are needed, {left} stand ready: {source}")]
    OutOfSpace {
        /// Bytes of the frame.
        needed: u64,
        /// Bytes of log that stand ready.
        left: u64,
        /// Why the log cannot grow.
        source: Arc<io::Error>,
    },
    /// The log is fenced.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The engine is closing.
    #[error("the engine is closing")]
    Closing,
}

impl ReceiveError {
    /// Retry a full buffer, once the written watermark has moved, and a full disk, once there is room; reject what does not fit; stop when
    /// the log takes nothing any more.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            ReceiveError::Full { .. } | ReceiveError::OutOfSpace { .. } => Advice::Retry,
            ReceiveError::NotReplica | ReceiveError::Closing => Advice::Stop,
            ReceiveError::Fenced(fenced) => fenced.advice(),
            ReceiveError::Position { .. }
            | ReceiveError::Frame { .. }
            | ReceiveError::Chain { .. }
            | ReceiveError::StaleEpoch { .. }
            | ReceiveError::Epoch { .. } => Advice::Reject,
        }
    }
}

/// What the sequencer took, and why it stopped there.
pub(crate) struct Taken {
    pub(crate) consumed: usize,
    pub(crate) stop: TakenStop,
}

pub(crate) enum TakenStop {
    /// All that was whole is taken.
    Done,
    /// An epoch begins here: to be made durable first.
    NewEpoch(EpochStart),
    /// The next segment is not there yet: to be made.
    NoSegment,
    /// What comes next is not taken.
    Refused(ReceiveError),
}

impl Sequencer {
    /// Takes whole frames over from the front of `bytes`, which stand at `at`. Not yet readable: see [`Sequencer::publish`].
    pub(crate) fn receive(&mut self, at: Lsn, bytes: &[u8]) -> Taken {
        let mut consumed = 0;
        let stop = loop {
            match self.receive_next(at.plus(to_u64(consumed)), &bytes[consumed..]) {
                Ok(0) => break TakenStop::Done,
                Ok(len) => consumed += len,
                Err(stop) => break stop,
            }
        };
        Taken { consumed, stop }
    }

    /// Takes one frame, or the end of a segment; 0 while it is not whole.
    fn receive_next(&mut self, at: Lsn, bytes: &[u8]) -> Result<usize, TakenStop> {
        self.check_receives(at)?;
        let geometry = self.geometry;
        let room = geometry.segment_end(at).since(at);
        if room < to_u64(FRAME_HEADER_BYTES) {
            return self.receive_zeros(at, bytes, to_usize(room));
        }
        let bad = |what: String| TakenStop::Refused(ReceiveError::Frame { lsn: at, what });
        if bytes.len() < FRAME_HEADER_BYTES {
            return Ok(0);
        }
        let need = frame::header_bytes_needed(bytes).map_err(|error| bad(error.to_string()))?;
        if to_u64(need) > room {
            return Err(bad("a header that leaves its segment".to_owned()));
        }
        if bytes.len() < need {
            return Ok(0);
        }
        let header = frame::decode_header(bytes, at).map_err(|error| bad(error.to_string()))?;
        let len = to_usize(u64::from(header.frame_len));
        if to_u64(len) > room {
            return Err(bad("a frame that leaves its segment".to_owned()));
        }
        self.check_epoch(&header)?;
        if bytes.len() < len {
            return Ok(0);
        }
        let bytes = &bytes[..len];
        // No checksum covers what fills a segment or a block.
        if header.kind != FrameKind::Records && bytes[need..].iter().any(|byte| *byte != 0) {
            return Err(bad("other bytes than zeros in a filler".to_owned()));
        }
        match record_fault(bytes, &header, self.broken) {
            None => {}
            Some(RecordFault::Damaged(what) | RecordFault::UnknownForm(what)) => return Err(bad(what)),
        }
        if header.epoch > self.epoch {
            return Err(self.new_epoch(&header, bytes));
        }
        self.check_room(to_u64(len))?;
        self.put(bytes);
        (self.prev_crc, self.is_chained) = (header.header_crc, true);
        self.store_time_ms = self.store_time_ms.max(header.store_time_ms);
        self.frame_ends.push_back(self.next);
        self.batches += u64::from(header.kind == FrameKind::Records);
        self.records.fetch_add(u64::from(header.record_count), Ordering::Relaxed);
        self.frame_bytes += to_u64(len);
        Ok(len)
    }

    fn check_receives(&self, at: Lsn) -> Result<(), TakenStop> {
        let refused = |error| Err(TakenStop::Refused(error));
        if !self.is_replica {
            return refused(ReceiveError::NotReplica);
        }
        if let Some(fenced) = self.marks.fenced() {
            return refused(fenced.clone().into());
        }
        if self.marks.is_closing() {
            return refused(ReceiveError::Closing);
        }
        if at != self.next {
            return refused(ReceiveError::Position { expected: self.next, found: at });
        }
        Ok(())
    }

    fn check_room(&self, len: u64) -> Result<(), TakenStop> {
        // What the leader has taken is taken here as well, as far as there are segments.
        match self.room.admit(Claim::Own, self.next, self.next.plus(len)) {
            Ok(()) => {}
            Err(Refused::NoSegment) => return Err(TakenStop::NoSegment),
            Err(Refused::Because(AppendError::OutOfSpace { needed, left, source })) => {
                return Err(TakenStop::Refused(ReceiveError::OutOfSpace { needed, left, source }));
            }
            Err(Refused::Because(error)) => {
                return Err(TakenStop::Refused(ReceiveError::Frame { lsn: self.next, what: error.to_string() }));
            }
        }
        let waiting = self.next.since(self.marks.load(Watermark::Written));
        // Of a padded log a block may lie there that only the next frame fills.
        if waiting >= to_u64(IO_ALIGN) && waiting + len > self.buffer_bytes {
            return Err(TakenStop::Refused(ReceiveError::Full { waiting, max: self.buffer_bytes }));
        }
        if let Err(AppendError::Behind { waiting, max }) = self.backlog.admit(Claim::Essential) {
            return Err(TakenStop::Refused(ReceiveError::Full { waiting, max }));
        }
        Ok(())
    }

    fn check_epoch(&self, header: &FrameHeader) -> Result<(), TakenStop> {
        if header.epoch < self.epoch {
            let (lsn, known, found) = (header.lsn, self.epoch, header.epoch);
            return Err(TakenStop::Refused(ReceiveError::StaleEpoch { lsn, known, found }));
        }
        if self.is_chained && self.prev_crc != header.prev_crc {
            let (lsn, expected, found) = (header.lsn, self.prev_crc, header.prev_crc);
            return Err(TakenStop::Refused(ReceiveError::Chain { lsn, expected, found }));
        }
        Ok(())
    }

    /// What to do about the first frame of a newer epoch.
    fn new_epoch(&self, header: &FrameHeader, bytes: &[u8]) -> TakenStop {
        let (lsn, epoch) = (header.lsn, header.epoch);
        let refused = |what| TakenStop::Refused(ReceiveError::Epoch { lsn, epoch, what });
        let end = lsn.plus(u64::from(header.frame_len));
        // Where its history does not fit the segment any more, an epoch begins with what fills that.
        if header.kind == FrameKind::Pad && end == self.geometry.segment_end(lsn) {
            return TakenStop::NewEpoch(EpochStart { epoch, first_lsn: lsn });
        }
        let first = record::of_frame(header, bytes).next();
        let history = first.filter(|(_, _, record)| record.kind == RecordKind::EpochHistory);
        let Some(history) = history.and_then(|(_, _, record)| EpochHistory::decode(record.payload)) else {
            return refused("its first frame is not its history");
        };
        let Some(start) = history.last().filter(|last| last.epoch == epoch && last.first_lsn <= lsn) else {
            return refused("its history does not end with it");
        };
        // The zeros of a segment's end may be its first bytes.
        let behind_zeros = lsn == self.geometry.base(lsn) && lsn.since(start.first_lsn) < to_u64(FRAME_HEADER_BYTES);
        if start.first_lsn != lsn && !behind_zeros {
            return refused("its history says that it began elsewhere");
        }
        if !same_past(&self.history, &history, start.first_lsn) {
            return refused("its history is another one than this log's");
        }
        TakenStop::NewEpoch(start)
    }

    /// An epoch that the manifest has, and from whose first byte on it is taken.
    pub(crate) fn enter_epoch(&mut self, history: EpochHistory, epoch: Epoch) {
        self.history = history;
        self.epoch = epoch;
    }

    fn receive_zeros(&mut self, at: Lsn, bytes: &[u8], room: usize) -> Result<usize, TakenStop> {
        let Some(zeros) = bytes.get(..room) else { return Ok(0) };
        if zeros.iter().any(|byte| *byte != 0) {
            let what = "other bytes than zeros at a segment's end".to_owned();
            return Err(TakenStop::Refused(ReceiveError::Frame { lsn: at, what }));
        }
        self.put(zeros);
        Ok(room)
    }
}

/// Whether two histories name the same epochs for everything before `end`, as far back as both go.
fn same_past(one: &EpochHistory, other: &EpochHistory, end: Lsn) -> bool {
    let first = |history: &EpochHistory| history.starts().first().map(|start| start.first_lsn);
    let (Some(from), Some(other_from)) = (first(one), first(other)) else { return true };
    let from = from.max(other_from);
    let starts = one.starts().iter().chain(other.starts());
    let places = starts.map(|start| start.first_lsn).filter(|lsn| *lsn >= from && *lsn < end);
    places.chain((from < end).then_some(from)).all(|lsn| one.at(lsn) == other.at(lsn))
}
