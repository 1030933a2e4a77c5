//! The record codec: one operation of a write batch.
//!
//! Invariants:
//! 1. A record is encoded and checksummed before it has a position; what the position decides (queue offset, store time) stands in
//!    the frame header.
//! 2. The record restates how far its frame header lies before it, so that an LSN alone finds everything.
//! 3. Nothing here panics on bytes that come from a disk.
//!
//! ```text
//!  0  crc u32 (over bytes 4..len) | len u32
//!  8  frame_offset u32 | kind u8 | flags u8 | name_len u16
//! 16  tag u32 | keys_len u16 | attributes_len u16
//! 24  incarnation u32 | payload_len u32
//! 32  name | keys, each behind a u16 length | attributes | payload | zeros to a multiple of 8
//! ```
//!
//! | kind | name | attributes | payload |
//! |---|---|---|---|
//! | append | queue | the caller's | the caller's |
//! | queue counter | queue | | next offset u64 |
//! | epoch history | | | entries |
//! | link | queue | the caller's | origin's LSN u64, origin's record length u32 |
//! | put | table key | nothing, or a target's LSN u64 | value |
//! | delete | table key | | |
//! | drop queue | queue | | |
//! | lost | queue, or nothing | | zeros |

use crate::commitlog::frame::{self, FrameHeader, FrameKind, RecordEntry};
use crate::units::{Lsn, to_u64, to_usize};

/// Bytes before the queue name.
pub const RECORD_HEADER_BYTES: usize = 32;

/// What a record does. Persisted: codes are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// A message, linked into a queue.
    Append,
    /// Restates a queue's next offset, so that a queue whose messages are all released keeps counting.
    QueueCounter,
    /// Restates the epoch history.
    EpochHistory,
    /// Puts an earlier message into a queue by reference.
    Link,
    /// Sets a table entry.
    Put,
    /// Removes a table entry.
    Delete,
    /// Ends an incarnation of a queue.
    DropQueue,
    /// Says, in the place of a range that was given up, from which offset on a queue goes on.
    Lost,
}

/// Flag of a link or put: its target is given in bytes from the first of this record's frame, not as an LSN.
pub(crate) const TARGET_IN_FRAME: u8 = 1;
/// Bytes of a link's payload.
pub(crate) const LINK_PAYLOAD_BYTES: usize = 12;

impl RecordKind {
    /// Its name, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            RecordKind::Append => "append",
            RecordKind::QueueCounter => "queue counter",
            RecordKind::EpochHistory => "epoch history",
            RecordKind::Link => "link",
            RecordKind::Put => "put",
            RecordKind::Delete => "delete",
            RecordKind::DropQueue => "drop queue",
            RecordKind::Lost => "lost",
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            RecordKind::Append => 1,
            RecordKind::QueueCounter => 2,
            RecordKind::EpochHistory => 3,
            RecordKind::Link => 4,
            RecordKind::Put => 5,
            RecordKind::Delete => 6,
            RecordKind::DropQueue => 7,
            RecordKind::Lost => 8,
        }
    }

    const fn from_code(code: u8) -> Option<RecordKind> {
        match code {
            1 => Some(RecordKind::Append),
            2 => Some(RecordKind::QueueCounter),
            3 => Some(RecordKind::EpochHistory),
            4 => Some(RecordKind::Link),
            5 => Some(RecordKind::Put),
            6 => Some(RecordKind::Delete),
            7 => Some(RecordKind::DropQueue),
            8 => Some(RecordKind::Lost),
            _ => None,
        }
    }
}

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Fewer bytes than the record needs.
    #[error("{have} bytes where {need} are needed")]
    Short {
        /// Bytes given.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// The checksum does not fit.
    #[error("record checksum {found:#010x}, computed {computed:#010x}")]
    Checksum {
        /// Stored.
        found: u32,
        /// Computed.
        computed: u32,
    },
    /// Fields that contradict each other, or a kind of a later version.
    #[error("inconsistent record: {0}")]
    Inconsistent(&'static str),
}

/// A decoded record, borrowed from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it does.
    pub kind: RecordKind,
    /// Bytes from the frame's first to this record's first.
    pub frame_offset: u32,
    /// Whether a target is given relative to the frame; see the module's table.
    pub flags: u8,
    /// The queue it belongs to, or the table key; empty for records of neither.
    pub name: &'a [u8],
    /// Which of the queues that had this name one after the other.
    pub incarnation: u32,
    /// The caller's 32-bit tag hash.
    pub tag: u32,
    /// Keys, encoded.
    pub keys: &'a [u8],
    /// The caller's small fields.
    pub attributes: &'a [u8],
    /// The caller's bytes.
    pub payload: &'a [u8],
}

/// What [`encode`] takes.
#[derive(Clone, Copy, Debug)]
pub struct RecordParts<'a> {
    /// What it does.
    pub kind: RecordKind,
    /// The queue it belongs to, or the table key.
    pub name: &'a [u8],
    /// Which of the queues that had this name one after the other.
    pub incarnation: u32,
    /// The caller's tag hash.
    pub tag: u32,
    /// Keys.
    pub keys: &'a [&'a [u8]],
    /// The caller's small fields.
    pub attributes: &'a [u8],
    /// The caller's bytes, in pieces that are stored one after the other.
    pub payload: &'a [&'a [u8]],
}

/// Appends an encoded record to `out` and returns its length. Frame offset and checksum are set by [`seal`].
///
/// # Panics
/// When a length was not checked against `limits` before.
pub fn encode(out: &mut Vec<u8>, parts: &RecordParts<'_>) -> usize {
    let start = out.len();
    let narrow = |len: usize| u16::try_from(len).expect("checked against limits").to_le_bytes();
    let keys_len: usize = parts.keys.iter().map(|key| key.len() + 2).sum();
    let payload_len: usize = parts.payload.iter().map(|piece| piece.len()).sum();
    let len =
        (RECORD_HEADER_BYTES + parts.name.len() + keys_len + parts.attributes.len() + payload_len).next_multiple_of(8);
    let wide = |len: usize| u32::try_from(len).expect("checked against limits").to_le_bytes();
    out.reserve(len);
    let mut header = [0; RECORD_HEADER_BYTES];
    header[4..8].copy_from_slice(&wide(len));
    header[12] = parts.kind.code();
    header[14..16].copy_from_slice(&narrow(parts.name.len()));
    header[16..20].copy_from_slice(&parts.tag.to_le_bytes());
    header[20..22].copy_from_slice(&narrow(keys_len));
    header[22..24].copy_from_slice(&narrow(parts.attributes.len()));
    header[24..28].copy_from_slice(&parts.incarnation.to_le_bytes());
    header[28..32].copy_from_slice(&wide(payload_len));
    out.extend_from_slice(&header);
    out.extend_from_slice(parts.name);
    for key in parts.keys {
        out.extend_from_slice(&narrow(key.len()));
        out.extend_from_slice(key);
    }
    out.extend_from_slice(parts.attributes);
    for piece in parts.payload {
        out.extend_from_slice(piece);
    }
    out.resize(start + len, 0);
    len
}

/// Sets the frame offset of an encoded record, then its checksum, which is returned.
pub fn seal(record: &mut [u8], frame_offset: u32) -> u32 {
    record[8..12].copy_from_slice(&frame_offset.to_le_bytes());
    let crc = crc32fast::hash(&record[4..]);
    record[0..4].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Sets what an encoded link or put refers to; [`seal`] covers it.
pub(crate) fn set_target(record: &mut [u8], flags: u8, target: Lsn, size: u32) {
    record[13] = flags;
    let name = RECORD_HEADER_BYTES + u16_at(record, 14);
    if record[12] == RecordKind::Link.code() {
        let at = name + u16_at(record, 20) + u16_at(record, 22);
        record[at + 8..at + 12].copy_from_slice(&size.to_le_bytes());
        record[at..at + 8].copy_from_slice(&target.0.to_le_bytes());
    } else {
        record[name..name + 8].copy_from_slice(&target.0.to_le_bytes());
    }
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Length of the record that begins with these bytes, unverified.
///
/// # Errors
/// When there are fewer than [`RECORD_HEADER_BYTES`], or the length cannot be one.
pub fn len_of(bytes: &[u8]) -> Result<usize, RecordError> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return Err(RecordError::Short { have: bytes.len(), need: RECORD_HEADER_BYTES });
    }
    let len = to_usize(u64::from(u32_at(bytes, 4)));
    if len < RECORD_HEADER_BYTES || !len.is_multiple_of(8) || len > to_usize(crate::limits::FRAME_BYTES_MAX) {
        return Err(RecordError::Inconsistent("record length"));
    }
    Ok(len)
}

/// Decodes and verifies the record that begins with these bytes.
///
/// # Errors
/// Says what does not fit.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, RecordError> {
    let len = len_of(bytes)?;
    let record = bytes.get(..len).ok_or(RecordError::Short { have: bytes.len(), need: len })?;
    let found = u32_at(record, 0);
    let computed = crc32fast::hash(&record[4..]);
    if found != computed {
        return Err(RecordError::Checksum { found, computed });
    }
    parse(record)
}

/// The checksum that stands in front of a record; 0 when there is none.
#[must_use]
pub fn stored_checksum(record: &[u8]) -> u32 {
    record.first_chunk().map_or(0, |crc| u32::from_le_bytes(*crc))
}

/// The checksum that these bytes of one record should carry; 0 when there are too few.
#[must_use]
pub fn checksum(record: &[u8]) -> u32 {
    record.get(4..).map_or(0, crc32fast::hash)
}

/// [`decode`] without the checksum, for bytes that this process wrote itself and still holds.
///
/// # Errors
/// Says what does not fit.
pub fn parse(record: &[u8]) -> Result<Record<'_>, RecordError> {
    let len = len_of(record)?;
    let record = record.get(..len).ok_or(RecordError::Short { have: record.len(), need: len })?;
    let kind = RecordKind::from_code(record[12]).ok_or(RecordError::Inconsistent("unknown kind"))?;
    let mut at = RECORD_HEADER_BYTES;
    let mut take = |len: usize| {
        let piece = record.get(at..at.saturating_add(len)).ok_or(RecordError::Inconsistent("field lengths"));
        at = at.saturating_add(len);
        piece
    };
    let name = take(u16_at(record, 14))?;
    let keys = take(u16_at(record, 20))?;
    let attributes = take(u16_at(record, 22))?;
    let payload = take(to_usize(u64::from(u32_at(record, 28))))?;
    Ok(Record {
        kind,
        frame_offset: u32_at(record, 8),
        flags: record[13],
        name,
        incarnation: u32_at(record, 24),
        tag: u32_at(record, 16),
        keys,
        attributes,
        payload,
    })
}

/// What a link leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// LSN of the message that was appended.
    pub lsn: Lsn,
    /// Length of its record, in bytes.
    pub size: u32,
}

impl Record<'_> {
    /// What a put refers to, or where a link leads; `None` for a put without a target and for all other kinds. `lsn` is this record's own.
    #[must_use]
    pub fn target(&self, lsn: Lsn) -> Option<Lsn> {
        let field = match self.kind {
            RecordKind::Link => self.payload,
            RecordKind::Put => self.attributes,
            _ => return None,
        };
        let value = u64::from_le_bytes(*field.first_chunk()?);
        if self.flags & TARGET_IN_FRAME == 0 {
            return Some(Lsn(value));
        }
        let frame = lsn.0.checked_sub(u64::from(self.frame_offset))?;
        frame.checked_add(value).map(Lsn)
    }

    /// Where a link leads, with the length of the record there; `None` for other kinds. `lsn` is this record's own.
    #[must_use]
    pub fn origin(&self, lsn: Lsn) -> Option<Origin> {
        if self.kind != RecordKind::Link || self.payload.len() != LINK_PAYLOAD_BYTES {
            return None;
        }
        Some(Origin { lsn: self.target(lsn)?, size: u32_at(self.payload, 8) })
    }
}

/// The records of a frame that parse, with their LSNs. Checksums are not looked at.
pub(crate) fn of_frame<'a>(
    header: &FrameHeader,
    bytes: &'a [u8],
) -> impl Iterator<Item = (Lsn, RecordEntry, Record<'a>)> + use<'a> {
    let count = if header.kind == FrameKind::Records { header.record_count } else { 0 };
    let (mut at, frame_lsn) = (frame::header_bytes(usize::from(count)), header.lsn);
    frame::entries(bytes, count).filter_map(move |entry| {
        let begin = at;
        at += entry.len as usize;
        let record = parse(bytes.get(begin..at)?).ok()?;
        Some((frame_lsn.plus(to_u64(begin)), entry, record))
    })
}

/// The keys in their encoded form; stops at the first that is cut off.
pub fn keys(encoded: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = encoded;
    std::iter::from_fn(move || {
        let (len, tail) = rest.split_first_chunk::<2>()?;
        let (key, tail) = tail.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
        rest = tail;
        Some(key)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_comes_back_as_it_went(
            queue in prop::collection::vec(any::<u8>(), 0..40),
            tag in any::<u32>(),
            key_list in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..4),
            attributes in prop::collection::vec(any::<u8>(), 0..50),
            payload in prop::collection::vec(any::<u8>(), 0..3000),
            split in any::<prop::sample::Index>(),
            frame_offset in any::<u32>(),
            incarnation in any::<u32>(),
        ) {
            let key_refs: Vec<&[u8]> = key_list.iter().map(Vec::as_slice).collect();
            let (left, right) = payload.split_at(split.index(payload.len() + 1));
            let mut out = vec![0xAA; 3];
            let len = encode(&mut out, &RecordParts {
                kind: RecordKind::Append,
                name: &queue,
                incarnation,
                tag,
                keys: &key_refs,
                attributes: &attributes,
                payload: &[left, right],
            });
            prop_assert_eq!(out.len(), 3 + len);
            seal(&mut out[3..], frame_offset);
            let record = decode(&out[3..]).unwrap();
            prop_assert_eq!((record.name, record.incarnation), (&queue[..], incarnation));
            prop_assert_eq!((record.tag, record.frame_offset, record.kind), (tag, frame_offset, RecordKind::Append));
            prop_assert_eq!(keys(record.keys).collect::<Vec<_>>(), key_refs);
            prop_assert_eq!(record.attributes, &attributes[..]);
            prop_assert_eq!(record.payload, &payload[..]);
        }

        #[test]
        fn any_bytes_decode_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), fix in any::<bool>()) {
            // With `fix` the checksum is made right, so that the field checks behind it are reached.
            if fix && bytes.len() >= RECORD_HEADER_BYTES {
                let len = u32::try_from(bytes.len() / 8 * 8).unwrap();
                bytes[4..8].copy_from_slice(&len.to_le_bytes());
                bytes.truncate(len as usize);
                let crc = crc32fast::hash(&bytes[4..]);
                bytes[0..4].copy_from_slice(&crc.to_le_bytes());
            }
            if let Ok(record) = decode(&bytes) {
                keys(record.keys).count();
                let inside = Lsn(u64::from(record.frame_offset) / 2);
                prop_assert!(record.origin(inside).is_none() || record.kind == RecordKind::Link);
                prop_assert!(record.target(Lsn(u64::MAX)).is_none() || record.kind != RecordKind::Append);
            }
        }
    }
}
