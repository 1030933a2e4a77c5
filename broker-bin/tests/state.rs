//! Topics, groups and offsets over a simulated disk: what is there again, and which stores are refused.
//!
//! K-n are the loss windows of the original that these tests close here.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anchorlog::features::groups::{GroupConfig, GroupRules};
use anchorlog::features::offsets::{Commit, OffsetKey};
use anchorlog::features::topics::{TopicConfig, queue_name};
use anchorlog::state::{State, StateError};
use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::{SimDisk, Survival};
use anchorlog_engine::{Append, Engine, EngineOptions, Flush, Lsn, Put, WriteBatch};

/// A store on a simulated disk, whose engine is driven by hand.
struct Store {
    disk: SimDisk,
    clock: Arc<SimClock>,
    options: EngineOptions,
    engine: Engine,
}

impl Store {
    fn new() -> Store {
        Store::with(|options| options)
    }

    fn with(change: impl FnOnce(EngineOptions) -> EngineOptions) -> Store {
        let options = EngineOptions::default()
            .with_segment_bytes(256 << 10)
            .with_chunk_bytes(16 << 10)
            .with_buffer_bytes(256 << 10)
            .with_cache_bytes(512 << 10)
            .with_manual_drive();
        let (disk, clock, options) = (SimDisk::new(7), Arc::new(SimClock::default()), change(options));
        let engine = Store::open(&disk, &clock, &options);
        Store { disk, clock, options, engine }
    }

    fn open(disk: &SimDisk, clock: &Arc<SimClock>, options: &EngineOptions) -> Engine {
        let clock = Arc::<SimClock>::clone(clock);
        Engine::open_with(disk.backend(), clock, Path::new("/store"), options.clone()).expect("a log")
    }

    fn state(&self) -> State {
        State::open(&self.engine).expect("a state")
    }

    /// Why this store is refused.
    fn refused(&self) -> StateError {
        let end = self.engine.watermarks().assigned;
        let error = State::open(&self.engine).expect_err("this store is not served");
        assert_eq!(self.engine.watermarks().assigned, end, "whoever is refused changes nothing");
        error
    }

    /// Lets the engine do everything that it can without time passing.
    fn settle(&self) {
        for _ in 0..10_000 {
            if self.engine.step() {
                return;
            }
        }
        panic!("the engine does not come to rest");
    }

    fn flush_all(&self, state: &State) {
        state.flush_all(&self.engine).expect("the log takes it");
        self.settle();
    }

    fn append(&self, batch: WriteBatch) {
        drop(self.engine.append(batch).expect("the log takes it"));
        self.settle();
    }

    /// Appends messages to queue 0 of a topic.
    fn send(&self, topic: &str, count: usize) {
        let queue = self.engine.queue(&queue_name(topic, 0)).expect("a queue");
        for piece in vec![(); count].chunks(500) {
            let mut batch = WriteBatch::new();
            for () in piece {
                let message = Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload: &[b"x"] };
                batch.append(&message).expect("small");
            }
            self.append(batch);
        }
    }

    fn put(&self, key: &[u8], value: &[u8]) {
        let mut batch = WriteBatch::new();
        batch.put(&Put { key, value, target: None }).expect("small");
        self.append(batch);
    }

    /// The power fails, and the log is opened again.
    fn crash(self, seed: u64, survival: Survival) -> Store {
        let Store { disk, clock, options, engine } = self;
        drop(engine);
        let disk = disk.crash_with(seed, survival);
        let engine = Store::open(&disk, &clock, &options);
        Store { disk, clock, options, engine }
    }
}

fn key(group: &str, topic: &str) -> OffsetKey {
    OffsetKey { group: group.into(), topic: topic.into(), queue: 0 }
}

/// K-67: offsets stand in the log with everything else; there is no file beside it that could be lost or torn.
#[test]
fn topics_groups_and_offsets_are_there_again() {
    let store = Store::new();
    let state = store.state();
    let odd = TopicConfig { perm: 4, sys_flag: -1, ordered: true, ..TopicConfig::open(3) };
    state.put_topic("T1", TopicConfig::open(8));
    state.put_topic("T|2", odd);
    let group = GroupConfig {
        retry_queues: 2,
        retry_max: 3,
        may_consume: false,
        rules: GroupRules { strict: true, ..GroupRules::USUAL },
    };
    state.put_group("a/b", group);
    state.flush(&store.engine).whole().expect("the log takes it");
    store.send("T1", 3000);
    // More than are read at once, and names that are beginnings of others.
    let groups: Vec<_> = (0..2500).map(|number| format!("g/{number}")).collect();
    for (group, offset) in groups.iter().zip(0..) {
        assert_eq!(state.commit_offset(&key(group, "T1"), offset, offset % 2 == 0), Commit::Changed);
    }
    store.flush_all(&state);
    let store = store.crash(1, Survival::Nothing);
    let state = store.state();
    assert_eq!(state.topics.names(), ["T1".into(), "T|2".into()]);
    assert_eq!(state.topics.get("T1").expect("kept").config, TopicConfig::open(8));
    assert_eq!(state.topics.get("T|2").expect("kept").config, odd);
    assert_eq!(state.groups.config("a/b"), Some(group));
    assert_eq!(state.offsets.count(), groups.len());
    for (group, offset) in groups.iter().zip(0..) {
        assert_eq!(state.offsets.get(&key(group, "T1")), Some(offset));
    }
}

#[test]
fn only_what_changed_is_written_and_many_changes_share_few_batches() {
    let store = Store::new();
    let state = store.state();
    state.put_topic("T1", TopicConfig::open(8));
    store.flush_all(&state);
    let written = |change: &dyn Fn()| {
        let before = store.engine.stats();
        change();
        store.flush_all(&state);
        let after = store.engine.stats();
        (after.records - before.records, after.batches - before.batches)
    };
    let (records, batches) = written(&|| {
        for offset in 0..10 {
            for group in 0..1000 {
                state.commit_offset(&key(&format!("g{group}"), "T1"), offset, false);
            }
        }
    });
    assert_eq!(records, 1000, "the last value of each");
    assert!(batches <= 10, "{batches} batches");
    let repeated = written(&|| {
        state.commit_offset(&key("g5", "T1"), 9, false);
        state.commit_offset(&key("g5", "T1"), 9, true);
        state.put_topic("T1", TopicConfig::open(8));
        assert!(state.get_or_make_topic("T1", TopicConfig::open(1)).is_some());
    });
    assert_eq!(repeated, (0, 0), "nothing changed");
    let rewound = written(&|| assert_eq!(state.commit_offset(&key("g5", "T1"), 3, false), Commit::Changed));
    assert_eq!(rewound, (1, 1));
}

#[test]
fn whoever_waits_for_a_value_that_another_brought_waits_until_it_is_written() {
    let store = Store::new();
    let state = store.state();
    state.commit_offset(&key("g", "T1"), 7, false);
    assert!(!state.is_urgent(), "nobody waits");
    let before = state.flush(&store.engine).whole().expect("nothing to write");
    assert_eq!(state.commit_offset(&key("g", "T1"), 7, true), Commit::Unchanged);
    assert!(state.is_urgent());
    let end = state.flush(&store.engine).whole().expect("the log takes it");
    assert!(end > before && end == store.engine.watermarks().assigned, "{end} is where the value stands");
}

/// The engine says again what stands in segments that it recycles: nobody here has to.
#[test]
fn the_state_outlives_the_segments_that_it_was_written_to() {
    let store = Store::with(|options| options.with_retain_bytes(Some(1 << 20)));
    let state = store.state();
    state.put_topic("T1", TopicConfig::open(8));
    state.put_group("idle", GroupConfig::default());
    state.commit_offset(&key("idle", "T1"), 5, false);
    store.flush_all(&state);
    store.send("T1", 20_000);
    for round in 1..=300u64 {
        for group in 0..50 {
            state.commit_offset(&key(&format!("{group}-{}", "n".repeat(200)), "T1"), round * 50 + group, false);
        }
        store.flush_all(&state);
        store.clock.advance(Duration::from_secs(1));
    }
    assert!(store.engine.watermarks().start > Lsn(2 << 20), "segments were recycled");
    let store = store.crash(3, Survival::Nothing);
    let state = store.state();
    assert_eq!(state.offsets.get(&key("idle", "T1")), Some(5));
    for group in 0..50 {
        let key = key(&format!("{group}-{}", "n".repeat(200)), "T1");
        assert_eq!(state.offsets.get(&key), Some(300 * 50 + group));
    }
    assert!(state.topics.get("T1").is_some() && state.groups.config("idle").is_some());
}

/// K-43: what is sent after the start gets the offsets that are free, and a group that had committed beyond them must not skip it.
#[test]
fn k_43_an_offset_beyond_the_end_is_moved_back_before_anything_new_is_sent() {
    let store = Store::new();
    let state = store.state();
    state.put_topic("T1", TopicConfig::open(8));
    store.flush_all(&state);
    store.send("T1", 4);
    for (group, offset) in [("behind", 3), ("at the end", 4), ("beyond", 9)] {
        state.commit_offset(&key(group, "T1"), offset, true);
    }
    state.commit_offset(&key("nothing there", "T2"), 1, true);
    store.flush_all(&state);

    let store = store.crash(1, Survival::Nothing);
    let state = store.state();
    let offsets = |state: &State| {
        let of = |group, topic| state.offsets.get(&key(group, topic)).expect("kept");
        [of("behind", "T1"), of("at the end", "T1"), of("beyond", "T1"), of("nothing there", "T2")]
    };
    assert_eq!(offsets(&state), [3, 4, 4, 0]);
    // Nobody flushes the state, and the queues grow past what was committed.
    store.send("T1", 10);
    store.send("T2", 10);
    drop(state);
    let store = store.crash(2, Survival::Nothing);
    assert_eq!(offsets(&store.state()), [3, 4, 4, 0], "what was sent since is still to be consumed");
}

/// K-16, K-43: with asynchronous flush a power failure takes messages that consumers have seen; never without the offsets that say so.
#[test]
fn k_43_a_lost_tail_takes_the_offsets_along_that_speak_of_it() {
    let mut lost = 0;
    for seed in 0..40 {
        let flush = Flush::Async { interval: Duration::from_millis(200), bytes: 1 << 20 };
        let store = Store::with(|options| options.with_flush(flush));
        let state = store.state();
        state.put_topic("T1", TopicConfig::open(8));
        for sent in 1..=20 {
            state.flush(&store.engine).whole().expect("the log takes it");
            store.send("T1", 5);
            state.commit_offset(&key("g", "T1"), sent * 5, sent % 2 == 0);
            store.flush_all(&state);
            store.clock.advance(Duration::from_millis(5 + seed));
        }
        let store = store.crash(seed, Survival::Seeded);
        let queue = store.engine.queue(&queue_name("T1", 0)).expect("a queue");
        let end = store.engine.range(&queue).max.0;
        let before = store.engine.watermarks().assigned;
        let state = store.state();
        let offset = state.offsets.get(&key("g", "T1")).unwrap_or(0);
        assert!(offset <= end && offset + 5 >= end, "seed {seed}: {offset} of {end}");
        assert!(end == 0 || state.topics.get("T1").is_some(), "seed {seed}");
        if end > 0 {
            assert_eq!(store.engine.watermarks().assigned, before, "seed {seed}: nothing had to be corrected");
        }
        lost += u64::from(end < 100);
    }
    assert!(lost > 5, "only {lost} crashes lost anything");
}

/// Writes what a broker of the first format wrote: messages of its system queue.
fn older(store: &Store, records: usize) {
    let queue = store.engine.queue(b"\x01journal").expect("a queue");
    for _ in 0..records {
        let mut batch = WriteBatch::new();
        let attributes = &[1, 0, 0, 0, 0, 0, 0, 0, 0];
        let payload: &[&[u8]] = &[b"\x01\0\x02T1\0\0\0\x08\0\0\0\x08\x06\0\0\0\0\0"];
        batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes, payload }).expect("small");
        store.append(batch);
    }
}

#[test]
fn a_store_of_an_older_version_is_refused_with_what_to_do() {
    // Also when nothing but its state was ever written.
    for messages in [0, 100] {
        let store = Store::new();
        older(&store, 1);
        store.send("T1", messages);
        let store = store.crash(1, Survival::Nothing);
        let text = store.refused().to_string();
        for part in [
            "/store was written by an older version",
            "in the table",
            "Open the store with the version that wrote it",
            "new directory",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

#[test]
fn a_store_of_an_older_version_is_known_after_all_of_its_state_was_recycled() {
    let store = Store::with(|options| options.with_retain_bytes(Some(1 << 20)));
    older(&store, 10);
    store.send("T1", 40_000);
    for _ in 0..200 {
        store.settle();
        store.clock.advance(Duration::from_millis(50));
    }
    let queue = store.engine.queue(b"\x01journal").expect("a queue");
    let range = store.engine.range(&queue);
    assert!(range.min == range.max && range.max.0 == 10, "{range:?}");
    let store = store.crash(1, Survival::Nothing);
    assert!(matches!(store.refused(), StateError::Older { .. }));
}

#[test]
fn a_store_of_a_newer_version_is_refused_with_what_to_do() {
    let store = Store::new();
    drop(store.state());
    store.settle();
    assert_eq!(*store.engine.get(b"meta/format").expect("memory").expect("the first entry").value, [0, 0, 0, 3]);
    store.put(b"meta/format", &[0, 0, 0, 4]);
    let store = store.crash(1, Survival::Nothing);
    let error = store.refused();
    assert!(matches!(error, StateError::Newer { found: 4, known: 3, .. }));
    let text = error.to_string();
    for part in [
        "/store was written by a newer version",
        "format 4",
        "format 3",
        "Open the store with the version that wrote it",
        "new directory",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_store_of_an_older_table_format_is_read_and_raised() {
    for older in [1, 2] {
        let store = Store::new();
        let state = store.state();
        state.put_topic("T1", TopicConfig::open(3));
        store.flush_all(&state);
        store.put(b"meta/format", &[0, 0, 0, older]);
        let store = store.crash(1, Survival::Nothing);
        assert_eq!(store.state().topics.get("T1").expect("there").config.read_queues, 3);
        store.settle();
        let store = store.crash(1, Survival::Nothing);
        assert_eq!(*store.engine.get(b"meta/format").expect("memory").expect("the first entry").value, [0, 0, 0, 3]);
    }
}

/// K-28, K-29: a state that is not there is no empty one.
#[test]
fn k_29_messages_or_entries_without_a_format_are_no_new_store() {
    let store = Store::new();
    store.send("T1", 1);
    let store = store.crash(1, Survival::Nothing);
    let text = store.refused().to_string();
    for part in ["/store holds messages", "T1", "meta/format", "from a copy"] {
        assert!(text.contains(part), "{part} in {text}");
    }

    let store = Store::new();
    store.put(b"topic/T1", b"");
    let text = store.refused().to_string();
    assert!(text.contains("topic/T1"), "{text}");

    // The same when every message is gone already: a queue that begins at 1 had one.
    let store = Store::with(|options| options.with_retain_bytes(Some(1 << 20)));
    store.send("T1", 10);
    for _ in 0..200 {
        store.put(b"elsewhere", &[0; 12 << 10]);
        store.clock.advance(Duration::from_millis(50));
    }
    let mut batch = WriteBatch::new();
    batch.delete(b"elsewhere").expect("small");
    store.append(batch);
    let store = store.crash(1, Survival::Nothing);
    let range = store.engine.range(&store.engine.queue(&queue_name("T1", 0)).expect("a queue"));
    assert!(range.min == range.max && range.max.0 == 10, "{range:?}");
    assert!(store.refused().to_string().contains("holds messages"));
}

/// K-28: half a state is none.
#[test]
fn k_28_an_entry_that_cannot_be_understood_is_named() {
    for (key, value, part) in [
        (&b"topic/T1"[..], &b"\x02\0\0\0\x08"[..], "topic/T1"),
        (b"group/g", b"\x01\0", "group/g"),
        (b"offset/g", b"\x01\0\0\0\0\0\0\0\x07", "offset/g"),
        (b"meta/format", b"1", "meta/format"),
    ] {
        let store = Store::new();
        let state = store.state();
        state.put_topic("T0", TopicConfig::open(8));
        store.flush_all(&state);
        store.put(key, value);
        let store = store.crash(1, Survival::Nothing);
        let error = store.refused();
        assert!(matches!(error, StateError::Bad { .. }));
        let text = error.to_string();
        assert!(text.contains(part) && text.contains("at LSN"), "{text}");
    }
}

/// A store that was made and never used is as good as new, whatever the power took of it.
#[test]
fn a_store_is_new_until_its_first_entry_is_durable() {
    let store = Store::new();
    drop(store.state());
    let store = store.crash(1, Survival::Nothing);
    assert!(store.engine.get(b"meta/format").expect("memory").is_none());
    let state = store.state();
    assert_eq!((state.topics.count(), state.offsets.count()), (0, 0));
    store.settle();
    assert!(store.engine.get(b"meta/format").expect("memory").is_some());
}
