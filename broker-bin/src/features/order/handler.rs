//! 41 and 42.

use std::sync::atomic::Ordering;

use bytes::BytesMut;

use super::{Asked, Asker};
use crate::features::offsets::OffsetKey;
use crate::features::{Kept, Outcome, Reply, Request, code, groups};
use crate::limits;
use crate::shared::Shared;
use crate::wire::body::{LockRequest, MessageQueue, put_locked_queues};

/// 41: locks queues for a client, or renews its locks. The answer names those that it has.
pub fn lock(shared: &Shared, request: &Request<'_>) -> Outcome {
    try_lock(shared, request).unwrap_or_else(Outcome::Reply)
}

fn try_lock(shared: &Shared, request: &Request<'_>) -> Result<Outcome, Reply> {
    let asked = asked(shared, request)?;
    if !groups::ensure(shared, &asked.group) {
        let remark = format!("there is no consumer group {}", asked.group);
        return Err(Reply::failure(code::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    }
    let now = shared.engine.clock().monotonic();
    let asker = Asker { client_id: &asked.client_id, connection: request.connection, now };
    let locked = asked.queues.iter().filter(|queue| {
        let Some(key) = key(&asked.group, queue) else { return false };
        let topic = shared.state.topics.get(&key.topic);
        topic.is_some_and(|topic| key.queue < topic.config.queues()) && has(shared, &key, &asker)
    });
    let mut body = BytesMut::new();
    put_locked_queues(&mut body, locked);
    // A lock that another request of the client brought may be on its way still.
    Ok(Outcome::Recorded(Reply::body(body), Kept::Offsets))
}

/// Whether the client has the queue, from now on or since before.
fn has(shared: &Shared, key: &OffsetKey, asker: &Asker<'_>) -> bool {
    match shared.state.locks.ask(key, asker) {
        Asked::Renewed => true,
        Asked::Taken => false,
        Asked::Free => {
            // One that cannot be acknowledged is not begun: it would hold up the answers to those who only ask again.
            let taken = shared.admission().is_ok() && shared.state.take_lock(key, asker);
            shared.counters.queues_locked.add(u64::from(taken));
            taken
        }
    }
}

/// 42: a client gives queues back. What it does not have is not touched.
pub fn unlock(shared: &Shared, request: &Request<'_>) -> Outcome {
    match asked(shared, request) {
        Ok(asked) => {
            for key in asked.queues.iter().filter_map(|queue| key(&asked.group, queue)) {
                shared.state.give_up_lock(&key, &asked.client_id);
            }
            Outcome::Recorded(Reply::default(), Kept::Offsets)
        }
        Err(reply) => reply.into(),
    }
}

fn asked(shared: &Shared, request: &Request<'_>) -> Result<LockRequest, Reply> {
    if !shared.standing.writes() {
        let remark = "this broker is a slave, and locks nothing; ask its leader";
        return Err(Reply::failure(code::SERVICE_NOT_AVAILABLE, remark));
    }
    if !shared.knows_all.load(Ordering::Acquire) {
        let remark = "this broker leads since a moment ago, and does not know yet which queues are locked; try again";
        return Err(Reply::failure(code::SERVICE_NOT_AVAILABLE, remark));
    }
    let unreadable = |what: String| Reply::failure(code::SYSTEM_ERROR, what);
    let asked = LockRequest::decode(request.body).map_err(|error| unreadable(format!("the request's {error}")))?;
    if asked.client_id.len() > limits::CLIENT_ID_BYTES_MAX || asked.client_id.contains('\0') {
        let bytes_max = limits::CLIENT_ID_BYTES_MAX;
        return Err(unreadable(format!("a client id has at most {bytes_max} bytes, none of them zero")));
    }
    Ok(asked)
}

/// `None` for a queue that cannot be.
fn key(group: &str, queue: &MessageQueue) -> Option<OffsetKey> {
    let number = u32::try_from(queue.number).ok()?;
    Some(OffsetKey { group: group.into(), topic: queue.topic.as_str().into(), queue: number })
}
