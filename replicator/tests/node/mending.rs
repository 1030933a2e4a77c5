//! What rots on one machine comes back from another: while the log is open, when it does not open, and by hand.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anchorlog_engine::audit;
use anchorlog_engine::io::threads::ThreadsBackend;
use anchorlog_replicator::Event;
use anchorlog_replicator::mending::{MendClosedError, mend_closed};

use crate::cluster::{Cluster, eventually, key, sync};

const COUNT: usize = 60;

/// A log of several segments, most of which is in nobody's memory any more.
fn cluster(names: &[&str]) -> Cluster {
    let mut cluster = Cluster::new(names, sync(2));
    for machine in &mut cluster.machines {
        let options = machine.options.clone();
        machine.options = options.with_chunk_bytes(128 << 10).with_buffer_bytes(1 << 20).with_cache_bytes(2 << 20);
    }
    for at in 0..names.len() {
        cluster.start(at);
    }
    for number in 0..COUNT {
        cluster.send(0, &vec![u8::try_from(number).unwrap(); 100_000]);
    }
    assert_eq!(cluster.agree().len(), COUNT);
    cluster
}

/// The segments, by their place in the log.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = names.filter(|path| path.extension().is_some_and(|end| end == "seg")).collect();
    all.sort();
    all
}

/// Turns bytes of a closed segment around: the same twice is as if never.
fn hurt(dir: &Path, segment: usize, offset: u64, len: usize) {
    let file = OpenOptions::new().read(true).write(true).open(&segments(dir)[segment]).unwrap();
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset).unwrap();
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    file.write_all_at(&bytes, offset).unwrap();
    file.sync_all().unwrap();
}

fn bytes(dir: &Path) -> Vec<Vec<u8>> {
    segments(dir)[..3].iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// What was read before is in memory, and readers would not look at the disk.
fn forget(cluster: &mut Cluster, at: usize) {
    cluster.stop(at);
    cluster.start(at);
    eventually("it is served", || cluster.program(at).watermarks().is_some());
}

/// Reads until all of it can be read.
fn read_all(cluster: &Cluster, at: usize) {
    eventually("everything is readable", || cluster.program(at).try_letters().is_some_and(|all| all.len() >= COUNT));
}

fn mended(cluster: &Cluster, at: usize, whose: &str) -> bool {
    cluster.program(at).has(|event| matches!(event, Event::Mended { by, .. } if by.to_string() == whose))
}

#[test]
fn what_a_reader_finds_damaged_on_leader_or_slave_is_mended_from_the_other_while_both_run() {
    let mut cluster = cluster(&["one", "two"]);
    for (at, other) in [(0, "two"), (1, "one")] {
        let dir = cluster.machines[at].dir.clone();
        let before = bytes(&dir);
        forget(&mut cluster, at);
        // Records, and a stretch of frames with their headers.
        hurt(&dir, 0, 150_000, 64);
        hurt(&dir, 1, 300_000, 250_000);
        assert!(bytes(&dir) != before);
        read_all(&cluster, at);
        eventually("it is mended", || bytes(&dir) == before);
        assert!(mended(&cluster, at, other), "{:?}", cluster.program(at).events.lock().unwrap());
    }
    cluster.send(0, b"life goes on");
    assert_eq!(cluster.agree().len(), COUNT + 1);
}

#[test]
fn who_has_the_same_damage_is_of_no_help_and_the_third_is() {
    let mut cluster = cluster(&["one", "two", "three"]);
    cluster.stop(2);
    let before = bytes(&cluster.machines[0].dir);
    for at in [0, 1] {
        forget(&mut cluster, at);
    }
    for at in [0, 1] {
        hurt(&cluster.machines[at].dir, 1, 300_000, 1000);
    }
    let damaged = bytes(&cluster.machines[1].dir);
    eventually("it is found", || cluster.program(1).try_letters().is_none());
    let is_told = |event: &Event| matches!(event, Event::Failed { what } if what.contains("no member has it whole"));
    eventually("nobody can help", || cluster.program(1).has(is_told));
    assert!(bytes(&cluster.machines[1].dir) == damaged, "nothing was changed");
    cluster.start(2);
    read_all(&cluster, 1);
    // From the third, straight or by way of the other.
    assert!((0..2).any(|at| mended(&cluster, at, "three")));
    assert!(bytes(&cluster.machines[1].dir) == before);
    read_all(&cluster, 0);
    assert!(bytes(&cluster.machines[0].dir) == before);
    assert_eq!(cluster.agree().len(), COUNT);
}

#[test]
fn a_log_that_does_not_open_is_mended_first() {
    let mut cluster = cluster(&["one", "two"]);
    for (at, other) in [(1, "one"), (0, "two")] {
        cluster.stop(at);
        let dir = cluster.machines[at].dir.clone();
        // Without it opening reads everything.
        std::fs::remove_file(dir.join("DERIVED")).unwrap();
        let before = bytes(&dir);
        hurt(&dir, 0, 150_000, 64);
        hurt(&dir, 1, 300_000, 250_000);
        std::fs::remove_file(&segments(&dir)[2]).unwrap();
        cluster.start(at);
        assert!(mended(&cluster, at, other), "{:?}", cluster.program(at).events.lock().unwrap());
        assert!(bytes(&dir) == before);
        assert_eq!(std::fs::read_dir(dir.join("mending")).unwrap().count(), 0);
        cluster.send(0, b"again");
        cluster.agree();
    }
    assert_eq!(cluster.agree().len(), COUNT + 2);
}

#[test]
fn a_stopped_log_is_mended_by_hand_from_who_has_the_key_and_the_same_log() {
    let mut cluster = cluster(&["one", "two"]);
    cluster.stop(1);
    let machine = &cluster.machines[1];
    let (dir, security) = (machine.dir.clone(), machine.security.clone());
    let before = bytes(&dir);
    hurt(&dir, 0, 10, 4);
    hurt(&dir, 0, 150_000, 64);
    hurt(&dir, 1, 300_000, 250_000);
    let backend = ThreadsBackend::new();
    let leader = cluster.machines[0].proxy.address.to_string();
    let error = mend_closed(&backend, &dir, &leader, &key("another key than all the others")).unwrap_err();
    assert!(matches!(error, MendClosedError::Control(_)), "{error}");
    // Another log.
    let stranger = Cluster::started(&["one", "two"], sync(2));
    stranger.send(0, b"elsewhere");
    let theirs = stranger.machines[0].proxy.address.to_string();
    let error = mend_closed(&backend, &dir, &theirs, &security).unwrap_err();
    assert!(error.to_string().contains("is no copy of this log"), "{error}");
    let report = mend_closed(&backend, &dir, &leader, &security).unwrap();
    assert!(report.after.is_clean() && report.refused.is_empty(), "{report:?}");
    assert_eq!(report.mended.len(), 3, "{:?}", report.mended);
    assert!(bytes(&dir) == before && audit::survey(&backend, &dir).unwrap().is_clean());
    assert_eq!(std::fs::read_dir(dir.join("mending")).unwrap().count(), 0);
    cluster.start(1);
    assert_eq!(cluster.agree().len(), COUNT);
}
