//! The follower's end of a connection: asks to follow, takes over what the leader sends, and says what is durable here.
//!
//! Invariants:
//! 1. What is taken over is from the leader of the welcome, in its epoch, and follows the log's end without a gap; every frame was checked
//!    by the engine.
//! 2. What an ack calls durable is on this disk. While this log was seeded and has not come to where its leader's ended then, an ack names
//!    no epoch, and counts for nobody: a promotion would not count this node either.
//! 3. Nothing is shown to readers beyond what the leader has committed *and* what this connection has brought here: word of a commit says
//!    nothing about bytes that another leader may write at the same place.
//! 4. A leader of a lower term than this node has promised, or of an older epoch than its log, is refused.
//! 5. What waits for room is bounded by the leader's window, which moves with what was received.

use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::units::to_u64;
use anchorlog_engine::{Engine, Epoch, Lsn, ReceiveError};

use crate::divergence::{Loses, Reason, Verdict, judge};
use crate::fault::{Broken, Fault};
use crate::leader_link::BEATS_MISSED_MAX;
use crate::link::{End, Link, LinkError, Piece};
use crate::member::ReplicaId;
use crate::message::{Ack, Data, Decoder, Heartbeat, Hello, Item, LogState, Message, Purpose, Refusal, Welcome, Why};

/// How long a follower waits for its welcome.
const WELCOME_WITHIN: Duration = Duration::from_secs(2);
/// How soon what found no room in the log buffer is tried again.
const ROOM_DELAY: Duration = Duration::from_millis(1);
/// How soon what found no room on the disk is.
const SPACE_DELAY: Duration = Duration::from_millis(100);
/// How old the news of free space may be that an ack carries.
const FREE_BYTES_AGE_MAX: Duration = Duration::from_millis(200);
/// What was received is acknowledged at the latest after so many bytes, though none of it is durable yet: it moves the leader's window.
const RECEIVED_STEP: u64 = 256 << 10;
/// So many bytes are added at first to the beginning of a frame that came before; then as many again as there are.
const FRAME_STEP: usize = 4 << 10;

/// What a follower is told.
#[derive(Clone, Debug)]
pub struct FollowerConfig {
    /// Its own name.
    pub id: ReplicaId,
    /// The highest term that it has promised, durably: a leader of a lower one is refused.
    pub promised_term: u32,
    /// A promise to break on purpose (feature `sim`).
    #[cfg(feature = "sim")]
    pub fault: Option<Fault>,
}

impl FollowerConfig {
    /// The defaults.
    #[must_use]
    pub fn new(id: ReplicaId, promised_term: u32) -> FollowerConfig {
        FollowerConfig {
            id,
            promised_term,
            #[cfg(feature = "sim")]
            fault: None,
        }
    }

    #[cfg(feature = "sim")]
    fn broken(&self) -> Broken {
        Broken::only(self.fault)
    }

    #[cfg(not(feature = "sim"))]
    #[expect(clippy::unused_self, reason = "the feature `sim` looks at it")]
    fn broken(&self) -> Broken {
        Broken::default()
    }
}

/// The follower's end of one connection to a leader.
pub struct FollowerLink {
    engine: Arc<Engine>,
    config: FollowerConfig,
    broken: Broken,
    decoder: Decoder,
    state: State,
    end: Option<End>,
    heard: Duration,
    sent: Duration,
    /// Bytes free on the disk, and when that was asked.
    free_bytes: Option<(u64, Duration)>,
}

enum State {
    /// The hello is still to be sent.
    Begin,
    /// It was sent: this is what it said of the log.
    Asked(Box<LogState>),
    Following(Following),
    Over,
}

struct Following {
    epoch: Epoch,
    /// The longest that the leader is silent.
    heartbeat: Duration,
    /// Where the log bytes end that have arrived, taken over or not.
    arrived: Lsn,
    /// Where those end that the leader has announced.
    announced: Lsn,
    /// Bytes that arrived and are not taken over yet: they end at `arrived`.
    pending: Vec<u8>,
    /// They found no room, and are not tried again before this.
    full_until: Option<Duration>,
    committed: Lsn,
    beat: u64,
    /// The last ack.
    said: Option<Ack>,
    /// A heartbeat is to be answered.
    owes: bool,
}

impl FollowerLink {
    /// The end of a connection that was just opened to a leader; `engine` was opened as a replica.
    #[must_use]
    pub fn new(engine: Arc<Engine>, config: FollowerConfig, now: Duration) -> FollowerLink {
        let broken = config.broken();
        let (decoder, state) = (Decoder::default(), State::Begin);
        FollowerLink { engine, config, broken, decoder, state, end: None, heard: now, sent: now, free_bytes: None }
    }

    /// The epoch of the leader that it follows, once it does.
    #[must_use]
    pub fn following(&self) -> Option<Epoch> {
        if let State::Following(following) = &self.state { Some(following.epoch) } else { None }
    }

    fn finish(&mut self, end: End) {
        tracing::info!(replica = %self.config.id, ?end, "a follower's connection is over");
        self.end = Some(end);
        self.state = State::Over;
    }

    fn take(&mut self, message: Message, now: Duration) -> Result<(), LinkError> {
        match (&mut self.state, message) {
            (State::Asked(log), Message::Welcome(welcome)) => {
                let log = std::mem::replace(&mut **log, LogState::of(&self.engine));
                self.welcomed(&welcome, &log)
            }
            (State::Asked(_) | State::Following(_), Message::Refusal(refusal)) => {
                self.finish(End::Refused(refusal));
                Ok(())
            }
            (State::Following(following), Message::Data(data)) => following.announce(&data),
            (State::Following(following), Message::Heartbeat(beat)) => {
                following.beat(&beat)?;
                self.show();
                Ok(())
            }
            (State::Over, _) => Ok(()),
            (state, message) => {
                let why = match state {
                    State::Begin => "nothing was asked yet",
                    State::Asked(_) => "a welcome or a refusal",
                    State::Following(_) | State::Over => "data and heartbeats",
                };
                let _unused = now;
                Err(LinkError::Unexpected { what: message.name(), why: why.to_owned() })
            }
        }
    }

    fn welcomed(&mut self, welcome: &Welcome, log: &LogState) -> Result<(), LinkError> {
        let Welcome { leader, epoch, log: theirs, heartbeat_ms } = welcome;
        if epoch.term < self.config.promised_term {
            self.finish(End::Stale { term: epoch.term });
            return Ok(());
        }
        if theirs.history.last().map(|last| last.epoch) != Some(*epoch) {
            let why = format!("{leader} leads in {epoch}, and its log does not say so");
            return Err(LinkError::Unexpected { what: "welcome", why });
        }
        let verdict = match judge(theirs, log) {
            Verdict::Cut { .. } | Verdict::Refuse(Reason::Newer { .. }) if self.broken.is(Fault::HistoryUnchecked) => {
                Verdict::Continue { from: log.end }
            }
            verdict => verdict,
        };
        let refused = |why, text: String| End::Refused(Refusal { why, term: epoch.term, text });
        match verdict {
            Verdict::Continue { from } => {
                tracing::info!(replica = %self.config.id, %leader, %epoch, %from, "follows");
                self.engine.set_leader_end(theirs.end);
                self.state = State::Following(Following {
                    epoch: *epoch,
                    heartbeat: Duration::from_millis(u64::from(*heartbeat_ms)),
                    arrived: from,
                    announced: from,
                    pending: Vec::new(),
                    full_until: None,
                    committed: Lsn::ZERO,
                    beat: 0,
                    said: None,
                    owes: true,
                });
            }
            Verdict::Cut { at } => self.finish(End::Cut { at }),
            Verdict::Bootstrap { why, loses } => {
                self.finish(End::Bootstrap { why: why.to_owned(), keeps: loses != Loses::Nothing });
            }
            Verdict::Refuse(Reason::Newer { .. }) => self.finish(End::Stale { term: epoch.term }),
            Verdict::Refuse(Reason::OtherLog) => {
                self.finish(refused(Why::OtherLog, format!("the log of {leader} is another one")));
            }
            Verdict::Refuse(Reason::Contradiction { epoch }) => {
                self.finish(refused(Why::Diverged, format!("epoch {epoch} begins elsewhere in the log of {leader}")));
            }
        }
        Ok(())
    }

    /// Takes over what has arrived, as far as there is room.
    fn take_over(&mut self, new: &[u8], now: Duration) -> Result<(), LinkError> {
        let State::Following(following) = &mut self.state else { return Ok(()) };
        following.arrived = following.arrived.plus(to_u64(new.len()));
        if following.full_until.is_some_and(|until| now < until) {
            following.pending.extend_from_slice(new);
            return Ok(());
        }
        // What arrives in one piece, frames and all, is not copied here; of a frame that began in what came before, that frame alone is.
        let mut new = new;
        loop {
            let old = following.pending.len();
            let (some, rest) = if old == 0 { (new, &[][..]) } else { new.split_at(new.len().min(old.max(FRAME_STEP))) };
            if old > 0 {
                following.pending.extend_from_slice(some);
            }
            let bytes: &[u8] = if old == 0 { some } else { &following.pending };
            if bytes.is_empty() {
                break;
            }
            let at = Lsn(following.arrived.0 - to_u64(rest.len() + bytes.len()));
            let mut again_at = None;
            let consumed = match self.engine.receive(at, bytes) {
                Ok(received) => received.consumed,
                Err(ReceiveError::Full { .. }) => {
                    again_at = Some(now + ROOM_DELAY);
                    0
                }
                // The leader learns from the acks how little is free, and admits nothing; the connection waits.
                Err(ReceiveError::OutOfSpace { .. }) => {
                    again_at = Some(now + SPACE_DELAY);
                    0
                }
                Err(error) => return Err(error.into()),
            };
            following.full_until = again_at;
            if old == 0 {
                new = &some[consumed..];
            } else if consumed >= old {
                following.pending.clear();
                new = &new[consumed - old..];
            } else {
                following.pending.drain(..consumed);
                new = rest;
            }
            // The beginning of a frame, or what found no room.
            if consumed == 0 && (old == 0 || new.is_empty() || again_at.is_some()) {
                following.pending.extend_from_slice(new);
                break;
            }
        }
        self.show();
        Ok(())
    }

    /// Lets readers see what is committed.
    fn show(&self) {
        if let State::Following(following) = &self.state {
            self.engine.set_replicated(following.committed.min(self.engine.watermarks().assigned));
        }
    }

    fn free_bytes(&mut self, now: Duration) -> u64 {
        match self.free_bytes {
            Some((bytes, asked)) if now.saturating_sub(asked) < FREE_BYTES_AGE_MAX => bytes,
            Some(_) | None => {
                let bytes = self.engine.free_bytes().unwrap_or(0);
                self.free_bytes = Some((bytes, now));
                bytes
            }
        }
    }

    fn ack(&mut self, now: Duration) -> Option<Ack> {
        let free_bytes = self.free_bytes(now);
        let State::Following(following) = &mut self.state else { return None };
        let marks = self.engine.watermarks();
        let received = marks.assigned;
        let durable = if self.broken.is(Fault::AckOnReceive) { received } else { marks.durable };
        let news =
            following.said.is_none_or(|said| durable > said.durable || received >= said.received.plus(RECEIVED_STEP));
        if !news && !following.owes && now < self.sent + following.heartbeat {
            return None;
        }
        // Of what it acknowledged before it was wiped it may lack something: until it has that again it counts for nobody.
        let epoch = if self.engine.is_whole() { following.epoch } else { Epoch::default() };
        let ack = Ack { epoch, received, durable, free_bytes, beat: following.beat };
        following.said = Some(ack);
        following.owes = false;
        self.sent = now;
        Some(ack)
    }

    /// How long the leader may be silent.
    fn patience(&self) -> Duration {
        match &self.state {
            State::Following(following) => (following.heartbeat * BEATS_MISSED_MAX).max(Duration::from_millis(1)),
            State::Begin | State::Asked(_) | State::Over => WELCOME_WITHIN,
        }
    }
}

impl Following {
    fn check_epoch(&self, epoch: Epoch, what: &'static str) -> Result<(), LinkError> {
        if epoch == self.epoch {
            return Ok(());
        }
        let why = format!("epoch {epoch} on a connection of epoch {}", self.epoch);
        Err(LinkError::Unexpected { what, why })
    }

    fn announce(&mut self, data: &Data) -> Result<(), LinkError> {
        self.check_epoch(data.epoch, "data")?;
        if data.at != self.announced {
            let why = format!("bytes of LSN {}, expected were those of {}", data.at, self.announced);
            return Err(LinkError::Unexpected { what: "data", why });
        }
        self.announced = data.at.plus(u64::from(data.len));
        self.committed = self.committed.max(data.committed);
        self.beat = self.beat.max(data.beat);
        Ok(())
    }

    fn beat(&mut self, beat: &Heartbeat) -> Result<(), LinkError> {
        self.check_epoch(beat.epoch, "heartbeat")?;
        self.committed = self.committed.max(beat.committed);
        self.owes = self.owes || beat.beat > self.beat;
        self.beat = self.beat.max(beat.beat);
        Ok(())
    }
}

impl Link for FollowerLink {
    fn receive(&mut self, bytes: &[u8], now: Duration) -> Result<(), LinkError> {
        let mut rest = bytes;
        while let Some(item) = self.decoder.next(&mut rest)? {
            self.heard = now;
            match item {
                Item::Message(message) => self.take(message, now)?,
                Item::Log(log) => self.take_over(log, now)?,
            }
        }
        Ok(())
    }

    fn send(&mut self, now: Duration, _bytes_max: usize) -> Result<Vec<Piece>, LinkError> {
        let silence = now.saturating_sub(self.heard);
        if self.end.is_none() && silence > self.patience() {
            return Err(LinkError::Silent(silence));
        }
        let mut out = Vec::new();
        if let State::Begin = self.state {
            let log = LogState::of(&self.engine);
            let hello = Hello {
                replica: self.config.id.clone(),
                purpose: Purpose::Stream,
                promised_term: self.config.promised_term,
                log: Some(log.clone()),
                free_bytes: self.free_bytes(now),
            };
            out.push(Piece::from(Message::Hello(hello).encode()));
            self.state = State::Asked(Box::new(log));
            (self.heard, self.sent) = (now, now);
        }
        self.take_over(&[], now)?;
        if let Some(ack) = self.ack(now) {
            out.push(Piece::from(Message::Ack(ack).encode()));
        }
        Ok(out)
    }

    fn next_due(&self) -> Duration {
        let gone = self.heard + self.patience();
        match &self.state {
            State::Begin => self.sent,
            State::Following(following) => {
                let due = (self.sent + following.heartbeat).min(gone);
                following.full_until.map_or(due, |until| due.min(until))
            }
            State::Asked(_) | State::Over => gone,
        }
    }

    fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }
}
