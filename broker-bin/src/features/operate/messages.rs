//! The messages of a topic by their times.

use anchorlog_engine::ReadError;

use super::asking::{answer, missing, told};
use super::browse::{Browse, Found};
use super::show::show;
use crate::features::{Outcome, Request};
use crate::shared::Shared;
use crate::wire::message::tag_hash;
use crate::wire::operate::{ListMessages, Messages, ShownMessage};

/// Tells messages of a topic, queue by queue.
pub fn list(shared: &Shared, request: &Request<'_>) -> Outcome {
    answer(shared, request, |shared, ask: &ListMessages, _| {
        let topic = shared.state.topics.get(&ask.topic);
        let topic = topic.ok_or_else(|| missing(format!("topic {} does not exist", ask.topic)))?;
        let browse = Browse {
            shared,
            topic: &topic,
            queue: ask.queue,
            from_ms: ask.from_ms,
            to_ms: ask.to_ms,
            after: ask.after.as_deref(),
            limit: ask.limit,
            whole: ask.whole,
        };
        let mut unreadable = 0;
        let (messages, next) = browse.in_order(&mut |found| {
            let message = match found {
                Found::Message(message) => message,
                Found::Unreadable { queue, offset, error } => {
                    unreadable += 1;
                    say_unreadable(&ask.topic, queue, offset.0, error);
                    return Ok(None);
                }
            };
            // The hash of another tag may be the same: the tag itself decides.
            let hash = ask.tag.as_deref().map(tag_hash);
            if hash.is_some_and(|hash| hash != message.tag) {
                return Ok(None);
            }
            let shown = show(message, &shared.settings, ask.whole);
            Ok(shown.filter(|shown: &ShownMessage| ask.tag.is_none() || shown.tag == ask.tag))
        })?;
        Ok(told(&Messages { messages, unreadable, next }).into())
    })
}

fn say_unreadable(topic: &str, queue: u32, offset: u64, error: &ReadError) {
    tracing::warn!(topic, queue, offset, %error, "a message that an operator looks for cannot be read");
}
