//! What the rows of one run say together: ratios that a promise of the documentation rests on, with the bound that it names.
//!
//! Ratios within one run, never absolute numbers: the same disk, the same minutes.

use serde::Serialize;

use crate::catch_up::CatchUp;
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
pub(crate) fn of(rows: &[RowResult], disk: &DiskLimits, catch_up: Option<&CatchUp>) -> Vec<Check> {
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
    let p50 = |name: &str| row(name).map(|row| row.quantile_us(0.5));
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
        least(
            "matrix/sync+sync/512 ÷ matrix/async+async/512",
            0.5,
            over(rate("matrix/sync+sync/512"), rate("matrix/async+async/512").unwrap_or(0.0)),
        ),
        least(
            "matrix/sync+sync/512 ÷ durable 4 KiB writes, depth 1",
            6.0,
            over(rate("matrix/sync+sync/512"), disk.dsync_4k_qd1.per_s),
        ),
        most(
            "matrix/sync+sync/1 ÷ matrix/sync+async/1, p50",
            2.5,
            over(p50("matrix/sync+sync/1"), p50("matrix/sync+async/1").unwrap_or(0.0)),
        ),
        least(
            "catching up with an idle leader ÷ the disk’s sequential read",
            0.6,
            catch_up.map(|catch_up| catch_up.idle.ratio),
        ),
        least(
            "rate of a busy leader, slave catching up ÷ slave in step",
            0.6,
            catch_up.map(|catch_up| catch_up.busy.ratio),
        ),
        most(
            "looks at a busy leader’s slave that found it no closer",
            0.0,
            catch_up.map(|catch_up| catch_up.busy.steps_without_gain() as f64),
        ),
    ]
    .into_iter()
    .chain(of_chain(rows))
    .flatten()
    .collect()
}

/// The ratios of the chain above the log.
fn of_chain(rows: &[RowResult]) -> [Option<Check>; 10] {
    let row = |name: &str| rows.iter().find(|row| row.spec.name == name);
    let chain = |name: &str| row(name)?.chain.as_ref();
    let rate = |name: &str| row(name).map(RowResult::acks_per_s).filter(|rate| *rate > 0.0);
    let over = |name: &str, base: &str| Some(rate(name)? / rate(base)?);
    let over_own = |name: &str| Some(rate(name)? / chain(name)?.without_per_s.filter(|without| *without > 0.0)?);
    let least = |name, bound, value: Option<f64>| value.map(|value| Check { name, value, bound, at_most: false });
    let most = |name, bound, value: Option<f64>| value.map(|value| Check { name, value, bound, at_most: true });
    let latest_ms = |name: &str| Some(chain(name)?.lateness.as_ref()?.max() as f64 / 1e6);
    [
        least("broker/transaction/64 ÷ broker/send/64", 0.4, over("broker/transaction/64", "broker/send/64")),
        least("broker/transaction/512 ÷ broker/send/512", 0.4, over("broker/transaction/512", "broker/send/512")),
        least("broker/delay/64 ÷ broker/send/64", 0.8, over("broker/delay/64", "broker/send/64")),
        least("broker/delay/512 ÷ broker/send/512", 0.8, over("broker/delay/512", "broker/send/512")),
        most("latest delivery while others are pending, ms", 100.0, latest_ms("broker/delay/pending")),
        least("live sends while they fall due ÷ before", 0.8, over_own("broker/delay/pending")),
        most(
            "log bytes of a retry’s round trip, beyond the message",
            400.0,
            chain("broker/retry").and_then(|chain| chain.log_bytes_each),
        ),
        least("broker/orderly ÷ broker/consume", 0.8, over("broker/orderly", "broker/consume")),
        least("broker/one-queue ÷ broker/many-queues", 0.9, over("broker/one-queue", "broker/many-queues")),
        least("sends beside commits of 1 000 groups ÷ without", 0.95, over_own("broker/commits")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catch_up::tests::catch_up;
    use crate::report::tests::{disk, row};

    #[test]
    fn a_ratio_is_checked_when_its_rows_are_there() {
        let rows = [row("engine/sync/1", true, 9_000), row("engine/sync/64", true, 99_000)];
        let checks = of(&rows, &disk(), None);
        assert_eq!(checks.len(), 2);
        assert!((checks[0].value - 0.9).abs() < 1e-9 && checks[0].holds());
        assert!((checks[1].value - 11.0).abs() < 1e-9 && !checks[1].holds());
        assert_eq!(checks[1].want(), "≥ 12");
    }

    #[test]
    fn device_bytes_are_promised_from_above() {
        let checks = of(&[row("engine/sync/inflight-1024", true, 1_000_000)], &disk(), None);
        let bytes = checks.iter().find(|check| check.at_most).expect("the row has device counters");
        assert!((bytes.value - 1.1).abs() < 1e-6, "{}", bytes.value);
        assert!(bytes.holds());
    }

    #[test]
    fn four_combinations_are_held_against_one_another() {
        let rows = [
            row("matrix/async+async/512", false, 100_000),
            row("matrix/sync+sync/512", true, 55_000),
            row("matrix/sync+async/1", true, 6_000),
            row("matrix/sync+sync/1", true, 2_000),
        ];
        let checks = of(&rows, &disk(), None);
        let found: Vec<(&str, bool)> = checks.iter().map(|check| (check.name, check.holds())).collect();
        assert_eq!(
            found,
            [
                ("matrix/sync+sync/512 ÷ matrix/async+async/512", true),
                ("matrix/sync+sync/512 ÷ durable 4 KiB writes, depth 1", false),
                ("matrix/sync+sync/1 ÷ matrix/sync+async/1, p50", false),
            ]
        );
        assert!((checks[2].value - 3.0).abs() < 0.01, "{}", checks[2].value);
    }

    #[test]
    fn the_chain_is_held_against_the_same_load_without_it() {
        let run = crate::report::tests::chain();
        let checks = of(&run.rows, &disk(), None);
        let found: Vec<(&str, f64)> =
            checks.iter().map(|check| (check.name, (check.value * 100.0).round() / 100.0)).collect();
        assert_eq!(
            found,
            [
                ("broker/transaction/64 ÷ broker/send/64", 0.5),
                ("broker/delay/64 ÷ broker/send/64", 0.88),
                ("latest delivery while others are pending, ms", 9.0),
                ("live sends while they fall due ÷ before", 0.9),
                ("log bytes of a retry’s round trip, beyond the message", 395.0),
                ("broker/orderly ÷ broker/consume", 0.9),
                ("broker/one-queue ÷ broker/many-queues", 0.95),
                ("sends beside commits of 1 000 groups ÷ without", 0.98),
            ]
        );
        assert!(checks.iter().all(Check::holds));
    }

    #[test]
    fn catching_up_is_promised_thrice() {
        let mut catch_up = catch_up();
        assert!(of(&[], &disk(), Some(&catch_up)).iter().all(Check::holds));
        catch_up.busy.caught_up = false;
        catch_up.busy.ratio = 0.5;
        catch_up.idle.ratio = 0.5;
        let checks = of(&[], &disk(), Some(&catch_up));
        assert_eq!(checks.iter().filter(|check| !check.holds()).count(), 3);
    }
}
