//! The two queues of the plain backend: one that calls the kernel inside `submit`, one that hands work to threads.

use std::io;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::super::{IoCompletion, IoOp, IoQueue, Wait, file};

/// Worker threads at most; deeper queues wait in the channel.
const WORKER_COUNT_MAX: usize = 16;

/// Depth 1: the operation is over when `submit` returns.
#[derive(Default)]
pub(super) struct InlineQueue {
    done: Option<IoCompletion>,
}

impl IoQueue for InlineQueue {
    fn submit(&mut self, mut op: IoOp) {
        assert!(self.done.is_none(), "a queue of depth 1 holds one operation at a time");
        let result = file::run(&mut op);
        self.done = Some(IoCompletion { op, result });
    }

    fn reap(&mut self, _wait: Wait, out: &mut Vec<IoCompletion>) {
        out.extend(self.done.take());
    }

    fn in_flight(&self) -> usize {
        usize::from(self.done.is_some())
    }
}

/// Depth above 1: a few threads, each running one operation at a time.
pub(super) struct PoolQueue {
    depth: usize,
    in_flight: usize,
    work: Option<Sender<IoOp>>,
    done: Receiver<IoCompletion>,
    workers: Vec<JoinHandle<()>>,
}

impl PoolQueue {
    pub(super) fn start(depth: usize) -> io::Result<Box<dyn IoQueue>> {
        let (work, to_do) = bounded::<IoOp>(depth);
        let (finished, done) = bounded(depth);
        let mut queue = PoolQueue { depth, in_flight: 0, work: Some(work), done, workers: Vec::new() };
        for _ in 0..depth.min(WORKER_COUNT_MAX) {
            let (to_do, finished) = (to_do.clone(), finished.clone());
            let worker = std::thread::Builder::new().name("anchorlog-io".to_owned()).spawn(move || {
                for mut op in to_do {
                    let result = file::run(&mut op);
                    if finished.send(IoCompletion { op, result }).is_err() {
                        break;
                    }
                }
            })?;
            queue.workers.push(worker);
        }
        Ok(Box::new(queue))
    }
}

impl IoQueue for PoolQueue {
    fn submit(&mut self, op: IoOp) {
        assert!(self.in_flight < self.depth, "more than {} operations in one queue", self.depth);
        self.in_flight += 1;
        let work = self.work.as_ref().expect("the channel closes in drop only");
        work.send(op).expect("workers live as long as their queue");
    }

    fn reap(&mut self, wait: Wait, out: &mut Vec<IoCompletion>) {
        let before = out.len();
        if wait == Wait::One && self.in_flight > 0 {
            out.push(self.done.recv().expect("workers live as long as their queue"));
        }
        out.extend(self.done.try_iter());
        self.in_flight -= out.len() - before;
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }
}

impl Drop for PoolQueue {
    /// Waits for what is in flight: workers finish what the channel holds, and the results have room.
    fn drop(&mut self) {
        self.work = None;
        for worker in self.workers.drain(..) {
            // A worker that panicked has reported itself; there is nobody left to tell.
            drop(worker.join());
        }
    }
}
