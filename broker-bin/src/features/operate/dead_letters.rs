//! Dead letters: which groups have some, and which.

use std::ops::ControlFlow;

use anchorlog_engine::{Advice, Message, QueueOffset, QueueRange, ReadError};

use super::asking::{answer, each_entry, missing, part, refused, told, unreadable};
use super::browse::{Browse, Found, Part, queue_of};
use super::show::{place_in, show};
use crate::features::send::stored::Attributes;
use crate::features::topics::{DEAD_LETTER_PREFIX, Topic, topic_of};
use crate::features::{Outcome, Reply, Request};
use crate::shared::Shared;
use crate::state::entries::replayed::{self, Replay};
use crate::wire::message::property;
use crate::wire::operate::{
    DeadLetter, DeadLetterGroup, DeadLetterGroups, DeadLetters, ListDeadLetterGroups, ListDeadLetters, Replayed,
    ShownMessage,
};

/// Tells which groups have dead letters.
pub fn groups(shared: &Shared, request: &Request<'_>) -> Outcome {
    answer(shared, request, |shared, ask: &ListDeadLetterGroups, _| {
        let (limit, mut next) = (part(ask.limit), None);
        let mut groups = Vec::new();
        for name in shared.state.topics.names() {
            let Some(group) = name.strip_prefix(DEAD_LETTER_PREFIX) else { continue };
            if ask.after.as_deref().is_some_and(|after| group <= after) {
                continue;
            }
            if groups.len() == limit {
                next = groups.last().map(|last: &DeadLetterGroup| last.group.clone());
                break;
            }
            let Some(topic) = shared.state.topics.get(&name) else { continue };
            groups.push(in_numbers(shared, group, &topic)?);
        }
        Ok(told(&DeadLetterGroups { groups, next }).into())
    })
}

fn in_numbers(shared: &Shared, group: &str, topic: &Topic) -> Result<DeadLetterGroup, Reply> {
    let mut told = DeadLetterGroup { group: group.to_owned(), ..DeadLetterGroup::default() };
    let earlier = |known: Option<u64>, found: Option<u64>| known.into_iter().chain(found).min();
    for number in 0..topic.config.queues() {
        let Some(queue) = queue_of(shared, topic, number)? else { continue };
        let QueueRange { min, max } = shared.engine.range(&queue);
        if min == max {
            continue;
        }
        told.letters += max.0 - min.0;
        let stored = |offset| shared.engine.store_time(&queue, offset).map_err(unreadable);
        told.oldest_ms = earlier(told.oldest_ms, stored(min)?);
        told.newest_ms = told.newest_ms.max(stored(QueueOffset(max.0 - 1))?);
        let (from, to) =
            (replayed::encode_key(&topic.name, number, min), replayed::encode_key(&topic.name, number, max));
        each_entry(shared, &from, &to, |_, _| {
            told.replayed += 1;
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(told)
}

/// Tells a group's dead letters: all in their order, or those of an id or key.
pub fn list(shared: &Shared, request: &Request<'_>) -> Outcome {
    answer(shared, request, |shared, ask: &ListDeadLetters, _| {
        let name = [DEAD_LETTER_PREFIX, &ask.group].concat();
        let none = || missing(format!("group {} has no dead letters", ask.group));
        let topic = shared.state.topics.get(&name).ok_or_else(none)?;
        let listing = Listing { shared, ask, topic: &topic };
        // What comes while it is looked at may be told or not; what came before is.
        let now_ms = shared.engine.clock().wall_ms();
        let (letters, next) = match (&ask.id, &ask.key) {
            (Some(id), _) => listing.of_id(id)?,
            (None, Some(key)) => listing.of_key(key)?,
            (None, None) => listing.in_order()?,
        };
        Ok(told(&DeadLetters { letters, now_ms, next }).into())
    })
}

/// That a message at this place was returned; the message may have been another one.
pub(super) struct Mark {
    pub(super) replay: Replay,
    /// The entry's value.
    pub(super) value: Box<[u8]>,
}

/// The mark at the place of a dead letter.
pub(super) fn mark(shared: &Shared, message: &Message) -> Result<Option<Mark>, Reply> {
    let Some((topic, queue)) = topic_of(&message.queue_name) else { return Ok(None) };
    let key = replayed::encode_key(topic, queue, message.queue_offset);
    let Some(entry) = shared.engine.get(&key).map_err(unreadable)? else { return Ok(None) };
    let replay = replayed::decode(&entry.value).map_err(refused)?;
    Ok(Some(Mark { replay, value: Box::from(&*entry.value) }))
}

/// The topic that a dead letter came from, as its properties say it.
pub(super) fn origin_topic(message: &Message) -> Option<String> {
    let attributes = Attributes::of(message)?;
    let own = message.payload().get(attributes.stored.body_bytes as usize..)?;
    let all = attributes.properties(std::str::from_utf8(own).ok()?);
    property(&all, "RETRY_TOPIC").map(str::to_owned)
}

struct Listing<'a> {
    shared: &'a Shared,
    ask: &'a ListDeadLetters,
    topic: &'a Topic,
}

impl Listing<'_> {
    /// Nothing for a letter that is not asked for.
    fn tell(&self, message: &Message) -> Result<Option<DeadLetter>, Reply> {
        let mark = mark(self.shared, message)?.filter(|mark| mark.replay.lsn == message.lsn);
        if self.ask.waiting && mark.is_some() {
            return Ok(None);
        }
        let shown = show(message, &self.shared.settings, self.ask.whole);
        let fault = shown.is_none().then(|| "it was stored by another version".to_owned());
        let replayed = mark.map(|Mark { replay, .. }| Replayed {
            at_ms: replay.at_ms,
            times: replay.times,
            topic: replay.topic.into(),
        });
        let message_told = shown.unwrap_or_else(|| ShownMessage {
            queue_offset: message.queue_offset.0,
            lsn: message.lsn.0,
            ..ShownMessage::default()
        });
        Ok(Some(DeadLetter { message: message_told, origin_topic: origin_topic(message), replayed, fault }))
    }

    fn is_of_group(&self, message: &Message) -> bool {
        topic_of(&message.queue_name).is_some_and(|(topic, _)| *topic == *self.topic.name)
    }

    /// The place that the id names, or the producer's id: the two may look the same.
    fn of_id(&self, id: &str) -> Result<Part<DeadLetter>, Reply> {
        if let Some(lsn) = place_in(id) {
            match self.shared.engine.read(lsn) {
                Ok(message) if self.is_of_group(&message) => {
                    return Ok((self.tell(&message)?.into_iter().collect(), None));
                }
                Ok(_) => {}
                Err(error) if error.advice() == Advice::Reject => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
        let (mut letters, next) = self.of_key(id)?;
        letters.retain(|letter| letter.message.unique_key.as_deref() == Some(id));
        Ok((letters, next))
    }

    fn of_key(&self, key: &str) -> Result<Part<DeadLetter>, Reply> {
        self.browse().of_key(key, &mut |message| self.tell(message))
    }

    fn in_order(&self) -> Result<Part<DeadLetter>, Reply> {
        self.browse().in_order(&mut |found| match found {
            Found::Message(message) => self.tell(message),
            Found::Unreadable { queue, offset, error } => {
                Ok(Some(unreadable_letter(&self.topic.name, queue, offset, error)))
            }
        })
    }

    fn browse(&self) -> Browse<'_> {
        Browse {
            shared: self.shared,
            topic: self.topic,
            queue: None,
            from_ms: self.ask.from_ms,
            to_ms: self.ask.to_ms,
            after: self.ask.after.as_deref(),
            limit: self.ask.limit,
            whole: self.ask.whole,
        }
    }
}

fn unreadable_letter(topic: &str, queue: u32, offset: QueueOffset, error: &ReadError) -> DeadLetter {
    let message = ShownMessage { topic: topic.to_owned(), queue, queue_offset: offset.0, ..ShownMessage::default() };
    DeadLetter { message, fault: Some(error.to_string()), ..DeadLetter::default() }
}
