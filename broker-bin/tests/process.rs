//! The program itself: what it says at its start, and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;

use anchorlog::wire::codes::request;
use anchorlog::wire::header::Head;
use anchorlog::wire::{Encoding, FrameRef, Header};
use anchorlog_engine::{Append, BackendChoice, Engine, EngineOptions, Put, WriteBatch};
use bytes::BytesMut;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

fn program(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anchorlog"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ended(words: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = program(words).output().expect("it runs");
    (status.code(), String::from_utf8([stdout, stderr].concat()).expect("text"))
}

/// A running broker; it does not outlive the test.
struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
    address: SocketAddr,
    said: String,
}

impl Running {
    fn start(store: &str, words: &[&str]) -> Running {
        let common = ["broker", "--store", store, "--listen", "127.0.0.1:0", "--backend", "threads"];
        let mut child = program(&[&common, words].concat()).spawn().expect("it runs");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        // From here on whatever fails ends the process, too.
        let address = SocketAddr::from(([0; 4], 0));
        let mut running = Running { child, log, address, said: String::new() };
        loop {
            let at = running.said.len();
            assert!(running.log.read_line(&mut running.said).expect("text") > 0, "it ended: {}", running.said);
            if let Some((_, rest)) = running.said[at..].split_once(" serving listen=") {
                running.address = rest.split_whitespace().next().expect("an address").parse().expect("an address");
                return running;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(id), signal).expect("it lives");
    }

    /// Waits for its end: exit code, and all that it said.
    fn end(mut self) -> (Option<i32>, String) {
        self.log.read_to_string(&mut self.said).expect("text");
        (self.child.wait().expect("it ran").code(), std::mem::take(&mut self.said))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            self.child.kill().expect("it lives");
            self.child.wait().expect("it ran");
        }
    }
}

/// Status and body of an answer over HTTP.
fn get(at: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: monitor\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.split(' ').nth(1).expect("a status").parse().expect("a number"), body.to_owned())
}

/// Sends one request and gives back code and body of its answer.
fn ask(address: SocketAddr, code: i32, fields: &[(&str, &str)], body: &[u8]) -> (i32, Vec<u8>) {
    let mut out = BytesMut::new();
    let mut frame = Head::request(Encoding::Json, code, 1).encode(&mut out);
    for (name, value) in fields {
        frame.field(name, value);
    }
    frame.finish(body).expect("it fits");
    let mut connection = TcpStream::connect(address).expect("it listens");
    connection.write_all(&out).expect("it reads");
    let mut bytes = Vec::new();
    loop {
        if let Some(frame) = FrameRef::parse(&bytes).expect("a frame") {
            return (Header::of(&frame).expect("good").code, frame.body.to_vec());
        }
        let mut piece = [0; 4096];
        let count = connection.read(&mut piece).expect("an answer");
        assert!(count > 0, "it closed the connection");
        bytes.extend_from_slice(&piece[..count]);
    }
}

#[test]
fn a_broker_says_what_is_in_force_serves_and_stops_in_order() {
    let store = tempfile::tempdir().expect("a directory");
    let store = store.path().join("log");
    let store = store.to_str().expect("text");
    let running = Running::start(store, &["--broker-name", "b7"]);
    assert_eq!(ask(running.address, request::SEND_MESSAGE_V2, &SEND, b"hello").0, 0);
    let (code, route) = ask(running.address, request::GET_ROUTEINFO_BY_TOPIC, &[("topic", "T1")], b"");
    assert!(code == 0 && String::from_utf8_lossy(&route).contains(&running.address.to_string()));
    // As timeout(1) does: the process, and then its group.
    running.signal(Signal::SIGTERM);
    running.signal(Signal::SIGTERM);
    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    for part in ["broker-name = b7 (flag)", "flush = sync\n", "stopping", "stopped"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    // What was there is there again.
    let running = Running::start(store, &[]);
    let (code, _) = ask(running.address, request::GET_ROUTEINFO_BY_TOPIC, &[("topic", "T1")], b"");
    assert_eq!(code, 0);
    running.signal(Signal::SIGINT);
    assert_eq!(running.end().0, Some(0));
}

/// A certificate in a pipe that nobody writes holds the start up, as a long log on a slow disk does.
#[test]
fn a_start_that_takes_long_is_ended_by_a_signal() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let pipe = directory.path().join(signal.as_str());
        mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe");
        let (store, path) = (directory.path().join("log"), pipe.to_str().expect("text"));
        let words = ["broker", "--listen", "127.0.0.1:0", "--store", store.to_str().expect("text")];
        let mut child =
            program(&[&words[..], &["--tls-cert", path, "--tls-key", path]].concat()).spawn().expect("it runs");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let address = SocketAddr::from(([0; 4], 0));
        let mut running = Running { child, log, address, said: String::new() };
        // There is somebody to write to once it waits there.
        let written = (0..6000).find_map(|_| {
            let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK;
            let opened = open(&pipe, flags, Mode::empty()).ok();
            if opened.is_none() {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            opened
        });
        let written = written.expect("it reads the certificate");
        running.signal(signal);
        let ended = (0..3000).find_map(|_| {
            std::thread::park_timeout(Duration::from_millis(10));
            running.child.try_wait().expect("a child")
        });
        drop(written);
        assert_eq!(ended.expect("it ended within half a minute").code(), Some(0));
        let (_, said) = running.end();
        assert!(said.contains("ended before the start was done") && !said.contains("stopping"), "{said}");
    }
}

#[test]
fn a_log_that_was_made_otherwise_is_not_shown_as_asked_for() {
    let store = tempfile::tempdir().expect("a directory");
    let store = store.path().join("log");
    let store = store.to_str().expect("text");
    let running = Running::start(store, &["--segment-bytes", "1MiB"]);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, Some(0));
    let running = Running::start(store, &["--segment-bytes", "2MiB"]);
    running.signal(Signal::SIGTERM);
    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    for part in ["segment-bytes = 1MiB (as the log was made)", "segment-bytes = 2MiB has no effect"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let (code, said) = ended(&["broker", "--listen", "127.0.0.1:0", "--store", store, "--tail", "pad"]);
    assert!(code == Some(2) && said.contains("command line: tail = pad: the log in"), "{code:?} {said}");
}

#[test]
fn what_does_not_hold_ends_with_2_and_says_why() {
    for (words, part) in [
        (&["broker", "--listen", "0.0.0.0:0"][..], "--insecure"),
        (&["broker", "--flush", "sometimes"], "sync"),
        (&["broker", "--log-level", "a=b=c"], "log-level"),
        (&["broker", "--log-level", "inof"], "error, warn, info, debug"),
        (&["broker", "--net-threads", "100000"], "1 to 256"),
        (&["broker", "--config", "/nowhere/a.toml"], "/nowhere/a.toml"),
        (&["brokr"], "broker"),
    ] {
        let (code, said) = ended(words);
        assert_eq!(code, Some(2), "{words:?}: {said}");
        assert!(said.contains(part), "{words:?}: {said}");
    }
}

#[test]
fn help_and_version_are_no_failures() {
    let (code, said) = ended(&["broker", "--help"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("--flush") && said.contains("[default: 127.0.0.1:9876]"), "{said}");
    assert_eq!(ended(&["--version"]), (Some(0), concat!("anchorlog ", env!("CARGO_PKG_VERSION"), "\n").to_owned()));
}

#[test]
fn a_start_that_fails_ends_with_1() {
    let store = tempfile::tempdir().expect("a directory");
    let running = Running::start(store.path().join("a").to_str().expect("text"), &[]);
    let taken = running.address.to_string();
    let other = store.path().join("b");
    let (code, said) = ended(&["broker", "--listen", &taken, "--store", other.to_str().expect("text")]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is another broker running there?"), "{said}");
}

#[test]
fn a_store_of_another_version_ends_with_1_and_says_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = |name: &str, fill: &dyn Fn(&Engine, &mut WriteBatch)| {
        let path = directory.path().join(name);
        let options = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
        let engine = Engine::open(&path, options).expect("a log");
        let mut batch = WriteBatch::new();
        fill(&engine, &mut batch);
        engine.append_and_wait(batch).expect("room");
        engine.close().expect("a clean end");
        path.to_str().expect("text").to_owned()
    };
    let older = store("older", &|engine, batch| {
        let queue = engine.queue(b"\x01journal").expect("a queue");
        let record = Append { queue: &queue, tag: 0, keys: &[], attributes: &[1; 9], payload: &[] };
        batch.append(&record).expect("small");
    });
    let newer = store("newer", &|_, batch| {
        batch.put(&Put { key: b"meta/format", value: &[0, 0, 0, 9], target: None }).expect("small");
    });
    for (store, part) in [(older, "an older version"), (newer, "a newer version")] {
        let (code, said) = ended(&["broker", "--listen", "127.0.0.1:0", "--backend", "threads", "--store", &store]);
        assert_eq!(code, Some(1), "{said}");
        for part in [&*store, part, "Open the store with the version that wrote it, or start with a new directory"] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}

const SEND: [(&str, &str); 9] =
    [("a", "p"), ("b", "T1"), ("c", "TBW102"), ("d", "4"), ("e", "0"), ("f", "0"), ("g", "1"), ("h", "0"), ("i", "")];

/// The disk fails a write for good: here the system forbids the file to be as long as it is already.
#[test]
fn a_broker_whose_log_is_fenced_says_so_to_monitors_and_in_one_line() {
    let store = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let store = store.path().join("log");
    let words = ["--metrics-listen", "127.0.0.1:0", "--segment-bytes", "1MiB"];
    let running = Running::start(store.to_str().expect("text"), &words);
    let (_, rest) = running.said.split_once("told over HTTP listen=").expect("where it listens");
    let monitors: SocketAddr = rest.split_whitespace().next().expect("an address").parse().expect("an address");
    assert_eq!(ask(running.address, request::SEND_MESSAGE_V2, &SEND, b"good").0, 0);
    assert_eq!((get(monitors, "/health").0, get(monitors, "/ready").0), (200, 200));
    let limited = Command::new("prlimit").args(["--pid", &running.child.id().to_string(), "--fsize=1:"]).status();
    assert!(limited.expect("part of every Linux").success());
    assert_eq!(
        ask(running.address, request::SEND_MESSAGE_V2, &SEND, b"unlucky").0,
        10,
        "stored, perhaps; not confirmed"
    );
    let (status, why) = get(monitors, "/health");
    assert!(status == 503 && why.contains("the log is fenced since LSN"), "{status} {why}");
    assert_eq!(get(monitors, "/ready"), (503, why));
    let (_, page) = get(monitors, "/metrics");
    for row in ["anchorlog_log_fenced 1.0", "anchorlog_healthy 0.0", "anchorlog_messages_unconfirmed_total 1"] {
        assert!(page.lines().any(|line| line == row), "{row} in {page}");
    }
    running.signal(Signal::SIGTERM);
    let (code, said) = running.end();
    assert_eq!(code, Some(1), "what was not confirmed may be lost: {said}");
    assert_eq!(said.matches(" log fenced ").count(), 1, "{said}");
}

#[test]
fn log_lines_are_json_on_request_with_every_field_under_its_name() {
    let store = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let store = store.path().join("log");
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let words = ["broker", "--store", store.to_str().expect("text"), "--listen", &listen.to_string()];
    let words = [&words[..], &["--backend", "threads", "--log-format", "json"]].concat();
    let mut child = program(&words).spawn().expect("it runs");
    let mut log = BufReader::new(child.stderr.take().expect("piped"));
    let mut lines = Vec::new();
    let serving: serde_json::Value = loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).expect("text") > 0, "it ended: {lines:?}");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if line["message"] == "serving" {
            break line;
        }
        lines.push(line);
    };
    for field in ["timestamp", "level", "target", "listen", "standing"] {
        assert!(serving[field].is_string(), "{field} in {serving}");
    }
    let address: SocketAddr = serving["listen"].as_str().expect("text").parse().expect("an address");
    assert_eq!(ask(address, request::SEND_MESSAGE_V2, &SEND, b"hello").0, 0);
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a process id")), Signal::SIGTERM).expect("it lives");
    let mut rest = String::new();
    log.read_to_string(&mut rest).expect("text");
    assert!(child.wait().expect("it ran").success(), "{rest}");
    let rest: Vec<serde_json::Value> = rest.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let made = rest.iter().find(|line| line["message"] == "made a topic on demand").expect("one line for it");
    assert_eq!((made["topic"].as_str(), made["queues"].as_u64()), (Some("T1"), Some(4)));
}
