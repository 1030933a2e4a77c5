//! From the leader's append to the follower's ack.

use std::time::Duration;

use anchorlog_engine::Lsn;
use anchorlog_replicator::message::Message;
use anchorlog_replicator::{Link, LinkError, NotAdmitted, Policy};

use crate::pair::{Pair, TWO_COPIES, Voice, append, body, bytes_from, config, payloads, take_all};

fn fill(pair: &mut Pair, from: u64, count: u64) {
    for number in from..from + count {
        append(&pair.a.engine, "orders", &body(number, 100 + usize::try_from(number % 7).unwrap() * 900));
        pair.a.settle();
    }
}

#[track_caller]
fn check_same(pair: &Pair) {
    assert_eq!(bytes_from(&pair.b.engine, Lsn::ZERO), bytes_from(&pair.a.engine, Lsn::ZERO));
}

#[test]
fn what_is_acknowledged_is_durable_on_both_and_the_logs_are_the_same_bytes() {
    let mut pair = Pair::new(config(TWO_COPIES));
    assert_eq!(pair.leader.admission(), Err(NotAdmitted::Missing { in_sync: 0, copies: 2 }), "nobody follows yet");
    pair.settle();
    assert_eq!(pair.leader.admission(), Ok(()), "{:?}", pair.leader.status(pair.now()));
    for number in 0..60 {
        let len = 100 + usize::try_from(number % 7).unwrap() * 900;
        let end = append(&pair.a.engine, "orders", &body(number, len));
        assert!(pair.a.engine.watermarks().acked < end);
        pair.settle();
        assert!(pair.a.engine.watermarks().acked >= end, "{:?}", pair.leader.status(pair.now()));
        assert!(pair.b.engine.watermarks().durable >= end);
    }
    pair.pass(Duration::from_millis(600));
    check_same(&pair);
    assert_eq!(payloads(&pair.b.engine, "orders"), payloads(&pair.a.engine, "orders"));
    assert_eq!(payloads(&pair.b.engine, "orders").len(), 60);
}

#[test]
fn bytes_may_arrive_in_pieces_of_any_size() {
    for piece in [1, 13, 100_000] {
        let mut pair = Pair::new(config(TWO_COPIES));
        pair.wire.piece = piece;
        pair.settle();
        for number in 0..30 {
            append(&pair.a.engine, "orders", &body(number, 2000));
            pair.settle();
        }
        check_same(&pair);
        assert_eq!(pair.leader.status(pair.now()).peers[0].lag_bytes, 0, "pieces of {piece}");
    }
}

/// K-42: an ack is for the disk. Nothing is acknowledged while the follower's does not write, and all of it once it does.
#[test]
fn an_ack_waits_for_the_followers_disk_and_for_the_leaders() {
    for (stalled, other) in [(1, 0), (0, 1)] {
        let mut pair = Pair::new(config(TWO_COPIES));
        pair.settle();
        let disks = [pair.a.disk.clone(), pair.b.disk.clone()];
        disks[stalled].hold(true);
        let end = append(&pair.a.engine, "orders", b"one");
        for _ in 0..50 {
            let now = pair.now();
            pair.wire.carry(now).unwrap();
            let engines = [&pair.a.engine, &pair.b.engine];
            engines[other].step();
        }
        assert!(pair.a.engine.watermarks().acked < end, "node {stalled} has not written it");
        assert_eq!(pair.b.engine.watermarks().assigned, end, "it was shipped before anybody's flush");
        disks[stalled].hold(false);
        pair.settle();
        assert_eq!(pair.a.engine.watermarks().acked, end);
    }
}

#[test]
fn a_connection_that_breaks_anywhere_is_gone_on_from() {
    let mut pair = Pair::new(config(TWO_COPIES));
    pair.settle();
    for round in 0..40 {
        append(&pair.a.engine, "orders", &body(round, 3000));
        let now = pair.now();
        pair.wire.carry(now).unwrap();
        // What is on the way is lost, in the middle of a frame as often as not.
        for piece in pair.wire.leader.send(now, 2000).unwrap() {
            let bytes = piece.as_ref();
            pair.wire.follower.receive(&bytes[..bytes.len() / 2], now).unwrap();
        }
        pair.connect();
        if round % 5 == 0 {
            pair.settle();
        }
    }
    pair.settle();
    check_same(&pair);
    let status = pair.leader.status(pair.now());
    assert_eq!((status.peers[0].lag_bytes, status.peers[0].connections), (0, 41));
}

#[test]
fn a_follower_that_was_away_catches_up_from_the_disk_and_returns_to_the_stream() {
    let mut pair = Pair::new(config(Policy::Async));
    pair.settle();
    pair.disconnect();
    fill(&mut pair, 0, 150);
    let reads = pair.a.engine.stats().cold_reads;
    pair.connect();
    for _ in 0..20 {
        pair.pass(Duration::from_millis(100));
    }
    let catching_up = pair.a.engine.stats().cold_reads - reads;
    assert!(catching_up > 0, "the log buffer still had everything");
    check_same(&pair);
    let reads = pair.a.engine.stats().cold_reads;
    for number in 150..170 {
        fill(&mut pair, number, 1);
        pair.settle();
    }
    assert_eq!(pair.a.engine.stats().cold_reads, reads, "the stream comes from memory again");
    check_same(&pair);
}

/// The live stream of others has the disk: what one follower lacks is read at a pace, and still faster than the log grows.
#[test]
fn catching_up_is_paced_while_others_append_and_the_lag_shrinks() {
    let mut config = config(Policy::Async);
    config.catch_up_bytes = 64 << 10;
    let mut pair = Pair::new(config);
    pair.settle();
    pair.disconnect();
    fill(&mut pair, 0, 300);
    pair.connect();
    let lag = |pair: &Pair| pair.a.engine.watermarks().assigned.since(pair.b.engine.watermarks().durable);
    let (mut number, mut last, mut seconds) = (300, u64::MAX, 0);
    while lag(&pair) > 60_000 {
        for _ in 0..50 {
            append(&pair.a.engine, "orders", &body(number, 3000));
            number += 1;
            pair.pass(Duration::from_millis(20));
        }
        seconds += 1;
        // In the first one it is not known how fast the log grows.
        assert!(seconds == 1 || lag(&pair) < last, "a busy leader never catches its follower up: {}", lag(&pair));
        last = lag(&pair);
    }
    // 150 kB a second come, twice that go out.
    assert!(seconds > 4, "in {seconds} s: nothing was paced");
    for _ in 0..20 {
        pair.pass(Duration::from_millis(200));
    }
    check_same(&pair);
}

/// The disk is not to wait for the connection; beside commits it is left alone.
#[test]
fn an_idle_leader_has_the_next_reads_under_way_and_a_busy_one_has_not() {
    let mut pair = Pair::new(config(Policy::Async));
    let (now, voice) = (pair.now(), Voice::default());
    fill(&mut pair, 0, 300);
    let mut link = pair.leader.link(now).reading_ahead();
    link.receive(&voice.hello(&pair.b.engine, 0), now).unwrap();
    let mut step = |pair: &Pair, pause: u64| {
        pair.clock.advance(Duration::from_millis(pause));
        let before = pair.a.engine.stats().cold_read_bytes;
        let log: usize = link.send(pair.now(), 4000).unwrap().iter().map(|piece| piece.as_ref().len()).sum();
        (log as u64, pair.a.engine.stats().cold_read_bytes - before)
    };
    let (sent, read) = step(&pair, 0);
    assert!(read > 0 && read <= sent + 8192, "nobody knows yet whether it is idle: {read} bytes for {sent}");
    // Now it does.
    step(&pair, 20);
    let (sent, read) = step(&pair, 1);
    assert!(read > 3 * sent, "{read} bytes are read when {sent} are sent");
    let segments = read / pair.a.engine.identity().segment_bytes;
    assert!(segments <= 3, "{read} bytes are on their way");
    let (_, read) = step(&pair, 1);
    assert_eq!(read, 0, "they are there already");
    append(&pair.a.engine, "orders", b"somebody appends");
    pair.a.settle();
    step(&pair, 150);
    let (sent, read) = step(&pair, 1);
    assert!(sent > 0 && read <= sent + 8192, "{read} bytes for {sent}, beside commits");
}

#[test]
fn no_more_than_the_window_is_on_the_way() {
    let mut config = config(TWO_COPIES);
    config.window_bytes = 1;
    let mut pair = Pair::new(config);
    let window = 2 * pair.a.engine.info().options.frame_bytes_max();
    let (now, mut voice) = (pair.now(), Voice::default());
    let mut link = pair.leader.link(now);
    link.receive(&voice.hello(&pair.b.engine, 0), now).unwrap();
    fill(&mut pair, 0, 150);
    let mut bytes = 0;
    loop {
        let (_, log) = voice.hear(&mut link, now).unwrap();
        if log.is_empty() {
            break;
        }
        bytes += log.len() as u64;
    }
    assert!(bytes <= window && bytes > window / 2, "{bytes} bytes are on the way, the window is {window}");
}

/// Torn and flipped bytes: the connection ends, nothing of the frame is taken, and the next connection goes on.
#[test]
fn a_damaged_byte_ends_the_connection_and_is_never_taken() {
    let mut pair = Pair::new(config(TWO_COPIES));
    pair.settle();
    let (mut refused, now) = (0, pair.now());
    for number in 0..60 {
        append(&pair.a.engine, "orders", &body(number, 500));
        pair.a.settle();
        let mut bytes = take_all(&mut pair.wire.leader, now).unwrap();
        let at = usize::try_from(number * 37).unwrap() % bytes.len();
        bytes[at] ^= 1 << (number % 8);
        match pair.wire.follower.receive(&bytes, now) {
            Err(LinkError::Protocol(_) | LinkError::Receive(_) | LinkError::Unexpected { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
            // A frame that does not seem to be whole yet.
            Ok(()) => {}
        }
        pair.connect();
        pair.settle();
        check_same(&pair);
    }
    assert!(refused > 40, "{refused} of 60");
}

/// Readers of a follower see what is committed, not what has arrived.
#[test]
fn a_follower_shows_what_the_leader_has_committed() {
    let mut config = config(TWO_COPIES);
    config.policy = Policy::Sync { copies: 3, on_missing: anchorlog_replicator::OnMissing::Refuse };
    let mut pair = Pair::new(config);
    append(&pair.a.engine, "orders", b"one");
    pair.pass(Duration::from_secs(1));
    assert_eq!(pair.b.engine.watermarks().durable, pair.a.engine.watermarks().assigned);
    assert!(payloads(&pair.b.engine, "orders").is_empty(), "one follower is not two");
    assert_eq!(pair.leader.admission(), Err(NotAdmitted::Missing { in_sync: 1, copies: 3 }));
}

/// The news of a commit travel with the next heartbeat, even when nothing more is appended.
#[test]
fn an_idle_leader_tells_what_is_committed() {
    let mut pair = Pair::new(config(TWO_COPIES));
    pair.settle();
    append(&pair.a.engine, "orders", b"the last one");
    pair.settle();
    assert_eq!(payloads(&pair.b.engine, "orders").len(), 1);
}

#[test]
fn whoever_hears_nothing_ends_the_connection() {
    let mut pair = Pair::new(config(TWO_COPIES));
    pair.settle();
    let later = pair.now() + Duration::from_secs(3);
    assert!(matches!(pair.wire.follower.send(later, 1000), Err(LinkError::Silent(_))));
    assert!(matches!(pair.wire.leader.send(later, 1000), Err(LinkError::Silent(_))));
    let due = pair.wire.follower.next_due();
    assert!(
        due > pair.now() && due <= pair.now() + Duration::from_millis(500),
        "it would not be called in time: {due:?}"
    );
}

#[test]
fn a_link_says_when_it_must_be_called() {
    let mut pair = Pair::new(config(TWO_COPIES));
    pair.settle();
    let mut voice = Voice::default();
    for _ in 0..10 {
        let due = pair.wire.leader.next_due();
        assert!(due > pair.now(), "it asks to be called at once, and has nothing to say");
        pair.clock.advance(due - pair.now());
        let now = pair.now();
        let (said, _) = voice.hear(&mut pair.wire.leader, now).unwrap();
        assert!(matches!(said[..], [Message::Heartbeat(_)]), "{said:?}");
        let again = pair.wire.leader.send(now, 1000).unwrap();
        assert!(again.is_empty(), "once is enough");
        let bytes = said[0].encode();
        pair.wire.follower.receive(&bytes, now).unwrap();
        let (said, _) = voice.hear(&mut pair.wire.follower, now).unwrap();
        assert!(matches!(said[..], [Message::Ack(_)]), "{said:?}");
        pair.wire.leader.receive(&said[0].encode(), now).unwrap();
    }
}
