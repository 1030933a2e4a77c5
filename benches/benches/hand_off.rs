//! What does it cost to tell a caller that his message is durable?
//!
//! Guards: acknowledgements as a watermark. Blocked callers sleep on a futex word per group; whoever has many in flight looks at a number
//! after one notification. Every row is a durable 1 KiB message; the disk is the same for all, so the differences are the hand-off's.

use anchorlog_benches::{backends, bounded, directory, disk_criterion, engine, message, noise, timed};
use anchorlog_engine::{Engine, Lsn, Queue, Watermark, WriteBatch};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn blocked_threads(engine: &Engine, queue: &Queue, payload: &[u8], threads: u64, total: u64) -> Duration {
    let left = AtomicU64::new(total);
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    timed(|| {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while take() {
                        engine.append_and_wait(message(queue, payload)).expect("the log takes it");
                    }
                });
            }
        });
    })
}

fn one_thread_many_in_flight(engine: &Engine, queue: &Queue, payload: &[u8], in_flight: usize, total: u64) -> Duration {
    timed(|| {
        let (mut sent, mut acked) = (0, 0);
        let mut ends: VecDeque<Lsn> = VecDeque::new();
        let mut outcomes = Vec::new();
        while acked < total {
            let room = (in_flight - ends.len()).min(usize::try_from(total - sent).unwrap_or(usize::MAX));
            let mut batches: Vec<WriteBatch> = (0..room).map(|_| message(queue, payload)).collect();
            outcomes.clear();
            let done = engine.append_all(&mut batches, &mut outcomes).expect("the log takes it");
            sent += done as u64;
            ends.extend(outcomes.iter().map(|outcome| outcome.end_lsn));
            let first = *ends.front().expect("something is in flight");
            engine.wait(Watermark::Acked, first, None).expect("the log is not fenced");
            let mark = engine.watermarks().acked;
            while ends.front().is_some_and(|end| *end <= mark) {
                ends.pop_front();
                acked += 1;
            }
        }
    })
}

fn hand_off(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ack hand-off");
    group.throughput(Throughput::Elements(1));
    let dir = directory();
    let engine = engine(&backends()[0], dir.path(), bounded());
    let queue = engine.queue(b"q").expect("a short name");
    let payload = noise(1024);
    for threads in [1, 8, 64] {
        group.bench_function(BenchmarkId::new("blocked threads", threads), |bench| {
            bench.iter_custom(|total| blocked_threads(&engine, &queue, &payload, threads, total));
        });
    }
    for in_flight in [64, 256, 1024] {
        group.bench_function(BenchmarkId::new("one thread, in flight", in_flight), |bench| {
            bench.iter_custom(|total| one_thread_many_in_flight(&engine, &queue, &payload, in_flight, total));
        });
    }
    group.finish();
}

criterion_group! { name = benches; config = disk_criterion(); targets = hand_off }
criterion_main!(benches);
