//! A message as operators see it.

use std::str::FromStr;

use anchorlog_engine::{Lsn, Message};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::features::send::stored::Attributes;
use crate::features::topics::topic_of;
use crate::shared::Settings;
use crate::wire::message::{MessageId, properties, property};
use crate::wire::operate::ShownMessage;

/// A message of a topic; `None` for what is none, or was stored by another version. `whole`: with properties and body.
#[must_use]
pub fn show(message: &Message, settings: &Settings, whole: bool) -> Option<ShownMessage> {
    let (topic, queue) = topic_of(&message.queue_name)?;
    show_as(message, topic, queue, settings, whole)
}

/// The same for a message that is shown as one of this topic and queue.
pub(super) fn show_as(
    message: &Message,
    topic: &str,
    queue: u32,
    settings: &Settings,
    whole: bool,
) -> Option<ShownMessage> {
    let attributes = Attributes::of(message)?;
    let stored = attributes.stored;
    let (body, own) = message.payload().split_at_checked(stored.body_bytes as usize)?;
    let all = attributes.properties(std::str::from_utf8(own).ok()?);
    let words = property(&all, "KEYS").unwrap_or_default().split(' ');
    Some(ShownMessage {
        id: MessageId { host: settings.advertise, offset: message.lsn.0.cast_signed() }.to_string(),
        unique_key: property(&all, "UNIQ_KEY").map(str::to_owned),
        topic: topic.to_owned(),
        queue,
        queue_offset: message.queue_offset.0,
        lsn: message.lsn.0,
        stored_ms: message.store_time_ms,
        born_ms: stored.born_timestamp,
        born_host: stored.born_host.to_string(),
        tag: property(&all, "TAGS").map(str::to_owned),
        keys: words.filter(|word| !word.is_empty()).map(str::to_owned).collect(),
        attempts: stored.reconsume_times,
        body_bytes: u64::from(stored.body_bytes),
        flag: stored.flag,
        sys_flag: stored.sys_flag,
        properties: whole.then(|| properties(&all).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()),
        body: whole.then(|| BASE64_STANDARD.encode(body)),
    })
}

/// The place in the log that an id of the broker's form names. Producers' own ids may look the same.
pub(super) fn place_in(id: &str) -> Option<Lsn> {
    let id = MessageId::from_str(id).ok()?;
    u64::try_from(id.offset).ok().map(Lsn)
}
