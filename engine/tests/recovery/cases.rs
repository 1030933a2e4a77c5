//! The start-up case table, walked row by row: each scene is prepared on a simulated disk, opened, and must end as the table says.
//!
//! Whatever the row: nothing acknowledged is lost and nothing is made up; a refusal changes nothing of the log; opening again
//! gives the same; and the
//! power may fail at every I/O of it, whatever of it survives.

use std::path::{Path, PathBuf};

use anchorlog_engine::commitlog::frame::{FrameKind, FrameStamp};
use anchorlog_engine::commitlog::manifest::{MANIFEST_NAME, Manifest};
use anchorlog_engine::commitlog::record::{self, RecordKind, RecordParts};
use anchorlog_engine::commitlog::segment::{Geometry, SegmentHeader, file_name};
use anchorlog_engine::epoch::{EpochHistory, EpochStart};
use anchorlog_engine::io::sim::{SimDisk, Survival};
use anchorlog_engine::replica::{Promise, SideBlock, cut};
use anchorlog_engine::{CaseOutcome, Epoch, Lsn, RECOVERY_CASES, ReadError, Tail};

use crate::log::{
    DATA, DERIVED, DIR, Log, Messages, Placed, SEGMENT, append, contents, image, open, options, path, segment, sparse,
    try_contents,
};

impl Log {
    fn opens(self, name: &'static str) -> Scene {
        Scene {
            name,
            disk: self.disk,
            messages: self.messages,
            words: Vec::new(),
            cuts: false,
            gone: Vec::new(),
            frames: None,
        }
    }

    fn cuts(self, name: &'static str) -> Scene {
        Scene { cuts: true, ..self.opens(name) }
    }

    /// All frames of the log are read, for the derived store says nothing.
    fn rebuilds(self, name: &'static str) -> Scene {
        let frames = Some(self.frames().len());
        Scene { frames, ..self.opens(name) }
    }

    fn removes(self, name: &'static str, gone: Vec<PathBuf>) -> Scene {
        Scene { gone, ..self.opens(name) }
    }

    /// `words`: what the error must say beside the file: LSN, expected, found.
    fn refuses(self, name: &'static str, file: &Path, words: &[String]) -> Scene {
        let mut all = vec![file.display().to_string()];
        all.extend_from_slice(words);
        Scene { words: all, ..self.opens(name) }
    }
}

/// One scene of a row.
struct Scene {
    name: &'static str,
    disk: SimDisk,
    /// What an open log holds, no more and no less.
    messages: Messages,
    /// What a refusal says.
    words: Vec<String>,
    /// Whether bytes are reported as cut.
    cuts: bool,
    /// Files that are gone afterwards.
    gone: Vec<PathBuf>,
    /// How many frames opening reads.
    frames: Option<usize>,
}

impl Scene {
    /// Opens a copy and compares with the row.
    fn check(&self, disk: &SimDisk, id: &str, is_first: bool) -> Result<(), String> {
        let row = RECOVERY_CASES.iter().find(|row| row.id == id).unwrap();
        let before = image(disk);
        match (open(disk), row.outcome.is_open()) {
            (Ok(engine), true) => {
                let cut = engine.info().recovery_cut_bytes;
                let read = engine.info().recovery.split(' ').next().unwrap().parse().unwrap();
                let found = match try_contents(&engine) {
                    Ok(found) => found,
                    // Damage of the store that is met later than at open is an error, never another answer.
                    Err(ReadError::Derived(_)) if row.outcome == CaseOutcome::Rebuilds && self.frames.is_none() => {
                        drop(engine);
                        contents(&open(disk).map_err(|error| error.to_string())?)
                    }
                    Err(error) => return Err(error.to_string()),
                };
                if found != self.messages {
                    return Err("the messages are not those that were acknowledged".into());
                }
                if let Some(frames) = self.frames.filter(|frames| is_first && *frames != read) {
                    return Err(format!("{read} frames were read, not {frames}"));
                }
                if is_first && (cut > 0) != self.cuts {
                    return Err(format!("{cut} bytes were cut"));
                }
                let files = disk.files();
                match self.gone.iter().find(|path| files.contains(path)) {
                    Some(path) => Err(format!("{} is still there", path.display())),
                    None => Ok(()),
                }
            }
            (Err(error), false) => {
                let text = error.to_string();
                if error.case().is_none_or(|case| case.id != id) {
                    return Err(format!("another case: {text}"));
                }
                let words = self.words.iter().map(String::as_str).chain([row.remedy]);
                if let Some(word) = words.into_iter().find(|word| !text.contains(*word)) {
                    return Err(format!("it does not say {word:?}: {text}"));
                }
                if image(disk) != before {
                    return Err("the refusal changed something".into());
                }
                Ok(())
            }
            (Ok(_), false) => Err("it opens".into()),
            (Err(error), true) => Err(format!("it does not open: {error}")),
        }
    }

    /// Opens it whole, twice; and with the power failing after each I/O, whatever survives.
    fn walk(&self, id: &str) {
        let fail = |what: String| panic!("case {id}, {}: {what}", self.name);
        let disk = self.disk.kill();
        self.check(&disk, id, true).unwrap_or_else(fail);
        self.check(&disk.kill(), id, false).unwrap_or_else(|what| fail(format!("the second time: {what}")));
        self.check(&disk.crash_with(5, Survival::Nothing), id, false)
            .unwrap_or_else(|what| fail(format!("after a crash: {what}")));
        let mut count = 0;
        loop {
            let dying = self.disk.kill();
            dying.stop_after(dying.io_count() + count);
            drop(open(&dying));
            if !dying.is_dead() {
                break;
            }
            for (seed, survival) in [
                (count, Survival::Nothing),
                (count, Survival::Everything),
                (count, Survival::Seeded),
                (count + 1000, Survival::Seeded),
            ] {
                let left = dying.crash_with(seed, survival);
                self.check(&left, id, false)
                    .unwrap_or_else(|what| fail(format!("stopped after I/O {count}, {survival:?}: {what}")));
            }
            count += 1;
        }
        assert!(count > 0, "the sweep met no I/O");
    }
}

/// A log that was ended before its last message, under a derived store that has the message.
fn of_another_history() -> Log {
    let (log, lsn) = Log::checkpointed().without_last_message();
    let mut manifest = log.manifest();
    let last = manifest.history.last().unwrap();
    manifest.history.push(EpochStart { epoch: Epoch { run: last.epoch.run + 1, ..last.epoch }, first_lsn: lsn });
    log.store_manifest(&manifest);
    log
}

/// A log whose third run wrote `bodies`, under the derived store of a third run that wrote something else.
fn contradicting(bodies: &[(&str, &[u8])]) -> Log {
    let start = Log::checkpointed();
    let again = Log { disk: start.disk.kill(), messages: start.messages.clone() };
    let other = again.go_on(&[("queue-0", &[b'?'; 3000])]).bytes(&path(DERIVED));
    start.go_on(bodies).with_derived(&other)
}

/// Frames where the other run's are, for other queues.
fn of_other_offsets() -> Log {
    contradicting(&[("queue-1", &[b'!'; 3000]), ("queue-0", &[b'.'; 2000])])
}

/// A frame where the other run's end lies.
fn of_other_frames() -> Log {
    contradicting(&[("queue-1", &[b'!'; 8000])])
}

/// The scenes of a row; empty for a row that nobody prepares.
fn scenes(id: &str) -> Vec<Scene> {
    let log = Log::new();
    match id {
        "empty-directory" => {
            let nothing = || Log { disk: SimDisk::new(3), messages: Messages::new() };
            let made = nothing();
            made.disk.backend().create_dir_all(Path::new(DIR)).unwrap();
            vec![nothing().opens("no directory"), made.opens("an empty one")]
        }
        "half-created" => {
            let manifest = Manifest { history: EpochHistory::default(), ..log.manifest() };
            let alone = Log { disk: SimDisk::new(3), messages: Messages::new() };
            alone.disk.backend().create_dir_all(Path::new(DIR)).unwrap();
            alone.store_manifest(&manifest);
            let with_segment = Log { disk: SimDisk::new(4), messages: Messages::new() };
            with_segment.disk.backend().create_dir_all(Path::new(DIR)).unwrap();
            with_segment.store_manifest(&manifest);
            let mut bytes = vec![0; usize::try_from(SEGMENT).unwrap()];
            bytes[..4096].copy_from_slice(&log.header(0).encode());
            with_segment.make_file(&segment(0), &bytes);
            vec![alone.opens("the manifest alone"), with_segment.opens("and the first segment")]
        }
        "clean-end" => {
            let checkpointed = Log::checkpointed();
            let frames = checkpointed.frames().iter().filter(|frame| frame.path == segment(2)).count();
            let checkpointed = Scene { frames: Some(frames), ..checkpointed.opens("with a checkpoint") };
            vec![log.opens("closed in order"), checkpointed]
        }
        "stale-bytes" => {
            // Of an older run, with marks that would be evidence: at the end itself, and behind it.
            let older = |stamp: &mut FrameStamp| {
                stamp.epoch = Epoch { run: stamp.epoch.run - 1, ..stamp.epoch };
                stamp.durable_lsn = Lsn(stamp.lsn.0 + 900);
            };
            let first = log.forge(|stamp, _, _| older(stamp));
            log.plant(&first);
            log.plant(&log.forge_behind(&first.0, |stamp, _, _| older(stamp)));
            let elsewhere = Log::new();
            let mut moved = elsewhere.forge(|stamp, _, _| {
                stamp.lsn = Lsn(stamp.lsn.0 + DATA);
                stamp.durable_lsn = stamp.lsn;
            });
            elsewhere.plant(&moved);
            moved.0.offset += u64::from(moved.0.header.frame_len) + 64;
            elsewhere.plant(&moved);
            vec![log.opens("an older run's"), elsewhere.opens("another place's")]
        }
        "power-fails-again" | "torn-tail" => {
            let (mut torn, mut bytes) = log.forge(|_, _, _| {});
            let behind = log.forge_behind(&torn, |stamp, _, _| stamp.durable_lsn = torn.header.lsn);
            log.plant(&behind);
            bytes.truncate(1024);
            torn.header.frame_len = 1024;
            log.plant(&(torn, bytes));
            let mut scenes = vec![log.cuts("a group whose first frame is torn")];
            if id == "torn-tail" {
                // The mark itself: it covers what came before it, and nothing covers the mark.
                let marked = Log::new();
                let mark = marked.frames().pop().unwrap();
                assert_eq!(mark.header.kind, FrameKind::Mark);
                marked.disk.flip_bit(&mark.path, mark.offset + 20, 1);
                scenes.push(marked.opens("rot in the mark of an orderly stop"));
                // A torn write that leaves a whole record of the segment's earlier life behind a new header.
                let stale = Log::new();
                let (placed, mut bytes) = stale.forge(|_, _, _| {});
                let mut other = Vec::new();
                let parts = RecordParts {
                    kind: RecordKind::Append,
                    name: b"queue-0",
                    incarnation: 0,
                    tag: 1,
                    keys: &[],
                    attributes: b"",
                    payload: &[&[b'?'; 3000]],
                };
                record::encode(&mut other, &parts);
                record::seal(&mut other, 80);
                bytes[80..].copy_from_slice(&other);
                stale.plant(&(placed, bytes));
                let checkpointed = Log::checkpointed();
                let (placed, mut bytes) = checkpointed.forge(|_, _, _| {});
                bytes[2000] ^= 1;
                checkpointed.plant(&(placed, bytes));
                scenes.push(checkpointed.cuts("behind the end of a checkpoint"));
                // In a replica's log marks are of another disk: a side block that does not go so far is all that counts.
                let replica = Log::new();
                let (mut torn, mut bytes) = replica.forge(|_, _, _| {});
                let behind = replica.forge_behind(&torn, |stamp, _, _| stamp.durable_lsn = stamp.lsn);
                replica.plant(&behind);
                bytes.truncate(1024);
                torn.header.frame_len = 1024;
                replica.make_file(&path("DURABLE"), &side_block(&replica, torn.header.lsn));
                replica.plant(&(torn, bytes));
                let gone = vec![path("DURABLE")];
                scenes.push(Scene { gone, ..replica.cuts("a replica that is to lead: its leader's disk had more") });
                scenes.push(stale.cuts("a whole but stale record behind a new header"));
            }
            scenes
        }
        "half-made" => {
            let names = ["segment-0.tmp", "MANIFEST.tmp"].map(path);
            for name in &names {
                log.make_file(name, b"half");
            }
            vec![log.removes("a segment and a manifest in the making", names.to_vec())]
        }
        "released-segment" => {
            let mut log = log;
            let mut manifest = log.manifest();
            manifest.start = Lsn(DATA);
            log.store_manifest(&manifest);
            // What lay in the first segment is released.
            let in_first = log.messages_in(0).len();
            let first = |offset: &u64| usize::try_from(*offset).unwrap() * 2 < in_first;
            log.messages.retain(|(name, offset), _| {
                !first(offset) || (name == "queue-1" && *offset * 2 + 1 >= u64::try_from(in_first).unwrap())
            });
            let kept = Log { disk: log.disk.kill(), messages: log.messages.clone() };
            kept.sparse(0);
            let gone = vec![sparse(0)];
            vec![log.removes("the first of three", vec![segment(0)]), kept.removes("one that no list names", gone)]
        }
        "half-released" => {
            log.sparse(0);
            log.sparse(1);
            vec![log.removes("two of three", vec![sparse(0), sparse(1)])]
        }
        "prepared-behind-gap" => {
            let mut bytes = vec![0; usize::try_from(SEGMENT).unwrap()];
            bytes[..4096].copy_from_slice(&log.header(9).encode());
            log.make_file(&segment(9), &bytes);
            vec![log.removes("one of zeros", vec![segment(9)])]
        }
        "derived-store" => {
            let derived = |change: fn(&mut Vec<u8>)| {
                let log = Log::checkpointed();
                let mut bytes = log.bytes(&path(DERIVED));
                change(&mut bytes);
                log.with_derived(&bytes)
            };
            let missing = Log::checkpointed();
            missing.disk.lose(&path(DERIVED));
            let set_aside = Log::checkpointed();
            let bytes = set_aside.bytes(&path(DERIVED));
            set_aside.disk.lose(&path(DERIVED));
            set_aside.make_file(&path("DERIVED.damaged"), &bytes);
            vec![
                missing.rebuilds("missing"),
                derived(|bytes| bytes.fill(0)).rebuilds("zeros"),
                derived(|bytes| bytes.truncate(8192)).rebuilds("cut short"),
                derived(|bytes| bytes[40] ^= 1).rebuilds("a changed bit in its head"),
                derived(|bytes| bytes[4096..8192].fill(0x5A)).rebuilds("checksums that fit nothing"),
                set_aside.rebuilds("found damaged in use"),
                Log::checkpointed()
                    .with_derived(&Log::build(8, &options()).bytes(&path(DERIVED)))
                    .rebuilds("another log's"),
                derived(|bytes| {
                    bytes[328..332].copy_from_slice(&1_u32.to_le_bytes());
                    let mut sum = crc32fast::Hasher::new();
                    sum.update(&bytes[..508]);
                    sum.update(&bytes[512..4096]);
                    bytes[508..512].copy_from_slice(&sum.finalize().to_le_bytes());
                })
                .rebuilds("an older version's"),
                of_another_history().rebuilds("another history's"),
                of_other_offsets().rebuilds("other queues' offsets"),
                of_other_frames().rebuilds("other frames"),
            ]
        }
        "checkpoint-beyond-end" => {
            let mark = Log::checkpointed();
            let frame = mark.frames().pop().unwrap();
            assert_eq!(frame.header.kind, FrameKind::Mark);
            mark.disk.flip_bit(&frame.path, frame.offset + 20, 1);
            let end = frame.header.lsn.plus(u64::from(frame.header.frame_len));
            let words = |lsn: Lsn, found: &str| {
                [format!("at LSN {lsn}:"), format!("found {found}"), format!("durable to LSN {end}")]
            };
            let rotten = mark.refuses("rot in the last mark", &frame.path, &words(frame.header.lsn, "header checksum"));
            let (gone, lsn) = Log::checkpointed().without_last_message();
            vec![rotten, gone.refuses("the last messages", &segment(2), &words(lsn, "no frame magic"))]
        }
        "damage" => {
            let mut scenes = Vec::new();
            let mut hurt = |name: &'static str, pick: fn(&Log) -> (Placed, u64), expected: &str, found: &str| {
                let log = Log::new();
                let (frame, at) = pick(&log);
                log.disk.flip_bit(&frame.path, frame.offset + at, 2);
                let words = [
                    format!("at LSN {}:", frame.header.lsn),
                    format!("expected {expected}"),
                    format!("found {found}"),
                    "the log goes on to at least LSN".to_owned(),
                ];
                scenes.push(log.refuses(name, &frame.path, &words));
            };
            // Nothing in the log says that the last mark was durable, but this replica knows it of its own disk.
            hurt(
                "what a replica's side block says was durable",
                |log| {
                    let mark = log.frames().pop().unwrap();
                    let end = mark.header.lsn.plus(u64::from(mark.header.frame_len));
                    log.make_file(&path("DURABLE"), &side_block(log, end));
                    (mark, 20)
                },
                "a frame",
                "header checksum",
            );
            hurt("a header", |log| (log.messages_in(0)[2].clone(), 30), "a frame", "header checksum");
            hurt("a magic", |log| (log.messages_in(0)[2].clone(), 0), "a frame", "no frame magic");
            hurt("a record", |log| (log.messages_in(0)[1].clone(), 900), "whole records", "record 0 at LSN");
            hurt("the first frame of the log", |log| (log.frames()[0].clone(), 8), "a frame", "header checksum");
            hurt(
                "the first frame of a segment",
                |log| {
                    let mut frames = log.frames().into_iter();
                    (frames.find(|frame| frame.path == segment(1)).unwrap(), 70)
                },
                "a frame",
                "header checksum",
            );
            hurt(
                "the last group before an orderly stop",
                |log| (log.messages_in(2).pop().unwrap(), 3000),
                "whole records",
                "record 0 at LSN",
            );
            hurt(
                "the last frame before the newest run",
                |log| {
                    let run = log.manifest().history.last().unwrap().first_lsn;
                    (log.frames().into_iter().rfind(|frame| frame.header.lsn < run).unwrap(), 40)
                },
                "a frame",
                "header checksum",
            );
            // What a later frame says goes before what a checkpoint says.
            let log = Log::checkpointed();
            let frame = log.messages_in(2)[0].clone();
            log.disk.flip_bit(&frame.path, frame.offset + 500, 3);
            let words = [format!("at LSN {}:", frame.header.lsn), "the log goes on to at least LSN".to_owned()];
            scenes.push(log.refuses("in the segment with the end of a checkpoint", &frame.path, &words));
            // Only the newest epoch says that it was durable: everything behind is gone.
            let log = Log::new();
            let run = log.manifest().history.last().unwrap().first_lsn;
            let mut frames = log.frames();
            frames.retain(|frame| frame.header.lsn < run);
            let last = frames.pop().unwrap();
            let zeros = vec![0; usize::try_from(SEGMENT - last.offset).unwrap()];
            log.disk.overwrite(&last.path, last.offset, &zeros);
            for number in (1..4).filter(|number| segment(*number) != last.path) {
                let zeros = vec![0; usize::try_from(DATA).unwrap()];
                log.disk.overwrite(&segment(number), 4096, &zeros);
            }
            let words = [format!("at LSN {}:", last.header.lsn), format!("at least LSN {run}")];
            scenes.push(log.refuses("an end that the newest epoch contradicts", &last.path, &words));
            scenes
        }
        "unreadable" => {
            let frame = log.messages_in(1)[0].clone();
            log.disk.break_sector(&frame.path, frame.offset + 1000);
            vec![log.refuses("a sector below the end", &frame.path, &["reading".to_owned()])]
        }
        "missing-segment" => {
            log.disk.lose(&segment(0));
            let words = ["is missing".to_owned(), "the log begins at 0".to_owned()];
            let first = log.refuses("the first", &segment(0), &words);
            let log = Log::new();
            log.disk.lose(&segment(1));
            let run = log.manifest().history.last().unwrap().first_lsn;
            assert!(run > Lsn(DATA) && run < Lsn(2 * DATA), "the newest run begins in the second segment");
            let words = ["is missing".to_owned(), format!("the newest epoch began at LSN {run}")];
            let middle = log.refuses("one that the newest epoch wrote behind", &segment(1), &words);
            // One run alone, and no mark behind the file that is missing: the frames behind it are the only witness.
            let log = Log::new().without_marks();
            log.disk.lose(&segment(1));
            let words = ["is missing".to_owned(), format!("goes on with the frame at LSN {}", 2 * DATA)];
            let followed = log.refuses("one that a later one follows", &segment(1), &words);
            let log = Log::checkpointed();
            log.disk.lose(&segment(2));
            log.disk.lose(&segment(3));
            let words = ["is missing".to_owned(), "the last checkpoint says".to_owned()];
            vec![first, middle, followed, log.refuses("one that the last checkpoint covers", &segment(2), &words)]
        }
        "no-segments" => {
            for path in log.disk.files().iter().filter(|path| path.extension().is_some_and(|end| end == "seg")) {
                log.disk.lose(path);
            }
            vec![log.refuses("a manifest alone", Path::new(DIR), &["the log begins at 0".to_owned()])]
        }
        "no-manifest" => {
            log.disk.lose(&path(MANIFEST_NAME));
            let words = ["is missing".to_owned(), format!("{} lies beside it", file_name(Lsn(0)))];
            vec![log.refuses("lost", &path(MANIFEST_NAME), &words)]
        }
        "damaged-manifest" => {
            log.disk.flip_bit(&path(MANIFEST_NAME), 26, 4);
            let words = ["expected a whole manifest".to_owned(), "found checksum".to_owned()];
            let rotten = log.refuses("a changed bit", &path(MANIFEST_NAME), &words);
            let log = Log::new();
            log.disk.set_len(&path(MANIFEST_NAME), 0);
            let words = ["expected a whole manifest".to_owned(), "found a manifest of 0 bytes".to_owned()];
            let empty = log.refuses("no bytes", &path(MANIFEST_NAME), &words);
            let log = Log::new();
            log.disk.set_len(&path(MANIFEST_NAME), 30);
            let words = ["expected a whole manifest".to_owned(), "found a manifest of 30 bytes".to_owned()];
            let short = log.refuses("no whole block", &path(MANIFEST_NAME), &words);
            let log = Log::new();
            log.disk.flip_bit(&path(MANIFEST_NAME), 6, 1);
            let words = ["expected a whole manifest".to_owned(), "and the checksum of version 1".to_owned()];
            vec![rotten, empty, short, log.refuses("a changed bit in the version", &path(MANIFEST_NAME), &words)]
        }
        "newer-manifest" => {
            // With its checksum, wherever that version has it.
            log.disk.overwrite(&path(MANIFEST_NAME), 4, &99_u32.to_le_bytes());
            log.disk.overwrite(&path(MANIFEST_NAME), 48, &[9; 64]);
            let words = ["manifest version: expected at most".to_owned(), "found 99".to_owned()];
            vec![log.refuses("version 99", &path(MANIFEST_NAME), &words)]
        }
        "newer-form" => {
            let forged = log.forge(|_, kind, _| *kind = 200);
            log.plant(&forged);
            let lsn = forged.0.header.lsn;
            let words = [format!("at LSN {lsn}"), "found record 0".to_owned(), "unknown kind".to_owned()];
            vec![log.refuses("a record of kind 200 at the very end", &forged.0.path, &words)]
        }
        "damaged-segment-header" => {
            log.disk.flip_bit(&segment(1), 9, 0);
            let words = ["segment header: expected a whole header".to_owned(), "found header checksum".to_owned()];
            vec![log.refuses("a changed bit", &segment(1), &words)]
        }
        "wrong-store-id" => {
            let header = SegmentHeader { store_id: 77, ..log.header(1) };
            log.disk.overwrite(&segment(1), 0, &header.encode());
            let expected = format!("store id: expected {:032x}, found {:032x}", log.manifest().store_id, 77);
            vec![log.refuses("another log's", &segment(1), &[expected])]
        }
        "wrong-length" => {
            log.disk.set_len(&segment(1), SEGMENT / 2);
            let short = log.refuses(
                "half a segment",
                &segment(1),
                &[format!("length: expected {SEGMENT} bytes, found {}", SEGMENT / 2)],
            );
            let log = Log::new();
            log.disk.set_len(&segment(3), SEGMENT + 4096);
            let words = [format!("found {}", SEGMENT + 4096)];
            vec![short, log.refuses("one block more, in a prepared one", &segment(3), &words)]
        }
        "wrong-geometry" => {
            let geometry = Geometry { segment_bytes: SEGMENT, tail: Tail::Pad };
            let header = SegmentHeader { geometry, ..log.header(1) };
            log.disk.overwrite(&segment(1), 0, &header.encode());
            let words = ["geometry: expected".to_owned(), "found Geometry".to_owned(), "Pad".to_owned()];
            vec![log.refuses("another tail mode", &segment(1), &words)]
        }
        "wrong-base" => {
            let bytes = log.bytes(&segment(2));
            log.disk.overwrite(&segment(1), 0, &bytes);
            let words = [format!("base LSN: expected {}, found {}", file_name(Lsn(DATA)), file_name(Lsn(2 * DATA)))];
            let stray = Log::new();
            let bytes = stray.bytes(&segment(1));
            stray.make_file(&path(&file_name(Lsn(77))), &bytes);
            let where_none_begins = [format!("found {}", file_name(Lsn(DATA)))];
            vec![
                log.refuses("one segment over another", &segment(1), &words),
                stray.refuses("where no segment begins", &path(&file_name(Lsn(77))), &where_none_begins),
            ]
        }
        "queue-out-of-turn" => {
            let forged = log.forge(|_, _, offset| *offset += 3);
            log.plant(&forged);
            let words = ["expected offset 12 of queue-0".to_owned(), "found offset 15 at LSN".to_owned()];
            vec![log.refuses("an offset that skips three", &forged.0.path, &words)]
        }
        "half-cut" => {
            let (cut_log, at) = Log::new().without_last_message();
            vec![half_cut(&log.disk, at, cut_log.messages).opens("before its last message")]
        }
        "damaged-cut" => {
            log.make_file(&path("CUT"), b"ALCT");
            let other = Log::build(8, &options().with_checkpoint_interval(None));
            let (whole, at) = Log::new().without_last_message();
            let named = half_cut(&Log::new().disk, at, whole.messages).bytes(&path("CUT"));
            let mut manifest = other.manifest();
            manifest.store_id += 1;
            other.make_file(&path("CUT"), &named);
            other.store_manifest(&manifest);
            let short = Log::new();
            short.make_file(&path("CUT"), b"ALCT");
            short.disk.set_len(&path("CUT"), 33);
            let words = ["cut: expected a cut by name".to_owned()];
            let of_other = ["cut: expected a cut of this log".to_owned()];
            vec![
                log.refuses("bytes that name none", &path("CUT"), &words),
                short.refuses("too few to name one", &path("CUT"), &words),
                other.refuses("another log's", &path("CUT"), &of_other),
            ]
        }
        "promised" => {
            log.make_file(&path("PROMISE"), &Promise { term: 9, to: b"b".to_vec() }.encode());
            let damaged = Log::new();
            damaged.make_file(&path("PROMISE"), b"ALPR");
            let words = ["a leader of term 1".to_owned(), "term 9".to_owned()];
            vec![
                log.refuses("a higher term", &path("PROMISE"), &words),
                damaged.refuses("nobody knows which", &path("PROMISE"), &["is damaged".to_owned()]),
            ]
        }
        "half-seeded" => {
            log.make_file(&path("SEED"), b"");
            let empty = Log { disk: SimDisk::new(3), messages: Messages::new() };
            empty.disk.backend().create_dir_all(Path::new(DIR)).unwrap();
            empty.make_file(&path("SEED"), b"");
            let dir = Path::new(DIR);
            vec![log.refuses("half wiped", dir, &[]), empty.refuses("nothing else", dir, &[])]
        }
        "damaged-side-block" => {
            let other = Log::new();
            let short = Log::new();
            log.make_file(&path("DURABLE"), &[7; 8192]);
            short.make_file(&path("DURABLE"), &side_block(&short, Lsn(0))[..4096]);
            let mut manifest = other.manifest();
            manifest.store_id += 1;
            let foreign = Log { disk: other.disk.kill(), messages: Messages::new() };
            foreign.store_manifest(&manifest);
            other.make_file(&path("DURABLE"), &side_block(&foreign, Lsn(0)));
            let words = ["side block: expected".to_owned()];
            vec![
                log.refuses("neither copy is whole", &path("DURABLE"), &words),
                short.refuses("one copy alone", &path("DURABLE"), &words),
                other.refuses("another log's", &path("DURABLE"), &words),
            ]
        }
        _ => Vec::new(),
    }
}

/// A side block of this log, both copies.
fn side_block(log: &Log, durable: Lsn) -> Vec<u8> {
    let epoch = log.manifest().history.last().unwrap().epoch;
    let store_id = log.manifest().store_id;
    let block = SideBlock { store_id, number: 4, epoch, durable, acked: Lsn(0), seeded_to: Lsn(0) };
    [&block.encode()[..], &block.encode()[..]].concat()
}

/// A disk on which a cut was named, and the power failed.
fn half_cut(disk: &SimDisk, at: Lsn, messages: Messages) -> Log {
    for last in 0.. {
        let dying = disk.kill();
        dying.stop_after(dying.io_count() + last);
        drop(cut(&*dying.backend(), DIR, at));
        let disk = dying.crash_with(last, Survival::Everything);
        if disk.files().contains(&path("CUT")) {
            return Log { disk, messages };
        }
    }
    unreachable!("a cut is named before it is done");
}

fn walk(id: &str) {
    let scenes = scenes(id);
    assert!(!scenes.is_empty(), "case {id} has no scene");
    for scene in scenes {
        scene.walk(id);
    }
}

#[test]
fn an_empty_directory_becomes_a_log() {
    walk("empty-directory");
}

#[test]
fn a_log_that_was_half_made_is_made() {
    walk("half-created");
}

#[test]
fn a_log_closed_in_order_opens_as_it_was() {
    walk("clean-end");
}

/// K-22.
#[test]
fn stale_bytes_behind_the_end_say_nothing() {
    walk("stale-bytes");
}

#[test]
fn the_power_may_fail_again_at_every_step_of_opening() {
    walk("power-fails-again");
}

#[test]
fn a_torn_tail_is_cut_and_what_came_before_survives() {
    walk("torn-tail");
}

#[test]
fn half_made_files_are_removed() {
    walk("half-made");
}

#[test]
fn a_released_segment_that_is_still_there_is_removed() {
    walk("released-segment");
}

#[test]
fn a_segment_that_was_half_released_gets_its_name_back() {
    walk("half-released");
}

#[test]
fn a_prepared_segment_behind_a_gap_is_removed() {
    walk("prepared-behind-gap");
}

#[test]
fn derived_state_is_rebuilt_from_the_log() {
    walk("derived-store");
}

/// Closes K-27 (after a clean stop the last bytes are trusted).
#[test]
fn what_a_checkpoint_covers_and_the_log_has_not_is_refused() {
    walk("checkpoint-beyond-end");
}

/// K-28: what is told beside the log may be torn, and costs time only.
#[test]
fn a_derived_store_is_believed_or_rebuilt_wherever_a_bit_of_it_flips() {
    let log = Log::checkpointed().go_on(&[("queue-1", b"and an entry of the table")]);
    let len = u64::try_from(log.bytes(&path(DERIVED)).len()).unwrap();
    let scene = log.opens("a changed bit");
    for at in (0..len).step_by(4096 * 3 / 2 + 7).chain((0..512).step_by(37)) {
        let disk = scene.disk.kill();
        disk.flip_bit(&path(DERIVED), at, 5);
        for time in ["first", "second"] {
            scene
                .check(&disk, "derived-store", false)
                .unwrap_or_else(|what| panic!("byte {at}, the {time} time: {what}"));
        }
    }
}

#[test]
fn nothing_of_a_store_that_was_not_believed_is_in_the_next_one() {
    for log in [of_other_offsets(), of_other_frames()] {
        let log = log.go_on(&[("queue-2", b"a checkpoint behind it")]);
        let engine = open(&log.disk.kill()).unwrap();
        let frames = log.frames().iter().filter(|frame| frame.path == segment(2)).count();
        assert!(engine.info().recovery.starts_with(&format!("{frames} frames")), "{}", engine.info().recovery);
        assert!(contents(&engine) == log.messages);
        assert!(engine.get(b"????????").unwrap().is_none(), "this log never had that entry");
        assert!(engine.get(b"!!!!!!!!").unwrap().is_some());
    }
}

#[test]
fn damage_below_the_durable_mark_is_refused_wherever_it_is() {
    walk("damage");
}

#[test]
fn bytes_that_cannot_be_read_are_refused() {
    walk("unreadable");
}

#[test]
fn a_missing_segment_is_refused() {
    walk("missing-segment");
}

/// Closes K-26 (an empty folder is a fresh start).
#[test]
fn a_manifest_alone_is_no_fresh_start() {
    walk("no-segments");
}

#[test]
fn segments_without_a_manifest_are_no_fresh_start() {
    walk("no-manifest");
}

#[test]
fn a_damaged_manifest_is_refused() {
    walk("damaged-manifest");
}

#[test]
fn a_manifest_of_a_newer_version_is_refused() {
    walk("newer-manifest");
}

#[test]
fn a_whole_record_of_an_unknown_kind_is_refused_not_cut() {
    walk("newer-form");
}

#[test]
fn a_damaged_segment_header_is_refused() {
    walk("damaged-segment-header");
}

#[test]
fn a_segment_of_another_log_is_refused() {
    walk("wrong-store-id");
}

/// Closes K-25 (a file of a wrong length).
#[test]
fn a_segment_of_another_length_is_refused() {
    walk("wrong-length");
}

#[test]
fn a_segment_of_another_geometry_is_refused() {
    walk("wrong-geometry");
}

#[test]
fn a_segment_under_another_ones_name_is_refused() {
    walk("wrong-base");
}

#[test]
fn a_queue_offset_out_of_turn_is_refused() {
    walk("queue-out-of-turn");
}

#[test]
fn a_half_done_cut_comes_to_its_end() {
    walk("half-cut");
}

#[test]
fn a_cut_that_names_nothing_is_refused() {
    walk("damaged-cut");
}

/// Closes K-49 for a node that was away when a higher term was promised.
#[test]
fn a_lower_term_than_promised_is_not_led() {
    walk("promised");
}

#[test]
fn a_half_seeded_directory_is_refused() {
    walk("half-seeded");
}

#[test]
fn a_damaged_side_block_is_refused() {
    walk("damaged-side-block");
}

#[test]
fn a_second_process_is_refused_and_the_first_goes_on() {
    let mut log = Log::new();
    let engine = open(&log.disk).unwrap();
    let before = image(&log.disk);
    let error = open(&log.disk).unwrap_err();
    assert_eq!(error.case().unwrap().id, "second-process");
    let text = error.to_string();
    assert!(text.contains("/log is in use") && text.contains(error.case().unwrap().remedy), "{text}");
    assert!(image(&log.disk) == before, "the refusal changed something");
    append(&engine, "queue-0", b"one more", &mut log.messages);
    for _ in 0..20 {
        engine.step();
    }
    assert_eq!(contents(&engine), log.messages);
}

/// The rows of a table in the document: cells without blanks around them.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|line| line.starts_with("| `"));
    lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn the_document_and_the_table_agree_row_by_row() {
    let document = include_str!("../../docs/recovery.md");
    let section = document.split("\n## ").find(|section| section.starts_with("Cases")).expect("a section of cases");
    let rows = rows(section);
    let found: Vec<_> = rows.iter().map(|row| (row[0].trim_matches('`'), &*row[1], &*row[2], &*row[4])).collect();
    let expected: Vec<_> =
        RECOVERY_CASES.iter().map(|case| (case.id, case.outcome.to_string(), case.title, case.remedy)).collect();
    let expected: Vec<_> =
        expected.iter().map(|(id, outcome, title, remedy)| (*id, &**outcome, *title, *remedy)).collect();
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected, "id, outcome, title, remedy");
    }
    assert_eq!(found.len(), expected.len());

    let tests = [
        include_str!("cases.rs"),
        include_str!("repair.rs"),
        include_str!("remedies.rs"),
        include_str!("../crash.rs"),
        include_str!("../damage.rs"),
        include_str!("../replica/mending.rs"),
        include_str!("../replica/releasing.rs"),
    ];
    for name in
        document.split('`').filter(|name| name.contains('_') && name.len() > 25 && !name.contains([' ', '/', '.', ':']))
    {
        assert!(tests.iter().any(|text| text.contains(&format!("fn {name}("))), "{name} is no test");
    }
    for row in &rows {
        assert!(row[5].starts_with('`') && row[5].ends_with('`'), "{} names no test", row[0]);
        let walks = tests[0].contains(&format!(
            "{}() {{\n    walk(\"{}\")",
            row[5].trim_matches('`'),
            row[0].trim_matches('`')
        ));
        assert!(walks || row[0] == "`second-process`", "{} does not walk {}", row[5], row[0]);
    }
}

#[test]
fn ids_are_names_and_every_refusal_has_a_remedy() {
    for (index, case) in RECOVERY_CASES.iter().enumerate() {
        assert!(case.id.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-'), "{}", case.id);
        assert!(RECOVERY_CASES[..index].iter().all(|other| other.id != case.id), "{} twice", case.id);
        assert!(
            case.outcome != CaseOutcome::Refuses || case.remedy.len() > 20,
            "{} leaves the operator alone",
            case.id
        );
    }
}
