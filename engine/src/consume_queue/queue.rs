//! The entries of one queue, in chunks, and who waits for the next one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use crate::commit::Watcher;
use crate::consume_queue::QueueEntry;
use crate::read::QueueRange;
use crate::units::{Lsn, QueueOffset, to_u64, to_usize};

/// Entries of one chunk: 4 KiB of them, as they will lie on disk.
const CHUNK_ENTRIES: u64 = 170;

#[derive(Debug, Default)]
struct Entries {
    /// Offset of the first entry of the first chunk.
    base: u64,
    /// First readable offset.
    min: u64,
    /// Behind the last entry.
    max: u64,
    chunks: VecDeque<Vec<QueueEntry>>,
}

struct Watch {
    from: QueueOffset,
    watcher: Arc<Watcher>,
    token: u64,
}

/// One queue.
pub(crate) struct QueueState {
    entries: RwLock<Entries>,
    watched: AtomicBool,
    watches: Mutex<Vec<Watch>>,
}

impl QueueState {
    pub(crate) fn new() -> QueueState {
        QueueState {
            entries: RwLock::new(Entries::default()),
            watched: AtomicBool::new(false),
            watches: Mutex::new(Vec::new()),
        }
    }

    /// Adds the entry at `offset`; `Err` with the offset that was due when it does not follow.
    ///
    /// The first entry of all decides where the queue begins: what came before was released.
    pub(crate) fn push(&self, offset: QueueOffset, entry: QueueEntry) -> Result<(), QueueOffset> {
        let mut entries = self.entries.write().expect("the queue is intact");
        if entries.chunks.is_empty() && entries.max == 0 {
            (entries.base, entries.min, entries.max) = (offset.0, offset.0, offset.0);
        }
        if entries.max != offset.0 {
            return Err(QueueOffset(entries.max));
        }
        match entries.chunks.back_mut() {
            Some(chunk) if to_u64(chunk.len()) < CHUNK_ENTRIES => chunk.push(entry),
            _ => entries.chunks.push_back(vec![entry]),
        }
        entries.max += 1;
        Ok(())
    }

    /// Sets where an empty queue goes on.
    pub(crate) fn set_next(&self, next: QueueOffset) -> Result<(), QueueOffset> {
        let mut entries = self.entries.write().expect("the queue is intact");
        if entries.chunks.is_empty() && entries.max <= next.0 {
            (entries.base, entries.min, entries.max) = (next.0, next.0, next.0);
        }
        if entries.max == next.0 { Ok(()) } else { Err(QueueOffset(entries.max)) }
    }

    pub(crate) fn range(&self) -> QueueRange {
        let entries = self.entries.read().expect("the queue is intact");
        QueueRange { min: QueueOffset(entries.min), max: QueueOffset(entries.max) }
    }

    /// Copies up to `count` entries from `from` on, which must be readable, to `out`; returns the range at that moment.
    pub(crate) fn copy(&self, from: QueueOffset, count: usize, out: &mut Vec<QueueEntry>) -> QueueRange {
        let entries = self.entries.read().expect("the queue is intact");
        let range = QueueRange { min: QueueOffset(entries.min), max: QueueOffset(entries.max) };
        if from >= range.min {
            let end = entries.max.min(from.0.saturating_add(to_u64(count)));
            out.extend((from.0..end).map(|offset| entries.get(offset)));
        }
        range
    }

    pub(crate) fn get(&self, offset: QueueOffset) -> Option<QueueEntry> {
        let entries = self.entries.read().expect("the queue is intact");
        (entries.min..entries.max).contains(&offset.0).then(|| entries.get(offset.0))
    }

    /// First readable offset whose store time is at least `store_time_ms`.
    pub(crate) fn offset_by_time(&self, store_time_ms: u64) -> QueueOffset {
        let entries = self.entries.read().expect("the queue is intact");
        let (mut low, mut high) = (entries.min, entries.max);
        while low < high {
            let middle = low + (high - low) / 2;
            if entries.get(middle).store_time_ms < store_time_ms {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        QueueOffset(low)
    }

    /// Forgets entries of messages below `start`.
    pub(crate) fn release(&self, start: Lsn) {
        let mut entries = self.entries.write().expect("the queue is intact");
        while entries.min < entries.max && entries.get(entries.min).lsn < start {
            entries.min += 1;
            if entries.min - entries.base == CHUNK_ENTRIES || entries.min == entries.max {
                entries.chunks.pop_front();
                entries.base = entries.min;
            }
        }
    }

    /// Forgets all entries: this incarnation of the queue was dropped.
    pub(crate) fn clear(&self) {
        *self.entries.write().expect("the queue is intact") = Entries::default();
    }

    /// Adds a watch; returns how many fired at once.
    pub(crate) fn watch(&self, from: QueueOffset, watcher: &Arc<Watcher>, token: u64) -> usize {
        {
            let mut watches = self.watches.lock().expect("watches are intact");
            watches.push(Watch { from, watcher: Arc::clone(watcher), token });
            self.watched.store(true, Ordering::SeqCst);
        }
        // An entry is either seen here, or its dispatcher sees `watched`.
        self.notify()
    }

    /// Takes watches back; returns how many.
    pub(crate) fn unwatch(&self, watcher: &Arc<Watcher>, token: u64) -> usize {
        self.retain_watches(|watch| watch.token != token || !Arc::ptr_eq(&watch.watcher, watcher))
    }

    /// Tells those whose message has come; returns how many.
    pub(crate) fn notify(&self) -> usize {
        if !self.watched.load(Ordering::SeqCst) {
            return 0;
        }
        let max = self.range().max;
        self.retain_watches(|watch| {
            let due = max > watch.from;
            if due {
                watch.watcher.fire(watch.token);
            }
            !due
        })
    }

    fn retain_watches(&self, keep: impl FnMut(&Watch) -> bool) -> usize {
        let mut watches = self.watches.lock().expect("watches are intact");
        let before = watches.len();
        watches.retain(keep);
        self.watched.store(!watches.is_empty(), Ordering::SeqCst);
        before - watches.len()
    }
}

impl Entries {
    fn get(&self, offset: u64) -> QueueEntry {
        let index = offset - self.base;
        self.chunks[to_usize(index / CHUNK_ENTRIES)][to_usize(index % CHUNK_ENTRIES)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(lsn: u64) -> QueueEntry {
        QueueEntry { lsn: Lsn(lsn), size: 8, tag: 0, store_time_ms: lsn / 10 }
    }

    fn filled(from: u64, to: u64) -> QueueState {
        let queue = QueueState::new();
        for offset in from..to {
            queue.push(QueueOffset(offset), entry(offset * 100)).unwrap();
        }
        queue
    }

    #[test]
    fn entry_n_is_n_across_chunks_and_releases() {
        let queue = filled(5, 1000);
        queue.release(Lsn(40_000));
        assert_eq!(queue.range(), QueueRange { min: QueueOffset(400), max: QueueOffset(1000) });
        for offset in [400, 500, 999] {
            assert_eq!(queue.get(QueueOffset(offset)), Some(entry(offset * 100)));
        }
        assert_eq!(queue.get(QueueOffset(399)), None);
        let mut out = Vec::new();
        queue.copy(QueueOffset(990), 100, &mut out);
        assert_eq!(out.len(), 10);
    }

    #[test]
    fn an_entry_out_of_turn_is_refused() {
        let queue = filled(0, 3);
        assert_eq!(queue.push(QueueOffset(4), entry(1)), Err(QueueOffset(3)));
        assert_eq!(queue.push(QueueOffset(2), entry(1)), Err(QueueOffset(3)));
    }

    #[test]
    fn a_released_queue_keeps_counting() {
        let queue = filled(0, 170);
        queue.release(Lsn(u64::MAX));
        assert_eq!(queue.range(), QueueRange { min: QueueOffset(170), max: QueueOffset(170) });
        assert_eq!(queue.set_next(QueueOffset(170)), Ok(()));
        queue.push(QueueOffset(170), entry(9)).unwrap();
        assert_eq!(queue.get(QueueOffset(170)), Some(entry(9)));
    }

    #[test]
    fn time_finds_the_first_message_that_is_not_older() {
        let queue = filled(0, 400);
        assert_eq!(queue.offset_by_time(0), QueueOffset(0));
        assert_eq!(queue.offset_by_time(991), QueueOffset(100));
        assert_eq!(queue.offset_by_time(1000), QueueOffset(100));
        assert_eq!(queue.offset_by_time(u64::MAX), QueueOffset(400));
    }

    #[test]
    fn a_watch_fires_once_when_its_message_comes() {
        let queue = filled(0, 1);
        let watcher = Watcher::new().unwrap();
        let mut tokens = Vec::new();
        queue.watch(QueueOffset(1), &watcher, 7);
        queue.watch(QueueOffset(0), &watcher, 8);
        watcher.drain(&mut tokens);
        assert_eq!(tokens, [8], "this one was there already");
        queue.push(QueueOffset(1), entry(100)).unwrap();
        queue.notify();
        queue.notify();
        watcher.drain(&mut tokens);
        assert_eq!(tokens, [8, 7]);
        queue.watch(QueueOffset(2), &watcher, 9);
        queue.unwatch(&watcher, 9);
        queue.push(QueueOffset(2), entry(200)).unwrap();
        queue.notify();
        watcher.drain(&mut tokens);
        assert_eq!(tokens.len(), 2);
    }
}
