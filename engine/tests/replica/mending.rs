//! A range that is damaged on one side comes from the other while both are open: whole, and never anything else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anchorlog_engine::commitlog::frame::FrameKind;
use anchorlog_engine::io::sim::{IoClass, SimDisk, Survival, Times};
use anchorlog_engine::{DamagedRange, EngineOptions, Lsn, MendError, Role, Tail};

use crate::pair::{DIR, Node, append, beginning_of, body, bytes_from, follow, payloads};

const SEGMENT: u64 = 64 << 10;
const HEADER: u64 = 4096;
const DATA: u64 = SEGMENT - HEADER;
const HOUR: Duration = Duration::from_secs(3600);

fn options(tail: Tail) -> EngineOptions {
    crate::pair::options().with_scrub_rate(1 << 30).with_tail(tail)
}

/// A leader and a replica with the same four segments, three of them closed.
struct Scene {
    leader: Node,
    replica: Node,
    options: EngineOptions,
}

impl Scene {
    fn new(tail: Tail) -> Scene {
        Scene::from(tail, 0)
    }

    /// With messages that are numbered from `first` on.
    fn from(tail: Tail, first: u64) -> Scene {
        let options = options(tail);
        let leader = Node::open(SimDisk::new(1), options.clone()).unwrap();
        let disk = SimDisk::new(2);
        let beginning = beginning_of(leader.engine());
        anchorlog_engine::replica::Seeding::begin(disk.backend(), DIR, &beginning, &options).unwrap().finish().unwrap();
        let replica = Node::open(disk, options.clone().with_role(Role::Replica)).unwrap();
        let scene = Scene { leader, replica, options };
        for number in first.. {
            if scene.leader.engine().watermarks().assigned > Lsn(3 * DATA + 2000) {
                break;
            }
            append(
                scene.leader.engine(),
                "q",
                &body(number, [300, 6000, 40, 2500][usize::try_from(number % 4).unwrap()]),
            );
            scene.leader.settle();
            follow(&scene.leader, &scene.replica);
        }
        for node in [&scene.leader, &scene.replica] {
            node.pass(HOUR);
        }
        follow(&scene.leader, &scene.replica);
        scene
    }

    /// Whoever is damaged, and whoever is asked.
    fn sides(&self, is_leader: bool) -> (&Node, &Node) {
        if is_leader { (&self.leader, &self.replica) } else { (&self.replica, &self.leader) }
    }
}

fn path(lsn: Lsn) -> PathBuf {
    Path::new(DIR).join(format!("{:020}.seg", lsn.0 / DATA * DATA))
}

fn offset(lsn: Lsn) -> u64 {
    HEADER + lsn.0 % DATA
}

fn segments(disk: &SimDisk) -> Vec<Vec<u8>> {
    (0..3).map(|number| disk.read(&path(Lsn(number * DATA))).unwrap()).collect()
}

/// Where a frame begins, what follows it, and whether it holds records.
type Placed = (Lsn, Lsn, bool);

fn frames(node: &Node) -> Vec<Placed> {
    let log = bytes_from(node.engine(), Lsn::ZERO);
    let mut found = Vec::new();
    let mut at = 0;
    while at + 64 <= log.len() {
        let lsn = Lsn(at as u64);
        let end = lsn.0 / DATA * DATA + DATA;
        if end - lsn.0 < 64 {
            at = usize::try_from(end).unwrap();
            continue;
        }
        let header = anchorlog_engine::commitlog::frame::decode_anywhere(&log[at..]).unwrap();
        let next = lsn.plus(u64::from(header.frame_len));
        found.push((lsn, next, header.kind == FrameKind::Records));
        at = usize::try_from(next.0).unwrap();
    }
    found
}

/// The scrub goes over everything that is closed, from the beginning on.
fn scrub(node: &Node) {
    // One pass may be under way already.
    let before = node.engine().stats().scrub_passes;
    for step in 0..200_000 {
        if step % 1000 == 0 {
            node.clock.advance(HOUR);
        }
        node.engine().step();
        node.clock.advance(Duration::from_millis(1));
        if node.engine().stats().scrub_passes > before + 1 {
            return;
        }
    }
    panic!("the pass does not end");
}

fn bytes_of(node: &Node, range: &DamagedRange) -> Vec<u8> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < range.len() {
        let left = usize::try_from(range.len()).unwrap() - bytes.len();
        let pieces = node.engine().log_bytes(range.from.plus(bytes.len() as u64), left).unwrap();
        pieces.iter().for_each(|piece| bytes.extend_from_slice(piece.as_ref()));
    }
    bytes
}

/// Mends what is found, as often as something is; returns how many ranges that were.
fn mend(hurt: &Node, whole: &Node) -> Result<usize, MendError> {
    let mut count = 0;
    loop {
        let ranges = hurt.engine().damaged_ranges()?;
        if ranges.is_empty() {
            return Ok(count);
        }
        let mut refused = None;
        let before = count;
        for range in ranges {
            match hurt.engine().mend(&range, &bytes_of(whole, &range)) {
                Ok(_) => count += 1,
                Err(error) => refused = Some(error),
            }
        }
        if let Some(error) = refused.filter(|_| count == before) {
            return Err(error);
        }
    }
}

struct Hurt {
    name: &'static str,
    hurt: fn(&SimDisk, &[Placed]),
    ranges: usize,
}

/// The frame that begins at or behind the middle of a segment.
fn middle(frames: &[Placed], segment: u64) -> usize {
    frames.iter().position(|(lsn, _, has_records)| *has_records && lsn.0 > segment * DATA + DATA / 2).unwrap()
}

fn flip(disk: &SimDisk, lsn: Lsn) {
    disk.flip_bit(&path(lsn), offset(lsn), 3);
}

fn hurts() -> Vec<Hurt> {
    vec![
        Hurt { name: "a header", hurt: |disk, frames| flip(disk, frames[middle(frames, 1)].0.plus(20)), ranges: 1 },
        Hurt { name: "a record", hurt: |disk, frames| flip(disk, Lsn(frames[middle(frames, 1)].1.0 - 20)), ranges: 1 },
        Hurt {
            name: "a header and a record of one frame",
            hurt: |disk, frames| {
                let (from, to, _) = frames[middle(frames, 1)];
                flip(disk, from.plus(9));
                flip(disk, Lsn(to.0 - 20));
            },
            ranges: 1,
        },
        Hurt {
            name: "ranges that touch",
            hurt: |disk, frames| {
                let at = middle(frames, 1);
                flip(disk, frames[at].0.plus(9));
                flip(disk, frames[at + 1].0.plus(9));
                flip(disk, Lsn(frames[at + 2].1.0 - 9));
            },
            ranges: 2,
        },
        Hurt {
            name: "frames in a row, and one elsewhere",
            hurt: |disk, frames| {
                let at = frames[middle(frames, 0)].0;
                disk.overwrite(&path(at), offset(at) + 11, &[0x5A; 14_000]);
                flip(disk, frames[middle(frames, 2)].0.plus(60));
            },
            ranges: 2,
        },
        Hurt { name: "the first frame of the log", hurt: |disk, _| flip(disk, Lsn(5)), ranges: 1 },
        Hurt { name: "the first frame of a segment", hurt: |disk, _| flip(disk, Lsn(2 * DATA + 5)), ranges: 1 },
        Hurt {
            name: "a segment's end and the next one's beginning",
            hurt: |disk, frames| {
                let last = frames.iter().rfind(|(lsn, ..)| lsn.0 < DATA - 6000).unwrap().0;
                let len = usize::try_from(SEGMENT - offset(last)).unwrap();
                disk.overwrite(&path(last), offset(last), &vec![0xFF; len]);
                flip(disk, Lsn(DATA + 5));
            },
            ranges: 2,
        },
        Hurt {
            name: "a sector that cannot be read",
            hurt: |disk, frames| {
                let at = frames[middle(frames, 1)].0;
                disk.break_sector(&path(at), offset(at) + 600);
            },
            ranges: 1,
        },
    ]
}

#[test]
fn what_is_damaged_on_either_side_comes_back_byte_for_byte_from_the_other() {
    for tail in [Tail::Rewrite, Tail::Pad] {
        let scene = Scene::new(tail);
        let frames = frames(&scene.leader);
        for is_leader in [true, false] {
            for Hurt { name, hurt, ranges } in hurts() {
                let (damaged, whole) = scene.sides(is_leader);
                let before = segments(&damaged.disk);
                let stats = damaged.engine().stats();
                hurt(&damaged.disk, &frames);
                scrub(damaged);
                assert!(!damaged.engine().damaged_places().is_empty(), "{name}: it is found");
                let mended = mend(damaged, whole).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(mended, ranges, "{name}, {tail:?}, leader {is_leader}");
                assert!(segments(&damaged.disk) == before, "{name}: other bytes than before");
                assert_eq!(damaged.engine().damaged_places(), [], "{name}");
                let now = damaged.engine().stats();
                assert_eq!(now.mended_ranges - stats.mended_ranges, ranges as u64, "{name}");
                assert!(now.mended_bytes > stats.mended_bytes, "{name}");
                scrub(damaged);
                assert_eq!(damaged.engine().damaged_places(), [], "{name}: it stays whole");
                assert_eq!(payloads(damaged.engine(), "q"), payloads(whole.engine(), "q"), "{name}");
            }
        }
    }
}

#[test]
fn a_record_that_a_reader_found_damaged_in_the_newest_segment_is_mended_when_its_block_is_settled() {
    let scene = Scene::new(Tail::Rewrite);
    for number in 0..12 {
        append(scene.leader.engine(), "q", &body(number, 2500));
        follow(&scene.leader, &scene.replica);
    }
    scene.leader.pass(HOUR);
    let all = frames(&scene.leader);
    let victim = all.iter().find(|(lsn, _, has_records)| *has_records && lsn.0 > 3 * DATA + 3000).unwrap().1;
    let before = scene.leader.disk.read(&path(victim)).unwrap();
    // What was just opened has nothing in memory that would know better.
    let mut leader = scene.leader;
    leader.close();
    let hurt = Node::open(leader.disk, scene.options.clone()).unwrap();
    flip(&hurt.disk, Lsn(victim.0 - 20));
    let queue = hurt.engine().queue(b"q").unwrap();
    let range = hurt.engine().range(&queue);
    let mut next = range.min;
    while next < range.max {
        let fetch = anchorlog_engine::Fetch { messages_max: 1, ..anchorlog_engine::Fetch::new(&queue, next) };
        let _met = hurt.engine().fetch(&fetch).is_err();
        next = anchorlog_engine::QueueOffset(next.0 + 1);
    }
    assert_eq!(hurt.engine().damaged_places().len(), 1);
    assert_eq!(mend(&hurt, &scene.replica).unwrap(), 1);
    let after = hurt.disk.read(&path(victim)).unwrap();
    let end = usize::try_from(offset(victim)).unwrap();
    assert!(after[..end] == before[..end]);
    assert_eq!(hurt.engine().damaged_places(), []);
    assert_eq!(payloads(hurt.engine(), "q"), payloads(scene.replica.engine(), "q"));
}

#[test]
fn wherever_the_power_fails_in_a_mend_nothing_beside_it_changes_and_it_is_done_again() {
    let scene = Scene::new(Tail::Rewrite);
    let frames = frames(&scene.leader);
    let mut stopped = 0;
    for Hurt { name, hurt, .. } in hurts() {
        for survival in [Survival::Nothing, Survival::Seeded, Survival::Everything] {
            for after in 0_u64.. {
                let disk = scene.leader.disk.crash_with(1, Survival::Everything);
                let before = segments(&disk);
                let node = Node::open(disk, scene.options.clone()).unwrap();
                node.settle();
                hurt(&node.disk, &frames);
                scrub(&node);
                let hurt_bytes = segments(&node.disk);
                node.disk.stop_after(node.disk.io_count() + after);
                let mended = mend(&node, &scene.replica);
                let is_dead = node.disk.is_dead();
                assert!(is_dead || mended.is_ok(), "{name}: {mended:?}");
                let disk = node.disk.crash_with(after + 7, survival);
                for (now, (before, hurt)) in segments(&disk).iter().zip(before.iter().zip(&hurt_bytes)) {
                    for (at, sector) in now.chunks(512).enumerate() {
                        let place = at * 512..at * 512 + 512;
                        let is_known = *sector == before[place.clone()] || *sector == hurt[place];
                        assert!(is_known, "{name}: sector {at} is neither damaged nor whole");
                    }
                }
                // Damage may keep the log from opening: `audit` has a word for that.
                if let Ok(again) = Node::open(disk, scene.options.clone()) {
                    again.settle();
                    scrub(&again);
                    mend(&again, &scene.replica).unwrap();
                    assert!(segments(&again.disk) == before, "{name}, power off after {after}");
                }
                if !is_dead {
                    break;
                }
                stopped += 1;
            }
        }
    }
    assert!(stopped > 100, "the power failed {stopped} times only");
}

#[test]
fn a_write_that_fails_leaves_the_range_damaged_and_the_log_as_it_was() {
    let scene = Scene::new(Tail::Rewrite);
    let frames = frames(&scene.leader);
    let before = segments(&scene.replica.disk);
    flip(&scene.replica.disk, frames[middle(&frames, 1)].0.plus(9));
    scrub(&scene.replica);
    let next = scene.replica.disk.count(IoClass::Write) + 1;
    scene.replica.disk.fail(IoClass::Write, next, 5, Times::Once);
    let error = mend(&scene.replica, &scene.leader).unwrap_err();
    assert!(matches!(error, MendError::Io { .. }), "{error}");
    assert!(scene.replica.engine().fenced().is_none(), "the log itself was not written");
    assert_eq!(scene.replica.engine().damaged_places().len(), 1);
    assert_eq!(mend(&scene.replica, &scene.leader).unwrap(), 1);
    assert!(segments(&scene.replica.disk) == before);
}

#[test]
fn bytes_that_are_damaged_there_as_well_are_refused_and_nothing_is_written() {
    let scene = Scene::new(Tail::Rewrite);
    let all = frames(&scene.leader);
    let at = middle(&all, 1);
    for (ours, theirs) in [(9, 9), (9, 70), (70, 9), (70, 70)] {
        let (leader, replica) = (&scene.leader, &scene.replica);
        flip(&leader.disk, all[at].0.plus(ours));
        flip(&replica.disk, all[at].0.plus(theirs));
        scrub(leader);
        let before = segments(&leader.disk);
        let ranges = leader.engine().damaged_ranges().unwrap();
        assert_eq!((ranges[0].from, ranges[0].to), (all[at].0, all[at].1));
        let error = leader.engine().mend(&ranges[0], &bytes_of(replica, &ranges[0])).unwrap_err();
        assert!(matches!(&error, MendError::NotWhole { lsn, .. } if *lsn == all[at].0), "{error}");
        assert!(segments(&leader.disk) == before);
        assert!(leader.engine().damaged_ranges().unwrap() == ranges, "it stays on the list");
        flip(&leader.disk, all[at].0.plus(ours));
        flip(&replica.disk, all[at].0.plus(theirs));
        assert_eq!(leader.engine().damaged_ranges().unwrap(), [], "and goes when the bytes are back");
    }
    assert_eq!(scene.leader.engine().damaged_places(), []);
}

#[test]
fn nothing_is_put_where_it_does_not_belong() {
    let scene = Scene::new(Tail::Rewrite);
    let (hurt, whole) = scene.sides(false);
    let all = frames(whole);
    let at = middle(&all, 1);
    flip(&hurt.disk, all[at].0.plus(9));
    scrub(hurt);
    let before = segments(&hurt.disk);
    let range = hurt.engine().damaged_ranges().unwrap().remove(0);
    let right = bytes_of(whole, &range);
    let log = bytes_from(whole.engine(), Lsn::ZERO);
    // A whole frame of another place, too few bytes, too many, other bytes.
    let other = usize::try_from(all[at + 4].0.0).unwrap();
    let wrong = [log[other..other + right.len()].to_vec(), right[..right.len() - 8].to_vec(), vec![0; right.len()]];
    for bytes in &wrong {
        let error = hurt.engine().mend(&range, bytes).unwrap_err();
        assert!(matches!(error, MendError::NotWhole { .. } | MendError::Length { .. }), "{error}");
    }
    assert!(segments(&hurt.disk) == before);
    // In another log something else that is whole stands there.
    let stranger = Scene::from(Tail::Rewrite, 1000).leader;
    let error = stranger.engine().mend(&range, &right).unwrap_err();
    assert!(matches!(error, MendError::Differs(lsn) if lsn == range.from), "{error}");
    let mended = hurt.engine().mend(&range, &right).unwrap();
    assert!(mended.written > 0 && mended.written.is_multiple_of(4096) && mended.rest.is_none(), "{mended:?}");
    assert_eq!(hurt.engine().mend(&range, &right).unwrap().written, 0, "what is whole is not written again");
}

#[test]
fn a_long_range_is_mended_in_pieces_of_whole_frames_from_its_beginning_on() {
    for tail in [Tail::Rewrite, Tail::Pad] {
        let scene = Scene::new(tail);
        let (hurt, whole) = scene.sides(true);
        let before = segments(&hurt.disk);
        let all = frames(whole);
        let last = all[middle(&all, 1)].1;
        // From a segment's first frame on, with whole ones in between.
        hurt.disk.overwrite(&path(Lsn(DATA)), HEADER, &vec![0x5A; usize::try_from(last.0 - DATA).unwrap()]);
        scrub(hurt);
        let ranges = hurt.engine().damaged_ranges().unwrap();
        assert_eq!((ranges.len(), ranges[0].from, ranges[0].to), (1, Lsn(DATA), last));
        let mut left = Some(ranges[0].clone());
        let mut ends = Vec::new();
        while let Some(range) = left {
            let bytes = bytes_of(whole, &range);
            // Any cut is right that holds a frame; what lies behind its last whole frame waits for the next piece.
            let piece = bytes.len().min(7000);
            let mended = hurt.engine().mend(&range, &bytes[..piece]).unwrap();
            assert!(mended.to > range.from && mended.to <= range.from.plus(piece as u64), "{mended:?}");
            assert!(all.iter().any(|(_, end, _)| *end == mended.to), "{} is within a frame", mended.to);
            if let Some(rest) = &mended.rest {
                let again = hurt.engine().damaged_ranges().unwrap();
                assert_eq!((again[0].from, again[0].to), (rest.from, rest.to), "what was mended is whole");
                // Not even one frame.
                let few = &bytes_of(whole, rest)[..40];
                assert!(matches!(hurt.engine().mend(rest, few), Err(MendError::Length { .. })));
                // What does not follow what was mended.
                let other = bytes_of(whole, &ranges[0])[..piece.min(usize::try_from(rest.len()).unwrap())].to_vec();
                assert!(matches!(hurt.engine().mend(rest, &other), Err(MendError::NotWhole { .. })));
            }
            ends.push(mended.to);
            left = mended.rest;
        }
        assert!(ends.len() > 3, "{ends:?}");
        assert!(segments(&hurt.disk) == before, "{tail:?}");
        assert_eq!(hurt.engine().damaged_places(), []);
    }
}

#[test]
fn what_is_no_longer_in_the_log_is_not_mended() {
    let scene = Scene::new(Tail::Rewrite);
    let all = frames(&scene.leader);
    flip(&scene.leader.disk, all[middle(&all, 0)].0.plus(9));
    scrub(&scene.leader);
    let range = scene.leader.engine().damaged_ranges().unwrap().remove(0);
    let bytes = bytes_of(&scene.replica, &range);
    scene.leader.engine().release(Lsn(DATA)).map(drop).unwrap();
    scene.leader.pass(HOUR);
    assert_eq!(scene.leader.engine().watermarks().start, Lsn(DATA));
    assert!(matches!(scene.leader.engine().mend(&range, &bytes), Err(MendError::Gone(_))));
    assert_eq!(scene.leader.engine().damaged_ranges().unwrap(), []);
}
