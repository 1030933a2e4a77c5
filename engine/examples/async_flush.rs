//! Acks that do not wait for the disk, how far the disk is behind them, and a flush on demand.
//!
//! `cargo run -p anchorlog-engine --example async_flush`
#![expect(clippy::print_stdout, reason = "it shows what happened")]

use std::error::Error;
use std::time::Duration;

use anchorlog_engine::{Append, Clock, Engine, EngineOptions, Flush, SystemClock, WriteBatch};

fn main() -> Result<(), Box<dyn Error>> {
    // Beside this program: on the disk of the build, not in memory.
    let dir = tempfile::tempdir_in(std::env::current_exe()?.with_file_name(""))?;
    // A power failure may take the last quarter of a second, or 8 MiB; a killed process the last 10 ms, or 1 MiB.
    let flush = Flush::Async { interval: Duration::from_millis(250), bytes: 8 << 20 };
    let engine = Engine::open(dir.path(), EngineOptions::default().with_segment_bytes(16 << 20).with_flush(flush))?;
    let clock = SystemClock::new();
    let readings = engine.queue(b"sensor readings")?;

    let began = clock.monotonic();
    for number in 0..20_000_u32 {
        let mut batch = WriteBatch::new();
        let payload: &[&[u8]] = &[&number.to_le_bytes(), &[0; 96]];
        batch.append(&Append { queue: &readings, tag: 0, keys: &[], attributes: b"", payload })?;
        // Acknowledged as soon as it has a place; this waits only while the buffer is full.
        engine.append_and_wait(batch)?;
    }
    let took = clock.monotonic().saturating_sub(began);
    let marks = engine.watermarks();
    println!("20000 appends acknowledged in {took:?}: acked to LSN {}, durable to LSN {}", marks.acked, marks.durable);
    println!("{} bytes would be lost if the power failed now", marks.acked.since(marks.durable));

    // What must not be lost is flushed, whatever the interval.
    let durable = engine.flush()?;
    println!("flushed: durable to LSN {durable}, with {} flushes in all", engine.stats().flushes);
    engine.close()?;
    Ok(())
}
