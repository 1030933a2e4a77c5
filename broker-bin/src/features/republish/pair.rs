//! Two topics, perhaps for one group, and how far the one's queues are in the other.

use std::sync::Arc;

use anchorlog_engine::{Queue, QueueOffset};

use crate::features::Reply;
use crate::features::offsets::OffsetKey;
use crate::features::operate::{missing, refused};
use crate::features::topics::{DEAD_LETTER_PREFIX, PERM_WRITE, RETRY_PREFIX, TEMPLATE, Topic, is_forbidden};
use crate::shared::Shared;
use crate::state::entries::republished::{self, Progress};
use crate::wire::operate::RepublishPair;

/// What is moved where.
pub(super) struct Pair {
    pub(super) from: Arc<Topic>,
    pub(super) to: Arc<Topic>,
    group: Option<String>,
}

/// How far a queue is.
pub(super) struct Place {
    /// The next message.
    pub(super) next: QueueOffset,
    /// What the table says, as it stands there.
    pub(super) value: Option<Arc<[u8]>>,
}

impl Pair {
    /// Looks whether that can be done.
    pub(super) fn of(shared: &Shared, asked: &RepublishPair) -> Result<Pair, Reply> {
        let topic = |name: &str| {
            if is_forbidden(name)
                || name == TEMPLATE
                || [RETRY_PREFIX, DEAD_LETTER_PREFIX].iter().any(|own| name.starts_with(own))
            {
                return Err(refused(format!("topic {name} is the broker's own; dead letters: anchorlog dlq replay")));
            }
            shared.state.topics.get(name).ok_or_else(|| missing(format!("topic {name} does not exist")))
        };
        let (from, to) = (topic(&asked.from)?, topic(&asked.to)?);
        if from.name == to.name {
            return Err(refused("a topic is not republished to itself; more queues: anchorlog topic expand"));
        }
        if to.config.perm & PERM_WRITE == 0 || to.config.write_queues == 0 {
            return Err(refused(format!("topic {} may not be written", to.name)));
        }
        if let Some(group) = &asked.group {
            if shared.state.groups.config(group).is_none() {
                return Err(missing(format!("group {group} does not exist")));
            }
            if shared.state.groups.subscribing(&from.name).iter().any(|name| **name == **group) {
                let remark = format!(
                    "members of group {group} consume topic {} now: they would get what is moved; stop them, or let them subscribe {} \
                     instead",
                    from.name, to.name
                );
                return Err(refused(remark));
            }
        }
        Ok(Pair { from, to, group: asked.group.clone() })
    }

    /// The key under which the progress of a queue stands.
    pub(super) fn key(&self, queue: u32) -> Vec<u8> {
        republished::encode_key(self.group.as_deref().unwrap_or_default(), &self.from.name, &self.to.name, queue)
    }

    /// A queue of the topic that is republished.
    pub(super) fn queue(&self, shared: &Shared, number: u32) -> Result<Queue, Reply> {
        let queue = self.from.queue(&shared.engine, number).map_err(refused)?;
        queue.cloned().ok_or_else(|| missing(format!("topic {} has no queue {number}", self.from.name)))
    }

    /// The queues that get what is moved.
    pub(super) fn destinations(&self, shared: &Shared) -> Result<Vec<Queue>, Reply> {
        let queue = |number| self.to.queue(&shared.engine, number).map_err(refused);
        let queues: Result<Vec<_>, _> = (0..self.to.config.write_queues).map(queue).collect();
        Ok(queues?.into_iter().flatten().cloned().collect())
    }

    /// The value that says that everything before `next` is there.
    pub(super) fn value(&self, queue: &Queue, destinations: &[Queue], next: QueueOffset) -> Vec<u8> {
        let to_incarnation = destinations.first().map_or(0, Queue::incarnation);
        republished::encode(&Progress { from_incarnation: queue.incarnation(), to_incarnation, next })
    }

    /// How far a queue is, as the table shows it.
    pub(super) fn place(&self, shared: &Shared, number: u32, destinations: &[Queue]) -> Result<Place, Reply> {
        let queue = self.queue(shared, number)?;
        let entry = shared.engine.get(&self.key(number)).map_err(refused)?;
        let progress = match &entry {
            Some(entry) => Some(republished::decode(&entry.value).map_err(refused)?),
            None => None,
        };
        let incarnations = (queue.incarnation(), destinations.first().map_or(0, Queue::incarnation));
        let known = progress.filter(|found| (found.from_incarnation, found.to_incarnation) == incarnations);
        let consumed = self.offset_key(number).and_then(|key| shared.state.offsets.get(&key)).map(QueueOffset);
        let next = known.map(|found| found.next).max(consumed).unwrap_or_default();
        Ok(Place { next: next.max(shared.engine.range(&queue).min), value: entry.map(|entry| entry.value) })
    }

    /// Where the group's offset of a queue stands.
    pub(super) fn offset_key(&self, number: u32) -> Option<OffsetKey> {
        let group = self.group.as_deref()?;
        Some(OffsetKey { group: group.into(), topic: self.from.name.clone(), queue: number })
    }

    /// Where the group's offset of a queue stands that gets what is moved.
    pub(super) fn destination_key(&self, number: u32) -> Option<OffsetKey> {
        Some(OffsetKey { topic: self.to.name.clone(), ..self.offset_key(number)? })
    }
}
