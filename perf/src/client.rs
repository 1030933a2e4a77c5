//! The remoting protocol from the client's side, as cheap as it can be: on a small machine the client takes its processor time from the
//! broker that it measures.
//!
//! - Requests are encoded once; a send patches its number, its key and its body. Answers are skimmed for two numbers.
//! - One thread drives all connections with epoll; what one wake-up made sendable goes out in one write per connection.
//! - Headers are JSON, as every client in the field sends them, unless asked otherwise; each message has a `UNIQ_KEY` of its own, as
//!   every client in the field gives it.
//!
//! A *slot* sends its next message once the last was answered: so each slot is a stream, and belongs to one queue.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anchorlog::wire::codes::{request, response};
use anchorlog::wire::header::Head;
use anchorlog::wire::{Encoding, FrameRef, Header, message};
use bytes::BytesMut;
use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::clock::{self, SECOND_NS};
use crate::error::PerfError;
use crate::meter::{Meter, Recorder};
use crate::open_loop::{Load, Schedule};
use crate::payload::Payloads;
use crate::verify::{StreamLedger, Verifier};

/// The group that sends and the group that reads back.
const GROUP: &str = "anchorlog-perf";
/// What a new topic is made after.
const TEMPLATE_TOPIC: &str = "TBW102";
/// Queues asked for when the topic is made.
const QUEUES_WANTED: &str = "8";
/// Most sends in flight on one connection: part of a request's number.
pub(crate) const SLOTS_MAX: usize = 1000;
const FIRST_OPAQUE: i32 = 1_000_000_000;
const ROUNDS: u64 = 900_000;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const PULL_MESSAGES: i64 = 256;
const TIMER: u64 = u64::MAX;

fn failed(peer: &str, what: &'static str) -> impl FnOnce(io::Error) -> PerfError {
    let peer = peer.to_owned();
    move |source| PerfError::Connection { peer, what, source }
}

fn connect(peer: &str) -> Result<TcpStream, PerfError> {
    let mut last = io::Error::new(ErrorKind::NotFound, "no address");
    for address in peer.to_socket_addrs().map_err(failed(peer, "looking up the address"))? {
        match TcpStream::connect_timeout(&address, ANSWER_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(failed(peer, "switching delays off"))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(failed(peer, "connecting")(last))
}

/// Bytes that have arrived and are not understood yet.
struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    fn new() -> Inbox {
        Inbox { bytes: vec![0; 128 << 10], start: 0, end: 0 }
    }

    /// Reads once. Fewer bytes than there was room for mean that no more are there.
    fn fill(&mut self, stream: &mut impl Read) -> io::Result<bool> {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.bytes.len() {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
        let room = self.bytes.len() - self.end;
        match stream.read(&mut self.bytes[self.end..]) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the broker closed the connection")),
            Ok(read) => {
                self.end += read;
                Ok(read == room)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Gives every whole frame to `take`.
    fn frames(&mut self, mut take: impl FnMut(&FrameRef<'_>) -> Result<(), PerfError>) -> Result<(), PerfError> {
        loop {
            let frame = FrameRef::parse(&self.bytes[self.start..self.end]);
            let Some(frame) = frame.map_err(|error| PerfError::Broker(error.to_string()))? else { return Ok(()) };
            take(&frame)?;
            self.start += frame.total_bytes();
        }
    }
}

/// Code and number of an answer. Success is skimmed; anything else is read with care.
fn skim(frame: &FrameRef<'_>) -> Result<(i32, i32), PerfError> {
    let quick = match frame.encoding {
        Encoding::Json => number_behind(frame.header, b"\"code\":").zip(number_behind(frame.header, b"\"opaque\":")),
        Encoding::Binary => None,
    };
    if let Some((0, opaque)) = quick {
        return Ok((0, opaque));
    }
    let header = Header::of(frame).map_err(|error| PerfError::Broker(error.to_string()))?;
    Ok((header.code, header.opaque))
}

fn number_behind(text: &[u8], key: &[u8]) -> Option<i32> {
    let first = *key.get(1)?;
    let mut from = 0;
    // The first letter of a key is rare in a header; comparing whole keys only there is most of what makes this quick.
    let behind = loop {
        let at = from + text[from..].iter().position(|byte| *byte == first)?;
        if at > 0 && text[at - 1..].starts_with(key) {
            break at - 1 + key.len();
        }
        from = at + 1;
    };
    let digits = text[behind..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |number: Option<i32>, digit| {
        number.unwrap_or(0).checked_mul(10)?.checked_add(i32::from(digit - b'0'))
    })
}

/// An answer that was waited for.
struct Answer {
    code: i32,
    remark: String,
    fields: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn number(&self, field: &str) -> Result<u64, PerfError> {
        self.fields.get(field).and_then(|text| text.parse().ok()).ok_or_else(|| {
            PerfError::Broker(format!("an answer without {field} (code {}, {})", self.code, self.remark))
        })
    }

    fn ok(self, what: &str) -> Result<Answer, PerfError> {
        if self.code == 0 {
            Ok(self)
        } else {
            Err(PerfError::Broker(format!("{what} was answered with code {}: {}", self.code, self.remark)))
        }
    }
}

/// A connection for requests that are not measured.
struct Caller {
    peer: String,
    stream: TcpStream,
    inbox: Inbox,
    opaque: i32,
}

impl Caller {
    fn connect(peer: &str) -> Result<Caller, PerfError> {
        let stream = connect(peer)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(failed(peer, "setting a time limit"))?;
        Ok(Caller { peer: peer.to_owned(), stream, inbox: Inbox::new(), opaque: 0 })
    }

    /// Sends; answers the request's number.
    fn ask(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) -> Result<i32, PerfError> {
        self.opaque += 1;
        let frame = encode(Head::request(Encoding::Json, code, self.opaque), fields, body)?;
        self.stream.write_all(&frame).map_err(failed(&self.peer, "sending"))?;
        Ok(self.opaque)
    }

    /// Waits for some answers.
    fn answers(&mut self) -> Result<Vec<(i32, Answer)>, PerfError> {
        let mut answers = Vec::new();
        while answers.is_empty() {
            self.inbox.fill(&mut self.stream).map_err(failed(&self.peer, "waiting for an answer"))?;
            self.inbox.frames(|frame| {
                let header = Header::of(frame).map_err(|error| PerfError::Broker(error.to_string()))?;
                if header.is_response() {
                    let fields = header.fields().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                    let remark = header.remark().unwrap_or_default().to_owned();
                    answers
                        .push((header.opaque, Answer { code: header.code, remark, fields, body: frame.body.to_vec() }));
                }
                Ok(())
            })?;
        }
        Ok(answers)
    }

    fn call(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) -> Result<Answer, PerfError> {
        let asked = self.ask(code, fields, body)?;
        loop {
            if let Some((_, answer)) = self.answers()?.into_iter().find(|(opaque, _)| *opaque == asked) {
                return Ok(answer);
            }
        }
    }
}

fn encode(head: Head<'_>, fields: &[(&str, &str)], body: &[u8]) -> Result<BytesMut, PerfError> {
    let mut frame = BytesMut::new();
    let mut encoder = head.encode(&mut frame);
    encoder.fields();
    for (name, value) in fields {
        encoder.field(name, value);
    }
    encoder.finish(body).map_err(|error| PerfError::Broker(error.to_string()))?;
    Ok(frame)
}

/// One queue of a topic, and where it begins for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicQueue {
    /// `host:port` of its broker.
    pub(crate) broker: String,
    /// Its number there.
    pub(crate) id: u32,
    /// Its end when it was looked at: what lies before is not ours.
    pub(crate) from: u64,
}

/// Where a topic's messages go.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    /// Its name.
    pub(crate) name: String,
    /// Its queues.
    pub(crate) queues: Vec<TopicQueue>,
}

impl Topic {
    /// Asks the name server; makes the topic by a first message where it does not exist.
    ///
    /// # Errors
    /// When nobody answers, or the topic cannot be made.
    pub(crate) fn find_or_make(namesrv: &str, name: &str) -> Result<Topic, PerfError> {
        let mut caller = Caller::connect(namesrv)?;
        let queues = match route(&mut caller, name)? {
            Some(queues) => queues,
            None => {
                let template = route(&mut caller, TEMPLATE_TOPIC)?.ok_or_else(|| {
                    PerfError::Broker(format!(
                        "topic {name} does not exist, and {TEMPLATE_TOPIC} to make it after neither"
                    ))
                })?;
                let mut brokers: Vec<String> = template.into_iter().map(|queue| queue.broker).collect();
                brokers.dedup();
                for broker in brokers {
                    make(&broker, name)?;
                }
                let deadline = clock::now_ns() + 10 * SECOND_NS;
                loop {
                    match route(&mut caller, name)? {
                        Some(queues) => break queues,
                        None if clock::now_ns() < deadline => clock::sleep(Duration::from_millis(50)),
                        None => return Err(PerfError::Broker(format!("topic {name} was made and cannot be found"))),
                    }
                }
            }
        };
        let mut topic = Topic { name: name.to_owned(), queues };
        topic.look_at_ends()?;
        Ok(topic)
    }

    /// Begins all queues at their ends.
    fn look_at_ends(&mut self) -> Result<(), PerfError> {
        let ends = bounds(self, request::GET_MAX_OFFSET)?;
        for (queue, end) in self.queues.iter_mut().zip(ends) {
            queue.from = end;
        }
        Ok(())
    }

    /// The same topic after its only broker moved to another address.
    pub(crate) fn moved_to(&self, broker: &str) -> Topic {
        let mut topic = self.clone();
        topic.queues.iter_mut().for_each(|queue| broker.clone_into(&mut queue.broker));
        topic
    }
}

/// The first or the next offset of every queue, as `code` asks.
fn bounds(topic: &Topic, code: i32) -> Result<Vec<u64>, PerfError> {
    let mut callers: BTreeMap<&str, Caller> = BTreeMap::new();
    let mut bounds = Vec::new();
    for queue in &topic.queues {
        if !callers.contains_key(queue.broker.as_str()) {
            callers.insert(&queue.broker, Caller::connect(&queue.broker)?);
        }
        let Some(caller) = callers.get_mut(queue.broker.as_str()) else { continue };
        let fields = [("topic", topic.name.as_str()), ("queueId", &queue.id.to_string())];
        bounds.push(caller.call(code, &fields, b"")?.ok("asking for a bound of a queue")?.number("offset")?);
    }
    Ok(bounds)
}

/// The queues of a topic; `None` when the name server does not know it.
fn route(caller: &mut Caller, topic: &str) -> Result<Option<Vec<TopicQueue>>, PerfError> {
    let fields = [("topic", topic), ("acceptStandardJsonOnly", "true")];
    let answer = caller.call(request::GET_ROUTEINFO_BY_TOPIC, &fields, b"")?;
    if answer.code == response::TOPIC_NOT_EXIST {
        return Ok(None);
    }
    let answer = answer.ok("asking for a route")?;
    parse_route(&answer.body).map(Some)
}

fn parse_route(body: &[u8]) -> Result<Vec<TopicQueue>, PerfError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Brokers {
        broker_name: String,
        broker_addrs: BTreeMap<String, String>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Queues {
        broker_name: String,
        write_queue_nums: u32,
        perm: u32,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Route {
        broker_datas: Vec<Brokers>,
        queue_datas: Vec<Queues>,
    }
    const WRITABLE: u32 = 2;
    let route: Route = serde_json::from_slice(body)
        .map_err(|error| PerfError::Broker(format!("a route that is not JSON: {error}")))?;
    let mut queues = Vec::new();
    for of_broker in route.queue_datas.iter().filter(|queues| queues.perm & WRITABLE != 0) {
        let broker = route.broker_datas.iter().find(|broker| broker.broker_name == of_broker.broker_name);
        let Some(master) = broker.and_then(|broker| broker.broker_addrs.get("0")) else { continue };
        queues.extend((0..of_broker.write_queue_nums).map(|id| TopicQueue { broker: master.clone(), id, from: 0 }));
    }
    if queues.is_empty() {
        return Err(PerfError::Broker("a route without a queue that can be written".to_owned()));
    }
    Ok(queues)
}

/// Makes a topic as clients do: by sending to it.
fn make(broker: &str, topic: &str) -> Result<(), PerfError> {
    let mut caller = Caller::connect(broker)?;
    let (now, properties) = (clock::wall_ms().to_string(), properties("0"));
    let fields = send_fields(topic, "0", &now, &properties);
    caller.call(request::SEND_MESSAGE_V2, &fields, b"made by anchorlog-perf")?.ok("the first message of a topic")?;
    Ok(())
}

fn properties(key: &str) -> String {
    format!("UNIQ_KEY\u{1}{key:0>32}\u{2}WAIT\u{1}true\u{2}")
}

fn send_fields<'a>(
    topic: &'a str,
    queue: &'a str,
    born: &'a str,
    properties: &'a str,
) -> [(&'static str, &'a str); 12] {
    [
        ("a", GROUP),
        ("b", topic),
        ("c", TEMPLATE_TOPIC),
        ("d", QUEUES_WANTED),
        ("e", queue),
        ("f", "0"),
        ("g", born),
        ("h", "0"),
        ("i", properties),
        ("j", "0"),
        ("k", "false"),
        ("m", "false"),
    ]
}

/// A send that was encoded once.
struct Template {
    frame: Vec<u8>,
    encoding: Encoding,
    opaque_at: usize,
    key_at: usize,
    body_at: usize,
}

impl Template {
    fn new(encoding: Encoding, topic: &str, queue: u32, body_bytes: usize) -> Result<Template, PerfError> {
        let key = "K".repeat(32);
        let (queue, born, properties) = (queue.to_string(), clock::wall_ms().to_string(), properties(&key));
        let fields = send_fields(topic, &queue, &born, &properties);
        let head = Head::request(encoding, request::SEND_MESSAGE_V2, FIRST_OPAQUE);
        let frame = encode(head, &fields, &vec![0; body_bytes])?.to_vec();
        let body_at = frame.len() - body_bytes;
        let place = |what: &[u8]| frame[..body_at].windows(what.len()).position(|window| window == what);
        let opaque = match encoding {
            Encoding::Json => place(FIRST_OPAQUE.to_string().as_bytes()),
            Encoding::Binary => place(&FIRST_OPAQUE.to_be_bytes()),
        };
        let (Some(opaque_at), Some(key_at)) = (opaque, place(key.as_bytes())) else {
            return Err(PerfError::Broker("a request that cannot be patched".to_owned()));
        };
        Ok(Template { frame, encoding, opaque_at, key_at, body_at })
    }

    /// Appends the send of one message to `out`.
    fn put(&mut self, out: &mut Vec<u8>, opaque: i32, payloads: &Payloads, stream: u32, sequence: u64) {
        match self.encoding {
            Encoding::Json => {
                let mut rest = opaque.unsigned_abs();
                for digit in self.frame[self.opaque_at..self.opaque_at + 10].iter_mut().rev() {
                    *digit = b'0' + low_digit(rest, 10);
                    rest /= 10;
                }
            }
            Encoding::Binary => {
                self.frame[self.opaque_at..self.opaque_at + 4].copy_from_slice(&opaque.to_be_bytes());
            }
        }
        let head = payloads.head(stream, sequence);
        // The message's own check, which differs for every message of every run, and its place: a key that nobody else uses.
        put_hex(&mut self.frame[self.key_at..self.key_at + 16], &head[24..32]);
        put_hex(&mut self.frame[self.key_at + 16..self.key_at + 24], &head[4..8]);
        put_hex(&mut self.frame[self.key_at + 24..self.key_at + 32], &head[20..24]);
        out.extend_from_slice(&self.frame[..self.body_at]);
        out.extend_from_slice(&head);
        out.extend_from_slice(payloads.body(stream, sequence));
    }
}

fn low_digit(number: u32, base: u32) -> u8 {
    u8::try_from(number % base).expect("a digit")
}

fn put_hex(out: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

struct Slot {
    template: Template,
    /// Index of its queue in the topic.
    queue: usize,
    ledger: StreamLedger,
    from_ns: u64,
    opaque: i32,
}

struct Connection {
    peer: String,
    stream: TcpStream,
    inbox: Inbox,
    out: Vec<u8>,
    out_at: usize,
    waits_to_write: bool,
}

/// What the load left behind.
pub(crate) struct Sent {
    /// One a slot.
    pub(crate) ledgers: Vec<StreamLedger>,
    /// The queue of each slot, by its place in the topic.
    pub(crate) queues: Vec<usize>,
    /// Inside the window.
    pub(crate) latencies: Histogram<u64>,
    /// Answers other than success, by code.
    pub(crate) refused: BTreeMap<i32, u64>,
}

/// All connections of one row, and the one thread that drives them.
pub(crate) struct Sender<'a> {
    payloads: &'a Payloads,
    meter: &'a Meter,
    epoll: Epoll,
    timer: TimerFd,
    connections: Vec<Connection>,
    slots: Vec<Slot>,
    each: usize,
    free: VecDeque<usize>,
    refused: BTreeMap<i32, u64>,
}

impl<'a> Sender<'a> {
    /// Connects `count` times, with `each` slots a connection.
    ///
    /// # Errors
    /// When the broker is not there.
    pub(crate) fn connect(
        topic: &Topic,
        (count, each): (usize, usize),
        encoding: Encoding,
        payloads: &'a Payloads,
        meter: &'a Meter,
    ) -> Result<Sender<'a>, PerfError> {
        let os = |error: nix::Error| PerfError::Broker(format!("setting up the client: {error}"));
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(os)?;
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC).map_err(os)?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER)).map_err(os)?;
        let mut brokers: Vec<&str> = topic.queues.iter().map(|queue| queue.broker.as_str()).collect();
        brokers.dedup();
        let (mut connections, mut slots) = (Vec::new(), Vec::new());
        for at in 0..count {
            let peer = brokers[at % brokers.len()];
            let stream = connect(peer)?;
            stream.set_nonblocking(true).map_err(failed(peer, "switching waiting off"))?;
            epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, at as u64)).map_err(os)?;
            let of_peer = |index: &usize| topic.queues[*index].broker == peer;
            let queues: Vec<usize> = (0..topic.queues.len()).filter(of_peer).collect();
            for slot in 0..each {
                let queue = queues[(at / brokers.len() * each + slot) % queues.len()];
                let template = Template::new(encoding, &topic.name, topic.queues[queue].id, payloads.size())?;
                slots.push(Slot { template, queue, ledger: StreamLedger::default(), from_ns: 0, opaque: 0 });
            }
            let (peer, out) = (peer.to_owned(), Vec::with_capacity(1 << 16));
            connections.push(Connection { peer, stream, inbox: Inbox::new(), out, out_at: 0, waits_to_write: false });
        }
        let free = (0..slots.len()).collect();
        Ok(Sender { payloads, meter, epoll, timer, connections, slots, each, free, refused: BTreeMap::new() })
    }

    /// Sends until the meter says stop, then waits for what is in flight.
    ///
    /// # Errors
    /// When the broker goes away or falls silent.
    pub(crate) fn run(mut self, load: Load) -> Result<Sent, PerfError> {
        let mut recorder = self.meter.recorder(0);
        let mut schedule = load.schedule(0, 1, clock::now_ns());
        let mut events = [EpollEvent::empty(); 128];
        let mut heard_ns = clock::now_ns();
        self.dispatch(&mut schedule, heard_ns)?;
        while !(self.meter.stopped() && self.free.len() == self.slots.len()) {
            let ready = match self.epoll.wait(&mut events, 200_u8) {
                Ok(ready) => ready,
                Err(nix::Error::EINTR) => 0,
                Err(error) => return Err(PerfError::Broker(format!("waiting for answers: {error}"))),
            };
            for event in &events[..ready] {
                if event.data() == TIMER {
                    // Reading it makes it unreadable; that it had already been read is no error.
                    self.timer
                        .wait()
                        .or_else(|error| if error == nix::Error::EAGAIN { Ok(()) } else { Err(error) })
                        .map_err(clock_failed)?;
                    continue;
                }
                let at = usize::try_from(event.data()).expect("it is the number of a connection");
                if event.events().contains(EpollFlags::EPOLLOUT) {
                    self.flush(at)?;
                }
                if event.events().intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                    heard_ns = self.receive(at, &mut recorder)?;
                    self.dispatch(&mut schedule, heard_ns)?;
                }
            }
            let now = clock::now_ns();
            self.dispatch(&mut schedule, now)?;
            let silent = Duration::from_nanos(now.saturating_sub(heard_ns));
            if silent > ANSWER_TIMEOUT && self.free.len() < self.slots.len() {
                return Err(PerfError::Broker(format!(
                    "no answer for {} s, {} sends in flight",
                    silent.as_secs(),
                    self.slots.len() - self.free.len()
                )));
            }
        }
        Ok(Sent {
            queues: self.slots.iter().map(|slot| slot.queue).collect(),
            ledgers: self.slots.into_iter().map(|slot| slot.ledger).collect(),
            latencies: recorder.into_latencies(),
            refused: self.refused,
        })
    }

    /// Takes the answers that have arrived; the time at which they were taken.
    fn receive(&mut self, at: usize, recorder: &mut Recorder<'_>) -> Result<u64, PerfError> {
        let connection = &mut self.connections[at];
        let (slots, free, refused) = (&mut self.slots, &mut self.free, &mut self.refused);
        let first = at * self.each;
        loop {
            let more = connection.inbox.fill(&mut connection.stream).map_err(failed(&connection.peer, "receiving"))?;
            let now = clock::now_ns();
            connection.inbox.frames(|frame| {
                let (code, opaque) = skim(frame)?;
                let number = usize::try_from(opaque - FIRST_OPAQUE).unwrap_or(usize::MAX) % SLOTS_MAX;
                let index = first + number;
                let Some(slot) = slots.get_mut(index).filter(|slot| number < self.each && slot.opaque == opaque) else {
                    return Err(PerfError::Broker(format!("an answer to request {opaque}, which nobody waits for")));
                };
                slot.opaque = 0;
                if code == response::SUCCESS {
                    recorder.acked(1, slot.from_ns, now);
                } else {
                    slot.ledger.unacked.insert(slot.ledger.sent - 1);
                    *refused.entry(code).or_default() += 1;
                }
                free.push_back(index);
                Ok(())
            })?;
            if !more {
                return Ok(now);
            }
        }
    }

    /// Sends what may be sent now, and sets the timer for what may be sent later.
    fn dispatch(&mut self, schedule: &mut Schedule, now: u64) -> Result<(), PerfError> {
        if self.meter.stopped() {
            return Ok(());
        }
        let count = schedule.allowed(now, self.free.len());
        let mut touched: Option<usize> = None;
        for index in self.free.drain(..count).collect::<Vec<_>>() {
            let at = index / self.each;
            let slot = &mut self.slots[index];
            let sequence = slot.ledger.sent;
            let round =
                i32::try_from(sequence % ROUNDS * SLOTS_MAX as u64).expect("rounds are bounded so that it fits");
            slot.opaque = FIRST_OPAQUE + round + i32::try_from(index % self.each).expect("slots are few");
            slot.ledger.sent += 1;
            slot.from_ns = schedule.take(now);
            let stream = u32::try_from(index).expect("slots are few");
            slot.template.put(&mut self.connections[at].out, slot.opaque, self.payloads, stream, sequence);
            if let Some(before) = touched.replace(at).filter(|before| *before != at) {
                self.flush(before)?;
            }
        }
        if let Some(last) = touched {
            self.flush(last)?;
        }
        if let Some(due) = schedule.due_ns().filter(|due| *due > now && !self.free.is_empty()) {
            let wait = i64::try_from(due - now).unwrap_or(i64::MAX);
            let expiration = Expiration::OneShot(TimeSpec::nanoseconds(wait.max(1)));
            self.timer.set(expiration, TimerSetTimeFlags::empty()).map_err(clock_failed)?;
        }
        Ok(())
    }

    /// Writes what it can; the rest when the connection takes it.
    fn flush(&mut self, at: usize) -> Result<(), PerfError> {
        let connection = &mut self.connections[at];
        while connection.out_at < connection.out.len() {
            match connection.stream.write(&connection.out[connection.out_at..]) {
                Ok(written) => connection.out_at += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(&connection.peer, "sending")(error)),
            }
        }
        let waits = connection.out_at < connection.out.len();
        if !waits {
            connection.out.clear();
            connection.out_at = 0;
        }
        if waits != connection.waits_to_write {
            connection.waits_to_write = waits;
            let flags = if waits { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
            self.epoll
                .modify(&connection.stream, &mut EpollEvent::new(flags, at as u64))
                .map_err(|error| PerfError::Broker(format!("watching a connection: {error}")))?;
        }
        Ok(())
    }
}

fn clock_failed(error: nix::Error) -> PerfError {
    PerfError::Broker(format!("the client's timer: {error}"))
}

/// Pulls everything that was sent, one request in flight for each queue; says of which queues retention took the beginning.
///
/// # Errors
/// When a broker does not answer or refuses.
pub(crate) fn read_back(
    topic: &Topic,
    payloads: &Payloads,
    acked: u64,
    verifier: &mut Verifier,
) -> Result<Vec<bool>, PerfError> {
    let from: u64 = topic.queues.iter().map(|queue| queue.from).sum();
    let deadline = clock::now_ns() + 3 * SECOND_NS;
    let ends = loop {
        // A broker may index what it acknowledged a moment later.
        let ends = bounds(topic, request::GET_MAX_OFFSET)?;
        if ends.iter().sum::<u64>().saturating_sub(from) >= acked || clock::now_ns() > deadline {
            break ends;
        }
        clock::sleep(Duration::from_millis(20));
    };
    let firsts = bounds(topic, request::GET_MIN_OFFSET)?;
    let recycled = topic.queues.iter().zip(&firsts).map(|(queue, first)| *first > queue.from).collect();
    let mut brokers: Vec<&str> = topic.queues.iter().map(|queue| queue.broker.as_str()).collect();
    brokers.dedup();
    for broker in brokers {
        let mut caller = Caller::connect(broker)?;
        let mut asked: BTreeMap<i32, (&TopicQueue, u64, u64)> = BTreeMap::new();
        let bounds = firsts.iter().zip(&ends);
        for (queue, (first, end)) in topic.queues.iter().zip(bounds).filter(|(queue, _)| queue.broker == broker) {
            let from = queue.from.max(*first);
            if from < *end {
                asked.insert(pull(&mut caller, topic, queue, from)?, (queue, from, *end));
            }
        }
        while !asked.is_empty() {
            for (opaque, answer) in caller.answers()? {
                let Some((queue, at, end)) = asked.remove(&opaque) else { continue };
                let next = match answer.code {
                    response::PULL_NOT_FOUND => end,
                    response::PULL_RETRY_IMMEDIATELY | response::PULL_OFFSET_MOVED => {
                        answer.number("nextBeginOffset")?
                    }
                    _ => {
                        let answer = answer.ok("a pull")?;
                        for record in message::records(&answer.body) {
                            let record = record.map_err(|error| PerfError::Broker(error.to_string()))?;
                            verifier.take(payloads, record.body);
                        }
                        answer.number("nextBeginOffset")?
                    }
                };
                if next > at && next < end {
                    asked.insert(pull(&mut caller, topic, queue, next)?, (queue, next, end));
                }
            }
        }
    }
    Ok(recycled)
}

fn pull(caller: &mut Caller, topic: &Topic, queue: &TopicQueue, offset: u64) -> Result<i32, PerfError> {
    const SUBSCRIPTION_IN_REQUEST: &str = "4";
    let fields = [
        ("consumerGroup", GROUP),
        ("topic", &topic.name),
        ("queueId", &queue.id.to_string()),
        ("queueOffset", &offset.to_string()),
        ("maxMsgNums", &PULL_MESSAGES.to_string()),
        ("sysFlag", SUBSCRIPTION_IN_REQUEST),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "0"),
        ("subscription", "*"),
        ("subVersion", "0"),
        ("expressionType", "TAG"),
    ];
    caller.ask(request::PULL_MESSAGE, &fields, b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patched_request_is_the_request_that_was_meant() {
        let payloads = Payloads::new(128, 1);
        for encoding in [Encoding::Json, Encoding::Binary] {
            let mut template = Template::new(encoding, "T", 3, 128).expect("it can be encoded");
            let mut out = Vec::new();
            template.put(&mut out, 1_234_567_890, &payloads, 7, 9);
            template.put(&mut out, 1_000_000_001, &payloads, 8, 10);
            let first = FrameRef::parse(&out).expect("a frame").expect("a whole frame");
            let header = Header::of(&first).expect("a header");
            assert_eq!((header.code, header.opaque), (310, 1_234_567_890));
            assert_eq!((header.field("b"), header.field("e"), header.field("d")), (Some("T"), Some("3"), Some("8")));
            let key = message::property(header.field("i").expect("properties"), "UNIQ_KEY").expect("a key");
            assert_eq!((key.len(), &key[16..]), (32, "0000000700000009"));
            assert_eq!(payloads.judge(first.body), Ok((7, 9)));
            let second = FrameRef::parse(&out[first.total_bytes()..]).expect("a frame").expect("a whole frame");
            assert_eq!(Header::of(&second).expect("a header").opaque, 1_000_000_001);
            assert_eq!(payloads.judge(second.body), Ok((8, 10)));
        }
    }

    #[test]
    fn answers_are_skimmed_right() {
        for encoding in [Encoding::Json, Encoding::Binary] {
            for (code, remark) in [(0, None), (14, Some("\"code\":0 is what it is not, \"opaque\":1 neither"))] {
                let mut frame = BytesMut::new();
                let mut encoder = Head::response(encoding, code, 1_000_000_042).with_remark(remark).encode(&mut frame);
                encoder.field("msgId", "7F00000100002A9F0000000000001000").number("queueOffset", 77);
                encoder.finish(b"").expect("it can be encoded");
                let frame = FrameRef::parse(&frame).expect("a frame").expect("a whole frame");
                assert_eq!(skim(&frame).expect("an answer"), (code, 1_000_000_042));
            }
        }
    }

    #[test]
    fn a_route_says_which_queues_can_be_written() {
        let body = br#"{"brokerDatas":[{"brokerAddrs":{"0":"127.0.0.1:10911"},"brokerName":"b0","cluster":"c0"},
            {"brokerAddrs":{"1":"127.0.0.1:10921"},"brokerName":"b1","cluster":"c0"}],"filterServerTable":{},
            "queueDatas":[{"brokerName":"b0","perm":6,"readQueueNums":2,"topicSysFlag":0,"writeQueueNums":2},
            {"brokerName":"b1","perm":6,"readQueueNums":2,"topicSysFlag":0,"writeQueueNums":2}]}"#;
        let queues = parse_route(body).expect("a route");
        assert_eq!(queues.len(), 2, "a broker without a master cannot be written");
        assert_eq!(queues[1], TopicQueue { broker: "127.0.0.1:10911".to_owned(), id: 1, from: 0 });
        assert!(parse_route(b"{}").is_err());
    }

    #[test]
    fn frames_that_arrive_in_pieces_are_put_together() {
        let mut stream = BytesMut::new();
        for opaque in 0..3 {
            Head::response(Encoding::Json, 0, opaque).encode(&mut stream).finish(b"body").expect("it can be encoded");
        }
        let (mut inbox, mut seen) = (Inbox::new(), Vec::new());
        for piece in stream.chunks(7) {
            inbox.fill(&mut &*piece).expect("bytes");
            inbox
                .frames(|frame| {
                    seen.push(skim(frame)?.1);
                    Ok(())
                })
                .expect("frames");
        }
        assert_eq!(seen, [0, 1, 2]);
    }
}
