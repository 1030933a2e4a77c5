//! The plain backend: `pwritev2` and `preadv` on ordinary threads, for kernels and containers that refuse io_uring and for
//! busy machines, where no kernel worker has to be scheduled before a write completes.
//!
//! ```text
//!  depth 1:  submit --> system call --> done          all on the caller's thread
//!  depth n:  submit --> channel --> worker threads --> channel --> reap
//! ```
//!
//! Source: the contention table in `perf/records/` (a commit thread that calls the kernel itself keeps its rate beside
//! other work; asynchronous completions wait for a kernel worker).

mod queue;

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{BackendKind, DirLock, IoBackend, IoFile, IoQueue, OpenMode, file, sys};

/// Plain system calls.
#[derive(Debug)]
pub struct ThreadsBackend {
    direct: bool,
}

impl ThreadsBackend {
    /// Needs nothing but a Linux kernel.
    #[must_use]
    pub fn new() -> ThreadsBackend {
        ThreadsBackend { direct: true }
    }

    /// Opens all files buffered, for file systems that take `O_DIRECT` at open and refuse it later.
    #[must_use]
    pub fn without_direct_io(self) -> ThreadsBackend {
        ThreadsBackend { direct: false }
    }
}

impl Default for ThreadsBackend {
    fn default() -> Self {
        ThreadsBackend::new()
    }
}

impl IoBackend for ThreadsBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Threads
    }

    fn runs_inline(&self) -> bool {
        true
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        file::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        file::list(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        file::lock(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn IoFile>> {
        file::open(path, mode, self.direct)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        file::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        file::remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        file::sync_dir(dir)
    }

    fn dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        file::dirs(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        file::remove_dir(dir)
    }

    fn file_bytes_max(&self) -> Option<u64> {
        sys::file_bytes_limit()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        sys::free_bytes(dir)
    }

    fn queue(&self, depth: usize) -> io::Result<Box<dyn IoQueue>> {
        if depth <= 1 { Ok(Box::new(queue::InlineQueue::default())) } else { queue::PoolQueue::start(depth) }
    }
}
