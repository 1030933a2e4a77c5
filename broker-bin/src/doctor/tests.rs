use super::*;
use anchorlog_engine::io::probe::Sustained;

fn healthy() -> Facts {
    let one =
        |bytes, per_s, p50_us| Sustained { bytes, count: 1000, per_s, p50_us, p99_us: 2 * p50_us, max_us: 3 * p50_us };
    Facts {
        kernel: "6.1".to_owned(),
        ring: Ok(()),
        direct_io: true,
        alignment: Some((512, 512)),
        filesystem: "ext4".to_owned(),
        disk: Some(Disk { name: "nvme0n1".to_owned(), write_cache: "write back".to_owned(), fua: Some(true) }),
        memlock: None,
        free_bytes: Some(1 << 40),
        stored_bytes: 0,
        needed_bytes: needed_bytes(64 << 20, None),
        segment_bytes: 64 << 20,
        file_bytes_limit: None,
        open_files: Some(1 << 20),
        in_use: false,
        backend: "threads".to_owned(),
        reason: "why".to_owned(),
        small: one(4096, 12_000, 80),
        large: one(65_536, 9_871, 100),
        clock: ClockFacts {
            now_ms: 1_790_000_000_000,
            stepped_ms: 1,
            reading_ns: 30,
            newest_file_ms: Some(1_789_000_000_000),
        },
    }
}

/// The grade of one thing, and what is said of it.
fn of(facts: &Facts, what: &str) -> (Grade, String) {
    let found = findings(facts).into_iter().find(|finding| finding.what == what).expect("it is looked at");
    (found.grade, found.says)
}

#[test]
fn a_good_machine_is_fit_and_its_speed_is_said_in_words() {
    let facts = healthy();
    let found = findings(&facts);
    assert!(found.iter().all(|finding| finding.grade == Grade::Good), "{found:?}");
    let said = verdict(&facts, &found);
    assert!(said.starts_with("fit: acks here cost 80 µs; expect about 630000/s at 64 in flight"), "{said}");
}

#[test]
fn what_stands_against_the_promises_makes_it_unfit() {
    type Change = fn(&mut Facts);
    let cases: [(&str, &str, Change); 8] = [
        ("file system", "is memory", |facts| facts.filesystem = "tmpfs".to_owned()),
        ("file system", "mount a volume", |facts| facts.filesystem = "overlay".to_owned()),
        ("file system", "no journal", |facts| facts.filesystem = "vfat".to_owned()),
        ("direct I/O", "alignment of 512/8192", |facts| facts.alignment = Some((512, 8192))),
        ("space", "100 MiB are free, and a broker needs 262 MiB", |facts| facts.free_bytes = Some(100 << 20)),
        ("limits", "RLIMIT_FSIZE", |facts| facts.file_bytes_limit = Some(1 << 20)),
        ("clock", "which is wrong", |facts| facts.clock.now_ms = 86_400_000),
        ("space", "more than lies there", |facts| facts.needed_bytes = 2 << 40),
    ];
    for (what, part, change) in cases {
        let mut facts = healthy();
        change(&mut facts);
        let (grade, says) = of(&facts, what);
        assert!(grade == Grade::Unfit && says.contains(part), "{what}: {grade:?} {says}");
        let said = verdict(&facts, &findings(&facts));
        assert!(said.starts_with(&format!("unfit, for its {what}: ")), "{said}");
    }
}

#[test]
fn what_works_and_is_slow_or_unsure_is_to_be_looked_at() {
    type Change = fn(&mut Facts);
    let cases: [(&str, &str, Change); 15] = [
        ("io_uring", "remedy: do it", |facts| facts.ring = Err(("refused".to_owned(), "do it".to_owned()))),
        ("direct I/O", "page cache", |facts| facts.direct_io = false),
        ("file system", "copies on write", |facts| facts.filesystem = "btrfs".to_owned()),
        ("file system", "network", |facts| facts.filesystem = "nfs4".to_owned()),
        ("file system", "a program", |facts| facts.filesystem = "fuse.sshfs".to_owned()),
        ("file system", "not one that is known", |facts| facts.filesystem = "ext2".to_owned()),
        ("write cache", "no single disk", |facts| facts.disk = None),
        ("write cache", "a cache answers", |facts| facts.small.p50_us = 3),
        ("write cache", "cannot be told", |facts| facts.disk.as_mut().expect("one").write_cache = "unknown".to_owned()),
        ("space", "little room", |facts| facts.free_bytes = Some(300 << 20)),
        ("limits", "LimitNOFILE", |facts| facts.open_files = Some(1024)),
        ("limits", "has this log open", |facts| facts.in_use = true),
        ("clock", "set by -500 ms", |facts| facts.clock.stepped_ms = -500),
        ("clock", "but a file in the directory is from", |facts| facts.clock.newest_file_ms = Some(1_790_000_060_000)),
        ("durable writes", "one in a hundred", |facts| facts.large.p99_us = 90_000),
    ];
    for (what, part, change) in cases {
        let mut facts = healthy();
        change(&mut facts);
        let (grade, says) = of(&facts, what);
        assert!(grade == Grade::Look && says.contains(part), "{what}: {grade:?} {says}");
        assert!(verdict(&facts, &findings(&facts)).starts_with(&format!("fit, but look at {what}: ")));
    }
}

#[test]
fn memory_that_may_not_be_locked_matters_only_where_the_ring_is_refused_for_it() {
    let mut facts = Facts { memlock: Some(64 << 10), ..healthy() };
    assert_eq!(of(&facts, "memlock").0, Grade::Good);
    facts.ring = Err(("the limit of locked memory is too low".to_owned(), "raise it".to_owned()));
    assert!(of(&facts, "memlock").1.contains("LimitMEMLOCK"));
}

#[test]
fn what_lies_there_already_need_not_be_free() {
    let mut facts =
        Facts { needed_bytes: needed_bytes(64 << 20, Some(10 << 30)), free_bytes: Some(9 << 30), ..healthy() };
    assert!(facts.needed_bytes > 11 << 30);
    assert_eq!(of(&facts, "space").0, Grade::Unfit);
    facts.stored_bytes = 9 << 30;
    assert_eq!(of(&facts, "space").0, Grade::Look);
}
