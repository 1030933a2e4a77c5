//! `anchorlog topic`, `cluster` and `completion`.

use anchorlog_engine::{Clock, SystemClock};
use serde_json::json;

use crate::stage::{Stage, ended};

#[test]
fn topics_are_made_shown_and_given_more_queues() {
    let stage = Stage::new();
    stage.run(&["topic", "list"]).says(&["there are no topics"]);
    stage.run(&["topic", "create", "T1", "--queues", "2"]).says(&["topic T1 has 2 queues; clients may read, write"]);
    stage.run(&["topic", "create", "T1", "--queues", "2"]).says(&["topic T1 has 2 queues"]);
    stage.run(&["topic", "create", "T1", "--queues", "4"]).is_refused("anchorlog topic expand");
    stage.run(&["topic", "create", "a b"]).is_refused("only letters");
    let mut client = stage.client();
    for _ in 0..3 {
        client.send("T1", "", b"x");
    }
    stage.run(&["topic", "show", "T1"]).says(&["messages        3", "read, write", "oldest"]);
    let shown = stage.json(&["topic", "show", "T1"]);
    assert_eq!((&shown["queues"][0]["max"], &shown["queues"][1]["oldestMs"]), (&json!(3), &json!(null)));
    let expanded = stage.json(&["topic", "expand", "T1", "--queues", "5"]);
    assert_eq!(expanded, json!({"topic": "T1", "readQueues": 5, "writeQueues": 5, "perm": 6}));
    stage.run(&["topic", "expand", "T1", "--queues", "3"]).is_refused("fewer");
    assert_eq!(client.read("T1").len(), 3, "what is there stays");
    stage.run(&["topic", "expand", "T9", "--queues", "3"]).is_refused("T9");
    stage.run(&["topic", "show", "T9"]).is_refused("T9");
    let topics = stage.json(&["topic", "list"]);
    assert_eq!(topics["topics"].as_array().map(Vec::len), Some(1));
    let asked = stage.run(&["topic", "delete", "T1"]);
    assert_eq!((asked.code, asked.error.contains("3 messages")), (Some(2), true), "{asked:?}");
    stage.run(&["topic", "list", "--all"]).says(&["T1", "TBW102", "%RETRY%g", "read, write, inherit"]);
    stage.run(&["topic", "delete", "T1", "--yes"]).says(&["topic T1 is deleted, with 3 messages"]);
    stage.run(&["topic", "delete", "T1", "--yes"]).is_refused("does not exist");
    stage.run(&["topic", "list"]).says(&["there are no topics"]);
    assert!(client.read("T1").is_empty());
}

#[test]
fn a_cluster_is_shown_with_who_answers() {
    let stage = Stage::new();
    let address = stage.broker.address().to_string();
    stage.run(&["cluster", "show"]).says(&["DefaultCluster", "broker-a", "leader", &address, "yes"]);
    assert_eq!(stage.json(&["cluster", "show"])["brokers"][0]["answers"], json!(true));
    let elsewhere = Stage::with(|options| anchorlog::BrokerOptions {
        advertise: Some("127.0.0.1:1".parse().expect("an address")),
        ..options
    });
    let done = elsewhere.run(&["cluster", "show"]);
    assert!(done.code == Some(1) && done.out.contains("NO"), "{done:?}");
}

#[test]
fn shells_get_the_words_that_there_are() {
    for shell in ["bash", "zsh", "fish"] {
        ended(&["completion", shell]).says(&["anchorlog", "transaction", "replay"]);
    }
    assert_eq!(ended(&["completion", "nutshell"]).code, Some(2));
}

#[test]
fn a_backlog_is_republished_to_a_wider_topic_once_however_often_it_is_called_for() {
    let stage = Stage::new();
    stage.run(&["topic", "create", "T1", "--queues", "1"]).says(&["1 queues"]);
    stage.run(&["topic", "create", "T2", "--queues", "4"]).says(&["4 queues"]);
    let mut client = stage.client();
    for number in 0..30 {
        client.send("T1", &format!("KEYS=k{number};"), b"x");
    }
    let done = stage.run(&["topic", "republish", "T1", "--to", "T2", "--rate", "0"]);
    done.says(&["30 messages of T1 stand in the 4 queues of T2, too"]);
    let shown = stage.json(&["topic", "show", "T2"]);
    let counts: Vec<u64> = (0..4).map(|queue| shown["queues"][queue]["max"].as_u64().expect("a number")).collect();
    assert_eq!(counts, [8, 8, 7, 7]);
    client.send("T1", "", b"later");
    let again = stage.json(&["topic", "republish", "T1", "--to", "T2"]);
    assert_eq!((&again["moved"], &again["total"], &again["done"]), (&json!(1), &json!(1), &json!(true)));
    assert_eq!(client.read("T1").len(), 31, "they stay where they are");
    stage.run(&["topic", "republish", "T1", "--to", "T9"]).is_refused("T9");
    stage.run(&["topic", "republish", "T1", "--to", "T1"]).is_refused("anchorlog topic expand");
    stage.run(&["topic", "republish", "T1", "--to", "T2", "--group", "nobody"]).is_refused("nobody");
}

#[test]
fn republishing_is_no_faster_than_it_may_be_and_says_how_far_it_is() {
    let stage = Stage::new();
    stage.run(&["topic", "create", "T1", "--queues", "1"]).says(&["1 queues"]);
    stage.run(&["topic", "create", "T2", "--queues", "2"]).says(&["2 queues"]);
    let mut client = stage.client();
    for _ in 0..25 {
        client.send("T1", "", b"x");
    }
    let clock = SystemClock::new();
    let done = stage.run(&["topic", "republish", "T1", "--to", "T2", "--rate", "10"]);
    let took = clock.monotonic();
    done.says(&[" of 25 messages, ", "25 messages of T1"]);
    assert!(took >= std::time::Duration::from_millis(2400), "{took:?}");
}
