//! `anchorlog doctor`: what a directory is good for.

use serde_json::json;

use crate::stage::{Stage, ended};

/// A directory on the disk that the repository is on.
fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("doctor-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

fn path(dir: &tempfile::TempDir) -> &str {
    dir.path().to_str().expect("a path in text")
}

#[test]
fn a_directory_is_examined_and_nothing_is_left_in_it() {
    let dir = directory();
    let done = ended(&["doctor", "--store", path(&dir), "--seconds", "1"]);
    assert!(matches!(done.code, Some(0 | 1)), "{done:?}");
    for part in ["io_uring", "direct I/O", "file system", "write cache", "memlock", "space", "clock", "durable writes"]
    {
        assert!(done.out.contains(part), "{part} in {}", done.out);
    }
    let last = done.out.lines().last().expect("a verdict");
    assert!(last.contains("acks here cost") && last.contains("in flight"), "{last}");
    assert_eq!(last.starts_with("fit"), done.code == Some(0), "{done:?}");
    assert_eq!(dir.path().read_dir().expect("it exists").count(), 0);
}

#[test]
fn scripts_get_json_and_the_same_exit_code() {
    let dir = directory();
    let done = ended(&["doctor", "--store", path(&dir), "--seconds", "1", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&done.out).expect("JSON");
    assert_eq!(told["fit"], json!(done.code == Some(0)));
    assert_eq!(told["durableWrites"].as_array().map(Vec::len), Some(2));
    assert!(told["durableWrites"][0]["perSecond"].as_u64() > Some(0), "{told}");
    assert_eq!(told["findings"].as_array().map(Vec::len), Some(9));
}

#[test]
fn too_little_space_makes_it_unfit() {
    let dir = directory();
    let done = ended(&["doctor", "--store", path(&dir), "--seconds", "1", "--retain-bytes", "1000TiB"]);
    assert!(done.code == Some(1) && done.out.contains("UNFIT space"), "{done:?}");
}

#[test]
fn memory_is_unfit() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return skipped("memory_is_unfit: there is no /dev/shm") };
    let done = ended(&["doctor", "--store", path(&dir), "--seconds", "1"]);
    if !done.out.contains("tmpfs") {
        return skipped("memory_is_unfit: /dev/shm is no tmpfs here");
    }
    assert!(done.code == Some(1) && done.out.contains("nothing survives"), "{done:?}");
}

#[test]
fn what_is_missing_or_read_only_or_no_directory_could_not_be_examined() {
    let dir = directory();
    let missing = dir.path().join("missing");
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    for (store, part) in
        [(missing.as_path(), "does not exist"), (&file, "is no directory"), ("/proc".as_ref(), "cannot be written")]
    {
        let store = store.to_str().expect("a path in text");
        let done = ended(&["doctor", "--store", store, "--seconds", "1"]);
        assert!(done.code == Some(2) && done.out.is_empty() && done.error.contains(part), "{done:?}");
    }
    assert!(!missing.exists(), "it makes nothing");
}

#[test]
fn beside_a_running_broker_it_says_so() {
    let stage = Stage::new();
    let done = ended(&["doctor", "--store", path(&stage.store), "--seconds", "1"]);
    assert!(done.out.contains("has this log open"), "{done:?}");
}

/// Says so past the test harness, which keeps what a passing test prints to itself.
fn skipped(why: &str) {
    let line = format!("SKIPPED {why}\n");
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("standard error can be written");
}
