//! What a peer may have at once, over a real socket: connections, frames, unfinished requests, sends in flight, held pulls.

use std::time::Duration;

use anchorlog::net::Bounds;
use anchorlog::{BrokerOptions, Driver};
use serde_json::json;

use crate::over_every_driver;
use crate::peer::{Peer, pull_fields, send_fields};
use crate::stage::Stage;

over_every_driver! {
    a_connection_too_many_is_closed_and_others_go_on,
    a_frame_that_is_announced_too_large_ends_its_connection,
    unfinished_requests_of_one_address_are_bounded_together,
    sends_beyond_the_bound_wait_and_are_all_answered,
    a_held_pull_too_many_is_refused_with_code_2,
    a_client_has_so_many_connections_and_no_more,
    a_client_s_held_pulls_count_together,
    a_client_s_sends_wait_together_and_are_all_answered,
    a_client_s_unfinished_requests_are_bounded_together,
}

fn bounded(driver: Driver, bounds: Bounds) -> Stage {
    Stage::with(driver, |options| BrokerOptions { bounds, network_threads: Some(1), ..options })
}

fn a_connection_too_many_is_closed_and_others_go_on(driver: Driver) {
    let stage = bounded(driver, Bounds { connections_per_address: 3, ..Bounds::default() });
    let mut peers: Vec<_> = (0..3).map(|_| stage.peer()).collect();
    for peer in &mut peers {
        peer.send_message("T1", 0, b"x", "").expect(0);
    }
    assert!(stage.peer().sees_close());
    assert_eq!(stage.broker.counts().connections_refused, 1);
    peers.pop().expect("three").hang_up();
    crate::doors::eventually("there is room again", || {
        let mut peer = stage.peer();
        let opaque = peer.send(310, &send_fields("T1", 0, ""), b"x");
        peer.anything(Duration::from_millis(500)).is_some_and(|frame| frame.opaque() == opaque)
    });
    peers[0].send_message("T1", 0, b"x", "").expect(0);
}

fn a_frame_that_is_announced_too_large_ends_its_connection(driver: Driver) {
    let stage = bounded(driver, Bounds { frame_bytes: 100 << 10, ..Bounds::default() });
    let mut peer = stage.peer();
    peer.send_message("T1", 0, &[7; 90 << 10], "").expect(0);
    peer.raw(&((100 << 10) + 1u32).to_be_bytes());
    assert!(peer.sees_close());
    assert_eq!(stage.broker.counts().bad_frames, 1);
}

fn unfinished_requests_of_one_address_are_bounded_together(driver: Driver) {
    let stage = bounded(driver, Bounds { unfinished_bytes_per_address: 3 << 20, ..Bounds::default() });
    let begin = |bytes: usize| {
        let mut peer = stage.peer();
        peer.raw(&(4u32 << 20).to_be_bytes());
        peer.raw(&vec![0; bytes]);
        peer
    };
    let mut first = begin(2 << 20);
    let mut bystander = stage.peer();
    // Each of these gives the other connection a turn, and it takes so many to read what that one sent: it is all there then.
    for _ in 0..256 {
        bystander.send_message("T1", 0, b"x", "").expect(0);
    }
    let mut second = begin(0);
    // The broker may close it in the middle.
    let _any = std::io::Write::write_all(&mut second.stream, &vec![0; 3 << 20]);
    assert!(second.sees_close(), "it went beyond what its address may have");
    bystander.send_message("T1", 0, &[7; 900 << 10], "").expect(0);
    assert_eq!(stage.broker.counts().unfinished_closed, 1);
    assert!(first.anything(Duration::from_millis(100)).is_none(), "the other one goes on");
}

fn sends_beyond_the_bound_wait_and_are_all_answered(driver: Driver) {
    const SENDS: usize = 300;
    let stage = bounded(driver, Bounds { in_flight_bytes: 20_000, ..Bounds::default() });
    let mut peer = stage.peer();
    let mut bytes = Vec::new();
    let opaques: Vec<_> = (0..SENDS)
        .map(|_| {
            let (request, opaque) = peer.request(310, &send_fields("T1", 0, ""), &[7; 1000], 0);
            bytes.extend(request);
            opaque
        })
        .collect();
    peer.raw(&bytes);
    for opaque in opaques {
        peer.answer(opaque).expect(0);
    }
    let counts = stage.broker.counts();
    assert!(counts.connections_held_back > 0, "{counts:?}");
    assert_eq!(counts.messages_acked, SENDS as u64);
}

fn a_held_pull_too_many_is_refused_with_code_2(driver: Driver) {
    let stage = bounded(driver, Bounds { held_pulls: 4, held_pulls_per_address: 6, ..Bounds::default() });
    let mut peer = stage.peer();
    peer.send_message("T1", 0, b"x", "").expect(0);
    let hold = |peer: &mut Peer| peer.send(11, &pull_fields("g", "T1", 0, 1, 6, "*"), &[]);
    let held: Vec<_> = (0..4).map(|_| hold(&mut peer)).collect();
    let refused = hold(&mut peer);
    assert!(peer.answer(refused).expect(2).remark().contains("too many pulls"));
    let mut other = stage.peer();
    for _ in 0..2 {
        hold(&mut other);
    }
    let refused = hold(&mut other);
    other.answer(refused).expect(2);
    assert_eq!(stage.broker.counts().pulls_refused, 2);
    stage.peer().send_message("T1", 0, b"y", "").expect(0);
    for opaque in held {
        assert_eq!(peer.answer(opaque).expect(0).records()[0].body, b"y");
    }
    // Those that were answered leave room for others.
    let again = peer.send(11, &pull_fields("g", "T1", 0, 2, 6, "*"), &[]);
    other.hang_up();
    stage.peer().send_message("T1", 0, b"z", "").expect(0);
    peer.answer(again).expect(0);
}

/// The heartbeat of one who only sends: nobody is told that it comes and goes.
fn beat(client: &str) -> Vec<u8> {
    let body = json!({"clientID": client, "consumerDataSet": [], "producerDataSet": [{"groupName": "p"}]});
    body.to_string().into_bytes()
}

/// A connection that says whose it is.
fn peer_of(stage: &Stage, client: &str) -> Peer {
    let mut peer = stage.peer();
    peer.ask(34, &json!({}), &beat(client)).expect(0);
    peer
}

fn a_client_has_so_many_connections_and_no_more(driver: Driver) {
    let stage = bounded(driver, Bounds { connections_per_client: 2, ..Bounds::default() });
    let mut first = peer_of(&stage, "c1");
    let second = peer_of(&stage, "c1");
    // Those who say nothing, and those who say something else, are others.
    stage.peer().send_message("T1", 0, b"x", "").expect(0);
    let mut other = peer_of(&stage, "c2");
    let mut third = stage.peer();
    third.send(34, &json!({}), &beat("c1"));
    assert!(third.sees_close());
    assert_eq!(stage.broker.counts().connections_refused, 1);
    // Who is known already may say so again.
    first.send(34, &json!({}), &beat("c1"));
    first.send_message("T1", 0, b"x", "").expect(0);
    other.send_message("T1", 0, b"x", "").expect(0);
    second.hang_up();
    crate::doors::eventually("there is room again", || {
        let mut peer = stage.peer();
        peer.send(34, &json!({}), &beat("c1"));
        let sent = peer.send(310, &send_fields("T1", 0, ""), b"x");
        let answers = [(); 2].map(|()| peer.anything(Duration::from_millis(500)));
        answers.into_iter().flatten().any(|frame| frame.opaque() == sent)
    });
}

fn a_client_s_held_pulls_count_together(driver: Driver) {
    let stage = bounded(driver, Bounds { held_pulls: 4, held_pulls_per_client: 6, ..Bounds::default() });
    stage.peer().send_message("T1", 0, b"x", "").expect(0);
    let hold = |peer: &mut Peer| peer.send(11, &pull_fields("g", "T1", 0, 1, 6, "*"), &[]);
    let [mut one, mut two] = ["c1", "c1"].map(|client| peer_of(&stage, client));
    let held: Vec<_> = (0..4).map(|_| hold(&mut one)).collect();
    hold(&mut two);
    hold(&mut two);
    let refused = hold(&mut two);
    assert!(two.answer(refused).expect(2).remark().contains("its client"));
    // Another client has its own share.
    let mut other = peer_of(&stage, "c2");
    let others = hold(&mut other);
    // What a connection held that is gone is given back.
    two.hang_up();
    stage.peer().send_message("T1", 0, b"y", "").expect(0);
    for opaque in held {
        one.answer(opaque).expect(0);
    }
    other.answer(others).expect(0);
    assert_eq!(stage.broker.counts().pulls_refused, 1);
    let mut again = peer_of(&stage, "c1");
    let held: Vec<_> = (0..4).map(|_| again.send(11, &pull_fields("g", "T1", 0, 2, 6, "*"), &[])).collect();
    stage.peer().send_message("T1", 0, b"z", "").expect(0);
    for opaque in held {
        again.answer(opaque).expect(0);
    }
}

fn a_client_s_sends_wait_together_and_are_all_answered(driver: Driver) {
    const SENDS: usize = 200;
    let bounds = Bounds { in_flight_bytes_per_client: 20_000, ..Bounds::default() };
    // On several threads, so that one connection waits for what another thread hears of.
    let stage = Stage::with(driver, |options| BrokerOptions { bounds, network_threads: Some(2), ..options });
    let mut peers: Vec<_> = (0..4).map(|_| peer_of(&stage, "c1")).collect();
    let mut asked = Vec::new();
    for peer in &mut peers {
        let mut bytes = Vec::new();
        let opaques: Vec<_> = (0..SENDS)
            .map(|_| {
                let (request, opaque) = peer.request(310, &send_fields("T1", 0, ""), &[7; 1000], 0);
                bytes.extend(request);
                opaque
            })
            .collect();
        peer.raw(&bytes);
        asked.push(opaques);
    }
    for (peer, opaques) in peers.iter_mut().zip(asked) {
        for opaque in opaques {
            peer.answer(opaque).expect(0);
        }
    }
    let counts = stage.broker.counts();
    assert!(counts.connections_held_back > 0, "{counts:?}");
    assert_eq!(counts.messages_acked, 4 * SENDS as u64);
}

fn a_client_s_unfinished_requests_are_bounded_together(driver: Driver) {
    let stage = bounded(driver, Bounds { unfinished_bytes_per_client: 1 << 20, ..Bounds::default() });
    let begin = |client: &str, bytes: usize| {
        let mut peer = peer_of(&stage, client);
        peer.raw(&(4u32 << 20).to_be_bytes());
        // The broker may close it in the middle.
        let _any = std::io::Write::write_all(&mut peer.stream, &vec![0; bytes]);
        peer
    };
    let mut first = begin("c1", 700 << 10);
    let mut other = begin("c2", 700 << 10);
    let mut bystander = stage.peer();
    // Each of these gives the other connections a turn: all that they sent is there then.
    for _ in 0..256 {
        bystander.send_message("T1", 0, b"x", "").expect(0);
    }
    assert!(begin("c1", 700 << 10).sees_close(), "it went beyond what its client may have");
    assert_eq!(stage.broker.counts().unfinished_closed, 1);
    for peer in [&mut first, &mut other] {
        assert!(peer.anything(Duration::from_millis(100)).is_none(), "the others go on");
    }
}
