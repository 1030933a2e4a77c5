//! Which topics there are, and the queues of each.
//!
//! 1. A topic that [`Topics::get`] shows has its table entry in the log, or noted: whoever appends a message flushes the state first.
//! 2. The handle of a queue is asked of the engine once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock};

use anchorlog_engine::{AppendError, Engine, Queue};

use crate::limits;
use crate::lock::{read, write};

/// Perm bit: consumers may read.
pub const PERM_READ: u8 = 4;
/// Perm bit: producers may write.
pub const PERM_WRITE: u8 = 2;
/// Perm bit: topics may be made after this one.
pub const PERM_INHERIT: u8 = 1;

/// The template after which unknown topics are made.
pub const TEMPLATE: &str = "TBW102";
/// Before a group's name: the topic that its failed messages return to.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// Before a group's name: the topic of messages that nobody could consume.
pub const DEAD_LETTER_PREFIX: &str = "%DLQ%";

/// Topics that belong to the broker: clients may not write them.
pub const OWN_TOPICS: [&str; 6] = [
    "SCHEDULE_TOPIC_XXXX",
    "RMQ_SYS_TRANS_HALF_TOPIC",
    "RMQ_SYS_TRANS_OP_HALF_TOPIC",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
];

/// What an operator can set of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// Queues that consumers see.
    pub read_queues: u32,
    /// Queues that producers see.
    pub write_queues: u32,
    /// Perm bits.
    pub perm: u8,
    /// Shown in routes; means nothing here.
    pub sys_flag: i32,
    /// Shown to tools; means nothing here.
    pub ordered: bool,
}

impl TopicConfig {
    /// A topic that can be read and written.
    #[must_use]
    pub const fn open(queues: u32) -> TopicConfig {
        TopicConfig {
            read_queues: queues,
            write_queues: queues,
            perm: PERM_READ | PERM_WRITE,
            sys_flag: 0,
            ordered: false,
        }
    }

    /// The template's own: what may be inherited is an open topic of up to `queues`.
    #[must_use]
    pub const fn template(queues: u32) -> TopicConfig {
        TopicConfig { perm: PERM_READ | PERM_WRITE | PERM_INHERIT, ..TopicConfig::open(queues) }
    }

    /// What a topic made after this template gets, when it may be made at all.
    #[must_use]
    pub fn inherited(&self, wanted_queues: u32) -> Option<TopicConfig> {
        let queues = wanted_queues.clamp(1, self.write_queues.max(1));
        (self.perm & PERM_INHERIT != 0)
            .then(|| TopicConfig { perm: self.perm & !PERM_INHERIT, ..TopicConfig::open(queues) })
    }

    /// All queues there are, seen by anybody.
    #[must_use]
    pub fn queues(&self) -> u32 {
        self.read_queues.max(self.write_queues)
    }
}

/// A topic and its queues.
#[derive(Debug)]
pub struct Topic {
    /// Its name.
    pub name: Box<str>,
    /// Its settings; a change makes a new `Topic`.
    pub config: TopicConfig,
    queues: Box<[OnceLock<Queue>]>,
}

impl Topic {
    fn new(name: &str, config: TopicConfig) -> Topic {
        let queues = (0..config.queues()).map(|_| OnceLock::new()).collect();
        Topic { name: name.into(), config, queues }
    }

    /// The queue of this number; `None` when the topic has no such queue.
    ///
    /// # Errors
    /// When the engine holds no more queues.
    pub fn queue(&self, engine: &Engine, id: u32) -> Result<Option<&Queue>, AppendError> {
        let Some(slot) = self.queues.get(id as usize) else {
            return Ok(None);
        };
        if let Some(queue) = slot.get() {
            return Ok(Some(queue));
        }
        let queue = engine.queue(&queue_name(&self.name, id))?;
        Ok(Some(slot.get_or_init(|| queue)))
    }
}

/// The engine's name of a topic's queue: topic, a zero byte, the queue's number. No topic name holds a zero byte.
#[must_use]
pub fn queue_name(topic: &str, queue: u32) -> Vec<u8> {
    let mut name = Vec::with_capacity(topic.len() + 5);
    name.extend_from_slice(topic.as_bytes());
    name.push(0);
    name.extend_from_slice(&queue.to_be_bytes());
    name
}

/// The reverse of [`queue_name`]; `None` for queues that are not a topic's.
#[must_use]
pub fn topic_of(queue_name: &[u8]) -> Option<(&str, u32)> {
    let (topic, number) = queue_name.split_at_checked(queue_name.len().checked_sub(5)?)?;
    let number = u32::from_be_bytes(number.strip_prefix(&[0])?.try_into().ok()?);
    Some((std::str::from_utf8(topic).ok()?, number))
}

/// Why a name cannot be a topic's.
#[must_use]
pub fn name_fault(name: &str) -> Option<String> {
    if name.trim().is_empty() {
        return Some("the topic's name is blank".to_owned());
    }
    if name.len() > limits::TOPIC_BYTES_MAX {
        let max = limits::TOPIC_BYTES_MAX;
        return Some(format!("the topic's name has {} bytes; at most {max} are taken", name.len()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '%' | '_' | '-' | '|');
    let odd = name.chars().find(|&c| !allowed(c))?;
    Some(format!("the topic's name holds {odd:?}; only letters, digits, % _ - | are taken"))
}

/// True for topics that clients may not write.
#[must_use]
pub fn is_forbidden(name: &str) -> bool {
    OWN_TOPICS.contains(&name)
}

/// All topics. Shared by every network thread.
#[derive(Debug, Default)]
pub struct Topics {
    by_name: RwLock<BTreeMap<Box<str>, Arc<Topic>>>,
    /// Counts changes.
    version: AtomicU64,
}

impl Topics {
    /// The topic of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Topic>> {
        read(&self.by_name).get(name).cloned()
    }

    /// Sets a topic; true when that changed something.
    pub fn put(&self, name: &str, config: TopicConfig) -> bool {
        let mut by_name = write(&self.by_name);
        if by_name.get(name).is_some_and(|topic| topic.config == config) {
            return false;
        }
        by_name.insert(name.into(), Arc::new(Topic::new(name, config)));
        self.version.fetch_add(1, Ordering::Release);
        true
    }

    /// The topic of this name, made with `config` when it is missing; true when it was.
    pub fn get_or_put(&self, name: &str, config: TopicConfig) -> (Arc<Topic>, bool) {
        if let Some(topic) = self.get(name) {
            return (topic, false);
        }
        let mut by_name = write(&self.by_name);
        if let Some(topic) = by_name.get(name) {
            return (topic.clone(), false);
        }
        let topic = Arc::new(Topic::new(name, config));
        by_name.insert(name.into(), topic.clone());
        self.version.fetch_add(1, Ordering::Release);
        (topic, true)
    }

    /// Forgets a topic; true when there was one.
    pub fn remove(&self, name: &str) -> bool {
        self.version.fetch_add(1, Ordering::Release);
        write(&self.by_name).remove(name).is_some()
    }

    /// Lets the topic ask for its queues again: some of them were dropped.
    pub fn renew(&self, name: &str) {
        if let Some(topic) = write(&self.by_name).get_mut(name) {
            *topic = Arc::new(Topic::new(name, topic.config));
        }
    }

    /// Lets those topics ask for their queues again that somebody else dropped and made anew.
    pub fn renew_dropped(&self, engine: &Engine) {
        let is_dropped = |topic: &Topic| {
            (0..).zip(&topic.queues).filter_map(|(number, slot)| Some((number, slot.get()?))).any(|(number, known)| {
                engine.queue(&queue_name(&topic.name, number)).is_ok_and(|queue| queue != *known)
            })
        };
        let dropped: Vec<_> = read(&self.by_name).values().filter(|topic| is_dropped(topic)).cloned().collect();
        for topic in dropped {
            self.renew(&topic.name);
        }
    }

    /// Forgets the topics that are not wanted.
    pub fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.version.fetch_add(1, Ordering::Release);
        write(&self.by_name).retain(|name, _| wanted(name));
    }

    /// Every topic's name, in order.
    #[must_use]
    pub fn names(&self) -> Vec<Box<str>> {
        read(&self.by_name).keys().cloned().collect()
    }

    /// Counts changes: as long as it is the same, so are the topics.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        read(&self.by_name).len()
    }
}
