//! What readers ask for and get.

use std::ops::Range;
use std::sync::Arc;

use crate::batch::Queue;
use crate::commitlog::record::{self, RECORD_HEADER_BYTES, RecordError};
use crate::consume_queue::QueueEntry;
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
    record: Vec<u8>,
    keys: Range<usize>,
    attributes: Range<usize>,
    payload: Range<usize>,
}

impl Message {
    pub(crate) fn new(
        queue: &Queue,
        queue_offset: QueueOffset,
        entry: &QueueEntry,
        bytes: Vec<u8>,
    ) -> Result<Message, RecordError> {
        let record = record::parse(&bytes)?;
        let keys = (RECORD_HEADER_BYTES + record.queue_name.len(), record.keys.len());
        let attributes = (keys.0 + keys.1, record.attributes.len());
        let payload = (attributes.0 + attributes.1, record.payload.len());
        Ok(Message {
            lsn: entry.lsn,
            queue_name: Arc::clone(&queue.name),
            queue_offset,
            store_time_ms: entry.store_time_ms,
            tag: entry.tag,
            keys: keys.0..keys.0 + keys.1,
            attributes: attributes.0..attributes.0 + attributes.1,
            payload: payload.0..payload.0 + payload.1,
            record: bytes,
        })
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        record::keys(&self.record[self.keys.clone()])
    }

    /// The caller's small fields.
    #[must_use]
    pub fn attributes(&self) -> &[u8] {
        &self.record[self.attributes.clone()]
    }

    /// The caller's bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.record[self.payload.clone()]
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
