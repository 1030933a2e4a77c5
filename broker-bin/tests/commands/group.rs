//! `anchorlog group`.

use serde_json::{Value, json};

use crate::stage::{Client, Stage};

fn beat(client: &mut Client, id: &str, expression: &str) {
    let subscription = json!({
        "classFilterMode": false, "codeSet": [], "expressionType": "TAG", "subString": expression, "subVersion": 1,
        "tagsSet": [], "topic": "T1",
    });
    let body = json!({
        "clientID": id, "producerDataSet": [], "consumerDataSet": [{
            "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET", "consumeType": "CONSUME_PASSIVELY", "groupName": "g",
            "messageModel": "CLUSTERING", "unitMode": false, "subscriptionDataSet": [subscription],
        }],
    });
    client.0.ask(34, &[], body.to_string().as_bytes()).expect("an answer");
}

#[test]
fn a_group_is_shown_with_its_members_their_differences_and_how_far_it_is() {
    let stage = Stage::new();
    stage.run(&["group", "list"]).says(&["there are no groups"]);
    let (mut first, mut second) = (stage.client(), stage.client());
    first.send("T1", "", b"x");
    beat(&mut first, "c@1", "A");
    first.send("T1", "", b"x");
    stage.run(&["group", "show", "g"]).says(&["strict          no", "c@1", "CLUSTERING", "T1 A", "127.0.0.1:"]);
    let shown = stage.json(&["group", "show", "g"]);
    let row = shown["queues"].as_array().expect("a list").iter().find(|row| row["topic"] == "T1" && row["queue"] == 0);
    let row = row.expect("of the topic");
    assert!(row["behind"].as_u64().is_some_and(|behind| behind >= 1) && row["oldestMs"].is_u64(), "{row}");
    beat(&mut second, "c@2", "A || B");
    stage.run(&["group", "show", "g"]).says(&["MEMBERS DIFFER", "in what they subscribe of T1", "A || B", "c@2"]);
    let list = stage.json(&["group", "list"]);
    let group = &list["groups"][0];
    let told = (&group["group"], &group["members"], &group["differ"], &group["strict"]);
    assert_eq!(told, (&json!("g"), &json!(2), &json!(true), &json!(false)));
    stage.run(&["group", "list"]).says(&["g", "members differ"]);
    stage.run(&["group", "set", "g", "--strict", "true"]).says(&["strict          yes"]);
    let mut third = stage.client();
    beat(&mut third, "c@3", "C");
    stage.run(&["group", "show", "g"]).says(&["KEPT OUT", "c@3"]);
    assert_eq!(stage.json(&["group", "set", "g", "--strict", "false"])["settings"]["strict"], Value::Bool(false));
    stage.run(&["group", "show", "nobody"]).is_refused("there is no consumer group nobody");
    assert_eq!(stage.run(&["group", "set", "g"]).code, Some(2), "what is to be set?");
}
