//! Rows of the index in the derived store: pieces of runs, and the list of runs. Written down in `engine/docs/format.md`.
//!
//! A piece names its first entry in its key; its value holds the others, each as what it adds to the one before. Numbers in
//! values are of seven bits a byte, the lowest first, with the highest bit set in all bytes but the last.

use crate::checkpoint::rows::{BadRow, put_number, take_number};
use crate::limits::KEY_PIECE_BYTES;
use crate::units::{Lsn, to_u64};

/// One key of one message. Ordered by hash, then along the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Posting {
    pub(super) hash: u32,
    pub(super) lsn: Lsn,
}

/// Records begin at multiples of this.
const ALIGN: u64 = crate::commitlog::frame::FRAME_ALIGN;
/// Most bytes of an entry in a piece.
const POSTING_BYTES_MAX: usize = 5 + 10;
/// Bytes of a piece's key.
pub(super) const PIECE_KEY_BYTES: usize = 16;

/// Key of a piece: the run's number, then its first entry.
pub(super) fn piece_key(run: u32, first: Posting) -> [u8; PIECE_KEY_BYTES] {
    let mut key = [0; PIECE_KEY_BYTES];
    key[..4].copy_from_slice(&run.to_be_bytes());
    key[4..8].copy_from_slice(&first.hash.to_be_bytes());
    key[8..].copy_from_slice(&first.lsn.0.to_be_bytes());
    key
}

/// A piece in the making, of a run that begins at `start`.
pub(super) struct PieceWriter {
    start: Lsn,
    first: Option<Posting>,
    last: Posting,
    value: Vec<u8>,
}

impl PieceWriter {
    pub(super) fn new(start: Lsn) -> PieceWriter {
        let first = Posting { hash: 0, lsn: start };
        PieceWriter { start, first: None, last: first, value: Vec::with_capacity(KEY_PIECE_BYTES) }
    }

    /// Adds the next entry.
    ///
    /// # Panics
    /// When it does not lie behind the one before.
    pub(super) fn push(&mut self, posting: Posting) {
        if self.first.is_none() {
            self.first = Some(posting);
        } else {
            assert!(posting > self.last, "entries of a piece ascend");
            let more = posting.hash - self.last.hash;
            put_number(&mut self.value, u64::from(more));
            let base = if more == 0 { self.last.lsn } else { self.start };
            put_number(&mut self.value, posting.lsn.since(base) / ALIGN);
        }
        self.last = posting;
    }

    /// Whether the next entry belongs to the next piece.
    pub(super) fn is_full(&self) -> bool {
        self.value.len() + POSTING_BYTES_MAX > KEY_PIECE_BYTES
    }

    /// The piece, if there is anything in it, with its first entry; begins the next.
    pub(super) fn take(&mut self) -> Option<(Posting, Vec<u8>)> {
        let first = self.first.take()?;
        Some((first, std::mem::replace(&mut self.value, Vec::with_capacity(KEY_PIECE_BYTES))))
    }
}

/// The entries of a piece of a run that begins at `start`; ascending, and never none.
pub(super) fn decode_piece(start: Lsn, key: &[u8], value: &[u8]) -> Result<Vec<Posting>, BadRow> {
    decode(start, key, value).ok_or(BadRow("keys"))
}

fn decode(start: Lsn, key: &[u8], mut value: &[u8]) -> Option<Vec<Posting>> {
    let key: &[u8; PIECE_KEY_BYTES] = key.try_into().ok()?;
    let [_, _, _, _, a, b, c, d, lsn @ ..] = *key;
    let mut last = Posting { hash: u32::from_be_bytes([a, b, c, d]), lsn: Lsn(u64::from_be_bytes(lsn)) };
    let mut postings = Vec::with_capacity(1 + value.len() / 3);
    postings.push(last);
    while !value.is_empty() {
        let more = u32::try_from(take_number(&mut value)?).ok()?;
        let ahead = take_number(&mut value)?.checked_mul(ALIGN)?;
        let base = if more == 0 { last.lsn } else { start };
        let next = Posting { hash: last.hash.checked_add(more)?, lsn: Lsn(base.0.checked_add(ahead)?) };
        if next <= last {
            return None;
        }
        postings.push(next);
        last = next;
    }
    Some(postings)
}

/// A sorted run in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Which one; the newest has the highest.
    pub(super) number: u32,
    /// No entry lies below.
    pub(super) start: Lsn,
    /// The newest entry.
    pub(super) last: Lsn,
    /// No entry is older.
    pub(super) first_ms: u64,
    /// No entry is newer.
    pub(super) last_ms: u64,
    /// Entries.
    pub(super) count: u64,
}

const RUN_PREFIX: &[u8; 4] = b"run/";
/// Bounds of the keys of all rows of the list.
pub(super) const RUNS: (&[u8], &[u8]) = (RUN_PREFIX, b"run0");

/// Key of a run's row.
pub(super) fn run_key(number: u32) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(RUN_PREFIX);
    key[4..].copy_from_slice(&number.to_be_bytes());
    key
}

pub(super) fn encode_run(run: &Run) -> Vec<u8> {
    [run.start.0, run.last.0, run.first_ms, run.last_ms, run.count]
        .iter()
        .flat_map(|field| field.to_be_bytes())
        .collect()
}

pub(super) fn decode_run(key: &[u8], value: &[u8]) -> Result<Run, BadRow> {
    let number = key.strip_prefix(RUN_PREFIX).and_then(|number| number.try_into().ok()).map(u32::from_be_bytes);
    let (fields, rest) = value.as_chunks::<8>();
    let fields: Option<[[u8; 8]; 5]> = fields.try_into().ok().filter(|_| rest.is_empty());
    let (Some(number), Some(fields)) = (number, fields) else { return Err(BadRow("meta")) };
    let [start, last, first_ms, last_ms, count] = fields.map(u64::from_be_bytes);
    if start > last || first_ms > last_ms || count == 0 {
        return Err(BadRow("meta"));
    }
    Ok(Run { number, start: Lsn(start), last: Lsn(last), first_ms, last_ms, count })
}

const _: () = assert!(to_u64(KEY_PIECE_BYTES + PIECE_KEY_BYTES) < 4000, "a piece fits a page of the store");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn postings(seeds: &[(u32, u32, u64)], start: u64) -> Vec<Posting> {
        let mut all: Vec<_> = seeds
            .iter()
            .map(|(hash, mask, ahead)| Posting { hash: hash & mask, lsn: Lsn(start + (ahead >> (ahead % 40)) * 8) })
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    proptest! {
        #[test]
        fn pieces_come_back_as_they_went(
            seeds in prop::collection::vec((any::<u32>(), prop::sample::select(vec![1, 0xFF, u32::MAX]), 0..1_u64 << 50), 1..3000),
            start in 0..1_u64 << 40,
            run in any::<u32>(),
        ) {
            let (start, all) = (start * 8, postings(&seeds, start * 8));
            let (mut found, mut writer, mut rows) = (Vec::new(), PieceWriter::new(Lsn(start)), Vec::new());
            for posting in &all {
                if writer.is_full() {
                    rows.extend(writer.take());
                }
                writer.push(*posting);
            }
            rows.extend(writer.take());
            prop_assert_eq!(writer.take(), None);
            for (first, value) in rows {
                prop_assert!(value.len() <= KEY_PIECE_BYTES);
                found.extend(decode_piece(Lsn(start), &piece_key(run, first), &value).unwrap());
            }
            prop_assert_eq!(found, all);
        }

        #[test]
        fn any_bytes_are_an_ascending_piece_or_refused(
            start in any::<u64>(),
            key in prop::collection::vec(any::<u8>(), 15..18),
            value in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0x80), any::<u8>()], 0..60),
        ) {
            if let Ok(all) = decode_piece(Lsn(start), &key, &value) {
                prop_assert!(key.len() == PIECE_KEY_BYTES && !all.is_empty());
                prop_assert!(all.is_sorted_by(|one, other| one < other));
                // There is one way to write it.
                let mut writer = PieceWriter::new(Lsn(start));
                let aligned = |posting: &Posting| posting.lsn.0 >= start && (posting.lsn.0 - start).is_multiple_of(ALIGN);
                if all.iter().all(aligned) {
                    all.iter().for_each(|posting| writer.push(*posting));
                    prop_assert_eq!(writer.take(), Some((all[0], value)));
                }
            }
        }

        #[test]
        fn rows_of_runs_come_back_and_others_are_refused(fields in any::<[u64; 5]>(), number in any::<u32>(), cut in 0_usize..40) {
            let [one, two, three, four, count] = fields;
            let run = Run {
                number,
                start: Lsn(one.min(two)),
                last: Lsn(one.max(two)),
                first_ms: three.min(four),
                last_ms: three.max(four),
                count: count.max(1),
            };
            let (key, value) = (run_key(number), encode_run(&run));
            prop_assert_eq!(decode_run(&key, &value), Ok(run));
            prop_assert!(RUNS.0 <= &key[..] && &key[..] < RUNS.1);
            prop_assert!(decode_run(&key, &value[..cut]).is_err() && decode_run(&key[1..], &value).is_err());
            let none = Run { count: 0, ..run };
            prop_assert!(decode_run(&key, &encode_run(&none)).is_err());
        }
    }

    #[test]
    fn keys_of_pieces_are_in_the_order_of_their_entries() {
        let key = |run, hash, lsn| piece_key(run, Posting { hash, lsn: Lsn(lsn) });
        assert!(
            key(1, 2, 256) > key(1, 2, 248) && key(1, 256, 0) > key(1, 255, 900) && key(256, 0, 0) > key(255, 9, 9)
        );
    }
}
