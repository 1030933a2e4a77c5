//! 14, 15, 29, 30, 31, 32.

use std::sync::atomic::Ordering;

use anchorlog_engine::{Queue, QueueOffset, ReadError};

use super::{Commit, OffsetKey, start};
use crate::features::groups::{self, Commits, Committer};
use crate::features::{Kept, Outcome, Reply, Request, Task, code};
use crate::shared::Shared;

/// 14: what a group committed.
pub fn query(shared: &Shared, request: &Request<'_>) -> Outcome {
    answered(|| {
        let key = key(request)?;
        if let Some(offset) = shared.state.offsets.get(&key) {
            return Ok(Reply::success().with("offset", offset));
        }
        let unknown = || Reply::failure(code::QUERY_NOT_FOUND, "this group has not committed an offset of this queue");
        if request.field("setZeroIfNotFound").is_some_and(|text| text.eq_ignore_ascii_case("false")) {
            return Ok(unknown());
        }
        let Some(queue) = known_queue(shared, &key.topic, key.queue)? else {
            return Ok(unknown());
        };
        if let Some(begin) = shared.state.groups.begin(request.connection, &key.group)
            && let Some(topic) = shared.state.topics.get(&key.topic)
        {
            let first = start::begin_queue(shared, &key.group, &topic, key.queue, begin);
            return Ok(first.map_or_else(unknown, |offset| Reply::success().with("offset", offset)));
        }
        // Message 0 is there, or is still to come.
        Ok(if shared.engine.range(&queue).min.0 == 0 { Reply::success().with("offset", 0) } else { unknown() })
    })
}

/// 15: commits an offset.
pub fn commit(shared: &Shared, request: &Request<'_>) -> Outcome {
    match try_commit(shared, request) {
        Ok(true) => Outcome::Recorded(Reply::success(), Kept::Offsets),
        Ok(false) => Reply::success().into(),
        Err(reply) => reply.into(),
    }
}

/// True when the answer waits for the log.
fn try_commit(shared: &Shared, request: &Request<'_>) -> Result<bool, Reply> {
    if !shared.standing.writes() {
        let remark = "this broker is a slave, and keeps the offsets that its leader has; commit there";
        return Err(Reply::failure(code::SERVICE_NOT_AVAILABLE, remark));
    }
    if !shared.knows_all.load(Ordering::Acquire) {
        let remark = "this leader does not know yet all that was acknowledged before it; commit again";
        return Err(Reply::failure(code::SERVICE_NOT_AVAILABLE, remark));
    }
    let key = key(request)?;
    let Ok(offset) = u64::try_from(request.required_number::<i64>("commitOffset")?) else {
        return Ok(false);
    };
    let Some(topic) = shared.state.topics.get(&key.topic) else {
        return Err(Reply::failure(code::TOPIC_NOT_EXIST, format!("topic {} does not exist", key.topic)));
    };
    if key.queue >= topic.config.queues() {
        return Err(request.invalid_parameter(format!("topic {} has no queue {}", key.topic, key.queue)));
    }
    if !groups::ensure(shared, &key.group) {
        let remark = format!("there is no consumer group {}", key.group);
        return Err(Reply::failure(code::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    }
    if shared.resets.is_pending(&key) {
        if shared.clients.is_consuming(&key.group) {
            // Its consumer does not know yet that it was sent elsewhere.
            return Ok(false);
        }
        shared.resets.forget(&key.group);
    }
    let commits = groups::judge(shared, request.connection, &key, !request.header.is_oneway());
    if let Some(remark) = commits.remark() {
        return Err(Reply::failure(code::SYSTEM_ERROR, remark));
    }
    let stray = !matches!(commits, Commits::Counts(Committer::Stranger));
    let committed = || shared.state.offsets.get(&key);
    if stray && shared.state.positions.astray(request.connection, &key, offset, committed).is_some() {
        shared.counters.positions_moved.add(1);
        let remark =
            "the offset lies beyond what this log has led the group to: what it speaks of is not in the log any more";
        return Err(Reply::failure(code::SYSTEM_ERROR, remark));
    }
    say_rewind(shared, request, &key, offset, &commits);
    match shared.state.commit_offset(&key, offset, !request.header.is_oneway()) {
        Commit::Full => Err(Reply::failure(code::SYSTEM_ERROR, "too many offsets are remembered already")),
        Commit::Changed | Commit::Unchanged => Ok(!request.header.is_oneway()),
    }
}

/// Keeps a trace of who moves a group back (K-79): it gets again what it had.
fn say_rewind(shared: &Shared, request: &Request<'_>, key: &OffsetKey, offset: u64, commits: &Commits) {
    let Some(before) = shared.state.offsets.get(key).filter(|before| *before > offset) else { return };
    let by = match commits {
        Commits::Counts(Committer::Owner(client_id)) => &**client_id,
        _ => "a stranger to the group",
    };
    shared.counters.offsets_rewound.add(1);
    tracing::info!(
        group = &*key.group, topic = &*key.topic, queue = key.queue, before, now = offset, by, peer = %request.peer,
        "an offset is moved back"
    );
}

/// 29: the offset at a time.
pub fn search_by_time(shared: &Shared, request: &Request<'_>) -> Outcome {
    let asked = || {
        let wanted = request.required_number::<i64>("timestamp")?;
        let place: (Box<str>, u32) = (request.required("topic")?.into(), request.required_number("queueId")?);
        let queue = asked_queue(shared, request)?.map(|queue| (place, queue));
        Ok::<_, Reply>((u64::try_from(wanted).unwrap_or(0), queue))
    };
    let upper = request.field("boundaryType").is_some_and(|text| text.eq_ignore_ascii_case("UPPER"));
    let connection = request.connection;
    match asked() {
        Ok((time, Some((place, queue)))) => Outcome::Read(Task::new(move |shared, _| {
            let found = || {
                if !upper {
                    return shared.engine.offset_by_time(&queue, time);
                }
                let behind = shared.engine.offset_by_time(&queue, time.saturating_add(1))?;
                Ok(QueueOffset(behind.0.saturating_sub(1)).max(shared.engine.range(&queue).min))
            };
            answered(|| {
                let offset = found().map_err(|error| unreadable(&error))?;
                shared.state.positions.tell(connection, &place.0, place.1, offset.0);
                Ok(Reply::success().with("offset", offset))
            })
        })),
        Ok((_, None)) => Reply::success().with("offset", 0).into(),
        Err(reply) => reply.into(),
    }
}

/// What somebody was told of a queue, it may count on.
fn tell(shared: &Shared, request: &Request<'_>, offset: u64) {
    if let (Some(topic), Ok(Some(queue))) = (request.field("topic"), request.number("queueId")) {
        shared.state.positions.tell(request.connection, topic, queue, offset);
    }
}

/// 30: the offset that the next message gets.
pub fn max(shared: &Shared, request: &Request<'_>) -> Outcome {
    answered(|| {
        let max = asked_queue(shared, request)?.map_or(0, |queue| shared.engine.range(&queue).max.0);
        tell(shared, request, max);
        Ok(Reply::success().with("offset", max))
    })
}

/// 31: the first readable offset.
pub fn min(shared: &Shared, request: &Request<'_>) -> Outcome {
    answered(|| {
        let queue = asked_queue(shared, request)?;
        Ok(Reply::success().with("offset", queue.map_or(0, |queue| shared.engine.range(&queue).min.0)))
    })
}

/// 32: when the first readable message was stored.
pub fn earliest_time(shared: &Shared, request: &Request<'_>) -> Outcome {
    match asked_queue(shared, request) {
        Ok(Some(queue)) => Outcome::Read(Task::new(move |shared, _| {
            answered(|| {
                let min = shared.engine.range(&queue).min;
                let time = shared.engine.store_time(&queue, min).map_err(|error| unreadable(&error))?;
                let time = time.and_then(|time| i64::try_from(time).ok()).unwrap_or(-1);
                Ok(Reply::success().with("timestamp", time))
            })
        })),
        Ok(None) => Reply::success().with("timestamp", -1).into(),
        Err(reply) => reply.into(),
    }
}

fn unreadable(error: &ReadError) -> Reply {
    Reply::failure(code::SYSTEM_ERROR, error.to_string())
}

fn answered(reply: impl FnOnce() -> Result<Reply, Reply>) -> Outcome {
    reply().unwrap_or_else(|reply| reply).into()
}

fn key(request: &Request<'_>) -> Result<OffsetKey, Reply> {
    Ok(OffsetKey {
        group: request.required("consumerGroup")?.into(),
        topic: request.required("topic")?.into(),
        queue: request.required_number("queueId")?,
    })
}

fn asked_queue(shared: &Shared, request: &Request<'_>) -> Result<Option<Queue>, Reply> {
    known_queue(shared, request.required("topic")?, request.required_number("queueId")?)
}

fn known_queue(shared: &Shared, topic: &str, number: u32) -> Result<Option<Queue>, Reply> {
    let Some(topic) = shared.state.topics.get(topic) else {
        return Ok(None);
    };
    let refused = |error| Reply::failure(code::SYSTEM_ERROR, format!("queue {number}: {error}"));
    Ok(topic.queue(&shared.engine, number).map_err(refused)?.cloned())
}
