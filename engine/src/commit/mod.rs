//! stub
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::AppendOutcome;
use crate::error::WaitError;
use crate::units::Lsn;

/// Which of the log's progress marks. Each is an exclusive end, only grows, and has one writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watermark {
    /// Write calls completed up to here: buffer space before it is free again.
    Written,
    /// On stable storage up to here.
    Durable,
    /// Acknowledged up to here, under the engine's flush mode.
    Acked,
    /// Readable through queues up to here.
    Dispatched,
}

/// All watermarks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// First byte retained.
    pub start: Lsn,
    /// LSN given out up to here.
    pub assigned: Lsn,
    /// Write calls completed.
    pub written: Lsn,
    /// On stable storage.
    pub durable: Lsn,
    /// Acknowledged.
    pub acked: Lsn,
    /// In the queues.
    pub dispatched: Lsn,
}

/// An append in flight.
#[must_use]
pub struct Ticket {}
impl Ticket {
    /// Where the batch went.
    pub fn outcome(&self) -> &AppendOutcome {
        unimplemented!()
    }
    /// Sleeps until the batch is acknowledged.
    ///
    /// # Errors
    /// When that will not happen in this run.
    pub fn wait(self) -> Result<AppendOutcome, WaitError> {
        unimplemented!()
    }
    /// [`Ticket::wait`] for at most `timeout`.
    ///
    /// # Errors
    /// [`WaitError::TimedOut`] leaves the append in flight.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<(), WaitError> {
        let _ = timeout;
        unimplemented!()
    }
}
impl Future for Ticket {
    type Output = Result<AppendOutcome, WaitError>;
    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        let _ = cx;
        unimplemented!()
    }
}

/// Many tickets' progress through one descriptor: armed with an LSN, it becomes readable (eventfd) once the watermark is there,
/// or the log is fenced. No wake-up per message.
pub struct Subscription {}
impl Subscription {
    /// Becomes readable when it fires.
    pub fn fd(&self) -> BorrowedFd<'_> {
        unimplemented!()
    }
    /// Fires once the watermark is at least `target` (at once when it is already). The lowest armed target counts until it fires.
    pub fn arm(&self, target: Lsn) {
        let _ = target;
        unimplemented!()
    }
    /// The watermark now; makes the descriptor unreadable again.
    pub fn drain(&self) -> Lsn {
        unimplemented!()
    }
    /// The watermark now.
    pub fn current(&self) -> Lsn {
        unimplemented!()
    }
}

/// Collects which watched queues got messages, behind one descriptor: for held pulls.
pub struct Watcher {}
impl Watcher {
    /// A watcher with an eventfd of its own.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> std::io::Result<Arc<Watcher>> {
        unimplemented!()
    }
    /// Becomes readable when a watched queue got a message.
    pub fn fd(&self) -> BorrowedFd<'_> {
        unimplemented!()
    }
    /// Moves the tokens that fired to `tokens` and makes the descriptor unreadable again.
    pub fn drain(&self, tokens: &mut Vec<u64>) {
        let _ = tokens;
        unimplemented!()
    }
}
