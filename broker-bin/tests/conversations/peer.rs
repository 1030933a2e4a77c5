//! A client that says exactly what a conversation tells it to. Its codec is its own, so that no mistake of `wire` hides itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// How long an answer may take that is expected at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// A frame from the broker.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) header: Value,
    pub(crate) body: Vec<u8>,
}

impl Frame {
    pub(crate) fn code(&self) -> i64 {
        self.header["code"].as_i64().expect("a code")
    }

    pub(crate) fn opaque(&self) -> i64 {
        self.header["opaque"].as_i64().expect("an opaque")
    }

    pub(crate) fn is_response(&self) -> bool {
        self.header["flag"].as_i64().expect("a flag") & 1 == 1
    }

    pub(crate) fn remark(&self) -> &str {
        self.header["remark"].as_str().unwrap_or_default()
    }

    /// A field; every value must be text.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.header["extFields"][name].as_str().unwrap_or_else(|| panic!("no text field {name} in {}", self.header))
    }

    pub(crate) fn number(&self, name: &str) -> i64 {
        self.field(name).parse().unwrap_or_else(|_| panic!("{name} is no number in {}", self.header))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        let mut rest = &self.body[..];
        let mut records = Vec::new();
        while !rest.is_empty() {
            let size = u32::from_be_bytes(rest[..4].try_into().expect("four bytes")) as usize;
            records.push(Record::read(&rest[..size]));
            rest = &rest[size..];
        }
        records
    }

    /// Fails unless this is the answer with that code.
    #[track_caller]
    pub(crate) fn expect(self, code: i64) -> Frame {
        assert_eq!(self.code(), code, "{} {}", self.header, self.remark());
        assert!(self.is_response(), "{}", self.header);
        self
    }
}

/// A message as pulled, IPv4 only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) bytes: Vec<u8>,
    pub(crate) queue: u32,
    pub(crate) flag: u32,
    pub(crate) queue_offset: u64,
    pub(crate) physical_offset: u64,
    pub(crate) body: Vec<u8>,
    pub(crate) topic: String,
    pub(crate) properties: String,
}

impl Record {
    fn read(bytes: &[u8]) -> Record {
        let u32_at = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        assert_eq!(u32_at(4), 0xDAA3_20A7, "the magic of the first record layout");
        let body_end = 88 + u32_at(84) as usize;
        let topic_end = body_end + 1 + usize::from(bytes[body_end]);
        let properties =
            usize::from(u16::from_be_bytes(bytes[topic_end..topic_end + 2].try_into().expect("two bytes")));
        assert_eq!(topic_end + 2 + properties, bytes.len(), "the lengths add up");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Record {
            bytes: bytes.to_vec(),
            queue: u32_at(12),
            flag: u32_at(16),
            queue_offset: u64_at(20),
            physical_offset: u64_at(28),
            body: bytes[88..body_end].to_vec(),
            topic: text(&bytes[body_end + 1..topic_end]),
            properties: text(&bytes[topic_end + 2..]),
        }
    }

    /// A property's value as clients read it: entries between separators, the last of a name counts.
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        let entries = self.properties.split('\u{2}').filter_map(|entry| entry.split_once('\u{1}'));
        entries.filter(|(found, _)| *found == name).map(|(_, value)| value).next_back()
    }
}

/// One connection of a client.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
    /// Frames that came while another was awaited.
    set_aside: Vec<Frame>,
    next_opaque: i64,
    /// What the client says its version is.
    pub(crate) version: i64,
}

impl Peer {
    pub(crate) fn connect(address: SocketAddr) -> Peer {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        Peer { stream, input: Vec::new(), set_aside: Vec::new(), next_opaque: 100, version: 479 }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker reads");
    }

    /// The bytes of a request, and its opaque.
    pub(crate) fn request(&mut self, code: i64, fields: &Value, body: &[u8], flag: i64) -> (Vec<u8>, i64) {
        self.next_opaque += 1;
        let header = json!({
            "code": code, "extFields": fields, "flag": flag, "language": "JAVA", "opaque": self.next_opaque,
            "serializeTypeCurrentRPC": "JSON", "version": self.version,
        });
        (frame(header.to_string().as_bytes(), body), self.next_opaque)
    }

    /// Sends a request; gives its opaque.
    pub(crate) fn send(&mut self, code: i64, fields: &Value, body: &[u8]) -> i64 {
        let (bytes, opaque) = self.request(code, fields, body, 0);
        self.raw(&bytes);
        opaque
    }

    pub(crate) fn send_oneway(&mut self, code: i64, fields: &Value, body: &[u8]) {
        let (bytes, _) = self.request(code, fields, body, 2);
        self.raw(&bytes);
    }

    /// Answers a request of the broker.
    pub(crate) fn respond(&mut self, opaque: i64, code: i64) {
        let header = json!({
            "code": code, "flag": 1, "language": "JAVA", "opaque": opaque, "serializeTypeCurrentRPC": "JSON",
            "version": self.version,
        });
        let bytes = frame(header.to_string().as_bytes(), &[]);
        self.raw(&bytes);
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask(&mut self, code: i64, fields: &Value, body: &[u8]) -> Frame {
        let opaque = self.send(code, fields, body);
        self.answer(opaque)
    }

    /// Waits for the answer to a request; keeps what else comes.
    pub(crate) fn answer(&mut self, opaque: i64) -> Frame {
        self.wanted(PATIENCE, |frame| frame.is_response() && frame.opaque() == opaque)
            .unwrap_or_else(|| panic!("no answer to {opaque} within {PATIENCE:?}; set aside: {:?}", self.set_aside))
    }

    /// Waits for a request of the broker.
    pub(crate) fn notice(&mut self) -> Frame {
        self.wanted(PATIENCE, |frame| !frame.is_response()).expect("a request of the broker in time")
    }

    /// What comes within this time, if anything does.
    pub(crate) fn anything(&mut self, patience: Duration) -> Option<Frame> {
        self.wanted(patience, |_| true)
    }

    fn wanted(&mut self, patience: Duration, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        if let Some(place) = self.set_aside.iter().position(&wanted) {
            return Some(self.set_aside.remove(place));
        }
        loop {
            let frame = self.receive(patience)?;
            if wanted(&frame) {
                return Some(frame);
            }
            self.set_aside.push(frame);
        }
    }

    fn receive(&mut self, patience: Duration) -> Option<Frame> {
        self.stream.set_read_timeout(Some(patience)).expect("a time-out");
        let mut piece = vec![0; 64 << 10];
        loop {
            if let Some(frame) = take_frame(&mut self.input) {
                return Some(frame);
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(count) => self.input.extend_from_slice(&piece[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// True when the broker closes the connection within the usual patience; answers on the way are dropped.
    pub(crate) fn sees_close(&mut self) -> bool {
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let mut piece = vec![0; 64 << 10];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::ConnectionReset,
            }
        }
    }

    pub(crate) fn hang_up(self) {
        self.stream.shutdown(Shutdown::Both).expect("hanging up");
    }

    /// A send as Java's clients write it (310); gives the answer.
    pub(crate) fn send_message(&mut self, topic: &str, queue: i64, body: &[u8], properties: &str) -> Frame {
        self.ask(310, &send_fields(topic, queue, properties), body)
    }

    /// A pull that does not wait, for everything.
    pub(crate) fn pull(&mut self, group: &str, topic: &str, queue: i64, offset: i64) -> Frame {
        self.ask(11, &pull_fields(group, topic, queue, offset, 4, "*"), &[])
    }
}

/// A request's or answer's bytes.
pub(crate) fn frame(header: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(4 + header.len() + body.len()).expect("small").to_be_bytes().to_vec();
    bytes.extend(u32::try_from(header.len()).expect("small").to_be_bytes());
    bytes.extend(header);
    bytes.extend(body);
    bytes
}

fn take_frame(input: &mut Vec<u8>) -> Option<Frame> {
    let length = u32::from_be_bytes(*input.first_chunk::<4>()?) as usize;
    if input.len() < 4 + length {
        return None;
    }
    let header_length = (u32::from_be_bytes(input[4..8].try_into().expect("four bytes")) & 0xFF_FFFF) as usize;
    assert_eq!(input[4], 0, "an answer to JSON is JSON");
    let header = serde_json::from_slice(&input[8..8 + header_length]).expect("a JSON header");
    let body = input[8 + header_length..4 + length].to_vec();
    input.drain(..4 + length);
    let frame = Frame { header, body };
    for key in ["code", "language", "version", "opaque", "flag", "serializeTypeCurrentRPC"] {
        assert!(!frame.header[key].is_null(), "{key} is missing in {}", frame.header);
    }
    Some(frame)
}

/// The fields of a send as Java's clients write them.
pub(crate) fn send_fields(topic: &str, queue: i64, properties: &str) -> Value {
    json!({
        "a": "producers", "b": topic, "c": "TBW102", "d": "4", "e": queue.to_string(), "f": "0",
        "g": "1700000000000", "h": "0", "i": properties, "j": "0", "k": "false", "l": "0", "m": "false", "n": "broker-a",
    })
}

/// The fields of a pull; `flags`: 1 commit, 2 wait, 4 subscription given.
pub(crate) fn pull_fields(group: &str, topic: &str, queue: i64, offset: i64, flags: i64, subscription: &str) -> Value {
    json!({
        "consumerGroup": group, "topic": topic, "queueId": queue.to_string(), "queueOffset": offset.to_string(),
        "maxMsgNums": "32", "sysFlag": flags.to_string(), "commitOffset": "0", "suspendTimeoutMillis": "15000",
        "subscription": subscription, "subVersion": "0", "expressionType": "TAG",
    })
}

/// A heartbeat of a consumer that wants everything of one topic.
pub(crate) fn heartbeat(client: &str, group: &str, topic: &str, expression: &str, version: i64) -> Vec<u8> {
    let subscription = |topic: &str, expression: &str| {
        json!({
            "classFilterMode": false, "codeSet": [], "expressionType": "TAG", "subString": expression,
            "subVersion": version, "tagsSet": [], "topic": topic,
        })
    };
    let retry_topic = format!("%RETRY%{group}");
    let body = json!({
        "clientID": client,
        "consumerDataSet": [{
            "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET", "consumeType": "CONSUME_PASSIVELY", "groupName": group,
            "messageModel": "CLUSTERING", "unitMode": false,
            "subscriptionDataSet": [subscription(topic, expression), subscription(&retry_topic, "*")],
        }],
        "heartbeatFingerprint": 0, "producerDataSet": [{"groupName": "CLIENT_INNER_PRODUCER"}], "withoutSub": false,
    });
    body.to_string().into_bytes()
}
