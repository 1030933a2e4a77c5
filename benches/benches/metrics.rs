//! What do the broker's metrics cost a message?
//!
//! Guards: counters in parts, and a histogram for each network thread, so that no two of them write one cache line; no samples, no registry
//! with a lock. A message on its way adds to four counters (its request, its acknowledgement, the pull's request, its delivery) and to one
//! histogram: 50 ns at most, also while another thread does the same. A message that is alone has its thread look at the clock twice more,
//! beside a durable write.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anchorlog::counters::Counters;
use anchorlog::metrics::{Pulse, Pulses};
use anchorlog_benches::cpu_criterion;
use anchorlog_engine::{Clock, SystemClock};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn message(counters: &Counters, pulse: &Pulse, took: Duration) {
    counters.requests.add(1);
    counters.messages_acked.add(1);
    pulse.acked(took);
    counters.requests.add(1);
    counters.messages_pulled.add(1);
}

fn cost(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("metrics of a message");
    group.throughput(Throughput::Elements(1));
    let (counters, pulses) = (Arc::<Counters>::default(), Pulses::default());
    let pulse = pulses.begin();
    let mut micros = 0;
    group.bench_function("one thread", |bench| {
        bench.iter(|| {
            micros = (micros + 37) % 5000;
            message(&counters, &pulse, Duration::from_micros(black_box(micros)));
        });
    });
    let (stop, other) = (Arc::new(AtomicBool::new(false)), pulses.begin());
    let beside = {
        let (counters, stop) = (Arc::clone(&counters), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                message(&counters, &other, Duration::from_micros(black_box(300)));
            }
        })
    };
    group.bench_function("beside a thread that does nothing else", |bench| {
        bench.iter(|| message(&counters, &pulse, Duration::from_micros(black_box(300))));
    });
    stop.store(true, Ordering::Relaxed);
    beside.join().expect("it counts");
    let clock = SystemClock::new();
    group.bench_function("a lone message", |bench| {
        bench.iter(|| {
            let began = clock.monotonic();
            message(&counters, &pulse, clock.monotonic().saturating_sub(black_box(began)));
        });
    });
    group.finish();
}

criterion_group! { name = benches; config = cpu_criterion(); targets = cost }
criterion_main!(benches);
