//! 11 and 361: checks a pull.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anchorlog_engine::QueueOffset;

use super::read::{Pull, Wanted, moved};
use crate::features::groups::{self, Commits, Filter, TagFilter};
use crate::features::offsets::OffsetKey;
use crate::features::{Outcome, Reply, Request, code, topics};
use crate::limits;
use crate::shared::Shared;

/// Why a pull is forbidden: as clients know it.
const FORBIDDEN_BROADCAST: i32 = 4;

const FLAG_COMMIT: i32 = 1;
const FLAG_SUSPEND: i32 = 2;
const FLAG_SUBSCRIPTION: i32 = 4;

/// Says what to read and how long to wait for it.
pub fn pull(shared: &Shared, request: &Request<'_>) -> Outcome {
    try_pull(shared, request).unwrap_or_else(Outcome::Reply)
}

fn try_pull(shared: &Shared, request: &Request<'_>) -> Result<Outcome, Reply> {
    let group = request.required("consumerGroup")?;
    let name = request.required("topic")?;
    let number = request.required_number::<i32>("queueId")?;
    let offset = request.required_number::<i64>("queueOffset")?;
    let flags = request.required_number::<i32>("sysFlag")?;
    if !groups::ensure(shared, group) {
        return Err(Reply::failure(code::SUBSCRIPTION_GROUP_NOT_EXIST, format!("there is no consumer group {group}")));
    }
    if let Some(config) = shared.state.groups.config(group) {
        if !config.may_consume {
            return Err(Reply::failure(code::NO_PERMISSION, format!("group {group} may not consume")));
        }
        if !config.rules.may_broadcast && shared.clients.broadcasts(request.connection, group) {
            let remark = format!("group {group} may not broadcast: its consumers are to share the queues");
            return Err(Reply::failure(code::NO_PERMISSION, remark).with("forbiddenType", FORBIDDEN_BROADCAST));
        }
    }
    let Some(topic) = shared.state.topics.get(name) else {
        return Err(Reply::failure(code::TOPIC_NOT_EXIST, format!("topic {name} does not exist")));
    };
    if topic.config.perm & topics::PERM_READ == 0 {
        return Err(Reply::failure(code::NO_PERMISSION, format!("topic {name} may not be read")));
    }
    let number = match u32::try_from(number) {
        Ok(number) if number < topic.config.read_queues => number,
        _ => {
            let remark = format!("topic {name} has no queue {number}; it has {}", topic.config.read_queues);
            return Err(request.invalid_parameter(remark));
        }
    };
    let wanted = wanted(shared, request, group, name, flags)?;
    let key = OffsetKey { group: group.into(), topic: name.into(), queue: number };
    if flags & FLAG_COMMIT != 0
        && let Some(Ok(offset)) = request.number::<i64>("commitOffset")?.map(u64::try_from)
    {
        let committed = || shared.state.offsets.get(&key);
        let astray = shared.state.positions.astray(request.connection, &key, offset, committed).is_some();
        // Judged by who had the queue until now: with this pull it becomes somebody else's, perhaps.
        let counts = || matches!(groups::judge(shared, request.connection, &key, false), Commits::Counts(_));
        if !astray && !shared.resets.is_pending(&key) && counts() {
            shared.state.commit_offset(&key, offset, false);
        }
    }
    let at = u64::try_from(offset).unwrap_or(0);
    shared.state.groups.pulls(request.connection, group, name, number, at, flags & (FLAG_COMMIT | FLAG_SUSPEND) != 0);
    let refused = |error| Reply::failure(code::SYSTEM_ERROR, format!("queue {number}: {error}"));
    let queue = topic.queue(&shared.engine, number).map_err(refused)?.cloned();
    let queue = queue.ok_or_else(|| request.invalid_parameter(format!("topic {name} has no queue {number}")))?;
    let Ok(offset) = u64::try_from(offset) else {
        let range = shared.engine.range(&queue);
        return Err(moved(range.min, range));
    };
    if shared.resets.any()
        && let Some(offset) = shared.resets.take(&key, Some(offset))
    {
        shared.state.positions.led(&key).fetch_max(offset, Ordering::Relaxed);
        return Err(moved(QueueOffset(offset), shared.engine.range(&queue)));
    }
    if (flags & FLAG_SUSPEND != 0 || shared.state.groups.client_id(request.connection, group).is_some())
        && let Some(end) = astray(shared, request, &key, offset)
    {
        let range = shared.engine.range(&queue);
        return Err(moved(QueueOffset(end).clamp(range.min, range.max), range));
    }
    let hold_ms = request.number::<i64>("suspendTimeoutMillis")?.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
    let hold = Duration::from_millis(hold_ms).min(limits::HOLD_MAX);
    let messages_max = request.number::<i64>("maxMsgNums")?.and_then(|count| usize::try_from(count).ok());
    let bytes_max = request.number::<i64>("maxMsgBytes")?.and_then(|count| usize::try_from(count).ok());
    Ok(Outcome::Pull(Box::new(Pull {
        led: shared.state.positions.led(&key),
        topic,
        number,
        queue,
        asked: QueueOffset(offset),
        from: QueueOffset(offset),
        messages_max: messages_max.unwrap_or(limits::PULL_MESSAGES).clamp(1, limits::PULL_MESSAGES_MAX),
        bytes_max: bytes_max.filter(|&bytes| bytes > 0).unwrap_or(usize::MAX).min(limits::PULL_BYTES_MAX),
        wanted,
        hold: (flags & FLAG_SUSPEND != 0 && !hold.is_zero()).then_some(hold),
    })))
}

/// Where a consumer that goes on beyond what this log had when it was opened must begin again, if it was not led there.
fn astray(shared: &Shared, request: &Request<'_>, key: &OffsetKey, offset: u64) -> Option<u64> {
    let committed = || shared.state.offsets.get(key);
    let end = shared.state.positions.astray(request.connection, key, offset, committed)?;
    shared.counters.positions_moved.add(1);
    tracing::info!(
        group = &*key.group, topic = &*key.topic, queue = key.queue, offset, end, peer = %request.peer,
        "a consumer goes on where this log has not led it: what it had read is not there any more; it is moved back to what was left"
    );
    Some(end)
}

fn wanted(shared: &Shared, request: &Request<'_>, group: &str, topic: &str, flags: i32) -> Result<Wanted, Reply> {
    if flags & FLAG_SUBSCRIPTION != 0 {
        let expression = request.field("subscription");
        let kind = request.field("expressionType").filter(|kind| !kind.is_empty() && !kind.eq_ignore_ascii_case("TAG"));
        let Some(kind) = kind else {
            let refused = |error| Reply::failure(code::SUBSCRIPTION_PARSE_FAILED, format!("topic {topic}: {error}"));
            return TagFilter::parse(expression).map(Filter::Tags).map(Wanted::Own).map_err(refused);
        };
        let filter = Filter::parse(kind, expression.unwrap_or_default(), shared.settings.property_filter);
        return filter.map(Wanted::Own).map_err(|why| Reply::failure(why.code(), format!("topic {topic}: {why}")));
    }
    // A pull may be ahead of its heartbeat, or ask for a newer version of the subscription than the last heartbeat had. It gets by
    // what is known, or everything: clients filter again.
    let Some(subscription) = shared.state.groups.subscription(request.connection, group, topic) else {
        return Ok(Wanted::Own(Filter::Tags(TagFilter::everything())));
    };
    if let Filter::Unusable(why) = &subscription.filter {
        return Err(Reply::failure(why.code_afterwards(), format!("topic {topic}: {why}")));
    }
    Ok(Wanted::Subscribed(subscription))
}
