//! Request and reply between clients whose connections belong to different network threads.

use std::time::Duration;

use anchorlog::Driver;
use serde_json::json;

use crate::over_every_driver;
use crate::peer::Peer;
use crate::stage::Stage;

over_every_driver! {
    a_reply_reaches_whoever_asked_and_its_taking_reaches_the_replier,
    the_topic_of_replies_has_a_route_before_the_first_reply,
}

/// The fields of a reply as Java's clients write it (325).
fn reply_to(client: &str) -> serde_json::Value {
    json!({
        "a": "p", "b": "DefaultCluster_REPLY_TOPIC", "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "1700000000000", "h": "0",
        "i": format!("MSG_TYPE\u{1}reply\u{2}REPLY_TO_CLIENT\u{1}{client}\u{2}TTL\u{1}3000\u{2}CORRELATION_ID\u{1}c\u{2}"),
        "j": "0", "k": "false", "m": "false", "n": "broker-a",
    })
}

fn beat(peer: &mut Peer, client: &str) {
    let body = json!({"clientID": client, "consumerDataSet": [], "producerDataSet": [{"groupName": "p"}]});
    peer.ask(34, &json!(null), body.to_string().as_bytes()).expect(0);
}

fn a_reply_reaches_whoever_asked_and_its_taking_reaches_the_replier(driver: Driver) {
    let stage = Stage::new(driver);
    // Connections are spread over two threads: each asker meets repliers of both.
    let mut askers: Vec<_> = (0..3).map(|number| (format!("p@{number}"), stage.peer())).collect();
    let mut repliers: Vec<_> = (0..3).map(|_| stage.peer()).collect();
    for (client, asker) in &mut askers {
        beat(asker, client);
        for replier in &mut repliers {
            let opaque = replier.send(325, &reply_to(client), b"pong");
            let push = asker.notice();
            assert_eq!((push.code(), &push.body[..], push.field("producerGroup")), (326, &b"pong"[..], "p"));
            assert_eq!(push.header["flag"], 0, "it wants an answer");
            assert!(push.field("properties").contains("CORRELATION_ID\u{1}c\u{2}"));
            assert!(replier.anything(Duration::from_millis(50)).is_none(), "nobody has taken it yet");
            asker.respond(push.opaque(), 0);
            assert_eq!(replier.answer(opaque).expect(0).field("queueId"), "0");
        }
    }
    // One that goes away is told of at once.
    let (client, mut gone) = askers.pop().expect("an asker");
    for replier in &mut repliers {
        let opaque = replier.send(325, &reply_to(&client), b"pong");
        if let Some(push) = gone.anything(Duration::from_secs(10)) {
            assert_eq!(push.code(), 326);
            gone.hang_up();
            assert!(replier.answer(opaque).expect(1).remark().contains("is gone"));
            break;
        }
    }
    assert!(repliers[1].ask(325, &reply_to(&client), b"pong").expect(1).remark().contains("not found"));
}

fn the_topic_of_replies_has_a_route_before_the_first_reply(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    let route = peer.ask(105, &json!({"topic": "DefaultCluster_REPLY_TOPIC"}), &[]).expect(0).json();
    assert_eq!((&route["queueDatas"][0]["perm"], &route["queueDatas"][0]["writeQueueNums"]), (&json!(6), &json!(1)));
    peer.ask(105, &json!({"topic": "OtherCluster_REPLY_TOPIC"}), &[]).expect(17);
}
