//! What the log of the process says of a full disk: once that it is full, and once that it no longer is. Alone in its process, which has
//! one subscriber.
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::SimDisk;
use anchorlog_engine::{Append, AppendError, Engine, EngineOptions, Queue, WriteBatch};

/// Counts what is said aloud.
#[derive(Default)]
struct Said {
    refuses: AtomicUsize,
    takes: AtomicUsize,
}

impl tracing::Subscriber for Said {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.refuses.fetch_add(
            usize::from(text.0.contains("appends are refused, nothing stored is at risk")),
            Ordering::SeqCst,
        );
        self.takes.fetch_add(usize::from(text.0.contains("there is room again")), Ordering::SeqCst);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

fn append(engine: &Engine, queue: &Queue) -> Result<(), AppendError> {
    let mut batch = WriteBatch::new();
    batch.append(&Append { queue, tag: 1, keys: &[], attributes: b"", payload: &[&[1; 4000]] }).unwrap();
    let outcome = engine.try_append(&mut batch).map(drop);
    engine.step();
    outcome
}

#[test]
fn it_is_said_once_that_appends_are_refused_and_once_that_they_are_taken() {
    let said = Arc::<Said>::default();
    tracing::subscriber::set_global_default(Arc::clone(&said)).unwrap();
    let (disk, clock) = (SimDisk::new(1), Arc::<SimClock>::default());
    let options = EngineOptions::default().with_segment_bytes(64 << 10).with_buffer_bytes(64 << 10).with_manual_drive();
    let engine = Engine::open_with(disk.backend(), Arc::<SimClock>::clone(&clock), Path::new("/log"), options).unwrap();
    let queue = engine.queue(b"q").unwrap();
    let settle = || {
        for _ in 0..2000 {
            engine.step();
            clock.advance(Duration::from_millis(1));
        }
    };
    settle();
    for round in 1..4 {
        disk.set_capacity(Some(disk.used_bytes()));
        while !matches!(append(&engine, &queue), Err(AppendError::OutOfSpace { .. })) {}
        for _ in 0..50 {
            append(&engine, &queue).unwrap_err();
        }
        assert_eq!((said.refuses.load(Ordering::SeqCst), said.takes.load(Ordering::SeqCst)), (round, round - 1));
        disk.set_capacity(None);
        settle();
        append(&engine, &queue).unwrap();
        assert_eq!((said.refuses.load(Ordering::SeqCst), said.takes.load(Ordering::SeqCst)), (round, round));
    }
}
