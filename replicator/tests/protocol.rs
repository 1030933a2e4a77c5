//! Are the bytes between peers still the bytes? Each fixture was written once by version 1 of the protocol (`replicator/docs/protocol.md`);
//! and whatever arrives, in whatever pieces, is a message that somebody wrote, or an error.
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

use anchorlog_engine::epoch::{EpochHistory, EpochStart};
use anchorlog_engine::{Epoch, Lsn, Tail};
use anchorlog_replicator::ReplicaId;
use anchorlog_replicator::message::*;
use proptest::prelude::*;

fn id(name: &str) -> ReplicaId {
    name.parse().unwrap()
}

const EPOCH: Epoch = Epoch { term: 2, run: 5 };
const IDENTITY: Identity =
    Identity { store_id: 0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00, segment_bytes: 64 << 20, tail: Tail::Rewrite };

fn history() -> EpochHistory {
    let mut history = EpochHistory::default();
    history.push(EpochStart { epoch: Epoch { term: 1, run: 1 }, first_lsn: Lsn(0) });
    history.push(EpochStart { epoch: EPOCH, first_lsn: Lsn(4096) });
    history
}

fn log() -> LogState {
    let (start, end, durable, committed) = (Lsn(0), Lsn(8192), Lsn(8000), Lsn(7000));
    LogState { identity: IDENTITY, history: history(), start, end, durable, committed }
}

fn state() -> NodeState {
    let (replica, leader) = (id("broker-b"), Some(id("broker-a")));
    NodeState { replica, role: NodeRole::Follower, promised_term: 3, leader, log: Some(log()) }
}

/// One message of each kind, with the name of its fixture.
fn samples() -> Vec<(&'static str, Message)> {
    let (replica, leader) = (id("broker-b"), id("broker-a"));
    let (committed, beat) = (Lsn(7500), 123_456_789);
    let free_bytes = 100 << 30;
    let peer =
        PeerLine { replica: replica.clone(), in_sync: true, connected: true, durable: Lsn(8000), lag_bytes: 192 };
    vec![
        (
            "hello-v1",
            Message::Hello(Hello {
                replica: replica.clone(),
                purpose: Purpose::Stream,
                promised_term: 2,
                log: Some(log()),
                free_bytes,
            }),
        ),
        (
            "hello-empty-v1",
            Message::Hello(Hello {
                replica: replica.clone(),
                purpose: Purpose::Seed,
                promised_term: 0,
                log: None,
                free_bytes,
            }),
        ),
        ("welcome-v1", Message::Welcome(Welcome { leader, epoch: EPOCH, log: log(), heartbeat_ms: 500 })),
        ("data-v1", Message::Data(Data { epoch: EPOCH, at: Lsn(8192), committed, beat, len: 4096 })),
        ("heartbeat-v1", Message::Heartbeat(Heartbeat { epoch: EPOCH, committed, end: Lsn(8192), beat })),
        ("ack-v1", Message::Ack(Ack { epoch: EPOCH, received: Lsn(8192), durable: Lsn(8000), free_bytes, beat })),
        (
            "seed-begin-v1",
            Message::SeedBegin(SeedBegin {
                identity: IDENTITY,
                start: Lsn(4096),
                end: Lsn(8192),
                history: history(),
                segments: 1,
            }),
        ),
        ("seed-segment-v1", Message::SeedSegment(SeedSegment { base: Lsn(0), ranges: vec![Lsn(64)..Lsn(72)] })),
        ("seed-piece-v1", Message::SeedPiece(SeedPiece { base: Lsn(0), at: Lsn(64), bytes: b"survivor".to_vec() })),
        ("seed-end-v1", Message::SeedEnd),
        ("range-request-v1", Message::RangeRequest(RangeRequest { at: Lsn(4096), len: 512 })),
        ("range-answer-v1", Message::RangeAnswer(RangeAnswer { at: Lsn(4096), bytes: b"whole".to_vec() })),
        ("refusal-v1", Message::Refusal(Refusal { why: Why::HigherTerm, term: 3, text: "term 3".to_owned() })),
        ("ask-state-v1", Message::AskState),
        ("state-v1", Message::State(state())),
        ("promise-request-v1", Message::PromiseRequest(PromiseRequest { term: 4, candidate: replica })),
        ("promise-answer-v1", Message::PromiseAnswer(PromiseAnswer { granted: true, state: state() })),
        ("promote-v1", Message::Promote(Promote { unsafely: false })),
        ("demote-v1", Message::Demote),
        ("outcome-v1", Message::Outcome(Outcome { done: true, text: "leads term 4".to_owned() })),
        ("ask-status-v1", Message::AskStatus),
        (
            "status-v1",
            Message::Status(Status {
                state: state(),
                policy: "sync, 2 copies".to_owned(),
                degraded: false,
                committed,
                peers: vec![peer],
                given_up_bytes: 5 << 20,
            }),
        ),
    ]
}

/// Hex digits, blanks and line ends left out; `#` begins a comment.
fn fixture(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../fixtures/replication/{name}.hex"));
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let lines = text.lines().map(|line| line.split('#').next().unwrap());
    let digits: String = lines.flat_map(str::chars).filter(char::is_ascii_hexdigit).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Reads a whole stream that arrives in pieces of the given lengths.
fn read(stream: &[u8], cuts: &[usize]) -> Result<(Vec<Message>, Vec<u8>), DecodeError> {
    let (mut decoder, mut messages, mut log) = (Decoder::default(), Vec::new(), Vec::new());
    let (mut rest, mut cuts) = (stream, cuts.iter().cycle());
    while !rest.is_empty() {
        let (mut piece, later) =
            rest.split_at(rest.len().min(1 + cuts.next().unwrap_or(&usize::MAX).saturating_sub(1)));
        rest = later;
        while let Some(item) = decoder.next(&mut piece)? {
            match item {
                Item::Message(message) => messages.push(message),
                Item::Log(bytes) => log.extend_from_slice(bytes),
            }
        }
        assert!(piece.is_empty(), "what is not an item yet is held");
        assert!(decoder.held_bytes() <= HEAD_BYTES + FIELDS_BYTES_MAX + TAIL_BYTES_MAX);
    }
    Ok((messages, log))
}

#[test]
fn every_message_is_written_as_version_1_wrote_it() {
    let mut wrong = Vec::new();
    for (name, message) in samples() {
        let written = message.encode();
        if written != fixture(name) {
            let lines = written.chunks(16);
            let lines: Vec<String> =
                lines.map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>()).collect();
            let crc = crc32fast::hash(&written);
            let kind = message.name();
            wrong.push(format!("== {name} {} {crc:08x} {kind}\n{}", written.len(), lines.join("\n")));
        }
        let (read, log) = read(&written, &[7]).unwrap();
        assert_eq!((read, log.len()), (vec![message], 0), "{name}");
    }
    assert!(wrong.is_empty(), "would now be written as\n{}", wrong.join("\n"));
}

#[test]
fn a_stream_is_read_however_it_is_cut() {
    let mut stream = Vec::new();
    let (mut sent, mut sent_log) = (Vec::new(), Vec::new());
    for (_, message) in samples() {
        stream.extend_from_slice(&message.encode());
        if let Message::Data(data) = &message {
            let log: Vec<u8> = (0..data.len).map(|at| u8::try_from(at % 251).unwrap()).collect();
            stream.extend_from_slice(&log);
            sent_log.extend(log);
        }
        sent.push(message);
    }
    for cuts in [&[1][..], &[15, 1, 3], &[usize::MAX], &[4096, 17]] {
        assert_eq!(read(&stream, cuts), Ok((sent.clone(), sent_log.clone())));
    }
}

#[test]
fn what_is_not_the_protocol_is_told_by_name() {
    let good = Message::AskState.encode();
    assert_eq!(read(b"GET / HTTP/1.1\r\n", &[5]), Err(DecodeError::Magic(*b"GET ")));
    assert!(matches!(read(b"X", &[1]), Err(DecodeError::Magic(_))), "it does not wait for the rest of a head");
    let mut other_version = good.clone();
    other_version[4] = 2;
    assert_eq!(read(&other_version, &[usize::MAX]), Err(DecodeError::Version { found: 2 }));
    let mut damaged = good.clone();
    damaged[5] ^= 1;
    assert!(matches!(read(&damaged, &[usize::MAX]), Err(DecodeError::Checksum { .. })));
    let mut long = good.clone();
    long[6..8].copy_from_slice(&u16::MAX.to_le_bytes());
    assert!(matches!(read(&long, &[usize::MAX]), Err(DecodeError::TooLong { what: "fields", .. })));
    let mut long = good;
    long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(read(&long, &[usize::MAX]), Err(DecodeError::TooLong { what: "bytes", .. })));
}

/// A checksum that fits does not make fields of another kind, or a seed's damaged bytes, good.
#[test]
fn fields_that_nobody_writes_are_refused() {
    let seal = |mut bytes: Vec<u8>| {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..12]);
        let fields = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
        hasher.update(&bytes[HEAD_BYTES..HEAD_BYTES + fields]);
        bytes[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
        bytes
    };
    for kind in (0..=255_u8).filter(|kind| !matches!(kind, 8 | 12 | 17 | 19)) {
        let mut bytes = Message::AskState.encode();
        bytes[5] = kind;
        assert_eq!(read(&seal(bytes), &[usize::MAX]), Err(DecodeError::Fields { kind }), "no fields");
    }
    let mut tailed = Message::AskState.encode();
    tailed[8] = 4;
    tailed.extend_from_slice(b"more");
    assert_eq!(
        read(&seal(tailed), &[usize::MAX]),
        Err(DecodeError::Fields { kind: 12 }),
        "bytes behind a bare message"
    );
    let mut piece = Message::SeedPiece(SeedPiece { base: Lsn(0), at: Lsn(0), bytes: b"survivor".to_vec() }).encode();
    *piece.last_mut().unwrap() ^= 1;
    assert_eq!(read(&piece, &[usize::MAX]), Err(DecodeError::Fields { kind: 7 }), "its bytes were damaged");
    let ack = Ack { epoch: EPOCH, received: Lsn(8), durable: Lsn(9), free_bytes: 0, beat: 0 };
    assert!(read(&Message::Ack(ack).encode(), &[usize::MAX]).is_err(), "durable beyond what was received");
}

proptest! {
    #[test]
    fn whatever_arrives_is_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 1_usize..40) {
        let _outcome = read(&bytes, &[cut]);
        let mut framed = b"ALRP\x01".to_vec();
        framed.extend_from_slice(&bytes);
        let _outcome = read(&framed, &[cut]);
    }

    #[test]
    fn a_damaged_message_is_never_another_one(sample in 0_usize..22, at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let (_, message) = samples().swap_remove(sample);
        let mut bytes = message.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok((messages, _)) = read(&bytes, &[usize::MAX]) {
            prop_assert!(messages.is_empty(), "{messages:?} came of {message:?}");
        }
    }

    #[test]
    fn what_was_read_is_written_back_the_same(
        at in any::<u64>(), committed in any::<u64>(), beat in any::<u64>(), term in any::<u32>(), run in any::<u32>(),
        len in 0_u32..1 << 20, text in "\\PC{0,40}", bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let (at, committed, epoch) = (Lsn(at >> 1), Lsn(committed), Epoch { term, run });
        for message in [
            Message::Data(Data { epoch, at, committed, beat, len }),
            Message::Heartbeat(Heartbeat { epoch, committed, end: at, beat }),
            Message::Refusal(Refusal { why: Why::Failed, term, text }),
            Message::SeedPiece(SeedPiece { base: at, at: committed, bytes: bytes.clone() }),
            Message::RangeAnswer(RangeAnswer { at, bytes }),
        ] {
            let mut stream = message.encode();
            stream.resize(stream.len() + if let Message::Data(data) = &message { data.len as usize } else { 0 }, 7);
            let (messages, _) = read(&stream, &[13]).unwrap();
            prop_assert_eq!(messages, vec![message]);
        }
    }
}
