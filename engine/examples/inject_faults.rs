//! The production code over a simulated disk that fails a write, loses power and rots: the same seed, the same run.
//!
//! `cargo run -p anchorlog-engine --example inject_faults`
#![expect(clippy::print_stdout, reason = "it shows what happened")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::{IoClass, SimDisk, Survival, Times};
use anchorlog_engine::{Append, Engine, EngineOptions, OpenError, QueueOffset, Ticket, WriteBatch};

fn open(disk: &SimDisk) -> Result<Engine, OpenError> {
    // No threads and no clock but ours: every step is taken by hand, and repeats.
    let options = EngineOptions::default().with_segment_bytes(1 << 20).with_manual_drive();
    Engine::open_with(disk.backend(), Arc::new(SimClock::default()), Path::new("/log"), options)
}

fn send(engine: &Engine, text: &str) -> Result<Ticket, Box<dyn Error>> {
    let queue = engine.queue(b"orders")?;
    let mut batch = WriteBatch::new();
    batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload: &[text.as_bytes()] })?;
    let ticket = engine.try_append(&mut batch)?;
    for _ in 0..10 {
        engine.step();
    }
    Ok(ticket)
}

fn count(engine: &Engine) -> Result<QueueOffset, Box<dyn Error>> {
    Ok(engine.range(&engine.queue(b"orders")?).max)
}

fn main() -> Result<(), Box<dyn Error>> {
    let disk = SimDisk::new(17);
    let engine = open(&disk)?;
    send(&engine, "three anchors")?.wait()?;
    println!("acknowledged: {} messages after {} I/Os", count(&engine)?, disk.io_count());

    // The next write fails with EIO, once. Nothing is acknowledged any more.
    disk.fail(IoClass::Write, disk.count(IoClass::Write) + 1, 5, Times::Once);
    let error = send(&engine, "a rope")?.wait_timeout(Duration::ZERO).err().ok_or("the write should have failed")?;
    println!("a failed write: {error}");
    println!("the advice: {:?}", error.advice());
    drop(engine);

    // The power fails; nothing that was not flushed survives.
    let disk = disk.crash_with(17, Survival::Nothing);
    let engine = open(&disk)?;
    println!("after the power failure: {} messages; {}", count(&engine)?, engine.info().recovery);
    let kept = send(&engine, "paint, red")?.wait()?;
    drop(engine);

    // Another run: its first frame says how far the log was durable then.
    let disk = disk.crash_with(18, Survival::Nothing);
    drop(open(&disk)?);
    let disk = disk.crash_with(19, Survival::Nothing);
    // A bit rots below that. It is no torn tail, and nothing is cut.
    disk.flip_bit(&Path::new("/log").join("00000000000000000000.seg"), 4096 + kept.first.lsn.0 + 40, 0);
    match open(&disk) {
        Err(error) => println!("refused: {error}\nthe advice: {:?}", error.advice()),
        Ok(_) => return Err("damage was not noticed".into()),
    }
    Ok(())
}
