//! Whatever arrives: neither end panics, keeps more than it may, or takes a byte that is not the leader's.

use anchorlog_engine::{Epoch, Lsn};
use anchorlog_replicator::message::{
    Ack, Data, Heartbeat, Message, Promote, RangeRequest, Refusal, SeedPiece, Welcome, Why,
};
use anchorlog_replicator::message::{Hello, LogState, Purpose};
use anchorlog_replicator::{End, Link};
use proptest::prelude::*;

use crate::pair::{Pair, TWO_COPIES, append, bytes_from, config, follower, id};

/// Any message, most of them nearly right.
fn message(pair: &Pair, kind: u8, number: u64, len: u32) -> Message {
    let log = LogState::of(&pair.b.engine);
    let epoch = if number.is_multiple_of(5) { Epoch { term: 1, run: 2 } } else { pair.leader.epoch() };
    let near = Lsn(log.end.0.saturating_add(number % 16).saturating_sub(8));
    let (committed, beat) = (Lsn(number), number);
    match kind {
        0 => Message::Data(Data { epoch, at: near, committed, beat, len: len % 300 }),
        1 => Message::Heartbeat(Heartbeat { epoch, committed, end: near, beat }),
        2 => {
            let (received, free_bytes) = (near.max(log.durable), number);
            Message::Ack(Ack { epoch, received, durable: log.durable.min(received), free_bytes, beat })
        }
        3 => {
            let purpose = if number % 3 == 1 { Purpose::Seed } else { Purpose::Stream };
            let replica = id(["a", "b", "c", "x"][usize::try_from(number % 4).unwrap()]);
            let log = (!number.is_multiple_of(7)).then_some(log);
            Message::Hello(Hello {
                replica,
                purpose,
                promised_term: u32::from(number.is_multiple_of(11)) * 9,
                log,
                free_bytes: number,
            })
        }
        4 => Message::Welcome(Welcome { leader: id("a"), epoch, log, heartbeat_ms: len }),
        5 => Message::Refusal(Refusal { why: Why::Stopping, term: len, text: String::new() }),
        6 => Message::RangeRequest(RangeRequest { at: near, len }),
        7 => Message::SeedPiece(SeedPiece { base: near, at: near, bytes: vec![7; 9] }),
        8 => Message::Promote(Promote { unsafely: true }),
        _ => Message::SeedEnd,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_stranger_harms_neither_end(
        script in proptest::collection::vec((0_u8..10, any::<u64>(), any::<u32>(), any::<bool>()), 1..25),
        greets in any::<bool>(), garbage in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let mut pair = Pair::new(config(TWO_COPIES));
        append(&pair.a.engine, "orders", b"one");
        pair.settle();
        let (a, b) = (bytes_from(&pair.a.engine, Lsn::ZERO), bytes_from(&pair.b.engine, Lsn::ZERO));
        let now = pair.now();
        let mut ends: [Box<dyn Link>; 2] = [Box::new(pair.leader.link(now)), Box::new(follower(&pair.b, &pair.clock))];
        drop(ends[1].send(now, 1000).unwrap());
        if greets {
            let (hello, log) = (Message::Welcome(Welcome {
                leader: id("a"), epoch: pair.leader.epoch(), log: LogState::of(&pair.a.engine), heartbeat_ms: 100,
            }), LogState::of(&pair.b.engine));
            ends[1].receive(&hello.encode(), now).unwrap();
            let (replica, purpose) = (id("c"), Purpose::Stream);
            let hello = Hello { replica, purpose, promised_term: 0, log: Some(log), free_bytes: 1 << 40 };
            ends[0].receive(&Message::Hello(hello).encode(), now).unwrap();
        }
        for end in &mut ends {
            for (kind, number, len, tears) in &script {
                let mut bytes = message(&pair, *kind, *number, *len).encode();
                if *kind == 0 {
                    bytes.extend((0..*len % 300).map(|at| u8::try_from(at % 251).unwrap()));
                }
                if *tears {
                    bytes.truncate(bytes.len() / 2);
                }
                if end.receive(&bytes, now).is_err() || end.send(now, 10_000).is_err() {
                    break;
                }
                prop_assert!(end.next_due() >= now, "it asks for a moment that is gone");
            }
            let _outcome = end.receive(&garbage, now);
            prop_assert!(!matches!(end.end(), Some(End::Cut { .. })), "nothing that a stranger says is worth a cut");
        }
        prop_assert_eq!(bytes_from(&pair.a.engine, Lsn::ZERO), a);
        prop_assert_eq!(bytes_from(&pair.b.engine, Lsn::ZERO), b);
    }
}
