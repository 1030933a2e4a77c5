//! `anchorlog delay`.

use crate::stage::Stage;

#[test]
fn what_waits_is_listed_and_taken_back() {
    let stage = Stage::new();
    let mut client = stage.client();
    stage.run(&["delay", "list"]).says(&["nothing is to be delivered later"]);
    client.send("T1", "UNIQ_KEY=K1;KEYS=order-1;DELAY=18", b"two hours");
    client.send("T1", "UNIQ_KEY=K2;TIMER_DELAY_SEC=60", b"a minute");
    client.send("T2", "UNIQ_KEY=K3;DELAY=5", b"a minute");
    stage.run(&["delay", "list"]).says(&["due", "level", "time", "K1 order-1", "K2", "K3", "T2"]);
    let list = stage.json(&["delay", "list", "--topic", "T1"]);
    let keys: Vec<_> = list["delays"].as_array().expect("a list").iter().map(|one| one["keys"][0].clone()).collect();
    assert_eq!(keys, ["K2", "K1"], "in the order in which they fall due");
    assert_eq!(stage.json(&["delay", "list", "--to", "now+10m"])["delays"].as_array().map(Vec::len), Some(2));
    assert_eq!(stage.json(&["delay", "list", "--from", "now+10m"])["delays"].as_array().map(Vec::len), Some(1));
    assert_eq!(stage.json(&["delay", "list", "--key", "order-1"])["delays"].as_array().map(Vec::len), Some(1));
    let id = list["delays"][1]["id"].as_str().expect("an id");
    stage.run(&["delay", "cancel", id]).says(&["is cancelled: it was due in T1 at "]);
    stage.run(&["delay", "cancel", id]).is_refused("no such message waits");
    assert_eq!(stage.json(&["delay", "list"])["delays"].as_array().map(Vec::len), Some(2));
    client.send("T1", "UNIQ_KEY=K4", b"poison");
    let read = client.read("T1").pop().expect("sent");
    client.send_back(&read, "18");
    let retry = stage.json(&["delay", "list", "--topic", "%RETRY%g"])["delays"][0]["id"].clone();
    let retry = retry.as_str().expect("an id");
    stage.run(&["delay", "cancel", retry]).is_refused("--force");
    assert_eq!(stage.json(&["delay", "cancel", retry, "--force"])["kind"], "retry");
}
