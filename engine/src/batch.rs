//! Write batches: the only way to change anything.
//!
//! A batch becomes one frame, so all of it is there or none. It is encoded and checksummed on the caller's thread, before any lock.

use std::sync::Arc;

use crate::commitlog::frame::{self, RecordEntry};
use crate::commitlog::record::{self, RecordKind, RecordParts};
use crate::error::TooLarge;
use crate::limits;
use crate::units::{Lsn, QueueOffset, to_u64};

/// A queue of this engine, found once by name with [`crate::Engine::queue`]; cheap to clone.
#[derive(Clone, Debug)]
pub struct Queue {
    pub(crate) id: u32,
    /// Which opening of an engine gave it out.
    pub(crate) opening: u32,
    pub(crate) name: Arc<[u8]>,
}

impl Queue {
    /// The name it was asked for by.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// A number that is this queue's as long as the engine is open. It says nothing after the next open.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl PartialEq for Queue {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.opening == other.opening
    }
}

impl Eq for Queue {}

/// No opening has this number.
const NO_OPENING: u32 = 0;

/// A message to append.
#[derive(Clone, Copy, Debug)]
pub struct Append<'a> {
    /// The queue that it is linked into.
    pub queue: &'a Queue,
    /// A 32-bit hash that readers can filter by without reading the message.
    pub tag: u32,
    /// Keys that it will be found by.
    pub keys: &'a [&'a [u8]],
    /// Small fields that a later link may restate.
    pub attributes: &'a [u8],
    /// The message itself, in pieces that are stored one after the other.
    pub payload: &'a [&'a [u8]],
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchRecord {
    pub(crate) queue_id: Option<u32>,
    /// Whether it takes an offset of its queue.
    pub(crate) counts: bool,
    pub(crate) len: u32,
    pub(crate) crc: u32,
}

/// A list of operations that happen together or not at all.
#[derive(Debug, Default)]
pub struct WriteBatch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) records: Vec<BatchRecord>,
    /// The opening whose queues it names; no number that there is when they are of different ones.
    pub(crate) opening: Option<u32>,
    sealed: bool,
}

impl WriteBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> WriteBatch {
        WriteBatch::default()
    }

    /// Adds a message.
    ///
    /// # Errors
    /// When a part, or the batch, is larger than `limits` allow; the batch is then as it was.
    pub fn append(&mut self, message: &Append<'_>) -> Result<(), TooLarge> {
        let bound = |what: &'static str, found: usize, max: usize| {
            if found <= max { Ok(()) } else { Err(TooLarge { what, found: to_u64(found), max: to_u64(max) }) }
        };
        bound("attributes", message.attributes.len(), limits::ATTRIBUTES_BYTES_MAX)?;
        bound("keys", message.keys.iter().map(|key| key.len() + 2).sum(), limits::KEYS_BYTES_MAX)?;
        self.push(
            Some(message.queue),
            &RecordParts {
                kind: RecordKind::Append,
                queue_name: &message.queue.name,
                tag: message.tag,
                keys: message.keys,
                attributes: message.attributes,
                payload: message.payload,
            },
        )
    }

    pub(crate) fn push(&mut self, queue: Option<&Queue>, parts: &RecordParts<'_>) -> Result<(), TooLarge> {
        let payload: usize = parts.payload.iter().map(|piece| piece.len()).sum();
        let keys: usize = parts.keys.iter().map(|key| key.len() + 2).sum();
        let record = record::RECORD_HEADER_BYTES + parts.queue_name.len() + keys + parts.attributes.len() + payload;
        let frame = to_u64(frame::header_bytes(self.records.len() + 1) + self.bytes.len() + record.next_multiple_of(8));
        if frame > limits::FRAME_BYTES_MAX {
            return Err(TooLarge { what: "batch", found: frame, max: limits::FRAME_BYTES_MAX });
        }
        if self.records.len() == limits::BATCH_RECORDS_MAX {
            let found = to_u64(self.records.len() + 1);
            return Err(TooLarge { what: "records of a batch", found, max: to_u64(limits::BATCH_RECORDS_MAX) });
        }
        let len = record::encode(&mut self.bytes, parts);
        let len = u32::try_from(len).expect("bounded by FRAME_BYTES_MAX");
        if let Some(queue) = queue {
            let same = self.opening.is_none_or(|opening| opening == queue.opening);
            self.opening = Some(if same { queue.opening } else { NO_OPENING });
        }
        let queue_id = queue.map(|queue| queue.id);
        self.records.push(BatchRecord { queue_id, counts: parts.kind == RecordKind::Append, len, crc: 0 });
        self.sealed = false;
        Ok(())
    }

    /// Restates the next offset of a queue.
    pub(crate) fn push_counter(&mut self, queue: &Queue, next: QueueOffset) {
        let parts = RecordParts {
            kind: RecordKind::QueueCounter,
            queue_name: &queue.name,
            tag: 0,
            keys: &[],
            attributes: &[],
            payload: &[&next.0.to_le_bytes()],
        };
        self.push(Some(queue), &parts).expect("bounded by COUNTERS_PER_BATCH");
    }

    /// Sets frame offsets and checksums. Idempotent.
    pub(crate) fn seal(&mut self) {
        if self.sealed {
            return;
        }
        let mut at = 0;
        let mut offset = frame::header_bytes(self.records.len());
        for record in &mut self.records {
            let len = record.len as usize;
            let frame_offset = u32::try_from(offset).expect("bounded by FRAME_BYTES_MAX");
            record.crc = record::seal(&mut self.bytes[at..at + len], frame_offset);
            at += len;
            offset += len;
        }
        self.sealed = true;
    }

    /// Bytes of the frame that this batch becomes.
    #[must_use]
    pub fn frame_bytes(&self) -> u64 {
        to_u64(frame::header_bytes(self.records.len()) + self.bytes.len())
    }

    /// Operations in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// True when there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Forgets its operations and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
        self.opening = None;
        self.sealed = false;
    }

    pub(crate) fn entry(&self, index: usize, queue_offset: QueueOffset) -> RecordEntry {
        let record = self.records[index];
        RecordEntry { len: record.len, crc: record.crc, queue_offset }
    }
}

/// Where one record of a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPosition {
    /// The message's own LSN, by which [`crate::Engine::read`] finds it.
    pub lsn: Lsn,
    /// Its place in its queue.
    pub queue_offset: QueueOffset,
}

/// Where a batch went. It is acknowledged once the acked watermark reaches `end_lsn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendOutcome {
    /// First byte of its frame.
    pub lsn: Lsn,
    /// First byte behind its frame.
    pub end_lsn: Lsn,
    /// The store time of all its records, in milliseconds since 1970.
    pub store_time_ms: u64,
    /// Position of the first record.
    pub first: RecordPosition,
    /// Positions of the others.
    pub rest: Vec<RecordPosition>,
}

impl AppendOutcome {
    /// All positions, in the order of the batch.
    pub fn positions(&self) -> impl Iterator<Item = RecordPosition> + '_ {
        std::iter::once(self.first).chain(self.rest.iter().copied())
    }
}
