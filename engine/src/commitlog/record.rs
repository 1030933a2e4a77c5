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
//!  8  frame_offset u32 | kind u8 | flags u8 (zero) | queue_name_len u16
//! 16  tag u32 | keys_len u16 | attributes_len u16
//! 24  incarnation u32 (zero) | payload_len u32
//! 32  queue name | keys, each behind a u16 length | attributes | payload | zeros to a multiple of 8
//! ```

use crate::units::to_usize;

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
}

/// Names of the kinds by code; format.md keeps those that are not in use yet.
const KIND_NAMES: [&str; 8] =
    ["none", "append", "queue counter", "epoch history", "link", "put", "delete", "drop queue"];

impl RecordKind {
    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        KIND_NAMES.get(usize::from(self.code())).copied().unwrap_or("unnamed")
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            RecordKind::Append => 1,
            RecordKind::QueueCounter => 2,
            RecordKind::EpochHistory => 3,
        }
    }

    const fn from_code(code: u8) -> Option<RecordKind> {
        match code {
            1 => Some(RecordKind::Append),
            2 => Some(RecordKind::QueueCounter),
            3 => Some(RecordKind::EpochHistory),
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
    /// The queue it belongs to; empty for records of no queue.
    pub queue_name: &'a [u8],
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
    /// The queue it belongs to.
    pub queue_name: &'a [u8],
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
    let len = (RECORD_HEADER_BYTES + parts.queue_name.len() + keys_len + parts.attributes.len() + payload_len)
        .next_multiple_of(8);
    let wide = |len: usize| u32::try_from(len).expect("checked against limits").to_le_bytes();
    out.reserve(len);
    let mut header = [0; RECORD_HEADER_BYTES];
    header[4..8].copy_from_slice(&wide(len));
    header[12] = parts.kind.code();
    header[14..16].copy_from_slice(&narrow(parts.queue_name.len()));
    header[16..20].copy_from_slice(&parts.tag.to_le_bytes());
    header[20..22].copy_from_slice(&narrow(keys_len));
    header[22..24].copy_from_slice(&narrow(parts.attributes.len()));
    header[28..32].copy_from_slice(&wide(payload_len));
    out.extend_from_slice(&header);
    out.extend_from_slice(parts.queue_name);
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
    let queue_name = take(u16_at(record, 14))?;
    let keys = take(u16_at(record, 20))?;
    let attributes = take(u16_at(record, 22))?;
    let payload = take(to_usize(u64::from(u32_at(record, 28))))?;
    Ok(Record { kind, frame_offset: u32_at(record, 8), queue_name, tag: u32_at(record, 16), keys, attributes, payload })
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
        ) {
            let key_refs: Vec<&[u8]> = key_list.iter().map(Vec::as_slice).collect();
            let (left, right) = payload.split_at(split.index(payload.len() + 1));
            let mut out = vec![0xAA; 3];
            let len = encode(&mut out, &RecordParts {
                kind: RecordKind::Append,
                queue_name: &queue,
                tag,
                keys: &key_refs,
                attributes: &attributes,
                payload: &[left, right],
            });
            prop_assert_eq!(out.len(), 3 + len);
            seal(&mut out[3..], frame_offset);
            let record = decode(&out[3..]).unwrap();
            prop_assert_eq!(record.queue_name, &queue[..]);
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
            }
        }
    }
}
