//! stub
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::batch::{AppendOutcome, Queue, WriteBatch};
use crate::commit::{Subscription, Ticket, Watcher, Watermark, Watermarks};
use crate::error::{AppendError, Fenced, OpenError, ReadError, ReleaseError, WaitError};
use crate::options::EngineOptions;
use crate::read::{Fetch, FetchOutcome, Message, QueueRange};
use crate::units::{Epoch, Lsn, QueueOffset};

/// What was found and chosen at open.
#[derive(Clone, Debug)]
pub struct EngineInfo {
    /// The directory.
    pub dir: PathBuf,
    /// The log's identity, made when it was created.
    pub store_id: u128,
    /// The epoch of this run.
    pub epoch: Epoch,
    /// The options in force; geometry as the log was created with.
    pub options: EngineOptions,
    /// The backend, why, and what was measured, in one line.
    pub backend: String,
    /// Facts of host and disk, as `key, value`.
    pub facts: Vec<(String, String)>,
    /// What recovery found, in one line.
    pub recovery: String,
    /// Bytes of a torn tail that recovery cut, if any.
    pub recovery_cut_bytes: u64,
}

/// Counters since open.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineStats {
    /// Batches appended.
    pub batches: u64,
    /// Records appended.
    pub records: u64,
    /// Frame bytes appended.
    pub frame_bytes: u64,
    /// Groups written.
    pub commits: u64,
    /// Bytes given to the device for them.
    pub commit_bytes: u64,
    /// Flushes asked of the device (a durable write counts one).
    pub flushes: u64,
    /// Appends that found the buffer full and waited or were refused.
    pub full: u64,
    /// Segments that were used without having been zero-filled.
    pub unwritten_segments: u64,
    /// Segments recycled.
    pub recycled_segments: u64,
    /// Damaged records met by readers.
    pub damaged_records: u64,
    /// Reads that went to the disk.
    pub cold_reads: u64,
}

/// What a release did.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseOutcome {
    /// First byte retained from now on; recycling follows in the background.
    pub start: Lsn,
    /// Segments that became free.
    pub segments: usize,
}

/// An open log. Shared between threads behind an `Arc`; dropping the last handle closes it.
pub struct Engine {}

impl Engine {
    /// Opens the log in `dir`, or creates it there.
    ///
    /// # Errors
    /// Says which file, what was expected and what to do.
    pub fn open(dir: impl AsRef<Path>, options: EngineOptions) -> Result<Engine, OpenError> {
        let _ = (dir.as_ref(), options);
        unimplemented!()
    }
    /// What was found and chosen at open.
    pub fn info(&self) -> &EngineInfo {
        unimplemented!()
    }
    /// Counters since open.
    pub fn stats(&self) -> EngineStats {
        unimplemented!()
    }
    /// The queue of this name; it exists for readers once something was appended to it.
    ///
    /// # Errors
    /// When the name is too long or there are too many queues.
    pub fn queue(&self, name: &[u8]) -> Result<Queue, AppendError> {
        let _ = name;
        unimplemented!()
    }
    /// Every queue known, in the order of their names.
    pub fn queues(&self) -> Vec<Queue> {
        unimplemented!()
    }
    /// Appends a batch; sleeps while the buffer is full.
    ///
    /// # Errors
    /// Nothing of the batch is stored.
    pub fn append(&self, batch: WriteBatch) -> Result<Ticket, AppendError> {
        let _ = batch;
        unimplemented!()
    }
    /// Appends a batch and sleeps until it is acknowledged. A lone caller may run the commit itself.
    ///
    /// # Errors
    /// [`WaitError`] wrapped as the append's error, or the append's own.
    pub fn append_and_wait(&self, batch: WriteBatch) -> Result<AppendOutcome, AppendOrWaitError> {
        let _ = batch;
        unimplemented!()
    }
    /// Appends batches, in order, under one lock; returns how many: fewer than given when the buffer is full
    /// (try the rest when [`Watermark::Written`] has moved).
    ///
    /// # Errors
    /// When the first batch not appended can never be (too large, empty), or the log takes nothing any more.
    /// Outcomes of those before it stand in `out`.
    pub fn append_all(&self, batches: &mut [WriteBatch], out: &mut Vec<AppendOutcome>) -> Result<usize, AppendError> {
        let _ = (batches, out);
        unimplemented!()
    }
    /// Sleeps until the watermark is at least `target`.
    ///
    /// # Errors
    /// When that will not happen in this run, or not in time.
    pub fn wait(&self, mark: Watermark, target: Lsn, timeout: Option<Duration>) -> Result<(), WaitError> {
        let _ = (mark, target, timeout);
        unimplemented!()
    }
    /// Makes everything appended so far durable, also under [`crate::Flush::Async`], and sleeps until it is.
    ///
    /// # Errors
    /// When the log is fenced.
    pub fn flush(&self) -> Result<Lsn, WaitError> {
        unimplemented!()
    }
    /// The watermarks now.
    pub fn watermarks(&self) -> Watermarks {
        unimplemented!()
    }
    /// Why the log is fenced, if it is.
    pub fn fenced(&self) -> Option<Fenced> {
        unimplemented!()
    }
    /// A descriptor that tells of a watermark's progress.
    ///
    /// # Errors
    /// The kernel's.
    pub fn subscribe(&self, mark: Watermark) -> std::io::Result<Subscription> {
        let _ = mark;
        unimplemented!()
    }
    /// Puts `token` into `watcher` once the queue has a readable message at `from` or later; at once when it has one. One shot.
    pub fn watch(&self, queue: &Queue, from: QueueOffset, watcher: &Arc<Watcher>, token: u64) {
        let _ = (queue, from, watcher, token);
        unimplemented!()
    }
    /// Takes back a [`Engine::watch`] that has not fired.
    pub fn unwatch(&self, queue: &Queue, watcher: &Arc<Watcher>, token: u64) {
        let _ = (queue, watcher, token);
        unimplemented!()
    }
    /// Readable offsets of a queue.
    pub fn range(&self, queue: &Queue) -> QueueRange {
        let _ = queue;
        unimplemented!()
    }
    /// Reads consecutive messages of a queue.
    ///
    /// # Errors
    /// When the first message wanted cannot be read; later ones end the fetch before them.
    pub fn fetch(&self, fetch: &Fetch<'_>) -> Result<FetchOutcome, ReadError> {
        let _ = fetch;
        unimplemented!()
    }
    /// Reads the message whose own LSN is `lsn`. May read from the disk.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] when no visible, retained message begins there.
    pub fn read(&self, lsn: Lsn) -> Result<Message, ReadError> {
        let _ = lsn;
        unimplemented!()
    }
    /// The smallest readable offset whose store time is at least `store_time_ms`; the queue's end when there is none.
    pub fn offset_by_time(&self, queue: &Queue, store_time_ms: u64) -> QueueOffset {
        let _ = (queue, store_time_ms);
        unimplemented!()
    }
    /// The store time of one readable message.
    pub fn store_time(&self, queue: &Queue, offset: QueueOffset) -> Option<u64> {
        let _ = (queue, offset);
        unimplemented!()
    }
    /// Frees whole segments below `lsn`, as far as no pin holds them.
    ///
    /// # Errors
    /// When `lsn` is beyond what is acknowledged, or the log is fenced.
    pub fn release(&self, lsn: Lsn) -> Result<ReleaseOutcome, ReleaseError> {
        let _ = lsn;
        unimplemented!()
    }
    /// Keeps everything from `lsn` on until the pin of this name is moved or removed (`None`).
    pub fn pin(&self, name: &str, lsn: Option<Lsn>) {
        let _ = (name, lsn);
        unimplemented!()
    }
    /// Acknowledges what is durable, stops the threads and releases the directory.
    ///
    /// # Errors
    /// When the last flush failed.
    pub fn close(self) -> Result<(), WaitError> {
        unimplemented!()
    }
}

/// Either half of [`Engine::append_and_wait`].
#[derive(Debug, thiserror::Error)]
pub enum AppendOrWaitError {
    /// Nothing is stored.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// Stored, perhaps; not acknowledged.
    #[error(transparent)]
    Wait(#[from] WaitError),
}
