//! What peers tell each other, and the bytes of it: `replicator/docs/protocol.md`, golden bytes in `fixtures/replication/`.
//!
//! Promises:
//! 1. What is read was written by somebody who knows this version: a checksum covers every message but the log bytes behind it, whose
//!    frames carry their own, and the bytes of seeds and repaired ranges, which have one of their own.
//! 2. Every length is bounded before anything is kept for it.
//! 3. What is read is written back as the same bytes.

use std::ops::Range;

use anchorlog_engine::epoch::EpochHistory;
pub use anchorlog_engine::replica::LogIdentity as Identity;
use anchorlog_engine::{Engine, Epoch, Lsn};

use crate::member::ReplicaId;

mod codec;
mod decoder;

pub use decoder::{DecodeError, Decoder, Item};

/// The version of the protocol.
pub const VERSION: u8 = 1;
/// Bytes of a message's head.
pub const HEAD_BYTES: usize = 16;
/// Most bytes that the fields of one message take.
pub const FIELDS_BYTES_MAX: usize = 60 << 10;
/// Most log bytes behind one message.
pub const TAIL_BYTES_MAX: usize = 1 << 20;
/// The longest text in a message.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Most ranges in one [`SeedSegment`].
pub const SEED_RANGES_MAX: usize = 2048;
/// Most peers in one status.
pub const PEERS_MAX: usize = 64;

/// A log, as far as another node must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Which log.
    pub identity: Identity,
    /// Who wrote which part of it.
    pub history: EpochHistory,
    /// First LSN of its dense part.
    pub start: Lsn,
    /// Where it ends, in memory.
    pub end: Lsn,
    /// Where it ends, on the disk.
    pub durable: Lsn,
    /// What it was told to be committed: readers have seen it, and what records say up to there was acted on.
    pub committed: Lsn,
}

impl LogState {
    /// The log of an open engine.
    #[must_use]
    pub fn of(engine: &Engine) -> LogState {
        let (identity, history, marks) = (engine.identity(), engine.history(), engine.watermarks());
        let (start, end, durable) = (marks.start, marks.assigned, marks.durable);
        LogState { identity, history, start, end, durable, committed: marks.acked }
    }

    /// How far the log goes, as promotions compare it: the epoch that wrote its last durable byte, then where that ends. An epoch that the
    /// history names and that has no durable byte yet says nothing: whoever wins by it may lack what was acknowledged in the one before.
    #[must_use]
    pub fn reach(&self) -> (Epoch, Lsn) {
        let last = Lsn(self.durable.0.saturating_sub(1));
        (self.history.at(last).unwrap_or_default(), self.durable)
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To follow the log.
    Stream,
    /// To get what a directory without a log begins with.
    Seed,
}

/// First message of whoever connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who speaks.
    pub replica: ReplicaId,
    /// What for.
    pub purpose: Purpose,
    /// The highest term that it has promised; leaders of lower ones are refused.
    pub promised_term: u32,
    /// Its log; none where there is none.
    pub log: Option<LogState>,
    /// Bytes free for its log.
    pub free_bytes: u64,
}

/// A leader's answer to a [`Hello`] that it accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Who speaks.
    pub leader: ReplicaId,
    /// In which epoch it leads.
    pub epoch: Epoch,
    /// Its log.
    pub log: LogState,
    /// The longest that it is ever silent, in milliseconds.
    pub heartbeat_ms: u32,
}

/// Log bytes; they follow the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    /// The leader's epoch.
    pub epoch: Epoch,
    /// Where in the log the bytes belong.
    pub at: Lsn,
    /// As in [`Heartbeat`].
    pub committed: Lsn,
    /// As in [`Heartbeat`].
    pub beat: u64,
    /// How many bytes follow, at most [`TAIL_BYTES_MAX`].
    pub len: u32,
}

/// A leader's sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The leader's epoch.
    pub epoch: Epoch,
    /// What readers may see, everywhere.
    pub committed: Lsn,
    /// Where the leader's log ends.
    pub end: Lsn,
    /// The leader's own time, in microseconds; an [`Ack`] returns the newest.
    pub beat: u64,
}

/// What a follower has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The epoch of the leader that this answers.
    pub epoch: Epoch,
    /// Where the follower's log ends, in memory.
    pub received: Lsn,
    /// Where it ends, on the disk.
    pub durable: Lsn,
    /// Bytes free for its log.
    pub free_bytes: u64,
    /// The newest [`Heartbeat::beat`] that arrived.
    pub beat: u64,
}

/// What a replica begins with, before any log bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedBegin {
    /// Which log.
    pub identity: Identity,
    /// Where the dense log begins: what is streamed begins there.
    pub start: Lsn,
    /// Where the leader's log ended when this was said.
    pub end: Lsn,
    /// Who wrote which part of it.
    pub history: EpochHistory,
    /// How many [`SeedSegment`]s follow.
    pub segments: u32,
}

/// What survives of a segment below the log's start. Several of the same segment follow each other where one has no room for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedSegment {
    /// Its first LSN.
    pub base: Lsn,
    /// What of it is there, in order; at most [`SEED_RANGES_MAX`].
    pub ranges: Vec<Range<Lsn>>,
}

/// Bytes of a segment below the log's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedPiece {
    /// Base LSN of the segment.
    pub base: Lsn,
    /// Where the bytes belong.
    pub at: Lsn,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Asks for bytes that are damaged here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// The first.
    pub at: Lsn,
    /// How many; at most [`TAIL_BYTES_MAX`].
    pub len: u32,
}

/// The bytes that were asked for, unverified; none where not all of them are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeAnswer {
    /// The first.
    pub at: Lsn,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Why a peer refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It does not lead.
    NotLeader,
    /// The replica that speaks is no member.
    Unknown,
    /// The log is another one.
    OtherLog,
    /// It knows of a higher term.
    HigherTerm,
    /// It stops.
    Stopping,
    /// The two logs do not fit; the follower must find out how.
    Diverged,
    /// It cannot, for a reason of its own.
    Failed,
}

/// A refusal; the connection ends with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub why: Why,
    /// The highest term that it knows.
    pub term: u32,
    /// In words, for people.
    pub text: String,
}

/// What a node is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// It leads.
    Leader,
    /// It follows, or looks for somebody to follow.
    Follower,
    /// It has no log that could be used yet.
    Empty,
}

/// What a node knows of itself; answer to [`Message::AskState`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// Who speaks.
    pub replica: ReplicaId,
    /// What it is.
    pub role: NodeRole,
    /// The highest term that it has promised.
    pub promised_term: u32,
    /// Whom it follows, or itself.
    pub leader: Option<ReplicaId>,
    /// Its log; none where there is none, and none while it was seeded and is not back at where its leader's ended then: it counts for
    /// nobody before.
    pub log: Option<LogState>,
}

/// Asks for a durable promise to refuse every term below `term`, and `term` under anybody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromiseRequest {
    /// The term that the candidate wants to lead.
    pub term: u32,
    /// Who.
    pub candidate: ReplicaId,
}

/// Answers a [`PromiseRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromiseAnswer {
    /// Whether the promise is given, durably.
    pub granted: bool,
    /// The node as it is now; where the promise is given, with the term and the leader of what it had promised before.
    pub state: NodeState,
}

/// Asks a node to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promote {
    /// Although something that was acknowledged may be lost.
    pub unsafely: bool,
}

/// How a request of a person went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it was done.
    pub done: bool,
    /// In words.
    pub text: String,
}

/// One peer in a [`Status`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerLine {
    /// Who.
    pub replica: ReplicaId,
    /// Whether it counts at the moment.
    pub in_sync: bool,
    /// Whether it is connected.
    pub connected: bool,
    /// How far its log is durable.
    pub durable: Lsn,
    /// Bytes by which that is behind.
    pub lag_bytes: u64,
}

/// How replication stands; answer to [`Message::AskStatus`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The node.
    pub state: NodeState,
    /// The policy in words, and whether it is degraded.
    pub policy: String,
    /// Whether less is promised than the policy says.
    pub degraded: bool,
    /// What is acknowledged.
    pub committed: Lsn,
    /// The followers, where the node leads.
    pub peers: Vec<PeerLine>,
    /// Bytes of logs that were given up in the node's directory, and stay there until a person deletes them.
    pub given_up_bytes: u64,
}

/// Everything that can be said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "what each carries says it")]
pub enum Message {
    Hello(Hello),
    Welcome(Welcome),
    Data(Data),
    Heartbeat(Heartbeat),
    Ack(Ack),
    SeedBegin(SeedBegin),
    SeedSegment(SeedSegment),
    SeedPiece(SeedPiece),
    SeedEnd,
    RangeRequest(RangeRequest),
    RangeAnswer(RangeAnswer),
    Refusal(Refusal),
    AskState,
    State(NodeState),
    PromiseRequest(PromiseRequest),
    PromiseAnswer(PromiseAnswer),
    Promote(Promote),
    Demote,
    Outcome(Outcome),
    AskStatus,
    Status(Status),
}

impl Message {
    /// The name of its kind, for people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Message::Hello(_) => "hello",
            Message::Welcome(_) => "welcome",
            Message::Data(_) => "data",
            Message::Heartbeat(_) => "heartbeat",
            Message::Ack(_) => "ack",
            Message::SeedBegin(_) => "seed begin",
            Message::SeedSegment(_) => "seed segment",
            Message::SeedPiece(_) => "seed piece",
            Message::SeedEnd => "seed end",
            Message::RangeRequest(_) => "range request",
            Message::RangeAnswer(_) => "range answer",
            Message::Refusal(_) => "refusal",
            Message::AskState => "ask state",
            Message::State(_) => "state",
            Message::PromiseRequest(_) => "promise request",
            Message::PromiseAnswer(_) => "promise answer",
            Message::Promote(_) => "promote",
            Message::Demote => "demote",
            Message::Outcome(_) => "outcome",
            Message::AskStatus => "ask status",
            Message::Status(_) => "status",
        }
    }

    /// Its bytes. Those of the log, behind [`Message::Data`], are not among them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }
}
