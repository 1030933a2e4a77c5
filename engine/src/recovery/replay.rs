//! What the scan found on its way to queues, table and key index: at once, or beside the reading where threads drive the engine.
//!
//! Invariants:
//! 1. Frames are applied in log order, each once.
//! 2. After [`Replay::settle`] none is on its way.
//! 3. Whether a thread does it or not: the same frames end in the same state, and the same frame is the first that does not fit.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard};
use std::thread::Scope;

use crate::commitlog::frame::FrameHeader;
use crate::dispatch::Applier;
use crate::error::NotDense;

/// Bytes that are handed over together.
const BATCH_BYTES: usize = 256 << 10;
/// Batches on their way at most.
const BATCHES: usize = 8;
const INTACT: &str = "whoever applies frames does not panic";

/// Whole frames, one behind the other, and where each ends.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    frames: Vec<(FrameHeader, usize)>,
}

impl Batch {
    fn apply(&self, applier: &Mutex<Applier>) -> Result<(), NotDense> {
        applier.lock().expect(INTACT).apply_all(&self.frames, &self.bytes, |_| {})
    }

    fn emptied(mut self) -> Batch {
        self.bytes.clear();
        self.frames.clear();
        self
    }
}

/// The thread beside the scan.
struct Line {
    there: SyncSender<Batch>,
    back: Receiver<Result<Batch, NotDense>>,
    under_way: usize,
}

impl Line {
    fn new<'scope>(scope: &'scope Scope<'scope, '_>, applier: &'scope Mutex<Applier>) -> Line {
        let (there, batches) = sync_channel::<Batch>(BATCHES);
        let (done, back) = sync_channel(BATCHES);
        scope.spawn(move || {
            for batch in batches {
                let outcome = batch.apply(applier);
                let is_over = outcome.is_err();
                if done.send(outcome.map(|()| batch.emptied())).is_err() || is_over {
                    return;
                }
            }
        });
        Line { there, back, under_way: 0 }
    }

    /// Waits for a batch that is applied; it is empty then.
    fn next(&mut self) -> Result<Batch, NotDense> {
        self.under_way -= 1;
        self.back.recv().expect(INTACT)
    }

    /// Waits until all of them are, or one is not.
    fn drain(&mut self) -> Result<(), NotDense> {
        while self.under_way > 0 {
            self.next()?;
        }
        Ok(())
    }
}

/// The way from the scan to the applier.
pub(crate) struct Replay<'scope, 'env> {
    applier: &'scope Mutex<Applier>,
    /// Where a thread may be had.
    scope: Option<&'scope Scope<'scope, 'env>>,
    line: Option<Line>,
    batch: Batch,
    /// The first that did not fit: nothing is applied behind it, and it is told again to whoever asks.
    failed: Option<NotDense>,
}

impl<'scope, 'env> Replay<'scope, 'env> {
    /// With a scope a thread of it applies what comes, as soon as that is much.
    pub(crate) fn new(
        applier: &'scope Mutex<Applier>,
        scope: Option<&'scope Scope<'scope, 'env>>,
    ) -> Replay<'scope, 'env> {
        Replay { applier, scope, line: None, batch: Batch::default(), failed: None }
    }

    /// The next frame, whole and checked.
    ///
    /// # Errors
    /// When an entry of it, or of one before it, is out of turn.
    pub(crate) fn push(&mut self, header: &FrameHeader, bytes: &[u8]) -> Result<(), NotDense> {
        self.batch.bytes.extend_from_slice(bytes);
        self.batch.frames.push((header.clone(), self.batch.bytes.len()));
        if self.batch.bytes.len() < BATCH_BYTES {
            return Ok(());
        }
        let outcome = self.hand_over(true);
        self.noted(outcome)
    }

    /// Waits until everything is applied.
    ///
    /// # Errors
    /// As [`Replay::push`].
    pub(crate) fn settle(&mut self) -> Result<(), NotDense> {
        // Little is not worth a thread.
        let outcome = self.hand_over(false).and_then(|()| self.line.as_mut().map_or(Ok(()), Line::drain));
        self.noted(outcome)
    }

    fn noted(&mut self, outcome: Result<(), NotDense>) -> Result<(), NotDense> {
        outcome.inspect_err(|error| {
            self.failed.get_or_insert_with(|| error.clone());
        })
    }

    /// What applies them, after [`Replay::settle`].
    pub(crate) fn applier(&self) -> MutexGuard<'scope, Applier> {
        self.applier.lock().expect(INTACT)
    }

    fn hand_over(&mut self, is_much: bool) -> Result<(), NotDense> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if let (None, Some(scope), true) = (&self.line, self.scope, is_much) {
            self.line = Some(Line::new(scope, self.applier));
        }
        let Some(line) = &mut self.line else {
            let outcome = self.batch.apply(self.applier);
            self.batch = std::mem::take(&mut self.batch).emptied();
            return outcome;
        };
        let free = if line.under_way == BATCHES { line.next()? } else { Batch::default() };
        // It ends at the first that does not fit, which is on its way back then.
        if line.there.send(std::mem::replace(&mut self.batch, free)).is_err() {
            return line.drain();
        }
        line.under_way += 1;
        Ok(())
    }
}
