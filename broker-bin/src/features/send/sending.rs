//! A message on its way: what its answer needs to know.

use std::net::SocketAddr;

use anchorlog_engine::{Lsn, RecordPosition};

use crate::counters::Counters;
use crate::features::delay::DueKey;
use crate::features::repeats::Claims;
use crate::features::reply::Push;
use crate::features::retry::Letter;
use crate::features::transactions::Begun;
use crate::wire::FrameEncoder;
use crate::wire::message::MessageId;

/// Longest unique key that is given back in the answer's `transactionId`.
const UNIQUE_KEY_BYTES_MAX: usize = 56;

/// A unique key, kept without allocating; longer ones than clients make are left out of the answer.
#[derive(Clone, Copy, Debug)]
pub struct UniqueKey {
    bytes: [u8; UNIQUE_KEY_BYTES_MAX],
    len: u8,
}

impl UniqueKey {
    /// Keeps `key`, or nothing.
    #[must_use]
    pub fn new(key: Option<&str>) -> UniqueKey {
        let mut kept = UniqueKey { bytes: [0; UNIQUE_KEY_BYTES_MAX], len: 0 };
        if let Some(key) = key.filter(|key| key.len() <= UNIQUE_KEY_BYTES_MAX) {
            kept.bytes[..key.len()].copy_from_slice(key.as_bytes());
            kept.len = u8::try_from(key.len()).unwrap_or(0);
        }
        kept
    }

    /// The key, when there is one.
    #[must_use]
    pub fn get(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).ok().filter(|key| !key.is_empty())
    }
}

/// Where a message stands that was sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// Its place in the log.
    pub lsn: Lsn,
    /// The topic's queue.
    pub queue: u32,
    /// Its offset there.
    pub queue_offset: u64,
}

/// A batch that was handed to the network thread, and then its place in the log.
#[derive(Clone, Debug)]
pub struct Sending {
    /// The topic's queue.
    pub queue: u32,
    /// Offset in the queue of its first message; known once it is appended.
    pub queue_offset: u64,
    /// LSN of its first message; known once it is appended.
    pub lsn: Lsn,
    /// LSNs of the others.
    pub more: Vec<Lsn>,
    /// Its id as the producer knows it; none for a batch.
    pub unique_key: UniqueKey,
    /// The entry that stands in the batch behind its one message, when there is one.
    pub due: Option<DueKey>,
    /// The transaction that stands in the batch behind its one message, when there is one.
    pub begun: Option<Box<Begun>>,
    /// What a timed message can be taken back by.
    pub recall: Option<Box<str>>,
    /// A reply, for whoever asked: the answer waits until it is taken there.
    pub push: Option<Box<Push>>,
    /// It is a dead letter.
    pub letter: Option<Box<Letter>>,
    /// What is claimed for it until it is appended.
    pub claims: Claims,
    /// Those of its messages that were stored before, by their numbers in what was sent.
    pub repeated: Vec<(usize, First)>,
    /// Counts it, when it has its place in the log.
    pub counted: fn(&Counters),
}

impl Sending {
    /// A batch for this queue.
    #[must_use]
    pub fn new(queue: u32, unique_key: Option<&str>) -> Sending {
        Sending {
            queue,
            queue_offset: 0,
            lsn: Lsn::ZERO,
            more: Vec::new(),
            unique_key: UniqueKey::new(unique_key),
            due: None,
            begun: None,
            recall: None,
            push: None,
            letter: None,
            claims: Claims::default(),
            repeated: Vec::new(),
            counted: |_| {},
        }
    }

    /// Notes where its first message went, and, of a send that shares its frame with nobody, where the others did.
    pub fn appended(&mut self, first: RecordPosition, rest: &[RecordPosition]) {
        self.queue_offset = first.queue_offset.0;
        self.lsn = first.lsn;
        if self.due.is_none() && self.begun.is_none() && !rest.is_empty() {
            self.more = rest.iter().map(|position| position.lsn).collect();
        }
        self.tell_repeated();
    }

    /// Puts the messages that were stored before where they stood in what was sent; `lsn` and `more` have only the others, in order.
    fn tell_repeated(&mut self) {
        for (number, first) in &self.repeated {
            match number.checked_sub(1) {
                None => {
                    self.more.insert(0, self.lsn);
                    (self.lsn, self.queue, self.queue_offset) = (first.lsn, first.queue, first.queue_offset);
                }
                Some(number) => self.more.insert(number, first.lsn),
            }
        }
    }

    /// Notes that all of it was stored before.
    pub fn all_repeated(&mut self) {
        let Some((_, first)) = self.repeated.first() else { return };
        (self.lsn, self.queue, self.queue_offset) = (first.lsn, first.queue, first.queue_offset);
        self.more = self.repeated[1..].iter().map(|(_, first)| first.lsn).collect();
    }

    /// Where all of its messages are.
    pub fn lsns(&self) -> impl Iterator<Item = Lsn> {
        std::iter::once(self.lsn).chain(self.more.iter().copied())
    }

    /// Messages of it that are stored with it.
    #[must_use]
    pub fn count(&self) -> u64 {
        1 + self.more.len() as u64 - self.repeated.len() as u64
    }

    /// Writes its answer's fields, and ends the frame.
    pub fn write(&self, mut frame: FrameEncoder<'_>, store_host: SocketAddr) {
        let mut id = String::with_capacity((1 + self.more.len()) * 33);
        let id_of = |lsn: Lsn| MessageId { host: store_host, offset: lsn.0.cast_signed() };
        id_of(self.lsn).push_to(&mut id);
        for lsn in &self.more {
            id.push(',');
            id_of(*lsn).push_to(&mut id);
        }
        frame.field("MSG_REGION", "DefaultRegion").field("TRACE_ON", "true").field("msgId", &id);
        frame.number("queueId", i64::from(self.queue));
        frame.number("queueOffset", i64::try_from(self.queue_offset).unwrap_or(i64::MAX));
        if let Some(key) = self.unique_key.get() {
            frame.field("transactionId", key);
        }
        if let Some(handle) = &self.recall {
            frame.field("recallHandle", handle);
        }
        let finished = frame.finish(&[]);
        debug_assert!(finished.is_ok(), "the ids of the largest batch fit a frame");
    }
}
