//! What groups still need, as pins of the engine: a file that is dropped leaves it behind.
//!
//! 1. A pin stands where a group's committed offset does, as the disk has it: a group that begins there after a crash finds its messages.
//! 2. What was read back is pinned before the first file may go.
//! 3. A group counts from its registration on, where its members share messages; a tool from its first commit on. Who never commits (a
//!    broadcasting group, a reader) pins nothing.
//! 4. What a group is to get again counts from the first message on, and dead letters stay whoever has read them: nobody else keeps either.
//!
//! One thread drives it, once for each time that offsets are written.

use std::collections::VecDeque;

use anchorlog_engine::{Engine, Lsn, QueueOffset};

use super::OffsetKey;
use crate::features::topics::{DEAD_LETTER_PREFIX, RETRY_PREFIX, Topic};
use crate::state::State;

/// The name of the pins that keep dead letters. No group's name is empty.
const DEAD_LETTERS: &str = "";

/// Offsets that are in the log.
struct Moved {
    offsets: Vec<(OffsetKey, u64)>,
    /// They are durable when this is.
    end_lsn: Lsn,
}

/// Moves pins after offsets.
#[derive(Default)]
pub struct Pins {
    moved: VecDeque<Moved>,
    /// Whether it was said that something is kept.
    said: bool,
}

impl Pins {
    /// Pins what every group needs whose offsets were read back.
    pub fn pin_all(engine: &Engine, state: &State) {
        drop(state.offsets.take_moved());
        state.offsets.for_each(|key, offset| pin(engine, state, key, offset));
        for topic in state.topics.names().iter().filter_map(|name| state.topics.get(name)) {
            Pins::keep_own(engine, state, &topic);
        }
    }

    /// Pins what a retry topic or a dead-letter topic holds, and will hold. Does nothing for other topics.
    pub fn keep_own(engine: &Engine, state: &State, topic: &Topic) {
        let group = topic.name.strip_prefix(RETRY_PREFIX);
        if group.is_none() && !topic.name.starts_with(DEAD_LETTER_PREFIX) {
            return;
        }
        for number in 0..topic.config.queues() {
            let Ok(Some(queue)) = topic.queue(engine, number) else { continue };
            let key = group.map(|group| OffsetKey { group: group.into(), topic: topic.name.clone(), queue: number });
            if key.is_none_or(|key| state.offsets.get(&key).is_none()) {
                engine.pin_queue(group.unwrap_or(DEAD_LETTERS), queue, Some(engine.range(queue).min));
            }
        }
    }

    /// Pins what a group needs from where it begins a queue, before that is written: nothing is lost by a pin that is too early.
    pub(super) fn begin(engine: &Engine, state: &State, key: &OffsetKey, offset: u64) {
        pin(engine, state, key, offset);
    }

    /// Lets go of what a group had committed of a topic's queue.
    pub fn unpin(engine: &Engine, topic: &Topic, key: &OffsetKey) {
        if let Ok(Some(queue)) = topic.queue(engine, key.queue) {
            engine.pin_queue(&key.group, queue, None);
        }
    }

    /// Lets go of what a topic holds, whose queues were dropped.
    pub fn unpin_own(engine: &Engine, topic: &Topic) {
        let group = topic.name.strip_prefix(RETRY_PREFIX).unwrap_or(DEAD_LETTERS);
        for number in 0..topic.config.queues() {
            if let Ok(Some(queue)) = topic.queue(engine, number) {
                engine.pin_queue(group, queue, None);
            }
        }
    }

    /// Takes over offsets that stand in the log before `end_lsn`.
    pub fn note(&mut self, offsets: Vec<(OffsetKey, u64)>, end_lsn: Lsn) {
        if !offsets.is_empty() {
            self.moved.push_back(Moved { offsets, end_lsn });
        }
    }

    /// Pins what is durable by now.
    pub fn settle(&mut self, engine: &Engine, state: &State) {
        let durable = engine.watermarks().durable;
        let count = self.moved.iter().take_while(|moved| moved.end_lsn <= durable).count();
        for moved in self.moved.drain(..count) {
            for (key, offset) in &moved.offsets {
                // Who goes back needs it at once; what was deleted meanwhile needs nothing.
                if let Some(now) = state.offsets.get(key) {
                    pin(engine, state, key, now.min(*offset));
                }
            }
        }
    }

    /// Says once when files are kept for groups, and once when none are any more. What is kept for its due time, for a transaction or as a
    /// dead letter is no group's fault.
    pub fn say(&mut self, engine: &Engine, state: &State) {
        let messages = engine.retention().in_queues;
        if messages > 0
            && !self.said
            && let Some((group, behind)) = furthest_behind(engine, state)
        {
            self.said = true;
            tracing::warn!(
                messages,
                group,
                behind,
                "messages that groups have not consumed are kept beyond retain-bytes; when the disk is full of them, sends are refused. \
                 The group named is the furthest behind"
            );
        }
        if messages == 0 && std::mem::take(&mut self.said) {
            tracing::info!("no messages are kept for groups that are behind any more");
        }
    }
}

fn pin(engine: &Engine, state: &State, key: &OffsetKey, offset: u64) {
    let Some(topic) = state.topics.get(&key.topic) else { return };
    match topic.queue(engine, key.queue) {
        Ok(Some(queue)) => engine.pin_queue(&key.group, queue, Some(QueueOffset(offset))),
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(%error, group = &*key.group, topic = &*key.topic, "what the group needs cannot be kept")
        }
    }
}

/// The group that has the most before it in one queue, and how many messages that are; `None` where no group has anything before it.
fn furthest_behind(engine: &Engine, state: &State) -> Option<(String, u64)> {
    let mut furthest = None;
    state.offsets.for_each(|key, offset| {
        let Some(topic) = state.topics.get(&key.topic) else { return };
        let Ok(Some(queue)) = topic.queue(engine, key.queue) else { return };
        let behind = engine.range(queue).max.0.saturating_sub(offset);
        if behind > furthest.as_ref().map_or(0, |(_, most)| *most) {
            furthest = Some((key.group.to_string(), behind));
        }
    });
    furthest
}
