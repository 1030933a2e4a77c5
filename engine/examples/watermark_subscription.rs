//! One thread with thousands of appends in flight: it waits for a number, not for each of them.
//!
//! `cargo run -p anchorlog-engine --example watermark_subscription`
#![expect(clippy::print_stdout, reason = "it shows what happened")]

use std::collections::VecDeque;
use std::error::Error;

use anchorlog_engine::{Append, AppendOutcome, Engine, EngineOptions, Watermark, WriteBatch};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const REQUESTS: usize = 20_000;
/// Requests that arrive together, as from the sockets that one thread serves.
const TOGETHER: usize = 500;

fn main() -> Result<(), Box<dyn Error>> {
    // Beside this program: on the disk of the build, not in memory.
    let dir = tempfile::tempdir_in(std::env::current_exe()?.with_file_name(""))?;
    let engine = Engine::open(dir.path(), EngineOptions::default().with_segment_bytes(16 << 20))?;
    let queue = engine.queue(b"requests")?;
    let acked = engine.subscribe(Watermark::Acked)?;

    // Replies that wait for their ack, in log order.
    let mut waiting: VecDeque<AppendOutcome> = VecDeque::new();
    let (mut sent, mut answered, mut wake_ups) = (0, 0, 0);
    while answered < REQUESTS {
        if sent < REQUESTS {
            let mut batches = Vec::with_capacity(TOGETHER);
            for number in sent..REQUESTS.min(sent + TOGETHER) {
                let mut batch = WriteBatch::new();
                let payload: &[&[u8]] = &[&number.to_le_bytes()];
                batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload })?;
                batches.push(batch);
            }
            let mut outcomes = Vec::new();
            // Fewer than given when the buffer is full: the rest comes again with the next round.
            sent += engine.append_all(&mut batches, &mut outcomes)?;
            waiting.extend(outcomes);
        }
        if let Some(first) = waiting.front() {
            acked.arm(first.end_lsn);
            // A real server polls its sockets here, too.
            poll(&mut [PollFd::new(acked.fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
            wake_ups += 1;
            let reached = acked.drain();
            while waiting.front().is_some_and(|outcome| outcome.end_lsn <= reached) {
                waiting.pop_front();
                answered += 1;
            }
        }
    }
    println!("{answered} requests answered after {wake_ups} wake-ups and {} flushes", engine.stats().flushes);
    engine.close()?;
    Ok(())
}
