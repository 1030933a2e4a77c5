//! The producing side: slots, each with one message on its way at a time, in the order of its stream.
//!
//! A slot is free again when its message was answered, a transaction's when both answers are there, or, in the rows of the whole chain,
//! when a consumer has processed it as well.

use std::collections::{BTreeMap, VecDeque};

use anchorlog::wire::codes::response;
use anchorlog::wire::{Encoding, FrameRef, Header};

use crate::clock;
use crate::error::PerfError;
use crate::meter::{Meter, Recorder};
use crate::open_loop::{Load, Schedule};
use crate::payload::Payloads;
use crate::prepared::{CommitTemplate, Manner, SendTemplate};
use crate::remoting::skim_answer;
use crate::sender::{Sent, opaque_of, slot_of};
use crate::topic::Topic;
use crate::verify::StreamLedger;
use crate::wires::{Outs, Wires};

/// The driver of a row's meter that producers count by.
pub(crate) const SENDS: usize = 0;

/// When messages are to be delivered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Times {
    /// So long after each was sent.
    Ahead {
        /// Milliseconds.
        ms: u64,
    },
    /// Evenly from a time on.
    From {
        /// Milliseconds since 1970.
        ms: u64,
        /// Messages a millisecond.
        per_ms: f64,
    },
}

impl Times {
    /// When the message that so many others went before is due.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times of a run are positive and fit")]
    fn of(self, before: u64) -> u64 {
        match self {
            Times::Ahead { ms } => clock::wall_ms() + ms,
            Times::From { ms, per_ms } => ms + (before as f64 / per_ms) as u64,
        }
    }
}

/// What is produced.
#[derive(Clone, Copy)]
pub(crate) struct Producing<'a> {
    /// Where to.
    pub(crate) topic: &'a Topic,
    /// Connections, and messages on their way on each.
    pub(crate) connections: (usize, usize),
    /// How.
    pub(crate) manner: Manner,
    /// When they are to be delivered, where that is not at once.
    pub(crate) times: Option<Times>,
    /// So many messages and no more.
    pub(crate) most: Option<u64>,
    /// Closed or open loop.
    pub(crate) load: Load,
    /// How headers are written.
    pub(crate) encoding: Encoding,
    /// The messages.
    pub(crate) payloads: &'a Payloads,
    /// What becomes of them.
    pub(crate) followed: Followed,
}

/// Whether a consumer tells of the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    /// Nobody does: an answered message is counted.
    No,
    /// A consumer does, and counts. A slot goes on when its message was answered.
    ByWhoCounts,
    /// The same, but a slot goes on when its message was processed.
    ByWhoCountsAndFrees,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is waited for.
    Done,
    /// The answer to the send.
    Asked,
    /// The answer to the verdict.
    Decided,
}

struct Slot {
    template: SendTemplate,
    queue: usize,
    ledger: StreamLedger,
    stage: Stage,
    opaque: i32,
    requests: u64,
    from_ns: u64,
    /// Sent and not processed: which, and since when.
    travelling: VecDeque<(u64, u64)>,
}

/// All producers of a row.
pub(crate) struct Producer<'a> {
    payloads: &'a Payloads,
    slots: Vec<Slot>,
    each: usize,
    first_connection: usize,
    connections: usize,
    free: VecDeque<usize>,
    commit: CommitTemplate,
    manner: Manner,
    followed: Followed,
    times: Option<Times>,
    left: u64,
    sent: u64,
    schedule: Schedule,
    recorder: Recorder<'a>,
    refused: BTreeMap<i32, u64>,
    /// Sent without an answer since the last flush, and since when.
    unflushed: Vec<u64>,
}

impl<'a> Producer<'a> {
    /// Connects.
    ///
    /// # Errors
    /// When the broker is not there.
    pub(crate) fn connect(
        wires: &mut Wires,
        wish: &Producing<'a>,
        meter: &'a Meter,
    ) -> Result<Producer<'a>, PerfError> {
        let (connections, each) = wish.connections;
        let (mut slots, mut first_connection) = (Vec::new(), None);
        for at in 0..connections {
            let connection = wires.connect(&wish.topic.queues[0].broker)?;
            first_connection.get_or_insert(connection);
            for slot in 0..each {
                let queue = (at * each + slot) % wish.topic.queues.len();
                let (topic, number) = (&wish.topic.name, wish.topic.queues[queue].id);
                slots.push(Slot {
                    template: SendTemplate::new(wish.encoding, topic, number, wish.payloads.size(), wish.manner)?,
                    queue,
                    ledger: StreamLedger::default(),
                    stage: Stage::Done,
                    opaque: 0,
                    requests: 0,
                    from_ns: 0,
                    travelling: VecDeque::new(),
                });
            }
        }
        Ok(Producer {
            payloads: wish.payloads,
            free: (0..slots.len()).collect(),
            slots,
            each,
            first_connection: first_connection.unwrap_or(0),
            connections,
            commit: CommitTemplate::new(wish.encoding, &wish.topic.name)?,
            manner: wish.manner,
            followed: wish.followed,
            times: wish.times,
            left: wish.most.unwrap_or(u64::MAX),
            sent: 0,
            schedule: wish.load.schedule(0, 1, clock::now_ns()),
            recorder: meter.recorder(SENDS),
            refused: BTreeMap::new(),
            unflushed: Vec::new(),
        })
    }

    /// Whether a connection is one of its own.
    pub(crate) fn has(&self, connection: usize) -> bool {
        (self.first_connection..self.first_connection + self.connections).contains(&connection)
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Whether nothing is on its way, and nothing will be.
    pub(crate) fn is_done(&self) -> bool {
        self.left == 0 && self.is_idle()
    }

    /// Messages that were answered with success and that nobody has processed yet.
    pub(crate) fn unprocessed(&self) -> usize {
        self.slots.iter().map(|slot| slot.travelling.len()).sum()
    }

    /// An answer of the broker.
    ///
    /// # Errors
    /// When nobody waits for it.
    pub(crate) fn answer(
        &mut self,
        outs: &mut Outs,
        connection: usize,
        frame: &FrameRef<'_>,
        now: u64,
    ) -> Result<(), PerfError> {
        let Some((code, opaque)) = skim_answer(frame)? else { return Ok(()) };
        let number = slot_of(opaque);
        let index = (connection - self.first_connection) * self.each + number;
        let Some(slot) = self.slots.get_mut(index).filter(|slot| number < self.each && slot.opaque == opaque) else {
            return Err(PerfError::Broker(format!("an answer to request {opaque}, which nobody waits for")));
        };
        slot.opaque = 0;
        if code != response::SUCCESS {
            slot.ledger.unacked.insert(slot.ledger.sent - 1);
            slot.travelling.pop_back();
            *self.refused.entry(code).or_default() += 1;
            self.free(index);
            return Ok(());
        }
        if slot.stage == Stage::Asked && self.manner == Manner::Half {
            let half = half_of(frame)?;
            slot.requests += 1;
            slot.opaque = opaque_of(number, slot.requests);
            slot.stage = Stage::Decided;
            let stream = u32::try_from(index).expect("slots are few");
            let head = self.payloads.head(stream, slot.ledger.sent - 1);
            self.commit.put(outs.of(connection), slot.opaque, half, &head);
            return Ok(());
        }
        if self.followed == Followed::No {
            self.recorder.acked(1, slot.from_ns, now);
        } else {
            self.recorder.timed(slot.from_ns, now);
        }
        let waits = self.followed == Followed::ByWhoCountsAndFrees && !slot.travelling.is_empty();
        slot.stage = Stage::Done;
        if !waits {
            self.free(index);
        }
        Ok(())
    }

    fn free(&mut self, index: usize) {
        self.slots[index].stage = Stage::Done;
        self.free.push_back(index);
    }

    /// A consumer has processed a message; since when it was on its way, if it was.
    pub(crate) fn processed(&mut self, stream: u32, sequence: u64) -> Option<u64> {
        let index = usize::try_from(stream).ok()?;
        let slot = self.slots.get_mut(index)?;
        let at = slot.travelling.iter().position(|(sent, _)| *sent == sequence)?;
        let (_, from_ns) = slot.travelling.remove(at)?;
        if self.followed == Followed::ByWhoCountsAndFrees && slot.stage == Stage::Done {
            self.free(index);
        }
        Some(from_ns)
    }

    /// Puts the requests of all that may be sent now.
    pub(crate) fn dispatch(&mut self, outs: &mut Outs, now: u64) {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.free.len());
        for _ in 0..self.schedule.allowed(now, most) {
            let Some(index) = self.free.pop_front() else { return };
            let slot = &mut self.slots[index];
            let sequence = slot.ledger.sent;
            slot.requests += 1;
            slot.ledger.sent += 1;
            slot.from_ns = self.schedule.take(now);
            if let Some(times) = self.times {
                slot.template.set_time(times.of(self.sent));
            }
            self.left -= 1;
            self.sent += 1;
            if self.followed != Followed::No {
                slot.travelling.push_back((sequence, slot.from_ns));
            }
            let opaque = opaque_of(index % self.each, slot.requests);
            let stream = u32::try_from(index).expect("slots are few");
            let out = outs.of(self.first_connection + index / self.each);
            slot.template.put(out, opaque, self.payloads, stream, sequence);
            if self.manner == Manner::Oneway {
                // Nothing more is heard of it, but by a consumer.
                self.unflushed.push(slot.from_ns);
            } else {
                slot.opaque = opaque;
                slot.stage = Stage::Asked;
            }
        }
    }

    /// What was put is with the kernel now: all that a sender without answers ever knows.
    pub(crate) fn flushed(&mut self, now: u64) {
        for from_ns in self.unflushed.drain(..) {
            self.recorder.timed(from_ns, now);
        }
    }

    /// How long from now until the next message is due, where that is later.
    pub(crate) fn due_in(&self, now: u64) -> Option<u64> {
        let due = self.schedule.due_ns().filter(|due| *due > now)?;
        (!self.free.is_empty()).then(|| due - now)
    }

    /// What was sent. What was sent without an answer, and not processed, was never promised.
    pub(crate) fn into_sent(self) -> Sent {
        let oneway = self.manner == Manner::Oneway;
        let queues = self.slots.iter().map(|slot| slot.queue).collect();
        let ledgers = self.slots.into_iter().map(|mut slot| {
            if oneway {
                slot.ledger.unacked.extend(slot.travelling.iter().map(|(sequence, _)| *sequence));
            }
            slot.ledger
        });
        Sent { ledgers: ledgers.collect(), queues, latencies: self.recorder.into_latencies(), refused: self.refused }
    }
}

/// Where the half message of an answer stands, in the log and in its queue.
fn half_of(frame: &FrameRef<'_>) -> Result<(u64, u64), PerfError> {
    let unreadable = || PerfError::Broker("a half message was answered without its place".to_owned());
    let header = Header::of(frame).map_err(|error| PerfError::Broker(error.to_string()))?;
    let id = header.field("msgId").ok_or_else(unreadable)?;
    let lsn = id.len().checked_sub(16).and_then(|at| u64::from_str_radix(id.get(at..)?, 16).ok());
    let queue_offset = header.field("queueOffset").and_then(|text| text.parse().ok());
    lsn.zip(queue_offset).ok_or_else(unreadable)
}

#[cfg(test)]
mod tests {
    use anchorlog::wire::header::Head;
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn a_half_message_is_found_where_its_answer_says() {
        for encoding in [Encoding::Json, Encoding::Binary] {
            let mut bytes = BytesMut::new();
            let mut encoder = Head::response(encoding, 0, 7).encode(&mut bytes);
            encoder.field("msgId", "7F00000100002A9F0000000000001000").field("queueOffset", "77");
            encoder.finish(b"").expect("it can be encoded");
            let frame = FrameRef::parse(&bytes).expect("a frame").expect("a whole frame");
            assert_eq!(half_of(&frame).expect("it is there"), (4096, 77));
        }
        let mut bytes = BytesMut::new();
        Head::response(Encoding::Json, 0, 7).encode(&mut bytes).finish(b"").expect("it can be encoded");
        let frame = FrameRef::parse(&bytes).expect("a frame").expect("a whole frame");
        assert!(half_of(&frame).is_err());
    }

    #[test]
    fn times_are_spread_evenly_from_a_time_on() {
        let times = Times::From { ms: 5_000, per_ms: 2.0 };
        assert_eq!([0, 1, 2, 2_000].map(|before| times.of(before)), [5_000, 5_000, 5_001, 6_000]);
        assert!(Times::Ahead { ms: 1_000 }.of(9) >= clock::wall_ms() + 900);
    }
}
