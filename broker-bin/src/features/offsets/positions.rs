//! Whether a consumer's place in a queue is one of this log.
//!
//! A log may have lost its tail: to a power failure with asynchronous flush, or to a promotion of somebody who lacked it. What is sent
//! next gets the offsets of what was lost. A consumer that had read the lost messages and simply goes on would pass the new ones over:
//! the original moves it to the queue's end, wherever that is by then (K-43). The same befalls one that goes on in a topic that was
//! deleted and made anew (K-77).
//!
//! 1. A place beyond the end that a queue had when this log was opened counts only where somebody of the group was led there since: by
//!    an answer to a pull, by a committed offset, or by an answer about the queue's offsets on the same connection.
//! 2. Any other is moved back to that end. Messages may come twice by that, and none is passed over.
//! 3. A tool that reads without waiting, and is no member of the group, reads where it likes.
//!
//! Only who writes the log judges: a slave's end is behind its leader's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use anchorlog_engine::Engine;

use super::OffsetKey;
use crate::features::topics::topic_of;
use crate::limits;
use crate::lock::{lock, read, write};
use crate::net::ConnectionId;

/// Where queues ended when the log was opened.
#[derive(Debug)]
struct Opening {
    ends: BTreeMap<Box<str>, Vec<u64>>,
    /// The end of a queue that was not there then; `None` in a new store, where no client can have been anywhere.
    absent: Option<u64>,
}

type Told = BTreeMap<(Box<str>, u32), u64>;

/// What is known of consumers' places. Shared by every network thread.
#[derive(Debug, Default)]
pub struct Positions {
    opening: RwLock<Option<Opening>>,
    led: Mutex<BTreeMap<OffsetKey, Arc<AtomicU64>>>,
    told: Mutex<BTreeMap<ConnectionId, Told>>,
}

impl Positions {
    /// From now on places are judged, by where queues end now. `is_new`: the store held nothing before.
    pub fn begin(&self, engine: &Engine, is_new: bool) {
        let mut ends: BTreeMap<Box<str>, Vec<u64>> = BTreeMap::new();
        for queue in engine.queues() {
            let name = queue.name();
            let Some((topic, number)) = topic_of(name) else { continue };
            let slots = ends.entry(topic.into()).or_default();
            let slot = number as usize;
            if number >= limits::TOPIC_QUEUES_MAX {
                continue;
            }
            if slots.len() <= slot {
                slots.resize(slot + 1, 0);
            }
            slots[slot] = engine.range(&queue).max.0;
        }
        *write(&self.opening) = Some(Opening { ends, absent: (!is_new).then_some(0) });
    }

    fn end(&self, topic: &str, queue: u32) -> Option<u64> {
        let opening = read(&self.opening);
        let opening = opening.as_ref()?;
        let end = opening.ends.get(topic).map(|slots| slots.get(queue as usize).copied().unwrap_or(0));
        end.or(opening.absent)
    }

    /// How far a group was led in a queue, to be raised with every answer.
    pub fn led(&self, key: &OffsetKey) -> Arc<AtomicU64> {
        let mut led = lock(&self.led);
        if let Some(found) = led.get(key) {
            return found.clone();
        }
        let new = Arc::new(AtomicU64::new(0));
        if led.len() < limits::OFFSET_COUNT_MAX {
            led.insert(key.clone(), new.clone());
        }
        new
    }

    /// Somebody who came by this connection was told of an offset of a queue.
    pub fn tell(&self, connection: ConnectionId, topic: &str, queue: u32, offset: u64) {
        if self.end(topic, queue).is_none_or(|end| offset <= end) {
            return;
        }
        let mut told = lock(&self.told);
        let told = told.entry(connection).or_default();
        if told.len() < limits::PLACES_PER_CONNECTION_MAX {
            let place = told.entry((topic.into(), queue)).or_default();
            *place = offset.max(*place);
        }
    }

    /// The end to move back to, for a place to which nobody was led. `committed`: what the group
    /// has.
    #[must_use]
    pub fn astray(
        &self,
        connection: ConnectionId,
        key: &OffsetKey,
        offset: u64,
        committed: impl FnOnce() -> Option<u64>,
    ) -> Option<u64> {
        let end = self.end(&key.topic, key.queue)?;
        if offset <= end || committed().is_some_and(|committed| offset <= committed) {
            return None;
        }
        let led = lock(&self.led).get(key).map_or(0, |led| led.load(Ordering::Relaxed));
        let asked = || {
            let told = lock(&self.told);
            let told = told.get(&connection).and_then(|told| told.get(&(key.topic.clone(), key.queue)));
            told.is_some_and(|told| offset <= *told)
        };
        (offset > led && !asked()).then_some(end)
    }

    /// The connection is gone.
    pub fn gone(&self, connection: ConnectionId) {
        lock(&self.told).remove(&connection);
    }

    /// A topic's queues were dropped: whoever was anywhere in them is nowhere in those that come.
    pub fn forget_topic(&self, topic: &str) {
        if let Some(opening) = &mut *write(&self.opening) {
            opening.ends.insert(topic.into(), Vec::new());
        }
        lock(&self.led).retain(|key, _| *key.topic != *topic);
        for told in lock(&self.told).values_mut() {
            told.retain(|(name, _), _| **name != *topic);
        }
    }
}
