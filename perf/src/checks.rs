//! What the rows of one run say together: ratios that a promise of the documentation rests on, with the bound that it names.
//!
//! Ratios within one run, never absolute numbers: the same disk, the same minutes.

use serde::Serialize;

use crate::limit::DiskLimits;
use crate::row::RowResult;

/// Bytes of the messages that the promises are about.
pub(crate) const SIZE: usize = 1024;

/// A promised ratio.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Check {
    /// What is divided by what.
    pub(crate) name: &'static str,
    /// The ratio of this run.
    pub(crate) value: f64,
    /// The promised bound.
    pub(crate) bound: f64,
    /// Whether the bound is the most that is promised, not the least.
    pub(crate) at_most: bool,
}

impl Check {
    /// Whether the promise held in this run.
    pub(crate) fn holds(&self) -> bool {
        if self.at_most { self.value <= self.bound } else { self.value >= self.bound }
    }

    /// `≥ 0.85` or `≤ 1.15`.
    pub(crate) fn want(&self) -> String {
        format!("{} {}", if self.at_most { "≤" } else { "≥" }, self.bound)
    }
}

/// All ratios for which this run has the rows. They are promised for messages of [`SIZE`] in a closed loop.
pub(crate) fn of(rows: &[RowResult], disk: &DiskLimits) -> Vec<Check> {
    // Where a backend was forced, its rows stand for the plain ones.
    let row = |name: &str| {
        let forced = |row: &&RowResult| row.spec.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('@'));
        rows.iter().find(|row| row.spec.name == name).or_else(|| rows.iter().find(forced))
    };
    let rate = |name: &str| row(name).map(RowResult::acks_per_s);
    let bandwidth = |name: &str| row(name).map(RowResult::mb_per_s);
    let over = |value: Option<f64>, divisor: f64| value.filter(|_| divisor > 0.0).map(|value| value / divisor);
    let least = |name, bound, value: Option<f64>| value.map(|value| Check { name, value, bound, at_most: false });
    let most = |name, bound, value: Option<f64>| value.map(|value| Check { name, value, bound, at_most: true });
    [
        least(
            "engine/sync/1 ÷ durable 4 KiB writes, depth 1",
            0.85,
            over(rate("engine/sync/1"), disk.dsync_4k_qd1.per_s),
        ),
        least(
            "engine/sync/64 ÷ engine/sync/1",
            12.0,
            over(rate("engine/sync/64"), rate("engine/sync/1").unwrap_or(0.0)),
        ),
        least(
            "engine/sync/inflight-1024 ÷ durable 1 MiB bandwidth, depth 1",
            0.6,
            over(bandwidth("engine/sync/inflight-1024"), disk.dsync_1m_qd1.mb_per_s),
        ),
        most(
            "engine/sync/inflight-1024: device bytes ÷ payload bytes",
            1.15,
            row("engine/sync/inflight-1024").and_then(RowResult::device_bytes_per_payload_byte),
        ),
        least(
            "engine/async/sustained ÷ unsynced 1 MiB bandwidth, depth 8",
            0.5,
            over(bandwidth("engine/async/sustained"), disk.write_1m_qd8.mb_per_s),
        ),
        least(
            "broker/sync/64 ÷ durable 4 KiB writes, depth 1",
            4.0,
            over(rate("broker/sync/64"), disk.dsync_4k_qd1.per_s),
        ),
        least(
            "broker/sync/512 ÷ durable 4 KiB writes, depth 1",
            12.0,
            over(rate("broker/sync/512"), disk.dsync_4k_qd1.per_s),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{disk, row};

    #[test]
    fn a_ratio_is_checked_when_its_rows_are_there() {
        let rows = [row("engine/sync/1", true, 9_000), row("engine/sync/64", true, 99_000)];
        let checks = of(&rows, &disk());
        assert_eq!(checks.len(), 2);
        assert!((checks[0].value - 0.9).abs() < 1e-9 && checks[0].holds());
        assert!((checks[1].value - 11.0).abs() < 1e-9 && !checks[1].holds());
        assert_eq!(checks[1].want(), "≥ 12");
    }

    #[test]
    fn device_bytes_are_promised_from_above() {
        let checks = of(&[row("engine/sync/inflight-1024", true, 1_000_000)], &disk());
        let bytes = checks.iter().find(|check| check.at_most).expect("the row has device counters");
        assert!((bytes.value - 1.1).abs() < 1e-6, "{}", bytes.value);
        assert!(bytes.holds());
    }
}
