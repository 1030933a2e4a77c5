//! How far a topic is republished, and a step of it.

use anchorlog_engine::{
    Advice, AppendError, Fetch, FetchStatus, Link, Lsn, Message, Put, Queue, QueueOffset, Target, WriteBatch,
};

use super::pair::{Pair, Place};
use crate::features::operate::{answer, refused, told};
use crate::features::send::stored::{Attributes, Beside, Stored};
use crate::features::topics::topic_of;
use crate::features::{After, Awaited, Outcome, Reply, Request, Task, code};
use crate::limits;
use crate::shared::Shared;
use crate::state::entries::offset;
use crate::wire::message::{properties, property};
use crate::wire::operate::{RepublishPair, RepublishQueue, RepublishStep, RepublishStepped, Republished};

/// How producers say which messages must stay in order.
const SHARDING_KEY: &str = "__SHARDINGKEY";
/// Bytes of a link beside its keys and attributes.
const LINK_BYTES: u64 = 128;

/// How far each queue is.
pub fn show(shared: &Shared, request: &Request<'_>) -> Outcome {
    answer(shared, request, |shared, ask: &RepublishPair, _| {
        let pair = Pair::of(shared, ask)?;
        let destinations = pair.destinations(shared)?;
        let queues = (0..pair.from.config.queues()).map(|number| {
            let queue = pair.queue(shared, number)?;
            let Place { next, .. } = pair.place(shared, number, &destinations)?;
            let end = shared.engine.range(&queue).max;
            let next_ms = stored_at(shared, &queue, next)?;
            Ok(RepublishQueue { queue: number, next: next.0, end: end.0.max(next.0), next_ms })
        });
        let queues = queues.collect::<Result<_, Reply>>()?;
        Ok(told(&Republished { queues, to_queues: pair.to.config.write_queues }).into())
    })
}

/// When a message was stored; `None` for one that is not there yet.
fn stored_at(shared: &Shared, queue: &Queue, offset: QueueOffset) -> Result<Option<u64>, Reply> {
    if offset >= shared.engine.range(queue).max {
        return Ok(None);
    }
    shared.engine.store_time(queue, offset).map_err(refused)
}

/// Moves some messages of one queue.
pub fn step(shared: &Shared, request: &Request<'_>) -> Outcome {
    answer(shared, request, |shared, ask: &RepublishStep, _| {
        let pair = Pair::of(shared, &ask.pair)?;
        let (queue, destinations) = (pair.queue(shared, ask.queue)?, pair.destinations(shared)?);
        let at = QueueOffset(ask.at).max(shared.engine.range(&queue).min);
        let (messages, damaged) = match next_messages(shared, &queue, at, ask)? {
            Ahead::Messages(messages) => (messages, None),
            Ahead::Damaged(why) if ask.skip_damaged => (Vec::new(), Some(why)),
            Ahead::Damaged(why) => return Err(stops_at(ask.queue, at, &why)),
        };
        let mut batch = WriteBatch::new();
        let mut taken = 0;
        for message in &messages {
            let room = u64::try_from(message.attributes().len() + message.keys().map(<[u8]>::len).sum::<usize>());
            let bytes = batch.frame_bytes() + LINK_BYTES + room.unwrap_or(u64::MAX / 2);
            if taken > 0 && bytes > limits::REPUBLISH_BATCH_BYTES {
                break;
            }
            link(&mut batch, message, ask.queue, &destinations)?;
            taken += 1;
        }
        let behind = QueueOffset(at.0 + u64::from(damaged.is_some()));
        let next = messages[..taken].last().map_or(behind, |last| QueueOffset(last.queue_offset.0 + 1));
        let goes_on = taken > 0 || damaged.is_some();
        let stepped = RepublishStepped {
            next: next.0,
            moved: u64::try_from(taken).unwrap_or(0),
            gone: at.0 - ask.at,
            damaged,
            next_ms: stored_at(shared, &queue, next)?,
        };
        if !goes_on {
            return Ok(told(&stepped).into());
        }
        note(shared, &mut batch, &pair, ask, &queue, &destinations, next)?;
        let end_lsn = append(shared, &mut batch)?;
        // The table has it by the same batch; memory follows at once, before a member can come.
        if let Some(key) = pair.offset_key(ask.queue) {
            let _noted = shared.state.commit_offset(&key, next.0, false);
        }
        let task = Task::new(move |_, _| told(&stepped).into());
        let lsn = Lsn(end_lsn.0.saturating_sub(1));
        Ok(Outcome::After(After { awaited: Awaited::Acked { lsn, overdue: None }, task }))
    })
}

/// What follows in a queue.
enum Ahead {
    /// These; none at its end.
    Messages(Vec<Message>),
    /// One that can never be read again, for this reason.
    Damaged(String),
}

/// What follows in the queue, as far as it is asked for.
fn next_messages(shared: &Shared, queue: &Queue, at: QueueOffset, ask: &RepublishStep) -> Result<Ahead, Reply> {
    let limit = ask.limit.unwrap_or(limits::REPUBLISH_LINKS_MAX).clamp(1, limits::REPUBLISH_LINKS_MAX);
    let fetch = Fetch { messages_max: limit, bytes_max: limits::OPERATE_PART_BYTES, ..Fetch::new(queue, at) };
    let outcome = match shared.engine.fetch(&fetch) {
        Ok(outcome) => outcome,
        // Not worth another try: the bytes are not what was written, or a link's message is gone.
        Err(error) if error.advice() == Advice::Reject && at.0 < ask.end => {
            return Ok(Ahead::Damaged(error.to_string()));
        }
        Err(error) => return Err(refused(error)),
    };
    let mut messages = match outcome.status {
        FetchStatus::Found => outcome.messages,
        FetchStatus::NoMatch | FetchStatus::AtEnd | FetchStatus::BelowMin | FetchStatus::BeyondMax => Vec::new(),
        FetchStatus::NeedsDisk => return Err(refused("the disk was not read")),
    };
    messages.retain(|message| message.queue_offset.0 < ask.end);
    Ok(Ahead::Messages(messages))
}

fn stops_at(queue: u32, at: QueueOffset, why: &str) -> Reply {
    refused(format!(
        "message {at} of queue {queue} cannot be read: {why}; mend it (anchorlog log repair), or leave it behind: --skip-damaged"
    ))
}

/// Puts a message into one of the queues by reference.
fn link(batch: &mut WriteBatch, message: &Message, from: u32, destinations: &[Queue]) -> Result<(), Reply> {
    let attributes = Attributes::of(message);
    let attributes = attributes.ok_or_else(|| refused("a message was stored by another version"))?;
    let sharding_key = sharding_key(message, &attributes);
    let place = match &sharding_key {
        Some(key) => u64::from(crc32fast::hash(key.as_bytes())),
        // Each queue begins with a queue of its own, and goes around.
        None => u64::from(from) + message.queue_offset.0,
    };
    let count = u64::try_from(destinations.len()).unwrap_or(u64::MAX).max(1);
    let number = usize::try_from(place % count).unwrap_or(0);
    let queue = destinations.get(number).ok_or_else(|| refused("the topic has no queue to write"))?;
    let keys: Vec<&[u8]> = message.keys().collect();
    let target = Target::from(message.reference());
    // What a link says of its own place would be said of the new one.
    let (topic, number) = topic_of(queue.name()).ok_or_else(|| refused("the queue is not a topic's"))?;
    let attributes = attributes.encode_beside(&Beside::origin_of(message, topic, number));
    let link = Link { queue, target, tag: message.tag, keys: &keys, attributes: &attributes };
    batch.link(&link).map(drop).map_err(refused)
}

fn sharding_key(message: &Message, attributes: &Attributes<'_>) -> Option<String> {
    if let Some((_, key)) = properties(&attributes.changed).find(|(name, _)| *name == SHARDING_KEY) {
        return Some(key.to_owned());
    }
    let Stored { body_bytes, .. } = attributes.stored;
    let text = message.payload().get(usize::try_from(body_bytes).ok()?..)?;
    property(std::str::from_utf8(text).ok()?, SHARDING_KEY).map(str::to_owned)
}

/// Adds how far the queue is by then, for everybody and for the group.
fn note(
    shared: &Shared,
    batch: &mut WriteBatch,
    pair: &Pair,
    ask: &RepublishStep,
    queue: &Queue,
    destinations: &[Queue],
    next: QueueOffset,
) -> Result<(), Reply> {
    let key = pair.key(ask.queue);
    // The table may not show the last step yet: whoever goes on says how far it was, and the log judges that.
    if ask.begun {
        batch.require_value(&key, &pair.value(queue, destinations, QueueOffset(ask.at))).map_err(refused)?;
    } else {
        let Place { value, next } = pair.place(shared, ask.queue, destinations)?;
        if next.0 != ask.at {
            return Err(busy("somebody else republishes it, too, or the group went on"));
        }
        match &value {
            Some(value) => batch.require_value(&key, value).map_err(refused)?,
            None => batch.require_absent(&key).map_err(refused)?,
        }
    }
    let value = pair.value(queue, destinations, next);
    batch.put(&Put { key: &key, value: &value, target: None }).map_err(refused)?;
    let Some(offset_key) = pair.offset_key(ask.queue) else { return Ok(()) };
    let (key, value) = offset::encode(&offset_key, next.0);
    batch.put(&Put { key: &key, value: &value, target: None }).map_err(refused)?;
    // A group that is new to the topic would begin behind what is moved there, if it likes to begin with the latest.
    for (number, destination) in (0..).zip(destinations) {
        let Some(key) = pair.destination_key(number) else { continue };
        if shared.state.offsets.get(&key).is_none() {
            shared.state.begin_offset(&key, shared.engine.range(destination).max.0);
        }
    }
    Ok(())
}

fn busy(remark: &'static str) -> Reply {
    Reply::failure(code::SYSTEM_BUSY, remark)
}

/// Gives the batch its place in the log; says where it ends.
fn append(shared: &Shared, batch: &mut WriteBatch) -> Result<Lsn, Reply> {
    // Messages must not stand in the log before their topic, nor before where their group begins.
    if shared.state.is_urgent() {
        let flushed = shared.state.flush(&shared.engine);
        flushed.names.and(flushed.offsets).map_err(refused)?;
    }
    let mut outcomes = Vec::with_capacity(1);
    match shared.engine.append_all(std::slice::from_mut(batch), &mut outcomes) {
        Ok(0) => Err(busy("the log buffer is full")),
        Ok(_) => Ok(outcomes[0].end_lsn),
        Err(AppendError::Rejected(_)) => Err(busy("it is further than whoever asked knows")),
        Err(error) => Err(refused(error)),
    }
}
