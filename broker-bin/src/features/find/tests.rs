//! Searches from a request to its answer, over a simulated disk and clock.

use std::time::Duration;

use serde_json::json;

use crate::limits;
use crate::net::ConnectionId;
use crate::scene::{Answer, Scene};
use crate::wire::message::{Record, property, records};

fn found(answer: &Answer) -> Vec<Record<'_>> {
    records(&answer.body).collect::<Result<_, _>>().expect("records")
}

fn query(scene: &mut Scene, id: ConnectionId, topic: &str, key: &str, more: &serde_json::Value) -> Answer {
    let mut fields = json!({
        "topic": topic, "key": key, "maxNum": "32", "beginTimestamp": "0", "endTimestamp": i64::MAX.to_string(),
        "_UNIQUE_KEY_QUERY": "false",
    });
    for (name, value) in more.as_object().expect("fields") {
        fields[name] = value.clone();
    }
    scene.ask(id, 12, &fields, &[])
}

#[test]
fn a_message_is_found_by_every_key_and_by_its_producers_id_and_only_in_its_topic() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let properties = |n: u32| format!("UNIQ_KEY\u{1}ID{n}\u{2}KEYS\u{1}order-{n} customer\u{2}TAGS\u{1}A\u{2}");
    for (n, topic) in [(1, "T1"), (2, "T1"), (3, "T2")] {
        assert_eq!(scene.send(id, topic, 0, &properties(n), format!("body {n}").as_bytes()).code(), 0);
    }
    let both = query(&mut scene, id, "T1", "customer", &json!({}));
    assert_eq!(both.code(), 0, "{}", both.header);
    let bodies: Vec<_> = found(&both).iter().map(|record| record.body.to_vec()).collect();
    assert_eq!(bodies, [b"body 2".to_vec(), b"body 1".to_vec()], "the newest first");
    assert!(both.field("indexLastUpdatePhyoffset").parse::<u64>().expect("a number") > 0);
    assert_eq!(both.field("indexLastUpdateTimestamp"), scene.now_ms().to_string());
    for key in ["order-1", "ID1"] {
        let one = query(&mut scene, id, "T1", key, &json!({"_UNIQUE_KEY_QUERY": "true"}));
        let records = found(&one);
        assert_eq!((records.len(), records[0].body, &*records[0].topic), (1, &b"body 1"[..], "T1"), "{key}");
        assert_eq!(property(&records[0].properties, "UNIQ_KEY"), Some("ID1"));
    }
    for (topic, key) in [("T2", "order-1"), ("T1", "order"), ("nowhere", "customer"), ("T1", "A")] {
        let none = query(&mut scene, id, topic, key, &json!({}));
        assert_eq!((none.code(), none.body.len()), (22, 0), "{topic} {key}");
    }
    assert_eq!(scene.ask(id, 12, &json!({"topic": "T1"}), &[]).code(), 1);
}

#[test]
fn a_search_keeps_to_its_time_and_its_count() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let mut times = Vec::new();
    for n in 0..80u32 {
        scene.clock.advance(Duration::from_millis(10));
        times.push(scene.now_ms());
        // Others of the same key lie between them, elsewhere.
        scene.send(id, "T2", 0, "KEYS\u{1}k\u{2}", b"elsewhere");
        scene.send(id, "T1", 0, "KEYS\u{1}k\u{2}", &n.to_be_bytes());
    }
    let numbers = |answer: &Answer| -> Vec<u32> {
        found(answer).iter().map(|record| u32::from_be_bytes(record.body.try_into().expect("four bytes"))).collect()
    };
    let few = query(&mut scene, id, "T1", "k", &json!({"maxNum": "3"}));
    assert_eq!(numbers(&few), [79, 78, 77]);
    let most = query(&mut scene, id, "T1", "k", &json!({"maxNum": "1000"}));
    assert_eq!(numbers(&most).len(), limits::FIND_MESSAGES_MAX);
    let time = json!({"beginTimestamp": times[10].to_string(), "endTimestamp": times[12].to_string()});
    assert_eq!(numbers(&query(&mut scene, id, "T1", "k", &time)), [12, 11, 10]);
    let unique = query(&mut scene, id, "T1", "k", &json!({"maxNum": "1000", "_UNIQUE_KEY_QUERY": "true"}));
    assert_eq!(numbers(&unique).len(), limits::FIND_UNIQUE_MAX);
}

#[test]
fn a_message_is_found_at_its_place_and_nothing_is_found_elsewhere() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let sent = scene.send(id, "T1", 2, "UNIQ_KEY\u{1}K\u{2}", b"hello");
    let at =
        |scene: &mut Scene, offset: i64| scene.ask(id, 33, &json!({"offset": offset.to_string(), "topic": "T1"}), &[]);
    let place = i64::try_from(sent.physical_offset()).expect("small");
    let answer = at(&mut scene, place);
    assert_eq!((answer.code(), answer.header["extFields"].is_null()), (0, true));
    let [record] = &found(&answer)[..] else { panic!("one message") };
    assert_eq!(
        (&*record.topic, record.body, record.head.queue_id, record.head.physical_offset),
        ("T1", &b"hello"[..], 2, place)
    );
    for odd in [place + 8, 0, -1, i64::MAX] {
        assert_eq!(at(&mut scene, odd).code(), 1, "{odd}");
    }
    assert_eq!(scene.ask(id, 33, &json!({}), &[]).code(), 1);
}

#[test]
fn what_is_delayed_or_undecided_is_found_by_its_place_alone() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let delayed = scene.send(id, "T1", 0, "UNIQ_KEY\u{1}D\u{2}DELAY\u{1}5\u{2}", b"later");
    let half = scene.send(id, "T1", 0, "UNIQ_KEY\u{1}H\u{2}TRAN_MSG\u{1}true\u{2}PGROUP\u{1}p\u{2}", b"half");
    for (sent, topic, body) in
        [(&delayed, "SCHEDULE_TOPIC_XXXX", &b"later"[..]), (&half, "RMQ_SYS_TRANS_HALF_TOPIC", b"half")]
    {
        assert_eq!(sent.code(), 0);
        let answer = scene.ask(id, 33, &json!({"offset": sent.physical_offset().to_string()}), &[]);
        let [record] = &found(&answer)[..] else { panic!("one message: {}", answer.header) };
        assert_eq!((&*record.topic, record.body), (topic, body));
        assert_eq!(property(&record.properties, "REAL_TOPIC"), Some("T1"), "where it is meant to go");
    }
    for key in ["D", "H"] {
        assert_eq!(query(&mut scene, id, "T1", key, &json!({})).code(), 22, "nobody can consume it yet");
    }
    scene.pass(Duration::from_secs(60));
    assert_eq!(found(&query(&mut scene, id, "T1", "D", &json!({}))).len(), 1, "now everybody can");
}

/// What a search finds is in the log, not in memory: it is found again after a crash.
#[test]
fn messages_are_found_again_after_a_crash() {
    let mut scene = Scene::new();
    let id = scene.connect();
    scene.send(id, "T1", 0, "UNIQ_KEY\u{1}K\u{2}", b"hello");
    let mut scene = scene.crash();
    let id = scene.connect();
    assert_eq!(found(&query(&mut scene, id, "T1", "K", &json!({}))).len(), 1);
}
