//! What is left of old messages when files are dropped.

use std::time::Duration;

use anchorlog::{Broker, BrokerOptions, Driver};
use serde_json::json;

use crate::over_every_driver;
use crate::peer::{Peer, heartbeat};
use crate::stage::{Stage, options};

over_every_driver! {
    what_a_group_has_not_consumed_outlives_its_file,
    where_the_operator_says_so_it_goes_with_its_file,
    k68_a_group_that_wants_the_last_begins_where_it_registered_whatever_happens_before_its_first_poll,
    k68_what_a_group_has_not_polled_yet_outlives_its_file,
}

/// Two files of 64 KiB, and no more than that.
fn short(options: BrokerOptions) -> BrokerOptions {
    let engine = options.engine.with_segment_bytes(64 << 10).with_buffer_bytes(64 << 10).with_chunk_bytes(16 << 10);
    BrokerOptions { engine: engine.with_retain_bytes(Some(128 << 10)), ..options }
}

fn lossy(options: BrokerOptions) -> BrokerOptions {
    BrokerOptions { keep_unconsumed: false, ..short(options) }
}

fn restart(stage: Stage, driver: Driver, change: fn(BrokerOptions) -> BrokerOptions) -> Stage {
    let Stage { broker, store } = stage;
    broker.stop().expect("a clean stop");
    let broker = Broker::start(change(options(store.path(), driver))).expect("a broker again");
    Stage { broker, store }
}

fn first_offset(peer: &mut Peer, queue: i64) -> i64 {
    peer.ask(31, &json!({"topic": "T1", "queueId": queue.to_string()}), &[]).expect(0).number("offset")
}

fn commit(peer: &mut Peer, offset: i64) {
    let fields = json!({"consumerGroup": "g", "topic": "T1", "queueId": "0", "commitOffset": offset.to_string()});
    peer.ask(15, &fields, &[]).expect(0);
}

/// Sends to queue 1 until `done` says so.
fn send_until(peer: &mut Peer, what: &str, done: impl Fn(&mut Peer) -> bool) {
    for _ in 0..1000 {
        if done(peer) {
            return;
        }
        for _ in 0..20 {
            peer.send_message("T1", 1, &[b'x'; 2000], "").expect(0);
        }
        assert!(peer.anything(Duration::from_millis(10)).is_none(), "nobody asked");
    }
    panic!("{what}: it does not come to that");
}

/// A broker with ten messages in queue 0, of which a group has consumed four, and none of which was ever the last file's.
fn begun(driver: Driver, change: fn(BrokerOptions) -> BrokerOptions) -> Stage {
    let stage = Stage::with(driver, change);
    let mut peer = stage.peer();
    for number in 0..10 {
        peer.send_message("T1", 0, format!("message {number}").as_bytes(), "").expect(0);
    }
    commit(&mut peer, 4);
    // What was read back is pinned before anything may go.
    restart(stage, driver, change)
}

fn bodies(peer: &mut Peer, offset: i64) -> Vec<String> {
    let records = peer.pull("g", "T1", 0, offset).expect(0).records();
    records.into_iter().map(|record| String::from_utf8(record.body).expect("text")).collect()
}

/// Closes K-61: by size alone, what a group has not consumed goes.
fn what_a_group_has_not_consumed_outlives_its_file(driver: Driver) {
    let stage = begun(driver, short);
    let mut peer = stage.peer();
    send_until(&mut peer, "the first files go", |peer| first_offset(peer, 1) > 100);
    assert_eq!(first_offset(&mut peer, 0), 4, "what was consumed goes, what was not stays");
    let kept: Vec<_> = (4..10).map(|number| format!("message {number}")).collect();
    assert_eq!(bodies(&mut peer, 4), kept);
    // It is there after a restart, too, and goes when the group has had it.
    let stage = restart(stage, driver, short);
    let mut peer = stage.peer();
    assert_eq!(bodies(&mut peer, 4), kept);
    commit(&mut peer, 8);
    send_until(&mut peer, "the pin follows the group", |peer| first_offset(peer, 0) == 8);
    assert_eq!(bodies(&mut peer, 8), kept[4..]);
    commit(&mut peer, 10);
    send_until(&mut peer, "nothing is kept for nobody", |peer| first_offset(peer, 0) == 10);
}

fn where_the_operator_says_so_it_goes_with_its_file(driver: Driver) {
    let stage = begun(driver, lossy);
    let mut peer = stage.peer();
    send_until(&mut peer, "the first files go", |peer| first_offset(peer, 1) > 100);
    assert_eq!(first_offset(&mut peer, 0), 10);
}

fn register(peer: &mut Peer, client: &str) {
    let body = String::from_utf8(heartbeat(client, "late", "T1", "*", 1)).expect("text");
    assert!(body.contains("CONSUME_FROM_LAST_OFFSET"), "{body}");
    peer.ask(34, &json!(null), body.as_bytes()).expect(0);
}

fn begins(peer: &mut Peer, queue: i64) -> i64 {
    peer.ask(14, &json!({"consumerGroup": "late", "topic": "T1", "queueId": queue.to_string()}), &[])
        .expect(0)
        .number("offset")
}

/// Closes K-68: the original would answer 22, and the client take whatever is last when it polls.
fn k68_a_group_that_wants_the_last_begins_where_it_registered_whatever_happens_before_its_first_poll(driver: Driver) {
    let stage = begun(driver, lossy);
    let mut peer = stage.peer();
    send_until(&mut peer, "the first files go", |peer| first_offset(peer, 1) > 100 && first_offset(peer, 0) == 10);
    let end = peer.ask(30, &json!({"topic": "T1", "queueId": "1"}), &[]).expect(0).number("offset");
    let mut member = stage.peer();
    register(&mut member, "c@1");
    for number in 0..3 {
        peer.send_message("T1", 1, format!("since {number}").as_bytes(), "").expect(0);
    }
    // Neither it nor the broker lives until its first poll.
    member.hang_up();
    let stage = restart(stage, driver, lossy);
    let mut member = stage.peer();
    register(&mut member, "c@2");
    assert_eq!((begins(&mut member, 0), begins(&mut member, 1)), (10, end));
    let found = member.pull("late", "T1", 1, end).expect(0).records();
    assert_eq!(
        found.iter().map(|record| record.body.clone()).collect::<Vec<_>>(),
        [b"since 0", b"since 1", b"since 2"]
    );
}

/// The same: what is sent since the registration is kept for the group like what it has not consumed.
fn k68_what_a_group_has_not_polled_yet_outlives_its_file(driver: Driver) {
    let stage = Stage::with(driver, short);
    let mut peer = stage.peer();
    peer.send_message("T1", 0, b"the first", "").expect(0);
    let mut member = stage.peer();
    register(&mut member, "c@1");
    member.hang_up();
    send_until(&mut peer, "files go but for what is kept", |peer| {
        let end = peer.ask(30, &json!({"topic": "T1", "queueId": "1"}), &[]).expect(0).number("offset");
        end > 300
    });
    let mut member = stage.peer();
    register(&mut member, "c@1");
    assert_eq!(begins(&mut member, 0), 0);
    assert_eq!(member.pull("late", "T1", 0, 0).expect(0).records()[0].body, b"the first");
}
