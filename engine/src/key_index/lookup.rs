//! Searching: candidates by hash, one stretch of the log after the other, and the borders of a time among them.

use std::ops::{Bound, ControlFlow, Range};
use std::sync::Arc;

use crate::commitlog::frame::FRAME_ALIGN;
use crate::error::ReadError;
use crate::key_index::chunk::Chunk;
use crate::key_index::merge;
use crate::key_index::query::{KeyOrder, KeyQuery};
use crate::key_index::rows::{self, Posting, Run};
use crate::store::{Direction, StoreReader, StoreTable};
use crate::units::Lsn;

/// Reads candidates.
pub(crate) trait Records {
    /// What is shown of a message.
    type Message;

    /// The store time of a record.
    fn store_time_ms(&self, lsn: Lsn) -> Result<u64, ReadError>;

    /// The message at `lsn` and its size in bytes, if it is one that the query asks for and that readers may see.
    fn message(&self, lsn: Lsn, query: &KeyQuery<'_>) -> Result<Option<(Self::Message, usize)>, ReadError>;
}

/// A stretch of the log.
pub(super) enum Stretch {
    /// A run in the store.
    Stored(Arc<StoreReader>, Run),
    /// A chunk in memory that does not grow any more.
    Sealed(Arc<Chunk>),
    /// What the one that still grows has of the hash asked for.
    Open(Vec<Lsn>),
}

impl Stretch {
    /// From when to when its messages were stored.
    fn times_ms(&self) -> (u64, u64) {
        match self {
            Stretch::Stored(_, run) => (run.first_ms, run.last_ms),
            Stretch::Sealed(chunk) => (chunk.first_ms, chunk.last_ms),
            // Few are in it, and each is judged by itself.
            Stretch::Open(_) => (0, u64::MAX),
        }
    }

    /// Its first record, and its last.
    fn lsns(&self) -> (Lsn, Lsn) {
        match self {
            Stretch::Stored(_, run) => (run.start, run.last),
            Stretch::Sealed(chunk) => (chunk.start(), chunk.last()),
            Stretch::Open(_) => (Lsn::ZERO, Lsn::MAX),
        }
    }

    fn candidates(&self, hash: u32) -> Candidates<'_> {
        match self {
            Stretch::Stored(reader, run) => Candidates::Stored(Cursor { reader, run, hash, piece: None }),
            Stretch::Sealed(chunk) => Candidates::Listed(chunk.lsns(hash)),
            Stretch::Open(lsns) => Candidates::Listed(lsns.clone()),
        }
    }
}

/// Records of a stretch that may have the key.
enum Candidates<'a> {
    /// These, along the log.
    Listed(Vec<Lsn>),
    /// Those of a run.
    Stored(Cursor<'a>),
}

impl Candidates<'_> {
    /// The first at or behind `lsn`.
    fn at_or_behind(&mut self, lsn: Lsn) -> Result<Option<Lsn>, ReadError> {
        match self {
            Candidates::Stored(cursor) => cursor.at_or_behind(lsn),
            Candidates::Listed(lsns) => Ok(lsns.get(lsns.partition_point(|other| *other < lsn)).copied()),
        }
    }

    /// The first in `range`.
    fn first_in(&mut self, range: &Range<Lsn>) -> Result<Option<Lsn>, ReadError> {
        Ok(self.at_or_behind(range.start)?.filter(|lsn| *lsn < range.end))
    }

    /// The last in `range`.
    fn last_in(&mut self, range: &Range<Lsn>) -> Result<Option<Lsn>, ReadError> {
        let last = match self {
            Candidates::Stored(cursor) => cursor.before(range.end)?,
            Candidates::Listed(lsns) => {
                let index = lsns.partition_point(|other| *other < range.end);
                index.checked_sub(1).map(|index| lsns[index])
            }
        };
        Ok(last.filter(|lsn| *lsn >= range.start))
    }

    /// Where in `range` the candidates stored at `time_ms` or later begin. Those that cannot be read may lie on either side.
    fn border(&mut self, range: Range<Lsn>, time_ms: u64, log: &impl Records) -> Result<Lsn, ReadError> {
        let mut range = range;
        // What lies before it was stored earlier, what lies behind it was not.
        while let (Some(first), Some(last)) = (self.first_in(&range)?, self.last_in(&range)?) {
            let half = last.since(first) / FRAME_ALIGN / 2 * FRAME_ALIGN;
            let upper = first.plus(half)..range.end;
            let middle = self.first_in(&upper)?.unwrap_or(last);
            range = match self.first_time(middle..range.end, log)? {
                Some((lsn, found_ms)) if found_ms < time_ms => lsn.plus(FRAME_ALIGN)..range.end,
                _ => range.start..middle,
            };
        }
        Ok(range.end)
    }

    /// The first candidate in `range` that can be read, and its store time.
    fn first_time(&mut self, mut range: Range<Lsn>, log: &impl Records) -> Result<Option<(Lsn, u64)>, ReadError> {
        while let Some(lsn) = self.first_in(&range)? {
            if let Some(found_ms) = readable(log.store_time_ms(lsn))? {
                return Ok(Some((lsn, found_ms)));
            }
            range.start = lsn.plus(FRAME_ALIGN);
        }
        Ok(None)
    }
}

/// Takes a record that cannot be read for one that is not there: it was counted when it was met.
fn readable<T>(outcome: Result<T, ReadError>) -> Result<Option<T>, ReadError> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(ReadError::NotFound(_) | ReadError::Damaged { .. } | ReadError::Io { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Finds what `query` asks for in stretches that lie along the log; only what lies in `visible` is looked at.
pub(super) fn find<R: Records>(
    stretches: &[Stretch],
    hash: u32,
    query: &KeyQuery<'_>,
    visible: Range<Lsn>,
    log: &R,
) -> Result<Vec<R::Message>, ReadError> {
    let rest = match (query.order, query.beyond) {
        (_, None) => visible,
        (KeyOrder::NewestFirst, Some(last)) => visible.start..visible.end.min(last),
        (KeyOrder::OldestFirst, Some(last)) => visible.start.max(Lsn(last.0.saturating_add(1)))..visible.end,
    };
    let mut search = Search { query, log, rest, found: Vec::new(), bytes: 0, is_done: query.count == 0 };
    let mut visit = |stretch: &Stretch| search.walk(stretch, hash);
    match query.order {
        KeyOrder::NewestFirst => stretches.iter().rev().try_for_each(&mut visit)?,
        KeyOrder::OldestFirst => stretches.iter().try_for_each(&mut visit)?,
    }
    Ok(search.found)
}

/// How many of these records, which lie along the log, were stored before `time_ms`. What cannot be read counts as the next one that can.
pub(super) fn border<R: Records>(records: &[(Lsn, u32)], time_ms: u64, log: &R) -> Result<usize, ReadError> {
    let (mut from, mut to) = (0, records.len());
    // What lies before `from` was stored earlier, what lies at `to` and behind it was not.
    while from < to {
        let middle = from + (to - from) / 2;
        let mut time = None;
        let mut at = middle;
        while at < to && time.is_none() {
            time = readable(log.store_time_ms(records[at].0))?;
            at += 1;
        }
        match time {
            Some(found_ms) if found_ms < time_ms => from = at,
            _ => to = middle,
        }
    }
    Ok(from)
}

/// Shows all entries of a run, sorted by hash.
pub(super) fn postings(reader: &StoreReader, run: &Run, mut visit: impl FnMut(Posting)) -> Result<(), ReadError> {
    let (first, end) = merge::bounds(run.number);
    let bounds = (Bound::Included(&first[..]), Bound::Included(&end[..]));
    let mut bad = None;
    reader.range(StoreTable::Keys, bounds, Direction::Ascending, |key, value| {
        match rows::decode_piece(run.start, key, value) {
            Ok(postings) => {
                postings.into_iter().for_each(&mut visit);
                ControlFlow::Continue(())
            }
            Err(row) => {
                bad = Some(row);
                ControlFlow::Break(())
            }
        }
    })?;
    bad.map_or(Ok(()), |row| Err(row.into()))
}

struct Search<'a, R: Records> {
    query: &'a KeyQuery<'a>,
    log: &'a R,
    /// What was not looked at so far: the keys of one message may lie in two chunks.
    rest: Range<Lsn>,
    found: Vec<R::Message>,
    bytes: usize,
    is_done: bool,
}

impl<R: Records> Search<'_, R> {
    fn walk(&mut self, stretch: &Stretch, hash: u32) -> Result<(), ReadError> {
        let ((first_ms, last_ms), (first, last)) = (stretch.times_ms(), stretch.lsns());
        let (from_ms, to_ms) = (self.query.from_ms, self.query.to_ms);
        if self.is_done || last_ms < from_ms || first_ms > to_ms || last < self.rest.start || first >= self.rest.end {
            return Ok(());
        }
        let (mut candidates, mut range) = (stretch.candidates(hash), self.rest.clone());
        if first_ms < from_ms {
            range.start = candidates.border(range.clone(), from_ms, self.log)?;
        }
        if last_ms > to_ms {
            range.end = candidates.border(range.clone(), to_ms + 1, self.log)?;
        }
        while !self.is_done {
            let next = match self.query.order {
                KeyOrder::NewestFirst => candidates.last_in(&range)?,
                KeyOrder::OldestFirst => candidates.first_in(&range)?,
            };
            let Some(lsn) = next else { break };
            match self.query.order {
                KeyOrder::NewestFirst => (range.end, self.rest.end) = (lsn, lsn),
                KeyOrder::OldestFirst => {
                    (range.start, self.rest.start) = (lsn.plus(FRAME_ALIGN), lsn.plus(FRAME_ALIGN))
                }
            }
            self.judge(lsn)?;
        }
        Ok(())
    }

    fn judge(&mut self, lsn: Lsn) -> Result<(), ReadError> {
        let Some((message, bytes)) = readable(self.log.message(lsn, self.query))?.flatten() else { return Ok(()) };
        self.is_done = !self.found.is_empty() && self.bytes + bytes > self.query.bytes_max;
        if !self.is_done {
            self.bytes += bytes;
            self.found.push(message);
            self.is_done = self.found.len() >= self.query.count;
        }
        Ok(())
    }
}

/// The candidates of one hash in a run. It keeps the piece that it read last.
struct Cursor<'a> {
    reader: &'a StoreReader,
    run: &'a Run,
    hash: u32,
    piece: Option<Piece>,
}

struct Piece {
    first: Posting,
    last: Posting,
    /// Those of the hash.
    lsns: Vec<Lsn>,
}

impl Cursor<'_> {
    /// The first at or behind `lsn`.
    fn at_or_behind(&mut self, lsn: Lsn) -> Result<Option<Lsn>, ReadError> {
        let wanted = Posting { hash: self.hash, lsn };
        let covers = |piece: &Piece| piece.first <= wanted && wanted <= piece.last;
        if !self.piece.as_ref().is_some_and(covers) {
            let key = rows::piece_key(self.run.number, wanted);
            self.load(Bound::Included(&key), Direction::Descending)?;
            if !self.piece.as_ref().is_some_and(covers) {
                self.load(Bound::Excluded(&key), Direction::Ascending)?;
            }
        }
        let Some(piece) = &self.piece else { return Ok(None) };
        Ok(piece.lsns.get(piece.lsns.partition_point(|other| *other < lsn)).copied())
    }

    /// The last before `lsn`.
    fn before(&mut self, lsn: Lsn) -> Result<Option<Lsn>, ReadError> {
        let wanted = Posting { hash: self.hash, lsn };
        let covers = |piece: &Piece| piece.first < wanted && wanted <= piece.last;
        if !self.piece.as_ref().is_some_and(covers) {
            let key = rows::piece_key(self.run.number, wanted);
            self.load(Bound::Excluded(&key), Direction::Descending)?;
        }
        let Some(piece) = &self.piece else { return Ok(None) };
        let index = piece.lsns.partition_point(|other| *other < lsn);
        Ok(index.checked_sub(1).map(|index| piece.lsns[index]))
    }

    /// Reads the piece next to `from`, if the run has one there.
    fn load(&mut self, from: Bound<&[u8; rows::PIECE_KEY_BYTES]>, direction: Direction) -> Result<(), ReadError> {
        let (first, end) = merge::bounds(self.run.number);
        let from = from.map(|key| &key[..]);
        let bounds = match direction {
            Direction::Ascending => (from, Bound::Included(&end[..])),
            Direction::Descending => (Bound::Included(&first[..]), from),
        };
        let (run, hash, mut piece) = (self.run, self.hash, Ok(None));
        self.reader.range(StoreTable::Keys, bounds, direction, |key, value| {
            piece = rows::decode_piece(run.start, key, value).map(|postings| {
                let (first, last) = (*postings.first()?, *postings.last()?);
                let lsns = postings.iter().filter(|posting| posting.hash == hash).map(|posting| posting.lsn).collect();
                Some(Piece { first, last, lsns })
            });
            ControlFlow::Break(())
        })?;
        self.piece = piece?;
        Ok(())
    }
}
