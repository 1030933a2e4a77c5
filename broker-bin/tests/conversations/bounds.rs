//! What a peer may have at once, over a real socket: connections, frames, unfinished requests, sends in flight, held pulls.

use std::time::Duration;

use anchorlog::net::Bounds;
use anchorlog::{BrokerOptions, Driver};

use crate::over_every_driver;
use crate::peer::{Peer, pull_fields, send_fields};
use crate::stage::Stage;

over_every_driver! {
    a_connection_too_many_is_closed_and_others_go_on,
    a_frame_that_is_announced_too_large_ends_its_connection,
    unfinished_requests_of_one_address_are_bounded_together,
    sends_beyond_the_bound_wait_and_are_all_answered,
    a_held_pull_too_many_is_refused_with_code_2,
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
