//! What a run leaves behind: lines for people, a page for people, numbers for programs. All of them say the same.

pub(crate) mod chains;
pub(crate) mod html;
pub(crate) mod json;
pub(crate) mod pairs;
pub(crate) mod svg;
pub(crate) mod text;

use crate::catch_up::CatchUp;
use crate::chain;
use crate::checks::{self, Check};
use crate::cli::Mode;
use crate::host::Host;
use crate::limit::DiskLimits;
use crate::open_loop::Load;
use crate::row::RowResult;
use crate::verify::Verified;

/// A finished run.
pub(crate) struct Run {
    /// What was measured, in a word: `comparison` or `broker HOST:PORT`.
    pub(crate) subject: String,
    /// Whether the run only shows that everything works.
    pub(crate) smoke: bool,
    /// When it began.
    pub(crate) started: String,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Bytes of a message.
    pub(crate) size: usize,
    /// Closed or open loop.
    pub(crate) load: Load,
    /// Where.
    pub(crate) host: Host,
    /// How depth 8 of the disk probe was reached; `None` when the disk was not probed.
    pub(crate) probe: Option<&'static str>,
    /// The disk's own limit; all zero when it was not probed.
    pub(crate) disk: DiskLimits,
    /// The rows.
    pub(crate) rows: Vec<RowResult>,
    /// How a slave that was far behind came back, where that was measured.
    pub(crate) catch_up: Option<CatchUp>,
}

impl Run {
    /// All accounts together; where a leader and a slave served, those of both.
    pub(crate) fn verified(&self) -> Verified {
        let slaves = self.rows.iter().filter_map(|row| Some(row.pair?.slave_verified));
        let rows = self.rows.iter().map(|row| row.verified).chain(slaves);
        let caught_up = self.catch_up.iter().flat_map(CatchUp::accounts).map(|(_, verified)| verified);
        rows.chain(caught_up).fold(Verified::default(), Verified::plus)
    }

    /// What the rows say together; nothing in an open loop, where the rate was given, or for messages of another size than was promised.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let as_promised = !self.smoke && self.load == Load::Closed && self.size == checks::SIZE;
        if as_promised && self.probe.is_some() {
            checks::of(&self.rows, &self.disk, self.catch_up.as_ref())
        } else {
            Vec::new()
        }
    }

    /// The rate of a pair's row ÷ that of the row in which nobody waits for any disk, with as many sends in flight.
    pub(crate) fn ratio_to_async(&self, row: &RowResult) -> Option<f64> {
        row.pair.filter(|_| row.chain.is_none())?;
        let waits_for_none = |other: &&RowResult| {
            other.chain.is_none()
                && other.pair.is_some_and(|pair| pair.flush == Mode::Async && pair.replication == Mode::Async)
                && other.spec.producers.outstanding() == row.spec.producers.outstanding()
        };
        let base = self.rows.iter().find(waits_for_none)?.acks_per_s();
        (base > 0.0).then(|| row.acks_per_s() / base)
    }

    /// The rate of a row of the chain ÷ that of the same load without what it adds: of another row, or of its own windows without it.
    pub(crate) fn ratio_to_base(&self, row: &RowResult) -> Option<f64> {
        let own = row.chain.as_ref()?.without_per_s;
        let base = || {
            let name = chain::base_of(&row.spec.name)?;
            self.rows.iter().find(|other| other.spec.name == name).map(RowResult::acks_per_s)
        };
        own.or_else(base).filter(|base| *base > 0.0).map(|base| row.acks_per_s() / base)
    }

    /// A row's ratio to the disk's limit, where the disk is known, and the row is about durable writes.
    pub(crate) fn limit_ratio(&self, row: &RowResult) -> Option<f64> {
        let is_bounded = row.chain.as_ref().is_none_or(|chain| chain.is_bounded);
        self.probe.filter(|_| is_bounded).map(|_| row.limit_ratio(&self.disk))
    }
}

/// A rate as people write it: `12.3k`, `1.25M`.
pub(crate) fn short(value: f64) -> String {
    match value {
        value if value >= 9.995e6 => format!("{:.1}M", value / 1e6),
        value if value >= 9.995e5 => format!("{:.2}M", value / 1e6),
        value if value >= 9.995e4 => format!("{:.0}k", value / 1e3),
        value if value >= 9.995e3 => format!("{:.1}k", value / 1e3),
        value if value >= 999.5 => format!("{:.2}k", value / 1e3),
        value if value >= 10.0 || value == 0.0 => format!("{value:.0}"),
        value => format!("{value:.2}"),
    }
}

/// A time as people write it: `840 ns`, `85.2 µs`, `1.20 ms`, `3.1 s`.
pub(crate) fn time(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{:.2} s", us / 1e6),
        us if us >= 1e5 => format!("{:.0} ms", us / 1e3),
        us if us >= 1e4 => format!("{:.1} ms", us / 1e3),
        us if us >= 1e3 => format!("{:.2} ms", us / 1e3),
        us if us >= 100.0 => format!("{us:.0} µs"),
        us if us >= 1.0 => format!("{us:.1} µs"),
        us => format!("{:.0} ns", us * 1e3),
    }
}

/// A count with its thousands apart.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A value that may be missing.
pub(crate) fn or_dash(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::PathBuf;

    use anchorlog_engine::BackendChoice;

    use super::*;
    pub(crate) use crate::limit::tests::disk;
    use crate::meter::{self, DeviceUse, Sample};
    use crate::row::{ChainUse, PairUse, Producers, RowSpec, combination};
    use crate::served::Counts;

    /// A row of 2 s that looks like a real one.
    pub(crate) fn row(name: &str, durable: bool, per_s: u64) -> RowResult {
        let outstanding = name.split('@').next().and_then(|name| name.rsplit(['/', '-']).next());
        let outstanding = outstanding.and_then(|text| text.parse().ok()).unwrap_or(1024);
        let pair = pair_use(name, per_s * 2);
        let producers = match (name.starts_with("broker") || pair.is_some(), outstanding) {
            (true, 4096) => Producers::Connections { count: 8, each: 512 },
            (true, 512) => Producers::Connections { count: 8, each: 64 },
            (true, count) => Producers::Connections { count, each: 1 },
            (false, 1024) => Producers::InFlight(1024),
            (false, count) => Producers::Blocking(count),
        };
        let mut latencies = meter::latencies();
        let mean_ns = outstanding as u64 * 1_000_000_000 / per_s;
        for at in 0..10_000_u64 {
            let tail = if at % 1000 == 999 { 20 } else { 1 };
            latencies.record((mean_ns / 2 + mean_ns * at / 10_000) * tail).expect("it is in the bounds");
        }
        let acks = per_s * 2;
        RowResult {
            spec: RowSpec {
                name: name.to_owned(),
                durable,
                producers,
                backend: BackendChoice::Auto,
                seconds: 2.0,
                size: 1000,
                load: Load::Closed,
                follow: false,
                scale: &crate::row::FULL,
            },
            backend: "threads".to_owned(),
            durability: if durable { "sync: acknowledged once durable" } else { "async: acknowledged once copied" }
                .to_owned(),
            seconds: 2.0,
            acks,
            latencies,
            series: (1..=20)
                .map(|at| Sample {
                    at_s: f64::from(at) / 10.0,
                    per_s: per_s as f64 * (1.0 + f64::from(at % 5 - 2) / 20.0),
                })
                .collect(),
            device: Some(DeviceUse { writes: acks / 4, bytes: acks * 1100, flushes: Some(acks / 8) }),
            cpu_s: Some(1.0),
            frame_bytes: 1100.0,
            verified: Verified { acked: acks, read: acks, ..Verified::default() },
            notes: Vec::new(),
            pair,
            chain: None,
        }
    }

    /// What the two brokers of a row `matrix/...` did.
    fn pair_use(name: &str, acks: u64) -> Option<PairUse> {
        let (flush, replication) = name.strip_prefix("matrix/")?.split_once('/')?.0.split_once('+')?;
        Some(PairUse {
            flush: Mode::of(flush == "sync"),
            replication: Mode::of(replication == "sync"),
            leader_cpu_s: Some(0.75),
            slave_cpu_s: Some(0.25),
            leader: Counts { flushes: acks / 16, bytes: acks * 1100, log_bytes: acks * 1050 },
            slave: Counts { flushes: acks / 20, bytes: acks * 1100, log_bytes: 0 },
            slave_device: None,
            shared_disk: true,
            behind: 12,
            slave_verified: Verified { acked: acks, read: acks, ..Verified::default() },
        })
    }

    /// A run of the four combinations.
    pub(crate) fn matrix() -> Run {
        let modes = [Mode::Async, Mode::Sync];
        let mut rows = Vec::new();
        for in_flight in [1, 64, 512, 4096] {
            for (at, (flush, replication)) in
                modes.into_iter().flat_map(|flush| modes.map(|replication| (flush, replication))).enumerate()
            {
                let per_s = 8_000 * (1 + in_flight / 8).min(20) / (at as u64 + 1);
                let durable = at > 0;
                rows.push(row(&format!("matrix/{}/{in_flight}", combination(flush, replication)), durable, per_s));
            }
        }
        Run { subject: "matrix".to_owned(), rows, catch_up: Some(crate::catch_up::tests::catch_up()), ..run() }
    }

    /// A run of the chain.
    pub(crate) fn chain() -> Run {
        let late = |ms: u64| {
            let mut lateness = meter::latencies();
            lateness.record(ms * 1_000_000).expect("it is in the bounds");
            Some(lateness)
        };
        let use_of = |name: &str, acks: u64| ChainUse {
            counts: if name.starts_with("chain") { "messages from the send to the processed message" } else { "sends" },
            is_bounded: name.starts_with("broker/send"),
            engine: Counts { flushes: acks / 16, bytes: acks * 1100, log_bytes: acks * 1050 },
            sends: name.starts_with("chain").then(|| row(name, true, 20_000).latencies),
            lateness: name.contains("pending").then(|| late(9)).flatten(),
            log_bytes_each: name.ends_with("retry").then_some(395.0),
            without_per_s: ["broker/commits", "broker/delay/pending"].contains(&name).then_some(50_000.0),
            pending: name.contains("pending").then_some(100_000),
        };
        let rows = [
            ("broker/send/64", 80_000),
            ("broker/transaction/64", 40_000),
            ("broker/delay/64", 70_000),
            ("broker/delay/pending", 45_000),
            ("broker/retry", 20_000),
            ("broker/consume", 400_000),
            ("broker/orderly", 360_000),
            ("broker/many-queues", 60_000),
            ("broker/one-queue", 57_000),
            ("broker/commits", 49_000),
            ("chain/fast/64", 40_000),
            ("chain/safe/64", 10_000),
        ]
        .map(|(name, per_s)| {
            let whole = name.starts_with("chain");
            let mut found = row(name, name != "chain/fast/64", per_s);
            found.spec.producers = Producers::Connections { count: 64, each: 1 };
            found.chain = Some(use_of(name, per_s * 2));
            found.pair = whole.then(|| pair_use("matrix/sync+sync/64", per_s * 2)).flatten();
            found
        });
        Run { subject: "chain".to_owned(), rows: rows.into(), ..run() }
    }

    pub(crate) fn run() -> Run {
        let rates = [
            ("engine/sync/1", true, 9_300),
            ("engine/sync/8", true, 52_000),
            ("engine/sync/64", true, 240_000),
            ("engine/sync/inflight-1024", true, 1_400_000),
            ("engine/sync/1@uring", true, 8_800),
            ("engine/sync/1@threads", true, 9_250),
            ("engine/async/1", false, 1_000_000),
            ("engine/async/8", false, 1_400_000),
            ("engine/async/64", false, 1_300_000),
            ("engine/async/inflight-1024", false, 2_700_000),
            ("broker/sync/1", true, 6_000),
            ("broker/sync/64", true, 90_000),
            ("broker/sync/512", true, 210_000),
            ("broker/async/1", false, 14_000),
            ("broker/async/64", false, 120_000),
            ("broker/async/512", false, 260_000),
        ];
        Run {
            subject: "comparison".to_owned(),
            smoke: false,
            started: "2026-01-31 12:00:00 UTC".to_owned(),
            seconds: 61.0,
            size: checks::SIZE,
            load: Load::Closed,
            host: Host::look(&PathBuf::from(".")),
            probe: Some("io_uring"),
            disk: disk(),
            rows: rates.into_iter().map(|(name, durable, per_s)| row(name, durable, per_s)).collect(),
            catch_up: None,
        }
    }

    #[test]
    fn numbers_are_short_enough_to_be_read() {
        assert_eq!([short(12_345.0), short(1.25e6), short(999.0), short(250_400.0)], ["12.3k", "1.25M", "999", "250k"]);
        assert_eq!([time(0.25), time(85.16), time(1234.0), time(2.5e6)], ["250 ns", "85.2 µs", "1.23 ms", "2.50 s"]);
        assert_eq!([grouped(7), grouped(1234), grouped(1_234_567)], ["7", "1\u{202f}234", "1\u{202f}234\u{202f}567"]);
        assert_eq!([or_dash(None, 1), or_dash(Some(1.25), 1)], ["–", "1.2"]);
    }

    #[test]
    fn the_accounts_of_all_rows_are_added_up() {
        let run = run();
        assert_eq!(run.verified().acked, run.rows.iter().map(|row| row.acks).sum::<u64>());
        assert!(run.verified().is_clean());
        assert_eq!(run.checks().len(), 6);
    }

    #[test]
    fn a_pair_is_held_against_the_row_that_waits_for_no_disk() {
        let run = matrix();
        let ratio =
            |name: &str| run.ratio_to_async(run.rows.iter().find(|row| row.spec.name == name).expect("it is there"));
        assert_eq!(ratio("matrix/async+async/64"), Some(1.0));
        assert!((ratio("matrix/sync+sync/64").expect("both are there") - 0.25).abs() < 1e-9);
        assert_eq!(run.ratio_to_async(&row("engine/sync/64", true, 10_000)), None);
    }

    #[test]
    fn a_row_of_the_chain_is_held_against_the_same_load_without_it() {
        let run = chain();
        let of = |name: &str| run.rows.iter().find(|row| row.spec.name == name).expect("it is there");
        assert_eq!(run.ratio_to_base(of("broker/transaction/64")), Some(0.5));
        assert_eq!(run.ratio_to_base(of("broker/one-queue")), Some(0.95));
        assert_eq!(run.ratio_to_base(of("broker/delay/pending")), Some(0.9));
        assert_eq!(run.ratio_to_base(of("broker/send/64")), None);
        assert!(run.limit_ratio(of("broker/send/64")).is_some() && run.limit_ratio(of("broker/consume")).is_none());
        assert_eq!(run.ratio_to_async(of("chain/safe/64")), None, "it is no combination of a matrix");
    }

    #[test]
    fn what_a_slave_lost_is_lost() {
        let mut run = matrix();
        assert!(run.verified().is_clean());
        let pair = run.rows[3].pair.as_mut().expect("it is one of two brokers");
        pair.slave_verified.lost = 1;
        assert_eq!(run.verified().lost, 1);
        assert!(!run.rows[3].is_clean());
        let mut run = matrix();
        run.catch_up.as_mut().expect("it was measured").busy_verify.slave.lost = 1;
        assert_eq!(run.verified().lost, 1);
    }

    #[test]
    fn nothing_is_promised_of_an_open_loop_or_another_size() {
        assert!(Run { size: 128, ..run() }.checks().is_empty());
        let run = Run { load: Load::Open { per_s: 10.0 }, ..run() };
        assert!(run.checks().is_empty());
    }
}
