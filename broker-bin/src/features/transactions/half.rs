//! Half messages: how they are stored, and read again.

use std::sync::OnceLock;

use anchorlog_engine::{
    Append, AppendError, BatchError, Engine, Lsn, Message, Put, Queue, QueueOffset, ReadError, WriteBatch,
};

use super::asks::Asks;
use super::begun::{Begun, Names, Recent};
use super::producers::Producers;
use super::transaction::{NextAsk, Transaction, TransactionId, Verdict};
use crate::features::send::stored::{Attributes, Stored};
use crate::shared::Shared;
use crate::state::entries;
use crate::wire::message::{append_number, append_property, property};

/// The queue that holds half messages. No topic's name begins with this byte.
pub const HALF_QUEUE: &[u8] = b"\x01half";

/// Before a transaction's name: the first key of its half message. No client can name it.
const KEY_PREFIX: &[u8] = b"\x01txn";

/// What all of this shares.
#[derive(Debug, Default)]
pub struct Halves {
    queue: OnceLock<Queue>,
    /// Whom to ask.
    pub producers: Producers,
    /// And when.
    pub asks: Asks,
    /// Those that a verdict may follow soon.
    pub recent: Recent,
}

impl Halves {
    /// Where half messages lie.
    ///
    /// # Errors
    /// When the engine holds no more queues.
    pub fn queue(&self, engine: &Engine) -> Result<&Queue, AppendError> {
        if let Some(queue) = self.queue.get() {
            return Ok(queue);
        }
        let queue = engine.queue(HALF_QUEUE)?;
        Ok(self.queue.get_or_init(|| queue))
    }
}

/// Where a half message is meant to go, and who decides.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The producer group.
    pub group: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// The queue's number in it.
    pub queue: u32,
    /// The producer's id of the message.
    pub unique_key: &'a str,
    /// Other keys of it, separated by blanks.
    pub keys: &'a str,
    /// When the producer is asked first, in milliseconds since 1970.
    pub ask_ms: u64,
}

impl Wanted<'_> {
    /// Properties that its reader gets, and its producer did not write.
    #[must_use]
    pub fn changed(&self) -> String {
        let mut changed = String::with_capacity(64 + self.topic.len() + self.unique_key.len());
        append_property(&mut changed, "REAL_TOPIC", self.topic);
        append_number(&mut changed, "REAL_QID", self.queue.into());
        append_property(&mut changed, "__transactionId__", self.unique_key);
        changed
    }
}

/// Fills a batch with a half message, whose own properties [`Wanted::changed`] gave: the message and the transaction. Tell [`Asks`] and
/// [`Recent`] when it has its place.
///
/// # Errors
/// When the message is too large; the batch is then good for nothing.
pub fn store(
    shared: &Shared,
    out: &mut WriteBatch,
    message: &Append<'_>,
    stored: Stored,
    wanted: &Wanted<'_>,
    changed: &str,
) -> Result<Box<Begun>, BatchError> {
    let due = shared.due.next_key(wanted.ask_ms);
    let id = TransactionId::of(&due);
    let attributes = Attributes { stored, changed: changed.into() }.encode();
    let mut name = [0; KEY_PREFIX.len() + 16];
    name[..KEY_PREFIX.len()].copy_from_slice(KEY_PREFIX);
    name[KEY_PREFIX.len()..].copy_from_slice(&id.to_bytes());
    let keys: Vec<&[u8]> = std::iter::once(&name[..]).chain(message.keys.iter().copied()).collect();
    let half = out.append(&Append { keys: &keys, attributes: &attributes, ..*message })?;
    let asks = NextAsk { at_ms: wanted.ask_ms, checks: 0 };
    let prepared = entries::transaction::encode_prepared(wanted.group, asks);
    let transaction = entries::transaction::encode_key(&id);
    out.put(&Put { key: &transaction, value: &prepared, target: Some(half.into()) })?;
    Ok(Box::new(Begun {
        queue_offset: QueueOffset(0),
        asks: due,
        prepared,
        // It was just added.
        record_bytes: out.record_bytes(half).unwrap_or(0),
        queue: wanted.queue,
        tag: message.tag,
        sys_flag: stored.sys_flag,
        names: Names::new(wanted.group, wanted.topic, wanted.unique_key, wanted.keys),
    }))
}

/// A half message, read.
#[derive(Debug)]
pub struct Half {
    /// The message.
    pub message: Message,
    /// Its transaction.
    pub id: TransactionId,
    /// Its properties as they count.
    pub properties: String,
}

/// Why a half message cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NoHalf {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What is there is none.
    #[error("what is there is no half message")]
    Other,
}

/// Whether it was decided that nobody is to see this half message, as far as that is remembered.
#[must_use]
pub fn is_rolled_back(engine: &Engine, half: &Message) -> bool {
    let id = half.keys().next().and_then(|key| key.strip_prefix(KEY_PREFIX)).and_then(|id| id.try_into().ok());
    let entry = id.map(|id| engine.get(&entries::transaction::encode_key(&TransactionId::from_bytes(id))));
    let transaction = entry.and_then(|entry| entries::transaction::decode(&entry.ok()??.value).ok());
    matches!(transaction, Some(Transaction::Decided { verdict: Verdict::Rollback, .. }))
}

impl Half {
    /// Reads the half message that stands here. May read from the disk.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(engine: &Engine, lsn: Lsn) -> Result<Half, NoHalf> {
        let message = engine.read(lsn)?;
        let id = message.keys().next().and_then(|key| key.strip_prefix(KEY_PREFIX)).and_then(|id| id.try_into().ok());
        let (Some(id), true) = (id, *message.queue_name == *HALF_QUEUE) else { return Err(NoHalf::Other) };
        let attributes = Attributes::of(&message).ok_or(NoHalf::Other)?;
        let payload = message.payload().get(attributes.stored.body_bytes as usize..).ok_or(NoHalf::Other)?;
        let payload = std::str::from_utf8(payload).map_err(|_| NoHalf::Other)?;
        let properties = attributes.properties(payload).into_owned();
        Ok(Half { id: TransactionId::from_bytes(id), message, properties })
    }

    /// The topic and queue that it is meant for.
    #[must_use]
    pub fn place(&self) -> Option<(&str, u32)> {
        let queue = property(&self.properties, "REAL_QID")?.parse().ok()?;
        Some((property(&self.properties, "REAL_TOPIC")?, queue))
    }

    /// The producer's id of it.
    #[must_use]
    pub fn unique_key(&self) -> &str {
        property(&self.properties, "UNIQ_KEY").unwrap_or_default()
    }

    /// What it is found by once it can be read.
    #[must_use]
    pub fn keys(&self) -> Vec<&[u8]> {
        let words = property(&self.properties, "KEYS").unwrap_or_default().split(' ');
        let all = std::iter::once(self.unique_key()).chain(words);
        all.filter(|key| !key.is_empty()).map(str::as_bytes).collect()
    }
}
