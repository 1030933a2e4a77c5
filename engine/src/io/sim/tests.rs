//! One test for each line of the fault model.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{IoClass, MachineDead, SimDisk, Survival, Times};
use crate::io::buffer::AlignedBuf;
use crate::io::{IO_ALIGN, IoBackend, IoCompletion, IoFile, IoOp, IoQueue, OpenMode, Wait};
use crate::units::to_u64;

const DIR: &str = "/log";
const SECTORS: usize = IO_ALIGN / 512;

struct Scene {
    disk: SimDisk,
    backend: Arc<dyn IoBackend>,
    file: Arc<dyn IoFile>,
}

fn path() -> &'static Path {
    Path::new("/log/file")
}

/// A durable file of four blocks of zeros.
fn scene(seed: u64) -> Scene {
    let disk = SimDisk::new(seed);
    let backend = disk.backend();
    backend.create_dir_all(Path::new(DIR)).expect("no faults are planned");
    let file = backend.open(path(), OpenMode::CreateNew).expect("no faults are planned");
    file.allocate(to_u64(4 * IO_ALIGN)).expect("no faults are planned");
    file.sync().expect("no faults are planned");
    backend.sync_dir(Path::new(DIR)).expect("no faults are planned");
    Scene { disk, backend, file }
}

fn block(fill: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(IO_ALIGN);
    buf.fill(fill);
    buf
}

fn write(scene: &Scene, token: u64, fill: u8) -> IoOp {
    IoOp::write(token, Arc::clone(&scene.file), 0, vec![block(fill).into()])
}

fn durable(scene: &Scene, token: u64, fill: u8) -> IoOp {
    IoOp::write_durable(token, Arc::clone(&scene.file), 0, vec![block(fill).into()])
}

fn complete(queue: &mut dyn IoQueue) -> Vec<IoCompletion> {
    let mut out = Vec::new();
    while queue.in_flight() > 0 {
        queue.reap(Wait::One, &mut out);
    }
    out
}

/// The values that the first block's sectors hold.
fn first_block(disk: &SimDisk) -> Vec<u8> {
    let bytes = disk.read(path()).expect("the file is there");
    let sectors = bytes[..IO_ALIGN].chunks(512);
    let values = sectors.map(|sector| {
        assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is whole");
        sector[0]
    });
    values.collect()
}

/// Everything that a crash can leave in the first block, over many seeds.
fn outcomes(disk: &SimDisk) -> BTreeSet<Vec<u8>> {
    (0..200).map(|seed| first_block(&disk.crash(seed))).collect()
}

#[test]
fn a_durable_write_survives_every_crash() {
    let scene = scene(1);
    scene.file.write_at(&block(7), 0, true).expect("no faults are planned");
    assert_eq!(outcomes(&scene.disk), BTreeSet::from([vec![7; SECTORS]]));
    let strict = scene.disk.crash_with(0, Survival::Nothing);
    assert_eq!(first_block(&strict), vec![7; SECTORS]);
}

#[test]
fn a_completed_write_without_a_sync_may_be_lost_kept_or_torn() {
    let scene = scene(2);
    scene.file.write_at(&block(7), 0, false).expect("no faults are planned");
    assert_eq!(first_block(&scene.disk), vec![7; SECTORS], "reads see it");
    let outcomes = outcomes(&scene.disk);
    assert!(outcomes.contains(&vec![0; SECTORS]) && outcomes.contains(&vec![7; SECTORS]));
    assert!(outcomes.len() > 10, "and anything in between: {}", outcomes.len());
    assert_eq!(first_block(&scene.disk.crash_with(0, Survival::Nothing)), vec![0; SECTORS]);
    assert_eq!(first_block(&scene.disk.crash_with(0, Survival::Everything)), vec![7; SECTORS]);
}

#[test]
fn a_write_in_flight_is_torn_at_sectors() {
    let scene = scene(3);
    scene.file.write_at(&block(1), 0, true).expect("no faults are planned");
    let mut queue = scene.backend.queue(1).expect("no faults are planned");
    queue.submit(durable(&scene, 0, 2));
    assert_eq!(first_block(&scene.disk), vec![1; SECTORS], "nothing is seen before it completes");
    let outcomes = outcomes(&scene.disk);
    assert!(outcomes.iter().flatten().all(|value| [1, 2].contains(value)));
    assert!(outcomes.len() > 10);
}

#[test]
fn an_older_version_may_survive_where_the_last_one_is_lost() {
    let scene = scene(4);
    for fill in [1, 2, 3] {
        scene.file.write_at(&block(fill), 0, false).expect("no faults are planned");
    }
    let values: BTreeSet<u8> = outcomes(&scene.disk).into_iter().flatten().collect();
    assert_eq!(values, BTreeSet::from([0, 1, 2, 3]));
}

#[test]
fn a_sync_covers_what_had_completed_before_it_was_submitted_and_no_more() {
    let scene = scene(5);
    let mut queue = scene.backend.queue(2).expect("no faults are planned");
    queue.submit(write(&scene, 0, 1));
    complete(&mut *queue);
    queue.submit(IoOp::sync_data(1, Arc::clone(&scene.file)));
    scene.file.write_at(&block(2), 0, false).expect("no faults are planned");
    complete(&mut *queue);
    let strict = scene.disk.crash_with(0, Survival::Nothing);
    assert_eq!(first_block(&strict), vec![1; SECTORS], "the second write came too late for the sync");
    let values: BTreeSet<u8> = outcomes(&scene.disk).into_iter().flatten().collect();
    assert_eq!(values, BTreeSet::from([1, 2]));
}

#[test]
fn a_write_in_flight_beside_a_sync_is_not_covered() {
    for seed in 0..50 {
        let scene = scene(seed);
        let mut queue = scene.backend.queue(2).expect("no faults are planned");
        queue.submit(write(&scene, 0, 1));
        queue.submit(IoOp::sync_data(1, Arc::clone(&scene.file)));
        complete(&mut *queue);
        assert_eq!(first_block(&scene.disk.crash_with(seed, Survival::Nothing)), vec![0; SECTORS]);
    }
}

#[test]
fn a_late_sync_does_not_undo_a_newer_durable_write() {
    let scene = scene(6);
    scene.file.write_at(&block(1), 0, false).expect("no faults are planned");
    let mut queue = scene.backend.queue(1).expect("no faults are planned");
    queue.submit(IoOp::sync_data(0, Arc::clone(&scene.file)));
    scene.file.write_at(&block(2), 0, true).expect("no faults are planned");
    complete(&mut *queue);
    assert_eq!(first_block(&scene.disk.crash_with(0, Survival::Nothing)), vec![2; SECTORS]);
}

#[test]
fn names_need_a_directory_sync() {
    let scene = scene(7);
    scene.backend.open(Path::new("/log/new"), OpenMode::CreateNew).expect("no faults are planned").sync().expect("ok");
    scene.backend.rename(path(), Path::new("/log/moved")).expect("no faults are planned");
    let lost = scene.disk.crash_with(0, Survival::Nothing);
    assert_eq!(lost.files(), [path()], "neither the creation nor the rename is durable");
    let seen: BTreeSet<usize> = (0..100).map(|seed| scene.disk.crash(seed).files().len()).collect();
    assert_eq!(seen, BTreeSet::from([1, 2]), "a prefix of the changes survives");
    scene.backend.sync_dir(Path::new(DIR)).expect("no faults are planned");
    let kept = scene.disk.crash_with(0, Survival::Nothing);
    assert_eq!(kept.files(), [Path::new("/log/moved"), Path::new("/log/new")]);
}

#[test]
fn a_removed_name_comes_back_unless_its_directory_was_synced() {
    let scene = scene(8);
    scene.backend.remove(path()).expect("no faults are planned");
    assert_eq!(scene.disk.crash_with(0, Survival::Nothing).files(), [path()]);
    scene.backend.sync_dir(Path::new(DIR)).expect("no faults are planned");
    assert!(scene.disk.crash_with(0, Survival::Nothing).files().is_empty());
}

#[test]
fn a_directory_sync_covers_a_rename_between_directories_whole() {
    let scene = scene(9);
    scene.backend.create_dir_all(Path::new("/log/aside")).expect("no faults are planned");
    scene.backend.open(Path::new("/log/new"), OpenMode::CreateNew).expect("no faults are planned");
    scene.backend.rename(Path::new("/log/new"), Path::new("/log/aside/new")).expect("no faults are planned");
    scene.backend.sync_dir(Path::new("/log/aside")).expect("no faults are planned");
    let after = scene.disk.crash_with(0, Survival::Nothing);
    assert_eq!(after.files(), [Path::new("/log/aside/new"), path()]);
}

#[test]
fn a_length_is_durable_after_a_sync_or_below_a_durable_write() {
    let scene = scene(10);
    scene.file.allocate(to_u64(16 * IO_ALIGN)).expect("no faults are planned");
    let length = |disk: &SimDisk| disk.read(path()).map_or(0, |bytes| bytes.len() / IO_ALIGN);
    assert_eq!(length(&scene.disk.crash_with(0, Survival::Nothing)), 4);
    scene.file.write_at(&block(1), to_u64(5 * IO_ALIGN), true).expect("no faults are planned");
    assert_eq!(length(&scene.disk.crash_with(0, Survival::Nothing)), 6);
    scene.file.sync().expect("no faults are planned");
    assert_eq!(length(&scene.disk.crash_with(0, Survival::Nothing)), 16);
    scene.file.allocate(to_u64(IO_ALIGN)).expect("no faults are planned");
    assert_eq!(length(&scene.disk.crash_with(0, Survival::Nothing)), 16);
    scene.file.sync().expect("no faults are planned");
    assert_eq!(length(&scene.disk.crash_with(0, Survival::Nothing)), 1);
}

#[test]
fn the_power_fails_between_any_two_ios() {
    let total = {
        let scene = scene(11);
        scene.file.write_at(&block(1), 0, true).expect("no faults are planned");
        scene.file.write_at(&block(2), 0, true).expect("no faults are planned");
        scene.disk.io_count()
    };
    assert_eq!(total, 7, "directory, file, length, sync, directory sync, two writes");
    for last in total - 2..total {
        let scene = scene(11);
        scene.disk.stop_after(last);
        let mut written = 0;
        let error = [1, 2].into_iter().try_for_each(|fill| {
            scene.file.write_at(&block(fill), 0, true)?;
            written = fill;
            Ok::<(), io::Error>(())
        });
        assert!(MachineDead::is(&error.expect_err("the power fails")));
        assert!(scene.disk.is_dead() && MachineDead::is(&scene.file.len().expect_err("it stays off")));
        assert_eq!(scene.disk.io_count(), last);
        let torn = outcomes(&scene.disk);
        assert!(torn.iter().flatten().all(|value| [written, written + 1].contains(value)), "{torn:?}");
        assert!(torn.contains(&vec![written; SECTORS]));
    }
}

#[test]
fn operations_in_flight_when_the_power_fails_come_back_with_the_error_and_may_be_torn() {
    let scene = scene(12);
    let mut queue = scene.backend.queue(4).expect("no faults are planned");
    queue.submit(durable(&scene, 0, 1));
    scene.disk.stop_after(scene.disk.io_count());
    queue.submit(IoOp::sync_data(1, Arc::clone(&scene.file)));
    let back = complete(&mut *queue);
    assert_eq!(back.len(), 2);
    assert!(back.iter().all(|completion| MachineDead::is(completion.result.as_ref().expect_err("it is dead"))));
    drop(queue);
    assert_eq!(first_block(&scene.disk), vec![0; SECTORS]);
    assert!(outcomes(&scene.disk).len() > 10);
}

#[test]
fn killing_the_process_keeps_live_bytes_and_decides_each_operation_in_flight_whole() {
    let mut seen = BTreeSet::new();
    for seed in 0..40 {
        let scene = scene(seed);
        scene.file.write_at(&block(1), 0, false).expect("no faults are planned");
        let mut queue = scene.backend.queue(1).expect("no faults are planned");
        queue.submit(durable(&scene, 0, 2));
        let after = scene.disk.kill();
        seen.insert(first_block(&after));
        assert_eq!(after.files(), [path()]);
        complete(&mut *queue);
    }
    assert_eq!(seen, BTreeSet::from([vec![1; SECTORS], vec![2; SECTORS]]));
}

#[test]
fn what_a_killed_process_left_unsynced_is_still_at_risk() {
    let scene = scene(13);
    scene.file.write_at(&block(1), 0, false).expect("no faults are planned");
    let after = scene.disk.kill();
    assert_eq!(first_block(&after), vec![1; SECTORS]);
    assert_eq!(first_block(&after.crash_with(0, Survival::Nothing)), vec![0; SECTORS]);
}

#[test]
fn the_nth_io_of_a_class_fails_once_or_for_ever() {
    let scene = scene(14);
    scene.disk.fail(IoClass::Sync, 2, libc::EIO, Times::Once);
    assert_eq!(scene.file.sync().expect_err("it is the second").raw_os_error(), Some(libc::EIO));
    scene.file.sync().expect("the third works");
    let next = scene.disk.io_count() + 2;
    scene.disk.fail(IoClass::Any, next, libc::EIO, Times::Forever);
    scene.file.write_at(&block(1), 0, true).expect("it is not due yet");
    for _ in 0..3 {
        assert!(scene.file.write_at(&block(1), 0, true).is_err());
    }
    assert!(scene.backend.open(path(), OpenMode::Existing).is_err());
    scene.disk.heal();
    scene.file.write_at(&block(1), 0, true).expect("the disk is well again");
}

#[test]
fn a_sync_after_a_failed_one_says_yes_and_saves_nothing() {
    let scene = scene(15);
    scene.file.write_at(&block(1), 0, false).expect("no faults are planned");
    scene.disk.fail(IoClass::Sync, 2, libc::EIO, Times::Once);
    scene.file.sync().expect_err("it is the second");
    scene.file.sync().expect("the kernel has forgotten");
    assert_eq!(first_block(&scene.disk.crash_with(0, Survival::Nothing)), vec![0; SECTORS]);
}

#[test]
fn a_failed_write_may_have_arrived_in_part_but_is_never_durable() {
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let scene = scene(seed);
        scene.disk.fail(IoClass::Write, 2, libc::EIO, Times::Once);
        scene.file.write_at(&block(1), 0, true).expect_err("it is the second, after the allocation");
        seen.insert(first_block(&scene.disk));
        assert_eq!(first_block(&scene.disk.crash_with(seed, Survival::Nothing)), vec![0; SECTORS]);
    }
    assert!(seen.len() > 10);
}

#[test]
fn a_full_disk_refuses_growth_until_something_goes() {
    let scene = scene(16);
    scene.disk.set_capacity(Some(to_u64(6 * IO_ALIGN)));
    let dir = Path::new(DIR);
    assert_eq!(scene.backend.free_bytes(dir).expect("it is alive"), to_u64(2 * IO_ALIGN));
    let other = scene.backend.open(Path::new("/log/other"), OpenMode::CreateNew).expect("names are free");
    let full = other.allocate(to_u64(3 * IO_ALIGN)).expect_err("there is room for two");
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    scene.file.write_at(&block(1), 0, true).expect("what is allocated can be written");
    scene.backend.remove(path()).expect("no faults are planned");
    assert!(other.allocate(to_u64(3 * IO_ALIGN)).is_err(), "an open file keeps its space");
    let Scene { file, .. } = scene;
    drop(file);
    other.allocate(to_u64(3 * IO_ALIGN)).expect("the space came back");
}

#[test]
fn planted_damage_is_read_and_survives() {
    let scene = scene(17);
    scene.disk.flip_bit(path(), 600, 3);
    let mut buf = block(0);
    scene.file.read_at(&mut buf, 0).expect("rot is silent");
    assert_eq!(buf[600], 8);
    scene.disk.break_sector(path(), 1024);
    let error = scene.file.read_at(&mut buf, 0).expect_err("the sector is unreadable");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    let after = scene.disk.crash_with(0, Survival::Nothing);
    assert_eq!(after.read(path()).expect("it is there")[600], 8);
    scene.file.write_at(&block(1), 0, true).expect("writing heals a sector");
    scene.file.read_at(&mut buf, 0).expect("it is whole again");
    scene.disk.set_len(path(), 100);
    assert_eq!(scene.disk.read_durable(path()).expect("it is there").len(), 100);
    scene.disk.lose(path());
    assert!(scene.disk.files().is_empty());
}

#[test]
fn polling_is_never_stuck_and_completes_out_of_order() {
    let mut orders = BTreeSet::new();
    for seed in 0..30 {
        let scene = scene(seed);
        let mut queue = scene.backend.queue(4).expect("no faults are planned");
        for token in 0..4 {
            queue.submit(write(&scene, token, 1));
        }
        let mut out = Vec::new();
        for _ in 0..8 {
            queue.reap(Wait::No, &mut out);
        }
        assert_eq!(queue.in_flight(), 0, "at least every second poll completes something");
        orders.insert(out.iter().map(|completion| completion.op.token).collect::<Vec<u64>>());
    }
    assert!(orders.len() > 5);
}

fn punch(scene: &Scene) {
    scene.file.punch_hole(0, to_u64(IO_ALIGN)).expect("no faults are planned");
}

#[test]
fn a_hole_reads_as_zeros_at_once_and_any_of_it_may_come_back_until_a_sync() {
    let scene = scene(18);
    scene.file.write_at(&block(7), 0, true).expect("no faults are planned");
    punch(&scene);
    assert_eq!(first_block(&scene.disk), vec![0; SECTORS]);
    assert_eq!(first_block(&scene.disk.kill()), vec![0; SECTORS]);
    assert_eq!(first_block(&scene.disk.crash_with(0, Survival::Nothing)), vec![7; SECTORS]);
    let torn = outcomes(&scene.disk);
    assert!(torn.iter().flatten().all(|value| [0, 7].contains(value)) && torn.len() > 10);
    scene.file.sync().expect("no faults are planned");
    assert_eq!(outcomes(&scene.disk), BTreeSet::from([vec![0; SECTORS]]));
}

#[test]
fn a_hole_gives_space_back_and_takes_it_again_when_it_is_written() {
    let scene = scene(19);
    let full = to_u64(4 * IO_ALIGN);
    assert_eq!(scene.disk.used_bytes(), full);
    punch(&scene);
    punch(&scene);
    assert_eq!(scene.disk.used_bytes(), full - to_u64(IO_ALIGN));
    scene.disk.set_capacity(Some(full - to_u64(IO_ALIGN)));
    let error = scene.file.write_at(&block(1), 0, true).expect_err("the hole has no space behind it");
    assert!(crate::io::is_full(&error) && error.kind() == io::ErrorKind::StorageFull);
    scene.file.write_at(&block(1), to_u64(IO_ALIGN), true).expect("what is no hole has its space");
    assert!(scene.file.allocate(full).is_err(), "allocating fills holes");
    scene.disk.set_capacity(Some(full));
    scene.file.write_at(&block(1), 0, true).expect("there is room again");
    assert_eq!(scene.disk.used_bytes(), full);
    scene.disk.set_punches_holes(false);
    let error = scene.file.punch_hole(0, full).expect_err("this disk has no holes");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert_eq!(first_block(&scene.disk), vec![1; SECTORS], "and nothing has changed");
}

#[test]
fn a_hole_that_a_power_failure_filled_again_takes_space() {
    let scene = scene(20);
    scene.file.write_at(&block(7), 0, true).expect("no faults are planned");
    punch(&scene);
    let full = to_u64(4 * IO_ALIGN);
    assert_eq!(scene.disk.crash_with(0, Survival::Nothing).used_bytes(), full);
    scene.file.sync().expect("no faults are planned");
    assert_eq!(scene.disk.crash_with(0, Survival::Nothing).used_bytes(), full - to_u64(IO_ALIGN));
}

#[test]
fn a_failed_write_leaves_its_front_or_any_part_of_it_and_is_never_silent() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let scene = scene(seed);
        scene.disk.fail(IoClass::Write, scene.disk.count(IoClass::Write) + 1, libc::EIO, Times::Once);
        scene.file.write_at(&block(1), 0, true).expect_err("whole or error");
        seen.insert(first_block(&scene.disk));
        assert_eq!(scene.disk.fault_count(), 1);
    }
    for front in 0..=SECTORS {
        let short: Vec<u8> = (0..SECTORS).map(|sector| u8::from(sector < front)).collect();
        assert!(seen.contains(&short), "a write that ends after {front} sectors");
    }
    assert!(seen.len() > 2 * SECTORS, "and others");
}

#[test]
fn a_quota_counts_writes_over_old_bytes_too_and_a_file_may_be_bounded() {
    let scene = scene(21);
    scene.disk.set_quota(Some(to_u64(IO_ALIGN)));
    assert_eq!(scene.backend.free_bytes(Path::new(DIR)).expect("it is alive"), to_u64(IO_ALIGN));
    scene.file.write_at(&block(1), 0, true).expect("that much is left");
    let error = scene.file.write_at(&block(2), 0, true).expect_err("and no more");
    assert_eq!((error.raw_os_error(), crate::io::is_full(&error)), (Some(libc::EDQUOT), true));
    scene.disk.set_quota(None);
    scene.disk.set_file_bytes_max(Some(to_u64(4 * IO_ALIGN)));
    scene.file.write_at(&block(3), to_u64(3 * IO_ALIGN), true).expect("within the bound");
    for error in [
        scene.file.write_at(&block(3), to_u64(4 * IO_ALIGN), true).expect_err("beyond it"),
        scene.file.allocate(to_u64(5 * IO_ALIGN)).expect_err("beyond it"),
    ] {
        assert_eq!((error.raw_os_error(), crate::io::is_full(&error)), (Some(libc::EFBIG), true));
    }
    assert!(!crate::io::is_full(&io::Error::from_raw_os_error(libc::EIO)));
}

#[test]
fn an_operation_stalls_until_its_queue_was_looked_at_often_enough_while_others_pass_it() {
    for seed in 0..20 {
        let scene = scene(seed);
        scene.disk.stall(IoClass::Write, scene.disk.count(IoClass::Write) + 1, 6, Times::Once);
        let mut queue = scene.backend.queue(2).expect("no faults are planned");
        queue.submit(durable(&scene, 0, 1));
        queue.submit(IoOp::read(1, Arc::clone(&scene.file), to_u64(IO_ALIGN), block(0)));
        let mut out = Vec::new();
        for _ in 0..5 {
            queue.reap(Wait::No, &mut out);
        }
        assert_eq!(out.iter().map(|done| done.op.token).collect::<Vec<u64>>(), [1], "the read is not held up");
        for _ in 0..2 {
            queue.reap(Wait::No, &mut out);
        }
        assert_eq!(out.len(), 2);
        assert_eq!(first_block(&scene.disk), vec![1; SECTORS]);
    }
}

#[test]
fn a_held_disk_completes_nothing_until_it_is_released_or_somebody_waits() {
    let scene = scene(22);
    let mut queue = scene.backend.queue(1).expect("no faults are planned");
    let mut out = Vec::new();
    for release in [true, false] {
        scene.disk.hold(true);
        queue.submit(durable(&scene, 0, 1));
        for _ in 0..50 {
            queue.reap(Wait::No, &mut out);
        }
        assert!(out.is_empty() && scene.disk.is_held());
        if release {
            scene.disk.hold(false);
            (0..2).for_each(|_| queue.reap(Wait::No, &mut out));
        } else {
            queue.reap(Wait::One, &mut out);
        }
        assert_eq!(out.drain(..).count(), 1);
        assert!(!scene.disk.is_held());
    }
}

#[test]
fn identities_differ_between_disks_and_calls_and_come_back_with_the_seed() {
    let identities = |seed| {
        let backend = SimDisk::new(seed).backend();
        [backend.new_identity(), backend.new_identity()]
    };
    assert_eq!(identities(1), identities(1));
    let all: BTreeSet<u128> = (0..20).flat_map(identities).collect();
    assert_eq!(all.len(), 40);
}

/// Some work with everything in it.
fn work(seed: u64) -> (Vec<String>, u64) {
    let scene = scene(seed);
    let mut queue = scene.backend.queue(4).expect("no faults are planned");
    let mut out = Vec::new();
    for token in 0..40 {
        while queue.in_flight() >= 4 {
            queue.reap(Wait::No, &mut out);
        }
        queue.submit(match token % 4 {
            0 => write(&scene, token, 1),
            1 => durable(&scene, token, 2),
            2 => IoOp::read(token, Arc::clone(&scene.file), 0, block(0)),
            _ => IoOp::sync_data(token, Arc::clone(&scene.file)),
        });
        if token % 16 == 5 {
            scene.file.punch_hole(to_u64(IO_ALIGN), to_u64(IO_ALIGN)).expect("no faults are planned");
        }
    }
    drop(queue);
    let survivor = scene.disk.crash(seed).read(path());
    let mut trace = scene.disk.trace();
    trace.push(format!("{:08x}", crc32fast::hash(&survivor.expect("it is there"))));
    (trace, scene.disk.trace_hash())
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_one_does_not() {
    assert_eq!(work(99), work(99));
    let hashes: BTreeSet<u64> = (0..20).map(|seed| work(seed).1).collect();
    assert_eq!(hashes.len(), 20);
}
