//! The store against a plain map, whatever becomes of its disk.

use std::collections::BTreeMap;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{
    Direction, Origin, Pace, Store, StoreError, StoreIdentity, StoreReader, StoreTable, StoreWriter, TableWriter,
};
use crate::io::sim::{IoClass, SimDisk, Survival, Times};
use crate::io::tests::skipped;
use crate::io::threads::ThreadsBackend;
use crate::io::uring::UringBackend;
use crate::io::{IO_ALIGN, IoBackend};
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

/// Cuts the power at every I/O that changes something, and looks at what each kind of survival leaves.
fn sweep(workload: Workload, survivals: &[Survival]) {
    let models = workload.models();
    let mut advanced = 0;
    for last in power_failures(workload) {
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
    assert!(advanced > 0, "some power failure came between a commit and its answer");
}

#[test]
fn a_power_failure_leaves_the_last_commit_or_the_one_under_way() {
    sweep(SMALL, &[Survival::Nothing, Survival::Seeded, Survival::Everything]);
}

#[test]
fn a_power_failure_leaves_nothing_of_what_a_transaction_wrote_before_it_committed() {
    sweep(SPILLING, &[Survival::Seeded]);
}

#[test]
fn the_power_may_fail_again_while_the_store_is_reopened() {
    let models = SMALL.models();
    for last in (1..io_count(SMALL)).step_by(5) {
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

/// Reads and changes a store over damaged bytes. What it answers is right, or it says that it is damaged.
fn right_or_damaged(disk: &SimDisk, what: &str) -> bool {
    let model = SMALL.model(SMALL.commit_count);
    let (store, origin) = open(disk);
    if let Origin::Rebuilt { .. } = origin {
        assert_eq!(contents(&store).expect("it is new"), Model::new(), "{what}");
        return true;
    }
    let mut found = false;
    for outcome in [contents(&store), SMALL.commit(&store, SMALL.commit_count).and_then(|()| contents(&store))] {
        match outcome {
            Ok(seen) => assert_eq!(seen, model, "{what}"),
            Err(StoreError::Damaged { what: found_what, .. }) => {
                assert!(!found_what.contains("gave up"), "{what}: {found_what}");
                found = true;
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
    assert_eq!(found, store.damage().is_some(), "{what}");
    drop(store);
    let (store, origin) = open(disk);
    if found {
        assert!(matches!(origin, Origin::Rebuilt { .. }), "{what}: {origin:?}");
        assert_eq!(contents(&store).expect("it is new"), Model::new(), "{what}");
    } else {
        assert_eq!((origin, contents(&store).expect("it is well")), (Origin::Existing, model), "{what}");
    }
    found
}

#[test]
fn a_flipped_bit_is_found_or_does_not_matter() {
    let disk = worked(SMALL);
    let blocks = disk.read(&path()).expect("it is there").len() / IO_ALIGN;
    let mut draws = Draws(3);
    let mut found = 0;
    for block in 0..blocks {
        for _ in 0..3 {
            let (at, bit) = (block * IO_ALIGN + draws.below(IO_ALIGN), draws.below(8));
            let bad = disk.crash_with(0, Survival::Everything);
            bad.flip_bit(&path(), to_u64(at), u8::try_from(bit).expect("it is below eight"));
            found += usize::from(right_or_damaged(&bad, &format!("bit {bit} of byte {at}")));
        }
    }
    assert!(found > 20, "most pages in use were hit: {found}");
}

#[test]
fn a_page_that_went_back_or_elsewhere_is_found_or_does_not_matter() {
    let disk = worked(SMALL);
    let bytes = disk.read(&path()).expect("it is there");
    let early = worked(Workload { commit_count: SMALL.commit_count - 1, ..SMALL }).read(&path()).expect("it is there");
    let blocks = bytes.len() / IO_ALIGN;
    let block = |bytes: &[u8], number: usize| bytes[number * IO_ALIGN..][..IO_ALIGN].to_vec();
    let mut found = 0;
    // The head and the checksums of one moment are those of one header: what a lost write could leave is pages.
    for number in 2..blocks.min(early.len() / IO_ALIGN) {
        for (what, old) in [("older", block(&early, number)), ("moved", block(&bytes, 2 + number % (blocks - 2)))] {
            if old != block(&bytes, number) {
                let bad = disk.crash_with(0, Survival::Everything);
                bad.overwrite(&path(), to_u64(number * IO_ALIGN), &old);
                found += usize::from(right_or_damaged(&bad, &format!("{what} block {number}")));
            }
        }
    }
    assert!(found > 20, "most pages in use were hit: {found}");
}

#[test]
fn a_sector_that_cannot_be_read_or_an_end_that_is_missing_makes_a_new_store() {
    for last in [IO_ALIGN, 3 * IO_ALIGN, 20 * IO_ALIGN] {
        let disk = worked(SMALL);
        disk.set_len(&path(), to_u64(last));
        assert!(right_or_damaged(&disk, "shorter"), "{last}");
    }
    let disk = worked(SMALL);
    disk.break_sector(&path(), 0);
    let (_, origin) = open(&disk);
    assert!(matches!(origin, Origin::Rebuilt { .. }), "{origin:?}");
}

#[test]
fn a_store_of_another_log_or_version_is_made_anew() {
    for other in [StoreIdentity { store_id: 9, ..IDENTITY }, StoreIdentity { format_version: 2, ..IDENTITY }] {
        let disk = worked(SMALL);
        let (store, origin) =
            Store::open(&disk.backend(), Path::new(DIR), other, 0, no_pace()).expect("no faults are planned");
        assert!(matches!(origin, Origin::Rebuilt { .. }), "{origin:?}");
        assert_eq!(contents(&store).expect("it is new"), Model::new());
    }
    let disk = worked(SMALL);
    disk.lose(&path());
    assert_eq!(open(&disk).1, Origin::Fresh);
    disk.overwrite(&path(), 0, &[0; IO_ALIGN]);
    assert!(matches!(open(&disk).1, Origin::Rebuilt { .. }));
}

/// Runs a workload to its end on a disk where something fails, opening and beginning again as the errors say. Answers
/// how many errors there were.
fn run_through(disk: &SimDisk, workload: Workload, last_errors: usize) -> usize {
    let models = workload.models();
    let mut errors = 0;
    while errors <= last_errors {
        let Ok((store, _)) = open_small(disk) else {
            errors += 1;
            continue;
        };
        loop {
            let outcome = applied(&store).and_then(|done| {
                assert_eq!(contents(&store)?, models[to_usize(done)]);
                workload.run(&store, done).1?;
                contents(&store)
            });
            match outcome {
                Ok(seen) => {
                    assert_eq!(seen, models[to_usize(workload.commit_count)]);
                    return errors;
                }
                Err(StoreError::Io { .. }) if errors < last_errors => errors += 1,
                Err(_) => {
                    errors += 1;
                    break;
                }
            }
        }
    }
    panic!("the store does not heal");
}

#[test]
fn an_error_of_any_one_io_is_reported_and_then_all_goes_on() {
    for errno in [libc::EIO, libc::ENOSPC] {
        let mut reported = 0;
        for nth in 1..=io_count(SMALL) {
            let disk = disk(1);
            disk.fail(IoClass::Any, 1 + nth, errno, Times::Once);
            reported += run_through(&disk, SMALL, 3);
        }
        assert!(to_u64(reported) > io_count(SMALL) / 2, "{reported}");
    }
}

#[test]
fn a_disk_that_fails_for_long_loses_nothing_that_was_committed() {
    for class in [IoClass::Write, IoClass::Any] {
        for nth in (1..io_count(SMALL)).step_by(3) {
            let disk = disk(1);
            let (store, _) = open(&disk);
            disk.fail(class, disk.count(class) + nth, libc::ENOSPC, Times::Forever);
            let (acked, result) = SMALL.run(&store, 0);
            let Err(error) = result else { continue };
            assert!(SMALL.commit(&store, acked + 1).is_err(), "{error}");
            disk.heal();
            // A flush that failed is never believed later; anything else is.
            if store.damage().is_none() {
                let found = applied(&store).expect("it heals");
                assert!((acked..=acked + 1).contains(&found), "{found} after {acked}");
                assert_eq!(contents(&store).expect("it heals"), SMALL.model(found));
            }
            drop(store);
            run_through(&disk, SMALL, 0);
        }
    }
}

#[test]
fn a_full_disk_refuses_a_commit_and_heals_when_there_is_room() {
    let disk = disk(1);
    let (store, _) = open(&disk);
    SMALL.commit(&store, 1).expect("there is room");
    disk.set_capacity(Some(store.file_bytes() + 600_000));
    let more = Workload { seed: 1, commit_count: 40, change_count: 300, value_bytes_max: 4000 };
    let error = loop {
        let done = applied(&store).expect("reading needs no room");
        if let Err(error) = more.commit(&store, done + 1) {
            break error;
        }
    };
    let StoreError::Io { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull, "{error}");
    let before = contents(&store).expect("reading needs no room");
    let done = applied(&store).expect("reading needs no room");
    more.commit(&store, done + 1).expect_err("there is still no room");
    disk.set_capacity(None);
    assert_eq!(contents(&store).expect("it is well"), before);
    more.commit(&store, done + 1).expect("there is room");
    assert_eq!(applied(&store).expect("it is well"), done + 1);
}

#[test]
fn a_failed_flush_is_damage() {
    let disk = disk(1);
    let (store, _) = open(&disk);
    SMALL.commit(&store, 1).expect("no faults are planned");
    disk.fail(IoClass::Sync, disk.count(IoClass::Sync) + 1, libc::EIO, Times::Once);
    let error = SMALL.commit(&store, 2).expect_err("its flush fails");
    assert!(matches!(&error, StoreError::Damaged { what, .. } if what.contains("flush")), "{error}");
    assert!(store.begin_read().is_err() && store.begin_write().is_err());
    drop(store);
    let (_, origin) = open(&disk);
    assert!(matches!(&origin, Origin::Rebuilt { why } if why.contains("in use")), "{origin:?}");
}

#[test]
fn a_reader_of_the_moment_of_an_error_fails_and_the_next_one_does_not() {
    let disk = disk(1);
    let (store, _) = open(&disk);
    SMALL.run(&store, 0).1.expect("no faults are planned");
    // Nothing is cached after this.
    drop(store);
    let (store, _) = open(&disk);
    let reader = store.begin_read().expect("it is well");
    let writer = store.begin_write().expect("it is well");
    disk.fail(IoClass::Read, disk.count(IoClass::Read) + 1, libc::EIO, Times::Once);
    assert!(matches!(read_all(&reader), Err(StoreError::Io { .. })));
    assert!(matches!(read_all(&reader), Err(StoreError::Io { .. })), "what has failed stays so");
    // The writer holds the failed session; until it ends there is no other.
    assert!(matches!(store.begin_read().map(|_| ()), Err(StoreError::Io { .. })));
    SMALL.write(&writer, 1).ok();
    assert!(matches!(writer.commit(), Err(StoreError::Io { .. })));
    assert_eq!(contents(&store).expect("it is opened anew"), SMALL.model(SMALL.commit_count));
    assert!(matches!(read_all(&reader), Err(StoreError::Io { .. })));
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
