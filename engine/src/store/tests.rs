//! The store against a plain map, whatever becomes of its disk.

mod damage;

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{
    Direction, Origin, Pace, Store, StoreError, StoreIdentity, StoreReader, StoreTable, StoreWriter, TableWriter,
};
use crate::io::IoBackend;
use crate::io::sim::{IoClass, SimDisk, Survival};
use crate::io::tests::skipped;
use crate::io::threads::ThreadsBackend;
use crate::io::uring::UringBackend;
use crate::units::{to_u64, to_usize};

const DIR: &str = "/log";
const IDENTITY: StoreIdentity = StoreIdentity { store_id: 0xfeed, format_version: 1 };
const ALL: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);
const APPLIED: &[u8] = b"applied";

/// What the store should hold: table (as its number) and key to value.
type Model = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

fn path() -> PathBuf {
    Path::new(DIR).join("DERIVED")
}

fn no_pace() -> Pace {
    Arc::new(|_| {})
}

fn disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.backend().create_dir_all(Path::new(DIR)).expect("no faults are planned");
    disk
}

fn open_small(disk: &SimDisk) -> Result<(Store, Origin), StoreError> {
    Store::open(&disk.backend(), Path::new(DIR), IDENTITY, 0, no_pace())
}

fn open(disk: &SimDisk) -> (Store, Origin) {
    open_small(disk).expect("no faults are planned")
}

/// The splitmix64 generator.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        to_usize(self.next() % to_u64(bound))
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let first = self.next();
        (0..to_u64(len)).map(|at| first.wrapping_add(at.wrapping_mul(at | 1)).to_be_bytes()[3]).collect()
    }
}

/// One change of one table.
enum Change {
    Put(usize, Vec<u8>, Vec<u8>),
    Remove(usize, Vec<u8>),
    RemoveRange(usize, Vec<u8>, Vec<u8>),
}

/// A workload that a seed determines.
#[derive(Clone, Copy)]
struct Workload {
    seed: u64,
    commit_count: u64,
    change_count: usize,
    value_bytes_max: usize,
}

const SMALL: Workload = Workload { seed: 1, commit_count: 6, change_count: 60, value_bytes_max: 600 };
/// Its transactions do not fit the cache: they are written, and flushed, long before they commit.
const SPILLING: Workload = Workload { seed: 2, commit_count: 2, change_count: 150, value_bytes_max: 24_000 };

impl Workload {
    /// What the `number`-th commit (from 1) changes.
    fn changes(self, number: u64) -> Vec<Change> {
        let mut draws = Draws(self.seed << 32 | number);
        let key = |draws: &mut Draws| to_u64(draws.below(400)).to_be_bytes().to_vec();
        let mut changes: Vec<Change> = (0..self.change_count)
            .map(|_| {
                let (table, first) = (draws.below(5), key(&mut draws));
                match draws.below(20) {
                    0 => {
                        let to = key(&mut draws);
                        Change::RemoveRange(table, first, to)
                    }
                    1..4 => Change::Remove(table, first),
                    4 => Change::Put(table, first, draws.bytes(9000)),
                    _ => {
                        let len = draws.below(self.value_bytes_max);
                        Change::Put(table, first, draws.bytes(len))
                    }
                }
            })
            .collect();
        let meta = StoreTable::ALL.len() - 1;
        changes.push(Change::Put(meta, APPLIED.to_vec(), number.to_be_bytes().to_vec()));
        changes
    }

    /// What the store holds after `count` commits.
    fn model(self, count: u64) -> Model {
        let mut model = Model::new();
        for number in 1..=count {
            for change in self.changes(number) {
                match change {
                    Change::Put(table, key, value) => {
                        model.insert((table, key), value);
                    }
                    Change::Remove(table, key) => {
                        model.remove(&(table, key));
                    }
                    Change::RemoveRange(table, from, to) => {
                        model.retain(|(of, key), _| *of != table || *key < from || *key >= to);
                    }
                }
            }
        }
        model
    }

    fn models(self) -> Vec<Model> {
        (0..=self.commit_count).map(|count| self.model(count)).collect()
    }

    fn write(self, writer: &StoreWriter, number: u64) -> Result<(), StoreError> {
        let tables: Result<Vec<TableWriter<'_>>, StoreError> =
            StoreTable::ALL.into_iter().map(|table| writer.table(table)).collect();
        let mut tables = tables?;
        for change in self.changes(number) {
            match change {
                Change::Put(table, key, value) => tables[table].put(&key, &value)?,
                Change::Remove(table, key) => {
                    tables[table].remove(&key)?;
                }
                Change::RemoveRange(table, from, to) => {
                    tables[table].remove_range((Bound::Included(&from), Bound::Excluded(&to)))?;
                }
            }
        }
        Ok(())
    }

    fn commit(self, store: &Store, number: u64) -> Result<(), StoreError> {
        let writer = store.begin_write()?;
        self.write(&writer, number)?;
        writer.commit()
    }

    /// Commits what is still to be committed; answers the number of the last commit that returned.
    fn run(self, store: &Store, done: u64) -> (u64, Result<(), StoreError>) {
        for number in done + 1..=self.commit_count {
            if let Err(error) = self.commit(store, number) {
                return (number - 1, Err(error));
            }
        }
        (self.commit_count, Ok(()))
    }
}

fn read_all(reader: &StoreReader) -> Result<Model, StoreError> {
    let mut model = Model::new();
    for (number, table) in StoreTable::ALL.into_iter().enumerate() {
        reader.range(table, ALL, Direction::Ascending, |key, value| {
            model.insert((number, key.to_vec()), value.to_vec());
            ControlFlow::Continue(())
        })?;
    }
    Ok(model)
}

fn contents(store: &Store) -> Result<Model, StoreError> {
    read_all(&store.begin_read()?)
}

fn applied(store: &Store) -> Result<u64, StoreError> {
    let value = store.begin_read()?.get(StoreTable::Meta, APPLIED)?;
    Ok(value.map_or(0, |value| u64::from_be_bytes(value.try_into().expect("eight bytes were written"))))
}

/// A disk whose store has run a workload and was left without closing it.
fn worked(workload: Workload) -> SimDisk {
    let disk = disk(workload.seed);
    let (store, _) = open(&disk);
    workload.run(&store, 0).1.expect("no faults are planned");
    let left = disk.crash_with(0, Survival::Nothing);
    drop(store);
    left
}

#[test]
fn what_was_committed_comes_back_in_both_directions_and_in_ranges() {
    let disk = disk(1);
    let (store, origin) = open(&disk);
    assert_eq!(origin, Origin::Fresh);
    SMALL.run(&store, 0).1.expect("no faults are planned");
    let model = SMALL.model(SMALL.commit_count);
    assert_eq!(contents(&store).expect("it is well"), model);
    let reader = store.begin_read().expect("it is well");
    let (from, to) = (50_u64.to_be_bytes(), 300_u64.to_be_bytes());
    let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Excluded(&from), Bound::Included(&to));
    for (number, table) in StoreTable::ALL.into_iter().enumerate().take(5) {
        let mut wanted: Vec<&(usize, Vec<u8>)> =
            model.keys().filter(|(of, key)| *of == number && key[..] > from[..] && key[..] <= to[..]).collect();
        for direction in [Direction::Ascending, Direction::Descending] {
            let mut seen = Vec::new();
            let visit = |key: &[u8], value: &[u8]| {
                assert_eq!(model[&(number, key.to_vec())], value);
                seen.push((number, key.to_vec()));
                if seen.len() == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            reader.range(table, bounds, direction, visit).expect("it is well");
            assert_eq!(seen.iter().collect::<Vec<_>>(), wanted[..wanted.len().min(7)]);
            wanted.reverse();
        }
        for key in 0..400_u64 {
            let value = reader.get(table, &key.to_be_bytes()).expect("it is well");
            assert_eq!(value.as_ref(), model.get(&(number, key.to_be_bytes().to_vec())));
        }
    }
    drop((reader, store));
    let (store, origin) = open(&disk);
    assert_eq!((origin, contents(&store).expect("it is well")), (Origin::Existing, model));
}

#[test]
fn a_range_that_holds_nothing_is_no_error() {
    let disk = disk(1);
    let (store, _) = open(&disk);
    SMALL.run(&store, 0).1.expect("no faults are planned");
    let reader = store.begin_read().expect("it is well");
    let writer = store.begin_write().expect("it is well");
    let mut table = writer.table(StoreTable::Entries).expect("it is well");
    let (low, high): (&[u8], &[u8]) = (&[0], &[9]);
    for bounds in [
        (Bound::Included(high), Bound::Included(low)),
        (Bound::Included(low), Bound::Excluded(low)),
        (Bound::Excluded(low), Bound::Excluded(low)),
        (Bound::Excluded(low), Bound::Included(low)),
    ] {
        let never = |_: &[u8], _: &[u8]| panic!("nothing lies between");
        reader.range(StoreTable::Entries, bounds, Direction::Ascending, never).expect("it is well");
        table.range(bounds, Direction::Descending, never).expect("it is well");
        assert_eq!(table.remove_range(bounds).expect("it is well"), 0);
    }
}

#[test]
fn a_reader_sees_its_commit_while_others_follow_and_an_abandoned_one_leaves_nothing() {
    let disk = disk(1);
    let (store, _) = open(&disk);
    let mut readers = Vec::new();
    for number in 1..=SMALL.commit_count {
        SMALL.commit(&store, number).expect("no faults are planned");
        readers.push(store.begin_read().expect("it is well"));
        let writer = store.begin_write().expect("it is well");
        writer.table(StoreTable::Queues).expect("it is well").put(b"draft", b"never").expect("it is well");
    }
    for (model, reader) in SMALL.models()[1..].iter().zip(&readers) {
        assert_eq!(read_all(reader).expect("it is well"), *model);
    }
}

#[test]
fn transactions_that_outlive_their_store_leave_the_next_one_alone() {
    let disk = disk(1);
    let (store, _) = open(&disk);
    SMALL.commit(&store, 1).expect("no faults are planned");
    let (reader, writer) = (store.begin_read().expect("it is well"), store.begin_write().expect("it is well"));
    SMALL.write(&writer, 2).expect("it is well");
    drop(store);
    let (store, origin) = open(&disk);
    assert_eq!(origin, Origin::Existing);
    let io_count = disk.io_count();
    assert!(matches!(writer.commit(), Err(StoreError::Io { .. })));
    drop(reader);
    assert_eq!(disk.io_count(), io_count, "neither touches the file");
    assert_eq!(contents(&store).expect("it is well"), SMALL.model(1));
}

#[test]
fn the_store_and_its_readers_go_to_any_thread() {
    fn any_thread<T: Send + Sync>() {}
    any_thread::<Store>();
    any_thread::<StoreReader>();
}

#[test]
fn a_writer_reads_what_it_wrote_and_readers_do_not() {
    let disk = disk(1);
    let (store, _) = open(&disk);
    let writer = store.begin_write().expect("it is well");
    let mut table = writer.table(StoreTable::Keys).expect("it is well");
    for key in 0..20_u8 {
        table.put(&[key], &[key; 3]).expect("it is well");
    }
    assert!(table.remove(&[3]).expect("it is well") && !table.remove(&[3]).expect("it is well"));
    assert_eq!(table.remove_range((Bound::Included(&[5]), Bound::Excluded(&[10]))).expect("it is well"), 5);
    assert_eq!(table.get(&[4]).expect("it is well"), Some(vec![4; 3]));
    assert_eq!(table.get(&[5]).expect("it is well"), None);
    let mut seen = Vec::new();
    let visit = |key: &[u8], _: &[u8]| {
        seen.push(key[0]);
        ControlFlow::Continue(())
    };
    table.range((Bound::Unbounded, Bound::Excluded(&[12])), Direction::Descending, visit).expect("it is well");
    assert_eq!(seen, [11, 10, 4, 2, 1, 0]);
    assert_eq!(contents(&store).expect("it is well"), Model::new());
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for workload in [SMALL, SPILLING] {
        let trace = || {
            let disk = disk(7);
            let (store, _) = open(&disk);
            workload.run(&store, 0).1.expect("no faults are planned");
            contents(&store).expect("it is well");
            drop(store);
            contents(&open(&disk).0).expect("it is well");
            (disk.io_count(), disk.trace_hash())
        };
        let first = trace();
        assert!(first.0 > 40, "the database's I/O is numbered: {}", first.0);
        assert_eq!(first, trace());
    }
}

/// Runs a workload until the power fails after `last` I/Os. Answers the disk, whether the store had been made, and the
/// number of its last commit.
fn until_the_power_fails(workload: Workload, last: u64) -> (SimDisk, bool, u64) {
    let disk = disk(workload.seed);
    disk.stop_after(last);
    match open_small(&disk) {
        Ok((store, _)) => {
            let (acked, _) = workload.run(&store, 0);
            (disk, true, acked)
        }
        Err(_) => (disk, false, 0),
    }
}

/// I/Os of a workload up to its last commit.
fn io_count(workload: Workload) -> u64 {
    let disk = disk(workload.seed);
    let (store, _) = open(&disk);
    workload.run(&store, 0).1.expect("no faults are planned");
    disk.io_count()
}

/// Numbers of I/Os after which the power may fail to some effect: before a read it leaves what it leaves before the write
/// that follows.
fn power_failures(workload: Workload) -> Vec<u64> {
    let disk = disk(workload.seed);
    let (store, _) = open(&disk);
    workload.run(&store, 0).1.expect("no faults are planned");
    let numbered = disk.trace().into_iter().filter_map(|line| {
        let (number, what) = line.split_once(' ')?;
        Some((number.parse::<u64>().ok()?, what.starts_with("read")))
    });
    let all: Vec<(u64, bool)> = numbered.collect();
    assert_eq!(to_u64(all.len()), disk.io_count(), "the trace shows every one");
    let before = all.into_iter().filter(|(number, reads)| !reads && *number > 1).map(|(number, _)| number - 1);
    before.chain([disk.io_count()]).collect()
}

/// Cuts the power at every `step`-th I/O that changes something, and looks at what each kind of survival leaves. Answers
/// how many commits were there that had not been answered.
fn sweep(workload: Workload, step: usize, survivals: &[Survival]) -> u64 {
    let models = workload.models();
    let mut advanced = 0;
    for last in power_failures(workload).into_iter().step_by(step) {
        let (disk, was_made, acked) = until_the_power_fails(workload, last);
        for survival in survivals {
            let after = disk.crash_with(last, *survival);
            let (store, origin) = open(&after);
            let found = applied(&store).expect("it is well");
            assert!((acked..=acked + 1).contains(&found), "{last} {survival:?}: {found} after {acked}");
            assert_eq!(contents(&store).expect("it is well"), models[to_usize(found)], "{last} {survival:?}");
            assert!(!was_made || origin == Origin::Existing, "{last} {survival:?}: {origin:?}");
            advanced += found - acked;
            if found < workload.commit_count {
                workload.commit(&store, found + 1).expect("it goes on");
                assert_eq!(contents(&store).expect("it is well"), models[to_usize(found) + 1], "{last} {survival:?}");
            }
        }
    }
    advanced
}

#[test]
fn a_power_failure_leaves_the_last_commit_or_the_one_under_way() {
    let unanswered = sweep(SMALL, 1, &[Survival::Nothing, Survival::Seeded, Survival::Everything]);
    assert!(unanswered > 0, "some power failure came between a commit and its answer");
}

#[test]
fn a_power_failure_leaves_nothing_of_what_a_transaction_wrote_before_it_committed() {
    sweep(SPILLING, 3, &[Survival::Seeded]);
}

#[test]
fn the_power_may_fail_again_while_the_store_is_reopened() {
    let models = SMALL.models();
    for last in (1..io_count(SMALL)).step_by(13) {
        let (disk, was_made, acked) = until_the_power_fails(SMALL, last);
        for again in 0.. {
            let second = disk.crash_with(last, Survival::Seeded);
            second.stop_after(again);
            let mut acked = acked;
            if let Ok((store, _)) = open_small(&second) {
                acked = applied(&store).unwrap_or(acked).max(acked);
                acked = SMALL.run(&store, acked).0;
            }
            if !second.is_dead() {
                break;
            }
            let (store, origin) = open(&second.crash_with(again, Survival::Seeded));
            let found = applied(&store).expect("it is well");
            assert!((acked..=acked + 1).contains(&found), "{last} {again}: {found} after {acked}");
            assert_eq!(contents(&store).expect("it is well"), models[to_usize(found)], "{last} {again}");
            assert!(!was_made || origin == Origin::Existing, "{last} {again}: {origin:?}");
        }
    }
}

#[test]
fn what_a_reopened_store_has_shown_survives_a_power_failure() {
    for last in 1..=io_count(SMALL) {
        let (disk, _, acked) = until_the_power_fails(SMALL, last);
        let killed = disk.kill();
        let (store, _) = open(&killed);
        let shown = contents(&store).expect("it is well");
        assert!(applied(&store).expect("it is well") >= acked);
        let (store, _) = open(&killed.crash_with(last, Survival::Nothing));
        assert_eq!(contents(&store).expect("it is well"), shown, "{last}");
    }
}

#[test]
fn removed_content_makes_room_for_new_content() {
    let disk = disk(1);
    let (store, _) = open(&disk);
    let mut sizes = Vec::new();
    for round in 0..12_u64 {
        let writer = store.begin_write().expect("it is well");
        let mut table = writer.table(StoreTable::Table).expect("it is well");
        for key in 0..2000_u64 {
            table.put(&(round << 32 | key).to_be_bytes(), &[7; 500]).expect("it is well");
        }
        drop(table);
        writer.commit().expect("it is well");
        let writer = store.begin_write().expect("it is well");
        let mut table = writer.table(StoreTable::Table).expect("it is well");
        let end = (round << 32 | 1900).to_be_bytes();
        assert_eq!(
            table.remove_range((Bound::Unbounded, Bound::Excluded(&end))).expect("it is well"),
            1900 + 100 * u64::from(round > 0)
        );
        drop(table);
        writer.commit().expect("it is well");
        sizes.push(store.file_bytes());
    }
    assert!(sizes[11] <= sizes[2], "it stays within what it needed first: {sizes:?}");
}

#[test]
fn reopening_after_a_crash_reads_a_handful_of_pages_however_large_the_store() {
    let reads = |count: u64| {
        let disk = disk(1);
        let (store, _) = open(&disk);
        let writer = store.begin_write().expect("it is well");
        let mut table = writer.table(StoreTable::Entries).expect("it is well");
        for key in 0..count {
            table.put(&key.to_be_bytes(), &[1; 400]).expect("it is well");
        }
        drop(table);
        writer.commit().expect("it is well");
        let after = disk.crash_with(0, Survival::Nothing);
        let (after_store, origin) = open(&after);
        assert_eq!(origin, Origin::Existing);
        (after.count(IoClass::Read), after_store.file_bytes())
    };
    let (few, small) = reads(100);
    let (many, large) = reads(50_000);
    assert!(large > 10 * small, "{small} {large}");
    assert!(many <= few + 10, "{few} reads of {small} bytes, {many} reads of {large}");
}

#[test]
fn readers_do_not_wait_while_a_commit_is_paced() {
    let waits = Arc::new(AtomicBool::new(false));
    let (ask, asked) = mpsc::channel::<bool>();
    let finish = ask.clone();
    let (tell, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let paused = Arc::new(AtomicUsize::new(0));
    let pace: Pace = {
        let (waits, paused) = (Arc::clone(&waits), Arc::clone(&paused));
        Arc::new(move |bytes| {
            assert!(bytes > 0);
            if waits.load(Ordering::Acquire) {
                // The commit stands still until a whole reader has come and gone.
                ask.send(true).expect("the reader lives");
                let told = told.lock().expect("nobody panicked");
                told.recv_timeout(Duration::from_secs(60)).expect("a reader needs nothing that the writer holds");
                paused.fetch_add(1, Ordering::AcqRel);
            }
        })
    };
    let disk = disk(1);
    let (store, _) = Store::open(&disk.backend(), Path::new(DIR), IDENTITY, 0, pace).expect("no faults are planned");
    SPILLING.commit(&store, 1).expect("no faults are planned");
    let model = SPILLING.model(1);
    waits.store(true, Ordering::Release);
    std::thread::scope(|scope| {
        let store = &store;
        scope.spawn(move || {
            while asked.recv().expect("the writer lives") {
                assert_eq!(applied(store).expect("it is well"), 1);
                assert_eq!(contents(store).expect("it is well"), model);
                tell.send(()).expect("the writer waits");
            }
        });
        let committed = SPILLING.commit(store, 2);
        waits.store(false, Ordering::Release);
        committed.expect("no faults are planned");
        finish.send(false).expect("the reader lives");
    });
    assert!(paused.load(Ordering::Acquire) > 10, "the commit was paced");
}

fn on_a_real_disk(backend: &Arc<dyn IoBackend>) {
    let target = std::env::current_exe().expect("a test knows its file");
    let beside = target.parent().expect("it lies in a directory");
    let dir = tempfile::Builder::new().prefix("anchorlog-store-").tempdir_in(beside).expect("a temporary directory");
    let open = || Store::open(backend, dir.path(), IDENTITY, 1 << 20, no_pace()).expect("the disk is well");
    for workload in [SMALL, SPILLING] {
        let (store, origin) = open();
        assert_eq!(origin == Origin::Fresh, workload.seed == SMALL.seed, "{origin:?}");
        let writer = store.begin_write().expect("it is well");
        for table in StoreTable::ALL {
            writer.table(table).expect("it is well").remove_range(ALL).expect("it is well");
        }
        writer.commit().expect("it is well");
        workload.run(&store, 0).1.expect("the disk is well");
        drop(store);
        let (store, origin) = open();
        assert_eq!(origin, Origin::Existing);
        assert_eq!(contents(&store).expect("it is well"), workload.model(workload.commit_count));
    }
}

#[test]
fn a_store_on_a_real_disk_comes_back_with_plain_calls() {
    on_a_real_disk(&(Arc::new(ThreadsBackend::new()) as Arc<dyn IoBackend>));
}

#[test]
fn a_store_on_a_real_disk_comes_back_with_io_uring() {
    match UringBackend::new() {
        Ok(backend) => on_a_real_disk(&(Arc::new(backend) as Arc<dyn IoBackend>)),
        Err(why) => skipped(&format!("a_store_on_a_real_disk_comes_back_with_io_uring: {why}")),
    }
}
