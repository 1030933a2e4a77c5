use super::*;

#[test]
fn queue_names_lead_back_to_their_topics() {
    for (topic, queue) in [("T", 0), ("%RETRY%g", u32::MAX)] {
        assert_eq!(topic_of(&queue_name(topic, queue)), Some((topic, queue)));
    }
    assert_eq!(topic_of(b"\x01system"), None);
    assert_eq!(topic_of(b""), None);
}

#[test]
fn only_names_that_every_client_can_decode_are_taken() {
    let long = "a".repeat(128);
    for bad in ["", " ", "a b", "é", "a\u{1}b", "a.b", &long] {
        assert!(name_fault(bad).is_some(), "{bad:?}");
    }
    for good in ["T1", "a-b_c|d", "%RETRY%g", &"a".repeat(127)] {
        assert_eq!(name_fault(good), None, "{good:?}");
    }
}

#[test]
fn a_topic_made_after_the_template_cannot_be_one_itself() {
    let template = TopicConfig::template(8);
    let made = template.inherited(4).expect("the template may be inherited");
    assert_eq!((made.read_queues, made.write_queues, made.perm), (4, 4, 6));
    assert_eq!(template.inherited(100).expect("inherits").write_queues, 8);
    assert_eq!(template.inherited(0).expect("inherits").write_queues, 1);
    assert!(made.inherited(4).is_none());
}

mod settings {
    use serde_json::{Value, json};

    use crate::features::groups::GroupConfig;
    use crate::net::ConnectionId;
    use crate::scene::{Answer, Scene};

    fn set(scene: &mut Scene, id: ConnectionId, read: u32, write: u32) -> Answer {
        scene.ask(id, 17, &fields("T1", read, write), &[])
    }

    fn fields(name: &str, read: u32, write: u32) -> Value {
        json!({
            "topic": name, "defaultTopic": "TBW102", "readQueueNums": read.to_string(), "writeQueueNums": write.to_string(),
            "perm": "6", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false", "attributes": "", "force": "false",
        })
    }

    fn commit(scene: &mut Scene, id: ConnectionId, group: &str, queue: u32, offset: u64) {
        let fields = json!({"consumerGroup": group, "topic": "T1", "queueId": queue, "commitOffset": offset});
        assert_eq!(scene.ask(id, 15, &fields, &[]).code(), 0);
    }

    fn bodies(scene: &mut Scene, queue: u32) -> Vec<Vec<u8>> {
        scene.read_all("T1", queue).into_iter().map(|read| read.body).collect()
    }

    #[test]
    fn a_topic_gets_more_queues_while_it_is_used_and_keeps_what_is_queued() {
        let mut scene = Scene::new();
        let id = scene.connect();
        assert_eq!(set(&mut scene, id, 2, 2).code(), 0);
        for (queue, body) in [(0, b"a"), (1, b"b"), (0, b"c")] {
            assert_eq!(scene.send(id, "T1", queue, "", body).code(), 0);
        }
        // A consumer waits meanwhile, and is woken in the wider topic.
        let consumer = scene.connect();
        let pull = json!({
            "consumerGroup": "g", "topic": "T1", "queueId": 0, "queueOffset": 2, "maxMsgNums": 32, "sysFlag": 6,
            "commitOffset": 0, "suspendTimeoutMillis": 15000, "subscription": "*", "subVersion": 0,
        });
        scene.give(consumer, 11, &pull, &[]);
        assert_eq!(set(&mut scene, id, 8, 8).code(), 0);
        for queue in [0, 7] {
            assert_eq!(scene.send(id, "T1", queue, "", b"d").code(), 0);
        }
        scene.worker.watched();
        assert_eq!(scene.answers(consumer).pop().expect("woken").code(), 0);
        assert_eq!(bodies(&mut scene, 0), [b"a", b"c", b"d"].map(|body| body.to_vec()));
        assert_eq!((bodies(&mut scene, 1).len(), bodies(&mut scene, 7).len()), (1, 1));
        let mut scene = scene.crash();
        assert_eq!(scene.shared.state.topics.get("T1").expect("there").config.queues(), 8);
        assert_eq!(bodies(&mut scene, 0), [b"a", b"c", b"d"].map(|body| body.to_vec()));
    }

    #[test]
    fn k78_queues_are_taken_away_only_when_nobody_writes_them_and_everybody_has_read_them() {
        let mut scene = Scene::new();
        let id = scene.connect();
        set(&mut scene, id, 4, 4);
        for queue in [0, 3] {
            scene.send(id, "T1", queue, "", b"x");
        }
        for group in ["g", "h"] {
            scene.shared.state.put_group(group, GroupConfig::default());
        }
        let refused = |answer: &Answer, says: &str| {
            let remark = answer.header["remark"].as_str().expect("a remark");
            assert!(answer.code() == 29 && remark.contains(says), "{}", answer.header);
        };
        refused(&set(&mut scene, id, 2, 2), "set writeQueueNums to 2 and leave readQueueNums at 4");
        refused(&set(&mut scene, id, 2, 4), "would be seen by nobody");
        assert_eq!(set(&mut scene, id, 4, 2).code(), 0);
        // Who does not know yet is served.
        assert_eq!(scene.send(id, "T1", 3, "", b"y").code(), 0);
        refused(&set(&mut scene, id, 2, 2), "queue 3 holds 2 messages that nobody has consumed");
        commit(&mut scene, id, "g", 3, 2);
        commit(&mut scene, id, "h", 0, 1);
        refused(&set(&mut scene, id, 2, 2), "group h has not consumed 2 messages of queue 3");
        commit(&mut scene, id, "h", 3, 2);
        assert_eq!(set(&mut scene, id, 2, 2).code(), 0);
        assert_eq!(scene.send(id, "T1", 3, "", b"z").code(), 29);
    }

    /// K-77: neither messages nor offsets of the first topic count for the second, now and after a crash.
    #[test]
    fn k77_a_topic_that_is_deleted_and_made_again_begins_anew() {
        let mut scene = Scene::new();
        let id = scene.connect();
        set(&mut scene, id, 2, 2);
        for n in 0..5u8 {
            scene.send(id, "T1", 0, "KEYS\u{1}k\u{2}", &[n]);
        }
        commit(&mut scene, id, "g", 0, 4);
        assert_eq!(scene.ask(id, 215, &json!({"topic": "T1"}), &[]).code(), 0);
        assert_eq!(scene.ask(id, 216, &json!({"topic": "T1"}), &[]).code(), 0);
        assert_eq!(scene.ask(id, 105, &json!({"topic": "T1"}), &[]).code(), 17);
        assert!(scene.entries(b"topic/T1").is_empty() && scene.entries(b"offset/").is_empty());
        let query = json!({"topic": "T1", "key": "k", "maxNum": "32", "beginTimestamp": "0", "endTimestamp": "0"});
        assert_eq!(scene.ask(id, 12, &query, &[]).code(), 22);
        for crash in [false, true] {
            if crash {
                scene = scene.crash();
            }
            let id = scene.connect();
            assert_eq!(scene.ask(id, 215, &json!({"topic": "T1"}), &[]).code(), 0, "also when it is gone");
            let sent = scene.send(id, "T1", 0, "", b"new");
            assert_eq!((sent.code(), sent.field("queueOffset")), (0, "0"));
            assert_eq!(bodies(&mut scene, 0), [b"new".to_vec()]);
            let asked = json!({"consumerGroup": "g", "topic": "T1", "queueId": "0"});
            assert_eq!(scene.ask(id, 14, &asked, &[]).field("offset"), "0");
            scene.ask(id, 215, &json!({"topic": "T1"}), &[]);
        }
        for own in ["TBW102", "SCHEDULE_TOPIC_XXXX", " "] {
            assert_eq!(scene.ask(id, 215, &json!({"topic": own}), &[]).code(), 29, "{own}");
        }
    }

    /// The power fails at every step of a deletion: the topic is there as a whole name, or gone; nothing of it comes back after that.
    #[test]
    fn a_deletion_that_a_crash_cuts_short_can_be_repeated() {
        for seed in 0..20 {
            let mut scene = Scene::new();
            let id = scene.connect();
            set(&mut scene, id, 3, 3);
            for queue in 0..3 {
                scene.send(id, "T1", queue, "", b"old");
            }
            commit(&mut scene, id, "g", 0, 1);
            scene.give(id, 215, &json!({"topic": "T1"}), &[]);
            while scene.worker.task_count() > 0 {
                std::thread::yield_now();
                scene.worker.mail();
            }
            let mut scene = scene.crash_somehow(seed);
            let id = scene.connect();
            assert_eq!(scene.ask(id, 215, &json!({"topic": "T1"}), &[]).code(), 0);
            assert_eq!(set(&mut scene, id, 3, 3).code(), 0);
            assert!((0..3).all(|queue| bodies(&mut scene, queue).is_empty()), "seed {seed}");
            assert_eq!(scene.send(id, "T1", 0, "", b"new").field("queueOffset"), "0");
        }
    }

    #[test]
    fn settings_are_shown_and_set_one_by_one_or_as_a_list() {
        let mut scene = Scene::new();
        let id = scene.connect();
        let list = json!({"topicConfigList": [
            {"topicName": "T1", "readQueueNums": 3, "writeQueueNums": 2, "perm": 6},
            {"topicName": "T2", "attributes": {"+message.type": "NORMAL"}},
        ]});
        assert_eq!(scene.ask(id, 18, &json!({}), list.to_string().as_bytes()).code(), 0);
        let shown = scene.ask(id, 351, &json!({"topic": "T1", "lo": "true"}), &[]);
        assert_eq!(
            String::from_utf8_lossy(&shown.body),
            r#"{"attributes":{},"order":false,"perm":6,"readQueueNums":3,"topicFilterType":"SINGLE_TAG","topicName":"T1","topicSysFlag":0,"writeQueueNums":2}"#
        );
        assert_eq!(scene.ask(id, 351, &json!({"topic": "none"}), &[]).code(), 17);
        let all: Value = serde_json::from_slice(&scene.ask(id, 21, &json!({}), &[]).body).expect("JSON");
        assert_eq!(all["topicConfigTable"]["T2"]["readQueueNums"], 16);
        // One bad one spoils the list.
        let list = json!({"topicConfigList": [{"topicName": "T3"}, {"topicName": "a b"}]});
        assert_eq!(scene.ask(id, 18, &json!({}), list.to_string().as_bytes()).code(), 29);
        assert!(scene.shared.state.topics.get("T3").is_none());
        let mut odd = fields("T4", 1, 1);
        odd["attributes"] = json!("+queue.type=BatchCQ");
        assert_eq!(scene.ask(id, 17, &odd, &[]).code(), 3);
    }
}
