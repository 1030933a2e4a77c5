//! One ring, bound to the thread that made it, and the few files it knows by number.

use std::io;
use std::ptr;
use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};

use io_uring::{EnterFlags, IoUring, opcode, squeue};

use super::super::file::descriptor;
use super::super::{IoFile, sys::IoVecs};

/// Files that one ring knows by number. Few, because the kernel keeps them open for as long as they are in the table.
const FILE_COUNT: usize = 8;

/// How much of the newer kernels' completion control a ring uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SetUp {
    /// Completions are processed when this thread asks, nowhere else (Linux 6.1).
    Deferred,
    /// One thread submits (Linux 6.0).
    SingleIssuer,
    /// No interruption for completions (Linux 5.19).
    Cooperative,
    /// Nothing special.
    Plain,
}

impl SetUp {
    fn build(self, entries: u32) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        match self {
            SetUp::Deferred => builder.setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun(),
            SetUp::SingleIssuer => builder.setup_single_issuer().setup_coop_taskrun(),
            SetUp::Cooperative => builder.setup_coop_taskrun(),
            SetUp::Plain => &mut builder,
        };
        builder.build(entries)
    }

    fn simpler(self) -> Option<SetUp> {
        match self {
            SetUp::Deferred => Some(SetUp::SingleIssuer),
            SetUp::SingleIssuer => Some(SetUp::Cooperative),
            SetUp::Cooperative => Some(SetUp::Plain),
            SetUp::Plain => None,
        }
    }
}

/// What a submission entry asks for. The pointers stay valid until its completion; the table of operations sees to it.
pub(super) enum Request<'a> {
    Write { iovecs: &'a IoVecs, offset: u64, dsync: bool },
    Read { iovecs: &'a IoVecs, offset: u64 },
    SyncData,
}

/// A ring of this thread.
pub(super) struct Ring {
    ring: IoUring,
    set_up: SetUp,
    thread: ThreadId,
    files: Option<FileTable>,
    /// Set when the kernel refused a submission for good: what sits in the submission ring must never be taken.
    sealed: bool,
}

impl Ring {
    /// A ring with room for `entries`; steps down from `set_up` to what the kernel knows.
    pub(super) fn new(entries: u32, set_up: SetUp) -> io::Result<Ring> {
        let mut set_up = set_up;
        let ring = loop {
            match (set_up.build(entries), set_up.simpler()) {
                (Err(error), Some(simpler)) if error.raw_os_error() == Some(libc::EINVAL) => set_up = simpler,
                (result, _) => break result?,
            }
        };
        let files = FileTable::register(&ring);
        Ok(Ring { ring, set_up, thread: thread::current().id(), files, sealed: false })
    }

    pub(super) fn set_up(&self) -> SetUp {
        self.set_up
    }

    /// Whether the calling thread may use this ring.
    pub(super) fn is_ours(&self) -> bool {
        self.thread == thread::current().id()
    }

    /// Sends one empty operation through the ring.
    pub(super) fn round_trip(&mut self) -> io::Result<()> {
        let entry = opcode::Nop::new().build();
        // SAFETY: the operation names no memory.
        unsafe { self.push(&entry) };
        self.enter(1)?;
        match self.ring.completion().next() {
            Some(completion) if completion.result() >= 0 => Ok(()),
            Some(completion) => Err(io::Error::from_raw_os_error(-completion.result())),
            None => Err(io::Error::other("an empty operation did not complete")),
        }
    }

    /// Queues a request under `token`.
    ///
    /// # Safety
    /// The request's vectors, and the memory they point at, stay valid and in place until the completion with this token
    /// was taken or the ring is gone with all its operations; a read's memory is not touched until then, a write's is not
    /// changed.
    pub(super) unsafe fn request(
        &mut self,
        token: u64,
        file: &Arc<dyn IoFile>,
        request: &Request<'_>,
    ) -> io::Result<()> {
        let fd = descriptor(&**file)?;
        let idle = self.queued() == 0;
        let number = self.files.as_mut().and_then(|files| files.number_of(&self.ring, file, idle));
        let target = io_uring::types::Fd(number.unwrap_or(std::os::fd::AsRawFd::as_raw_fd(&fd)));
        let entry = match request {
            Request::Write { iovecs, offset, dsync } => {
                let flags = if *dsync { libc::RWF_DSYNC } else { 0 };
                opcode::Writev::new(target, iovecs.as_ptr(), iovecs.count()).offset(*offset).rw_flags(flags).build()
            }
            Request::Read { iovecs, offset } => {
                opcode::Readv::new(target, iovecs.as_ptr(), iovecs.count()).offset(*offset).build()
            }
            Request::SyncData => opcode::Fsync::new(target).flags(io_uring::types::FsyncFlags::DATASYNC).build(),
        };
        let entry = if number.is_some() { entry.flags(squeue::Flags::FIXED_FILE) } else { entry };
        // SAFETY: the caller vouches for the memory; the descriptor or its number belongs to a file that the operation owns.
        unsafe { self.push(&entry.user_data(token)) };
        Ok(())
    }

    /// # Safety
    /// As for [`Ring::request`].
    unsafe fn push(&mut self, entry: &squeue::Entry) {
        let mut submission = self.ring.submission();
        // SAFETY: the caller vouches for the memory that the entry names.
        let pushed = unsafe { submission.push(entry) };
        pushed.expect("each operation has one entry at a time, and the ring has room for all operations");
    }

    /// Entries that the kernel has not taken yet.
    pub(super) fn queued(&mut self) -> usize {
        self.ring.submission().len()
    }

    /// Hands queued entries to the kernel, and waits for `want` completions.
    pub(super) fn enter(&mut self, want: u32) -> io::Result<()> {
        let queued = if self.sealed { 0 } else { self.queued() };
        let to_submit = u32::try_from(queued).expect("rings have fewer entries than that");
        // Completions of a deferred ring are only processed by a call with this flag.
        let flags = EnterFlags::GETEVENTS.bits();
        let submitter = self.ring.submitter();
        // SAFETY: no argument is passed; whoever queued the entries vouched for what they name.
        unsafe { submitter.enter::<libc::sigset_t>(to_submit, want, flags, None) }.map(drop)
    }

    /// Gives up on what is queued: the kernel never gets to see it.
    pub(super) fn seal(&mut self) {
        self.sealed = true;
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// The next completion: token and the kernel's result.
    pub(super) fn completion(&mut self) -> Option<(u64, io::Result<usize>)> {
        let completion = self.ring.completion().next()?;
        let result = usize::try_from(completion.result())
            .map_err(|_negative| io::Error::from_raw_os_error(completion.result().wrapping_neg()));
        Some((completion.user_data(), result))
    }
}

/// Files registered with the ring, so that the kernel need not look them up. A file that nobody else holds any more is
/// dropped from the table at the next request, or a removed segment would keep its space.
struct FileTable {
    known: [Option<Known>; FILE_COUNT],
    clock: u64,
}

struct Known {
    file: Weak<dyn IoFile>,
    used: u64,
}

impl FileTable {
    /// `None` where the kernel has no sparse tables (before Linux 5.19): files are then named by descriptor.
    fn register(ring: &IoUring) -> Option<FileTable> {
        let count = u32::try_from(FILE_COUNT).ok()?;
        ring.submitter().register_files_sparse(count).ok()?;
        Some(FileTable { known: Default::default(), clock: 0 })
    }

    /// The number of a file, registering it on first use. `idle` says that no queued entry names a number, which could
    /// come to mean another file.
    fn number_of(&mut self, ring: &IoUring, file: &Arc<dyn IoFile>, idle: bool) -> Option<i32> {
        self.clock += 1;
        self.forget_closed(ring);
        let same = |known: &Known| ptr::addr_eq(known.file.as_ptr(), Arc::as_ptr(file));
        let place = match self.known.iter().position(|known| known.as_ref().is_some_and(same)) {
            Some(place) => place,
            None => self.add(ring, file, idle)?,
        };
        self.known[place].as_mut().expect("the place was found or filled just now").used = self.clock;
        i32::try_from(place).ok()
    }

    fn add(&mut self, ring: &IoUring, file: &Arc<dyn IoFile>, idle: bool) -> Option<usize> {
        let used = |place: &usize| self.known[*place].as_ref().map_or(0, |known| known.used);
        let place = (0..FILE_COUNT).min_by_key(used)?;
        if self.known[place].is_some() && !idle {
            return None;
        }
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file.fd()?);
        self.known[place] = None;
        ring.submitter().register_files_update(u32::try_from(place).ok()?, &[fd]).ok()?;
        self.known[place] = Some(Known { file: Arc::downgrade(file), used: 0 });
        Some(place)
    }

    fn forget_closed(&mut self, ring: &IoUring) {
        for place in 0..FILE_COUNT {
            if self.known[place].as_ref().is_some_and(|known| known.file.strong_count() == 0) {
                self.known[place] = None;
                // Where this fails the file stays open until its place is taken, and nothing else is lost.
                drop(ring.submitter().register_files_update(u32::try_from(place).unwrap_or(0), &[-1]));
            }
        }
    }
}
