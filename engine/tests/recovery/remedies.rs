//! What a refusal advises is done as it says, and helps.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anchorlog_engine::audit::{self, Item};
use anchorlog_engine::commitlog::manifest::MANIFEST_NAME;
use anchorlog_engine::commitlog::segment::{SegmentHeader, file_name};
use anchorlog_engine::io::sim::SimDisk;
use anchorlog_engine::{Lsn, OpenError, ReadError};

use crate::log::{DATA, DIR, Log, Messages, SEGMENT, image, open, path, segment, sparse};
use crate::repair::{COPY, copy, give_up, mend, opens_with, second, survey, sweep, with_a_survivor};

#[test]
fn a_manifest_of_any_length_is_mended_from_a_copy_and_kept() {
    for len in [0, 1, 30, 4095, 4097, 12_289] {
        let log = Log::new();
        copy(&log);
        log.disk.set_len(&path(MANIFEST_NAME), len);
        let damaged = log.bytes(&path(MANIFEST_NAME));
        assert_eq!(open(&log.disk).unwrap_err().case().unwrap().id, "damaged-manifest", "{len} bytes");
        let report = mend(&log.disk.kill()).unwrap();
        assert!(report.manifest && report.after.is_clean(), "{len} bytes: {report:?}");
        let check = |disk: &SimDisk| {
            let aside = PathBuf::from(format!("{}.damaged", path(MANIFEST_NAME).display()));
            assert!(disk.read(&aside).is_some_and(|bytes| bytes == damaged), "{len} bytes: it is kept");
            opens_with(disk, "a manifest of another length", &log.messages);
        };
        if len == 30 {
            let repair = |disk: &SimDisk| mend(disk).map(drop).map_err(|error| error.to_string());
            sweep(&log.disk, "a manifest of another length", &repair, &check);
        } else {
            mend(&log.disk).map(drop).unwrap();
            check(&log.disk);
        }
    }
}

#[test]
fn a_bit_in_the_manifests_version_is_rot_and_mended_from_a_copy() {
    let log = Log::new();
    copy(&log);
    log.disk.flip_bit(&path(MANIFEST_NAME), 5, 7);
    let report = mend(&log.disk).unwrap();
    assert!(report.manifest && report.after.is_clean(), "{report:?}");
    opens_with(&log.disk, "a rotten version", &log.messages);
}

#[test]
fn what_may_only_be_read_is_looked_at_and_mended_from() {
    let log = Log::checkpointed();
    copy(&log);
    log.disk.protect(Path::new(COPY));
    let frame = second(&log);
    log.disk.flip_bit(&frame.path, frame.offset + 3000, 1);
    let report = mend(&log.disk).unwrap();
    assert!(report.after.is_clean() && report.mended.len() == 1, "{report:?}");
    opens_with(&log.disk, "from a backup that may only be read", &log.messages);

    let log = Log::checkpointed();
    log.disk.protect(Path::new(DIR));
    let before = image(&log.disk);
    let found = survey(&log.disk).unwrap();
    assert!(found.is_clean() && found.checkpoint == Some(found.contents.end), "{:?}", found.damage);
    let mut frames = 0;
    audit::dump(&*log.disk.backend(), Path::new(DIR), Lsn(0), u64::MAX, &mut |item| {
        frames += u64::from(matches!(item, Item::Frame { .. }));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(frames, found.contents.frames.values().sum::<u64>());
    assert!(image(&log.disk) == before);
    // Opening writes, and says what forbids it: nothing is wrong with the disk.
    let error = open(&log.disk).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }) && error.case().is_none(), "{error}");
    assert!(!error.to_string().contains("--cut-from"), "{error}");
}

#[test]
fn what_may_not_be_read_is_no_dead_disk() {
    for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
        let error = OpenError::Io { what: "reading", path: path(MANIFEST_NAME), source: kind.into() };
        assert!(error.case().is_none() && !error.to_string().contains("Remedy"), "{error}");
    }
}

/// What may happen to the file of a segment of which something survives.
fn hurt_survivors(disk: &SimDisk, lsn: Lsn) -> Vec<(&'static str, SimDisk)> {
    let hurt = |name, hurt: &dyn Fn(&SimDisk)| {
        let disk = disk.kill();
        hurt(&disk);
        (name, disk)
    };
    vec![
        hurt("its header", &|disk| disk.flip_bit(&sparse(0), 10, 2)),
        hurt("its length", &|disk| disk.set_len(&sparse(0), SEGMENT - 100)),
        hurt("it is gone", &|disk| disk.lose(&sparse(0))),
        hurt("the message", &|disk| disk.flip_bit(&sparse(0), 4096 + lsn.0 + 40, 1)),
        hurt("a sector of it", &|disk| disk.break_sector(&sparse(0), 4096 + lsn.0 + 40)),
        hurt("its frame's header and its own", &|disk| {
            disk.flip_bit(&sparse(0), 10, 2);
            disk.flip_bit(&sparse(0), 4096 + lsn.0 - 20, 1);
        }),
    ]
}

fn reads_three_anchors(disk: &SimDisk, name: &str, lsn: Lsn) {
    let disk = disk.kill();
    let found = survey(&disk).unwrap();
    assert!(found.is_clean(), "{name}: {:?}", found.damage);
    let engine = open(&disk).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(engine.read(lsn).unwrap().payload(), b"three anchors", "{name}");
    assert_eq!(engine.get(b"txn").unwrap().unwrap().target, Some(lsn), "{name}");
}

#[test]
fn what_survives_below_the_start_is_taken_from_a_copy_whenever_the_power_fails() {
    let (whole, lsn) = with_a_survivor();
    copy(&Log { disk: whole.clone(), messages: Messages::new() });
    for (name, disk) in hurt_survivors(&whole, lsn) {
        let report = mend(&disk.kill()).unwrap();
        assert!(
            report.after.is_clean() && report.refused.is_empty() && !report.mended.is_empty(),
            "{name}: {report:?}"
        );
        // A block, a message, and a file that is replaced.
        if ["its header", "its length", "the message"].contains(&name) {
            let repair = |disk: &SimDisk| mend(disk).map(drop).map_err(|error| error.to_string());
            sweep(&disk, name, &repair, &|disk| reads_three_anchors(disk, name, lsn));
        } else {
            mend(&disk).map(drop).unwrap();
            reads_three_anchors(&disk, name, lsn);
        }
    }
}

#[test]
fn a_header_is_written_anew_without_a_copy_and_loses_nothing() {
    let (whole, lsn) = with_a_survivor();
    let (name, disk) = hurt_survivors(&whole, lsn).remove(0);
    let error = open(&disk).unwrap_err();
    assert_eq!(error.case().unwrap().id, "damaged-segment-header");
    assert!(error.to_string().contains("--give-up LSN") && error.to_string().contains("loses nothing"), "{error}");
    let report = give_up(&disk, Lsn(0)).unwrap();
    assert!(report.lost.is_empty() && report.survivors.is_empty() && report.from == report.to, "{report:?}");
    reads_three_anchors(&disk, name, lsn);

    let log = Log::new();
    log.disk.flip_bit(&segment(1), 12, 3);
    let found = survey(&log.disk).unwrap();
    assert!(found.damage[0].is_header() && found.damage[0].can_be_given_up());
    let report = give_up(&log.disk, Lsn(DATA)).unwrap();
    assert!(report.lost.is_empty() && report.from == report.to, "{report:?}");
    opens_with(&log.disk, "a header", &log.messages);
}

#[test]
fn a_file_of_survivors_is_given_up_by_name_and_what_was_in_it_is_said() {
    let (whole, lsn) = with_a_survivor();
    for (name, disk) in hurt_survivors(&whole, lsn).into_iter().skip(1).take(2) {
        assert!(open(&disk).is_err(), "{name}");
        let report = give_up(&disk, Lsn(0)).unwrap();
        assert_eq!((report.from, report.to, &*report.survivors), (Lsn(0), Lsn(DATA), &[lsn][..]), "{name}");
        assert_eq!(report.aside.len(), usize::from(name == "its length"), "{name}");
        let again = give_up(&disk, Lsn(0)).unwrap();
        assert_eq!((again.to, again.survivors), (report.to, report.survivors), "{name}");
        let engine = open(&disk).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(matches!(engine.read(lsn), Err(ReadError::Damaged { .. })), "{name}");
        assert_eq!(&*engine.get(b"txn").unwrap().unwrap().value, b"half", "{name}: the rest is there");
        engine.close().unwrap();
    }
    // One message in a file that is whole costs itself alone, and is nothing to give up.
    let (name, disk) = hurt_survivors(&whole, lsn).remove(3);
    let error = give_up(&disk, lsn).unwrap_err().to_string();
    assert!(error.contains("opening does not refuse it"), "{name}: {error}");
}

#[test]
fn what_opening_refuses_beside_the_log_is_not_called_whole() {
    type Hurt = fn(&Log);
    let hurts: [(&str, Hurt); 6] = [
        ("wrong-base", |log| log.make_file(&path(&file_name(Lsn(77))), &log.bytes(&segment(1)))),
        ("wrong-length", |log| log.make_file(&path(&file_name(Lsn(DATA + 8))), b"rubbish")),
        ("half-seeded", |log| log.make_file(&path("SEED"), b"")),
        ("promised", |log| log.make_file(&path("PROMISE"), b"rubbish")),
        ("damaged-cut", |log| log.make_file(&path("CUT"), b"rubbish")),
        ("damaged-cut", |log| {
            log.make_file(&path("CUT"), b"rubbish");
            log.disk.set_len(&path("CUT"), 33);
        }),
    ];
    for (id, hurt) in hurts {
        let log = Log::new();
        copy(&log);
        hurt(&log);
        let before = image(&log.disk);
        let found = survey(&log.disk).unwrap();
        assert!(!found.is_clean(), "{id}");
        let error = open(&log.disk).unwrap_err();
        assert_eq!(error.case().unwrap().id, id, "{error}");
        // Nothing that a copy or a cut could mend.
        assert_eq!(found.first_cut(), None, "{id}");
        let report = mend(&log.disk).unwrap();
        assert!(report.mended.is_empty() && !report.after.is_clean(), "{id}: {report:?}");
        assert!(image(&log.disk) == before, "{id}");
        match found.damage.first() {
            Some(stray) => {
                assert!(stray.is_stray() && report.refused[0].1.contains("move it away"), "{id}: {report:?}")
            }
            None => assert_eq!(found.refused.len(), 1, "{id}"),
        }
        // What is in the way is moved away, and that is all.
        for path in ["SEED", "PROMISE", "CUT"].map(path).into_iter().chain(found.damage.into_iter().map(|at| at.path)) {
            if log.disk.read(&path).is_some() {
                log.disk.lose(&path);
            }
        }
        assert!(survey(&log.disk).unwrap().is_clean(), "{id}");
        opens_with(&log.disk, id, &log.messages);
    }
}

#[test]
fn a_file_far_behind_the_end_is_named_at_once() {
    let far = Lsn(u64::MAX / DATA * DATA - DATA);
    for name in [file_name(far), file_name(Lsn(far.0 + 8)), file_name(Lsn(u64::MAX))] {
        let log = Log::new();
        log.make_file(&path(&name), b"rubbish");
        let found = survey(&log.disk).unwrap();
        let places: Vec<_> = found.damage.iter().map(|damage| (damage.path.clone(), damage.is_stray())).collect();
        assert_eq!(places, [(path(&name), true)]);
        assert_eq!(open(&log.disk).unwrap_err().case().unwrap().id, "wrong-length");
    }
    // One that was prepared there is none of that, and goes at the next opening.
    let log = Log::new();
    let (far, mut bytes) = (Lsn(DATA * 100_000), vec![0; usize::try_from(SEGMENT).unwrap()]);
    bytes[..4096].copy_from_slice(&SegmentHeader { base: far, ..log.header(0) }.encode());
    log.make_file(&path(&file_name(far)), &bytes);
    let found = survey(&log.disk).unwrap();
    assert!(found.is_clean() && found.prepared_count > 1, "{:?}", found.damage);
    opens_with(&log.disk, "a prepared file", &log.messages);
}

#[test]
fn the_first_message_of_a_queue_is_said_to_be_lost_and_so_it_is_the_second_time() {
    let log = Log::new();
    let first = log.messages_in(0)[1].clone();
    log.disk.flip_bit(&first.path, first.offset + 3000, 1);
    let report = give_up(&log.disk, first.header.lsn).unwrap();
    let lost: Vec<_> = report.lost.iter().map(|lost| (&*lost.queue, lost.from.0, lost.to.0)).collect();
    assert_eq!(lost, [(&b"queue-1"[..], 0, 1)]);
    let again = give_up(&log.disk, first.header.lsn).unwrap();
    assert_eq!((again.from, again.to, again.lost), (report.from, report.to, report.lost));
    let mut messages = log.messages.clone();
    messages.remove(&("queue-1".to_owned(), 0)).unwrap();
    opens_with(&log.disk, "without its first message", &messages);
}
