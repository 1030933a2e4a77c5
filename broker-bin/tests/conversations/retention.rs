//! What is left of old messages when files are dropped.

use std::time::Duration;

use anchorlog::{Broker, BrokerOptions, Driver};
use serde_json::json;

use crate::over_every_driver;
use crate::peer::Peer;
use crate::stage::{Stage, options};

over_every_driver! {
    what_a_group_has_not_consumed_outlives_its_file,
    where_the_operator_says_so_it_goes_with_its_file,
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
