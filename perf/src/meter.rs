//! Counting and timing while a row runs: a counter and a histogram per driver, a window that the main thread opens and closes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anchorlog_engine::io::sys::{BlockDevice, BlockStats};
use hdrhistogram::Histogram;

use crate::clock::{self, SECOND_NS};

/// Longest latency that is told apart from longer ones.
const LATENCY_NS_MAX: u64 = 120 * SECOND_NS;
/// Time between two points of a throughput curve.
pub(crate) const SAMPLE: Duration = Duration::from_millis(100);

/// A histogram of nanoseconds with three significant digits.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are constants that hold")
}

#[repr(align(128))]
#[derive(Default)]
struct Counter(AtomicU64);

/// Shared between the drivers of a row and the thread that watches them.
pub(crate) struct Meter {
    counters: Vec<Counter>,
    from_ns: AtomicU64,
    until_ns: AtomicU64,
    stop: AtomicBool,
}

impl Meter {
    /// For so many drivers.
    pub(crate) fn new(drivers: usize) -> Meter {
        Meter {
            counters: (0..drivers).map(|_| Counter::default()).collect(),
            from_ns: AtomicU64::new(u64::MAX),
            until_ns: AtomicU64::new(u64::MAX),
            stop: AtomicBool::new(false),
        }
    }

    /// The recorder of one driver.
    pub(crate) fn recorder(&self, driver: usize) -> Recorder<'_> {
        Recorder { meter: self, counter: &self.counters[driver].0, acked: 0, latencies: latencies() }
    }

    /// Whether drivers should end.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Tells the drivers to end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Opens the window for as long as anybody records: for work that has an end of its own.
    pub(crate) fn open(&self) {
        self.from_ns.store(0, Ordering::Relaxed);
    }

    fn is_open_at(&self, now_ns: u64) -> bool {
        now_ns >= self.from_ns.load(Ordering::Relaxed) && now_ns < self.until_ns.load(Ordering::Relaxed)
    }

    /// Acks of all drivers so far.
    pub(crate) fn acks(&self) -> u64 {
        self.counters.iter().map(|counter| counter.0.load(Ordering::Relaxed)).sum()
    }

    /// Opens the window, samples until `seconds` are over or a driver gave up, closes it, and tells the drivers to end.
    pub(crate) fn watch(&self, seconds: f64, device: Option<&BlockDevice>, cpu_of: Option<u32>) -> Window {
        self.watch_while(seconds, device, cpu_of, || true)
    }

    /// The same for a window that may end earlier, when there is nothing more to see.
    pub(crate) fn watch_while(
        &self,
        seconds: f64,
        device: Option<&BlockDevice>,
        cpu_of: Option<u32>,
        mut more: impl FnMut() -> bool,
    ) -> Window {
        let start_ns = clock::now_ns();
        let (device_before, cpu_before) = (device.and_then(BlockDevice::stats), cpu_of.and_then(cpu_time));
        let mut before = self.acks();
        let first = before;
        self.from_ns.store(start_ns, Ordering::Relaxed);
        let end_ns = start_ns + duration_ns(seconds);
        let (mut at_ns, mut series) = (start_ns, Vec::new());
        while at_ns < end_ns && !self.stopped() && more() {
            clock::sleep_until((at_ns + duration_ns(SAMPLE.as_secs_f64())).min(end_ns));
            let (now, acks) = (clock::now_ns(), self.acks());
            let span_s = (now - at_ns) as f64 / SECOND_NS as f64;
            series.push(Sample {
                at_s: (now - start_ns) as f64 / SECOND_NS as f64,
                per_s: (acks - before) as f64 / span_s.max(1e-6),
            });
            (at_ns, before) = (now, acks);
        }
        self.until_ns.store(at_ns, Ordering::Relaxed);
        let device_after = device.and_then(BlockDevice::stats);
        let cpu_after = cpu_of.and_then(cpu_time);
        self.stop();
        Window {
            seconds: (at_ns - start_ns) as f64 / SECOND_NS as f64,
            acks: before - first,
            series,
            device: device_before.zip(device_after).map(|(before, after)| DeviceUse::between(before, after)),
            cpu_s: cpu_before.zip(cpu_after).map(|(before, after)| (after - before).max(0.0)),
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a row's time is positive and fits")]
fn duration_ns(seconds: f64) -> u64 {
    (seconds * SECOND_NS as f64) as u64
}

/// One driver's side.
pub(crate) struct Recorder<'a> {
    meter: &'a Meter,
    counter: &'a AtomicU64,
    acked: u64,
    latencies: Histogram<u64>,
}

impl Recorder<'_> {
    /// `count` messages of the same age were acknowledged.
    pub(crate) fn acked(&mut self, count: u64, sent_ns: u64, now_ns: u64) {
        self.acked += count;
        self.counter.store(self.acked, Ordering::Relaxed);
        if self.meter.is_open_at(now_ns) {
            self.latencies.saturating_record_n(now_ns.saturating_sub(sent_ns).max(1), count);
        }
    }

    /// Something took so long that is not counted.
    pub(crate) fn timed(&mut self, from_ns: u64, now_ns: u64) {
        if self.meter.is_open_at(now_ns) {
            self.latencies.saturating_record(now_ns.saturating_sub(from_ns).max(1));
        }
    }

    /// What was recorded inside the window.
    pub(crate) fn into_latencies(self) -> Histogram<u64> {
        self.latencies
    }
}

/// A point of the throughput curve.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Sample {
    /// End of the interval, from the start of the window.
    pub(crate) at_s: f64,
    /// Acks per second in it.
    pub(crate) per_s: f64,
}

/// What the block device did in a window, everything else on it included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DeviceUse {
    /// Write requests.
    pub(crate) writes: u64,
    /// Bytes written.
    pub(crate) bytes: u64,
    /// Flush requests, where the kernel counts them.
    pub(crate) flushes: Option<u64>,
}

impl DeviceUse {
    /// Both together.
    pub(crate) fn plus(self, other: DeviceUse) -> DeviceUse {
        DeviceUse {
            writes: self.writes + other.writes,
            bytes: self.bytes + other.bytes,
            flushes: other.flushes.map(|flushes| flushes + self.flushes.unwrap_or(0)),
        }
    }

    /// What came between two looks.
    pub(crate) fn between(before: BlockStats, after: BlockStats) -> DeviceUse {
        DeviceUse {
            writes: after.writes.saturating_sub(before.writes),
            bytes: after.sectors_written.saturating_sub(before.sectors_written) * 512,
            flushes: before.flushes.zip(after.flushes).map(|(before, after)| after.saturating_sub(before)),
        }
    }
}

/// What happened between opening and closing.
pub(crate) struct Window {
    /// Its length.
    pub(crate) seconds: f64,
    /// Acks in it.
    pub(crate) acks: u64,
    /// The throughput curve.
    pub(crate) series: Vec<Sample>,
    /// What the device did.
    pub(crate) device: Option<DeviceUse>,
    /// CPU time that the measured process took.
    pub(crate) cpu_s: Option<f64>,
}

/// User and system time of a process (proc_pid_stat(5)), in seconds.
pub(crate) fn cpu_time(pid: u32) -> Option<f64> {
    const TICKS_PER_S: f64 = 100.0;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut behind_name = text.rsplit_once(')')?.1.split_whitespace();
    let user: f64 = behind_name.nth(11)?.parse().ok()?;
    let system: f64 = behind_name.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_acknowledged_inside_the_window_is_timed() {
        let meter = Meter::new(1);
        let mut recorder = meter.recorder(0);
        recorder.acked(5, 0, 10);
        meter.from_ns.store(100, Ordering::Relaxed);
        meter.until_ns.store(200, Ordering::Relaxed);
        recorder.acked(3, 90, 150);
        recorder.acked(1, 90, 200);
        assert_eq!(meter.acks(), 9);
        let latencies = recorder.into_latencies();
        assert_eq!((latencies.len(), latencies.max()), (3, 60));
    }

    #[test]
    fn a_process_has_a_cpu_time() {
        assert!(cpu_time(std::process::id()).is_some_and(|seconds| seconds >= 0.0));
        assert!(cpu_time(u32::MAX).is_none());
    }
}
