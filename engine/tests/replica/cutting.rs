//! Two logs that went different ways, and how one comes back to the other.

use std::path::{Path, PathBuf};

use anchorlog_engine::io::sim::{SimDisk, Survival};
use anchorlog_engine::replica::{CutError, cut, give_up};
use anchorlog_engine::{Lsn, OpenError, Role};

use crate::pair::{DIR, Node, append, body, bytes_from, follow, options, payloads, replica_options};

/// A leader that lost its place, and the one that was promoted in it.
struct Parted {
    old: SimDisk,
    promoted: Node,
    /// Here they parted.
    at: Lsn,
    /// What only the old one has.
    lost: Vec<u8>,
}

fn parted(old_only: u64) -> Parted {
    let mut leader = Node::leader(1);
    for number in 0..30 {
        append(leader.engine(), "orders", &body(number, 2500));
        leader.settle();
    }
    leader.close();
    let promoted = leader.disk.crash_with(7, Survival::Everything);
    let promoted = Node::open(promoted, options().with_role(Role::Leader { term: Some(2) })).unwrap();
    let at = promoted.engine().history().last().unwrap().first_lsn;
    let mut old = Node::open(leader.disk.clone(), options()).unwrap();
    for number in 0..old_only {
        append(old.engine(), "orders", &body(100 + number, 2500));
        append(promoted.engine(), "orders", &body(200 + number, 1500));
        old.settle();
        promoted.settle();
    }
    old.close();
    let old = old.disk;
    let again = Node::open(old.crash_with(1, Survival::Everything), options()).unwrap();
    let mut lost = bytes_from(again.engine(), at);
    // The run that this look began is not part of it.
    let begun = again.engine().history().last().unwrap().first_lsn;
    lost.truncate(usize::try_from(begun.since(at)).unwrap());
    Parted { old, promoted, at, lost }
}

fn asides(disk: &SimDisk) -> Vec<PathBuf> {
    let names = disk.backend().list(Path::new(DIR)).unwrap();
    names.into_iter().filter(|name| name.starts_with("cut-")).map(|name| Path::new(DIR).join(name)).collect()
}

fn check_aside(disk: &SimDisk, parted: &Parted) {
    let asides = asides(disk);
    assert_eq!(asides, [Path::new(DIR).join(format!("cut-{:020}.aside", parted.at.0))]);
    let kept = disk.read(&asides[0]).unwrap();
    let used = parted.lost.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert_eq!(kept[..used], parted.lost[..used]);
    assert!(kept[used..].iter().all(|byte| *byte == 0));
}

/// The disk's log follows the promoted one from the place where they parted.
fn rejoin(disk: SimDisk, parted: &Parted) {
    let node = Node::open(disk, replica_options()).unwrap();
    assert_eq!(node.engine().watermarks().assigned, parted.at);
    follow(&parted.promoted, &node);
    assert_eq!(bytes_from(node.engine(), Lsn::ZERO), bytes_from(parted.promoted.engine(), Lsn::ZERO));
    assert_eq!(payloads(node.engine(), "orders"), payloads(parted.promoted.engine(), "orders"));
    assert_eq!(node.engine().history(), parted.promoted.engine().history());
}

#[test]
fn a_former_leader_is_cut_keeps_what_it_loses_aside_and_follows() {
    for old_only in [1, 12, 60] {
        let parted = parted(old_only);
        let report = cut(&*parted.old.backend(), DIR, parted.at).unwrap();
        assert_eq!((report.end, report.aside.as_ref()), (parted.at, asides(&parted.old).first()));
        check_aside(&parted.old, &parted);
        assert_eq!(cut(&*parted.old.backend(), DIR, parted.at).unwrap().aside, None, "nothing is left to cut");
        rejoin(parted.old.clone(), &parted);
    }
}

/// K-44, K-45: truncation happens, is whole, and leaves nothing that could be read again.
#[test]
fn a_cut_comes_to_its_end_whenever_the_power_fails() {
    let parted = parted(30);
    for last in 0.. {
        let disk = parted.old.crash_with(3, Survival::Everything);
        disk.stop_after(disk.io_count() + last);
        let done = cut(&*disk.backend(), DIR, parted.at).is_ok();
        for survival in [Survival::Seeded, Survival::Nothing, Survival::Everything] {
            let disk = disk.crash_with(last, survival);
            // Either asked for again, or brought to its end by opening where it was named.
            let is_named = disk.backend().list(Path::new(DIR)).unwrap().contains(&"CUT".to_owned());
            if !(is_named && last % 2 == 0) {
                let report = cut(&*disk.backend(), DIR, parted.at).unwrap();
                assert_eq!(report.end, parted.at);
            }
            rejoin(disk.clone(), &parted);
            check_aside(&disk, &parted);
        }
        if done {
            assert!(last > 20, "only {last} I/Os");
            return;
        }
    }
}

#[test]
fn a_replica_is_cut_at_a_segments_end_and_at_its_beginning() {
    let leader = Node::leader(1);
    for number in 0..60 {
        append(leader.engine(), "orders", &body(number, 2500));
        leader.settle();
    }
    let segment = options().frame_bytes_max();
    assert!(segment > 20_000);
    let data = (64 << 10) - 4096;
    for at in [0, data, 2 * data] {
        let mut replica = Node::replica_of(leader.engine(), 2);
        follow(&leader, &replica);
        replica.close();
        let report = cut(&*replica.disk.backend(), DIR, Lsn(at)).unwrap();
        assert_eq!(report.bytes > 0, at < leader.engine().watermarks().assigned.0);
        let replica = Node::open(replica.disk.clone(), replica_options()).unwrap();
        assert_eq!(replica.engine().watermarks().assigned, Lsn(at));
        follow(&leader, &replica);
        assert_eq!(bytes_from(replica.engine(), Lsn::ZERO), bytes_from(leader.engine(), Lsn::ZERO));
        assert_eq!(payloads(replica.engine(), "orders").len(), 60);
    }
}

#[test]
fn a_log_is_cut_between_frames_and_not_while_it_is_open() {
    let mut leader = Node::leader(1);
    let end = append(leader.engine(), "orders", &body(1, 2500));
    leader.settle();
    let backend = leader.disk.backend();
    let error = cut(&*backend, DIR, end).unwrap_err();
    assert!(matches!(error, CutError::Directory(OpenError::Locked { .. })), "{error}");
    leader.close();
    let segment = (64 << 10) - 4096;
    for at in [end.0 - 8, end.0 + 8, 8, segment, 9 * segment, 1 << 30] {
        let error = cut(&*backend, DIR, Lsn(at));
        assert!(matches!(error, Err(CutError::NoBoundary { .. })), "{at}: {error:?}");
    }
    assert_eq!(asides(&leader.disk), Vec::<PathBuf>::new());
    let leader = Node::open(leader.disk.clone(), options()).unwrap();
    assert_eq!(payloads(leader.engine(), "orders").len(), 1);
}

// K-44.
#[test]
fn a_log_that_is_given_up_is_kept_whole_whenever_the_power_fails() {
    let mut leader = Node::leader(1);
    for number in 0..10 {
        append(leader.engine(), "orders", &body(number, 2500));
        leader.settle();
    }
    let end = leader.engine().watermarks().assigned;
    leader.close();
    let closed = leader.disk;
    let dir = Path::new(DIR);
    let is_of_log = |name: &String| name == "MANIFEST" || name.ends_with(".seg");
    let mut names = closed.backend().list(dir).unwrap();
    names.retain(is_of_log);
    assert!(names.len() > 1, "{names:?}");
    let aside = dir.join(format!("given-up-{:020}", end.0));
    for last in 0.. {
        let disk = closed.crash_with(1, Survival::Everything);
        disk.stop_after(disk.io_count() + last);
        let is_done = give_up(&*disk.backend(), DIR, end).is_ok();
        for survival in [Survival::Seeded, Survival::Nothing, Survival::Everything] {
            let disk = disk.crash_with(last, survival);
            let _aside = give_up(&*disk.backend(), DIR, end).unwrap();
            let error = Node::open(disk.clone(), replica_options()).map(drop).unwrap_err();
            assert!(matches!(error, OpenError::HalfSeeded { .. }), "after {last}: {error}");
            assert!(!disk.backend().list(dir).unwrap().iter().any(is_of_log), "after {last}");
            for name in &names {
                assert_eq!(disk.read(&aside.join(name)), closed.read(&dir.join(name)), "{name} after {last}");
            }
        }
        if is_done {
            break;
        }
    }
}
