//! How long from append to acknowledgement, by backend, depth and group size?
//!
//! Guards: one durable write in flight by default, `pwritev2` unless the ring is clearly ahead, the tail block rewritten unless told
//! otherwise.

use anchorlog_benches::{backends, bounded, directory, disk_criterion, engine, message, noise, timed};
use anchorlog_engine::{EngineOptions, Tail, WriteBatch};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn measure(criterion: &mut Criterion, name: &str, options: &EngineOptions, counts: &[u64]) {
    let mut group = criterion.benchmark_group(name);
    for backend in backends() {
        for &count in counts {
            let dir = directory();
            let engine = engine(&backend, dir.path(), options.clone());
            let queue = engine.queue(b"q").expect("a short name");
            let payload = noise(1024);
            group.throughput(Throughput::Elements(count));
            group.bench_function(BenchmarkId::new(backend.kind().to_string(), count), |bench| {
                bench.iter_custom(|iterations| {
                    let mut spent = std::time::Duration::ZERO;
                    let mut outcomes = Vec::new();
                    for _ in 0..iterations {
                        let mut batches: Vec<WriteBatch> = (0..count).map(|_| message(&queue, &payload)).collect();
                        spent += timed(|| {
                            if let (1, Some(batch)) = (count, batches.pop()) {
                                engine.append_and_wait(batch).expect("the log takes it");
                                return;
                            }
                            outcomes.clear();
                            let done = engine.append_all(&mut batches, &mut outcomes).expect("the log takes it");
                            assert_eq!(done, batches.len(), "a group fits the buffer");
                            let end = outcomes.last().expect("the group is not empty").end_lsn;
                            engine.wait(anchorlog_engine::Watermark::Acked, end, None).expect("the log is not fenced");
                        });
                    }
                    spent
                });
            });
        }
    }
    group.finish();
}

fn groups(criterion: &mut Criterion) {
    measure(criterion, "commit, depth 1", &bounded(), &[1, 64, 1024]);
    measure(criterion, "commit, depth 4", &bounded().with_commit_depth(4), &[1024]);
    measure(criterion, "commit, padded tail", &bounded().with_tail(Tail::Pad), &[1, 64]);
}

criterion_group! { name = benches; config = disk_criterion(); targets = groups }
criterion_main!(benches);
