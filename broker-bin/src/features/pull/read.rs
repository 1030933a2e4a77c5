//! Reads for a pull, and says what its answer is.

use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::{Fetch, FetchStatus, Queue, QueueOffset, QueueRange};
use bytes::BytesMut;

use super::encode::encode_message;
use crate::features::groups::{Subscription, TagFilter};
use crate::features::topics::Topic;
use crate::features::{Reply, code};
use crate::limits;
use crate::shared::Shared;

/// Which messages a pull wants.
#[derive(Debug)]
pub enum Wanted {
    /// What the request says.
    Own(TagFilter),
    /// What the group's heartbeats say.
    Subscribed(Arc<Subscription>),
}

impl Wanted {
    fn matches(&self, tag: u32) -> bool {
        match self {
            Wanted::Own(filter) => filter.matches(tag),
            Wanted::Subscribed(subscription) => subscription.filter.as_ref().is_none_or(|filter| filter.matches(tag)),
        }
    }
}

/// A pull that passed all checks.
#[derive(Debug)]
pub struct Pull {
    /// The topic.
    pub topic: Arc<Topic>,
    /// The queue's number in it.
    pub number: u32,
    /// The queue.
    pub queue: Queue,
    /// The offset asked for.
    pub asked: QueueOffset,
    /// Where to look next: behind what was looked at while it was held.
    pub from: QueueOffset,
    /// Most messages of the answer.
    pub messages_max: usize,
    /// Most bytes of the answer, but for its first message.
    pub bytes_max: usize,
    /// Which messages.
    pub wanted: Wanted,
    /// How long it may wait, when it may.
    pub hold: Option<Duration>,
}

/// What became of a read.
#[derive(Debug)]
pub enum Evaluation {
    /// This is the answer; so many messages are in it.
    Answer(Reply, usize),
    /// There is nothing for it from this offset on.
    Nothing(QueueOffset),
    /// The disk must be read.
    NeedsDisk,
}

/// Reads for a pull. `waiting`: entries that do not match are no reason to answer.
#[must_use]
pub fn evaluate(shared: &Shared, pull: &Pull, waiting: bool, from_disk: bool) -> Evaluation {
    let mut from = pull.from;
    loop {
        let fetch = Fetch {
            queue: &pull.queue,
            from,
            messages_max: pull.messages_max,
            bytes_max: pull.bytes_max,
            scan_max: limits::PULL_SCAN_MAX,
            from_disk,
            matches: &|tag| pull.wanted.matches(tag),
        };
        let outcome = match shared.engine.fetch(&fetch) {
            Ok(outcome) => outcome,
            Err(error) => {
                let remark = format!("topic {} queue {} offset {from}: {error}", pull.topic.name, pull.number);
                return Evaluation::Answer(Reply::failure(code::SYSTEM_ERROR, remark), 0);
            }
        };
        match outcome.status {
            FetchStatus::Found => {
                let mut body = BytesMut::new();
                for message in &outcome.messages {
                    if !encode_message(&mut body, message, &shared.settings) {
                        let remark = format!("the message at LSN {} was stored by another version", message.lsn);
                        return Evaluation::Answer(Reply::failure(code::SYSTEM_ERROR, remark), 0);
                    }
                }
                let reply = answer(code::SUCCESS, outcome.next, outcome.range);
                return Evaluation::Answer(Reply { body, ..reply }, outcome.messages.len());
            }
            FetchStatus::NoMatch if waiting && outcome.next < outcome.range.max => from = outcome.next,
            FetchStatus::NoMatch if waiting => return Evaluation::Nothing(outcome.next),
            FetchStatus::NoMatch => {
                return Evaluation::Answer(answer(code::PULL_RETRY_IMMEDIATELY, outcome.next, outcome.range), 0);
            }
            FetchStatus::AtEnd => return Evaluation::Nothing(from),
            FetchStatus::BelowMin => return Evaluation::Answer(moved(outcome.range.min, outcome.range), 0),
            FetchStatus::BeyondMax => return Evaluation::Answer(moved(outcome.range.max, outcome.range), 0),
            FetchStatus::NeedsDisk => return Evaluation::NeedsDisk,
        }
    }
}

impl Pull {
    /// The answer when its time is up: go on behind what was looked at.
    #[must_use]
    pub fn nothing(&self, shared: &Shared) -> Reply {
        let range = shared.engine.range(&self.queue);
        let passed = self.from > self.asked;
        answer(if passed { code::PULL_RETRY_IMMEDIATELY } else { code::PULL_NOT_FOUND }, self.from, range)
    }
}

/// The answer to an offset that does not exist.
pub(super) fn moved(next: QueueOffset, range: QueueRange) -> Reply {
    answer(code::PULL_OFFSET_MOVED, next, range)
}

fn answer(code: i32, next: QueueOffset, range: QueueRange) -> Reply {
    let reply = Reply { code, ..Reply::success() };
    reply
        .with("suggestWhichBrokerId", 0)
        .with("nextBeginOffset", next)
        .with("minOffset", range.min)
        .with("maxOffset", range.max)
}
