//! What does it cost a send that it would be recognised if it came again: its sum, its claim and its place, beside how many others?
//!
//! Guards: a window of slots in memory, a slice of it dropped whole, and nothing read for a message that is new.

use std::time::Duration;

use anchorlog::counters::Counters;
use anchorlog::features::repeats::{Claim, Claims, Identity, Repeats, Seen};
use anchorlog_benches::{backends, bounded, cpu_criterion, directory, engine};
use anchorlog_engine::Lsn;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const NOW_MS: u64 = 1_800_000_000_000;

fn new_messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("claim a new message");
    group.throughput(Throughput::Elements(1));
    let dir = directory();
    let engine = engine(&backends()[0], dir.path(), bounded());
    let body = [7; 1024];
    for count in [1_000_u64, 100_000, 5_000_000] {
        let (repeats, counters) = (Repeats::new(Duration::from_secs(600), 128 << 20), Counters::default());
        let mut next = 0;
        let mut send = |body: &[u8]| {
            next += 1;
            let key = format!("7F0000010B8C18B4AAC2{next:012X}");
            let hash = engine.key_hash(key.as_bytes());
            let print = Identity::print("orders", &key, 0, body);
            let claims = Claims::one(Some(Identity { hash, other: None, print }));
            let claim = repeats.claim(&claims, &Seen::new(), NOW_MS, &counters);
            assert_eq!(claim, Claim::Mine);
            repeats.appended(&claims, |_| Some(Lsn(next * 1200 / 8 * 8)));
        };
        (0..count).for_each(|_| send(&[]));
        group.bench_function(BenchmarkId::new("beside", count), |bench| bench.iter(|| send(&body)));
    }
    group.finish();
}

criterion_group! {
    name = repeats;
    config = cpu_criterion();
    targets = new_messages
}
criterion_main!(repeats);
