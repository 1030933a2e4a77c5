//! Reads for a pull, and says what its answer is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anchorlog_engine::{Fetch, FetchOutcome, FetchStatus, Message, Queue, QueueOffset, QueueRange};
use bytes::BytesMut;

use super::encode::encode_message;
use super::select::{Read, select};
use crate::features::groups::{Filter, Subscription, TagFilter};
use crate::features::send::stored::Attributes;
use crate::features::sql::Expression;
use crate::features::topics::Topic;
use crate::features::{Reply, code};
use crate::limits;
use crate::shared::Shared;
use crate::wire::message::property;

/// Which messages a pull wants.
#[derive(Debug)]
pub enum Wanted {
    /// What the request says.
    Own(Filter),
    /// What the group's heartbeats say.
    Subscribed(Arc<Subscription>),
}

impl Wanted {
    fn filter(&self) -> &Filter {
        match self {
            Wanted::Own(filter) => filter,
            Wanted::Subscribed(subscription) => &subscription.filter,
        }
    }

    fn matches(&self, tag: u32) -> bool {
        match self.filter() {
            Filter::Tags(filter) => filter.matches(tag),
            Filter::Sql(_) | Filter::Unusable(_) => true,
        }
    }

    /// The tags that each message must have that was read; none where all are wanted.
    fn tags(&self) -> Option<&TagFilter> {
        match self.filter() {
            Filter::Tags(filter) if !filter.is_everything() => Some(filter),
            _ => None,
        }
    }

    /// What must be asked of each message that was read.
    pub(super) fn expression(&self) -> Option<&Expression> {
        match self.filter() {
            Filter::Sql(expression) => Some(expression),
            Filter::Tags(_) | Filter::Unusable(_) => None,
        }
    }
}

/// A pull that passed all checks.
#[derive(Debug)]
pub struct Pull {
    /// The topic.
    pub topic: Arc<Topic>,
    /// How far the group was led in the queue.
    pub led: Arc<AtomicU64>,
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
        let read = match pull.wanted.expression() {
            Some(expression) => select(shared, &fetch, expression),
            None => shared.engine.fetch(&fetch).map(|found| tagged(found, pull.wanted.tags())),
        };
        let Read { status, messages, next, range, more } = match read {
            Ok(read) => read,
            Err(error) => {
                let remark = format!("topic {} queue {} offset {from}: {error}", pull.topic.name, pull.number);
                return Evaluation::Answer(Reply::failure(code::SYSTEM_ERROR, remark), 0);
            }
        };
        match status {
            FetchStatus::Found => {
                pull.leads(next);
                return found(shared, &messages, next, range);
            }
            FetchStatus::NoMatch if waiting && more => return Evaluation::Nothing(next),
            FetchStatus::NoMatch if waiting && next < range.max => from = next,
            FetchStatus::NoMatch if waiting => return Evaluation::Nothing(next),
            FetchStatus::NoMatch => {
                pull.leads(next);
                return Evaluation::Answer(answer(code::PULL_RETRY_IMMEDIATELY, next, range), 0);
            }
            FetchStatus::AtEnd => return Evaluation::Nothing(from),
            FetchStatus::BelowMin => return Evaluation::Answer(pull.moved(range.min, range), 0),
            FetchStatus::BeyondMax => return Evaluation::Answer(pull.moved(range.max, range), 0),
            FetchStatus::NeedsDisk => return Evaluation::NeedsDisk,
        }
    }
}

/// What was read, without messages whose tag only has the hash of one that is wanted.
fn tagged(found: FetchOutcome, tags: Option<&TagFilter>) -> Read {
    let mut read = Read::from(found);
    let Some(tags) = tags.filter(|_| read.status == FetchStatus::Found) else { return read };
    // What cannot be read here is not judged here.
    read.messages.retain(|message| tag_of(message).is_none_or(|tag| tags.wants(&tag)));
    if read.messages.is_empty() {
        read.status = FetchStatus::NoMatch;
    }
    read
}

fn tag_of(message: &Message) -> Option<String> {
    let all = Attributes::of(message)?.properties_of(message)?;
    property(&all, "TAGS").map(str::to_owned)
}

fn found(shared: &Shared, messages: &[Message], next: QueueOffset, range: QueueRange) -> Evaluation {
    let mut body = BytesMut::new();
    for message in messages {
        if !encode_message(&mut body, message, &shared.settings) {
            let remark = format!("the message at LSN {} was stored by another version", message.lsn);
            return Evaluation::Answer(Reply::failure(code::SYSTEM_ERROR, remark), 0);
        }
    }
    let reply = answer(code::SUCCESS, next, range);
    Evaluation::Answer(Reply { body, ..reply }, messages.len())
}

impl Pull {
    /// Whoever gets the answer may go on here.
    fn leads(&self, next: QueueOffset) {
        self.led.fetch_max(next.0, Ordering::Relaxed);
    }

    fn moved(&self, next: QueueOffset, range: QueueRange) -> Reply {
        self.leads(next);
        moved(next, range)
    }

    /// The answer when its time is up: go on behind what was looked at.
    #[must_use]
    pub fn nothing(&self, shared: &Shared) -> Reply {
        let range = shared.engine.range(&self.queue);
        let passed = self.from > self.asked;
        self.leads(self.from);
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
