//! Every bare system call of the engine, each wrapped so that safe code cannot misuse it.
//!
//! 1. **Whole or error.** [`write_all_at`] and [`read_exact_at`] continue short and interrupted calls themselves, always
//!    from a multiple of [`IO_ALIGN`].
//! 2. **Facts never fail.** What only describes the machine answers `None` or `"unknown"` where the kernel, a container or
//!    a hidden `/sys` says nothing.
//!
//! Source: the man pages named at each call.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::eventfd::EfdFlags;

use super::IO_ALIGN;
use crate::units::{align_down, to_u64, to_usize};

/// Slices that one vectored call takes at most (`UIO_MAXIOV`).
const IOVEC_COUNT_MAX: usize = 1024;

/// Calls without progress after which a transfer is given up.
const STALLS_MAX: u32 = 8;

/// What one vectored call works on: addresses that stay valid because the owner of this value keeps their owners.
#[derive(Default)]
pub(crate) struct IoVecs(Vec<libc::iovec>);

// SAFETY: the addresses are only handed to the kernel; what they point at is `Send` (`IoSlice`, `AlignedBuf`).
unsafe impl Send for IoVecs {}

impl IoVecs {
    /// Points at what is left of `slices` after their first `done` bytes, up to the kernel's limit of entries.
    pub(crate) fn point_at<S: AsRef<[u8]>>(&mut self, slices: &[S], done: usize) {
        self.0.clear();
        let mut skip = done;
        for slice in slices.iter().map(AsRef::as_ref) {
            if skip >= slice.len() {
                skip -= slice.len();
                continue;
            }
            if self.0.len() == IOVEC_COUNT_MAX {
                break;
            }
            let rest = &slice[skip..];
            self.0.push(libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() });
            skip = 0;
        }
    }

    /// Points at what is left of one buffer that is to be filled.
    pub(crate) fn point_at_buf(&mut self, buf: &mut [u8], done: usize) {
        self.0.clear();
        let rest = &mut buf[done..];
        self.0.push(libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() });
    }

    /// Address of the first entry, valid until the next change.
    pub(crate) fn as_ptr(&self) -> *const libc::iovec {
        self.0.as_ptr()
    }

    /// Entries.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.0.len()).expect("there are at most IOVEC_COUNT_MAX entries")
    }
}

/// How far a transfer has come; decides how it goes on after a short call.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Bytes that are certainly done, a multiple of [`IO_ALIGN`] until the end is reached.
    pub(crate) done: usize,
    total: usize,
    stalls: u32,
}

impl Progress {
    pub(crate) fn new(total: usize) -> Progress {
        Progress { done: 0, total, stalls: 0 }
    }

    /// Whether everything was transferred.
    pub(crate) fn is_complete(&self) -> bool {
        self.done >= self.total
    }

    /// Takes the result of one call. Bytes behind the last whole block are transferred again.
    ///
    /// # Errors
    /// The kernel's, other than an interruption; `at_zero` when nothing moves any more.
    pub(crate) fn advance(&mut self, result: io::Result<usize>, at_zero: io::ErrorKind) -> io::Result<()> {
        let before = self.done;
        match result {
            Ok(0) => return Err(io::Error::new(at_zero, "the transfer ended before all bytes were moved")),
            Ok(count) if self.done + count >= self.total => self.done = self.total,
            Ok(count) => self.done = to_usize(align_down(to_u64(self.done + count), to_u64(IO_ALIGN))),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) => {}
                _ => return Err(error),
            },
        }
        self.stalls = if self.done > before { 0 } else { self.stalls + 1 };
        if self.stalls > STALLS_MAX {
            return Err(io::Error::new(at_zero, "the kernel repeats short or interrupted transfers without progress"));
        }
        Ok(())
    }
}

/// Total length of the slices.
pub(crate) fn total_len<S: AsRef<[u8]>>(slices: &[S]) -> usize {
    slices.iter().map(|slice| slice.as_ref().len()).sum()
}

/// Writes all slices, one after the other, at `offset`; with `dsync`, returning means durable (pwritev2(2), `RWF_DSYNC`).
///
/// # Errors
/// The kernel's; `WriteZero` when it stops taking bytes. After an error nothing is known about the range.
pub fn write_all_at<S: AsRef<[u8]>>(fd: BorrowedFd<'_>, slices: &[S], offset: u64, dsync: bool) -> io::Result<()> {
    let flags = if dsync { libc::RWF_DSYNC } else { 0 };
    let mut progress = Progress::new(total_len(slices));
    let mut iovecs = IoVecs::default();
    while !progress.is_complete() {
        iovecs.point_at(slices, progress.done);
        let result = pwritev2(fd, &iovecs, offset + to_u64(progress.done), flags);
        progress.advance(result, io::ErrorKind::WriteZero)?;
    }
    Ok(())
}

fn pwritev2(fd: BorrowedFd<'_>, iovecs: &IoVecs, offset: u64, flags: libc::c_int) -> io::Result<usize> {
    let count = iovecs.0.len().cast_signed().try_into().map_err(|_| Errno::EINVAL)?;
    // SAFETY: the entries point at memory that the caller's slices keep alive and unwritten during the call.
    let written = unsafe { libc::pwritev2(fd.as_raw_fd(), iovecs.as_ptr(), count, file_offset(offset)?, flags) };
    Ok(Errno::result(written)?.cast_unsigned())
}

/// Fills `buf` from `offset` (preadv(2)).
///
/// # Errors
/// The kernel's; `UnexpectedEof` when the file ends first.
pub fn read_exact_at(fd: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> io::Result<()> {
    let mut progress = Progress::new(buf.len());
    while !progress.is_complete() {
        let at = file_offset(offset + to_u64(progress.done))?;
        let mut rest = [io::IoSliceMut::new(&mut buf[progress.done..])];
        let result = nix::sys::uio::preadv(fd, &mut rest, at).map_err(io::Error::from);
        progress.advance(result, io::ErrorKind::UnexpectedEof)?;
    }
    Ok(())
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::Error::from(Errno::EOVERFLOW))
}

/// Allocates `len` bytes and makes that the size of the file (fallocate(2), ftruncate(2)). Where the file system cannot
/// allocate ahead, only the size is set.
///
/// # Errors
/// The kernel's; `StorageFull` when the space is not there.
pub fn allocate(fd: BorrowedFd<'_>, len: u64) -> io::Result<()> {
    let size = file_offset(len)?;
    if size > 0 {
        let done = uninterrupted(|| nix::fcntl::fallocate(fd, nix::fcntl::FallocateFlags::empty(), 0, size));
        match done {
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(uninterrupted(|| nix::unistd::ftruncate(fd, size))?)
}

/// Gives the space of a range back; it reads as zeros, and the size stays (fallocate(2), `FALLOC_FL_PUNCH_HOLE`).
///
/// # Errors
/// The kernel's; `Unsupported` where the file system has no holes.
pub fn punch_hole(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    use nix::fcntl::FallocateFlags;
    if len == 0 {
        return Ok(());
    }
    let (offset, len) = (file_offset(offset)?, file_offset(len)?);
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match uninterrupted(|| nix::fcntl::fallocate(fd, flags, offset, len)) {
        Err(errno @ (Errno::EOPNOTSUPP | Errno::ENOSYS)) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, format!("the file system punches no holes: {errno}")))
        }
        result => Ok(result?),
    }
}

/// Makes completed writes and the size durable (fdatasync(2)). Never retried, not even when interrupted.
///
/// # Errors
/// The kernel's.
pub fn sync_data(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(nix::unistd::fdatasync(fd)?)
}

/// Makes everything about a file or the names in a directory durable (fsync(2)).
///
/// # Errors
/// The kernel's.
pub fn sync_all(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(nix::unistd::fsync(fd)?)
}

fn uninterrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Alignment that direct I/O asks for, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DioAlign {
    /// Of addresses in memory.
    pub memory: u32,
    /// Of offsets and lengths in the file.
    pub offset: u32,
}

/// What the file system says about direct I/O on a regular file (statx(2), `STATX_DIOALIGN`); `None` where it says nothing.
#[must_use]
pub fn dio_align(fd: BorrowedFd<'_>) -> Option<DioAlign> {
    let mut answer = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the empty path is a valid C string, and the answer has room for the structure.
    let rc = unsafe {
        libc::statx(fd.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, answer.as_mut_ptr())
    };
    if rc != 0 {
        return None;
    }
    // SAFETY: the structure is plain integers; it was zeroed, and the kernel filled in what it knows.
    let answer = unsafe { answer.assume_init() };
    (answer.stx_mask & libc::STATX_DIOALIGN != 0 && answer.stx_dio_offset_align != 0)
        .then_some(DioAlign { memory: answer.stx_dio_mem_align, offset: answer.stx_dio_offset_align })
}

/// Bytes that an unprivileged write in `dir` could still use (statvfs(3)).
///
/// # Errors
/// The kernel's.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = uninterrupted(|| nix::sys::statvfs::statvfs(dir))?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Bytes that a file may have that this process writes; `None` when unlimited or unknown (getrlimit(2), `RLIMIT_FSIZE`). Beyond it the
/// kernel does not only refuse: it sends `SIGXFSZ`, which ends a process that does not heed it.
#[must_use]
pub fn file_bytes_limit() -> Option<u64> {
    let (soft, _hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE).ok()?;
    (soft != libc::RLIM_INFINITY).then_some(soft)
}

/// Bytes that this process may lock in memory; `None` when unlimited or unknown (getrlimit(2), `RLIMIT_MEMLOCK`).
#[must_use]
pub fn memlock_limit() -> Option<u64> {
    let (soft, _hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK).ok()?;
    (soft != libc::RLIM_INFINITY).then_some(soft)
}

/// Release of the running kernel, or `"unknown"` (uname(2)).
#[must_use]
pub fn kernel_release() -> String {
    nix::sys::utsname::uname().map_or_else(|_| UNKNOWN.to_owned(), |name| name.release().to_string_lossy().into_owned())
}

/// A file locked against other opens of the same file, in this process and in others (flock(2)).
#[derive(Debug)]
pub struct LockedFile(nix::fcntl::Flock<fs::File>);

impl LockedFile {
    /// Takes the lock without waiting; hands the file back when somebody else has it.
    ///
    /// # Errors
    /// `WouldBlock` when it is held, else the kernel's.
    pub fn try_lock(file: fs::File) -> Result<LockedFile, (fs::File, io::Error)> {
        nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock)
            .map(LockedFile)
            .map_err(|(file, errno)| (file, errno.into()))
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &fs::File {
        &self.0
    }
}

/// A wake-up that a poll loop can wait for (eventfd(2)).
#[derive(Debug)]
pub struct EventFd(nix::sys::eventfd::EventFd);

impl EventFd {
    /// An event that has not happened.
    ///
    /// # Errors
    /// The kernel's, when descriptors run out.
    pub fn new() -> io::Result<EventFd> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(EventFd(nix::sys::eventfd::EventFd::from_flags(flags)?))
    }

    /// Makes the descriptor readable. Signals that nobody has drained yet melt into one.
    pub fn signal(&self) {
        // The only refusal is a counter at its end, and then the descriptor is readable already.
        let _full = uninterrupted(|| self.0.write(1));
    }

    /// Makes the descriptor unreadable; true when there had been a signal.
    #[must_use]
    pub fn drain(&self) -> bool {
        uninterrupted(|| self.0.read()).is_ok()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// How a [`futex_wait`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FutexWait {
    /// Woken, interrupted, or the word was not as expected: look again.
    Look,
    /// The time was up.
    TimedOut,
}

/// Sleeps while `word` holds `expected`, at most `timeout` (futex(2), private).
pub fn futex_wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> FutexWait {
    let limit = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word and the time limit are borrowed for longer than the call; the kernel writes neither.
    let rc = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, expected, limit) };
    if rc == -1 && Errno::last() == Errno::ETIMEDOUT { FutexWait::TimedOut } else { FutexWait::Look }
}

/// Wakes up to `count` threads that sleep on `word`; answers how many there were.
pub fn futex_wake(word: &AtomicU32, count: u32) -> u32 {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel uses the address as a name only.
    let rc = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, count) };
    u32::try_from(rc).unwrap_or(0)
}

/// What facts say when the machine keeps them to itself.
pub const UNKNOWN: &str = "unknown";

/// Type of the file system that `path` lies on: the mount table's word, else a name for the kernel's number (statfs(2)).
#[must_use]
pub fn filesystem_type(path: &Path) -> String {
    mounted_type(path).unwrap_or_else(|| magic_type(path))
}

/// The mount table has the exact name where the kernel's number is shared (ext2, ext3, ext4); see proc_pid_mountinfo(5).
fn mounted_type(path: &Path) -> Option<String> {
    let device = fs::metadata(path).ok()?.dev();
    let wanted = format!("{}:{}", libc::major(device), libc::minor(device));
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    table.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        (mount.split(' ').nth(2)? == wanted).then(|| source.split(' ').next().map(str::to_owned))?
    })
}

fn magic_type(path: &Path) -> String {
    let Ok(stat) = nix::sys::statfs::statfs(path) else { return UNKNOWN.to_owned() };
    let magic = stat.filesystem_type().0 & 0xffff_ffff;
    match magic {
        0xef53 => "ext".to_owned(),
        0x5846_5342 => "xfs".to_owned(),
        0x9123_683e => "btrfs".to_owned(),
        0x0102_1994 => "tmpfs".to_owned(),
        0x794c_7630 => "overlay".to_owned(),
        0x6969 => "nfs".to_owned(),
        0x2fc1_2fc1 => "zfs".to_owned(),
        0xf15f => "ecryptfs".to_owned(),
        0x0102_1997 => "9p".to_owned(),
        0x6573_5546 => "fuse".to_owned(),
        0xf2f5_2010 => "f2fs".to_owned(),
        other => format!("{UNKNOWN} ({other:#x})"),
    }
}

/// The disk below a directory, as `/sys` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    /// Kernel name of the whole disk, such as `nvme0n1`.
    pub name: String,
    /// What the maker calls it.
    pub model: String,
    /// `write back` (volatile cache) or `write through`.
    pub write_cache: String,
    /// Whether a single write can be forced to the medium without a flush.
    pub fua: Option<bool>,
    /// Physical block in bytes.
    pub physical_block: Option<u64>,
    /// Logical block in bytes.
    pub logical_block: Option<u64>,
    /// The scheduler in use.
    pub scheduler: String,
    dir: PathBuf,
}

/// Counters of a disk since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockStats {
    /// Write requests that completed.
    pub writes: u64,
    /// Sectors of 512 bytes written.
    pub sectors_written: u64,
    /// Flush requests that completed; `None` before Linux 5.5.
    pub flushes: Option<u64>,
}

impl BlockDevice {
    /// The whole disk below `path`; `None` on file systems without one disk (tmpfs, overlay, network).
    #[must_use]
    pub fn below(path: &Path) -> Option<BlockDevice> {
        let device = fs::metadata(path).ok()?.dev();
        let entry = format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device));
        let mut dir = fs::canonicalize(entry).ok()?;
        if dir.join("partition").exists() {
            dir.pop();
        }
        Some(BlockDevice {
            name: dir.file_name().map_or_else(|| UNKNOWN.to_owned(), |name| name.to_string_lossy().into_owned()),
            model: fact(&dir, "device/model").unwrap_or_else(|| UNKNOWN.to_owned()),
            write_cache: fact(&dir, "queue/write_cache").unwrap_or_else(|| UNKNOWN.to_owned()),
            fua: fact(&dir, "queue/fua").map(|word| word == "1"),
            physical_block: number(&dir, "queue/physical_block_size"),
            logical_block: number(&dir, "queue/logical_block_size"),
            scheduler: fact(&dir, "queue/scheduler").map_or_else(|| UNKNOWN.to_owned(), |line| chosen_word(&line)),
            dir,
        })
    }

    /// The counters now. Source: Documentation/admin-guide/iostats.rst.
    #[must_use]
    pub fn stats(&self) -> Option<BlockStats> {
        let line = fact(&self.dir, "stat")?;
        let fields: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        Some(BlockStats { writes: *fields.get(4)?, sectors_written: *fields.get(6)?, flushes: fields.get(15).copied() })
    }
}

impl fmt::Display for BlockDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, write cache: {})", self.name, self.model, self.write_cache)
    }
}

fn fact(dir: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(dir.join(name)).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn number(dir: &Path, name: &str) -> Option<u64> {
    fact(dir, name)?.parse().ok()
}

/// `/sys` lists all schedulers and puts brackets around the one in use.
fn chosen_word(line: &str) -> String {
    line.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']')).unwrap_or(line).to_owned()
}

/// Makes io_uring fail with `errno` in this thread and what it starts, as container filters do; for tests of the fallback.
///
/// # Panics
/// When the kernel refuses the filter.
#[cfg(test)]
pub(crate) fn refuse_io_uring(errno: Errno) {
    let load_number = u16::try_from(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS).expect("it is a 16-bit code");
    let jump_below = u16::try_from(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K).expect("it is a 16-bit code");
    let answer = u16::try_from(libc::BPF_RET | libc::BPF_K).expect("it is a 16-bit code");
    let refusal = libc::SECCOMP_RET_ERRNO | (errno as i32).cast_unsigned();
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // io_uring_setup, io_uring_enter and io_uring_register are 425 to 427 on every architecture.
    let mut program = [
        step(load_number, 0, 0, 0),
        step(jump_below, 0, 2, 425),
        step(jump_below, 1, 0, 428),
        step(answer, 0, 0, refusal),
        step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).expect("the program is short"),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: takes integers only.
    let rc = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(rc, 0, "the kernel promises no new privileges");
    // SAFETY: the filter points at a program that outlives the call; the kernel copies it.
    let rc = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, std::ptr::from_ref(&filter)) };
    assert_eq!(rc, 0, "the kernel takes the filter");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::super::buffer::{AlignedBuf, IoSlice};
    use super::*;

    fn slices(blocks: &[usize]) -> Vec<IoSlice> {
        blocks.iter().map(|count| IoSlice::from_buf(AlignedBuf::zeroed(count * IO_ALIGN))).collect()
    }

    #[test]
    fn a_short_write_goes_on_from_the_last_whole_block() {
        let mut progress = Progress::new(4 * IO_ALIGN);
        progress.advance(Ok(IO_ALIGN + 512), io::ErrorKind::WriteZero).expect("it is progress");
        assert_eq!(progress.done, IO_ALIGN);
        progress.advance(Err(Errno::EINTR.into()), io::ErrorKind::WriteZero).expect("an interruption is no error");
        progress.advance(Ok(3 * IO_ALIGN), io::ErrorKind::WriteZero).expect("it is progress");
        assert!(progress.is_complete());
    }

    #[test]
    fn a_transfer_that_never_moves_is_an_error_in_the_end() {
        let mut progress = Progress::new(2 * IO_ALIGN);
        let outcome = (0..100).try_for_each(|_| progress.advance(Ok(512), io::ErrorKind::WriteZero));
        assert_eq!(outcome.expect_err("it cannot go on for ever").kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn vectors_skip_what_is_done_and_stop_at_the_kernels_limit() {
        let mut iovecs = IoVecs::default();
        let three = slices(&[1, 2, 1]);
        iovecs.point_at(&three, 2 * IO_ALIGN);
        assert_eq!(iovecs.count(), 2);
        assert_eq!(iovecs.0[0].iov_len, IO_ALIGN);
        iovecs.point_at(&slices(&[1; IOVEC_COUNT_MAX + 1]), 0);
        assert_eq!(iovecs.count(), 1024);
    }

    #[test]
    fn an_event_is_readable_from_signal_to_drain() {
        let event = EventFd::new().expect("there are descriptors");
        assert!(!event.drain());
        event.signal();
        event.signal();
        assert!(event.drain());
        assert!(!event.drain());
    }

    #[test]
    fn a_futex_sleeps_until_woken_or_out_of_time() {
        let word = Arc::new(AtomicU32::new(0));
        assert_eq!(futex_wait(&word, 1, None), FutexWait::Look);
        assert_eq!(futex_wait(&word, 0, Some(Duration::from_millis(1))), FutexWait::TimedOut);
        let sleeper = {
            let word = Arc::clone(&word);
            std::thread::spawn(move || {
                while word.load(Ordering::Acquire) == 0 {
                    futex_wait(&word, 0, None);
                }
            })
        };
        word.store(1, Ordering::Release);
        futex_wake(&word, u32::MAX);
        sleeper.join().expect("the sleeper ends");
    }

    #[test]
    fn facts_of_an_odd_place_are_unknown_not_errors() {
        assert_eq!(BlockDevice::below(Path::new("/proc")), None);
        assert_eq!(filesystem_type(Path::new("/proc")), "proc");
        assert_eq!(filesystem_type(Path::new("/no/such/place")), UNKNOWN);
        assert_eq!(chosen_word("mq-deadline [none] bfq"), "none");
    }

    #[test]
    fn a_real_directory_has_free_space_and_perhaps_a_disk() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert!(free_bytes(dir.path()).expect("it exists") > 0);
        if let Some(disk) = BlockDevice::below(dir.path()) {
            assert!(disk.stats().is_some());
        }
        assert_ne!(kernel_release(), UNKNOWN);
    }
}
