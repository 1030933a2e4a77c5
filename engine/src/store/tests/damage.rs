//! Rot, foreign files and refused I/O: found, reported and got over, never other data.

use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::super::{Origin, Store, StoreError, StoreIdentity};
use super::{
    DIR, Draws, IDENTITY, Model, SMALL, Workload, applied, contents, disk, io_count, no_pace, open, open_small, path,
    read_all, worked,
};
use crate::io::IO_ALIGN;
use crate::io::sim::{IoClass, SimDisk, Survival, Times};
use crate::units::{to_u64, to_usize};

const EIO: i32 = Errno::EIO as i32;
const ENOSPC: i32 = Errno::ENOSPC as i32;

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
    for errno in [EIO, ENOSPC] {
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
            disk.fail(class, disk.count(class) + nth, ENOSPC, Times::Forever);
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
    disk.fail(IoClass::Sync, disk.count(IoClass::Sync) + 1, EIO, Times::Once);
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
    disk.fail(IoClass::Read, disk.count(IoClass::Read) + 1, EIO, Times::Once);
    assert!(matches!(read_all(&reader), Err(StoreError::Io { .. })));
    assert!(matches!(read_all(&reader), Err(StoreError::Io { .. })), "what has failed stays so");
    // The writer holds the failed session; until it ends there is no other.
    assert!(matches!(store.begin_read().map(|_| ()), Err(StoreError::Io { .. })));
    SMALL.write(&writer, 1).ok();
    assert!(matches!(writer.commit(), Err(StoreError::Io { .. })));
    assert_eq!(contents(&store).expect("it is opened anew"), SMALL.model(SMALL.commit_count));
    assert!(matches!(read_all(&reader), Err(StoreError::Io { .. })));
}
