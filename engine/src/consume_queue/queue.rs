//! The entries of one queue, in chunks, and who waits for the next one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use crate::commit::Watcher;
use crate::consume_queue::QueueEntry;
use crate::io::prefetch::prefetch;
use crate::read::QueueRange;
use crate::units::{Lsn, QueueOffset, to_u64, to_usize};

/// Entries of one chunk: 4 KiB of them, as they will lie on disk.
const CHUNK_ENTRIES: u64 = 170;

#[derive(Debug)]
struct Entries {
    /// Offset of the first entry in memory; those below are in the store.
    base: u64,
    /// First readable offset.
    min: u64,
    /// Behind the last entry.
    max: u64,
    /// Where the newest record stands that tells `max`; [`NOWHERE`] for none.
    latest: Lsn,
    /// The chunk that fills.
    tail: Vec<QueueEntry>,
    /// Full ones before it.
    full: VecDeque<Vec<QueueEntry>>,
    /// Whether it was dropped.
    dropped: bool,
}

/// Eight bytes less than an `Option`, which are wanted: see [`QueueState`].
const NOWHERE: Lsn = Lsn::MAX;

/// What a checkpoint says of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueMark {
    pub(crate) range: QueueRange,
    pub(crate) latest: Option<Lsn>,
    pub(crate) dropped: bool,
}

struct Watch {
    from: QueueOffset,
    watcher: Arc<Watcher>,
    token: u64,
}

/// One queue. What every new entry touches lies side by side: with thousands of queues none of it is in the processor's caches.
#[repr(C, align(128))]
pub(crate) struct QueueState {
    entries: RwLock<Entries>,
    /// Whether anything changed since the last checkpoint began.
    changed: AtomicBool,
    /// About where in memory the next entry goes: only ever prefetched.
    next_at: AtomicUsize,
    /// The range of the last checkpoint.
    saved: Mutex<QueueRange>,
    /// Where it ended when the engine was opened.
    opened_at: AtomicU64,
    watched: AtomicBool,
    watches: Mutex<Vec<Watch>>,
}

const _: () = assert!(
    std::mem::offset_of!(QueueState, next_at) + size_of::<AtomicUsize>() <= 128,
    "what every new entry touches lies in two lines of the processor's caches"
);

impl QueueState {
    pub(crate) fn new() -> QueueState {
        QueueState {
            entries: RwLock::new(Entries::default()),
            changed: AtomicBool::new(false),
            next_at: AtomicUsize::new(0),
            saved: Mutex::new(QueueRange::default()),
            opened_at: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            watches: Mutex::new(Vec::new()),
        }
    }

    /// Goes on where a checkpoint ended.
    pub(crate) fn restore(&self, mark: QueueMark) {
        let QueueMark { range, latest, dropped } = mark;
        let (min, max) = (range.min.0, range.max.0);
        let latest = latest.unwrap_or(NOWHERE);
        *self.entries.write().expect(INTACT) = Entries { base: max, min, max, latest, dropped, ..Entries::default() };
        *self.saved.lock().expect(INTACT) = range;
    }

    /// Adds the entry at `offset`; `Err` with the offset that was due when it does not follow.
    ///
    /// The first entry of all decides where the queue begins: what came before was released.
    pub(crate) fn push(&self, offset: QueueOffset, entry: QueueEntry) -> Result<(), QueueOffset> {
        let mut entries = self.entries.write().expect(INTACT);
        if entries.is_untouched() {
            (entries.base, entries.min, entries.max) = (offset.0, offset.0, offset.0);
        }
        if entries.max != offset.0 {
            return Err(QueueOffset(entries.max));
        }
        if to_u64(entries.tail.len()) == CHUNK_ENTRIES {
            let full = std::mem::take(&mut entries.tail);
            entries.full.push_back(full);
        }
        let tail = &mut entries.tail;
        if tail.len() == tail.capacity() {
            // Twice as many, and never more than a chunk has.
            tail.reserve_exact(tail.len().max(1).min(to_usize(CHUNK_ENTRIES) - tail.len()));
        }
        tail.push(entry);
        self.next_at.store(tail.as_ptr_range().end.addr(), Ordering::Relaxed);
        entries.max += 1;
        entries.latest = entry.lsn;
        Ok(())
    }

    /// Sets where an empty queue goes on; says so of any other. The record that tells stands at `lsn`.
    pub(crate) fn set_next(&self, next: QueueOffset, lsn: Lsn) -> Result<(), QueueOffset> {
        let mut entries = self.entries.write().expect(INTACT);
        if entries.min == entries.max && entries.max <= next.0 {
            (entries.base, entries.min, entries.max) = (next.0, next.0, next.0);
            entries.clear();
        }
        if entries.max != next.0 {
            return Err(QueueOffset(entries.max));
        }
        entries.latest = lsn;
        Ok(())
    }

    /// Goes on at `next`: what is between was given up, and `gap` stands for each of it. Returns how many that are, or the offset that was
    /// due when the queue is further already.
    pub(crate) fn lose(&self, next: QueueOffset, gap: QueueEntry) -> Result<u64, QueueOffset> {
        let due = {
            let entries = self.entries.read().expect(INTACT);
            if entries.is_untouched() { next.0 } else { entries.max }
        };
        if due > next.0 {
            return Err(QueueOffset(due));
        }
        for offset in due..next.0 {
            self.push(QueueOffset(offset), gap)?;
        }
        Ok(next.0 - due)
    }

    /// Notes the record that makes this an incarnation of its own.
    pub(crate) fn begin(&self, lsn: Lsn) {
        let mut entries = self.entries.write().expect(INTACT);
        if entries.latest == NOWHERE {
            entries.latest = lsn;
        }
    }

    /// Lets what [`QueueState::push`] looks at come into the processor's caches, but for the place of the entry itself.
    pub(crate) fn prefetch(&self) {
        prefetch(&raw const self.entries);
        prefetch(&raw const self.changed);
    }

    /// Lets the place of the next entry come, after [`QueueState::prefetch`].
    pub(crate) fn prefetch_next(&self) {
        let begin = self.next_at.load(Ordering::Relaxed);
        prefetch(std::ptr::without_provenance::<QueueEntry>(begin));
        prefetch(std::ptr::without_provenance::<u8>(begin.wrapping_add(size_of::<QueueEntry>() - 1)));
    }

    /// True when this is the first change since the last checkpoint began.
    pub(crate) fn note_change(&self) -> bool {
        !self.changed.load(Ordering::Relaxed) && !self.changed.swap(true, Ordering::Relaxed)
    }

    /// The engine is opened now: what is in the queue was found.
    pub(crate) fn set_opened(&self) {
        self.opened_at.store(self.range().max.0, Ordering::Relaxed);
    }

    /// Where it ended when the engine was opened; 0 for a queue that came later.
    pub(crate) fn opened_at(&self) -> QueueOffset {
        QueueOffset(self.opened_at.load(Ordering::Relaxed))
    }

    /// What a checkpoint that begins now says of it.
    pub(crate) fn mark(&self) -> QueueMark {
        self.changed.store(false, Ordering::Relaxed);
        self.current_mark()
    }

    pub(crate) fn current_mark(&self) -> QueueMark {
        let entries = self.entries.read().expect(INTACT);
        QueueMark { range: entries.range(), latest: entries.latest(), dropped: entries.dropped }
    }

    pub(crate) fn range(&self) -> QueueRange {
        self.entries.read().expect(INTACT).range()
    }

    /// The range of the last checkpoint.
    pub(crate) fn saved(&self) -> QueueRange {
        *self.saved.lock().expect(INTACT)
    }

    /// A checkpoint holds the queue like this. Otherwise as [`QueueState::forget`].
    pub(crate) fn set_saved(&self, mark: QueueMark, floor: Lsn) -> bool {
        *self.saved.lock().expect(INTACT) = mark.range;
        if mark.dropped {
            self.entries.write().expect(INTACT).clear();
        }
        self.forget(floor)
    }

    /// Lets entries that a checkpoint has leave memory with their messages, which begin at `floor` there. True when some are left that
    /// will: look again when `floor` has moved.
    pub(crate) fn forget(&self, floor: Lsn) -> bool {
        let saved = self.saved();
        let mut entries = self.entries.write().expect(INTACT);
        while let Some(last) = entries.first_chunk().last().copied() {
            let end = entries.base + to_u64(entries.first_chunk().len());
            // What was dropped goes with the checkpoint that says so, and a chunk that still fills stays whole.
            if (entries.full.is_empty() && end != entries.max) || end > saved.max.0 {
                return false;
            }
            if last.lsn >= floor {
                return true;
            }
            entries.pop_first_chunk();
        }
        false
    }

    /// Copies up to `count` entries from `from` on to `out`, if they are in memory; returns the range at that moment, and the offset from
    /// which on entries are in memory.
    pub(crate) fn copy(&self, from: QueueOffset, count: usize, out: &mut Vec<QueueEntry>) -> (QueueRange, QueueOffset) {
        let entries = self.entries.read().expect(INTACT);
        if from.0 >= entries.min && from.0 >= entries.base {
            let end = entries.max.min(from.0.saturating_add(to_u64(count)));
            out.extend((from.0..end).map(|offset| entries.get(offset)));
        }
        (entries.range(), QueueOffset(entries.base))
    }

    /// Copies up to `count` entries from `from` on to `out` for a checkpoint that began when they were readable: the queue may be dropped
    /// meanwhile, and that may be undone by a crash. Returns the offset from which on entries are in memory.
    pub(crate) fn copy_unsaved(&self, from: QueueOffset, count: usize, out: &mut Vec<QueueEntry>) -> QueueOffset {
        let entries = self.entries.read().expect(INTACT);
        if from.0 >= entries.base {
            let end = entries.end().min(from.0.saturating_add(to_u64(count)));
            out.extend((from.0..end).map(|offset| entries.get(offset)));
        }
        QueueOffset(entries.base)
    }

    /// Moves the first readable offset up.
    pub(crate) fn set_min(&self, min: QueueOffset) {
        let mut entries = self.entries.write().expect(INTACT);
        entries.min = entries.min.max(min.0.min(entries.max));
        while !entries.first_chunk().is_empty() {
            let end = entries.base + to_u64(entries.first_chunk().len());
            if (entries.full.is_empty() && end != entries.max) || end > entries.min {
                break;
            }
            entries.pop_first_chunk();
        }
    }

    /// Shows no entries any more: this incarnation of the queue was dropped. They leave memory when a checkpoint says so.
    pub(crate) fn clear(&self) {
        let mut entries = self.entries.write().expect(INTACT);
        (entries.min, entries.max, entries.latest, entries.dropped) = (0, 0, NOWHERE, true);
    }

    /// Puts entries before the first one; the last of them is told to come right before it. False when it does not.
    pub(crate) fn prepend(&self, last: QueueOffset, older: &[QueueEntry]) -> bool {
        let mut entries = self.entries.write().expect(INTACT);
        if last.0 + 1 != entries.min || entries.min != entries.base || to_u64(older.len()) > entries.min {
            return false;
        }
        let min = entries.min - to_u64(older.len());
        let newer: Vec<QueueEntry> = (entries.min..entries.max).map(|offset| entries.get(offset)).collect();
        let all: Vec<QueueEntry> = older.iter().copied().chain(newer).collect();
        let mut chunks = all.chunks(to_usize(CHUNK_ENTRIES)).map(<[QueueEntry]>::to_vec);
        entries.tail = chunks.next_back().unwrap_or_default();
        entries.full = chunks.collect();
        (entries.base, entries.min) = (min, min);
        true
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

const INTACT: &str = "the queue is intact";

impl Default for Entries {
    fn default() -> Entries {
        let (tail, full) = (Vec::new(), VecDeque::new());
        Entries { base: 0, min: 0, max: 0, latest: NOWHERE, tail, full, dropped: false }
    }
}

impl Entries {
    fn latest(&self) -> Option<Lsn> {
        (self.latest != NOWHERE).then_some(self.latest)
    }

    fn range(&self) -> QueueRange {
        QueueRange { min: QueueOffset(self.min), max: QueueOffset(self.max) }
    }

    /// Behind the last entry in memory.
    fn end(&self) -> u64 {
        self.base + to_u64(self.full.len()) * CHUNK_ENTRIES + to_u64(self.tail.len())
    }

    /// Whether nothing was ever in it, as far as is known.
    fn is_untouched(&self) -> bool {
        self.max == 0 && self.tail.is_empty() && self.full.is_empty()
    }

    fn first_chunk(&self) -> &[QueueEntry] {
        self.full.front().unwrap_or(&self.tail)
    }

    fn pop_first_chunk(&mut self) {
        let chunk = self.full.pop_front().unwrap_or_else(|| std::mem::take(&mut self.tail));
        self.base += to_u64(chunk.len());
    }

    /// Lets all entries leave memory.
    fn clear(&mut self) {
        self.full.clear();
        self.tail = Vec::new();
    }

    fn get(&self, offset: u64) -> QueueEntry {
        let index = offset - self.base;
        let chunk = self.full.get(to_usize(index / CHUNK_ENTRIES)).unwrap_or(&self.tail);
        chunk[to_usize(index % CHUNK_ENTRIES)]
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

    fn copied(queue: &QueueState, from: u64, count: usize) -> Vec<QueueEntry> {
        let mut out = Vec::new();
        queue.copy(QueueOffset(from), count, &mut out);
        out
    }

    #[test]
    fn entry_n_is_n_across_chunks_and_releases() {
        let queue = filled(5, 1000);
        queue.set_min(QueueOffset(400));
        assert_eq!(queue.range(), QueueRange { min: QueueOffset(400), max: QueueOffset(1000) });
        for offset in [400, 500, 999] {
            assert_eq!(copied(&queue, offset, 1), [entry(offset * 100)]);
        }
        assert!(copied(&queue, 399, 1).is_empty());
        assert_eq!(copied(&queue, 990, 100).len(), 10);
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
        queue.set_min(QueueOffset(170));
        assert_eq!(queue.range(), QueueRange { min: QueueOffset(170), max: QueueOffset(170) });
        assert_eq!(queue.set_next(QueueOffset(170), Lsn(8)), Ok(()));
        queue.push(QueueOffset(170), entry(9)).unwrap();
        assert_eq!(copied(&queue, 170, 5), [entry(9)]);
    }

    #[test]
    fn entries_that_a_checkpoint_has_leave_memory_with_their_messages() {
        let queue = filled(0, 1000);
        let mark = queue.mark();
        queue.push(QueueOffset(1000), entry(100_000)).unwrap();
        assert!(queue.set_saved(mark, Lsn(40_000)), "more will go");
        assert!(copied(&queue, 339, 1).is_empty());
        assert_eq!(copied(&queue, 340, 1), [entry(34_000)], "two chunks of 170 lie below");
        assert_eq!(queue.range(), QueueRange { min: QueueOffset(0), max: QueueOffset(1001) });
        assert!(!queue.set_saved(mark, Lsn(u64::MAX)));
        assert_eq!(copied(&queue, 1000, 1).len(), 1, "what no checkpoint has stays");
        assert!(queue.set_saved(queue.mark(), Lsn(100_000)), "its last message is in memory");
        assert_eq!(copied(&queue, 1000, 1).len(), 1);
        assert!(!queue.forget(Lsn(100_001)));
        assert!(copied(&queue, 1000, 1).is_empty(), "a queue that rests takes no memory for entries");
        queue.push(QueueOffset(1001), entry(100_100)).unwrap();
        assert_eq!((copied(&queue, 1001, 1), queue.range().max), (vec![entry(100_100)], QueueOffset(1002)));

        let restored = QueueState::new();
        restored.restore(mark);
        restored.push(QueueOffset(1000), entry(100_000)).unwrap();
        assert_eq!((restored.range().min, copied(&restored, 1000, 9).len()), (QueueOffset(0), 1));
        assert_eq!(restored.push(QueueOffset(1000), entry(1)), Err(QueueOffset(1001)));
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
