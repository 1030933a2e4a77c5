//! The log buffer: the newest bytes of the log, in reference-counted chunks, from the append lock to the device and to readers.
//!
//! Invariants:
//! 1. Bytes below `published` never change; bytes at or above it are touched by the holder of [`Tail`] only.
//! 2. A chunk leaves the buffer from the front only, and only when all of it is written and dispatched; whoever still holds it keeps
//!    it alive.
//! 3. What is handed to a reader and what is handed to the kernel are the same bytes: nothing is copied on the way down but the last,
//!    partial block.
//!
//! ```text
//!  front                                                        tail
//!  | chunk | chunk | chunk | chunk .......... | chunk (filling) |
//!  '-- cache for readers --'--- being written ---'-- published --'
//! ```

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use crate::io::IO_ALIGN;
use crate::io::buffer::{AlignedBuf, Chunk, IoSlice};
use crate::units::{Lsn, align_down, align_up, to_u64, to_usize};

/// Unused chunks that are kept for reuse.
const FREE_CHUNK_COUNT: usize = 8;

struct Window {
    /// Index (LSN / chunk size) of the first chunk.
    first: u64,
    chunks: VecDeque<Arc<Chunk>>,
    free: Vec<Arc<Chunk>>,
}

/// The shared side: readers, the writer.
pub(crate) struct LogBuffer {
    chunk_bytes: u64,
    chunk_count_max: usize,
    /// First LSN that is in memory at all; moves up as chunks leave.
    floor: AtomicU64,
    published: AtomicU64,
    window: RwLock<Window>,
}

/// The appending side; whoever holds it holds the append lock.
pub(crate) struct Tail {
    chunk: Arc<Chunk>,
    index: u64,
}

/// A run of published bytes inside one chunk; it stays as it is, whatever becomes of the buffer.
pub(crate) struct Piece {
    chunk: Arc<Chunk>,
    range: Range<usize>,
}

impl Piece {
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: pieces are only made of published ranges (invariant 1), whose writes happened before the load of `published`.
        unsafe { self.chunk.bytes(self.range.clone()) }
    }
}

impl LogBuffer {
    /// A buffer whose next byte is `next`; `prefix` are the bytes of its block that are on disk already.
    pub(crate) fn new(chunk_bytes: u64, cache_bytes: u64, next: Lsn, prefix: &[u8]) -> (Arc<LogBuffer>, Tail) {
        let index = next.0 / chunk_bytes;
        let chunk = Chunk::new(to_usize(chunk_bytes));
        let start = next.0 - to_u64(prefix.len());
        assert!(start / chunk_bytes == index || prefix.is_empty(), "a block does not cross chunks");
        // SAFETY: nobody else knows this chunk yet.
        unsafe { chunk.write(to_usize(start % chunk_bytes), prefix) };
        let buffer = LogBuffer {
            chunk_bytes,
            chunk_count_max: to_usize(cache_bytes / chunk_bytes).max(2),
            floor: AtomicU64::new(start),
            published: AtomicU64::new(next.0),
            window: RwLock::new(Window {
                first: index,
                chunks: VecDeque::from([Arc::clone(&chunk)]),
                free: Vec::new(),
            }),
        };
        (Arc::new(buffer), Tail { chunk, index })
    }

    /// End of what was assigned and copied in.
    pub(crate) fn published(&self) -> Lsn {
        Lsn(self.published.load(Ordering::SeqCst))
    }

    /// First byte that is in memory.
    pub(crate) fn floor(&self) -> Lsn {
        Lsn(self.floor.load(Ordering::Acquire))
    }

    /// Copies bytes behind what is there; not readable before [`LogBuffer::publish`]. `keep_from`: chunks below may go.
    pub(crate) fn write(&self, tail: &mut Tail, at: Lsn, bytes: &[u8], keep_from: Lsn) {
        let mut at = at.0;
        let mut rest = bytes;
        while !rest.is_empty() {
            let index = at / self.chunk_bytes;
            if index != tail.index {
                self.roll(tail, index, keep_from);
            }
            let offset = to_usize(at % self.chunk_bytes);
            let (now, later) = rest.split_at(rest.len().min(tail.chunk.len() - offset));
            // SAFETY: `tail` is the append lock, and `at` is at or above `published`.
            unsafe { tail.chunk.write(offset, now) };
            at += to_u64(now.len());
            rest = later;
        }
    }

    /// Zeros up to `end`.
    pub(crate) fn write_zeros(&self, tail: &mut Tail, at: Lsn, end: Lsn, keep_from: Lsn) {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut at = at;
        while at < end {
            let len = to_usize(end.since(at)).min(ZEROS.len());
            self.write(tail, at, &ZEROS[..len], keep_from);
            at = at.plus(to_u64(len));
        }
    }

    fn roll(&self, tail: &mut Tail, index: u64, keep_from: Lsn) {
        assert_eq!(index, tail.index + 1, "the log has no gaps");
        let mut window = self.window.write().expect("the log buffer is intact");
        while window.chunks.len() >= self.chunk_count_max && (window.first + 1) * self.chunk_bytes <= keep_from.0 {
            let gone = window.chunks.pop_front().expect("there are chunks");
            window.first += 1;
            self.floor.fetch_max(window.first * self.chunk_bytes, Ordering::Release);
            if window.free.len() < FREE_CHUNK_COUNT {
                window.free.push(gone);
            }
        }
        // A chunk that a reader still holds is not reused; the reader frees it.
        let reusable = window.free.iter().position(|chunk| Arc::strong_count(chunk) == 1);
        let chunk = match reusable {
            // The acquire fence orders our writes behind the last reader's use of the chunk (its release decrement).
            Some(at) => {
                std::sync::atomic::fence(Ordering::Acquire);
                window.free.swap_remove(at)
            }
            None => Chunk::new(to_usize(self.chunk_bytes)),
        };
        window.chunks.push_back(Arc::clone(&chunk));
        *tail = Tail { chunk, index };
    }

    /// Makes everything below `end` readable and writable to the device.
    pub(crate) fn publish(&self, end: Lsn) {
        self.published.store(end.0, Ordering::SeqCst);
    }

    /// The pieces of a published range; `None` when it is no longer, or not yet, in memory.
    pub(crate) fn pieces(&self, from: Lsn, len: u64) -> Option<Vec<Piece>> {
        let end = from.0.checked_add(len)?;
        if end > self.published().0 {
            return None;
        }
        let window = self.window.read().expect("the log buffer is intact");
        if from < self.floor() {
            return None;
        }
        let mut pieces = Vec::with_capacity(1 + to_usize(len / self.chunk_bytes));
        let mut at = from.0;
        while at < end {
            let index = at / self.chunk_bytes;
            let chunk = window.chunks.get(to_usize(index.checked_sub(window.first)?))?;
            let offset = at % self.chunk_bytes;
            let take = (self.chunk_bytes - offset).min(end - at);
            pieces.push(Piece { chunk: Arc::clone(chunk), range: to_usize(offset)..to_usize(offset + take) });
            at += take;
        }
        Some(pieces)
    }

    /// Appends a published range to `out`; false when it is not in memory.
    pub(crate) fn copy(&self, from: Lsn, len: u64, out: &mut Vec<u8>) -> bool {
        let Some(pieces) = self.pieces(from, len) else { return false };
        for piece in &pieces {
            out.extend_from_slice(piece.bytes());
        }
        true
    }

    /// What a write of `[from, end)` gives to the device: whole blocks in place, the last, partial one through a bounce copy.
    ///
    /// # Panics
    /// When the range is not in memory: the writer keeps what it has not written (invariant 2).
    pub(crate) fn blocks(&self, from: Lsn, end: Lsn) -> (u64, Vec<IoSlice>) {
        let align = to_u64(IO_ALIGN);
        let start = align_down(from.0, align);
        let whole = align_down(end.0, align);
        let mut slices = Vec::new();
        if whole > start {
            for piece in self.pieces(Lsn(start), whole - start).expect("unwritten bytes stay in memory") {
                // SAFETY: the range is published and is never written again (invariant 1).
                slices.push(unsafe { piece.chunk.io_slice(piece.range.clone()) });
            }
        }
        if end.0 > whole {
            let mut bounce = AlignedBuf::zeroed(IO_ALIGN);
            let mut at = 0;
            for piece in self.pieces(Lsn(whole), end.0 - whole).expect("unwritten bytes stay in memory") {
                bounce[at..at + piece.range.len()].copy_from_slice(piece.bytes());
                at += piece.range.len();
            }
            slices.push(IoSlice::from_buf(bounce));
        }
        (align_up(end.0, align) - start, slices)
    }
}
