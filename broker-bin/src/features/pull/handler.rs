//! 11 and 361: checks a pull.

use std::time::Duration;

use anchorlog_engine::QueueOffset;

use super::read::{Pull, Wanted, moved};
use crate::features::groups::{self, TagFilter};
use crate::features::offsets::OffsetKey;
use crate::features::{Outcome, Reply, Request, code, order, topics};
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
    if flags & FLAG_COMMIT != 0
        && let Some(Ok(offset)) = request.number::<i64>("commitOffset")?.map(u64::try_from)
    {
        let key = OffsetKey { group: group.into(), topic: name.into(), queue: number };
        if !shared.resets.is_pending(&key) && !order::keeps_out(shared, request.connection, &key) {
            shared.state.commit_offset(&key, offset, false);
        }
    }
    let refused = |error| Reply::failure(code::SYSTEM_ERROR, format!("queue {number}: {error}"));
    let queue = topic.queue(&shared.engine, number).map_err(refused)?.cloned();
    let queue = queue.ok_or_else(|| request.invalid_parameter(format!("topic {name} has no queue {number}")))?;
    let Ok(offset) = u64::try_from(offset) else {
        let range = shared.engine.range(&queue);
        return Err(moved(range.min, range));
    };
    let key = || OffsetKey { group: group.into(), topic: name.into(), queue: number };
    if shared.resets.any()
        && let Some(offset) = shared.resets.take(&key(), Some(offset))
    {
        return Err(moved(QueueOffset(offset), shared.engine.range(&queue)));
    }
    let hold_ms = request.number::<i64>("suspendTimeoutMillis")?.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
    let hold = Duration::from_millis(hold_ms).min(limits::HOLD_MAX);
    let messages_max = request.number::<i64>("maxMsgNums")?.and_then(|count| usize::try_from(count).ok());
    let bytes_max = request.number::<i64>("maxMsgBytes")?.and_then(|count| usize::try_from(count).ok());
    Ok(Outcome::Pull(Box::new(Pull {
        topic,
        number,
        queue,
        asked: QueueOffset(offset),
        from: QueueOffset(offset),
        messages_max: messages_max.unwrap_or(limits::PULL_MESSAGES_MAX).clamp(1, limits::PULL_MESSAGES_MAX),
        bytes_max: bytes_max.filter(|&bytes| bytes > 0).unwrap_or(usize::MAX).min(limits::PULL_BYTES_MAX),
        wanted,
        hold: (flags & FLAG_SUSPEND != 0 && !hold.is_zero()).then_some(hold),
    })))
}

fn wanted(shared: &Shared, request: &Request<'_>, group: &str, topic: &str, flags: i32) -> Result<Wanted, Reply> {
    let not_offered = || {
        let remark = format!("topic {topic}: this broker filters by tag only; SQL filters are not offered");
        Reply::failure(code::SYSTEM_ERROR, remark)
    };
    if flags & FLAG_SUBSCRIPTION != 0 {
        if request.field("expressionType").is_some_and(|kind| !kind.is_empty() && kind != "TAG") {
            return Err(not_offered());
        }
        let filter = TagFilter::parse(request.field("subscription"));
        return filter
            .map(Wanted::Own)
            .map_err(|error| Reply::failure(code::SUBSCRIPTION_PARSE_FAILED, format!("topic {topic}: {error}")));
    }
    // A pull may be ahead of its heartbeat, or ask for a newer version of the subscription than the last heartbeat had. It gets by
    // what is known, or everything: clients filter again.
    match shared.state.groups.subscription(group, topic) {
        Some(subscription) if subscription.filter.is_none() => Err(not_offered()),
        Some(subscription) => Ok(Wanted::Subscribed(subscription)),
        None => Ok(Wanted::Own(TagFilter::everything())),
    }
}
