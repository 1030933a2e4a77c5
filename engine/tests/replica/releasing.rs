//! What the leader lets go goes on its replicas, and what survives there survives on them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anchorlog_engine::io::sim::{SimDisk, Survival};
use anchorlog_engine::replica::{Seed, SeedError, Seeding, wipe};
use anchorlog_engine::{
    Append, AppendError, DamagedRange, Engine, EngineOptions, Fetch, Lsn, MendError, OpenError, Put, QueueOffset,
    ReadError, ReceiveError, Role, WriteBatch,
};

use crate::pair::{self, DIR, Node, append, body, bytes_from, follow, payloads};

const SEGMENT: u64 = 60 << 10;

fn options() -> EngineOptions {
    pair::options().with_checkpoint_interval(Some(Duration::from_millis(100)))
}

fn replica_options() -> EngineOptions {
    options().with_role(Role::Replica)
}

fn rest(node: &Node) {
    for _ in 0..300 {
        node.engine().step();
        node.clock.advance(Duration::from_millis(5));
    }
}

/// Messages that table entries hold, by the numbers of those.
type Kept = BTreeMap<u64, Lsn>;

/// Much that nobody needs, a few messages that entries refer to, and a queue of which the last ones are pinned.
fn fill(node: &Node, rounds: std::ops::Range<u64>) -> Kept {
    let engine = node.engine();
    let half = engine.queue(b"half").unwrap();
    let mut kept = Kept::new();
    for round in rounds {
        let mut batch = WriteBatch::new();
        let text = body(round, 300);
        let append_half = Append { queue: &half, tag: 1, keys: &[], attributes: b"", payload: &[&text] };
        let message = batch.append(&append_half).unwrap();
        let key = format!("txn/{round}");
        batch.put(&Put { key: key.as_bytes(), value: b"half", target: Some(message.into()) }).unwrap();
        kept.insert(round, engine.try_append(&mut batch).unwrap().outcome().first.lsn);
        for number in 0..9 {
            append(engine, "filler", &body(number, 3000));
            node.settle();
        }
        append(engine, "pinned", &body(round, 500));
        node.settle();
    }
    kept
}

fn release(node: &Node) {
    let asked = node.engine().release(node.engine().watermarks().acked).unwrap();
    rest(node);
    assert_eq!(node.engine().watermarks().start, asked.start, "{:?}", node.engine().retention());
}

/// A leader that has let most of its log go.
fn released() -> (Node, Kept) {
    let leader = Node::open(SimDisk::new(1), options()).unwrap();
    let mut kept = fill(&leader, 0..6);
    let pinned = leader.engine().queue(b"pinned").unwrap();
    leader.engine().pin_queue("reader", &pinned, Some(QueueOffset(3)));
    kept.extend(fill(&leader, 6..12));
    release(&leader);
    assert!(leader.engine().retention().sparse_segments >= 3, "{:?}", leader.engine().retention());
    // Runs that began behind the start.
    let mut leader = leader;
    for run in 0..2 {
        leader.close();
        leader = Node::open(leader.disk.clone(), options().with_retention_held(true)).unwrap();
        kept.extend(fill(&leader, 12 + run..13 + run));
    }
    (leader, kept)
}

fn check_kept(engine: &Engine, kept: &Kept) {
    for (round, lsn) in kept {
        assert_eq!(engine.read(*lsn).unwrap().payload(), body(*round, 300));
        assert_eq!(engine.get(format!("txn/{round}").as_bytes()).unwrap().unwrap().target, Some(*lsn));
    }
}

fn check_same(leader: &Engine, replica: &Engine, kept: &Kept) {
    let start = leader.watermarks().start;
    assert_eq!(replica.watermarks().start, start, "{:?}", replica.retention());
    let counts = |engine: &Engine| (engine.retention().sparse_segments, engine.retention().survivors);
    assert_eq!(counts(replica), counts(leader));
    assert_eq!(bytes_from(replica, start), bytes_from(leader, start));
    check_kept(replica, kept);
    let queue = replica.queue(b"filler").unwrap();
    let theirs = leader.queue(b"filler").unwrap();
    assert_eq!(replica.range(&queue), leader.range(&theirs));
}

fn pinned_from(engine: &Engine, from: u64) -> Vec<Vec<u8>> {
    let queue = engine.queue(b"pinned").unwrap();
    let found = engine.fetch(&Fetch { messages_max: 100, ..Fetch::new(&queue, QueueOffset(from)) }).unwrap();
    found.messages.iter().map(|message| message.payload().to_vec()).collect()
}

/// Carries what survives below the start, and then begins to follow.
fn bootstrap(leader: &Engine, disk: &SimDisk, cut: usize) -> Result<Seed, SeedError> {
    let seed = leader.seed().unwrap();
    let mut seeding = Seeding::begin(disk.backend(), DIR, &seed, &options())?;
    for range in seed.sparse.iter().flat_map(|segment| &segment.ranges) {
        let mut at = range.start;
        while at < range.end {
            let most = cut.min(usize::try_from(range.end.since(at)).unwrap());
            for piece in leader.sparse_bytes(at, most).unwrap() {
                seeding.write(at, piece.as_ref())?;
                at = at.plus(piece.len() as u64);
            }
        }
    }
    seeding.finish()?;
    Ok(seed)
}

/// Gives a replica what lies behind its end, as far as the leader has it.
fn carry(leader: &Engine, replica: &Node) -> Result<(), ReceiveError> {
    pair::ship(leader, replica.engine(), 5000)?;
    replica.settle();
    replica.engine().set_replicated(leader.watermarks().acked);
    rest(replica);
    Ok(())
}

/// Where the messages of a queue are.
fn places(engine: &Engine, queue: &str) -> Vec<Lsn> {
    let queue = engine.queue(queue.as_bytes()).unwrap();
    let found = engine.fetch(&Fetch { messages_max: 100, ..Fetch::new(&queue, QueueOffset(0)) }).unwrap();
    found.messages.iter().map(|message| message.lsn).collect()
}

#[test]
fn a_replica_lets_go_what_its_leader_lets_go_and_keeps_what_it_keeps() {
    let leader = Node::open(SimDisk::new(1), options()).unwrap();
    let mut replica = Node::replica_of(leader.engine(), 2);
    replica.close();
    let replica = Node::open(replica.disk.clone(), replica_options()).unwrap();
    let kept = fill(&leader, 0..8);
    follow(&leader, &replica);
    let told = replica.engine().watermarks().acked;
    replica.engine().release(told).map(drop).unwrap();
    rest(&replica);
    assert_eq!(replica.engine().watermarks().start, Lsn::ZERO, "it decides nothing by itself");
    release(&leader);
    // It has the leader's word for it, but not that it is committed.
    pair::ship(leader.engine(), replica.engine(), 5000).unwrap();
    rest(&replica);
    assert_eq!(replica.engine().watermarks().start, Lsn::ZERO);
    follow(&leader, &replica);
    rest(&replica);
    check_same(leader.engine(), replica.engine(), &kept);
    // Fewer survive: those segments go, too.
    for round in 0..7 {
        let mut batch = WriteBatch::new();
        batch.delete(format!("txn/{round}").as_bytes()).unwrap();
        leader.engine().try_append(&mut batch).map(drop).unwrap();
    }
    rest(&leader);
    follow(&leader, &replica);
    rest(&replica);
    let kept: Kept = kept.into_iter().filter(|(round, _)| *round >= 7).collect();
    check_same(leader.engine(), replica.engine(), &kept);
    let files =
        |node: &Node| node.disk.files().iter().filter(|path| path.to_string_lossy().ends_with(".sparse")).count();
    assert_eq!(files(&replica), files(&leader));
}

const HEADER: u64 = 4096;

fn sparse_path(lsn: Lsn) -> PathBuf {
    Path::new(DIR).join(format!("{:020}.sparse", lsn.0 / SEGMENT * SEGMENT))
}

/// Where the frame of the record at `lsn` begins, by what the record says.
fn frame_of(disk: &SimDisk, lsn: Lsn) -> Lsn {
    let bytes = disk.read(&sparse_path(lsn)).unwrap();
    let at = usize::try_from(HEADER + lsn.0 % SEGMENT + 8).unwrap();
    Lsn(lsn.0 - u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())))
}

/// What another node has at the place of a range, if it has anything.
fn sparse_bytes_of(node: &Node, range: &DamagedRange) -> Vec<u8> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < range.len() {
        let left = usize::try_from(range.len()).unwrap() - bytes.len();
        for piece in node.engine().sparse_bytes(range.from.plus(bytes.len() as u64), left).unwrap() {
            bytes.extend_from_slice(piece.as_ref());
        }
    }
    bytes
}

type HurtSurvivor = fn(&SimDisk, Lsn, Lsn);

const HURT_SURVIVORS: [(&str, HurtSurvivor); 6] = [
    ("the record", |disk, _, lsn| disk.flip_bit(&sparse_path(lsn), HEADER + lsn.0 % SEGMENT + 60, 2)),
    ("the record's header", |disk, _, lsn| disk.flip_bit(&sparse_path(lsn), HEADER + lsn.0 % SEGMENT + 9, 2)),
    ("the frame's header", |disk, frame, _| disk.flip_bit(&sparse_path(frame), HEADER + frame.0 % SEGMENT + 20, 2)),
    ("both headers", |disk, frame, lsn| {
        disk.flip_bit(&sparse_path(frame), HEADER + frame.0 % SEGMENT + 1, 2);
        disk.flip_bit(&sparse_path(lsn), HEADER + lsn.0 % SEGMENT + 10, 2);
    }),
    ("everything", |disk, frame, lsn| {
        let len = usize::try_from(lsn.since(frame)).unwrap() + 200;
        disk.overwrite(&sparse_path(frame), HEADER + frame.0 % SEGMENT, &vec![0x5A; len]);
    }),
    ("a sector that cannot be read", |disk, frame, _| {
        disk.break_sector(&sparse_path(frame), HEADER + frame.0 % SEGMENT);
    }),
];

#[test]
fn what_survives_below_the_start_is_mended_from_whoever_has_it() {
    let (leader, kept) = released();
    let disk = SimDisk::new(2);
    bootstrap(leader.engine(), &disk, 1 << 20).unwrap();
    let replica = Node::open(disk, replica_options()).unwrap();
    carry(leader.engine(), &replica).unwrap();
    let start = leader.engine().watermarks().start;
    let below: Vec<Lsn> = kept.values().copied().filter(|lsn| *lsn < start).collect();
    assert!(below.len() > 5);
    let survivors = |disk: &SimDisk| -> Vec<Vec<u8>> {
        let mut paths: Vec<PathBuf> = below.iter().map(|lsn| sparse_path(*lsn)).collect();
        paths.dedup();
        paths.iter().map(|path| disk.read(path).unwrap()).collect()
    };
    let (mut hurt, mut whole) = ((leader, options()), (replica, replica_options()));
    for _ in 0..2 {
        std::mem::swap(&mut hurt, &mut whole);
        let ((hurt, role), (whole, _)) = (&mut hurt, &whole);
        let before = survivors(&hurt.disk);
        for (name, harm) in HURT_SURVIVORS {
            for lsn in [below[0], below[below.len() / 2], below[below.len() - 1]] {
                hurt.close();
                harm(&hurt.disk, frame_of(&hurt.disk, lsn), lsn);
                *hurt = Node::open(hurt.disk.clone(), role.clone()).unwrap();
                assert!(hurt.engine().read(lsn).is_err(), "{name} at {lsn} is not noticed");
                let places = hurt.engine().damaged_places();
                assert!(!places.is_empty() && places.iter().all(|place| place.lsn < start), "{name}: {places:?}");
                let ranges = hurt.engine().damaged_ranges().unwrap();
                assert!(!ranges.is_empty() && ranges.iter().all(DamagedRange::is_sparse), "{name}: {ranges:?}");
                for range in ranges {
                    let right = sparse_bytes_of(whole, &range);
                    let mut wrong = right.clone();
                    let at = usize::try_from(lsn.since(range.from)).unwrap();
                    wrong[at + 40] ^= 1;
                    let error = hurt.engine().mend(&range, &wrong).unwrap_err();
                    assert!(matches!(error, MendError::NotWhole { .. } | MendError::Differs(_)), "{name}: {error}");
                    let mended = hurt.engine().mend(&range, &right).unwrap();
                    assert!(mended.written > 0 && mended.rest.is_none(), "{name}: {mended:?}");
                    assert_eq!(hurt.engine().mend(&range, &right).unwrap().written, 0, "{name}");
                }
                check_kept(hurt.engine(), &kept);
                assert_eq!(hurt.engine().damaged_ranges().unwrap(), [], "{name}");
                assert_eq!(hurt.engine().damaged_places(), [], "{name}");
                // Beside what survives a sector that could not be read is zeros now.
                let is_same = survivors(&hurt.disk) == before;
                assert!(is_same || name.contains("sector"), "{name}: other bytes than before");
            }
        }
    }
}

#[test]
fn a_new_replica_begins_where_its_leader_does_and_has_what_survives_below() {
    let (leader, kept) = released();
    for cut in [100, 5000, 1 << 20] {
        let disk = SimDisk::new(4);
        let seed = bootstrap(leader.engine(), &disk, cut).unwrap();
        assert!(seed.start > Lsn(2 * SEGMENT) && !seed.sparse.is_empty());
        let mut replica = Node::open(disk.clone(), replica_options()).unwrap();
        assert_eq!(replica.engine().watermarks().assigned, seed.start);
        carry(leader.engine(), &replica).unwrap();
        check_same(leader.engine(), replica.engine(), &kept);
        // The queue's older entries come with the next opening.
        replica.close();
        let lead = options().with_role(Role::Leader { term: Some(2) }).with_retention_held(true);
        let promoted = Node::open(disk, lead).unwrap();
        rest(&promoted);
        check_kept(promoted.engine(), &kept);
        assert!(pinned_from(promoted.engine(), 3) == pinned_from(leader.engine(), 3));
        assert_eq!(pinned_from(promoted.engine(), 3).len(), 11);
    }
}

#[test]
fn a_seed_goes_on_or_begins_again_whenever_the_power_fails() {
    let (leader, kept) = released();
    for last in 0.. {
        let disk = SimDisk::new(4);
        disk.stop_after(last);
        let done = bootstrap(leader.engine(), &disk, 3000).is_ok();
        let disk = disk.crash_with(last, Survival::Seeded);
        match Node::open(disk.clone(), replica_options()) {
            Ok(_) => {}
            Err(OpenError::HalfSeeded { .. } | OpenError::NoReplica { .. }) => {
                assert!(!done, "after {last}");
                bootstrap(leader.engine(), &disk, 3000).map(drop).unwrap();
            }
            Err(error) => panic!("after {last}: {error}"),
        }
        let replica = Node::open(disk.crash_with(1, Survival::Nothing), replica_options()).unwrap();
        carry(leader.engine(), &replica).unwrap();
        check_same(leader.engine(), replica.engine(), &kept);
        if done {
            return;
        }
    }
}

#[test]
fn letting_go_comes_to_its_end_whenever_the_power_fails() {
    // A replica that was there from the beginning has the whole log, of which the leader has let most go since.
    let leader = Node::open(SimDisk::new(1), options()).unwrap();
    let beginning = leader.engine().seed().unwrap();
    let kept = fill(&leader, 0..5);
    let whole = bytes_from(leader.engine(), Lsn::ZERO);
    release(&leader);
    let rest_of = bytes_from(leader.engine(), Lsn(whole.len() as u64));
    let all = [whole, rest_of].concat();
    let feed = |node: &Node| -> bool {
        let engine = node.engine();
        loop {
            let at = engine.watermarks().assigned;
            let begin = usize::try_from(at.0).unwrap();
            if begin == all.len() {
                break;
            }
            let end = all.len().min(begin + 20_000);
            match engine.receive(at, &all[begin..end]) {
                Ok(_) | Err(ReceiveError::Full { .. }) => {}
                Err(_) => return false,
            }
            engine.step();
            engine.set_replicated(leader.engine().watermarks().acked);
        }
        rest(node);
        engine.fenced().is_none()
    };
    let life = |disk: &SimDisk| -> bool {
        let begun = Seeding::begin(disk.backend(), DIR, &beginning, &options()).and_then(Seeding::finish);
        begun.is_ok() && Node::open(disk.clone(), replica_options()).is_ok_and(|node| feed(&node))
    };
    let count = {
        let disk = SimDisk::new(6);
        assert!(life(&disk));
        disk.io_count()
    };
    // What comes before is another test's.
    for last in (count * 2 / 3..count).step_by(3) {
        let disk = SimDisk::new(6);
        disk.stop_after(last);
        let _died = life(&disk);
        let disk = disk.crash_with(last, Survival::Seeded);
        let node = Node::open(disk, replica_options()).unwrap_or_else(|error| panic!("after {last}: {error}"));
        assert!(feed(&node), "after {last}");
        check_same(leader.engine(), node.engine(), &kept);
    }
}

#[test]
fn a_promoted_replica_goes_through_with_what_its_leader_let_go() {
    let leader = Node::open(SimDisk::new(1), options()).unwrap();
    let mut replica = Node::replica_of(leader.engine(), 2);
    replica.close();
    // Without a checkpoint in time it cannot act on it.
    let slow = replica_options().with_checkpoint_interval(Some(Duration::from_secs(3600)));
    let mut replica = Node::open(replica.disk.clone(), slow).unwrap();
    let kept = fill(&leader, 0..6);
    follow(&leader, &replica);
    release(&leader);
    pair::ship(leader.engine(), replica.engine(), 5000).unwrap();
    while replica.engine().watermarks().durable < replica.engine().watermarks().assigned {
        replica.engine().step();
    }
    replica.engine().set_replicated(leader.engine().watermarks().acked);
    let image = replica.disk.crash_with(5, Survival::Everything);
    replica.engine = None;
    let promoted = Node::open(image, options().with_role(Role::Leader { term: Some(2) })).unwrap();
    // Nothing can refer to what is gone elsewhere.
    let start = leader.engine().watermarks().start;
    let gone = promoted.engine().read(Lsn(kept[&0].0 + 8 * 100)).map(drop);
    assert!(matches!(gone, Err(ReadError::NotFound(_))));
    assert_eq!(promoted.engine().pin("late", Some(Lsn(8))), start, "it is on its way out");
    rest(&promoted);
    assert_eq!(promoted.engine().watermarks().start, start);
    check_kept(promoted.engine(), &kept);
}

// What its leader said last is not known to be acknowledged when it begins to lead: what it appends comes behind that all the same.
#[test]
fn a_promoted_replica_lets_nothing_refer_to_what_goes_once_its_log_is_acknowledged() {
    let leader = Node::open(SimDisk::new(1), options().with_replicated_acks(true)).unwrap();
    let mut replica = Node::replica_of(leader.engine(), 2);
    let kept = fill(&leader, 0..6);
    follow(&leader, &replica);
    let filler = places(leader.engine(), "filler");
    let known = leader.engine().watermarks().acked;
    leader.engine().release(known).map(drop).unwrap();
    // The replica has what says so, and nothing that was appended once that was acknowledged.
    while leader.engine().watermarks().start == Lsn::ZERO {
        pair::ship(leader.engine(), replica.engine(), 5000).unwrap();
        replica.settle();
        leader.engine().set_replicated(replica.engine().watermarks().durable);
        rest(&leader);
    }
    replica.close();
    let role = Role::Leader { term: Some(2) };
    let promoted = Node::open(replica.disk.clone(), options().with_role(role).with_replicated_acks(true)).unwrap();
    let engine = promoted.engine();
    rest(&promoted);
    let (marks, start) = (engine.watermarks(), leader.engine().watermarks().start);
    assert!(marks.start == Lsn::ZERO && marks.acked < marks.assigned && start > filler[0], "{marks:?}");
    let keep = |key: &str, lsn: Lsn| {
        let mut batch = WriteBatch::new();
        let target = engine.reference(lsn).unwrap();
        batch.put(&Put { key: key.as_bytes(), value: b"late", target: Some(target.into()) }).unwrap();
        engine.try_append(&mut batch).map(drop)
    };
    assert!(matches!(keep("late/gone", filler[0]), Err(AppendError::TargetGone(lsn)) if lsn == filler[0]));
    keep("late/survives", kept[&0]).unwrap();
    let stays = *filler.last().unwrap();
    assert!(stays > start);
    keep("late/stays", stays).unwrap();
    // Its own rules wait for that, and then go on from there.
    engine.release(known).map(drop).unwrap();
    rest(&promoted);
    assert_eq!(engine.watermarks().start, Lsn::ZERO);
    engine.set_replicated(engine.watermarks().assigned);
    rest(&promoted);
    assert_eq!(engine.watermarks().start, start);
    check_kept(engine, &kept);
    for key in ["late/survives", "late/stays"] {
        let target = engine.get(key.as_bytes()).unwrap().unwrap().target.unwrap();
        assert!(engine.read(target).is_ok(), "{key}");
    }
}

#[test]
fn a_directory_with_a_log_is_seeded_only_after_it_was_wiped() {
    let (leader, kept) = released();
    let mut other = Node::leader(9);
    append(other.engine(), "orders", b"somebody's");
    other.settle();
    other.close();
    let error = bootstrap(leader.engine(), &other.disk, 5000).unwrap_err();
    assert!(matches!(error, SeedError::NotEmpty { .. }), "{error}");
    let again = Node::open(other.disk.crash_with(1, Survival::Everything), pair::options()).unwrap();
    assert_eq!(payloads(again.engine(), "orders").len(), 1);
    wipe(&*other.disk.backend(), DIR).unwrap();
    let error = Node::open(other.disk.clone(), options()).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::HalfSeeded { .. }), "{error}");
    bootstrap(leader.engine(), &other.disk, 5000).map(drop).unwrap();
    let replica = Node::open(other.disk.clone(), replica_options()).unwrap();
    carry(leader.engine(), &replica).unwrap();
    check_same(leader.engine(), replica.engine(), &kept);
}
