//! The index over the derived store on a simulated disk, against a list of everything that was put in.
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;

use super::rows::Run;
use super::{KeyIndex, KeyOrder, KeyQuery, Records, merge};
use crate::checkpoint::{CheckpointError, open_store, rows as saved};
use crate::clock::SimClock;
use crate::error::ReadError;
use crate::io::IoBackend;
use crate::io::sim::{IoClass, SimDisk, Survival, Times};
use crate::store::{Direction, Store, StoreError, StoreTable};
use crate::units::{Epoch, Lsn, to_u64, to_usize};
use crate::{Append, Engine, EngineOptions, Message, WriteBatch};

const DIR: &str = "/log";
const STORE_ID: u128 = 99;
/// Entries of a chunk, and of a full run: small, so that all of them come about.
const SIZES: (usize, u64) = (16, 256);

/// A log of messages: LSN to store time and keys.
#[derive(Default)]
struct Log {
    messages: BTreeMap<Lsn, (u64, Vec<Vec<u8>>)>,
    start: Lsn,
    end: Lsn,
    unreadable: BTreeSet<Lsn>,
    /// How often a candidate was read.
    reads: Cell<u64>,
}

impl Records for Log {
    type Message = Lsn;

    fn store_time_ms(&self, lsn: Lsn) -> Result<u64, ReadError> {
        self.reads.set(self.reads.get() + 1);
        if self.unreadable.contains(&lsn) {
            return Err(ReadError::NotFound(lsn));
        }
        Ok(self.messages[&lsn].0)
    }

    fn message(&self, lsn: Lsn, query: &KeyQuery<'_>) -> Result<Option<(Lsn, usize)>, ReadError> {
        let store_time_ms = self.store_time_ms(lsn)?;
        assert!(lsn >= self.start, "what is gone is not looked at");
        let is_in = (query.from_ms..=query.to_ms).contains(&store_time_ms);
        Ok((is_in && self.messages[&lsn].1.iter().any(|key| key == query.key)).then_some((lsn, 10)))
    }
}

impl Log {
    /// What a query should find.
    fn expected(&self, query: &KeyQuery<'_>) -> Vec<Lsn> {
        let mut all: Vec<Lsn> = self.messages.keys().copied().filter(|lsn| *lsn >= self.start).collect();
        if query.order == KeyOrder::NewestFirst {
            all.reverse();
        }
        let behind = all.into_iter().filter(|lsn| match (query.order, query.beyond) {
            (_, None) => true,
            (KeyOrder::NewestFirst, Some(beyond)) => *lsn < beyond,
            (KeyOrder::OldestFirst, Some(beyond)) => *lsn > beyond,
        });
        let found = behind.filter(|lsn| {
            let (store_time_ms, keys) = &self.messages[lsn];
            (query.from_ms..=query.to_ms).contains(store_time_ms)
                && keys.iter().any(|key| key == query.key)
                && !self.unreadable.contains(lsn)
        });
        found.take(query.count.min(query.bytes_max / 10 + usize::from(query.bytes_max < 10))).collect()
    }
}

/// A small generator, so that a number names a case.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Pairs of keys with one hash.
fn colliding(index: &KeyIndex, count: usize) -> Vec<Vec<u8>> {
    let mut by_hash: Vec<(u32, u32)> = (0..400_000).map(|n: u32| (index.hash(format!("c{n}").as_bytes()), n)).collect();
    by_hash.sort_unstable();
    let pairs = by_hash.windows(2).filter(|pair| pair[0].0 == pair[1].0);
    let keys: Vec<_> = pairs.flatten().take(count * 2).map(|(_, n)| format!("c{n}").into_bytes()).collect();
    assert_eq!(keys.len(), count * 2, "enough keys for chance to bring some together");
    keys
}

/// Log, index and store, fed together.
struct World {
    log: Log,
    index: KeyIndex,
    store: Option<Store>,
    keys: Vec<Vec<u8>>,
    random: Random,
    now_ms: u64,
    /// Where the log ended when the last checkpoint began.
    frozen_to: Lsn,
}

impl World {
    fn new(seed: u64) -> World {
        let index = KeyIndex::with_sizes(STORE_ID, SIZES.0, SIZES.1);
        let mut keys = colliding(&index, 8);
        keys.extend((0..8).map(|n| format!("key-{n}").into_bytes()));
        let (log, random) = (Log::default(), Random(seed));
        World { log, index, store: None, keys, random, now_ms: 1000, frozen_to: Lsn::ZERO }
    }

    /// Opens the store of a disk and goes on from what is found in it; tells how far that goes.
    fn open(&mut self, backend: &Arc<dyn IoBackend>) -> Lsn {
        (self.store, self.index) = (None, KeyIndex::with_sizes(STORE_ID, SIZES.0, SIZES.1));
        backend.create_dir_all(Path::new(DIR)).unwrap();
        let (store, _) = open_store(backend, Path::new(DIR), STORE_ID, 0, Arc::new(|_| {})).unwrap();
        let reader = Arc::new(store.begin_read().unwrap());
        let applied = reader.get(StoreTable::Meta, saved::APPLIED_KEY).unwrap();
        let applied = applied.map_or(Lsn::ZERO, |value| saved::decode_applied(&value).unwrap().lsn);
        self.index.restore(reader, applied).unwrap();
        self.store = Some(store);
        for (lsn, (store_time_ms, keys)) in self.log.messages.range(applied..) {
            self.push(*lsn, *store_time_ms, keys);
        }
        applied
    }

    fn push(&self, lsn: Lsn, store_time_ms: u64, keys: &[Vec<u8>]) {
        let mut hashes = keys.iter().map(|key| (self.index.hash(key), lsn)).collect();
        self.index.push(&mut hashes, store_time_ms);
    }

    fn key(&mut self) -> Vec<u8> {
        // Some are in many messages, some in few.
        let among = self.random.below(to_u64(self.keys.len())) + 1;
        self.keys[to_usize(self.random.below(among))].clone()
    }

    /// A message with none to three keys, the same one twice at times.
    fn message(&mut self) {
        let lsn = self.log.end.plus(8 * self.random.below(400));
        let keys: Vec<_> = (0..self.random.below(4)).map(|_| self.key()).collect();
        self.now_ms += [0, 0, 0, 1, 2, 50][to_usize(self.random.below(6))];
        self.push(lsn, self.now_ms, &keys);
        self.log.messages.insert(lsn, (self.now_ms, keys));
        self.log.end = lsn.plus(8);
    }

    fn messages(&mut self, count: u64) {
        (0..count).for_each(|_| self.message());
    }

    fn freeze(&mut self) {
        self.index.freeze();
        self.frozen_to = self.log.end;
    }

    /// Commits a checkpoint of whose success nobody hears.
    fn write_unheard(&self) -> Result<Vec<Run>, CheckpointError> {
        let store = self.store.as_ref().unwrap();
        let writer = store.begin_write()?;
        let runs = self.index.write(&writer, self.frozen_to, self.log.start)?;
        writer.table(StoreTable::Meta)?.put(
            saved::APPLIED_KEY,
            &saved::encode_applied(saved::Applied { lsn: self.frozen_to, epoch: Epoch::default() }),
        )?;
        writer.commit()?;
        Ok(runs)
    }

    fn write(&self) -> Result<(), CheckpointError> {
        let runs = self.write_unheard()?;
        self.index.merged(Arc::new(self.store.as_ref().unwrap().begin_read()?), runs);
        Ok(())
    }

    fn checkpoint(&mut self) {
        self.freeze();
        self.write().unwrap();
    }

    /// Entries that a store should hold: one for each hash of each message.
    fn entries(&self) -> u64 {
        let hashes = |keys: &Vec<Vec<u8>>| keys.iter().map(|key| self.index.hash(key)).collect::<BTreeSet<_>>().len();
        self.log.messages.range(..self.frozen_to).map(|(_, (_, keys))| to_u64(hashes(keys))).sum()
    }

    fn expect_exact(&mut self, queries: usize) {
        for _ in 0..queries {
            let key = self.key();
            let mut time = || if self.random.below(3) == 0 { 0 } else { 990 + self.random.below(self.now_ms - 980) };
            let (one, other) = (time(), time());
            let beyond = Lsn(self.random.below(self.log.end.0 + 100) / 8 * 8);
            let query = KeyQuery {
                key: &key,
                from_ms: one.min(other),
                to_ms: if one.max(other) == 0 { u64::MAX } else { one.max(other) },
                order: if self.random.below(2) == 0 { KeyOrder::NewestFirst } else { KeyOrder::OldestFirst },
                beyond: (self.random.below(3) == 0).then_some(beyond),
                count: if self.random.below(2) == 0 { 5 } else { usize::MAX },
                bytes_max: if self.random.below(4) == 0 { 25 } else { 10_000 },
            };
            let found = self.index.find(&query, self.log.start..self.log.end, &self.log).unwrap();
            assert_eq!(found, self.log.expected(&query), "{query:?}");
        }
    }
}

#[test]
fn answers_are_exact_across_chunks_checkpoints_merges_and_releases() {
    for seed in 0..6 {
        let disk = SimDisk::new(seed);
        let mut world = World::new(seed);
        world.open(&disk.backend());
        for round in 0..60 {
            let count = world.random.below(150);
            world.messages(count);
            match world.random.below(8) {
                // Released up to somewhere, damaged somewhere.
                0 => {
                    world.log.start = world.log.start.plus(world.log.end.since(world.log.start) / 16 * 8);
                    let some = to_usize(world.random.below(50) + 1);
                    world.log.unreadable = world.log.messages.keys().step_by(some).copied().collect();
                }
                1 => {
                    world.freeze();
                    world.messages(40);
                    world.expect_exact(10);
                    world.write().unwrap();
                }
                2 => assert_eq!(world.open(&disk.backend()), world.frozen_to),
                _ => world.checkpoint(),
            }
            world.expect_exact(20);
            let bound = world.entries() / SIZES.1 + 1 + u64::from(SIZES.1.ilog2());
            assert!(to_u64(world.index.run_count()) <= bound, "seed {seed}, round {round}");
        }
    }
}

#[test]
fn runs_whose_messages_are_gone_leave_the_store() {
    let disk = SimDisk::new(1);
    let mut world = World::new(1);
    world.open(&disk.backend());
    for _ in 0..8 {
        world.messages(400);
        world.checkpoint();
    }
    assert_eq!(world.index.run_count(), 8, "each is full at once");
    let pieces = |world: &World| {
        let (reader, mut count) = (world.store.as_ref().unwrap().begin_read().unwrap(), 0);
        let all = (Bound::Unbounded, Bound::Unbounded);
        let counted = reader.range(StoreTable::Keys, all, Direction::Ascending, |_, _| {
            count += 1;
            ControlFlow::Continue(())
        });
        counted.map(|()| count).unwrap()
    };
    let before = pieces(&world);
    world.log.start = world.frozen_to;
    world.messages(1);
    world.checkpoint();
    assert!(world.index.run_count() <= 1 && pieces(&world) <= 1 && before >= 8, "{before}, {}", pieces(&world));
    world.expect_exact(20);
}

#[test]
fn the_power_fails_at_every_io_of_a_checkpoint_that_merges() {
    let base = SimDisk::new(2);
    let mut world = World::new(2);
    world.open(&base.backend());
    for count in [200, 90, 40, 10] {
        world.messages(count);
        world.checkpoint();
    }
    let runs_before = world.index.run_count();
    assert!(runs_before >= 3, "{runs_before} runs to merge");
    world.messages(100);
    let (mut last, mut outcomes) = (0, BTreeSet::new());
    loop {
        let disk = base.kill();
        world.open(&disk.backend());
        disk.stop_after(disk.io_count() + last);
        world.freeze();
        let written = world.write();
        let died = disk.is_dead();
        assert!(died || written.is_ok());
        let disk = disk.crash_with(last, if last % 2 == 0 { Survival::Nothing } else { Survival::Seeded });
        outcomes.insert(world.open(&disk.backend()));
        world.expect_exact(25);
        // What is found goes on as if nothing had happened.
        world.checkpoint();
        assert_eq!(stored_entries(&world), world.entries(), "stopped after I/O {last}");
        world.expect_exact(25);
        if !died {
            break;
        }
        last += 1;
    }
    assert!(last > 3 && outcomes.len() == 2, "{last} scenes, before and after: {outcomes:?}");
    assert!(world.index.run_count() < runs_before, "it merged: {runs_before} runs, then {}", world.index.run_count());
}

fn stored_entries(world: &World) -> u64 {
    let reader = world.store.as_ref().unwrap().begin_read().unwrap();
    let runs = merge::read_runs(|bounds, visit| reader.range(StoreTable::Meta, bounds, Direction::Ascending, visit));
    runs.unwrap().iter().map(|run| run.count).sum()
}

#[test]
fn a_checkpoint_that_fails_at_any_io_is_written_again_without_loss_or_doubles() {
    let base = SimDisk::new(3);
    let mut world = World::new(3);
    world.open(&base.backend());
    for count in [200, 90, 40, 10] {
        world.messages(count);
        world.checkpoint();
    }
    world.messages(30);
    let (mut failed, mut last) = (0, 1);
    loop {
        let disk = base.kill();
        world.open(&disk.backend());
        disk.fail(IoClass::Write, disk.count(IoClass::Write) + last, 5, Times::Once);
        world.freeze();
        let written = world.write();
        let is_through = written.is_ok();
        match written {
            Ok(()) => {}
            Err(CheckpointError::Store(StoreError::Io { .. })) => {
                failed += 1;
                world.write().unwrap();
            }
            // The store is made anew from the log.
            Err(_) => {
                assert_eq!(world.open(&disk.backend()), Lsn::ZERO);
                world.checkpoint();
            }
        }
        assert_eq!(stored_entries(&world), world.entries(), "write {last} failed");
        world.expect_exact(25);
        if is_through {
            break;
        }
        last += 1;
    }
    assert!(failed > 3, "{failed} scenes");
}

#[test]
fn a_checkpoint_that_was_written_unheard_is_not_written_twice() {
    let disk = SimDisk::new(6);
    let mut world = World::new(6);
    world.open(&disk.backend());
    for count in [300, 100, 80, 60] {
        world.messages(count);
        world.freeze();
        world.write_unheard().unwrap();
        world.expect_exact(10);
        world.write().unwrap();
        assert_eq!(stored_entries(&world), world.entries());
        world.expect_exact(10);
    }
}

#[test]
fn an_engine_tells_keys_of_one_hash_apart() {
    let disk = SimDisk::new(7);
    let options = EngineOptions::default()
        .with_segment_bytes(64 << 10)
        .with_chunk_bytes(16 << 10)
        .with_buffer_bytes(64 << 10)
        .with_cache_bytes(96 << 10)
        .with_manual_drive();
    let clock = Arc::new(SimClock::default());
    let engine = Engine::open_with(disk.backend(), clock, Path::new(DIR), options).unwrap();
    let keys = colliding(&KeyIndex::new(engine.info().store_id), 4);
    let queue = engine.queue(b"q").unwrap();
    for key in &keys {
        let mut batch = WriteBatch::new();
        let append = Append { queue: &queue, tag: 0, keys: &[key], attributes: b"", payload: &[key] };
        batch.append(&append).unwrap();
        engine.try_append(&mut batch).map(drop).unwrap();
        while engine.watermarks().acked < engine.watermarks().assigned {
            engine.step();
        }
    }
    for key in &keys {
        let found = engine.find(&KeyQuery::new(key)).unwrap();
        assert_eq!(found.iter().map(Message::payload).collect::<Vec<_>>(), [&key[..]]);
    }
}

/// A plan of merges with counts alone: what the runs are after checkpoints of these sizes, and how many entries were written for it.
fn simulate(counts: impl Iterator<Item = u64>, full: u64) -> (Vec<Run>, u64) {
    let (mut runs, mut written) = (Vec::<Run>::new(), 0);
    for count in counts {
        let merged = merge::merged_count(&runs, count, full);
        let taken = runs.split_off(runs.len() - merged);
        let count = count + taken.iter().map(|run| run.count).sum::<u64>();
        written += count;
        runs.push(Run { number: 0, start: Lsn::ZERO, last: Lsn::ZERO, first_ms: 0, last_ms: 0, count });
        let (fulls, total) =
            (runs.iter().filter(|run| run.count >= full).count(), runs.iter().map(|run| run.count).sum::<u64>());
        assert!(
            to_u64(fulls) <= total / full && runs[..fulls].iter().all(|run| run.count >= full),
            "full ones come first"
        );
        let small = &runs[fulls..];
        assert!(small.is_sorted_by(|older, newer| older.count > 2 * newer.count), "{:?}", small);
        assert!(to_u64(runs.len()) <= total / full + u64::from(full.ilog2()), "{} runs", runs.len());
    }
    (runs, written)
}

#[test]
fn runs_stay_few_and_entries_are_seldom_written_again_whatever_checkpoints_bring() {
    let full = crate::limits::KEY_RUN_FULL;
    let mut random = Random(5);
    let (_, written) = simulate((0..200_000).map(|_| 500), full);
    assert!(written < 100_000_000 * 14, "each entry {} times", written / 100_000_000);
    let (_, written) = simulate((0..200).map(|_| 500_000), full);
    assert!(written < 100_000_000 * 3, "each entry {} times", written / 100_000_000);
    simulate((0..100_000).map(|_| 1 + (random.below(1 << 22) >> random.below(22))), full);
    // The worst there is: each checkpoint brings less than half of the one before.
    let mut halving = (0..21).rev().map(|bits| (1_u64 << bits) - 1).filter(|count| *count > 0).collect::<Vec<_>>();
    halving.push(1);
    simulate(halving.into_iter().cycle().take(10_000), full);
}

#[test]
fn a_border_of_the_time_is_found_with_few_reads_among_many_messages_of_one_key() {
    let disk = SimDisk::new(4);
    let mut world = World::new(4);
    world.open(&disk.backend());
    let key = b"key-0".to_vec();
    for number in 0..30_000_u64 {
        let (lsn, store_time_ms) = (Lsn(number * 800), 1000 + number / 3);
        world.push(lsn, store_time_ms, std::slice::from_ref(&key));
        world.log.messages.insert(lsn, (store_time_ms, vec![key.clone()]));
    }
    world.log.end = Lsn(30_000 * 800);
    world.checkpoint();
    assert_eq!(world.index.run_count(), 1);
    for order in [KeyOrder::NewestFirst, KeyOrder::OldestFirst] {
        for (from_ms, to_ms) in
            [(3000, 3001), (0, 1000), (10_999, 20_000), (3000, 3000), (11_000, u64::MAX), (0, 999), (5, 1)]
        {
            let query = KeyQuery { from_ms, to_ms, order, count: 4, ..KeyQuery::new(&key) };
            world.log.reads.set(0);
            let found = world.index.find(&query, Lsn::ZERO..world.log.end, &world.log).unwrap();
            assert_eq!(found, world.log.expected(&query), "{query:?}");
            let reads = world.log.reads.get();
            assert!(reads <= 2 * 16 + 4, "{reads} reads for {query:?}");
        }
    }
}

#[test]
fn rows_that_no_checkpoint_writes_are_refused() {
    let disk = SimDisk::new(5);
    let mut world = World::new(5);
    world.open(&disk.backend());
    world.messages(50);
    world.checkpoint();
    let reader = Arc::new(world.store.as_ref().unwrap().begin_read().unwrap());
    let restored = |applied| KeyIndex::new(STORE_ID).restore(Arc::clone(&reader), applied);
    assert_eq!(restored(world.frozen_to), Ok(()));
    assert!(restored(Lsn(8)).is_err(), "it goes on behind the checkpoint");
}
