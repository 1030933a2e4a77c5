//! Returning a dead letter to where it came from.
//!
//! 1. A replay is one batch: the letter's link in the queue that it returns to, and a mark that it was returned, which is required to be as
//!    it was when it was looked at. No crash and no second operator returns a letter twice, or marks one that was not returned.
//! 2. The letter itself stays where it is, and is not copied. It begins anew: no attempt counts against it.

use std::sync::Arc;

use anchorlog_engine::{Link, Lsn, Message, Put, QueueOffset, Rejection, WriteBatch};

use super::asking::{answer, missing, refused, told, unbuilt, unreadable};
use super::dead_letters::{mark, origin_topic};
use crate::counters::Counters;
use crate::features::offsets::Pins;
use crate::features::send::stored::{Attributes, Stored};
use crate::features::topics::{
    DEAD_LETTER_PREFIX, PERM_WRITE, RETRY_PREFIX, Topic, is_forbidden, name_fault, topic_of,
};
use crate::features::{Outcome, Reply, Request, Writing};
use crate::limits;
use crate::shared::Shared;
use crate::state::entries::replayed::{self, Replay};
use crate::wire::message::{append_property, properties};
use crate::wire::operate::{ReplayDeadLetter, ReplayedTo};

/// What the broker said of a message while it was tried and given up; once returned, it says so no more.
const OF_THE_PAST: [&str; 3] = ["DELAY", "REAL_TOPIC", "REAL_QID"];

/// Returns a dead letter.
pub fn replay(shared: &Shared, request: &Request<'_>) -> Outcome {
    answer(shared, request, |shared, ask: &ReplayDeadLetter, batch: &mut WriteBatch| {
        let message = find(shared, ask)?;
        let before = mark(shared, &message)?;
        let earlier = before.as_ref().map(|mark| &mark.replay).filter(|replay| replay.lsn == message.lsn);
        if let Some(earlier) = earlier.filter(|_| !ask.force) {
            let topic = &earlier.topic;
            return Err(refused(format!("it was returned to {topic} before; say --force to return it again")));
        }
        let from = topic_of(&message.queue_name).map_or("", |(topic, _)| topic);
        let topic = destination(shared, ask, &message)?;
        let number = queue_number(shared, &topic, &message);
        let queue = topic.queue(&shared.engine, number).map_err(refused)?;
        let queue = queue.ok_or_else(|| refused(format!("topic {} has no queue", topic.name)))?;
        let attributes = returned(&message, ask.to_group).ok_or_else(|| refused("it was stored by another version"))?;
        let keys: Vec<&[u8]> = message.keys().collect();
        let target = message.reference().into();
        let link = Link { queue, target, tag: message.tag, keys: &keys, attributes: &attributes };
        batch.link(&link).map_err(unbuilt)?;
        let times = earlier.map_or(0, |earlier| earlier.times).saturating_add(1);
        let at_ms = shared.engine.clock().wall_ms();
        let after = replayed::encode(&Replay { lsn: message.lsn, at_ms, times, topic: topic.name.clone() });
        let (_, from_queue) = topic_of(&message.queue_name).unwrap_or_default();
        let key = replayed::encode_key(from, from_queue, message.queue_offset);
        match &before {
            Some(mark) => batch.require_value(&key, &mark.value).map_err(unbuilt)?,
            None => batch.require_absent(&key).map_err(unbuilt)?,
        }
        batch.put(&Put { key: &key, value: &after, target: None }).map_err(unbuilt)?;
        drop_stale_marks(shared, &message, batch)?;
        tracing::info!(group = ask.group, topic = &*topic.name, lsn = %message.lsn, times, "an operator returns a dead letter");
        let counted = |counters: &Counters| counters.dead_letters_replayed.add(1);
        let reply = told(&ReplayedTo { topic: topic.name.to_string(), queue: number });
        Ok(Outcome::Write(Writing {
            reply,
            due: None,
            ends: None,
            again: None,
            letter: None,
            rejected: was_late,
            counted,
            back: None,
        }))
    })
}

fn was_late(_: &Shared, _: &Rejection) -> Reply {
    refused("somebody else returned it meanwhile")
}

/// The letter, which must be one of the group's.
fn find(shared: &Shared, ask: &ReplayDeadLetter) -> Result<Message, Reply> {
    let none = || missing(format!("group {} has no dead letter at LSN {}", ask.group, ask.lsn));
    let message = match shared.engine.read(Lsn(ask.lsn)) {
        Ok(message) => message,
        Err(anchorlog_engine::ReadError::NotFound(_)) => return Err(none()),
        Err(error) => return Err(unreadable(error)),
    };
    let is_letter = topic_of(&message.queue_name)
        .and_then(|(topic, _)| topic.strip_prefix(DEAD_LETTER_PREFIX))
        .is_some_and(|group| *group == *ask.group);
    if is_letter { Ok(message) } else { Err(none()) }
}

/// Where it is returned to.
fn destination(shared: &Shared, ask: &ReplayDeadLetter, message: &Message) -> Result<Arc<Topic>, Reply> {
    if ask.to_group {
        return retry_topic(shared, &ask.group);
    }
    let name = ask.to_topic.clone().or_else(|| origin_topic(message));
    let name = name.ok_or_else(|| refused("it does not say which topic it came from; name one with --to-topic"))?;
    if is_forbidden(&name) || name.starts_with(DEAD_LETTER_PREFIX) {
        return Err(refused(format!("topic {name} takes no messages that are returned")));
    }
    let topic = shared.state.topics.get(&name).ok_or_else(|| refused(format!("topic {name} does not exist")))?;
    if topic.config.perm & PERM_WRITE == 0 || topic.config.write_queues == 0 {
        return Err(refused(format!("topic {name} may not be written")));
    }
    Ok(topic)
}

fn retry_topic(shared: &Shared, group: &str) -> Result<Arc<Topic>, Reply> {
    let name = [RETRY_PREFIX, group].concat();
    if let Some(fault) = name_fault(&name) {
        return Err(refused(fault));
    }
    let config = shared.state.groups.config(group).unwrap_or_default().retry_topic();
    let topic = shared.state.get_or_make_topic(&name, config);
    let topic = topic.ok_or_else(|| refused(format!("there are too many topics to make {name}")))?;
    if shared.settings.keep_unconsumed {
        Pins::keep_own(&shared.engine, &shared.state, &topic);
    }
    Ok(topic)
}

/// The queue that it was sent to, where that is known and still there.
fn queue_number(shared: &Shared, topic: &Topic, message: &Message) -> u32 {
    let count = topic.config.write_queues.max(1);
    let origin = shared.engine.read(message.origin_lsn()).ok();
    let first = origin.and_then(|origin| match topic_of(&origin.queue_name) {
        Some((name, number)) if *name == *topic.name => Some(number),
        _ => None,
    });
    first.filter(|number| *number < count).unwrap_or_else(|| shared.any_queue(count))
}

/// What the letter says once it is returned.
fn returned(message: &Message, to_group: bool) -> Option<Vec<u8>> {
    let attributes = Attributes::of(message)?;
    let mut changed = String::new();
    for (name, value) in properties(&attributes.changed) {
        // The group's consumers know by it which subscription it belongs to.
        let is_past = OF_THE_PAST.contains(&name) || name == "RETRY_TOPIC" && !to_group;
        if !is_past {
            append_property(&mut changed, name, value);
        }
    }
    let stored = Stored { reconsume_times: 0, ..attributes.stored };
    Some(Attributes { stored, changed: changed.into() }.encode())
}

/// Ends marks of letters that are not there any more, so that their number stays in proportion to that of the letters.
fn drop_stale_marks(shared: &Shared, message: &Message, batch: &mut WriteBatch) -> Result<(), Reply> {
    let Some((topic, number)) = topic_of(&message.queue_name) else { return Ok(()) };
    let queue = shared.engine.queue(&message.queue_name).map_err(refused)?;
    let min = shared.engine.range(&queue).min;
    let (from, to) = (replayed::encode_key(topic, number, QueueOffset(0)), replayed::encode_key(topic, number, min));
    let stale = shared.engine.snapshot().range(&from, Some(&to), limits::STALE_MARKS_PER_REPLAY).map_err(unreadable)?;
    for (key, _) in &stale {
        batch.delete(key).map_err(unbuilt)?;
    }
    Ok(())
}
