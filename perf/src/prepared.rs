//! Requests that are encoded once and patched for every use: on a small machine the client takes its processor time from the broker that
//! it measures.
//!
//! A number is patched in its place, as long as it was: with zeros in front, where it is text.

use std::ops::Range;

use anchorlog::wire::Encoding;
use anchorlog::wire::codes::request;
use anchorlog::wire::header::Head;

use crate::clock;
use crate::error::PerfError;
use crate::payload::{HEAD_BYTES, Payloads};
use crate::remoting::encode;
use crate::topic::{Send, properties};

/// The number of the first request: as long, in digits, as that of every later one.
pub(crate) const FIRST_OPAQUE: i32 = 1_000_000_000;
/// A number to be patched, before it is: longer than any that stands in a request by itself.
pub(crate) const NUMBER: &str = "98765432109876543210";
/// A time to be patched, in milliseconds since 1970.
const TIME: &str = "9876543210987";
/// A message's own key, before it is patched.
const KEY: &str = "KKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKK";

/// A request that was encoded once.
#[derive(Clone)]
pub(crate) struct Prepared {
    frame: Vec<u8>,
    encoding: Encoding,
    opaque_at: usize,
}

/// A place in a [`Prepared`] that changes.
#[derive(Clone)]
pub(crate) struct Place(Range<usize>);

impl Prepared {
    /// Encodes it. The places that change hold what [`Prepared::place`] looks for.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub(crate) fn new(head: Head<'_>, fields: &[(&str, &str)], body: &[u8]) -> Result<Prepared, PerfError> {
        let head = Head { opaque: FIRST_OPAQUE, ..head };
        let encoding = head.encoding;
        let mut prepared = Prepared { frame: encode(head, fields, body)?.to_vec(), encoding, opaque_at: 0 };
        let Place(opaque) = match encoding {
            Encoding::Json => prepared.place(FIRST_OPAQUE.to_string().as_bytes())?,
            Encoding::Binary => prepared.place(&FIRST_OPAQUE.to_be_bytes())?,
        };
        prepared.opaque_at = opaque.start;
        Ok(prepared)
    }

    /// The first place that holds this.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn place(&self, what: &[u8]) -> Result<Place, PerfError> {
        let at = self.frame.windows(what.len()).position(|window| window == what);
        let at = at.ok_or_else(|| PerfError::Broker("a request that cannot be patched".to_owned()))?;
        Ok(Place(at..at + what.len()))
    }

    /// Gives it its number.
    pub(crate) fn set_opaque(&mut self, opaque: i32) {
        let at = self.opaque_at;
        match self.encoding {
            Encoding::Json => put_decimal(&mut self.frame[at..at + 10], u64::from(opaque.unsigned_abs())),
            Encoding::Binary => self.frame[at..at + 4].copy_from_slice(&opaque.to_be_bytes()),
        }
    }

    /// Writes a number over a place.
    pub(crate) fn set_number(&mut self, Place(place): &Place, number: u64) {
        put_decimal(&mut self.frame[place.clone()], number);
    }

    /// Writes a message's own key over a place.
    pub(crate) fn set_key(&mut self, Place(place): &Place, head: &[u8; HEAD_BYTES]) {
        let key = &mut self.frame[place.clone()];
        // The message's own check, which differs for every message of every run, and its place: a key that nobody else uses.
        put_hex(&mut key[..16], &head[24..32]);
        put_hex(&mut key[16..24], &head[4..8]);
        put_hex(&mut key[24..32], &head[20..24]);
    }

    /// As it is now.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.frame
    }
}

/// How a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As it is, answered.
    Plain,
    /// As it is, without an answer.
    Oneway,
    /// As a half message.
    Half,
    /// To be delivered at a time.
    Timed,
}

/// The group that sends.
pub(crate) const PRODUCER_GROUP: &str = "anchorlog-perf";

/// A send that was encoded once: patched are its number, its key, its time and its body.
#[derive(Clone)]
pub(crate) struct SendTemplate {
    prepared: Prepared,
    key: Place,
    time: Option<Place>,
    body_at: usize,
}

impl SendTemplate {
    /// A send of so many bytes to a queue.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub(crate) fn new(
        encoding: Encoding,
        topic: &str,
        queue: u32,
        body_bytes: usize,
        manner: Manner,
    ) -> Result<SendTemplate, PerfError> {
        let mut properties = properties(KEY);
        match manner {
            Manner::Plain | Manner::Oneway => {}
            Manner::Half => properties.push_str(&format!("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}{PRODUCER_GROUP}\u{2}")),
            Manner::Timed => properties.push_str(&format!("TIMER_DELIVER_MS\u{1}{TIME}\u{2}")),
        }
        let (queue, born) = (queue.to_string(), clock::wall_ms().to_string());
        let sys_flag = if manner == Manner::Half { "4" } else { "0" };
        let send = Send { topic, queue: &queue, sys_flag, born: &born, properties: &properties };
        let head = Head::request(encoding, request::SEND_MESSAGE_V2, FIRST_OPAQUE);
        let head = if manner == Manner::Oneway { head.oneway() } else { head };
        let prepared = Prepared::new(head, &send.fields(), &vec![0; body_bytes])?;
        let key = prepared.place(KEY.as_bytes())?;
        let time = (manner == Manner::Timed).then(|| prepared.place(TIME.as_bytes())).transpose()?;
        let body_at = prepared.frame.len() - body_bytes;
        Ok(SendTemplate { prepared, key, time, body_at })
    }

    /// When the messages from now on are to be delivered, in milliseconds since 1970.
    pub(crate) fn set_time(&mut self, time_ms: u64) {
        if let Some(time) = &self.time {
            self.prepared.set_number(time, time_ms);
        }
    }

    /// Appends the send of one message to `out`.
    pub(crate) fn put(&mut self, out: &mut Vec<u8>, opaque: i32, payloads: &Payloads, stream: u32, sequence: u64) {
        self.prepared.set_opaque(opaque);
        let head = payloads.head(stream, sequence);
        self.prepared.set_key(&self.key, &head);
        out.extend_from_slice(&self.prepared.frame[..self.body_at]);
        out.extend_from_slice(&head);
        out.extend_from_slice(payloads.body(stream, sequence));
    }
}

/// A verdict on a half message that was encoded once.
pub(crate) struct CommitTemplate {
    prepared: Prepared,
    lsn: Place,
    queue_offset: Place,
    keys: [Place; 2],
}

impl CommitTemplate {
    /// The commit of a half message to this topic.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub(crate) fn new(encoding: Encoding, topic: &str) -> Result<CommitTemplate, PerfError> {
        const OTHER_KEY: &str = "LLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLL";
        const OTHER_NUMBER: &str = "87654321098765432109";
        const COMMIT: &str = "8";
        let fields = [
            ("topic", topic),
            ("producerGroup", PRODUCER_GROUP),
            ("tranStateTableOffset", NUMBER),
            ("commitLogOffset", OTHER_NUMBER),
            ("commitOrRollback", COMMIT),
            ("fromTransactionCheck", "false"),
            ("msgId", KEY),
            ("transactionId", OTHER_KEY),
        ];
        let prepared = Prepared::new(Head::request(encoding, request::END_TRANSACTION, FIRST_OPAQUE), &fields, b"")?;
        let place = |what: &str| prepared.place(what.as_bytes());
        let (queue_offset, lsn, keys) = (place(NUMBER)?, place(OTHER_NUMBER)?, [place(KEY)?, place(OTHER_KEY)?]);
        Ok(CommitTemplate { prepared, lsn, queue_offset, keys })
    }

    /// Appends the commit of the half message that stands at `lsn`.
    pub(crate) fn put(&mut self, out: &mut Vec<u8>, opaque: i32, half: (u64, u64), head: &[u8; HEAD_BYTES]) {
        let (lsn, queue_offset) = half;
        self.prepared.set_opaque(opaque);
        self.prepared.set_number(&self.lsn, lsn);
        self.prepared.set_number(&self.queue_offset, queue_offset);
        for key in &self.keys {
            self.prepared.set_key(key, head);
        }
        out.extend_from_slice(self.prepared.bytes());
    }
}

fn put_decimal(out: &mut [u8], number: u64) {
    let mut rest = number;
    for digit in out.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
    }
}

fn put_hex(out: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use anchorlog::wire::{FrameRef, Header, message};

    use super::*;

    const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::Binary];

    fn first(bytes: &[u8]) -> FrameRef<'_> {
        FrameRef::parse(bytes).expect("a frame").expect("a whole frame")
    }

    #[test]
    fn a_patched_request_is_the_request_that_was_meant() {
        let payloads = Payloads::new(128, 1);
        for encoding in ENCODINGS {
            let mut template = SendTemplate::new(encoding, "T", 3, 128, Manner::Plain).expect("it can be encoded");
            let mut out = Vec::new();
            template.put(&mut out, 1_234_567_890, &payloads, 7, 9);
            template.put(&mut out, 1_000_000_001, &payloads, 8, 10);
            let frame = first(&out);
            let header = Header::of(&frame).expect("a header");
            assert_eq!((header.code, header.opaque), (310, 1_234_567_890));
            assert_eq!((header.field("b"), header.field("e"), header.field("d")), (Some("T"), Some("3"), Some("8")));
            let key = message::property(header.field("i").expect("properties"), "UNIQ_KEY").expect("a key");
            assert_eq!((key.len(), &key[16..]), (KEY.len(), "0000000700000009"));
            assert_eq!(payloads.judge(frame.body), Ok((7, 9)));
            let second = first(&out[frame.total_bytes()..]);
            assert_eq!(Header::of(&second).expect("a header").opaque, 1_000_000_001);
            assert_eq!(payloads.judge(second.body), Ok((8, 10)));
        }
    }

    #[test]
    fn every_manner_says_what_it_is() {
        let payloads = Payloads::new(128, 1);
        for encoding in ENCODINGS {
            for manner in [Manner::Plain, Manner::Oneway, Manner::Half, Manner::Timed] {
                let mut template = SendTemplate::new(encoding, "T", 0, 128, manner).expect("it can be encoded");
                template.set_time(1_700_000_000_123);
                let mut out = Vec::new();
                template.put(&mut out, FIRST_OPAQUE, &payloads, 0, 0);
                let header = Header::of(&first(&out)).expect("a header").field("i").expect("properties").to_owned();
                let says = |name: &str| message::property(&header, name);
                assert_eq!(Header::of(&first(&out)).expect("a header").is_oneway(), manner == Manner::Oneway);
                assert_eq!(says("TRAN_MSG"), (manner == Manner::Half).then_some("true"));
                assert_eq!(says("PGROUP"), (manner == Manner::Half).then_some(PRODUCER_GROUP));
                assert_eq!(says("TIMER_DELIVER_MS"), (manner == Manner::Timed).then_some("1700000000123"));
            }
        }
    }

    #[test]
    fn a_commit_names_the_half_message_that_was_answered() {
        let payloads = Payloads::new(128, 1);
        for encoding in ENCODINGS {
            let mut template = CommitTemplate::new(encoding, "T").expect("it can be encoded");
            let mut out = Vec::new();
            template.put(&mut out, FIRST_OPAQUE + 5, (4096, 17), &payloads.head(7, 9));
            let frame = first(&out);
            let header = Header::of(&frame).expect("a header");
            assert_eq!((header.code, header.opaque), (37, FIRST_OPAQUE + 5));
            let number = |name: &str| header.field(name).expect("a field").parse::<u64>().expect("a number");
            assert_eq!((number("commitLogOffset"), number("tranStateTableOffset")), (4096, 17));
            assert_eq!(number("commitOrRollback"), 8);
            let (key, other) = (header.field("msgId").expect("a key"), header.field("transactionId"));
            assert_eq!((&key[16..], Some(key)), ("0000000700000009", other));
        }
    }
}
