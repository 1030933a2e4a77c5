//! Links and table: an order is stored together with the note that it has to be shipped, and shipping it takes the note away; each
//! is one batch, so there is never an order without its note, and never one that is shipped twice.
//!
//! `cargo run -p anchorlog-engine --example outbox`
#![expect(clippy::print_stdout, reason = "it shows what happened")]

use std::error::Error;
use std::path::Path;

use anchorlog_engine::{
    Append, AppendError, AppendOrWaitError, Engine, EngineOptions, Fetch, Link, OpenError, Put, QueueOffset, WriteBatch,
};

fn open(dir: &Path) -> Result<Engine, OpenError> {
    Engine::open(dir, EngineOptions::default().with_segment_bytes(4 << 20))
}

/// Takes an order: the message, and the note in the outbox that refers to it.
fn take_order(engine: &Engine, number: &str, text: &str) -> Result<(), Box<dyn Error>> {
    let orders = engine.queue(b"orders")?;
    let note = format!("outbox/{number}");
    let mut batch = WriteBatch::new();
    // Whoever sends the same order twice, because no answer came, is told so.
    batch.require_absent(note.as_bytes())?;
    let payload: &[&[u8]] = &[text.as_bytes()];
    let order =
        batch.append(&Append { queue: &orders, tag: 0, keys: &[number.as_bytes()], attributes: b"", payload })?;
    // The message is kept as long as this entry is there.
    batch.put(&Put { key: note.as_bytes(), value: b"to be shipped", target: Some(order.into()) })?;
    match engine.append_and_wait(batch) {
        Ok(outcome) => println!("order {number} at LSN {}", outcome.first.lsn),
        Err(AppendOrWaitError::Append(AppendError::Rejected(rejection))) => {
            println!("order {number} again: {rejection}");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Ships everything in the outbox: a link to the message, and the note is gone.
fn ship(engine: &Engine) -> Result<(), Box<dyn Error>> {
    let shipping = engine.queue(b"shipping")?;
    for (key, entry) in engine.snapshot().range(b"outbox/", Some(b"outbox0"), 100)? {
        let order = engine.reference(entry.target.ok_or("every note refers to its order")?)?;
        let mut batch = WriteBatch::new();
        // If another shipper was faster, nothing of this happens.
        batch.require_value(&key, &entry.value)?;
        let link = Link { queue: &shipping, target: order.into(), tag: 0, keys: &[], attributes: b"by sea" };
        batch.link(&link)?;
        batch.delete(&key)?;
        let bytes = batch.frame_bytes();
        engine.append_and_wait(batch)?;
        println!("shipped {} with a batch of {bytes} bytes", String::from_utf8_lossy(&key));
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    // Beside this program: on the disk of the build, not in memory.
    let dir = tempfile::tempdir_in(std::env::current_exe()?.with_file_name(""))?;
    let engine = open(dir.path())?;
    take_order(&engine, "17", &"three anchors, ".repeat(200))?;
    take_order(&engine, "18", "a rope")?;
    take_order(&engine, "18", "a rope")?;
    engine.close()?;

    // Another run: the notes are still there, and the second round finds none.
    let engine = open(dir.path())?;
    ship(&engine)?;
    ship(&engine)?;
    let shipping = engine.queue(b"shipping")?;
    for message in engine.fetch(&Fetch::new(&shipping, QueueOffset(0)))?.messages {
        let (payload, how) = (message.payload(), String::from_utf8_lossy(message.attributes()));
        println!(
            "offset {}: {} bytes, {how}, stored at LSN {}",
            message.queue_offset,
            payload.len(),
            message.origin_lsn()
        );
    }
    println!("notes left: {}", engine.snapshot().range(b"outbox/", Some(b"outbox0"), 100)?.len());
    engine.close()?;
    Ok(())
}
