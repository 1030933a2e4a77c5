//! 36: a consumer sends a message back.

use anchorlog_engine::{KeyQuery, Link, Lsn, Message, ReadError, Rejection, WriteBatch};

use super::attempt::{Asked, Said, Verdict};
use super::letter::Letter;
use crate::counters::Counters;
use crate::features::access::Pass;
use crate::features::delay::{self, Due, Later, Place};
use crate::features::groups::{self, GroupConfig};
use crate::features::offsets::Pins;
use crate::features::repeats::{self, Arrived, Back, Told};
use crate::features::send::stored::{Attributes, Beside};
use crate::features::topics::{DEAD_LETTER_PREFIX, RETRY_PREFIX, Topic, TopicConfig, name_fault, topic_of};
use crate::features::{After, Awaited, Outcome, Reply, Request, Task, Writing, code};
use crate::limits;
use crate::shared::Shared;
use crate::state::entries;
use crate::wire::message::{append_property, property};

/// The first client version whose word on the most attempts counts.
const VERSION_ATTEMPTS: i32 = 121;

/// 36: puts a message where its group gets it again, or where nobody does. Answered when that is acknowledged.
pub fn send_back(shared: &Shared, request: &Request<'_>, batch: &mut WriteBatch) -> Outcome {
    match Asking::read(shared, request) {
        // What was pulled just now need not wait for another thread.
        Ok(asking) if asking.is_at_hand(shared) => asking.run(shared, batch),
        Ok(asking) => Outcome::Read(Task::new(move |shared, batch| asking.run(shared, batch))),
        Err(reply) => reply.into(),
    }
}

/// A request to send back, read.
struct Asking {
    back: Back,
    config: GroupConfig,
    /// Up to here everything was acknowledged when it came.
    acked: Lsn,
    told: Told,
    /// Connections had time to close.
    is_second_look: bool,
    asked: Asked,
    /// The message's id as the consumer knows it.
    id: Box<str>,
    /// What the consumer may read: a message that it may not have must not come to it on this way.
    pass: Pass,
}

/// Where the message goes, and which message it is.
struct Found<'a> {
    message: &'a Message,
    topic: &'a str,
    properties: &'a str,
    attributes: Attributes<'a>,
}

impl Asking {
    fn read(shared: &Shared, request: &Request<'_>) -> Result<Asking, Reply> {
        if shared.is_closing() {
            return Err(Reply::failure(code::SERVICE_NOT_AVAILABLE, "the broker is stopping; nothing was done"));
        }
        let group = request.required("group")?;
        let unknown = || {
            let remark = format!("there is no consumer group {group}");
            Reply::failure(code::SUBSCRIPTION_GROUP_NOT_EXIST, remark)
        };
        if !groups::ensure(shared, group) {
            return Err(unknown());
        }
        let config = shared.state.groups.config(group).ok_or_else(unknown)?;
        let attempts_max = request.number("maxReconsumeTimes")?;
        let at_ms = shared.engine.clock().wall_ms();
        Ok(Asking {
            back: Back { group: group.into(), lsn: Lsn(request.required_number("offset")?) },
            config,
            acked: shared.engine.watermarks().acked,
            told: Told { peer: request.peer, connection: request.connection, at_ms },
            is_second_look: false,
            asked: Asked {
                level: request.number("delayLevel")?.unwrap_or(0),
                attempts_max: attempts_max.filter(|_| request.header.version >= VERSION_ATTEMPTS),
            },
            id: request.field("originMsgId").unwrap_or_default().into(),
            pass: request.pass(),
        })
    }

    /// Whether all that it takes to send it back is in memory.
    fn is_at_hand(&self, shared: &Shared) -> bool {
        let now_ms = shared.engine.clock().wall_ms();
        let may_be_older = shared.repeats.is_on() && shared.repeats.backs().may_be_older(&self.back, now_ms);
        !may_be_older && shared.engine.is_in_memory(self.back.lsn)
    }

    fn run(self, shared: &Shared, batch: &mut WriteBatch) -> Outcome {
        let since_ms = shared.repeats.since_ms(shared.engine.clock().wall_ms());
        let seen = shared.repeats.backs().look(&self.back, since_ms).filter(|_| shared.repeats.is_on());
        if let Some(sender) = seen {
            // Until somebody else has sent it back, and that is acknowledged.
            let Some(end) = sender.end_lsn else { return self.later(Awaited::Places) };
            if end > shared.engine.watermarks().acked {
                return self.later(Awaited::Acked { lsn: Lsn(end.0.saturating_sub(1)), overdue: None });
            }
            match shared.repeats.back_arrived(&sender, self.told.connection) {
                // It was sent back again before that was answered.
                _ if end > self.acked => return self.repeated(shared),
                Arrived::No => return self.repeated(shared),
                Arrived::Perhaps if !self.is_second_look => {
                    return Asking { is_second_look: true, ..self }.later(Awaited::Closing);
                }
                Arrived::Yes | Arrived::Perhaps => {}
            }
        }
        match self.fill(shared, seen.is_none(), batch) {
            Ok(Some(writing)) => {
                let forgotten = &shared.counters.repeats_forgotten;
                if !shared.repeats.is_on() {
                    return Outcome::Write(writing);
                }
                if !shared.repeats.backs().claim(&self.back, self.told, seen, since_ms, forgotten) {
                    batch.clear();
                    return self.later(Awaited::Places);
                }
                Outcome::Write(Writing { back: Some(Box::new(self.back)), ..writing })
            }
            Ok(None) => self.repeated(shared),
            Err(reply) => {
                batch.clear();
                reply.into()
            }
        }
    }

    /// It was sent back before.
    fn repeated(&self, shared: &Shared) -> Outcome {
        shared.repeats.backs().tell(&self.back, self.told);
        shared.counters.repeats_answered.add(1);
        Reply::default().into()
    }

    fn later(self, awaited: Awaited) -> Outcome {
        Outcome::After(After { awaited, task: Task::new(move |shared, batch| self.run(shared, batch)) })
    }

    /// Fills the batch that sends it back; `None` when the log or the table says that it was. `is_unknown`: nothing else knows of it.
    fn fill(&self, shared: &Shared, is_unknown: bool, batch: &mut WriteBatch) -> Result<Option<Writing>, Reply> {
        let (message, properties) = self.find(shared)?;
        let attributes = Attributes::of(&message).ok_or_else(|| self.foreign())?;
        let (topic, _) = topic_of(&message.queue_name).ok_or_else(|| self.missing())?;
        let attempts = attributes.stored.reconsume_times;
        let found = Found { message: &message, topic, properties: &properties, attributes };
        self.pass.may_read(shared, Some(topic))?;
        self.is_meant(&found)?;
        let now_ms = shared.engine.clock().wall_ms();
        let may_be_older =
            shared.repeats.is_on() && is_unknown && shared.repeats.backs().may_be_older(&self.back, now_ms);
        if may_be_older && self.was_done(shared, &message, now_ms)? {
            return Ok(None);
        }
        match self.asked.verdict(attempts, &self.config) {
            Verdict::Again { level } => self.again(shared, &found, level, batch),
            Verdict::Dead => self.dead(shared, &found, batch),
        }
        .map(Some)
    }

    /// Whether the message waits for its next attempt, or was moved within the window.
    fn was_done(&self, shared: &Shared, message: &Message, now_ms: u64) -> Result<bool, Reply> {
        let failed = |error: ReadError| {
            Reply::failure(code::SYSTEM_ERROR, format!("the message at {} was not sent back: {error}", self.back.lsn))
        };
        let forms = [repeats::back_key(self.back.lsn), repeats::long_back_key(self.back.lsn)];
        let is_own = |topic: &str| {
            let group = topic.strip_prefix(RETRY_PREFIX).or_else(|| topic.strip_prefix(DEAD_LETTER_PREFIX));
            group == Some(&*self.back.group)
        };
        for key in &forms {
            let query = KeyQuery { from_ms: shared.repeats.since_ms(now_ms), ..KeyQuery::new(key) };
            let moved = shared.engine.find(&query).map_err(failed)?;
            if moved.iter().any(|link| topic_of(&link.queue_name).is_some_and(|(topic, _)| is_own(topic))) {
                return Ok(true);
            }
        }
        let waiting = shared.engine.entries_about(message.origin_lsn()).map_err(failed)?;
        Ok(waiting.iter().any(|(_, entry)| match entries::due::decode(&entry.value) {
            Ok(Due::Deliver { place, .. }) => {
                is_own(&place.topic) && place.keys.iter().any(|other| forms.iter().any(|key| **other == **key))
            }
            _ => false,
        }))
    }

    /// What it is found by where it goes: its own keys, and what it was here.
    fn keys(&self, message: &Message) -> Vec<Box<[u8]>> {
        let mut keys = Place::bounded_keys(message.keys().filter(|key| !repeats::is_back_key(key)));
        keys.push(repeats::back_key(self.back.lsn).into());
        keys
    }

    /// The message and its properties as they count now.
    fn find(&self, shared: &Shared) -> Result<(Message, String), Reply> {
        let message = shared.engine.read(self.back.lsn).map_err(|error| {
            Reply::failure(code::SYSTEM_ERROR, format!("the message at {} was not sent back: {error}", self.back.lsn))
        })?;
        let attributes = Attributes::of(&message).ok_or_else(|| self.foreign())?;
        let properties = message.payload().get(attributes.stored.body_bytes as usize..);
        let properties = properties.and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or_else(|| self.foreign())?;
        let properties = attributes.properties(properties).into_owned();
        Ok((message, properties))
    }

    fn missing(&self) -> Reply {
        Reply::failure(code::SYSTEM_ERROR, format!("there is no message at {}", self.back.lsn))
    }

    fn foreign(&self) -> Reply {
        let remark = format!("the message at {} was stored by another version", self.back.lsn);
        Reply::failure(code::SYSTEM_ERROR, remark)
    }

    /// A place in the log that was lost with the tail of an asynchronous log may hold another message now. Clients call a message by its
    /// producer's id, or by its place.
    fn is_meant(&self, found: &Found<'_>) -> Result<(), Reply> {
        let by_place = |id: &str| {
            let place = id.len().checked_sub(16).and_then(|at| id.get(at..));
            place.and_then(|place| u64::from_str_radix(place, 16).ok()) == Some(self.back.lsn.0)
        };
        let by_name =
            ["UNIQ_KEY", "ORIGIN_MESSAGE_ID"].iter().any(|name| property(found.properties, name) == Some(&self.id));
        if self.id.is_empty() || by_name || by_place(&self.id) {
            return Ok(());
        }
        let remark = format!("the message at {} is not {}; it was not sent back", self.back.lsn, self.id);
        Err(Reply::failure(code::SYSTEM_ERROR, remark))
    }

    /// One of the group's own topics, made when it is missing.
    fn topic(&self, shared: &Shared, prefix: &str, config: TopicConfig) -> Result<std::sync::Arc<Topic>, Reply> {
        let name = [prefix, &self.back.group].concat();
        if let Some(fault) = name_fault(&name) {
            return Err(Reply::failure(
                code::SYSTEM_ERROR,
                format!("group {} has no topic {name}: {fault}", self.back.group),
            ));
        }
        let topic = shared.state.get_or_make_topic(&name, config).ok_or_else(|| {
            Reply::failure(code::SYSTEM_ERROR, format!("there are too many topics to make {name}; nothing was done"))
        })?;
        if shared.settings.keep_unconsumed {
            Pins::keep_own(&shared.engine, &shared.state, &topic);
        }
        Ok(topic)
    }

    /// What the message says when it is moved, and what it is found by there.
    fn said(
        &self,
        shared: &Shared,
        found: &Found<'_>,
        (topic, queue): (&str, u32),
        moved: &str,
    ) -> Result<Vec<u8>, Reply> {
        let said = Said {
            now: &found.attributes,
            properties: found.properties,
            topic: found.topic,
            host: shared.settings.advertise,
            physical_offset: self.back.lsn.0.cast_signed(),
        };
        let (stored, changed) = said.next(moved);
        let next = Attributes { stored, changed: changed.into() };
        // Counted generously: what is replaced counts too.
        let bytes = found.properties.len() + next.changed.len() + next.state().added_bytes(&shared.settings.cluster);
        if bytes > limits::PROPERTIES_BYTES_MAX {
            let remark = format!("the properties would have up to {bytes} bytes, more than clients can read");
            return Err(Reply::failure(code::MESSAGE_ILLEGAL, remark));
        }
        Ok(next.encode_beside(&Beside::origin_of(found.message, topic, queue)))
    }

    fn again(&self, shared: &Shared, found: &Found<'_>, level: i64, batch: &mut WriteBatch) -> Result<Writing, Reply> {
        let topic = self.topic(shared, RETRY_PREFIX, self.config.retry_topic())?;
        let queue = shared.any_queue(topic.config.write_queues.max(1));
        let (level, delay) = shared.settings.delay_levels.of(level).ok_or_else(|| self.missing())?;
        let later = Later::at_level(level, -1, delay, &topic.name, queue, shared.engine.clock().wall_ms());
        let place = Place {
            topic: topic.name.clone(),
            queue,
            tag: found.message.tag,
            keys: self.keys(found.message),
            attributes: self.said(shared, found, (&topic.name, queue), &later.changed)?,
        };
        let reference = found.message.reference();
        let due = Due::Deliver { record_bytes: reference.origin_bytes(), timed: false, place };
        let due = delay::put_due(shared, batch, later.time_ms, &due, reference.to_origin());
        let due = due.map_err(|error| Reply::failure(code::MESSAGE_ILLEGAL, error.to_string()))?;
        let counted = |counters: &Counters| counters.messages_sent_back.add(1);
        Ok(Writing {
            reply: Reply::default(),
            due: Some(due),
            ends: None,
            again: None,
            letter: None,
            rejected: nothing_required,
            counted,
            back: None,
        })
    }

    fn dead(&self, shared: &Shared, found: &Found<'_>, batch: &mut WriteBatch) -> Result<Writing, Reply> {
        let topic = self.topic(shared, DEAD_LETTER_PREFIX, TopicConfig::open(1))?;
        let refused = |what: String| Reply::failure(code::SYSTEM_ERROR, what);
        let queue = topic.queue(&shared.engine, 0).map_err(|error| refused(error.to_string()))?;
        let queue = queue.ok_or_else(|| refused(format!("topic {} has no queue", topic.name)))?;
        let mut moved = String::new();
        // Whoever reads it there need not wait.
        append_property(&mut moved, "DELAY", "0");
        let attributes = self.said(shared, found, (&topic.name, 0), &moved)?;
        let keys = self.keys(found.message);
        let keys: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
        let link = Link {
            queue,
            target: found.message.reference().into(),
            tag: found.message.tag,
            keys: &keys,
            attributes: &attributes,
        };
        batch.link(&link).map_err(|error| refused(error.to_string()))?;
        let came_from = property(found.properties, "RETRY_TOPIC").unwrap_or(found.topic);
        let id = property(found.properties, "UNIQ_KEY").unwrap_or_default();
        let letter = Letter {
            group: self.back.group.clone(),
            topic: topic.name.clone(),
            origin_topic: came_from.into(),
            unique_key: id.into(),
            // The one that failed now, too.
            attempts: found.attributes.stored.reconsume_times.saturating_add(1),
        };
        let (letter, counted) = (Some(Box::new(letter)), |_: &Counters| {});
        Ok(Writing {
            reply: Reply::default(),
            due: None,
            ends: None,
            again: None,
            letter,
            rejected: nothing_required,
            counted,
            back: None,
        })
    }
}

/// Such batches require nothing.
fn nothing_required(_: &Shared, rejection: &Rejection) -> Reply {
    Reply::failure(code::SYSTEM_ERROR, rejection.to_string())
}
