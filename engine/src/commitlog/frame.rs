//! The frame codec: the unit of atomicity, there or not there.
//!
//! Invariants:
//! 1. The header checksum covers the frame's position, its epoch, the checksum of the header before it, the marks and every record's
//!    checksum. Bytes of another position or another run never pass.
//! 2. A record's damage is found by its own checksum and costs that record alone.
//! 3. Nothing here panics on bytes that come from a disk.
//!
//! ```text
//!  0  magic u32 | version u8 | kind u8 | record_count u16
//!  8  frame_len u32 | prev_crc u32
//! 16  lsn u64
//! 24  term u32 | run u32
//! 32  store_time_ms u64
//! 40  durable_lsn u64
//! 48  acked_lsn u64
//! 56  reserved u32 (zero) | header_crc u32
//! 64  record_count x { len u32 | crc u32 | queue_offset u64 }
//! ```
//!
//! All integers are little-endian. Written down in `engine/docs/format.md`; golden bytes in `fixtures/log/`.

use crate::units::{Epoch, Lsn, QueueOffset, to_u64, to_usize};

/// First word of every frame: `ALF1`.
pub const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"ALF1");
/// Version of the frame format.
pub const FRAME_VERSION: u8 = 1;
/// Bytes of the fixed header.
pub const FRAME_HEADER_BYTES: usize = 64;
/// Bytes of one record entry.
pub const FRAME_ENTRY_BYTES: usize = 16;
/// Frames begin and end on multiples of this.
pub const FRAME_ALIGN: u64 = 8;

const LSN_AT: usize = 16;
const CRC_AT: usize = 60;
const RESERVED_AT: usize = 56;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A write batch.
    Records,
    /// Space that holds nothing: the end of a segment, or of a padded block.
    Pad,
    /// No records: carries the durable and acked marks of the group before it.
    Mark,
}

impl FrameKind {
    const fn code(self) -> u8 {
        match self {
            FrameKind::Records => 1,
            FrameKind::Pad => 2,
            FrameKind::Mark => 3,
        }
    }

    /// Its name, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FrameKind::Records => "records",
            FrameKind::Pad => "pad",
            FrameKind::Mark => "mark",
        }
    }

    const fn from_code(code: u8) -> Option<FrameKind> {
        match code {
            1 => Some(FrameKind::Records),
            2 => Some(FrameKind::Pad),
            3 => Some(FrameKind::Mark),
            _ => None,
        }
    }
}

/// A decoded fixed header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame is for.
    pub kind: FrameKind,
    /// Records in it.
    pub record_count: u16,
    /// Bytes from this frame's first to the next one's first.
    pub frame_len: u32,
    /// Header checksum of the frame before it.
    pub prev_crc: u32,
    /// Where the frame stands.
    pub lsn: Lsn,
    /// Who wrote it.
    pub epoch: Epoch,
    /// When it was assigned; never decreases along the log.
    pub store_time_ms: u64,
    /// The end of the last frame that was durable as a whole when this one was assigned, on the writer's disk.
    pub durable_lsn: Lsn,
    /// The writer's acked watermark when it was assigned.
    pub acked_lsn: Lsn,
    /// The checksum over all of the above and the entries.
    pub header_crc: u32,
}

/// What the header says of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordEntry {
    /// Bytes of the record, padding included.
    pub len: u32,
    /// The record's checksum.
    pub crc: u32,
    /// Its place in its queue; zero for records of no queue.
    pub queue_offset: QueueOffset,
}

/// Why bytes are not the frame that should stand there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Fewer bytes than a header and its entries need.
    #[error("{have} bytes where {need} are needed")]
    Short {
        /// Bytes given.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// Another first word: nothing was ever written here, or something else was.
    #[error("no frame magic (found {0:#010x})")]
    Magic(u32),
    /// A version that this program does not know.
    #[error("frame version {0}")]
    Version(u8),
    /// The checksum does not fit.
    #[error("header checksum {found:#010x}, computed {computed:#010x}")]
    Checksum {
        /// Stored.
        found: u32,
        /// Computed.
        computed: u32,
    },
    /// A sound header that belongs elsewhere: stale bytes of a recycled segment, or a misdirected write.
    #[error("frame of LSN {0}")]
    Position(Lsn),
    /// A whole header of a kind that this program does not know: one of a later version.
    #[error("frame kind {0}")]
    Kind(u8),
    /// A whole header whose fields contradict each other: no torn write and no rot leaves this.
    #[error("inconsistent header: {0}")]
    Inconsistent(&'static str),
}

impl FrameError {
    /// Whether the bytes are as they were written, and it is their form that this program does not know.
    pub(crate) fn is_form(&self) -> bool {
        matches!(self, FrameError::Kind(_) | FrameError::Inconsistent(_))
    }
}

/// Bytes that a frame with `record_count` records needs before the first record.
#[must_use]
pub const fn header_bytes(record_count: usize) -> usize {
    FRAME_HEADER_BYTES + record_count * FRAME_ENTRY_BYTES
}

/// The fields that are known only when the frame's position is.
#[derive(Clone, Copy, Debug)]
pub struct FrameStamp {
    /// Where the frame will stand.
    pub lsn: Lsn,
    /// Header checksum of the frame before it.
    pub prev_crc: u32,
    /// Who writes it.
    pub epoch: Epoch,
    /// Its store time.
    pub store_time_ms: u64,
    /// The end of the last frame that is durable as a whole.
    pub durable_lsn: Lsn,
    /// The acked watermark now.
    pub acked_lsn: Lsn,
}

/// Encodes header and entries to the front of `out` and returns the header checksum.
///
/// # Shape
/// `out` is exactly [`header_bytes`]`(entries.len())` long. `frame_len` is a multiple of 8.
///
/// # Panics
/// When `out` has another length, or there are more entries than a batch may have.
pub fn encode_header(
    out: &mut [u8],
    kind: FrameKind,
    frame_len: u32,
    stamp: &FrameStamp,
    entries: impl ExactSizeIterator<Item = RecordEntry>,
) -> u32 {
    let record_count = u16::try_from(entries.len()).expect("a batch is bounded by BATCH_RECORDS_MAX");
    assert_eq!(out.len(), header_bytes(entries.len()), "the header's room");
    out[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
    out[4] = FRAME_VERSION;
    out[5] = kind.code();
    out[6..8].copy_from_slice(&record_count.to_le_bytes());
    out[8..12].copy_from_slice(&frame_len.to_le_bytes());
    out[12..16].copy_from_slice(&stamp.prev_crc.to_le_bytes());
    out[16..24].copy_from_slice(&stamp.lsn.0.to_le_bytes());
    out[24..28].copy_from_slice(&stamp.epoch.term.to_le_bytes());
    out[28..32].copy_from_slice(&stamp.epoch.run.to_le_bytes());
    out[32..40].copy_from_slice(&stamp.store_time_ms.to_le_bytes());
    out[40..48].copy_from_slice(&stamp.durable_lsn.0.to_le_bytes());
    out[48..56].copy_from_slice(&stamp.acked_lsn.0.to_le_bytes());
    out[56..64].fill(0);
    for (index, entry) in entries.enumerate() {
        let at = FRAME_HEADER_BYTES + index * FRAME_ENTRY_BYTES;
        out[at..at + 4].copy_from_slice(&entry.len.to_le_bytes());
        out[at + 4..at + 8].copy_from_slice(&entry.crc.to_le_bytes());
        out[at + 8..at + 16].copy_from_slice(&entry.queue_offset.0.to_le_bytes());
    }
    let crc = checksum(out);
    out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// The checksum of a header with its entries; the checksum field itself is left out.
fn checksum(header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..CRC_AT]);
    hasher.update(&header[FRAME_HEADER_BYTES..]);
    hasher.finalize()
}

/// Gives an encoded header this checksum, by its reserved bytes. Only for what is written in the place of frames that are lost: the frame
/// behind them names theirs.
pub(crate) fn set_checksum(header: &mut [u8], wanted: u32) {
    // Each bit of the reserved bytes flips bits of the checksum of its own, whatever the others are; together they reach every checksum.
    let mut with = |bits: u32| {
        header[RESERVED_AT..RESERVED_AT + 4].copy_from_slice(&bits.to_le_bytes());
        checksum(header)
    };
    let plain = with(0);
    // What is reached by which bits, each with a highest bit of its own.
    let mut basis: Vec<(u32, u32)> = Vec::new();
    let reduced = |basis: &[(u32, u32)], (mut sum, mut bits): (u32, u32)| {
        for (reached, by) in basis {
            if sum & (1 << (31 - reached.leading_zeros())) != 0 {
                (sum, bits) = (sum ^ reached, bits ^ by);
            }
        }
        (sum, bits)
    };
    for bit in 0..32 {
        let next = reduced(&basis, (with(1 << bit) ^ plain, 1 << bit));
        if next.0 != 0 {
            basis.push(next);
            basis.sort_unstable_by_key(|(reached, _)| std::cmp::Reverse(*reached));
        }
    }
    let (rest, bits) = reduced(&basis, (plain ^ wanted, 0));
    assert_eq!((rest, with(bits)), (0, wanted), "four bytes reach every checksum");
    header[CRC_AT..CRC_AT + 4].copy_from_slice(&wanted.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Where, behind the first place of `bytes`, a frame can begin next: at a magic number, or beyond what was looked at.
#[must_use]
pub fn next_candidate(bytes: &[u8]) -> usize {
    let magic = FRAME_MAGIC.to_le_bytes();
    let (places, _) = bytes.as_chunks::<8>();
    let later = places.iter().skip(1).position(|place| place[..4] == magic);
    8 * later.map_or(places.len().max(1), |index| index + 1)
}

/// How many bytes [`decode_header`] needs, from the first [`FRAME_HEADER_BYTES`]; nothing is verified but the magic and the version.
///
/// # Errors
/// When no frame can begin with these bytes.
pub fn header_bytes_needed(bytes: &[u8]) -> Result<usize, FrameError> {
    if bytes.len() < FRAME_HEADER_BYTES {
        return Err(FrameError::Short { have: bytes.len(), need: FRAME_HEADER_BYTES });
    }
    let magic = u32_at(bytes, 0);
    if magic != FRAME_MAGIC {
        return Err(FrameError::Magic(magic));
    }
    if bytes[4] != FRAME_VERSION {
        return Err(FrameError::Version(bytes[4]));
    }
    Ok(header_bytes(usize::from(u16::from_le_bytes([bytes[6], bytes[7]]))))
}

/// Decodes and verifies header and entries that stand at `at`.
///
/// # Errors
/// Says why these bytes are not the frame of that position. The record bytes are not looked at.
pub fn decode_header(bytes: &[u8], at: Lsn) -> Result<FrameHeader, FrameError> {
    let header = decode_anywhere(bytes).map_err(|error| match error {
        error if error.is_form() && u64_at(bytes, LSN_AT) != at.0 => FrameError::Position(Lsn(u64_at(bytes, LSN_AT))),
        error => error,
    })?;
    if header.lsn != at {
        return Err(FrameError::Position(header.lsn));
    }
    Ok(header)
}

/// [`decode_header`] without the comparison of the position: for tools that look at stale bytes.
///
/// # Errors
/// As [`decode_header`], but for [`FrameError::Position`].
pub fn decode_anywhere(bytes: &[u8]) -> Result<FrameHeader, FrameError> {
    let need = header_bytes_needed(bytes)?;
    if bytes.len() < need {
        return Err(FrameError::Short { have: bytes.len(), need });
    }
    let header_crc = u32_at(bytes, CRC_AT);
    let computed = checksum(&bytes[..need]);
    if header_crc != computed {
        return Err(FrameError::Checksum { found: header_crc, computed });
    }
    let kind = FrameKind::from_code(bytes[5]).ok_or(FrameError::Kind(bytes[5]))?;
    let record_count = u16::from_le_bytes([bytes[6], bytes[7]]);
    let frame_len = u32_at(bytes, 8);
    let header = FrameHeader {
        kind,
        record_count,
        frame_len,
        prev_crc: u32_at(bytes, 12),
        lsn: Lsn(u64_at(bytes, LSN_AT)),
        epoch: Epoch { term: u32_at(bytes, 24), run: u32_at(bytes, 28) },
        store_time_ms: u64_at(bytes, 32),
        durable_lsn: Lsn(u64_at(bytes, 40)),
        acked_lsn: Lsn(u64_at(bytes, 48)),
        header_crc,
    };
    if !u64::from(frame_len).is_multiple_of(FRAME_ALIGN) || to_usize(u64::from(frame_len)) < need {
        return Err(FrameError::Inconsistent("frame length"));
    }
    if kind != FrameKind::Records && record_count != 0 {
        return Err(FrameError::Inconsistent("records in a frame of another kind"));
    }
    let records: u64 = entries(bytes, record_count).map(|entry| u64::from(entry.len)).sum();
    if kind == FrameKind::Records && to_u64(need) + records != u64::from(frame_len) {
        return Err(FrameError::Inconsistent("record lengths"));
    }
    Ok(header)
}

/// What a frame of any kind says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    /// What the frame is for, if this program knows the kind.
    pub kind: Option<FrameKind>,
    /// Records in it, of a kind that is known.
    pub record_count: u16,
    /// Bytes from this frame's first to the next one's first.
    pub frame_len: u32,
    /// Header checksum of the frame before it.
    pub prev_crc: u32,
    /// Its own header checksum.
    pub header_crc: u32,
}

/// [`decode_header`] for those who step from frame to frame: a kind that this program does not know is no error.
///
/// # Errors
/// As [`decode_header`], but for [`FrameError::Kind`].
pub fn outline(bytes: &[u8], at: Lsn) -> Result<Outline, FrameError> {
    let outline = match decode_header(bytes, at) {
        Ok(FrameHeader { kind, record_count, frame_len, prev_crc, header_crc, .. }) => {
            Outline { kind: Some(kind), record_count, frame_len, prev_crc, header_crc }
        }
        // The checksum was compared before the kind, so what every frame has can be relied on.
        Err(FrameError::Kind(_)) => Outline {
            kind: None,
            record_count: 0,
            frame_len: u32_at(bytes, 8),
            prev_crc: u32_at(bytes, 12),
            header_crc: u32_at(bytes, CRC_AT),
        },
        Err(error) => return Err(error),
    };
    let len = u64::from(outline.frame_len);
    if !len.is_multiple_of(FRAME_ALIGN) || len < to_u64(header_bytes_needed(bytes)?) {
        return Err(FrameError::Inconsistent("frame length"));
    }
    Ok(outline)
}

/// The entries of a verified header.
pub fn entries(bytes: &[u8], record_count: u16) -> impl ExactSizeIterator<Item = RecordEntry> + '_ {
    (0..usize::from(record_count)).map(|index| {
        let at = FRAME_HEADER_BYTES + index * FRAME_ENTRY_BYTES;
        RecordEntry {
            len: u32_at(bytes, at),
            crc: u32_at(bytes, at + 4),
            queue_offset: QueueOffset(u64_at(bytes, at + 8)),
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stamp(lsn: u64) -> FrameStamp {
        FrameStamp {
            lsn: Lsn(lsn),
            prev_crc: 7,
            epoch: Epoch { term: 1, run: 2 },
            store_time_ms: 3,
            durable_lsn: Lsn(4),
            acked_lsn: Lsn(5),
        }
    }

    fn encoded(lsn: u64, entries: &[RecordEntry]) -> Vec<u8> {
        let mut out = vec![0; header_bytes(entries.len())];
        let records: u32 = entries.iter().map(|entry| entry.len).sum();
        let len = u32::try_from(out.len()).unwrap() + records;
        encode_header(&mut out, FrameKind::Records, len, &stamp(lsn), entries.iter().copied());
        out
    }

    proptest! {
        #[test]
        fn a_header_comes_back_as_it_went(
            lsn in any::<u64>(),
            lens in prop::collection::vec((1u32..1000, any::<u32>(), any::<u64>()), 0..20),
        ) {
            let list: Vec<_> = lens
                .iter()
                .map(|&(len, crc, offset)| RecordEntry { len: len * 8, crc, queue_offset: QueueOffset(offset) })
                .collect();
            let bytes = encoded(lsn, &list);
            let header = decode_header(&bytes, Lsn(lsn)).unwrap();
            prop_assert_eq!(entries(&bytes, header.record_count).collect::<Vec<_>>(), list);
            prop_assert_eq!(header.epoch, Epoch { term: 1, run: 2 });
            prop_assert_eq!((header.prev_crc, header.store_time_ms), (7, 3));
            prop_assert_eq!((header.durable_lsn, header.acked_lsn), (Lsn(4), Lsn(5)));
        }

        #[test]
        fn any_bytes_decode_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), lsn in any::<u64>()) {
            assert!(decode_header(&bytes, Lsn(lsn)).is_err() || bytes.len() >= FRAME_HEADER_BYTES);
        }

        #[test]
        fn one_changed_bit_is_seen(bit in 0usize..(64 + 32) * 8) {
            let list = [RecordEntry { len: 8, crc: 1, queue_offset: QueueOffset(9) }; 2];
            let mut bytes = encoded(800, &list);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode_header(&bytes, Lsn(800)).is_err());
        }
    }

    #[test]
    fn a_frame_of_a_later_version_can_be_stepped_over() {
        let mut bytes = encoded(800, &[]);
        let known = outline(&bytes, Lsn(800)).unwrap();
        assert_eq!((known.kind, known.frame_len, known.prev_crc), (Some(FrameKind::Records), 64, 7));
        bytes[5] = 99;
        assert!(matches!(outline(&bytes, Lsn(800)), Err(FrameError::Checksum { .. })), "a changed kind is damage");
        let crc = checksum(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode_header(&bytes, Lsn(800)), Err(FrameError::Kind(99)));
        let unknown = outline(&bytes, Lsn(800)).unwrap();
        assert_eq!((unknown.kind, unknown.frame_len, unknown.header_crc), (None, 64, crc));
        assert_eq!(outline(&bytes, Lsn(808)), Err(FrameError::Position(Lsn(800))));
    }

    #[test]
    fn a_sound_header_of_another_position_is_refused() {
        let bytes = encoded(800, &[]);
        assert_eq!(decode_header(&bytes, Lsn(808)), Err(FrameError::Position(Lsn(800))));
    }

    #[test]
    fn the_next_frame_is_looked_for_at_magic_numbers_only() {
        let mut bytes = [0; 64];
        assert_eq!(next_candidate(&bytes), 64);
        bytes[0..4].copy_from_slice(b"ALF1");
        bytes[20..24].copy_from_slice(b"ALF1");
        assert_eq!(next_candidate(&bytes), 64, "the first place is behind, and no frame begins at 20");
        bytes[40..44].copy_from_slice(b"ALF1");
        assert_eq!(next_candidate(&bytes), 40);
        assert_eq!(next_candidate(&bytes[..4]), 8);
    }
}
