//! A queue of the simulated disk: completes in the order, and as late, as its seed says, and later where a stall was planned.

use std::any::Any;
use std::io;

use super::super::file::assert_aligned;
use super::super::{IO_ALIGN, IoAction, IoCompletion, IoOp, IoQueue, Wait};
use super::SimFile;
use super::disk::Work;
use super::schedule::Schedule;

/// A submitted operation: its number on the disk, or why it could not start.
struct Slot {
    op: IoOp,
    started: io::Result<u64>,
    /// How often the queue is looked at until this may complete.
    stall: u64,
}

pub(super) struct SimQueue {
    depth: usize,
    runs_inline: bool,
    schedule: Schedule,
    waiting: Vec<Slot>,
    done: Vec<IoCompletion>,
}

impl SimQueue {
    pub(super) fn new(depth: usize, runs_inline: bool, schedule: Schedule) -> SimQueue {
        SimQueue { depth, runs_inline, schedule, waiting: Vec::new(), done: Vec::new() }
    }
}

impl IoQueue for SimQueue {
    fn submit(&mut self, op: IoOp) {
        assert!(self.in_flight() < self.depth, "more than {} operations in one queue", self.depth);
        let slot = match start(&op) {
            Ok((id, stall)) => Slot { op, started: Ok(id), stall },
            Err(error) => Slot { op, started: Err(error), stall: 0 },
        };
        if self.runs_inline {
            self.done.push(finish(slot));
        } else {
            self.waiting.push(slot);
        }
    }

    fn reap(&mut self, wait: Wait, out: &mut Vec<IoCompletion>) {
        out.append(&mut self.done);
        let mut ready = self.ready(wait);
        let count = match self.waiting.first().map(|slot| file_of(&slot.op)) {
            // A dead machine keeps nobody waiting.
            Some(Ok(file)) if file.disk.is_dead() => ready.len(),
            _ => self.schedule.count(ready.len(), wait),
        };
        for _ in 0..count {
            let at = ready.remove(self.schedule.pick(ready.len()));
            ready.iter_mut().filter(|later| **later > at).for_each(|later| *later -= 1);
            out.push(finish(self.waiting.remove(at)));
        }
    }

    fn in_flight(&self) -> usize {
        self.waiting.len() + self.done.len()
    }
}

impl SimQueue {
    /// Which of the operations in flight may complete now. Whoever waits outlasts every stall.
    fn ready(&mut self, wait: Wait) -> Vec<usize> {
        let disk = self.waiting.first().and_then(|slot| file_of(&slot.op).ok()).map(|file| file.disk.clone());
        let Some(disk) = disk else { return (0..self.waiting.len()).collect() };
        if disk.is_dead() {
            return (0..self.waiting.len()).collect();
        }
        let least = self.waiting.iter().map(|slot| slot.stall).min().unwrap_or(0);
        let passed = if wait == Wait::One { least.max(1) } else { 1 };
        for slot in &mut self.waiting {
            slot.stall = slot.stall.saturating_sub(passed);
        }
        match (wait, disk.is_held()) {
            (Wait::No, true) => return Vec::new(),
            (Wait::One, true) => disk.hold(false),
            _ => {}
        }
        (0..self.waiting.len()).filter(|at| self.waiting[*at].stall == 0).collect()
    }
}

impl Drop for SimQueue {
    /// Waits for what is in flight; on a dead machine it never completes.
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The test has failed; no kernel holds these buffers.
            return;
        }
        for slot in self.waiting.drain(..) {
            drop(finish(slot));
        }
    }
}

fn file_of(op: &IoOp) -> io::Result<&SimFile> {
    let file: &dyn Any = &*op.file;
    file.downcast_ref()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the file belongs to another backend"))
}

/// The operation's number, and how long it stalls.
fn start(op: &IoOp) -> io::Result<(u64, u64)> {
    let file = file_of(op)?;
    let work = match &op.action {
        IoAction::Write { offset, slices, durable } => {
            for slice in slices {
                assert_aligned(*offset, slice.len());
                assert!(slice.as_ptr().addr().is_multiple_of(IO_ALIGN), "a slice starts at an aligned address");
            }
            Work::Write { offset: *offset, data: bytes_of(op), durable: *durable }
        }
        IoAction::Read { offset, buf } => {
            assert_aligned(*offset, buf.len());
            Work::Read { offset: *offset, len: buf.len() }
        }
        IoAction::SyncData => Work::Sync,
    };
    file.disk.state().start(file.inode, &file.name, work)
}

/// What a write's slices hold now.
fn bytes_of(op: &IoOp) -> Vec<u8> {
    match &op.action {
        IoAction::Write { slices, .. } => slices.iter().flat_map(|slice| slice.as_bytes()).copied().collect(),
        _ => Vec::new(),
    }
}

fn finish(slot: Slot) -> IoCompletion {
    let Slot { mut op, started, .. } = slot;
    let mut bytes = bytes_of(&op);
    let result = started.and_then(|id| file_of(&op)?.disk.state().finish(id, &mut bytes));
    if let (Ok(()), IoAction::Read { buf, .. }) = (&result, &mut op.action) {
        buf.copy_from_slice(&bytes);
    }
    IoCompletion { op, result }
}
