//! 33 and 12.

use anchorlog_engine::{Lsn, Message};
use bytes::BytesMut;

use super::search::{Search, search};
use crate::features::access::Pass;
use crate::features::delay::HIDDEN_QUEUE;
use crate::features::pull::{encode_as, encode_message};
use crate::features::topics::topic_of;
use crate::features::transactions::HALF_QUEUE;
use crate::features::{Outcome, Reply, Request, Task, code};
use crate::limits;
use crate::shared::Shared;

/// Where the original keeps what is due later.
const DELAYED_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// Where it keeps what is undecided.
const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";

/// 33: the message at a place in the log.
pub fn by_place(request: &Request<'_>) -> Outcome {
    match request.required_number::<i64>("offset").map(u64::try_from) {
        Ok(Ok(lsn)) => {
            let pass = request.pass();
            let read = move |shared: &Shared, _: &mut _| read(shared, &pass, Lsn(lsn)).unwrap_or_else(|reply| reply);
            Outcome::Read(Task::new(move |shared, batch| read(shared, batch).into()))
        }
        Ok(Err(_)) => Reply::failure(code::SYSTEM_ERROR, "there is no message before the log's beginning").into(),
        Err(error) => Reply::from(error).into(),
    }
}

fn read(shared: &Shared, pass: &Pass, lsn: Lsn) -> Result<Reply, Reply> {
    let missing = |error| Reply::failure(code::SYSTEM_ERROR, format!("there is no message at {lsn}: {error}"));
    let message = shared.engine.read(lsn).map_err(missing)?;
    pass.may_read(shared, topic_of(&message.queue_name).map(|(topic, _)| topic))?;
    let mut body = BytesMut::new();
    let shown = match &*message.queue_name {
        HIDDEN_QUEUE => encode_as(&mut body, &message, DELAYED_TOPIC, 0, &shared.settings),
        HALF_QUEUE => encode_as(&mut body, &message, HALF_TOPIC, 0, &shared.settings),
        _ => encode_message(&mut body, &message, &shared.settings),
    };
    if shown { Ok(Reply::body(body)) } else { Err(foreign(&message)) }
}

fn foreign(message: &Message) -> Reply {
    let remark = format!("what is at {} is no message, or one that another version stored", message.lsn);
    Reply::failure(code::SYSTEM_ERROR, remark)
}

/// 12: the messages of a topic that have a key, or a producer's id.
pub fn by_key(request: &Request<'_>) -> Outcome {
    match asked(request) {
        Ok(wanted) => {
            Outcome::Read(Task::new(move |shared, _| found(shared, &wanted).unwrap_or_else(|reply| reply).into()))
        }
        Err(reply) => reply.into(),
    }
}

fn asked(request: &Request<'_>) -> Result<Search, Reply> {
    let time = |name| Ok::<_, Reply>(request.number::<i64>(name)?.map(|time| u64::try_from(time).unwrap_or(0)));
    let asked = request.number::<i64>("maxNum")?.and_then(|count| usize::try_from(count).ok());
    let most = if request.switch("_UNIQUE_KEY_QUERY") { limits::FIND_UNIQUE_MAX } else { limits::FIND_MESSAGES_MAX };
    Ok(Search {
        topic: request.required("topic")?.into(),
        key: request.required("key")?.into(),
        from_ms: time("beginTimestamp")?.unwrap_or(0),
        to_ms: time("endTimestamp")?.unwrap_or(u64::MAX),
        count: asked.unwrap_or(most).clamp(1, most),
    })
}

fn found(shared: &Shared, wanted: &Search) -> Result<Reply, Reply> {
    // The index knows all that is visible now.
    let (known_ms, known_lsn) = (shared.engine.clock().wall_ms(), shared.engine.watermarks().dispatched);
    let unreadable = |error| Reply::failure(code::SYSTEM_ERROR, format!("the index of keys cannot be read: {error}"));
    let messages = search(&shared.engine, wanted).map_err(unreadable)?;
    let mut body = BytesMut::new();
    for message in &messages {
        if !encode_message(&mut body, message, &shared.settings) {
            return Err(foreign(message));
        }
    }
    let reply = if messages.is_empty() {
        let remark = format!("topic {} has no message with the key {} in that time", wanted.topic, wanted.key);
        Reply::failure(code::QUERY_NOT_FOUND, remark)
    } else {
        Reply::body(body)
    };
    Ok(reply.with("indexLastUpdateTimestamp", known_ms).with("indexLastUpdatePhyoffset", known_lsn))
}
