//! The clock seam: the only room that asks the machine what time it is.
//!
//! Two times, never mixed: *monotonic* measures waits and never goes back; *wall* is what people read, may jump, and is clamped by
//! whoever stores it. What is deliberately not here: sleeping. Only thread drivers sleep, on their own condition.

#[cfg(feature = "sim")]
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Time as a value that can be replaced.
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed moment; never decreases.
    fn monotonic(&self) -> Duration;
    /// Milliseconds since 1970-01-01 UTC, as the machine believes.
    fn wall_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock room")]
    pub fn new() -> SystemClock {
        SystemClock { start: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock room")]
    fn wall_ms(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A clock that moves only when told to.
#[cfg(feature = "sim")]
#[derive(Debug, Default)]
pub struct SimClock {
    micros: AtomicU64,
    /// How far the wall clock was set, in milliseconds.
    set_by: AtomicI64,
}

#[cfg(feature = "sim")]
impl SimClock {
    /// Moves time forward.
    pub fn advance(&self, by: Duration) {
        self.micros.fetch_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Sets the wall clock forward or back. Monotonic time goes on as it was.
    pub fn jump(&self, milliseconds: i64) {
        self.set_by.fetch_add(milliseconds, Ordering::SeqCst);
    }
}

#[cfg(feature = "sim")]
impl Clock for SimClock {
    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::SeqCst))
    }

    fn wall_ms(&self) -> u64 {
        let wall = 1_700_000_000_000 + self.micros.load(Ordering::SeqCst) / 1000;
        wall.saturating_add_signed(self.set_by.load(Ordering::SeqCst))
    }
}
