//! Does the number of queues matter: appending to, dispatching into and reading from 1 and 10 000?
//!
//! Guards: consume queues in memory, 24 bytes an entry, fed by one dispatcher that parses the log once.

use anchorlog_benches::{backends, bounded, cpu_criterion, directory, engine, message, timed};
use anchorlog_engine::{Engine, Fetch, FetchStatus, Flush, Queue, QueueOffset, WriteBatch};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;

const BURST: u64 = 20_000;

fn queues(engine: &Engine, count: usize) -> Vec<Queue> {
    (0..count)
        .map(|number| engine.queue(format!("topic-{number}\0{}", number % 8).as_bytes()).expect("a short name"))
        .collect()
}

/// Appends to queues in a scattered order, outside the timed part; times the step that makes the messages readable.
fn dispatch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dispatch an entry");
    group.sample_size(10).throughput(Throughput::Elements(1));
    for count in [1, 100, 10_000] {
        let dir = directory();
        let engine = engine(&backends()[0], dir.path(), bounded().with_flush(Flush::async_default()));
        let queues = queues(&engine, count);
        let mut next = 0_usize;
        group.bench_function(BenchmarkId::from_parameter(count), |bench| {
            bench.iter_custom(|entries| {
                let mut spent = Duration::ZERO;
                let mut left = entries;
                let mut outcomes = Vec::new();
                while left > 0 {
                    let some = left.min(BURST);
                    let mut batches: Vec<WriteBatch> = (0..some)
                        .map(|_| {
                            next = (next + 7919) % queues.len();
                            message(&queues[next], b"sixteen bytes ..")
                        })
                        .collect();
                    outcomes.clear();
                    engine.append_all(&mut batches, &mut outcomes).expect("the log takes it");
                    // A reader drives the dispatcher itself.
                    spent += timed(|| assert!(engine.range(&queues[0]).max >= QueueOffset(0)));
                    engine.flush().expect("the log is not fenced");
                    left -= some;
                }
                spent
            });
        });
    }
    group.finish();
}

fn fetch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fetch 32 messages from memory");
    for count in [1, 10_000] {
        let dir = directory();
        let engine = engine(&backends()[0], dir.path(), bounded().with_flush(Flush::async_default()));
        let queues = queues(&engine, count);
        for queue in queues.iter().cycle().take(count.max(64) * 32) {
            engine.append(message(queue, &[7; 100])).map(drop).expect("the log takes it");
        }
        let mut next = 0;
        group.bench_function(BenchmarkId::from_parameter(count), |bench| {
            bench.iter(|| {
                next = (next + 7919) % queues.len();
                let found = engine.fetch(&Fetch {
                    queue: &queues[next],
                    from: QueueOffset(0),
                    messages_max: 32,
                    bytes_max: 256 << 10,
                    scan_max: 100,
                    from_disk: false,
                    matches: &|_| true,
                });
                let status = found.expect("memory does not fail").status;
                assert!(matches!(status, FetchStatus::Found | FetchStatus::NeedsDisk));
            });
        });
    }
    group.finish();
}

criterion_group! { name = benches; config = cpu_criterion(); targets = dispatch, fetch }
criterion_main!(benches);
