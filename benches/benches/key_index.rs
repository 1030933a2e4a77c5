//! What do keys cost: a message with 0, 1 and 2 of them on the way to its readers, and a search among a million and ten million?
//!
//! Guards: the key index as a list of hashes at the end of which the dispatcher writes, sorted and merged by checkpoints only.

use std::time::Duration;

use anchorlog_benches::{backends, bounded, cpu_criterion, directory, engine, timed};
use anchorlog_engine::{Append, Engine, EngineOptions, Flush, KeyQuery, Queue, QueueOffset, WriteBatch};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const BURST: u64 = 20_000;
/// Keys of one message where many keys are to be in a small log.
const KEYS_OF_ONE: u64 = 50;

fn message(queue: &Queue, keys: &[&[u8]]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    let append = Append { queue, tag: 7, keys, attributes: &[], payload: &[b"sixteen bytes .."] };
    batch.append(&append).expect("the message fits a batch");
    batch
}

/// Appends outside the timed part; times the step that makes the messages readable and findable.
fn dispatch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dispatch a message with keys");
    group.sample_size(10).throughput(Throughput::Elements(1));
    for count in [0, 1, 2] {
        let dir = directory();
        let engine = engine(&backends()[0], dir.path(), bounded().with_flush(Flush::async_default()));
        let queue = engine.queue(b"topic\0queue").expect("a short name");
        let mut next = 0_u64;
        group.bench_function(BenchmarkId::from_parameter(count), |bench| {
            bench.iter_custom(|messages| {
                let (mut spent, mut left) = (Duration::ZERO, messages);
                let mut outcomes = Vec::new();
                while left > 0 {
                    let some = left.min(BURST);
                    let mut batches: Vec<WriteBatch> = (0..some)
                        .map(|_| {
                            next += 1;
                            let keys = [format!("order-{next:012}"), format!("C0A80001{next:024X}")];
                            let keys: Vec<&[u8]> = keys.iter().take(count).map(String::as_bytes).collect();
                            message(&queue, &keys)
                        })
                        .collect();
                    outcomes.clear();
                    let taken = engine.append_all(&mut batches, &mut outcomes).expect("the log takes it");
                    // A reader drives the dispatcher itself.
                    spent += timed(|| assert!(engine.range(&queue).max >= QueueOffset(0)));
                    engine.flush().expect("the log is not fenced");
                    left -= taken as u64;
                }
                spent
            });
        });
    }
    group.finish();
}

fn key(number: u64) -> String {
    format!("{number:08x}")
}

/// An engine, opened anew, whose log holds `count` keys.
fn filled(dir: &std::path::Path, count: u64) -> Engine {
    let options = || EngineOptions::default().with_flush(Flush::async_default());
    let filling = engine(&backends()[0], dir, options());
    let queue = filling.queue(b"topic\0queue").expect("a short name");
    for number in 0..count / KEYS_OF_ONE {
        let keys: Vec<String> = (0..KEYS_OF_ONE).map(|one| key(number * KEYS_OF_ONE + one)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
        filling.append(message(&queue, &keys)).map(drop).expect("the log takes it");
    }
    filling.close().expect("all is durable");
    engine(&backends()[0], dir, options())
}

fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("find");
    for count in [1_000_000, 10_000_000] {
        let dir = directory();
        let engine = filled(dir.path(), count);
        let runs = engine.stats().key_runs;
        let mut next = 0;
        for (what, step, expected) in [("a key of one message", 0, 1), ("a key that nothing has", count, 0)] {
            group.bench_function(BenchmarkId::new(what, format!("{count} keys, {runs} runs")), |bench| {
                bench.iter(|| {
                    next = (next + 7_777_777) % count;
                    let found = engine.find(&KeyQuery::new(key(step + next).as_bytes())).expect("it can be read");
                    assert_eq!(found.len(), expected);
                });
            });
        }
    }
    group.finish();
}

criterion_group! { name = benches; config = cpu_criterion(); targets = dispatch, find }
criterion_main!(benches);
