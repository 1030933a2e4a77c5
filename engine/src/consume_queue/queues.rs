//! All queues of an engine, by name and by number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, RwLock};

use crate::batch::Queue;
use crate::consume_queue::QueueState;
use crate::error::TooLarge;
use crate::limits;
use crate::units::to_u64;

#[derive(Default)]
struct Registry {
    /// The incarnation of each name that is not dropped.
    by_name: HashMap<Arc<[u8]>, u32>,
    /// Dropped ones, of which records may still be on their way to the queues.
    dropped: HashMap<(Arc<[u8]>, u32), u32>,
    list: Vec<(Queue, Arc<QueueState>)>,
}

/// Names and states.
pub(crate) struct Queues {
    opening: u32,
    registry: RwLock<Registry>,
}

const INTACT: &str = "the queue registry is intact";

impl Registry {
    fn check(&self, name: &[u8]) -> Result<(), TooLarge> {
        let check = |what, found: usize, max: usize| {
            if found <= max { Ok(()) } else { Err(TooLarge { what, found: to_u64(found), max: to_u64(max) }) }
        };
        check("queue name", name.len(), limits::QUEUE_NAME_BYTES_MAX)?;
        check("number of queues", self.list.len() + 1, limits::QUEUE_COUNT_MAX)
    }

    fn push(&mut self, opening: u32, name: Arc<[u8]>, incarnation: u32, registered: impl FnOnce(&Queue)) -> Queue {
        let id = u32::try_from(self.list.len()).expect("bounded by QUEUE_COUNT_MAX");
        let queue = Queue { id, opening, incarnation, name };
        self.list.push((queue.clone(), Arc::new(QueueState::new())));
        registered(&queue);
        queue
    }

    fn add(
        &mut self,
        opening: u32,
        name: Arc<[u8]>,
        incarnation: u32,
        registered: impl FnOnce(&Queue),
    ) -> Result<Queue, TooLarge> {
        self.check(&name)?;
        let queue = self.push(opening, name, incarnation, registered);
        self.by_name.insert(Arc::clone(&queue.name), queue.id);
        Ok(queue)
    }

    /// An incarnation that a later one has replaced already: only a log that begins in the middle names it first now.
    fn add_dropped(
        &mut self,
        opening: u32,
        key: (Arc<[u8]>, u32),
        registered: impl FnOnce(&Queue),
    ) -> Result<Queue, TooLarge> {
        self.check(&key.0)?;
        let queue = self.push(opening, Arc::clone(&key.0), key.1, registered);
        self.dropped.insert(key, queue.id);
        Ok(queue)
    }

    fn retire(&mut self, queue: &Queue) {
        self.by_name.remove(&queue.name);
        self.dropped.insert((Arc::clone(&queue.name), queue.incarnation), queue.id);
    }
}

/// Openings of this process so far; the first has number 1.
static OPENINGS: AtomicU32 = AtomicU32::new(0);

impl Queues {
    pub(crate) fn new() -> Queues {
        let opening = OPENINGS.fetch_add(1, Ordering::Relaxed) + 1;
        Queues { opening, registry: RwLock::new(Registry::default()) }
    }

    pub(crate) fn find(&self, name: &[u8]) -> Option<Queue> {
        let registry = self.registry.read().expect(INTACT);
        registry.by_name.get(name).map(|id| registry.list[*id as usize].0.clone())
    }

    /// The queue of this name, registered if it is new; `registered` is told of a new one under the registry's lock.
    pub(crate) fn intern(&self, name: &[u8], registered: impl FnOnce(&Queue)) -> Result<Queue, TooLarge> {
        if let Some(queue) = self.find(name) {
            return Ok(queue);
        }
        let mut registry = self.registry.write().expect(INTACT);
        if let Some(id) = registry.by_name.get(name) {
            return Ok(registry.list[*id as usize].0.clone());
        }
        registry.add(self.opening, Arc::from(name), 0, registered)
    }

    /// The queue that a record names, in the incarnation that the record names.
    pub(crate) fn intern_incarnation(
        &self,
        name: &[u8],
        incarnation: u32,
        registered: impl FnOnce(&Queue),
    ) -> Result<Queue, TooLarge> {
        let mut registry = self.registry.write().expect(INTACT);
        let current = registry.by_name.get(name).map(|id| registry.list[*id as usize].0.clone());
        match current {
            Some(queue) if queue.incarnation == incarnation => Ok(queue),
            Some(queue) if queue.incarnation < incarnation => {
                registry.retire(&queue);
                registry.add(self.opening, queue.name, incarnation, registered)
            }
            Some(queue) => {
                let key = (queue.name, incarnation);
                match registry.dropped.get(&key) {
                    Some(id) => Ok(registry.list[*id as usize].0.clone()),
                    None => registry.add_dropped(self.opening, key, registered),
                }
            }
            None => registry.add(self.opening, Arc::from(name), incarnation, registered),
        }
    }

    /// Ends an incarnation: the name stands for the next one from now on. `registered` is told of that one, unless it is there already.
    pub(crate) fn drop_incarnation(&self, queue: &Queue, registered: impl FnOnce(&Queue)) -> Result<Queue, TooLarge> {
        self.intern_incarnation(&queue.name, queue.incarnation + 1, registered)
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
        Arc::clone(&self.registry.read().expect(INTACT).list[id as usize].1)
    }

    /// The queue of this name in this incarnation, dropped or not.
    pub(crate) fn find_incarnation(&self, name: &[u8], incarnation: u32) -> Option<Queue> {
        let registry = self.registry.read().expect(INTACT);
        let current = registry.by_name.get(name).map(|id| &registry.list[*id as usize].0);
        if let Some(queue) = current.filter(|queue| queue.incarnation == incarnation) {
            return Some(queue.clone());
        }
        let id = registry.dropped.get(&(Arc::from(name), incarnation))?;
        Some(registry.list[*id as usize].0.clone())
    }

    /// The queue of this number.
    pub(crate) fn get(&self, id: u32) -> Queue {
        self.registry.read().expect(INTACT).list[id as usize].0.clone()
    }

    /// All queues, dropped ones included, in the order of their numbers.
    pub(crate) fn all(&self) -> Vec<Queue> {
        self.registry.read().expect(INTACT).list.iter().map(|(queue, _)| queue.clone()).collect()
    }

    /// All queues that are not dropped.
    pub(crate) fn current(&self) -> Vec<Queue> {
        let registry = self.registry.read().expect(INTACT);
        registry.by_name.values().map(|id| registry.list[*id as usize].0.clone()).collect()
    }

    pub(crate) fn states(&self) -> Vec<Arc<QueueState>> {
        let registry = self.registry.read().expect(INTACT);
        registry.list.iter().map(|(_, state)| Arc::clone(state)).collect()
    }
}
