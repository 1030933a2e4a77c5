//! 222 and 314.

use std::sync::Arc;

use anchorlog_engine::{Queue, ReadError};
use bytes::BytesMut;

use crate::features::offsets::{Commit, OffsetKey};
use crate::features::topics::Topic;
use crate::features::{Kept, Outcome, Reply, Request, Task, code};
use crate::shared::Shared;
use crate::wire::admin::put_offset_table;
use crate::wire::object::QueueKey;

/// 222: sends a group to where a topic was at a time, to its end, or to an offset.
pub fn reset(shared: &Shared, request: &Request<'_>) -> Outcome {
    match Reset::read(shared, request) {
        // Looking for a time may read from the disk.
        Ok(reset) => Outcome::Read(Task::new(move |shared, _| reset.run(shared).unwrap_or_else(Outcome::Reply))),
        Err(reply) => reply.into(),
    }
}

/// Where to.
#[derive(Clone, Copy, Debug)]
enum Target {
    End,
    Time(u64),
    Offset(u64),
}

struct Reset {
    group: Box<str>,
    topic: Arc<Topic>,
    /// One of them, or all.
    number: Option<u32>,
    target: Target,
    /// Forward too; otherwise only back.
    forward: bool,
    asker: std::net::SocketAddr,
}

impl Reset {
    fn read(shared: &Shared, request: &Request<'_>) -> Result<Reset, Reply> {
        if let Err(reason) = shared.admission() {
            return Err(Reply::failure(code::SERVICE_NOT_AVAILABLE, reason));
        }
        let group = request.required("group")?;
        let name = request.required("topic")?;
        let timestamp = request.required_number::<i64>("timestamp")?;
        let number = request.number::<i64>("queueId")?.and_then(|number| u32::try_from(number).ok());
        let offset = request.number::<i64>("offset")?.and_then(|offset| u64::try_from(offset).ok());
        let topic = shared.state.topics.get(name);
        let topic =
            topic.ok_or_else(|| Reply::failure(code::TOPIC_NOT_EXIST, format!("topic {name} does not exist")))?;
        if shared.state.groups.config(group).is_none() {
            let remark = format!("there is no consumer group {group}");
            return Err(Reply::failure(code::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
        }
        if let Some(number) = number.filter(|number| *number >= topic.config.queues()) {
            return Err(request.invalid_parameter(format!("topic {name} has no queue {number}")));
        }
        Ok(Reset {
            group: group.into(),
            topic,
            number,
            target: match (offset, u64::try_from(timestamp)) {
                (Some(offset), _) if number.is_some() => Target::Offset(offset),
                (_, Ok(time)) => Target::Time(time),
                (_, Err(_)) => Target::End,
            },
            forward: request.field("isForce").is_none() || request.switch("isForce"),
            asker: request.peer,
        })
    }

    fn run(&self, shared: &Shared) -> Result<Outcome, Reply> {
        let numbers = match self.number {
            Some(number) => number..number + 1,
            None => 0..self.topic.config.queues(),
        };
        let mut found = Vec::new();
        for number in numbers {
            let refused =
                |what: String| Reply::failure(code::SYSTEM_ERROR, format!("queue {number}: {what}; nothing was reset"));
            let queue = self.topic.queue(&shared.engine, number).map_err(|error| refused(error.to_string()))?;
            let Some(queue) = queue else { continue };
            let offset = self.offset(shared, queue).map_err(|error| refused(error.to_string()))?;
            let key = OffsetKey { group: self.group.clone(), topic: self.topic.name.clone(), queue: number };
            let before = shared.state.offsets.get(&key);
            let offset = before.filter(|before| !self.forward && *before <= offset).unwrap_or(offset);
            found.push((key, before, offset));
        }
        let online = shared.clients.is_consuming(&self.group);
        for (key, before, offset) in &found {
            // Before it shows: a commit on its way must not come behind it. Also where nothing changes: a consumer is ahead of what is
            // committed.
            if online {
                shared.resets.put(key.clone(), *offset);
            }
            if shared.state.commit_offset(key, *offset, true) == Commit::Full {
                return Err(Reply::failure(code::SYSTEM_ERROR, "too many offsets are remembered already"));
            }
            tracing::info!(
                group = &*key.group, topic = &*key.topic, queue = key.queue, from = before.map_or(-1, u64::cast_signed),
                to = offset, target = ?self.target, asker = %self.asker, online, "an operator moved a group's offset"
            );
        }
        shared.resets.announce();
        let broker = &shared.settings.broker;
        let rows: Vec<_> = found
            .iter()
            .map(|(key, _, offset)| (QueueKey { broker, topic: &key.topic, number: key.queue }, *offset))
            .collect();
        let mut body = BytesMut::new();
        put_offset_table(&mut body, &rows);
        Ok(Outcome::Recorded(Reply::body(body), Kept::Offsets))
    }

    fn offset(&self, shared: &Shared, queue: &Queue) -> Result<u64, ReadError> {
        let range = shared.engine.range(queue);
        let offset = match self.target {
            Target::End => range.max.0,
            Target::Time(time) => shared.engine.offset_by_time(queue, time)?.0,
            Target::Offset(offset) => offset,
        };
        Ok(offset.clamp(range.min.0, range.max.0))
    }
}

/// 314: gives a group what another one has committed.
pub fn clone_offsets(shared: &Shared, request: &Request<'_>) -> Outcome {
    match try_clone(shared, request) {
        Ok(()) => Outcome::Recorded(Reply::default(), Kept::Offsets),
        Err(reply) => reply.into(),
    }
}

fn try_clone(shared: &Shared, request: &Request<'_>) -> Result<(), Reply> {
    if let Err(reason) = shared.admission() {
        return Err(Reply::failure(code::SERVICE_NOT_AVAILABLE, reason));
    }
    let (from, to) = (request.required("srcGroup")?, request.required("destGroup")?);
    let topic = request.field("topic").filter(|topic| !topic.is_empty());
    if shared.state.groups.config(to).is_none() {
        return Err(Reply::failure(code::SUBSCRIPTION_GROUP_NOT_EXIST, format!("there is no consumer group {to}")));
    }
    if shared.clients.is_consuming(to) {
        let remark = format!("group {to} is consuming: its members would go on from where they are; stop them first");
        return Err(Reply::failure(code::SYSTEM_ERROR, remark));
    }
    let own_topics = |topic: &str| topic.starts_with(crate::features::topics::RETRY_PREFIX);
    let keys = shared
        .state
        .offsets
        .keys(|key| *key.group == *from && !own_topics(&key.topic) && topic.is_none_or(|topic| *key.topic == *topic));
    for key in keys {
        let Some(offset) = shared.state.offsets.get(&key) else { continue };
        let key = OffsetKey { group: to.into(), ..key };
        if shared.state.commit_offset(&key, offset, true) == Commit::Full {
            return Err(Reply::failure(code::SYSTEM_ERROR, "too many offsets are remembered already"));
        }
    }
    Ok(())
}
