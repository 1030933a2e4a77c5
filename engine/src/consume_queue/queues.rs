//! All queues of an engine, by name and by number.

use std::collections::{BTreeSet, HashMap};
use std::ops::{Bound, ControlFlow, Range};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use crate::batch::Queue;
use crate::checkpoint::rows::{self, QueueRow};
use crate::consume_queue::{QueueEntry, QueueMark, QueueState};
use crate::error::{ReadError, TooLarge};
use crate::limits;
use crate::read::QueueRange;
use crate::store::{Direction, StoreReader, StoreTable};
use crate::units::{Lsn, QueueOffset, to_u64, to_usize};

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
    /// What the last checkpoint wrote.
    store: RwLock<Option<Arc<StoreReader>>>,
    registry: RwLock<Registry>,
    /// Queues with entries in memory that a checkpoint has: they stay as long as their messages do.
    lingering: Mutex<BTreeSet<u32>>,
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
        Queues {
            opening,
            store: RwLock::new(None),
            registry: RwLock::new(Registry::default()),
            lingering: Mutex::default(),
        }
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
    pub(crate) fn by_id(&self, id: u32) -> Queue {
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

    /// From now on what is not in memory is read here. Before entries leave memory, or as the first thing of all.
    pub(crate) fn set_store(&self, reader: Arc<StoreReader>) {
        *self.store.write().expect(INTACT) = Some(reader);
    }

    /// A checkpoint holds these queues like this. Entries leave memory with their messages, which begin at `floor` there: those of queues
    /// that have rested since an earlier checkpoint, too.
    pub(crate) fn saved(&self, marks: &[(u32, QueueMark)], floor: Lsn) {
        let mut lingering = self.lingering.lock().expect(INTACT);
        lingering.retain(|id| self.state(*id).forget(floor));
        for (id, mark) in marks {
            if self.state(*id).set_saved(*mark, floor) {
                lingering.insert(*id);
            }
        }
    }

    /// A queue as a checkpoint left it. In the order of their numbers, and before anything else.
    pub(crate) fn restore(&self, row: QueueRow) -> Result<Queue, TooLarge> {
        let mut registry = self.registry.write().expect(INTACT);
        let queue = if row.dropped {
            registry.add_dropped(self.opening, (row.name, row.incarnation), |_| {})?
        } else {
            registry.add(self.opening, row.name, row.incarnation, |_| {})?
        };
        let range = QueueRange { min: row.min, max: row.max };
        let state = &registry.list[queue.id as usize].1;
        state.restore(QueueMark { range, latest: row.latest, dropped: row.dropped });
        Ok(queue)
    }

    /// Copies up to `count` entries from `from` on, as far as they are readable, to `out`; returns the range at that moment.
    pub(crate) fn copy(
        &self,
        queue: &Queue,
        from: QueueOffset,
        count: usize,
        out: &mut Vec<QueueEntry>,
    ) -> Result<QueueRange, ReadError> {
        let state = self.state_of(queue);
        let wanted = out.len() + count;
        loop {
            let at = QueueOffset(from.0 + to_u64(count - (wanted - out.len())));
            let (range, base) = state.copy(at, wanted - out.len(), out);
            let next = from.0 + to_u64(count - (wanted - out.len()));
            if out.len() == wanted || next >= range.max.0 || next < range.min.0 || next >= base.0 {
                return Ok(range);
            }
            // Entries below `base` were in the store before they left memory.
            let most = wanted.min(out.len() + to_usize(base.0 - next));
            self.copy_stored(queue.id, next, most, out)?;
        }
    }

    /// Adds entries of the store from `at` on to `out`, until there are `most` there.
    fn copy_stored(&self, id: u32, mut at: u64, most: usize, out: &mut Vec<QueueEntry>) -> Result<(), ReadError> {
        let store = self.store.read().expect(INTACT).clone();
        let store = store.ok_or(ReadError::Derived("queue entries are neither in memory nor in it".into()))?;
        let missing = |at| ReadError::Derived(format!("entry {at} of queue {id} is missing"));
        let begin = at;
        let mut failed = None;
        let mut take = |key: &[u8], value: &[u8]| {
            let piece = rows::piece_first(key).and_then(|first| Ok((first, rows::decode_piece(value)?)));
            match piece {
                Ok((first, entries)) if first <= at && at < first + to_u64(entries.len()) => {
                    let some = entries.iter().skip(to_usize(at - first)).take(most - out.len());
                    let before = out.len();
                    out.extend(some);
                    at += to_u64(out.len() - before);
                }
                Ok(_) => failed = Some(missing(at)),
                Err(row) => failed = Some(row.into()),
            }
            if failed.is_some() || out.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        // The piece that holds `at` is the last that begins at or before it.
        let (lowest, first) = (rows::piece_key(id, 0), rows::piece_key(id, begin));
        let below = (Bound::Included(&lowest[..]), Bound::Included(&first[..]));
        let mut used_up = None;
        store.range(StoreTable::Entries, below, Direction::Descending, |key, value| {
            used_up = take(key, value).is_continue().then(|| key.to_vec());
            ControlFlow::Break(())
        })?;
        if let Some(last) = used_up {
            let end = rows::piece_key(id, u64::MAX);
            let behind = (Bound::Excluded(&last[..]), Bound::Included(&end[..]));
            store.range(StoreTable::Entries, behind, Direction::Ascending, take)?;
        }
        match failed {
            Some(error) => Err(error),
            None if out.len() < most => {
                Err(ReadError::Derived(format!("entries behind {begin} of queue {id} are missing")))
            }
            None => Ok(()),
        }
    }

    /// One readable entry.
    pub(crate) fn get(&self, queue: &Queue, offset: QueueOffset) -> Result<Option<QueueEntry>, ReadError> {
        let mut out = Vec::with_capacity(1);
        self.copy(queue, offset, 1, &mut out)?;
        Ok(out.pop())
    }

    /// First readable offset for whose entry `is_before` is false; entries are in the order that it asks about.
    fn partition(&self, queue: &Queue, is_before: impl Fn(&QueueEntry) -> bool) -> Result<QueueOffset, ReadError> {
        let range = self.state_of(queue).range();
        let (mut low, mut high) = (range.min.0, range.max.0);
        // Down to what one look into the store brings.
        while high - low > to_u64(rows::PIECE_ENTRIES) {
            let middle = low + (high - low) / 2;
            match self.get(queue, QueueOffset(middle))? {
                Some(entry) if !is_before(&entry) => high = middle,
                // What was released meanwhile lies before everything.
                _ => low = middle + 1,
            }
        }
        let mut rest = Vec::new();
        while low < high {
            rest.clear();
            let range = self.copy(queue, QueueOffset(low), to_usize(high - low), &mut rest)?;
            let before = rest.partition_point(&is_before);
            if before < rest.len() {
                return Ok(QueueOffset(low + to_u64(before)));
            }
            low = if before == 0 { range.min.0.clamp(low + 1, high) } else { low + to_u64(before) };
        }
        Ok(QueueOffset(low))
    }

    /// First readable offset whose store time is at least `store_time_ms`.
    pub(crate) fn offset_by_time(&self, queue: &Queue, store_time_ms: u64) -> Result<QueueOffset, ReadError> {
        self.partition(queue, |entry| entry.store_time_ms < store_time_ms)
    }

    /// Where messages of a queue from this offset on stand, as far as they stand in this part of the log.
    pub(crate) fn lsns_between(
        &self,
        queue: &Queue,
        from: QueueOffset,
        part: Range<Lsn>,
    ) -> Result<Vec<Lsn>, ReadError> {
        let first = self.partition(queue, |entry| entry.lsn < part.start)?;
        let mut at = first.max(from).max(self.state_of(queue).range().min);
        let (mut lsns, mut entries) = (Vec::new(), Vec::new());
        loop {
            entries.clear();
            self.copy(queue, at, 256, &mut entries)?;
            let here = entries.iter().take_while(|entry| entry.lsn < part.end);
            lsns.extend(here.filter(|entry| entry.size > 0).map(|entry| entry.lsn));
            if entries.len() < 256 || entries.last().is_some_and(|last| last.lsn >= part.end) {
                return Ok(lsns);
            }
            at = QueueOffset(at.0 + 256);
        }
    }

    /// Lets queues begin behind the last message below `start` that is not `kept` in its queue; those that lost some are told to `changed`.
    pub(crate) fn release(
        &self,
        start: Lsn,
        kept: impl Fn(Lsn) -> bool,
        mut changed: impl FnMut(u32),
    ) -> Result<(), ReadError> {
        for queue in self.all() {
            let state = self.state_of(&queue);
            let min = state.range().min;
            if self.get(&queue, min)?.is_none_or(|first| first.lsn >= start) {
                continue;
            }
            let first = self.first_kept(&queue, min, start, &kept)?;
            if first > min {
                state.set_min(first);
                if state.note_change() {
                    changed(queue.id);
                }
            }
        }
        Ok(())
    }

    /// The lowest offset from which on nothing of a queue is missing. Segments lose their survivors one by one, in any order: what is kept
    /// before a gap is reached by its LSN only.
    fn first_kept(
        &self,
        queue: &Queue,
        min: QueueOffset,
        start: Lsn,
        kept: impl Fn(Lsn) -> bool,
    ) -> Result<QueueOffset, ReadError> {
        let mut first = self.partition(queue, |entry| entry.lsn < start)?;
        let mut entries = Vec::new();
        while first > min {
            let from = QueueOffset(first.0.saturating_sub(256)).max(min);
            entries.clear();
            self.copy(queue, from, to_usize(first.0 - from.0), &mut entries)?;
            let some = entries.iter().rev().take_while(|entry| kept(entry.lsn)).count();
            first.0 -= to_u64(some);
            if first > from {
                break;
            }
        }
        Ok(first)
    }
}
