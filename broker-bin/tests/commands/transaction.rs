//! `anchorlog transaction`.

use std::time::Duration;

use anchorlog::BrokerOptions;

use crate::stage::{Client, Stage};

fn begin(client: &mut Client, key: &str) {
    client.send("T1", &format!("TRAN_MSG=true;PGROUP=pg;UNIQ_KEY={key};KEYS=order-{key}"), b"half");
}

#[test]
fn pending_transactions_are_listed_shown_and_decided() {
    let stage = Stage::new();
    let mut client = stage.client();
    for key in ["K1", "K2", "K3"] {
        begin(&mut client, key);
    }
    stage.run(&["transaction", "list"]).says(&["id", "pending", "pg", "T1", "K1", "order-K2", "K3", "next asked"]);
    let list = stage.json(&["transaction", "list"]);
    let id = |number: usize| list["transactions"][number]["id"].as_str().expect("an id").to_owned();
    stage.run(&["transaction", "show", &id(0)]).says(&["pending", "K1", "KEYS = order-K1", "half"]);
    let first = stage.run(&["transaction", "list", "--limit", "2"]);
    first.says(&["K1", "K2", "there may be more: --after "]);
    assert!(!first.out.contains("K3"));
    let rest = stage.json(&["transaction", "list", "--after", &id(1)]);
    assert_eq!(rest["transactions"].as_array().map(Vec::len), Some(1));
    assert_eq!(stage.json(&["transaction", "list", "--key", "order-K3"])["transactions"][0]["id"], id(2));
    stage.run(&["transaction", "commit", &id(0)]).says(&["is committed"]);
    stage.run(&["transaction", "commit", &id(0)]).says(&["is committed"]);
    stage.run(&["transaction", "rollback", &id(0)]).is_refused("committed already");
    assert_eq!(stage.json(&["transaction", "rollback", &id(1)])["state"], "rolledBack");
    assert_eq!(client.read("T1").len(), 1);
    stage.run(&["transaction", "show", &id(1)]).says(&["rolled back"]);
    assert_eq!(stage.json(&["transaction", "list"])["transactions"].as_array().map(Vec::len), Some(1));
}

/// K-93: it is kept, shown, and can be resolved still.
#[test]
fn a_transaction_that_nobody_is_asked_about_any_more_is_resolved_by_hand() {
    let stage = Stage::with(|options| BrokerOptions {
        transaction_timeout: Duration::from_millis(100),
        transaction_check_interval: Duration::from_millis(100),
        transaction_check_max: 1,
        ..options
    });
    let mut client = stage.client();
    begin(&mut client, "K1");
    let beat = br#"{"clientID":"p@1","producerDataSet":[{"groupName":"pg"}],"consumerDataSet":[]}"#;
    client.0.ask(34, &[], beat).and_then(|answer| answer.done()).expect("taken");
    let parked = (0..600).find_map(|_| {
        let list = stage.json(&["transaction", "list", "--parked"]);
        list["transactions"][0]["id"].as_str().map(str::to_owned)
    });
    let parked = parked.expect("parked in time");
    stage.run(&["transaction", "list"]).says(&["parked", "order-K1"]);
    stage.run(&["transaction", "commit", &parked]).says(&["is committed"]);
    assert_eq!(client.read("T1")[0].body, b"half");
    stage.run(&["transaction", "list"]).says(&["every transaction is decided"]);
}
