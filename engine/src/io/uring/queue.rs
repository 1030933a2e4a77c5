//! The table of operations in flight, and how each goes on until it is whole or has failed.

use std::collections::VecDeque;
use std::io;

use super::super::file::assert_aligned;
use super::super::sys::{IoVecs, Progress, total_len};
use super::super::{IoAction, IoCompletion, IoOp, IoQueue, Wait};
use super::ring::{Request, Ring, SetUp};
use crate::units::{to_u64, to_usize};

/// Entries of the largest ring the kernel makes.
const RING_ENTRIES_MAX: usize = 32_768;

/// An operation between its submission and its completion. Owns all memory that the kernel may touch.
struct InFlight {
    op: IoOp,
    iovecs: IoVecs,
    progress: Progress,
    /// Whether writes carry `RWF_DSYNC`.
    dsync: bool,
    /// Whether a sync follows, or is under way: the durable write of a file where the flag is not to be trusted.
    sync: Sync,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    No,
    After,
    Now,
}

impl InFlight {
    fn new(op: IoOp) -> InFlight {
        let direct = op.file.is_direct();
        let (total, dsync, sync) = match &op.action {
            IoAction::Write { slices, durable, .. } => {
                (total_len(slices), *durable && direct, if *durable && !direct { Sync::After } else { Sync::No })
            }
            IoAction::Read { buf, .. } => (buf.len(), false, Sync::No),
            IoAction::SyncData => (0, false, Sync::Now),
        };
        if let IoAction::Write { offset, .. } | IoAction::Read { offset, .. } = &op.action {
            assert_aligned(*offset, total);
        }
        InFlight { op, iovecs: IoVecs::default(), progress: Progress::new(total), dsync, sync }
    }

    /// The request that takes the operation further.
    fn request(&mut self) -> Request<'_> {
        let done = self.progress.done;
        match &mut self.op.action {
            _ if self.sync == Sync::Now => Request::SyncData,
            IoAction::Write { offset, slices, .. } => {
                self.iovecs.point_at(slices, done);
                Request::Write { iovecs: &self.iovecs, offset: *offset + to_u64(done), dsync: self.dsync }
            }
            IoAction::Read { offset, buf } => {
                self.iovecs.point_at_buf(buf, done);
                Request::Read { iovecs: &self.iovecs, offset: *offset + to_u64(done) }
            }
            IoAction::SyncData => Request::SyncData,
        }
    }

    /// Takes one completion of the kernel: the end of the operation, or `None` when another request must follow.
    fn advance(&mut self, result: io::Result<usize>) -> Option<io::Result<()>> {
        if self.sync == Sync::Now {
            return Some(result.map(drop));
        }
        let unsupported = result.as_ref().err().and_then(io::Error::raw_os_error) == Some(libc::EOPNOTSUPP);
        if unsupported && self.dsync {
            (self.dsync, self.sync) = (false, Sync::After);
            return None;
        }
        let at_zero = match self.op.action {
            IoAction::Read { .. } => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::WriteZero,
        };
        match self.progress.advance(result, at_zero) {
            Err(error) => Some(Err(error)),
            Ok(()) if !self.progress.is_complete() => None,
            Ok(()) if self.sync == Sync::After => {
                self.sync = Sync::Now;
                None
            }
            Ok(()) => Some(Ok(())),
        }
    }
}

/// A queue over one ring.
pub(super) struct UringQueue {
    depth: usize,
    set_up: SetUp,
    ring: Option<Ring>,
    table: Vec<Option<InFlight>>,
    free: Vec<usize>,
    /// Places whose entry the kernel has not taken yet, in the order of the submission ring.
    queued: VecDeque<usize>,
    done: Vec<IoCompletion>,
}

impl UringQueue {
    pub(super) fn new(depth: usize, set_up: SetUp) -> UringQueue {
        UringQueue {
            depth,
            set_up,
            ring: None,
            table: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            queued: VecDeque::new(),
            done: Vec::new(),
        }
    }

    /// Operations that the ring knows.
    fn in_ring(&self) -> usize {
        self.depth - self.free.len()
    }

    /// The ring of this thread, made on first use.
    fn ring(&mut self) -> io::Result<&mut Ring> {
        let stale = self.ring.as_ref().is_some_and(|ring| ring.is_sealed() || !ring.is_ours());
        if stale {
            if self.in_ring() > 0 {
                return Err(io::Error::other("the ring failed, or belongs to another thread, and is still busy"));
            }
            self.ring = None;
        }
        if self.ring.is_none() {
            let entries = self.depth.clamp(2, RING_ENTRIES_MAX).next_power_of_two();
            self.ring = Some(Ring::new(u32::try_from(entries).map_err(io::Error::other)?, self.set_up)?);
        }
        Ok(self.ring.as_mut().expect("it was made just now"))
    }

    /// Queues the next request of the operation at `place`.
    fn start(&mut self, place: usize) {
        let (Some(ring), Some(flight)) = (self.ring.as_mut(), self.table[place].as_mut()) else {
            unreachable!("operations start with a ring and a place in the table");
        };
        if ring.is_sealed() {
            return self.complete(place, Err(io::Error::other("the ring failed while the operation was under way")));
        }
        let file = std::sync::Arc::clone(&flight.op.file);
        let request = flight.request();
        // SAFETY: vectors and buffers are owned by the table, which gives a place up only after its completion was taken
        // or after the ring was sealed before the kernel saw the entry; drop waits, or leaks the table.
        let queued = unsafe { ring.request(to_u64(place), &file, &request) };
        match queued {
            Ok(()) => self.queued.push_back(place),
            Err(error) => self.complete(place, Err(error)),
        }
    }

    fn complete(&mut self, place: usize, result: io::Result<()>) {
        let flight = self.table[place].take().expect("an operation completes once");
        self.free.push(place);
        self.done.push(IoCompletion { op: flight.op, result });
    }

    /// Enters the kernel once. An error means that it will never take, or never hand back, anything of this ring.
    fn enter(&mut self, want: u32) -> io::Result<()> {
        let Some(ring) = self.ring.as_mut() else { return Ok(()) };
        let result = ring.enter(want);
        let left = if ring.is_sealed() { self.queued.len() } else { ring.queued() };
        self.queued.drain(..self.queued.len().saturating_sub(left));
        match result {
            Ok(()) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => Ok(()),
                // Out of memory or of completion space for now: the entries stay queued, and the next call tries again.
                Some(libc::EAGAIN | libc::EBUSY) => {
                    std::thread::yield_now();
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    /// After a refusal for good: what the kernel has not taken fails now; what it holds must still come back.
    fn give_up_queued(&mut self, error: &io::Error) {
        if let Some(ring) = self.ring.as_mut() {
            ring.seal();
        }
        for place in std::mem::take(&mut self.queued) {
            let twin = error.raw_os_error().map_or_else(|| io::ErrorKind::Other.into(), io::Error::from_raw_os_error);
            self.complete(place, Err(twin));
        }
    }

    /// Takes what has completed, and queues what must go on.
    fn collect(&mut self) {
        while let Some((token, result)) = self.ring.as_mut().and_then(Ring::completion) {
            let place = to_usize(token);
            let flight = self.table[place].as_mut().expect("completions belong to operations in flight");
            match flight.advance(result) {
                Some(result) => self.complete(place, result),
                None => self.start(place),
            }
        }
    }

    /// Enters the kernel; what it refuses for good to take completes with the error.
    ///
    /// # Errors
    /// The ring holds operations and will never hand them back.
    fn enter_or_give_up(&mut self, want: u32) -> io::Result<()> {
        match self.enter(want) {
            Err(error) if self.queued.is_empty() && self.in_ring() > 0 => Err(error),
            Err(error) => {
                self.give_up_queued(&error);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Gets at least one operation to its end if `wait` says so and any is in flight.
    ///
    /// # Errors
    /// The ring holds operations and will never hand them back.
    fn pump(&mut self, wait: Wait) -> io::Result<()> {
        loop {
            let want = u32::from(wait == Wait::One && self.done.is_empty() && self.in_ring() > 0);
            self.enter_or_give_up(want)?;
            self.collect();
            if !self.queued.is_empty() {
                // What must go on is handed to the kernel before the caller turns to something else.
                self.enter_or_give_up(0)?;
            }
            if wait == Wait::No || !self.done.is_empty() || self.in_ring() == 0 {
                return Ok(());
            }
        }
    }
}

impl IoQueue for UringQueue {
    fn submit(&mut self, op: IoOp) {
        assert!(self.in_flight() < self.depth, "more than {} operations in one queue", self.depth);
        let flight = InFlight::new(op);
        let ready = self.ring().map(drop);
        let place = self.free.pop().expect("there are as many places as operations");
        let empty = flight.progress.is_complete() && flight.sync != Sync::Now;
        self.table[place] = Some(flight);
        match ready {
            Ok(()) if empty => self.complete(place, Ok(())),
            Ok(()) => {
                self.start(place);
                // A ring that keeps what it holds is reported by the next reap.
                drop(self.enter_or_give_up(0));
            }
            Err(error) => self.complete(place, Err(error)),
        }
    }

    fn reap(&mut self, wait: Wait, out: &mut Vec<IoCompletion>) {
        if self.in_ring() > 0 {
            assert!(self.ring.as_ref().is_none_or(Ring::is_ours), "a queue with work in flight stays on its thread");
            self.pump(wait).expect("the kernel hands back what it has taken");
        }
        out.append(&mut self.done);
    }

    fn in_flight(&self) -> usize {
        self.in_ring() + self.done.len()
    }
}

impl Drop for UringQueue {
    /// Waits for what is in flight, or leaks it where this thread cannot wait: the kernel may still use the memory.
    fn drop(&mut self) {
        let ours = self.ring.as_ref().is_none_or(Ring::is_ours);
        while self.in_ring() > 0 {
            if !ours || self.pump(Wait::One).is_err() {
                std::mem::forget(std::mem::take(&mut self.table));
                return;
            }
            self.done.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::buffer::AlignedBuf;
    use super::super::super::{BackendKind, IO_ALIGN, IoBackend, IoFile, OpenMode};
    use super::super::UringBackend;
    use super::*;

    struct Scene {
        dir: tempfile::TempDir,
        backend: UringBackend,
    }

    impl Scene {
        fn file(&self, name: &str) -> Arc<dyn IoFile> {
            self.backend.open(&self.dir.path().join(name), OpenMode::CreateNew).expect("it is new")
        }
    }

    fn scene(test: &str) -> Option<Scene> {
        match UringBackend::new() {
            Ok(backend) => Some(Scene { dir: tempfile::tempdir().expect("a temporary directory"), backend }),
            Err(why) => {
                crate::io::tests::skipped(&format!("{test}: {why}"));
                None
            }
        }
    }

    fn write(token: u64, file: &Arc<dyn IoFile>) -> IoOp {
        let buf = AlignedBuf::zeroed(IO_ALIGN);
        IoOp::write_durable(token, Arc::clone(file), token * to_u64(IO_ALIGN), vec![buf.into()])
    }

    #[test]
    fn an_idle_queue_may_change_threads_and_a_busy_one_may_be_dropped_anywhere() {
        let Some(scene) = scene("an_idle_queue_may_change_threads") else { return };
        assert_eq!(scene.backend.kind(), BackendKind::Uring);
        let file = scene.file("moved");
        let mut queue = scene.backend.queue(4).expect("queues start empty");
        let mut out = Vec::new();
        queue.submit(write(0, &file));
        queue.reap(Wait::One, &mut out);
        let there = Arc::clone(&file);
        let queue = std::thread::spawn(move || {
            queue.submit(write(1, &there));
            queue.submit(write(2, &there));
            queue
        });
        drop(queue.join().expect("the other thread submits"));
        assert!(out[0].result.is_ok());
    }

    /// The writing end of a pipe: its reader sees the end when nobody has it open any more, the kernel's table included.
    struct PipeFile(std::io::PipeWriter);

    impl IoFile for PipeFile {
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }

        fn allocate(&self, _len: u64) -> io::Result<()> {
            Ok(())
        }

        fn punch_hole(&self, _offset: u64, _len: u64) -> io::Result<()> {
            Ok(())
        }

        fn read_at(&self, _buf: &mut AlignedBuf, _offset: u64) -> io::Result<()> {
            Ok(())
        }

        fn write_at(&self, _buf: &AlignedBuf, _offset: u64, _durable: bool) -> io::Result<()> {
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        fn is_direct(&self) -> bool {
            true
        }

        fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
            Some(std::os::fd::AsFd::as_fd(&self.0))
        }
    }

    #[test]
    fn a_closed_file_leaves_the_ring_at_the_next_request() {
        let Some(scene) = scene("a_closed_file_leaves_the_ring_at_the_next_request") else { return };
        let (mut reader, writer) = std::io::pipe().expect("there are descriptors");
        let pipe: Arc<dyn IoFile> = Arc::new(PipeFile(writer));
        let mut queue = scene.backend.queue(1).expect("queues start empty");
        let mut out = Vec::new();
        queue.submit(IoOp::write(0, pipe, 0, vec![AlignedBuf::zeroed(IO_ALIGN).into()]));
        queue.reap(Wait::One, &mut out);
        out.remove(0).result.expect("a pipe takes one block");
        queue.submit(write(1, &scene.file("next")));
        queue.reap(Wait::One, &mut out);
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || tell.send(std::io::Read::read_to_end(&mut reader, &mut Vec::new())));
        let seen = told.recv_timeout(std::time::Duration::from_secs(10)).expect("the pipe ends");
        assert_eq!(seen.expect("it can be read"), IO_ALIGN);
    }

    #[test]
    fn a_durable_write_without_direct_io_is_followed_by_a_sync() {
        let op = |durable| {
            let file = Scene { dir: tempfile::tempdir().expect("a directory"), backend: UringBackend::new().ok()? };
            let mut op = write(0, &file.file("any"));
            if let IoAction::Write { durable: flag, .. } = &mut op.action {
                *flag = durable;
            }
            Some(InFlight::new(op))
        };
        let Some(mut flight) = op(true) else {
            crate::io::tests::skipped("a_durable_write_without_direct_io_is_followed_by_a_sync: no ring");
            return;
        };
        // The kernel knows the flag not: the write is repeated without it, then a sync follows.
        assert!(flight.advance(Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))).is_none());
        assert!(matches!(flight.request(), Request::Write { dsync: false, .. }));
        assert!(flight.advance(Ok(IO_ALIGN)).is_none());
        assert!(matches!(flight.request(), Request::SyncData));
        assert!(flight.advance(Ok(0)).is_some_and(|result| result.is_ok()));
        let mut plain = op(false).expect("there was a ring a moment ago");
        assert!(plain.advance(Ok(512)).is_none(), "a short write goes on");
        assert!(matches!(plain.request(), Request::Write { dsync: false, offset: 0, .. }));
        assert!(plain.advance(Ok(IO_ALIGN)).is_some_and(|result| result.is_ok()));
    }
}
