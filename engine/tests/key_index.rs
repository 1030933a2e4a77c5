//! Finding messages by key, and queue offsets by time: the same that reading everything shows, whatever happened before.
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::{SimDisk, Survival};
use anchorlog_engine::{
    Append, AppendError, Engine, EngineOptions, Fetch, FetchStatus, KeyOrder, KeyQuery, Link, Lsn, Message, OpenError,
    QueueOffset, WriteBatch, limits,
};

const DIR: &str = "/log";
const STORE: &str = "/log/DERIVED";

fn options() -> EngineOptions {
    EngineOptions::default()
        .with_segment_bytes(64 << 10)
        .with_chunk_bytes(16 << 10)
        .with_buffer_bytes(64 << 10)
        .with_cache_bytes(96 << 10)
        .with_spare_count(1)
        .with_checkpoint_bytes(64 << 10)
        .with_checkpoint_interval(Some(Duration::from_millis(50)))
        .with_manual_drive()
}

fn open(disk: &SimDisk, clock: &Arc<SimClock>, options: EngineOptions) -> Result<Engine, OpenError> {
    Engine::open_with(disk.backend(), Arc::<SimClock>::clone(clock), Path::new(DIR), options)
}

fn append(engine: &Engine, mut batch: WriteBatch) -> bool {
    loop {
        match engine.try_append(&mut batch) {
            Ok(_) => return true,
            Err(AppendError::Full { .. } | AppendError::Unreleased { .. }) => drop(engine.step()),
            Err(_) => return false,
        }
    }
}

fn settle(engine: &Engine) {
    for _ in 0..200 {
        if engine.watermarks().acked == engine.watermarks().assigned || engine.fenced().is_some() {
            break;
        }
        engine.step();
    }
}

/// Messages with none to three keys, links with keys of their own, now and then a queue that is dropped.
fn work(engine: &Engine, clock: &SimClock, rounds: std::ops::Range<u64>) {
    for round in rounds {
        let mut batch = WriteBatch::new();
        let queue = engine.queue(format!("queue-{}", round % 5).as_bytes()).unwrap();
        let body = vec![u8::try_from(round % 251).unwrap(); usize::try_from(200 + round * 131 % 2500).unwrap()];
        let keys = [b"all".to_vec(), format!("k{}", round % 17).into_bytes(), format!("only-{round}").into_bytes()];
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).take(usize::try_from(round % 4).unwrap()).collect();
        let add = Append { queue: &queue, tag: 1, keys: &keys, attributes: b"", payload: &[&body] };
        let message = batch.append(&add).unwrap();
        if round % 7 == 0 {
            let queue = engine.queue(b"linked").unwrap();
            let key = format!("link-{}", round % 3);
            let keys: &[&[u8]] = &[b"all", key.as_bytes()];
            batch.link(&Link { queue: &queue, target: message.into(), tag: 2, keys, attributes: b"" }).unwrap();
        }
        if round % 61 == 60 {
            batch.drop_queue(&engine.queue(b"queue-3").unwrap()).unwrap();
        }
        if !append(engine, batch) {
            return;
        }
        engine.step();
        if round % 4 == 0 {
            clock.advance(Duration::from_millis(7));
        }
    }
    settle(engine);
}

type Seen = (u64, u64, Vec<u8>, usize);

fn seen(message: &Message) -> Seen {
    (message.lsn.0, message.store_time_ms, message.queue_name.to_vec(), message.payload().len())
}

/// What reading all queues shows of every key, along the log.
fn read_all(engine: &Engine) -> BTreeMap<Vec<u8>, Vec<Seen>> {
    let mut by_key = BTreeMap::<_, Vec<Seen>>::new();
    for queue in engine.queues() {
        let mut next = engine.range(&queue).min;
        loop {
            let found = engine.fetch(&Fetch { messages_max: 50, ..Fetch::new(&queue, next) }).unwrap();
            if found.status == FetchStatus::AtEnd {
                break;
            }
            next = found.next;
            for message in &found.messages {
                for key in message.keys() {
                    by_key.entry(key.to_vec()).or_default().push(seen(message));
                }
            }
        }
    }
    by_key.values_mut().for_each(|messages| messages.sort());
    by_key
}

fn find(engine: &Engine, query: &KeyQuery<'_>) -> Vec<Seen> {
    engine.find(query).unwrap().iter().map(seen).collect()
}

/// Asks for every key, and for some in times and orders; returns what reading everything shows.
fn expect_exact(engine: &Engine, what: &str) -> BTreeMap<Vec<u8>, Vec<Seen>> {
    let by_key = read_all(engine);
    for (key, messages) in &by_key {
        let all = KeyQuery { count: usize::MAX, bytes_max: usize::MAX, ..KeyQuery::new(key) };
        let forward = KeyQuery { order: KeyOrder::OldestFirst, ..all };
        assert_eq!(&find(engine, &forward), messages, "{what}: {:?}", String::from_utf8_lossy(key));
        let times = [messages[messages.len() / 3].1, messages[messages.len() * 2 / 3].1];
        for (from_ms, to_ms) in [(0, u64::MAX), (times[0], times[1]), (times[0] + 1, u64::MAX), (0, times[1] - 1)] {
            let mut expected: Vec<_> =
                messages.iter().filter(|seen| (from_ms..=to_ms).contains(&seen.1)).cloned().collect();
            expected.reverse();
            expected.truncate(7);
            let query = KeyQuery { from_ms, to_ms, count: 7, ..all };
            assert_eq!(find(engine, &query), expected, "{what}: {query:?}");
        }
    }
    for key in [&b"never"[..], b"", b"al", b"only-"] {
        assert!(find(engine, &KeyQuery::new(key)).is_empty());
    }
    expect_recent(engine, &by_key, what);
    by_key
}

/// What is new among all keys: everything of a time and later, and of more than wanted the newest.
fn expect_recent(engine: &Engine, by_key: &BTreeMap<Vec<u8>, Vec<Seen>>, what: &str) {
    let mut times: Vec<u64> = by_key.values().flatten().map(|seen| seen.1).collect();
    times.sort_unstable();
    assert!(!times.is_empty(), "{what}");
    for since_ms in [0, times[times.len() / 2], times[times.len() - 1], times[times.len() - 1] + 1] {
        let found = engine.recent_keys(since_ms, usize::MAX).unwrap();
        assert!(found.is_sorted(), "{what}");
        for (key, messages) in by_key {
            let hash = engine.key_hash(key);
            for seen in messages {
                let is_found = found.binary_search(&(Lsn(seen.0), hash)).is_ok();
                assert_eq!(is_found, seen.1 >= since_ms, "{what}: {seen:?} since {since_ms}");
            }
        }
        for count in [0, 1, 7, found.len()] {
            let newest = &found[found.len().saturating_sub(count)..];
            assert_eq!(engine.recent_keys(since_ms, count).unwrap(), newest, "{what}: the newest {count}");
        }
    }
}

#[test]
fn keys_find_what_reading_everything_shows_with_and_without_a_checkpoint() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::default()));
    let engine = open(&disk, &clock, options()).unwrap();
    work(&engine, &clock, 0..400);
    assert!(engine.stats().checkpoints > 3 && engine.stats().key_runs > 0);
    let before = expect_exact(&engine, "running");
    assert!(before[&b"all"[..]].len() > 200 && before[&b"link-0"[..]].len() > 10 && before.len() > 100);
    assert!(
        before[&b"link-0"[..]].iter().all(|(_, _, queue, _)| queue == b"linked"),
        "links are found by their own keys"
    );
    drop(engine);
    for interval in [Some(Duration::from_millis(50)), None] {
        let clock = Arc::new(SimClock::default());
        let engine = open(&disk.kill(), &clock, options().with_checkpoint_interval(interval)).unwrap();
        assert_eq!(expect_exact(&engine, "reopened"), before);
    }
    let gone = disk.kill();
    gone.backend().remove(Path::new(STORE)).unwrap();
    assert_eq!(expect_exact(&open(&gone, &clock, options()).unwrap(), "made anew"), before);
    let size = disk.read(Path::new(STORE)).unwrap().len();
    for at in (4096..size).step_by(size / 40) {
        let disk = disk.kill();
        disk.flip_bit(Path::new(STORE), u64::try_from(at).unwrap(), 3);
        let engine = open(&disk, &clock, options()).unwrap();
        // What is met later than at open is an error, never a wrong answer, and the next opening makes it anew.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| expect_exact(&engine, "damaged")));
        drop(engine);
        let found = outcome.unwrap_or_else(|_| expect_exact(&open(&disk.kill(), &clock, options()).unwrap(), "anew"));
        assert_eq!(found, before, "bit {at}");
    }
}

#[test]
fn messages_that_are_released_or_whose_queue_is_dropped_are_not_found() {
    let retaining = options().with_retain_bytes(Some(192 << 10));
    let (mut disk, clock) = (SimDisk::new(2), Arc::new(SimClock::default()));
    for round in 0..5 {
        let engine = open(&disk, &clock, retaining.clone()).unwrap();
        work(&engine, &clock, round * 300..(round + 1) * 300);
        for _ in 0..300 {
            engine.step();
            clock.advance(Duration::from_millis(5));
        }
        let found = expect_exact(&engine, "running");
        assert!(engine.watermarks().start.0 > 0, "something was released");
        let first = find(&engine, &KeyQuery::new(format!("only-{}", round * 300 + 3).as_bytes()));
        assert!(first.is_empty(), "it is gone: {first:?}");
        drop(engine);
        disk = disk.crash_with(round, Survival::Nothing);
        let copy = disk.kill();
        copy.backend().remove(Path::new(STORE)).unwrap();
        assert_eq!(expect_exact(&open(&copy, &clock, retaining.clone()).unwrap(), "made anew"), found);
        disk = disk.kill();
    }

    let engine = open(&disk, &clock, retaining).unwrap();
    let queue = engine.queue(b"short").unwrap();
    let mut batch = WriteBatch::new();
    for keys in [&[&b"here"[..]][..], &[b"here", b"here"]] {
        batch.append(&Append { queue: &queue, tag: 0, keys, attributes: b"", payload: &[b"x"] }).unwrap();
    }
    assert!(append(&engine, batch));
    settle(&engine);
    assert_eq!(find(&engine, &KeyQuery::new(b"here")).len(), 2, "each once");
    let mut batch = WriteBatch::new();
    batch.drop_queue(&queue).unwrap();
    assert!(append(&engine, batch));
    settle(&engine);
    assert!(find(&engine, &KeyQuery::new(b"here")).is_empty());
    let mut batch = WriteBatch::new();
    let again = engine.queue(b"short").unwrap();
    batch.append(&Append { queue: &again, tag: 0, keys: &[b"here"], attributes: b"", payload: &[b"new"] }).unwrap();
    assert!(append(&engine, batch));
    settle(&engine);
    assert_eq!(find(&engine, &KeyQuery::new(b"here")).len(), 1, "the next queue of that name has its own");
}

#[test]
fn the_power_fails_at_every_io_and_keys_find_what_the_log_holds() {
    let (base, clock) = (SimDisk::new(3), Arc::new(SimClock::default()));
    let retaining = || options().with_retain_bytes(Some(192 << 10));
    let engine = open(&base, &clock, retaining()).unwrap();
    work(&engine, &clock, 0..150);
    drop(engine);
    let base = base.kill();
    let (mut last, mut checkpoints) = (0, 0);
    loop {
        let disk = base.kill();
        disk.stop_after(disk.io_count() + last);
        let clock = Arc::new(SimClock::default());
        if let Ok(engine) = open(&disk, &clock, retaining()) {
            work(&engine, &clock, 150..230);
            checkpoints = engine.stats().checkpoints;
        }
        let died = disk.is_dead();
        let survivor = disk.crash_with(last, if last % 2 == 0 { Survival::Nothing } else { Survival::Seeded });
        let with_store = expect_exact(&open(&survivor.kill(), &clock, retaining()).unwrap(), "opened");
        let plain = survivor.kill();
        drop(plain.backend().remove(Path::new(STORE)));
        let without = expect_exact(&open(&plain, &clock, retaining()).unwrap(), "made anew");
        assert_eq!(with_store, without, "stopped after I/O {last}");
        if !died {
            break;
        }
        last += 1 + last / 40;
    }
    assert!(last > 60 && checkpoints > 1, "{last} scenes, {checkpoints} checkpoints at most");
}

#[test]
fn a_damaged_message_is_left_out_counted_and_listed() {
    let (disk, clock) = (SimDisk::new(4), Arc::new(SimClock::default()));
    let engine = open(&disk, &clock, options()).unwrap();
    work(&engine, &clock, 0..200);
    let all = KeyQuery { count: usize::MAX, bytes_max: usize::MAX, ..KeyQuery::new(b"all") };
    let before = find(&engine, &all);
    drop(engine);
    let bad = before.iter().rev().skip(20).find(|(_, _, queue, _)| queue != b"linked").unwrap().0;
    // In the payload, behind the record's head, and in a segment that opening from the checkpoint does not read.
    let data = (64 << 10) - 4096;
    let (path, at) = (format!("{DIR}/{:020}.seg", bad / data * data), 4096 + bad % data + 100);
    for flipped in [true, false] {
        let disk = disk.kill();
        if flipped {
            disk.flip_bit(Path::new(&path), at, 1);
        } else {
            disk.break_sector(Path::new(&path), at);
        }
        let engine = open(&disk, &clock, options()).unwrap();
        let after = find(&engine, &all);
        // A link to it cannot be read either, nor what shares the sector.
        assert!(after.len() + 8 >= before.len() && after.iter().all(|seen| before.contains(seen)));
        assert!(!after.iter().any(|seen| seen.0 == bad));
        assert!(engine.stats().damaged_records > 0 && !engine.damaged_places().is_empty());
    }
}

#[test]
fn an_answer_is_gone_through_in_parts() {
    let (disk, clock) = (SimDisk::new(5), Arc::new(SimClock::default()));
    let engine = open(&disk, &clock, options()).unwrap();
    work(&engine, &clock, 0..200);
    for order in [KeyOrder::NewestFirst, KeyOrder::OldestFirst] {
        let all = KeyQuery { order, count: usize::MAX, bytes_max: usize::MAX, ..KeyQuery::new(b"all") };
        let whole = find(&engine, &all);
        for part in
            [KeyQuery { count: 9, ..all }, KeyQuery { bytes_max: 4000, ..all }, KeyQuery { bytes_max: 0, ..all }]
        {
            let (mut parts, mut beyond) = (Vec::new(), None);
            loop {
                let found = engine.find(&KeyQuery { beyond, ..part }).unwrap();
                let Some(last) = found.last() else { break };
                assert!(found.len() <= 9, "{}", found.len());
                beyond = Some(last.lsn);
                parts.extend(found.iter().map(seen));
            }
            assert_eq!(parts, whole);
        }
        assert!(engine.find(&KeyQuery { count: 0, ..all }).unwrap().is_empty());
    }
}

#[test]
fn many_keys_begin_a_checkpoint_before_its_time() {
    let (disk, clock) = (SimDisk::new(6), Arc::new(SimClock::default()));
    let options = options()
        .with_segment_bytes(1 << 20)
        .with_buffer_bytes(1 << 20)
        .with_cache_bytes(2 << 20)
        .with_checkpoint_bytes(1 << 30)
        .with_checkpoint_interval(Some(Duration::from_secs(1000)));
    let engine = open(&disk, &clock, options).unwrap();
    let queue = engine.queue(b"q").unwrap();
    let names: Vec<Vec<u8>> = (0..20_000_u32).map(|n| vec![n.to_le_bytes()[0]]).collect();
    let keys: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    let messages = limits::CHECKPOINT_KEYS / keys.len();
    let message = || {
        let mut batch = WriteBatch::new();
        batch.append(&Append { queue: &queue, tag: 0, keys: &keys, attributes: b"", payload: &[] }).unwrap();
        assert!(append(&engine, batch));
        settle(&engine);
        assert_eq!(engine.range(&queue).min, QueueOffset(0), "the dispatcher has seen it");
        engine.step();
    };
    (0..messages).for_each(|_| message());
    assert_eq!(engine.stats().checkpoints, 0);
    message();
    assert_eq!((engine.stats().checkpoints, engine.stats().key_runs), (1, 1));
    let found = engine.find(&KeyQuery { count: 1000, bytes_max: usize::MAX, ..KeyQuery::new(&[7]) }).unwrap();
    assert_eq!(found.len(), messages + 1, "each once, however often it has the key");
}

#[test]
fn the_border_of_a_time_is_found_in_a_long_queue_wherever_its_entries_are() {
    let (disk, clock) = (SimDisk::new(7), Arc::new(SimClock::default()));
    let engine = open(&disk, &clock, options()).unwrap();
    let queue = engine.queue(b"q").unwrap();
    for number in 0..3000_u64 {
        let mut batch = WriteBatch::new();
        batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload: &[&[1; 100]] }).unwrap();
        assert!(append(&engine, batch));
        if number % 3 == 0 && number / 500 % 2 == 0 {
            clock.advance(Duration::from_millis(1 + number % 5));
        }
        engine.step();
    }
    settle(&engine);
    drop(engine);
    for interval in [Some(Duration::from_millis(50)), None] {
        let engine = open(&disk.kill(), &clock, options().with_checkpoint_interval(interval)).unwrap();
        let queue = engine.queue(b"q").unwrap();
        let times: Vec<u64> =
            (0..3000).map(|at| engine.store_time(&queue, QueueOffset(at)).unwrap().unwrap()).collect();
        assert!(times[0] + 500 < times[2999] && times.is_sorted());
        for time in times[0] - 1..=times[2999] + 1 {
            let expected = times.partition_point(|other| *other < time);
            let found = engine.offset_by_time(&queue, time).unwrap();
            assert_eq!(found, QueueOffset(u64::try_from(expected).unwrap()), "at {time}");
        }
        for time in [0, u64::MAX] {
            assert_eq!(engine.offset_by_time(&queue, time).unwrap().0, if time == 0 { 0 } else { 3000 });
        }
    }
}
