//! One more attempt, or none: the rule, and what the message says of it.

use std::net::SocketAddr;

use crate::features::groups::GroupConfig;
use crate::features::send::stored::{Attributes, Stored};
use crate::features::topics::{DEAD_LETTER_PREFIX, RETRY_PREFIX};
use crate::wire::message::{MessageId, append_property, properties, property};

/// The level of the delay before the first retry; each further one has the next level.
const FIRST_LEVEL: i64 = 3;

/// What a consumer asks for a message that it could not deal with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// Below 0: no more attempts. 0: as the broker thinks. Else a delay level.
    pub(super) level: i64,
    /// Most attempts after the first, if the consumer says so.
    pub(super) attempts_max: Option<i32>,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It comes again after the delay of this level.
    Again {
        /// The level.
        level: i64,
    },
    /// Nobody gets it by itself any more.
    Dead,
}

impl Asked {
    /// The verdict on a message that was tried `attempts` times after the first.
    pub(super) fn verdict(&self, attempts: i32, group: &GroupConfig) -> Verdict {
        if self.level < 0 || attempts >= attempts_max(self.attempts_max, group) {
            return Verdict::Dead;
        }
        Verdict::Again { level: if self.level > 0 { self.level } else { FIRST_LEVEL + i64::from(attempts) } }
    }
}

/// The request's word counts before the group's.
fn attempts_max(asked: Option<i32>, group: &GroupConfig) -> i32 {
    let own = i32::try_from(group.retry_max).unwrap_or(i32::MAX);
    asked.filter(|asked| *asked >= 0).unwrap_or(own)
}

/// The dead-letter topic for a message that is sent to a retry topic although it has no attempt left. Consumers do that themselves when
/// sending back fails, and for messages that must be dealt with in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The topic; it has one queue.
    pub topic: String,
    /// The group that gave it up.
    pub group: String,
}

/// Whether a send to this topic is a dead letter.
#[must_use]
pub fn dead_letter(topic: &str, attempts: i32, max: Option<i32>, group: Option<GroupConfig>) -> Option<DeadLetter> {
    let name = topic.strip_prefix(RETRY_PREFIX)?;
    (attempts >= attempts_max(max, &group?))
        .then(|| DeadLetter { topic: [DEAD_LETTER_PREFIX, name].concat(), group: name.to_owned() })
}

/// What the message says from now on: `changed` is what its properties say that its payload does not.
pub(super) struct Said<'a> {
    /// What its attributes say now.
    pub(super) now: &'a Attributes<'a>,
    /// Its properties as they count now.
    pub(super) properties: &'a str,
    /// The topic that it was found in.
    pub(super) topic: &'a str,
    /// The address in its id.
    pub(super) host: SocketAddr,
    /// Its place in the log.
    pub(super) physical_offset: i64,
}

impl Said<'_> {
    /// The fields of one more attempt, and the properties that count instead of the payload's; `moved` are those of the move itself.
    pub(super) fn next(&self, moved: &str) -> (Stored, String) {
        let mut changed = String::new();
        for (name, value) in properties(&self.now.changed) {
            if property(moved, name).is_none() {
                append_property(&mut changed, name, value);
            }
        }
        if property(self.properties, "RETRY_TOPIC").is_none() {
            append_property(&mut changed, "RETRY_TOPIC", self.topic);
        }
        if property(self.properties, "ORIGIN_MESSAGE_ID").is_none() {
            let mut id = String::new();
            MessageId { host: self.host, offset: self.physical_offset }.push_to(&mut id);
            append_property(&mut changed, "ORIGIN_MESSAGE_ID", &id);
        }
        changed.push_str(moved);
        let reconsume_times = self.now.stored.reconsume_times.saturating_add(1);
        (Stored { reconsume_times, prepared_offset: 0, ..self.now.stored }, changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::groups::GroupRules;

    const GROUP: GroupConfig =
        GroupConfig { retry_queues: 1, retry_max: 16, may_consume: true, rules: GroupRules::USUAL };

    #[test]
    fn each_attempt_waits_longer_until_there_is_none_left() {
        let asked = Asked { level: 0, attempts_max: None };
        assert_eq!(asked.verdict(0, &GROUP), Verdict::Again { level: 3 });
        assert_eq!(asked.verdict(15, &GROUP), Verdict::Again { level: 18 });
        assert_eq!(asked.verdict(16, &GROUP), Verdict::Dead);
    }

    #[test]
    fn a_consumer_may_name_the_delay_and_the_most_attempts_or_give_up() {
        assert_eq!(Asked { level: 1, attempts_max: Some(1) }.verdict(0, &GROUP), Verdict::Again { level: 1 });
        assert_eq!(Asked { level: 1, attempts_max: Some(1) }.verdict(1, &GROUP), Verdict::Dead);
        assert_eq!(Asked { level: 0, attempts_max: Some(-1) }.verdict(15, &GROUP), Verdict::Again { level: 18 });
        assert_eq!(Asked { level: 0, attempts_max: Some(99) }.verdict(50, &GROUP), Verdict::Again { level: 53 });
        assert_eq!(Asked { level: -1, attempts_max: None }.verdict(0, &GROUP), Verdict::Dead);
    }

    #[test]
    fn a_send_to_a_retry_topic_without_an_attempt_left_is_a_dead_letter() {
        let dead = DeadLetter { topic: "%DLQ%g".to_owned(), group: "g".to_owned() };
        assert_eq!(dead_letter("%RETRY%g", 16, None, Some(GROUP)), Some(dead.clone()));
        assert_eq!(dead_letter("%RETRY%g", 2, Some(2), Some(GROUP)), Some(dead));
        assert_eq!(dead_letter("%RETRY%g", 15, None, Some(GROUP)), None);
        assert_eq!(dead_letter("%RETRY%g", 99, None, None), None, "of a group that does not exist");
        assert_eq!(dead_letter("T", 99, None, Some(GROUP)), None);
    }
}
