//! Messages to bytes and back. One function writes the fields of each kind, one reads them, in the same order.

use anchorlog_engine::epoch::EpochHistory;
use anchorlog_engine::{Epoch, Lsn, Tail};

use super::{
    Ack, Data, FIELDS_BYTES_MAX, HEAD_BYTES, Heartbeat, Hello, Identity, LogState, Message, NodeRole, NodeState,
    Outcome, PEERS_MAX, PeerLine, PromiseAnswer, PromiseRequest, Promote, Purpose, RangeAnswer, RangeRequest, Refusal,
    SEED_RANGES_MAX, SeedBegin, SeedPiece, SeedSegment, Status, TAIL_BYTES_MAX, TEXT_BYTES_MAX, VERSION, Welcome, Why,
};
use crate::member::ReplicaId;

/// First bytes of every message.
pub(super) const MAGIC: [u8; 4] = *b"ALRP";

/// Kinds, as they stand in the head; a number is never used twice.
pub(super) mod kind {
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const WELCOME: u8 = 2;
    pub(crate) const DATA: u8 = 3;
    pub(crate) const HEARTBEAT: u8 = 4;
    pub(crate) const ACK: u8 = 5;
    pub(crate) const SEED_BEGIN: u8 = 6;
    pub(crate) const SEED_PIECE: u8 = 7;
    pub(crate) const SEED_END: u8 = 8;
    pub(crate) const RANGE_REQUEST: u8 = 9;
    pub(crate) const RANGE_ANSWER: u8 = 10;
    pub(crate) const REFUSAL: u8 = 11;
    pub(crate) const ASK_STATE: u8 = 12;
    pub(crate) const STATE: u8 = 13;
    pub(crate) const PROMISE_REQUEST: u8 = 14;
    pub(crate) const PROMISE_ANSWER: u8 = 15;
    pub(crate) const PROMOTE: u8 = 16;
    pub(crate) const DEMOTE: u8 = 17;
    pub(crate) const OUTCOME: u8 = 18;
    pub(crate) const ASK_STATUS: u8 = 19;
    pub(crate) const STATUS: u8 = 20;
    pub(crate) const SEED_SEGMENT: u8 = 21;
}

const FITS: &str = "what is written stays below the bounds of the protocol";

/// Fields in the making.
#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn lsn(&mut self, lsn: Lsn) {
        self.u64(lsn.0);
    }

    fn epoch(&mut self, epoch: Epoch) {
        self.u32(epoch.term);
        self.u32(epoch.run);
    }

    fn text(&mut self, text: &str) {
        let mut len = text.len().min(TEXT_BYTES_MAX);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        self.0.extend_from_slice(&u16::try_from(len).expect(FITS).to_le_bytes());
        self.0.extend_from_slice(&text.as_bytes()[..len]);
    }

    fn id(&mut self, id: &ReplicaId) {
        self.text(id.as_str());
    }

    fn some(&mut self, is_some: bool) {
        self.u8(u8::from(is_some));
    }

    fn identity(&mut self, identity: &Identity) {
        self.0.extend_from_slice(&identity.store_id.to_le_bytes());
        self.u64(identity.segment_bytes);
        self.u8(match identity.tail {
            Tail::Rewrite => 0,
            Tail::Pad => 1,
        });
    }

    fn history(&mut self, history: &EpochHistory) {
        let bytes = history.encode();
        self.u32(u32::try_from(bytes.len()).expect(FITS));
        self.0.extend_from_slice(&bytes);
    }

    fn log(&mut self, log: &LogState) {
        self.identity(&log.identity);
        self.lsn(log.start);
        self.lsn(log.end);
        self.lsn(log.durable);
        self.lsn(log.committed);
        self.history(&log.history);
    }

    fn maybe_log(&mut self, log: Option<&LogState>) {
        self.some(log.is_some());
        if let Some(log) = log {
            self.log(log);
        }
    }

    fn state(&mut self, state: &NodeState) {
        self.id(&state.replica);
        self.u8(match state.role {
            NodeRole::Leader => 0,
            NodeRole::Follower => 1,
            NodeRole::Empty => 2,
        });
        self.u32(state.promised_term);
        self.some(state.leader.is_some());
        if let Some(leader) = &state.leader {
            self.id(leader);
        }
        self.maybe_log(state.log.as_ref());
    }
}

pub(super) fn encode(message: &Message) -> Vec<u8> {
    let mut out = Out(Vec::with_capacity(64));
    out.0.resize(HEAD_BYTES, 0);
    let mut tail_len = 0;
    let mut tail: &[u8] = &[];
    let kind = match message {
        Message::Hello(hello) => {
            out.id(&hello.replica);
            out.u8(match hello.purpose {
                Purpose::Stream => 0,
                Purpose::Seed => 1,
            });
            out.u32(hello.promised_term);
            out.u64(hello.free_bytes);
            out.maybe_log(hello.log.as_ref());
            kind::HELLO
        }
        Message::Welcome(welcome) => {
            out.id(&welcome.leader);
            out.epoch(welcome.epoch);
            out.u32(welcome.heartbeat_ms);
            out.log(&welcome.log);
            kind::WELCOME
        }
        Message::Data(data) => {
            out.epoch(data.epoch);
            out.lsn(data.at);
            out.lsn(data.committed);
            out.u64(data.beat);
            tail_len = data.len;
            kind::DATA
        }
        Message::Heartbeat(beat) => {
            out.epoch(beat.epoch);
            out.lsn(beat.committed);
            out.lsn(beat.end);
            out.u64(beat.beat);
            kind::HEARTBEAT
        }
        Message::Ack(ack) => {
            out.epoch(ack.epoch);
            out.lsn(ack.received);
            out.lsn(ack.durable);
            out.u64(ack.free_bytes);
            out.u64(ack.beat);
            kind::ACK
        }
        Message::SeedBegin(seed) => {
            out.identity(&seed.identity);
            out.lsn(seed.start);
            out.lsn(seed.end);
            out.u32(seed.segments);
            out.history(&seed.history);
            kind::SEED_BEGIN
        }
        Message::SeedSegment(segment) => {
            out.lsn(segment.base);
            out.u32(u32::try_from(segment.ranges.len()).expect(FITS));
            for range in &segment.ranges {
                out.lsn(range.start);
                out.lsn(range.end);
            }
            kind::SEED_SEGMENT
        }
        Message::SeedPiece(piece) => {
            out.lsn(piece.base);
            out.lsn(piece.at);
            out.u32(crc32fast::hash(&piece.bytes));
            tail = &piece.bytes;
            kind::SEED_PIECE
        }
        Message::SeedEnd => kind::SEED_END,
        Message::RangeRequest(request) => {
            out.lsn(request.at);
            out.u32(request.len);
            kind::RANGE_REQUEST
        }
        Message::RangeAnswer(answer) => {
            out.lsn(answer.at);
            out.u32(crc32fast::hash(&answer.bytes));
            tail = &answer.bytes;
            kind::RANGE_ANSWER
        }
        Message::Refusal(refusal) => {
            out.u8(match refusal.why {
                Why::NotLeader => 0,
                Why::Unknown => 1,
                Why::OtherLog => 2,
                Why::HigherTerm => 3,
                Why::Stopping => 4,
                Why::Diverged => 5,
                Why::Failed => 6,
            });
            out.u32(refusal.term);
            out.text(&refusal.text);
            kind::REFUSAL
        }
        Message::AskState => kind::ASK_STATE,
        Message::State(state) => {
            out.state(state);
            kind::STATE
        }
        Message::PromiseRequest(request) => {
            out.u32(request.term);
            out.id(&request.candidate);
            kind::PROMISE_REQUEST
        }
        Message::PromiseAnswer(answer) => {
            out.some(answer.granted);
            out.state(&answer.state);
            kind::PROMISE_ANSWER
        }
        Message::Promote(promote) => {
            out.some(promote.unsafely);
            kind::PROMOTE
        }
        Message::Demote => kind::DEMOTE,
        Message::Outcome(outcome) => {
            out.some(outcome.done);
            out.text(&outcome.text);
            kind::OUTCOME
        }
        Message::AskStatus => kind::ASK_STATUS,
        Message::Status(status) => {
            out.text(&status.policy);
            out.some(status.degraded);
            out.lsn(status.committed);
            let peers = &status.peers[..status.peers.len().min(PEERS_MAX)];
            out.u32(u32::try_from(peers.len()).expect(FITS));
            for peer in peers {
                out.id(&peer.replica);
                out.some(peer.in_sync);
                out.some(peer.connected);
                out.lsn(peer.durable);
                out.u64(peer.lag_bytes);
            }
            out.state(&status.state);
            out.u64(status.given_up_bytes);
            kind::STATUS
        }
    };
    let Out(mut bytes) = out;
    if !tail.is_empty() {
        tail_len = u32::try_from(tail.len()).expect(FITS);
    }
    let fields_len = bytes.len() - HEAD_BYTES;
    assert!(fields_len <= FIELDS_BYTES_MAX && tail_len as usize <= TAIL_BYTES_MAX, "{FITS}");
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4] = VERSION;
    bytes[5] = kind;
    bytes[6..8].copy_from_slice(&u16::try_from(fields_len).expect(FITS).to_le_bytes());
    bytes[8..12].copy_from_slice(&tail_len.to_le_bytes());
    let crc = checksum(&bytes[..12], &bytes[HEAD_BYTES..]);
    bytes[12..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(tail);
    bytes
}

/// The checksum of a head without its checksum, and its fields.
pub(super) fn checksum(head: &[u8], fields: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(fields);
    hasher.finalize()
}

/// Fields being read; every reader gives `None` where they end too early or hold what nobody writes.
struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (found, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*found)
    }

    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (found, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(found)
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    fn lsn(&mut self) -> Option<Lsn> {
        Some(Lsn(self.u64()?))
    }

    fn epoch(&mut self) -> Option<Epoch> {
        Some(Epoch { term: self.u32()?, run: self.u32()? })
    }

    fn text(&mut self) -> Option<String> {
        let len = usize::from(u16::from_le_bytes(self.array()?));
        let bytes = if len <= TEXT_BYTES_MAX { self.bytes(len)? } else { return None };
        Some(std::str::from_utf8(bytes).ok()?.to_owned())
    }

    fn id(&mut self) -> Option<ReplicaId> {
        self.text()?.parse().ok()
    }

    fn some(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn identity(&mut self) -> Option<Identity> {
        let store_id = u128::from_le_bytes(self.array()?);
        let segment_bytes = self.u64()?;
        let tail = match self.u8()? {
            0 => Tail::Rewrite,
            1 => Tail::Pad,
            _ => return None,
        };
        Some(Identity { store_id, segment_bytes, tail })
    }

    fn history(&mut self) -> Option<EpochHistory> {
        let len = usize::try_from(self.u32()?).ok()?;
        EpochHistory::decode(self.bytes(len)?)
    }

    fn log(&mut self) -> Option<LogState> {
        let identity = self.identity()?;
        let (start, end, durable, committed) = (self.lsn()?, self.lsn()?, self.lsn()?, self.lsn()?);
        let history = self.history()?;
        let ordered = start <= end && durable <= end && committed <= end;
        ordered.then_some(LogState { identity, history, start, end, durable, committed })
    }

    fn maybe_log(&mut self) -> Option<Option<LogState>> {
        if self.some()? { Some(Some(self.log()?)) } else { Some(None) }
    }

    fn state(&mut self) -> Option<NodeState> {
        let replica = self.id()?;
        let role = match self.u8()? {
            0 => NodeRole::Leader,
            1 => NodeRole::Follower,
            2 => NodeRole::Empty,
            _ => return None,
        };
        let promised_term = self.u32()?;
        let leader = if self.some()? { Some(self.id()?) } else { None };
        let log = self.maybe_log()?;
        Some(NodeState { replica, role, promised_term, leader, log })
    }
}

/// A message from its fields; what follows them is `tail_len` bytes of the log, or `tail`.
pub(super) fn decode(kind: u8, fields: &[u8], tail_len: u32, tail: Vec<u8>) -> Option<Message> {
    let mut input = In(fields);
    let input = &mut input;
    let message = match kind {
        kind::HELLO => {
            let replica = input.id()?;
            let purpose = match input.u8()? {
                0 => Purpose::Stream,
                1 => Purpose::Seed,
                _ => return None,
            };
            let (promised_term, free_bytes) = (input.u32()?, input.u64()?);
            let log = input.maybe_log()?;
            Message::Hello(Hello { replica, purpose, promised_term, log, free_bytes })
        }
        kind::WELCOME => {
            let (leader, epoch, heartbeat_ms) = (input.id()?, input.epoch()?, input.u32()?);
            Message::Welcome(Welcome { leader, epoch, heartbeat_ms, log: input.log()? })
        }
        kind::DATA => {
            let (epoch, at, committed, beat) = (input.epoch()?, input.lsn()?, input.lsn()?, input.u64()?);
            at.0.checked_add(u64::from(tail_len))?;
            Message::Data(Data { epoch, at, committed, beat, len: tail_len })
        }
        kind::HEARTBEAT => {
            let (epoch, committed, end, beat) = (input.epoch()?, input.lsn()?, input.lsn()?, input.u64()?);
            Message::Heartbeat(Heartbeat { epoch, committed, end, beat })
        }
        kind::ACK => {
            let (epoch, received, durable) = (input.epoch()?, input.lsn()?, input.lsn()?);
            let (free_bytes, beat) = (input.u64()?, input.u64()?);
            (durable <= received).then_some(())?;
            Message::Ack(Ack { epoch, received, durable, free_bytes, beat })
        }
        kind::SEED_BEGIN => {
            let (identity, start, end, segments) = (input.identity()?, input.lsn()?, input.lsn()?, input.u32()?);
            Message::SeedBegin(SeedBegin { identity, start, end, segments, history: input.history()? })
        }
        kind::SEED_SEGMENT => {
            let base = input.lsn()?;
            let count = usize::try_from(input.u32()?).ok().filter(|count| *count <= SEED_RANGES_MAX)?;
            let mut ranges = Vec::with_capacity(count);
            for _ in 0..count {
                let range = input.lsn()?..input.lsn()?;
                let after = ranges.last().is_none_or(|last: &std::ops::Range<Lsn>| last.end <= range.start);
                (after && base <= range.start && range.start < range.end).then_some(())?;
                ranges.push(range);
            }
            Message::SeedSegment(SeedSegment { base, ranges })
        }
        kind::SEED_PIECE => {
            let (base, at, crc) = (input.lsn()?, input.lsn()?, input.u32()?);
            (crc == crc32fast::hash(&tail)).then_some(())?;
            Message::SeedPiece(SeedPiece { base, at, bytes: tail })
        }
        kind::SEED_END => Message::SeedEnd,
        kind::RANGE_REQUEST => Message::RangeRequest(RangeRequest { at: input.lsn()?, len: input.u32()? }),
        kind::RANGE_ANSWER => {
            let (at, crc) = (input.lsn()?, input.u32()?);
            (crc == crc32fast::hash(&tail)).then_some(())?;
            Message::RangeAnswer(RangeAnswer { at, bytes: tail })
        }
        kind::REFUSAL => {
            let why = match input.u8()? {
                0 => Why::NotLeader,
                1 => Why::Unknown,
                2 => Why::OtherLog,
                3 => Why::HigherTerm,
                4 => Why::Stopping,
                5 => Why::Diverged,
                6 => Why::Failed,
                _ => return None,
            };
            Message::Refusal(Refusal { why, term: input.u32()?, text: input.text()? })
        }
        kind::ASK_STATE => Message::AskState,
        kind::STATE => Message::State(input.state()?),
        kind::PROMISE_REQUEST => Message::PromiseRequest(PromiseRequest { term: input.u32()?, candidate: input.id()? }),
        kind::PROMISE_ANSWER => Message::PromiseAnswer(PromiseAnswer { granted: input.some()?, state: input.state()? }),
        kind::PROMOTE => Message::Promote(Promote { unsafely: input.some()? }),
        kind::DEMOTE => Message::Demote,
        kind::OUTCOME => Message::Outcome(Outcome { done: input.some()?, text: input.text()? }),
        kind::ASK_STATUS => Message::AskStatus,
        kind::STATUS => {
            let (policy, degraded, committed) = (input.text()?, input.some()?, input.lsn()?);
            let count = usize::try_from(input.u32()?).ok().filter(|count| *count <= PEERS_MAX)?;
            let mut peers = Vec::with_capacity(count);
            for _ in 0..count {
                let (replica, in_sync, connected) = (input.id()?, input.some()?, input.some()?);
                let (durable, lag_bytes) = (input.lsn()?, input.u64()?);
                peers.push(PeerLine { replica, in_sync, connected, durable, lag_bytes });
            }
            let (state, given_up_bytes) = (input.state()?, input.u64()?);
            Message::Status(Status { state, policy, degraded, committed, peers, given_up_bytes })
        }
        _ => return None,
    };
    input.0.is_empty().then_some(message)
}

/// Whether what follows the fields belongs to the message, other than log bytes.
pub(super) fn keeps_tail(kind: u8) -> bool {
    matches!(kind, kind::SEED_PIECE | kind::RANGE_ANSWER)
}
