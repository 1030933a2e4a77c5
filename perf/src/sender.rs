//! Sending as cheaply as it can be: on a small machine the client takes its processor time from the broker that it measures.
//!
//! - Requests are encoded once (`prepared.rs`); a send patches its number, its key and its body. Answers are skimmed for two numbers.
//! - One thread drives all connections with epoll; what one wake-up made sendable goes out in one write per connection.
//! - Headers are JSON, as every client in the field sends them, unless asked otherwise; each message has a `UNIQ_KEY` of its own, as
//!   every client in the field gives it.
//!
//! A *slot* sends its next message once the last was answered: so each slot is a stream, and belongs to one queue.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anchorlog::wire::Encoding;
use anchorlog::wire::codes::response;
use hdrhistogram::Histogram;

use crate::clock;
use crate::error::PerfError;
use crate::meter::{Meter, Recorder};
use crate::open_loop::{Load, Schedule};
use crate::payload::Payloads;
use crate::prepared::{FIRST_OPAQUE, Manner, SendTemplate};
use crate::remoting::{ANSWER_TIMEOUT, skim};
use crate::topic::Topic;
use crate::verify::StreamLedger;
use crate::wires::Wires;

/// Most sends in flight on one connection: part of a request's number.
pub(crate) const SLOTS_MAX: usize = 1000;
/// Requests of a slot after which their numbers begin again.
const ROUNDS: u64 = 900_000;

/// The number of a slot's request: as long, in digits, as every other one.
pub(crate) fn opaque_of(slot: usize, round: u64) -> i32 {
    let round = i32::try_from(round % ROUNDS * SLOTS_MAX as u64).expect("rounds are bounded so that it fits");
    FIRST_OPAQUE + round + i32::try_from(slot).expect("slots are few")
}

/// The slot whose request had this number.
pub(crate) fn slot_of(opaque: i32) -> usize {
    usize::try_from(opaque - FIRST_OPAQUE).unwrap_or(usize::MAX) % SLOTS_MAX
}

struct Slot {
    template: SendTemplate,
    /// Index of its queue in the topic.
    queue: usize,
    ledger: StreamLedger,
    from_ns: u64,
    opaque: i32,
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
    wires: Wires,
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
        let mut wires = Wires::new()?;
        let mut brokers: Vec<&str> = topic.queues.iter().map(|queue| queue.broker.as_str()).collect();
        brokers.dedup();
        let mut slots = Vec::new();
        for at in 0..count {
            let peer = brokers[at % brokers.len()];
            wires.connect(peer)?;
            let of_peer = |index: &usize| topic.queues[*index].broker == peer;
            let queues: Vec<usize> = (0..topic.queues.len()).filter(of_peer).collect();
            for slot in 0..each {
                let queue = queues[(at / brokers.len() * each + slot) % queues.len()];
                let number = topic.queues[queue].id;
                let template = SendTemplate::new(encoding, &topic.name, number, payloads.size(), Manner::Plain)?;
                slots.push(Slot { template, queue, ledger: StreamLedger::default(), from_ns: 0, opaque: 0 });
            }
        }
        let free = (0..slots.len()).collect();
        Ok(Sender { payloads, meter, wires, slots, each, free, refused: BTreeMap::new() })
    }

    /// Sends until the meter says stop, then waits for what is in flight.
    ///
    /// # Errors
    /// When the broker goes away or falls silent.
    pub(crate) fn run(mut self, load: Load) -> Result<Sent, PerfError> {
        let mut recorder = self.meter.recorder(0);
        let mut schedule = load.schedule(0, 1, clock::now_ns());
        let mut ready = Vec::new();
        let mut heard_ns = clock::now_ns();
        self.dispatch(&mut schedule, heard_ns)?;
        while !(self.meter.stopped() && self.free.len() == self.slots.len()) {
            self.wires.wait(200, &mut ready)?;
            for connection in &ready {
                heard_ns = self.receive(*connection, &mut recorder)?;
                self.dispatch(&mut schedule, heard_ns)?;
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
        let (slots, free, refused) = (&mut self.slots, &mut self.free, &mut self.refused);
        let (first, each, mut heard_ns) = (at * self.each, self.each, clock::now_ns());
        self.wires.receive(at, |_, frame, now| {
            heard_ns = now;
            let (code, opaque) = skim(frame)?;
            let number = slot_of(opaque);
            let index = first + number;
            let Some(slot) = slots.get_mut(index).filter(|slot| number < each && slot.opaque == opaque) else {
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
        Ok(heard_ns)
    }

    /// Sends what may be sent now, and sets the timer for what may be sent later.
    fn dispatch(&mut self, schedule: &mut Schedule, now: u64) -> Result<(), PerfError> {
        if self.meter.stopped() {
            return Ok(());
        }
        let count = schedule.allowed(now, self.free.len());
        for index in self.free.drain(..count) {
            let at = index / self.each;
            let slot = &mut self.slots[index];
            let sequence = slot.ledger.sent;
            slot.opaque = opaque_of(index % self.each, sequence);
            slot.ledger.sent += 1;
            slot.from_ns = schedule.take(now);
            let stream = u32::try_from(index).expect("slots are few");
            slot.template.put(self.wires.outs().of(at), slot.opaque, self.payloads, stream, sequence);
        }
        self.wires.flush()?;
        if let Some(due) = schedule.due_ns().filter(|due| *due > now && !self.free.is_empty()) {
            self.wires.wake_in(due - now)?;
        }
        Ok(())
    }
}
