//! A send that may have been stored before: it waits until what may be the same is acknowledged, compares, and goes one way or the other.
//!
//! 1. Nothing of it is in the log while it is in doubt, and it has claimed nothing.
//! 2. A stored message answers for one message of a send at most: a batch that holds a message twice is stored so.
//! 3. The newest of those that are the same decides. When whoever sent that one has its answer, this is a new message.
//! 4. Of a batch that was stored in part the rest is stored, as one frame; the answer names all of its messages in their order, and the
//!    queue and offset of the first of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use anchorlog_engine::{Fetch, FetchStatus, Lsn, Message, ReadError, Watermark, WriteBatch};

use super::handler::refused;
use super::properties::Known;
use super::sending::{First, Sending, UniqueKey};
use super::stored::Attributes;
use super::writer::{Send, Source, Writer};
use crate::features::delay::{self, HIDDEN_QUEUE};
use crate::features::repeats::{Answered, Arrived, Claim, Claims, Seen};
use crate::features::topics::{Topic, topic_of};
use crate::features::transactions::{self, HALF_QUEUE};
use crate::features::{After, Awaited, Outcome, Reply, Task, code};
use crate::limits;
use crate::shared::Shared;
use crate::wire::batch::{self, BatchEntry};
use crate::wire::message::{BadRecord, property};

/// A send, kept.
struct Own {
    group: Box<str>,
    topic: Box<str>,
    properties: Box<str>,
    body: Box<[u8]>,
    /// The other fields.
    rest: Send<'static>,
}

impl Own {
    fn new(send: &Send<'_>, body: &[u8]) -> Own {
        let rest = Send { group: "", topic: "", default_topic: "", properties: "", ..*send };
        let (group, topic) = (send.group.into(), send.topic.into());
        Own { group, topic, properties: send.properties.into(), body: body.into(), rest }
    }

    fn send(&self) -> Send<'_> {
        Send { group: &self.group, topic: &self.topic, properties: &self.properties, ..self.rest }
    }
}

/// A send in doubt.
pub(super) struct Doubt {
    own: Own,
    topic: Arc<Topic>,
    /// The queue's number in the topic.
    number: u32,
    source: Source,
    unique_key: UniqueKey,
    claims: Claims,
    /// Up to here everything was acknowledged when it came: what lies behind had no answer then.
    acked: Lsn,
    /// What may be the same as the message of that number, and was not compared yet.
    candidates: Vec<(usize, Lsn)>,
    /// What was compared and is no reason not to store it.
    seen: Seen,
    /// Where its messages were stored before.
    found: BTreeMap<usize, First>,
    recall: Option<Box<str>>,
    /// Connections had time to close.
    is_second_look: bool,
}

/// A message in the log that is the same.
struct Same {
    first: First,
    answered: Answered,
    recall: Option<Box<str>>,
}

impl Doubt {
    pub(super) fn new(
        writer: &Writer<'_>,
        topic: Arc<Topic>,
        body: &[u8],
        sending: Sending,
        candidates: Vec<(usize, Lsn)>,
    ) -> Doubt {
        Doubt {
            own: Own::new(writer.send, body),
            topic,
            number: writer.number,
            source: writer.source,
            unique_key: sending.unique_key,
            claims: sending.claims,
            acked: writer.shared.engine.watermarks().acked,
            candidates,
            seen: Seen::new(),
            found: BTreeMap::new(),
            recall: None,
            is_second_look: false,
        }
    }

    /// Compares where the disk may be read, once there is something to compare with.
    pub(super) fn go_on(self, shared: &Shared) -> Outcome {
        if self.candidates.is_empty() {
            return self.later(Awaited::Places);
        }
        match self.in_flight(shared) {
            Some(lsn) => self.once_acked(lsn),
            None => Outcome::Read(Task::new(move |shared, batch| self.run(shared, batch))),
        }
    }

    /// What must be acknowledged before anything can be compared.
    fn in_flight(&self, shared: &Shared) -> Option<Lsn> {
        let last = self.candidates.iter().map(|(_, lsn)| *lsn).max()?;
        (last >= shared.engine.watermarks().acked).then_some(last)
    }

    fn once_acked(self, lsn: Lsn) -> Outcome {
        let overdue = self.as_first_try();
        self.later(Awaited::Acked { lsn, overdue })
    }

    fn later(self, awaited: Awaited) -> Outcome {
        Outcome::After(After { awaited, task: Task::new(move |shared, batch| self.run(shared, batch)) })
    }

    /// What is answered when that is not acknowledged in time: the same that the first try is answered.
    fn as_first_try(&self) -> Option<Box<Sending>> {
        let newest = |number| self.candidates.iter().rev().find(|(of, _)| *of == number).map(|(_, lsn)| *lsn);
        let lsns = (0..self.claims.count()).map(newest).collect::<Option<Vec<_>>>()?;
        let (lsn, more) = lsns.split_first()?;
        let known = Sending { unique_key: self.unique_key, ..Sending::new(self.number, None) };
        Some(Box::new(Sending { lsn: *lsn, more: more.to_vec(), ..known }))
    }

    fn run(mut self, shared: &Shared, batch: &mut WriteBatch) -> Outcome {
        loop {
            if let Some(lsn) = self.in_flight(shared) {
                return self.once_acked(lsn);
            }
            match self.compare(shared) {
                Ok(true) => {}
                Ok(false) => return self.later(Awaited::Closing),
                Err(reply) => return refused(shared, reply),
            }
            if self.found.len() == self.claims.count() {
                return Outcome::Repeat(self.answer(shared));
            }
            if let Err(reply) = may_store(shared) {
                return refused(shared, reply);
            }
            let claims = self.claims.without(|number| self.found.contains_key(&number));
            let now_ms = shared.engine.clock().wall_ms();
            match shared.repeats.claim(&claims, &self.seen, now_ms, &shared.counters) {
                Claim::Mine => return self.append(shared, &claims, batch),
                // Somebody else was faster, and has no place yet.
                Claim::Doubtful { candidates } if candidates.is_empty() => return self.later(Awaited::Places),
                Claim::Doubtful { candidates } => self.candidates = candidates,
            }
        }
    }

    /// The answer of the first time.
    fn answer(self, shared: &Shared) -> Sending {
        shared.counters.repeats_answered.add(self.found.len() as u64);
        let repeated = self.found.into_iter().collect();
        let known = Sending { unique_key: self.unique_key, ..Sending::new(self.number, None) };
        let mut sending = Sending { recall: self.recall, repeated, ..known };
        sending.all_repeated();
        sending
    }

    /// Stores what was not stored before. It is claimed.
    fn append(self, shared: &Shared, claims: &Claims, batch: &mut WriteBatch) -> Outcome {
        match self.fill(shared, batch) {
            Ok(sending) => {
                shared.counters.repeats_answered.add(self.found.len() as u64);
                Outcome::Append(Sending { repeated: self.found.into_iter().collect(), ..sending })
            }
            Err(reply) => {
                shared.repeats.undo(claims);
                batch.clear();
                refused(shared, reply)
            }
        }
    }

    fn fill(&self, shared: &Shared, batch: &mut WriteBatch) -> Result<Sending, Reply> {
        let send = self.own.send();
        let queue = self.topic.queue(&shared.engine, self.number);
        let queue = queue.map_err(|error| Reply::failure(code::SYSTEM_ERROR, error.to_string()))?;
        let gone = || Reply::failure(code::SYSTEM_ERROR, format!("topic {} has no such queue", send.topic));
        let queue = queue.ok_or_else(gone)?;
        let writer = Writer { shared, source: self.source, send: &send, number: self.number, queue };
        let filled = writer.fill(batch, &self.own.body, &|number| self.found.contains_key(&number))?;
        Ok(filled.sending)
    }

    /// Looks at all candidates; false when that must wait until it is seen which connections close.
    fn compare(&mut self, shared: &Shared) -> Result<bool, Reply> {
        let mut candidates = std::mem::take(&mut self.candidates);
        // Of a message that a batch holds twice the last one is the newest.
        candidates.sort_unstable_by(|one, other| other.cmp(one));
        if let Some((_, last)) = candidates.iter().max_by_key(|(_, lsn)| *lsn) {
            // It is acknowledged: readers see it in a moment.
            drop(shared.engine.wait(Watermark::Dispatched, last.plus(1), Some(limits::COMPARE_PATIENCE)));
        }
        let (mut is_new, mut is_unclear) = (BTreeSet::new(), false);
        let all = candidates.clone();
        let (mut found, mut seen) = (std::mem::take(&mut self.found), std::mem::take(&mut self.seen));
        let mut used: HashSet<Lsn> = found.values().map(|first| first.lsn).collect();
        let mut recall = None;
        let inner: Vec<_> = if self.own.rest.is_batch { batch::entries(&self.own.body).collect() } else { Vec::new() };
        for (number, lsn) in candidates {
            if found.contains_key(&number) {
                continue;
            }
            let is_other = used.contains(&lsn) || is_new.contains(&number);
            let same = if is_other { None } else { self.same(shared, inner.get(number), lsn)? };
            let Some(same) = same else {
                seen.insert((number, lsn));
                continue;
            };
            let arrived = if lsn >= self.acked {
                // It was sent again before it was answered.
                Arrived::No
            } else {
                shared.repeats.arrived(&same.answered, self.source.connection)
            };
            match arrived {
                Arrived::No => {
                    recall = same.recall;
                    used.insert(same.first.lsn);
                    found.insert(number, same.first);
                }
                Arrived::Perhaps if !self.is_second_look => is_unclear = true,
                Arrived::Yes | Arrived::Perhaps => {
                    is_new.insert(number);
                    seen.insert((number, lsn));
                }
            }
        }
        if is_unclear {
            found.clear();
        }
        drop(inner);
        (self.found, self.seen) = (found, seen);
        self.recall = recall.or(self.recall.take());
        if is_unclear {
            (self.candidates, self.is_second_look) = (all, true);
        }
        Ok(!is_unclear)
    }

    /// The message at `lsn`, if it is the same as the one that was sent: `inner` of the batch, where it is one.
    fn same(
        &self,
        shared: &Shared,
        inner: Option<&Result<BatchEntry<'_>, BadRecord>>,
        lsn: Lsn,
    ) -> Result<Option<Same>, Reply> {
        let message = match shared.engine.read(lsn) {
            Ok(message) => message,
            // What cannot be read by anybody is no reason not to store it again.
            Err(ReadError::NotFound(_) | ReadError::Damaged { .. }) => return Ok(None),
            Err(error) => {
                let remark = format!("nothing was stored: what may be the same message cannot be read: {error}");
                return Err(Reply::failure(code::SERVICE_NOT_AVAILABLE, remark));
            }
        };
        let since_ms = shared.repeats.since_ms(shared.engine.clock().wall_ms());
        // What the broker moved is no send.
        if message.origin_lsn() != message.lsn || message.store_time_ms < since_ms {
            return Ok(None);
        }
        let send = self.own.send();
        let (own, body) = match inner {
            _ if !send.is_batch => (None, &*self.own.body),
            Some(Ok(inner)) => (Some(&*inner.properties), inner.body),
            _ => return Ok(None),
        };
        let mut wanted = Known::default();
        wanted.read(own.unwrap_or_default());
        wanted.read(send.properties);
        Ok(compared(shared, &message, &send, &wanted, body))
    }
}

/// Whether anything may be stored now.
fn may_store(shared: &Shared) -> Result<(), Reply> {
    if shared.is_closing() {
        return Err(Reply::failure(code::SERVICE_NOT_AVAILABLE, "the broker is stopping; nothing was stored"));
    }
    shared.admission().map_err(|reason| Reply::failure(code::SERVICE_NOT_AVAILABLE, reason))
}

/// What is equal in a message that is sent again. Other properties are not: what traces clients may change them for every try.
fn compared(shared: &Shared, message: &Message, send: &Send<'_>, wanted: &Known<'_>, body: &[u8]) -> Option<Same> {
    let attributes = Attributes::of(message)?;
    let stored = attributes.stored;
    let (found_body, properties) = message.payload().split_at_checked(stored.body_bytes as usize)?;
    let mut found = Known::default();
    found.read(std::str::from_utf8(properties).ok()?);
    let is_same = found_body == body
        && stored.reconsume_times == send.reconsume_times
        && found.unique_key == wanted.unique_key
        && (found.tags, found.keys, found.wish) == (wanted.tags, wanted.keys, wanted.wish)
        && (found.half, found.group) == (wanted.half, wanted.group);
    let (topic, queue) = match &*message.queue_name {
        HALF_QUEUE if transactions::is_rolled_back(&shared.engine, message) => return None,
        HIDDEN_QUEUE | HALF_QUEUE => {
            let queue = property(&attributes.changed, "REAL_QID")?.parse().ok()?;
            (property(&attributes.changed, "REAL_TOPIC")?, queue)
        }
        name => topic_of(name)?,
    };
    if !is_same || topic != send.topic {
        return None;
    }
    if !is_current(shared, message) {
        return None;
    }
    let first = First { lsn: message.lsn, queue, queue_offset: message.queue_offset.0 };
    let in_time_ms = u64::try_from(shared.settings.ack_timeout.as_millis()).unwrap_or(u64::MAX);
    let answered_ms = message.store_time_ms.saturating_add(in_time_ms);
    let answered = Answered { lsn: message.lsn, peer: stored.born_host, answered_ms };
    let time = property(&attributes.changed, "TIMER_OUT_MS").and_then(|time| time.parse().ok());
    let handle = |(time_ms, key)| delay::recall_handle(shared, topic, time_ms, key).into();
    let recall = time.zip(wanted.unique_key).map(handle);
    Some(Same { first, answered, recall })
}

/// Whether a message stands in its queue as it is now. A topic that was deleted and made again has other ones under the same names.
fn is_current(shared: &Shared, message: &Message) -> bool {
    let Ok(queue) = shared.engine.queue(&message.queue_name) else { return false };
    let one = Fetch { messages_max: 1, scan_max: 1, ..Fetch::new(&queue, message.queue_offset) };
    match shared.engine.fetch(&one) {
        Ok(found) => match found.messages.first() {
            Some(first) => first.lsn == message.lsn,
            // Whoever had to read it has: it is kept for other reasons.
            None => found.status == FetchStatus::BelowMin,
        },
        Err(_) => false,
    }
}
