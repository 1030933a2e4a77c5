//! Damage is found, all of it; mending from a copy and giving up what lies behind end whole, whenever the power fails.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::audit::{self, Item, MendReport, RepairError};
use anchorlog_engine::clock::SimClock;
use anchorlog_engine::commitlog::manifest::MANIFEST_NAME;
use anchorlog_engine::commitlog::record::RecordKind;
use anchorlog_engine::commitlog::segment::{SegmentHeader, file_name};
use anchorlog_engine::io::AlignedBuf;
use anchorlog_engine::io::OpenMode;
use anchorlog_engine::io::sim::{SimDisk, Survival};
use anchorlog_engine::{Append, Engine, Fetch, Link, Lsn, OpenError, Put, QueueOffset, ReadError, WriteBatch};

use crate::log::{
    DATA, DERIVED, DIR, Log, Messages, Placed, SEGMENT, append, contents, image, open, options, path, segment, sparse,
};

pub(crate) const COPY: &str = "/copy";

/// Copies the log's directory to [`COPY`].
pub(crate) fn copy(log: &Log) {
    let backend = log.disk.backend();
    backend.create_dir_all(Path::new(COPY)).unwrap();
    for (path, bytes) in image(&log.disk) {
        let file = backend.open(&Path::new(COPY).join(path.file_name().unwrap()), OpenMode::CreateNew).unwrap();
        let buf = AlignedBuf::padded(&bytes);
        file.allocate(u64::try_from(buf.len()).unwrap()).unwrap();
        file.write_at(&buf, 0, true).unwrap();
        file.sync().unwrap();
    }
    backend.sync_dir(Path::new(COPY)).unwrap();
}

pub(crate) fn survey(disk: &SimDisk) -> Result<audit::Survey, OpenError> {
    audit::survey(&*disk.backend(), Path::new(DIR))
}

pub(crate) fn mend(disk: &SimDisk) -> Result<MendReport, RepairError> {
    audit::mend_from_copy(&*disk.backend(), Path::new(DIR), Path::new(COPY))
}

/// One way to hurt a log, and where it shows first.
struct Hurt {
    name: &'static str,
    hurt: fn(&Log),
    at: fn(&Log) -> Lsn,
}

pub(crate) fn second(log: &Log) -> Placed {
    log.messages_in(1)[1].clone()
}

/// Everything that can happen to segments.
fn hurts() -> Vec<Hurt> {
    vec![
        Hurt {
            name: "a header",
            hurt: |log| log.disk.flip_bit(&second(log).path, second(log).offset + 33, 1),
            at: |log| second(log).header.lsn,
        },
        Hurt {
            name: "a record",
            hurt: |log| log.disk.flip_bit(&second(log).path, second(log).offset + 3000, 1),
            at: |log| second(log).header.lsn,
        },
        Hurt {
            name: "three frames in a row, and one elsewhere",
            hurt: |log| {
                let (frame, last) = (second(log), log.messages_in(2).pop().unwrap());
                log.disk.overwrite(&frame.path, frame.offset, &[0x5A; 15_000]);
                log.disk.flip_bit(&last.path, last.offset + 5000, 7);
            },
            at: |log| second(log).header.lsn,
        },
        Hurt { name: "the first frame", hurt: |log| log.disk.flip_bit(&segment(0), 4096 + 10, 0), at: |_| Lsn(0) },
        Hurt {
            name: "a segment's end and the next one's beginning",
            hurt: |log| {
                let frame = log.messages_in(0).pop().unwrap();
                let len = usize::try_from(SEGMENT - frame.offset).unwrap();
                log.disk.overwrite(&frame.path, frame.offset, &vec![0; len]);
                log.disk.overwrite(&segment(1), 4096, &[0xFF; 9000]);
            },
            at: |log| log.messages_in(0).pop().unwrap().header.lsn,
        },
        Hurt {
            name: "a sector",
            hurt: |log| log.disk.break_sector(&second(log).path, second(log).offset + 2000),
            at: |log| second(log).header.lsn,
        },
        Hurt { name: "a missing segment", hurt: |log| log.disk.lose(&segment(1)), at: |_| Lsn(DATA) },
        Hurt {
            name: "a segment of half its length",
            hurt: |log| log.disk.set_len(&segment(1), SEGMENT / 2),
            at: |_| Lsn(DATA),
        },
        Hurt { name: "a segment header", hurt: |log| log.disk.flip_bit(&segment(1), 12, 3), at: |_| Lsn(DATA) },
        Hurt {
            name: "another log's segment",
            hurt: |log| {
                let header = SegmentHeader { store_id: 1, ..log.header(1) };
                log.disk.overwrite(&segment(1), 0, &header.encode());
            },
            at: |_| Lsn(DATA),
        },
        Hurt {
            name: "everything behind the newest run's beginning",
            hurt: |log| {
                let run = log.manifest().history.last().unwrap().first_lsn;
                let before = log.frames().into_iter().rfind(|frame| frame.header.lsn < run).unwrap();
                let len = usize::try_from(SEGMENT - before.offset).unwrap();
                log.disk.overwrite(&before.path, before.offset, &vec![0; len]);
                log.disk.lose(&segment(2));
            },
            at: |log| {
                let run = log.manifest().history.last().unwrap().first_lsn;
                log.frames().into_iter().rfind(|frame| frame.header.lsn < run).unwrap().header.lsn
            },
        },
    ]
}

#[test]
fn a_whole_log_is_called_clean_and_its_contents_are_counted() {
    let log = Log::new();
    let before = image(&log.disk);
    let survey = survey(&log.disk).unwrap();
    assert!(survey.is_clean() && !survey.is_moving && survey.torn_bytes == 0, "{:?}", survey.damage);
    let frames = log.frames();
    let last = frames.last().unwrap();
    assert_eq!(survey.contents.end, last.header.lsn.plus(u64::from(last.header.frame_len)));
    assert_eq!(survey.contents.frames.values().sum::<u64>(), u64::try_from(frames.len()).unwrap());
    assert_eq!(survey.contents.records[RecordKind::Append.name()], u64::try_from(log.messages.len()).unwrap());
    let queue = &survey.contents.queues[&(b"queue-0".to_vec(), 0)];
    assert_eq!((queue.min, queue.next, queue.messages), (Some(QueueOffset(0)), QueueOffset(12), 12));
    assert_eq!(survey.contents.segments.keys().copied().collect::<Vec<_>>(), [Lsn(0), Lsn(DATA), Lsn(2 * DATA)]);
    assert!(survey.prepared_count > 0);
    assert!(image(&log.disk) == before, "looking changes nothing");
}

#[test]
fn every_damaged_place_is_found_and_opening_agrees() {
    for Hurt { name, hurt, at } in hurts() {
        let log = Log::new();
        let lsn = at(&log);
        hurt(&log);
        let before = image(&log.disk);
        let survey = survey(&log.disk).unwrap();
        assert_eq!(survey.damage.first().map(|damage| damage.lsn), Some(lsn), "{name}: {:?}", survey.damage);
        assert!(open(&log.disk).is_err(), "{name}");
        assert!(image(&log.disk) == before, "{name}: looking changes nothing");
    }
    let log = Log::new();
    (hurts()[2].hurt)(&log);
    let damage = survey(&log.disk).unwrap().damage;
    let places: Vec<_> = damage.iter().map(|damage| (damage.lsn, damage.resumes)).collect();
    let frames = Log::new();
    let (one, two) = (frames.messages_in(1)[1].header.lsn, frames.messages_in(1)[4].header.lsn);
    let last = frames.messages_in(2).pop().unwrap().header;
    assert_eq!(places, [(one, Some(two)), (last.lsn, Some(last.lsn.plus(u64::from(last.frame_len))))]);
}

#[test]
fn a_bit_anywhere_is_judged_as_opening_judges_it() {
    let log = Log::new();
    let mut refused = 0;
    for number in 0..3 {
        for at in (0..SEGMENT).step_by(613) {
            let disk = log.disk.kill();
            disk.flip_bit(&segment(number), at, 5);
            let survey = survey(&disk).unwrap();
            match open(&disk) {
                Ok(engine) => {
                    assert!(survey.is_clean(), "segment {number} at {at}: {:?}", survey.damage);
                    assert_eq!(contents(&engine), log.messages);
                }
                Err(error) => {
                    let text = error.to_string();
                    let first = &survey.damage[0];
                    assert!(
                        text.contains(&first.path.display().to_string()),
                        "segment {number} at {at}: {text}: {first:?}"
                    );
                    assert!(text.contains(&first.trouble.found), "segment {number} at {at}: {text}: {first:?}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 150, "only {refused} were refused");
}

#[test]
fn behind_a_checkpoint_opening_refuses_nothing_that_is_not_found() {
    let log = Log::checkpointed();
    let (mut refused, mut unread) = (0, 0);
    for number in 0..3 {
        for at in (0..SEGMENT).step_by(1777) {
            let disk = log.disk.kill();
            disk.flip_bit(&segment(number), at, 5);
            let survey = survey(&disk).unwrap();
            match open(&disk) {
                // What lies before the segment with the checkpoint's end is left to readers and to the scrubber.
                Ok(_) if number < 2 => unread += usize::from(!survey.is_clean()),
                Ok(engine) => {
                    assert!(survey.is_clean(), "segment {number} at {at}: {:?}", survey.damage);
                    assert!(contents(&engine) == log.messages);
                }
                Err(error) => {
                    let (text, first) = (error.to_string(), &survey.damage[0]);
                    assert!(text.contains(&first.trouble.found), "segment {number} at {at}: {text}: {first:?}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 10 && unread > 50, "{refused} were refused, {unread} not read");
}

#[test]
fn every_kind_of_record_and_file_is_known() {
    let disk = SimDisk::new(5);
    let clock = Arc::new(SimClock::default());
    let engine = Engine::open_with(disk.backend(), clock, Path::new(DIR), options()).unwrap();
    let (half, orders) = (engine.queue(b"half").unwrap(), engine.queue(b"orders").unwrap());
    let mut batch = WriteBatch::new();
    let append = Append { queue: &half, tag: 7, keys: &[b"k"], attributes: b"", payload: &[b"three anchors"] };
    let target = batch.append(&append).unwrap().into();
    batch.link(&Link { queue: &orders, target, tag: 7, keys: &[], attributes: b"" }).unwrap();
    batch.put(&Put { key: b"txn", value: b"done", target: Some(target) }).unwrap();
    batch.delete(b"due").unwrap();
    batch.drop_queue(&half).unwrap();
    engine.try_append(&mut batch).map(drop).unwrap();
    engine.step();
    append_again(&engine);
    engine.close().unwrap();
    for name in [DERIVED, "RESERVE"] {
        assert!(disk.read(&path(name)).is_some(), "{name} is there");
    }

    let survey = survey(&disk).unwrap();
    assert!(survey.is_clean() && survey.torn_bytes == 0, "{:?}", survey.damage);
    assert_eq!(survey.checkpoint, Some(survey.contents.end));
    for kind in ["link", "put", "delete", "drop queue"] {
        assert_eq!(survey.contents.records[kind], 1, "{kind}");
    }
    let queue = |name: &[u8], incarnation: u32| {
        let queue = &survey.contents.queues[&(name.to_vec(), incarnation)];
        (queue.min.unwrap().0, queue.next.0, queue.messages, queue.is_dropped)
    };
    assert_eq!(queue(b"half", 0), (0, 1, 1, true));
    assert_eq!(queue(b"half", 1), (0, 1, 1, false));
    assert_eq!(queue(b"orders", 0), (0, 1, 1, false));
    let mut targets = Vec::new();
    audit::dump(&*disk.backend(), Path::new(DIR), Lsn(0), u64::MAX, &mut |item| {
        if let Item::Record { lsn, record, .. } = item {
            targets.extend(match record.kind {
                RecordKind::Append => Some(lsn),
                _ => record.target(lsn),
            });
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(
        targets.len() == 4 && targets[..3] == [targets[0]; 3],
        "append, link and put name one message: {targets:?}"
    );
}

/// A log of which the first segment is released, but for one message of "half" in it.
pub(crate) fn with_a_survivor() -> (SimDisk, Lsn) {
    let disk = SimDisk::new(6);
    let clock = Arc::new(SimClock::default());
    let engine = Engine::open_with(disk.backend(), Arc::<SimClock>::clone(&clock), Path::new(DIR), options()).unwrap();
    let queue = engine.queue(b"half").unwrap();
    let mut batch = WriteBatch::new();
    let append = Append { queue: &queue, tag: 7, keys: &[], attributes: b"", payload: &[b"three anchors"] };
    let target = batch.append(&append).unwrap().into();
    batch.put(&Put { key: b"txn", value: b"half", target: Some(target) }).unwrap();
    engine.try_append(&mut batch).map(drop).unwrap();
    let lsn = batch_lsn(&engine);
    for _ in 0..40 {
        append_more(&engine);
    }
    engine.release(engine.watermarks().acked).map(drop).unwrap();
    for _ in 0..600 {
        engine.step();
        clock.advance(Duration::from_millis(5));
    }
    assert!(engine.watermarks().start > Lsn(0), "{:?}", engine.retention());
    assert_eq!(engine.read(lsn).unwrap().payload(), b"three anchors");
    engine.close().unwrap();
    (disk, lsn)
}

#[test]
fn what_survives_below_the_start_is_looked_at_too() {
    let (disk, lsn) = with_a_survivor();
    let found = survey(&disk).unwrap();
    assert!(found.is_clean(), "{:?}", found.damage);
    assert_eq!(found.contents.survivors.into_iter().collect::<Vec<_>>(), [(Lsn(0), 1)]);

    let rotten = disk.kill();
    rotten.flip_bit(&sparse(0), 4096 + lsn.0 + 40, 1);
    let missing = disk.kill();
    missing.lose(&sparse(0));
    for (disk, at) in [(rotten, lsn), (missing, Lsn(0))] {
        let found = survey(&disk).unwrap();
        assert_eq!(
            found.damage.iter().map(|damage| (&*damage.path, damage.lsn)).collect::<Vec<_>>(),
            [(&*sparse(0), at)]
        );
        assert_eq!(found.first_cut(), None);
        let before = image(&disk);
        let error = audit::cut_from(&*disk.backend(), Path::new(DIR), at).unwrap_err().to_string();
        assert!(error.contains("nothing is damaged at") && error.contains(&format!("--give-up {at}")), "{error}");
        // A copy that lacks the same.
        copy(&Log { disk: disk.clone(), messages: Messages::new() });
        let report = mend(&disk).unwrap();
        assert!(report.mended.is_empty() && report.refused[0].1.contains("the copy"), "{report:?}");
        assert!(before.iter().all(|(path, bytes)| disk.read(path).as_ref() == Some(bytes)), "nothing was changed");
        // What cannot be read costs that message alone; a file that is gone may cost more than is known.
        match open(&disk) {
            Ok(engine) => assert!(at == lsn && matches!(engine.read(lsn), Err(ReadError::Damaged { .. }))),
            Err(error) => assert_eq!((error.case().unwrap().id, at), ("missing-segment", Lsn(0)), "{error}"),
        }
    }
}

/// Where the first message of "half" begins.
fn batch_lsn(engine: &Engine) -> Lsn {
    while engine.watermarks().acked < engine.watermarks().assigned {
        engine.step();
    }
    let queue = engine.queue(b"half").unwrap();
    engine.fetch(&Fetch::new(&queue, QueueOffset(0))).unwrap().messages[0].lsn
}

fn append_more(engine: &Engine) {
    append(engine, "filler", &[7; 3000], &mut Messages::new());
    engine.step();
}

/// A message of the second queue that has the name.
fn append_again(engine: &Engine) {
    append(engine, "half", b"of another life", &mut Messages::new());
    engine.step();
}

#[test]
fn what_only_a_checkpoint_covers_is_mended_or_given_up() {
    let whole = Log::checkpointed();
    copy(&whole);
    let messages = whole.messages.clone();
    let (log, lsn) = whole.without_last_message();
    let found = survey(&log.disk).unwrap();
    assert_eq!(found.damage.iter().map(|damage| damage.lsn).collect::<Vec<_>>(), [lsn]);
    assert!(found.checkpoint.unwrap() > lsn);

    let repair = |disk: &SimDisk| {
        let report = mend(disk).map_err(|error| error.to_string())?;
        if report.after.is_clean() { Ok(()) } else { Err(format!("{report:?}")) }
    };
    sweep(&log.disk, "from a copy", &repair, &|disk| opens_with(disk, "from a copy", &messages));

    let cut = |disk: &SimDisk| audit::cut_from(&*disk.backend(), Path::new(DIR), lsn);
    assert_eq!(cut(&log.disk.kill()).unwrap().known_end, found.checkpoint.unwrap());
    sweep(&log.disk, "given up", &|disk| cut(disk).map(drop).map_err(|error| error.to_string()), &|disk| {
        assert!(disk.read(&path(DERIVED)).is_none(), "what was given up is in no checkpoint");
        opens_with(disk, "given up", &log.messages);
    });
}

#[test]
fn a_mend_that_leaves_the_log_short_keeps_the_witness_and_any_other_drops_the_store() {
    let (log, lsn) = Log::checkpointed().without_last_message();
    copy(&log);
    let frame = second(&log);
    log.disk.flip_bit(&frame.path, frame.offset + 3000, 1);
    let report = mend(&log.disk).unwrap();
    assert_eq!(report.mended.len(), 1);
    assert_eq!(report.after.damage.iter().map(|damage| damage.lsn).collect::<Vec<_>>(), [lsn]);
    assert_eq!(open(&log.disk).unwrap_err().case().unwrap().id, "checkpoint-beyond-end");

    let log = Log::checkpointed();
    copy(&log);
    assert!(mend(&log.disk).unwrap().mended.is_empty());
    assert!(log.disk.read(&path(DERIVED)).is_some(), "nothing was mended");
    let frame = second(&log);
    log.disk.flip_bit(&frame.path, frame.offset + 3000, 1);
    assert!(mend(&log.disk).unwrap().after.is_clean());
    assert!(log.disk.read(&path(DERIVED)).is_none());
    opens_with(&log.disk, "made anew", &log.messages);
}

#[test]
fn a_log_that_is_being_written_is_read_beside_its_writer() {
    let mut log = Log::new();
    let engine = open(&log.disk).unwrap();
    append(&engine, "queue-0", &[b'z'; 2000], &mut log.messages);
    for _ in 0..20 {
        engine.step();
    }
    let survey = survey(&log.disk).unwrap();
    assert!(survey.is_clean(), "{:?}", survey.damage);
    assert_eq!(survey.contents.queues[&(b"queue-0".to_vec(), 0)].next, QueueOffset(13));
    assert!(matches!(mend_error(&log.disk), RepairError::Open(OpenError::Locked { .. })));
    drop(engine);
}

fn mend_error(disk: &SimDisk) -> RepairError {
    audit::cut_from(&*disk.backend(), Path::new(DIR), Lsn(0)).unwrap_err()
}

#[test]
fn a_torn_tail_is_no_damage_and_a_dump_does_not_show_it() {
    let log = Log::new();
    let (placed, mut bytes) = log.forge(|_, _, _| {});
    bytes.truncate(1000);
    let lsn = placed.header.lsn;
    log.disk.overwrite(&placed.path, placed.offset, &bytes);
    let survey = survey(&log.disk).unwrap();
    assert!(survey.is_clean() && survey.contents.end == lsn, "{:?}", survey.damage);
    let mut last = Lsn(0);
    audit::dump(&*log.disk.backend(), Path::new(DIR), Lsn(0), u64::MAX, &mut |item| {
        match item {
            Item::Frame { header } => last = header.lsn,
            Item::Record { .. } => {}
            item => panic!("{item:?}"),
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(last < lsn);
}

#[test]
fn a_dump_begins_and_ends_where_it_is_told_and_shows_what_is_broken() {
    let log = Log::new();
    let (from, broken) = (log.messages_in(0)[1].clone(), log.messages_in(0)[3].clone());
    let first = from.header.lsn;
    log.disk.flip_bit(&broken.path, broken.offset + 1, 0);
    let mut seen = Vec::new();
    audit::dump(&*log.disk.backend(), Path::new(DIR), from.header.lsn, 3, &mut |item| {
        seen.push(match item {
            Item::Frame { header } => (header.lsn, "frame"),
            Item::Record { lsn, record, .. } => {
                assert_eq!(record.payload.len(), 6000);
                (lsn, record.kind.name())
            }
            Item::Broken { lsn, .. } => (lsn, "broken"),
            _ => unreachable!(),
        });
        ControlFlow::Continue(())
    })
    .unwrap();
    let at = |number: u64| first.plus(number * u64::from(from.header.frame_len));
    let expected = [
        (at(0), "frame"),
        (at(0).plus(80), "append"),
        (at(1), "frame"),
        (at(1).plus(80), "append"),
        (at(2), "broken"),
        (at(3), "frame"),
        (at(3).plus(80), "append"),
    ];
    assert_eq!(seen, expected);
}

/// Runs a repair to its end with the power failing after each I/O; whatever survives, the same call then ends well.
pub(crate) fn sweep(
    disk: &SimDisk,
    name: &str,
    repair: &dyn Fn(&SimDisk) -> Result<(), String>,
    check: &dyn Fn(&SimDisk),
) {
    let mut count = 0;
    loop {
        let dying = disk.kill();
        dying.stop_after(dying.io_count() + count);
        let outcome = repair(&dying);
        if !dying.is_dead() {
            outcome.unwrap_or_else(|what| panic!("{name}: {what}"));
            check(&dying);
            break;
        }
        let survival = [Survival::Nothing, Survival::Seeded, Survival::Everything][usize::try_from(count % 3).unwrap()];
        let left = dying.crash_with(count, survival);
        repair(&left).unwrap_or_else(|what| panic!("{name}: stopped after I/O {count}, {survival:?}: {what}"));
        // What a finished repair left survives.
        check(&left.crash_with(count, Survival::Nothing));
        // What comes late is many writes of the same kind.
        count += 1 + count / 40;
    }
    assert!(count > 10, "{name}: the sweep met {count} I/Os");
}

pub(crate) fn opens_with(disk: &SimDisk, name: &str, messages: &Messages) {
    let engine = open(&disk.kill()).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(contents(&engine) == *messages, "{name}: the messages are not those that must be there");
    assert_eq!(engine.info().recovery_cut_bytes, 0, "{name}");
}

pub(crate) fn give_up(disk: &SimDisk, lsn: Lsn) -> Result<audit::GiveUpReport, RepairError> {
    audit::give_up(&*disk.backend(), Path::new(DIR), lsn)
}

/// Gives up one damaged range after the other; what is lost, by queue and offset.
fn give_up_all(disk: &SimDisk) -> Result<BTreeSet<(String, u64)>, String> {
    let mut lost = BTreeSet::new();
    for _ in 0..10 {
        let found = survey(disk).map_err(|error| error.to_string())?;
        let Some(lsn) = found.first_cut() else { return Ok(lost) };
        for range in give_up(disk, lsn).map_err(|error| error.to_string())?.lost {
            let name = String::from_utf8(range.queue).unwrap();
            lost.extend((range.from.0..range.to.0).map(|offset| (name.clone(), offset)));
        }
    }
    Err("there is no end to it".to_owned())
}

#[test]
fn a_range_that_is_given_up_costs_what_is_in_it_whenever_the_power_fails() {
    for Hurt { name, hurt, at } in hurts() {
        let log = Log::new();
        let first = at(&log);
        hurt(&log);
        if name == "everything behind the newest run's beginning" {
            assert!(matches!(give_up(&log.disk, first), Err(RepairError::NotGivenUp { .. })), "nothing follows");
            continue;
        }
        let lost = give_up_all(&log.disk.kill()).unwrap_or_else(|what| panic!("{name}: {what}"));
        match name {
            "a header" | "a record" | "a sector" => assert_eq!(lost.len(), 1, "{name}: {lost:?}"),
            "the first frame" | "a segment header" => assert!(lost.is_empty(), "{name}: {lost:?}"),
            _ => assert!(lost.len() > 1, "{name}: {lost:?}"),
        }
        let check = |disk: &SimDisk| {
            let disk = &disk.kill();
            // The second opening goes on from a checkpoint.
            for is_last in [false, true] {
                let engine = open(disk).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(engine.info().recovery_cut_bytes, 0, "{name}");
                let found = contents(&engine);
                assert!(found.iter().all(|(place, body)| log.messages.get(place) == Some(body)), "{name}: made up");
                let mut missing = BTreeSet::new();
                for queue in engine.queues() {
                    let place = |offset: u64| (String::from_utf8(queue.name().to_vec()).unwrap(), offset);
                    let all = (0..engine.range(&queue).max.0).map(place);
                    missing.extend(all.filter(|place| !found.contains_key(place)));
                }
                assert_eq!(missing, lost, "{name}");
                if is_last {
                    let next = engine.range(&engine.queue(b"queue-0").unwrap()).max.0;
                    let mut added = Messages::new();
                    append(&engine, "queue-0", b"after it all", &mut added);
                    assert_eq!(added.keys().next().unwrap().1, next, "{name}");
                }
                engine.close().unwrap();
            }
        };
        // A range in one segment, in two, and a file that has to be made.
        if ["a record", "a segment's end and the next one's beginning", "a missing segment"].contains(&name) {
            sweep(&log.disk, name, &|disk| give_up_all(disk).map(drop), &check);
        } else {
            give_up_all(&log.disk).unwrap();
            check(&log.disk);
        }
    }
}

#[test]
fn what_was_given_up_is_said_again_and_nothing_else_is_given_up() {
    let log = Log::new();
    let (frame, later) = (second(&log), log.messages_in(2).remove(0));
    log.disk.flip_bit(&frame.path, frame.offset + 3000, 1);
    log.disk.flip_bit(&later.path, later.offset + 3000, 1);
    let refused = give_up(&log.disk, later.header.lsn).unwrap_err();
    assert!(matches!(refused, RepairError::NotThere { first: Some(lsn), .. } if lsn == frame.header.lsn), "{refused}");
    let report = give_up(&log.disk, frame.header.lsn).unwrap();
    let end = frame.header.lsn.plus(u64::from(frame.header.frame_len));
    assert_eq!((report.from, report.to, report.lost.len(), report.aside.len()), (frame.header.lsn, end, 1, 1));
    let again = give_up(&log.disk, frame.header.lsn).unwrap();
    assert_eq!((again.from, again.lost), (report.from, report.lost));
    assert!(matches!(give_up(&log.disk, Lsn(8)), Err(RepairError::NotThere { .. })));
    assert_eq!(survey(&log.disk).unwrap().first_cut(), Some(later.header.lsn), "the other one is as it was");
}

#[test]
fn a_copy_mends_every_kind_of_damage_whenever_the_power_fails() {
    for Hurt { name, hurt, .. } in hurts() {
        let log = Log::new();
        copy(&log);
        let whole = log.bytes(&segment(1));
        hurt(&log);
        let report = mend(&log.disk.kill()).unwrap();
        assert!(report.after.is_clean() && report.refused.is_empty(), "{name}: {report:?}");
        assert!(!report.mended.is_empty() && !report.manifest, "{name}: {report:?}");
        sweep(
            &log.disk,
            name,
            &|disk| {
                let report = mend(disk).map_err(|error| error.to_string())?;
                if report.after.is_clean() { Ok(()) } else { Err(format!("{report:?}")) }
            },
            &|disk| {
                opens_with(disk, name, &log.messages);
                assert!(disk.read(&segment(1)).unwrap() == whole, "{name}: byte for byte");
            },
        );
    }
}

#[test]
fn a_copy_shows_that_the_newest_segments_are_gone_and_brings_them_back() {
    let log = Log::new();
    copy(&log);
    for number in 2..9 {
        log.disk.lose(&segment(number));
    }
    // Nothing in this directory says that there was more.
    assert!(survey(&log.disk).unwrap().is_clean());
    let report = mend(&log.disk.kill()).unwrap();
    assert_eq!(report.mended.iter().map(|mended| mended.from).collect::<Vec<_>>(), [Lsn(2 * DATA)]);
    let repair = |disk: &SimDisk| mend(disk).map(drop).map_err(|error| error.to_string());
    sweep(&log.disk, "the newest segments", &repair, &|disk| opens_with(disk, "the newest segments", &log.messages));
    // A run that began where the log seemed to end has taken the place.
    drop(open(&log.disk).unwrap());
    let before = image(&log.disk);
    assert!(mend(&log.disk).unwrap().mended.is_empty());
    assert!(image(&log.disk) == before);
}

#[test]
fn what_a_copy_replaced_is_kept_once_and_mending_again_does_nothing() {
    let log = Log::new();
    copy(&log);
    (hurts()[0].hurt)(&log);
    let damaged = log.bytes(&segment(1));
    let report = mend(&log.disk).unwrap();
    let aside = report.mended[0].aside.clone().unwrap();
    assert_eq!(aside, PathBuf::from(format!("{}.damaged", segment(1).display())));
    assert!(log.bytes(&aside) == damaged);
    let before = image(&log.disk);
    let report = mend(&log.disk).unwrap();
    assert!(report.mended.is_empty() && report.after.is_clean());
    assert!(image(&log.disk) == before);
    // Opening leaves it alone.
    drop(open(&log.disk).unwrap());
    assert!(log.bytes(&aside) == damaged);
}

#[test]
fn a_manifest_is_taken_from_a_copy_that_knows_the_newest_run() {
    for hurt in
        [|log: &Log| log.disk.lose(&path(MANIFEST_NAME)), |log: &Log| log.disk.flip_bit(&path(MANIFEST_NAME), 50, 1)]
    {
        let log = Log::new();
        copy(&log);
        hurt(&log);
        let report = mend(&log.disk.kill()).unwrap();
        assert!(report.manifest && report.after.is_clean(), "{report:?}");
        sweep(&log.disk, "a manifest", &|disk| mend(disk).map(drop).map_err(|error| error.to_string()), &|disk| {
            opens_with(disk, "a manifest", &log.messages)
        });
    }
    // Another run after the copy was made: its number would be given out again.
    let log = Log::new();
    copy(&log);
    drop(open(&log.disk).unwrap());
    log.disk.lose(&path(MANIFEST_NAME));
    let before = image(&log.disk);
    let error = mend(&log.disk).unwrap_err().to_string();
    assert!(error.contains("newest epoch of its manifest: expected 1.3, found 1.2"), "{error}");
    assert!(image(&log.disk) == before);
}

#[test]
fn a_copy_that_does_not_prove_itself_changes_nothing() {
    // Damaged at the same place.
    let log = Log::new();
    (hurts()[1].hurt)(&log);
    copy(&log);
    let before = image(&log.disk);
    let report = mend(&log.disk).unwrap();
    assert!(report.mended.is_empty() && report.refused.len() == 1 && !report.after.is_clean(), "{report:?}");
    assert!(report.refused[0].1.contains("record 0"), "{report:?}");
    assert!(image(&log.disk) == before);

    // Older than the damage: it does not reach that far.
    let log = Log::new();
    copy(&log);
    let frame = second(&log);
    let zeros = vec![0; usize::try_from(SEGMENT - frame.offset).unwrap()];
    log.disk.overwrite(&Path::new(COPY).join(segment(1).file_name().unwrap()), frame.offset + 100, &zeros[100..]);
    (hurts()[0].hurt)(&log);
    let report = mend(&log.disk).unwrap();
    assert!(report.mended.is_empty() && report.refused.len() == 1, "{report:?}");

    // Another log; and the same log, gone another way since.
    let log = Log::new();
    copy(&log);
    let mut manifest = log.manifest();
    manifest.store_id += 1;
    manifest.store(&*log.disk.backend(), Path::new(COPY), true).unwrap();
    let error = mend(&log.disk).unwrap_err().to_string();
    assert!(error.contains("store id: expected"), "{error}");
    let mut manifest = log.manifest();
    manifest.history = anchorlog_engine::epoch::EpochHistory::default();
    for (index, start) in log.manifest().history.starts().iter().enumerate() {
        let first_lsn = Lsn(start.first_lsn.0 + 8 * index as u64);
        manifest.history.push(anchorlog_engine::epoch::EpochStart { first_lsn, ..*start });
    }
    manifest.store(&*log.disk.backend(), Path::new(COPY), true).unwrap();
    let error = mend(&log.disk).unwrap_err().to_string();
    assert!(error.contains("first LSN of an epoch"), "{error}");
}

/// The messages whose frames lie wholly before `lsn`.
fn kept(log: &Log, lsn: Lsn) -> Messages {
    let mut counts = std::collections::BTreeMap::new();
    let backend = log.disk.backend();
    audit::dump(&*backend, Path::new(DIR), Lsn(0), u64::MAX, &mut |item| {
        if let Item::Record { lsn: at, record, .. } = item
            && at < lsn
            && record.kind == RecordKind::Append
        {
            *counts.entry(String::from_utf8(record.name.to_vec()).unwrap()).or_insert(0) += 1;
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    let all = log.messages.clone().into_iter();
    all.filter(|((name, offset), _)| *offset < counts.get(name).copied().unwrap_or(0)).collect()
}

#[test]
fn giving_up_what_lies_behind_leaves_what_lies_before_whenever_the_power_fails() {
    for Hurt { name, hurt, at } in hurts() {
        let log = Log::new();
        let lsn = at(&log);
        let kept = kept(&log, lsn);
        hurt(&log);
        let cut = |disk: &SimDisk| audit::cut_from(&*disk.backend(), Path::new(DIR), lsn);
        let report = cut(&log.disk.kill()).unwrap();
        assert_eq!(report.lsn, lsn);
        assert!(!report.aside.is_empty(), "{name}");
        sweep(&log.disk, name, &|disk| cut(disk).map(drop).map_err(|error| error.to_string()), &|disk| {
            opens_with(disk, name, &kept);
            // What was given up does not come back when the log goes on over it.
            let (disk, mut messages) = (disk.kill(), kept.clone());
            let engine = open(&disk).unwrap();
            append(&engine, "queue-1", b"after the cut", &mut messages);
            for _ in 0..30 {
                engine.step();
            }
            drop(engine);
            opens_with(&disk.crash_with(9, Survival::Nothing), name, &messages);
        });
        // Once more, after it is done.
        let disk = log.disk.kill();
        cut(&disk).unwrap();
        let before = image(&disk);
        assert_eq!(cut(&disk).unwrap().frames, 0);
        assert!(image(&disk) == before, "{name}");
    }
}

#[test]
fn a_cut_says_what_is_lost_and_keeps_it_aside() {
    let log = Log::new();
    let frame = second(&log);
    let lsn = frame.header.lsn;
    let kept = kept(&log, lsn);
    let next = |name: &str| kept.keys().filter(|(queue, _)| queue == name).count() as u64;
    log.disk.flip_bit(&frame.path, frame.offset + 33, 1);
    let (second, third) = (log.bytes(&segment(1)), log.bytes(&segment(2)));
    let end = survey(&log.disk).unwrap().contents.end;
    let report = audit::cut_from(&*log.disk.backend(), Path::new(DIR), lsn).unwrap();
    assert_eq!(report.known_end, end);
    let lost: Vec<_> = report.lost.iter().map(|lost| (&lost.queue[..], lost.from.0, lost.to.0)).collect();
    assert_eq!(lost, [(&b"queue-0"[..], next("queue-0"), 12), (&b"queue-1"[..], next("queue-1"), 10)]);
    // The damaged frame itself cannot be counted.
    assert_eq!(report.records, u64::try_from(log.messages.len() - kept.len() - 1).unwrap() + 1, "and a history");
    let aside = |name: String| log.bytes(&path(&format!("{name}.damaged")));
    assert!(aside(file_name(Lsn(DATA))) == second && aside(file_name(Lsn(2 * DATA))) == third);
    assert!(!aside(MANIFEST_NAME.to_owned()).is_empty());
}

#[test]
fn a_cut_elsewhere_than_at_the_first_damage_is_refused() {
    let log = Log::new();
    let lsn = second(&log).header.lsn;
    let cut = |lsn: Lsn| audit::cut_from(&*log.disk.backend(), Path::new(DIR), lsn);
    let error = cut(lsn).unwrap_err().to_string();
    assert!(error.contains("the log is whole"), "{error}");
    (hurts()[2].hurt)(&log);
    let before = image(&log.disk);
    let error = cut(Lsn(lsn.0 + 8)).unwrap_err().to_string();
    assert!(error.contains(&format!("the first damaged place is LSN {lsn}")), "{error}");
    assert!(image(&log.disk) == before);
    let log = Log::new();
    log.disk.lose(&segment(0));
    let error = audit::cut_from(&*log.disk.backend(), Path::new(DIR), Lsn(0)).unwrap_err().to_string();
    assert!(error.contains("would leave no segment"), "{error}");
}

#[test]
fn damage_in_a_prepared_segment_costs_that_file_alone() {
    let log = Log::new();
    log.disk.set_len(&segment(3), SEGMENT / 2);
    let survey = survey(&log.disk).unwrap();
    assert_eq!(survey.damage.iter().map(|damage| damage.lsn).collect::<Vec<_>>(), [Lsn(3 * DATA)]);
    let report = audit::cut_from(&*log.disk.backend(), Path::new(DIR), Lsn(3 * DATA)).unwrap();
    assert!(report.lost.is_empty() && report.frames == 0);
    opens_with(&log.disk, "a prepared segment", &log.messages);
}
