//! Clients that send again because an answer was lost (K-6 to K-8).

#![expect(clippy::disallowed_methods, reason = "a window that ends is waited for in real time")]

use std::time::Duration;

use anchorlog::{Broker, BrokerOptions, Driver};
use serde_json::json;

use crate::over_every_driver;
use crate::peer::{Frame, Peer, send_fields};
use crate::stage::{Stage, options};

over_every_driver! {
    who_never_read_its_answer_gets_it_by_another_connection,
    who_read_its_answer_and_sends_the_same_again_means_it,
    what_was_sent_before_a_restart_is_recognised_after_it,
    a_window_that_is_over_recognises_nothing,
    without_memory_the_oldest_are_forgotten_and_counted,
    many_at_once_are_each_stored_once,
    a_large_batch_is_stored_once_too,
}

fn unique(key: impl std::fmt::Display) -> String {
    format!("UNIQ_KEY\u{1}{key}\u{2}TAGS\u{1}A\u{2}")
}

fn stored(peer: &mut Peer, queue: i64) -> i64 {
    peer.ask(30, &json!({"topic": "T1", "queueId": queue.to_string()}), &[]).expect(0).number("offset")
}

fn place(answer: &Frame) -> (String, i64, i64) {
    (answer.field("msgId").to_owned(), answer.number("queueId"), answer.number("queueOffset"))
}

/// Sends and hangs up without reading the answer; waits until the message is there.
fn send_and_hang_up(stage: &Stage, code: i64, queue: i64, properties: &str, body: &[u8]) {
    let mut watcher = stage.peer();
    let before = stored(&mut watcher, queue);
    let mut peer = stage.peer();
    peer.send(code, &send_fields("T1", queue, properties), body);
    while stored(&mut watcher, queue) == before {
        std::thread::sleep(Duration::from_millis(5));
    }
    peer.hang_up();
}

fn who_never_read_its_answer_gets_it_by_another_connection(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    peer.send_message("T1", 0, b"first", "").expect(0);
    for (round, code) in (0..5).flat_map(|round| [(round, 310), (round, 320)]) {
        let key = format!("{round}-{code}");
        let (properties, body) = match code {
            310 => (unique(&key), b"once".to_vec()),
            _ => (String::new(), [inner(&format!("a{key}")), inner(&format!("b{key}"))].concat()),
        };
        send_and_hang_up(&stage, code, 1, &properties, &body);
        let count = stored(&mut peer, 1);
        let again = peer.ask(code, &send_fields("T1", 2, &properties), &body).expect(0);
        let own = if code == 310 { 1 } else { 2 };
        assert_eq!((again.number("queueId"), again.number("queueOffset")), (1, count - own), "{key}");
        assert_eq!((stored(&mut peer, 1), stored(&mut peer, 2)), (count, 0));
        let records = peer.pull("g", "T1", 1, count - own).expect(0).records();
        let ids: Vec<_> =
            records.iter().map(|record| format!("7F00000100002A9F{:016X}", record.physical_offset)).collect();
        assert_eq!(again.field("msgId"), ids.join(","));
    }
    assert_eq!(stage.broker.counts().repeats_answered, 5 + 10);
}

/// One message of a batch.
fn inner(key: &str) -> Vec<u8> {
    let properties = unique(key);
    let total = u32::try_from(22 + key.len() + properties.len()).expect("small");
    let mut bytes = Vec::new();
    for word in [total, 0, 0, 0, u32::try_from(key.len()).expect("small")] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(key.as_bytes());
    bytes.extend(u16::try_from(properties.len()).expect("small").to_be_bytes());
    bytes.extend(properties.as_bytes());
    bytes
}

/// As many messages as fit a small segment, the last one twice: what is looked up and compared is so for each of them.
fn a_large_batch_is_stored_once_too(driver: Driver) {
    const COUNT: i64 = 4_000;
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    peer.send_message("T1", 0, b"first", "").expect(0);
    let body: Vec<u8> = (0..COUNT).flat_map(|number| inner(&format!("{}", number.min(COUNT - 2)))).collect();
    send_and_hang_up(&stage, 320, 1, "", &body);
    let again = peer.ask(320, &send_fields("T1", 2, ""), &body).expect(0);
    assert_eq!((again.number("queueId"), again.number("queueOffset")), (1, 0));
    assert_eq!((stored(&mut peer, 1), stored(&mut peer, 2)), (COUNT, 0));
    assert_eq!(stage.broker.counts().repeats_answered, u64::try_from(COUNT).expect("positive"));
}

fn who_read_its_answer_and_sends_the_same_again_means_it(driver: Driver) {
    let stage = Stage::new(driver);
    let (mut peer, mut other) = (stage.peer(), stage.peer());
    for offset in 0..3 {
        let sent = peer.send_message("T1", 0, b"tick", &unique("K")).expect(0);
        assert_eq!(sent.number("queueOffset"), offset);
    }
    // By another connection, too, as long as the first one stays open.
    assert_eq!(other.send_message("T1", 0, b"tick", &unique("K")).expect(0).number("queueOffset"), 3);
    assert_eq!(stage.broker.counts().repeats_answered, 0);
}

fn what_was_sent_before_a_restart_is_recognised_after_it(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    let places: Vec<_> =
        (0..50).map(|key| place(&peer.send_message("T1", key % 4, b"once", &unique(key)).expect(0))).collect();
    let stage = stage.restart(driver);
    let mut peer = stage.peer();
    for (key, first) in (0..).zip(&places) {
        assert_eq!(&place(&peer.send_message("T1", 0, b"once", &unique(key)).expect(0)), first);
    }
    assert_eq!((0..4).map(|queue| stored(&mut peer, queue)).sum::<i64>(), 50);
}

fn a_window_that_is_over_recognises_nothing(driver: Driver) {
    let window = Duration::from_millis(400);
    let stage = Stage::with(driver, |options| BrokerOptions { repeat_window: window, ..options });
    stage.peer().send_message("T1", 0, b"first", "").expect(0);
    send_and_hang_up(&stage, 310, 1, &unique("K"), b"once");
    std::thread::sleep(window * 2);
    let mut peer = stage.peer();
    assert_eq!(peer.send_message("T1", 1, b"once", &unique("K")).expect(0).number("queueOffset"), 1);
    // Switched off it recognises nothing at all.
    let Stage { broker, store } = stage;
    broker.stop().expect("a clean stop");
    let off = BrokerOptions { repeat_window: Duration::ZERO, ..options(store.path(), driver) };
    let stage = Stage { broker: Broker::start(off).expect("a broker"), store };
    send_and_hang_up(&stage, 310, 2, &unique("L"), b"once");
    assert_eq!(stage.peer().send_message("T1", 2, b"once", &unique("L")).expect(0).number("queueOffset"), 1);
    assert_eq!(stage.broker.counts().repeats_answered, 0);
}

fn without_memory_the_oldest_are_forgotten_and_counted(driver: Driver) {
    let stage = Stage::with(driver, |options| BrokerOptions { repeat_memory: 64 << 10, ..options });
    let mut peer = stage.peer();
    let count = 6000;
    for key in 0..count {
        let fields = send_fields("T1", 0, &unique(key));
        peer.send(310, &fields, b"once");
        if key % 100 == 99 {
            peer.ask(310, &send_fields("T1", 1, ""), b"in between").expect(0);
        }
    }
    peer.hang_up();
    let mut peer = stage.peer();
    let last = peer.send_message("T1", 2, b"once", &unique(count - 1)).expect(0);
    assert_eq!((last.number("queueId"), last.number("queueOffset")), (0, count - 1));
    let first = peer.send_message("T1", 2, b"once", &unique(0)).expect(0);
    assert_eq!((first.number("queueId"), first.number("queueOffset")), (2, 0));
    let counts = stage.broker.counts();
    assert_eq!(counts.repeats_answered, 1);
    assert!((1000..6000).contains(&counts.repeats_forgotten), "{counts:?}");
}

/// Several tries of each message by several connections at once, none of which waits for an answer.
fn many_at_once_are_each_stored_once(driver: Driver) {
    let stage = Stage::new(driver);
    stage.peer().send_message("T1", 0, b"first", "").expect(0);
    let count = 200;
    let mut peers: Vec<Peer> = (0..4).map(|_| stage.peer()).collect();
    for key in 0..count {
        for (queue, peer) in (1..).zip(&mut peers) {
            peer.send(310, &send_fields("T1", queue % 4, &unique(key)), b"once");
        }
    }
    // Each got the same answer; whoever comes later than the answer by another connection that is open is somebody else.
    let mut answers = std::collections::BTreeMap::<i64, Vec<_>>::new();
    for peer in &mut peers {
        for number in 0..count {
            let answer = peer.anything(Duration::from_secs(10)).expect("an answer").expect(0);
            answers.entry(answer.opaque() - 101).or_default().push(place(&answer));
            assert!(number < count);
        }
    }
    let distinct: std::collections::BTreeSet<_> = answers.values().flatten().collect();
    let mut peer = stage.peer();
    let stored: i64 = (0..4).map(|queue| stored(&mut peer, queue)).sum();
    assert_eq!(
        distinct.len(),
        usize::try_from(stored - 1).expect("small"),
        "every answer names a message that is there"
    );
    let counts = stage.broker.counts();
    assert_eq!(i64::try_from(counts.repeats_answered).expect("small") + stored - 1, 4 * count);
}
