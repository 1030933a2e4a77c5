//! The leader's end of a connection: judges who comes, and streams the log to those that fit.
//!
//! ```text
//!            .--> Following --(log bytes, heartbeats)-->
//!   Waiting -+--> Seeding ----(what a replica begins with)--> over
//!   (hello)  '--> over (refused; or told to cut, or to begin anew)
//! ```
//!
//! Invariants:
//! 1. Log bytes follow each other without a gap, from the end that the follower named; what is sent is never sent again on one connection.
//! 2. At most the window is on the way beyond what the follower has received.
//! 3. What is still in memory is sent at once, while the leader's own flush is under way. What must be read from the disk is paced while
//!    others append, at more than they do, so that the follower comes closer; while nobody does, the next reads are under way as the last
//!    one is sent.
//! 4. A connection that another one of the same replica has replaced sends and counts nothing more.

use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::replica::{LogAlong, LogPiece, Seed};
use anchorlog_engine::units::{to_u64, to_usize};
use anchorlog_engine::{Engine, Lsn, ReadError};

use crate::divergence::{Loses, Reason, Verdict, judge};
use crate::leader::Leader;
use crate::link::{End, Link, LinkError, Piece};
use crate::member::ReplicaId;
use crate::message::{
    Ack, Data, Decoder, Heartbeat, Hello, Item, LogState, Message, Purpose, Refusal, SEED_RANGES_MAX, SeedBegin,
    SeedPiece, SeedSegment, TAIL_BYTES_MAX, Welcome, Why,
};

/// How many heartbeats may be missing before a peer counts as gone.
pub(crate) const BEATS_MISSED_MAX: u32 = 4;
/// Over how long the rate of the log's growth is measured.
const RATE_SPAN: Duration = Duration::from_millis(100);
/// The same for the first time: a follower that comes to an idle leader is not to wait for that.
const FIRST_RATE_SPAN: Duration = Duration::from_millis(10);
/// What a pause was longer than it should have been is made up for, so far.
const PACE_CREDIT: Duration = Duration::from_millis(5);
/// A follower's disk reads come this much faster than the log grows.
const CATCH_UP_OVER_GROWTH: u64 = 2;

/// The leader's end of one connection.
pub struct LeaderLink {
    leader: Arc<Leader>,
    decoder: Decoder,
    state: State,
    /// Messages that are to be sent, in order, before anything else.
    waiting: Vec<Piece>,
    end: Option<End>,
    heard: Duration,
    sent: Duration,
    reads_ahead: bool,
}

enum State {
    Waiting,
    Following(Box<Following>),
    Seeding(Box<Sowing>),
    Over,
}

/// One follower's stream.
struct Following {
    replica: ReplicaId,
    session: u64,
    /// The first byte that was not sent yet.
    next: Lsn,
    /// Up to here the follower has it in memory.
    received: Lsn,
    /// The committed LSN that was sent last.
    committed: Lsn,
    pace: Pace,
    /// What is read ahead, while the follower is far behind and nobody appends.
    along: Option<LogAlong>,
}

/// How fast the disk is read for one follower.
#[derive(Default)]
struct Pace {
    /// The log's end when the rate was measured last, and when that was.
    measured: Option<(Lsn, Duration)>,
    /// Bytes a second by which the log grows; not known at first.
    growth: Option<u64>,
    /// Nothing is read before this.
    not_before: Duration,
}

impl Pace {
    fn measure(&mut self, end: Lsn, now: Duration, first_span: Duration) {
        let Some((from, since)) = self.measured else {
            self.measured = Some((end, now));
            return;
        };
        let span = now.saturating_sub(since);
        if span >= if self.growth.is_none() { first_span } else { RATE_SPAN } {
            let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX).max(1);
            self.growth = Some(end.since(from).saturating_mul(1_000_000) / micros);
            self.measured = Some((end, now));
        }
    }

    /// Whether nobody appends, as far as is known.
    fn is_alone(&self) -> bool {
        self.growth == Some(0)
    }

    /// `bytes` were read from the disk: the next ones wait while others append.
    fn spend(&mut self, bytes: u64, floor: u64, now: Duration) {
        if self.is_alone() {
            return;
        }
        let rate = floor.max(self.growth.unwrap_or(0).saturating_mul(CATCH_UP_OVER_GROWTH)).max(1);
        let pause = Duration::from_micros(bytes.saturating_mul(1_000_000) / rate);
        self.not_before = self.not_before.max(now.saturating_sub(PACE_CREDIT)) + pause;
    }
}

/// What is left to be sent of a seed.
struct Sowing {
    seed: Seed,
    /// Segment, range, and first byte of it that was not sent yet.
    at: (usize, usize, Lsn),
}

impl LeaderLink {
    pub(crate) fn new(leader: Arc<Leader>, now: Duration) -> LeaderLink {
        LeaderLink {
            leader,
            decoder: Decoder::default(),
            state: State::Waiting,
            waiting: Vec::new(),
            end: None,
            heard: now,
            sent: now,
            reads_ahead: false,
        }
    }

    /// Lets the disk be asked for what comes next while the last piece is sent, for a follower that is far behind an idle leader. One
    /// thread alone sends then: see [`LogAlong`].
    #[must_use]
    pub fn reading_ahead(mut self) -> LeaderLink {
        self.reads_ahead = true;
        self
    }

    /// Who follows through this connection, once it does.
    #[must_use]
    pub fn replica(&self) -> Option<&ReplicaId> {
        if let State::Following(following) = &self.state { Some(&following.replica) } else { None }
    }

    fn engine(&self) -> &Engine {
        self.leader.engine()
    }

    fn say(&mut self, message: &Message) {
        self.waiting.push(Piece::from(message.encode()));
    }

    fn finish(&mut self, end: End) {
        self.end = Some(end);
        self.state = State::Over;
    }

    fn refuse(&mut self, why: Why, text: String) {
        let term = self.leader.superseded().unwrap_or(self.leader.epoch().term);
        tracing::info!(?why, %text, "a peer is refused");
        let refusal = Refusal { why, term, text };
        self.say(&Message::Refusal(refusal.clone()));
        self.finish(End::Refused(refusal));
    }

    fn take(&mut self, message: Message, now: Duration) -> Result<(), LinkError> {
        match (&mut self.state, message) {
            (State::Waiting, Message::Hello(hello)) => self.greet(hello, now),
            (State::Following(following), Message::Ack(ack)) => {
                following.took(ack)?;
                if self.leader.ack(&following.replica, following.session, &ack, now) {
                    Ok(())
                } else {
                    Err(LinkError::Replaced)
                }
            }
            // What is still on the way when a link is over.
            (State::Over, _) => Ok(()),
            (state, message) => Err(LinkError::Unexpected {
                what: message.name(),
                why: match state {
                    State::Waiting => "a connection begins with a hello",
                    State::Following(_) => "a follower sends acks",
                    State::Seeding(_) | State::Over => "nothing",
                }
                .to_owned(),
            }),
        }
    }

    fn greet(&mut self, hello: Hello, now: Duration) -> Result<(), LinkError> {
        let Hello { replica, purpose, promised_term, log, free_bytes } = hello;
        if promised_term > self.leader.epoch().term {
            self.leader.supersede(promised_term, now);
        }
        if let Some(term) = self.leader.superseded() {
            self.refuse(Why::HigherTerm, format!("term {term} is known of"));
            return Ok(());
        }
        if !self.leader.may_follow(&replica) {
            self.refuse(Why::Unknown, format!("{replica} is no follower of this log"));
            return Ok(());
        }
        if self.leader.is_stopping() {
            self.refuse(Why::Stopping, "the leader hands over".to_owned());
            return Ok(());
        }
        match (purpose, log) {
            (Purpose::Seed, _) => self.sow(&replica),
            (Purpose::Stream, Some(log)) => {
                let own = self.own_for(&log)?;
                let verdict = judge(&own, &log);
                self.answer(replica, verdict, own, &log, free_bytes, now);
                Ok(())
            }
            (Purpose::Stream, None) => {
                Err(LinkError::Unexpected { what: "hello", why: "a follower has a log".to_owned() })
            }
        }
    }

    /// This log as a follower must know it: one that is quicker to release what the log says has not released too much.
    fn own_for(&self, theirs: &LogState) -> Result<LogState, ReadError> {
        let mut own = self.leader.log_state();
        if theirs.start > own.start && self.engine().start_said()? >= theirs.start {
            own.start = theirs.start;
        }
        Ok(own)
    }

    fn answer(
        &mut self,
        replica: ReplicaId,
        verdict: Verdict,
        ours: LogState,
        log: &LogState,
        free_bytes: u64,
        now: Duration,
    ) {
        let own = self.leader.epoch();
        // Of a later run in its own term it knows nothing: somebody wrote to that log by hand.
        let is_of_own_term = log.history.last().is_some_and(|last| last.epoch.term == own.term && last.epoch <= own);
        let is_this_log = log.identity == self.engine().identity();
        if is_this_log && is_of_own_term && log.committed > self.engine().watermarks().assigned {
            // Whoever leads in a term has acknowledged what was committed in it.
            tracing::error!(%replica, committed = %log.committed, "this leader has lost what it acknowledged: it leads no more");
            self.leader.supersede(own.term, now);
            self.refuse(
                Why::Diverged,
                format!("{replica} has what this leader acknowledged and lost: promote {replica}"),
            );
            return;
        }
        match verdict {
            Verdict::Refuse(Reason::OtherLog) => self.refuse(Why::OtherLog, "the log is another one".to_owned()),
            Verdict::Refuse(Reason::Newer { epoch }) => {
                let text = format!("{replica} has epoch {epoch}, this leader is {own}");
                if epoch.term > own.term {
                    self.leader.supersede(epoch.term, now);
                    self.refuse(Why::HigherTerm, text);
                } else {
                    // Nobody else leads in this term: that log was written to by hand.
                    self.refuse(Why::Diverged, text);
                }
            }
            Verdict::Refuse(Reason::Contradiction { epoch }) => {
                self.refuse(
                    Why::Diverged,
                    format!("epoch {epoch} begins elsewhere here; one of the logs is not what it was"),
                );
            }
            Verdict::Bootstrap { loses: Loses::Acknowledged, why } if self.leader.keeps_all_that_it_acknowledges() => {
                let committed = log.committed;
                tracing::error!(%replica, why, %committed, "what a follower was told to be acknowledged is not in this log");
                let text = format!(
                    "{why}: {replica} has acknowledged messages, up to LSN {committed}, that this leader has not; \
                     promote {replica}, or move the log in its directory away"
                );
                self.refuse(Why::Diverged, text);
            }
            Verdict::Cut { .. } | Verdict::Bootstrap { .. } => {
                tracing::info!(%replica, ?verdict, "a follower's log does not go on here");
                self.leader.part(&replica, now);
                self.welcome(ours);
                self.finish(End::Done);
            }
            Verdict::Continue { from } => {
                let session = self.leader.join(&replica, log.durable, free_bytes, now);
                tracing::info!(%replica, %from, "follows");
                self.welcome(ours);
                let (committed, pace, along) = (Lsn::ZERO, Pace::default(), None);
                let following = Following { replica, session, next: from, received: from, committed, pace, along };
                self.state = State::Following(Box::new(following));
            }
        }
    }

    fn welcome(&mut self, log: LogState) {
        let heartbeat_ms = u32::try_from(self.leader.config().heartbeat.as_millis()).unwrap_or(u32::MAX);
        let leader = self.leader.config().id.clone();
        self.say(&Message::Welcome(Welcome { leader, epoch: self.leader.epoch(), log, heartbeat_ms }));
    }

    fn sow(&mut self, replica: &ReplicaId) -> Result<(), LinkError> {
        let seed = self.leader.keep_for(replica)?;
        let parts = seed.sparse.iter().flat_map(|segment| {
            let parts = segment.ranges.chunks(SEED_RANGES_MAX);
            parts.map(|ranges| SeedSegment { base: segment.base, ranges: ranges.to_vec() })
        });
        let messages: Vec<Message> = parts.map(Message::SeedSegment).collect();
        let count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        let (identity, start, end, history) = (seed.identity, seed.start, seed.end, seed.history.clone());
        self.say(&Message::SeedBegin(SeedBegin { identity, start, end, history, segments: count }));
        messages.iter().for_each(|message| self.say(message));
        tracing::info!(%replica, %start, segments = count, "a replica begins anew");
        let first = first_of(&seed, 0, 0);
        self.state = State::Seeding(Box::new(Sowing { seed, at: (0, 0, first) }));
        Ok(())
    }

    /// Log bytes and signs of life for a follower.
    fn stream(&mut self, now: Duration, bytes_max: usize, out: &mut Vec<Piece>) -> Result<(), LinkError> {
        let State::Following(following) = &mut self.state else { return Ok(()) };
        if !self.leader.is_current(&following.replica, following.session) {
            return Err(LinkError::Replaced);
        }
        let engine = self.leader.engine();
        let (epoch, config) = (self.leader.epoch(), self.leader.config());
        let beat = beat_of(now);
        let marks = engine.watermarks();
        let first_span = if self.reads_ahead { FIRST_RATE_SPAN } else { RATE_SPAN };
        following.pace.measure(marks.assigned, now, first_span);
        let mut sent = 0;
        while sent < bytes_max && following.pace.not_before <= now {
            let on_the_way = following.next.since(following.received);
            let room = to_usize(self.leader.window_bytes().saturating_sub(on_the_way));
            let most = room.min(bytes_max - sent).min(TAIL_BYTES_MAX);
            if most == 0 {
                break;
            }
            let pieces = following.bytes(engine, most, self.reads_ahead)?;
            let len: usize = pieces.iter().map(LogPiece::len).sum();
            if len == 0 {
                break;
            }
            if pieces.iter().any(LogPiece::is_read) {
                following.pace.spend(to_u64(len), config.catch_up_bytes, now);
            }
            let committed = engine.watermarks().acked;
            let data = Data { epoch, at: following.next, committed, beat, len: u32::try_from(len).unwrap_or(u32::MAX) };
            out.push(Piece::from(Message::Data(data).encode()));
            out.extend(pieces.into_iter().map(Piece::from));
            following.next = following.next.plus(to_u64(len));
            following.committed = committed;
            sent += len;
            self.sent = now;
        }
        let news = marks.acked > following.committed;
        if sent == 0 && (news || now >= self.sent + config.heartbeat) {
            following.committed = marks.acked;
            let beat = Heartbeat { epoch, committed: marks.acked, end: marks.assigned, beat };
            out.push(Piece::from(Message::Heartbeat(beat).encode()));
            self.sent = now;
        }
        Ok(())
    }

    /// The bytes of a seed.
    fn pour(&mut self, bytes_max: usize, out: &mut Vec<Piece>) -> Result<(), LinkError> {
        let State::Seeding(sowing) = &mut self.state else { return Ok(()) };
        let mut sent = 0;
        while sent < bytes_max {
            let (segment, range, at) = sowing.at;
            let Some(sparse) = sowing.seed.sparse.get(segment) else {
                out.push(Piece::from(Message::SeedEnd.encode()));
                self.finish(End::Done);
                return Ok(());
            };
            let Some(whole) = sparse.ranges.get(range) else {
                sowing.at = (segment + 1, 0, first_of(&sowing.seed, segment + 1, 0));
                continue;
            };
            if at >= whole.end {
                sowing.at = (segment, range + 1, first_of(&sowing.seed, segment, range + 1));
                continue;
            }
            let most = to_usize(whole.end.since(at)).min(TAIL_BYTES_MAX).min(bytes_max);
            let pieces = self.leader.engine().sparse_bytes(at, most)?;
            let mut bytes = Vec::with_capacity(pieces.iter().map(LogPiece::len).sum());
            pieces.iter().for_each(|piece| bytes.extend_from_slice(piece.as_ref()));
            if bytes.is_empty() {
                return Err(ReadError::NotFound(at).into());
            }
            sent += bytes.len();
            sowing.at.2 = at.plus(to_u64(bytes.len()));
            out.push(Piece::from(Message::SeedPiece(SeedPiece { base: sparse.base, at, bytes }).encode()));
        }
        Ok(())
    }
}

/// A moment of the leader, as its beats name it: never 0.
pub(crate) fn beat_of(now: Duration) -> u64 {
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX).saturating_add(1)
}

/// First byte of a range of a seed, where there is one.
fn first_of(seed: &Seed, segment: usize, range: usize) -> Lsn {
    let found = seed.sparse.get(segment).and_then(|sparse| sparse.ranges.get(range));
    found.map_or(Lsn::ZERO, |range| range.start)
}

impl Following {
    /// The next bytes of the log, at most `most` of them.
    fn bytes(&mut self, engine: &Engine, most: usize, reads_ahead: bool) -> Result<Vec<LogPiece>, ReadError> {
        let reads_ahead = reads_ahead && self.pace.is_alone();
        if !reads_ahead {
            self.along = None;
        } else if let Some(along) = &mut self.along {
            match along.next(most)? {
                Some(piece) => return Ok(vec![piece]),
                None => self.along = None,
            }
        }
        let pieces = engine.log_bytes(self.next, most)?;
        if reads_ahead && pieces.iter().any(LogPiece::is_read) {
            let end = self.next.plus(to_u64(pieces.iter().map(LogPiece::len).sum()));
            // Without it one read follows the other, which is slower and nothing else.
            self.along = engine.read_along(end).map_err(|error| tracing::warn!(%error, "nothing is read ahead")).ok();
        }
        Ok(pieces)
    }

    fn took(&mut self, ack: Ack) -> Result<(), LinkError> {
        if ack.received > self.next {
            let why = format!("received up to {}, sent up to {}", ack.received, self.next);
            return Err(LinkError::Unexpected { what: "ack", why });
        }
        self.received = self.received.max(ack.received);
        Ok(())
    }
}

impl Link for LeaderLink {
    fn receive(&mut self, bytes: &[u8], now: Duration) -> Result<(), LinkError> {
        let mut rest = bytes;
        while let Some(item) = self.decoder.next(&mut rest)? {
            self.heard = now;
            match item {
                Item::Message(message) => self.take(message, now)?,
                Item::Log(_) => {}
            }
        }
        Ok(())
    }

    fn send(&mut self, now: Duration, bytes_max: usize) -> Result<Vec<Piece>, LinkError> {
        let silence = now.saturating_sub(self.heard);
        if self.end.is_none() && silence > self.leader.config().heartbeat * BEATS_MISSED_MAX {
            // While a seed is made nothing is heard, however long that takes.
            if !matches!(self.state, State::Seeding(_)) {
                return Err(LinkError::Silent(silence));
            }
        }
        let mut out = std::mem::take(&mut self.waiting);
        if !out.is_empty() {
            self.sent = now;
        }
        self.stream(now, bytes_max, &mut out)?;
        self.pour(bytes_max, &mut out)?;
        Ok(out)
    }

    fn next_due(&self) -> Duration {
        let config = self.leader.config();
        let gone = self.heard + config.heartbeat * BEATS_MISSED_MAX;
        match &self.state {
            State::Following(following) => {
                let beat = self.sent + config.heartbeat;
                let paced = following.pace.not_before;
                let behind = following.next < self.engine().watermarks().assigned;
                let has_room = following.next.since(following.received) < self.leader.window_bytes();
                // What waits for the window comes with an ack.
                let due = if behind && has_room { beat.min(paced) } else { beat };
                due.min(gone)
            }
            State::Waiting | State::Seeding(_) | State::Over => gone,
        }
    }

    fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    fn stop_sending(&mut self) {
        if let State::Following(following) = &mut self.state {
            following.along = None;
        }
    }
}

impl Drop for LeaderLink {
    fn drop(&mut self) {
        if let State::Following(following) = &self.state {
            // Nobody tells the time here: the next tick decides.
            self.leader.leave(&following.replica, following.session);
        }
    }
}
