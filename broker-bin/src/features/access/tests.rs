//! Accounts and their rules over a network thread's state and a log: who is let in, and what a crash or another leader leaves of it.

use serde_json::{Value, json};

use super::{ACCESS_KEY, Account, Permission, SIGNATURE, Secret};
use crate::net::ConnectionId;
use crate::scene::{Answer, Scene, send_fields};
use crate::standing::Standing;

const SECRET: &str = "a secret key";

fn permission(text: &str) -> Permission {
    text.parse().expect("a permission")
}

fn account(topics: &[(&str, &str)], groups: &[(&str, &str)]) -> Account {
    let rules = |rules: &[(&str, &str)]| rules.iter().map(|(name, is)| ((*name).into(), permission(is))).collect();
    Account { topics: rules(topics), groups: rules(groups), ..Account::new(Secret::new(SECRET)) }
}

fn admin() -> Account {
    Account { admin: true, ..account(&[], &[]) }
}

/// Access control is on, with these accounts.
fn scene(accounts: &[(&str, Account)]) -> Scene {
    let scene = Scene::new();
    for (name, account) in accounts {
        assert_eq!(account.check(name), Ok(()));
        scene.shared.state.put_account(name, account.clone());
    }
    scene.shared.access.switch(true);
    scene
}

fn signed_with(secret: &str, name: &str, fields: &Value, body: &[u8]) -> Value {
    let mut fields = fields.clone();
    fields[ACCESS_KEY] = json!(name);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let pairs: Vec<_> =
        fields.as_object().expect("fields").iter().map(|(name, value)| (name.clone(), text(value))).collect();
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    fields[SIGNATURE] = json!(Secret::new(secret).sign(&pairs, body));
    fields
}

fn ask(scene: &mut Scene, id: ConnectionId, name: &str, code: i64, fields: &Value, body: &[u8]) -> Answer {
    scene.ask(id, code, &signed_with(SECRET, name, fields, body), body)
}

#[track_caller]
fn denied(answer: &Answer, rule: &str) {
    let remark = answer.header["remark"].as_str().unwrap_or_default();
    assert!(answer.code() == 16 && remark.contains(rule), "{rule} in {}", answer.header);
    assert!(!remark.contains(SECRET));
}

fn pull(group: &str, topic: &str) -> Value {
    json!({
        "consumerGroup": group, "topic": topic, "queueId": 0, "queueOffset": 0, "maxMsgNums": 32, "sysFlag": 4,
        "commitOffset": 0, "suspendTimeoutMillis": 0, "subscription": "*", "subVersion": 0,
    })
}

#[test]
fn who_does_not_sign_or_signs_wrongly_is_denied_everything() {
    let mut scene = scene(&[("a", admin())]);
    let id = scene.connect();
    let fields = send_fields("T1", 0, "");
    denied(&scene.ask(id, 310, &fields, b"x"), "rule AccessKey");
    denied(&scene.ask(id, 310, &signed_with(SECRET, "b", &fields, b"x"), b"x"), "rule Signature");
    denied(&scene.ask(id, 310, &signed_with("another key", "a", &fields, b"x"), b"x"), "rule Signature");
    denied(&scene.ask(id, 310, &signed_with(SECRET, "a", &fields, b"x"), b"y"), "rule Signature");
    let mut without = signed_with(SECRET, "a", &fields, b"x");
    without[SIGNATURE] = json!(null);
    denied(&scene.ask(id, 310, &without, b"x"), "rule Signature");
    let mut moved = signed_with(SECRET, "a", &fields, b"x");
    moved["b"] = json!("T2");
    let answer = scene.ask(id, 310, &moved, b"x");
    denied(&answer, "rule Signature");
    assert_eq!(answer.field("MSG_REGION"), "DefaultRegion", "a client reads it on failures, too");
    for code in [105, 34, 11, 26, 206, 30_001, 30_201, 7777] {
        denied(&scene.ask(id, code, &json!({"topic": "T1"}), b"{}"), "rule AccessKey");
    }
    assert_eq!(scene.shared.counters.read().requests_denied, 14);
    assert_eq!(ask(&mut scene, id, "a", 310, &fields, b"x").code(), 0);
    assert_eq!(scene.count("T1", 0), 1, "nothing else was stored");
}

#[test]
fn each_act_needs_its_permission_and_the_denial_names_the_rule() {
    let rules = account(&[("orders", "PUB"), ("bills", "SUB"), ("both*", "PUB|SUB")], &[("readers", "SUB")]);
    let mut scene = scene(&[("a", rules), ("root", admin())]);
    let id = scene.connect();
    for topic in ["orders", "bills", "both1", "secret"] {
        assert_eq!(ask(&mut scene, id, "root", 310, &send_fields(topic, 0, ""), b"x").code(), 0);
    }
    let mut by_a = |code, fields: &Value, body: &[u8]| ask(&mut scene, id, "a", code, fields, body);
    assert_eq!(by_a(310, &send_fields("orders", 0, ""), b"x").code(), 0);
    denied(&by_a(310, &send_fields("bills", 0, ""), b"x"), "rule topic bills=SUB of account a");
    denied(&by_a(310, &send_fields("secret", 0, ""), b"x"), "rule defaultTopicPerm=DENY");
    denied(&by_a(320, &send_fields("secret", 0, ""), b"x"), "rule defaultTopicPerm=DENY");
    assert_eq!(by_a(310, &send_fields("RMQ_SYS_TRACE_TOPIC", 0, ""), b"x").code(), 0, "everybody may say what he did");
    assert_eq!(by_a(11, &pull("readers", "bills"), b"").code(), 0);
    denied(&by_a(11, &pull("readers", "orders"), b""), "rule topic orders=PUB");
    denied(&by_a(11, &pull("others", "bills"), b""), "rule defaultGroupPerm=DENY");
    denied(&by_a(361, &pull("others", "bills"), b""), "rule defaultGroupPerm=DENY");
    let queue =
        |topic: &str, group: &str| json!({"topic": topic, "consumerGroup": group, "queueId": 0, "commitOffset": 0});
    for code in [14, 15] {
        denied(&by_a(code, &queue("orders", "readers"), b""), "rule topic orders=PUB");
        denied(&by_a(code, &queue("bills", "others"), b""), "rule defaultGroupPerm=DENY");
    }
    assert_eq!(by_a(30, &queue("orders", ""), b"").code(), 0, "either permission is enough to know a queue's bounds");
    denied(&by_a(30, &queue("secret", ""), b""), "rule defaultTopicPerm=DENY");
    denied(&by_a(12, &json!({"topic": "orders", "key": "k"}), b""), "rule topic orders=PUB");
    assert_eq!(by_a(105, &json!({"topic": "secret"}), b"").code(), 0, "whoever is known may know where queues are");
    let beat = |group: &str, topic: &str| {
        let held = json!({"topic": topic, "subString": "*", "subVersion": 1, "expressionType": "TAG"});
        let consumer = json!({
            "groupName": group, "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
            "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET", "subscriptionDataSet": [held],
        });
        json!({"clientID": "c", "consumerDataSet": [consumer], "producerDataSet": []}).to_string()
    };
    assert_eq!(by_a(34, &json!({}), beat("readers", "bills").as_bytes()).code(), 0);
    denied(&by_a(34, &json!({}), beat("readers", "orders").as_bytes()), "rule topic orders=PUB");
    denied(&by_a(34, &json!({}), beat("others", "bills").as_bytes()), "rule defaultGroupPerm=DENY");
    denied(&by_a(38, &json!({"consumerGroup": "others"}), b""), "rule defaultGroupPerm=DENY");
    let lock = json!({"consumerGroup": "others", "clientId": "c", "mqSet": []}).to_string();
    denied(&by_a(41, &json!({}), lock.as_bytes()), "rule defaultGroupPerm=DENY");
    for code in [17, 25, 26, 200, 207, 215, 206, 222, 30_001, 30_201, 30_202, 7777] {
        denied(&by_a(code, &json!({"topic": "orders"}), b"{}"), "rule admin=false");
    }
    assert_eq!(by_a(400, &json!({}), b"").code(), 3, "what is not offered is said to everybody");
}

/// A message that somebody may not consume does not come to him by its place in the log either.
#[test]
fn a_place_in_the_log_is_no_way_around_a_rule() {
    let mut scene = scene(&[("a", account(&[("own", "PUB|SUB")], &[("g", "SUB")])), ("root", admin())]);
    let id = scene.connect();
    let lsn = ask(&mut scene, id, "root", 310, &send_fields("secret", 0, ""), b"x").physical_offset();
    let own = ask(&mut scene, id, "a", 310, &send_fields("own", 0, ""), b"x").physical_offset();
    denied(&ask(&mut scene, id, "a", 33, &json!({"offset": lsn}), b""), "rule defaultTopicPerm=DENY");
    assert_eq!(ask(&mut scene, id, "a", 33, &json!({"offset": own}), b"").code(), 0);
    assert_eq!(ask(&mut scene, id, "root", 33, &json!({"offset": lsn}), b"").code(), 0);
    let back =
        |lsn: u64| json!({"group": "g", "offset": lsn, "delayLevel": 3, "originMsgId": "", "originTopic": "own"});
    denied(&ask(&mut scene, id, "a", 36, &back(lsn), b""), "rule defaultTopicPerm=DENY");
    assert_eq!(ask(&mut scene, id, "a", 36, &back(own), b"").code(), 0);
    let half = send_fields("own", 0, "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}p\u{2}UNIQ_KEY\u{1}K\u{2}");
    let mut half = half;
    half["f"] = json!("4");
    let half = ask(&mut scene, id, "a", 310, &half, b"x").physical_offset();
    denied(&ask(&mut scene, id, "a", 33, &json!({"offset": half}), b""), "rule admin=false");
}

#[test]
fn who_comes_from_a_trusted_address_need_not_sign() {
    let at_home = Account { addresses: Some("10.0.0.*".parse().expect("good")), ..account(&[], &[]) };
    let elsewhere = Account { addresses: Some("10.0.1.*".parse().expect("good")), ..account(&[], &[]) };
    let mut scene = scene(&[("home", at_home), ("else", elsewhere)]);
    let id = scene.connect();
    let fields = |name: &str| {
        let mut fields = send_fields("T1", 0, "");
        fields[ACCESS_KEY] = json!(name);
        fields
    };
    assert_eq!(scene.ask(id, 310, &fields("home"), b"x").code(), 0);
    denied(&scene.ask(id, 310, &fields("else"), b"x"), "rule Signature");
    scene.shared.state.set_trusted(vec!["10.0.0.5".parse().expect("good")]);
    assert_eq!(scene.ask(id, 310, &send_fields("T1", 0, ""), b"x").code(), 0);
    scene.shared.state.set_trusted(Vec::new());
    denied(&scene.ask(id, 310, &send_fields("T1", 0, ""), b"x"), "rule AccessKey");
}

#[test]
fn an_operator_s_change_holds_from_its_answer_on_also_after_a_crash() {
    let mut scene = scene(&[("root", admin())]);
    let id = scene.connect();
    let put = json!({"account": "a", "secret": SECRET, "defaultTopic": "SUB", "isNew": true}).to_string();
    let told = ask(&mut scene, id, "root", 30_202, &json!({}), put.as_bytes());
    assert_eq!(told.code(), 0, "{}", told.header);
    assert!(!String::from_utf8(told.body).expect("text").contains(SECRET), "it is not told");
    assert_eq!(ask(&mut scene, id, "root", 30_202, &json!({}), put.as_bytes()).code(), 1, "there is one already");
    let rules = json!({"account": "a", "topics": {"T1": "PUB"}, "groups": {"g": "SUB"}}).to_string();
    assert_eq!(ask(&mut scene, id, "root", 30_204, &json!({}), rules.as_bytes()).code(), 0);
    let bad = json!({"account": "a", "topics": {"T1": "PUT"}}).to_string();
    assert_eq!(ask(&mut scene, id, "root", 30_204, &json!({}), bad.as_bytes()).code(), 1);
    let mut scene = scene.crash();
    scene.shared.access.switch(true);
    let id = scene.connect();
    scene.with_template();
    assert_eq!(ask(&mut scene, id, "a", 310, &send_fields("T1", 0, ""), b"x").code(), 0);
    denied(&ask(&mut scene, id, "a", 310, &send_fields("T2", 0, ""), b"x"), "rule defaultTopicPerm=SUB");
    let list = ask(&mut scene, id, "root", 30_201, &json!({}), b"");
    let list: Value = serde_json::from_slice(&list.body).expect("JSON");
    assert_eq!((&list["on"], &list["accounts"][0]["account"]), (&json!(true), &json!("a")));
    assert_eq!(list["accounts"][0]["topics"], json!({"T1": "PUB"}));
    assert!(!list.to_string().contains(SECRET));
    let delete = json!({"account": "a"}).to_string();
    assert_eq!(ask(&mut scene, id, "root", 30_203, &json!({}), delete.as_bytes()).code(), 0);
    denied(&ask(&mut scene, id, "a", 310, &send_fields("T1", 0, ""), b"x"), "rule Signature");
    let mut scene = scene.crash();
    scene.shared.access.switch(true);
    let id = scene.connect();
    denied(&ask(&mut scene, id, "a", 310, &send_fields("T1", 0, ""), b"x"), "rule Signature");
    assert_eq!(ask(&mut scene, id, "root", 105, &json!({"topic": "T1"}), b"").code(), 0);
}

/// What follows a log knows who may do what, and learns what changes; it changes nothing itself.
#[test]
fn a_slave_has_the_accounts_of_its_leader() {
    let mut leader = scene(&[("root", admin()), ("a", account(&[], &[]))]);
    leader.shared.state.set_trusted(vec!["10.9.*".parse().expect("good")]);
    let id = leader.connect();
    assert_eq!(ask(&mut leader, id, "root", 105, &json!({"topic": "T1"}), b"").code(), 17);
    leader.shared.state.flush_all(&leader.shared.engine).expect("room");
    leader.settle();
    let (disk, clock) = leader.end();
    let mut slave = Scene::on(disk, clock, Standing::Slave { leader: std::sync::Arc::default() }, |_| {});
    slave.shared.access.switch(true);
    let id = slave.connect();
    let delete = json!({"account": "a"}).to_string();
    assert_eq!(ask(&mut slave, id, "root", 30_203, &json!({}), delete.as_bytes()).code(), 14);
    let list = ask(&mut slave, id, "root", 30_201, &json!({}), b"");
    let list: Value = serde_json::from_slice(&list.body).expect("JSON");
    assert_eq!((list["accounts"].as_array().map(Vec::len), &list["trusted"][0]), (Some(2), &json!("10.9.*")));
}

fn told(answer: &Answer) -> Value {
    assert_eq!(answer.code(), 0, "{}", answer.header);
    assert!(!String::from_utf8_lossy(&answer.body).contains(SECRET), "a secret goes one way");
    serde_json::from_slice(&answer.body).expect("JSON")
}

fn entry(resource: &str, actions: &[&str], decision: &str) -> Value {
    json!({"resource": resource, "actions": actions, "sourceIps": null, "decision": decision})
}

fn policies(entries: &[Value]) -> Vec<u8> {
    json!({"subject": null, "policies": [{"policyType": null, "entries": entries}]}).to_string().into_bytes()
}

/// As `mqadmin createUser`, `updateUser`, `getUser`, `listUser` and `deleteUser` of 5.3 ask.
#[test]
fn the_original_s_tools_make_users_and_show_and_change_them() {
    let mut scene = scene(&[("root", admin())]);
    let id = scene.connect();
    let named = |name: &str| json!({"username": name});
    let user = |password: &str, kind: &str| {
        json!({"username": null, "password": password, "userType": kind, "userStatus": null}).to_string().into_bytes()
    };
    let made = ask(&mut scene, id, "root", 3001, &named("a"), &user(SECRET, "Super"));
    assert_eq!((made.code(), made.body.len()), (0, 0), "{}", made.header);
    let shown = told(&ask(&mut scene, id, "root", 3004, &named("a"), b""));
    assert_eq!(
        (&shown["username"], &shown["userType"], &shown["userStatus"]),
        (&json!("a"), &json!("Super"), &json!("enable"))
    );
    assert_eq!(shown["password"], Value::Null);
    // It is an admin, and signs; then it is none, and has another secret.
    assert_eq!(ask(&mut scene, id, "a", 3002, &named("a"), &user("", "Normal")).code(), 0);
    denied(&ask(&mut scene, id, "a", 3005, &json!({"filter": ""}), b""), "admin=false");
    assert_eq!(ask(&mut scene, id, "root", 3002, &named("a"), &user("another secret", "")).code(), 0);
    denied(&ask(&mut scene, id, "a", 105, &json!({"topic": "T1"}), b""), "rule Signature");
    let all = told(&ask(&mut scene, id, "root", 3005, &json!({"filter": ""}), b""));
    assert_eq!(all.as_array().map(Vec::len), Some(2), "{all}");
    let some = told(&ask(&mut scene, id, "root", 3005, &json!({"filter": "oo"}), b""));
    assert_eq!((some.as_array().map(Vec::len), &some[0]["username"]), (Some(1), &json!("root")));
    for (code, name, body, answered, part) in [
        (3001, "a", user(SECRET, "Normal"), 1, "already"),
        (3001, "b", user("short", "Normal"), 1, "secret key"),
        (3001, "b", user(SECRET, "Odd"), 1, "Super or Normal"),
        (3001, "", user(SECRET, "Normal"), 1, "username is wanted"),
        (3002, "a", json!({"userStatus": "disable"}).to_string().into_bytes(), 1, "not switched off"),
        (3002, "b", user(SECRET, "Normal"), 3001, "no user b"),
        (3003, "b", Vec::new(), 3001, "no user b"),
        (3004, "b", Vec::new(), 3001, "no user b"),
    ] {
        let answer = ask(&mut scene, id, "root", code, &named(name), &body);
        let remark = answer.header["remark"].as_str().unwrap_or_default();
        assert!(answer.code() == answered && remark.contains(part), "{code} {name}: {}", answer.header);
    }
    assert_eq!(ask(&mut scene, id, "root", 3003, &named("a"), b"").code(), 0);
    let mut scene = scene.crash();
    scene.shared.access.switch(true);
    let id = scene.connect();
    assert_eq!(told(&ask(&mut scene, id, "root", 3005, &json!({}), b"")).as_array().map(Vec::len), Some(1));
}

/// As `mqadmin createAcl`, `updateAcl`, `getAcl`, `listAcl` and `deleteAcl` of 5.3 ask.
#[test]
fn the_original_s_tools_make_rules_that_hold_and_are_told_none_that_do_not() {
    let mut scene = scene(&[("root", admin()), ("a", account(&[], &[]))]);
    let id = scene.connect();
    let of = json!({"subject": "User:a"});
    let put = |scene: &mut Scene, code, entries: &[Value]| ask(scene, id, "root", code, &of, &policies(entries));
    denied(&ask(&mut scene, id, "a", 310, &send_fields("T1", 0, ""), b"x"), "defaultTopicPerm=DENY");
    let made = [entry("Topic:T1", &["Pub"], "Allow"), entry("Group:g*", &["Sub"], "Allow")];
    assert_eq!(put(&mut scene, 3006, &made).code(), 0);
    assert_eq!(ask(&mut scene, id, "a", 310, &send_fields("T1", 0, ""), b"x").code(), 0);
    denied(&ask(&mut scene, id, "a", 11, &pull("g1", "T1"), b""), "topic T1=PUB");
    assert_eq!(put(&mut scene, 3007, &[entry("Topic:T1", &["Pub", "Sub"], "Allow")]).code(), 0);
    assert_eq!(ask(&mut scene, id, "a", 11, &pull("g1", "T1"), b"").code(), 0);
    assert_eq!(
        put(&mut scene, 3007, &[entry("Topic:*", &["Sub"], "Allow"), entry("Topic:T2", &["All"], "Deny")]).code(),
        0
    );
    denied(&ask(&mut scene, id, "a", 11, &pull("g1", "T2"), b""), "topic T2=DENY");
    let shown = told(&ask(&mut scene, id, "root", 3009, &of, b""));
    let entries = json!([
        entry("Topic:T1", &["Pub", "Sub"], "Allow"),
        entry("Topic:T2", &["All"], "Deny"),
        entry("Group:g*", &["Sub"], "Allow"),
        entry("Topic:*", &["Sub"], "Allow"),
    ]);
    assert_eq!(shown, json!({"subject": "User:a", "policies": [{"policyType": "Custom", "entries": entries}]}));
    // What cannot be said here changes nothing, also not what came with it.
    let odd = [
        entry("Topic:T3", &["Create"], "Allow"),
        entry("Topic:T3", &["Pub"], "Deny"),
        entry("Cluster:c", &["All"], "Allow"),
        json!({"resource": "Topic:T3", "actions": ["Pub"], "sourceIps": ["10.0.0.1"], "decision": "Allow"}),
    ];
    for odd in odd {
        assert_eq!(put(&mut scene, 3006, &[entry("Topic:T4", &["Pub"], "Allow"), odd.clone()]).code(), 1, "{odd}");
    }
    let default = json!({"policies": [{"policyType": "Default", "entries": [entry("Topic:T3", &["Pub"], "Allow")]}]});
    assert_eq!(ask(&mut scene, id, "root", 3006, &of, default.to_string().as_bytes()).code(), 1);
    assert_eq!(told(&ask(&mut scene, id, "root", 3009, &of, b"")), shown);
    let listed =
        told(&ask(&mut scene, id, "root", 3010, &json!({"subjectFilter": "User:a", "resourceFilter": "T2"}), b""));
    assert_eq!(
        (listed.as_array().map(Vec::len), &listed[0]["policies"][0]["entries"][0]["resource"]),
        (Some(1), &json!("Topic:T2"))
    );
    let gone = json!({"subject": "User:a", "resource": "Topic:T2"});
    assert_eq!(ask(&mut scene, id, "root", 3008, &gone, b"").code(), 0);
    assert_eq!(ask(&mut scene, id, "root", 3008, &gone, b"").code(), 3002, "there is none any more");
    assert_eq!(
        ask(&mut scene, id, "a", 11, &pull("g1", "T2"), b"").code(),
        17,
        "as Topic:* has it; the topic is not there"
    );
    assert_eq!(ask(&mut scene, id, "root", 3008, &of, b"").code(), 0);
    assert_eq!(ask(&mut scene, id, "root", 3009, &of, b"").code(), 3002);
    denied(&ask(&mut scene, id, "a", 310, &send_fields("T1", 0, ""), b"x"), "defaultTopicPerm=DENY");
    assert_eq!(put(&mut scene, 3006, &[]).code(), 1);
    assert_eq!(ask(&mut scene, id, "root", 3009, &json!({"subject": "User:b"}), b"").code(), 3001);
    assert_eq!(ask(&mut scene, id, "root", 3009, &json!({"subject": "a"}), b"").code(), 1);
}

/// As `mqadmin updateAclConfig` and `deleteAccessConfig` of 4.9 ask.
#[test]
fn entries_of_the_original_s_file_are_made_by_its_tools_of_4_9() {
    let mut scene = scene(&[("root", admin())]);
    let id = scene.connect();
    let made = json!({
        "accessKey": "a", "secretKey": SECRET, "admin": "false", "defaultTopicPerm": "DENY", "defaultGroupPerm": "SUB",
        "topicPerms": "T1=PUB,T2=PUB|SUB", "whiteRemoteAddress": "",
    });
    assert_eq!(ask(&mut scene, id, "root", 50, &made, b"").code(), 0);
    assert_eq!(ask(&mut scene, id, "a", 310, &send_fields("T1", 0, ""), b"x").code(), 0);
    denied(&ask(&mut scene, id, "a", 11, &pull("g", "T1"), b""), "topic T1=PUB");
    // What is not said stays.
    let changed = json!({"accessKey": "a", "secretKey": SECRET, "admin": "false", "topicPerms": "T1=SUB"});
    assert_eq!(ask(&mut scene, id, "root", 50, &changed, b"").code(), 0);
    assert_eq!(ask(&mut scene, id, "a", 11, &pull("g", "T1"), b"").code(), 0);
    denied(&ask(&mut scene, id, "a", 310, &send_fields("T2", 0, ""), b"x"), "defaultTopicPerm=DENY");
    for odd in [
        json!({"accessKey": "b"}),
        json!({"accessKey": "a", "topicPerms": "T1"}),
        json!({"accessKey": "a", "defaultTopicPerm": "ALL"}),
        json!({"accessKey": "a", "aclFileFullPath": "/etc/plain_acl.yml"}),
        json!({"secretKey": SECRET}),
    ] {
        assert_eq!(ask(&mut scene, id, "root", 50, &odd, b"").code(), 1, "{odd}");
    }
    assert_eq!(ask(&mut scene, id, "root", 51, &json!({"accessKey": "a"}), b"").code(), 0);
    denied(&ask(&mut scene, id, "a", 310, &send_fields("T1", 0, ""), b"x"), "rule Signature");
    assert_eq!(ask(&mut scene, id, "root", 51, &json!({"accessKey": "a"}), b"").code(), 22);
    for code in [52, 53, 54] {
        let answer = ask(&mut scene, id, "root", code, &json!({}), b"");
        assert!(
            answer.code() == 3 && answer.header["remark"].as_str().is_some_and(|remark| remark.contains("acl-file"))
        );
    }
}

#[test]
fn what_the_original_s_tools_change_is_an_administrator_s_and_a_leader_s() {
    let mut leader = scene(&[("root", admin()), ("a", account(&[("T1", "PUB|SUB")], &[]))]);
    let in_file = Account { from_file: true, ..account(&[], &[]) };
    leader.shared.state.put_account("f", in_file);
    let id = leader.connect();
    let changes = [
        (50, json!({"accessKey": "f", "secretKey": SECRET}), Vec::new()),
        (51, json!({"accessKey": "f"}), Vec::new()),
        (3002, json!({"username": "f"}), json!({"userType": "Super"}).to_string().into_bytes()),
        (3003, json!({"username": "f"}), Vec::new()),
        (3006, json!({"subject": "User:f"}), policies(&[entry("Topic:T1", &["Pub"], "Allow")])),
        (3007, json!({"subject": "User:f"}), policies(&[entry("Topic:T1", &["Pub"], "Allow")])),
        (3008, json!({"subject": "User:f"}), Vec::new()),
    ];
    for (code, fields, body) in &changes {
        denied(&ask(&mut leader, id, "a", *code, fields, body), "admin=false");
        let answer = ask(&mut leader, id, "root", *code, fields, body);
        let remark = answer.header["remark"].as_str().unwrap_or_default();
        assert!(answer.code() == 1 && remark.contains("change it there"), "{code}: {}", answer.header);
    }
    for (code, fields) in [
        (3004, json!({"username": "root"})),
        (3005, json!({})),
        (3009, json!({"subject": "User:a"})),
        (3010, json!({})),
    ] {
        denied(&ask(&mut leader, id, "a", code, &fields, b""), "admin=false");
    }
    leader.shared.state.flush_all(&leader.shared.engine).expect("room");
    leader.settle();
    let (disk, clock) = leader.end();
    let mut slave = Scene::on(disk, clock, Standing::Slave { leader: std::sync::Arc::default() }, |_| {});
    slave.shared.access.switch(true);
    let id = slave.connect();
    for (code, fields, body) in &changes {
        assert_eq!(ask(&mut slave, id, "root", *code, fields, body).code(), 14, "{code}");
    }
    assert_eq!(told(&ask(&mut slave, id, "root", 3005, &json!({}), b"")).as_array().map(Vec::len), Some(3));
}
