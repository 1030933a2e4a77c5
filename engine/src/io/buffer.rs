//! Sector-aligned memory: what it promises is that the kernel may read it or fill it while nobody else writes it.
//!
//! 1. Every block starts at a multiple of [`IO_ALIGN`] and was zeroed before it was first handed out.
//! 2. An [`IoSlice`] keeps its memory alive by holding its owner.
//! 3. A [`Chunk`] has one writer at a time and any number of readers, in *disjoint* ranges: what has been published is
//!    never written again. No reference to the whole block is ever formed, so the writer and the readers never alias.
//!
//! ```text
//!  chunk   | published: read by anyone, shared with the kernel | being filled by the append lock's holder | zeros |
//! ```
//!
//! Deliberately not here: who holds the append lock and where "published" ends; the commit ring keeps both.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use super::IO_ALIGN;

/// What an aligned address points at when there are no bytes behind it.
#[repr(align(4096))]
struct Boundary;

const _: () = assert!(align_of::<Boundary>() == IO_ALIGN, "empty buffers are aligned like all others");

/// An allocation of zeroed, aligned bytes; the one place where such memory is made and freed.
struct Block {
    ptr: NonNull<u8>,
    len: usize,
}

impl Block {
    fn zeroed(len: usize) -> Block {
        assert!(len.is_multiple_of(IO_ALIGN), "an I/O buffer of {len} bytes is not a multiple of {IO_ALIGN}");
        let layout = Block::layout(len);
        if len == 0 {
            return Block { ptr: NonNull::<Boundary>::dangling().cast(), len };
        }
        // SAFETY: the layout's size is not zero, checked just above.
        let raw = unsafe { alloc_zeroed(layout) };
        let Some(ptr) = NonNull::new(raw) else { handle_alloc_error(layout) };
        Block { ptr, len }
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, IO_ALIGN).expect("the length of an I/O buffer fits the address space")
    }

    /// The address `offset` bytes in, which must lie in the block or at its end.
    fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset <= self.len, "offset {offset} lies outside a block of {} bytes", self.len);
        // SAFETY: the offset was checked to lie inside the allocation or one past its end.
        unsafe { self.ptr.add(offset) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the pointer came from `alloc_zeroed` with this very layout, and is freed here only.
            unsafe { dealloc(self.ptr.as_ptr(), Block::layout(self.len)) }
        }
    }
}

/// Aligned memory owned by one holder, zeroed when made.
pub struct AlignedBuf {
    block: Block,
}

// SAFETY: the block is owned memory without thread affinity.
unsafe impl Send for AlignedBuf {}
// SAFETY: a shared `AlignedBuf` can only be read.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// `len` zero bytes.
    ///
    /// # Panics
    /// When `len` is not a multiple of [`IO_ALIGN`].
    #[must_use]
    pub fn zeroed(len: usize) -> AlignedBuf {
        AlignedBuf { block: Block::zeroed(len) }
    }

    /// A buffer that holds `bytes`, followed by zeros up to the next multiple of [`IO_ALIGN`].
    #[must_use]
    pub fn padded(bytes: &[u8]) -> AlignedBuf {
        let mut buf = AlignedBuf::zeroed(bytes.len().next_multiple_of(IO_ALIGN));
        buf[..bytes.len()].copy_from_slice(bytes);
        buf
    }

    /// Length in bytes, a multiple of [`IO_ALIGN`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.block.len
    }

    /// True when there are no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.block.len == 0
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the block is initialised for its whole length, and `&self` keeps writers away.
        unsafe { std::slice::from_raw_parts(self.block.ptr.as_ptr(), self.block.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the block is initialised for its whole length, and `&mut self` is the only access.
        unsafe { std::slice::from_raw_parts_mut(self.block.ptr.as_ptr(), self.block.len) }
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.len())
    }
}

/// A bounded shelf of equal buffers, so that steady work neither allocates nor zeroes.
#[derive(Debug)]
pub struct BufPool {
    buf_len: usize,
    idle_max: usize,
    idle: Mutex<Vec<AlignedBuf>>,
}

impl BufPool {
    /// A pool of buffers of `buf_len` bytes that keeps at most `idle_max` of them while nobody uses them.
    #[must_use]
    pub fn new(buf_len: usize, idle_max: usize) -> BufPool {
        BufPool { buf_len, idle_max, idle: Mutex::new(Vec::new()) }
    }

    /// A buffer of the pool's length; its bytes are whatever the last user left.
    #[must_use]
    pub fn take(&self) -> AlignedBuf {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| AlignedBuf::zeroed(self.buf_len))
    }

    /// Puts a buffer back; one of another length, or one too many, is freed.
    pub fn give(&self, buf: AlignedBuf) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if buf.len() == self.buf_len && idle.len() < self.idle_max {
            idle.push(buf);
        }
    }
}

/// Bytes that a write reads from, with a share of whatever keeps them alive.
#[derive(Clone)]
pub struct IoSlice {
    ptr: NonNull<u8>,
    len: usize,
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the bytes are only read, and the owner that keeps them alive is `Send + Sync`.
unsafe impl Send for IoSlice {}
// SAFETY: as above; a shared slice offers reads only.
unsafe impl Sync for IoSlice {}

impl IoSlice {
    /// A slice of memory that `owner` keeps alive.
    ///
    /// # Safety
    /// `ptr` is valid for reads of `len` initialised bytes for as long as `owner` lives, and nobody writes them while
    /// this slice or a clone of it exists.
    #[must_use]
    pub unsafe fn from_raw(owner: Arc<dyn Any + Send + Sync>, ptr: NonNull<u8>, len: usize) -> IoSlice {
        IoSlice { ptr, len, _owner: owner }
    }

    /// A slice of a whole buffer, which nobody can write any more.
    #[must_use]
    pub fn from_buf(buf: AlignedBuf) -> IoSlice {
        let (ptr, len) = (buf.block.ptr, buf.block.len);
        // SAFETY: the buffer moves into the owner, which offers no access; its block neither moves nor changes.
        unsafe { IoSlice::from_raw(Arc::new(buf), ptr, len) }
    }

    /// Address of the first byte.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.ptr.as_ptr()
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: whoever made the slice promised initialised bytes that nobody writes while it lives.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for IoSlice {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl From<AlignedBuf> for IoSlice {
    fn from(buf: AlignedBuf) -> IoSlice {
        IoSlice::from_buf(buf)
    }
}

impl fmt::Debug for IoSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoSlice({} bytes)", self.len)
    }
}

/// A block of fixed size that one appender fills while readers use what was published.
///
/// Publishing is the caller's: a release store after [`Chunk::write`], an acquire load before [`Chunk::bytes`].
pub struct Chunk {
    block: Block,
}

// SAFETY: the block is owned memory without thread affinity.
unsafe impl Send for Chunk {}
// SAFETY: shared access goes through unsafe calls whose contracts keep writers and readers in disjoint ranges.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// `len` zero bytes.
    ///
    /// # Panics
    /// When `len` is not a multiple of [`IO_ALIGN`].
    #[must_use]
    pub fn new(len: usize) -> Arc<Chunk> {
        Arc::new(Chunk { block: Block::zeroed(len) })
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.block.len
    }

    /// True when there are no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.block.len == 0
    }

    /// Copies `bytes` in at `offset`.
    ///
    /// # Safety
    /// The caller holds the append lock of this chunk, and no byte of the range has been published, or shared by
    /// [`Chunk::io_slice`].
    ///
    /// # Panics
    /// When the range leaves the chunk.
    pub unsafe fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(bytes.len() <= self.len() && offset <= self.len() - bytes.len(), "a write leaves its chunk");
        let target = self.block.at(offset);
        // SAFETY: the range was checked to lie in the block; the caller promises that nobody else reads or writes it,
        // so it cannot overlap `bytes` either.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.as_ptr(), bytes.len()) }
    }

    /// The published bytes of a range.
    ///
    /// # Safety
    /// The range has been published, and the publication happened before this call; it is not written again while the
    /// result lives.
    ///
    /// # Panics
    /// When the range leaves the chunk.
    #[must_use]
    pub unsafe fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.len(), "a read leaves its chunk");
        let start = self.block.at(range.start);
        // SAFETY: the range lies in the initialised block, and the caller promises that nobody writes it.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), range.end - range.start) }
    }

    /// Shares a published range with the kernel.
    ///
    /// # Safety
    /// As for [`Chunk::bytes`], for as long as the slice or a clone of it lives.
    ///
    /// # Panics
    /// When the range leaves the chunk.
    #[must_use]
    pub unsafe fn io_slice(self: &Arc<Self>, range: Range<usize>) -> IoSlice {
        assert!(range.start <= range.end && range.end <= self.len(), "a slice leaves its chunk");
        let start = self.block.at(range.start);
        let owner: Arc<Chunk> = Arc::clone(self);
        // SAFETY: the chunk keeps the block alive, and the caller promises that the range is not written.
        unsafe { IoSlice::from_raw(owner, start, range.end - range.start) }
    }

    /// Makes the chunk as good as new, for another round. Exclusive access proves that no reader is left.
    pub fn clear(&mut self) {
        // SAFETY: `&mut self` is the only access to a block of exactly this length.
        unsafe { std::ptr::write_bytes(self.block.ptr.as_ptr(), 0, self.block.len) }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn buffers_are_aligned_zeroed_and_writable() {
        let mut buf = AlignedBuf::zeroed(2 * IO_ALIGN);
        assert_eq!(buf.as_ptr().addr() % IO_ALIGN, 0);
        assert!(buf.iter().all(|byte| *byte == 0));
        buf[IO_ALIGN] = 7;
        assert_eq!(buf[IO_ALIGN], 7);
        assert!(AlignedBuf::zeroed(0).is_empty());
    }

    #[test]
    fn padding_fills_the_last_block_with_zeros() {
        let buf = AlignedBuf::padded(b"anchor");
        assert_eq!(buf.len(), IO_ALIGN);
        assert_eq!(&buf[..7], b"anchor\0");
    }

    #[test]
    #[should_panic(expected = "not a multiple")]
    fn an_unaligned_length_is_refused() {
        drop(AlignedBuf::zeroed(100));
    }

    #[test]
    fn a_slice_outlives_the_name_of_its_buffer_and_crosses_threads() {
        let slice = IoSlice::from_buf(AlignedBuf::padded(b"kept"));
        let twin = slice.clone();
        drop(slice);
        let seen = std::thread::spawn(move || twin.as_bytes()[..4].to_vec()).join().expect("the reader ends");
        assert_eq!(seen, b"kept");
    }

    #[test]
    fn readers_see_published_bytes_while_the_appender_goes_on() {
        let chunk = Chunk::new(IO_ALIGN);
        let published = Arc::new(AtomicUsize::new(0));
        let reader = {
            let (chunk, published) = (Arc::clone(&chunk), Arc::clone(&published));
            std::thread::spawn(move || {
                loop {
                    let end = published.load(Ordering::Acquire);
                    // SAFETY: everything below `end` was written before the store that this load read.
                    let bytes = unsafe { chunk.bytes(0..end) };
                    assert!(bytes.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at / 16 % 251));
                    if end == 64 * 16 {
                        break;
                    }
                    std::thread::yield_now();
                }
            })
        };
        for step in 0..64_usize {
            let line = [u8::try_from(step % 251).expect("it is below 251"); 16];
            // SAFETY: this thread is the only appender and the range is not published yet.
            unsafe { chunk.write(step * 16, &line) };
            published.store((step + 1) * 16, Ordering::Release);
        }
        reader.join().expect("the reader ends");
        // SAFETY: everything was published, and nothing is written any more.
        let slice = unsafe { chunk.io_slice(0..IO_ALIGN) };
        drop(chunk);
        assert_eq!(slice.as_bytes()[63 * 16], 63);
    }

    #[test]
    fn a_cleared_chunk_is_as_good_as_new() {
        let mut chunk = Chunk::new(IO_ALIGN);
        // SAFETY: nobody else knows this chunk.
        unsafe { chunk.write(IO_ALIGN - 1, &[1]) };
        Arc::get_mut(&mut chunk).expect("nobody else holds it").clear();
        // SAFETY: the chunk is at rest.
        assert!(unsafe { chunk.bytes(0..IO_ALIGN) }.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_pool_hands_out_what_came_back_and_keeps_no_more_than_its_bound() {
        let pool = BufPool::new(IO_ALIGN, 1);
        let (mut one, two) = (pool.take(), pool.take());
        one[0] = 9;
        pool.give(one);
        pool.give(two);
        pool.give(AlignedBuf::zeroed(0));
        assert_eq!(pool.take()[0], 9);
        assert_eq!(pool.take()[0], 0);
    }

    #[cfg(feature = "sim")]
    #[test]
    #[should_panic(expected = "changed while it was in flight")]
    fn the_simulated_disk_notices_a_buffer_that_changes_in_flight() {
        use crate::io::{IoOp, OpenMode, Wait, sim::SimDisk};
        use std::path::Path;

        let backend = SimDisk::new(1).backend();
        backend.create_dir_all(Path::new("/log")).expect("no faults are planned");
        let file = backend.open(Path::new("/log/file"), OpenMode::CreateNew).expect("no faults are planned");
        let mut queue = backend.queue(1).expect("no faults are planned");
        let chunk = Chunk::new(IO_ALIGN);
        // SAFETY: the promise is broken below, on purpose, by this same thread while no reference to the bytes lives.
        let slice = unsafe { chunk.io_slice(0..IO_ALIGN) };
        queue.submit(IoOp::write_durable(0, file, 0, vec![slice]));
        // SAFETY: as above.
        unsafe { chunk.write(100, &[1]) };
        queue.reap(Wait::One, &mut Vec::new());
    }
}
