//! The end of a connection by which a directory without a log becomes the beginning of a replica.
//!
//! Invariants:
//! 1. What lies in the directory is given up only when it was said so, and not before the leader has begun to send a seed; it is erased
//!    only when it was said that nothing of it is missing elsewhere.
//! 2. A directory that is half seeded does not open, and is seeded from the beginning by the next connection.
//! 3. What survives below the log's start is written piece by piece; no more than one piece is held.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::io::IoBackend;
use anchorlog_engine::replica::{self, Seed, SeedError, Seeding, SparseSegment};
use anchorlog_engine::units::to_u64;
use anchorlog_engine::{EngineOptions, Lsn};

use crate::link::{End, Link, LinkError, Piece};
use crate::member::ReplicaId;
use crate::message::{Decoder, Hello, Item, Message, Purpose, SeedBegin, SeedPiece, SeedSegment};

/// The longest that the leader may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What becomes of a log that lies where a seed goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaces {
    /// It stays, and nothing is seeded.
    Nothing,
    /// It is erased: others have all of it.
    Erased,
    /// It is kept, in a directory within its own.
    Kept {
        /// Where it ends.
        end: Lsn,
    },
}

/// Where a seed goes.
#[derive(Clone)]
pub struct SeedConfig {
    /// Its own name.
    pub id: ReplicaId,
    /// The highest term that it has promised.
    pub promised_term: u32,
    /// The disk.
    pub backend: Arc<dyn IoBackend>,
    /// The directory.
    pub dir: PathBuf,
    /// As the log will be opened; its geometry comes from the leader.
    pub options: EngineOptions,
    /// What becomes of a log that lies there.
    pub replaces: Replaces,
}

/// The end of a connection that was opened to a leader to get a seed. [`End::Done`]: the directory may be opened as a replica.
pub struct SeedLink {
    config: SeedConfig,
    decoder: Decoder,
    state: State,
    end: Option<End>,
    heard: Duration,
}

enum State {
    Begin,
    Asked,
    /// The list of what survives is coming.
    Listing {
        seed: Seed,
        left: u32,
    },
    /// Its bytes are.
    Writing {
        seeding: Box<Seeding>,
        seed: Seed,
        /// Segment and range that are being filled, and up to where.
        at: (usize, usize, Lsn),
    },
    Over,
}

impl SeedLink {
    /// A connection that was just opened.
    #[must_use]
    pub fn new(config: SeedConfig, now: Duration) -> SeedLink {
        SeedLink { config, decoder: Decoder::default(), state: State::Begin, end: None, heard: now }
    }

    fn take(&mut self, message: Message) -> Result<(), LinkError> {
        match (std::mem::replace(&mut self.state, State::Over), message) {
            (State::Asked, Message::SeedBegin(begin)) => {
                let SeedBegin { identity, start, end, history, segments } = begin;
                let seed = Seed { identity, start, end, history, sparse: Vec::new() };
                self.listed(seed, segments)
            }
            (State::Asked, Message::Refusal(refusal)) => {
                self.end = Some(End::Refused(refusal));
                Ok(())
            }
            (State::Listing { mut seed, left }, Message::SeedSegment(segment)) => {
                add(&mut seed.sparse, segment)?;
                self.listed(seed, left - 1)
            }
            (State::Writing { seeding, seed, at }, Message::SeedPiece(piece)) => self.write(seeding, seed, at, &piece),
            (State::Writing { seeding, seed, at }, Message::SeedEnd) => {
                if next_place(&seed, at).is_some() {
                    return Err(unexpected("seed end", "bytes are missing"));
                }
                seeding.finish()?;
                tracing::info!(replica = %self.config.id, start = %seed.start, "seeded");
                self.end = Some(End::Done);
                Ok(())
            }
            (State::Over, _) if self.end.is_some() => Ok(()),
            (_, message) => Err(unexpected(message.name(), "a seed, in its order")),
        }
    }

    /// The seed is known as far as `left` more messages.
    fn listed(&mut self, seed: Seed, left: u32) -> Result<(), LinkError> {
        if left > 0 {
            self.state = State::Listing { seed, left };
            return Ok(());
        }
        let SeedConfig { backend, dir, options, replaces, .. } = &self.config;
        if *replaces != Replaces::Nothing {
            let created = backend.create_dir_all(dir);
            created.map_err(|source| SeedError::Io { what: "creating", path: dir.clone(), source })?;
        }
        match replaces {
            Replaces::Nothing => {}
            Replaces::Erased => replica::wipe(&**backend, dir)?,
            Replaces::Kept { end } => drop(replica::give_up(&**backend, dir, *end)?),
        }
        let seeding = Box::new(Seeding::begin(Arc::clone(backend), dir, &seed, options)?);
        let at = (0, 0, Lsn::ZERO);
        self.state = State::Writing { seeding, seed, at };
        Ok(())
    }

    fn write(
        &mut self,
        mut seeding: Box<Seeding>,
        seed: Seed,
        at: (usize, usize, Lsn),
        piece: &SeedPiece,
    ) -> Result<(), LinkError> {
        let Some((segment, range, from)) = next_place(&seed, at) else {
            return Err(unexpected("seed piece", "nothing more survives"));
        };
        let end = piece.at.plus(to_u64(piece.bytes.len()));
        let sparse = &seed.sparse[segment];
        if piece.base != sparse.base || piece.at != from || end > sparse.ranges[range].end {
            return Err(unexpected("seed piece", "the bytes of the next range"));
        }
        seeding.write(piece.at, &piece.bytes)?;
        self.state = State::Writing { seeding, seed, at: (segment, range, end) };
        Ok(())
    }
}

/// Where the next bytes belong, behind those up to `at`; nowhere, when all are there.
fn next_place(seed: &Seed, (segment, range, at): (usize, usize, Lsn)) -> Option<(usize, usize, Lsn)> {
    let (mut segment, mut range) = (segment, range);
    loop {
        let sparse = seed.sparse.get(segment)?;
        match sparse.ranges.get(range) {
            Some(whole) if at < whole.end => return Some((segment, range, at.max(whole.start))),
            Some(_) => range += 1,
            None => (segment, range) = (segment + 1, 0),
        }
    }
}

fn add(sparse: &mut Vec<SparseSegment>, new: SeedSegment) -> Result<(), LinkError> {
    let SeedSegment { base, ranges } = new;
    match sparse.last_mut() {
        Some(last) if last.base == base => {
            let follows =
                last.ranges.last().is_none_or(|range| ranges.first().is_none_or(|next| range.end <= next.start));
            if !follows {
                return Err(unexpected("seed segment", "ranges in their order"));
            }
            last.ranges.extend(ranges);
        }
        Some(last) if last.base > base => return Err(unexpected("seed segment", "segments in their order")),
        Some(_) | None => sparse.push(SparseSegment { base, ranges }),
    }
    Ok(())
}

fn unexpected(what: &'static str, why: &str) -> LinkError {
    LinkError::Unexpected { what, why: why.to_owned() }
}

impl Link for SeedLink {
    fn receive(&mut self, bytes: &[u8], now: Duration) -> Result<(), LinkError> {
        let mut rest = bytes;
        while let Some(item) = self.decoder.next(&mut rest)? {
            self.heard = now;
            if let Item::Message(message) = item {
                self.take(message)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, now: Duration, _bytes_max: usize) -> Result<Vec<Piece>, LinkError> {
        if let State::Begin = self.state {
            self.state = State::Asked;
            self.heard = now;
            let (replica, promised_term) = (self.config.id.clone(), self.config.promised_term);
            let hello = Hello { replica, purpose: Purpose::Seed, promised_term, log: None, free_bytes: 0 };
            return Ok(vec![Piece::from(Message::Hello(hello).encode())]);
        }
        let silence = now.saturating_sub(self.heard);
        if self.end.is_none() && silence > SILENCE_MAX {
            return Err(LinkError::Silent(silence));
        }
        Ok(Vec::new())
    }

    fn next_due(&self) -> Duration {
        if let State::Begin = self.state { self.heard } else { self.heard + SILENCE_MAX }
    }

    fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }
}
