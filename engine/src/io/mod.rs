//! The I/O seam: everything durable passes here, and nothing above can tell a real disk from the simulated one.
//!
//! Promises, numbered so that asserts and tests can cite them:
//! 1. **Buffers travel.** An [`IoOp`] owns what it reads into or writes from until its [`IoCompletion`] hands it back;
//!    dropping a queue waits for what is in flight (or leaks it on purpose), never frees it.
//! 2. **Whole or error.** A write completes with all of its bytes or with an error; short writes and interrupted calls
//!    are continued inside the backend, from an aligned offset.
//! 3. **Durable means durable.** A write with [`IoOp::write_durable`] and a completed [`IoOp::sync_data`] have reached
//!    stable storage, as far as the device tells the truth.
//! 4. **Names are durable after [`IoBackend::sync_dir`]**, not before.
//!
//! Three backends stand behind it: [`uring`], [`threads`] and, with the feature `sim`, `sim`. What is deliberately not
//! here: what the bytes mean, and when a flush is due.

#[expect(unsafe_code, reason = "raw aligned memory is allocated, shared with the kernel and freed here")]
pub mod buffer;
mod file;
#[expect(unsafe_code, reason = "a hint to the processor takes an address, and does not look at what is there")]
pub(crate) mod prefetch;
pub mod probe;
#[cfg(feature = "sim")]
pub mod sim;
#[expect(unsafe_code, reason = "every bare system call of the engine is made here")]
pub mod sys;
pub mod threads;
#[expect(unsafe_code, reason = "submission entries point at memory that the ring owns until their completion")]
pub mod uring;

#[cfg(test)]
pub(crate) mod tests;

use std::any::Any;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

pub use buffer::{AlignedBuf, IoSlice};

/// Alignment, in bytes, of every offset, length and address that reaches a durable file.
///
/// 4096 is the physical block of common NVMe and cloud disks; where 512 would be accepted, 4096 was measured to be as fast.
pub const IO_ALIGN: usize = 4096;

/// Whether an error says that there is no room: the disk is full, a quota is used up, or the file may not grow. Nothing else is wrong.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Which implementation moves the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackendKind {
    /// `io_uring`: one ring per driver thread.
    Uring,
    /// Plain `pwritev2`/`preadv2` calls, on the driver's own thread at depth 1.
    Threads,
    /// The simulated disk (feature `sim`).
    Sim,
}

impl std::fmt::Display for BackendKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BackendKind::Uring => "uring",
            BackendKind::Threads => "threads",
            BackendKind::Sim => "sim",
        })
    }
}

/// How [`IoBackend::open`] treats the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// The file must exist; it is opened for reading and writing.
    Existing,
    /// The file must exist; it is only read, so neither its mode nor its file system need allow more.
    ReadOnly,
    /// The file is created; it is an error if it exists.
    CreateNew,
}

/// A directory held by this process alone, until dropped.
pub trait DirLock: Send + Sync {}

/// Files and names of one storage device. Calls block; those on the append path go through an [`IoQueue`] instead.
pub trait IoBackend: Send + Sync + 'static {
    /// Which implementation this is.
    fn kind(&self) -> BackendKind;

    /// A number that no other call returns, here or on another machine: a log's identity.
    fn new_identity(&self) -> u128 {
        use std::hash::{BuildHasher, Hasher, RandomState};
        let half = || {
            let mut hasher = RandomState::new().build_hasher();
            hasher.write_u32(std::process::id());
            hasher.finish()
        };
        u128::from(half()) << 64 | u128::from(half())
    }

    /// True when an [`IoQueue`] of depth 1 runs its operation inside `submit`, on the calling thread, so that any thread may drive it.
    fn runs_inline(&self) -> bool;

    /// Creates `dir` and its parents, durably.
    ///
    /// # Errors
    /// The kernel's.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Names of the regular files in `dir`, sorted.
    ///
    /// # Errors
    /// The kernel's.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Names of the directories in `dir`, sorted.
    ///
    /// # Errors
    /// The kernel's.
    fn dirs(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Removes a directory in which nothing is left.
    ///
    /// # Errors
    /// The kernel's.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the lock file `path`, creating it if needed, and writes the process id into it.
    ///
    /// # Errors
    /// `WouldBlock` when another process (or another engine in this one) holds it; the message carries that process's id.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>>;

    /// Opens a file for aligned direct I/O, or, where the file system refuses `O_DIRECT`, buffered with the same promises.
    ///
    /// # Errors
    /// The kernel's.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn IoFile>>;

    /// Renames a file, replacing the target. Durable after [`IoBackend::sync_dir`].
    ///
    /// # Errors
    /// The kernel's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name. Durable after [`IoBackend::sync_dir`].
    ///
    /// # Errors
    /// The kernel's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable.
    ///
    /// # Errors
    /// The kernel's.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Longest file that may be written, even within its length: beyond it the kernel may end the process. `None` without such a bound.
    fn file_bytes_max(&self) -> Option<u64> {
        None
    }

    /// Bytes that a write in `dir` could still use.
    ///
    /// # Errors
    /// The kernel's.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// A submission queue that takes up to `depth` operations at once. Made and used by one driver thread
    /// (by any thread, one at a time, where [`IoBackend::runs_inline`] and `depth` is 1).
    ///
    /// # Errors
    /// The kernel's, when no ring can be set up.
    fn queue(&self, depth: usize) -> io::Result<Box<dyn IoQueue>>;
}

/// One open file. All offsets and lengths are multiples of [`IO_ALIGN`].
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a file of whole segments is empty")]
pub trait IoFile: Any + Send + Sync {
    /// Length in bytes.
    ///
    /// # Errors
    /// The kernel's.
    fn len(&self) -> io::Result<u64>;

    /// Allocates `len` bytes and sets the size, without a signal where files may not be so long: the file grows or shrinks to it. What is
    /// new is unwritten until something writes it, and reads as zeros.
    ///
    /// # Errors
    /// The kernel's; [`is_full`] when the space is not there.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Gives the space of `len` bytes at `offset` back to the file system. They read as zeros from now on, the length stays, and writing
    /// them takes space again. Durable after [`IoFile::sync`]: until then a power failure may bring any of the old bytes back.
    ///
    /// # Errors
    /// The kernel's; `Unsupported` where the file system cannot, and nothing has changed.
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Reads exactly `buf.len()` bytes at `offset`; bytes beyond the end of the file read as an `UnexpectedEof` error.
    ///
    /// # Errors
    /// The kernel's.
    fn read_at(&self, buf: &mut AlignedBuf, offset: u64) -> io::Result<()>;

    /// Writes all of `buf` at `offset`; when it returns with `durable`, the bytes are on stable storage.
    ///
    /// # Errors
    /// The kernel's. After an error nothing is known about the range.
    fn write_at(&self, buf: &AlignedBuf, offset: u64, durable: bool) -> io::Result<()>;

    /// Makes completed writes durable, and the file's size with them.
    ///
    /// # Errors
    /// The kernel's. It is never retried: the kernel may have dropped the dirty state.
    fn sync(&self) -> io::Result<()>;

    /// True when writes bypass the page cache; false where the file system refused `O_DIRECT`.
    fn is_direct(&self) -> bool;

    /// The descriptor, where there is one.
    fn fd(&self) -> Option<BorrowedFd<'_>>;
}

/// What an [`IoOp`] does.
#[derive(Debug)]
pub enum IoAction {
    /// Writes the slices, one after the other, at `offset`. Every length is a multiple of [`IO_ALIGN`].
    Write {
        /// Byte offset in the file.
        offset: u64,
        /// What is written.
        slices: Vec<IoSlice>,
        /// Whether completion means durable (`RWF_DSYNC`).
        durable: bool,
    },
    /// Fills the buffer from `offset`.
    Read {
        /// Byte offset in the file.
        offset: u64,
        /// Where the bytes go.
        buf: AlignedBuf,
    },
    /// Makes what has completed before it was submitted durable (`fdatasync`).
    SyncData,
}

/// One operation, owned by the queue from submission to completion.
pub struct IoOp {
    /// Chosen by the submitter, handed back.
    pub token: u64,
    /// The file it works on.
    pub file: Arc<dyn IoFile>,
    /// What it does.
    pub action: IoAction,
}

impl IoOp {
    /// A write that is durable when it completes.
    #[must_use]
    pub fn write_durable(token: u64, file: Arc<dyn IoFile>, offset: u64, slices: Vec<IoSlice>) -> IoOp {
        IoOp { token, file, action: IoAction::Write { offset, slices, durable: true } }
    }

    /// A write that is given to the device, durable only after a later sync.
    #[must_use]
    pub fn write(token: u64, file: Arc<dyn IoFile>, offset: u64, slices: Vec<IoSlice>) -> IoOp {
        IoOp { token, file, action: IoAction::Write { offset, slices, durable: false } }
    }

    /// A read of `buf.len()` bytes.
    #[must_use]
    pub fn read(token: u64, file: Arc<dyn IoFile>, offset: u64, buf: AlignedBuf) -> IoOp {
        IoOp { token, file, action: IoAction::Read { offset, buf } }
    }

    /// A flush of the file's completed writes.
    #[must_use]
    pub fn sync_data(token: u64, file: Arc<dyn IoFile>) -> IoOp {
        IoOp { token, file, action: IoAction::SyncData }
    }
}

/// A finished operation, with its buffers.
pub struct IoCompletion {
    /// The operation as submitted; a read's buffer is filled.
    pub op: IoOp,
    /// Whether all of it happened.
    pub result: io::Result<()>,
}

/// Whether [`IoQueue::reap`] may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Returns at once.
    No,
    /// Returns when at least one operation has completed (at once when none is in flight).
    One,
}

/// A submission queue of one driver.
pub trait IoQueue: Send {
    /// Starts an operation. At most the queue's depth may be in flight; more is a bug of the caller and panics.
    ///
    /// # Errors
    /// Never loses the operation: what cannot be started completes with the error instead.
    fn submit(&mut self, op: IoOp);

    /// Appends what has completed to `out`.
    fn reap(&mut self, wait: Wait, out: &mut Vec<IoCompletion>);

    /// Operations submitted and not yet handed back.
    fn in_flight(&self) -> usize;
}
