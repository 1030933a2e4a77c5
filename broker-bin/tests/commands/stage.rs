//! A broker in this process, and commands in their own.

use std::process::{Command, Stdio};
use std::str::FromStr;

use anchorlog::commands::Remote;
use anchorlog::config::HostPort;
use anchorlog::wire::message::{Record, records};
use anchorlog::{Broker, BrokerHandle, BrokerOptions};
use anchorlog_engine::{BackendChoice, EngineOptions};
use serde_json::Value;
use tempfile::TempDir;

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) error: String,
}

impl Done {
    /// What it printed, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What it printed: done, and with all these parts.
    #[track_caller]
    pub(crate) fn says(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(0), "{self:?}");
        for part in parts {
            assert!(self.out.contains(part), "{part} in {}", self.out);
        }
    }

    /// It was refused, for this reason.
    #[track_caller]
    pub(crate) fn is_refused(&self, part: &str) {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert!(self.error.contains(part), "{part} in {}", self.error);
    }
}

/// Runs the program to its end.
pub(crate) fn ended(words: &[&str]) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anchorlog"));
    let output = command.args(words).stdin(Stdio::null()).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Done { code: output.status.code(), out: text(output.stdout), error: text(output.stderr) }
}

/// A broker on a temporary store.
pub(crate) struct Stage {
    pub(crate) broker: BrokerHandle,
    pub(crate) store: TempDir,
}

impl Stage {
    pub(crate) fn new() -> Stage {
        Stage::with(|options| options)
    }

    pub(crate) fn with(change: impl FnOnce(BrokerOptions) -> BrokerOptions) -> Stage {
        let store = tempfile::Builder::new().prefix("commands-").tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        let store = store.expect("a directory");
        let engine = EngineOptions::default().with_segment_bytes(1 << 20).with_backend(BackendChoice::Threads);
        let options = BrokerOptions {
            listen: "127.0.0.1:0".parse().expect("an address"),
            engine,
            network_threads: Some(1),
            ..BrokerOptions::new(store.path())
        };
        Stage { broker: Broker::start(change(options)).expect("a broker"), store }
    }

    /// Runs a command against it.
    pub(crate) fn run(&self, words: &[&str]) -> Done {
        let address = self.broker.address().to_string();
        ended(&[words, &["--broker", &address]].concat())
    }

    /// What a command prints as JSON.
    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        self.run(&[words, &["--json"]].concat()).json()
    }

    pub(crate) fn client(&self) -> Client {
        let address = HostPort::from_str(&self.broker.address().to_string()).expect("an address");
        Client(Remote::connect(&address).expect("it listens"))
    }
}

/// A client that sends and reads.
pub(crate) struct Client(pub(crate) Remote);

/// A message that a client has read.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) place: i64,
    pub(crate) body: Vec<u8>,
    pub(crate) attempts: i32,
    pub(crate) properties: String,
}

impl Client {
    /// Sends a message to queue 0; flag 4 makes it half of a transaction.
    pub(crate) fn send(&mut self, topic: &str, properties: &str, body: &[u8]) {
        let properties = properties.replace('=', "\u{1}").replace(';', "\u{2}");
        let flag = if properties.contains("TRAN_MSG") { "4" } else { "0" };
        let fields = [
            ("a", "p"),
            ("b", topic),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", "0"),
            ("f", flag),
            ("g", "1700000000000"),
            ("h", "0"),
            ("i", &properties),
            ("j", "0"),
        ];
        self.0.ask(310, &fields, body).and_then(|answer| answer.done()).expect("stored");
    }

    /// Everything in queue 0, for a group.
    pub(crate) fn read(&mut self, topic: &str) -> Vec<Read> {
        let fields = [
            ("consumerGroup", "g"),
            ("topic", topic),
            ("queueId", "0"),
            ("queueOffset", "0"),
            ("maxMsgNums", "32"),
            ("sysFlag", "4"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "0"),
            ("subscription", "*"),
            ("subVersion", "0"),
        ];
        let answer = self.0.ask(11, &fields, b"").expect("an answer");
        let read = |record: Record<'_>| Read {
            place: record.head.physical_offset,
            body: record.body.to_vec(),
            attempts: record.head.reconsume_times,
            properties: record.properties.replace('\u{1}', "=").replace('\u{2}', ";"),
        };
        records(&answer.body).map(|record| read(record.expect("a record"))).collect()
    }

    /// Sends a message and gives it up, for the group.
    pub(crate) fn dead_letter(&mut self, topic: &str, properties: &str, body: &[u8]) {
        self.send(topic, properties, body);
        let last = self.read(topic).pop().expect("sent");
        self.send_back(&last, "-1");
    }

    pub(crate) fn send_back(&mut self, read: &Read, level: &str) {
        let place = read.place.to_string();
        let fields = [("offset", &*place), ("group", "g"), ("delayLevel", level), ("originMsgId", "")];
        self.0.ask(36, &fields, b"").and_then(|answer| answer.done()).expect("sent back");
    }
}
