//! 10, 310, 320, 324, 325: checks a send, and fills the batch that it becomes.

use std::sync::Arc;

use anchorlog_engine::{AppendError, WriteBatch};

use super::doubt::Doubt;
use super::writer::{Send, Source, Writer};
use crate::features::offsets::{self, Pins};
use crate::features::repeats::{Claim, Seen};
use crate::features::reply::Push;
use crate::features::retry::{self, DeadLetter, Letter};
use crate::features::topics::{self, DEAD_LETTER_PREFIX, RETRY_PREFIX, Topic, TopicConfig};
use crate::features::{FieldError, Outcome, Reply, Request, code};
use crate::shared::Shared;

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
    let outcome = Push::of(shared, request).and_then(|push| {
        let mut outcome = try_send(shared, request, out)?;
        if let Outcome::Append(sending) = &mut outcome {
            sending.push = push.map(Box::new);
        }
        Ok(outcome)
    });
    match outcome {
        Ok(outcome) => outcome,
        Err(reply) => {
            out.clear();
            refused(shared, reply)
        }
    }
}

/// The answer to a send that is not stored.
pub(super) fn refused(shared: &Shared, reply: Reply) -> Outcome {
    shared.counters.sends_refused.add(1);
    // Clients of some families read these two on failures also.
    Outcome::Reply(reply.with("MSG_REGION", "DefaultRegion").with("TRACE_ON", true))
}

fn try_send(shared: &Shared, request: &Request<'_>, out: &mut WriteBatch) -> Result<Outcome, Reply> {
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
    if send.is_batch && (send.is_dead || send.topic.starts_with(RETRY_PREFIX)) {
        return Err(Reply::failure(code::MESSAGE_ILLEGAL, "a retry topic takes no batches"));
    }
    let source = Source { peer: request.peer, connection: request.connection };
    let writer = Writer { shared, source, send: &send, number, queue };
    let mut filled = writer.fill(out, request.body, &|_| false)?;
    filled.sending.letter = dead.as_ref().map(|dead| {
        Box::new(Letter {
            group: dead.group.as_str().into(),
            topic: send.topic.into(),
            origin_topic: filled.retry_topic.unwrap_or_default().into(),
            unique_key: (*filled.unique_key).into(),
            attempts: send.reconsume_times,
        })
    });
    let now_ms = shared.engine.clock().wall_ms();
    match shared.repeats.claim(&filled.sending.claims, &Seen::new(), now_ms, &shared.counters) {
        Claim::Mine => Ok(Outcome::Append(filled.sending)),
        Claim::Doubtful { candidates } => {
            out.clear();
            let doubt = Doubt::new(&writer, Arc::clone(&topic), request.body, filled.sending, candidates);
            Ok(doubt.go_on(shared))
        }
    }
}

/// Consumers send what they could not send back to their retry topic themselves, and go on doing so after the last attempt.
fn dead_letter(shared: &Shared, send: &Send<'_>) -> Option<DeadLetter> {
    let group = shared.state.groups.config(send.topic.strip_prefix(RETRY_PREFIX)?);
    retry::dead_letter(send.topic, send.reconsume_times, send.reconsume_max, group)
}

fn find_topic(shared: &Shared, request: &Request<'_>, send: &Send<'_>) -> Result<Arc<Topic>, Reply> {
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

fn make_topic(shared: &Shared, send: &Send<'_>) -> Option<Arc<Topic>> {
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
