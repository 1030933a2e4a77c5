//! Following a queue as it grows: woken when there is something to read, and not once for every message.
//!
//! `cargo run -p anchorlog-engine --example tail_reader`
#![expect(clippy::print_stdout, reason = "it shows what happened")]

use std::error::Error;

use anchorlog_engine::{Append, Engine, EngineOptions, Fetch, FetchStatus, QueueOffset, Watcher, WriteBatch};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const MESSAGES: u64 = 300;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

fn produce(engine: &Engine) -> Outcome {
    let queue = engine.queue(b"ticker")?;
    for number in 0..MESSAGES {
        let mut batch = WriteBatch::new();
        let text = format!("tick {number}");
        batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload: &[text.as_bytes()] })?;
        // Not waited for: what comes together becomes readable together.
        let _in_flight = engine.append(batch)?;
    }
    Ok(())
}

fn follow(engine: &Engine) -> Outcome {
    let queue = engine.queue(b"ticker")?;
    let watcher = Watcher::new()?;
    let (mut next, mut wake_ups) = (QueueOffset(0), 0);
    while next.0 < MESSAGES {
        let found = engine.fetch(&Fetch::new(&queue, next))?;
        match found.status {
            FetchStatus::Found => {
                for message in found.messages.iter().filter(|message| message.queue_offset.0 % 100 == 0) {
                    println!("offset {}: {}", message.queue_offset, String::from_utf8_lossy(message.payload()));
                }
                next = found.next;
            }
            // One shot: the watch fires at once if a message came between the fetch and here.
            FetchStatus::AtEnd => {
                engine.watch(&queue, next, &watcher, 1);
                poll(&mut [PollFd::new(watcher.fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
                watcher.drain(&mut Vec::new());
                wake_ups += 1;
            }
            // A reader that was away for long: what it wanted is no longer kept.
            FetchStatus::BelowMin => next = found.range.min,
            other => return Err(format!("nothing asked for this: {other:?}").into()),
        }
    }
    println!("read {MESSAGES} messages, woken {wake_ups} times");
    Ok(())
}

fn main() -> Outcome {
    // Beside this program: on the disk of the build, not in memory.
    let dir = tempfile::tempdir_in(std::env::current_exe()?.with_file_name(""))?;
    let engine = Engine::open(dir.path(), EngineOptions::default().with_segment_bytes(4 << 20))?;
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| produce(&engine));
        follow(&engine)?;
        producer.join().map_err(|_| "the producer panicked")?
    })?;
    engine.close()?;
    Ok(())
}
