//! From a batch that was filled to its place in the log: which requests share a frame, and who is told when it has its place.
//!
//! 1. Requests share a frame that follow each other, and that move messages or put them where nobody reads them yet: beside what a table
//!    entry costs, a frame of its own would be much of it. They still happen one by one for whoever asked: when the log refuses a frame
//!    of several, each is tried by itself, and each gets its own answer.
//! 2. What keeps keys in memory is told of all that got its place at once: one lock for a turn, not one for each message.

use anchorlog_engine::{BatchMark, Lsn, RecordPosition, WriteBatch};

use super::{Ack, Answer, Parsed, Purpose, Worker};
use crate::features::delay::DueKey;
use crate::features::transactions::Begun;
use crate::features::{Outcome, Writing};
use crate::limits;
use crate::net::ReplyTo;
use crate::shared::Shared;

/// Where requests begin in a batch that are behind its first.
pub(super) type Joints = Vec<BatchMark>;

/// What got its place, and is still to be told to those who keep it in mind. Holds nothing between two turns.
#[derive(Debug, Default)]
pub(super) struct Placed {
    due: Vec<(DueKey, Lsn)>,
    asks: Vec<(DueKey, Lsn)>,
    begun: Vec<(Lsn, Box<Begun>)>,
    /// Transactions that nobody needs be asked about any more.
    ended: Vec<DueKey>,
}

impl Placed {
    fn tell(&mut self, shared: &Shared) {
        if !self.due.is_empty() {
            shared.due.assigned(self.due.drain(..));
        }
        if !(self.asks.is_empty() && self.ended.is_empty()) {
            shared.halves.asks.assigned(self.ended.drain(..), self.asks.drain(..));
        }
        if !self.begun.is_empty() {
            shared.halves.recent.begun(self.begun.drain(..));
        }
    }
}

impl Purpose {
    /// Whether it may share a frame with others: see the module's first promise.
    fn shares(&self) -> bool {
        match self {
            Purpose::Send(sending) => sending.due.is_some() || sending.begun.is_some(),
            Purpose::Write(_) => true,
        }
    }
}

impl Worker {
    /// Puts a batch that was filled in line; gives back an outcome that is something else.
    pub(super) fn take_batch(&mut self, to: ReplyTo, outcome: Outcome, batch: &mut WriteBatch) -> Option<Outcome> {
        let purpose = match outcome {
            Outcome::Append(sending) => Purpose::Send(sending),
            Outcome::Write(writing) => Purpose::Write(writing),
            other => return Some(other),
        };
        let bytes = usize::try_from(batch.frame_bytes()).unwrap_or(usize::MAX);
        let joins = purpose.shares() && self.parsed.back().is_some_and(|last| last.purpose.shares());
        self.parsed.push_back(Parsed { to, purpose, since: self.now, bytes });
        if joins && self.join(batch) {
            self.spare.push(std::mem::take(batch));
        } else {
            self.batches.push(std::mem::take(batch));
            self.joints.push_back(Joints::new());
        }
        None
    }

    /// Adds a batch to the last one, where they fit together.
    fn join(&mut self, batch: &mut WriteBatch) -> bool {
        let (Some(last), Some(joints)) = (self.batches.last_mut(), self.joints.back_mut()) else { return false };
        if last.frame_bytes() + batch.frame_bytes() > limits::MERGED_BATCH_BYTES {
            return false;
        }
        // The first one that joins moves both to where there is room for more.
        if joints.is_empty()
            && let Some(mut roomy) = self.roomy.pop()
        {
            if roomy.absorb(last) {
                std::mem::swap(&mut roomy, last);
                self.spare.push(roomy);
            } else {
                self.roomy.push(roomy);
            }
        }
        let mark = last.mark();
        let joined = last.absorb(batch);
        if joined {
            joints.push(mark);
        }
        joined
    }

    /// Gives each request of the first batch its own again; false when it has.
    pub(super) fn part_first(&mut self) -> bool {
        let Some(joints) = self.joints.front_mut().map(std::mem::take) else { return false };
        let Some(first) = self.batches.first_mut() else { return false };
        let is_joined = !joints.is_empty();
        // The last one first: each is put before those that were split off before it.
        let parts: Vec<WriteBatch> = joints.into_iter().rev().map(|mark| first.split_off(mark)).collect();
        for part in parts {
            self.batches.insert(1, part);
            self.joints.insert(1, Joints::new());
        }
        is_joined
    }

    /// Moves what was appended from the batches to the acks.
    pub(super) fn appended(&mut self) {
        let count = self.outcomes.len();
        for (mut batch, joints) in self.batches.drain(..count).zip(&self.joints) {
            let (kept, most) = if joints.is_empty() {
                (&mut self.spare, limits::SPARE_BATCHES_MAX)
            } else {
                (&mut self.roomy, limits::ROOMY_BATCHES_MAX)
            };
            // A buffer that grew for one large message is not kept.
            let is_large = joints.is_empty() && batch.frame_bytes() > limits::SPARE_BATCH_BYTES;
            if kept.len() < most && !is_large {
                batch.clear();
                kept.push(batch);
            }
        }
        let outcomes = std::mem::take(&mut self.outcomes);
        for outcome in &outcomes {
            let joints = self.joints.pop_front().unwrap_or_default();
            for at in std::iter::once(0).chain(joints.into_iter().map(BatchMark::operations)) {
                let Some(Parsed { to, purpose, since, bytes }) = self.parsed.pop_front() else { break };
                let place = |number: usize| -> Option<RecordPosition> {
                    (at + number).checked_sub(1).map_or(Some(outcome.first), |rest| outcome.rest.get(rest).copied())
                };
                let first = place(0).unwrap_or(outcome.first);
                let answer = match purpose {
                    Purpose::Send(mut sending) => {
                        (sending.counted)(&self.shared.counters);
                        self.shared.repeats.appended(&sending.claims, |number| Some(place(number)?.lsn));
                        sending.appended(first, &outcome.rest);
                        if let Some(letter) = &sending.letter {
                            letter.arrived(&self.shared, first.lsn);
                        }
                        if let Some(mut begun) = sending.begun.take() {
                            begun.placed(first.queue_offset);
                            self.placed.asks.push((begun.asks(), outcome.end_lsn));
                            self.placed.begun.push((first.lsn, begun));
                        }
                        self.placed.due.extend(sending.due.map(|due| (due, outcome.end_lsn)));
                        Answer::Sent(sending)
                    }
                    Purpose::Write(Writing { reply, due, ends, letter, counted, back, .. }) => {
                        counted(&self.shared.counters);
                        self.placed.ended.extend(ends);
                        if let Some(back) = back {
                            self.shared.repeats.backs().appended(&back, outcome.end_lsn);
                        }
                        if let Some(letter) = letter {
                            letter.arrived(&self.shared, first.lsn);
                        }
                        self.placed.due.extend(due.map(|due| (due, outcome.end_lsn)));
                        Answer::Recorded(reply)
                    }
                };
                let deadline = since + self.shared.live.ack_timeout();
                self.acks.push_back(Ack { end_lsn: outcome.end_lsn, since, deadline, to, answer, bytes });
            }
        }
        self.outcomes = outcomes;
        self.placed.tell(&self.shared);
    }
}
