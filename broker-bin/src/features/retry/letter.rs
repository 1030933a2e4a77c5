//! A dead letter when it comes: loud.

use anchorlog_engine::Lsn;

use crate::alarm::Told;
use crate::limits;
use crate::shared::Shared;
use crate::wire::message::MessageId;

/// A message that a group has given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The group.
    pub group: Box<str>,
    /// The dead-letter topic.
    pub topic: Box<str>,
    /// The topic that it came from.
    pub origin_topic: Box<str>,
    /// Its producer's id.
    pub unique_key: Box<str>,
    /// Deliveries that failed.
    pub attempts: i32,
}

impl Letter {
    /// It has its place in the log: counts it, says it, and tells whoever the operator named.
    pub fn arrived(&self, shared: &Shared, lsn: Lsn) {
        shared.counters.dead_letters.add(1);
        let id = MessageId { host: shared.settings.advertise, offset: lsn.0.cast_signed() };
        tracing::warn!(
            group = &*self.group,
            topic = &*self.origin_topic,
            id = &*self.unique_key,
            place = %id,
            %lsn,
            attempts = self.attempts,
            "a dead letter: no consumer of the group could deal with this message; it lies in {}",
            self.topic
        );
        // Strangers' text: see what a call takes.
        let bounded = |text: &str| text.chars().take(limits::ALARM_TEXT_CHARS_MAX).collect();
        shared.alarm.ring(&shared.counters, || Told {
            group: self.group.to_string(),
            topic: self.topic.to_string(),
            origin_topic: bounded(&self.origin_topic),
            unique_key: bounded(&self.unique_key),
            id: id.to_string(),
            attempts: self.attempts,
            broker: shared.settings.broker.clone(),
            at_ms: shared.engine.clock().wall_ms(),
        });
    }
}
