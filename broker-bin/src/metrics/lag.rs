//! How far groups are behind, in messages and in time; what topics hold; dead letters.
//!
//! A group's lag in a topic is what its committed offsets leave of the queues. Its age is that of the oldest message of these.

use std::cmp::Reverse;
use std::collections::HashMap;

use anchorlog_engine::{Queue, QueueOffset};

use crate::features::offsets::OffsetKey;
use crate::features::topics::{DEAD_LETTER_PREFIX, RETRY_PREFIX, topic_of};
use crate::limits;
use crate::shared::Shared;

/// What a group has before it in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Behind {
    pub(super) group: Box<str>,
    pub(super) topic: Box<str>,
    pub(super) messages: u64,
    /// When the oldest of them was stored; `None` when there is none, or it cannot be read.
    pub(super) since_ms: Option<u64>,
}

/// What a topic holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holds {
    pub(super) topic: Box<str>,
    /// Ever stored.
    pub(super) stored: u64,
    /// That consumers still see.
    pub(super) kept: u64,
}

/// Everything of this kind at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Lags {
    pub(super) behind: Vec<Behind>,
    /// How many more there are.
    pub(super) behind_left_out: usize,
    pub(super) topics: Vec<Holds>,
    pub(super) topics_left_out: usize,
    /// By group.
    pub(super) dead_letters: Vec<(Box<str>, u64)>,
}

/// Looks at every queue, and at every offset, some at a time. Ends early, with less than all, when the broker stops.
pub(super) fn look(shared: &Shared) -> Lags {
    let mut queues: HashMap<Box<str>, HashMap<u32, Queue>> = HashMap::new();
    for queue in shared.engine.queues() {
        if let Some((topic, number)) = topic_of(queue.name()) {
            queues.entry(topic.into()).or_default().insert(number, queue.clone());
        }
    }
    let mut lags = Lags::default();
    for (topic, queues) in &queues {
        // What is no topic's any more is not shown.
        if shared.state.topics.get(topic).is_none() {
            continue;
        }
        let ranges = || queues.values().map(|queue| shared.engine.range(queue));
        let (stored, kept) = ranges().fold((0, 0), |(stored, kept), range| {
            (stored + range.max.0, kept + range.max.0.saturating_sub(range.min.0))
        });
        if let Some(group) = topic.strip_prefix(DEAD_LETTER_PREFIX) {
            lags.dead_letters.push((group.into(), kept));
        } else if !topic.starts_with(RETRY_PREFIX) {
            lags.topics.push(Holds { topic: topic.clone(), stored, kept });
        }
    }
    lags.topics.sort_by(|one, other| (Reverse(one.stored), &one.topic).cmp(&(Reverse(other.stored), &other.topic)));
    lags.topics_left_out = lags.topics.len().saturating_sub(limits::METRICS_TOPICS_MAX);
    lags.topics.truncate(limits::METRICS_TOPICS_MAX);
    lags.dead_letters.sort_by(|one, other| (Reverse(one.1), &one.0).cmp(&(Reverse(other.1), &other.0)));
    lags.dead_letters.truncate(limits::METRICS_LAGS_MAX);
    groups(shared, &queues, &mut lags);
    lags
}

fn groups(shared: &Shared, queues: &HashMap<Box<str>, HashMap<u32, Queue>>, lags: &mut Lags) {
    let mut after: Option<OffsetKey> = None;
    let mut current: Option<Behind> = None;
    while !shared.is_closing() {
        let page = shared.state.offsets.page(after.as_ref(), limits::STATE_PAGE_ENTRIES);
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (key, offset) in &page {
            if let Some(done) = current.take_if(|one| one.group != key.group || one.topic != key.topic) {
                keep(lags, done);
            }
            let Some(queues) = queues.get(&key.topic) else { continue };
            let behind = current.get_or_insert_with(|| Behind {
                group: key.group.clone(),
                topic: key.topic.clone(),
                messages: 0,
                since_ms: None,
            });
            let Some(queue) = queues.get(&key.queue) else { continue };
            let range = shared.engine.range(queue);
            let next = (*offset).clamp(range.min.0, range.max.0);
            if next == range.max.0 {
                continue;
            }
            behind.messages += range.max.0 - next;
            let stored_ms = shared.engine.store_time(queue, QueueOffset(next)).ok().flatten();
            behind.since_ms = behind.since_ms.into_iter().chain(stored_ms).min();
        }
    }
    if let Some(done) = current {
        keep(lags, done);
    }
    trim(lags);
}

fn keep(lags: &mut Lags, behind: Behind) {
    lags.behind.push(behind);
    if lags.behind.len() >= 2 * limits::METRICS_LAGS_MAX {
        trim(lags);
    }
}

/// Keeps those that are furthest behind.
fn trim(lags: &mut Lags) {
    let rank = |one: &Behind| (one.since_ms.unwrap_or(u64::MAX), Reverse(one.messages));
    lags.behind
        .sort_by(|one, other| (rank(one), &one.group, &one.topic).cmp(&(rank(other), &other.group, &other.topic)));
    lags.behind_left_out += lags.behind.len().saturating_sub(limits::METRICS_LAGS_MAX);
    lags.behind.truncate(limits::METRICS_LAGS_MAX);
}
