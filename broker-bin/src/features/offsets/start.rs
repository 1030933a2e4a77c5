//! Where a group begins a queue of which it has committed nothing.
//!
//! ```text
//!  heartbeat of a group that shares messages --> each queue of each topic it subscribes: Put offset/… where it begins, if none is there
//!  a topic gets more queues -------------------> the same for each group of the topic: the new ones' first message
//!  14 of a member -----------------------------> the same for that queue
//! ```
//! 1. Where a group begins is fixed when it registers, not when it polls first: what is sent in between is not skipped, whoever restarts
//!    meanwhile, and no file that is dropped takes it along (K-68). Fixed means committed: it is an offset like any other from then on.
//! 2. A queue whose message 0 is still there is begun there, as with the original. Of one that has lost its beginning, a group that
//!    wants the first messages gets the first there is, one that wants the last the next to come, and one that was there before the
//!    queue was, all.
//! 3. A group that begins at a time of its own decides itself, since the time is not told: it is answered that nothing is known (22), and
//!    asks for the offset of its time (29).
//! 4. A group's own retry topic is begun at its first message in any case.

use std::sync::atomic::Ordering;

use anchorlog_engine::QueueRange;

use super::{OffsetKey, Pins};
use crate::features::topics::{RETRY_PREFIX, Topic};
use crate::shared::Shared;

/// Where a consumer wants to begin when nothing is committed, as its heartbeats say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Begin {
    /// With what comes next.
    Last,
    /// With the first message there is.
    First,
    /// With the first message since a time that only the client knows.
    Time,
    /// The heartbeat does not say, or what it says is not known.
    #[default]
    Unknown,
}

impl Begin {
    /// Reads what a heartbeat says: a name, or its ordinal. Clients take the older names for the first one.
    #[must_use]
    pub fn read(text: &str) -> Begin {
        match text {
            "CONSUME_FROM_LAST_OFFSET" | "0" => Begin::Last,
            "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST" | "1" => Begin::Last,
            "CONSUME_FROM_MIN_OFFSET" | "2" => Begin::Last,
            "CONSUME_FROM_MAX_OFFSET" | "3" => Begin::Last,
            "CONSUME_FROM_FIRST_OFFSET" | "4" => Begin::First,
            "CONSUME_FROM_TIMESTAMP" | "5" => Begin::Time,
            _ => Begin::Unknown,
        }
    }

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Begin::Last => "CONSUME_FROM_LAST_OFFSET",
            Begin::First => "CONSUME_FROM_FIRST_OFFSET",
            Begin::Time => "CONSUME_FROM_TIMESTAMP",
            Begin::Unknown => "UNKNOWN",
        }
    }
}

/// The offset at which a group begins a queue; `None` where its client decides. `was_there`: before the queue was.
fn first_offset(begin: Begin, range: QueueRange, is_retry: bool, was_there: bool) -> Option<u64> {
    match begin {
        _ if is_retry || was_there => Some(range.min.0),
        Begin::Time => None,
        _ if range.min.0 == 0 => Some(0),
        Begin::First => Some(range.min.0),
        Begin::Last => Some(range.max.0),
        Begin::Unknown => None,
    }
}

/// Whether something may be written that nobody has sent.
fn may_write(shared: &Shared) -> bool {
    shared.standing.writes() && shared.knows_all.load(Ordering::Acquire) && shared.admission().is_ok()
}

/// Fixes where a group begins the queues of the topics that its member subscribes. True when there is something to wait for.
pub fn register<'a>(shared: &Shared, group: &str, begin: Begin, topics: impl Iterator<Item = &'a str>) -> bool {
    if !may_write(shared) {
        return false;
    }
    let mut fixed = false;
    for topic in topics.filter_map(|name| shared.state.topics.get(name)) {
        let known = shared.state.offsets.count_of(group, &topic.name);
        if known >= topic.config.read_queues as usize {
            continue;
        }
        for queue in 0..topic.config.read_queues {
            fixed |= fix(shared, group, &topic, queue, begin, known > 0).1;
        }
    }
    fixed
}

/// Fixes where a member of a group begins one queue that it asks for; says where that is, unless its client decides.
pub(super) fn begin_queue(shared: &Shared, group: &str, topic: &Topic, queue: u32, begin: Begin) -> Option<u64> {
    let was_there = shared.state.offsets.count_of(group, &topic.name) > 0;
    fix(shared, group, topic, queue, begin, was_there).0
}

/// Fixes where the groups of a topic begin the queues that it has got, from this number on.
pub fn add_queues(shared: &Shared, topic: &Topic, first: u32) {
    if !may_write(shared) || first >= topic.config.read_queues {
        return;
    }
    let mut groups = shared.state.groups.subscribing(&topic.name);
    if first > 0 {
        groups.extend(shared.state.offsets.groups_of(&topic.name));
    }
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        for queue in first..topic.config.read_queues {
            fix(shared, &group, topic, queue, Begin::First, true);
        }
    }
}

/// Where the group begins, and whether that was fixed just now.
fn fix(shared: &Shared, group: &str, topic: &Topic, queue: u32, begin: Begin, was_there: bool) -> (Option<u64>, bool) {
    let key = OffsetKey { group: group.into(), topic: topic.name.clone(), queue };
    if let Some(offset) = shared.state.offsets.get(&key) {
        return (Some(offset), false);
    }
    let Ok(Some(handle)) = topic.queue(&shared.engine, queue) else { return (None, false) };
    let is_retry = topic.name.strip_prefix(RETRY_PREFIX) == Some(group);
    let range = shared.engine.range(handle);
    let Some(offset) = first_offset(begin, range, is_retry, was_there) else { return (None, false) };
    if !may_write(shared) || !shared.state.begin_offset(&key, offset) {
        return (Some(offset), false);
    }
    if shared.settings.keep_unconsumed {
        Pins::begin(&shared.engine, &shared.state, &key, offset);
    }
    (Some(offset), true)
}

#[cfg(test)]
mod tests {
    use anchorlog_engine::QueueOffset;

    use super::*;

    #[test]
    fn k68_where_a_group_begins_follows_from_what_is_left_of_the_queue() {
        let range = |min, max| QueueRange { min: QueueOffset(min), max: QueueOffset(max) };
        let (young, empty, old) = (range(0, 9), range(0, 0), range(4, 9));
        let first = |begin, range| first_offset(begin, range, false, false);
        for begin in [Begin::Last, Begin::First, Begin::Unknown] {
            assert_eq!((first(begin, young), first(begin, empty)), (Some(0), Some(0)), "{begin:?}");
        }
        assert_eq!([first(Begin::First, old), first(Begin::Last, old)], [Some(4), Some(9)]);
        assert_eq!(first(Begin::Unknown, old), None);
        for range in [young, empty, old] {
            assert_eq!(first(Begin::Time, range), None, "only the client knows the time");
        }
        for begin in [Begin::Last, Begin::First, Begin::Time, Begin::Unknown] {
            assert_eq!(first_offset(begin, old, true, false), Some(4), "its own retry topic");
            assert_eq!(first_offset(begin, old, false, true), Some(4), "a queue that came after the group");
        }
    }

    #[test]
    fn names_and_ordinals_say_the_same() {
        for begin in [Begin::Last, Begin::First, Begin::Time] {
            assert_eq!(Begin::read(begin.name()), begin);
        }
        assert_eq!([Begin::read("0"), Begin::read("4"), Begin::read("5")], [Begin::Last, Begin::First, Begin::Time]);
        assert_eq!([Begin::read("UNKNOWN"), Begin::read("")], [Begin::Unknown; 2]);
    }
}
