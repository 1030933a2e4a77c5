//! Properties that the broker changed, in as few bytes as they need: those of a link, which stand in the log for every retry.
//!
//! ```text
//! name: low 5 bits, form: high 3 bits; behind it
//!   the name, where it is none of those below:  bytes n, text
//!   form 0: bytes n, text                       4: id of a stored message: IPv4 4, port 2, offset n
//!        1: n, as decimal text                  5: the same, with the LSN of the link's message as offset
//!        2: the topic, or the queue's number,   6: the topic of the queue that the link's message was appended to
//!           of the queue that the link is in
//!        3: bytes n, as hexadecimal text
//! ```
//! `n` is a number in as few bytes as it needs. A name's number is never used for another one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anchorlog_engine::Lsn;

use crate::state::entries::number;
use crate::wire::hex;
use crate::wire::message::{MessageId, append_property, properties};

/// Names by their numbers.
const NAMES: [&str; 10] = [
    "",
    REAL_TOPIC,
    REAL_QUEUE,
    "DELAY",
    "RETRY_TOPIC",
    "ORIGIN_MESSAGE_ID",
    "TIMER_OUT_MS",
    "TIMER_ENQUEUE_MS",
    "TIMER_DEQUEUE_MS",
    "__transactionId__",
];
const REAL_TOPIC: &str = "REAL_TOPIC";
const REAL_QUEUE: &str = "REAL_QID";

const NAME_BITS: u8 = 5;
const TEXT: u8 = 0;
const NUMBER: u8 = 1;
const OWN: u8 = 2;
const HEX: u8 = 3;
const ID: u8 = 4;
const ID_OF_ORIGIN: u8 = 5;
const TOPIC_OF_ORIGIN: u8 = 6;

/// What properties may be told by.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// Topic and number of the queue that the link is in.
    pub own: (&'a str, u32),
    /// The topic of the queue that its message was appended to, where that is a topic's.
    pub origin_topic: Option<&'a str>,
    /// Where its message stands.
    pub origin: Lsn,
}

/// Adds properties.
pub(super) fn pack(out: &mut Vec<u8>, changed: &str, around: &Around<'_>) {
    for (name, value) in properties(changed) {
        pack_one(out, name, value, around);
    }
}

fn begin(out: &mut Vec<u8>, name: &str, form: u8) {
    let known = NAMES.iter().skip(1).position(|known| *known == name).map_or(0, |at| at + 1);
    // There are few names.
    out.push(form << NAME_BITS | u8::try_from(known).unwrap_or(0));
    if known == 0 {
        number::put(out, name.len() as u64);
        out.extend_from_slice(name.as_bytes());
    }
}

fn pack_one(out: &mut Vec<u8>, name: &str, value: &str, around: &Around<'_>) {
    let decimal = value.parse::<u64>().ok().filter(|number| is_decimal(value, *number));
    let is_own = match name {
        REAL_TOPIC => value == around.own.0,
        REAL_QUEUE => decimal == Some(around.own.1.into()),
        _ => false,
    };
    if is_own {
        begin(out, name, OWN);
    } else if around.origin_topic == Some(value) {
        begin(out, name, TOPIC_OF_ORIGIN);
    } else if let Some(number) = decimal {
        begin(out, name, NUMBER);
        number::put(out, number);
    } else if let Some((ip, port, offset)) = id_of(value) {
        let is_origins = offset == around.origin.0;
        begin(out, name, if is_origins { ID_OF_ORIGIN } else { ID });
        out.extend_from_slice(&ip.octets());
        out.extend_from_slice(&port.to_be_bytes());
        if !is_origins {
            number::put(out, offset);
        }
    } else if hex::is_upper(value.as_bytes()) {
        begin(out, name, HEX);
        number::put(out, value.len() as u64 / 2);
        hex::push_bytes(out, value.as_bytes());
    } else {
        begin(out, name, TEXT);
        number::put(out, value.len() as u64);
        out.extend_from_slice(value.as_bytes());
    }
}

/// Adds a number as a property behind others.
pub(super) fn pack_number(out: &mut Vec<u8>, name: &str, number: u64) {
    begin(out, name, NUMBER);
    number::put(out, number);
}

/// Adds the text of packed properties; `None` when they are none.
pub(super) fn unpack(out: &mut String, mut bytes: &[u8], around: &Around<'_>) -> Option<()> {
    while let Some((first, rest)) = bytes.split_first() {
        bytes = rest;
        let name = match *NAMES.get(usize::from(first & ((1 << NAME_BITS) - 1)))? {
            "" => take_text(&mut bytes)?,
            name => name,
        };
        match first >> NAME_BITS {
            TEXT => append_property(out, name, take_text(&mut bytes)?),
            NUMBER => append_property(out, name, &number::take(&mut bytes)?.to_string()),
            OWN if name == REAL_TOPIC => append_property(out, name, around.own.0),
            OWN if name == REAL_QUEUE => append_property(out, name, &around.own.1.to_string()),
            HEX => append_property(out, name, &hex::upper(take_bytes(&mut bytes)?)),
            form @ (ID | ID_OF_ORIGIN) => {
                let ([a, b, c, d, high, low], rest) = bytes.split_first_chunk::<6>()?;
                bytes = rest;
                let host = SocketAddr::from((Ipv4Addr::new(*a, *b, *c, *d), u16::from_be_bytes([*high, *low])));
                let offset = if form == ID { number::take(&mut bytes)? } else { around.origin.0 };
                append_property(out, name, &MessageId { host, offset: offset.cast_signed() }.to_string());
            }
            TOPIC_OF_ORIGIN => append_property(out, name, around.origin_topic?),
            _ => return None,
        }
    }
    Some(())
}

fn is_decimal(text: &str, number: u64) -> bool {
    // No sign, and no zero in front.
    text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0')) && {
        number.checked_ilog10().map_or(1, |digits| digits + 1) as usize == text.len()
    }
}

/// The parts of a stored message's id, if `text` is what they are written as.
fn id_of(text: &str) -> Option<(Ipv4Addr, u16, u64)> {
    let id: MessageId = if text.len() == 32 { text.parse().ok()? } else { return None };
    let IpAddr::V4(ip) = id.host.ip() else { return None };
    (id.to_string() == text).then_some((ip, id.host.port(), id.offset.cast_unsigned()))
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let count = usize::try_from(number::take(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_bytes(bytes)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AROUND: Around<'_> = Around { own: ("%RETRY%g", 3), origin_topic: Some("T1"), origin: Lsn(4096) };

    fn round(changed: &str) -> (usize, Option<String>) {
        let (mut bytes, mut text) = (Vec::new(), String::new());
        pack(&mut bytes, changed, &AROUND);
        let read = unpack(&mut text, &bytes, &AROUND);
        (bytes.len(), read.map(|()| text))
    }

    #[test]
    fn what_a_retry_changes_takes_a_dozen_bytes() {
        let changed = "REAL_TOPIC\u{1}%RETRY%g\u{2}REAL_QID\u{1}3\u{2}DELAY\u{1}3\u{2}RETRY_TOPIC\u{1}T1\u{2}\
                       ORIGIN_MESSAGE_ID\u{1}7F00000100002A9F0000000000001000\u{2}";
        assert_eq!(round(changed), (12, Some(changed.to_owned())));
    }

    #[test]
    fn values_that_only_look_like_something_shorter_stay_as_they_are() {
        for value in
            ["007", "+7", "7F", "7f", "T2", "18446744073709551616", "7F00000100012A9F0000000000001000", "0A", "0"]
        {
            for name in ["DELAY", "x", "REAL_QID", "REAL_TOPIC", "ORIGIN_MESSAGE_ID"] {
                let changed = format!("{name}\u{1}{value}\u{2}");
                assert_eq!(round(&changed).1, Some(changed));
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_packed_is_what_is_read(
            pairs in prop::collection::vec(("[A-Z_]{1,6}|REAL_QID|REAL_TOPIC|DELAY", "[0-9]{1,4}|[0-9A-F]{32}|[a-zé%]{1,9}|T1"), 0..6),
        ) {
            let mut changed = String::new();
            pairs.iter().for_each(|(name, value)| append_property(&mut changed, name, value));
            prop_assert_eq!(round(&changed).1, Some(changed));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _unless_refused = unpack(&mut String::new(), &bytes, &AROUND);
        }
    }
}
