//! `anchorlog log`, as an operator meets it: a store is damaged, found, mended, given up; exit codes and words.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use anchorlog_engine::io::threads::ThreadsBackend;
use anchorlog_engine::{Append, Engine, EngineOptions, Fetch, SystemClock, WriteBatch};
use serde_json::Value;

/// A store with some segments, and a copy of it beside.
struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Stage {
        let stage = Stage { dir: tempfile::tempdir().expect("a directory") };
        let engine = stage.open();
        let queue = engine.queue(b"orders/0").expect("a name");
        for number in 0..60_u8 {
            let mut batch = WriteBatch::new();
            let body = vec![b'a' + number % 26; 3000];
            let message = Append { queue: &queue, tag: 7, keys: &[], attributes: b"", payload: &[&body] };
            batch.append(&message).expect("it fits");
            engine.append_and_wait(batch).map(drop).expect("stored");
        }
        engine.close().expect("closed");
        std::fs::create_dir(stage.path("copy")).expect("a directory");
        for entry in std::fs::read_dir(stage.path("log")).expect("the store") {
            let entry = entry.expect("an entry");
            std::fs::copy(entry.path(), stage.path("copy").join(entry.file_name())).expect("copied");
        }
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn try_open(&self) -> Result<Engine, anchorlog_engine::OpenError> {
        let options = EngineOptions::default().with_segment_bytes(64 << 10);
        Engine::open_with(Arc::new(ThreadsBackend::new()), Arc::new(SystemClock::new()), self.path("log"), options)
    }

    fn open(&self) -> Engine {
        self.try_open().expect("it opens")
    }

    fn messages(&self) -> u64 {
        let engine = self.open();
        let range = engine.range(&engine.queue(b"orders/0").expect("a name"));
        range.max.0 - range.min.0
    }

    fn segment(&self, number: u64) -> PathBuf {
        self.path("log").join(format!("{:020}.seg", number * ((64 << 10) - 4096)))
    }

    /// Runs a tool on the store: exit code, standard output, standard error.
    fn log(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_anchorlog"));
        command.arg("log").arg(words[0]).arg("--store").arg(self.path("log")).args(&words[1..]);
        let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (status.code(), text(stdout), text(stderr))
    }

    fn json(&self, words: &[&str]) -> (Option<i32>, Value) {
        let (code, out, said) = self.log(words);
        (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{said}")))
    }
}

/// Changes one byte of a file.
#[expect(clippy::disallowed_methods, reason = "the test plays the rot")]
fn rot(path: &Path, offset: u64) {
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("the file");
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut byte)).expect("a byte");
    byte[0] ^= 0x10;
    file.seek(SeekFrom::Start(offset)).and_then(|_| file.write_all(&byte)).expect("written");
}

/// Puts these bytes into a file, instead of what is there.
#[expect(clippy::disallowed_methods, reason = "the test plays the rot")]
fn plant(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn a_whole_log_is_shown_and_found_whole() {
    let stage = Stage::new();
    let (code, out, said) = stage.log(&["verify"]);
    assert_eq!((code, said.as_str()), (Some(0), ""), "{out}");
    assert!(out.ends_with("whole\n"), "{out}");
    let (code, verdict) = stage.json(&["verify", "--json"]);
    assert!(code == Some(0) && verdict["clean"] == true && verdict["moving"] == false, "{verdict}");

    let (code, out, _) = stage.log(&["inspect"]);
    assert_eq!(code, Some(0));
    for part in [
        "records        60 append",
        "queue          orders/0: offsets 0 to 60, 60 messages",
        "epoch          1.1 from LSN 0",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
    let (_, shown) = stage.json(&["inspect", "--json"]);
    assert_eq!(shown["end"], verdict["end"]);
    assert_eq!(shown["queues"][0]["next"], 60);
    assert!(shown["segments"].as_array().is_some_and(|segments| segments.len() > 2), "{shown}");

    // Where the machine was busy a mark stands before the first message.
    let (code, out, _) = stage.log(&["dump", "--count", "3", "--payload-bytes", "5"]);
    assert_eq!(code, Some(0));
    assert!((5..=6).contains(&out.lines().count()), "{out}");
    assert!(
        out.contains("record append") && out.contains("name orders/0, offset 0") && out.contains("\"aaaaa\"…"),
        "{out}"
    );
    let (_, out, _) = stage.log(&["dump", "--json", "--from", "61440", "--count", "1"]);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines[0]["lsn"] == 61440 && lines[1]["record"] == "epoch history", "{out}");
    assert_eq!(stage.messages(), 60);
}

#[test]
fn damage_is_found_and_mended_from_a_copy() {
    let stage = Stage::new();
    rot(&stage.segment(1), 20_000);
    std::fs::remove_file(stage.segment(2)).expect("removed");
    let error = stage.try_open().expect_err("it is refused").to_string();
    assert!(error.contains("anchorlog log repair"), "{error}");

    let (code, out, _) = stage.log(&["verify"]);
    assert_eq!(code, Some(1), "{out}");
    let (code, verdict) = stage.json(&["verify", "--json"]);
    assert_eq!((code, &verdict["clean"]), (Some(1), &Value::Bool(false)));
    let damage = verdict["damage"].as_array().expect("a list");
    assert_eq!(damage.len(), 2, "{verdict}");
    let lsn = damage[0]["lsn"].as_u64().expect("a number");
    assert!(damage[0]["file"].as_str().is_some_and(|file| file.ends_with("061440.seg")), "{verdict}");
    assert!(out.contains(&format!("at LSN {lsn}: expected whole records, found record 0")), "{out}");
    assert!(out.contains("expected a segment file, found none"), "{out}");
    // The cheapest way first: a copy, then the one range, and only then all that lies behind it.
    let ways = ["--from-copy DIR".to_owned(), format!("--give-up {lsn}"), format!("--cut-from {lsn}")];
    let places: Vec<_> = ways.iter().map(|way| out.find(way).unwrap_or_else(|| panic!("{way} in {out}"))).collect();
    assert!(places.is_sorted(), "{out}");

    let copy = stage.path("copy");
    let copy = copy.to_str().expect("text");
    let (code, out, said) = stage.log(&["repair", "--from-copy", copy]);
    assert_eq!(code, Some(0), "{out}{said}");
    assert!(
        out.contains(&format!("LSN {lsn} to")) && out.contains(".seg.damaged") && out.ends_with("whole\n"),
        "{out}"
    );
    assert_eq!(stage.messages(), 60);
    let (code, out, _) = stage.log(&["repair", "--from-copy", copy]);
    assert!(code == Some(0) && !out.contains("mended"), "{out}");
}

#[test]
fn a_header_is_written_anew_and_a_file_in_the_way_is_named() {
    let stage = Stage::new();
    rot(&stage.segment(1), 10);
    let stray = stage.path("log").join("18446744073709551615.seg");
    plant(&stray, b"rubbish");
    let (code, out, said) = stage.log(&["verify"]);
    assert_eq!(code, Some(1), "{out}{said}");
    assert!(out.contains("loses nothing") && out.contains("--give-up 61440") && !out.contains("--cut-from"), "{out}");
    assert!(out.contains("no part of this log") && out.contains("mv "), "{out}");
    let (code, out, said) = stage.log(&["repair", "--give-up", "61440"]);
    assert!(code == Some(1) && out.contains("nothing is lost"), "{out}{said}");
    std::fs::remove_file(stray).expect("removed");
    let (code, verdict) = stage.json(&["verify", "--json"]);
    assert!(code == Some(0) && verdict["clean"] == true, "{verdict}");
    assert_eq!(stage.messages(), 60);
}

#[test]
fn a_side_block_that_is_not_whole_is_damage_and_so_is_what_keeps_a_log_shut() {
    for (name, word) in
        [("DURABLE", "side block"), ("CUT", "cut by name"), ("SEED", "half seeded"), ("PROMISE", "PROMISE")]
    {
        let stage = Stage::new();
        plant(&stage.path("log").join(name), &[7; 33]);
        let (code, out, said) = stage.log(&["verify"]);
        assert!(code == Some(1) && out.contains("damaged: ") && out.contains(word), "{name}: {out}{said}");
        let (code, verdict) = stage.json(&["verify", "--json"]);
        assert!(code == Some(1) && verdict["clean"] == false, "{name}: {verdict}");
    }
}

#[test]
fn a_manifest_of_no_whole_block_is_mended_from_a_copy() {
    let stage = Stage::new();
    let manifest = stage.path("log").join("MANIFEST");
    plant(&manifest, &std::fs::read(&manifest).expect("it is there")[..30]);
    let copy = stage.path("copy");
    let (code, out, said) = stage.log(&["repair", "--from-copy", copy.to_str().expect("text")]);
    assert!(code == Some(0) && out.contains("mended: the manifest"), "{out}{said}");
    assert_eq!(std::fs::read(stage.path("log").join("MANIFEST.damaged")).expect("kept").len(), 30);
    assert_eq!(stage.messages(), 60);
}

#[test]
fn what_a_copy_cannot_mend_is_left_and_said() {
    let stage = Stage::new();
    rot(&stage.segment(1), 20_000);
    rot(&stage.path("copy").join(stage.segment(1).file_name().expect("a name")), 20_000);
    let copy = stage.path("copy");
    let (code, out, _) = stage.log(&["repair", "--from-copy", copy.to_str().expect("text")]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("not mended: LSN"), "{out}");
}

#[test]
fn giving_up_says_what_is_lost_and_takes_the_place_by_name() {
    let stage = Stage::new();
    rot(&stage.segment(1), 20_000);
    let (_, verdict) = stage.json(&["verify", "--json"]);
    let lsn = verdict["damage"][0]["lsn"].as_u64().expect("a number");
    let (code, _, said) = stage.log(&["repair"]);
    assert!(code == Some(2) && said.contains("--from-copy") && said.contains("--cut-from"), "{said}");
    let (code, _, said) = stage.log(&["repair", "--cut-from", "8"]);
    assert!(code == Some(2) && said.contains(&format!("the first damaged place is LSN {lsn}")), "{said}");

    let (code, out, said) = stage.log(&["repair", "--cut-from", &lsn.to_string()]);
    assert_eq!(code, Some(0), "{out}{said}");
    let left = stage.messages();
    assert!(left > 15 && left < 40, "{left}");
    for part in [
        format!("cut: the log ends at LSN {lsn}"),
        format!("lost: queue orders/0, offsets {left} to 60"),
        "kept: ".into(),
    ] {
        assert!(out.contains(&part), "{part} in {out}");
    }
}

#[test]
fn giving_up_a_range_keeps_what_follows_it() {
    let stage = Stage::new();
    rot(&stage.segment(1), 20_000);
    let (_, verdict) = stage.json(&["verify", "--json"]);
    let lsn = verdict["damage"][0]["lsn"].as_u64().expect("a number");
    let (code, _, said) = stage.log(&["repair", "--give-up", "8"]);
    assert!(code == Some(2) && said.contains(&format!("the first damaged place is LSN {lsn}")), "{said}");
    let (code, out, said) = stage.log(&["repair", "--give-up", &lsn.to_string()]);
    assert_eq!(code, Some(0), "{out}{said}");
    for part in [format!("given up: LSN {lsn} to "), "lost: queue orders/0, offsets ".into(), "kept: ".into()] {
        assert!(out.contains(&part), "{part} in {out}");
    }
    let engine = stage.open();
    let queue = engine.queue(b"orders/0").expect("it is there");
    let (mut found, mut next) = (0, engine.range(&queue).min);
    while next < engine.range(&queue).max {
        let fetched = engine.fetch(&Fetch::new(&queue, next)).expect("readable");
        found += fetched.messages.len();
        next = fetched.next;
    }
    assert!(found > 40 && found < 60, "{found}");
    assert_eq!(next.0, 60, "what follows is there");
    engine.close().expect("closed");
}

#[test]
fn tools_read_beside_an_open_engine_and_repair_waits_for_it() {
    let stage = Stage::new();
    let engine = stage.open();
    let (code, out, _) = stage.log(&["verify"]);
    assert_eq!(code, Some(0), "{out}");
    let (code, _, said) = stage.log(&["repair", "--cut-from", "0"]);
    assert!(code == Some(2) && said.contains("in use by another process"), "{said}");
    engine.close().expect("closed");
}

#[test]
fn a_manifest_that_is_gone_is_damage_and_no_log_at_all_is_not() {
    let stage = Stage::new();
    std::fs::remove_file(stage.path("log").join("MANIFEST")).expect("removed");
    let (code, out, _) = stage.log(&["verify"]);
    assert!(code == Some(1) && out.contains("MANIFEST is missing"), "{out}");
    let (code, verdict) = stage.json(&["verify", "--json"]);
    assert!(code == Some(1) && verdict["clean"] == false, "{verdict}");
    let copy = stage.path("copy");
    let (code, out, _) = stage.log(&["repair", "--from-copy", copy.to_str().expect("text")]);
    assert!(code == Some(0) && out.contains("mended: the manifest"), "{out}");
    assert_eq!(stage.messages(), 60);

    let empty = tempfile::tempdir().expect("a directory");
    let empty = Stage { dir: empty };
    std::fs::create_dir(empty.path("log")).expect("a directory");
    let (code, out, said) = empty.log(&["verify"]);
    assert!(code == Some(2) && out.is_empty() && said.contains("neither a manifest nor segments"), "{out}{said}");
    let (code, _, said) = Stage { dir: tempfile::tempdir().expect("a directory") }.log(&["inspect"]);
    assert!(code == Some(2) && said.contains("listing"), "{said}");
}
