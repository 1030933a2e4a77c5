//! Bytes that change on the disk after they were written: found by the scrub, refused to readers, and no harm to what lies beside them.
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::audit;
use anchorlog_engine::clock::SimClock;
use anchorlog_engine::commitlog::frame::{self, FrameKind};
use anchorlog_engine::io::IoBackend;
use anchorlog_engine::io::sim::{IoClass, SimDisk, Survival};
use anchorlog_engine::io::threads::ThreadsBackend;
use anchorlog_engine::{
    Append, AppendOutcome, DamagedPart, Engine, EngineOptions, Fetch, FetchOutcome, FetchStatus, Flush, Lsn, Queue,
    QueueOffset, ReadError, SystemClock, Tail, WriteBatch,
};

const DIR: &str = "/log";
const SEGMENT_HEADER: u64 = 4096;
const HOUR: Duration = Duration::from_secs(3600);

fn options() -> EngineOptions {
    EngineOptions::default()
        .with_segment_bytes(64 << 10)
        .with_chunk_bytes(16 << 10)
        .with_buffer_bytes(64 << 10)
        .with_cache_bytes(96 << 10)
        .with_spare_count(1)
        .with_scrub_rate(1 << 30)
        .with_manual_drive()
}

/// Segments of a mebibyte: a scrub needs several reads for one.
fn large() -> EngineOptions {
    options().with_segment_bytes(1 << 20).with_buffer_bytes(2 << 20).with_cache_bytes(3 << 20)
}

struct Scene {
    disk: SimDisk,
    clock: Arc<SimClock>,
    engine: Engine,
    queue: Queue,
    segment_bytes: u64,
}

impl Scene {
    fn new(seed: u64, options: EngineOptions, segment_bytes: u64) -> Scene {
        let (disk, clock) = (SimDisk::new(seed), Arc::new(SimClock::default()));
        let given: Arc<SimClock> = Arc::clone(&clock);
        let engine = Engine::open_with(disk.backend(), given, Path::new(DIR), options).unwrap();
        let queue = engine.queue(b"q").unwrap();
        Scene { disk, clock, engine, queue, segment_bytes }
    }

    fn small(seed: u64) -> Scene {
        Scene::new(seed, options(), 64 << 10)
    }

    fn tick(&self) {
        self.engine.step();
        self.clock.advance(Duration::from_millis(1));
    }

    /// Appends one batch of messages of these sizes and waits until it is acknowledged.
    fn append(&self, lens: &[usize]) -> AppendOutcome {
        let mut batch = WriteBatch::new();
        for (number, len) in (0..).zip(lens) {
            let body: Vec<u8> =
                format!("{} {number} ", self.engine.watermarks().assigned).bytes().cycle().take(*len).collect();
            let message =
                Append { queue: &self.queue, tag: number, keys: &[b"key"], attributes: b"", payload: &[&body] };
            batch.append(&message).unwrap();
        }
        loop {
            match self.engine.try_append(&mut batch) {
                Ok(ticket) => {
                    let outcome = ticket.outcome().clone();
                    while self.engine.watermarks().acked < outcome.end_lsn {
                        self.tick();
                    }
                    return outcome;
                }
                Err(_) => self.tick(),
            }
        }
    }

    /// Fills so many segments; returns what went where.
    fn fill(&self, segments: u64) -> Vec<AppendOutcome> {
        let end = Lsn((self.segment_bytes - SEGMENT_HEADER) * segments + 1);
        let sizes: [&[usize]; 5] = [&[300], &[5000, 20, 900], &[40; 30], &[9000], &[1, 4096]];
        let mut all = Vec::new();
        while self.engine.watermarks().assigned < end {
            all.push(self.append(sizes[all.len() % sizes.len()]));
        }
        all
    }

    /// Lets the scrub go once over everything that is closed; returns how many damaged places it found.
    fn pass(&self) -> u64 {
        let before = self.engine.stats();
        self.clock.advance(HOUR);
        for _ in 0..100_000 {
            self.tick();
            let now = self.engine.stats();
            if now.scrub_passes > before.scrub_passes {
                return now.scrub_damaged - before.scrub_damaged;
            }
        }
        panic!("the pass does not end: {:?}", self.engine.stats());
    }

    fn path(&self, lsn: Lsn) -> PathBuf {
        let data = self.segment_bytes - SEGMENT_HEADER;
        Path::new(DIR).join(format!("{:020}.seg", lsn.0 / data * data))
    }

    fn offset(&self, lsn: Lsn) -> u64 {
        SEGMENT_HEADER + lsn.0 % (self.segment_bytes - SEGMENT_HEADER)
    }

    fn flip(&self, lsn: Lsn, bit: u8) {
        self.disk.flip_bit(&self.path(lsn), self.offset(lsn), bit);
    }

    fn fetch(&self, from: u64, tag: Option<u32>) -> Result<FetchOutcome, ReadError> {
        self.engine.fetch(&Fetch {
            queue: &self.queue,
            from: QueueOffset(from),
            messages_max: 1000,
            bytes_max: 1 << 20,
            scan_max: 1000,
            from_disk: true,
            matches: &|found| tag.is_none_or(|tag| tag == found),
        })
    }

    /// What each byte of the segment that begins at `base` belongs to, with the LSN of that part; `None` where no checksum covers it.
    fn parts(&self, base: Lsn) -> Vec<Option<(DamagedPart, Lsn)>> {
        let bytes = self.disk.read(&self.path(base)).unwrap();
        let mut parts = vec![None; bytes.len()];
        parts[..52].fill(Some((DamagedPart::SegmentHeader, base)));
        let mut at = usize::try_from(SEGMENT_HEADER).unwrap();
        while bytes.len() - at >= 64 {
            let lsn = base.plus(at as u64 - SEGMENT_HEADER);
            let header = frame::decode_header(&bytes[at..], lsn).unwrap();
            let mut record = at + frame::header_bytes(usize::from(header.record_count));
            parts[at..record].fill(Some((DamagedPart::FrameHeader, lsn)));
            if header.kind == FrameKind::Records {
                for entry in frame::entries(&bytes[at..], header.record_count) {
                    let end = record + entry.len as usize;
                    let lsn = base.plus(record as u64 - SEGMENT_HEADER);
                    parts[record..end].fill(Some((DamagedPart::Record, lsn)));
                    record = end;
                }
            }
            at += header.frame_len as usize;
        }
        parts
    }

    fn listed(&self, part: DamagedPart, lsn: Lsn) -> bool {
        let places = self.engine.damaged_places();
        places.iter().any(|place| (place.part, place.lsn, &place.path) == (part, lsn, &self.path(lsn)))
    }
}

/// Flips one bit of every `stride`th byte of the segment at `base`, each by itself, and compares what a pass of the scrub says of it.
fn every_flip_is_found_in_its_place(scene: &Scene, base: Lsn, stride: usize) {
    assert_eq!(scene.pass(), 0, "nothing was damaged yet");
    let parts = scene.parts(base);
    let path = scene.path(base);
    let mut met = [0; 4];
    for (number, (at, expected)) in parts.iter().enumerate().step_by(stride).enumerate() {
        let bit = u8::try_from(number % 8).unwrap();
        scene.disk.flip_bit(&path, at as u64, bit);
        let found = scene.pass();
        // A segment's header is whole again by now.
        if !matches!(expected, Some((DamagedPart::SegmentHeader, _))) {
            scene.disk.flip_bit(&path, at as u64, bit);
        }
        match *expected {
            Some((DamagedPart::SegmentHeader, _)) => {
                assert_eq!(found, 1, "the segment's header, byte {at}, bit {bit}");
                assert_eq!(scene.pass(), 0, "it is whole again");
            }
            None => assert_eq!(found, 0, "no checksum covers byte {at} of {base}"),
            Some((part, lsn)) => {
                assert_eq!(found, 1, "{part} at LSN {lsn}, byte {at}, bit {bit}");
                assert!(scene.listed(part, lsn), "{part} at LSN {lsn}, byte {at}: {:?}", scene.engine.damaged_places());
            }
        }
        met[expected.map_or(3, |(part, _)| part as usize)] += 1;
    }
    assert!(met[..3].iter().all(|count| *count > 0), "bytes of every part were changed: {met:?}");
    assert_eq!(scene.pass(), 0, "and changed back");
}

/// Closes K-20 (a checksum over the body alone) and K-21 (checksums are looked at when a crash is recovered, and never else).
#[test]
fn a_bit_flipped_anywhere_in_a_closed_segment_is_found_in_its_place_once_a_pass() {
    for (seed, tail) in [(1, Tail::Rewrite), (2, Tail::Pad)] {
        let scene = Scene::new(seed, options().with_tail(tail), 64 << 10);
        scene.fill(3);
        // The first segment, and one that the chain of frames leads into.
        every_flip_is_found_in_its_place(&scene, Lsn::ZERO, 37);
        every_flip_is_found_in_its_place(&scene, Lsn((64 << 10) - SEGMENT_HEADER), 151);
    }
}

#[test]
fn damage_in_a_segment_of_many_pieces_is_found_wherever_a_piece_ends() {
    let scene = Scene::new(3, large(), 1 << 20);
    scene.append(&[600_000]);
    scene.append(&[10; 3000]);
    scene.fill(2);
    every_flip_is_found_in_its_place(&scene, Lsn::ZERO, 4099);
    // Where one read ends and the next begins.
    let parts = scene.parts(Lsn::ZERO);
    for piece in 1..16 {
        let at = SEGMENT_HEADER + piece * (64 << 10);
        for at in [at - 1, at] {
            scene.disk.flip_bit(&scene.path(Lsn::ZERO), at, 0);
            assert_eq!(scene.pass(), u64::from(parts[usize::try_from(at).unwrap()].is_some()), "byte {at}");
            scene.disk.flip_bit(&scene.path(Lsn::ZERO), at, 0);
        }
    }
}

#[test]
fn a_segment_header_that_rots_is_written_anew_by_whoever_scrubs_it() {
    let scene = Scene::small(9);
    scene.fill(3);
    let path = scene.path(Lsn::ZERO);
    let whole = scene.disk.read(&path).unwrap();
    scene.disk.flip_bit(&path, 12, 3);
    assert_eq!(scene.pass(), 1, "it is found");
    assert!(scene.disk.read(&path).unwrap() == whole, "byte for byte");
    assert_eq!(scene.engine.damaged_places(), []);
    let stats = scene.engine.stats();
    assert_eq!((stats.mended_ranges, stats.mended_bytes), (1, SEGMENT_HEADER));
    // Unreadable is no different: what is written is not read before.
    scene.disk.break_sector(&path, 512);
    assert_eq!(scene.pass(), 1);
    assert!(scene.disk.read(&path).unwrap() == whole);
    // Without that the next start would refuse the log.
    let image = scene.disk.crash_with(3, Survival::Everything);
    let found = audit::survey(&*image.backend(), Path::new(DIR)).unwrap();
    assert!(found.is_clean(), "{:?}", found.damage);
}

#[test]
fn damage_does_not_hide_damage_behind_it() {
    let scene = Scene::small(4);
    let all = scene.fill(3);
    let (frame, record, behind) = (all[3].lsn, all[5].first.lsn, all[9].first.lsn);
    scene.flip(frame.plus(20), 1);
    scene.flip(record.plus(33), 2);
    scene.flip(behind.plus(33), 3);
    assert_eq!(scene.pass(), 3);
    assert_eq!(scene.pass(), 3, "once a pass");
    let places: Vec<_> = scene.engine.damaged_places().into_iter().map(|place| (place.lsn, place.part)).collect();
    let expected = [(frame, DamagedPart::FrameHeader), (record, DamagedPart::Record), (behind, DamagedPart::Record)];
    assert_eq!(places, expected, "and listed once");
}

#[test]
fn behind_a_damaged_header_the_next_frame_is_found_however_far_it_is() {
    let scene = Scene::new(23, large(), 1 << 20);
    let lost = scene.append(&[700_000]);
    let behind = scene.append(&[5000, 300]);
    scene.fill(2);
    scene.flip(lost.lsn.plus(8), 0);
    let victim = behind.rest[0].lsn;
    scene.flip(victim.plus(100), 7);
    assert_eq!(scene.pass(), 2);
    assert!(scene.listed(DamagedPart::FrameHeader, lost.lsn) && scene.listed(DamagedPart::Record, victim));
}

#[test]
fn a_clean_log_under_load_gives_no_report() {
    for (seed, tail, flush) in [
        (5, Tail::Rewrite, Flush::Sync),
        (6, Tail::Pad, Flush::Sync),
        (7, Tail::Rewrite, Flush::async_default()),
        (8, Tail::Pad, Flush::async_default()),
    ] {
        let scene = Scene::new(seed, options().with_tail(tail).with_flush(flush), 64 << 10);
        for round in 1..=20 {
            scene.fill(round);
            scene.clock.advance(HOUR / 3);
            (0..100).for_each(|_| scene.tick());
        }
        let stats = scene.engine.stats();
        assert!(stats.scrub_passes >= 5 && stats.scrubbed_bytes > 40 * (64 << 10), "{stats:?}");
        assert_eq!((stats.scrub_damaged, scene.engine.damaged_places()), (0, Vec::new()), "{tail:?} {flush:?}");
    }
}

#[test]
fn the_segment_that_is_being_written_is_left_alone() {
    let scene = Scene::small(9);
    scene.fill(2);
    let end = scene.engine.watermarks().assigned;
    assert_eq!(scene.pass(), 0);
    let bytes = scene.engine.stats().scrubbed_bytes;
    // Bytes that nobody has written yet, and one that was: it is a reader's until the segment is closed.
    scene.disk.overwrite(&scene.path(end), scene.offset(end) + 4096, &[0xA5; 5000]);
    assert_eq!(scene.pass(), 0);
    assert_eq!(scene.engine.stats().scrubbed_bytes - bytes, 2 * (64 << 10), "two segments are closed");
}

#[test]
fn a_segment_that_is_recycled_under_the_scrub_gives_no_report() {
    // Slow enough that segments come and go while one is read.
    for (seed, rate) in [(10, 1 << 20), (11, 4 << 20), (12, 16 << 20), (13, 64 << 20)] {
        let options = large().with_scrub_rate(rate).with_retain_bytes(Some(2 << 20));
        let scene = Scene::new(seed, options, 1 << 20);
        for number in 0..1500 {
            scene.append(&[4000 + number % 7 * 1000, 30]);
            if number % 300 == 0 {
                scene.clock.advance(HOUR);
            }
        }
        let stats = scene.engine.stats();
        assert!(stats.recycled_segments > 5 && stats.scrubbed_bytes > 1 << 20, "{stats:?}");
        assert_eq!((stats.scrub_damaged, scene.engine.damaged_places()), (0, Vec::new()), "{stats:?}");
    }
}

#[test]
fn a_damaged_place_is_forgotten_with_its_segment() {
    let scene = Scene::small(14);
    let all = scene.fill(4);
    scene.flip(all[2].first.lsn.plus(33), 0);
    scene.flip(all.iter().rfind(|outcome| outcome.lsn < Lsn(3 * 61440)).unwrap().first.lsn.plus(33), 0);
    assert_eq!(scene.pass(), 2);
    scene.engine.release(Lsn(2 * 61440)).map(drop).unwrap();
    for _ in 0..100 {
        scene.tick();
    }
    let places = scene.engine.damaged_places();
    assert_eq!(places.len(), 1, "{places:?}");
    assert!(places[0].lsn >= Lsn(2 * 61440));
}

#[test]
fn the_scrub_keeps_to_its_rate_and_can_be_turned_off() {
    let reads = |rate: u64, time: Duration| {
        // Checkpoints read, too.
        let options = large().with_scrub_rate(rate).with_checkpoint_interval(None);
        let scene = Scene::new(15, options, 1 << 20);
        scene.fill(4);
        let (bytes, reads) = (scene.engine.stats().scrubbed_bytes, scene.disk.count(IoClass::Read));
        let step = Duration::from_millis(10);
        for _ in 0..time.as_millis() / step.as_millis() {
            scene.engine.step();
            scene.clock.advance(step);
        }
        (scene.engine.stats().scrubbed_bytes - bytes, scene.disk.count(IoClass::Read) - reads)
    };
    let (slow, _) = reads(64 << 10, Duration::from_secs(20));
    assert!((1 << 20..=(64 << 10) * 20 + (256 << 10)).contains(&slow), "{slow} bytes in 20 s at 64 KiB a second");
    let (idle, count) = reads(1 << 30, Duration::from_secs(60));
    assert!(idle <= 4 << 20 && count < 40, "a pass over four segments, then rest: {idle} bytes, {count} reads");
    assert_eq!(reads(0, Duration::from_secs(60)), (0, 0));
}

#[test]
fn a_rate_that_is_too_low_is_refused_by_name() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::default()));
    let error = Engine::open_with(disk.backend(), clock, Path::new(DIR), options().with_scrub_rate(1000)).unwrap_err();
    assert!(error.to_string().contains("scrub_rate"), "{error}");
}

#[test]
fn blocks_that_cannot_be_read_are_found_and_located() {
    let scene = Scene::small(16);
    let all = scene.fill(3);
    // One record of several blocks, in the middle of which a sector is bad.
    let victim =
        all.iter().find(|outcome| outcome.rest.is_empty() && outcome.end_lsn.since(outcome.lsn) > 9000).unwrap();
    let inside = victim.first.lsn.plus(4096);
    scene.disk.break_sector(&scene.path(inside), scene.offset(inside));
    assert_eq!(scene.pass(), 1);
    let places = scene.engine.damaged_places();
    assert_eq!((places.len(), places[0].lsn, places[0].part), (1, victim.first.lsn, DamagedPart::Record));
    assert!(places[0].what.contains("cannot be read"), "{}", places[0].what);
}

#[test]
fn the_housekeeping_thread_scrubs_beside_commits() {
    let dir = tempfile::Builder::new().prefix("anchorlog-test-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let backend: Arc<dyn IoBackend> = Arc::new(ThreadsBackend::new());
    let options = EngineOptions::default()
        .with_segment_bytes(256 << 10)
        .with_buffer_bytes(1 << 20)
        .with_chunk_bytes(64 << 10)
        .with_cache_bytes((1 << 20) + (128 << 10))
        .with_scrub_rate(64 << 20);
    let clock = Arc::new(SystemClock::new());
    let engine = Engine::open_with(backend, clock, dir.path(), options).unwrap();
    let queue = engine.queue(b"q").unwrap();
    let mut number = 0_u64;
    while engine.stats().scrubbed_bytes < 2 << 20 && number < 20_000 {
        let mut batch = WriteBatch::new();
        let body = [number.to_le_bytes(); 300];
        batch
            .append(&Append { queue: &queue, tag: 1, keys: &[], attributes: b"", payload: &[body.as_flattened()] })
            .unwrap();
        engine.append_and_wait(batch).unwrap();
        number += 1;
    }
    let stats = engine.stats();
    assert!(stats.scrubbed_bytes >= 64 << 10, "{stats:?}");
    assert_eq!(stats.scrub_damaged, 0, "{:?}", engine.damaged_places());
    engine.close().unwrap();
}

/// Closes K-31 (one bad record costs the region behind it).
#[test]
fn a_damaged_record_in_the_middle_of_a_fetch_costs_that_record_alone() {
    let scene = Scene::small(17);
    let all = scene.fill(5);
    let positions: Vec<_> = all.iter().flat_map(AppendOutcome::positions).collect();
    let victim = positions[20];
    scene.flip(victim.lsn.plus(33), 4);

    let before = scene.fetch(0, None).unwrap();
    assert_eq!((before.status, before.messages.len(), before.next), (FetchStatus::Found, 20, QueueOffset(20)));
    assert_eq!(scene.engine.stats().damaged_records, 1, "it was met at the end of that fetch");
    match scene.fetch(20, None) {
        Err(ReadError::Damaged { lsn, path, .. }) => assert_eq!((lsn, path), (victim.lsn, scene.path(victim.lsn))),
        other => panic!("{other:?}"),
    }
    assert!(matches!(scene.engine.read(victim.lsn), Err(ReadError::Damaged { lsn, .. }) if lsn == victim.lsn));
    assert_eq!(scene.engine.stats().damaged_records, 3, "counted each time");
    assert!(scene.listed(DamagedPart::Record, victim.lsn));
    assert_eq!(scene.engine.damaged_places().len(), 1, "listed once");

    for (next, position) in (21..).zip(&positions[21..]) {
        let message = scene.engine.read(position.lsn).unwrap();
        assert_eq!(message.queue_offset, QueueOffset(next));
    }
    let behind = scene.fetch(21, None).unwrap();
    assert_eq!((behind.status, behind.messages[0].lsn), (FetchStatus::Found, positions[21].lsn));
}

#[test]
fn a_fetch_that_skips_by_tag_says_which_offset_is_damaged() {
    let scene = Scene::small(18);
    let first = scene.append(&[300; 6]);
    scene.fill(4);
    let victim = first.positions().nth(4).unwrap();
    scene.flip(victim.lsn.plus(100), 0);
    // Offsets 0 to 3 have other tags: the error comes when the damaged one is the first that is asked for.
    let found = scene.fetch(0, Some(4)).unwrap();
    assert_eq!((found.status, found.next), (FetchStatus::NoMatch, QueueOffset(4)));
    assert!(matches!(scene.fetch(4, Some(4)), Err(ReadError::Damaged { lsn, .. }) if lsn == victim.lsn));
    assert_eq!(scene.fetch(5, Some(5)).unwrap().status, FetchStatus::Found);
    assert_eq!(scene.fetch(0, Some(2)).unwrap().messages[0].queue_offset, QueueOffset(2), "its tag did not match");
}

#[test]
fn a_message_whose_headers_are_damaged_is_damaged_and_not_unknown() {
    // Bytes of the record's header that its look-up by LSN needs: length, frame offset; and of the frame's header, from magic to entry.
    let of_record = (0..32).collect::<Vec<u64>>();
    let of_frame = [0, 4, 5, 6, 9, 13, 16, 30, 33, 44, 62, 64, 68, 79];
    for (seed, inside_record, at) in
        of_record.into_iter().map(|at| (19, true, at)).chain(of_frame.into_iter().map(|at| (20, false, at)))
    {
        let scene = Scene::small(seed);
        let all = scene.fill(4);
        let victim = all.iter().find(|outcome| outcome.lsn > Lsn(20_000)).unwrap();
        let lsn = victim.first.lsn;
        scene.flip(if inside_record { lsn.plus(at) } else { victim.lsn.plus(at) }, 1);
        match scene.engine.read(lsn) {
            Err(ReadError::Damaged { lsn: found, path, .. }) => assert_eq!((found, path), (lsn, scene.path(lsn))),
            other => panic!("byte {at}, in the record: {inside_record}: {other:?}"),
        }
        assert_eq!(scene.engine.stats().damaged_records, 1);
        // The queue knows where its messages are: a frame's header is not asked.
        let fetched = scene.fetch(victim.first.queue_offset.0, None);
        assert_eq!(fetched.is_ok(), !inside_record, "byte {at}");
        for other in all.iter().filter(|other| other.lsn != victim.lsn).flat_map(AppendOutcome::positions) {
            assert_eq!(scene.engine.read(other.lsn).unwrap().queue_offset, other.queue_offset);
        }
    }
}

#[test]
fn where_no_message_begins_none_is_found_and_nothing_is_damaged() {
    for tail in [Tail::Rewrite, Tail::Pad] {
        let scene = Scene::new(21, options().with_tail(tail), 64 << 10);
        let all = scene.fill(3);
        let begins: Vec<_> = all.iter().flat_map(AppendOutcome::positions).map(|position| position.lsn).collect();
        let end = scene.engine.watermarks().assigned;
        for lsn in (0..end.0).step_by(8).chain([1, 61441, end.0 + 8, u64::MAX / 2]).map(Lsn) {
            match scene.engine.read(lsn) {
                Ok(message) => assert!(begins.contains(&message.lsn), "{lsn}"),
                Err(ReadError::NotFound(found)) => assert!(found == lsn && !begins.contains(&lsn), "{lsn}: {found}"),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(scene.engine.stats().damaged_records, 0);
    }
}

#[test]
fn a_bad_sector_costs_the_messages_that_lie_on_it() {
    let scene = Scene::small(22);
    let all = scene.fill(5);
    let bad = 9 * 4096..10 * 4096_u64;
    scene.disk.break_sector(&scene.path(Lsn::ZERO), SEGMENT_HEADER + bad.start);
    let positions: Vec<_> = all.iter().flat_map(AppendOutcome::positions).collect();
    let mut lost = 0;
    for (number, position) in positions.iter().enumerate() {
        let end = all.iter().map(|outcome| outcome.end_lsn).find(|end| *end > position.lsn).unwrap();
        let end = positions.get(number + 1).map_or(end, |next| next.lsn.min(end));
        let hit = position.lsn.0 < bad.end && end.0 > bad.start;
        match scene.fetch(u64::try_from(number).unwrap(), None) {
            Ok(found) => assert!(!hit && found.messages[0].lsn == position.lsn, "{position:?}"),
            Err(ReadError::Io { lsn, .. }) => {
                assert!(hit && lsn == position.lsn, "{position:?}");
                lost += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(lost > 0 && lost < 40, "{lost}");
    assert!(scene.engine.stats().damaged_records >= lost, "unreadable is as bad as damaged");
}
