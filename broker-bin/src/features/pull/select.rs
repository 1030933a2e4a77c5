//! Reads for a pull whose messages are chosen by their properties: each must be read before it can be asked.
//!
//! What one call reads is bounded; a pull that has found nothing by then goes on where it ended.

use anchorlog_engine::{Fetch, FetchOutcome, FetchStatus, Message, QueueOffset, QueueRange, ReadError};

use crate::features::send::stored::Attributes;
use crate::features::sql::{Expression, Incomparable, Properties};
use crate::limits;
use crate::shared::Shared;
use crate::wire::message::properties;

/// What was read.
pub(super) struct Read {
    pub(super) status: FetchStatus,
    pub(super) messages: Vec<Message>,
    /// Behind the last message that was looked at.
    pub(super) next: QueueOffset,
    pub(super) range: QueueRange,
    /// The bound was met before the end of the queue.
    pub(super) more: bool,
}

impl From<FetchOutcome> for Read {
    fn from(FetchOutcome { status, messages, next, range }: FetchOutcome) -> Read {
        Read { status, messages, next, range, more: false }
    }
}

/// Reads messages of which the expression is true.
pub(super) fn select(shared: &Shared, fetch: &Fetch<'_>, expression: &Expression) -> Result<Read, ReadError> {
    let (mut looked_at, mut bytes, mut taken_bytes) = (0, 0, 0);
    let mut taken: Vec<Message> = Vec::new();
    let mut from = fetch.from;
    loop {
        let read = shared.engine.fetch(&Fetch { from, messages_max: limits::PULL_MESSAGES, ..*fetch });
        let FetchOutcome { status, messages, next, range } = match read {
            Ok(outcome) => outcome,
            // What was found before it is given first; the next pull begins with it.
            Err(_) if from > fetch.from => return Ok(done(taken, from, shared.engine.range(fetch.queue), true)),
            Err(error) => return Err(error),
        };
        if status != FetchStatus::Found {
            if from == fetch.from {
                return Ok(Read { status, messages, next, range, more: false });
            }
            // Something was looked at already: that counts, and what keeps this from going on shows again.
            return Ok(done(taken, if status == FetchStatus::NoMatch { next } else { from }, range, false));
        }
        for message in messages {
            let (offset, size) = (message.queue_offset, message.payload().len());
            looked_at += 1;
            bytes += size;
            if is_wanted(shared, &message, expression) {
                if !taken.is_empty() && taken_bytes + size > fetch.bytes_max {
                    return Ok(done(taken, offset, range, true));
                }
                taken_bytes += size;
                taken.push(message);
                if taken.len() >= fetch.messages_max {
                    return Ok(done(taken, QueueOffset(offset.0 + 1), range, true));
                }
            }
        }
        from = next;
        let enough = looked_at >= limits::SQL_MESSAGES_MAX || bytes >= limits::SQL_MESSAGE_BYTES_MAX;
        if enough || from >= range.max {
            return Ok(done(taken, from, range, from < range.max));
        }
    }
}

fn done(messages: Vec<Message>, next: QueueOffset, range: QueueRange, more: bool) -> Read {
    let status = if messages.is_empty() { FetchStatus::NoMatch } else { FetchStatus::Found };
    Read { status, messages, next, range, more }
}

/// A message that the expression cannot be applied to is passed over, as with the original; here that is counted and said.
fn is_wanted(shared: &Shared, message: &Message, expression: &Expression) -> bool {
    let text = |message: &Message| {
        let attributes = Attributes::of(message)?;
        let mut all = attributes.properties_of(message)?.into_owned();
        attributes.state().added(&shared.settings.cluster).into_iter().for_each(|piece| all.push_str(piece));
        Some(all)
    };
    let truth = match text(message) {
        Some(text) => expression.evaluate(&Held(properties(&text).collect())),
        None => Err(Incomparable("it was stored by another version".to_owned())),
    };
    truth.unwrap_or_else(|error| {
        shared.counters.filters_failed.add(1);
        let expression = expression.text();
        tracing::warn!(lsn = %message.lsn, expression, %error, "a filter cannot be applied to a message; it is passed over");
        None
    }) == Some(true)
}

/// A message's properties; the last of one name counts.
struct Held<'a>(Vec<(&'a str, &'a str)>);

impl Properties for Held<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(held, _)| *held == name).map(|(_, value)| *value)
    }
}
