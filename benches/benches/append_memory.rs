//! What does an append cost without a disk: lock, copy, header, publish?
//!
//! Guards: one short append lock instead of a reservation ring. Asynchronous flush with the largest buffer, appended in bursts that fit it
//! and drained outside the timed part, so that no write is waited for.

use anchorlog_benches::{SIZES, backends, bounded, cpu_criterion, directory, engine, message, noise, timed};
use anchorlog_engine::{Engine, Flush, WriteBatch};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;

const BURST_BYTES: usize = 16 << 20;

fn drain(engine: &Engine) {
    engine.flush().expect("the log is not fenced");
}

fn one_thread(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append without disk");
    group.sample_size(10);
    for size in SIZES {
        let dir = directory();
        let engine = engine(&backends()[0], dir.path(), bounded().with_flush(Flush::async_default()));
        let queue = engine.queue(b"q").expect("a short name");
        let payload = noise(size);
        let burst = (BURST_BYTES / (size + 256)).min(4096);
        group.throughput(Throughput::Elements(1));
        for (name, together) in [("one by one", 1), ("64 in a call", 64)] {
            group.bench_function(BenchmarkId::new(name, size), |bench| {
                bench.iter_custom(|iterations| {
                    let mut spent = Duration::ZERO;
                    let mut left = iterations;
                    let mut outcomes = Vec::new();
                    while left > 0 {
                        let count = left.min(burst as u64);
                        let mut batches: Vec<WriteBatch> = (0..count).map(|_| message(&queue, &payload)).collect();
                        outcomes.clear();
                        spent += timed(|| {
                            for some in batches.chunks_mut(together) {
                                let done = engine.append_all(some, &mut outcomes).expect("the log takes it");
                                assert_eq!(done, some.len(), "the burst fits the buffer");
                            }
                        });
                        drain(&engine);
                        left -= count;
                    }
                    spent
                });
            });
        }
    }
    group.finish();
}

fn building_a_batch(criterion: &mut Criterion) {
    let dir = directory();
    let engine = engine(&backends()[0], dir.path(), bounded());
    let queue = engine.queue(b"q").expect("a short name");
    let mut group = criterion.benchmark_group("build a batch");
    for size in SIZES {
        let payload = noise(size);
        group.bench_function(BenchmarkId::from_parameter(size), |bench| bench.iter(|| message(&queue, &payload)));
    }
    group.finish();
}

criterion_group! { name = benches; config = cpu_criterion(); targets = one_thread, building_a_batch }
criterion_main!(benches);
