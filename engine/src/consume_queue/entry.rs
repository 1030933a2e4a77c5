//! One entry of a consume queue, 24 bytes: what a reader must know to skip or fetch a message.

use crate::units::Lsn;

/// Bytes of an encoded entry.
pub const ENTRY_BYTES: usize = 24;

/// Where a message stands and what readers filter by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueEntry {
    /// The record's own LSN.
    pub lsn: Lsn,
    /// Bytes of the record; 0 for a message that was given up with its range, which readers pass over.
    pub size: u32,
    /// The caller's tag hash.
    pub tag: u32,
    /// When it was assigned, in milliseconds since 1970; never decreases along a queue.
    pub store_time_ms: u64,
}

impl QueueEntry {
    /// # Shape
    /// LSN u64, size u32, tag u32, store time u64; little-endian.
    #[must_use]
    pub fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[0..8].copy_from_slice(&self.lsn.0.to_le_bytes());
        out[8..12].copy_from_slice(&self.size.to_le_bytes());
        out[12..16].copy_from_slice(&self.tag.to_le_bytes());
        out[16..24].copy_from_slice(&self.store_time_ms.to_le_bytes());
        out
    }

    /// The inverse of [`QueueEntry::encode`].
    #[must_use]
    pub fn decode(bytes: &[u8; ENTRY_BYTES]) -> QueueEntry {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        QueueEntry { lsn: Lsn(u64_at(0)), size: u32_at(8), tag: u32_at(12), store_time_ms: u64_at(16) }
    }
}

const _: () = assert!(size_of::<QueueEntry>() == ENTRY_BYTES, "the entry costs in memory what it costs on disk");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_comes_back_as_it_went() {
        let entry = QueueEntry { lsn: Lsn(1 << 40), size: 7, tag: u32::MAX, store_time_ms: 1_700_000_000_000 };
        assert_eq!(QueueEntry::decode(&entry.encode()), entry);
    }
}
