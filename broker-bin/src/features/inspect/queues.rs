//! 202, 315, 321: what queues hold.

use std::sync::Arc;

use anchorlog_engine::{Fetch, Queue, QueueOffset, ReadError};
use bytes::BytesMut;

use crate::features::pull::encode_message;
use crate::features::topics::Topic;
use crate::features::{Outcome, Reply, Request, Task, code};
use crate::limits;
use crate::shared::Shared;
use crate::wire::admin::{QueueData, QueueStats, Series, put_queue_entries, put_series, put_topic_stats};
use crate::wire::object::QueueKey;

const MINUTE_MS: u64 = 60_000;

/// 202: the offsets of a topic's queues, and when something came last.
pub fn topic_stats(shared: &Shared, request: &Request<'_>) -> Outcome {
    let topic = match known_topic(shared, request) {
        Ok(topic) => topic,
        Err(reply) => return reply.into(),
    };
    Outcome::Read(Task::new(move |shared, _| {
        let stats = |(number, queue): (u32, Queue)| {
            let range = shared.engine.range(&queue);
            let last = range.max.0.checked_sub(1).map(QueueOffset);
            let last_ms = last.map(|last| shared.engine.store_time(&queue, last)).transpose()?.flatten().unwrap_or(0);
            let key = QueueKey { broker: &shared.settings.broker, topic: &topic.name, number };
            Ok((key, QueueStats { min: range.min.0, max: range.max.0, last_ms }))
        };
        let rows: Result<Vec<_>, ReadError> = queues(shared, &topic).into_iter().map(stats).collect();
        let put = rows.and_then(|rows| Ok((rows, arrived(shared, &topic, MINUTE_MS)?)));
        match put {
            Ok((rows, arrived)) => {
                let mut body = BytesMut::new();
                put_topic_stats(&mut body, &rows, arrived.per_second);
                Reply::body(body).into()
            }
            Err(error) => unreadable(&error).into(),
        }
    }))
}

/// 315: how many messages came to a topic. Other series are not kept.
pub fn statistics(shared: &Shared, request: &Request<'_>) -> Outcome {
    let (name, key) = match (request.required("statsName"), request.required("statsKey")) {
        (Ok(name), Ok(key)) => (name, key),
        (Err(error), _) | (_, Err(error)) => return Reply::from(error).into(),
    };
    if name != "TOPIC_PUT_NUMS" {
        let remark =
            format!("{name} is not kept: TOPIC_PUT_NUMS is, and 208 (consumerProgress) says how far groups are");
        return Reply::failure(code::REQUEST_CODE_NOT_SUPPORTED, remark).into();
    }
    let Some(topic) = shared.state.topics.get(key) else {
        return Reply::failure(
            code::SYSTEM_ERROR,
            format!("there is no series {name} of {key}: the topic does not exist"),
        )
        .into();
    };
    Outcome::Read(Task::new(move |shared, _| {
        let series = |time_ms| arrived(shared, &topic, time_ms);
        let all = series(24 * 60 * MINUTE_MS).and_then(|day| Ok((day, series(60 * MINUTE_MS)?, series(MINUTE_MS)?)));
        match all {
            Ok((day, hour, minute)) => {
                let mut body = BytesMut::new();
                put_series(&mut body, day, hour, minute);
                Reply::body(body).into()
            }
            Err(error) => unreadable(&error).into(),
        }
    }))
}

/// 321: entries of a queue, from an index on.
pub fn entries(shared: &Shared, request: &Request<'_>) -> Outcome {
    match asked_entries(shared, request) {
        Ok((queue, from, count)) => Outcome::Read(Task::new(move |shared, _| {
            read_entries(shared, &queue, from, count).unwrap_or_else(|reply| reply).into()
        })),
        Err(reply) => reply.into(),
    }
}

fn asked_entries(shared: &Shared, request: &Request<'_>) -> Result<(Queue, QueueOffset, usize), Reply> {
    let topic = known_topic(shared, request)?;
    let number = request.required_number::<u32>("queueId")?;
    let from = request.number::<i64>("index")?.unwrap_or(0);
    let count = request.number::<i64>("count")?.and_then(|count| usize::try_from(count).ok()).unwrap_or(10);
    let refused = |error| Reply::failure(code::SYSTEM_ERROR, format!("queue {number}: {error}"));
    let queue = topic.queue(&shared.engine, number).map_err(refused)?.cloned();
    let none = || request.invalid_parameter(format!("topic {} has no queue {number}", topic.name));
    Ok((queue.ok_or_else(none)?, QueueOffset(u64::try_from(from).unwrap_or(0)), count.clamp(1, limits::ENTRIES_MAX)))
}

fn read_entries(shared: &Shared, queue: &Queue, from: QueueOffset, count: usize) -> Result<Reply, Reply> {
    let range = shared.engine.range(queue);
    let (mut next, mut found, mut record) = (from.max(range.min), Vec::new(), BytesMut::new());
    while found.len() < count && next < range.max {
        let fetch = Fetch { messages_max: count - found.len(), ..Fetch::new(queue, next) };
        let outcome = shared.engine.fetch(&fetch).map_err(|error| unreadable(&error))?;
        if outcome.next <= next {
            break;
        }
        next = outcome.next;
        for message in &outcome.messages {
            record.clear();
            let shown = encode_message(&mut record, message, &shared.settings);
            let bytes = if shown { u32::try_from(record.len()).unwrap_or(u32::MAX) } else { 0 };
            found.push(QueueData { physical_offset: message.lsn.0, bytes, tag_hash: message.tag.cast_signed() });
        }
    }
    let mut body = BytesMut::new();
    put_queue_entries(&mut body, range.min.0, range.max.0, &found);
    Ok(Reply::body(body))
}

fn known_topic(shared: &Shared, request: &Request<'_>) -> Result<Arc<Topic>, Reply> {
    let name = request.required("topic")?;
    let missing = || Reply::failure(code::TOPIC_NOT_EXIST, format!("topic {name} does not exist"));
    shared.state.topics.get(name).ok_or_else(missing)
}

fn queues(shared: &Shared, topic: &Topic) -> Vec<(u32, Queue)> {
    let queue = |number| Some((number, topic.queue(&shared.engine, number).ok()??.clone()));
    (0..topic.config.queues()).filter_map(queue).collect()
}

/// What came to a topic within this time before now, as far as it is still there.
fn arrived(shared: &Shared, topic: &Topic, time_ms: u64) -> Result<Series, ReadError> {
    let since_ms = shared.engine.clock().wall_ms().saturating_sub(time_ms);
    let mut sum = 0;
    for (_, queue) in queues(shared, topic) {
        let first = shared.engine.offset_by_time(&queue, since_ms)?;
        sum += shared.engine.range(&queue).max.0.saturating_sub(first.0);
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let per_second = sum as f64 / (time_ms / 1000) as f64;
    Ok(Series { sum, per_second })
}

fn unreadable(error: &ReadError) -> Reply {
    Reply::failure(code::SYSTEM_ERROR, error.to_string())
}
