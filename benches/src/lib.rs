//! Load shapes that the benchmarks share: one message, one engine, one moment.
//!
//! Each file in `benches/` asks one question and says which decision it guards. Disk rows are few and slow, so they run with small samples;
//! the comparison with the disk's own limit is `anchorlog-perf`'s.

use std::path::Path;
use std::time::{Duration, Instant};

use anchorlog_engine::io::threads::ThreadsBackend;
use anchorlog_engine::io::uring::UringBackend;
use anchorlog_engine::io::{BackendKind, IoBackend};
use anchorlog_engine::{Append, Clock, Engine, EngineOptions, Queue, SystemClock, WriteBatch};
use criterion::Criterion;

/// Sizes of messages that questions are asked for, in bytes.
pub const SIZES: [usize; 4] = [128, 1024, 4096, 16384];

/// Criterion for rows that touch a disk: short, few samples, no plots.
#[must_use]
pub fn disk_criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args()
}

/// Criterion for rows that only compute.
#[must_use]
pub fn cpu_criterion() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args()
}

/// Bytes that do not compress, always the same.
#[must_use]
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .collect()
}

/// A directory on the disk that holds the build.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn directory() -> tempfile::TempDir {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    tempfile::Builder::new().prefix("anchorlog-bench-").tempdir_in(target).expect("the build directory can be written")
}

/// The real backends of this machine; the one that is refused is named.
#[must_use]
#[expect(clippy::print_stderr, reason = "a row that cannot be measured says so")]
pub fn backends() -> Vec<std::sync::Arc<dyn IoBackend>> {
    let mut all: Vec<std::sync::Arc<dyn IoBackend>> = vec![std::sync::Arc::new(ThreadsBackend::new())];
    match UringBackend::new() {
        Ok(ring) => all.push(std::sync::Arc::new(ring)),
        Err(why) => eprintln!("SKIPPED rows on {}: {why}", BackendKind::Uring),
    }
    all
}

/// An engine on a given backend.
///
/// # Panics
/// When it does not open.
#[must_use]
pub fn engine(backend: &std::sync::Arc<dyn IoBackend>, dir: &Path, options: EngineOptions) -> Engine {
    let clock: std::sync::Arc<dyn Clock> = std::sync::Arc::new(SystemClock::new());
    Engine::open_with(std::sync::Arc::clone(backend), clock, dir, options).expect("the engine opens")
}

/// Options whose store stays below half a gigabyte.
#[must_use]
pub fn bounded() -> EngineOptions {
    EngineOptions::default().with_retain_bytes(Some(256 << 20))
}

/// One message as a batch of its own.
///
/// # Panics
/// When it is too large.
#[must_use]
pub fn message(queue: &Queue, payload: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch
        .append(&Append { queue, tag: 7, keys: &[], attributes: &[], payload: &[payload] })
        .expect("the message fits a batch");
    batch
}

/// Times a body once.
#[expect(clippy::disallowed_methods, reason = "measuring is what this crate is for")]
pub fn timed(body: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    body();
    begun.elapsed()
}
