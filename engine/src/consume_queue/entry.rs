//! One entry of a consume queue, 24 bytes: what a reader must know to skip or fetch a message.

use crate::units::Lsn;

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

const _: () = assert!(size_of::<QueueEntry>() == 24, "millions of them are in memory");
