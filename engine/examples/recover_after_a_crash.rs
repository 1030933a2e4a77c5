//! A process is killed in the middle of its appends; the next one opens the log and finds everything that was acknowledged.
//!
//! The program starts itself a second time as the process to be killed. For power failures, see `inject_faults`.
//!
//! `cargo run -p anchorlog-engine --example recover_after_a_crash`
#![expect(clippy::print_stdout, reason = "it shows what happened")]

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anchorlog_engine::{Append, Engine, EngineOptions, Fetch, FetchStatus, QueueOffset, WriteBatch};

fn options() -> EngineOptions {
    EngineOptions::default().with_segment_bytes(4 << 20)
}

/// The process to be killed: appends for ever, and says which number is acknowledged.
fn append_until_killed(dir: &Path) -> Result<(), Box<dyn Error>> {
    let engine = Engine::open(dir, options())?;
    let queue = engine.queue(b"numbers")?;
    for number in 0_u64.. {
        let mut batch = WriteBatch::new();
        let payload: &[&[u8]] = &[&number.to_le_bytes()];
        batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload })?;
        engine.append_and_wait(batch)?;
        println!("{number}");
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(dir) = std::env::args_os().nth(1) {
        return append_until_killed(Path::new(&dir));
    }
    // Beside this program: on the disk of the build, not in memory.
    let dir = tempfile::tempdir_in(std::env::current_exe()?.with_file_name(""))?;
    let mut child = Command::new(std::env::current_exe()?).arg(dir.path()).stdout(Stdio::piped()).spawn()?;
    let mut acked = None;
    for line in BufReader::new(child.stdout.take().ok_or("the pipe was asked for")?).lines().take(200) {
        acked = Some(line?.parse::<u64>()?);
    }
    child.kill()?;
    child.wait()?;
    let acked = acked.ok_or("the child ended early")?;
    println!("killed after it said that number {acked} is acknowledged");

    let engine = Engine::open(dir.path(), options())?;
    println!("opened: {}", engine.info().recovery);
    let queue = engine.queue(b"numbers")?;
    let mut next = QueueOffset(0);
    loop {
        let found = engine.fetch(&Fetch::new(&queue, next))?;
        if found.status == FetchStatus::AtEnd {
            break;
        }
        for message in &found.messages {
            if message.payload() != message.queue_offset.0.to_le_bytes() {
                return Err(format!("offset {} holds something else", message.queue_offset).into());
            }
        }
        next = found.next;
    }
    println!("found numbers 0 to {}, in order", next.0.saturating_sub(1));
    if next.0 <= acked {
        return Err("something that was acknowledged is not there".into());
    }
    engine.close()?;
    Ok(())
}
