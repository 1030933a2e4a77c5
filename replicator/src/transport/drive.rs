//! A link over a connection: one thread for each direction.
//!
//! ```text
//!   socket --> Incoming --> Link::receive --.
//!                                           | wakes
//!   socket <-- Outgoing <-- Link::send  <---+--- the log grew, more is durable, or the link is due
//! ```
//!
//! Invariants:
//! 1. Neither direction waits for the other: the link is locked while it thinks, never while a socket is read or written.
//! 2. A driver keeps at most one read's and one write's worth of bytes.
//! 3. When either direction ends, so does the other, and [`drive`] returns with no thread left behind.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anchorlog_engine::{Clock, Lsn, Subscription};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::channel::{Channel, ChannelError, Hangup, Incoming, Outgoing};
use super::limits;
use crate::link::{End, Link, LinkError};

/// Why a link is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriveError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("waiting for events: {0}")]
    Wait(#[from] Errno),
}

/// A descriptor that one thread signals and another waits for.
#[derive(Debug)]
pub(crate) struct Signal(EventFd);

impl Signal {
    pub(crate) fn new() -> Result<Signal, Errno> {
        EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).map(Signal)
    }

    pub(crate) fn set(&self) {
        // Full means that it is readable, which is all that it says.
        let _already_set = self.0.write(1).is_err();
    }

    pub(crate) fn clear(&self) {
        let _was_clear = self.0.read().is_err();
    }

    /// Waits until it is set, any of `others` is readable, or `timeout` has passed.
    pub(crate) fn wait<'a>(
        &'a self,
        others: impl IntoIterator<Item = std::os::fd::BorrowedFd<'a>>,
        timeout: Option<Duration>,
    ) -> Result<(), Errno> {
        let own = std::iter::once(self.0.as_fd());
        let mut all: Vec<_> = own.chain(others).map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
        let timeout = match timeout {
            None => PollTimeout::NONE,
            // Rounded up: who is woken before the time would only wait again.
            Some(timeout) => {
                let milliseconds = timeout.as_micros().div_ceil(1000);
                PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
            }
        };
        match nix::poll::poll(&mut all, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn locked<L: ?Sized>(link: &Mutex<L>) -> MutexGuard<'_, L> {
    link.lock().expect("a link does not panic")
}

/// One link, its connection, and what both directions share.
struct Drive<'a, L: ?Sized> {
    link: &'a Mutex<L>,
    clock: &'a dyn Clock,
    wake: Signal,
    hangup: Hangup,
    /// The sending direction has nothing more to say.
    is_sent: AtomicBool,
    is_over: AtomicBool,
}

/// Drives `link` over `channel` until either is over. `early`: what arrived already. Whoever waits for log growth or for the disk hands in
/// `subscriptions`: each advance makes the link send.
///
/// # Errors
/// When the connection or the link fails; the link is of no use then.
pub(crate) fn drive<L: Link + ?Sized>(
    channel: Channel,
    link: &Mutex<L>,
    early: &[u8],
    subscriptions: &[Subscription],
    clock: &dyn Clock,
) -> Result<End, DriveError> {
    let hangup = channel.hangup()?;
    let Channel { incoming, outgoing } = channel;
    incoming.set_patience(Some(limits::READ_PATIENCE))?;
    let drive = Drive {
        link,
        clock,
        wake: Signal::new()?,
        hangup,
        is_sent: AtomicBool::new(false),
        is_over: AtomicBool::new(false),
    };
    let (received, sent) = std::thread::scope(|scope| {
        let name = std::thread::Builder::new().name("replica-send".to_owned());
        let sender = name.spawn_scoped(scope, || {
            let outcome = drive.send(outgoing, subscriptions);
            locked(drive.link).stop_sending();
            match &outcome {
                Ok(()) => drive.is_sent.store(true, Ordering::SeqCst),
                Err(_) => drive.give_up(),
            }
            outcome
        });
        let sender = match sender {
            Ok(sender) => sender,
            Err(source) => {
                let error = ChannelError::Io { what: "starting a thread", source };
                return (Err(error.into()), Ok(()));
            }
        };
        let received = drive.receive(incoming, early);
        if received.is_err() {
            drive.give_up();
        }
        drive.wake.set();
        (received, sender.join().expect("the sending direction does not panic"))
    });
    drive.hangup.hang_up();
    // What the link says counts more than how the connection then went down.
    if let Some(end) = locked(link).end() {
        return Ok(end.clone());
    }
    match (received, sent) {
        // Both fail when one does; what is wrong with the link is why.
        (Err(error @ DriveError::Link(_)), _) | (_, Err(error @ DriveError::Link(_))) => Err(error),
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(()), Ok(())) => Err(ChannelError::Ended("").into()),
    }
}

impl<L: Link + ?Sized> Drive<'_, L> {
    fn give_up(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.hangup.hang_up();
        self.wake.set();
    }

    fn receive(&self, mut incoming: Incoming, early: &[u8]) -> Result<(), DriveError> {
        let mut arrived = early;
        loop {
            for part in arrived.chunks(limits::RECEIVE_BYTES) {
                let mut link = locked(self.link);
                link.receive(part, self.clock.monotonic())?;
                let is_over = link.end().is_some();
                drop(link);
                self.wake.set();
                if is_over {
                    return self.wait_for_end(&mut incoming);
                }
            }
            arrived = match incoming.next() {
                Err(error) if error.is_timeout() => {
                    if self.is_sent.load(Ordering::SeqCst) {
                        return Ok(());
                    }
                    &[]
                }
                other => other?,
            };
        }
    }

    /// The last words are on their way: a connection that is closed before the other end has read them loses them.
    fn wait_for_end(&self, incoming: &mut Incoming) -> Result<(), DriveError> {
        let deadline = self.clock.monotonic() + limits::FAREWELL_TIME_MAX;
        let mut ignored = Vec::new();
        while self.clock.monotonic() < deadline && !self.is_over.load(Ordering::SeqCst) {
            ignored.clear();
            match incoming.read(&mut ignored) {
                Err(error) if error.is_timeout() => {}
                Err(ChannelError::Ended(_)) => break,
                other => other?,
            }
        }
        Ok(())
    }

    fn send(&self, mut outgoing: Outgoing, subscriptions: &[Subscription]) -> Result<(), DriveError> {
        loop {
            self.wake.clear();
            // Taken before the link looks: what comes after fires.
            let seen: Vec<Lsn> = subscriptions.iter().map(Subscription::drain).collect();
            let (pieces, due, is_over) = {
                let mut link = locked(self.link);
                let pieces = link.send(self.clock.monotonic(), limits::SEND_BYTES)?;
                (pieces, link.next_due(), link.end().is_some())
            };
            if !pieces.is_empty() {
                outgoing.write(&pieces)?;
                continue;
            }
            if is_over {
                outgoing.finish();
                return Ok(());
            }
            if self.is_over.load(Ordering::SeqCst) {
                return Ok(());
            }
            for (subscription, seen) in subscriptions.iter().zip(seen) {
                subscription.arm(seen.plus(1));
            }
            let timeout = due.saturating_sub(self.clock.monotonic());
            self.wake.wait(subscriptions.iter().map(Subscription::fd), Some(timeout))?;
        }
    }
}
