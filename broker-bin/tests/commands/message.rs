//! `anchorlog message` and `trace`.

use serde_json::json;

use crate::stage::Stage;

#[test]
fn messages_are_found_by_time_tag_and_queue() {
    let stage = Stage::new();
    let mut client = stage.client();
    for number in 0..5 {
        let tag = if number == 3 { "rare" } else { "usual" };
        client.send("T1", &format!("UNIQ_KEY=K{number};KEYS=order-{number};TAGS={tag}"), b"hello");
    }
    stage.run(&["message", "find", "T1"]).says(&["K0", "K4", "order-2", "usual"]);
    stage.run(&["message", "find", "T1", "--limit", "2"]).says(&["K1", "there may be more: --after 0.2"]);
    let rest = stage.json(&["message", "find", "T1", "--after", "0.2"]);
    assert_eq!(rest["messages"].as_array().map(Vec::len), Some(3));
    assert_eq!(stage.json(&["message", "find", "T1", "--tag", "rare"])["messages"][0]["uniqueKey"], "K3");
    assert_eq!(stage.json(&["message", "find", "T1", "--from", "now+1h"])["messages"], json!([]));
    stage.run(&["message", "find", "T1", "--queue", "1"]).says(&["no message is such a one"]);
    stage.run(&["message", "find", "T9"]).is_refused("T9");
}

#[test]
fn messages_are_found_by_key_and_id_and_shown() {
    let stage = Stage::new();
    let mut client = stage.client();
    for number in 0..3 {
        client.send("T1", &format!("UNIQ_KEY=K{number};KEYS=order-{number} all;x=y"), b"hello");
    }
    stage.run(&["message", "find", "T1", "--key", "order-1"]).says(&["K1", "order-1 all"]);
    assert_eq!(stage.json(&["message", "find", "T1", "--key", "all"])["messages"].as_array().map(Vec::len), Some(3));
    let found = stage.json(&["message", "find", "T1", "--id", "K2"]);
    assert_eq!(
        (found["messages"].as_array().map(Vec::len), &found["messages"][0]["uniqueKey"]),
        (Some(1), &json!("K2"))
    );
    stage.run(&["message", "find", "T1", "--key", "nothing"]).says(&["no message is such a one"]);
    stage.run(&["message", "find", "T1", "--key", "all", "--from", "now+1h"]).says(&["no message is such a one"]);
    let id = found["messages"][0]["id"].as_str().expect("an id");
    stage.run(&["message", "show", id]).says(&["K2", "T1 queue 0 offset 2", "x = y", "hello"]);
    let shown = stage.json(&["message", "show", id]);
    assert_eq!((&shown["body"], &shown["lsn"]), (&json!("aGVsbG8="), &found["messages"][0]["lsn"]));
    let elsewhere = format!("{}FF", &id[..id.len() - 2]);
    stage.run(&["message", "show", &elsewhere]).is_refused("no message");
    assert_eq!(stage.run(&["message", "show", "K2"]).code, Some(2), "it has another form");
}

#[test]
fn what_became_of_a_message_is_told_from_the_log() {
    let stage = Stage::new();
    let mut client = stage.client();
    client.dead_letter("T1", "UNIQ_KEY=K1;KEYS=order-1", b"poison");
    stage.run(&["trace", "K1"]).says(&["made", "stored", "T1", "dead letter", "after 1 attempts"]);
    stage.run(&["dlq", "replay", "g", "K1"]).says(&["1 dead letters are returned"]);
    let trace = stage.json(&["trace", "K1"]);
    let kinds: Vec<_> = trace["steps"].as_array().expect("a list").iter().map(|step| step["kind"].clone()).collect();
    for kind in ["born", "stored", "deadLetter", "delivered", "returned"] {
        assert!(kinds.contains(&json!(kind)), "{kind} in {kinds:?}");
    }
    assert_eq!(trace["message"]["body"], "cG9pc29u");
    stage.run(&["trace", "K9"]).is_refused("no message K9 is known");
}
