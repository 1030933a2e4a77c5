//! What to say of an LSN at which no record could be read: that no message begins there, or that one is damaged.
//!
//! An LSN that no message begins at is an honest mistake, and the answer is "not found". An LSN whose message cannot be found because a
//! header has rotted must not get that answer: whoever asked would believe that the message was never there. The frame before the LSN
//! tells them apart: frames lie back to back, so either it covers the LSN and says which records it has, or one behind it is damaged.

use crate::commitlog::frame::{self, FRAME_ALIGN, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, FrameKind};
use crate::commitlog::reader::LogReader;
use crate::error::ReadError;
use crate::limits::{COLD_READ_BYTES, FRAME_BYTES_MAX};
use crate::units::{Lsn, align_down, to_u64, to_usize};

/// The last frame before an LSN, in the LSN's own segment.
struct Before {
    header: FrameHeader,
    /// Header and entries.
    bytes: Vec<u8>,
}

impl LogReader {
    /// Why no record can be read at `lsn`. Reads backwards, a frame's largest size at most.
    pub(super) fn why_unreadable(&self, lsn: Lsn) -> ReadError {
        let geometry = self.geometry();
        let reachable = self.is_retained(lsn) && lsn.0.is_multiple_of(FRAME_ALIGN);
        if !reachable || geometry.segment_end(lsn).since(lsn) < to_u64(FRAME_HEADER_BYTES) {
            return ReadError::NotFound(lsn);
        }
        let verdict = match self.frame_before(lsn) {
            Err(ReadError::NotFound(_)) => None,
            Err(error) => return error,
            Ok(None) if lsn == geometry.base(lsn) => None,
            Ok(None) => Some("no frame header is left before it".to_owned()),
            Ok(Some(Before { header, bytes })) => {
                let end = header.lsn.plus(u64::from(header.frame_len));
                if end <= lsn {
                    // What begins here is a frame, whole or not, and no record.
                    (end < lsn).then(|| format!("the header of the frame at LSN {end}"))
                } else {
                    let first = header.lsn.plus(to_u64(frame::header_bytes(usize::from(header.record_count))));
                    let mut starts = frame::entries(&bytes, header.record_count).scan(first, |at, entry| {
                        let start = *at;
                        *at = at.plus(u64::from(entry.len));
                        Some(start)
                    });
                    let begins = header.kind == FrameKind::Records && starts.any(|start| start == lsn);
                    begins.then(|| "the record's header".to_owned())
                }
            }
        };
        match verdict {
            // Released meanwhile: the bytes may be another segment's.
            Some(what) if self.is_retained(lsn) => self.damage(lsn, what),
            _ => ReadError::NotFound(lsn),
        }
    }

    fn frame_before(&self, lsn: Lsn) -> Result<Option<Before>, ReadError> {
        let base = self.geometry().base(lsn);
        let lowest = base.max(Lsn(lsn.0.saturating_sub(FRAME_BYTES_MAX)));
        let mut end = lsn;
        let mut bytes = Vec::new();
        while end > lowest {
            let from = base.plus(align_down(end.since(base) - 1, COLD_READ_BYTES)).max(lowest);
            bytes.clear();
            self.bytes(from, end.since(from), true, &mut bytes)?;
            // Frames begin at multiples of 8, so a magic is never cut in two.
            for (index, word) in bytes.chunks_exact(to_usize(FRAME_ALIGN)).enumerate().rev() {
                if word.starts_with(&FRAME_MAGIC.to_le_bytes()) {
                    let at = from.plus(to_u64(index) * FRAME_ALIGN);
                    if let Some(before) = self.frame_header(at)? {
                        return Ok(Some(before));
                    }
                }
            }
            end = from;
        }
        Ok(None)
    }

    /// The header at `at`, if a sound one stands there.
    fn frame_header(&self, at: Lsn) -> Result<Option<Before>, ReadError> {
        let room = self.geometry().segment_end(at).since(at);
        let mut bytes = Vec::new();
        if room < to_u64(FRAME_HEADER_BYTES) {
            return Ok(None);
        }
        self.bytes(at, to_u64(FRAME_HEADER_BYTES), true, &mut bytes)?;
        let Ok(need) = frame::header_bytes_needed(&bytes) else { return Ok(None) };
        if to_u64(need) > room {
            return Ok(None);
        }
        bytes.clear();
        self.bytes(at, to_u64(need), true, &mut bytes)?;
        Ok(frame::decode_header(&bytes, at).ok().map(|header| Before { header, bytes }))
    }
}
