//! A message as clients read it: the log's record, translated at read time.

use anchorlog_engine::Message;
use bytes::BytesMut;

use crate::features::send::stored::Attributes;
use crate::features::topics::topic_of;
use crate::shared::Settings;
use crate::wire::message::{RecordHead, body_crc};

/// Appends the record of a message; false when its attributes or its queue are of another version.
#[must_use]
pub fn encode_message(out: &mut BytesMut, message: &Message, settings: &Settings) -> bool {
    let Some((topic, queue)) = topic_of(&message.queue_name) else { return false };
    encode_as(out, message, topic, queue, settings)
}

/// The same for a message that is shown as one of this topic and queue.
#[must_use]
pub fn encode_as(out: &mut BytesMut, message: &Message, topic: &str, queue: u32, settings: &Settings) -> bool {
    let Some(attributes) = Attributes::of(message) else { return false };
    let stored = attributes.stored;
    let Some((body, properties)) = message.payload().split_at_checked(stored.body_bytes as usize) else {
        return false;
    };
    let Ok(properties) = std::str::from_utf8(properties) else { return false };
    let properties = &*attributes.properties(properties);
    let head = RecordHead {
        body_crc: body_crc(body),
        queue_id: queue.cast_signed(),
        flag: stored.flag,
        queue_offset: message.queue_offset.0.cast_signed(),
        physical_offset: message.lsn.0.cast_signed(),
        sys_flag: stored.sys_flag,
        born_timestamp: stored.born_timestamp,
        born_host: stored.born_host,
        store_timestamp: message.store_time_ms.cast_signed(),
        store_host: settings.advertise,
        reconsume_times: stored.reconsume_times,
        prepared_transaction_offset: stored.prepared_offset,
    };
    let [a, b, c, d, e, f] = attributes.state().added(&settings.cluster);
    // Properties that do not fit were refused when the message was sent; the cluster's name may have grown since.
    head.encode(out, topic, body, &[properties, a, b, c, d, e, f]).is_ok()
        || head.encode(out, topic, body, &[properties]).is_ok()
}
