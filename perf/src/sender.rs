//! Sending as cheaply as it can be: on a small machine the client takes its processor time from the broker that it measures.
//!
//! - Requests are encoded once; a send patches its number, its key and its body. Answers are skimmed for two numbers.
//! - One thread drives all connections with epoll; what one wake-up made sendable goes out in one write per connection.
//! - Headers are JSON, as every client in the field sends them, unless asked otherwise; each message has a `UNIQ_KEY` of its own, as
//!   every client in the field gives it.
//!
//! A *slot* sends its next message once the last was answered: so each slot is a stream, and belongs to one queue.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::Duration;

use anchorlog::wire::Encoding;
use anchorlog::wire::codes::{request, response};
use anchorlog::wire::header::Head;
use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::clock;
use crate::error::PerfError;
use crate::meter::{Meter, Recorder};
use crate::open_loop::{Load, Schedule};
use crate::payload::Payloads;
use crate::remoting::{ANSWER_TIMEOUT, Inbox, connect, encode, failed, skim};
use crate::topic::{Topic, properties, send_fields};
use crate::verify::StreamLedger;

/// Most sends in flight on one connection: part of a request's number.
pub(crate) const SLOTS_MAX: usize = 1000;
/// The number of the first request: as long, in digits, as that of every later one.
const FIRST_OPAQUE: i32 = 1_000_000_000;
/// Requests of a slot after which their numbers begin again.
const ROUNDS: u64 = 900_000;
/// What epoll says when the timer is due.
const TIMER: u64 = u64::MAX;

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

#[cfg(test)]
mod tests {
    use anchorlog::wire::{FrameRef, Header, message};

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
}
