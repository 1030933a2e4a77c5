//! Many threads that each wait for the disk, and how few flushes that takes.
//!
//! `cargo run -p anchorlog-engine --example group_commit`
#![expect(clippy::print_stdout, reason = "it shows what happened")]

use std::error::Error;

use anchorlog_engine::{Append, Clock, Engine, EngineOptions, SystemClock, WriteBatch};

const APPENDS: u64 = 100;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Appends one message after the other, each only when the one before is durable.
fn produce(engine: &Engine, name: &str) -> Outcome {
    let queue = engine.queue(name.as_bytes())?;
    for number in 0..APPENDS {
        let mut batch = WriteBatch::new();
        let payload: &[&[u8]] = &[&number.to_le_bytes()];
        batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload })?;
        engine.append_and_wait(batch)?;
    }
    Ok(())
}

fn main() -> Outcome {
    // Beside this program: on the disk of the build, not in memory.
    let dir = tempfile::tempdir_in(std::env::current_exe()?.with_file_name(""))?;
    for threads in [1, 4, 16, 64] {
        let engine = Engine::open(dir.path(), EngineOptions::default().with_segment_bytes(4 << 20))?;
        let clock = SystemClock::new();
        let (began, before) = (clock.monotonic(), engine.stats());
        std::thread::scope(|scope| {
            let engine = &engine;
            let producers: Vec<_> =
                (0..threads).map(|number| scope.spawn(move || produce(engine, &format!("queue {number}")))).collect();
            producers.into_iter().try_for_each(|producer| producer.join().map_err(|_| "a producer panicked")?)
        })?;
        let (took, stats) = (clock.monotonic().saturating_sub(began), engine.stats());
        let (acks, flushes) = (threads * APPENDS, (stats.flushes - before.flushes).max(1));
        println!(
            "{threads:>2} threads: {acks:>4} acks, {flushes:>4} flushes, {:>2} acks a flush, {took:?}",
            acks / flushes
        );
        engine.close()?;
    }
    Ok(())
}
