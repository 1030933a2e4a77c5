//! What the disk allows: the bound that each row is held against.
//!
//! With `n` messages outstanding, one durable write can at best carry all of them, and the next `n` can only follow once it ended.
//! So the bound of a durable row is **n × the rate of durable writes of that size, one at a time**: the time of such a write is
//! interpolated between the measured 4 KiB, 64 KiB and 1 MiB (depth 1), and behind 1 MiB goes on with the slope before it. The bound
//! of an asynchronous row is the bandwidth of unsynced 1 MiB writes, eight in flight, divided by the bytes that a message takes in
//! the log.

use serde::Serialize;

/// Largest commit that the engine makes: more outstanding bytes need a second write.
const COMMIT_BYTES_MAX: f64 = 4_194_304.0;
const BLOCK_BYTES: f64 = 4096.0;

/// One setting of the disk probe: the median run of several.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Setting {
    /// Writes per second.
    pub(crate) per_s: f64,
    /// Bandwidth, 10^6 bytes per second.
    pub(crate) mb_per_s: f64,
    /// Median time of a write.
    pub(crate) p50_us: f64,
    /// 99th percentile.
    pub(crate) p99_us: f64,
    /// 99.9th percentile.
    pub(crate) p999_us: f64,
    /// Writes per second of every run, in the order in which they were made.
    pub(crate) runs_per_s: Vec<f64>,
}

/// What the disk does by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct DiskLimits {
    /// Durable 4 KiB writes, one at a time.
    pub(crate) dsync_4k_qd1: Setting,
    /// Durable 4 KiB writes, eight in flight.
    pub(crate) dsync_4k_qd8: Setting,
    /// Durable 64 KiB writes, one at a time.
    pub(crate) dsync_64k_qd1: Setting,
    /// Durable 64 KiB writes, eight in flight.
    pub(crate) dsync_64k_qd8: Setting,
    /// Durable 1 MiB writes, one at a time.
    pub(crate) dsync_1m_qd1: Setting,
    /// Durable 1 MiB writes, eight in flight.
    pub(crate) dsync_1m_qd8: Setting,
    /// 1 MiB writes that nobody flushes, eight in flight.
    pub(crate) write_1m_qd8: Setting,
}

impl DiskLimits {
    /// All settings with their names, in the order in which they are measured.
    pub(crate) fn settings(&self) -> [(&'static str, &Setting); 7] {
        [
            ("dsync_4k_qd1", &self.dsync_4k_qd1),
            ("dsync_4k_qd8", &self.dsync_4k_qd8),
            ("dsync_64k_qd1", &self.dsync_64k_qd1),
            ("dsync_64k_qd8", &self.dsync_64k_qd8),
            ("dsync_1m_qd1", &self.dsync_1m_qd1),
            ("dsync_1m_qd8", &self.dsync_1m_qd8),
            ("write_1m_qd8", &self.write_1m_qd8),
        ]
    }

    /// Seconds that one durable write of `bytes` takes.
    fn write_s(&self, bytes: f64) -> f64 {
        let points = [
            (4096.0, 1.0 / self.dsync_4k_qd1.per_s),
            (65_536.0, 1.0 / self.dsync_64k_qd1.per_s),
            (1_048_576.0, 1.0 / self.dsync_1m_qd1.per_s),
        ];
        let segment = usize::from(bytes > points[1].0);
        let ((x0, y0), (x1, y1)) = (points[segment], points[segment + 1]);
        // A noisy disk may have measured the larger write as the faster one; a write never takes less than a smaller one here.
        let slope = ((y1 - y0) / (x1 - x0)).max(0.0);
        y0 + slope * (bytes - x0)
    }

    /// Acks per second that the disk allows with `outstanding` messages of `frame_bytes` each.
    pub(crate) fn bound(&self, durable: bool, outstanding: usize, frame_bytes: f64) -> f64 {
        if durable {
            let carried = (outstanding as f64).min((COMMIT_BYTES_MAX / frame_bytes).max(1.0));
            let bytes = ((carried * frame_bytes / BLOCK_BYTES).floor() * BLOCK_BYTES).max(BLOCK_BYTES);
            carried / self.write_s(bytes)
        } else {
            self.write_1m_qd8.mb_per_s * 1e6 / frame_bytes
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn setting(per_s: f64, bytes: f64) -> Setting {
        Setting {
            per_s,
            mb_per_s: per_s * bytes / 1e6,
            p50_us: 1e6 / per_s,
            runs_per_s: vec![per_s; 3],
            ..Setting::default()
        }
    }

    /// A disk that is easy to calculate with: 100 µs, 200 µs and 500 µs at depth 1.
    pub(crate) fn disk() -> DiskLimits {
        DiskLimits {
            dsync_4k_qd1: setting(10_000.0, 4096.0),
            dsync_4k_qd8: setting(40_000.0, 4096.0),
            dsync_64k_qd1: setting(5_000.0, 65_536.0),
            dsync_64k_qd8: setting(20_000.0, 65_536.0),
            dsync_1m_qd1: setting(2_000.0, 1_048_576.0),
            dsync_1m_qd8: setting(3_000.0, 1_048_576.0),
            write_1m_qd8: setting(4_000.0, 1_048_576.0),
        }
    }

    fn close(left: f64, right: f64) {
        assert!((left / right - 1.0).abs() < 1e-9, "{left} is not {right}");
    }

    #[test]
    fn one_message_at_a_time_is_held_against_the_4k_rate() {
        close(disk().bound(true, 1, 1100.0), 10_000.0);
        close(disk().bound(true, 1, 128.0), 10_000.0);
    }

    #[test]
    fn many_messages_are_held_against_writes_that_carry_them_all() {
        close(disk().bound(true, 64, 1024.0), 64.0 * 5_000.0);
        close(disk().bound(true, 1024, 1024.0), 1024.0 * 2_000.0);
        let between = disk().bound(true, 512, 1024.0);
        assert!(between > 512.0 * 2_000.0 && between < 512.0 * 5_000.0, "{between}");
    }

    #[test]
    fn more_than_a_commit_takes_two_writes() {
        close(disk().bound(true, 4096, 2048.0), disk().bound(true, 2048, 2048.0));
    }

    #[test]
    fn asynchronous_rows_are_held_against_unsynced_bandwidth() {
        close(disk().bound(false, 1, 1_048_576.0), 4_000.0);
        close(disk().bound(false, 64, 1024.0), 4_000.0 * 1024.0);
    }

    #[test]
    fn a_larger_write_is_never_taken_for_the_faster_one() {
        let mut noisy = disk();
        noisy.dsync_64k_qd1 = setting(11_000.0, 65_536.0);
        close(noisy.bound(true, 32, 1024.0), 32.0 * 10_000.0);
    }
}
