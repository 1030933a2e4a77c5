//! Reads the whole repository and checks what compilers do not: the roads between rooms, names, lengths of lines, fixtures.

use std::path::{Path, PathBuf};

const COLUMNS_MAX: usize = 140;
/// Names that say nothing about what is in them.
const EMPTY_NAMES: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "manager", "service", "misc"];

struct File {
    /// From the repository's root, with forward slashes.
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_path_buf()
}

/// Every text file that belongs to the repository.
fn files() -> Vec<File> {
    let root = root();
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("names are text").to_owned();
            if path.is_dir() {
                // Built, generated, or somebody's own.
                if !name.starts_with('.')
                    && !matches!(name.as_str(), "target" | "node_modules" | "shared" | "corpus" | "artifacts")
                {
                    folders.push(path);
                }
                continue;
            }
            // What is not text is judged elsewhere.
            if let Ok(text) = std::fs::read_to_string(&path) {
                let relative = path.strip_prefix(&root).expect("it lies below the root");
                files.push(File { path: relative.to_string_lossy().replace('\\', "/"), text });
            }
        }
    }
    files.sort_by(|left, right| left.path.cmp(&right.path));
    assert!(files.len() > 50, "the repository is here");
    files
}

fn sources() -> Vec<File> {
    files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

/// Lines of code, with their numbers: without comments, and without the tests at the end of a file.
fn code(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let end = file.text.find("#[cfg(test)]\nmod tests {").unwrap_or(file.text.len());
    (1..).zip(file.text[..end].lines()).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Fails with all that was found, not just the first of it.
#[track_caller]
fn expect_none(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// Lines of code under `room` that hold any of `words`.
fn mentions(files: &[File], room: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with(room)) {
        for (number, line) in code(file) {
            for word in words.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{}:{number} mentions {word:?}: {}", file.path, line.trim()));
            }
        }
    }
    found
}

#[test]
fn lines_fit_a_screen() {
    let mut found = Vec::new();
    for file in sources() {
        for (number, line) in (1..).zip(file.text.lines()) {
            let columns = line.chars().count();
            // Text between quotes cannot always be broken.
            let quoted = line.contains('"');
            if columns > COLUMNS_MAX && !quoted {
                found.push(format!("{}:{number} has {columns} columns, {COLUMNS_MAX} are the most", file.path));
            }
            if line.ends_with([' ', '\t']) {
                found.push(format!("{}:{number} ends in a blank", file.path));
            }
        }
    }
    expect_none(found);
}

/// What a passing test prints is kept by the harness: nobody would see that it ran nothing.
#[test]
fn a_test_that_is_skipped_says_so_where_it_is_seen() {
    let mut found = Vec::new();
    for file in sources().iter().filter(|file| file.path.contains("/tests")) {
        for (number, line) in (1..).zip(file.text.lines()) {
            if line.contains("print") && line.contains(concat!("ln!(\"SKIP", "PED")) {
                found.push(format!("{}:{number} says it to the harness alone", file.path));
            }
        }
    }
    expect_none(found);
}

#[test]
fn dependencies_have_their_versions_in_one_place() {
    let mut found = Vec::new();
    for file in files().iter().filter(|file| file.path.ends_with("/Cargo.toml")) {
        // Outside the workspace, with a lock file of their own.
        if file.path.contains("/fuzz/") || file.path.contains("/clients/") {
            continue;
        }
        let mut in_dependencies = false;
        for (number, line) in (1..).zip(file.text.lines()) {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            } else if in_dependencies
                && line.contains('=')
                && !line.contains("workspace = true")
                && !line.contains("path = ")
            {
                found.push(format!("{}:{number} names a version of its own: {line}", file.path));
            }
        }
    }
    expect_none(found);
}

#[test]
fn modules_are_named_after_what_is_in_them() {
    let mut found = Vec::new();
    for file in sources() {
        for part in file.path.trim_end_matches(".rs").split('/') {
            if EMPTY_NAMES.contains(&part) {
                found.push(format!("{}: {part:?} says nothing about what is in it", file.path));
            }
        }
    }
    expect_none(found);
}

#[test]
fn every_source_says_what_it_promises() {
    let says =
        |file: &File| file.text.starts_with("//!") || file.path.ends_with("/tests.rs") || file.path.contains("/fuzz/");
    let silent = sources().into_iter().filter(|file| !says(file) && !file.path.starts_with("fuzz/"));
    expect_none(silent.map(|file| format!("{} begins without a module header", file.path)).collect());
}

#[test]
fn the_engine_has_never_heard_of_brokers_or_sockets() {
    let files = sources();
    let words = ["rocketmq", "RocketMQ", "tokio", "std::net", "TcpStream", "TcpListener", "anchorlog::"];
    expect_none(mentions(&files, "engine/src/", &words));
}

#[test]
fn sockets_and_threads_of_the_replicator_stay_in_their_rooms() {
    let files = sources();
    expect_none(mentions(&files, "replicator/src/", &["rocketmq", "RocketMQ", "anchorlog::", "std::fs", "Topic"]));
    let outside: Vec<File> =
        files.into_iter().filter(|file| !file.path.starts_with("replicator/src/transport/")).collect();
    expect_none(mentions(&outside, "replicator/src/", &["TcpStream", "TcpListener", "rustls", "hmac::"]));
    let drivers = ["replicator/src/node/", "replicator/src/control.rs"];
    let pure: Vec<File> =
        outside.into_iter().filter(|file| !drivers.iter().any(|driver| file.path.starts_with(driver))).collect();
    expect_none(mentions(&pure, "replicator/src/", &["std::thread", "SystemClock", "Condvar", "std::net"]));
}

#[test]
fn only_the_io_room_touches_durable_files() {
    let files = sources();
    let files: Vec<File> = files.into_iter().filter(|file| !file.path.starts_with("engine/src/io/")).collect();
    expect_none(mentions(&files, "engine/src/", &["std::fs", "File::", "OpenOptions", "nix::fcntl", "libc::"]));
    // Configuration is read, never written, and is no durable file; nor is what an operator has written elsewhere.
    let others = ["broker-bin/src/config/", "broker-bin/src/commands/"];
    let files: Vec<File> =
        files.into_iter().filter(|file| !others.iter().any(|room| file.path.starts_with(room))).collect();
    expect_none(mentions(&files, "broker-bin/src/", &["std::fs", "File::open", "File::create", "OpenOptions"]));
}

#[test]
fn the_wire_is_pure() {
    let files = sources();
    let words =
        ["crate::net", "crate::features", "crate::shared", "std::net::Tcp", "tokio", "anchorlog_engine", "std::io::"];
    expect_none(mentions(&files, "broker-bin/src/wire/", &words));
}

#[test]
fn the_network_threads_state_holds_no_socket_and_no_clock() {
    let files = sources();
    for part in ["worker.rs", "connection.rs", "held.rs", "mailbox.rs"] {
        let room = format!("broker-bin/src/net/{part}");
        assert!(files.iter().any(|file| file.path == room), "{room} is where this test looks");
        expect_none(mentions(&files, &room, &["tokio", "TcpStream", "Instant", "SystemTime", "std::thread", "Clock"]));
    }
}

#[test]
fn features_share_nouns_and_never_handlers() {
    let files = sources();
    let mut found = Vec::new();
    for file in &files {
        let Some(rest) = file.path.strip_prefix("broker-bin/src/features/") else { continue };
        let own = rest.split('/').next().unwrap_or_default();
        for (number, line) in code(file) {
            for (at, _) in line.match_indices("features::") {
                let path: Vec<&str> =
                    line[at..].split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).collect();
                let mut parts = path[0].split("::").skip(1);
                if let (Some(room), Some("handler")) = (parts.next(), parts.next())
                    && room != own
                {
                    found.push(format!("{}:{number} uses the handler of {room}", file.path));
                }
            }
            if file.path.contains("/handler.rs") && line.contains("router::") {
                found.push(format!("{}:{number} asks the router", file.path));
            }
        }
    }
    // Handlers are called by the router alone: what rooms make public of them is named here.
    let handlers = [
        ("send", "send"),
        ("pull", "pull"),
        ("offsets", "query"),
        ("offsets", "commit"),
        ("heartbeat", "beat"),
        ("heartbeat", "farewell"),
        ("groups", "list"),
        ("topics", "create"),
        ("delay", "recall"),
        ("retry", "send_back"),
        ("transactions", "end"),
        ("routes", "route"),
    ];
    for (room, handler) in handlers {
        let call = format!("{room}::{handler}(");
        for file in
            files.iter().filter(|file| file.path.starts_with("broker-bin/src/") && !file.path.ends_with("router.rs"))
        {
            let calls = code(file).filter(|(_, line)| line.contains(&call));
            found.extend(calls.map(|(number, _)| format!("{}:{number} calls {call}…) past the router", file.path)));
        }
    }
    expect_none(found);
}

#[test]
fn unsafe_code_stays_in_its_rooms() {
    let rooms = ["engine/src/io/", "engine/src/commit/", "benches/", "perf/"];
    let files: Vec<File> =
        sources().into_iter().filter(|file| !rooms.iter().any(|room| file.path.starts_with(room))).collect();
    expect_none(mentions(&files, "", &["unsafe \u{7b}", "unsafe \u{66}n", "unsafe \u{69}mpl"]));
}

/// Bytes of a hex dump: digits up to the bar of each line; lines that begin with `#` are remarks.
fn dumped(text: &str) -> Option<Vec<u8>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let digits: String = lines.flat_map(|line| line.split('|').next()).flat_map(str::split_whitespace).collect();
    digits.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[test]
fn every_fixture_is_listed_with_its_origin_and_checksum() {
    let files = files();
    let (lists, fixtures): (Vec<_>, Vec<_>) = files
        .iter()
        .filter(|file| file.path.starts_with("fixtures/"))
        .partition(|file| file.path.ends_with("/README.md"));
    assert!(!lists.is_empty() && !fixtures.is_empty());
    let mut found = Vec::new();
    for file in fixtures {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        let mut rows = lists.iter().flat_map(|list| list.text.lines());
        let Some(row) = rows.find(|line| line.contains(&format!("`{name}`"))) else {
            found.push(format!("{} is in no README.md of fixtures/", file.path));
            continue;
        };
        let as_is = format!("{:08x}", crc32fast::hash(file.text.as_bytes()));
        let as_bytes = dumped(&file.text).map(|bytes| format!("{:08x}", crc32fast::hash(&bytes)));
        if !row.contains(&as_is) && !as_bytes.as_ref().is_some_and(|sum| row.contains(sum)) {
            found.push(format!("{}: its row has neither {as_is} nor {as_bytes:?}", file.path));
        }
    }
    expect_none(found);
}
