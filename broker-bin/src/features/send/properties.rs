//! The property string of a message: `key U+0001 value U+0002 key U+0001 value U+0002 …`.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::stored::PropertiesState;
use crate::features::delay::Wish;
use crate::wire::message::{VALUE_END, properties};

/// What the broker must know of a message's properties. When a name stands twice, the last one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known<'a> {
    /// The tag.
    pub(super) tags: Option<&'a str>,
    /// Keys, separated by blanks.
    pub(super) keys: Option<&'a str>,
    /// The producer's id of the message.
    pub(super) unique_key: Option<&'a str>,
    /// The topic that a message came from which is tried again.
    pub(super) retry_topic: Option<&'a str>,
    /// When it is to be delivered.
    pub(super) wish: Wish<'a>,
    /// True for half of a transaction.
    pub(super) half: bool,
    /// The producer group that decides it.
    pub(super) group: Option<&'a str>,
    /// The client that waits for a reply to it.
    pub(super) reply_to: Option<&'a str>,
    /// True for a reply.
    pub(super) is_reply: bool,
    /// Seconds until that group is asked first.
    pub(super) immunity: Option<&'a str>,
    /// What need not be added for readers.
    pub(super) state: PropertiesState,
}

impl<'a> Known<'a> {
    /// The client that sends it and waits for a reply. Copies that consumers send of such a message are theirs.
    pub(super) fn asks(&self, reconsume_times: i32) -> Option<&'a str> {
        self.reply_to.filter(|_| !self.is_reply && self.retry_topic.is_none() && reconsume_times == 0)
    }

    /// Adds what stands in `text`.
    pub(super) fn read(&mut self, text: &'a str) {
        for (name, value) in properties(text) {
            match name {
                "TAGS" => self.tags = Some(value),
                "KEYS" => self.keys = Some(value),
                "UNIQ_KEY" => self.unique_key = Some(value),
                "RETRY_TOPIC" => self.retry_topic = Some(value),
                "DELAY" => self.wish.level = Some(value),
                "TIMER_DELAY_SEC" => self.wish.delay_seconds = Some(value),
                "TIMER_DELAY_MS" => self.wish.delay_ms = Some(value),
                "TIMER_DELIVER_MS" => self.wish.deliver_ms = Some(value),
                "REPLY_TO_CLIENT" => self.reply_to = Some(value),
                "MSG_TYPE" => self.is_reply = value == "reply",
                "PGROUP" => self.group = Some(value),
                "CHECK_IMMUNITY_TIME_IN_SECONDS" => self.immunity = Some(value),
                "TRAN_MSG" => self.half = value.eq_ignore_ascii_case("true"),
                "CLUSTER" => self.state.has_cluster = true,
                "MSG_REGION" => self.state.has_region = true,
                "TRACE_ON" => self.state.has_trace = true,
                _ => {}
            }
        }
        if !text.is_empty() {
            self.state.lacks_separator = !text.ends_with(VALUE_END);
        }
    }
}

/// Unique ids for messages whose producer gave none, in the clients' own form.
#[derive(Debug)]
pub struct MadeKeys {
    prefix: String,
    next: AtomicU32,
}

impl MadeKeys {
    /// Ids of this process at this address.
    #[must_use]
    pub fn new(ip: IpAddr, process_id: u32, start_ms: u64) -> MadeKeys {
        let ip = match ip {
            IpAddr::V4(ip) => ip.octets(),
            // An id has room for four bytes; those of the interface part differ most.
            IpAddr::V6(ip) => ip.octets().last_chunk::<4>().copied().unwrap_or_default(),
        };
        let mut prefix = String::with_capacity(24);
        for byte in ip {
            write!(prefix, "{byte:02X}").expect("a string takes everything");
        }
        write!(prefix, "{:04X}{:012X}", process_id & 0xFFFF, start_ms & 0xFFFF_FFFF_FFFF)
            .expect("a string takes everything");
        MadeKeys { prefix, next: AtomicU32::new(0) }
    }

    /// One more.
    pub fn next(&self) -> String {
        format!("{}{:08X}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_name_counts_and_empty_values_vanish() {
        let mut known = Known::default();
        known.read("TAGS\u{1}A\u{2}KEYS\u{1}\u{2}odd\u{2}\u{1}x\u{2}TAGS\u{1}B\u{2}DELAY\u{1}4Pinpoint");
        assert_eq!((known.tags, known.keys, known.wish.level), (Some("B"), None, Some("4Pinpoint")));
        assert!(known.state.lacks_separator && !known.state.has_cluster);
        known.read("WAIT\u{1}true\u{2}CLUSTER\u{1}c\u{2}");
        assert!(!known.state.lacks_separator && known.state.has_cluster);
    }

    #[test]
    fn made_keys_are_32_hex_digits_and_differ() {
        let keys = MadeKeys::new("10.0.0.5".parse().expect("an address"), 70_000, 1_700_000_000_000);
        let (first, second) = (keys.next(), keys.next());
        assert_ne!(first, second);
        for key in [first, second] {
            assert_eq!(key.len(), 32);
            assert!(key.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()));
        }
    }
}
