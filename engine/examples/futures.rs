//! Tickets as futures, without a runtime: any executor can poll them, this one is a dozen lines.
//!
//! `cargo run -p anchorlog-engine --example futures`
#![expect(clippy::print_stdout, reason = "it shows what happened")]

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use anchorlog_engine::{Append, Engine, EngineOptions, Queue, Ticket, WriteBatch};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs one future on this thread, which sleeps while there is nothing to do.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn send(engine: &Engine, queue: &Queue, text: &str) -> Result<Ticket, Box<dyn Error>> {
    let mut batch = WriteBatch::new();
    batch.append(&Append { queue, tag: 0, keys: &[], attributes: b"", payload: &[text.as_bytes()] })?;
    Ok(engine.append(batch)?)
}

async fn conversation(engine: &Engine) -> Result<(), Box<dyn Error>> {
    let (questions, answers) = (engine.queue(b"questions")?, engine.queue(b"answers")?);
    let asked = send(engine, &questions, "how many anchors?")?.await?;
    println!("asked, durable at LSN {}", asked.first.lsn);
    // Three in flight at once; one flush may bring all of them.
    let tickets =
        [send(engine, &answers, "three")?, send(engine, &answers, "or four")?, send(engine, &answers, "at most five")?];
    for ticket in tickets {
        let answered = ticket.await?;
        println!("answered, offset {} durable at LSN {}", answered.first.queue_offset, answered.first.lsn);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    // Beside this program: on the disk of the build, not in memory.
    let dir = tempfile::tempdir_in(std::env::current_exe()?.with_file_name(""))?;
    let engine = Engine::open(dir.path(), EngineOptions::default().with_segment_bytes(4 << 20))?;
    block_on(conversation(&engine))?;
    println!("{} batches with {} flushes", engine.stats().batches, engine.stats().flushes);
    engine.close()?;
    Ok(())
}
