//! One row of the comparison: what is asked, and what came out.

use std::time::Duration;

use anchorlog_engine::BackendChoice;
use hdrhistogram::Histogram;

use crate::cli::Mode;
use crate::error::PerfError;
use crate::limit::DiskLimits;
use crate::meter::{DeviceUse, Sample};
use crate::open_loop::Load;
use crate::served::Counts;
use crate::verify::Verified;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Producers {
    /// So many threads, each with one message at a time (`Engine::append_and_wait`).
    Blocking(usize),
    /// One thread that keeps so many messages in flight, one per write batch (`Engine::append_all`).
    InFlight(usize),
    /// Connections to a broker, each with so many sends in flight, all driven by one thread.
    Connections {
        /// Connections.
        count: usize,
        /// Sends in flight on each.
        each: usize,
    },
}

impl Producers {
    /// Messages that may be unacknowledged at once.
    pub(crate) fn outstanding(self) -> usize {
        match self {
            Producers::Blocking(count) | Producers::InFlight(count) => count,
            Producers::Connections { count, each } => count * each,
        }
    }

    /// For people.
    pub(crate) fn describe(self) -> String {
        match self {
            Producers::Blocking(1) => "1 blocking thread".to_owned(),
            Producers::Blocking(count) => format!("{count} blocking threads"),
            Producers::InFlight(count) => format!("1 thread, {count} in flight"),
            Producers::Connections { count: 1, each: 1 } => "1 connection, 1 in flight".to_owned(),
            Producers::Connections { count, each } => format!("{count} connections × {each} in flight"),
        }
    }
}

/// How large the stores of a run are and how long their rows are warmed up.
#[derive(Debug)]
pub(crate) struct Scale {
    /// Bytes of a segment.
    pub(crate) segment_bytes: u64,
    /// What a row's store keeps: older segments are recycled, so that a fast row stays bounded.
    pub(crate) retain_bytes: u64,
    /// The same for our broker's stores, which are read back over TCP.
    pub(crate) broker_retain_bytes: u64,
    /// Shortest warm-up.
    pub(crate) warm_up: Duration,
    /// The file that the disk probe overwrites.
    pub(crate) probe_file_bytes: u64,
}

/// A run whose numbers count.
pub(crate) const FULL: Scale = Scale {
    segment_bytes: 64 << 20,
    retain_bytes: 256 << 20,
    broker_retain_bytes: 1 << 30,
    warm_up: Duration::from_millis(300),
    probe_file_bytes: 256 << 20,
};

/// A run that only shows that everything works.
pub(crate) const SMOKE: Scale = Scale {
    segment_bytes: 8 << 20,
    retain_bytes: 32 << 20,
    broker_retain_bytes: 128 << 20,
    warm_up: Duration::from_millis(30),
    probe_file_bytes: 16 << 20,
};

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct RowSpec {
    /// Its name, such as `engine/sync/64` or `engine/sync/1@uring`.
    pub(crate) name: String,
    /// Ack after the flush, or after the copy.
    pub(crate) durable: bool,
    /// Who sends.
    pub(crate) producers: Producers,
    /// The backend asked for.
    pub(crate) backend: BackendChoice,
    /// Length of the window.
    pub(crate) seconds: f64,
    /// Bytes of a message.
    pub(crate) size: usize,
    /// Closed or open loop.
    pub(crate) load: Load,
    /// A reader follows and checks every message, on recycled segments.
    pub(crate) follow: bool,
    /// How large its store is.
    pub(crate) scale: &'static Scale,
}

impl RowSpec {
    /// Connections, and sends in flight on each.
    ///
    /// # Errors
    /// When the row has none.
    pub(crate) fn connections(&self) -> Result<(usize, usize), PerfError> {
        match self.producers {
            Producers::Connections { count, each } => Ok((count, each)),
            _ => Err(PerfError::Usage(format!("row {} has no connections", self.name))),
        }
    }
}

/// What else is known of a row that a leader and its slave served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PairUse {
    /// Whether an ack waited for the leader's flush.
    pub(crate) flush: Mode,
    /// Whether it waited for the slave's.
    pub(crate) replication: Mode,
    /// Processor time of the leader in the window.
    pub(crate) leader_cpu_s: Option<f64>,
    /// Processor time of the slave.
    pub(crate) slave_cpu_s: Option<f64>,
    /// What the leader's engine counted in the window.
    pub(crate) leader: Counts,
    /// What the slave's did.
    pub(crate) slave: Counts,
    /// What the slave's device did, unless it is the leader's too.
    pub(crate) slave_device: Option<DeviceUse>,
    /// Whether both directories lie on one device, whose counters then have the work of both brokers.
    pub(crate) shared_disk: bool,
    /// Messages that the slave was behind when the window closed.
    pub(crate) behind: u64,
    /// The accounts of what the slave gave back; the row's own are the leader's.
    pub(crate) slave_verified: Verified,
}

/// What else is known of a row of the chain above the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChainUse {
    /// What is counted.
    pub(crate) counts: &'static str,
    /// Whether each count is a write that the disk's limit is about.
    pub(crate) is_bounded: bool,
    /// What the broker's engine counted in the window; the leader's, of two.
    pub(crate) engine: Counts,
    /// How long a send took, where a count is more than that.
    pub(crate) sends: Option<Histogram<u64>>,
    /// How late deliveries were.
    pub(crate) lateness: Option<Histogram<u64>>,
    /// Log bytes of a round trip beyond the message.
    pub(crate) log_bytes_each: Option<f64>,
    /// The rate of the same load without what this row adds to it.
    pub(crate) without_per_s: Option<f64>,
    /// Messages that were pending.
    pub(crate) pending: Option<u64>,
}

/// `sync+async` and so on: flush, then replication.
pub(crate) fn combination(flush: Mode, replication: Mode) -> String {
    format!("{}+{}", flush.name(), replication.name())
}

/// What came out.
#[derive(Clone, Debug)]
pub(crate) struct RowResult {
    /// What was asked.
    pub(crate) spec: RowSpec,
    /// The backend in force, and why.
    pub(crate) backend: String,
    /// What an ack of this row means.
    pub(crate) durability: String,
    /// Length of the window.
    pub(crate) seconds: f64,
    /// Acks in it.
    pub(crate) acks: u64,
    /// Their latencies, in nanoseconds.
    pub(crate) latencies: Histogram<u64>,
    /// The throughput curve.
    pub(crate) series: Vec<Sample>,
    /// What the device did in the window.
    pub(crate) device: Option<DeviceUse>,
    /// CPU time of the measured process in the window (for an engine row the producers are in it).
    pub(crate) cpu_s: Option<f64>,
    /// Bytes that a message takes in the log; estimated where the log belongs to a broker.
    pub(crate) frame_bytes: f64,
    /// The accounts of the read-back.
    pub(crate) verified: Verified,
    /// What a reader should know about this row besides.
    pub(crate) notes: Vec<String>,
    /// What else is known where two brokers served.
    pub(crate) pair: Option<PairUse>,
    /// What else is known of a row of the chain.
    pub(crate) chain: Option<ChainUse>,
}

impl RowResult {
    /// Acks per second.
    pub(crate) fn acks_per_s(&self) -> f64 {
        if self.seconds > 0.0 { self.acks as f64 / self.seconds } else { 0.0 }
    }

    /// Payload bandwidth, 10^6 bytes per second.
    pub(crate) fn mb_per_s(&self) -> f64 {
        self.acks_per_s() * self.spec.size as f64 / 1e6
    }

    /// A latency in microseconds.
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Mean latency in microseconds.
    pub(crate) fn mean_us(&self) -> f64 {
        self.latencies.mean() / 1e3
    }

    /// Longest latency in microseconds.
    pub(crate) fn max_us(&self) -> f64 {
        self.latencies.max() as f64 / 1e3
    }

    /// Acks per second that the disk would allow.
    pub(crate) fn limit_per_s(&self, disk: &DiskLimits) -> f64 {
        disk.bound(self.spec.durable, self.spec.producers.outstanding(), self.frame_bytes)
    }

    /// Acks per second ÷ what the disk would allow.
    pub(crate) fn limit_ratio(&self, disk: &DiskLimits) -> f64 {
        self.acks_per_s() / self.limit_per_s(disk)
    }

    /// Bytes written to the device for each payload byte acknowledged.
    pub(crate) fn device_bytes_per_payload_byte(&self) -> Option<f64> {
        let payload = self.acks as f64 * self.spec.size as f64;
        self.device.filter(|_| payload > 0.0).map(|device| device.bytes as f64 / payload)
    }

    /// Acks for each flush of the device.
    pub(crate) fn acks_per_flush(&self) -> Option<f64> {
        let flushes = self.device?.flushes.filter(|flushes| *flushes > 0)?;
        Some(self.acks as f64 / flushes as f64)
    }

    /// CPU time for each ack, in microseconds.
    pub(crate) fn cpu_us_per_ack(&self) -> Option<f64> {
        self.cpu_s.and_then(|seconds| self.per_ack(seconds * 1e6))
    }

    /// So much of something for each ack.
    pub(crate) fn per_ack(&self, amount: f64) -> Option<f64> {
        (self.acks > 0).then(|| amount / self.acks as f64)
    }

    /// Flushes of the device for each ack; where a pair shares it, both brokers' are in it.
    pub(crate) fn flushes_per_ack(&self) -> Option<f64> {
        self.per_ack(self.device?.flushes? as f64)
    }

    /// Flushes of the slave's device for each ack, where it has one of its own.
    pub(crate) fn slave_flushes_per_ack(&self) -> Option<f64> {
        self.per_ack(self.pair?.slave_device?.flushes? as f64)
    }

    /// Whether nothing was lost, doubled, or disordered, on any of the brokers.
    pub(crate) fn is_clean(&self) -> bool {
        self.verified.is_clean() && self.pair.is_none_or(|pair| pair.slave_verified.is_clean())
    }
}

/// What a row's name ends in where a backend was forced.
pub(crate) fn backend_suffix(backend: BackendChoice) -> &'static str {
    match backend {
        BackendChoice::Auto => "",
        BackendChoice::Uring => "@uring",
        BackendChoice::Threads => "@threads",
    }
}
