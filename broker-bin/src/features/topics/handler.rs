//! 17: makes or changes a topic.

use super::{PERM_INHERIT, PERM_READ, PERM_WRITE, TopicConfig, is_forbidden, name_fault};
use crate::features::{Kept, Outcome, Reply, Request, code, offsets};
use crate::limits;
use crate::shared::Shared;

/// 17: makes or changes a topic; answered when that is durable.
pub fn create(shared: &Shared, request: &Request<'_>) -> Outcome {
    match try_create(shared, request) {
        Ok(()) => Outcome::Recorded(Reply::default(), Kept::Names),
        Err(reply) => reply.into(),
    }
}

fn try_create(shared: &Shared, request: &Request<'_>) -> Result<(), Reply> {
    if let Err(reason) = shared.admission() {
        return Err(Reply::failure(code::SERVICE_NOT_AVAILABLE, reason));
    }
    let name = request.required("topic")?;
    if let Some(fault) = name_fault(name) {
        return Err(request.invalid_parameter(fault));
    }
    if is_forbidden(name) {
        return Err(request.invalid_parameter(format!("topic {name} belongs to the broker")));
    }
    let read_queues = request.required_number("readQueueNums")?;
    let write_queues = request.required_number("writeQueueNums")?;
    let queues_ok = |count: u32| (1..=limits::TOPIC_QUEUES_MAX).contains(&count);
    if !queues_ok(read_queues) || !queues_ok(write_queues) {
        let remark = format!("a topic has 1 to {} queues", limits::TOPIC_QUEUES_MAX);
        return Err(request.invalid_parameter(remark));
    }
    let perm = request.required_number::<u8>("perm")? & (PERM_READ | PERM_WRITE | PERM_INHERIT);
    if shared.state.topics.get(name).is_none() && shared.state.topics.count() >= limits::TOPIC_COUNT_MAX {
        return Err(request.invalid_parameter(format!("there are {} topics already", limits::TOPIC_COUNT_MAX)));
    }
    let sys_flag = request.number("topicSysFlag")?.unwrap_or(0);
    let config = TopicConfig { read_queues, write_queues, perm, sys_flag, ordered: request.switch("order") };
    let before = shared.state.topics.get(name).map_or(0, |topic| topic.config.read_queues);
    shared.state.put_topic(name, config);
    if let Some(topic) = shared.state.topics.get(name) {
        offsets::add_queues(shared, &topic, before);
    }
    Ok(())
}
