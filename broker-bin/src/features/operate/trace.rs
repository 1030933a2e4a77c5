//! What became of a message, as the log tells it: where it lies, by which links it went on, and which groups have passed it.
//!
//! 1. Every appearance of a message has a key, its producer's id, and leads to one origin: both are followed.
//! 2. A consumed message is one that its group has committed an offset behind: the log does not know when that was, clients do.
//! 3. What waits without an appearance (delayed, or half of a transaction) is looked for among the entries that say so, as many as a part
//!    of a list looks at; the id of its place finds it in any case.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use anchorlog_engine::{Advice, KeyOrder, KeyQuery, Lsn, Message, ReadError};

use super::asking::{answer, each_entry, missing, told, unreadable};
use super::client_traces::{self, TRACE_TOPIC};
use super::dead_letters::mark;
use super::show::{place_in, show, show_as};
use crate::features::delay::{Due, HIDDEN_QUEUE};
use crate::features::send::stored::Attributes;
use crate::features::topics::{DEAD_LETTER_PREFIX, RETRY_PREFIX, topic_of};
use crate::features::transactions::{HALF_QUEUE, Half, Transaction, Verdict};
use crate::features::{Outcome, Reply, Request};
use crate::limits;
use crate::shared::Shared;
use crate::state::entries;
use crate::wire::message::property;
use crate::wire::operate::{ShowTrace, ShownMessage, Step, StepKind, Trace};

/// Tells what became of a message.
pub fn trace(shared: &Shared, request: &Request<'_>) -> Outcome {
    answer(shared, request, |shared, ask: &ShowTrace, _| {
        let mut life = Life { shared, appearances: BTreeMap::new(), steps: Vec::new(), cut: false };
        life.find(&ask.id)?;
        let unique_key = life.unique_key().unwrap_or_else(|| ask.id.clone());
        life.pending(&unique_key)?;
        life.tell()?;
        let trace_topic = ask.trace_topic.as_deref().unwrap_or(TRACE_TOPIC);
        if !trace_topic.is_empty() {
            life.clients(trace_topic, &unique_key)?;
        }
        let message = life.first();
        let Life { mut steps, cut, .. } = life;
        if message.is_none() && steps.is_empty() {
            return Err(missing(format!("no message {} is known; it may have been dropped with its file", ask.id)));
        }
        // What has no time is how things are now.
        steps.sort_by_key(|step| step.at_ms.unwrap_or(u64::MAX));
        Ok(told(&Trace { message, steps, cut }).into())
    })
}

struct Life<'a> {
    shared: &'a Shared,
    appearances: BTreeMap<Lsn, Message>,
    steps: Vec<Step>,
    cut: bool,
}

/// The message, unless it is not there.
fn there(read: Result<Message, ReadError>) -> Result<Option<Message>, Reply> {
    match read {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.advice() == Advice::Reject => Ok(None),
        Err(error) => Err(unreadable(error)),
    }
}

/// Its properties as they count.
fn properties_of(message: &Message) -> Option<String> {
    let attributes = Attributes::of(message)?;
    let own = message.payload().get(attributes.stored.body_bytes as usize..)?;
    Some(attributes.properties(std::str::from_utf8(own).ok()?).into_owned())
}

impl Life<'_> {
    fn find(&mut self, id: &str) -> Result<(), Reply> {
        if let Some(lsn) = place_in(id)
            && let Some(message) = there(self.shared.engine.read(lsn))?
        {
            let unique_key = properties_of(&message).and_then(|all| property(&all, "UNIQ_KEY").map(str::to_owned));
            self.add(message)?;
            if let Some(unique_key) = unique_key {
                self.find_by_key(&unique_key)?;
            }
        }
        self.find_by_key(id)
    }

    fn find_by_key(&mut self, key: &str) -> Result<(), Reply> {
        let query = KeyQuery {
            order: KeyOrder::OldestFirst,
            count: limits::OPERATE_PART_MAX,
            bytes_max: limits::OPERATE_PART_BYTES,
            ..KeyQuery::new(key.as_bytes())
        };
        let found = self.shared.engine.find(&query).map_err(unreadable)?;
        self.cut |= found.len() == limits::OPERATE_PART_MAX;
        for message in found {
            // A key that others gave it, such as the one of a trace message, makes it no appearance.
            let is_it = properties_of(&message).is_some_and(|all| property(&all, "UNIQ_KEY") == Some(key));
            if is_it {
                self.add(message)?;
            }
        }
        Ok(())
    }

    /// With the message that it leads to, which may lie where nobody reads.
    fn add(&mut self, message: Message) -> Result<(), Reply> {
        let origin = message.origin_lsn();
        if origin != message.lsn
            && !self.appearances.contains_key(&origin)
            && let Some(origin) = there(self.shared.engine.read(origin))?
        {
            self.appearances.insert(origin.lsn, origin);
        }
        self.appearances.insert(message.lsn, message);
        Ok(())
    }

    fn unique_key(&self) -> Option<String> {
        let all = self.appearances.values().find_map(properties_of)?;
        property(&all, "UNIQ_KEY").map(str::to_owned)
    }

    /// What waits: entries that will put it somewhere, or that say whose verdict is awaited.
    fn pending(&mut self, unique_key: &str) -> Result<(), Reply> {
        let end = entries::end_of(entries::due::PREFIX);
        let mut found = Vec::new();
        each_entry(self.shared, entries::due::PREFIX, &end, |key, entry| {
            if let (Ok(key), Ok(Due::Deliver { place, .. })) =
                (entries::due::decode_key(key), entries::due::decode(&entry.value))
                && (place.keys.first().is_some_and(|key| **key == *unique_key.as_bytes())
                    || entry.target.is_some_and(|target| self.appearances.contains_key(&target)))
            {
                found.push((key, place, entry.target));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for (key, place, target) in found {
            self.steps.push(Step {
                kind: StepKind::Due,
                at_ms: Some(key.time_ms),
                topic: Some(place.topic.to_string()),
                queue: Some(place.queue),
                group: place.topic.strip_prefix(RETRY_PREFIX).map(str::to_owned),
                note: Some(format!("anchorlog delay cancel {key}")),
                ..Step::default()
            });
            if let Some(target) = target
                && let Some(message) = there(self.shared.engine.read(target))?
            {
                self.add(message)?;
            }
        }
        if self.appearances.is_empty() {
            self.find_half(unique_key)?;
        }
        Ok(())
    }

    fn find_half(&mut self, unique_key: &str) -> Result<(), Reply> {
        let end = entries::end_of(entries::transaction::PREFIX);
        let (mut found, mut reads) = (None, 0);
        each_entry(self.shared, entries::transaction::PREFIX, &end, |_, entry| {
            let Some(target) = entry.target else { return Ok(ControlFlow::Continue(())) };
            reads += 1;
            let half = Half::read(&self.shared.engine, target).ok();
            found = half.filter(|half| half.unique_key() == unique_key);
            let enough = found.is_some() || reads == limits::OPERATE_READS_MAX;
            Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        self.appearances.extend(found.map(|half| (half.message.lsn, half.message)));
        Ok(())
    }

    /// Where it lay first.
    fn first(&self) -> Option<ShownMessage> {
        let settings = &self.shared.settings;
        self.appearances.values().find_map(|message| match topic_of(&message.queue_name) {
            Some(_) => show(message, settings, true),
            None => show_as(message, "", 0, settings, true),
        })
    }

    fn tell(&mut self) -> Result<(), Reply> {
        let appearances: Vec<Message> = self.appearances.values().cloned().collect();
        if let Some(first) = appearances.first() {
            self.tell_born(first);
        }
        for message in &appearances {
            if *message.queue_name == *HIDDEN_QUEUE {
                self.step(StepKind::Delayed, message, None, None);
            } else if *message.queue_name == *HALF_QUEUE {
                self.tell_half(message)?;
            } else {
                self.tell_in_topic(message)?;
            }
        }
        Ok(())
    }

    fn tell_born(&mut self, first: &Message) {
        let Some(attributes) = Attributes::of(first) else { return };
        self.steps.push(Step {
            kind: StepKind::Born,
            at_ms: u64::try_from(attributes.stored.born_timestamp).ok(),
            note: Some(format!("by {}", attributes.stored.born_host)),
            ..Step::default()
        });
    }

    fn step(&mut self, kind: StepKind, message: &Message, group: Option<&str>, note: Option<String>) {
        let place = topic_of(&message.queue_name);
        self.steps.push(Step {
            kind,
            at_ms: Some(message.store_time_ms),
            topic: place.map(|(topic, _)| topic.to_owned()),
            queue: place.map(|(_, queue)| queue),
            queue_offset: place.map(|_| message.queue_offset.0),
            lsn: Some(message.lsn.0),
            group: group.map(str::to_owned),
            note,
        });
    }

    fn tell_half(&mut self, message: &Message) -> Result<(), Reply> {
        let Ok(half) = Half::read(&self.shared.engine, message.lsn) else { return Ok(()) };
        let place = half.place().map(|(topic, queue)| format!("for {topic} queue {queue}, "));
        let note = format!("{}transaction {}", place.unwrap_or_default(), half.id);
        let entry = self.shared.engine.get(&entries::transaction::encode_key(&half.id)).map_err(unreadable)?;
        let transaction = entry.and_then(|entry| entries::transaction::decode(&entry.value).ok());
        let group = match &transaction {
            Some(Transaction::Prepared { group, .. } | Transaction::Parked { group }) => Some(group.clone()),
            _ => None,
        };
        let parked = matches!(transaction, Some(Transaction::Parked { .. }));
        let note = if parked { format!("{note}: parked, nobody is asked any more") } else { note };
        self.step(StepKind::Half, message, group.as_deref(), Some(note));
        if let Some(Transaction::Decided { verdict, at_ms }) = transaction {
            let kind = if verdict == Verdict::Commit { StepKind::Committed } else { StepKind::RolledBack };
            self.steps.push(Step { kind, at_ms: Some(at_ms), ..Step::default() });
        }
        Ok(())
    }

    fn tell_in_topic(&mut self, message: &Message) -> Result<(), Reply> {
        let Some((topic, queue)) = topic_of(&message.queue_name) else { return Ok(()) };
        let attempts = Attributes::of(message).map_or(0, |found| found.stored.reconsume_times);
        if let Some(group) = topic.strip_prefix(DEAD_LETTER_PREFIX) {
            self.step(StepKind::DeadLetter, message, Some(group), Some(format!("after {attempts} attempts")));
            if let Some(mark) = mark(self.shared, message)?.filter(|mark| mark.replay.lsn == message.lsn) {
                self.steps.push(Step {
                    kind: StepKind::Returned,
                    at_ms: Some(mark.replay.at_ms),
                    topic: Some(mark.replay.topic.to_string()),
                    group: Some(group.to_owned()),
                    note: Some(format!("{} times in all", mark.replay.times)),
                    ..Step::default()
                });
            }
            return Ok(());
        }
        if let Some(group) = topic.strip_prefix(RETRY_PREFIX) {
            self.step(StepKind::Retried, message, Some(group), Some(format!("attempt {}", attempts + 1)));
        } else {
            let is_own = message.origin_lsn() == message.lsn;
            self.step(if is_own { StepKind::Stored } else { StepKind::Delivered }, message, None, None);
        }
        for (group, committed) in self.shared.state.offsets.of_queue(topic, queue) {
            let (kind, note) = match committed.checked_sub(message.queue_offset.0) {
                Some(behind @ 1..) => (StepKind::Consumed, format!("its offset is {committed}, {behind} on")),
                _ => (StepKind::Waiting, format!("its offset is {committed}")),
            };
            self.step(kind, message, Some(&group), Some(note));
            // The time is the message's, not the commit's, which is not known.
            if let Some(last) = self.steps.last_mut() {
                last.at_ms = None;
            }
        }
        Ok(())
    }

    /// What clients say themselves.
    fn clients(&mut self, trace_topic: &str, id: &str) -> Result<(), Reply> {
        let query = KeyQuery {
            order: KeyOrder::OldestFirst,
            count: limits::OPERATE_PART_MAX,
            bytes_max: limits::OPERATE_PART_BYTES,
            ..KeyQuery::new(id.as_bytes())
        };
        for message in self.shared.engine.find(&query).map_err(unreadable)? {
            if topic_of(&message.queue_name).is_none_or(|(topic, _)| topic != trace_topic) {
                continue;
            }
            let Some(attributes) = Attributes::of(&message) else { continue };
            let body = message.payload().get(..attributes.stored.body_bytes as usize);
            if let Some(body) = body.and_then(|body| std::str::from_utf8(body).ok()) {
                self.steps.extend(client_traces::steps(body, id));
            }
        }
        Ok(())
    }
}
