//! What is to be delivered later: which messages, and taking them back.
//!
//! A delivery and a cancellation require the same entry: one of the two happens.

use std::ops::ControlFlow;

use anchorlog_engine::{Rejection, TableEntry, WriteBatch};

use super::asking::{Ended, answer, each_entry, missing, part, refused, told, unbuilt, unreadable};
use crate::counters::Counters;
use crate::features::delay::{Due, DueKey};
use crate::features::topics::RETRY_PREFIX;
use crate::features::{Outcome, Reply, Request, Writing};
use crate::shared::Shared;
use crate::state::entries;
use crate::wire::operate::{CancelDelay, DelayKind, Delayed, Delays, ListDelays};

/// Tells what is to be delivered, in the order of its times.
pub fn list(shared: &Shared, request: &Request<'_>) -> Outcome {
    answer(shared, request, |shared, ask, _| tell_part(shared, ask).map(Outcome::Reply))
}

fn tell_part(shared: &Shared, ask: &ListDelays) -> Result<Reply, Reply> {
    let from = match &ask.after {
        Some(after) => {
            let key: DueKey = after.parse().map_err(|_| missing(format!("{after} names no delayed message")))?;
            [&entries::due::encode_key(&key)[..], &[0]].concat()
        }
        None => entries::due::first_key(ask.from_ms.unwrap_or(0)).to_vec(),
    };
    let end = match ask.to_ms {
        Some(to_ms) => entries::due::first_key(to_ms).to_vec(),
        None => entries::end_of(entries::due::PREFIX),
    };
    let (limit, mut delays, mut last) = (part(ask.limit), Vec::new(), None);
    let ended = each_entry(shared, &from, &end, |key, entry| {
        let Ok(key) = entries::due::decode_key(key) else { return Ok(ControlFlow::Continue(())) };
        last = Some(key.to_string());
        delays.extend(tell(&key, entry).filter(|delayed| matches(ask, delayed)));
        Ok(if delays.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(told(&Delays { delays, next: last.filter(|_| ended == Ended::Cut) }))
}

/// Nothing for what is no delivery.
fn tell(key: &DueKey, entry: &TableEntry) -> Option<Delayed> {
    let Ok(Due::Deliver { record_bytes, timed, place }) = entries::due::decode(&entry.value) else { return None };
    Some(Delayed {
        id: key.to_string(),
        due_ms: key.time_ms,
        kind: match timed {
            _ if place.topic.starts_with(RETRY_PREFIX) => DelayKind::Retry,
            true => DelayKind::Time,
            false => DelayKind::Level,
        },
        topic: place.topic.to_string(),
        queue: place.queue,
        keys: place.keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect(),
        record_bytes,
        lsn: entry.target.map(|lsn| lsn.0),
    })
}

fn matches(ask: &ListDelays, delayed: &Delayed) -> bool {
    ask.topic.as_ref().is_none_or(|topic| *topic == delayed.topic)
        && ask.key.as_ref().is_none_or(|key| delayed.keys.contains(key))
}

/// Takes a message back that is not delivered yet.
pub fn cancel(shared: &Shared, request: &Request<'_>) -> Outcome {
    answer(shared, request, |shared, ask: &CancelDelay, batch: &mut WriteBatch| {
        let key: DueKey = ask.id.parse().map_err(|_| missing(format!("{} names no delayed message", ask.id)))?;
        let bytes = entries::due::encode_key(&key);
        let entry = shared.engine.get(&bytes).map_err(unreadable)?.ok_or_else(gone)?;
        let delayed = tell(&key, &entry).ok_or_else(|| refused(format!("{} is no delayed message", ask.id)))?;
        if delayed.kind == DelayKind::Retry && !ask.force {
            let topic = &delayed.topic;
            return Err(refused(format!(
                "{} is what a group is to get again ({topic}); cancelled it is lost to it, and is no dead letter either; say --force if that \
                 is meant",
                ask.id
            )));
        }
        batch.require_value(&bytes, &entry.value).map_err(unbuilt)?;
        batch.delete(&bytes).map_err(unbuilt)?;
        tracing::warn!(id = ask.id, topic = delayed.topic, keys = ?delayed.keys, "an operator cancels a delivery");
        let counted = |counters: &Counters| counters.messages_recalled.add(1);
        let rejected = |_: &Shared, _: &Rejection| gone();
        Ok(Outcome::Write(Writing {
            reply: told(&delayed),
            due: None,
            ends: None,
            again: None,
            letter: None,
            rejected,
            counted,
            back: None,
        }))
    })
}

fn gone() -> Reply {
    missing("no such message waits to be delivered: it is delivered, or was cancelled before")
}
