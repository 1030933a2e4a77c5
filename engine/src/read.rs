//! What readers ask for and get.

use std::ops::Range;
use std::sync::Arc;

use crate::batch::{MessageRef, Queue};
use crate::commitlog::record::{self, Origin, RECORD_HEADER_BYTES, RecordError, RecordKind};
use crate::consume_queue::QueueEntry;
use crate::units::{Lsn, QueueOffset};

/// A message as it stands in its queue. One that a link put there has the link's place, tag, keys and attributes, and the payload of the
/// message that the link leads to.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its own LSN; a link's is not its origin's.
    pub lsn: Lsn,
    /// Its queue's name.
    pub queue_name: Arc<[u8]>,
    /// Its place in its queue.
    pub queue_offset: QueueOffset,
    /// When it was assigned, in milliseconds since 1970.
    pub store_time_ms: u64,
    /// The tag hash.
    pub tag: u32,
    opening: u32,
    record: Vec<u8>,
    keys: Range<usize>,
    attributes: Range<usize>,
    /// In `record`, or in the origin's where there is one.
    payload: Range<usize>,
    /// In the origin's record, where there is one: its queue's name, and its attributes.
    origin_name: Range<usize>,
    origin_attributes: Range<usize>,
    origin: Option<(Lsn, Vec<u8>)>,
}

/// Where the fields of a record stand: keys, attributes, payload.
fn fields(bytes: &[u8]) -> Result<[Range<usize>; 3], RecordError> {
    let record = record::parse(bytes)?;
    let keys = RECORD_HEADER_BYTES + record.name.len();
    let attributes = keys + record.keys.len();
    let payload = attributes + record.attributes.len();
    Ok([keys..attributes, attributes..payload, payload..payload + record.payload.len()])
}

/// What a record's payload is.
pub(crate) enum Payload {
    /// The record's own.
    Own,
    /// That of the record here, with these bytes.
    Origin(Lsn, Vec<u8>),
    /// Only the disk has it.
    OnDisk,
}

impl Message {
    /// `origin`: where a link leads, with the bytes of the record there.
    pub(crate) fn new(
        queue_name: Arc<[u8]>,
        opening: u32,
        queue_offset: QueueOffset,
        entry: &QueueEntry,
        bytes: Vec<u8>,
        origin: Option<(Lsn, Vec<u8>)>,
    ) -> Result<Message, RecordError> {
        let [keys, attributes, own_payload] = fields(&bytes)?;
        let (origin_name, origin_attributes, payload) = match &origin {
            Some((_, origin)) => {
                let [keys, attributes, payload] = fields(origin)?;
                if record::parse(origin)?.kind != RecordKind::Append {
                    return Err(RecordError::Inconsistent("a link that leads to no message"));
                }
                (RECORD_HEADER_BYTES..keys.start, attributes, payload)
            }
            None => (0..0, 0..0, own_payload),
        };
        Ok(Message {
            lsn: entry.lsn,
            queue_name,
            queue_offset,
            store_time_ms: entry.store_time_ms,
            tag: entry.tag,
            opening,
            keys,
            attributes,
            payload,
            origin_name,
            origin_attributes,
            record: bytes,
            origin,
        })
    }

    /// What a link or a table entry refers to this message by.
    #[must_use]
    pub fn reference(&self) -> MessageRef {
        let bytes = self.origin.as_ref().map_or(&self.record, |(_, bytes)| bytes);
        // Records are bounded by FRAME_BYTES_MAX.
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        MessageRef { lsn: self.lsn, origin: Origin { lsn: self.origin_lsn(), size }, opening: self.opening }
    }

    /// Where its payload stands: its own LSN, unless a link put it into its queue.
    #[must_use]
    pub fn origin_lsn(&self) -> Lsn {
        self.origin.as_ref().map_or(self.lsn, |(lsn, _)| *lsn)
    }

    /// Bytes that it takes in memory: what [`crate::KeyQuery::bytes_max`] counts.
    #[must_use]
    pub fn size(&self) -> usize {
        self.record.len() + self.origin.as_ref().map_or(0, |(_, bytes)| bytes.len())
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

    /// What a link's origin has as attributes, for a caller whose links say only what differs; none for a message that is no link.
    #[must_use]
    pub fn origin_attributes(&self) -> Option<&[u8]> {
        self.origin.as_ref().map(|(_, bytes)| &bytes[self.origin_attributes.clone()])
    }

    /// The queue that a link's origin was appended to; none for a message that is no link.
    #[must_use]
    pub fn origin_queue_name(&self) -> Option<&[u8]> {
        self.origin.as_ref().map(|(_, bytes)| &bytes[self.origin_name.clone()])
    }

    /// The caller's bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let bytes = self.origin.as_ref().map_or(&self.record, |(_, bytes)| bytes);
        &bytes[self.payload.clone()]
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

impl<'a> Fetch<'a> {
    /// Up to 32 messages, or 256 KiB of them, of any tag, from the disk too; at most 1000 entries are looked at.
    #[must_use]
    pub fn new(queue: &'a Queue, from: QueueOffset) -> Fetch<'a> {
        Fetch {
            queue,
            from,
            messages_max: 32,
            bytes_max: 256 << 10,
            scan_max: 1000,
            from_disk: true,
            matches: &|_tag| true,
        }
    }
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
