//! 36: a consumer sends a message back.

use anchorlog_engine::{Link, Lsn, Message, Rejection, WriteBatch};

use super::attempt::{Asked, Said, Verdict};
use super::letter::Letter;
use crate::counters::Counters;
use crate::features::delay::{self, Due, Later, Place};
use crate::features::groups::{self, GroupConfig};
use crate::features::offsets::Pins;
use crate::features::send::stored::Attributes;
use crate::features::topics::{DEAD_LETTER_PREFIX, RETRY_PREFIX, Topic, TopicConfig, name_fault, topic_of};
use crate::features::{Outcome, Reply, Request, Task, Writing, code};
use crate::limits;
use crate::shared::Shared;
use crate::wire::message::{append_property, property};

/// The first client version whose word on the most attempts counts.
const VERSION_ATTEMPTS: i32 = 121;

/// 36: puts a message where its group gets it again, or where nobody does. Answered when that is acknowledged.
pub fn send_back(shared: &Shared, request: &Request<'_>, batch: &mut WriteBatch) -> Outcome {
    match Back::read(shared, request) {
        // What was pulled just now need not wait for another thread.
        Ok(back) if shared.engine.is_in_memory(back.lsn) => back.run(shared, batch),
        Ok(back) => Outcome::Read(Task::new(move |shared, batch| back.run(shared, batch))),
        Err(reply) => reply.into(),
    }
}

/// A request to send back, read.
struct Back {
    group: Box<str>,
    config: GroupConfig,
    lsn: Lsn,
    asked: Asked,
    /// The message's id as the consumer knows it.
    id: Box<str>,
}

/// Where the message goes, and which message it is.
struct Found<'a> {
    message: &'a Message,
    topic: &'a str,
    properties: &'a str,
    attributes: Attributes<'a>,
}

impl Back {
    fn read(shared: &Shared, request: &Request<'_>) -> Result<Back, Reply> {
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
        Ok(Back {
            group: group.into(),
            config,
            lsn: Lsn(request.required_number("offset")?),
            asked: Asked {
                level: request.number("delayLevel")?.unwrap_or(0),
                attempts_max: attempts_max.filter(|_| request.header.version >= VERSION_ATTEMPTS),
            },
            id: request.field("originMsgId").unwrap_or_default().into(),
        })
    }

    fn run(&self, shared: &Shared, batch: &mut WriteBatch) -> Outcome {
        let outcome = self.find(shared).and_then(|(message, properties)| {
            let attributes = Attributes::decode(message.attributes()).ok_or_else(|| self.foreign())?;
            let (topic, _) = topic_of(&message.queue_name).ok_or_else(|| self.missing())?;
            let found = Found { message: &message, topic, properties: &properties, attributes };
            self.is_meant(&found)?;
            match self.asked.verdict(attributes.stored.reconsume_times, &self.config) {
                Verdict::Again { level } => self.again(shared, &found, level, batch),
                Verdict::Dead => self.dead(shared, &found, batch),
            }
        });
        match outcome {
            Ok(writing) => Outcome::Write(writing),
            Err(reply) => {
                batch.clear();
                reply.into()
            }
        }
    }

    /// The message and its properties as they count now.
    fn find(&self, shared: &Shared) -> Result<(Message, String), Reply> {
        let message = shared.engine.read(self.lsn).map_err(|error| {
            Reply::failure(code::SYSTEM_ERROR, format!("the message at {} was not sent back: {error}", self.lsn))
        })?;
        let attributes = Attributes::decode(message.attributes()).ok_or_else(|| self.foreign())?;
        let properties = message.payload().get(attributes.stored.body_bytes as usize..);
        let properties = properties.and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or_else(|| self.foreign())?;
        let properties = attributes.properties(properties).into_owned();
        Ok((message, properties))
    }

    fn missing(&self) -> Reply {
        Reply::failure(code::SYSTEM_ERROR, format!("there is no message at {}", self.lsn))
    }

    fn foreign(&self) -> Reply {
        let remark = format!("the message at {} was stored by another version", self.lsn);
        Reply::failure(code::SYSTEM_ERROR, remark)
    }

    /// A place in the log that was lost with the tail of an asynchronous log may hold another message now. Clients call a message by its
    /// producer's id, or by its place.
    fn is_meant(&self, found: &Found<'_>) -> Result<(), Reply> {
        let by_place = |id: &str| {
            let place = id.len().checked_sub(16).and_then(|at| id.get(at..));
            place.and_then(|place| u64::from_str_radix(place, 16).ok()) == Some(self.lsn.0)
        };
        let by_name =
            ["UNIQ_KEY", "ORIGIN_MESSAGE_ID"].iter().any(|name| property(found.properties, name) == Some(&self.id));
        if self.id.is_empty() || by_name || by_place(&self.id) {
            return Ok(());
        }
        let remark = format!("the message at {} is not {}; it was not sent back", self.lsn, self.id);
        Err(Reply::failure(code::SYSTEM_ERROR, remark))
    }

    /// One of the group's own topics, made when it is missing.
    fn topic(&self, shared: &Shared, prefix: &str, config: TopicConfig) -> Result<std::sync::Arc<Topic>, Reply> {
        let name = [prefix, &self.group].concat();
        if let Some(fault) = name_fault(&name) {
            return Err(Reply::failure(
                code::SYSTEM_ERROR,
                format!("group {} has no topic {name}: {fault}", self.group),
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
    fn said(&self, shared: &Shared, found: &Found<'_>, moved: &str) -> Result<Vec<u8>, Reply> {
        let said = Said {
            now: found.attributes,
            properties: found.properties,
            topic: found.topic,
            host: shared.settings.advertise,
            physical_offset: self.lsn.0.cast_signed(),
        };
        let (stored, changed) = said.next(moved);
        let next = Attributes { stored, changed: &changed };
        // Counted generously: what is replaced counts too.
        let bytes = found.properties.len() + changed.len() + next.state().added_bytes(&shared.settings.cluster);
        if bytes > limits::PROPERTIES_BYTES_MAX {
            let remark = format!("the properties would have up to {bytes} bytes, more than clients can read");
            return Err(Reply::failure(code::MESSAGE_ILLEGAL, remark));
        }
        Ok(next.encode())
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
            keys: Place::bounded_keys(found.message.keys()),
            attributes: self.said(shared, found, &later.changed)?,
        };
        let reference = found.message.reference();
        let due = Due::Deliver { record_bytes: reference.origin_bytes(), timed: false, place };
        let due = delay::put_due(shared, batch, later.time_ms, &due, reference.to_origin());
        let due = due.map_err(|error| Reply::failure(code::MESSAGE_ILLEGAL, error.to_string()))?;
        let counted = |counters: &Counters| counters.messages_sent_back.add(1);
        Ok(Writing { reply: Reply::default(), due: Some(due), letter: None, rejected: nothing_required, counted })
    }

    fn dead(&self, shared: &Shared, found: &Found<'_>, batch: &mut WriteBatch) -> Result<Writing, Reply> {
        let topic = self.topic(shared, DEAD_LETTER_PREFIX, TopicConfig::open(1))?;
        let refused = |what: String| Reply::failure(code::SYSTEM_ERROR, what);
        let queue = topic.queue(&shared.engine, 0).map_err(|error| refused(error.to_string()))?;
        let queue = queue.ok_or_else(|| refused(format!("topic {} has no queue", topic.name)))?;
        let mut moved = String::new();
        // Whoever reads it there need not wait.
        append_property(&mut moved, "DELAY", "0");
        let attributes = self.said(shared, found, &moved)?;
        let keys: Vec<&[u8]> = found.message.keys().collect();
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
            group: self.group.clone(),
            topic: topic.name.clone(),
            origin_topic: came_from.into(),
            unique_key: id.into(),
            // The one that failed now, too.
            attempts: found.attributes.stored.reconsume_times.saturating_add(1),
        };
        let (letter, counted) = (Some(Box::new(letter)), |_: &Counters| {});
        Ok(Writing { reply: Reply::default(), due: None, letter, rejected: nothing_required, counted })
    }
}

/// Such batches require nothing.
fn nothing_required(_: &Shared, rejection: &Rejection) -> Reply {
    Reply::failure(code::SYSTEM_ERROR, rejection.to_string())
}
