//! 17, 18, 21, 215, 216, 351: topics as operators see and set them.

use anchorlog_engine::{AppendError, WriteBatch};
use bytes::BytesMut;

use super::shrink::stands_against;
use super::{PERM_INHERIT, PERM_READ, PERM_WRITE, TEMPLATE, TopicConfig, is_forbidden, name_fault};
use crate::features::{Kept, Outcome, Reply, Request, Task, code, offsets};
use crate::limits;
use crate::shared::Shared;
use crate::wire::admin::{DataVersion, TopicSettings, WantedTopic, put_topic_table};

/// An attribute that only the gRPC proxy looks at, and what stands in it.
const MESSAGE_TYPE: &str = "message.type";

/// 17: makes or changes a topic; answered when that is durable.
pub fn create(shared: &Shared, request: &Request<'_>) -> Outcome {
    match wanted(request).and_then(|wanted| put(shared, request, &[wanted])) {
        Ok(()) => Outcome::Recorded(Reply::default(), Kept::Names),
        Err(reply) => reply.into(),
    }
}

/// 18: the same for several, all of them or none.
pub fn create_list(shared: &Shared, request: &Request<'_>) -> Outcome {
    let unreadable = |error| Reply::failure(code::SYSTEM_ERROR, format!("the request's {error}"));
    match WantedTopic::decode_list(request.body).map_err(unreadable).and_then(|list| put(shared, request, &list)) {
        Ok(()) => Outcome::Recorded(Reply::default(), Kept::Names),
        Err(reply) => reply.into(),
    }
}

fn wanted(request: &Request<'_>) -> Result<WantedTopic, Reply> {
    let attributes = request.field("attributes").unwrap_or_default().split(',').map(str::trim);
    Ok(WantedTopic {
        name: request.required("topic")?.to_owned(),
        read_queues: request.required_number("readQueueNums")?,
        write_queues: request.required_number("writeQueueNums")?,
        perm: request.required_number("perm")?,
        sys_flag: request.number("topicSysFlag")?.unwrap_or(0),
        ordered: request.switch("order"),
        attributes: attributes.filter(|text| !text.is_empty()).map(str::to_owned).collect(),
    })
}

fn put(shared: &Shared, request: &Request<'_>, wanted: &[WantedTopic]) -> Result<(), Reply> {
    if let Err(reason) = shared.admission() {
        return Err(Reply::failure(code::SERVICE_NOT_AVAILABLE, reason));
    }
    let topics = &shared.state.topics;
    let new = wanted.iter().filter(|wanted| topics.get(&wanted.name).is_none()).count();
    if topics.count() + new > limits::TOPIC_COUNT_MAX {
        return Err(request.invalid_parameter(format!("a broker has at most {} topics", limits::TOPIC_COUNT_MAX)));
    }
    let configs: Vec<_> = wanted.iter().map(|wanted| config(shared, request, wanted)).collect::<Result<_, _>>()?;
    for (wanted, config) in wanted.iter().zip(configs) {
        let before = shared.state.topics.get(&wanted.name).map_or(0, |topic| topic.config.read_queues);
        shared.state.put_topic(&wanted.name, config);
        if let Some(topic) = shared.state.topics.get(&wanted.name) {
            offsets::add_queues(shared, &topic, before);
        }
    }
    Ok(())
}

fn config(shared: &Shared, request: &Request<'_>, wanted: &WantedTopic) -> Result<TopicConfig, Reply> {
    let name = &wanted.name;
    if let Some(fault) = name_fault(name) {
        return Err(request.invalid_parameter(fault));
    }
    if is_forbidden(name) {
        return Err(request.invalid_parameter(format!("topic {name} belongs to the broker")));
    }
    let queues_ok = |count: u32| (1..=limits::TOPIC_QUEUES_MAX).contains(&count);
    if !queues_ok(wanted.read_queues) || !queues_ok(wanted.write_queues) {
        let remark = format!("a topic has 1 to {} queues", limits::TOPIC_QUEUES_MAX);
        return Err(request.invalid_parameter(remark));
    }
    for attribute in &wanted.attributes {
        let attribute = attribute.trim_start_matches(['+', '-']);
        if attribute.split('=').next() != Some(MESSAGE_TYPE) {
            let remark =
                format!("the attribute {attribute} is not offered; a topic takes messages of every kind as it is");
            return Err(Reply::failure(code::REQUEST_CODE_NOT_SUPPORTED, remark));
        }
    }
    let config = TopicConfig {
        read_queues: wanted.read_queues,
        write_queues: wanted.write_queues,
        perm: wanted.perm & (PERM_READ | PERM_WRITE | PERM_INHERIT),
        sys_flag: wanted.sys_flag,
        ordered: wanted.ordered,
    };
    let found = shared.state.topics.get(name);
    match stands_against(shared, found.as_deref(), &config) {
        Some(reason) => Err(request.invalid_parameter(reason)),
        None => Ok(config),
    }
}

/// 351: a topic's settings.
pub fn settings(shared: &Shared, request: &Request<'_>) -> Outcome {
    let name = match request.required("topic") {
        Ok(name) => name,
        Err(error) => return Reply::from(error).into(),
    };
    let Some(topic) = shared.state.topics.get(name) else {
        return Reply::failure(code::TOPIC_NOT_EXIST, format!("topic {name} does not exist")).into();
    };
    let mut body = BytesMut::new();
    shown(name, &topic.config).encode(&mut body);
    Reply::body(body).into()
}

/// 21: every topic's settings.
pub fn all_settings(shared: &Shared) -> Outcome {
    let topics: Vec<_> = shared.state.topics.names().iter().filter_map(|name| shared.state.topics.get(name)).collect();
    let version = DataVersion { counter: 0, time_ms: shared.engine.clock().wall_ms() };
    let mut body = BytesMut::new();
    put_topic_table(&mut body, version, topics.iter().map(|topic| shown(&topic.name, &topic.config)));
    Reply::body(body).into()
}

fn shown<'a>(name: &'a str, config: &TopicConfig) -> TopicSettings<'a> {
    TopicSettings {
        name,
        read_queues: config.read_queues,
        write_queues: config.write_queues,
        perm: config.perm,
        sys_flag: config.sys_flag,
        ordered: config.ordered,
    }
}

/// 215: deletes a topic, its messages, and what groups have committed of it. One of that name that is made later begins anew (K-77).
pub fn delete(shared: &Shared, request: &Request<'_>) -> Outcome {
    let name = match request.required("topic") {
        Ok(name) => name,
        Err(error) => return Reply::from(error).into(),
    };
    if let Err(reason) = shared.admission() {
        return Reply::failure(code::SERVICE_NOT_AVAILABLE, reason).into();
    }
    if name.trim().is_empty() || is_forbidden(name) || name == TEMPLATE {
        return request.invalid_parameter(format!("topic {name:?} belongs to the broker")).into();
    }
    let name: Box<str> = name.into();
    // It may wait for room in the log.
    Outcome::Read(Task::new(move |shared, _| drop_topic(shared, &name)))
}

fn drop_topic(shared: &Shared, name: &str) -> Outcome {
    let Some(topic) = shared.state.topics.get(name) else {
        // Nothing is left to be done: tools delete the topics of a group whether or not they are there.
        return Outcome::Recorded(Reply::default(), Kept::Names);
    };
    let (mut batch, mut messages) = (WriteBatch::new(), 0);
    let mut outcome = Ok(());
    for number in 0..topic.config.queues() {
        let dropped = topic.queue(&shared.engine, number).and_then(|queue| {
            let Some(queue) = queue else { return Ok(()) };
            let range = shared.engine.range(queue);
            messages += range.max.0 - range.min.0;
            batch.drop_queue(queue)?;
            if batch.frame_bytes() < limits::STATE_BATCH_BYTES {
                return Ok(());
            }
            shared.engine.append(std::mem::take(&mut batch)).map(drop)
        });
        if let Err(error) = dropped {
            outcome = Err(error);
            break;
        }
    }
    let outcome = outcome.and_then(|()| if batch.is_empty() { Ok(()) } else { shared.engine.append(batch).map(drop) });
    match outcome {
        Ok(()) => {
            let offsets = shared.state.remove_topic(&shared.engine, &topic);
            tracing::info!(topic = name, queues = topic.config.queues(), messages, offsets, "deleted a topic");
            Outcome::Recorded(Reply::default(), Kept::Names)
        }
        Err(error) => {
            // Some queues may be gone: the others go when it is asked for again.
            shared.state.topics.renew(name);
            Reply::failure(
                delete_code(&error),
                format!("topic {name} was not deleted as a whole: {error}; delete it again"),
            )
            .into()
        }
    }
}

fn delete_code(error: &AppendError) -> i32 {
    match error {
        AppendError::Dropped => code::SYSTEM_BUSY,
        _ => code::SERVICE_NOT_AVAILABLE,
    }
}

/// 216: a route goes with its topic.
pub fn delete_route(shared: &Shared, request: &Request<'_>) -> Outcome {
    match request.required("topic") {
        Ok(name) if shared.state.topics.get(name).is_none() => Reply::default().into(),
        Ok(name) => {
            let remark =
                format!("topic {name} exists, and so does its route; delete the topic (215, mqadmin deleteTopic)");
            Reply::failure(code::REQUEST_CODE_NOT_SUPPORTED, remark).into()
        }
        Err(error) => Reply::from(error).into(),
    }
}
