//! Rows of the derived store: keys and values of each of its tables. Written down in `engine/docs/format.md`.
//!
//! Numbers in keys are big-endian, so that their order is the order of bytes.

use std::sync::Arc;

use crate::batch::Queue;
use crate::consume_queue::QueueEntry;
use crate::table::TableEntry;
use crate::units::{Epoch, Lsn, QueueOffset};

/// Version of what is written down here; a store of another version is made anew.
pub(crate) const ROWS_VERSION: u32 = 4;

/// Entries of one piece, which mostly take less than a quarter of a page of the store.
pub(crate) const PIECE_ENTRIES: usize = 80;

/// Key of the row that says how far the store goes.
pub(crate) const APPLIED_KEY: &[u8] = b"applied";

/// Key of the row that says where the log began: no queue of the store begins before.
pub(crate) const START_KEY: &[u8] = b"start";

/// A row that is not what this version writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a row of {0} has another form")]
pub(crate) struct BadRow(pub(crate) &'static str);

/// Takes fields off the front of a row.
struct Fields<'a>(&'a [u8], &'static str);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadRow> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(BadRow(self.1))?;
        self.0 = tail;
        Ok(*head)
    }

    fn end(self) -> Result<(), BadRow> {
        if self.0.is_empty() { Ok(()) } else { Err(BadRow(self.1)) }
    }

    fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// How far a store goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    /// The log is in the store up to here.
    pub(crate) lsn: Lsn,
    /// The epoch that wrote the byte before; zero where the history does not go back that far.
    pub(crate) epoch: Epoch,
}

pub(crate) fn encode_applied(applied: Applied) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&applied.lsn.0.to_be_bytes());
    value[8..12].copy_from_slice(&applied.epoch.term.to_be_bytes());
    value[12..].copy_from_slice(&applied.epoch.run.to_be_bytes());
    value
}

pub(crate) fn decode_applied(value: &[u8]) -> Result<Applied, BadRow> {
    let mut fields = Fields(value, "meta");
    let lsn = Lsn(u64::from_be_bytes(fields.take()?));
    let epoch = Epoch { term: u32::from_be_bytes(fields.take()?), run: u32::from_be_bytes(fields.take()?) };
    fields.end().map(|()| Applied { lsn, epoch })
}

pub(crate) fn encode_start(start: Lsn) -> [u8; 8] {
    start.0.to_be_bytes()
}

pub(crate) fn decode_start(value: &[u8]) -> Result<Lsn, BadRow> {
    let mut fields = Fields(value, "meta");
    let start = Lsn(u64::from_be_bytes(fields.take()?));
    fields.end().map(|()| start)
}

/// Key of a piece of a queue's entries: queue id, offset of the first.
pub(crate) fn piece_key(queue: u32, first: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&queue.to_be_bytes());
    key[4..].copy_from_slice(&first.to_be_bytes());
    key
}

/// The offset of a piece's first entry, from its key.
pub(crate) fn piece_first(key: &[u8]) -> Result<u64, BadRow> {
    let mut fields = Fields(key, "entries");
    let _queue: [u8; 4] = fields.take()?;
    let first = u64::from_be_bytes(fields.take()?);
    fields.end().map(|()| first)
}

/// Entries of a queue resemble the ones before them: what differs is mostly told in a byte or two.
pub(crate) fn encode_piece(entries: &[QueueEntry]) -> Vec<u8> {
    let mut value = Vec::with_capacity(entries.len() * 10);
    let mut before = NOTHING_BEFORE;
    for entry in entries {
        put_number(&mut value, entry.lsn.0.wrapping_sub(before.lsn.0));
        put_number(&mut value, entry.size.into());
        put_number(&mut value, (entry.tag ^ before.tag).into());
        put_number(&mut value, entry.store_time_ms.wrapping_sub(before.store_time_ms));
        before = *entry;
    }
    value
}

/// The entries of a piece; never none.
pub(crate) fn decode_piece(value: &[u8]) -> Result<Vec<QueueEntry>, BadRow> {
    entries_of(value).filter(|entries| !entries.is_empty()).ok_or(BadRow("entries"))
}

fn entries_of(mut value: &[u8]) -> Option<Vec<QueueEntry>> {
    let mut entries = Vec::with_capacity(PIECE_ENTRIES);
    let mut before = NOTHING_BEFORE;
    while !value.is_empty() {
        before = QueueEntry {
            lsn: Lsn(before.lsn.0.wrapping_add(take_number(&mut value)?)),
            size: take_number(&mut value)?.try_into().ok()?,
            tag: before.tag ^ u32::try_from(take_number(&mut value)?).ok()?,
            store_time_ms: before.store_time_ms.wrapping_add(take_number(&mut value)?),
        };
        entries.push(before);
    }
    Some(entries)
}

const NOTHING_BEFORE: QueueEntry = QueueEntry { lsn: Lsn::ZERO, size: 0, tag: 0, store_time_ms: 0 };

/// Seven bits a byte, the lowest first, with the highest bit set in all bytes but the last.
pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

pub(crate) fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7F);
        if shift == 63 && part > 1 {
            return None;
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            // One form for each number.
            return (part > 0 || shift == 0).then_some(number);
        }
    }
    None
}

/// A queue, but for its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueRow {
    pub(crate) name: Arc<[u8]>,
    pub(crate) incarnation: u32,
    pub(crate) dropped: bool,
    pub(crate) min: QueueOffset,
    pub(crate) max: QueueOffset,
    /// Where the newest record stands that tells `max`.
    pub(crate) latest: Option<Lsn>,
}

pub(crate) fn queue_key(queue: &Queue) -> [u8; 4] {
    queue.id.to_be_bytes()
}

/// The id, from the key alone.
pub(crate) fn queue_id(key: &[u8]) -> Result<u32, BadRow> {
    let mut id = Fields(key, "queues");
    let number = u32::from_be_bytes(id.take()?);
    id.end().map(|()| number)
}

pub(crate) fn encode_queue(row: &QueueRow) -> Vec<u8> {
    let mut value = Vec::with_capacity(29 + row.name.len());
    value.extend_from_slice(&row.incarnation.to_be_bytes());
    value.push(u8::from(row.dropped));
    value.extend_from_slice(&row.min.0.to_be_bytes());
    value.extend_from_slice(&row.max.0.to_be_bytes());
    value.extend_from_slice(&row.latest.unwrap_or(Lsn::MAX).0.to_be_bytes());
    value.extend_from_slice(&row.name);
    value
}

/// The id, and the row.
pub(crate) fn decode_queue(key: &[u8], value: &[u8]) -> Result<(u32, QueueRow), BadRow> {
    let number = queue_id(key)?;
    let mut fields = Fields(value, "queues");
    let incarnation = u32::from_be_bytes(fields.take()?);
    let [dropped] = fields.take()?;
    let min = QueueOffset(u64::from_be_bytes(fields.take()?));
    let max = QueueOffset(u64::from_be_bytes(fields.take()?));
    let latest = Lsn(u64::from_be_bytes(fields.take()?));
    let latest = (latest != Lsn::MAX).then_some(latest);
    if min > max || dropped > 1 {
        return Err(BadRow("queues"));
    }
    let name = Arc::from(fields.rest());
    Ok((number, QueueRow { name, incarnation, dropped: dropped == 1, min, max, latest }))
}

pub(crate) fn encode_entry(entry: &TableEntry) -> Vec<u8> {
    let mut value = Vec::with_capacity(17 + entry.value.len());
    value.extend_from_slice(&entry.lsn.0.to_be_bytes());
    value.push(u8::from(entry.target.is_some()));
    value.extend_from_slice(&entry.target.unwrap_or_default().0.to_be_bytes());
    value.extend_from_slice(&entry.value);
    value
}

pub(crate) fn decode_entry(value: &[u8]) -> Result<TableEntry, BadRow> {
    let mut fields = Fields(value, "table");
    let lsn = Lsn(u64::from_be_bytes(fields.take()?));
    let [has_target] = fields.take()?;
    let target = Lsn(u64::from_be_bytes(fields.take()?));
    Ok(TableEntry { lsn, target: (has_target == 1).then_some(target), value: Arc::from(fields.rest()) })
}

/// Who refers to a message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Referrer {
    /// The table entry of this key.
    Entry(Vec<u8>),
    /// The link at this LSN.
    Link(Lsn),
}

const BY_ENTRY: u8 = 1;
const BY_LINK: u8 = 2;

/// Key of a reference: the message, then who refers to it. There is no value.
pub(crate) fn reference_key(target: Lsn, referrer: &Referrer) -> Vec<u8> {
    let mut key = target.0.to_be_bytes().to_vec();
    match referrer {
        Referrer::Entry(name) => {
            key.push(BY_ENTRY);
            key.extend_from_slice(name);
        }
        Referrer::Link(link) => {
            key.push(BY_LINK);
            key.extend_from_slice(&link.0.to_be_bytes());
        }
    }
    key
}

pub(crate) fn decode_reference(key: &[u8]) -> Result<(Lsn, Referrer), BadRow> {
    let mut fields = Fields(key, "references");
    let target = Lsn(u64::from_be_bytes(fields.take()?));
    match fields.take()? {
        [BY_ENTRY] => Ok((target, Referrer::Entry(fields.rest().to_vec()))),
        [BY_LINK] => {
            let link = Lsn(u64::from_be_bytes(fields.take()?));
            fields.end().map(|()| (target, Referrer::Link(link)))
        }
        _ => Err(BadRow("references")),
    }
}

/// First key of the references to messages at or above `lsn`.
pub(crate) fn references_from(lsn: Lsn) -> [u8; 8] {
    lsn.0.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_come_back_as_they_went(
            numbers in any::<(u32, u64, u64, u64)>(),
            text in prop::collection::vec(any::<u8>(), 0..40),
            flag in any::<bool>(),
        ) {
            let (id, one, two, three) = numbers;
            let row = QueueRow {
                name: Arc::from(&text[..]),
                incarnation: id ^ 1,
                dropped: flag,
                min: QueueOffset(one.min(two)),
                max: QueueOffset(one.max(two)),
                latest: flag.then_some(Lsn(three / 2)),
            };
            prop_assert_eq!(decode_queue(&id.to_be_bytes(), &encode_queue(&row)), Ok((id, row)));
            let entry = TableEntry { lsn: Lsn(one), target: flag.then_some(Lsn(two)), value: Arc::from(&text[..]) };
            prop_assert_eq!(decode_entry(&encode_entry(&entry)), Ok(entry));
            let referrer = if flag { Referrer::Link(Lsn(two)) } else { Referrer::Entry(text) };
            prop_assert_eq!(decode_reference(&reference_key(Lsn(one), &referrer)), Ok((Lsn(one), referrer)));
            prop_assert_eq!(piece_first(&piece_key(id, one)), Ok(one));
            let applied = Applied { lsn: Lsn(one), epoch: Epoch { term: id, run: !id } };
            prop_assert_eq!(decode_applied(&encode_applied(applied)), Ok(applied));
            prop_assert_eq!(decode_start(&encode_start(Lsn(one))), Ok(Lsn(one)));
            let entry = |lsn, size, tag, store_time_ms| QueueEntry { lsn: Lsn(lsn), size, tag, store_time_ms };
            let piece = [entry(one, id, id, two), entry(two, 7, !id, three), entry(two, 0, id, one)];
            prop_assert_eq!(decode_piece(&encode_piece(&piece)).unwrap(), piece);
        }

        #[test]
        fn any_bytes_are_a_row_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let outcomes = [
                decode_queue(&bytes, &bytes).is_ok(),
                decode_entry(&bytes).is_ok(),
                decode_reference(&bytes).is_ok(),
                decode_piece(&bytes).is_ok(),
                decode_applied(&bytes).is_ok(),
                decode_start(&bytes).is_ok(),
                piece_first(&bytes).is_ok(),
            ];
            prop_assert!(!bytes.is_empty() || outcomes == [false; 7]);
        }
    }

    #[test]
    fn a_piece_is_written_and_read_as_ever() {
        let text = include_str!("../../../fixtures/log/queue-entries-v4.hex");
        let digits: String = text.lines().map(|line| line.split('#').next().unwrap_or_default()).collect();
        let golden: Vec<u8> = digits.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        let entry =
            |lsn, size, tag, ms: u64| QueueEntry { lsn: Lsn(lsn), size, tag, store_time_ms: 1_700_000_000_000 + ms };
        let piece = [entry(4176, 72, 2_598_919, 5), entry(5280, 1090, 2_598_919, 5), entry(6384, 1090, 0, 17)];
        assert_eq!(encode_piece(&piece), golden);
        assert_eq!(decode_piece(&golden).unwrap(), piece);
    }

    #[test]
    fn a_piece_of_messages_that_resemble_each_other_takes_a_third_of_their_entries() {
        let entry = |at: u64| QueueEntry {
            lsn: Lsn((1 << 40) + at * 1104),
            size: 1090,
            tag: 0xABCD_EF01,
            store_time_ms: 1_700_000_000_000 + at / 9,
        };
        let piece: Vec<_> = (0..80).map(entry).collect();
        let value = encode_piece(&piece);
        assert_eq!(decode_piece(&value).unwrap(), piece);
        assert!(value.len() * 3 <= size_of_val(&piece[..]), "{} bytes", value.len());
    }

    #[test]
    fn the_order_of_keys_is_the_order_of_numbers() {
        assert!(piece_key(1, 300) > piece_key(1, 255) && piece_key(2, 0) > piece_key(1, u64::MAX));
        let at = |lsn| reference_key(Lsn(lsn), &Referrer::Link(Lsn(9)));
        assert!(
            at(256) > at(255)
                && at(256)[..] > references_from(Lsn(256))[..]
                && at(255)[..] < references_from(Lsn(256))[..]
        );
    }
}
