//! `anchorlog user` and `anchorlog acl`.

use anchorlog::BrokerOptions;
use serde_json::json;

use crate::stage::{Stage, ended};

#[test]
fn users_are_made_changed_and_taken_away() {
    let stage = Stage::new();
    stage.run(&["user", "list"]).says(&["nobody is asked who he is", "there are no users"]);
    let made = stage.json(&["user", "create", "app", "--default-topic", "PUB"]);
    assert!(made["secret"].as_str().is_some_and(|secret| secret.len() >= 32), "{made}");
    assert_eq!((&made["account"], &made["admin"]), (&json!("app"), &json!(false)));
    stage.run(&["user", "create", "app"]).is_refused("there is an account app already");
    stage.run(&["user", "create", "root", "--admin"]).says(&["admin           yes", "secret key"]);
    let shown = stage.json(&["user", "show", "app"]);
    assert!(shown["secret"].is_null(), "nobody shows it again: {shown}");
    stage.run(&["acl", "set", "app", "--topic", "orders-*=PUB|SUB", "--group", "g=SUB"]).says(&["orders-*=PUB|SUB"]);
    stage.run(&["acl", "list"]).says(&["app", "topic", "orders-*", "PUB|SUB", "group"]);
    stage.run(&["acl", "unset", "app", "--group", "g"]);
    assert_eq!(stage.json(&["user", "show", "app"])["groups"], json!({}));
    stage.run(&["acl", "unset", "app", "--group", "g"]).is_refused("there is no rule for g");
    stage.run(&["acl", "set", "app", "--topic", "a=PUT"]).is_refused("DENY, PUB, SUB or PUB|SUB");
    assert_eq!(stage.run(&["acl", "set", "app"]).code, Some(2), "what is to be set?");
    stage.run(&["user", "set", "app", "--from", "nowhere"]).is_refused("no address");
    stage.run(&["user", "set", "app", "--from", "10.0.*"]).says(&["from 10.0.*"]);
    stage.run(&["user", "delete", "app"]).says(&["user app is gone"]);
    stage.run(&["user", "delete", "app"]).is_refused("there is no account app");
}

/// With acl on, operators sign too.
#[test]
fn commands_sign_as_the_account_they_are_given() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, secret) = (dir.path().join("plain_acl.yml"), dir.path().join("secret"));
    write(&file, "accounts:\n- accessKey: operator\n  secretKey: operator-secret\n  admin: true\n");
    write(&secret, "operator-secret\n");
    let stage = Stage::with(|options| BrokerOptions { acl_file: Some(file), acl: true, ..options });
    stage.run(&["topic", "list"]).is_refused("rule AccessKey");
    let secret = secret.to_str().expect("text");
    let signed = ["--access-key", "operator", "--secret-key-file", secret];
    let run = |words: &[&str]| stage.run(&[words, &signed].concat());
    run(&["topic", "list"]).says(&[""]);
    run(&["user", "list"]).says(&["operator", "the file"]);
    run(&["user", "delete", "operator"]).is_refused("acl-file");
    let done = ended(&["user", "list", "--access-key", "operator"]);
    assert_eq!((done.code, done.error.contains("--secret-key-file")), (Some(2), true), "{done:?}");
}

#[expect(clippy::disallowed_methods, reason = "a configuration file is not a durable one of the engine")]
fn write(path: &std::path::Path, text: &str) {
    std::fs::write(path, text).expect("written");
}
