//! The end of a connection by which a node gets bytes of its log that are damaged here, from a node where they are whole.
//!
//! Invariants:
//! 1. What is handed out is what was asked for, in that order, each range whole; ranges that the other side does not have are named.
//! 2. The bytes are checked as bytes here, not as log: whoever puts them in place judges their frames.
//! 3. One request is on its way at a time, for no more than one message holds.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use anchorlog_engine::Lsn;
use anchorlog_engine::units::to_u64;

use crate::link::{End, Link, LinkError, Piece};
use crate::member::ReplicaId;
use crate::message::{Decoder, Hello, Item, LogState, Message, Purpose, RangeAnswer, RangeRequest, TAIL_BYTES_MAX};

/// The longest that the other side may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The end of a connection that was opened to get ranges of the log. [`End::Done`]: all were asked for.
pub struct RangeLink {
    decoder: Decoder,
    hello: Option<Hello>,
    /// What is still to be had; the first one is asked for.
    wanted: VecDeque<Range<Lsn>>,
    asked: Option<RangeRequest>,
    got: Vec<(Lsn, Vec<u8>)>,
    missing: Vec<Range<Lsn>>,
    end: Option<End>,
    heard: Duration,
}

impl RangeLink {
    /// A connection that was just opened, for ranges of the log that `log` describes.
    #[must_use]
    pub fn new(id: ReplicaId, promised_term: u32, log: LogState, ranges: Vec<Range<Lsn>>, now: Duration) -> RangeLink {
        let (replica, purpose) = (id, Purpose::Repair);
        RangeLink {
            decoder: Decoder::default(),
            hello: Some(Hello { replica, purpose, promised_term, log: Some(log), free_bytes: 0 }),
            wanted: ranges.into_iter().filter(|range| range.start < range.end).collect(),
            asked: None,
            got: Vec::new(),
            missing: Vec::new(),
            end: None,
            heard: now,
        }
    }

    /// The bytes that have arrived since the last call, in pieces, with their places.
    pub fn take(&mut self) -> Vec<(Lsn, Vec<u8>)> {
        std::mem::take(&mut self.got)
    }

    /// What the other side does not have, or not whole.
    #[must_use]
    pub fn missing(&self) -> &[Range<Lsn>] {
        &self.missing
    }

    fn answered(&mut self, answer: RangeAnswer) -> Result<(), LinkError> {
        let expected = self.asked.take().filter(|asked| {
            let is_whole = answer.bytes.is_empty() || to_u64(answer.bytes.len()) == u64::from(asked.len);
            asked.at == answer.at && is_whole
        });
        let (Some(asked), Some(range)) = (expected, self.wanted.front_mut()) else {
            let why = "the range that was asked for".to_owned();
            return Err(LinkError::Unexpected { what: "range answer", why });
        };
        range.start = asked.at.plus(u64::from(asked.len));
        let is_over = range.start >= range.end;
        if answer.bytes.is_empty() {
            self.missing.push(asked.at..range.start);
        } else {
            self.got.push((answer.at, answer.bytes));
        }
        if is_over {
            self.wanted.pop_front();
        }
        Ok(())
    }
}

impl Link for RangeLink {
    fn receive(&mut self, bytes: &[u8], now: Duration) -> Result<(), LinkError> {
        let mut rest = bytes;
        while let Some(item) = self.decoder.next(&mut rest)? {
            self.heard = now;
            match item {
                Item::Message(Message::RangeAnswer(answer)) => self.answered(answer)?,
                Item::Message(Message::Refusal(refusal)) => self.end = Some(End::Refused(refusal)),
                Item::Message(message) => {
                    let why = "ranges were asked for".to_owned();
                    return Err(LinkError::Unexpected { what: message.name(), why });
                }
                Item::Log(_) => {}
            }
        }
        Ok(())
    }

    fn send(&mut self, now: Duration, _bytes_max: usize) -> Result<Vec<Piece>, LinkError> {
        let silence = now.saturating_sub(self.heard);
        if self.end.is_some() || self.hello.is_none() && silence > SILENCE_MAX {
            return if self.end.is_some() { Ok(Vec::new()) } else { Err(LinkError::Silent(silence)) };
        }
        let mut out = Vec::new();
        if let Some(hello) = self.hello.take() {
            self.heard = now;
            out.push(Piece::from(Message::Hello(hello).encode()));
        }
        match self.wanted.front() {
            None => self.end = Some(End::Done),
            Some(range) if self.asked.is_none() => {
                let len = range.end.since(range.start).min(to_u64(TAIL_BYTES_MAX));
                let request = RangeRequest { at: range.start, len: u32::try_from(len).unwrap_or(u32::MAX) };
                self.asked = Some(request);
                out.push(Piece::from(Message::RangeRequest(request).encode()));
            }
            Some(_) => {}
        }
        Ok(out)
    }

    fn next_due(&self) -> Duration {
        if self.hello.is_some() { self.heard } else { self.heard + SILENCE_MAX }
    }

    fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }
}
