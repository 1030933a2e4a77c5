//! This disk's own limit, measured in the same run by the same calls that the log makes.
//!
//! One pre-written file of random bytes is overwritten in place, front to back, through `O_DIRECT`. Depth 1 is one blocking
//! `pwritev2` at a time (`RWF_DSYNC` for the durable settings); depth 8 keeps eight in flight by io_uring, or by eight threads
//! where the kernel refuses that. A round measures every setting once; rounds lie between the groups of rows, so that a host that
//! slows down slows both; the limit of a setting is the **median of its rounds**.
//!
//! What is deliberately not here: what a limit means for a row (`limit.rs`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anchorlog_engine::io::threads::ThreadsBackend;
use anchorlog_engine::io::uring::UringBackend;
use anchorlog_engine::io::{AlignedBuf, IoBackend, IoCompletion, IoFile, IoOp, IoQueue, IoSlice, OpenMode, Wait};
use anchorlog_engine::units::to_u64;
use hdrhistogram::Histogram;
use rand::{Rng, SeedableRng};

use crate::clock::{self, SECOND_NS};
use crate::limit::{DiskLimits, Setting};
use crate::meter;

const FILL_BYTES: usize = 1 << 20;
const DEPTH: usize = 8;
const SETTING_COUNT: usize = 7;

/// Bytes, writes in flight, durable: in the order of [`DiskLimits::settings`].
const SETTINGS: [(usize, usize, bool); SETTING_COUNT] = [
    (4 << 10, 1, true),
    (4 << 10, DEPTH, true),
    (64 << 10, 1, true),
    (64 << 10, DEPTH, true),
    (1 << 20, 1, true),
    (1 << 20, DEPTH, true),
    (1 << 20, DEPTH, false),
];

struct Run {
    per_s: f64,
    latencies: Histogram<u64>,
}

/// The probe's file, removed when dropped, and what was measured so far.
pub(crate) struct DiskProbe {
    backend: Arc<dyn IoBackend>,
    file: Arc<dyn IoFile>,
    file_bytes: u64,
    path: PathBuf,
    deep_by: &'static str,
    rounds: Vec<Vec<Run>>,
}

impl DiskProbe {
    /// Writes the file, of `file_bytes`.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn create(dir: &Path, file_bytes: u64) -> io::Result<DiskProbe> {
        let (backend, deep_by): (Arc<dyn IoBackend>, _) = match UringBackend::new() {
            Ok(backend) => (Arc::new(backend), "io_uring"),
            Err(_) => (Arc::new(ThreadsBackend::new()), "eight threads"),
        };
        let path = dir.join("disk-probe");
        if path.exists() {
            backend.remove(&path)?;
        }
        let file = backend.open(&path, OpenMode::CreateNew)?;
        let probe = DiskProbe { backend, file, file_bytes, path, deep_by, rounds: Vec::new() };
        probe.file.allocate(file_bytes)?;
        let buf = random(FILL_BYTES);
        for at in (0..file_bytes).step_by(FILL_BYTES) {
            probe.file.write_at(&buf, at, false)?;
        }
        probe.file.sync()?;
        Ok(probe)
    }

    /// How depth 8 is reached.
    pub(crate) fn deep_by(&self) -> &'static str {
        self.deep_by
    }

    /// Measures every setting once, the durable 4 KiB writes at depth 1 last: whatever comes next is compared with those most of all.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn round(&mut self, seconds_each: f64) -> io::Result<()> {
        let mut runs = Vec::new();
        for (bytes, depth, durable) in SETTINGS.into_iter().rev() {
            runs.push(if depth == 1 {
                self.one_at_a_time(bytes, durable, seconds_each)?
            } else {
                self.several(bytes, depth, durable, seconds_each)?
            });
            self.file.sync()?;
        }
        runs.reverse();
        self.rounds.push(runs);
        Ok(())
    }

    fn one_at_a_time(&self, bytes: usize, durable: bool, seconds: f64) -> io::Result<Run> {
        let (buf, mut latencies, mut at) = (random(bytes), meter::latencies(), 0);
        let start = clock::now_ns();
        let mut now = start;
        while ((now - start) as f64) < seconds * SECOND_NS as f64 {
            self.file.write_at(&buf, at, durable)?;
            let ended = clock::now_ns();
            latencies.saturating_record(ended - now);
            now = ended;
            at = (at + to_u64(bytes)) % self.file_bytes;
        }
        Ok(Run { per_s: per_s(latencies.len(), now - start), latencies })
    }

    fn several(&self, bytes: usize, depth: usize, durable: bool, seconds: f64) -> io::Result<Run> {
        let slices: Vec<IoSlice> = (0..depth).map(|_| IoSlice::from_buf(random(bytes))).collect();
        let mut queue = self.backend.queue(depth)?;
        let (mut latencies, mut at) = (meter::latencies(), 0);
        let mut began = vec![0; depth];
        let submit = |queue: &mut Box<dyn IoQueue>, slot: usize, at: &mut u64, began: &mut [u64]| {
            let (file, slices) = (Arc::clone(&self.file), vec![slices[slot].clone()]);
            let op = if durable { IoOp::write_durable } else { IoOp::write }(to_u64(slot), file, *at, slices);
            began[slot] = clock::now_ns();
            queue.submit(op);
            *at = (*at + to_u64(bytes)) % self.file_bytes;
        };
        let start = clock::now_ns();
        for slot in 0..depth {
            submit(&mut queue, slot, &mut at, &mut began);
        }
        let (mut done, mut now): (Vec<IoCompletion>, u64) = (Vec::new(), start);
        let mut failed = None;
        while queue.in_flight() > 0 {
            queue.reap(Wait::One, &mut done);
            now = clock::now_ns();
            for completion in done.drain(..) {
                let slot = anchorlog_engine::units::to_usize(completion.op.token);
                latencies.saturating_record(now - began[slot]);
                failed = failed.or(completion.result.err());
                if failed.is_none() && ((now - start) as f64) < seconds * SECOND_NS as f64 {
                    submit(&mut queue, slot, &mut at, &mut began);
                }
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(Run { per_s: per_s(latencies.len(), now - start), latencies }),
        }
    }

    /// The median of all rounds so far.
    pub(crate) fn limits(&self) -> DiskLimits {
        let median = |at: usize| {
            let mut runs: Vec<&Run> = self.rounds.iter().map(|round| &round[at]).collect();
            let runs_per_s = runs.iter().map(|run| run.per_s).collect();
            runs.sort_by(|left, right| left.per_s.total_cmp(&right.per_s));
            let Some(run) = runs.get(runs.len() / 2) else { return Setting::default() };
            let quantile = |quantile: f64| run.latencies.value_at_quantile(quantile) as f64 / 1e3;
            Setting {
                per_s: run.per_s,
                mb_per_s: run.per_s * SETTINGS[at].0 as f64 / 1e6,
                p50_us: quantile(0.5),
                p99_us: quantile(0.99),
                p999_us: quantile(0.999),
                runs_per_s,
            }
        };
        DiskLimits {
            dsync_4k_qd1: median(0),
            dsync_4k_qd8: median(1),
            dsync_64k_qd1: median(2),
            dsync_64k_qd8: median(3),
            dsync_1m_qd1: median(4),
            dsync_1m_qd8: median(5),
            write_1m_qd8: median(6),
        }
    }
}

impl Drop for DiskProbe {
    fn drop(&mut self) {
        drop(self.backend.remove(&self.path));
    }
}

fn random(bytes: usize) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(bytes);
    rand::rngs::SmallRng::seed_from_u64(to_u64(bytes)).fill_bytes(&mut buf);
    buf
}

fn per_s(count: u64, ns: u64) -> f64 {
    count as f64 * SECOND_NS as f64 / (ns.max(1)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_measured_and_the_file_goes_away() {
        let dir = tempfile::tempdir_in(".").expect("a directory");
        let mut probe = DiskProbe::create(dir.path(), 16 << 20).expect("the file is written");
        probe.round(0.005).expect("the disk works");
        probe.round(0.005).expect("the disk works");
        for (name, setting) in probe.limits().settings() {
            assert!(setting.per_s > 0.0 && setting.p50_us > 0.0, "{name}");
            assert_eq!(setting.runs_per_s.len(), 2);
        }
        drop(probe);
        assert!(std::fs::read_dir(dir.path()).expect("it is there").next().is_none());
    }
}
