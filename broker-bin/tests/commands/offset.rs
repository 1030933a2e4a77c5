//! `anchorlog offset`.

use serde_json::json;

use crate::stage::Stage;

#[test]
fn a_group_is_shown_where_it_is_and_sent_elsewhere() {
    let stage = Stage::new();
    let mut client = stage.client();
    for _ in 0..5 {
        client.send("T1", "", b"x");
    }
    client.read("T1");
    let fields = [("consumerGroup", "g"), ("topic", "T1"), ("queueId", "0"), ("commitOffset", "3")];
    client.0.ask(15, &fields, b"").and_then(|answer| answer.done()).expect("committed");
    stage.run(&["offset", "show", "g"]).says(&["T1", "committed", "2 messages behind in all"]);
    let shown = stage.json(&["offset", "show", "g", "--topic", "T1"]);
    assert_eq!(shown["behind"], 2);
    let row = &shown["queues"][0];
    assert_eq!((&row["committed"], &row["next"], &row["behind"]), (&json!(3), &json!(5), &json!(2)));
    assert!(row["lastMs"].as_u64().is_some_and(|ms| ms > 1_700_000_000_000), "{row}");
    let committed = |stage: &Stage| stage.json(&["offset", "show", "g"])["queues"][0]["committed"].clone();
    stage.run(&["offset", "reset", "g", "T1", "--to", "earliest"]).says(&["goes on at"]);
    assert_eq!(committed(&stage), 0);
    let reset = stage.json(&["offset", "reset", "g", "T1", "--to-offset", "4", "--queue", "0"]);
    assert_eq!(reset, json!({"group": "g", "queues": [{"topic": "T1", "queue": 0, "offset": 4}]}));
    stage.run(&["offset", "reset", "g", "T1", "--to", "now-1h"]).says(&["goes on at"]);
    assert_eq!(committed(&stage), 0);
    stage.run(&["offset", "reset", "g", "T1", "--to", "latest", "--only-back"]).says(&["goes on at"]);
    assert_eq!(committed(&stage), 0, "it goes back only");
    stage.run(&["offset", "reset", "g", "T1", "--to", "latest"]).says(&["goes on at"]);
    assert_eq!(committed(&stage), 5);
    stage.run(&["offset", "reset", "nobody", "T1", "--to", "latest"]).is_refused("nobody");
    stage.run(&["offset", "reset", "g", "T9", "--to", "latest"]).is_refused("T9");
    for words in [&["offset", "reset", "g", "T1"][..], &["offset", "reset", "g", "T1", "--to-offset", "4"]] {
        assert_eq!(stage.run(words).code, Some(2), "{words:?}");
    }
    stage.run(&["offset", "show", "nobody"]).says(&["has consumed nothing"]);
}
