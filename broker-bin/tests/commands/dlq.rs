//! `anchorlog dlq`, and what happens when a dead letter comes.

use serde_json::{Value, json};

use anchorlog::BrokerOptions;

use crate::stage::Stage;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A broker with so many dead letters.
fn stage(count: usize) -> Stage {
    let stage = Stage::new();
    let mut client = stage.client();
    for number in 0..count {
        client.dead_letter("T1", &format!("UNIQ_KEY=K{number};KEYS=order-{number} all"), b"\xFFpoison");
    }
    stage
}

#[test]
fn dead_letters_are_listed_and_shown() {
    let stage = stage(3);
    stage.run(&["dlq", "list"]).says(&["group", "letters", "g ", "3"]);
    assert_eq!(stage.json(&["dlq", "list"])["groups"][0]["letters"], 3);
    stage.run(&["dlq", "list", "g"]).says(&["K0", "K1", "K2", "T1", "order-1 all"]);
    stage.run(&["dlq", "list", "g", "--limit", "2"]).says(&["K1", "there may be more"]);
    let list = stage.json(&["dlq", "list", "g"]);
    let id = list["letters"][1]["message"]["id"].as_str().expect("an id");
    for name in ["K1", id] {
        stage.run(&["dlq", "show", "g", name]).says(&["K1", "RETRY_TOPIC = T1", "no text"]);
        assert_eq!(stage.json(&["dlq", "show", "g", name])["message"]["body"], "/3BvaXNvbg==");
    }
    assert_eq!(stage.json(&["dlq", "list", "g", "--key", "order-2"])["letters"][0]["message"]["uniqueKey"], "K2");
    assert_eq!(stage.json(&["dlq", "list", "g", "--from", "now+1h"])["letters"], json!([]));
    let wrong = stage.run(&["dlq", "list", "--waiting"]);
    assert_eq!((wrong.code, wrong.error.contains("name the group")), (Some(2), true));
}

#[test]
fn dead_letters_are_returned_once_each() {
    let stage = stage(70);
    let mut client = stage.client();
    stage.run(&["dlq", "replay", "g"]).error.find("--all").expect("it says what to say");
    let one = stage.run(&["dlq", "replay", "g", "K3"]);
    one.says(&["is in T1 queue 0 again", "1 dead letters are returned, 0 are not"]);
    let again = client.read("T1");
    assert!(again.len() == 32 && again.iter().all(|read| read.attempts == 0));
    let twice = stage.run(&["dlq", "replay", "g", "K3"]);
    assert_eq!(twice.code, Some(1), "{twice:?}");
    assert!(twice.out.contains("--force") && twice.out.contains("0 dead letters are returned, 1 are not"), "{twice:?}");
    assert_eq!(stage.run(&["dlq", "replay", "g", "nobody"]).code, Some(1));
    let by_key = stage.run(&["dlq", "replay", "g", "--key", "order-7", "--to-group", "--json"]);
    let told = lines(&by_key.out);
    assert_eq!((told.len(), &told[0]["message"], &told[0]["topic"]), (1, &json!("K7"), &json!("%RETRY%g")));
    assert!(client.read("%RETRY%g")[0].properties.contains("RETRY_TOPIC=T1;"));
    // All that were not, in more than one part.
    let all = stage.run(&["dlq", "replay", "g", "--all"]);
    all.says(&["68 dead letters are returned, 0 are not"]);
    stage.run(&["dlq", "list", "g", "--waiting"]).says(&["no dead letter is such a one"]);
    let group = &stage.json(&["dlq", "list"])["groups"][0];
    assert_eq!((&group["letters"], &group["replayed"]), (&json!(70), &json!(70)));
    assert_eq!(stage.run(&["dlq", "replay", "g", "--all"]).code, Some(1), "there is none left");
    let forced = stage.run(&["dlq", "replay", "g", "--from", "now-1h", "--force"]);
    forced.says(&["70 dead letters are returned, 0 are not"]);
    assert_eq!(stage.broker.counts().dead_letters_replayed, 140);
}

#[test]
fn dead_letters_are_written_to_a_new_file_whole() {
    let stage = stage(3);
    let file = stage.store.path().join("letters.jsonl");
    let path = file.to_str().expect("text");
    stage.run(&["dlq", "export", "g", "--out", path]).says(&["3 dead letters are in "]);
    let letters = lines(&std::fs::read_to_string(&file).expect("written"));
    assert_eq!(letters.len(), 3);
    for (number, letter) in letters.iter().enumerate() {
        assert_eq!(letter["message"]["uniqueKey"], format!("K{number}"));
        assert_eq!((&letter["message"]["body"], &letter["originTopic"]), (&json!("/3BvaXNvbg=="), &json!("T1")));
        assert_eq!(letter["message"]["properties"]["KEYS"], format!("order-{number} all"));
    }
    let again = stage.run(&["dlq", "export", "g", "--out", path]);
    assert_eq!(again.code, Some(2), "what is there is not overwritten: {again:?}");
    let printed = stage.run(&["dlq", "export", "g", "--key", "order-1", "--out", "-"]);
    assert_eq!(lines(&printed.out)[0]["message"]["uniqueKey"], "K1");
}

#[test]
fn somebody_is_told_when_a_dead_letter_comes() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("told");
    let whom = format!("cat >> {}", file.display()).parse().expect("a command");
    let stage = Stage::with(|options| BrokerOptions { on_dead_letter: Some(whom), ..options });
    let mut client = stage.client();
    client.dead_letter("T1", "UNIQ_KEY=K1", b"poison");
    // The other way: a consumer's own copy.
    let properties = "RETRY_TOPIC\u{1}T1\u{2}UNIQ_KEY\u{1}K2\u{2}";
    let fields = [("b", "%RETRY%g"), ("e", "0"), ("i", properties), ("j", "16"), ("l", "16"), ("a", "p")];
    client.0.ask(310, &fields, b"poison").and_then(|answer| answer.done()).expect("stored");
    for _ in 0..1000 {
        if stage.broker.counts().alarms_made > 0 && std::fs::read_to_string(&file).is_ok_and(|text| text.contains("K2"))
        {
            break;
        }
        stage.run(&["dlq", "list"]).says(&["g"]);
    }
    let told = lines(&std::fs::read_to_string(&file).expect("written"));
    let letters = stage.json(&["dlq", "list", "g"]);
    for (number, told) in told.iter().enumerate() {
        let letter = &letters["letters"][number];
        for name in ["id", "uniqueKey", "attempts"] {
            assert_eq!(told[name], letter["message"][name], "{name}");
        }
        assert_eq!(
            (&told["group"], &told["topic"], &told["originTopic"]),
            (&json!("g"), &json!("%DLQ%g"), &json!("T1"))
        );
    }
    let counts = stage.broker.counts();
    assert_eq!((told.len(), counts.dead_letters, counts.alarms_failed), (2, 2, 0));
}
