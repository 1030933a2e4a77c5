//! Links, the table, preconditions and dropped queues: what a batch may do beside appending, and that it is there again after opening.
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::error::Found;
use anchorlog_engine::io::sim::{SimDisk, Survival};
use anchorlog_engine::{
    Append, AppendError, AppendOutcome, BatchError, Engine, EngineOptions, Fetch, FetchStatus, Link, Lsn, Message, Put,
    Queue, QueueOffset, ReadError, Rejection, SystemClock, TableEntry, WriteBatch,
};

fn options() -> EngineOptions {
    EngineOptions::default()
        .with_segment_bytes(64 << 10)
        .with_chunk_bytes(16 << 10)
        .with_buffer_bytes(64 << 10)
        .with_cache_bytes(96 << 10)
        .with_spare_count(1)
}

/// A simulated disk with an engine that is driven by hand.
struct Scene {
    disk: SimDisk,
    clock: Arc<SimClock>,
    options: EngineOptions,
}

impl Scene {
    fn new() -> Scene {
        Scene { disk: SimDisk::new(7), clock: Arc::new(SimClock::default()), options: options().with_manual_drive() }
    }

    fn open(&self) -> Engine {
        let clock = Arc::<SimClock>::clone(&self.clock);
        Engine::open_with(self.disk.backend(), clock, Path::new("/log"), self.options.clone()).unwrap()
    }

    /// The power fails, and the engine opens again.
    fn crash(&mut self, engine: Engine) -> Engine {
        drop(engine);
        self.disk = self.disk.crash_with(3, Survival::Nothing);
        self.open()
    }

    fn commit(&self, engine: &Engine, batch: &mut WriteBatch) -> AppendOutcome {
        loop {
            match engine.try_append(batch) {
                Ok(ticket) => {
                    self.settle(engine);
                    return ticket.outcome().clone();
                }
                Err(AppendError::Full { .. }) => self.settle(engine),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn settle(&self, engine: &Engine) {
        while engine.watermarks().acked < engine.watermarks().assigned {
            engine.step();
        }
    }

    /// Lets housekeeping finish what it has to do.
    fn rest(&self, engine: &Engine) {
        for _ in 0..400 {
            engine.step();
            self.clock.advance(Duration::from_millis(5));
        }
    }

    fn put(&self, engine: &Engine, key: &str, value: &str) {
        let mut batch = WriteBatch::new();
        batch.put(&Put { key: key.as_bytes(), value: value.as_bytes(), target: None }).unwrap();
        self.commit(engine, &mut batch);
    }

    /// Messages of 9 000 bytes until the log is this long.
    fn fill_to(&self, engine: &Engine, end: u64) {
        let queue = engine.queue(b"filler").unwrap();
        while engine.watermarks().assigned.0 < end {
            let mut batch = WriteBatch::new();
            batch.append(&message(&queue, &[&[7; 9000]])).unwrap();
            self.commit(engine, &mut batch);
        }
    }
}

fn message<'a>(queue: &'a Queue, payload: &'a [&'a [u8]]) -> Append<'a> {
    Append { queue, tag: 1, keys: &[b"key"], attributes: b"first", payload }
}

fn read_all(engine: &Engine, queue: &Queue) -> Vec<Message> {
    let from = engine.range(queue).min;
    let everything = Fetch {
        queue,
        from,
        messages_max: 1000,
        bytes_max: 1 << 30,
        scan_max: 1000,
        from_disk: true,
        matches: &|_| true,
    };
    let found = engine.fetch(&everything).unwrap();
    assert!(matches!(found.status, FetchStatus::Found | FetchStatus::AtEnd));
    found.messages
}

fn text(entry: Option<TableEntry>) -> Option<String> {
    entry.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
}

fn all_entries(engine: &Engine) -> Vec<(Vec<u8>, TableEntry)> {
    engine.snapshot().range(b"", None, 10_000).unwrap()
}

#[test]
fn a_link_has_its_own_place_and_attributes_and_its_origins_payload() {
    let mut scene = Scene::new();
    let mut engine = scene.open();
    let (half, orders) = (engine.queue(b"half").unwrap(), engine.queue(b"orders").unwrap());
    let mut batch = WriteBatch::new();
    batch.append(&message(&half, &[b"three ", b"anchors"])).unwrap();
    let appended = scene.commit(&engine, &mut batch);

    let before = engine.watermarks().assigned;
    let origin = engine.reference(appended.first.lsn).unwrap();
    let mut batch = WriteBatch::new();
    let link = Link { queue: &orders, target: origin.into(), tag: 2, keys: &[b"other"], attributes: b"second" };
    batch.link(&link).unwrap();
    batch.delete(b"txn/17").unwrap();
    let linked = scene.commit(&engine, &mut batch);
    assert!(linked.end_lsn.since(before) <= 200, "{} bytes", linked.end_lsn.since(before));

    for opening in 0..2 {
        let orders = engine.queue(b"orders").unwrap();
        let found = &read_all(&engine, &orders)[0];
        assert_eq!((found.lsn, found.origin_lsn()), (linked.first.lsn, appended.first.lsn));
        assert_eq!((found.tag, found.attributes(), found.payload()), (2, &b"second"[..], &b"three anchors"[..]));
        assert_eq!(found.keys().collect::<Vec<_>>(), [b"other"]);
        let by_lsn = engine.read(linked.first.lsn).unwrap();
        assert_eq!((by_lsn.payload(), by_lsn.queue_offset), (found.payload(), QueueOffset(0)));

        // A link to a link leads to the origin.
        let mut batch = WriteBatch::new();
        let retry = engine.queue(b"retry").unwrap();
        let again = Link { queue: &retry, target: found.reference().into(), tag: 3, keys: &[], attributes: b"third" };
        batch.link(&again).unwrap();
        scene.commit(&engine, &mut batch);
        let found = read_all(&engine, &retry).pop().unwrap();
        assert_eq!((found.origin_lsn(), found.payload()), (appended.first.lsn, &b"three anchors"[..]));
        if opening == 0 {
            engine = scene.crash(engine);
        }
    }
}

/// What several callers ask for is one frame, with everything where each of them put it.
#[test]
fn a_batch_that_takes_over_another_one_does_what_both_say() {
    let scene = Scene::new();
    let engine = scene.open();
    let (half, orders) = (engine.queue(b"half").unwrap(), engine.queue(b"orders").unwrap());
    let with_entry = |key: &[u8], payload: &[u8]| {
        let mut batch = WriteBatch::new();
        let record = batch.append(&message(&half, &[payload])).unwrap();
        batch.put(&Put { key, value: payload, target: Some(record.into()) }).unwrap();
        let link = Link { queue: &orders, target: record.into(), tag: 1, keys: &[], attributes: payload };
        batch.link(&link).unwrap();
        batch
    };
    let (mut one, mut two) = (with_entry(b"a", b"first"), with_entry(b"b", b"second"));
    let apart = one.frame_bytes() + two.frame_bytes();
    two.require_absent(b"b").unwrap();
    let (mark, whole) = (one.mark(), two.frame_bytes());
    assert!(one.absorb(&mut two) && two.is_empty());
    let mut two = one.split_off(mark);
    assert_eq!((mark.operations(), one.len(), two.len(), two.frame_bytes()), (3, 3, 3, whole));
    assert!(one.absorb(&mut two));
    assert_eq!((one.len(), apart - one.frame_bytes()), (6, 64));
    scene.commit(&engine, &mut one);
    let found = read_all(&engine, &orders);
    let told: Vec<_> = found.iter().map(|message| (message.payload(), message.attributes())).collect();
    assert_eq!(told, [(&b"first"[..], &b"first"[..]), (b"second", b"second")]);
    for ((key, entry), message) in all_entries(&engine).iter().zip(&found) {
        assert_eq!((entry.target, &*entry.value), (Some(message.origin_lsn()), message.payload()), "{key:?}");
    }

    // Both would be judged by what was there before either.
    let decide = |verdict: &[u8]| {
        let mut batch = WriteBatch::new();
        batch.require_value(b"a", b"first").unwrap();
        batch.put(&Put { key: b"a", value: verdict, target: None }).unwrap();
        batch
    };
    let (mut one, mut two) = (decide(b"yes"), decide(b"no"));
    assert!(!one.absorb(&mut two) && (one.len(), two.len()) == (1, 1));
    let mut essential = WriteBatch::new();
    essential.delete(b"c").unwrap();
    essential.set_essential(true);
    assert!(!one.absorb(&mut essential));
    let mut next = WriteBatch::new();
    next.require_next(&half, QueueOffset(2)).unwrap();
    next.delete(b"c").unwrap();
    assert!(!one.absorb(&mut next));
    let mut dropping = WriteBatch::new();
    dropping.drop_queue(&half).unwrap();
    assert!(!dropping.absorb(&mut two));
    scene.commit(&engine, &mut one);
    scene.commit(&engine, &mut next);
}

#[test]
fn entries_are_found_by_the_message_that_they_are_about_as_long_as_they_are() {
    let mut scene = Scene::new();
    let mut engine = scene.open();
    let queue = engine.queue(b"half").unwrap();
    let mut batch = WriteBatch::new();
    batch.append(&message(&queue, &[b"three anchors"])).unwrap();
    let lsn = scene.commit(&engine, &mut batch).first.lsn;
    let about = |engine: &Engine| -> Vec<(Vec<u8>, Vec<u8>)> {
        let found = engine.entries_about(lsn).unwrap();
        found.into_iter().map(|(key, entry)| (key, entry.value.to_vec())).collect()
    };
    let mut batch = WriteBatch::new();
    let target = engine.reference(lsn).unwrap();
    for key in [&b"due/1"[..], b"due/2", b"due/3"] {
        batch.put(&Put { key, value: b"here", target: Some(target.into()) }).unwrap();
    }
    batch.put(&Put { key: b"due/4", value: b"elsewhere", target: None }).unwrap();
    scene.commit(&engine, &mut batch);
    assert_eq!(about(&engine).len(), 3);
    let mut batch = WriteBatch::new();
    batch.delete(b"due/1").unwrap();
    batch.put(&Put { key: b"due/2", value: b"nowhere", target: None }).unwrap();
    scene.commit(&engine, &mut batch);
    for _ in 0..2 {
        assert_eq!(about(&engine), [(b"due/3".to_vec(), b"here".to_vec())]);
        assert_eq!(engine.entries_about(Lsn(lsn.0 + 8)).unwrap(), []);
        scene.rest(&engine);
        engine = scene.crash(engine);
    }
}

#[test]
fn a_batch_may_refer_to_its_own_messages() {
    let mut scene = Scene::new();
    let engine = scene.open();
    let (half, due) = (engine.queue(b"half").unwrap(), engine.queue(b"due").unwrap());
    let mut batch = WriteBatch::new();
    batch.put(&Put { key: b"first", value: b"", target: None }).unwrap();
    let message = batch.append(&message(&half, &[b"body"])).unwrap();
    batch.put(&Put { key: b"txn/1", value: b"half", target: Some(message.into()) }).unwrap();
    let link = batch.link(&Link { queue: &due, target: message.into(), tag: 9, keys: &[], attributes: b"" }).unwrap();
    let second = batch.link(&Link { queue: &due, target: link.into(), tag: 10, keys: &[], attributes: b"" }).unwrap();
    batch.put(&Put { key: b"due/1", value: b"", target: Some(second.into()) }).unwrap();
    let deletion = batch.delete(b"nothing").unwrap();
    let bad = Put { key: b"bad", value: b"", target: Some(deletion.into()) };
    assert!(matches!(batch.put(&bad), Err(BatchError::NoSuchRecord(index)) if index == deletion.get()));
    let outcome = scene.commit(&engine, &mut batch);

    let engine = scene.crash(engine);
    let lsns: Vec<Lsn> = outcome.positions().map(|position| position.lsn).collect();
    assert_eq!(engine.get(b"txn/1").unwrap().unwrap().target, Some(lsns[message.get()]));
    assert_eq!(engine.get(b"due/1").unwrap().unwrap().target, Some(lsns[second.get()]));
    let due = engine.queue(b"due").unwrap();
    for found in read_all(&engine, &due) {
        assert_eq!((found.payload(), found.origin_lsn()), (&b"body"[..], lsns[message.get()]));
    }
}

#[test]
fn the_table_is_ordered_and_there_again_after_opening() {
    let mut scene = Scene::new();
    let mut engine = scene.open();
    for number in 0..300 {
        scene.put(&engine, &format!("offset/{:03}", number * 7 % 300), &format!("{number}"));
    }
    let snapshot = engine.snapshot();
    let mut batch = WriteBatch::new();
    for number in (0..300).step_by(2) {
        batch.delete(format!("offset/{number:03}").as_bytes()).unwrap();
    }
    scene.commit(&engine, &mut batch);
    assert_eq!(snapshot.range(b"offset/", Some(b"offset0"), 1000).unwrap().len(), 300, "as it was");
    drop(snapshot);
    for _ in 0..2 {
        let all = all_entries(&engine);
        assert_eq!(all.len(), 150);
        assert!(all.is_sorted_by(|one, other| one.0 < other.0));
        assert_eq!(text(engine.get(b"offset/007").unwrap()).as_deref(), Some("1"));
        assert_eq!(engine.get(b"offset/008").unwrap(), None);
        let some = engine.snapshot().range(b"offset/010", Some(b"offset/020"), 3).unwrap();
        assert_eq!(
            some.iter().map(|(key, _)| &key[..]).collect::<Vec<_>>(),
            [b"offset/011", b"offset/013", b"offset/015"]
        );
        engine = scene.crash(engine);
    }
}

#[test]
fn a_batch_whose_precondition_fails_leaves_nothing_and_says_which() {
    let scene = Scene::new();
    let engine = scene.open();
    let queue = engine.queue(b"q").unwrap();
    scene.put(&engine, "lock", "mine");
    let attempt = |require: &dyn Fn(&mut WriteBatch)| {
        let mut batch = WriteBatch::new();
        batch.append(&message(&queue, &[b"x"])).unwrap();
        batch.require_next(&queue, engine.range(&queue).max).unwrap();
        require(&mut batch);
        let before = engine.watermarks().assigned;
        let outcome = engine.try_append(&mut batch).map(|ticket| ticket.outcome().clone());
        if outcome.is_err() {
            assert_eq!(engine.watermarks().assigned, before, "nothing is appended");
        }
        scene.settle(&engine);
        outcome
    };
    let rejected = |outcome: Result<AppendOutcome, AppendError>| match outcome {
        Err(AppendError::Rejected(rejection)) => rejection,
        other => panic!("{other:?}"),
    };
    attempt(&|batch| batch.require_absent(b"other").unwrap()).unwrap();
    attempt(&|batch| batch.require_value(b"lock", b"mine").unwrap()).unwrap();
    let Rejection { index, found, .. } = rejected(attempt(&|batch| batch.require_absent(b"lock").unwrap()));
    assert_eq!((index, found), (1, Found::Value(Arc::from(&b"mine"[..]))));
    let rejection = rejected(attempt(&|batch| batch.require_value(b"other", b"x").unwrap()));
    assert_eq!(rejection.found, Found::Absent);
    let rejection = rejected(attempt(&|batch| batch.require_next(&queue, QueueOffset(7)).unwrap()));
    assert_eq!(rejection.found, Found::Next(QueueOffset(2)));
    assert_eq!(engine.range(&queue).max, QueueOffset(2));
}

#[test]
fn a_rejection_names_what_it_rests_on_before_that_is_durable() {
    let scene = Scene::new();
    let engine = scene.open();
    let mut batch = WriteBatch::new();
    batch.put(&Put { key: b"txn", value: b"committed", target: None }).unwrap();
    batch.require_absent(b"txn").unwrap();
    let first = engine.try_append(&mut batch).unwrap().outcome().clone();
    assert!(engine.watermarks().acked < first.end_lsn && engine.get(b"txn").unwrap().is_none(), "not visible yet");
    match engine.try_append(&mut batch).map(|_| ()) {
        Err(AppendError::Rejected(rejection)) => assert_eq!(rejection.rests_on, first.end_lsn),
        other => panic!("{other:?}"),
    }
    scene.settle(&engine);
    assert_eq!(text(engine.get(b"txn").unwrap()).as_deref(), Some("committed"));
}

#[test]
fn of_many_who_want_the_same_turn_one_gets_it() {
    let directory = tempfile::Builder::new().tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let backend = Arc::new(anchorlog_engine::io::threads::ThreadsBackend::new());
    let engine = Engine::open_with(backend, Arc::new(SystemClock::new()), directory.path(), options()).unwrap();
    let (queue, rounds) = (engine.queue(b"turns").unwrap(), 100_u64);
    let wins: u64 = std::thread::scope(|scope| {
        let worker = |_| {
            scope.spawn(|| {
                let mut wins = 0;
                while wins < 1000 {
                    let now = text(engine.get(b"turn").unwrap());
                    let turn: u64 = now.as_deref().map_or(0, |turn| turn.parse().unwrap());
                    if turn == rounds {
                        break;
                    }
                    let mut batch = WriteBatch::new();
                    batch.append(&message(&queue, &[turn.to_string().as_bytes()])).unwrap();
                    batch.put(&Put { key: b"turn", value: (turn + 1).to_string().as_bytes(), target: None }).unwrap();
                    match &now {
                        Some(now) => batch.require_value(b"turn", now.as_bytes()).unwrap(),
                        None => batch.require_absent(b"turn").unwrap(),
                    }
                    match engine.append(batch) {
                        Ok(ticket) => {
                            ticket.wait().unwrap();
                            wins += 1;
                        }
                        Err(AppendError::Rejected(rejection)) => {
                            assert!(engine.watermarks().acked >= rejection.rests_on, "answered before it was certain");
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                wins
            })
        };
        let workers: Vec<_> = (0..8).map(worker).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(wins, rounds);
    let turns: Vec<String> =
        read_all(&engine, &queue).iter().map(|turn| String::from_utf8(turn.payload().to_vec()).unwrap()).collect();
    assert_eq!(turns, (0..rounds).map(|turn| turn.to_string()).collect::<Vec<_>>());
    engine.close().unwrap();
}

#[test]
fn a_dropped_queue_begins_again_under_its_name() {
    let mut scene = Scene::new();
    let mut engine = scene.open();
    let old = engine.queue(b"q").unwrap();
    let mut batch = WriteBatch::new();
    batch.append(&message(&old, &[b"old"])).unwrap();
    let first = scene.commit(&engine, &mut batch).first.lsn;
    let mut batch = WriteBatch::new();
    batch.drop_queue(&old).unwrap();
    scene.commit(&engine, &mut batch);

    let mut late = WriteBatch::new();
    late.append(&message(&old, &[b"late"])).unwrap();
    assert!(matches!(engine.try_append(&mut late), Err(AppendError::Dropped)));
    assert!(read_all(&engine, &old).is_empty());
    let new = engine.queue(b"q").unwrap();
    assert_eq!((new.incarnation(), engine.range(&new).max), (1, QueueOffset(0)));

    // The new one counts from 0, and the old one's messages do not come back, not even when all that says so is restated.
    for round in 0..3_u64 {
        let queue = engine.queue(b"q").unwrap();
        assert_eq!((queue.incarnation(), engine.range(&queue).max), (1, QueueOffset(round)));
        let mut batch = WriteBatch::new();
        batch.append(&message(&queue, &[b"new"])).unwrap();
        assert_eq!(scene.commit(&engine, &mut batch).first.queue_offset, QueueOffset(round));
        if round == 1 {
            scene.fill_to(&engine, 4 * 60 * 1024);
            assert!(engine.release(engine.watermarks().acked).unwrap().segments > 0);
            scene.rest(&engine);
            assert!(matches!(engine.read(first), Err(ReadError::NotFound(_))));
        }
        engine = scene.crash(engine);
        assert_eq!(engine.queues().iter().filter(|queue| queue.name() == b"q").count(), 1);
    }
}

#[test]
fn entries_outlive_the_segments_that_said_them_first() {
    let mut scene = Scene::new();
    let mut engine = scene.open();
    for number in 0..60 {
        scene.put(&engine, &format!("key-{number:02}"), &format!("{number} ").repeat(40));
    }
    scene.put(&engine, "key-07", "changed");
    let mut batch = WriteBatch::new();
    batch.delete(b"key-08").unwrap();
    scene.commit(&engine, &mut batch);
    let expected: Vec<(Vec<u8>, Arc<[u8]>)> =
        all_entries(&engine).into_iter().map(|(key, entry)| (key, entry.value)).collect();
    assert_eq!(expected.len(), 59);
    for _ in 0..3 {
        let start = engine.watermarks().start;
        scene.fill_to(&engine, engine.watermarks().assigned.0 + 4 * 60 * 1024);
        let released = engine.release(engine.watermarks().acked).unwrap();
        // What comes meanwhile is not overtaken by what is restated.
        scene.put(&engine, "key-07", "changed");
        scene.rest(&engine);
        assert!(engine.watermarks().start >= released.start && released.start > start);
        engine = scene.crash(engine);
        let found: Vec<_> = all_entries(&engine).into_iter().map(|(key, entry)| (key, entry.value)).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn what_an_entry_or_a_link_refers_to_survives() {
    let mut scene = Scene::new();
    let mut engine = scene.open();
    let half = engine.queue(b"half").unwrap();
    let mut batch = WriteBatch::new();
    let first = batch.append(&message(&half, &[b"pinned"])).unwrap();
    batch.put(&Put { key: b"txn/1", value: b"half", target: Some(first.into()) }).unwrap();
    let pinned = scene.commit(&engine, &mut batch).first.lsn;
    let stale = engine.reference(pinned).unwrap();

    scene.fill_to(&engine, 4 * 60 * 1024);
    let _released = engine.release(engine.watermarks().acked).unwrap();
    scene.rest(&engine);
    assert!(engine.watermarks().start > pinned, "the segment is released, and the message survives in it");
    engine = scene.crash(engine);
    assert_eq!(engine.read(pinned).unwrap().payload(), b"pinned");

    // The entry goes and a link comes, in one batch: now the link holds it.
    let orders = engine.queue(b"orders").unwrap();
    let mut batch = WriteBatch::new();
    let target = engine.reference(pinned).unwrap().into();
    batch.link(&Link { queue: &orders, target, tag: 0, keys: &[], attributes: b"" }).unwrap();
    batch.delete(b"txn/1").unwrap();
    scene.commit(&engine, &mut batch);
    let _released = engine.release(engine.watermarks().acked).unwrap();
    scene.rest(&engine);
    assert_eq!(read_all(&engine, &orders)[0].payload(), b"pinned");

    // The link's own segment goes, and the message with it; nothing can refer to it any more.
    scene.fill_to(&engine, engine.watermarks().assigned.0 + 4 * 60 * 1024);
    let _released = engine.release(engine.watermarks().acked).unwrap();
    scene.rest(&engine);
    scene.rest(&engine);
    assert!(matches!(engine.read(pinned), Err(ReadError::NotFound(_))));
    let mut batch = WriteBatch::new();
    let reference = engine.reference(pinned);
    assert!(matches!(reference, Err(ReadError::NotFound(_))));
    batch.put(&Put { key: b"late", value: b"", target: Some(stale.into()) }).unwrap();
    // Known to an earlier opening only.
    assert!(matches!(engine.try_append(&mut batch), Err(AppendError::ForeignQueue)));
}

/// Who keeps an LSN and a length need not read the message again, and who keeps a link's origin need not keep the link.
/// What links of one pull lead to is read in the order of the log: together where it lies together, by its own blocks where it does not.
#[test]
fn many_links_cost_few_small_reads() {
    let mut scene = Scene::new();
    let engine = scene.open();
    let half = engine.queue(b"half").unwrap();
    let body = |number: u64| [number.to_le_bytes().to_vec(), vec![5; 300]].concat();
    let mut places = Vec::new();
    // 24 of them more than a shared read apart, then three groups of eight.
    for number in 0..48_u64 {
        if number < 24 || number % 8 == 0 {
            scene.fill_to(&engine, engine.watermarks().assigned.0 + (80 << 10));
        }
        let mut batch = WriteBatch::new();
        batch.append(&message(&half, &[&body(number)])).unwrap();
        places.push(scene.commit(&engine, &mut batch).first.lsn);
    }
    scene.fill_to(&engine, engine.watermarks().assigned.0 + (256 << 10));
    let due = engine.queue(b"due").unwrap();
    // In an order that has nothing to do with theirs, and one of them twice.
    let order: Vec<usize> = (0..49).map(|number| number * 29 % 48).collect();
    for at in &order {
        let target = engine.reference(places[*at]).unwrap().into();
        let mut batch = WriteBatch::new();
        batch.link(&Link { queue: &due, target, tag: 2, keys: &[], attributes: b"" }).unwrap();
        scene.commit(&engine, &mut batch);
    }
    // What looking them up has read is read again.
    let engine = scene.crash(engine);
    let due = engine.queue(b"due").unwrap();
    let before = engine.stats();
    let found = read_all(&engine, &due);
    let after = engine.stats();
    let bodies: Vec<Vec<u8>> = order.iter().map(|at| body(u64::try_from(*at).unwrap())).collect();
    assert!(found.iter().map(|message| message.payload().to_vec()).eq(bodies));
    let links = u64::from(found.iter().all(|message| message.lsn != message.origin_lsn())) * 2;
    let (reads, bytes) = (after.cold_reads - before.cold_reads, after.cold_read_bytes - before.cold_read_bytes);
    assert!(reads <= 24 + 3 + links, "{reads} reads for 24 places, three groups and the links themselves");
    assert!(bytes <= 27 * 8192 + links * (64 << 10), "{bytes} bytes of {reads} reads");

    // One that has rotted is an error of its own, and in nobody's way.
    let rotten = places[30];
    let segment = rotten.0 / (60 << 10) * (60 << 10);
    scene.disk.flip_bit(Path::new(&format!("/log/{segment:020}.seg")), 4096 + rotten.0 - segment + 200, 3);
    let at = |offset: u64| engine.fetch(&Fetch { messages_max: 100, ..Fetch::new(&due, QueueOffset(offset)) });
    let place = order.iter().position(|at| *at == 30).unwrap();
    assert_eq!(at(0).unwrap().messages.len(), place);
    assert!(matches!(at(u64::try_from(place).unwrap()), Err(ReadError::Damaged { lsn, .. }) if lsn == rotten));
    assert_eq!(at(u64::try_from(place).unwrap() + 1).unwrap().messages.len(), 48 - place);
}

#[test]
fn a_message_is_referred_to_by_what_was_kept_of_it() {
    let scene = Scene::new();
    let engine = scene.open();
    let (hidden, orders) = (engine.queue(b"hidden").unwrap(), engine.queue(b"orders").unwrap());
    let mut batch = WriteBatch::new();
    let record = batch.append(&message(&hidden, &[b"kept"])).unwrap();
    let record_bytes = batch.record_bytes(record).unwrap();
    let lsn = scene.commit(&engine, &mut batch).first.lsn;
    let kept = engine.reference_to(lsn, record_bytes);
    assert_eq!(kept, engine.reference(lsn).unwrap());
    let mut batch = WriteBatch::new();
    assert_eq!(batch.record_bytes(record), None, "of another batch");
    batch.link(&Link { queue: &orders, target: kept.into(), tag: 0, keys: &[], attributes: b"" }).unwrap();
    scene.commit(&engine, &mut batch);
    let linked = read_all(&engine, &orders).remove(0);
    assert_eq!(linked.payload(), b"kept");
    assert_ne!(linked.reference(), kept);
    assert_eq!((linked.reference().to_origin(), linked.reference().origin_bytes()), (kept, record_bytes));
}

#[test]
fn it_is_known_what_can_be_had_without_the_disk() {
    let mut scene = Scene::new();
    scene.options = scene.options.clone().with_checkpoint_bytes(64 << 10);
    let engine = scene.open();
    let queue = engine.queue(b"q").unwrap();
    let mut batch = WriteBatch::new();
    let first = batch.append(&message(&queue, &[b"first"])).unwrap();
    batch.put(&Put { key: b"key", value: b"value", target: Some(first.into()) }).unwrap();
    let lsn = scene.commit(&engine, &mut batch).first.lsn;
    assert!(engine.is_in_memory(lsn) && engine.knows(b"key"));
    assert!(!engine.is_in_memory(Lsn(lsn.0 + 8)), "no message begins there");
    batch.clear();
    let target = engine.read(lsn).unwrap().reference().into();
    batch.link(&Link { queue: &queue, target, tag: 0, keys: &[], attributes: b"" }).unwrap();
    let link = scene.commit(&engine, &mut batch).first.lsn;
    assert!(!engine.is_in_memory(link), "where it leads is not looked at");
    let payload = [7; 1024];
    for _ in 0..200 {
        batch.clear();
        batch.append(&message(&queue, &[&payload])).unwrap();
        scene.commit(&engine, &mut batch);
    }
    scene.rest(&engine);
    assert!(!engine.is_in_memory(lsn), "the cache has lost it");
    assert_eq!(engine.read(lsn).unwrap().payload(), b"first");
    assert!(!engine.knows(b"key"), "a checkpoint has written it, and it left memory");
    assert_eq!(text(engine.get(b"key").unwrap()).as_deref(), Some("value"));
}

#[test]
fn a_snapshot_covers_what_was_dispatched_whether_it_changed_the_table_or_not() {
    let scene = Scene::new();
    let engine = scene.open();
    let queue = engine.queue(b"q").unwrap();
    scene.put(&engine, "a", "1");
    let mut batch = WriteBatch::new();
    batch.append(&message(&queue, &[b"no entry"])).unwrap();
    let end = scene.commit(&engine, &mut batch).end_lsn;
    assert!(engine.snapshot().lsn() >= end);
}

#[test]
fn a_reference_that_was_kept_too_long_is_refused() {
    let scene = Scene::new();
    let engine = scene.open();
    let queue = engine.queue(b"q").unwrap();
    let mut batch = WriteBatch::new();
    batch.append(&message(&queue, &[b"x"])).unwrap();
    let lsn = scene.commit(&engine, &mut batch).first.lsn;
    let reference = engine.reference(lsn).unwrap();
    scene.fill_to(&engine, 4 * 60 * 1024);
    let _released = engine.release(engine.watermarks().acked).unwrap();
    scene.rest(&engine);
    let mut batch = WriteBatch::new();
    batch.put(&Put { key: b"late", value: b"", target: Some(reference.into()) }).unwrap();
    assert!(matches!(engine.try_append(&mut batch), Err(AppendError::TargetGone(gone)) if gone == lsn));
}

#[test]
fn keys_and_values_have_limits_with_names() {
    let mut batch = WriteBatch::new();
    let too_large = |outcome: Result<_, BatchError>, what: &str| match outcome {
        Err(BatchError::TooLarge(error)) => assert!(error.to_string().contains(what), "{error}"),
        other => panic!("{other:?}"),
    };
    too_large(batch.put(&Put { key: &[1; 1025], value: b"", target: None }).map(drop), "table key");
    too_large(batch.put(&Put { key: b"k", value: &[0; (16 << 10) + 1], target: None }).map(drop), "table value");
    assert!(matches!(batch.delete(b""), Err(BatchError::EmptyKey)));
    assert!(matches!(batch.delete(b"\0own"), Err(BatchError::ReservedKey)));
    for _ in 0..1024 {
        batch.require_absent(b"k").unwrap();
    }
    too_large(batch.require_absent(b"k"), "preconditions");
    assert!(batch.is_empty(), "refused operations leave the batch as it was");
}
