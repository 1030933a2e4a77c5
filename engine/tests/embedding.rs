//! What an embedder is promised beside the calls: examples that run, options that say their bounds, few crates.
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Crates in the engine's normal dependency tree, procedural macros and what they are made with included, the engine itself not.
const CRATE_COUNT_MAX: usize = 20;

/// Every example, and a piece of what it prints when it does what it says.
const EXAMPLES: [(&str, &str); 10] = [
    ("async_flush", "would be lost if the power failed now"),
    ("futures", "answered, offset 2 durable"),
    ("group_commit", "64 threads: 6400 acks"),
    ("inject_faults", "after the power failure: 1 messages"),
    ("outbox", "notes left: 0"),
    ("recover_after_a_crash", "in order"),
    ("retention", "segments recycled in all"),
    ("sync_append", "offset 2: paint, red"),
    ("tail_reader", "read 300 messages"),
    ("watermark_subscription", "20000 requests answered"),
];

fn source(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn every_example_runs_and_shows_what_it_promises() {
    // Cargo puts examples beside the folder of the tests, and builds them with a `cargo test` of all targets. After one with `--test`
    // they are those of the build before.
    let folder = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples");
    for (name, shown) in EXAMPLES {
        let path = folder.join(name);
        assert!(path.exists(), "{path:?} is not there: `cargo build --examples` builds it");
        let output = Command::new(&path).output().unwrap();
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && error.is_empty(), "{name}: {}\n{out}\n{error}", output.status);
        assert!(out.contains(shown), "{name} prints no {shown:?}:\n{out}");
    }
}

#[test]
fn every_example_is_run_says_how_to_run_it_and_is_in_the_manual() {
    let names = EXAMPLES.map(|(name, _)| name);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut found: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    // The simulator is a tool of its own, not something to learn from.
    let names_found = found.iter().map(|path| path.file_stem().unwrap().to_str().unwrap());
    let found: Vec<_> = names_found.filter(|name| *name != "simulate").collect();
    assert_eq!(found, names);
    let manual = source("src/manual.rs");
    for name in names {
        let text = source(&format!("examples/{name}.rs"));
        assert!(text.starts_with("//! "), "{name} says what it shows");
        assert!(text.contains(&format!("//! `cargo run -p anchorlog-engine --example {name}`\n")), "{name}");
        assert!(manual.contains(&format!("| `{name}` |")), "{name} is not in the manual");
    }
}

#[test]
fn every_option_says_its_default_and_stands_in_the_manual() {
    let (options, manual) = (source("src/options.rs"), source("src/manual.rs"));
    let mut doc = String::new();
    let mut count = 0;
    for line in options.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push_str(text);
        } else if let Some(name) = line.strip_prefix("pub fn with_").and_then(|rest| rest.split('(').next()) {
            assert!(doc.contains("Default:"), "with_{name} says no default");
            let number = line.contains(": u64") || line.contains(": usize") || line.contains("Option<u64>");
            assert!(!number || doc.contains("Minimum:"), "with_{name} says no minimum");
            assert!(
                doc.contains("feature `sim`") || manual.contains(&format!("(EngineOptions::with_{name})")),
                "{name}"
            );
            count += 1;
            doc.clear();
        } else if !line.starts_with("#[") {
            doc.clear();
        }
    }
    assert!(count > 10, "{count} setters were found");
}

#[test]
fn the_engine_needs_few_crates_and_no_async_runtime() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "-p", "anchorlog-engine", "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    // "name v1.2.3 (where from)", more than once where more than one crate needs it.
    let crates: BTreeSet<Vec<&str>> = tree.lines().map(|line| line.split(' ').take(2).collect()).collect();
    let named = |name: &str| crates.iter().any(|one| one[0] == name);
    assert!(named("anchorlog-engine") && named("crc32fast"), "{crates:?}");
    for runtime in ["tokio", "async-std", "smol", "futures-executor", "mio"] {
        assert!(!named(runtime), "{runtime} is an async runtime, or half of one");
    }
    let count = crates.len() - 1;
    assert!(count <= CRATE_COUNT_MAX, "{count} crates, {CRATE_COUNT_MAX} are the most: {crates:?}");
}
