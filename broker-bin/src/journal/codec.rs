//! Journal records as bytes.
//!
//! ```text
//! attributes: version 1 | queue offset from which replay begins 8
//! payload, entries one after the other, each: kind 1 | fields
//!   1 topic:   name | read queues 4 | write queues 4 | perm 1 | sysFlag 4 | ordered 1
//!   2 group:   name | retry queues 4 | retry max 4 | may consume 1
//!   3 offset:  group | topic | queue 4 | offset 8
//! text: length 2 | UTF-8        all integers big-endian
//! ```

use crate::features::groups::GroupConfig;
use crate::features::offsets::OffsetKey;
use crate::features::topics::TopicConfig;

const VERSION: u8 = 1;
const TOPIC: u8 = 1;
const GROUP: u8 = 2;
const OFFSET: u8 = 3;

/// One value restated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A topic's settings.
    Topic(Box<str>, TopicConfig),
    /// A group's settings.
    Group(Box<str>, GroupConfig),
    /// A committed offset.
    Offset(OffsetKey, u64),
}

/// Bytes that are no journal record of this version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRecord(pub &'static str);

/// The attributes of a record.
#[must_use]
pub fn encode_attributes(replay_from: u64) -> [u8; 9] {
    let mut bytes = [VERSION; 9];
    bytes[1..].copy_from_slice(&replay_from.to_be_bytes());
    bytes
}

/// Where replay must begin, says this record.
///
/// # Errors
/// When another version wrote it.
pub fn decode_attributes(bytes: &[u8]) -> Result<u64, BadRecord> {
    match bytes.split_first_chunk::<1>() {
        Some(([VERSION], offset)) => {
            Ok(u64::from_be_bytes(offset.try_into().map_err(|_| BadRecord("its attributes have another length"))?))
        }
        _ => Err(BadRecord("another version of the broker wrote it")),
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("names are bounded by limits");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends an entry to a payload.
///
/// # Panics
/// When a name is longer than `limits` allow.
pub fn encode(out: &mut Vec<u8>, entry: &Entry) {
    match entry {
        Entry::Topic(name, config) => {
            out.push(TOPIC);
            text(out, name);
            out.extend_from_slice(&config.read_queues.to_be_bytes());
            out.extend_from_slice(&config.write_queues.to_be_bytes());
            out.push(config.perm);
            out.extend_from_slice(&config.sys_flag.to_be_bytes());
            out.push(u8::from(config.ordered));
        }
        Entry::Group(name, config) => {
            out.push(GROUP);
            text(out, name);
            out.extend_from_slice(&config.retry_queues.to_be_bytes());
            out.extend_from_slice(&config.retry_max.to_be_bytes());
            out.push(u8::from(config.may_consume));
        }
        Entry::Offset(key, offset) => {
            out.push(OFFSET);
            text(out, &key.group);
            text(out, &key.topic);
            out.extend_from_slice(&key.queue.to_be_bytes());
            out.extend_from_slice(&offset.to_be_bytes());
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadRecord> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(BadRecord("an entry is cut short"))?;
        self.0 = tail;
        Ok(*head)
    }

    fn text(&mut self) -> Result<Box<str>, BadRecord> {
        let len = usize::from(u16::from_be_bytes(self.take()?));
        let (head, tail): (&'a [u8], _) = self.0.split_at_checked(len).ok_or(BadRecord("a name is cut short"))?;
        self.0 = tail;
        Ok(std::str::from_utf8(head).map_err(|_| BadRecord("a name is not UTF-8"))?.into())
    }

    fn entry(&mut self) -> Result<Entry, BadRecord> {
        let [kind] = self.take()?;
        Ok(match kind {
            TOPIC => Entry::Topic(
                self.text()?,
                TopicConfig {
                    read_queues: u32::from_be_bytes(self.take()?),
                    write_queues: u32::from_be_bytes(self.take()?),
                    perm: u8::from_be_bytes(self.take()?),
                    sys_flag: i32::from_be_bytes(self.take()?),
                    ordered: self.take::<1>()? != [0],
                },
            ),
            GROUP => Entry::Group(
                self.text()?,
                GroupConfig {
                    retry_queues: u32::from_be_bytes(self.take()?),
                    retry_max: u32::from_be_bytes(self.take()?),
                    may_consume: self.take::<1>()? != [0],
                },
            ),
            OFFSET => Entry::Offset(
                OffsetKey { group: self.text()?, topic: self.text()?, queue: u32::from_be_bytes(self.take()?) },
                u64::from_be_bytes(self.take()?),
            ),
            _ => return Err(BadRecord("an entry is of an unknown kind")),
        })
    }
}

/// Reads all entries of a payload.
///
/// # Errors
/// At the first that cannot be read; those before it were given to `each`.
pub fn decode(payload: &[u8], mut each: impl FnMut(Entry)) -> Result<(), BadRecord> {
    let mut reader = Reader(payload);
    while !reader.0.is_empty() {
        each(reader.entry()?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_entry() -> impl Strategy<Value = Entry> {
        let name = "[a-zA-Z%_é-]{1,40}".prop_map(Box::<str>::from);
        prop_oneof![
            (name.clone(), any::<(u32, u32, u8, i32, bool)>()).prop_map(|(name, fields)| {
                let (read_queues, write_queues, perm, sys_flag, ordered) = fields;
                Entry::Topic(name, TopicConfig { read_queues, write_queues, perm, sys_flag, ordered })
            }),
            (name.clone(), any::<(u32, u32, bool)>()).prop_map(|(name, (retry_queues, retry_max, may_consume))| {
                Entry::Group(name, GroupConfig { retry_queues, retry_max, may_consume })
            }),
            (name.clone(), name, any::<(u32, u64)>())
                .prop_map(|(group, topic, (queue, offset))| Entry::Offset(OffsetKey { group, topic, queue }, offset)),
        ]
    }

    proptest! {
        #[test]
        fn entries_are_read_as_they_were_written(entries in prop::collection::vec(any_entry(), 0..20)) {
            let mut payload = Vec::new();
            entries.iter().for_each(|entry| encode(&mut payload, entry));
            let mut read = Vec::new();
            prop_assert_eq!(decode(&payload, |entry| read.push(entry)), Ok(()));
            prop_assert_eq!(read, entries);
        }

        #[test]
        fn any_bytes_are_read_or_refused(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut count = 0;
            let outcome = decode(&payload, |_| count += 1);
            prop_assert!(outcome.is_err() || count > 0 || payload.is_empty());
        }
    }

    #[test]
    fn a_record_names_where_replay_begins() {
        assert_eq!(decode_attributes(&encode_attributes(77)), Ok(77));
        assert!(decode_attributes(&[2, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(decode_attributes(&[]).is_err());
    }
}
