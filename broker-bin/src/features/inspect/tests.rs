//! What operators see, from a request to its answer, over a simulated disk and clock.

use std::time::Duration;

use serde_json::{Value, json};

use crate::net::ConnectionId;
use crate::scene::{Answer, Scene};

/// A topic with three messages in queue 0 and one in queue 1, and a group that has consumed two and is there.
fn scene() -> (Scene, ConnectionId) {
    let mut scene = Scene::new();
    let id = scene.connect();
    for (queue, body) in [(0, b"a"), (0, b"b"), (1, b"c"), (0, b"d")] {
        scene.clock.advance(Duration::from_secs(1));
        assert_eq!(scene.send(id, "T1", queue, "TAGS\u{1}T\u{2}", body).code(), 0);
    }
    let consumer = scene.connect();
    scene.beat(consumer, "client-1", "g", "T1");
    let commit = json!({"consumerGroup": "g", "topic": "T1", "queueId": "0", "commitOffset": "2"});
    assert_eq!(scene.ask(id, 15, &commit, &[]).code(), 0);
    (scene, id)
}

fn text(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).expect("text")
}

fn strict(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", text(answer)))
}

/// What a member has pulled and not committed is in flight, and what it pulls is its rate.
#[test]
fn what_a_member_has_and_has_not_committed_is_in_flight() {
    let (mut scene, id) = scene();
    let consumer = scene.connect();
    scene.beat(consumer, "client-2", "g", "T1");
    let pull = |offset: u64| {
        json!({
            "consumerGroup": "g", "topic": "T1", "queueId": 0, "queueOffset": offset, "maxMsgNums": 32, "sysFlag": 4,
            "commitOffset": 0, "suspendTimeoutMillis": 0, "subscription": "*", "subVersion": 0,
        })
    };
    assert_eq!(scene.ask(consumer, 11, &pull(0), &[]).code(), 0);
    scene.shared.state.groups.note_pulls(scene.shared.engine.clock().monotonic());
    scene.clock.advance(Duration::from_secs(2));
    assert_eq!(scene.ask(consumer, 11, &pull(3), &[]).code(), 19);
    let stats = scene.ask(id, 208, &json!({"consumerGroup": "g"}), &[]);
    let stats = text(&stats);
    assert!(stats.contains(r#""consumeTps":1.5"#), "{stats}");
    assert!(
        stats.contains(r#""brokerOffset":3,"consumerOffset":2,"#) && stats.contains(r#""pullOffset":3}"#),
        "{stats}"
    );
    let all = scene.ask(id, 317, &json!({"isOrder": "false"}), &[]);
    let all = text(&all);
    assert!(
        all.contains(r#"{"g":[{"consumeTps":1.5,"#) && all.ends_with(r#""totalDiff":2,"totalInflightDiff":1}"#),
        "{all}"
    );
}

#[test]
fn a_groups_progress_says_what_it_lacks_of_each_queue() {
    let (mut scene, id) = scene();
    let stats = scene.ask(id, 208, &json!({"consumerGroup": "g"}), &[]);
    let row = |queue: u32, broker: u64, consumer: u64, last: u64| {
        format!(
            r#"{{"brokerName":"b","queueId":{queue},"topic":"T1"}}:{{"brokerOffset":{broker},"consumerOffset":{consumer},"lastTimestamp":{last},"pullOffset":{consumer}}}"#
        )
    };
    let second_ms = scene.now_ms() - 2000;
    let rows = [row(0, 3, 2, second_ms), row(1, 1, 0, 0), row(2, 0, 0, 0), row(3, 0, 0, 0)].join(",");
    assert_eq!(text(&stats), format!(r#"{{"consumeTps":0.0,"offsetTable":{{{rows}}}}}"#));
    let none = scene.ask(id, 208, &json!({"consumerGroup": "nobody"}), &[]);
    assert_eq!((none.code(), text(&none)), (0, r#"{"consumeTps":0.0,"offsetTable":{}}"#));
    let other = scene.ask(id, 208, &json!({"consumerGroup": "g", "topic": "T2"}), &[]);
    assert_eq!(text(&other), r#"{"consumeTps":0.0,"offsetTable":{}}"#);
    let all = scene.ask(id, 317, &json!({"isOrder": "false"}), &[]);
    assert!(text(&all).contains(r#"{"g":[{"consumeTps":0.0,"#), "{}", text(&all));
    assert!(text(&all).ends_with(r#""totalDiff":2,"totalInflightDiff":0}"#), "{}", text(&all));
    let spans = strict(&scene.ask(id, 303, &json!({"topic": "T1", "group": "g"}), &[]));
    let first = &spans["consumeTimeSpanSet"][0];
    assert_eq!(first["consumeTimeStamp"], second_ms);
    assert_eq!(
        first["maxTimeStamp"].as_u64().expect("a number") - first["minTimeStamp"].as_u64().expect("a number"),
        3000
    );
    assert_eq!(first["delayTime"], 0, "the one that it lacks came just now");
    assert_eq!(
        text(&scene.ask(id, 43, &json!({}), &[])).split_once("offsetTable").expect("a table").1,
        r#"":{"T1@g":{0:2,1:0,2:0,3:0}}}"#
    );
}

#[test]
fn who_consumes_what_is_known_from_heartbeats_and_from_offsets() {
    let (mut scene, id) = scene();
    let groups = strict(&scene.ask(id, 300, &json!({"topic": "T1"}), &[]));
    assert_eq!(groups, json!({"groupList": ["g"]}));
    assert_eq!(strict(&scene.ask(id, 300, &json!({"topic": "none"}), &[])), json!({"groupList": []}));
    let topics = strict(&scene.ask(id, 343, &json!({"group": "g"}), &[]));
    assert_eq!(topics["topicList"], json!(["T1"]));
    let connections = strict(&scene.ask(id, 203, &json!({"consumerGroup": "g"}), &[]));
    let member = json!({"clientAddr": "10.0.0.5:50000", "clientId": "client-1", "language": "JAVA", "version": 479});
    assert_eq!(connections["connectionSet"], json!([member]));
    assert_eq!(connections["consumeFromWhere"], "CONSUME_FROM_FIRST_OFFSET");
    assert_eq!(connections["subscriptionTable"]["T1"]["subString"], "*");
    let subscription = strict(&scene.ask(id, 345, &json!({"group": "g", "topic": "T1"}), &[]));
    assert_eq!(subscription["subscriptionData"]["expressionType"], "TAG");
    assert_eq!(scene.ask(id, 203, &json!({"consumerGroup": "none"}), &[]).code(), 206);
    assert_eq!(strict(&scene.ask(id, 204, &json!({"producerGroup": "p"}), &[])), json!({"connectionSet": [member]}));
    assert_eq!(scene.ask(id, 204, &json!({"producerGroup": "none"}), &[]).code(), 1);
    let producers = strict(&scene.ask(id, 328, &json!({}), &[]));
    assert_eq!(producers["data"]["p"][0]["remoteIP"], "/10.0.0.5:50000");
}

#[test]
fn a_topics_queues_show_what_they_hold() {
    let (mut scene, id) = scene();
    let stats = scene.ask(id, 202, &json!({"topic": "T1"}), &[]);
    let first = r#"{"offsetTable":{{"brokerName":"b","queueId":0,"topic":"T1"}:{"lastUpdateTimestamp":"#;
    assert!(
        text(&stats).starts_with(&format!("{first}{},\"maxOffset\":3,\"minOffset\":0}}", scene.now_ms())),
        "{}",
        text(&stats)
    );
    assert!(text(&stats).ends_with(&format!("\"topicPutTps\":{:?}}}", 4.0 / 60.0)), "{}", text(&stats));
    assert_eq!(scene.ask(id, 202, &json!({"topic": "none"}), &[]).code(), 17);
    let entries =
        strict(&scene.ask(id, 321, &json!({"topic": "T1", "queueId": "0", "index": "1", "count": "10"}), &[]));
    assert_eq!((&entries["maxQueueIndex"], &entries["minQueueIndex"]), (&json!(3), &json!(0)));
    let data = entries["queueData"].as_array().expect("a list");
    assert_eq!((data.len(), &data[0]["tagsCode"]), (2, &json!(84)));
    let first = scene.read_all("T1", 0).remove(1);
    assert_eq!(data[0]["physicOffset"], first.physical_offset);
    let series = json!({"statsName": "TOPIC_PUT_NUMS", "statsKey": "T1"});
    assert_eq!(strict(&scene.ask(id, 315, &series, &[]))["statsMinute"]["sum"], 4);
    scene.clock.advance(Duration::from_secs(120));
    let later = strict(&scene.ask(id, 315, &series, &[]));
    assert_eq!((&later["statsMinute"]["sum"], &later["statsHour"]["sum"]), (&json!(0), &json!(4)));
    assert_eq!(scene.ask(id, 315, &json!({"statsName": "TOPIC_PUT_NUMS", "statsKey": "none"}), &[]).code(), 1);
    assert_eq!(scene.ask(id, 315, &json!({"statsName": "GROUP_GET_NUMS", "statsKey": "T1@g"}), &[]).code(), 3);
}

/// Tools parse these: without one of them a row is an error.
#[test]
fn the_state_has_every_number_that_tools_read() {
    let (mut scene, id) = scene();
    let table = strict(&scene.ask(id, 28, &json!({}), &[]));
    let table = table["table"].as_object().expect("pairs");
    for name in [
        "brokerVersionDesc",
        "putTps",
        "getTransferredTps",
        "sendThreadPoolQueueSize",
        "pullThreadPoolQueueSize",
        "ackThreadPoolQueueSize",
        "sendThreadPoolQueueHeadWaitTimeMills",
        "pullThreadPoolQueueHeadWaitTimeMills",
        "ackThreadPoolQueueHeadWaitTimeMills",
        "pageCacheLockTimeMills",
        "earliestMessageTimeStamp",
        "commitLogDiskRatio",
        "brokerActive",
        "timerReadBehind",
        "timerOffsetBehind",
        "timerCongestNum",
        "timerEnqueueTps",
        "timerDequeueTps",
        "msgPutTotalYesterdayMorning",
        "msgPutTotalTodayMorning",
        "msgPutTotalTodayNow",
        "msgGetTotalYesterdayMorning",
        "msgGetTotalTodayMorning",
        "msgGetTotalTodayNow",
    ] {
        assert!(table.get(name).is_some_and(Value::is_string), "{name}");
    }
    assert_eq!(table["putTps"].as_str().expect("text").split(' ').count(), 3);
    assert_eq!((&table["msgPutTotalTodayNow"], &table["brokerActive"]), (&json!("4"), &json!("true")));
    let first_ms: u64 = table["earliestMessageTimeStamp"].as_str().expect("text").parse().expect("a number");
    assert_eq!(first_ms, scene.now_ms() - 3000);
}

#[test]
fn what_the_timer_has_not_done_in_time_is_told_by_its_number_and_its_lateness() {
    let (mut scene, id) = scene();
    let timer = |scene: &mut Scene| {
        let table = strict(&scene.ask(id, 28, &json!({}), &[]));
        ["timerReadBehind", "timerCongestNum"].map(|name| table["table"][name].as_str().expect("text").to_owned())
    };
    assert!(scene.run_timer(), "it knows what is due soon");
    assert_eq!(scene.send(id, "T1", 0, "DELAY\u{1}1\u{2}", b"late").code(), 0);
    assert_eq!(timer(&mut scene), ["0", "0"]);
    // It does not run.
    scene.clock.advance(Duration::from_secs(5));
    assert_eq!(timer(&mut scene), ["4", "1"]);
    assert!(scene.run_timer());
    assert_eq!(timer(&mut scene), ["0", "0"]);
}
