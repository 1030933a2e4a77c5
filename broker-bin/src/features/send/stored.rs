//! What is stored of a message beside its body and properties: the attributes of its log record.
//!
//! ```text
//! version 1 | bits 1 | sysFlag 4 | bornTimestamp 8 | born host 4 or 16 + port 2 | body bytes 4
//!           | flag 4, if bit 1 | reconsumeTimes 4, if bit 2 | preparedTransactionOffset 8, if bit 3        all big-endian
//!           | changed properties, with version 2 only
//!
//! version 3 | bits 1 | sysFlag 4, if bit 1 | reconsumeTimes 4, if bit 2 | preparedTransactionOffset n, if bit 3
//!           | changed properties, packed: behind those of the message with bit 0                            see `changes.rs`
//! ```
//! A link restates all of them, or with version 3 what differs from those of the message that it leads to. The payload is the body, then
//! the properties exactly as the client sent them. What the broker adds for readers (`MSG_REGION`, `TRACE_ON`, `CLUSTER`, a separator) is
//! added when the message is read; the bits remember what is there already.
//! A message that the broker moved has properties that its producer never wrote (where it came from, how often it was tried): they stand
//! here and count instead of those of the same name in the payload, which is the origin's and cannot change.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anchorlog_engine::{Lsn, Message};

use super::changes::{self, Around};
use crate::features::topics::topic_of;
use crate::state::entries::number;
use crate::wire::message::{append_property, properties, sys_flag};

const VERSION: u8 = 1;
const VERSION_CHANGED: u8 = 2;
const VERSION_BESIDE: u8 = 3;

const KEEPS_CHANGED: u8 = 1;
const OTHER_FLAGS: u8 = 1 << 1;
const OTHER_ATTEMPTS: u8 = 1 << 2;
const OTHER_PREPARED: u8 = 1 << 3;
const BORN_HOST_V6: u8 = 1;
const HAS_FLAG: u8 = 1 << 1;
const HAS_RECONSUME: u8 = 1 << 2;
const HAS_PREPARED: u8 = 1 << 3;
const LACKS_SEPARATOR: u8 = 1 << 4;
const HAS_CLUSTER: u8 = 1 << 5;
const HAS_REGION: u8 = 1 << 6;
const HAS_TRACE: u8 = 1 << 7;

/// Most bytes that [`Stored::encode`] writes.
pub const STORED_BYTES_MAX: usize = 2 + 4 + 8 + 18 + 4 + 4 + 4 + 8;

/// The stored fields of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The producer's flags; the two host bits are set anew when it is read.
    pub sys_flag: i32,
    /// When the producer made it, in milliseconds since 1970.
    pub born_timestamp: i64,
    /// Where the producer is.
    pub born_host: SocketAddr,
    /// Length of the body within the payload.
    pub body_bytes: u32,
    /// The user's flag.
    pub flag: i32,
    /// Deliveries that failed.
    pub reconsume_times: i32,
    /// LSN of the half message that this one commits.
    pub prepared_offset: i64,
    /// What stands in the properties.
    pub properties: PropertiesState,
}

/// What stands in the properties, as far as it decides what readers get in addition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PropertiesState {
    /// They do not end in a separator.
    pub lacks_separator: bool,
    /// The cluster's name.
    pub has_cluster: bool,
    /// The region's name.
    pub has_region: bool,
    /// The trace switch.
    pub has_trace: bool,
}

/// The region that every message is said to come from.
const REGION: &str = "MSG_REGION\u{1}DefaultRegion\u{2}";
const TRACE: &str = "TRACE_ON\u{1}true\u{2}";

impl PropertiesState {
    /// What readers get behind the properties as stored, in pieces.
    #[must_use]
    pub fn added<'a>(&self, cluster: &'a str) -> [&'a str; 6] {
        let when = |wanted: bool, piece: &'a str| if wanted { piece } else { "" };
        [
            when(self.lacks_separator, "\u{2}"),
            when(!self.has_region, REGION),
            when(!self.has_trace, TRACE),
            when(!self.has_cluster, "CLUSTER\u{1}"),
            when(!self.has_cluster, cluster),
            when(!self.has_cluster, "\u{2}"),
        ]
    }

    /// How long that is.
    #[must_use]
    pub fn added_bytes(&self, cluster: &str) -> usize {
        self.added(cluster).into_iter().map(str::len).sum()
    }
}

/// [`Stored::encode`]'s result, on the stack.
#[derive(Clone, Copy, Debug)]
pub struct StoredBytes {
    bytes: [u8; STORED_BYTES_MAX],
    len: usize,
}

impl StoredBytes {
    fn push<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes[self.len..self.len + N].copy_from_slice(&bytes);
        self.len += N;
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Stored {
    /// The attributes of a log record.
    #[must_use]
    pub fn encode(&self) -> StoredBytes {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let bits = bit(self.born_host.is_ipv6(), BORN_HOST_V6)
            | bit(self.flag != 0, HAS_FLAG)
            | bit(self.reconsume_times != 0, HAS_RECONSUME)
            | bit(self.prepared_offset != 0, HAS_PREPARED)
            | bit(self.properties.lacks_separator, LACKS_SEPARATOR)
            | bit(self.properties.has_cluster, HAS_CLUSTER)
            | bit(self.properties.has_region, HAS_REGION)
            | bit(self.properties.has_trace, HAS_TRACE);
        let mut out = StoredBytes { bytes: [0; STORED_BYTES_MAX], len: 0 };
        out.push([VERSION, bits]);
        out.push(self.sys_flag.to_be_bytes());
        out.push(self.born_timestamp.to_be_bytes());
        match self.born_host.ip() {
            IpAddr::V4(ip) => out.push(ip.octets()),
            IpAddr::V6(ip) => out.push(ip.octets()),
        }
        out.push(self.born_host.port().to_be_bytes());
        out.push(self.body_bytes.to_be_bytes());
        if self.flag != 0 {
            out.push(self.flag.to_be_bytes());
        }
        if self.reconsume_times != 0 {
            out.push(self.reconsume_times.to_be_bytes());
        }
        if self.prepared_offset != 0 {
            out.push(self.prepared_offset.to_be_bytes());
        }
        out
    }

    /// The fields behind the version.
    fn take(rest: &mut &[u8]) -> Option<Stored> {
        let [bits] = take(rest)?;
        let is = |bit: u8| bits & bit != 0;
        let sys_flag = i32::from_be_bytes(take(rest)?);
        let born_timestamp = i64::from_be_bytes(take(rest)?);
        let ip = if is(BORN_HOST_V6) {
            IpAddr::V6(Ipv6Addr::from(take::<16>(rest)?))
        } else {
            IpAddr::V4(Ipv4Addr::from(take::<4>(rest)?))
        };
        let born_host = SocketAddr::new(ip, u16::from_be_bytes(take(rest)?));
        let body_bytes = u32::from_be_bytes(take(rest)?);
        let flag = if is(HAS_FLAG) { i32::from_be_bytes(take(rest)?) } else { 0 };
        let reconsume_times = if is(HAS_RECONSUME) { i32::from_be_bytes(take(rest)?) } else { 0 };
        let prepared_offset = if is(HAS_PREPARED) { i64::from_be_bytes(take(rest)?) } else { 0 };
        let properties = PropertiesState {
            lacks_separator: is(LACKS_SEPARATOR),
            has_cluster: is(HAS_CLUSTER),
            has_region: is(HAS_REGION),
            has_trace: is(HAS_TRACE),
        };
        Some(Stored {
            sys_flag,
            born_timestamp,
            born_host,
            body_bytes,
            flag,
            reconsume_times,
            prepared_offset,
            properties,
        })
    }
}

/// All that the attributes of a log record say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// The fields.
    pub stored: Stored,
    /// Properties that count instead of those in the payload; each ends in its separator.
    pub changed: Cow<'a, str>,
}

/// The attributes of a link that says what its message says.
pub const AS_ITS_MESSAGE: [u8; 2] = [VERSION_BESIDE, KEEPS_CHANGED];

/// The attributes of the link that commits the half message at `half`, whose flags are these.
#[must_use]
pub fn as_committed(sys_flag: i32, half: Lsn) -> Vec<u8> {
    let flags = sys_flag & !sys_flag::TRANSACTION_MASK | sys_flag::TRANSACTION_COMMIT;
    let mut bytes = Vec::with_capacity(16);
    bytes.extend_from_slice(&[VERSION_BESIDE, KEEPS_CHANGED | OTHER_FLAGS | OTHER_PREPARED]);
    bytes.extend_from_slice(&flags.to_be_bytes());
    number::put(&mut bytes, half.0);
    bytes
}

/// The attributes of a link with one property more, which is a number; `None` when they are of another version.
#[must_use]
pub fn with_number(attributes: &[u8], name: &str, number: u64) -> Option<Vec<u8>> {
    if attributes.first() == Some(&VERSION_BESIDE) {
        let mut bytes = attributes.to_vec();
        changes::pack_number(&mut bytes, name, number);
        return Some(bytes);
    }
    let attributes = Attributes::decode(attributes)?;
    let mut changed = attributes.changed.into_owned();
    append_property(&mut changed, name, &number.to_string());
    Some(Attributes { changed: changed.into(), ..attributes }.encode())
}

/// The message that a link leads to, and the queue that the link is in: what need not be said again.
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a> {
    /// The attributes of the message's record.
    pub attributes: &'a [u8],
    /// What stands around them.
    pub around: Around<'a>,
}

impl<'a> Beside<'a> {
    /// Beside `message`, or beside what it leads to, for a link in this queue of this topic.
    #[must_use]
    pub fn origin_of(message: &'a Message, topic: &'a str, queue: u32) -> Beside<'a> {
        let name = message.origin_queue_name().unwrap_or(&message.queue_name);
        let origin_topic = topic_of(name).map(|(topic, _)| topic);
        let attributes = message.origin_attributes().unwrap_or(message.attributes());
        Beside { attributes, around: Around { own: (topic, queue), origin_topic, origin: message.origin_lsn() } }
    }
}

impl<'a> Attributes<'a> {
    /// What a message's attributes say; `None` when they are of another version.
    #[must_use]
    pub fn of(message: &'a Message) -> Option<Attributes<'a>> {
        let bytes = message.attributes();
        if bytes.first() != Some(&VERSION_BESIDE) {
            return Attributes::decode(bytes);
        }
        message.origin_attributes()?;
        let (topic, queue) = topic_of(&message.queue_name)?;
        Attributes::decode_beside(bytes, &Beside::origin_of(message, topic, queue))
    }

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(STORED_BYTES_MAX + self.changed.len());
        bytes.extend_from_slice(self.stored.encode().as_slice());
        if !self.changed.is_empty() {
            bytes[0] = VERSION_CHANGED;
            bytes.extend_from_slice(self.changed.as_bytes());
        }
        bytes
    }

    /// The bytes of a link's record: what differs from its message, where that can be said so.
    #[must_use]
    pub fn encode_beside(&self, beside: &Beside<'_>) -> Vec<u8> {
        let Some(Attributes { stored: origin, changed }) = Attributes::decode(beside.attributes) else {
            return self.encode();
        };
        let Stored { sys_flag, reconsume_times, prepared_offset, .. } = self.stored;
        if self.stored != (Stored { sys_flag, reconsume_times, prepared_offset, ..origin }) {
            return self.encode();
        }
        let own = self.changed.strip_prefix(&*changed);
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let bits = bit(own.is_some(), KEEPS_CHANGED)
            | bit(sys_flag != origin.sys_flag, OTHER_FLAGS)
            | bit(reconsume_times != origin.reconsume_times, OTHER_ATTEMPTS)
            | bit(prepared_offset != origin.prepared_offset, OTHER_PREPARED);
        let mut bytes = vec![VERSION_BESIDE, bits];
        if sys_flag != origin.sys_flag {
            bytes.extend_from_slice(&sys_flag.to_be_bytes());
        }
        if reconsume_times != origin.reconsume_times {
            bytes.extend_from_slice(&reconsume_times.to_be_bytes());
        }
        if prepared_offset != origin.prepared_offset {
            number::put(&mut bytes, prepared_offset.cast_unsigned());
        }
        changes::pack(&mut bytes, own.unwrap_or(&self.changed), &beside.around);
        bytes
    }

    fn decode_beside(bytes: &[u8], beside: &Beside<'_>) -> Option<Attributes<'static>> {
        let mut rest = bytes;
        let [VERSION_BESIDE, bits] = take(&mut rest)? else { return None };
        let Attributes { mut stored, changed } = Attributes::decode(beside.attributes)?;
        let is = |bit: u8| bits & bit != 0;
        if is(OTHER_FLAGS) {
            stored.sys_flag = i32::from_be_bytes(take(&mut rest)?);
        }
        if is(OTHER_ATTEMPTS) {
            stored.reconsume_times = i32::from_be_bytes(take(&mut rest)?);
        }
        if is(OTHER_PREPARED) {
            stored.prepared_offset = number::take(&mut rest)?.cast_signed();
        }
        let mut changed = if is(KEEPS_CHANGED) { changed.into_owned() } else { String::new() };
        changes::unpack(&mut changed, rest, &beside.around)?;
        Some(Attributes { stored, changed: Cow::Owned(changed) })
    }

    /// Reads [`Attributes::encode`]'s bytes, or [`Stored::encode`]'s; `None` when they are of another version.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Attributes<'a>> {
        let mut rest = bytes;
        let [version] = take(&mut rest)?;
        let stored = Stored::take(&mut rest)?;
        match version {
            VERSION if rest.is_empty() => Some(Attributes { stored, changed: Cow::Borrowed("") }),
            VERSION_CHANGED => Some(Attributes { stored, changed: Cow::Borrowed(std::str::from_utf8(rest).ok()?) }),
            _ => None,
        }
    }

    /// The properties of the message that these belong to, as they count now.
    #[must_use]
    pub fn properties_of<'m>(&self, message: &'m Message) -> Option<Cow<'m, str>> {
        let (_, own) = message.payload().split_at_checked(self.stored.body_bytes as usize)?;
        Some(self.properties(std::str::from_utf8(own).ok()?))
    }

    /// The properties as they count now, of those that the payload holds.
    #[must_use]
    pub fn properties<'p>(&self, payload: &'p str) -> Cow<'p, str> {
        if self.changed.is_empty() {
            return Cow::Borrowed(payload);
        }
        let mut all = String::with_capacity(payload.len() + self.changed.len());
        for (name, value) in properties(payload) {
            if properties(&self.changed).all(|(changed, _)| changed != name) {
                append_property(&mut all, name, value);
            }
        }
        all.push_str(&self.changed);
        Cow::Owned(all)
    }

    /// What those need not get added.
    #[must_use]
    pub fn state(&self) -> PropertiesState {
        let lacks_separator = self.stored.properties.lacks_separator && self.changed.is_empty();
        PropertiesState { lacks_separator, ..self.stored.properties }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_stored()(
            sys_flag in any::<i32>(), born_timestamp in any::<i64>(), v6 in any::<bool>(), ip in any::<u128>(),
            port in any::<u16>(), body_bytes in any::<u32>(), flag in prop::option::of(any::<i32>()),
            reconsume_times in 0..3i32, prepared_offset in 0..3i64, bits in any::<u8>(),
        ) -> Stored {
            let v4 = Ipv4Addr::from_bits(u32::try_from(ip & 0xFFFF_FFFF).expect("masked"));
            let ip = if v6 { IpAddr::V6(Ipv6Addr::from_bits(ip)) } else { IpAddr::V4(v4) };
            Stored {
                sys_flag, born_timestamp, born_host: SocketAddr::new(ip, port), body_bytes, flag: flag.unwrap_or(0),
                reconsume_times, prepared_offset,
                properties: PropertiesState {
                    lacks_separator: bits & 1 != 0, has_cluster: bits & 2 != 0,
                    has_region: bits & 4 != 0, has_trace: bits & 8 != 0,
                },
            }
        }
    }

    #[test]
    fn changed_properties_count_instead_of_the_payloads() {
        let stored = Stored {
            sys_flag: 0,
            born_timestamp: 1,
            born_host: "10.0.0.5:1".parse().expect("an address"),
            body_bytes: 0,
            flag: 0,
            reconsume_times: 0,
            prepared_offset: 0,
            properties: PropertiesState { lacks_separator: true, ..PropertiesState::default() },
        };
        let payload = "DELAY\u{1}2\u{2}TAGS\u{1}A";
        let plain = Attributes { stored, changed: Cow::Borrowed("") };
        assert_eq!((plain.properties(payload), plain.state().lacks_separator), (payload.into(), true));
        let changed = Attributes { stored, changed: "DELAY\u{1}3\u{2}RETRY_TOPIC\u{1}T\u{2}".into() };
        assert_eq!(changed.properties(payload), "TAGS\u{1}A\u{2}DELAY\u{1}3\u{2}RETRY_TOPIC\u{1}T\u{2}");
        assert!(!changed.state().lacks_separator, "what is added comes behind a separator");
    }

    proptest! {
        #[test]
        fn what_is_stored_is_what_is_read(stored in any_stored()) {
            let bytes = stored.encode();
            let (bytes, plain) = (bytes.as_slice(), Attributes { stored, changed: Cow::Borrowed("") });
            prop_assert_eq!(Attributes::decode(bytes), Some(plain.clone()));
            prop_assert_eq!(Attributes::decode(&bytes[..bytes.len() - 1]), None);
            prop_assert_eq!(plain.encode(), bytes);
            let changed = Attributes { stored, changed: "DELAY\u{1}3\u{2}".into() };
            let bytes = changed.encode();
            prop_assert_eq!(Attributes::decode(&bytes), Some(changed));
        }

        #[test]
        fn what_a_link_says_beside_its_message_is_all_that_it_says(
            origin in any_stored(), other in any_stored(), is_other in any::<bool>(), keeps in any::<bool>(), queue in 0..9u32,
        ) {
            let origin_changed = if keeps { "REAL_TOPIC\u{1}T1\u{2}" } else { "" };
            let origin = Attributes { stored: origin, changed: origin_changed.into() };
            let Stored { sys_flag, reconsume_times, prepared_offset, .. } = other;
            let stored = Stored { sys_flag, reconsume_times, prepared_offset, ..origin.stored };
            let changed = format!("{origin_changed}DELAY\u{1}3\u{2}REAL_QID\u{1}{queue}\u{2}");
            let link = Attributes { stored: if is_other { other } else { stored }, changed: changed.into() };
            let around = Around { own: ("%RETRY%g", 3), origin_topic: Some("T1"), origin: Lsn(8) };
            let bytes = origin.encode();
            let beside = Beside { attributes: &bytes, around };
            let bytes = link.encode_beside(&beside);
            match Attributes::decode(&bytes) {
                Some(whole) => prop_assert_eq!(whole, link),
                None => {
                    prop_assert!(bytes.len() <= 2 + 4 + 4 + 10 + 5, "{} bytes", bytes.len());
                    prop_assert_eq!(Attributes::decode_beside(&bytes, &beside), Some(link));
                }
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            // What decodes is what would have been written.
            if let Some(attributes) = Attributes::decode(&bytes) {
                prop_assert!(attributes.encode().len() <= bytes.len());
            }
        }
    }
}
