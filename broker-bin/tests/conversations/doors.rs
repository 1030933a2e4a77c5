//! Who is let in, over a real socket: signatures and rules.

use std::path::Path;
use std::time::{Duration, Instant};

use anchorlog::features::access::{ACCESS_KEY, SIGNATURE, Secret};
use anchorlog::{BrokerOptions, Driver};
use serde_json::{Value, json};

use crate::over_every_driver;
use crate::peer::{Frame, Peer, heartbeat, pull_fields, send_fields};
use crate::stage::Stage;

over_every_driver! {
    what_is_not_signed_is_denied_and_the_connection_goes_on,
    each_rule_of_a_file_is_heeded_and_a_change_of_it_holds_without_a_restart,
    a_file_that_cannot_be_understood_changes_nothing,
    accounts_outlive_a_restart,
}

const FILE: &str = "\
accounts:
  - accessKey: operator
    secretKey: operator-secret
    admin: true
  - accessKey: application
    secretKey: application-secret
    defaultTopicPerm: DENY
    defaultGroupPerm: DENY
    topicPerms:
      - orders=PUB
      - bills=SUB
    groupPerms:
      - billing=SUB
";

#[expect(clippy::disallowed_methods, reason = "a configuration file is not a durable one of the engine")]
pub(crate) fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
}

/// A request's fields, signed.
fn signed(name: &str, secret: &str, fields: &Value, body: &[u8]) -> Value {
    let mut fields = if fields.is_null() { json!({}) } else { fields.clone() };
    fields[ACCESS_KEY] = json!(name);
    let pairs = fields.as_object().expect("fields").iter();
    let pairs: Vec<_> = pairs.map(|(name, value)| (name.as_str(), value.as_str().expect("text"))).collect();
    let signature = Secret::new(secret).sign(&pairs, body);
    fields[SIGNATURE] = json!(signature);
    fields
}

/// Asks as this account, whose secret is its name's.
fn ask(peer: &mut Peer, name: &str, code: i64, fields: &Value, body: &[u8]) -> Frame {
    let fields = signed(name, &format!("{name}-secret"), fields, body);
    peer.ask(code, &fields, body)
}

#[track_caller]
fn denied(answer: Frame, rule: &str) {
    let answer = answer.expect(16);
    assert!(answer.remark().contains(rule), "{rule} in {}", answer.remark());
}

fn guarded(driver: Driver, file: &Path) -> Stage {
    let file = file.to_owned();
    Stage::with(driver, |options| BrokerOptions { acl: true, acl_file: Some(file), ..options })
}

/// A file in a directory of its own.
fn acl_file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = crate::stage::store();
    let path = dir.path().join("plain_acl.yml");
    write(&path, text);
    (dir, path)
}

fn what_is_not_signed_is_denied_and_the_connection_goes_on(driver: Driver) {
    let (_dir, file) = acl_file(FILE);
    let stage = guarded(driver, &file);
    let mut peer = stage.peer();
    denied(peer.send_message("orders", 0, b"x", ""), "rule AccessKey");
    denied(peer.ask(34, &json!(null), &heartbeat("c", "billing", "bills", "*", 1)), "rule AccessKey");
    denied(peer.ask(105, &json!({"topic": "orders"}), &[]), "rule AccessKey");
    let fields = signed("application", "guessed", &send_fields("orders", 0, ""), b"x");
    denied(peer.ask(310, &fields, b"x"), "rule Signature");
    let fields = signed("nobody", "guessed", &send_fields("orders", 0, ""), b"x");
    denied(peer.ask(310, &fields, b"x"), "rule Signature");
    // Nobody hears of it, and nothing happens.
    peer.send_oneway(310, &send_fields("orders", 0, ""), b"x");
    ask(&mut peer, "application", 310, &send_fields("orders", 0, ""), b"x").expect(0);
    assert_eq!(stage.broker.counts().requests_denied, 6);
}

fn each_rule_of_a_file_is_heeded_and_a_change_of_it_holds_without_a_restart(driver: Driver) {
    let (_dir, file) = acl_file(FILE);
    let stage = guarded(driver, &file);
    let mut peer = stage.peer();
    ask(&mut peer, "operator", 310, &send_fields("bills", 0, ""), b"x").expect(0);
    ask(&mut peer, "application", 310, &send_fields("orders", 0, ""), b"x").expect(0);
    denied(ask(&mut peer, "application", 310, &send_fields("bills", 0, ""), b"x"), "rule topic bills=SUB");
    denied(ask(&mut peer, "application", 310, &send_fields("others", 0, ""), b"x"), "rule defaultTopicPerm=DENY");
    let pull = |group: &str, topic: &str| pull_fields(group, topic, 0, 0, 4, "*");
    ask(&mut peer, "application", 11, &pull("billing", "bills"), &[]).expect(0);
    denied(ask(&mut peer, "application", 11, &pull("billing", "orders"), &[]), "rule topic orders=PUB");
    denied(ask(&mut peer, "application", 11, &pull("others", "bills"), &[]), "rule defaultGroupPerm=DENY");
    ask(&mut peer, "application", 34, &json!({}), &heartbeat("c", "billing", "bills", "*", 1)).expect(0);
    denied(
        ask(&mut peer, "application", 34, &json!({}), &heartbeat("c", "others", "bills", "*", 1)),
        "rule defaultGroupPerm",
    );
    for code in [17, 25, 206, 215, 30_001, 30_201] {
        denied(ask(&mut peer, "application", code, &json!({"topic": "orders"}), b"{}"), "rule admin=false");
    }
    ask(&mut peer, "operator", 206, &json!({}), &[]).expect(0);
    write(&file, &FILE.replace("bills=SUB", "bills=PUB|SUB").replace("operator", "successor"));
    let fields = send_fields("bills", 0, "");
    eventually("the file's change holds", || ask(&mut peer, "application", 310, &fields, b"x").code() == 0);
    denied(ask(&mut peer, "operator", 206, &json!({}), &[]), "rule Signature");
    ask(&mut peer, "successor", 206, &json!({}), &[]).expect(0);
    assert_eq!(stage.broker.counts().access_reloads, 2);
}

#[track_caller]
pub(crate) fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let begun = now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test that waits for another thread")]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

#[expect(clippy::disallowed_methods, reason = "a test that waits for another thread")]
fn now() -> Instant {
    Instant::now()
}

fn a_file_that_cannot_be_understood_changes_nothing(driver: Driver) {
    let (_dir, file) = acl_file(FILE);
    let stage = guarded(driver, &file);
    let mut peer = stage.peer();
    write(&file, "accounts:\n  - accesKey: mistyped\n");
    eventually("it is noticed", || stage.broker.counts().access_reloads_failed > 0);
    ask(&mut peer, "application", 310, &send_fields("orders", 0, ""), b"x").expect(0);
    assert_eq!(stage.broker.counts().access_reloads_failed, 1, "and said once");
    let store = crate::stage::store();
    let options = BrokerOptions { acl_file: Some(file), ..crate::stage::options(store.path(), driver) };
    let error = anchorlog::Broker::start(options).expect_err("a start is refused").to_string();
    assert!(error.contains("plain_acl.yml: line 2: accesKey is not understood"), "{error}");
}

/// What stands in the log needs no file.
fn accounts_outlive_a_restart(driver: Driver) {
    let (_dir, file) = acl_file(FILE);
    let Stage { broker, store } = guarded(driver, &file);
    let mut peer = Peer::connect(broker.address());
    let put =
        json!({"account": "by-hand", "secret": "by-hand-secret", "defaultTopic": "PUB", "isNew": true}).to_string();
    ask(&mut peer, "operator", 30_202, &json!({}), put.as_bytes()).expect(0);
    let change = json!({"account": "application", "admin": true}).to_string();
    let refused = ask(&mut peer, "operator", 30_202, &json!({}), change.as_bytes()).expect(1);
    assert!(refused.remark().contains("acl-file"), "{}", refused.remark());
    broker.stop().expect("a clean stop");
    let options = BrokerOptions { acl: true, ..crate::stage::options(store.path(), driver) };
    let broker = anchorlog::Broker::start(options).expect("a broker again");
    let mut peer = Peer::connect(broker.address());
    ask(&mut peer, "by-hand", 310, &send_fields("T1", 0, ""), b"x").expect(0);
    ask(&mut peer, "application", 310, &send_fields("orders", 0, ""), b"x").expect(0);
    denied(peer.send_message("orders", 0, b"x", ""), "rule AccessKey");
}
