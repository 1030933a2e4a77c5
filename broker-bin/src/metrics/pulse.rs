//! What one network thread has to do at the moment, and how long its sends took to be acknowledged.
//!
//! 1. One thread writes, anybody reads: no read-modify-write, and no cache line that two threads write.
//! 2. What is here is as of the thread's last tick. A thread that does not tick any more is told by that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anchorlog_engine::HistogramCounts;

use crate::lock::lock;

/// Bounds of the time from a send's arrival to its acknowledgement, in microseconds.
const ACK_MICROS: &[u64] = &[
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_500_000,
    5_000_000,
];

/// What a thread has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Connections that are open.
    pub connections: u64,
    /// Pulls that are held.
    pub held: u64,
    /// Requests that wait for a place in the log, or for their acknowledgement.
    pub waiting: u64,
    /// How long the oldest of them has waited.
    pub oldest: Duration,
}

/// One thread's numbers.
#[derive(Debug)]
#[repr(align(128))]
pub struct Pulse {
    ticked_us: AtomicU64,
    connections: AtomicU64,
    held: AtomicU64,
    waiting: AtomicU64,
    oldest_us: AtomicU64,
    acks: [AtomicU64; ACK_MICROS.len() + 1],
    acks_us: AtomicU64,
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// There is one writer.
fn add(number: &AtomicU64, by: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

impl Pulse {
    /// Until its first tick nobody expects one.
    fn new() -> Pulse {
        Pulse {
            ticked_us: AtomicU64::new(u64::MAX),
            connections: AtomicU64::new(0),
            held: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            oldest_us: AtomicU64::new(0),
            acks: std::array::from_fn(|_| AtomicU64::new(0)),
            acks_us: AtomicU64::new(0),
        }
    }

    /// A send is acknowledged so long after it came. For the thread that owns this alone.
    pub fn acked(&self, took: Duration) {
        let took = micros(took);
        add(&self.acks[ACK_MICROS.partition_point(|bound| *bound < took)], 1);
        add(&self.acks_us, took);
    }

    /// The thread goes round. For the thread that owns this alone.
    pub fn tick(&self, now: Duration, load: Load) {
        self.connections.store(load.connections, Ordering::Relaxed);
        self.held.store(load.held, Ordering::Relaxed);
        self.waiting.store(load.waiting, Ordering::Relaxed);
        self.oldest_us.store(micros(load.oldest), Ordering::Relaxed);
        self.ticked_us.store(micros(now), Ordering::Release);
    }

    /// What it had to do at its last tick. What waited then and was not looked at since has waited longer.
    fn load(&self, now: Duration) -> Load {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let (waiting, silent) = (read(&self.waiting), self.silent(now));
        let oldest = Duration::from_micros(read(&self.oldest_us)) + if waiting > 0 { silent } else { Duration::ZERO };
        Load { connections: read(&self.connections), held: read(&self.held), waiting, oldest }
    }

    /// How long ago its last tick was.
    fn silent(&self, now: Duration) -> Duration {
        now.saturating_sub(Duration::from_micros(self.ticked_us.load(Ordering::Acquire)))
    }
}

/// The numbers of all network threads.
#[derive(Debug, Default)]
pub struct Pulses(Mutex<Vec<Arc<Pulse>>>);

impl Pulses {
    /// A thread begins.
    #[must_use]
    pub fn begin(&self) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse::new());
        lock(&self.0).push(Arc::clone(&pulse));
        pulse
    }

    /// What all of them have to do.
    #[must_use]
    pub fn load(&self, now: Duration) -> Load {
        lock(&self.0).iter().map(|pulse| pulse.load(now)).fold(Load::default(), |sum, one| Load {
            connections: sum.connections + one.connections,
            held: sum.held + one.held,
            waiting: sum.waiting + one.waiting,
            oldest: sum.oldest.max(one.oldest),
        })
    }

    /// How long the one has not moved that has not for the longest time.
    #[must_use]
    pub fn silent(&self, now: Duration) -> Duration {
        lock(&self.0).iter().map(|pulse| pulse.silent(now)).max().unwrap_or_default()
    }

    /// How long sends took, in microseconds.
    #[must_use]
    pub fn acks(&self) -> HistogramCounts {
        let mut all = HistogramCounts { bounds: ACK_MICROS, counts: vec![0; ACK_MICROS.len() + 1], sum: 0 };
        for pulse in lock(&self.0).iter() {
            for (sum, count) in all.counts.iter_mut().zip(&pulse.acks) {
                *sum += count.load(Ordering::Relaxed);
            }
            all.sum = all.sum.wrapping_add(pulse.acks_us.load(Ordering::Relaxed));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_of_all_threads_is_told_and_a_thread_that_stands_still_shows() {
        let pulses = Pulses::default();
        let at = Duration::from_secs;
        let (one, other) = (pulses.begin(), pulses.begin());
        assert_eq!(pulses.silent(at(100)), Duration::ZERO, "they have not begun");
        one.tick(at(5), Load { connections: 3, held: 2, waiting: 4, oldest: at(1) });
        other.tick(at(6), Load { connections: 1, held: 0, waiting: 0, oldest: Duration::ZERO });
        let load = pulses.load(at(7));
        assert_eq!(load, Load { connections: 4, held: 2, waiting: 4, oldest: at(3) });
        assert_eq!(pulses.silent(at(7)), at(2));
        assert_eq!(pulses.silent(at(5)), Duration::ZERO);
    }

    #[test]
    fn acknowledgements_of_all_threads_are_one_histogram() {
        let pulses = Pulses::default();
        for took in [80, 100, 101, 9_000_000] {
            pulses.begin().acked(Duration::from_micros(took));
        }
        let acks = pulses.acks();
        assert_eq!((acks.counts[1], acks.counts[2], acks.counts.last()), (2, 1, Some(&1)));
        assert_eq!((acks.count(), acks.sum), (4, 9_000_281));
    }
}
