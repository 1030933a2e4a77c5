//! One append in flight.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::batch::AppendOutcome;
use crate::clock::Clock;
use crate::commit::watermark::{Marks, Watermark};
use crate::error::WaitError;

/// An append in flight. Dropping it changes nothing: the append goes on.
///
/// # Cancellation
/// A ticket that is dropped, or whose wait timed out, leaves its batch in the log; whether it is acknowledged is told by the watermark.
#[must_use = "the batch is not acknowledged yet"]
pub struct Ticket {
    outcome: AppendOutcome,
    marks: Arc<Marks>,
    clock: Arc<dyn Clock>,
    waker: Option<u64>,
}

impl Ticket {
    pub(crate) fn new(outcome: AppendOutcome, marks: Arc<Marks>, clock: Arc<dyn Clock>) -> Ticket {
        Ticket { outcome, marks, clock, waker: None }
    }

    /// Where the batch went.
    pub fn outcome(&self) -> &AppendOutcome {
        &self.outcome
    }

    /// Sleeps until the batch is acknowledged.
    ///
    /// # Errors
    /// When that will not happen in this run.
    pub fn wait(self) -> Result<AppendOutcome, WaitError> {
        self.marks.wait(Watermark::Acked, self.outcome.end_lsn, &*self.clock, None)?;
        Ok(self.outcome.clone())
    }

    /// [`Ticket::wait`] for at most `timeout`.
    ///
    /// # Errors
    /// [`WaitError::TimedOut`] leaves the append in flight.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<(), WaitError> {
        self.marks.wait(Watermark::Acked, self.outcome.end_lsn, &*self.clock, Some(timeout))
    }
}

impl Future for Ticket {
    type Output = Result<AppendOutcome, WaitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let end = self.outcome.end_lsn;
        for registered in [false, true] {
            match self.marks.poll(Watermark::Acked, end) {
                Ok(true) => return Poll::Ready(Ok(self.outcome.clone())),
                Ok(false) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            // Looked at once more after registering: an ack in between is not missed.
            if !registered {
                let ticket = &mut *self;
                ticket.marks.set_waker(end, &mut ticket.waker, context.waker().clone());
            }
        }
        Poll::Pending
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(id) = self.waker {
            self.marks.remove_waker(self.outcome.end_lsn, id);
        }
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ticket").field(&self.outcome).finish()
    }
}
