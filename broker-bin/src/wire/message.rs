//! A stored message as pulls and look-ups give it, its ids, properties and hashes.
//!
//! 1. Records are written in the first form (`V1`), the only one that every client family reads: topics of at most 127 bytes.
//! 2. The two host bits of the flags are ours: they always say what was written.
//! 3. One wrong length makes a Java client drop the rest of an answer without a word, so what cannot be written is refused whole.
//!
//! | Field | Bytes | Field | Bytes |
//! |---|---|---|---|
//! | total size | 4 | store time, ms | 8 |
//! | magic | 4 | store host: IP, port | 4 or 16, 4 |
//! | body CRC | 4 | reconsume times | 4 |
//! | queue id | 4 | prepared transaction offset | 8 |
//! | flag | 4 | body length, body | 4 + n |
//! | queue offset | 8 | topic length, topic | 1 + n |
//! | physical offset | 8 | properties length, properties | 2 + n |
//! | system flags | 4 | | |
//! | born time, ms | 8 | | |
//! | born host: IP, port | 4 or 16, 4 | | |
//!
//! Source: wire notes, sections 4.1 to 4.5, 4.7 and 4.8.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use bytes::{BufMut, BytesMut};

use crate::limits::{PROPERTIES_BYTES_MAX, TOPIC_BYTES_MAX};

/// Begins a record of the first form, behind its size.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Begins a record of the second form: its topic has a length of two bytes.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;

/// Between a property's name and its value.
pub const NAME_END: char = '\u{1}';
/// Behind a property's value; the last one may be missing.
pub const VALUE_END: char = '\u{2}';

/// Bits of a message's system flags.
pub mod sys_flag {
    /// The body is compressed.
    pub const COMPRESSED: i32 = 1;
    /// Two bits: what the message is to a transaction.
    pub const TRANSACTION_MASK: i32 = 0xC;
    /// Half of a transaction.
    pub const TRANSACTION_PREPARED: i32 = 0x4;
    /// A committed transaction's message.
    pub const TRANSACTION_COMMIT: i32 = 0x8;
    /// A transaction rolled back.
    pub const TRANSACTION_ROLLBACK: i32 = 0xC;
    /// The born host is IPv6.
    pub const BORN_HOST_V6: i32 = 0x10;
    /// The store host is IPv6.
    pub const STORE_HOST_V6: i32 = 0x20;
}

/// Bytes of a record without hosts, body, topic and properties.
const FIXED_BYTES: usize = 4 * 5 + 8 * 2 + 4 + 8 + 8 + 4 + 8 + 4 + 1 + 2;

/// Everything of a record but its body, topic and properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// See [`body_crc`].
    pub body_crc: u32,
    /// The queue of the topic.
    pub queue_id: i32,
    /// The producer's own flags.
    pub flag: i32,
    /// Ordinal of the message in its queue.
    pub queue_offset: i64,
    /// Where it lies; comes back in look-ups, send-backs and transaction verdicts.
    pub physical_offset: i64,
    /// See [`sys_flag`]. The host bits are ignored when writing and true when read.
    pub sys_flag: i32,
    /// When the producer made it, in milliseconds since 1970.
    pub born_timestamp: i64,
    /// Who sent it.
    pub born_host: SocketAddr,
    /// When it was stored, in milliseconds since 1970.
    pub store_timestamp: i64,
    /// Where clients can ask for it.
    pub store_host: SocketAddr,
    /// How often it was sent back.
    pub reconsume_times: i32,
    /// Where the half message of a committed one lies.
    pub prepared_transaction_offset: i64,
}

/// A message that a record cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordTooLong {
    /// The topic's name.
    #[error("topic has {bytes} bytes, a record has room for {TOPIC_BYTES_MAX}")]
    Topic {
        /// Its bytes.
        bytes: usize,
    },
    /// The properties.
    #[error("properties have {bytes} bytes, a record has room for {PROPERTIES_BYTES_MAX}")]
    Properties {
        /// Their bytes.
        bytes: usize,
    },
    /// The record as a whole.
    #[error("record has {bytes} bytes, which its length cannot express")]
    Record {
        /// Its bytes.
        bytes: usize,
    },
}

impl RecordHead {
    /// Bytes of the record with texts of these lengths.
    #[must_use]
    pub fn record_bytes(&self, topic_bytes: usize, body_bytes: usize, properties_bytes: usize) -> usize {
        let hosts = host_bytes(self.born_host) + host_bytes(self.store_host);
        FIXED_BYTES + hosts + topic_bytes + body_bytes + properties_bytes
    }

    /// Appends the record. The properties may come in pieces, which are written without anything between them.
    ///
    /// # Errors
    /// When it does not fit; then nothing is written.
    pub fn encode(
        &self,
        out: &mut BytesMut,
        topic: &str,
        body: &[u8],
        properties: &[&str],
    ) -> Result<(), RecordTooLong> {
        let properties_bytes = properties.iter().map(|piece| piece.len()).sum::<usize>();
        let bytes = self.record_bytes(topic.len(), body.len(), properties_bytes);
        let topic_length = u8::try_from(topic.len()).ok().filter(|_| topic.len() <= TOPIC_BYTES_MAX);
        let topic_length = topic_length.ok_or(RecordTooLong::Topic { bytes: topic.len() })?;
        let too_long = RecordTooLong::Properties { bytes: properties_bytes };
        let properties_length = i16::try_from(properties_bytes).map_err(|_| too_long)?;
        let total = i32::try_from(bytes).map_err(|_| RecordTooLong::Record { bytes })?;
        let body_length = i32::try_from(body.len()).map_err(|_| RecordTooLong::Record { bytes })?;
        let (born_host, store_host) = (canonical(self.born_host), canonical(self.store_host));
        let mut flags = self.sys_flag & !(sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6);
        flags |= if born_host.is_ipv6() { sys_flag::BORN_HOST_V6 } else { 0 };
        flags |= if store_host.is_ipv6() { sys_flag::STORE_HOST_V6 } else { 0 };

        out.reserve(bytes);
        out.put_i32(total);
        out.put_u32(MAGIC_V1);
        out.put_u32(self.body_crc);
        out.put_i32(self.queue_id);
        out.put_i32(self.flag);
        out.put_i64(self.queue_offset);
        out.put_i64(self.physical_offset);
        out.put_i32(flags);
        out.put_i64(self.born_timestamp);
        put_host(out, born_host);
        out.put_i64(self.store_timestamp);
        put_host(out, store_host);
        out.put_i32(self.reconsume_times);
        out.put_i64(self.prepared_transaction_offset);
        out.put_i32(body_length);
        out.put_slice(body);
        out.put_u8(topic_length);
        out.put_slice(topic.as_bytes());
        out.put_i16(properties_length);
        for piece in properties {
            out.put_slice(piece.as_bytes());
        }
        Ok(())
    }
}

/// A message as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its numbers and addresses.
    pub head: RecordHead,
    /// Its topic.
    pub topic: Cow<'a, str>,
    /// Its body, compressed if the flags say so.
    pub body: &'a [u8],
    /// Its properties; see [`properties`].
    pub properties: Cow<'a, str>,
}

/// Bytes that are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record is unreadable at byte {at}: {want} is wanted")]
pub struct BadRecord {
    /// Byte of what was given.
    pub at: usize,
    /// What should stand there.
    pub want: &'static str,
}

/// Reads records that stand back to back. After an error there is nothing more.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = Result<Record<'_>, BadRecord>> {
    let mut input = Input { bytes, at: 0 };
    std::iter::from_fn(move || {
        if input.at == bytes.len() {
            return None;
        }
        let record = read_record(&mut input);
        if record.is_err() {
            input.at = bytes.len();
        }
        Some(record)
    })
}

fn read_record<'a>(input: &mut Input<'a>) -> Result<Record<'a>, BadRecord> {
    let start = input.at;
    let total = usize::try_from(i32::from_be_bytes(input.take("a size")?));
    let magic = u32::from_be_bytes(input.take("a magic number")?);
    if !matches!(magic, MAGIC_V1 | MAGIC_V2) {
        return Err(BadRecord { at: start + 4, want: "a known magic number" });
    }
    let body_crc = u32::from_be_bytes(input.take("a body CRC")?);
    let queue_id = i32::from_be_bytes(input.take("a queue id")?);
    let flag = i32::from_be_bytes(input.take("a flag")?);
    let queue_offset = i64::from_be_bytes(input.take("a queue offset")?);
    let physical_offset = i64::from_be_bytes(input.take("a physical offset")?);
    let flags = i32::from_be_bytes(input.take("system flags")?);
    let born_timestamp = i64::from_be_bytes(input.take("a born time")?);
    let born_host = input.host(flags & sys_flag::BORN_HOST_V6 != 0)?;
    let store_timestamp = i64::from_be_bytes(input.take("a store time")?);
    let store_host = input.host(flags & sys_flag::STORE_HOST_V6 != 0)?;
    let reconsume_times = i32::from_be_bytes(input.take("a count of attempts")?);
    let prepared_transaction_offset = i64::from_be_bytes(input.take("a half message's offset")?);
    let length = i64::from(i32::from_be_bytes(input.take("a body length")?));
    let body = input.slice(length, "a body as long as it says")?;
    let length = if magic == MAGIC_V1 {
        let [length] = input.take("a topic length")?;
        i64::from(length)
    } else {
        i64::from(i16::from_be_bytes(input.take("a topic length")?))
    };
    let topic = String::from_utf8_lossy(input.slice(length, "a topic as long as it says")?);
    let length = i64::from(i16::from_be_bytes(input.take("a properties length")?));
    let properties = String::from_utf8_lossy(input.slice(length, "properties as long as they say")?);
    if total != Ok(input.at - start) {
        return Err(BadRecord { at: start, want: "the size that the fields add up to" });
    }
    Ok(Record {
        head: RecordHead {
            body_crc,
            queue_id,
            flag,
            queue_offset,
            physical_offset,
            sys_flag: flags,
            born_timestamp,
            born_host,
            store_timestamp,
            store_host,
            reconsume_times,
            prepared_transaction_offset,
        },
        topic,
        body,
        properties,
    })
}

/// Bytes that are read front to back.
pub(super) struct Input<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Input<'a> {
    pub(super) fn take<const N: usize>(&mut self, want: &'static str) -> Result<[u8; N], BadRecord> {
        let found = self.bytes[self.at..].first_chunk::<N>().ok_or(BadRecord { at: self.at, want })?;
        self.at += N;
        Ok(*found)
    }

    pub(super) fn slice(&mut self, length: i64, want: &'static str) -> Result<&'a [u8], BadRecord> {
        let found = usize::try_from(length).ok().and_then(|length| self.bytes[self.at..].get(..length));
        let found = found.ok_or(BadRecord { at: self.at, want })?;
        self.at += found.len();
        Ok(found)
    }

    fn host(&mut self, v6: bool) -> Result<SocketAddr, BadRecord> {
        let ip = if v6 {
            IpAddr::V6(Ipv6Addr::from(self.take::<16>("an IPv6 address")?))
        } else {
            IpAddr::V4(Ipv4Addr::from(self.take::<4>("an IPv4 address")?))
        };
        let at = self.at;
        let port = u16::try_from(u32::from_be_bytes(self.take("a port")?));
        Ok(SocketAddr::new(ip, port.map_err(|_| BadRecord { at, want: "a port below 65536" })?))
    }
}

/// An IPv4 address that came in IPv6 clothes is IPv4 to clients.
fn canonical(host: SocketAddr) -> SocketAddr {
    SocketAddr::new(host.ip().to_canonical(), host.port())
}

fn host_bytes(host: SocketAddr) -> usize {
    if canonical(host).is_ipv4() { 8 } else { 20 }
}

fn put_host(out: &mut BytesMut, host: SocketAddr) {
    match host.ip() {
        IpAddr::V4(ip) => out.put_slice(&ip.octets()),
        IpAddr::V6(ip) => out.put_slice(&ip.octets()),
    }
    out.put_u32(u32::from(host.port()));
}

/// The checksum of a stored body: that of zlib and PNG, without its highest bit.
#[must_use]
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7FFF_FFFF
}

/// The id under which a producer knows its stored message: where to ask, and for what.
///
/// As text, 32 hex digits in upper case, 56 when the host is IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// The broker that has it.
    pub host: SocketAddr,
    /// Its physical offset.
    pub offset: i64,
}

impl MessageId {
    /// Appends its text.
    pub fn push_to(&self, text: &mut String) {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        let mut push = |bytes: &[u8]| {
            for byte in bytes {
                text.push(char::from(DIGITS[usize::from(byte >> 4)]));
                text.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
        };
        match self.host.ip().to_canonical() {
            IpAddr::V4(ip) => push(&ip.octets()),
            IpAddr::V6(ip) => push(&ip.octets()),
        }
        push(&u32::from(self.host.port()).to_be_bytes());
        push(&self.offset.to_be_bytes());
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(56);
        self.push_to(&mut text);
        f.write_str(&text)
    }
}

/// Text that is no [`MessageId`]; it may be a producer's own unique key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a stored message")]
pub struct NotAMessageId;

impl FromStr for MessageId {
    type Err = NotAMessageId;

    fn from_str(text: &str) -> Result<MessageId, NotAMessageId> {
        let mut bytes = [0u8; 28];
        if !matches!(text.len(), 32 | 56) {
            return Err(NotAMessageId);
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |at: usize| char::from(digits[at]).to_digit(16).ok_or(NotAMessageId);
            *byte = u8::try_from(digit(0)? << 4 | digit(1)?).map_err(|_| NotAMessageId)?;
        }
        let mut input = Input { bytes: &bytes[..text.len() / 2], at: 0 };
        let host = input.host(text.len() == 56).map_err(|_| NotAMessageId)?;
        let offset = i64::from_be_bytes(input.take("an offset").map_err(|_| NotAMessageId)?);
        Ok(MessageId { host, offset })
    }
}

/// The properties of a message, in order. Entries without a name or value vanish, as they do in clients.
pub fn properties(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(VALUE_END)
        .filter_map(|entry| entry.split_once(NAME_END))
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
}

/// One property. When a name stands twice, the last one counts.
#[must_use]
pub fn property<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    properties(text).filter(|(found, _)| *found == name).last().map(|(_, value)| value)
}

/// Adds a property, and before it the separator that Java clients since 4.9.1 leave out.
pub fn append_property(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() && !text.ends_with(VALUE_END) {
        text.push(VALUE_END);
    }
    text.push_str(name);
    text.push(NAME_END);
    text.push_str(value);
    text.push(VALUE_END);
}

/// The same for a number.
///
/// # Panics
/// Never: a string takes everything.
pub fn append_number(text: &mut String, name: &str, number: u64) {
    append_property(text, name, "");
    text.pop();
    write!(text, "{number}{VALUE_END}").expect("a string takes everything");
}

/// Java's hash of a string: over UTF-16 units, wrapping.
#[must_use]
pub fn java_hash(text: &str) -> i32 {
    tag_hash(text).cast_signed()
}

/// The same, as the engine keeps a message's tag. No tag has hash 0.
#[must_use]
pub fn tag_hash(tag: &str) -> u32 {
    tag.encode_utf16().fold(0u32, |hash, unit| hash.wrapping_mul(31).wrapping_add(u32::from(unit)))
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use proptest::prelude::*;

    use super::*;

    fn head() -> RecordHead {
        RecordHead {
            body_crc: body_crc(b"hello"),
            queue_id: 3,
            flag: 0,
            queue_offset: 9,
            physical_offset: 4096,
            sys_flag: 0,
            born_timestamp: 1_700_000_000_000,
            born_host: "127.0.0.1:50000".parse().expect("an address"),
            store_timestamp: 1_700_000_000_005,
            store_host: "127.0.0.1:10911".parse().expect("an address"),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
        }
    }

    #[test]
    fn hashes_and_checksums_are_those_of_the_clients() {
        for (text, hash) in [("", 0), ("A", 65), ("TagA", 2_598_919), ("TagB", 2_598_920), ("order-paid", 710_106_603)]
        {
            assert_eq!(java_hash(text), hash, "{text}");
        }
        // Two surrogate units: 31 * 0xD83D + 0xDE00.
        assert_eq!(java_hash("\u{1F600}"), 1_772_899);
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
        assert_eq!(body_crc(b"hello"), 907_060_870);
        assert_eq!(body_crc(b"123456789"), 1_274_296_614);
    }

    #[test]
    fn what_a_record_cannot_hold_is_refused_whole() {
        let mut out = BytesMut::new();
        let long = "t".repeat(128);
        assert_eq!(head().encode(&mut out, &long, b"", &[]), Err(RecordTooLong::Topic { bytes: 128 }));
        let piece = "p".repeat(32_767);
        let refused = head().encode(&mut out, "t", b"", &[&piece, "q"]);
        assert_eq!(refused, Err(RecordTooLong::Properties { bytes: 32_768 }));
        assert!(out.is_empty());
        head().encode(&mut out, &long[..127], b"", &[&piece]).expect("it fits");
        assert_eq!(out.len(), head().record_bytes(127, 0, 32_767));
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_written_as_ipv4() {
        let mut out = BytesMut::new();
        let mapped = RecordHead { born_host: "[::ffff:10.0.0.5]:7".parse().expect("an address"), ..head() };
        mapped.encode(&mut out, "T1", b"hello", &[]).expect("it fits");
        let record = records(&out).next().expect("one").expect("good");
        assert_eq!(record.head.born_host, "10.0.0.5:7".parse().expect("an address"));
        assert_eq!(record.head.sys_flag, 0);
    }

    #[test]
    fn properties_are_read_with_and_without_the_last_separator() {
        let mut text = "TAGS\u{1}A\u{2}KEYS\u{1}\u{2}odd\u{2}\u{1}x\u{2}TAGS\u{1}B".to_owned();
        assert_eq!(properties(&text).collect::<Vec<_>>(), [("TAGS", "A"), ("TAGS", "B")]);
        append_property(&mut text, "CLUSTER", "c");
        assert_eq!((property(&text, "TAGS"), property(&text, "CLUSTER")), (Some("B"), Some("c")));
        append_property(&mut text, "K", "v");
        assert!(text.ends_with("B\u{2}CLUSTER\u{1}c\u{2}K\u{1}v\u{2}"));
        let mut empty = String::new();
        append_property(&mut empty, "K", "v");
        assert_eq!(empty, "K\u{1}v\u{2}");
    }

    prop_compose! {
        fn any_host()(v6 in any::<bool>(), ip in any::<u128>(), port in any::<u16>()) -> SocketAddr {
            let ip = Ipv6Addr::from_bits(ip);
            let v4 = ip.octets().first_chunk::<4>().copied().map(Ipv4Addr::from);
            SocketAddr::new(v4.filter(|_| !v6).map_or(IpAddr::V6(ip), IpAddr::V4), port)
        }
    }

    prop_compose! {
        fn any_head()(
            ints in any::<[i32; 4]>(), longs in any::<[i64; 5]>(), body_crc in any::<u32>(),
            born_host in any_host(), store_host in any_host(),
        ) -> RecordHead {
            RecordHead {
                body_crc, queue_id: ints[0], flag: ints[1], queue_offset: longs[0], physical_offset: longs[1],
                sys_flag: ints[2], born_timestamp: longs[2], born_host, store_timestamp: longs[3], store_host,
                reconsume_times: ints[3], prepared_transaction_offset: longs[4],
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(
            head in any_head(), topic in "[a-zA-Z%_-]{0,127}", body in prop::collection::vec(any::<u8>(), 0..99),
            properties in prop::collection::vec("[^\u{0}]{0,20}", 0..4),
        ) {
            let pieces: Vec<&str> = properties.iter().map(String::as_str).collect();
            let mut out = BytesMut::new();
            for _ in 0..2 {
                head.encode(&mut out, &topic, &body, &pieces).expect("it fits");
            }
            let read: Vec<_> = records(&out).collect::<Result<_, _>>().expect("good");
            prop_assert_eq!(read.len(), 2);
            for record in read {
                let hosts = sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6;
                prop_assert_eq!(record.head.sys_flag & !hosts, head.sys_flag & !hosts);
                prop_assert_eq!(RecordHead { sys_flag: head.sys_flag, ..record.head }, head);
                prop_assert_eq!((&*record.topic, record.body), (&*topic, &*body));
                prop_assert_eq!(record.properties, pieces.concat());
            }
            prop_assert!(records(&out[..out.len() - 1]).nth(1).expect("half a record").is_err());
        }

        #[test]
        fn any_bytes_are_records_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(records(&bytes).count() <= bytes.len());
        }

        #[test]
        fn message_ids_survive_being_text(host in any_host(), offset in any::<i64>()) {
            let id = MessageId { host, offset };
            let text = id.to_string();
            prop_assert!(matches!(text.len(), 32 | 56));
            prop_assert_eq!(text.parse::<MessageId>(), Ok(id));
            prop_assert_eq!(text[1..].parse::<MessageId>(), Err(NotAMessageId));
        }

        #[test]
        fn any_text_is_a_message_id_or_not(text in "\\PC{0,60}") {
            black_box(text.parse::<MessageId>().is_ok());
        }
    }
}
