//! 43, 208, 300, 303, 317, 343: how far groups are.

use std::collections::{BTreeMap, BTreeSet};

use anchorlog_engine::{Queue, QueueOffset, ReadError};
use bytes::BytesMut;

use crate::features::offsets::OffsetKey;
use crate::features::topics::Topic;
use crate::features::{Outcome, Reply, Request, Task, code};
use crate::shared::Shared;
use crate::wire::admin::{
    DataVersion, Progress, Rows, TimeSpan, put_all_offsets, put_broker_consume_stats, put_consume_stats,
    put_time_spans, put_topics_of_broker,
};
use crate::wire::body::put_group_list;
use crate::wire::object::QueueKey;

/// 208: how far a group is in each queue of its topics, or of those that are named.
pub fn consume_stats(request: &Request<'_>) -> Outcome {
    let group: Box<str> = match request.required("consumerGroup") {
        Ok(group) => group.into(),
        Err(error) => return Reply::from(error).into(),
    };
    let named =
        [request.field("topic"), request.field("topicList")].into_iter().flatten().flat_map(|list| list.split(';'));
    let named: BTreeSet<Box<str>> = named.map(str::trim).filter(|name| !name.is_empty()).map(Box::from).collect();
    Outcome::Read(Task::new(move |shared, _| {
        let topics = if named.is_empty() { topics(shared, &group) } else { named };
        answered(rows(shared, &group, &topics).map(|rows| {
            let mut body = BytesMut::new();
            put_consume_stats(&mut body, per_second(shared, &group, &rows), &keyed(shared, &rows));
            body
        }))
    }))
}

/// 317: the same for all groups.
pub fn broker_consume_stats() -> Outcome {
    Outcome::Read(Task::new(move |shared, _| {
        let mut found = Vec::new();
        for (group, topics) in committed(shared) {
            let mut by_topic = Vec::new();
            for topic in topics {
                match rows(shared, &group, &[topic].into()) {
                    Ok(rows) => by_topic.push((per_second(shared, &group, &rows), rows)),
                    Err(error) => return unreadable(&error).into(),
                }
            }
            found.push((group, by_topic));
        }
        let groups: Vec<_> = found
            .iter()
            .map(|(group, topics)| (&**group, topics.iter().map(|(rate, rows)| (*rate, keyed(shared, rows))).collect()))
            .collect();
        let mut body = BytesMut::new();
        put_broker_consume_stats(&mut body, &shared.settings.advertise.to_string(), &groups);
        Reply::body(body).into()
    }))
}

/// 300: which groups consume a topic, or have.
pub fn consumed_by(shared: &Shared, request: &Request<'_>) -> Outcome {
    let topic = match request.required("topic") {
        Ok(topic) => topic,
        Err(error) => return Reply::from(error).into(),
    };
    let mut groups = shared.clients.groups_of(topic);
    shared.state.offsets.for_each(|key, _| {
        if *key.topic == *topic && !groups.contains(&key.group) {
            groups.insert(key.group.clone());
        }
    });
    let groups: Vec<_> = groups.into_iter().collect();
    let mut body = BytesMut::new();
    put_group_list(&mut body, &groups);
    Reply::body(body).into()
}

/// 343: which topics a group consumes, or has.
pub fn topics_of_group(shared: &Shared, request: &Request<'_>) -> Outcome {
    let group = match request.required("group") {
        Ok(group) => group,
        Err(error) => return Reply::from(error).into(),
    };
    let topics: Vec<_> = topics(shared, group).into_iter().collect();
    let mut body = BytesMut::new();
    put_topics_of_broker(&mut body, &shared.settings.advertise.to_string(), &topics);
    Reply::body(body).into()
}

/// 303: how far behind a group is in time.
pub fn time_span(request: &Request<'_>) -> Outcome {
    let (topic, group): (Box<str>, Box<str>) = match (request.required("topic"), request.required("group")) {
        (Ok(topic), Ok(group)) => (topic.into(), group.into()),
        (Err(error), _) | (_, Err(error)) => return Reply::from(error).into(),
    };
    Outcome::Read(Task::new(move |shared, _| {
        let Some(topic) = shared.state.topics.get(&topic) else {
            return Reply::failure(code::TOPIC_NOT_EXIST, format!("topic {topic} does not exist")).into();
        };
        let mut spans = Vec::new();
        for (number, queue) in queues(shared, &topic) {
            match span(shared, &group, &topic, number, &queue) {
                Ok(span) => spans.push((key(shared, &topic.name, number), span)),
                Err(error) => return unreadable(&error).into(),
            }
        }
        let mut body = BytesMut::new();
        put_time_spans(&mut body, &spans);
        Reply::body(body).into()
    }))
}

/// 43: every group's offsets.
pub fn all_offsets(shared: &Shared) -> Outcome {
    let mut all = Vec::new();
    shared.state.offsets.for_each(|key, offset| all.push((key.clone(), offset)));
    all.sort_by(|(one, _), (other, _)| {
        (&one.topic, &one.group, one.queue).cmp(&(&other.topic, &other.group, other.queue))
    });
    let rows: Vec<_> = all.iter().map(|(key, offset)| (&*key.topic, &*key.group, key.queue, *offset)).collect();
    let version = DataVersion { counter: 0, time_ms: shared.engine.clock().wall_ms() };
    let mut body = BytesMut::new();
    put_all_offsets(&mut body, version, &rows);
    Reply::body(body).into()
}

/// A group's place in a queue.
struct Row {
    topic: Box<str>,
    number: u32,
    progress: Progress,
}

fn keyed<'a>(shared: &'a Shared, rows: &'a [Row]) -> Rows<'a> {
    rows.iter().map(|row| (key(shared, &row.topic, row.number), row.progress)).collect()
}

fn key<'a>(shared: &'a Shared, topic: &'a str, number: u32) -> QueueKey<'a> {
    QueueKey { broker: &shared.settings.broker, topic, number }
}

/// The topics that a group has committed offsets of, or subscribes now.
fn topics(shared: &Shared, group: &str) -> BTreeSet<Box<str>> {
    let mut topics = shared.clients.topics_of(group);
    shared.state.offsets.for_each(|key, _| {
        if *key.group == *group && !topics.contains(&key.topic) {
            topics.insert(key.topic.clone());
        }
    });
    topics
}

/// Every group that has committed anything, with its topics.
fn committed(shared: &Shared) -> BTreeMap<Box<str>, BTreeSet<Box<str>>> {
    let mut groups: BTreeMap<Box<str>, BTreeSet<Box<str>>> = BTreeMap::new();
    shared.state.offsets.for_each(|key, _| {
        groups.entry(key.group.clone()).or_default().insert(key.topic.clone());
    });
    groups
}

/// The queues of a topic that consumers see.
fn queues(shared: &Shared, topic: &Topic) -> Vec<(u32, Queue)> {
    let queue = |number| Some((number, topic.queue(&shared.engine, number).ok()??.clone()));
    (0..topic.config.read_queues).filter_map(queue).collect()
}

/// Where a group is in these topics. A queue of which it has committed nothing counts from its beginning, as tools expect it.
fn rows(shared: &Shared, group: &str, topics: &BTreeSet<Box<str>>) -> Result<Vec<Row>, ReadError> {
    let subscribed = shared.clients.topics_of(group);
    let mut rows = Vec::new();
    for topic in topics.iter().filter_map(|name| shared.state.topics.get(name)) {
        for (number, queue) in queues(shared, &topic) {
            let offset = OffsetKey { group: group.into(), topic: topic.name.clone(), queue: number };
            let committed = shared.state.offsets.get(&offset);
            if committed.is_none() && !subscribed.contains(&topic.name) {
                continue;
            }
            let consumer_offset = committed.unwrap_or(0);
            let broker_offset = shared.engine.range(&queue).max.0;
            let pulled = shared.state.groups.pulled_up_to(group, &topic.name, number).unwrap_or(0);
            let progress = Progress {
                broker_offset,
                consumer_offset,
                pull_offset: pulled.min(broker_offset).max(consumer_offset),
                last_ms: before(shared, &queue, consumer_offset)?,
            };
            rows.push(Row { topic: topic.name.clone(), number, progress });
        }
    }
    Ok(rows)
}

/// Messages that a group pulls in a second, of the topics that these rows are about.
fn per_second(shared: &Shared, group: &str, rows: &[Row]) -> f64 {
    let now = shared.engine.clock().monotonic();
    let topics: BTreeSet<&str> = rows.iter().map(|row| &*row.topic).collect();
    topics.into_iter().fold(0.0, |sum, topic| sum + shared.state.groups.pulls_per_second(group, topic, now))
}

/// When the message before `offset` was stored; 0 when there is none.
fn before(shared: &Shared, queue: &Queue, offset: u64) -> Result<u64, ReadError> {
    match offset.checked_sub(1) {
        Some(last) => Ok(shared.engine.store_time(queue, QueueOffset(last))?.unwrap_or(0)),
        None => Ok(0),
    }
}

fn span(shared: &Shared, group: &str, topic: &Topic, number: u32, queue: &Queue) -> Result<TimeSpan, ReadError> {
    let range = shared.engine.range(queue);
    let key = OffsetKey { group: group.into(), topic: topic.name.clone(), queue: number };
    let offset = shared.state.offsets.get(&key).unwrap_or(range.min.0).clamp(range.min.0, range.max.0);
    let time = |offset: u64| Ok::<_, ReadError>(shared.engine.store_time(queue, QueueOffset(offset))?.unwrap_or(0));
    let next_ms = if offset < range.max.0 { time(offset)? } else { 0 };
    let now_ms = shared.engine.clock().wall_ms();
    Ok(TimeSpan {
        first_ms: time(range.min.0)?,
        last_ms: before(shared, queue, range.max.0)?,
        consumed_ms: before(shared, queue, offset)?,
        delay_ms: if next_ms == 0 { 0 } else { now_ms.saturating_sub(next_ms) },
    })
}

fn unreadable(error: &ReadError) -> Reply {
    Reply::failure(code::SYSTEM_ERROR, error.to_string())
}

fn answered(body: Result<BytesMut, ReadError>) -> Outcome {
    body.map_or_else(|error| unreadable(&error), Reply::body).into()
}
