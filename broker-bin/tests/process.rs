//! The program itself: what it says at its start, and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use anchorlog::wire::codes::request;
use anchorlog::wire::header::Head;
use anchorlog::wire::{Encoding, FrameRef, Header};
use anchorlog_engine::{Append, BackendChoice, Engine, EngineOptions, Put, WriteBatch};
use bytes::BytesMut;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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
    let send = [
        ("a", "p"),
        ("b", "T1"),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "0"),
        ("f", "0"),
        ("g", "1"),
        ("h", "0"),
        ("i", ""),
    ];
    let running = Running::start(store, &["--broker-name", "b7"]);
    assert_eq!(ask(running.address, request::SEND_MESSAGE_V2, &send, b"hello").0, 0);
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

#[test]
fn what_does_not_hold_ends_with_2_and_says_why() {
    for (words, part) in [
        (&["broker", "--listen", "0.0.0.0:0"][..], "--insecure"),
        (&["broker", "--flush", "sometimes"], "sync"),
        (&["broker", "--log-level", "a=b=c"], "log-level"),
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
