//! How a driver thread sleeps and is woken: for a position in the log, not for every append.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::io::sys;
use crate::units::Lsn;

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// One sleeper, any number of wakers. A waker that has nothing to say costs one load.
#[derive(Debug)]
pub(crate) struct Signal {
    /// The sleeper wants to be woken when the log reaches this; `u64::MAX` while it is awake.
    wake_at: AtomicU64,
    state: AtomicU32,
    /// Raised by [`Signal::wake`]; consumed by the sleeper.
    called: AtomicU32,
}

impl Signal {
    pub(crate) fn new() -> Signal {
        Signal { wake_at: AtomicU64::new(u64::MAX), state: AtomicU32::new(AWAKE), called: AtomicU32::new(0) }
    }

    /// The log has reached `end`: wakes the sleeper if it waits for that.
    pub(crate) fn reached(&self, end: Lsn) {
        if self.wake_at.load(Ordering::SeqCst) <= end.0 {
            self.wake();
        }
    }

    /// Wakes the sleeper whatever it waits for; a call before it sleeps is not lost.
    pub(crate) fn wake(&self) {
        self.called.store(1, Ordering::SeqCst);
        if self.state.swap(AWAKE, Ordering::SeqCst) == ASLEEP {
            sys::futex_wake(&self.state, 1);
        }
    }

    /// Sleeps until the log reaches `target` (as `now` tells), [`Signal::wake`] is called or `timeout` is over.
    pub(crate) fn sleep(&self, target: Lsn, now: impl Fn() -> Lsn, timeout: Option<Duration>) {
        self.state.store(ASLEEP, Ordering::SeqCst);
        self.wake_at.store(target.0, Ordering::SeqCst);
        // Looked at after `wake_at` is set: an append is either seen here or sees `wake_at`.
        if self.called.swap(0, Ordering::SeqCst) == 0 && now() < target {
            sys::futex_wait(&self.state, ASLEEP, timeout);
        }
        self.wake_at.store(u64::MAX, Ordering::SeqCst);
        self.state.store(AWAKE, Ordering::SeqCst);
        self.called.store(0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_call_before_the_sleep_is_not_lost() {
        let signal = Signal::new();
        signal.wake();
        signal.sleep(Lsn::MAX, || Lsn::ZERO, None);
    }

    #[test]
    fn reaching_the_target_wakes_and_less_does_not() {
        let signal = Arc::new(Signal::new());
        let log = Arc::new(AtomicU64::new(0));
        let sleeper = {
            let (signal, log) = (Arc::clone(&signal), Arc::clone(&log));
            std::thread::spawn(move || {
                while log.load(Ordering::SeqCst) < 10 {
                    signal.sleep(Lsn(10), || Lsn(log.load(Ordering::SeqCst)), None);
                }
            })
        };
        for end in 1..=10 {
            log.store(end, Ordering::SeqCst);
            signal.reached(Lsn(end));
        }
        sleeper.join().unwrap();
    }
}
