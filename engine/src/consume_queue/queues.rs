//! All queues of an engine, by name and by number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, RwLock};

use crate::batch::Queue;
use crate::consume_queue::QueueState;
use crate::error::TooLarge;
use crate::limits;
use crate::units::to_u64;

struct Registry {
    by_name: HashMap<Arc<[u8]>, u32>,
    list: Vec<(Queue, Arc<QueueState>)>,
}

/// Names and states.
pub(crate) struct Queues {
    opening: u32,
    registry: RwLock<Registry>,
}

/// Openings of this process so far; the first has number 1.
static OPENINGS: AtomicU32 = AtomicU32::new(0);

impl Queues {
    pub(crate) fn new() -> Queues {
        let opening = OPENINGS.fetch_add(1, Ordering::Relaxed) + 1;
        Queues { opening, registry: RwLock::new(Registry { by_name: HashMap::new(), list: Vec::new() }) }
    }

    pub(crate) fn find(&self, name: &[u8]) -> Option<Queue> {
        let registry = self.registry.read().expect("the queue registry is intact");
        registry.by_name.get(name).map(|id| registry.list[*id as usize].0.clone())
    }

    /// The queue of this name, registered if it is new; `registered` is told of a new one under the registry's lock.
    pub(crate) fn intern(&self, name: &[u8], registered: impl FnOnce(&Queue)) -> Result<Queue, TooLarge> {
        if let Some(queue) = self.find(name) {
            return Ok(queue);
        }
        let check = |what, found: usize, max: usize| {
            if found <= max { Ok(()) } else { Err(TooLarge { what, found: to_u64(found), max: to_u64(max) }) }
        };
        check("queue name", name.len(), limits::QUEUE_NAME_BYTES_MAX)?;
        let mut registry = self.registry.write().expect("the queue registry is intact");
        if let Some(id) = registry.by_name.get(name) {
            return Ok(registry.list[*id as usize].0.clone());
        }
        check("number of queues", registry.list.len() + 1, limits::QUEUE_COUNT_MAX)?;
        let id = u32::try_from(registry.list.len()).expect("bounded by QUEUE_COUNT_MAX");
        let queue = Queue { id, opening: self.opening, name: Arc::from(name) };
        registry.by_name.insert(Arc::clone(&queue.name), id);
        registry.list.push((queue.clone(), Arc::new(QueueState::new())));
        registered(&queue);
        Ok(queue)
    }

    /// The number of this opening.
    pub(crate) fn opening(&self) -> u32 {
        self.opening
    }

    /// The state of a queue that this opening gave out.
    ///
    /// # Panics
    /// When it was another one: its number means something else here.
    pub(crate) fn state_of(&self, queue: &Queue) -> Arc<QueueState> {
        assert_eq!(queue.opening, self.opening, "the queue belongs to another engine, or to an earlier opening");
        self.state(queue.id)
    }

    pub(crate) fn state(&self, id: u32) -> Arc<QueueState> {
        Arc::clone(&self.registry.read().expect("the queue registry is intact").list[id as usize].1)
    }

    /// All queues, in the order of their numbers.
    pub(crate) fn all(&self) -> Vec<Queue> {
        self.registry
            .read()
            .expect("the queue registry is intact")
            .list
            .iter()
            .map(|(queue, _)| queue.clone())
            .collect()
    }

    pub(crate) fn states(&self) -> Vec<Arc<QueueState>> {
        let registry = self.registry.read().expect("the queue registry is intact");
        registry.list.iter().map(|(_, state)| Arc::clone(state)).collect()
    }
}
