//! What readers ask for and get.

use std::sync::Arc;

use crate::batch::Queue;
use crate::units::{Lsn, QueueOffset};

/// A message as it was appended, with its place.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its own LSN.
    pub lsn: Lsn,
    /// Its queue's name.
    pub queue_name: Arc<[u8]>,
    /// Its place in its queue.
    pub queue_offset: QueueOffset,
    /// When it was assigned, in milliseconds since 1970.
    pub store_time_ms: u64,
    /// The tag hash.
    pub tag: u32,
    pub(crate) record: Vec<u8>,
    pub(crate) keys: (u32, u32),
    pub(crate) attributes: (u32, u32),
    pub(crate) payload: (u32, u32),
}

impl Message {
    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        crate::commitlog::record::keys(&self.record[self.keys.0 as usize..self.keys.1 as usize])
    }

    /// The caller's small fields.
    #[must_use]
    pub fn attributes(&self) -> &[u8] {
        &self.record[self.attributes.0 as usize..self.attributes.1 as usize]
    }

    /// The caller's bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.record[self.payload.0 as usize..self.payload.1 as usize]
    }
}

/// Readable offsets of a queue: `min <= offset < max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueRange {
    /// The first readable offset.
    pub min: QueueOffset,
    /// The offset that the next visible message will get.
    pub max: QueueOffset,
}

/// A read of consecutive messages of one queue.
pub struct Fetch<'a> {
    /// Which queue.
    pub queue: &'a Queue,
    /// The first offset wanted.
    pub from: QueueOffset,
    /// Most messages to return; at least one is returned when one matches.
    pub messages_max: usize,
    /// Most payload and attribute bytes to return, but for the first message.
    pub bytes_max: usize,
    /// Most entries to look at, matching or not.
    pub scan_max: usize,
    /// Whether the disk may be read. Without it a message behind the cache ends the fetch with [`FetchStatus::NeedsDisk`].
    pub from_disk: bool,
    /// Which tag hashes match.
    pub matches: &'a dyn Fn(u32) -> bool,
}

/// How a fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchStatus {
    /// There are messages.
    Found,
    /// There were entries and none matched; go on at `next`.
    NoMatch,
    /// `from` is the end of the queue.
    AtEnd,
    /// `from` lies before the first readable offset.
    BelowMin,
    /// `from` lies beyond the end.
    BeyondMax,
    /// The next message lies on disk and `from_disk` was not set; nothing was read.
    NeedsDisk,
}

/// What a fetch found.
#[must_use]
#[derive(Debug)]
pub struct FetchOutcome {
    /// How it ended.
    pub status: FetchStatus,
    /// The messages, in queue order.
    pub messages: Vec<Message>,
    /// Where to go on: behind the last entry that was looked at.
    pub next: QueueOffset,
    /// What was readable at that moment.
    pub range: QueueRange,
}
