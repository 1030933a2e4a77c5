//! What a producer wishes, and the batch that it becomes.

use std::time::Duration;

use anchorlog_engine::{Append, BatchError, MessageRef, Put, Target, WriteBatch};

use super::due::{Due, DueKey, Place};
use super::levels::DelayLevels;
use crate::limits;
use crate::shared::Shared;
use crate::state::entries;
use crate::wire::message::{append_number, append_property};

/// The queue that holds messages until they are delivered. No topic's name begins with this byte.
pub const HIDDEN_QUEUE: &[u8] = b"\x01delayed";

/// What the properties of a message ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish<'a> {
    /// A level; counts before the others.
    pub level: Option<&'a str>,
    /// Seconds from now.
    pub delay_seconds: Option<&'a str>,
    /// Milliseconds from now.
    pub delay_ms: Option<&'a str>,
    /// A time, in milliseconds since 1970.
    pub deliver_ms: Option<&'a str>,
}

/// A delivery at another time than now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Later {
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// It has a time of its own, no level.
    pub timed: bool,
    /// Properties that its reader gets, and its producer did not write.
    pub changed: String,
}

impl Wish<'_> {
    /// True when nothing is wished.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Wish::default()
    }

    /// True for a time of its own, false for a level.
    #[must_use]
    pub fn is_timed(&self, levels: &DelayLevels) -> bool {
        let level = self.level.and_then(|level| level.trim().parse().ok());
        !self.is_none() && level.is_none_or(|level| levels.of(level).is_none())
    }

    /// When a message for this queue is to be delivered; `None` when at once.
    ///
    /// # Errors
    /// What cannot be understood.
    pub fn later(&self, levels: &DelayLevels, topic: &str, queue: u32, now_ms: u64) -> Result<Option<Later>, String> {
        let number = |name: &str, text: &str| {
            let wanted = || {
                format!("the property {name} is {:?}; a number is wanted", text.chars().take(40).collect::<String>())
            };
            text.trim().parse::<i64>().map_err(|_| wanted())
        };
        if let Some(level) = self.level {
            let asked = number("DELAY", level)?;
            if let Some((level, delay)) = levels.of(asked) {
                return Ok(Some(Later::at_level(level, asked, delay, topic, queue, now_ms)));
            }
        }
        // A time before 1970 is one that is over.
        let past_none = |time: i64| u64::try_from(time).unwrap_or(0);
        let time_ms = if let Some(text) = self.delay_seconds {
            now_ms.saturating_add(past_none(number("TIMER_DELAY_SEC", text)?).saturating_mul(1000))
        } else if let Some(text) = self.delay_ms {
            now_ms.saturating_add(past_none(number("TIMER_DELAY_MS", text)?))
        } else if let Some(text) = self.deliver_ms {
            past_none(number("TIMER_DELIVER_MS", text)?)
        } else {
            return Ok(None);
        };
        if time_ms <= now_ms {
            return Ok(None);
        }
        let mut changed = String::with_capacity(96 + topic.len());
        put_place(&mut changed, topic, queue);
        append_number(&mut changed, "TIMER_OUT_MS", time_ms);
        append_number(&mut changed, "TIMER_ENQUEUE_MS", now_ms);
        Ok(Some(Later { time_ms, timed: true, changed }))
    }
}

impl Later {
    /// A delivery after the delay of a level; `asked`: the level's number as the message has it.
    #[must_use]
    pub fn at_level(level: usize, asked: i64, delay: Duration, topic: &str, queue: u32, now_ms: u64) -> Later {
        let mut changed = String::with_capacity(48 + topic.len());
        put_place(&mut changed, topic, queue);
        if i64::try_from(level) != Ok(asked) {
            append_number(&mut changed, "DELAY", level as u64);
        }
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        Later { time_ms: now_ms.saturating_add(delay_ms), timed: false, changed }
    }
}

/// Readers are told where a message was meant to go, also when they found it there.
fn put_place(changed: &mut String, topic: &str, queue: u32) {
    append_property(changed, "REAL_TOPIC", topic);
    append_number(changed, "REAL_QID", queue.into());
}

/// Fills a batch with a message that is delivered later: `message` in the hidden queue, without the keys that readers know, and the entry
/// that says when and where. Tell [`super::DueIndex::assigned`] when it has its place.
///
/// # Errors
/// When the message is too large; the batch is then good for nothing.
pub fn store(
    shared: &Shared,
    out: &mut WriteBatch,
    message: &Append<'_>,
    later: &Later,
    mut place: entries::due::Delivery<'_>,
) -> Result<DueKey, BatchError> {
    let record = out.append(message)?;
    // It was just added.
    place.record_bytes = out.record_bytes(record).unwrap_or(0);
    place.timed = later.timed;
    put(shared, out, later.time_ms, &place.encode(), record.into())
}

/// Fills a batch with an entry for a message that is in the log already. Tell [`super::DueIndex::assigned`] when it has its place.
///
/// # Errors
/// When the entry is too large.
pub fn put_due(
    shared: &Shared,
    out: &mut WriteBatch,
    time_ms: u64,
    due: &Due,
    message: MessageRef,
) -> Result<DueKey, BatchError> {
    put(shared, out, time_ms, &entries::due::encode(due), message.into())
}

fn put(
    shared: &Shared,
    out: &mut WriteBatch,
    time_ms: u64,
    value: &[u8],
    target: Target,
) -> Result<DueKey, BatchError> {
    let key = shared.due.next_key(time_ms);
    out.put(&Put { key: &entries::due::encode_key(&key), value, target: Some(target) })?;
    Ok(key)
}

impl Place {
    /// Keys as many as an entry has room for. What is left out is not found by, and delivered all the same.
    #[must_use]
    pub fn bounded_keys<'k>(keys: impl IntoIterator<Item = &'k [u8]>) -> Vec<Box<[u8]>> {
        let mut bytes = 0;
        let fits = keys.into_iter().take_while(|key| {
            bytes += key.len() + 2;
            bytes <= limits::DUE_KEYS_BYTES_MAX
        });
        fits.map(Box::from).collect()
    }

    /// The first ones of these keys, as many as an entry has room for.
    #[must_use]
    pub fn bounded<'a, 'k>(keys: &'a [&'k [u8]]) -> &'a [&'k [u8]] {
        let mut bytes = 0;
        let fits = keys.iter().take_while(|key| {
            bytes += key.len() + 2;
            bytes <= limits::DUE_KEYS_BYTES_MAX
        });
        &keys[..fits.count()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(wish: Wish<'_>) -> Result<Option<(u64, String)>, String> {
        let later = wish.later(&DelayLevels::default(), "T", 3, 10_000)?;
        Ok(later.map(|later| (later.time_ms, later.changed.replace('\u{1}', "=").replace('\u{2}', ";"))))
    }

    #[test]
    fn a_level_counts_before_a_time() {
        let wish = Wish { level: Some("2"), deliver_ms: Some("99999"), ..Wish::default() };
        assert_eq!(later(wish), Ok(Some((15_000, "REAL_TOPIC=T;REAL_QID=3;".to_owned()))));
        assert!(
            later(Wish { level: Some("0"), ..wish }).is_ok_and(|found| found.is_some_and(|(time, _)| time == 99_999))
        );
        assert_eq!(
            later(Wish { level: Some("77"), ..Wish::default() }),
            Ok(Some((7_210_000, "REAL_TOPIC=T;REAL_QID=3;DELAY=18;".to_owned())))
        );
    }

    #[test]
    fn times_are_seconds_milliseconds_or_absolute_and_never_too_far() {
        let told = |time: u64| format!("REAL_TOPIC=T;REAL_QID=3;TIMER_OUT_MS={time};TIMER_ENQUEUE_MS=10000;");
        let seconds = Wish { delay_seconds: Some("2"), delay_ms: Some("1"), ..Wish::default() };
        assert_eq!(later(seconds), Ok(Some((12_000, told(12_000)))));
        assert_eq!(later(Wish { delay_ms: Some("7"), ..Wish::default() }), Ok(Some((10_007, told(10_007)))));
        let far = Wish { deliver_ms: Some("4102444800000"), ..Wish::default() };
        assert_eq!(later(far), Ok(Some((4_102_444_800_000, told(4_102_444_800_000)))));
    }

    #[test]
    fn a_time_that_is_over_is_now_and_what_is_no_number_is_refused() {
        for over in ["9999", "10000", "-5"] {
            assert_eq!(later(Wish { deliver_ms: Some(over), ..Wish::default() }), Ok(None), "{over}");
        }
        assert_eq!(later(Wish::default()), Ok(None));
        assert_eq!(later(Wish { level: Some("-1"), ..Wish::default() }), Ok(None));
        for bad in [Wish { level: Some("x"), ..Wish::default() }, Wish { delay_ms: Some("1.5"), ..Wish::default() }] {
            assert!(later(bad).is_err());
        }
    }

    #[test]
    fn keys_that_do_not_fit_are_left_out() {
        let long = vec![b'k'; limits::DUE_KEYS_BYTES_MAX];
        let keys = Place::bounded_keys([&b"a"[..], b"b", &long, b"c"]);
        assert_eq!(keys, [Box::from(*b"a"), Box::from(*b"b")]);
        assert_eq!(Place::bounded(&[&b"a"[..], b"b", &long, b"c"]), [b"a", b"b"]);
    }
}
