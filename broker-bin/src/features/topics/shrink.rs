//! Which change of a topic's queues would hide messages from consumers.
//!
//! 1. A queue is taken from consumers only when producers have stopped to see it and every group has consumed what is in it.
//! 2. What producers see, consumers see: nothing is stored where nobody looks.
//!
//! More queues are always possible: what is queued already stays where it is, in its order.

use std::collections::BTreeMap;

use super::{Topic, TopicConfig};
use crate::shared::Shared;

/// Why a topic cannot get these settings, if it cannot.
#[must_use]
pub(super) fn stands_against(shared: &Shared, topic: Option<&Topic>, wanted: &TopicConfig) -> Option<String> {
    if wanted.read_queues < wanted.write_queues {
        return Some(format!(
            "{} queues to read and {} to write: what is sent to the others would be seen by nobody; raise readQueueNums first, \
             lower writeQueueNums first",
            wanted.read_queues, wanted.write_queues
        ));
    }
    let topic = topic.filter(|topic| wanted.read_queues < topic.config.queues())?;
    if wanted.read_queues < topic.config.write_queues {
        return Some(format!(
            "topic {} is written in {} queues: set writeQueueNums to {} and leave readQueueNums at {} until producers have learnt it \
             (30 s) and groups have consumed the rest, then lower readQueueNums",
            topic.name, topic.config.write_queues, wanted.read_queues, topic.config.read_queues
        ));
    }
    let left = unread(shared, topic, wanted.read_queues)?;
    Some(format!(
        "topic {}: {left}; readQueueNums can be lowered to {} when that is consumed",
        topic.name, wanted.read_queues
    ))
}

/// What groups have not consumed of the queues from this number on.
fn unread(shared: &Shared, topic: &Topic, from: u32) -> Option<String> {
    let mut groups: BTreeMap<Box<str>, BTreeMap<u32, u64>> = BTreeMap::new();
    shared.state.offsets.for_each(|key, offset| {
        if key.topic == topic.name {
            groups.entry(key.group.clone()).or_default().insert(key.queue, offset);
        }
    });
    for number in from..topic.config.queues() {
        let Ok(Some(queue)) = topic.queue(&shared.engine, number) else { continue };
        let range = shared.engine.range(queue);
        if range.min == range.max {
            continue;
        }
        if groups.is_empty() {
            return Some(format!(
                "queue {number} holds {} messages that nobody has consumed",
                range.max.0 - range.min.0
            ));
        }
        for (group, offsets) in &groups {
            let offset = offsets.get(&number).copied().unwrap_or(range.min.0).max(range.min.0);
            if offset < range.max.0 {
                return Some(format!(
                    "group {group} has not consumed {} messages of queue {number}",
                    range.max.0 - offset
                ));
            }
        }
    }
    None
}
