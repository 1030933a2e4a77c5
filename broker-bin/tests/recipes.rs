//! The recipes in `deploy/`: what they call is there, what they configure holds, and the tools that read them take them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anchorlog::config::{Config, Order};

fn recipe(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

/// What a command line of the program asks for, with files that are there after an installation replaced by those that are here.
#[track_caller]
fn ordered<'a>(words: impl IntoIterator<Item = &'a str>) -> Order {
    let words: Vec<String> = words.into_iter().map(installed).collect();
    Order::from_words(std::iter::once("anchorlog".to_owned()).chain(words.clone()))
        .unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

fn installed(word: &str) -> String {
    word.replace("/etc/anchorlog/broker.toml", path("broker.toml").to_str().expect("a path in text"))
}

#[track_caller]
fn broker<'a>(words: impl IntoIterator<Item = &'a str>) -> Config {
    match ordered(words) {
        Order::Broker(config) => *config,
        other => panic!("{other:?}"),
    }
}

/// The words of a list in brackets, as in `CMD ["a", "b"]`.
fn listed(line: &str) -> Vec<String> {
    let list = &line[line.find('[').expect("a list")..=line.rfind(']').expect("its end")];
    serde_json::from_str(list).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[test]
fn the_file_is_a_configuration_that_holds() {
    let config = broker(["broker", "--config", "/etc/anchorlog/broker.toml"]);
    assert_eq!(config.options.store, Path::new("/var/lib/anchorlog"));
    assert!(config.remarks().is_empty(), "{:?}", config.remarks());
    // What is only suggested must hold, too.
    let text = recipe("broker.toml");
    for line in text.lines().filter_map(|line| line.strip_prefix("# ")).filter(|line| line.contains(" = \"")) {
        let (name, value) = line.split_once(" = ").expect("a setting");
        let value = value.trim_matches('"');
        broker(["broker", &format!("--{name}={value}")]);
    }
}

#[test]
fn the_unit_starts_a_broker_and_lets_it_use_what_it_needs() {
    let unit = recipe("anchorlog.service");
    let values = |name: &str| -> Vec<&str> {
        unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
    };
    let [start] = values("ExecStart")[..] else { panic!("one start") };
    let words: Vec<&str> = start.split_whitespace().collect();
    assert_eq!(words[0], "/usr/bin/anchorlog");
    let config = broker(words[1..].iter().copied());
    assert_eq!(config.options.store, Path::new("/var/lib").join(values("StateDirectory")[0]));
    let filters = values("SystemCallFilter").join(" ");
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(filters.contains(call), "{call}");
    }
    assert_eq!((values("LimitMEMLOCK"), values("LimitFSIZE")), (vec!["infinity"], vec!["infinity"]));
    // A wrong configuration is not tried again and again: the program ends with 2 then.
    assert_eq!(values("RestartPreventExitStatus"), ["2"]);
    let patience: u64 = values("TimeoutStopSec")[0].parse().expect("seconds");
    assert!(patience >= 60, "what is in memory must be written");
}

/// The unit as systemd reads it, with a program that is there.
#[test]
#[expect(clippy::disallowed_methods, reason = "a copy of a recipe is no durable file")]
fn systemd_takes_the_unit() {
    let folder = tempfile::tempdir().expect("a directory");
    let unit = folder.path().join("anchorlog.service");
    let text = recipe("anchorlog.service").replace("/usr/bin/anchorlog", env!("CARGO_BIN_EXE_anchorlog"));
    std::fs::write(&unit, text).expect("written");
    let asked = Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&unit).output();
    let Ok(verified) = asked else { return skipped("systemd_takes_the_unit: systemd-analyze is not installed") };
    let said = String::from_utf8_lossy(&verified.stderr);
    // It looks at the whole system's units, too.
    let about: Vec<&str> = said.lines().filter(|line| line.contains("anchorlog")).collect();
    assert!(verified.status.success() && about.is_empty(), "{said}");
    let asked = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", "--threshold=20"])
        .arg(&unit)
        .output()
        .expect("it was there just now");
    let said = String::from_utf8_lossy(&asked.stdout);
    let last = said.lines().last().unwrap_or_default();
    if last.contains("exposure") {
        assert!(asked.status.success(), "exposed more than 2.0: {last}");
    } else {
        skipped("half of systemd_takes_the_unit: this systemd-analyze judges no files");
    }
}

#[test]
fn the_image_starts_a_broker_and_looks_after_it() {
    let text = recipe("Dockerfile");
    let line = |word: &str| {
        let mut lines = text.lines().filter(|line| line.starts_with(word));
        lines.next_back().unwrap_or_else(|| panic!("a line {word}"))
    };
    assert_eq!(listed(line("ENTRYPOINT")), ["anchorlog"]);
    let command = listed(line("CMD"));
    let config = broker(command.iter().map(String::as_str));
    assert_eq!(config.options.store.to_str(), line("VOLUME").split_whitespace().nth(1));
    let exposed: Vec<&str> = line("EXPOSE").split_whitespace().skip(1).collect();
    assert!(exposed.contains(&config.options.listen.port.to_string().as_str()));
    let health = listed(&line("HEALTHCHECK").replace("HEALTHCHECK", ""));
    assert!(matches!(ordered(health[1..].iter().map(String::as_str)), Order::Operator(_)));
    let built = line("FROM rust:").split([':', '-']).nth(1).expect("a version");
    let wanted =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml")).expect("a workspace");
    assert!(wanted.contains(&format!("rust-version = \"{built}\"")), "it is built with Rust {built}");
    // What is copied into it, and what is compiled.
    let copied = recipe("Dockerfile.dockerignore");
    let members = wanted.lines().find_map(|line| line.strip_prefix("members = ")).expect("members");
    for member in listed(members) {
        assert!(copied.lines().any(|line| line == format!("!{member}")), "{member} is needed to build");
    }
}

/// The brokers of the compose file: name and command line of each.
fn services(text: &str) -> Vec<(String, Vec<String>)> {
    let mut services: Vec<(String, Vec<String>)> = Vec::new();
    let mut lines = text.lines().skip_while(|line| *line != "services:").skip(1).peekable();
    while let Some(line) = lines.next_if(|line| line.is_empty() || line.starts_with(' ')) {
        if let Some(name) = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')) {
            services.push((name.trim_end_matches(':').to_owned(), Vec::new()));
        } else if line.trim() == "command:" {
            let service = services.last_mut().expect("it is of a service");
            while let Some(word) = lines.peek().and_then(|line| line.strip_prefix("      - ")) {
                service.1.push(word.to_owned());
                lines.next();
            }
        }
    }
    services
}

#[test]
fn the_set_is_a_leader_and_a_slave_that_know_each_other() {
    let text = recipe("compose.yaml");
    let services = services(&text);
    assert_eq!(services.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["leader", "slave"]);
    let configs: Vec<_> = services.iter().map(|(_, words)| broker(words.iter().map(String::as_str))).collect();
    for (own, other) in [(0, 1), (1, 0)] {
        let (own, other) = (&configs[own].options, &configs[other].options);
        let known = &own.replicas.as_ref().expect("it knows the other").0[0];
        assert_eq!(
            (&known.id, &known.clients, &known.replicas),
            (&other.replica_id, &other.listen, &other.replica_listen)
        );
        assert!(text.contains(&format!("ipv4_address: {}", own.listen.host)), "{} is its address", own.listen.host);
        assert_eq!(own.replica_key.as_deref(), Some(Path::new("/run/secrets/replica-key")));
    }
    for line in text.lines().filter(|line| line.trim().starts_with("test: ")) {
        let words = listed(line);
        assert!(matches!(ordered(words[2..].iter().map(String::as_str)), Order::Operator(_)), "{line}");
    }
    // What its remarks say to call.
    for line in text.lines().filter(|line| line.starts_with('#')) {
        if let Some((_, call)) = line.split_once(" anchorlog ") {
            ordered(call.split_whitespace());
        }
    }
}

/// Says so past the test harness, which keeps what a passing test prints to itself.
fn skipped(why: &str) {
    let line = format!("SKIPPED {why}\n");
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("standard error can be written");
}
