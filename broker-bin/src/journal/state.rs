//! The tables and their way into the log and back.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anchorlog_engine::{
    Append, AppendError, Engine, Fetch, FetchStatus, Lsn, Queue, QueueOffset, ReadError, TooLarge, WriteBatch,
};

use super::codec::{self, BadRecord, Entry};
use super::{PIN_NAME, QUEUE_NAME};
use crate::features::groups::{GroupConfig, Groups};
use crate::features::offsets::{Commit, OffsetKey, Offsets};
use crate::features::topics::{TopicConfig, Topics, queue_name};
use crate::limits;
use crate::lock::lock;

/// Why the state could not be read back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The engine has no room for the journal's queue.
    #[error("the journal's queue: {0}")]
    Queue(#[from] AppendError),
    /// A record cannot be read from the log.
    #[error("the journal's record {offset}: {source}")]
    Read {
        /// Its queue offset.
        offset: QueueOffset,
        /// What the engine says.
        source: ReadError,
    },
    /// A record is there and cannot be understood.
    #[error("the journal's record {offset} at LSN {lsn}: {source}; open the store with the version that wrote it")]
    Bad {
        /// Its queue offset.
        offset: QueueOffset,
        /// Where it stands.
        lsn: Lsn,
        /// What is wrong.
        source: BadRecord,
    },
}

/// Why changes are not in the log yet. They stay noted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The log buffer is full: try again when the written watermark has moved.
    #[error("the log buffer is full")]
    Full,
    /// The log takes nothing any more.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A record does not fit this log.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Topic(Box<str>),
    Group(Box<str>),
    Offset(OffsetKey),
}

#[derive(Debug, Default)]
struct Dirty {
    /// Somebody waits for these.
    urgent: BTreeSet<Key>,
    /// Nobody does.
    lazy: BTreeSet<Key>,
}

/// What the append lock guards.
#[derive(Debug, Default)]
struct Tail {
    /// End of the last journal record.
    end_lsn: Lsn,
    /// Every record says: replay from here.
    replay_from: QueueOffset,
    /// Payload bytes appended since [`Tail::replay_from`].
    bytes_since: u64,
    payload: Vec<u8>,
}

/// Which changes to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Urgent,
    All,
}

/// Topics, groups and offsets, and what of them the log does not know yet.
#[derive(Debug)]
pub struct State {
    /// The topics.
    pub topics: Topics,
    /// The groups.
    pub groups: Groups,
    /// The committed offsets.
    pub offsets: Offsets,
    queue: Queue,
    dirty: Mutex<Dirty>,
    /// Counts urgent changes; raised *before* the table shows the change.
    urgent_noted: AtomicU64,
    /// The count up to which the log has them.
    urgent_flushed: AtomicU64,
    tail: Mutex<Tail>,
}

impl State {
    /// Reads the state back from the log.
    ///
    /// # Errors
    /// When the journal cannot be read; nothing is started from half a state.
    pub fn open(engine: &Engine) -> Result<State, StateError> {
        let queue = engine.queue(QUEUE_NAME)?;
        let state = State {
            topics: Topics::default(),
            groups: Groups::default(),
            offsets: Offsets::default(),
            queue,
            dirty: Mutex::default(),
            urgent_noted: AtomicU64::new(0),
            urgent_flushed: AtomicU64::new(0),
            tail: Mutex::default(),
        };
        state.replay(engine)?;
        state.clamp_offsets(engine)?;
        Ok(state)
    }

    fn replay(&self, engine: &Engine) -> Result<(), StateError> {
        let range = engine.range(&self.queue);
        let mut tail = lock(&self.tail);
        tail.replay_from = range.min;
        if range.max == range.min {
            engine.pin(PIN_NAME, Some(engine.watermarks().start));
            return Ok(());
        }
        let last = QueueOffset(range.max.0 - 1);
        let mut pinned = false;
        self.records(engine, last, 1, |_, attributes, _| {
            tail.replay_from = QueueOffset(codec::decode_attributes(attributes)?.max(range.min.0));
            Ok(())
        })?;
        let mut at = tail.replay_from;
        while at < range.max {
            at = self.records(engine, at, 256, |lsn, attributes, payload| {
                codec::decode_attributes(attributes)?;
                if !pinned {
                    engine.pin(PIN_NAME, Some(lsn));
                    pinned = true;
                }
                tail.bytes_since += payload.len() as u64;
                codec::decode(payload, |entry| match entry {
                    Entry::Topic(name, config) => drop(self.topics.put(&name, config)),
                    Entry::Group(name, config) => drop(self.groups.put(&name, config)),
                    Entry::Offset(key, offset) => drop(self.offsets.commit(&key, offset)),
                })
            })?;
        }
        Ok(())
    }

    /// Gives records from `from` on to `each`; says where to go on.
    fn records(
        &self,
        engine: &Engine,
        from: QueueOffset,
        count: usize,
        mut each: impl FnMut(Lsn, &[u8], &[u8]) -> Result<(), BadRecord>,
    ) -> Result<QueueOffset, StateError> {
        let fetch = Fetch {
            queue: &self.queue,
            from,
            messages_max: count,
            bytes_max: 1 << 20,
            scan_max: count,
            from_disk: true,
            matches: &|_| true,
        };
        let outcome = engine.fetch(&fetch).map_err(|source| StateError::Read { offset: from, source })?;
        for message in &outcome.messages {
            each(message.lsn, message.attributes(), message.payload()).map_err(|source| StateError::Bad {
                offset: message.queue_offset,
                lsn: message.lsn,
                source,
            })?;
        }
        // Without a message there is nothing more to read, whatever the range said.
        Ok(if outcome.status == FetchStatus::Found { outcome.next } else { QueueOffset(u64::MAX) })
    }

    /// An asynchronous log may have lost the messages that a committed offset speaks of: what is sent next gets their
    /// offsets again and must not be skipped.
    fn clamp_offsets(&self, engine: &Engine) -> Result<(), StateError> {
        let mut moved = Vec::new();
        let mut failed = None;
        self.offsets.for_each_mut(|key, offset| match engine.queue(&queue_name(&key.topic, key.queue)) {
            Ok(queue) => {
                let max = engine.range(&queue).max.0;
                if *offset > max {
                    tracing::warn!(
                        group = &*key.group,
                        topic = &*key.topic,
                        queue = key.queue,
                        committed = *offset,
                        end = max,
                        "a committed offset lies beyond the queue's end, whose tail was lost; moved back to the end"
                    );
                    *offset = max;
                    moved.push(key.clone());
                }
            }
            Err(error) => failed = Some(error),
        });
        lock(&self.dirty).lazy.extend(moved.into_iter().map(Key::Offset));
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    fn urgently<T>(&self, key: Key, change: impl FnOnce() -> (bool, T)) -> T {
        let mut dirty = lock(&self.dirty);
        // Raised first: whoever sees the change in a table also sees that there is something to flush, and waits for
        // the lock that is held here.
        self.urgent_noted.fetch_add(1, Ordering::SeqCst);
        let (changed, result) = change();
        if changed || dirty.lazy.contains(&key) {
            dirty.lazy.remove(&key);
            dirty.urgent.insert(key);
        }
        result
    }

    /// Sets a topic. [`State::flush`] before anything is appended to it.
    pub fn put_topic(&self, name: &str, config: TopicConfig) {
        self.urgently(Key::Topic(name.into()), || (self.topics.put(name, config), ()));
    }

    /// The topic, made with `config` when it is missing; `None` when there are too many.
    pub fn get_or_make_topic(
        &self,
        name: &str,
        config: TopicConfig,
    ) -> Option<std::sync::Arc<crate::features::topics::Topic>> {
        if let Some(topic) = self.topics.get(name) {
            return Some(topic);
        }
        if self.topics.count() >= limits::TOPIC_COUNT_MAX {
            return None;
        }
        Some(self.urgently(Key::Topic(name.into()), || {
            let (topic, made) = self.topics.get_or_put(name, config);
            (made, topic)
        }))
    }

    /// Sets a group.
    pub fn put_group(&self, name: &str, config: GroupConfig) {
        self.urgently(Key::Group(name.into()), || (self.groups.put(name, config), ()));
    }

    /// Sets an offset; `awaited` when an answer waits for it to be durable.
    pub fn commit_offset(&self, key: &OffsetKey, offset: u64, awaited: bool) -> Commit {
        if awaited {
            return self.urgently(Key::Offset(key.clone()), || {
                let commit = self.offsets.commit(key, offset);
                (commit == Commit::Changed, commit)
            });
        }
        let commit = self.offsets.commit(key, offset);
        if commit == Commit::Changed {
            let mut dirty = lock(&self.dirty);
            let key = Key::Offset(key.clone());
            if !dirty.urgent.contains(&key) {
                dirty.lazy.insert(key);
            }
        }
        commit
    }

    /// Appends what somebody waits for, if there is any. Afterwards everything noted before the call stands before the
    /// LSN returned.
    ///
    /// # Errors
    /// The changes stay noted.
    pub fn flush(&self, engine: &Engine) -> Result<Lsn, FlushError> {
        self.flush_some(engine, Which::Urgent)
    }

    /// True when [`State::flush`] has something to do.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.urgent_noted.load(Ordering::SeqCst) != self.urgent_flushed.load(Ordering::SeqCst)
    }

    /// Appends every change noted.
    ///
    /// # Errors
    /// The changes stay noted.
    pub fn flush_all(&self, engine: &Engine) -> Result<Lsn, FlushError> {
        self.flush_some(engine, Which::All)
    }

    fn flush_some(&self, engine: &Engine, which: Which) -> Result<Lsn, FlushError> {
        let mut tail = lock(&self.tail);
        if which == Which::Urgent && !self.is_urgent() {
            return Ok(tail.end_lsn);
        }
        let (noted, keys) = {
            let mut dirty = lock(&self.dirty);
            let mut keys = std::mem::take(&mut dirty.urgent);
            if which == Which::All {
                keys.append(&mut dirty.lazy);
            }
            (self.urgent_noted.load(Ordering::SeqCst), keys)
        };
        let mut keys: Vec<Key> = keys.into_iter().collect();
        while !keys.is_empty() {
            match self.append_some(engine, &mut tail, &keys) {
                Ok(count) => drop(keys.drain(..count)),
                Err(error) => {
                    lock(&self.dirty).urgent.extend(keys);
                    return Err(error);
                }
            }
        }
        self.urgent_flushed.store(noted, Ordering::SeqCst);
        Ok(tail.end_lsn)
    }

    /// Appends one record for the first keys; says for how many.
    fn append_some(&self, engine: &Engine, tail: &mut Tail, keys: &[Key]) -> Result<usize, FlushError> {
        tail.payload.clear();
        let mut count = 0;
        for key in keys {
            if tail.payload.len() >= limits::JOURNAL_RECORD_BYTES {
                break;
            }
            count += 1;
            let entry = match key {
                Key::Topic(name) => self.topics.get(name).map(|topic| Entry::Topic(name.clone(), topic.config)),
                Key::Group(name) => self.groups.config(name).map(|config| Entry::Group(name.clone(), config)),
                Key::Offset(key) => self.offsets.get(key).map(|offset| Entry::Offset(key.clone(), offset)),
            };
            if let Some(entry) = entry {
                codec::encode(&mut tail.payload, &entry);
            }
        }
        if tail.payload.is_empty() {
            return Ok(count);
        }
        let mut batch = WriteBatch::new();
        batch.append(&Append {
            queue: &self.queue,
            tag: 0,
            keys: &[],
            attributes: &codec::encode_attributes(tail.replay_from.0),
            payload: &[&tail.payload],
        })?;
        let mut outcomes = Vec::with_capacity(1);
        if engine.append_all(std::slice::from_mut(&mut batch), &mut outcomes)? == 0 {
            return Err(FlushError::Full);
        }
        tail.end_lsn = outcomes[0].end_lsn;
        tail.bytes_since += tail.payload.len() as u64;
        Ok(count)
    }

    /// Payload bytes that the next open would replay.
    #[must_use]
    pub fn replay_bytes(&self) -> u64 {
        lock(&self.tail).bytes_since
    }

    /// The queue offset that the next journal record gets, or an earlier one.
    pub(super) fn end_offset(&self, engine: &Engine) -> QueueOffset {
        engine.range(&self.queue).max
    }

    /// From now on records say: replay from here. Everything must have been restated behind it.
    pub(super) fn replay_from(&self, offset: QueueOffset, bytes: u64) {
        let mut tail = lock(&self.tail);
        tail.replay_from = offset;
        tail.bytes_since = bytes;
    }

    /// Notes all topics and groups as changed.
    pub(super) fn restate_names(&self) {
        let names = self.topics.names().into_iter().map(Key::Topic);
        let groups = self.groups.names().into_iter().map(Key::Group);
        let mut dirty = lock(&self.dirty);
        dirty.lazy.extend(names.chain(groups));
    }

    /// Notes some offsets as changed; says behind which to go on, `None` behind the last.
    pub(super) fn restate_offsets(&self, after: Option<&OffsetKey>) -> Option<OffsetKey> {
        let keys = self.offsets.keys_after(after, limits::JOURNAL_STEP_ENTRIES);
        let last = keys.last().cloned();
        lock(&self.dirty).lazy.extend(keys.into_iter().map(Key::Offset));
        last
    }
}
