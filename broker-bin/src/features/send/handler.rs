//! 10, 310, 320, 324, 325: checks a send, and fills the batch that it becomes.

use std::borrow::Cow;
use std::time::Duration;

use anchorlog_engine::{Append, AppendError, BatchError, Queue, WriteBatch};

use super::properties::Known;
use super::sending::Sending;
use super::stored::{Attributes, Stored};
use crate::features::delay::{self, DueKey, Later, Place};
use crate::features::offsets::{self, Pins};
use crate::features::reply::Push;
use crate::features::retry::{self, DeadLetter, Letter};
use crate::features::topics::{self, DEAD_LETTER_PREFIX, RETRY_PREFIX, Topic, TopicConfig};
use crate::features::transactions::{self, Wanted};
use crate::features::{FieldError, Outcome, Reply, Request, code};
use crate::limits;
use crate::shared::Shared;
use crate::wire::batch;
use crate::wire::message::{NAME_END, VALUE_END, sys_flag, tag_hash};

/// Names of a send's fields: codes 10 and 324 spell them out, 310, 320 and 325 use letters.
struct Names {
    group: &'static str,
    topic: &'static str,
    default_topic: &'static str,
    default_topic_queues: &'static str,
    queue: &'static str,
    sys_flag: &'static str,
    born_timestamp: &'static str,
    flag: &'static str,
    properties: &'static str,
    reconsume_times: &'static str,
    reconsume_max: &'static str,
    batch: &'static str,
}

const LONG: Names = Names {
    group: "producerGroup",
    topic: "topic",
    default_topic: "defaultTopic",
    default_topic_queues: "defaultTopicQueueNums",
    queue: "queueId",
    sys_flag: "sysFlag",
    born_timestamp: "bornTimestamp",
    flag: "flag",
    properties: "properties",
    reconsume_times: "reconsumeTimes",
    reconsume_max: "maxReconsumeTimes",
    batch: "batch",
};

const LETTERS: Names = Names {
    group: "a",
    topic: "b",
    default_topic: "c",
    default_topic_queues: "d",
    queue: "e",
    sys_flag: "f",
    born_timestamp: "g",
    flag: "h",
    properties: "i",
    reconsume_times: "j",
    reconsume_max: "l",
    batch: "m",
};

/// A send's fields, read.
struct Send<'a> {
    group: &'a str,
    topic: &'a str,
    default_topic: &'a str,
    default_topic_queues: u32,
    queue: i32,
    sys_flag: i32,
    born_timestamp: i64,
    flag: i32,
    properties: &'a str,
    reconsume_times: i32,
    reconsume_max: Option<i32>,
    is_batch: bool,
    /// Whatever delay its properties wish, it is a dead letter now.
    is_dead: bool,
}

impl<'a> Send<'a> {
    fn read(request: &Request<'a>) -> Result<Send<'a>, FieldError> {
        // A binary header cannot be told apart by names: only the code says which it uses.
        let names = if matches!(request.header.code, 10 | 324) { &LONG } else { &LETTERS };
        Ok(Send {
            group: request.field(names.group).unwrap_or_default(),
            topic: request.required(names.topic)?,
            default_topic: request.field(names.default_topic).unwrap_or_default(),
            default_topic_queues: request.number(names.default_topic_queues)?.unwrap_or(4),
            queue: request.required_number(names.queue)?,
            sys_flag: request.number(names.sys_flag)?.unwrap_or(0),
            born_timestamp: request.number(names.born_timestamp)?.unwrap_or(0),
            flag: request.number(names.flag)?.unwrap_or(0),
            properties: request.field(names.properties).unwrap_or_default(),
            reconsume_times: request.number(names.reconsume_times)?.unwrap_or(0),
            reconsume_max: request.number(names.reconsume_max)?,
            is_dead: false,
            is_batch: request.header.code == 320 || request.switch(names.batch),
        })
    }
}

/// Fills `out` with the messages of a send, or says why not.
pub fn send(shared: &Shared, request: &Request<'_>, out: &mut WriteBatch) -> Outcome {
    let sending = Push::of(shared, request).and_then(|push| {
        let sending = try_send(shared, request, out)?;
        Ok(Sending { push: push.map(Box::new), ..sending })
    });
    match sending {
        Ok(sending) => Outcome::Append(sending),
        Err(reply) => {
            out.clear();
            shared.counters.sends_refused.add(1);
            // Clients of some families read these two on failures also.
            Outcome::Reply(reply.with("MSG_REGION", "DefaultRegion").with("TRACE_ON", true))
        }
    }
}

fn try_send(shared: &Shared, request: &Request<'_>, out: &mut WriteBatch) -> Result<Sending, Reply> {
    if shared.is_closing() {
        return Err(Reply::failure(code::SERVICE_NOT_AVAILABLE, "the broker is stopping; nothing was stored"));
    }
    if let Err(reason) = shared.admission() {
        return Err(Reply::failure(code::SERVICE_NOT_AVAILABLE, reason));
    }
    let mut send = Send::read(request)?;
    let dead = dead_letter(shared, &send);
    if let Some(dead) = &dead {
        send = Send { topic: &dead.topic, queue: 0, is_dead: true, ..send };
    }
    let topic = find_topic(shared, request, &send)?;
    let config = topic.config;
    let number = match u32::try_from(send.queue) {
        Ok(number) if number < config.queues() => number,
        Ok(number) => {
            let remark = format!("topic {} has no queue {number}; it has {}", send.topic, config.queues());
            return Err(request.invalid_parameter(remark));
        }
        Err(_) => shared.any_queue(config.write_queues),
    };
    let engine_refused = |error: AppendError| Reply::failure(code::SYSTEM_ERROR, format!("queue {number}: {error}"));
    let Some(queue) = topic.queue(&shared.engine, number).map_err(engine_refused)? else {
        return Err(request.invalid_parameter(format!("topic {} has no queue {number}", send.topic)));
    };
    if request.body.is_empty() {
        return Err(Reply::failure(code::MESSAGE_ILLEGAL, "the message has no body"));
    }
    let bytes_max = shared.live.message_bytes_max();
    if request.body.len() > bytes_max {
        let remark = format!("the body has {} bytes; at most {bytes_max} are taken", request.body.len());
        return Err(Reply::failure(code::MESSAGE_ILLEGAL, remark));
    }
    let writer = Writer { shared, request, send: &send, number, queue };
    if !send.is_batch {
        let mut known = Known::default();
        known.read(send.properties);
        if let Some(client_id) = known.asks(send.reconsume_times) {
            // Its first heartbeat may be still to come.
            shared.requesters.note(request.connection, client_id);
        }
        let (due, key) = match known.unique_key {
            Some(key) => {
                let due = writer.append(out, send.flag, request.body, &[send.properties], &known, &[])?;
                (due, Cow::Borrowed(key))
            }
            None => {
                let made = shared.made_keys.next();
                let ending = if known.state.lacks_separator { "\u{2}" } else { "" };
                let added = format!("{ending}UNIQ_KEY{NAME_END}{made}{VALUE_END}");
                known.state.lacks_separator = false;
                let due = writer.append(out, send.flag, request.body, &[send.properties, &added], &known, &[&made])?;
                (due, Cow::Owned(made))
            }
        };
        let letter = dead.as_ref().map(|dead| {
            Box::new(Letter {
                group: dead.group.as_str().into(),
                topic: send.topic.into(),
                origin_topic: known.retry_topic.unwrap_or_default().into(),
                unique_key: (*key).into(),
                attempts: send.reconsume_times,
            })
        });
        // A level counts before a time, and what has a level cannot be taken back.
        let timed = due.filter(|_| !known.half && known.wish.is_timed(&shared.settings.delay_levels));
        let recall = timed.map(|due| delay::recall_handle(shared, send.topic, due.time_ms, &key).into());
        return Ok(Sending { due, recall, letter, ..Sending::new(number, Some(&key)) });
    }
    if send.is_dead || send.topic.starts_with(RETRY_PREFIX) {
        return Err(Reply::failure(code::MESSAGE_ILLEGAL, "a retry topic takes no batches"));
    }
    for inner in batch::entries(request.body) {
        let illegal = |error| Reply::failure(code::MESSAGE_ILLEGAL, format!("the batch cannot be read: {error}"));
        let inner = inner.map_err(illegal)?;
        let own = &*inner.properties;
        if inner.body.is_empty() {
            return Err(Reply::failure(code::MESSAGE_ILLEGAL, "a message of the batch has no body"));
        }
        let mut known = Known::default();
        known.read(own);
        let between = if known.state.lacks_separator && !send.properties.is_empty() { "\u{2}" } else { "" };
        known.read(send.properties);
        if !known.wish.is_none() {
            return Err(Reply::failure(code::MESSAGE_ILLEGAL, "a batch is delivered at once; it takes no delays"));
        }
        writer.append(out, inner.flag, inner.body, &[own, between, send.properties], &known, &[])?;
    }
    if out.is_empty() {
        return Err(Reply::failure(code::MESSAGE_ILLEGAL, "the batch holds no message"));
    }
    Ok(Sending::new(number, None))
}

/// Consumers send what they could not send back to their retry topic themselves, and go on doing so after the last attempt.
fn dead_letter(shared: &Shared, send: &Send<'_>) -> Option<DeadLetter> {
    let group = shared.state.groups.config(send.topic.strip_prefix(RETRY_PREFIX)?);
    retry::dead_letter(send.topic, send.reconsume_times, send.reconsume_max, group)
}

fn find_topic(shared: &Shared, request: &Request<'_>, send: &Send<'_>) -> Result<std::sync::Arc<Topic>, Reply> {
    // A topic that exists has a good name, and most exist.
    let found = shared.state.topics.get(send.topic);
    if found.is_none()
        && let Some(fault) = topics::name_fault(send.topic)
    {
        return Err(request.invalid_parameter(fault));
    }
    if topics::is_forbidden(send.topic) {
        return Err(Reply::failure(code::NO_PERMISSION, format!("topic {} belongs to the broker", send.topic)));
    }
    if let Some(group) = send.topic.strip_prefix(RETRY_PREFIX)
        && shared.state.groups.config(group).is_none()
    {
        return Err(Reply::failure(code::SUBSCRIPTION_GROUP_NOT_EXIST, format!("there is no consumer group {group}")));
    }
    let topic = match found {
        Some(topic) => Some(topic),
        None => make_topic(shared, send),
    };
    let topic = topic.ok_or_else(|| {
        Reply::failure(code::TOPIC_NOT_EXIST, format!("topic {} does not exist; create it first", send.topic))
    })?;
    if shared.settings.keep_unconsumed {
        Pins::keep_own(&shared.engine, &shared.state, &topic);
    }
    if topic.config.perm & topics::PERM_WRITE == 0 || topic.config.write_queues == 0 {
        return Err(Reply::failure(code::NO_PERMISSION, format!("topic {} may not be written", send.topic)));
    }
    Ok(topic)
}

fn make_topic(shared: &Shared, send: &Send<'_>) -> Option<std::sync::Arc<Topic>> {
    let own = send.topic.starts_with(RETRY_PREFIX) || send.topic.starts_with(DEAD_LETTER_PREFIX);
    let config = if own {
        TopicConfig::open(1)
    } else {
        let template = shared.state.topics.get(send.default_topic)?;
        template.config.inherited(send.default_topic_queues)?
    };
    let topic = shared.state.get_or_make_topic(send.topic, config)?;
    offsets::add_queues(shared, &topic, 0);
    tracing::info!(topic = send.topic, queues = config.write_queues, "made a topic on demand");
    Some(topic)
}

struct Writer<'a> {
    shared: &'a Shared,
    request: &'a Request<'a>,
    send: &'a Send<'a>,
    /// The queue's number in its topic.
    number: u32,
    queue: &'a Queue,
}

impl Writer<'_> {
    /// Adds one message, with the entry that delivers it later if it wants that, or says what of it cannot be stored.
    fn append(
        &self,
        out: &mut WriteBatch,
        flag: i32,
        body: &[u8],
        properties: &[&str],
        known: &Known<'_>,
        more_keys: &[&str],
    ) -> Result<Option<DueKey>, Reply> {
        let illegal = |remark: String| Reply::failure(code::MESSAGE_ILLEGAL, remark);
        let half = self.half(known, more_keys)?;
        let later = self.later(known)?;
        if half.is_some() && later.is_some() {
            return Err(illegal("a message of a transaction takes no delay".to_owned()));
        }
        let changed = half.as_ref().map_or(0, |half| half.changed().len())
            + later.as_ref().map_or(0, |later| later.changed.len() + limits::TIMER_PROPERTY_BYTES);
        let added = known.state.added_bytes(&self.shared.settings.cluster) + changed;
        let properties_bytes = properties.iter().map(|part| part.len()).sum::<usize>() + added;
        if properties_bytes > limits::PROPERTIES_BYTES_MAX {
            return Err(illegal(format!(
                "the properties have {properties_bytes} bytes with the broker's own; at most {} are taken",
                limits::PROPERTIES_BYTES_MAX
            )));
        }
        let stored = Stored {
            sys_flag: self.send.sys_flag & !self.flags_not_kept(known),
            born_timestamp: self.send.born_timestamp,
            born_host: self.request.peer,
            body_bytes: u32::try_from(body.len()).map_err(|_| illegal("the body is too large".to_owned()))?,
            flag,
            reconsume_times: self.send.reconsume_times,
            prepared_offset: 0,
            properties: known.state,
        };
        let mut few = [&b""[..]; 8];
        let mut many = Vec::new();
        let words = known.keys.into_iter().flat_map(|keys| keys.split(' ').filter(|key| !key.is_empty()));
        let all = known.unique_key.into_iter().chain(more_keys.iter().copied()).chain(words).map(str::as_bytes);
        let mut count = 0;
        for key in all {
            if count < few.len() {
                few[count] = key;
            } else {
                if many.is_empty() {
                    many.extend_from_slice(&few);
                }
                many.push(key);
            }
            count += 1;
        }
        let mut payload = [&b""[..]; 4];
        payload[0] = body;
        for (piece, part) in payload[1..].iter_mut().zip(properties) {
            *piece = part.as_bytes();
        }
        let keys = if many.is_empty() { &few[..count] } else { &many };
        let tag = known.tags.map_or(0, tag_hash);
        let attributes = stored.encode();
        let message = Append {
            queue: self.queue,
            tag,
            keys,
            attributes: attributes.as_slice(),
            payload: &payload[..=properties.len()],
        };
        if let Some(half) = half {
            let queue = self.shared.halves.queue(&self.shared.engine);
            let queue = queue.map_err(|error| Reply::failure(code::SYSTEM_ERROR, error.to_string()))?;
            let hidden = Append { queue, keys: &[], ..message };
            let due = transactions::store(self.shared, out, &hidden, stored, &half);
            let due = due.map_err(|error: BatchError| illegal(error.to_string()))?;
            self.shared.halves.producers.sent_half(self.request.connection, half.group);
            self.shared.counters.transactions_begun.add(1);
            return Ok(Some(due));
        }
        let Some(later) = later else {
            return out.append(&message).map(|_| None).map_err(|error| illegal(error.to_string()));
        };
        let place = Place {
            topic: self.send.topic.into(),
            queue: self.number,
            tag,
            keys: Place::bounded_keys(keys.iter().copied()),
            attributes: Attributes { stored, changed: &later.changed }.encode(),
        };
        let queue = self.shared.due.hidden(&self.shared.engine);
        let queue = queue.map_err(|error| Reply::failure(code::SYSTEM_ERROR, error.to_string()))?;
        let hidden = Append { queue, keys: &[], ..message };
        let due = delay::store(self.shared, out, &hidden, &later, place);
        let due = due.map_err(|error: BatchError| illegal(error.to_string()))?;
        self.shared.counters.messages_delayed.add(1);
        Ok(Some(due))
    }

    /// When it is to be delivered, if not at once.
    fn later(&self, known: &Known<'_>) -> Result<Option<Later>, Reply> {
        if known.wish.is_none() || self.send.is_dead {
            return Ok(None);
        }
        let now_ms = self.shared.engine.clock().wall_ms();
        let later = known.wish.later(&self.shared.settings.delay_levels, self.send.topic, self.number, now_ms);
        later.map_err(|remark| Reply::failure(code::MESSAGE_ILLEGAL, remark))
    }

    /// What it is half of, if it is. A copy that a consumer sends to try a message again is none, whatever its properties still say.
    fn half<'k>(&'k self, known: &Known<'k>, more_keys: &[&'k str]) -> Result<Option<Wanted<'k>>, Reply> {
        let illegal = |remark: &'static str| Reply::failure(code::MESSAGE_ILLEGAL, remark);
        if !known.half {
            let flags = self.send.sys_flag & sys_flag::TRANSACTION_MASK;
            if matches!(flags, sys_flag::TRANSACTION_PREPARED | sys_flag::TRANSACTION_ROLLBACK) {
                return Err(illegal("its flags say that it is half of a transaction, and its properties do not"));
            }
            return Ok(None);
        }
        if self.is_copy(known) {
            return Ok(None);
        }
        if self.send.is_batch {
            return Err(illegal("a batch cannot be half of a transaction"));
        }
        let group = known.group.unwrap_or(self.send.group);
        if group.is_empty() || group.len() > limits::GROUP_BYTES_MAX || group.contains('\0') {
            return Err(illegal("half of a transaction needs a producer group that can be asked"));
        }
        let timeout = known.immunity.and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
        let timeout = timeout.unwrap_or(self.shared.live.transaction_timeout());
        let now_ms = self.shared.engine.clock().wall_ms();
        Ok(Some(Wanted {
            group,
            topic: self.send.topic,
            queue: self.number,
            unique_key: known.unique_key.or(more_keys.first().copied()).unwrap_or_default(),
            ask_ms: now_ms.saturating_add(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
        }))
    }

    fn is_copy(&self, known: &Known<'_>) -> bool {
        let level = known.wish.level.and_then(|level| level.trim().parse::<i64>().ok()).unwrap_or(0);
        self.send.reconsume_times > 0 && level > 0
    }

    /// Bits that the broker sets itself, or that do not hold for what is stored.
    fn flags_not_kept(&self, known: &Known<'_>) -> i32 {
        let hosts = sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6;
        if known.half { hosts | sys_flag::TRANSACTION_MASK } else { hosts }
    }
}
