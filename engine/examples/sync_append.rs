//! An append that is on the disk when the call returns, and a second process run that finds it there.
//!
//! `cargo run -p anchorlog-engine --example sync_append`
#![expect(clippy::print_stdout, reason = "it shows what happened")]

use std::error::Error;

use anchorlog_engine::{Append, Engine, EngineOptions, Fetch, Flush, QueueOffset, WriteBatch};

fn main() -> Result<(), Box<dyn Error>> {
    // Beside this program: on the disk of the build, not in memory.
    let dir = tempfile::tempdir_in(std::env::current_exe()?.with_file_name(""))?;
    let options = EngineOptions::default().with_segment_bytes(4 << 20).with_flush(Flush::Sync);

    let engine = Engine::open(dir.path(), options.clone())?;
    println!("opened: {}", engine.info().backend);
    let orders = engine.queue(b"orders")?;
    for text in ["three anchors", "a rope", "paint, red"] {
        let mut batch = WriteBatch::new();
        let payload: &[&[u8]] = &[text.as_bytes()];
        batch.append(&Append { queue: &orders, tag: 0, keys: &[], attributes: b"", payload })?;
        // Sleeps until the bytes are durable: a power failure from here on loses none of them.
        let outcome = engine.append_and_wait(batch)?;
        println!("{text:?} is durable at LSN {}, offset {}", outcome.first.lsn, outcome.first.queue_offset);
    }
    let stats = engine.stats();
    println!("{} batches, {} writes, {} flushes", stats.batches, stats.commits, stats.flushes);
    engine.close()?;

    let engine = Engine::open(dir.path(), options)?;
    println!("opened again: {}", engine.info().recovery);
    let orders = engine.queue(b"orders")?;
    let found = engine.fetch(&Fetch::new(&orders, QueueOffset(0)))?;
    for message in &found.messages {
        println!("offset {}: {}", message.queue_offset, String::from_utf8_lossy(message.payload()));
    }
    engine.close()?;
    Ok(())
}
