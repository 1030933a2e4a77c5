//! Write batches: the only way to change anything.
//!
//! A batch becomes one frame, so all of it is there or none. It is encoded and checksummed on the caller's thread, before any lock.
//! Preconditions are judged when it gets its place in the log: against everything that was given a place before it.

use std::sync::Arc;

use crate::commitlog::frame::{self, RecordEntry};
use crate::commitlog::record::{self, Origin, RecordKind, RecordParts, TARGET_IN_FRAME};
use crate::error::{BatchError, TooLarge};
use crate::limits;
use crate::units::{Lsn, QueueOffset, to_u64};

/// A queue of this engine, found once by name with [`crate::Engine::queue`]; cheap to clone.
#[derive(Clone, Debug)]
pub struct Queue {
    pub(crate) id: u32,
    /// Which opening of an engine gave it out.
    pub(crate) opening: u32,
    /// Which of the queues that had this name one after the other.
    pub(crate) incarnation: u32,
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

    /// How often a queue of this name was dropped before this one began.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.incarnation
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

/// A message that a link or a table entry can refer to; from [`crate::Message::reference`] or [`crate::Engine::reference`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageRef {
    pub(crate) lsn: Lsn,
    pub(crate) origin: Origin,
    pub(crate) opening: u32,
}

impl MessageRef {
    /// The message's own LSN: a link's is not its origin's.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Where the message's payload stands: its own LSN, unless it is a link.
    #[must_use]
    pub fn origin_lsn(&self) -> Lsn {
        self.origin.lsn
    }

    /// Bytes of the record at [`MessageRef::origin_lsn`]; together they are what [`crate::Engine::reference_to`] wants.
    #[must_use]
    pub fn origin_bytes(&self) -> u32 {
        self.origin.size
    }

    /// The message that this one leads to: itself, unless it is a link. Whoever keeps it need not keep the link.
    #[must_use]
    pub fn to_origin(&self) -> MessageRef {
        MessageRef { lsn: self.origin.lsn, ..*self }
    }
}

/// An operation of the batch that named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordIndex(pub(crate) usize);

impl RecordIndex {
    /// Its place in the batch, counted from 0; the place of its [`RecordPosition`] in [`AppendOutcome::positions`], too.
    #[must_use]
    pub fn get(self) -> usize {
        self.0
    }
}

/// What a link or a table entry refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A message that is in the log.
    Message(MessageRef),
    /// A message that an earlier operation of the same batch appends or links.
    Record(RecordIndex),
}

impl From<MessageRef> for Target {
    fn from(message: MessageRef) -> Target {
        Target::Message(message)
    }
}

impl From<RecordIndex> for Target {
    fn from(record: RecordIndex) -> Target {
        Target::Record(record)
    }
}

/// An earlier message to put into a queue by reference. Everything but the payload is restated.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// The queue that it is linked into.
    pub queue: &'a Queue,
    /// The message. A link to a link leads to that link's origin.
    pub target: Target,
    /// The tag hash in this queue.
    pub tag: u32,
    /// Keys that it will be found by.
    pub keys: &'a [&'a [u8]],
    /// Small fields: all of them, not what differs.
    pub attributes: &'a [u8],
}

/// A table entry to set.
#[derive(Clone, Copy, Debug)]
pub struct Put<'a> {
    /// Its key. The first byte 0 is the engine's own.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// The message that it refers to, which is kept as long as the entry does.
    pub target: Option<Target>,
}

/// What must hold when a batch gets its place; see the `require_` calls of [`WriteBatch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The table has no entry of this key.
    Absent(Arc<[u8]>),
    /// The table's entry of this key has this value.
    Value(Arc<[u8]>, Arc<[u8]>),
    /// This is the offset that the queue's next message gets.
    Next(Queue, QueueOffset),
}

impl Precondition {
    pub(crate) fn key(&self) -> Option<&Arc<[u8]>> {
        match self {
            Precondition::Absent(key) | Precondition::Value(key, _) => Some(key),
            Precondition::Next(..) => None,
        }
    }
}

/// Where a record's target stands, until the batch has a place.
#[derive(Clone, Copy, Debug)]
enum Pending {
    /// In the log, at its own LSN and origin.
    Known { lsn: Lsn, origin: Origin },
    /// In this batch: itself, and its origin.
    InBatch { record: usize, origin: usize },
}

#[derive(Clone, Debug)]
pub(crate) struct BatchRecord {
    pub(crate) queue_id: Option<u32>,
    pub(crate) kind: RecordKind,
    pub(crate) len: u32,
    pub(crate) crc: u32,
    /// What it refers to.
    pending: Option<Pending>,
    /// A change of the table.
    pub(crate) change: Option<TableChange>,
}

/// Which parts of a record are one key's new value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableChange {
    key_bytes: usize,
    /// Where in the record the value begins, and its bytes; none for a deletion.
    value: Option<(usize, usize)>,
    /// The engine's own restatement of an entry: it counts only while the entry's latest record is still this one.
    pub(crate) only_if_latest: Option<Lsn>,
}

impl TableChange {
    /// The key, in the bytes of its record.
    pub(crate) fn key<'r>(&self, record: &'r [u8]) -> &'r [u8] {
        &record[record::RECORD_HEADER_BYTES..][..self.key_bytes]
    }

    /// The value, in the bytes of its record; none for a deletion.
    pub(crate) fn value<'r>(&self, record: &'r [u8]) -> Option<&'r [u8]> {
        self.value.map(|(at, bytes)| &record[at..at + bytes])
    }
}

impl BatchRecord {
    /// Whether it takes an offset of its queue.
    pub(crate) fn counts(&self) -> bool {
        matches!(self.kind, RecordKind::Append | RecordKind::Link)
    }

    /// The LSNs in the log that it refers to: the message, and the message's origin.
    pub(crate) fn targets(&self) -> Option<(Lsn, Lsn)> {
        match self.pending {
            Some(Pending::Known { lsn, origin }) => Some((lsn, origin.lsn)),
            _ => None,
        }
    }
}

/// A place in a batch: see [`WriteBatch::mark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMark {
    records: usize,
    preconditions: usize,
}

impl BatchMark {
    /// Operations before it: the number of the first one behind it.
    #[must_use]
    pub fn operations(self) -> usize {
        self.records
    }
}

/// A list of operations that happen together or not at all.
#[derive(Debug, Default)]
pub struct WriteBatch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) records: Vec<BatchRecord>,
    pub(crate) preconditions: Vec<Precondition>,
    pub(crate) essential: bool,
    /// The opening whose queues and messages it names; no number that there is when they are of different ones.
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
    pub fn append(&mut self, message: &Append<'_>) -> Result<RecordIndex, TooLarge> {
        check_fields(message.keys, message.attributes)?;
        let parts = RecordParts {
            kind: RecordKind::Append,
            name: &message.queue.name,
            incarnation: message.queue.incarnation,
            tag: message.tag,
            keys: message.keys,
            attributes: message.attributes,
            payload: message.payload,
        };
        self.push(Some(message.queue), &parts, None)
    }

    /// Puts an earlier message into a queue by reference: a few dozen bytes, whatever the message's size.
    ///
    /// # Errors
    /// When a part, or the batch, is larger than `limits` allow, or the target is no message of this batch; the batch is then as it was.
    pub fn link(&mut self, link: &Link<'_>) -> Result<RecordIndex, BatchError> {
        check_fields(link.keys, link.attributes)?;
        let pending = match self.pending(link.target)? {
            // A link to a link of this batch leads to where that one leads.
            Pending::InBatch { record, origin } if record == origin => match self.records[record].pending {
                Some(known @ Pending::Known { .. }) => known,
                _ => Pending::InBatch { record, origin },
            },
            other => other,
        };
        let parts = RecordParts {
            kind: RecordKind::Link,
            name: &link.queue.name,
            incarnation: link.queue.incarnation,
            tag: link.tag,
            keys: link.keys,
            attributes: link.attributes,
            payload: &[&[0; record::LINK_PAYLOAD_BYTES]],
        };
        let index = self.push(Some(link.queue), &parts, Some(pending))?;
        self.note_opening(link.target);
        Ok(index)
    }

    /// Sets a table entry.
    ///
    /// # Errors
    /// When a part, or the batch, is larger than `limits` allow, the key is not the caller's to use, or the target is no message of this
    /// batch; the batch is then as it was.
    pub fn put(&mut self, put: &Put<'_>) -> Result<RecordIndex, BatchError> {
        check_key(put.key)?;
        bound("table value", put.value.len(), limits::TABLE_VALUE_BYTES_MAX)?;
        let pending = put.target.map(|target| self.pending(target)).transpose()?;
        let index = self.push_put(put.key, put.value, pending, None)?;
        if let Some(target) = put.target {
            self.note_opening(target);
        }
        Ok(index)
    }

    fn push_put(
        &mut self,
        key: &[u8],
        value: &[u8],
        pending: Option<Pending>,
        only_if_latest: Option<Lsn>,
    ) -> Result<RecordIndex, TooLarge> {
        let attributes: &[u8] = if pending.is_some() { &[0; 8] } else { &[] };
        let parts = RecordParts {
            kind: RecordKind::Put,
            name: key,
            incarnation: 0,
            tag: 0,
            keys: &[],
            attributes,
            payload: &[value],
        };
        let index = self.push(None, &parts, pending)?;
        let value_at = record::RECORD_HEADER_BYTES + key.len() + attributes.len();
        let value = Some((value_at, value.len()));
        self.records[index.0].change = Some(TableChange { key_bytes: key.len(), value, only_if_latest });
        Ok(index)
    }

    /// Removes a table entry; no error when there is none.
    ///
    /// # Errors
    /// When the key or the batch is larger than `limits` allow, or the key is not the caller's to use; the batch is then as it was.
    pub fn delete(&mut self, key: &[u8]) -> Result<RecordIndex, BatchError> {
        check_key(key)?;
        Ok(self.push_delete(key)?)
    }

    fn push_delete(&mut self, key: &[u8]) -> Result<RecordIndex, TooLarge> {
        let parts = RecordParts {
            kind: RecordKind::Delete,
            name: key,
            incarnation: 0,
            tag: 0,
            keys: &[],
            attributes: &[],
            payload: &[],
        };
        let index = self.push(None, &parts, None)?;
        let change = TableChange { key_bytes: key.len(), value: None, only_if_latest: None };
        self.records[index.0].change = Some(change);
        Ok(index)
    }

    /// Ends this incarnation of a queue: its messages can no longer be read through it, and its handles are refused. The next queue of this
    /// name begins at offset 0.
    ///
    /// # Errors
    /// When the batch is larger than `limits` allow; it is then as it was.
    pub fn drop_queue(&mut self, queue: &Queue) -> Result<RecordIndex, TooLarge> {
        let parts = RecordParts {
            kind: RecordKind::DropQueue,
            name: &queue.name,
            incarnation: queue.incarnation,
            tag: 0,
            keys: &[],
            attributes: &[],
            payload: &[],
        };
        self.push(Some(queue), &parts, None)
    }

    /// Rejects the batch when the table has an entry of this key at the batch's place in the log.
    ///
    /// # Errors
    /// When there are more preconditions than `limits` allow, or the key is larger.
    pub fn require_absent(&mut self, key: &[u8]) -> Result<(), BatchError> {
        check_key(key)?;
        self.require(Precondition::Absent(Arc::from(key)))
    }

    /// Rejects the batch unless the table's entry of this key has exactly this value at the batch's place in the log.
    ///
    /// # Errors
    /// When there are more preconditions than `limits` allow, or the key or value is larger.
    pub fn require_value(&mut self, key: &[u8], value: &[u8]) -> Result<(), BatchError> {
        check_key(key)?;
        bound("table value", value.len(), limits::TABLE_VALUE_BYTES_MAX)?;
        self.require(Precondition::Value(Arc::from(key), Arc::from(value)))
    }

    /// Rejects the batch unless `next` is the offset that the queue's next message gets at the batch's place in the log.
    ///
    /// # Errors
    /// When there are more preconditions than `limits` allow.
    pub fn require_next(&mut self, queue: &Queue, next: QueueOffset) -> Result<(), BatchError> {
        self.require(Precondition::Next(queue.clone(), next))?;
        self.note_queue(queue);
        Ok(())
    }

    fn require(&mut self, precondition: Precondition) -> Result<(), BatchError> {
        bound("preconditions of a batch", self.preconditions.len() + 1, limits::PRECONDITIONS_MAX)?;
        self.preconditions.push(precondition);
        Ok(())
    }

    /// Lets the batch use the reserve of a full disk: for offsets, deletions, and what frees space. Default: off.
    pub fn set_essential(&mut self, essential: bool) {
        self.essential = essential;
    }

    /// Takes over all of another batch, behind its own operations, so that both happen together or not at all: one frame costs less than
    /// two. False when they cannot be one, and nothing has changed then: they were made for different engines or claims, together they are
    /// larger than `limits` allow, or a precondition of the other one asks about what this one changes. Places in the other one's
    /// [`AppendOutcome`] come behind its own.
    pub fn absorb(&mut self, other: &mut WriteBatch) -> bool {
        let (count, preconditions) = (self.records.len() + other.records.len(), self.preconditions.len());
        let frame = frame::header_bytes(count) + self.bytes.len() + other.bytes.len();
        let fits = to_u64(frame) <= limits::FRAME_BYTES_MAX
            && count <= limits::BATCH_RECORDS_MAX
            && preconditions + other.preconditions.len() <= limits::PRECONDITIONS_MAX;
        let same = self.opening.zip(other.opening).is_none_or(|(own, other)| own == other);
        let is_changed_here = |precondition: &Precondition| match precondition.key() {
            // Keys mostly differ at their ends.
            Some(key) => self.changed_keys().any(|changed| changed.last() == key.last() && *changed == **key),
            None => !self.is_empty(),
        };
        let drops = |record: &BatchRecord| record.kind == RecordKind::DropQueue;
        if !fits
            || !same
            || self.essential != other.essential
            || self.records.iter().any(drops)
            || other.preconditions.iter().any(is_changed_here)
        {
            return false;
        }
        let before = self.records.len();
        for record in &mut other.records {
            if let Some(Pending::InBatch { record, origin }) = &mut record.pending {
                *record += before;
                *origin += before;
            }
        }
        self.bytes.append(&mut other.bytes);
        self.records.append(&mut other.records);
        self.preconditions.append(&mut other.preconditions);
        self.opening = self.opening.or(other.opening);
        self.sealed = false;
        other.clear();
        true
    }

    /// What each operation changes of the table, and its record's bytes.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (Option<&TableChange>, &[u8])> {
        let mut rest = &self.bytes[..];
        self.records.iter().map(move |record| {
            let (bytes, behind) = rest.split_at(record.len as usize);
            rest = behind;
            (record.change.as_ref(), bytes)
        })
    }

    fn changed_keys(&self) -> impl Iterator<Item = &[u8]> {
        self.changes().filter_map(|(change, bytes)| Some(change?.key(bytes)))
    }

    /// Where the next operation comes: for [`WriteBatch::split_off`].
    #[must_use]
    pub fn mark(&self) -> BatchMark {
        BatchMark { records: self.records.len(), preconditions: self.preconditions.len() }
    }

    /// Gives back what came behind a mark, by [`WriteBatch::absorb`] or otherwise. What goes must not refer to what stays.
    #[must_use]
    pub fn split_off(&mut self, mark: BatchMark) -> WriteBatch {
        let at = self.records[..mark.records].iter().map(|record| record.len as usize).sum();
        let mut records = self.records.split_off(mark.records);
        for record in &mut records {
            if let Some(Pending::InBatch { record, origin }) = &mut record.pending {
                *record -= mark.records;
                *origin -= mark.records;
            }
        }
        self.sealed = false;
        WriteBatch {
            bytes: self.bytes.split_off(at),
            records,
            preconditions: self.preconditions.split_off(mark.preconditions),
            essential: self.essential,
            opening: self.opening,
            sealed: false,
        }
    }

    fn pending(&self, target: Target) -> Result<Pending, BatchError> {
        match target {
            Target::Message(message) => Ok(Pending::Known { lsn: message.lsn, origin: message.origin }),
            Target::Record(index) => {
                let record = self.records.get(index.0).ok_or(BatchError::NoSuchRecord(index.0))?;
                match (record.kind, record.pending) {
                    (RecordKind::Link, Some(Pending::InBatch { origin, .. })) => {
                        Ok(Pending::InBatch { record: index.0, origin })
                    }
                    (RecordKind::Append | RecordKind::Link, _) => {
                        Ok(Pending::InBatch { record: index.0, origin: index.0 })
                    }
                    _ => Err(BatchError::NoSuchRecord(index.0)),
                }
            }
        }
    }

    fn note_opening(&mut self, target: Target) {
        if let Target::Message(message) = target {
            self.note(message.opening);
        }
    }

    fn note_queue(&mut self, queue: &Queue) {
        self.note(queue.opening);
    }

    fn note(&mut self, opening: u32) {
        let same = self.opening.is_none_or(|known| known == opening);
        self.opening = Some(if same { opening } else { NO_OPENING });
    }

    pub(crate) fn push_parts(
        &mut self,
        queue: Option<&Queue>,
        parts: &RecordParts<'_>,
    ) -> Result<RecordIndex, TooLarge> {
        self.push(queue, parts, None)
    }

    fn push(
        &mut self,
        queue: Option<&Queue>,
        parts: &RecordParts<'_>,
        pending: Option<Pending>,
    ) -> Result<RecordIndex, TooLarge> {
        let payload: usize = parts.payload.iter().map(|piece| piece.len()).sum();
        let keys: usize = parts.keys.iter().map(|key| key.len() + 2).sum();
        let record = record::RECORD_HEADER_BYTES + parts.name.len() + keys + parts.attributes.len() + payload;
        let frame = to_u64(frame::header_bytes(self.records.len() + 1) + self.bytes.len() + record.next_multiple_of(8));
        if frame > limits::FRAME_BYTES_MAX {
            return Err(TooLarge { what: "batch", found: frame, max: limits::FRAME_BYTES_MAX });
        }
        bound("records of a batch", self.records.len() + 1, limits::BATCH_RECORDS_MAX)?;
        let len = record::encode(&mut self.bytes, parts);
        let len = u32::try_from(len).expect("bounded by FRAME_BYTES_MAX");
        if let Some(queue) = queue {
            self.note_queue(queue);
        }
        let queue_id = queue.map(|queue| queue.id);
        self.records.push(BatchRecord { queue_id, kind: parts.kind, len, crc: 0, pending, change: None });
        self.sealed = false;
        Ok(RecordIndex(self.records.len() - 1))
    }

    /// Restates the next offset of a queue.
    pub(crate) fn push_counter(&mut self, queue: &Queue, next: QueueOffset) {
        let parts = RecordParts {
            kind: RecordKind::QueueCounter,
            name: &queue.name,
            incarnation: queue.incarnation,
            tag: 0,
            keys: &[],
            attributes: &[],
            payload: &[&next.0.to_le_bytes()],
        };
        self.push(Some(queue), &parts, None).expect("bounded by COUNTERS_PER_BATCH");
    }

    /// Restates a table entry, if its latest record is still the one at `latest` when the batch gets its place.
    pub(crate) fn push_restated(
        &mut self,
        key: &[u8],
        value: &[u8],
        target: Option<Lsn>,
        latest: Lsn,
    ) -> Result<RecordIndex, TooLarge> {
        // Only the target's own LSN is stored in a put.
        let pending = target.map(|lsn| Pending::Known { lsn, origin: Origin { lsn, size: 0 } });
        self.push_put(key, value, pending, Some(latest))
    }

    /// Sets an entry of the engine's own namespace.
    pub(crate) fn push_engine_put(&mut self, key: &[u8], value: &[u8]) -> Result<RecordIndex, TooLarge> {
        self.push_put(key, value, None, None)
    }

    /// Removes an entry of the engine's own namespace.
    pub(crate) fn push_engine_delete(&mut self, key: &[u8]) -> Result<RecordIndex, TooLarge> {
        self.push_delete(key)
    }

    /// Sets targets, frame offsets and checksums. Idempotent.
    pub(crate) fn seal(&mut self) {
        if self.sealed {
            return;
        }
        let first = frame::header_bytes(self.records.len());
        let mut offsets = Vec::new();
        if self.records.iter().any(|record| record.pending.is_some()) {
            let mut offset = first;
            for record in &self.records {
                offsets.push(offset);
                offset += record.len as usize;
            }
        }
        let mut at = 0;
        for index in 0..self.records.len() {
            let len = self.records[index].len as usize;
            if let Some(pending) = self.records[index].pending {
                let is_link = self.records[index].kind == RecordKind::Link;
                let (flags, target, size) = match pending {
                    Pending::Known { lsn, origin } => (0, if is_link { origin.lsn } else { lsn }, origin.size),
                    Pending::InBatch { record, origin } => {
                        let target = if is_link { origin } else { record };
                        (TARGET_IN_FRAME, Lsn(to_u64(offsets[target])), self.records[origin].len)
                    }
                };
                record::set_target(&mut self.bytes[at..at + len], flags, target, size);
            }
            let frame_offset = u32::try_from(first + at).expect("bounded by FRAME_BYTES_MAX");
            self.records[index].crc = record::seal(&mut self.bytes[at..at + len], frame_offset);
            at += len;
        }
        self.sealed = true;
    }

    /// Leaves out the operations for which `keep`, told of their records, is false, and seals what is left.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&BatchRecord, &[u8]) -> bool) {
        let (mut at, mut bytes) = (0, Vec::with_capacity(self.bytes.len()));
        let all = std::mem::take(&mut self.bytes);
        self.records.retain(|record| {
            let piece = &all[at..at + record.len as usize];
            at += piece.len();
            let kept = keep(record, piece);
            if kept {
                bytes.extend_from_slice(piece);
            }
            kept
        });
        self.bytes = bytes;
        self.sealed = false;
        self.seal();
    }

    /// Bytes of the frame that this batch becomes.
    #[must_use]
    pub fn frame_bytes(&self) -> u64 {
        to_u64(frame::header_bytes(self.records.len()) + self.bytes.len())
    }

    /// Bytes of the record that an operation of this batch becomes; none for an operation of another one.
    #[must_use]
    pub fn record_bytes(&self, record: RecordIndex) -> Option<u32> {
        self.records.get(record.0).map(|record| record.len)
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

    /// Forgets its operations and preconditions and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
        self.preconditions.clear();
        self.essential = false;
        self.opening = None;
        self.sealed = false;
    }

    pub(crate) fn entry(&self, index: usize, queue_offset: QueueOffset) -> RecordEntry {
        let record = &self.records[index];
        RecordEntry { len: record.len, crc: record.crc, queue_offset }
    }
}

fn bound(what: &'static str, found: usize, max: usize) -> Result<(), TooLarge> {
    if found <= max { Ok(()) } else { Err(TooLarge { what, found: to_u64(found), max: to_u64(max) }) }
}

fn check_fields(keys: &[&[u8]], attributes: &[u8]) -> Result<(), TooLarge> {
    bound("attributes", attributes.len(), limits::ATTRIBUTES_BYTES_MAX)?;
    bound("keys", keys.iter().map(|key| key.len() + 2).sum(), limits::KEYS_BYTES_MAX)
}

fn check_key(key: &[u8]) -> Result<(), BatchError> {
    bound("table key", key.len(), limits::TABLE_KEY_BYTES_MAX)?;
    match key.first() {
        None => Err(BatchError::EmptyKey),
        Some(0) => Err(BatchError::ReservedKey),
        Some(_) => Ok(()),
    }
}

/// Where one record of a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPosition {
    /// The record's own LSN, by which [`crate::Engine::read`] finds a message.
    pub lsn: Lsn,
    /// Its place in its queue; 0 for operations of the table.
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
