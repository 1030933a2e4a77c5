//! The io_uring backend: one ring per driver thread, set up on the thread that first submits.
//!
//! 1. What is in flight belongs to the queue's table until its completion, even when a submission fails half-way:
//!    the entry may still sit in the ring.
//! 2. Dropping a queue waits for its operations; on a thread that may not ask the ring, it leaks them on purpose.
//! 3. A short write goes on from its last whole block; a durable write to a buffered file is followed by a sync.
//!
//! ```text
//!  submit --> table of operations --> submission ring ==kernel==> completion ring --> reap
//!                    ^------------------ short? again ------------------'
//! ```
//!
//! Deliberately not here, because each was measured to hurt or to do nothing on the machines we know: kernel-side polling,
//! polled completion, linked flushes, registered buffers.

mod queue;
mod ring;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use self::ring::{Ring, SetUp};
use super::{BackendKind, DirLock, IoBackend, IoFile, IoQueue, OpenMode, file, sys};

/// Why there is no ring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingRefusal {
    /// A system call filter, as containers install them.
    #[error("a system call filter (container or sandbox) refuses io_uring")]
    Filtered,
    /// The administrator's switch.
    #[error("the setting kernel.io_uring_disabled = {level} refuses io_uring")]
    SwitchedOff {
        /// 1: for unprivileged processes outside the io_uring group; 2: for all.
        level: u8,
    },
    /// The kernel lacks it.
    #[error("this kernel has no io_uring")]
    Missing,
    /// The ring does not fit what may be locked in memory.
    #[error("the limit of locked memory (memlock) is too low for an io_uring ring")]
    NoMemory,
    /// Something else.
    #[error("io_uring cannot be set up: {reason}")]
    Other {
        /// The kernel's words.
        reason: String,
    },
}

impl RingRefusal {
    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            RingRefusal::Filtered => {
                "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile"
            }
            RingRefusal::SwitchedOff { level: 1 } => {
                "run `sysctl kernel.io_uring_disabled=0`, or name this process's group in kernel.io_uring_group"
            }
            RingRefusal::SwitchedOff { .. } => "run `sysctl kernel.io_uring_disabled=0`",
            RingRefusal::Missing => "run on Linux 5.6 or later, outside sandboxes that emulate the kernel",
            RingRefusal::NoMemory => "raise the limit (`ulimit -l`, LimitMEMLOCK=), or run on Linux 5.12 or later",
            RingRefusal::Other { .. } => "none known; plain system calls keep the same promises",
        }
    }

    fn classify(error: &io::Error, switch: Option<u8>) -> RingRefusal {
        match (error.raw_os_error(), switch) {
            (Some(libc::EPERM | libc::EACCES), Some(level @ 1..)) => RingRefusal::SwitchedOff { level },
            (Some(libc::EPERM | libc::EACCES), _) => RingRefusal::Filtered,
            // A kernel that shows the switch has the calls: something in between denies them.
            (Some(libc::ENOSYS), Some(_)) => RingRefusal::Filtered,
            (Some(libc::ENOSYS), None) => RingRefusal::Missing,
            (Some(libc::ENOMEM), _) => RingRefusal::NoMemory,
            _ => RingRefusal::Other { reason: error.to_string() },
        }
    }
}

impl From<RingRefusal> for io::Error {
    fn from(refusal: RingRefusal) -> io::Error {
        io::Error::new(io::ErrorKind::Unsupported, refusal)
    }
}

/// The administrator's switch, where the kernel shows it (since Linux 6.6).
fn switch_level() -> Option<u8> {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

/// io_uring.
#[derive(Debug)]
pub struct UringBackend {
    set_up: SetUp,
    direct: bool,
}

impl UringBackend {
    /// Sets a ring up, sends one operation through it, and remembers what the kernel accepted.
    ///
    /// # Errors
    /// Why there is no ring; [`RingRefusal::remedy`] says what to do about it.
    pub fn new() -> Result<UringBackend, RingRefusal> {
        let refuse = |error: io::Error| RingRefusal::classify(&error, switch_level());
        let mut ring = Ring::new(2, SetUp::Deferred).map_err(refuse)?;
        ring.round_trip().map_err(refuse)?;
        Ok(UringBackend { set_up: ring.set_up(), direct: true })
    }

    /// Opens all files buffered, for file systems that take `O_DIRECT` at open and refuse it later.
    #[must_use]
    pub fn without_direct_io(self) -> UringBackend {
        UringBackend { direct: false, ..self }
    }
}

impl IoBackend for UringBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Uring
    }

    fn runs_inline(&self) -> bool {
        false
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
        Ok(Box::new(queue::UringQueue::new(depth.max(1), self.set_up)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_cause() {
        let errno = io::Error::from_raw_os_error;
        let cases = [
            (libc::EPERM, Some(0), RingRefusal::Filtered),
            (libc::EPERM, None, RingRefusal::Filtered),
            (libc::EPERM, Some(1), RingRefusal::SwitchedOff { level: 1 }),
            (libc::EPERM, Some(2), RingRefusal::SwitchedOff { level: 2 }),
            (libc::ENOSYS, Some(0), RingRefusal::Filtered),
            (libc::ENOSYS, None, RingRefusal::Missing),
            (libc::ENOMEM, Some(0), RingRefusal::NoMemory),
        ];
        for (number, switch, refusal) in cases {
            assert_eq!(RingRefusal::classify(&errno(number), switch), refusal);
        }
    }
}
