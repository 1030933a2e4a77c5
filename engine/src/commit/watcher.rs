//! Which watched queues got messages, behind one descriptor: for held pulls.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use crate::io::sys::EventFd;

/// Collects the tokens of watches that fired.
#[derive(Debug)]
pub struct Watcher {
    event: EventFd,
    fired: Mutex<Vec<u64>>,
}

impl Watcher {
    /// A watcher with an eventfd of its own.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> std::io::Result<Arc<Watcher>> {
        Ok(Arc::new(Watcher { event: EventFd::new()?, fired: Mutex::new(Vec::new()) }))
    }

    /// Becomes readable when a watched queue got a message. To be polled, not read: [`Watcher::drain`] does that.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Moves the tokens that fired to `tokens` and makes the descriptor unreadable again.
    ///
    /// # Panics
    /// When another thread panicked while it fired.
    pub fn drain(&self, tokens: &mut Vec<u64>) {
        let _was_readable = self.event.drain();
        tokens.append(&mut self.fired.lock().expect("the watcher is intact"));
    }

    pub(crate) fn fire(&self, token: u64) {
        let first = {
            let mut fired = self.fired.lock().expect("the watcher is intact");
            fired.push(token);
            fired.len() == 1
        };
        // Later ones find the descriptor readable already.
        if first {
            self.event.signal();
        }
    }
}
